/* Logs over HTTP: of one container here, and of a service's tasks wherever they run, merged as they come. Each
 * entry is one frame of Docker's raw stream (stream type, length, bytes). */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <stdio.h>

enum { TASKS_MAX = 1000, NEW_TASKS_MS = 300, FRAME_HEAD = 8, FRAME_MAX_BYTES = 1 << 20 };

/* ---- parameters ---- */
static bool parse_query(struct call *c, struct log_query *q)
{
    const char *tail = query(c, "tail");
    uint64_t n;
    *q = (struct log_query){ .follow = query_flag(c, "follow"), .out = query_flag(c, "stdout"),
                             .err = query_flag(c, "stderr"), .tail = -1 };
    if (!q->out && !q->err) {
        reply_error(c, E_INVALID, "Bad parameters: you must choose at least one stream");
        return false;
    }
    if (tail && *tail && !str_equal(tail, "all")) {
        if (!str_u64(tail, 0, INT64_MAX, &n)) {
            reply_error(c, E_INVALID, "tail: \"%s\" is neither a number nor all", tail);
            return false;
        }
        q->tail = (int64_t)n;
    }
    if (!query_time(query(c, "since"), &q->since_ns) || !query_time(query(c, "until"), &q->until_ns)) {
        reply_error(c, E_INVALID, "since and until must be seconds since 1970 or RFC 3339 times");
        return false;
    }
    return true;
}

