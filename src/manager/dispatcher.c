/* The dispatcher: sessions of agents with the leader. An agent says HELLO with the content version it holds;
 * it is sent the complete assignment whenever that differs. Task reports are gathered for a moment and
 * committed in one transaction; an acknowledgement leaves only after its commit, so an agent repeats what a
 * dying leader took with it. States only move forward: an old report changes nothing. The node table, most of what a big
 * cluster has to say, goes apart (table.c): as what changed since the one that the agent holds.
 *
 * Draining. A task that is to be stopped is out of the balancers of all nodes with their next assignment; each says when
 * that is in force. Once all nodes that are READY have said so of a state as new as the task's, its own node is told
 * (Drained), and only then stops it (agent/task.c, which does not wait for ever). Nothing of this is in the log: the next
 * leader asks anew. */
#include "manager_internal.h"
#include <shoal/base/list.h>
#include <shoal/base/planted.h>
#include <shoal/base/file.h>
#include <stdio.h>

LOG_MODULE("dispatcher");

enum { GATHER_MS = 10, HELD_BACK_MAX = 5 /* times that long */, SLICE = 64 /* sessions that are sent to in a turn of the loop */, SLICE_BYTES = 4 << 20,
       FLYING_BYTES = 64 << 20 /* of tables that are sent and not taken yet */, FLYING_LOOK_MS = 5, SMALL_BYTES = 64 << 10, REFUSED_MS = 500 /* the log took none: its disks are full, or there is no quorum */ };

struct session {
    struct list_node node; /* of todo or done */
    struct list_node flying; /* of those that have not taken a big table yet */
    size_t flying_bytes;
    char *node_id;
    uint8_t sent[32]; /* content version sent last */
    bool has_sent;
    struct task_report pending; /* latest status of each task, not yet proposed */
    uint64_t pending_seq, flying_seq;
    struct session_hello hello;   /* what it said */
    struct session_hello sent_to; /* and what it holds when it has taken what was sent */
    bool hello_changed;
    uint64_t sent_index;    /* NodesIndex of what was sent last, or of what it held already */
    uint64_t checked_index; /* of the store, when what was sent last was found to be still what it is to have */
    uint64_t force_index;   /* NodesIndex of what it said to be in force */
    uint64_t table;         /* index of the node table it has when it has taken what was sent */
};

struct dispatcher {
    struct manager *m;
    struct map sessions;
    struct list_node todo, done; /* todo: of the round under way, and those that said HELLO */
    struct list_node waiting;    /* for room for a big table: they hold up no others */
    struct list_node flying;
    size_t flying_bytes, slice_bytes;
    struct pace pace;
    struct loop_timer *send_timer, *slice_timer, *report_timer, *look_timer;
    bool send_due, report_due, report_flying;
    bool sending;           /* a round is under way */
    unsigned held_back;
    uint64_t table_round;   /* the node table of the last round */
    uint64_t drained_index; /* of the store: states up to this one are in force on all nodes that are READY */
    bool draining;          /* some task to be stopped is newer than that */
};

static void session_free(struct dispatcher *d, struct session *s)
{
    d->flying_bytes -= s->flying_bytes;
    task_report_clear(&s->pending);
    session_hello_clear(&s->hello);
    session_hello_clear(&s->sent_to);
    list_remove(&s->node);
    list_remove(&s->flying);
    free(s->node_id);
    free(s);
}

/* ---- draining ---- */
/* The newest state of the store that is in force on the node. */
static uint64_t in_force(const struct session *s)
{
    if (!s->hello.tells || CLUSTER_BUG == 32)
        return UINT64_MAX;
    return s->force_index >= s->sent_index ? s->checked_index : s->force_index;
}

static void add_drained(struct dispatcher *d, struct assignment *a)
{
    a->drains = true;
    for (uint32_t i = 0; i < a->tasks.n; i++) {
        const struct task *t = store_find(d->m->store, TABLE_TASK, a->tasks.v[i].id);
        if (t->desired <= TASK_RUNNING || task_state_is_final(t->status.state))
            continue;
        if (t->version.index <= d->drained_index)
            strs_add(&a->drained, t->id);
        else
            d->draining = true;
    }
}

static void note_sent(struct session *s, uint64_t index)
{
    s->force_index = MAX(s->force_index, s->force_index >= s->sent_index ? s->checked_index : 0);
    s->sent_index = index;
}

