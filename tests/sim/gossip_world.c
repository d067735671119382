#include "gossip_world.h"
#include <shoal/base/crypto.h>
#include <stdio.h>

#ifdef GOSSIP_PLANTED
int gossip_bug;
#endif

/* Events by the millisecond they are due, each list in order of making. */
enum { WHEEL = 1 << 17, DELAY_MIN_MS = 1, DELAY_SPAN_MS = 20, SMALL = 128 };
struct event { struct event *next; uint32_t to, from, generation, from_generation, size; bool refusal; uint64_t life; uint8_t p[]; };
static struct { struct event *first, *last; } wheel[WHEEL];
static struct event *spare;

struct world w;
int64_t world_down_ms = 2000;
uint64_t world_false_downs, world_false_suspects;

void world_stage(const char *what)
{
    w.stage = what;
    say("%s", what);
}

void world_where(void)
{
    printf(", while %s, %u nodes", w.stage ? w.stage : "starting", w.n);
}

/* Most events are pings, answers and ticks, all small: those are used again, which is twice as fast. */
static struct event *event_new(uint32_t to, size_t size)
{
    struct event *e = size <= SMALL ? spare : NULL;
    if (e)
        spare = e->next;
    else
        e = malloc(sizeof *e + MAX(size, (size_t)SMALL));
    ASSERT(e);
    *e = (struct event){ .to = to, .size = (uint32_t)size, .generation = w.v[to].generation, .life = w.v[to].life };
    return e;
}

static void event_free(struct event *e)
{
    if (e->size > SMALL) {
        free(e);
        return;
    }
    e->next = spare;
    spare = e;
}

static void put(struct event *e, int64_t at)
{
    unsigned i = (unsigned)(at % WHEEL);
    ASSERT(at >= w.now && at - w.now < WHEEL);
    if (wheel[i].last)
        wheel[i].last->next = e;
    else
        wheel[i].first = e;
    wheel[i].last = e;
}

static void want_tick(uint32_t i, int64_t at)
{
    at = MAX(at, w.now + 1);
    if (w.v[i].tick_at > w.now && w.v[i].tick_at <= at)
        return;
    w.v[i].tick_at = at;
    put(event_new(i, 0), at);
}

static void deliver(unsigned from, unsigned to, const void *p, size_t size, int64_t delay, uint32_t generation)
{
    struct event *e = event_new(to, size);
    e->from = from;
    e->from_generation = w.v[from].generation;
    e->generation = generation;
    memcpy(e->p, p, size);
    put(e, w.now + delay);
}

void world_send(unsigned from, unsigned to, const void *p, size_t size)
{
    uint32_t generation = w.v[to].generation;
    if (w.v[from].cut_out || w.v[to].cut_in || (w.parted && w.v[from].side != w.v[to].side) || (w.cut && w.cut(from, to)))
        return;
    if (!rng_chance(&w.rng, w.loss))
        deliver(from, to, p, size, DELAY_MIN_MS + (int64_t)rng_below(&w.rng, DELAY_SPAN_MS), generation);
    if (w.doubled && rng_chance(&w.rng, w.doubled))
        deliver(from, to, p, size, DELAY_MIN_MS + (int64_t)rng_below(&w.rng, 500), generation);
    if (w.old && rng_chance(&w.rng, w.old))
        deliver(from, to, p, size, (int64_t)rng_below(&w.rng, 60000), generation);
}

/* ---- what a core is given ---- */
static void on_send(void *arg, uint32_t to, const char *addr, uint16_t port, const void *p, size_t size)
{
    struct sim_node *from = arg;
    if (port != 1 || size > PLAIN_MAX_BYTES)
        fail("a packet of %zu bytes to port %u", size, port);
    from->sent += size + SEAL_OVERHEAD;
    if (str_equal(addr, w.v[to].addr)) /* else nobody is there any more */
        world_send((unsigned)(from - w.v), to, p, size);
}

