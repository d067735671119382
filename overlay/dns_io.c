/* The resolver's sockets: UDP and TCP on 127.0.0.11:53 inside each sandbox, opened while the thread is in its
 * namespace; the tunnel process keeps them, so that questions wait while a daemon is replaced. Names from outside are asked of the host's servers (resolv.conf, read again when it changes),
 * each in turn, over TCP when the answer is too long for UDP and the client came over TCP. */
#include "overlay_internal.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <shoal/base/log.h>
#include <shoal/base/rng.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

LOG_MODULE("dns");

/* One container's questions crowd out its own alone: what all may have open is more than sixteen that ask without pause. */
enum { PENDING_MAX = 1024, PENDING_EACH = 64, TCP_MAX = 128, TCP_EACH = 8, TRY_MS = 2000, SERVERS_MAX = 8, TCP_IDLE_MS = 10000,
       TCP_ANSWER_MAX = 65535 };

struct desk { /* of one sandbox */
    struct resolver *r;
    const struct sandbox *s;
    int udp, tcp;
    struct loop_fd *udp_watch, *tcp_watch;
    unsigned n_pending, n_clients;
};
struct pending { /* a question asked outside */
    struct list_node node;
    struct resolver *r;
    char sandbox_id[65];
    struct sockaddr_in from;
    struct tcp_client *client; /* NULL: UDP */
    uint8_t query[DNS_PACKET_MAX_BYTES];
    size_t size;
    int fd;
    struct loop_fd *watch;
    struct loop_timer *timer;
    unsigned server;
    bool over_tcp;
    struct sb answer; /* over TCP, as it comes */
};
struct tcp_client {
    struct list_node node;
    struct resolver *r;
    char sandbox_id[65];
    int fd;
    struct loop_fd *watch;
    struct loop_timer *timer;
    uint8_t in[DNS_PACKET_MAX_BYTES + 2];
    size_t n;
};
struct resolver {
    struct loop *loop;
    const struct plan_input *in;
    struct tunnel_client *keeper;
    struct map desks;
    struct list_node pending, clients;
    unsigned n_pending, n_clients;
    char *resolv_conf;
    struct server { struct sockaddr_storage addr; socklen_t len; } servers[SERVERS_MAX];
    unsigned n_servers;
    struct timespec servers_from;
};

static bool parse_server(const char *text, struct server *ret)
{
    struct sockaddr_in *a4 = (void *)&ret->addr;
    struct sockaddr_in6 *a6 = (void *)&ret->addr;
    *ret = (struct server){ .len = sizeof *a4 };
    a4->sin_family = AF_INET;
    a4->sin_port = htons(53);
    if (inet_pton(AF_INET, text, &a4->sin_addr) == 1)
        return true;
    *ret = (struct server){ .len = sizeof *a6 };
    a6->sin6_family = AF_INET6;
    a6->sin6_port = htons(53);
    return inet_pton(AF_INET6, text, &a6->sin6_addr) == 1;
}

static void read_servers(struct resolver *r)
{
    struct stat st;
    AUTO_FREE char *text = NULL;
    size_t size;
    if (stat(r->resolv_conf, &st) < 0 || (st.st_mtim.tv_sec == r->servers_from.tv_sec &&
                                          st.st_mtim.tv_nsec == r->servers_from.tv_nsec && r->n_servers))
        return;
    r->servers_from = st.st_mtim;
    r->n_servers = 0;
    if (file_read(r->resolv_conf, 65536, &text, &size, NULL) < 0)
        return;
    for (char *line = text; line && *line;) {
        char addr[64];
        char *nl = strchr(line, '\n');
        if (r->n_servers < SERVERS_MAX && sscanf(line, "nameserver %63s", addr) == 1 &&
            parse_server(addr, &r->servers[r->n_servers]))
            r->n_servers++;
        line = nl ? nl + 1 : NULL;
    }
}

