/* What the simulations of the control plane have in common: what must hold of a store, and services at random. */
#ifndef CONTROL_CHECKS_H
#define CONTROL_CHECKS_H

#include <shoal/base/rng.h>
#include <shoal/store.h>

/* States of tasks only go forward; a task never changes its slot or node. */
void check_task_change(const struct task *a, const struct task *b);
/* No address is given twice, but for those of ended tasks. */
void check_addresses(const struct store *s);
/* A spec with this name: replicated or global, on the network net0 or on none. s is zero before. */
void random_service(struct service_spec *s, struct rng *r, const char *name);

#endif
