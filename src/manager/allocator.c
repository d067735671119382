/* The allocator: gives networks their VNI and subnet, nodes their tunnel and ingress address, services their
 * virtual IPs and published ports, tasks their addresses. Pure: what is taken is read from the store each
 * time, what is given is proposed with the objects themselves, so nothing is ever derived anew by a new
 * leader (moby#33795). A task whose network is exhausted stays NEW and says so. */
#include "manager_internal.h"
#include <shoal/base/planted.h>
#include <arpa/inet.h>
#include <stdio.h>

enum {
    PORT_FIRST = 30000, PORT_LAST = 32767, /* published ports that nobody chose */
    VNI_FIRST = 4096,
    TUNNEL_NET = 0x64600000, TUNNEL_BITS = 12, /* 100.96.0.0/12, carrier-grade NAT space: addresses inside the tunnel */
    NODE_NET = 0xac1e0000, NODE_BITS = 16,     /* 172.30.0.0/16: between containers and their host (overlay_io.c) */
};

struct plan {
    const struct store *s;
    struct store_tx *tx;
    int64_t now_ns;
    struct map used;     /* "network/address" as host order number text */
    struct map ports;    /* "proto/port" of ingress */
    struct map cursors;  /* network id -> address given last */
    uint64_t next_vni, next_tunnel;
    bool cluster_changed;
};

struct subnet {
    uint32_t base, mask;
    unsigned bits;
};

static bool subnet_parse(const char *cidr, struct subnet *ret)
{
    char text[64];
    uint64_t bits;
    struct in_addr a;
    snprintf(text, sizeof text, "%s", cidr ? cidr : "");
    char *slash = strchr(text, '/');
    if (!slash)
        return false;
    *slash = 0;
    if (inet_pton(AF_INET, text, &a) != 1 || !str_u64(slash + 1, 1, 30, &bits))
        return false;
    ret->bits = (unsigned)bits;
    ret->mask = UINT32_MAX << (32 - bits);
    ret->base = ntohl(a.s_addr) & ret->mask;
    return true;
}

static void addr_text(char out[64], uint32_t addr, unsigned bits)
{
    struct in_addr a = { .s_addr = htonl(addr) };
    char ip[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &a, ip, sizeof ip);
    if (bits)
        snprintf(out, 64, "%s/%u", ip, bits);
    else
        snprintf(out, 64, "%s", ip);
}

static void used_key(char key[64], const char *network_id, uint32_t addr)
{
    snprintf(key, 64, "%s/%u", network_id, addr);
}

static void mark_used(struct plan *p, const char *network_id, const char *addr)
{
    struct in_addr a;
    char ip[64], key[64];
    snprintf(ip, sizeof ip, "%s", addr ? addr : "");
    ip[strcspn(ip, "/")] = 0;
    if (!network_id || inet_pton(AF_INET, ip, &a) != 1)
        return;
    used_key(key, network_id, ntohl(a.s_addr));
    map_put(&p->used, key, p);
    map_put(&p->cursors, network_id, (void *)(uintptr_t)ntohl(a.s_addr));
}

static const struct network *ingress_network(const struct store *s)
{
    for (const struct network *n = NULL; (n = store_next(s, TABLE_NETWORK, n));)
        if (n->ingress)
            return n;
    return NULL;
}

static void mark_port(struct plan *p, int protocol, uint64_t port)
{
    char key[32];
    snprintf(key, sizeof key, "%d/%u", protocol, (unsigned)port);
    map_put(&p->ports, key, p);
}

static void mark_ports(struct plan *p, const struct endpoint *ep)
{
    for (uint32_t i = 0; i < ep->ports.n; i++)
        if (ep->ports.v[i].mode == PUBLISH_INGRESS && ep->ports.v[i].published)
            mark_port(p, ep->ports.v[i].protocol, ep->ports.v[i].published);
}

static bool holds_addresses(const struct task *t)
{
    if (CLUSTER_BUG == 5 && t->desired > TASK_RUNNING)
        return false;
    return !task_state_is_final(t->status.state) || t->status.state == TASK_ORPHANED;
}