static bool server_for(struct resolver *r, const struct sandbox *s, unsigned k, struct server *ret)
{
    if (s->nameservers.n)
        return k < s->nameservers.n && parse_server(s->nameservers.v[k], ret);
    if (s->internal)
        return false; /* no way out means none through questions either (CVE-2024-29018) */
    read_servers(r);
    if (k >= r->n_servers)
        return false;
    *ret = r->servers[k];
    return true;
}

static void client_free(struct tcp_client *c)
{
    struct desk *d = map_find(&c->r->desks, c->sandbox_id);
    if (d)
        d->n_clients--;
    list_remove(&c->node);
    c->r->n_clients--;
    loop_fd_remove(c->watch);
    loop_timer_free(c->timer);
    close(c->fd);
    free(c);
}

static void hang_up(struct pending *p)
{
    loop_fd_remove(p->watch);
    p->watch = NULL;
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    sb_reset(&p->answer);
}

static void pending_free(struct pending *p)
{
    struct desk *d = map_find(&p->r->desks, p->sandbox_id);
    if (d)
        d->n_pending--;
    list_remove(&p->node);
    p->r->n_pending--;
    hang_up(p);
    sb_done(&p->answer);
    loop_timer_free(p->timer);
    free(p);
}

static void reply_tcp(struct tcp_client *c, const uint8_t *p, size_t size)
{
    uint8_t head[2] = { (uint8_t)(size >> 8), (uint8_t)size };
    struct iovec iov[] = { { head, sizeof head }, { (void *)(uintptr_t)p, size } };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = ARRAY_N(iov) };
    if (sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size + 2)
        shutdown(c->fd, SHUT_RDWR);
}

static void reply(struct pending *p, const uint8_t *answer, size_t size)
{
    struct desk *d = map_find(&p->r->desks, p->sandbox_id);
    if (p->client)
        reply_tcp(p->client, answer, size);
    else if (d && sendto(d->udp, answer, size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&p->from, sizeof p->from) < 0)
        log_debug("answer lost: %d", errno);
}

static void on_outside_udp(void *arg, unsigned events);
static void on_outside_tcp(void *arg, unsigned events);

static bool ask_server(struct pending *p, const struct server *to)
{
    int type = p->over_tcp ? SOCK_STREAM : SOCK_DGRAM;
    p->fd = socket(to->addr.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (p->fd < 0 || (connect(p->fd, (const struct sockaddr *)&to->addr, to->len) < 0 && errno != EINPROGRESS))
        return false;
    if (p->over_tcp) {
        p->watch = loop_fd_add(p->r->loop, p->fd, LOOP_WRITE, on_outside_tcp, p);
        return true;
    }
    p->watch = loop_fd_add(p->r->loop, p->fd, LOOP_READ, on_outside_udp, p);
    return send(p->fd, p->query, p->size, MSG_NOSIGNAL) >= 0;
}

/* Asks the next server; without one left the client is told. */
static void ask_next(void *arg)
{
    struct pending *p = arg;
    struct desk *d = map_find(&p->r->desks, p->sandbox_id);
    struct server to;
    uint8_t out[DNS_PACKET_MAX_BYTES];
    hang_up(p);
    if (d && server_for(p->r, d->s, p->server++, &to)) {
        loop_timer_set(p->timer, ask_server(p, &to) ? TRY_MS : 0);
        return;
    }
    long n = dns_fail(p->query, p->size, out, sizeof out);
    if (n > 0)
        reply(p, out, (size_t)n);
    pending_free(p);
}

static void on_outside_udp(void *arg, unsigned events)
{
    struct pending *p = arg;
    uint8_t in[DNS_PACKET_MAX_BYTES];
    (void)events;
    ssize_t n = recv(p->fd, in, sizeof in, MSG_DONTWAIT);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            loop_timer_set(p->timer, 0);
        return;
    }
    if (n < 12 || memcmp(in, p->query, 2) != 0)
        return;
    if (p->client && in[2] & 0x02) { /* cut: the whole of it by TCP from the same server */
        p->over_tcp = true;
        p->server--;
        ask_next(p);
        return;
    }
    reply(p, in, (size_t)n);
    pending_free(p);
}

