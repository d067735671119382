/* Two tunnel cores and a wire between them, in memory: latency, loss and time are the test's. */
#ifndef OVERLAY_WIRE_H
#define OVERLAY_WIRE_H

#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>

#include "../../overlay/tunnel.h"
#include "../../overlay/vxlan.h"

enum { NODES = 2, VNI = 4097, WIRE_MAX = 4096, WIRE_BYTES = 2048, FRAME_BYTES = 100, WIRE_TYPES = 7, WIRE_HELD_MAX = 256 };

struct wire_packet {
    int to;
    int64_t at_ms;
    size_t size;
    uint8_t p[WIRE_BYTES];
};
struct wire_node {
    struct tunnel *t;
    uint8_t can;               /* PEER_CAN_... */
    unsigned takes;            /* its TAP: TAP_... */
    /* Sees the frames that come out, whole, in place of the counts below; false: the TAP refuses. */
    bool (*on_frame)(int node, const struct frame_meta *m, uint8_t *frame, size_t size);
    uint8_t secret[32], public_key[32], psk[32];
    struct endpoint address;   /* where its packets come from */
    unsigned n_frames, n_arp;  /* that came out of the tunnel */
    uint64_t last_number, sum; /* of the frames */
    unsigned n_sent[WIRE_TYPES]; /* packets by type */
    uint8_t last[WIRE_TYPES][WIRE_BYTES]; /* the last one of each type */
    size_t last_size[WIRE_TYPES];
};
struct wire {
    struct wire_node n[NODES];
    struct wire_packet *q; /* ring */
    unsigned first, used;
    int64_t now_ms, latency_ms;
    bool cut; /* everything is lost */
    bool (*lose)(const uint8_t *p, size_t size); /* more choosy; may be NULL */
    uint8_t *held[WIRE_HELD_MAX]; /* given to the tunnel since its last flush */
    unsigned n_held;
};
static struct wire w;
static uint8_t wire_can; /* of both nodes, at setup */

static inline uint32_t node_addr(int i) /* tunnel address; containers live at 10.1.0.(2+i) */
{
    return 0xac1f0001u + (uint32_t)i;
}

static inline uint32_t container_addr(int i)
{
    return 0x0a010002u + (uint32_t)i;
}

static inline int64_t real_ns(void)
{
    return INT64_C(1700000000000000000) + w.now_ms * 1000000;
}

static inline int node_at(const struct endpoint *e)
{
    for (int i = 0; i < NODES; i++)
        if (!e->v6 && !memcmp(e->addr, w.n[i].address.addr, 4) && e->port == w.n[i].address.port)
            return i;
    return -1;
}

static inline void wire_send(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    struct wire_node *from = arg;
    assert_true(size >= 4 && size <= WIRE_BYTES && p[0] >= 1 && p[0] < WIRE_TYPES);
    from->n_sent[p[0]]++;
    memcpy(from->last[p[0]], p, size);
    from->last_size[p[0]] = size;
    int i = node_at(to);
    if (w.cut || i < 0 || (w.lose && w.lose(p, size)))
        return;
    assert_true(w.used < WIRE_MAX);
    struct wire_packet *k = &w.q[(w.first + w.used++) % WIRE_MAX];
    k->to = i;
    k->at_ms = w.now_ms + w.latency_ms;
    k->size = size;
    memcpy(k->p, p, size);
}

static inline uint8_t *wire_room(void *arg, size_t size)
{
    static uint8_t room[PEER_PACKET_MAX_BYTES + 64];
    (void)arg;
    assert_true(size <= sizeof room);
    return room;
}

static inline bool wire_frame(void *arg, uint32_t vni, const struct frame_meta *m, struct iovec *iov, unsigned n)
{
    struct wire_node *node = arg;
    size_t size = 0;
    bool taken = true;
    assert_int_equal(vni, VNI);
    assert_true(n >= 1);
    for (unsigned i = 1; i <= n; i++)
        size += iov[i].iov_len;
    uint8_t *p = xcalloc(1, size); /* exact size: a read beyond is found */
    for (unsigned i = 1, at = 0; i <= n; at += (unsigned)iov[i++].iov_len)
        memcpy(p + at, iov[i].iov_base, iov[i].iov_len);
    if (node->on_frame) {
        taken = node->on_frame((int)(node - w.n), m, p, size);
    } else if (size == 42) {
        node->n_arp++;
    } else {
        assert_int_equal(size, FRAME_BYTES);
        memcpy(&node->last_number, p + 60, 8);
        node->sum += node->last_number;
        node->n_frames++;
    }
    free(p);
    return taken;
}

static inline bool wire_endpoint(const char *addr, uint16_t port, struct endpoint *ret)
{
    unsigned last;
    if (sscanf(addr, "192.0.2.%u", &last) != 1)
        return false;
    *ret = (struct endpoint){ .addr = { 192, 0, 2, (uint8_t)last }, .port = port, .known = true };
    return true;
}

