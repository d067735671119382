/* Unpacking a layer: tar, plain or gzip or zstd, into ROOT/layers/HEX of its diff id (OCI
 * image-spec "config.md": SHA-256 of the uncompressed tar). Two libarchive readers in a row: the
 * first only decompresses, the second reads the tar from it, and between them the stream is
 * hashed and bounded, so a bomb ends early and bytes after the tar's end count too. Everything
 * happens in ROOT/tmp; a rename at the end makes the layer appear whole or not at all. Nobody waits for the disk then:
 * the note beside the layer says of which boot it is, and one syncfs after the whole image (image_layers_settle) makes
 * that "ok". A layer with a note of another boot, or none, met a power cut before: it is not trusted (waiting for the
 * disk at each layer was two thirds of a pull). One folder a diff id, not a chain id: a layer's folder does not depend on what lies below
 * it, so layers unpack in parallel and more is shared. */
#include "image_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <shoal/base/archive.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

LOG_MODULE("image");

enum { CHUNK = 256 << 10 };

struct unpack {
    const struct image_layer_job *job;
    struct archive *raw, *tar;
    struct crypto_sha256 *hash;
    int64_t packed, max, done; /* bytes of the archive, bound and count of the uncompressed ones */
    int64_t told;
    int code;
    struct err e;              /* what stopped the stream */
    char buf[CHUNK];
};

char *image_layer_dir(const char *root, const char *diff_id)
{
    return xasprintf("%s/layers/%s", root, image_digest_hex(diff_id));
}

bool image_layer_exists(const char *root, const char *diff_id)
{
    AUTO_FREE char *dir = image_layer_dir(root, diff_id);
    return file_exists(dir);
}

/* layers/HEX.size: "boot BOOT-ID SIZE" until it is known to be on the disk, then "SIZE ok". "SIZE" alone is of an
 * older shoal, which waited for the disk. */
struct note { int64_t size; bool settled, this_boot; };

static const char *boot_id(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char id[64];
    AUTO_FREE char *text = NULL;
    size_t n;
    pthread_mutex_lock(&lock);
    if (!id[0] && file_read("/proc/sys/kernel/random/boot_id", sizeof id - 1, &text, &n, NULL) == 0)
        snprintf(id, sizeof id, "%.*s", (int)strcspn(text, "\n"), text);
    if (!id[0]) /* no /proc: then nothing is trusted at the next start unless it was settled */
        snprintf(id, sizeof id, "pid-%d-%lld", (int)getpid(), (long long)clock_real_ns());
    pthread_mutex_unlock(&lock);
    return id;
}

static bool read_note(const char *path, struct note *ret)
{
    AUTO_FREE char *text = NULL;
    char boot[64] = "", end[4] = "";
    long long n;
    size_t size;
    if (file_read(path, 160, &text, &size, NULL) < 0)
        return false;
    bool settled = sscanf(text, "%lld %3s", &n, end) >= 1;
    if (!settled && sscanf(text, "boot %63s %lld", boot, &n) != 2)
        return false;
    *ret = (struct note){ .size = n, .settled = settled, .this_boot = str_equal(boot, boot_id()) };
    return n >= 0 && (!end[0] || str_equal(end, "ok"));
}

int64_t image_layer_size(const char *root, const char *diff_id)
{
    AUTO_FREE char *path = xasprintf("%s/layers/%s.size", root, image_digest_hex(diff_id));
    struct note note;
    return read_note(path, &note) ? note.size : 0;
}

static bool is_layer_name(const char *name)
{
    AUTO_FREE char *digest = xasprintf("sha256:%s", name);
    return image_digest_ok(digest);
}

void image_layers_check(const char *root, struct strs *ret_gone, bool *ret_unsettled)
{
    AUTO_FREE char *dir = xasprintf("%s/layers", root);
    struct strs suspect = { 0 };
    DIR *d = opendir(dir);
    struct dirent *de;
    *ret_unsettled = false;
    while (d && (de = readdir(d))) {
        struct note note;
        AUTO_FREE char *path = xasprintf("%s/%s.size", dir, de->d_name);
        if (!is_layer_name(de->d_name))
            continue;
        if (!read_note(path, &note) || (!note.settled && !note.this_boot))
            strs_add(&suspect, de->d_name);
        else if (!note.settled)
            *ret_unsettled = true;
    }
    if (d)
        closedir(d);
    for (uint32_t i = 0; i < suspect.n; i++) {
        AUTO_FREE char *gone = image_layer_retire(root, suspect.v[i]);
        log_warn("layer %s was not known to be on the disk when the machine went down; it is not used", suspect.v[i]);
        if (gone)
            strs_add(ret_gone, gone);
    }
    strs_clear(&suspect);
}

