/* Containers for real (root): a busybox root, run to its end, logs, exec, stop, limits, security, adoption by a
 * new runtime, and nothing left behind. Run by tests/run.d. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/runtime.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64], group[64];
static struct loop *loop;
static struct runtime *rt;
static int result;
static bool finished;
static char error[512];
static char seen[1 << 16], seen_err[1 << 16]; /* what came on stdout and stderr: two pipes, no order between them */

static void on_event(void *arg, const struct container *c)
{
    (void)arg;
    (void)c;
}

static void on_done(void *arg, int r, const struct err *e)
{
    (void)arg;
    result = r;
    snprintf(error, sizeof error, "%s", e ? e->text : "");
    finished = true;
    loop_stop(loop);
}

static void on_late(void *arg)
{
    (void)arg;
    fail_msg("no answer within 20 s");
}

static void wait_done(void)
{
    struct loop_timer *t = loop_timer_new(loop, on_late, NULL);
    loop_timer_set(t, 20000);
    while (!finished)
        loop_run(loop);
    loop_timer_free(t);
    finished = false;
}

static void on_poll(void *arg)
{
    const struct container *c = runtime_find(rt, arg);
    if (!c || c->state.phase == CONTAINER_EXITED) {
        finished = true;
        loop_stop(loop);
    }
}

static void wait_exit(const char *id)
{
    while (!finished) {
        struct loop_timer *t = loop_timer_new(loop, on_poll, (void *)(uintptr_t)id);
        struct loop_timer *stop = loop_timer_new(loop, (loop_fn *)loop_stop, loop);
        loop_timer_set(t, 10);
        loop_timer_set(stop, 20);
        loop_run(loop);
        loop_timer_free(t);
        loop_timer_free(stop);
    }
    finished = false;
}

static void open_runtime(void)
{
    struct err e = { 0 };
    AUTO_FREE char *dir = path_join(base, "containers");
    struct runtime_config cfg = { .dir = dir, .cgroup = group };
    if (runtime_open(&rt, loop, &cfg, on_event, NULL, &e) < 0)
        fail_msg("%s", e.text);
}

static void spec_for(struct container_spec *s, const char *script)
{
    char id[65];
    id_random_hex(id);
    *s = (struct container_spec){ 0 };
    str_set(&s->id, id);
    strs_add(&s->argv, "/bin/sh");
    strs_add(&s->argv, "-c");
    strs_add(&s->argv, script);
    str_set(&s->hostname, "box");
    AUTO_FREE char *layer = path_join(base, "layers/root");
    strs_add(&s->lower_dirs, layer);
}

static bool on_line(void *arg, const struct log_entry *x)
{
    char *to = x->err ? seen_err : seen;
    size_t n = strlen(to);
    (void)arg;
    snprintf(to + n, sizeof seen - n, "%.*s", (int)x->size, x->line);
    return true;
}

static void on_end(void *arg)
{
    (void)arg;
    finished = true;
    loop_stop(loop);
}

static void read_logs(const char *id, bool follow)
{
    struct err e;
    struct log_query q = { .follow = follow, .out = true, .err = true, .tail = -1 };
    seen[0] = seen_err[0] = '\0';
    struct runtime_logs *l = runtime_logs(rt, id, &q, on_line, on_end, NULL, &e);
    assert_non_null(l);
    wait_done();
    runtime_logs_stop(l);
}

static void start(const struct container_spec *s)
{
    runtime_create(rt, s, on_done, NULL);
    wait_done();
    if (result < 0)
        fail_msg("create: %s", error);
    runtime_start(rt, s->id, on_done, NULL);
    wait_done();
}

