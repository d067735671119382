/* What this node's kernel and tunnel shall hold, computed from the assignment, the suspects and the sandboxes
 * that exist. Pure, so that every rule set can be read and tested as text.
 *
 * Virtual IPs are chosen where a connection begins: in the container's own namespace (hook output), at random
 * among the ready replicas (counters of many callers would all begin at the first), or by the caller's address where the
 * service says so (BALANCE_SOURCE); conntrack keeps the choice.
 *
 * Published ports are chosen likewise by the host that was called, and the caller's address is kept all the way:
 *   replica here        DNAT to its address on the pair to this host, which is its way out: answers come by here anyway.
 *   replica elsewhere   DNAT to that node's foot on the ingress network (its weight is how many it has). That node knows by
 *                       the MAC of the frame who sent it, chooses among its own replicas, and sends the answers back that
 *                       way: the connection is marked with the sender's number, a rule and a table each lead back
 *                       (kern_route.c). A zone of conntrack for each sender keeps callers apart that come through two nodes
 *                       with one address and port. Neither container nor caller notices.
 * Not kept: the addresses of hosts of the cluster and of their containers, which mean something else on the other node, come
 * as that of their node's foot. A host is known by the address it advertises: a call from another one of its addresses, sent
 * on to a replica on the same host, is dropped there as a packet of its own. */
#include "overlay_internal.h"
#include <shoal/base/crypto.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

enum { SOURCE_SHARES = 512, SOURCE_SEED = 0x5ea1 }; /* the same on every node; shares of callers, in which ten replicas differ by a seventh */
static const char *const protocols[] = { "tcp", "udp", "sctp" };

