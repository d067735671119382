/* Loading an archive: `docker save` (manifest.json) or an OCI image layout (image-spec
 * "image-layout.md": index.json, blobs/). Newer docker save writes both; manifest.json then goes
 * first, as it has the tags. The archive's files are spread flat into ROOT/tmp under names of
 * ours and hashed on the way, so no name inside it ever meets the file system; which file is
 * which is only a map in memory. */
#include "image_internal.h"

#include <errno.h>
#include <shoal/base/archive.h>
#include <shoal/base/file.h>
#include <shoal/base/map.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FILES_MAX = 16384,
    NAME_MAX_BYTES = 1024,
    IMAGES_MAX = 1024,
    DEPTH_MAX = 3,
    CHUNK = 256 << 10,
    LINKS_MAX = 8
};

struct file {
    char *path, *digest; /* in ROOT/tmp; or: */
    char *link;          /* the name it is an alias of */
    int64_t size;
};

struct loader {
    const char *root;
    struct map files;
    int64_t left; /* bytes that may still be unpacked */
    struct image_loaded_list *ret;
};

struct image_loaded *image_loaded_add(struct image_loaded_list *l, const char *id)
{
    l->v = xrealloc(l->v, (size_t)l->n + 1, sizeof *l->v);
    l->v[l->n] = (struct image_loaded){ .id = xstrdup(id) };
    return &l->v[l->n++];
}

void image_loaded_clear(struct image_loaded_list *l)
{
    for (uint32_t i = 0; i < l->n; i++) {
        free(l->v[i].id);
        free(l->v[i].manifest);
        strs_clear(&l->v[i].tags);
        strs_clear(&l->v[i].digests);
    }
    free(l->v);
    *l = (struct image_loaded_list){ 0 };
}

static void file_free(struct file *f)
{
    if (!f)
        return;
    if (f->path)
        unlink(f->path);
    free(f->path);
    free(f->digest);
    free(f->link);
    free(f);
}

/* "a/./b/../c" to "a/c", links taken from the folder of `from`; climbing out ends at the top. */
static char *plain_name(const char *from, const char *name)
{
    const char *slash = from ? strrchr(from, '/') : NULL;
    AUTO_FREE char *all = slash && name[0] != '/'
                              ? xasprintf("%.*s/%s", (int)(slash - from), from, name)
                              : xstrdup(name);
    char *out = xcalloc(strlen(all) + 1, 1);
    size_t n = 0;
    for (const char *p = all; *p;) {
        size_t part = strcspn(p, "/");
        if (part == 2 && memcmp(p, "..", 2) == 0) {
            while (n && out[--n] != '/')
                ;
        } else if (part && !(part == 1 && p[0] == '.')) {
            if (n)
                out[n++] = '/';
            memcpy(out + n, p, part);
            n += part;
        }
        p += part + (p[part] == '/');
    }
    out[n] = 0;
    return out;
}

static int spool_file(struct loader *ld, struct archive *a, struct file *f, struct err *e)
{
    struct image_blob_writer *w;
    AUTO_FREE char *buf = xcalloc(1, CHUNK);
    la_ssize_t n;
    int r = image_blob_begin(&w, ld->root, NULL, IMAGE_LAYER_MAX, e);
    if (r < 0)
        return r;
    while (r == 0 && (n = libarchive.read_data(a, buf, CHUNK)) != 0) {
        if (n < 0)
            r = err_set(e, E_CORRUPT, "%.300s",
                        libarchive.error_string(a) ? libarchive.error_string(a) : "broken archive");
        else if ((ld->left -= n) < 0)
            r = err_set(e, E_TOO_BIG, "the archive unpacks to far more than its own size");
        else
            r = image_blob_add(w, buf, (size_t)n, e);
    }
    f->size = image_blob_size(w);
    if (r == 0)
        return image_blob_spool(w, &f->path, &f->digest, e);
    image_blob_abort(w);
    return r;
}

static int spread_entry(struct loader *ld, struct archive *a, struct archive_entry *entry,
                        struct err *e)
{
    const char *name = libarchive.entry_pathname(entry);
    const char *hard = libarchive.entry_hardlink(entry);
    const char *soft = libarchive.entry_symlink(entry);
    bool regular = !hard && libarchive.entry_filetype(entry) == AE_IFREG;
    if (!name || strlen(name) > NAME_MAX_BYTES || (hard && strlen(hard) > NAME_MAX_BYTES) ||
        (soft && strlen(soft) > NAME_MAX_BYTES))
        return err_set(e, E_INVALID,
                       "an entry's name or link is unreadable or longer than %d bytes",
                       NAME_MAX_BYTES);
    if (!regular && !hard && !soft)
        return 0;
    if (ld->files.n >= FILES_MAX)
        return err_set(e, E_TOO_BIG, "more than %d files", FILES_MAX);
    AUTO_FREE char *key = plain_name(NULL, name);
    struct file *f = xnew(struct file);
    int r = 0;
    if (regular)
        r = spool_file(ld, a, f, e);
    else
        f->link = hard ? plain_name(NULL, hard) : plain_name(key, soft);
    if (r < 0) {
        file_free(f);
        return r;
    }
    file_free(map_put(&ld->files, key, f));
    return 0;
}

