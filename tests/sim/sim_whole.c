/* See whole.h.
 *
 *   sim_whole [--seeds N] [--seed S] [options, see seeds.h]      N seeds from S on, each twice: both must do the same
 *
 * A seed: hosts found a cluster by init and join; for a minute people use it while daemons are killed and stopped,
 * machines lose their power, one or many, processes are paused, clocks jump, disks hang, are full, fail, rot, are wiped or
 * put back, the network loses, repeats, delays and parts, nodes leave and join anew, programs are exchanged for newer and
 * older ones; then the faults end, everywhere or within a core that has a quorum, the last hosts are upgraded, and the
 * cluster must become what people asked for, and, when it is whole, write the newer format. They also promote and demote,
 * rotate all kinds of keys and tokens, lock the managers' disks and unlock them. */
#include <sodium.h> /* before our header, which renames what both declare */

#include "whole.h"

#include <stdarg.h>

struct sim g;
#ifdef CLUSTER_PLANTED
int cluster_bug;
#endif
static const char *const kinds[] = { KINDS(SEEDS_KIND_NAME) };
struct seeds_limit limits[LIMITS] = {
    [L_OPS] = { "--ops", "things that people do", 0, 0, 0 },
    [L_FAULTS] = { "--faults", "faults", 0, 0, 0 },
    [L_NODES] = { "--nodes", "hosts", 2, 0, 0 },
    [L_UNTIL] = { "--until", "ms until the faults end", 1, 0, 0 },
};

enum { CHAOS_MS = 60000, LOSS = 5, LEADER_S = 30, MASS_MS = 8000, OFF_MS = 29 * 60000 }; /* OFF_MS: certificates tolerate an hour between two clocks */
#define CALM_NS (90 * SEC_NS)

void mix(uint64_t v)
{
    g.hash = (g.hash ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    g.hash ^= g.hash >> 29;
}

static void show_log(enum log_level level, const char *module, const char *fmt, va_list ap)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };
    if (!is_verbose() || level > (getenv("SIM_DEBUG") ? LOG_DEBUG : LOG_INFO))
        return;
    printf("%8lld   %s %s %s: ", (long long)(g.now / MS), g.self ? g.self->name : "-", names[level], module);
    vprintf(fmt, ap);
    printf("\n");
}

/* The product's own, and the one of the files that see the simulated disk. */
void log_write(enum log_level level, const char *module, struct log_site *site, const char *fmt, ...)
{
    va_list ap;
    (void)site;
    va_start(ap, fmt);
    show_log(level, module, fmt, ap);
    va_end(ap);
}

void sim_log(enum log_level level, const char *module, struct log_site *site, const char *fmt, ...)
{
    va_list ap;
    (void)site;
    va_start(ap, fmt);
    show_log(level, module, fmt, ap);
    va_end(ap);
}

/* ---- randomness: libsodium's too comes from the seed ---- */
static const char *random_name(void)
{
    return "sim";
}

static uint32_t random_word(void)
{
    return (uint32_t)rng_u64(&g.rng[S_RANDOM]);
}

static void random_bytes(void *out, size_t size)
{
    rng_bytes(&g.rng[S_RANDOM], out, size);
}

/* ---- faults ---- */
static void wake(struct event *e)
{
    struct host *h = &g.hosts[e->a];
    if (h->life != e->b || !h->paused)
        return;
    h->paused = false;
    if (h->loop)
        net_wake(h);
}

static void heal_network(void)
{
    memset(g.blocked, 0, sizeof g.blocked);
    g.loss = has_kind(K_loss) ? LOSS : 0;
    g.slow = 0;
}

static void heal_event(struct event *e)
{
    (void)e;
    if (g.calm)
        return;
    say("the network heals");
    heal_network();
}

