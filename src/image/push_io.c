/* What a push does on its own thread: layers that are plain tars are packed, then up to PUSH_THREADS upload at once
 * what the registry has not yet (HEAD), or has it take them from another repository it has them in (mount); then
 * configuration, then the manifest, last, so that a tag never names what is not there. And a login: the question
 * whether a registry takes a name and a password. */
#include "image_internal.h"

#include <shoal/base/file.h>

enum { PUSH_THREADS = 3, TELL_MS = 100 };

struct push {
    struct image_fetch *f;
    const struct image_manifest *m;
    const char *authorization;
    uint32_t next; /* under f->lock */
};

struct layer {
    struct image_fetch *f;
    char id[13];
    int64_t size, told_ns;
};

static void short_id(char id[13], const char *digest)
{
    memcpy(id, image_digest_hex(digest), 12);
    id[12] = 0;
}

static void on_sent(void *arg, int64_t current)
{
    struct layer *l = arg;
    int64_t now = clock_mono_ns();
    if (!l->f->emit || (current < l->size && now - l->told_ns < TELL_MS * MS_NS))
        return;
    l->told_ns = now;
    l->f->emit(l->f->arg, l->id, "Pushing", current, l->size);
}

static int push_layer(struct image_fetch *f, struct image_registry *r, const struct image_desc *desc, uint32_t i,
                      struct err *e)
{
    struct layer l = { .f = f, .size = desc->size };
    AUTO_FREE char *path = image_blob_path(f->root, desc->digest);
    const char *from = f->sources.v[i][0] ? f->sources.v[i] : NULL;
    bool there = false, mounted = false;
    short_id(l.id, f->diff_ids.v[i]);
    int code = image_registry_has(r, desc, &there, e);
    if (code == 0 && !there)
        code = image_registry_push_blob(r, desc, path, from, &mounted, on_sent, &l, e);
    if (code < 0)
        return err_wrap(e, "layer %s", l.id);
    AUTO_FREE char *said = mounted ? xasprintf("Mounted from %s", from) : NULL;
    image_fetch_tell(f, l.id, mounted ? said : there ? "Layer already exists" : "Pushed");
    return 0;
}

static void *push_main(void *arg)
{
    struct push *p = arg;
    struct image_fetch *f = p->f;
    struct image_registry *r = NULL;
    struct err e = { 0 };
    int code = image_fetch_open(f, p->authorization, true, &r, &e);
    while (code == 0 && !atomic_load(&f->stop)) {
        pthread_mutex_lock(&f->lock);
        uint32_t i = p->next++;
        pthread_mutex_unlock(&f->lock);
        if (i >= p->m->n)
            break;
        bool again = false; /* the same blob twice in one image */
        for (uint32_t k = 0; k < i && !again; k++)
            again = str_equal(p->m->v[k].digest, p->m->v[i].digest);
        if (!again)
            code = push_layer(f, r, &p->m->v[i], i, &e);
    }
    image_registry_close(r);
    if (code < 0)
        image_fetch_fail(f, code, &e);
    return NULL;
}

static int push_layers(struct image_fetch *f, const struct image_registry *r, const struct image_manifest *m,
                       struct err *e)
{
    struct push p = { .f = f, .m = m, .authorization = image_registry_authorization(r) };
    pthread_t threads[PUSH_THREADS];
    unsigned n = 0;
    while (n < MIN(m->n, (uint32_t)PUSH_THREADS) && pthread_create(&threads[n], NULL, push_main, &p) == 0)
        n++;
    if (n == 0 && m->n)
        push_main(&p); /* no thread to be had: then on this one */
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    if (f->code < 0) {
        *e = f->e;
        return f->code;
    }
    return atomic_load(&f->stop) ? err_set(e, E_CLOSED, "cancelled") : 0;
}

static int pack_layers(struct image_fetch *f, struct err *e)
{
    for (uint32_t i = f->diff_ids.n; i-- > 0;) {
        struct image_kept kept;
        char id[13];
        short_id(id, f->diff_ids.v[i]);
        image_fetch_tell(f, id, "Preparing");
        if (image_kept_find(f->root, f->diff_ids.v[i], &kept) && str_equal(kept.packing, "tar")) {
            int r = image_pack(f->root, f->diff_ids.v[i], &kept, &f->stop, e);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int push_config(struct image_fetch *f, struct image_registry *r, const struct image_desc *desc, struct err *e)
{
    AUTO_FREE char *path = image_blob_path(f->root, desc->digest);
    bool there, mounted;
    int code = image_registry_has(r, desc, &there, e);
    return code < 0 || there ? code : image_registry_push_blob(r, desc, path, NULL, &mounted, NULL, NULL, e);
}

static void pushed(struct image_fetch *f, const struct image_manifest *m, const char *digest)
{
    AUTO_FREE char *name = image_ref_name(&f->ref);
    AUTO_FREE char *ref = xasprintf("%s@%s", name, digest);
    AUTO_FREE char *said = xasprintf("%s: digest: %s size: %zu", f->ref.tag, digest, m->raw_size);
    struct image_loaded *l = image_loaded_add(&f->loaded, f->id);
    l->manifest = xstrdup(digest);
    strs_add(&l->digests, ref);
    f->remote.digest = xstrdup(digest);
    f->size = (int64_t)m->raw_size;
    image_fetch_tell(f, NULL, said);
}

void image_fetch_push(struct image_fetch *f)
{
    struct image_registry *r = NULL;
    struct image_manifest m = { 0 };
    struct err e = { 0 };
    AUTO_FREE char *digest = NULL;
    AUTO_FREE char *to = xasprintf("The push refers to repository [%s/%s]", f->ref.host, f->ref.path);
    image_fetch_tell(f, NULL, to);
    int code = pack_layers(f, &e);
    if (code == 0)
        code = image_parts(f->root, f->id, f->manifest, &f->diff_ids, &m, &e);
    if (code == 0)
        code = image_fetch_open(f, NULL, true, &r, &e);
    if (code == 0)
        code = push_config(f, r, &m.config, &e); /* also logs in, once for all threads */
    if (code == 0)
        code = push_layers(f, r, &m, &e);
    if (code == 0)
        code = image_registry_push_manifest(r, f->ref.tag, &m, &e);
    if (code == 0)
        code = image_blob_put(f->root, m.raw, m.raw_size, &digest, &e);
    if (code == 0)
        pushed(f, &m, digest);
    image_manifest_clear(&m);
    image_registry_close(r);
    f->code = code;
    f->e = e;
}

void image_fetch_login(struct image_fetch *f)
{
    struct image_registry *r = NULL;
    struct err e = { 0 };
    int code = image_fetch_open(f, NULL, false, &r, &e);
    if (code == 0)
        code = image_registry_login(r, &e);
    image_registry_close(r);
    f->code = code;
    f->e = e;
}
