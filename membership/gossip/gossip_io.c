/* Gossip over UDP: seals and opens packets, drives the core by a timer, hands state changes on at the end of the
 * turn (never from inside a call of the owner). */
#include "core.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

struct change { struct list_node node; char id[GOSSIP_ID_MAX + 1]; enum gossip_state state; };
struct gossip {
    struct loop *loop;
    struct gossip_core core;
    struct gossip_hooks hooks;
    struct gossip_key_ref keys[GOSSIP_KEYS_MAX];
    unsigned n_keys;
    int fd;
    struct loop_fd *watch;
    struct loop_timer *timer, *tell; /* tell: hands changes on */
    struct list_node changes;
    struct gossip_stats stats;
    unsigned goodbyes;
    loop_fn *left;
    void *left_arg;
};
enum { GOODBYES = 3, GOODBYE_MS = 20 };

static int64_t now_ms(void)
{
    return clock_mono_ns() / MS_NS;
}

/* One IPv6 socket for both families. */
static bool to_sockaddr(const char *addr, uint16_t port, struct sockaddr_in6 *ret)
{
    struct in_addr a4;
    *ret = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
    if (!addr || !*addr)
        return true;
    if (inet_pton(AF_INET, addr, &a4) == 1) {
        ret->sin6_addr.s6_addr[10] = ret->sin6_addr.s6_addr[11] = 0xff;
        memcpy(ret->sin6_addr.s6_addr + 12, &a4, 4);
        return true;
    }
    return inet_pton(AF_INET6, addr, &ret->sin6_addr) == 1;
}

static void on_send(void *arg, const char *addr, uint16_t port, const void *p, size_t size)
{
    struct gossip *g = arg;
    struct sockaddr_in6 to;
    uint8_t out[GOSSIP_PACKET_MAX_BYTES + SEAL_OVERHEAD], nonce[24];
    if (!g->n_keys || !to_sockaddr(addr, port, &to))
        return;
    crypto_random(nonce, sizeof nonce);
    size_t n = gossip_seal(&g->keys[0], nonce, p, size, out);
    if (sendto(g->fd, out, n, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to) == (ssize_t)n) {
        g->stats.n_sent++;
        g->stats.bytes_sent += n;
    }
}

bool gossip_send_datagram(struct gossip *g, const char *addr, uint16_t port, const void *p, size_t size)
{
    struct sockaddr_in6 to;
    return to_sockaddr(addr, port, &to) && sendto(g->fd, p, size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&to,
                                                  sizeof to) == (ssize_t)size;
}

static void on_state(void *arg, const char *id, enum gossip_state state)
{
    struct gossip *g = arg;
    struct change *c = xnew(struct change);
    snprintf(c->id, sizeof c->id, "%s", id);
    c->state = state;
    list_push_back(&g->changes, &c->node);
    loop_timer_set(g->tell, 0);
}

static void tell(void *arg)
{
    struct gossip *g = arg;
    struct change *c;
    while ((c = list_first(&g->changes, struct change, node))) {
        list_remove(&c->node);
        g->hooks.state(g->hooks.arg, c->id, c->state);
        free(c);
    }
}

static void on_timer(void *arg)
{
    struct gossip *g = arg;
    gossip_core_tick(&g->core, now_ms());
    if (g->left) {
        if (++g->goodbyes >= GOODBYES) {
            loop_fn *left = TAKE(g->left);
            loop_timer_set(g->timer, -1);
            left(g->left_arg);
            return;
        }
        gossip_core_leave(&g->core);
        loop_timer_set(g->timer, GOODBYE_MS);
        return;
    }
    loop_timer_set(g->timer, MAX(g->core.cfg.timeout_ms / 4, 1u));
}

