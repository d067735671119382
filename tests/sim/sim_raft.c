/* Deterministic simulation of Raft; sim_raft.h says what is simulated.
 *
 *   sim_raft [--seeds N] [--seed S] [--hours H] [--once] [--verbose] [limits]   N seeds from S on
 *   limits: --without loss,copy,...  --ops N  --nodes N  --until MS
 *
 * A seed has a safety phase of faults, then a liveness phase: a majority is chosen, healed and connected, everything
 * else stays as broken as it is; it must elect, commit all that it accepts, and serve reads. Some seeds then lose all
 * but one manager and recover. Every seed runs twice and must do the same. A failing seed is made smaller; the last
 * line is the command that replays it. Built as sim_raft_planted it has --bug K (tests/sim/planted). */
#include "shrink.h"
#include "sim_raft.h"

#include <signal.h>
#include <stdarg.h>
#include <time.h>

const char *const fault_names[FAULTS_N] = {
#define X(name, text) [F_##name] = #text,
    FAULTS(X)
#undef X
};

struct sim g;
static struct limits limits = {.ops = UINT64_MAX, .nodes = NODES_MAX};
static uint64_t passed, seed_now;
static bool is_child, may_shrink = true;
#ifdef RAFT_PLANTED
int raft_bug;
#endif

/* ---- failing ---- */

static void print_options(void)
{
    const struct options *o = &g.o;
    printf("options: %u nodes, %u voters%s; message %u B, inflight %u, chunk %u B, segment %u B, snapshot after %u, trailing %u, "
           "uncommitted %u B; link %u us, disk %u us; faults:", o->n, o->voters, o->sealed ? ", sealed" : "", o->cfg.message_bytes,
           o->cfg.inflight, o->cfg.snapshot_chunk_bytes, o->cfg.segment_bytes, o->cfg.snapshot_after_entries,
           o->cfg.trailing_entries, o->cfg.uncommitted_bytes, o->delay_us, o->disk_us);
    for (unsigned i = 0; i < FAULTS_N; i++)
        if (o->on[i])
            printf(" %s %u", fault_names[i], o->rate[i]);
    printf("\n");
}

static void print_replay(void)
{
#ifdef RAFT_PLANTED
    printf("replay: sim_raft_planted --bug %d --seed %llu", raft_bug, U(seed_now));
#else
    printf("replay: sim_raft --seed %llu", U(seed_now));
#endif
    for (unsigned i = 0, n = 0; i < FAULTS_N; i++)
        if (limits.without >> i & 1)
            printf("%s%s", n++ ? "," : " --without ", fault_names[i]);
    if (limits.ops != UINT64_MAX)
        printf(" --ops %llu", U(limits.ops));
    if (limits.nodes != NODES_MAX)
        printf(" --nodes %u", limits.nodes);
    if (limits.until_us)
        printf(" --until %llu", U(limits.until_us / 1000));
    printf(" --verbose\n");
}

static uint64_t run_seed(uint64_t seed, bool verbose);

static void try(void *arg)
{
    (void)arg;
    is_child = true;
    run_seed(seed_now, false);
}

static void set_ops(void *arg, uint64_t n)
{
    (void)arg;
    limits.ops = n;
}

static void set_until(void *arg, uint64_t n)
{
    (void)arg;
    limits.until_us = (int64_t)n * 1000; /* as --until has it */
}

/* Less kinds of faults, then less operations, nodes, time. */
static void shrink(void)
{
    uint64_t ops = g.n_ops, until_ms = U(MIN(g.now_us, g.o.end_us)) / 1000 + 1;
    unsigned nodes = g.o.voters, kinds = 0;
    if (!shrink_fails(try, NULL)) {
        printf("it does not fail again: the run depends on more than its seed\n");
        return;
    }
    for (unsigned i = 0; i < FAULTS_N; i++) {
        limits.without |= 1U << i;
        if (!shrink_fails(try, NULL)) {
            limits.without &= ~(1U << i);
            kinds++;
        }
    }
    if (limits.ops == UINT64_MAX && !shrink_number(0, ops, set_ops, try, NULL))
        limits.ops = UINT64_MAX;
    for (limits.nodes = 1; limits.nodes < nodes && !shrink_fails(try, NULL);)
        limits.nodes++;
    if (limits.nodes == nodes)
        limits.nodes = NODES_MAX;
    if (!shrink_number(1, until_ms, set_until, try, NULL))
        limits.until_us = 0;
    printf("smaller: %u kinds of faults\n", kinds);
}

