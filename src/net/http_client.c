/* The HTTP client: one request on one stream. */
#include <shoal/base/mem.h>
#include <shoal/http.h>
#include <stdio.h>

struct http_call {
    struct loop *loop;
    struct stream *s;
    struct http_call_events ev;
    void *arg;
    struct http_message m;
    struct http_body body;
    bool no_body, got_head, over, freed, streamed, taken;
};

static void destroy(void *arg)
{
    struct http_call *c = arg;
    http_message_clear(&c->m);
    free(c);
}

void http_call_free(struct http_call *c)
{
    if (!c || c->freed)
        return;
    c->freed = true;
    stream_free(c->s);
    loop_defer(c->loop, destroy, c);
}

static void end(struct http_call *c, const struct err *e)
{
    if (c->over || c->freed)
        return;
    c->over = true;
    c->ev.on_end(c->arg, c, e);
}

static size_t read_head(struct http_call *c, const char *p, size_t size)
{
    struct err e;
    long n = http_head_parse(&c->m, p, size, false, &e);
    if (n == 0)
        return 0;
    if (n < 0) {
        end(c, &e);
        return size;
    }
    if (c->m.status == 100) {
        http_message_clear(&c->m);
        return (size_t)n;
    }
    c->got_head = true;
    http_body_init(&c->body, &c->m, true, c->no_body || c->m.status == 204 || c->m.status == 304);
    if (c->m.status == 101)
        c->body.kind = HTTP_BODY_CLOSE, c->body.done = false;
    c->ev.on_head(c->arg, c, c->m.status, &c->m);
    if (!c->freed && !c->taken && c->body.done)
        end(c, NULL);
    return (size_t)n;
}

static size_t on_data(void *arg, const char *p, size_t size)
{
    struct http_call *c = arg;
    size_t used = 0;
    if (!c->got_head)
        return read_head(c, p, size);
    while (used < size && !c->over && !c->freed && !c->taken) {
        const char *data;
        size_t n;
        struct http_body before = c->body;
        long k = http_body_take(&c->body, p + used, size - used, &data, &n);
        if (k < 0) {
            struct err e;
            err_set(&e, E_CORRUPT, "the reply is not correctly chunked");
            end(c, &e);
            return size;
        }
        size_t took = n ? c->ev.on_data(c->arg, c, data, n) : 0;
        if (c->freed || c->taken)
            return used;
        if (took < n) { /* not now: undo the decoder and offer the rest later */
            c->body = before;
            if (took) {
                used += (size_t)http_body_take(&c->body, p + used, (size_t)(data - (p + used)) + took, &data, &n);
            }
            return used;
        }
        used += (size_t)k;
        if (c->body.done)
            end(c, NULL);
        if (k == 0)
            break;
    }
    return used;
}

static void on_eof(void *arg)
{
    struct http_call *c = arg;
    struct err e;
    if (c->got_head && c->body.kind == HTTP_BODY_CLOSE) {
        end(c, NULL);
        return;
    }
    err_set(&e, E_CLOSED, "the other side closed the connection before its reply was complete");
    end(c, &e);
}

static void on_error(void *arg, const struct err *e)
{
    end(arg, e);
}

static const struct stream_events call_events = { on_data, NULL, on_eof, on_error };

struct http_call *http_call_new(struct loop *l, struct stream *s, const char *method, const char *target,
                                const char *const *headers, const void *body, size_t size, bool streamed,
                                const struct http_call_events *ev, void *arg)
{
    struct http_call *c = xnew(struct http_call);
    struct sb b;
    *c = (struct http_call){ .loop = l, .s = s, .ev = *ev, .arg = arg, .streamed = streamed,
                             .no_body = !strcmp(method, "HEAD") };
    sb_init(&b, 0);
    sb_printf(&b, "%s %s HTTP/1.1\r\nHost: shoal\r\n", method, target);
    for (unsigned i = 0; headers && headers[i]; i++)
        sb_printf(&b, "%s\r\n", headers[i]);
    if (streamed)
        sb_str(&b, "Transfer-Encoding: chunked\r\n");
    else if (size || strcmp(method, "GET"))
        sb_printf(&b, "Content-Length: %zu\r\n", size);
    sb_str(&b, "\r\n");
    stream_write(s, b.s, b.len);
    sb_done(&b);
    if (size)
        stream_write(s, body, size);
    stream_set_events(s, &call_events, c);
    return c;
}

void http_call_write(struct http_call *c, const void *p, size_t size)
{
    char head[24];
    ASSERT(c->streamed);
    if (!size)
        return;
    int n = snprintf(head, sizeof head, "%zx\r\n", size);
    stream_write(c->s, head, (size_t)n);
    stream_write(c->s, p, size);
    stream_write(c->s, "\r\n", 2);
}

bool http_call_is_full(const struct http_call *c)
{
    return stream_is_full(c->s);
}

void http_call_finish(struct http_call *c)
{
    stream_write(c->s, "0\r\n\r\n", 5);
}

void http_call_resume(struct http_call *c)
{
    stream_set_events(c->s, &call_events, c); /* offers what is held again */
}

struct stream *http_call_take(struct http_call *c)
{
    struct stream *s = c->s;
    static const struct stream_events nobody = { 0 };
    stream_set_events(s, &nobody, NULL);
    c->s = NULL;
    c->taken = c->freed = true;
    loop_defer(c->loop, destroy, c);
    return s;
}
