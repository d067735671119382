/* The pure Raft core: events and time in, one struct raft_output out. No clock, no I/O, no thread.
 *
 * The order of durability is part of the output: a step yields at most one write with a token, and
 * each message names the token that must be durable before it may leave, so that no vote and no
 * acknowledgement can overtake its fsync (consensus.md 1.2 no. 2, 6, 13). The driver performs the
 * writes in order of token, reports RAFT_DISK_DONE, and releases messages whose token is done. */
#ifndef RAFT_CORE_H
#define RAFT_CORE_H

#include <shoal/base/rng.h>
#include <shoal/raft.h>

/* Shared immutable bytes. Counted on the loop's thread only. */
struct raft_buf {
    uint32_t refs;
    size_t size;
    uint8_t data[];
};
struct raft_buf *raft_buf_new(const void *bytes, size_t size); /* NULL: out of memory */
struct raft_buf *raft_buf_ref(struct raft_buf *b);             /* takes NULL */
void raft_buf_unref(struct raft_buf *b);                       /* takes NULL */

enum raft_entry_type { RAFT_ENTRY_NOOP = 1, RAFT_ENTRY_NORMAL, RAFT_ENTRY_CONFIGURATION };

struct raft_entry {
    uint64_t index, term;
    uint8_t type;          /* enum raft_entry_type */
    struct raft_buf *data; /* NULL: no bytes */
};
size_t raft_entry_size(const struct raft_entry *e);

/* ---- configuration (configuration.c) ---- */
struct raft_config_member {
    uint64_t id;
    bool voter;
    uint16_t context_size;
    uint8_t *context;
};
struct raft_configuration {
    uint64_t index; /* of its entry */
    uint32_t n, n_voters;
    struct raft_config_member *members; /* in order of id */
};
struct raft_configuration *raft_configuration_decode(const void *bytes, size_t size,
                                                     uint64_t index); /* NULL: malformed */
void raft_configuration_encode(const struct raft_configuration *c, struct sb *out);
void raft_configuration_free(struct raft_configuration *c);
const struct raft_config_member *raft_configuration_find(const struct raft_configuration *c,
                                                         uint64_t id);
/* Entry 1 of a new cluster: the n given voters. Every founder writes the same bytes. */
struct raft_entry raft_bootstrap_entry(const uint64_t *ids, uint32_t n, const void *context,
                                       size_t context_size);

/* ---- messages (message.c) ---- */
enum raft_message_type {
    RAFT_MSG_PREVOTE = 1, /* term: proposed; index/log_term: last entry; request: campaign */
    RAFT_MSG_PREVOTE_REPLY,
    RAFT_MSG_VOTE,
    RAFT_MSG_VOTE_REPLY,
    RAFT_MSG_APPEND,       /* index/log_term: entry before the first; commit; entries */
    RAFT_MSG_APPEND_REPLY, /* ok: index = match; REJECT: index/log_term = hint */
    RAFT_MSG_HEARTBEAT,    /* commit: at most the peer's match; seq: read attempt */
    RAFT_MSG_HEARTBEAT_REPLY, /* seq; index: 1 = its log is to be compared before it believes that commit */
    RAFT_MSG_SNAPSHOT,       /* index/log_term of the snapshot; seq: offset; total; chunk */
    RAFT_MSG_SNAPSHOT_REPLY, /* seq: next offset wanted; DONE: index = match */
    RAFT_MSG_TIMEOUT_NOW,
};
enum {
    RAFT_FLAG_REJECT = 1,
    RAFT_FLAG_TRANSFER = 2,
    RAFT_FLAG_DONE = 4,
    RAFT_FLAG_DAMAGED = 8, /* replies: total = number of this repair; heartbeat: index = that, total = its goal */
    RAFT_FLAG_SHORT = 16,  /* replies: this node is short of disk space */
    RAFT_FLAGS_ALL = 31,
};
enum { RAFT_MESSAGE_HEADER_BYTES = 76, RAFT_MESSAGE_ENTRIES_MAX = 4096 };

struct raft_message {
    uint8_t type, flags;
    uint64_t to, term;
    uint64_t session, request; /* set by the leader, echoed by every reply */
    uint64_t index, log_term, commit, seq, total;
    struct raft_entry *entries; /* owned; indexes run from index + 1 */
    uint32_t n_entries;
    struct raft_buf *chunk; /* owned */
    size_t chunk_offset, chunk_size; /* part of chunk this message carries */
};
int raft_message_decode(struct raft_message *ret, const void *bytes, size_t size); /* -E_INVALID, -E_NO_MEMORY */
void raft_message_encode(const struct raft_message *m, struct sb *out);
void raft_message_done(struct raft_message *m);

/* ---- snapshot image (snapshot.c): meta, application bytes, 32 bytes of BLAKE2s ---- */
struct raft_image {
    uint64_t index, term;
    struct raft_configuration *config; /* owned */
    const uint8_t *data;               /* inside the bytes given */
    size_t size;
};
enum { RAFT_IMAGE_HASH_BYTES = 32 };
int raft_image_decode(struct raft_image *ret, const void *bytes, size_t size, bool check_hash);
void raft_image_done(struct raft_image *i);
void raft_image_finish(struct sb *image); /* appends the hash */

