/* Saving: one tar that other people's programs read in either of two ways. As an OCI image layout (image-spec
 * "image-layout.md": oci-layout, index.json, blobs/) and as an archive of `docker save` (manifest.json, which names the
 * same blobs; docker and skopeo unpack layers by their magic). Nothing is staged: the list of entries is made first,
 * then each read goes on where the last one ended. */
#include "image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <shoal/base/map.h>
#include <stdio.h>
#include <unistd.h>

enum { TAR_BLOCK = 512, NAMES_MAX = 1024 };

struct entry {
    char *name, *data; /* data: its bytes, or NULL: those of the file */
    char *path;
    int64_t size;
};

struct image_save {
    struct image_store *store;
    struct entry *v;
    uint32_t n, cap;
    struct map seen;          /* blobs that are listed */
    struct val_doc *doc;      /* while the lists are made */
    struct val *index, *docker;
    /* reading */
    uint32_t at;              /* entry */
    struct sb head;           /* its tar header; then: */
    int64_t done;             /* bytes of its data and padding */
    size_t head_done, end_done;
    int fd;
};

/* ---- the list of entries ---- */

static struct entry *add_entry(struct image_save *sv, const char *name, int64_t size)
{
    if (sv->n == sv->cap)
        sv->v = xrealloc(sv->v, sv->cap = sv->cap * 2 + 32, sizeof *sv->v);
    struct entry *en = &sv->v[sv->n++];
    *en = (struct entry){ .name = xstrdup(name), .size = size };
    return en;
}

static void add_text(struct image_save *sv, const char *name, const char *text, size_t size)
{
    add_entry(sv, name, (int64_t)size)->data = xmemdup(text, size);
}

static bool is_new(struct image_save *sv, const char *digest, char **ret_name)
{
    *ret_name = xasprintf("blobs/sha256/%s", image_digest_hex(digest));
    return !map_put(&sv->seen, digest, sv);
}

static void add_blob(struct image_save *sv, const char *digest, int64_t size)
{
    AUTO_FREE char *name = NULL;
    if (is_new(sv, digest, &name))
        add_entry(sv, name, size)->path = image_blob_path(sv->store->root, digest);
}

static struct val *desc_val(struct image_save *sv, const struct image_manifest *m, const char *digest,
                            const struct image_config *c, const char *tag)
{
    struct val_doc *d = sv->doc;
    struct val *v = val_map(d), *platform = val_map(d), *notes = val_map(d);
    struct image_ref ref;
    val_set(d, v, "mediaType", val_str(d, m->media_type));
    val_set(d, v, "digest", val_str(d, digest));
    val_set(d, v, "size", val_int(d, (int64_t)m->raw_size));
    val_set(d, platform, "architecture", val_str(d, c->architecture ? c->architecture : image_arch()));
    val_set(d, platform, "os", val_str(d, "linux"));
    val_set(d, v, "platform", platform);
    if (tag && image_ref_parse(&ref, tag, NULL) == 0) {
        AUTO_FREE char *full = image_ref_full(&ref);
        val_set(d, notes, "io.containerd.image.name", val_str(d, full));
        val_set(d, notes, "org.opencontainers.image.ref.name", val_str(d, ref.tag ? ref.tag : "latest"));
        val_set(d, v, "annotations", notes);
        image_ref_clear(&ref);
    }
    return v;
}

static void list_docker(struct image_save *sv, const struct image_manifest *m, const struct strs *tags)
{
    struct val_doc *d = sv->doc;
    struct val *v = val_map(d), *names = val_list(d), *layers = val_list(d);
    AUTO_FREE char *config = xasprintf("blobs/sha256/%s", image_digest_hex(m->config.digest));
    for (uint32_t i = 0; i < tags->n; i++)
        val_push(d, names, val_str(d, tags->v[i]));
    for (uint32_t i = 0; i < m->n; i++) {
        AUTO_FREE char *name = xasprintf("blobs/sha256/%s", image_digest_hex(m->v[i].digest));
        val_push(d, layers, val_str(d, name));
    }
    val_set(d, v, "Config", val_str(d, config));
    val_set(d, v, "RepoTags", tags->n ? names : val_null(d));
    val_set(d, v, "Layers", layers);
    val_push(d, sv->docker, v);
}

static int add_image(struct image_save *sv, const struct image *im, const struct strs *tags, struct err *e)
{
    struct image_manifest m;
    AUTO_FREE char *name = NULL;
    int r = image_parts(sv->store->root, im->id, im->manifest, &im->config.diff_ids, &m, e);
    if (r < 0)
        return r;
    AUTO_FREE char *digest = image_digest_bytes(m.raw, m.raw_size);
    add_blob(sv, m.config.digest, m.config.size);
    for (uint32_t i = 0; i < m.n; i++)
        add_blob(sv, m.v[i].digest, m.v[i].size);
    if (is_new(sv, digest, &name))
        add_text(sv, name, m.raw, m.raw_size);
    for (uint32_t i = 0; i < tags->n; i++)
        val_push(sv->doc, sv->index, desc_val(sv, &m, digest, &im->config, tags->v[i]));
    if (!tags->n)
        val_push(sv->doc, sv->index, desc_val(sv, &m, digest, &im->config, NULL));
    list_docker(sv, &m, tags);
    image_manifest_clear(&m);
    return 0;
}

