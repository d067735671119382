/* The reconciler: brings namespaces, links, rules and the tunnel in line with what is wanted, whenever that
 * changes. RUN/net/ holds a namespace file for each network ("n-VNI") and sandbox ("s-ID"), RUN/sandboxes/ the
 * record of each sandbox, so that a restarted daemon finds all of it; files nobody wants are cleaned at start. */
#include "trace.h"
#include <dirent.h>
#include <errno.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

LOG_MODULE("overlay");

#define GATEWAY_LINK "shoal-gw" /* holds the gateway's address and keeps what nobody has of the pool here */
#define GATEWAY_PREFIX "shg"    /* of the pairs to the sandboxes */
#define INGRESS_LINK "shoal-in"
#define INGRESS_INSIDE "host" /* its other end */
#define GATEWAY_POOL "172.30.0.0/16"
enum { RETRY_MS = 1000, WATCH_MS = 2000 };

struct network_ns { char *path; uint32_t vni; unsigned mtu /* as set, 0: not made yet */; bool wanted, has_ingress; };

struct overlay {
    struct loop *loop;
    struct overlay_config cfg;
    char *net_dir, *sandbox_dir, *gateway_pool;
    char *node_id;
    struct assignment a;
    struct map suspects, sandboxes, networks; /* id -> struct sandbox; "vni" -> struct network_ns */
    struct map paths;                         /* sandbox id -> path of its namespace */
    struct map rules;                         /* sandbox id or "" (host) -> struct rules in force */
    struct list_node traces;
    struct plan_index index;
    struct plan_input in;
    uint8_t udp[PORT_SET_BYTES]; /* ports that the host's rules send on */
    int n_rules;                 /* of the host, as counted when they were set; -1: could not be */
    struct flow_end *gone; /* of sandboxes with ports; forgotten as soon as the rules have forgotten them */
    unsigned n_gone;
    struct resolver *resolver;
    struct tunnel_client *tunnel;
    struct loop_timer *retry, *watch;
    uint32_t gateway_base, gateway_next;
    unsigned gateway_bits;
    bool gateway_up;
    unsigned own_mtu /* of this node's link */, told_mtu /* the same, to the others; 0: nothing yet */, underlay_mtu /* what all nodes' links take */;
    unsigned links_mtu /* the latter when the links were set to it */;
    char *ingress_addr; /* as set on the host's end */
};

/* ---- names ---- */
static char *network_path(const struct overlay *o, uint32_t vni)
{
    return xasprintf("%s/n-%u", o->net_dir, vni);
}

static char *sandbox_path(const struct overlay *o, const char *id)
{
    return xasprintf("%s/s-%s", o->net_dir, id);
}

/* An address may be away for a moment: what was measured last counts, and is told; what was never measured is 1500 here alone. */
static void measure_mtu(struct overlay *o)
{
    const struct node *self = plan_self(&o->in), *narrowest;
    unsigned own = self ? link_underlay_mtu(self->status.addr) : 0, before = o->underlay_mtu;
    if (own)
        o->own_mtu = MAX(own, (unsigned)UNDERLAY_MTU_MIN);
    if (own && o->own_mtu != o->told_mtu) {
        o->told_mtu = o->own_mtu;
        if (o->cfg.mtu)
            o->cfg.mtu(o->cfg.arg, o->own_mtu);
    }
    o->underlay_mtu = plan_underlay_mtu(&o->in, o->own_mtu, &narrowest);
    if (narrowest && o->underlay_mtu != before)
        log_info("node %s (%s) has the narrowest link: %u bytes for all", narrowest->id,
                 narrowest->description.hostname ? narrowest->description.hostname : "", o->underlay_mtu);
}

static unsigned overlay_mtu(const struct overlay *o)
{
    return o->underlay_mtu - TUNNEL_MTU_OVERHEAD;
}

/* Who takes callers from other nodes answers them over the ingress network: were its own link wider, its datagrams would be
 * too large halfway. */
static unsigned gateway_mtu(const struct overlay *o, const struct sandbox *s)
{
    return plan_takes_callers(&o->in, s) ? overlay_mtu(o) : MIN(o->own_mtu, 1500u);
}

/* ---- rules ---- */
static int sandbox_rules(struct overlay *o, const struct sandbox *s, bool fresh, struct err *e)
{
    struct rules *rules = rules_new();
    if (plan_sandbox_rules(&o->in, s, rules) || !fresh)
        return MIN(rules_apply(o->loop, &o->rules, s->id, map_find(&o->paths, s->id), rules, e), 0);
    map_put(&o->rules, s->id, rules); /* a new namespace has no rules, and this one needs none */
    return 0;
}

/* The rules are for new flows only: UDP that was sent to a port before it was published, or to a sandbox that is gone,
 * would go on so as long as it is sent. */
