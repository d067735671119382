/* The container's view of files, built inside its own mount namespace and entered by pivot_root. Every target
 * below the root is opened with openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) and mounted through that
 * descriptor, so that no link of the image can lead a mount outside (runtime.md section 2 and 3). All mounts
 * of ours are nodev except the few device nodes in /dev, each a mount of its own, so a node that a container makes
 * with CAP_MKNOD is a dead file. */
#include "root_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* A volume may not hide the root or what shows and guards the kernel (CVE-2019-16884, CVE-2019-19921). */
static int check_user_target(int root, int fd, const char *path, struct err *e)
{
    struct stat a, b;
    struct statfs fs;
    if (fstat(root, &a) < 0 || fstat(fd, &b) < 0 || fstatfs(fd, &fs) < 0)
        return err_errno(e, errno, "%s in the container", path);
    if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return err_set(e, E_INVALID, "mount target \"%s\" is the container's root; name a folder below it", path);
    if (fs.f_type == PROC_SUPER_MAGIC)
        return err_set(e, E_INVALID, "mount target \"%s\" is inside /proc, which cannot be covered", path);
    return 0;
}

/* Takes fd, of what was opened at path; or errno. */
static int checked(int root, int fd, const char *path, unsigned kind, struct err *e)
{
    if (fd < 0)
        return err_errno(e, errno, "%s in the container", path);
    if (kind & TARGET_USER && check_user_target(root, fd, path, e) < 0) {
        close(fd);
        return -e->code;
    }
    return fd;
}

int root_open_target(int root, const char *path, unsigned kind, struct err *e)
{
    int fd = root_open_in(root, path, O_PATH);
    if (fd >= 0 || errno != ENOENT)
        return checked(root, fd, path, kind, e);
    char part[4096];
    snprintf(part, sizeof part, "%s", path);
    char *slash = strrchr(part, '/');
    const char *name = slash ? slash + 1 : part;
    if (!*name || str_equal(name, "..") || str_equal(name, "."))
        return err_set(e, E_INVALID, "mount target \"%s\" must name a file or folder in the container", path);
    AUTO_CLOSE int parent = -1;
    if (slash) {
        *slash = '\0';
        parent = root_open_target(root, part[0] ? part : "/", 0, e);
    } else {
        parent = root_open_in(root, "/", O_PATH);
    }
    if (parent < 0)
        return parent;
    if (kind & TARGET_FILE) {
        AUTO_CLOSE int made = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (made < 0 && errno != EEXIST)
            return err_errno(e, errno, "make %s in the container", path);
    } else if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "make %s in the container", path);
    }
    return checked(root, root_open_in(root, path, O_PATH), path, kind, e); /* others may have changed the folders meanwhile */
}

const char *root_fd_path(char out[64], int fd)
{
    snprintf(out, 64, "/proc/self/fd/%d", fd);
    return out;
}

static int mount_at(int root, const char *type, const char *source, const char *target, unsigned kind,
                    unsigned long flags, const char *data, struct err *e)
{
    char path[64];
    AUTO_CLOSE int fd = root_open_target(root, target, kind, e);
    if (fd < 0)
        return fd;
    if (mount(source, root_fd_path(path, fd), type, flags, data) < 0)
        return err_errno(e, errno, "mount %s on %s", type, target);
    return 0;
}

static int do_mount(int root, const char *type, const char *source, const char *target, unsigned long flags,
                    const char *data, struct err *e)
{
    return mount_at(root, type, source, target, 0, flags, data, e);
}

/* 0: no such word. */
static unsigned long propagation_of(const char *name)
{
    static const struct { const char *name; unsigned long flags; } kinds[] = {
        { "private", MS_PRIVATE }, { "rprivate", MS_PRIVATE | MS_REC }, { "shared", MS_SHARED },
        { "rshared", MS_SHARED | MS_REC }, { "slave", MS_SLAVE }, { "rslave", MS_SLAVE | MS_REC },
    };
    for (unsigned i = 0; i < ARRAY_N(kinds); i++)
        if (str_equal(name && *name ? name : "rprivate", kinds[i].name))
            return kinds[i].flags;
    return 0;
}

