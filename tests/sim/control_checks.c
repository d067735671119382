/* What the simulations of the control plane have in common. */
#include "control_checks.h"
#include "seeds.h"

#include <shoal/base/file.h>

void check_task_change(const struct task *a, const struct task *b)
{
    CHECK(b->status.state >= a->status.state && b->desired >= a->desired, "task %s went from %s (wanted %s) to %s (%s)", b->id,
          task_state_names[a->status.state], task_state_names[a->desired], task_state_names[b->status.state],
          task_state_names[b->desired]);
    CHECK(!task_state_is_final(a->status.state) || a->status.state == b->status.state, "task %s ended twice: %s, %s", b->id,
          task_state_names[a->status.state], task_state_names[b->status.state]);
    CHECK(a->slot == b->slot && str_equal(a->service_id, b->service_id) && (!a->node_id || str_equal(a->node_id, b->node_id)),
          "task %s changed its place", b->id);
}

static void take(struct map *seen, const char *network, const char *addr, const char *whose)
{
    AUTO_FREE char *key = xasprintf("%s %.*s", network, (int)strcspn(addr, "/"), addr);
    CHECK(!map_find(seen, key), "address %s is given to %s and to %s", key, whose, (const char *)map_find(seen, key));
    map_put(seen, key, (void *)(uintptr_t)whose);
}

static bool holds_addresses(const struct task *t)
{
    return !task_state_is_final(t->status.state) || t->status.state == TASK_ORPHANED;
}

void check_addresses(const struct store *s)
{
    struct map seen;
    map_init(&seen);
    for (const struct service *svc = NULL; (svc = store_next(s, TABLE_SERVICE, svc));)
        for (uint32_t i = 0; i < svc->endpoint.vips.n; i++)
            take(&seen, svc->endpoint.vips.v[i].network_id, svc->endpoint.vips.v[i].addr, svc->id);
    for (const struct task *t = NULL; (t = store_next(s, TABLE_TASK, t));)
        for (uint32_t i = 0; i < t->attachments.n && holds_addresses(t); i++)
            for (uint32_t k = 0; k < t->attachments.v[i].addresses.n; k++)
                take(&seen, t->attachments.v[i].network.id, t->attachments.v[i].addresses.v[k], t->id);
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));)
        take(&seen, "tunnel", n->tunnel_addr ? n->tunnel_addr : n->id, n->id);
    map_done(&seen);
}

static int64_t some_ms(struct rng *r, uint64_t lo, uint64_t hi)
{
    return (int64_t)rng_range(r, lo, hi) * MS_NS;
}

static struct update_config *random_config(struct rng *r, enum update_order order, bool rollback)
{
    struct update_config *c = xnew(struct update_config);
    c->parallelism = rng_below(r, 3);
    c->delay = some_ms(r, 0, 1000);
    c->monitor = some_ms(r, 1, 1000);
    c->failure_action = (int)rng_below(r, rollback ? 2 : 3);
    c->max_failure_ratio = (double)rng_below(r, 2) / 2;
    c->order = (int)order;
    return c;
}

void random_service(struct service_spec *s, struct rng *r, const char *name)
{
    str_set(&s->name, name);
    s->task.container = xnew(struct container_spec_model);
    str_set(&s->task.container->image, "busybox:1");
    s->task.restart = xnew(struct restart_policy);
    s->task.restart->delay = some_ms(r, 0, 1000);
    if (rng_chance(r, 750)) {
        s->mode.replicated = xnew(struct replicated);
        s->mode.replicated->replicas = rng_below(r, 7);
    } else {
        s->mode.global = xnew(struct empty);
    }
    enum update_order order = rng_chance(r, 650) ? ORDER_STOP_FIRST : ORDER_START_FIRST;
    s->update = random_config(r, order, false);
    s->rollback = random_config(r, order, true);
    if (rng_chance(r, 700)) {
        struct network_ref *n = REC_ADD(&s->task.networks);
        str_set(&n->target, "net0");
    }
}
