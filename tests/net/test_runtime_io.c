/* The life of containers beside their first process (root): logs, exec, terminals, attach, stopping, limits, the
 * death of daemons and shims. Run by tests/run.d. */
#include "runtime_fixture.h"
#include "runtime_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- logs ---- */
static int64_t last_ns;
static unsigned n_lines;
static bool in_order;
static bool on_stamp(void *arg, const struct log_entry *x)
{
    (void)arg;
    in_order &= x->time_ns >= last_ns;
    last_ns = x->time_ns;
    n_lines++;
    snprintf(seen, sizeof seen, "%.*s", (int)x->size, x->line);
    return true;
}

static void query(const char *id, const struct log_query *q)
{
    struct err e;
    in_order = true;
    n_lines = 0;
    last_ns = 0;
    seen[0] = '\0';
    struct runtime_logs *l = runtime_logs(rt, id, q, on_stamp, on_end, NULL, &e);
    assert_non_null(l);
    wait_done();
    runtime_logs_stop(l);
}

static void test_logs(void **state)
{
    struct container_spec s;
    struct log_query all = { .out = true, .err = true, .tail = -1 };
    (void)state;
    int64_t before = clock_real_ns();
    spec_for(&s, "i=0; while [ $i -lt 20000 ]; do echo line $i of many; i=$((i+1)); done; printf 'no newline'; echo last >&2");
    s.log_max_bytes = 64 << 10;
    s.log_max_files = 3;
    start(&s);
    assert_int_equal(result, 0);
    wait_exit(s.id);
    /* Rotated: bounded on disk, the newest are kept, in order, with their times. */
    const char *dir = runtime_find(rt, s.id)->dir;
    DIR *d = opendir(dir);
    int64_t bytes = 0, files = 0;
    for (struct dirent *x; (x = readdir(d));)
        if (str_starts(x->d_name, "log.json")) {
            struct stat st;
            assert_int_equal(fstatat(dirfd(d), x->d_name, &st, 0), 0);
            assert_true(st.st_size > 0 && st.st_size <= 64 << 10);
            bytes += st.st_size;
            files++;
        }
    closedir(d);
    assert_int_equal(files, 3);
    assert_true(bytes > 90 << 10);
    query(s.id, &all);
    assert_true(in_order);
    assert_true(n_lines > 1000 && n_lines < 20000);
    assert_true(last_ns >= before && last_ns <= clock_real_ns());
    struct log_query some = { .err = true, .tail = -1 };
    query(s.id, &some);
    assert_int_equal(n_lines, 1);
    assert_string_equal(seen, "last\n");
    some = (struct log_query){ .out = true, .tail = 3 };
    query(s.id, &some);
    assert_int_equal(n_lines, 3);
    assert_string_equal(seen, "no newline");
    some = (struct log_query){ .out = true, .err = true, .tail = -1, .since_ns = last_ns + 1 };
    query(s.id, &some);
    assert_true(n_lines <= 1);
    delete_box(&s);
}

/* Entries as they come, one after the other. */
enum { ENTRIES_MAX = 400 };
static char *entries[ENTRIES_MAX];
static unsigned n_entries;
static bool on_entry(void *arg, const struct log_entry *x)
{
    (void)arg;
    assert_true(n_entries < ENTRIES_MAX);
    entries[n_entries++] = xstrndup(x->line, MIN(x->size, (size_t)40)); /* its number is in it */
    return true;
}

static void list_entries(const char *id, const struct log_query *q)
{
    struct err e;
    for (unsigned i = 0; i < n_entries; i++)
        free(entries[i]);
    n_entries = 0;
    struct runtime_logs *l = runtime_logs(rt, id, q, on_entry, on_end, NULL, &e);
    assert_non_null(l);
    wait_done();
    runtime_logs_stop(l);
}

/* Two files of a log, in which are other things than a shim writes: long lines, no entries, a last line without its end. */
static void write_log(const char *dir, unsigned file)
{
    struct err e;
    AUTO_SB struct sb b;
    AUTO_FREE char *path = xasprintf("%s/log.json%s", dir, file ? "" : ".1");
    sb_init(&b, 0);
    for (unsigned i = file * 100; i < file * 100 + 100; i++) {
        sb_printf(&b, "{\"log\":\"entry %u ", i);
        for (unsigned k = i % 7 == 0 ? 15000 : 0; k > 0; k--)
            sb_str(&b, "\\u0001");
        sb_printf(&b, "\\n\",\"stream\":\"std%s\",\"time\":\"2026-01-01T00:%02u:%02uZ\"}\n", i % 3 ? "out" : "err", i / 60, i % 60);
        if (i % 10 == 5)
            sb_str(&b, i % 20 == 5 ? "\n" : "no entry\n");
        if (i == 150) { /* longer than any line of ours, and than what is looked at at once */
            for (unsigned k = 0; k < 300 << 10; k++)
                sb_char(&b, 'x');
            sb_char(&b, '\n');
        }
    }
    if (file)
        sb_str(&b, "{\"log\":\"half");
    assert_int_equal(file_write_volatile(path, b.s, b.len, 0640, &e), 0);
}

