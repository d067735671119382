/* Cluster (Docker's Swarm object), networks, secrets, configs. */
#ifndef SHOAL_MODEL_CLUSTER_H
#define SHOAL_MODEL_CLUSTER_H

#include <shoal/model/rec.h>
#include <shoal/model/service.h>

/* Who governs the managers: NULL when well formed. */
const char *check_managers(const char *s);
/* How many voters "3" asks for; -1: auto; 0: manual (also NULL, as in clusters of Docker's client). */
int managers_wanted(const char *s);

#define orchestration_FIELDS(X, T) \
    X(T, INT, history, _, 1, "TaskHistoryRetentionLimit", "old tasks kept a slot", .min = -1, .max = 1000, .flags = F_ALWAYS)
REC_DECLARE(orchestration)
#define raft_spec_FIELDS(X, T)                                                                     \
    X(T, UINT, snapshot_interval, _, 1, "SnapshotInterval", "entries", .flags = F_ALWAYS)          \
    X(T, UINT, keep_old, _, 2, "KeepOldSnapshots", "", .flags = F_ALWAYS)                          \
    X(T, UINT, slow_followers, _, 3, "LogEntriesForSlowFollowers", "", .flags = F_ALWAYS)          \
    X(T, INT, election_tick, _, 4, "ElectionTick", "", .flags = F_ALWAYS)                          \
    X(T, INT, heartbeat_tick, _, 5, "HeartbeatTick", "", .flags = F_ALWAYS)
REC_DECLARE(raft_spec)
#define dispatcher_spec_FIELDS(X, T) \
    X(T, INT, heartbeat, _, 1, "HeartbeatPeriod", "ns", .min = 0, .max = INT64_MAX, .flags = F_ALWAYS)
REC_DECLARE(dispatcher_spec)
#define ca_spec_FIELDS(X, T)                                                                            \
    X(T, INT, node_cert_expiry, _, 1, "NodeCertExpiry", "ns", .min = 0, .max = INT64_MAX, .flags = F_ALWAYS) \
    X(T, LIST, external, empty, 2, "ExternalCAs", "", .max = 8, .flags = F_UNBUILT)                     \
    X(T, STR, signing_cert, _, 3, "SigningCACert", "", .max = 65536, .flags = F_UNBUILT)                \
    X(T, STR, signing_key, _, 4, "SigningCAKey", "", .max = 65536, .flags = F_UNBUILT)                  \
    X(T, UINT, force_rotate, _, 5, "ForceRotate", "greater than before: a new cluster key", .flags = F_ALWAYS)
REC_DECLARE(ca_spec)
#define task_defaults_FIELDS(X, T) X(T, OPT, log_driver, driver, 1, "LogDriver", "")
REC_DECLARE(task_defaults)
#define encryption_spec_FIELDS(X, T) X(T, BOOL, autolock, _, 1, "AutoLockManagers", "managers' disks need a key after a restart", .flags = F_ALWAYS)
REC_DECLARE(encryption_spec)
#define cluster_spec_FIELDS(X, T)                                                            \
    X(T, STR, name, _, 1, "Name", "", .max = 63)                                             \
    X(T, LABELS, labels, _, 2, "Labels", "", .max = 256, .flags = F_ALWAYS)                  \
    X(T, REC, orchestration, orchestration, 3, "Orchestration", "", .flags = F_ALWAYS)       \
    X(T, REC, raft, raft_spec, 4, "Raft", "echoed; shoal tunes itself", .flags = F_ALWAYS)   \
    X(T, REC, dispatcher, dispatcher_spec, 5, "Dispatcher", "", .flags = F_ALWAYS)           \
    X(T, REC, ca, ca_spec, 6, "CAConfig", "", .flags = F_ALWAYS)                             \
    X(T, REC, defaults, task_defaults, 7, "TaskDefaults", "", .flags = F_ALWAYS)             \
    X(T, REC, encryption, encryption_spec, 8, "EncryptionConfig", "", .flags = F_ALWAYS)