static void send_table(struct dispatcher *d, struct session *s)
{
    struct table *t = d->m->table;
    if (!s->hello.tables || s->table == table_index(t))
        return;
    const struct sb *b = table_pack(t, d->m->store, s->table);
    d->m->hooks.send(d->m->hooks.arg, s->node_id, MSG_NODES, b->s, b->len);
    d->slice_bytes += b->len;
    if (b->len > SMALL_BYTES && d->m->hooks.queued) {
        list_remove(&s->flying);
        list_push_back(&d->flying, &s->flying);
        s->flying_bytes += b->len;
        d->flying_bytes += b->len;
    }
    s->table = table_index(t);
}

static void send_one(struct dispatcher *d, struct session *s)
{
    struct assignment a = { 0 };
    struct sb b;
    uint8_t version[32];
    ca_certify_again(d->m, s->node_id, &s->sent_to);
    sb_init(&b, 0);
    sb_add(&b, version, sizeof version); /* its place */
    send_table(d, s);
    assignment_build(d->m->store, s->node_id, s->hello.tables, &a);
    add_drained(d, &a);
    rec_pack(&assignment_rec, &a, &b);
    crypto_sha256(version, b.s + 32, b.len - 32);
    if (!s->has_sent || memcmp(version, s->sent, 32)) {
        a.index = a.nodes_index = store_index(d->m->store); /* these differ while all else is the same */
        a.table = s->hello.tables ? s->table : 0;
        crypto_wipe(b.s + 32, b.len - 32);
        b.len = 32;
        rec_pack(&assignment_rec, &a, &b);
        memcpy(b.s, version, 32);
        d->m->hooks.send(d->m->hooks.arg, s->node_id, MSG_ASSIGNMENT, b.s, b.len);
        memcpy(s->sent, version, 32);
        s->has_sent = true;
        note_sent(s, a.index);
    }
    s->checked_index = store_index(d->m->store);
    crypto_wipe(b.s, b.len); /* secrets travel in it */
    sb_done(&b);
    assignment_clear(&a);
}

static uint64_t in_force_everywhere(const struct dispatcher *d)
{
    uint64_t index = store_index(d->m->store);
    for (const struct node *n = NULL; (n = store_next(d->m->store, TABLE_NODE, n));) {
        const struct session *s = map_find(&d->sessions, n->id);
        if (n->status.state == NODE_READY)
            index = MIN(index, s ? in_force(s) : 0);
    }
    return index;
}

static void look_drained(void *arg)
{
    struct dispatcher *d = arg;
    uint64_t before = d->drained_index;
    if (!d->draining || !d->m->leads)
        return;
    d->drained_index = in_force_everywhere(d);
    if (d->drained_index <= before)
        return;
    d->draining = false;
    for (struct map_item *it = NULL; (it = map_next(&d->sessions, it));) {
        uint32_t n;
        bool due = false;
        const struct task **tasks = store_tasks_of_node(d->m->store, it->key, &n);
        for (uint32_t i = 0; i < n; i++)
            due |= tasks[i]->desired > TASK_RUNNING && !task_state_is_final(tasks[i]->status.state) && tasks[i]->version.index > before;
        if (due) {
            struct session *s = it->value;
            list_remove(&s->node);
            list_push_back(&d->todo, &s->node);
            loop_timer_set(d->slice_timer, 0);
        }
    }
}

void dispatcher_in_force(struct dispatcher *d, const char *node_id, uint64_t nodes_index)
{
    struct session *s = map_find(&d->sessions, node_id);
    if (!s)
        return; /* its HELLO will say it */
    s->force_index = MAX(s->force_index, nodes_index);
    if (d->draining) /* many say so in the same moment: one look at all of them */
        loop_timer_set(d->look_timer, 0);
}

/* If its daemon ended, it goes on with the assignment that it kept, which may be an older one, until it is heard again. */
void dispatcher_link_gone(struct dispatcher *d, const char *node_id)
{
    struct session *s = map_find(&d->sessions, node_id);
    if (!s)
        return;
    s->force_index = 0;
    s->sent_index = UINT64_MAX;
}

/* A round goes through all sessions, some in each turn: heartbeats must not wait for thousands. Its cost decides when the
 * next one begins. */
