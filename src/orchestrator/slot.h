/* A slot: the place of one replica (a number) or, for a global service, one node; with its tasks, newest
 * last. What the orchestrator reasons about. */
#ifndef ORCHESTRATOR_SLOT_H
#define ORCHESTRATOR_SLOT_H

#include <shoal/model/constraint.h>
#include <shoal/orchestrator.h>

struct slot {
    uint64_t number;             /* 0: global */
    const struct node *node;     /* global: its node */
    const struct task **tasks;   /* borrowed part of slots.tasks; tasks to be REMOVEd are left out */
    uint32_t n_tasks;
};

struct slots {
    struct slot *v;
    uint32_t n;
    const struct task **tasks; /* owned, sorted */
};

/* Groups the service's tasks by slot. Caller calls slots_done. */
struct slots slots_of(const struct store *s, const struct service *svc);
void slots_done(struct slots *all);

/* Nothing runs there any more and nothing will: its node is removed or DOWN. */
bool task_is_lost(const struct store *s, const struct task *t);
/* Wanted, and neither ended nor lost. */
bool task_is_live(const struct store *s, const struct task *t);
/* Its node asks it to move: drained, or constraints no longer hold. */
bool task_must_move(const struct store *s, const struct task *t);
/* Made from the service's present spec, or from one that says the same (after a rollback). */
/* Newest live task of this (current) or any other (not current) spec version; NULL: none. */
const struct task *slot_live(const struct store *s, const struct slot *slot, const struct service *svc,
                             bool current);
/* Does a container other than that of `t` (may be NULL) hold the slot, one that is to be removed included? Never
 * where the service starts new tasks first. */
bool slot_is_held(const struct store *s, const struct service *svc, const struct slot *slot, const struct task *t);
const struct task *slot_newest(const struct slot *slot); /* NULL: empty */

/* Changes, each a no-op when the transaction touches the task already. */
void task_want(struct orchestrator_pass *p, const struct task *t, enum task_state desired);
void task_drop(struct orchestrator_pass *p, const struct task *t);
/* A new task for the slot, of the service's present spec. */
void task_make(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot,
               enum task_state desired, int64_t not_before_ns);
void pass_due(struct orchestrator_pass *p, int64_t at_ns); /* lowers next_ns */
/* When a wait is over that began at `at`. That may be by another machine's clock: where it is further in the future than the wait
 * is long, nobody waits until that clock is right. */
int64_t pass_after(const struct orchestrator_pass *p, int64_t at_ns, int64_t wait_ns);

/* update.c: advances a rolling update or rollback by what is due now. */
void update_service(struct orchestrator_pass *p, const struct service *svc, const struct slots *all);
/* restart.c: replaces ended, lost and moved tasks of one slot. */
void restart_slot(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot);
/* reap.c: removes history and tasks without a service. */
void reap_tasks(struct orchestrator_pass *p);
/* True when the slot ended and its policy says that it stays so. */
bool slot_is_done(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot);

#endif