void image_layers_settle(const char *root)
{
    AUTO_FREE char *dir = xasprintf("%s/layers", root);
    AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct strs names = { 0 };
    DIR *d = opendir(dir);
    struct dirent *de;
    while (d && (de = readdir(d))) {
        struct note note;
        AUTO_FREE char *path = xasprintf("%s/%s.size", dir, de->d_name);
        if (is_layer_name(de->d_name) && read_note(path, &note) && !note.settled && note.this_boot)
            strs_add(&names, de->d_name);
    }
    if (d)
        closedir(d);
    /* also without such a layer: the configuration of a new image over old layers waits too */
    if (fd < 0 || syncfs(fd) < 0) { /* what could not be written is not noted as written */
        log_warn("sync %s: %s", dir, strerror(errno));
        strs_clear(&names);
    }
    for (uint32_t i = 0; i < names.n; i++) {
        AUTO_FREE char *path = xasprintf("%s/%s.size", dir, names.v[i]);
        AUTO_FREE char *layer = path_join(dir, names.v[i]);
        struct note note;
        struct err e;
        if (!file_exists(layer) || !read_note(path, &note))
            continue;
        AUTO_FREE char *text = xasprintf("%lld ok\n", (long long)note.size);
        if (file_write_volatile(path, text, strlen(text), 0600, &e) < 0)
            log_warn("%s", e.text);
    }
    strs_clear(&names);
}

char *image_layer_retire(const char *root, const char *hex)
{
    AUTO_FREE char *dir = xasprintf("%s/layers/%s", root, hex);
    AUTO_FREE char *note = xasprintf("%s.size", dir);
    AUTO_FREE char *gone = image_tmp_path(root, "gone");
    AUTO_FREE char *blob = xasprintf("%s.blob", dir);
    bool there = rename(dir, gone) == 0;
    unlink(note);
    unlink(blob);
    return there ? TAKE(gone) : NULL;
}

static ssize_t stop(struct unpack *u, int code)
{
    u->code = code;
    libarchive.set_error(u->tar, EIO, "%s", u->e.text);
    return -1;
}

/* More of the uncompressed stream: hashed, counted, bounded. 0: its end. */
static ssize_t pump(struct unpack *u)
{
    if (u->job->cancel && atomic_load(u->job->cancel))
        return stop(u, err_set(&u->e, E_CLOSED, "cancelled"));
    la_ssize_t n = libarchive.read_data(u->raw, u->buf, sizeof u->buf);
    if (n < 0) {
        const char *why = libarchive.error_string(u->raw);
        return stop(
            u, err_set(&u->e, E_CORRUPT, "decompression failed: %.200s", why ? why : "broken"));
    }
    if (n > u->max - u->done)
        return stop(u, err_set(&u->e, E_TOO_BIG, "it unpacks to more than %lld bytes from %lld",
                               (long long)u->max, (long long)u->packed));
    u->done += n;
    crypto_sha256_add(u->hash, u->buf, (size_t)n);
    int64_t at = libarchive.filter_bytes(u->raw, -1);
    if (u->job->progress && at > u->told) {
        u->told = at;
        u->job->progress(u->job->arg, MIN(at, u->packed), u->packed);
    }
    return (ssize_t)n;
}

static la_ssize_t read_more(struct archive *a, void *arg, const void **ret)
{
    struct unpack *u = arg;
    *ret = u->buf;
    return pump(u);
}

static int archive_err(struct unpack *u, struct archive *a, struct err *e)
{
    if (u->code) {
        if (e)
            *e = u->e;
        return u->code;
    }
    const char *why = libarchive.error_string(a);
    return err_set(e, E_CORRUPT, "%.300s", why ? why : "not a tar archive");
}

static int open_readers(struct unpack *u, struct err *e)
{
    struct stat st;
    struct archive_entry *entry;
    if (stat(u->job->archive, &st) < 0)
        return err_errno(e, errno, "%s", u->job->archive);
    u->packed = st.st_size;
    u->max = MIN(IMAGE_LAYER_MAX, MAX(IMAGE_LAYER_FREE, u->packed * IMAGE_RATIO_MAX));
    libarchive.read_support_filter_gzip(u->raw);
    libarchive.read_support_filter_zstd(u->raw);
    libarchive.read_support_format_raw(u->raw);
    libarchive.read_support_format_empty(u->raw);
    libarchive.read_support_format_tar(u->tar);
    libarchive.read_support_format_empty(u->tar);
    if (libarchive.read_open_filename(u->raw, u->job->archive, CHUNK) != ARCHIVE_OK)
        return archive_err(u, u->raw, e);
    int r = libarchive.read_next_header(u->raw, &entry);
    if (r != ARCHIVE_OK && r != ARCHIVE_EOF)
        return archive_err(u, u->raw, e);
    if (r == ARCHIVE_EOF)
        return err_set(e, E_CORRUPT, "the archive is empty");
    return libarchive.read_open(u->tar, u, NULL, read_more, NULL) == ARCHIVE_OK
               ? 0
               : archive_err(u, u->tar, e);
}

