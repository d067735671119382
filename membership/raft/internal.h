/* What the files of the core share: the whole state of one node. Not for drivers. */
#ifndef RAFT_INTERNAL_H
#define RAFT_INTERNAL_H

#include "core.h"

#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>

#ifdef RAFT_PLANTED /* a build of the simulation alone: it has to find each of these bugs */
extern int raft_bug;
#define RAFT_BUG raft_bug
#else
#define RAFT_BUG 0
#endif

enum { RAFT_READS_MAX = 4096 };

/* ---- log.c: entries since prev_index ---- */
struct raft_log {
    uint64_t prev_index, prev_term;
    struct raft_entry *entries;
    uint32_t n, cap;
};
uint64_t raft_log_last(const struct raft_log *l);
uint64_t raft_log_last_term(const struct raft_log *l);
bool raft_log_term(const struct raft_log *l, uint64_t index, uint64_t *ret);
bool raft_log_matches(const struct raft_log *l, uint64_t index, uint64_t term);
struct raft_entry *raft_log_at(const struct raft_log *l, uint64_t index); /* NULL: not here */
void raft_log_append(struct raft_log *l, const struct raft_entry *e);     /* takes a reference */
void raft_log_truncate(struct raft_log *l, uint64_t from);
void raft_log_compact(struct raft_log *l, uint64_t to);
void raft_log_reset(struct raft_log *l, uint64_t index, uint64_t term);
/* Largest index <= given whose term is <= term: where two logs may still agree. */
uint64_t raft_log_find(const struct raft_log *l, uint64_t index, uint64_t term);
void raft_entries_push(struct raft_entry **a, uint32_t *n, uint32_t *cap, const struct raft_entry *e);

enum raft_peer_state { RAFT_PEER_PROBE, RAFT_PEER_REPLICATE, RAFT_PEER_SNAPSHOT };

struct raft_flight {
    uint64_t request;
    int64_t at_ms;
};

/* What the leader knows of another member. A new object, hence a new session, each time a node
 * enters the configuration or a leader starts (consensus.md 1.2 no. 18). */
struct raft_peer {
    uint64_t id, session, request;
    bool voter, leaving, damaged, short_of_space;
    uint64_t repair_nonce, repair_to; /* repair.c */
    enum raft_peer_state state;
    uint64_t match, next;
    struct raft_flight *flights; /* ring of cfg.inflight */
    uint32_t flight_head, n_flights;
    uint64_t probe_first; /* least request of a probe at `next`: a slow link answers the first when others are on their way */
    int64_t probe_ms; /* 0: none under way */
    int64_t ack_ms;
    bool acked;
    uint64_t read_acked, commit_sent;
    struct raft_buf *image; /* being sent */
    uint64_t image_index, image_term, image_offset, image_first; /* likewise, at image_offset */
    int64_t image_ms, image_whole_ms, leave_ms; /* whole: when the last byte had arrived there */
};

struct raft_read {
    uint64_t cookie, index, seq; /* index 0: waits for the first commit of the term */
};
struct raft_pending { /* a write under way */
    uint64_t token, last;
    int64_t at_ms;
    bool install;
};
struct raft_vote {
    uint64_t id;
    bool granted;
};

enum raft_after { AFTER_NOTHING, AFTER_HARD, AFTER_ALL }; /* what a message must wait for */

struct raft {
    struct raft_config cfg;
    struct rng rng;
    uint64_t id;
    enum raft_role role;
    uint64_t term, vote, leader;
    uint64_t leader_of_term; /* who proved to lead `term`; 0: nobody yet */
    struct raft_log log;
    uint64_t commit, applied, durable;
    struct raft_configuration **configs; /* [0]: base; by index, the last one is in force */
    uint32_t n_configs, cap_configs;
    uint64_t snapshot_index, snapshot_term;
    struct raft_buf *image;
    /* disk */
    uint64_t token, done_token, hard_token, written_term, written_vote;
    struct raft_pending *pending;
    uint32_t n_pending, cap_pending;
    /* time */
    int64_t now_ms, boot_ms, election_ms, contact_ms, heartbeat_ms;
    int64_t slow_ms, slow_before_ms, slow_since_ms; /* longest stall seen in this window and the one before */
    bool excused; /* this timeout came late and was put off once */
    /* campaign */
    uint64_t campaign;
    bool self_vote_waits;
    struct raft_vote votes[RAFT_MEMBERS_MAX];
    uint32_t n_votes;
    /* leader */
    struct raft_peer **peers;
    uint32_t n_peers;
    uint64_t term_start, uncommitted_bytes;
    int64_t progress_ms; /* when something was last stored that helps to commit, or nothing was open */
    struct raft_read *reads;
    uint32_t n_reads, cap_reads;
    uint64_t read_seq;
    uint64_t transfer_to, transfer_cookie;
    int64_t transfer_ms; /* 0: none */
    bool transfer_sent, short_of_space;
    int64_t space_ms; /* a transfer for lack of space is tried not before */
    /* snapshot being received */
    uint8_t *in_bytes;
    size_t in_size, in_cap, in_total;
    uint64_t in_index, in_term;
    struct blake2s in_hash;
    struct raft_buf *install; /* on its way to disk or application */
    uint64_t install_index;
    bool installing;
    /* repair.c */
    bool damaged, whole_asked;
    uint64_t repair_nonce, repair_to, repair_term, whole_token;
    uint64_t agreed, agreed_term; /* up to where the log was compared with that of this term's leader, since the start */
    uint64_t named, named_term;   /* the largest commit in its heartbeats */
    struct raft_output *out; /* of the step under way */
    int failure;             /* of the step under way */
};

