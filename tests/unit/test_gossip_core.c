/* Gossip's pure parts: packet form and hostile packets, sealing, and the core's judgement in virtual time
 * (suspicion, refutation, leaving, coming back). Sources: SWIM (Das et al. 2002), include/shoal/gossip.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core.h"
#include <shoal/base/crypto.h>
#include <stdio.h>

enum { SENT_MAX = 4096, PROBE_MS = 200 };

/* One core under test, "me"; what it says is kept. */
static struct gossip_core g;
static struct { char addr[GOSSIP_ADDR_MAX]; size_t size; struct gossip_packet k; } sent[SENT_MAX];
static unsigned n_sent;
static struct { char id[GOSSIP_ID_MAX + 1]; enum gossip_state state; } said[64];
static unsigned n_said;
static int64_t now;

static void on_send(void *arg, const char *addr, uint16_t port, const void *p, size_t size)
{
    (void)arg;
    assert_int_equal(port, 7);
    assert_true(n_sent < SENT_MAX);
    assert_true(size + SEAL_OVERHEAD <= GOSSIP_PACKET_MAX_BYTES);
    snprintf(sent[n_sent].addr, sizeof sent[n_sent].addr, "%s", addr);
    sent[n_sent].size = size;
    assert_true(gossip_packet_read(&sent[n_sent++].k, p, size));
}

static void on_state(void *arg, const char *id, enum gossip_state state)
{
    (void)arg;
    assert_true(n_said < ARRAY_N(said));
    snprintf(said[n_said].id, sizeof said[n_said].id, "%s", id);
    said[n_said++].state = state;
}

static int start(void **state)
{
    const struct gossip_config cfg = { .node_id = "me", .incarnation = 10 };
    const struct gossip_core_out out = { NULL, on_send, on_state };
    (void)state;
    now = 1000000;
    n_sent = n_said = 0;
    gossip_core_init(&g, &cfg, &out, 42, now);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    gossip_core_done(&g);
    return 0;
}

static void members(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char id[16];
        snprintf(id, sizeof id, "m%u", i);
        gossip_core_member(&g, id, id, 7);
    }
}

static void hear(const char *from, enum gossip_kind kind, uint32_t seq, const char *about, enum gossip_state s,
                 uint64_t incarnation)
{
    uint8_t bytes[GOSSIP_PACKET_MAX_BYTES];
    struct gossip_packet k = { .kind = kind, .seq = seq };
    snprintf(k.from, sizeof k.from, "%s", from);
    snprintf(k.target, sizeof k.target, "m1");
    if (about) {
        k.n_rumours = 1;
        k.rumours[0] = (struct gossip_rumour){ .state = s, .incarnation = incarnation };
        snprintf(k.rumours[0].id, sizeof k.rumours[0].id, "%s", about);
    }
    gossip_core_receive(&g, now, bytes, gossip_packet_write(&k, bytes, sizeof bytes, NULL));
}

static enum gossip_state state_of(const char *id)
{
    const struct gossip_peer *p = map_find(&g.peers, id);
    assert_non_null(p);
    return p->state;
}

/* Ticks for ms; everybody but `silent` answers each ping at once. */
static void pass(int64_t ms, const char *silent)
{
    for (int64_t end = now + ms; now < end; now += 10) {
        unsigned first = n_sent = 0;
        gossip_core_tick(&g, now);
        for (unsigned n = n_sent; first < n; first++)
            if (sent[first].k.kind == KIND_PING && !str_equal(sent[first].addr, silent))
                hear(sent[first].addr, KIND_ACK, sent[first].k.seq, NULL, 0, 0);
    }
}

/* The newest thing said about `id` in the packets kept; false: nothing. */
static bool rumour_about(const char *id, struct gossip_rumour *ret)
{
    for (unsigned i = n_sent; i-- > 0;)
        for (unsigned k = 0; k < sent[i].k.n_rumours; k++)
            if (str_equal(sent[i].k.rumours[k].id, id)) {
                *ret = sent[i].k.rumours[k];
                return true;
            }
    return false;
}

