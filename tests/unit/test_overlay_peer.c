/* The WireGuard peer through the tunnel's core: handshakes, loss, replay, renewal, roaming, cookies, hostile bytes.
 * Times are the whitepaper's section 6; interoperability is proved by tests/run.d/40-tunnel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <shoal/base/rng.h>

#include "overlay_wire.h"

static void first_frame_waits_for_the_handshake(void **state)
{
    (void)state;
    send_frame(0, 1);
    assert_int_equal(w.n[0].n_sent[4], 0); /* nothing leaves before there is a session */
    run_for(1000);
    assert_int_equal(w.n[1].n_frames, 1);
    for (uint64_t i = 2; i <= 50; i++) {
        send_frame(0, i);
        send_frame(1, 1000 + i);
    }
    run_for(100);
    assert_int_equal(w.n[1].n_frames, 50);
    assert_int_equal(w.n[1].last_number, 50);
    assert_int_equal(w.n[0].n_frames, 49);
    assert_int_equal(w.n[0].last_number, 1050);
    assert_int_equal(w.n[0].n_sent[1], 1);
    assert_int_equal(w.n[1].n_sent[2], 1);
    assert_int_equal(w.n[1].n_sent[1], 0);
    assert_int_equal(w.n[0].last_size[1], 148);
    assert_int_equal(w.n[1].last_size[2], 92);

    struct tunnel_status s = { 0 };
    tunnel_status(w.n[0].t, w.now_ms, wire_format, &s);
    assert_int_equal(s.peers.n, 1);
    assert_in_range(s.peers.v[0].handshake_ms, 1, 1200);
    assert_string_equal(s.peers.v[0].endpoint, "192.0.2.11:51820");
    assert_true(s.peers.v[0].tx_bytes >= 50 * FRAME_BYTES && s.peers.v[0].rx_bytes >= 49 * FRAME_BYTES);
    tunnel_status_clear(&s);
}

static void payload_is_not_on_the_wire(void **state)
{
    (void)state;
    send_frame(0, 0x4142434445464748);
    run_for(100);
    assert_int_equal(w.n[1].n_frames, 1);
    assert_null(memmem(w.n[0].last[4], w.n[0].last_size[4], "HGFEDCBA", 8));
}

static void lost_initiation_is_retried(void **state)
{
    (void)state;
    w.cut = true;
    send_frame(0, 7);
    run_for(4000);
    assert_int_equal(w.n[0].n_sent[1], 1);
    w.cut = false;
    run_for(2000); /* 5 s + at most 1/3 s + a tick */
    assert_int_equal(w.n[0].n_sent[1], 2);
    assert_int_equal(w.n[1].n_frames, 1);
    assert_int_equal(w.n[1].last_number, 7);
}

static void gives_up_after_90_seconds(void **state)
{
    (void)state;
    w.cut = true;
    send_frame(0, 1);
    run_for(120000);
    unsigned n = w.n[0].n_sent[1];
    assert_in_range(n, 16, 20);
    run_for(60000);
    assert_int_equal(w.n[0].n_sent[1], n);
    w.cut = false;
    send_frame(0, 2); /* wakes it */
    run_for(1000);
    assert_int_equal(w.n[1].n_frames, 1);
    assert_int_equal(w.n[1].last_number, 2);
}

static void at_most_128_packets_wait(void **state)
{
    (void)state;
    w.cut = true;
    for (uint64_t i = 0; i < 200; i++)
        send_frame(0, i);
    w.cut = false;
    run_for(7000);
    assert_int_equal(w.n[1].n_frames, 128);
    assert_int_equal(w.n[1].sum, (72 + 199) * 128 / 2); /* the newest ones */
    struct tunnel_status s = { 0 };
    tunnel_status(w.n[0].t, w.now_ms, wire_format, &s);
    assert_int_equal(s.n_dropped, 72);
    tunnel_status_clear(&s);
}