#define RAFT_GROW(a, n, cap)                                                       \
    do {                                                                           \
        if ((n) == (cap)) {                                                        \
            (cap) = (cap) ? 2 * (cap) : 8;                                         \
            (a) = xrealloc((a), (cap), sizeof(*(a)));                              \
        }                                                                          \
    } while (0)

/* raft.c */
struct raft_message *raft_send_new(struct raft *r, uint64_t to, uint8_t type, enum raft_after after);
void raft_append_local(struct raft *r, uint8_t type, struct raft_buf *data);
void raft_truncate_log(struct raft *r, uint64_t from);
void raft_set_commit(struct raft *r, uint64_t index);
void raft_result_add(struct raft_result **a, uint32_t *n, uint32_t *cap, uint64_t cookie, int result,
                     uint64_t index, uint64_t term);
struct raft_buf *raft_buf_alloc(size_t size); /* NULL: out of memory; contents unset */

/* patience.c */
void raft_patience_start(struct raft *r);
void raft_patience_note(struct raft *r, int64_t stall_ms);
uint32_t raft_patience(const struct raft *r);

/* election.c */
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader);
void raft_on_recover(struct raft *r, uint64_t cookie); /* configuration.c */
void raft_on_peer_gone(struct raft *r, uint64_t id);
void raft_role_tick(struct raft *r);
void raft_election_reset(struct raft *r);
void raft_campaign(struct raft *r, bool transfer);
void raft_self_vote_durable(struct raft *r);
void raft_on_prevote(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_on_vote(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_on_vote_reply(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_on_timeout_now(struct raft *r, uint64_t from, const struct raft_message *m);
bool raft_has_leader_contact(const struct raft *r);

/* configuration.c */
const struct raft_configuration *raft_config_now(const struct raft *r); /* NULL: none yet */
const struct raft_configuration *raft_config_at(const struct raft *r, uint64_t index);
uint64_t raft_config_index(const struct raft *r);
void raft_config_push(struct raft *r, struct raft_configuration *c);
void raft_config_rollback(struct raft *r, uint64_t from);
void raft_config_compact(struct raft *r, uint64_t to);
void raft_config_reset(struct raft *r, struct raft_configuration *c);
bool raft_is_voter(const struct raft *r);
bool raft_may_campaign(const struct raft *r);
bool raft_is_removed(const struct raft *r);
uint32_t raft_quorum(const struct raft *r);
void raft_on_change(struct raft *r, const struct raft_input *in);

/* replicate.c */
struct raft_peer *raft_peer_find(const struct raft *r, uint64_t id);
void raft_peers_sync(struct raft *r);
void raft_peers_free(struct raft *r);
void raft_peer_send(struct raft *r, struct raft_peer *p);
void raft_peer_free(struct raft_peer *p);
void raft_peer_acked(struct raft *r, struct raft_peer *p, uint64_t match);
struct raft_peer *raft_peer_of(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_broadcast(struct raft *r);
void raft_heartbeat(struct raft *r, struct raft_peer *p);
void raft_heartbeat_all(struct raft *r);
void raft_leader_start(struct raft *r);
void raft_leader_tick(struct raft *r);
void raft_maybe_commit(struct raft *r);
void raft_on_append(struct raft *r, uint64_t from, struct raft_message *m);
void raft_on_append_reply(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_on_heartbeat(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_on_heartbeat_reply(struct raft *r, uint64_t from, const struct raft_message *m);

/* repair.c */
void raft_repair_boot(struct raft *r, bool damaged);
void raft_repair_reply(const struct raft *r, struct raft_message *reply);
void raft_repair_matched(struct raft *r, uint64_t match);
void raft_repair_heartbeat_heard(struct raft *r, const struct raft_message *m);
void raft_repair_disagreed(struct raft *r, uint64_t index); /* the log is another one at index of this term's leader */
uint64_t raft_repair_agreed(const struct raft *r); /* up to where the log surely is that of this term's leader */
void raft_repair_progress(struct raft *r);
void raft_repair_durable(struct raft *r);
bool raft_repair_heard(struct raft *r, struct raft_peer *p, const struct raft_message *m); /* false: go no further */
void raft_repair_heartbeat(const struct raft_peer *p, struct raft_message *m);

/* read.c: linearizable reads and leadership transfer */
void raft_on_read(struct raft *r, uint64_t cookie, bool more);
void raft_reads_confirm(struct raft *r);
void raft_reads_start(struct raft *r);
void raft_reads_fail(struct raft *r);
void raft_on_transfer(struct raft *r, uint64_t to, uint64_t cookie);
void raft_transfer_progress(struct raft *r);
void raft_transfer_end(struct raft *r, int result);
struct raft_peer *raft_best_voter(const struct raft *r, bool with_room);
bool raft_quorum_has_room(const struct raft *r);
void raft_send_timeout_now(struct raft *r, uint64_t to);

/* snapshot.c */
void raft_peer_start_snapshot(struct raft *r, struct raft_peer *p);
void raft_peer_send_chunk(struct raft *r, struct raft_peer *p);
void raft_on_snapshot(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_on_snapshot_reply(struct raft *r, uint64_t from, const struct raft_message *m);
void raft_on_snapshot_taken(struct raft *r, const struct raft_input *in);
void raft_incoming_drop(struct raft *r);

#endif