/* The last N entries are the end of all, for some N (all of them took ten minutes in an emulated machine). */
static void test_log_tail(void **state)
{
    struct container_spec s;
    static const struct log_query queries[] = { { .out = true, .err = true }, { .out = true }, { .err = true },
                                                { .out = true, .err = true, .until_ns = INT64_C(1767225690) * SEC_NS } };
    char *all[ENTRIES_MAX];
    (void)state;
    spec_for(&s, "true");
    start(&s);
    wait_exit(s.id);
    const char *dir = runtime_find(rt, s.id)->dir;
    write_log(dir, 0);
    write_log(dir, 1);
    for (unsigned i = 0; i < ARRAY_N(queries); i++) {
        struct log_query q = queries[i];
        q.tail = -1;
        list_entries(s.id, &q);
        unsigned n = n_entries;
        n_entries = 0;
        memcpy(all, entries, sizeof all);
        assert_int_equal(n, i == 0 ? 200 : i == 1 ? 133 : i == 2 ? 67 : 91);
        for (q.tail = 0; q.tail < n + 2; q.tail += q.tail < 3 || q.tail + 2 > n ? 1 : 13) {
            list_entries(s.id, &q);
            assert_int_equal(n_entries, MIN((unsigned)q.tail, n));
            for (unsigned k = 0; k < n_entries; k++)
                assert_string_equal(entries[k], all[n - n_entries + k]);
        }
        for (unsigned k = 0; k < n; k++)
            free(all[k]);
    }
    delete_box(&s);
}

/* ---- rotation while a log is read ---- */
static void put_log(const char *dir, const char *name, const char *text)
{
    struct err e;
    AUTO_FREE char *path = path_join(dir, name);
    AUTO_FREE char *line = xasprintf("{\"log\":\"%s1\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}\n"
                                     "{\"log\":\"%s2\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}\n", text, text);
    assert_int_equal(file_write_volatile(path, line, strlen(line), 0640, &e), 0);
}

static void move_log(const char *dir, const char *from, const char *to)
{
    AUTO_FREE char *a = path_join(dir, from), *b = path_join(dir, to);
    assert_int_equal(rename(a, b), 0);
}

/* At the first line. */
static bool on_rotation(void *arg, const struct log_entry *x)
{
    size_t n = strlen(seen);
    snprintf(seen + n, sizeof seen - n, "%.*s ", (int)x->size, x->line);
    if (n)
        return true;
    const char *dir = runtime_find(rt, arg)->dir;
    move_log(dir, "log.json.1", "log.json.2");
    move_log(dir, "log.json", "log.json.1");
    put_log(dir, "log.json", "c");
    return true;
}