/* ---- the machine ---- */
enum raft_input_type {
    RAFT_TICK,
    RAFT_MESSAGE,            /* from, message (the core may take its entries) */
    RAFT_DISK_DONE,          /* token: this write and all before it are durable */
    RAFT_PROPOSE,            /* bytes, size, cookie, urgent */
    RAFT_SPACE,              /* urgent: this node is short of disk space now */
    RAFT_CHANGE,             /* change, id, bytes/size = context, cookie */
    RAFT_READ,               /* cookie */
    RAFT_TRANSFER,           /* id (0: best voter), cookie */
    RAFT_RECOVER,            /* cookie: an operator gives up the other voters */
    RAFT_PEER_GONE,          /* id: the connection to it was cut from the other end; evidence, not proof */
    RAFT_SNAPSHOT_TAKEN,     /* index, term, image: durable on disk; the log prefix may go */
    RAFT_SNAPSHOT_INSTALLED, /* index: the application loaded output.install */
};
enum raft_change { RAFT_ADD_LEARNER, RAFT_UPDATE_CONTEXT, RAFT_PROMOTE, RAFT_REMOVE };

struct raft_input {
    enum raft_input_type type;
    int64_t now_ms; /* monotonic, > 0; may stand still, never goes back */
    uint64_t from, token, cookie, id, index, term;
    struct raft_message *message;
    const void *bytes;
    size_t size;
    bool more; /* PROPOSE, READ: another one follows at once; what can be said of all together waits for the last */
    enum raft_change change;
    bool urgent; /* taken also while space is short: it frees some */
    struct raft_buf *image; /* the core takes its own reference */
};

/* One write: install, then truncate, then append, then hard state; atomic as a batch. */
struct raft_write {
    uint64_t token;                /* 0: nothing to write */
    bool has_hard;                 /* term and vote changed */
    bool lost;                     /* what was durable is missing from now on: the log is damaged */
    bool whole;                    /* what a damaged log had lost is back, with this write */
    uint32_t voters;               /* of the configuration in force */
    uint64_t term, vote, commit;   /* always filled; commit is a lazy hint, only ever true */
    uint64_t truncate_from;        /* 0: none */
    struct raft_entry *entries;
    uint32_t n_entries, cap_entries;
    struct raft_buf *install;      /* snapshot image that replaces the whole log */
    uint64_t install_index, install_term;
};
void raft_write_done(struct raft_write *w); /* drops its references, zeroes it */

struct raft_send {
    uint64_t token; /* may leave when this token is durable; 0: at once */
    struct raft_message message;
};
struct raft_result {
    uint64_t cookie;
    int result;           /* 0: accepted at index/term, or -E_ (certainly not in the log) */
    uint64_t index, term;
};
struct raft_output {
    struct raft_write write;
    struct raft_send *sends;
    uint32_t n_sends, cap_sends;
    struct raft_entry *apply; /* committed and durable here, in order */
    uint32_t n_apply, cap_apply;
    struct raft_result *results; /* proposals and changes */
    uint32_t n_results, cap_results;
    struct raft_result *reads; /* 0: serve once index is applied; -E_NOT_LEADER, -E_UNAVAILABLE */
    uint32_t n_reads, cap_reads;
    struct raft_result *transfers;
    uint32_t n_transfers, cap_transfers;
    struct raft_buf *install; /* load this image (it is durable), then RAFT_SNAPSHOT_INSTALLED */
    uint64_t install_index;
    bool changed;             /* role, leader, term or readiness */
    bool members_changed;
    bool removed;             /* a committed configuration excludes this node */
    int64_t deadline_ms;      /* RAFT_TICK is due then */
};
void raft_output_init(struct raft_output *o);
void raft_output_reset(struct raft_output *o); /* drops references, keeps arrays */
void raft_output_done(struct raft_output *o);

/* What the disk held at start. Everything is copied or referenced. */
struct raft_boot {
    uint64_t id, term, vote, commit;
    bool damaged; /* something that was durable is lost; term and vote are not */
    struct raft_buf *image; /* newest snapshot or NULL */
    uint64_t snapshot_index, snapshot_term;
    struct raft_entry *entries; /* from snapshot_index + 1 */
    uint32_t n_entries;
};
void raft_boot_done(struct raft_boot *b);

struct raft;
void raft_config_defaults(struct raft_config *cfg); /* fills the zero fields, clamps the rest */
/* -E_CORRUPT: the boot state contradicts itself. cfg is completed with defaults. */
int raft_new(struct raft **ret, const struct raft_config *cfg, const struct raft_boot *boot,
             const struct rng *rng, int64_t now_ms, struct err *e) must_check;
void raft_free(struct raft *r);
/* 0, or -E_CORRUPT when a peer proved that the protocol was broken (two leaders in one term, a
 * committed entry overwritten): the process must stop. `out` was reset by the caller. */
int raft_step(struct raft *r, struct raft_input *in, struct raft_output *out) must_check;
void raft_get_status(const struct raft *r, struct raft_status *ret);
uint32_t raft_get_members(const struct raft *r, struct raft_member *ret, uint32_t max);
/* Starts an image of the state at the applied index: meta into out; the caller appends the data. */
void raft_image_begin(const struct raft *r, struct sb *out, uint64_t *ret_index, uint64_t *ret_term);
const struct raft_entry *raft_peek(const struct raft *r, uint64_t index); /* NULL: not in memory */

#endif
