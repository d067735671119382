/* Gossip's pure parts: facts and hostile packets, sealing, and the core's judgement in virtual time (observers, votes,
 * refutation, leaving, removal). The whole is in tests/sim/sim_gossip.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core.h"
#include <shoal/base/crypto.h>
#include <stdio.h>

enum { N = 10, SENT_MAX = 8192 };

/* Ten nodes with real keys; node 0 is under test, what it sends is kept, the others only sign. */
static struct gossip_table *table;
static struct person { struct gossip_core g; uint8_t public[32], secret[64]; } nodes[N];
static struct gossip_core *g = &nodes[0].g;
static struct { uint32_t to; char addr[GOSSIP_ADDR_MAX]; struct out_packet o; } sent[SENT_MAX];
static unsigned n_sent, n_said, n_moved, n_nodes;
static struct { uint32_t who; enum gossip_state state; } said[64];
static int64_t now;
static uint32_t refused; /* the last of whom this was told */

static void on_send(void *arg, uint32_t to, const char *addr, uint16_t port, const void *p, size_t size)
{
    assert_true(port == 7 || port == 8);
    assert_true(size <= PLAIN_MAX_BYTES);
    if (arg != &nodes[0])
        return;
    assert_true(n_sent < SENT_MAX);
    sent[n_sent].to = to;
    snprintf(sent[n_sent].addr, sizeof sent[n_sent].addr, "%s", addr);
    memcpy(sent[n_sent].o.v, p, size);
    sent[n_sent++].o.n = size;
}

static void on_state(void *arg, uint32_t who, enum gossip_state state)
{
    if (arg != &nodes[0])
        return;
    assert_true(n_said < ARRAY_N(said));
    said[n_said].who = who;
    said[n_said++].state = state;
}

static void on_address(void *arg, uint32_t who, const char *addr, uint16_t port)
{
    (void)who, (void)addr, (void)port;
    n_moved += arg == &nodes[0];
}

static void on_refused(void *arg, uint32_t who)
{
    if (arg == &nodes[0])
        refused = who;
}

static void on_sign(void *arg, uint8_t signature[64], const void *p, size_t size)
{
    crypto_sign(signature, p, size, ((struct person *)arg)->secret);
}

static bool on_verify(void *arg, const struct gossip_identity *by, const uint8_t signature[64], const void *p, size_t size)
{
    (void)arg;
    return crypto_sign_verify(signature, p, size, by->key);
}

static void start_n(unsigned n)
{
    table = gossip_table_new();
    now = 1000000;
    n_nodes = n;
    n_sent = n_said = n_moved = 0;
    for (unsigned i = 0; i < n; i++) {
        char id[8];
        snprintf(id, sizeof id, "m%u", i);
        const struct gossip_config cfg = { .node_id = id, .addr = id, .port = 7, .incarnation = 10 };
        const struct gossip_core_out out = { &nodes[i], on_send, on_state, on_address, on_refused, on_sign, on_verify };
        crypto_sign_keypair(nodes[i].public, nodes[i].secret);
        gossip_core_init(&nodes[i].g, &cfg, &out, table, nodes[i].public, 42 + i, now);
    }
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < n; k++) {
            char id[8];
            snprintf(id, sizeof id, "m%u", k);
            gossip_core_member(&nodes[i].g, id, id, 7, nodes[k].public);
        }
    gossip_core_tick(g, now);
}

static int start(void **state)
{
    (void)state;
    start_n(N);
    return 0;
}

static int start_three(void **state)
{
    (void)state;
    start_n(3);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_nodes; i++)
        gossip_core_done(&nodes[i].g);
    gossip_table_unref(table);
    return 0;
}

static void receive(uint32_t from, const struct out_packet *o)
{
    gossip_core_receive(g, now, from, "elsewhere", 8, o->v, o->n);
}

/* FROM tells the node under test what BY signed. */
static void tell(uint32_t from, uint32_t by, enum fact_kind kind, uint32_t about, uint64_t incarnation)
{
    struct out_packet o;
    struct gossip_fact *f = gossip_fact_make(&nodes[by].g, kind, about, incarnation);
    packet_begin(g, &o, KIND_FACTS, 0);
    assert_true(packet_fact(g, &o, f));
    gossip_fact_unref(table, f);
    receive(from, &o);
}