static void begin_round(struct dispatcher *d)
{
    struct session *s;
    pace_begin(&d->pace);
    d->sending = true;
    d->send_due = false;
    d->table_round = table_index(d->m->table);
    d->drained_index = in_force_everywhere(d); /* a node that is READY again may have fallen behind */
    while ((s = list_first(&d->done, struct session, node))) {
        list_remove(&s->node);
        list_push_back(&d->todo, &s->node);
    }
}

/* A pass that is under way gives new nodes their addresses: with it each goes out once, not twice. */
static bool is_to_wait(struct dispatcher *d)
{
    bool wait = d->m->pass_running && d->table_round != table_index(d->m->table) && d->held_back++ < HELD_BACK_MAX;
    d->held_back = wait ? d->held_back : 0;
    return wait;
}

/* What is queued for all together has a limit, and each has one big table under way at most: who takes it slowly waits for the
 * next one, and nobody waits for him. */
static bool has_room(struct dispatcher *d)
{
    struct session *s;
    list_for(s, &d->flying, flying)
        if (d->m->hooks.queued(d->m->hooks.arg, s->node_id) < SMALL_BYTES) {
            list_remove(&s->flying);
            d->flying_bytes -= s->flying_bytes;
            s->flying_bytes = 0;
        }
    return d->flying_bytes < FLYING_BYTES;
}

static void end_round(struct dispatcher *d)
{
    d->sending = false;
    pace_end(&d->pace);
    look_drained(d); /* who is told nothing new says nothing */
    if (d->send_due)
        loop_timer_set(d->send_timer, MAX(pace_wait_ms(&d->pace), (int64_t)GATHER_MS));
}

static bool must_wait(struct dispatcher *d, const struct session *s)
{
    if (!s->hello.tables || s->table == table_index(d->m->table) || !d->m->hooks.queued)
        return false;
    return s->flying_bytes || (d->flying_bytes >= FLYING_BYTES && table_pack(d->m->table, d->m->store, s->table)->len > SMALL_BYTES);
}

/* Who has taken what was sent, once nobody else is to be told. */
static void wake_waiting(struct dispatcher *d)
{
    struct session *s;
    if (!list_is_empty(&d->todo) || list_is_empty(&d->waiting) || !has_room(d))
        return;
    list_for(s, &d->waiting, node)
        if (!s->flying_bytes) {
            list_remove(&s->node);
            list_push_back(&d->todo, &s->node);
        }
}

static void send_some(void *arg)
{
    struct dispatcher *d = arg;
    struct session *s;
    d->slice_bytes = 0;
    wake_waiting(d);
    bool any = !list_is_empty(&d->todo);
    for (unsigned i = 0; d->m->leads && i < SLICE && d->slice_bytes < SLICE_BYTES && (s = list_first(&d->todo, struct session, node)); i++) {
        list_remove(&s->node);
        if (!store_find(d->m->store, TABLE_NODE, s->node_id)) {
            session_free(d, map_remove(&d->sessions, s->node_id)); /* a node that was removed is told nothing more */
        } else if (must_wait(d, s)) {
            list_push_back(&d->waiting, &s->node);
        } else {
            list_push_back(&d->done, &s->node);
            send_one(d, s);
        }
    }
    if (list_is_empty(&d->todo) && d->sending)
        end_round(d);
    else if (list_is_empty(&d->todo) && any)
        look_drained(d);
    if (!list_is_empty(&d->todo))
        loop_timer_set(d->slice_timer, 0);
    else if (!list_is_empty(&d->waiting) && d->m->leads)
        loop_timer_set(d->slice_timer, FLYING_LOOK_MS);
}

static void send_all(void *arg)
{
    struct dispatcher *d = arg;
    if (!d->m->leads || d->sending)
        return;
    if (is_to_wait(d)) {
        loop_timer_set(d->send_timer, GATHER_MS);
        return;
    }
    begin_round(d);
    send_some(d);
}

const struct session_hello *dispatcher_said(const struct dispatcher *d, const char *node_id)
{
    const struct session *s = map_find(&d->sessions, node_id);
    return s ? &s->hello : NULL;
}

void dispatcher_store_changed(struct dispatcher *d)
{
    if (d->send_due || !d->m->leads)
        return;
    d->send_due = true;
    if (!d->sending)
        loop_timer_set(d->send_timer, MAX(pace_wait_ms(&d->pace), (int64_t)GATHER_MS));
}