static void forget_stale(struct overlay *o, uint8_t *udp)
{
    bool gained = false;
    for (int i = 0; i < PORT_SET_BYTES; i++) {
        uint8_t now = udp[i];
        udp[i] &= (uint8_t)~o->udp[i];
        gained |= udp[i] != 0;
        o->udp[i] = now;
    }
    if (gained || o->n_gone)
        conntrack_forget_later(o->loop, NULL, o->gone, o->n_gone, udp);
    o->n_gone = 0;
}

/* Has somebody else changed what this daemon set. */
static bool host_rules_are_gone(const struct overlay *o)
{
    int n = nft_count_rules();
    return map_find(&o->rules, "") ? n >= 0 && o->n_rules >= 0 && n != o->n_rules : n == 0;
}

static void host_rules_drop(struct overlay *o)
{
    rules_drop(&o->rules, "");
    memset(o->udp, 0, sizeof o->udp);
}

static int host_ways(const struct overlay *o, struct err *e)
{
    uint32_t n;
    AUTO_FREE uint32_t *feet = plan_ways(&o->in, &n);
    return route_ways(feet, o->ingress_addr ? n : 0, INGRESS_LINK, o->gateway_base, o->gateway_bits, e);
}

/* What sends calls to containers: rules, and the ways back to nodes that calls come through. */
static int host_rules(struct overlay *o, struct err *e)
{
    struct rules *rules = rules_new();
    uint8_t udp[PORT_SET_BYTES] = { 0 };
    if (host_rules_are_gone(o))
        host_rules_drop(o);
    plan_host_rules(&o->in, rules, udp);
    int r = rules_apply(o->loop, &o->rules, "", NULL, rules, e);
    if (r > 0)
        o->n_rules = nft_count_rules();
    if (r >= 0)
        forget_stale(o, udp);
    return r < 0 ? r : host_ways(o, e);
}

static void sandbox_is_gone(struct overlay *o, const struct sandbox *s)
{
    uint32_t addr;
    if (!(s->ports.n || plan_takes_callers(&o->in, s)) || !address_parse(s->gateway_addr, &addr, NULL))
        return;
    o->gone = xrealloc(o->gone, o->n_gone + 1, sizeof *o->gone);
    o->gone[o->n_gone++] = (struct flow_end){ .addr = addr };
}

/* ---- the way out of containers: a pair to the host for each, no wire between them ---- */
static int gateway_up(struct overlay *o, struct err *e)
{
    if (o->gateway_up && link_exists(GATEWAY_LINK))
        return 0;
    int r = link_make_bridge(GATEWAY_LINK, e); /* without ports: every kernel has it */
    if (r == 0)
        r = link_add_address(GATEWAY_LINK, o->gateway_base + 1, o->gateway_bits, e);
    if (r == 0)
        r = link_up(GATEWAY_LINK, e);
    if (r == 0)
        r = sysctl_set("net/ipv4/ip_forward", "1", e);
    o->gateway_up = r == 0;
    return r;
}

static bool gateway_taken(const struct overlay *o, const char *text)
{
    for (struct map_item *it = NULL; (it = map_next(&o->sandboxes, it));)
        if (str_equal(((struct sandbox *)it->value)->gateway_addr, text))
            return true;
    return false;
}

static int gateway_address(struct overlay *o, char out[32], struct err *e)
{
    uint32_t size = (uint32_t)1 << (32 - o->gateway_bits);
    for (uint32_t i = 0; i < size; i++) {
        uint32_t k = o->gateway_next++ % size;
        if (k < 2 || k == size - 1)
            continue;
        address_format(out, o->gateway_base + k, (int)o->gateway_bits);
        if (!gateway_taken(o, out))
            return 0;
    }
    return err_set(e, E_BUSY, "no address is left in %s for this node's containers", o->gateway_pool);
}

/* ---- networks ---- */
static int port_to_bridge(const char *name, struct err *e)
{
    return link_exists(name) ? link_set_master(name, "br0", e) : 0;
}

/* In the network's namespace: what stands there is on the bridge, also one that was made again. */
static int network_ports(struct overlay *o, const struct network_ns *n, struct err *e)
{
    char name[16];
    int r = port_to_bridge("tap0", e);
    if (r == 0)
        r = port_to_bridge(INGRESS_INSIDE, e);
    for (struct map_item *it = NULL; r == 0 && (it = map_next(&o->sandboxes, it));) {
        link_name(name, "v", it->key, n->vni);
        r = port_to_bridge(name, e);
    }
    return r;
}

static bool network_is_whole(const struct overlay *o, const struct network_ns *n)
{
    struct err e;
    int back = netns_enter(n->path, &e);
    if (back < 0)
        return false;
    bool whole = link_exists("br0") && (!tunnel_client_is_ready(o->tunnel) || link_exists("tap0"));
    netns_leave(back);
    return whole;
}

static bool networks_are_whole(struct overlay *o)
{
    bool whole = true;
    for (struct map_item *it = NULL; (it = map_next(&o->networks, it));) {
        struct network_ns *n = it->value;
        if (n->wanted && !network_is_whole(o, n)) {
            n->mtu = 0; /* looked at whole again */
            whole = false;
        }
    }
    return whole;
}

