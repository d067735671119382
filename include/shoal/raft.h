/* Raft: the replicated log of the managers. This door is the shell of membership/raft (raft_io.c):
 * one struct raft_node = pure core + own write-ahead log + event loop. Everything here runs on the
 * loop's thread. Node ids are 64-bit, random, non-zero and never used twice: a node whose disk is
 * lost comes back under a new id. Design: design/consensus.md 1.2, 1.3, 2.3, 3.3. */
#ifndef SHOAL_RAFT_H
#define SHOAL_RAFT_H

#include <shoal/base/err.h>
#include <shoal/base/sb.h>
#include <shoal/loop.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RAFT_ENTRY_MAX_BYTES = 2 << 20,   /* largest proposal */
    RAFT_MESSAGE_MAX_BYTES = 4 << 20, /* largest encoded message */
    RAFT_CONTEXT_MAX_BYTES = 1024,    /* opaque bytes of a member (its address, ...) */
    RAFT_MEMBERS_MAX = 64,            /* voters and learners together */
    RAFT_PROPOSALS_MAX = 8192,        /* under way at one leader */
};

/* A value of 0 in any field means its default. */
struct raft_config {
    uint32_t election_min_ms;       /* 150; a leader may be silent for this long at least; see patience.c */
    uint32_t patience_max_ms;       /* 4 * election_min_ms: and this long at most, when stalls are seen */
    uint32_t heartbeat_ms;          /* 50; at most election_min_ms / 2 */
    uint32_t message_bytes;         /* 512 KiB: entry bytes of one AppendEntries (one entry always fits) */
    uint32_t inflight;              /* 64 AppendEntries under way to one peer */
    uint32_t uncommitted_bytes;     /* 16 MiB of own proposals not yet committed, then -E_BUSY */
    uint32_t promote_lag;           /* 256 entries a learner may lag when it is promoted */
    uint32_t snapshot_chunk_bytes;  /* 256 KiB */
    uint32_t snapshot_max_bytes;    /* 1 GiB: a longer snapshot of a leader is refused */
    uint32_t trailing_entries;      /* 1,024 entries kept in memory behind a snapshot */
    uint32_t disk_stall_ms;         /* 1,000: a leader whose write takes longer steps down */
    uint32_t snapshot_after_bytes;  /* 8 MiB of applied entries trigger a snapshot */
    uint32_t snapshot_after_entries; /* 10,000 */
    uint32_t snapshot_after_ms;     /* 1 h: a snapshot when anything was applied since the last one */
    uint32_t reserve_bytes;         /* 64 MiB kept free for the day the disk is full, at most 1/32 of it */
    uint32_t segment_bytes;         /* 16 MiB: size of a log segment file */
};

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };
const char *raft_role_text(enum raft_role role); /* "follower", ... */

struct raft_member {
    uint64_t id;
    bool voter;                     /* false: learner */
    bool damaged;                   /* leader only: its log lost something and is being repaired; it does not count */
    uint64_t match;                 /* leader only: highest index known durable there; else 0 */
    int64_t last_contact_ms;        /* leader only: ms since it last answered (0: self), -1: unknown */
    const uint8_t *context;         /* valid until the next call into the node */
    size_t context_size;
};

struct raft_status {
    uint64_t id;                    /* 0: neither bootstrapped nor joined */
    enum raft_role role;
    uint64_t leader;                /* 0: unknown */
    uint64_t term, vote;
    uint64_t commit, applied, last, durable, snapshot; /* indexes */
    uint64_t config_index;          /* index of the configuration in force */
    uint32_t n_voters, n_learners;
    bool voter, removed;            /* self in the configuration; removed by a committed change */
    bool ready;                     /* leader that has applied an entry of its term: all that was agreed before is here */
    uint32_t patience_ms;           /* how long a leader may be silent now; timeouts are 1 to 2 times that */
    bool disk_full;                 /* the last write met ENOSPC and is being retried */
    bool space_short;               /* little room is left on the disk: ordinary proposals are refused */
    bool quorum_short;              /* leader: so many voters are short of room that a quorum cannot store more */
    bool transferring;              /* leader: leadership is being handed over, or will be for lack of room */
    uint64_t uncommitted_bytes;     /* leader: of own proposals under way, at most raft_config.uncommitted_bytes */
    bool damaged;                   /* the log lost something: no vote, no say, until repaired from the leader */
    uint64_t repair_to;             /* damaged: whole when durable up to here; 0: no leader has said so yet */
    bool rekeying;                  /* files under the old key are still there */
    uint32_t writes_queued, sends_held, proposals_pending, reads_pending;
    uint64_t n_syncs, n_sent, n_received, n_dropped; /* since start; dropped: malformed or misdirected */
};

