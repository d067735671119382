/* Identity: a node's certificate (its keys, id and role, signed by the cluster key) and the two messages of
 * admission. Identity is the key; the address is data. Certificates travel as packed records inside the
 * Noise handshake of a link. */
#ifndef SHOAL_MODEL_CERTIFICATE_H
#define SHOAL_MODEL_CERTIFICATE_H

#include <shoal/model/cluster.h>
#include <shoal/model/node.h>

#define certificate_FIELDS(X, T)                                                   \
    X(T, STR, cluster_id, _, 1, "ClusterID", "", .max = 25)                        \
    X(T, STR, node_id, _, 2, "NodeID", "", .max = 25)                              \
    X(T, ENUM, role, _, 3, "Role", "", .names = node_role_names)                   \
    X(T, UINT, raft_id, _, 4, "RaftID", "managers")                                \
    X(T, BYTES, link_key, _, 5, "LinkKey", "X25519", .max = 32)                    \
    X(T, BYTES, sign_key, _, 6, "SignKey", "Ed25519", .max = 32)                   \
    X(T, TIME, not_before, _, 7, "NotBefore", "")                                  \
    X(T, TIME, not_after, _, 8, "NotAfter", "")                                    \
    X(T, BYTES, ca_public, _, 9, "CAPublic", "signer", .max = 32)                  \
    X(T, BYTES, signature, _, 10, "Signature", "Ed25519 over the record without it", .max = 64) \
    X(T, UINT, epoch, _, 11, "Epoch", "of the cluster; a manager of an earlier one is kept out") \
    X(T, UINT, serial, _, 12, "Serial", "log index of the state it was made from")   \
    X(T, LIST, chain, ca_link, 13, "Chain", "from earlier cluster keys to CAPublic", .max = 8)
REC_DECLARE(certificate)

void certificate_sign(struct certificate *c, const uint8_t ca_secret[64]);
/* Signature by ca_public, and link key as seen in the handshake. E_DENIED. */
int certificate_verify(const struct certificate *c, const uint8_t ca_public[32], const uint8_t link_key[32],
                       struct err *e) must_check;
void ca_link_sign(struct ca_link *l, const uint8_t from_secret[64]);
/* Do these links, each signed, lead from one key to the other? ret_until: when the first expires; may be NULL. */
bool ca_chain_leads(const struct ca_link *v, uint32_t n, const struct bytes *from, const struct bytes *to, int64_t *ret_until);
enum ca_trust { CA_SAME, CA_NEWER, CA_RETIRED };
/* What the holder of own thinks of the key that signed c: enum ca_trust, or E_DENIED. CA_RETIRED: good only for a node
 * that the node table lists with this link key, and only with the role it has there. */
int certificate_trust(const struct certificate *own, const struct certificate *c, int64_t now_ns, struct err *e) must_check;
/* Its time, 1 h of skew tolerated. E_DENIED. */
int certificate_check_time(const struct certificate *c, int64_t now_ns, struct err *e) must_check;
/* A leader replaces it from now on: between 50 and 70 % of its life is over, at a point that differs from node to node
 * and from certificate to certificate, so that machines installed together do not renew together. */
bool certificate_is_due(const char *node_id, int64_t not_after_ns, int64_t life_ns, int64_t now_ns);

/* What a link's handshake payload is: a certificate, or empty from a node that wants to join. */

#define join_request_FIELDS(X, T)                                                  \
    X(T, STR, token, _, 1, "Token", "", .max = 128, .flags = F_SECRET)             \
    X(T, BYTES, sign_key, _, 2, "SignKey", "", .max = 32)                          \
    X(T, BYTES, tunnel_key, _, 3, "TunnelKey", "", .max = 32)                      \
    X(T, STR, addr, _, 4, "Addr", "advertised; empty: as the manager sees it", .max = 64) \
    X(T, UINT, control_port, _, 5, "ControlPort", "", .max = 65535)                \
    X(T, UINT, gossip_port, _, 6, "GossipPort", "", .max = 65535)                  \
    X(T, UINT, tunnel_port, _, 7, "TunnelPort", "", .max = 65535)                  \
    X(T, REC, description, node_description, 8, "Description", "")                 \
    X(T, ENUM, availability, _, 9, "Availability", "", .names = node_availability_names) \
    X(T, BOOL, never_manager, _, 24, "NeverManager", "the cluster shall not promote it by itself") \
    X(T, REC, formats, node_formats, 25, "Formats", "")
REC_DECLARE(join_request)

#define join_reply_FIELDS(X, T)                                                    \
    X(T, STR, error, _, 1, "Error", "why not", .max = 1024)                        \
    X(T, STR, leader, _, 2, "Leader", "ask there: address:port", .max = 80)        \
    X(T, OPT, certificate, certificate, 3, "Certificate", "")                      \
    X(T, LIST, nodes, node, 4, "Nodes", "members so far", .max = 20000)            \
    X(T, LIST, gossip_keys, gossip_key, 5, "GossipKeys", "", .max = 3)             \
    X(T, BYTES, tunnel_psk, _, 6, "TunnelPSK", "", .max = 32, .flags = F_SECRET)   \
    X(T, UINT, code, _, 7, "Code", "enum err_code of Error")                       \
    X(T, STR, addr, _, 8, "Addr", "the joiner's address as admitted", .max = 64)   \
    X(T, UINT, nodes_index, _, 9, "NodesIndex", "log index that Nodes is of")        \
    X(T, UINT, format, _, 10, "Format", "of the cluster: to be promised before anything else")
REC_DECLARE(join_reply)

#endif
