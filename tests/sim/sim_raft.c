/* Deterministic simulation of Raft; sim_raft.h says what is simulated, seeds.h what the options are. Also --hours H.
 *
 * A seed has a safety phase of faults, then a liveness phase: a majority is chosen, healed and connected, everything
 * else stays as broken as it is; it must elect, commit all that it accepts, serve reads and answer everybody. In some
 * seeds the rest gets well as well, and must catch up. Some then lose all but one manager and recover. Built as sim_raft_planted it has --bug K (tests/sim/planted). */
#include "sim_raft.h"

#include <stdarg.h>
#include <time.h>

static const char *const fault_names[FAULTS_N] = {
#define X(name, text) [F_##name] = #text,
    FAULTS(X)
#undef X
};

struct sim g;
struct seeds_limit limits[LIMITS_N] = {
    [L_OPS] = {"--ops", "most operations of clients in the safety phase", .least = 0},
    [L_NODES] = {"--nodes", "most founders", .least = 1},
    [L_UNTIL] = {"--until", "end of the safety phase, ms", .least = 1},
};
#ifdef RAFT_PLANTED
int raft_bug;
#endif

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

void sim_log(enum log_level level, const char *module, struct log_site *site, const char *fmt, ...)
{
    if (!is_verbose() || level > LOG_INFO)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("%8lld node %u: ", (long long)g.now_us / 1000, SLOT(g.self));
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
        [F_ROT] = 800, [F_WIPE] = 60, [F_MEMBERS] = 500, [F_TRANSFER] = 500, [F_CHURN] = 500, [F_RECOVER] = 500, [F_REKEY] = 200,
        [F_RESTORE] = 999, [F_IMPOSTOR] = 100,
    };
    static const unsigned odds[FAULTS_N] = {[F_ROT] = 300, [F_WIPE] = 250, [F_SYNC] = 150, [F_FULL] = 300, [F_HANG] = 250,
                                            [F_RECOVER] = 150, [F_CLOCK] = 300, [F_LATE] = 300, [F_CHURN] = 350,
                                            [F_RESTORE] = 400, [F_IMPOSTOR] = 150};
    struct options *o = &g.o;
    for (unsigned i = 0; i < FAULTS_N; i++) {
        o->on[i] = chance(S_OPTIONS, odds[i] ? odds[i] : 500);
        o->rate[i] = log_pick(1, most[i]);
        o->on[i] &= has_kind(i);
    }
    static const unsigned sizes[2][8] = {{1, 2, 3, 3, 3, 3, 5, 5}, {1, 2, 3, 3, 4, 4, 4, 5}}; /* changes are hardest where they are even */
    o->voters = (unsigned)limit_cut(&limits[L_NODES], sizes[o->on[F_MEMBERS]][pick(S_OPTIONS, 0, 7)]);
    unsigned more = (unsigned)pick(S_OPTIONS, 1, 2);
    o->n = o->on[F_MEMBERS] ? MIN(o->voters + more, (unsigned)NODES_MAX) : o->voters;
    o->delay_us = log_pick(300, 15000);
    o->disk_us = log_pick(300, 15000);
    o->client_us = log_pick(5000, 60000);
    o->writes = (unsigned)pick(S_OPTIONS, 300, 950);
    o->size = log_pick(1, 1000);
    o->sealed = chance(S_OPTIONS, 200);
    o->end_us = (int64_t)limit_cut(&limits[L_UNTIL], pick(S_OPTIONS, 2000, 8000)) * 1000;
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