/* ---- which images ---- */

struct wanted { const struct image *image; struct strs tags; };

static int want(struct wanted *w, uint32_t *n, const struct image *im, struct wanted **ret, struct err *e)
{
    uint32_t i = 0;
    while (i < *n && w[i].image != im)
        i++;
    if (i == NAMES_MAX)
        return err_set(e, E_TOO_BIG, "more than %d images at once; save them in parts", NAMES_MAX);
    *n = MAX(*n, i + 1);
    w[i].image = im;
    *ret = &w[i];
    return 0;
}

static void want_tag(struct wanted *w, const char *tag)
{
    if (!strs_has(&w->tags, tag))
        strs_add(&w->tags, tag);
}

/* "repository": all its tags. *ret_found: there is one. */
static int want_repository(struct image_save *sv, const char *name, struct wanted *w, uint32_t *n, bool *ret_found,
                           struct err *e)
{
    struct image_ref r;
    struct wanted *one;
    const char *slash = strrchr(name, '/');
    int code = 0;
    *ret_found = false;
    if (strchr(slash ? slash : name, ':') || strchr(name, '@') || image_ref_parse(&r, name, NULL) < 0)
        return 0;
    AUTO_FREE char *repo = image_ref_name(&r);
    AUTO_FREE char *prefix = xasprintf("%s:", repo);
    image_ref_clear(&r);
    for (const struct image *im = NULL; code == 0 && (im = image_next(sv->store, im));)
        for (uint32_t i = 0; i < im->repo_tags.n && code == 0; i++) {
            if (!str_starts(im->repo_tags.v[i], prefix))
                continue;
            *ret_found = true;
            code = want(w, n, im, &one, e);
            if (code == 0)
                want_tag(one, im->repo_tags.v[i]);
        }
    return code;
}

static int want_name(struct image_save *sv, const char *name, struct wanted *w, uint32_t *n, struct err *e)
{
    struct image_ref r;
    struct wanted *one;
    bool found;
    int code = want_repository(sv, name, w, n, &found, e);
    if (code < 0 || found)
        return code;
    const struct image *im = image_find(sv->store, name);
    if (!im)
        return err_set(e, E_NOT_FOUND, "No such image: %.300s", name);
    code = want(w, n, im, &one, e);
    if (code == 0 && image_ref_parse(&r, name, NULL) == 0) {
        AUTO_FREE char *tag = image_ref_familiar(&r);
        if (strs_has(&im->repo_tags, tag)) /* else it was named by id or digest */
            want_tag(one, tag);
        image_ref_clear(&r);
    }
    return code;
}

/* ---- making it ---- */

static void add_json(struct image_save *sv, const char *name, const struct val *v)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    json_write(&b, v, 0);
    add_text(sv, name, b.s, b.len);
}

static int list_all(struct image_save *sv, const struct strs *names, struct err *e)
{
    static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    struct wanted *w = xcalloc(NAMES_MAX, sizeof *w);
    uint32_t n = 0;
    int r = names->n ? 0 : err_set(e, E_INVALID, "no image is named");
    for (uint32_t i = 0; r == 0 && i < names->n; i++)
        r = want_name(sv, names->v[i], w, &n, e);
    sv->doc = val_doc_new();
    sv->index = val_list(sv->doc);
    sv->docker = val_list(sv->doc);
    for (uint32_t i = 0; r == 0 && i < n; i++)
        r = add_image(sv, w[i].image, &w[i].tags, e);
    if (r == 0) {
        struct val *index = val_map(sv->doc);
        val_set(sv->doc, index, "schemaVersion", val_int(sv->doc, 2));
        val_set(sv->doc, index, "mediaType", val_str(sv->doc, "application/vnd.oci.image.index.v1+json"));
        val_set(sv->doc, index, "manifests", sv->index);
        add_json(sv, "index.json", index);
        add_json(sv, "manifest.json", sv->docker);
        add_text(sv, "oci-layout", layout, sizeof layout - 1);
    }
    for (uint32_t i = 0; i < n; i++)
        strs_clear(&w[i].tags);
    free(w);
    val_doc_free(TAKE(sv->doc));
    return r;
}

