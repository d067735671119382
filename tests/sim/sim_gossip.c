/* Gossip of many nodes in virtual time: the production core in a world that goes wrong (gossip_world.c). One seed, one
 * story, told twice to the same end (seeds.h). --measure N prints what a cluster of N nodes costs and how fast it notices;
 * --hours H --nodes N counts wrong verdicts at 10 % loss. Built as sim_gossip_planted it has --bug K, to show that it finds
 * each bug planted in the core (tests/sim/planted). */
#include "gossip_world.h"
#include <shoal/base/crypto.h>
#include <stdio.h>
#include <time.h>

enum { DOWN_MS = 2000 };

/* Chapters of the story that may be left out, and what happens in the background. */
#define KINDS(X) X(quiet) X(liar) X(death) X(restart) X(move) X(paths) X(isolation) X(masses) X(partition) X(chaos) \
    X(goodbye) X(loss) X(copies) X(budget)
enum kind { KINDS(SEEDS_KIND) };
static const char *const kinds[] = { KINDS(SEEDS_KIND_NAME) };
enum { L_FAULTS, L_NODES };
static struct seeds_limit limits[] = {
    [L_FAULTS] = { "--faults", "faults while everything goes wrong", 0, 0, 0 },
    [L_NODES] = { "--nodes", "nodes", 3, 0, 0 },
};
static unsigned cut_a, cut_b, cut_to; /* see pair_cut() */

static bool until(int64_t limit_ms, bool (*ok)(unsigned who), unsigned who)
{
    for (int64_t end = w.now + limit_ms; w.now < end; world_run(w.n > 100 ? 200 : 20))
        if (ok(who))
            return true;
    return ok(who);
}

static bool is_suspect(unsigned who) { return world_count(who, GOSSIP_SUSPECT) == world_up() - w.v[who].up; }
static bool is_alive(unsigned who) { return world_count(who, GOSSIP_ALIVE) == world_up() - w.v[who].up; }
static bool is_left(unsigned who) { return world_count(who, GOSSIP_LEFT) == world_up() - w.v[who].up; }
static bool is_out(unsigned who) { return world_count(who, GOSSIP_DEAD) == world_up() - w.v[who].up; }

/* Every running node holds the same facts of all, and sees all that run as alive and all that do not as suspect. */
static bool is_settled(unsigned ignored)
{
    const struct gossip_core *first = NULL;
    (void)ignored;
    for (unsigned i = 0; i < w.n; i++) {
        if (!w.v[i].up)
            continue;
        const struct gossip_core *g = &w.v[i].g;
        if (first && memcmp(first->buckets, g->buckets, sizeof g->buckets) != 0)
            return false;
        first = g;
        for (unsigned k = 0; k < w.n; k++)
            if (i != k && world_sees(i, k) != (w.v[k].up ? GOSSIP_ALIVE : world_sees(i, k) == GOSSIP_DEAD ? GOSSIP_DEAD : GOSSIP_SUSPECT))
                return false;
    }
    return true;
}

/* For the reader of a failure: what differs. */
static void not_settled(void)
{
    for (unsigned i = 0, lines = 0; i < w.n && lines < 20; i++)
        for (unsigned k = 0; w.v[i].up && k < w.n && lines < 20; k++) {
            const struct alerts *a = i == k ? NULL : alerts_of(&w.v[i].g, k);
            if (i == k || (world_sees(i, k) == GOSSIP_ALIVE && w.v[k].up && !a && incarnation_of(&w.v[i].g, k) == w.v[k].g.incarnation))
                continue;
            printf("node %u: n%u is %s, runs %d, incarnation %llu, own %llu, %u alerts\n", i, k, gossip_state_text(world_sees(i, k)), w.v[k].up,
                   (unsigned long long)incarnation_of(&w.v[i].g, k), (unsigned long long)w.v[k].g.incarnation, a ? a->n : 0);
            lines++;
        }
}

static bool is_known(unsigned ignored) /* everybody has heard everybody */
{
    static unsigned first; /* who did not know all at the last look is asked first: there are n * n to ask */
    (void)ignored;
    for (unsigned m = 0; m < w.n; m++) {
        unsigned i = (first + m) % w.n;
        for (unsigned k = 0; w.v[i].up && k < w.n; k++)
            if (w.v[k].up && !w.v[i].g.views[k].statement) {
                first = i;
                return false;
            }
    }
    return true;
}