/* Every configuration that may yet be the one in force: the committed one, and what any log holds beyond it. */
static unsigned configurations(const struct raft_configuration *ret[NODES_MAX + 1])
{
    unsigned count = 0;
    if (g.config)
        ret[count++] = g.config;
    for (unsigned i = 0; i < g.o.n; i++) {
        const struct node *n = &g.nodes[i];
        struct raft_status s = {.last = n->lost ? 0 : n->shadow.last};
        if (n->up)
            raft_get_status(n->core, &s);
        for (uint64_t k = s.last; k > g.commit; k--) { /* a log holds one such at most, a lonely survivor's two */
            const struct raft_entry *e = n->up ? raft_peek(n->core, k) : NULL;
            const struct raft_configuration *c = e || !n->up ? config_in(k, e ? e->term : n->shadow.term_at[k]) : NULL;
            if (c && count <= NODES_MAX) {
                ret[count++] = c;
                break;
            }
        }
    }
    return count;
}

/* The part that gets well: a bare majority of whole disks in the committed configuration, and in each that a change under
 * way may put in its place, for nobody knows yet which of them will count. */
static void choose_inside(void)
{
    const struct raft_configuration *c[NODES_MAX + 1];
    unsigned count = configurations(c), first = (unsigned)pick(S_FAULT, 0, g.o.n - 1);
    uint32_t need[NODES_MAX + 1];
    for (unsigned k = 0; k < count; k++)
        need[k] = c[k]->n_voters / 2 + 1;
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[(first + i) % g.o.n];
        n->inside = !n->lost && !count; /* nothing is known yet */
        for (unsigned k = 0; k < count; k++) {
            const struct raft_config_member *m = raft_configuration_find(c[k], n->id);
            n->inside |= !n->lost && m && m->voter && need[k];
        }
        for (unsigned k = 0; k < count && n->inside; k++) {
            const struct raft_config_member *m = raft_configuration_find(c[k], n->id);
            need[k] -= m && m->voter && need[k] && is_whole(n);
        }
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

/* The time the backlog takes with the smallest of windows; where the leader is outside and what it sends is lost or late,
 * for each entry also the time after which it sends again, and an answer on its way. */
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
    bool slow = leader && !leader->inside && (g.o.on[F_LOSS] || g.o.on[F_REORDER] || g.o.on[F_CLOG] || g.o.on[F_SLOW] || g.o.on[F_LATE]);
    int64_t again_us = slow ? 3000 * (int64_t)g.o.cfg.election_min_ms : 0;
    return (int64_t)(last - g.commit) * (4 * g.o.delay_us + 4 * g.o.disk_us + again_us);
}

/* Elects within 10 of the longest election timeouts and the time their disks take. */
static void must_elect(void)
{
    int64_t limit = g.now_us + 10 * 2 * (int64_t)g.o.cfg.patience_max_ms * 1000 + 1000000;
    while (g.now_us < limit && !is_led())
        run_until(g.now_us + 20000);
    if (!is_led())
        stuck("no leader after 10 election timeouts without faults inside a majority");
}

static void must_serve(int64_t limit)
{
    unsigned acked = g.n.acked, reads = g.n.reads;
    while (g.now_us < limit && (g.n.acked < acked + 3 || g.n.reads == reads))
        run_until(g.now_us + 50000);
    if (g.now_us >= limit)
        stuck("a healthy majority does not serve clients within 12 s");
}

static void must_spread(int64_t limit)
{
    uint64_t promised = g.commit;
    while (g.now_us < limit && !is_everywhere(promised))
        run_until(g.now_us + 50000);
    if (g.now_us >= limit)
        stuck("what is committed is not applied everywhere within 12 s");
}

/* Who stands still cannot answer; who is cut off gives up what it cannot do. A read that was confirmed waits for what it
 * is to show, and that for the disk. */
static bool has_answered_all(void)
{
    for (unsigned i = 0; i < g.o.n; i++) {
        const struct node *n = &g.nodes[i];
        if (n->up && !n->paused && n->n_ops > (n->hang_us > g.now_us ? n->n_reads : 0))
            return false;
    }
    return true;
}

/* Of what they have applied, a snapshot holds all but what needs none yet. */
static bool has_cut_logs(void)
{
    for (unsigned i = 0; i < g.o.n; i++) {
        struct raft_status s = {0};
        if (g.nodes[i].inside && g.nodes[i].up)
            raft_node_status(g.nodes[i].raft, &s);
        if (s.leader && s.applied - s.snapshot > g.o.cfg.snapshot_after_entries)
            return false;
    }
    return true;
}

