/* The tunnel process: the core of tunnel.c over a UDP socket, TAP devices and the daemon's unix socket. Batches
 * (recvmmsg, sendmmsg) keep the system calls few; one thread. */
#include "tunnel.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/map.h>
#include <shoal/loop.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

LOG_MODULE("tunnel");

enum { BATCH = 64, PACKET_BYTES = 65535 + 64, BUFFER_BYTES = 8 << 20, TICK_MS = 250, HEAD_BYTES = 5, SEND_BYTES = 9216,
       GSO_BYTES = 65000 /* of one message */ };

struct tap { struct io *io; uint32_t vni; int fd; struct loop_fd *watch; };
struct io {
    struct loop *loop;
    struct tunnel *t;
    int listen_fd, daemon_fd, udp;
    struct loop_fd *listen_watch, *daemon_watch, *udp_watch;
    struct loop_timer *timer;
    struct sb in;
    int pending_fd;      /* came with the frame being read */
    struct map taps;     /* 4 bytes of VNI -> struct tap */
    char listen_addr[64];
    uint16_t port;
    /* packets to be sent at the end of the turn */
    bool no_gso; /* the device cannot: EIO was the answer */
    struct iovec out_iov[BATCH];
    struct sockaddr_storage out_to[BATCH];
    uint8_t out_bytes[BATCH][SEND_BYTES];
    unsigned n_out;
};

/* ---- endpoints ---- */
static bool parse_endpoint(const char *addr, uint16_t port, struct endpoint *ret)
{
    struct in_addr a4;
    struct in6_addr a6;
    *ret = (struct endpoint){ .port = port, .known = true };
    if (inet_pton(AF_INET, addr, &a4) == 1) {
        memcpy(ret->addr, &a4, 4);
        return true;
    }
    ret->v6 = true;
    if (inet_pton(AF_INET6, addr, &a6) != 1)
        return false;
    memcpy(ret->addr, &a6, 16);
    return true;
}

static void format_endpoint(const struct endpoint *e, char out[80])
{
    char text[INET6_ADDRSTRLEN];
    inet_ntop(e->v6 ? AF_INET6 : AF_INET, e->addr, text, sizeof text);
    snprintf(out, 80, e->v6 ? "[%s]:%u" : "%s:%u", text, e->port);
}

/* The socket is IPv6 with IPv4 mapped in, so that one carries both. */
static void to_sockaddr(const struct endpoint *e, struct sockaddr_storage *ret)
{
    struct sockaddr_in6 *a = (void *)ret;
    *a = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(e->port) };
    if (e->v6) {
        memcpy(&a->sin6_addr, e->addr, 16);
    } else {
        a->sin6_addr.s6_addr[10] = a->sin6_addr.s6_addr[11] = 0xff;
        memcpy(a->sin6_addr.s6_addr + 12, e->addr, 4);
    }
}

static void from_sockaddr(const struct sockaddr_storage *s, struct endpoint *ret)
{
    const struct sockaddr_in6 *a = (const void *)s;
    *ret = (struct endpoint){ .port = ntohs(a->sin6_port), .known = true };
    if (IN6_IS_ADDR_V4MAPPED(&a->sin6_addr)) {
        memcpy(ret->addr, a->sin6_addr.s6_addr + 12, 4);
    } else {
        ret->v6 = true;
        memcpy(ret->addr, &a->sin6_addr, 16);
    }
}

/* ---- sending ---- */
/* How many packets from this one on go as one message with UDP_SEGMENT: one receiver, equal sizes but for the last. */
static unsigned group_at(const struct io *io, unsigned at)
{
    size_t size = io->out_iov[at].iov_len, total = size;
    unsigned n = 1;
    for (; !io->no_gso && at + n < io->n_out && io->out_iov[at + n - 1].iov_len == size; n++) {
        size_t more = io->out_iov[at + n].iov_len;
        total += more;
        if (more > size || total > GSO_BYTES ||
            memcmp(&io->out_to[at], &io->out_to[at + n], sizeof(struct sockaddr_in6)) != 0)
            break;
    }
    return n;
}

static void fill_message(struct io *io, unsigned at, unsigned n, struct msghdr *m, char control[CMSG_SPACE(2)])
{
    *m = (struct msghdr){ .msg_name = &io->out_to[at], .msg_namelen = sizeof(struct sockaddr_in6),
                          .msg_iov = &io->out_iov[at], .msg_iovlen = n };
    if (n == 1)
        return;
    uint16_t size = (uint16_t)io->out_iov[at].iov_len;
    memset(control, 0, CMSG_SPACE(2));
    m->msg_control = control;
    m->msg_controllen = CMSG_SPACE(2);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    *c = (struct cmsghdr){ .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(2) };
    memcpy(CMSG_DATA(c), &size, sizeof size);
}

