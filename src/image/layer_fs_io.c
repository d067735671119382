/* Writing the entries of a layer below one folder and nowhere else, in the form overlayfs wants.
 * Source: OCI image-spec "layer.md" (whiteouts), kernel Documentation/filesystems/overlayfs.rst,
 * openat2(2). Every parent is opened with openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS |
 * RESOLVE_NO_XDEV) from the folder's own fd, so links inside a layer lead inside it whatever
 * they say (CVE-2014-9356 and its kin), and the last component is only ever used with no-follow
 * calls. Modes and times of folders come last: a read-only folder can be filled, and filling
 * does not touch its time. */
#include "image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <shoal/base/archive.h>
#include <shoal/base/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"
enum { DEPTH_MAX = 256, XATTR_MAX_BYTES = 64 << 10, DIRS_MAX_BYTES = 64 << 20 };

struct dir_attr {
    char *path;
    mode_t mode;
    struct timespec mtime;
};

struct image_fs {
    char *dir;
    int fd;
    bool root_user;
    int64_t size;
    uint32_t n_entries, n_dirs, cap_dirs;
    size_t dir_bytes;
    struct dir_attr *dirs;
    char *last_dir; /* parent of the last entry and its fd: the next one mostly lies there, too */
    int last_fd;    /* -1: look it up; what was removed or is a link may have changed what a path means */
};

/* One entry on its way: its name cleaned, its parent open. */
struct place {
    char *path;       /* "a/b/c", "" for the root itself */
    const char *base; /* "c" inside path */
    int parent;       /* borrowed */
    bool replaced;    /* something that was there had to go */
};

int image_fs_open(struct image_fs **ret, const char *dir, struct err *e)
{
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_errno(e, errno, "open %s", dir);
    struct image_fs *fs = xnew(struct image_fs);
    *fs = (struct image_fs){ .dir = xstrdup(dir), .fd = fd, .root_user = geteuid() == 0, .last_fd = -1 };
    *ret = fs;
    return 0;
}

static void forget_parent(struct image_fs *fs)
{
    if (fs->last_fd >= 0)
        close(fs->last_fd);
    fs->last_fd = -1;
    free(TAKE(fs->last_dir));
}

void image_fs_free(struct image_fs *fs)
{
    if (!fs)
        return;
    for (uint32_t i = 0; i < fs->n_dirs; i++)
        free(fs->dirs[i].path);
    forget_parent(fs);
    free(fs->dirs);
    free(fs->dir);
    close(fs->fd);
    free(fs);
}

int64_t image_fs_size(const struct image_fs *fs) { return fs->size; }

static int open_in(const struct image_fs *fs, const char *path, int flags)
{
    struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC),
                            .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV };
    int fd;
    do {
        fd = (int)syscall(SYS_openat2, fs->fd, path[0] ? path : ".", &how, sizeof how);
    } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd;
}

/* "./a//b/" to "a/b"; ".." anywhere is refused, a leading '/' means the layer's root as Docker
 * reads it. */
static int clean_path(char **ret, const char *text, struct err *e)
{
    size_t len = strlen(text);
    unsigned depth = 0;
    if (len > IMAGE_PATH_MAX)
        return err_set(e, E_INVALID, "a path of %zu bytes, at most %d are taken", len,
                       IMAGE_PATH_MAX);
    AUTO_FREE char *out = xcalloc(len + 1, 1);
    size_t n = 0;
    for (const char *p = text; *p;) {
        size_t part = strcspn(p, "/");
        if (part == 2 && p[0] == '.' && p[1] == '.')
            return err_set(e, E_INVALID, "entry \"%.200s\" climbs out by \"..\"", text);
        if (part > 255 || ++depth > DEPTH_MAX)
            return err_set(e, E_INVALID,
                           "entry \"%.100s...\" has an overlong name or too many folders", text);
        if (part && !(part == 1 && p[0] == '.')) {
            if (n)
                out[n++] = '/';
            memcpy(out + n, p, part);
            n += part;
        }
        p += part + (p[part] == '/');
    }
    *ret = TAKE(out);
    return 0;
}

