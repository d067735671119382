/* Gossip packets. Oracles: a fact that is read is written to the same bytes; a core that knows some members takes any
 * packets, sends none beyond its bound, has never more news than members, and believes nobody dead or gone whose
 * signature it did not see; a sealed packet that was touched does not open. An input is a row of packets, each after two
 * bytes of its size and one for its sender. */
#include "fuzz.h"

#include "core.h"
#include <stdio.h>

enum { PEERS = 4 };

static void on_send(void *arg, uint32_t to, const char *addr, uint16_t port, const void *p, size_t size)
{
    struct gossip_packet k;
    ASSERT(to >= 1 && to <= PEERS && port && *addr && size <= PLAIN_MAX_BYTES && gossip_packet_read(&k, p, size));
}

static void on_state(void *arg, uint32_t who, enum gossip_state state)
{
    ASSERT(who >= 1 && who <= PEERS && state <= GOSSIP_LEFT);
}

static void on_address(void *arg, uint32_t who, const char *addr, uint16_t port)
{
    ASSERT(who >= 1 && strlen(addr) < GOSSIP_ADDR_MAX);
}

static void on_refused(void *arg, uint32_t who)
{
    ASSERT(who >= 1 && who <= PEERS);
}

/* True are those whose first byte says so: the fuzzer shall get beyond signatures. */
static void on_sign(void *arg, uint8_t signature[64], const void *p, size_t size)
{
    for (unsigned i = 0; i < 64; i++)
        signature[i] = (uint8_t)(((const uint8_t *)p)[i % size] * 31 + i);
    signature[0] = 'y';
}

static bool on_verify(void *arg, const struct gossip_identity *by, const uint8_t signature[64], const void *p, size_t size)
{
    return signature[0] == 'y';
}

static void open_core(struct gossip_core *g, uint64_t seed)
{
    const struct gossip_config cfg = { .node_id = "self", .addr = "here", .port = 1, .incarnation = 5 };
    const struct gossip_core_out out = { NULL, on_send, on_state, on_address, on_refused, on_sign, on_verify };
    const uint8_t key[32] = { 0 };
    struct gossip_table *t = gossip_table_new();
    gossip_core_init(g, &cfg, &out, t, key, seed, 1000);
    gossip_table_unref(t);
    for (char id[] = "n0"; id[1] < '0' + PEERS; id[1]++)
        gossip_core_member(g, id, "addr", 1, key);
}

static void fixed_point(const struct gossip_core *g, const uint8_t *p, size_t size)
{
    struct gossip_packet k;
    struct gossip_fact f;
    uint8_t out[FACT_MAX_BYTES];
    if (!gossip_packet_read(&k, p, size))
        return;
    for (const uint8_t *at = k.rest, *was = at, *end = at + k.rest_size; gossip_fact_read(g->t, &at, end, &f); was = at)
        if (f.subject != NO_SLOT && f.signer != NO_SLOT)
            ASSERT(gossip_fact_write(g->t, &f, out) == (size_t)(at - was) && memcmp(out, was, (size_t)(at - was)) == 0);
}

static void forged(const uint8_t *p, size_t size)
{
    const uint8_t key[32] = { 1 };
    AUTO_FREE uint8_t *out = xcalloc(size + 1, 1);
    ASSERT(gossip_unseal(key, 1, p, size, out) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    struct gossip_core g;
    int64_t now = 1000;
    open_core(&g, size);
    forged(p, size);
    for (size_t at = 0; size - at > 3;) {
        size_t n = MIN((size_t)get_be(p + at, 2), size - at - 3);
        uint32_t from = p[at + 2] % (PEERS + 2);
        AUTO_FREE uint8_t *packet = xmemdup(p + at + 3, n);
        at += n + 3;
        fixed_point(&g, packet, n);
        gossip_core_receive(&g, now, from, "back", 1, packet, n);
        gossip_core_ask(&g, from);
        gossip_core_refused(&g, from, packet, n);
        gossip_core_tick(&g, now += 50);
        ASSERT(g.queue_n <= g.n_members);
    }
    for (int i = 0; i < 20; i++)
        gossip_core_tick(&g, now += 100);
    gossip_core_done(&g);
    return 0;
}

const unsigned fuzz_rounds = 500;
const char *const fuzz_words[] = { "y", "\xff\xff\xff\xff\xff\xff\xff\xff", "\x04here", NULL };

static void sample_packet(struct gossip_core *g, struct rng *r, struct out_packet *o)
{
    enum gossip_kind kind = KIND_PING + (enum gossip_kind)rng_below(r, 6);
    packet_begin(g, o, kind, (uint32_t)rng_u64(r));
    if (kind == KIND_ACK || kind == KIND_FACTS) {
        for (uint64_t n = rng_below(r, 5); n > 0; n--) {
            struct gossip_fact *f = gossip_fact_make(g, FACT_ALIVE + (enum fact_kind)rng_below(r, 3),
                                                     (uint32_t)rng_below(r, PEERS + 1), rng_chance(r, 100) ? UINT64_MAX >> rng_below(r, 4) : rng_below(r, 12));
            struct gossip_fact other = *f;
            gossip_fact_unref(g->t, f);
            other.signer = other.kind == FACT_ALERT ? (uint32_t)rng_below(r, PEERS + 1) : other.subject;
            rng_bytes(r, other.signature + 1, 8);
            packet_fact(g, o, &other);
        }
    } else {
        static const uint16_t sizes[] = { [KIND_PING] = 9, [KIND_SYNC] = 4 * GOSSIP_BUCKETS, [KIND_DIFF] = GOSSIP_BUCKETS / 8, [KIND_WANT] = 40 };
        rng_bytes(r, o->v + o->n, sizes[kind]);
        if (kind == KIND_WANT)
            put_be(o->v + o->n + 1, rng_below(r, 9), 2);
        o->n += sizes[kind];
    }
}

void fuzz_sample(struct rng *r, struct sb *b)
{
    struct gossip_core g;
    open_core(&g, 1);
    for (uint64_t n = rng_range(r, 1, 6); n > 0; n--) {
        struct out_packet o;
        uint8_t size[2], sealed[GOSSIP_PACKET_MAX_BYTES], open[GOSSIP_PACKET_MAX_BYTES], key[32], nonce[24];
        sample_packet(&g, r, &o);
        put_be(size, o.n, 2);
        sb_add(b, size, 2);
        sb_char(b, (char)rng_below(r, PEERS + 1));
        sb_add(b, o.v, o.n);
        rng_bytes(r, key, sizeof key);
        rng_bytes(r, nonce, sizeof nonce);
        size_t n_sealed = gossip_seal(key, 0, 1, 2, nonce, o.v, o.n, sealed);
        ASSERT(gossip_unseal(key, 2, sealed, n_sealed, open) == o.n && memcmp(open, o.v, o.n) == 0);
        size_t bit = rng_below(r, n_sealed * 8);
        sealed[bit / 8] = (uint8_t)(sealed[bit / 8] ^ 1 << bit % 8);
        ASSERT(gossip_unseal(key, 2, sealed, n_sealed, open) == 0);
        sealed[bit / 8] = (uint8_t)(sealed[bit / 8] ^ 1 << bit % 8);
        ASSERT(gossip_unseal(key, 2, sealed, rng_below(r, n_sealed), open) == 0);
    }
    gossip_core_done(&g);
}
