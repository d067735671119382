/* What two shoal ends have beyond WireGuard: how they come to it, super-packets cut and put together again, TAPs that take
 * less, datagrams joined, and a peer that is authenticated and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "super.h"

#include "../../overlay/join.h"

static struct rng g;
static uint8_t sent[SUPER_MAX]; /* the frame that is expected */
static struct frame_meta sent_meta;
static size_t sent_size;
static unsigned n_seen, n_super, n_refused;
static uint8_t got[1 << 20]; /* payloads, one behind the other */
static size_t got_size;
static size_t head_size;

static uint8_t best(void)
{
    return PEER_CAN_COMPACT | (crypto_gcm_usable() ? PEER_CAN_AES : 0);
}

static int setup_with(uint8_t can_0, uint8_t can_1, unsigned takes)
{
    rng_init(&g, 17);
    wire_setup(NULL);
    const uint8_t can[NODES] = { can_0, can_1 };
    for (int i = 0; i < NODES; i++) {
        w.n[i].can = can[i];
        w.n[i].takes = takes;
        node_start(i);
    }
    n_seen = n_super = n_refused = 0;
    got_size = 0;
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(best(), best(), TAP_CSUM | TAP_TSO | TAP_USO);
}

static void assert_form(int node, const char *form)
{
    struct tunnel_status s = { 0 };
    tunnel_status(w.n[node].t, w.now_ms, wire_format, &s);
    assert_string_equal(s.peers.v[0].form, form);
    tunnel_status_clear(&s);
}

static void forms_are(const char *of_0, const char *of_1)
{
    send_frame(0, 1);
    run_for(1000);
    send_frame(1, 2);
    run_for(1000);
    assert_form(0, of_0);
    assert_form(1, of_1);
    unsigned before[2] = { w.n[0].n_frames, w.n[1].n_frames };
    for (int i = 0; i < NODES; i++)
        send_frame(i, 3);
    run_for(100);
    assert_int_equal(w.n[0].n_frames, before[0] + 1);
    assert_int_equal(w.n[1].n_frames, before[1] + 1);
}

static void both_read_the_same_best(void **state)
{
    (void)state;
    const char *aes = best() & PEER_CAN_AES ? "aes" : "chacha";
    static const uint8_t compact = PEER_CAN_COMPACT;
    forms_are(aes, aes);
    assert_in_range(w.n[0].n_sent[4] + w.n[1].n_sent[4], 2, 5); /* the first frame, HELLOs */
    wire_teardown(NULL);
    setup_with(compact, best(), TAP_CSUM);
    forms_are("chacha", "chacha");
    wire_teardown(NULL);
    setup_with(best(), compact, TAP_CSUM);
    forms_are("chacha", "chacha");
    assert_true(w.n[0].n_sent[5] && !w.n[0].n_sent[6]);
}

/* An end that does not know HELLO (WireGuard, shoal of before) hears it a few times, and nothing else that is new. */
static void the_other_end_is_older(void **state)
{
    (void)state;
    for (int older = 0; older < NODES; older++) {
        wire_teardown(NULL);
        setup_with(older == 0 ? 0 : best(), older == 1 ? 0 : best(), TAP_CSUM);
        forms_are("wireguard", "wireguard");
        run_for(20000);
        for (int i = 0; i < NODES; i++)
            assert_int_equal(w.n[i].n_sent[5] + w.n[i].n_sent[6], 0);
        assert_in_range(w.n[!older].n_sent[4], 3, 8);
    }
}

static unsigned n_lost, lose_n;
static bool lose_hello(const uint8_t *p, size_t size)
{
    return p[0] == 4 && size == 48 && n_lost++ < lose_n;
}

static void lost_hellos_are_said_again(void **state)
{
    (void)state;
    for (lose_n = 1; lose_n <= 5; lose_n++) {
        wire_teardown(NULL);
        setup(NULL);
        w.lose = lose_hello;
        n_lost = 0;
        send_frame(0, 1);
        run_for(6000);
        assert_form(0, best() & PEER_CAN_AES ? "aes" : "chacha");
        assert_form(1, best() & PEER_CAN_AES ? "aes" : "chacha");
        unsigned n = w.n[0].n_sent[4] + w.n[1].n_sent[4];
        run_for(8000); /* then it is quiet, but for a keepalive */
        assert_in_range(w.n[0].n_sent[4] + w.n[1].n_sent[4], n, n + 2);
        w.lose = NULL;
    }
}