/* ---- packets ---- */
static struct gossip_packet sample(enum gossip_kind kind)
{
    struct gossip_packet k = { .kind = kind, .seq = 0xfedcba98u, .n_rumours = 3 };
    snprintf(k.from, sizeof k.from, "sender");
    snprintf(k.target, sizeof k.target, "%s", kind == KIND_PING_REQUEST ? "target" : "");
    for (unsigned i = 0; i < 3; i++) {
        k.rumours[i] = (struct gossip_rumour){ .state = GOSSIP_SUSPECT + i, .incarnation = 0x0102030405060708 + i };
        memset(k.rumours[i].id, 'a' + (int)i, i == 2 ? GOSSIP_ID_MAX : 5);
    }
    return k;
}

static void round_trip(void **state)
{
    (void)state;
    for (enum gossip_kind kind = KIND_PING; kind <= KIND_RUMOURS; kind++) {
        struct gossip_packet k = sample(kind), got;
        uint8_t bytes[GOSSIP_PACKET_MAX_BYTES];
        unsigned n;
        memset(&got, 0xee, sizeof got);
        size_t size = gossip_packet_write(&k, bytes, sizeof bytes, &n);
        assert_int_equal(n, 3);
        assert_true(gossip_packet_read(&got, bytes, size));
        assert_int_equal(got.kind, kind);
        assert_int_equal(got.seq, k.seq);
        assert_string_equal(got.from, "sender");
        assert_string_equal(got.target, k.target);
        assert_int_equal(got.n_rumours, 3);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(got.rumours[i].state, k.rumours[i].state);
            assert_true(got.rumours[i].incarnation == k.rumours[i].incarnation);
            assert_string_equal(got.rumours[i].id, k.rumours[i].id);
        }
    }
}

static void full_packet_is_bounded(void **state)
{
    struct gossip_packet k = { .kind = KIND_PING_REQUEST, .n_rumours = RUMOURS_MAX }, got;
    uint8_t bytes[GOSSIP_PACKET_MAX_BYTES];
    unsigned n;
    (void)state;
    memset(k.from, 'f', GOSSIP_ID_MAX);
    memset(k.target, 't', GOSSIP_ID_MAX);
    for (unsigned i = 0; i < RUMOURS_MAX; i++)
        memset(k.rumours[i].id, 'r', GOSSIP_ID_MAX);
    size_t size = gossip_packet_write(&k, bytes, sizeof bytes - SEAL_OVERHEAD, &n);
    assert_true(size <= sizeof bytes - SEAL_OVERHEAD);
    assert_int_equal(n, (sizeof bytes - SEAL_OVERHEAD - 5 - 2 * 65) / (10 + GOSSIP_ID_MAX));
    assert_true(gossip_packet_read(&got, bytes, size));
    assert_int_equal(got.n_rumours, n);
}

/* Cut at every length: the cut packet is whole only where a rumour ends. */
static void truncated(void **state)
{
    struct gossip_packet k = sample(KIND_PING_REQUEST), got;
    uint8_t bytes[GOSSIP_PACKET_MAX_BYTES];
    const size_t head = 5 + 7 + 7;
    unsigned whole = 0;
    (void)state;
    size_t size = gossip_packet_write(&k, bytes, sizeof bytes, NULL);
    for (size_t n = 0; n <= size; n++) {
        uint8_t *cut = xmemdup(bytes, n); /* its own block: the sanitizer sees a byte too far */
        bool is_whole = n == head || n == head + 15 || n == head + 30 || n == size;
        assert_int_equal(gossip_packet_read(&got, cut, n), is_whole);
        whole += is_whole;
        free(cut);
    }
    assert_int_equal(whole, 4);
}

