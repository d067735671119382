/* Simulation of managers that govern themselves: the production policy (govern.c) on a node table and a Raft
 * configuration that changes as members.c changes it, under deaths, returns, flapping, departures, joins, labels and
 * people who promote and demote.
 *
 *   sim_govern [--seeds N] [--seed S] [options, see seeds.h]
 *
 * Checked after every change: none by the policy costs a quorum that was there; it changes one role at a time and only
 * when Raft's configuration is the table's; a node that flaps causes no change at all. At the end the faults stop, some
 * nodes stay dead for good, and the cluster must have an odd number of live voters as the rule wants, no dead one beside
 * as many, and then rest. */
#include "govern.h"
#include "seeds.h"

#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/rng.h>
#include <stdio.h>

enum { NODES_MAX = 16, TICK_MS = 250, DOWN_AFTER_MS = 2000, CHAOS_MS = 1800000 };

#define KINDS(X) X(flap) X(join) X(die) X(back) X(hand) X(leave) X(remove) X(label)
enum kind { KINDS(SEEDS_KIND) };
static const char *const kinds[] = { KINDS(SEEDS_KIND_NAME) };
enum { L_FAULTS, L_NODES, L_UNTIL };
static struct seeds_limit limits[] = {
    [L_FAULTS] = { "--faults", "faults, and things that people do", 0, 0, 0 },
    [L_NODES] = { "--nodes", "nodes", 1, 0, 0 },
    [L_UNTIL] = { "--until", "ms until the faults end", 1, 0, 0 },
};

struct host {
    struct node n;
    bool exists, alive;
    int64_t changed_ms; /* of alive */
    int64_t caught_up_ms; /* when its log is whole, once it is a learner */
};

static struct sim {
    uint64_t hash; /* of all that was seen after each step */
    struct rng rng;
    int64_t now_ms;
    struct host h[NODES_MAX];
    struct raft_member raft[RAFT_MEMBERS_MAX];
    uint32_t n_raft, n_ever;
    unsigned leader, changes, losses, by_hand;
    struct govern_policy policy;
    int wanted;
} g;

#ifdef CLUSTER_PLANTED
int cluster_bug;
#endif

static int64_t now_ns(void)
{
    return g.now_ms * MS_NS;
}

static struct host *host_of(uint64_t raft_id)
{
    for (unsigned i = 0; i < NODES_MAX; i++)
        if (g.h[i].exists && g.h[i].n.raft_id == raft_id)
            return &g.h[i];
    return NULL;
}

static struct raft_member *member_of(const struct host *h)
{
    for (uint32_t i = 0; i < g.n_raft; i++)
        if (g.raft[i].id == h->n.raft_id)
            return &g.raft[i];
    return NULL;
}

static bool has_quorum(void)
{
    uint32_t voters = 0, alive = 0;
    for (uint32_t i = 0; i < g.n_raft; i++) {
        const struct host *h = host_of(g.raft[i].id);
        voters += g.raft[i].voter;
        alive += g.raft[i].voter && h && h->alive;
    }
    return alive * 2 > voters;
}

static void elect(void)
{
    const struct host *h = &g.h[g.leader];
    const struct raft_member *m = member_of(h);
    if (h->exists && h->alive && m && m->voter)
        return;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        m = g.h[i].exists && g.h[i].alive ? member_of(&g.h[i]) : NULL;
        if (m && m->voter)
            g.leader = i;
    }
}

static void add_host(bool manager)
{
    for (unsigned i = 0; i < limit_cut(&limits[L_NODES], NODES_MAX); i++) {
        struct host *h = &g.h[i];
        char name[16];
        if (h->exists)
            continue;
        *h = (struct host){ .exists = true, .alive = true, .changed_ms = g.now_ms };
        snprintf(name, sizeof name, "node%u", g.n_ever++);
        str_set(&h->n.id, name);
        str_set(&h->n.description.hostname, name);
        h->n.created_at = now_ns();
        h->n.status.state = NODE_READY;
        h->n.spec.role = manager ? ROLE_MANAGER : ROLE_WORKER;
        h->n.raft_id = manager ? g.n_ever + 1000 : 0;
        if (rng_chance(&g.rng, 500))
            labels_set(&h->n.spec.labels, NODE_LABEL_ZONE, rng_chance(&g.rng, 500) ? "one" : "two");
        say("%s joins%s", name, manager ? " as manager" : "");
        return;
    }
}

static void set_alive(struct host *h, bool alive)
{
    if (h->alive == alive)
        return;
    say("%s %s", h->n.id, alive ? "is back" : "dies");
    h->alive = alive;
    h->changed_ms = g.now_ms;
    g.losses += !alive;
}

