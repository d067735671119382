/* How facts travel. News are pushed: at once to a few random members, then in rounds; a member with news is in the queue
 * once, whatever happens to it meanwhile, so the queue never holds more than there are members, and a fact that others
 * turn out to know is passed on less. What pushing missed is found by digests: every few seconds with one random member,
 * sooner as long as it brings news; only what differs travels. Bytes are bounded by a bucket of tokens. */
#include "core.h"

enum {
    ROUND_MS = 100, ALONE_MS = 1000, EAGER_MS = 10, ROUND_PACKETS = 4, STORM = 64, /* members with news at once */
    SYNC_MS = 5000, SYNC_SOON_MS = 200, CONTACT_MS = 30000,
    WANT_PACKETS = 16, WANT_MEMBERS = 1500, /* about whom is asked at once: the answer could not hold more */ ANSWER_PACKETS = 64, BITMAP_BYTES = GOSSIP_BUCKETS / 8,
};

static bool pay(struct gossip_core *g, size_t bytes)
{
    int64_t rate = g->cfg.budget_bytes, gained = (g->now_ms - g->tokens_ms) * rate / 1000;
    if (gained > 0) {
        g->tokens = MIN(g->tokens + gained, (int64_t)g->cfg.budget_bytes / 3);
        g->tokens_ms = g->now_ms;
    }
    if (g->tokens < (int64_t)bytes && GOSSIP_BUG != 11)
        return false;
    g->tokens -= (int64_t)bytes;
    g->stats.bytes_spread += bytes;
    return true;
}

static bool send_paid(struct gossip_core *g, const struct out_packet *o, uint32_t to)
{
    if (!pay(g, o->n + SEAL_OVERHEAD))
        return false;
    packet_send(g, o, to);
    return true;
}

/* ---- the queue ---- */
static void push(struct gossip_core *g, uint32_t slot)
{
    if (g->queue_n == g->queue_cap) {
        uint32_t cap = MAX(16u, g->queue_cap * 2), *q = xcalloc(cap, sizeof *q);
        for (uint32_t i = 0; i < g->queue_n; i++)
            q[i] = g->queue[(g->queue_at + i) % g->queue_cap];
        free(g->queue);
        g->queue = q;
        g->queue_at = 0;
        g->queue_cap = cap;
    }
    g->queue[(g->queue_at + g->queue_n++) % g->queue_cap] = slot;
    g->views[slot].queued = true;
}

static uint32_t pop(struct gossip_core *g)
{
    uint32_t slot = g->queue[g->queue_at];
    g->queue_at = (g->queue_at + 1) % g->queue_cap;
    g->queue_n--;
    g->views[slot].queued = false;
    return slot;
}

void spread_queue(struct gossip_core *g, uint32_t slot, bool now)
{
    if (!g->views[slot].queued || GOSSIP_BUG == 12)
        push(g, slot);
    if (g->queue_n > STORM) { /* once to a few is enough, the digests do the rest */
        struct alerts *a = alerts_of(g, slot);
        g->views[slot].rounds = MIN(g->views[slot].rounds, 1u);
        for (unsigned i = 0; a && i < a->n; i++)
            a->rounds[i] = MIN(a->rounds[i], 1u);
    }
    int64_t at = now ? MAX(g->now_ms, g->spread_last_ms + EAGER_MS) : g->now_ms + ROUND_MS;
    g->spread_ms = MIN(g->spread_ms, at);
}

/* The news of one member into o; 0: no room, 1: all is in and told for the last time, 2: there will be more rounds. */
static int put_news(struct gossip_core *g, struct out_packet *o, uint32_t slot)
{
    struct view *v = &g->views[slot];
    struct alerts *a = alerts_of(g, slot);
    bool more = false;
    if (v->rounds && v->statement) {
        if (!packet_fact(g, o, v->statement))
            return 0;
        more |= --v->rounds > 0;
    }
    for (unsigned i = 0; a && i < a->n; i++) {
        if (!a->rounds[i])
            continue;
        if (!packet_fact(g, o, a->v[i]))
            return 0;
        more |= --a->rounds[i] > 0;
    }
    return more ? 2 : 1;
}

static unsigned pick_targets(struct gossip_core *g, uint32_t *ret, unsigned n)
{
    unsigned found = 0;
    for (unsigned tries = 0; tries < n * 6 && found < n; tries++) {
        uint32_t s = (uint32_t)rng_below(&g->rng, g->n_views);
        const struct view *v = &g->views[s];
        bool ok = v->member && s != g->self && (v->state == GOSSIP_ALIVE || (v->state == GOSSIP_SUSPECT && is_small(g)));
        for (unsigned i = 0; i < found; i++)
            ok &= ret[i] != s;
        if (ok)
            ret[found++] = s;
    }
    return found;
}

