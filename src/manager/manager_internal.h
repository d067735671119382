/* Shared by the manager's files. */
#ifndef MANAGER_INTERNAL_H
#define MANAGER_INTERNAL_H

#include <shoal/base/crypto.h>
#include <shoal/base/list.h>
#include <shoal/base/log.h>
#include <shoal/base/pace.h>
#include <shoal/manager.h>

#include "govern.h"

struct dispatcher;
struct liveness;
struct init_cluster;
struct restore;

enum { REFUSALS = 128 };

struct manager {
    struct loop *loop;
    struct manager_hooks hooks;
    char *node_id;
    uint64_t raft_id;
    int64_t down_after_ms, restart_ms;
    struct raft_node *raft;
    struct store *store;
    struct dispatcher *dispatcher;
    struct liveness *liveness;
    struct table *table;
    struct map keys;      /* kind and public key of a node -> its id, heap (ca.c) */
    struct map admitting; /* link keys of those whose admission is under way */

    /* leader only */
    bool leads;               /* ready: the store holds everything agreed on before */
    bool pass_running;        /* a pass's transaction is under way */
    bool pass_wanted;
    struct pace pass_pace;
    int64_t pass_after_ms;    /* monotonic; none before, for what the last one proposed was refused; 0: it was taken */
    bool change_running;      /* a Raft membership change is under way */
    bool govern_running;      /* a change of role by the policy is */
    struct recovery *recovery; /* recover.c: no pass before the lost managers are out of the table; NULL: none */
    bool restore_judging;
    struct init_cluster *init; /* what a new cluster begins with, until it is proposed */
    uint64_t founding_format;  /* of what is proposed before there is a cluster object */
    struct restore *restore;   /* backup.c: one under way; both NULL: none */
    bool closing;             /* no pass begins any more; freed when the calls already deferred are over */
    struct loop_timer *pass_timer, *change_timer, *govern_timer, *restore_timer;
    char *leader_id;
    bool leaving;             /* hands over, and ends */
    loop_fn *left;            /* to be called when another manager leads; NULL: nobody waits */
    void *left_arg;
    struct loop_timer *left_timer;
    int64_t leader_lost_ms;   /* monotonic; 0: none was known yet */
    struct refusal {          /* why applied transactions were refused, for their proposers */
        uint64_t index;
        struct err err;
    } refusals[REFUSALS];     /* by index modulo; a proposer asks within the same turn */
};

/* Asks for an orchestration pass at the end of this turn. */
void manager_want_pass(struct manager *m);
/* What a pass proposed has ended so: the next pass comes at once, or a moment later when it was refused (the disks are
 * full), for it would be again. */
void manager_pass_over(struct manager *m, int result, const char *what, const struct err *e);
/* MSG_LEADER to an agent; accepted: this manager leads and holds a session with it. */
void manager_send_leader(struct manager *m, const char *to, bool accepted);

/* allocator.c: addresses, VIPs, VNIs, ports for what lacks them. Pure. */
/* A subnet that somebody chose: readable, and apart from other networks, from nodes and from shoal's own. */
int allocator_check_subnet(const struct store *s, const struct ipam_config *c, struct err *e) must_check;
void allocate(const struct store *s, struct store_tx *tx, int64_t now_ns);
/* First free published port etc. fail into the object's status/message. */

/* dispatcher.c */
struct dispatcher *dispatcher_new(struct manager *m);
void dispatcher_free(struct dispatcher *d);
void dispatcher_hello(struct dispatcher *d, const char *node_id, const struct session_hello *h);
void dispatcher_report(struct dispatcher *d, const char *node_id, const struct task_report *r);
void dispatcher_in_force(struct dispatcher *d, const char *node_id, uint64_t nodes_index);
void dispatcher_link_gone(struct dispatcher *d, const char *node_id);
void dispatcher_forget_all(struct dispatcher *d); /* leadership lost */
void dispatcher_store_changed(struct dispatcher *d);
/* What the node said in the HELLO that came last; NULL: no session. */
const struct session_hello *dispatcher_said(const struct dispatcher *d, const char *node_id);

/* assignment.c: what one node must know. Pure. nodes_apart: without the node table. Caller clears ret. */
void assignment_build(const struct store *s, const char *node_id, bool nodes_apart, struct assignment *ret);