/* Not a reader of numbers that other files have by now. */
static void test_log_rotation(void **state)
{
    static const int64_t tails[] = { -1, 3, 4, 5 };
    static const char *const expected[] = { "a1 a2 b1 b2 c1 c2 ", "a2 b1 b2 c1 c2 ", "a1 a2 b1 b2 c1 c2 ", "a1 a2 b1 b2 c1 c2 " };
    struct container_spec s;
    struct err e;
    (void)state;
    spec_for(&s, "true");
    start(&s);
    wait_exit(s.id);
    const char *dir = runtime_find(rt, s.id)->dir;
    AUTO_FREE char *oldest = path_join(dir, "log.json.2");
    for (unsigned i = 0; i < ARRAY_N(tails); i++) {
        struct log_query q = { .out = true, .err = true, .tail = tails[i] };
        put_log(dir, "log.json.1", "a");
        put_log(dir, "log.json", "b");
        seen[0] = '\0';
        struct runtime_logs *l = runtime_logs(rt, s.id, &q, on_rotation, on_end, s.id, &e);
        assert_non_null(l);
        wait_done();
        runtime_logs_stop(l);
        assert_string_equal(seen, expected[i]);
        unlink(oldest);
    }
    /* What cannot be opened is no log without lines, and not one to be told from its beginning. */
    struct rlimit was, none;
    struct log_query q = { .out = true, .err = true, .tail = 1 };
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){ 0, was.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct runtime_logs *l = runtime_logs(rt, s.id, &q, on_rotation, on_end, s.id, &e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_null(l);
    assert_non_null(strstr(e.text, "log.json"));
    delete_box(&s);
}

/* The last lines of a container that writes fast: as many as were asked for, none twice, none left out. */
static unsigned long next_number;
static bool on_number(void *arg, const struct log_entry *x)
{
    unsigned long n = strtoul(x->line, NULL, 10);
    (void)arg;
    in_order &= n_lines == 0 || n == next_number;
    next_number = n + 1;
    n_lines++;
    return true;
}
static void test_log_fast(void **state)
{
    struct container_spec s;
    struct log_query q = { .out = true, .tail = 100 };
    struct err e;
    unsigned n_short = 0, n_torn = 0;
    (void)state;
    spec_for(&s, "i=1; while :; do seq $i $((i + 12)); i=$((i + 13)); usleep 10000; done");
    s.log_max_bytes = 1 << 10;
    s.log_max_files = 60;
    start(&s);
    poll(NULL, 0, 1000);
    for (int i = 0; i < 100; i++) {
        n_lines = 0;
        in_order = true;
        q.until_ns = clock_real_ns() - 200 * MS_NS; /* what comes meanwhile does not make up for what is missing */
        struct runtime_logs *l = runtime_logs(rt, s.id, &q, on_number, on_end, NULL, &e);
        assert_non_null(l);
        wait_done();
        runtime_logs_stop(l);
        n_short += n_lines < 100;
        n_torn += !in_order;
    }
    assert_int_equal(n_short, 0);
    assert_int_equal(n_torn, 0);
    delete_box(&s);
}

static void test_long_line(void **state)
{
    struct container_spec s;
    struct log_query all = { .out = true, .err = true, .tail = -1 };
    (void)state;
    spec_for(&s, "head -c 100000 /dev/zero | tr '\\0' x; echo; printf 'a\\001\\377\"\\\\b\\n'");
    start(&s);
    wait_exit(s.id);
    query(s.id, &all);
    assert_int_equal(n_lines, 8); /* 7 pieces of at most 16 KiB, and the last */
    assert_int_equal(seen[0], 'a');
    assert_int_equal(seen[1], 1);
    delete_box(&s);
}

/* ---- exec and terminals ---- */
static void test_exec(void **state)
{
    struct container_spec s;
    struct exec_spec x = { 0 };
    (void)state;
    spec_for(&s, "echo up; exec sleep 1000");
    str_set(&s.user, "bob");
    start(&s);
    for (int code = 0; code < 256; code += 51)
        { AUTO_FREE char *script = xasprintf("exit %d", code); assert_int_equal(exec_run(s.id, script), code); }
    assert_int_equal(exec_run(s.id, "kill -9 $$"), 137);
    assert_int_equal(exec_run(s.id, "id -u; echo $HOME; for i in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$i; done "
                              "> /dev/shm/a; for i in mnt pid ipc uts net cgroup; do readlink /proc/1/ns/$i; done > /dev/shm/b; "
                              "test $(wc -l < /dev/shm/a) = 6 && cmp /dev/shm/a /dev/shm/b"), 0);
    assert_non_null(strstr(heard, "1000\n/home/bob\n"));
    x.user = xstrdup("0:0");
    x.cwd = xstrdup("/etc");
    exec_start(s.id, &x, "id -u; pwd; cat /proc/self/cgroup");
    until(exec_is_over, NULL, "the exec");
    assert_non_null(strstr(heard, "0\n/etc\n"));
    /* In the container's groups: its limits hold for an exec too. */
    AUTO_FREE char *procs = xasprintf("/sys/fs/cgroup/pids/%s/%s/cgroup.procs", group, s.id);
    if (access(procs, R_OK) == 0) {
        x = (struct exec_spec){ 0 };
        exec_start(s.id, &x, "echo here; exec sleep 1000");
        wait_heard("here");
        AUTO_FREE char *text = NULL;
        size_t n, lines = 0;
        struct err e;
        assert_int_equal(file_read(procs, 4096, &text, &n, &e), 0);
        for (size_t i = 0; i < n; i++)
            lines += text[i] == '\n';
        assert_int_equal(lines, 2);
        stream_free(TAKE(talk));
    }
    x = (struct exec_spec){ 0 };
    strs_add(&x.argv, "nosuchthing");
    exec_code = -1;
    runtime_exec(rt, s.id, &x, on_exec_started, on_exec_exit, &x.tty);
    wait_done();
    exec_spec_clear(&x);
    assert_true(result < 0);
    assert_non_null(strstr(error, "exec \"nosuchthing\""));
    x.user = xstrdup("mallory");
    exec_start(s.id, &x, "true");
    assert_true(result < 0);
    assert_non_null(strstr(error, "user \"mallory\" is not in the image's /etc/passwd"));
    /* An exec ends with its container. */
    x = (struct exec_spec){ 0 };
    exec_start(s.id, &x, "echo here; sleep 1000");
    wait_heard("here");
    runtime_stop(rt, s.id, 0, on_done, NULL);
    wait_done();
    until(exec_is_over, NULL, "the exec's end with its container");
    assert_int_equal(exec_code, 137);
    delete_box(&s);
}

static void test_terminals(void **state)
{
    struct container_spec s;
    struct exec_spec x = { .tty = true, .stdin_open = true, .rows = 30, .cols = 100 };
    struct err e;
    (void)state;
    spec_for(&s, "probe tty; read x; echo got $x; exit 6");
    s.tty = s.open_stdin = true;
    start(&s);
    assert_int_equal(result, 0);
    wait_said(s.id, "size 24x80");
    assert_int_equal(exec_run(s.id, "true"), 0); /* beside the terminal */
    listen_to(runtime_attach(rt, s.id, &e), true);
    assert_int_equal(runtime_exec_resize(rt, s.id, 0, 41, 99, &e), 0);
    wait_heard("size 41x99");
    stream_write(talk, "word\n", 5);
    wait_heard("got word");
    wait_exit(s.id);
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 6);
    until(talk_is_over, NULL, "the end of the attached stream");
    read_logs(s.id, false);
    assert_non_null(strstr(seen, "tty /dev/pts/0 1"));
    delete_box(&s);
    /* The same for an exec, whose size is there before it looks. */
    spec_for(&s, "exec sleep 1000");
    start(&s);
    exec_start(s.id, &x, "probe tty; read x; echo got $x; exit 7");
    assert_int_equal(result, 0);
    wait_heard("size 30x100");
    assert_non_null(strstr(heard, "tty /dev/pts/0 1"));
    assert_int_equal(runtime_exec_resize(rt, s.id, exec_id, 50, 132, &e), 0);
    wait_heard("size 50x132");
    stream_write(talk, "this\n", 5);
    until(exec_is_over, NULL, "the exec");
    assert_non_null(strstr(heard, "got this"));
    assert_int_equal(exec_code, 7);
    delete_box(&s);
}