static void spread_round(struct gossip_core *g)
{
    uint32_t to[GOSSIP_FANOUT];
    bool heard_by_nobody = false;
    for (unsigned packets = 0; packets < ROUND_PACKETS && g->queue_n; packets++) {
        struct out_packet o;
        unsigned n = pick_targets(g, to, g->queue_n > STORM ? GOSSIP_FANOUT / 2 : GOSSIP_FANOUT);
        heard_by_nobody = n == 0;
        packet_begin(g, &o, KIND_FACTS, 0);
        if (n && !pay(g, 0))
            break;
        if (g->tokens < MIN(PLAIN_MAX_BYTES * GOSSIP_FANOUT, (int64_t)g->cfg.budget_bytes / 4) && GOSSIP_BUG != 11)
            break; /* a whole round or none */
        bool full = false;
        for (uint32_t i = g->queue_n; i > 0 && n && !full; i--) {
            uint32_t slot = pop(g);
            int r = put_news(g, &o, slot);
            full = r == 0;
            if (r != 1)
                push(g, slot);
        }
        for (unsigned i = 0; i < n && o.n > HEAD_BYTES; i++)
            send_paid(g, &o, to[i]);
        if (!full)
            break;
    }
    g->spread_last_ms = g->now_ms;
    g->spread_ms = !g->queue_n ? INT64_MAX : g->now_ms + (heard_by_nobody ? ALONE_MS : ROUND_MS);
}

static void put_all(struct gossip_core *g, uint32_t to, uint32_t about, struct out_packet *o)
{
    const struct alerts *a = alerts_of(g, about);
    if (g->views[about].statement)
        packet_fact(g, o, g->views[about].statement);
    for (unsigned i = 0; a && i < a->n && to != about; i++)
        packet_fact(g, o, a->v[i]);
}

void spread_to(struct gossip_core *g, uint32_t to, uint32_t about)
{
    struct out_packet o;
    packet_begin(g, &o, KIND_FACTS, 0);
    put_all(g, to, about, &o);
    if (o.n > HEAD_BYTES)
        send_paid(g, &o, to);
}

void spread_goodbye(struct gossip_core *g)
{
    uint32_t to[GOSSIP_FANOUT];
    unsigned n = pick_targets(g, to, GOSSIP_FANOUT);
    for (unsigned i = 0; i < n; i++)
        spread_to(g, to[i], g->self);
    for (unsigned i = 0; g->ring && g->self < g->ring->n_slots && i < g->ring->n[g->self]; i++)
        spread_to(g, g->ring->observers[g->self][i], g->self);
}

/* ---- digests ---- */
static void sync_with(struct gossip_core *g, uint32_t to)
{
    struct out_packet o;
    g->sync_seq = (uint32_t)rng_u64(&g->rng) | 1;
    packet_begin(g, &o, KIND_SYNC, g->sync_seq);
    for (unsigned i = 0; i < GOSSIP_BUCKETS; i++, o.n += 4)
        put_be(o.v + o.n, g->buckets[i], 4);
    send_paid(g, &o, to);
}

void sync_got(struct gossip_core *g, uint32_t from, const uint8_t *p, size_t size)
{
    struct gossip_packet k;
    struct out_packet o;
    bool differ = false;
    if (!gossip_packet_read(&k, p, size) || k.rest_size != 4 * GOSSIP_BUCKETS || GOSSIP_BUG == 13)
        return;
    packet_begin(g, &o, KIND_DIFF, k.seq);
    memset(o.v + o.n, 0, BITMAP_BYTES);
    for (unsigned i = 0; i < GOSSIP_BUCKETS; i++)
        if ((uint32_t)get_be(k.rest + 4 * i, 4) != g->buckets[i]) {
            o.v[o.n + i / 8] |= (uint8_t)(1u << i % 8);
            differ = true;
        }
    o.n += BITMAP_BYTES;
    if (differ)
        send_paid(g, &o, from);
}

/* What is held in a bucket, as hashes: 3 bytes of head, then 4 bytes each. */
static size_t put_bucket(const struct gossip_core *g, unsigned bucket, uint8_t *out, size_t max)
{
    size_t n = 3;
    for (uint32_t i = 0; i < g->t->buckets[bucket].n; i++) {
        uint32_t slot = g->t->buckets[bucket].slots[i];
        const struct alerts *a = slot < g->n_views ? alerts_of(g, slot) : NULL;
        if (slot >= g->n_views || !g->views[slot].member)
            continue;
        if (g->views[slot].statement && n + 4 <= max)
            put_be(out + n, g->views[slot].statement->hash, 4), n += 4;
        for (unsigned k = 0; a && k < a->n && n + 4 <= max; k++, n += 4)
            put_be(out + n, a->v[k]->hash, 4);
    }
    out[0] = (uint8_t)bucket;
    put_be(out + 1, (n - 3) / 4, 2);
    return n;
}