static void on_outside_tcp(void *arg, unsigned events)
{
    struct pending *p = arg;
    char in[4096];
    if (events & LOOP_WRITE) {
        uint8_t head[2] = { (uint8_t)(p->size >> 8), (uint8_t)p->size };
        struct iovec iov[] = { { head, sizeof head }, { p->query, p->size } };
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = ARRAY_N(iov) };
        if (sendmsg(p->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)p->size + 2)
            loop_fd_set(p->watch, LOOP_READ);
        else
            loop_timer_set(p->timer, 0);
        return;
    }
    ssize_t n = recv(p->fd, in, sizeof in, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        sb_add(&p->answer, in, (size_t)n);
    const uint8_t *a = (const uint8_t *)p->answer.s;
    size_t size = p->answer.len >= 2 ? (size_t)(a[0] << 8 | a[1]) : 0;
    if (size >= 12 && p->answer.len >= size + 2 && memcmp(a + 2, p->query, 2) == 0) {
        reply(p, a + 2, size);
        pending_free(p);
    } else if (n <= 0 || p->answer.overflow) {
        loop_fd_set(p->watch, 0);
        loop_timer_set(p->timer, 0);
    }
}

static void ask_outside(struct desk *d, const struct sockaddr_in *from, struct tcp_client *client, const uint8_t *query,
                        size_t size)
{
    struct resolver *r = d->r;
    struct pending *oldest = NULL; /* it has waited longest */
    if (d->n_pending >= PENDING_EACH)
        list_for(oldest, &r->pending, node)
            if (str_equal(oldest->sandbox_id, d->s->id))
                break;
    if (!oldest && r->n_pending >= PENDING_MAX)
        oldest = list_first(&r->pending, struct pending, node);
    if (oldest)
        pending_free(oldest);
    struct pending *p = xnew(struct pending);
    p->r = r;
    p->fd = -1;
    p->client = client;
    if (from)
        p->from = *from;
    snprintf(p->sandbox_id, sizeof p->sandbox_id, "%s", d->s->id);
    memcpy(p->query, query, size);
    p->size = size;
    sb_init(&p->answer, TCP_ANSWER_MAX + 2);
    p->timer = loop_timer_new(r->loop, ask_next, p);
    list_push_back(&r->pending, &p->node);
    r->n_pending++;
    d->n_pending++;
    ask_next(p);
}

