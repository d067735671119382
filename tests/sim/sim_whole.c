/* See whole.h.
 *
 *   sim_whole [--seeds N] [--seed S] [--once] [--verbose]      N seeds from S on, each twice: both must do the same
 *
 * A seed: hosts found a cluster by init and join; for a minute people use it while daemons are killed and stopped,
 * machines lose their power, processes are paused, clocks jump, disks hang, the network loses, repeats, delays and
 * parts, nodes leave and join anew; then the faults end and the cluster must become what people asked for. */
#include <sodium.h> /* before our header, which renames what both declare */

#include "whole.h"

#include <signal.h>
#include <stdarg.h>

struct sim g;
#ifdef CLUSTER_PLANTED
int cluster_bug;
#endif
static uint64_t n_passed;

#define CHAOS_NS (60 * SEC_NS)
#define CALM_NS (90 * SEC_NS)

void fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("seed %llu, event %llu, %lld ms: ", U(g.seed), U(g.events), (long long)(g.now / MS));
    vprintf(fmt, ap);
    va_end(ap);
    printf("\nreplay: sim_whole --seed %llu --verbose\n%llu passed, 1 failed\n", U(g.seed), U(n_passed));
    fflush(stdout);
    _exit(1);
}

static void on_abort(int sig)
{
    fail("signal %d", sig);
}

void say(const char *fmt, ...)
{
    va_list ap;
    if (!g.verbose)
        return;
    va_start(ap, fmt);
    printf("%8lld ", (long long)(g.now / MS));
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

void mix(uint64_t v)
{
    g.hash = (g.hash ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    g.hash ^= g.hash >> 29;
}

static void show_log(enum log_level level, const char *module, const char *fmt, va_list ap)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };
    if (!g.verbose || level > (getenv("SIM_DEBUG") ? LOG_DEBUG : LOG_INFO))
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
    g.loss = 5;
    g.slow = 0;
}

