/* Shared by the overlay's files in the daemon. */
#ifndef OVERLAY_INTERNAL_H
#define OVERLAY_INTERNAL_H

#include <shoal/overlay.h>

#include "rules.h"

/* ---- address.c (pure) ---- */
/* "10.0.0.2/24" or "10.0.0.2": host-order address, prefix length (32 when none). */
bool address_parse(const char *text, uint32_t *ret_addr, unsigned *ret_bits);
void address_format(char out[32], uint32_t addr, int bits); /* bits < 0: without */
void address_mac(uint8_t out[6], uint32_t addr);            /* 02:42:a:b:c:d */
/* Interface names have 15 characters: a hash of whom they belong to. */
void link_name(char out[16], const char *prefix, const char *a, uint32_t b);

/* ---- plan_index.c (pure) ---- */
struct plan_replicas { const struct replica **v; uint32_t n, cap; };
struct plan_vips { struct { const struct service_entry *service; const struct vip *vip; } *v; uint32_t n, cap; };
struct plan_index {
    const struct assignment *a;
    struct map vips;     /* of a network -> struct plan_vips */
    struct map replicas; /* of a service on a network -> struct plan_replicas */
    struct map nodes;    /* id -> struct node */
    struct map *shares;  /* targets of calls, as bytes -> text of the map from callers' shares to them: kept as plan.c makes it */
};
void plan_index_build(struct plan_index *x, const struct assignment *a /* borrowed, unchanged until done */);
void plan_index_done(struct plan_index *x);
const struct plan_replicas *plan_replicas(const struct plan_index *x, const char *service_id, const char *network_id); /* never NULL */
const struct plan_vips *plan_vips(const struct plan_index *x, const char *network_id); /* never NULL */
const struct node *plan_node(const struct plan_index *x, const char *id); /* NULL: unknown */

/* ---- plan.c (pure): what the kernel and the tunnel shall hold, from assignment and sandboxes ---- */
struct plan_input {
    const struct assignment *a;
    const struct plan_index *index; /* of a */
    const struct map *suspects; /* of node ids */
    const char *node_id;        /* NULL: none */
    const struct map *sandboxes; /* id -> struct sandbox */
    const char *gateway_links; /* wildcard for the names of their hosts' ends */
    const char *gateway_pool, *ingress_link;
    uint32_t gateway_addr;      /* of the host in that pool */
    uint16_t control_port, gossip_port, tunnel_port;
};
/* Suspect, and not known to lack but its daemon: containers and tunnel of a DISCONNECTED node go on. */
bool plan_is_silent(const struct plan_input *in, const char *node_id);
/* May the replica get new calls? One of this node that has ended is known here before the leader says so. */
bool plan_may_get_new(const struct plan_input *in, const struct replica *r);
enum { UNDERLAY_MTU_MIN = 576 }; /* RFC 791 */
/* A network has one MTU on all nodes: of the narrowest link to the others, own being this node's. A node that was not measured
 * yet, or is down, does not count. ret_narrowest: whose link it is, NULL: this node's. */
unsigned plan_underlay_mtu(const struct plan_input *in, unsigned own, const struct node **ret_narrowest);
const struct node *plan_self(const struct plan_input *in);
const struct network *plan_ingress(const struct plan_input *in);
/* Replicas of before that exist no more, or only on a node that is down; indexes into before->replicas. */
uint32_t *plan_gone(const struct plan_index *before, const struct plan_index *now, uint32_t *ret_n);
struct flow_end { uint32_t addr; uint16_t port; uint8_t protocol; }; /* who answers; port 0: any, of any protocol */
/* Feet of other nodes on the ingress network that no published port of a service leads to any more. Heap. */
struct flow_end *plan_gone_feet(const struct plan_index *before, const struct plan_index *now, const char *ingress_id, uint32_t *ret_n);
/* Is the network needed here: a sandbox is on it, or it is ingress. */
bool plan_needs_network(const struct plan_input *in, const struct network *n);
/* Do calls to published ports of its service come to this sandbox. */
bool plan_takes_callers(const struct plan_input *in, const struct sandbox *s);
/* Feet on the ingress network that answers go back to, of all other nodes, when any service publishes a port (also where none of
 * its replicas is: a refusal goes back as well). Heap. */
