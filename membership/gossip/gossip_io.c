/* Gossip over UDP: seals and opens packets, drives the core by a timer, hands state changes on at the end of the
 * turn (never from inside a call of the owner). */
#include "core.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum change_kind { CHANGE_STATE, CHANGE_ADDRESS, CHANGE_REFUSED };
struct change {
    struct list_node node;
    enum change_kind kind;
    char id[GOSSIP_ID_MAX + 1], addr[GOSSIP_ADDR_MAX];
    enum gossip_state state;
};
struct pair { /* this node and another */
    uint8_t link_key[32], shared[32], keys[GOSSIP_KEYS_MAX][32];
    bool agreed, derived[GOSSIP_KEYS_MAX];
};
enum { GOODBYES = 3, GOODBYE_MS = 20, IDLE_MS = 1000, BATCH = 64, SENT = 128 };
struct gossip {
    struct loop *loop;
    struct gossip_core core;
    struct gossip_hooks hooks;
    struct gossip_key_ref keys[GOSSIP_KEYS_MAX];
    unsigned n_keys;
    uint8_t sign_secret[64], link_secret[32];
    struct pair **pairs; /* by slot of the table; NULL: no member */
    uint32_t n_pairs;
    int fd;
    struct loop_fd *watch;
    struct loop_timer *timer, *tell; /* tell: hands changes on */
    struct list_node changes;
    struct sent { uint8_t nonce[24]; uint32_t slot; } sent[SENT]; /* the last packets: what comes back as refused was one */
    unsigned n_sent;
    struct gossip_stats stats;
    unsigned goodbyes;
    loop_fn *left;
    void *left_arg;
};

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

static const char *from_sockaddr(const struct sockaddr_in6 *a, char out[INET6_ADDRSTRLEN])
{
    bool v4 = IN6_IS_ADDR_V4MAPPED(&a->sin6_addr);
    return inet_ntop(v4 ? AF_INET : AF_INET6, a->sin6_addr.s6_addr + (v4 ? 12 : 0), out, INET6_ADDRSTRLEN);
}

/* The key this node and the one in the slot have for keys[k]; NULL: it is no member, or has no sound key. */
static const uint8_t *pair_key(struct gossip *g, uint32_t slot, unsigned k)
{
    struct pair *p = slot < g->n_pairs ? g->pairs[slot] : NULL;
    if (!p)
        return NULL;
    if (!p->agreed && !(p->agreed = crypto_dh(p->shared, g->link_secret, p->link_key)))
        return NULL;
    if (!p->derived[k]) {
        gossip_pair_key(p->keys[k], &g->keys[k], p->shared);
        p->derived[k] = true;
    }
    return p->keys[k];
}

/* An ICMP error about an earlier packet is told once, to whoever sends next, and that packet is not sent. */
static bool send_to(struct gossip *g, const struct sockaddr_in6 *to, const void *p, size_t size)
{
    for (int tries = 0; tries < 2; tries++)
        if (sendto(g->fd, p, size, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to, sizeof *to) == (ssize_t)size)
            return true;
    return false;
}

static void on_send(void *arg, uint32_t slot, const char *addr, uint16_t port, const void *p, size_t size)
{
    struct gossip *g = arg;
    struct sockaddr_in6 to;
    uint8_t out[GOSSIP_PACKET_MAX_BYTES], nonce[24];
    const uint8_t *key = g->n_keys ? pair_key(g, slot, 0) : NULL;
    if (!key || !*addr || !port || !to_sockaddr(addr, port, &to))
        return;
    ASSERT(size + SEAL_OVERHEAD <= sizeof out);
    crypto_random(nonce, sizeof nonce);
    size_t n = gossip_seal(key, g->keys[0].id, g->core.t->v[g->core.self].tag, g->core.t->v[slot].tag, nonce, p, size, out);
    struct sent *s = &g->sent[g->n_sent++ % SENT];
    memcpy(s->nonce, nonce, sizeof s->nonce);
    s->slot = slot;
    if (send_to(g, &to, out, n)) {
        g->stats.n_sent++;
        g->stats.bytes_sent += n;
    }
}