static void must_answer(int64_t limit)
{
    g.quiet = true;
    while (g.now_us < limit && !has_answered_all())
        run_until(g.now_us + 50000);
    if (!has_answered_all())
        stuck("what was accepted is neither committed nor given up within 12 s");
    while (g.now_us < limit && !has_cut_logs())
        run_until(g.now_us + 50000);
    if (!has_cut_logs())
        stuck("a log grows on without a snapshot");
    g.quiet = false;
}

static int64_t some_time(void)
{
    return g.now_us + 12 * 1000000 + 10 * (int64_t)g.o.cfg.patience_max_ms * 1000 + backlog_us();
}

static void liveness(void)
{
    choose_inside();
    heal_inside();
    say("calm");
    must_elect();
    int64_t limit = some_time();
    must_serve(limit);
    for (unsigned i = 0; i < 300 && g.o.on[F_RESTORE] && !put_back(&g.nodes[i % g.o.n]); i++) /* with a leader that stays */
        run_until(g.now_us + 1000);
    must_spread(limit);
    bool too_slow = backlog_us() > 30 * 1000000; /* under this leader */
    if (!too_slow)
        must_answer(some_time());
    if (!chance(S_FAULT, 300) && !too_slow)
        return;
    for (unsigned i = 0; i < g.o.n; i++)
        g.nodes[i].inside = !g.nodes[i].lost;
    heal_inside();
    say("all are well");
    must_elect();
    limit = some_time();
    must_serve(limit);
    must_spread(limit);
    must_answer(some_time());
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
    unsigned acked = g.n.acked;
    for (int64_t limit = g.now_us + 8 * 1000000; g.n.acked < acked + 3;) {
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

static uint64_t n_events; /* of all runs */

static uint64_t run_seed(uint64_t seed)
{
    memset(&g, 0, sizeof(g));
    g.seed = seed;
    g.hash = UINT64_C(0xcbf29ce484222325);
    for (unsigned i = 0; i < STREAMS; i++)
        rng_init(&g.rng[i], seed * STREAMS + i);
    options();
    if (is_verbose())
        print_options();
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
    n_events += g.events;
    tear_down();
    return hash;
}

static int64_t now_ms(void)
{
    return g.now_us / 1000;
}

static void where(void)
{
    printf(", event %llu", U(g.events));
}

/* ---- all seeds ---- */

static struct counts sums;
static time_t end;

static void sum(void)
{
#define X(name, text) sums.name += g.n.name;
    COUNTS(X)
#undef X
}

static bool is_over(void)
{
    return end && time(NULL) >= end;
}

static void figures(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    printf("%llu events, %.2f million a second of CPU", U(n_events),
           (double)n_events / 1e6 / ((double)used.tv_sec + (double)used.tv_nsec / 1e9));
    const char *separator = "; ";
#define X(name, text) printf("%s%llu " text, separator, U(sums.name)), separator = ", ";
    COUNTS(X)
#undef X
    printf("\n");
}

static bool parse_own(const char *name, const char *value)
{
    uint64_t hours = 0;
    if (!str_equal(name, "--hours") || !str_u64(value, 1, 10000, &hours))
        return false;
    end = time(NULL) + (time_t)hours * 3600;
    return true;
}

int main(int argc, char **argv)
{
    static struct seeds s = {.program = "sim_raft", .kinds = fault_names, .n_kinds = FAULTS_N, .limits = limits,
                             .n_limits = LIMITS_N, .n = 300, .run = run_seed, .now_ms = now_ms, .where = where, .sum = sum,
                             .figures = figures, .own = parse_own, .own_usage = " [--hours H]", .is_over = is_over};
#ifdef RAFT_PLANTED
    s.bug = &raft_bug;
#endif
    if (!seeds_parse(&s, argc, argv))
        return 2;
    crypto_init();
    return seeds_run();
}
