/* A tar into a container. Names are cleaned, ".." is refused; every parent is opened below the container's root anew, and
 * the last component is only used with calls that follow no link. */
#include "copy_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/archive.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { PIECE_BYTES = 64 << 10, SMALL_FILE_BYTES = 1 << 20 };

struct in { const struct copy *c; struct archive *a; bool owned; uid_t uid; gid_t gid; };
struct place { int parent; char *path, *base; }; /* base inside path; "" : the folder itself */

static void place_done(struct place *p)
{
    if (p->parent >= 0)
        close(p->parent);
    free(p->path);
}

static int failed(struct err *e, const char *name)
{
    int code = errno;
    if (code == EROFS)
        return err_set(e, E_DENIED, "%.300s: the container's file system is read-only there", name);
    return err_errno(e, code, "%.300s", name);
}

/* A folder below the container's root, made if it is missing. */
static int open_folder(int root, const char *path, bool make, struct err *e)
{
    int fd = root_open_in(root, path, O_PATH | O_DIRECTORY);
    if (fd >= 0 || errno != ENOENT || !make)
        return fd >= 0 ? fd : failed(e, path);
    AUTO_FREE char *up = xstrdup(path);
    char *slash = strrchr(up, '/');
    if (!slash || slash == up)
        return failed(e, path);
    *slash = '\0';
    AUTO_CLOSE int parent = open_folder(root, up, true, e);
    if (parent < 0)
        return parent;
    if (mkdirat(parent, slash + 1, 0755) < 0 && errno != EEXIST)
        return failed(e, path);
    fd = root_open_in(root, path, O_PATH | O_DIRECTORY);
    return fd >= 0 ? fd : failed(e, path);
}

static int find_place(const struct in *in, const char *name, bool make, struct place *ret, struct err *e)
{
    AUTO_FREE char *clean = NULL;
    *ret = (struct place){ .parent = -1 };
    int r = copy_clean_name(name, &clean, e);
    if (r < 0)
        return r;
    ret->path = xasprintf("%s/%s", in->c->q.path, clean);
    char *slash = strrchr(ret->path, '/');
    *slash = '\0';
    ret->base = slash + 1;
    ret->parent = open_folder(in->c->root, *ret->path ? ret->path : "/", make, e);
    return ret->parent < 0 ? ret->parent : 0;
}

