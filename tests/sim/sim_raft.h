/* Deterministic simulation of Raft (consensus.md section 6): what its files share. The production shell, core, log and
 * snapshot files run unmodified (raft_io.c, wal_io.c and all below them); clock, timers, worker, network and disk are
 * shims. One thread, virtual time; every random number comes from the seed.
 *
 *   raft_cluster.c   nodes, their loop and worker, the queue of events
 *   raft_network.c   links: loss, copies, delay, partitions
 *   disk.c           files
 *   raft_clients.c   operations of clients and what they are promised
 *   raft_checks.c    what must hold after every event
 *   raft_faults.c    what goes wrong, membership, lost disks
 *   sim_raft.c       options, phases of a seed */
#ifndef SIM_RAFT_H
#define SIM_RAFT_H

#include "core.h"
#include "disk.h"
#include "seeds.h"

#include <setjmp.h>

enum { NODES_MAX = 7, TERMS_MAX = 8192, INDEX_MAX = 8192, COOKIES_MAX = 16384, TIMERS_MAX = 8, JOBS_MAX = 256 };

/* Kinds of faults; each seed has a random subset of them, with random rates (swarm testing). */
#define FAULTS(X)                                                                                                \
    X(LOSS, loss) X(COPY, copy) X(OLD, old) X(REORDER, reorder) X(SPLIT, split) X(ONEWAY, oneway)                \
    X(PARTIAL, partial) X(CLOG, clog) X(BREAK, break) X(POWER, power) X(KILL, kill) X(PAUSE, pause)              \
    X(LATE, late-ticks) X(CLOCK, clock) X(SLOW, slow-disk) X(HANG, hung-disk) X(FULL, full-disk)                 \
    X(SYNC, sync-error) X(ROT, rot) X(WIPE, wipe) X(MEMBERS, members) X(TRANSFER, transfer) X(CHURN, churn)      \
    X(RECOVER, recover) X(REKEY, rekey) X(RESTORE, restore) X(IMPOSTOR, impostor)
enum fault {
#define X(name, text) F_##name,
    FAULTS(X)
#undef X
    FAULTS_N
};

enum event_type { EV_DELIVER, EV_TIMER, EV_JOB, EV_RESUME, EV_RESTART, EV_SPACE, EV_NEMESIS, EV_STRIKE, EV_CLIENT, EV_CHANGE };
enum strike { STRIKE_HARD, STRIKE_CHANGE, STRIKE_ROT }; /* how, in `from` of the event */

struct event {
    int64_t at_us;
    uint64_t seq;
    enum event_type type;
    unsigned node, from; /* from: of a message; or number of a timer or lane */
    uint64_t life, from_id;
    char *bytes;
    size_t size;
};

struct shadow { /* what must be on disk */
    uint64_t term, vote, commit, last, snapshot;
    bool lost; /* it is known that something is missing */
    uint64_t term_at[INDEX_MAX];
};

struct loop { /* what the production code takes for its event loop */
    struct node *node;
};

struct loop_timer {
    struct node *node;
    loop_fn *fn;
    void *arg;
    unsigned number;
    int64_t due_us, queued_us; /* -1: none */
};

struct work {
    loop_fn *work, *done;
    void *arg;
};

struct copy { /* of a disk, from a start of the same identity, and what was on it */
    struct disk *disk;
    struct shadow shadow;
    uint8_t keys[2][32];
    bool has_old_key;
};