const struct node *plan_self(const struct plan_input *in)
{
    return plan_node(in->index, in->node_id);
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

bool plan_takes_callers(const struct plan_input *in, const struct sandbox *s)
{
    const struct network *ingress = plan_ingress(in);
    return ingress && s->gateway_addr && sandbox_is_on(s, ingress->id);
}

unsigned plan_underlay_mtu(const struct plan_input *in, unsigned own, const struct node **ret_narrowest)
{
    *ret_narrowest = NULL;
    for (uint32_t i = 0; i < in->a->nodes.n; i++) {
        const struct node *n = &in->a->nodes.v[i];
        unsigned mtu = MAX((unsigned)n->description.mtu, (unsigned)UNDERLAY_MTU_MIN);
        if (!n->description.mtu || n->status.state == NODE_DOWN || str_equal(n->id, in->node_id) || mtu >= own)
            continue;
        own = mtu;
        *ret_narrowest = n;
    }
    return own;
}

bool plan_is_silent(const struct plan_input *in, const char *node_id)
{
    if (!in->suspects || !map_find(in->suspects, node_id))
        return false;
    const struct node *n = plan_node(in->index, node_id);
    return !n || n->status.state != NODE_DISCONNECTED;
}

/* ---- what is gone ---- */
static bool is_alive(const struct plan_index *x, const struct replica *r)
{
    const struct node *n = plan_node(x, r->node_id);
    return n && n->status.state != NODE_DOWN && r->addr;
}

uint32_t *plan_gone(const struct plan_index *before, const struct plan_index *now, uint32_t *ret_n)
{
    struct map alive; /* task id and network id */
    uint32_t *gone = xcalloc(before->a->replicas.n + 1, sizeof *gone);
    char key[128];
    *ret_n = 0;
    map_init(&alive);
    for (uint32_t i = 0; i < now->a->replicas.n; i++) {
        const struct replica *r = &now->a->replicas.v[i];
        snprintf(key, sizeof key, "%s/%s", r->task_id, r->network_id);
        if (is_alive(now, r))
            map_put(&alive, key, &alive);
    }
    for (uint32_t i = 0; i < before->a->replicas.n; i++) {
        const struct replica *r = &before->a->replicas.v[i];
        snprintf(key, sizeof key, "%s/%s", r->task_id, r->network_id);
        if (is_alive(before, r) && !map_find(&alive, key))
            gone[(*ret_n)++] = i;
    }
    map_done(&alive);
    return gone;
}

static bool has_alive_on(const struct plan_index *x, const char *service_id, const char *network_id, const char *node_id)
{
    const struct plan_replicas *all = plan_replicas(x, service_id, network_id);
    for (uint32_t i = 0; i < all->n; i++)
        if (str_equal(all->v[i]->node_id, node_id) && is_alive(x, all->v[i]))
            return true;
    return false;
}

static int ip_protocol(const struct port *p)
{
    return p->protocol == PROTO_UDP ? IPPROTO_UDP : p->protocol == PROTO_SCTP ? IPPROTO_SCTP : IPPROTO_TCP;
}

struct flow_end *plan_gone_feet(const struct plan_index *before, const struct plan_index *now, const char *ingress_id, uint32_t *ret_n)
{
    struct flow_end *gone = NULL;
    *ret_n = 0;
    for (uint32_t i = 0; i < before->a->services.n; i++) {
        const struct service_entry *e = &before->a->services.v[i];
        const struct plan_replicas *all = plan_replicas(before, e->id, ingress_id);
        for (uint32_t k = 0; e->ports.n && k < all->n; k++) {
            const struct node *n = plan_node(before, all->v[k]->node_id);
            uint32_t addr;
            if (!is_alive(before, all->v[k]) || !address_parse(n->ingress_addr, &addr, NULL) ||
                has_alive_on(now, e->id, ingress_id, n->id))
                continue;
            gone = xrealloc(gone, *ret_n + e->ports.n, sizeof *gone);
            for (uint32_t p = 0; p < e->ports.n; p++)
                if (e->ports.v[p].mode == PUBLISH_INGRESS)
                    gone[(*ret_n)++] = (struct flow_end){ addr, (uint16_t)e->ports.v[p].published, (uint8_t)ip_protocol(&e->ports.v[p]) };
        }
    }
    return gone;
}

/* ---- tunnel ---- */
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
    struct map places; /* network id -> its place in ret->networks, from 1 */
    map_init(&places);
    for (uint32_t i = 0; i < in->a->networks.n; i++) {
        const struct network *n = &in->a->networks.v[i];
        if (!plan_needs_network(in, n))
            continue;
        struct tunnel_network *t = REC_ADD(&ret->networks);
        t->vni = n->vni;
        map_put(&places, n->id, (void *)(uintptr_t)ret->networks.n);
        for (uint32_t k = 0; n->ingress && k < in->a->nodes.n; k++)
            if (&in->a->nodes.v[k] != self)
                add_route(t, in->a->nodes.v[k].ingress_addr, &in->a->nodes.v[k]);
    }
    for (uint32_t i = 0; i < in->a->replicas.n; i++) {
        const struct replica *r = &in->a->replicas.v[i];
        uintptr_t place = (uintptr_t)map_find(&places, r->network_id);
        if (place && !str_equal(r->node_id, in->node_id))
            add_route(&ret->networks.v[place - 1], r->addr, plan_node(in->index, r->node_id));
    }
    map_done(&places);
}

/* ---- rules ---- */
/* Where a connection may go. */
struct target { uint32_t addr; unsigned port; /* 0: as it came */ uint64_t key; /* of the replica, the same on every node */ };
struct targets { struct target *v; uint32_t n, cap; int balance; struct map *shares; /* struct plan_index's */ };

static void add_target(struct targets *to, const char *addr, unsigned port, const char *task_id)
{
    uint32_t a;
    if (!address_parse(addr, &a, NULL))
        return;
    if (to->n == to->cap) {
        to->cap = to->cap ? 2 * to->cap : 8;
        to->v = xrealloc(to->v, to->cap, sizeof *to->v);
    }
    struct target *t = &to->v[to->n++];
    *t = (struct target){ .addr = a, .port = port };
    if (to->balance == BALANCE_SOURCE)
        crypto_blake2s((uint8_t *)&t->key, sizeof t->key, task_id, strlen(task_id), NULL, 0);
}