/* A batch was refused: the device has no such offload, or the packets are longer than the path's MTU. */
static void send_singly(struct io *io, unsigned at, unsigned n, int error)
{
    if (error == EIO) {
        io->no_gso = true;
        log_info("the device takes no batches of UDP packets (no checksum offload); sending them one by one");
    }
    for (unsigned i = at; i < at + n; i++) {
        struct msghdr m;
        fill_message(io, i, 1, &m, NULL);
        if (sendmsg(io->udp, &m, MSG_DONTWAIT) < 0)
            log_debug("packet lost: %d", errno);
    }
}

static void flush(struct io *io)
{
    struct mmsghdr m[BATCH];
    char control[BATCH][CMSG_SPACE(2)] __attribute__((aligned(8)));
    for (unsigned at = 0; at < io->n_out && io->udp >= 0;) {
        unsigned n_m = 0;
        for (unsigned i = at, n; i < io->n_out; i += n) {
            n = group_at(io, i);
            fill_message(io, i, n, &m[n_m].msg_hdr, control[n_m]);
            n_m++;
        }
        unsigned first = (unsigned)m[0].msg_hdr.msg_iovlen;
        int sent = sendmmsg(io->udp, m, n_m, MSG_DONTWAIT), error = errno;
        for (int i = 0; i < sent; i++)
            at += (unsigned)m[i].msg_hdr.msg_iovlen;
        if (sent > 0 || error == EINTR)
            continue;
        if (first > 1 && (error == EIO || error == EINVAL || error == EMSGSIZE)) /* the latter by newer kernels */
            send_singly(io, at, first, error);
        at += first; /* full or refused: lost, as on any wire */
    }
    io->n_out = 0;
}

static void on_send(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    struct io *io = arg;
    if (io->udp < 0)
        return;
    if (size > SEND_BYTES) { /* jumbo: on its own */
        struct sockaddr_storage a;
        flush(io);
        to_sockaddr(to, &a);
        if (sendto(io->udp, p, size, MSG_DONTWAIT, (struct sockaddr *)&a, sizeof(struct sockaddr_in6)) < 0)
            log_debug("packet lost: %d", errno);
        return;
    }
    unsigned i = io->n_out;
    memcpy(io->out_bytes[i], p, size);
    to_sockaddr(to, &io->out_to[i]);
    io->out_iov[i] = (struct iovec){ io->out_bytes[i], size };
    if (++io->n_out == BATCH)
        flush(io);
}

static void on_frame(void *arg, uint32_t vni, const uint8_t *p, size_t size)
{
    struct io *io = arg;
    struct tap *tap = map_find_n(&io->taps, &vni, sizeof vni);
    if (tap && write(tap->fd, p, size) < 0 && errno != EAGAIN && errno != EIO)
        log_warn("network %u: write to its TAP: error %d", vni, errno);
}

/* ---- receiving ---- */
static void on_udp(void *arg, unsigned events)
{
    static uint8_t bytes[BATCH][SEND_BYTES];
    static struct sockaddr_storage from[BATCH];
    struct io *io = arg;
    struct mmsghdr in[BATCH];
    struct iovec iov[BATCH];
    (void)events;
    for (int turn = 0; turn < 4; turn++) {
        for (int i = 0; i < BATCH; i++) {
            iov[i] = (struct iovec){ bytes[i], SEND_BYTES };
            in[i].msg_hdr = (struct msghdr){ .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &iov[i],
                                             .msg_iovlen = 1 };
        }
        int n = recvmmsg(io->udp, in, BATCH, MSG_DONTWAIT, NULL);
        if (n <= 0)
            break;
        int64_t now = clock_mono_ns() / MS_NS, real = clock_real_ns();
        for (int i = 0; i < n; i++) {
            struct endpoint e;
            if (in[i].msg_hdr.msg_flags & MSG_TRUNC)
                continue;
            from_sockaddr(&from[i], &e);
            tunnel_packet(io->t, now, real, &e, bytes[i], in[i].msg_len);
        }
        if (n < BATCH)
            break;
    }
    flush(io);
}

static void tap_free(struct tap *tap)
{
    map_remove_n(&tap->io->taps, &tap->vni, sizeof tap->vni);
    loop_fd_remove(tap->watch);
    close(tap->fd);
    free(tap);
}