REC_DECLARE(cluster_spec)

#define join_tokens_FIELDS(X, T)                              \
    X(T, STR, worker, _, 1, "Worker", "", .max = 128)         \
    X(T, STR, manager, _, 2, "Manager", "", .max = 128)
REC_DECLARE(join_tokens)
#define gossip_key_FIELDS(X, T)                             \
    X(T, UINT, id, _, 1, "ID", "")                          \
    X(T, BYTES, key, _, 2, "Key", "", .max = 32, .flags = F_SECRET)
REC_DECLARE(gossip_key)
/* One cluster key vouches for the next. A node that knows From only follows the links to the key in force. */
#define ca_link_FIELDS(X, T)                                                                              \
    X(T, BYTES, from, _, 1, "From", "Ed25519", .max = 32)                                                 \
    X(T, BYTES, to, _, 2, "To", "Ed25519", .max = 32)                                                     \
    X(T, TIME, until, _, 3, "Until", "certificates by From count until then, for nodes of the table only") \
    X(T, BYTES, signature, _, 4, "Signature", "by From over the rest", .max = 64)
REC_DECLARE(ca_link)
/* A join token made for an occasion: it expires, or is good for one node. Only its hash is kept. */
#define join_grant_FIELDS(X, T)                                                              \
    X(T, STR, id, _, 1, "ID", "", .max = 12)                                                 \
    X(T, UINT, role, _, 2, "Role", "enum node_role", .max = 1)                               \
    X(T, BYTES, hash, _, 3, "Hash", "SHA-256 of the token", .max = 32, .flags = F_SECRET)    \
    X(T, TIME, created_at, _, 4, "CreatedAt", "", .flags = F_ALWAYS)                         \
    X(T, TIME, expires_at, _, 5, "ExpiresAt", "", .flags = F_ALWAYS)                         \
    X(T, BOOL, once, _, 6, "Once", "", .flags = F_ALWAYS)                                    \
    X(T, BYTES, used_by, _, 7, "UsedBy", "link key of the node it admitted", .max = 32)      \
    X(T, TIME, updated_at, _, 8, "UpdatedAt", "made or used")
