/* What a pull does on its own thread: manifest, configuration, then up to LAYER_THREADS layers
 * at once, each downloaded, verified and unpacked by one thread with a connection of its own
 * (inflating is what takes the time, so that is what runs in parallel). Only struct image_fetch
 * is touched here, never the store: layers and blobs land on disk under their digests, and the
 * loop's thread makes an image of them at the end. */
#include "image_internal.h"

#include <errno.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <time.h>
#include <unistd.h>

LOG_MODULE("image");

enum { LAYER_THREADS = 3, TELL_MS = 100,
       TASK_CONNECT_MS = 1000 /* who has the image elsewhere: names, TCP and TLS over any usual path */ };

/* A pull's layers in work. */
struct layers {
    struct image_fetch *f;
    bool no_registry;
    const struct image_manifest *m;
    const struct image_config *config;
    const char *authorization;
    uint32_t next;  /* under f->lock, as is what fails first in f->code and f->e */
    bool missing[IMAGE_LAYERS_MAX];
};

struct layer {
    struct image_fetch *f;
    const struct image_desc *desc;
    char id[13];
    int64_t told_ns;
};

static bool is_stopped(void *arg)
{
    struct image_fetch *f = arg;
    return atomic_load(&f->stop);
}

static void stop_all(struct image_fetch *f, bool closed)
{
    pthread_mutex_lock(&f->lock);
    f->closed |= closed;
    atomic_store(&f->stop, true);
    pthread_cond_broadcast(&f->wake);
    pthread_mutex_unlock(&f->lock);
    if (f->peers)
        image_peers_wake(f->peers);
}

void image_fetch_stop(struct image_fetch *f)
{
    stop_all(f, true);
}

/* Back-off before another try; a stop ends it at once. */
static bool wait_ms(void *arg, int ms)
{
    struct image_fetch *f = arg;
    int64_t until = clock_mono_ns() + ms * MS_NS;
    struct timespec ts = { .tv_sec = until / SEC_NS, .tv_nsec = until % SEC_NS };
    pthread_mutex_lock(&f->lock);
    while (!atomic_load(&f->stop) && pthread_cond_timedwait(&f->wake, &f->lock, &ts) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&f->lock);
    return atomic_load(&f->stop);
}

void image_fetch_tell(struct image_fetch *f, const char *id, const char *status)
{
    if (f->emit)
        f->emit(f->arg, id, status, 0, 0);
}

int image_fetch_open(struct image_fetch *f, const char *authorization, bool push, struct image_registry **ret,
                     struct err *e)
{
    struct image_registry_config cfg = {
        .host = f->ref.host,
        .path = f->ref.path,
        .familiar = f->familiar,
        .base = f->base,
        .certs_dir = f->certs_dir,
        .authorization = authorization,
        .insecure = f->insecure,
        .quick = f->quick || f->base, /* a mirror that is down must not hold up what the next one has */
        .connect_ms = f->task && f->quick && !f->base ? TASK_CONNECT_MS : 0,
        .push = push,
        .auth = f->base ? NULL : f->auth,
        .wait = wait_ms,
        .cancelled = is_stopped,
        .arg = f,
    };
    return image_registry_open(ret, &cfg, e);
}

/* ---- layers ---- */

static void layer_tell(struct layer *l, const char *status, int64_t current, int64_t total)
{
    int64_t now = clock_mono_ns();
    if (!l->f->emit || (current < total && now - l->told_ns < TELL_MS * MS_NS))
        return;
    l->told_ns = now;
    l->f->emit(l->f->arg, l->id, status, current, total);
}

static void on_download(void *arg, int64_t current)
{
    struct layer *l = arg;
    layer_tell(l, "Downloading", current, l->desc->size);
}

static void on_extract(void *arg, int64_t current, int64_t total)
{
    layer_tell(arg, "Extracting", current, total);
}

static void short_id(char id[13], const char *digest)
{
    memcpy(id, image_digest_hex(digest), 12);
    id[12] = 0;
}

