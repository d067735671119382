/* Nodes: their start and end, their event loop and worker in virtual time, and the one queue of events. */
#include "sim_raft.h"

#include "wal.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
#define __lsan_disable()
#define __lsan_enable()
#endif

/* ---- queue ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->seq < b->seq;
}

void push(struct event e)
{
    e.seq = ++g.seq;
    e.at_us = MAX(e.at_us, g.now_us);
    if (g.n_heap == g.cap_heap) {
        g.cap_heap = g.cap_heap ? 2 * g.cap_heap : 256;
        g.heap = xrealloc(g.heap, g.cap_heap, sizeof(*g.heap));
    }
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

/* ---- clock and timers ---- */

static int64_t local_us(const struct node *n)
{
    return g.now_us / 1000 * n->drift + n->ahead_us + 1000;
}

int64_t loop_now_ms(const struct loop *l)
{
    return local_us(l->node) / 1000;
}

struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg)
{
    struct node *n = l->node;
    struct loop_timer *t = xnew(struct loop_timer);
    *t = (struct loop_timer){.node = n, .fn = fn, .arg = arg, .due_us = -1, .queued_us = -1};
    while (t->number < TIMERS_MAX && n->timers[t->number])
        t->number++;
    CHECK(t->number < TIMERS_MAX, "too many timers");
    n->timers[t->number] = t;
    return t;
}

static void queue_timer(struct loop_timer *t, int64_t at_us)
{
    t->queued_us = at_us;
    push((struct event){.at_us = at_us, .type = EV_TIMER, .node = SLOT(t->node), .from = t->number, .life = t->node->life});
}

void loop_timer_set(struct loop_timer *t, int64_t ms)
{
    t->due_us = -1;
    if (ms < 0)
        return;
    int64_t late = strikes(S_NODE, F_LATE) ? (int64_t)pick(S_NODE, 1000, 300000) : 0;
    t->due_us = g.now_us + ms * 1000000 / t->node->drift + late;
    if (t->queued_us < 0 || t->due_us < t->queued_us)
        queue_timer(t, t->due_us);
}

void loop_timer_free(struct loop_timer *t)
{
    if (t)
        t->node->timers[t->number] = NULL;
    free(t);
}

static void timer_due(struct node *n, unsigned number, int64_t at_us)
{
    struct loop_timer *t = n->timers[number];
    if (!t || at_us != t->queued_us) /* superseded */
        return;
    t->queued_us = -1;
    if (t->due_us < 0)
        return;
    if (t->due_us > g.now_us) {
        queue_timer(t, t->due_us);
        return;
    }
    t->due_us = -1;
    t->fn(t->arg);
}

/* ---- worker: two lanes, in order ---- */

static void queue_job(struct node *n, unsigned lane, int64_t at_us)
{
    n->job_us[lane] = at_us;
    push((struct event){.at_us = at_us, .type = EV_JOB, .node = SLOT(n), .from = lane, .life = n->life});
}

void wake_disk(struct node *n)
{
    n->hang_us = 0;
    for (unsigned lane = 0; lane < LANES; lane++)
        if (n->up && n->n_jobs[lane])
            queue_job(n, lane, g.now_us + 1);
}

static void start_job(struct node *n, unsigned lane)
{
    int64_t delay = lane == LANE_LOG ? (int64_t)pick(S_DISK, 200, 2 * g.o.disk_us) : (int64_t)pick(S_DISK, 1000, 50000);
    if (strikes(S_DISK, F_SLOW))
        delay += (int64_t)pick(S_DISK, 10000, 400000);
    queue_job(n, lane, MAX(g.now_us + delay, n->hang_us));
}

int loop_work(struct loop *l, enum loop_lane lane, loop_fn *work, loop_fn *done, void *arg)
{
    struct node *n = l->node;
    CHECK(n->n_jobs[lane] < JOBS_MAX, "node %u: the worker's queue grows without bound", SLOT(n));
    n->lanes[lane][n->n_jobs[lane]++] = (struct work){.work = work, .done = done, .arg = arg};
    if (n->n_jobs[lane] == 1)
        start_job(n, lane);
    return 0;
}

void sim_abort(void)
{
    CHECK(g.may_abort && (g.forged || disk_has_failed(g.self->disk) || disk_is_blown(g.self->disk)), "node %u gave up", SLOT(g.self));
    longjmp(g.abort_to, 1);
}

/* What it held is lost, not leaked. */
bool lives_through(void (*call)(void *arg), void *arg)
{
    __lsan_disable();
    bool lives = setjmp(g.abort_to) == 0;
    if (lives) {
        g.may_abort = true;
        call(arg);
    }
    g.may_abort = false;
    __lsan_enable();
    return lives;
}

