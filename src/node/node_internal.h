/* Shared by the node's files. */
#ifndef NODE_INTERNAL_H
#define NODE_INTERNAL_H

#include <shoal/agent.h>
#include <shoal/api.h>
#include <shoal/base/log.h>
#include <shoal/base/pace.h>
#include <shoal/base/version.h>
#include <shoal/gossip.h>
#include <shoal/late_file.h>
#include <shoal/link.h>
#include <shoal/manager.h>

#include "authority.h"

/* ---- identity_io.c: keys of this node (for ever) and its membership (for one cluster) ---- */
#define identity_FIELDS(X, T)                                                         \
    X(T, BYTES, link_secret, _, 1, "LinkSecret", "X25519", .max = 32, .flags = F_SECRET)   \
    X(T, BYTES, sign_secret, _, 2, "SignSecret", "Ed25519", .max = 64, .flags = F_SECRET)  \
    X(T, BYTES, tunnel_secret, _, 3, "TunnelSecret", "X25519", .max = 32, .flags = F_SECRET) \
    X(T, BYTES, disk_key, _, 4, "DiskKey", "seals log and membership", .max = 32, .flags = F_SECRET)  \
    X(T, BYTES, old_disk_key, _, 5, "OldDiskKey", "while a rotation of it has not ended", .max = 32, .flags = F_SECRET) \
    X(T, BOOL, rekey_due, _, 6, "RekeyDue", "DiskKey was readable by who had no right to it")  \
    X(T, BYTES, sealed, _, 7, "Sealed", "all but TunnelSecret, under the unlock key", .max = 2048)
REC_DECLARE(identity)

#define membership_FIELDS(X, T)                                                       \
    X(T, OPT, certificate, certificate, 1, "Certificate", "")                         \
    X(T, STR, addr, _, 2, "Addr", "advertised", .max = 64)                            \
    X(T, LIST, nodes, node, 3, "Nodes", "as last known", .max = 20000)                \
    X(T, LIST, gossip_keys, gossip_key, 4, "GossipKeys", "", .max = 3)                \
    X(T, BYTES, tunnel_psk, _, 5, "TunnelPSK", "", .max = 32, .flags = F_SECRET)      \
    X(T, UINT, control_port, _, 6, "ControlPort", "", .max = 65535)                   \
    X(T, UINT, nodes_index, _, 7, "NodesIndex", "log index that Nodes is of")          \
    X(T, UINT, starts, _, 8, "Starts", "of the daemon as this member")              \
    X(T, UINT, log_of, _, 9, "LogOf", "Raft id whose log this disk has held")  \
    X(T, UINT, format, _, 10, "Format", "promised: no shoal that does not know it starts here (model/format.h)")
REC_DECLARE(membership)

int identity_load(const char *root, struct identity *ret, struct err *e) must_check; /* made when missing */
int identity_renew(const char *root, struct identity *id, struct err *e) must_check; /* all keys new */
/* unlock_key NULL: in the clear. */
int identity_save(const char *root, const struct identity *id, const uint8_t *unlock_key, struct err *e) must_check;
bool identity_is_sealed(const struct identity *id);
int identity_unseal(struct identity *id, const uint8_t unlock_key[32], struct err *e) must_check; /* E_DENIED: another key */
int refuse_unlock_key(struct err *e); /* -E_DENIED and the sentence */
/* The file is sealed by a key that follows from DiskKey: whoever locks the identity locks both. -E_NOT_FOUND: in no cluster. */
int membership_load(const char *root, const struct identity *id, struct membership *ret, struct err *e) must_check;
void membership_pack(const struct identity *id, const struct membership *m, struct sb *ret /* what the file holds */);
void membership_remove(const char *root); /* and the log, snapshots, assignment */

/* ---- describe_io.c ---- */
void describe_machine(struct node_description *ret);
/* "10.0.0.1", an interface name, or NULL: the one address of this machine. */
int advertise_address(const char *text, char ret[64], struct err *e) must_check;

/* ---- the node ---- */
struct node_config {
    const char *root, *run, *api_path, *listen_addr, *self_exe, *resolv_conf, *advertise;
    uint16_t control_port, gossip_port, tunnel_port;
    const char *const *insecure, *const *mirrors; /* NULL-terminated */
    const char *certs_dir;
    int64_t down_after_ms, restart_ms;
    struct raft_config raft; /* but for its times; 0: as usual */
};
struct peers;
struct images;
struct lock { bool on; uint8_t key[32]; };
struct daemon {
    bool locked;               /* waits for the unlock key; in no cluster until then */
    struct lock lock;          /* how the identity is kept on disk */
    struct loop_timer *lock_timer;
    bool rekey_pending;        /* the log has not taken over DiskKey yet */
    bool lock_unsaved;
    bool spawner_gone, ending;
    struct loop *loop;
    struct node_config cfg;
    struct identity identity;
    struct membership member; /* certificate NULL: in no cluster */
    struct late_file *member_file; /* NULL: not written yet */
    int64_t member_kept_ms;
    struct loop_timer *table_timer; /* of member_nodes_changed(); NULL: in no cluster */
    struct pace table_pace;
    bool table_due;
    struct runtime *runtime;
    struct image_store *images;
    struct overlay *overlay;
    unsigned mtu; /* of the link to the other nodes, as the overlay measured it; 0: not yet */
    struct executor *executor;
    struct agent *agent;
    struct manager *manager;
    struct gossip *gossip;
    struct peers *peers;
    struct images *image_peers; /* NULL: in no cluster */
    struct address_watch *address; /* NULL: none needed */
    struct api *api;
    struct loop_timer *leave_timer;
    struct leave *leave;
    bool relink; /* a certificate of another epoch came */
    char *cgroup;
    struct sb packed_certificate;
};
const char *daemon_node_id(const struct daemon *d); /* NULL: in no cluster */
int daemon_overlay_open(struct daemon *d, struct err *e) must_check;