int image_save_new(struct image_save **ret, struct image_store *s, const struct strs *names, struct err *e)
{
    struct image_save *sv = xnew(struct image_save);
    sv->store = s;
    sv->fd = -1;
    map_init(&sv->seen);
    sb_init(&sv->head, 0);
    image_store_hold(s);
    int r = list_all(sv, names, e);
    if (r == 0)
        *ret = sv;
    else
        image_save_free(sv);
    return r;
}

void image_save_free(struct image_save *sv)
{
    if (!sv)
        return;
    for (uint32_t i = 0; i < sv->n; i++) {
        free(sv->v[i].name);
        free(sv->v[i].data);
        free(sv->v[i].path);
    }
    free(sv->v);
    map_done(&sv->seen);
    sb_done(&sv->head);
    if (sv->fd >= 0)
        close(sv->fd);
    image_store_unhold(sv->store);
    free(sv);
}

/* ---- reading it ---- */

/* Octal as tar has it; what is too large for that in base 256, as GNU and POSIX readers take it. */
static void put_number(char *at, size_t width, int64_t n)
{
    if (n >> (3 * (width - 1)) == 0) {
        snprintf(at, width, "%0*llo", (int)width - 1, (unsigned long long)n);
        return;
    }
    for (size_t i = width; i-- > 1; n >>= 8)
        at[i] = (char)(n & 0xff);
    at[0] = (char)0x80;
}

/* POSIX ustar. libarchive writes headers only together with data, and the data is not ours to pass through it. */
static void make_head(struct image_save *sv, const struct entry *en)
{
    char h[TAR_BLOCK] = { 0 };
    unsigned sum = 0;
    ASSERT(strlen(en->name) < 100); /* names are ours */
    memcpy(h, en->name, strlen(en->name));
    put_number(h + 100, 8, 0644);
    put_number(h + 108, 8, 0);  /* owner, group */
    put_number(h + 116, 8, 0);
    put_number(h + 124, 12, en->size);
    put_number(h + 136, 12, 0); /* time */
    memset(h + 148, ' ', 8);
    h[156] = '0';
    memcpy(h + 257, "ustar\0" "00", 8);
    for (size_t i = 0; i < sizeof h; i++)
        sum += (unsigned char)h[i];
    put_number(h + 148, 7, sum);
    sb_reset(&sv->head);
    sb_add(&sv->head, h, sizeof h);
}

static int open_entry(struct image_save *sv, struct err *e)
{
    const struct entry *en = &sv->v[sv->at];
    int r = 0;
    make_head(sv, en);
    sv->head_done = 0;
    sv->done = 0;
    if (en->path && (sv->fd = open(en->path, O_RDONLY | O_CLOEXEC)) < 0)
        r = err_errno(e, errno, "%s", en->path);
    return r;
}

static void close_entry(struct image_save *sv)
{
    if (sv->fd >= 0)
        close(sv->fd);
    sv->fd = -1;
    sb_reset(&sv->head);
    sv->at++;
}

static long take_data(struct image_save *sv, void *buf, size_t size, struct err *e)
{
    const struct entry *en = &sv->v[sv->at];
    size_t n = MIN(size, (size_t)(en->size - sv->done));
    if (en->data) {
        memcpy(buf, en->data + sv->done, n);
        return (long)n;
    }
    ssize_t got = pread(sv->fd, buf, n, sv->done);
    if (got < 0)
        return errno == EINTR ? take_data(sv, buf, size, e) : err_errno(e, errno, "%s", en->path);
    if (got == 0)
        return err_set(e, E_CORRUPT, "%s is shorter than it was; pull the image again", en->path);
    return got;
}

long image_save_read(struct image_save *sv, void *buf, size_t size, struct err *e)
{
    size_t used = 0;
    while (used < size) {
        char *to = (char *)buf + used;
        size_t room = size - used, n;
        if (sv->at == sv->n) { /* two blocks of zeros end a tar */
            n = MIN(room, 2 * TAR_BLOCK - sv->end_done);
            if (n == 0)
                break;
            memset(to, 0, n);
            sv->end_done += n;
            used += n;
            continue;
        }
        int r = sv->head.len ? 0 : open_entry(sv, e);
        if (r < 0)
            return r;
        const struct entry *en = &sv->v[sv->at];
        int64_t whole = (en->size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        if (sv->head_done < sv->head.len) {
            n = MIN(room, sv->head.len - sv->head_done);
            memcpy(to, sv->head.s + sv->head_done, n);
            sv->head_done += n;
        } else if (sv->done < en->size) {
            long got = take_data(sv, to, room, e);
            if (got < 0)
                return got;
            n = (size_t)got;
            sv->done += got;
        } else {
            n = MIN(room, (size_t)(whole - sv->done));
            memset(to, 0, n);
            sv->done += (int64_t)n;
        }
        used += n;
        if (sv->head_done == sv->head.len && sv->done == whole)
            close_entry(sv);
    }
    return (long)used;
}