static void malformed(void **state)
{
    struct gossip_packet k = sample(KIND_PING), got;
    uint8_t bytes[GOSSIP_PACKET_MAX_BYTES], bad[GOSSIP_PACKET_MAX_BYTES];
    size_t size = gossip_packet_write(&k, bytes, sizeof bytes, NULL);
    static const struct { size_t at; uint8_t value; } breaks[] = {
        { 0, 0 }, { 0, KIND_RUMOURS + 1 }, /* kind */
        { 5, 0 }, { 5, 65 }, { 5, 255 },   /* length of the sender */
        { 7, 0 },                          /* NUL inside an id */
        { 12, GOSSIP_LEFT + 1 },           /* state */
        { 21, 0 }, { 21, 65 },             /* length of a rumour's id */
    };
    (void)state;
    assert_true(gossip_packet_read(&got, bytes, size));
    for (unsigned i = 0; i < ARRAY_N(breaks); i++) {
        memcpy(bad, bytes, size);
        bad[breaks[i].at] = breaks[i].value;
        assert_false(gossip_packet_read(&got, bad, size));
    }
    /* More rumours than a packet may carry. */
    size = 0;
    memcpy(bad, "\x01\0\0\0\1\1s", 7);
    size = 7;
    for (unsigned i = 0; i <= RUMOURS_MAX; i++, size += 11)
        memcpy(bad + size, "\0\0\0\0\0\0\0\0\1\1r", 11);
    assert_false(gossip_packet_read(&got, bad, size));
    assert_true(gossip_packet_read(&got, bad, size - 11));
}

/* Random bytes and random damage: nothing breaks, and whatever is accepted stays within its bounds. */
static void random_bytes(void **state)
{
    struct rng r;
    (void)state;
    members(3);
    rng_init(&r, 7);
    for (int i = 0; i < 100000; i++) {
        struct gossip_packet k = sample(KIND_PING_REQUEST);
        uint8_t bytes[GOSSIP_PACKET_MAX_BYTES];
        size_t size;
        if (i % 2) {
            rng_bytes(&r, bytes, size = rng_below(&r, sizeof bytes));
            if (size)
                bytes[0] = (uint8_t)rng_below(&r, 6);
        } else {
            snprintf(k.from, sizeof k.from, "m0");
            size = gossip_packet_write(&k, bytes, sizeof bytes, NULL);
            for (int d = 0; d < 3; d++)
                bytes[rng_below(&r, size)] = (uint8_t)rng_u64(&r);
        }
        uint8_t *p = xmemdup(bytes, size);
        n_sent = n_said = 0;
        gossip_core_receive(&g, now, p, size);
        free(p);
    }
    assert_int_equal(g.peers.n, 3); /* rumours make no members */
}

static void sealing(void **state)
{
    struct gossip_key_ref keys[2] = { { .id = 1, .key = { 1 } }, { .id = 2, .key = { 2 } } };
    uint8_t nonce[24] = { 9 }, sealed[5 + SEAL_OVERHEAD], plain[64];
    (void)state;
    assert_int_equal(gossip_seal(&keys[1], nonce, "hello", 5, sealed), sizeof sealed);
    assert_int_equal(gossip_open_sealed(keys, 2, sealed, sizeof sealed, plain), 5);
    assert_memory_equal(plain, "hello", 5);
    assert_int_equal(gossip_open_sealed(keys, 1, sealed, sizeof sealed, plain), 0); /* key 2 not held */
    struct gossip_key_ref wrong = { .id = 2, .key = { 3 } };
    assert_int_equal(gossip_open_sealed(&wrong, 1, sealed, sizeof sealed, plain), 0);
    for (size_t i = 0; i < sizeof sealed; i++) { /* the header is sealed as well */
        sealed[i] ^= 1;
        assert_int_equal(gossip_open_sealed(keys, 2, sealed, sizeof sealed, plain), 0);
        sealed[i] ^= 1;
    }
    for (size_t n = 0; n < sizeof sealed; n++) {
        uint8_t *cut = xmemdup(sealed, n);
        assert_int_equal(gossip_open_sealed(keys, 2, cut, n, plain), 0);
        free(cut);
    }
}