struct node {
    uint64_t id, life;
    bool up, paused, lost, was_voter, inside; /* was_voter: in any configuration ever written */
    bool scarred, damaged, wrote; /* its disk rotted or was put back, ever; it says so; it wrote since its start */
    bool outdated, reborn;        /* its disk was put back, and it has not made up for that; is empty, under the same id */
    uint8_t keys[2][32];                      /* of its disk: now, and before where has_old_key */
    bool has_old_key;
    struct loop loop;
    struct raft_node *raft;
    struct raft *core;
    struct disk *disk;
    struct loop_timer *timers[TIMERS_MAX];
    struct work lanes[LANES][JOBS_MAX];
    unsigned n_jobs[LANES];
    unsigned drift; /* permille of true speed */
    int64_t ahead_us, hang_us, job_us[LANES];
    /* as last seen */
    enum raft_role role;
    uint64_t term, commit, last;
    unsigned silent;               /* ticks as leader without a word from a quorum */
    int64_t heard_us[NODES_MAX];
    int64_t clock_ms, led_ms;      /* its own clock, which never goes back; when its leader last spoke, 0: never in this term */
    uint64_t consents[NODES_MAX];  /* who agreed that it stands */
    unsigned n_consents, n_ops, n_reads; /* ops: of clients, without an answer; reads of them */
    uint64_t applied, chain; /* of the application */
    struct shadow shadow;
    struct shadow *maybe; /* after a crash in a write: perhaps this one */
    struct shadow *was;   /* before bits flipped, or the disk was put back */
    struct copy *copy;    /* NULL: none */
    unsigned n_put_back;
    bool told;            /* since then its leader has sent a snapshot or named a commit that is not in its log */
    uint64_t repair;      /* the number of its repair, 0: none since its start */
    uint64_t known_in;    /* the term whose leader has heard of that repair, so that `was` counts no more */
};

struct known { /* every entry ever written: (index, term) names one content and one predecessor */
    uint64_t term, hash, prev_term;
    struct raft_configuration *config; /* NULL: it is none */
    struct known *next;
};

struct grave { /* an identity that is no more, and what was on its disk */
    uint64_t id;
    struct shadow shadow;
    struct grave *next;
};

struct options {
    bool on[FAULTS_N];
    unsigned rate[FAULTS_N]; /* permille */
    unsigned n, voters, delay_us, disk_us, client_us, writes, size;
    int64_t end_us;
    bool sealed;
    struct raft_config cfg;
};

enum stream { S_OPTIONS, S_NODE, S_NET, S_DISK, S_CLIENT, S_FAULT, STREAMS };

enum { L_OPS, L_NODES, L_UNTIL, LIMITS_N };
extern struct seeds_limit limits[LIMITS_N];

/* What is counted, of a seed and of all. */
#define COUNTS(X)                                                                                                \
    X(leaders, "leaders") X(acked, "writes acknowledged") X(reads, "reads") X(crashes, "crashes")                \
    X(torn, "writes harmed") X(installs, "snapshots installed") X(changes, "changes of members")                 \
    X(lost, "disks lost") X(rotten, "bytes rotten") X(restored, "disks put back") X(damaged, "logs cut")         \
    X(aborts, "fsyncs failed") X(messages, "messages")
struct counts {
#define X(name, text) uint64_t name;
    COUNTS(X)
#undef X
};

struct sim {
    uint64_t seed, hash, seq, events;
    struct options o;
    struct rng rng[STREAMS];
    int64_t now_us;
    bool alone, calm, ended; /* ended: the seed is being taken down */
    bool quiet, forged;      /* clients ask for nothing more; what a node hears now is a lie */
    struct event *heap;
    unsigned n_heap, cap_heap;
    struct node nodes[NODES_MAX], *self;
    enum link { LINK_OPEN, LINK_SHUT, LINK_NARROW } links[NODES_MAX][NODES_MAX]; /* narrow: what is larger than a header is lost */
    unsigned clog_us[NODES_MAX][NODES_MAX];
    jmp_buf abort_to;
    bool may_abort;
    /* what the cluster has promised */
    uint64_t leader_of[TERMS_MAX];
    uint64_t commit, applied;
    uint64_t term_at[INDEX_MAX], chain_at[INDEX_MAX], committed_in[INDEX_MAX];
    struct known *known[INDEX_MAX];
    uint64_t image_at[INDEX_MAX]; /* hashes of snapshots */
    struct grave *graves;
    struct raft_configuration *config; /* committed */
    /* clients */
    uint64_t cookie, acked_index, read_index, index_of[COOKIES_MAX];
    bool refused[COOKIES_MAX];
    unsigned changed, leads, led_before; /* the member that changed last, the last two leaders */
    struct counts n;
};
extern struct sim g;

