/* The orchestrator: compares services with their tasks and says what to change. Pure and level-triggered:
 * reads the store, the time and random ids; writes a transaction. Nothing is remembered between calls, so a
 * new leader, a lost message or a restart needs no special case. Task model after SwarmKit's design notes:
 * states only move forward, a replacement is a new task in the same slot.
 *
 * Objects that the transaction already touches are left for the next pass (see store_tx_touches). */
#ifndef SHOAL_ORCHESTRATOR_H
#define SHOAL_ORCHESTRATOR_H

#include <shoal/base/rng.h>
#include <shoal/store.h>

struct orchestrator_pass {
    const struct store *store;
    struct store_tx *tx;     /* changes are added here */
    int64_t now_ns;          /* real time */
    int64_t next_ns;         /* out: earliest time something is due without a change; INT64_MAX: nothing */
    void (*new_id)(char out[26]);
};

/* One pass over all services and tasks: replicas made and removed, restarts by policy, rolling updates and
 * rollback, global services, drained and lost nodes, history trimmed. */
void orchestrate(struct orchestrator_pass *p);

/* The task is what the service's spec asks for now, whichever version of it made the task: it is not replaced. */
bool task_is_current(const struct service *svc, const struct task *t);

#endif
