/* Pulls that the cluster serves and no registry: an image that another node spreads, and one of a task that the registry
 * does not give. A name is asked for at a manager; all else goes by digest, and nothing counts before it has it. */
#include "image_internal.h"

#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <unistd.h>

LOG_MODULE("image");

void image_offer_clear(struct image_offer *o)
{
    free(TAKE(o->manifest));
    free(TAKE(o->from));
    strs_clear(&o->tags);
    strs_clear(&o->digests);
}

static int manifest_by_digest(struct image_fetch *f, const char *digest, int64_t size, struct image_manifest *ret, struct err *e)
{
    struct image_desc desc = { .digest = (char *)(uintptr_t)digest, .size = size };
    AUTO_FREE char *json = NULL, *path = NULL;
    size_t n;
    int code = 0;
    if (size <= 0 || size > IMAGE_MANIFEST_MAX)
        return err_set(e, E_TOO_BIG, "a manifest of %lld bytes", (long long)size);
    if (!image_blob_exists(f->root, digest) ||
        image_blob_read(f->root, digest, IMAGE_MANIFEST_MAX, &json, &n, NULL) < 0) {
        code = image_fetch_blob(f, NULL, &desc, NULL, NULL, &path, e);
        if (code == 0)
            code = file_read(path, IMAGE_MANIFEST_MAX, &json, &n, e);
        if (path)
            unlink(path);
    }
    if (code == 0)
        code = image_manifest_parse(ret, json, n, NULL, e);
    if (code == 0)
        code = image_blob_put(f->root, json, n, NULL, e); /* others are told that it is here */
    if (path)
        image_get_forget(f, digest);
    if (code < 0)
        image_manifest_clear(ret);
    return code;
}

/* The manifest for this machine below a digest that may be an index's. */
static int manifest_below(struct image_fetch *f, const char *digest, int64_t size, struct image_manifest *ret,
                          char **ret_digest, struct err *e)
{
    struct image_manifest index;
    int code = manifest_by_digest(f, digest, size, ret, e);
    if (code == 0)
        *ret_digest = xstrdup(digest);
    if (code < 0 || !ret->is_index)
        return code;
    index = *ret;
    *ret = (struct image_manifest){ 0 };
    const struct image_desc *mine = image_manifest_choose(&index);
    if (!mine)
        code = err_set(e, E_NOT_FOUND, "%s has no image for linux/%s", digest, image_arch());
    else
        code = manifest_by_digest(f, mine->digest, mine->size, ret, e);
    if (code == 0 && ret->is_index) {
        image_manifest_clear(ret);
        code = err_set(e, E_UNSUPPORTED, "%s: an index inside an index is not taken", digest);
    }
    if (code == 0)
        str_set(ret_digest, mine->digest);
    image_manifest_clear(&index);
    return code;
}

static int take(struct image_fetch *f, const struct image_offer *o, struct err *e)
{
    struct image_manifest m = { 0 };
    AUTO_FREE char *manifest = NULL;
    bool all_there;
    int code = manifest_below(f, o->manifest, o->size, &m, &manifest, e);
    if (code < 0)
        return code;
    code = image_fetch_parts(f, NULL, &m, &all_there, e);
    if (code == 0) {
        struct image_loaded *l = image_loaded_add(&f->loaded, m.config.digest);
        l->manifest = TAKE(manifest);
        for (uint32_t i = 0; i < o->tags.n; i++)
            strs_add(&l->tags, o->tags.v[i]);
        for (uint32_t i = 0; i < o->digests.n; i++)
            strs_add(&l->digests, o->digests.v[i]);
        image_fetch_tell(f, "", all_there ? "Status: Image is up to date" : "Status: Downloaded image");
    }
    image_manifest_clear(&m);
    return code;
}

void image_fetch_take(struct image_fetch *f)
{
    struct err e = { 0 };
    f->code = take(f, &f->offer, &e);
    f->e = e;
}

int image_fetch_from_cluster(struct image_fetch *f, bool refused, struct err *e)
{
    struct image_answer a;
    struct image_offer o = { 0 };
    int code = image_get_name(f, f->named, &a, e);
    if (code == 0 && refused && a.origin)
        code = err_set(e, E_NOT_FOUND, "no node has one that is not the registry's");
    if (code == 0)
        code = image_answer_check(&a, &f->ref, e);
    if (code == 0) {
        log_info("%s is taken from the cluster", f->familiar);
        o.manifest = TAKE(a.manifest);
        o.size = (int64_t)a.size;
        if (f->ref.digest) {
            AUTO_FREE char *name = image_ref_name(&f->ref);
            AUTO_FREE char *digest = xasprintf("%s@%s", name, f->ref.digest);
            strs_add(&o.digests, digest);
        } else {
            strs_add(&o.tags, f->familiar);
        }
        if (a.origin && !strs_has(&o.digests, a.origin))
            strs_add(&o.digests, a.origin); /* it stays the registry's */
        code = take(f, &o, e);
    }
    image_answer_clear(&a);
    image_offer_clear(&o);
    return code;
}