#define U(x) ((unsigned long long)(x))
#define SLOT(n) ((unsigned)((n) - g.nodes))
static inline bool is_whole(const struct node *n)
{
    return !n->damaged && !n->outdated;
}

/* ---- sim_raft.c ---- */
void mix(uint64_t v);
uint64_t fnv(uint64_t h, const void *p, size_t n);

static inline uint64_t pick(enum stream s, uint64_t lo, uint64_t hi)
{
    return rng_range(&g.rng[s], lo, hi);
}
static inline bool chance(enum stream s, unsigned permille)
{
    return rng_chance(&g.rng[s], permille);
}
/* Does this fault strike now? The number is drawn in any case, so that leaving a fault out moves little else. */
static inline bool strikes(enum stream s, enum fault f)
{
    return rng_chance(&g.rng[s], g.o.rate[f]) && g.o.on[f] && !g.calm;
}

/* ---- raft_cluster.c ---- */
void push(struct event e);
void run_until(int64_t us);
int slot_of(uint64_t id); /* -1: that identity is gone */
struct node *node_of(uint64_t id); /* NULL: nobody's any more */
struct node *some_leader(void);
void found_cluster(void);
void boot(struct node *n);
void crash(struct node *n, bool power);
void crash_for(struct node *n, int64_t us, bool power);
bool lives_through(void (*call)(void *arg), void *arg); /* false: this node's process ended in it */
void wake_disk(struct node *n);
void tear_down(void);

/* ---- raft_shell.c: the production shell, and what of it is looked at from outside ---- */
struct raft *shell_core(struct raft_node *n);
struct raft_write **shell_batch(const struct work *w, uint32_t *n); /* NULL: no write of the log */
uint64_t shell_saved(const struct work *w);                         /* index of a snapshot just saved; 0: none */
struct raft_buf *shell_image(const struct work *w);                 /* which a job has just stored; NULL: none */
struct shell_sizes { /* of what a node keeps in memory for later, and where it stands */
    size_t inputs, callers, held, writes, pending, log, configs, open_bytes;
    uint64_t term, last, durable, snapshot;
};
void shell_sizes(const struct raft_node *n, bool deep, struct shell_sizes *ret);
void shell_died(struct raft_node *n);                               /* its process ended inside a job or a step */
int sim_step(struct raft *r, struct raft_input *in, struct raft_output *out);

/* ---- raft_network.c ---- */
void network_send(struct node *from, uint64_t to, const void *bytes, size_t size);
void network_part(void);
void network_heal(void);
void network_heal_inside(void);

/* ---- raft_checks.c ---- */
void check_step(struct node *n, const struct raft_input *in, const struct raft_output *o, int rc);
void check_promise(const struct node *n, const char *bytes, size_t size);
void check_boot(struct node *n);
void check_sizes(const struct node *n, bool deep);
void check_image(const struct node *n, const struct raft_buf *image);
void shadow_write(struct shadow *s, const struct raft_write *w);
bool is_durable_on(const struct node *n, uint64_t index, uint64_t term);
struct known *known_add(const struct raft_entry *e, uint64_t prev_term);
const struct raft_configuration *config_in(uint64_t index, uint64_t term); /* NULL: that entry holds none */
const struct raft_configuration *config_of(const struct shadow *s); /* in force at its end; NULL: none */
void known_free(void);

/* ---- raft_clients.c ---- */
void client(void);
void client_applied(struct node *n, uint64_t index, uint64_t term, const uint8_t *bytes, size_t size);

/* ---- raft_faults.c ---- */
void nemesis(void);
bool put_back(struct node *n); /* this one or another, if there is one that may be */
void maybe_copy(struct node *n); /* before a start */
void copy_free(struct copy *c);  /* takes NULL */
void strike(struct node *n, enum strike how);
void maybe_strike(struct node *n, bool leads, bool commits);
void propose_change(struct node *n);

#endif
