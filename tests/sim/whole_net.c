/* The network: datagrams and TCP between machines. A part of the network that is cut loses datagrams and holds TCP's
 * bytes until it heals, as retransmission does; a daemon that was killed leaves its kernel to say so; a machine without
 * power says nothing, and resets the connections of before once it is back. */
#define WHOLE_SHIM
#include "whole.h"
#include "whole_calls.h"

#include <errno.h>
#include <linux/errqueue.h>

enum { AGAIN_MS = 200, SYN_AGAIN_MS = 1000, HIGH_BYTES = 64 << 10, PIECE_BYTES = 64 << 10, FD_BASE = 1 << 21, LINGER_MS = 10000 };

struct side {
    struct conn *c;
    struct host *host;
    struct stream *s; /* NULL: this end is closed */
    struct sb out;    /* on its way to the other */
    bool fin, told_eof, told_error, paused, was_high, due, vanished; /* vanished: its machine lost power */
    int64_t closed;   /* when */
};

struct conn {
    unsigned n;
    bool up;
    uint16_t port;
    struct side side[2]; /* the first one called */
};

static int64_t latency(void)
{
    return (int64_t)pick(S_NET, 50, 1500) * 1000 + g.slow;
}

static struct host *host_at(const char *addr)
{
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (str_equal(g.hosts[i].addr, addr))
            return &g.hosts[i];
    return NULL;
}

/* ---- TCP ---- */
static struct side *other(struct side *x)
{
    return &x->c->side[x == &x->c->side[0]];
}

static struct side *side_of(const struct event *e)
{
    struct conn *c = g.conns[e->a];
    return c ? &c->side[e->b] : NULL;
}

static void end_if_over(struct conn *c)
{
    if (c->side[0].s || c->side[1].s)
        return;
    g.conns[c->n] = NULL;
    sb_done(&c->side[0].out);
    sb_done(&c->side[1].out);
    free(c);
}

static void post(struct side *x, int64_t delay, void (*fn)(struct event *))
{
    push(NULL, delay, fn, x->c->n, x == &x->c->side[1]);
}

static void flow(struct event *e);

static void want_flow(struct side *x, int64_t delay)
{
    if (x->due || !x->c->up)
        return;
    x->due = true;
    post(x, delay, flow);
}

/* In the daemon of this end; it may have to wait for it to wake. */
static bool come_in(struct side *x, void (*again)(struct event *))
{
    if (x->host->paused) {
        post(x, x->host->resume - g.now + 1, again);
        return false;
    }
    enter(x->host);
    return true;
}

static void break_off(struct event *e)
{
    struct side *x = side_of(e);
    struct err err;
    if (!x || !x->s || x->told_error || !come_in(x, break_off))
        return;
    x->told_error = true;
    err_errno(&err, x->c->up ? ECONNRESET : ECONNREFUSED, x->c->up ? "connection" : "connect");
    sb_reset(&x->out);
    struct host *h = x->host;
    stream_got_error(x->s, &err);
    leave(h);
}

static void drained(struct event *e)
{
    struct side *x = side_of(e);
    if (!x || !x->s || !come_in(x, drained))
        return;
    struct host *h = x->host;
    stream_got_drain(x->s);
    leave(h);
}

