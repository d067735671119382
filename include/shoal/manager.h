/* A manager's part of the daemon: the replicated store over Raft, and while it leads: control (writes that
 * users ask for), allocation of addresses, orchestration, scheduling, dispatch to agents, liveness, CA.
 * Everything on the loop's thread. The transport between nodes is handed in (hooks.send). */
#ifndef SHOAL_MANAGER_H
#define SHOAL_MANAGER_H

#include <shoal/loop.h>
#include <shoal/model/assignment.h>
#include <shoal/model/certificate.h>
#include <shoal/raft.h>
#include <shoal/store.h>

struct manager;

/* Messages between nodes (type byte of link_send). */
enum peer_message {
    MSG_RAFT = 1,       /* manager -> manager: raft bytes */
    MSG_HELLO = 2,      /* agent -> manager: packed session_hello */
    MSG_LEADER = 3,     /* manager -> agent: byte 1 if it took your HELLO, then the leader's node id or nothing */
    MSG_ASSIGNMENT = 4, /* leader -> agent: 32-byte content version, then packed assignment (empty: as held) */
    MSG_REPORT = 5,     /* agent -> leader: packed task_report */
    MSG_REPORT_ACK = 6, /* leader -> agent: 8-byte big-endian Seq */
    MSG_JOIN = 7,       /* joiner -> any node: packed join_request */
    MSG_JOIN_REPLY = 8, /* packed join_reply */
    MSG_LEAVE = 9,      /* agent -> leader: node leaves; reply MSG_LEAVE_OK */
    MSG_LEAVE_OK = 10,
    MSG_RELAY = 40,       /* manager -> manager: sealed Raft bytes of or for a third one (src/node/relay.c) */
    MSG_HELD = 12,      /* any node -> managers: packed image_held: blobs and images that it can give */
    MSG_NODES = 14,     /* leader -> agent: packed node_table, ahead of the assignment that relies on it */
    MSG_IN_FORCE = 13,  /* agent -> leader: 8-byte little-endian NodesIndex of the assignment whose names and rules are in force */
    MSG_CERTIFICATE = 11, /* leader -> agent: packed certificate, when the one its HELLO told of is due or of another role */
};

struct manager_hooks {
    void *arg;
    /* Sends to a node by id (also to self). May lose it. */
    void (*send)(void *arg, const char *node_id, uint8_t type, const void *p, size_t size);
    /* How many bytes wait for it to take them. NULL: none ever. */
    size_t (*queued)(void *arg, const char *node_id);
    /* Sends Raft bytes to the manager with this Raft id. */
    void (*send_raft)(void *arg, uint64_t raft_id, const char *node_id, const void *p, size_t size);
    /* The leader as this manager sees it changed; NULL: none. */
    void (*leader_changed)(void *arg, const char *leader_node_id);
    /* How many nodes gossip has complaints about that are not enough for a verdict. NULL: none ever. */
    uint32_t (*n_doubted)(void *arg);
    /* Pings a node that gossip has for suspect; manager_gossip_refused() when its machine refuses. NULL: never. */
    void (*ask)(void *arg, const char *node_id);
    /* An object of the node table changed (addresses, roles): peers may need to be reached anew; or the cluster did. */
    void (*nodes_changed)(void *arg);
    /* How it changed; now NULL: removed. Borrowed. The hook may be NULL. */
    void (*node_event)(void *arg, const struct node *old, const struct node *now);
};

struct manager_config {
    const char *dir;            /* log and snapshots */
    const uint8_t *disk_key;    /* 32 bytes */
    const uint8_t *old_disk_key; /* of a rotation that may not have ended, or NULL; see raft_node_set_key() */
    const char *node_id;        /* own; copied */
    uint64_t raft_id;
    int64_t down_after_ms;      /* SUSPECT for this long becomes DOWN; 0: 2000 */
    int64_t restart_ms;         /* SUSPECT, while its machine says that only the daemon is gone, becomes DOWN; 0: 30000 */
    struct raft_config raft;
};

int manager_open(struct manager **ret, struct loop *l, const struct manager_config *cfg,
                 const struct manager_hooks *hooks, struct err *e) must_check;
void manager_close(struct manager *m); /* takes NULL */
/* This process is about to end: a leader hands over first. done(arg) when another manager leads, there is nobody to
 * take over, or 2 s have passed; at once when this one does not lead. Not after manager_close. */
void manager_hand_over(struct manager *m, loop_fn *done, void *arg);

/* done(arg, 0, NULL) once agreed on and applied; else a negative code and the sentence. Called exactly once. */
typedef void manager_done_fn(void *arg, int result, const struct err *e);
/* First manager: bootstraps Raft and proposes the first objects. */
void manager_init_cluster(struct manager *m, const struct cluster *c, const struct node *self,
                          manager_done_fn *done, void *arg);
