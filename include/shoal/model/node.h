/* Node: a member machine. Its id is never reused; its identity is its keys, its address is data. */
#ifndef SHOAL_MODEL_NODE_H
#define SHOAL_MODEL_NODE_H

#include <shoal/model/rec.h>
#include <shoal/model/service.h>

extern const char *const node_role_names[], *const node_availability_names[], *const node_state_names[],
    *const reachability_names[];
enum node_role { ROLE_WORKER, ROLE_MANAGER };
enum node_availability { AVAIL_ACTIVE, AVAIL_PAUSE, AVAIL_DRAIN };
enum node_state { NODE_UNKNOWN, NODE_DOWN, NODE_READY, NODE_DISCONNECTED };
enum reachability { REACH_UNKNOWN, REACH_UNREACHABLE, REACH_REACHABLE, REACH_REPAIRING /* its log lost something */ };

/* A label of Spec.Labels: "no": never a manager by the cluster's choice; "yes": also after a demotion by hand. */
#define NODE_LABEL_MANAGER "shoal.manager"
#define NODE_LABEL_ZONE "zone" /* managers are spread over its values */

/* Status.Message of a node that has not been heard of since the cluster was restored: it knows no manager, so the
 * managers call it, also when it is down by now. */
#define NODE_UNHEARD_MESSAGE "not heard of since the restore"

/* Status.Message of a node that went for ever: it said goodbye, or was left behind by a recovery. */
#define NODE_LEFT_MESSAGE "left the cluster"
#define NODE_BEHIND_MESSAGE "left behind: the cluster was recovered without it"

/* See format.h. Of a node that says nothing: format 1. */
#define node_formats_FIELDS(X, T)                                                                       \
    X(T, UINT, least, _, 1, "Least", "first format that its shoal knows", .flags = F_ALWAYS)            \
    X(T, UINT, most, _, 2, "Most", "last format that its shoal knows", .flags = F_ALWAYS)               \
    X(T, UINT, promised, _, 3, "Promised", "it starts no more with a shoal that does not know this one", .flags = F_ALWAYS)
REC_DECLARE(node_formats)

#define node_spec_FIELDS(X, T)                                                                          \
    X(T, STR, name, _, 1, "Name", "", .max = 63)                                                        \
    X(T, LABELS, labels, _, 2, "Labels", "", .max = 256, .flags = F_ALWAYS)                             \
    X(T, ENUM, role, _, 3, "Role", "", .names = node_role_names, .flags = F_ALWAYS)                     \
    X(T, ENUM, availability, _, 4, "Availability", "", .names = node_availability_names, .flags = F_ALWAYS)
REC_DECLARE(node_spec)

#define node_resources_FIELDS(X, T)                                   \
    X(T, INT, nano_cpus, _, 1, "NanoCPUs", "", .flags = F_ALWAYS)     \
    X(T, INT, memory_bytes, _, 2, "MemoryBytes", "", .flags = F_ALWAYS)
REC_DECLARE(node_resources)
#define plugin_FIELDS(X, T)                          \
    X(T, STR, type, _, 1, "Type", "", .max = 32)     \
    X(T, STR, name, _, 2, "Name", "", .max = 64)
REC_DECLARE(plugin)
#define engine_FIELDS(X, T)                                                   \
    X(T, STR, version, _, 1, "EngineVersion", "", .max = 64)                  \
    X(T, LABELS, labels, _, 2, "Labels", "", .max = 64)                       \
    X(T, LIST, plugins, plugin, 3, "Plugins", "", .max = 32, .flags = F_ALWAYS)
REC_DECLARE(engine)
#define node_description_FIELDS(X, T)                                             \
    X(T, STR, hostname, _, 1, "Hostname", "", .max = 255)                         \
    X(T, REC, platform, platform, 2, "Platform", "", .flags = F_ALWAYS)           \
    X(T, REC, resources, node_resources, 3, "Resources", "", .flags = F_ALWAYS)   \
    X(T, REC, engine, engine, 4, "Engine", "", .flags = F_ALWAYS)                 \
    X(T, UINT, mtu, _, 5, "MTU", "of its link to the other nodes; 0: not measured yet", .max = 65535)