uint32_t *plan_ways(const struct plan_input *in, uint32_t *ret_n);
/* Marks of connections and packets, and tables: "S" and the last 24 bits of the foot. */
#define WAY_MARK UINT32_C(0x53000000)
#define WAY_MASK UINT32_C(0xff000000)
uint32_t plan_way_mark(uint32_t foot);
void plan_tunnel(const struct plan_input *in, struct tunnel_config *ret);
/* Who has a port of s here already: -E_CONFLICT. */
int plan_check_ports(const struct plan_input *in, const struct sandbox *s, struct err *e) must_check;
/* A bit a port. */
enum { PORT_SET_BYTES = 65536 / 8 };
static inline bool port_set_has(const uint8_t *s, unsigned port)
{
    return s[port / 8] >> port % 8 & 1;
}
void plan_host_rules(const struct plan_input *in, struct rules *out, uint8_t *udp /* set, zero: gets the ports sent on */);
bool plan_sandbox_rules(const struct plan_input *in, const struct sandbox *s, struct rules *out); /* false: nothing to choose or refuse, out is empty */

/* ---- dns.c (pure) ---- */
enum { DNS_PACKET_MAX_BYTES = 4096, DNS_UDP_BYTES = 512 };
/* Answers a query from the tables. Returns the size of the answer, 0: not ours, ask outside, -E_INVALID: drop it.
 * max_bytes: room in out; a longer answer is cut with the TC bit. */
long dns_answer(const struct plan_input *in, const struct sandbox *s, const uint8_t *query, size_t size,
                uint8_t *out, size_t max_bytes);
/* SERVFAIL to a query (nobody outside answered). Same return. */
long dns_fail(const uint8_t *query, size_t size, uint8_t *out, size_t out_size);

/* The addresses of a name of ours, as the sandbox is told; how many. known: the name is ours, also without any. */
unsigned dns_find(const struct plan_input *in, const struct sandbox *s, const char *name, uint32_t *out, unsigned max, bool *ret_known);

/* ---- dns_io.c: 127.0.0.11:53 inside each sandbox ---- */
struct resolver;
struct tunnel_client;
struct resolver *resolver_new(struct loop *l, const struct plan_input *in /* borrowed, read at each query */,
                              struct tunnel_client *keeper, const char *resolv_conf);
void resolver_free(struct resolver *r); /* its sockets are kept */
/* Call while inside the sandbox's namespace. One that the keeper found is used as it is. */
int resolver_open(struct resolver *r, const struct sandbox *s /* borrowed until close */, struct err *e) must_check;
void resolver_close(struct resolver *r, const char *sandbox_id);
bool resolver_is_open(const struct resolver *r, const char *sandbox_id);

/* ---- kern_netns.c ---- */
int netns_make(const char *path, struct err *e) must_check; /* new, named by a bind mount; lo is up */
void netns_remove(const char *path);
bool netns_exists(const char *path);
/* The calling thread goes in and comes back; -1 and e when it cannot. */
int netns_enter(const char *path, struct err *e) must_check; /* returns the way back: a descriptor */
void netns_leave(int back);
int netns_open(const char *path, struct err *e) must_check; /* a descriptor: the namespace itself, whatever has its path later */
int netns_enter_open(int netns, const char *what /* for e */, struct err *e) must_check; /* as netns_enter() */

/* ---- kern_link.c: in the present namespace ---- */
bool link_exists(const char *name);
/* No IPv6 is given to containers; but the kernel would take a route from any router advertisement that one sends
 * (CVE-2020-13401), for the host as well. link_up() sees to it before the link can receive. */
int link_without_ipv6(const char *name, struct err *e) must_check;
int link_up(const char *name, struct err *e) must_check;
int link_make_bridge(const char *name, struct err *e) must_check; /* exists already: fine */
/* A pair: name here, peer_name in the namespace of the descriptor. */
int link_make_veth(const char *name, const char *peer_name, int peer_netns, unsigned mtu, const uint8_t *peer_mac,
                   struct err *e) must_check;
