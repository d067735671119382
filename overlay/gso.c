/* Super-packets: checks, checksums, segments. What differs from segment to segment is what Linux' own segmentation changes:
 * lengths, IPv4's identification, TCP's sequence number; FIN and PSH stay with the last segment, CWR with the first. */
#include "gso.h"
#include "be.h"
#include <shoal/base/err.h>
#include <shoal/base/mem.h>

enum { ETHERNET = 14, IPV4 = 0x0800, IPV6 = 0x86dd, VLAN = 0x8100, TCP = 6, UDP = 17, TCP_CSUM = 16, UDP_CSUM = 6,
       FLAG_FIN = 1, FLAG_PSH = 8, FLAG_CWR = 0x80 };

static unsigned fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned)sum;
}

static size_t ip_offset(const uint8_t *frame)
{
    return be16(frame + 12) == VLAN ? ETHERNET + 4 : ETHERNET;
}

static bool is_v4(const uint8_t *frame, size_t ip)
{
    return be16(frame + ip - 2) == IPV4;
}

/* Of a super-packet: IP, without extension headers in IPv6, then TCP or UDP as the type says. */
static bool check_super(struct frame_meta *m, const uint8_t *frame, size_t size)
{
    size_t ip = size > ETHERNET + 4 ? ip_offset(frame) : 0, l4;
    unsigned type = m->gso_type & ~(unsigned)GSO_ECN, protocol = type == GSO_UDP ? UDP : TCP;
    if (!ip || size < ip + 20 || !(m->flags & FRAME_NEEDS_CSUM) || !m->gso_size ||
        m->csum_offset != (protocol == TCP ? TCP_CSUM : UDP_CSUM) || (type == GSO_UDP && m->gso_type != GSO_UDP))
        return false;
    if (is_v4(frame, ip)) {
        l4 = ip + (frame[ip] & 15) * 4u;
        if (type == GSO_TCP6 || frame[ip] >> 4 != 4 || l4 < ip + 20 || frame[ip + 9] != protocol || be16(frame + ip + 6) & 0x3fff)
            return false;
    } else {
        l4 = ip + 40;
        if (type == GSO_TCP4 || size < l4 || be16(frame + ip - 2) != IPV6 || frame[ip] >> 4 != 6 || frame[ip + 6] != protocol)
            return false;
    }
    if (m->csum_start != l4 || size < l4 + (protocol == TCP ? 20u : 8u))
        return false;
    size_t head = l4 + (protocol == TCP ? (frame[l4 + 12] >> 4) * 4u : 8u);
    if (head < l4 + (protocol == TCP ? 20u : 8u) || head >= size || size - head > (size_t)m->gso_size * GSO_SEGMENTS_MAX)
        return false;
    m->hdr_len = (uint16_t)head;
    return true;
}

bool frame_meta_check(struct frame_meta *m, const uint8_t *frame, size_t size)
{
    unsigned type = m->gso_type & ~(unsigned)GSO_ECN;
    if (size < ETHERNET || size > GSO_FRAME_MAX_BYTES || m->flags & ~FRAME_NEEDS_CSUM)
        return false;
    if (m->flags && (m->csum_start < ETHERNET || (size_t)m->csum_start + m->csum_offset + 2 > size))
        return false;
    if (m->gso_type == GSO_NONE)
        return true;
    return (type == GSO_TCP4 || type == GSO_TCP6 || type == GSO_UDP) && check_super(m, frame, size);
}

/* Sum of words as they lie in memory; one's complement sums do not mind the order of bytes (RFC 1071). */
static uint64_t sum_bytes(const uint8_t *p, size_t size)
{
    uint64_t sum = 0;
    for (; size >= 4; p += 4, size -= 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        sum += word;
    }
    if (size) {
        uint32_t word = 0;
        memcpy(&word, p, size);
        sum += word;
    }
    return sum;
}

void frame_checksum(const struct frame_meta *m, uint8_t *frame, size_t size)
{
    uint16_t sum = (uint16_t)~fold(sum_bytes(frame + m->csum_start, size - m->csum_start));
    if (!sum)
        sum = 0xffff; /* to UDP zero says: none */
    memcpy(frame + m->csum_start + m->csum_offset, &sum, 2);
}

void frame_seed_length(const struct frame_meta *m, uint8_t *frame, size_t from, size_t to)
{
    uint8_t *at = frame + m->csum_start + m->csum_offset;
    put16(at, fold((uint64_t)be16(at) + to + (0xffff - (from & 0xffff))));
}

void frame_set_length(const struct frame_meta *m, uint8_t *frame, size_t size)
{
    size_t ip = ip_offset(frame);
    if (is_v4(frame, ip)) {
        put16(frame + ip + 2, (unsigned)(size - ip));
        put16(frame + ip + 10, 0);
        uint16_t sum = (uint16_t)~fold(sum_bytes(frame + ip, m->csum_start - ip));
        memcpy(frame + ip + 10, &sum, 2);
    } else {
        put16(frame + ip + 4, (unsigned)(size - ip - 40));
    }
    if (m->csum_offset == UDP_CSUM)
        put16(frame + m->csum_start + 4, (unsigned)(size - m->csum_start));
}

void gso_open(struct gso *g, uint8_t *frame, size_t size, const struct frame_meta *m)
{
    ASSERT(m->gso_type && m->gso_size && m->hdr_len < size && m->hdr_len <= GSO_HEAD_MAX_BYTES);
    *g = (struct gso){ .frame = frame, .size = size, .m = *m };
    g->n = (unsigned)((size - m->hdr_len + m->gso_size - 1) / m->gso_size);
    memcpy(g->head, frame, m->hdr_len);
}

uint8_t *gso_segment(struct gso *g, unsigned i, size_t *ret_size)
{
    size_t at = (size_t)i * g->m.gso_size, payload = MIN((size_t)g->m.gso_size, g->size - g->m.hdr_len - at);
    size_t size = g->m.hdr_len + payload, ip = ip_offset(g->head);
    uint8_t *p = g->frame + at, *l4 = p + g->m.csum_start;
    ASSERT(i < g->n);
    memcpy(p, g->head, g->m.hdr_len);
    if (is_v4(p, ip))
        put16(p + ip + 4, be16(p + ip + 4) + i);
    if (g->m.csum_offset == TCP_CSUM) {
        put32(l4 + 4, be32(l4 + 4) + (uint32_t)at);
        if (i)
            l4[13] &= (uint8_t)~FLAG_CWR;
        if (i + 1 < g->n)
            l4[13] &= (uint8_t)~(FLAG_FIN | FLAG_PSH);
    }
    frame_set_length(&g->m, p, size);
    frame_seed_length(&g->m, p, g->size - g->m.csum_start, size - g->m.csum_start);
    *ret_size = size;
    return p;
}
