/* What must hold: stores of equal index are equal, terms have one leader, tasks and addresses behave, a slot runs once. */
#include "manager_internal.h"
#include "whole.h"

enum { TERMS_MAX = 8192, INDEX_MAX = 65536, CONFIGURATIONS = 32 };
#define FENCE_NS (20 * SEC_NS) /* a node that was called lost and is back ends what was replaced within this time */
#define TOUCH_NS (5 * SEC_NS)  /* and learns of it within this */

struct checks {
    uint64_t state[INDEX_MAX], newest;
    unsigned leader[TERMS_MAX];
    int64_t looked; /* at the containers */
    uint64_t commit; /* that any manager knew */
    struct configuration { uint64_t index, voter[HOSTS_MAX]; unsigned n; } seen[CONFIGURATIONS]; /* in the log of any, the latest */
    unsigned n_seen;
};

static const struct store *store_of(const struct host *h)
{
    return h->loop && h->d.manager ? manager_store(h->d.manager) : NULL;
}

const struct store *newest_store(void)
{
    const struct store *s = NULL, *x;
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (!g.hosts[i].out && (x = store_of(&g.hosts[i])) && (!s || store_index(x) > store_index(s)))
            s = x;
    return s;
}

static struct host *named(const char *node_id)
{
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (str_equal(g.hosts[i].node_id, node_id))
            return &g.hosts[i];
    return NULL;
}

static void node_changed(const struct node *a, const struct node *b)
{
    struct host *h = named(b->id);
    if (!h || (a && a->status.state == b->status.state))
        return;
    say("%s (%s) is %s", h->name, b->id, b->status.state == NODE_DOWN ? "down" : b->status.state == NODE_READY ? "ready" : "disconnected");
    if (b->status.state == NODE_READY) {
        h->stale_until = g.now + TOUCH_NS;
        return;
    }
    if (b->status.state != NODE_DOWN)
        return; /* its tasks stay */
    CHECK(g.now >= h->held_until, "%s is down at once, though many were lost with it", h->name);
    h->stale_until = INT64_MAX;
    for (unsigned i = 0; i < g.n_boxes; i++)
        g.boxes[i].lost |= g.boxes[i].host == h;
}

static void on_change(void *arg, enum store_op op, enum store_table t, const void *old_obj, const void *new_obj)
{
    struct host *h = arg;
    (void)op;
    if (t == TABLE_TASK && old_obj && new_obj)
        check_task_change(old_obj, new_obj);
    if (t == TABLE_CLUSTER && new_obj)
        users_note_key(new_obj);
    if (t == TABLE_NODE && new_obj && store_index(manager_store(h->d.manager)) >= g.checks->newest)
        node_changed(old_obj, new_obj);
}

static void check_store(struct host *h, const struct store *s)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    uint64_t index = store_index(s);
    if (h->watched != s || index < h->checked)
        store_watch((struct store *)(uintptr_t)(h->watched = (struct store *)(uintptr_t)s), on_change, h);
    if (index == h->checked)
        return;
    h->checked = index;
    CHECK(index < INDEX_MAX, "the log is longer than the simulation can watch");
    store_save(s, &b);
    uint64_t state = crypto_shorthash(b.s, b.len) | 1;
    mix(state);
    if (!g.checks->state[index]) {
        g.checks->state[index] = state;
        check_addresses(s);
    }
    CHECK(g.checks->state[index] == state, "%s has another state at index %llu", h->name, U(index));
    g.checks->newest = MAX(g.checks->newest, index);
}

/* A snapshot of its own is of what its store had before. */
static void count_snapshot(struct host *h, const struct store *s, uint64_t snapshot)
{
    if (h->watched == s && snapshot > h->snapshot)
        (*(snapshot > h->checked ? &g.n_installs : &g.n_snapshots))++;
    h->snapshot = snapshot;
}

/* ---- configurations ---- */
static void note_configuration(struct host *h, const struct raft_status *s)
{
    struct raft_member m[RAFT_MEMBERS_MAX];
    struct configuration c = { .index = s->config_index };
    uint32_t n = raft_node_members(h->d.manager->raft, m, RAFT_MEMBERS_MAX);
    for (uint32_t i = 0; i < n; i++)
        if (m[i].voter) {
            CHECK(c.n < HOSTS_MAX, "more voters than hosts");
            c.voter[c.n++] = m[i].id;
        }
    for (unsigned i = 0; i < MIN(g.checks->n_seen, (unsigned)CONFIGURATIONS); i++)
        if (!memcmp(&g.checks->seen[i], &c, sizeof c))
            return;
    g.checks->seen[g.checks->n_seen++ % CONFIGURATIONS] = c;
}

