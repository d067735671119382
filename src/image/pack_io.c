/* Packing a layer that came as a plain tar, before it is pushed: registries and other people's clients expect gzip.
 * Through libarchive's raw format; without a time in the header, so the same layer always becomes the same blob. */
#include "image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <shoal/base/archive.h>
#include <unistd.h>

enum { CHUNK = 256 << 10 };

struct sink { struct image_blob_writer *w; struct err e; };

static la_ssize_t to_blob(struct archive *a, void *arg, const void *p, size_t n)
{
    struct sink *s = arg;
    if (image_blob_add(s->w, p, n, &s->e) == 0)
        return (la_ssize_t)n;
    libarchive.set_error(a, EIO, "%s", s->e.text);
    return -1;
}

static int feed(struct archive *a, int fd, const atomic_bool *cancel, struct err *e)
{
    AUTO_FREE char *buf = xcalloc(1, CHUNK);
    ssize_t n;
    while ((n = read(fd, buf, CHUNK)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, errno, "read a layer");
        if (atomic_load(cancel))
            return err_set(e, E_CLOSED, "cancelled");
        if (libarchive.write_data(a, buf, (size_t)n) != n)
            return err_set(e, E_IO, "pack a layer: %.200s", libarchive.error_string(a));
    }
    return libarchive.write_close(a) == ARCHIVE_OK
               ? 0 : err_set(e, E_IO, "pack a layer: %.200s", libarchive.error_string(a));
}

static int pack(struct sink *s, int fd, const atomic_bool *cancel, struct err *e)
{
    int r = archive_load(e);
    if (r < 0)
        return r;
    struct archive *a = libarchive.write_new();
    struct archive_entry *entry = libarchive.entry_new();
    libarchive.entry_set_filetype(entry, AE_IFREG);
    libarchive.write_set_format_raw(a);
    libarchive.write_add_filter_gzip(a);
    libarchive.write_set_bytes_in_last_block(a, 1);
    bool ok = libarchive.write_set_options(a, "gzip:!timestamp,gzip:compression-level=5") == ARCHIVE_OK &&
              libarchive.write_open(a, s, NULL, to_blob, NULL) == ARCHIVE_OK &&
              libarchive.write_header(a, entry) == ARCHIVE_OK;
    r = ok ? feed(a, fd, cancel, e) : err_set(e, E_INTERNAL, "pack a layer: %.200s", libarchive.error_string(a));
    libarchive.entry_free(entry);
    libarchive.write_free(a);
    return r;
}

int image_pack(const char *root, const char *diff_id, const struct image_kept *plain, const atomic_bool *cancel,
               struct err *e)
{
    struct sink s = { 0 };
    AUTO_FREE char *from = image_blob_path(root, plain->digest);
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *digest = NULL;
    AUTO_CLOSE int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "%s", from);
    int r = image_blob_begin(&s.w, root, NULL, IMAGE_LAYER_MAX, e);
    if (r < 0)
        return r;
    r = pack(&s, fd, cancel, e);
    if (r < 0) {
        image_blob_abort(s.w);
        return r;
    }
    r = image_blob_spool(s.w, &path, &digest, e);
    if (r == 0)
        r = image_kept_put(root, diff_id, path, digest, e);
    if (path)
        unlink(path);
    return r;
}