bool gossip_send_datagram(struct gossip *g, const char *addr, uint16_t port, const void *p, size_t size)
{
    struct sockaddr_in6 to;
    return to_sockaddr(addr, port, &to) && send_to(g, &to, p, size);
}

static struct change *change_new(struct gossip *g, uint32_t slot)
{
    struct change *c = xnew(struct change);
    snprintf(c->id, sizeof c->id, "%s", g->core.t->v[slot].id);
    list_push_back(&g->changes, &c->node);
    loop_timer_set(g->tell, 0);
    return c;
}

static void on_state(void *arg, uint32_t slot, enum gossip_state state)
{
    change_new(arg, slot)->state = state;
}

static void on_address(void *arg, uint32_t slot, const char *addr, uint16_t port)
{
    struct change *c = change_new(arg, slot);
    (void)port;
    c->kind = CHANGE_ADDRESS;
    snprintf(c->addr, sizeof c->addr, "%s", addr);
}

static void on_refused(void *arg, uint32_t slot)
{
    change_new(arg, slot)->kind = CHANGE_REFUSED;
}

static void on_sign(void *arg, uint8_t signature[64], const void *p, size_t size)
{
    crypto_sign(signature, p, size, ((struct gossip *)arg)->sign_secret);
}

static bool on_verify(void *arg, const struct gossip_identity *by, const uint8_t signature[64], const void *p, size_t size)
{
    (void)arg;
    return crypto_sign_verify(signature, p, size, by->key);
}

static void tell(void *arg)
{
    struct gossip *g = arg;
    struct change *c;
    while ((c = list_first(&g->changes, struct change, node))) {
        list_remove(&c->node);
        if (c->kind == CHANGE_STATE)
            g->hooks.state(g->hooks.arg, c->id, c->state);
        else if (c->kind == CHANGE_ADDRESS && g->hooks.address)
            g->hooks.address(g->hooks.arg, c->id, c->addr);
        else if (c->kind == CHANGE_REFUSED && g->hooks.refused)
            g->hooks.refused(g->hooks.arg, c->id);
        free(c);
    }
}

static void on_timer(void *arg)
{
    struct gossip *g = arg;
    int64_t now = now_ms(), due = gossip_core_tick(&g->core, now);
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
    loop_timer_set(g->timer, MIN(due - now, (int64_t)IDLE_MS));
}

/* The sender, proven, and the plain packet; NO_SLOT: nobody's. */
static uint32_t unseal(struct gossip *g, const uint8_t *in, size_t size, uint8_t *plain, size_t *ret_size)
{
    struct gossip_seal_head head;
    if (!gossip_seal_read(&head, in, size))
        return NO_SLOT;
    uint32_t slot = gossip_table_by_tag(g->core.t, head.sender);
    for (unsigned k = 0; slot != NO_SLOT && k < g->n_keys; k++) {
        const uint8_t *key = g->keys[k].id == head.key_id ? pair_key(g, slot, k) : NULL;
        if (key && (*ret_size = gossip_unseal(key, g->core.t->v[g->core.self].tag, in, size, plain)))
            return slot;
    }
    return NO_SLOT;
}

/* The machine itself says so, not a router before it. */
static bool is_refusal(struct msghdr *m, const struct sockaddr_in6 *to)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
        struct sock_extended_err ee;
        struct sockaddr_in6 by;
        if (!v6 || c->cmsg_len < CMSG_LEN(sizeof ee + sizeof by))
            continue;
        memcpy(&ee, CMSG_DATA(c), sizeof ee);
        memcpy(&by, CMSG_DATA(c) + sizeof ee, sizeof by);
        return (ee.ee_origin == SO_EE_ORIGIN_ICMP || ee.ee_origin == SO_EE_ORIGIN_ICMP6) && ee.ee_errno == ECONNREFUSED &&
               by.sin6_family == AF_INET6 && memcmp(&by.sin6_addr, &to->sin6_addr, sizeof by.sin6_addr) == 0;
    }
    return false;
}

/* Packets of this node that come back. Each quotes what was sent: the nonce says to whom, and only one who saw the packet
 * can know it. */