static bool holds(const struct configuration *c, const bool in[HOSTS_MAX])
{
    unsigned n = 0;
    for (unsigned k = 0; k < c->n; k++)
        for (unsigned i = 0; i < g.n_hosts; i++)
            n += in[i] && &g.hosts[i] != g.rotten && g.hosts[i].raft_id == c->voter[k] && !host_is_removed(&g.hosts[i]);
    return n > c->n / 2;
}

/* Of the one that is committed, and of each that may come after it. */
bool is_quorum(const bool in[HOSTS_MAX])
{
    const struct checks *k = g.checks;
    uint64_t committed = 0;
    bool is = true;
    for (unsigned i = 0; i < MIN(k->n_seen, (unsigned)CONFIGURATIONS); i++)
        committed = k->seen[i].index <= k->commit ? MAX(committed, k->seen[i].index) : committed;
    for (unsigned i = 0; i < MIN(k->n_seen, (unsigned)CONFIGURATIONS); i++)
        is &= k->seen[i].index < committed || holds(&k->seen[i], in);
    return is && committed;
}

static void check_raft(struct host *h)
{
    struct raft_status s;
    manager_raft_status(h->d.manager, &s);
    count_snapshot(h, store_of(h), s.snapshot);
    g.checks->commit = MAX(g.checks->commit, s.commit);
    if (s.config_index && (s.config_index != h->config || s.id != h->raft_id))
        note_configuration(h, &s);
    h->config = s.config_index;
    h->raft_id = s.id;
    if (g.rotten == h && s.voter && s.leader && !s.damaged && s.commit >= g.rotten_to)
        g.rotten = NULL;
    if (s.role != RAFT_LEADER)
        return;
    CHECK(s.term < TERMS_MAX, "there are too many terms");
    unsigned *leader = &g.checks->leader[s.term];
    if (!*leader) {
        say("%s leads in term %llu", h->name, U(s.term));
        g.n_leaders++;
    }
    CHECK(!*leader || *leader == h->n + 1, "two leaders in term %llu", U(s.term));
    *leader = h->n + 1;
}

/* The log cannot say it to who cannot read it; of managers it is seen by what they make of the log. */
static void check_format(const struct host *h)
{
    const struct store *s = host_is_member(h) && !h->d.manager ? newest_store() : NULL;
    const struct node *n = s ? store_find(s, TABLE_NODE, daemon_node_id(&h->d)) : NULL;
    CHECK(!n || node_has_left(n) || cluster_format(store_cluster(s)) <= h->format, "%s runs and knows format %u, the cluster writes %llu",
          h->name, h->format, U(cluster_format(store_cluster(s))));
}

/* ---- one container a slot ---- */
static bool runs_once(const struct box *b)
{
    const struct store *s = newest_store();
    const struct service *svc = s ? store_find(s, TABLE_SERVICE, b->service) : NULL;
    return svc && service_update_config(svc->spec.update).order != ORDER_START_FIRST;
}

static bool same_place(const struct box *a, const struct box *b)
{
    return a != b && a->running && b->running && str_equal(a->service, b->service) && a->slot == b->slot &&
           (a->slot || a->host == b->host);
}

void checks_box_started(struct box *b)
{
    b->lost |= g.now < b->host->stale_until;
    for (unsigned i = 0; i < g.n_boxes && !b->lost; i++) {
        const struct box *x = &g.boxes[i];
        CHECK(x->lost || !same_place(b, x) || !runs_once(b), "tasks %s on %s and %s on %s run in slot %llu of service %s", x->task,
              x->host->name, b->task, b->host->name, U(b->slot), b->service);
    }
}

/* Somebody can tell it. */
static bool in_touch(const struct host *h)
{
    if (!h->loop || h->paused || !host_is_member(h))
        return false;
    for (unsigned i = 0; i < g.n_hosts; i++) {
        const struct host *x = &g.hosts[i];
        if (x->loop && !x->paused && !x->out && x->d.manager && manager_leads(x->d.manager) && !is_cut(h, x) && !is_cut(x, h))
            return true;
    }
    return false;
}

