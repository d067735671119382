/* The networks of a node: one namespace with bridge and TAP a network, one namespace a container (sandbox),
 * names, virtual IPs, published ports. What is wanted comes whole (overlay_apply); what the kernel holds is
 * brought in line with it, level-triggered. The daemon's restart leaves everything standing.
 * Design: design/datapath.md. Everything on the loop's thread. */
#ifndef SHOAL_OVERLAY_H
#define SHOAL_OVERLAY_H

#include <shoal/base/map.h>
#include <shoal/loop.h>
#include <shoal/model/assignment.h>
#include <shoal/tunnel.h>

/* An address of a sandbox on a network. */
#define sandbox_link_FIELDS(X, T)                                                  \
    X(T, STR, network_id, _, 1, "NetworkID", "", .max = 64)                        \
    X(T, UINT, vni, _, 2, "VNI", "", .max = 16777215)                              \
    X(T, STR, addr, _, 3, "Addr", "address/prefix length", .max = 64)
REC_DECLARE(sandbox_link)
/* A container's network namespace. */
#define sandbox_FIELDS(X, T)                                                       \
    X(T, STR, id, _, 1, "ID", "of its task or container", .max = 64)               \
    X(T, LIST, links, sandbox_link, 2, "Links", "", .max = 64)                     \
    X(T, LIST, ports, port, 3, "Ports", "published on this host only (mode host)", .max = 256) \
    X(T, BOOL, internal, _, 4, "Internal", "no way out")                           \
    X(T, STR, gateway_addr, _, 5, "GatewayAddr", "on the pair to its host; chosen here", .max = 64) \
    X(T, STRS, nameservers, _, 6, "Nameservers", "asked for names from outside; empty: the host's", .max = 8) \
    X(T, BOOL, idle, _, 7, "Idle", "its container does not run: its ports are not sent to it, others may have them")
REC_DECLARE(sandbox)

struct overlay;
struct overlay_config {
    const char *run_dir;         /* namespaces, sandboxes, socket of the tunnel; gone after a reboot */
    const char *self_exe;        /* the tunnel is "self_exe tunnel SOCKET" */
    const uint8_t *tunnel_secret; /* 32 bytes, borrowed while open */
    const char *listen_addr;     /* of the tunnel; NULL: any */
    const char *resolv_conf;     /* whose name servers are asked for names from outside; NULL: /etc/resolv.conf */
    const char *gateway_pool;    /* CIDR of the ways out; NULL: 172.30.0.0/16 */
    uint16_t control_port, gossip_port, tunnel_port; /* this node's own: never published */
    void (*mtu)(void *arg, unsigned mtu); /* of this node's link to the others, when it is another one; NULL: nobody asks */
    void *arg;
};
int overlay_open(struct overlay **ret, struct loop *l, const struct overlay_config *cfg, struct err *e) must_check;
void overlay_close(struct overlay *o); /* takes NULL; networks and tunnel go on */
/* Takes everything down: namespaces, rules, bridge, tunnel. Sandboxes must be removed before. */
void overlay_clear(struct overlay *o);

/* What the cluster wants here. node_id NULL: in no cluster. Nodes in suspects get no new traffic. Copied. False: some of it
 * could not be done, is said in the log and tried again. */
bool overlay_apply(struct overlay *o, const char *node_id, const struct assignment *a, const struct map *suspects);

/* Makes the namespace, connected and filtered; gives its path (borrowed while it exists). Nothing is left on
 * error. Networks must be known by overlay_apply. -E_CONFLICT: somebody has a port of it. */
int overlay_sandbox_add(struct overlay *o, const struct sandbox *s, const char **ret_netns, struct err *e) must_check;
void overlay_sandbox_remove(struct overlay *o, const char *id); /* unknown is fine */
/* A container that ended keeps its sandbox, but not its ports: -E_CONFLICT when it wakes and another has one. */
void overlay_sandbox_rest(struct overlay *o, const char *id);
int overlay_sandbox_wake(struct overlay *o, const char *id, struct err *e) must_check;
const struct sandbox *overlay_sandbox(const struct overlay *o, const char *id);
/* Those kept from before a restart: for (s = NULL; (s = overlay_sandbox_next(o, s));) */
const struct sandbox *overlay_sandbox_next(const struct overlay *o, const struct sandbox *after);

/* ---- the way from a container to a name or address, as this node has it ---- */
enum trace_state { TRACE_OK, TRACE_WARNING, TRACE_BROKEN };
extern const char *const trace_state_names[];
#define trace_step_FIELDS(X, T)                                                    \
    X(T, STR, name, _, 1, "Step", "", .max = 32)                                   \
    X(T, ENUM, state, _, 2, "State", "", .names = trace_state_names, .flags = F_ALWAYS)               \
    X(T, STR, text, _, 3, "Text", "", .max = 1024)
REC_DECLARE(trace_step)
#define trace_FIELDS(X, T)                                                         \
    X(T, STR, from, _, 1, "From", "the sandbox", .max = 64)                        \
    X(T, STR, to, _, 2, "To", "name or address, as asked", .max = 256)             \
    X(T, LIST, steps, trace_step, 3, "Steps", "", .max = 1024)
REC_DECLARE(trace)
typedef void trace_done_fn(void *arg, const struct trace *t /* borrowed */);
struct trace_run;
/* Name, network, virtual IP, replicas, links, tunnel, and whether they answer; done once, within about a second, unless
 * stopped before; sooner, and broken, when the overlay is closed. NULL with e: no such sandbox. */
struct trace_run *overlay_trace(struct overlay *o, const char *sandbox_id, const char *to, trace_done_fn *done, void *arg, struct err *e);
void overlay_trace_stop(struct trace_run *r); /* takes NULL; not after done */

#endif