static void on_state(void *arg, uint32_t who, enum gossip_state state)
{
    struct sim_node *by = arg;
    if (!by->suspect_since || who >= w.n)
        return;
    int64_t since = by->suspect_since[who];
    if (state == GOSSIP_SUSPECT) {
        by->suspect_since[who] = w.now;
        world_false_suspects += w.v[who].up;
    } else {
        world_false_downs += since && w.v[who].up && w.now - since >= world_down_ms;
        by->suspect_since[who] = 0;
    }
}

static void on_refused(void *arg, uint32_t who)
{
    struct sim_node *by = arg;
    if (by->refused_ms)
        by->refused_ms[who] = w.now;
}

static void on_address(void *arg, uint32_t who, const char *addr, uint16_t port)
{
    (void)arg, (void)who, (void)addr, (void)port;
}

/* Not a signature, but one that only its maker's key gives, for the simulation knows who asks. */
static void mark(uint8_t out[64], const uint8_t key[32], const void *p, size_t size)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ get_be(key, 8);
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * UINT64_C(0x100000001b3);
    for (unsigned i = 0; i < 8; i++) {
        h = (h ^ h >> 29) * UINT64_C(0xbf58476d1ce4e5b9) + i;
        put_be(out + 8 * i, h, 8);
    }
}

static void node_key(unsigned i, uint8_t key[32])
{
    memset(key, 0, 32);
    put_be(key, (i + 1) * UINT64_C(0x9e3779b97f4a7c15), 8);
}

static void on_sign(void *arg, uint8_t signature[64], const void *p, size_t size)
{
    uint8_t key[32];
    node_key((unsigned)((struct sim_node *)arg - w.v), key);
    mark(signature, key, p, size);
}

static bool on_verify(void *arg, const struct gossip_identity *by, const uint8_t signature[64], const void *p, size_t size)
{
    uint8_t want[64];
    (void)arg;
    mark(want, by->key, p, size);
    return memcmp(want, signature, 64) == 0;
}

/* ---- invariants ---- */
static void check(struct sim_node *x)
{
    const struct gossip_core *g = &x->g;
    uint32_t buckets[GOSSIP_BUCKETS] = { 0 }, unheard = 0;
    if (g->queue_n > g->n_members)
        fail("node %zu has %u entries in its queue for %u members", (size_t)(x - w.v), g->queue_n, g->n_members);
    for (uint32_t i = 0; i < g->n_views; i++) {
        const struct view *v = &g->views[i];
        const struct alerts *a = alerts_of(g, i);
        unsigned b = gossip_bucket(g->t->v[i].tag);
        unheard += v->member && !v->statement;
        if (!v->member && (v->statement || a))
            fail("node %zu holds facts of no member", (size_t)(x - w.v));
        if (v->statement)
            buckets[b] ^= v->statement->hash;
        if (v->member && incarnation_of(g, i) < x->incarnations[i])
            fail("the incarnation of %s goes back at %zu", g->t->v[i].id, (size_t)(x - w.v));
        x->incarnations[i] = v->member ? incarnation_of(g, i) : 0;
        for (unsigned k = 0; a && k < a->n; k++) {
            buckets[b] ^= a->v[k]->hash;
            if (a->v[k]->incarnation != incarnation_of(g, i))
                fail("an alert about a past incarnation counts");
            for (unsigned m = 0; m < k; m++)
                if (a->v[m]->signer == a->v[k]->signer)
                    fail("one node has two voices");
        }
        if (v->state == GOSSIP_SUSPECT && (!a || (g->n_members > 9 && a->n < 2)))
            fail("a verdict by %u voices among %u nodes", a ? a->n : 0, g->n_members);
    }
    if (unheard != g->n_unheard)
        fail("node %zu counts %u unheard members of %u", (size_t)(x - w.v), g->n_unheard, unheard);
    if (memcmp(buckets, g->buckets, sizeof buckets) != 0)
        fail("digests are not those of the facts held");
    if (g->stats.bytes_spread > (uint64_t)(w.now - x->born + 1000) * g->cfg.budget_bytes / 1000)
        fail("node %zu sent %llu bytes of news in %lld ms", (size_t)(x - w.v), (unsigned long long)g->stats.bytes_spread,
                   (long long)(w.now - x->born));
}

