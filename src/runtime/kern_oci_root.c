/* The files of an OCI bundle's container: its root, its mounts in their order, device nodes, and what is hidden, in the
 * new mount namespace. Targets are opened below the root and mounted through their descriptors (kern_root.c). */
#include "oci_internal.h"
#include "root_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <sched.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Flags of one mount, which a bind does not take. */
enum { MOUNT_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_NOSYMFOLLOW };

/* What a bind mount may cover in /proc: files that describe the machine and change nothing. */
static bool may_cover(const char *target)
{
    static const char *const files[] = { "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
                                         "/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev",
                                         "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled" };
    for (unsigned i = 0; i < ARRAY_N(files); i++)
        if (str_equal(files[i], target))
            return true;
    return false;
}

static int set_flags(int fd, const struct oci_mount *m, struct err *e)
{
    char path[64];
    struct statvfs vfs;
    if (fstatvfs(fd, &vfs) < 0)
        return err_errno(e, errno, "the flags of %s", m->target);
    unsigned long keep = vfs.f_flag & MOUNT_FLAGS & ~m->cleared; /* those that the source has stay, unless an option takes them away */
    return mount(NULL, root_fd_path(path, fd), NULL, MS_BIND | MS_REMOUNT | keep | (m->flags & MOUNT_FLAGS), NULL) < 0
               ? err_errno(e, errno, "set the flags of %s", m->target) : 0;
}

/* What is on top of the target now: its propagation, and attributes of all below. */
static int finish_mount(int root, const struct oci_mount *m, struct err *e)
{
    char path[64];
    bool flags = m->flags & MS_BIND && (m->flags & MOUNT_FLAGS || m->cleared & MOUNT_FLAGS);
    if (!flags && !m->propagation && !m->tree_set && !m->tree_clear)
        return 0;
    AUTO_CLOSE int fd = root_open_in(root, m->target, O_PATH);
    if (fd < 0)
        return err_errno(e, errno, "%s in the container", m->target);
    int r = flags ? set_flags(fd, m, e) : 0;
    struct mount_attr attr = { .attr_set = m->tree_set, .attr_clr = m->tree_clear };
    if (r == 0 && m->propagation && mount(NULL, root_fd_path(path, fd), NULL, m->propagation, NULL) < 0)
        r = err_errno(e, errno, "propagation of %s", m->target);
    if (r == 0 && (attr.attr_set || attr.attr_clr) &&
        syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0)
        r = err_errno(e, errno, "attributes of %s and all below", m->target);
    return r;
}

static int bind_mount(int root, const struct oci_mount *m, struct err *e)
{
    char from[64], to[64];
    struct stat st;
    AUTO_CLOSE int source = open(m->source, O_PATH | O_CLOEXEC);
    if (source < 0 || fstat(source, &st) < 0)
        return err_errno(e, errno, "bind source path %s", m->source);
    unsigned kind = (S_ISDIR(st.st_mode) ? 0 : TARGET_FILE) | (may_cover(m->target) ? 0 : TARGET_USER);
    AUTO_CLOSE int at = root_open_target(root, m->target, kind, e);
    if (at < 0)
        return at;
    return mount(root_fd_path(from, source), root_fd_path(to, at), NULL, MS_BIND | (m->flags & MS_REC), NULL) < 0
               ? err_errno(e, errno, "bind %s on %s", m->source, m->target) : 0;
}

