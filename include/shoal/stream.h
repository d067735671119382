/* struct stream: a two-way byte stream with back-pressure and half-close: a unix or TCP socket, or one
 * channel of a link (link.h). HTTP, attach, logs and image transfer run over any of them alike.
 * All calls on the loop's thread. */
#ifndef SHOAL_STREAM_H
#define SHOAL_STREAM_H

#include <shoal/base/err.h>
#include <shoal/loop.h>
#include <stdbool.h>
#include <stddef.h>

struct stream;

struct stream_events {
    /* Bytes arrived; returns how many were used (the rest is offered again with more, at most 64 KiB is held). */
    size_t (*on_data)(void *arg, const char *p, size_t size);
    void (*on_drain)(void *arg);                         /* output fell below the low mark; may be NULL */
    void (*on_eof)(void *arg);                           /* peer half-closed: no more input; writing still works */
    void (*on_error)(void *arg, const struct err *e);    /* dead in both directions; only stream_free is left */
};

struct stream *stream_from_fd(struct loop *l, int fd); /* takes the fd (made non-blocking) */
/* Connects; on_error reports failure, on_drain reports that it is up. addr numeric IPv4/IPv6. */
struct stream *stream_connect_tcp(struct loop *l, const char *addr, uint16_t port);
int stream_connect_unix(struct loop *l, const char *path, struct stream **ret, struct err *e) must_check;

/* Sets (or replaces, for hijack) the receiver; data already held, and the end if it is reached, is offered at the end
 * of the turn. */
void stream_set_events(struct stream *s, const struct stream_events *ev, void *arg);
void stream_write(struct stream *s, const void *p, size_t size); /* queues; see stream_is_full */
bool stream_is_full(const struct stream *s);                     /* > 256 KiB queued: wait for on_drain */
size_t stream_queued(const struct stream *s);
void stream_close_write(struct stream *s);                       /* half-close after what is queued */
void stream_pause(struct stream *s, bool paused);                /* stops reading */
void stream_free_when_sent(struct stream *s);                    /* flush, close, free; no more events. */
void stream_free(struct stream *s);                              /* at once; takes NULL; safe inside its own callbacks */
/* Joins two streams: what one reads the other writes, half-closes and back-pressure carried over; frees both at the end. */
void stream_splice(struct stream *a, struct stream *b);
/* The same for a question that a puts to b. done is called once at the end: with a, given back with nobody to receive its
 * events, when b ended before it sent a byte; with NULL otherwise (a is freed, as b is in any case). */
typedef void stream_unanswered_fn(void *arg, struct stream *a);
void stream_splice_asking(struct stream *a, struct stream *b, stream_unanswered_fn *done, void *arg);
/* uid/pid of a unix peer; -1 where unknown. */
int stream_peer_uid(const struct stream *s);

/* For implementers of other kinds of stream (link channels): the vtable. */
struct stream_ops {
    void (*write)(void *impl, const void *p, size_t size);
    size_t (*queued)(void *impl);
    void (*close_write)(void *impl);
    void (*pause)(void *impl, bool paused);
    void (*free)(void *impl, bool when_sent);
};
struct stream *stream_new(struct loop *l, const struct stream_ops *ops, void *impl);
/* Called by the implementation: */
void stream_got_data(struct stream *s, const void *p, size_t size);
void stream_got_eof(struct stream *s);
void stream_got_error(struct stream *s, const struct err *e);
void stream_got_drain(struct stream *s);

/* Listeners: on_accept takes the stream. */
struct stream_listener;
typedef void stream_accept_fn(void *arg, struct stream *s);
int stream_listen_unix(struct loop *l, const char *path, unsigned mode, stream_accept_fn *fn, void *arg,
                       struct stream_listener **ret, struct err *e) must_check; /* replaces a stale socket file */
int stream_listen_tcp(struct loop *l, const char *addr, uint16_t port, stream_accept_fn *fn, void *arg,
                      struct stream_listener **ret, struct err *e) must_check;
/* Paused: who connects waits in the kernel's queue. */
void stream_listener_pause(struct stream_listener *sl, bool paused);
void stream_listener_free(struct stream_listener *sl);

#endif