static int network_make(struct overlay *o, struct network_ns *n, struct err *e)
{
    if (!netns_exists(n->path)) {
        n->mtu = 0;
        tunnel_client_forget(o->tunnel, n->vni);
        unlink(n->path);
        int r = netns_make(n->path, e);
        if (r < 0)
            return r;
    }
    if (n->mtu == overlay_mtu(o))
        return 0;
    int back = netns_enter(n->path, e);
    if (back < 0)
        return back;
    bool anew = !link_exists("br0");
    int r = link_make_bridge("br0", e);
    if (r == 0)
        r = link_set_mtu("br0", overlay_mtu(o), e);
    if (r == 0 && link_exists("tap0"))
        r = link_set_mtu("tap0", overlay_mtu(o), e);
    if (r == 0 && anew)
        r = network_ports(o, n, e);
    if (r == 0)
        r = link_up("br0", e);
    netns_leave(back);
    if (r == 0)
        n->mtu = overlay_mtu(o);
    return r;
}

/* The tunnel may still hold that of a namespace which was removed, and tell so; the device itself is there as long as it is held. */
static int network_tap(struct overlay *o, struct network_ns *n, struct err *e)
{
    if (!tunnel_client_is_ready(o->tunnel))
        return 0;
    int back = netns_enter(n->path, e);
    if (back < 0)
        return back;
    if (tunnel_client_has_tap(o->tunnel, n->vni) && link_exists("tap0")) {
        netns_leave(back);
        return 0;
    }
    int r = 0, fd = link_open_tap("tap0", tunnel_client_takes_vnet(o->tunnel), e);
    if (fd < 0)
        r = fd;
    if (r == 0)
        r = link_set_mtu("tap0", overlay_mtu(o), e);
    if (r == 0)
        r = link_set_master("tap0", "br0", e);
    if (r == 0)
        r = link_up("tap0", e);
    netns_leave(back);
    if (r == 0)
        tunnel_client_tap(o->tunnel, n->vni, fd);
    else if (fd >= 0)
        close(fd);
    return r;
}

/* A pair between the network's bridge and another namespace (peer), with the MAC that the address implies. */
static int connect_to(const struct network_ns *n, const char *name, const char *peer_name, int peer_netns, unsigned mtu,
                      uint32_t addr, struct err *e)
{
    uint8_t mac[6];
    address_mac(mac, addr);
    int back = netns_enter(n->path, e);
    if (back < 0)
        return back;
    link_remove(name);
    int r = link_make_veth(name, peer_name, peer_netns, mtu, mac, e);
    if (r == 0)
        r = link_set_master(name, "br0", e);
    if (r == 0)
        r = link_up(name, e);
    netns_leave(back);
    return r;
}

static int ingress_sysctls(struct err *e)
{
    int r = link_without_ipv6(INGRESS_LINK, e);
    if (r == 0)
        r = sysctl_set("net/ipv4/ip_forward", "1", e);
    if (r == 0)
        r = sysctl_set("net/ipv4/conf/" INGRESS_LINK "/route_localnet", "1", e);
    if (r == 0) /* callers' addresses are looked for (rp_filter) where their mark leads, not where they would be called */
        r = sysctl_set("net/ipv4/conf/" INGRESS_LINK "/src_valid_mark", "1", e);
    return r;
}

/* The host's own foot on the ingress network, for published ports. */
static int ingress_up(struct overlay *o, struct network_ns *n, struct err *e)
{
    const struct node *self = plan_self(&o->in);
    uint32_t addr;
    unsigned bits;
    if (!self || !self->ingress_addr || !address_parse(self->ingress_addr, &addr, &bits))
        return 0;
    /* One that stands is kept, with the connections through it (a restarted daemon comes by here). */
    if (link_has_address(INGRESS_LINK, addr) && (!o->ingress_addr || str_equal(o->ingress_addr, self->ingress_addr))) {
        str_set(&o->ingress_addr, self->ingress_addr);
        return ingress_sysctls(e);
    }
    link_remove(INGRESS_LINK);
    AUTO_CLOSE int host = netns_open("/proc/thread-self/ns/net", e);
    if (host < 0)
        return host;
    int r = connect_to(n, INGRESS_INSIDE, INGRESS_LINK, host, overlay_mtu(o), addr, e);
    if (r == 0)
        r = link_add_address(INGRESS_LINK, addr, bits, e);
    if (r == 0)
        r = link_up(INGRESS_LINK, e);
    if (r == 0)
        r = ingress_sysctls(e);
    if (r == 0)
        str_set(&o->ingress_addr, self->ingress_addr);
    return r;
}

static struct network_ns *network_of(struct overlay *o, uint32_t vni)
{
    char key[16];
    snprintf(key, sizeof key, "%u", vni);
    return map_find(&o->networks, key);
}