static void test_attach(void **state)
{
    struct container_spec s;
    struct err e;
    (void)state;
    spec_for(&s, "cat; echo end >&2; exit 8");
    s.open_stdin = true;
    start(&s);
    listen_to(runtime_attach(rt, s.id, &e), false);
    stream_write(talk, "through\n", 8);
    wait_heard("through");
    stream_close_write(talk);
    until(talk_is_over, NULL, "the end of the attached stream");
    assert_non_null(strstr(heard, "end"));
    wait_exit(s.id);
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 8);
    /* Of one that has ended it is the next run, and all of that. */
    stream_free(runtime_attach(rt, s.id, &e));
    listen_to(runtime_attach(rt, s.id, &e), false);
    runtime_start(rt, s.id, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    stream_write(talk, "again\n", 6);
    wait_heard("again");
    stream_close_write(talk);
    until(talk_is_over, NULL, "the end of the stream of the second run");
    assert_non_null(strstr(heard, "end"));
    wait_exit(s.id);
    for (int i = 0; i < 20; i++) { /* who goes before it comes to that leaves no trace */
        struct stream *none = runtime_attach(rt, s.id, &e);
        assert_non_null(none);
        stream_free(none);
        loop_defer(loop, (loop_fn *)loop_stop, loop);
        loop_run(loop);
    }
    delete_box(&s);
}

/* An attached reader that does not read is let go; the container never waits for it. */
static void test_slow_reader(void **state)
{
    struct container_spec s;
    struct err e;
    (void)state;
    spec_for(&s, "read x; head -c 6000000 /dev/zero | tr '\\0' x | fold -w 100; echo done >&2; exit 0");
    s.open_stdin = true;
    start(&s);
    struct stream *slow = runtime_attach(rt, s.id, &e);
    static const struct stream_events none = { on_talk_data, NULL, on_talk_eof, on_talk_error };
    stream_set_events(slow, &none, NULL);
    stream_pause(slow, true);
    stream_write(slow, "\n", 1);
    wait_exit(s.id);
    stream_free(slow);
    delete_box(&s);
}

/* ---- stopping ---- */
static void test_stop(void **state)
{
    struct container_spec s;
    struct err e;
    (void)state;
    spec_for(&s, "trap 'echo usr1; exit 3' USR1; trap '' TERM; echo up; while :; do sleep 0.1; done");
    str_set(&s.stop_signal, "SIGUSR1");
    start(&s);
    wait_said(s.id, "up");
    assert_int_equal(runtime_signal(rt, s.id, SIGTERM, &e), 0); /* ignored */
    runtime_stop(rt, s.id, 60 * SEC_NS, on_done, NULL);
    wait_done();
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 3);
    delete_box(&s);
    /* Deaf, with children that are deaf too: killed after its grace, and all of it. */
    spec_for(&s, "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo up; while :; do sleep 0.1; done");
    start(&s);
    wait_said(s.id, "up");
    int64_t t = clock_mono_ns();
    runtime_stop(rt, s.id, SEC_NS, on_done, NULL);
    wait_done();
    assert_true(clock_mono_ns() - t >= SEC_NS - 50 * MS_NS); /* it had its grace */
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 137);
    assert_int_equal(runtime_signal(rt, s.id, SIGTERM, &e), -E_CONFLICT);
    delete_box(&s);
    spec_for(&s, "true");
    str_set(&s.stop_signal, "SIGFOO");
    int number = signal_number("SIGFOO", &e);
    assert_int_equal(number, -E_INVALID);
    container_spec_clear(&s);
}

static void test_init(void **state)
{
    struct container_spec s;
    (void)state;
    /* Orphans are reaped; the init is the container's user and no more. */
    spec_for(&s, "sh -c '(echo > /dev/shm/f) & exec true'; until test -e /dev/shm/f; do :; done; while ps -o stat | grep -q Z; do :; done; "
                 "echo reaped; grep -E '^(Uid|CapEff|Seccomp:)' /proc/1/status; exit 9");
    s.init = true;
    str_set(&s.user, "bob");
    assert_int_equal(run_spec(&s), 9);
    assert_non_null(strstr(seen, "reaped\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nSeccomp:\t2\n"));
}