static void part_network(void)
{
    unsigned how = (unsigned)pick(S_FAULT, 0, 4), alone = (unsigned)pick(S_FAULT, 0, g.n_hosts - 1);
    uint64_t half = pick(S_FAULT, 1, (UINT64_C(1) << g.n_hosts) - 2);
    g.n_parts++;
    heal_network();
    if (how == 4) {
        g.loss = (unsigned)pick(S_FAULT, 20, 300);
        g.slow = some_ms(S_FAULT, 0, 60);
        say("the network loses %u permille, %lld ms slower", g.loss, (long long)(g.slow / MS));
    }
    for (unsigned i = 0; i < g.n_hosts && how < 4; i++)
        for (unsigned k = 0; k < g.n_hosts; k++)
            g.blocked[i][k] = i != k && (how == 0   ? i == alone || k == alone /* one host */
                                         : how == 1 ? i == alone              /* nothing of it is heard */
                                         : how == 2 ? (half >> i & 1) != (half >> k & 1)
                                                    : chance(S_FAULT, 250)); /* some links, one way */
    if (how < 4)
        say("the network parts: %s %s", how < 2 ? g.hosts[alone].name : "", how == 0 ? "alone" : how == 1 ? "is not heard" : how == 2 ? "in two" : "links");
    push(NULL, some_ms(S_FAULT, 100, 8000), heal_event, 0, 0);
}

/* More than a third of the nodes lose power together. That looks like a partition, and nobody is called down at once: the
 * product waits ten times as long. Some time of that is left to what else may happen. */
static void lose_many(void)
{
    bool up[HOSTS_MAX];
    unsigned lost[HOSTS_MAX], n = 0;
    const struct store *s = newest_store();
    int64_t back = some_ms(S_FAULT, MASS_MS, 25000);
    memset(up, true, sizeof up);
    for (unsigned tries = 0; s && tries < 2 * g.n_hosts && n * 3 <= store_count(s, TABLE_NODE); tries++) {
        unsigned i = (unsigned)pick(S_FAULT, 0, g.n_hosts - 1);
        const struct host *h = &g.hosts[i];
        if (!up[i] || !host_is_member(h) || h->paused || h->leaving)
            continue;
        up[i] = false;
        if (is_quorum(up))
            lost[n++] = i;
        else
            up[i] = true;
    }
    if (!s || store_count(s, TABLE_NODE) <= 3 || n < 2 || n * 3 <= store_count(s, TABLE_NODE))
        return;
    say("%u hosts lose power together", n);
    g.n_masses++;
    for (unsigned i = 0; i < n; i++) {
        struct host *h = &g.hosts[lost[i]];
        host_crash(h, true);
        h->held_until = g.now + MASS_MS * MS;
        host_restart(h, back);
    }
}

static enum kind some_fault(void)
{
    static const struct { enum kind kind; unsigned weight; } faults[] = {
        { K_part, 15 }, { K_kill, 15 }, { K_power, 10 }, { K_mass, 3 }, { K_pause, 12 }, { K_clock, 6 }, { K_hang, 6 }, { K_full, 6 },
        { K_sync, 4 }, { K_rot, 9 }, { K_stop, 4 }, { K_leave, 3 }, { K_wipe, 2 }, { K_restore, 5 },
    };
    unsigned n = (unsigned)pick(S_FAULT, 0, 99), i = 0;
    for (; n >= faults[i].weight; i++)
        n -= faults[i].weight;
    return faults[i].kind;
}