/* What this end sent goes on, as far as it can. */
static void flow(struct event *e)
{
    struct side *from = side_of(e), *to = from ? other(from) : NULL;
    if (!from)
        return;
    from->due = false;
    if (from->vanished)
        return;
    if (is_cut(from->host, to->host)) {
        if (from->s || g.now - from->closed < LINGER_MS * MS)
            want_flow(from, AGAIN_MS * MS);
        return;
    }
    if (to->vanished || (!to->s && from->out.len)) { /* nobody knows of it there */
        if (from->s)
            post(from, latency(), break_off);
        sb_reset(&from->out);
        return;
    }
    if (!to->s || to->paused)
        return;
    if (to->host->paused) {
        want_flow(from, to->host->resume - g.now + 1);
        return;
    }
    struct conn *c = from->c;
    unsigned n = c->n;
    struct host *h = to->host;
    uint64_t life = h->life;
    enter(h);
    if (from->out.len) {
        size_t size = MIN(from->out.len, (size_t)PIECE_BYTES);
        char *piece = xmemdup(from->out.s, size);
        sb_drop_front(&from->out, size);
        mix(size);
        g.n_messages++;
        stream_got_data(to->s, piece, size);
        free(piece);
    }
    if (g.conns[n] && from->was_high && from->out.len < HIGH_BYTES) {
        from->was_high = false;
        post(from, latency(), drained);
    }
    if (g.conns[n] && to->s && !from->out.len && from->fin && !to->told_eof) {
        to->told_eof = true;
        stream_got_eof(to->s);
    }
    if (h->life == life)
        leave(h);
    if (g.conns[n] && from->out.len)
        want_flow(from, 20000);
}

static void op_write(void *impl, const void *p, size_t size)
{
    struct side *x = impl;
    if (x->told_error || x->fin || x->host->dying)
        return;
    sb_add(&x->out, p, size);
    x->was_high |= x->out.len >= HIGH_BYTES;
    want_flow(x, latency());
}

static size_t op_queued(void *impl)
{
    return ((struct side *)impl)->out.len;
}

static void op_close_write(void *impl)
{
    struct side *x = impl;
    if (!x->fin)
        want_flow(x, latency());
    x->fin = true;
}

static void op_pause(void *impl, bool paused)
{
    struct side *x = impl;
    x->paused = paused;
    if (!paused)
        want_flow(other(x), 20000);
}

static void op_free(void *impl, bool when_sent)
{
    struct side *x = impl;
    (void)when_sent; /* what was written is the kernel's */
    x->s = NULL;
    x->fin = true;
    x->closed = g.now;
    x->vanished = x->host->dying == POWER_LOST;
    if (other(x)->s && x->c->up)
        want_flow(x, latency());
    end_if_over(x->c);
}

static const struct stream_ops tcp_ops = { op_write, op_queued, op_close_write, op_pause, op_free };

static void side_open(struct conn *c, unsigned which, struct host *h)
{
    struct side *x = &c->side[which];
    *x = (struct side){ .c = c, .host = h, .s = stream_new(h->loop, &tcp_ops, x) };
    sb_init(&x->out, 0);
}

struct stream_listener {
    struct host *host;
    stream_accept_fn *fn;
    void *arg;
};

static void is_up(struct event *e)
{
    struct side *x = side_of(e);
    if (!x)
        return;
    x->c->up = true;
    want_flow(other(x), 0);
    if (x->out.len || x->fin)
        want_flow(x, 0);
    drained(e);
}

static void syn(struct event *e)
{
    struct side *x = side_of(e);
    if (!x || !x->s)
        return;
    struct conn *c = x->c;
    struct host *h = c->side[1].host;
    if (!h || is_cut(x->host, h)) {
        post(x, SYN_AGAIN_MS * MS, syn);
        return;
    }
    if (!h->listener || c->port != PORT) {
        post(x, latency(), break_off);
        return;
    }
    if (h->paused) {
        post(x, h->resume - g.now + 1, syn);
        return;
    }
    struct stream_listener *l = h->listener;
    enter(h);
    side_open(c, 1, h);
    unsigned n = c->n;
    l->fn(l->arg, c->side[1].s);
    leave(h);
    if (g.conns[n])
        post(x, latency(), is_up);
}

struct stream *stream_connect_tcp(struct loop *l, const char *addr, uint16_t port)
{
    struct conn *c = xnew(struct conn);
    if (g.n_conns == g.cap_conns) {
        g.cap_conns = g.cap_conns ? 2 * g.cap_conns : 64;
        g.conns = xrealloc(g.conns, g.cap_conns, sizeof *g.conns);
    }
    c->n = g.n_conns;
    g.conns[g.n_conns++] = c;
    c->port = port;
    side_open(c, 0, l->host);
    c->side[1] = (struct side){ .c = c, .host = host_at(addr) };
    sb_init(&c->side[1].out, 0);
    post(&c->side[0], latency(), syn);
    return c->side[0].s;
}

