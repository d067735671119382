/* Deterministic simulation of the Raft core with its real log format (consensus.md section 6).
 *
 *   sim_raft [--seeds N] [--seed S] [--verbose]      N seeds from S on; a seed alone is run once
 *
 * One thread, virtual time, one PRNG per seed: loss, duplication, reordering, very late copies,
 * symmetric, one-way and partial partitions, crashes with lost or torn writes, bit rot, pauses, restarts,
 * membership changes with wiped nodes coming back. Invariants are checked after every event; then the
 * faults stop and the cluster must elect and commit. Built as sim_raft_planted it has --bug K, to show that
 * it finds each bug planted in the core (tests/sim/planted). */
#include "core.h"
#include "wal.h"

#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { NODES_MAX = 7, TERMS_MAX = 4096, INDEX_MAX = 8192, REPLAY_COPIES = 64 };

enum event_type { EV_DELIVER, EV_TICK, EV_DISK, EV_SNAPSHOT, EV_RESTART, EV_RESUME, EV_NEMESIS,
                  EV_STRIKE, EV_CLIENT, EV_CHANGE };

struct event {
    int64_t at_us;
    uint64_t seq;
    enum event_type type;
    unsigned node, from;
    uint64_t life, from_id;
    char *bytes;
    size_t size;
};

struct segment {
    struct wal_segment head;
    struct sb b;
    uint64_t max_index;
};

struct shadow { /* what must be on disk */
    uint64_t term, vote, commit, last, snapshot;
    uint64_t term_at[INDEX_MAX];
};

struct held {
    uint64_t token, to;
    char *bytes;
    size_t size;
};

struct read_op {
    uint64_t cookie, floor;
};
struct propose_op {
    uint64_t cookie, index, term;
};

struct node {
    uint64_t id, life;
    bool up, paused, was_voter; /* was_voter: in any configuration ever written */
    struct raft *core;
    struct raft_output out;
    int64_t tick_us;
    uint64_t term, commit, applied, chain;
    enum raft_role role;
    /* disk */
    struct segment *segments;
    unsigned n_segments;
    bool active, mark_fresh;
    struct wal_writer writer;
    uint64_t base_index, base_term;
    struct raft_buf *snaps[2]; /* newest first */
    uint64_t snap_index[2], snap_term[2];
    struct shadow shadow, lost; /* lost: what was on disk before it rotted */
    bool damaged;               /* as in the disk's copy of term and vote */
    bool rotten, scarred;       /* a bit flipped since the last start; ever */
    struct raft_write *queue, *batch;
    unsigned n_queue, cap_queue, n_batch;
    size_t batch_at, batch_end;
    bool writing, saving;
    struct raft_buf *saving_image;
    uint64_t saving_index, saving_term, done_token;
    struct held *held;
    unsigned n_held, cap_held;
    struct read_op *reads;
    unsigned n_reads, cap_reads;
    struct propose_op *ops;
    unsigned n_ops, cap_ops;
};

struct known { /* every entry ever written: (index, term) names one content and one predecessor */
    uint64_t term, hash, prev_term;
    struct known *next;
};

struct options {
    unsigned n, voters, loss, dup, late, delay_us, tail, crash, partition, pause, disk_us, rate_us;
    unsigned snapshot_every, pad, segment_bytes, rot;
    bool members, sealed, storm, churn; /* churn: leaders die young, often at the very moment of a commit */
    struct raft_config cfg;
};

static struct sim {
    uint64_t seed, hash, seq, cookie, events;
    struct rng rng;
    struct options o;
    int64_t now_us, end_us;
    bool calm, verbose;
    struct event *heap;
    unsigned n_heap, cap_heap;
    struct node nodes[NODES_MAX];
    bool blocked[NODES_MAX][NODES_MAX];
    uint8_t key[32];
    /* what the cluster has promised */
    uint64_t leader_of[TERMS_MAX];
    uint64_t commit, applied, acked;
    uint64_t term_at[INDEX_MAX], chain_at[INDEX_MAX], committed_in[INDEX_MAX];
    struct known *known[INDEX_MAX];
    struct raft_configuration *config; /* committed */
    unsigned n_acked, n_reads, n_leaders, n_crashes, n_torn, n_installs, n_changes, n_rotten, n_cut;
} g;

/* ---- helpers ---- */

static void replay_command(FILE *f)
{
    fprintf(f, "replay: sim_raft --seed %llu --verbose\n", (unsigned long long)g.seed);
}

static uint64_t passed;
#ifdef RAFT_PLANTED
int raft_bug;
#endif

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("seed %llu, event %llu, %lld us: ", (unsigned long long)g.seed,
           (unsigned long long)g.events, (long long)g.now_us);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    replay_command(stdout);
    printf("%llu passed, 1 failed\n", (unsigned long long)passed);
    exit(1);
}
#define CHECK(cond, ...) ((cond) ? (void)0 : fail(__VA_ARGS__))
#define U(x) ((unsigned long long)(x))

static void on_abort(int sig)
{
    dprintf(2, "aborted in seed %llu\nreplay: sim_raft --seed %llu --verbose\n%llu passed, 1 failed\n",
            U(g.seed), U(g.seed), U(passed));
    dprintf(1, "%llu passed, 1 failed\n", U(passed));
    _exit(1);
}

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
    if (!g.verbose)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("%9lld ", (long long)g.now_us);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
    for (const uint8_t *b = p; n--; b++)
        h = (h ^ *b) * UINT64_C(0x100000001b3);
    return h;
}

static void mix(uint64_t v)
{
    g.hash = fnv(g.hash, &v, sizeof(v));
}

#define GROW(a, n, cap)                                            \
    do {                                                           \
        if ((n) == (cap)) {                                        \
            (cap) = (cap) ? 2 * (cap) : 16;                        \
            (a) = xrealloc((a), (cap), sizeof(*(a)));              \
        }                                                          \
    } while (0)

static bool before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

static void push(struct event e)
{
    e.seq = ++g.seq;
    e.at_us = MAX(e.at_us, g.now_us);
    GROW(g.heap, g.n_heap, g.cap_heap);
    unsigned i = g.n_heap++;
    for (; i && before(&e, &g.heap[(i - 1) / 2]); i = (i - 1) / 2)
        g.heap[i] = g.heap[(i - 1) / 2];
    g.heap[i] = e;
}

static struct event pop(void)
{
    struct event top = g.heap[0], last = g.heap[--g.n_heap];
    unsigned i = 0;
    for (;;) {
        unsigned c = 2 * i + 1;
        if (c >= g.n_heap)
            break;
        if (c + 1 < g.n_heap && before(&g.heap[c + 1], &g.heap[c]))
            c++;
        if (!before(&g.heap[c], &last))
            break;
        g.heap[i] = g.heap[c];
        i = c;
    }
    if (g.n_heap)
        g.heap[i] = last;
    return top;
}

