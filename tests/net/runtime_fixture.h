/* A runtime to test against: a loop, a busybox root, one container at a time; calls wait for their end. */
#ifndef RUNTIME_FIXTURE_H
#define RUNTIME_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64], group[64];
static struct loop *loop;
static struct runtime *rt;
static int result;
static bool finished;
static char error[512];
static char seen[1 << 16], seen_err[1 << 16]; /* what came on stdout and stderr: two pipes, no order between them */

static inline void on_event(void *arg, const struct container *c)
{
    (void)arg;
    (void)c;
}

static inline void on_done(void *arg, int r, const struct err *e)
{
    (void)arg;
    result = r;
    snprintf(error, sizeof error, "%s", e ? e->text : "");
    finished = true;
    loop_stop(loop);
}

static bool late;
static inline void on_late(void *arg)
{
    (void)arg;
    late = true;
    loop_stop(loop);
}

static inline void wait_done(void)
{
    struct loop_timer *t = loop_timer_new(loop, on_late, NULL);
    loop_timer_set(t, 60000);
    late = false;
    while (!finished && !late)
        loop_run(loop);
    loop_timer_free(t);
    if (!finished)
        fail_msg("no answer within 60 s");
    finished = false;
}

/* Turns the loop until cond(arg), polling it; fails after 60 s. */
static inline void until(bool (*cond)(void *arg), void *arg, const char *what)
{
    int64_t end = clock_mono_ns() + 60 * SEC_NS;
    struct loop_timer *t = loop_timer_new(loop, (loop_fn *)loop_stop, loop);
    while (!cond(arg)) {
        if (clock_mono_ns() > end)
            fail_msg("waited 60 s for: %s", what);
        loop_timer_set(t, 10);
        loop_run(loop);
    }
    loop_timer_free(t);
    finished = false;
}

static inline bool has_exited(void *id)
{
    const struct container *c = runtime_find(rt, id);
    return !c || c->state.phase == CONTAINER_EXITED;
}

static inline void wait_exit(const char *id)
{
    until(has_exited, (void *)(uintptr_t)id, "the end of the container");
}

static inline void open_runtime(void)
{
    struct err e = { 0 };
    AUTO_FREE char *dir = path_join(base, "containers");
    struct runtime_config cfg = { .dir = dir, .cgroup = group };
    if (runtime_open(&rt, loop, &cfg, on_event, NULL, &e) < 0)
        fail_msg("%s", e.text);
}

static inline void spec_for(struct container_spec *s, const char *script)
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

static inline bool on_line(void *arg, const struct log_entry *x)
{
    char *to = x->err ? seen_err : seen;
    size_t n = strlen(to);
    (void)arg;
    snprintf(to + n, sizeof seen - n, "%.*s", (int)x->size, x->line);
    return true;
}

static inline void on_end(void *arg)
{
    (void)arg;
    finished = true;
    loop_stop(loop);
}

static inline void read_logs(const char *id, bool follow)
{
    struct err e;
    struct log_query q = { .follow = follow, .out = true, .err = true, .tail = -1 };
    seen[0] = seen_err[0] = '\0';
    struct runtime_logs *l = runtime_logs(rt, id, &q, on_line, on_end, NULL, &e);
    assert_non_null(l);
    wait_done();
    runtime_logs_stop(l);
}

static inline void start(const struct container_spec *s)
{
    runtime_create(rt, s, on_done, NULL);
    wait_done();
    if (result < 0)
        fail_msg("create: %s", error);
    runtime_start(rt, s->id, on_done, NULL);
    wait_done();
}

/* Runs a script to its end; output in seen, returns the exit code. */
static inline int run_spec(struct container_spec *s)
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

static inline int run(const char *script)
{
    struct container_spec s;
    spec_for(&s, script);
    return run_spec(&s);
}

static inline void delete_box(struct container_spec *s)
{
    runtime_delete(rt, s->id, on_done, NULL);
    wait_done();
    assert_int_equal(result, 0);
    container_spec_clear(s);
}

/* Waits until the container has said TEXT. */
struct saying { const char *id, *text; };
static inline bool has_said(void *arg)
{
    const struct saying *y = arg;
    read_logs(y->id, false);
    return strstr(seen, y->text) != NULL;
}
static inline void wait_said(const char *id, const char *text)
{
    struct saying y = { id, text };
    until(has_said, &y, text);
}

/* A started container does not come up: the reason is in error. */
static inline void refused(struct container_spec *s, const char *reason)
{
    char said[sizeof error];
    runtime_create(rt, s, on_done, NULL);
    wait_done();
    if (result == 0) {
        runtime_start(rt, s->id, on_done, NULL);
        wait_done();
        if (result == 0)
            fail_msg("it started; expected: %s", reason);
        memcpy(said, error, sizeof said);
        delete_box(s);
        memcpy(error, said, sizeof said);
    } else {
        container_spec_clear(s);
    }
    if (!strstr(error, reason))
        fail_msg("\"%s\" does not say \"%s\"", error, reason);
}

/* ---- one further process or attached stream at a time ---- */
static struct stream *talk;
static char heard[1 << 16];
static bool talk_raw; /* a terminal: no frames */
static int exec_code;
static uint64_t exec_id;
static bool talk_ended;

