/* What this node tells the trackers that it holds: every blob of the store, by a mark, and every image that has a name.
 * An image without a manifest (loaded by an old archive, imported) gets one here, so that it can be asked for by digest. */
#include "image_internal.h"

#include <dirent.h>
#include <shoal/base/crypto.h>
#include <shoal/base/log.h>
#include <sys/stat.h>

LOG_MODULE("image");

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, IMAGE_MARK_SIZE);
}

static void add_marks(const char *root, struct bytes *ret)
{
    AUTO_FREE char *dir = xasprintf("%s/blobs/sha256", root);
    DIR *d = opendir(dir);
    struct dirent *de;
    while (d && (de = readdir(d)) && ret->n < IMAGE_MARKS_MAX * IMAGE_MARK_SIZE) {
        uint8_t mark[IMAGE_MARK_SIZE];
        AUTO_FREE char *hex = xstrndup(de->d_name, 2 * sizeof mark);
        if (strlen(de->d_name) != 64 || !hex_decode(mark, sizeof mark, hex))
            continue;
        ret->v = xrealloc(ret->v, ret->n + sizeof mark, 1);
        memcpy(ret->v + ret->n, mark, sizeof mark);
        ret->n += (uint32_t)sizeof mark;
    }
    if (d)
        closedir(d);
    if (ret->n)
        qsort(ret->v, ret->n / IMAGE_MARK_SIZE, IMAGE_MARK_SIZE, by_bytes);
}

/* Its manifest is a blob of the store after this, and names layers that are here: one of them may have come in another
 * packing since. */
static int need_manifest(struct image_store *s, struct image *i, int64_t *ret_size, struct err *e)
{
    struct image_manifest m = { 0 };
    char *digest;
    int r = image_parts(s->root, i->id, i->manifest, &i->config.diff_ids, &m, e);
    if (r == 0)
        r = image_blob_put(s->root, m.raw, m.raw_size, &digest, e);
    if (r == 0) {
        free(i->manifest);
        i->manifest = digest;
        *ret_size = (int64_t)m.raw_size;
    }
    image_manifest_clear(&m);
    return r;
}

static struct image *own(const struct image *i)
{
    return &container_of(i, struct image_item, image)->image;
}

/* By the digest it came from a registry, if any: the one of this tag's repository goes first. */
static const char *origin_of(const struct image *i, const char *name)
{
    size_t n = strcspn(name, "@");
    const char *colon = memrchr(name, ':', n), *slash = memrchr(name, '/', n);
    if (n == strlen(name) && colon && (!slash || colon > slash))
        n = (size_t)(colon - name);
    for (uint32_t k = 0; k < i->repo_digests.n; k++)
        if (strncmp(i->repo_digests.v[k], name, n) == 0 && i->repo_digests.v[k][n] == '@')
            return i->repo_digests.v[k];
    return i->repo_digests.n ? i->repo_digests.v[0] : NULL;
}

/* The digest it came from a registry by: an index, if it is here, can be asked for as its manifest can. */
static const char *top_of(const char *root, const char *origin, int64_t *ret_size)
{
    const char *at = origin ? strchr(origin, '@') : NULL;
    struct stat st;
    if (!at || !image_digest_ok(at + 1))
        return NULL;
    AUTO_FREE char *path = image_blob_path(root, at + 1);
    if (stat(path, &st) < 0 || st.st_size <= 0 || st.st_size > IMAGE_MANIFEST_MAX)
        return NULL;
    *ret_size = st.st_size;
    return at + 1;
}

static void add_names(struct image_held *h, const char *root, const struct image *i, const struct strs *names, int64_t size)
{
    for (uint32_t k = 0; k < names->n && h->images.n < IMAGE_NAMES_MAX; k++) {
        bool pinned = strchr(names->v[k], '@');
        const char *origin = pinned ? names->v[k] : origin_of(i, names->v[k]);
        int64_t top_size = size;
        const char *top = top_of(root, origin, &top_size);
        if (pinned && !top)
            continue; /* by that digest nobody can have it from here */
        struct held_image *x = REC_ADD(&h->images);
        str_set(&x->name, names->v[k]);
        str_set(&x->manifest, top ? top : i->manifest);
        str_set(&x->origin, origin);
        x->size = (uint64_t)top_size;
        x->created = i->created_ns;
    }
}

void image_peers_held(struct image_store *s, struct image_held *ret)
{
    *ret = (struct image_held){ 0 };
    for (const struct image *i = NULL; (i = image_next(s, i));) {
        struct err e;
        int64_t size = 0;
        if (need_manifest(s, own(i), &size, &e) < 0) {
            log_debug("image %.19s is not told of: %s", i->id, e.text);
            continue;
        }
        add_names(ret, s->root, i, &i->repo_tags, size);
        add_names(ret, s->root, i, &i->repo_digests, size);
    }
    add_marks(s->root, &ret->marks);
}

int image_offer_make(struct image_store *s, const char *name, struct image_offer *ret, struct err *e)
{
    const struct image *i = image_find(s, name);
    struct image_ref r;
    *ret = (struct image_offer){ 0 };
    if (!i)
        return err_set(e, E_NOT_FOUND, "No such image: %.300s; 'shoal image ls' shows those of this node", name);
    int code = need_manifest(s, own(i), &ret->size, e);
    if (code < 0)
        return code;
    ret->manifest = xstrdup(i->manifest);
    for (uint32_t k = 0; k < i->repo_digests.n; k++)
        strs_add(&ret->digests, i->repo_digests.v[k]);
    if (image_ref_parse(&r, name, NULL) == 0) { /* by its name: that one; by its id: all */
        AUTO_FREE char *tag = image_ref_familiar(&r);
        if (strs_has(&i->repo_tags, tag))
            strs_add(&ret->tags, tag);
        image_ref_clear(&r);
    }
    for (uint32_t k = 0; k < i->repo_tags.n && !ret->tags.n; k++)
        strs_add(&ret->tags, i->repo_tags.v[k]);
    return 0;
}
