/* The HTTP server: requests of one connection in order, each with at most one reply. */
#include <shoal/base/list.h>
#include <shoal/http.h>
#include <stdio.h>
#include <strings.h>

struct connection {
    struct list_node node;
    struct http_server *server;
    struct stream *s;
    struct http_request *r; /* being served; NULL: waiting for one */
    bool eof;
};

struct http_request {
    struct connection *c;
    struct http_message m;
    struct http_body body;
    char *path, *query_text;
    struct http_header *query;
    unsigned n_query;
    struct sb extra; /* headers of the reply */
    bool replied, streaming, keep_alive, body_paused, reading, collect_failed, body_told;
    /* collecting */
    struct sb collected;
    size_t collect_max;
    http_body_fn *body_fn;
    struct http_sink sink;
    void *body_arg;
    void (*gone)(void *arg, struct http_request *r);
    void (*drain)(void *arg, struct http_request *r);
    void *gone_arg;
};

struct http_server {
    struct loop *loop;
    http_handler_fn *fn;
    void *arg;
    struct list_node connections;
    struct sb headers;
};

static struct http_request *request_new(struct connection *c);
static size_t new_request(struct connection *c, const char *p, size_t size);
static size_t on_data(void *arg, const char *p, size_t size);
static void on_eof(void *arg);
static void on_error(void *arg, const struct err *e);
static void on_drain(void *arg);
static const struct stream_events connection_events = { on_data, on_drain, on_eof, on_error };

struct http_server *http_server_new(struct loop *l, http_handler_fn *fn, void *arg)
{
    struct http_server *s = xnew(struct http_server);
    *s = (struct http_server){ .loop = l, .fn = fn, .arg = arg };
    list_init(&s->connections);
    sb_init(&s->headers, 0);
    return s;
}

void http_server_header(struct http_server *s, const char *name, const char *value)
{
    sb_printf(&s->headers, "%s: %s\r\n", name, value);
}

static void request_free(struct http_request *r)
{
    http_message_clear(&r->m);
    sb_done(&r->extra);
    sb_done(&r->collected);
    free(r->path);
    free(r->query_text);
    free(r->query);
    free(r);
}

static void connection_free(struct connection *c, bool when_sent)
{
    list_remove(&c->node);
    (when_sent ? stream_free_when_sent : stream_free)(c->s);
    free(c);
}

/* The request is over without a reply from its handler, who is told once and by gone alone. */
static void abandon(struct connection *c)
{
    struct http_request *r = c->r;
    c->r = NULL;
    if (!r)
        return;
    if (r->gone)
        r->gone(r->gone_arg, r);
    request_free(r);
}

void http_server_free(struct http_server *s)
{
    if (!s)
        return;
    struct connection *c;
    list_for(c, &s->connections, node) {
        abandon(c);
        connection_free(c, false);
    }
    sb_done(&s->headers);
    free(s);
}

static struct connection *connection_new(struct http_server *s, struct stream *st)
{
    struct connection *c = xnew(struct connection);
    c->server = s;
    c->s = st;
    list_push_back(&s->connections, &c->node);
    stream_set_events(st, &connection_events, c);
    return c;
}

void http_server_take(struct http_server *s, struct stream *st)
{
    connection_new(s, st);
}

void http_server_take_back(struct http_server *s, struct stream *st, const struct sb *head)
{
    new_request(connection_new(s, st), head->s, head->len);
}

void http_server_refuse(struct http_server *s, struct stream *st, const struct err *e)
{
    struct http_request *r = request_new(connection_new(s, st));
    r->m.method = "GET";
    r->body.done = true;
    http_reply_err(r, e);
}

