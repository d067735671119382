/* Asking peers for blobs. The thread of a pull wants a blob (image_get_blob) and takes its pieces in order; everything
 * that speaks to other nodes happens on the loop. Between them: one lock, one condition, and an eventfd that makes the
 * loop look at the gets posted since. A get belongs to both and goes when both have let go of it. */
#include "image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/map.h>
#include <sys/eventfd.h>
#include <unistd.h>

LOG_MODULE("image");

enum { REQUESTS_A_SOURCE = 2, SUSPECTS_MAX = 16 };

struct ready { struct list_node node; char *bytes; size_t size; };
struct verified { int fd; unsigned users; }; /* a blob whose layer is being unpacked */

struct image_peers {
    struct image_store *store;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int event_fd;
    struct loop_fd *watch;
    bool on;                  /* under lock: in a cluster */
    struct list_node posted;  /* under lock */
    struct strs forgotten;    /* under lock: digests */
    /* the loop's */
    struct list_node gets;
    struct image_peers_hooks hooks;
    struct map verified;      /* digest -> struct verified */
    struct image_serving serving;
};

struct request { /* one piece of one source */
    struct list_node node;
    struct image_get *g;  /* NULL: nobody wants it any more */
    int source, slot;
    struct stream *s;     /* NULL: not reached yet */
    bool head;            /* the answer has come, bytes follow */
    char *buf;            /* of the slot's piece */
};
struct source { char *id; bool live, moved; unsigned requests; };

struct image_get {
    struct list_node node, posted;
    struct image_peers *p;
    /* fixed */
    struct image_fetch *f;  /* the thread's: not the loop's business */
    char *digest, *name, *from;
    int64_t offset, size;
    bool alone;
    /* under lock */
    bool is_posted, spoilt, blame, ended, failed, thread_gone, loop_gone;
    int found_fd;           /* -1: it was not to be had */
    enum image_word word;
    struct list_node ready;
    unsigned n_ready;
    struct image_answer answer; /* of a name */
    /* the loop's */
    bool begun, registry;   /* registry: the thread was told to read it */
    struct stream *tracker;
    unsigned nth;
    struct source sources[IMAGE_SOURCES_MAX];
    struct image_pieces pieces;
    char *whole[IMAGE_WINDOW]; /* by slot: pieces that are complete */
    struct list_node requests;
    struct strs gave;       /* who completed a piece of the present bytes */
    struct strs bad, tried; /* not to be used again; single ones that were, after nobody else was left */
    struct loop_timer *stall;
};

static void step(struct image_get *g);

/* ---- the thread's side ---- */