/* ---- running ---- */
/* The packet comes back to its sender. */
static void refuse(const struct event *e)
{
    for (int again = 0; again < 2; again++) {
        if (again ? !w.old || !rng_chance(&w.rng, w.old) : rng_chance(&w.rng, w.loss))
            continue;
        struct event *back = event_new(e->from, e->size);
        back->from = e->to;
        back->refusal = true;
        memcpy(back->p, e->p, e->size);
        put(back, w.now + DELAY_MIN_MS + (int64_t)rng_below(&w.rng, again ? 60000 : DELAY_SPAN_MS));
    }
}

static void happen(struct event *e)
{
    struct sim_node *x = &w.v[e->to];
    if (!x->up && x->refuses && e->size && !e->refusal)
        refuse(e);
    if (!x->up || e->life != x->life || (e->size && e->generation != x->generation))
        return;
    if (w.now < x->paused_until) {
        struct event *later = event_new(e->to, e->size);
        later->from = e->from;
        later->from_generation = e->from_generation;
        later->refusal = e->refusal;
        memcpy(later->p, e->p, e->size);
        put(later, x->paused_until);
        return;
    }
    uint64_t changes = x->g.stats.n_changes;
    if (e->refusal) {
        gossip_core_refused(&x->g, e->from, e->p, e->size);
    } else if (e->size) {
        x->received += e->size + SEAL_OVERHEAD;
        char old[16];
        const char *addr = w.v[e->from].addr;
        if (e->from_generation != w.v[e->from].generation) {
            snprintf(old, sizeof old, "%u", e->from_generation);
            addr = old;
        }
        if (gossip_core_receive(&x->g, w.now, e->from, addr, 1, e->p, e->size))
            want_tick(e->to, w.now + 1);
    } else if (x->tick_at <= w.now) {
        x->tick_at = 0;
        want_tick(e->to, gossip_core_tick(&x->g, w.now));
    }
    w.n_events++;
    w.hash = (w.hash ^ ((uint64_t)e->to << 32 | e->size) ^ (uint64_t)w.now) * UINT64_C(0x100000001b3) + x->g.stats.n_changes;
    if (w.checked && (x->g.stats.n_changes != changes || w.n_events % 16 == 0))
        check(x);
}

/* Thousands of nodes fit into no cache: what the next event needs is on its way while this one happens. */
static void look_ahead(const struct event *e)
{
    const struct sim_node *x = &w.v[e->to];
    __builtin_prefetch(e->next);
    __builtin_prefetch(&x->up);
    __builtin_prefetch(&x->g.views);
    __builtin_prefetch(&x->g.now_ms);
    __builtin_prefetch(&x->g.n_probes);
    __builtin_prefetch(&x->g.sync_ms);
    for (unsigned i = 0; i < GOSSIP_OBSERVERS; i += 2) /* more than one to a line */
        __builtin_prefetch(&x->g.probes[i]);
}

void world_run(int64_t ms)
{
    for (int64_t end = w.now + ms; w.now < end; w.now++) {
        unsigned i = (unsigned)(w.now % WHEEL);
        struct event *e;
        while ((e = wheel[i].first)) {
            wheel[i].first = e->next;
            if (!e->next)
                wheel[i].last = NULL;
            else
                look_ahead(e->next);
            happen(e);
            event_free(e);
        }
    }
}