/* ---- member.c: the cluster parts of the node, from membership to running and back ---- */
/* fresh: this manager was admitted just now and waits to be added. */
int member_start(struct daemon *d, bool fresh, struct err *e) must_check;
void member_stop(struct daemon *d);
/* membership.mp: at once, for what must be on the disk before anything follows from it. */
int member_save(struct daemon *d, struct err *e) must_check;
/* The node table of the log with this index. It reaches the disk a moment later, and for a state alone not at all: a
 * restart goes on from an older table as well. keep: something else changed with it. */
void member_take_nodes(struct daemon *d, const struct node *v, uint32_t n, uint64_t index, bool keep);
void member_moved(struct daemon *d, const char *addr); /* this node has another address: told to all, links made anew */

/* ---- address_io.c: when the advertised address goes from its interface and another is there, member_moved() ---- */
void address_watch(struct daemon *d); /* nothing when the address is on no interface (an outside one) */
void address_unwatch(struct daemon *d);

/* A new certificate came from the leader. A change of role takes effect at the end of the turn. */
void member_certified(struct daemon *d, const void *p, size_t size);

/* ---- lock.c: autolock ---- */
/* The cluster, the role or the log may have changed: the disk follows. */
void lock_reconcile(struct daemon *d);
const uint8_t *lock_key(const struct daemon *d); /* NULL: the identity is kept in the clear */
/* The identity is sealed: opens it and the membership. E_DENIED: another key. */
int lock_open(struct daemon *d, const uint8_t key[32], struct err *e) must_check;

/* ---- admission.c ---- */
void node_start_init(struct daemon *d, const struct node_init *in, node_done_fn *done, void *arg);
void node_start_join(struct daemon *d, const struct node_join *in, node_done_fn *done, void *arg);
/* Takes in->state. */
void node_start_restore(struct daemon *d, struct node_restore *in, node_done_fn *done, void *arg);
void member_nodes_changed(struct daemon *d); /* the manager's node table is to be looked at */
void node_start_leave(struct daemon *d, bool force, node_done_fn *done, void *arg);
void leave_acknowledged(struct daemon *d);

/* ---- peers.c: links to the other nodes ---- */
int peers_open(struct daemon *d, struct err *e) must_check;
void peers_close(struct peers *p); /* takes NULL */
/* The membership changed: addresses, who is a manager. */
void peers_update(struct peers *p);
/* anew: all links are made again with it (another role or epoch); a renewal leaves those that are up alone. */
void peers_certificate_changed(struct peers *p, bool anew);
/* leader NULL: unknown. Links to the one before are cut if it is silent: its machine may be gone without a word, and
 * what it was asked on behalf of clients must not hang until the link is given up. */
void peers_leader_changed(struct peers *p, const char *leader);
void peers_send(struct peers *p, const char *node_id, uint8_t type, const void *bytes, size_t size);
size_t peers_queued(struct peers *p, const char *node_id); /* bytes of messages that it has not taken yet */
struct stream *peers_open_channel(struct peers *p, const char *node_id, struct err *e);
/* A channel to a node that a link is up with; NULL: there is none. */
struct stream *peers_channel(struct peers *p, const char *node_id, uint8_t service);
/* The same to any node: a link is made when there is none, and closed when nothing used it for half a minute. fn comes once, at the
 * end of the turn or later. */
typedef void peers_reached_fn(void *arg, struct stream *s /* taken; NULL: it is not to be reached */);
void peers_reach(struct peers *p, const char *node_id, uint8_t service, peers_reached_fn *fn, void *arg);
/* The certificate in p is the other end's own, signed by a key that the holder of own trusts: enum ca_trust. ret is to be
 * cleared also on failure. */
int certificate_of_peer(const struct certificate *own, const uint8_t key[32], const void *p, size_t size, int64_t now_ns,
                        struct certificate *ret, struct err *e) must_check;

/* Raft bytes to another manager: by the link, heartbeats and votes as a datagram too, through a third manager when the
 * link is silent. */
void peers_send_raft(struct peers *p, const char *node_id, const void *bytes, size_t size);
/* A datagram that is not gossip's; false: of nobody we know. */
bool peers_datagram(struct peers *p, const void *bytes, size_t size);

/* ---- relay.c: Raft by other ways than the link ---- */
enum relay_way { RELAY_DATAGRAM = 1, RELAY_THROUGH = 2, RELAY_WAYS = 3 };
struct relay;
struct relay *relay_new(struct daemon *d);
void relay_free(struct relay *r); /* takes NULL */
bool relay_datagram(struct relay *r, const char *to, const void *p, size_t size);
/* What a third manager is to carry; false: `to` is no manager with a known key. */
bool relay_envelope(struct relay *r, const char *to, const void *p, size_t size, struct sb *out);
bool relay_names(const void *p, size_t size, char from[26], char to[26]); /* false: malformed */
/* An envelope for this node: its Raft message is handed to the manager. False: not genuine. */
bool relay_receive(struct relay *r, enum relay_way way, const void *p, size_t size);

/* ---- images_io.c: blobs between nodes ---- */
void images_open(struct daemon *d);
void images_close(struct daemon *d);
void images_channel(struct daemon *d, const char *node_id, struct stream *s /* taken */);
void images_held(struct daemon *d, const char *node_id, const void *p, size_t size);
void images_link_up(struct daemon *d, const char *node_id);
void images_node_gone(struct daemon *d, const char *node_id); /* no link with it any more */
void images_nodes_changed(struct daemon *d);

/* ---- notify_io.c ---- */
void notify_service_manager(const char *state); /* "READY=1"; nothing when none asked for it */

#endif