static int unpack_into(struct unpack *u, const char *dir, int64_t *ret_size, struct err *e)
{
    struct archive_entry *entry;
    struct image_fs *fs = NULL;
    int a;
    int r = image_fs_open(&fs, dir, e);
    if (r < 0)
        return r;
    while (r == 0 && (a = libarchive.read_next_header(u->tar, &entry)) != ARCHIVE_EOF) {
        if (a != ARCHIVE_OK && a != ARCHIVE_WARN)
            r = archive_err(u, u->tar, e);
        else
            r = image_fs_add(fs, u->tar, entry, e);
    }
    ssize_t n = 1;
    while (r == 0 && (n = pump(u)) > 0) /* what follows the end mark belongs to the digest */
        ;
    if (n < 0)
        r = archive_err(u, u->tar, e);
    if (r == 0)
        r = image_fs_finish(fs, e);
    if (r < 0 && u->code) /* an entry failed because the stream did: say the cause */
        r = archive_err(u, u->tar, e);
    *ret_size = image_fs_size(fs);
    image_fs_free(fs);
    return r;
}

/* Makes the unpacked folder appear under its name. */
static int publish(const char *root, const char *dir, const char *diff_id, int64_t size,
                   struct err *e)
{
    AUTO_FREE char *final = image_layer_dir(root, diff_id);
    AUTO_FREE char *note = xasprintf("%s.size", final);
    AUTO_FREE char *text = xasprintf("boot %s %lld\n", boot_id(), (long long)size);
    if (file_exists(final))
        return file_remove_tree(dir, e); /* another pull of the same layer was first */
    int r = file_write_volatile(note, text, strlen(text), 0600, e);
    if (r < 0)
        return r;
    if (rename(dir, final) == 0)
        return 0;
    return errno == EEXIST || errno == ENOTEMPTY ? file_remove_tree(dir, e)
                                                 : err_errno(e, errno, "rename %s to %s", dir, final);
}

static int unpack_all(struct unpack *u, const char *dir, char **ret_diff_id, struct err *e)
{
    uint8_t sum[CRYPTO_SHA256_SIZE];
    int64_t size = 0;
    int r = open_readers(u, e);
    if (r == 0)
        r = unpack_into(u, dir, &size, e);
    crypto_sha256_end(TAKE(u->hash), sum);
    if (r < 0)
        return r;
    AUTO_FREE char *got = image_digest_of(sum);
    if (u->job->diff_id && !str_equal(got, u->job->diff_id))
        return err_set(e, E_CORRUPT, "the layer unpacks to %s, the configuration says %s", got,
                       u->job->diff_id);
    r = publish(u->job->root, dir, got, size, e);
    if (r == 0 && ret_diff_id)
        *ret_diff_id = TAKE(got);
    return r;
}

/* Names in pax headers are UTF-8: without this libarchive turns them into the "C" locale's
 * letters. */
static locale_t utf8;

static void make_utf8(void)
{
    utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8",
                     (locale_t)0); /* stays; absent: plain names still work */
}

int image_layer_unpack(const struct image_layer_job *job, char **ret_diff_id, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    AUTO_FREE char *dir = image_tmp_path(job->root, "layer");
    int r = archive_load(e);
    if (r < 0)
        return r;
    if (mkdir(dir, 0755) < 0 || chmod(dir, 0755) < 0) /* whatever the umask */
        return err_errno(e, errno, "make folder %s", dir);
    struct unpack *u = xnew(struct unpack);
    u->job = job;
    u->raw = libarchive.read_new();
    u->tar = libarchive.read_new();
    u->hash = crypto_sha256_new();
    pthread_once(&once, make_utf8);
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    r = unpack_all(u, dir, ret_diff_id, e);
    libarchive.read_free(u->tar);
    libarchive.read_free(u->raw);
    if (utf8)
        uselocale(before);
    free(u);
    if (r < 0) {
        struct err ignored;
        if (file_remove_tree(dir, &ignored) < 0)
            err_wrap(e, "(%.100s is left for the next start to remove)", dir);
    }
    return r;
}