static void strike(struct host *h)
{
    enum kind kind = some_fault();
    if (!has_kind(kind) || !limit_take(&limits[L_FAULTS]))
        return;
    if (kind == K_part || kind == K_mass) {
        kind == K_part ? part_network() : lose_many();
        return;
    }
    if (!h->loop || h->paused || h->leaving)
        return;
    switch (kind) {
    case K_kill:
        host_crash(h, false);
        host_restart(h, some_ms(S_FAULT, 10, chance(S_FAULT, 700) ? 1500 : 12000));
        break;
    case K_power:
        host_crash(h, true);
        host_restart(h, some_ms(S_FAULT, 1000, 15000));
        break;
    case K_pause:
        h->paused = true;
        h->resume = g.now + some_ms(S_FAULT, 50, chance(S_FAULT, 700) ? 1000 : 8000);
        say("%s is paused for %lld ms", h->name, (long long)((h->resume - g.now) / MS));
        push(NULL, h->resume - g.now, wake, h->n, h->life);
        g.n_pauses++;
        break;
    case K_clock:
        h->wall = some_ms(S_FAULT, 0, 2 * OFF_MS) - OFF_MS * MS;
        say("the clock of %s jumps; it is %lld s off", h->name, (long long)(h->wall / SEC_NS));
        break;
    case K_hang:
        h->hang = g.now + some_ms(S_FAULT, 10, 3000);
        say("the disk of %s hangs", h->name);
        break;
    case K_full: host_fill_disk(h, some_ms(S_FAULT, 100, chance(S_FAULT, 700) ? 2000 : 15000)); break;
    case K_sync:
        h->harmed = true;
        say("the next fsync of %s fails", h->name);
        disk_fail_sync(chance(S_FAULT, 700) ? h->raft_disk : h->disk, true);
        break;
    case K_rot: host_rot(h); break;
    case K_wipe: host_wipe(h); break;
    case K_restore: host_put_back(h); break;
    case K_stop:
        if (h->d.manager)
            host_stop(h, some_ms(S_FAULT, 10, 3000));
        break;
    default:
        if (host_is_member(h) && !g.rotten)
            host_leave_cluster(h);
    }
}

/* The cluster is upgraded host by host: for a while some go back, then none. Those that are too old for what is
 * written by now do not start. */
static void upgrade(struct event *e)
{
    struct host *h = &g.hosts[pick(S_FAULT, 0, g.n_hosts - 1)];
    bool back = g.now < g.back_until;
    for (unsigned i = 0; (g.calm || !back) && i < g.n_hosts; i++)
        if (g.hosts[i].loop && !g.hosts[i].out && g.hosts[i].format < FORMATS)
            h = &g.hosts[i];
    if (g.ending)
        return;
    if (h->loop && !h->paused && !h->out && !h->leaving && (h->format < FORMATS || (!g.calm && chance(S_FAULT, back ? 500 : 200))))
        host_exchange(h, h->format < FORMATS ? FORMATS : 1);
    push(NULL, some_ms(S_FAULT, 500, 8000), e->fn, 0, 0);
}

static void nemesis(struct event *e)
{
    if (g.calm)
        return;
    strike(&g.hosts[pick(S_FAULT, 0, g.n_hosts - 1)]);
    push(NULL, some_ms(S_FAULT, 50, 6000), e->fn, 0, 0);
}

/* ---- the end of the faults ---- */
/* A host outside of the core is dead, with or without its machine, cut off, or hears and is not heard. */
static void put_out(struct host *h)
{
    unsigned how = (unsigned)pick(S_FAULT, 0, 3);
    h->out = true;
    say("%s is out: %s", h->name, how == 0 || !h->loop ? "dead" : how == 1 ? "without power" : how == 2 ? "cut off" : "not heard");
    if (how < 2)
        host_crash(h, how == 1);
    h->paused = false;
    for (unsigned i = 0; i < g.n_hosts; i++) {
        g.blocked[h->n][i] = how >= 2 && !g.hosts[i].out;
        g.blocked[i][h->n] = how == 2 && !g.hosts[i].out;
    }
}

/* In a share of seeds faults end only within a core that has a quorum of the managers: what heals everywhere heals what
 * keeps a quorum from going on. */
static void choose_core(void)
{
    bool in[HOSTS_MAX] = { false };
    memset(in, true, sizeof in);
    if (!has_kind(K_core) || chance(S_FAULT, 500))
        return;
    for (uint64_t n = pick(S_FAULT, 1, g.n_hosts); n; n--) {
        unsigned i = (unsigned)pick(S_FAULT, 0, g.n_hosts - 1);
        in[i] = false;
        in[i] = !is_quorum(in);
    }
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (!in[i])
            put_out(&g.hosts[i]);
    for (unsigned i = 0; i < g.n_hosts; i++)
        g.n_out += g.hosts[i].out;
    g.n_cores += g.n_out > 0;
}

