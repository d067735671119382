/* Files and folders. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FDS_MAX = 16 };

int file_read(const char *path, size_t max, char **ret_data, size_t *ret_size, struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "open %s", path);
    size_t size = 0, cap = 4096;
    char *data = xcalloc(cap + 1, 1);
    for (;;) {
        ssize_t n = read(fd, data + size, cap - size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int r = err_errno(e, errno, "read %s", path);
            free(data);
            return r;
        }
        if (n == 0)
            break;
        size += (size_t)n;
        if (size > max) {
            free(data);
            return err_set(e, E_TOO_BIG, "%s is larger than %zu bytes", path, max);
        }
        if (size == cap) {
            cap *= 2;
            data = xrealloc(data, cap + 1, 1);
        }
    }
    data[size] = 0;
    *ret_data = data;
    *ret_size = size;
    return 0;
}

int fd_write_all(int fd, const void *p, size_t size, struct err *e)
{
    const char *at = p;
    while (size) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, errno, "write");
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int sync_parent(const char *path, struct err *e)
{
    AUTO_FREE char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');
    if (slash)
        *(slash == dir ? slash + 1 : slash) = 0;
    AUTO_CLOSE int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_errno(e, errno, "sync the folder of %s", path);
    return 0;
}

static int replace(const char *path, const void *data, size_t size, mode_t mode, bool sync, struct err *e)
{
    AUTO_FREE char *tmp = xasprintf("%s.tmp", path);
    AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return err_errno(e, errno, "create %s", tmp);
    int r = fd_write_all(fd, data, size, e);
    if (r == 0 && fchmod(fd, mode) < 0)
        r = err_errno(e, errno, "chmod %s", tmp);
    if (r == 0 && sync && fsync(fd) < 0)
        r = err_errno(e, errno, "sync %s", tmp);
    if (r == 0 && rename(tmp, path) < 0)
        r = err_errno(e, errno, "rename %s", tmp);
    if (r < 0) {
        unlink(tmp);
        return e ? err_wrap(e, "%s", path) : r;
    }
    return sync ? sync_parent(path, e) : 0;
}

int file_write_atomic(const char *path, const void *data, size_t size, mode_t mode, struct err *e)
{
    return replace(path, data, size, mode, true, e);
}

int file_write_volatile(const char *path, const void *data, size_t size, mode_t mode, struct err *e)
{
    return replace(path, data, size, mode, false, e);
}

int file_poke(const char *path, const char *text, struct err *e)
{
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "open %s", path);
    ssize_t n = write(fd, text, strlen(text));
    return n < 0 ? err_errno(e, errno, "write \"%.100s\" to %s", text, path) : 0;
}

int file_mkdirs(const char *path, mode_t mode, struct err *e)
{
    AUTO_FREE char *p = xstrdup(path);
    struct stat st;
    for (char *slash = p[0] ? strchr(p + 1, '/') : NULL;; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = 0;
        if (mkdir(p, mode) < 0 && errno != EEXIST)
            return err_errno(e, errno, "make folder %s", p);
        if (!slash)
            break;
        *slash = '/';
    }
    if (stat(path, &st) < 0)
        return err_errno(e, errno, "folder %s", path);
    return S_ISDIR(st.st_mode) ? 0 : err_set(e, E_EXISTS, "%s exists and is no folder", path);
}

/* Removes what dir holds; stops at mounts (another device) and never follows links. */
static int remove_below(int dir, dev_t dev, const char *path, struct err *e)
{
    DIR *d = fdopendir(dir);
    struct dirent *de;
    int r = 0;
    if (!d) {
        close(dir);
        return err_errno(e, errno, "read folder %s", path);
    }
    while (r == 0 && (de = readdir(d))) {
        struct stat st;
        if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
            continue;
        if (fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            r = errno == ENOENT ? 0 : err_errno(e, errno, "%s/%s", path, de->d_name);
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            AUTO_FREE char *sub = path_join(path, de->d_name);
            int fd = openat(dirfd(d), de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (st.st_dev != dev)
                r = err_set(e, E_BUSY, "%s is a mount point; unmount it first", sub);
            else
                r = fd < 0 ? err_errno(e, errno, "open %s", sub) : remove_below(fd, dev, sub, e);
            if (st.st_dev != dev && fd >= 0)
                close(fd);
        }
        if (r == 0 && unlinkat(dirfd(d), de->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0 &&
            errno != ENOENT)
            r = err_errno(e, errno, "remove %s/%s", path, de->d_name);
    }
    closedir(d);
    return r;
}

int file_remove_tree(const char *path, struct err *e)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_errno(e, errno, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return unlink(path) < 0 && errno != ENOENT ? err_errno(e, errno, "remove %s", path) : 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "open %s", path);
    int r = remove_below(fd, st.st_dev, path, e);
    if (r == 0 && rmdir(path) < 0 && errno != ENOENT && errno != EBUSY) /* EBUSY: a mount point stays, empty */
        r = err_errno(e, errno, "remove %s", path);
    return r;
}

bool file_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

int fd_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -E_IO;
    return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0 ? -E_IO : 0;
}

int fd_send_with_fds(int sock, const void *p, size_t size, const int *fds, unsigned n_fds, struct err *e)
{
    char control[CMSG_SPACE(FDS_MAX * sizeof(int))] __attribute__((aligned(8))) = { 0 };
    struct iovec iov = { (void *)(uintptr_t)p, size };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ASSERT(n_fds <= FDS_MAX);
    if (n_fds) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(sock, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, errno, "send");
    return (size_t)n == size ? 0 : fd_write_all(sock, (const char *)p + n, size - (size_t)n, e);
}

long fd_recv_with_fds(int sock, void *p, size_t size, int *fds, unsigned *n_fds, struct err *e)
{
    char control[CMSG_SPACE(FDS_MAX * sizeof(int))] __attribute__((aligned(8)));
    struct iovec iov = { p, size };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                          .msg_controllen = sizeof control };
    unsigned cap = *n_fds, got = 0;
    ssize_t n;
    do
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, errno, "receive");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned k = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < k; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (got < cap)
                fds[got++] = fd;
            else
                close(fd); /* more than asked for: never leaked */
        }
    }
    *n_fds = got;
    return n;
}

char *path_join(const char *a, const char *b)
{
    size_t n = strlen(a);
    return xasprintf("%s%s%s", a, n && a[n - 1] == '/' ? "" : "/", *b == '/' ? b + 1 : b);
}