static void parse_target(struct http_request *r)
{
    const char *q = strchr(r->m.target, '?');
    r->path = q ? xstrndup(r->m.target, (size_t)(q - r->m.target)) : xstrdup(r->m.target);
    http_decode(r->path, false);
    if (!q)
        return;
    r->query_text = xstrdup(q + 1);
    size_t n = 1; /* bounded by the head */
    for (const char *p = q; (p = strchr(p, '&')); p++)
        n++;
    r->query = xcalloc(n, sizeof *r->query);
    for (char *p = r->query_text; p && *p;) {
        char *next = strchr(p, '&');
        if (next)
            *next++ = 0;
        char *eq = strchr(p, '=');
        if (eq)
            *eq = 0;
        char *value = eq ? eq + 1 : p + strlen(p);
        http_decode(p, true);
        http_decode(value, true);
        r->query[r->n_query++] = (struct http_header){ p, value };
        p = next;
    }
}

static const char *status_text(int status)
{
    switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "Status";
    }
}

static bool has_no_body(const struct http_request *r, int status)
{
    return !strcmp(r->m.method, "HEAD") || status == 204 || status == 304;
}

static void write_head(struct http_request *r, int status, const char *content_type, bool chunked, size_t size)
{
    struct sb b;
    sb_init(&b, 0);
    sb_printf(&b, "HTTP/1.1 %d %s\r\n", status, status_text(status));
    sb_add(&b, r->c->server->headers.s, r->c->server->headers.len);
    sb_add(&b, r->extra.s, r->extra.len);
    if (content_type)
        sb_printf(&b, "Content-Type: %s\r\n", content_type);
    if (chunked)
        sb_str(&b, "Transfer-Encoding: chunked\r\n");
    else if (status != 204 && status != 304)
        sb_printf(&b, "Content-Length: %zu\r\n", size);
    if (!r->keep_alive)
        sb_str(&b, "Connection: close\r\n");
    sb_str(&b, "\r\n");
    stream_write(r->c->s, b.s, b.len);
    sb_done(&b);
}

/* After the last byte of a reply: the next request, or the end of the connection. */
static void finish(struct http_request *r)
{
    struct connection *c = r->c;
    bool keep = r->keep_alive && r->body.done && !c->eof;
    c->r = NULL;
    request_free(r);
    if (keep) {
        stream_pause(c->s, false);
        stream_set_events(c->s, &connection_events, c); /* offers what is held: pipelined requests */
    } else {
        connection_free(c, true);
    }
}

void http_reply_header(struct http_request *r, const char *name, const char *value)
{
    sb_printf(&r->extra, "%s: %s\r\n", name, value);
}

void http_reply(struct http_request *r, int status, const char *content_type, const void *body, size_t size)
{
    ASSERT(!r->replied);
    r->replied = true;
    if (!r->body.done)
        r->keep_alive = false; /* the rest of its body is not wanted */
    write_head(r, status, content_type, false, size);
    if (!has_no_body(r, status))
        stream_write(r->c->s, body, size);
    finish(r);
}

void http_reply_json(struct http_request *r, int status, const char *json)
{
    http_reply(r, status, "application/json", json, strlen(json));
}

void http_reply_err(struct http_request *r, const struct err *e)
{
    struct sb b;
    sb_init(&b, 0);
    const char *text = e->text[0] ? e->text : err_text(e->code);
    sb_str(&b, "{\"message\":");
    sb_json_str(&b, text, strlen(text));
    sb_str(&b, "}\n");
    http_reply(r, e->code ? err_http_status(e->code) : 500, "application/json", b.s, b.len);
    sb_done(&b);
}

void http_stream_start(struct http_request *r, int status, const char *content_type)
{
    ASSERT(!r->replied);
    r->replied = r->streaming = true;
    if (!r->body.done)
        r->keep_alive = false;
    write_head(r, status, content_type, true, 0);
}

void http_stream_write(struct http_request *r, const void *p, size_t size)
{
    char head[24];
    if (!size || has_no_body(r, 200))
        return;
    int n = snprintf(head, sizeof head, "%zx\r\n", size);
    stream_write(r->c->s, head, (size_t)n);
    stream_write(r->c->s, p, size);
    stream_write(r->c->s, "\r\n", 2);
}