static uint64_t pick(uint64_t lo, uint64_t hi)
{
    return rng_range(&g.rng, lo, hi);
}

static bool chance(unsigned permille)
{
    return rng_chance(&g.rng, permille);
}

static int slot_of(uint64_t id)
{
    for (unsigned i = 0; i < g.o.n; i++)
        if (g.nodes[i].id == id)
            return (int)i;
    return -1;
}

static int64_t now_ms(void)
{
    return g.now_us / 1000 + 1;
}

static const uint8_t *disk_key(void)
{
    return g.o.sealed ? g.key : NULL;
}

static void step(struct node *n, struct raft_input *in);

/* ---- network ---- */

static void transmit(unsigned from, unsigned to, const char *bytes, size_t size)
{
    unsigned copies = 1 + (!g.calm && chance(g.o.dup));
    if (g.blocked[from][to] || (!g.calm && chance(g.o.loss)))
        copies = !g.calm && chance(g.o.late) ? 1 : 0;
    for (unsigned i = 0; i < copies; i++) {
        int64_t delay = (int64_t)pick(100, 2 * g.o.delay_us);
        if (!g.calm && chance(g.o.tail))
            delay *= (int64_t)pick(5, 30);
        if (!g.calm && chance(g.o.late))
            delay += (int64_t)pick(100000, 2000000);
        push((struct event){.at_us = g.now_us + delay, .type = EV_DELIVER, .node = to, .from = from,
                            .from_id = g.nodes[from].id, .bytes = xmemdup(bytes, size), .size = size});
    }
}

/* The moment a message leaves: everything it promises must be on disk. */
static void check_promise(const struct node *n, const struct raft_message *m)
{
    const struct shadow *s = &n->shadow;
    if (m->type == RAFT_MSG_PREVOTE || m->type == RAFT_MSG_PREVOTE_REPLY)
        return;
    CHECK(s->term >= m->term, "node %u sent type %u of term %llu, only %llu is durable",
          (unsigned)(n - g.nodes), m->type, U(m->term), U(s->term));
    bool reject = m->flags & RAFT_FLAG_REJECT;
    if (m->type == RAFT_MSG_VOTE_REPLY && !reject && s->term == m->term)
        CHECK(s->vote == m->to, "node %u granted a vote that is not durable",
              (unsigned)(n - g.nodes));
    if (m->type == RAFT_MSG_VOTE && s->term == m->term)
        CHECK(s->vote == n->id, "node %u campaigns before its own vote is durable",
              (unsigned)(n - g.nodes));
    bool ack = (m->type == RAFT_MSG_APPEND_REPLY && !reject) ||
               (m->type == RAFT_MSG_SNAPSHOT_REPLY && m->flags & RAFT_FLAG_DONE);
    if (ack && s->term == m->term) {
        CHECK(s->last >= m->index, "node %u acknowledged %llu, durable is %llu",
              (unsigned)(n - g.nodes), U(m->index), U(s->last));
        const struct raft_entry *e = raft_peek(n->core, m->index);
        if (e && n->term == m->term && m->index > s->snapshot)
            CHECK(s->term_at[m->index] == e->term, "node %u acknowledged another entry at %llu",
                  (unsigned)(n - g.nodes), U(m->index));
    }
}

static void leave(struct node *n, uint64_t to, const struct raft_message *m, const char *bytes,
                  size_t size)
{
    int slot = slot_of(to);
    check_promise(n, m);
    if (slot < 0)
        return; /* that identity is gone */
    transmit((unsigned)(n - g.nodes), (unsigned)slot, bytes, size);
}

static void take_sends(struct node *n)
{
    for (uint32_t i = 0; i < n->out.n_sends; i++) {
        struct raft_send *s = &n->out.sends[i];
        AUTO_SB struct sb b;
        sb_init(&b, RAFT_MESSAGE_MAX_BYTES);
        raft_message_encode(&s->message, &b);
        if (s->token > n->done_token) {
            GROW(n->held, n->n_held, n->cap_held);
            n->held[n->n_held++] = (struct held){.token = s->token, .to = s->message.to,
                                                 .size = b.len, .bytes = xmemdup(b.s, b.len)};
        } else {
            leave(n, s->message.to, &s->message, b.s, b.len);
        }
    }
}

static void release_held(struct node *n)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < n->n_held; i++) {
        struct held *h = &n->held[i];
        if (h->token > n->done_token) {
            n->held[kept++] = *h;
            continue;
        }
        struct raft_message m;
        CHECK(raft_message_decode(&m, h->bytes, h->size) == 0, "own message does not decode");
        leave(n, h->to, &m, h->bytes, h->size);
        raft_message_done(&m);
        free(h->bytes);
    }
    n->n_held = kept;
}

/* ---- disk ---- */

static void shadow_write(struct shadow *s, const struct raft_write *w)
{
    if (w->install) {
        s->snapshot = s->last = w->install_index;
        s->term_at[s->last] = w->install_term;
    }
    if (w->truncate_from)
        s->last = w->truncate_from - 1;
    for (uint32_t i = 0; i < w->n_entries; i++) {
        s->last = w->entries[i].index;
        CHECK(s->last < INDEX_MAX, "log too long for the simulator");
        s->term_at[s->last] = w->entries[i].term;
    }
    if (w->has_hard) {
        CHECK(w->term >= s->term, "a term went back on disk");
        CHECK(w->term > s->term || !s->vote || s->vote == w->vote, "a vote changed within a term");
        s->term = w->term;
        s->vote = w->vote;
    }
    s->commit = MAX(s->commit, w->commit);
}

static void put_snapshot(struct node *n, struct raft_buf *image, uint64_t index, uint64_t term)
{
    if (n->snaps[0] && n->snap_index[0] >= index)
        return;
    raft_buf_unref(n->snaps[1]);
    n->snaps[1] = n->snaps[0];
    n->snap_index[1] = n->snap_index[0];
    n->snap_term[1] = n->snap_term[0];
    n->snaps[0] = raft_buf_ref(image);
    n->snap_index[0] = index;
    n->snap_term[0] = term;
    n->shadow.snapshot = MAX(n->shadow.snapshot, index);
}

static void trim_segments(struct node *n)
{
    unsigned gone = 0;
    while (n->snaps[1] && gone + 1 < n->n_segments && n->segments[gone].max_index <= n->snap_index[1])
        sb_done(&n->segments[gone++].b);
    memmove(n->segments, n->segments + gone, (n->n_segments - gone) * sizeof(*n->segments));
    n->n_segments -= gone;
}