static void reports_done(void *arg, int result, const struct err *e);

static void add_update(struct store_tx *tx, const struct store *s, const char *node_id,
                       const struct task_update *u)
{
    const struct task *t = store_find(s, TABLE_TASK, u->id);
    struct task_status told = u->status; /* borrowed */
    /* The node's clock may be ahead, and what waits for a time after this one would wait for that clock. */
    told.timestamp = MIN(told.timestamp, t && t->status.state == told.state ? t->status.timestamp : clock_real_ns());
    if (!t || !str_equal(t->node_id, node_id) || told.state < t->status.state ||
        told.state < TASK_ACCEPTED || task_state_is_final(t->status.state) ||
        task_status_equal(&told, &t->status) || store_tx_touches(tx, TABLE_TASK, t->id))
        return; /* not its task, or nothing new */
    struct task copy = { 0 };
    task_copy(&copy, t);
    task_status_clear(&copy.status);
    task_status_copy(&copy.status, &told);
    store_tx_update(tx, TABLE_TASK, &copy);
    task_clear(&copy);
}

static void add_hello(struct store_tx *tx, const struct store *s, struct session *session)
{
    const struct node *n = store_find(s, TABLE_NODE, session->node_id);
    const struct session_hello *h = &session->hello;
    struct node_formats formats = h->formats;
    session->hello_changed = false;
    if (n && !h->description.mtu) /* it has just begun, and not measured yet */
        session->hello.description.mtu = n->description.mtu;
    if (n)
        formats.promised = MAX(formats.promised, n->formats.promised);
    if (!n || store_tx_touches(tx, TABLE_NODE, n->id) ||
        (node_description_equal(&n->description, &h->description) &&
         str_equal(n->status.addr, h->addr) && n->control_port == h->control_port &&
         n->gossip_port == h->gossip_port && n->tunnel_port == h->tunnel_port &&
         node_formats_equal(&n->formats, &formats)))
        return;
    struct node copy = { 0 };
    node_copy(&copy, n);
    node_description_clear(&copy.description);
    node_description_copy(&copy.description, &h->description);
    str_set(&copy.status.addr, h->addr);
    copy.control_port = h->control_port;
    copy.gossip_port = h->gossip_port;
    copy.tunnel_port = h->tunnel_port;
    copy.formats = formats;
    store_tx_update(tx, TABLE_NODE, &copy);
    node_clear(&copy);
}

static void commit_reports(void *arg)
{
    struct dispatcher *d = arg;
    d->report_due = false;
    if (!d->m->leads || d->report_flying)
        return;
    struct store_tx *tx = store_tx_new(clock_real_ns());
    for (struct map_item *it = NULL; (it = map_next(&d->sessions, it));) {
        struct session *s = it->value;
        for (uint32_t i = 0; i < s->pending.updates.n; i++)
            add_update(tx, d->m->store, s->node_id, &s->pending.updates.v[i]);
        if (s->hello_changed)
            add_hello(tx, d->m->store, s);
        s->flying_seq = s->pending_seq;
    }
    d->report_flying = true;
    if (store_tx_count(tx) == 0) {
        store_tx_free(tx);
        reports_done(d, 0, NULL);
        return;
    }
    manager_propose(d->m, tx, reports_done, d);
}

static void want_commit(struct dispatcher *d)
{
    if (d->report_due || d->report_flying)
        return;
    d->report_due = true;
    loop_timer_set(d->report_timer, GATHER_MS);
}

static void acknowledge(struct dispatcher *d, struct session *s)
{
    uint8_t seq[8];
    for (int i = 0; i < 8; i++)
        seq[i] = (uint8_t)(s->flying_seq >> (56 - 8 * i));
    d->m->hooks.send(d->m->hooks.arg, s->node_id, MSG_REPORT_ACK, seq, sizeof seq);
}