static void heal_host(struct host *h)
{
    h->paused = false;
    h->held_until = 0; /* many come back, so those that do not are few */
    disk_set_full(h->disk, false);
    disk_set_full(h->raft_disk, false);
    disk_fail_sync(h->disk, false);
    disk_fail_sync(h->raft_disk, false);
    if (h->loop)
        net_wake(h);
    else if (!h->out)
        host_restart(h, some_ms(S_FAULT, 0, 1000));
}

static void must_lead(struct event *e)
{
    (void)e;
    CHECK(some_leader(), "nobody leads %d s after the faults ended", LEADER_S);
}

static void last_write(struct event *e)
{
    (void)e;
    users_last_write();
}

/* ---- one seed ---- */
static unsigned log_pick(unsigned lo, unsigned hi) /* each order of size as likely as the next */
{
    while (hi > 2 * lo && chance(S_FAULT, 500))
        hi = lo + (hi - lo) / 3;
    return (unsigned)pick(S_FAULT, lo, hi);
}

/* Snapshots by number, size or age within what a seed writes; who lags a little gets one from its leader. */
static struct raft_config small_limits(void)
{
    return (struct raft_config){ .snapshot_after_entries = log_pick(10, 400), .snapshot_after_bytes = log_pick(4 << 10, 1 << 20),
                                 .snapshot_after_ms = log_pick(500, 100000), .trailing_entries = log_pick(1, 200),
                                 .segment_bytes = log_pick(4 << 10, 256 << 10), .snapshot_chunk_bytes = log_pick(256, 64 << 10),
                                 .promote_lag = log_pick(16, 256) };
}

static void nothing(void *arg, int result, const struct err *e)
{
    (void)arg, (void)result, (void)e;
}

/* All nodes take tasks, those that nobody is any more are removed. */
static void tidy(struct event *e)
{
    struct host *h = some_leader();
    if (g.ending)
        return;
    push(NULL, 5 * SEC_NS, e->fn, 0, 0);
    for (unsigned i = 0; i < g.n_hosts && h; i++)
        if (host_is_removed(&g.hosts[i]) && g.hosts[i].loop && !g.hosts[i].out) {
            host_crash(&g.hosts[i], false);
            host_restart(&g.hosts[i], 0);
        }
    if (!h)
        return;
    enter(h);
    const struct store *s = manager_store(h->d.manager);
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));) {
        struct node_spec spec = { 0 };
        AUTO_FREE char *id = xstrdup(n->id);
        bool ours = false;
        for (unsigned i = 0; i < g.n_hosts; i++)
            ours |= str_equal(g.hosts[i].node_id, n->id);
        node_spec_copy(&spec, &n->spec);
        spec.availability = AVAIL_ACTIVE;
        if (!ours)
            control_node_remove(h->d.manager, id, true, nothing, NULL);
        else if (n->spec.availability != AVAIL_ACTIVE)
            control_node_update(h->d.manager, id, n->version.index, &spec, nothing, NULL);
        node_spec_clear(&spec);
    }
    leave(h);
}