static void open_segment(struct node *n)
{
    struct wal_segment h = {
        .number = n->n_segments ? n->segments[n->n_segments - 1].head.number + 1 : 1,
        .node_id = n->id,
        .prev_bytes = n->writer.offset,
        .term = n->shadow.term,
        .vote = n->shadow.vote,
        .commit = n->shadow.commit,
        .batch = n->writer.batch,
        .sealed = g.o.sealed,
        .base_index = n->base_index,
        .base_term = n->base_term,
    };
    n->base_index = n->base_term = 0;
    memcpy(h.prev_tag, n->writer.tag, sizeof(h.prev_tag));
    rng_bytes(&g.rng, h.salt, sizeof(h.salt));
    if (h.sealed)
        wal_key_id(h.key_id, g.key);
    n->segments = xrealloc(n->segments, n->n_segments + 1, sizeof(*n->segments));
    struct segment *s = &n->segments[n->n_segments++];
    *s = (struct segment){.head = h};
    sb_init(&s->b, 0);
    uint8_t bytes[WAL_SEGMENT_HEADER_BYTES];
    wal_segment_encode(&h, bytes);
    sb_add(&s->b, bytes, sizeof(bytes));
    wal_writer_start(&n->writer, &h, disk_key());
    n->active = true;
}

static void start_write(struct node *n)
{
    if (n->writing || !n->n_queue)
        return;
    if (!n->active || n->segments[n->n_segments - 1].b.len > g.o.segment_bytes)
        open_segment(n);
    n->n_batch = n->n_queue;
    n->batch = xmemdup(n->queue, n->n_queue * sizeof(*n->queue));
    n->n_queue = 0;
    AUTO_FREE struct raft_write **w = xcalloc(n->n_batch, sizeof(*w));
    for (unsigned i = 0; i < n->n_batch; i++)
        w[i] = &n->batch[i];
    struct segment *s = &n->segments[n->n_segments - 1];
    CHECK(s->b.len == n->writer.offset, "the log's writer lost its place");
    n->batch_at = s->b.len;
    wal_batch_encode(&n->writer, w, n->n_batch, &s->b);
    n->batch_end = s->b.len;
    static const uint8_t slot[WAL_MARK_BYTES];
    sb_add(&s->b, slot, sizeof(slot));
    n->writing = true;
    n->mark_fresh = false;
    int64_t delay = (int64_t)pick(200, 2 * g.o.disk_us);
    if (!g.calm && chance(10))
        delay += (int64_t)pick(10000, 400000);
    push((struct event){.at_us = g.now_us + delay, .type = EV_DISK, .life = n->life,
                        .node = (unsigned)(n - g.nodes)});
}

static void batch_durable(struct node *n)
{
    struct segment *s = &n->segments[n->n_segments - 1];
    for (unsigned i = 0; i < n->n_batch; i++) {
        struct raft_write *w = &n->batch[i];
        if (w->install)
            put_snapshot(n, w->install, w->install_index, w->install_term);
        shadow_write(&n->shadow, w);
        n->damaged &= !w->whole;
        s->max_index = MAX(s->max_index, n->shadow.last);
        n->shadow.snapshot = MAX(n->shadow.snapshot, n->snap_index[0]);
    }
}

static void batch_free(struct node *n)
{
    for (unsigned i = 0; i < n->n_batch; i++)
        raft_write_done(&n->batch[i]);
    free(TAKE(n->batch));
    n->n_batch = 0;
    n->writing = false;
}

static void disk_done(struct node *n)
{
    batch_durable(n);
    n->writer.durable_batch = n->writer.batch;
    n->writer.durable_index = n->shadow.last;
    uint8_t mark[WAL_MARK_BYTES];
    wal_mark_encode(&n->writer, mark);
    memcpy(n->segments[n->n_segments - 1].b.s + n->batch_end, mark, sizeof(mark));
    n->mark_fresh = true;
    n->done_token = n->batch[n->n_batch - 1].token;
    batch_free(n);
    start_write(n);
    release_held(n);
    struct raft_input in = {.type = RAFT_DISK_DONE, .token = n->done_token};
    step(n, &in);
}

/* A power cut: the batch under way is lost, kept or torn by sectors; a fresh mark may be lost. */
static void tear(struct node *n)
{
    if (!n->n_segments)
        return;
    struct segment *s = &n->segments[n->n_segments - 1];
    if (!n->writing) {
        if (n->mark_fresh && chance(500))
            memset(s->b.s + n->batch_end, 0, WAL_MARK_BYTES);
        return;
    }
    size_t size = n->batch_end - n->batch_at;
    AUTO_FREE char *whole = xmemdup(s->b.s + n->batch_at, size);
    unsigned how = (unsigned)pick(0, 3);
    if (how == 0) {
        memset(s->b.s + n->batch_at, 0, size);
    } else if (how == 1) {
        size_t keep = pick(0, size);
        memset(s->b.s + n->batch_at + keep, 0, size - keep);
    } else if (how == 2) {
        size_t sector = (size_t)8 << pick(0, 6);
        for (size_t at = 0; at < size; at += sector)
            if (chance(400))
                memset(s->b.s + n->batch_at + at, chance(500) ? 0 : 0xa5, MIN(sector, size - at));
    }
    bool intact = memcmp(whole, s->b.s + n->batch_at, size) == 0;
    g.n_torn += !intact;
    if (intact) {
        batch_durable(n);
    } else {
        for (unsigned i = 0; i < n->n_batch; i++) /* the snapshot's file may have made it alone */
            if (n->batch[i].install && chance(500))
                put_snapshot(n, n->batch[i].install, n->batch[i].install_index,
                             n->batch[i].install_term);
    }
}

/* A bit of what is durable flips, or the newest snapshot is lost; as many voters stay sound as a quorum needs. */
static void rot(struct node *n)
{
    unsigned damaged = 1;
    for (unsigned i = 0; i < g.o.n; i++)
        damaged += g.nodes[i].damaged || g.nodes[i].rotten;
    if (!chance(g.o.rot) || n->damaged || n->rotten || damaged > (g.o.voters - 1) / 2 || !n->n_segments)
        return;
    unsigned k = (unsigned)pick(0, n->n_segments - 1);
    struct segment *s = &n->segments[k];
    /* the last batch is its own only witness: it may be torn, not rotten */
    size_t end = k + 1 < n->n_segments ? n->segments[k + 1].head.prev_bytes : n->batch_at;
    if (!end)
        return;
    g.n_rotten++;
    n->lost = n->shadow;
    n->rotten = n->scarred = true;
    if (n->snaps[0] && chance(300)) {
        raft_buf_unref(n->snaps[0]);
        n->snaps[0] = TAKE(n->snaps[1]);
        n->snap_index[0] = n->snap_index[1];
        n->snap_term[0] = n->snap_term[1];
    }
    size_t at = pick(0, MIN(end, s->b.len) - 1);
    s->b.s[at] = (char)(s->b.s[at] ^ 1 << pick(0, 7));
    say("node %u rots in segment %u at %zu", (unsigned)(n - g.nodes), k, at);
}