static void take_refusals(struct gossip *g)
{
    uint8_t in[GOSSIP_PACKET_MAX_BYTES], plain[GOSSIP_PACKET_MAX_BYTES];
    for (int i = 0; i < BATCH; i++) {
        struct sockaddr_in6 to;
        union { struct cmsghdr align; char v[512]; } control;
        struct iovec part = { in, sizeof in };
        struct msghdr m = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1,
                            .msg_control = control.v, .msg_controllen = sizeof control.v };
        struct gossip_seal_head head;
        ssize_t n = recvmsg(g->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);
        if (n < 0)
            return;
        if (!is_refusal(&m, &to) || !gossip_seal_read(&head, in, (size_t)n))
            continue;
        uint32_t slot = NO_SLOT;
        for (unsigned k = 0; k < SENT && slot == NO_SLOT; k++)
            if (k < g->n_sent && memcmp(g->sent[k].nonce, in + SEAL_HEAD_BYTES - 24, 24) == 0)
                slot = g->sent[k].slot;
        for (unsigned k = 0; slot != NO_SLOT && k < g->n_keys; k++) {
            const uint8_t *key = g->keys[k].id == head.key_id ? pair_key(g, slot, k) : NULL;
            size_t size = key ? gossip_unseal(key, g->core.t->v[slot].tag, in, (size_t)n, plain) : 0;
            if (size)
                gossip_core_refused(&g->core, slot, plain, size);
        }
    }
}

static void on_readable(void *arg, unsigned events)
{
    struct gossip *g = arg;
    uint8_t in[GOSSIP_PACKET_MAX_BYTES + 1], plain[GOSSIP_PACKET_MAX_BYTES];
    char addr[INET6_ADDRSTRLEN];
    bool soon = false;
    (void)events;
    take_refusals(g);
    for (int i = 0; i < BATCH; i++) {
        struct sockaddr_in6 from;
        socklen_t len = sizeof from;
        size_t size = 0;
        ssize_t n = recvfrom(g->fd, in, sizeof in, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) /* an ICMP error, see send_to() */
            continue;
        g->stats.n_received++;
        g->stats.bytes_received += (uint64_t)n;
        uint32_t slot = (size_t)n < sizeof in ? unseal(g, in, (size_t)n, plain, &size) : NO_SLOT;
        if (slot == NO_SLOT)
            g->stats.n_unsealed += !g->hooks.datagram || (size_t)n == sizeof in || !g->hooks.datagram(g->hooks.arg, in, (size_t)n);
        else
            soon |= gossip_core_receive(&g->core, now_ms(), slot, from_sockaddr(&from, addr), ntohs(from.sin6_port), plain, size);
    }
    if (soon && !g->left)
        loop_timer_set(g->timer, 0);
}

int gossip_open(struct gossip **ret, struct loop *l, const struct gossip_config *cfg,
                const struct gossip_key_ref *keys, unsigned n_keys, const struct gossip_hooks *hooks,
                uint64_t seed, struct err *e)
{
    struct sockaddr_in6 at;
    uint8_t key[32];
    int off = 0, on = 1, size = 1 << 20;
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
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on); /* the same for IPv4 on this socket */
    struct gossip *g = xnew(struct gossip);
    const struct gossip_core_out out = { g, on_send, on_state, on_address, on_refused, on_sign, on_verify };
    struct gossip_table *t = gossip_table_new();
    g->loop = l;
    g->fd = fd;
    g->hooks = *hooks;
    list_init(&g->changes);
    gossip_set_keys(g, keys, n_keys);
    memcpy(g->sign_secret, cfg->sign_secret, sizeof g->sign_secret);
    memcpy(g->link_secret, cfg->link_secret, sizeof g->link_secret);
    memcpy(key, cfg->sign_secret + 32, 32); /* an Ed25519 secret ends with the public key */
    gossip_core_init(&g->core, cfg, &out, t, key, seed, now_ms());
    gossip_table_unref(t); /* the core's from now on */
    g->watch = loop_fd_add(l, fd, LOOP_READ, on_readable, g);
    g->timer = loop_timer_new(l, on_timer, g);
    g->tell = loop_timer_new(l, tell, g);
    loop_timer_set(g->timer, 0);
    *ret = g;
    return 0;
}

