/* Deterministic simulation of a whole cluster: the production daemons of several machines in one process and one thread,
 * in virtual time. Everything between the sockets and the containers is the product's own code, unmodified: admission,
 * links and their handshakes, relay, gossip, Raft with its shell, log and snapshots, store, orchestrator, scheduler,
 * allocator, dispatcher, certificates, agents. Shims are below it only:
 *
 *   whole_loop.c   the queue of events; clocks, timers, deferred calls, worker (loop.h)
 *   whole_net.c    streams (stream.h) and datagrams over links that lose, delay, repeat and part
 *   whole_files.c  files (file.h) on disks that forget, see disk.h
 *   whole_host.c   machines: start and end of their daemons, containers that only pretend (agent.h)
 *   whole_disks.c  what befalls disks
 *   whole_users.c  what people ask for, and what they were promised
 *   whole_clients.c  who reads and writes registers, for a history that must be linearizable
 *   whole_checks.c what must hold after every event, and at the end
 *   sim_whole.c    faults, phases of a seed, options */
#ifndef WHOLE_H
#define WHOLE_H

#include "control_checks.h"
#include "disk.h"
#include "node_internal.h"
#include "queue.h"
#include "seeds.h"

#include <setjmp.h>
#include <shoal/base/rng.h>
#include <shoal/model/format.h>

enum { HOSTS_MAX = 7, BOXES_MAX = 8192, CONFIGS_MAX = 4096, UNLOCK_KEYS_MAX = 64, PORT = 2377, GOSSIP_PORT = 7946 };
enum { FORMATS = 2 }; /* known to the newer program, see FORMAT_NEXT */
#define MS MS_NS

struct host;
struct event {
    struct due due;
    struct host *host; /* in whose daemon it happens; NULL: in none */
    uint64_t life;     /* of that daemon; another one knows nothing of it */
    void (*fn)(struct event *e);
    uint64_t a, b;
    char *bytes;
    size_t size;
};

struct call {
    loop_fn *fn;
    void *arg;
};

struct job {
    struct job *next;
    loop_fn *work, *done;
    void *arg;
};

struct loop {
    struct host *host;
    struct call *deferred, each[8];
    size_t n_deferred, cap_deferred;
    unsigned n_each, n_jobs[LANES];
    struct job *lanes[LANES];
    bool kicked;
};

enum death { ALIVE, KILLED, POWER_LOST }; /* how a daemon is taken down while its memory is given back */

struct host {
    unsigned n;
    char name[16], addr[16], root[16], node_id[26]; /* node_id: as it was last */
    struct daemon d;
    struct loop *loop; /* NULL: no daemon runs */
    uint64_t life;
    enum death dying;
    bool off, paused;   /* off: no power */
    bool out;           /* of the core that the faults end in: it stays dead or cut off */
    unsigned format;    /* the last one that its program knows */
    bool wants_in;      /* it is to join until it is in */
    bool joining, leaving;
    int64_t held_until; /* it was lost with many others: not down before */
    bool forgot; /* its log is gone, and nothing else: it shall not come back as itself */
    bool harmed; /* its disk was full or failed, so that it may not do what it is asked for */
    struct disk *disk, *raft_disk, *copy; /* copy: of raft_disk, of some time ago; NULL: none */
    struct copied { uint64_t raft_id, config, key; } copied; /* whose it was */
    uint64_t copy_key; /* of a copy that is about to be made, 0: none is */
    int64_t wall, drift, resume, hang, down, stale_until; /* wall: offset of its clock; drift: permille of true speed; hang: its disk answers not before;
                                                                * down: until it starts again; stale_until: was called lost */
    struct stream_listener *listener;
    struct loop_fd *udp;
    struct datagram { char *bytes; size_t size; unsigned peer; } inbox[64], refused[64]; /* what came; what came back by ICMP */
    unsigned n_inbox, n_refused;
    struct executor *executor;
    uint64_t checked; /* index up to which its store was looked at */
    uint64_t snapshot; /* of its log, as seen last */
    uint64_t raft_id, config; /* as seen last; config: its index */
    struct store *watched;
    struct map calls; /* ids of tasks that its rules send calls to */
};

struct box { /* a container */
    char task[26], service[26];
    uint64_t slot;
    struct host *host;
    int64_t since, doubled; /* doubled: for how long another one of its slot runs too and its host could be told */
    int64_t to_stop; /* when its host heard so */
    bool prepared, running, lost, stopping, gone, twice, touched;
    int64_t exit_code;
};

/* What may be left out: faults, what befalls containers, what people do. */
#define KINDS(X) X(loss) X(part) X(kill) X(power) X(pause) X(clock) X(mass) X(hang) X(full) X(sync) X(rot) X(wipe) X(restore) X(old) X(stop) X(leave) X(exit) \
    X(image) X(service) X(change) X(drain) X(role) X(remove) X(keys) X(ca) X(tokens) X(lock) X(client) X(compact) X(core)
enum kind { KINDS(SEEDS_KIND) };
enum { L_OPS, L_FAULTS, L_NODES, L_UNTIL, LIMITS };
extern struct seeds_limit limits[LIMITS];

enum stream_of { S_RANDOM, S_NET, S_DISK, S_BOX, S_USER, S_CLIENT, S_FAULT, STREAMS };

