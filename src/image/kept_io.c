/* The packed bytes of a layer are kept beside its unpacked folder: blobs/sha256/HEX as the registry or archive gave
 * them, and a note layers/DIFF.blob that says which. Save, push and peers then give back exactly those bytes, so the
 * digest of an image is the same wherever it goes. The other way, packing a layer again when it is asked for, would
 * need a record of every tar header (order, padding, times of folders) and the very compressor of whoever made it;
 * without both the digest is another one, and what a manifest, a signature or a service names is no longer to be had.
 * The price is disk: a third to a half of the unpacked layer (all of it again for a layer that came unpacked; the
 * first push packs and replaces it). One blob a layer: an image whose manifest names other bytes of the same contents
 * is saved and pushed with a manifest of its own (parts_io.c).
 * Nobody waits for the disk, unless a blob takes the place of another one: a layer that is not known to be on it after a power cut goes with its note and its blob
 * (layer_io.c). */
#include "image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char *note_path(const char *root, const char *diff_id)
{
    return xasprintf("%s/layers/%s.blob", root, image_digest_hex(diff_id));
}

bool image_kept_find(const char *root, const char *diff_id, struct image_kept *ret)
{
    AUTO_FREE char *path = note_path(root, diff_id);
    AUTO_FREE char *text = NULL;
    struct image_kept k = { .size = 0 };
    struct stat st;
    long long size;
    size_t n;
    if (file_read(path, 256, &text, &n, NULL) < 0 ||
        sscanf(text, "%71s %lld %7s", k.digest, &size, k.packing) != 3 || !image_digest_ok(k.digest))
        return false;
    AUTO_FREE char *blob = image_blob_path(root, k.digest);
    k.size = size;
    if (stat(blob, &st) < 0 || st.st_size != k.size)
        return false;
    if (ret)
        *ret = k;
    return true;
}

static int look_inside(const char *path, struct image_kept *ret, struct err *e)
{
    static const struct { unsigned char magic[4]; size_t n; const char *packing; } kinds[] = {
        { { 0x1f, 0x8b }, 2, "gzip" }, { { 0x28, 0xb5, 0x2f, 0xfd }, 4, "zstd" } };
    unsigned char head[4] = { 0 };
    struct stat st;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0 || pread(fd, head, sizeof head, 0) < 0)
        return err_errno(e, errno, "%s", path);
    ret->size = st.st_size;
    snprintf(ret->packing, sizeof ret->packing, "tar");
    for (size_t i = 0; i < ARRAY_N(kinds); i++)
        if (memcmp(head, kinds[i].magic, kinds[i].n) == 0)
            snprintf(ret->packing, sizeof ret->packing, "%s", kinds[i].packing);
    return 0;
}

/* Waits until the packed file and its name among the blobs are on the disk. */
static int sync_blob(const char *root, const char *blob, struct err *e)
{
    AUTO_FREE char *dir = path_join(root, "blobs/sha256");
    AUTO_CLOSE int file = open(blob, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    AUTO_CLOSE int folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return file < 0 || folder < 0 || fsync(file) < 0 || fsync(folder) < 0 ? err_errno(e, errno, "sync %s", blob) : 0;
}

int image_kept_put(const char *root, const char *diff_id, const char *path, const char *digest,
                   struct err *e)
{
    struct image_kept k;
    AUTO_FREE char *blob = image_blob_path(root, digest);
    AUTO_FREE char *note = note_path(root, diff_id);
    struct image_kept old;
    int r = look_inside(path, &k, e);
    if (r < 0)
        return r;
    bool swap = image_kept_find(root, diff_id, &old);
    if (swap && (!str_equal(old.packing, "tar") || str_equal(k.packing, "tar")))
        return 0; /* a manifest may rest on it; only a plain tar gives way to a packed one */
    if (link(path, blob) < 0 && errno != EEXIST)
        return err_errno(e, errno, "link %s to %s", path, blob);
    AUTO_FREE char *text = xasprintf("%s %lld %s\n", digest, (long long)k.size, k.packing);
    if (!swap)
        return file_write_volatile(note, text, strlen(text), 0600, e);
    r = sync_blob(root, blob, e); /* the old one is swept, and its layer counts as being on the disk */
    return r < 0 ? r : file_write_atomic(note, text, strlen(text), 0600, e);
}