static struct network_ns *network_want(struct overlay *o, uint32_t vni)
{
    char key[16];
    struct network_ns *n = network_of(o, vni);
    if (!n) {
        n = xnew(struct network_ns);
        n->vni = vni;
        n->path = network_path(o, vni);
        snprintf(key, sizeof key, "%u", vni);
        map_put(&o->networks, key, n);
    }
    n->wanted = true;
    return n;
}

static void network_drop(struct overlay *o, struct network_ns *n)
{
    char key[16];
    if (n->has_ingress) {
        link_remove(INGRESS_LINK);
        str_set(&o->ingress_addr, NULL);
    }
    netns_remove(n->path);
    tunnel_client_forget(o->tunnel, n->vni);
    snprintf(key, sizeof key, "%u", n->vni);
    map_remove(&o->networks, key);
    free(n->path);
    free(n);
}

static int reconcile_networks(struct overlay *o, struct err *e)
{
    int result = 0;
    measure_mtu(o);
    for (struct map_item *it = NULL; (it = map_next(&o->networks, it));)
        ((struct network_ns *)it->value)->wanted = false;
    for (uint32_t i = 0; i < o->a.networks.n; i++) {
        const struct network *w = &o->a.networks.v[i];
        if (!o->node_id || !w->vni || !plan_needs_network(&o->in, w))
            continue;
        struct network_ns *n = network_want(o, (uint32_t)w->vni);
        n->has_ingress = w->ingress;
        int r = network_make(o, n, e);
        if (r == 0)
            r = network_tap(o, n, e);
        if (r == 0 && w->ingress)
            r = ingress_up(o, n, e);
        if (r < 0)
            result = err_wrap(e, "network %s", w->name);
    }
    for (struct map_item *it = NULL; (it = map_next(&o->networks, it));) {
        struct network_ns *n = it->value;
        bool used = false;
        for (struct map_item *s = NULL; (s = map_next(&o->sandboxes, s));)
            for (uint32_t k = 0; k < ((struct sandbox *)s->value)->links.n; k++)
                used |= ((struct sandbox *)s->value)->links.v[k].vni == n->vni;
        if (!n->wanted && !used)
            network_drop(o, n);
    }
    return result;
}

/* The links that stand follow the underlay when its MTU changes, each with both ends. */
static void follow_mtu(struct overlay *o)
{
    char name[16];
    if (!plan_self(&o->in) || o->links_mtu == o->underlay_mtu)
        return;
    o->links_mtu = o->underlay_mtu;
    for (struct map_item *it = NULL; (it = map_next(&o->networks, it));) {
        const struct network_ns *n = it->value;
        if (n->has_ingress && o->ingress_addr) {
            link_set_mtu_in(NULL, INGRESS_LINK, overlay_mtu(o));
            link_set_mtu_in(n->path, INGRESS_INSIDE, overlay_mtu(o));
        }
    }
    for (struct map_item *it = NULL; (it = map_next(&o->sandboxes, it));) {
        const struct sandbox *s = it->value;
        const char *path = map_find(&o->paths, it->key);
        for (uint32_t i = 0; path && i <= s->links.n; i++) {
            const struct network_ns *n = i < s->links.n ? network_of(o, (uint32_t)s->links.v[i].vni) : NULL;
            if (i < s->links.n ? !n : !s->gateway_addr)
                continue;
            link_name(name, n ? "v" : GATEWAY_PREFIX, s->id, n ? n->vni : 0);
            link_set_mtu_in(n ? n->path : NULL, name, n ? overlay_mtu(o) : gateway_mtu(o, s));
            snprintf(name, sizeof name, "eth%u", i);
            link_set_mtu_in(path, name, n ? overlay_mtu(o) : gateway_mtu(o, s));
        }
    }
}

static void configure_tunnel(struct overlay *o)
{
    struct tunnel_config c = { 0 };
    plan_tunnel(&o->in, &c);
    if (c.addr) {
        c.key = (struct bytes){ xmemdup(o->cfg.tunnel_secret, 32), 32 };
        c.psk = (struct bytes){ xmemdup(o->a.tunnel_psk.v, o->a.tunnel_psk.n), o->a.tunnel_psk.n };
        str_set(&c.listen, o->cfg.listen_addr);
        tunnel_client_config(o->tunnel, &c);
    }
    if (c.key.n)
        crypto_wipe(c.key.v, c.key.n);
    rec_clear(&tunnel_config_rec, &c);
}

static int open_resolver(struct overlay *o, const struct sandbox *s, struct err *e)
{
    int back = netns_enter(map_find(&o->paths, s->id), e);
    if (back < 0)
        return back;
    int r = resolver_open(o->resolver, s, e);
    netns_leave(back);
    return r;
}

/* A tunnel that did not answer in time when this daemon began has their sockets still. */
static void open_resolvers(struct overlay *o)
{
    struct err e = { 0 };
    unsigned n = 0;
    for (struct map_item *it = NULL; (it = map_next(&o->sandboxes, it));)
        n += map_find(&o->paths, it->key) && !resolver_is_open(o->resolver, it->key) && open_resolver(o, it->value, &e) < 0;
    tunnel_client_found_all(o->tunnel);
    if (n) {
        log_warn("%u sandboxes have no resolver: %s; tried again in a second", n, e.text);
        loop_timer_set(o->retry, RETRY_MS);
    }
}