/* Pieces from other nodes, into w. *ret_registry: the rest is to come from there, or from nowhere. */
static int from_peers(struct image_get *g, const struct image_desc *desc, struct image_blob_writer *w, image_bytes_fn *tell,
                      void *arg, bool *ret_registry, struct err *e)
{
    for (;;) {
        AUTO_FREE char *bytes = NULL;
        size_t n = 0;
        switch (image_get_next(g, &bytes, &n)) {
        case IMAGE_BYTES:
            if (image_blob_add(w, bytes, n, e) < 0)
                return -e->code;
            if (tell)
                tell(arg, image_blob_size(w));
            break;
        case IMAGE_WHOLE:
            return 0;
        case IMAGE_REGISTRY:
            *ret_registry = true;
            return 0;
        case IMAGE_NONE:
            return err_set(e, E_NOT_FOUND, "no node that can be reached gives %s", desc->digest);
        case IMAGE_STOPPED:
        case IMAGE_WAIT:
            return err_set(e, E_CLOSED, "cancelled");
        }
    }
}

/* From peers while they have it, then from the registry. *ret_mixed: that gave the end of what others began. */
static int fill(struct image_registry *r, struct image_get *g, const struct image_desc *desc, struct image_blob_writer *w,
                image_bytes_fn *tell, void *arg, bool *ret_registry, bool *ret_mixed, struct err *e)
{
    *ret_registry = !g;
    int code = g ? from_peers(g, desc, w, tell, arg, ret_registry, e) : 0;
    if (code < 0 || !*ret_registry)
        return code;
    *ret_mixed = image_blob_size(w) > 0;
    return r ? image_registry_blob(r, desc, w, tell, arg, e)
             : err_set(e, E_UNAVAILABLE, "%s is not to be had: this node left the cluster", desc->digest);
}

int image_fetch_blob(struct image_fetch *f, struct image_registry *r, const struct image_desc *desc, image_bytes_fn *tell,
                     void *arg, char **ret_path, struct err *e)
{
    struct image_get *g = NULL;
    int code;
    for (bool again = true, first = true;; first = false) {
        struct image_blob_writer *w;
        bool registry, mixed = false;
        code = image_blob_resume(&w, f->root, desc->digest, desc->size, e);
        if (code < 0)
            break;
        if (!first) /* another pull may have left some since; what comes now begins at the start */
            code = image_blob_restart(w, e);
        if (code < 0) {
            image_blob_abort(w);
            break;
        }
        int64_t had = image_blob_size(w);
        if (!g && had < desc->size)
            g = image_get_blob(f, desc->digest, had, desc->size, !r, f->offer.from);
        registry = mixed = had == desc->size; /* an earlier pull had all of it, from wherever */
        code = registry ? 0 : fill(r, g, desc, w, tell, arg, &registry, &mixed, e);
        if (code < 0) {
            image_blob_abort(w);
            break;
        }
        code = image_blob_spool(w, ret_path, NULL, e);
        if (code != -E_CORRUPT)
            break;
        /* what came was wrong, and is gone: from others, or once more from the start */
        if (g && !registry)
            image_get_spoilt(g, had == 0);
        else if (!mixed || !again)
            break;
        else
            again = false;
    }
    if (g)
        image_get_end(g, code == 0 ? *ret_path : NULL);
    return code;
}

static int pull_layer(struct image_fetch *f, struct image_registry *r,
                      const struct image_desc *desc, const char *diff_id, struct err *e)
{
    struct layer l = { .f = f, .desc = desc };
    AUTO_FREE char *path = NULL;
    short_id(l.id, desc->digest);
    int code = image_fetch_blob(f, r, desc, on_download, &l, &path, e);
    if (code < 0)
        return code;
    image_fetch_tell(f, l.id, "Verifying Checksum");
    image_fetch_tell(f, l.id, "Download complete");
    struct image_layer_job job = { .root = f->root,
                                   .archive = path,
                                   .diff_id = diff_id,
                                   .cancel = &f->stop,
                                   .progress = on_extract,
                                   .arg = &l };
    code = image_layer_unpack(&job, NULL, e);
    if (code == 0)
        code = image_kept_put(f->root, diff_id, path, desc->digest, e);
    unlink(path);
    image_get_forget(f, desc->digest);
    if (code != -E_CLOSED && code != -E_IO) /* else it may yet be unpacked, without another download */
        image_blob_forget(f->root, desc->digest);
    if (code == 0)
        image_fetch_tell(f, l.id, "Pull complete");
    return code < 0 ? err_wrap(e, "layer %s", desc->digest) : 0;
}

