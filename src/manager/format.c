/* The format that the cluster writes (model/format.h): which one it is, when the leader raises it, who holds it up. */
#include "manager_internal.h"
#include <shoal/base/planted.h>
#include <shoal/model/format.h>

LOG_MODULE("manager");

uint64_t manager_format(const struct manager *m)
{
    const struct cluster *c = store_cluster(m->store);
    return c ? cluster_format(c) : MAX(m->founding_format, UINT64_C(1));
}

void manager_format_plan(const struct manager *m, struct format_plan *ret)
{
    uint64_t format = manager_format(m), next = store_format_known(m->store);
    *ret = (struct format_plan){ .format = format, .next = MIN(format + 1, (uint64_t)FORMAT_MOST) };
    for (const struct node *n = NULL; !ret->waits_for && (n = store_next(m->store, TABLE_NODE, n));)
        if (ret->next > format && !(next > format ? node_keeps_format(n, next) : node_knows_format(n, ret->next)))
            ret->waits_for = n;
}

void format_pass(struct manager *m, struct store_tx *tx)
{
    const struct cluster *c = store_cluster(m->store);
    uint64_t next = store_format_known(m->store);
    struct cluster raised = { 0 };
    bool kept = store_format_kept(m->store, next);
    if (CLUSTER_BUG == 25 || CLUSTER_BUG == 28) { /* 28: and nobody stops at what follows */
        next = FORMAT_MOST;
        kept = true;
    }
    if (next <= cluster_format(c) || !kept || members_has_strangers(m) || store_tx_touches(tx, TABLE_CLUSTER, c->id))
        return;
    cluster_copy(&raised, c);
    raised.format = next;
    log_info("all nodes know format %llu: the cluster writes it from now on", (unsigned long long)next);
    store_tx_update(tx, TABLE_CLUSTER, &raised);
    cluster_clear(&raised);
}