static void failed(void)
{
    if (is_child)
        _exit(1);
    print_options();
    if (may_shrink)
        shrink();
    print_replay();
    printf("%llu passed, 1 failed\n", U(passed));
    fflush(stdout);
    _exit(1);
}

void fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("seed %llu, event %llu, %lld us: ", U(g.seed), U(g.events), (long long)g.now_us);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    failed();
    abort();
}

static void on_signal(int sig)
{
    signal(sig, SIG_DFL);
    printf("seed %llu, event %llu, %lld us: signal %d\n", U(g.seed), U(g.events), (long long)g.now_us, sig);
    failed();
}

void say(const char *fmt, ...)
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

void sim_log(enum log_level level, const char *module, struct log_site *site, const char *fmt, ...)
{
    if (!g.verbose || level > LOG_INFO)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("%9lld node %u: ", (long long)g.now_us, SLOT(g.self));
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

void mix(uint64_t v)
{
    g.hash = (g.hash ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    g.hash ^= g.hash >> 29;
}

/* ---- options: a swarm of different worlds ---- */

static unsigned log_pick(unsigned lo, unsigned hi) /* each order of size as likely as the next */
{
    while (hi > 2 * lo && chance(S_OPTIONS, 500))
        hi = lo + (hi - lo) / 3;
    return (unsigned)pick(S_OPTIONS, lo, hi);
}

static void options(void)
{
    static const unsigned most[FAULTS_N] = {
        [F_LOSS] = 300, [F_COPY] = 200, [F_OLD] = 80, [F_REORDER] = 200, [F_SPLIT] = 600, [F_ONEWAY] = 500,
        [F_PARTIAL] = 500, [F_CLOG] = 300, [F_BREAK] = 200, [F_POWER] = 500, [F_KILL] = 400, [F_PAUSE] = 300,
        [F_LATE] = 200, [F_CLOCK] = 300, [F_SLOW] = 30, [F_HANG] = 100, [F_FULL] = 100, [F_SYNC] = 100,
        [F_ROT] = 400, [F_WIPE] = 60, [F_MEMBERS] = 500, [F_TRANSFER] = 500, [F_CHURN] = 500, [F_RECOVER] = 500, [F_REKEY] = 200,
    };
    static const unsigned odds[FAULTS_N] = {[F_ROT] = 300, [F_WIPE] = 250, [F_SYNC] = 150, [F_FULL] = 300, [F_HANG] = 250,
                                            [F_RECOVER] = 150, [F_CLOCK] = 300, [F_LATE] = 300, [F_CHURN] = 350};
    struct options *o = &g.o;
    for (unsigned i = 0; i < FAULTS_N; i++) {
        o->on[i] = chance(S_OPTIONS, odds[i] ? odds[i] : 500);
        o->rate[i] = log_pick(1, most[i]);
        if (limits.without >> i & 1)
            o->on[i] = false;
    }
    static const unsigned sizes[2][8] = {{1, 2, 3, 3, 3, 3, 5, 5}, {1, 2, 3, 3, 4, 4, 4, 5}}; /* changes are hardest where they are even */
    o->voters = MIN(sizes[o->on[F_MEMBERS]][pick(S_OPTIONS, 0, 7)], limits.nodes);
    unsigned more = (unsigned)pick(S_OPTIONS, 1, 2);
    o->n = o->on[F_MEMBERS] ? MIN(o->voters + more, (unsigned)NODES_MAX) : o->voters;
    o->delay_us = log_pick(300, 15000);
    o->disk_us = log_pick(300, 15000);
    o->client_us = log_pick(5000, 60000);
    o->writes = (unsigned)pick(S_OPTIONS, 300, 950);
    o->size = log_pick(1, 1000);
    o->sealed = chance(S_OPTIONS, 200);
    o->end_us = (int64_t)pick(S_OPTIONS, 2000, 8000) * 1000;
    if (limits.until_us)
        o->end_us = MIN(o->end_us, limits.until_us);
    o->cfg = (struct raft_config){
        .election_min_ms = 150,
        .patience_max_ms = chance(S_OPTIONS, 500) ? 150 : (uint32_t)pick(S_OPTIONS, 150, 600),
        .heartbeat_ms = 50,
        .message_bytes = log_pick(1, 4000),
        .inflight = log_pick(1, 8),
        .uncommitted_bytes = log_pick(500, 40000),
        .promote_lag = log_pick(1, 30),
        .snapshot_chunk_bytes = log_pick(64, 1000),
        .trailing_entries = log_pick(1, 30),
        .disk_stall_ms = (uint32_t)pick(S_OPTIONS, 200, 2000),
        .reserve_bytes = 4096,
        .snapshot_after_ms = log_pick(100, 100000),
        .snapshot_after_bytes = 1 << 20,
        .snapshot_after_entries = chance(S_OPTIONS, 500) ? log_pick(4, 20) : log_pick(8, 200),
        .segment_bytes = chance(S_OPTIONS, 500) ? log_pick(4096, 8000) : log_pick(4096, 40000),
    };
    raft_config_defaults(&o->cfg);
}

/* ---- liveness ---- */

/* The part that gets well: a bare majority of the committed voters with whole disks, when no change of members is in
 * flight; else everyone. */
static void choose_inside(void)
{
    bool open = false;
    uint32_t need = g.config ? g.config->n_voters / 2 + 1 : 0;
    for (unsigned i = 0; i < g.o.n; i++) {
        const struct node *n = &g.nodes[i];
        open |= n->up ? shell_core(n->raft) && n->last > g.commit : !n->lost && n->shadow.last > g.commit;
        struct raft_status s;
        if (n->up) {
            raft_get_status(n->core, &s);
            open |= s.config_index > g.commit;
        }
    }
    bool all = !g.config || open || chance(S_FAULT, 300) || g.o.on[F_RECOVER];
    unsigned first = (unsigned)pick(S_FAULT, 0, g.o.n - 1);
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[(first + i) % g.o.n];
        const struct raft_config_member *m = g.config ? raft_configuration_find(g.config, n->id) : NULL;
        n->inside = !n->lost && (all || (m && m->voter && need));
        need -= n->inside && m && m->voter && need && !n->damaged;
    }
}

static void heal_inside(void)
{
    g.calm = true;
    network_heal_inside();
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        if (!n->inside) {
            n->hang_us = n->hang_us > g.now_us ? INT64_MAX / 2 : 0;
            continue;
        }
        n->paused = false;
        wake_disk(n);
        disk_set_full(n->disk, false);
        disk_fail_sync(n->disk, false);
        if (!n->up)
            boot(n);
    }
}