static int spread(struct loader *ld, const char *path, struct err *e)
{
    struct archive_entry *entry;
    struct stat st;
    int code, r = archive_load(e);
    if (r < 0)
        return r;
    struct archive *a = libarchive.read_new();
    if (stat(path, &st) < 0)
        r = err_errno(e, errno, "%s", path);
    ld->left =
        r == 0 ? MAX(IMAGE_LAYER_FREE, MIN(IMAGE_LAYER_MAX, st.st_size * IMAGE_RATIO_MAX)) : 0;
    libarchive.read_support_filter_gzip(a);
    libarchive.read_support_filter_zstd(a);
    libarchive.read_support_format_tar(a);
    if (r == 0 && st.st_size == 0)
        r = err_set(e, E_INVALID, "the archive is empty; make it with `docker save`");
    if (r == 0 && libarchive.read_open_filename(a, path, CHUNK) != ARCHIVE_OK)
        r = err_set(e, E_INVALID, "not a tar archive (%.200s); make it with `docker save`", libarchive.error_string(a));
    while (r == 0 && (code = libarchive.read_next_header(a, &entry)) != ARCHIVE_EOF) {
        if (code != ARCHIVE_OK && code != ARCHIVE_WARN)
            r = err_set(e, E_INVALID, "not a whole tar archive: %.200s", libarchive.error_string(a));
        else
            r = spread_entry(ld, a, entry, e);
    }
    libarchive.read_free(a);
    return r;
}

static const struct file *lookup(const struct loader *ld, const char *name)
{
    AUTO_FREE char *key = plain_name(NULL, name);
    const struct file *f = map_find(&ld->files, key);
    for (unsigned i = 0; f && f->link && i < LINKS_MAX; i++)
        f = map_find(&ld->files, f->link);
    return f && f->path ? f : NULL;
}

/* A file's bytes; where a digest is known they must have it. */
static int slurp(const struct loader *ld, const char *name, const char *digest, size_t max,
                 char **ret, size_t *ret_size, struct err *e)
{
    const struct file *f = lookup(ld, name);
    if (!f)
        return err_set(e, E_INVALID, "the archive lacks %.200s", name);
    if (digest && !str_equal(f->digest, digest))
        return err_set(e, E_CORRUPT, "%.150s: digest mismatch: the bytes have %s", name, f->digest);
    return file_read(f->path, max, ret, ret_size, e);
}

/* Unpacks what is missing; layers: names in the archive, bottom first. Stores the configuration. */
static int load_image(struct loader *ld, const char *json, size_t size, const struct strs *layers,
                      bool blobs, struct image_loaded **ret, struct err *e)
{
    struct image_config c;
    AUTO_FREE char *id = NULL;
    int r = image_config_parse(&c, json, size, e);
    if (r < 0)
        return r;
    if (c.os && !str_equal(c.os, "linux"))
        r = err_set(e, E_INVALID, "the image is for %.50s, not for linux", c.os);
    if (r == 0 && c.diff_ids.n != layers->n)
        r = err_set(e, E_INVALID, "%u layers are listed, the configuration has %u", layers->n,
                    c.diff_ids.n);
    for (uint32_t i = 0; r == 0 && i < layers->n; i++) {
        const struct file *f = lookup(ld, layers->v[i]);
        if (image_layer_exists(ld->root, c.diff_ids.v[i]) && image_kept_find(ld->root, c.diff_ids.v[i], NULL))
            continue;
        if (!f)
            r = err_set(e, E_INVALID, "the archive lacks layer %.200s", layers->v[i]);
        else if (blobs && !str_equal(f->digest + 7, strrchr(layers->v[i], '/') + 1))
            r = err_set(e, E_CORRUPT, "%.150s: digest mismatch: the bytes have %s", layers->v[i],
                        f->digest);
        if (r < 0)
            break;
        struct image_layer_job job = { .root = ld->root,
                                       .archive = f->path,
                                       .diff_id = c.diff_ids.v[i] };
        r = image_layer_unpack(&job, NULL, e);
        if (r == 0)
            r = image_kept_put(ld->root, c.diff_ids.v[i], f->path, f->digest, e);
        if (r < 0)
            err_wrap(e, "layer %.150s", layers->v[i]);
    }
    image_config_clear(&c);
    if (r == 0)
        r = image_blob_put(ld->root, json, size, &id, e);
    if (r == 0)
        *ret = image_loaded_add(ld->ret, id);
    return r;
}