int manager_join_raft(struct manager *m, struct err *e) must_check; /* new manager: waits to be added */

const struct store *manager_store(const struct manager *m);
/* The way back from a lost quorum, on a surviving manager: it alone is the cluster's manager from then on, with the
 * state its log holds, in a new epoch; the other managers are out (they must leave and join anew). E_CONFLICT while a
 * leader is known. */
void manager_recover(struct manager *m, manager_done_fn *done, void *arg);
/* How the cluster's managers are governed, as its leader sees it. */
struct managers_plan {
    const char *policy;      /* "auto", "manual", "3"; borrowed */
    uint32_t wanted, eligible, voters, losses; /* wanted 0: nobody says; losses: more of them cost the quorum */
    int64_t replace_after;   /* ns */
};
void manager_plan(const struct manager *m, struct managers_plan *ret);
/* The departure of this node leaves the other managers a quorum; else why not, as far as this node can tell. */
int manager_may_leave(const struct manager *m, struct err *e) must_check;
/* The whole state, at one index, as the frames of model/backup.h, in pieces; on the leader, behind manager_read(). */
typedef void backup_put_fn(void *arg, const void *p, size_t size);
void manager_backup(const struct manager *m, backup_put_fn *put, void *arg);

/* The state of a backup, as it arrives: checked object by object, held until all of it is there. */
struct backup_state;
struct backup_state *backup_state_new(void);
void backup_state_free(struct backup_state *b); /* takes NULL */
int backup_state_take(struct backup_state *b, const void *p, size_t size, struct err *e) must_check;
/* All is there: a cluster of a new epoch, of which `self` (its keys, address and ports are filled in; it gets role and
 * Raft id) is the only manager. Nodes of the old one are unknown until they are heard of, and down after wait_ns;
 * its managers are left behind, as by a recovery. ret_cluster is a copy, the caller's. */
int backup_state_finish(struct backup_state *b, struct node *self, int64_t wait_ns, struct cluster *ret_cluster, struct err *e) must_check;
/* In place of manager_init_cluster: bootstraps Raft and proposes all of it. Takes b. The cluster object comes last:
 * until then nobody acts on what is there. */
void manager_restore_cluster(struct manager *m, struct backup_state *b, manager_done_fn *done, void *arg);
/* The format that the cluster writes (model/format.h), and the next one that this program knows. */
struct format_plan {
    uint64_t format, next;         /* equal: this program knows no later one */
    const struct node *waits_for;  /* the first node that next waits for, NULL: none, it comes with the next pass; borrowed */
};
uint64_t manager_format(const struct manager *m);
void manager_format_plan(const struct manager *m, struct format_plan *ret);
/* For how long no leader is known, ms; -1: there never was one since this process began. */
int64_t manager_leaderless_ms(const struct manager *m);
bool manager_is_suspect(const struct manager *m, const char *node_id); /* by gossip */
/* Another key for the log; see raft_node_set_key() for what must be on disk before and when done comes. */
void manager_set_disk_key(struct manager *m, const uint8_t key[32], manager_done_fn *done, void *arg);
bool manager_counts(const struct manager *m, uint64_t raft_id); /* it is in Raft's configuration in force */
bool manager_leads(const struct manager *m);           /* and has applied everything of earlier terms */
const char *manager_leader_id(const struct manager *m); /* node id, NULL: unknown */
void manager_raft_status(const struct manager *m, struct raft_status *ret);
/* Node's manager status for `node ls`; false: the node is no manager. */
bool manager_node_status(const struct manager *m, const char *node_id, struct manager_status *ret);

/* Takes tx. E_NOT_LEADER when this manager does not lead. */
void manager_propose(struct manager *m, struct store_tx *tx, manager_done_fn *done, void *arg);
/* done(0) when everything acknowledged anywhere before this call is applied here. */
void manager_read(struct manager *m, manager_done_fn *done, void *arg);

/* Messages and events from the transport and gossip. */
void manager_got_raft(struct manager *m, uint64_t from_raft_id, const void *p, size_t size);
void manager_got_message(struct manager *m, const char *from_node_id, uint8_t type, const void *p, size_t size);
/* Joining node (not yet a member). The reply is packed into out; async: done is called with it. */
typedef void manager_join_fn(void *arg, const struct join_reply *reply);
void manager_join(struct manager *m, const struct join_request *req, const char *peer_addr,
                  const uint8_t link_key[32], manager_join_fn *done, void *arg);