/* ---- limits ---- */
static int64_t group_number(const char *controller, const char *id, const char *file, const char *word)
{
    struct err e;
    size_t n;
    AUTO_FREE char *text = NULL;
    AUTO_FREE char *path = xasprintf("/sys/fs/cgroup/%s%s%s/%s/%s", controller, *controller ? "/" : "", group, id, file);
    if (file_read(path, 4096, &text, &n, &e) < 0)
        fail_msg("%s", e.text);
    const char *p = strstr(text, word);
    if (!p)
        fail_msg("%s: no %s", path, word);
    return strtoll(p + strlen(word), NULL, 10);
}
static bool is_v2(void)
{
    return access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
}
static bool was_throttled(void *id)
{
    return group_number(is_v2() ? "" : "cpu", id, "cpu.stat", "nr_throttled ") > 2;
}

static void test_limits(void **state)
{
    struct container_spec s;
    struct container_stats st;
    struct err e;
    (void)state;
    spec_for(&s, "probe eat; echo code $?; exec probe eat");
    s.memory_bytes = 24 << 20;
    start(&s);
    wait_exit(s.id);
    const struct container *c = runtime_find(rt, s.id);
    assert_true(c->state.oom_killed);
    assert_int_equal(c->state.exit_code, 137);
    delete_box(&s);
    assert_int_equal(run("exit 137"), 137); /* not every 137 is one */
    spec_for(&s, "kill -9 $$; exec sh -c 'kill -9 $$; exit 137'");
    s.memory_bytes = 64 << 20;
    start(&s);
    wait_exit(s.id);
    assert_false(runtime_find(rt, s.id)->state.oom_killed);
    delete_box(&s);
    /* CPU: the kernel says it held it back. */
    spec_for(&s, "while :; do :; done");
    s.nano_cpus = 100000000;
    s.memory_bytes = 64 << 20;
    s.pids_limit = 5;
    start(&s);
    until(was_throttled, s.id, "throttling");
    assert_int_equal(runtime_stats(rt, s.id, &st, &e), 0);
    assert_int_equal(st.memory_limit, 64 << 20);
    assert_int_equal(st.n_pids, 1);
    assert_true(st.cpu_ns > 0 && st.memory_bytes > 0);
    assert_int_equal(exec_run(s.id, "for i in 1 2 3 4 5 6 7; do sleep 100 & done; echo all"), 2);
    assert_null(strstr(heard, "all"));
    delete_box(&s);
    /* However many there are, all are known, and all end. */
    size_t many = is_v2() ? 300 : 12000; /* cgroup v2 is tested in an emulated machine */
    AUTO_FREE char *script = xasprintf("exec probe many %zu", many);
    spec_for(&s, script);
    start(&s);
    wait_said(s.id, "many");
    size_t n_pids;
    free(runtime_pids(rt, s.id, &n_pids));
    assert_int_equal(n_pids, many + 1);
    delete_box(&s);
    /* Ulimits. */
    spec_for(&s, "ulimit -n; ulimit -Hn; ulimit -c");
    struct container_ulimit *u = REC_ADD(&s.ulimits);
    *u = (struct container_ulimit){ .name = xstrdup("nofile"), .soft = 77, .hard = 99 };
    u = REC_ADD(&s.ulimits);
    *u = (struct container_ulimit){ .name = xstrdup("core"), .soft = 0, .hard = 0 };
    assert_int_equal(run_spec(&s), 0);
    assert_string_equal(seen, "77\n99\n0\n");
    spec_for(&s, "true");
    u = REC_ADD(&s.ulimits);
    *u = (struct container_ulimit){ .name = xstrdup("patience"), .soft = 1, .hard = 1 };
    refused(&s, "unknown ulimit \"patience\"");
}

