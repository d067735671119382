/* Network namespaces named by a bind mount of their nsfs file, and short visits of the calling thread. */
#include "overlay_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { NSFS = 0x6e736673 };

bool netns_exists(const char *path)
{
    struct statfs s;
    return statfs(path, &s) == 0 && s.f_type == NSFS;
}

int netns_open(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? err_errno(e, errno, "network namespace %s", path) : fd;
}

int netns_enter_open(int netns, const char *what, struct err *e)
{
    int back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (back >= 0 && setns(netns, CLONE_NEWNET) == 0)
        return back;
    int r = err_errno(e, errno, "network namespace %s", what);
    if (back >= 0)
        close(back);
    return r;
}

int netns_enter(const char *path, struct err *e)
{
    AUTO_CLOSE int fd = netns_open(path, e);
    return fd < 0 ? fd : netns_enter_open(fd, path, e);
}

void netns_leave(int back)
{
    ASSERT(setns(back, CLONE_NEWNET) == 0);
    close(back);
}

static int loopback_up(struct err *e)
{
    struct ifreq q = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    AUTO_CLOSE int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return s < 0 || ioctl(s, SIOCSIFFLAGS, &q) < 0 ? err_errno(e, errno, "lo up") : 0;
}

int netns_make(const char *path, struct err *e)
{
    int back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    AUTO_CLOSE int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int r = 0;
    if (back < 0 || file < 0) {
        r = err_errno(e, errno, "make the network namespace %s", path);
        if (back >= 0)
            close(back);
        return r;
    }
    if (unshare(CLONE_NEWNET) < 0) {
        r = err_errno(e, errno, "new network namespace");
        close(back);
        unlink(path);
        return r;
    }
    if (mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) < 0)
        r = err_errno(e, errno, "name the network namespace %s", path);
    if (r == 0)
        r = loopback_up(e);
    netns_leave(back);
    if (r < 0)
        netns_remove(path);
    return r;
}

void netns_remove(const char *path)
{
    while (netns_exists(path) && umount2(path, MNT_DETACH) == 0)
        ;
    unlink(path);
}