static void on_tap(void *arg, unsigned events)
{
    static uint8_t frame[PACKET_BYTES];
    struct tap *tap = arg;
    struct io *io = tap->io;
    int64_t now = clock_mono_ns() / MS_NS, real = clock_real_ns();
    (void)events;
    for (int i = 0; i < BATCH; i++) {
        ssize_t n = read(tap->fd, frame, sizeof frame);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) { /* the device was removed with its namespace */
            tap_free(tap);
            break;
        }
        tunnel_frame(io->t, now, real, tap->vni, frame, (size_t)n);
    }
    flush(io);
}

static void on_timer(void *arg)
{
    struct io *io = arg;
    tunnel_tick(io->t, clock_mono_ns() / MS_NS, clock_real_ns());
    flush(io);
    loop_timer_set(io->timer, TICK_MS);
}

/* ---- the daemon's socket ---- */
static int open_udp(struct io *io, const char *addr, uint16_t port, struct err *e)
{
    struct endpoint at = { .v6 = true, .port = port };
    struct sockaddr_storage a;
    int off = 0, size = BUFFER_BYTES;
    if (addr && *addr && !parse_endpoint(addr, port, &at))
        return err_set(e, E_INVALID, "tunnel: \"%s\" is no address", addr);
    to_sockaddr(&at, &a);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof(struct sockaddr_in6)) < 0) {
        int r = err_errno(e, errno, "tunnel: UDP port %u", port);
        if (fd >= 0)
            close(fd);
        return r;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    loop_fd_remove(io->udp_watch);
    if (io->udp >= 0)
        close(io->udp);
    io->udp = fd;
    io->udp_watch = loop_fd_add(io->loop, fd, LOOP_READ, on_udp, io);
    io->port = port;
    snprintf(io->listen_addr, sizeof io->listen_addr, "%s", addr ? addr : "");
    return 0;
}

static void configure(struct io *io, const void *p, size_t size)
{
    struct tunnel_config c = { 0 };
    struct err e = { 0 };
    int r = rec_unpack(&tunnel_config_rec, &c, p, size, &e);
    if (r == 0 && (io->udp < 0 || c.port != io->port || !str_equal(c.listen ? c.listen : "", io->listen_addr)))
        r = open_udp(io, c.listen, (uint16_t)c.port, &e);
    if (r == 0)
        r = tunnel_configure(io->t, &c, parse_endpoint, &e);
    if (r == 0)
        tunnel_greet(io->t, clock_mono_ns() / MS_NS, clock_real_ns());
    flush(io);
    for (struct map_item *it = NULL; r == 0 && (it = map_next(&io->taps, it));) {
        struct tap *tap = it->value;
        if (!tunnel_has_network(io->t, tap->vni))
            tap_free(tap);
    }
    if (c.key.n)
        crypto_wipe(c.key.v, c.key.n);
    rec_clear(&tunnel_config_rec, &c);
    if (r < 0)
        log_error("configuration refused: %s", e.text);
}

