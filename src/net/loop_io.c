/* The event loop: libevent's event_base with timers, deferred calls, signals, and two worker threads (one a
 * lane) whose finished jobs come back through an eventfd. */
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/mem.h>
#include <shoal/loop.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

LOG_MODULE("loop");

enum { JOBS_MAX = 4096, EACH_MAX = 8, FINISH_ROUNDS = 64, LONG_TURN_MS = 40 };

struct call {
    loop_fn *fn;
    void *arg;
};

struct calls {
    struct call *v;
    size_t n, cap;
};

struct job {
    struct job *next;
    loop_fn *work, *done;
    void *arg;
};

struct lane {
    struct loop *loop;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *first, **last;
    unsigned n;
    bool stop;
};

struct loop {
    struct event_base *base;
    struct event *kick; /* runs the end of the turn when nothing else would */
    struct calls deferred;
    struct call each[EACH_MAX];
    unsigned n_each;
    bool stop;
    int64_t began_ns, cpu_ns, longest_ns; /* 0: nothing was called yet in this turn */
    struct lane lanes[LANES];
    pthread_mutex_t done_lock;
    struct job *done_first, **done_last;
    int done_fd;
    struct event *done_event;
};

struct loop_fd {
    struct loop *loop;
    struct event *ev;
    int fd;
    loop_fd_fn *fn;
    void *arg;
};

struct loop_timer {
    struct loop *loop;
    struct event *ev;
    loop_fn *fn;
    void *arg;
};

struct loop_signal {
    struct event *ev;
    loop_fn *fn;
    void *arg;
};

static int64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * SEC_NS + t.tv_nsec;
}

static void turn_begins(struct loop *l)
{
    if (l->began_ns)
        return;
    l->began_ns = clock_mono_ns();
    l->cpu_ns = thread_cpu_ns();
}

static void on_done(evutil_socket_t fd, short what, void *arg)
{
    struct loop *l = arg;
    uint64_t n;
    (void)what;
    turn_begins(l);
    if (read(fd, &n, sizeof n) < 0 && errno != EAGAIN)
        return;
    pthread_mutex_lock(&l->done_lock);
    struct job *j = l->done_first;
    l->done_first = NULL;
    l->done_last = &l->done_first;
    pthread_mutex_unlock(&l->done_lock);
    while (j) {
        struct job *next = j->next;
        if (j->done)
            j->done(j->arg);
        free(j);
        j = next;
    }
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    turn_begins(arg);
}

struct loop *loop_new(void)
{
    struct loop *l = xnew(struct loop);
    l->base = event_base_new();
    ASSERT(l->base);
    l->kick = event_new(l->base, -1, 0, on_kick, l);
    l->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ASSERT(l->kick && l->done_fd >= 0);
    pthread_mutex_init(&l->done_lock, NULL);
    l->done_last = &l->done_first;
    l->done_event = event_new(l->base, l->done_fd, EV_READ | EV_PERSIST, on_done, l);
    event_add(l->done_event, NULL);
    for (int i = 0; i < LANES; i++) {
        l->lanes[i].loop = l;
        l->lanes[i].last = &l->lanes[i].first;
        pthread_mutex_init(&l->lanes[i].lock, NULL);
        pthread_cond_init(&l->lanes[i].wake, NULL);
    }
    return l;
}

/* The thread ends when its queue is empty; a later job starts another. */
static bool lane_finish(struct lane *lane)
{
    bool was = lane->started;
    if (lane->started) {
        pthread_mutex_lock(&lane->lock);
        lane->stop = true;
        pthread_cond_signal(&lane->wake);
        pthread_mutex_unlock(&lane->lock);
        pthread_join(lane->thread, NULL);
    }
    lane->started = lane->stop = false;
    return was;
}

static void lane_stop(struct lane *lane)
{
    lane_finish(lane);
    pthread_mutex_destroy(&lane->lock);
    pthread_cond_destroy(&lane->wake);
}