static bool bring_in_line(struct overlay *o)
{
    struct err e = { 0 };
    int r = 0;
    configure_tunnel(o);
    open_resolvers(o);
    if (reconcile_networks(o, &e) < 0)
        r = -1;
    follow_mtu(o);
    if ((o->node_id || o->sandboxes.n) && gateway_up(o, &e) < 0)
        r = -1;
    if ((o->node_id || o->sandboxes.n) && host_rules(o, &e) < 0)
        r = -1;
    for (struct map_item *it = NULL; (it = map_next(&o->sandboxes, it));)
        if (map_find(&o->paths, it->key) && sandbox_rules(o, it->value, false, &e) < 0)
            r = -1;
    if (r < 0) {
        log_warn("%s; tried again in a second", e.text);
        loop_timer_set(o->retry, RETRY_MS);
    }
    return r == 0;
}

static void reconcile(void *arg)
{
    bring_in_line(arg);
}

/* Others flush rules too (nft flush ruleset, a restart of nftables.service), remove links, and nobody tells: looked after. So
 * it is seen as well that sandboxes outlived overlay_clear(), when the daemon left its cluster and opens again. */
static void watch(void *arg)
{
    struct overlay *o = arg;
    struct err e;
    bool used = o->node_id || o->sandboxes.n;
    if (!networks_are_whole(o)) {
        log_warn("links of a network are gone, made again");
        reconcile(o);
    } else if (used && (host_rules_are_gone(o) || !link_exists(GATEWAY_LINK) || (o->ingress_addr && !link_exists(INGRESS_LINK)))) {
        log_warn("rules or links of this host are gone, made again");
        host_rules_drop(o);
        reconcile(o);
    } else if (o->ingress_addr && host_ways(o, &e) < 0) {
        log_warn("%s", e.text);
    }
    measure_mtu(o);
    if (plan_self(&o->in) && o->links_mtu != o->underlay_mtu)
        reconcile(o);
    loop_timer_set(o->watch, WATCH_MS);
}

/* Connections to replicas that are gone: without this their packets go to the dead address for ever. */
static void forget_gone(struct overlay *o, const struct plan_index *before)
{
    uint32_t n_gone, n;
    AUTO_FREE uint32_t *gone = plan_gone(before, &o->index, &n_gone);
    AUTO_FREE struct flow_end *ends = xcalloc(n_gone + 1, sizeof *ends);
    for (struct map_item *it = NULL; n_gone && (it = map_next(&o->sandboxes, it));) {
        const struct sandbox *s = it->value;
        n = 0;
        for (uint32_t i = 0; i < n_gone; i++)
            for (uint32_t k = 0; k < s->links.n; k++)
                if (str_equal(s->links.v[k].network_id, before->a->replicas.v[gone[i]].network_id)) {
                    n += address_parse(before->a->replicas.v[gone[i]].addr, &ends[n].addr, NULL);
                    break;
                }
        if (n)
            conntrack_forget_later(o->loop, map_find(&o->paths, it->key), ends, n, NULL);
    }
}

/* The same on the host, where connections by published ports go to other nodes. */
static void forget_feet(struct overlay *o, const struct plan_index *before)
{
    const struct network *ingress = plan_ingress(&o->in);
    uint32_t n = 0;
    AUTO_FREE struct flow_end *ends = ingress ? plan_gone_feet(before, &o->index, ingress->id, &n) : NULL;
    if (n)
        conntrack_forget_later(o->loop, NULL, ends, n, NULL);
}

bool overlay_apply(struct overlay *o, const char *node_id, const struct assignment *a, const struct map *suspects)
{
    struct assignment before = o->a;
    struct plan_index index_before = o->index;
    o->a = (struct assignment){ 0 };
    assignment_copy(&o->a, a);
    index_before.a = &before;
    plan_index_build(&o->index, &o->a);
    str_set(&o->node_id, node_id);
    map_done(&o->suspects);
    map_init(&o->suspects);
    for (struct map_item *it = NULL; suspects && (it = map_next(suspects, it));)
        map_put(&o->suspects, it->key, o);
    o->in.node_id = o->node_id;
    bool done = bring_in_line(o);
    forget_gone(o, &index_before);
    forget_feet(o, &index_before);
    plan_index_done(&index_before);
    assignment_clear(&before);
    return done;
}

/* ---- sandboxes ---- */
static int sandbox_save(const struct overlay *o, const struct sandbox *s, struct err *e)
{
    struct sb b;
    AUTO_FREE char *path = path_join(o->sandbox_dir, s->id);
    sb_init(&b, 1 << 20);
    rec_pack(&sandbox_rec, s, &b);
    int r = file_write_volatile(path, b.s, b.len, 0600, e); /* a reboot ends the namespace anyway */
    sb_done(&b);
    return r;
}