static void mark_all(struct plan *p)
{
    const struct network *ing = ingress_network(p->s);
    for (const struct service *svc = NULL; (svc = store_next(p->s, TABLE_SERVICE, svc));) {
        for (uint32_t i = 0; i < svc->endpoint.vips.n && CLUSTER_BUG != 6; i++)
            mark_used(p, svc->endpoint.vips.v[i].network_id, svc->endpoint.vips.v[i].addr);
        mark_ports(p, &svc->endpoint);
    }
    /* The agent reports an end after the container's namespace is gone; a lost node reports nothing. */
    for (const struct task *t = NULL; (t = store_next(p->s, TABLE_TASK, t));)
        for (uint32_t i = 0; i < t->attachments.n && holds_addresses(t) && CLUSTER_BUG != 4; i++)
            for (uint32_t k = 0; k < t->attachments.v[i].addresses.n; k++)
                mark_used(p, t->attachments.v[i].network.id, t->attachments.v[i].addresses.v[k]);
    for (const struct node *n = NULL; (n = store_next(p->s, TABLE_NODE, n));) {
        mark_port(p, PROTO_TCP, n->control_port);
        mark_port(p, PROTO_UDP, n->gossip_port);
        mark_port(p, PROTO_UDP, n->tunnel_port);
        if (ing)
            mark_used(p, ing->id, n->ingress_addr);
    }
}

/* Next free address after the last one given (so that a freed address rests as long as possible); the
 * network's own, the gateway and the broadcast address are never given. 0: exhausted. */
static uint32_t take_address(struct plan *p, const struct network *net, unsigned *ret_bits)
{
    struct subnet sub;
    if (!net->ipam || !net->ipam->config.n || !subnet_parse(net->ipam->config.v[0].subnet, &sub))
        return 0;
    uint32_t size = ~sub.mask, gateway = sub.base + 1;
    struct in_addr own;
    if (net->ipam->config.v[0].gateway && inet_pton(AF_INET, net->ipam->config.v[0].gateway, &own) == 1)
        gateway = ntohl(own.s_addr);
    uint32_t last = CLUSTER_BUG == 5 ? 0 : (uint32_t)(uintptr_t)map_find(&p->cursors, net->id) & ~sub.mask;
    for (uint32_t i = 1; i < size; i++) {
        uint32_t host = (last + i) % size;
        char key[64];
        if (host == 0 || sub.base + host == gateway)
            continue;
        used_key(key, net->id, sub.base + host);
        if (map_find(&p->used, key))
            continue;
        map_put(&p->used, key, p);
        map_put(&p->cursors, net->id, (void *)(uintptr_t)(sub.base + host));
        *ret_bits = sub.bits;
        return sub.base + host;
    }
    return 0;
}

static bool overlaps(const struct subnet *a, const struct subnet *b)
{
    uint32_t mask = a->mask & b->mask;
    return (a->base & mask) == (b->base & mask);
}

/* Says who has addresses of the subnet already; false: nobody. */
static bool subnet_is_taken(const struct store *s, const struct subnet *sub, char who[300])
{
    const struct subnet own[] = { { TUNNEL_NET, UINT32_MAX << (32 - TUNNEL_BITS), TUNNEL_BITS },
                                  { NODE_NET, UINT32_MAX << (32 - NODE_BITS), NODE_BITS } };
    for (unsigned i = 0; i < ARRAY_N(own); i++)
        if (overlaps(sub, &own[i])) {
            char text[64];
            addr_text(text, own[i].base, own[i].bits);
            snprintf(who, 300, "shoal itself (%s)", text);
            return true;
        }
    for (const struct network *n = NULL; (n = store_next(s, TABLE_NETWORK, n));) {
        struct subnet other;
        for (uint32_t i = 0; n->ipam && i < n->ipam->config.n; i++)
            if (subnet_parse(n->ipam->config.v[i].subnet, &other) && overlaps(sub, &other)) {
                snprintf(who, 300, "network %s (%s)", n->name, n->ipam->config.v[i].subnet);
                return true;
            }
    }
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));) {
        struct in_addr a;
        if (n->status.addr && inet_pton(AF_INET, n->status.addr, &a) == 1 && (ntohl(a.s_addr) & sub->mask) == sub->base) {
            snprintf(who, 300, "node %s (%s)", n->id, n->status.addr);
            return true;
        }
    }
    return false;
}

