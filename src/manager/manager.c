/* The manager's life: Raft and store joined, leadership gained and lost, passes of orchestrator, allocator
 * and scheduler. A pass reads the applied store and proposes one transaction; the next pass starts when that
 * one is applied, so no stage ever decides on a state that is not agreed on. */
#include "manager_internal.h"
#include <shoal/base/le.h>
#include <shoal/base/planted.h>
#include <shoal/base/file.h>
#include <shoal/model/format.h>
#include <shoal/orchestrator.h>
#include <shoal/scheduler.h>
#include <stdio.h>

LOG_MODULE("manager");

enum { REFUSED_WAIT_MS = 500 };

struct proposal {
    struct manager *m;
    manager_done_fn *done;
    void *arg;
};

static void on_apply(void *arg, uint64_t index, uint64_t term, const void *bytes, size_t size)
{
    struct manager *m = arg;
    (void)term;
    struct err e = { 0 };
    int r = store_apply(m->store, index, bytes, size, &e);
    if (r == -E_UNSUPPORTED && CLUSTER_BUG != 28) { /* the others go on from a state that this one cannot know */
        log_error("the log at index %llu: %s; this process stops", (unsigned long long)index, e.text);
        abort();
    }
    if (r < 0)
        m->refusals[index % REFUSALS] = (struct refusal){ .index = index, .err = e };
    dispatcher_store_changed(m->dispatcher);
    manager_want_pass(m);
}

static void on_save(void *arg, struct sb *out)
{
    store_save(((struct manager *)arg)->store, out);
}

static int on_load(void *arg, const void *p, size_t size, struct err *e)
{
    struct manager *m = arg;
    ca_forget_keys(m); /* the watch puts in those of the snapshot */
    int r = store_load(m->store, p, size, e);
    table_replaced(m->table, store_index(m->store));
    return r;
}

static int on_readable(void *arg, const void *p, size_t size, struct err *e)
{
    (void)arg;
    return CLUSTER_BUG == 27 ? 0 : store_readable(p, size, e);
}

static void on_send(void *arg, uint64_t to, const void *p, size_t size)
{
    struct manager *m = arg;
    struct raft_member members[RAFT_MEMBERS_MAX];
    uint32_t n = raft_node_members(m->raft, members, RAFT_MEMBERS_MAX);
    char node_id[26] = "";
    for (uint32_t i = 0; i < n && i < RAFT_MEMBERS_MAX; i++)
        if (members[i].id == to && members[i].context_size == 25) {
            memcpy(node_id, members[i].context, 25);
            node_id[25] = 0;
        }
    m->hooks.send_raft(m->hooks.arg, to, node_id[0] ? node_id : NULL, p, size);
}

static const char *node_id_of_raft(const struct manager *m, uint64_t raft_id, char buf[26])
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    uint32_t n = raft_id ? raft_node_members(m->raft, members, RAFT_MEMBERS_MAX) : 0;
    for (uint32_t i = 0; i < n && i < RAFT_MEMBERS_MAX; i++)
        if (members[i].id == raft_id && members[i].context_size == 25) {
            memcpy(buf, members[i].context, 25);
            buf[25] = 0;
            return buf;
        }
    return NULL;
}

void manager_send_leader(struct manager *m, const char *to, bool accepted)
{
    char p[32];
    int n = snprintf(p, sizeof p, "%c%s", (char)accepted, m->leader_id ? m->leader_id : "");
    m->hooks.send(m->hooks.arg, to, MSG_LEADER, p, (size_t)n);
}

static void tell_leader(struct manager *m)
{
    m->hooks.leader_changed(m->hooks.arg, m->leader_id);
    if (!m->leads)
        return;
    for (const struct node *n = NULL; (n = store_next(m->store, TABLE_NODE, n));)
        manager_send_leader(m, n->id, false);
}

static void maybe_left(struct manager *m);

static void left_later(void *arg)
{
    struct manager *m = arg;
    if (!m->closing)
        maybe_left(m);
}