static void replay_is_refused(void **state)
{
    (void)state;
    uint8_t initiation[WIRE_BYTES], data[WIRE_BYTES];
    send_frame(0, 1);
    run_for(100);
    memcpy(initiation, w.n[0].last[1], 148);
    size_t size = w.n[0].last_size[4];
    memcpy(data, w.n[0].last[4], size);
    assert_int_equal(w.n[1].n_frames, 1);
    for (int i = 0; i < 3; i++) {
        inject(1, &w.n[0].address, data, size);
        inject(1, &w.n[0].address, initiation, 148);
    }
    assert_int_equal(w.n[1].n_frames, 1);
    assert_int_equal(w.n[1].n_sent[2], 1);
    send_frame(0, 2);
    run_for(100);
    assert_int_equal(w.n[1].n_frames, 2);
}

/* A frame every 50 ms each way for 7 minutes, 10 ms on the way: none is lost, and keys change in time. */
static void renewal_loses_nothing(void **state)
{
    (void)state;
    uint64_t n = 0, sum = 0;
    send_frame(0, 0);
    run_for(1000);
    for (; n < 420 * 20; n++) {
        send_frame(0, n);
        send_frame(1, n);
        sum += n;
        run_for(50);
    }
    run_for(100);
    assert_int_equal(w.n[1].n_frames, n + 1);
    assert_int_equal(w.n[1].sum, sum);
    assert_int_equal(w.n[0].n_frames, n);
    assert_int_equal(w.n[0].sum, sum);
    assert_in_range(w.n[0].n_sent[1], 4, 5); /* at 0, 120, 240, 360 s */
    assert_int_equal(w.n[1].n_sent[1], 0);   /* only who began renews */
}

static void both_begin_at_once(void **state)
{
    (void)state;
    uint64_t n = 0, sum = 0;
    for (; n < 420 * 20; n++) {
        send_frame(0, n);
        send_frame(1, n);
        sum += n;
        run_for(50);
    }
    run_for(100);
    assert_int_equal(w.n[0].sum, sum);
    assert_int_equal(w.n[1].sum, sum);
    assert_true(w.n[0].n_sent[1] + w.n[1].n_sent[1] >= 4);
}

static void wrong_psk_gives_nothing(void **state)
{
    (void)state;
    memset(w.n[1].psk, 8, 32);
    node_start(1);
    for (uint64_t i = 0; i < 60; i++) {
        send_frame(0, i);
        send_frame(1, i);
        run_for(500);
    }
    assert_int_equal(w.n[0].n_frames + w.n[1].n_frames, 0);
    assert_int_equal(w.n[0].n_sent[4] + w.n[1].n_sent[4], 0);
    memset(w.n[1].psk, 7, 32);
    node_configure(1, true);
    send_frame(1, 5);
    run_for(6000);
    assert_int_equal(w.n[0].n_frames > 0, true);
}

static void unknown_key_gets_no_answer(void **state)
{
    (void)state;
    node_configure(1, false);
    send_frame(0, 1);
    run_for(20000);
    assert_true(w.n[0].n_sent[1] >= 3);
    assert_int_equal(w.n[1].n_sent[2], 0);
    node_configure(1, true);
    run_for(6000);
    assert_int_equal(w.n[1].n_frames, 1);
    node_configure(1, false); /* revoked: at once */
    send_frame(0, 2);
    run_for(1000);
    assert_int_equal(w.n[1].n_frames, 1);
}

static void keepalive_after_10_seconds(void **state)
{
    (void)state;
    send_frame(0, 1);
    run_for(1000);
    assert_int_equal(w.n[1].n_sent[4], 0);
    run_for(8500);
    assert_int_equal(w.n[1].n_sent[4], 0);
    run_for(1000);
    assert_int_equal(w.n[1].n_sent[4], 1);
    assert_int_equal(w.n[1].last_size[4], 32);
    run_for(30000);
    assert_int_equal(w.n[1].n_sent[4], 1);
    assert_int_equal(w.n[0].n_frames, 0); /* a keepalive is no frame */
}

