/* What one node must know, computed from the store: its tasks, and for every network one of them uses the
 * services, replicas and virtual IPs there; ingress for all; the node table and keys. Pure, and the same
 * bytes whenever the state is the same, so its hash is its version. */
#include "manager_internal.h"

static bool has_id(const struct map *set, const char *id)
{
    return id && map_find(set, id);
}

static void add_task(struct assignment *a, const struct task *t, struct map *networks)
{
    struct task *copy = REC_ADD(&a->tasks);
    task_copy(copy, t);
    /* The agent owns the status from here on: leaving it out keeps reports from echoing back. */
    bool was_final = task_state_is_final(t->status.state);
    int state = t->status.state;
    task_status_clear(&copy->status);
    copy->status.state = was_final ? state : TASK_ASSIGNED;
    copy->version.index = 0;
    copy->updated_at = 0;
    for (uint32_t i = 0; i < t->attachments.n; i++)
        map_put(networks, t->attachments.v[i].network.id, copy);
}

static void add_tasks(const struct store *s, const char *node_id, struct assignment *a,
                      struct map *networks)
{
    uint32_t n;
    const struct task **tasks = store_tasks_of_node(s, node_id, &n);
    for (uint32_t i = 0; i < n; i++)
        if (tasks[i]->status.state >= TASK_ASSIGNED) /* ended ones too: their logs stay while they do */
            add_task(a, tasks[i], networks);
}

static void add_networks(const struct store *s, struct assignment *a, struct map *networks)
{
    for (const struct network *n = NULL; (n = store_next(s, TABLE_NETWORK, n));) {
        if (!n->vni || (!n->ingress && !has_id(networks, n->id)))
            continue;
        map_put(networks, n->id, (void *)(uintptr_t)n);
        network_copy(REC_ADD(&a->networks), n);
    }
}

static void add_files(const struct store *s, struct assignment *a)
{
    struct map done;
    map_init(&done);
    for (uint32_t i = 0; i < a->tasks.n; i++) {
        const struct container_spec_model *c = a->tasks.v[i].spec.container;
        for (uint32_t k = 0; c && k < c->secrets.n; k++) {
            const struct secret *o = store_find(s, TABLE_SECRET, c->secrets.v[k].id);
            if (o && !map_put(&done, o->id, a))
                secret_copy(REC_ADD(&a->secrets), o);
        }
        for (uint32_t k = 0; c && k < c->configs.n; k++) {
            const struct config *o = store_find(s, TABLE_CONFIG, c->configs.v[k].id);
            if (o && !map_put(&done, o->id, a))
                config_copy(REC_ADD(&a->configs), o);
        }
    }
    map_done(&done);
}

static void add_replica(const struct store *s, struct assignment *a, const struct task *t,
                        const struct attachment *at)
{
    const struct node *n = store_find(s, TABLE_NODE, t->node_id);
    struct replica *r = REC_ADD(&a->replicas);
    str_set(&r->network_id, at->network.id);
    str_set(&r->task_id, t->id);
    str_set(&r->service_id, t->service_id);
    str_set(&r->addr, at->addresses.n ? at->addresses.v[0] : NULL);
    str_set(&r->node_id, t->node_id);
    r->slot = t->slot;
    r->ready = t->status.state == TASK_RUNNING && t->desired == TASK_RUNNING && n &&
               n->status.state != NODE_DOWN;
    for (uint32_t i = 0; i < at->aliases.n; i++)
        strs_add(&r->aliases, at->aliases.v[i]);
}

static bool service_is_on(const struct service *svc, const struct map *networks)
{
    for (uint32_t i = 0; i < svc->endpoint.vips.n; i++)
        if (has_id(networks, svc->endpoint.vips.v[i].network_id))
            return true;
    for (uint32_t i = 0; i < svc->spec.task.networks.n; i++)
        if (has_id(networks, svc->spec.task.networks.v[i].target))
            return true;
    return false;
}

static void add_services(const struct store *s, struct assignment *a, const struct map *networks)
{
    for (const struct service *svc = NULL; (svc = store_next(s, TABLE_SERVICE, svc));) {
        if (!service_is_on(svc, networks))
            continue;
        struct service_entry *e = REC_ADD(&a->services);
        str_set(&e->id, svc->id);
        str_set(&e->name, svc->spec.name);
        e->mode = svc->endpoint.spec.mode;
        e->balance = (int)service_balance(&svc->spec);
        for (uint32_t i = 0; i < svc->endpoint.vips.n; i++)
            vip_copy(REC_ADD(&e->vips), &svc->endpoint.vips.v[i]);
        for (uint32_t i = 0; e->mode == ENDPOINT_DNSRR && i < svc->spec.task.networks.n; i++)
            str_set(&REC_ADD(&e->vips)->network_id, svc->spec.task.networks.v[i].target);
        for (uint32_t i = 0; i < svc->endpoint.ports.n; i++)
            port_copy(REC_ADD(&e->ports), &svc->endpoint.ports.v[i]);
    }
    for (const struct task *t = NULL; (t = store_next(s, TABLE_TASK, t));) {
        if (!t->node_id || t->status.state < TASK_STARTING || task_state_is_final(t->status.state))
            continue;
        for (uint32_t i = 0; i < t->attachments.n; i++)
            if (has_id(networks, t->attachments.v[i].network.id))
                add_replica(s, a, t, &t->attachments.v[i]);
    }
}

static void add_nodes(const struct store *s, struct assignment *a)
{
    for (const struct node *n = NULL; !a->nodes_apart && (n = store_next(s, TABLE_NODE, n));) {
        struct node *copy = REC_ADD(&a->nodes);
        node_copy(copy, n);
        copy->version.index = 0;
        copy->updated_at = 0;
    }
    const struct cluster *c = store_cluster(s);
    a->keyring = c ? c->keyring : 0;
    for (uint32_t i = 0; c && i < c->gossip_keys.n; i++)
        gossip_key_copy(REC_ADD(&a->gossip_keys), &c->gossip_keys.v[i]);
    if (c && c->tunnel_psk.n) {
        a->tunnel_psk.v = xmemdup(c->tunnel_psk.v, c->tunnel_psk.n);
        a->tunnel_psk.n = c->tunnel_psk.n;
    }
}

void assignment_build(const struct store *s, const char *node_id, bool nodes_apart, struct assignment *ret)
{
    struct map networks;
    map_init(&networks);
    ret->nodes_apart = nodes_apart;
    add_tasks(s, node_id, ret, &networks);
    add_networks(s, ret, &networks);
    add_files(s, ret);
    add_services(s, ret, &networks);
    add_nodes(s, ret);
    uint64_t next = store_format_known(s);
    ret->format = cluster_format(store_cluster(s));
    ret->format_next = next > ret->format ? next : 0;
    map_done(&networks);
}
