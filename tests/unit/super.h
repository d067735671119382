/* Super-packets for tests, and a judge of frames that shares no code with overlay/gso.c. */
#ifndef TEST_SUPER_H
#define TEST_SUPER_H

#include <shoal/base/rng.h>

#include "overlay_wire.h"

enum { SUPER_MAX = 65549, MTU = 1390 };
struct super { bool v6, udp, vlan; size_t payload, mss; unsigned tcp_options; uint16_t port; uint8_t flags; };

static inline void put_be(uint8_t *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static inline unsigned get_be16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static inline uint32_t words(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    return sum;
}

static inline unsigned folded(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static inline size_t ip_at(const uint8_t *f)
{
    return get_be16(f + 12) == 0x8100 ? 18 : 14;
}

/* Of the pseudo header: addresses, protocol, length of TCP or UDP. */
static inline uint32_t pseudo(const uint8_t *f, size_t l4_size)
{
    const uint8_t *ip = f + ip_at(f);
    bool v6 = ip[0] >> 4 == 6;
    return words(v6 ? ip + 8 : ip + 12, v6 ? 32 : 8) + (v6 ? ip[6] : ip[9]) + (uint32_t)l4_size;
}

/* Makes the frame and what a kernel says of it: header complete, checksum partial. mss 0: not a super-packet. */
static inline size_t make_super(struct rng *g, const struct super *s, uint8_t *f, struct frame_meta *m)
{
    size_t ip = s->vlan ? 18 : 14, l4 = ip + (s->v6 ? 40 : 20), head = l4 + (s->udp ? 8 : 20 + 4 * s->tcp_options);
    size_t size = head + s->payload;
    memset(f, 0, head);
    memcpy(f, "\x02\x42\x0a\x01\x00\x03\x02\x42\x0a\x01\x00\x02", 12);
    if (s->vlan)
        put_be(f + 12, 0x81000005, 4);
    put_be(f + ip - 2, s->v6 ? 0x86dd : 0x0800, 2);
    if (s->v6) {
        put_be(f + ip, 0x6012345600000000, 8);
        put_be(f + ip + 4, (size - l4), 2);
        f[ip + 6] = s->udp ? 17 : 6;
        f[ip + 7] = 64;
        rng_bytes(g, f + ip + 8, 32);
    } else {
        put_be(f + ip, 0x4502, 2);
        put_be(f + ip + 2, size - ip, 2);
        put_be(f + ip + 4, s->udp ? 0 : rng_below(g, 65536), 2);
        f[ip + 6] = 0x40;
        f[ip + 8] = 64;
        f[ip + 9] = s->udp ? 17 : 6;
        put_be(f + ip + 12, 0x0a0100020a010003, 8);
        put_be(f + ip + 10, ~folded(words(f + ip, 20)) & 0xffff, 2);
    }
    put_be(f + l4, 40000, 2);
    put_be(f + l4 + 2, s->port ? s->port : 5201, 2);
    if (s->udp) {
        put_be(f + l4 + 4, size - l4, 2);
    } else {
        rng_bytes(g, f + l4 + 4, 8);
        f[l4 + 12] = (uint8_t)((5 + s->tcp_options) << 4);
        f[l4 + 13] = s->flags;
        put_be(f + l4 + 14, 500, 2);
        rng_bytes(g, f + l4 + 20, 4 * s->tcp_options);
    }
    *m = (struct frame_meta){ .flags = FRAME_NEEDS_CSUM, .csum_start = (uint16_t)l4, .csum_offset = s->udp ? 6 : 16 };
    put_be(f + l4 + m->csum_offset, folded(pseudo(f, size - l4)), 2);
    if (s->mss) {
        m->gso_type = s->udp ? GSO_UDP : s->v6 ? GSO_TCP6 : GSO_TCP4;
        m->gso_size = (uint16_t)s->mss;
        m->hdr_len = (uint16_t)head;
    }
    rng_bytes(g, f + head, s->payload);
    return size;
}

/* Lengths and IPv4's checksum right; TCP's or UDP's checksum right, or its partial value when the description says so. */
static inline void judge_frame(const struct frame_meta *m, const uint8_t *f, size_t size)
{
    size_t ip = ip_at(f), l4;
    assert_true(size >= ip + 28);
    bool v6 = f[ip] >> 4 == 6;
    l4 = ip + (v6 ? 40 : (f[ip] & 15) * 4u);
    unsigned protocol = v6 ? f[ip + 6] : f[ip + 9];
    assert_int_equal(v6 ? get_be16(f + ip + 4) + 40u : get_be16(f + ip + 2), size - ip);
    if (!v6)
        assert_int_equal(folded(words(f + ip, l4 - ip)), 0xffff);
    if (protocol == 17)
        assert_int_equal(get_be16(f + l4 + 4), size - l4);
    if (m->flags & FRAME_NEEDS_CSUM) {
        assert_int_equal(m->csum_start, l4);
        assert_int_equal(m->csum_offset, protocol == 6 ? 16 : 6);
        assert_int_equal(get_be16(f + l4 + m->csum_offset), folded(pseudo(f, size - l4)));
    } else {
        assert_int_equal(folded(words(f + l4, size - l4) + pseudo(f, size - l4)), 0xffff);
    }
}

/* ---- node 0 replaced by a bare peer with its keys, which seals what it likes ---- */
static struct peer rogue;
static struct ik_identity rogue_id;
static unsigned n_sound, n_sound_super;
static bool sound_refuses; /* node 1's TAP: super-packets */

/* Whatever comes out at node 1 is from the rogue's container, and its description fits. */
static inline bool is_sound(int node, const struct frame_meta *m, uint8_t *frame, size_t size)
{
    (void)node;
    n_sound++;
    n_sound_super += m->gso_type != 0;
    assert_true(size >= 14 && size <= SUPER_MAX && memcmp(frame + 6, "\x02\x42\x0a\x01\x00\x02", 6) == 0);
    assert_true(!(m->flags & ~FRAME_NEEDS_CSUM) && (!m->flags || m->csum_start + m->csum_offset + 2u <= size));
    if (m->gso_type) {
        struct frame_meta again = *m;
        size_t ip = ip_at(frame);
        bool v6 = frame[ip] >> 4 == 6;
        assert_true(frame_meta_check(&again, frame, size) && again.hdr_len == m->hdr_len);
        assert_true(get_be16(frame + ip + (v6 ? 4 : 2)) + (v6 ? 40u : 0u) == size - ip);
    }
    return !m->gso_type || !sound_refuses;
}

static inline void rogue_send(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    (void)arg;
    (void)to;
    inject_held(1, &w.n[0].address, p, size);
    if (w.n_held > WIRE_HELD_MAX / 2)
        flush_held();
}

static inline void rogue_deliver(void *arg, void *peer_arg, enum peer_form form, uint64_t counter, uint8_t *p, size_t size)
{
    (void)arg;
}

static inline void rogue_hears(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    (void)arg;
    (void)to;
    uint8_t *copy = xmemdup(p, size);
    peer_receive(&rogue, w.now_ms, real_ns(), &w.n[1].address, copy, size);
    free(copy);
}

static inline void rogue_begin(uint8_t can)
{
    static const struct peer_out rogue_out = { NULL, wire_room, rogue_send, rogue_deliver };
    const struct tunnel_out out = { &w.n[1], wire_room, rogue_hears, wire_frame };
    tunnel_free(w.n[1].t);
    w.n[1].t = tunnel_new(&out, can);
    node_configure(1, true);
    w.n[1].on_frame = is_sound;
    n_sound = n_sound_super = 0;
    ik_identity_init(&rogue_id, w.n[0].secret, w.n[0].psk);
    peer_init(&rogue, &rogue_id, w.n[1].public_key, 0, can, &rogue_out, NULL);
    rogue.endpoint = w.n[1].address;
    peer_greet(&rogue, w.now_ms, real_ns());
    flush_held();
    assert_true(peer_form(&rogue, w.now_ms) != PEER_WIREGUARD);
}

static inline void rogue_piece(const uint8_t *plain, size_t size)
{
    peer_send(&rogue, w.now_ms, real_ns(), peer_form(&rogue, w.now_ms), plain, size);
}

#endif
