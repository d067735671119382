/* The way back from a lost quorum: a surviving manager becomes the only one, by an operator's word. The log is forked
 * there, so the managers left behind must never be listened to again: the cluster begins a new epoch, which every
 * certificate carries, and nodes of the new epoch refuse managers of an earlier one. Workers are taken over: the leader
 * gives them certificates of the new epoch when they say HELLO. */
#include "manager_internal.h"
#include <shoal/base/file.h>

LOG_MODULE("recover");

enum { LOOK_MS = 5 };

struct recovery {
    struct manager *m;
    struct loop_timer *look;
    manager_done_fn *done;
    void *arg;
};

static void recovery_free(void *arg)
{
    struct recovery *r = arg;
    loop_timer_free(r->look);
    free(r);
}

static void recovery_end(struct recovery *r, int result, const struct err *e)
{
    r->m->recovery = NULL;
    manager_want_pass(r->m);
    r->done(r->arg, result, e);
    loop_defer(r->m->loop, recovery_free, r);
}

static void add_lost_managers(struct store_tx *tx, const struct manager *m, int64_t now)
{
    for (const struct node *n = NULL; (n = store_next(m->store, TABLE_NODE, n));) {
        struct node copy = { 0 };
        if (n->spec.role != ROLE_MANAGER || str_equal(n->id, m->node_id))
            continue;
        node_copy(&copy, n);
        govern_set_role(&copy, ROLE_WORKER, false, NODE_BEHIND_MESSAGE, now);
        copy.status.state = NODE_DOWN;
        copy.down_since = now;
        str_set(&copy.status.message, NODE_BEHIND_MESSAGE);
        store_tx_update(tx, TABLE_NODE, &copy);
        node_clear(&copy);
    }
}

static void on_epoch(void *arg, int result, const struct err *e)
{
    struct recovery *r = arg;
    if (result == -E_STALE) { /* another change came between: look again */
        loop_timer_set(r->look, LOOK_MS);
        return;
    }
    if (result == 0)
        log_warn("this manager alone is the cluster's from now on, epoch %llu",
                 (unsigned long long)store_cluster(r->m->store)->epoch);
    recovery_end(r, result, e);
}

static void begin_epoch(void *arg)
{
    struct recovery *r = arg;
    struct manager *m = r->m;
    struct cluster copy = { 0 };
    char token[128];
    if (!m->leads) {
        loop_timer_set(r->look, LOOK_MS);
        return;
    }
    int64_t now = clock_real_ns();
    struct store_tx *tx = store_tx_new(now);
    cluster_copy(&copy, store_cluster(m->store));
    copy.epoch++;
    token_make(token, copy.ca_public.v);
    str_set(&copy.tokens->worker, token);
    token_make(token, copy.ca_public.v);
    str_set(&copy.tokens->manager, token);
    store_tx_update(tx, TABLE_CLUSTER, &copy);
    cluster_clear(&copy);
    add_lost_managers(tx, m, now);
    manager_propose(m, tx, on_epoch, r);
}

static void on_alone(void *arg, int result, uint64_t index)
{
    struct recovery *r = arg;
    struct err e;
    (void)index;
    if (result < 0) {
        err_set(&e, -result, "recovery: %s", result == -E_INVALID ? "this node is no voting manager; recover on one that is"
                                                                  : err_text(result));
        recovery_end(r, result, &e);
        return;
    }
    loop_timer_set(r->look, 0);
}

static int refuse_with_leader(const struct manager *m, struct err *e)
{
    if (!store_cluster(m->store))
        return err_set(e, E_UNAVAILABLE, "this manager holds no state yet; recover on another one");
    return m->leader_id ? err_set(e, E_CONFLICT, "the cluster has a leader (node %s) and needs no recovery; lost managers are "
                                  "removed with 'shoal node rm --force NODE'", m->leader_id) : 0;
}

void recover_close(struct manager *m)
{
    struct err e;
    err_set(&e, E_UNAVAILABLE, "the node stopped being a manager in the middle of the recovery");
    if (m->recovery)
        recovery_end(m->recovery, -E_UNAVAILABLE, &e);
}

void manager_recover(struct manager *m, manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    if (refuse_with_leader(m, &e) < 0 || m->recovery) {
        if (m->recovery)
            err_set(&e, E_BUSY, "a recovery is under way already");
        done(arg, -e.code, &e);
        return;
    }
    struct recovery *r = xnew(struct recovery);
    *r = (struct recovery){ .m = m, .done = done, .arg = arg };
    r->look = loop_timer_new(m->loop, begin_epoch, r);
    m->recovery = r;
    raft_node_recover(m->raft, on_alone, r);
}
