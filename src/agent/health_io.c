/* Healthchecks: the test runs inside the container at each interval; so many failures in a row make it unhealthy,
 * one success healthy. Failures during the start period do not count. Defaults are Docker's. */
#include "executor_internal.h"
#include <shoal/base/file.h>

enum { OUTPUT_KEPT_BYTES = 4096 };

struct health {
    struct loop *loop;
    struct runtime *rt;
    char *id;
    struct strs argv;
    int64_t interval, timeout, start_period, start_interval, retries;
    health_fn *fn;
    health_probe_fn *probe;
    void *arg;
    struct loop_timer *timer, *limit;
    struct stream *out;
    struct sb text;
    int64_t started_ms, began_ns;
    int failures;
    bool healthy, running, freed, late, exited, eof;
    int code;                  /* of the check that exited */
    unsigned char head[8];     /* of the frame that comes */
    unsigned n_head;
    uint32_t frame_left;
};

static void check(void *arg);

static void release(struct health *h)
{
    loop_timer_free(h->timer);
    loop_timer_free(h->limit);
    stream_free(h->out);
    strs_clear(&h->argv);
    sb_done(&h->text);
    free(h->id);
    free(h);
}

static void plan(struct health *h)
{
    bool starting = !h->healthy && loop_now_ms(h->loop) - h->started_ms < h->start_period / MS_NS;
    loop_timer_set(h->timer, (starting ? h->start_interval : h->interval) / MS_NS);
}

static void tell_probe(const struct health *h, int code)
{
    struct health_probe p = { h->began_ns, clock_real_ns(), code, h->failures, code == 0, h->failures >= h->retries, h->text.s };
    if (h->probe)
        h->probe(h->arg, &p);
}

static void result(struct health *h, int code)
{
    bool good = code == 0 && !h->late;
    bool starting = loop_now_ms(h->loop) - h->started_ms < h->start_period / MS_NS;
    loop_timer_set(h->limit, -1);
    h->running = false;
    stream_free(h->out);
    h->out = NULL;
    if (h->freed) {
        release(h);
        return;
    }
    plan(h);
    if (good) {
        h->failures = 0;
        h->healthy = true;
        h->fn(h->arg, true, h->text.s);
    } else if (!h->late && (!starting || h->healthy)) {
        if (++h->failures >= h->retries)
            h->fn(h->arg, false, h->text.s);
    }
    if (!h->late)
        tell_probe(h, code);
}

/* Output comes in frames: eight bytes of which the last four are the length (big-endian), then so many bytes. */
static size_t on_data(void *arg, const char *p, size_t size)
{
    struct health *h = arg;
    for (size_t i = 0; i < size;) {
        if (h->frame_left == 0) {
            h->head[h->n_head++] = (unsigned char)p[i++];
            if (h->n_head == sizeof h->head) {
                h->frame_left = (uint32_t)h->head[4] << 24 | (uint32_t)h->head[5] << 16 | (uint32_t)h->head[6] << 8 | h->head[7];
                h->n_head = 0;
            }
            continue;
        }
        size_t n = MIN(size - i, (size_t)h->frame_left);
        if (h->text.len < OUTPUT_KEPT_BYTES)
            sb_add(&h->text, p + i, MIN(n, OUTPUT_KEPT_BYTES - h->text.len));
        h->frame_left -= (uint32_t)n;
        i += n;
    }
    return size;
}

/* Exit code and output come on two ways: it is over when both are there. */
static void ended(struct health *h)
{
    if (h->exited && h->eof)
        result(h, h->code);
}

static void on_eof(void *arg)
{
    struct health *h = arg;
    h->eof = true;
    ended(h);
}

static void on_error(void *arg, const struct err *e)
{
    (void)e;
    on_eof(arg);
}

static void on_started(void *arg, int r, struct stream *s, uint64_t exec_id, const struct err *e)
{
    static const struct stream_events ev = { on_data, NULL, on_eof, on_error };
    struct health *h = arg;
    (void)exec_id;
    if (r < 0) {
        sb_str(&h->text, e->text);
        result(h, -1);
        return;
    }
    h->out = s;
    stream_set_events(s, &ev, h);
    stream_close_write(s);
}

static void on_exited(void *arg, uint64_t exec_id, int code)
{
    struct health *h = arg;
    (void)exec_id;
    h->exited = true;
    h->code = code;
    ended(h);
}

/* A paused container is neither well nor ill. */
static bool is_paused(const struct health *h)
{
    const struct container *c = runtime_find(h->rt, h->id);
    return c && c->state.phase == CONTAINER_PAUSED;
}

/* The check hangs: it counts as failed; its process goes with the container or at its own end. */
static void on_limit(void *arg)
{
    struct health *h = arg;
    if (is_paused(h)) {
        loop_timer_set(h->limit, h->timeout / MS_NS);
        return;
    }
    h->late = true;
    if (++h->failures >= h->retries && !h->freed)
        h->fn(h->arg, false, "the check did not end in time");
    if (!h->freed)
        tell_probe(h, -1);
}

static void check(void *arg)
{
    struct health *h = arg;
    struct exec_spec x = { 0 };
    if (h->running)
        return;
    if (is_paused(h)) {
        plan(h);
        return;
    }
    h->running = true;
    h->late = h->exited = h->eof = false;
    h->n_head = 0;
    h->frame_left = 0;
    h->began_ns = clock_real_ns();
    sb_reset(&h->text);
    for (uint32_t i = 0; i < h->argv.n; i++)
        strs_add(&x.argv, h->argv.v[i]);
    loop_timer_set(h->limit, h->timeout / MS_NS);
    runtime_exec(h->rt, h->id, &x, on_started, on_exited, h);
    exec_spec_clear(&x);
}

static int64_t or_default(int64_t a, int64_t b, int64_t otherwise)
{
    return a ? a : b ? b : otherwise;
}

struct health *health_new(struct loop *l, struct runtime *rt, const char *container_id, const struct healthcheck *c,
                          const struct image_config *img, health_fn *fn, void *arg)
{
    const struct strs *test = c && c->test.n ? &c->test : &img->health_test;
    if (test->n == 0 || str_equal(test->v[0], "NONE"))
        return NULL;
    struct health *h = xnew(struct health);
    h->loop = l;
    h->rt = rt;
    h->id = xstrdup(container_id);
    if (str_equal(test->v[0], "CMD-SHELL")) {
        strs_add(&h->argv, "/bin/sh");
        strs_add(&h->argv, "-c");
    }
    for (uint32_t i = 1; i < test->n; i++)
        strs_add(&h->argv, test->v[i]);
    h->interval = or_default(c ? c->interval : 0, img->health_interval, 30 * SEC_NS);
    h->timeout = or_default(c ? c->timeout : 0, img->health_timeout, 30 * SEC_NS);
    h->start_period = or_default(c ? c->start_period : 0, img->health_start_period, 0);
    h->start_interval = or_default(c ? c->start_interval : 0, img->health_start_interval, 5 * SEC_NS);
    h->retries = or_default(c ? c->retries : 0, img->health_retries, 3);
    h->fn = fn;
    h->arg = arg;
    sb_init(&h->text, 8192);
    h->started_ms = loop_now_ms(l);
    h->timer = loop_timer_new(l, check, h);
    h->limit = loop_timer_new(l, on_limit, h);
    plan(h);
    return h;
}

void health_watch(struct health *h, health_probe_fn *fn)
{
    h->probe = fn;
}

void health_free(struct health *h)
{
    if (!h)
        return;
    h->freed = true;
    if (!h->running)
        release(h);
}