static void on_changed(void *arg, const struct raft_status *s)
{
    struct manager *m = arg;
    char buf[26];
    const char *leader = s->role == RAFT_LEADER ? m->node_id : node_id_of_raft(m, s->leader, buf);
    bool leads = s->role == RAFT_LEADER && s->ready;
    bool leader_new = !str_equal(leader, m->leader_id), leads_new = leads != m->leads;
    if (!leader_new && !leads_new)
        return;
    if (m->leader_id && !leader)
        m->leader_lost_ms = loop_now_ms(m->loop);
    str_set(&m->leader_id, leader);
    m->leads = leads;
    if (m->left)
        loop_defer(m->loop, left_later, m);
    if (leads_new) {
        log_info("%s term=%llu patience_ms=%u", leads ? "leads" : "leads no more", (unsigned long long)s->term, s->patience_ms);
        m->pass_running = m->change_running = m->govern_running = m->restore_judging = false;
        m->pass_after_ms = 0;
        if (!leads)
            dispatcher_forget_all(m->dispatcher);
        liveness_lead(m->liveness, leads);
        manager_want_pass(m);
    }
    tell_leader(m);
}

/* A follower may hear the leader before it has the configuration that says which node that is. */
static void on_members_changed(void *arg)
{
    struct manager *m = arg;
    struct raft_status s;
    raft_node_status(m->raft, &s);
    on_changed(m, &s);
    manager_want_pass(m);
}

static void on_store_change(void *arg, enum store_op op, enum store_table t, const void *old_obj,
                            const void *new_obj)
{
    struct manager *m = arg;
    if (t == TABLE_NODE) {
        table_changed(m->table, op == STORE_DELETE ? old_obj : NULL, store_index(m->store));
        ca_node_changed(m, old_obj, new_obj);
    }
    if (t == TABLE_CLUSTER)
        table_forget(m->table);
    if (t == TABLE_NODE || t == TABLE_CLUSTER)
        m->hooks.nodes_changed(m->hooks.arg);
    if (t == TABLE_NODE && m->hooks.node_event && old_obj)
        m->hooks.node_event(m->hooks.arg, old_obj, new_obj);
}

void manager_pass_over(struct manager *m, int result, const char *what, const struct err *e)
{
    bool refused = result < 0 && result != -E_STALE && result != -E_NOT_LEADER;
    if (refused && !m->pass_after_ms && !m->closing) /* said once, it may last */
        log_warn("%s refused: %s", what, e->text);
    m->pass_after_ms = refused ? loop_now_ms(m->loop) + REFUSED_WAIT_MS : 0;
    if (m->leads)
        manager_want_pass(m);
}

static void pass_done(void *arg, int result, const struct err *e)
{
    struct manager *m = arg;
    m->pass_running = false;
    manager_pass_over(m, result, "pass", e);
}

static void run_pass(void *arg)
{
    struct manager *m = arg;
    bool wanted = m->pass_wanted;
    m->pass_wanted = false;
    if (!m->leads || m->closing || m->pass_running || m->recovery || !wanted || !store_cluster(m->store)) /* the pass that runs asks for the next one when done */
        return;
    int64_t wait_ms = MAX(m->pass_after_ms - loop_now_ms(m->loop), pace_wait_ms(&m->pass_pace));
    if (wait_ms > 0) {
        loop_timer_set(m->pass_timer, wait_ms);
        return;
    }
    pace_begin(&m->pass_pace);
    members_reconcile(m);
    members_govern(m);
    restore_wait(m);
    int64_t now = clock_real_ns();
    struct store_tx *tx = store_tx_new(now);
    struct orchestrator_pass pass = { .store = m->store, .tx = tx, .now_ns = now,
                                      .next_ns = INT64_MAX, .new_id = id_random };
    orchestrate(&pass);
    allocate(m->store, tx, now);
    schedule(m->store, tx, now);
    rotation_pass(m, tx, now, &pass.next_ns);
    format_pass(m, tx);
    if (pass.next_ns != INT64_MAX)
        loop_timer_set(m->pass_timer, MAX((pass.next_ns - now) / MS_NS + 1, 1));
    pace_end(&m->pass_pace);
    if (store_tx_count(tx) == 0) {
        store_tx_free(tx);
        return;
    }
    m->pass_running = true;
    manager_propose(m, tx, pass_done, m);
}

