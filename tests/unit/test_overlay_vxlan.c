/* VXLAN framing and the tunnel's forwarding: what is taken, refused, answered, dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <shoal/base/rng.h>

#include "overlay_wire.h"

enum { FROM = 0xac1f0001, TO = 0xac1f0002, SIZE = VXLAN_HEAD_BYTES + FRAME_BYTES };

static void make_packet(uint8_t p[SIZE])
{
    memset(p, 0, SIZE);
    vxlan_head(p, 0xabcdef, FROM, TO, p + VXLAN_HEAD_BYTES, FRAME_BYTES);
}

static bool parses(const uint8_t *p, size_t size)
{
    uint8_t *copy = xmemdup(p, size);
    uint8_t *frame;
    size_t n;
    uint32_t vni;
    bool ok = vxlan_parse(copy, size, FROM, TO, &vni, &frame, &n);
    if (ok)
        assert_true(frame == copy + VXLAN_HEAD_BYTES && n >= ETHERNET_HEAD_BYTES && frame + n <= copy + size);
    free(copy);
    return ok;
}

static void head_is_rfc_791_768_7348(void **state)
{
    (void)state;
    uint8_t p[SIZE];
    make_packet(p);
    const uint8_t want[] = { 0x45, 0, 0, 136, 0, 0, 0x40, 0, 64, 17 }, vx[] = { 8, 0, 0, 0, 0xab, 0xcd, 0xef, 0 };
    assert_memory_equal(p, want, sizeof want);
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff); /* the header's checksum is right */
    assert_int_equal(p[22] << 8 | p[23], 4789);
    assert_true((p[20] << 8 | p[21]) >= 49152);
    assert_int_equal(p[24] << 8 | p[25], 116);
    assert_memory_equal(p + 28, vx, 8);
}

static void there_and_back(void **state)
{
    (void)state;
    uint8_t p[SIZE + 15] = { 0 };
    uint8_t *frame;
    size_t n;
    uint32_t vni;
    make_packet(p);
    for (size_t pad = 0; pad <= 15; pad++) { /* WireGuard's padding */
        assert_true(vxlan_parse(p, SIZE + pad, FROM, TO, &vni, &frame, &n));
        assert_int_equal(vni, 0xabcdef);
        assert_ptr_equal(frame, p + VXLAN_HEAD_BYTES);
        assert_int_equal(n, FRAME_BYTES);
    }
}

static void every_field_is_checked(void **state)
{
    (void)state;
    /* Byte and bit whose change must be refused. */
    static const struct { unsigned at, bit; } bad[] = {
        { 0, 0x10 }, { 0, 0x01 },               /* version, header length */
        { 2, 0x80 }, { 3, 0x01 }, { 3, 0x08 },  /* total length */
        { 6, 0x20 }, { 6, 0x01 }, { 7, 0x01 },  /* fragments */
        { 9, 0x01 },                            /* protocol */
        { 12, 0x01 }, { 15, 0x01 },             /* source: another node's address */
        { 16, 0x01 }, { 19, 0x01 },             /* destination */
        { 22, 0x01 }, { 23, 0x01 },             /* port */
        { 24, 0x01 }, { 25, 0x01 },             /* UDP length */
        { 28, 0x08 },                           /* VNI is valid */
    };
    uint8_t p[SIZE];
    for (size_t i = 0; i < ARRAY_N(bad); i++) {
        make_packet(p);
        assert_true(parses(p, SIZE));
        p[bad[i].at] ^= (uint8_t)bad[i].bit;
        if (parses(p, SIZE))
            fail_msg("byte %u bit 0x%x is not checked", bad[i].at, bad[i].bit);
    }
    make_packet(p);
    for (size_t size = 0; size < SIZE; size++)
        assert_false(parses(p, size));
}

static void hostile_bytes(void **state)
{
    (void)state;
    struct rng g;
    uint8_t p[SIZE];
    rng_init(&g, 3);
    for (int i = 0; i < 200000; i++) {
        make_packet(p);
        for (uint64_t k = rng_below(&g, 4); k; k--)
            p[rng_below(&g, SIZE)] = (uint8_t)rng_u64(&g);
        parses(p, rng_below(&g, SIZE + 1));
    }
}