void image_fetch_fail(struct image_fetch *f, int code, const struct err *e)
{
    pthread_mutex_lock(&f->lock);
    if (f->code == 0) {
        f->code = code;
        f->e = *e;
    }
    pthread_mutex_unlock(&f->lock);
    stop_all(f, false);
}

static void *layer_main(void *arg)
{
    struct layers *ls = arg;
    struct image_fetch *f = ls->f;
    struct image_registry *r = NULL;
    struct err e = { 0 };
    int code = ls->no_registry ? 0 : image_fetch_open(f, ls->authorization, false, &r, &e);
    while (code == 0 && !is_stopped(f)) {
        pthread_mutex_lock(&f->lock);
        while (ls->next < ls->m->n && !ls->missing[ls->next])
            ls->next++;
        uint32_t i = ls->next++;
        pthread_mutex_unlock(&f->lock);
        if (i >= ls->m->n)
            break;
        code = pull_layer(f, r, &ls->m->v[i], ls->config->diff_ids.v[i], &e);
    }
    image_registry_close(r);
    if (code < 0)
        image_fetch_fail(f, code, &e);
    return NULL;
}

/* ret_all_there: no layer had to be fetched. */
static int pull_layers(struct image_fetch *f, const struct image_registry *r,
                       const struct image_manifest *m, const struct image_config *c,
                       bool *ret_all_there, struct err *e)
{
    struct layers ls = {
        .f = f, .no_registry = !r, .m = m, .config = c, .authorization = r ? image_registry_authorization(r) : NULL
    };
    pthread_t threads[LAYER_THREADS];
    unsigned n_missing = 0, n = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        char id[13];
        bool there = image_layer_exists(f->root, c->diff_ids.v[i]) &&
                     image_kept_find(f->root, c->diff_ids.v[i], NULL);
        for (uint32_t k = 0; k < i && !there; k++)
            there = str_equal(c->diff_ids.v[k],
                              c->diff_ids.v[i]); /* twice in one image: fetched once */
        ls.missing[i] = !there;
        n_missing += !there;
        short_id(id, m->v[i].digest);
        image_fetch_tell(f, id, there ? "Already exists" : "Pulling fs layer");
    }
    while (n < MIN(n_missing, (unsigned)LAYER_THREADS) &&
           pthread_create(&threads[n], NULL, layer_main, &ls) == 0)
        n++;
    if (n == 0 && n_missing)
        layer_main(&ls); /* no thread to be had: then on this one */
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    *ret_all_there = n_missing == 0;
    if (f->code < 0) {
        *e = f->e;
        return f->code;
    }
    return is_stopped(f) ? err_set(e, E_CLOSED, "cancelled") : 0;
}

/* ---- manifest and configuration ---- */

static int fetch_config(struct image_fetch *f, struct image_registry *r,
                        const struct image_desc *desc, char **ret, size_t *ret_size, struct err *e)
{
    AUTO_FREE char *path = NULL;
    if (image_blob_exists(f->root, desc->digest) &&
        image_blob_read(f->root, desc->digest, IMAGE_CONFIG_MAX, ret, ret_size, NULL) == 0)
        return 0;
    if (desc->size > IMAGE_CONFIG_MAX)
        return err_set(e, E_TOO_BIG, "the configuration is announced with %lld bytes, more than %d", (long long)desc->size,
                       IMAGE_CONFIG_MAX);
    int code = image_fetch_blob(f, r, desc, NULL, NULL, &path, e);
    if (code < 0)
        return code;
    code = file_read(path, IMAGE_CONFIG_MAX, ret, ret_size, e);
    unlink(path);
    image_blob_forget(f->root, desc->digest);
    return code;
}

