/* /containers/x/archive, export, changes: what the copying process (runtime_copy) says and sends, as HTTP. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>

enum { LINE_MAX_BYTES = 32 << 10 };

/* One transfer. The first line decides the reply; later bytes are the body, or, of what comes in, a last line. */
struct transfer {
    struct call *c;
    struct stream *s;
    struct copy_request q;
    struct sb line;
    bool begun;        /* the first line is over */
    bool sending;      /* the client's body goes in */
    bool body_over;
    struct err failed; /* the answer waits until the body is over: a client that still writes would not read it */
};

static void transfer_free(struct transfer *t)
{
    t->c->state = NULL;
    t->c->gone = NULL;
    t->c->drain = NULL;
    stream_free(t->s);
    copy_request_clear(&t->q);
    sb_done(&t->line);
    free(t);
}

static void end_with(struct transfer *t, int code, const char *text)
{
    struct call *c = t->c;
    struct err e;
    err_set(&e, code, "%s", text); /* text may be part of what is freed */
    transfer_free(t);
    reply_err(c, &e);
}

static void on_gone(struct call *c)
{
    transfer_free(c->state);
    call_free(c);
}

static void on_client_drain(struct call *c)
{
    struct transfer *t = c->state;
    stream_pause(t->s, false);
}

static bool body_data(void *arg, struct http_request *r, const char *p, size_t size);
static void body_end(void *arg, struct http_request *r);
static void body_broken(void *arg, struct http_request *r, const struct err *e);

static void take_body(struct transfer *t)
{
    static const struct http_sink sink = { body_data, body_end, body_broken };
    if (t->sending)
        return;
    t->sending = true;
    http_sink_body(t->c->r, &sink, t->c);
}

static void finish_in(struct transfer *t)
{
    struct call *c = t->c;
    const struct container *x = runtime_find(c->api->b.runtime, c->param[1]);
    if (t->failed.code) {
        end_with(t, t->failed.code, t->failed.text);
        return;
    }
    if (x)
        container_event(c->api, x, "extract-to-dir", "path", t->q.path);
    transfer_free(t);
    reply_empty(c, 200);
}

/* The process that copies has said its last word; failed tells which. */
static void settle_in(struct transfer *t)
{
    if (t->body_over || !t->c->r) {
        finish_in(t);
        return;
    }
    stream_free(t->s);
    t->s = NULL;
    if (t->sending)
        http_sink_resume(t->c->r);
    else
        take_body(t);
}

static void refuse(struct transfer *t, int code, const char *text)
{
    if (t->q.op != COPY_IN) {
        end_with(t, code, text);
        return;
    }
    err_set(&t->failed, code, "%s", text);
    settle_in(t);
}

/* "E CODE TEXT" */
static bool is_error(struct transfer *t)
{
    char *end;
    if (t->line.s[0] != 'E')
        return false;
    long code = strtol(t->line.s + 2, &end, 10);
    AUTO_FREE char *text = xstrdup(*end == ' ' ? end + 1 : end);
    refuse(t, code > 0 && code < 100 ? (int)code : E_IO, text);
    return true;
}

/* ---- what comes in ---- */
static bool body_data(void *arg, struct http_request *r, const char *p, size_t size)
{
    struct transfer *t = ((struct call *)arg)->state;
    (void)r;
    if (!t->s) /* refused: the rest is thrown away */
        return true;
    stream_write(t->s, p, size);
    return !stream_is_full(t->s);
}

static void body_end(void *arg, struct http_request *r)
{
    struct transfer *t = ((struct call *)arg)->state;
    (void)r;
    t->body_over = true;
    if (t->s)
        stream_close_write(t->s);
    else
        finish_in(t);
}

static void body_broken(void *arg, struct http_request *r, const struct err *e)
{
    struct transfer *t = ((struct call *)arg)->state;
    (void)r;
    end_with(t, e->code, e->text);
}

static void on_drain(void *arg)
{
    struct transfer *t = arg;
    if (t->sending && t->c->r)
        http_sink_resume(t->c->r);
}

/* ---- what goes out ---- */
static void begin(struct transfer *t)
{
    struct call *c = t->c;
    t->begun = true;
    if (t->q.op == COPY_IN) {
        sb_reset(&t->line);
        take_body(t);
        return;
    }
    if (t->q.op == COPY_STAT || t->q.op == COPY_OUT) {
        AUTO_FREE char *b64 = base64_encode(t->line.s, t->line.len);
        http_reply_header(c->r, "X-Docker-Container-Path-Stat", b64);
    }
    if (t->q.op == COPY_STAT) {
        transfer_free(t);
        reply_empty(c, 200);
        return;
    }
    if (t->q.op != COPY_CHANGES)
        stream_begin(c, t->q.op == COPY_OUT ? "application/x-tar" : "application/octet-stream");
    sb_reset(&t->line);
}

