/* The tunnel process: the core of tunnel.c over a UDP socket, TAP devices and the daemon's unix socket. One thread. System
 * calls are few for what they carry: super-packets by the TAP's vnet header, runs of packets to and from one address by
 * UDP_SEGMENT and UDP_GRO, several of them by sendmmsg and recvmmsg. What a kernel or device does not offer is found out by
 * asking, or by its refusal, and done without. A batch ends when there is nothing more to read: it never waits to be full.
 *
 * TAPs are read in turns, as fast as they fill, into a queue that is fair to flows (fair.h). In each turn of the loop a slice
 * of it is sent, and one of what the socket has is opened: a small packet waits for a slice, not for all that others have
 * queued. */
#include "fair.h"
#include "kept.h"
#include "wire.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <shoal/base/log.h>
#include <shoal/base/map.h>
#include <shoal/loop.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

LOG_MODULE("tunnel");

#ifndef TUN_F_USO4 /* headers before Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
enum {
    QUEUE_BYTES = 1 << 20, READ_BYTES = QUEUE_BYTES /* of all TAPs in a turn: many slices, and no more than is kept of it */,
    READ_QUANTUM_BYTES = 65536 /* of one TAP, then it is the next one's turn */, READ_COST_MIN_BYTES = 4096 /* of a system call */,
    TICK_MS = 250, HEAD_BYTES = 5, RESERVED_FDS = 256,
    SLICE_BYTES = 125000 /* as messages cost: two super-packets, where they go whole. It fits beside what may wait, WIRE_ROOM_BYTES */,
    MESSAGE_COST_BYTES = 1000 /* that the kernel counts at most, about, beside a message's own */,
    MESSAGES = 64, SEGMENTS = 64 /* of a message: UDP_MAX_SEGMENTS before Linux 6.9 */, MESSAGE_BYTES = 65000,
    OUT_BYTES = 8 * 65536,
    IN_BUFFER_BYTES = 8 << 20, IN_MESSAGES = 4, IN_BYTES = 65536, IN_SLICE_BYTES = 4 * IN_BYTES, IN_SLICE_MESSAGES = 16,
    TUN_CSUM = TUN_F_CSUM, TUN_TSO = TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN, TUN_USO = TUN_F_USO4 | TUN_F_USO6,
};

