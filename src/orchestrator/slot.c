/* Slots: grouping of tasks, what counts as live or lost, and the three changes a task can get. */
#include "slot.h"

bool task_is_lost(const struct store *s, const struct task *t)
{
    if (!t->node_id)
        return false;
    const struct node *n = store_find(s, TABLE_NODE, t->node_id);
    return !n || n->status.state == NODE_DOWN;
}

bool task_is_live(const struct store *s, const struct task *t)
{
    return t->desired <= TASK_RUNNING && !task_state_is_final(t->status.state) && !task_is_lost(s, t);
}

bool task_must_move(const struct store *s, const struct task *t)
{
    char why[128];
    const struct node *n = t->node_id ? store_find(s, TABLE_NODE, t->node_id) : NULL;
    return n && (n->spec.availability == AVAIL_DRAIN ||
                 !constraints_match(t->spec.placement, n, why, sizeof why));
}

static const void *slot_key(const struct task *t)
{
    return t->slot ? NULL : t->node_id;
}

static int compare_tasks(const void *a, const void *b)
{
    const struct task *x = *(const struct task *const *)a, *y = *(const struct task *const *)b;
    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    const char *kx = slot_key(x), *ky = slot_key(y);
    int r = kx && ky ? strcmp(kx, ky) : 0;
    if (r)
        return r;
    if (x->created_at != y->created_at)
        return x->created_at < y->created_at ? -1 : 1;
    return strcmp(x->id, y->id);
}

static bool same_slot(const struct task *a, const struct task *b)
{
    return a->slot == b->slot && (a->slot || str_equal(a->node_id, b->node_id));
}

struct slots slots_of(const struct store *s, const struct service *svc)
{
    uint32_t n, kept = 0;
    const struct task **tasks = store_tasks_of_service(s, svc->id, &n);
    struct slots all = { .v = xcalloc(n + 1, sizeof *all.v),
                         .tasks = xcalloc(n + 1, sizeof *all.tasks) };
    for (uint32_t i = 0; i < n; i++)
        if (tasks[i]->desired < TASK_REMOVE)
            all.tasks[kept++] = tasks[i];
    qsort(all.tasks, kept, sizeof *all.tasks, compare_tasks);
    for (uint32_t i = 0; i < kept; i++) {
        if (i == 0 || !same_slot(all.tasks[i - 1], all.tasks[i]))
            all.v[all.n++] = (struct slot){
                .number = all.tasks[i]->slot,
                .tasks = &all.tasks[i],
                .node = all.tasks[i]->slot ? NULL : store_find(s, TABLE_NODE, all.tasks[i]->node_id),
            };
        all.v[all.n - 1].n_tasks++;
    }
    return all;
}

void slots_done(struct slots *all)
{
    free(all->v);
    free(all->tasks);
}

static bool ports_equal(const struct task *t, const struct endpoint *ep)
{
    bool equal = t->ports.n == ep->ports.n;
    for (uint32_t i = 0; equal && i < t->ports.n; i++)
        equal = port_equal(&t->ports.v[i], &ep->ports.v[i]);
    return equal;
}

bool task_is_current(const struct service *svc, const struct task *t)
{
    return t->spec_version == svc->spec_version ||
           (task_spec_equal(&t->spec, &svc->spec.task) && ports_equal(t, &svc->endpoint));
}

const struct task *slot_live(const struct store *s, const struct slot *slot,
                             const struct service *svc, bool current)
{
    for (uint32_t i = slot->n_tasks; i-- > 0;)
        if (task_is_live(s, slot->tasks[i]) &&
            task_is_current(svc, slot->tasks[i]) == current)
            return slot->tasks[i];
    return NULL;
}

bool slot_is_held(const struct store *s, const struct service *svc, const struct slot *slot, const struct task *t)
{
    uint32_t n;
    const struct task **tasks = store_tasks_of_service(s, svc->id, &n);
    if (service_update_config(svc->spec.update).order == ORDER_START_FIRST)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        const struct task *o = tasks[i];
        bool here = slot->node ? !o->slot && str_equal(o->node_id, slot->node->id) : o->slot == slot->number;
        if (here && o != t && o->node_id && o->status.state >= TASK_ASSIGNED && !task_state_is_final(o->status.state) &&
            !task_is_lost(s, o))
            return true;
    }
    return false;
}

const struct task *slot_newest(const struct slot *slot)
{
    return slot->n_tasks ? slot->tasks[slot->n_tasks - 1] : NULL;
}

int64_t pass_after(const struct orchestrator_pass *p, int64_t at_ns, int64_t wait_ns)
{
    return at_ns - p->now_ns > wait_ns ? p->now_ns : at_ns + wait_ns;
}

void pass_due(struct orchestrator_pass *p, int64_t at_ns)
{
    if (at_ns < p->next_ns)
        p->next_ns = at_ns;
}

void task_want(struct orchestrator_pass *p, const struct task *t, enum task_state desired)
{
    if ((int)desired == t->desired || store_tx_touches(p->tx, TABLE_TASK, t->id))
        return;
    ASSERT((int)desired > t->desired || t->desired <= TASK_READY);
    struct task copy = { 0 };
    task_copy(&copy, t);
    copy.desired = desired;
    store_tx_update(p->tx, TABLE_TASK, &copy);
    task_clear(&copy);
}

void task_drop(struct orchestrator_pass *p, const struct task *t)
{
    if (!store_tx_touches(p->tx, TABLE_TASK, t->id))
        store_tx_delete(p->tx, TABLE_TASK, t);
}

void task_make(struct orchestrator_pass *p, const struct service *svc, const struct slot *slot,
               enum task_state desired, int64_t not_before_ns)
{
    struct task t = { 0 };
    char id[26];
    p->new_id(id);
    str_set(&t.id, id);
    str_set(&t.service_id, svc->id);
    str_set(&t.service_name, svc->spec.name);
    str_set(&t.registry_auth, svc->registry_auth);
    task_spec_copy(&t.spec, &svc->spec.task);
    t.slot = slot->number;
    if (slot->node)
        str_set(&t.node_id, slot->node->id);
    t.spec_version = svc->spec_version;
    t.desired = desired;
    t.not_before = not_before_ns;
    t.status.state = TASK_NEW;
    t.status.timestamp = p->now_ns;
    str_set(&t.status.message, "created");
    struct endpoint copy = { 0 };
    endpoint_copy(&copy, &svc->endpoint);
    t.ports.v = TAKE(copy.ports.v);
    t.ports.n = copy.ports.n;
    copy.ports.n = 0;
    endpoint_clear(&copy);
    store_tx_create(p->tx, TABLE_TASK, &t);
    task_clear(&t);
}
