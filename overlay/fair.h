/* What TAPs gave, until it is sent: a queue for each flow, in turn by deficit round robin, and a flow that had nothing queued
 * goes before those that had (RFC 8290, 4). When there is too much, the longest flow loses from its head. CoDel is left
 * out: a flow that fills the queue delays itself alone, and the bound limits that. Pure.
 *
 * Frames lie in buffers of two lengths, allocated at once, that become real as they are used: 2 KB for each 512 bytes of
 * bytes_max and 66 KB for each 4 KB at the most, far less as a rule. */
#ifndef OVERLAY_FAIR_H
#define OVERLAY_FAIR_H

#include "tunnel.h"

enum {
    FAIR_FLOWS = 1024, FAIR_QUANTUM_BYTES = 8192,
    /* As long a frame counts at least, so that one bound is for bytes and frames. Short ones are cheap to copy, and then a
     * mass of them does not take the place of much that is long. */
    FAIR_SHORT_BYTES = 1792, FAIR_SHORT_COST_MIN_BYTES = 512, FAIR_LONG_COST_MIN_BYTES = 4096,
    FAIR_FRAME_MAX_BYTES = GSO_FRAME_MAX_BYTES + 1, /* so that one that is too long is seen */
    FAIR_KEY_BYTES = 4 + 32 + 1 + 4,
};

struct fair_frame {
    struct fair_frame *next;
    uint32_t vni;
    size_t size;
    struct frame_meta meta;
    bool is_short;    /* its buffer */
    uint8_t buffer[]; /* TUNNEL_ROOM_BYTES, the frame, TUNNEL_TAIL_BYTES */
};
static inline uint8_t *fair_bytes(struct fair_frame *f)
{
    return f->buffer + TUNNEL_ROOM_BYTES;
}

/* What says of which flow it is: network, addresses, protocol, ports; what is no IP has its MACs. Fragments have no ports, but
 * for the first one, and so all of them go by addresses. Returns its length. */
size_t fair_key(uint32_t vni, const uint8_t *frame, size_t size, uint8_t ret_key[FAIR_KEY_BYTES]);

struct fair;
struct fair *fair_new(size_t bytes_max);
void fair_free(struct fair *q); /* takes NULL */
/* A buffer of FAIR_FRAME_MAX_BYTES to be filled, then put or given back. Of those that fair_blank() and fair_take() gave, two
 * may be out at a time. */
struct fair_frame *fair_blank(struct fair *q);
void fair_put(struct fair *q, struct fair_frame *f);
/* The frame whose turn it is, to be given back; NULL: there is none. */
struct fair_frame *fair_take(struct fair *q);
void fair_give_back(struct fair *q, struct fair_frame *f);
/* Those of one network are lost. */
void fair_drop(struct fair *q, uint32_t vni);
bool fair_is_empty(const struct fair *q);
uint64_t fair_n_lost(const struct fair *q);

#endif