struct tap {
    struct io *io;
    uint32_t vni;
    int fd;
    struct loop_fd *watch;
    struct list_node readable; /* in the list of those */
    bool vnet;
    unsigned takes;
    uint64_t n_refused;
};
struct message { /* packets to one receiver, equally long but for the last one */
    struct endpoint to;
    size_t at, size, segment;
    unsigned n;
};
struct io {
    struct loop *loop;
    struct tunnel *t;
    int listen_fd, daemon_fd, udp;
    struct loop_fd *listen_watch, *daemon_watch, *udp_watch, *room_watch;
    struct loop_timer *timer, *stall_timer;
    struct sb in;
    int pending_fds[TUNNEL_KEPT_FDS]; /* came with the frame being read */
    uint32_t files_max;  /* descriptors that this process may have */
    struct map kept;     /* name -> struct kept: what is open for a daemon that is away */
    struct map taps;     /* 4 bytes of VNI -> struct tap */
    struct list_node readable; /* of them, in the order of their turns */
    char listen_addr[64];
    uint16_t port;
    bool no_offloads;    /* of TAPs: wanted so */
    struct fair *fair;   /* what TAPs gave */
    struct wire wire;
    size_t room;         /* that the socket was told */
    bool more;           /* the queue holds something still: room_watch makes another turn when the socket has room */
    bool stalled;        /* stall_timer makes another one, whether it has room or not */
    /* packets to be sent at the end of the turn */
    size_t cost;     /* of those made in this turn */
    uint64_t n_lost; /* packets that the socket or the wire refused */
    bool no_gso; /* the device cannot: EIO was the answer */
    struct message out[MESSAGES];
    unsigned n_out;
    size_t out_used;
    uint8_t out_bytes[OUT_BYTES];
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
static void fill_message(struct msghdr *m, struct sockaddr_storage *to, struct iovec *iov, char control[CMSG_SPACE(2)],
                         uint16_t segment)
{
    *m = (struct msghdr){ .msg_name = to, .msg_namelen = sizeof(struct sockaddr_in6), .msg_iov = iov, .msg_iovlen = 1 };
    if (!segment)
        return;
    memset(control, 0, CMSG_SPACE(2));
    m->msg_control = control;
    m->msg_controllen = CMSG_SPACE(2);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    *c = (struct cmsghdr){ .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(2) };
    memcpy(CMSG_DATA(c), &segment, sizeof segment);
}

/* A message was refused: the device has no such offload, or the packets are longer than the path's MTU. */
static void send_singly(struct io *io, const struct message *o, struct sockaddr_storage *to, int error)
{
    if (error == EIO) {
        io->no_gso = true;
        log_info("the device takes no batches of UDP packets (no checksum offload); sending them one by one");
    }
    for (size_t at = 0; at < o->size; at += o->segment) {
        struct iovec iov = { io->out_bytes + o->at + at, MIN(o->segment, o->size - at) };
        struct msghdr m;
        fill_message(&m, to, &iov, NULL, 0);
        if (sendmsg(io->udp, &m, MSG_DONTWAIT) >= 0)
            continue;
        log_debug("packet lost: %d", errno);
        io->n_lost++;
    }
}

static void flush(struct io *io)
{
    struct mmsghdr m[MESSAGES];
    struct iovec iov[MESSAGES];
    struct sockaddr_storage to[MESSAGES];
    char control[MESSAGES][CMSG_SPACE(2)] __attribute__((aligned(8)));
    for (unsigned i = 0; i < io->n_out; i++) {
        const struct message *o = &io->out[i];
        to_sockaddr(&o->to, &to[i]);
        iov[i] = (struct iovec){ io->out_bytes + o->at, o->size };
        fill_message(&m[i].msg_hdr, &to[i], &iov[i], control[i], o->n > 1 ? (uint16_t)o->segment : 0);
    }
    for (unsigned at = 0; at < io->n_out && io->udp >= 0;) {
        int sent = sendmmsg(io->udp, m + at, io->n_out - at, MSG_DONTWAIT), error = errno;
        if (sent > 0)
            at += (unsigned)sent;
        if (sent > 0 || error == EINTR)
            continue;
        if (io->out[at].n > 1 && (error == EIO || error == EINVAL || error == EMSGSIZE)) /* the latter by newer kernels */
            send_singly(io, &io->out[at], &to[at], error);
        else
            io->n_lost += io->out[at].n; /* full or refused: lost, as on any wire */
        at++;
    }
    io->n_out = 0;
    io->out_used = 0;
}

static uint8_t *on_room(void *arg, size_t size)
{
    struct io *io = arg;
    ASSERT(size <= OUT_BYTES);
    if (io->n_out == MESSAGES || io->out_used + size > OUT_BYTES)
        flush(io);
    return io->out_bytes + io->out_used;
}

static void on_send(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    struct io *io = arg;
    uint8_t *at = on_room(io, size); /* it was asked for: then nothing moves */
    if (p != at)
        memcpy(at, p, size);
    io->out_used += size;
    io->cost += size;
    struct message *o = io->n_out ? &io->out[io->n_out - 1] : NULL;
    if (o && !io->no_gso && size <= o->segment && o->size == o->n * o->segment && o->n < SEGMENTS && o->size + size <= MESSAGE_BYTES &&
        memcmp(&o->to, to, sizeof *to) == 0) {
        o->size += size;
        o->n++;
        return;
    }
    io->cost += MESSAGE_COST_BYTES;
    io->out[io->n_out++] = (struct message){ .to = *to, .at = (size_t)(at - io->out_bytes), .size = size, .segment = size, .n = 1 };
}

static bool on_frame(void *arg, uint32_t vni, const struct frame_meta *f, struct iovec *iov, unsigned n)
{
    struct io *io = arg;
    struct tap *tap = map_find_n(&io->taps, &vni, sizeof vni);
    struct virtio_net_hdr h = { .flags = f->flags, .gso_type = f->gso_type, .hdr_len = f->hdr_len, .gso_size = f->gso_size,
                                .csum_start = f->csum_start, .csum_offset = f->csum_offset };
    if (!tap)
        return true;
    iov[0] = (struct iovec){ &h, sizeof h };
    ssize_t r = tap->vnet ? writev(tap->fd, iov, (int)n + 1) : writev(tap->fd, iov + 1, (int)n);
    if (r >= 0 || errno == EAGAIN || errno == EIO)
        return true;
    if (errno == EINVAL && f->gso_type) {
        if (!tap->n_refused++)
            log_warn("network %u: its TAP refused a super-packet of type %u, which is cut in the tunnel", vni, f->gso_type);
        return false;
    }
    log_warn("network %u: write to its TAP: error %d", vni, errno);
    return true;
}

/* ---- receiving ---- */
/* Packets of one message have this size, but for the last one. */
static size_t gro_size(struct msghdr *m, size_t size)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        int n;
        if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO)
            continue;
        memcpy(&n, CMSG_DATA(c), sizeof n);
        if (n > 0)
            return (size_t)n;
    }
    return MAX(size, (size_t)1);
}