/* On all that are inside, unless some of them have to do with a leader that is not, and may not reach them. */
static bool is_everywhere(uint64_t index)
{
    const struct node *leader = some_leader();
    if (leader && !leader->inside)
        return true;
    for (unsigned i = 0; i < g.o.n; i++)
        if (g.nodes[i].inside && g.nodes[i].up && raft_configuration_find(g.config, g.nodes[i].id)) {
            struct raft_status s;
            raft_node_status(g.nodes[i].raft, &s);
            if (s.applied < index)
                return false;
        }
    return true;
}

__attribute__((noreturn)) static void stuck(const char *what)
{
    for (unsigned i = 0; i < g.o.n; i++) {
        struct raft_status s = {0};
        const struct node *n = &g.nodes[i];
        if (n->up)
            raft_node_status(n->raft, &s);
        printf("node %u (%s%s): %s term %llu commit %llu last %llu applied %llu config %llu voters %u%s%s%s\n", i,
               n->inside ? "inside" : "outside", n->lost ? ", lost" : !n->up ? ", down" : n->paused ? ", paused" : "",
               raft_role_text(s.role), U(s.term), U(s.commit), U(s.last), U(s.applied), U(s.config_index), s.n_voters,
               s.voter ? " voter" : "", s.removed ? " removed" : "", s.disk_full ? " full" : s.damaged ? " damaged" : "");
    }
    fail("%s", what);
}

static bool is_led(void) /* from outside too, if it can */
{
    for (unsigned i = 0; i < g.o.n; i++) {
        struct raft_status s;
        if (!g.nodes[i].up || g.nodes[i].paused)
            continue;
        raft_node_status(g.nodes[i].raft, &s);
        if (s.role == RAFT_LEADER)
            return true;
    }
    return false;
}

/* The time the backlog takes with the smallest of windows; one heartbeat an entry more where the leader is outside, over
 * links that lose. */