/* Both begin at once: each end then sends under the session that the other one began, and hears on its own. */
static void handshakes_that_cross_agree_too(void **state)
{
    (void)state;
    for (lose_n = 0; lose_n <= 4; lose_n++) {
        wire_teardown(NULL);
        setup(NULL);
        w.lose = lose_hello;
        n_lost = 0;
        for (int i = 0; i < NODES; i++)
            tunnel_greet(w.n[i].t, w.now_ms, real_ns());
        run_for(6000);
        forms_are(best() & PEER_CAN_AES ? "aes" : "chacha", best() & PEER_CAN_AES ? "aes" : "chacha");
        unsigned n = w.n[0].n_sent[4] + w.n[1].n_sent[4];
        run_for(8000);
        assert_in_range(w.n[0].n_sent[4] + w.n[1].n_sent[4], n, n + 2);
        w.lose = NULL;
    }
}

/* The other end comes back as one that knows nothing of it: a new session, so nothing is assumed. */
static void an_end_that_goes_back_to_an_older_program(void **state)
{
    (void)state;
    send_frame(0, 1);
    run_for(1000);
    w.n[1].can = 0;
    node_start(1);
    tunnel_greet(w.n[1].t, w.now_ms, real_ns());
    send_frame(1, 2);
    run_for(2000);
    forms_are("wireguard", "wireguard");
}

/* ---- super-packets ---- */
static bool same_frame(int node, const struct frame_meta *m, uint8_t *frame, size_t size)
{
    (void)node;
    n_seen++;
    assert_int_equal(size, sent_size);
    judge_frame(m, frame, size);
    assert_memory_equal(frame, sent, size);
    assert_int_equal(m->gso_type, sent_meta.gso_type);
    assert_int_equal(m->gso_size, sent_meta.gso_size);
    assert_int_equal(m->hdr_len, sent_meta.gso_type ? sent_meta.hdr_len : 0);
    assert_int_equal(m->csum_start, sent_meta.csum_start);
    return true;
}

/* Frames in pieces of any kind: their payloads are kept. */
static bool pieces(int node, const struct frame_meta *m, uint8_t *frame, size_t size)
{
    (void)node;
    n_seen++;
    judge_frame(m, frame, size);
    n_super += m->gso_type != 0;
    assert_true(got_size + size <= sizeof got);
    memcpy(got + got_size, frame + head_size, size - head_size);
    got_size += size - head_size;
    return true;
}

static struct super any_super(void)
{
    struct super s = { .v6 = rng_below(&g, 2), .udp = rng_below(&g, 2), .vlan = rng_below(&g, 4) == 0,
                       .tcp_options = (unsigned)rng_below(&g, 11), .flags = 0x10 };
    size_t head = (s.vlan ? 18u : 14u) + (s.v6 ? 40u : 20u) + (s.udp ? 8 : 20 + 4 * s.tcp_options);
    s.mss = rng_below(&g, 3) ? MTU + 14 - head : rng_range(&g, 48, 1300);
    size_t most = MIN((size_t)SUPER_MAX - head - 14, s.mss * JOIN_PIECES_MAX);
    s.payload = rng_range(&g, s.mss + 1, most);
    if (!s.udp && rng_below(&g, 2))
        s.flags |= (uint8_t)(rng_below(&g, 2) ? 0x08 : 0x89); /* PSH; CWR, PSH, FIN */
    return s;
}

static void send_super(const struct super *s)
{
    sent_size = make_super(&g, s, sent, &sent_meta);
    head_size = sent_size - s->payload;
    struct frame_meta m = sent_meta;
    if (rng_below(&g, 2))
        m.hdr_len = (uint16_t)rng_u64(&g); /* a hint only */
    frame_into(0, VNI, sent, sent_size, &m);
}

static void come_to_terms(void)
{
    send_frame(0, 1);
    run_for(2000);
    send_frame(1, 2);
    run_for(2000);
}

static void supers_come_out_as_they_went_in(void **state)
{
    (void)state;
    come_to_terms();
    w.n[1].on_frame = same_frame;
    for (unsigned i = 1; i <= 400; i++) {
        struct super s = any_super();
        if (i % 8 == 0)
            s.mss = 0, s.payload = rng_range(&g, 1, 1200); /* an ordinary frame with a partial checksum */
        send_super(&s);
        run_for(20);
        assert_int_equal(n_seen, i);
    }
    assert_int_equal(w.n[0].n_sent[best() & PEER_CAN_AES ? 5 : 6], 0);
}

