/* SWIM (Das et al. 2002): each period one member, in shuffled order, is pinged; without an answer others are
 * asked to ping it; still without one it is suspected, and dead when it has not refuted in time. States ride as
 * rumours on every packet. Lifeguard (Dadgar et al. 2018): a node whose own probes fail gets slower to judge; a
 * suspected node is told so by whoever talks to it. Every few periods one of the dead is pinged, so that two
 * halves of a healed network find each other. */
#include "core.h"
#include <math.h>
#include <stdio.h>

#ifdef GOSSIP_PLANTED /* a build of the simulation alone: it has to find each of these bugs */
extern int gossip_bug;
#define GOSSIP_BUG gossip_bug
#else
#define GOSSIP_BUG 0
#endif

static const char *const state_texts[] = { "alive", "suspect", "dead", "left" };

const char *gossip_state_text(enum gossip_state s)
{
    return state_texts[s];
}

static struct gossip_peer *peer_find(const struct gossip_core *g, const char *id)
{
    return map_find(&g->peers, id);
}

static unsigned told_limit(const struct gossip_core *g)
{
    return 4 * (unsigned)ceil(log10(g->peers.n + 2));
}

static int64_t suspicion_ms(const struct gossip_core *g)
{
    double scale = MAX(1.0, log10(g->peers.n + 1));
    return (int64_t)(g->cfg.suspicion_mult * scale * g->cfg.probe_ms * (1 + g->health / 2.0));
}

static void set_state(struct gossip_core *g, struct gossip_peer *p, enum gossip_state state, uint64_t incarnation,
                      int64_t now_ms)
{
    bool changed = p->state != state;
    p->state = state;
    p->incarnation = incarnation;
    p->n_told = GOSSIP_BUG == 5 ? UINT32_MAX / 2 : 0;
    if (state == GOSSIP_SUSPECT)
        p->suspect_until_ms = now_ms + suspicion_ms(g);
    if (changed)
        g->out.state(g->out.arg, p->id, state);
}

/* ---- sending ---- */
static void add_rumour(struct gossip_packet *k, enum gossip_state state, uint64_t incarnation, const char *id)
{
    if (k->n_rumours == RUMOURS_MAX)
        return;
    struct gossip_rumour *r = &k->rumours[k->n_rumours++];
    r->state = state;
    r->incarnation = incarnation;
    snprintf(r->id, sizeof r->id, "%s", id);
}

/* The least told rumours first; those told often enough stay at home. */
static void add_rumours(struct gossip_core *g, struct gossip_packet *k, const struct gossip_peer *to)
{
    unsigned limit = told_limit(g);
    if (to && to->state != GOSSIP_ALIVE) /* it may refute this */
        add_rumour(k, to->state == GOSSIP_LEFT ? GOSSIP_DEAD : to->state, to->incarnation, to->id);
    if (g->n_self_told < limit)
        add_rumour(k, g->leaving ? GOSSIP_LEFT : GOSSIP_ALIVE, g->incarnation, g->id);
    for (unsigned told = 0; told < limit && k->n_rumours < RUMOURS_MAX; told++)
        for (struct map_item *it = NULL; k->n_rumours < RUMOURS_MAX && (it = map_next(&g->peers, it));) {
            const struct gossip_peer *p = it->value;
            if (p->n_told == told && p != to)
                add_rumour(k, p->state, p->incarnation, p->id);
        }
}

static void send_packet(struct gossip_core *g, struct gossip_packet *k, const struct gossip_peer *to)
{
    uint8_t out[GOSSIP_PACKET_MAX_BYTES];
    unsigned n;
    snprintf(k->from, sizeof k->from, "%s", g->id);
    k->n_rumours = 0;
    add_rumours(g, k, to);
    size_t size = gossip_packet_write(k, out, sizeof out - SEAL_OVERHEAD, &n);
    for (unsigned i = 0; i < n; i++) {
        struct gossip_peer *p = peer_find(g, k->rumours[i].id);
        if (p)
            p->n_told++;
        else if (str_equal(k->rumours[i].id, g->id))
            g->n_self_told++;
    }
    g->out.send(g->out.arg, to->addr, to->port, out, size);
}

static void send_to(struct gossip_core *g, const struct gossip_peer *to, enum gossip_kind kind, uint32_t seq,
                    const char *target)
{
    static struct gossip_packet k;
    k.kind = kind;
    k.seq = seq;
    snprintf(k.target, sizeof k.target, "%s", target ? target : "");
    send_packet(g, &k, to);
}