static void on_readable(void *arg, unsigned events)
{
    struct gossip *g = arg;
    uint8_t in[GOSSIP_PACKET_MAX_BYTES + SEAL_OVERHEAD + 1], plain[GOSSIP_PACKET_MAX_BYTES + 1];
    (void)events;
    for (int i = 0; i < 64; i++) {
        struct sockaddr_in6 from;
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(g->fd, in, sizeof in, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
        if (n < 0)
            return;
        g->stats.n_received++;
        g->stats.bytes_received += (uint64_t)n;
        size_t size = (size_t)n < sizeof in ? gossip_open_sealed(g->keys, g->n_keys, in, (size_t)n, plain) : 0;
        if (!size)
            g->stats.n_unsealed += !g->hooks.datagram || !g->hooks.datagram(g->hooks.arg, in, (size_t)n);
        else
            gossip_core_receive(&g->core, now_ms(), plain, size);
    }
}

int gossip_open(struct gossip **ret, struct loop *l, const struct gossip_config *cfg,
                const struct gossip_key_ref *keys, unsigned n_keys, const struct gossip_hooks *hooks,
                uint64_t seed, struct err *e)
{
    struct sockaddr_in6 at;
    int off = 0, size = 1 << 20;
    if (!to_sockaddr(cfg->listen_addr, cfg->port, &at))
        return err_set(e, E_INVALID, "gossip: \"%s\" is no numeric address", cfg->listen_addr);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        int r = err_errno(e, errno, "gossip on %s UDP port %u", cfg->listen_addr ? cfg->listen_addr : "::", cfg->port);
        if (fd >= 0)
            close(fd);
        return r;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    struct gossip *g = xnew(struct gossip);
    const struct gossip_core_out out = { g, on_send, on_state };
    g->loop = l;
    g->fd = fd;
    g->hooks = *hooks;
    list_init(&g->changes);
    gossip_set_keys(g, keys, n_keys);
    gossip_core_init(&g->core, cfg, &out, seed, now_ms());
    g->watch = loop_fd_add(l, fd, LOOP_READ, on_readable, g);
    g->timer = loop_timer_new(l, on_timer, g);
    g->tell = loop_timer_new(l, tell, g);
    loop_timer_set(g->timer, 0);
    *ret = g;
    return 0;
}

void gossip_close(struct gossip *g)
{
    struct change *c;
    if (!g)
        return;
    while ((c = list_first(&g->changes, struct change, node))) {
        list_remove(&c->node);
        free(c);
    }
    gossip_core_done(&g->core);
    loop_fd_remove(g->watch);
    loop_timer_free(g->timer);
    loop_timer_free(g->tell);
    close(g->fd);
    crypto_wipe(g->keys, sizeof g->keys);
    free(g);
}

void gossip_set_keys(struct gossip *g, const struct gossip_key_ref *keys, unsigned n)
{
    g->n_keys = MIN(n, (unsigned)GOSSIP_KEYS_MAX);
    for (unsigned i = 0; i < g->n_keys; i++)
        g->keys[i] = keys[i];
}

void gossip_member(struct gossip *g, const char *node_id, const char *addr, uint16_t port)
{
    gossip_core_member(&g->core, node_id, addr, port);
}

void gossip_forget(struct gossip *g, const char *node_id)
{
    gossip_core_forget(&g->core, node_id);
}

void gossip_leave(struct gossip *g, loop_fn *done, void *arg)
{
    g->left = done;
    g->left_arg = arg;
    gossip_core_leave(&g->core);
    loop_timer_set(g->timer, GOODBYE_MS);
}

enum gossip_state gossip_state_of(const struct gossip *g, const char *node_id)
{
    const struct gossip_peer *p = map_find(&g->core.peers, node_id);
    if (str_equal(node_id, g->core.id))
        return GOSSIP_ALIVE;
    return p ? p->state : GOSSIP_DEAD;
}

void gossip_stats(const struct gossip *g, struct gossip_stats *ret)
{
    *ret = g->stats;
    ret->n_members = g->core.peers.n;
    for (struct map_item *it = NULL; (it = map_next(&g->core.peers, it));)
        ret->n_alive += ((struct gossip_peer *)it->value)->state == GOSSIP_ALIVE;
}