static int64_t backlog_us(void)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < g.o.n; i++) {
        struct raft_status s = {0};
        if (g.nodes[i].up)
            raft_get_status(g.nodes[i].core, &s);
        last = MAX(last, s.last);
    }
    const struct node *leader = some_leader();
    int64_t again_us = leader && !leader->inside && g.o.on[F_LOSS] ? 1000 * (int64_t)g.o.cfg.heartbeat_ms : 0;
    return (int64_t)(last - g.commit) * (4 * g.o.delay_us + 4 * g.o.disk_us + again_us);
}

/* Elects within 10 of the longest election timeouts and the time their disks take, commits what it accepts. */
static void liveness(void)
{
    choose_inside();
    heal_inside();
    say("calm");
    int64_t limit = g.now_us + 10 * 2 * (int64_t)g.o.cfg.patience_max_ms * 1000 + 1000000;
    while (g.now_us < limit && !is_led())
        run_until(g.now_us + 20000);
    if (!is_led())
        stuck("no leader after 10 election timeouts without faults inside a majority");
    unsigned acked = g.n_acked, reads = g.n_reads;
    limit = g.now_us + 12 * 1000000 + 10 * (int64_t)g.o.cfg.patience_max_ms * 1000 + backlog_us();
    while (g.now_us < limit && (g.n_acked < acked + 3 || g.n_reads == reads))
        run_until(g.now_us + 50000);
    if (g.now_us >= limit)
        stuck("a healthy majority does not serve clients within 12 s");
    uint64_t promised = g.commit;
    while (g.now_us < limit && !is_everywhere(promised))
        run_until(g.now_us + 50000);
    if (g.now_us >= limit)
        stuck("what is committed is not applied everywhere within 12 s");
}

/* All voters but one are gone for ever; the one that is left goes on alone, with everything. */
static void recover(void)
{
    struct node *one = NULL;
    unsigned first = (unsigned)pick(S_FAULT, 0, g.o.n - 1);
    for (unsigned i = 0; i < g.o.n && !one; i++) {
        struct node *n = &g.nodes[(first + i) % g.o.n];
        struct raft_status s = {0};
        if (n->up)
            raft_get_status(n->core, &s);
        if (n->inside && s.voter && s.commit == g.commit && s.config_index <= s.commit)
            one = n;
    }
    if (!one || g.config->n_voters < 2)
        return;
    say("node %u is left alone", SLOT(one));
    g.alone = true; /* it may hold a change that is under way, and its own comes behind */
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        if (n == one)
            continue;
        crash(n, true);
        n->lost = true;
        n->inside = false;
    }
    unsigned acked = g.n_acked;
    for (int64_t limit = g.now_us + 8 * 1000000; g.n_acked < acked + 3;) {
        struct raft_status s;
        if (g.now_us >= limit)
            stuck("the recovered node does not serve clients within 8 s");
        run_until(g.now_us + 100000);
        raft_node_status(one->raft, &s);
        g.self = one;
        if (s.n_voters > 1)
            raft_node_recover(one->raft, NULL, NULL);
    }
}

/* ---- one seed ---- */

static uint64_t run_seed(uint64_t seed, bool verbose)
{
    memset(&g, 0, sizeof(g));
    g.seed = seed_now = seed;
    g.verbose = verbose;
    g.limits = limits;
    g.hash = UINT64_C(0xcbf29ce484222325);
    for (unsigned i = 0; i < STREAMS; i++)
        rng_init(&g.rng[i], seed * STREAMS + i);
    options();
    found_cluster();
    push((struct event){.at_us = (int64_t)pick(S_FAULT, 0, 500000), .type = EV_NEMESIS});
    push((struct event){.at_us = 1000, .type = EV_CLIENT});
    int64_t change_us = (int64_t)pick(S_FAULT, 0, 600000);
    if (g.o.on[F_MEMBERS])
        push((struct event){.at_us = change_us, .type = EV_CHANGE});
    run_until(g.o.end_us);
    liveness();
    if (g.o.on[F_RECOVER])
        recover();
    uint64_t hash = g.hash;
    if (verbose) {
        print_options();
        printf("seed %llu: %llu events, %u leaders, %u acked, %u reads, %u crashes, %u torn, %u installs, %u changes, %u lost, "
               "%u rotten, %u damaged, %u aborts, hash %016llx\n", U(seed), U(g.events), g.n_leaders, g.n_acked, g.n_reads, g.n_crashes, g.n_torn,
               g.n_installs, g.n_changes, g.n_lost, g.n_rotten, g.n_damaged, g.n_aborts, U(hash));
    }
    tear_down();
    return hash;
}

