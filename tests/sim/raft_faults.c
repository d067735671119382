/* What goes wrong, and what operators do meanwhile. Disks may be lost for good, but never so that a committed entry
 * has no quorum of copies left among the voters; who lost its disk comes back empty and under a new id. */
#include "sim_raft.h"

/* ---- membership ---- */

/* An empty disk. A former voter takes a new id: under the old one it would lose committed entries in any Raft. */
static void empty(struct node *x)
{
    crash(x, true);
    disk_wipe(x->disk);
    struct grave *grave = xnew(struct grave);
    *grave = (struct grave){.id = x->id, .shadow = x->maybe ? *x->maybe : x->shadow, .next = g.graves};
    g.graves = grave;
    memset(&x->shadow, 0, sizeof(x->shadow));
    free(TAKE(x->maybe));
    free(TAKE(x->was));
    copy_free(TAKE(x->copy));
    x->scarred = x->damaged = x->outdated = x->has_old_key = false;
    x->applied = x->chain = 0;
    x->reborn = !(x->was_voter || x->lost || chance(S_FAULT, 200));
    if (!x->reborn)
        x->id = rng_u64(&g.rng[S_FAULT]) | 1;
    x->was_voter = x->lost = false;
    boot(x);
}

/* Would the voters without x still have a quorum of whole disks? What an operator must see to, and a manager does. */
static bool may_remove(const struct node *x, const struct raft_member *m, uint32_t count)
{
    uint32_t voters = 0, whole = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct node *o = node_of(m[i].id);
        if (!m[i].voter || o == x)
            continue;
        voters++;
        whole += o && !o->lost && is_whole(o);
    }
    return whole > voters / 2;
}

/* Any change at this node, which believes to lead. */
void propose_change(struct node *n)
{
    struct raft_member m[RAFT_MEMBERS_MAX];
    uint32_t count = raft_node_members(n->raft, m, RAFT_MEMBERS_MAX);
    struct node *x = &g.nodes[chance(S_FAULT, 400) ? g.changed : chance(S_FAULT, 400) ? g.led_before : pick(S_FAULT, 0, g.o.n - 1)];
    const struct raft_member *found = NULL;
    uint64_t gone = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct node *o = node_of(m[i].id);
        if (!o || o->lost)
            gone = m[i].id;
        if (m[i].id == x->id)
            found = &m[i];
    }
    g.n.changes++;
    g.changed = SLOT(x);
    g.self = n;
    if (gone && chance(S_FAULT, 700)) {
        say("node %u removes a lost member", SLOT(n));
        raft_node_remove(n->raft, gone, NULL, NULL);
    } else if (!found) {
        if (!g.config || raft_configuration_find(g.config, x->id) || x == n)
            return;
        if (x->lost || (x->up && chance(S_FAULT, 800)))
            empty(x);
        say("node %u adds node %u", SLOT(n), SLOT(x));
        g.self = n;
        raft_node_add(n->raft, x->id, "x", 1, NULL, NULL);
    } else if (!found->voter) {
        say("node %u promotes or removes node %u", SLOT(n), SLOT(x));
        if (chance(S_FAULT, 550) && !x->lost)
            raft_node_promote(n->raft, x->id, NULL, NULL);
        else
            raft_node_remove(n->raft, x->id, NULL, NULL);
    } else if (chance(S_FAULT, 900) && may_remove(x, m, count)) {
        say("node %u removes node %u", SLOT(n), SLOT(x));
        raft_node_remove(n->raft, x->id, NULL, NULL);
    } else {
        raft_node_update(n->raft, x->id, "context", 7, NULL, NULL);
    }
}

/* ---- disks ---- */

/* May this disk lose something? Of the voters a majority must stay whole: then every majority that elects, all of it
 * whole, meets one that holds what was committed. */
static bool may_lose(const struct node *x)
{
    if (!g.config || x->lost)
        return false;
    for (unsigned i = 0; i < g.o.n; i++) {
        const struct node *n = &g.nodes[i];
        struct raft_status s = {0};
        if (n->up)
            raft_get_status(n->core, &s);
        if (n->up ? s.config_index > g.commit : !n->lost && n->shadow.last > g.commit)
            return false; /* which configuration will count is open */
    }
    uint32_t broken = 1;
    for (uint32_t i = 0; i < g.config->n; i++) {
        const struct raft_config_member *m = &g.config->members[i];
        const struct node *n = node_of(m->id);
        broken += m->voter && n != x && (!n || n->lost || !is_whole(n));
    }
    return broken <= (g.config->n_voters - 1) / 2;
}

