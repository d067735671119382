/* What this node holds of each member, and its verdicts. News replace older news of the same member (and of the same
 * observer about it), never the other way round; what speaks of a past incarnation has no effect. */
#include "core.h"

enum { INCARNATION_MAX_BITS = 62, REFUTE_MIN_MS = 500, REFUTE_MAX_MS = 30000, REFUTE_QUIET_MS = 60000, JUDGE_MANY = 64 };

uint64_t incarnation_of(const struct gossip_core *g, uint32_t slot)
{
    const struct gossip_fact *f = g->views[slot].statement;
    return f ? f->incarnation : 0;
}

struct alerts *alerts_of(const struct gossip_core *g, uint32_t slot)
{
    return g->views[slot].alerts ? &g->cases[g->views[slot].alerts - 1] : NULL;
}

bool has_alerted(const struct gossip_core *g, uint32_t slot, uint32_t by)
{
    const struct alerts *a = alerts_of(g, slot);
    for (unsigned i = 0; a && i < a->n; i++)
        if (a->v[i]->signer == by)
            return true;
    return false;
}

unsigned gossip_rounds(const struct gossip_core *g)
{
    unsigned log2 = 0;
    while (g->n_members >> log2)
        log2++;
    return MAX(3u, (log2 + 1) / 2);
}

static void set_state(struct gossip_core *g, uint32_t slot, enum gossip_state state)
{
    if (g->views[slot].state == state)
        return;
    g->views[slot].state = (uint8_t)state;
    if (slot != g->self)
        g->out.state(g->out.arg, slot, state);
}

static void digest_fact(struct gossip_core *g, const struct gossip_fact *f)
{
    g->buckets[gossip_bucket(g->t->v[f->subject].tag)] ^= f->hash;
    g->stats.n_changes++;
}

/* ---- alerts ---- */
static void drop_alert(struct gossip_core *g, struct alerts *a, unsigned i)
{
    digest_fact(g, a->v[i]);
    gossip_fact_unref(g->t, a->v[i]);
    a->v[i] = a->v[--a->n];
    a->rounds[i] = a->rounds[a->n];
}

static void drop_alerts(struct gossip_core *g, uint32_t slot)
{
    struct alerts *a = alerts_of(g, slot);
    if (!a)
        return;
    while (a->n)
        drop_alert(g, a, a->n - 1);
    struct alerts *last = &g->cases[--g->n_cases];
    if (a != last) {
        *a = *last;
        g->views[a->slot].alerts = (uint32_t)(a - g->cases) + 1;
    }
    g->views[slot].alerts = 0;
}

void gossip_drop(struct gossip_core *g, uint32_t slot)
{
    struct view *v = &g->views[slot];
    drop_alerts(g, slot);
    if (v->statement) {
        digest_fact(g, v->statement);
        gossip_fact_unref(g->t, TAKE(v->statement));
        g->n_unheard++;
    }
    for (uint32_t i = 0; i < g->n_cases; i++) /* its voice ends with its membership */
        for (unsigned k = g->cases[i].n; k-- > 0;)
            if (g->cases[i].v[k]->signer == slot)
                drop_alert(g, &g->cases[i], k);
    g->judge = true;
    v->rounds = 0;
}

static bool observes(const struct gossip_core *g, uint32_t who, uint32_t whom)
{
    const struct gossip_ring *r = g->ring;
    for (unsigned i = 0; r && whom < r->n_slots && i < r->n[whom]; i++)
        if (r->observers[whom][i] == who)
            return true;
    return false;
}

static struct alerts *new_case(struct gossip_core *g, uint32_t slot)
{
    if (g->n_cases == g->cap_cases)
        g->cases = xrealloc(g->cases, g->cap_cases = MAX(8u, g->cap_cases * 2), sizeof *g->cases);
    struct alerts *a = &g->cases[g->n_cases++];
    *a = (struct alerts){ .slot = slot };
    g->views[slot].alerts = g->n_cases;
    return a;
}

/* Room for one more alert: an observer's takes the place of a guest's, not the other way round. */
static bool make_room(struct gossip_core *g, struct alerts *a, uint32_t signer)
{
    if (a->n < ALERTS_MAX)
        return true;
    for (unsigned i = 0; observes(g, signer, a->slot) && i < a->n; i++)
        if (!observes(g, a->v[i]->signer, a->slot)) {
            drop_alert(g, a, i);
            return true;
        }
    return false;
}