static bool parse_without(const char *list)
{
    while (*list) {
        size_t len = strcspn(list, ",");
        unsigned i = 0;
        while (i < FAULTS_N && (strlen(fault_names[i]) != len || strncmp(fault_names[i], list, len) != 0))
            i++;
        if (i == FAULTS_N)
            return false;
        limits.without |= 1U << i;
        list += len + (list[len] == ',');
    }
    return true;
}

struct arguments {
    uint64_t seeds, seed, hours;
    bool one, verbose, once;
};

static bool parse(int argc, char **argv, struct arguments *a)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        uint64_t n = 0;
        if (str_equal(name, "--verbose")) {
            a->verbose = true;
            continue;
        } else if (str_equal(name, "--once")) {
            a->once = true;
            continue;
        } else if (str_equal(name, "--no-shrink")) {
            may_shrink = false;
            continue;
        }
        i++;
        if (str_equal(name, "--seeds") && str_u64(value, 1, UINT64_MAX, &a->seeds))
            continue;
        if (str_equal(name, "--hours") && str_u64(value, 1, 10000, &a->hours))
            continue;
        if (str_equal(name, "--seed") && str_u64(value, 0, UINT64_MAX, &a->seed)) {
            a->one = true;
            continue;
        }
        if (str_equal(name, "--without") && parse_without(value))
            continue;
        if (str_equal(name, "--ops") && str_u64(value, 0, UINT64_MAX, &limits.ops))
            continue;
        if (str_equal(name, "--nodes") && str_u64(value, 1, NODES_MAX, &n)) {
            limits.nodes = (unsigned)n;
            continue;
        }
        if (str_equal(name, "--until") && str_u64(value, 1, 1000000, &n)) {
            limits.until_us = (int64_t)n * 1000;
            continue;
        }
#ifdef RAFT_PLANTED
        if (str_equal(name, "--bug") && str_u64(value, 0, 99, &n)) {
            raft_bug = (int)n;
            continue;
        }
#endif
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct arguments a = {.seed = 1};
    if (!parse(argc, argv, &a)) {
        fprintf(stderr, "usage: sim_raft [--seeds N] [--seed S] [--hours H] [--once] [--no-shrink] [--verbose]\n"
                        "       [--without FAULT,...] [--ops N] [--nodes N] [--until MS]\n");
        return 2;
    }
    crypto_init();
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    time_t end = a.hours ? time(NULL) + (time_t)a.hours * 3600 : 0;
    if (!a.seeds)
        a.seeds = a.hours ? UINT64_MAX - a.seed : a.one ? 1 : 300;
    printf("seeds from %llu on\n", U(a.seed));
    fflush(stdout);
    struct timespec t0, t1;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t0);
    uint64_t events = 0, sum[12] = {0};
    for (uint64_t i = 0; i < a.seeds && (!end || time(NULL) < end); i++) {
        uint64_t hash = run_seed(a.seed + i, a.verbose);
        uint64_t one[] = {g.n_leaders, g.n_acked, g.n_reads, g.n_crashes, g.n_torn, g.n_installs, g.n_changes, g.n_lost, g.n_aborts,
                          g.n_messages, g.n_rotten, g.n_damaged};
        events += g.events;
        for (size_t k = 0; k < ARRAY_N(one); k++)
            sum[k] += one[k];
        if (!a.once) {
            if (run_seed(a.seed + i, false) != hash)
                fail("two runs of one seed differ");
            events += g.events;
        }
        passed++;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t1);
    double s = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    printf("%llu events, %.2f million a second of CPU; %llu leaders, %llu writes acknowledged, %llu reads, %llu crashes, %llu "
           "writes harmed, %llu snapshots installed, %llu changes of members, %llu disks lost, %llu bytes rotten, %llu logs cut, %llu fsyncs failed, %llu "
           "messages\n",
           U(events), (double)events / 1e6 / s, U(sum[0]), U(sum[1]), U(sum[2]), U(sum[3]), U(sum[4]), U(sum[5]), U(sum[6]),
           U(sum[7]), U(sum[10]), U(sum[11]), U(sum[8]), U(sum[9]));
    printf("%llu passed, 0 failed\n", U(passed));
    return 0;
}