static int connect_network(struct overlay *o, const struct sandbox *s, uint32_t i, int netns, struct err *e)
{
    const struct sandbox_link *l = &s->links.v[i];
    struct network_ns *n = network_of(o, (uint32_t)l->vni);
    char host[16], eth[16];
    uint32_t addr;
    unsigned bits;
    if (!n)
        return err_set(e, E_UNAVAILABLE, "network %s is not known to this node yet", l->network_id);
    if (!address_parse(l->addr, &addr, &bits))
        return err_set(e, E_INVALID, "\"%s\" is no address", l->addr);
    link_name(host, "v", s->id, (uint32_t)l->vni);
    snprintf(eth, sizeof eth, "eth%u", i);
    int r = connect_to(n, host, eth, netns, overlay_mtu(o), addr, e);
    if (r < 0)
        return r;
    int back = netns_enter(map_find(&o->paths, s->id), e);
    if (back < 0)
        return back;
    r = link_add_address(eth, addr, bits, e);
    if (r == 0)
        r = link_up(eth, e);
    netns_leave(back);
    return r;
}

static int connect_gateway(struct overlay *o, const struct sandbox *s, int netns, struct err *e)
{
    char host[16], eth[16];
    uint32_t addr;
    unsigned bits;
    link_name(host, GATEWAY_PREFIX, s->id, 0);
    AUTO_FREE char *localnet = xasprintf("net/ipv4/conf/%s/route_localnet", host);
    snprintf(eth, sizeof eth, "eth%u", s->links.n);
    address_parse(s->gateway_addr, &addr, &bits);
    link_remove(host);
    int r = link_make_veth(host, eth, netns, gateway_mtu(o, s), NULL, e);
    if (r == 0)
        r = link_up(host, e);
    if (r == 0)
        r = link_add_route(host, addr, 32, 0, e);
    if (r == 0) /* 127.0.0.1:PORT of the host reaches published ports */
        r = sysctl_set(localnet, "1", e);
    if (r < 0)
        return r;
    int back = netns_enter(map_find(&o->paths, s->id), e);
    if (back < 0)
        return back;
    r = link_add_address(eth, addr, bits, e);
    if (r == 0)
        r = link_up(eth, e);
    if (r == 0)
        r = link_add_route(eth, 0, 0, o->gateway_base + 1, e);
    netns_leave(back);
    return r;
}

static int sandbox_build(struct overlay *o, const struct sandbox *s, const char *path, struct err *e)
{
    int r = netns_make(path, e);
    if (r < 0)
        return r;
    AUTO_CLOSE int netns = netns_open(path, e);
    if (netns < 0)
        return netns;
    for (uint32_t i = 0; i < s->links.n && r == 0; i++)
        r = connect_network(o, s, i, netns, e);
    if (r == 0 && !s->internal)
        r = connect_gateway(o, s, netns, e);
    if (r == 0)
        r = open_resolver(o, s, e);
    if (r == 0)
        r = sandbox_rules(o, s, true, e);
    if (r == 0)
        r = sandbox_save(o, s, e);
    return r;
}

int overlay_sandbox_add(struct overlay *o, const struct sandbox *s, const char **ret_netns, struct err *e)
{
    char gateway[32];
    const char *had = map_find(&o->paths, s->id);
    if (had) {
        *ret_netns = had;
        return 0;
    }
    int r = plan_check_ports(&o->in, s, e);
    if (r == 0)
        r = gateway_up(o, e);
    if (r == 0 && !s->internal)
        r = gateway_address(o, gateway, e);
    if (r < 0)
        return r;
    struct sandbox *mine = xnew(struct sandbox);
    sandbox_copy(mine, s);
    if (!s->internal)
        str_set(&mine->gateway_addr, gateway);
    char *path = sandbox_path(o, s->id);
    map_put(&o->sandboxes, s->id, mine);
    map_put(&o->paths, s->id, path);
    if (reconcile_networks(o, e) < 0) /* perhaps another network: building this sandbox finds out */
        log_warn("%s", e->text);
    r = sandbox_build(o, mine, path, e);
    if (r == 0 && (mine->ports.n || !map_find(&o->rules, ""))) /* a service's port leads here once the replica is ready, which overlay_apply() tells */
        r = host_rules(o, e);
    if (r < 0) {
        overlay_sandbox_remove(o, s->id);
        return r;
    }
    configure_tunnel(o);
    *ret_netns = path;
    return 0;
}

