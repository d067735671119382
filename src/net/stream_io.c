/* Streams over sockets: an output buffer, reads while somebody listens, half-close, listeners. */
#include "stream_internal.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10, LOW_BYTES = 64 << 10, OUT_MAX_BYTES = 256 << 20 };

struct fd_stream {
    struct loop *loop;
    struct stream *s; /* NULL: freed by its owner, only flushing */
    struct loop_fd *watch;
    int fd;
    struct sb out;
    size_t out_sent; /* bytes of out already written */
    bool connecting, paused, eof, closing, shut, dead, was_high, flush_due;
    unsigned watched;
    int why; /* it is dead */
    struct loop_timer *linger;
};

static void update(struct fd_stream *f)
{
    unsigned want = 0;
    if (!f->dead && !f->connecting && !f->paused && !f->eof && f->s)
        want |= LOOP_READ;
    if (!f->dead && (f->connecting || f->out.len > f->out_sent))
        want |= LOOP_WRITE;
    if (want != f->watched)
        loop_fd_set(f->watch, want);
    f->watched = want;
}

static void destroy(void *arg)
{
    struct fd_stream *f = arg;
    loop_timer_free(f->linger);
    loop_fd_remove(f->watch);
    close(f->fd);
    sb_done(&f->out);
    free(f);
}

static void tell(void *arg)
{
    struct fd_stream *f = arg;
    struct err e;
    if (!f->s) /* freed since; its destroy() comes after this */
        return;
    err_errno(&e, f->why, f->connecting ? "connect" : "connection");
    stream_got_error(f->s, &e);
}

/* The owner hears of it in the next turn: it may be in the middle of stream_write(), and frees what it writes for. */
static void die(struct fd_stream *f, int errno_)
{
    if (f->dead)
        return;
    f->dead = true;
    f->why = errno_;
    update(f);
    loop_defer(f->loop, f->s ? tell : destroy, f);
}

static void flush(struct fd_stream *f)
{
    while (!f->dead && f->out.len > f->out_sent) {
        ssize_t n = send(f->fd, f->out.s + f->out_sent, f->out.len - f->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK)
            n = write(f->fd, f->out.s + f->out_sent, f->out.len - f->out_sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (errno != EAGAIN)
                die(f, errno);
            break;
        }
        f->out_sent += (size_t)n;
    }
    if (f->out_sent == f->out.len) {
        sb_reset(&f->out);
        f->out_sent = 0;
    } else if (f->out_sent > LOW_BYTES) {
        sb_drop_front(&f->out, f->out_sent);
        f->out_sent = 0;
    }
    if (!f->dead && f->closing && !f->shut && !f->out.len) {
        f->shut = true;
        shutdown(f->fd, SHUT_WR);
    }
    update(f);
    if (!f->s && !f->dead && !f->out.len) {
        f->dead = true;
        loop_defer(f->loop, destroy, f);
    } else if (f->s && f->was_high && f->out.len - f->out_sent < LOW_BYTES) {
        f->was_high = false;
        stream_got_drain(f->s);
    }
}

/* What is written in one turn goes in one call: a reply's head and body, the messages of a batch. */
static void flush_later(void *arg)
{
    struct fd_stream *f = arg;
    f->flush_due = false;
    if (!f->dead)
        flush(f);
}

static void read_some(struct fd_stream *f)
{
    static char buf[READ_BYTES]; /* the loop's thread only */
    ssize_t n = read(f->fd, buf, sizeof buf);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        die(f, errno);
    } else if (n == 0) {
        f->eof = true;
        update(f);
        stream_got_eof(f->s);
    } else {
        stream_got_data(f->s, buf, (size_t)n);
    }
}

static void on_event(void *arg, unsigned events)
{
    struct fd_stream *f = arg;
    if (f->connecting) {
        int errno_ = 0;
        socklen_t len = sizeof errno_;
        getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &errno_, &len);
        if (errno_) {
            die(f, errno_);
            return;
        }
        f->connecting = false;
        f->was_high = true; /* on_drain says that it is up */
        flush(f);
        return;
    }
    if (events & LOOP_WRITE)
        flush(f);
    if ((events & LOOP_READ) && f->s && !f->dead)
        read_some(f);
}

