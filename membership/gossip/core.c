/* The core's frame: members, time, packets. What is believed is in view.c, who is asked in probe.c, how it travels in
 * spread.c. */
#include "core.h"
#include <stdio.h>

enum { BUDGET_BYTES = 192 << 10, SYNC_FIRST_MS = 200, RING_MS = 100, RING_PER_MEMBERS = 1000, TOMBSTONE_MS = 24 * 3600 * 1000 };

static const char *const state_texts[] = { "alive", "suspect", "unknown", "left" };

const char *gossip_state_text(enum gossip_state s)
{
    return state_texts[s];
}

enum gossip_state gossip_core_state(const struct gossip_core *g, uint32_t slot)
{
    return slot < g->n_views && g->views[slot].member ? g->views[slot].state : GOSSIP_DEAD;
}

void gossip_core_reach(const struct gossip_core *g, uint32_t slot, const char **addr, uint16_t *port)
{
    const struct gossip_fact *f = g->views[slot].statement;
    bool stated = f && f->addr[0] && f->port;
    *addr = stated ? f->addr : g->t->v[slot].addr;
    *port = stated ? f->port : g->t->v[slot].port;
}

static bool is_in(const void *arg, uint32_t slot)
{
    const struct gossip_core *g = arg;
    return slot < g->n_views && g->views[slot].member;
}

/* Ten thousand places take 10 ms to sort: while so many join, not more often than a hundredth of the time. */
static void ring_changed(struct gossip_core *g)
{
    int64_t wait = g->n_members > 64 ? RING_MS * (int64_t)(1 + g->n_members / RING_PER_MEMBERS) : 0;
    g->ring_stale = true;
    g->ring_due_ms = MIN(g->ring_due_ms, g->now_ms + wait);
}

/* ---- members ---- */
void gossip_core_enlist(struct gossip_core *g, uint32_t slot)
{
    if (slot >= g->n_views) {
        uint32_t n = MAX(g->t->n, slot + 1);
        g->views = xrealloc(g->views, n, sizeof *g->views);
        memset(g->views + g->n_views, 0, (n - g->n_views) * sizeof *g->views);
        g->n_views = n;
    }
    if (g->views[slot].member)
        return;
    g->views[slot].member = true;
    g->views[slot].state = GOSSIP_ALIVE;
    g->n_members++;
    g->digest ^= g->t->v[slot].tag * UINT64_C(0x9e3779b97f4a7c15);
    ring_changed(g);
    g->n_unheard++; /* what is held of no member has been dropped */
    if (!g->views[slot].statement)
        g->sync_ms = MIN(g->sync_ms, g->now_ms + SYNC_FIRST_MS + (int64_t)rng_below(&g->rng, SYNC_FIRST_MS));
    g->due_ms = 0; /* the owner is to call at once, which is no lateness */
}

void gossip_core_init(struct gossip_core *g, const struct gossip_config *cfg, const struct gossip_core_out *out,
                      struct gossip_table *t, const uint8_t key[32], uint64_t seed, int64_t now_ms)
{
    *g = (struct gossip_core){ .cfg = *cfg, .out = *out, .t = t, .now_ms = now_ms, .incarnation = cfg->incarnation };
    if (!g->cfg.budget_bytes)
        g->cfg.budget_bytes = BUDGET_BYTES;
    t->n_refs++;
    snprintf(g->addr, sizeof g->addr, "%s", cfg->addr ? cfg->addr : "");
    rng_init(&g->rng, seed);
    g->ring_due_ms = g->spread_ms = g->sync_ms = INT64_MAX;
    g->guest_ms = now_ms + (int64_t)rng_below(&g->rng, 1000);
    g->sync_wait_ms = SYNC_FIRST_MS;
    g->contact_ms = now_ms + (int64_t)rng_below(&g->rng, 30000);
    g->tokens_ms = now_ms;
    g->tokens = g->cfg.budget_bytes / 3;
    g->alerted_ms = INT64_MIN / 2;
    g->answered_ms = now_ms;
    g->self = gossip_table_put(t, cfg->node_id, g->addr, cfg->port, key);
    gossip_core_enlist(g, g->self);
    gossip_state_self(g);
}

void gossip_core_done(struct gossip_core *g)
{
    for (uint32_t i = 0; i < g->n_cases; i++)
        for (unsigned k = 0; k < g->cases[i].n; k++)
            gossip_fact_unref(g->t, g->cases[i].v[k]);
    for (uint32_t i = 0; i < g->n_views; i++)
        gossip_fact_unref(g->t, g->views[i].statement);
    free(g->cases);
    free(g->views);
    free(g->queue);
    gossip_ring_unref(g->t, g->ring);
    gossip_table_unref(g->t);
    *g = (struct gossip_core){ 0 };
}