static void heal_event(struct event *e)
{
    (void)e;
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

static void strike(struct host *h)
{
    unsigned what = (unsigned)pick(S_FAULT, 0, 99);
    if (what < 20) {
        part_network();
        return;
    }
    if (!h->loop || h->paused || h->leaving)
        return;
    if (what < 45) {
        host_crash(h, false);
        host_restart(h, some_ms(S_FAULT, 10, chance(S_FAULT, 700) ? 1500 : 12000));
    } else if (what < 58) {
        host_crash(h, true);
        host_restart(h, some_ms(S_FAULT, 1000, 15000));
    } else if (what < 75) {
        h->paused = true;
        h->resume = g.now + some_ms(S_FAULT, 50, chance(S_FAULT, 700) ? 1000 : 8000);
        say("%s is paused for %lld ms", h->name, (long long)((h->resume - g.now) / MS));
        push(NULL, h->resume - g.now, wake, h->n, h->life);
        g.n_pauses++;
    } else if (what < 82) {
        h->wall += some_ms(S_FAULT, 0, 20000) - 10 * SEC_NS;
        say("the clock of %s jumps", h->name);
    } else if (what < 90) {
        h->hang = g.now + some_ms(S_FAULT, 10, 3000);
        say("the disk of %s hangs", h->name);
    } else if (what < 95 && h->d.manager) {
        host_stop(h, some_ms(S_FAULT, 10, 3000));
    } else if (what >= 95 && host_is_member(h)) {
        host_leave_cluster(h);
    }
}

static void nemesis(struct event *e)
{
    if (g.calm)
        return;
    strike(&g.hosts[pick(S_FAULT, 0, g.n_hosts - 1)]);
    push(NULL, some_ms(S_FAULT, 50, 6000), e->fn, 0, 0);
}

/* ---- one seed ---- */
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
        if (host_is_removed(&g.hosts[i]) && g.hosts[i].loop) {
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

static uint64_t run_seed(uint64_t seed, bool verbose)
{
    memset(&g, 0, sizeof g);
    g.seed = seed;
    g.verbose = verbose;
    g.now = 1000 * SEC_NS;
    g.loss = 5;
    for (unsigned i = 0; i < STREAMS; i++)
        rng_init(&g.rng[i], seed * STREAMS + i);
    hosts_found((unsigned)pick(S_FAULT, 3, 6), (unsigned)pick(S_FAULT, 0, 1));
    say("all are in");
    checks_start();
    users_start();
    struct event *e = push(NULL, some_ms(S_FAULT, 0, 3000), nemesis, 0, 0);
    (void)e;
    run_until(g.now + CHAOS_NS);
    say("calm");
    g.calm = true;
    heal_network();
    for (unsigned i = 0; i < g.n_hosts; i++) {
        g.hosts[i].paused = false;
        if (g.hosts[i].loop)
            net_wake(&g.hosts[i]);
        else
            host_restart(&g.hosts[i], some_ms(S_FAULT, 0, 1000));
    }
    push(NULL, 10 * SEC_NS, tidy, 0, 0);
    run_until(g.now + CALM_NS);
    g.ending = true;
    run_until(g.now + 20 * SEC_NS);
    checks_end();
    mix(g.seq);
    if (verbose)
        printf("seed %llu: %llu events, %u messages, %u leaders, %u kills, %u power cuts, %u pauses, %u partitions, %u acknowledged, "
               "%u refused, %u reads, %u containers, state %016llx\n", U(seed), U(g.events), g.n_messages, g.n_leaders, g.n_kills,
               g.n_powers, g.n_pauses, g.n_parts, g.n_acked, g.n_refused, g.n_reads, g.n_boxes, U(g.hash));
    hosts_free();
    users_free();
    checks_free();
    g.checks = NULL;
    net_free();
    queue_free();
    return g.hash;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 0, first = 1, events = 0, acked = 0, reads = 0, leaders = 0, kills = 0, powers = 0, boxes = 0;
    bool one = false, verbose = false, once = false;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (more && str_equal(argv[i], "--seeds") && str_u64(argv[i + 1], 1, UINT32_MAX, &seeds)) {
            i++;
        } else if (more && str_equal(argv[i], "--seed") && str_u64(argv[i + 1], 0, UINT64_MAX, &first)) {
            one = true;
            i++;
        } else if (str_equal(argv[i], "--verbose")) {
            verbose = true;
        } else if (str_equal(argv[i], "--once") || str_equal(argv[i], "--no-shrink")) { /* it never shrinks */
            once |= argv[i][2] == 'o';
#ifdef CLUSTER_PLANTED
        } else if (more && str_equal(argv[i], "--bug")) {
            cluster_bug = (int)strtol(argv[++i], NULL, 10);
#endif
        } else {
            fprintf(stderr, "usage: sim_whole [--seeds N] [--seed S] [--once] [--verbose]\n");
            return 2;
        }
    }
    static struct randombytes_implementation from_seed = { .implementation_name = random_name, .random = random_word, .buf = random_bytes };
    rng_init(&g.rng[S_RANDOM], 1);
    randombytes_set_implementation(&from_seed);
    crypto_init();
    signal(SIGABRT, on_abort);
    if (!seeds)
        seeds = one ? 1 : 2;
    for (uint64_t i = 0; i < seeds; i++) {
        uint64_t hash = run_seed(first + i, verbose);
        if (!once && run_seed(first + i, false) != hash)
            fail("two runs of one seed differ");
        n_passed++;
        events += g.events;
        acked += g.n_acked;
        reads += g.n_reads;
        leaders += g.n_leaders;
        kills += g.n_kills;
        powers += g.n_powers;
        boxes += g.n_boxes;
    }
    printf("%llu events, %llu leaders, %llu kills, %llu power cuts, %llu writes acknowledged, %llu reads, %llu containers\n", U(events),
           U(leaders), U(kills), U(powers), U(acked), U(reads), U(boxes));
    printf("%llu passed, 0 failed\n", U(seeds));
    return 0;
}