static void restarted_end_is_found_again(void **state)
{
    (void)state;
    send_frame(0, 1);
    run_for(1000);
    node_start(1);
    for (uint64_t i = 2; i < 40; i++) { /* 15 s unheard, then a handshake */
        send_frame(0, i);
        run_for(500);
    }
    assert_int_equal(w.n[1].last_number, 39);
    assert_int_equal(w.n[0].n_sent[1], 2);
}

static void endpoint_follows_genuine_packets_only(void **state)
{
    (void)state;
    struct endpoint old = w.n[0].address, forger = old;
    send_frame(0, 1);
    run_for(100);
    w.n[0].address.addr[3] = 77; /* node 0 has moved */
    send_frame(0, 2);
    run_for(100);
    send_frame(1, 3);
    run_for(100);
    assert_int_equal(w.n[0].last_number, 3);
    /* Replayed and changed packets from elsewhere do not take the way over. */
    forger.addr[3] = 99;
    inject(1, &forger, w.n[0].last[4], w.n[0].last_size[4]);
    w.n[0].last[4][20] ^= 1;
    inject(1, &forger, w.n[0].last[4], w.n[0].last_size[4]);
    inject(1, &forger, w.n[0].last[1], w.n[0].last_size[1]);
    send_frame(1, 4);
    run_for(100);
    assert_int_equal(w.n[0].last_number, 4);
}

/* A loaded responder's cookie message (5.4.7), made by hand: the next initiation carries the right mac2. */
static void cookie_is_answered_with_mac2(void **state)
{
    (void)state;
    uint8_t reply[64] = { 3 }, key[32], label[40] = "cookie--", cookie[16], mac2[16], wrong[64];
    w.cut = true;
    send_frame(0, 1);
    const uint8_t *msg = w.n[0].last[1];
    for (int i = 132; i < 148; i++)
        assert_int_equal(msg[i], 0);
    memcpy(label + 8, w.n[1].public_key, 32);
    crypto_blake2s(key, 32, label, 40, NULL, 0);
    memset(cookie, 0x5c, 16);
    memcpy(reply + 4, msg + 4, 4);
    crypto_random(reply + 8, 24);
    crypto_xaead_seal(reply + 32, cookie, 16, msg + 116, 16, reply + 8, key);
    memcpy(wrong, reply, 64);
    wrong[40] ^= 1;
    inject(0, &w.n[1].address, reply, sizeof reply);
    inject(0, &w.n[1].address, wrong, sizeof wrong);
    run_for(6000);
    assert_int_equal(w.n[0].n_sent[1], 2);
    crypto_blake2s(mac2, 16, msg, 132, cookie, 16);
    assert_memory_equal(msg + 132, mac2, 16);
    w.cut = false;
    run_for(6000);
    assert_int_equal(w.n[1].n_frames, 1); /* an end that asks for no cookie takes it as well */
    run_for(120000); /* time to renew, and the cookie has had its two minutes */
    send_frame(0, 2);
    run_for(1000);
    assert_int_equal(w.n[0].n_sent[1], 4);
    for (int i = 132; i < 148; i++)
        assert_int_equal(msg[i], 0);
}