static void crash(struct node *n)
{
    if (!n->up)
        return;
    say("node %u crashes", (unsigned)(n - g.nodes));
    g.n_crashes++;
    tear(n);
    batch_free(n);
    for (unsigned i = 0; i < n->n_queue; i++)
        raft_write_done(&n->queue[i]);
    n->n_queue = 0;
    for (unsigned i = 0; i < n->n_held; i++)
        free(n->held[i].bytes);
    n->n_held = n->n_reads = n->n_ops = 0;
    raft_buf_unref(TAKE(n->saving_image));
    raft_output_reset(&n->out);
    raft_free(TAKE(n->core));
    rot(n);
    n->up = n->paused = n->active = n->saving = n->mark_fresh = false;
    n->life++;
}

static void wipe(struct node *n)
{
    crash(n);
    for (unsigned i = 0; i < n->n_segments; i++)
        sb_done(&n->segments[i].b);
    n->n_segments = 0;
    raft_buf_unref(TAKE(n->snaps[0]));
    raft_buf_unref(TAKE(n->snaps[1]));
    memset(n->snap_index, 0, sizeof(n->snap_index));
    memset(&n->shadow, 0, sizeof(n->shadow));
    n->damaged = false;
    memset(&n->writer, 0, sizeof(n->writer));
}

static void load_app(struct node *n, const struct raft_buf *image)
{
    struct raft_image i;
    CHECK(raft_image_decode(&i, image->data, image->size, true) == 0, "a snapshot is malformed");
    CHECK(i.size >= 8 && i.index <= g.applied, "a snapshot of the future");
    memcpy(&n->chain, i.data, 8);
    n->applied = i.index;
    CHECK(n->chain == g.chain_at[i.index], "snapshot at %llu has another state", U(i.index));
    raft_image_done(&i);
}

static int read_segment(void *arg, uint32_t i, uint8_t **ret, size_t *ret_size, char name[256], struct err *e)
{
    const struct node *n = arg;
    (void)e;
    *ret = xmemdup(n->segments[i].b.s, n->segments[i].b.len);
    *ret_size = n->segments[i].b.len;
    snprintf(name, 256, "segment %u", i);
    return 0;
}

/* The production scan, as wal_io.c tries it. */
static int replay(struct node *n, enum wal_care care, struct raft_boot *b, struct err *e)
{
    struct wal_replay rp;
    struct wal_source src = {.arg = n, .n = n->n_segments, .read = read_segment};
    wal_replay_init(&rp, disk_key(), n->snaps[0] ? n->snap_index[0] : 0, n->snaps[0] ? n->snap_term[0] : 0);
    int rc = wal_replay_log(&rp, &src, care, b, e);
    if (!rc) {
        n->writer.batch = rp.batch;
        n->writer.offset = rp.end;
        memcpy(n->writer.tag, rp.tag, sizeof(rp.tag));
        n->base_index = rp.rebase ? rp.snapshot_index : 0;
        n->base_term = rp.rebase ? rp.snapshot_term : 0;
        while (n->n_segments && n->segments[n->n_segments - 1].head.number > rp.segment)
            sb_done(&n->segments[--n->n_segments].b);
    }
    wal_replay_done(&rp);
    return rc;
}

static void cut(struct node *n, struct raft_boot *b)
{
    say("node %u is damaged: it keeps %llu of %llu", (unsigned)(n - g.nodes), U(b->snapshot_index + b->n_entries),
        U(n->shadow.last));
    g.n_cut++;
    n->damaged = true;
    n->shadow.last = b->snapshot_index + b->n_entries;
    n->shadow.commit = b->commit;
    for (uint32_t i = 0; i < b->n_entries; i++) /* they may be of a branch that was left later */
        n->shadow.term_at[b->entries[i].index] = b->entries[i].term;
}

/* What is found must be exactly what was durable, or, on a rotten disk, the beginning of it. */
static void boot(struct node *n, const struct raft_boot *first)
{
    struct raft_boot b = {0};
    struct err e = {0};
    int rc = replay(n, WAL_STRICT, &b, &e);
    CHECK(rc == 0 || n->scarred, "node %u cannot read its log: %s",
          (unsigned)(n - g.nodes), e.text);
    if (rc && replay(n, WAL_SKIP, &b, &e) != 0) {
        CHECK(replay(n, WAL_CUT, &b, &e) == 0, "node %u cannot cut its log: %s", (unsigned)(n - g.nodes), e.text);
        cut(n, &b);
    }
    n->rotten = false;
    n->batch_at = 0;
    struct shadow *s = &n->shadow;
    uint64_t index = b.snapshot_index, last = b.snapshot_index + b.n_entries;
    b.damaged = n->damaged;
    if (b.damaged && s->term >= b.term) { /* from the copy of term and vote */
        b.term = s->term;
        b.vote = s->vote;
    }
    CHECK(b.term >= s->term && b.commit >= s->commit && (b.term > s->term || b.vote == s->vote),
          "node %u: term, vote or commit went back over a restart", (unsigned)(n - g.nodes));
    CHECK(last >= s->last || index > s->commit, "node %u lost durable entries: %llu < %llu",
          (unsigned)(n - g.nodes), U(last), U(s->last));
    for (uint32_t i = 0; i < b.n_entries; i++)
        CHECK(b.entries[i].index <= s->last && s->term_at[b.entries[i].index] == b.entries[i].term,
              "node %u found entries that were never durable", (unsigned)(n - g.nodes));
    s->term = b.term;
    s->vote = b.vote;
    s->last = last;
    s->snapshot = index;
    b.id = n->id;
    b.image = raft_buf_ref(n->snaps[0]);
    n->applied = n->chain = 0;
    if (b.image)
        load_app(n, b.image);
    struct rng r;
    rng_init(&r, rng_u64(&g.rng));
    CHECK(raft_new(&n->core, &g.o.cfg, first ? first : &b, &r, now_ms(), &e) == 0, "node %u: %s",
          (unsigned)(n - g.nodes), e.text);
    raft_boot_done(&b);
    n->up = true;
    n->done_token = 0;
    n->role = RAFT_FOLLOWER;
    n->commit = s->commit;
    n->term = s->term;
    n->tick_us = -1;
    struct raft_input in = {.type = RAFT_TICK};
    step(n, &in);
}

/* ---- invariants ---- */

static uint64_t entry_hash(uint64_t h, const struct raft_entry *e)
{
    h = fnv(fnv(h, &e->index, 8), &e->term, 8);
    h = fnv(h, &e->type, 1);
    return e->data ? fnv(h, e->data->data, e->data->size) : h;
}