REC_DECLARE(join_grant)
enum { JOIN_GRANTS_MAX = 64, CA_CHAIN_MAX = 8 };
#define cluster_FIELDS(X, T)                                                                             \
    X(T, STR, id, _, 1, "ID", "", .max = 25, .flags = F_FIXED)                                           \
    X(T, REC, version, version, 2, "Version", "", .flags = F_ALWAYS)                                     \
    X(T, TIME, created_at, _, 3, "CreatedAt", "", .flags = F_ALWAYS)                                     \
    X(T, TIME, updated_at, _, 4, "UpdatedAt", "", .flags = F_ALWAYS)                                     \
    X(T, REC, spec, cluster_spec, 5, "Spec", "", .flags = F_ALWAYS)                                      \
    X(T, BOOL, rotating, _, 6, "RootRotationInProgress", "", .flags = F_ALWAYS)                          \
    X(T, UINT, data_port, _, 7, "DataPathPort", "", .flags = F_ALWAYS)                                   \
    X(T, STRS, pools, _, 8, "DefaultAddrPool", "CIDR", .max = 16, .flags = F_ALWAYS)                     \
    X(T, UINT, subnet_size, _, 9, "SubnetSize", "prefix length of a new network", .max = 29, .flags = F_ALWAYS) \
    X(T, OPT, tokens, join_tokens, 10, "JoinTokens", "only on managers")                                 \
    X(T, BYTES, ca_public, _, 11, "CAPublic", "Ed25519", .max = 32)                                      \
    X(T, BYTES, ca_secret, _, 12, "CASecret", "Ed25519", .max = 64, .flags = F_SECRET)                   \
    X(T, LIST, gossip_keys, gossip_key, 13, "GossipKeys", "first is primary", .max = 3, .flags = F_SECRET) \
    X(T, BYTES, tunnel_psk, _, 14, "TunnelPSK", "", .max = 32, .flags = F_SECRET)                        \
    X(T, UINT, next_vni, _, 15, "NextVNI", "never reused")                                               \
    X(T, UINT, next_tunnel_addr, _, 16, "NextTunnelAddr", "host part, never reused")                     \
    X(T, UINT, epoch, _, 17, "Epoch", "grows with each recovery and restore; managers of an earlier one are out") \
    X(T, LIST, ca_chain, ca_link, 18, "CAChain", "from earlier cluster keys to CAPublic", .max = 8)      \
    X(T, LIST, grants, join_grant, 19, "JoinGrants", "", .max = 64, .flags = F_SECRET)                   \
    X(T, UINT, keyring, _, 20, "Keyring", "how often GossipKeys changed")                                \
    X(T, TIME, keys_at, _, 21, "KeysAt", "when the last gossip key was made")                            \
    X(T, BOOL, keys_due, _, 22, "KeysDue", "a new gossip key is wanted now")                             \
    X(T, BYTES, unlock_key, _, 23, "UnlockKey", "of the managers' disks", .max = 32, .flags = F_SECRET)  \
    X(T, STR, managers, _, 24, "Managers", "auto, manual or how many voters to keep", .max = 8, .check = check_managers) \
    X(T, INT, replace_after, _, 25, "ReplaceManagersAfter", "ns a manager must be down; 0: 1 minute", .min = 0, .max = INT64_MAX) \
    X(T, TIME, restore_until, _, 26, "RestoreUntil", "until then a node not heard of since the restore is waited for") \
    X(T, UINT, format, _, 27, "Format", "what the cluster writes, see format.h; 0: 1")
REC_DECLARE(cluster)

uint64_t cluster_format(const struct cluster *c); /* NULL: 1 */

#define ipam_config_FIELDS(X, T)                                      \
    X(T, STR, subnet, _, 1, "Subnet", "CIDR", .max = 64)              \
    X(T, STR, gateway, _, 2, "Gateway", "", .max = 64)                \
    X(T, STR, range, _, 3, "IPRange", "CIDR", .max = 64)              \
    X(T, LABELS, aux, _, 4, "AuxiliaryAddresses", "", .max = 16, .flags = F_UNBUILT)
REC_DECLARE(ipam_config)
#define ipam_FIELDS(X, T)                                                              \
    X(T, STR, driver, _, 1, "Driver", "default", .max = 64)                            \
    X(T, LABELS, options, _, 2, "Options", "", .max = 16)                              \
    X(T, LIST, config, ipam_config, 3, "Config", "", .max = 8, .flags = F_ALWAYS)
REC_DECLARE(ipam)
#define config_from_FIELDS(X, T) X(T, STR, network, _, 1, "Network", "", .max = 255)
REC_DECLARE(config_from)

