/* The content store: ROOT/blobs/sha256/HEX. A blob is written to ROOT/tmp and hashed while it
 * grows; only when its digest is right it is renamed. Nobody waits for the disk: who reads configurations and manifests
 * checks them (image_blob_read), and layers go after a power cut unless they were settled (layer_io.c). Any thread may call this: nothing is shared but the
 * file system. */
#include "image_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct image_blob_writer {
    char *root, *digest, *path;
    struct crypto_sha256 *hash;
    int64_t max, size;
    int fd;
    bool partial; /* ROOT/partial/HEX, locked: stays for the next download unless its bytes are wrong */
};

char *image_tmp_path(const char *root, const char *kind)
{
    char id[26];
    id_random(id);
    return xasprintf("%s/tmp/%s-%s", root, kind, id);
}

char *image_blob_path(const char *root, const char *digest)
{
    return xasprintf("%s/blobs/sha256/%s", root, image_digest_hex(digest));
}

bool image_blob_exists(const char *root, const char *digest)
{
    AUTO_FREE char *path = image_blob_path(root, digest);
    return file_exists(path);
}

int image_blob_read(const char *root, const char *digest, size_t max, char **ret, size_t *ret_size,
                    struct err *e)
{
    AUTO_FREE char *path = image_blob_path(root, digest);
    AUTO_FREE char *data = NULL;
    uint8_t sum[CRYPTO_SHA256_SIZE];
    int r = file_read(path, max, &data, ret_size, e);
    if (r < 0)
        return r;
    crypto_sha256(sum, data, *ret_size);
    AUTO_FREE char *got = image_digest_of(sum);
    if (!str_equal(got, digest))
        return err_set(e, E_CORRUPT,
                       "%s holds other bytes than its name says (%s); remove it and pull again",
                       path, got);
    *ret = TAKE(data);
    return 0;
}

static void blob_free(struct image_blob_writer *w)
{
    uint8_t sum[CRYPTO_SHA256_SIZE];
    if (w->fd >= 0)
        close(w->fd);
    if (w->hash)
        crypto_sha256_end(w->hash, sum);
    free(w->root);
    free(w->digest);
    free(w->path);
    free(w);
}

int image_blob_begin(struct image_blob_writer **ret, const char *root, const char *digest,
                     int64_t max, struct err *e)
{
    struct image_blob_writer *w = xnew(struct image_blob_writer);
    *w = (struct image_blob_writer){ .root = xstrdup(root), .digest = xstrdup(digest),
                                     .path = image_tmp_path(root, "blob"), .max = max };
    w->fd = open(w->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->fd < 0) {
        int r = err_errno(e, errno, "create %s", w->path);
        blob_free(w);
        return r;
    }
    w->hash = crypto_sha256_new();
    *ret = w;
    return 0;
}

static char *partial_path(const char *root, const char *digest)
{
    return xasprintf("%s/partial/%s", root, image_digest_hex(digest));
}

/* What is there is hashed again: a state of the hash beside it could be of other bytes. */
static int take_up(struct image_blob_writer *w, int64_t size, struct err *e)
{
    enum { CHUNK = 256 << 10 };
    AUTO_FREE char *buf = xcalloc(1, CHUNK);
    while (w->size < size) {
        ssize_t n = pread(w->fd, buf, CHUNK, w->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, errno, "read %s", w->path);
        if (n == 0)
            break;
        crypto_sha256_add(w->hash, buf, (size_t)n);
        w->size += n;
    }
    return lseek(w->fd, w->size, SEEK_SET) < 0 ? err_errno(e, errno, "seek %s", w->path) : 0;
}

int image_blob_resume(struct image_blob_writer **ret, const char *root, const char *digest, int64_t max,
                      struct err *e)
{
    struct image_blob_writer *w = xnew(struct image_blob_writer);
    struct stat st;
    *w = (struct image_blob_writer){ .root = xstrdup(root), .digest = xstrdup(digest),
                                     .path = partial_path(root, digest), .max = max, .partial = true };
    w->fd = open(w->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->fd < 0) {
        int r = err_errno(e, errno, "create %s", w->path);
        blob_free(w);
        return r;
    }
    if (flock(w->fd, LOCK_EX | LOCK_NB) < 0 || fstat(w->fd, &st) < 0 || st.st_nlink != 1) {
        blob_free(w); /* another pull is at it, or unpacks it, or it became a blob: those bytes are not ours to change */
        return image_blob_begin(ret, root, digest, max, e);
    }
    w->hash = crypto_sha256_new();
    int r = st.st_size <= max ? take_up(w, st.st_size, e) : image_blob_restart(w, e);
    if (r < 0)
        blob_free(w);
    else
        *ret = w;
    return r;
}

void image_blob_forget(const char *root, const char *digest)
{
    AUTO_FREE char *path = partial_path(root, digest);
    unlink(path);
}

