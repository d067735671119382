/* Healthchecks: the test runs inside the container at each interval; so many failures in a row make it unhealthy,
 * one success healthy. Failures during the start period do not count. Defaults are Docker's. */
#include "executor_internal.h"
#include <shoal/base/file.h>

struct health {
    struct loop *loop;
    struct runtime *rt;
    char *id;
    struct strs argv;
    int64_t interval, timeout, start_period, start_interval, retries;
    health_fn *fn;
    void *arg;
    struct loop_timer *timer, *limit;
    struct stream *out;
    struct sb text;
    int64_t started_ms;
    int failures;
    bool healthy, running, freed;
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

static void result(struct health *h, bool good)
{
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
    } else if (!starting || h->healthy) {
        if (++h->failures >= h->retries)
            h->fn(h->arg, false, h->text.s);
    }
}

static size_t on_data(void *arg, const char *p, size_t size)
{
    struct health *h = arg;
    if (h->text.len < 4096)
        sb_add(&h->text, p, MIN(size, 4096 - h->text.len));
    return size;
}

static void on_eof(void *arg)
{
    (void)arg; /* the exit code tells */
}

static void on_error(void *arg, const struct err *e)
{
    (void)arg;
    (void)e;
}

static void on_started(void *arg, int r, struct stream *s, uint64_t exec_id, const struct err *e)
{
    static const struct stream_events ev = { on_data, NULL, on_eof, on_error };
    struct health *h = arg;
    (void)exec_id;
    if (r < 0) {
        sb_str(&h->text, e->text);
        result(h, false);
        return;
    }
    h->out = s;
    stream_set_events(s, &ev, h);
    stream_close_write(s);
}

static void on_exited(void *arg, uint64_t exec_id, int code)
{
    (void)exec_id;
    result(arg, code == 0);
}

/* The check hangs: it counts as failed; its process goes with the container or at its own end. */
static void on_limit(void *arg)
{
    struct health *h = arg;
    if (++h->failures >= h->retries && !h->freed)
        h->fn(h->arg, false, "the check did not end in time");
}

static void check(void *arg)
{
    struct health *h = arg;
    struct exec_spec x = { 0 };
    if (h->running)
        return;
    h->running = true;
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

void health_free(struct health *h)
{
    if (!h)
        return;
    h->freed = true;
    if (!h->running)
        release(h);
}