void overlay_sandbox_remove(struct overlay *o, const char *id)
{
    struct sandbox *s = map_remove(&o->sandboxes, id);
    char *path = map_remove(&o->paths, id);
    char name[16];
    if (!s)
        return;
    resolver_close(o->resolver, id);
    if (path)
        netns_remove(path); /* with it go its links, unless a process holds it */
    link_name(name, GATEWAY_PREFIX, id, 0);
    link_remove_later(o->loop, NULL, name);
    for (uint32_t i = 0; i < s->links.n; i++) {
        const struct network_ns *n = network_of(o, (uint32_t)s->links.v[i].vni);
        link_name(name, "v", id, (uint32_t)s->links.v[i].vni);
        if (n)
            link_remove_later(o->loop, n->path, name);
    }
    AUTO_FREE char *file = path_join(o->sandbox_dir, id);
    unlink(file);
    rules_drop(&o->rules, id);
    free(path);
    sandbox_is_gone(o, s);
    sandbox_clear(s);
    free(s);
    loop_timer_set(o->retry, 0); /* networks that nobody uses now, host rules */
}

static int set_idle(struct overlay *o, struct sandbox *s, bool idle, struct err *e)
{
    if (s->idle == idle)
        return 0;
    s->idle = idle;
    if (idle)
        sandbox_is_gone(o, s);
    int r = sandbox_save(o, s, e);
    return r == 0 ? host_rules(o, e) : r;
}

void overlay_sandbox_rest(struct overlay *o, const char *id)
{
    struct err e;
    struct sandbox *s = map_find(&o->sandboxes, id);
    if (s && set_idle(o, s, true, &e) < 0) {
        log_warn("%s", e.text);
        loop_timer_set(o->retry, RETRY_MS);
    }
}

int overlay_sandbox_wake(struct overlay *o, const char *id, struct err *e)
{
    struct sandbox *s = map_find(&o->sandboxes, id);
    if (!s)
        return err_set(e, E_NOT_FOUND, "sandbox %s does not exist", id);
    struct sandbox awake = *s;
    awake.idle = false;
    int r = s->idle ? plan_check_ports(&o->in, &awake, e) : 0;
    if (r == 0 && (r = set_idle(o, s, false, e)) < 0)
        overlay_sandbox_rest(o, id);
    return r;
}

const struct sandbox *overlay_sandbox(const struct overlay *o, const char *id)
{
    return map_find(&o->sandboxes, id);
}

const struct sandbox *overlay_sandbox_next(const struct overlay *o, const struct sandbox *after)
{
    bool found = after == NULL;
    for (struct map_item *it = NULL; (it = map_next(&o->sandboxes, it));) {
        if (found)
            return it->value;
        found = it->value == after;
    }
    return NULL;
}

/* ---- start and end ---- */
static void load_sandbox(struct overlay *o, const char *id)
{
    struct err e = { 0 };
    char host[16];
    AUTO_FREE char *file = path_join(o->sandbox_dir, id), *data = NULL;
    AUTO_FREE char *path = sandbox_path(o, id);
    size_t size;
    struct sandbox *s = xnew(struct sandbox);
    if (!netns_exists(path) || file_read(file, 1 << 20, &data, &size, &e) < 0 ||
        rec_unpack(&sandbox_rec, s, data, size, &e) < 0) {
        unlink(file);
        netns_remove(path);
        free(s);
        return;
    }
    map_put(&o->sandboxes, id, s);
    map_put(&o->paths, id, TAKE(path));
    link_name(host, GATEWAY_PREFIX, id, 0);
    if (link_without_ipv6(host, &e) < 0) /* made by a daemon that left it on */
        log_warn("sandbox %s: %s", id, e.text);
}

static void load(struct overlay *o)
{
    DIR *d = opendir(o->sandbox_dir);
    for (struct dirent *x; d && (x = readdir(d));)
        if (x->d_name[0] != '.' && !str_ends(x->d_name, ".tmp"))
            load_sandbox(o, x->d_name);
    if (d)
        closedir(d);
    d = opendir(o->net_dir);
    for (struct dirent *x; d && (x = readdir(d));) {
        uint64_t vni;
        AUTO_FREE char *path = path_join(o->net_dir, x->d_name);
        if (str_starts(x->d_name, "n-") && str_u64(x->d_name + 2, 1, 0xffffff, &vni) && netns_exists(path))
            network_want(o, (uint32_t)vni);
        else if (str_starts(x->d_name, "n-") || (str_starts(x->d_name, "s-") && !map_find(&o->sandboxes, x->d_name + 2)))
            netns_remove(path);
    }
    if (d)
        closedir(d);
}