/* Up to n random members for which ok says yes. */
static unsigned pick(struct gossip_core *g, struct gossip_peer **ret, unsigned n,
                     bool (*ok)(const struct gossip_core *g, const struct gossip_peer *p))
{
    unsigned found = 0, seen = 0;
    for (struct map_item *it = NULL; (it = map_next(&g->peers, it));) { /* reservoir */
        struct gossip_peer *p = it->value;
        if (!ok(g, p))
            continue;
        seen++;
        if (found < n) {
            ret[found++] = p;
        } else {
            uint64_t k = rng_below(&g->rng, seen);
            if (k < n)
                ret[k] = p;
        }
    }
    return found;
}

static bool is_alive(const struct gossip_core *g, const struct gossip_peer *p)
{
    return p->state == GOSSIP_ALIVE && !str_equal(p->id, g->target);
}

static bool is_dead(const struct gossip_core *g, const struct gossip_peer *p)
{
    (void)g;
    return p->state == GOSSIP_DEAD;
}

static bool is_suspect(const struct gossip_core *g, const struct gossip_peer *p)
{
    (void)g;
    return p->state == GOSSIP_SUSPECT;
}

static bool is_up(const struct gossip_core *g, const struct gossip_peer *p)
{
    (void)g;
    return p->state <= GOSSIP_SUSPECT;
}

/* ---- probing ---- */
static void shuffle(struct gossip_core *g)
{
    for (uint32_t i = 0; i < g->n_order; i++)
        free(g->order[i]);
    g->order = xrealloc(g->order, g->peers.n + 1, sizeof *g->order);
    g->n_order = g->at = 0;
    for (struct map_item *it = NULL; (it = map_next(&g->peers, it));)
        g->order[g->n_order++] = xstrdup(it->key);
    for (uint32_t i = g->n_order; i > 1; i--) {
        uint32_t k = (uint32_t)rng_below(&g->rng, i);
        char *t = g->order[i - 1];
        g->order[i - 1] = g->order[k];
        g->order[k] = t;
    }
}

static struct gossip_peer *next_target(struct gossip_core *g)
{
    for (int round = 0; round < 2; round++) {
        while (g->at < g->n_order) {
            struct gossip_peer *p = peer_find(g, g->order[g->at++]);
            if (p && p->state <= GOSSIP_SUSPECT)
                return p;
        }
        shuffle(g);
    }
    return NULL;
}

static void begin_period(struct gossip_core *g, int64_t now_ms)
{
    struct gossip_peer *p, *dead;
    g->period_start_ms = now_ms;
    g->period_ms = (int64_t)g->cfg.probe_ms * (1 + g->health);
    g->acked = g->indirect_sent = false;
    g->target[0] = '\0';
    g->seq++;
    if (++g->periods % 5 == 0 && GOSSIP_BUG != 3 && pick(g, &dead, 1, is_dead))
        send_to(g, dead, KIND_PING, ++g->seq, NULL), g->seq++;
    p = next_target(g);
    if (!p)
        return;
    snprintf(g->target, sizeof g->target, "%s", p->id);
    send_to(g, p, KIND_PING, g->seq, NULL);
}

static void end_period(struct gossip_core *g, int64_t now_ms)
{
    struct gossip_peer *p = g->target[0] ? peer_find(g, g->target) : NULL;
    if (!p)
        return;
    if (g->acked) {
        g->health -= g->health > 0;
        return;
    }
    unsigned up = 0;
    for (struct map_item *it = NULL; (it = map_next(&g->peers, it));)
        up += is_up(g, it->value);
    if (up > 1) /* with one other member there is nobody to compare with */
        g->health = MIN(g->health + 1, (unsigned)GOSSIP_HEALTH_MAX);
    if (p->state == GOSSIP_ALIVE)
        set_state(g, p, GOSSIP_SUSPECT, p->incarnation, now_ms);
}

static void ask_others(struct gossip_core *g)
{
    struct gossip_peer *by[8], *target = peer_find(g, g->target);
    g->indirect_sent = true;
    if (!target)
        return;
    unsigned n = pick(g, by, MIN(g->cfg.indirect, 8u), is_alive);
    for (unsigned i = 0; i < n; i++)
        send_to(g, by[i], KIND_PING_REQUEST, g->seq, g->target);
    send_to(g, target, KIND_PING, g->seq, NULL); /* the first may have been lost */
}