static void nobody_down(void)
{
    for (unsigned i = 0; i < w.n; i++)
        for (unsigned k = 0; w.v[i].up && k < w.n; k++) {
            int64_t since = w.v[i].suspect_since[k];
            if (w.v[k].up && since && w.now - since >= DOWN_MS)
                fail("node %u runs, and node %u has it for suspect for %lld ms", k, i, (long long)(w.now - since));
        }
    if (world_false_downs)
        fail("a running node was suspect for too long");
}

static unsigned some(void)
{
    return (unsigned)rng_below(&w.rng, w.n);
}

/* ---- chapters ---- */
static void quiet(void)
{
    world_stage("10 % are lost and all is well");
    w.loss = (unsigned)rng_below(&w.rng, 101);
    for (int i = 0; i < 40; i++) {
        world_run(250);
        nobody_down();
    }
}

/* One member lies: it accuses everybody in its own name, which it may, and in the names of others, which it cannot. */
static void liar(void)
{
    unsigned by = some(), about = (by + 1 + (unsigned)rng_below(&w.rng, w.n - 1)) % w.n;
    world_stage("one node lies");
    w.loss = 20;
    for (unsigned i = 0; i < 2 * w.n; i++) {
        struct out_packet o;
        struct gossip_core *g = &w.v[by].g;
        unsigned name = i % w.n;
        struct gossip_fact *f = gossip_fact_make(g, FACT_ALERT, about, incarnation_of(g, about)), forged = *f;
        gossip_fact_unref(g->t, f);
        forged.signer = name;
        if (name != by)
            put_be(forged.signature + 20, name, 8);
        packet_begin(g, &o, KIND_FACTS, 0);
        packet_fact(g, &o, &forged);
        for (unsigned k = 0; k < w.n; k++)
            if (k != by && k != about)
                world_send(by, k, o.v, o.n);
        world_run(10);
        for (unsigned k = 0; k < w.n; k++) /* the liar itself believes what it likes */
            if (k != about && k != by && world_sees(k, about) != GOSSIP_ALIVE)
                fail("one liar made node %u have %u for suspect", k, about);
    }
}

static void death(void)
{
    unsigned who = some();
    world_stage("one dies");
    uint64_t was = w.v[who].g.incarnation;
    world_stop(who);
    if (!until(4000, is_suspect, who))
        fail("node %u is dead, and only %u of %u say so after 4 s", who, world_count(who, GOSSIP_SUSPECT), world_up());
    world_stage("one comes back");
    world_start(who, rng_chance(&w.rng, 300) ? was - MIN(was, 1) : was + 1000); /* or with a clock that went back */
    if (!until(8000, is_alive, who))
        fail("node %u is back, and only %u say so after 8 s", who, world_count(who, GOSSIP_ALIVE));
    if (!until(8000, is_settled, 0))
        fail("not all see the same 8 s after node %u came back", who);
}

/* Who judges asks the machine of a suspect node, and does not take old answers for new ones. */
static void ask(unsigned who, int times)
{
    for (; times > 0; times--) {
        for (unsigned i = 0; i < w.n; i++)
            if (w.v[i].up)
                gossip_core_ask(&w.v[i].g, who);
        world_run(500);
    }
}

static void restart(void)
{
    unsigned who = some(), old = w.old;
    uint64_t was = w.v[who].g.incarnation;
    world_stage("a daemon ends and its machine goes on");
    w.old = 300;
    world_stop(who);
    w.v[who].refuses = true;
    if (!until(4000, is_suspect, who))
        fail("the daemon of node %u is gone, and only %u say so after 4 s", who, world_count(who, GOSSIP_SUSPECT));
    ask(who, 6);
    for (unsigned i = 0; i < w.n; i++)
        if (w.v[i].up && w.now - w.v[i].refused_ms[who] > 2500)
            fail("the machine of node %u answers, and node %u has not heard it for 2.5 s", who, i);
    world_stage("the machine dies as well");
    w.v[who].refuses = false;
    ask(who, 4);
    int64_t silent = w.now;
    ask(who, 12);
    for (unsigned i = 0; i < w.n; i++)
        if (w.v[i].up && w.v[i].refused_ms[who] > silent)
            fail("node %u takes an old answer of the machine of node %u, which is dead, for a new one", i, who);
    w.old = old;
    world_stage("it comes back");
    world_start(who, was + 1000);
    if (!until(8000, is_alive, who))
        fail("node %u is back, and only %u say so after 8 s", who, world_count(who, GOSSIP_ALIVE));
    until(8000, is_settled, 0);
}