void sync_got_diff(struct gossip_core *g, uint32_t from, const uint8_t *p, size_t size)
{
    struct gossip_packet k;
    struct out_packet o;
    uint8_t list[PLAIN_MAX_BYTES - HEAD_BYTES];
    unsigned first = (unsigned)rng_below(&g->rng, GOSSIP_BUCKETS), packets = 0, members = 0;
    if (!gossip_packet_read(&k, p, size) || k.rest_size != BITMAP_BYTES || k.seq != g->sync_seq)
        return;
    g->sync_seq = 0; /* one answer */
    packet_begin(g, &o, KIND_WANT, 0);
    for (unsigned i = 0; i < GOSSIP_BUCKETS && packets < WANT_PACKETS && members < WANT_MEMBERS; i++) {
        unsigned b = (first + i) % GOSSIP_BUCKETS;
        if (!(k.rest[b / 8] & 1u << b % 8))
            continue;
        size_t n = put_bucket(g, b, list, sizeof list);
        members += g->t->buckets[b].n;
        if (o.n + n > PLAIN_MAX_BYTES) {
            if (!send_paid(g, &o, from))
                return;
            packets++;
            packet_begin(g, &o, KIND_WANT, 0);
        }
        memcpy(o.v + o.n, list, n);
        o.n += n;
    }
    if (o.n > HEAD_BYTES)
        send_paid(g, &o, from);
}

struct answer { struct out_packet o; uint32_t to; unsigned packets; };

/* Half of what may be sent at once stays for news, whoever asks. */
static bool may_answer(struct gossip_core *g)
{
    return pay(g, 0) && g->tokens >= (int64_t)g->cfg.budget_bytes / 6;
}

static bool answer_fact(struct gossip_core *g, struct answer *w, const struct gossip_fact *f, const uint8_t *have, size_t n)
{
    for (size_t i = 0; f && i < n; i++)
        if ((uint32_t)get_be(have + 4 * i, 4) == f->hash)
            return true;
    if (!f || packet_fact(g, &w->o, f))
        return true;
    if (w->packets++ == ANSWER_PACKETS || !may_answer(g) || !send_paid(g, &w->o, w->to))
        return false;
    packet_begin(g, &w->o, KIND_FACTS, 0);
    return packet_fact(g, &w->o, f);
}

static bool answer_bucket(struct gossip_core *g, struct answer *w, unsigned bucket, const uint8_t *have, size_t n)
{
    for (uint32_t i = 0; i < g->t->buckets[bucket].n; i++) {
        uint32_t slot = g->t->buckets[bucket].slots[i];
        if (slot >= g->n_views || !g->views[slot].member)
            continue;
        const struct alerts *a = alerts_of(g, slot);
        if (!answer_fact(g, w, g->views[slot].statement, have, n))
            return false;
        for (unsigned k = 0; a && k < a->n; k++)
            if (!answer_fact(g, w, a->v[k], have, n))
                return false;
    }
    return true;
}

void sync_got_want(struct gossip_core *g, uint32_t from, const uint8_t *p, size_t size)
{
    struct gossip_packet k;
    struct answer w = { .to = from };
    if (!gossip_packet_read(&k, p, size))
        return;
    packet_begin(g, &w.o, KIND_FACTS, 0);
    for (const uint8_t *at = k.rest, *end = at + k.rest_size; end - at >= 3;) {
        size_t n = (size_t)get_be(at + 1, 2);
        if ((size_t)(end - at - 3) < 4 * n || !answer_bucket(g, &w, at[0], at + 3, n))
            break;
        at += 3 + 4 * n;
    }
    if (w.o.n > HEAD_BYTES)
        send_paid(g, &w.o, from);
}

/* ---- time ---- */
/* One that is suspected, or of which nothing was ever heard: so that the halves of a healed network find each other. */
static void contact(struct gossip_core *g)
{
    uint32_t s;
    g->contact_ms = g->now_ms + CONTACT_MS;
    if (GOSSIP_BUG == 3)
        return;
    if (g->n_cases && rng_chance(&g->rng, 700))
        s = g->cases[rng_below(&g->rng, g->n_cases)].slot;
    else
        s = (uint32_t)rng_below(&g->rng, g->n_views);
    if (g->views[s].member && s != g->self && (g->views[s].state == GOSSIP_SUSPECT || !g->views[s].statement))
        sync_with(g, s);
}

int64_t spread_tick(struct gossip_core *g)
{
    uint32_t to;
    if (g->now_ms >= g->spread_ms)
        spread_round(g);
    if (g->now_ms >= g->sync_ms) {
        int64_t *wait = &g->sync_wait_ms; /* one that lacks some, as when many join, gives up slowly: they may be dead */
        *wait = g->sync_gained ? SYNC_SOON_MS : g->n_unheard ? MIN(*wait * 2, (int64_t)SYNC_MS) : SYNC_MS;
        g->sync_ms = g->now_ms + *wait / 2 + (int64_t)rng_below(&g->rng, (uint64_t)*wait);
        g->sync_gained = false;
        if (pick_targets(g, &to, 1))
            sync_with(g, to);
    }
    if (g->now_ms >= g->contact_ms)
        contact(g);
    return MIN(MIN(g->spread_ms, g->sync_ms), g->contact_ms);
}
