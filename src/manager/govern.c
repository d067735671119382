/* The policy of `--managers auto`: how many voters, which nodes, when. One change at a time, and the next only when
 * Raft's configuration is what the node table says; a replacement is a voter before the lost manager is voted out;
 * what was out or demoted must stand still for a while first, so that a flapping node moves nobody's role. A manager
 * made by a person (joined with the manager token, promoted by hand) is never surplus. */
#include "govern.h"
#include "manager_internal.h"
#include <shoal/base/file.h>
#include <shoal/base/planted.h>
#include <stdio.h>

uint32_t govern_rule(uint32_t eligible)
{
    return eligible < 3 ? 1 : eligible < 7 ? 3 : 5;
}

bool govern_is_eligible(const struct governed *g)
{
    return !g->left && (!g->barred || (g->manager && !g->automatic));
}

struct count {
    uint32_t eligible, voters, answering, live, candidates, target, goal;
    bool lost; /* a manager is, for longer than the policy waits */
};

static bool is_lost(const struct govern_policy *p, const struct governed *g)
{
    return g->down_ms >= (CLUSTER_BUG == 40 ? 0 : p->replace_ms);
}

/* A manager that shall stay one. */
static bool is_kept(const struct govern_policy *p, const struct governed *g)
{
    return g->manager && g->voter && !is_lost(p, g) && !(g->barred && g->automatic);
}

static int64_t wait_of(const struct governed *g)
{
    return g->returned ? GOVERN_RETURN_MS : GOVERN_SETTLE_MS;
}

static bool may_become(const struct governed *g)
{
    return !g->manager && !g->barred && !g->left && (g->ready || CLUSTER_BUG == 43);
}

static void look_in(struct govern_change *ret, int64_t ms)
{
    ms = MAX(ms, 1);
    if (ret->next_ms < 0 || ms < ret->next_ms)
        ret->next_ms = ms;
}

/* Promotions that came to nothing; also where people govern. */
static bool give_up(const struct governed *v, uint32_t n, struct govern_change *ret)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct governed *g = &v[i];
        if (!g->manager || g->voter || g->leader)
            continue;
        int64_t limit = g->answers ? GOVERN_CATCH_UP_MS : GOVERN_PROMOTE_MS;
        if (g->role_ms < limit) {
            look_in(ret, MIN(limit - g->role_ms, GOVERN_LOOK_MS));
            continue;
        }
        ret->act = GOVERN_DEMOTE;
        ret->node = i;
        snprintf(ret->reason, sizeof ret->reason, g->answers
                     ? "promotion given up: its log did not catch up with the leader's within %d min"
                     : "promotion given up: it did not answer the leader for %d s; check that it runs and that port 2377/tcp is open",
                 g->answers ? GOVERN_CATCH_UP_MS / 60000 : GOVERN_PROMOTE_MS / 1000);
        return true;
    }
    return false;
}

static bool is_under_way(const struct governed *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i].manager != v[i].voter || (v[i].learner && !v[i].manager))
            return true;
    return false;
}

static struct count count(const struct govern_policy *p, const struct governed *v, uint32_t n, struct govern_change *ret)
{
    struct count c = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        const struct governed *g = &v[i];
        bool lost = g->manager && is_lost(p, g);
        c.eligible += govern_is_eligible(g);
        c.voters += g->voter;
        c.answering += g->voter && g->answers;
        c.live += is_kept(p, g);
        c.lost |= lost;
        c.candidates += may_become(g) && g->steady_ms >= wait_of(g);
        if (g->manager && g->down_ms >= 0 && !lost)
            look_in(ret, p->replace_ms - g->down_ms);
        if (may_become(g) && g->steady_ms < wait_of(g))
            look_in(ret, wait_of(g) - g->steady_ms);
    }
    c.target = p->wanted > 0 ? (uint32_t)p->wanted : govern_rule(c.eligible);
    c.goal = MIN(c.target, c.live + c.candidates);
    c.goal -= c.goal > 0 && c.goal % 2 == 0;
    return c;
}

static uint32_t managers_in_zone(const struct governed *v, uint32_t n, const char *zone)
{
    uint32_t k = 0;
    for (uint32_t i = 0; zone && i < n; i++)
        k += v[i].manager && v[i].down_ms < 0 && str_equal(v[i].zone, zone);
    return k;
}

/* The zone with the fewest managers, then one that runs tasks (a drained node is about to be switched off, or was meant
 * for something else), then the oldest. */