static bool hear_alert(struct gossip_core *g, const struct gossip_fact *f, uint32_t from)
{
    struct alerts *a = alerts_of(g, f->subject);
    uint64_t newest = incarnation_of(g, f->subject);
    if (f->incarnation != newest && GOSSIP_BUG != 7) {
        if (f->incarnation < newest && from != g->self && from != f->subject)
            spread_to(g, from, f->subject); /* it missed the refutation */
        return false;
    }
    if (g->views[f->subject].state == GOSSIP_LEFT || f->signer == f->subject)
        return false;
    for (unsigned i = 0; a && i < a->n; i++)
        if (a->v[i]->signer == f->signer) { /* known: the others know it as well, it seems */
            a->rounds[i] -= a->rounds[i] > 0 && from != g->self;
            return false;
        }
    struct gossip_fact *k = gossip_fact_keep(g, f);
    if (!k) {
        g->stats.n_forged++;
        return false;
    }
    if (!a)
        a = new_case(g, f->subject);
    if (!make_room(g, a, f->signer)) {
        gossip_fact_unref(g->t, k);
        return false;
    }
    a->v[a->n] = k;
    a->rounds[a->n++] = GOSSIP_BUG == 5 ? 0 : (uint8_t)gossip_rounds(g);
    digest_fact(g, k);
    g->judge = true;
    spread_queue(g, f->subject, true);
    return true;
}

/* ---- about oneself ---- */
void gossip_state_self(struct gossip_core *g)
{
    struct view *v = &g->views[g->self];
    struct gossip_fact *f = gossip_fact_make(g, g->leaving ? FACT_LEFT : FACT_ALIVE, g->self, g->incarnation);
    if (v->statement) {
        digest_fact(g, v->statement);
        gossip_fact_unref(g->t, v->statement);
    } else {
        g->n_unheard--;
    }
    v->statement = f;
    digest_fact(g, f);
    v->rounds = (uint8_t)gossip_rounds(g);
    spread_queue(g, g->self, true);
}

/* The first time at once; one whose refutations do not help (a bad path, not a mistake) does so ever more rarely, or it
 * and its observers would keep the whole cluster busy. */
void gossip_refute(struct gossip_core *g, uint64_t incarnation)
{
    if (g->leaving || g->now_ms < g->refute_ms || GOSSIP_BUG == 2)
        return;
    g->refute_wait_ms = g->now_ms - g->alerted_ms > REFUTE_QUIET_MS ? REFUTE_MIN_MS : MIN(g->refute_wait_ms * 2, REFUTE_MAX_MS);
    g->alerted_ms = g->now_ms;
    g->refute_ms = g->now_ms + g->refute_wait_ms;
    g->incarnation = MAX(g->incarnation, incarnation) + 1;
    gossip_state_self(g);
    for (unsigned i = 0; g->ring && g->self < g->ring->n_slots && i < g->ring->n[g->self]; i++)
        spread_to(g, g->ring->observers[g->self][i], g->self);
}

static bool hear_of_self(struct gossip_core *g, const struct gossip_fact *f, uint32_t from)
{
    bool past = f->kind == FACT_ALERT ? f->incarnation != g->incarnation
                                      : f->incarnation < g->incarnation || f->hash == g->views[g->self].statement->hash;
    if (past && f->incarnation < g->incarnation && from != g->self)
        spread_to(g, from, g->self); /* it missed our news */
    if (past || g->leaving)
        return false;
    struct gossip_fact *k = gossip_fact_keep(g, f);
    if (!k) {
        g->stats.n_forged++;
        return false;
    }
    gossip_fact_unref(g->t, k);
    if (f->kind == FACT_ALERT) {
        gossip_refute(g, f->incarnation);
    } else { /* of a former life, before the clock was set back */
        g->incarnation = f->incarnation + 1;
        gossip_state_self(g);
    }
    return false;
}

