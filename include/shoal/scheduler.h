/* The scheduler: chooses a node for each pending task. Pure. Filters (ready, constraints, platform,
 * resources, host ports, replicas a node), then ranks: even over spread preferences, fewest tasks of the
 * service, fewest tasks at all. A task that fits nowhere stays PENDING and says why in Status.Err. */
#ifndef SHOAL_SCHEDULER_H
#define SHOAL_SCHEDULER_H

#include <shoal/store.h>

void schedule(const struct store *store, struct store_tx *tx, int64_t now_ns);

#endif