/* table.c: the node table, whole and in differences. */
struct table;
struct table *table_new(void);
void table_free(struct table *t); /* takes NULL */
void table_changed(struct table *t, const struct node *removed /* or NULL */, uint64_t index);
void table_replaced(struct table *t, uint64_t index); /* by a snapshot of this index */
void table_forget(struct table *t); /* what was packed: the epoch in it is another one now */
uint64_t table_index(const struct table *t);          /* of the latest change */
/* A packed node_table for who has the one of index since (0: none); the same bytes for all. Valid until the table changes. */
const struct sb *table_pack(struct table *t, const struct store *s, uint64_t since);

/* liveness.c */
struct liveness *liveness_new(struct manager *m);
void liveness_free(struct liveness *v);
void liveness_gossip(struct liveness *v, const char *node_id, bool suspect);
void liveness_lead(struct liveness *v, bool leads);
void liveness_seen(struct liveness *v, const char *node_id); /* session traffic */
void liveness_refused(struct liveness *v, const char *node_id); /* its machine lives, its daemon does not */
/* A suspect node, READY or DISCONNECTED until now; monotonic times, refused_ms 0: never. */
struct liveness_case { enum node_state state; int64_t since_ms, refused_ms, wait_ms, restart_ms; };
enum { LIVENESS_REFUSAL_MS = 3000 }; /* how long one counts: kernels send about one a second to each who asks */
/* What the node is, and when to look again at the latest. Pure. */
enum node_state liveness_verdict(const struct liveness_case *c, int64_t now_ms, int64_t *ret_next_ms);
/* How long a node must be suspect before it is DOWN, when n_lost of n_nodes are lost together. Pure. */
int64_t liveness_wait_ms(uint32_t n_nodes, uint32_t n_lost, int64_t down_after_ms);
bool liveness_is_suspect(const struct liveness *v, const char *node_id);

/* ca.c: whose keys are whose; both follow the store. */
void ca_node_changed(struct manager *m, const struct node *old, const struct node *now);
void ca_forget_keys(struct manager *m);
/* Sends the node a new certificate if the one it holds is due, or its role has changed. Updates h to what was sent. */
void ca_certify_again(struct manager *m, const char *node_id, struct session_hello *h);

void restore_close(struct manager *m); /* backup.c: one under way fails */
/* Nodes not heard of since a restore are down when they have been waited for long enough. */
void restore_wait(struct manager *m);

/* token.c. Pure. */
#define GRANT_TTL_MAX_NS (365 * INT64_C(86400) * 1000000000)
struct grant_use { int role; const struct join_grant *grant; /* NULL: a standing token, or used by this node before */ };
/* What role the token gives a node with this link key; member: it is in the node table, so that it may ask again with a
 * token it has used. E_DENIED with the reason. */
int token_check(const struct cluster *c, const char *token, const uint8_t link_key[32], bool member, int64_t now_ns,
                struct grant_use *ret, struct err *e) must_check;
int64_t grant_end_ns(const struct join_grant *g);      /* nothing more to say about it from then on */
bool grants_expire(struct cluster *c, int64_t now_ns); /* removes those; false: none */
int grant_add(struct cluster *c, int role, int64_t ttl_ns, bool once, int64_t now_ns, char ret_id[13], char ret_token[128],
              struct err *e) must_check;
int grant_remove(struct cluster *c, const char *id, struct err *e) must_check;

/* rotation.c. The first two are pure. */
/* The next step of the gossip keys, if one is due; all_hold: every node has the present ones. False: none. */
bool rotation_keys_step(struct cluster *c, bool all_hold, int64_t now_ns);
/* A new cluster key, vouched for by the old one; all join tokens become new. E_BUSY: too often. */
int rotation_ca_begin(struct cluster *c, int64_t now_ns, struct err *e) must_check;
/* In the leader's pass: what is due. */
void rotation_pass(struct manager *m, struct store_tx *tx, int64_t now_ns, int64_t *ret_next_ns);

/* format.c. In the leader's pass: raises the cluster's format when every node has promised to know the next one. */
void format_pass(struct manager *m, struct store_tx *tx);

void recover_close(struct manager *m); /* recover.c: one under way fails */

/* members.c: keeps Raft's configuration equal to the managers in the node table. */
void members_reconcile(struct manager *m);
/* Asks the policy of govern.c for the next change of a role, and makes it. */
void members_govern(struct manager *m);
/* The node table in its order, as the policy sees it. Heap. */
struct governed *members_view(const struct manager *m, uint32_t *ret_n);
bool members_has(const struct manager *m, uint64_t raft_id); /* in Raft's configuration in force */
/* The node says goodbye: DOWN, no manager any more; MSG_LEAVE_OK when that is committed. */
void members_leave(struct manager *m, const char *node_id);
bool members_has_strangers(const struct manager *m); /* one whose node is gone: it is voted out first */

#endif
