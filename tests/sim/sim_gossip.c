/* Gossip of many nodes in virtual time: the production core, a network that loses, delays and parts. One seed,
 * one story; a failing seed is printed and replayed with --seed. Built as sim_gossip_planted it has --bug K, to show
 * that it finds each bug planted in the core (tests/sim/planted). */
#include "core.h"
#include <shoal/base/crypto.h>
#include <stdio.h>

enum { NODES_MAX = 1000, QUEUE_MAX = 1 << 20, STEP_MS = 10 };

struct node { struct gossip_core g; bool up; uint8_t side; char id[16]; uint64_t bytes; };
struct packet { int64_t at; uint32_t to, from, size; uint8_t *p; };

static struct node *nodes;
static unsigned n_nodes = 100;
static struct packet *heap;
static unsigned n_heap;
static struct rng net;
static int64_t now;
static unsigned loss_permille;
static bool parted;
static uint64_t seed_now;

#ifdef GOSSIP_PLANTED
int gossip_bug;
#endif

static void fail(const char *what)
{
    printf("FAILED: %s at %lld ms\nreplay: sim_gossip --seed %llu --nodes %u\n", what, (long long)now,
           (unsigned long long)seed_now, n_nodes);
    exit(1);
}

static void push(struct packet k)
{
    if (n_heap == QUEUE_MAX)
        fail("too many packets fly");
    unsigned i = n_heap++;
    while (i && heap[(i - 1) / 2].at > k.at) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = k;
}

static struct packet pop(void)
{
    struct packet top = heap[0], last = heap[--n_heap];
    unsigned i = 0;
    for (;;) {
        unsigned c = 2 * i + 1;
        if (c >= n_heap)
            break;
        if (c + 1 < n_heap && heap[c + 1].at < heap[c].at)
            c++;
        if (heap[c].at >= last.at)
            break;
        heap[i] = heap[c];
        i = c;
    }
    heap[i] = last;
    return top;
}

static void on_send(void *arg, const char *addr, uint16_t port, const void *p, size_t size)
{
    struct node *from = arg;
    uint64_t to;
    (void)port;
    if (!str_u64(addr, 0, n_nodes - 1, &to))
        fail("a packet to nowhere");
    if (size > GOSSIP_PACKET_MAX_BYTES)
        fail("a packet beyond its bound");
    from->bytes += size;
    if (rng_below(&net, 1000) < loss_permille || (parted && nodes[to].side != from->side))
        return;
    push((struct packet){ now + 1 + (int64_t)rng_below(&net, 30), (uint32_t)to, (uint32_t)(from - nodes), (uint32_t)size,
                          xmemdup(p, size) });
}

static void on_state(void *arg, const char *id, enum gossip_state state)
{
    (void)arg;
    (void)id;
    (void)state;
}

static void start(unsigned i, uint64_t incarnation)
{
    struct node *n = &nodes[i];
    struct gossip_config cfg = { .node_id = n->id, .incarnation = incarnation };
    struct gossip_core_out out = { n, on_send, on_state };
    gossip_core_init(&n->g, &cfg, &out, rng_u64(&net), now);
    n->up = true;
    for (unsigned k = 0; k < n_nodes; k++) {
        char addr[16];
        snprintf(addr, sizeof addr, "%u", k);
        if (k != i)
            gossip_core_member(&n->g, nodes[k].id, addr, 1);
    }
}

static void run_until(int64_t t)
{
    while (now < t) {
        while (n_heap && heap[0].at <= now) {
            struct packet k = pop();
            if (nodes[k.to].up)
                gossip_core_receive(&nodes[k.to].g, now, k.p, k.size);
            free(k.p);
        }
        for (unsigned i = 0; i < n_nodes; i++)
            if (nodes[i].up && (now / STEP_MS + i) % 3 == 0)
                gossip_core_tick(&nodes[i].g, now);
        now += STEP_MS;
    }
}

static enum gossip_state seen(unsigned by, unsigned who)
{
    return ((struct gossip_peer *)map_find(&nodes[by].g.peers, nodes[who].id))->state;
}

/* How many (up) nodes see WHO in a state of at least MIN. */
static unsigned count(unsigned who, enum gossip_state min)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_nodes; i++)
        n += i != who && nodes[i].up && seen(i, who) >= min;
    return n;
}

static unsigned n_up(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_nodes; i++)
        n += nodes[i].up;
    return n;
}

static void all_alive(const char *what)
{
    for (unsigned i = 0; i < n_nodes; i++)
        for (unsigned k = 0; k < n_nodes && nodes[i].up; k++)
            if (i != k && nodes[k].up && seen(i, k) != GOSSIP_ALIVE)
                fail(what);
}

static int64_t first_ms[1000], all_ms[1000];
static unsigned n_samples;
static uint64_t bytes_total;