struct raft_node;

/* 32 bytes each. before: the key in use until a rotation that may not have ended; NULL: none. */
struct raft_keys {
    const uint8_t *now, *before;
};

struct raft_hooks {
    void *arg;
    /* Hands an encoded message to the transport; bytes are valid during the call. May lose it. */
    void (*send)(void *arg, uint64_t to, const void *bytes, size_t size);
    /* Committed ordinary entry; every index once, in order (no-ops and configurations are skipped). */
    void (*apply)(void *arg, uint64_t index, uint64_t term, const void *bytes, size_t size);
    /* Writes the whole state as of the last apply. Must succeed (sb cap: snapshot_max_bytes). */
    void (*snapshot_save)(void *arg, struct sb *out);
    /* Replaces the whole state; called at open and when a leader sent a snapshot. An error at open
     * fails raft_node_open; later it aborts the process (the state would be lost). */
    int (*snapshot_load)(void *arg, const void *bytes, size_t size, struct err *e);
    /* Bytes of an ordinary entry that the log held at open, applied or not: an error fails raft_node_open before
     * anything is applied. May be NULL. */
    int (*readable)(void *arg, const void *bytes, size_t size, struct err *e);
    /* Role, leader, term or readiness changed. May be NULL. Not to free the node from. */
    void (*changed)(void *arg, const struct raft_status *s);
    /* The configuration in force changed (append-time, may be rolled back). May be NULL. */
    void (*members_changed)(void *arg);
};

/* result 0: committed and applied here, index is its place in the log. -E_NOT_LEADER, -E_BUSY,
 * -E_TOO_BIG, -E_INVALID..: certainly not in the log. -E_UNAVAILABLE: leadership was lost or the
 * node closed, outcome UNKNOWN: read before trying again. Called exactly once. */
typedef void raft_done_fn(void *arg, int result, uint64_t index);

/* Opens (creates) the log in dir, loads the snapshot through hooks->snapshot_load, and starts as
 * follower. keys: they seal log and snapshots, or NULL: plain (copied, wiped at close). seed: any
 * random number. Applied entries known committed are replayed before this returns. Where log or
 * snapshot are damaged below what was durable, the node opens as `damaged` (see raft_status) and is
 * repaired by its leader. Errors: -E_CORRUPT naming file, offset and cure when that cannot be (a
 * single manager; term and vote lost too), -E_DENIED wrong key, -E_BUSY another process has dir
 * open, -E_IO. */
int raft_node_open(struct raft_node **ret, struct loop *l, const char *dir, const struct raft_keys *keys,
                   const struct raft_config *cfg, const struct raft_hooks *hooks, uint64_t seed,
                   struct err *e) must_check;
/* Takes NULL. Waits for the write in flight, fails all waiting callbacks with -E_UNAVAILABLE.
 * Not to be called from inside a hook or done callback. */
void raft_node_close(struct raft_node *n);

/* First start only (status.id == 0). bootstrap: a new cluster of one voter, leads within a few ms.
 * join: fixes the own id and waits to be added by the cluster's leader. Both are durable when they
 * return. -E_EXISTS if the log already belongs to a node. */
int raft_node_bootstrap(struct raft_node *n, uint64_t id, const void *context, size_t context_size,
                        struct err *e) must_check;
int raft_node_join(struct raft_node *n, uint64_t id, struct err *e) must_check;

/* Heartbeats, votes and their answers: small, and worth a second way that nothing else can delay. */
bool raft_message_is_urgent(const void *bytes, size_t size);

/* A message from an authenticated peer. Malformed bytes are counted and dropped. */
void raft_node_receive(struct raft_node *n, uint64_t from, const void *bytes, size_t size);