void gossip_core_tick(struct gossip_core *g, int64_t now_ms)
{
    for (struct map_item *it = NULL; (it = map_next(&g->peers, it));) {
        struct gossip_peer *p = it->value;
        if (p->state == GOSSIP_SUSPECT && now_ms >= p->suspect_until_ms && GOSSIP_BUG != 1)
            set_state(g, p, GOSSIP_DEAD, p->incarnation, now_ms);
    }
    if (g->leaving)
        return;
    if (g->target[0] && !g->acked && !g->indirect_sent &&
        now_ms - g->period_start_ms >= (int64_t)g->cfg.timeout_ms * (1 + g->health))
        ask_others(g);
    if (now_ms - g->period_start_ms >= g->period_ms) {
        end_period(g, now_ms);
        begin_period(g, now_ms);
    }
    if (now_ms >= g->next_spread_ms) {
        struct gossip_peer *to[GOSSIP_FANOUT];
        unsigned limit = told_limit(g);
        /* A suspect is asked again and again until it refutes: one lost packet must not bury it. */
        for (unsigned i = 0, n = pick(g, to, GOSSIP_FANOUT, is_suspect); i < n; i++)
            send_to(g, to[i], KIND_PING, 0, NULL);
        bool fresh = g->n_self_told < limit;
        for (struct map_item *it = NULL; !fresh && (it = map_next(&g->peers, it));)
            fresh = ((struct gossip_peer *)it->value)->n_told < limit;
        g->next_spread_ms = now_ms + g->cfg.probe_ms / 2;
        for (unsigned i = 0, n = fresh ? pick(g, to, GOSSIP_FANOUT, is_up) : 0; i < n; i++)
            send_to(g, to[i], KIND_RUMOURS, 0, NULL);
    }
}

/* ---- receiving ---- */
static void about_self(struct gossip_core *g, const struct gossip_rumour *r)
{
    if (g->leaving || (r->state == GOSSIP_ALIVE && r->incarnation <= g->incarnation))
        return;
    if (r->incarnation < g->incarnation) { /* somebody missed our news: tell them again */
        g->n_self_told = 0;
        return;
    }
    if (GOSSIP_BUG == 2)
        return;
    g->incarnation = r->incarnation + 1;
    g->n_self_told = 0;
    if (r->state == GOSSIP_SUSPECT)
        g->health = MIN(g->health + 1, (unsigned)GOSSIP_HEALTH_MAX);
}

static void hear(struct gossip_core *g, const struct gossip_rumour *r, int64_t now_ms)
{
    if (str_equal(r->id, g->id)) {
        about_self(g, r);
        return;
    }
    struct gossip_peer *p = peer_find(g, r->id);
    if (!p) /* the node table says who is a member */
        return;
    if ((r->incarnation < p->incarnation && GOSSIP_BUG != 4) || (r->incarnation == p->incarnation && r->state <= p->state)) {
        if (r->incarnation < p->incarnation && r->state != p->state) /* who says so missed our news */
            p->n_told = MIN(p->n_told, told_limit(g) - 1);
        return;
    }
    if (p->state == GOSSIP_LEFT && r->state != GOSSIP_ALIVE)
        return;
    if (p->state == GOSSIP_DEAD && r->state == GOSSIP_SUSPECT) {
        p->incarnation = r->incarnation; /* dead it stays until it speaks for itself */
        return;
    }
    if (p->state == GOSSIP_SUSPECT && r->state == GOSSIP_SUSPECT) { /* newer, the clock goes on */
        p->incarnation = r->incarnation;
        p->n_told = 0;
        return;
    }
    set_state(g, p, r->state, r->incarnation, now_ms);
}

static void got_ack(struct gossip_core *g, const struct gossip_packet *k, int64_t now_ms)
{
    if (k->seq == g->seq && str_equal(k->from, g->target))
        g->acked = true;
    for (unsigned i = 0; i < RELAYS_MAX; i++) {
        struct relay *r = &g->relays[i];
        if (!r->seq || r->seq != k->seq || now_ms > r->until_ms)
            continue;
        struct gossip_peer *asker = peer_find(g, r->for_id);
        if (asker) { /* the answer in the name of the member asked for */
            static struct gossip_packet fwd;
            uint8_t out[GOSSIP_PACKET_MAX_BYTES];
            fwd = (struct gossip_packet){ .kind = KIND_ACK, .seq = r->for_seq };
            snprintf(fwd.from, sizeof fwd.from, "%s", k->from);
            size_t size = gossip_packet_write(&fwd, out, sizeof out - SEAL_OVERHEAD, NULL);
            g->out.send(g->out.arg, asker->addr, asker->port, out, size);
        }
        r->seq = 0;
    }
}