/* As liveness.c judges. */
static void judge(struct host *h)
{
    int state = h->n.status.state;
    if (node_has_left(&h->n)) {
        if (h->alive && !member_of(h))
            set_alive(h, false);
        return;
    }
    if (!h->alive && state != NODE_DOWN && g.now_ms - h->changed_ms >= DOWN_AFTER_MS) {
        h->n.status.state = NODE_DOWN;
        h->n.down_since = now_ns();
        h->n.ready_since = 0;
    } else if (h->alive && state == NODE_DOWN) {
        h->n.status.state = NODE_READY;
        h->n.down_since = 0;
        h->n.ready_since = now_ns();
    }
}

/* As members.c follows the table: one change of Raft's configuration. */
static void reconcile(void)
{
    for (unsigned i = 0; i < NODES_MAX; i++) {
        struct host *h = &g.h[i];
        struct raft_member *m = h->exists ? member_of(h) : NULL;
        if (!h->exists || h->n.spec.role != ROLE_MANAGER || (m && m->voter) || h->n.status.state == NODE_DOWN)
            continue;
        if (!m) {
            CHECK(g.n_raft < RAFT_MEMBERS_MAX, "too many members");
            g.raft[g.n_raft++] = (struct raft_member){ .id = h->n.raft_id };
            h->caught_up_ms = g.now_ms + (int64_t)rng_range(&g.rng, 100, 20000);
            say("%s is a learner", h->n.id);
            return;
        }
        if (!h->alive)
            continue;
        if (g.now_ms >= h->caught_up_ms) {
            m->voter = true;
            say("%s is a voter", h->n.id);
            return;
        }
    }
    for (uint32_t i = 0; i < g.n_raft; i++) {
        const struct host *h = host_of(g.raft[i].id);
        if (h && h->n.spec.role == ROLE_MANAGER)
            continue;
        g.raft[i] = g.raft[--g.n_raft];
        return;
    }
}

static uint32_t view(struct governed v[NODES_MAX], unsigned at[NODES_MAX])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g.n_raft; i++) {
        const struct host *h = host_of(g.raft[i].id);
        g.raft[i].last_contact_ms = h && h->alive ? 50 : h ? g.now_ms - h->changed_ms : -1;
    }
    for (unsigned i = 0; i < NODES_MAX; i++)
        if (g.h[i].exists) {
            const struct host *h = &g.h[i];
            govern_view(&v[n], &h->n, g.raft, g.n_raft, i == g.leader, !h->alive && g.now_ms - h->changed_ms > 1000, now_ns());
            v[n].answers &= v[n].ready || v[n].leader;
            at[n++] = i;
        }
    return n;
}

static void policy_step(void)
{
    struct governed v[NODES_MAX];
    struct govern_change c;
    unsigned at[NODES_MAX];
    uint32_t n = view(v, at);
    for (uint32_t i = 0; i < g.n_raft; i++)
        if (!host_of(g.raft[i].id))
            return; /* voted out first, as members.c does */
    govern(&g.policy, v, n, &c);
    if (c.act == GOVERN_NOTHING)
        return;
    struct host *h = &g.h[at[c.node]];
    bool gives_up = v[c.node].manager && !v[c.node].voter;
    for (uint32_t i = 0; i < n && !gives_up; i++)
        CHECK(v[i].manager == v[i].voter && (!v[i].learner || v[i].manager), "%s shall change its role (%s) while %s changes its own",
              h->n.id, c.reason, v[i].name);
    CHECK(*c.reason, "a change without a reason");
    say("%s: %s: %s", h->n.id, c.act == GOVERN_PROMOTE ? "promote" : "demote", c.reason);
    if (c.act == GOVERN_PROMOTE)
        CHECK(h->alive || g.now_ms - h->changed_ms <= 1000, "%s is dead and shall be a manager", h->n.id);
    govern_set_role(&h->n, c.act == GOVERN_PROMOTE ? ROLE_MANAGER : ROLE_WORKER, true, c.reason, now_ns());
    g.changes++;
    if (c.act == GOVERN_PROMOTE)
        return;
    uint32_t voters = 0, alive = 0; /* once it is voted out */
    for (uint32_t i = 0; i < n; i++) {
        voters += v[i].voter && i != c.node;
        alive += v[i].voter && i != c.node && (g.h[at[i]].alive || g.now_ms - g.h[at[i]].changed_ms <= 2 * DOWN_AFTER_MS);
    }
    CHECK(voters && alive * 2 > voters, "demoting %s leaves %u of %u voters", h->n.id, alive, voters);
}