/* ---- judgement ---- */
/* The silent one is suspected after its probe's period and dead mult * 1 * probe_ms later, scaled by our own
 * health at that moment; all in a bound, and not too early. */
static void suspicion_to_dead(void **state)
{
    int64_t suspect = 0, dead = 0;
    (void)state;
    members(5);
    pass(3000, "");
    for (int i = 0; i < 5; i++) {
        char id[4];
        snprintf(id, sizeof id, "m%d", i);
        assert_int_equal(state_of(id), GOSSIP_ALIVE);
    }
    assert_int_equal(n_said, 0);
    assert_int_equal(g.health, 0);
    for (int64_t start_ms = now; !dead && now - start_ms < 20000;) {
        pass(10, "m1");
        if (!suspect && state_of("m1") == GOSSIP_SUSPECT)
            suspect = now - start_ms;
        if (state_of("m1") == GOSSIP_DEAD)
            dead = now - start_ms;
    }
    assert_true(suspect > 0 && suspect <= (2 * 5 + 1) * PROBE_MS); /* round robin: within two rounds */
    assert_true(dead - suspect >= 4 * PROBE_MS);                   /* never before its time */
    assert_true(dead - suspect <= 4 * PROBE_MS * 3 / 2 + 10);      /* one failed probe: health 1 */
    assert_int_equal(n_said, 2);
    assert_string_equal(said[0].id, "m1");
    assert_int_equal(said[0].state, GOSSIP_SUSPECT);
    assert_int_equal(said[1].state, GOSSIP_DEAD);
}

/* Without a direct answer others are asked, and their answer (in the member's name) clears it. */
static void indirect_probe(void **state)
{
    unsigned asked = 0;
    (void)state;
    members(5);
    for (int i = 0; i < 300; i++) { /* m1 answers only through others */
        n_sent = 0;
        gossip_core_tick(&g, now);
        for (unsigned k = 0, n = n_sent; k < n; k++) {
            bool m1 = str_equal(sent[k].addr, "m1");
            if (sent[k].k.kind == KIND_PING && !m1)
                hear(sent[k].addr, KIND_ACK, sent[k].k.seq, NULL, 0, 0);
            else if (sent[k].k.kind == KIND_PING_REQUEST && str_equal(sent[k].k.target, "m1")) {
                assert_false(m1);
                asked++;
                hear("m1", KIND_ACK, sent[k].k.seq, NULL, 0, 0); /* as the helper passes it on */
            }
        }
        now += 10;
    }
    assert_true(asked >= 3);
    assert_int_equal(state_of("m1"), GOSSIP_ALIVE);
    assert_int_equal(n_said, 0);
}

static void relays_for_others(void **state)
{
    (void)state;
    members(3);
    hear("m0", KIND_PING_REQUEST, 77, NULL, 0, 0); /* about m1 */
    assert_int_equal(n_sent, 1);
    assert_string_equal(sent[0].addr, "m1");
    assert_int_equal(sent[0].k.kind, KIND_PING);
    hear("m1", KIND_ACK, sent[0].k.seq, NULL, 0, 0);
    assert_int_equal(n_sent, 2);
    assert_string_equal(sent[1].addr, "m0");
    assert_int_equal(sent[1].k.kind, KIND_ACK);
    assert_int_equal(sent[1].k.seq, 77);
    assert_string_equal(sent[1].k.from, "m1");
    hear("m1", KIND_ACK, sent[0].k.seq, NULL, 0, 0); /* once only */
    assert_int_equal(n_sent, 2);
}

