/* A link: one mutually authenticated, encrypted session between two nodes over a stream (TCP). It carries
 * messages (small, whole, ahead of everything else) and channels (byte streams with flow control, struct
 * stream). Handshake: noise.h; each side shows a payload (its certificate) that the other's verify accepts. */
#ifndef SHOAL_LINK_H
#define SHOAL_LINK_H

#include <shoal/stream.h>

enum {
    LINK_PAYLOAD_MAX_BYTES = 4096,
    LINK_MESSAGE_MAX_BYTES = 64 << 20, /* an assignment of a big node */
    LINK_CHANNELS_MAX = 1024,
    LINK_WINDOW_BYTES = 256 << 10,     /* unacknowledged bytes of one channel and direction */
};

struct link;

struct link_config { /* borrowed; must outlive the link */
    const uint8_t *dh_secret;  /* 32 bytes */
    const void *payload;
    size_t payload_size;
    /* Accepts (0) or refuses the peer. Called before anything else of it is delivered. */
    int (*verify)(void *arg, const uint8_t peer_key[32], const void *payload, size_t size, struct err *e);
    void *arg;
    size_t message_max; /* bytes that the peer may send as one message; 0: LINK_MESSAGE_MAX_BYTES. May change while it is up */
    int64_t handshake_ms, idle_ms, dead_ms; /* 0: 5,000, 1,000, 10,000 */
};

struct link_events {
    void (*on_up)(void *arg, struct link *l);
    void (*on_message)(void *arg, struct link *l, uint8_t type, const void *p, size_t size);
    /* The peer opened a channel; takes s. NULL: channels are refused. */
    void (*on_channel)(void *arg, struct link *l, uint8_t service, struct stream *s);
    /* Over; the owner then calls link_free (also from inside). */
    void (*on_down)(void *arg, struct link *l, const struct err *e);
};

/* addr numeric. Takes nothing of cfg but the pointer. */
struct link *link_connect(struct loop *loop, const char *addr, uint16_t port, const struct link_config *cfg,
                          const struct link_events *ev, void *arg);
struct link *link_accept(struct loop *loop, struct stream *s /* taken */, const struct link_config *cfg,
                         const struct link_events *ev, void *arg);
void link_set_events(struct link *l, const struct link_events *ev, void *arg);
void link_free(struct link *l); /* takes NULL; channels get an error */
bool link_is_up(const struct link *l);
int64_t link_heard_ms(const struct link *l); /* monotonic time of the last bytes from the peer */
const uint8_t *link_peer_key(const struct link *l); /* 32 bytes, valid once verify was called */
/* -E_CLOSED, -E_BUSY (more than 64 MiB queued), -E_TOO_BIG. type >= 1. */
int link_send(struct link *l, uint8_t type, const void *p, size_t size);
/* NULL when the link is down or has 1,024 channels. */
struct stream *link_channel_open(struct link *l, uint8_t service);
size_t link_queued(const struct link *l); /* bytes of messages that the peer has not taken yet */
unsigned link_n_channels(const struct link *l); /* of both sides */

#endif