/* On version 1 a small tmpfs with the container's own group of each controller. */
static int groups_v1(int root, int at, const struct oci_bundle *b, const struct oci_mount *m, struct err *e)
{
    char path[64], folder[512];
    if (mount("tmpfs", root_fd_path(path, at), "tmpfs", (m->flags & ~(uint64_t)MS_RDONLY) | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755") < 0)
        return err_errno(e, errno, "mount tmpfs on %s", m->target);
    AUTO_CLOSE int top = root_open_in(root, m->target, O_PATH | O_DIRECTORY); /* above the descriptor */
    for (unsigned i = 0; i < CGROUP_FOLDERS_MAX && top >= 0; i++) {
        const char *name = cgroup_folder(i, oci_cgroup_parent(b), b->cgroup, folder);
        if (!name)
            continue;
        AUTO_CLOSE int made = mkdirat(top, name, 0755) < 0 ? -1 : openat(top, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (m->flags & MS_RDONLY);
        if (made < 0 || mount(folder, root_fd_path(path, made), NULL, MS_BIND, NULL) < 0)
            return err_errno(e, errno, "bind control group %s", folder);
        AUTO_CLOSE int over = openat(top, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (over < 0 || mount(NULL, root_fd_path(path, over), NULL, MS_BIND | MS_REMOUNT | flags, NULL) < 0)
            return err_errno(e, errno, "set the flags of control group %s", name);
    }
    if (top < 0 || (m->flags & MS_RDONLY &&
                    mount(NULL, root_fd_path(path, top), NULL, MS_BIND | MS_REMOUNT | (m->flags & MOUNT_FLAGS), NULL) < 0))
        return err_errno(e, errno, "set the flags of %s", m->target);
    return 0;
}

static int cgroup_mount(int root, int at, const struct oci_bundle *b, const struct oci_mount *m, struct err *e)
{
    char path[64], folder[512];
    if (!cgroup_is_v2())
        return str_equal(m->type, "cgroup2") ? err_set(e, E_UNSUPPORTED, "mount cgroup2 on %s: this machine has version 1 of control "
                                                       "groups; use type cgroup", m->target) : groups_v1(root, at, b, m, e);
    if (oci_namespace_find(b, CLONE_NEWCGROUP))
        return mount("cgroup", root_fd_path(path, at), "cgroup2", m->flags, NULL) < 0
                   ? err_errno(e, errno, "mount cgroup2 on %s", m->target) : 0;
    /* Without a namespace of its own it sees its own group only, too. */
    struct oci_mount flags = *m;
    if (!cgroup_folder(0, oci_cgroup_parent(b), b->cgroup, folder) || mount(folder, root_fd_path(path, at), NULL, MS_BIND, NULL) < 0)
        return err_errno(e, errno, "bind control group %s", folder);
    AUTO_CLOSE int top = root_open_in(root, m->target, O_PATH);
    return top < 0 ? err_errno(e, errno, "%s in the container", m->target) : set_flags(top, &flags, e);
}

static int other_mount(int root, const struct oci_bundle *b, const struct oci_mount *m, struct err *e)
{
    char path[64];
    struct stat st;
    bool kernel = str_equal(m->type, "proc") || str_equal(m->type, "sysfs");
    /* Where kernel files go is not for a link of the image to say (CVE-2019-19921). */
    AUTO_CLOSE int plain = kernel ? root_open_in(root, m->target, O_PATH | O_NOFOLLOW) : -1;
    if (plain >= 0 && (fstat(plain, &st) < 0 || !S_ISDIR(st.st_mode)))
        return err_set(e, E_INVALID, "mount target \"%s\" of %s is no folder in the image; it must be a plain one or none", m->target, m->type);
    AUTO_CLOSE int at = root_open_target(root, m->target, TARGET_USER, e);
    if (at < 0)
        return at;
    if (str_equal(m->type, "cgroup") || str_equal(m->type, "cgroup2"))
        return cgroup_mount(root, at, b, m, e);
    if (mount(m->source ? m->source : m->type, root_fd_path(path, at), m->type, m->flags, m->data) == 0)
        return 0;
    return err_errno(e, errno, "mount %s on %s%s%s", m->type, m->target, m->data ? " with options " : "", m->data ? m->data : "");
}

static int make_device(int root, const struct oci_device *d, struct err *e)
{
    char folder[4096], path[64];
    struct stat st;
    snprintf(folder, sizeof folder, "%s", d->path);
    char *slash = strrchr(folder, '/');
    const char *name = d->path + (slash - folder) + 1;
    *slash = '\0';
    AUTO_CLOSE int at = root_open_target(root, folder[0] ? folder : "/", 0, e);
    if (at < 0)
        return at;
    dev_t number = makedev((unsigned)d->major, (unsigned)d->minor);
    if (mknodat(at, name, (mode_t)d->mode, number) < 0 && errno != EEXIST)
        return err_errno(e, errno, "make device %s in the container", d->path);
    /* Owner and mode are given by the descriptor of what was looked at: a name may have become a link. */
    AUTO_CLOSE int fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(e, errno, "make device %s in the container", d->path);
    if ((st.st_mode & S_IFMT) != (d->mode & S_IFMT) || (!S_ISFIFO(st.st_mode) && st.st_rdev != number))
        return err_set(e, E_EXISTS, "device %s: the image has another file there", d->path);
    if (fchownat(fd, "", (uid_t)d->uid, (gid_t)d->gid, AT_EMPTY_PATH) < 0 || chmod(root_fd_path(path, fd), (mode_t)d->mode & 07777) < 0)
        return err_errno(e, errno, "owner of device %s", d->path);
    return 0;
}

static int setup_dev(const struct oci_bundle *b, int root, struct pty *t, struct err *e)
{
    int r = 0;
    bool brought = false; /* a /dev of the host's: nothing is made in it */
    for (uint32_t i = 0; i < b->mounts.n; i++)
        if (str_equal(b->mounts.v[i].target, "/dev") || str_equal(b->mounts.v[i].target, "/dev/"))
            brought = b->mounts.v[i].flags & MS_BIND;
    for (uint32_t i = 0; i < b->devices.n && r == 0 && !brought; i++)
        r = make_device(root, &b->devices.v[i], e);
    if (r == 0 && !brought) {
        AUTO_CLOSE int dev = root_open_target(root, "/dev", 0, e);
        r = dev < 0 ? dev : root_make_nodes(root, dev, false, e);
        if (r == 0)
            r = root_make_links(dev, e);
    }
    if (r == 0 && t)
        r = pty_open(t, root, e);
    return r == 0 && t && !brought ? root_bind_console(root, t, e) : r;
}

/* "\040" of /proc/self/mountinfo back to a blank. */
static void unescape(char *s)
{
    char *to = s;
    for (; *s; s++) {
        unsigned v = 0, i = 0;
        while (*s == '\\' && i < 3 && s[i + 1] >= '0' && s[i + 1] <= '7')
            v = v * 8 + (unsigned)(s[++i] - '0');
        *to++ = i == 3 ? (char)v : *s;
        s += i == 3 ? 3 : 0;
    }
    *to = '\0';
}

/* The mount that the root lies on becomes private: below a shared one it could not be pivoted to, and its bind would
 * appear on the host. */
static int part_parent(const char *root, struct err *e)
{
    AUTO_FREE char *text = NULL, *best = NULL;
    size_t n;
    int r = file_read("/proc/self/mountinfo", 4 << 20, &text, &n, e);
    if (r < 0)
        return r;
    for (char *line = text, *next; *line; line = next) {
        char point[4096];
        next = line + strcspn(line, "\n");
        next += *next == '\n';
        if (sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1)
            continue;
        unescape(point);
        size_t len = str_equal(point, "/") ? 0 : strlen(point);
        if (strncmp(root, point, len) == 0 && (root[len] == '/' || !root[len]) && (!best || strlen(point) >= strlen(best))) {
            free(best);
            best = xstrdup(point);
        }
    }
    return best && mount(NULL, best, NULL, MS_PRIVATE, NULL) < 0 ? err_errno(e, errno, "make %s private", best) : 0;
}

int oci_root_setup(const struct oci_bundle *b, struct pty *t, int *ret_root, struct err *e)
{
    bool shared = b->propagation & MS_SHARED;
    if (!shared && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return err_errno(e, errno, "part from the host's mounts");
    int r = shared ? part_parent(b->root, e) : 0;
    if (r < 0)
        return r;
    if (mount(b->root, b->root, NULL, MS_BIND | MS_REC, NULL) < 0)
        return err_errno(e, errno, "root file system %s", b->root);
    AUTO_CLOSE int root = open(b->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || host < 0)
        return err_errno(e, errno, "root file system %s", b->root);
    for (uint32_t i = 0; i < b->mounts.n && r == 0; i++) {
        const struct oci_mount *m = &b->mounts.v[i];
        r = m->flags & MS_BIND ? bind_mount(root, m, e) : other_mount(root, b, m, e);
        if (r == 0)
            r = finish_mount(root, m, e);
    }
    if (r == 0)
        r = setup_dev(b, root, t, e);
    if (r == 0) { /* made while the root may still be written to */
        AUTO_CLOSE int cwd = root_open_target(root, b->process.cwd, 0, e);
        r = MIN(cwd, 0);
    }
    for (uint32_t i = 0; i < b->sysctls.n && r == 0; i++) /* by the host's /proc: the namespaces are those of who writes */
        r = root_set_sysctl(host, b->sysctls.v[i].key, b->sysctls.v[i].value, e);
    const char *const *masked = (const char *const *)b->masked.v, *const *read_only = (const char *const *)b->read_only_paths.v;
    if (r == 0 && shared)
        r = root_check_unshared(root, masked, b->masked.n, e);
    if (r == 0 && shared)
        r = root_check_unshared(root, read_only, b->read_only_paths.n, e);
    if (r == 0)
        r = root_make_read_only(root, read_only, b->read_only_paths.n, e);
    if (r == 0)
        r = root_mask(root, masked, b->masked.n, e);
    if (r == 0 && (*ret_root = fcntl(root, F_DUPFD_CLOEXEC, 3)) < 0)
        r = err_errno(e, errno, "root file system %s", b->root);
    return r;
}

int oci_root_enter(const struct oci_bundle *b, int root, struct err *e)
{
    char path[64];
    struct oci_mount flags = { .target = (char *)(uintptr_t)"/", .flags = MS_RDONLY };
    int r = b->read_only ? set_flags(root, &flags, e) : 0;
    if (r == 0 && b->propagation & MS_SHARED && mount(NULL, root_fd_path(path, root), NULL, MS_PRIVATE, NULL) < 0)
        r = err_errno(e, errno, "propagation of the root");
    if (r == 0)
        r = root_pivot(root, e);
    if (r == 0 && b->propagation && mount(NULL, "/", NULL, b->propagation, NULL) < 0)
        r = err_errno(e, errno, "propagation of the root");
    return r;
}