/* Above the rate an initiation costs a hash and a cookie, not curve work; who receives at its address gets in. */
static void flood_is_answered_with_cookies(void **state)
{
    (void)state;
    struct endpoint forger = w.n[0].address;
    uint8_t flood[148];
    forger.addr[3] = 99;
    w.cut = true;
    send_frame(0, 1);
    memcpy(flood, w.n[0].last[1], sizeof flood);
    w.n[1].n_sent[2] = 0;
    for (int i = 0; i < 5000; i++) {
        inject(1, &forger, flood, sizeof flood);
        if (i % 10 == 0)
            run_for(1);
    }
    assert_in_range(w.n[1].n_sent[2], 0, 1); /* all the same message: a replay */
    assert_int_equal(w.n[1].n_sent[3], 5000 - 200);
    assert_memory_equal(w.n[1].last[3] + 4, flood + 4, 4);
    flood[120] ^= 1; /* not even made for us: no answer at all */
    inject(1, &forger, flood, sizeof flood);
    assert_int_equal(w.n[1].n_sent[3], 5000 - 200);
    flood[120] ^= 1;
    w.cut = false;
    unsigned frames = 0;
    for (int ms = 0; ms < 12000; ms++) { /* the flood goes on */
        inject(1, &forger, flood, sizeof flood);
        run_for(1);
        frames = w.n[1].n_frames;
    }
    assert_int_equal(frames, 1);
    assert_true(w.n[0].n_sent[1] >= 2);
    uint8_t zero[16] = { 0 };
    assert_memory_not_equal(w.n[0].last[1] + 132, zero, 16); /* it had to show a cookie */
    run_for(5000);
    unsigned cookies = w.n[1].n_sent[3];
    for (int i = 0; i < 100; i++)
        inject(1, &forger, flood, sizeof flood); /* quiet again: no cookies */
    assert_int_equal(w.n[1].n_sent[3], cookies);
}

/* A restarted end begins by itself: the other one would use the old keys until it misses answers. */
static void a_new_tunnel_greets_its_peers(void **state)
{
    (void)state;
    tunnel_greet(w.n[0].t, w.now_ms, real_ns());
    tunnel_greet(w.n[0].t, w.now_ms, real_ns());
    run_for(100);
    assert_int_equal(w.n[0].n_sent[1], 1);
    send_frame(1, 1);
    run_for(100);
    assert_int_equal(w.n[1].n_sent[1], 0);
    node_start(1);
    tunnel_greet(w.n[1].t, w.now_ms, real_ns());
    run_for(100);
    send_frame(0, 2);
    run_for(100);
    assert_int_equal(w.n[1].last_number, 2);
    tunnel_greet(w.n[1].t, w.now_ms, real_ns());
    assert_int_equal(w.n[1].n_sent[1], 1);
}

/* Node 1 moves and is silent; the configuration tells (level-triggered, again and again). */
static void configured_endpoint_is_followed(void **state)
{
    (void)state;
    send_frame(0, 1);
    run_for(100);
    w.n[1].address.addr[3] = 55;
    node_configure(0, true);
    send_frame(0, 2);
    run_for(100);
    assert_int_equal(w.n[1].last_number, 2);
    /* Found elsewhere by itself; the same configuration again does not undo that. */
    w.n[1].address.addr[3] = 66;
    send_frame(1, 3);
    run_for(100);
    w.n[1].address.addr[3] = 55;
    node_configure(0, true);
    w.n[1].address.addr[3] = 66;
    send_frame(0, 4);
    run_for(100);
    assert_int_equal(w.n[1].last_number, 4);
}

/* 5.4.6: padded to 16 bytes but never beyond the MTU, so the largest packet is not; nor do we take less. */
static void full_packets_are_not_padded(void **state)
{
    (void)state;
    enum { INNER = VXLAN_HEAD_BYTES + FRAME_BYTES }; /* 136: no multiple of 16 */
    send_frame(0, 1);
    run_for(100);
    assert_int_equal(w.n[0].last_size[4], INNER + 32);
    assert_int_equal(w.n[1].n_frames, 1);
    uint8_t f[60] = { 2, 0x42, 10, 1, 0, 3 };
    frame_into(0, VNI, f, 60, NULL); /* 96, smaller: 96 is a multiple */
    assert_int_equal(w.n[0].last_size[4], 96 + 32);
    frame_into(0, VNI, f, 59, NULL);
    assert_int_equal(w.n[0].last_size[4], 96 + 32);
    frame_into(0, VNI, f, 43, NULL);
    assert_int_equal(w.n[0].last_size[4], 80 + 32);
    w.used = 0; /* other sizes than the wire's test frames */
}

static void configuring_again_keeps_sessions(void **state)
{
    (void)state;
    send_frame(0, 1);
    run_for(1000);
    for (int i = 0; i < 5; i++)
        node_configure(0, true), node_configure(1, true);
    send_frame(0, 2);
    run_for(100);
    assert_int_equal(w.n[1].last_number, 2);
    assert_int_equal(w.n[0].n_sent[1], 1);
}

