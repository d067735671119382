/* The tunnel's core: peers, networks and routes as configured; frames in, packets out, and back. Pure.
 * Nothing is copied on the way: a packet is opened where it was received, and sealed to where it is sent from. */
#ifndef OVERLAY_TUNNEL_H
#define OVERLAY_TUNNEL_H

#include "gso.h"
#include "peer.h"
#include <shoal/tunnel.h>
#include <sys/uio.h>

enum { TUNNEL_ROOM_BYTES = 64 /* in front of a frame */, TUNNEL_TAIL_BYTES = 16 /* behind it */ };
/* What a TAP takes beside whole frames. */
enum { TAP_CSUM = 1, TAP_TSO = 2, TAP_USO = 4 };

struct tunnel_out {
    void *arg;
    uint8_t *(*room)(void *arg, size_t size); /* see peer.h */
    void (*send)(void *arg, const struct endpoint *to, const uint8_t *p, size_t size);
    /* Into the network's TAP: iov[1] to iov[n] are one frame, or super-packet; iov[0] is the shell's to use. False: the
     * device does not take such a frame; then it is cut, and given again in pieces. */
    bool (*frame)(void *arg, uint32_t vni, const struct frame_meta *m, struct iovec *iov, unsigned n);
};

struct tunnel;
struct tunnel *tunnel_new(const struct tunnel_out *out, uint8_t can /* PEER_CAN_..., 0: WireGuard alone */);
void tunnel_free(struct tunnel *t);
/* Takes the wanted state over; sessions of peers that stay are kept. endpoint: text to address, may refuse. */
int tunnel_configure(struct tunnel *t, const struct tunnel_config *c,
                     bool (*endpoint)(const char *addr, uint16_t port, struct endpoint *ret), struct err *e) must_check;
/* Begins handshakes with new peers that have addresses of our networks. */
void tunnel_greet(struct tunnel *t, int64_t now_ms, int64_t real_ns);
bool tunnel_has_network(const struct tunnel *t, uint32_t vni);
/* What the network's TAP takes; nothing until it is said. The same again changes nothing; 0 when the TAP is gone. */
void tunnel_tap(struct tunnel *t, uint32_t vni, unsigned takes /* TAP_... */);
/* A frame that a container of this node sent into the network; changed, with the room around it (TUNNEL_ROOM_BYTES,
 * TUNNEL_TAIL_BYTES). m: what the TAP said of it. */
void tunnel_frame(struct tunnel *t, int64_t now_ms, int64_t real_ns, uint32_t vni, uint8_t *frame, size_t size,
                  const struct frame_meta *m);
/* A datagram from the wire; changed in place, and held until tunnel_flush(), which must follow before its memory is used
 * for another one. */
void tunnel_packet(struct tunnel *t, int64_t now_ms, int64_t real_ns, const struct endpoint *from, uint8_t *p, size_t size);
void tunnel_flush(struct tunnel *t);
void tunnel_tick(struct tunnel *t, int64_t now_ms, int64_t real_ns);
/* Peers and drops; endpoint texts through format. */
void tunnel_status(const struct tunnel *t, int64_t now_ms, void (*format)(const struct endpoint *e, char out[80]),
                   struct tunnel_status *ret);

#endif