static void check_written(struct node *n, const struct raft_write *w)
{
    CHECK(!(n->role == RAFT_LEADER && w->truncate_from && w->term == n->term),
          "a leader truncated its own log");
    CHECK(!w->truncate_from || w->truncate_from > n->commit, "a committed entry was truncated");
    for (uint32_t i = 0; i < w->n_entries; i++) {
        const struct raft_entry *e = &w->entries[i];
        const struct raft_entry *p = raft_peek(n->core, e->index - 1);
        CHECK(e->index < INDEX_MAX, "log too long for the simulator");
        uint64_t hash = entry_hash(0, e), prev = p ? p->term : 0;
        struct known *k = g.known[e->index];
        while (k && k->term != e->term)
            k = k->next;
        if (!k) {
            k = xnew(struct known);
            *k = (struct known){.term = e->term, .hash = hash, .prev_term = prev,
                                .next = g.known[e->index]};
            g.known[e->index] = k;
        }
        CHECK(k->hash == hash, "two entries at index %llu of term %llu", U(e->index), U(e->term));
        CHECK(!prev || !k->prev_term || k->prev_term == prev,
              "log matching broken before index %llu of term %llu", U(e->index), U(e->term));
        if (prev)
            k->prev_term = prev;
        if (e->type != RAFT_ENTRY_CONFIGURATION)
            continue;
        struct raft_configuration *c =
            raft_configuration_decode(e->data->data, e->data->size, e->index);
        for (uint32_t v = 0; v < c->n; v++) {
            int slot = slot_of(c->members[v].id);
            if (slot >= 0)
                g.nodes[slot].was_voter |= c->members[v].voter;
        }
        raft_configuration_free(c);
    }
}

static void check_leader(struct node *n, const struct raft_status *s)
{
    if (s->role != RAFT_LEADER)
        return;
    CHECK(s->term < TERMS_MAX, "terms explode");
    CHECK(!g.leader_of[s->term] || g.leader_of[s->term] == n->id, "two leaders in term %llu",
          U(s->term));
    if (g.leader_of[s->term])
        return;
    g.leader_of[s->term] = n->id;
    g.n_leaders++;
    say("node %u leads term %llu", (unsigned)(n - g.nodes), U(s->term));
    uint64_t must = g.commit; /* what was committed in terms before its own */
    while (must && g.committed_in[must] >= s->term)
        must--;
    CHECK(s->last >= must, "leader of term %llu lacks committed entries: %llu < %llu", U(s->term),
          U(s->last), U(must));
    for (uint64_t i = must; i; i--) {
        const struct raft_entry *e = raft_peek(n->core, i);
        if (!e)
            break;
        CHECK(e->term == g.term_at[i], "leader of term %llu has another entry at %llu", U(s->term),
              U(i));
    }
}

static bool is_durable_on(const struct node *n, uint64_t index, uint64_t term)
{
    return index <= n->shadow.snapshot ||
           (index <= n->shadow.last && n->shadow.term_at[index] == term);
}

/* Or was, when it said so. */
static bool was_durable_on(const struct node *n, uint64_t index, uint64_t term)
{
    return is_durable_on(n, index, term) ||
           (n->damaged && (index <= n->lost.snapshot || (index <= n->lost.last && n->lost.term_at[index] == term)));
}

/* New commits: the same entry everywhere, and on a quorum of disks before anyone calls it committed. */
static void check_commit(struct node *n, const struct raft_status *s)
{
    CHECK(s->commit >= n->commit, "node %u: commit went back", (unsigned)(n - g.nodes));
    for (uint64_t i = n->commit + 1; i <= s->commit; i++) {
        const struct raft_entry *e = raft_peek(n->core, i);
        if (i <= g.commit) {
            CHECK(!e || e->term == g.term_at[i], "node %u committed another entry at %llu",
                  (unsigned)(n - g.nodes), U(i));
            continue;
        }
        CHECK(e && i == g.commit + 1, "node %u committed out of order", (unsigned)(n - g.nodes));
        g.commit = i;
        g.term_at[i] = e->term;
        g.committed_in[i] = s->term;
        if (e->type == RAFT_ENTRY_CONFIGURATION) {
            raft_configuration_free(g.config);
            g.config = raft_configuration_decode(e->data->data, e->data->size, i);
        }
    }
    if (s->role == RAFT_LEADER && n->role == RAFT_LEADER && s->commit > n->commit) {
        struct raft_member m[RAFT_MEMBERS_MAX];
        uint32_t count = raft_get_members(n->core, m, RAFT_MEMBERS_MAX), voters = 0, have = 0;
        for (uint32_t i = 0; i < count; i++) {
            int slot = slot_of(m[i].id);
            voters += m[i].voter;
            have += m[i].voter && slot >= 0 &&
                    was_durable_on(&g.nodes[slot], s->commit, g.term_at[s->commit]);
        }
        CHECK(have > voters / 2, "leader committed %llu with %u of %u durable copies", U(s->commit),
              have, voters);
    }
    n->commit = s->commit;
}

static void check_configs(struct node *n, const struct raft_status *s)
{
    unsigned open = 0;
    for (uint64_t i = MAX(g.commit, s->snapshot) + 1; i <= s->last; i++) {
        const struct raft_entry *e = raft_peek(n->core, i);
        open += e && e->type == RAFT_ENTRY_CONFIGURATION;
    }
    CHECK(open <= 1, "node %u holds %u uncommitted configurations", (unsigned)(n - g.nodes), open);
}

/* ---- the shell of a node ---- */

static void apply(struct node *n)
{
    for (uint32_t i = 0; i < n->out.n_apply; i++) {
        const struct raft_entry *e = &n->out.apply[i];
        CHECK(e->index == n->applied + 1, "node %u applies %llu after %llu", (unsigned)(n - g.nodes),
              U(e->index), U(n->applied));
        CHECK(is_durable_on(n, e->index, e->term), "node %u applies %llu before it is durable",
              (unsigned)(n - g.nodes), U(e->index));
        n->chain = entry_hash(n->chain, e);
        n->applied = e->index;
        if (e->index > g.applied) {
            g.applied = e->index;
            g.chain_at[e->index] = n->chain;
        }
        CHECK(g.chain_at[e->index] == n->chain, "two states after index %llu", U(e->index));
        for (unsigned k = 0; k < n->n_ops; k++) {
            if (n->ops[k].index != e->index || n->ops[k].term != e->term)
                continue;
            g.n_acked++;
            g.acked = MAX(g.acked, e->index);
            n->ops[k] = n->ops[--n->n_ops];
            k--;
        }
    }
}

static void take_results(struct node *n)
{
    for (uint32_t i = 0; i < n->out.n_results; i++) {
        const struct raft_result *r = &n->out.results[i];
        if (r->result)
            continue;
        GROW(n->ops, n->n_ops, n->cap_ops);
        n->ops[n->n_ops++] =
            (struct propose_op){.cookie = r->cookie, .index = r->index, .term = r->term};
    }
    for (uint32_t i = 0; i < n->out.n_reads; i++) {
        const struct raft_result *r = &n->out.reads[i];
        for (unsigned k = 0; k < n->n_reads; k++) {
            if (n->reads[k].cookie != r->cookie)
                continue;
            CHECK(r->result || r->index >= n->reads[k].floor, "stale read: index %llu, %llu was committed "
                  "before it began", U(r->index), U(n->reads[k].floor));
            g.n_reads += !r->result;
            n->reads[k] = n->reads[--n->n_reads];
            break;
        }
    }
}

