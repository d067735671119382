/* What a container may see and do, and the known attacks on runtimes, each tried (root). Run by tests/run.d. */
#include "runtime_fixture.h"
#include <fcntl.h>

static char host_file[96]; /* a secret of the host that nobody inside may read */

static int run_probe(struct container_spec *s, const char *word)
{
    free(s->argv.v[2]);
    s->argv.v[2] = xasprintf("exec probe %s", word);
    return run_spec(s);
}

static bool says(const char *line)
{
    size_t n = strlen(line);
    for (const char *p = seen; (p = strstr(p, line)); p++)
        if ((p == seen || p[-1] == '\n') && (p[n] == '\n' || !p[n]))
            return true;
    return false;
}
#define assert_says(line) do { if (!says(line)) fail_msg("\"%s\" is not in:\n%s", line, seen); } while (0)

static void test_namespaces(void **state)
{
    static const char *const names[] = { "mnt", "pid", "ipc", "uts", "net", "cgroup" };
    (void)state;
    assert_int_equal(run("for i in mnt pid ipc uts net cgroup user; do readlink /proc/self/ns/$i; done; ls /sys/class/net; "
                         "cat /proc/self/cgroup; ps -o pid,comm"), 0);
    for (unsigned i = 0; i < ARRAY_N(names); i++) {
        char path[64], own[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        ssize_t n = readlink(path, own, sizeof own - 1);
        assert_true(n > 0);
        own[n] = '\0';
        char kind[16];
        snprintf(kind, sizeof kind, "%s:[", names[i]);
        assert_non_null(strstr(seen, kind));
        assert_null(strstr(seen, own));
    }
    assert_says("lo");
    assert_null(strstr(seen, "eth"));
    assert_null(strstr(seen, group)); /* the cgroup namespace shows itself as the root */
    assert_null(strstr(seen, "shoal"));
}

static void test_capabilities(void **state)
{
    struct container_spec s;
    static const char *const show = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status";
    (void)state;
    assert_int_equal(run(show), 0);
    assert_says("CapInh:\t0000000000000000"); /* CVE-2022-29162 */
    assert_says("CapPrm:\t00000000a80425fb");
    assert_says("CapEff:\t00000000a80425fb");
    assert_says("CapBnd:\t00000000a80425fb");
    assert_says("CapAmb:\t0000000000000000");
    assert_says("Seccomp:\t2");
    spec_for(&s, show);
    strs_add(&s.cap_drop, "ALL");
    strs_add(&s.cap_add, "NET_BIND_SERVICE");
    s.no_new_privs = true;
    assert_int_equal(run_spec(&s), 0);
    assert_says("CapEff:\t0000000000000400");
    assert_says("CapBnd:\t0000000000000400");
    assert_says("NoNewPrivs:\t1");
    spec_for(&s, show);
    str_set(&s.user, "1000:1000");
    assert_int_equal(run_spec(&s), 0);
    assert_says("CapEff:\t0000000000000000");
    assert_says("CapPrm:\t0000000000000000");
    assert_says("CapBnd:\t00000000a80425fb");
    spec_for(&s, "true");
    strs_add(&s.cap_add, "FLY");
    refused(&s, "unknown capability \"FLY\"");
}

static void test_calls(void **state)
{
    struct container_spec s;
    (void)state;
    spec_for(&s, "");
    assert_int_equal(run_probe(&s, "calls"), 0);
    assert_says("clone3 ENOSYS");
    assert_says("unshare EPERM");
    assert_says("mount EPERM");
    assert_says("keyctl EPERM");
    assert_says("bpf EPERM");
    assert_says("reboot EPERM");
    assert_says("socket-alg EPERM");
    assert_says("socket-vsock EPERM");
    assert_says("socket-inet ok");
    assert_says("unknown ENOSYS");
    assert_says("io_uring EPERM");
    assert_true(says("fchmodat2 ok") || says("fchmodat2 ENOSYS"));
    /* The same with no_new_privs, as another user, in an exec; and without a filter. */
    spec_for(&s, "");
    s.no_new_privs = true;
    str_set(&s.user, "bob");
    assert_int_equal(run_probe(&s, "calls"), 0);
    assert_says("clone3 ENOSYS");
    assert_says("keyctl EPERM");
    spec_for(&s, "sleep 1000");
    start(&s);
    assert_int_equal(exec_run(s.id, "probe calls; grep CapEff /proc/self/status"), 0);
    assert_non_null(strstr(heard, "clone3 ENOSYS"));
    assert_non_null(strstr(heard, "keyctl EPERM"));
    assert_non_null(strstr(heard, "00000000a80425fb"));
    /* One session keyring, of its own, also for what exec started. */
    size_t n;
    AUTO_FREE char *keys = NULL, *ring = xasprintf("_ses.%s: ", s.id);
    if (file_read("/proc/keys", 1 << 20, &keys, &n, NULL) == 0) {
        const char *p = strstr(keys, ring);
        assert_non_null(p);
        assert_null(strstr(p + 1, ring));
    }
    delete_box(&s);
    spec_for(&s, "");
    str_set(&s.seccomp, "unconfined");
    assert_int_equal(run_probe(&s, "calls"), 0);
    assert_false(says("clone3 ENOSYS"));
}

static void test_kernel_files(void **state)
{
    struct container_spec s;
    (void)state;
    assert_int_equal(run("for f in kcore keys timer_list sched_debug; do test -e /proc/$f && wc -c < /proc/$f; done; "
                         "for d in acpi scsi asound; do test -d /proc/$d && ls -A /proc/$d; done; ls -A /sys/firmware; true"), 0);
    for (const char *p = seen; *p; p++)
        assert_true(*p == '0' || *p == '\n');
    assert_int_equal(run("for f in sys/kernel/core_pattern sys/vm/drop_caches sysrq-trigger irq/default_smp_affinity; do "
                         "test -e /proc/$f || continue; (echo 1 > /proc/$f) 2>/dev/null && echo written $f; done; "
                         "(echo 0 > /sys/kernel/mm/ksm/run) 2>/dev/null && echo written sys; "
                         "mkdir /sys/fs/cgroup/x 2>/dev/null && echo made group; grep -E ' (/sys|/proc) ' /proc/mounts"), 0);
    assert_null(strstr(seen, "written"));
    assert_null(strstr(seen, "made"));
    assert_non_null(strstr(seen, " /sys sysfs ro,nosuid,nodev,noexec"));
    assert_non_null(strstr(seen, " /proc proc rw,nosuid,nodev,noexec"));
    assert_int_equal(run("ls /dev | tr '\\n' ' '; stat -c '%t:%T %a' /dev/null /dev/zero /dev/urandom; ls -l /dev/pts /dev/shm | wc -l"), 0);
    assert_non_null(strstr(seen, "1:3 666\n1:5 666\n1:9 666\n"));
    assert_non_null(strstr(seen, "console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ") ||
                            strstr(seen, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ") ? "" : NULL);
    /* Sysctls of the container's own namespaces, and none else. */
    spec_for(&s, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax");
    labels_set(&s.sysctls, "net.ipv4.ip_unprivileged_port_start", "7");
    labels_set(&s.sysctls, "kernel.msgmax", "4096");
    assert_int_equal(run_spec(&s), 0);
    assert_string_equal(seen, "7\n4096\n");
    spec_for(&s, "true");
    labels_set(&s.sysctls, "kernel.panic", "1");
    refused(&s, "sysctl kernel.panic is not of a container's own namespaces");
    spec_for(&s, "true");
    str_set(&s.netns, "host");
    labels_set(&s.sysctls, "net.ipv4.ip_forward", "1");
    refused(&s, "would change the host");
}

static void test_devices(void **state)
{
    struct container_spec s;
    (void)state;
    /* CAP_MKNOD is a default capability: nodes of the default set work nowhere else than in /dev. */
    spec_for(&s, "");
    assert_int_equal(run_probe(&s, "devices /tmp"), 0);
    assert_says("mem EACCES");
    assert_says("kmsg EACCES");
    assert_says("loop EACCES");
    /* With SYS_ADMIN the container can mount a file system that has devices: the device group still holds. */
    spec_for(&s, "mount -t tmpfs -o dev x /mnt && exec probe devices /mnt");
    strs_add(&s.cap_add, "SYS_ADMIN");
    assert_int_equal(run_spec(&s), 0);
    assert_says("null ok");
    assert_says("mem EPERM");
    assert_says("kmsg EPERM");
    assert_says("loop EPERM");
}

/* A container's device nodes, what covers its masked paths, and its standard input are not the host's: its root could
 * otherwise change their owner and mode for the whole machine. */
static void test_own_nodes(void **state)
{
    struct stat before, after;
    struct container_spec s;
    (void)state;
    assert_int_equal(stat("/dev/null", &before), 0);
    assert_int_equal(run("chmod 600 /dev/null /dev/zero /proc/kcore /proc/self/fd/0; chown 7:7 /dev/null /proc/kcore; "
                         "stat -c '%a %u' /dev/null"), 0);
    assert_says("600 7");
    spec_for(&s, "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin; stat -c '%a %u' /dev/null");
    str_set(&s.user, "1000:1000");
    assert_int_equal(run_spec(&s), 0);
    assert_says("out");
    assert_says("666 0");
    assert_int_equal(stat("/dev/null", &after), 0);
    if (after.st_mode != before.st_mode || after.st_uid != before.st_uid) {
        assert_int_equal(chmod("/dev/null", before.st_mode & 07777), 0);
        assert_int_equal(chown("/dev/null", before.st_uid, before.st_gid), 0);
        fail_msg("the container changed /dev/null of the host");
    }
}

/* CVE-2016-9962, CVE-2024-21626: no descriptor but the three, in the first process and in an exec. */
static void test_leaked_fds(void **state)
{
    struct container_spec s;
    struct exec_spec x = { 0 };
    (void)state;
    assert_int_equal(run("exec probe fds"), 0);
    for (const char *p = seen; *p; p = strchr(p, '\n') + 1)
        assert_true(*p >= '0' && *p <= '2' && p[1] == ' ');
    spec_for(&s, "sleep 1000");
    start(&s);
    assert_int_equal(exec_run(s.id, "exec probe fds"), 0);
    assert_non_null(strstr(heard, "0 /dev/null"));
    for (char fd = '3'; fd <= '9'; fd++) {
        char line[4] = { '\n', fd, ' ', 0 };
        assert_null(strstr(heard, line));
    }
    /* A working directory through one of the runtime's descriptors does not lead out. */
    for (int i = 3; i < 24; i++) {
        str_set(&x.cwd, i % 2 ? "/proc/self/fd/3" : "/proc/self/fd/4");
        free(x.cwd);
        x.cwd = xasprintf("/proc/self/fd/%d/..", i);
        exec_start(s.id, &x, "cat host-secret; ls");
        if (result == 0)
            until(exec_is_over, NULL, "the exec");
        else
            assert_non_null(strstr(error, "working directory"));
        assert_null(strstr(heard, "hush"));
    }
    delete_box(&s);
    for (int i = 3; i < 24; i++) {
        spec_for(&s, "cat host-secret; ls");
        s.cwd = xasprintf("/proc/self/fd/%d", i);
        refused(&s, "working directory");
    }
}

/* CVE-2019-5736: an image whose program is /proc/self/exe, or that opens the runtime's program by /proc/PID/exe. */
static void test_own_program(void **state)
{
    struct container_spec s;
    (void)state;
    spec_for(&s, "while test ! -e /tmp/end; do probe exes; done");
    strs_add(&s.cap_add, "SYS_PTRACE");
    start(&s);
    for (int i = 0; i < 20; i++)
        exec_works(s.id);
    assert_int_equal(exec_run(s.id, "touch /tmp/end"), 0);
    wait_exit(s.id);
    read_logs(s.id, false);
    assert_non_null(strstr(seen, "exe-1-write"));
    /* Its own programs are files of its root; anything else must not be writable. */
    for (const char *p = seen; (p = strstr(p, "-write ok")); p++)
        fail_msg("a running program can be opened for writing");
    delete_box(&s);
    spec_for(&s, "x");
    str_set(&s.argv.v[0], "/proc/self/exe");
    runtime_create(rt, &s, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    runtime_start(rt, s.id, on_done, NULL);
    wait_done(); /* whatever it does, it does it with a program that nobody can write */
    if (result == 0)
        wait_exit(s.id);
    delete_box(&s);
    assert_int_equal(run("echo fine"), 0);
    assert_string_equal(seen, "fine\n");
}

static struct container_mount *add_mount(struct container_spec *s, const char *source, const char *target)
{
    struct container_mount *m = REC_ADD(&s->mounts);
    str_set(&m->source, source);
    str_set(&m->target, target);
    return m;
}

/* CVE-2019-16884, CVE-2019-19921, CVE-2021-30465, CVE-2022-23648: where volumes may go. */
static void test_mount_targets(void **state)
{
    static const char *const bad[][2] = {
        { "/proc", "inside /proc" }, { "/proc/sys", "inside /proc" }, { "/tmp/../proc/self/attr", "inside /proc" },
        { "/", "container's root" }, { "/tmp/..", "container's root" }, { "/toroot", "container's root" },
        { "/toproc", "inside /proc" }, { "/absent/..", "must name a file or folder" },
    };
    struct container_spec s;
    struct stat st;
    (void)state;
    AUTO_FREE char *volume = path_join(base, "volume");
    mkdir(volume, 0755);
    for (unsigned i = 0; i < ARRAY_N(bad); i++) {
        spec_for(&s, "true");
        add_mount(&s, volume, bad[i][0]);
        refused(&s, bad[i][1]);
        spec_for(&s, "true");
        add_mount(&s, NULL, bad[i][0])->type = CONTAINER_TMPFS;
        refused(&s, bad[i][1]);
    }
    /* Links and dots end inside the root, never on the host. */
    spec_for(&s, "echo mine > /outside/made; echo deep > /a/b/c/made; ls /made-by-dots");
    add_mount(&s, volume, "/outside"); /* -> ../../../../../../tmp/..., a folder of the host and of the image */
    add_mount(&s, volume, "/tmp/../a/b/c");
    add_mount(&s, volume, "/../../../made-by-dots");
    assert_int_equal(run_spec(&s), 0);
    assert_says("made");
    AUTO_FREE char *made = path_join(volume, "made");
    assert_int_equal(stat(made, &st), 0);
    AUTO_FREE char *outside = path_join(base, "made");
    assert_int_equal(stat(outside, &st), -1);
    /* A source that is not there, or read-only wanted on a nested mount. */
    spec_for(&s, "true");
    add_mount(&s, "/nonexistent/folder", "/data");
    refused(&s, "bind source path /nonexistent/folder");
    spec_for(&s, "true");
    str_set(&add_mount(&s, volume, "/data")->propagation, "sideways");
    refused(&s, "unknown propagation \"sideways\"");
}

/* Images made to trap the one who looks into them. */
static void test_hostile_root(void **state)
{
    static const char *const scripts[][2] = {
        { "rmdir $r/proc; ln -s /tmp $r/proc", "/proc of the image is no folder" },
        { "rmdir $r/sys; ln -s ../../../../.. $r/sys", "/sys of the image is no folder" },
        { "ln -s /etc $r/dev", "/dev of the image is no folder" },
    };
    struct container_spec s;
    struct err e;
    char cmd[1024];
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(scripts); i++) {
        snprintf(cmd, sizeof cmd, "r=%s/layers/trap; mkdir -p $r/proc $r/sys; %s", base, scripts[i][0]);
        const char *argv[] = { "sh", "-c", cmd, NULL };
        assert_int_equal(proc_run(argv, NULL, &e), 0);
        spec_for(&s, "true");
        AUTO_FREE char *layer = path_join(base, "layers/trap");
        strs_clear(&s.lower_dirs);
        strs_add(&s.lower_dirs, layer);
        refused(&s, scripts[i][1]);
        assert_int_equal(file_remove_tree(layer, &e), 0);
    }
    /* passwd as a FIFO that never answers, as a link out, as the host's. */
    snprintf(cmd, sizeof cmd, "r=%s/layers/trap; mkdir -p $r/etc; mkfifo $r/etc/passwd; ln -s /proc/self/fd/0 $r/etc/group", base);
    const char *argv[] = { "sh", "-c", cmd, NULL };
    assert_int_equal(proc_run(argv, NULL, &e), 0);
    spec_for(&s, "exec sleep 1000");
    AUTO_FREE char *top = path_join(base, "layers/trap");
    AUTO_FREE char *below = s.lower_dirs.v[0];
    s.lower_dirs.v[0] = xstrdup(top);
    strs_add(&s.lower_dirs, below);
    start(&s);
    assert_int_equal(result, 0);
    assert_int_equal(exec_run(s.id, "exit 4"), 4);
    delete_box(&s);
}

/* A container swaps parts of a shared volume while others are made whose mounts go through it (CVE-2021-30465). */
static void test_swapped_targets(void **state)
{
    struct container_spec a, b;
    struct stat before, after;
    (void)state;
    AUTO_FREE char *volume = path_join(base, "shared");
    AUTO_FREE char *payload = path_join(base, "payload");
    mkdir(volume, 0777);
    mkdir(payload, 0755);
    assert_int_equal(stat("/tmp", &before), 0);
    spec_for(&a, "cd /v; mkdir d; while :; do mv d e; ln -s ../../../../../../../../.. d; rm d; mv e d; done 2>/dev/null");
    add_mount(&a, volume, "/v");
    start(&a);
    for (int i = 0; i < 40; i++) {
        spec_for(&b, "test ! -e /host-secret");
        add_mount(&b, volume, "/v");
        add_mount(&b, payload, "/v/d/x");
        runtime_create(rt, &b, on_done, NULL);
        wait_done();
        if (result == 0) {
            runtime_start(rt, b.id, on_done, NULL);
            wait_done();
            if (result == 0)
                wait_exit(b.id);
            delete_box(&b);
        } else {
            container_spec_clear(&b);
        }
        assert_int_equal(access("/x", F_OK), -1); /* nothing was made in the host's root */
    }
    delete_box(&a);
    assert_int_equal(stat("/tmp", &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
}

static int prepare(void **state)
{
    struct err e;
    char cmd[512];
    int r = setup(state);
    if (r < 0)
        return r;
    snprintf(host_file, sizeof host_file, "%s/host-secret", base);
    snprintf(cmd, sizeof cmd, "r=%s; echo hush > $r/host-secret; l=$r/layers/root; ln -s / $l/toroot; ln -s /proc $l/toproc; "
             "ln -s ../../../../../..$r $l/outside; mkdir -p $l$r", base);
    const char *argv[] = { "sh", "-c", cmd, NULL };
    /* Descriptors that a careless daemon would leave open: the spawner was started before, shims get none. */
    return proc_run(argv, NULL, &e);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_namespaces), cmocka_unit_test(test_capabilities), cmocka_unit_test(test_calls),
        cmocka_unit_test(test_kernel_files), cmocka_unit_test(test_devices), cmocka_unit_test(test_own_nodes),
        cmocka_unit_test(test_leaked_fds),
        cmocka_unit_test(test_own_program), cmocka_unit_test(test_mount_targets), cmocka_unit_test(test_hostile_root),
        cmocka_unit_test(test_swapped_targets),
    };
    return cmocka_run_group_tests(tests, prepare, teardown);
}

int main(void)
{
    /* What a daemon started by a careless parent has open: a folder of the host, kept across exec. */
    if (open("/", O_RDONLY | O_DIRECTORY) < 0)
        return 1;
    return fixture_main(all_tests);
}