static inline void hear(const char *p, size_t size)
{
    size_t n = strlen(heard);
    for (size_t i = 0; i < size && n + 1 < sizeof heard; i++)
        if (p[i] && p[i] != '\r')
            heard[n++] = p[i];
    heard[n] = '\0';
}
static inline size_t on_talk_data(void *arg, const char *p, size_t size)
{
    size_t at = 0;
    (void)arg;
    if (talk_raw) {
        hear(p, size);
        return size;
    }
    while (size - at >= 8) { /* whole frames of stdout and stderr */
        const unsigned char *h = (const unsigned char *)p + at;
        size_t n = (size_t)h[4] << 24 | (size_t)h[5] << 16 | (size_t)h[6] << 8 | h[7];
        assert_true((h[0] == 1 || h[0] == 2) && n <= 1 << 16);
        if (size - at - 8 < n)
            break;
        hear(p + at + 8, n);
        at += 8 + n;
    }
    return at;
}
static inline void on_talk_eof(void *arg)
{
    (void)arg;
    stream_free(talk);
    talk = NULL;
    talk_ended = true;
}
static inline void on_talk_error(void *arg, const struct err *e)
{
    (void)e;
    on_talk_eof(arg);
}
static inline void listen_to(struct stream *s, bool raw)
{
    static const struct stream_events ev = { on_talk_data, NULL, on_talk_eof, on_talk_error };
    heard[0] = '\0';
    talk_ended = false;
    talk_raw = raw;
    talk = s;
    stream_set_events(s, &ev, NULL);
}
static inline void on_exec_started(void *arg, int r, struct stream *s, uint64_t id, const struct err *e)
{
    result = r;
    snprintf(error, sizeof error, "%s", e ? e->text : "");
    exec_id = id;
    if (r == 0)
        listen_to(s, *(bool *)arg);
    finished = true;
    loop_stop(loop);
}
static inline void on_exec_exit(void *arg, uint64_t id, int code)
{
    exec_code = code;
}
static inline void exec_start(const char *id, struct exec_spec *x, const char *script)
{
    strs_add(&x->argv, "/bin/sh");
    strs_add(&x->argv, "-c");
    strs_add(&x->argv, script);
    exec_code = -1;
    runtime_exec(rt, id, x, on_exec_started, on_exec_exit, &x->tty);
    wait_done();
    exec_spec_clear(x);
}
static inline bool exec_is_over(void *arg)
{
    return talk_ended && exec_code >= 0;
}
static inline bool talk_is_over(void *arg)
{
    return talk_ended;
}
static inline bool was_heard(void *text)
{
    return strstr(heard, text) != NULL;
}
static inline void wait_heard(const char *text)
{
    until(was_heard, (void *)(uintptr_t)text, text);
}
static inline int exec_run(const char *id, const char *script)
{
    struct exec_spec x = { 0 };
    exec_start(id, &x, script);
    if (result < 0)
        fail_msg("exec: %s", error);
    until(exec_is_over, NULL, "the end of the exec");
    return exec_code;
}

/* true runs in it, or all that is known of why not. */
static inline void exec_works(const char *id)
{
    int code = exec_run(id, "true");
    const struct container *c = runtime_find(rt, id);
    if (code)
        fail_msg("true ended with %d; the container: %s, its end %d %s%s", code, c ? container_phase_names[c->state.phase] : "gone",
                 c ? (int)c->state.exit_code : 0, c && c->state.error ? c->state.error : "", c && c->state.oom_killed ? ", out of memory" : "");
}

static inline int setup(void **state)
{
    (void)state;
    snprintf(base, sizeof base, "/tmp/shoal-runtime-%d", getpid());
    snprintf(group, sizeof group, "shoal-test-%d", getpid());
    char cmd[2048];
    snprintf(cmd, sizeof cmd,
             "set -e; r=%s/layers/root; mkdir -p $r/bin $r/etc $r/tmp; cp /bin/busybox $r/bin/busybox; "
             "for x in $($r/bin/busybox --list); do test $x = busybox || ln -sf busybox $r/bin/$x; done; ln -s /../../../tmp $r/link; mkdir $r/mnt;"
             "echo 'root:x:0:0::/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh' > $r/etc/passwd; "
             "echo 'root:x:0:\nbob:x:1001:\nstaff:x:50:bob' > $r/etc/group; "
             "if test -n \"$SHOAL_PROBE\"; then cp $SHOAL_PROBE $r/bin/probe; else "
             "gcc -O1 -static -o $r/bin/probe ${SHOAL_TOP:-.}/tests/net/container_probe.c; fi", base);
    const char *argv[] = { "sh", "-c", cmd, NULL };
    struct err e;
    struct sb out;
    sb_init(&out, 65536);
    if (proc_run(argv, &out, &e) != 0) {
        fprintf(stderr, "%s\n", out.s);
        return -1;
    }
    sb_done(&out);
    open_runtime();
    return 0;
}

static inline int teardown(void **state)
{
    struct err e;
    (void)state;
    assert_null(runtime_next(rt, NULL));
    runtime_close(rt);
    loop_free(loop);
    return file_remove_tree(base, &e);
}

static inline int fixture_main(int (*all_tests)(void))
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
    return all_tests();
}

#endif
