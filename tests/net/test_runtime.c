/* Containers for real (root): a busybox root, run to its end, logs, exec, stop, limits, security, adoption by a
 * new runtime, and nothing left behind. Run by tests/run.d. */
#include "runtime_fixture.h"
#include <poll.h>

static void test_run(void **state)
{
    (void)state;
    assert_int_equal(run("echo hello; echo oops >&2; hostname; id -u; exit 3"), 3);
    assert_non_null(strstr(seen, "hello\n"));
    assert_string_equal(seen_err, "oops\n");
    assert_non_null(strstr(seen, "box\n"));
    assert_int_equal(run("sh -c 'kill -9 $$; true'; exit $?"), 137);
    assert_int_equal(run("echo $$; ps | wc -l; ls /proc/1/fd; ls /dev"), 0);
    assert_true(str_starts(seen, "1\n"));
}

static void test_secure(void **state)
{
    (void)state;
    assert_int_equal(run("mount -t tmpfs x /mnt"), 1);
    assert_int_equal(run("echo x > /proc/sysrq-trigger"), 1);
    assert_int_equal(run("echo x > /proc/sys/kernel/hostname"), 1);
    assert_int_equal(run("wc -c < /proc/timer_list; grep -E 'CapEff|Seccomp:|NoNew' /proc/self/status"), 0);

    assert_non_null(strstr(seen, "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n"));
    /* A node made with CAP_MKNOD is dead. */
    assert_int_equal(run("mknod /tmp/d b 259 0 && ! cat /tmp/d; mknod /dev/d c 1 1 && ! head -c1 /dev/d"), 0);
    assert_int_equal(run("unshare -m true"), 1);
    assert_int_equal(run("chown 7:7 /tmp && test $(stat -c %u /tmp) = 7"), 0);
}

static void test_user_env_cwd(void **state)
{
    struct container_spec s;
    (void)state;
    spec_for(&s, "id -u; id -g; pwd; echo $A $HOME; id -G; grep CapEff /proc/self/status");
    str_set(&s.user, "bob");
    str_set(&s.cwd, "/new/place");
    strs_add(&s.env, "A=b c");
    s.no_new_privs = true;
    assert_int_equal(run_spec(&s), 0);
    assert_string_equal(seen, "1000\n1001\n/new/place\nb c /home/bob\n1001 50\nCapEff:\t0000000000000000\n");
    spec_for(&s, "true");
    str_set(&s.user, "nobody-here");
    start(&s);
    assert_int_equal(result, -E_INVALID);
    assert_non_null(strstr(error, "not in the image's /etc/passwd"));
    runtime_delete(rt, s.id, on_done, NULL);
    wait_done();
    container_spec_clear(&s);
}

static void test_missing_program(void **state)
{
    struct container_spec s;
    (void)state;
    spec_for(&s, "x");
    str_set(&s.argv.v[0], "nosuchprogram");
    start(&s);
    assert_int_equal(result, -E_INVALID);
    assert_non_null(strstr(error, "exec \"nosuchprogram\""));
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 127);
    runtime_delete(rt, s.id, on_done, NULL);
    wait_done();
    container_spec_clear(&s);
}

static void test_mounts_files(void **state)
{
    struct container_spec s;
    struct stat st;
    (void)state;
    AUTO_FREE char *volume = path_join(base, "volume");
    AUTO_FREE char *inside = path_join(base, "volume/made");
    mkdir(volume, 0755);
    spec_for(&s, "echo 1 > /data/made; cat /etc/hosts /run/secrets/key; ! echo x > /ro/y; ! echo x > /run/secrets/key; "
                 "df /run/secrets/key | tail -1 | cut -d' ' -f1; touch /x 2>/dev/null || echo rootro; ls /vol; ls -l /link/");
    s.read_only = true;
    struct container_mount *m = REC_ADD(&s.mounts);
    str_set(&m->source, volume);
    str_set(&m->target, "/data");
    m = REC_ADD(&s.mounts);
    str_set(&m->source, volume);
    str_set(&m->target, "/ro");
    m->read_only = true;
    m = REC_ADD(&s.mounts);
    m->type = CONTAINER_TMPFS;
    str_set(&m->target, "/tmpfs/deep");
    m = REC_ADD(&s.mounts); /* /link -> /../../../tmp of the host in the image: must stay inside */
    str_set(&m->source, volume);
    str_set(&m->target, "/link");
    struct container_file *f = REC_ADD(&s.files);
    str_set(&f->path, "/etc/hosts");
    f->mode = 0644;
    f->data = (struct bytes){ xmemdup("127.0.0.1 me\n", 13), 13 };
    f = REC_ADD(&s.files);
    str_set(&f->path, "/run/secrets/key");
    f->mode = 0400;
    f->secret = true;
    f->data = (struct bytes){ xmemdup("hush\n", 5), 5 };
    assert_int_equal(run_spec(&s), 0);
    assert_non_null(strstr(seen, "127.0.0.1 me\nhush\n"));
    assert_non_null(strstr(seen, "tmpfs\nrootro\n"));
    assert_int_equal(stat(inside, &st), 0);
}