static void mix(uint64_t v)
{
    g.hash = (g.hash ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    g.hash ^= g.hash >> 29;
}

static void note_state(void)
{
    mix((uint64_t)g.now_ms ^ (uint64_t)g.leader << 48);
    for (uint32_t i = 0; i < g.n_raft; i++) { /* the ids are random */
        const struct host *h = host_of(g.raft[i].id);
        mix((h ? (uint64_t)(h - g.h) : NODES_MAX) << 1 ^ g.raft[i].voter);
    }
    for (unsigned i = 0; i < NODES_MAX; i++)
        mix(g.h[i].exists ? 1U | g.h[i].alive << 1 | (unsigned)g.h[i].n.spec.role << 2 | (unsigned)g.h[i].n.status.state << 3 : 0);
}

static void tick(void)
{
    g.now_ms += TICK_MS;
    elect();
    for (unsigned i = 0; i < NODES_MAX && has_quorum(); i++)
        if (g.h[i].exists)
            judge(&g.h[i]);
    if (has_quorum())
        reconcile();
    if (has_quorum())
        policy_step();
    note_state();
}

/* ---- faults and people ---- */

static void by_hand(struct host *h)
{
    struct governed v[NODES_MAX];
    struct err e;
    unsigned at[NODES_MAX];
    uint32_t n = view(v, at), i = 0;
    while (&g.h[at[i]] != h)
        i++;
    bool manager = h->n.spec.role == ROLE_MANAGER;
    if ((manager ? govern_may_go(v, n, i, "demoting", &e) : govern_may_promote(v, n, i, &e)) < 0)
        return;
    say("%s is %s by hand", h->n.id, manager ? "demoted" : "promoted");
    govern_set_role(&h->n, manager ? ROLE_WORKER : ROLE_MANAGER, false, "by hand", now_ns());
    g.by_hand++;
}

static void leave(struct host *h)
{
    struct governed v[NODES_MAX];
    struct err e;
    unsigned at[NODES_MAX];
    uint32_t n = view(v, at), i = 0;
    while (&g.h[at[i]] != h)
        i++;
    if (!h->alive || govern_may_go(v, n, i, "the departure of", &e) < 0)
        return;
    say("%s leaves", h->n.id);
    if (h->n.spec.role == ROLE_MANAGER)
        govern_set_role(&h->n, ROLE_WORKER, false, NODE_LEFT_MESSAGE, now_ns());
    h->n.status.state = NODE_DOWN;
    h->n.down_since = now_ns();
    str_set(&h->n.status.message, NODE_LEFT_MESSAGE); /* it goes when it is voted out */
}

static void remove_host(struct host *h)
{
    if (h->n.status.state != NODE_DOWN || h->n.spec.role == ROLE_MANAGER)
        return;
    say("%s is removed", h->n.id);
    node_clear(&h->n);
    h->exists = false;
}

static void fault(void)
{
    struct host *h = &g.h[rng_below(&g.rng, NODES_MAX)];
    unsigned what = (unsigned)rng_below(&g.rng, 100);
    enum kind kind = what < 8 ? K_join : what < 50 ? K_die : what < 70 ? K_back : what < 78 ? K_hand : what < 82 ? K_leave
                   : what < 88 ? K_remove : K_label;
    if ((h->exists && node_has_left(&h->n) && h->alive) || !has_kind(kind) || !limit_take(&limits[L_FAULTS]))
        return;
    if (what < 8) {
        add_host(rng_chance(&g.rng, 100));
    } else if (h->exists && what < 50) {
        if (!node_has_left(&h->n))
            set_alive(h, !h->alive);
    } else if (h->exists && what < 70) {
        set_alive(h, !node_has_left(&h->n));
    } else if (h->exists && what < 78 && has_quorum()) {
        by_hand(h);
    } else if (h->exists && what < 82 && has_quorum()) {
        leave(h);
    } else if (h->exists && what < 88 && has_quorum()) {
        remove_host(h);
    } else if (h->exists && what < 93) {
        labels_set(&h->n.spec.labels, NODE_LABEL_MANAGER, rng_chance(&g.rng, 500) ? "no" : "yes");
    }
}

/* ---- one seed ---- */

static void run(int64_t ms, unsigned fault_permille)
{
    for (int64_t end = g.now_ms + ms; g.now_ms < end;) {
        tick();
        if (rng_chance(&g.rng, fault_permille))
            fault();
    }
}

static void check_rest(void)
{
    struct governed v[NODES_MAX];
    unsigned at[NODES_MAX];
    uint32_t n = view(v, at), voters = 0, kept = 0, eligible = 0, surplus = 0, spare = 0; /* voters: alive; kept: and shall stay */
    const char *dead = NULL, *barred = NULL; /* and still a voter */
    for (uint32_t i = 0; i < n; i++) {
        CHECK(v[i].manager == v[i].voter && !(v[i].learner && !v[i].manager), "%s: table and Raft differ", v[i].name);
        if (v[i].voter && !g.h[at[i]].alive)
            dead = v[i].name;
        else if (v[i].voter && !v[i].leader && v[i].automatic && v[i].barred)
            barred = v[i].name;
        voters += v[i].voter && g.h[at[i]].alive;
        kept += v[i].voter && g.h[at[i]].alive && !(v[i].automatic && v[i].barred);
        surplus += v[i].voter && v[i].automatic && !v[i].leader;
        eligible += govern_is_eligible(&v[i]);
        spare += !v[i].manager && !v[i].barred && v[i].ready;
    }
    uint32_t want = g.policy.wanted > 0 ? (uint32_t)g.policy.wanted : govern_rule(eligible), reach = MIN(want, kept + spare);
    reach -= reach % 2 == 0;
    CHECK(!barred || dead, "%s is barred and a voter", barred); /* else it may be needed for a quorum */
    CHECK(!dead || kept < want, "%s is dead and a voter, beside the %u that are wanted", dead, want);
    CHECK(voters <= want || surplus == 0, "%u voters, %u are wanted, and %u could go", voters, want, surplus);
    CHECK(kept >= want || reach <= kept, "%u voters, %u are wanted, and %u nodes could be more", voters, want, spare);
}

static uint64_t run_seed(uint64_t seed)
{
    memset(&g, 0, sizeof g);
    g.now_ms = 1000000;
    rng_init(&g.rng, seed);
    static const int wanted[] = { -1, -1, 3, 5 };
    g.policy = (struct govern_policy){ wanted[rng_below(&g.rng, ARRAY_N(wanted))], (int64_t)rng_range(&g.rng, 5000, 90000) };
    add_host(true);
    g.raft[g.n_raft++] = (struct raft_member){ .id = g.h[0].n.raft_id, .voter = true };
    for (uint64_t k = rng_below(&g.rng, 9); k > 0; k--)
        add_host(rng_chance(&g.rng, 200));
    run(120000, 0);
    /* one flaps, never for as long as makes it lost */
    unsigned before = g.changes;
    struct host *h = &g.h[rng_below(&g.rng, g.n_ever)];
    for (int k = 0; k < 40 && g.n_ever > 1 && has_kind(K_flap); k++) {
        set_alive(h, false);
        run((int64_t)rng_range(&g.rng, 500, (uint64_t)g.policy.replace_ms - 1000), 0);
        set_alive(h, true);
        run((int64_t)rng_range(&g.rng, 500, GOVERN_RETURN_MS - 1000), 0);
    }
    CHECK(g.changes == before, "a node that flaps caused %u changes", g.changes - before);
    unsigned permille = (unsigned)rng_range(&g.rng, 1, 30);
    run((int64_t)limit_cut(&limits[L_UNTIL], CHAOS_MS), permille);
    say("calm");
    for (int all = 0; all < 2; all++) /* some of the dead stay dead, if the others can do without them */
        for (unsigned i = 0; i < NODES_MAX && !(all && has_quorum()); i++)
            if (g.h[i].exists && !g.h[i].alive && !node_has_left(&g.h[i].n) && (all || rng_chance(&g.rng, 600)))
                set_alive(&g.h[i], true);
    run(900000, 0);
    before = g.changes;
    run(900000, 0);
    CHECK(g.changes == before, "it does not come to rest");
    check_rest();
    for (unsigned i = 0; i < NODES_MAX; i++)
        if (g.h[i].exists)
            node_clear(&g.h[i].n);
    return g.hash;
}

static int64_t now_ms(void)
{
    return g.now_ms;
}

static struct { uint64_t changes, hands, losses; } sums;

static void sum(void)
{
    sums.changes += g.changes;
    sums.hands += g.by_hand;
    sums.losses += g.losses;
}

static void figures(void)
{
    printf("%llu changes of roles by the policy, %llu by hand, %llu nodes lost\n", (unsigned long long)sums.changes,
           (unsigned long long)sums.hands, (unsigned long long)sums.losses);
}

int main(int argc, char **argv)
{
    static struct seeds s = { .program = "sim_govern", .kinds = kinds, .n_kinds = ARRAY_N(kinds), .limits = limits,
                              .n_limits = ARRAY_N(limits), .n = 200, .run = run_seed, .now_ms = now_ms, .sum = sum, .figures = figures };
#ifdef CLUSTER_PLANTED
    s.bug = &cluster_bug;
#endif
    if (!seeds_parse(&s, argc, argv))
        return 2;
    crypto_init();
    return seeds_run();
}