static void reports_done(void *arg, int result, const struct err *e)
{
    struct dispatcher *d = arg;
    bool again = false;
    d->report_flying = false;
    if (result < 0 && result != -E_STALE)
        log_debug("reports not committed: %s", e ? e->text : err_text(result));
    for (struct map_item *it = NULL; (it = map_next(&d->sessions, it));) {
        struct session *s = it->value;
        if (result < 0) {
            again |= s->pending.updates.n > 0; /* STALE: built again from the present state */
            continue;
        }
        if (s->pending_seq == s->flying_seq) {
            if (s->pending.updates.n)
                acknowledge(d, s);
            task_report_clear(&s->pending);
        } else {
            again = true;
        }
    }
    if (again && d->m->leads)
        want_commit(d);
    if (again && d->m->leads && result < 0 && result != -E_STALE)
        loop_timer_set(d->report_timer, REFUSED_MS);
}

void dispatcher_report(struct dispatcher *d, const char *node_id, const struct task_report *r)
{
    struct session *s = map_find(&d->sessions, node_id);
    if (!s) { /* a report before HELLO: a new leader; ask for the HELLO */
        manager_send_leader(d->m, node_id, false);
        return;
    }
    for (uint32_t i = 0; i < r->updates.n; i++) {
        struct task_update *slot = NULL;
        for (uint32_t k = 0; k < s->pending.updates.n; k++)
            if (str_equal(s->pending.updates.v[k].id, r->updates.v[i].id))
                slot = &s->pending.updates.v[k];
        if (slot)
            task_update_clear(slot);
        else
            slot = REC_ADD(&s->pending.updates);
        task_update_copy(slot, &r->updates.v[i]);
    }
    s->pending_seq = r->seq;
    if (CLUSTER_BUG == 21) {
        s->flying_seq = r->seq;
        acknowledge(d, s);
    }
    want_commit(d);
}

void dispatcher_hello(struct dispatcher *d, const char *node_id, const struct session_hello *h)
{
    struct session *s = map_find(&d->sessions, node_id);
    uint64_t epoch = store_cluster(d->m->store) ? store_cluster(d->m->store)->epoch : 0;
    if (!s) {
        s = xnew(struct session);
        s->node_id = xstrdup(node_id);
        map_put(&d->sessions, node_id, s);
        list_push_back(&d->done, &s->node);
    }
    bool news = s->hello.keyring != h->keyring || s->hello.ca.n != h->ca.n || (h->ca.n && memcmp(s->hello.ca.v, h->ca.v, h->ca.n));
    bool same = !h->tables || h->table_epoch == epoch; /* indexes of another epoch say nothing */
    s->has_sent = same && h->have.n == 32;
    if (s->has_sent)
        memcpy(s->sent, h->have.v, 32);
    session_hello_clear(&s->hello);
    session_hello_copy(&s->hello, h);
    session_hello_clear(&s->sent_to);
    session_hello_copy(&s->sent_to, h);
    if (news)
        manager_want_pass(d->m); /* a rotation may have waited for it */
    s->hello_changed = true;
    s->table = same ? h->table : 0;
    s->sent_index = h->held;
    s->force_index = s->checked_index = same ? h->in_force : 0;
    want_commit(d);
    manager_send_leader(d->m, node_id, true);
    list_remove(&s->node); /* many may come in one turn */
    list_push_back(&d->todo, &s->node);
    loop_timer_set(d->slice_timer, 0);
}

struct dispatcher *dispatcher_new(struct manager *m)
{
    struct dispatcher *d = xnew(struct dispatcher);
    d->m = m;
    map_init(&d->sessions);
    list_init(&d->todo);
    list_init(&d->done);
    list_init(&d->waiting);
    list_init(&d->flying);
    d->look_timer = loop_timer_new(m->loop, look_drained, d);
    d->send_timer = loop_timer_new(m->loop, send_all, d);
    d->slice_timer = loop_timer_new(m->loop, send_some, d);
    d->report_timer = loop_timer_new(m->loop, commit_reports, d);
    return d;
}

void dispatcher_forget_all(struct dispatcher *d)
{
    for (struct map_item *it = NULL; (it = map_next(&d->sessions, it));)
        session_free(d, it->value);
    map_done(&d->sessions);
    map_init(&d->sessions);
    d->report_flying = d->report_due = d->send_due = d->sending = d->draining = false;
    d->drained_index = 0;
}

void dispatcher_free(struct dispatcher *d)
{
    if (!d)
        return;
    dispatcher_forget_all(d);
    map_done(&d->sessions);
    loop_timer_free(d->send_timer);
    loop_timer_free(d->slice_timer);
    loop_timer_free(d->look_timer);
    loop_timer_free(d->report_timer);
    free(d);
}
