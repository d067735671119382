/* What the simulations of the control plane have in common: what must hold of a store, and services at random. */
#ifndef CONTROL_CHECKS_H
#define CONTROL_CHECKS_H

#include <shoal/base/rng.h>
#include <shoal/store.h>

/* States of tasks only go forward; a task never changes its slot or node. */
void check_task_change(const struct task *a, const struct task *b);
/* No address is given twice, but for those of ended tasks. */
void check_addresses(const struct store *s);
/* Where tasks are that run or are about to: within the constraints, the room and the limits of their nodes, and no two
 * with one port of a host. */
void check_placement(const struct store *s);
/* A spec with this name: replicated or global, on the network net0 or on none. s is zero before. */
void random_service(struct service_spec *s, struct rng *r, const char *name);
/* Then, perhaps, one wish for where it runs, or published ports. All of it can be had on n_nodes nodes, node.labels.zone
 * being "a" and "b" in turn, when no more than service_most() replicas are wanted; host_port: is no other service's. */
void random_placement(struct service_spec *s, struct rng *r, unsigned n_nodes, unsigned host_port);
unsigned service_most(const struct service_spec *s, unsigned n_nodes);

#endif