/* Called suspect or dead, a node outbids the rumour and says so in its next packet. */
static void refutation(void **state)
{
    struct gossip_rumour r;
    (void)state;
    members(3);
    pass(3000, "");
    n_sent = 0;
    hear("m0", KIND_PING, 5, "me", GOSSIP_SUSPECT, 10);
    assert_true(g.incarnation == 11);
    assert_true(rumour_about("me", &r)); /* on the answer itself */
    assert_int_equal(r.state, GOSSIP_ALIVE);
    assert_true(r.incarnation == 11);
    hear("m0", KIND_RUMOURS, 0, "me", GOSSIP_DEAD, 500); /* of a former life */
    assert_true(g.incarnation == 501);
    hear("m0", KIND_RUMOURS, 0, "me", GOSSIP_SUSPECT, 12); /* old: no bid needed */
    assert_true(g.incarnation == 501);
    hear("m0", KIND_RUMOURS, 0, "me", GOSSIP_ALIVE, 501);
    assert_true(g.incarnation == 501);
}

/* What outranks what (SWIM, section 4.2). */
static void order_of_rumours(void **state)
{
    (void)state;
    members(3);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_ALIVE, 5);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_SUSPECT, 4); /* old */
    assert_int_equal(state_of("m1"), GOSSIP_ALIVE);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_SUSPECT, 5);
    assert_int_equal(state_of("m1"), GOSSIP_SUSPECT);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_ALIVE, 5); /* not enough to refute */
    assert_int_equal(state_of("m1"), GOSSIP_SUSPECT);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_ALIVE, 6);
    assert_int_equal(state_of("m1"), GOSSIP_ALIVE);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_DEAD, 6);
    assert_int_equal(state_of("m1"), GOSSIP_DEAD);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_SUSPECT, 6); /* dead is stronger */
    assert_int_equal(state_of("m1"), GOSSIP_DEAD);
    hear("m1", KIND_RUMOURS, 0, "m1", GOSSIP_ALIVE, 7); /* it came back */
    assert_int_equal(state_of("m1"), GOSSIP_ALIVE);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_LEFT, 8);
    assert_int_equal(state_of("m1"), GOSSIP_LEFT);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_DEAD, 9); /* it said goodbye: left it stays */
    assert_int_equal(state_of("m1"), GOSSIP_LEFT);
    hear("m1", KIND_RUMOURS, 0, "m1", GOSSIP_ALIVE, 10);
    assert_int_equal(state_of("m1"), GOSSIP_ALIVE);
}

static void unknown_ids_count_for_nothing(void **state)
{
    (void)state;
    members(2);
    hear("stranger", KIND_PING, 5, "m0", GOSSIP_DEAD, 100);
    assert_int_equal(n_sent, 0);
    assert_int_equal(state_of("m0"), GOSSIP_ALIVE);
    hear("me", KIND_PING, 5, "m0", GOSSIP_DEAD, 100); /* our own name from outside */
    assert_int_equal(n_sent, 0);
    assert_int_equal(state_of("m0"), GOSSIP_ALIVE);
    hear("m0", KIND_RUMOURS, 0, "stranger", GOSSIP_DEAD, 100);
    assert_null(map_find(&g.peers, "stranger"));
    gossip_core_forget(&g, "m0");
    hear("m0", KIND_PING, 5, "m1", GOSSIP_DEAD, 100);
    assert_int_equal(n_sent, 0);
    assert_int_equal(state_of("m1"), GOSSIP_ALIVE);
    assert_int_equal(n_said, 0);
}

static void leaving(void **state)
{
    struct gossip_rumour r;
    (void)state;
    members(4);
    pass(1000, "");
    n_sent = 0;
    gossip_core_leave(&g);
    assert_int_equal(n_sent, 4); /* fewer members than goodbyes of a round: all are told */
    for (unsigned i = 0; i < n_sent; i++) {
        assert_int_equal(sent[i].k.kind, KIND_RUMOURS);
        assert_string_equal(sent[i].k.rumours[0].id, "me");
        assert_int_equal(sent[i].k.rumours[0].state, GOSSIP_LEFT);
    }
    assert_true(rumour_about("me", &r) && r.incarnation == 11); /* outranks the alive of before */
    n_sent = 0;
    hear("m0", KIND_PING, 5, "me", GOSSIP_SUSPECT, 11);
    gossip_core_tick(&g, now += 5000);
    assert_int_equal(n_sent, 0); /* gone: it neither answers, nor refutes, nor probes */
    assert_true(g.incarnation == 11);
}