static void frame_sent(int from, const uint8_t *f, size_t size)
{
    frame_into(from, VNI, f, size, NULL);
}

static void make_arp(uint8_t f[42], uint32_t target)
{
    const uint8_t head[22] = { 255, 255, 255, 255, 255, 255, 2, 0x42, 10, 1, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };
    const uint8_t sender[10] = { 2, 0x42, 10, 1, 0, 2, 10, 1, 0, 2 };
    memset(f, 0, 42);
    memcpy(f, head, 22);
    memcpy(f + 22, sender, 10);
    for (int i = 0; i < 4; i++)
        f[38 + i] = (uint8_t)(target >> (24 - 8 * i));
}

static void arp_is_answered_here(void **state)
{
    (void)state;
    uint8_t f[42], r[42];
    uint32_t addr = 0;
    make_arp(f, container_addr(1));
    frame_sent(0, f, sizeof f);
    assert_int_equal(w.n[0].n_arp, 1);
    assert_true(frame_arp_request(f, sizeof f, &addr));
    assert_int_equal(addr, container_addr(1));
    frame_arp_reply(r, f);
    const uint8_t want[42] = { 2, 0x42, 10, 1, 0, 2, 2, 0x42, 10, 1, 0, 3, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2,
                               2, 0x42, 10, 1, 0, 3, 10, 1, 0, 3, 2, 0x42, 10, 1, 0, 2, 10, 1, 0, 2 };
    assert_memory_equal(r, want, 42);
    make_arp(f, 0x0a010063); /* nobody's */
    frame_sent(0, f, sizeof f);
    make_arp(f, container_addr(1));
    f[21] = 2; /* an answer is no question */
    frame_sent(0, f, sizeof f);
    for (size_t size = 0; size < 42; size++)
        frame_sent(0, f, size);
    assert_int_equal(w.n[0].n_arp, 1);
    run_for(1000);
    assert_int_equal(w.n[0].n_sent[1], 0); /* none of it went to the wire */
}

static void unknown_and_broadcast_are_dropped(void **state)
{
    (void)state;
    uint8_t f[FRAME_BYTES] = { 0 };
    static const uint8_t macs[][6] = {
        { 255, 255, 255, 255, 255, 255 }, { 1, 0, 0x5e, 0, 0, 251 }, { 0x33, 0x33, 0, 0, 0, 1 },
        { 2, 0x42, 10, 1, 0, 99 }, { 2, 0x43, 10, 1, 0, 3 }, { 0x52, 0x54, 10, 1, 0, 3 },
    };
    for (size_t i = 0; i < ARRAY_N(macs); i++) {
        memcpy(f, macs[i], 6);
        frame_sent(0, f, sizeof f);
    }
    frame_into(0, VNI + 1, f, sizeof f, NULL); /* no such network */
    run_for(1000);
    assert_int_equal(w.n[0].n_sent[1], 0);
    send_frame(0, 1);
    run_for(1000);
    assert_int_equal(w.n[1].n_frames, 1);
}

/* A peer speaks for the addresses that live there, for no other. */
static void a_source_that_lives_elsewhere_is_dropped(void **state)
{
    (void)state;
    static const uint8_t sources[][6] = {
        { 2, 0x42, 10, 1, 0, 3 }, { 2, 0x42, 10, 1, 0, 99 }, { 0x52, 0x54, 10, 1, 0, 2 }, { 2, 0x42, 10, 1, 0, 2 } };
    uint8_t f[FRAME_BYTES] = { 2, 0x42, 10, 1, 0, 3 };
    for (size_t i = 0; i < ARRAY_N(sources); i++) {
        memcpy(f + 6, sources[i], 6);
        frame_sent(0, f, sizeof f);
        run_for(1000);
        assert_int_equal(w.n[1].n_frames, i == ARRAY_N(sources) - 1);
    }
    w.used = 0; /* other content than the wire's test frames */
}

#define W(f) cmocka_unit_test_setup_teardown(f, wire_setup, wire_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_is_rfc_791_768_7348),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(every_field_is_checked),
        cmocka_unit_test(hostile_bytes),
        W(arp_is_answered_here),
        W(unknown_and_broadcast_are_dropped), W(a_source_that_lives_elsewhere_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