int stream_listen_tcp(struct loop *l, const char *addr, uint16_t port, stream_accept_fn *fn, void *arg,
                      struct stream_listener **ret, struct err *e)
{
    struct stream_listener *sl = xnew(struct stream_listener);
    (void)addr, (void)port, (void)e;
    *sl = (struct stream_listener){ l->host, fn, arg };
    *ret = l->host->listener = sl;
    return 0;
}

void stream_listener_pause(struct stream_listener *sl, bool paused) /* there are never so many */
{
    (void)sl, (void)paused;
}

void stream_listener_free(struct stream_listener *sl)
{
    if (sl)
        sl->host->listener = NULL;
    free(sl);
}

void net_crash(struct host *h)
{
    for (unsigned i = 0; i < g.n_conns; i++)
        for (unsigned k = 0; k < 2 && g.conns[i]; k++)
            if (g.conns[i]->side[k].host == h)
                stream_free(g.conns[i]->side[k].s);
}

void net_free(void)
{
    for (unsigned i = 0; i < g.n_conns; i++)
        CHECK(!g.conns[i], "a connection is left");
    free(g.conns);
}

/* ---- UDP: one socket a daemon ---- */
struct loop_fd {
    struct host *host;
    loop_fd_fn *fn;
    void *arg;
};

struct loop_fd *loop_fd_add(struct loop *l, int fd, unsigned events, loop_fd_fn *fn, void *arg)
{
    struct loop_fd *w = xnew(struct loop_fd);
    CHECK(fd == FD_BASE + (int)l->host->n && events == LOOP_READ, "a watch of descriptor %d", fd);
    *w = (struct loop_fd){ l->host, fn, arg };
    return l->host->udp = w;
}

void loop_fd_remove(struct loop_fd *w)
{
    if (w)
        w->host->udp = NULL;
    free(w);
}

int whole_socket(int family, int type, int protocol)
{
    (void)family, (void)type, (void)protocol;
    return FD_BASE + (int)g.self->n;
}

int whole_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    (void)fd, (void)level, (void)name, (void)value, (void)size;
    return 0;
}

int whole_bind(int fd, const struct sockaddr *a, socklen_t size)
{
    (void)fd, (void)a, (void)size;
    return 0;
}

int whole_close(int fd)
{
    struct host *h = g.self;
    CHECK(fd == FD_BASE + (int)h->n, "descriptor %d is closed", fd);
    while (h->n_inbox)
        free(h->inbox[--h->n_inbox].bytes);
    while (h->n_refused)
        free(h->refused[--h->n_refused].bytes);
    return 0;
}

static void address_of(const struct host *h, struct sockaddr_in6 *a)
{
    AUTO_FREE char *text = xasprintf("::ffff:%s", h->addr);
    *a = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(GOSSIP_PORT) };
    inet_pton(AF_INET6, text, &a->sin6_addr);
}

static struct host *host_of(const struct sockaddr *to)
{
    struct sockaddr_in6 a;
    for (unsigned i = 0; i < g.n_hosts; i++) {
        address_of(&g.hosts[i], &a);
        if (!memcmp(&a.sin6_addr, &((const struct sockaddr_in6 *)(const void *)to)->sin6_addr, 16))
            return &g.hosts[i];
    }
    return NULL;
}

/* Where nobody listens the kernel says so, with the packet. */
static void come_back(struct event *e)
{
    struct host *h = &g.hosts[e->a];
    if (!h->udp || is_cut(&g.hosts[e->b], h) || h->n_refused == ARRAY_N(h->refused))
        return;
    h->refused[h->n_refused++] = (struct datagram){ TAKE(e->bytes), e->size, (unsigned)e->b };
    if (h->paused)
        return;
    enter(h);
    h->udp->fn(h->udp->arg, LOOP_READ);
    leave(h);
}