/* To WireGuard, to a device that takes less, and to one that refuses: pieces that are whole frames. */
static void check_pieces(unsigned most_supers)
{
    come_to_terms();
    w.n[1].on_frame = pieces;
    for (unsigned i = 0; i < 300; i++) {
        struct super s = any_super();
        got_size = 0;
        send_super(&s);
        run_for(20);
        assert_int_equal(got_size, s.payload);
        assert_memory_equal(got, sent + head_size, s.payload);
    }
    assert_in_range(n_super, 0, most_supers);
}

static void to_wireguard_supers_go_in_whole_packets(void **state)
{
    (void)state;
    wire_teardown(NULL);
    setup_with(best(), 0, TAP_CSUM | TAP_TSO | TAP_USO);
    check_pieces(0);
    assert_int_equal(w.n[0].n_sent[5] + w.n[0].n_sent[6], 0);
}

static bool whatever(int node, const struct frame_meta *m, uint8_t *frame, size_t size)
{
    (void)node, (void)m, (void)frame, (void)size;
    return true;
}

/* How long pieces are a container says; what whole frames are padded to must fit the path. */
static void pieces_do_not_stretch_the_padding(void **state)
{
    (void)state;
    wire_teardown(NULL);
    setup_with(best(), 0, TAP_CSUM | TAP_TSO | TAP_USO);
    w.n[1].on_frame = whatever;
    send_frame(0, 1);
    run_for(1000);
    struct super s = any_super();
    unsigned before = w.n[0].n_sent[4];
    send_super(&s);
    run_for(100);
    assert_true(w.n[0].n_sent[4] > before + 1);
    send_frame(0, 2);
    run_for(100);
    assert_int_equal(w.n[0].last_size[4], VXLAN_HEAD_BYTES + FRAME_BYTES + 32);
}

static void a_plain_tap_gets_whole_frames(void **state)
{
    (void)state;
    wire_teardown(NULL);
    setup_with(best(), best(), 0);
    check_pieces(0);
}

static bool refuse(int node, const struct frame_meta *m, uint8_t *frame, size_t size)
{
    if (m->gso_type) {
        n_refused++;
        return false;
    }
    return pieces(node, m, frame, size);
}

static void a_tap_that_refuses_gets_pieces(void **state)
{
    (void)state;
    come_to_terms();
    w.n[1].on_frame = refuse;
    for (unsigned i = 0; i < 100; i++) {
        struct super s = any_super();
        got_size = 0;
        send_super(&s);
        run_for(20);
        assert_int_equal(got_size, s.payload);
        assert_memory_equal(got, sent + head_size, s.payload);
    }
    assert_int_equal(n_refused, 2); /* TSO and USO: asked once each */
    w.n[1].on_frame = pieces;
    node_configure(1, true); /* the same TAP, told again */
    struct super s = { .payload = 5000, .mss = 1000, .flags = 0x10 };
    n_super = 0;
    send_super(&s);
    run_for(20);
    assert_int_equal(n_super, 0);
    tunnel_tap(w.n[1].t, VNI, 0); /* another TAP */
    tunnel_tap(w.n[1].t, VNI, w.n[1].takes);
    send_super(&s);
    run_for(20);
    assert_int_equal(n_super, 1);
    w.n[1].on_frame = refuse; /* it has taken one before: this one is cut, the next one is tried */
    send_super(&s);
    run_for(20);
    w.n[1].on_frame = pieces;
    send_super(&s);
    run_for(20);
    assert_int_equal(n_super, 2);
}

/* A lost, a late and a doubled piece: what comes is joined in runs, in place, once. */
static unsigned at_piece, missing;
static bool lose_piece(const uint8_t *p, size_t size)
{
    (void)size;
    return p[0] >= 5 && at_piece++ == missing;
}

static void a_lost_piece_costs_itself(void **state)
{
    (void)state;
    come_to_terms();
    w.n[1].on_frame = pieces;
    w.lose = lose_piece;
    struct super s = { .payload = 20000, .mss = 1000, .flags = 0x18 };
    for (missing = 0; missing < 20; missing++) {
        at_piece = n_seen = 0;
        got_size = 0;
        send_super(&s);
        run_for(20);
        assert_int_equal(got_size, 19000);
        assert_memory_equal(got, sent + head_size, missing * 1000);
        assert_memory_equal(got + missing * 1000, sent + head_size + (missing + 1) * 1000, 19000 - missing * 1000);
        assert_int_equal(n_seen, missing == 0 || missing == 19 ? 1 : 2);
    }
}