static bool is_better(const struct governed *v, uint32_t n, uint32_t a, uint32_t b)
{
    uint32_t za = managers_in_zone(v, n, v[a].zone), zb = managers_in_zone(v, n, v[b].zone);
    return za != zb ? za < zb : v[a].active && !v[b].active;
}

static bool promote(const struct govern_policy *p, const struct governed *v, uint32_t n, const struct count *c,
                    struct govern_change *ret)
{
    uint32_t best = n;
    if (c->live >= c->goal || (c->answering + 1) * 2 <= c->voters + 1)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (may_become(&v[i]) && v[i].steady_ms >= wait_of(&v[i]) && (best == n || is_better(v, n, i, best)))
            best = i;
    ret->act = GOVERN_PROMOTE;
    ret->node = best;
    for (uint32_t i = 0; i < n; i++)
        if (v[i].manager && is_lost(p, &v[i])) {
            snprintf(ret->reason, sizeof ret->reason, "takes the place of manager %.80s, down for %lld s", v[i].name,
                     (long long)(v[i].down_ms / 1000));
            return true;
        }
    snprintf(ret->reason, sizeof ret->reason, "%u managers are wanted%s, there were %u", c->target,
             p->wanted > 0 ? "" : " for the number of nodes", c->live);
    return true;
}

static bool demote(const struct governed *v, uint32_t i, const struct count *c, struct govern_change *ret)
{
    if (c->voters <= 1 || ((c->answering - v[i].answers) * 2 <= c->voters - 1 && CLUSTER_BUG != 42))
        return false; /* without a quorum after it */
    ret->act = GOVERN_DEMOTE;
    ret->node = i;
    return true;
}

static bool demote_lost(const struct govern_policy *p, const struct governed *v, uint32_t n, const struct count *c,
                        struct govern_change *ret)
{
    for (uint32_t i = 0; i < n; i++) {
        bool lost = v[i].manager && is_lost(p, &v[i]) && c->live >= c->target && CLUSTER_BUG != 44;
        bool barred = v[i].manager && v[i].voter && v[i].barred && v[i].automatic && c->live >= MAX(c->goal, 1u);
        if ((!lost && !barred) || !demote(v, i, c, ret))
            continue;
        if (lost)
            snprintf(ret->reason, sizeof ret->reason, "was down for %lld s as a manager; another took its place",
                     (long long)(v[i].down_ms / 1000));
        else
            snprintf(ret->reason, sizeof ret->reason, "its label " NODE_LABEL_MANAGER " says no");
        return true;
    }
    return false;
}

/* Of those that the cluster made, the one whose zone has most managers, then the latest. */
static bool demote_surplus(const struct governed *v, uint32_t n, const struct count *c, struct govern_change *ret)
{
    uint32_t best = n;
    if (c->live <= c->target || c->answering < c->voters)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const struct governed *g = &v[i];
        if (!g->manager || !g->voter || !g->automatic || g->leader)
            continue;
        uint32_t here = managers_in_zone(v, n, g->zone), there = best < n ? managers_in_zone(v, n, v[best].zone) : 0;
        if (best == n || here > there || (here == there && g->role_ms < v[best].role_ms))
            best = i;
    }
    if (best == n || !demote(v, best, c, ret))
        return false;
    snprintf(ret->reason, sizeof ret->reason, "%u managers are wanted, there were %u", c->target, c->live);
    return true;
}

void govern(const struct govern_policy *p, const struct governed *v, uint32_t n, struct govern_change *ret)
{
    *ret = (struct govern_change){ .next_ms = -1 };
    if (give_up(v, n, ret) || p->wanted == 0)
        return;
    if (is_under_way(v, n) && CLUSTER_BUG != 41) {
        look_in(ret, GOVERN_LOOK_MS);
        return;
    }
    struct count c = count(p, v, n, ret);
    bool any = promote(p, v, n, &c, ret) || demote_lost(p, v, n, &c, ret) || demote_surplus(v, n, &c, ret);
    if (!any && (c.lost || c.live != c.target))
        look_in(ret, GOVERN_LOOK_MS);
}

/* ---- what a person asks for ---- */

