/* Ethernet frames of a network in IPv4/UDP/VXLAN between two tunnel addresses (RFC 7348), and back; the compact form of
 * that between two shoal ends; and what of a frame decides its way. Pure. */
#ifndef OVERLAY_VXLAN_H
#define OVERLAY_VXLAN_H

#include "gso.h"

enum { VXLAN_HEAD_BYTES = 36, VXLAN_PORT = 4789, ETHERNET_HEAD_BYTES = 14, COMPACT_HEAD_BYTES = 16, COMPACT_PADDING_MAX = 15 };

/* Fills the VXLAN_HEAD_BYTES in front of a frame of SIZE bytes. */
void vxlan_head(uint8_t out[VXLAN_HEAD_BYTES], uint32_t vni, uint32_t from, uint32_t to, const uint8_t *frame, size_t size);
/* Checks an opened packet from the peer with this tunnel address to ours; gives network and frame inside p. */
bool vxlan_parse(uint8_t *p, size_t size, uint32_t from, uint32_t to, uint32_t *ret_vni, uint8_t **ret_frame, size_t *ret_size);
/* The compact form leaves the IP and UDP headers out, whose content both ends know, and says of the checksum and of the
 * super-packet what the kernel said (gso.h), so that no checksum is computed on the way. Fills the COMPACT_HEAD_BYTES in front
 * of a frame, or of the segment with this index in a super-packet; padding: bytes behind it. */
struct compact { uint32_t vni; struct frame_meta meta; uint8_t index, *frame; size_t size; };
void compact_head(uint8_t out[COMPACT_HEAD_BYTES], uint32_t vni, const struct frame_meta *m, unsigned index, size_t padding);
/* Checks an opened packet; the frame is inside p. Of a segment, meta describes a super-packet that has this one alone. */
bool compact_parse(uint8_t *p, size_t size, struct compact *ret);
/* Unicast MAC of ours, 02:42:a:b:c:d: its address. */
bool frame_destination(const uint8_t *frame, size_t size, uint32_t *ret_addr);
bool frame_source(const uint8_t *frame, size_t size, uint32_t *ret_addr);
/* An ARP request: whose address it asks for. */
bool frame_arp_request(const uint8_t *frame, size_t size, uint32_t *ret_addr);
/* The answer to it, 42 bytes. */
void frame_arp_reply(uint8_t out[42], const uint8_t *request);

#endif