/* ---- datagrams ---- */
static void send_datagrams(unsigned n, uint16_t port, size_t payload, size_t last)
{
    n_seen = n_super = 0;
    got_size = 0;
    for (unsigned i = 0; i < n; i++) {
        struct super s = { .udp = true, .payload = i + 1 == n ? last : payload, .port = port };
        send_super(&s);
    }
    run_for(20);
    assert_int_equal(got_size, payload * (n - 1) + last);
}

static void datagrams_of_a_flow_are_joined(void **state)
{
    (void)state;
    come_to_terms();
    w.n[1].on_frame = pieces;
    send_datagrams(20, 0, 1000, 1000);
    assert_int_equal(n_seen, 1);
    assert_int_equal(n_super, 1);
    send_datagrams(20, 0, 1000, 400); /* the last one may be shorter */
    assert_int_equal(n_seen, 1);
    send_datagrams(20, 0, 1000, 1001); /* not longer */
    assert_int_equal(n_seen, 2);
    send_datagrams(100, 0, 100, 100);
    assert_int_equal(n_seen, 2); /* 64 at most */
    send_datagrams(1, 0, 100, 100);
    assert_int_equal(n_super, 0);
    static const uint16_t tunnels[] = { 4789, 8472, 6081, 51820 };
    for (size_t i = 0; i < ARRAY_N(tunnels); i++) {
        send_datagrams(20, tunnels[i], 1000, 1000);
        assert_int_equal(n_seen, 20);
    }
}

static void datagrams_are_not_joined_for_a_tap_without_uso(void **state)
{
    (void)state;
    wire_teardown(NULL);
    setup_with(best(), best(), TAP_CSUM | TAP_TSO);
    come_to_terms();
    w.n[1].on_frame = pieces;
    send_datagrams(20, 0, 1000, 1000);
    assert_int_equal(n_seen, 20);
}

static void datagrams_of_two_flows_are_not(void **state)
{
    (void)state;
    come_to_terms();
    w.n[1].on_frame = pieces;
    for (unsigned i = 0; i < 20; i++) {
        struct super s = { .udp = true, .payload = 1000, .port = (uint16_t)(7000 + i % 2) };
        send_super(&s);
    }
    run_for(20);
    assert_int_equal(n_seen, 20);
    assert_int_equal(n_super, 0);
}

/* ---- what a container or a kernel says is checked ---- */
static void descriptions_that_do_not_fit_are_dropped(void **state)
{
    (void)state;
    come_to_terms();
    w.n[1].on_frame = pieces;
    for (int i = 0; i < 20000; i++) {
        struct super s = any_super();
        s.payload = MIN(s.payload, (size_t)2000);
        size_t size = make_super(&g, &s, sent, &sent_meta);
        head_size = size - s.payload;
        struct frame_meta m = sent_meta;
        for (uint64_t k = rng_below(&g, 3); k; k--)
            ((uint8_t *)&m)[rng_below(&g, sizeof m)] = (uint8_t)rng_u64(&g);
        for (uint64_t k = rng_below(&g, 3); k; k--)
            sent[12 + rng_below(&g, head_size - 12)] = (uint8_t)rng_u64(&g);
        struct frame_meta checked = m;
        if (rng_below(&g, 10) == 0)
            size = rng_below(&g, size);
        if (frame_meta_check(&checked, sent, size)) {
            assert_true(!checked.flags || checked.csum_start + checked.csum_offset + 2u <= size);
            assert_true(!checked.gso_type || (checked.hdr_len < size && checked.hdr_len <= GSO_HEAD_MAX_BYTES && checked.gso_size));
        }
    }
    struct super s = { .payload = 20000, .mss = 1, .flags = 0x10 }; /* 20,000 packets out of one */
    unsigned before = w.n[0].n_sent[5] + w.n[0].n_sent[6];
    send_super(&s);
    assert_int_equal(w.n[0].n_sent[5] + w.n[0].n_sent[6], before);
}