static void test_mounts(void **state)
{
    struct container_spec s;
    (void)state;
    AUTO_FREE char *volume = path_join(base, "filled");
    AUTO_FREE char *copied = path_join(base, "filled/passwd");
    mkdir(volume, 0755);
    spec_for(&s, "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'; touch /t/x; cat /etc/passwd | head -1; "
                 "(echo x > /ro/x) 2>/dev/null || echo ro; grep ' /t ' /proc/mounts; (echo x > /etc/new) && echo new");
    struct container_mount *m = REC_ADD(&s.mounts);
    m->type = CONTAINER_TMPFS;
    m->tmpfs_bytes = 1 << 20;
    m->tmpfs_mode = 0750;
    str_set(&m->target, "/t");
    m = REC_ADD(&s.mounts);
    str_set(&m->source, volume);
    str_set(&m->target, "/etc");
    m->fill = true;
    m = REC_ADD(&s.mounts);
    str_set(&m->source, volume);
    str_set(&m->target, "/ro");
    m->read_only = true;
    s.read_only = true;
    assert_int_equal(run_spec(&s), 0);
    assert_non_null(strstr(seen, "750\n1024\nroot:x:0:0::/root:/bin/sh\nro\ntmpfs /t tmpfs rw,nosuid,nodev,noexec"));
    assert_non_null(strstr(seen, "new\n"));
    assert_int_equal(access(copied, F_OK), 0);
    /* A volume that has something is left as it is. */
    spec_for(&s, "ls /tmp/v");
    m = REC_ADD(&s.mounts);
    str_set(&m->source, volume);
    str_set(&m->target, "/bin");
    m->fill = true;
    runtime_create(rt, &s, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    runtime_start(rt, s.id, on_done, NULL);
    wait_done();
    assert_true(result < 0); /* /bin is the volume: no sh */
    delete_box(&s);
}

static pid_t shim_of(const char *id)
{
    DIR *d = opendir("/proc");
    pid_t found = 0;
    for (struct dirent *x; (x = readdir(d));) {
        AUTO_FREE char *path = xasprintf("/proc/%s/cmdline", x->d_name);
        AUTO_FREE char *text = NULL;
        size_t n;
        if (x->d_name[0] >= '1' && x->d_name[0] <= '9' && file_read(path, 8192, &text, &n, NULL) == 0 &&
            str_equal(text, "shoal-shim") && strstr(text + 11, id))
            found = atoi(x->d_name);
    }
    closedir(d);
    return found;
}

/* ---- copies ---- */
static struct stream *copying;
static char copied[64];
static bool copy_ended;
static size_t on_copy_data(void *arg, const char *p, size_t size)
{
    size_t n = strlen(copied);
    (void)arg;
    snprintf(copied + n, sizeof copied - n, "%.*s", (int)size, p);
    return size;
}
static void on_copy_end(void *arg)
{
    (void)arg;
    stream_free(TAKE(copying));
    copy_ended = true;
}
static void on_copy_error(void *arg, const struct err *e)
{
    (void)e;
    on_copy_end(arg);
}
static void copy(const char *id, enum copy_op op)
{
    static const struct stream_events ev = { on_copy_data, NULL, on_copy_end, on_copy_error };
    struct copy_request q = { .op = op, .path = (char *)(uintptr_t)"/tmp" };
    struct err e;
    copied[0] = '\0';
    copy_ended = false;
    copying = runtime_copy(rt, id, &q, &e);
    assert_non_null(copying);
    stream_set_events(copying, &ev, NULL);
}
static bool has_begun(void *arg)
{
    (void)arg;
    return copied[0] == '\n';
}
static bool has_ended(void *arg)
{
    (void)arg;
    return copy_ended;
}
static bool started;
static void on_start(void *arg, int r, const struct err *e)
{
    started = true;
    on_done(arg, r, e);
}
static bool deleted;
static void on_delete(void *arg, int r, const struct err *e)
{
    (void)arg;
    assert_null(e);
    deleted = r == 0;
}
static bool has_shim(void *id)
{
    return shim_of(id) > 0;
}
static bool both_over(void *arg)
{
    (void)arg;
    return started && deleted;
}
static bool time_is_over(void *end_ns)
{
    return clock_mono_ns() > *(int64_t *)end_ns;
}

/* The root of a container is mounted once: a start waits for a copy, and no copy begins meanwhile. */
static void test_one_mount(void **state)
{
    struct container_spec s;
    struct copy_request q = { .op = COPY_STAT, .path = (char *)(uintptr_t)"/tmp" };
    struct err e;
    (void)state;
    spec_for(&s, "exit 0");
    start(&s);
    wait_exit(s.id);
    copy(s.id, COPY_IN);
    until(has_begun, NULL, "the beginning of the copy");
    runtime_start(rt, s.id, on_start, NULL);
    int64_t end_ns = clock_mono_ns() + 500 * MS_NS; /* long enough for a start that does not wait */
    until(time_is_over, &end_ns, "half a second");
    assert_false(started);
    assert_null(runtime_copy(rt, s.id, &q, &e));
    assert_int_equal(e.code, E_CONFLICT);
    stream_close_write(copying); /* an empty archive */
    wait_done();
    assert_true(started && result == 0);
    until(has_ended, NULL, "the end of the copy");
    assert_string_equal(copied, "\n\n");
    wait_exit(s.id);
    copy(s.id, COPY_STAT); /* at once: what has ended holds nothing */
    until(has_ended, NULL, "the end of a look");
    assert_true(str_starts(copied, "{\"name\""));
    /* Stopped while its start waits: called off. */
    started = deleted = false;
    copy(s.id, COPY_IN);
    until(has_begun, NULL, "the beginning of the copy");
    runtime_start(rt, s.id, on_start, NULL);
    assert_true(runtime_is_starting(rt, s.id));
    runtime_stop(rt, s.id, 60 * SEC_NS, on_delete, NULL);
    stream_close_write(copying);
    until(both_over, NULL, "the end of start and stop");
    assert_int_equal(result, -E_CONFLICT);
    assert_int_equal(runtime_find(rt, s.id)->state.phase, CONTAINER_EXITED);
    assert_false(runtime_is_starting(rt, s.id));
    until(has_ended, NULL, "the end of the copy");
    /* Removed while its start waits, and the shim dies: both are answered. */
    started = deleted = false;
    copy(s.id, COPY_IN);
    until(has_begun, NULL, "the beginning of the copy");
    runtime_start(rt, s.id, on_start, NULL);
    until(has_shim, s.id, "the shim");
    runtime_delete(rt, s.id, on_delete, NULL);
    kill(shim_of(s.id), SIGKILL);
    until(both_over, NULL, "the end of start and removal");
    assert_true(result < 0);
    assert_null(runtime_find(rt, s.id));
    stream_close_write(copying);
    until(has_ended, NULL, "the end of the copy");
    container_spec_clear(&s);
}

/* ---- deaths ---- */
/* A daemon of its own process that makes a container, says so, and then does nothing more. */
static pid_t other_daemon(const char *id, const char *script, int *ret_said)
{
    int said[2];
    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid > 0) {
        close(said[1]);
        *ret_said = said[0];
        return pid;
    }
    struct container_spec s;
    struct err e;
    runtime_close(rt);
    if (runtime_spawner_start(&e) < 0)
        _exit(1);
    loop = loop_new();
    open_runtime();
    spec_for(&s, script);
    str_set(&s.id, id);
    AUTO_FREE char *shared = path_join(base, "shared");
    mkdir(shared, 0755);
    struct container_mount *m = REC_ADD(&s.mounts);
    str_set(&m->source, shared);
    str_set(&m->target, "/shared");
    start(&s);
    if (result < 0 || write(said[1], "r", 1) != 1)
        _exit(1);
    loop_run(loop);
    _exit(0);
}

