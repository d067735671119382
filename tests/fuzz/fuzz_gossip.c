/* Gossip packets. Oracles: what is read is written and read again to the same packet; a core that knows some members
 * takes any packets, tells nothing beyond its bound, and never believes itself dead; a sealed packet that was touched
 * does not open. An input is a row of packets, each after one byte of its size. */
#include "fuzz.h"

#include "core.h"

enum { PEERS = 4 };

static int64_t now;

static void on_send(void *arg, const char *addr, uint16_t port, const void *p, size_t size)
{
    static struct gossip_packet k;
    ASSERT(size <= GOSSIP_PACKET_MAX_BYTES && gossip_packet_read(&k, p, size));
    for (unsigned i = 0; i < k.n_rumours; i++)
        ASSERT(!str_equal(k.rumours[i].id, "self") || k.rumours[i].state == GOSSIP_ALIVE);
}

static void on_state(void *arg, const char *id, enum gossip_state state)
{
    ASSERT(id[0] == 'n' && state <= GOSSIP_LEFT);
}

static void fixed_point(const uint8_t *p, size_t size)
{
    static struct gossip_packet a, b;
    uint8_t out[RUMOURS_MAX * (GOSSIP_ID_MAX + 10) + 128];
    unsigned n;
    if (!gossip_packet_read(&a, p, size))
        return;
    size_t len = gossip_packet_write(&a, out, sizeof out, &n);
    ASSERT(n == a.n_rumours && len == size && memcmp(out, p, size) == 0);
    ASSERT(gossip_packet_read(&b, out, len) && b.n_rumours == n && b.seq == a.seq && str_equal(a.from, b.from));
}

static void forged(const uint8_t *p, size_t size)
{
    struct gossip_key_ref key = { .key = { 1 } };
    AUTO_FREE uint8_t *out = xcalloc(size + 1, 1);
    ASSERT(gossip_open_sealed(&key, 1, p, size, out) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    struct gossip_config cfg = { .node_id = "self", .incarnation = 5 };
    struct gossip_core_out out = { NULL, on_send, on_state };
    struct gossip_core g;
    now = 1000;
    gossip_core_init(&g, &cfg, &out, size, now);
    for (char id[] = "n0"; id[1] < '0' + PEERS; id[1]++)
        gossip_core_member(&g, id, "addr", 1);
    forged(p, size);
    for (size_t at = 0; at < size;) {
        size_t n = MIN((size_t)p[at], size - at - 1);
        AUTO_FREE uint8_t *packet = xmemdup(p + at + 1, n);
        at += n + 1;
        fixed_point(packet, n);
        gossip_core_receive(&g, now, packet, n);
        gossip_core_tick(&g, now += 50);
    }
    for (int i = 0; i < 20; i++)
        gossip_core_tick(&g, now += 100);
    gossip_core_done(&g);
    return 0;
}

const unsigned fuzz_rounds = 500;
const char *const fuzz_words[] = { "\x02n1", "\x04self", "\xff\xff\xff\xff\xff\xff\xff\xff", "\x02\x00", "\x03", NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    static struct gossip_packet k;
    uint8_t p[512];
    for (uint64_t n = rng_range(g, 1, 6); n > 0; n--) {
        k = (struct gossip_packet){ .kind = KIND_PING + (enum gossip_kind)rng_below(g, 4), .seq = (uint32_t)rng_u64(g) };
        snprintf(k.from, sizeof k.from, "n%u", (unsigned)rng_below(g, PEERS + 1));
        snprintf(k.target, sizeof k.target, "n%u", (unsigned)rng_below(g, PEERS));
        for (k.n_rumours = 0; k.n_rumours < 5 && rng_chance(g, 700); k.n_rumours++) {
            struct gossip_rumour *r = &k.rumours[k.n_rumours];
            r->state = (enum gossip_state)rng_below(g, 4);
            r->incarnation = rng_chance(g, 100) ? UINT64_MAX - rng_below(g, 2) : rng_below(g, 12);
            snprintf(r->id, sizeof r->id, rng_chance(g, 300) ? "self" : "n%u", (unsigned)rng_below(g, PEERS));
        }
        size_t size = gossip_packet_write(&k, p, 255, NULL);
        sb_char(b, (char)size);
        sb_add(b, p, size);
        AUTO_FREE uint8_t *sealed = xcalloc(size + SEAL_OVERHEAD, 1), *open = xcalloc(size + SEAL_OVERHEAD, 1);
        struct gossip_key_ref key = { .id = 0 };
        uint8_t nonce[24];
        rng_bytes(g, key.key, sizeof key.key);
        rng_bytes(g, nonce, sizeof nonce);
        size_t n_sealed = gossip_seal(&key, nonce, p, size, sealed);
        ASSERT(gossip_open_sealed(&key, 1, sealed, n_sealed, open) == size && memcmp(open, p, size) == 0);
        size_t bit = rng_below(g, n_sealed * 8);
        sealed[bit / 8] = (uint8_t)(sealed[bit / 8] ^ 1 << bit % 8);
        ASSERT(gossip_open_sealed(&key, 1, sealed, n_sealed, open) == 0);
        sealed[bit / 8] = (uint8_t)(sealed[bit / 8] ^ 1 << bit % 8);
        ASSERT(gossip_open_sealed(&key, 1, sealed, rng_below(g, n_sealed), open) == 0);
    }
}