static void maybe_snapshot(struct node *n, const struct raft_status *s)
{
    if (n->saving || s->applied != n->applied || n->applied < s->snapshot + g.o.snapshot_every)
        return;
    struct sb b;
    sb_init(&b, 0);
    raft_image_begin(n->core, &b, &n->saving_index, &n->saving_term);
    sb_add(&b, &n->chain, 8);
    for (unsigned i = 0; i < g.o.pad; i++)
        sb_char(&b, (char)(n->saving_index * 7 + i));
    raft_image_finish(&b);
    n->saving_image = raft_buf_new(b.s, b.len);
    sb_done(&b);
    n->saving = true;
    push((struct event){.at_us = g.now_us + (int64_t)pick(1000, 50000), .type = EV_SNAPSHOT,
                        .life = n->life, .node = (unsigned)(n - g.nodes)});
}

static void propose_change(struct node *n);

static void step(struct node *n, struct raft_input *in)
{
    unsigned slot = (unsigned)(n - g.nodes);
    in->now_ms = now_ms();
    int rc = raft_step(n->core, in, &n->out);
    CHECK(rc == 0, "node %u found the protocol broken by node %d", slot, slot_of(in->from));
    struct raft_status s;
    raft_get_status(n->core, &s);
    CHECK(s.term >= n->term, "node %u: term went back", slot);
    struct raft_output *o = &n->out;
    if (o->write.token) {
        check_written(n, &o->write);
        GROW(n->queue, n->n_queue, n->cap_queue);
        n->queue[n->n_queue++] = o->write;
        memset(&o->write, 0, sizeof(o->write));
        start_write(n);
    }
    n->term = s.term;
    check_leader(n, &s);
    bool commits = s.commit > n->commit;
    check_commit(n, &s);
    check_configs(n, &s);
    bool leads = s.role == RAFT_LEADER && n->role != RAFT_LEADER;
    if (g.o.churn && s.role == RAFT_LEADER && (leads ? chance(500) : commits && chance(300)))
        push((struct event){.at_us = g.now_us + (int64_t)pick(0, leads ? 8 * g.o.delay_us : 1000),
                            .type = EV_STRIKE, .node = slot, .life = n->life});
    n->role = s.role;
    take_sends(n);
    struct raft_buf *image = raft_buf_ref(o->install);
    uint64_t install_index = o->install_index;
    take_results(n);
    apply(n);
    mix(s.term * 31 + s.commit);
    mix(s.last * 31 + slot);
    int64_t due = o->deadline_ms * 1000;
    if (n->tick_us < 0 || due < n->tick_us) {
        n->tick_us = due;
        push((struct event){.at_us = due, .type = EV_TICK, .node = slot, .life = n->life});
    }
    raft_output_reset(o);
    if (image) {
        g.n_installs++;
        say("node %u installs a snapshot at %llu", slot, U(install_index));
        load_app(n, image);
        raft_buf_unref(image);
        struct raft_input done = {.type = RAFT_SNAPSHOT_INSTALLED, .index = install_index};
        step(n, &done);
        return;
    }
    maybe_snapshot(n, &s);
    if (leads && g.o.storm && !g.calm && chance(600))
        propose_change(n);
}

static void snapshot_saved(struct node *n)
{
    struct raft_buf *image = TAKE(n->saving_image);
    n->saving = false;
    put_snapshot(n, image, n->saving_index, n->saving_term);
    trim_segments(n);
    struct raft_input in = {.type = RAFT_SNAPSHOT_TAKEN, .index = n->saving_index,
                            .term = n->saving_term, .image = image};
    step(n, &in);
    raft_buf_unref(image);
}

/* ---- clients, membership, faults ---- */

static struct node *some_leader(void)
{
    struct node *found = NULL;
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        if (n->up && !n->paused && n->role == RAFT_LEADER && (!found || chance(500)))
            found = n;
    }
    return found;
}

static void client(void)
{
    struct node *n = chance(900) ? some_leader() : &g.nodes[pick(0, g.o.n - 1)];
    if (!n || !n->up || n->paused)
        return;
    uint64_t cookie = ++g.cookie;
    struct raft_input in = {.cookie = cookie};
    uint8_t bytes[200];
    unsigned what = (unsigned)pick(0, 99);
    if (what < 70) {
        in.type = RAFT_PROPOSE;
        in.bytes = bytes;
        in.size = pick(0, sizeof(bytes));
        rng_bytes(&g.rng, bytes, in.size);
    } else if (what < 97 || g.calm) {
        in.type = RAFT_READ;
        GROW(n->reads, n->n_reads, n->cap_reads);
        n->reads[n->n_reads++] = (struct read_op){.cookie = cookie, .floor = g.commit};
    } else {
        in.type = RAFT_TRANSFER;
        in.id = chance(500) ? 0 : g.nodes[pick(0, g.o.n - 1)].id;
    }
    step(n, &in);
}

/* Any change at this node, which believes to lead. A removed node comes back with its disk, or empty
 * under a new id, or, if it never had a vote, empty under its old id: sessions must cope with that.
 * (An empty former voter under its old id loses committed entries in any Raft; the rule is: new id.) */
static void propose_change(struct node *n)
{
    struct raft_member m[RAFT_MEMBERS_MAX];
    uint32_t count = raft_get_members(n->core, m, RAFT_MEMBERS_MAX);
    struct node *x = &g.nodes[pick(0, g.o.n - 1)];
    struct raft_input in = {.type = RAFT_CHANGE, .id = x->id, .cookie = ++g.cookie};
    const struct raft_member *found = NULL;
    for (uint32_t i = 0; i < count; i++)
        if (m[i].id == x->id)
            found = &m[i];
    if (!found) {
        if (!g.config || raft_configuration_find(g.config, x->id) || x == n)
            return;
        if (x->up && chance(800)) {
            wipe(x);
            if (x->was_voter || chance(200)) {
                x->id = in.id = rng_u64(&g.rng) | 1;
                x->was_voter = false;
            }
            boot(x, NULL);
        }
        in.change = RAFT_ADD_LEARNER;
    } else if (!found->voter) {
        in.change = chance(700) ? RAFT_PROMOTE : RAFT_REMOVE;
    } else {
        in.change = chance(900) ? RAFT_REMOVE : RAFT_UPDATE_CONTEXT;
        in.bytes = "context";
        in.size = in.change == RAFT_UPDATE_CONTEXT ? 7 : 0;
    }
    g.n_changes++;
    say("change %d of node %u at node %u", in.change, (unsigned)(x - g.nodes),
        (unsigned)(n - g.nodes));
    step(n, &in);
}

static void heal(void)
{
    memset(g.blocked, 0, sizeof(g.blocked));
}