static void on_udp(void *arg, unsigned events)
{
    static uint8_t bytes[IN_MESSAGES][IN_BYTES];
    static struct sockaddr_storage from[IN_MESSAGES];
    static char control[IN_MESSAGES][CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    struct io *io = arg;
    struct mmsghdr in[IN_MESSAGES];
    struct iovec iov[IN_MESSAGES];
    size_t done = 0;
    (void)events;
    for (unsigned n_done = 0; n_done < IN_SLICE_MESSAGES && done < IN_SLICE_BYTES; n_done += IN_MESSAGES) {
        for (int i = 0; i < IN_MESSAGES; i++) {
            iov[i] = (struct iovec){ bytes[i], IN_BYTES };
            in[i].msg_hdr = (struct msghdr){ .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &iov[i],
                                             .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = sizeof control[i] };
        }
        int n = recvmmsg(io->udp, in, IN_MESSAGES, MSG_DONTWAIT, NULL);
        if (n <= 0)
            break;
        int64_t now = clock_mono_ns() / MS_NS, real = clock_real_ns();
        for (int i = 0; i < n; i++) {
            struct endpoint e;
            size_t size = in[i].msg_len, step = gro_size(&in[i].msg_hdr, size);
            done += size;
            if (in[i].msg_hdr.msg_flags & MSG_TRUNC)
                continue;
            from_sockaddr(&from[i], &e);
            for (size_t at = 0; at < size; at += step)
                tunnel_packet(io->t, now, real, &e, bytes[i] + at, MIN(step, size - at));
        }
        tunnel_flush(io->t);
        if (n < IN_MESSAGES)
            break;
    }
    flush(io);
}

static void tap_free(struct tap *tap)
{
    map_remove_n(&tap->io->taps, &tap->vni, sizeof tap->vni);
    tunnel_tap(tap->io->t, tap->vni, 0);
    fair_drop(tap->io->fair, tap->vni); /* another network may have its number next */
    list_remove(&tap->readable);
    loop_fd_remove(tap->watch);
    close(tap->fd);
    free(tap);
}

/* A turn of one TAP. What it cost; *ret_more: it may have more. */
static size_t read_tap(struct tap *tap, bool *ret_more)
{
    struct io *io = tap->io;
    struct virtio_net_hdr h;
    size_t head = tap->vnet ? sizeof h : 0, cost = 0;
    *ret_more = true;
    while (cost < READ_QUANTUM_BYTES) {
        struct fair_frame *f = fair_blank(io->fair);
        uint8_t *p = fair_bytes(f) - head;
        ssize_t n = read(tap->fd, p, head + FAIR_FRAME_MAX_BYTES);
        cost += n > READ_COST_MIN_BYTES ? (size_t)n : READ_COST_MIN_BYTES;
        if (n >= (ssize_t)head) {
            f->vni = tap->vni;
            f->size = (size_t)n - head;
            f->meta = (struct frame_meta){ 0 };
            if (head) {
                memcpy(&h, p, sizeof h);
                f->meta = (struct frame_meta){ h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, h.gso_type, h.hdr_len, h.gso_size,
                                               h.csum_start, h.csum_offset };
            }
            fair_put(io->fair, f);
            continue;
        }
        fair_give_back(io->fair, f);
        if (n >= 0 || errno == EINVAL || errno == ENOMEM || errno == ENOBUFS)
            continue; /* a frame that cannot be told of; it is gone */
        *ret_more = false;
        if (errno != EAGAIN && errno != EINTR)
            tap_free(tap); /* the device was removed with its namespace */
        break;
    }
    return cost;
}

static void read_taps(struct io *io)
{
    struct tap *tap;
    bool more;
    for (size_t cost = 0; cost < READ_BYTES && (tap = list_first(&io->readable, struct tap, readable));) {
        list_remove(&tap->readable);
        cost += read_tap(tap, &more);
        if (more)
            list_push_back(&io->readable, &tap->readable);
    }
}

static void on_tap(void *arg, unsigned events)
{
    struct tap *tap = arg;
    (void)events;
    if (list_is_empty(&tap->readable))
        list_push_back(&tap->io->readable, &tap->readable);
}

/* ---- from TAPs to the wire ---- */
static void send_frames(struct io *io)
{
    int64_t now = clock_mono_ns() / MS_NS, real = clock_real_ns();
    struct fair_frame *f;
    io->cost = 0;
    while (io->cost < SLICE_BYTES && (f = fair_take(io->fair))) {
        tunnel_frame(io->t, now, real, f->vni, fair_bytes(f), f->size, &f->meta);
        fair_give_back(io->fair, f);
    }
    flush(io);
}

/* The socket is writable below half of what it takes, which is twice what is set. */
static void set_room(struct io *io)
{
    int out = (int)io->wire.room;
    if (setsockopt(io->udp, SOL_SOCKET, SO_SNDBUFFORCE, &out, sizeof out) < 0)
        setsockopt(io->udp, SOL_SOCKET, SO_SNDBUF, &out, sizeof out);
    io->room = io->wire.room;
}

static bool has_room(struct io *io)
{
    int waiting;
    if (ioctl(io->udp, SIOCOUTQ, &waiting) < 0)
        return true;
    bool has = wire_has_room(&io->wire, (size_t)waiting, clock_mono_ns() / MS_NS);
    if (io->room != io->wire.room)
        set_room(io);
    if (!has && !io->stalled) {
        io->stalled = true;
        loop_timer_set(io->stall_timer, WIRE_STALL_MS);
    }
    return has;
}

/* What the wire does not take yet waits in the queue, where flows have their turns, not in the socket, where they have
 * none. */
static void on_turn(void *arg)
{
    struct io *io = arg;
    read_taps(io);
    if (!fair_is_empty(io->fair) && has_room(io))
        send_frames(io);
    bool more = !fair_is_empty(io->fair);
    if (more != io->more && io->room_watch) {
        loop_fd_set(io->room_watch, more ? LOOP_WRITE : 0);
        io->more = more;
    }
}

static void on_stall(void *arg)
{
    struct io *io = arg;
    io->stalled = false; /* on_turn() follows */
}

static void on_socket_room(void *arg, unsigned events)
{
    (void)arg, (void)events; /* on_turn() follows */
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
    int off = 0, on = 1, in = IN_BUFFER_BYTES;
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
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &in, sizeof in) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &in, sizeof in);
    if (setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) < 0)
        log_info("this kernel joins no UDP packets when they are received (Linux 5.0 does); taking them one by one");
    loop_fd_remove(io->udp_watch);
    loop_fd_remove(io->room_watch);
    if (io->udp >= 0)
        close(io->udp);
    io->udp = fd;
    wire_init(&io->wire);
    set_room(io);
    io->udp_watch = loop_fd_add(io->loop, fd, LOOP_READ, on_udp, io);
    io->room_watch = loop_fd_add(io->loop, fd, io->more ? LOOP_WRITE : 0, on_socket_room, io);
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
        else
            tunnel_tap(io->t, tap->vni, tap->takes);
    }
    if (c.key.n)
        crypto_wipe(c.key.v, c.key.n);
    rec_clear(&tunnel_config_rec, &c);
    if (r < 0)
        log_error("configuration refused: %s", e.text);
}