/* Hands the node its wanted state: the other node as peer when with_peer, its container as route. */
static inline void node_configure(int i, bool with_peer)
{
    struct wire_node *n = &w.n[i], *o = &w.n[!i];
    struct tunnel_config c = { .addr = node_addr(i), .port = n->address.port };
    struct err e;
    c.key = (struct bytes){ xmemdup(n->secret, 32), 32 };
    c.psk = (struct bytes){ xmemdup(n->psk, 32), 32 };
    struct tunnel_network *net = REC_ADD(&c.networks);
    net->vni = VNI;
    if (with_peer) {
        struct tunnel_peer *p = REC_ADD(&c.peers);
        p->key = (struct bytes){ xmemdup(o->public_key, 32), 32 };
        p->endpoint = xasprintf("192.0.2.%u", o->address.addr[3]);
        p->port = o->address.port;
        p->addr = node_addr(!i);
        struct tunnel_route *r = REC_ADD(&net->routes);
        r->addr = container_addr(!i);
        r->via = node_addr(!i);
    }
    assert_int_equal(tunnel_configure(n->t, &c, wire_endpoint, &e), 0);
    tunnel_tap(n->t, VNI, n->takes);
    tunnel_config_clear(&c);
}

static inline void node_start(int i)
{
    const struct tunnel_out out = { &w.n[i], wire_room, wire_send, wire_frame };
    tunnel_free(w.n[i].t);
    w.n[i].t = tunnel_new(&out, w.n[i].can);
    node_configure(i, true);
}

static inline int wire_setup(void **state)
{
    (void)state;
    crypto_init();
    w = (struct wire){ .now_ms = 1000000, .latency_ms = 10 };
    w.q = xcalloc(WIRE_MAX, sizeof *w.q);
    for (int i = 0; i < NODES; i++) {
        struct wire_node *n = &w.n[i];
        crypto_dh_keypair(n->public_key, n->secret);
        memset(n->psk, 7, 32);
        n->can = wire_can;
        n->address = (struct endpoint){ .addr = { 192, 0, 2, (uint8_t)(10 + i) }, .port = 51820, .known = true };
    }
    for (int i = 0; i < NODES; i++)
        node_start(i);
    return 0;
}

static inline int wire_teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        tunnel_free(w.n[i].t);
    free(w.q);
    return 0;
}

/* Packets into a node, as if they came from that address; it may hold them until it is flushed. */
static inline void inject_held(int to, const struct endpoint *from, const void *p, size_t size)
{
    assert_true(w.n_held < WIRE_HELD_MAX);
    uint8_t *copy = w.held[w.n_held++] = xmemdup(p, size); /* exact size: a read beyond is found */
    tunnel_packet(w.n[to].t, w.now_ms, real_ns(), from, copy, size);
}

static inline void flush_held(void)
{
    for (int i = 0; i < NODES; i++)
        tunnel_flush(w.n[i].t);
    while (w.n_held)
        free(w.held[--w.n_held]);
}

static inline void inject(int to, const struct endpoint *from, const void *p, size_t size)
{
    inject_held(to, from, p, size);
    flush_held();
}

static inline void run_for(int64_t ms)
{
    for (int64_t end = w.now_ms + ms; w.now_ms < end; w.now_ms++) {
        while (w.used && w.q[w.first].at_ms <= w.now_ms) {
            const struct wire_packet *k = &w.q[w.first];
            w.first = (w.first + 1) % WIRE_MAX;
            w.used--;
            inject_held(k->to, &w.n[!k->to].address, k->p, k->size);
            if (w.n_held == WIRE_HELD_MAX)
                flush_held();
        }
        flush_held();
        if (w.now_ms % 250 == 0)
            for (int i = 0; i < NODES; i++)
                tunnel_tick(w.n[i].t, w.now_ms, real_ns());
    }
}

/* A frame from the node's container into its tunnel. */
static inline void frame_into(int from, uint32_t vni, const void *frame, size_t size, const struct frame_meta *m)
{
    static const struct frame_meta whole;
    uint8_t *room = xcalloc(1, TUNNEL_ROOM_BYTES + size + TUNNEL_TAIL_BYTES);
    memcpy(room + TUNNEL_ROOM_BYTES, frame, size);
    tunnel_frame(w.n[from].t, w.now_ms, real_ns(), vni, room + TUNNEL_ROOM_BYTES, size, m ? m : &whole);
    free(room);
}

/* A numbered frame from the node's container to the other's. */
static inline void send_frame(int from, uint64_t number)
{
    uint8_t f[FRAME_BYTES] = { 2, 0x42 };
    for (int i = 0; i < 4; i++) {
        f[2 + i] = (uint8_t)(container_addr(!from) >> (24 - 8 * i));
        f[8 + i] = (uint8_t)(container_addr(from) >> (24 - 8 * i));
    }
    f[6] = 2;
    f[7] = 0x42;
    f[12] = 0x08;
    f[14] = 0x45;
    memcpy(f + 60, &number, 8);
    frame_into(from, VNI, f, sizeof f, NULL);
}

static inline void wire_format(const struct endpoint *e, char out[80])
{
    snprintf(out, 80, "%u.%u.%u.%u:%u", e->addr[0], e->addr[1], e->addr[2], e->addr[3], e->port);
}

#endif