static void deferred_calls(struct loop *l)
{
    for (int round = 0; l->deferred.n && round < 64; round++) { /* what defers again waits for the next turn at last */
        struct calls now = l->deferred;
        l->deferred = (struct calls){ 0 };
        for (size_t i = 0; i < now.n; i++)
            now.v[i].fn(now.v[i].arg);
        free(now.v);
    }
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    for (int i = 0; i < LANES; i++)
        lane_stop(&l->lanes[i]);
    while (l->done_first) {
        struct job *j = l->done_first;
        l->done_first = j->next;
        free(j);
    }
    deferred_calls(l); /* mostly frees */
    event_free(l->kick);
    event_free(l->done_event);
    close(l->done_fd);
    pthread_mutex_destroy(&l->done_lock);
    event_base_free(l->base);
    free(l->deferred.v);
    free(l);
}

/* Heartbeats wait for as long as a turn takes: the worst one so far is told, and how much of it this thread worked; in the
 * rest others had the processor. */
static void turn_ends(struct loop *l)
{
    int64_t took = l->began_ns ? clock_mono_ns() - l->began_ns : 0;
    l->began_ns = 0;
    if (took <= l->longest_ns || took < LONG_TURN_MS * MS_NS)
        return;
    l->longest_ns = took;
    log_info("a turn of the loop took %lld ms, the longest so far; %lld ms of work", (long long)(took / MS_NS),
             (long long)((thread_cpu_ns() - l->cpu_ns) / MS_NS));
}

static void end_of_turn(struct loop *l)
{
    deferred_calls(l);
    for (unsigned i = 0; i < l->n_each; i++)
        l->each[i].fn(l->each[i].arg);
    if (l->deferred.n)
        event_active(l->kick, 0, 0);
    turn_ends(l);
}

void loop_run(struct loop *l)
{
    l->stop = false;
    end_of_turn(l);
    while (!l->stop) {
        event_base_loop(l->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY);
        end_of_turn(l);
    }
}

void loop_stop(struct loop *l)
{
    l->stop = true;
    event_active(l->kick, 0, 0);
}

void loop_finish(struct loop *l)
{
    for (int round = 0; round < FINISH_ROUNDS; round++) {
        bool worked = false;
        for (int i = 0; i < LANES; i++)
            worked |= lane_finish(&l->lanes[i]);
        on_done(l->done_fd, EV_READ, l);
        end_of_turn(l);
        if (!worked && !l->deferred.n)
            break;
    }
}

int64_t loop_now_ms(const struct loop *l)
{
    (void)l;
    return clock_mono_ns() / MS_NS;
}

void loop_defer(struct loop *l, loop_fn *fn, void *arg)
{
    if (l->deferred.n == l->deferred.cap) {
        l->deferred.cap = l->deferred.cap ? l->deferred.cap * 2 : 16;
        l->deferred.v = xrealloc(l->deferred.v, l->deferred.cap, sizeof *l->deferred.v);
    }
    if (!l->deferred.n)
        event_active(l->kick, 0, 0);
    l->deferred.v[l->deferred.n++] = (struct call){ fn, arg };
}

void loop_each_turn(struct loop *l, loop_fn *fn, void *arg)
{
    ASSERT(l->n_each < EACH_MAX);
    l->each[l->n_each++] = (struct call){ fn, arg };
}

static void on_fd(evutil_socket_t fd, short what, void *arg)
{
    struct loop_fd *w = arg;
    (void)fd;
    turn_begins(w->loop);
    w->fn(w->arg, (what & EV_READ ? LOOP_READ : 0U) | (what & EV_WRITE ? LOOP_WRITE : 0U));
}

void loop_fd_set(struct loop_fd *w, unsigned events)
{
    short what = (short)((events & LOOP_READ ? EV_READ : 0) | (events & LOOP_WRITE ? EV_WRITE : 0));
    event_del(w->ev);
    event_assign(w->ev, w->loop->base, w->fd, (short)(what | EV_PERSIST), on_fd, w);
    if (what)
        event_add(w->ev, NULL);
}