static void move(void)
{
    unsigned who = some();
    world_stage("one changes its address");
    world_move(who);
    world_run(6000);
    if (!is_alive(who))
        fail("node %u has another address and is lost", who);
}

static bool pair_cut(unsigned from, unsigned to)
{
    return (from == cut_a || from == cut_b) && to == cut_to;
}

/* Two of eight observers have no way to one node: no verdict. */
static void bad_paths(void)
{
    if (w.n < 12)
        return;
    cut_to = some();
    const struct gossip_ring *r = w.v[some()].g.ring;
    cut_a = r->observers[cut_to][0];
    cut_b = r->observers[cut_to][1];
    world_stage("two observers have no way to a node");
    w.loss = MIN(w.loss, 30u); /* at 10 % the others' mistakes come on top, now and then */
    w.cut = pair_cut;
    for (int i = 0; i < 60; i++) {
        world_run(100);
        if (world_count(cut_to, GOSSIP_SUSPECT))
            fail("two observers of eight made node %u suspect", cut_to);
    }
    w.cut = NULL;
    world_run(3000);
}

static void isolation(void)
{
    unsigned who = some();
    world_stage("one is cut off");
    w.v[who].cut_in = rng_chance(&w.rng, 700);
    w.v[who].cut_out = !w.v[who].cut_in || rng_chance(&w.rng, 700);
    world_run(4000);
    bool blind = w.v[who].cut_in && w.v[who].cut_out;
    for (unsigned i = 0; i < w.n; i++)
        if (i != who && world_sees(i, who) != GOSSIP_SUSPECT)
            fail("node %u is cut off, and node %u does not notice", who, i);
    for (unsigned i = 0; blind && w.n > 3 && i < w.n; i++)
        if (i != who && has_alerted(&w.v[who].g, i, who))
            fail("node %u is cut off itself and accuses others", who);
    w.v[who].cut_in = w.v[who].cut_out = false;
    world_stage("one is no longer cut off");
    if (!until(40000, is_settled, 0))
        fail("node %u is back, and not all are well 40 s later", who);
}

static void mass_loss(void)
{
    if (w.n < 10)
        return;
    world_stage("40 % die at once");
    world_false_downs = 0; /* one that was cut off is a running node, and rightly suspect */
    for (unsigned i = 0; i < w.n; i++)
        if (rng_chance(&w.rng, 400) && world_up() > w.n * 55 / 100)
            world_stop(i);
    world_run(12000);
    for (unsigned i = 0; i < w.n; i++)
        if (!w.v[i].up && !is_suspect(i))
            fail("node %u died with many, and only %u of %u say so after 12 s", i, world_count(i, GOSSIP_SUSPECT), world_up());
    nobody_down();
    world_stage("all come back");
    for (unsigned i = 0; i < w.n; i++)
        if (!w.v[i].up)
            world_start(i, (uint64_t)w.now * 10);
    if (!until(20000, is_settled, 0))
        fail("not all are well 20 s after all came back");
}

static void partition(uint64_t seed)
{
    world_stage("the network is in two parts");
    for (unsigned i = 0; i < w.n; i++)
        w.v[i].side = i % 10 < 3 + seed % 3;
    w.parted = true;
    world_run(40000);
    w.parted = false;
    world_stage("the network is whole again");
    if (!until(60000, is_settled, 0))
        fail("not all are well 60 s after the parts met");
}