static void post(struct image_get *g) /* under lock */
{
    uint64_t one = 1;
    if (!g->is_posted)
        list_push_back(&g->p->posted, &g->posted);
    g->is_posted = true;
    while (write(g->p->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static struct image_get *get_new(struct image_fetch *f)
{
    struct image_peers *p = f->peers;
    struct image_get *g = NULL;
    if (!p)
        return NULL;
    pthread_mutex_lock(&p->lock);
    if (p->on) {
        g = xnew(struct image_get);
        g->p = p;
        g->f = f;
        g->found_fd = -1;
        list_init(&g->ready);
        list_init(&g->requests);
    }
    pthread_mutex_unlock(&p->lock);
    return g;
}

static void get_begin(struct image_get *g)
{
    pthread_mutex_lock(&g->p->lock);
    post(g);
    pthread_mutex_unlock(&g->p->lock);
}

struct image_get *image_get_blob(struct image_fetch *f, const char *digest, int64_t offset, int64_t size, bool alone,
                                 const char *from)
{
    struct image_get *g = get_new(f);
    if (!g)
        return NULL;
    g->digest = xstrdup(digest);
    g->from = xstrdup(from);
    g->offset = offset;
    g->size = size;
    g->alone = alone;
    get_begin(g);
    return g;
}

enum image_word image_get_next(struct image_get *g, char **ret, size_t *ret_size)
{
    struct image_peers *p = g->p;
    enum image_word word = IMAGE_WAIT;
    pthread_mutex_lock(&p->lock);
    while (word == IMAGE_WAIT) {
        struct ready *r = list_first(&g->ready, struct ready, node);
        if (atomic_load(&g->f->stop)) {
            word = IMAGE_STOPPED;
        } else if (r) {
            word = IMAGE_BYTES;
            *ret = r->bytes;
            *ret_size = r->size;
            list_remove(&r->node);
            free(r);
            if (g->n_ready-- == IMAGE_WINDOW)
                post(g); /* there is room for more */
        } else if (g->word != IMAGE_WAIT) {
            word = g->word;
        } else {
            pthread_cond_wait(&p->wake, &p->lock);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return word;
}

void image_get_spoilt(struct image_get *g, bool blame)
{
    pthread_mutex_lock(&g->p->lock);
    g->spoilt = true;
    g->blame = blame;
    g->word = IMAGE_WAIT;
    post(g);
    pthread_mutex_unlock(&g->p->lock);
}

static void get_unlock_free(struct image_get *g) /* under lock, which it gives up */
{
    struct image_peers *p = g->p;
    bool over = g->thread_gone && g->loop_gone;
    if (over)
        list_remove(&g->posted);
    pthread_mutex_unlock(&p->lock);
    if (!over)
        return;
    struct ready *r;
    list_for(r, &g->ready, node) {
        free(r->bytes);
        free(r);
    }
    if (g->found_fd >= 0)
        close(g->found_fd);
    image_answer_clear(&g->answer);
    free(g->digest);
    free(g->name);
    free(g->from);
    free(g);
}

void image_get_end(struct image_get *g, const char *path)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    pthread_mutex_lock(&g->p->lock);
    g->found_fd = fd;
    g->ended = g->thread_gone = true;
    g->failed = !path && !atomic_load(&g->f->stop); /* a pull that is given up says nothing about the registry */
    if (!g->loop_gone)
        post(g);
    get_unlock_free(g);
}

void image_get_forget(struct image_fetch *f, const char *digest)
{
    uint64_t one = 1;
    if (!f->peers)
        return;
    pthread_mutex_lock(&f->peers->lock);
    strs_add(&f->peers->forgotten, digest);
    pthread_mutex_unlock(&f->peers->lock);
    while (write(f->peers->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

int image_get_name(struct image_fetch *f, const char *name, struct image_answer *ret, struct err *e)
{
    char *none;
    size_t size;
    struct image_get *g = get_new(f);
    *ret = (struct image_answer){ 0 };
    if (!g)
        return err_set(e, E_NOT_FOUND, "this node is in no cluster");
    g->name = xstrdup(name);
    get_begin(g);
    enum image_word word = image_get_next(g, &none, &size);
    pthread_mutex_lock(&g->p->lock);
    if (word == IMAGE_WHOLE) {
        *ret = g->answer;
        g->answer = (struct image_answer){ 0 };
    }
    pthread_mutex_unlock(&g->p->lock);
    image_get_end(g, NULL);
    return word == IMAGE_WHOLE ? 0 : err_set(e, word == IMAGE_STOPPED ? E_CLOSED : E_NOT_FOUND, "no node has it");
}

void image_peers_wake(struct image_peers *p)
{
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

/* ---- the loop's side ---- */

static void say(struct image_get *g, enum image_word word)
{
    pthread_mutex_lock(&g->p->lock);
    if (!g->spoilt)
        g->word = word;
    pthread_cond_broadcast(&g->p->wake);
    pthread_mutex_unlock(&g->p->lock);
}

static void tell_tracker(struct image_get *g, enum image_ask_kind kind, const char *node)
{
    struct image_ask a = { .kind = (int)kind };
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    str_set(&a.node, node);
    if (kind == IMAGE_ASK_WHERE)
        str_set(&a.digest, g->digest);
    str_set(&a.name, g->name);
    image_frame(&image_ask_rec, &a, &b);
    if (g->tracker)
        stream_write(g->tracker, b.s, b.len);
    image_ask_clear(&a);
}

static void request_free(struct request *r)
{
    list_remove(&r->node);
    if (r->g)
        r->g->sources[r->source].requests--;
    stream_free(r->s);
    free(r->buf);
    free(r);
}

static void drop_requests(struct image_get *g, int source /* -1: all */)
{
    struct request *r;
    list_for(r, &g->requests, node) {
        if (source >= 0 && r->source != source)
            continue;
        if (r->s) {
            request_free(r);
        } else { /* on_reached() comes */
            g->sources[r->source].requests--;
            list_remove(&r->node);
            r->g = NULL;
        }
    }
    image_pieces_lost(&g->pieces, source);
}

static unsigned n_live(const struct image_get *g)
{
    unsigned n = 0;
    for (unsigned i = 0; i < IMAGE_SOURCES_MAX; i++)
        n += g->sources[i].live;
    return n;
}

static void drop_source(struct image_get *g, int i)
{
    g->sources[i].live = false;
    drop_requests(g, i);
}

static void ask_tracker(struct image_get *g);
static void issue(struct image_get *g);

static void use_source(struct image_get *g, const char *id)
{
    for (unsigned i = 0; i < IMAGE_SOURCES_MAX; i++) {
        struct source *x = &g->sources[i];
        if (x->live || x->requests)
            continue;
        str_set(&x->id, id);
        x->live = x->moved = true;
        loop_timer_set(g->stall, IMAGE_STALL_MS);
        return;
    }
}

/* Nobody is known to give it: the registry; and where there is none, whoever may have it after all, one at a time, so
 * that it is known who gave wrong bytes: the node that offers the image, then those that gave them together with others. */
static void alone(struct image_get *g)
{
    const char *next = g->from && !strs_has(&g->tried, g->from) ? g->from : NULL;
    for (uint32_t i = 0; i < g->bad.n && !next; i++)
        next = strs_has(&g->tried, g->bad.v[i]) ? NULL : g->bad.v[i];
    g->registry = !g->alone;
    if (!g->alone) {
        say(g, IMAGE_REGISTRY);
    } else if (next) {
        strs_add(&g->tried, next);
        use_source(g, next);
        issue(g);
    } else {
        say(g, IMAGE_NONE);
    }
}

static void source_lost(struct image_get *g, int i)
{
    log_debug("node %s does not give %s", g->sources[i].id, g->digest);
    drop_source(g, i);
    if (g->bad.n < SUSPECTS_MAX && !strs_has(&g->bad, g->sources[i].id)) {
        strs_add(&g->bad, g->sources[i].id);
        strs_add(&g->tried, g->sources[i].id);
    }
    tell_tracker(g, IMAGE_ASK_BAD, g->sources[i].id); /* it names others, or the registry */
    if (!g->tracker && !n_live(g))
        ask_tracker(g);
    else
        issue(g);
}

/* ---- pieces ---- */

static void hand_on(struct image_get *g)
{
    int slot;
    while ((slot = image_pieces_take(&g->pieces)) >= 0) {
        struct ready *r = xnew(struct ready);
        r->bytes = TAKE(g->whole[slot]);
        r->size = g->pieces.v[slot].size;
        pthread_mutex_lock(&g->p->lock);
        if (g->spoilt || g->ended) {
            free(r->bytes);
            free(r);
        } else {
            list_push_back(&g->ready, &r->node);
            g->n_ready++;
        }
        pthread_cond_broadcast(&g->p->wake);
        pthread_mutex_unlock(&g->p->lock);
    }
    if (image_pieces_done(&g->pieces)) {
        loop_timer_set(g->stall, -1);
        say(g, IMAGE_WHOLE);
    }
}

static size_t on_piece(void *arg, const char *p, size_t size)
{
    struct request *r = arg;
    struct image_get *g = r->g;
    struct image_piece *x = &g->pieces.v[r->slot];
    size_t used = 0;
    if (!r->head) {
        struct image_answer a = { 0 };
        struct err e;
        long n = image_unframe(&image_answer_rec, &a, p, size, &e);
        bool good = n > 0 && a.kind == IMAGE_ANSWER_BYTES && a.size == x->size;
        if (n > 0 && !good)
            log_debug("node %s: %s", g->sources[r->source].id, a.error ? a.error : "another piece than asked for");
        image_answer_clear(&a);
        if (n == 0)
            return 0;
        if (!good) {
            source_lost(g, r->source); /* r is gone */
            return 0;
        }
        r->head = true;
        used = (size_t)n;
    }
    size_t n = MIN(size - used, (size_t)(x->size - x->got));
    memcpy(r->buf + x->got, p + used, n);
    image_pieces_got(&g->pieces, r->slot, (uint32_t)n);
    if (x->got == x->size) {
        struct source *from = &g->sources[r->source];
        from->moved = true;
        if (g->gave.n < SUSPECTS_MAX && !strs_has(&g->gave, from->id))
            strs_add(&g->gave, from->id);
        g->whole[r->slot] = TAKE(r->buf);
        request_free(r);
        hand_on(g);
        issue(g);
    }
    return used + n;
}

static void on_piece_end(void *arg)
{
    struct request *r = arg;
    source_lost(r->g, r->source);
}

static void on_piece_error(void *arg, const struct err *e)
{
    (void)e;
    on_piece_end(arg);
}

static void on_reached(void *arg, struct stream *s)
{
    static const struct stream_events events = { .on_data = on_piece, .on_eof = on_piece_end, .on_error = on_piece_error };
    struct request *r = arg;
    struct image_get *g = r->g;
    r->s = s;
    if (!g) {
        request_free(r);
        return;
    }
    if (!s) {
        source_lost(g, r->source);
        request_free(r); /* was left for this call */
        return;
    }
    const struct image_piece *x = &g->pieces.v[r->slot];
    struct image_ask a = { .kind = IMAGE_ASK_GET, .offset = (uint64_t)x->offset, .size = x->size };
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    str_set(&a.digest, g->digest);
    image_frame(&image_ask_rec, &a, &b);
    stream_write(s, b.s, b.len);
    image_ask_clear(&a);
    stream_set_events(s, &events, r);
}

static void ask_piece(struct image_get *g, int source, int slot)
{
    struct request *r = xnew(struct request);
    *r = (struct request){ .g = g, .source = source, .slot = slot };
    r->buf = try_calloc(1, g->pieces.v[slot].size);
    ASSERT(r->buf); /* IMAGE_PIECE_SIZE at most */
    list_push_back(&g->requests, &r->node);
    g->sources[source].requests++;
    g->p->hooks.reach(g->p->hooks.arg, g->sources[source].id, on_reached, r);
}

static void issue(struct image_get *g)
{
    pthread_mutex_lock(&g->p->lock);
    bool room = g->n_ready < IMAGE_WINDOW;
    pthread_mutex_unlock(&g->p->lock);
    for (unsigned round = 0; round < REQUESTS_A_SOURCE && room; round++)
        for (int i = 0; i < IMAGE_SOURCES_MAX; i++) {
            int slot = g->sources[i].live && g->sources[i].requests <= round ? image_pieces_ask(&g->pieces, i) : -1;
            if (slot >= 0)
                ask_piece(g, i, slot);
        }
}

/* A source that has requests and completed none since the last look is left: one that trickles is no better than none. */
static void on_stall(void *arg)
{
    struct image_get *g = arg;
    loop_timer_set(g->stall, IMAGE_STALL_MS);
    for (int i = 0; i < IMAGE_SOURCES_MAX; i++) {
        struct source *x = &g->sources[i];
        bool stuck = x->live && x->requests && !x->moved;
        x->moved = false;
        if (stuck)
            source_lost(g, i);
    }
}

/* ---- the tracker ---- */

static void drop_tracker(struct image_get *g)
{
    stream_free(g->tracker);
    g->tracker = NULL;
}

static void take_sources(struct image_get *g, const struct strs *ids)
{
    for (int i = 0; i < IMAGE_SOURCES_MAX; i++)
        if (g->sources[i].live && !strs_has(ids, g->sources[i].id))
            drop_source(g, i);
    for (uint32_t k = 0; k < ids->n; k++) {
        bool has = false;
        for (int i = 0; i < IMAGE_SOURCES_MAX; i++)
            has |= g->sources[i].live && str_equal(g->sources[i].id, ids->v[k]);
        if (!has)
            use_source(g, ids->v[k]);
    }
    if (n_live(g))
        issue(g);
    else
        alone(g);
}

static void take_name(struct image_get *g, struct image_answer *a)
{
    bool good = a->kind == IMAGE_ANSWER_NAME && image_digest_ok(a->manifest) && a->size <= IMAGE_MANIFEST_MAX;
    if (good) {
        pthread_mutex_lock(&g->p->lock);
        image_answer_clear(&g->answer);
        g->answer = *a;
        *a = (struct image_answer){ 0 };
        pthread_mutex_unlock(&g->p->lock);
    }
    drop_tracker(g);
    say(g, good ? IMAGE_WHOLE : IMAGE_NONE);
}

static void on_tracker_end(void *arg);

static size_t on_answer(void *arg, const char *p, size_t size)
{
    struct image_get *g = arg;
    struct image_answer a = { 0 };
    struct err e;
    long n = image_unframe(&image_answer_rec, &a, p, size, &e);
    if (n == 0)
        return 0;
    if (n < 0) {
        log_warn("%s", e.text);
        drop_tracker(g);
        if (g->name)
            say(g, IMAGE_NONE);
        else if (!n_live(g))
            alone(g);
        return 0;
    }
    if (g->name)
        take_name(g, &a);
    else if (a.kind == IMAGE_ANSWER_SOURCES && !g->registry)
        take_sources(g, &a.nodes);
    else if (a.kind != IMAGE_ANSWER_SOURCES && a.kind != IMAGE_ANSWER_REGISTRY)
        on_tracker_end(g); /* it has no wish of ours, and would say nothing when a source is lost */
    else if (!n_live(g))
        alone(g);
    image_answer_clear(&a);
    return (size_t)n;
}

static void on_tracker_end(void *arg)
{
    struct image_get *g = arg;
    drop_tracker(g);
    g->nth++;
    if (g->name)
        say(g, IMAGE_NONE);
    else if (!n_live(g) && !g->registry)
        ask_tracker(g);
}

static void on_tracker_error(void *arg, const struct err *e)
{
    (void)e;
    on_tracker_end(arg);
}

static void ask_tracker(struct image_get *g)
{
    static const struct stream_events events = { .on_data = on_answer, .on_eof = on_tracker_end, .on_error = on_tracker_error };
    const struct image_peers_hooks *h = &g->p->hooks;
    unsigned n = g->name ? 1 : h->n_trackers(h->arg);
    for (; !g->tracker && g->nth < n; g->nth += !g->tracker)
        g->tracker = h->tracker(h->arg, g->digest, g->nth);
    if (!g->tracker) {
        if (g->name)
            say(g, IMAGE_NONE);
        else
            alone(g);
        return;
    }
    tell_tracker(g, g->name ? IMAGE_ASK_NAME : IMAGE_ASK_WHERE, NULL);
    for (uint32_t i = 0; i < g->bad.n; i++)
        tell_tracker(g, IMAGE_ASK_BAD, g->bad.v[i]);
    stream_set_events(g->tracker, &events, g);
}

/* ---- a get, from its begin to its end ---- */

/* Nothing of the wrong bytes is left; true: who gave them is to blame. */
static bool drop_ready(struct image_get *g)
{
    struct ready *r;
    pthread_mutex_lock(&g->p->lock);
    bool blame = g->blame;
    g->spoilt = false;
    list_for(r, &g->ready, node) {
        list_remove(&r->node);
        free(r->bytes);
        free(r);
    }
    g->n_ready = 0;
    pthread_mutex_unlock(&g->p->lock);
    return blame;
}

static void spoilt(struct image_get *g)
{
    bool blame = drop_ready(g), single = g->gave.n == 1;
    for (uint32_t k = 0; k < g->gave.n && blame; k++) {
        const char *id = g->gave.v[k];
        for (int i = 0; i < IMAGE_SOURCES_MAX; i++)
            if (g->sources[i].live && str_equal(g->sources[i].id, id))
                drop_source(g, i);
        if (single)
            log_warn("node %s gave wrong bytes for %s", id, g->digest);
        if (g->bad.n < SUSPECTS_MAX && !strs_has(&g->bad, id))
            strs_add(&g->bad, id);
        if (single && !strs_has(&g->tried, id))
            strs_add(&g->tried, id);
        tell_tracker(g, IMAGE_ASK_BAD, id);
    }
    strs_clear(&g->gave);
    drop_requests(g, -1);
    for (unsigned i = 0; i < IMAGE_WINDOW; i++)
        free(TAKE(g->whole[i]));
    image_pieces_init(&g->pieces, 0, g->size);
    if (n_live(g)) {
        loop_timer_set(g->stall, IMAGE_STALL_MS);
        issue(g);
    } else if (!g->tracker) {
        ask_tracker(g);
    }
}

static void verified_free(struct verified *v)
{
    close(v->fd);
    free(v);
}

static void end(struct image_get *g)
{
    struct image_peers *p = g->p;
    pthread_mutex_lock(&p->lock);
    int fd = g->found_fd;
    bool failed = g->failed;
    g->found_fd = -1;
    pthread_mutex_unlock(&p->lock);
    if (fd >= 0 && p->hooks.arg) {
        struct verified *v = map_find(&p->verified, g->digest);
        if (v) {
            v->users++;
            close(fd);
        } else {
            v = xnew(struct verified);
            *v = (struct verified){ .fd = fd, .users = 1 };
            map_put(&p->verified, g->digest, v);
        }
        tell_tracker(g, IMAGE_ASK_FOUND, NULL);
    } else {
        if (fd >= 0)
            close(fd);
        if (g->registry && failed)
            tell_tracker(g, IMAGE_ASK_FAILED, NULL);
    }
    if (g->tracker)
        stream_free_when_sent(TAKE(g->tracker));
    drop_requests(g, -1);
    for (unsigned i = 0; i < IMAGE_WINDOW; i++)
        free(g->whole[i]);
    for (int i = 0; i < IMAGE_SOURCES_MAX; i++)
        free(g->sources[i].id);
    strs_clear(&g->gave);
    strs_clear(&g->bad);
    strs_clear(&g->tried);
    loop_timer_free(g->stall);
    list_remove(&g->node);
    pthread_mutex_lock(&p->lock);
    g->loop_gone = true;
    get_unlock_free(g);
}

static void step(struct image_get *g)
{
    struct image_peers *p = g->p;
    pthread_mutex_lock(&p->lock);
    bool ended = g->ended, was_spoilt = g->spoilt;
    pthread_mutex_unlock(&p->lock);
    if (!g->begun) {
        g->begun = true;
        list_push_back(&p->gets, &g->node);
        g->stall = loop_timer_new(p->store->loop, on_stall, g);
        image_pieces_init(&g->pieces, MIN(g->offset, g->size), g->size);
        if (!ended && !p->hooks.arg)
            say(g, g->alone || g->name ? IMAGE_NONE : IMAGE_REGISTRY);
        else if (!ended && !g->name && image_pieces_done(&g->pieces))
            say(g, IMAGE_WHOLE); /* an earlier pull left all of it */
        else if (!ended)
            ask_tracker(g);
    }
    if (ended) {
        end(g);
    } else if (was_spoilt && p->hooks.arg) {
        spoilt(g);
    } else if (was_spoilt) { /* the cluster was left meanwhile */
        (void)drop_ready(g);
        say(g, g->alone ? IMAGE_NONE : IMAGE_REGISTRY);
    } else {
        issue(g);
    }
}

static void forget(struct image_peers *p, const char *digest)
{
    struct verified *v = map_find(&p->verified, digest);
    if (!v || --v->users)
        return;
    map_remove(&p->verified, digest);
    verified_free(v);
}

static void on_wake(void *arg, unsigned events)
{
    struct image_peers *p = arg;
    struct image_get *g;
    struct strs forgotten;
    uint64_t n;
    if (read(p->event_fd, &n, sizeof n) < 0 && errno == EAGAIN)
        return;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        g = list_first(&p->posted, struct image_get, posted);
        if (g) {
            list_remove(&g->posted);
            g->is_posted = false;
        } else { /* in the same hold: what is forgotten was posted before */
            forgotten = p->forgotten;
            p->forgotten = (struct strs){ 0 };
        }
        pthread_mutex_unlock(&p->lock);
        if (!g)
            break;
        step(g);
    }
    for (uint32_t i = 0; i < forgotten.n; i++)
        forget(p, forgotten.v[i]);
    strs_clear(&forgotten);
}

/* ---- life ---- */

struct image_peers *image_peers_new(struct image_store *s)
{
    struct image_peers *p = xnew(struct image_peers);
    p->store = s;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    list_init(&p->posted);
    list_init(&p->gets);
    map_init(&p->verified);
    image_serving_init(&p->serving, p);
    p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->event_fd >= 0)
        p->watch = loop_fd_add(s->loop, p->event_fd, LOOP_READ, on_wake, p);
    else
        log_warn("no eventfd: images come from registries only");
    return p;
}

void image_peers_set(struct image_store *s, const struct image_peers_hooks *h)
{
    struct image_peers *p = s->peers;
    struct image_get *g;
    p->hooks = h && p->event_fd >= 0 ? *h : (struct image_peers_hooks){ 0 };
    pthread_mutex_lock(&p->lock);
    p->on = p->hooks.arg != NULL;
    pthread_mutex_unlock(&p->lock);
    if (p->hooks.arg)
        return;
    list_for(g, &p->gets, node) { /* the rest without peers */
        drop_tracker(g);
        for (int i = 0; i < IMAGE_SOURCES_MAX; i++)
            drop_source(g, i);
        loop_timer_set(g->stall, -1);
        if (!g->name && image_pieces_done(&g->pieces))
            continue;
        say(g, g->alone || g->name ? IMAGE_NONE : IMAGE_REGISTRY);
    }
    image_serving_stop(&p->serving);
}

void image_peers_free(struct image_peers *p)
{
    struct image_get *g;
    list_for(g, &p->gets, node)
        end(g);
    list_for(g, &p->posted, posted) { /* never begun */
        list_remove(&g->posted);
        pthread_mutex_lock(&p->lock);
        g->loop_gone = true;
        get_unlock_free(g);
    }
    image_serving_stop(&p->serving);
    loop_timer_free(p->serving.tick);
    loop_fd_remove(p->watch);
    if (p->event_fd >= 0)
        close(p->event_fd);
    for (struct map_item *it = NULL; (it = map_next(&p->verified, it));)
        verified_free(it->value);
    map_done(&p->verified);
    strs_clear(&p->forgotten);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p);
}

void image_peers_changed(struct image_store *s)
{
    if (s->peers && s->peers->hooks.arg)
        s->peers->hooks.held_changed(s->peers->hooks.arg);
}

struct image_serving *image_peers_serving(struct image_peers *p)
{
    return &p->serving;
}

struct image_store *image_peers_store(struct image_peers *p)
{
    return p->store;
}

int image_peers_open_blob(struct image_peers *p, const char *digest)
{
    const struct verified *v = map_find(&p->verified, digest);
    AUTO_FREE char *path = image_blob_path(p->store->root, digest);
    return v ? fcntl(v->fd, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}
