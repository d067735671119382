/* The one queue of events, and in virtual time what loop.h promises: timers, deferred calls, worker jobs. */
#include "whole.h"
#include "whole_threads.h"

enum { ROUNDS_MAX = 64 };

static int any_aborted;

/* ---- queue ---- */
struct event *push(struct host *h, int64_t delay, void (*fn)(struct event *), uint64_t a, uint64_t b)
{
    struct event e = { .due.at = g.now + MAX(delay, 0), .host = h, .life = h ? h->life : 0, .fn = fn, .a = a, .b = b };
    return queue_push(&g.queue, &e);
}

void loop_done(void)
{
    while (g.queue.n) {
        struct event e;
        queue_pop(&g.queue, &e);
        free(e.bytes);
    }
    queue_done(&g.queue);
    for (unsigned i = 0; i < g.n_timers; i++)
        CHECK(!g.timers[i], "a timer is left");
    free(g.timers);
}

static void happen(struct event *e)
{
    struct host *h = e->host;
    g.may_abort = true;
    if (setjmp(g.aborted)) {
        host_abort(g.self);
        return;
    }
    if (h)
        enter(h);
    e->fn(e);
    if (h && h->life == e->life && h->loop)
        leave(h);
    g.may_abort = false;
}

void run_until(int64_t at)
{
    while (queue_is_due(&g.queue, at)) {
        struct event e;
        queue_pop(&g.queue, &e);
        g.now = e.due.at;
        struct host *h = e.host;
        if (h && (e.life != h->life || !h->loop)) {
            free(e.bytes);
            continue;
        }
        if (h && h->paused) { /* after what else waits there: the order stays */
            e.due.at = MAX(h->resume, g.now + 1);
            queue_again(&g.queue, &e);
            continue;
        }
        g.events++;
        mix((uint64_t)e.due.at * 8 + (h ? h->n : 7));
        happen(&e);
        free(e.bytes);
        checks_event();
    }
    g.now = at;
}

/* ---- clocks ---- */
int64_t clock_mono_ns(void)
{
    return g.self ? g.now / 1000 * g.self->drift + g.self->n * SEC_NS : g.now;
}

int64_t clock_real_ns(void)
{
    return g.now + INT64_C(1700000000) * SEC_NS + (g.self ? g.self->wall : 0);
}

int64_t loop_now_ms(const struct loop *l)
{
    (void)l;
    return clock_mono_ns() / MS;
}

/* ---- turns ---- */
void enter(struct host *h)
{
    g.self = h;
    format_most = h->format;
    disk_use(h->raft_disk);
}

static void deferred_calls(struct loop *l)
{
    for (int round = 0; l->n_deferred && round < ROUNDS_MAX; round++) {
        struct call *now = l->deferred;
        size_t n = l->n_deferred;
        l->deferred = NULL;
        l->n_deferred = l->cap_deferred = 0;
        for (size_t i = 0; i < n; i++)
            now[i].fn(now[i].arg);
        free(now);
    }
}

static void kick(struct event *e)
{
    e->host->loop->kicked = false;
}

void leave(struct host *h)
{
    struct loop *l = h->loop;
    deferred_calls(l);
    for (unsigned i = 0; i < l->n_each; i++)
        l->each[i].fn(l->each[i].arg);
    if (l->n_deferred && !l->kicked) {
        l->kicked = true;
        push(h, 1, kick, 0, 0);
    }
    g.self = NULL;
    format_most = FORMATS;
}

void loop_defer(struct loop *l, loop_fn *fn, void *arg)
{
    if (l->n_deferred == l->cap_deferred) {
        l->cap_deferred = l->cap_deferred ? 2 * l->cap_deferred : 16;
        l->deferred = xrealloc(l->deferred, l->cap_deferred, sizeof *l->deferred);
    }
    l->deferred[l->n_deferred++] = (struct call){ fn, arg };
}

void loop_each_turn(struct loop *l, loop_fn *fn, void *arg)
{
    ASSERT(l->n_each < ARRAY_N(l->each));
    l->each[l->n_each++] = (struct call){ fn, arg };
}

/* ---- timers ---- */
struct loop_timer {
    struct loop *loop;
    loop_fn *fn;
    void *arg;
    unsigned slot;
    int64_t due, queued; /* -1: none */
    struct loop_timer *next; /* in the graveyard */
};

/* Of daemons that were killed while they joined: what these timers point at is lost, as in a real process. */
static struct loop_timer *graveyard;

struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg)
{
    struct loop_timer *t = xnew(struct loop_timer);
    *t = (struct loop_timer){ .loop = l, .fn = fn, .arg = arg, .slot = g.n_timers, .due = -1, .queued = -1 };
    if (g.n_timers == g.cap_timers) {
        g.cap_timers = g.cap_timers ? 2 * g.cap_timers : 256;
        g.timers = xrealloc(g.timers, g.cap_timers, sizeof(struct loop_timer *));
    }
    g.timers[g.n_timers++] = t; /* a slot is used once, so that an old event finds nobody else in it */
    return t;
}

static void timer_event(struct event *e);

static void queue_timer(struct loop_timer *t, int64_t at)
{
    t->queued = at;
    push(t->loop->host, at - g.now, timer_event, t->slot, (uint64_t)at);
}

static void timer_event(struct event *e)
{
    struct loop_timer *t = g.timers[e->a];
    if (!t || (int64_t)e->b != t->queued) /* freed, or superseded */
        return;
    t->queued = -1;
    if (t->due < 0)
        return;
    if (t->due > g.now) {
        queue_timer(t, t->due);
        return;
    }
    t->due = -1;
    t->fn(t->arg);
}

void loop_timer_set(struct loop_timer *t, int64_t ms)
{
    t->due = -1;
    if (ms < 0)
        return;
    t->due = g.now + ms * MS / t->loop->host->drift * 1000;
    if (t->queued < 0 || t->due < t->queued)
        queue_timer(t, t->due);
}

void loop_timer_free(struct loop_timer *t)
{
    if (t)
        g.timers[t->slot] = NULL;
    free(t);
}

/* ---- worker ---- */
static void job_event(struct event *e);

static void queue_job(struct host *h, unsigned lane)
{
    int64_t delay = lane == LANE_LOG ? (int64_t)pick(S_DISK, 100, 3000) * 1000 : some_ms(S_DISK, 1, 30);
    push(h, MAX(delay, h->hang - g.now), job_event, lane, 0);
}

int loop_work(struct loop *l, enum loop_lane lane, loop_fn *work, loop_fn *done, void *arg)
{
    struct job **at = &l->lanes[lane], *j = xnew(struct job);
    *j = (struct job){ .work = work, .done = done, .arg = arg };
    while (*at)
        at = &(*at)->next;
    *at = j;
    CHECK(++l->n_jobs[lane] < 4096, "%s: the worker's queue grows without bound", l->host->name);
    if (l->lanes[lane] == j)
        queue_job(l->host, lane);
    return 0;
}

void sim_abort(void)
{
    CHECK(g.may_abort && disk_has_failed(g.self->raft_disk), "%s gave up", g.self->name);
    g.may_abort = false;
    longjmp(g.aborted, 1);
}

/* Asked by the leak checker: what a daemon held that stopped itself is lost, as in a real process. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return any_aborted;
}

static void run_work(struct job *j)
{
    loop_fn *work = TAKE(j->work);
    if (work) /* not done already, because somebody waited for it */
        work(j->arg);
}

void whole_wait(void)
{
    for (unsigned lane = 0; lane < LANES; lane++)
        for (struct job *j = g.self->loop->lanes[lane]; j; j = j->next)
            if (j->work) {
                run_work(j);
                return;
            }
    fail("%s waits for nothing", g.self->name);
}

static struct job *take_job(struct loop *l, unsigned lane)
{
    struct job *j = l->lanes[lane];
    l->lanes[lane] = j->next;
    l->n_jobs[lane]--;
    return j;
}

static void job_event(struct event *e)
{
    struct host *h = e->host;
    struct loop *l = h->loop;
    if (g.now < h->hang) {
        push(h, h->hang - g.now, job_event, e->a, 0);
        return;
    }
    struct job *j = l->lanes[e->a];
    run_work(j);
    take_job(l, (unsigned)e->a);
    if (l->lanes[e->a])
        queue_job(h, (unsigned)e->a);
    if (j->done)
        j->done(j->arg);
    free(j);
}

static void bury_timers(struct loop *l)
{
    for (unsigned i = 0; i < g.n_timers; i++)
        if (g.timers[i] && g.timers[i]->loop == l) {
            g.timers[i]->next = graveyard;
            graveyard = TAKE(g.timers[i]);
        }
}

void loop_crash(struct loop *l)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        bool worked = false;
        for (unsigned lane = 0; lane < LANES; lane++)
            while (l->lanes[lane]) {
                struct job *j = take_job(l, lane);
                run_work(j);
                if (j->done)
                    j->done(j->arg);
                free(j);
                worked = true;
            }
        deferred_calls(l);
        if (!worked && !l->n_deferred)
            break;
    }
    free(l->deferred);
    bury_timers(l);
}

void loop_abort(struct loop *l)
{
    any_aborted = 1;
    bury_timers(l);
}

/* ---- not of this world ---- */
void loop_stop(struct loop *l)
{
    fail("%s: loop_stop", l->host->name);
}