static void goodbye(void)
{
    unsigned who = some();
    if (world_up() < 4)
        return;
    world_stage("one says goodbye");
    for (int i = 0; i < 3; i++) {
        gossip_core_leave(&w.v[who].g);
        world_run(20);
    }
    world_stop(who);
    if (!until(8000, is_left, who))
        fail("node %u said goodbye, and only %u heard it", who, world_count(who, GOSSIP_LEFT));
    /* The log takes it out; each node learns that at its own time, and some hear an older table afterwards. */
    world_stage("a member is removed");
    char id[16];
    snprintf(id, sizeof id, "n%u", who);
    for (unsigned i = 0; i < w.n; i++)
        if (w.v[i].up) {
            world_run((int64_t)rng_below(&w.rng, 100));
            gossip_core_forget(&w.v[i].g, id);
            if (rng_chance(&w.rng, 300))
                gossip_core_member(&w.v[i].g, id, "0", 1, w.t->v[who].key);
        }
    world_run(6000);
    if (!is_out(who))
        fail("node %u was removed, and %u list it again", who, world_up() - world_count(who, GOSSIP_DEAD));
}

static void chaos(void)
{
    world_stage("everything goes wrong");
    w.doubled = 50;
    w.old = 50;
    for (int i = 0; i < 60 && limit_take(&limits[L_FAULTS]); i++) {
        unsigned who = some();
        switch (rng_below(&w.rng, 6)) {
        case 0: w.v[who].cut_in = rng_chance(&w.rng, 300); break;
        case 1: w.v[who].cut_out = rng_chance(&w.rng, 300); break;
        case 2: world_pause(who, (int64_t)rng_range(&w.rng, 1, 10000)); break;
        case 3: if (w.v[who].up && w.t->v[who].removed_ms == 0 && world_up() > w.n / 2) world_stop(who); break;
        case 4: if (!w.v[who].up && w.t->v[who].removed_ms == 0) world_start(who, (uint64_t)w.now * 10); break;
        case 5: if (w.v[who].up) world_move(who); break;
        }
        w.loss = (unsigned)rng_below(&w.rng, 400);
        world_run((int64_t)rng_range(&w.rng, 50, 1000));
    }
    world_stage("everything is well again");
    w.loss = 0;
    for (unsigned i = 0; i < w.n; i++) {
        w.v[i].cut_in = w.v[i].cut_out = false;
        w.v[i].paused_until = MIN(w.v[i].paused_until, w.now);
        snprintf(w.t->v[i].addr, sizeof w.t->v[i].addr, "%u", w.v[i].generation); /* the log has it in the end */
        if (!w.v[i].up && w.t->v[i].removed_ms == 0)
            world_start(i, (uint64_t)w.now * 10);
    }
    if (!until(90000, is_settled, 0)) {
        not_settled();
        fail("not all see the same 90 s after the last fault");
    }
}

static uint64_t tell(uint64_t seed)
{
    world_open(seed, (unsigned)limit_cut(&limits[L_NODES], 3 + seed * 7 % 38), true);
    world_stage("all start at once");
    w.loss = has_kind(K_loss) ? 100 : 0;
    w.budget = seed % 4 == 0 && has_kind(K_budget) ? 24 << 10 : 0;
    for (unsigned i = 0; i < w.n; i++)
        world_start(i, 1000 + rng_below(&w.rng, 1000));
    if (!until(20000, is_known, 0))
        fail("not everybody has heard of everybody in 20 s");
    if (has_kind(K_quiet))
        quiet();
    w.loss = (unsigned)rng_below(&w.rng, has_kind(K_loss) ? 50 : 1);
    w.old = w.doubled = has_kind(K_copies) ? 20 : 0;
    if (has_kind(K_liar))
        liar();
    until(5000, is_settled, 0);
    static void (*const chapters[])(void) = { death, restart, move, bad_paths, isolation };
    for (unsigned i = 0; i < ARRAY_N(chapters); i++)
        if (has_kind(K_death + i))
            chapters[i]();
    w.old = 0; /* an old packet across would heal what the core has to */
    if (has_kind(K_masses))
        mass_loss();
    if (has_kind(K_partition))
        partition(seed);
    if (has_kind(K_chaos))
        chaos();
    if (has_kind(K_goodbye))
        goodbye();
    uint64_t hash = w.hash ^ w.n_events;
    world_close();
    return hash;
}