static int keep_manifest(struct loader *ld, const struct image_manifest *m, struct image_loaded *loaded,
                         struct err *e)
{
    free(TAKE(loaded->manifest));
    return image_blob_put(ld->root, m->raw, m->raw_size, &loaded->manifest, e);
}

/* ---- docker save ---- */

/* The manifest that index.json beside manifest.json has for this configuration, if any: with it the image keeps its
 * digest. */
static int find_manifest(struct loader *ld, const struct image_manifest *index, struct image_loaded *loaded,
                         struct err *e)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < index->n && !loaded->manifest; i++) {
        AUTO_FREE char *name = xasprintf("blobs/sha256/%s", image_digest_hex(index->v[i].digest));
        AUTO_FREE char *json = NULL;
        struct image_manifest m;
        size_t size;
        if (slurp(ld, name, index->v[i].digest, IMAGE_MANIFEST_MAX, &json, &size, NULL) < 0 ||
            image_manifest_parse(&m, json, size, index->v[i].media_type, NULL) < 0)
            continue;
        if (!m.is_index && str_equal(m.config.digest, loaded->id))
            r = keep_manifest(ld, &m, loaded, e);
        image_manifest_clear(&m);
    }
    return r;
}

static int find_manifests(struct loader *ld, struct err *e)
{
    AUTO_FREE char *json = NULL;
    struct image_manifest index;
    size_t size;
    int r = 0;
    if (!lookup(ld, "index.json") ||
        slurp(ld, "index.json", NULL, IMAGE_MANIFEST_MAX, &json, &size, NULL) < 0 ||
        image_manifest_parse(&index, json, size, NULL, NULL) < 0)
        return 0; /* manifest.json alone says what is in the archive */
    for (uint32_t i = 0; r == 0 && index.is_index && i < ld->ret->n; i++)
        r = find_manifest(ld, &index, &ld->ret->v[i], e);
    image_manifest_clear(&index);
    return r;
}

static int load_saved(struct loader *ld, const struct val *v, struct err *e)
{
    const char *config = val_get_str(v, "Config");
    struct strs layers = { 0 }, tags = { 0 };
    struct image_loaded *loaded;
    AUTO_FREE char *json = NULL;
    AUTO_FREE char *digest = NULL;
    size_t size;
    if (!config)
        return err_set(e, E_INVALID, "manifest.json: an image without Config");
    const char *base = strrchr(config, '/') ? strrchr(config, '/') + 1 : config;
    digest =
        xasprintf("sha256:%.*s", (int)strcspn(base, "."), base); /* HEX.json or blobs/sha256/HEX */
    int r = slurp(ld, config, image_digest_ok(digest) ? digest : NULL, IMAGE_CONFIG_MAX, &json,
                  &size, e);
    if (r == 0)
        r = image_strs_from(&layers, v, "Layers", e);
    if (r == 0)
        r = image_strs_from(&tags, v, "RepoTags", e);
    for (uint32_t i = 0; r == 0 && i < tags.n; i++) {
        struct image_ref ref;
        r = image_ref_parse(&ref, tags.v[i], e);
        if (r == 0 && ref.digest)
            r = err_set(e, E_INVALID, "RepoTags: \"%.200s\" is no tag", tags.v[i]);
        image_ref_clear(&ref);
    }
    if (r == 0)
        r = load_image(ld, json, size, &layers, false, &loaded, e);
    for (uint32_t i = 0; r == 0 && i < tags.n; i++)
        strs_add(&loaded->tags, tags.v[i]);
    strs_clear(&layers);
    strs_clear(&tags);
    return r;
}

static int load_docker(struct loader *ld, struct err *e)
{
    AUTO_FREE char *json = NULL;
    struct val_doc *d = NULL;
    size_t size;
    int r = slurp(ld, "manifest.json", NULL, IMAGE_MANIFEST_MAX, &json, &size, e);
    if (r == 0)
        r = json_parse(&d, json, size, "manifest.json", e);
    if (r < 0)
        return r;
    const struct val *v = val_root(d);
    if (v->kind != V_LIST || v->n == 0 || v->n > IMAGES_MAX)
        r = err_set(e, E_INVALID, "manifest.json: want a list of 1 to %d images", IMAGES_MAX);
    for (uint32_t i = 0; r == 0 && i < v->n; i++)
        r = load_saved(ld, v->list[i], e);
    val_doc_free(d);
    return r < 0 ? r : find_manifests(ld, e);
}