static void hostile_bytes_at_all_lengths(void **state)
{
    (void)state;
    struct rng g;
    uint8_t p[WIRE_BYTES];
    rng_init(&g, 5);
    send_frame(0, 1);
    run_for(100);
    for (size_t size = 0; size <= 1600; size++) {
        for (uint8_t type = 0; type <= 5; type++) {
            rng_bytes(&g, p, size);
            if (size >= 4) {
                memset(p, 0, 4);
                p[0] = type;
            }
            if (size >= 12) /* indexes that exist */
                memcpy(p + 4, w.n[0].last[4] + 4, 4), memcpy(p + 8, w.n[0].last[4] + 4, 4);
            inject(1, &w.n[0].address, p, size);
        }
    }
    /* Genuine messages with one bit changed, or cut short. */
    for (int type = 1; type <= 4; type++) {
        int from = type == 2;
        size_t size = w.n[from].last_size[type];
        for (size_t i = 0; i < size; i++) {
            memcpy(p, w.n[from].last[type], size);
            p[i] ^= (uint8_t)(1u << rng_below(&g, 8));
            inject(!from, &w.n[from].address, p, size);
            inject(!from, &w.n[from].address, w.n[from].last[type], i);
        }
    }
    assert_int_equal(w.n[1].n_frames, 1);
    assert_int_equal(w.n[0].n_frames, 0);
    assert_int_equal(w.n[1].n_sent[2], 1);
    send_frame(0, 2);
    send_frame(1, 3);
    run_for(100);
    assert_int_equal(w.n[1].last_number, 2);
    assert_int_equal(w.n[0].last_number, 3);
}

static int shoal_setup(void **state)
{
    wire_can = PEER_CAN_COMPACT | (crypto_gcm_usable() ? PEER_CAN_AES : 0);
    wire_setup(state);
    wire_can = 0;
    return 0;
}

#define T(f) cmocka_unit_test_setup_teardown(f, wire_setup, wire_teardown)
#define TWO_SHOALS(f) { #f " (two shoals)", f, shoal_setup, wire_teardown, NULL }
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(first_frame_waits_for_the_handshake),
        T(payload_is_not_on_the_wire),
        T(lost_initiation_is_retried),
        T(gives_up_after_90_seconds),
        T(at_most_128_packets_wait),
        T(replay_is_refused),
        T(renewal_loses_nothing),
        T(both_begin_at_once),
        T(wrong_psk_gives_nothing),
        T(unknown_key_gets_no_answer),
        T(keepalive_after_10_seconds),
        T(restarted_end_is_found_again),
        T(endpoint_follows_genuine_packets_only),
        T(cookie_is_answered_with_mac2),
        T(flood_is_answered_with_cookies),
        T(a_new_tunnel_greets_its_peers),
        T(configuring_again_keeps_sessions),
        T(configured_endpoint_is_followed),
        T(full_packets_are_not_padded),
        T(hostile_bytes_at_all_lengths),
        TWO_SHOALS(first_frame_waits_for_the_handshake),
        TWO_SHOALS(lost_initiation_is_retried),
        TWO_SHOALS(gives_up_after_90_seconds),
        TWO_SHOALS(at_most_128_packets_wait),
        TWO_SHOALS(replay_is_refused),
        TWO_SHOALS(renewal_loses_nothing),
        TWO_SHOALS(both_begin_at_once),
        TWO_SHOALS(wrong_psk_gives_nothing),
        TWO_SHOALS(unknown_key_gets_no_answer),
        TWO_SHOALS(restarted_end_is_found_again),
        TWO_SHOALS(endpoint_follows_genuine_packets_only),
        TWO_SHOALS(a_new_tunnel_greets_its_peers),
        TWO_SHOALS(configuring_again_keeps_sessions),
        TWO_SHOALS(configured_endpoint_is_followed),
        TWO_SHOALS(hostile_bytes_at_all_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