/* Whether the device was made with a vnet header is for who made it to say (an older daemon makes it without); what the
 * kernel can then leave to us, and take from us, is found by asking for less and less. */
static void probe_tap(struct io *io, struct tap *tap)
{
    static const struct { unsigned flags, takes; } offers[] = {
        { TUN_CSUM | TUN_TSO | TUN_USO, TAP_CSUM | TAP_TSO | TAP_USO }, /* Linux 6.2 */
        { TUN_CSUM | TUN_TSO, TAP_CSUM | TAP_TSO },
        { TUN_CSUM, TAP_CSUM },
        { 0, 0 },
    };
    struct ifreq q = { 0 };
    int size = sizeof(struct virtio_net_hdr);
    unsigned i = io->no_offloads ? ARRAY_N(offers) - 1 : 0;
    tap->vnet = ioctl(tap->fd, TUNGETIFF, &q) == 0 && q.ifr_flags & IFF_VNET_HDR && ioctl(tap->fd, TUNSETVNETHDRSZ, &size) == 0;
    if (!tap->vnet) {
        log_info("network %u: its TAP has no vnet header (it was made by an older daemon): no offloads", tap->vni);
        return;
    }
    while (i < ARRAY_N(offers) - 1 && ioctl(tap->fd, TUNSETOFFLOAD, (unsigned long)offers[i].flags) < 0)
        i++;
    tap->takes = offers[i].takes;
    if (!io->no_offloads && i > 0)
        log_info("network %u: this kernel's TAP has %s", tap->vni,
                 i == 1 ? "no UDP segmentation (Linux 6.2 does)" : i == 2 ? "checksum offload alone" : "no offloads");
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
    list_init(&tap->readable);
    tap->fd = fd;
    probe_tap(io, tap);
    tunnel_tap(io->t, vni, tap->takes);
    tap->watch = loop_fd_add(io->loop, fd, LOOP_READ, on_tap, tap);
    map_put_n(&io->taps, &vni, sizeof vni, tap);
}

