/* Makes image archives in memory for the image tests: tar files by libarchive, configurations, digests; and a
 * scratch folder with a canary beside the store, so that a test sees whatever is written outside. */
#ifndef TESTS_IMAGE_FIXTURE_H
#define TESTS_IMAGE_FIXTURE_H

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <shoal/image.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* One entry: type 'f' file, 'd' folder, 'l' symlink, 'h' hard link, 'c' device, 'p' fifo. */
struct fx_entry {
    char type;
    const char *path, *data; /* data: contents or target */
    unsigned mode, uid;
    const char *xattr;       /* its value is "v" */
    unsigned major, minor;
};

struct fx_tar {
    struct archive *a;
    struct sb out;
};

static la_ssize_t fx_write(struct archive *a, void *arg, const void *p, size_t n)
{
    sb_add(arg, p, n);
    return (la_ssize_t)n;
}

static inline void fx_tar_begin(struct fx_tar *t, char filter) /* 'z' gzip, 's' zstd, 0 */
{
    sb_init(&t->out, 0);
    t->a = archive_write_new();
    archive_write_set_format_pax_restricted(t->a);
    archive_write_set_options(t->a, "hdrcharset=BINARY");
    if (filter == 'z')
        archive_write_add_filter_gzip(t->a);
    if (filter == 's')
        archive_write_add_filter_zstd(t->a);
    archive_write_set_bytes_in_last_block(t->a, 1); /* the same tar, packed or not */
    ASSERT(archive_write_open(t->a, &t->out, NULL, fx_write, NULL) == ARCHIVE_OK);
}

static inline void fx_tar_add(struct fx_tar *t, const struct fx_entry *en, size_t size)
{
    static const struct { char type; unsigned filetype; } types[] = {
        { 'f', AE_IFREG }, { 'd', AE_IFDIR }, { 'l', AE_IFLNK }, { 'h', AE_IFREG }, { 'c', AE_IFCHR }, { 'p', AE_IFIFO } };
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, en->path);
    for (size_t i = 0; i < ARRAY_N(types); i++)
        if (types[i].type == en->type)
            archive_entry_set_filetype(e, types[i].filetype);
    archive_entry_set_perm(e, en->mode ? en->mode : en->type == 'd' ? 0755 : 0644);
    archive_entry_set_uid(e, en->uid);
    archive_entry_set_gid(e, en->uid);
    archive_entry_set_mtime(e, 1000000000, 0);
    if (en->type == 'l')
        archive_entry_set_symlink(e, en->data);
    if (en->type == 'h')
        archive_entry_set_hardlink(e, en->data);
    if (en->type == 'c') {
        archive_entry_set_rdevmajor(e, en->major);
        archive_entry_set_rdevminor(e, en->minor);
    }
    if (en->xattr)
        archive_entry_xattr_add_entry(e, en->xattr, "v", 1);
    archive_entry_set_size(e, en->type == 'f' ? (la_int64_t)size : 0);
    ASSERT(archive_write_header(t->a, e) >= ARCHIVE_WARN);
    if (en->type == 'f' && size)
        ASSERT(archive_write_data(t->a, en->data, size) == (la_ssize_t)size);
    archive_entry_free(e);
}

static inline void fx_tar_file(struct fx_tar *t, const char *path, const void *data, size_t size)
{
    struct fx_entry en = { .type = 'f', .path = path, .data = data };
    fx_tar_add(t, &en, size);
}

static inline void fx_tar_end(struct fx_tar *t)
{
    ASSERT(archive_write_close(t->a) == ARCHIVE_OK);
    archive_write_free(t->a);
}

/* A layer: tar of the entries. diff_id: of the plain tar. */
struct fx_layer {
    struct sb blob;
    char diff_id[80], digest[80];
};

static inline void fx_digest(char out[80], const void *p, size_t size)
{
    uint8_t sum[32];
    crypto_sha256(sum, p, size);
    memcpy(out, "sha256:", 8);
    hex_encode(out + 7, sum, 32);
}

static inline void fx_layer_make(struct fx_layer *l, const struct fx_entry *v, size_t n, char filter)
{
    struct fx_tar plain, packed;
    fx_tar_begin(&plain, 0);
    fx_tar_begin(&packed, filter);
    for (size_t i = 0; i < n; i++) {
        fx_tar_add(&plain, &v[i], v[i].data ? strlen(v[i].data) : 0);
        fx_tar_add(&packed, &v[i], v[i].data ? strlen(v[i].data) : 0);
    }
    fx_tar_end(&plain);
    fx_tar_end(&packed);
    fx_digest(l->diff_id, plain.out.s, plain.out.len);
    fx_digest(l->digest, packed.out.s, packed.out.len);
    l->blob = packed.out;
    sb_done(&plain.out);
}

/* The configuration's JSON; heap. */
static inline char *fx_config(const struct fx_layer *layers, unsigned n)
{
    struct sb b;
    sb_init(&b, 0);
    sb_str(&b, "{\"architecture\":\"amd64\",\"os\":\"linux\",\"created\":\"2024-01-02T03:04:05Z\",\"config\":{"
               "\"Env\":[\"PATH=/bin\"],\"Cmd\":[\"/bin/x\"],\"ExposedPorts\":{\"80/tcp\":{}},\"Labels\":{\"a\":\"b\"},"
               "\"Healthcheck\":{\"Test\":[\"CMD\",\"t\"],\"Interval\":1000}},"
               "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
    for (unsigned i = 0; i < n; i++)
        sb_printf(&b, "%s\"%s\"", i ? "," : "", layers[i].diff_id);
    sb_str(&b, "]}}");
    return sb_take(&b);
}

/* Entries of a folder without "." and "..". */
static inline unsigned fx_count(const char *dir, const char *below)
{
    AUTO_FREE char *path = path_join(dir, below);
    DIR *d = opendir(path);
    unsigned n = 0;
    for (struct dirent *de; d && (de = readdir(d));)
        n += de->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static inline char *fx_text(const char *dir, const char *below)
{
    AUTO_FREE char *path = path_join(dir, below);
    char *text = NULL;
    size_t size;
    return file_read(path, 1 << 20, &text, &size, NULL) < 0 ? NULL : text;
}

#endif