bool http_stream_is_full(const struct http_request *r)
{
    return stream_is_full(r->c->s);
}

void http_stream_end(struct http_request *r)
{
    if (!has_no_body(r, 200))
        stream_write(r->c->s, "0\r\n\r\n", 5);
    finish(r);
}

void http_stream_cut(struct http_request *r)
{
    r->keep_alive = false;
    finish(r);
}

void http_on_gone(struct http_request *r, void (*gone)(void *, struct http_request *),
                  void (*drain)(void *, struct http_request *), void *arg)
{
    r->gone = gone;
    r->drain = drain;
    r->gone_arg = arg;
}

static struct stream *detach(struct http_request *r)
{
    struct connection *c = r->c;
    struct stream *s = c->s;
    static const struct stream_events nobody = { 0 };
    stream_set_events(s, &nobody, NULL);
    list_remove(&c->node);
    free(c);
    request_free(r);
    return s;
}

struct stream *http_hijack(struct http_request *r, const char *content_type)
{
    struct sb b;
    sb_init(&b, 0);
    sb_str(&b, r->m.upgrade_tcp ? "HTTP/1.1 101 UPGRADED\r\n" : "HTTP/1.1 200 OK\r\n");
    sb_add(&b, r->c->server->headers.s, r->c->server->headers.len);
    sb_printf(&b, "Content-Type: %s\r\n", content_type);
    if (r->m.upgrade_tcp)
        sb_str(&b, "Connection: Upgrade\r\nUpgrade: tcp\r\n");
    sb_str(&b, "\r\n");
    stream_write(r->c->s, b.s, b.len);
    sb_done(&b);
    return detach(r);
}

struct stream *http_take_over(struct http_request *r, struct sb *head)
{
    sb_printf(head, "%s %s HTTP/1.1\r\n", r->m.method, r->m.target);
    for (unsigned i = 0; i < r->m.n_headers; i++)
        if (r->m.upgrade_tcp || strcasecmp(r->m.headers[i].name, "Connection"))
            sb_printf(head, "%s: %s\r\n", r->m.headers[i].name, r->m.headers[i].value);
    if (!r->m.upgrade_tcp)
        sb_str(head, "Connection: close\r\n");
    sb_str(head, "\r\n");
    return detach(r);
}

const char *http_method(const struct http_request *r)
{
    return r->m.method;
}

const char *http_path(const struct http_request *r)
{
    return r->path;
}

const char *http_target(const struct http_request *r)
{
    return r->m.target;
}

const char *http_query_nth(const struct http_request *r, const char *name, unsigned k)
{
    for (unsigned i = 0; i < r->n_query; i++)
        if (!strcmp(r->query[i].name, name) && k-- == 0)
            return r->query[i].value;
    return NULL;
}

const char *http_query(const struct http_request *r, const char *name)
{
    return http_query_nth(r, name, 0);
}

const char *http_header(const struct http_request *r, const char *name)
{
    return http_message_header(&r->m, name);
}

int http_peer_uid(const struct http_request *r)
{
    return stream_peer_uid(r->c->s);
}

static void body_over(struct http_request *r, const struct err *e);

