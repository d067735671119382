/* The store: what images there are, by which names. ROOT/images.json names them; configurations
 * are blobs, layers are folders. The index is written last and atomically, so what it names
 * exists; what it does not name is swept: at opening, after a removal, and after a load or pull
 * that failed, but never while another load or pull may be relying on it. */
#include "image_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/map.h>
#include <sys/ioctl.h>
#include <unistd.h>

LOG_MODULE("image");
enum { INDEX_MAX_BYTES = 64 << 20, PREFIX_MIN = 4, PARTIAL_KEEP_S = 24 * 3600 };

static void item_free(struct image_item *it)
{
    list_remove(&it->node);
    free(it->image.id);
    free(it->image.manifest);
    free(it->image.layer_sizes);
    strs_clear(&it->image.repo_tags);
    strs_clear(&it->image.repo_digests);
    strs_clear(&it->image.layer_dirs);
    image_config_clear(&it->image.config);
    free(it);
}

static struct image_item *find_id(const struct image_store *s, const char *id)
{
    struct image_item *it;
    list_for(it, &s->images, node)
        if (str_equal(it->image.id, id))
            return it;
    return NULL;
}

static void strs_drop(struct strs *s, const char *value)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (str_equal(s->v[i], value)) {
            free(s->v[i]);
            memmove(s->v + i, s->v + i + 1, (s->n - i - 1) * sizeof *s->v);
            s->n--;
            return;
        }
}

/* ---- index ---- */

static struct val *list_val(struct val_doc *d, const struct strs *s)
{
    struct val *list = val_list(d);
    for (uint32_t i = 0; i < s->n; i++)
        val_push(d, list, val_str(d, s->v[i]));
    return list;
}

static int save(const struct image_store *s, struct err *e)
{
    AUTO_FREE char *path = path_join(s->root, "images.json");
    AUTO_SB struct sb b;
    struct val_doc *d = val_doc_new();
    struct val *root = val_map(d), *images = val_list(d);
    struct image_item *it;
    list_for(it, &s->images, node) {
        struct val *v = val_map(d);
        val_set(d, v, "id", val_str(d, it->image.id));
        val_set(d, v, "tags", list_val(d, &it->image.repo_tags));
        val_set(d, v, "digests", list_val(d, &it->image.repo_digests));
        if (it->image.manifest)
            val_set(d, v, "manifest", val_str(d, it->image.manifest));
        val_push(d, images, v);
    }
    val_set(d, root, "images", images);
    sb_init(&b, INDEX_MAX_BYTES);
    json_write(&b, root, 1);
    val_doc_free(d);
    if (b.overflow)
        return err_set(e, E_TOO_BIG, "the image index is full (%d bytes); remove images",
                       INDEX_MAX_BYTES);
    return file_write_atomic(path, b.s, b.len, 0600, e);
}

/* Reads the configuration and finds the layers of an image whose parts are on disk. */
static int item_new(struct image_store *s, const char *id, struct image_item **ret, struct err *e)
{
    AUTO_FREE char *json = NULL;
    size_t size;
    if (!image_digest_ok(id))
        return err_set(e, E_CORRUPT, "\"%.100s\" is no image id", id ? id : "");
    int r = image_blob_read(s->root, id, IMAGE_CONFIG_MAX, &json, &size, e);
    if (r < 0)
        return r;
    struct image_item *it = xnew(struct image_item);
    r = image_config_parse(&it->image.config, json, size, e);
    const struct strs *layers = &it->image.config.diff_ids;
    it->image.layer_sizes = xcalloc(layers->n + 1, sizeof *it->image.layer_sizes);
    for (uint32_t i = layers->n; r == 0 && i-- > 0;) {
        AUTO_FREE char *dir = image_layer_dir(s->root, layers->v[i]);
        if (!file_exists(dir))
            r = err_set(e, E_CORRUPT, "layer %s of image %s is missing", layers->v[i], id);
        it->image.layer_sizes[i] = image_layer_size(s->root, layers->v[i]);
        if (strs_has(&it->image.layer_dirs, dir))
            continue; /* overlayfs takes a folder once; the upper one has all that the lower one has */
        strs_add(&it->image.layer_dirs, dir);
        it->image.size_bytes += it->image.layer_sizes[i];
    }
    if (r == 0) {
        it->image.id = xstrdup(id);
        if (!it->image.config.created ||
            time_parse(it->image.config.created, &it->image.created_ns) < 0)
            it->image.created_ns = 0;
        list_push_back(&s->images, &it->node);
        *ret = it;
        return 0;
    }
    item_free(it);
    return r;
}