void world_start(unsigned i, uint64_t incarnation)
{
    struct sim_node *x = &w.v[i];
    char id[16];
    uint8_t key[32];
    snprintf(id, sizeof id, "n%u", i);
    node_key(i, key);
    struct gossip_config cfg = { .node_id = id, .addr = x->addr, .port = 1, .incarnation = incarnation,
                                 .budget_bytes = w.budget };
    struct gossip_core_out out = { x, on_send, on_state, on_address, on_refused, on_sign, on_verify };
    gossip_core_init(&x->g, &cfg, &out, w.t, key, rng_u64(&w.rng), w.now);
    x->born = w.now;
    x->up = x->started = true;
    x->refuses = false;
    x->life++;
    x->tick_at = 0;
    x->paused_until = 0;
    if (w.checked) {
        free(x->incarnations);
        free(x->suspect_since);
        free(x->refused_ms);
        x->refused_ms = xcalloc(w.n, sizeof *x->refused_ms);
        x->incarnations = xcalloc(w.n, sizeof *x->incarnations);
        x->suspect_since = xcalloc(w.n, sizeof *x->suspect_since);
    }
    for (uint32_t k = 0; k < w.n; k++)
        if (!w.t->v[k].removed_ms)
            gossip_core_enlist(&x->g, k);
    for (uint32_t k = 0; k < w.n; k++) /* what it was suspected for while it did not run is no mistake */
        if (w.v[k].suspect_since && w.v[k].suspect_since[i])
            w.v[k].suspect_since[i] = w.now;
    want_tick(i, w.now + (int64_t)rng_below(&w.rng, 20));
}

void world_stop(unsigned i)
{
    if (w.v[i].up)
        gossip_core_done(&w.v[i].g);
    w.v[i].up = false;
    for (unsigned k = 0; k < w.n; k++)
        if (w.v[k].suspect_since)
            w.v[k].suspect_since[i] = 0;
}

void world_pause(unsigned i, int64_t ms)
{
    w.v[i].paused_until = w.now + ms;
}

void world_move(unsigned i)
{
    struct sim_node *x = &w.v[i];
    snprintf(x->addr, sizeof x->addr, "%u", ++x->generation);
    gossip_core_address(&x->g, x->addr);
    want_tick(i, w.now + 1);
}

void world_open(uint64_t seed, unsigned n, bool checked)
{
    w = (struct world){ .n = n, .now = 1000, .checked = checked, .t = gossip_table_new() };
    w.v = xcalloc(n, sizeof *w.v);
    rng_init(&w.rng, seed);
    world_false_downs = world_false_suspects = 0;
    for (unsigned i = 0; i < n; i++) {
        char id[16];
        uint8_t key[32];
        snprintf(id, sizeof id, "n%u", i);
        snprintf(w.v[i].addr, sizeof w.v[i].addr, "0");
        node_key(i, key);
        uint32_t slot = gossip_table_put(w.t, id, "0", 1, key);
        ASSERT(slot == i);
    }
}

void world_close(void)
{
    for (unsigned i = 0; i < w.n; i++)
        world_stop(i);
    for (unsigned i = 0; i < w.n; i++) {
        free(w.v[i].incarnations);
        free(w.v[i].suspect_since);
        free(w.v[i].refused_ms);
    }
    for (unsigned i = 0; i < WHEEL; i++) {
        for (struct event *e; (e = wheel[i].first); free(e))
            wheel[i].first = e->next;
        wheel[i].last = NULL;
    }
    for (struct event *e; (e = spare); free(e))
        spare = e->next;
    gossip_table_unref(w.t);
    free(w.v);
}

enum gossip_state world_sees(unsigned by, unsigned who)
{
    return gossip_core_state(&w.v[by].g, who);
}

unsigned world_count(unsigned who, enum gossip_state s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w.n; i++)
        n += i != who && w.v[i].up && world_sees(i, who) == s;
    return n;
}

unsigned world_up(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w.n; i++)
        n += w.v[i].up;
    return n;
}