static size_t take_line(struct transfer *t, const char *p, size_t size, bool *ret_whole)
{
    const char *nl = memchr(p, '\n', size);
    size_t n = nl ? (size_t)(nl - p) : size;
    sb_add(&t->line, p, n);
    *ret_whole = nl != NULL;
    return nl ? n + 1 : n;
}

static size_t on_data(void *arg, const char *p, size_t size)
{
    struct transfer *t = arg;
    size_t used = 0;
    bool whole;
    if (!t->begun) {
        used = take_line(t, p, size, &whole);
        if (!whole)
            return used;
        if (is_error(t))
            return size;
        enum copy_op op = (enum copy_op)t->q.op;
        begin(t);
        if (op == COPY_STAT)
            return size;
    }
    if (used == size)
        return size;
    if (t->q.op == COPY_IN) { /* its verdict; may come before the body's end */
        used += take_line(t, p + used, size - used, &whole);
        if (whole && !is_error(t))
            settle_in(t);
        return size;
    }
    if (t->q.op == COPY_CHANGES) {
        sb_add(&t->line, p + used, size - used);
        return size;
    }
    stream_put(t->c, p + used, size - used);
    if (t->c->r && http_stream_is_full(t->c->r))
        stream_pause(t->s, true);
    return size;
}

static void copier_died(struct transfer *t)
{
    struct call *c = t->c;
    if (!t->begun || t->q.op == COPY_IN || t->q.op == COPY_CHANGES) {
        refuse(t, E_IO, "the process that copies died; see the daemon's log");
        return;
    }
    transfer_free(t);
    if (c->r)
        http_stream_cut(TAKE(c->r));
    stream_done(c);
}

static void on_eof(void *arg)
{
    struct transfer *t = arg;
    struct call *c = t->c;
    if (!t->begun || t->q.op == COPY_IN) {
        copier_died(t);
    } else if (t->q.op == COPY_CHANGES) {
        AUTO_FREE char *json = xstrdup(t->line.s);
        transfer_free(t);
        reply_json(c, 200, json);
    } else {
        transfer_free(t);
        stream_done(c);
    }
}

static void on_error(void *arg, const struct err *e)
{
    (void)e;
    copier_died(arg);
}

static const struct stream_events events = { on_data, on_drain, on_eof, on_error };

static void transfer(struct call *c, const struct copy_request *q)
{
    struct err e;
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    struct stream *s = runtime_copy(c->api->b.runtime, x->spec.id, q, &e);
    if (!s) {
        reply_err(c, &e);
        return;
    }
    struct transfer *t = xnew(struct transfer);
    t->c = c;
    t->s = s;
    copy_request_copy(&t->q, q);
    sb_init(&t->line, q->op == COPY_CHANGES ? (size_t)256 << 20 : LINE_MAX_BYTES);
    free(c->param[1]);
    c->param[1] = xstrdup(x->spec.id);
    c->state = t;
    c->gone = on_gone;
    c->drain = on_client_drain;
    stream_set_events(s, &events, t);
}

static void with_path(struct call *c, enum copy_op op)
{
    struct copy_request q = { .op = op, .no_swap = query_flag(c, "noOverwriteDirNonDir"), .user_owns = query_flag(c, "copyUIDGID") };
    const char *path = query(c, "path");
    if (!path || !*path) {
        reply_error(c, E_INVALID, "bad parameter: path is required");
        return;
    }
    str_set(&q.path, path);
    transfer(c, &q);
    copy_request_clear(&q);
}

static void archive_get(struct call *c)
{
    with_path(c, str_equal(http_method(c->r), "HEAD") ? COPY_STAT : COPY_OUT);
}

static void archive_put(struct call *c)
{
    with_path(c, COPY_IN);
}

static void export(struct call *c)
{
    const struct container *x = runtime_find(c->api->b.runtime, c->param[0]);
    if (x)
        container_event(c->api, x, "export", NULL, NULL);
    transfer(c, &(struct copy_request){ .op = COPY_EXPORT });
}

static void changes(struct call *c)
{
    transfer(c, &(struct copy_request){ .op = COPY_CHANGES });
}

const struct route copy_routes[] = {
    { "GET", "/containers/{}/archive", archive_get, ROUTE_LOCAL }, /* HEAD, too */
    { "PUT", "/containers/{}/archive", archive_put, ROUTE_LOCAL },
    { "GET", "/containers/{}/export", export, ROUTE_LOCAL },
    { "GET", "/containers/{}/changes", changes, ROUTE_LOCAL },
    { 0 },
};