static int read_index(struct image_store *s, struct err *e)
{
    AUTO_FREE char *path = path_join(s->root, "images.json");
    AUTO_FREE char *json = NULL;
    struct val_doc *d = NULL;
    size_t size;
    if (!file_exists(path))
        return 0;
    int r = file_read(path, INDEX_MAX_BYTES, &json, &size, e);
    if (r == 0)
        r = json_parse(&d, json, size, path, e);
    if (r < 0)
        return r;
    const struct val *images = val_get(val_root(d), "images");
    if (!images || images->kind != V_LIST)
        r = err_set(e, E_CORRUPT, "%s has no list of images; remove it to start with none", path);
    for (uint32_t i = 0; r == 0 && i < images->n; i++) {
        const char *id = val_get_str(images->list[i], "id");
        struct image_item *it;
        struct err why = { 0 };
        if (find_id(s, id))
            continue;
        if (item_new(s, id, &it, &why) < 0) {
            log_warn("image left out: %s", why.text);
            continue;
        }
        r = image_strs_from(&it->image.repo_tags, images->list[i], "tags", e);
        if (r == 0)
            r = image_strs_from(&it->image.repo_digests, images->list[i], "digests", e);
        const char *manifest = val_get_str(images->list[i], "manifest");
        if (image_digest_ok(manifest) && image_blob_exists(s->root, manifest))
            it->image.manifest = xstrdup(manifest);
    }
    val_doc_free(d);
    return r;
}

/* ---- sweeping ---- */

static void remove_work(void *path)
{
    struct err e = { 0 };
    if (file_remove_tree(path, &e) < 0)
        log_warn("%s", e.text);
    free(path);
}

void image_store_drop_tmp(struct image_store *s, char *path)
{
    if (loop_work(s->loop, LANE_BULK, remove_work, NULL, path) < 0)
        remove_work(path);
}

static void settle_work(void *root)
{
    image_layers_settle(root);
    free(root);
}

static void settle(const struct image_store *s)
{
    char *root = xstrdup(s->root);
    if (loop_work(s->loop, LANE_BULK, settle_work, NULL, root) < 0)
        free(root); /* too busy: the next commit or start does it */
}

static bool sweep_folder(struct image_store *s, const char *below, const struct map *used, bool layers)
{
    bool any = false;
    AUTO_FREE char *dir = path_join(s->root, below);
    DIR *d = opendir(dir);
    struct dirent *de;
    while (d && (de = readdir(d))) {
        AUTO_FREE char *path = path_join(dir, de->d_name);
        size_t hex = strcspn(de->d_name, ".");
        if (de->d_name[0] == '.' || map_find_n(used, de->d_name, hex))
            continue;
        any = true;
        char *gone = layers && !de->d_name[hex] ? image_layer_retire(s->root, de->d_name) : NULL;
        if (gone)
            image_store_drop_tmp(s, gone);
        else
            unlink(path);
    }
    if (d)
        closedir(d);
    return any;
}