struct loop_fd *loop_fd_add(struct loop *l, int fd, unsigned events, loop_fd_fn *fn, void *arg)
{
    struct loop_fd *w = xnew(struct loop_fd);
    *w = (struct loop_fd){ .loop = l, .fd = fd, .fn = fn, .arg = arg };
    w->ev = event_new(l->base, fd, EV_PERSIST, on_fd, w);
    ASSERT(w->ev);
    loop_fd_set(w, events);
    return w;
}

void loop_fd_remove(struct loop_fd *w)
{
    if (!w)
        return;
    event_free(w->ev);
    free(w);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct loop_timer *t = arg;
    (void)fd, (void)what;
    turn_begins(t->loop);
    t->fn(t->arg);
}

struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg)
{
    struct loop_timer *t = xnew(struct loop_timer);
    t->loop = l;
    t->fn = fn;
    t->arg = arg;
    t->ev = event_new(l->base, -1, 0, on_timer, t);
    ASSERT(t->ev);
    return t;
}

void loop_timer_set(struct loop_timer *t, int64_t ms)
{
    struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    if (ms < 0)
        event_del(t->ev);
    else
        event_add(t->ev, &tv);
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t)
        return;
    event_free(t->ev);
    free(t);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct loop_signal *s = arg;
    (void)fd, (void)what;
    s->fn(s->arg);
}

struct loop_signal *loop_signal_add(struct loop *l, int signum, loop_fn *fn, void *arg)
{
    struct loop_signal *s = xnew(struct loop_signal);
    s->fn = fn;
    s->arg = arg;
    s->ev = evsignal_new(l->base, signum, on_signal, s);
    ASSERT(s->ev);
    event_add(s->ev, NULL);
    return s;
}

void loop_signal_remove(struct loop_signal *s)
{
    if (!s)
        return;
    event_free(s->ev);
    free(s);
}

static void finish(struct loop *l, struct job *j)
{
    uint64_t one = 1;
    j->next = NULL;
    pthread_mutex_lock(&l->done_lock);
    *l->done_last = j;
    l->done_last = &j->next;
    pthread_mutex_unlock(&l->done_lock);
    if (write(l->done_fd, &one, sizeof one) < 0)
        return; /* the counter is full: the loop is woken already */
}

static void *lane_main(void *arg)
{
    struct lane *lane = arg;
    pthread_mutex_lock(&lane->lock);
    for (;;) {
        while (!lane->first && !lane->stop)
            pthread_cond_wait(&lane->wake, &lane->lock);
        struct job *j = lane->first;
        if (!j)
            break; /* told to stop, and nothing is left to do */
        lane->first = j->next;
        if (!lane->first)
            lane->last = &lane->first;
        lane->n--;
        pthread_mutex_unlock(&lane->lock);
        j->work(j->arg);
        finish(lane->loop, j);
        pthread_mutex_lock(&lane->lock);
    }
    pthread_mutex_unlock(&lane->lock);
    return NULL;
}

int loop_work(struct loop *l, enum loop_lane which, loop_fn *work, loop_fn *done, void *arg)
{
    struct lane *lane = &l->lanes[which];
    struct job *j = xnew(struct job);
    *j = (struct job){ .work = work, .done = done, .arg = arg };
    pthread_mutex_lock(&lane->lock);
    bool full = lane->n >= JOBS_MAX;
    if (!full) {
        if (!lane->started) {
            ASSERT(pthread_create(&lane->thread, NULL, lane_main, lane) == 0);
            lane->started = true;
        }
        *lane->last = j;
        lane->last = &j->next;
        lane->n++;
        pthread_cond_signal(&lane->wake);
    }
    pthread_mutex_unlock(&lane->lock);
    if (full)
        free(j);
    return full ? -E_BUSY : 0;
}