/* Of the time in which two of a slot run, what the host was in touch for counts, however often it was not in between. */
static void look_at_boxes(void)
{
    int64_t passed = g.now - g.checks->looked;
    g.checks->looked = g.now;
    for (unsigned i = 0; i < g.n_boxes; i++) {
        struct box *b = &g.boxes[i];
        bool twice = false;
        if (!b->lost || !b->running) {
            b->doubled = 0;
            continue;
        }
        b->doubled += b->twice && b->touched ? passed : 0;
        for (unsigned k = 0; k < g.n_boxes && !twice; k++) /* of two that are lost it is the older one that was replaced */
            twice = (!g.boxes[k].lost || g.boxes[k].since > b->since) && same_place(b, &g.boxes[k]) && runs_once(b);
        b->touched = twice && in_touch(b->host);
        b->twice = twice;
        b->doubled = twice ? b->doubled : 0;
        CHECK(b->doubled < FENCE_NS, "task %s on %s was replaced and still runs", b->task, b->host->name);
    }
}

/* ---- who is suspect gets no new calls ---- */
static bool is_disconnected(const struct assignment *a, const char *node_id)
{
    for (uint32_t i = 0; i < a->nodes.n; i++)
        if (str_equal(a->nodes.v[i].id, node_id))
            return a->nodes.v[i].status.state == NODE_DISCONNECTED; /* its containers go on */
    return false;
}

static void look_at_calls(struct event *e)
{
    for (unsigned i = 0; i < g.n_hosts; i++) {
        struct host *h = &g.hosts[i];
        if (!host_is_member(h) || h->paused || !h->d.gossip)
            continue;
        const struct assignment *a = agent_assignment(h->d.agent);
        for (uint32_t k = 0; k < a->replicas.n; k++) {
            const struct replica *r = &a->replicas.v[k];
            CHECK(gossip_state_of(h->d.gossip, r->node_id) != GOSSIP_SUSPECT || is_disconnected(a, r->node_id) ||
                  !map_find(&h->calls, r->task_id), "%s sends calls to %s on node %s, which it suspects", h->name, r->task_id, r->node_id);
        }
    }
    push(NULL, 100 * MS, e->fn, 0, 0);
}

/* ---- the beginning and the end ---- */
/* What was said of the node that it was is over. */
static void note_node(struct host *h, const char *id)
{
    if (str_equal(h->node_id, id))
        return;
    snprintf(h->node_id, sizeof h->node_id, "%s", id);
    h->stale_until = g.now + TOUCH_NS;
    h->held_until = 0;
}

void checks_event(void)
{
    for (unsigned i = 0; i < g.n_hosts; i++) {
        struct host *h = &g.hosts[i];
        const struct store *s = store_of(h);
        if (host_is_member(h))
            note_node(h, daemon_node_id(&h->d));
        if (g.checks)
            check_format(h);
        if (!s || !g.checks)
            continue;
        g.newest_index = MAX(g.newest_index, store_index(s));
        check_raft(h);
        check_store(h, s);
    }
    if (g.checks)
        look_at_boxes();
}

void checks_start(void)
{
    g.checks = xnew(struct checks);
    g.checks->looked = g.now;
    push(NULL, 0, look_at_calls, 0, 0);
}

void checks_free(void)
{
    free(g.checks);
}

static void show(const struct store *s, const struct service *svc)
{
    uint32_t n;
    const struct task **t = store_tasks_of_service(s, svc->id, &n);
    say("%s, version %llu, update state %d, %s", svc->spec.name, U(svc->spec_version), svc->update_status ? (int)svc->update_status->state : 0,
        svc->spec.mode.global ? "global" : "replicated");
    for (uint32_t i = 0; i < n; i++)
        say("task %s version %llu slot %llu on %s: %s, wanted %s, %s %s", t[i]->id, U(t[i]->spec_version), U(t[i]->slot), t[i]->node_id ? t[i]->node_id : "no node",
            task_state_names[t[i]->status.state], task_state_names[t[i]->desired], t[i]->status.message,
            t[i]->status.err ? t[i]->status.err : "");
}

static bool is_out(const char *node_id)
{
    const struct host *h = node_id ? named(node_id) : NULL;
    return h && h->out;
}

static struct box *running_box(const char *task)
{
    for (unsigned i = 0; i < g.n_boxes; i++)
        if (g.boxes[i].running && str_equal(g.boxes[i].task, task))
            return &g.boxes[i];
    return NULL;
}