static void sweep(struct image_store *s)
{
    struct map blobs, layers;
    struct image_item *it;
    if (s->busy) {
        s->sweep_wanted = true;
        return;
    }
    s->sweep_wanted = false;
    image_partials_clean(s->root, PARTIAL_KEEP_S);
    map_init(&blobs);
    map_init(&layers);
    list_for(it, &s->images, node) {
        const struct strs *diff_ids = &it->image.config.diff_ids;
        map_put(&blobs, image_digest_hex(it->image.id), it);
        if (it->image.manifest)
            map_put(&blobs, image_digest_hex(it->image.manifest), it);
        for (uint32_t i = 0; i < it->image.repo_digests.n; i++) { /* an index it came by */
            const char *at = strchr(it->image.repo_digests.v[i], '@');
            if (at && image_digest_ok(at + 1))
                map_put(&blobs, image_digest_hex(at + 1), it);
        }
        for (uint32_t i = 0; i < diff_ids->n; i++) {
            struct image_kept kept;
            map_put(&layers, image_digest_hex(diff_ids->v[i]), it);
            if (image_kept_find(s->root, diff_ids->v[i], &kept))
                map_put(&blobs, image_digest_hex(kept.digest), it);
        }
    }
    if (sweep_folder(s, "blobs/sha256", &blobs, false))
        image_peers_changed(s); /* others may have been told of them */
    sweep_folder(s, "layers", &layers, true);
    map_done(&blobs);
    map_done(&layers);
}

/* ---- life ---- */

static void store_free(struct image_store *s)
{
    struct image_item *it;
    if (s->peers)
        image_peers_free(s->peers);
    list_for(it, &s->images, node)
        item_free(it);
    image_silence_clear(&s->silence);
    strs_clear(&s->insecure);
    strs_clear(&s->mirrors);
    free(s->certs_dir);
    free(s->root);
    free(s);
}

/* ext4 puts a folder near its parent, so the files of all layers would share one inode table: the threads that unpack
 * wait for each other there, and each file looks in vain at the places of those removed lately (half of the system time
 * of a pull that follows a removal). With this flag each folder below goes to a group of its own. Others ignore it. */
static void spread_folders(const char *dir)
{
    AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int flags = 0;
    if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_TOPDIR_FL;
        if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0)
            log_debug("%s: no flag to spread folders: %s", dir, strerror(errno));
    }
}

int image_store_open(struct image_store **ret, struct loop *l, const struct image_store_config *cfg,
                     struct err *e)
{
    static const char *const below[] = { "blobs/sha256", "layers", "tmp", "partial" };
    struct image_store *s = xnew(struct image_store);
    struct strs gone = { 0 };
    bool unsettled = false;
    crypto_init();
    s->loop = l;
    s->root = xstrdup(cfg->root);
    s->refs = 1;
    list_init(&s->images);
    list_init(&s->pulls);
    for (uint32_t i = 0; cfg->insecure && cfg->insecure[i]; i++)
        strs_add(&s->insecure, cfg->insecure[i]);
    for (uint32_t i = 0; cfg->mirrors && cfg->mirrors[i]; i++)
        strs_add(&s->mirrors, cfg->mirrors[i]);
    s->certs_dir = xstrdup(cfg->certs_dir);
    AUTO_FREE char *tmp = path_join(s->root, "tmp");
    int r = file_remove_tree(tmp, e); /* what a killed load or pull left */
    for (unsigned i = 0; r == 0 && i < ARRAY_N(below); i++) {
        AUTO_FREE char *path = path_join(s->root, below[i]);
        r = file_mkdirs(path, 0700, e);
    }
    spread_folders(tmp);
    if (r == 0) {
        image_layers_check(s->root, &gone, &unsettled);
        r = read_index(s, e);
    }
    for (uint32_t i = 0; i < gone.n; i++)
        image_store_drop_tmp(s, xstrdup(gone.v[i]));
    strs_clear(&gone);
    if (r < 0) {
        store_free(s);
        return err_wrap(e, "image store %s", cfg->root);
    }
    if (unsettled)
        settle(s);
    sweep(s);
    s->peers = image_peers_new(s);
    *ret = s;
    return 0;
}

static void unref(struct image_store *s)
{
    if (--s->refs == 0)
        store_free(s);
}

void image_store_close(struct image_store *s)
{
    if (!s)
        return;
    s->closed = true;
    image_pulls_stop(s);
    unref(s);
}

void image_store_hold(struct image_store *s)
{
    s->refs++;
    s->busy++;
}

void image_store_unhold(struct image_store *s)
{
    s->busy--;
    if (!s->busy && s->sweep_wanted && !s->closed)
        sweep(s);
    unref(s);
}