/* Ticks for ms; everybody but SILENT answers each ping at once. */
static void pass(int64_t ms, uint32_t silent)
{
    for (int64_t end = now + ms; now < end; now += 10) {
        n_sent = 0;
        gossip_core_tick(g, now);
        for (unsigned i = 0, n = n_sent; i < n; i++) {
            struct gossip_packet k;
            struct out_packet o;
            assert_true(gossip_packet_read(&k, sent[i].o.v, sent[i].o.n));
            packet_begin(g, &o, KIND_ACK, k.seq);
            if (k.kind == KIND_PING && sent[i].to != silent)
                receive(sent[i].to, &o);
        }
    }
}

/* ---- facts and packets ---- */
static void facts_round_trip(void **state)
{
    (void)state;
    for (enum fact_kind kind = FACT_ALIVE; kind <= FACT_ALERT; kind++) {
        uint8_t bytes[FACT_MAX_BYTES];
        struct gossip_fact *f = gossip_fact_make(&nodes[1].g, kind, kind == FACT_ALERT ? 2 : 1, 77), got;
        size_t size = gossip_fact_write(table, f, bytes);
        for (size_t n = 0; n <= size; n++) {
            uint8_t *cut = xmemdup(bytes, n); /* its own block: the sanitizer sees a byte too far */
            const uint8_t *p = cut;
            assert_int_equal(gossip_fact_read(table, &p, cut + n, &got), n == size);
            if (n == size)
                assert_ptr_equal(p, cut + n);
            free(cut);
        }
        assert_int_equal(got.kind, kind);
        assert_int_equal(got.subject, f->subject);
        assert_int_equal(got.signer, 1);
        assert_true(got.incarnation == 77 && got.hash == f->hash);
        assert_string_equal(got.addr, kind == FACT_ALERT ? "" : "m1");
        assert_memory_equal(got.signature, f->signature, 64);
        for (size_t i = 0; i < size; i++) { /* whatever byte is touched, it is not the same fact any more */
            struct gossip_fact *k;
            const uint8_t *p = bytes;
            bytes[i] ^= 1;
            if (gossip_fact_read(table, &p, bytes + size, &got) && got.subject != NO_SLOT && got.signer != NO_SLOT)
                assert_null(k = gossip_fact_keep(g, &got));
            bytes[i] ^= 1;
        }
        gossip_fact_unref(table, f);
    }
}

static void malformed_facts(void **state)
{
    uint8_t bytes[FACT_MAX_BYTES];
    struct gossip_fact *f = gossip_fact_make(&nodes[1].g, FACT_ALIVE, 1, 77), got;
    static const struct { size_t at; uint8_t value; } breaks[] = { { 0, 0 }, { 0, 4 }, { 19, 64 }, { 19, 255 }, { 20, 0 } };
    size_t size = gossip_fact_write(table, f, bytes);
    (void)state;
    gossip_fact_unref(table, f);
    for (unsigned i = 0; i < ARRAY_N(breaks); i++) {
        uint8_t was = bytes[breaks[i].at];
        const uint8_t *p = bytes;
        bytes[breaks[i].at] = breaks[i].value;
        assert_false(gossip_fact_read(table, &p, bytes + size, &got));
        bytes[breaks[i].at] = was;
    }
    const uint8_t *p = bytes;
    bytes[1] ^= 1; /* nobody we know */
    assert_true(gossip_fact_read(table, &p, bytes + size, &got));
    assert_int_equal(got.subject, NO_SLOT);
}

/* Random bytes and random damage of every kind of packet: nothing breaks, no member is made, nobody believed. */
static void random_bytes(void **state)
{
    struct rng r;
    (void)state;
    rng_init(&r, 7);
    for (int i = 0; i < 50000; i++) {
        struct out_packet o;
        packet_begin(g, &o, KIND_PING + (enum gossip_kind)rng_below(&r, 6), (uint32_t)rng_u64(&r));
        size_t n = rng_below(&r, 1200);
        rng_bytes(&r, o.v + o.n, n);
        if (i % 3 == 0) {
            struct gossip_fact *f = gossip_fact_make(&nodes[1].g, FACT_ALERT, 2, 0);
            packet_fact(g, &o, f);
            o.v[HEAD_BYTES + rng_below(&r, o.n - HEAD_BYTES)] ^= (uint8_t)rng_range(&r, 1, 255);
            gossip_fact_unref(table, f);
        } else {
            o.n += n;
        }
        uint8_t *p = xmemdup(o.v, o.n);
        n_sent = 0;
        gossip_core_receive(g, now += i % 7 == 0, 1 + (uint32_t)rng_below(&r, N - 1), "x", 8, p, o.n);
        free(p);
    }
    assert_int_equal(g->n_members, N);
    assert_int_equal(n_said, 0);
    assert_int_equal(g->n_cases, 0);
}