static void lose(struct node *n, const char *how)
{
    say("node %u loses its disk: %s", SLOT(n), how);
    crash(n, true);
    n->lost = true;
    g.n.lost++;
}

/* A byte changes on a disk at rest. Either it does no harm, or that is noticed, and others have what is lost. The last
 * batch of a log is known as torn or rotten by its mark alone, so there is one. */
static void rot(struct node *n, bool log_only)
{
    char name[64];
    if (!n->wrote)
        return;
    crash(n, false);
    if (n->maybe || !disk_rot(n->disk, &g.rng[S_FAULT], log_only, name)) {
        push((struct event){.at_us = g.now_us + 1000, .type = EV_RESTART, .node = SLOT(n), .life = n->life});
        return;
    }
    say("node %u: rot in %s", SLOT(n), name);
    n->scarred = true;
    g.n.rotten++;
    if (is_whole(n) || !n->was) { /* else it is of before the first */
        free(n->was);
        n->was = xmemdup(&n->shadow, sizeof(n->shadow));
    }
    boot(n);
}

/* All are heard slowly first, so that what it acknowledges now arrives in its next life and matters. */
static void rot_soon(struct node *n)
{
    for (unsigned i = 0; i < g.o.n * g.o.n; i++)
        if (i % g.o.n != SLOT(n))
            g.clog_us[i / g.o.n][i % g.o.n] = (unsigned)pick(S_FAULT, 50000, 500000);
    push((struct event){.at_us = g.now_us + (int64_t)pick(S_FAULT, 0, 8 * g.o.delay_us), .type = EV_STRIKE, .node = SLOT(n),
                        .life = n->life, .from = STRIKE_ROT});
}

void copy_free(struct copy *c)
{
    if (!c)
        return;
    disk_free(c->disk);
    free(c);
}

void maybe_copy(struct node *n)
{
    if (!g.o.on[F_RESTORE] || g.calm || !n->shadow.last || n->maybe || !is_whole(n) || (n->copy && chance(S_FAULT, 700)))
        return;
    say("node %u: a copy is made of its disk, up to %llu", SLOT(n), U(n->shadow.last));
    copy_free(n->copy);
    n->copy = xnew(struct copy);
    *n->copy = (struct copy){.disk = disk_copy(n->disk), .shadow = n->shadow, .has_old_key = n->has_old_key};
    memcpy(n->copy->keys, n->keys, sizeof(n->keys));
}

/* Does this configuration count x's vote, and not as the committed one does? */
static bool counts_otherwise(const struct raft_configuration *c, const struct node *x)
{
    const struct raft_config_member *m = raft_configuration_find(c, x->id);
    if (!m || !m->voter)
        return false;
    bool same = c->n_voters == g.config->n_voters;
    for (uint32_t i = 0; i < c->n && same; i++) {
        m = raft_configuration_find(g.config, c->members[i].id);
        same = !c->members[i].voter || (m && m->voter);
    }
    return !same;
}

/* Would anybody who can come back count a vote of x by other voters than the committed ones, or would x itself? Under an old
 * configuration that x has left behind, a majority may be x and those who never heard of the change: x has refused them
 * because it had the entry with the new one, and without that entry it elects them. */
static bool is_counted_otherwise(const struct node *x)
{
    for (unsigned i = 0; i < g.o.n; i++) {
        const struct node *n = &g.nodes[i];
        struct raft_status s = {0};
        if (n->lost)
            continue;
        if (n->up)
            raft_get_status(n->core, &s);
        if (n->maybe || counts_otherwise(config_of(&n->shadow), x) || counts_otherwise(config_in(s.config_index, g.term_at[s.config_index]), x))
            return true;
    }
    return counts_otherwise(config_of(&x->copy->shadow), x);
}

/* Nothing that was promised hangs on this disk alone: a majority of the voters is others that have all of its log, no vote
 * can be given twice, and nobody counts votes by other members. No node can see to more than that: see repair.c of
 * membership/raft. */