int allocator_check_subnet(const struct store *s, const struct ipam_config *c, struct err *e)
{
    struct subnet sub;
    struct in_addr a;
    char who[300];
    if (!c->subnet)
        return c->gateway ? err_set(e, E_INVALID, "IPAM.Config[0].Gateway: give its Subnet too") : 0;
    if (!subnet_parse(c->subnet, &sub) || sub.bits < 8 || sub.bits > 29)
        return err_set(e, E_INVALID, "IPAM.Config[0].Subnet: \"%s\" must be like 10.20.0.0/24, with a prefix length of 8 to 29", c->subnet);
    if (c->gateway && (inet_pton(AF_INET, c->gateway, &a) != 1 || (ntohl(a.s_addr) & sub.mask) != sub.base))
        return err_set(e, E_INVALID, "IPAM.Config[0].Gateway: \"%s\" is no address in %s", c->gateway, c->subnet);
    if (subnet_is_taken(s, &sub, who))
        return err_set(e, E_INVALID, "IPAM.Config[0].Subnet: %s shares addresses with %s; choose another", c->subnet, who);
    return 0;
}

static bool subnet_is_free(const struct plan *p, const struct subnet *sub, const struct map *given)
{
    char key[16], who[300];
    if (subnet_is_taken(p->s, sub, who))
        return false;
    snprintf(key, sizeof key, "%u", sub->base);
    return !map_find(given, key);
}

static bool take_subnet(struct plan *p, char out[64], char gateway[64], struct map *given)
{
    const struct cluster *c = store_cluster(p->s);
    for (uint32_t i = 0; i < c->pools.n; i++) {
        struct subnet pool, sub;
        if (!subnet_parse(c->pools.v[i], &pool))
            continue;
        uint32_t step = UINT32_C(1) << (32 - c->subnet_size);
        for (uint32_t base = pool.base; (base & pool.mask) == pool.base; base += step) {
            sub = (struct subnet){ .base = base, .bits = (unsigned)c->subnet_size,
                                   .mask = UINT32_MAX << (32 - c->subnet_size) };
            if (subnet_is_free(p, &sub, given)) {
                char key[16];
                snprintf(key, sizeof key, "%u", base);
                map_put(given, key, p);
                addr_text(out, base, sub.bits);
                addr_text(gateway, base + 1, 0);
                return true;
            }
            if (base + step < base)
                break;
        }
    }
    return false;
}

static void allocate_networks(struct plan *p)
{
    struct map given;
    map_init(&given);
    for (const struct network *n = NULL; (n = store_next(p->s, TABLE_NETWORK, n));) {
        if (n->vni || store_tx_touches(p->tx, TABLE_NETWORK, n->id))
            continue;
        struct network copy = { 0 };
        network_copy(&copy, n);
        if (!copy.ipam)
            copy.ipam = xnew(struct ipam);
        if (!copy.ipam->driver)
            str_set(&copy.ipam->driver, "default");
        struct ipam_config *cfg = copy.ipam->config.n ? copy.ipam->config.v : REC_ADD(&copy.ipam->config);
        char subnet[64], gateway[64];
        struct subnet sub;
        bool ok = true;
        if (!cfg->subnet) {
            ok = take_subnet(p, subnet, gateway, &given);
            if (ok) {
                str_set(&cfg->subnet, subnet);
                str_set(&cfg->gateway, gateway);
            }
        } else if (!cfg->gateway && subnet_parse(cfg->subnet, &sub)) {
            addr_text(gateway, sub.base + 1, 0);
            str_set(&cfg->gateway, gateway);
        }
        if (ok) {
            copy.vni = p->next_vni++;
            p->cluster_changed = true;
            store_tx_update(p->tx, TABLE_NETWORK, &copy);
        }
        network_clear(&copy);
    }
    map_done(&given);
}

static void allocate_nodes(struct plan *p)
{
    const struct network *ing = ingress_network(p->s);
    for (const struct node *n = NULL; (n = store_next(p->s, TABLE_NODE, n));) {
        bool ingress_due = ing && ing->vni && !n->ingress_addr;
        if ((n->tunnel_addr && !ingress_due) || store_tx_touches(p->tx, TABLE_NODE, n->id))
            continue;
        struct node copy = { 0 };
        char text[64];
        unsigned bits;
        node_copy(&copy, n);
        if (!copy.tunnel_addr) {
            addr_text(text, TUNNEL_NET + (uint32_t)p->next_tunnel++, 0);
            str_set(&copy.tunnel_addr, text);
            p->cluster_changed = true;
        }
        uint32_t addr = ingress_due ? take_address(p, ing, &bits) : 0;
        if (addr) {
            addr_text(text, addr, bits);
            str_set(&copy.ingress_addr, text);
        }
        store_tx_update(p->tx, TABLE_NODE, &copy);
        node_clear(&copy);
    }
}

