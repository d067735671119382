/* Ethernet frames of a network in IPv4/UDP/VXLAN between two tunnel addresses (RFC 7348), and back; and what of
 * a frame decides its way. Pure. */
#ifndef OVERLAY_VXLAN_H
#define OVERLAY_VXLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VXLAN_HEAD_BYTES = 36, VXLAN_PORT = 4789, ETHERNET_HEAD_BYTES = 14 };

/* Fills the VXLAN_HEAD_BYTES in front of a frame of SIZE bytes. */
void vxlan_head(uint8_t out[VXLAN_HEAD_BYTES], uint32_t vni, uint32_t from, uint32_t to, const uint8_t *frame, size_t size);
/* Checks an opened packet from the peer with this tunnel address to ours; gives network and frame inside p. */
bool vxlan_parse(const uint8_t *p, size_t size, uint32_t from, uint32_t to, uint32_t *ret_vni, const uint8_t **ret_frame,
                 size_t *ret_size);
/* Unicast MAC of ours, 02:42:a:b:c:d: its address. */
bool frame_destination(const uint8_t *frame, size_t size, uint32_t *ret_addr);
bool frame_source(const uint8_t *frame, size_t size, uint32_t *ret_addr);
/* An ARP request: whose address it asks for. */
bool frame_arp_request(const uint8_t *frame, size_t size, uint32_t *ret_addr);
/* The answer to it, 42 bytes. */
void frame_arp_reply(uint8_t out[42], const uint8_t *request);

#endif
