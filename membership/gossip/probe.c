/* Probing: this node pings its subjects, each in series. A series begins every period; without an answer it pings again
 * and again, and only when the whole series goes unanswered the subject is alerted. The paper's design (two rounds of
 * a period each) waits longer for as many packets: while all is well a series is one ping, and pings in quick
 * succession come only where an answer is missing.
 *
 * Local health (Lifeguard, Dadgar et al. 2018): a node that is late itself, whose alerts are refuted, or of whose
 * subjects most fail at once, is more likely the sick one. It probes slower and keeps its alerts to itself. */
#include "core.h"

enum {
    PERIOD_MIN_MS = 200, PERIOD_MAX_MS = 500, PERIOD_SHARE_MS = 62, /* few subjects are asked more often, for as many packets */
    GUEST_MS = 1000, GUEST_TROUBLE_MS = 250, HEALTH_MS = 2000, HEALTH_SICK = 4,
    SERIES_PINGS = 6, /* with a tenth of all packets lost one series in 20,000 fails; with four it would be one in 800 */
};

bool is_small(const struct gossip_core *g)
{
    return g->n_members <= GOSSIP_OBSERVERS + 1; /* everybody observes everybody */
}

static int64_t period_ms(const struct gossip_core *g)
{
    int64_t share = (int64_t)g->n_probes * PERIOD_SHARE_MS;
    return g->cfg.probe_ms ? g->cfg.probe_ms : MAX(PERIOD_MIN_MS, MIN(PERIOD_MAX_MS, share));
}

static int64_t step_ms(const struct gossip_core *g)
{
    int64_t step = g->cfg.timeout_ms ? g->cfg.timeout_ms : is_small(g) ? 80 : 135;
    return step * (2 + g->health) / 2;
}

void probe_ring_changed(struct gossip_core *g)
{
    struct probe old[PROBES_MAX];
    unsigned n_old = g->n_probes;
    memcpy(old, g->probes, sizeof old);
    g->n_probes = 0;
    for (uint32_t s = 0; s < g->ring->n_slots && g->n_probes < PROBES_MAX; s++)
        for (unsigned i = 0; i < g->ring->n[s]; i++) {
            if (g->ring->observers[s][i] != g->self)
                continue;
            struct probe p = { .slot = s, .next_ms = g->now_ms + (int64_t)rng_below(&g->rng, PERIOD_MIN_MS), .answered_ms = g->now_ms };
            for (unsigned k = 0; k < n_old; k++)
                if (old[k].slot == s)
                    p = old[k];
            g->probes[g->n_probes++] = p;
            break;
        }
    g->judge = true;
}

static void ping(struct gossip_core *g, struct probe *p)
{
    struct out_packet o;
    packet_begin(g, &o, KIND_PING, p->seq);
    o.v[o.n++] = alerts_of(g, p->slot) && alerts_of(g, p->slot)->n ? PING_SUSPECTED : 0;
    put_be(o.v + o.n, incarnation_of(g, p->slot), 8);
    o.n += 8;
    packet_send(g, &o, p->slot);
    p->sent++;
    p->next_ms = g->now_ms + step_ms(g);
}

/* Whether this node may accuse others now. Most of its subjects silent at once: either they are gone (a rack, half the
 * cluster), or it is. It waits two periods, and then needs an answer from somebody. One that missed a ping counts as
 * silent already, or the first half would be accused before the second is missed. */
static bool may_accuse(struct gossip_core *g)
{
    unsigned bad = 0;
    for (unsigned i = 0; i < g->n_probes; i++)
        bad += (g->probes[i].failing || g->probes[i].sent >= 2) && g->views[g->probes[i].slot].state == GOSSIP_ALIVE;
    if (GOSSIP_BUG == 10)
        return true;
    if (g->health >= HEALTH_SICK)
        return false;
    if (g->n_probes < 3 || bad * 2 <= g->n_probes) {
        g->doubt_until_ms = 0;
        return true;
    }
    if (!g->doubt_until_ms)
        g->doubt_until_ms = g->now_ms + 2 * period_ms(g);
    return g->now_ms >= g->doubt_until_ms && g->now_ms - g->answered_ms <= 2 * period_ms(g);
}

static void series_failed(struct gossip_core *g, struct probe *p)
{
    p->failing = true;
    p->sent = 0;
    p->next_ms = MAX(g->now_ms, p->start_ms + period_ms(g));
    if (has_alerted(g, p->slot, g->self) || g->views[p->slot].state == GOSSIP_LEFT || !may_accuse(g))
        return;
    struct gossip_fact *f = gossip_fact_make(g, FACT_ALERT, p->slot, incarnation_of(g, p->slot));
    gossip_hear(g, f, g->self);
    gossip_fact_unref(g->t, f);
}

static void series_begin(struct gossip_core *g, struct probe *p)
{
    p->start_ms = g->now_ms;
    p->seq = (uint32_t)rng_u64(&g->rng) | 1; /* an answer proves that this ping was received, not an older one */
    ping(g, p);
}