/* The manifest for this machine; ret_top: what the reference itself names (an index, perhaps). */
static int resolve(struct image_fetch *f, struct image_registry *r, struct image_manifest *ret,
                   struct image_desc *ret_top, struct err *e)
{
    struct image_manifest index;
    struct image_desc inner = { 0 };
    int code =
        image_registry_manifest(r, f->ref.digest ? f->ref.digest : f->ref.tag, ret, ret_top, e);
    if (code < 0 || !ret->is_index)
        return code;
    index = *ret;
    *ret = (struct image_manifest){ 0 };
    const struct image_desc *mine = image_manifest_choose(&index);
    if (!mine)
        code = err_set(e, E_NOT_FOUND,
                       "no matching manifest for linux/%s in the manifest list entries of %s",
                       image_arch(), f->familiar);
    else
        code = image_registry_manifest(r, mine->digest, ret, &inner, e);
    if (code == 0) /* for other nodes: it alone has the digest that a reference may be pinned to */
        code = image_blob_put(f->root, index.raw, index.raw_size, NULL, e);
    if (code == 0 && ret->is_index)
        code = err_set(e, E_UNSUPPORTED, "%s: an index inside an index is not taken", f->familiar);
    image_desc_clear(&inner);
    image_manifest_clear(&index);
    return code;
}

int image_fetch_parts(struct image_fetch *f, struct image_registry *r, const struct image_manifest *m, bool *ret_all_there,
                      struct err *e)
{
    struct image_config c = { 0 };
    AUTO_FREE char *json = NULL;
    size_t size;
    bool had = image_blob_exists(f->root, m->config.digest);
    int code = fetch_config(f, r, &m->config, &json, &size, e);
    if (code == 0)
        code = image_config_parse(&c, json, size, e);
    if (code == 0 && c.diff_ids.n != m->n)
        code = err_set(e, E_CORRUPT, "the manifest has %u layers, the configuration %u", m->n,
                       c.diff_ids.n);
    if (code == 0 && c.os && !str_equal(c.os, "linux"))
        code = err_set(e, E_UNSUPPORTED, "the image is for %.50s, not for linux", c.os);
    if (code == 0)
        code = pull_layers(f, r, m, &c, ret_all_there, e);
    if (code == 0)
        code = image_blob_put(f->root, json, size, NULL, e);
    image_get_forget(f, m->config.digest);
    *ret_all_there = code == 0 && *ret_all_there && had;
    image_config_clear(&c);
    return code;
}

static void pulled(struct image_fetch *f, const struct image_manifest *m, const struct image_desc *top,
                   char *manifest /* taken */, bool all_there)
{
    AUTO_FREE char *name = image_ref_name(&f->ref);
    AUTO_FREE char *digest = xasprintf("%s@%s", name, top->digest);
    AUTO_FREE char *said = xasprintf("Digest: %s", top->digest);
    AUTO_FREE char *status =
        xasprintf("Status: %s for %s",
                  all_there ? "Image is up to date" : "Downloaded newer image", f->familiar);
    struct image_loaded *l = image_loaded_add(&f->loaded, m->config.digest);
    l->manifest = manifest;
    strs_add(&l->digests, digest);
    if (!f->ref.digest) /* pulled by digest: no tag, as Docker */
        strs_add(&l->tags, f->familiar);
    image_fetch_tell(f, "", said);
    image_fetch_tell(f, "", status);
}

/* A layer that failed at one source stops nothing at the next one. False: cancelled. */
static bool begin_anew(struct image_fetch *f)
{
    pthread_mutex_lock(&f->lock);
    bool closed = f->closed;
    atomic_store(&f->stop, closed);
    f->code = 0;
    pthread_mutex_unlock(&f->lock);
    return !closed;
}

/* Mirrors first, in their order, each for the whole of it; what one of them did bring stays. */
typedef int attempt_fn(struct image_fetch *f, struct err *e);

static void with_mirrors(struct image_fetch *f, attempt_fn *attempt)
{
    struct err e = { 0 };
    int code = -E_UNAVAILABLE;
    for (uint32_t i = 0; i <= f->mirrors.n && code < 0; i++) {
        f->base = i < f->mirrors.n ? f->mirrors.v[i] : NULL;
        code = attempt(f, &e);
        if (code < 0 && f->base)
            log_info("mirror %s did not serve %s: %s", f->base, f->familiar, e.text);
        if (!begin_anew(f))
            break;
    }
    f->code = code;
    f->e = e;
    f->heard = f->answered; /* one that is overloaded, or refuses, is not silent */
    f->unheard = !f->answered && (code == -E_UNAVAILABLE || code == -E_TIMEOUT);
}

