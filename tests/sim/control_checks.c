/* What the simulations of the control plane have in common. */
#include "control_checks.h"
#include "seeds.h"

#include <shoal/base/file.h>
#include <shoal/model/constraint.h>
#include <stdio.h>

enum { REPLICAS_MOST = 6, PER_NODE = 2 };

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

/* ---- placement ---- */

static bool is_placed(const struct task *t, const struct node *n)
{
    return str_equal(t->node_id, n->id) && t->desired == TASK_RUNNING && t->status.state >= TASK_ASSIGNED && t->status.state <= TASK_RUNNING;
}

static void check_node(const struct store *s, const struct node *n)
{
    struct map ports, counts;
    int64_t cpus = 0, memory = 0;
    char why[256];
    map_init(&ports);
    map_init(&counts);
    for (const struct task *t = NULL; (t = store_next(s, TABLE_TASK, t));) {
        const struct placement *p = t->spec.placement;
        if (!is_placed(t, n))
            continue;
        const struct resource_limits *room = t->spec.resources ? t->spec.resources->reservations : NULL;
        CHECK(constraints_match(p, n, why, sizeof why), "task %s is on %s: %s", t->id, n->id, why);
        cpus += room ? room->nano_cpus : 0;
        memory += room ? room->memory_bytes : 0;
        uintptr_t count = (uintptr_t)map_find(&counts, t->service_id) + 1;
        CHECK(!p || !p->max_replicas || count <= p->max_replicas, "%s has %u tasks of service %s, %u are its most", n->id, (unsigned)count,
              t->service_id, (unsigned)p->max_replicas);
        map_put(&counts, t->service_id, (void *)count);
        for (uint32_t i = 0; i < t->ports.n; i++) {
            char key[16];
            if (t->ports.v[i].mode != PUBLISH_HOST)
                continue;
            snprintf(key, sizeof key, "%u", (unsigned)t->ports.v[i].published);
            CHECK(!map_find(&ports, key), "port %s of %s is task %s's and task %s's", key, n->id, t->id, (const char *)map_find(&ports, key));
            map_put(&ports, key, t->id);
        }
    }
    CHECK(cpus <= n->description.resources.nano_cpus && memory <= n->description.resources.memory_bytes,
          "%s has less room than its tasks reserve", n->id);
    map_done(&ports);
    map_done(&counts);
}

void check_placement(const struct store *s)
{
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));)
        check_node(s, n);
}

static void publish(struct service_spec *s, unsigned port, enum publish_mode mode)
{
    s->endpoint = xnew(struct endpoint_spec);
    struct port *p = REC_ADD(&s->endpoint->ports);
    p->target = 80;
    p->published = port;
    p->mode = (int)mode;
}

unsigned service_most(const struct service_spec *s, unsigned n_nodes)
{
    bool host = s->endpoint && s->endpoint->ports.n && s->endpoint->ports.v[0].mode == PUBLISH_HOST;
    unsigned each = host ? 1 : s->task.placement && s->task.placement->max_replicas ? (unsigned)s->task.placement->max_replicas : REPLICAS_MOST;
    return MIN((unsigned)REPLICAS_MOST, each * n_nodes);
}

void random_placement(struct service_spec *s, struct rng *r, unsigned n_nodes, unsigned host_port)
{
    enum { HOST_PORT, PORT, CONSTRAINT, SPREAD, MOST, PLATFORM, ROOM, NOTHING };
    unsigned wish = (unsigned)rng_below(r, 2 * NOTHING);
    wish = wish == MOST && s->mode.global ? NOTHING : wish;
    struct placement *p = wish >= CONSTRAINT && wish <= PLATFORM ? s->task.placement = xnew(struct placement) : NULL;
    if (wish == HOST_PORT)
        publish(s, host_port, PUBLISH_HOST);
    if (wish == PORT)
        publish(s, 0, PUBLISH_INGRESS);
    if (wish == CONSTRAINT)
        strs_add(&p->constraints, rng_chance(r, 500) ? "node.labels.zone==a" : "node.labels.zone != b");
    if (wish == SPREAD) {
        struct spread **spread = &REC_ADD(&p->preferences)->spread;
        *spread = xnew(struct spread);
        str_set(&(*spread)->descriptor, "node.labels.zone");
    }
    if (wish == MOST)
        p->max_replicas = PER_NODE;
    if (wish == PLATFORM) {
        struct platform *x = REC_ADD(&p->platforms);
        str_set(&x->os, "linux");
        str_set(&x->arch, "amd64");
    }
    if (wish == ROOM) { /* of all services at once, with their successors, no more than a node has */
        s->task.resources = xnew(struct resources);
        s->task.resources->reservations = xnew(struct resource_limits);
        s->task.resources->reservations->nano_cpus = SEC_NS / 20;
        s->task.resources->reservations->memory_bytes = 100 << 20;
    }
    if (wish == HOST_PORT || wish == MOST) /* two of a slot may not find room */
        s->update->order = s->rollback->order = ORDER_STOP_FIRST;
    if (s->mode.replicated)
        s->mode.replicated->replicas = MIN(s->mode.replicated->replicas, service_most(s, n_nodes));
}

/* ---- services ---- */

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
        s->mode.replicated->replicas = rng_below(r, REPLICAS_MOST + 1);
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