/* One known to be silent is asked once a period: the dead cost no more than the living. */
static void step(struct gossip_core *g, struct probe *p)
{
    bool alerted = has_alerted(g, p->slot, g->self);
    if (g->views[p->slot].state == GOSSIP_LEFT || (alerted && GOSSIP_BUG == 3)) {
        p->sent = 0;
        p->next_ms = g->now_ms + PERIOD_MAX_MS;
    } else if (!p->sent) {
        series_begin(g, p);
        if (alerted)
            p->next_ms = g->now_ms + PERIOD_MAX_MS;
    } else if (alerted || p->sent >= SERIES_PINGS) {
        series_failed(g, p);
    } else {
        ping(g, p);
    }
}

static bool is_subject(const struct gossip_core *g, uint32_t slot)
{
    for (unsigned i = 0; i < g->n_probes; i++)
        if (g->probes[i].slot == slot)
            return true;
    return false;
}

/* The slow random probe of SWIM (Das et al. 2002): whatever the rings or the table do wrong, the dead are found. */
static void next_guest(struct gossip_core *g)
{
    g->guest_ms = g->now_ms + (g->n_cases * 8 > g->n_members ? GUEST_TROUBLE_MS : GUEST_MS); /* many observers died as well */
    if (is_small(g) || g->guest.sent)
        return;
    for (int i = 0; i < 4; i++) {
        uint32_t s = (uint32_t)rng_below(&g->rng, g->n_views);
        if (g->views[s].member && s != g->self && g->views[s].state == GOSSIP_ALIVE && !is_subject(g, s)) {
            g->guest = (struct probe){ .slot = s, .answered_ms = g->now_ms };
            series_begin(g, &g->guest);
            return;
        }
    }
}

static void notice_lateness(struct gossip_core *g)
{
    if (g->due_ms && g->now_ms > g->due_ms + step_ms(g)) {
        g->health = MIN(g->health + 1, (unsigned)GOSSIP_HEALTH_MAX);
        g->health_ms = g->now_ms + HEALTH_MS;
        for (unsigned i = 0; i < g->n_probes; i++) /* answers may lie unread: what ran meanwhile proves nothing */
            if (g->probes[i].sent)
                g->probes[i].sent = 0, g->probes[i].next_ms = g->now_ms;
        g->guest.sent = 0;
    } else if (g->health && g->now_ms >= g->health_ms) {
        g->health--;
        g->health_ms = g->now_ms + HEALTH_MS;
    }
}

void gossip_core_ask(struct gossip_core *g, uint32_t slot)
{
    if (gossip_core_state(g, slot) != GOSSIP_SUSPECT || !alerts_of(g, slot))
        return;
    struct probe p = { .slot = slot, .seq = (uint32_t)rng_u64(&g->rng) | 1 };
    ping(g, &p);
    alerts_of(g, slot)->asked = p.seq;
}

static bool waits_for(const struct gossip_core *g, uint32_t slot, uint32_t seq)
{
    struct alerts *a = alerts_of(g, slot);
    if (a && a->asked == seq) {
        a->asked = 0;
        return true;
    }
    for (unsigned i = 0; i < g->n_probes; i++)
        if (g->probes[i].slot == slot && g->probes[i].seq == seq && (g->probes[i].sent || g->probes[i].failing))
            return true;
    return false;
}

void gossip_core_refused(struct gossip_core *g, uint32_t slot, const void *ping, size_t size)
{
    struct gossip_packet k;
    if (gossip_core_state(g, slot) == GOSSIP_DEAD || !gossip_packet_read(&k, ping, size) || k.kind != KIND_PING)
        return;
    if (GOSSIP_BUG == 15 || (k.seq && waits_for(g, slot, k.seq)))
        g->out.refused(g->out.arg, slot);
}

int64_t probe_tick(struct gossip_core *g)
{
    int64_t due = INT64_MAX;
    notice_lateness(g);
    for (unsigned i = 0; i < g->n_probes; i++) {
        if (g->now_ms >= g->probes[i].next_ms)
            step(g, &g->probes[i]);
        due = MIN(due, g->probes[i].next_ms);
    }
    if (g->guest.sent) {
        if (g->now_ms >= g->guest.next_ms)
            step(g, &g->guest);
        if (g->guest.sent)
            due = MIN(due, g->guest.next_ms);
    }
    if (g->now_ms >= g->guest_ms)
        next_guest(g);
    return is_small(g) ? due : MIN(due, g->guest_ms);
}

void probe_answered(struct gossip_core *g, uint32_t from, uint32_t seq)
{
    for (unsigned i = 0; i <= g->n_probes; i++) {
        struct probe *p = i < g->n_probes ? &g->probes[i] : &g->guest;
        if (p->slot != from || p->seq != seq || (!p->sent && !p->failing) || !seq)
            continue;
        p->sent = 0;
        p->failing = false;
        p->answered_ms = g->answered_ms = g->now_ms;
        p->next_ms = MAX(g->now_ms + 1, p->start_ms + period_ms(g));
    }
}

void probe_again(struct gossip_core *g, uint32_t slot)
{
    for (unsigned i = 0; i < g->n_probes; i++)
        if (g->probes[i].slot == slot) {
            g->probes[i].sent = 0;
            g->probes[i].failing = false;
            g->probes[i].next_ms = MIN(g->probes[i].next_ms, g->now_ms + period_ms(g));
        }
    if (g->guest.slot == slot)
        g->guest.sent = 0;
}

void probe_blamed(struct gossip_core *g)
{
    g->health = MIN(g->health + 1, (unsigned)GOSSIP_HEALTH_MAX);
    g->health_ms = g->now_ms + HEALTH_MS;
}
