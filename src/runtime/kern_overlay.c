/* The root of a container as one file system, and opening things below it so that no link leads out of it. */
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOOK_MS = 10 };

int root_open_in(int root, const char *path, int flags)
{
    struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    while (*path == '/')
        path++;
    return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
}

int root_lock(const char *path, int wait_ms, struct err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
    if (fd < 0)
        return err_errno(e, errno, "%s", path);
    int64_t end_ns = clock_mono_ns() + wait_ms * MS_NS;
    while ((r = flock(fd, LOCK_EX | LOCK_NB)) < 0 && (errno == EINTR || errno == EWOULDBLOCK) && clock_mono_ns() < end_ns)
        poll(NULL, 0, LOOK_MS); /* waiting for a lock has no end of its own */
    if (r == 0)
        return fd;
    r = errno == EWOULDBLOCK ? err_set(e, E_BUSY, "%s is in use", path) : err_errno(e, errno, "lock %s", path);
    close(fd);
    return r;
}

int root_mount_overlay(const struct container_spec *s, const char *dir, struct err *e)
{
    struct sb o;
    int r = 0;
    AUTO_FREE char *merged = path_join(dir, "merged");
    if (s->lower_dirs.n == 0)
        return err_set(e, E_INVALID, "the image has no layers; import it again");
    /* Layers are siblings: names relative to their folder keep the options below one page. */
    AUTO_FREE char *base = xstrdup(s->lower_dirs.v[0]);
    char *slash = strrchr(base, '/');
    size_t skip = slash ? (size_t)(slash - base) + 1 : 0;
    if (slash)
        *slash = '\0';
    sb_init(&o, 1 << 20);
    sb_str(&o, "lowerdir=");
    for (uint32_t i = 0; i < s->lower_dirs.n; i++) {
        const char *l = s->lower_dirs.v[i];
        bool sibling = slash && strncmp(l, base, skip - 1) == 0 && l[skip - 1] == '/' && !strchr(l + skip, '/');
        sb_printf(&o, "%s%s", i ? ":" : "", sibling ? l + skip : l);
    }
    sb_printf(&o, ",upperdir=%s/upper,workdir=%s/work", dir, dir);
    if (o.len >= (size_t)sysconf(_SC_PAGESIZE))
        r = err_set(e, E_UNSUPPORTED, "the image has %u layers, too many for one mount; squash it", s->lower_dirs.n);
    else if (slash && chdir(base) < 0)
        r = err_errno(e, errno, "%s", base);
    else if (mount("overlay", merged, "overlay", MS_NODEV, o.s) < 0)
        r = err_errno(e, errno, "mount the root of the container");
    sb_done(&o);
    return r;
}
