/* The tunnel's core: peers, networks and routes as configured; frames in, packets out, and back. Pure. */
#ifndef OVERLAY_TUNNEL_H
#define OVERLAY_TUNNEL_H

#include "peer.h"
#include <shoal/tunnel.h>

struct tunnel_out {
    void *arg;
    void (*send)(void *arg, const struct endpoint *to, const uint8_t *p, size_t size);
    void (*frame)(void *arg, uint32_t vni, const uint8_t *p, size_t size); /* into the network's TAP */
};

struct tunnel;
struct tunnel *tunnel_new(const struct tunnel_out *out);
void tunnel_free(struct tunnel *t);
/* Takes the wanted state over; sessions of peers that stay are kept. endpoint: text to address, may refuse. */
int tunnel_configure(struct tunnel *t, const struct tunnel_config *c,
                     bool (*endpoint)(const char *addr, uint16_t port, struct endpoint *ret), struct err *e) must_check;
/* Begins handshakes with new peers that have addresses of our networks. */
void tunnel_greet(struct tunnel *t, int64_t now_ms, int64_t real_ns);
bool tunnel_has_network(const struct tunnel *t, uint32_t vni);
/* A frame that a container of this node sent into the network. */
void tunnel_frame(struct tunnel *t, int64_t now_ms, int64_t real_ns, uint32_t vni, const uint8_t *frame, size_t size);
/* A datagram from the wire; changed in place. */
void tunnel_packet(struct tunnel *t, int64_t now_ms, int64_t real_ns, const struct endpoint *from, uint8_t *p, size_t size);
void tunnel_tick(struct tunnel *t, int64_t now_ms, int64_t real_ns);
/* Peers and drops; endpoint texts through format. */
void tunnel_status(const struct tunnel *t, int64_t now_ms, void (*format)(const struct endpoint *e, char out[80]),
                   struct tunnel_status *ret);

#endif
