/* What every control verb shares: leadership, one-object transactions. */
#ifndef MANAGER_CONTROL_H
#define MANAGER_CONTROL_H

#include "manager_internal.h"

int control_ready(const struct manager *m, struct err *e) must_check; /* -E_NOT_LEADER */
void control_create(struct manager *m, enum store_table t, const void *obj, manager_done_fn *done, void *arg);
void control_update(struct manager *m, enum store_table t, const void *obj, manager_done_fn *done, void *arg);
/* Looks ref up, asks `refuse` (may be NULL; sets e and returns < 0), deletes. */
typedef int control_refuse_fn(const struct manager *m, const void *obj, struct err *e);
void control_remove(struct manager *m, enum store_table t, const char *ref, control_refuse_fn *refuse,
                    manager_done_fn *done, void *arg);

#endif
