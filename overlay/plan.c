/* What this node's kernel and tunnel shall hold, computed from the assignment, the suspects and the sandboxes
 * that exist. Pure, so that every rule set can be read and tested as text.
 *
 * Virtual IPs are chosen where a connection begins: in the container's own namespace (hook output), at random
 * among the ready replicas (counters of many callers would all begin at the first); conntrack keeps the choice. Published ports are chosen likewise by the host that was
 * called, and leave it with the host's address on the ingress network, so that answers come back to it. */
#include "overlay_internal.h"
#include <stdio.h>

static const char *const protocols[] = { "tcp", "udp", "sctp" };

const struct node *plan_self(const struct plan_input *in)
{
    for (uint32_t i = 0; in->node_id && i < in->a->nodes.n; i++)
        if (str_equal(in->a->nodes.v[i].id, in->node_id))
            return &in->a->nodes.v[i];
    return NULL;
}

const struct network *plan_ingress(const struct plan_input *in)
{
    for (uint32_t i = 0; in->node_id && i < in->a->networks.n; i++)
        if (in->a->networks.v[i].ingress)
            return &in->a->networks.v[i];
    return NULL;
}

static bool sandbox_is_on(const struct sandbox *s, const char *network_id)
{
    for (uint32_t i = 0; i < s->links.n; i++)
        if (str_equal(s->links.v[i].network_id, network_id))
            return true;
    return false;
}

bool plan_needs_network(const struct plan_input *in, const struct network *n)
{
    if (n->ingress)
        return true;
    for (struct map_item *it = NULL; (it = map_next(in->sandboxes, it));)
        if (sandbox_is_on(it->value, n->id))
            return true;
    return false;
}

/* ---- tunnel ---- */
static const struct node *node_by_id(const struct assignment *a, const char *id)
{
    for (uint32_t i = 0; i < a->nodes.n; i++)
        if (str_equal(a->nodes.v[i].id, id))
            return &a->nodes.v[i];
    return NULL;
}

bool plan_is_silent(const struct plan_input *in, const char *node_id)
{
    if (!in->suspects || !map_find(in->suspects, node_id))
        return false;
    const struct node *n = node_by_id(in->a, node_id);
    return !n || n->status.state != NODE_DISCONNECTED;
}

static bool is_alive(const struct assignment *a, const struct replica *r)
{
    const struct node *n = node_by_id(a, r->node_id);
    return n && n->status.state != NODE_DOWN && r->addr;
}

uint32_t *plan_gone(const struct assignment *before, const struct assignment *now, uint32_t *ret_n)
{
    struct map alive; /* task id and network id */
    uint32_t *gone = xcalloc(before->replicas.n + 1, sizeof *gone);
    char key[128];
    *ret_n = 0;
    map_init(&alive);
    for (uint32_t i = 0; i < now->replicas.n; i++) {
        const struct replica *r = &now->replicas.v[i];
        snprintf(key, sizeof key, "%s/%s", r->task_id, r->network_id);
        if (is_alive(now, r))
            map_put(&alive, key, &alive);
    }
    for (uint32_t i = 0; i < before->replicas.n; i++) {
        const struct replica *r = &before->replicas.v[i];
        snprintf(key, sizeof key, "%s/%s", r->task_id, r->network_id);
        if (is_alive(before, r) && !map_find(&alive, key))
            gone[(*ret_n)++] = i;
    }
    map_done(&alive);
    return gone;
}

static void add_route(struct tunnel_network *n, const char *addr, const struct node *via)
{
    uint32_t a, v;
    if (!via || !addr || !via->tunnel_addr || !address_parse(addr, &a, NULL) || !address_parse(via->tunnel_addr, &v, NULL))
        return;
    struct tunnel_route *r = REC_ADD(&n->routes);
    r->addr = a;
    r->via = v;
}

void plan_tunnel(const struct plan_input *in, struct tunnel_config *ret)
{
    const struct node *self = plan_self(in);
    uint32_t addr;
    if (!self || !self->tunnel_addr || !address_parse(self->tunnel_addr, &addr, NULL))
        return;
    ret->addr = addr;
    ret->port = self->tunnel_port;
    for (uint32_t i = 0; i < in->a->nodes.n; i++) {
        const struct node *n = &in->a->nodes.v[i];
        if (n == self || n->tunnel_key.n != 32 || !n->tunnel_addr || !address_parse(n->tunnel_addr, &addr, NULL))
            continue;
        struct tunnel_peer *p = REC_ADD(&ret->peers);
        p->key = (struct bytes){ xmemdup(n->tunnel_key.v, 32), 32 };
        str_set(&p->endpoint, n->status.addr);
        p->port = n->tunnel_port;
        p->addr = addr;
    }
    for (uint32_t i = 0; i < in->a->networks.n; i++) {
        const struct network *n = &in->a->networks.v[i];
        if (!plan_needs_network(in, n))
            continue;
        struct tunnel_network *t = REC_ADD(&ret->networks);
        t->vni = n->vni;
        for (uint32_t k = 0; k < in->a->replicas.n; k++) {
            const struct replica *r = &in->a->replicas.v[k];
            if (str_equal(r->network_id, n->id) && !str_equal(r->node_id, in->node_id))
                add_route(t, r->addr, node_by_id(in->a, r->node_id));
        }
        for (uint32_t k = 0; n->ingress && k < in->a->nodes.n; k++)
            if (&in->a->nodes.v[k] != self)
                add_route(t, in->a->nodes.v[k].ingress_addr, &in->a->nodes.v[k]);
    }
}