static bool run_work(struct node *n, const struct work *w)
{
    g.self = n;
    disk_use(n->disk);
    return lives_through(w->work, w->arg);
}

static void note_durable(struct node *n, const struct work *w, struct shadow *s)
{
    uint32_t count = 0;
    struct raft_write **batch = shell_batch(w, &count);
    for (uint32_t i = 0; batch && i < count; i++) {
        shadow_write(s, batch[i]);
        if (batch[i]->install)
            check_image(n, batch[i]->install);
    }
    if (shell_image(w))
        check_image(n, shell_image(w));
    n->wrote |= batch != NULL;
    s->snapshot = MAX(s->snapshot, shell_saved(w));
}

/* Whether this write reached the disk will be seen at the next start. */
static void note_maybe(struct node *n, const struct work *w)
{
    free(n->maybe);
    n->maybe = xmemdup(&n->shadow, sizeof(n->shadow));
    note_durable(n, w, n->maybe);
}

static void job_due(struct node *n, unsigned lane, int64_t at_us)
{
    if (at_us != n->job_us[lane]) /* superseded */
        return;
    n->job_us[lane] = -1; /* a second event for the same moment is none */
    if (g.now_us < n->hang_us) {
        queue_job(n, lane, n->hang_us);
        return;
    }
    struct work w = n->lanes[lane][0];
    if (!run_work(n, &w)) {
        say("node %u ends itself", SLOT(n));
        g.n.aborts++;
        note_maybe(n, &w);
        n->lanes[lane][0].work = NULL; /* it was */
        crash_for(n, (int64_t)pick(S_FAULT, 1000, 500000), chance(S_FAULT, 300));
        return;
    }
    note_durable(n, &w, &n->shadow);
    n->n_jobs[lane]--;
    memmove(n->lanes[lane], n->lanes[lane] + 1, n->n_jobs[lane] * sizeof(w));
    if (n->n_jobs[lane])
        start_job(n, lane);
    w.done(w.arg);
}

/* ---- hooks ---- */

static void on_send(void *arg, uint64_t to, const void *bytes, size_t size)
{
    network_send(arg, to, bytes, size);
}

static void on_apply(void *arg, uint64_t index, uint64_t term, const void *bytes, size_t size)
{
    struct node *n = arg;
    CHECK(index > n->applied, "node %u applies %llu after %llu", SLOT(n), U(index), U(n->applied));
    n->chain = fnv(fnv(n->chain ^ index, &term, 8), bytes, MIN(size, 64)) + size;
    n->applied = index;
    if (index > g.applied) {
        g.applied = index;
        g.chain_at[index] = n->chain;
    }
    CHECK(g.chain_at[index] == n->chain, "two states after index %llu", U(index));
    client_applied(n, index, term, bytes, size);
}

static void on_snapshot_save(void *arg, struct sb *out)
{
    struct node *n = arg;
    char pad[256];
    sb_add(out, &n->applied, 8);
    sb_add(out, &n->chain, 8);
    memset(pad, (int)n->applied, sizeof(pad));
    for (uint64_t left = n->applied % 7 * 97; left; left -= MIN(left, sizeof(pad)))
        sb_add(out, pad, MIN(left, sizeof(pad)));
}

static int on_snapshot_load(void *arg, const void *bytes, size_t size, struct err *e)
{
    struct node *n = arg;
    uint64_t was = n->applied;
    CHECK(size >= 16, "a snapshot is malformed");
    memcpy(&n->applied, bytes, 8);
    memcpy(&n->chain, (const char *)bytes + 8, 8);
    CHECK(n->applied >= was, "node %u: a snapshot takes the state back from %llu to %llu", SLOT(n), U(was), U(n->applied));
    CHECK(n->applied <= g.applied && n->chain == (n->applied ? g.chain_at[n->applied] : 0), "snapshot at %llu has another state",
          U(n->applied));
    g.n.installs += n->up;
    return 0;
}

/* ---- life and death ---- */

int slot_of(uint64_t id)
{
    for (unsigned i = 0; i < g.o.n; i++)
        if (g.nodes[i].id == id)
            return (int)i;
    return -1;
}

struct node *node_of(uint64_t id)
{
    int slot = slot_of(id);
    return slot < 0 ? NULL : &g.nodes[slot];
}

struct node *some_leader(void)
{
    struct node *found = NULL;
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        if (n->up && !n->paused && n->role == RAFT_LEADER && (!found || chance(S_CLIENT, 500)))
            found = n;
    }
    return found;
}

