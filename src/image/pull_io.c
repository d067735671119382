/* Pulls and remote looks, seen from the loop: one thread a pull (fetch_io.c), whose progress
 * comes back through a mutex-protected queue and an eventfd. Callers that ask for the same
 * reference while it is being pulled wait for the same pull. After the store is closed nobody is
 * called back: who asked is going too. */
#include "image_internal.h"

#include <errno.h>
#include <shoal/base/crypto.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PULLS_MAX = 64 };

struct event {
    struct list_node node;
    char *id, *status;
    int64_t current, total;
};

struct waiter {
    struct list_node node;
    image_progress_fn *progress;
    image_pull_done_fn *done;
    void *arg;
};

struct image_pull {
    struct list_node node;     /* in the store's pulls */
    struct image_store *store;
    struct list_node waiters;
    image_inspect_remote_fn *inspect_done; /* a look only */
    image_push_done_fn *push_done;
    image_login_done_fn *login_done;
    void *inspect_arg;         /* of these three */
    void (*work)(struct image_fetch *f);
    char *key;                 /* of a pull: full reference with digest; others are not shared: NULL */
    pthread_t thread;
    bool has_thread, finishing;
    int event_fd;
    struct loop_fd *watch;
    struct list_node events;   /* under fetch.lock */
    bool ended;                /* under fetch.lock */
    struct image_fetch fetch;
};

/* ---- thread ---- */

