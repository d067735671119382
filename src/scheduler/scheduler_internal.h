/* Shared by the scheduler's files. */
#ifndef SCHEDULER_INTERNAL_H
#define SCHEDULER_INTERNAL_H

#include <shoal/model/constraint.h>
#include <shoal/scheduler.h>

/* A node with what its tasks already take, tasks placed in this pass included. */
struct candidate {
    const struct node *node;
    int64_t nano_cpus, memory_bytes; /* reserved */
    uint32_t n_tasks;
    struct map by_service; /* service id -> (void *)(count) */
    struct map host_ports; /* "proto/port" */
};


uint32_t candidate_count(const struct candidate *c, const char *service_id);
/* The filters in order; the first that refuses names itself in why (e.g. "not ready", "insufficient memory"). */
bool candidate_fits(const struct candidate *c, const struct task *t, char *why, size_t why_size);
/* Better for t when < 0. */
int candidate_compare(const struct candidate *a, const struct candidate *b, const struct task *t,
                      const struct candidate *all, uint32_t n);
void candidate_take(struct candidate *c, const struct task *t);

#endif