static void on_pass_timer(void *arg)
{
    manager_want_pass(arg);
}

void manager_want_pass(struct manager *m)
{
    if (m->pass_wanted || m->closing)
        return;
    m->pass_wanted = true;
    loop_defer(m->loop, run_pass, m);
}

static void init_close(struct manager *m);

int manager_open(struct manager **ret, struct loop *l, const struct manager_config *cfg,
                 const struct manager_hooks *hooks, struct err *e)
{
    struct manager *m = xnew(struct manager);
    uint64_t seed;
    crypto_random(&seed, sizeof seed);
    m->loop = l;
    m->hooks = *hooks;
    m->node_id = xstrdup(cfg->node_id);
    m->raft_id = cfg->raft_id;
    m->down_after_ms = cfg->down_after_ms ? cfg->down_after_ms : 2000;
    m->restart_ms = cfg->restart_ms ? cfg->restart_ms : 30000;
    m->store = store_new();
    m->table = table_new();
    map_init(&m->keys);
    map_init(&m->admitting);
    m->dispatcher = dispatcher_new(m);
    m->liveness = liveness_new(m);
    m->pass_timer = loop_timer_new(l, on_pass_timer, m);
    m->change_timer = loop_timer_new(l, on_pass_timer, m);
    m->govern_timer = loop_timer_new(l, on_pass_timer, m);
    m->restore_timer = loop_timer_new(l, on_pass_timer, m);
    store_watch(m->store, on_store_change, m);
    struct raft_hooks rh = { .arg = m, .send = on_send, .apply = on_apply, .snapshot_save = on_save,
                             .snapshot_load = on_load, .readable = on_readable, .changed = on_changed,
                             .members_changed = on_members_changed };
    struct raft_keys keys = { .now = cfg->disk_key, .before = cfg->old_disk_key };
    int r = raft_node_open(&m->raft, l, cfg->dir, &keys, &cfg->raft, &rh, seed, e);
    if (r < 0) {
        manager_close(m);
        return r;
    }
    *ret = m;
    return 0;
}

void manager_close(struct manager *m)
{
    if (!m)
        return;
    m->closing = true;
    raft_node_close(m->raft); /* fails what waits: those callbacks still find everything */
    recover_close(m);
    init_close(m);
    restore_close(m);
    dispatcher_free(m->dispatcher);
    liveness_free(m->liveness);
    loop_timer_free(m->pass_timer);
    loop_timer_free(m->change_timer);
    loop_timer_free(m->govern_timer);
    loop_timer_free(m->restore_timer);
    loop_timer_free(m->left_timer);
    table_free(m->table);
    ca_forget_keys(m);
    map_done(&m->keys);
    map_done(&m->admitting);
    store_free(m->store);
    free(m->leader_id);
    free(m->node_id);
    loop_defer(m->loop, free, m); /* a pass may be deferred */
}

int manager_join_raft(struct manager *m, struct err *e)
{
    struct raft_status s;
    raft_node_status(m->raft, &s);
    return s.id ? 0 : raft_node_join(m->raft, m->raft_id, e);
}

struct init_cluster {
    struct manager *m;
    struct store_tx *tx;
    struct loop_timer *retry;
    manager_done_fn *done;
    void *arg;
};

static void init_free(void *arg)
{
    struct init_cluster *i = arg;
    loop_timer_free(i->retry);
    free(i);
}

static void init_propose(void *arg)
{
    struct init_cluster *i = arg;
    struct raft_status s;
    raft_node_status(i->m->raft, &s);
    if (s.role != RAFT_LEADER || !s.ready) {
        loop_timer_set(i->retry, 2); /* a cluster of one elects itself within milliseconds */
        return;
    }
    i->m->init = NULL;
    manager_propose(i->m, TAKE(i->tx), i->done, i->arg);
    loop_defer(i->m->loop, init_free, i);
}

static void init_close(struct manager *m)
{
    struct init_cluster *i = TAKE(m->init);
    struct err e;
    if (!i)
        return;
    err_set(&e, E_UNAVAILABLE, "the daemon ended before the cluster began");
    store_tx_free(i->tx);
    i->done(i->arg, -e.code, &e);
    loop_defer(m->loop, init_free, i);
}