static void partition(void)
{
    heal();
    unsigned kind = (unsigned)pick(0, 4), a = (unsigned)pick(0, g.o.n - 1);
    struct node *leader = some_leader();
    if (leader && chance(600))
        a = (unsigned)(leader - g.nodes);
    uint64_t side = rng_u64(&g.rng);
    for (unsigned i = 0; i < g.o.n; i++) {
        for (unsigned k = 0; k < g.o.n; k++) {
            bool cut = (side >> i & 1) != (side >> k & 1);
            switch (kind) {
            case 0: g.blocked[i][k] = cut; break;                            /* two sides */
            case 1: g.blocked[i][k] = i == a || k == a; break;               /* one alone */
            case 2: g.blocked[i][k] = i == a; break;                         /* mute */
            case 3: g.blocked[i][k] = k == a; break;                         /* deaf */
            default: g.blocked[i][k] = cut && i != a && k != a; break;       /* a bridge */
            }
        }
    }
    say("partition of kind %u around node %u", kind, a);
}

static void crash_for(struct node *n, int64_t us)
{
    crash(n);
    push((struct event){.at_us = g.now_us + us, .type = EV_RESTART, .node = (unsigned)(n - g.nodes),
                        .life = n->life});
}

static void nemesis(void)
{
    struct node *n = &g.nodes[pick(0, g.o.n - 1)];
    struct node *leader = some_leader();
    if (leader && chance(400))
        n = leader;
    if (n->up && !n->paused && chance(100)) { /* a connection breaks: whether the leader lives or not */
        struct raft_status s;
        raft_get_status(n->core, &s);
        struct raft_input in = {.type = RAFT_PEER_GONE, .id = s.leader};
        step(n, &in);
    }
    if (chance(g.o.partition)) {
        if (chance(400))
            heal();
        else
            partition();
    }
    if (n->up && chance(g.o.crash)) {
        crash_for(n, (int64_t)pick(1000, chance(300) ? 2000000 : 300000));
    } else if (n->up && !n->paused && chance(g.o.pause)) {
        n->paused = true;
        push((struct event){.at_us = g.now_us + (int64_t)pick(1000, 1500000), .type = EV_RESUME,
                            .node = (unsigned)(n - g.nodes), .life = n->life});
    }
}

/* ---- one seed ---- */

static void options(void)
{
    struct options *o = &g.o;
    memset(o, 0, sizeof(*o));
    o->members = chance(500);
    o->storm = o->members && chance(600);
    o->voters = chance(500) ? 3 : 5;
    if (o->members && chance(400))
        o->voters = 4;
    o->n = o->members ? MIN(o->voters + (unsigned)pick(1, 2), (unsigned)NODES_MAX) : o->voters;
    o->loss = chance(300) ? 0 : (unsigned)pick(0, 200);
    o->dup = (unsigned)pick(0, 100);
    o->late = (unsigned)pick(0, 60);
    o->tail = (unsigned)pick(0, 100);
    o->delay_us = (unsigned)pick(300, 15000);
    o->crash = (unsigned)pick(0, 500);
    o->partition = (unsigned)pick(0, 500);
    o->pause = (unsigned)pick(0, 300);
    o->disk_us = (unsigned)pick(300, 15000);
    o->rate_us = (unsigned)pick(5000, 60000);
    o->snapshot_every = (unsigned)pick(8, 120);
    o->pad = (unsigned)pick(0, 600);
    o->segment_bytes = (unsigned)pick(1000, 12000);
    o->sealed = chance(200);
    o->rot = !o->members && chance(500) ? (unsigned)pick(100, 700) : 0;
    o->cfg = (struct raft_config){
        .election_min_ms = 150,
        .patience_max_ms = chance(500) ? 150 : (uint32_t)pick(150, 600),
        .heartbeat_ms = 50,
        .message_bytes = (uint32_t)pick(1, 600),
        .inflight = (uint32_t)pick(1, 8),
        .uncommitted_bytes = (uint32_t)pick(500, 20000),
        .promote_lag = (uint32_t)pick(1, 30),
        .snapshot_chunk_bytes = (uint32_t)pick(64, 400),
        .trailing_entries = (uint32_t)pick(1, 30),
        .disk_stall_ms = (uint32_t)pick(200, 2000),
    };
    o->churn = chance(300);
    if (o->churn && chance(700))
        o->cfg.message_bytes = o->cfg.inflight = 1;
    raft_config_defaults(&o->cfg);
}

static void found_cluster(void)
{
    uint64_t ids[NODES_MAX];
    for (unsigned i = 0; i < g.o.n; i++) {
        memset(&g.nodes[i], 0, sizeof(g.nodes[i]));
        raft_output_init(&g.nodes[i].out);
        ids[i] = g.nodes[i].id = rng_u64(&g.rng) | 1;
    }
    rng_bytes(&g.rng, g.key, sizeof(g.key));
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        if (i < g.o.voters) {
            struct raft_entry e = raft_bootstrap_entry(ids, g.o.voters, "x", 1);
            struct raft_write w = {.token = 1, .has_hard = true, .term = 1, .n_entries = 1,
                                   .entries = &e};
            struct raft_write *one = &w;
            n->was_voter = true;
            open_segment(n);
            struct segment *s = &n->segments[0];
            wal_batch_encode(&n->writer, &one, 1, &s->b);
            uint8_t mark[WAL_MARK_BYTES] = {0};
            sb_add(&s->b, mark, sizeof(mark));
            n->active = false;
            shadow_write(&n->shadow, &w);
            s->max_index = 1;
            raft_buf_unref(e.data);
        }
        boot(n, NULL);
    }
}

static void event(struct event *e)
{
    struct node *n = &g.nodes[e->node];
    bool of_node = e->type <= EV_SNAPSHOT || e->type == EV_RESUME;
    if (of_node && (!n->up || (e->type != EV_DELIVER && e->life != n->life)))
        return;
    if (n->paused && e->type <= EV_SNAPSHOT) { /* everything waits until it wakes */
        struct event again = *e;
        again.at_us = g.now_us + 20000;
        e->bytes = NULL;
        push(again);
        return;
    }
    struct raft_input in = {.type = RAFT_TICK};
    struct raft_message m;
    switch (e->type) {
    case EV_DELIVER:
        mix(fnv(1, e->bytes, e->size));
        CHECK(raft_message_decode(&m, e->bytes, e->size) == 0, "a message does not decode");
        in = (struct raft_input){.type = RAFT_MESSAGE, .from = e->from_id, .message = &m};
        step(n, &in);
        raft_message_done(&m);
        break;
    case EV_TICK:
        if (e->at_us < n->tick_us) /* superseded */
            return;
        n->tick_us = -1;
        step(n, &in);
        break;
    case EV_DISK: disk_done(n); break;
    case EV_SNAPSHOT: snapshot_saved(n); break;
    case EV_RESTART:
        if (!n->up && e->life == n->life) {
            say("node %u restarts", e->node);
            boot(n, NULL);
        }
        break;
    case EV_RESUME: n->paused = false; break;
    case EV_NEMESIS:
        if (g.calm)
            return;
        nemesis();
        push((struct event){.at_us = g.now_us + (int64_t)pick(20000, 400000), .type = EV_NEMESIS});
        break;
    case EV_STRIKE:
        if (g.calm || !n->up || e->life != n->life)
            return;
        if (chance(500))
            crash_for(n, (int64_t)pick(1000, chance(300) ? 1000000 : 200000));
        else
            partition();
        break;
    case EV_CLIENT:
        client();
        push((struct event){.at_us = g.now_us + (int64_t)pick(1000, 2 * g.o.rate_us),
                            .type = EV_CLIENT});
        break;
    case EV_CHANGE:
        if (g.calm)
            return;
        if (some_leader())
            propose_change(some_leader());
        push((struct event){.at_us = g.now_us + (int64_t)pick(10000, 300000), .type = EV_CHANGE});
        break;
    }
}