static const struct raft_keys *keys_of(const struct node *n, struct raft_keys *k)
{
    *k = (struct raft_keys){n->keys[0], n->has_old_key ? n->keys[1] : NULL};
    return g.o.sealed ? k : NULL;
}

void boot(struct node *n)
{
    struct raft_hooks hooks = {.arg = n, .send = on_send, .apply = on_apply, .snapshot_save = on_snapshot_save,
                               .snapshot_load = on_snapshot_load};
    struct raft_keys keys;
    struct err e = {0};
    g.self = n;
    maybe_copy(n);
    if (n->outdated)
        n->damaged = n->shadow.lost; /* else it has to find out again */
    disk_use(n->disk);
    n->applied = n->chain = n->commit = n->term = n->repair = n->known_in = 0;
    n->clock_ms = n->led_ms = 0;
    n->role = RAFT_FOLLOWER;
    n->core = NULL;
    n->life++;
    memset(n->n_jobs, 0, sizeof(n->n_jobs));
    int rc = raft_node_open(&n->raft, &n->loop, "disk", keys_of(n, &keys), &g.o.cfg, &hooks, rng_u64(&g.rng[S_NODE]), &e);
    if (rc && disk_is_full(n->disk)) { /* it wanted to write that it is in doubt */
        say("node %u: %s", SLOT(n), e.text);
        n->raft = NULL;
        disk_crash(n->disk, false);
        push((struct event){.at_us = g.now_us + 200000, .type = EV_RESTART, .node = SLOT(n), .life = n->life});
        return;
    }
    if (rc) {
        CHECK(n->scarred && rc == -E_CORRUPT, "node %u cannot use its log: %s", SLOT(n), e.text);
        say("node %u: %s", SLOT(n), e.text);
        n->raft = NULL;
        n->lost = true;
        g.n.lost++;
        return;
    }
    n->up = true;
    n->core = shell_core(n->raft);
    struct raft_status s;
    raft_get_status(n->core, &s);
    CHECK(s.id == n->id || (!s.id && !n->was_voter), "node %u does not know any more who it is", SLOT(n));
    if (!s.id)
        CHECK(raft_node_join(n->raft, n->id, &e) == 0, "node %u: %s", SLOT(n), e.text);
    n->core = shell_core(n->raft);
}

void crash(struct node *n, bool power)
{
    if (!n->up)
        return;
    say("node %u %s", SLOT(n), power ? "loses power" : "is killed");
    g.n.crashes++;
    g.self = n;
    disk_use(n->disk);
    for (unsigned lane = 0; lane < LANES; lane++) { /* in the midst of what the worker does */
        struct work *w = &n->lanes[lane][0];
        disk_fuse(n->disk, (unsigned)pick(S_DISK, 0, chance(S_DISK, 600) ? 3 : 14));
        if (!n->n_jobs[lane] || !w->work)
            continue;
        bool lives = run_work(n, w);
        if (lives && !disk_is_blown(n->disk))
            note_durable(n, w, &n->shadow);
        else if (lane == LANE_LOG)
            note_maybe(n, w);
    }
    n->up = n->paused = false;
    shell_died(n->raft);
    raft_node_close(TAKE(n->raft));
    n->core = NULL;
    for (unsigned lane = 0; lane < LANES; lane++) {
        for (unsigned i = 0; i < n->n_jobs[lane]; i++)
            n->lanes[lane][i].done(n->lanes[lane][i].arg);
        n->n_jobs[lane] = 0;
    }
    g.n.torn += disk_crash(n->disk, power);
    n->role = RAFT_FOLLOWER;
    n->life++;
}

void crash_for(struct node *n, int64_t us, bool power)
{
    crash(n, power);
    push((struct event){.at_us = g.now_us + us, .type = EV_RESTART, .node = SLOT(n), .life = n->life});
}

