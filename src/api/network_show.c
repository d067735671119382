/* A network as GET /networks/{} shows it: who is on it, cluster-wide, for the state knows; with verbose=1 also its services,
 * in the form of dockerd (what `docker network inspect --verbose` prints). */
#include "api_internal.h"
#include <stdio.h>
#include <string.h>

struct val *network_val(struct val_doc *d, const struct network *n)
{
    struct val *v = rec_to_val(&network_rec, n, d);
    val_set(d, v, "Containers", val_map(d));
    val_set(d, v, "Scope", val_str(d, "swarm"));
    if (!val_get(v, "IPAM"))
        val_set(d, v, "IPAM", val_map(d));
    return v;
}

static bool has_addresses(const struct task *t)
{
    return t->node_id && t->status.state >= TASK_STARTING && !task_state_is_final(t->status.state);
}

/* The task's address on the network, with its prefix length; NULL: it has none now. */
static const char *address_on(const struct task *t, const struct network *n)
{
    if (!has_addresses(t))
        return NULL;
    for (uint32_t i = 0; i < t->attachments.n; i++)
        if (str_equal(t->attachments.v[i].network.id, n->id) && t->attachments.v[i].addresses.n)
            return t->attachments.v[i].addresses.v[0];
    return NULL;
}

static void use(struct map *used, const char *id)
{
    if (id)
        map_put(used, id, used);
}

void networks_in_use(const struct store *s, struct map *ret)
{
    for (const struct network *n = NULL; (n = store_next(s, TABLE_NETWORK, n));)
        use(ret, n->ingress ? n->id : NULL);
    for (const struct service *svc = NULL; (svc = store_next(s, TABLE_SERVICE, svc));)
        for (uint32_t i = 0; i < svc->spec.task.networks.n; i++)
            use(ret, svc->spec.task.networks.v[i].target);
    for (const struct task *t = NULL; (t = store_next(s, TABLE_TASK, t));)
        for (uint32_t i = 0; has_addresses(t) && i < t->attachments.n; i++)
            use(ret, t->attachments.v[i].addresses.n ? t->attachments.v[i].network.id : NULL);
}

static char *task_name(const struct task *t)
{
    return t->slot ? xasprintf("%s.%llu.%s", t->service_name, (unsigned long long)t->slot, t->id)
                   : xasprintf("%s.%s.%s", t->service_name, t->node_id, t->id);
}

static char *bare_address(const char *addr)
{
    return xstrndup(addr, strcspn(addr, "/"));
}

static struct val *container_val(struct val_doc *d, const struct task *t, const char *addr)
{
    struct val *v = val_map(d);
    AUTO_FREE char *name = task_name(t);
    unsigned b[4] = { 0 };
    char mac[32] = "";
    if (sscanf(addr, "%3u.%3u.%3u.%3u", &b[0], &b[1], &b[2], &b[3]) == 4) /* see shoal/tunnel.h */
        snprintf(mac, sizeof mac, "02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3]);
    val_set(d, v, "Name", val_str(d, name));
    val_set(d, v, "EndpointID", val_str(d, t->id));
    val_set(d, v, "MacAddress", val_str(d, mac));
    val_set(d, v, "IPv4Address", val_str(d, addr));
    val_set(d, v, "IPv6Address", val_str(d, ""));
    return v;
}

static struct val *peer_val(struct val_doc *d, const struct node *n)
{
    struct val *v = val_map(d);
    AUTO_FREE char *name = xasprintf("%s-%.12s", n->description.hostname ? n->description.hostname : "", n->id);
    val_set(d, v, "Name", val_str(d, name));
    val_set(d, v, "IP", val_str(d, n->status.addr ? n->status.addr : ""));
    return v;
}

static struct val *service_task_val(struct val_doc *d, const struct store *s, const struct task *t, const char *addr)
{
    struct val *v = val_map(d), *info = val_map(d);
    const struct node *n = store_find(s, TABLE_NODE, t->node_id);
    AUTO_FREE char *name = task_name(t), *bare = bare_address(addr);
    val_set(d, v, "Name", val_str(d, name));
    val_set(d, v, "EndpointID", val_str(d, t->id));
    val_set(d, v, "EndpointIP", val_str(d, bare));
    val_set(d, info, "Host IP", val_str(d, n && n->status.addr ? n->status.addr : ""));
    val_set(d, info, "State", val_str(d, task_state_names[t->desired == TASK_RUNNING ? t->status.state : t->desired]));
    val_set(d, v, "Info", info);
    return v;
}

static bool service_is_on(const struct service *svc, const struct network *n, const char **ret_vip)
{
    bool on = false;
    *ret_vip = "";
    for (uint32_t i = 0; i < svc->endpoint.vips.n; i++)
        if (str_equal(svc->endpoint.vips.v[i].network_id, n->id)) {
            *ret_vip = svc->endpoint.vips.v[i].addr;
            on = true;
        }
    for (uint32_t i = 0; i < svc->spec.task.networks.n; i++)
        on |= str_equal(svc->spec.task.networks.v[i].target, n->id);
    return on;
}

static void add_services(struct val_doc *d, struct val *services, const struct store *s, const struct network *n)
{
    const char *vip, *addr;
    for (const struct service *svc = NULL; (svc = store_next(s, TABLE_SERVICE, svc));) {
        if (!service_is_on(svc, n, &vip))
            continue;
        struct val *v = val_map(d), *ports = val_list(d), *tasks = val_list(d);
        AUTO_FREE char *bare = bare_address(vip);
        val_set(d, v, "VIP", val_str(d, bare));
        for (uint32_t i = 0; i < svc->endpoint.ports.n; i++) {
            const struct port *p = &svc->endpoint.ports.v[i];
            AUTO_FREE char *text = xasprintf("Target: %u, Publish: %u, Protocol: %s", (unsigned)p->target, (unsigned)p->published,
                                             port_protocol_names[p->protocol]);
            val_push(d, ports, val_str(d, text));
        }
        val_set(d, v, "Ports", ports);
        val_set(d, v, "LocalLBIndex", val_int(d, 0)); /* a mark of IPVS there; there is none here */
        uint32_t n_tasks;
        const struct task **all = store_tasks_of_service(s, svc->id, &n_tasks);
        for (uint32_t i = 0; i < n_tasks; i++)
            if ((addr = address_on(all[i], n)))
                val_push(d, tasks, service_task_val(d, s, all[i], addr));
        val_set(d, v, "Tasks", tasks);
        val_add(d, services, svc->spec.name, v);
    }
}

void network_add_users(struct val_doc *d, struct val *v, const struct store *s, const struct network *n, bool verbose)
{
    struct val *containers = val_map(d), *peers = val_list(d);
    struct map nodes;
    const char *addr;
    map_init(&nodes);
    for (const struct task *t = NULL; (t = store_next(s, TABLE_TASK, t));) {
        if (!(addr = address_on(t, n)))
            continue;
        const char *id = t->status.container && t->status.container->id ? t->status.container->id : t->id;
        val_add(d, containers, id, container_val(d, t, addr));
        map_put(&nodes, t->node_id, &nodes);
    }
    for (const struct node *x = NULL; (x = store_next(s, TABLE_NODE, x));)
        if (n->ingress || map_find(&nodes, x->id))
            val_push(d, peers, peer_val(d, x));
    map_done(&nodes);
    val_set(d, v, "Containers", containers);
    val_set(d, v, "Peers", peers);
    if (verbose) {
        struct val *services = val_map(d);
        add_services(d, services, s, n);
        val_set(d, v, "Services", services);
    }
}