static void got_ping_request(struct gossip_core *g, const struct gossip_packet *k, int64_t now_ms)
{
    struct gossip_peer *target = peer_find(g, k->target);
    if (!target)
        return;
    struct relay *r = &g->relays[g->next_relay++ % RELAYS_MAX];
    r->seq = (uint32_t)rng_u64(&g->rng) | 0x80000000u; /* never one of our own */
    r->for_seq = k->seq;
    r->until_ms = now_ms + g->cfg.probe_ms * 4;
    snprintf(r->for_id, sizeof r->for_id, "%s", k->from);
    send_to(g, target, KIND_PING, r->seq, NULL);
}

void gossip_core_receive(struct gossip_core *g, int64_t now_ms, const void *bytes, size_t size)
{
    static struct gossip_packet k;
    if (!gossip_packet_read(&k, bytes, size))
        return;
    struct gossip_peer *from = peer_find(g, k.from);
    if (!from)
        return;
    for (unsigned i = 0; i < k.n_rumours; i++)
        hear(g, &k.rumours[i], now_ms);
    if (k.kind == KIND_PING && !g->leaving)
        send_to(g, from, KIND_ACK, k.seq, NULL);
    else if (k.kind == KIND_ACK)
        got_ack(g, &k, now_ms);
    else if (k.kind == KIND_PING_REQUEST && !g->leaving)
        got_ping_request(g, &k, now_ms);
}

/* ---- members ---- */
void gossip_core_init(struct gossip_core *g, const struct gossip_config *cfg, const struct gossip_core_out *out,
                      uint64_t seed, int64_t now_ms)
{
    *g = (struct gossip_core){ .cfg = *cfg, .out = *out };
    snprintf(g->id, sizeof g->id, "%s", cfg->node_id);
    if (!g->cfg.probe_ms)
        g->cfg.probe_ms = 200;
    if (!g->cfg.timeout_ms)
        g->cfg.timeout_ms = g->cfg.probe_ms / 2;
    if (!g->cfg.indirect)
        g->cfg.indirect = 3;
    if (!g->cfg.suspicion_mult)
        g->cfg.suspicion_mult = 4;
    g->incarnation = cfg->incarnation;
    rng_init(&g->rng, seed);
    map_init(&g->peers);
    g->period_start_ms = now_ms - (int64_t)rng_below(&g->rng, g->cfg.probe_ms);
    g->period_ms = g->cfg.probe_ms;
    g->seq = (uint32_t)rng_below(&g->rng, 1 << 20);
}

void gossip_core_done(struct gossip_core *g)
{
    for (struct map_item *it = NULL; (it = map_next(&g->peers, it));)
        free(it->value);
    map_done(&g->peers);
    for (uint32_t i = 0; i < g->n_order; i++)
        free(g->order[i]);
    free(g->order);
    g->order = NULL;
    g->n_order = 0;
}

void gossip_core_member(struct gossip_core *g, const char *id, const char *addr, uint16_t port)
{
    if (str_equal(id, g->id) || !*id || strlen(id) > GOSSIP_ID_MAX)
        return;
    struct gossip_peer *p = peer_find(g, id);
    if (!p) {
        p = xnew(struct gossip_peer);
        snprintf(p->id, sizeof p->id, "%s", id);
        p->n_told = UINT32_MAX / 2; /* no news */
        map_put(&g->peers, id, p);
        g->n_self_told = 0;         /* it should hear of us */
    }
    snprintf(p->addr, sizeof p->addr, "%s", addr);
    p->port = port;
}

void gossip_core_forget(struct gossip_core *g, const char *id)
{
    free(map_remove(&g->peers, id));
    if (str_equal(g->target, id))
        g->target[0] = '\0';
}

void gossip_core_leave(struct gossip_core *g)
{
    struct gossip_peer *to[2 * GOSSIP_FANOUT];
    g->leaving = true;
    g->incarnation++;
    g->n_self_told = 0;
    unsigned n = pick(g, to, ARRAY_N(to), is_up);
    for (unsigned i = 0; i < n; i++)
        send_to(g, to[i], KIND_RUMOURS, 0, NULL);
}
