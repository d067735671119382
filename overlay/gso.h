/* Frames as the kernel gives and takes them on a TAP with a vnet header: checksums not yet computed, and super-packets that
 * are longer than the MTU, to be cut into segments by whoever sends them (TSO, USO). Pure.
 *
 * A partial checksum is the kernel's CHECKSUM_PARTIAL: where it belongs stands the sum over the pseudo header, and what is
 * missing is the sum from csum_start to the end. */
#ifndef OVERLAY_GSO_H
#define OVERLAY_GSO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_NEEDS_CSUM = 1 };                                            /* flags, as in linux/virtio_net.h */
enum { GSO_NONE = 0, GSO_TCP4 = 1, GSO_TCP6 = 4, GSO_UDP = 5, GSO_ECN = 0x80 /* added to TCP's */ };
enum {
    GSO_FRAME_MAX_BYTES = 65535 + 14, GSO_HEAD_MAX_BYTES = 14 + 4 + 60 + 60,
    GSO_SEGMENTS_MAX = 1400, /* of one super-packet: no MSS is below 48 bytes (Linux' tcp_min_snd_mss) */
};

struct frame_meta { /* virtio_net_hdr, numbers in host order */
    uint8_t flags, gso_type;
    uint16_t hdr_len;               /* of a super-packet or a segment: bytes before the payload */
    uint16_t gso_size;              /* payload of each segment but the last */
    uint16_t csum_start, csum_offset;
};

/* Does the description fit the frame? What the kernel says is checked like what a peer says: a container may make frames
 * of its own. For a super-packet hdr_len is found anew, what the kernel gives there is a hint only. */
bool frame_meta_check(struct frame_meta *m, const uint8_t *frame, size_t size);
/* The missing part of the checksum is added. m must have been checked. */
void frame_checksum(const struct frame_meta *m, uint8_t *frame, size_t size);
/* The sum over the pseudo header when the length in it (of what follows csum_start) goes from one to the other. */
void frame_seed_length(const struct frame_meta *m, uint8_t *frame, size_t from, size_t to);
/* Total length (and IPv4's checksum) of the IP header, UDP's length: as for a frame of SIZE bytes. */
void frame_set_length(const struct frame_meta *m, uint8_t *frame, size_t size);

struct gso { /* a super-packet being cut */
    uint8_t *frame, head[GSO_HEAD_MAX_BYTES];
    size_t size;
    struct frame_meta m;
    unsigned n; /* segments */
};
void gso_open(struct gso *g, uint8_t *frame /* borrowed, changed */, size_t size, const struct frame_meta *m /* checked */);
/* The segment as a frame inside the super-packet, with a partial checksum. Ask for them in ascending order: its header takes
 * the place of payload before it, and what is before the header is free to be used. */
uint8_t *gso_segment(struct gso *g, unsigned i, size_t *ret_size);

#endif