/* Walks dir from the root, making what is missing as 0755; a link on the way is followed inside
 * the root. */
static int make_folders(struct image_fs *fs, char *dir, int *ret, struct err *e)
{
    int cur = open_in(fs, "", O_PATH | O_DIRECTORY);
    for (char *part = dir; cur >= 0 && part;) {
        char *slash = strchr(part, '/');
        if (slash)
            *slash = 0;
        int next = open_in(fs, dir, O_PATH | O_DIRECTORY);
        if (next < 0 && errno == ENOENT && mkdirat(cur, part, 0755) == 0 &&
            fchmodat(cur, part, 0755, 0) == 0) /* whatever the umask */
            next = open_in(fs, dir, O_PATH | O_DIRECTORY);
        int error = errno; /* EEXIST: a link that leads nowhere */
        close(cur);
        errno = error;
        cur = next;
        if (slash)
            *slash = '/';
        part = slash ? slash + 1 : NULL;
    }
    if (cur < 0)
        return err_errno(e, errno, "make folder \"%.200s\" in the layer", dir);
    *ret = cur;
    return 0;
}

/* *ret is fs's own. */
static int open_parent(struct image_fs *fs, const char *path, int *ret, struct err *e)
{
    AUTO_FREE char *dir = xstrdup(path);
    char *last = strrchr(dir, '/');
    *(last ? last : dir) = 0;
    if (fs->last_fd >= 0 && str_equal(fs->last_dir, dir)) {
        *ret = fs->last_fd;
        return 0;
    }
    forget_parent(fs);
    int fd = open_in(fs, dir, O_PATH | O_DIRECTORY), r = 0;
    if (fd < 0)
        r = errno == ENOENT ? make_folders(fs, dir, &fd, e)
                            : err_errno(e, errno, "folder of \"%.200s\" in the layer", path);
    if (r == 0) {
        *ret = fs->last_fd = fd;
        fs->last_dir = TAKE(dir);
    }
    return r;
}

static int make_opaque(const struct image_fs *fs, int parent, const char *base, const char *path,
                       struct err *e)
{
    const char *name = fs->root_user ? "trusted.overlay.opaque" : "user.overlay.opaque";
    AUTO_CLOSE int fd = openat(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "open \"%.200s\" in the layer", path);
    if (fsetxattr(fd, name, "y", 1, 0) < 0)
        return err_errno(e, errno, "mark \"%.200s\" as opaque (the file system must take xattrs)",
                         path);
    return 0;
}