static void run_until(int64_t us)
{
    while (g.n_heap && g.heap[0].at_us <= us) {
        struct event e = pop();
        g.now_us = e.at_us;
        g.events++;
        mix(U(e.at_us) * 16 + e.type);
        event(&e);
        free(e.bytes);
    }
    g.now_us = us;
}

/* All committed members have everything up to `index`. */
static bool is_everywhere(uint64_t index)
{
    for (unsigned i = 0; i < g.o.n; i++)
        if (raft_configuration_find(g.config, g.nodes[i].id) && g.nodes[i].applied < index)
            return false;
    return true;
}

static void liveness(void)
{
    g.calm = true;
    heal();
    for (unsigned i = 0; i < g.o.n; i++) {
        g.nodes[i].paused = false;
        if (!g.nodes[i].up)
            boot(&g.nodes[i], NULL);
    }
    unsigned acked = g.n_acked, reads = g.n_reads;
    int64_t limit = g.now_us + 12 * 1000000;
    while (g.now_us < limit && (g.n_acked < acked + 3 || g.n_reads == reads))
        run_until(g.now_us + 50000);
    uint64_t promised = g.commit;
    while (g.now_us < limit && !is_everywhere(promised))
        run_until(g.now_us + 50000);
    if (g.now_us < limit)
        return;
    for (unsigned i = 0; i < g.o.n; i++) {
        struct raft_status s;
        raft_get_status(g.nodes[i].core, &s);
        printf("node %u: %s term %llu commit %llu last %llu applied %llu config %llu voters %u%s%s\n", i,
               raft_role_text(s.role), U(s.term), U(s.commit), U(s.last), U(s.applied),
               U(s.config_index), s.n_voters, s.voter ? " voter" : "", s.removed ? " removed" : "");
    }
    fail("no progress within 12 s after the faults ended");
}

static void tear_down(void)
{
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        wipe(n);
        raft_output_done(&n->out);
        free(n->segments);
        free(n->queue);
        free(n->held);
        free(n->reads);
        free(n->ops);
    }
    for (unsigned i = 0; i < INDEX_MAX; i++) {
        while (g.known[i]) {
            struct known *k = g.known[i];
            g.known[i] = k->next;
            free(k);
        }
    }
    while (g.n_heap)
        free(g.heap[--g.n_heap].bytes);
    free(g.heap);
    raft_configuration_free(g.config);
}

static uint64_t run_seed(uint64_t seed, bool verbose)
{
    memset(&g, 0, sizeof(g));
    g.seed = seed;
    g.verbose = verbose;
    g.hash = UINT64_C(0xcbf29ce484222325);
    rng_init(&g.rng, seed);
    options();
    found_cluster();
    push((struct event){.at_us = (int64_t)pick(0, 500000), .type = EV_NEMESIS});
    push((struct event){.at_us = 1000, .type = EV_CLIENT});
    if (g.o.members)
        push((struct event){.at_us = (int64_t)pick(0, 600000), .type = EV_CHANGE});
    run_until((int64_t)pick(3, 8) * 1000000);
    liveness();
    uint64_t hash = g.hash;
    if (verbose)
        printf("seed %llu: %u nodes, %u voters%s%s, %llu events, %u leaders, %u acked, %u reads, %u "
               "crashes, %u torn, %u installs, %u changes, %u rotten, %u cut, hash %016llx\n", U(seed), g.o.n, g.o.voters,
               g.o.members ? ", members change" : "", g.o.sealed ? ", sealed" : "", U(g.events),
               g.n_leaders, g.n_acked, g.n_reads, g.n_crashes, g.n_torn, g.n_installs, g.n_changes, g.n_rotten, g.n_cut,
               U(hash));
    tear_down();
    return hash;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 0, seed = 1;
    bool one = false, verbose = false;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (str_equal(argv[i], "--seeds") && more && str_u64(argv[i + 1], 1, UINT64_MAX, &seeds)) {
            i++;
        } else if (str_equal(argv[i], "--seed") && more && str_u64(argv[i + 1], 0, UINT64_MAX, &seed)) {
            one = true;
            i++;
        } else if (str_equal(argv[i], "--verbose")) {
            verbose = true;
#ifdef RAFT_PLANTED
        } else if (str_equal(argv[i], "--bug") && more) {
            raft_bug = (int)strtol(argv[++i], NULL, 10);
#endif
        } else {
            fprintf(stderr, "usage: sim_raft [--seeds N] [--seed S] [--verbose]\n");
            return 2;
        }
    }
    crypto_init();
    signal(SIGABRT, on_abort);
    if (!seeds)
        seeds = one ? 1 : 1000;
    printf("seeds %llu to %llu\n", U(seed), U(seed + seeds - 1));
    fflush(stdout);
    uint64_t events = 0, leaders = 0, acked = 0, reads = 0, crashes = 0, torn = 0, installs = 0, rotten = 0, cuts = 0;
    for (uint64_t i = 0; i < seeds; i++) {
        uint64_t hash = run_seed(seed + i, verbose);
        events += g.events;
        leaders += g.n_leaders;
        acked += g.n_acked;
        reads += g.n_reads;
        crashes += g.n_crashes;
        torn += g.n_torn;
        installs += g.n_installs;
        rotten += g.n_rotten;
        cuts += g.n_cut;
        if (i < 10 && run_seed(seed + i, false) != hash)
            fail("two runs of one seed differ");
        passed++;
    }
    printf("%llu events, %llu leaders, %llu writes acknowledged, %llu reads, %llu crashes, %llu torn "
           "batches, %llu snapshots installed, %llu disks rotten, %llu logs cut\n", U(events), U(leaders), U(acked), U(reads),
           U(crashes), U(torn), U(installs), U(rotten), U(cuts));
    printf("%llu passed, 0 failed\n", U(passed));
    return 0;
}