static void story(uint64_t seed)
{
    seed_now = seed;
    rng_init(&net, seed);
    now = 1000;
    loss_permille = 100;
    parted = false;
    for (unsigned i = 0; i < n_nodes; i++) {
        nodes[i] = (struct node){ .side = 0 };
        snprintf(nodes[i].id, sizeof nodes[i].id, "n%u", i);
    }
    for (unsigned i = 0; i < n_nodes; i++)
        start(i, 1);
    /* A minute of 10 % loss: nobody is called dead. */
    for (int64_t end = now + 60000; now < end;) {
        run_until(now + 500);
        for (unsigned i = 0; i < n_nodes; i++)
            if (count(i, GOSSIP_DEAD))
                fail("a living node was called dead");
    }
    for (unsigned i = 0; i < n_nodes; i++)
        bytes_total += nodes[i].bytes / 60;
    /* One dies: suspected soon, dead everywhere within a bound. */
    unsigned victim = (unsigned)rng_below(&net, n_nodes);
    nodes[victim].up = false;
    int64_t died = now, first = 0;
    while (count(victim, GOSSIP_DEAD) < n_up()) {
        run_until(now + 20);
        if (!first && count(victim, GOSSIP_SUSPECT))
            first = now;
        if (now - died > 15000)
            fail("a dead node is not dead everywhere after 15 s");
    }
    first_ms[n_samples] = first - died;
    all_ms[n_samples++] = now - died;
    gossip_core_done(&nodes[victim].g);
    /* It returns and is seen alive by all. */
    start(victim, 1000);
    int64_t back = now;
    while (count(victim, GOSSIP_SUSPECT)) {
        run_until(now + 20);
        if (now - back > 15000)
            fail("a node that came back is not seen alive after 15 s");
    }
    /* One leaves in order. */
    unsigned leaver = (victim + 1) % n_nodes;
    for (int i = 0; i < 3; i++) {
        gossip_core_leave(&nodes[leaver].g);
        run_until(now + 20);
    }
    nodes[leaver].up = false;
    for (int64_t t = now; count(leaver, GOSSIP_LEFT) < n_up();) {
        run_until(now + 20);
        if (now - t > 10000)
            fail("a goodbye did not reach all in 10 s");
    }
    gossip_core_done(&nodes[leaver].g);
    /* 30 against 70, then healed. */
    for (unsigned i = 0; i < n_nodes; i++)
        nodes[i].side = i <= n_nodes * 3 / 10;
    parted = true;
    run_until(now + 20000);
    parted = false;
    run_until(now + 30000);
    loss_permille = 0; /* or somebody is always suspected for a moment */
    run_until(now + 10000);
    all_alive("after the partition healed not all are alive to all");
    for (unsigned i = 0; i < n_nodes; i++)
        if (nodes[i].up)
            gossip_core_done(&nodes[i].g);
    while (n_heap)
        free(pop().p);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 0, first = 1, n;
    bool one = false;
    for (int i = 1; i < argc; i += 2) {
        bool more = i + 1 < argc;
        if (more && str_equal(argv[i], "--seeds") && str_u64(argv[i + 1], 1, 1000, &seeds))
            continue;
        if (more && str_equal(argv[i], "--seed") && str_u64(argv[i + 1], 0, UINT64_MAX, &first)) {
            one = true;
            continue;
        }
        if (more && str_equal(argv[i], "--nodes") && str_u64(argv[i + 1], 3, NODES_MAX, &n)) {
            n_nodes = (unsigned)n;
            continue;
        }
#ifdef GOSSIP_PLANTED
        if (more && str_equal(argv[i], "--bug") && str_u64(argv[i + 1], 1, 5, &n)) {
            gossip_bug = (int)n;
            continue;
        }
#endif
        fprintf(stderr, "usage: sim_gossip [--seeds N] [--seed S] [--nodes N]\n");
        return 2;
    }
    if (!seeds)
        seeds = one ? 1 : 3;
    crypto_init();
    nodes = xcalloc(n_nodes, sizeof *nodes);
    heap = xcalloc(QUEUE_MAX, sizeof *heap);
    for (uint64_t i = 0; i < seeds; i++)
        story(first + i);
    qsort(first_ms, n_samples, sizeof *first_ms, compare);
    qsort(all_ms, n_samples, sizeof *all_ms, compare);
    printf("%u nodes, 10 %% loss: suspected after p50 %lld ms p99 %lld ms, dead everywhere p50 %lld ms p99 %lld ms, "
           "%llu bytes/s a node\n", n_nodes, (long long)first_ms[n_samples / 2], (long long)first_ms[n_samples - 1],
           (long long)all_ms[n_samples / 2], (long long)all_ms[n_samples - 1],
           (unsigned long long)(bytes_total / seeds / n_nodes));
    printf("%llu passed, 0 failed\n", (unsigned long long)seeds);
    free(nodes);
    free(heap);
    return 0;
}
