/* Raft's configuration follows the node table: a node with the role of manager is added as learner, made a
 * voter when it has caught up, and removed when its role or the node is gone. One change at a time. The roles in the
 * node table are a person's choice, or govern.c's. */
#include "manager_internal.h"
#include <shoal/base/file.h>

LOG_MODULE("manager");

enum { LEARNER_LOOK_MS = 250 };

static void change_done(void *arg, int result, uint64_t index)
{
    struct manager *m = arg;
    (void)index;
    m->change_running = false;
    dispatcher_store_changed(m->dispatcher); /* who was voted out gets a worker's certificate */
    if (result < 0 && result != -E_BUSY && result != -E_NOT_LEADER)
        log_warn("change of managers: %s", err_text(result));
    if (m->leads) {
        if (result < 0)
            loop_timer_set(m->change_timer, 50); /* a learner that lags: look again soon */
        else
            manager_want_pass(m);
    }
}

static const struct raft_member *find(const struct raft_member *v, uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i].id == id)
            return &v[i];
    return NULL;
}

bool members_has(const struct manager *m, uint64_t raft_id)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    uint32_t n = raft_node_members(m->raft, members, RAFT_MEMBERS_MAX);
    return find(members, MIN(n, (uint32_t)RAFT_MEMBERS_MAX), raft_id) != NULL;
}

static bool has_manager(const struct store *s, uint64_t raft_id)
{
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));)
        if (n->raft_id == raft_id && n->spec.role == ROLE_MANAGER)
            return true;
    return false;
}

/* A learner that is silent is not asked for again and again; govern.c gives it up in time. */
static bool can_take(const struct raft_member *have)
{
    return !have || (have->last_contact_ms >= 0 && have->last_contact_ms <= GOVERN_CONTACT_MS);
}

void members_reconcile(struct manager *m)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    uint32_t n = raft_node_members(m->raft, members, RAFT_MEMBERS_MAX);
    if (m->change_running || store_count(m->store, TABLE_NODE) == 0)
        return;
    for (const struct node *node = NULL; (node = store_next(m->store, TABLE_NODE, node));) {
        if (node->spec.role != ROLE_MANAGER || !node->raft_id)
            continue;
        const struct raft_member *have = find(members, n, node->raft_id);
        if (have && have->voter)
            continue;
        if (node->status.state == NODE_DOWN)
            continue;
        if (!can_take(have)) {
            loop_timer_set(m->change_timer, LEARNER_LOOK_MS);
            continue;
        }
        m->change_running = true;
        if (have)
            raft_node_promote(m->raft, node->raft_id, change_done, m);
        else
            raft_node_add(m->raft, node->raft_id, node->id, 25, change_done, m);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!has_manager(m->store, members[i].id)) {
            m->change_running = true;
            raft_node_remove(m->raft, members[i].id, change_done, m);
            return;
        }
}

/* ---- the policy ---- */
struct governed *members_view(const struct manager *m, uint32_t *ret_n)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    uint32_t k = MIN(raft_node_members(m->raft, members, RAFT_MEMBERS_MAX), (uint32_t)RAFT_MEMBERS_MAX), n = 0;
    int64_t now = clock_real_ns();
    struct governed *v = xcalloc(store_count(m->store, TABLE_NODE) + 1, sizeof *v);
    for (const struct node *x = NULL; (x = store_next(m->store, TABLE_NODE, x)); n++) {
        govern_view(&v[n], x, members, k, str_equal(x->id, m->leader_id), liveness_is_suspect(m->liveness, x->id), now);
        v[n].answers &= v[n].ready || v[n].leader;
    }
    *ret_n = n;
    return v;
}

bool members_has_strangers(const struct manager *m)
{
    struct raft_member members[RAFT_MEMBERS_MAX];
    uint32_t n = MIN(raft_node_members(m->raft, members, RAFT_MEMBERS_MAX), (uint32_t)RAFT_MEMBERS_MAX);
    for (uint32_t i = 0; i < n; i++)
        if (!has_manager(m->store, members[i].id))
            return true;
    return false;
}

static void governed_done(void *arg, int result, const struct err *e)
{
    struct manager *m = arg;
    m->govern_running = false;
    manager_pass_over(m, result, "change of a role", e);
}

