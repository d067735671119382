/* Filters and ranking of one node for one task. A new filter is a new row of filters[]. */
#include "scheduler_internal.h"
#include <shoal/base/planted.h>
#include <stdio.h>

static bool is_ready(const struct candidate *c, const struct task *t, char *why, size_t size)
{
    (void)t;
    if (c->node->status.state == NODE_READY && c->node->spec.availability == AVAIL_ACTIVE)
        return true;
    snprintf(why, size, "%s", c->node->status.state != NODE_READY ? "not ready"
             : node_availability_names[c->node->spec.availability]);
    return false;
}

static bool meets_constraints(const struct candidate *c, const struct task *t, char *why, size_t size)
{
    return CLUSTER_BUG == 13 || constraints_match(t->spec.placement, c->node, why, size);
}

static bool has_platform(const struct candidate *c, const struct task *t, char *why, size_t size)
{
    const struct placement *p = t->spec.placement;
    if (!p || !p->platforms.n)
        return true;
    for (uint32_t i = 0; i < p->platforms.n; i++) {
        const struct platform *want = &p->platforms.v[i];
        bool os = !want->os || str_equal(want->os, c->node->description.platform.os);
        bool arch = !want->arch || !strcmp(arch_normal(want->arch),
                                           arch_normal(c->node->description.platform.arch));
        if (os && arch)
            return true;
    }
    snprintf(why, size, "unsupported platform");
    return false;
}

static bool has_room(const struct candidate *c, const struct task *t, char *why, size_t size)
{
    const struct resource_limits *r = t->spec.resources ? t->spec.resources->reservations : NULL;
    const struct node_resources *have = &c->node->description.resources;
    if (!r)
        return true;
    if (r->nano_cpus && c->nano_cpus + r->nano_cpus > have->nano_cpus) {
        snprintf(why, size, "insufficient CPU");
        return false;
    }
    if (r->memory_bytes && c->memory_bytes + r->memory_bytes > have->memory_bytes) {
        snprintf(why, size, "insufficient memory");
        return false;
    }
    return true;
}

static void host_port_key(char key[32], const struct port *p)
{
    snprintf(key, 32, "%s/%u", port_protocol_names[p->protocol], (unsigned)p->published);
}

static bool has_free_ports(const struct candidate *c, const struct task *t, char *why, size_t size)
{
    for (uint32_t i = 0; i < t->ports.n; i++) {
        const struct port *p = &t->ports.v[i];
        char key[32];
        if (p->mode != PUBLISH_HOST || !p->published)
            continue;
        host_port_key(key, p);
        if (map_find(&c->host_ports, key) && CLUSTER_BUG != 14) {
            snprintf(why, size, "host port %s already in use", key);
            return false;
        }
    }
    return true;
}

static bool below_max_replicas(const struct candidate *c, const struct task *t, char *why, size_t size)
{
    const struct placement *p = t->spec.placement;
    if (!p || !p->max_replicas || candidate_count(c, t->service_id) < p->max_replicas || CLUSTER_BUG == 15)
        return true;
    snprintf(why, size, "max replicas per node reached");
    return false;
}

typedef bool filter_fn(const struct candidate *c, const struct task *t, char *why, size_t size);
static filter_fn *const filters[] = { is_ready, meets_constraints, has_platform, has_room,
                                      has_free_ports, below_max_replicas };

bool candidate_fits(const struct candidate *c, const struct task *t, char *why, size_t why_size)
{
    for (size_t i = 0; i < ARRAY_N(filters); i++)
        if (!filters[i](c, t, why, why_size))
            return false;
    return true;
}

uint32_t candidate_count(const struct candidate *c, const char *service_id)
{
    return service_id ? (uint32_t)(uintptr_t)map_find(&c->by_service, service_id) : 0;
}

static const char *spread_value(const struct candidate *c, const char *descriptor)
{
    const char *v = NULL;
    if (str_starts(descriptor, "node.labels."))
        v = labels_get(&c->node->spec.labels, descriptor + 12);
    else if (str_starts(descriptor, "engine.labels."))
        v = labels_get(&c->node->description.engine.labels, descriptor + 14);
    return v ? v : "";
}

static uint32_t spread_count(const struct candidate *c, const char *descriptor, const struct task *t,
                             const struct candidate *all, uint32_t n)
{
    const char *value = spread_value(c, descriptor);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(spread_value(&all[i], descriptor), value))
            sum += candidate_count(&all[i], t->service_id);
    return sum;
}

static int compare_u32(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

int candidate_compare(const struct candidate *a, const struct candidate *b, const struct task *t,
                      const struct candidate *all, uint32_t n)
{
    const struct placement *p = t->spec.placement;
    for (uint32_t i = 0; p && i < p->preferences.n; i++) {
        const struct spread *s = p->preferences.v[i].spread;
        int r = s ? compare_u32(spread_count(a, s->descriptor, t, all, n),
                                spread_count(b, s->descriptor, t, all, n)) : 0;
        if (r)
            return r;
    }
    int r = compare_u32(candidate_count(a, t->service_id), candidate_count(b, t->service_id));
    return r ? r : compare_u32(a->n_tasks, b->n_tasks);
}

void candidate_take(struct candidate *c, const struct task *t)
{
    const struct resource_limits *r = t->spec.resources ? t->spec.resources->reservations : NULL;
    c->n_tasks++;
    if (t->service_id)
        map_put(&c->by_service, t->service_id,
                (void *)(uintptr_t)(candidate_count(c, t->service_id) + 1));
    if (r) {
        c->nano_cpus += r->nano_cpus;
        c->memory_bytes += r->memory_bytes;
    }
    for (uint32_t i = 0; i < t->ports.n; i++)
        if (t->ports.v[i].mode == PUBLISH_HOST && t->ports.v[i].published) {
            char key[32];
            host_port_key(key, &t->ports.v[i]);
            map_put(&c->host_ports, key, c);
        }
}