static void arrive(struct event *e)
{
    struct host *h = &g.hosts[e->a], *from = &g.hosts[e->b];
    if (is_cut(from, h) || h->n_inbox == ARRAY_N(h->inbox))
        return;
    mix(e->size);
    g.n_messages++;
    if (!h->udp) {
        struct event *back = push(NULL, latency(), come_back, from->n, h->n);
        back->bytes = TAKE(e->bytes);
        back->size = e->size;
        return;
    }
    h->inbox[h->n_inbox++] = (struct datagram){ TAKE(e->bytes), e->size, from->n };
    if (h->paused || h->n_inbox > 1)
        return; /* the kernel keeps it; or somebody is on his way */
    enter(h);
    h->udp->fn(h->udp->arg, LOOP_READ);
    leave(h);
}

static void read_inbox(struct event *e)
{
    struct host *h = e->host;
    if (h->udp && (h->n_inbox || h->n_refused))
        h->udp->fn(h->udp->arg, LOOP_READ);
}

void net_wake(struct host *h)
{
    push(h, 0, read_inbox, 0, 0);
}

ssize_t whole_sendto(int fd, const void *p, size_t size, int flags, const struct sockaddr *to, socklen_t to_size)
{
    struct host *from = g.self, *h = host_of(to);
    (void)fd, (void)flags, (void)to_size;
    if (from->dying || !h)
        return (ssize_t)size;
    for (unsigned copies = chance(S_NET, g.loss) ? 0 : 1 + chance(S_NET, g.loss / 4); copies; copies--) {
        struct event *e = push(NULL, latency() + (chance(S_NET, g.loss) ? some_ms(S_NET, 1, 400) : 0), arrive, h->n, from->n);
        e->bytes = xmemdup(p, size);
        e->size = size;
    }
    if (g.loss && has_kind(K_old) && chance(S_NET, 3)) { /* comes when its time is long over, maybe to another daemon */
        struct event *e = push(NULL, some_ms(S_NET, 1000, 60000), arrive, h->n, from->n);
        e->bytes = xmemdup(p, size);
        e->size = size;
        g.n_old++;
    }
    return (ssize_t)size;
}

/* The oldest of a queue; its size, or -1 when there is none. */
static ssize_t take(struct datagram *v, unsigned *n, void *out, size_t size, struct sockaddr_in6 *peer)
{
    if (!*n) {
        errno = EAGAIN;
        return -1;
    }
    struct datagram d = v[0];
    memmove(v, v + 1, --*n * sizeof *v);
    size = MIN(size, d.size);
    memcpy(out, d.bytes, size);
    free(d.bytes);
    address_of(&g.hosts[d.peer], peer);
    return (ssize_t)size;
}

ssize_t whole_recvfrom(int fd, void *p, size_t size, int flags, struct sockaddr *from, socklen_t *from_size)
{
    (void)fd, (void)flags;
    *from_size = sizeof(struct sockaddr_in6);
    return take(g.self->inbox, &g.self->n_inbox, p, size, (struct sockaddr_in6 *)(void *)from);
}

ssize_t whole_recvmsg(int fd, struct msghdr *m, int flags)
{
    struct sockaddr_in6 by;
    struct sock_extended_err ee = { .ee_errno = ECONNREFUSED, .ee_origin = SO_EE_ORIGIN_ICMP };
    (void)fd;
    CHECK(flags & MSG_ERRQUEUE, "recvmsg without MSG_ERRQUEUE");
    ssize_t n = take(g.self->refused, &g.self->n_refused, m->msg_iov[0].iov_base, m->msg_iov[0].iov_len, &by);
    if (n < 0)
        return n;
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    *c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof ee + sizeof by), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_RECVERR };
    memcpy(CMSG_DATA(c), &ee, sizeof ee);
    memcpy(CMSG_DATA(c) + sizeof ee, &by, sizeof by);
    m->msg_controllen = CMSG_SPACE(sizeof ee + sizeof by);
    memcpy(m->msg_name, &by, sizeof by);
    return n;
}
