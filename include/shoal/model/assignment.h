/* What the leader tells a node's agent: complete, level-triggered state with a content version, so that
 * an agent that already has this version is sent nothing, whichever manager leads. And what the agent
 * reports back. Messages of the agent session, packed by the record engine. */
#ifndef SHOAL_MODEL_ASSIGNMENT_H
#define SHOAL_MODEL_ASSIGNMENT_H

#include <shoal/model/cluster.h>
#include <shoal/model/node.h>
#include <shoal/model/task.h>

/* A replica as every node sharing one of its networks sees it. */
#define replica_FIELDS(X, T)                                                                 \
    X(T, STR, network_id, _, 1, "NetworkID", "", .max = 64)                                  \
    X(T, STR, task_id, _, 2, "TaskID", "", .max = 25)                                        \
    X(T, STR, service_id, _, 3, "ServiceID", "", .max = 25)                                  \
    X(T, STR, addr, _, 4, "Addr", "address/prefix length", .max = 64)                        \
    X(T, STR, node_id, _, 5, "NodeID", "", .max = 25)                                        \
    X(T, UINT, slot, _, 6, "Slot", "")                                                       \
    X(T, BOOL, ready, _, 7, "Ready", "running, healthy, not draining: may get traffic")      \
    X(T, STRS, aliases, _, 8, "Aliases", "", .max = 64)
REC_DECLARE(replica)

#define service_entry_FIELDS(X, T)                                                           \
    X(T, STR, id, _, 1, "ID", "", .max = 25)                                                 \
    X(T, STR, name, _, 2, "Name", "", .max = 63)                                             \
    X(T, ENUM, mode, _, 3, "Mode", "", .names = endpoint_mode_names)                         \
    X(T, LIST, vips, vip, 4, "VirtualIPs", "of dnsrr: its networks, without addresses", .max = 64) \
    X(T, LIST, ports, port, 5, "Ports", "", .max = 256)                                      \
    X(T, ENUM, balance, _, 6, "Balance", "", .names = balance_names)
REC_DECLARE(service_entry)

#define assignment_FIELDS(X, T)                                                              \
    X(T, LIST, tasks, task, 1, "Tasks", "of this node", .max = 100000)                       \
    X(T, LIST, networks, network, 2, "Networks", "those the tasks need, and ingress", .max = 10000) \
    X(T, LIST, secrets, secret, 3, "Secrets", "those the tasks need", .max = 10000)          \
    X(T, LIST, configs, config, 4, "Configs", "those the tasks need", .max = 10000)          \
    X(T, LIST, services, service_entry, 5, "Services", "on those networks", .max = 100000)   \
    X(T, LIST, replicas, replica, 6, "Replicas", "on those networks", .max = 1000000)        \
    X(T, LIST, nodes, node, 7, "Nodes", "all members: peers of gossip and tunnel", .max = 20000) \
    X(T, LIST, gossip_keys, gossip_key, 8, "GossipKeys", "", .max = 3)                       \
    X(T, BYTES, tunnel_psk, _, 9, "TunnelPSK", "", .max = 32, .flags = F_SECRET)             \
    X(T, UINT, nodes_index, _, 10, "NodesIndex", "log index that Nodes is of; no part of the content version") \
    X(T, UINT, keyring, _, 11, "Keyring", "how often GossipKeys changed")                       \
    X(T, UINT, format, _, 12, "Format", "of the cluster; 0: 1")                              \
    X(T, UINT, format_next, _, 13, "FormatNext", "later one that all nodes know: to be promised; 0: none") \
    X(T, STRS, drained, _, 14, "Drained", "tasks of this node to be stopped that nobody sends calls to any more", .max = 100000) \
    X(T, BOOL, drains, _, 15, "Drains", "the leader tells so")  \
    X(T, BOOL, nodes_apart, _, 16, "NodesApart", "Nodes is not here: it came by node_table") \
    X(T, UINT, index, _, 17, "Index", "of the log: the state that all but Nodes is of; no part of the content version") \
    X(T, UINT, table, _, 18, "Table", "index of the node_table that it is to be read with; no part of the content version")
REC_DECLARE(assignment)

/* The node table, or what changed in it: an agent that says so (Tables) is sent it apart from its assignment, and each node
 * of it once. */
#define node_table_FIELDS(X, T)                                                                              \
    X(T, UINT, since, _, 1, "Since", "what changed after this log index; 0: all there is")                     \
    X(T, UINT, index, _, 2, "Index", "of the log: the latest change of the table that results")                \
    X(T, UINT, epoch, _, 3, "Epoch", "of the cluster; indexes of another one say nothing")                      \
    X(T, UINT, count, _, 4, "Count", "of nodes in the table that results")                                     \
    X(T, LIST, nodes, node, 5, "Nodes", "new and changed ones; new ones in order of creation", .max = 20000)   \
    X(T, STRS, gone, _, 6, "Gone", "removed ones", .max = 20000)
REC_DECLARE(node_table)
/* Brings the nodes of a up to date, whose table is of index held; takes the nodes of t. E_STALE: it does not fit, the table
 * is not to be relied on any more and all of it to be asked for. */
struct assignment;
int node_table_merge(struct assignment *a, uint64_t held, struct node_table *t, struct err *e) must_check;

#define session_hello_FIELDS(X, T)                                                           \
    X(T, REC, description, node_description, 1, "Description", "")                           \
    X(T, BYTES, have, _, 2, "Have", "content version held (SHA-256), empty: none", .max = 32) \
    X(T, STR, addr, _, 3, "Addr", "advertised address", .max = 64)                           \
    X(T, UINT, control_port, _, 4, "ControlPort", "", .max = 65535)                          \
    X(T, UINT, gossip_port, _, 5, "GossipPort", "", .max = 65535)                            \
    X(T, UINT, tunnel_port, _, 6, "TunnelPort", "", .max = 65535)                            \
    X(T, ENUM, role, _, 7, "Role", "of the certificate held", .names = node_role_names)      \
    X(T, UINT, raft_id, _, 8, "RaftID", "of the certificate held")                           \
    X(T, TIME, not_after, _, 9, "NotAfter", "of the certificate held")                       \
    X(T, UINT, epoch, _, 10, "Epoch", "of the certificate held")                             \
    X(T, BYTES, ca, _, 11, "CA", "signer of the certificate held", .max = 32)                \
    X(T, UINT, keyring, _, 12, "Keyring", "gossip keys in use here")                            \
    X(T, REC, formats, node_formats, 13, "Formats", "")                                      \
    X(T, UINT, in_force, _, 14, "InForce", "NodesIndex of the assignment whose names and rules are in force here") \
    X(T, UINT, held, _, 15, "Held", "NodesIndex of the assignment held")                     \
    X(T, BOOL, tells, _, 16, "Tells", "what is in force")                                      \
    X(T, BOOL, tables, _, 17, "Tables", "takes the node table apart and by differences")         \
    X(T, UINT, table, _, 18, "Table", "Index of the node table held; 0: none")                   \
    X(T, UINT, table_epoch, _, 19, "TableEpoch", "and its Epoch")
REC_DECLARE(session_hello)

#define task_update_FIELDS(X, T)                          \
    X(T, STR, id, _, 1, "ID", "", .max = 25)              \
    X(T, REC, status, task_status, 2, "Status", "")
REC_DECLARE(task_update)
#define task_report_FIELDS(X, T)                                                     \
    X(T, LIST, updates, task_update, 1, "Updates", "", .max = 100000)                \
    X(T, UINT, seq, _, 2, "Seq", "acknowledged by number when committed")
REC_DECLARE(task_report)

#endif