int64_t image_store_usage(const struct image_store *s)
{
    struct map seen;
    struct image_item *it;
    int64_t bytes = 0;
    map_init(&seen);
    list_for(it, &s->images, node)
        for (uint32_t i = 0; i < it->image.config.diff_ids.n; i++) {
            struct image_kept kept;
            if (map_put(&seen, it->image.config.diff_ids.v[i], it))
                continue;
            bytes += it->image.layer_sizes[i];
            if (image_kept_find(s->root, it->image.config.diff_ids.v[i], &kept))
                bytes += kept.size;
        }
    map_done(&seen);
    return bytes;
}

/* ---- names ---- */

static struct image_item *find_tag(const struct image_store *s, const char *tag, bool digest)
{
    struct image_item *it;
    list_for(it, &s->images, node)
        if (strs_has(digest ? &it->image.repo_digests : &it->image.repo_tags, tag))
            return it;
    return NULL;
}

/* By reference. ret_name (may be NULL): the entry of repo_tags or repo_digests that was meant. */
static struct image_item *find_ref(const struct image_store *s, const char *name, char **ret_name,
                                   bool *ret_digest)
{
    struct image_ref r;
    if (image_ref_parse(&r, name, NULL) < 0)
        return NULL;
    AUTO_FREE char *repo = image_ref_name(&r);
    AUTO_FREE char *key =
        r.digest ? xasprintf("%s@%s", repo, r.digest) : xasprintf("%s:%s", repo, r.tag);
    bool digest = r.digest != NULL;
    struct image_item *it = find_tag(s, key, digest);
    image_ref_clear(&r);
    if (it && ret_name) {
        *ret_name = TAKE(key);
        *ret_digest = digest;
    }
    return it;
}

/* By "sha256:HEX" or at least PREFIX_MIN of its digits, if they mean only one image. */
static struct image_item *find_prefix(const struct image_store *s, const char *name)
{
    const char *hex = str_starts(name, "sha256:") ? name + 7 : name;
    struct image_item *found = NULL, *it;
    if (strlen(hex) < PREFIX_MIN || hex[strspn(hex, "0123456789abcdef")])
        return NULL;
    list_for(it, &s->images, node) {
        if (!str_starts(image_digest_hex(it->image.id), hex))
            continue;
        if (found)
            return NULL;
        found = it;
    }
    return found;
}

static struct image_item *find_item(const struct image_store *s, const char *name, char **ret_name,
                                    bool *ret_digest)
{
    struct image_item *it = name ? find_id(s, name) : NULL;
    if (!it && name)
        it = find_ref(s, name, ret_name, ret_digest);
    return it || !name ? it : find_prefix(s, name);
}

const struct image *image_find(const struct image_store *s, const char *name)
{
    struct image_item *it = find_item(s, name, NULL, NULL);
    return it ? &it->image : NULL;
}

const struct image *image_next(const struct image_store *s, const struct image *after)
{
    const struct list_node *next = s->images.next;
    if (after)
        next = container_of(after, struct image_item, image)->node.next;
    return next == &s->images ? NULL : &list_entry(next, struct image_item, node)->image;
}

/* Moves a tag here from whichever image has it. */
static void set_tag(struct image_store *s, struct image_item *it, const char *tag)
{
    struct image_item *old = find_tag(s, tag, false);
    if (old == it)
        return;
    if (old)
        strs_drop(&old->image.repo_tags, tag);
    strs_add(&it->image.repo_tags, tag);
}

int image_tag(struct image_store *s, const char *name, const char *new_ref, struct err *e)
{
    struct image_ref r;
    struct image_item *it = find_item(s, name, NULL, NULL);
    if (!it)
        return err_set(e, E_NOT_FOUND, "No such image: %.300s", name ? name : "");
    int code = image_ref_parse(&r, new_ref, e);
    if (code < 0)
        return code;
    if (r.digest)
        code = err_set(e, E_INVALID, "refusing to create a tag with a digest reference (%.300s)",
                       new_ref);
    if (code == 0) {
        AUTO_FREE char *tag = image_ref_familiar(&r);
        set_tag(s, it, tag);
        code = save(s, e);
        image_peers_changed(s);
    }
    image_ref_clear(&r);
    return code;
}