/* ---- OCI layout ---- */

/* Only names of a whole reference become tags: a bare "1.0" has no repository to be the tag of. */
static void name_loaded(struct image_loaded *loaded, const char *ref_name)
{
    struct image_ref ref;
    if (!ref_name || !strpbrk(ref_name, ":/") || image_ref_parse(&ref, ref_name, NULL) < 0)
        return;
    if (!ref.digest)
        strs_add(&loaded->tags, ref_name);
    image_ref_clear(&ref);
}

static int load_manifest(struct loader *ld, const struct image_manifest *m, const char *ref_name,
                         struct err *e)
{
    AUTO_FREE char *name = xasprintf("blobs/sha256/%s", image_digest_hex(m->config.digest));
    AUTO_FREE char *json = NULL;
    struct strs layers = { 0 };
    struct image_loaded *loaded;
    size_t size;
    int r = slurp(ld, name, m->config.digest, IMAGE_CONFIG_MAX, &json, &size, e);
    for (uint32_t i = 0; i < m->n; i++) {
        AUTO_FREE char *layer = xasprintf("blobs/sha256/%s", image_digest_hex(m->v[i].digest));
        strs_add(&layers, layer);
    }
    if (r == 0)
        r = load_image(ld, json, size, &layers, true, &loaded, e);
    if (r == 0)
        r = keep_manifest(ld, m, loaded, e);
    if (r == 0)
        name_loaded(loaded, ref_name);
    strs_clear(&layers);
    return r;
}

static int load_desc(struct loader *ld, const struct image_desc *d, const char *ref_name,
                     unsigned depth, struct err *e)
{
    AUTO_FREE char *name = xasprintf("blobs/sha256/%s", image_digest_hex(d->digest));
    AUTO_FREE char *json = NULL;
    struct image_manifest m = { 0 };
    size_t size;
    if (depth > DEPTH_MAX)
        return err_set(e, E_INVALID, "indexes lie more than %d deep in each other", DEPTH_MAX);
    int r = slurp(ld, name, d->digest, IMAGE_MANIFEST_MAX, &json, &size, e);
    if (r == 0)
        r = image_manifest_parse(&m, json, size, d->media_type, e);
    if (r < 0)
        return r;
    if (!m.is_index) {
        r = load_manifest(ld, &m, ref_name, e);
    } else {
        const struct image_desc *mine = image_manifest_choose(&m);
        r = mine ? load_desc(ld, mine, ref_name, depth + 1, e)
                 : err_set(e, E_NOT_FOUND, "no image for linux/%s in index %s", image_arch(),
                           d->digest);
    }
    image_manifest_clear(&m);
    return r;
}

static int load_layout(struct loader *ld, struct err *e)
{
    AUTO_FREE char *json = NULL;
    struct image_manifest m = { 0 };
    size_t size;
    int r = slurp(ld, "index.json", NULL, IMAGE_MANIFEST_MAX, &json, &size, e);
    if (r == 0)
        r = image_manifest_parse(&m, json, size, NULL, e);
    if (r < 0)
        return err_wrap(e, "index.json");
    if (!m.is_index || m.n > IMAGES_MAX)
        r = err_set(e, E_INVALID, "index.json: want an index of at most %d images", IMAGES_MAX);
    for (uint32_t i = 0; r == 0 && i < m.n; i++) {
        const struct image_desc *d = &m.v[i];
        bool other = (d->os && !str_equal(d->os, "linux")) ||
                     (d->architecture && !str_equal(d->architecture, image_arch()));
        if (!other)
            r = load_desc(ld, d, d->ref_name, 0, e);
    }
    if (r == 0 && ld->ret->n == 0)
        r = err_set(e, E_NOT_FOUND, "index.json: no image for linux/%s", image_arch());
    image_manifest_clear(&m);
    return r;
}

int image_load_archive(const char *root, const char *archive, struct image_loaded_list *ret,
                       struct err *e)
{
    struct loader ld = { .root = root, .ret = ret };
    map_init(&ld.files);
    int r = spread(&ld, archive, e);
    if (r == 0 && lookup(&ld, "manifest.json"))
        r = load_docker(&ld, e);
    else if (r == 0 && lookup(&ld, "index.json"))
        r = load_layout(&ld, e);
    else if (r == 0)
        r = err_set(
            e, E_INVALID,
            "neither manifest.json nor index.json inside: not an image archive (use import for a root file system)");
    for (struct map_item *it = NULL; (it = map_next(&ld.files, it));)
        file_free(it->value);
    map_done(&ld.files);
    if (r < 0)
        image_loaded_clear(ret);
    return r;
}