int link_set_master(const char *name, const char *bridge, struct err *e) must_check;
int link_set_mac(const char *name, const uint8_t mac[6], struct err *e) must_check;
int link_set_mtu(const char *name, unsigned mtu, struct err *e) must_check;
void link_set_mtu_in(const char *netns /* NULL: the present one */, const char *name, unsigned mtu); /* a failure is for the log */
int link_add_address(const char *name, uint32_t addr, unsigned bits, struct err *e) must_check;
int link_add_route(const char *name, uint32_t addr, unsigned bits, uint32_t via /* 0: on the link */, struct err *e) must_check;
bool link_has_address(const char *name, uint32_t addr);
void link_remove(const char *name);
/* Beside the loop, for the kernel takes tens of milliseconds; netns NULL: the host's. One of the same name may be made meanwhile. */
void link_remove_later(struct loop *l, const char *netns, const char *name);
int link_open_tap(const char *name, bool vnet_header, struct err *e) must_check; /* descriptor, non-blocking */
/* Of the device with this address; 0: unknown. Less the 20 bytes that an IPv6 header has more: what is taken off
 * for the tunnel (TUNNEL_MTU_OVERHEAD) counts an IPv4 header. */
unsigned link_underlay_mtu(const char *addr);
int sysctl_set(const char *name, const char *value, struct err *e) must_check; /* "net/ipv4/ip_forward" */

/* ---- kern_nft.c: the door to libnftables; in the present namespace ---- */
int nft_run(struct loop *l, const char *commands, struct err *e) must_check;
int nft_count_rules(void); /* in our table; 0 also when there is none, -1: the kernel does not say */

/* ---- rules_io.c ---- */
/* Brings the rules of a namespace (NULL: the present one) to `rules`, which it takes; standing: key -> struct rules that the
 * kernel is known to hold. 1: the kernel was told, 0: it has them already. */
int rules_apply(struct loop *l, struct map *standing, const char *key, const char *netns, struct rules *rules, struct err *e) must_check;
void rules_drop(struct map *standing, const char *key); /* it is not known what stands there */

/* ---- kern_conntrack.c ---- */
/* Forgets the connections of a namespace (NULL: the host's) that are answered by one of these, and flows to these UDP ports
 * (PORT_SET_BYTES, may be NULL) that go where they were sent. Beside the loop: the kernel walks its whole table for it. */
void conntrack_forget_later(struct loop *l, const char *netns, const struct flow_end *ends, unsigned n, const uint8_t *udp);

/* ---- kern_route.c: in the present namespace ---- */
/* Packets with plan_way_mark() of a foot leave by the link to it, but for those to PASS/BITS, which go where they would.
 * What stands is left alone, other ways go. */
int route_ways(const uint32_t *feet, uint32_t n, const char *link, uint32_t pass, unsigned bits, struct err *e) must_check;

/* ---- tunnel_client_io.c: the tunnel process ---- */
struct tunnel_client;
/* ready: whenever the process has told which TAPs it holds: when it was found, and after a configuration that closed one. */
struct tunnel_client *tunnel_client_new(struct loop *l, const char *exe, const char *socket_path,
                                        void (*ready)(void *arg), void *arg);
void tunnel_client_free(struct tunnel_client *t, bool quit);
void tunnel_client_config(struct tunnel_client *t, const struct tunnel_config *c);
bool tunnel_client_has_tap(const struct tunnel_client *t, uint32_t vni); /* false until the process told */
bool tunnel_client_is_ready(const struct tunnel_client *t);
void tunnel_client_ask(struct tunnel_client *t); /* for its status anew */
const struct tunnel_status *tunnel_client_status(const struct tunnel_client *t); /* the last one; NULL: none, or it is gone */
bool tunnel_client_takes_vnet(const struct tunnel_client *t); /* a process of before does not know TAPs with a vnet header */
/* The network is gone here: its TAP must be given again when it comes back. */
void tunnel_client_forget(struct tunnel_client *t, uint32_t vni);
void tunnel_client_tap(struct tunnel_client *t, uint32_t vni, int fd /* taken */);
/* Descriptors that stay open when the daemon ends: the process holds them too, under a name; borrowed until unkeep. */
void tunnel_client_keep(struct tunnel_client *t, const char *name, const int fds[TUNNEL_KEPT_FDS]);
void tunnel_client_unkeep(struct tunnel_client *t, const char *name);
/* What it held when the client was made; the caller's from then on. After found_all() what nobody took is closed. A process that
 * had no time to answer then is asked again: found_all() does nothing until it has, which `ready` tells. */
bool tunnel_client_found(struct tunnel_client *t, const char *name, int ret_fds[TUNNEL_KEPT_FDS]);
void tunnel_client_found_all(struct tunnel_client *t);

#endif