static bool may_put_back(const struct node *x)
{
    if (!x->copy || x->maybe || !is_whole(x) || x->role == RAFT_LEADER || !may_lose(x))
        return false;
    const struct shadow *s = &x->shadow, *c = &x->copy->shadow;
    uint32_t have = 0, further = 0, i;
    for (i = 0; i < g.config->n; i++) {
        const struct node *n = node_of(g.config->members[i].id);
        if (!n || n == x || n->lost || !is_whole(n) || !g.config->members[i].voter)
            continue;
        have += is_durable_on(n, s->last, s->term_at[s->last]);
        further += n->shadow.term >= s->term && !(n->up && n->role == RAFT_CANDIDATE);
    }
    return c->last < s->last && have > g.config->n_voters / 2 &&
           ((c->term == s->term && c->vote == s->vote) || further > g.config->n_voters / 2) && /* nobody stands in a term it may vote in again */
           !(g.o.on[F_MEMBERS] && is_counted_otherwise(x));
}

/* A machine's snapshot of some time ago takes the place of what the disk holds now. */
bool put_back(struct node *n)
{
    for (unsigned i = 0; i < g.o.n && !(n->up && may_put_back(n)); i++)
        n = &g.nodes[(SLOT(n) + 1) % g.o.n];
    if (!n->up || !may_put_back(n))
        return false;
    crash(n, false);
    if (!may_put_back(n)) { /* it just stored more */
        push((struct event){.at_us = g.now_us + 1000, .type = EV_RESTART, .node = SLOT(n), .life = n->life});
        return false;
    }
    say("node %u: its disk is put back from %llu to %llu", SLOT(n), U(n->shadow.last), U(n->copy->shadow.last));
    disk_put_back(n->disk, n->copy->disk);
    free(n->was);
    n->was = xmemdup(&n->shadow, sizeof(n->shadow));
    n->shadow = n->copy->shadow;
    memcpy(n->keys, n->copy->keys, sizeof(n->keys));
    n->has_old_key = n->copy->has_old_key;
    n->scarred = n->outdated = true;
    n->told = false;
    n->n_put_back++;
    g.n.restored++;
    boot(n);
    return true;
}

static void rekeyed(void *arg, int result, uint64_t index)
{
    struct node *n = arg;
    (void)index;
    if (!result)
        n->has_old_key = false;
}

/* The key of the disk changes, as the manager does it: stored first, forgotten when no file needs it. */
static void rekey(struct node *n)
{
    struct raft_status s;
    raft_node_status(n->raft, &s);
    if (n->has_old_key) {
        n->has_old_key = s.rekeying;
        return;
    }
    if (!g.o.sealed || s.rekeying)
        return;
    say("node %u: a new key", SLOT(n));
    memcpy(n->keys[1], n->keys[0], 32);
    rng_bytes(&g.rng[S_FAULT], n->keys[0], 32);
    n->has_old_key = true;
    g.self = n;
    raft_node_set_key(n->raft, n->keys[0], rekeyed, n);
}

static void harm_disk(struct node *n)
{
    if (strikes(S_FAULT, F_HANG))
        n->hang_us = g.now_us + (int64_t)pick(S_FAULT, 50000, chance(S_FAULT, 300) ? 10000000 : 1500000);
    if (strikes(S_FAULT, F_FULL)) {
        say("node %u: disk full", SLOT(n));
        disk_set_full(n->disk, true);
        push((struct event){.at_us = g.now_us + (int64_t)pick(S_FAULT, 1000, 1500000), .type = EV_SPACE, .node = SLOT(n)});
    }
    if (strikes(S_FAULT, F_SYNC) && n->up) {
        say("node %u: the next fsync fails", SLOT(n));
        disk_fail_sync(n->disk, true);
    }
    if (strikes(S_FAULT, F_REKEY) && n->up && !n->paused)
        rekey(n);
    if (strikes(S_FAULT, F_RESTORE))
        put_back(n);
    if (strikes(S_FAULT, F_WIPE) && is_whole(n) && may_lose(n))
        lose(n, "wiped");
    else if (strikes(S_FAULT, F_ROT) && n->up && may_lose(n)) /* also in the midst of its repair */
        g.o.on[F_OLD] && chance(S_FAULT, 500) ? rot_soon(n) : rot(n, false);
}

/* ---- the rest ---- */

static int64_t some_while(int64_t often, int64_t seldom)
{
    return (int64_t)pick(S_FAULT, 1000, (uint64_t)(chance(S_FAULT, 300) ? seldom : often));
}

static void hear(void *arg)
{
    struct node *n = arg;
    AUTO_SB struct sb b;
    struct raft_message m = {.type = RAFT_MSG_HEARTBEAT, .to = n->id, .term = n->term};
    sb_init(&b, RAFT_MESSAGE_MAX_BYTES);
    raft_message_encode(&m, &b);
    raft_node_receive(n->raft, UINT64_MAX, b.s, b.len);
}

