/* Restarts: a task that ended is replaced by its service's policy, one whose node is lost or drained at
 * once. The replacement waits in READY (image pulled) until its delay is over and its predecessor gone. */
#include "slot.h"
#include <shoal/base/planted.h>

#define REJECTED_DELAY_NS INT64_C(1000000000) /* at least, even if the policy says 0 */

static bool failed(const struct task *t)
{
    return t->status.state == TASK_FAILED || t->status.state == TASK_REJECTED;
}

static uint32_t attempts(const struct orchestrator_pass *p, const struct service *svc,
                         const struct slot *slot, int64_t window_ns)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < slot->n_tasks; i++) {
        const struct task *t = slot->tasks[i];
        if (t->spec_version == svc->spec_version && task_state_is_final(t->status.state) && t->status.state != TASK_ORPHANED &&
            (!window_ns || t->status.timestamp > p->now_ns - window_ns))
            n++;
    }
    return n;
}

static bool policy_allows(struct orchestrator_pass *p, const struct service *svc,
                          const struct slot *slot, const struct task *ended)
{
    struct restart_policy policy = service_restart_policy(&svc->spec.task);
    if (policy.condition == RESTART_NONE || (policy.condition == RESTART_ON_FAILURE && !failed(ended)))
        return false;
    return !policy.max_attempts || attempts(p, svc, slot, policy.window) <= policy.max_attempts;
}

bool slot_is_done(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot)
{
    const struct task *t = slot_newest(slot);
    return t && task_state_is_final(t->status.state) && task_is_current(svc, t) &&
           t->status.state != TASK_SHUTDOWN && t->status.state != TASK_ORPHANED && !policy_allows(p, svc, slot, t);
}

/* A READY task may run when its delay is over and nobody else of its slot still holds the place. */
static void promote(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot,
                    const struct task *t)
{
    if (t->desired != TASK_READY)
        return;
    int64_t delay = MAX(service_restart_policy(&svc->spec.task).delay, REJECTED_DELAY_NS);
    int64_t due = pass_after(p, t->not_before - delay, delay);
    if (due > p->now_ns) {
        pass_due(p, due);
        return;
    }
    if (CLUSTER_BUG == 1 || !slot_is_held(p->store, svc, slot, t))
        task_want(p, t, TASK_RUNNING);
}

void restart_slot(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot)
{
    const struct task *fresh = slot_live(p->store, slot, svc, true);
    const struct task *old = slot_live(p->store, slot, svc, false);
    for (uint32_t i = 0; i < slot->n_tasks; i++) {
        const struct task *t = slot->tasks[i];
        bool surplus = task_is_live(p->store, t) && t != fresh && t != old;
        bool replaced = t == old && fresh && fresh->status.state == TASK_RUNNING;
        if (t->desired <= TASK_RUNNING && (!task_is_live(p->store, t) || surplus || (replaced && CLUSTER_BUG != 2)))
            task_want(p, t, TASK_SHUTDOWN);
    }
    const struct task *live = fresh ? fresh : old;
    if (live) /* also one of an older spec: a paused or slow update may not come to it for long */
        promote(p, svc, slot, live);
    const struct task *newest = slot_newest(slot);
    if (live) {
        if (task_must_move(p->store, live) && (!slot->node || slot->number)) {
            task_want(p, live, TASK_SHUTDOWN);
            task_make(p, svc, slot, TASK_READY, 0);
        }
        return;
    }
    if (!newest || slot_is_done(p, svc, slot) || CLUSTER_BUG == 3)
        return;
    if (slot->node && (slot->node->status.state != NODE_READY ||
                       slot->node->spec.availability != AVAIL_ACTIVE))
        return;
    struct restart_policy policy = service_restart_policy(&svc->spec.task);
    bool ended_itself = task_state_is_final(newest->status.state) &&
                        newest->status.state != TASK_SHUTDOWN && !task_is_lost(p->store, newest);
    int64_t not_before = ended_itself ? pass_after(p, newest->status.timestamp, policy.delay) : 0;
    if (newest->status.state == TASK_REJECTED) { /* its replacement would be refused at once, over and over */
        not_before = pass_after(p, newest->status.timestamp, MAX(policy.delay, REJECTED_DELAY_NS));
        if (not_before > p->now_ns) {
            pass_due(p, not_before);
            return;
        }
    }
    task_make(p, svc, slot, TASK_READY, not_before);
}