static uint64_t run_seed(uint64_t seed)
{
    memset(&g, 0, sizeof g);
    g.queue.size = sizeof(struct event);
    g.now = 1000 * SEC_NS;
    heal_network();
    for (unsigned i = 0; i < STREAMS; i++)
        rng_init(&g.rng[i], seed * STREAMS + i);
    format_most = FORMATS;
    if (has_kind(K_compact))
        g.raft = small_limits();
    hosts_found((unsigned)limit_cut(&limits[L_NODES], pick(S_FAULT, 3, 6)), (unsigned)pick(S_FAULT, 0, 1));
    say("all are in");
    checks_start();
    users_start();
    clients_start();
    struct event *e = push(NULL, some_ms(S_FAULT, 0, 3000), nemesis, 0, 0);
    (void)e;
    g.back_until = g.now + some_ms(S_FAULT, 0, 60000);
    push(NULL, some_ms(S_FAULT, 0, 5000), upgrade, 0, 0);
    run_until(g.now + (int64_t)limit_cut(&limits[L_UNTIL], CHAOS_MS) * MS);
    say("calm");
    g.calm = true;
    heal_network();
    choose_core();
    for (unsigned i = 0; i < g.n_hosts; i++)
        heal_host(&g.hosts[i]);
    push(NULL, 10 * SEC_NS, tidy, 0, 0);
    push(NULL, LEADER_S * SEC_NS, must_lead, 0, 0);
    push(NULL, CALM_NS - 5 * SEC_NS, last_write, 0, 0);
    run_until(g.now + CALM_NS);
    g.ending = true;
    run_until(g.now + 20 * SEC_NS);
    checks_end();
    mix(g.queue.seq);
    if (is_verbose())
        printf("seed %llu: %llu events, %u messages, %u leaders, %u kills, %u power cuts, %u pauses, %u partitions, %u full, %u failed and "
               "%u rotten disks, %u wiped, %u put back, %u unlocked, %u programs exchanged, %u too old, %u acknowledged, %u refused, %u reads, %u of %u operations answered, %u "
               "snapshots, %u installed, %u containers, state %016llx\n", U(seed), U(g.events), g.n_messages, g.n_leaders, g.n_kills, g.n_powers, g.n_pauses, g.n_parts, g.n_full,
               g.n_aborts, g.n_rotten, g.n_wiped, g.n_put_back, g.n_unlocked, g.n_exchanged, g.n_too_old, g.n_acked, g.n_refused, g.n_reads, g.n_answers, g.n_ops, g.n_snapshots,
               g.n_installs, g.n_boxes, U(g.hash));
    hosts_free();
    users_free();
    clients_free();
    checks_free();
    g.checks = NULL;
    net_free();
    loop_done();
    return g.hash;
}

static int64_t now_ms(void)
{
    return g.now / MS;
}

static void where(void)
{
    printf(", event %llu", U(g.events));
}

static struct { uint64_t events, leaders, kills, powers, aborts, rotten, wiped, put_back, unlocked, acked, reads, answers, snapshots, installs, cores, masses, boxes; } sums;

static void sum(void)
{
    sums.events += g.events;
    sums.leaders += g.n_leaders;
    sums.kills += g.n_kills;
    sums.powers += g.n_powers;
    sums.aborts += g.n_aborts;
    sums.rotten += g.n_rotten;
    sums.wiped += g.n_wiped;
    sums.put_back += g.n_put_back;
    sums.unlocked += g.n_unlocked;
    sums.acked += g.n_acked;
    sums.reads += g.n_reads;
    sums.answers += g.n_answers;
    sums.snapshots += g.n_snapshots;
    sums.installs += g.n_installs;
    sums.cores += g.n_cores;
    sums.masses += g.n_masses;
    sums.boxes += g.n_boxes;
}

static void figures(void)
{
    printf("%llu events, %llu leaders, %llu kills, %llu power cuts, %llu failed and %llu rotten disks, %llu wiped, %llu put back, %llu unlocked, %llu writes "
           "acknowledged, %llu reads, %llu operations in histories, %llu snapshots, %llu installed, %llu seeds with a core, "
           "%llu mass losses, %llu containers\n",
           U(sums.events), U(sums.leaders), U(sums.kills), U(sums.powers), U(sums.aborts), U(sums.rotten), U(sums.wiped), U(sums.put_back), U(sums.unlocked), U(sums.acked), U(sums.reads), U(sums.answers),
           U(sums.snapshots), U(sums.installs), U(sums.cores), U(sums.masses), U(sums.boxes));
}

int main(int argc, char **argv)
{
    static struct seeds s = { .program = "sim_whole", .kinds = kinds, .n_kinds = ARRAY_N(kinds), .limits = limits,
                              .n_limits = ARRAY_N(limits), .n = 2, .run = run_seed, .now_ms = now_ms, .where = where, .sum = sum,
                              .figures = figures };
    static struct randombytes_implementation from_seed = { .implementation_name = random_name, .random = random_word, .buf = random_bytes };
#ifdef CLUSTER_PLANTED
    s.bug = &cluster_bug;
#endif
    if (!seeds_parse(&s, argc, argv))
        return 2;
    rng_init(&g.rng[S_RANDOM], 1);
    randombytes_set_implementation(&from_seed);
    crypto_init();
    return seeds_run();
}