static void on_udp(void *arg, unsigned events)
{
    struct desk *d = arg;
    uint8_t in[DNS_PACKET_MAX_BYTES], out[DNS_PACKET_MAX_BYTES];
    (void)events;
    for (int i = 0; i < 64; i++) {
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(d->udp, in, sizeof in, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
        if (n < 0)
            return;
        long m = dns_answer(d->r->in, d->s, in, (size_t)n, out, DNS_UDP_BYTES);
        if (m == 0)
            ask_outside(d, &from, NULL, in, (size_t)n);
        else if (m > 0 && sendto(d->udp, out, (size_t)m, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&from, len) < 0)
            log_debug("answer lost: %d", errno);
    }
}

static void on_client_idle(void *arg)
{
    struct tcp_client *c = arg;
    struct pending *p;
    list_for(p, &c->r->pending, node)
        if (p->client == c)
            pending_free(p);
    client_free(c);
}

static void on_client(void *arg, unsigned events)
{
    struct tcp_client *c = arg;
    uint8_t out[TCP_ANSWER_MAX];
    (void)events;
    ssize_t n = recv(c->fd, c->in + c->n, sizeof c->in - c->n, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct desk *d = map_find(&c->r->desks, c->sandbox_id);
    if (n <= 0 || !d) {
        on_client_idle(c);
        return;
    }
    c->n += (size_t)n;
    for (;;) {
        size_t size = c->n >= 2 ? (size_t)(c->in[0] << 8 | c->in[1]) : 0;
        if (size > DNS_PACKET_MAX_BYTES) {
            on_client_idle(c);
            return;
        }
        if (c->n < 2 || c->n < size + 2)
            return;
        long m = dns_answer(c->r->in, d->s, c->in + 2, size, out, sizeof out);
        if (m > 0)
            reply_tcp(c, out, (size_t)m);
        else if (m == 0)
            ask_outside(d, NULL, c, c->in + 2, size);
        memmove(c->in, c->in + size + 2, c->n - size - 2);
        c->n -= size + 2;
    }
}

static void on_connect(void *arg, unsigned events)
{
    struct desk *d = arg;
    (void)events;
    int fd = accept4(d->tcp, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (d->n_clients >= TCP_EACH || d->r->n_clients >= TCP_MAX) {
        close(fd);
        return;
    }
    struct tcp_client *c = xnew(struct tcp_client);
    c->r = d->r;
    c->fd = fd;
    snprintf(c->sandbox_id, sizeof c->sandbox_id, "%s", d->s->id);
    c->watch = loop_fd_add(d->r->loop, fd, LOOP_READ, on_client, c);
    c->timer = loop_timer_new(d->r->loop, on_client_idle, c);
    loop_timer_set(c->timer, TCP_IDLE_MS);
    list_push_back(&d->r->clients, &c->node);
    d->r->n_clients++;
    d->n_clients++;
}

static int open_sockets(int ret[2], struct err *e)
{
    int one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(0x7f00000b) };
    AUTO_CLOSE int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    AUTO_CLOSE int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (tcp >= 0)
        setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (udp < 0 || tcp < 0 || bind(udp, (struct sockaddr *)&a, sizeof a) < 0 ||
        bind(tcp, (struct sockaddr *)&a, sizeof a) < 0 || listen(tcp, 16) < 0)
        return err_errno(e, errno, "resolver of the container on 127.0.0.11:53");
    ret[0] = udp;
    ret[1] = tcp;
    udp = tcp = -1;
    return 0;
}

int resolver_open(struct resolver *r, const struct sandbox *s, struct err *e)
{
    int fds[2];
    if (!tunnel_client_found(r->keeper, s->id, fds) && open_sockets(fds, e) < 0)
        return -e->code;
    tunnel_client_keep(r->keeper, s->id, fds);
    struct desk *d = xnew(struct desk);
    d->r = r;
    d->s = s;
    d->udp = fds[0];
    d->tcp = fds[1];
    d->udp_watch = loop_fd_add(r->loop, d->udp, LOOP_READ, on_udp, d);
    d->tcp_watch = loop_fd_add(r->loop, d->tcp, LOOP_READ, on_connect, d);
    map_put(&r->desks, s->id, d);
    return 0;
}

static void desk_close(struct resolver *r, const char *sandbox_id)
{
    struct desk *d = map_remove(&r->desks, sandbox_id);
    struct pending *p;
    struct tcp_client *c;
    if (!d)
        return;
    list_for(p, &r->pending, node)
        if (str_equal(p->sandbox_id, sandbox_id))
            pending_free(p);
    list_for(c, &r->clients, node)
        if (str_equal(c->sandbox_id, sandbox_id))
            client_free(c);
    loop_fd_remove(d->udp_watch);
    loop_fd_remove(d->tcp_watch);
    close(d->udp);
    close(d->tcp);
    free(d);
}

void resolver_close(struct resolver *r, const char *sandbox_id)
{
    tunnel_client_unkeep(r->keeper, sandbox_id);
    desk_close(r, sandbox_id);
}

bool resolver_is_open(const struct resolver *r, const char *sandbox_id)
{
    return map_find(&r->desks, sandbox_id) != NULL;
}

struct resolver *resolver_new(struct loop *l, const struct plan_input *in, struct tunnel_client *keeper, const char *resolv_conf)
{
    struct resolver *r = xnew(struct resolver);
    r->loop = l;
    r->in = in;
    r->keeper = keeper;
    r->resolv_conf = xstrdup(resolv_conf);
    map_init(&r->desks);
    list_init(&r->pending);
    list_init(&r->clients);
    return r;
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    for (struct map_item *it = NULL; (it = map_next(&r->desks, it));) {
        AUTO_FREE char *id = xstrdup(it->key);
        desk_close(r, id);
    }
    map_done(&r->desks);
    free(r->resolv_conf);
    free(r);
}