/* The network of published ports. It holds an address for each task that publishes one, so it is bigger than
 * others; in a pool of the user's own it gets what that pool gives. */
static void create_ingress(struct store_tx *tx, const struct cluster *c)
{
    struct network n = { 0 };
    char id[26];
    id_random(id);
    str_set(&n.id, id);
    str_set(&n.name, "ingress");
    str_set(&n.driver, "overlay");
    n.ingress = true;
    if (c->pools.n == 1 && str_equal(c->pools.v[0], "10.0.0.0/8")) {
        n.ipam = xnew(struct ipam);
        str_set(&n.ipam->driver, "default");
        struct ipam_config *cfg = REC_ADD(&n.ipam->config);
        str_set(&cfg->subnet, "10.255.0.0/16");
    }
    store_tx_create(tx, TABLE_NETWORK, &n);
    network_clear(&n);
}

void manager_init_cluster(struct manager *m, const struct cluster *c, const struct node *self,
                          manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    int r = raft_node_bootstrap(m->raft, m->raft_id, m->node_id, 25, &e);
    if (r < 0) {
        done(arg, r, &e);
        return;
    }
    struct init_cluster *i = xnew(struct init_cluster);
    *i = (struct init_cluster){ .m = m, .tx = store_tx_new(clock_real_ns()), .done = done, .arg = arg };
    m->founding_format = cluster_format(c);
    store_tx_create(i->tx, TABLE_CLUSTER, c);
    store_tx_create(i->tx, TABLE_NODE, self);
    create_ingress(i->tx, c);
    i->retry = loop_timer_new(m->loop, init_propose, i);
    m->init = i;
    init_propose(i);
}

const struct store *manager_store(const struct manager *m)
{
    return m->store;
}

static void key_done(void *arg, int result, uint64_t index)
{
    struct proposal *p = arg;
    struct err e = { 0 };
    (void)index;
    if (result < 0)
        err_set(&e, -result, "%s", err_text(result));
    p->done(p->arg, result, result < 0 ? &e : NULL);
    free(p);
}

void manager_set_disk_key(struct manager *m, const uint8_t key[32], manager_done_fn *done, void *arg)
{
    struct proposal *p = xnew(struct proposal);
    *p = (struct proposal){ .m = m, .done = done, .arg = arg };
    raft_node_set_key(m->raft, key, key_done, p);
}

bool manager_counts(const struct manager *m, uint64_t raft_id)
{
    return members_has(m, raft_id);
}

bool manager_leads(const struct manager *m)
{
    struct raft_status s;
    raft_node_status(m->raft, &s);
    return m->leads && !m->leaving && !s.transferring; /* requests go to the next leader already */
}

/* ---- the end of a leader's process ---- */
enum { HAND_OVER_MS = 2000 };

static void leave_now(void *arg)
{
    struct manager *m = arg;
    loop_fn *left = TAKE(m->left);
    if (left)
        left(m->left_arg);
}

/* The next one may need this node's vote, so its election is waited for. */
static void maybe_left(struct manager *m)
{
    if (m->left && m->leader_id && !str_equal(m->leader_id, m->node_id))
        leave_now(m);
}

static void transferred(void *arg, int result, uint64_t index)
{
    struct manager *m = arg;
    (void)index;
    if (result < 0)
        leave_now(m); /* nobody to take over */
}

void manager_hand_over(struct manager *m, loop_fn *done, void *arg)
{
    struct raft_status s;
    raft_node_status(m->raft, &s);
    m->left = done;
    m->left_arg = arg;
    if (s.role != RAFT_LEADER || m->leaving) {
        leave_now(m);
        return;
    }
    m->leaving = true;
    m->left_timer = loop_timer_new(m->loop, leave_now, m);
    loop_timer_set(m->left_timer, HAND_OVER_MS);
    log_info("hands leadership over before it ends");
    raft_node_transfer(m->raft, 0, transferred, m);
}

int64_t manager_leaderless_ms(const struct manager *m)
{
    return m->leader_id ? 0 : m->leader_lost_ms ? loop_now_ms(m->loop) - m->leader_lost_ms : -1;
}