/* What is on top of target now. */
static int finish_bind(int root, const char *target, unsigned long flags, const char *propagation, struct err *e)
{
    char to[64];
    /* The mount is above the descriptor; open again to reach it. */
    AUTO_CLOSE int top = root_open_in(root, target, O_PATH);
    if (top < 0)
        return err_errno(e, errno, "%s in the container", target);
    struct statvfs vfs;
    if (fstatvfs(top, &vfs) < 0)
        return err_errno(e, errno, "%s in the container", target);
    /* What the source may not do stays so, and a user namespace may not clear these: repeat them. */
    unsigned long keep = vfs.f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY | MS_NOATIME | MS_NODIRATIME | MS_RELATIME);
    if (mount(NULL, root_fd_path(to, top), NULL, MS_BIND | MS_REMOUNT | keep | flags, NULL) < 0)
        return err_errno(e, errno, "set the flags of %s", target);
    return mount(NULL, root_fd_path(to, top), NULL, propagation_of(propagation), NULL) < 0
               ? err_errno(e, errno, "propagation of %s", target) : 0;
}

int root_bind(int root, int source, const char *target, unsigned kind, bool recursive, unsigned long flags,
              const char *propagation, struct err *e)
{
    char from[64], to[64];
    AUTO_CLOSE int at = root_open_target(root, target, kind, e);
    if (at < 0)
        return at;
    if (mount(root_fd_path(from, source), root_fd_path(to, at), NULL, MS_BIND | (recursive ? MS_REC : 0), NULL) < 0)
        return err_errno(e, errno, "bind on %s", target);
    return finish_bind(root, target, flags, propagation, e);
}

int root_make_nodes(int root, int dev, bool bind, struct err *e)
{
    static const struct { const char *name; unsigned major, minor; } nodes[] = {
        { "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "random", 1, 8 },
        { "urandom", 1, 9 }, { "tty", 5, 0 },
    };
    int r = 0;
    for (unsigned i = 0; i < ARRAY_N(nodes) && r == 0; i++) {
        mode_t mask = umask(0); /* a chmod after it would follow a link */
        int made = mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), error = errno;
        umask(mask);
        if (made < 0) {
            if (error == EEXIST && !bind) /* a /dev that the image or the bundle brought */
                continue;
            return err_errno(e, error, "make /dev/%s in the container", nodes[i].name);
        }
        if (!bind)
            continue;
        char path[32];
        snprintf(path, sizeof path, "/dev/%s", nodes[i].name);
        AUTO_CLOSE int fd = root_open_in(root, path, O_PATH | O_NOFOLLOW);
        r = fd < 0 ? err_errno(e, errno, "%s in the container", path)
                   : root_bind(root, fd, path, TARGET_FILE, false, MS_NOSUID | MS_NOEXEC, NULL, e);
    }
    return r;
}

int root_make_links(int dev, struct err *e)
{
    static const struct { const char *to, *name; } links[] = {
        { "/proc/self/fd", "fd" }, { "/proc/self/fd/0", "stdin" }, { "/proc/self/fd/1", "stdout" },
        { "/proc/self/fd/2", "stderr" }, { "pts/ptmx", "ptmx" },
    };
    for (unsigned i = 0; i < ARRAY_N(links); i++)
        if (symlinkat(links[i].to, dev, links[i].name) < 0 && errno != EEXIST)
            return err_errno(e, errno, "link /dev/%s in the container", links[i].name);
    return 0;
}

int root_bind_console(int root, const struct pty *t, struct err *e)
{
    return root_bind(root, t->slave, "/dev/console", TARGET_FILE, false, MS_NOSUID | MS_NOEXEC, NULL, e);
}