/* POST /networks/create body and GET /networks reply share the rows. */
#define network_FIELDS(X, T)                                                                    \
    X(T, STR, id, _, 1, "Id", "", .max = 64, .flags = F_FIXED)                                  \
    X(T, REC, version, version, 2, "Version", "")                                               \
    X(T, TIME, created_at, _, 3, "Created", "", .flags = F_ALWAYS)                              \
    X(T, STR, name, _, 4, "Name", "", .min = 1, .max = 255, .check = check_name, .flags = F_ALWAYS) \
    X(T, STR, driver, _, 5, "Driver", "overlay", .max = 64, .flags = F_ALWAYS)                  \
    X(T, STR, scope, _, 6, "Scope", "swarm", .max = 16, .flags = F_ALWAYS)                      \
    X(T, BOOL, ipv4, _, 7, "EnableIPv4", "", .flags = F_OPAQUE)                                 \
    X(T, BOOL, ipv6, _, 8, "EnableIPv6", "", .flags = F_UNBUILT | F_ALWAYS)                     \
    X(T, OPT, ipam, ipam, 9, "IPAM", "")                                                        \
    X(T, BOOL, internal, _, 10, "Internal", "no way out", .flags = F_ALWAYS)                    \
    X(T, BOOL, attachable, _, 11, "Attachable", "", .flags = F_ALWAYS)                          \
    X(T, BOOL, ingress, _, 12, "Ingress", "", .flags = F_ALWAYS)                                \
    X(T, LABELS, options, _, 13, "Options", "", .max = 32, .flags = F_ALWAYS)                   \
    X(T, LABELS, labels, _, 14, "Labels", "", .max = 256, .flags = F_ALWAYS)                    \
    X(T, UINT, vni, _, 15, "VNI", "24 bits, allocated")                                         \
    X(T, BOOL, pending_delete, _, 16, "PendingDelete", "")                                      \
    X(T, BOOL, check_duplicate, _, 17, "CheckDuplicate", "", .flags = F_OPAQUE)                 \
    X(T, BOOL, config_only, _, 18, "ConfigOnly", "", .flags = F_UNBUILT)                        \
    X(T, OPT, config_from, config_from, 19, "ConfigFrom", "", .flags = F_UNBUILT)               \
    X(T, TIME, updated_at, _, 20, "UpdatedAt", "")
REC_DECLARE(network)

#define secret_spec_FIELDS(X, T)                                                            \
    X(T, STR, name, _, 1, "Name", "", .min = 1, .max = 64, .check = check_name)             \
    X(T, LABELS, labels, _, 2, "Labels", "", .max = 256, .flags = F_ALWAYS)                 \
    X(T, BYTES, data, _, 3, "Data", "at most 500 KiB", .max = 500 * 1024, .flags = F_SECRET) \
    X(T, OPT, driver, driver, 4, "Driver", "", .flags = F_UNBUILT)                          \
    X(T, OPT, templating, driver, 5, "Templating", "", .flags = F_UNBUILT)
REC_DECLARE(secret_spec)
#define config_spec_FIELDS(X, T)                                                            \
    X(T, STR, name, _, 1, "Name", "", .min = 1, .max = 64, .check = check_name)             \
    X(T, LABELS, labels, _, 2, "Labels", "", .max = 256, .flags = F_ALWAYS)                 \
    X(T, BYTES, data, _, 3, "Data", "at most 1000 KiB", .max = 1000 * 1024)                 \
    X(T, OPT, templating, driver, 5, "Templating", "", .flags = F_UNBUILT)
REC_DECLARE(config_spec)
#define secret_FIELDS(X, T)                                                      \
    X(T, STR, id, _, 1, "ID", "", .max = 25, .flags = F_FIXED)                   \
    X(T, REC, version, version, 2, "Version", "", .flags = F_ALWAYS)             \
    X(T, TIME, created_at, _, 3, "CreatedAt", "", .flags = F_ALWAYS)             \
    X(T, TIME, updated_at, _, 4, "UpdatedAt", "", .flags = F_ALWAYS)             \
    X(T, REC, spec, secret_spec, 5, "Spec", "", .flags = F_ALWAYS)
REC_DECLARE(secret)
#define config_FIELDS(X, T)                                                      \
    X(T, STR, id, _, 1, "ID", "", .max = 25, .flags = F_FIXED)                   \
    X(T, REC, version, version, 2, "Version", "", .flags = F_ALWAYS)             \
    X(T, TIME, created_at, _, 3, "CreatedAt", "", .flags = F_ALWAYS)             \
    X(T, TIME, updated_at, _, 4, "UpdatedAt", "", .flags = F_ALWAYS)             \
    X(T, REC, spec, config_spec, 5, "Spec", "", .flags = F_ALWAYS)
REC_DECLARE(config)

#endif