static void sealing(void **state)
{
    const struct gossip_key_ref key = { .id = 1, .key = { 1 } }, other = { .id = 1, .key = { 2 } };
    uint8_t nonce[24] = { 9 }, sealed[5 + SEAL_OVERHEAD], plain[64], pair[32], wrong[32], shared[32] = { 5 }, stranger[32] = { 6 };
    struct gossip_seal_head head;
    (void)state;
    gossip_pair_key(pair, &key, shared);
    assert_int_equal(gossip_seal(pair, 1, 100, 200, nonce, "hello", 5, sealed), sizeof sealed);
    assert_true(gossip_seal_read(&head, sealed, sizeof sealed));
    assert_true(head.key_id == 1 && head.sender == 100);
    assert_int_equal(gossip_unseal(pair, 200, sealed, sizeof sealed, plain), 5);
    assert_memory_equal(plain, "hello", 5);
    assert_int_equal(gossip_unseal(pair, 100, sealed, sizeof sealed, plain), 0); /* sent back to its sender */
    gossip_pair_key(wrong, &other, shared);
    assert_int_equal(gossip_unseal(wrong, 200, sealed, sizeof sealed, plain), 0); /* without the cluster's key */
    gossip_pair_key(wrong, &key, stranger);
    assert_int_equal(gossip_unseal(wrong, 200, sealed, sizeof sealed, plain), 0); /* another member */
    for (size_t i = 0; i < sizeof sealed; i++) { /* the head is sealed as well */
        sealed[i] ^= 1;
        assert_int_equal(gossip_unseal(pair, 200, sealed, sizeof sealed, plain), 0);
        sealed[i] ^= 1;
    }
    for (size_t n = 0; n < sizeof sealed; n++) {
        uint8_t *cut = xmemdup(sealed, n);
        assert_int_equal(gossip_unseal(pair, 200, cut, n, plain), 0);
        free(cut);
    }
}

/* ---- rings ---- */
static bool all(const void *arg, uint32_t slot)
{
    (void)arg, (void)slot;
    return true;
}

static void rings(void **state)
{
    struct gossip_table *t = gossip_table_new(), *u = gossip_table_new();
    (void)state;
    for (unsigned i = 0; i < 500; i++) { /* the same members in another order */
        char a[8], b[8];
        snprintf(a, sizeof a, "n%u", i);
        snprintf(b, sizeof b, "n%u", 499 - i);
        gossip_table_put(t, a, "", 1, NULL);
        gossip_table_put(u, b, "", 1, NULL);
    }
    struct gossip_ring *r = gossip_ring_get(t, 1, all, NULL), *s = gossip_ring_get(u, 1, all, NULL);
    unsigned subjects[500] = { 0 };
    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(r->n[i], GOSSIP_OBSERVERS);
        for (unsigned k = 0; k < GOSSIP_OBSERVERS; k++) {
            assert_int_not_equal(r->observers[i][k], i);
            assert_int_equal(s->observers[499 - i][k], 499 - r->observers[i][k]);
            subjects[r->observers[i][k]]++;
            for (unsigned m = 0; m < k; m++)
                assert_int_not_equal(r->observers[i][k], r->observers[i][m]);
        }
    }
    for (unsigned i = 0; i < 500; i++)
        assert_true(subjects[i] >= GOSSIP_OBSERVERS - 3 && subjects[i] <= GOSSIP_OBSERVERS + 4);
    gossip_ring_unref(t, r);
    gossip_ring_unref(u, s);
    gossip_table_unref(t);
    gossip_table_unref(u);
}