/* The other end of the last connection to this member closed it (its process ended): if it led, the followers elect
 * at once. Wrong news do no harm. */
void raft_node_peer_gone(struct raft_node *n, uint64_t id);

/* Leader only. bytes are copied. done may be called before this returns. -E_BUSY: leadership is being handed over,
 * too much is under way (RAFT_PROPOSALS_MAX or uncommitted_bytes), or room on the disks is short: see raft_status. */
void raft_node_propose(struct raft_node *n, const void *bytes, size_t size, raft_done_fn *done,
                       void *arg);
/* The same for what frees space or keeps the cluster in order: taken also while room on the disks is short. */
void raft_node_propose_urgent(struct raft_node *n, const void *bytes, size_t size, raft_done_fn *done,
                              void *arg);
/* Linearizable read barrier: done(0, index) when everything committed before this call is applied
 * here. Leader only (-E_NOT_LEADER elsewhere), -E_UNAVAILABLE when leadership is lost meanwhile. */
void raft_node_read(struct raft_node *n, raft_done_fn *done, void *arg);

/* Membership, leader only, one change at a time (-E_BUSY). done(0) when the change has committed.
 * add: as learner (-E_EXISTS if a member; context of a member is changed with raft_node_update).
 * promote: learner -> voter, -E_BUSY while it lags more than promote_lag entries.
 * remove: voter or learner, also self (the leader then hands over). Not the last voter (-E_INVALID). */
void raft_node_add(struct raft_node *n, uint64_t id, const void *context, size_t size,
                   raft_done_fn *done, void *arg);
void raft_node_update(struct raft_node *n, uint64_t id, const void *context, size_t size,
                      raft_done_fn *done, void *arg);
void raft_node_promote(struct raft_node *n, uint64_t id, raft_done_fn *done, void *arg);
void raft_node_remove(struct raft_node *n, uint64_t id, raft_done_fn *done, void *arg);
/* On a voter without a leader: makes itself the only member, elects itself and keeps its whole log. done(0) when that
 * is committed; -E_EXISTS: it leads; -E_INVALID: no voter. The other members must be kept away for ever by other means. */
void raft_node_recover(struct raft_node *n, raft_done_fn *done, void *arg);
/* Hands leadership to a voter; 0: to the most advanced one. done(0) when this node no longer leads,
 * -E_TIMEOUT after 2 * election_min_ms. Proposals meanwhile get -E_BUSY. */
void raft_node_transfer(struct raft_node *n, uint64_t to, raft_done_fn *done, void *arg);

void raft_node_status(const struct raft_node *n, struct raft_status *ret);
/* Fills at most max members in order of id; returns how many there are. */
uint32_t raft_node_members(const struct raft_node *n, struct raft_member *ret, uint32_t max);
/* New records and snapshots are sealed with this key from now on; the files under the key before are rewritten by a
 * snapshot and removed. done(0) when none is left; only then may the caller forget that key, and it must have stored
 * the new one before this call, for a restart opens with both (raft_keys) and goes on by itself until
 * raft_status.rekeying is false. -E_BUSY: an earlier rotation has not ended; -E_INVALID: the log is plain. */
void raft_node_set_key(struct raft_node *n, const uint8_t key[32], raft_done_fn *done, void *arg);
/* Takes a snapshot now (also when no threshold is met). -E_BUSY while one is being written. */
int raft_node_snapshot(struct raft_node *n) must_check;

/* ---- looking at the files, also without the node (dump_io.c) ---- */
struct raft_dump_line {
    const char *file, *type;
    const char *state;              /* ok; header ok: no key at hand; torn: never acknowledged, harmless; rot: damage */
    uint64_t offset, index, term, size;
    char note[192];
};
struct raft_dump_result {
    uint64_t lines, rotten, torn;
};
typedef void raft_dump_fn(void *arg, const struct raft_dump_line *l);
/* path: the folder of a log (segments in order, snapshots, the copy of term and vote), or one file of it. keys may be
 * NULL. Errors are those of reading; damage is in ret. */
int raft_dump(const char *path, const struct raft_keys *keys, raft_dump_fn *fn, void *arg,
              struct raft_dump_result *ret, struct err *e) must_check;

#endif