bool manager_is_suspect(const struct manager *m, const char *node_id)
{
    return liveness_is_suspect(m->liveness, node_id);
}

const char *manager_leader_id(const struct manager *m)
{
    return m->leader_id;
}

void manager_raft_status(const struct manager *m, struct raft_status *ret)
{
    raft_node_status(m->raft, ret);
}

/* Certainly not in the log; why, and what helps. */
static void explain_busy(const struct manager *m, struct err *e)
{
    struct raft_status s;
    raft_node_status(m->raft, &s);
    if (s.space_short || s.disk_full)
        err_set(e, E_UNAVAILABLE, "the disk under the log of manager %s is full; free some there, or remove what is not "
                "needed (removals are taken)", m->node_id);
    else if (s.quorum_short)
        err_set(e, E_UNAVAILABLE, "the disks of most managers are full; free some there, or remove what is not needed "
                "(removals are taken)");
    else if (s.transferring)
        err_set(e, E_UNAVAILABLE, "leadership is being handed over; nothing was changed, try again");
    else
        err_set(e, E_UNAVAILABLE, "%u changes (%llu bytes) wait to be stored by a majority of the managers, no more are "
                "taken until some are; nothing was changed, try again in a moment", s.proposals_pending,
                (unsigned long long)s.uncommitted_bytes);
}

static void proposal_done(void *arg, int result, uint64_t index)
{
    struct proposal *p = arg;
    struct manager *m = p->m;
    struct err e = { 0 };
    const struct refusal *refusal = &m->refusals[index % REFUSALS];
    if ((CLUSTER_BUG == 23 || CLUSTER_BUG == 62) && result == -E_UNAVAILABLE)
        result = CLUSTER_BUG == 23 ? 0 : -E_NOT_LEADER;
    if (result == 0 && refusal->index == index) {
        e = refusal->err;
        result = CLUSTER_BUG == 61 && e.code == E_STALE ? 0 : -e.code;
    } else if (result == -E_UNAVAILABLE) {
        err_set(&e, E_UNAVAILABLE, "the managers lost their quorum or leader meanwhile; whether the "
                "change was made is not known: look before you try again");
    } else if (result == -E_BUSY) {
        explain_busy(m, &e);
        result = -e.code;
    } else if (result < 0) {
        err_set(&e, -result, "%s", err_text(result));
    }
    p->done(p->arg, result, result < 0 ? &e : NULL);
    free(p);
}

void manager_propose(struct manager *m, struct store_tx *tx, manager_done_fn *done, void *arg)
{
    struct err e;
    uint64_t format = manager_format(m);
    if (store_tx_format(tx) > format) {
        err_set(&e, E_UNSUPPORTED, "%s holds what only format %u can say, and this cluster writes format %llu until every node "
                "is upgraded", store_tx_latest(tx), store_tx_format(tx), (unsigned long long)format);
        store_tx_free(tx);
        done(arg, -e.code, &e);
        return;
    }
    struct proposal *p = xnew(struct proposal);
    *p = (struct proposal){ .m = m, .done = done, .arg = arg };
    struct sb b;
    sb_init(&b, 0);
    store_tx_encode(tx, format, &b);
    bool upkeep = store_tx_is_upkeep(tx);
    store_tx_free(tx);
    (upkeep ? raft_node_propose_urgent : raft_node_propose)(m->raft, b.s, b.len, proposal_done, p);
    sb_done(&b);
}

static void read_done(void *arg, int result, uint64_t index)
{
    struct proposal *p = arg;
    struct err e = { 0 };
    (void)index;
    if (result < 0)
        err_set(&e, E_UNAVAILABLE, "the managers have no quorum now; start or reach more of them");
    p->done(p->arg, result, result < 0 ? &e : NULL);
    free(p);
}

void manager_read(struct manager *m, manager_done_fn *done, void *arg)
{
    struct proposal *p = xnew(struct proposal);
    *p = (struct proposal){ .m = m, .done = done, .arg = arg };
    if (CLUSTER_BUG == 22)
        read_done(p, 0, 0);
    else
        raft_node_read(m->raft, read_done, p);
}