/* ---- judgement ---- */
/* The silent one is accused by this node after one series, and suspect only when enough others say the same. */
static void six_of_eight(void **state)
{
    uint32_t who = g->probes[0].slot;
    unsigned votes = 1;
    (void)state;
    for (uint32_t i = 1; i < N; i++)
        tell(i, i, FACT_ALIVE, i, 10);
    pass(3000, NO_SLOT);
    assert_int_equal(g->n_cases, 0);
    pass(1400, who);
    assert_true(has_alerted(g, who, 0));
    assert_int_equal(g->n_cases, 1);
    assert_int_equal(gossip_core_state(g, who), GOSSIP_ALIVE);
    for (unsigned i = 0; i < g->ring->n[who]; i++) {
        uint32_t o = g->ring->observers[who][i];
        if (o == 0)
            continue;
        tell(o, o, FACT_ALERT, who, 10);
        tell(o, o, FACT_ALERT, who, 10); /* said twice is said once */
        votes++;
        assert_int_equal(gossip_core_state(g, who), votes >= 6 ? GOSSIP_SUSPECT : GOSSIP_ALIVE);
    }
    assert_int_equal(votes, 8);
    assert_int_equal(n_said, 1);
    tell(2, who, FACT_ALIVE, who, 10); /* nothing new */
    assert_int_equal(gossip_core_state(g, who), GOSSIP_SUSPECT);
    tell(2, who, FACT_ALIVE, who, 11); /* it refutes, through another */
    assert_int_equal(gossip_core_state(g, who), GOSSIP_ALIVE);
    assert_int_equal(g->n_cases, 0);
    tell(1, 1 == who ? 2 : 1, FACT_ALERT, who, 10); /* old */
    assert_int_equal(g->n_cases, 0);
}

static void nobody_speaks_for_others(void **state)
{
    struct out_packet o;
    (void)state;
    for (uint32_t i = 2; i < N; i++) { /* node 2 in the name of all */
        struct gossip_fact *f = gossip_fact_make(&nodes[2].g, FACT_ALERT, 1, 0), forged = *f;
        gossip_fact_unref(table, f);
        forged.signer = i == 2 ? 3 : i;
        packet_begin(g, &o, KIND_FACTS, 0);
        packet_fact(g, &o, &forged);
        receive(2, &o);
    }
    assert_int_equal(g->n_cases, 0);
    assert_int_equal(g->stats.n_forged, N - 2);
    tell(2, 1, FACT_ALIVE, 1, 12);
    tell(2, 1, FACT_LEFT, 1, 12);
    assert_int_equal(gossip_core_state(g, 1), GOSSIP_LEFT);
    tell(3, 4, FACT_ALERT, 1, 12); /* it has left: no news */
    assert_int_equal(g->n_cases, 0);
    tell(3, 1, FACT_ALIVE, 1, 13); /* it came back */
    assert_int_equal(gossip_core_state(g, 1), GOSSIP_ALIVE);
    tell(3, 1, FACT_ALIVE, 1, 9);
    assert_true(incarnation_of(g, 1) == 13);
}

static void refutation(void **state)
{
    (void)state;
    assert_true(g->incarnation == 10);
    tell(3, 4, FACT_ALERT, 0, 9); /* of a former life */
    assert_true(g->incarnation == 10);
    n_sent = 0;
    tell(3, 4, FACT_ALERT, 0, 10);
    assert_true(g->incarnation == 11);
    assert_true(n_sent >= GOSSIP_OBSERVERS); /* told to all its observers at once */
    tell(3, 5, FACT_ALERT, 0, 11);           /* again: not as often as somebody likes */
    assert_true(g->incarnation == 11);
    now += 600;
    tell(3, 6, FACT_ALERT, 0, 11);
    assert_true(g->incarnation == 12);
    tell(3, 0, FACT_ALIVE, 0, 500); /* its own word of a life with a later clock */
    assert_true(g->incarnation == 501);
}