/* A dead member is still called now and then, told what is thought of it, and alive again once it refutes. */
static void dead_members_are_called(void **state)
{
    struct gossip_rumour r;
    bool called = false;
    (void)state;
    members(4);
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_DEAD, 3);
    for (int64_t end = now + 3000; now < end && !called;) {
        pass(10, "m1");
        for (unsigned i = 0; i < n_sent; i++)
            if (str_equal(sent[i].addr, "m1") && sent[i].k.kind == KIND_PING) {
                called = true;
                assert_string_equal(sent[i].k.rumours[0].id, "m1");
                assert_int_equal(sent[i].k.rumours[0].state, GOSSIP_DEAD);
            }
    }
    assert_true(called);
    hear("m1", KIND_ACK, 0, "m1", GOSSIP_ALIVE, 4);
    assert_int_equal(state_of("m1"), GOSSIP_ALIVE);
    n_sent = 0;
    hear("m2", KIND_PING, 9, NULL, 0, 0);
    assert_true(rumour_about("m1", &r)); /* and the others hear of it */
    assert_int_equal(r.state, GOSSIP_ALIVE);
    assert_true(r.incarnation == 4);
}

/* A change rides lambda * log10(n) packets and no more. */
static void rumours_fade(void **state)
{
    unsigned n = 0;
    (void)state;
    members(9);
    pass(4000, "");
    hear("m0", KIND_RUMOURS, 0, "m1", GOSSIP_LEFT, 3);
    for (int i = 0; i < 200; i++) {
        struct gossip_rumour r;
        n_sent = 0;
        hear("m2", KIND_PING, 9, NULL, 0, 0);
        assert_int_equal(n_sent, 1);
        n += rumour_about("m1", &r);
    }
    assert_in_range(n, 4, 12);
}

/* Nobody answers a sick node: it slows down instead of calling all dead at full speed; answers heal it. */
static void own_health(void **state)
{
    (void)state;
    members(12);
    for (int64_t end = now + 4000; now < end; now += 10) {
        n_sent = 0;
        gossip_core_tick(&g, now);
    }
    assert_true(g.health >= 3 && g.health <= GOSSIP_HEALTH_MAX);
    assert_true(g.period_ms > PROBE_MS);
    unsigned sick = g.health;
    pass(20000, "");
    assert_true(g.health < sick);
    assert_int_equal(g.health, 0);
}

static void members_are_idempotent(void **state)
{
    char longest[GOSSIP_ID_MAX + 2];
    (void)state;
    members(2);
    members(2);
    gossip_core_member(&g, "me", "self", 7);
    gossip_core_member(&g, "", "x", 7);
    memset(longest, 'l', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    gossip_core_member(&g, longest, "x", 7);
    assert_int_equal(g.peers.n, 2);
    gossip_core_member(&g, "m0", "moved", 7);
    assert_string_equal(((struct gossip_peer *)map_find(&g.peers, "m0"))->addr, "moved");
    gossip_core_forget(&g, "m0");
    gossip_core_forget(&g, "m0");
    gossip_core_forget(&g, "never");
    assert_int_equal(g.peers.n, 1);
    pass(2000, "");
}

int main(void)
{
    crypto_init();
#define WITH_CORE(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(full_packet_is_bounded), cmocka_unit_test(truncated),
        cmocka_unit_test(malformed), WITH_CORE(random_bytes), cmocka_unit_test(sealing),
        WITH_CORE(suspicion_to_dead), WITH_CORE(indirect_probe), WITH_CORE(relays_for_others),
        WITH_CORE(refutation), WITH_CORE(order_of_rumours), WITH_CORE(unknown_ids_count_for_nothing),
        WITH_CORE(leaving), WITH_CORE(dead_members_are_called), WITH_CORE(rumours_fade), WITH_CORE(own_health),
        WITH_CORE(members_are_idempotent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