static void put_target(struct sb *out, const struct target *t, const char *between)
{
    char text[32];
    address_format(text, t->addr, -1);
    sb_str(out, text);
    if (t->port)
        sb_printf(out, "%s%u", between, t->port);
}

static uint64_t mix(uint64_t x) /* splitmix64's end */
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Rendezvous hashing (Thaler, Ravishankar 1998): of all replicas the one with the greatest weight for this share of callers.
 * So the node that a call is sent on to, which chooses among its own ones alone, comes to the same. */
static const struct target *share_of(const struct targets *to, unsigned share)
{
    const struct target *best = NULL;
    uint64_t most = 0, salt = mix(share + 1);
    for (uint32_t i = 0; i < to->n; i++) {
        uint64_t weight = mix(to->v[i].key ^ salt);
        if (!best || weight > most) {
            best = &to->v[i];
            most = weight;
        }
    }
    return best;
}

static void make_shares(struct sb *out, const struct targets *to)
{
    sb_printf(out, "jhash ip saddr mod %u seed 0x%x map { ", SOURCE_SHARES, SOURCE_SEED);
    const struct target *t, *after = share_of(to, 0);
    for (unsigned from = 0, next; from < SOURCE_SHARES; from = next) {
        t = after;
        for (next = from + 1; next < SOURCE_SHARES && (after = share_of(to, next)) == t;)
            next++;
        sb_printf(out, "%s%u", from ? ", " : "", from);
        if (next > from + 1)
            sb_printf(out, "-%u", next - 1);
        sb_str(out, " : ");
        put_target(out, t, " . ");
    }
    sb_str(out, " }");
}

/* All sandboxes of a network have the same ones: made once while the assignment stands. */
static void put_shares(struct sb *out, const struct targets *to)
{
    size_t size = to->n * sizeof *to->v;
    char *text = map_find_n(to->shares, to->v, size);
    if (!text) {
        AUTO_SB struct sb b;
        sb_init(&b, 0);
        make_shares(&b, to);
        map_put_n(to->shares, to->v, size, text = xstrdup(b.s));
    }
    sb_str(out, text);
}

/* One line: to the only one, or to one of them by a random number or the caller's address. */
static void put_dnat(struct sb *out, const char *match, const struct targets *to)
{
    sb_printf(out, "%sdnat to ", match);
    if (to->n == 1) {
        put_target(out, &to->v[0], ":");
    } else if (to->balance == BALANCE_SOURCE) {
        put_shares(out, to);
    } else {
        sb_printf(out, "numgen random mod %u map { ", to->n);
        for (uint32_t i = 0; i < to->n; i++) {
            sb_printf(out, "%s%u : ", i ? ", " : "", i);
            put_target(out, &to->v[i], " . ");
        }
        sb_str(out, " }");
    }
    sb_char(out, '\n');
}

bool plan_may_get_new(const struct plan_input *in, const struct replica *r)
{
    bool here = str_equal(r->node_id, in->node_id);
    return r->ready && (here ? map_find(in->sandboxes, r->task_id) != NULL : !plan_is_silent(in, r->node_id));
}

/* A virtual IP without a replica that may be called stays in @vips alone: refused at once instead of a silence. */
static void put_vip(const struct plan_input *in, const struct service_entry *e, const struct vip *v, struct rules *out)
{
    const struct plan_replicas *all = plan_replicas(in->index, e->id, v->network_id);
    struct targets to = { .balance = e->balance, .shares = in->index->shares };
    char vip[32], chain[64];
    AUTO_SB struct sb line = { 0 };
    uint32_t addr;
    if (!address_parse(v->addr, &addr, NULL))
        return;
    address_format(vip, addr, -1);
    rules_element(out, "vips", vip, NULL);
    for (uint32_t i = 0; i < all->n; i++)
        if (plan_may_get_new(in, all->v[i]))
            add_target(&to, all->v[i]->addr, 0, all->v[i]->task_id);
    if (!to.n)
        return;
    sb_init(&line, 0);
    snprintf(chain, sizeof chain, "vip-%s", vip);
    put_dnat(&line, "", &to);
    rules_chain(out, chain, line.s);
    rules_goto(out, "choose", vip, chain);
    free(to.v);
}