/* ---- figures ---- */
static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void traffic(uint64_t *ret_sent, uint64_t *ret_received, uint64_t *ret_max)
{
    *ret_sent = *ret_received = *ret_max = 0;
    for (unsigned i = 0; i < w.n; i++) {
        *ret_sent += w.v[i].sent;
        *ret_received += w.v[i].received;
        *ret_max = MAX(*ret_max, w.v[i].sent);
        w.v[i].sent = w.v[i].received = 0;
    }
}

static void measure_deaths(unsigned deaths)
{
    int64_t *all = xcalloc((size_t)deaths * w.n, sizeof *all);
    size_t n = 0;
    for (unsigned d = 0; d < deaths; d++) {
        unsigned who = some();
        bool *seen = xcalloc(w.n, sizeof *seen);
        uint64_t was = w.v[who].g.incarnation;
        unsigned left = w.n - 1;
        world_stop(who);
        for (int64_t died = w.now; left; world_run(10)) {
            if (w.now - died > 10000)
                fail("node %u is dead, and %u do not say so after 10 s", who, left);
            for (unsigned i = 0; i < w.n; i++)
                if (i != who && !seen[i] && world_sees(i, who) == GOSSIP_SUSPECT) {
                    seen[i] = true;
                    left--;
                    all[n++] = w.now - died;
                }
        }
        free(seen);
        world_start(who, was + 1000);
        if (!until(15000, is_alive, who))
            fail("node %u is back, and not all say so after 15 s", who);
        world_run((int64_t)rng_below(&w.rng, 1000));
    }
    qsort(all, n, sizeof *all, compare);
    printf("%u nodes, %u deaths, %u %% loss: SUSPECT everywhere p50 %lld ms, p99 %lld ms, max %lld ms\n", w.n, deaths, w.loss / 10,
           (long long)all[n / 2], (long long)all[n * 99 / 100], (long long)all[n - 1]);
    fflush(stdout);
    if (all[n * 99 / 100] > (w.n > 1000 ? 2200 : 2000)) /* virtual time: no machine's speed is in it */
        fail("that is too slow");
    free(all);
}

static void measure_mass(void)
{
    int64_t began = w.now;
    world_stage("40 % die at once");
    for (unsigned i = 0; i < w.n; i++)
        if (rng_chance(&w.rng, 400))
            world_stop(i);
    unsigned dead = w.n - world_up(), by = 0;
    while (!w.v[by].up)
        by++;
    int64_t reached[100] = { 0 };
    for (unsigned found = 0; found * 100 < dead * 99; world_run(50)) {
        for (unsigned i = 0; i < found * 100 / dead; i++)
            reached[i] = reached[i] ? reached[i] : w.now - began;
        if (w.now - began > 20000)
            fail("only %u of %u dead are suspect after 20 s", found, dead);
        found = 0;
        for (unsigned i = 0; i < w.n; i++)
            found += !w.v[i].up && world_sees(by, i) == GOSSIP_SUSPECT;
    }
    printf("%u of %u nodes die at once: 1 %% of them SUSPECT (at node %u) after %lld ms, half after %lld, 99 %% after %lld ms\n", dead, w.n,
           by, (long long)reached[0], (long long)reached[49], (long long)(w.now - began));
    for (unsigned i = 0; i < w.n; i++)
        if (!w.v[i].up)
            world_start(i, (uint64_t)w.now * 10);
    began = w.now;
    if (!until(60000, is_settled, 0))
        fail("not all are well 60 s after all came back");
    printf("they come back: all see all ALIVE after %lld ms\n", (long long)(w.now - began));
    fflush(stdout);
}

static void measure_partition(void)
{
    world_stage("the network is in two parts");
    for (unsigned i = 0; i < w.n; i++)
        w.v[i].side = i % 10 < 3;
    w.parted = true;
    world_run(20000);
    w.parted = false;
    int64_t began = w.now;
    if (!until(120000, is_settled, 0))
        fail("not all are well 120 s after the parts met");
    printf("30 %% against 70 %% for 20 s, then whole: all see all ALIVE after %lld ms\n", (long long)(w.now - began));
}