int govern_may_go(const struct governed *v, uint32_t n, uint32_t i, const char *what, struct err *e)
{
    uint32_t voters = 0, answering = 0, staying = 0;
    if (!v[i].voter)
        return 0; /* a worker, or a manager without a vote yet: nobody counts on it */
    for (uint32_t k = 0; k < n; k++) {
        voters += v[k].voter;
        answering += v[k].voter && v[k].answers && k != i;
        staying += v[k].voter && v[k].manager && k != i; /* and is not being voted out already */
    }
    if (!staying)
        return err_set(e, E_INVALID, "%s the last manager %s would leave the cluster without its state; promote another "
                       "node first ('shoal node promote NODE') and wait until it has a vote ('shoal managers')", what, v[i].name);
    if (answering * 2 <= voters - 1)
        return err_set(e, E_INVALID, "%s manager %s would leave %u of %u managers reachable: no quorum; bring another "
                       "back first", what, v[i].name, answering, voters - 1);
    return 0;
}

int govern_may_promote(const struct governed *v, uint32_t n, uint32_t i, struct err *e)
{
    uint32_t members = 0;
    for (uint32_t k = 0; k < n; k++)
        members += v[k].voter || v[k].learner || v[k].manager;
    if (v[i].left)
        return err_set(e, E_INVALID, "node %s has left the cluster and cannot become a manager; let it join again", v[i].name);
    if (!v[i].ready)
        return err_set(e, E_INVALID, "node %s is %s and cannot become a manager now; bring it back first", v[i].name,
                       v[i].down_ms >= 0 ? "down" : "not reachable");
    if (v[i].voter || v[i].learner)
        return err_set(e, E_BUSY, "node %s is still being voted out as a manager; ask again in a moment", v[i].name);
    if (members >= RAFT_MEMBERS_MAX)
        return err_set(e, E_TOO_BIG, "the cluster has %u managers, the most there may be; more than 7 only slow it down",
                       members);
    return 0;
}

/* ---- between the node table and the policy ---- */

void govern_policy_of(const struct cluster *c, struct govern_policy *ret)
{
    ret->wanted = managers_wanted(c->managers);
    ret->replace_ms = c->replace_after ? c->replace_after / MS_NS : GOVERN_REPLACE_MS;
}

static int64_t ms_since(int64_t then_ns, int64_t now_ns)
{
    return MAX(now_ns - then_ns, INT64_C(0)) / MS_NS; /* the stamp may be of a leader with a faster clock */
}

void govern_view(struct governed *ret, const struct node *n, const struct raft_member *members, uint32_t n_members,
                 bool leader, bool suspect, int64_t now_ns)
{
    const char *label = labels_get(&n->spec.labels, NODE_LABEL_MANAGER);
    int64_t came = MAX(n->created_at, n->ready_since), role = n->role_since ? n->role_since : n->created_at;
    *ret = (struct governed){ .name = n->description.hostname ? n->description.hostname : n->id,
                              .zone = labels_get(&n->spec.labels, NODE_LABEL_ZONE),
                              .manager = n->spec.role == ROLE_MANAGER, .automatic = n->role_auto,
                              .left = node_has_left(n), .ready = n->status.state == NODE_READY && !suspect,
                              .active = n->spec.availability == AVAIL_ACTIVE, .leader = leader };
    bool by_hand = !ret->manager && !n->role_auto && n->role_since; /* a person took the role from it */
    ret->barred = str_equal(label, "no") || (by_hand && !str_equal(label, "yes"));
    ret->returned = n->ready_since || (!ret->manager && n->role_auto);
    bool gone = n->status.state == NODE_DOWN || n->status.state == NODE_DISCONNECTED; /* as a manager it is no use */
    ret->down_ms = gone ? ms_since(n->down_since, now_ns) : -1;
    ret->role_ms = ms_since(role, now_ns);
    ret->steady_ms = MIN(ms_since(came, now_ns), ret->role_ms);
    for (uint32_t i = 0; n->raft_id && i < n_members; i++)
        if (members[i].id == n->raft_id) {
            ret->voter = members[i].voter;
            ret->learner = !members[i].voter;
            ret->answers = leader || (members[i].last_contact_ms >= 0 && members[i].last_contact_ms <= GOVERN_CONTACT_MS);
        }
}

void govern_set_role(struct node *n, int role, bool automatic, const char *reason, int64_t now_ns)
{
    uint64_t old = n->raft_id;
    while (role == ROLE_MANAGER && n->spec.role != ROLE_MANAGER && n->raft_id == old)
        n->raft_id = raft_id_random(); /* Raft never sees an id again that it has let go */
    n->spec.role = role;
    n->role_since = now_ns;
    n->role_auto = automatic;
    str_set(&n->role_reason, reason);
}