static void check_service(const struct store *s, const struct service *svc, unsigned n_nodes)
{
    uint32_t n, running = 0;
    const struct task **t = store_tasks_of_service(s, svc->id, &n);
    int state = svc->update_status ? svc->update_status->state : UPDATE_NONE;
    uint64_t want = svc->spec.mode.global ? n_nodes : svc->spec.mode.replicated->replicas;
    show(s, svc);
    CHECK(state != UPDATE_UPDATING && state != UPDATE_ROLLBACK_STARTED, "the update of %s does not end", svc->spec.name);
    for (uint32_t i = 0; i < n; i++) {
        if (t[i]->status.state != TASK_RUNNING || is_out(t[i]->node_id))
            continue;
        const struct box *b = running_box(t[i]->id);
        running++;
        CHECK(t[i]->desired == TASK_RUNNING, "task %s of %s runs and should not", t[i]->id, svc->spec.name);
        CHECK(b && str_equal(b->host->node_id, t[i]->node_id), "task %s of %s runs in the store only", t[i]->id, svc->spec.name);
    }
    CHECK(running == want, "%s has %u running tasks, not %llu", svc->spec.name, running, U(want));
}

/* What was begun has come to its end, and each disk is locked as the cluster wants it. */
static void check_keys(const struct store *s)
{
    const struct cluster *c = store_cluster(s);
    CHECK(!c->rotating, "the rotation of the cluster key does not end");
    CHECK(c->gossip_keys.n == 1 && !c->keys_due, "the rotation of the gossip keys does not end");
    for (unsigned i = 0; i < g.n_hosts; i++) {
        const struct daemon *d = &g.hosts[i].d;
        if (g.hosts[i].out)
            continue;
        CHECK((d->member.certificate->role == ROLE_MANAGER) == (d->manager != NULL), "%s is a %s by its certificate only", g.hosts[i].name,
              d->manager ? "worker" : "manager");
        CHECK(!memcmp(d->member.certificate->ca_public.v, c->ca_public.v, 32), "the certificate of %s is by an old key", g.hosts[i].name);
        CHECK(d->lock.on == (d->manager && c->spec.encryption.autolock), "%s is %slocked", g.hosts[i].name, d->lock.on ? "" : "not ");
        CHECK(!d->lock.on || !memcmp(d->lock.key, c->unlock_key.v, 32), "%s is locked with an old key", g.hosts[i].name);
        CHECK(!d->identity.old_disk_key.n && !d->lock_unsaved, "%s does not come to its new key", g.hosts[i].name);
    }
}

void checks_end(void)
{
    const struct store *s = newest_store();
    unsigned boxes = 0, running = 0, ready = 0;
    CHECK(s && some_leader(), "there is no leader at the end");
    CHECK(g.n_out || cluster_format(store_cluster(s)) == FORMATS, "all are upgraded, and the cluster writes format %llu", U(cluster_format(store_cluster(s))));
    for (unsigned i = 0; i < g.n_hosts; i++) {
        const struct host *h = &g.hosts[i];
        const struct node *n = store_find(s, TABLE_NODE, h->node_id);
        CHECK(!h->out || !n || n->status.state == NODE_DOWN, "%s (%s) is out, and not down", h->name, h->node_id);
        if (h->out)
            continue;
        CHECK(host_is_member(h), "%s is not in at the end", h->name);
        CHECK(n && n->status.state == NODE_READY, "%s (%s) is not ready at the end", h->name, h->node_id);
        CHECK(!store_of(h) || store_index(store_of(h)) == store_index(s), "%s lags at the end: %llu of %llu", h->name,
              U(store_index(store_of(h))), U(store_index(s)));
        ready += n->spec.availability == AVAIL_ACTIVE;
    }
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));)
        say("node %s: state %d, availability %d, role %d, %s", n->id, n->status.state, n->spec.availability, n->spec.role,
            n->status.message ? n->status.message : "");
    users_check(s);
    clients_check(s);
    check_keys(s);
    for (const struct service *svc = NULL; (svc = store_next(s, TABLE_SERVICE, svc));)
        check_service(s, svc, ready);
    for (const struct task *t = NULL; (t = store_next(s, TABLE_TASK, t));)
        running += t->status.state == TASK_RUNNING && !is_out(t->node_id);
    for (unsigned i = 0; i < g.n_boxes; i++)
        boxes += g.boxes[i].running && !g.boxes[i].host->out;
    CHECK(boxes == running, "%u containers run, for %u tasks", boxes, running);
}