static void take_tap(struct io *io, const uint8_t *p, size_t size, int fd)
{
    if (size != 4 || fd < 0 || fd_set_nonblock(fd, true) < 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    uint32_t vni = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    struct tap *old = map_find_n(&io->taps, &vni, sizeof vni);
    if (old)
        tap_free(old);
    struct tap *tap = xnew(struct tap);
    tap->io = io;
    tap->vni = vni;
    tap->fd = fd;
    tap->watch = loop_fd_add(io->loop, fd, LOOP_READ, on_tap, tap);
    map_put_n(&io->taps, &vni, sizeof vni, tap);
}

static void drop_daemon(struct io *io)
{
    loop_fd_remove(io->daemon_watch);
    io->daemon_watch = NULL;
    if (io->daemon_fd >= 0)
        close(io->daemon_fd);
    io->daemon_fd = -1;
    if (io->pending_fd >= 0)
        close(io->pending_fd);
    io->pending_fd = -1;
    sb_reset(&io->in);
    io->in.overflow = false;
}

static void reply_status(struct io *io)
{
    struct tunnel_status s = { .pid = (uint64_t)getpid() };
    struct sb b;
    struct err e;
    tunnel_status(io->t, clock_mono_ns() / MS_NS, format_endpoint, &s);
    for (struct map_item *it = NULL; (it = map_next(&io->taps, it));) {
        struct tunnel_tap_status *tap = REC_ADD(&s.taps);
        tap->vni = ((struct tap *)it->value)->vni;
    }
    sb_init(&b, TUNNEL_FRAME_MAX_BYTES);
    sb_add(&b, "\0\0\0\0\4", HEAD_BYTES);
    rec_pack(&tunnel_status_rec, &s, &b);
    uint32_t n = (uint32_t)b.len - 4;
    for (int i = 0; i < 4; i++)
        b.s[i] = (char)(n >> (24 - 8 * i));
    if (fd_write_all(io->daemon_fd, b.s, b.len, &e) < 0)
        shutdown(io->daemon_fd, SHUT_RDWR);
    sb_done(&b);
    rec_clear(&tunnel_status_rec, &s);
}

static void on_daemon(void *arg, unsigned events)
{
    struct io *io = arg;
    static char buf[65536];
    int fd = -1;
    unsigned n_fds = 1;
    (void)events;
    long n = fd_recv_with_fds(io->daemon_fd, buf, sizeof buf, &fd, &n_fds, NULL);
    if (n_fds == 1 && fd >= 0) {
        if (io->pending_fd >= 0)
            close(io->pending_fd);
        io->pending_fd = fd;
    }
    if (n <= 0) {
        drop_daemon(io);
        return;
    }
    sb_add(&io->in, buf, (size_t)n);
    for (;;) {
        const uint8_t *p = (const uint8_t *)io->in.s;
        if (io->in.len < HEAD_BYTES)
            return;
        uint32_t size = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        if (size < 1 || size > TUNNEL_FRAME_MAX_BYTES || io->in.overflow) {
            drop_daemon(io);
            return;
        }
        if (io->in.len < 4 + (size_t)size)
            return;
        if (p[4] == TUNNEL_CONFIG) {
            configure(io, p + HEAD_BYTES, size - 1);
        } else if (p[4] == TUNNEL_TAP) {
            int tap = io->pending_fd;
            io->pending_fd = -1;
            take_tap(io, p + HEAD_BYTES, size - 1, tap);
        } else if (p[4] == TUNNEL_STATUS) {
            reply_status(io);
        } else if (p[4] == TUNNEL_QUIT) {
            loop_stop(io->loop);
            return;
        }
        sb_drop_front(&io->in, 4 + (size_t)size);
    }
}

static void on_accept(void *arg, unsigned events)
{
    struct io *io = arg;
    (void)events;
    int fd = accept4(io->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    drop_daemon(io); /* the new one counts */
    io->daemon_fd = fd;
    io->daemon_watch = loop_fd_add(io->loop, fd, LOOP_READ, on_daemon, io);
}

/* Sockets are addressed through their folder: paths may be longer than sun_path. */
static int listen_at(const char *path, struct err *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    AUTO_FREE char *folder = xstrdup(path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return err_set(e, E_INVALID, "%s: give an absolute path", path);
    *slash = '\0';
    AUTO_CLOSE int dir = open(*folder ? folder : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(e, errno, "%s", folder);
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/%s", dir, slash + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Another tunnel that serves here is found out by its answer. */
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
        close(fd);
        return err_set(e, E_BUSY, "a tunnel serves %s already", path);
    }
    if (fd >= 0)
        close(fd);
    unlink(a.sun_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t old = umask(0077);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 4) == 0;
    umask(old);
    return ok ? fd : err_errno(e, errno, "%s", path);
}

int tunnel_main(int argc, char **argv)
{
    static struct io io = { .listen_fd = -1, .daemon_fd = -1, .udp = -1, .pending_fd = -1 };
    struct err e = { 0 };
    const struct tunnel_out out = { &io, on_send, on_frame };
    if (argc != 2 || argv[1][0] != '/') {
        fprintf(stderr, "usage: shoal tunnel /PATH/OF/SOCKET (the daemon starts it)\n");
        return 2;
    }
    crypto_init();
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NAME, "shoal-tunnel", 0, 0, 0);
    io.listen_fd = listen_at(argv[1], &e);
    if (io.listen_fd < 0) {
        fprintf(stderr, "shoal tunnel: %s\n", e.text);
        return 1;
    }
    io.loop = loop_new();
    io.t = tunnel_new(&out);
    sb_init(&io.in, TUNNEL_FRAME_MAX_BYTES + (1 << 20));
    map_init(&io.taps);
    io.listen_watch = loop_fd_add(io.loop, io.listen_fd, LOOP_READ, on_accept, &io);
    io.timer = loop_timer_new(io.loop, on_timer, &io);
    loop_timer_set(io.timer, TICK_MS);
    struct loop_signal *term = loop_signal_add(io.loop, SIGTERM, (loop_fn *)loop_stop, io.loop);
    loop_run(io.loop);
    for (struct map_item *it = NULL; (it = map_next(&io.taps, it));)
        tap_free(it->value);
    drop_daemon(&io);
    loop_fd_remove(io.listen_watch);
    loop_fd_remove(io.udp_watch);
    close(io.listen_fd);
    if (io.udp >= 0)
        close(io.udp);
    unlink(argv[1]);
    loop_signal_remove(term);
    loop_timer_free(io.timer);
    tunnel_free(io.t);
    map_done(&io.taps);
    sb_done(&io.in);
    loop_free(io.loop);
    return 0;
}