/* A second leader in one term, which no node of this protocol can be: one that hears of both cannot know which of them
 * speaks the truth, and stops before it does harm (consensus.md 1.2 no. 8). */
static void impostor(struct node *n)
{
    struct raft_status s;
    raft_get_status(n->core, &s);
    if (!s.leader)
        return;
    say("node %u hears of a second leader in term %llu", SLOT(n), U(n->term));
    g.self = n;
    g.forged = true;
    bool lives = lives_through(hear, n);
    g.forged = false;
    CHECK(!lives, "node %u goes on with two leaders in one term", SLOT(n));
    crash_for(n, some_while(100000, 1000000), false);
}

void nemesis(void)
{
    struct node *n = &g.nodes[pick(S_FAULT, 0, g.o.n - 1)], *leader = some_leader();
    if (leader && chance(S_FAULT, 400))
        n = leader;
    if (strikes(S_FAULT, F_BREAK) && n->up && !n->paused) { /* whether the other end lives or not */
        struct raft_status s;
        raft_get_status(n->core, &s);
        g.self = n;
        raft_node_peer_gone(n->raft, s.leader);
    }
    if (chance(S_FAULT, 400))
        network_heal();
    else if (chance(S_FAULT, g.o.rate[F_SPLIT]))
        network_part();
    if (strikes(S_FAULT, F_CLOG)) {
        unsigned to = (unsigned)pick(S_FAULT, 0, g.o.n - 1);
        g.clog_us[SLOT(n)][to] = (unsigned)pick(S_FAULT, 1000, 300000);
    }
    if (strikes(S_FAULT, F_CLOCK)) {
        n->drift = (unsigned)pick(S_FAULT, 900, 1100);
        if (chance(S_FAULT, 300)) /* the machine slept */
            n->ahead_us += (int64_t)pick(S_FAULT, 1000, chance(S_FAULT, 200) ? 3600000000 : 500000);
    }
    harm_disk(n);
    if (strikes(S_FAULT, F_IMPOSTOR) && n->up && !n->paused)
        impostor(n);
    if (strikes(S_FAULT, F_POWER))
        crash_for(n, some_while(300000, 2000000), true);
    else if (strikes(S_FAULT, F_KILL))
        crash_for(n, some_while(100000, 1000000), false);
    else if (strikes(S_FAULT, F_PAUSE) && n->up && !n->paused) {
        n->paused = true;
        push((struct event){.at_us = g.now_us + some_while(1500000, 5000000), .type = EV_RESUME, .node = SLOT(n), .life = n->life});
    }
}

/* With CHURN leaders die young, often at the very moment of a commit, and those who lead change the members. */
void maybe_strike(struct node *n, bool leads, bool commits)
{
    if (g.calm || n->role != RAFT_LEADER || !g.o.on[F_CHURN])
        return;
    if (leads) {
        g.led_before = g.leads;
        g.leads = SLOT(n);
    }
    if (leads && g.o.on[F_MEMBERS] && chance(S_FAULT, 500)) /* before anything of its term is committed */
        push((struct event){.at_us = g.now_us, .type = EV_STRIKE, .node = SLOT(n), .life = n->life, .from = STRIKE_CHANGE});
    if (leads && g.o.on[F_ONEWAY] && chance(S_FAULT, 500)) /* its first words stay its own */
        for (unsigned i = 0; i < g.o.n; i++)
            g.links[SLOT(n)][i] = LINK_SHUT;
    if (leads ? chance(S_FAULT, 500) : commits && chance(S_FAULT, 300))
        push((struct event){.at_us = g.now_us + (int64_t)pick(S_FAULT, 0, leads ? 8 * g.o.delay_us : 1000), .type = EV_STRIKE,
                            .node = SLOT(n), .life = n->life});
}

void strike(struct node *n, enum strike how)
{
    unsigned what = (unsigned)pick(S_FAULT, 0, 99);
    if (how == STRIKE_ROT) {
        memset(g.clog_us[SLOT(n)], 0, sizeof(g.clog_us[SLOT(n)]));
        if (may_lose(n))
            rot(n, true);
    } else if (how == STRIKE_CHANGE) {
        propose_change(n);
    } else if (what < 60 && (g.o.on[F_POWER] || g.o.on[F_KILL])) {
        crash_for(n, some_while(200000, 1000000), g.o.on[F_POWER]);
    } else {
        network_part();
    }
}