/* What is there already makes room, where it may. */
static int make_room(const struct in *in, const struct place *p, mode_t type, struct err *e)
{
    struct stat st;
    if (fstatat(p->parent, p->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : failed(e, p->base);
    if (S_ISDIR(st.st_mode) && S_ISDIR(type))
        return 0;
    if (in->c->q.no_swap && S_ISDIR(st.st_mode))
        return err_set(e, E_INVALID, "cannot overwrite directory \"%.300s\" with non-directory", p->base);
    if (in->c->q.no_swap && S_ISDIR(type))
        return err_set(e, E_INVALID, "cannot overwrite non-directory \"%.300s\" with directory", p->base);
    return unlinkat(p->parent, p->base, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0 ? failed(e, p->base) : 0;
}

static uid_t owner(const struct in *in, struct archive_entry *x)
{
    return in->owned ? in->uid : (uid_t)libarchive.entry_uid(x);
}

static gid_t group(const struct in *in, struct archive_entry *x)
{
    return in->owned ? in->gid : (gid_t)libarchive.entry_gid(x);
}

static void times_of(struct archive_entry *x, struct timespec ret[2])
{
    ret[0] = (struct timespec){ .tv_nsec = UTIME_NOW };
    ret[1] = (struct timespec){ .tv_nsec = UTIME_NOW };
    if (libarchive.entry_mtime_is_set(x))
        ret[1] = (struct timespec){ libarchive.entry_mtime(x), libarchive.entry_mtime_nsec(x) };
}

static int set_attributes(const struct in *in, int fd, struct archive_entry *x, const char *name, struct err *e)
{
    const char *key;
    const void *value;
    size_t size;
    struct timespec times[2];
    times_of(x, times);
    if (fchown(fd, owner(in, x), group(in, x)) < 0 || fchmod(fd, libarchive.entry_perm(x)) < 0)
        return failed(e, name);
    libarchive.entry_xattr_reset(x);
    while (libarchive.entry_xattr_next(x, &key, &value, &size) == ARCHIVE_OK)
        if ((str_starts(key, "user.") || str_equal(key, "security.capability")) && fsetxattr(fd, key, value, size, 0) < 0 && errno != EOPNOTSUPP)
            return failed(e, name);
    return futimens(fd, times) < 0 ? failed(e, name) : 0;
}

static int write_file(const struct in *in, const struct place *p, struct archive_entry *x, struct err *e)
{
    static char buf[PIECE_BYTES];
    la_ssize_t n;
    AUTO_CLOSE int fd = openat(p->parent, p->base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return failed(e, p->base);
    while ((n = libarchive.read_data(in->a, buf, sizeof buf)) > 0)
        if (fd_write_all(fd, buf, (size_t)n, e) < 0)
            return -e->code;
    if (n < 0)
        return err_set(e, E_INVALID, "the archive is damaged or cut off in \"%.300s\"", p->base);
    return set_attributes(in, fd, x, p->base, e);
}

static int make_folder(const struct in *in, const struct place *p, struct archive_entry *x, struct err *e)
{
    if (mkdirat(p->parent, p->base, 0700) < 0 && errno != EEXIST)
        return failed(e, p->base);
    AUTO_CLOSE int fd = openat(p->parent, p->base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? failed(e, p->base) : set_attributes(in, fd, x, p->base, e);
}

static int make_link(const struct in *in, const struct place *p, const char *to, struct err *e)
{
    struct place from;
    int r = find_place(in, to, false, &from, e);
    if (r == 0 && linkat(from.parent, from.base, p->parent, p->base, 0) < 0)
        r = failed(e, p->base);
    place_done(&from);
    return r;
}

static int make_other(const struct in *in, const struct place *p, struct archive_entry *x, struct err *e)
{
    struct timespec times[2];
    mode_t type = libarchive.entry_filetype(x);
    int r = type == AE_IFLNK ? symlinkat(libarchive.entry_symlink(x) ? libarchive.entry_symlink(x) : "", p->parent, p->base)
                             : mknodat(p->parent, p->base, type | libarchive.entry_perm(x), libarchive.entry_rdev(x));
    times_of(x, times);
    if (r < 0 || fchownat(p->parent, p->base, owner(in, x), group(in, x), AT_SYMLINK_NOFOLLOW) < 0 ||
        (type != AE_IFLNK && fchmodat(p->parent, p->base, libarchive.entry_perm(x), 0) < 0) ||
        utimensat(p->parent, p->base, times, AT_SYMLINK_NOFOLLOW) < 0)
        return failed(e, p->base);
    return 0;
}

static int take_entry(const struct in *in, struct archive_entry *x, struct err *e)
{
    struct place p;
    const char *name = libarchive.entry_pathname(x), *hard = libarchive.entry_hardlink(x);
    mode_t type = hard ? AE_IFREG : libarchive.entry_filetype(x);
    int r = name ? find_place(in, name, true, &p, e) : err_set(e, E_INVALID, "the archive has an entry without a name");
    if (!name)
        return r;
    bool itself = r == 0 && !*p.base;
    if (r == 0 && !itself)
        r = make_room(in, &p, type, e);
    if (r == 0 && !itself) {
        if (hard)
            r = make_link(in, &p, hard, e);
        else if (type == AE_IFREG)
            r = write_file(in, &p, x, e);
        else if (type == AE_IFDIR)
            r = make_folder(in, &p, x, e);
        else if (type != AE_IFSOCK)
            r = make_other(in, &p, x, e);
    }
    place_done(&p);
    return r;
}

static char *read_small(int root, const char *path)
{
    struct stat st;
    AUTO_CLOSE int fd = root_open_in(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SMALL_FILE_BYTES)
        return NULL;
    char *text = xcalloc(1, (size_t)st.st_size + 1);
    ssize_t n = read(fd, text, (size_t)st.st_size);
    text[MAX(n, 0)] = '\0';
    return text;
}

static int find_owner(struct in *in, struct err *e)
{
    struct strs none = { 0 };
    struct user u;
    AUTO_FREE char *passwd = NULL, *groups = NULL;
    if (!in->c->q.user_owns || !in->c->spec.user)
        return 0;
    passwd = read_small(in->c->root, "/etc/passwd");
    groups = read_small(in->c->root, "/etc/group");
    int r = user_resolve(&u, in->c->spec.user, &none, passwd, groups, e);
    in->owned = r == 0;
    in->uid = u.uid;
    in->gid = u.gid;
    return r;
}

static int read_all(const struct in *in, struct err *e)
{
    struct archive_entry *x;
    int r = 0, a;
    while (r == 0 && (a = libarchive.read_next_header(in->a, &x)) != ARCHIVE_EOF) {
        if (a < ARCHIVE_WARN)
            return err_set(e, E_INVALID, "the archive is damaged or no tar: %.300s", libarchive.error_string(in->a) ? libarchive.error_string(in->a) : "");
        r = take_entry(in, x, e);
    }
    return r;
}

int tar_in(const struct copy *c, struct err *e)
{
    struct in in = { .c = c, .a = libarchive.read_new() };
    AUTO_CLOSE int dest = root_open_in(c->root, c->q.path ? c->q.path : "/", O_PATH);
    struct stat st;
    if (dest < 0 || fstat(dest, &st) < 0)
        return errno == ENOENT || errno == ENOTDIR ? err_set(e, E_NOT_FOUND, "Could not find the file %.400s in container %.64s", c->q.path, c->spec.id)
                                                   : failed(e, c->q.path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, E_INVALID, "extraction point is not a directory: %.400s", c->q.path);
    libarchive.read_support_filter_gzip(in.a);
    libarchive.read_support_filter_zstd(in.a);
    libarchive.read_support_format_tar(in.a);
    libarchive.read_support_format_empty(in.a);
    int r = find_owner(&in, e);
    if (r == 0)
        r = fd_write_all(c->sock, "\n", 1, e);
    if (r == 0 && libarchive.read_open_fd(in.a, c->sock, PIECE_BYTES) != ARCHIVE_OK)
        r = err_set(e, E_INVALID, "the archive cannot be read: %.300s", libarchive.error_string(in.a) ? libarchive.error_string(in.a) : "");
    if (r == 0)
        r = read_all(&in, e);
    libarchive.read_free(in.a);
    return r < 0 ? r : fd_write_all(c->sock, "\n", 1, e);
}