static void body_wanted(struct http_request *r)
{
    r->reading = true;
    if (r->m.expect_continue && !r->body.done)
        stream_write(r->c->s, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    if (r->body.done)
        body_over(r, NULL);
    else
        stream_set_events(r->c->s, &connection_events, r->c); /* offers what came with the head, and the end */
}

void http_read_body(struct http_request *r, size_t max, http_body_fn *fn, void *arg)
{
    r->body_fn = fn;
    r->body_arg = arg;
    r->collect_max = max;
    body_wanted(r);
}

void http_sink_body(struct http_request *r, const struct http_sink *sink, void *arg)
{
    r->sink = *sink;
    r->body_arg = arg;
    body_wanted(r);
}

void http_sink_resume(struct http_request *r)
{
    r->body_paused = false;
    stream_pause(r->c->s, false);
}

static void body_over(struct http_request *r, const struct err *e)
{
    if (r->body_told)
        return;
    r->body_told = true;
    if (r->body_fn) {
        size_t size = e ? 0 : r->collected.len;
        char *text = sb_take(&r->collected);
        r->body_fn(r->body_arg, r, text, size, e);
        free(text);
    } else if (e && r->sink.on_broken) {
        r->sink.on_broken(r->body_arg, r, e);
    } else if (!e && r->sink.on_end) {
        r->sink.on_end(r->body_arg, r);
    }
}

/* Feeds body bytes; returns bytes used; sets *ret_stop when r may be gone or paused. */
static size_t feed_body(struct http_request *r, const char *p, size_t size, bool *ret_stop)
{
    const char *data;
    size_t n;
    struct err e;
    long used = http_body_take(&r->body, p, size, &data, &n);
    if (used < 0) {
        err_set(&e, E_INVALID, "the request's body is not correctly chunked");
        r->keep_alive = false;
        r->body.done = true;
        *ret_stop = true;
        body_over(r, &e);
        return size;
    }
    if (n && r->body_fn && !r->collect_failed) {
        if (r->collected.len + n > r->collect_max) {
            r->collect_failed = true;
            r->keep_alive = false;
            err_set(&e, E_TOO_BIG, "the request's body is larger than %zu bytes", r->collect_max);
            *ret_stop = true;
            body_over(r, &e);
            return (size_t)used;
        }
        sb_add(&r->collected, data, n);
    } else if (n && r->sink.on_data) {
        struct connection *c = r->c;
        bool more = r->sink.on_data(r->body_arg, r, data, n);
        if (c->r == r && !more && !r->body.done) {
            r->body_paused = true;
            stream_pause(c->s, true);
            *ret_stop = true;
        }
        if (c->r != r)
            *ret_stop = true;
    }
    if (!*ret_stop && r->body.done) {
        *ret_stop = true;
        body_over(r, NULL);
    } else if (used == 0) {
        *ret_stop = true;
    }
    return (size_t)used;
}

static struct http_request *request_new(struct connection *c)
{
    struct http_request *r = xnew(struct http_request);
    sb_init(&r->extra, 0);
    sb_init(&r->collected, 0);
    r->c = c;
    c->r = r;
    return r;
}

static size_t new_request(struct connection *c, const char *p, size_t size)
{
    struct http_message m = { 0 };
    struct err e = { 0 };
    long n = http_head_parse(&m, p, size, true, &e);
    if (n == 0)
        return 0;
    struct http_request *r = request_new(c);
    r->m = m;
    if (n < 0) {
        r->m.method = "GET";
        r->body.done = true;
        http_reply_err(r, &e);
        return size;
    }
    r->keep_alive = r->m.keep_alive;
    http_body_init(&r->body, &r->m, false, false);
    parse_target(r);
    c->server->fn(c->server->arg, r);
    return (size_t)n;
}

static size_t on_data(void *arg, const char *p, size_t size)
{
    struct connection *c = arg;
    if (!c->r)
        return new_request(c, p, size);
    size_t used = 0;
    bool stop = false;
    if (!c->r->reading || c->r->body_told)
        return 0; /* later requests wait for their turn */
    while (used < size && !stop)
        used += feed_body(c->r, p + used, size - used, &stop);
    return used;
}

static void on_eof(void *arg)
{
    struct connection *c = arg;
    c->eof = true;
    if (!c->r) {
        connection_free(c, true);
    } else if (c->r->reading && !c->r->body.done && !c->r->body_told) { /* went away in the middle of its body */
        abandon(c);
        connection_free(c, false);
    }
    /* otherwise a half-close: the client still reads its reply */
}

static void on_error(void *arg, const struct err *e)
{
    struct connection *c = arg;
    (void)e;
    abandon(c);
    connection_free(c, false);
}

static void on_drain(void *arg)
{
    struct connection *c = arg;
    if (c->r && c->r->drain)
        c->r->drain(c->r->gone_arg, c->r);
}