static void change_role(struct manager *m, const struct node *n, const struct govern_change *change)
{
    struct node copy = { 0 };
    int64_t now = clock_real_ns();
    bool promote = change->act == GOVERN_PROMOTE;
    struct store_tx *tx = store_tx_new(now);
    node_copy(&copy, n);
    govern_set_role(&copy, promote ? ROLE_MANAGER : ROLE_WORKER, true, change->reason, now);
    store_tx_update(tx, TABLE_NODE, &copy);
    node_clear(&copy);
    log_info("node %s (%s) becomes a %s: %s", n->id, n->description.hostname ? n->description.hostname : "",
             node_role_names[promote ? ROLE_MANAGER : ROLE_WORKER], change->reason);
    m->govern_running = true;
    manager_propose(m, tx, governed_done, m);
}

void members_govern(struct manager *m)
{
    struct govern_policy policy;
    struct govern_change change;
    uint32_t n;
    if (!store_cluster(m->store) || m->govern_running || m->change_running || members_has_strangers(m))
        return; /* a pass follows each change */
    govern_policy_of(store_cluster(m->store), &policy);
    AUTO_FREE struct governed *v = members_view(m, &n);
    govern(&policy, v, n, &change);
    if (change.act != GOVERN_NOTHING) {
        const struct node *x = NULL;
        for (uint32_t i = 0; i <= change.node; i++)
            x = store_next(m->store, TABLE_NODE, x);
        change_role(m, x, &change);
    } else if (change.next_ms >= 0) {
        loop_timer_set(m->govern_timer, change.next_ms);
    }
}

void manager_plan(const struct manager *m, struct managers_plan *ret)
{
    const struct cluster *c = store_cluster(m->store);
    struct govern_policy policy;
    uint32_t n, answering = 0;
    AUTO_FREE struct governed *v = members_view(m, &n);
    govern_policy_of(c, &policy);
    *ret = (struct managers_plan){ .policy = c->managers ? c->managers : "manual", .replace_after = policy.replace_ms * MS_NS };
    for (uint32_t i = 0; i < n; i++) {
        ret->eligible += govern_is_eligible(&v[i]);
        ret->voters += v[i].voter;
        answering += v[i].voter && v[i].answers;
    }
    ret->wanted = policy.wanted < 0 ? govern_rule(ret->eligible) : (uint32_t)policy.wanted;
    ret->losses = answering - MIN(answering, ret->voters / 2 + 1);
}

int manager_may_leave(const struct manager *m, struct err *e)
{
    uint32_t n, self = 0;
    AUTO_FREE struct governed *v = members_view(m, &n);
    for (const struct node *x = NULL; (x = store_next(m->store, TABLE_NODE, x)) && !str_equal(x->id, m->node_id);)
        self++;
    for (uint32_t i = 0; i < n; i++)
        v[i].answers = v[i].voter && v[i].ready; /* only a leader knows more */
    return self < n ? govern_may_go(v, n, self, "the departure of", e) : 0;
}

/* ---- a node that leaves in order ---- */

struct departure {
    struct manager *m;
    char *node_id;
};

static void departed(void *arg, int result, const struct err *e)
{
    struct departure *x = arg;
    if (result == 0)
        x->m->hooks.send(x->m->hooks.arg, x->node_id, MSG_LEAVE_OK, "", 0);
    else
        log_debug("departure of %s: %s", x->node_id, e->text); /* it asks again */
    free(x->node_id);
    free(x);
}

void members_leave(struct manager *m, const char *node_id)
{
    const struct node *n = store_find(m->store, TABLE_NODE, node_id);
    struct departure *x = xnew(struct departure);
    *x = (struct departure){ m, xstrdup(node_id) };
    if (!n || node_has_left(n)) {
        departed(x, 0, NULL);
        return;
    }
    struct node copy = { 0 };
    struct store_tx *tx = store_tx_new(clock_real_ns());
    node_copy(&copy, n);
    if (copy.spec.role == ROLE_MANAGER)
        govern_set_role(&copy, ROLE_WORKER, false, NODE_LEFT_MESSAGE, clock_real_ns()); /* Raft lets it go */
    copy.status.state = NODE_DOWN;
    copy.down_since = clock_real_ns();
    str_set(&copy.status.message, NODE_LEFT_MESSAGE);
    store_tx_update(tx, TABLE_NODE, &copy);
    node_clear(&copy);
    manager_propose(m, tx, departed, x);
}