static bool no_groups(void *id)
{
    AUTO_FREE char *v1 = xasprintf("/sys/fs/cgroup/memory/%s/%s", group, (char *)id);
    AUTO_FREE char *v2 = xasprintf("/sys/fs/cgroup/%s/%s", group, (char *)id);
    return access(v1, F_OK) < 0 && access(v2, F_OK) < 0;
}
static bool is_gone(void *pid) /* or waits for a process 1 that does not reap */
{
    AUTO_FREE char *path = xasprintf("/proc/%d/stat", *(pid_t *)pid), *text = NULL;
    size_t n;
    return file_read(path, 4096, &text, &n, NULL) < 0 || strstr(text, ") Z ");
}

/* kill -9 of the daemon: the container goes on, the next daemon has it, with its logs, exec and exit code. */
static void test_daemon_killed(void **state)
{
    char id[65], c;
    int said, status;
    struct container_spec s = { 0 };
    struct err e;
    (void)state;
    id_random_hex(id);
    runtime_close(rt);
    rt = NULL;
    pid_t pid = other_daemon(id, "trap 'echo bye; exit 12' TERM; echo up; while :; do sleep 0.1; done", &said);
    assert_int_equal(read(said, &c, 1), 1);
    close(said);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    open_runtime();
    const struct container *k = runtime_find(rt, id);
    assert_non_null(k);
    assert_int_equal(k->state.phase, CONTAINER_RUNNING);
    assert_int_equal(kill((pid_t)k->state.pid, 0), 0);
    assert_true(k->state.start_id > 0);
    wait_said(id, "up");
    struct exec_spec x = { .tty = true };
    exec_start(id, &x, "echo still here; exit 5");
    until(exec_is_over, NULL, "an exec by the second daemon");
    assert_non_null(strstr(heard, "still here"));
    assert_int_equal(exec_code, 5);
    runtime_stop(rt, id, 60 * SEC_NS, on_done, NULL);
    wait_done();
    assert_int_equal(runtime_find(rt, id)->state.exit_code, 12);
    read_logs(id, false);
    assert_string_equal(seen, "up\nbye\n");
    str_set(&s.id, id);
    delete_box(&s);
    assert_int_equal(runtime_signal(rt, id, SIGTERM, &e), -E_NOT_FOUND);
}

/* A container that ended while no daemon was there: the next one learns how. */
static void test_ended_alone(void **state)
{
    char id[65], c;
    int said, status;
    struct container_spec s = { 0 };
    (void)state;
    id_random_hex(id);
    runtime_close(rt);
    rt = NULL;
    AUTO_FREE char *release = path_join(base, "shared/go");
    pid_t pid = other_daemon(id, "until test -e /shared/go; do sleep 0.05; done; echo alone; exit 33", &said);
    assert_int_equal(read(said, &c, 1), 1);
    close(said);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    pid_t shim = shim_of(id);
    assert_true(shim > 0);
    int fd = open(release, O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0);
    close(fd);
    until(is_gone, &shim, "the end of the shim");
    open_runtime();
    const struct container *k = runtime_find(rt, id);
    assert_non_null(k);
    assert_int_equal(k->state.phase, CONTAINER_EXITED);
    assert_int_equal(k->state.exit_code, 33);
    assert_true(no_groups(id));
    read_logs(id, false);
    assert_string_equal(seen, "alone\n");
    str_set(&s.id, id);
    delete_box(&s);
}