static void put_frame(struct call *c, bool err, const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t n = a_size + b_size;
    char head[FRAME_HEAD] = { err ? 2 : 1, 0, 0, 0, (char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n };
    stream_put(c, head, sizeof head);
    stream_put(c, a, a_size);
    stream_put(c, b, b_size);
}

/* ---- one container ---- */
struct tail { struct call *c; struct runtime_logs *logs; bool times, raw; };

static bool on_entry(void *arg, const struct log_entry *x)
{
    struct tail *t = arg;
    char time[48] = "";
    if (t->times) {
        time_format(time, x->time_ns);
        size_t n = strlen(time);
        time[n] = ' ';
        time[n + 1] = '\0';
    }
    if (t->raw) {
        stream_put(t->c, time, strlen(time));
        stream_put(t->c, x->line, x->size);
    } else {
        put_frame(t->c, x->err, time, strlen(time), x->line, x->size);
    }
    return t->c->r && !http_stream_is_full(t->c->r);
}

static void on_end(void *arg)
{
    struct tail *t = arg;
    struct call *c = t->c;
    runtime_logs_stop(t->logs);
    free(t);
    stream_done(c);
}

static void tail_gone(struct call *c)
{
    struct tail *t = c->state;
    runtime_logs_stop(t->logs);
    free(t);
    call_free(c);
}

static void tail_drain(struct call *c)
{
    runtime_logs_resume(((struct tail *)c->state)->logs);
}

void container_logs(struct call *c)
{
    struct log_query q;
    struct err e;
    const struct container *x = runtime_find(c->api->b.runtime, c->param[0]);
    if (!x) {
        reply_error(c, E_NOT_FOUND, "No such container: %s", c->param[0]);
        return;
    }
    if (!parse_query(c, &q))
        return;
    struct tail *t = xnew(struct tail);
    t->c = c;
    t->times = query_flag(c, "timestamps");
    t->raw = x->spec.tty && !c->from_peer;
    t->logs = runtime_logs(c->api->b.runtime, x->spec.id, &q, on_entry, on_end, t, &e);
    if (!t->logs) {
        free(t);
        reply_err(c, &e);
        return;
    }
    c->state = t;
    c->gone = tail_gone;
    c->drain = tail_drain;
    stream_begin(c, t->raw ? "application/vnd.docker.raw-stream" : "application/vnd.docker.multiplexed-stream");
}

/* ---- tasks of a service ---- */
struct gather;
struct source { /* one task's log, from this node or another */
    struct list_node node;
    struct gather *g;
    char *task_id, *details;
    struct runtime_logs *local;
    struct http_call *remote;
    struct sb in;
    bool failed;
};
struct gather {
    struct call *c;
    struct log_query q;
    bool times, details;
    char *service_id, *task_id; /* one of them */
    struct map seen;            /* task ids */
    struct list_node sources;
    struct loop_timer *timer;
};

static void source_free(void *arg)
{
    struct source *s = arg;
    list_remove(&s->node);
    runtime_logs_stop(s->local);
    http_call_free(s->remote);
    sb_done(&s->in);
    free(s->task_id);
    free(s->details);
    free(s);
}

static void gather_free(struct gather *g)
{
    struct source *s;
    list_for(s, &g->sources, node)
        source_free(s);
    loop_timer_free(g->timer);
    map_done(&g->seen);
    free(g->service_id);
    free(g->task_id);
    free(g);
}

static void gather_gone(struct call *c)
{
    gather_free(c->state);
    call_free(c);
}

static void gather_step(void *arg);

/* The last source is through and nothing is followed: that was all. */
static void source_over(struct source *s)
{
    struct gather *g = s->g;
    source_free(s);
    if (list_is_empty(&g->sources))
        loop_timer_set(g->timer, 0);
}

static bool put_entry(struct source *s, bool err, const char *p, size_t size)
{
    struct gather *g = s->g;
    const char *space = g->times ? memchr(p, ' ', size) : NULL;
    size_t time = space ? (size_t)(space - p) + 1 : 0;
    struct sb head;
    sb_init(&head, 0);
    sb_add(&head, p, time);
    if (g->details)
        sb_printf(&head, "%s ", s->details);
    put_frame(g->c, err, head.s, head.len, p + time, size - time);
    sb_done(&head);
    return g->c->r && !http_stream_is_full(g->c->r);
}

static bool on_local(void *arg, const struct log_entry *x)
{
    struct source *s = arg;
    struct sb b;
    char time[40];
    sb_init(&b, 0);
    if (s->g->times) {
        time_format(time, x->time_ns);
        sb_printf(&b, "%s ", time);
    }
    sb_add(&b, x->line, x->size);
    bool go = put_entry(s, x->err, b.s, b.len);
    sb_done(&b);
    return go;
}

static void on_local_end(void *arg)
{
    source_over(arg);
}

static void on_head(void *arg, struct http_call *h, int status, const struct http_message *m)
{
    struct source *s = arg;
    (void)h, (void)m;
    s->failed = status != 200;
}

static size_t on_remote(void *arg, struct http_call *h, const char *p, size_t size)
{
    struct source *s = arg;
    (void)h;
    if (s->failed)
        return size;
    if (http_stream_is_full(s->g->c->r))
        return 0;
    sb_add(&s->in, p, size);
    for (;;) {
        const uint8_t *b = (const uint8_t *)s->in.s;
        if (s->in.len < FRAME_HEAD)
            break;
        size_t n = (size_t)b[4] << 24 | (size_t)b[5] << 16 | (size_t)b[6] << 8 | b[7];
        if (n > FRAME_MAX_BYTES || s->in.overflow) {
            s->failed = true;
            break;
        }
        if (s->in.len < FRAME_HEAD + n)
            break;
        put_entry(s, b[0] == 2, s->in.s + FRAME_HEAD, n);
        sb_drop_front(&s->in, FRAME_HEAD + n);
    }
    return size;
}

/* What is missing is said among the lines, or nobody would know. */
static void put_note(struct source *s, const char *why)
{
    AUTO_FREE char *text = xasprintf("[shoal: the log of task %s ends here: %s]\n", s->task_id, why);
    const struct log_entry x = { .time_ns = clock_real_ns(), .err = true, .line = text, .size = strlen(text) };
    on_local(s, &x);
}

static void on_remote_end(void *arg, struct http_call *h, const struct err *e)
{
    struct source *s = arg;
    (void)h;
    if (e || s->failed)
        put_note(s, e ? e->text : "its node gave none");
    source_over(s);
}

static void gather_drain(struct call *c)
{
    struct gather *g = c->state;
    struct source *s;
    list_for(s, &g->sources, node) {
        if (s->local)
            runtime_logs_resume(s->local);
        if (s->remote)
            http_call_resume(s->remote);
    }
}

static bool open_remote(struct gather *g, struct source *s, const struct task *t)
{
    static const struct http_call_events ev = { on_head, on_remote, on_remote_end };
    static const char *const headers[] = { "Host: shoal", NULL };
    const struct api_backend *b = &g->c->api->b;
    struct err e;
    char tail[32] = "all";
    struct stream *st = b->open_node(b->arg, t->node_id, &e);
    if (!st) {
        put_note(s, e.text);
        return false;
    }
    if (g->q.tail >= 0)
        snprintf(tail, sizeof tail, "%lld", (long long)g->q.tail);
    AUTO_FREE char *target = xasprintf("/containers/%s/logs?follow=%d&stdout=%d&stderr=%d&timestamps=%d&tail=%s&since=%lld.%09lld",
                                       t->status.container->id, g->q.follow, g->q.out, g->q.err, g->times, tail,
                                       (long long)(g->q.since_ns / SEC_NS), (long long)(g->q.since_ns % SEC_NS));
    s->remote = http_call_new(b->loop, st, "GET", target, headers, NULL, 0, false, &ev, s);
    return true;
}

static void add_source(struct gather *g, const struct task *t)
{
    const struct api_backend *b = &g->c->api->b;
    struct err e;
    struct source *s = xnew(struct source);
    list_push_back(&g->sources, &s->node);
    s->g = g;
    s->task_id = xstrdup(t->id);
    s->details = xasprintf("com.docker.swarm.node.id=%s,com.docker.swarm.service.id=%s,com.docker.swarm.task.id=%s",
                           t->node_id, t->service_id ? t->service_id : "", t->id);
    sb_init(&s->in, 4 * FRAME_MAX_BYTES);
    bool ok;
    if (str_equal(t->node_id, b->node_id(b->arg))) {
        s->local = runtime_logs(b->runtime, t->status.container->id, &g->q, on_local, on_local_end, s, &e);
        ok = s->local != NULL;
    } else {
        ok = open_remote(g, s, t);
    }
    if (!ok)
        source_free(s);
}

static void gather_step(void *arg)
{
    struct gather *g = arg;
    struct call *c = g->c;
    struct manager *m = call_manager(c);
    for (const struct task *t = NULL; m && (t = store_next(manager_store(m), TABLE_TASK, t));) {
        bool ours = g->task_id ? str_equal(t->id, g->task_id) : str_equal(t->service_id, g->service_id);
        if (!ours || map_find(&g->seen, t->id) || !t->status.container || !t->status.container->id || g->seen.n >= TASKS_MAX)
            continue;
        map_put(&g->seen, t->id, g);
        add_source(g, t);
    }
    if (list_is_empty(&g->sources) && !(g->q.follow && m && c->r)) {
        c->gone = NULL;
        gather_free(g);
        stream_done(c);
        return;
    }
    if (g->q.follow)
        loop_timer_set(g->timer, NEW_TASKS_MS);
}

static void gather(struct call *c, const char *service_id, const char *task_id)
{
    struct log_query q;
    if (!parse_query(c, &q))
        return;
    struct gather *g = xnew(struct gather);
    g->c = c;
    g->q = q;
    g->times = query_flag(c, "timestamps");
    g->details = query_flag(c, "details");
    g->service_id = xstrdup(service_id);
    g->task_id = xstrdup(task_id);
    map_init(&g->seen);
    list_init(&g->sources);
    g->timer = loop_timer_new(c->api->b.loop, gather_step, g);
    c->state = g;
    c->gone = gather_gone;
    c->drain = gather_drain;
    stream_begin(c, "application/vnd.docker.multiplexed-stream");
    gather_step(g);
}

void service_logs(struct call *c)
{
    const void *o;
    struct err e;
    if (store_lookup(call_store(c), TABLE_SERVICE, c->param[0], &o, &e) < 0)
        reply_err(c, &e);
    else
        gather(c, ((const struct service *)o)->id, NULL);
}

void task_logs(struct call *c)
{
    const void *o;
    struct err e;
    if (store_lookup(call_store(c), TABLE_TASK, c->param[0], &o, &e) < 0)
        reply_err(c, &e);
    else
        gather(c, NULL, ((const struct task *)o)->id);
}