static void test_limits(void **state)
{
    struct container_spec s;
    (void)state;
    spec_for(&s, "head -c 200000000 /dev/zero | tail -c 100000000 > /dev/null");
    s.memory_bytes = 32 << 20;
    start(&s);
    wait_exit(s.id);
    assert_true(runtime_find(rt, s.id)->state.oom_killed);
    runtime_delete(rt, s.id, on_done, NULL);
    wait_done();
    container_spec_clear(&s);
    spec_for(&s, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo all");
    s.pids_limit = 6;
    assert_int_not_equal(run_spec(&s), 0);
    assert_null(strstr(seen, "all"));
}

static void test_exec_stop_adopt(void **state)
{
    struct container_spec s;
    struct exec_spec x = { .stdin_open = true };
    (void)state;
    spec_for(&s, "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done");
    start(&s);
    assert_int_equal(result, 0);
    wait_said(s.id, "up");
    strs_add(&x.env, "X=y");
    exec_start(s.id, &x, "cat; echo $X; hostname; echo err >&2; exit 9");
    if (result < 0)
        fail_msg("exec: %s", error);
    stream_write(talk, "in put\n", 7);
    stream_close_write(talk);
    until(exec_is_over, NULL, "the exec");
    assert_int_equal(exec_code, 9);
    assert_non_null(strstr(heard, "in put\n"));
    assert_non_null(strstr(heard, "y\n"));
    assert_non_null(strstr(heard, "box\n"));
    assert_non_null(strstr(heard, "err\n"));
    /* The daemon goes, the container stays; a new one finds it and stops it. */
    pid_t pid = (pid_t)runtime_find(rt, s.id)->state.pid;
    runtime_close(rt);
    open_runtime();
    const struct container *c = runtime_find(rt, s.id);
    assert_non_null(c);
    assert_int_equal(c->state.phase, CONTAINER_RUNNING);
    assert_int_equal(c->state.pid, pid);
    runtime_stop(rt, s.id, 5 * SEC_NS, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 5);
    read_logs(s.id, false);
    assert_string_equal(seen, "up\nbye\n");
    /* Started again: same files, one more run in the log. */
    int64_t created_ns = runtime_find(rt, s.id)->state.created_ns;
    runtime_start(rt, s.id, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    assert_true(created_ns > 0 && runtime_find(rt, s.id)->state.created_ns == created_ns);
    runtime_stop(rt, s.id, 0, on_done, NULL); /* no grace: killed */
    wait_done();
    runtime_delete(rt, s.id, on_done, NULL);
    wait_done();
    container_spec_clear(&s);
}

static void test_init_reaps(void **state)
{
    struct container_spec s;
    (void)state;
    spec_for(&s, "echo $$; exec sleep 100");
    s.init = true;
    start(&s);
    runtime_stop(rt, s.id, 5 * SEC_NS, on_done, NULL); /* process 1 without init would ignore it */
    wait_done();
    const struct container *c = runtime_find(rt, s.id);
    assert_int_equal(c->state.exit_code, 143);
    runtime_delete(rt, s.id, on_done, NULL);
    wait_done();
    container_spec_clear(&s);
}

/* Everything that a frozen container must still do; cgroup v1 and v2 differ in all of it. */
static void test_pause(void **state)
{
    struct container_spec s, other = { 0 };
    struct container_stats before, after;
    struct err e;
    size_t n_pids;
    (void)state;
    spec_for(&s, "echo up; sleep 1000 & while :; do :; done");
    s.memory_bytes = 64 << 20;
    s.pids_limit = 20;
    start(&s);
    wait_said(s.id, "up");
    runtime_pause(rt, s.id, true, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    assert_int_equal(runtime_find(rt, s.id)->state.phase, CONTAINER_PAUSED);
    assert_int_equal(runtime_stats(rt, s.id, &before, &e), 0);
    assert_true(before.cpu_ns > 0 && before.memory_bytes > 0 && before.memory_limit == 64 << 20 && before.pids_limit == 20);
    free(runtime_pids(rt, s.id, &n_pids));
    assert_int_equal(before.n_pids, n_pids);
    poll(NULL, 0, 200);
    assert_int_equal(runtime_stats(rt, s.id, &after, &e), 0);
    assert_int_equal(after.cpu_ns, before.cpu_ns); /* a busy loop that stands still */
    runtime_pause(rt, s.id, true, on_done, NULL);
    wait_done();
    assert_int_equal(result, -E_CONFLICT);
    container_spec_copy(&other, &s);
    other.memory_bytes = 96 << 20;
    other.pids_limit = 0;
    other.nano_cpus = 500000000;
    assert_int_equal(runtime_update(rt, &other, &e), 0);
    assert_int_equal(runtime_stats(rt, s.id, &after, &e), 0);
    assert_true(after.memory_limit == 96 << 20 && after.pids_limit <= 0);
    /* Only what differs is written: cgroup v2 may have taken a controller away meanwhile. */
    AUTO_FREE char *controllers = xasprintf("/sys/fs/cgroup/%s/cgroup.subtree_control", group);
    bool v2 = access(controllers, F_OK) == 0;
    assert_true(!v2 || file_poke(controllers, "-pids", &e) == 0);
    other.memory_bytes = 128 << 20;
    assert_int_equal(runtime_update(rt, &other, &e), 0);
    assert_int_equal(runtime_stats(rt, s.id, &after, &e), 0);
    assert_int_equal(after.memory_limit, 128 << 20);
    assert_true(!v2 || file_poke(controllers, "+pids", &e) == 0);
    container_spec_clear(&other);
    runtime_pause(rt, s.id, false, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    runtime_pause(rt, s.id, true, on_done, NULL);
    wait_done();
    runtime_stop(rt, s.id, 100 * MS_NS, on_done, NULL); /* the shell as process 1 ignores SIGTERM */
    wait_done();
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 137);
    runtime_start(rt, s.id, on_done, NULL);
    wait_done();
    runtime_pause(rt, s.id, true, on_done, NULL);
    wait_done();
    delete_box(&s);
}

static int n_answers, sum_of_answers;
static void on_answer(void *arg, int r, const struct err *e)
{
    (void)arg;
    (void)e;
    n_answers++;
    sum_of_answers += r;
}
static bool both_answered(void *arg)
{
    (void)arg;
    return n_answers == 2;
}

/* What comes between a start and its answer; the loop does not turn between the two. */
static void test_stop_of_a_start(void **state)
{
    struct container_spec s;
    struct err e;
    (void)state;
    spec_for(&s, "sleep 1000");
    for (int run = 0; run < 4; run++) {
        if (run == 0) {
            runtime_create(rt, &s, on_done, NULL);
            wait_done();
        } else if (run != 2) { /* of one that has ended */
            assert_int_equal(runtime_find(rt, s.id)->state.phase, CONTAINER_EXITED);
        } else {
            delete_box(&s);
            spec_for(&s, "sleep 1000");
            runtime_create(rt, &s, on_done, NULL);
            wait_done();
        }
        assert_int_equal(result, 0);
        n_answers = sum_of_answers = 0;
        assert_false(runtime_is_starting(rt, s.id));
        runtime_start(rt, s.id, on_answer, NULL);
        assert_true(runtime_is_starting(rt, s.id));
        bool by_signal = run >= 2;
        if (by_signal) {
            assert_int_equal(runtime_signal(rt, s.id, 9, &e), 0);
            n_answers++;
        } else {
            runtime_stop(rt, s.id, 0, on_answer, NULL);
        }
        assert_int_equal(n_answers, by_signal); /* neither is over */
        until(both_answered, NULL, "the start and the stop");
        assert_int_equal(sum_of_answers, run == 1 ? -E_CONFLICT : 0); /* called off before it ran */
        wait_exit(s.id);
        assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 137);
        assert_false(runtime_is_starting(rt, s.id));
    }
    delete_box(&s);
}

/* What the processes of a container can do where they may write to their control groups. */
static void test_nested_groups(void **state)
{
    static const char *const below[] = { "", "/a", "/a/.b", "/c" };
    struct container_spec s;
    struct err e;
    struct stat st;
    char pid[24];
    size_t n_before, n_after;
    (void)state;
    bool v2 = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0;
    spec_for(&s, "sleep 1000 & echo up; wait");
    start(&s);
    wait_said(s.id, "up");
    AUTO_FREE char *top = xasprintf("/sys/fs/cgroup%s/%s/%s", v2 ? "" : "/memory", group, s.id);
    for (unsigned i = 1; i < ARRAY_N(below); i++) {
        AUTO_FREE char *path = xasprintf("%s%s", top, below[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    int64_t *pids = runtime_pids(rt, s.id, &n_before);
    snprintf(pid, sizeof pid, "%lld", (long long)pids[n_before - 1]);
    free(pids);
    AUTO_FREE char *procs = xasprintf("%s/a/.b/cgroup.procs", top);
    assert_int_equal(file_poke(procs, pid, &e), 0);
    free(runtime_pids(rt, s.id, &n_after));
    assert_int_equal(n_before, 2);
    assert_int_equal(n_after, 2);
    runtime_stop(rt, s.id, 0, on_done, NULL);
    wait_done();
    assert_int_equal(stat(top, &st), -1);
    delete_box(&s);
}

/* Groups of threads, in version 2: the group above has their processes, and below it all others have none. */
static void test_threaded_groups(void **state)
{
    struct container_spec s;
    struct err e;
    struct stat st;
    size_t n;
    (void)state;
    if (access("/sys/fs/cgroup/cgroup.procs", F_OK) < 0)
        skip();
    spec_for(&s, "sleep 1000 & echo up; wait");
    start(&s);
    wait_said(s.id, "up");
    AUTO_FREE char *top = xasprintf("/sys/fs/cgroup/%s/%s", group, s.id), *threads = path_join(top, "t"), *invalid = path_join(top, "d");
    AUTO_FREE char *type = path_join(threads, "cgroup.type"), *members = path_join(threads, "cgroup.threads");
    AUTO_FREE char *pid = xasprintf("%d", (int)runtime_find(rt, s.id)->state.pid);
    assert_int_equal(mkdir(threads, 0755), 0);
    assert_int_equal(mkdir(invalid, 0755), 0);
    assert_int_equal(file_poke(type, "threaded", &e), 0);
    assert_int_equal(file_poke(members, pid, &e), 0);
    free(runtime_pids(rt, s.id, &n));
    assert_int_equal(n, 2);
    int64_t begin = clock_mono_ns();
    runtime_stop(rt, s.id, 0, on_done, NULL);
    wait_done();
    assert_true(clock_mono_ns() - begin < 5 * SEC_NS); /* in the emulated machine, too; else it waits for what it never hears */
    assert_int_equal(stat(top, &st), -1);
    delete_box(&s);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run), cmocka_unit_test(test_secure), cmocka_unit_test(test_user_env_cwd),
        cmocka_unit_test(test_missing_program), cmocka_unit_test(test_mounts_files), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_exec_stop_adopt), cmocka_unit_test(test_init_reaps), cmocka_unit_test(test_pause),
        cmocka_unit_test(test_nested_groups), cmocka_unit_test(test_threaded_groups), cmocka_unit_test(test_stop_of_a_start),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

int main(void)
{
    return fixture_main(all_tests);
}