/* A whiteout hides what lower layers have; what this layer itself has of that name stays. */
static int add_whiteout(const struct image_fs *fs, const struct place *at, struct err *e)
{
    struct stat st;
    if (str_equal(at->base, OPAQUE))
        return make_opaque(fs, at->parent, ".", at->path, e);
    if (str_starts(at->base, WHITEOUT WHITEOUT))
        return 0; /* aufs bookkeeping, no file */
    const char *name = at->base + strlen(WHITEOUT);
    if (!name[0] || str_equal(name, ".") || str_equal(name, ".."))
        return err_set(e, E_INVALID, "whiteout \"%.200s\" names no file", at->path);
    if (mknodat(at->parent, name, S_IFCHR, makedev(0, 0)) == 0)
        return 0;
    if (errno != EEXIST)
        return err_errno(e, errno, "whiteout \"%.200s\"", at->path);
    if (fstatat(at->parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        return make_opaque(fs, at->parent, name, at->path, e);
    return 0;
}

static bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

/* Clears the place for a new entry. was_whiteout: what was there hid a lower file. A folder in
 * place of a folder stays. */
static int clear_place(struct place *at, bool want_dir, bool *was_whiteout, bool *have_dir,
                       struct err *e)
{
    struct stat st;
    *was_whiteout = *have_dir = false;
    if (fstatat(at->parent, at->base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0
                               : err_errno(e, errno, "look at \"%.200s\" in the layer", at->path);
    *was_whiteout = is_whiteout(&st);
    if (S_ISDIR(st.st_mode) && want_dir) {
        *have_dir = true;
        return 0;
    }
    at->replaced = true;
    if (unlinkat(at->parent, at->base, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
        return err_errno(e, errno, "replace \"%.200s\" in the layer", at->path);
    return 0;
}

static int write_data(struct image_fs *fs, struct archive *a, int fd, int64_t size,
                      const char *path, struct err *e)
{
    const void *p;
    size_t n;
    la_int64_t off, end = 0;
    int r;
    while ((r = libarchive.read_data_block(a, &p, &n, &off)) == ARCHIVE_OK) {
        if (off < 0 || off > size || (int64_t)n > size - off)
            return err_set(e, E_INVALID, "entry \"%.200s\" holds more than its header says", path);
        for (size_t done = 0; done < n;) {
            ssize_t w = pwrite(fd, (const char *)p + done, n - done, off + (la_int64_t)done);
            if (w < 0 && errno != EINTR)
                return err_errno(e, errno, "write \"%.200s\" in the layer", path);
            done += w > 0 ? (size_t)w : 0;
        }
        fs->size += (int64_t)n;
        end = off + (la_int64_t)n;
    }
    if (r != ARCHIVE_EOF)
        return err_set(e, E_CORRUPT, "entry \"%.200s\": %.200s", path,
                       libarchive.error_string(a) ? libarchive.error_string(a) : "broken");
    if (end != size && ftruncate(fd, size) < 0) /* a hole at the end */
        return err_errno(e, errno, "size \"%.200s\" in the layer", path);
    return 0;
}

static int set_xattrs(const struct image_fs *fs, struct archive_entry *entry, int fd,
                      const char *path, struct err *e)
{
    const char *name;
    const void *value;
    size_t n;
    libarchive.entry_xattr_reset(entry);
    while (libarchive.entry_xattr_next(entry, &name, &value, &n) == ARCHIVE_OK) {
        /* trusted.overlay.* and user.overlay.* would steer the overlay itself; labels are the
         * host's. */
        bool user = name && str_starts(name, "user.") && !str_starts(name, "user.overlay.");
        if (!name || n > XATTR_MAX_BYTES || (!user && !str_equal(name, "security.capability")))
            continue;
        if (fsetxattr(fd, name, value, n, 0) == 0 || errno == EOPNOTSUPP ||
            (errno == EPERM && !fs->root_user))
            continue;
        return err_errno(e, errno, "xattr %.60s of \"%.200s\" in the layer", name, path);
    }
    return 0;
}

static struct timespec entry_time(struct archive_entry *entry)
{
    return (struct timespec){ .tv_sec = libarchive.entry_mtime(entry),
                              .tv_nsec = libarchive.entry_mtime_nsec(entry) };
}

static int set_owner(const struct image_fs *fs, const struct place *at, int fd,
                     struct archive_entry *entry, struct err *e)
{
    la_int64_t uid = libarchive.entry_uid(entry), gid = libarchive.entry_gid(entry);
    if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX)
        return err_set(e, E_INVALID, "entry \"%.200s\" has an owner outside of 32 bits", at->path);
    if (!fs->root_user)
        return 0; /* without root all belongs to who unpacks */
    int r = fd >= 0 ? fchown(fd, (uid_t)uid, (gid_t)gid)
                    : fchownat(at->parent, at->base, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW);
    return r < 0 ? err_errno(e, errno, "owner of \"%.200s\" in the layer", at->path) : 0;
}

static int add_file(struct image_fs *fs, const struct place *at, struct archive *a,
                    struct archive_entry *entry, struct err *e)
{
    struct timespec times[2] = { entry_time(entry), entry_time(entry) };
    int64_t size = libarchive.entry_size(entry);
    if (size < 0 || size > IMAGE_LAYER_MAX)
        return err_set(e, E_TOO_BIG, "entry \"%.200s\" claims %lld bytes", at->path,
                       (long long)size);
    AUTO_CLOSE int fd =
        openat(at->parent, at->base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, errno, "create \"%.200s\" in the layer", at->path);
    int r = write_data(fs, a, fd, size, at->path, e);
    if (r == 0)
        r = set_owner(fs, at, fd, entry, e);
    if (r == 0 && fchmod(fd, libarchive.entry_perm(entry) & 07777) < 0)
        r = err_errno(e, errno, "mode of \"%.200s\" in the layer", at->path);
    if (r == 0)
        r = set_xattrs(fs, entry, fd, at->path, e); /* after chown, which drops capabilities */
    if (r == 0 && futimens(fd, times) < 0)
        r = err_errno(e, errno, "time of \"%.200s\" in the layer", at->path);
    return r;
}

static int add_dir(struct image_fs *fs, const struct place *at, struct archive_entry *entry,
                   bool have, bool opaque, struct err *e)
{
    bool root = !at->path[0];
    if (!have && !root && mkdirat(at->parent, at->base, 0700) < 0)
        return err_errno(e, errno, "make folder \"%.200s\" in the layer", at->path);
    AUTO_CLOSE int fd =
        openat(at->parent, root ? "." : at->base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "open \"%.200s\" in the layer", at->path);
    int r = set_owner(fs, at, fd, entry, e);
    if (r == 0)
        r = set_xattrs(fs, entry, fd, at->path, e);
    if (r == 0 &&
        opaque) /* the name was whited out before: what lower layers have below it stays hidden */
        r = make_opaque(fs, at->parent, at->base, at->path, e);
    if (r < 0)
        return r;
    fs->dir_bytes += strlen(at->path) + sizeof *fs->dirs;
    if (fs->dir_bytes > DIRS_MAX_BYTES)
        return err_set(e, E_TOO_BIG, "too many folders (at \"%.200s\")", at->path);
    if (fs->n_dirs == fs->cap_dirs)
        fs->dirs = xrealloc(fs->dirs, fs->cap_dirs = fs->cap_dirs * 2 + 64, sizeof *fs->dirs);
    fs->dirs[fs->n_dirs++] = (struct dir_attr){ .path = xstrdup(at->path),
                                                .mode = libarchive.entry_perm(entry) & 07777,
                                                .mtime = entry_time(entry) };
    return 0;
}

/* The target is looked up inside the root; its last component is not followed. */
static int add_hardlink(struct image_fs *fs, const struct place *at, const char *target,
                        struct err *e)
{
    AUTO_FREE char *clean = NULL;
    int r = clean_path(&clean, target, e);
    if (r < 0)
        return err_wrap(e, "hard link \"%.100s\"", at->path);
    AUTO_FREE char *dir = xstrdup(clean);
    char *last = strrchr(dir, '/');
    *(last ? last : dir) = 0;
    AUTO_CLOSE int from = open_in(fs, dir, O_PATH | O_DIRECTORY);
    if (from < 0 || !clean[0] || linkat(from, last ? last + 1 : clean, at->parent, at->base, 0) < 0)
        return err_errno(e, clean[0] ? errno : EPERM,
                         "hard link \"%.150s\" to \"%.150s\" in the layer", at->path, clean);
    return 0;
}

static int add_special(const struct image_fs *fs, const struct place *at,
                       struct archive_entry *entry, mode_t type, struct err *e)
{
    struct timespec times[2] = { entry_time(entry), entry_time(entry) };
    const char *target = libarchive.entry_symlink(entry);
    int r;
    if (type == AE_IFLNK) {
        if (!target || !target[0] || strlen(target) > IMAGE_PATH_MAX)
            return err_set(e, E_INVALID, "link \"%.200s\" has no target or an overlong one",
                           at->path);
        r = symlinkat(target, at->parent, at->base);
    } else {
        dev_t dev = type == AE_IFIFO
                        ? 0
                        : makedev(libarchive.entry_rdevmajor(entry), libarchive.entry_rdevminor(entry));
        if (type == AE_IFCHR && dev == makedev(0, 0))
            return err_set(e, E_INVALID,
                           "entry \"%.200s\" is device 0:0, which overlayfs reads as a deletion",
                           at->path);
        r = mknodat(at->parent, at->base, type | 0600, dev);
    }
    if (r < 0)
        return err_errno(e, errno, "make \"%.200s\" in the layer", at->path);
    r = set_owner(fs, at, -1, entry, e);
    if (r == 0 && type != AE_IFLNK &&
        fchmodat(at->parent, at->base, libarchive.entry_perm(entry) & 07777, 0) < 0)
        r = err_errno(e, errno, "mode of \"%.200s\" in the layer", at->path);
    if (r == 0 && utimensat(at->parent, at->base, times, AT_SYMLINK_NOFOLLOW) < 0)
        r = err_errno(e, errno, "time of \"%.200s\" in the layer", at->path);
    return r;
}

static int add_at(struct image_fs *fs, struct place *at, struct archive *a,
                  struct archive_entry *entry, struct err *e)
{
    const char *target = libarchive.entry_hardlink(entry);
    mode_t type = target ? AE_IFREG : libarchive.entry_filetype(entry);
    bool was_whiteout = false, have_dir = false;
    if (!at->path[0])
        return type == AE_IFDIR
                   ? add_dir(fs, at, entry, true, false, e)
                   : err_set(e, E_INVALID, "the layer's root is no folder in the archive");
    if (str_starts(at->base, WHITEOUT))
        return add_whiteout(fs, at, e);
    int r = clear_place(at, type == AE_IFDIR, &was_whiteout, &have_dir, e);
    if (r < 0)
        return r;
    if (target)
        return add_hardlink(fs, at, target, e);
    switch (type) {
    case AE_IFREG: return add_file(fs, at, a, entry, e);
    case AE_IFDIR: return add_dir(fs, at, entry, have_dir, was_whiteout, e);
    case AE_IFLNK:
    case AE_IFCHR:
    case AE_IFBLK:
    case AE_IFIFO: return add_special(fs, at, entry, type, e);
    default:
        return err_set(e, E_INVALID, "entry \"%.200s\" is of an unknown type (%o)", at->path,
                       (unsigned)type);
    }
}

int image_fs_add(struct image_fs *fs, struct archive *a, struct archive_entry *entry, struct err *e)
{
    AUTO_FREE char *path = NULL;
    const char *name = libarchive.entry_pathname(entry);
    if (!name || !name[0])
        return err_set(e, E_INVALID, "entry %u has no readable name", fs->n_entries);
    if (++fs->n_entries > IMAGE_ENTRIES_MAX)
        return err_set(e, E_TOO_BIG, "more than %d entries", IMAGE_ENTRIES_MAX);
    int r = clean_path(&path, name, e);
    if (r < 0)
        return r;
    char *slash = strrchr(path, '/');
    struct place at = { .path = path, .base = slash ? slash + 1 : path, .parent = -1 };
    r = open_parent(fs, path, &at.parent, e);
    if (r < 0)
        return r;
    r = add_at(fs, &at, a, entry, e);
    if (at.replaced)
        forget_parent(fs);
    return r;
}

int image_fs_finish(struct image_fs *fs, struct err *e)
{
    for (uint32_t i = 0; i < fs->n_dirs; i++) {
        const struct dir_attr *d = &fs->dirs[i];
        struct timespec times[2] = { d->mtime, d->mtime };
        AUTO_CLOSE int fd = open_in(fs, d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
            continue; /* a later entry took its place */
        if (fd < 0 || fchmod(fd, d->mode) < 0 || futimens(fd, times) < 0)
            return err_errno(e, errno, "mode and time of folder \"%.200s\" in the layer", d->path);
    }
    return 0;
}