static int setup_dev(const struct container_spec *s, int root, struct pty *t, struct err *e)
{
    unsigned long flags = MS_NOSUID | MS_STRICTATIME;
    int r = do_mount(root, "tmpfs", "tmpfs", "/dev", flags, "mode=755,size=65536k", e);
    AUTO_CLOSE int dev = root_open_in(root, "/dev", O_PATH | O_DIRECTORY);
    char path[64];
    if (r == 0)
        r = dev < 0 ? err_errno(e, errno, "/dev of the container") : root_make_nodes(root, dev, true, e);
    if (r == 0 && !s->privileged && mount(NULL, root_fd_path(path, dev), NULL, MS_BIND | MS_REMOUNT | flags | MS_NODEV, NULL) < 0)
        r = err_errno(e, errno, "make new nodes in /dev of the container dead");
    if (r == 0)
        r = do_mount(root, "devpts", "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC,
                     "newinstance,ptmxmode=0666,mode=0620,gid=5", e);
    if (r == 0)
        r = do_mount(root, "tmpfs", "shm", "/dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k", e);
    if (r == 0)
        r = do_mount(root, "mqueue", "mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, e);
    if (r == 0)
        r = root_make_links(dev, e);
    if (r == 0 && t)
        r = pty_open(t, root, e);
    return r == 0 && t ? root_bind_console(root, t, e) : r;
}

static bool dir_is_empty(int fd)
{
    char buf[1024];
    AUTO_CLOSE int d = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long n, entries = 0;
    while (d >= 0 && (n = syscall(SYS_getdents64, d, buf, sizeof buf)) > 0)
        for (long at = 0; at < n; at += *(uint16_t *)(void *)(buf + at + 16))
            entries++;
    return d >= 0 && entries <= 2;
}

/* A new volume gets what the image has at its target (Docker's rule). */
static int fill_volume(int root, const struct container_mount *m, int volume, struct err *e)
{
    AUTO_CLOSE int from = root_open_in(root, m->target, O_PATH | O_DIRECTORY);
    char source[64], target[64];
    if (from < 0 || dir_is_empty(from) || !dir_is_empty(volume))
        return 0;
    snprintf(source, sizeof source, "/proc/self/fd/%d/.", from);
    snprintf(target, sizeof target, "/proc/self/fd/%d", volume);
    /* cp -a of coreutils, with the descriptors inherited under fixed numbers. */
    int a = dup(from), b = dup(volume);
    snprintf(source, sizeof source, "/proc/self/fd/%d/.", a);
    snprintf(target, sizeof target, "/proc/self/fd/%d/", b);
    const char *argv[] = { "cp", "-a", source, target, NULL };
    struct sb out;
    sb_init(&out, 65536);
    int r = proc_run(argv, &out, e);
    if (r > 0)
        r = err_set(e, E_IO, "fill the volume at %s: %.200s", m->target, out.s);
    sb_done(&out);
    close(a);
    close(b);
    return r;
}

static int user_mount(int root, const struct container_mount *m, struct err *e)
{
    char data[128];
    struct stat st;
    if (m->type == CONTAINER_TMPFS) {
        int n = snprintf(data, sizeof data, "mode=%o", m->tmpfs_mode ? (unsigned)m->tmpfs_mode : 01777);
        if (m->tmpfs_bytes)
            snprintf(data + n, sizeof data - (size_t)n, ",size=%lld", (long long)m->tmpfs_bytes);
        return mount_at(root, "tmpfs", "tmpfs", m->target, TARGET_USER,
                        MS_NOSUID | MS_NODEV | MS_NOEXEC | (m->read_only ? MS_RDONLY : 0), data, e);
    }
    AUTO_CLOSE int fd = open(m->source, O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(e, errno, "bind source path %s", m->source);
    int r = m->fill ? fill_volume(root, m, fd, e) : 0;
    if (r == 0)
        r = root_bind(root, fd, m->target, TARGET_USER | (S_ISDIR(st.st_mode) ? 0 : TARGET_FILE), !m->non_recursive,
                    MS_NODEV | (m->read_only ? MS_RDONLY : 0), m->propagation, e);
    return r;
}

/* ---- volumes whose mounts pass between host and container ---- */
static bool is_shared(const struct container_mount *m)
{
    return m->type == CONTAINER_BIND && propagation_of(m->propagation) & MS_SHARED;
}

enum { TIE_PEERS = 1, TIE_MASTER = 2 };

/* How the mount that fd, of path, lies on is tied to others. ret_point: where it is. */
static int ties_of(int fd, const char *path, char ret_point[4096], struct err *e)
{
    AUTO_FREE char *text = NULL;
    struct statx st;
    size_t n;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0)
        return err_errno(e, errno, "%s", path);
    int r = file_read("/proc/self/mountinfo", 4 << 20, &text, &n, e);
    if (r < 0)
        return r;
    for (char *line = text, *next; *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = '\0';
        if (st.stx_mask & STATX_MNT_ID && strtoull(line, NULL, 10) == st.stx_mnt_id &&
            sscanf(line, "%*s %*s %*s %*s %4095s", ret_point) == 1)
            return (strstr(line, " shared:") ? TIE_PEERS : 0) | (strstr(line, " master:") ? TIE_MASTER : 0);
    }
    return err_set(e, E_UNSUPPORTED, "the kernel does not say which mount %s is on; Linux 5.8 or newer does", path);
}

/* A source on a private mount would pass nothing on, and nobody would be told. */
static int check_source(const struct container_mount *m, unsigned long propagation, struct err *e)
{
    bool shared = propagation & MS_SHARED;
    char point[4096];
    AUTO_CLOSE int fd = open(m->source, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "bind source path %s", m->source);
    int ties = ties_of(fd, m->source, point, e);
    if (ties < 0 || ties & (shared ? TIE_PEERS : TIE_PEERS | TIE_MASTER))
        return MIN(ties, 0);
    return err_set(e, E_INVALID, "bind source path %s is mounted on %s, which is not a shared%s mount: no mount would pass "
                   "between host and container; `mount --make-shared %s`, or choose another propagation than %s", m->source,
                   point, shared ? "" : " or slave", point, m->propagation);
}

/* A path to be hidden or guarded: -E_NOT_FOUND, there is no such thing here. What only cannot be opened now is not left open. */
static int open_guarded(int root, const char *path, struct err *e)
{
    int fd = root_open_in(root, path, O_PATH | O_NOFOLLOW);
    return fd < 0 ? err_errno(e, errno, "%s in the container", path) : fd;
}

int root_check_unshared(int root, const char *const *paths, unsigned n, struct err *e)
{
    char point[4096];
    for (unsigned i = 0; i < n; i++) {
        AUTO_CLOSE int fd = open_guarded(root, paths[i], e);
        if (fd == -E_NOT_FOUND)
            continue;
        int ties = fd < 0 ? fd : ties_of(fd, paths[i], point, e);
        if (ties < 0)
            return ties;
        if (ties & TIE_PEERS)
            return err_set(e, E_INVALID, "%s of the container is on a shared mount: what hides or guards it would appear on the host too; "
                           "give that mount the propagation rslave, or leave the path out", paths[i]);
    }
    return 0;
}

static bool is_inside(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    while (n && dir[n - 1] == '/')
        n--;
    return strncmp(path, dir, n) == 0 && path[n] == '/';
}

/* What is mounted below a shared volume would be there on the host too, and outlive the container. */
static int check_inside(const struct container_spec *s, const char *path, struct err *e)
{
    for (uint32_t i = 0; i < s->mounts.n; i++)
        if (is_shared(&s->mounts.v[i]) && is_inside(path, s->mounts.v[i].target))
            return err_set(e, E_INVALID, "mount target \"%s\" is inside the shared volume at %s and would appear on the host; name one "
                           "outside, or give the volume the propagation rslave", path, s->mounts.v[i].target);
    return 0;
}

/* Copies of the sources of shared volumes, made while this namespace is still a peer of the host's: of a bind made after
 * that the host sees no mounts. ret: of n mounts, -1: not shared. */
static int take_shared(const struct container_spec *s, int *ret, struct err *e)
{
    int r = 0;
    for (uint32_t i = 0; i < s->mounts.n && r == 0; i++) {
        const struct container_mount *m = &s->mounts.v[i];
        unsigned long propagation = propagation_of(m->propagation);
        ret[i] = -1;
        if (!propagation)
            return err_set(e, E_INVALID, "mount %s: unknown propagation \"%s\"", m->target, m->propagation);
        r = check_inside(s, m->target, e);
        if (r == 0 && m->type == CONTAINER_BIND && !(propagation & MS_PRIVATE))
            r = check_source(m, propagation, e);
        if (r < 0 || !is_shared(m))
            continue;
        ret[i] = (int)syscall(SYS_open_tree, AT_FDCWD, m->source,
                              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (m->non_recursive ? 0 : AT_RECURSIVE));
        if (ret[i] < 0)
            return err_errno(e, errno, "bind source path %s", m->source);
    }
    for (uint32_t i = 0; i < s->files.n && r == 0; i++)
        r = check_inside(s, s->files.v[i].path, e);
    return r;
}

static int shared_target(int root, const struct container_mount *m, int tree, struct err *e)
{
    struct stat st;
    if (fstat(tree, &st) < 0)
        return err_errno(e, errno, "bind source path %s", m->source);
    return root_open_target(root, m->target, TARGET_USER | (S_ISDIR(st.st_mode) ? 0 : TARGET_FILE), e);
}

static int put_shared(int root, const struct container_mount *m, int tree, struct err *e)
{
    char point[4096];
    AUTO_CLOSE int at = shared_target(root, m, tree, e);
    if (at < 0)
        return at;
    int ties = ties_of(at, m->target, point, e); /* a link, or two names of one place, can lead there too */
    if (ties < 0)
        return ties;
    if (ties & TIE_PEERS)
        return err_set(e, E_INVALID, "mount target \"%s\" of %s lies inside another shared volume and would appear on the host; name one outside",
                       m->target, m->source);
    if (syscall(SYS_move_mount, tree, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return err_errno(e, errno, "bind on %s", m->target);
    return finish_bind(root, m->target, MS_NODEV | (m->read_only ? MS_RDONLY : 0), m->propagation, e);
}

static int write_file(const char *path, const struct container_file *f, struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(e, errno, "write %s", path);
    int r = fd_write_all(fd, f->data.v, f->data.n, e);
    if (r == 0 && (fchown(fd, (uid_t)f->uid, (gid_t)f->gid) < 0 || fchmod(fd, (mode_t)f->mode) < 0))
        r = err_errno(e, errno, "owner of %s", path);
    return r;
}

/* Secrets live on a tmpfs that only this mount namespace has; other files in the container's own folder. */
static int place_files(const struct container_spec *s, int root, const char *dir, struct err *e)
{
    char path[4200];
    int r = 0;
    snprintf(path, sizeof path, "%s/secrets", dir);
    for (uint32_t i = 0; i < s->files.n; i++)
        if (s->files.v[i].secret) {
            if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700,size=64m") < 0)
                return err_errno(e, errno, "mount the tmpfs of secrets");
            break;
        }
    for (uint32_t i = 0; i < s->files.n && r == 0; i++) {
        const struct container_file *f = &s->files.v[i];
        snprintf(path, sizeof path, "%s/%s/%u", dir, f->secret ? "secrets" : "files", i);
        r = write_file(path, f, e);
        if (r < 0)
            break;
        AUTO_CLOSE int fd = open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
        r = fd < 0 ? err_errno(e, errno, "%s", path)
                   : root_bind(root, fd, f->path, TARGET_USER | TARGET_FILE, false,
                             MS_NODEV | MS_NOSUID | (f->secret ? MS_RDONLY | MS_NOEXEC : 0), NULL, e);
    }
    return r;
}

int root_mask(int root, const char *const *paths, unsigned n, struct err *e)
{
    struct stat st;
    char from[64], to[64];
    AUTO_CLOSE int null = root_open_in(root, "/dev/null", O_PATH | O_NOFOLLOW);
    for (unsigned i = 0; i < n; i++) {
        AUTO_CLOSE int fd = open_guarded(root, paths[i], e);
        if (fd == -E_NOT_FOUND)
            continue;
        if (fd < 0)
            return fd;
        if (fstat(fd, &st) < 0)
            return err_errno(e, errno, "%s", paths[i]);
        if (S_ISDIR(st.st_mode)) {
            if (mount("tmpfs", root_fd_path(to, fd), "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k") < 0)
                return err_errno(e, errno, "mask %s", paths[i]);
            continue;
        }
        /* What is put over it is looked at after it is opened (CVE-2025-31133). */
        if (null < 0 || fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
            return err_set(e, E_INVALID, "/dev/null of the container is not the null device, %s cannot be masked", paths[i]);
        if (mount(root_fd_path(from, null), root_fd_path(to, fd), NULL, MS_BIND, NULL) < 0)
            return err_errno(e, errno, "mask %s", paths[i]);
    }
    return 0;
}

int root_make_read_only(int root, const char *const *paths, unsigned n, struct err *e)
{
    struct stat st;
    for (unsigned i = 0; i < n; i++) {
        AUTO_CLOSE int fd = open_guarded(root, paths[i], e);
        if (fd == -E_NOT_FOUND)
            continue;
        if (fd < 0)
            return fd;
        if (fstat(fd, &st) < 0)
            return err_errno(e, errno, "%s", paths[i]);
        int r = root_bind(root, fd, paths[i], S_ISDIR(st.st_mode) ? 0 : TARGET_FILE, true,
                          MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Paths of /proc and /sys that tell or change too much of the host. */
static int hide(int root, struct err *e)
{
    static const char *const masked[] = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
    };
    static const char *const read_only[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
    int r = root_mask(root, masked, ARRAY_N(masked), e);
    return r == 0 ? root_make_read_only(root, read_only, ARRAY_N(read_only), e) : r;
}

int root_set_sysctl(int root, const char *key, const char *value, struct err *e)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/sys/%s", key);
    for (char *p = path + 10; *p; p++)
        if (*p == '.')
            *p = '/';
    AUTO_CLOSE int fd = root_open_in(root, path, O_WRONLY);
    if (fd < 0)
        return err_errno(e, errno, "sysctl %s", key);
    return fd_write_all(fd, value, strlen(value), e) < 0 ? err_wrap(e, "sysctl %s", key) : 0;
}

static int set_sysctls(const struct container_spec *s, int root, struct err *e)
{
    for (uint32_t i = 0; i < s->sysctls.n; i++) {
        const char *key = s->sysctls.v[i].key;
        if (str_starts(key, "net.") && str_equal(s->netns, "host"))
            return err_set(e, E_INVALID, "sysctl %s would change the host, whose network this container uses", key);
        if (!str_starts(key, "net.") && !str_starts(key, "kernel.shm") && !str_starts(key, "kernel.msg") &&
            !str_starts(key, "fs.mqueue.") && !str_equal(key, "kernel.sem"))
            return err_set(e, E_INVALID, "sysctl %s is not of a container's own namespaces; only net.*, kernel.shm*, "
                           "kernel.msg*, kernel.sem and fs.mqueue.* are", key);
        int r = root_set_sysctl(root, key, s->sysctls.v[i].value, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int kernel_mounts(const struct container_spec *s, int root, struct err *e)
{
    bool host_net = str_equal(s->netns, "host");
    struct stat st;
    int r = 0;
    static const char *const plain[] = { "proc", "sys", "dev" };
    for (unsigned i = 0; i < ARRAY_N(plain); i++) /* where kernel files go is for us to say (CVE-2019-19921) */
        if (fstatat(root, plain[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
            return err_set(e, E_INVALID, "/%s of the image is no folder; images must have a plain one or none", plain[i]);
    r = do_mount(root, "proc", "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, e);
    if (r == 0) /* sysfs shows the network namespace it was mounted in: with the host's only a read-only bind */
        r = do_mount(root, host_net && !s->privileged ? "tmpfs" : "sysfs", "sysfs", "/sys",
                     MS_NOSUID | MS_NODEV | MS_NOEXEC | (s->privileged ? 0 : MS_RDONLY), NULL, e);
    if (r == 0 && stat("/sys/fs/cgroup/cgroup.controllers", &st) == 0 && !(host_net && !s->privileged))
        r = do_mount(root, "cgroup2", "cgroup", "/sys/fs/cgroup",
                     MS_NOSUID | MS_NODEV | MS_NOEXEC | (s->privileged ? 0 : MS_RDONLY), NULL, e);
    return r;
}

int root_pivot(int root, struct err *e)
{
    AUTO_CLOSE int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* Mounts that are shared with the host may not be taken away there too: the old root is a slave before it goes. */
    if (old < 0 || fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || fchdir(old) < 0 ||
        mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return err_errno(e, errno, "enter the root of the container");
    return 0;
}

int root_setup(const struct container_spec *s, const char *dir, struct pty *t, struct err *e)
{
    AUTO_FREE char *merged = path_join(dir, "merged");
    AUTO_FREE int *trees = xcalloc(s->mounts.n + 1, sizeof *trees); /* closed when the program begins */
    int r = take_shared(s, trees, e);
    if (r < 0)
        return r;
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return err_errno(e, errno, "part from the host's mounts");
    r = root_mount_overlay(s, dir, e);
    if (r < 0)
        return r;
    AUTO_CLOSE int root = open(merged, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_errno(e, errno, "%s", merged);
    r = kernel_mounts(s, root, e);
    if (r == 0)
        r = setup_dev(s, root, t, e);
    for (uint32_t i = 0; i < s->mounts.n && r == 0; i++)
        r = trees[i] < 0 ? user_mount(root, &s->mounts.v[i], e) : 0;
    if (r == 0)
        r = place_files(s, root, dir, e);
    if (r == 0)
        r = set_sysctls(s, root, e);
    for (uint32_t i = 0; i < s->mounts.n && r == 0; i++) { /* a folder that hides one of /proc would not look like it */
        AUTO_CLOSE int at = trees[i] < 0 ? -1 : shared_target(root, &s->mounts.v[i], trees[i], e);
        r = trees[i] < 0 ? 0 : MIN(at, 0);
    }
    if (r == 0 && !s->privileged)
        r = hide(root, e);
    /* Last: whatever way links lead, nothing else comes to lie inside, where it would be on the host too. */
    for (uint32_t i = 0; i < s->mounts.n && r == 0; i++)
        r = trees[i] < 0 ? 0 : put_shared(root, &s->mounts.v[i], trees[i], e);
    if (r == 0 && s->read_only && mount(NULL, merged, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL) < 0)
        r = err_errno(e, errno, "make the root read-only");
    return r == 0 ? root_pivot(root, e) : r;
}