/* Networks a service's tasks are attached to; ingress first when a port is published through it. */
static uint32_t networks_of(const struct store *s, const struct service *svc,
                            const struct network *out[64])
{
    uint32_t n = 0;
    const struct network *ing = ingress_network(s);
    for (uint32_t i = 0; ing && svc->spec.endpoint && i < svc->spec.endpoint->ports.n; i++)
        if (svc->spec.endpoint->ports.v[i].mode == PUBLISH_INGRESS) {
            out[n++] = ing;
            break;
        }
    for (uint32_t i = 0; i < svc->spec.task.networks.n && n < 64; i++) {
        const struct network *net = store_find(s, TABLE_NETWORK, svc->spec.task.networks.v[i].target);
        if (net)
            out[n++] = net;
    }
    return n;
}

static void choose_ports(struct plan *p, struct service *svc)
{
    struct endpoint_spec *want = svc->spec.endpoint;
    struct endpoint_spec copy = { 0 };
    if (want)
        endpoint_spec_copy(&copy, want);
    for (uint32_t i = 0; i < svc->endpoint.ports.n; i++)
        port_clear(&svc->endpoint.ports.v[i]);
    free(svc->endpoint.ports.v);
    endpoint_spec_clear(&svc->endpoint.spec);
    for (uint32_t i = 0; i < copy.ports.n; i++) {
        struct port *port = &copy.ports.v[i];
        for (uint32_t n = PORT_FIRST; port->mode == PUBLISH_INGRESS && !port->published && n <= PORT_LAST; n++) {
            char key[32];
            snprintf(key, sizeof key, "%d/%u", port->protocol, n);
            if (!map_find(&p->ports, key)) {
                map_put(&p->ports, key, p);
                port->published = n;
            }
        }
    }
    svc->endpoint.ports.v = TAKE(copy.ports.v);
    svc->endpoint.ports.n = copy.ports.n;
    copy.ports.n = 0;
    endpoint_spec_clear(&copy);
    if (want)
        endpoint_spec_copy(&svc->endpoint.spec, want);
}

static bool choose_vips(struct plan *p, struct service *svc, const struct network *const *nets, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        bool have = false;
        for (uint32_t k = 0; k < svc->endpoint.vips.n; k++)
            have |= str_equal(svc->endpoint.vips.v[k].network_id, nets[i]->id);
        if (have || (svc->endpoint.spec.mode == ENDPOINT_DNSRR))
            continue;
        unsigned bits = 0;
        uint32_t addr = take_address(p, nets[i], &bits);
        char text[64];
        if (!addr)
            return false;
        struct vip *v = REC_ADD(&svc->endpoint.vips);
        addr_text(text, addr, bits);
        str_set(&v->network_id, nets[i]->id);
        str_set(&v->addr, text);
    }
    return true;
}

static void drop_old_vips(struct service *svc, const struct network *const *nets, uint32_t n)
{
    for (uint32_t k = svc->endpoint.vips.n; k-- > 0;) {
        bool wanted = false;
        for (uint32_t i = 0; i < n; i++)
            wanted |= str_equal(svc->endpoint.vips.v[k].network_id, nets[i]->id);
        if (!wanted || svc->endpoint.spec.mode == ENDPOINT_DNSRR)
            rec_list_remove((struct rec_list *)(void *)&svc->endpoint.vips, &vip_rec, k);
    }
}

