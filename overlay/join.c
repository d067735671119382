/* Joins pieces under the rules of the kernel's GRO: all of the header is equal but for what segmentation changes, payloads
 * are equally long but for the last one, sequence numbers follow each other. Nothing that is itself a tunnel is joined of
 * datagrams: the kernel that cuts it again would need to know the tunnel (wireguard-go's UDP GRO broke VXLAN and GENEVE so).
 * Only frames whose sender left the checksum to be done: a finished one would not survive the change of lengths. */
#include "join.h"
#include "be.h"
#include <shoal/base/mem.h>

enum { IP = ETHERNET_HEAD_BYTES, L4_UDP = IP + 20, UDP_HEAD = L4_UDP + 8, TCP_CSUM = 16, LAST_FLAGS = 1 | 8 /* FIN, PSH */, FIRST_FLAG = 0x80 /* CWR */ };

static bool is_tunnel(unsigned port)
{
    return port == 4789 || port == 8472 /* VXLAN */ || port == 6081 /* GENEVE */ || port == 51820 /* WireGuard */;
}

static bool joinable_datagram(const struct compact *c)
{
    const uint8_t *f = c->frame, *ip = f + IP;
    return c->meta.gso_type == GSO_NONE && c->meta.flags & FRAME_NEEDS_CSUM && c->meta.csum_start == L4_UDP &&
           c->meta.csum_offset == 6 && c->size > UDP_HEAD && be16(f + 12) == 0x0800 && ip[0] == 0x45 && ip[9] == 17 &&
           be16(ip + 6) == 0x4000 /* no fragment, nor ever one: its identification says nothing */ &&
           be16(ip + 2) == c->size - IP && be16(f + L4_UDP + 4) == c->size - L4_UDP && !is_tunnel(be16(f + L4_UDP)) &&
           !is_tunnel(be16(f + L4_UDP + 2));
}

static bool same(const uint8_t *a, const uint8_t *b, size_t from, size_t to)
{
    return memcmp(a + from, b + from, to - from) == 0;
}

/* Headers that differ in nothing but lengths, checksums, IPv4's identification, TCP's sequence number and flags. */
static bool same_flow(const struct frame_meta *m, const uint8_t *a, const uint8_t *b)
{
    size_t l4 = m->csum_start, ip = be16(a + 12) == 0x8100 ? IP + 4 : IP;
    bool v4 = be16(a + ip - 2) == 0x0800;
    if (v4 ? !same(a, b, 0, ip + 2) || !same(a, b, ip + 6, ip + 10) || !same(a, b, ip + 12, l4 + 4)
           : !same(a, b, 0, ip + 4) || !same(a, b, ip + 6, l4 + 4))
        return false;
    return m->csum_offset != TCP_CSUM || (same(a, b, l4 + 8, l4 + 13) && same(a, b, l4 + 14, l4 + 16) && same(a, b, l4 + 18, m->hdr_len));
}

static bool carries_on(const struct join *j, uint64_t counter, const struct compact *c)
{
    const struct frame_meta *m = &j->meta;
    if (j->datagrams)
        return joinable_datagram(c);
    return c->meta.gso_type == m->gso_type && c->meta.hdr_len == m->hdr_len && c->meta.csum_start == m->csum_start &&
           counter == j->counter + 1 && c->index && c->index == (uint8_t)(j->index + 1);
}

bool join_add(struct join *j, const void *from, uint64_t counter, const struct compact *c)
{
    const struct frame_meta *m = &j->meta;
    if (!j->open || j->from != from || c->vni != j->vni || j->n == JOIN_PIECES_MAX || !carries_on(j, counter, c))
        return false;
    uint8_t *first = j->iov[1].iov_base;
    size_t payload = c->size - m->hdr_len;
    if (payload > m->gso_size || j->size + payload > GSO_FRAME_MAX_BYTES || !same_flow(m, first, c->frame))
        return false;
    if (m->csum_offset == TCP_CSUM) {
        uint8_t *tcp = first + m->csum_start, *more = c->frame + m->csum_start;
        if (be32(more + 4) != be32(tcp + 4) + (uint32_t)(j->size - m->hdr_len) || more[13] & FIRST_FLAG ||
            (more[13] & ~LAST_FLAGS) != (tcp[13] & ~FIRST_FLAG))
            return false;
        tcp[13] |= more[13] & LAST_FLAGS;
        j->open = !(more[13] & LAST_FLAGS);
    }
    j->iov[1 + j->n++] = (struct iovec){ c->frame + m->hdr_len, payload };
    j->size += payload;
    j->counter = counter;
    j->index = c->index;
    j->open &= payload == m->gso_size;
    return true;
}

void join_begin(struct join *j, const void *from, uint64_t counter, const struct compact *c, bool takes_udp)
{
    j->vni = c->vni;
    j->from = from;
    j->meta = c->meta;
    j->iov[1] = (struct iovec){ c->frame, c->size };
    j->n = 1;
    j->size = c->size;
    j->counter = counter;
    j->index = c->index;
    j->datagrams = takes_udp && joinable_datagram(c);
    if (j->datagrams) {
        j->meta.gso_type = GSO_UDP;
        j->meta.hdr_len = UDP_HEAD;
        j->meta.gso_size = (uint16_t)(c->size - UDP_HEAD);
    }
    j->open = j->datagrams || (c->meta.gso_type && !(c->meta.csum_offset == TCP_CSUM && c->frame[c->meta.csum_start + 13] & LAST_FLAGS));
}

void join_end(struct join *j)
{
    uint8_t *frame = j->iov[1].iov_base;
    j->open = false;
    if (j->n == 1) {
        j->meta.gso_type = GSO_NONE;
        j->meta.gso_size = j->meta.hdr_len = 0;
        return;
    }
    frame_set_length(&j->meta, frame, j->size);
    frame_seed_length(&j->meta, frame, j->iov[1].iov_len - j->meta.csum_start, j->size - j->meta.csum_start);
}
