/* Raft's configuration follows the node table: a node with the role of manager is added as learner, made a
 * voter when it has caught up, and removed when its role or the node is gone. One change at a time. */
#include "manager_internal.h"
#include <shoal/base/file.h>

LOG_MODULE("manager");

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

/* ---- a node that leaves in order ---- */
#define LEFT_MESSAGE "left the cluster"

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
    if (!n || (n->status.state == NODE_DOWN && str_equal(n->status.message, LEFT_MESSAGE))) {
        departed(x, 0, NULL);
        return;
    }
    struct node copy = { 0 };
    struct store_tx *tx = store_tx_new(clock_real_ns());
    node_copy(&copy, n);
    copy.spec.role = ROLE_WORKER; /* Raft lets it go */
    copy.status.state = NODE_DOWN;
    copy.down_since = clock_real_ns();
    str_set(&copy.status.message, LEFT_MESSAGE);
    store_tx_update(tx, TABLE_NODE, &copy);
    node_clear(&copy);
    manager_propose(m, tx, departed, x);
}