/* ---- an authenticated peer that is hostile ---- */
static void a_hostile_peer_is_bounded(void **state)
{
    (void)state;
    static uint8_t room[COMPACT_HEAD_BYTES + SUPER_MAX + 64];
    rogue_begin(best());
    for (int round = 0; round < 6000; round++) {
        sound_refuses = rng_below(&g, 8) == 0;
        struct super s = any_super();
        s.payload = MIN(s.payload, s.mss * rng_range(&g, 2, 6));
        struct gso cut;
        size_t n, size = make_super(&g, &s, sent, &sent_meta);
        gso_open(&cut, sent, size, &sent_meta);
        for (unsigned i = 0; i < cut.n && s.payload > s.mss; i++) {
            const uint8_t *p = gso_segment(&cut, i, &n);
            size_t padding = rng_below(&g, 4) ? 0 : rng_below(&g, 20);
            memcpy(room + COMPACT_HEAD_BYTES, p, n);
            compact_head(room, VNI, &sent_meta, i, padding);
            n += COMPACT_HEAD_BYTES + padding;
            for (uint64_t k = rng_below(&g, 4) ? 0 : rng_below(&g, 4); k; k--)
                room[rng_below(&g, rng_below(&g, 2) ? 16 : 110)] = (uint8_t)rng_u64(&g);
            if (rng_below(&g, 40) == 0)
                n = rng_below(&g, n);
            rogue_piece(room, n);
        }
        flush_held();
        w.now_ms++;
    }
    assert_true(n_sound > 6000 && n_sound_super > 2000);
    peer_done(&rogue);
}

/* A peer speaks for the addresses that live there, in each piece. */
static void each_piece_has_its_source_checked(void **state)
{
    (void)state;
    static uint8_t room[COMPACT_HEAD_BYTES + SUPER_MAX];
    struct super s = { .payload = 5000, .mss = 1000, .flags = 0x10 };
    rogue_begin(best());
    for (unsigned bad = 0; bad <= 5; bad++) {
        struct gso cut;
        size_t n;
        n_sound = 0;
        head_size = make_super(&g, &s, sent, &sent_meta) - s.payload;
        gso_open(&cut, sent, head_size + s.payload, &sent_meta);
        for (unsigned i = 0; i < cut.n; i++) {
            const uint8_t *p = gso_segment(&cut, i, &n);
            memcpy(room + COMPACT_HEAD_BYTES, p, n);
            if (i == bad)
                room[COMPACT_HEAD_BYTES + 11] = 77;
            compact_head(room, VNI, &sent_meta, i, 0);
            rogue_piece(room, COMPACT_HEAD_BYTES + n);
        }
        flush_held();
        assert_true(n_sound > 0); /* and is_sound has seen the right source alone */
    }
    peer_done(&rogue);
}

/* Frames in both directions over renewals of the keys: nothing is lost, and the best form comes back at once. */
static void renewal_with_supers_loses_nothing(void **state)
{
    (void)state;
    come_to_terms();
    w.n[1].on_frame = pieces;
    struct super s = { .payload = 4000, .mss = 1000, .flags = 0x10 };
    uint64_t total = 0;
    for (int i = 0; i < 130 * 20; i++) {
        got_size = 0;
        send_super(&s);
        run_for(50);
        total += got_size;
    }
    assert_int_equal(total, 130 * 20 * 4000);
    assert_int_equal(w.n[0].n_sent[1], 2);
    assert_in_range(w.n[0].n_sent[4], 2, 12); /* HELLOs, and what went before the other's */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, wire_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(both_read_the_same_best),
        T(the_other_end_is_older),
        T(lost_hellos_are_said_again),
        T(handshakes_that_cross_agree_too),
        T(an_end_that_goes_back_to_an_older_program),
        T(supers_come_out_as_they_went_in),
        T(to_wireguard_supers_go_in_whole_packets),
        T(pieces_do_not_stretch_the_padding),
        T(a_plain_tap_gets_whole_frames),
        T(a_tap_that_refuses_gets_pieces),
        T(a_lost_piece_costs_itself),
        T(datagrams_of_a_flow_are_joined),
        T(datagrams_are_not_joined_for_a_tap_without_uso),
        T(datagrams_of_two_flows_are_not),
        T(descriptions_that_do_not_fit_are_dropped),
        T(a_hostile_peer_is_bounded),
        T(each_piece_has_its_source_checked),
        T(renewal_with_supers_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
