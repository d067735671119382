/* Files of a container as a tar. Folders are entered by descriptor and never through a link, so what is read is what was
 * found, whatever the container does meanwhile. */
#include "copy_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <shoal/base/archive.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { DEPTH_MAX = 1000, XATTR_MAX_BYTES = 64 << 10, NAMES_MAX_BYTES = 64 << 10, PIECE_BYTES = 128 << 10 };

struct out {
    struct archive *a;
    struct archive_entry_linkresolver *links;
    int sock;
    bool export;
    uint64_t mount;
};

static la_ssize_t put(struct archive *a, void *arg, const void *p, size_t size)
{
    const struct out *o = arg;
    (void)a;
    return fd_write_all(o->sock, p, size, NULL) < 0 ? -1 : (la_ssize_t)size;
}

static uint64_t mount_of(int at, const char *name)
{
    struct statx x;
    return statx(at, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &x) == 0 ? x.stx_mnt_id : 0;
}

/* Only those that mean something elsewhere. */
static void add_xattrs(struct archive_entry *x, int fd)
{
    static char names[NAMES_MAX_BYTES]; /* not on the stack: the walk over nested folders is on it, and compilers inline */
    static char value[XATTR_MAX_BYTES];
    ssize_t n = flistxattr(fd, names, sizeof names);
    for (ssize_t i = 0; i < n; i += (ssize_t)strlen(names + i) + 1) {
        if (!str_starts(names + i, "user.") && !str_equal(names + i, "security.capability"))
            continue;
        ssize_t size = fgetxattr(fd, names + i, value, sizeof value);
        if (size >= 0)
            libarchive.entry_xattr_add_entry(x, names + i, value, (size_t)size);
    }
}

static int archive_err(const struct out *o, const char *as, struct err *e)
{
    const char *why = libarchive.error_string(o->a);
    return err_set(e, E_IO, "%.300s: %.300s", as, why ? why : "cannot be written");
}

static int put_data(const struct out *o, int fd, int64_t size, const char *as, struct err *e)
{
    static char buf[PIECE_BYTES];
    while (size > 0) {
        ssize_t n = read(fd, buf, (size_t)MIN(size, (int64_t)sizeof buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, errno, "%.300s", as);
        if (n == 0)
            break; /* it has become shorter: the rest is filled up */
        if (libarchive.write_data(o->a, buf, (size_t)n) < 0)
            return archive_err(o, as, e);
        size -= n;
    }
    return 0;
}

/* The entry's head, and its data when it is a file that was not seen before under another name. */
static int put_entry(const struct out *o, const struct stat *st, int at, const char *name, int fd, bool foreign, const char *as, struct err *e)
{
    static char link[4096];
    struct archive_entry *x = libarchive.entry_new(), *spare = NULL;
    AUTO_FREE char *slashed = S_ISDIR(st->st_mode) && !str_ends(as, "/") ? xasprintf("%s/", as) : xstrdup(as);
    libarchive.entry_copy_stat(x, st);
    libarchive.entry_copy_pathname(x, slashed);
    if (S_ISLNK(st->st_mode)) {
        ssize_t n = readlinkat(at, name, link, sizeof link - 1);
        link[MAX(n, 0)] = '\0';
        libarchive.entry_copy_symlink(x, link);
    }
    if (fd >= 0 && !foreign)
        add_xattrs(x, fd);
    if (foreign && S_ISREG(st->st_mode))
        libarchive.entry_set_size(x, 0);
    else if (!S_ISDIR(st->st_mode))
        libarchive.entry_linkify(o->links, &x, &spare);
    int r = libarchive.write_header(o->a, x) < ARCHIVE_WARN ? archive_err(o, as, e) : 0;
    if (r == 0 && S_ISREG(st->st_mode) && !foreign && libarchive.entry_size(x) > 0)
        r = put_data(o, fd, libarchive.entry_size(x), as, e);
    libarchive.entry_free(x);
    libarchive.entry_free(spare);
    return r;
}

static bool is_of_kernel(int fd)
{
    struct statfs f;
    return fstatfs(fd, &f) == 0 && (f.f_type == PROC_SUPER_MAGIC || f.f_type == SYSFS_MAGIC || f.f_type == CGROUP_SUPER_MAGIC ||
                                    f.f_type == CGROUP2_SUPER_MAGIC || f.f_type == DEVPTS_SUPER_MAGIC || f.f_type == 0x19800202 /* mqueue */);
}

static int walk(const struct out *o, int at, const char *name, const char *as, int depth, struct err *e);

static int walk_folder(const struct out *o, int fd, const char *as, int depth, struct err *e)
{
    int r = 0, own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = own >= 0 ? fdopendir(own) : NULL;
    if (!d) {
        r = err_errno(e, errno, "%.300s", as);
        if (own >= 0)
            close(own);
        return r;
    }
    for (struct dirent *x; r == 0 && (x = readdir(d));) {
        if (str_equal(x->d_name, ".") || str_equal(x->d_name, ".."))
            continue;
        AUTO_FREE char *inner = *as ? xasprintf("%s%s%s", as, str_ends(as, "/") ? "" : "/", x->d_name) : xstrdup(x->d_name);
        r = walk(o, fd, x->d_name, inner, depth + 1, e);
    }
    closedir(d);
    return r;
}

static int walk(const struct out *o, int at, const char *name, const char *as, int depth, struct err *e)
{
    struct stat st;
    if (depth > DEPTH_MAX)
        return err_set(e, E_TOO_BIG, "%.300s...: folders are nested deeper than %d", as, DEPTH_MAX);
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0; /* it has just gone */
    if (S_ISSOCK(st.st_mode))
        return 0;
    bool folder = S_ISDIR(st.st_mode), file = S_ISREG(st.st_mode);
    AUTO_CLOSE int fd = folder || file ? openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (folder ? O_DIRECTORY : 0)) : -1;
    if (folder || file) {
        if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENOTDIR))
            return 0;
        if (fd < 0 || fstat(fd, &st) < 0)
            return err_errno(e, errno, "%.300s", as);
        if (folder != S_ISDIR(st.st_mode) || file != S_ISREG(st.st_mode))
            return 0; /* another thing by now */
    }
    bool foreign = o->export && depth && (fd >= 0 ? mount_of(fd, "") : mount_of(at, name)) != o->mount;
    int r = depth || *as ? put_entry(o, &st, at, name, fd, foreign, as, e) : 0;
    return r == 0 && folder && !foreign && !(depth && is_of_kernel(fd)) ? walk_folder(o, fd, as, depth, e) : r;
}

int tar_out(const struct copy *c, int parent, const char *name, const char *as, bool export, struct err *e)
{
    struct out o = { .a = libarchive.write_new(), .links = libarchive.entry_linkresolver_new(), .sock = c->sock, .export = export };
    o.mount = mount_of(c->root, "");
    libarchive.write_set_format_pax_restricted(o.a);
    libarchive.entry_linkresolver_set_strategy(o.links, ARCHIVE_FORMAT_TAR);
    libarchive.write_set_bytes_per_block(o.a, PIECE_BYTES);
    libarchive.write_set_bytes_in_last_block(o.a, 1);
    int r = libarchive.write_open(o.a, &o, NULL, put, NULL) < ARCHIVE_WARN ? archive_err(&o, as, e) : walk(&o, parent, name, as, 0, e);
    if (r < 0)
        return r; /* not closed: that would write the end of a whole archive */
    r = libarchive.write_close(o.a) < ARCHIVE_WARN ? archive_err(&o, as, e) : 0;
    libarchive.write_free(o.a);
    libarchive.entry_linkresolver_free(o.links);
    return r;
}