/* Ids are never used again: one that was removed stays out, whoever still lists it. */
void gossip_core_member(struct gossip_core *g, const char *id, const char *addr, uint16_t port, const uint8_t key[32])
{
    uint32_t slot = gossip_table_find(g->t, id);
    if (slot == g->self || !*id || strlen(id) > GOSSIP_ID_MAX)
        return;
    if (slot != NO_SLOT && g->t->v[slot].removed_ms && g->now_ms - g->t->v[slot].removed_ms < TOMBSTONE_MS && GOSSIP_BUG != 14)
        return;
    slot = gossip_table_put(g->t, id, addr, port, key);
    g->t->v[slot].removed_ms = 0;
    gossip_core_enlist(g, slot);
}

void gossip_core_forget(struct gossip_core *g, const char *id)
{
    uint32_t slot = gossip_table_find(g->t, id);
    if (slot == NO_SLOT || slot == g->self || !is_in(g, slot))
        return;
    gossip_drop(g, slot);
    g->views[slot].member = false;
    g->n_unheard--;
    g->t->v[slot].removed_ms = MAX(g->now_ms, 1);
    g->n_members--;
    g->digest ^= g->t->v[slot].tag * UINT64_C(0x9e3779b97f4a7c15);
    ring_changed(g);
    g->due_ms = 0;
}

void gossip_core_address(struct gossip_core *g, const char *addr)
{
    snprintf(g->addr, sizeof g->addr, "%s", addr);
    g->incarnation++;
    gossip_state_self(g);
    for (unsigned i = 0; g->ring && g->self < g->ring->n_slots && i < g->ring->n[g->self]; i++)
        spread_to(g, g->ring->observers[g->self][i], g->self);
}

void gossip_core_leave(struct gossip_core *g)
{
    if (!g->leaving) {
        g->leaving = true;
        g->incarnation++;
        gossip_state_self(g);
    }
    spread_goodbye(g);
}

/* ---- time and packets ---- */
int64_t gossip_core_tick(struct gossip_core *g, int64_t now_ms)
{
    g->now_ms = MAX(g->now_ms, now_ms);
    if (g->ring_stale && g->now_ms >= g->ring_due_ms) {
        struct gossip_ring *old = g->ring;
        g->ring = gossip_ring_get(g->t, g->digest, is_in, g);
        gossip_ring_unref(g->t, old);
        g->ring_stale = false;
        g->ring_due_ms = INT64_MAX;
        probe_ring_changed(g);
    }
    int64_t due = g->leaving ? INT64_MAX : probe_tick(g);
    if (g->judge)
        gossip_judge(g);
    due = MIN(due, spread_tick(g));
    due = MIN(due, g->ring_due_ms);
    if (g->judge)
        due = MIN(due, g->judged_ms + JUDGE_MS);
    return g->due_ms = MAX(due, g->now_ms + 1);
}

static void got_ping(struct gossip_core *g, const struct gossip_packet *k, uint32_t from)
{
    struct out_packet o;
    if (k->rest_size < PING_BYTES - HEAD_BYTES || g->leaving)
        return;
    uint64_t known = get_be(k->rest + 1, 8);
    if (k->rest[0] & PING_SUSPECTED && known == g->incarnation)
        gossip_refute(g, known);
    packet_begin(g, &o, KIND_ACK, k->seq);
    if (known != g->incarnation)
        packet_fact(g, &o, g->views[g->self].statement);
    packet_send(g, &o, from);
}

static void got_facts(struct gossip_core *g, const struct gossip_packet *k, uint32_t from)
{
    struct gossip_fact f;
    uint64_t forged = g->stats.n_forged;
    for (const uint8_t *p = k->rest, *end = p + k->rest_size; p < end && gossip_fact_read(g->t, &p, end, &f);) {
        if (gossip_hear(g, &f, from))
            g->sync_gained = true;
        if (g->stats.n_forged != forged)
            return; /* one false signature is enough: checking costs more than making */
    }
}

bool gossip_core_receive(struct gossip_core *g, int64_t now_ms, uint32_t from, const char *addr, uint16_t port,
                         const void *bytes, size_t size)
{
    struct gossip_packet k;
    g->now_ms = MAX(g->now_ms, now_ms);
    if (from == g->self || !is_in(g, from) || !gossip_packet_read(&k, bytes, size))
        return false;
    g->answered = from;
    g->answer_addr = addr;
    g->answer_port = port;
    g->stats.n_other_table += k.table != (uint32_t)g->digest;
    if (k.kind == KIND_PING) {
        got_ping(g, &k, from);
    } else if (k.kind == KIND_ACK) {
        probe_answered(g, from, k.seq);
        got_facts(g, &k, from);
    } else if (k.kind == KIND_FACTS) {
        got_facts(g, &k, from);
    } else if (k.kind == KIND_SYNC) {
        sync_got(g, from, bytes, size);
    } else if (k.kind == KIND_DIFF) {
        sync_got_diff(g, from, bytes, size);
    } else {
        g->answer_addr = NULL; /* many packets: only to where it is known to be, for this one may be recorded and sent anew */
        sync_got_want(g, from, bytes, size);
    }
    g->answer_addr = NULL;
    if (g->judge)
        gossip_judge(g);
    int64_t due = MIN(g->spread_ms, g->sync_ms);
    if (g->judge)
        due = MIN(due, g->judged_ms + JUDGE_MS);
    return g->spread_ms <= g->now_ms || due < g->due_ms;
}