void image_partials_clean(const char *root, int64_t older_s)
{
    AUTO_FREE char *dir = xasprintf("%s/partial", root);
    DIR *d = opendir(dir);
    struct dirent *de;
    while (d && (de = readdir(d))) {
        AUTO_FREE char *path = path_join(dir, de->d_name);
        struct stat st;
        if (de->d_name[0] != '.' && lstat(path, &st) == 0 && st.st_mtime + older_s < clock_real_ns() / SEC_NS)
            unlink(path); /* a pull that is at it finishes all the same */
    }
    if (d)
        closedir(d);
}

int image_blob_add(struct image_blob_writer *w, const void *p, size_t size, struct err *e)
{
    if ((uint64_t)size > (uint64_t)(w->max - w->size))
        return err_set(e, E_TOO_BIG, "%s is longer than the %lld bytes announced",
                       w->digest ? w->digest : "the data", (long long)w->max);
    crypto_sha256_add(w->hash, p, size);
    w->size += (int64_t)size;
    return fd_write_all(w->fd, p, size, e) < 0 ? err_wrap(e, "image store %s", w->root) : 0;
}

int image_blob_restart(struct image_blob_writer *w, struct err *e)
{
    uint8_t sum[CRYPTO_SHA256_SIZE];
    crypto_sha256_end(w->hash, sum);
    w->hash = crypto_sha256_new();
    w->size = 0;
    if (ftruncate(w->fd, 0) < 0 || lseek(w->fd, 0, SEEK_SET) < 0)
        return err_errno(e, errno, "truncate %s", w->path);
    return 0;
}

int64_t image_blob_size(const struct image_blob_writer *w) { return w->size; }

void image_blob_abort(struct image_blob_writer *w)
{
    if (!w)
        return;
    if (!w->partial || w->size == 0)
        unlink(w->path);
    blob_free(w);
}

static int verify(struct image_blob_writer *w, char **ret_digest, struct err *e)
{
    uint8_t sum[CRYPTO_SHA256_SIZE];
    crypto_sha256_end(TAKE(w->hash), sum);
    AUTO_FREE char *got = image_digest_of(sum);
    if (w->digest && !str_equal(w->digest, got))
        return err_set(e, E_CORRUPT, "digest mismatch: want %s, the bytes that came have %s",
                       w->digest, got);
    *ret_digest = TAKE(got);
    return 0;
}

int image_blob_spool(struct image_blob_writer *w, char **ret_path, char **ret_digest, struct err *e)
{
    AUTO_FREE char *digest = NULL;
    int r = verify(w, &digest, e);
    if (r < 0)
        w->partial = false; /* wrong bytes are no use */
    AUTO_FREE char *own = r == 0 && w->partial ? image_tmp_path(w->root, "blob") : NULL;
    if (own && link(w->path, own) < 0) /* a name of its own: who else pulls this may take partial/HEX away */
        r = err_errno(e, errno, "link %s to %s", w->path, own);
    if (r < 0) {
        image_blob_abort(w);
        return r;
    }
    *ret_path = own ? TAKE(own) : TAKE(w->path);
    if (ret_digest)
        *ret_digest = TAKE(digest);
    blob_free(w);
    return 0;
}

int image_blob_keep(struct image_blob_writer *w, char **ret_digest, struct err *e)
{
    AUTO_FREE char *digest = NULL;
    int r = verify(w, &digest, e);
    AUTO_FREE char *path = r == 0 ? image_blob_path(w->root, digest) : NULL;
    if (r == 0 && rename(w->path, path) < 0)
        r = err_errno(e, errno, "rename %s to %s", w->path, path);
    if (r < 0) {
        image_blob_abort(w);
        return r;
    }
    if (ret_digest)
        *ret_digest = TAKE(digest);
    blob_free(w);
    return r;
}

int image_blob_put(const char *root, const void *p, size_t size, char **ret_digest, struct err *e)
{
    struct image_blob_writer *w;
    uint8_t sum[CRYPTO_SHA256_SIZE];
    AUTO_FREE char *there = NULL;
    size_t n;
    crypto_sha256(sum, p, size);
    AUTO_FREE char *digest = image_digest_of(sum);
    /* A good one stays as it is: it is on the disk, and a new one would not be yet. */
    if (image_blob_exists(root, digest) && image_blob_read(root, digest, size, &there, &n, NULL) == 0) {
        if (ret_digest)
            *ret_digest = TAKE(digest);
        return 0;
    }
    int r = image_blob_begin(&w, root, digest, (int64_t)size, e);
    if (r < 0)
        return r;
    r = image_blob_add(w, p, size, e);
    if (r < 0) {
        image_blob_abort(w);
        return r;
    }
    return image_blob_keep(w, ret_digest, e);
}