/* ---- statements ---- */
static bool hear_statement(struct gossip_core *g, const struct gossip_fact *f, uint32_t from)
{
    struct view *v = &g->views[f->subject];
    const struct gossip_fact *have = v->statement;
    if (have && have->hash == f->hash && have->incarnation == f->incarnation) {
        v->rounds -= v->rounds > 0;
        return false;
    }
    if (have && GOSSIP_BUG != 4 &&
        (f->incarnation < have->incarnation || (f->incarnation == have->incarnation && f->kind <= have->kind))) {
        if (f->incarnation < have->incarnation && from != g->self)
            spread_to(g, from, f->subject); /* who says so missed our news */
        return false;
    }
    struct gossip_fact *k = gossip_fact_keep(g, f);
    if (!k) {
        g->stats.n_forged++;
        return false;
    }
    char was[GOSSIP_ADDR_MAX];
    const char *addr;
    uint16_t was_port, port;
    gossip_core_reach(g, f->subject, &addr, &was_port);
    memcpy(was, addr, sizeof was);
    if (has_alerted(g, f->subject, g->self) && v->state == GOSSIP_ALIVE &&
        f->incarnation == incarnation_of(g, f->subject) + 1)
        probe_blamed(g);
    drop_alerts(g, f->subject);
    if (have) {
        digest_fact(g, have);
        gossip_fact_unref(g->t, v->statement);
    } else {
        g->n_unheard--;
    }
    v->statement = k;
    v->rounds = GOSSIP_BUG == 5 ? 0 : (uint8_t)gossip_rounds(g);
    digest_fact(g, k);
    set_state(g, f->subject, k->kind == FACT_LEFT ? GOSSIP_LEFT : GOSSIP_ALIVE);
    probe_again(g, f->subject);
    gossip_core_reach(g, f->subject, &addr, &port);
    if (!str_equal(was, addr) || port != was_port)
        g->out.address(g->out.arg, f->subject, addr, port);
    spread_queue(g, f->subject, true);
    return true;
}

bool gossip_hear(struct gossip_core *g, const struct gossip_fact *f, uint32_t from)
{
    if (f->subject >= g->n_views || !g->views[f->subject].member || f->signer >= g->n_views ||
        !g->views[f->signer].member || f->incarnation >> INCARNATION_MAX_BITS)
        return false; /* the node table says who is a member */
    if (f->subject == g->self)
        return hear_of_self(g, f, from);
    return f->kind == FACT_ALERT ? hear_alert(g, f, from) : hear_statement(g, f, from);
}

/* ---- verdicts ---- */
/* Itself without answers: its silence about others says nothing. Among two or three nodes the own alert is enough to
 * say so, there is nobody else. */
static bool is_unwell(const struct gossip_core *g, uint32_t slot, unsigned n_observers)
{
    const struct alerts *a = alerts_of(g, slot);
    return g->views[slot].state != GOSSIP_ALIVE || (a && a->n >= 2) || (n_observers <= 2 && has_alerted(g, slot, g->self));
}

static bool is_condemned(const struct gossip_core *g, const struct alerts *a)
{
    if (!g->ring || a->slot >= g->ring->n_slots)
        return false;
    unsigned n = g->ring->n[a->slot], well = 0, votes = 0;
    if (a->n && a->n * 4 >= n * 3) /* 6 of 8; others than observers count as much */
        return true;
    if (GOSSIP_BUG == 1 || GOSSIP_BUG == 8)
        return a->n >= (GOSSIP_BUG == 1 ? 1 : 2);
    for (unsigned i = 0; i < n; i++)
        well += !is_unwell(g, g->ring->observers[a->slot][i], n) && !has_alerted(g, a->slot, g->ring->observers[a->slot][i]);
    for (unsigned i = 0; i < a->n; i++) /* observers and, where most of those died as well, guests */
        votes += !is_unwell(g, a->v[i]->signer, n);
    well += votes;
    return GOSSIP_BUG != 9 && votes >= (n <= 2 ? 1u : 2u) && votes * 4 >= well * 3;
}

void gossip_judge(struct gossip_core *g)
{
    if (g->n_cases > JUDGE_MANY && g->now_ms < g->judged_ms + JUDGE_MS)
        return; /* when thousands are lost at once the news come one by one: the verdicts come together */
    g->judge = false;
    g->judged_ms = g->now_ms;
    for (uint32_t i = 0; i < g->n_cases; i++) {
        const struct alerts *a = &g->cases[i];
        enum gossip_state state = g->views[a->slot].state;
        if (state == GOSSIP_ALIVE && is_condemned(g, a))
            set_state(g, a->slot, GOSSIP_SUSPECT);
        else if (state == GOSSIP_SUSPECT && a->n == 0) /* its accusers have left the cluster */
            set_state(g, a->slot, GOSSIP_ALIVE);
    }
}