static int pull_once(struct image_fetch *f, struct err *e)
{
    struct image_registry *r = NULL;
    struct image_manifest m = { 0 };
    struct image_desc top = { 0 };
    AUTO_FREE char *manifest = NULL;
    bool all_there = false;
    int code = image_fetch_open(f, NULL, false, &r, e);
    if (code == 0)
        code = resolve(f, r, &m, &top, e);
    if (code == 0) {
        AUTO_FREE char *from = xasprintf("Pulling from %s", f->ref.path);
        image_fetch_tell(f, f->ref.digest ? f->ref.digest : f->ref.tag, from);
        code = image_fetch_parts(f, r, &m, &all_there, e);
    }
    if (code == 0)
        code = image_blob_put(f->root, m.raw, m.raw_size, &manifest, e);
    if (code == 0)
        pulled(f, &m, &top, TAKE(manifest), all_there);
    image_desc_clear(&top);
    image_manifest_clear(&m);
    f->answered |= r && !f->base && image_registry_answered(r); /* no mirror in its place */
    image_registry_close(r);
    return code;
}

/* What the cluster may stand in for. All else, wrong bytes above all, is to be seen. */
static bool is_absent(int code)
{
    return code == -E_UNAVAILABLE || code == -E_TIMEOUT || code == -E_DENIED || code == -E_NOT_FOUND;
}

/* For a task: when some node has the image, a registry that does not answer is not waited for long, nor twice within a
 * moment, and then the cluster gives what the registry does not. */
void image_fetch_pull(struct image_fetch *f)
{
    struct image_answer a = { 0 };
    struct err e = { 0 };
    if (f->task)
        f->quick = image_get_name(f, f->named, &a, &e) == 0;
    image_answer_clear(&a);
    if (f->quick && f->silent) {
        int code = image_fetch_from_cluster(f, false, &f->e);
        if (code == 0 || !begin_anew(f)) {
            f->code = code;
            return;
        }
    }
    with_mirrors(f, pull_once);
    if (!f->quick || !is_absent(f->code))
        return;
    struct err said = f->e;
    int refusal = f->code;
    f->code = 0; /* layers fail into it anew */
    int code = image_fetch_from_cluster(f, refusal == -E_DENIED || refusal == -E_NOT_FOUND, &e);
    f->code = code == -E_NOT_FOUND ? refusal : code;
    if (code == -E_NOT_FOUND)
        f->e = said;
    else if (code < 0)
        f->code = err_set(&f->e, -code, "%.240s; and from the cluster: %.240s", said.text, e.text);
}

static int remote_platform(struct image_fetch *f, struct image_registry *r,
                           const struct image_manifest *m, struct err *e)
{
    struct image_config c;
    AUTO_FREE char *json = NULL;
    size_t size;
    for (uint32_t i = 0; m->is_index && i < m->n; i++) {
        strs_add(&f->remote.architectures, m->v[i].architecture);
        strs_add(&f->remote.oss, m->v[i].os);
    }
    if (m->is_index)
        return 0;
    int code = fetch_config(f, r, &m->config, &json, &size, e);
    image_get_forget(f, m->config.digest); /* a look keeps nothing, so others get nothing of it */
    if (code == 0)
        code = image_config_parse(&c, json, size, e);
    if (code < 0)
        return code;
    strs_add(&f->remote.architectures, c.architecture);
    strs_add(&f->remote.oss, c.os);
    image_config_clear(&c);
    return 0;
}

static int look_once(struct image_fetch *f, struct err *e)
{
    struct image_registry *r = NULL;
    struct image_manifest m = { 0 };
    struct image_desc top = { 0 };
    int code = image_fetch_open(f, NULL, false, &r, e);
    if (code == 0)
        code = image_registry_manifest(r, f->ref.digest ? f->ref.digest : f->ref.tag, &m, &top, e);
    if (code == 0)
        code = remote_platform(f, r, &m, e);
    if (code == 0) {
        f->remote.digest = xstrdup(top.digest);
        f->remote.media_type = xstrdup(top.media_type);
        f->remote.size = top.size;
    } else { /* another one may be asked */
        strs_clear(&f->remote.architectures);
        strs_clear(&f->remote.oss);
    }
    image_desc_clear(&top);
    image_manifest_clear(&m);
    image_registry_close(r);
    return code;
}

void image_fetch_remote(struct image_fetch *f)
{
    with_mirrors(f, look_once);
}
