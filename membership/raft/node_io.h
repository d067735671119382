/* Shared by the files of the shell (raft_io.c, upkeep_io.c). */
#ifndef RAFT_NODE_IO_H
#define RAFT_NODE_IO_H

#include "core.h"
#include "wal.h"

#include <pthread.h>
#include <shoal/base/crypto.h>
#include <shoal/base/list.h>

enum { RETRY_MS = 500 };

struct caller { /* of a proposal, change, read or transfer */
    struct list_node link;
    uint64_t cookie, index, term; /* index 0: not yet placed */
    raft_done_fn *done;
    void *arg;
};

struct queued {
    struct list_node link;
    struct raft_input in;
    struct raft_message message;
    struct raft_buf *bytes;
};

struct held {
    struct list_node link;
    uint64_t token;
    struct raft_message message;
};

struct queued_write {
    struct list_node link;
    struct raft_write write;
};

struct job { /* work on the worker thread; outlives the node if it must */
    struct list_node link;
    struct raft_node *node; /* NULL: closed meanwhile */
    struct raft_disk *disk;
    struct list_node writes;
    struct raft_write **batch;
    uint32_t n;
    struct sb image;
    struct raft_buf *image_buf;
    uint64_t index, term;
    uint8_t key[32];
    bool has_key, rekeying, rolled, space_short;
    int result;
    struct err e;
};

struct raft_node {
    struct loop *loop;
    struct loop_timer *soon, *timer, *retry, *space;
    struct raft_disk *disk;
    struct raft *core;
    struct raft_config cfg;
    struct raft_hooks hooks;
    struct rng rng;
    uint64_t cookie;
    struct list_node inputs, writes, held, proposals, reads, transfers, rekeys, jobs;
    uint32_t n_writes, n_held, n_proposals, n_reads;
    bool pumping, writing, saving, preparing, snapshot_failed, disk_full, space_short, was_leader, was_removed, was_damaged;
    /* rotation of the key: roll_wanted (a new segment first), then a snapshot that covers the old key's entries */
    bool sealed, rekeying, roll_wanted, has_next_key, rekey_saved;
    uint8_t next_key[32];
    uint64_t rekey_index; /* last entry under the old key */
    int64_t snapshot_ms;  /* when the last one was taken */
    int64_t led_ms;       /* since when a leader is known, in this process; 0: none yet */
    int64_t snapshot_wait_ms; /* the last one failed: no other before then */
    uint64_t done_token, applied, snapshot, applied_bytes, applied_entries;
    uint64_t n_sent, n_received, n_dropped, n_syncs;
    pthread_mutex_t lock; /* guards n_running only */
    pthread_cond_t idle;
    uint32_t n_running;
};

/* raft_io.c */
void node_pump(struct raft_node *n);
void node_submit(struct raft_node *n, const struct raft_input *in, struct raft_buf *bytes);
void node_start_write(struct raft_node *n);
void node_fail_all(struct raft_node *n, struct list_node *list, uint32_t *count, int result);
struct caller *node_caller_new(struct raft_node *n, struct list_node *list, raft_done_fn *done, void *arg);

/* upkeep_io.c: jobs */
struct job *node_job_new(struct raft_node *n);
void node_job_idle(struct raft_node *n); /* on the worker, as the last act on anything shared */
void node_job_free(struct job *j);
bool node_job_start(struct job *j, enum loop_lane lane, loop_fn *work, loop_fn *done);
void node_writes_free(struct list_node *l);

/* upkeep_io.c: what they are for */
void node_maybe_snapshot(struct raft_node *n);
void node_maybe_roll(struct raft_node *n); /* to another key, when one is wanted */
void node_resume_rekey(struct raft_node *n, const struct raft_boot *boot);
void node_trim(struct raft_node *n);
void node_prepare(struct raft_node *n);
void node_space_fired(void *arg);
void node_take_space(struct raft_node *n, bool is_short);

#endif