int overlay_open(struct overlay **ret, struct loop *l, const struct overlay_config *cfg, struct err *e)
{
    struct overlay *o = xnew(struct overlay);
    const char *pool = cfg->gateway_pool ? cfg->gateway_pool : GATEWAY_POOL;
    int r = 0;
    o->loop = l;
    list_init(&o->traces);
    o->cfg = *cfg;
    o->own_mtu = 1500;
    o->net_dir = path_join(cfg->run_dir, "net");
    o->sandbox_dir = path_join(cfg->run_dir, "sandboxes");
    o->gateway_pool = xstrdup(pool);
    map_init(&o->suspects);
    map_init(&o->sandboxes);
    map_init(&o->networks);
    map_init(&o->paths);
    map_init(&o->rules);
    plan_index_build(&o->index, &o->a);
    o->in = (struct plan_input){ .a = &o->a, .index = &o->index, .suspects = &o->suspects, .sandboxes = &o->sandboxes,
                                 .gateway_links = GATEWAY_PREFIX "*", .gateway_pool = o->gateway_pool,
                                 .ingress_link = INGRESS_LINK, .control_port = cfg->control_port,
                                 .gossip_port = cfg->gossip_port, .tunnel_port = cfg->tunnel_port };
    if (!address_parse(pool, &o->gateway_base, &o->gateway_bits) || o->gateway_bits > 29 || o->gateway_bits < 8)
        r = err_set(e, E_INVALID, "gateway pool \"%s\" must be like 172.30.0.0/16", pool);
    o->gateway_base &= ~UINT32_C(0) << (32 - o->gateway_bits);
    o->gateway_next = 2;
    o->in.gateway_addr = o->gateway_base + 1;
    if (r == 0)
        r = file_mkdirs(o->net_dir, 0700, e);
    if (r == 0)
        r = file_mkdirs(o->sandbox_dir, 0700, e);
    AUTO_FREE char *socket_path = path_join(cfg->run_dir, "tunnel.sock");
    o->tunnel = tunnel_client_new(l, cfg->self_exe, socket_path, reconcile, o);
    o->retry = loop_timer_new(l, reconcile, o);
    o->watch = loop_timer_new(l, watch, o);
    o->resolver = resolver_new(l, &o->in, o->tunnel, cfg->resolv_conf ? cfg->resolv_conf : "/etc/resolv.conf");
    if (r < 0) {
        overlay_close(o);
        return r;
    }
    load(o);
    open_resolvers(o);
    loop_timer_set(o->watch, 0);
    *ret = o;
    return 0;
}

static void release(struct overlay *o, bool quit)
{
    trace_abandon(&o->traces);
    tunnel_client_free(o->tunnel, quit);
    loop_timer_free(o->retry);
    loop_timer_free(o->watch);
    resolver_free(o->resolver);
    for (struct map_item *it = NULL; (it = map_next(&o->sandboxes, it));) {
        sandbox_clear(it->value);
        free(it->value);
    }
    for (struct map_item *it = NULL; (it = map_next(&o->networks, it));) {
        free(((struct network_ns *)it->value)->path);
        free(it->value);
    }
    for (struct map_item *it = NULL; (it = map_next(&o->paths, it));)
        free(it->value);
    for (struct map_item *it = NULL; (it = map_next(&o->rules, it));)
        rules_free(it->value);
    map_done(&o->suspects);
    map_done(&o->sandboxes);
    map_done(&o->networks);
    map_done(&o->paths);
    map_done(&o->rules);
    plan_index_done(&o->index);
    assignment_clear(&o->a);
    free(o->net_dir);
    free(o->sandbox_dir);
    free(o->gateway_pool);
    free(o->node_id);
    free(o->ingress_addr);
    free(o->gone);
    free(o);
}

void overlay_close(struct overlay *o)
{
    if (o)
        release(o, false);
}

void overlay_clear(struct overlay *o)
{
    struct err e;
    for (struct map_item *it = NULL; (it = map_next(&o->networks, it));)
        network_drop(o, it->value);
    link_remove(INGRESS_LINK); /* by name: which network it belongs to was never told here, and the kernel takes its time */
    link_remove(GATEWAY_LINK);
    if (nft_run(o->loop, "table " RULES_TABLE "\ndelete table " RULES_TABLE "\n", &e) < 0)
        log_warn("%s", e.text);
    if (route_ways(NULL, 0, INGRESS_LINK, o->gateway_base, o->gateway_bits, &e) < 0)
        log_warn("%s", e.text);
    rmdir(o->net_dir);
    rmdir(o->sandbox_dir);
    release(o, true);
}

/* ---- traces ---- */
static const struct tunnel_status *trace_status(void *arg)
{
    return tunnel_client_status(((struct overlay *)arg)->tunnel);
}

static bool trace_has_tap(void *arg, uint32_t vni)
{
    return tunnel_client_has_tap(((struct overlay *)arg)->tunnel, vni);
}

static char *trace_network_path(void *arg, uint32_t vni)
{
    return network_path(arg, vni);
}

struct trace_run *overlay_trace(struct overlay *o, const char *sandbox_id, const char *to, trace_done_fn *done, void *arg, struct err *e)
{
    const struct trace_site site = { &o->in, trace_status, trace_has_tap, trace_network_path, o, &o->traces };
    const struct sandbox *s = map_find(&o->sandboxes, sandbox_id);
    if (!s) {
        err_set(e, E_NOT_FOUND, "%s has no network namespace of its own on this node: it does not run, or is on the host's network", sandbox_id);
        return NULL;
    }
    tunnel_client_ask(o->tunnel); /* has answered when echoes have */
    return trace_start(o->loop, &site, s, map_find(&o->paths, sandbox_id), overlay_mtu(o), to, done, arg);
}

void overlay_trace_stop(struct trace_run *r)
{
    trace_stop(r);
}