/* Only a ping that waits for its answer proves, when it comes back, that the machine lives now. */
static void refusal(void **state)
{
    (void)state;
    refused = NO_SLOT;
    n_sent = 0;
    gossip_core_ask(g, 2);
    assert_int_equal(n_sent, 0); /* it is not suspect */
    tell(2, 2, FACT_ALIVE, 2, 10);
    for (uint32_t by = 3; by < N; by++)
        tell(by, by, FACT_ALERT, 2, 10);
    assert_int_equal(gossip_core_state(g, 2), GOSSIP_SUSPECT);
    n_sent = 0;
    gossip_core_ask(g, 2);
    assert_int_equal(n_sent, 1);
    assert_int_equal(sent[0].to, 2);
    const struct out_packet first = sent[0].o;
    gossip_core_refused(g, 3, first.v, first.n);
    gossip_core_refused(g, 2, first.v, first.n - PING_BYTES);
    gossip_core_refused(g, NO_SLOT, first.v, first.n);
    assert_int_equal(refused, NO_SLOT);
    gossip_core_refused(g, 2, first.v, first.n);
    assert_int_equal(refused, 2);
    refused = NO_SLOT;
    gossip_core_refused(g, 2, first.v, first.n); /* once */
    gossip_core_ask(g, 2);
    gossip_core_refused(g, 2, first.v, first.n); /* not the one that is out now */
    assert_int_equal(refused, NO_SLOT);
    gossip_core_refused(g, 2, sent[1].o.v, sent[1].o.n);
    assert_int_equal(refused, 2);
}

static void removal_is_for_good(void **state)
{
    struct out_packet o;
    (void)state;
    tell(2, 1, FACT_ALIVE, 1, 12);
    gossip_core_forget(g, "m1");
    assert_int_equal(gossip_core_state(g, 1), GOSSIP_DEAD);
    tell(2, 1, FACT_ALIVE, 1, 13);
    gossip_core_member(g, "m1", "m1", 7, nodes[1].public); /* an older table */
    assert_int_equal(gossip_core_state(g, 1), GOSSIP_DEAD);
    assert_int_equal(g->n_members, N - 1);
    n_sent = 0;
    packet_begin(g, &o, KIND_PING, 5);
    memset(o.v + o.n, 0, 9);
    o.n += 9;
    receive(1, &o);
    assert_int_equal(n_sent, 0); /* no member, no answer */
    receive(2, &o);
    assert_int_equal(n_sent, 1);
    assert_string_equal(sent[0].addr, "elsewhere"); /* where the question came from */
}

static void address_follows(void **state)
{
    const char *addr;
    uint16_t port;
    (void)state;
    tell(1, 1, FACT_ALIVE, 1, 12);
    gossip_core_address(&nodes[1].g, "new");
    tell(2, 1, FACT_ALIVE, 1, 13);
    gossip_core_reach(g, 1, &addr, &port);
    assert_string_equal(addr, "new");
    assert_int_equal(n_moved, 1);
}

/* Three nodes: one alone says so when it hears nobody, of two both must. */
static void three_nodes(void **state)
{
    (void)state;
    tell(1, 1, FACT_ALIVE, 1, 10);
    tell(2, 2, FACT_ALIVE, 2, 10);
    pass(2000, NO_SLOT);
    pass(1000, 1);
    assert_true(has_alerted(g, 1, 0));
    assert_int_equal(gossip_core_state(g, 1), GOSSIP_ALIVE); /* node 2 does not say so */
    tell(2, 2, FACT_ALERT, 1, 10);
    assert_int_equal(gossip_core_state(g, 1), GOSSIP_SUSPECT);
    assert_int_equal(gossip_core_state(g, 2), GOSSIP_ALIVE);
}

static void goodbye(void **state)
{
    (void)state;
    n_sent = 0;
    gossip_core_leave(g);
    assert_true(n_sent >= GOSSIP_OBSERVERS);
    tell(3, 4, FACT_ALERT, 0, 11); /* it goes: nothing to refute */
    assert_true(g->incarnation == 11);
}

int main(void)
{
    crypto_init();
#define WITH(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        WITH(facts_round_trip), WITH(malformed_facts), WITH(random_bytes), cmocka_unit_test(sealing), cmocka_unit_test(rings),
        WITH(six_of_eight), WITH(nobody_speaks_for_others), WITH(refutation), WITH(refusal), WITH(removal_is_for_good), WITH(address_follows),
        cmocka_unit_test_setup_teardown(three_nodes, start_three, stop), WITH(goodbye),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