static void pending_drop(struct io *io)
{
    kept_close(io->pending_fds);
    memset(io->pending_fds, 0xff, sizeof io->pending_fds);
}

static void keep(struct io *io, const char *name, size_t size)
{
    uint32_t used = RESERVED_FDS + io->taps.n;
    uint32_t room = io->files_max > used ? (io->files_max - used) / TUNNEL_KEPT_FDS : 0; /* the next daemon must be accepted */
    kept_put(&io->kept, MIN(room, (uint32_t)TUNNEL_KEPT_MAX), name, size, io->pending_fds);
    memset(io->pending_fds, 0xff, sizeof io->pending_fds);
}

static void drop_daemon(struct io *io)
{
    loop_fd_remove(io->daemon_watch);
    io->daemon_watch = NULL;
    if (io->daemon_fd >= 0)
        close(io->daemon_fd);
    io->daemon_fd = -1;
    pending_drop(io);
    sb_reset(&io->in);
    io->in.overflow = false;
}

static void reply_status(struct io *io)
{
    static const char *const names[] = { "csum", "tso", "uso" }; /* TAP_... */
    struct tunnel_status s = { .pid = (uint64_t)getpid(), .offloads = true, .n_lost = fair_n_lost(io->fair) + io->n_lost };
    struct sb b;
    struct err e;
    tunnel_status(io->t, clock_mono_ns() / MS_NS, format_endpoint, &s);
    for (struct map_item *it = NULL; (it = map_next(&io->taps, it));) {
        const struct tap *tap = it->value;
        struct tunnel_tap_status *told = REC_ADD(&s.taps);
        told->vni = tap->vni;
        told->n_refused = tap->n_refused;
        for (unsigned i = 0; i < ARRAY_N(names); i++)
            if (tap->takes & 1u << i)
                strs_add(&told->takes, names[i]);
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

static size_t frame_bytes(const struct sb *in)
{
    const uint8_t *p = (const uint8_t *)in->s;
    return in->len < HEAD_BYTES ? HEAD_BYTES : 4 + ((size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
}

/* No read goes beyond the frame that has begun: descriptors are those of the frame whose head they come with. */
static void on_daemon(void *arg, unsigned events)
{
    struct io *io = arg;
    static char buf[65536];
    int fds[TUNNEL_KEPT_FDS] = { -1, -1 };
    unsigned n_fds = TUNNEL_KEPT_FDS;
    struct err e;
    (void)events;
    long n = fd_recv_with_fds(io->daemon_fd, buf, MIN(sizeof buf, frame_bytes(&io->in) - io->in.len), fds, &n_fds, NULL);
    if (n_fds) {
        pending_drop(io);
        memcpy(io->pending_fds, fds, sizeof fds);
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
            int tap = io->pending_fds[0];
            io->pending_fds[0] = -1;
            take_tap(io, p + HEAD_BYTES, size - 1, tap);
        } else if (p[4] == TUNNEL_KEEP) {
            keep(io, (const char *)p + HEAD_BYTES, size - 1);
        } else if (p[4] == TUNNEL_DROP) {
            kept_drop(&io->kept, (const char *)p + HEAD_BYTES, size - 1);
        } else if (p[4] == TUNNEL_KEPT) {
            if (kept_tell(&io->kept, io->daemon_fd, &e) < 0)
                shutdown(io->daemon_fd, SHUT_RDWR);
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
    struct pollfd before = { .fd = io->daemon_fd, .events = POLLIN };
    while (io->daemon_fd >= 0 && poll(&before, 1, 0) == 1) /* what one that has ended still said */
        on_daemon(io, 0);
    drop_daemon(io); /* the new one counts */
    struct timeval limit = { .tv_sec = 1 }; /* one that does not read must not hold up packets */
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
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

/* For tests and measurements: what a machine or a peer may lack. */
static bool parse_without(struct io *io, char **words, unsigned *ret_can)
{
    *ret_can = PEER_CAN_COMPACT | (crypto_gcm_usable() ? PEER_CAN_AES : 0);
    if (*words && !str_equal(*words++, "without"))
        return false;
    for (; *words; words++) {
        if (str_equal(*words, "offloads"))
            io->no_offloads = true;
        else if (str_equal(*words, "compact"))
            *ret_can = 0;
        else if (str_equal(*words, "aes"))
            *ret_can &= ~(unsigned)PEER_CAN_AES;
        else if (str_equal(*words, "vaes"))
            crypto_gcm_without_wide();
        else
            return false;
    }
    return true;
}

int tunnel_main(int argc, char **argv)
{
    static struct io io = { .listen_fd = -1, .daemon_fd = -1, .udp = -1, .pending_fds = { -1, -1 } };
    struct err e = { 0 };
    const struct tunnel_out out = { &io, on_room, on_send, on_frame };
    unsigned can;
    crypto_init();
    if (argc < 2 || argv[1][0] != '/' || !parse_without(&io, argv + 2, &can)) {
        fprintf(stderr, "usage: shoal tunnel /PATH/OF/SOCKET (the daemon starts it) [without offloads|compact|aes|vaes ...]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files; /* two a container are kept; who starts a daemon by hand has 1,024 mostly */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        io.files_max = (uint32_t)MIN(files.rlim_cur, (rlim_t)UINT32_MAX);
    }
    prctl(PR_SET_NAME, "shoal-tunnel", 0, 0, 0);
    io.listen_fd = listen_at(argv[1], &e);
    if (io.listen_fd < 0) {
        fprintf(stderr, "shoal tunnel: %s\n", e.text);
        return 1;
    }
    io.loop = loop_new();
    io.t = tunnel_new(&out, (uint8_t)can);
    sb_init(&io.in, TUNNEL_FRAME_MAX_BYTES + (1 << 20));
    map_init(&io.taps);
    map_init(&io.kept);
    list_init(&io.readable);
    io.fair = fair_new(QUEUE_BYTES);
    loop_each_turn(io.loop, on_turn, &io);
    io.listen_watch = loop_fd_add(io.loop, io.listen_fd, LOOP_READ, on_accept, &io);
    io.timer = loop_timer_new(io.loop, on_timer, &io);
    loop_timer_set(io.timer, TICK_MS);
    io.stall_timer = loop_timer_new(io.loop, on_stall, &io);
    struct loop_signal *term = loop_signal_add(io.loop, SIGTERM, (loop_fn *)loop_stop, io.loop);
    loop_run(io.loop);
    kept_done(&io.kept); /* first: who told it to go opens them anew */
    while (io.udp >= 0 && !fair_is_empty(io.fair) && has_room(&io)) /* the next process has nothing of it */
        send_frames(&io);
    for (struct map_item *it = NULL; (it = map_next(&io.taps, it));)
        tap_free(it->value);
    drop_daemon(&io);
    loop_fd_remove(io.listen_watch);
    loop_fd_remove(io.udp_watch);
    loop_fd_remove(io.room_watch);
    close(io.listen_fd);
    if (io.udp >= 0)
        close(io.udp);
    unlink(argv[1]);
    loop_signal_remove(term);
    loop_timer_free(io.timer);
    loop_timer_free(io.stall_timer);
    tunnel_free(io.t);
    fair_free(io.fair);
    map_done(&io.taps);
    sb_done(&io.in);
    loop_free(io.loop);
    return 0;
}