bool plan_sandbox_rules(const struct plan_input *in, const struct sandbox *s, struct rules *out)
{
    for (uint32_t i = 0; i < s->links.n; i++) {
        const struct plan_vips *all = plan_vips(in->index, s->links.v[i].network_id);
        for (uint32_t k = 0; k < all->n; k++)
            put_vip(in, all->v[k].service, all->v[k].vip, out);
    }
    if (!out->parts.n)
        return false;
    sb_str(&out->base, "map choose { type ipv4_addr : verdict; }\nset vips { type ipv4_addr; }\n"
                       "chain output {\ntype nat hook output priority -100; policy accept;\nip daddr vmap @choose\n}\n"
                       "chain refuse {\ntype filter hook output priority 0; policy accept;\nip daddr @vips reject\n}\n");
    return true;
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

/* The chains of one port: `to-` for calls from anywhere, `at-` for those that another node sent to our foot. */
static void put_port(const struct port *p, const struct targets *from_all, const struct targets *from_nodes, struct rules *out, uint8_t *udp)
{
    char key[32], chain[64], match[32];
    const char *protocol = protocols[p->protocol];
    unsigned port = (unsigned)p->published;
    const struct { const char *prefix, *map; const struct targets *to; } ways[] = { { "to", "ports", from_all }, { "at", "arrivals", from_nodes } };
    snprintf(key, sizeof key, "%s . %u", protocol, port);
    snprintf(match, sizeof match, "meta l4proto %s ", protocol);
    rules_element(out, "published", key, NULL);
    for (unsigned i = 0; i < ARRAY_N(ways); i++) {
        AUTO_SB struct sb line = { 0 };
        if (!ways[i].to->n)
            continue;
        sb_init(&line, 0);
        snprintf(chain, sizeof chain, "%s-%s-%u", ways[i].prefix, protocol, port);
        put_dnat(&line, match, ways[i].to);
        rules_chain(out, chain, line.s);
        rules_goto(out, ways[i].map, key, chain);
        if (p->protocol == PROTO_UDP)
            udp[port / 8] |= (uint8_t)(1 << port % 8);
    }
}

/* A published port of a service. Who comes by our foot was sent by a node that knew a ready replica here: while it has not
 * heard otherwise, one that drains is better than a refusal. */
static void publish(const struct plan_input *in, const struct service_entry *e, const struct port *p, const char *ingress_id,
                    struct rules *out, uint8_t *udp)
{
    const struct plan_replicas *all = plan_replicas(in->index, e->id, ingress_id);
    struct targets from_all = { .balance = e->balance, .shares = in->index->shares }, ready = from_all, draining = from_all;
    if (p->mode != PUBLISH_INGRESS || !p->published || port_use(in, p))
        return;
    for (uint32_t i = 0; i < all->n; i++) {
        const struct replica *r = all->v[i];
        if (!str_equal(r->node_id, in->node_id)) {
            const struct node *n = plan_node(in->index, r->node_id);
            if (n && plan_may_get_new(in, r))
                add_target(&from_all, n->ingress_addr, (unsigned)p->published, r->task_id);
            continue;
        }
        const struct sandbox *s = map_find(in->sandboxes, r->task_id);
        if (!s || s->idle)
            continue;
        add_target(r->ready ? &ready : &draining, s->gateway_addr, (unsigned)p->target, r->task_id);
        if (r->ready)
            add_target(&from_all, s->gateway_addr, (unsigned)p->target, r->task_id);
    }
    put_port(p, &from_all, ready.n ? &ready : &draining, out, udp);
    free(from_all.v);
    free(ready.v);
    free(draining.v);
}

static void publish_here(const struct plan_input *in, const struct sandbox *s, struct rules *out, uint8_t *udp)
{
    static const struct targets none;
    for (uint32_t i = 0; !s->idle && i < s->ports.n; i++) {
        struct targets to = { 0 };
        if (!port_use(in, &s->ports.v[i]))
            add_target(&to, s->gateway_addr, (unsigned)s->ports.v[i].target, s->id);
        if (to.n)
            put_port(&s->ports.v[i], &to, &none, out, udp);
        free(to.v);
    }
}

uint32_t plan_way_mark(uint32_t foot)
{
    return WAY_MARK | (foot & ~WAY_MASK);
}

uint32_t *plan_ways(const struct plan_input *in, uint32_t *ret_n)
{
    uint32_t *feet = xcalloc(in->a->nodes.n + 1, sizeof *feet);
    bool any = false;
    *ret_n = 0;
    for (uint32_t i = 0; i < in->a->services.n; i++)
        for (uint32_t k = 0; k < in->a->services.v[i].ports.n; k++)
            any |= in->a->services.v[i].ports.v[k].mode == PUBLISH_INGRESS;
    for (uint32_t i = 0; any && i < in->a->nodes.n; i++)
        if (!str_equal(in->a->nodes.v[i].id, in->node_id) && address_parse(in->a->nodes.v[i].ingress_addr, &feet[*ret_n], NULL))
            ++*ret_n;
    return feet;
}

static void put_line(struct rules *out, const char *chain, const char *before, const char *elements, const char *after)
{
    AUTO_FREE char *line = *elements ? xasprintf("%s { %s }%s\n", before, elements, after) : xstrdup("");
    rules_chain(out, chain, line);
}

/* A container would answer a foot over the ingress network itself, past the connection here. */
static void put_feet(const struct plan_input *in, struct rules *out)
{
    const struct node *self = plan_self(in);
    char net[32], gateway[32], snat[64];
    uint32_t addr;
    unsigned bits;
    bool known = self && address_parse(self->ingress_addr, &addr, &bits) && bits && bits < 32;
    address_format(gateway, in->gateway_addr, -1);
    snprintf(snat, sizeof snat, " snat to %s", gateway);
    if (known)
        address_format(net, addr & ~UINT32_C(0) << (32 - bits), (int)bits);
    put_line(out, "feet", "ip saddr", known ? net : "", snat);
}

/* By the MAC of who sent it over the ingress network: zone and mark of a connection. And whose callers' addresses are not kept. */
static void put_nodes(const struct plan_input *in, struct rules *out)
{
    AUTO_SB struct sb zone, way, hosts;
    const char *comma = "";
    sb_init(&zone, 0);
    sb_init(&way, 0);
    sb_init(&hosts, 0);
    for (uint32_t i = 0; i < in->a->nodes.n; i++) {
        const struct node *n = &in->a->nodes.v[i];
        char host[32];
        uint8_t m[6];
        uint32_t foot, addr;
        if (str_equal(n->id, in->node_id) || !address_parse(n->ingress_addr, &foot, NULL))
            continue;
        address_mac(m, foot);
        sb_printf(&zone, "%s%02x:%02x:%02x:%02x:%02x:%02x : %u", comma, m[0], m[1], m[2], m[3], m[4], m[5], MAX(foot & 0xffff, 1u));
        sb_printf(&way, "%s%02x:%02x:%02x:%02x:%02x:%02x : 0x%x", comma, m[0], m[1], m[2], m[3], m[4], m[5], plan_way_mark(foot));
        comma = ", ";
        if (!address_parse(n->status.addr, &addr, NULL))
            continue;
        address_format(host, addr, -1);
        sb_printf(&hosts, "%s%s", hosts.len ? ", " : "", host);
    }
    put_line(out, "zone", "ct original zone set ether saddr map", zone.s, "");
    put_line(out, "way", "ct mark set ether saddr map", way.s, "\nmeta mark set ct mark");
    put_line(out, "own", "ip saddr", hosts.s, " masquerade");
    put_feet(in, out);
}

void plan_host_rules(const struct plan_input *in, struct rules *out, uint8_t *udp)
{
    const struct network *ingress = plan_ingress(in);
    struct sb *b = &out->base;
    char gateway[32];
    address_format(gateway, in->gateway_addr, -1);
    sb_printf(b, "define gw = \"%s\"\ndefine in = \"%s\"\n", in->gateway_links, in->ingress_link);
    sb_str(b, "map ports { type inet_proto . inet_service : verdict; }\nmap arrivals { type inet_proto . inet_service : verdict; }\n"
              "set published { type inet_proto . inet_service; }\n");
    /* route_localnet lets 127.0.0.1:PORT of the host reach containers; the way back is closed here. */
    sb_str(b, "chain arrive {\ntype filter hook prerouting priority -300; policy accept;\n"
              "iifname { $gw, $in } ip daddr 127.0.0.0/8 drop\niifname { $gw, $in } ip saddr 127.0.0.0/8 drop\n"
              "iifname $in jump zone\n}\n");
    /* Answers go the way that the call came, those that this host itself gives (a refusal) as well. */
    sb_printf(b, "chain ways {\ntype filter hook prerouting priority -150; policy accept;\n"
                 "iifname $in ct direction original jump way\n"
                 "iifname $gw ct direction reply ct mark and 0x%x == 0x%x meta mark set ct mark\n}\n"
                 "chain answers {\ntype route hook output priority -150; policy accept;\n"
                 "ct direction reply ct mark and 0x%x == 0x%x meta mark set ct mark\n}\n", WAY_MASK, WAY_MARK, WAY_MASK, WAY_MARK);
    sb_str(b, "chain call {\niifname $in meta l4proto . th dport vmap @arrivals\n"
              "iifname != $in meta l4proto . th dport vmap @ports\n}\n"
              "chain prerouting {\ntype nat hook prerouting priority -100; policy accept;\n"
              "fib daddr type local jump call\n}\n"
              "chain output {\ntype nat hook output priority -100; policy accept;\n"
              "fib daddr type local meta l4proto . th dport vmap @ports\n}\n");
    sb_printf(b, "chain postrouting {\ntype nat hook postrouting priority 100; policy accept;\n"
                 "oifname $in fib saddr type local masquerade\noifname $in jump own\noifname $gw jump feet\n"
                 "oifname $gw ip saddr { %s, 127.0.0.0/8 } snat to %s\n" /* by a published port to a neighbour, itself */
                 "ip saddr %s masquerade\n}\n", in->gateway_pool, gateway, in->gateway_pool);
    /* Ports whose service has no ready replica; the host is no target for what comes over the ingress network. */
    sb_str(b, "chain refuse {\nmeta l4proto tcp reject with tcp reset\nreject\n}\n"
              "chain input {\ntype filter hook input priority 0; policy accept;\n"
              "ct state new meta l4proto . th dport @published jump refuse\n"
              "iifname $in ct state new drop\n}\n");
    /* Towards containers goes only what is published; nobody routes through this node from the ingress network. */
    sb_str(b, "chain forward {\ntype filter hook forward priority 0; policy accept;\n"
              "ct state established,related accept\n"
              "iifname $in oifname $gw ct status dnat accept\n"
              "iifname $in drop\n"
              "oifname { $gw, $in } ct status dnat accept\n"
              "oifname { $gw, $in } drop\n}\n");
    put_nodes(in, out);
    for (uint32_t i = 0; ingress && i < in->a->services.n; i++)
        for (uint32_t k = 0; k < in->a->services.v[i].ports.n; k++)
            publish(in, &in->a->services.v[i], &in->a->services.v[i].ports.v[k], ingress->id, out, udp);
    for (struct map_item *it = NULL; (it = map_next(in->sandboxes, it));)
        publish_here(in, it->value, out, udp);
}
