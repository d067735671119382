/* HTTP/1.1 over any stream: an incremental pure parser (http1.c), a server with streaming bodies, chunked
 * replies, hijack and hand-over for proxying (http_server.c), and a client (http_client.c). RFC 9112; what
 * Docker's clients expect of a server: design/engine-api.md section 2. */
#ifndef SHOAL_HTTP_H
#define SHOAL_HTTP_H

#include <shoal/stream.h>
#include <shoal/base/sb.h>

enum { HTTP_HEAD_MAX_BYTES = 64 << 10, HTTP_HEADERS_MAX = 100 };

/* ---- parser (pure) ---- */
struct http_header { const char *name, *value; };
struct http_message {
    char *head;                 /* owned text that the pointers below point into */
    const char *method, *target; /* request */
    int status;                 /* response */
    const char *reason;
    int minor;                  /* HTTP/1.minor */
    struct http_header headers[HTTP_HEADERS_MAX];
    unsigned n_headers;
    bool chunked, keep_alive, has_length, upgrade_tcp, expect_continue;
    uint64_t length;            /* of the body when has_length */
};
/* Whole head in p? Returns its bytes (> 0), 0: more is needed, -E_INVALID/-E_TOO_BIG with the reason. */
long http_head_parse(struct http_message *m, const char *p, size_t size, bool request, struct err *e);
void http_message_clear(struct http_message *m);
const char *http_message_header(const struct http_message *m, const char *name); /* NULL: absent */

/* Body decoder: content-length, chunked, or until close. */
struct http_body {
    enum { HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED, HTTP_BODY_CLOSE } kind;
    uint64_t left;
    int state;
    bool done;
    char line[32];
    unsigned line_len;
};
void http_body_init(struct http_body *b, const struct http_message *m, bool response, bool no_body);
/* Takes from p; ret_data, ret_size: body bytes inside p. Returns bytes used, or -E_INVALID. */
long http_body_take(struct http_body *b, const char *p, size_t size, const char **ret_data, size_t *ret_size);

/* ---- server ---- */
struct http_server;
struct http_request;
typedef void http_handler_fn(void *arg, struct http_request *r);
struct http_server *http_server_new(struct loop *l, http_handler_fn *fn, void *arg);
void http_server_free(struct http_server *s); /* cuts all connections */
void http_server_header(struct http_server *s, const char *name, const char *value); /* on every reply */
void http_server_take(struct http_server *s, struct stream *st); /* serve this connection */

/* A connection that was handed over by http_take_over() comes back before anybody answered: its request, without a body,
 * is served anew; or it gets an error as its reply. */
void http_server_take_back(struct http_server *s, struct stream *st, const struct sb *head);
void http_server_refuse(struct http_server *s, struct stream *st, const struct err *e);

const char *http_method(const struct http_request *r);
const char *http_path(const struct http_request *r);   /* decoded, without query */
const char *http_target(const struct http_request *r); /* raw */
const char *http_query(const struct http_request *r, const char *name); /* decoded, NULL: absent; "" when bare */
/* k-th value of a repeated key, NULL at the end. */
const char *http_query_nth(const struct http_request *r, const char *name, unsigned k);
const char *http_header(const struct http_request *r, const char *name);
/* The client of a unix socket: uid, -1 elsewhere. */
int http_peer_uid(const struct http_request *r);

/* Body: one of the two, called from the handler or later; without either it is thrown away. A client that goes away in
 * the middle of it is told of by http_on_gone alone. */
typedef void http_body_fn(void *arg, struct http_request *r, char *body, size_t size, const struct err *e);
    /* e: body too big or malformed, to be replied to; body is NUL-terminated, freed after the call */
void http_read_body(struct http_request *r, size_t max, http_body_fn *fn, void *arg);
struct http_sink {
    /* Bytes of the body; return false to pause until http_sink_resume(). Bytes given are taken in any case. */
    bool (*on_data)(void *arg, struct http_request *r, const char *p, size_t size);
    void (*on_end)(void *arg, struct http_request *r);
    void (*on_broken)(void *arg, struct http_request *r, const struct err *e); /* malformed: to be replied to */
};
void http_sink_body(struct http_request *r, const struct http_sink *sink, void *arg);
void http_sink_resume(struct http_request *r);

/* Exactly one reply a request; r is gone after it (http_stream_end for streams). */
void http_reply(struct http_request *r, int status, const char *content_type, const void *body, size_t size);
void http_reply_json(struct http_request *r, int status, const char *json); /* application/json */
void http_reply_err(struct http_request *r, const struct err *e);            /* {"message": ...} */
void http_stream_start(struct http_request *r, int status, const char *content_type); /* chunked; flushed at once */
void http_stream_write(struct http_request *r, const void *p, size_t size);
bool http_stream_is_full(const struct http_request *r);
void http_stream_end(struct http_request *r);
void http_stream_cut(struct http_request *r); /* ends without the mark of a whole body: the client sees that it is not */
void http_reply_header(struct http_request *r, const char *name, const char *value); /* before the reply */
/* The client went away before the reply was over: no other callback comes, r is gone after this one. on_drain may be
 * NULL. */
void http_on_gone(struct http_request *r, void (*gone)(void *arg, struct http_request *r),
                  void (*drain)(void *arg, struct http_request *r), void *arg);
/* 101 UPGRADED if asked for, 200 raw otherwise; r is gone, the stream is the caller's. */
struct stream *http_hijack(struct http_request *r, const char *content_type);
/* For proxying: the raw stream, and the request's head (Connection: close put in unless it is an upgrade)
 * appended to head. Body bytes already received are still offered by the stream. r is gone. */
struct stream *http_take_over(struct http_request *r, struct sb *head);

/* ---- client: one request a stream ---- */
struct http_call;
struct http_call_events {
    void (*on_head)(void *arg, struct http_call *c, int status, const struct http_message *m);
    /* Returns bytes used (0: not now). */
    size_t (*on_data)(void *arg, struct http_call *c, const char *p, size_t size);
    void (*on_end)(void *arg, struct http_call *c, const struct err *e); /* e NULL: complete; then http_call_free */
};
/* Takes s. headers: "Name: value" lines ended by NULL, may be NULL. body NULL and size > 0: streamed with
 * http_call_write as chunked. */
struct http_call *http_call_new(struct loop *l, struct stream *s, const char *method, const char *target,
                                const char *const *headers, const void *body, size_t size, bool streamed,
                                const struct http_call_events *ev, void *arg);
void http_call_write(struct http_call *c, const void *p, size_t size);
bool http_call_is_full(const struct http_call *c);
void http_call_finish(struct http_call *c); /* end of a streamed body */
void http_call_resume(struct http_call *c); /* after on_data returned less than it was given */
/* After on_head with 101 (or 200 of a hijack): the raw stream; c is gone. */
struct stream *http_call_take(struct http_call *c);
void http_call_free(struct http_call *c); /* takes NULL; safe in its callbacks */

/* Decodes %XX and '+' (when plus) in place; returns the new length. */
size_t http_decode(char *s, bool plus);
void http_encode(struct sb *out, const char *s); /* for a query value or one path segment */

#endif