static void op_write(void *impl, const void *p, size_t size)
{
    struct fd_stream *f = impl;
    if (f->dead || f->closing)
        return;
    sb_add(&f->out, p, size);
    if (f->out.overflow) {
        die(f, ENOBUFS);
        return;
    }
    bool high = f->out.len - f->out_sent >= LOW_BYTES;
    f->was_high |= high;
    if (f->connecting || f->flush_due || (f->watched & LOOP_WRITE))
        return;
    if (high) {
        flush(f);
        return;
    }
    f->flush_due = true;
    loop_defer(f->loop, flush_later, f);
}

static size_t op_queued(void *impl)
{
    const struct fd_stream *f = impl;
    return f->out.len - f->out_sent;
}

static void op_close_write(void *impl)
{
    struct fd_stream *f = impl;
    f->closing = true;
    if (!f->connecting)
        flush(f);
}

static void op_pause(void *impl, bool paused)
{
    struct fd_stream *f = impl;
    f->paused = paused;
    update(f);
}

static void linger_over(void *arg)
{
    struct fd_stream *f = arg;
    if (f->dead)
        return;
    f->dead = true;
    loop_defer(f->loop, destroy, f);
}

static void op_free(void *impl, bool when_sent)
{
    struct fd_stream *f = impl;
    f->s = NULL;
    if (f->dead || !when_sent || !f->out.len) {
        f->dead = true;
        update(f);
        loop_defer(f->loop, destroy, f);
        return;
    }
    f->linger = loop_timer_new(f->loop, linger_over, f);
    loop_timer_set(f->linger, 10000); /* a peer that reads nothing does not keep it for ever */
    update(f);
}

static const struct stream_ops fd_ops = { op_write, op_queued, op_close_write, op_pause, op_free };

struct stream *stream_from_fd(struct loop *l, int fd)
{
    struct fd_stream *f = xnew(struct fd_stream);
    struct ucred cred;
    socklen_t len = sizeof cred;
    *f = (struct fd_stream){ .loop = l, .fd = fd };
    sb_init(&f->out, OUT_MAX_BYTES);
    fd_set_nonblock(fd, true);
    f->s = stream_new(l, &fd_ops, f);
    f->watch = loop_fd_add(l, fd, 0, on_event, f);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
        stream_set_uid(f->s, (int)cred.uid);
    update(f);
    return f->s;
}

static void connect_failed(void *arg)
{
    die(arg, EINVAL);
}

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