static void allocate_services(struct plan *p)
{
    for (const struct service *svc = NULL; (svc = store_next(p->s, TABLE_SERVICE, svc));) {
        const struct network *nets[64];
        uint32_t n = networks_of(p->s, svc, nets);
        bool ready = true;
        for (uint32_t i = 0; i < n; i++)
            ready &= nets[i]->vni != 0;
        if (svc->allocated == svc->spec_version || !ready ||
            store_tx_touches(p->tx, TABLE_SERVICE, svc->id))
            continue;
        struct service copy = { 0 };
        service_copy(&copy, svc);
        choose_ports(p, &copy);
        drop_old_vips(&copy, nets, n);
        if (choose_vips(p, &copy, nets, n)) {
            copy.allocated = copy.spec_version;
            store_tx_update(p->tx, TABLE_SERVICE, &copy);
        } else if (!svc->update_status || !str_equal(svc->update_status->message, "no address left for a virtual IP")) {
            if (!copy.update_status)
                copy.update_status = xnew(struct update_status);
            str_set(&copy.update_status->message, "no address left for a virtual IP");
            store_tx_update(p->tx, TABLE_SERVICE, &copy);
        }
        service_clear(&copy);
    }
}

static const struct network_ref *ref_of(const struct task *t, const struct network *net)
{
    for (uint32_t i = 0; i < t->spec.networks.n; i++)
        if (str_equal(t->spec.networks.v[i].target, net->id))
            return &t->spec.networks.v[i];
    return NULL;
}

static bool attach(struct plan *p, struct task *t, const struct network *net)
{
    unsigned bits = 0;
    uint32_t addr = take_address(p, net, &bits);
    char text[64];
    if (!addr)
        return false;
    struct attachment *a = REC_ADD(&t->attachments);
    addr_text(text, addr, bits);
    str_set(&a->network.id, net->id);
    str_set(&a->network.spec.name, net->name);
    strs_add(&a->addresses, text);
    const struct network_ref *ref = ref_of(t, net);
    for (uint32_t i = 0; ref && i < ref->aliases.n; i++)
        strs_add(&a->aliases, ref->aliases.v[i]);
    return true;
}

static void allocate_tasks(struct plan *p)
{
    for (const struct task *t = NULL; (t = store_next(p->s, TABLE_TASK, t));) {
        if (t->status.state != TASK_NEW || t->desired > TASK_RUNNING ||
            store_tx_touches(p->tx, TABLE_TASK, t->id))
            continue;
        const struct service *svc = store_find(p->s, TABLE_SERVICE, t->service_id);
        if (!svc)
            continue;
        const struct network *nets[64], *short_of = NULL;
        uint32_t n = networks_of(p->s, svc, nets);
        struct task copy = { 0 };
        task_copy(&copy, t);
        for (uint32_t i = 0; i < n && !short_of; i++)
            if (!attach(p, &copy, nets[i]))
                short_of = nets[i];
        if (short_of) {
            char text[256];
            task_clear(&copy);
            snprintf(text, sizeof text, "network %s has no free address; make one with a larger subnet",
                     short_of->name);
            if (str_equal(t->status.err, text))
                continue;
            task_copy(&copy, t);
            str_set(&copy.status.err, text);
        } else {
            copy.status.state = TASK_PENDING;
            str_set(&copy.status.err, NULL);
            str_set(&copy.status.message, "pending task scheduling");
        }
        copy.status.timestamp = p->now_ns;
        store_tx_update(p->tx, TABLE_TASK, &copy);
        task_clear(&copy);
    }
}

void allocate(const struct store *s, struct store_tx *tx, int64_t now_ns)
{
    const struct cluster *c = store_cluster(s);
    if (!c || store_tx_touches(tx, TABLE_CLUSTER, c->id))
        return;
    struct plan p = { .s = s, .tx = tx, .now_ns = now_ns,
                      .next_vni = c->next_vni ? c->next_vni : VNI_FIRST,
                      .next_tunnel = c->next_tunnel_addr ? c->next_tunnel_addr : 1 };
    map_init(&p.used);
    map_init(&p.ports);
    map_init(&p.cursors);
    mark_all(&p);
    allocate_networks(&p);
    allocate_nodes(&p);
    allocate_services(&p);
    allocate_tasks(&p);
    if (p.cluster_changed) {
        struct cluster copy = { 0 };
        cluster_copy(&copy, c);
        copy.next_vni = p.next_vni;
        copy.next_tunnel_addr = p.next_tunnel;
        store_tx_update(tx, TABLE_CLUSTER, &copy);
        cluster_clear(&copy);
    }
    map_done(&p.used);
    map_done(&p.ports);
    map_done(&p.cursors);
}
