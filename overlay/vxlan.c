/* VXLAN framing. The MTU of the devices keeps packets whole, so fragments are neither made nor taken. The UDP
 * source port is a hash of the inner addresses and ports, for receivers that spread by it (RFC 7348, 5). */
#include "vxlan.h"
#include "be.h"
#include <shoal/base/mem.h>

static unsigned checksum(const uint8_t *p)
{
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += be16(p + i);
    sum = (sum >> 16) + (sum & 0xffff);
    return ~(sum + (sum >> 16)) & 0xffff;
}

static unsigned flow_port(const uint8_t *frame, size_t size)
{
    uint32_t h = 2166136261u;
    size_t from = size >= 34 && be16(frame + 12) == 0x0800 ? 26 : 0; /* addresses, or the MACs */
    size_t n = from ? (size >= 38 ? 12 : 8) : MIN(size, (size_t)12);
    for (size_t i = 0; i < n; i++)
        h = (h ^ frame[from + i]) * 16777619u;
    return 49152 + (h >> 8) % 16384;
}

void vxlan_head(uint8_t out[VXLAN_HEAD_BYTES], uint32_t vni, uint32_t from, uint32_t to, const uint8_t *frame, size_t size)
{
    memset(out, 0, VXLAN_HEAD_BYTES);
    out[0] = 0x45;
    put16(out + 2, (unsigned)(VXLAN_HEAD_BYTES + size));
    put16(out + 6, 0x4000); /* do not fragment */
    out[8] = 64;
    out[9] = 17;
    put32(out + 12, from);
    put32(out + 16, to);
    put16(out + 10, checksum(out));
    put16(out + 20, flow_port(frame, size));
    put16(out + 22, VXLAN_PORT);
    put16(out + 24, (unsigned)(16 + size)); /* UDP; checksum 0: the tunnel authenticates */
    out[28] = 0x08;
    put32(out + 32, vni << 8);
}

bool vxlan_parse(uint8_t *p, size_t size, uint32_t from, uint32_t to, uint32_t *ret_vni, uint8_t **ret_frame, size_t *ret_size)
{
    if (size < VXLAN_HEAD_BYTES + ETHERNET_HEAD_BYTES || p[0] != 0x45)
        return false;
    size_t total = be16(p + 2);
    if (total > size || total < VXLAN_HEAD_BYTES + ETHERNET_HEAD_BYTES || be16(p + 6) & 0x3fff || p[9] != 17 ||
        be32(p + 12) != from || be32(p + 16) != to || be16(p + 22) != VXLAN_PORT || be16(p + 24) != total - 20 ||
        !(p[28] & 0x08))
        return false;
    *ret_vni = be32(p + 32) >> 8;
    *ret_frame = p + VXLAN_HEAD_BYTES;
    *ret_size = total - VXLAN_HEAD_BYTES;
    return true;
}

/* Flags, type, index, bytes of header, start (2 bytes) and offset of the checksum, bytes of padding; VXLAN's 8 bytes. */
void compact_head(uint8_t out[COMPACT_HEAD_BYTES], uint32_t vni, const struct frame_meta *m, unsigned index, size_t padding)
{
    out[0] = m->flags;
    out[1] = m->gso_type;
    out[2] = (uint8_t)index;
    out[3] = m->gso_type ? (uint8_t)m->hdr_len : 0;
    put16(out + 4, m->csum_start);
    out[6] = (uint8_t)m->csum_offset;
    out[7] = (uint8_t)padding;
    put32(out + 8, 0x08000000);
    put32(out + 12, vni << 8);
}

bool compact_parse(uint8_t *p, size_t size, struct compact *ret)
{
    if (size < COMPACT_HEAD_BYTES || p[7] > COMPACT_PADDING_MAX || size - COMPACT_HEAD_BYTES < (size_t)p[7] + ETHERNET_HEAD_BYTES ||
        !(p[8] & 0x08))
        return false;
    struct compact c = { .vni = be32(p + 12) >> 8, .index = p[2], .frame = p + COMPACT_HEAD_BYTES,
                         .size = size - COMPACT_HEAD_BYTES - p[7] };
    c.meta = (struct frame_meta){ .flags = p[0], .gso_type = p[1], .csum_start = be16(p + 4), .csum_offset = p[6] };
    if (c.meta.gso_type && (p[3] >= c.size || (c.meta.gso_size = (uint16_t)MIN(c.size - p[3], (size_t)UINT16_MAX)) == 0))
        return false;
    if (!frame_meta_check(&c.meta, c.frame, c.size) || (c.meta.gso_type && c.meta.hdr_len != p[3]))
        return false;
    *ret = c;
    return true;
}

bool frame_destination(const uint8_t *frame, size_t size, uint32_t *ret_addr)
{
    if (size < ETHERNET_HEAD_BYTES || frame[0] != 2 || frame[1] != 0x42)
        return false;
    *ret_addr = be32(frame + 2);
    return true;
}

bool frame_source(const uint8_t *frame, size_t size, uint32_t *ret_addr)
{
    return size >= ETHERNET_HEAD_BYTES && frame_destination(frame + 6, size, ret_addr);
}

bool frame_arp_request(const uint8_t *frame, size_t size, uint32_t *ret_addr)
{
    if (size < 42 || be16(frame + 12) != 0x0806 || be16(frame + 14) != 1 || be16(frame + 16) != 0x0800 ||
        frame[18] != 6 || frame[19] != 4 || be16(frame + 20) != 1)
        return false;
    *ret_addr = be32(frame + 38);
    return true;
}

void frame_arp_reply(uint8_t out[42], const uint8_t *request)
{
    uint8_t mac[6] = { 2, 0x42 };
    memcpy(mac + 2, request + 38, 4);
    memcpy(out, request + 6, 6);
    memcpy(out + 6, mac, 6);
    memcpy(out + 12, request + 12, 8);
    put16(out + 20, 2);
    memcpy(out + 22, mac, 6);
    memcpy(out + 28, request + 38, 4);
    memcpy(out + 32, request + 22, 10);
}