static void wake_loop(struct image_pull *p)
{
    uint64_t one = 1;
    while (write(p->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void on_emit(void *arg, const char *id, const char *status, int64_t current, int64_t total)
{
    struct image_pull *p = arg;
    struct event *ev = xnew(struct event);
    *ev = (struct event){
        .id = xstrdup(id), .status = xstrdup(status), .current = current, .total = total
    };
    pthread_mutex_lock(&p->fetch.lock);
    list_push_back(&p->events, &ev->node);
    pthread_mutex_unlock(&p->fetch.lock);
    wake_loop(p);
}

static void *pull_main(void *arg)
{
    struct image_pull *p = arg;
    p->work(&p->fetch);
    pthread_mutex_lock(&p->fetch.lock);
    p->ended = true;
    pthread_mutex_unlock(&p->fetch.lock);
    wake_loop(p);
    return NULL;
}

/* ---- loop ---- */

static void event_free(struct event *ev)
{
    list_remove(&ev->node);
    free(ev->id);
    free(ev->status);
    free(ev);
}

static void join(struct image_pull *p)
{
    if (p->has_thread)
        pthread_join(p->thread, NULL);
    p->has_thread = false;
}

static void remote_clear(struct image_remote *r)
{
    free(r->digest);
    free(r->media_type);
    strs_clear(&r->architectures);
    strs_clear(&r->oss);
}

static void pull_free(struct image_pull *p)
{
    struct image_store *s = p->store;
    struct image_fetch *f = &p->fetch;
    struct waiter *w;
    struct event *ev;
    list_remove(&p->node);
    loop_fd_remove(p->watch);
    if (p->event_fd >= 0)
        close(p->event_fd);
    list_for(ev, &p->events, node)
        event_free(ev);
    list_for(w, &p->waiters, node) {
        list_remove(&w->node);
        free(w);
    }
    if (f->auth)
        crypto_wipe(f->auth, strlen(f->auth));
    free(f->auth);
    free(f->root);
    free(f->certs_dir);
    strs_clear(&f->mirrors);
    free(f->familiar);
    free(f->named);
    image_offer_clear(&f->offer);
    free(f->id);
    free(f->manifest);
    strs_clear(&f->diff_ids);
    strs_clear(&f->sources);
    image_ref_clear(&f->ref);
    image_loaded_clear(&f->loaded);
    remote_clear(&f->remote);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->wake);
    free(p->key);
    free(p);
    image_store_unhold(s);
}

static void deliver(struct image_pull *p)
{
    struct list_node batch;
    struct event *ev;
    struct waiter *w;
    list_init(&batch);
    pthread_mutex_lock(&p->fetch.lock);
    list_for(ev, &p->events, node) {
        list_remove(&ev->node);
        list_push_back(&batch, &ev->node);
    }
    pthread_mutex_unlock(&p->fetch.lock);
    list_for(ev, &batch, node) {
        struct image_progress progress = {
            .id = ev->id, .status = ev->status, .current = ev->current, .total = ev->total
        };
        list_for(w, &p->waiters, node)
            if (w->progress && !p->store->closed)
                w->progress(w->arg, &progress);
        event_free(ev);
    }
}

/* Deferred: the end of a pull, with its thread or without one ever made. */
static void finish(void *arg)
{
    struct image_pull *p = arg;
    struct image_store *s = p->store;
    struct image_fetch *f = &p->fetch;
    struct waiter *w;
    join(p);
    deliver(p);
    list_remove(&p->node); /* who asks from a callback begins anew */
    s->sweep_wanted = true;
    if (f->heard || f->unheard)
        image_silence_note(&s->silence, f->ref.host, f->unheard, loop_now_ms(s->loop));
    bool made = p->key || (p->push_done && image_find(s, f->id)); /* what is removed meanwhile stays so */
    if (f->code == 0 && made && !s->closed)
        f->code = image_store_commit(s, &f->loaded, NULL, &f->e);
    if (f->code < 0 && !s->closed)
        image_peers_changed(s); /* blobs of it that others were told of are swept */
    const struct err *e = f->code < 0 ? &f->e : NULL;
    if (p->inspect_done && !s->closed)
        p->inspect_done(p->inspect_arg, e ? NULL : &f->remote, e);
    struct image_pushed pushed = { .digest = f->remote.digest, .size = f->size };
    if (p->push_done && !s->closed)
        p->push_done(p->inspect_arg, e ? NULL : &pushed, e);
    if (p->login_done && !s->closed)
        p->login_done(p->inspect_arg, e);
    list_for(w, &p->waiters, node) {
        const struct image *image = e || p->push_done ? NULL : image_find(s, f->loaded.v[0].id);
        if (!s->closed && w->done)
            w->done(w->arg, image, e);
    }
    pull_free(p);
}

static void on_wake(void *arg, unsigned events)
{
    struct image_pull *p = arg;
    uint64_t n;
    if (read(p->event_fd, &n, sizeof n) < 0 && errno == EAGAIN)
        return;
    pthread_mutex_lock(&p->fetch.lock);
    bool ended = p->ended;
    pthread_mutex_unlock(&p->fetch.lock);
    if (!ended) {
        deliver(p);
    } else if (!p->finishing) {
        p->finishing = true;
        loop_fd_set(p->watch, 0);
        loop_defer(p->store->loop, finish, p);
    }
}

static struct image_pull *pull_new(struct image_store *s, const char *auth)
{
    struct image_pull *p = xnew(struct image_pull);
    pthread_condattr_t attr;
    p->store = s;
    p->event_fd = -1;
    list_init(&p->waiters);
    list_init(&p->events);
    list_push_back(&s->pulls, &p->node);
    image_store_hold(s);
    pthread_mutex_init(&p->fetch.lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->fetch.wake, &attr);
    pthread_condattr_destroy(&attr);
    p->fetch.root = xstrdup(s->root);
    p->fetch.peers = s->peers;
    p->fetch.auth = xstrdup(auth);
    p->fetch.emit = on_emit;
    p->fetch.arg = p;
    return p;
}

static bool too_many(const struct image_store *s)
{
    unsigned n = 0;
    struct image_pull *p;
    list_for(p, &s->pulls, node)
        n++;
    return n > PULLS_MAX;
}

/* "HOST=URL", or "URL" for docker.io. */
static void mirrors_of(const struct image_store *s, const char *host, struct strs *ret)
{
    for (uint32_t i = 0; i < s->mirrors.n; i++) {
        const char *text = s->mirrors.v[i], *url = strstr(text, "=http");
        AUTO_FREE char *of = url ? xstrndup(text, (size_t)(url - text)) : xstrdup("docker.io");
        if (str_equal(of, host))
            strs_add(ret, url ? url + 1 : text);
    }
}

/* ref is taken in any case; code: what went wrong with it. Every end comes by finish(), never
 * from here. */
static void pull_start(struct image_pull *p, struct image_ref *ref, int code)
{
    struct image_fetch *f = &p->fetch;
    f->ref = *ref;
    f->code = code;
    if (code == 0) {
        f->familiar = ref->path ? image_ref_familiar(ref) : xstrdup(ref->host);
        f->insecure = strs_has(&p->store->insecure, ref->host);
        f->certs_dir = xstrdup(p->store->certs_dir);
        f->silent = image_silence_has(&p->store->silence, ref->host, loop_now_ms(p->store->loop));
        if (!p->push_done && !p->login_done)
            mirrors_of(p->store, ref->host, &f->mirrors);
        if (too_many(p->store))
            f->code =
                err_set(&f->e, E_BUSY, "more than %d pulls at once; try again later", PULLS_MAX);
    }
    if (f->code == 0 && (p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        f->code = err_errno(&f->e, errno, "eventfd for a pull");
    if (f->code == 0) {
        p->watch = loop_fd_add(p->store->loop, p->event_fd, LOOP_READ, on_wake, p);
        int error = pthread_create(&p->thread, NULL, pull_main, p);
        if (error)
            f->code = err_errno(&f->e, error, "start the thread of a pull");
        else
            p->has_thread = true;
    }
    if (!p->has_thread && f->code < 0) { /* f is the thread's once there is one */
        p->finishing = true;
        loop_defer(p->store->loop, finish, p);
    }
}

static void pull(struct image_store *s, const char *ref, const char *auth, bool task, image_progress_fn *progress,
                 image_pull_done_fn *done, void *arg)
{
    struct image_ref r;
    struct err e = { 0 };
    struct image_pull *p, *found = NULL;
    struct waiter *w = xnew(struct waiter);
    *w = (struct waiter){ .progress = progress, .done = done, .arg = arg };
    int code = image_ref_parse(&r, ref, &e);
    AUTO_FREE char *full = code == 0 ? image_ref_full(&r) : xstrdup("");
    AUTO_FREE char *key = xasprintf("%s%s@%s", task ? "task " : "", full, code == 0 && r.digest ? r.digest : "");
    list_for(p, &s->pulls, node)
        if (code == 0 && p->key && str_equal(p->key, key))
            found = p;
    if (found) {
        list_push_back(&found->waiters, &w->node);
        image_ref_clear(&r);
        return;
    }
    p = pull_new(s, auth);
    p->key = TAKE(key);
    p->work = image_fetch_pull;
    p->fetch.e = e;
    p->fetch.task = task;
    p->fetch.named = xstrdup(ref);
    list_push_back(&p->waiters, &w->node);
    pull_start(p, &r, code);
}

void image_pull(struct image_store *s, const char *ref, const char *auth, image_progress_fn *progress,
                image_pull_done_fn *done, void *arg)
{
    pull(s, ref, auth, false, progress, done, arg);
}

void image_pull_for_task(struct image_store *s, const char *ref, const char *auth, image_pull_done_fn *done, void *arg)
{
    pull(s, ref, auth, true, NULL, done, arg);
}

static int check_offer(const struct image_offer *o, struct err *e)
{
    struct image_ref r;
    int code = image_digest_ok(o->manifest) ? 0 : err_set(e, E_INVALID, "Manifest: no digest");
    for (uint32_t i = 0; i < o->tags.n + o->digests.n && code == 0; i++) {
        code = image_ref_parse(&r, i < o->tags.n ? o->tags.v[i] : o->digests.v[i - o->tags.n], e);
        if (code == 0)
            image_ref_clear(&r);
    }
    return code;
}

void image_take(struct image_store *s, const struct image_offer *o, image_progress_fn *progress, image_pull_done_fn *done,
                void *arg)
{
    struct image_ref r = { .host = xstrdup("cluster") };
    struct image_pull *p = pull_new(s, NULL);
    struct waiter *w = xnew(struct waiter);
    struct image_offer *own = &p->fetch.offer;
    *w = (struct waiter){ .progress = progress, .done = done, .arg = arg };
    list_push_back(&p->waiters, &w->node);
    p->work = image_fetch_take;
    p->key = xasprintf("take %s", o->manifest ? o->manifest : "");
    own->manifest = xstrdup(o->manifest);
    own->from = xstrdup(o->from);
    own->size = o->size;
    for (uint32_t i = 0; i < o->tags.n; i++)
        strs_add(&own->tags, o->tags.v[i]);
    for (uint32_t i = 0; i < o->digests.n; i++)
        strs_add(&own->digests, o->digests.v[i]);
    int code = check_offer(o, &p->fetch.e);
    pull_start(p, &r, code);
}

void image_inspect_remote(struct image_store *s, const char *ref, const char *auth,
                          image_inspect_remote_fn *done, void *arg)
{
    struct image_ref r;
    struct image_pull *p = pull_new(s, auth);
    int code = image_ref_parse(&r, ref, &p->fetch.e);
    p->fetch.quick = true;
    p->work = image_fetch_remote;
    p->inspect_done = done;
    p->inspect_arg = arg;
    pull_start(p, &r, code);
}

/* Another repository of this registry that an image with this layer came from or went to. */
static char *source_of(const struct image_store *s, const char *diff_id, const struct image_ref *to)
{
    for (const struct image *i = NULL; (i = image_next(s, i));) {
        struct image_ref r;
        for (uint32_t k = 0; strs_has(&i->config.diff_ids, diff_id) && k < i->repo_digests.n; k++) {
            if (image_ref_parse(&r, i->repo_digests.v[k], NULL) < 0)
                continue;
            char *path = str_equal(r.host, to->host) && !str_equal(r.path, to->path) ? TAKE(r.path) : NULL;
            image_ref_clear(&r);
            if (path)
                return path;
        }
    }
    return xstrdup("");
}

static int push_of(struct image_fetch *f, const struct image_store *s, const char *name, struct image_ref *ret)
{
    const struct image *image = image_find(s, name);
    int code = image_ref_parse(ret, name, &f->e);
    if (code == 0 && (ret->digest || !image))
        code = ret->digest ? err_set(&f->e, E_INVALID, "cannot push a digest reference (%.300s)", name)
                           : err_set(&f->e, E_NOT_FOUND, "An image does not exist locally with the tag: %.300s", name);
    if (code < 0)
        return code;
    f->id = xstrdup(image->id);
    f->manifest = xstrdup(image->manifest);
    for (uint32_t i = 0; i < image->config.diff_ids.n; i++) {
        AUTO_FREE char *source = source_of(s, image->config.diff_ids.v[i], ret);
        strs_add(&f->diff_ids, image->config.diff_ids.v[i]);
        strs_add(&f->sources, source);
    }
    return 0;
}

void image_push(struct image_store *s, const char *ref, const char *auth, image_progress_fn *progress,
                image_push_done_fn *done, void *arg)
{
    struct image_ref r = { 0 };
    struct image_pull *p = pull_new(s, auth);
    struct waiter *w = xnew(struct waiter);
    *w = (struct waiter){ .progress = progress, .arg = arg };
    list_push_back(&p->waiters, &w->node);
    p->work = image_fetch_push;
    p->push_done = done;
    p->inspect_arg = arg;
    int code = push_of(&p->fetch, s, ref, &r);
    pull_start(p, &r, code);
}

/* "https://HOST/v1/" as docker's client writes it, or HOST. */
static int login_of(struct image_fetch *f, const char *auth, struct image_ref *ret)
{
    struct val_doc *d = NULL;
    int code = json_parse(&d, auth, strlen(auth), "credentials", &f->e);
    if (code < 0)
        return code;
    const char *address = val_get_str(val_root(d), "serveraddress");
    address = address && address[0] ? address : "docker.io";
    const char *scheme = strstr(address, "://");
    AUTO_FREE char *host = xstrdup(scheme ? scheme + 3 : address);
    host[strcspn(host, "/")] = 0;
    AUTO_FREE char *name = xasprintf("%s/login", host);
    code = image_ref_parse(ret, name, NULL);
    if (code == 0 && !str_equal(ret->host, host) && !str_equal(host, "index.docker.io")) {
        image_ref_clear(ret);
        code = -E_INVALID;
    }
    if (code < 0)
        (void)err_set(&f->e, E_INVALID, "serveraddress: \"%.200s\" is no registry; want HOST[:PORT]", address);
    val_doc_free(d);
    free(TAKE(ret->path)); /* the registry itself is asked */
    return code;
}

void image_login(struct image_store *s, const char *auth, image_login_done_fn *done, void *arg)
{
    struct image_ref r = { 0 };
    struct image_pull *p = pull_new(s, auth);
    p->work = image_fetch_login;
    p->login_done = done;
    p->inspect_arg = arg;
    int code = login_of(&p->fetch, auth, &r);
    pull_start(p, &r, code);
}

void image_pulls_stop(struct image_store *s)
{
    struct image_pull *p;
    list_for(p, &s->pulls, node)
        image_fetch_stop(&p->fetch);
    list_for(p, &s->pulls, node) {
        join(p);
        if (!p->finishing)
            pull_free(p); /* else finish() does it at the end of the turn */
    }
}