/* ---- rules ---- */
/* Addresses of a service's replicas on a network that may get new connections. */
static uint32_t backends(const struct plan_input *in, const char *service_id, const char *network_id,
                         struct strs *ret)
{
    for (uint32_t i = 0; i < in->a->replicas.n; i++) {
        const struct replica *r = &in->a->replicas.v[i];
        char text[32];
        uint32_t addr;
        if (!r->ready || !str_equal(r->service_id, service_id) || !str_equal(r->network_id, network_id) ||
            plan_is_silent(in, r->node_id) || !address_parse(r->addr, &addr, NULL))
            continue;
        address_format(text, addr, -1);
        strs_add(ret, text);
    }
    return ret->n;
}

/* "dnat to 10.0.0.5[:80]" or, with several, a map by a random number. */
static void dnat(struct sb *out, const struct strs *to, unsigned port)
{
    char suffix[16] = "";
    if (port)
        snprintf(suffix, sizeof suffix, ":%u", port);
    if (to->n == 1) {
        sb_printf(out, "dnat to %s%s\n", to->v[0], suffix);
        return;
    }
    sb_printf(out, "dnat to numgen random mod %u map { ", to->n);
    for (uint32_t i = 0; i < to->n; i++)
        sb_printf(out, "%s%u : %s", i ? ", " : "", i, to->v[i]);
    sb_printf(out, " }%s\n", suffix);
}

static void begin(struct sb *out)
{
    sb_str(out, "table ip shoal\ndelete table ip shoal\ntable ip shoal {\n");
}

bool plan_sandbox_rules(const struct plan_input *in, const struct sandbox *s, struct sb *out)
{
    struct sb refuse;
    bool any = false;
    begin(out);
    sb_init(&refuse, 0);
    sb_str(out, "chain choose {\ntype nat hook output priority -100; policy accept;\n");
    for (uint32_t i = 0; i < in->a->services.n; i++) {
        const struct service_entry *e = &in->a->services.v[i];
        for (uint32_t k = 0; k < e->vips.n; k++) {
            struct strs to = { 0 };
            char vip[32];
            uint32_t addr;
            if (!sandbox_is_on(s, e->vips.v[k].network_id) || !address_parse(e->vips.v[k].addr, &addr, NULL))
                continue;
            address_format(vip, addr, -1);
            any = true;
            if (backends(in, e->id, e->vips.v[k].network_id, &to)) {
                sb_printf(out, "ip daddr %s ", vip);
                dnat(out, &to, 0);
            } else { /* nobody there: said at once instead of a silence */
                sb_printf(&refuse, "ip daddr %s reject\n", vip);
            }
            strs_clear(&to);
        }
    }
    sb_str(out, "}\n");
    if (refuse.len)
        sb_printf(out, "chain refuse {\ntype filter hook output priority 0; policy accept;\n%s}\n", refuse.s);
    sb_str(out, "}\n");
    sb_done(&refuse);
    return any;
}

static const char *port_use(const struct plan_input *in, const struct port *p)
{
    return port_use_of_node(p, in->control_port, in->gossip_port, in->tunnel_port);
}

static bool has_port(const struct port *all, uint32_t n, const struct port *p, enum publish_mode mode)
{
    for (uint32_t i = 0; i < n; i++)
        if (all[i].published == p->published && all[i].protocol == p->protocol && all[i].mode == (int)mode)
            return true;
    return false;
}

static int check_port(const struct plan_input *in, const struct sandbox *own, const struct port *p, struct err *e)
{
    const char *use = port_use(in, p), *protocol = protocols[p->protocol];
    unsigned port = (unsigned)p->published;
    if (use)
        return err_set(e, E_INVALID, "port %u is this node's own: it uses it for %s; publish another", port, use);
    if (own->idle)
        return 0;
    for (struct map_item *it = NULL; (it = map_next(in->sandboxes, it));) {
        const struct sandbox *s = it->value;
        if (!s->idle && !str_equal(s->id, own->id) && has_port(s->ports.v, s->ports.n, p, PUBLISH_HOST))
            return err_set(e, E_CONFLICT, "port is already allocated: %u/%s is container %.12s's", port, protocol, s->id);
    }
    for (uint32_t i = 0; i < in->a->services.n; i++) {
        const struct service_entry *s = &in->a->services.v[i];
        if (has_port(s->ports.v, s->ports.n, p, PUBLISH_INGRESS))
            return err_set(e, E_CONFLICT, "port is already allocated: %u/%s is service %s's", port, protocol, s->name);
    }
    return 0;
}