/* The shim dies: so does its container, by the kernel; the daemon says so and cleans up. */
static void test_shim_killed(void **state)
{
    struct container_spec s;
    (void)state;
    spec_for(&s, "sleep 1001 & echo up; sleep 1000");
    start(&s);
    wait_said(s.id, "up");
    pid_t first = (pid_t)runtime_find(rt, s.id)->state.pid, shim = shim_of(s.id);
    assert_true(shim > 0);
    kill(shim, SIGKILL);
    wait_exit(s.id);
    assert_int_equal(runtime_find(rt, s.id)->state.exit_code, 137);
    assert_non_null(strstr(runtime_find(rt, s.id)->state.error, "shim is gone"));
    until(is_gone, &first, "the end of the container");
    until(no_groups, s.id, "the end of its groups");
    /* It can be started again. */
    runtime_start(rt, s.id, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    assert_int_equal(exec_run(s.id, "true"), 0);
    delete_box(&s);
}

/* Daemon and shim die at once, as when the machine goes; and a folder that was never finished. */
static void test_leftovers(void **state)
{
    struct container_spec s;
    struct err e;
    char half[65];
    (void)state;
    spec_for(&s, "echo up; sleep 1000");
    start(&s);
    wait_said(s.id, "up");
    pid_t first = (pid_t)runtime_find(rt, s.id)->state.pid;
    runtime_close(rt);
    kill(shim_of(s.id), SIGKILL);
    until(is_gone, &first, "the end of the container");
    id_random_hex(half);
    AUTO_FREE char *dir = xasprintf("%s/containers/%s", base, half);
    AUTO_FREE char *lost = xasprintf("/sys/fs/cgroup/%s%s/%s", is_v2() ? "" : "memory/", group, half);
    assert_int_equal(file_mkdirs(dir, 0755, &e), 0);
    assert_int_equal(file_mkdirs(lost, 0755, &e), 0);
    open_runtime();
    assert_int_equal(runtime_find(rt, s.id)->state.phase, CONTAINER_EXITED);
    assert_int_equal(runtime_find(rt, s.id)->state.pid, 0);
    assert_true(no_groups(s.id));
    assert_true(no_groups(half));
    assert_null(runtime_find(rt, half));
    AUTO_FREE char *mounts = NULL;
    size_t n;
    assert_int_equal(file_read("/proc/self/mounts", 1 << 20, &mounts, &n, &e), 0);
    assert_null(strstr(mounts, base)); /* mounts of containers are in their own namespaces only */
    delete_box(&s);
}

static void set_text(const char *path, const char *text, size_t size)
{
    struct err e;
    assert_int_equal(file_write_volatile(path, text, size, 0600, &e), 0);
}

/* What could not be read again is not written; and what cannot be read is never removed, whoever wrote it. */
static void test_unreadable(void **state)
{
    struct container_spec s, other = { 0 };
    struct err e;
    char name[300] = "", *kept;
    size_t n;
    (void)state;
    memset(name, 'n', sizeof name - 1);
    spec_for(&s, "echo up; sleep 1000");
    start(&s);
    wait_said(s.id, "up");
    assert_int_equal(runtime_rename(rt, s.id, name, &e), -E_INVALID);
    assert_null(runtime_find(rt, s.id)->spec.name);
    container_spec_copy(&other, &s);
    other.pids_limit = 5000000;
    assert_int_equal(runtime_update(rt, &other, &e), -E_INVALID);
    assert_non_null(strstr(e.text, "PidsLimit"));
    container_spec_clear(&other);
    pid_t pid = (pid_t)runtime_find(rt, s.id)->state.pid;
    AUTO_FREE char *spec = path_join(runtime_find(rt, s.id)->dir, "spec.mp");
    AUTO_FREE char *log = path_join(runtime_find(rt, s.id)->dir, "log.json");
    runtime_close(rt);
    open_runtime(); /* refused for good: it is there with what it had */
    assert_int_equal(runtime_find(rt, s.id)->state.pid, pid);
    runtime_close(rt);
    assert_int_equal(file_read(spec, 1 << 20, &kept, &n, &e), 0);
    for (unsigned i = 0; i < 2; i++) { /* torn, and empty as after a power cut */
        set_text(spec, kept, i ? 0 : n / 2);
        open_runtime();
        assert_null(runtime_find(rt, s.id));
        assert_true(file_exists(spec) && file_exists(log));
        assert_int_equal(kill(pid, 0), 0);
        runtime_close(rt);
    }
    set_text(spec, kept, n);
    free(kept);
    open_runtime();
    assert_int_equal(runtime_find(rt, s.id)->state.pid, pid);
    delete_box(&s);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logs), cmocka_unit_test(test_log_tail), cmocka_unit_test(test_log_rotation), cmocka_unit_test(test_log_fast),
        cmocka_unit_test(test_long_line), cmocka_unit_test(test_exec),
        cmocka_unit_test(test_terminals), cmocka_unit_test(test_attach), cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_stop), cmocka_unit_test(test_init), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_mounts), cmocka_unit_test(test_daemon_killed), cmocka_unit_test(test_ended_alone),
        cmocka_unit_test(test_shim_killed), cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_unreadable), cmocka_unit_test(test_one_mount),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

int main(void)
{
    return fixture_main(all_tests);
}