/* Runs a script to its end; output in seen, returns the exit code. */
static int run_spec(struct container_spec *s)
{
    start(s);
    if (result < 0)
        fail_msg("start: %s", error);
    read_logs(s->id, true);
    wait_exit(s->id);
    int code = runtime_find(rt, s->id)->state.exit_code;
    runtime_delete(rt, s->id, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    container_spec_clear(s);
    return code;
}

static int run(const char *script)
{
    struct container_spec s;
    spec_for(&s, script);
    return run_spec(&s);
}

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

static struct stream *exec_stream;
static char exec_out[4096];
static int exec_code = -1;
static size_t on_exec_data(void *arg, const char *p, size_t size)
{
    size_t n = strlen(exec_out);
    (void)arg;
    for (size_t i = 0; i < size && n + 1 < sizeof exec_out; i++)
        if (p[i] >= ' ' || p[i] == '\n')
            exec_out[n++] = p[i];
    exec_out[n] = '\0';
    return size;
}
static void on_exec_eof(void *arg)
{
    (void)arg;
    stream_free(exec_stream);
    finished = exec_code >= 0;
    if (finished)
        loop_stop(loop);
}
static void on_exec_error(void *arg, const struct err *e)
{
    (void)e;
    on_exec_eof(arg);
}
static void on_exec_started(void *arg, int r, struct stream *s, uint64_t id, const struct err *e)
{
    static const struct stream_events ev = { on_exec_data, NULL, on_exec_eof, on_exec_error };
    (void)arg;
    (void)id;
    if (r < 0)
        fail_msg("%s", e->text);
    exec_stream = s;
    stream_set_events(s, &ev, NULL);
    stream_write(s, "in put\n", 7);
    stream_close_write(s);
}
static void on_exec_exit(void *arg, uint64_t id, int code)
{
    (void)arg;
    (void)id;
    exec_code = code;
}

static void test_exec_stop_adopt(void **state)
{
    struct container_spec s;
    struct exec_spec x = { .stdin_open = true };
    (void)state;
    spec_for(&s, "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done");
    start(&s);
    assert_int_equal(result, 0);
    strs_add(&x.argv, "sh");
    strs_add(&x.argv, "-c");
    strs_add(&x.argv, "cat; echo $X; hostname; echo err >&2; exit 9");
    strs_add(&x.env, "X=y");
    runtime_exec(rt, s.id, &x, on_exec_started, on_exec_exit, NULL);
    wait_done();
    assert_int_equal(exec_code, 9);
    assert_non_null(strstr(exec_out, "in put\n"));
    assert_non_null(strstr(exec_out, "y\n"));
    assert_non_null(strstr(exec_out, "box\n"));
    assert_non_null(strstr(exec_out, "err\n"));
    exec_spec_clear(&x);
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
    runtime_start(rt, s.id, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
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
    assert_true(c->state.finished_ns - c->state.started_ns < 4 * SEC_NS);
    runtime_delete(rt, s.id, on_done, NULL);
    wait_done();
    container_spec_clear(&s);
}

static int setup(void **state)
{
    (void)state;
    snprintf(base, sizeof base, "/tmp/shoal-runtime-%d", getpid());
    snprintf(group, sizeof group, "shoal-test-%d", getpid());
    char cmd[2048];
    snprintf(cmd, sizeof cmd,
             "set -e; r=%s/layers/root; mkdir -p $r/bin $r/etc $r/tmp; cp /bin/busybox $r/bin/busybox; "
             "for x in $($r/bin/busybox --list); do test $x = busybox || ln -sf busybox $r/bin/$x; done; ln -s /../../../tmp $r/link; mkdir $r/mnt;"
             "echo 'root:x:0:0::/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh' > $r/etc/passwd; "
             "echo 'root:x:0:\nbob:x:1001:\nstaff:x:50:bob' > $r/etc/group", base);
    const char *argv[] = { "sh", "-c", cmd, NULL };
    struct err e;
    if (proc_run(argv, NULL, &e) != 0)
        return -1;
    open_runtime();
    return 0;
}

static int teardown(void **state)
{
    struct err e;
    (void)state;
    assert_null(runtime_next(rt, NULL));
    runtime_close(rt);
    loop_free(loop);
    return file_remove_tree(base, &e);
}

int main(void)
{
    struct err e;
    if (geteuid() != 0) {
        fprintf(stderr, "needs root\n");
        return 77;
    }
    crypto_init();
    if (runtime_spawner_start(&e) < 0)
        return 1;
    loop = loop_new();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run), cmocka_unit_test(test_secure), cmocka_unit_test(test_user_env_cwd),
        cmocka_unit_test(test_missing_program), cmocka_unit_test(test_mounts_files), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_exec_stop_adopt), cmocka_unit_test(test_init_reaps),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
