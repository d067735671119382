/* The reaper: tasks of removed services go, tasks of removed nodes are orphans (those of global services go), tasks to be removed go once nothing runs, history is kept to
 * the cluster's limit a slot (more where a restart policy counts attempts). */
#include "slot.h"
#include <shoal/base/planted.h>

static bool is_over(const struct store *s, const struct task *t)
{
    return task_state_is_final(t->status.state) || task_is_lost(s, t) || !t->node_id ||
           t->status.state < TASK_ASSIGNED;
}

static void trim_slot(struct orchestrator_pass *p, const struct slot *slot, int64_t keep)
{
    int64_t n = 0;
    for (uint32_t i = slot->n_tasks; i-- > 0;) {
        const struct task *t = slot->tasks[i];
        if (t->desired <= TASK_RUNNING || !is_over(p->store, t))
            continue;
        bool never_ran = t->status.state < TASK_ASSIGNED;
        if (never_ran || ++n > keep)
            task_drop(p, t);
    }
}

static int64_t history_limit(const struct store *s, const struct service *svc)
{
    const struct cluster *c = store_cluster(s);
    int64_t keep = c ? c->spec.orchestration.history : 5;
    struct restart_policy policy = service_restart_policy(&svc->spec.task);
    return keep < 0 ? INT64_MAX : MAX(keep, (int64_t)policy.max_attempts + 1);
}

/* Its node was removed from the cluster: nobody will ever say how it ended. */
static void orphan(struct orchestrator_pass *p, const struct task *t)
{
    struct task copy = { 0 };
    if (store_tx_touches(p->tx, TABLE_TASK, t->id))
        return;
    task_copy(&copy, t);
    copy.desired = MAX(copy.desired, TASK_SHUTDOWN);
    copy.status.state = TASK_ORPHANED;
    copy.status.timestamp = p->now_ns;
    str_set(&copy.status.message, "its node was removed");
    store_tx_update(p->tx, TABLE_TASK, &copy);
    task_clear(&copy);
}

void reap_tasks(struct orchestrator_pass *p)
{
    for (const struct task *t = NULL; (t = store_next(p->store, TABLE_TASK, t));) {
        const struct service *svc = store_find(p->store, TABLE_SERVICE, t->service_id);
        bool unwanted = !svc || t->desired == TASK_REMOVE;
        bool node_gone = t->node_id && !store_find(p->store, TABLE_NODE, t->node_id);
        if ((unwanted && (is_over(p->store, t) || node_gone)) || (node_gone && !t->slot))
            task_drop(p, t);
        else if (unwanted)
            task_want(p, t, TASK_REMOVE);
        else if (node_gone && !task_state_is_final(t->status.state) && CLUSTER_BUG != 20)
            orphan(p, t);
    }
    for (const struct service *svc = NULL; (svc = store_next(p->store, TABLE_SERVICE, svc));) {
        struct slots all = slots_of(p->store, svc);
        int64_t keep = history_limit(p->store, svc);
        for (uint32_t i = 0; i < all.n; i++)
            trim_slot(p, &all.v[i], keep);
        slots_done(&all);
    }
}
