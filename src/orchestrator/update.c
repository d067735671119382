/* Rolling update and rollback. Slots whose live task has an older spec version are replaced, at most
 * Parallelism at a time, with Delay between; failures of new tasks are counted until Monitor has passed
 * after the last; more than MaxFailureRatio pauses, continues or rolls back, as configured. */
#include "slot.h"
#include <shoal/base/planted.h>
#include <stdio.h>

struct progress {
    uint32_t n_dirty;    /* slots still to update */
    uint32_t n_busy;     /* slots whose new task is not running for Delay yet */
    uint32_t n_failed;   /* slots in which a new task failed since the update began */
    int64_t settled_ns;  /* when all run for Monitor */
    bool all_running;
    const char *failed_task;
};

static bool takes_tasks(const struct node *n)
{
    return n && n->status.state == NODE_READY && n->spec.availability == AVAIL_ACTIVE;
}

/* It serves, and nobody is there to replace it: its node will be back or be down. */
static bool is_disconnected(const struct store *s, const struct task *t)
{
    const struct node *n = t->node_id ? store_find(s, TABLE_NODE, t->node_id) : NULL;
    return n && n->status.state == NODE_DISCONNECTED;
}

static struct progress measure(struct orchestrator_pass *p, const struct service *svc,
                               const struct slots *all, const struct update_config *cfg)
{
    struct progress g = { .all_running = true };
    int64_t began = svc->update_status ? svc->update_status->started_at : 0;
    for (uint32_t i = 0; i < all->n; i++) {
        const struct slot *slot = &all->v[i];
        const struct task *fresh = slot_live(p->store, slot, svc, true);
        bool failed_here = false;
        for (uint32_t k = 0; k < slot->n_tasks; k++) {
            const struct task *t = slot->tasks[k];
            if (t->spec_version == svc->spec_version && t->created_at >= began &&
                (t->status.state == TASK_FAILED || t->status.state == TASK_REJECTED)) {
                failed_here = true;
                g.failed_task = t->id;
            }
        }
        g.n_failed += failed_here;
        bool dirty = !fresh && slot_live(p->store, slot, svc, false);
        g.n_dirty += dirty;
        if (!fresh && !dirty && svc->spec.mode.global && !takes_tasks(slot->node))
            continue; /* it is not waited for: a node may be down for days; its task is a new one when it is back */
        if (!fresh && !slot_is_done(p, svc, slot))
            g.all_running = false;
        if (!fresh)
            continue;
        if (fresh->status.state != TASK_RUNNING) {
            g.n_busy++;
            g.all_running = false;
            continue;
        }
        int64_t due = pass_after(p, fresh->status.timestamp, cfg->delay);
        g.settled_ns = MAX(g.settled_ns, pass_after(p, fresh->status.timestamp, cfg->monitor));
        if (fresh->created_at >= began && due > p->now_ns) {
            g.n_busy++;
            pass_due(p, due);
        }
    }
    return g;
}

static void set_state(struct orchestrator_pass *p, const struct service *svc, enum update_state state,
                      const char *message)
{
    if (store_tx_touches(p->tx, TABLE_SERVICE, svc->id))
        return;
    struct service copy = { 0 };
    service_copy(&copy, svc);
    if (!copy.update_status)
        copy.update_status = xnew(struct update_status);
    copy.update_status->state = state;
    str_set(&copy.update_status->message, message);
    if (state == UPDATE_COMPLETED || state == UPDATE_ROLLBACK_COMPLETED)
        copy.update_status->completed_at = p->now_ns;
    store_tx_update(p->tx, TABLE_SERVICE, &copy);
    service_clear(&copy);
}

static void roll_back(struct orchestrator_pass *p, const struct service *svc, const char *message)
{
    if (store_tx_touches(p->tx, TABLE_SERVICE, svc->id))
        return;
    struct service copy = { 0 };
    service_copy(&copy, svc);
    struct service_spec newer = copy.spec;
    copy.spec = *copy.previous;
    *copy.previous = newer;
    copy.spec_version++;
    if (!copy.update_status)
        copy.update_status = xnew(struct update_status);
    copy.update_status->state = UPDATE_ROLLBACK_STARTED;
    copy.update_status->started_at = p->now_ns;
    copy.update_status->completed_at = 0;
    str_set(&copy.update_status->message, message);
    store_tx_update(p->tx, TABLE_SERVICE, &copy);
    service_clear(&copy);
}

static bool too_many_failures(struct orchestrator_pass *p, const struct service *svc,
                              const struct slots *all, const struct update_config *cfg,
                              const struct progress *g, bool is_rollback)
{
    if (!g->n_failed || !all->n || cfg->failure_action == FAILURE_CONTINUE ||
        (double)g->n_failed / all->n <= cfg->max_failure_ratio)
        return false;
    char text[256];
    if (cfg->failure_action == FAILURE_ROLLBACK && svc->previous && !is_rollback) {
        snprintf(text, sizeof text, "update rolled back due to failure or early termination of task %s",
                 g->failed_task);
        roll_back(p, svc, text);
    } else {
        snprintf(text, sizeof text, "%s paused due to failure or early termination of task %s",
                 is_rollback ? "rollback" : "update", g->failed_task);
        set_state(p, svc, is_rollback ? UPDATE_ROLLBACK_PAUSED : UPDATE_PAUSED, text);
    }
    return true;
}

static void replace_slot(struct orchestrator_pass *p, const struct service *svc,
                         const struct slot *slot, const struct task *old, enum update_order order)
{
    if (store_tx_touches(p->tx, TABLE_TASK, old->id))
        return;
    if (order == ORDER_STOP_FIRST && CLUSTER_BUG != 11)
        task_want(p, old, TASK_SHUTDOWN);
    task_make(p, svc, slot, order == ORDER_STOP_FIRST ? TASK_READY : TASK_RUNNING, 0);
}

void update_service(struct orchestrator_pass *p, const struct service *svc, const struct slots *all)
{
    int state = svc->update_status ? svc->update_status->state : UPDATE_NONE;
    if (state == UPDATE_PAUSED || state == UPDATE_ROLLBACK_PAUSED)
        return;
    bool is_rollback = state == UPDATE_ROLLBACK_STARTED;
    bool watched = is_rollback || state == UPDATE_UPDATING;
    struct update_config cfg = service_update_config(is_rollback ? svc->spec.rollback
                                                                 : svc->spec.update);
    struct progress g = measure(p, svc, all, &cfg);
    if (watched && too_many_failures(p, svc, all, &cfg, &g, is_rollback))
        return;
    uint32_t room = cfg.parallelism ? (uint32_t)cfg.parallelism : UINT32_MAX;
    for (uint32_t i = 0; i < all->n && g.n_dirty && g.n_busy < room; i++) {
        const struct slot *slot = &all->v[i];
        const struct task *old = slot_live(p->store, slot, svc, false);
        if (!old || slot_live(p->store, slot, svc, true) || is_disconnected(p->store, old))
            continue;
        replace_slot(p, svc, slot, old, cfg.order);
        g.n_busy++;
    }
    if (!watched || g.n_dirty || !g.all_running)
        return;
    if (g.settled_ns > p->now_ns)
        pass_due(p, g.settled_ns);
    else
        set_state(p, svc, is_rollback ? UPDATE_ROLLBACK_COMPLETED : UPDATE_COMPLETED,
                  is_rollback ? "rollback completed" : "update completed");
}