static int commit_one(struct image_store *s, const struct image_loaded *l, struct strs *names,
                      struct err *e)
{
    struct image_item *it = find_id(s, l->id);
    int r = it ? 0 : item_new(s, l->id, &it, e);
    if (r < 0)
        return r;
    if (l->manifest)
        str_set(&it->image.manifest, l->manifest);
    for (uint32_t i = 0; i < l->tags.n; i++) {
        struct image_ref ref;
        if ((r = image_ref_parse(&ref, l->tags.v[i], e)) < 0)
            return r;
        AUTO_FREE char *tag = image_ref_familiar(&ref);
        set_tag(s, it, tag);
        if (names)
            strs_add(names, tag);
        image_ref_clear(&ref);
    }
    for (uint32_t i = 0; i < l->digests.n; i++)
        if (!strs_has(&it->image.repo_digests, l->digests.v[i]))
            strs_add(&it->image.repo_digests, l->digests.v[i]);
    if (names && !l->tags.n)
        strs_add(names, l->id);
    return 0;
}

int image_store_commit(struct image_store *s, const struct image_loaded_list *l, struct strs *names,
                       struct err *e)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < l->n; i++)
        r = commit_one(s, &l->v[i], names, e);
    s->sweep_wanted = true;
    if (r == 0)
        settle(s);
    image_peers_changed(s);
    return r < 0 ? r : save(s, e);
}

/* ---- removal ---- */

/* Takes the image out of the list and says what goes: its id, and layers no other image has. */
static void delete_item(struct image_store *s, struct image_item *it, struct strs *untagged,
                        struct strs *deleted)
{
    const struct strs *layers = &it->image.config.diff_ids;
    for (uint32_t i = 0; i < it->image.repo_tags.n; i++)
        strs_add(untagged, it->image.repo_tags.v[i]);
    for (uint32_t i = 0; i < it->image.repo_digests.n; i++)
        strs_add(untagged, it->image.repo_digests.v[i]);
    list_remove(&it->node);
    strs_add(deleted, it->image.id);
    for (uint32_t i = layers->n; i-- > 0;) {
        struct image_item *other;
        bool shared = strs_has(deleted, layers->v[i]);
        list_for(other, &s->images, node)
            shared |= strs_has(&other->image.config.diff_ids, layers->v[i]);
        if (!shared)
            strs_add(deleted, layers->v[i]);
    }
    item_free(it);
}

int image_remove(struct image_store *s, const char *name, bool force,
                 bool (*used)(void *arg, const char *id), void *arg, struct strs *untagged,
                 struct strs *deleted, struct err *e)
{
    AUTO_FREE char *ref = NULL;
    bool digest = false;
    struct image_item *it = find_item(s, name, &ref, &digest);
    if (!it)
        return err_set(e, E_NOT_FOUND, "No such image: %.300s", name ? name : "");
    struct image *im = &it->image;
    bool in_use = used && used(arg, im->id);
    bool last = digest ? im->repo_tags.n == 0 && im->repo_digests.n <= 1 : im->repo_tags.n <= 1;
    if (ref && (!last || (in_use && force))) {
        strs_drop(digest ? &im->repo_digests : &im->repo_tags, ref);
        strs_add(untagged, ref);
        image_peers_changed(s);
        return save(s, e);
    }
    if (!ref && im->repo_tags.n > 1 && !force)
        return err_set(
            e, E_CONFLICT,
            "conflict: unable to delete %.12s (must be forced): %u tags name it; remove them one by one or use force",
            image_digest_hex(im->id), im->repo_tags.n);
    if (in_use)
        return err_set(e, E_CONFLICT, "conflict: unable to %s %.200s (%s) - a container uses image %.12s; remove that first",
                       ref ? "remove repository reference" : "delete", name,
                       ref ? "must force" : "cannot be forced", image_digest_hex(im->id));
    delete_item(s, it, untagged, deleted);
    image_peers_changed(s);
    int r = save(s, e);
    if (r == 0)
        sweep(s);
    return r;
}