static socklen_t tcp_address(union address *a, const char *addr, uint16_t port)
{
    memset(a, 0, sizeof *a);
    if (inet_pton(AF_INET, addr, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons(port);
        return sizeof a->v4;
    }
    if (inet_pton(AF_INET6, addr, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons(port);
        return sizeof a->v6;
    }
    return 0;
}

/* The first 1,024 files are left to libraries that know no others (libnftables waits by select): a big cluster has more
 * links than that. */
static int out_of_the_way(int fd)
{
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 1024);
    if (high < 0) /* so many are not allowed */
        return fd;
    close(fd);
    return high;
}

struct stream *stream_connect_tcp(struct loop *l, const char *addr, uint16_t port)
{
    union address a;
    socklen_t len = tcp_address(&a, addr, port);
    int one = 1, fd = out_of_the_way(socket(len ? a.any.sa_family : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    ASSERT(fd >= 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct stream *s = stream_from_fd(l, fd);
    struct fd_stream *f = stream_impl(s);
    f->connecting = true;
    if (!len || (connect(fd, &a.any, len) < 0 && errno != EINPROGRESS))
        loop_defer(l, connect_failed, f);
    update(f);
    return s;
}

int stream_connect_unix(struct loop *l, const char *path, struct stream **ret, struct err *e)
{
    union address a = { .un = { .sun_family = AF_UNIX } };
    if (strlen(path) >= sizeof a.un.sun_path)
        return err_set(e, E_INVALID, "socket path %s is longer than %zu bytes", path, sizeof a.un.sun_path - 1);
    snprintf(a.un.sun_path, sizeof a.un.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, errno, "socket");
    if (connect(fd, &a.any, sizeof a.un) < 0) {
        int r = err_errno(e, errno, "connect to %s", path);
        close(fd);
        return r;
    }
    *ret = stream_from_fd(l, fd);
    return 0;
}

/* ACCEPTS: in one turn, so that what follows from a crowd is spread over turns. BACKLOG: those wait here meanwhile. */
enum { ACCEPTS = 8, BACKLOG = 4096 };

struct stream_listener {
    struct loop *loop;
    struct loop_fd *watch;
    int fd;
    bool tcp, paused;
    char *path;
    stream_accept_fn *fn;
    void *arg;
};

static void on_accept(void *arg, unsigned events)
{
    struct stream_listener *sl = arg;
    (void)events;
    int one = 1;
    for (unsigned i = 0; i < ACCEPTS && !sl->paused; i++) {
        int fd = accept4(sl->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if (sl->tcp)
            fd = out_of_the_way(fd);
        if (sl->tcp)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        sl->fn(sl->arg, stream_from_fd(sl->loop, fd));
    }
}

static int listen_on(struct loop *l, int fd, const union address *a, socklen_t len, stream_accept_fn *fn,
                     void *arg, struct stream_listener **ret, const char *what, struct err *e)
{
    if (fd < 0 || bind(fd, &a->any, len) < 0 || listen(fd, BACKLOG) < 0) {
        int r = err_errno(e, errno, "listen on %s", what);
        if (fd >= 0)
            close(fd);
        return r;
    }
    struct stream_listener *sl = xnew(struct stream_listener);
    *sl = (struct stream_listener){ .loop = l, .fd = fd, .fn = fn, .arg = arg };
    fd_set_nonblock(fd, true);
    sl->watch = loop_fd_add(l, fd, LOOP_READ, on_accept, sl);
    *ret = sl;
    return 0;
}

int stream_listen_unix(struct loop *l, const char *path, unsigned mode, stream_accept_fn *fn, void *arg,
                       struct stream_listener **ret, struct err *e)
{
    union address a = { .un = { .sun_family = AF_UNIX } };
    if (strlen(path) >= sizeof a.un.sun_path)
        return err_set(e, E_INVALID, "socket path %s is longer than %zu bytes", path, sizeof a.un.sun_path - 1);
    snprintf(a.un.sun_path, sizeof a.un.sun_path, "%s", path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool alive = probe >= 0 && connect(probe, &a.any, sizeof a.un) == 0;
    if (probe >= 0)
        close(probe);
    if (alive)
        return err_set(e, E_BUSY, "%s is in use by another daemon; stop it or give another --api", path);
    unlink(path);
    mode_t old = umask(0777 & ~mode);
    int r = listen_on(l, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), &a, sizeof a.un, fn, arg, ret, path, e);
    umask(old);
    if (r == 0)
        (*ret)->path = xstrdup(path);
    return r;
}

int stream_listen_tcp(struct loop *l, const char *addr, uint16_t port, stream_accept_fn *fn, void *arg,
                      struct stream_listener **ret, struct err *e)
{
    union address a;
    char what[80];
    socklen_t len = tcp_address(&a, addr, port);
    if (!len)
        return err_set(e, E_INVALID, "%s is not an IP address", addr);
    int one = 1, fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(what, sizeof what, "%s port %u", addr, port);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int r = listen_on(l, fd, &a, len, fn, arg, ret, what, e);
    if (r == 0)
        (*ret)->tcp = true;
    return r;
}

void stream_listener_pause(struct stream_listener *sl, bool paused)
{
    if (paused != sl->paused)
        loop_fd_set(sl->watch, paused ? 0 : LOOP_READ);
    sl->paused = paused;
}

void stream_listener_free(struct stream_listener *sl)
{
    if (!sl)
        return;
    loop_fd_remove(sl->watch);
    close(sl->fd);
    if (sl->path)
        unlink(sl->path);
    free(sl->path);
    free(sl);
}