/* There is a link to this node. */
void manager_link_up(struct manager *m, const char *node_id);
/* The last link to this node was closed by its other end. */
void manager_link_gone(struct manager *m, const char *node_id);
void manager_gossip_state(struct manager *m, const char *node_id, bool suspect);
void manager_gossip_refused(struct manager *m, const char *node_id); /* its machine lives, its daemon does not */

/* Control: what users ask for. Leader only; done as above, with the new object's id in ret_id[26] when given
 * (storage of the caller, alive until done). Validation errors come through done at once. */
void control_service_create(struct manager *m, struct service_spec *spec /* takes content */,
                            const char *registry_auth, char ret_id[26], manager_done_fn *done, void *arg);
enum { SERVICE_UPDATE = 0, SERVICE_ROLLBACK = 1 };
void control_service_update(struct manager *m, const char *id, uint64_t version, struct service_spec *spec,
                            int rollback, const char *registry_auth, manager_done_fn *done, void *arg);
void control_service_remove(struct manager *m, const char *ref, manager_done_fn *done, void *arg);
void control_network_create(struct manager *m, struct network *n /* takes content */, char ret_id[26],
                            manager_done_fn *done, void *arg);
void control_network_remove(struct manager *m, const char *ref, manager_done_fn *done, void *arg);
void control_secret_create(struct manager *m, struct secret_spec *s, char ret_id[26], manager_done_fn *done, void *arg);
void control_secret_update(struct manager *m, const char *ref, uint64_t version, struct secret_spec *s, manager_done_fn *done, void *arg);
void control_secret_remove(struct manager *m, const char *ref, manager_done_fn *done, void *arg);
void control_config_create(struct manager *m, struct config_spec *s, char ret_id[26], manager_done_fn *done, void *arg);
void control_config_update(struct manager *m, const char *ref, uint64_t version, struct config_spec *s, manager_done_fn *done, void *arg);
void control_config_remove(struct manager *m, const char *ref, manager_done_fn *done, void *arg);
void control_node_update(struct manager *m, const char *ref, uint64_t version, struct node_spec *s, manager_done_fn *done, void *arg);
void control_node_remove(struct manager *m, const char *ref, bool force, manager_done_fn *done, void *arg);
/* What else an update of the cluster asks for. */
enum { ROTATE_WORKER_TOKEN = 1, ROTATE_MANAGER_TOKEN = 2, ROTATE_UNLOCK_KEY = 4 };
/* A ForceRotate in the spec that is greater than the present one replaces the cluster key. */
void control_cluster_update(struct manager *m, uint64_t version, struct cluster_spec *s, unsigned rotate,
                            manager_done_fn *done, void *arg);
/* Join tokens that expire after ttl_ns, or with the first node (once). ret_id and ret_token: storage of the caller, alive
 * until done. */
void control_token_create(struct manager *m, int role, int64_t ttl_ns, bool once, char ret_id[13], char ret_token[128],
                          manager_done_fn *done, void *arg);
void control_token_remove(struct manager *m, const char *id, manager_done_fn *done, void *arg);
/* New gossip keys, step by step (see rotation.c); E_BUSY while a rotation is under way. */
void control_keys_rotate(struct manager *m, manager_done_fn *done, void *arg);
/* Who of the nodes that are not DOWN holds what the cluster object names now: leader only. */
struct rotation_held { uint32_t nodes, certificates, keyrings; };
/* The key that signed the certificate this node holds, as it said itself; NULL: not known. Leader only. */
const struct bytes *manager_node_ca(const struct manager *m, const char *node_id);
struct rotation_held manager_rotation(const struct manager *m);

/* Who governs the managers; NULL and 0 leave it as it is. */
int control_check_replace_after(int64_t ns, struct err *e); /* 0, or from 1 s to 24 h */
void control_managers(struct manager *m, const char *policy, int64_t replace_after_ns, manager_done_fn *done, void *arg);

uint64_t raft_id_random(void); /* for a new manager; never 0 */

/* "SHOALKEY-1-<64 hex digits>" */
enum { UNLOCK_KEY_TEXT_BYTES = 76 };
void unlock_key_text(char out[UNLOCK_KEY_TEXT_BYTES], const uint8_t key[32]);
bool unlock_key_parse(uint8_t ret_key[32], const char *text); /* white space around it is ignored */

/* token.c: "SHOAL-1-<CA pin, 52 base32-ish characters>-<secret>"; role is the token's. */
void token_make(char out[128], const uint8_t ca_public[32]);
/* The pin of a token matches this CA key. */
bool token_pins(const char *token, const uint8_t ca_public[32]);
bool token_is_well_formed(const char *token);

#endif
