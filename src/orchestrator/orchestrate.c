/* One pass: each service by its mode, then the reaper. */
#include "slot.h"

/* How willingly a slot is given up when a service shrinks: not running first, then the fullest node. */
struct surplus {
    const struct slot *slot;
    bool running;
    uint32_t on_node; /* live tasks of the service on the same node */
};

static int compare_surplus(const void *a, const void *b)
{
    const struct surplus *x = a, *y = b;
    if (x->running != y->running)
        return x->running ? 1 : -1;
    if (x->on_node != y->on_node)
        return x->on_node > y->on_node ? -1 : 1;
    return x->slot->number > y->slot->number ? -1 : 1;
}

static const struct task *any_live(const struct orchestrator_pass *p, const struct service *svc,
                                   const struct slot *slot)
{
    const struct task *t = slot_live(p->store, slot, svc, true);
    return t ? t : slot_live(p->store, slot, svc, false);
}

static void shrink(struct orchestrator_pass *p, const struct service *svc, const struct slots *all,
                   uint32_t surplus_n)
{
    struct surplus *v = xcalloc(all->n, sizeof *v);
    struct map per_node;
    map_init(&per_node);
    for (uint32_t i = 0; i < all->n; i++) {
        const struct task *t = any_live(p, svc, &all->v[i]);
        v[i].slot = &all->v[i];
        v[i].running = t && t->status.state == TASK_RUNNING;
        if (t && t->node_id) {
            uintptr_t n = (uintptr_t)map_find(&per_node, t->node_id) + 1;
            map_put(&per_node, t->node_id, (void *)n);
            v[i].on_node = (uint32_t)n;
        }
    }
    qsort(v, all->n, sizeof *v, compare_surplus);
    for (uint32_t i = 0; i < surplus_n; i++)
        for (uint32_t k = 0; k < v[i].slot->n_tasks; k++)
            task_want(p, v[i].slot->tasks[k], TASK_REMOVE);
    map_done(&per_node);
    free(v);
}

/* In a slot of no wanted task: what is being removed there goes first. */
static void make_first(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot)
{
    task_make(p, svc, slot, slot_is_held(p->store, svc, slot, NULL) ? TASK_READY : TASK_RUNNING, 0);
}

static void grow(struct orchestrator_pass *p, const struct service *svc, const struct slots *all,
                 uint64_t missing)
{
    uint64_t number = 1;
    uint32_t i = 0;
    for (; missing; number++) {
        while (i < all->n && all->v[i].number < number)
            i++;
        if (i < all->n && all->v[i].number == number)
            continue;
        make_first(p, svc, &(struct slot){ .number = number });
        missing--;
    }
}

static void reconcile_replicated(struct orchestrator_pass *p, const struct service *svc,
                                 const struct slots *all)
{
    uint64_t want = svc->spec.mode.replicated->replicas;
    if (all->n > want) {
        shrink(p, svc, all, (uint32_t)(all->n - want));
        return; /* the rest in the next pass, with the surplus gone */
    }
    for (uint32_t i = 0; i < all->n; i++)
        restart_slot(p, svc, &all->v[i]);
    grow(p, svc, all, want - all->n);
    update_service(p, svc, all);
}

static bool node_is_eligible(const struct node *n, const struct service *svc)
{
    char why[128];
    return n->spec.availability != AVAIL_DRAIN &&
           constraints_match(svc->spec.task.placement, n, why, sizeof why);
}

static void reconcile_global(struct orchestrator_pass *p, const struct service *svc,
                             const struct slots *all)
{
    struct map have;
    map_init(&have);
    for (uint32_t i = 0; i < all->n; i++) {
        const struct slot *slot = &all->v[i];
        if (!slot->node)
            continue;
        map_put(&have, slot->node->id, (void *)(uintptr_t)slot);
        if (!node_is_eligible(slot->node, svc)) {
            for (uint32_t k = 0; k < slot->n_tasks; k++)
                task_want(p, slot->tasks[k], TASK_REMOVE);
        } else if (slot->node->status.state != NODE_DOWN) {
            restart_slot(p, svc, slot); /* a task of a lost node waits there: it cannot run elsewhere */
        }
    }
    for (const struct node *n = NULL; (n = store_next(p->store, TABLE_NODE, n));)
        if (!map_find(&have, n->id) && node_is_eligible(n, svc) && n->status.state == NODE_READY &&
            n->spec.availability == AVAIL_ACTIVE)
            make_first(p, svc, &(struct slot){ .node = n });
    update_service(p, svc, all);
    map_done(&have);
}

void orchestrate(struct orchestrator_pass *p)
{
    p->next_ns = INT64_MAX;
    for (const struct service *svc = NULL; (svc = store_next(p->store, TABLE_SERVICE, svc));) {
        if (svc->allocated != svc->spec_version)
            continue; /* addresses and ports first */
        struct slots all = slots_of(p->store, svc);
        if (svc->spec.mode.global)
            reconcile_global(p, svc, &all);
        else
            reconcile_replicated(p, svc, &all);
        slots_done(&all);
    }
    reap_tasks(p);
}