void manager_got_raft(struct manager *m, uint64_t from_raft_id, const void *p, size_t size)
{
    raft_node_receive(m->raft, from_raft_id, p, size);
}

/* Who has not heard of this manager, because it was made from a backup, learns of its leader so. */
void manager_link_up(struct manager *m, const char *node_id)
{
    const struct node *n = store_find(m->store, TABLE_NODE, node_id);
    if (m->leads && store_cluster(m->store) && n && str_equal(n->status.message, NODE_UNHEARD_MESSAGE))
        manager_send_leader(m, node_id, false);
}

void manager_link_gone(struct manager *m, const char *node_id)
{
    const struct node *n = store_find(m->store, TABLE_NODE, node_id);
    dispatcher_link_gone(m->dispatcher, node_id);
    if (n && n->raft_id)
        raft_node_peer_gone(m->raft, n->raft_id);
}

void manager_got_message(struct manager *m, const char *from, uint8_t type, const void *p, size_t size)
{
    struct err e;
    if (!m->leads) {
        if (type == MSG_HELLO || type == MSG_REPORT)
            manager_send_leader(m, from, false);
        return;
    }
    if (!store_find(m->store, TABLE_NODE, from))
        return; /* removed from the cluster: nothing it says counts */
    if (type == MSG_LEAVE) {
        members_leave(m, from);
        return;
    }
    liveness_seen(m->liveness, from);
    if (type == MSG_HELLO) {
        struct session_hello h = { 0 };
        if (rec_unpack(&session_hello_rec, &h, p, size, &e) == 0) {
            rec_cut(&node_description_rec, &h.description, manager_format(m));
            dispatcher_hello(m->dispatcher, from, &h);
        }
        session_hello_clear(&h);
    } else if (type == MSG_IN_FORCE && size == 8) {
        dispatcher_in_force(m->dispatcher, from, le_get(p, 8));
    } else if (type == MSG_REPORT) {
        struct task_report r = { 0 };
        if (rec_unpack(&task_report_rec, &r, p, size, &e) == 0) {
            rec_cut(&task_report_rec, &r, manager_format(m));
            dispatcher_report(m->dispatcher, from, &r);
        }
        task_report_clear(&r);
    }
}

void manager_gossip_state(struct manager *m, const char *node_id, bool suspect)
{
    liveness_gossip(m->liveness, node_id, suspect);
}

void manager_gossip_refused(struct manager *m, const char *node_id)
{
    liveness_refused(m->liveness, node_id);
}

static const struct raft_member *member_of(const struct manager *m, uint64_t raft_id, struct raft_member v[RAFT_MEMBERS_MAX])
{
    uint32_t n = raft_id ? MIN(raft_node_members(m->raft, v, RAFT_MEMBERS_MAX), (uint32_t)RAFT_MEMBERS_MAX) : 0;
    for (uint32_t i = 0; i < n; i++)
        if (v[i].id == raft_id)
            return &v[i];
    return NULL;
}

bool manager_node_status(const struct manager *m, const char *node_id, struct manager_status *ret)
{
    const struct node *n = store_find(m->store, TABLE_NODE, node_id);
    if (!n || n->spec.role != ROLE_MANAGER)
        return false;
    struct raft_member members[RAFT_MEMBERS_MAX];
    struct raft_status s;
    const struct raft_member *member = member_of(m, n->raft_id, members);
    bool leader = str_equal(node_id, m->leader_id), voter = member && member->voter;
    raft_node_status(m->raft, &s);
    *ret = (struct manager_status){
        .leader = leader,
        .voter = voter,
        .behind = voter || !m->leads || !member ? 0 : s.last - MIN(member->match, s.last),
        .reachability = liveness_is_suspect(m->liveness, node_id) || n->status.state == NODE_DOWN ? REACH_UNREACHABLE
                        : member && member->damaged ? REACH_REPAIRING
                        : voter ? REACH_REACHABLE : REACH_UNKNOWN, /* it does not count yet */
    };
    ret->addr = xasprintf("%s:%u", n->status.addr ? n->status.addr : "", (unsigned)n->control_port);
    return true;
}