REC_DECLARE(node_description)

#define node_status_FIELDS(X, T)                                                         \
    X(T, ENUM, state, _, 1, "State", "", .names = node_state_names, .flags = F_ALWAYS)   \
    X(T, STR, message, _, 2, "Message", "", .max = 1024)                                 \
    X(T, STR, addr, _, 3, "Addr", "address other nodes use", .max = 64)
REC_DECLARE(node_status)
#define manager_status_FIELDS(X, T)                                                                       \
    X(T, BOOL, leader, _, 1, "Leader", "")                                                                \
    X(T, ENUM, reachability, _, 2, "Reachability", "", .names = reachability_names, .flags = F_ALWAYS)    \
    X(T, STR, addr, _, 3, "Addr", "address:port", .max = 80)                                              \
    X(T, BOOL, voter, _, 4, "Voter", "false: its log catches up, it has no vote yet", .flags = F_ALWAYS)  \
    X(T, UINT, behind, _, 5, "Behind", "entries of the log it lacks; only the leader knows")
REC_DECLARE(manager_status)

#define node_FIELDS(X, T)                                                                             \
    X(T, STR, id, _, 1, "ID", "", .max = 25, .flags = F_FIXED)                                        \
    X(T, REC, version, version, 2, "Version", "", .flags = F_ALWAYS)                                  \
    X(T, TIME, created_at, _, 3, "CreatedAt", "", .flags = F_ALWAYS)                                  \
    X(T, TIME, updated_at, _, 4, "UpdatedAt", "", .flags = F_ALWAYS)                                  \
    X(T, REC, spec, node_spec, 5, "Spec", "", .flags = F_ALWAYS)                                      \
    X(T, REC, description, node_description, 6, "Description", "", .flags = F_ALWAYS)                 \
    X(T, REC, status, node_status, 7, "Status", "", .flags = F_ALWAYS)                                \
    X(T, OPT, manager, manager_status, 8, "ManagerStatus", "computed", .flags = F_LOCAL)              \
    X(T, UINT, raft_id, _, 9, "RaftID", "64-bit, 0: never was a manager")                             \
    X(T, BYTES, link_key, _, 10, "LinkKey", "X25519 of control links", .max = 32)                     \
    X(T, BYTES, sign_key, _, 11, "SignKey", "Ed25519", .max = 32)                                     \
    X(T, BYTES, tunnel_key, _, 12, "TunnelKey", "X25519 of the overlay", .max = 32)                   \
    X(T, UINT, control_port, _, 13, "ControlPort", "tcp", .max = 65535)                               \
    X(T, UINT, gossip_port, _, 14, "GossipPort", "udp", .max = 65535)                                 \
    X(T, UINT, tunnel_port, _, 15, "TunnelPort", "udp", .max = 65535)                                 \
    X(T, STR, tunnel_addr, _, 16, "TunnelAddr", "IPv4 inside the tunnel", .max = 64)                  \
    X(T, STR, ingress_addr, _, 17, "IngressAddr", "address/len on the ingress network", .max = 64)    \
    X(T, TIME, down_since, _, 18, "DownSince", "0: not down")                                         \
    X(T, TIME, role_since, _, 24, "RoleSince", "0: since it joined")                                  \
    X(T, STR, role_reason, _, 25, "RoleReason", "why it has its role; absent: it joined so", .max = 255) \
    X(T, BOOL, role_auto, _, 26, "RoleAuto", "the cluster chose its role, not a person")              \
    X(T, TIME, ready_since, _, 27, "ReadySince", "when it came back; 0: was never down")   \
    X(T, REC, formats, node_formats, 28, "Formats", "", .flags = F_ALWAYS)
REC_DECLARE(node)

bool node_has_left(const struct node *n);
/* Such a node knows the format; has promised to. One that has left always does. */
bool node_knows_format(const struct node *n, uint64_t format);
bool node_keeps_format(const struct node *n, uint64_t format);

#endif