static void measure(unsigned n)
{
    double real = seconds();
    uint64_t sent, received, max;
    unsigned deaths = n <= 1000 ? 12 : 2;
    world_open(1, n, false);
    world_stage("all start at once");
    w.loss = 10;
    for (unsigned i = 0; i < n; i++)
        world_start(i, 1000 + rng_below(&w.rng, 1000));
    int64_t began = w.now;
    while (!is_known(0)) {
        world_run(100);
        if (w.now - began > 120000)
            fail("not everybody has heard of everybody in 120 s");
    }
    int64_t took = w.now - began;
    traffic(&sent, &received, &max);
    printf("%u nodes join at once: everybody has heard of everybody in %lld ms, %llu KB sent a node, at most %llu KB\n", n,
           (long long)took, (unsigned long long)(sent / n / 1000), (unsigned long long)(max / 1000));
    world_run(10000);
    traffic(&sent, &received, &max);
    world_run(10000);
    traffic(&sent, &received, &max);
    printf("idle: %llu B/s out, %llu B/s in a node, at most %llu B/s out (with UDP and IP heads about %llu B/s more)\n",
           (unsigned long long)(sent / n / 10), (unsigned long long)(received / n / 10), (unsigned long long)(max / 10),
           (unsigned long long)(36 * 28));
    fflush(stdout);
    if (max / 10 + 36 * 28 > 4096 || took > (n > 1000 ? 30000 : 5000))
        fail("that is too much");
    world_stage("nodes die");
    measure_deaths(deaths);
    w.loss = 100;
    measure_deaths(deaths / 2 + 1);
    w.loss = 10;
    if (n <= 2000) {
        measure_mass();
        measure_partition();
    }
    printf("%.1f s of a processor for %.1f s of the simulation, %llu events\n", seconds() - real, (double)(w.now - 1000) / 1000,
           (unsigned long long)w.n_events);
    world_close();
}

static void watch(unsigned n, double hours, uint64_t seed)
{
    world_open(seed, n, false);
    world_stage("10 % are lost and all is well");
    w.loss = 100;
    for (unsigned i = 0; i < n; i++)
        world_start(i, 1000);
    for (unsigned i = 0; i < MIN(n, 5u); i++) /* those who might lead, and so judge */
        w.v[i].suspect_since = xcalloc(n, sizeof(int64_t));
    int64_t end = w.now + (int64_t)(hours * 3600000);
    for (int minutes = 0; w.now < end; minutes++) {
        world_run(MIN(60000, end - w.now));
        if (minutes % 60 == 59 || w.now >= end)
            printf("%u nodes, 10 %% loss, %.2f h: %llu times SUSPECT, %llu times DOWN, as %u nodes see it\n", n,
                   (double)(w.now - 1000) / 3600000, (unsigned long long)world_false_suspects, (unsigned long long)world_false_downs, MIN(n, 5u)), fflush(stdout);
    }
    if (world_false_downs)
        fail("a running node was suspect for 2 s");
    world_close();
}

/* ---- options ---- */
static uint64_t hours, minutes, figures;

static bool own_option(const char *name, const char *value)
{
    return str_equal(name, "--measure")   ? str_u64(value, 3, 20000, &figures)
           : str_equal(name, "--hours")   ? str_u64(value, 1, 1000, &hours)
           : str_equal(name, "--minutes") ? str_u64(value, 1, 60000, &minutes)
                                          : false;
}

static int64_t now_ms(void)
{
    return w.now;
}

int main(int argc, char **argv)
{
    static struct seeds s = { .program = "sim_gossip", .kinds = kinds, .n_kinds = ARRAY_N(kinds), .limits = limits,
                              .n_limits = ARRAY_N(limits), .n = 3, .run = tell, .now_ms = now_ms, .where = world_where,
                              .own = own_option, .own_usage = " | --measure NODES | --hours H | --minutes M [--nodes N]" };
#ifdef GOSSIP_PLANTED
    s.bug = &gossip_bug;
#endif
    if (!seeds_parse(&s, argc, argv))
        return 2;
    crypto_init();
    if (!figures && !hours && !minutes)
        return seeds_run();
    if (figures)
        measure((unsigned)figures);
    if (hours || minutes)
        watch(limits[L_NODES].most == UINT64_MAX ? 1000 : (unsigned)MIN(limits[L_NODES].most, 20000u), (double)hours + (double)minutes / 60, s.first);
    printf("1 passed, 0 failed\n");
    return 0;
}