/* The founders' disks as a first start leaves them, but with all of them voters. */
void found_cluster(void)
{
    uint64_t ids[NODES_MAX];
    struct err e = {0};
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        ids[i] = n->id = rng_u64(&g.rng[S_NODE]) | 1;
        n->loop.node = n;
        n->disk = disk_new(rng_u64(&g.rng[S_NODE]));
        n->drift = 1000;
        rng_bytes(&g.rng[S_NODE], n->keys[0], sizeof(n->keys[0]));
    }
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        if (i < g.o.voters) {
            struct raft_entry entry = raft_bootstrap_entry(ids, g.o.voters, "x", 1);
            struct raft_write w = {.token = 1, .has_hard = true, .term = 1, .n_entries = 1, .entries = &entry}, *one = &w;
            struct raft_boot b = {0};
            struct raft_keys keys;
            struct raft_disk *d;
            disk_use(n->disk);
            CHECK(raft_disk_open(&d, "disk", keys_of(n, &keys), g.o.cfg.segment_bytes, 4096, &b, &e) == 0, "%s", e.text);
            raft_disk_set_id(d, n->id);
            CHECK(raft_disk_write(d, &one, 1, &e) == 0, "%s", e.text);
            raft_disk_close(d);
            raft_boot_done(&b);
            disk_crash(n->disk, false);
            shadow_write(&n->shadow, &w);
            n->was_voter = true;
            if (!g.known[1])
                known_add(&entry, 0);
            raft_buf_unref(entry.data);
        }
        boot(n);
    }
}

void tear_down(void)
{
    g.ended = g.calm = true;
    for (unsigned i = 0; i < g.o.n; i++) {
        struct node *n = &g.nodes[i];
        crash(n, true);
        disk_free(n->disk);
        free(n->maybe);
        free(n->was);
        copy_free(n->copy);
    }
    known_free();
    for (struct grave *v = g.graves; v; v = g.graves) {
        g.graves = v->next;
        free(v);
    }
    while (g.n_heap)
        free(g.heap[--g.n_heap].bytes);
    free(g.heap);
    raft_configuration_free(g.config);
}

/* ---- events ---- */

static void event(struct event *e)
{
    struct node *n = &g.nodes[e->node];
    if (e->type == EV_DELIVER && e->life != g.nodes[e->from].n_put_back)
        return; /* to put a disk back takes longer than any packet lives */
    if (e->type <= EV_RESUME && (!n->up || (e->type != EV_DELIVER && e->life != n->life)))
        return;
    if (n->paused && e->type < EV_RESUME) { /* everything waits until it wakes */
        struct event again = *e;
        again.at_us = g.now_us + 20000;
        e->bytes = NULL;
        if (e->type == EV_TIMER && n->timers[e->from] && n->timers[e->from]->queued_us == e->at_us)
            n->timers[e->from]->queued_us = again.at_us;
        if (e->type == EV_JOB && n->job_us[e->from] == e->at_us)
            n->job_us[e->from] = again.at_us;
        push(again);
        return;
    }
    bool frozen = g.calm && !n->inside; /* see liveness() */
    g.self = n;
    switch (e->type) {
    case EV_DELIVER:
        n->heard_us[e->from] = g.now_us;
        mix(fnv(1, e->bytes, MIN(e->size, 96)));
        raft_node_receive(n->raft, e->from_id, e->bytes, e->size);
        break;
    case EV_TIMER: timer_due(n, e->from, e->at_us); break;
    case EV_JOB: job_due(n, e->from, e->at_us); break;
    case EV_RESUME: n->paused = frozen; break;
    case EV_RESTART:
        if (!n->up && !n->lost && e->life == n->life && !frozen) {
            say("node %u restarts", e->node);
            boot(n);
        }
        break;
    case EV_SPACE:
        if (!frozen)
            disk_set_full(n->disk, false);
        break;
    case EV_NEMESIS:
        if (g.calm)
            return;
        nemesis();
        push((struct event){.at_us = g.now_us + (int64_t)pick(S_FAULT, 20000, 400000), .type = EV_NEMESIS});
        break;
    case EV_STRIKE:
        if (!g.calm && n->up && e->life == n->life && !n->paused)
            strike(n, e->from);
        break;
    case EV_CLIENT:
        client();
        push((struct event){.at_us = g.now_us + (int64_t)pick(S_CLIENT, 1000, 2 * g.o.client_us) * (g.calm ? 1 + (int64_t)g.cookie / 1024 : 1),
                            .type = EV_CLIENT}); /* calm may last, and cookies shall too */
        break;
    case EV_CHANGE:
        if (g.calm)
            return;
        if (some_leader())
            propose_change(some_leader());
        push((struct event){.at_us = g.now_us + (int64_t)pick(S_FAULT, 10000, 300000), .type = EV_CHANGE});
        break;
    }
}

void run_until(int64_t us)
{
    while (g.n_heap && g.heap[0].at_us <= us) {
        struct event e = pop();
        g.now_us = e.at_us;
        g.events++;
        mix(U(e.at_us) * 64 + U(e.type) * 8 + e.node);
        event(&e);
        if (g.nodes[e.node].up)
            check_sizes(&g.nodes[e.node], e.type == EV_TIMER);
        free(e.bytes);
    }
    g.now_us = us;
}