struct sim {
    uint64_t hash, events;
    int64_t now;
    struct rng rng[STREAMS];
    struct queue queue;
    struct host hosts[HOSTS_MAX], *self;
    unsigned n_hosts, loss; /* loss: permille of datagrams */
    bool blocked[HOSTS_MAX][HOSTS_MAX];
    int64_t slow; /* more delay of every packet */
    struct raft_config raft; /* small limits of all logs */
    int64_t back_until; /* until then programs are exchanged for newer and older ones, then for newer ones only */
    struct conn **conns;
    unsigned n_conns, cap_conns;
    struct loop_timer **timers;
    unsigned n_timers, cap_timers;
    struct box boxes[BOXES_MAX];
    unsigned n_boxes;
    bool calm, ending;
    unsigned n_out; /* hosts that are out */
    uint64_t newest_index; /* that any store ever had; one that is up may be older and not know of a node that joined since */
    char worker_token[128], manager_token[128];
    uint8_t unlock_keys[UNLOCK_KEYS_MAX][32]; /* that ever were in force */
    unsigned n_unlock_keys;
    struct host *rotten; /* its log has lost something, until it says that it is whole, up to rotten_to */
    uint64_t rotten_to;
    jmp_buf aborted; /* where the call goes on that a daemon stopped itself in */
    bool may_abort;
    struct users *users;
    struct clients *clients;
    struct checks *checks;
    unsigned n_kills, n_powers, n_pauses, n_parts, n_leaders, n_acked, n_refused, n_reads, n_torn, n_messages, n_roles, n_full, n_aborts, n_rotten, n_wiped, n_put_back, n_old, n_unlocked, n_exchanged, n_too_old, n_answers, n_ops, n_snapshots, n_installs, n_cores, n_masses;
};
extern struct sim g;

#define U(x) ((unsigned long long)(x))
void mix(uint64_t v);

static inline uint64_t pick(enum stream_of s, uint64_t lo, uint64_t hi)
{
    return rng_range(&g.rng[s], lo, hi);
}
static inline int64_t some_ms(enum stream_of s, uint64_t lo, uint64_t hi)
{
    return (int64_t)pick(s, lo, hi) * MS;
}
static inline bool chance(enum stream_of s, unsigned permille)
{
    return rng_chance(&g.rng[s], permille);
}

/* ---- whole_loop.c ---- */
struct event *push(struct host *h, int64_t delay, void (*fn)(struct event *), uint64_t a, uint64_t b);
void run_until(int64_t at);
void enter(struct host *h); /* what follows happens in this daemon */
void leave(struct host *h); /* the end of its turn */
void loop_abort(struct loop *l); /* the same without a call */
void loop_crash(struct loop *l); /* nothing of it happens any more: jobs end without effect, deferred calls are made */
void loop_done(void); /* of all */

/* ---- whole_net.c ---- */
void net_wake(struct host *h); /* the machine can be reached again */
void net_crash(struct host *h); /* its connections end, those too that nothing remembers */
void net_free(void);

/* ---- whole_host.c ---- */
void host_boot(struct host *h);
void host_crash(struct host *h, bool power);
void host_abort(struct host *h); /* the daemon stopped itself, in the midst of a call */
void host_stop(struct host *h, int64_t down); /* as SIGTERM does it: hands over, then ends; back after that time */
void host_restart(struct host *h, int64_t delay);
void host_exchange(struct host *h, unsigned format); /* restarts it with a program that knows this format */
bool host_is_removed(const struct host *h); /* its node is in the table no more: it can only join as a new one */
void hosts_found(unsigned n, unsigned managers);
void hosts_free(void);
bool host_is_member(const struct host *h);
void host_leave_cluster(struct host *h);
struct host *host_by_node(const char *node_id); /* NULL: none of them, any more */
struct host *some_leader(void);                 /* NULL: none now */

/* ---- whole_disks.c: each does nothing where too much would be lost ---- */
void host_fill_disk(struct host *h, int64_t time);
void host_rot(struct host *h); /* which is down for it */
void host_wipe(struct host *h);
void host_put_up_anew(struct host *h); /* which is down, without anything on its disk */
void host_put_back(struct host *h); /* an older state of its log, or of another's */
void host_want_copy(struct host *h); /* it is about to end; maybe it is copied: host_copy(), once it has */
void host_copy(struct host *h);

/* ---- whole_users.c ---- */
void users_note_key(const struct cluster *c); /* somebody writes the unlock key down */
void users_start(void);
void users_free(void);
void users_last_write(void); /* which must be agreed on */
void users_check(const struct store *s); /* what they were promised is there */

/* ---- whole_clients.c ---- */
void clients_start(void);
void clients_check(const struct store *s); /* the last one of a seed */
void clients_free(void);

/* ---- whole_checks.c ---- */
void checks_start(void);
void checks_event(void);
void checks_box_started(struct box *b);
void checks_end(void);
bool is_quorum(const bool in[HOSTS_MAX]); /* of the managers, as the log has them or will */
const struct store *newest_store(void); /* of a manager that is up; NULL: none is */
void checks_free(void);
static inline bool is_cut(const struct host *from, const struct host *to)
{
    return to->off || from->off || g.blocked[from->n][to->n];
}

#endif