int plan_check_ports(const struct plan_input *in, const struct sandbox *s, struct err *e)
{
    int r = 0;
    for (uint32_t i = 0; i < s->ports.n && r == 0; i++)
        r = check_port(in, s, &s->ports.v[i], e);
    return r;
}

static void mark_udp(uint8_t *udp, const struct port *p)
{
    if (p->protocol == PROTO_UDP)
        udp[p->published / 8] |= (uint8_t)(1 << p->published % 8);
}

/* One published port of a service: every address of this host, by TCP port. */
static void publish(const struct plan_input *in, const struct service_entry *e, const struct port *p,
                    const char *ingress_id, struct sb *nat, struct sb *refuse, uint8_t *udp)
{
    struct strs to = { 0 };
    if (p->mode != PUBLISH_INGRESS || !p->published || port_use(in, p))
        return;
    if (backends(in, e->id, ingress_id, &to)) {
        sb_printf(nat, "%s dport %u ", protocols[p->protocol], (unsigned)p->published);
        dnat(nat, &to, (unsigned)p->target);
        mark_udp(udp, p);
    } else {
        sb_printf(refuse, "%s dport %u ct state new reject%s\n", protocols[p->protocol], (unsigned)p->published,
                  p->protocol == PROTO_TCP ? " with tcp reset" : "");
    }
    strs_clear(&to);
}

static void publish_here(const struct plan_input *in, const struct sandbox *s, struct sb *nat, uint8_t *udp)
{
    char addr[32];
    uint32_t a;
    if (s->idle || !s->gateway_addr || !address_parse(s->gateway_addr, &a, NULL))
        return;
    address_format(addr, a, -1);
    for (uint32_t i = 0; i < s->ports.n; i++) {
        if (port_use(in, &s->ports.v[i]))
            continue;
        sb_printf(nat, "%s dport %u dnat to %s:%u\n", protocols[s->ports.v[i].protocol],
                  (unsigned)s->ports.v[i].published, addr, (unsigned)s->ports.v[i].target);
        mark_udp(udp, &s->ports.v[i]);
    }
}

void plan_host_rules(const struct plan_input *in, struct sb *out, uint8_t *udp)
{
    const struct network *ingress = plan_ingress(in);
    struct sb nat, refuse;
    char gateway[32];
    sb_init(&nat, 0);
    sb_init(&refuse, 0);
    for (uint32_t i = 0; ingress && i < in->a->services.n; i++)
        for (uint32_t k = 0; k < in->a->services.v[i].ports.n; k++)
            publish(in, &in->a->services.v[i], &in->a->services.v[i].ports.v[k], ingress->id, &nat, &refuse, udp);
    for (struct map_item *it = NULL; (it = map_next(in->sandboxes, it));)
        publish_here(in, it->value, &nat, udp);
    begin(out);
    address_format(gateway, in->gateway_addr, -1);
    sb_printf(out, "define gw = \"%s\"\ndefine in = \"%s\"\n", in->gateway_links, in->ingress_link);
    /* route_localnet lets 127.0.0.1:PORT of the host reach containers; the way back is closed here. */
    sb_str(out, "chain loopback {\ntype filter hook prerouting priority -300; policy accept;\n"
                "iifname { $gw, $in } ip daddr 127.0.0.0/8 drop\niifname { $gw, $in } ip saddr 127.0.0.0/8 drop\n}\n");
    sb_printf(out, "chain published {\n%s}\n", nat.s);
    sb_str(out, "chain prerouting {\ntype nat hook prerouting priority -100; policy accept;\n"
                "fib daddr type local jump published\n}\n"
                "chain output {\ntype nat hook output priority -100; policy accept;\n"
                "fib daddr type local jump published\n}\n");
    sb_printf(out, "chain postrouting {\ntype nat hook postrouting priority 100; policy accept;\n"
                   "oifname $in masquerade\n"
                   "oifname $gw ip saddr { %s, 127.0.0.0/8 } snat to %s\n" /* by a published port to a neighbour, itself */
                   "ip saddr %s masquerade\n}\n", in->gateway_pool, gateway, in->gateway_pool);
    /* Ports whose service has no ready replica; the host is no target for what comes over the ingress network. */
    sb_printf(out, "chain input {\ntype filter hook input priority 0; policy accept;\n"
                   "iifname $in ct state new drop\n%s}\n", refuse.s);
    /* Towards containers goes only what is published; nobody routes through this node from the ingress network. */
    sb_str(out, "chain forward {\ntype filter hook forward priority 0; policy accept;\n"
                "ct state established,related accept\n"
                "iifname $in drop\n"
                "oifname { $gw, $in } ct status dnat accept\n"
                "oifname { $gw, $in } drop\n}\n}\n");
    sb_done(&nat);
    sb_done(&refuse);
}