static void pair_free(struct pair *p)
{
    if (p)
        crypto_wipe(p, sizeof *p);
    free(p);
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
    for (uint32_t i = 0; i < g->n_pairs; i++)
        pair_free(g->pairs[i]);
    free(g->pairs);
    loop_fd_remove(g->watch);
    loop_timer_free(g->timer);
    loop_timer_free(g->tell);
    close(g->fd);
    crypto_wipe(g, sizeof *g);
    free(g);
}

void gossip_set_keys(struct gossip *g, const struct gossip_key_ref *keys, unsigned n)
{
    g->n_keys = MIN(n, (unsigned)GOSSIP_KEYS_MAX);
    for (unsigned i = 0; i < g->n_keys; i++)
        g->keys[i] = keys[i];
    for (uint32_t i = 0; i < g->n_pairs; i++)
        if (g->pairs[i])
            memset(g->pairs[i]->derived, 0, sizeof g->pairs[i]->derived);
}

void gossip_member(struct gossip *g, const char *node_id, const char *addr, uint16_t port, const uint8_t sign_key[32],
                   const uint8_t link_key[32])
{
    gossip_core_member(&g->core, node_id, addr, port, sign_key);
    uint32_t slot = gossip_table_find(g->core.t, node_id);
    if (slot == NO_SLOT || slot == g->core.self || gossip_core_state(&g->core, slot) == GOSSIP_DEAD)
        return;
    if (slot >= g->n_pairs) {
        uint32_t n = MAX(slot + 1, g->n_pairs * 2);
        g->pairs = xrealloc(g->pairs, n, sizeof(struct pair *));
        memset(g->pairs + g->n_pairs, 0, (n - g->n_pairs) * sizeof(struct pair *));
        g->n_pairs = n;
    }
    struct pair *p = g->pairs[slot];
    if (p && memcmp(p->link_key, link_key, 32) == 0)
        return;
    pair_free(p);
    p = g->pairs[slot] = xnew(struct pair);
    memcpy(p->link_key, link_key, 32);
    loop_timer_set(g->timer, 0);
}

void gossip_forget(struct gossip *g, const char *node_id)
{
    uint32_t slot = gossip_table_find(g->core.t, node_id);
    gossip_core_forget(&g->core, node_id);
    if (slot < g->n_pairs)
        pair_free(TAKE(g->pairs[slot]));
}

void gossip_set_address(struct gossip *g, const char *addr)
{
    gossip_core_address(&g->core, addr);
    loop_timer_set(g->timer, 0);
}

void gossip_ask(struct gossip *g, const char *node_id)
{
    gossip_core_ask(&g->core, gossip_table_find(g->core.t, node_id));
}

void gossip_leave(struct gossip *g, loop_fn *done, void *arg)
{
    g->left = done;
    g->left_arg = arg;
    gossip_core_leave(&g->core);
    loop_timer_set(g->timer, GOODBYE_MS);
}

const char *gossip_address_of(const struct gossip *g, const char *node_id)
{
    uint32_t slot = gossip_table_find(g->core.t, node_id);
    const struct gossip_fact *f = slot < g->core.n_views ? g->core.views[slot].statement : NULL;
    return f && f->addr[0] ? f->addr : NULL;
}

enum gossip_state gossip_state_of(const struct gossip *g, const char *node_id)
{
    return gossip_core_state(&g->core, gossip_table_find(g->core.t, node_id));
}

uint32_t gossip_unstable(const struct gossip *g)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->core.n_cases; i++)
        n += g->core.cases[i].n && gossip_core_state(&g->core, g->core.cases[i].slot) == GOSSIP_ALIVE;
    return n;
}

void gossip_stats(const struct gossip *g, struct gossip_stats *ret)
{
    *ret = g->stats;
    ret->n_members = g->core.n_members - 1;
    ret->n_forged = g->core.stats.n_forged;
    ret->n_other_table = g->core.stats.n_other_table;
    ret->health = g->core.health;
    for (uint32_t i = 0; i < g->core.n_views; i++)
        ret->n_alive += i != g->core.self && gossip_core_state(&g->core, i) == GOSSIP_ALIVE;
    ret->n_unstable = gossip_unstable(g);
}
