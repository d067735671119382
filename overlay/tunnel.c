/* The tunnel's core. A frame goes to the node whose address its destination MAC names; ARP for a known address
 * is answered here; other broadcast stays on the node: nothing is flooded or learned. A packet is taken only
 * from the peer whose tunnel address it carries (WireGuard's cryptokey routing). */
#include "tunnel.h"
#include "cookie.h"
#include "join.h"
#include <shoal/base/crypto.h>
#include <shoal/base/map.h>

struct tunnel_peer_state {
    struct peer peer;
    struct tunnel *t;
    struct endpoint configured; /* the peer's own endpoint follows where it is heard from */
    uint32_t addr;
    bool wanted, routed, greeted;
};
struct network_state {
    uint32_t vni;
    bool wanted;
    unsigned told, takes, proven; /* TAP_...: what its TAP takes, as told and as found; super-packets that it has taken once */
    struct map routes; /* 4 bytes of address -> struct tunnel_peer_state */
};
struct tunnel {
    struct tunnel_out out;
    struct peer_out peer_out;
    struct ik_identity id;
    struct cookie_guard guard;
    uint8_t can;
    bool configured;
    uint32_t addr;
    struct join join;    /* frames that are being put together */
    struct map peers;    /* public key -> struct tunnel_peer_state */
    struct map networks; /* 4 bytes of VNI -> struct network_state */
    struct tunnel_peer_state **slots;
    uint32_t n_slots;
    uint64_t n_dropped;
};

static uint8_t *on_room(void *arg, size_t size)
{
    struct tunnel *t = arg;
    return t->out.room(t->out.arg, size);
}

static void on_send(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    struct tunnel *t = arg;
    t->out.send(t->out.arg, to, p, size);
}

/* ---- into a TAP ---- */
static bool write_one(struct tunnel *t, const struct network_state *n, struct frame_meta *m, uint8_t *frame, size_t size)
{
    struct iovec iov[2] = { { 0 }, { frame, size } };
    if (m->flags & FRAME_NEEDS_CSUM && !(n->takes & TAP_CSUM)) {
        frame_checksum(m, frame, size);
        *m = (struct frame_meta){ 0 };
    }
    return t->out.frame(t->out.arg, n->vni, m, iov, 1);
}

static void write_cut(struct tunnel *t, const struct network_state *n, const struct join *j)
{
    static uint8_t whole[GSO_FRAME_MAX_BYTES];
    struct gso g;
    size_t at = 0, size;
    for (unsigned i = 1; i <= j->n; at += j->iov[i++].iov_len)
        memcpy(whole + at, j->iov[i].iov_base, j->iov[i].iov_len);
    gso_open(&g, whole, at, &j->meta);
    for (unsigned i = 0; i < g.n; i++) {
        uint8_t *frame = gso_segment(&g, i, &size);
        struct frame_meta m = { .flags = FRAME_NEEDS_CSUM, .csum_start = j->meta.csum_start, .csum_offset = j->meta.csum_offset };
        write_one(t, n, &m, frame, size);
    }
}

void tunnel_flush(struct tunnel *t)
{
    struct join *j = &t->join;
    struct network_state *n = j->from ? map_find_n(&t->networks, &j->vni, sizeof j->vni) : NULL;
    j->from = NULL;
    if (!n)
        return;
    join_end(j);
    if (j->n == 1) {
        write_one(t, n, &j->meta, j->iov[1].iov_base, j->iov[1].iov_len);
        return;
    }
    unsigned kind = j->meta.gso_type == GSO_UDP ? TAP_USO : TAP_TSO;
    if (n->takes & kind && t->out.frame(t->out.arg, n->vni, &j->meta, j->iov, j->n)) {
        n->proven |= kind;
        return;
    }
    if (!(n->proven & kind)) /* once is chance, or something about this one */
        n->takes &= ~kind;
    write_cut(t, n, j);
}

/* ---- from a peer ---- */
/* From a peer comes only what is from an address that lives there (WireGuard's cryptokey routing, per network). */
static struct network_state *network_from(struct tunnel *t, const struct tunnel_peer_state *from, uint32_t vni,
                                          const uint8_t *frame, size_t size)
{
    uint32_t source;
    struct network_state *n = map_find_n(&t->networks, &vni, sizeof vni);
    if (!n || !frame_source(frame, size, &source) || map_find_n(&n->routes, &source, sizeof source) != from)
        return NULL;
    return n;
}

static void on_deliver(void *arg, void *peer_arg, enum peer_form form, uint64_t counter, uint8_t *p, size_t size)
{
    struct tunnel *t = arg;
    const struct tunnel_peer_state *from = peer_arg;
    struct frame_meta whole = { 0 };
    struct network_state *n;
    struct compact c;
    if (form == PEER_WIREGUARD) {
        tunnel_flush(t); /* frames keep their order */
        if (!vxlan_parse(p, size, from->addr, t->addr, &c.vni, &c.frame, &c.size) ||
            !(n = network_from(t, from, c.vni, c.frame, c.size)))
            t->n_dropped++;
        else
            write_one(t, n, &whole, c.frame, c.size);
        return;
    }
    if (!compact_parse(p, size, &c)) {
        t->n_dropped++;
        return;
    }
    if (join_add(&t->join, from, counter, &c)) /* its source is that of the one it carries on */
        return;
    tunnel_flush(t);
    n = network_from(t, from, c.vni, c.frame, c.size);
    if (!n) {
        t->n_dropped++;
        return;
    }
    join_begin(&t->join, from, counter, &c, n->takes & TAP_USO);
    if (!t->join.open)
        tunnel_flush(t);
}

struct tunnel *tunnel_new(const struct tunnel_out *out, uint8_t can)
{
    struct tunnel *t = xnew(struct tunnel);
    t->out = *out;
    t->can = can;
    t->peer_out = (struct peer_out){ t, on_room, on_send, on_deliver };
    map_init(&t->peers);
    map_init(&t->networks);
    return t;
}

static void peer_drop(struct tunnel *t, struct tunnel_peer_state *p)
{
    map_remove_n(&t->peers, p->peer.key, 32);
    t->slots[p->peer.slot] = NULL;
    peer_done(&p->peer);
    free(p);
}

static void network_drop(struct tunnel *t, struct network_state *n)
{
    map_remove_n(&t->networks, &n->vni, sizeof n->vni);
    map_done(&n->routes);
    free(n);
}

void tunnel_free(struct tunnel *t)
{
    if (!t)
        return;
    for (struct map_item *it = NULL; (it = map_next(&t->peers, it));)
        peer_drop(t, it->value);
    for (struct map_item *it = NULL; (it = map_next(&t->networks, it));)
        network_drop(t, it->value);
    map_done(&t->peers);
    map_done(&t->networks);
    free(t->slots);
    crypto_wipe(&t->id, sizeof t->id);
    free(t);
}

static struct tunnel_peer_state *peer_add(struct tunnel *t, const uint8_t key[32])
{
    uint32_t slot = 0;
    while (slot < t->n_slots && t->slots[slot])
        slot++;
    if (slot == t->n_slots) {
        t->slots = xrealloc(t->slots, ++t->n_slots, sizeof *t->slots);
        t->slots[slot] = NULL;
    }
    struct tunnel_peer_state *p = xnew(struct tunnel_peer_state);
    p->t = t;
    peer_init(&p->peer, &t->id, key, slot, t->can, &t->peer_out, p);
    t->slots[slot] = p;
    map_put_n(&t->peers, key, 32, p);
    return p;
}

static bool same_address(const struct endpoint *a, const struct endpoint *b)
{
    return a->known && a->v6 == b->v6 && a->port == b->port && memcmp(a->addr, b->addr, sizeof a->addr) == 0;
}

static void configure_peers(struct tunnel *t, const struct tunnel_config *c,
                            bool (*endpoint)(const char *addr, uint16_t port, struct endpoint *ret))
{
    for (struct map_item *it = NULL; (it = map_next(&t->peers, it));)
        ((struct tunnel_peer_state *)it->value)->wanted = false;
    for (uint32_t i = 0; i < c->peers.n; i++) {
        const struct tunnel_peer *w = &c->peers.v[i];
        struct endpoint e;
        if (w->key.n != 32)
            continue;
        struct tunnel_peer_state *p = map_find_n(&t->peers, w->key.v, 32);
        if (!p)
            p = peer_add(t, w->key.v);
        p->wanted = true;
        p->addr = (uint32_t)w->addr;
        /* A peer that was heard from keeps the address it has now (it may be behind NAT), until it is told anew. */
        if (w->endpoint && endpoint(w->endpoint, (uint16_t)w->port, &e) && !same_address(&p->configured, &e))
            p->configured = p->peer.endpoint = e;
    }
    for (struct map_item *it = NULL; (it = map_next(&t->peers, it));)
        if (!((struct tunnel_peer_state *)it->value)->wanted)
            peer_drop(t, it->value);
}

static void configure_network(struct tunnel *t, const struct tunnel_network *w, const struct map *by_addr)
{
    uint32_t vni = (uint32_t)w->vni;
    struct network_state *n = map_find_n(&t->networks, &vni, sizeof vni);
    if (!n) {
        n = xnew(struct network_state);
        n->vni = vni;
        map_init(&n->routes);
        map_put_n(&t->networks, &vni, sizeof vni, n);
    }
    n->wanted = true;
    map_done(&n->routes);
    map_init(&n->routes);
    for (uint32_t i = 0; i < w->routes.n; i++) {
        uint32_t addr = (uint32_t)w->routes.v[i].addr, via = (uint32_t)w->routes.v[i].via;
        struct tunnel_peer_state *p = map_find_n(by_addr, &via, sizeof via);
        if (!p)
            continue;
        p->routed = true;
        map_put_n(&n->routes, &addr, sizeof addr, p);
    }
}

int tunnel_configure(struct tunnel *t, const struct tunnel_config *c,
                     bool (*endpoint)(const char *addr, uint16_t port, struct endpoint *ret), struct err *e)
{
    struct map by_addr;
    uint8_t psk[32] = { 0 };
    if (c->key.n != 32 || (c->psk.n && c->psk.n != 32))
        return err_set(e, E_INVALID, "tunnel: a key has %u bytes, 32 are needed", c->key.n != 32 ? c->key.n : c->psk.n);
    if (c->psk.n)
        memcpy(psk, c->psk.v, 32);
    tunnel_flush(t);
    if (!t->configured || memcmp(t->id.secret, c->key.v, 32) != 0 || memcmp(t->id.psk, psk, 32) != 0) {
        for (struct map_item *it = NULL; (it = map_next(&t->peers, it));)
            peer_drop(t, it->value); /* another identity: nothing of the old one is left */
        ik_identity_init(&t->id, c->key.v, psk);
    }
    crypto_wipe(psk, sizeof psk);
    t->configured = true;
    t->addr = (uint32_t)c->addr;
    configure_peers(t, c, endpoint);
    map_init(&by_addr);
    for (struct map_item *it = NULL; (it = map_next(&t->peers, it));) {
        struct tunnel_peer_state *p = it->value;
        map_put_n(&by_addr, &p->addr, sizeof p->addr, p);
    }
    for (struct map_item *it = NULL; (it = map_next(&t->networks, it));)
        ((struct network_state *)it->value)->wanted = false;
    for (uint32_t i = 0; i < c->networks.n; i++)
        configure_network(t, &c->networks.v[i], &by_addr);
    for (struct map_item *it = NULL; (it = map_next(&t->networks, it));)
        if (!((struct network_state *)it->value)->wanted)
            network_drop(t, it->value);
    map_done(&by_addr);
    return 0;
}

void tunnel_greet(struct tunnel *t, int64_t now_ms, int64_t real_ns)
{
    for (struct map_item *it = NULL; (it = map_next(&t->peers, it));) {
        struct tunnel_peer_state *p = it->value;
        if (p->routed && !p->greeted)
            peer_greet(&p->peer, now_ms, real_ns);
        p->greeted |= p->routed;
    }
}

bool tunnel_has_network(const struct tunnel *t, uint32_t vni)
{
    return map_find_n(&t->networks, &vni, sizeof vni) != NULL;
}

void tunnel_tap(struct tunnel *t, uint32_t vni, unsigned takes)
{
    struct network_state *n = map_find_n(&t->networks, &vni, sizeof vni);
    if (n && n->told != takes) {
        n->told = n->takes = takes;
        n->proven = 0;
    }
}

/* ---- to a peer ---- */
struct way { struct tunnel *t; int64_t now_ms, real_ns; uint32_t vni; struct tunnel_peer_state *to; enum peer_form form; };

/* A frame or segment; nothing before it and behind it (in a segment but the last: behind it) is of use any more. */
static void send_piece(const struct way *w, uint8_t *frame, size_t size, const struct frame_meta *m, unsigned index, bool last)
{
    size_t whole = (w->form == PEER_WIREGUARD ? VXLAN_HEAD_BYTES : COMPACT_HEAD_BYTES) + size;
    if (m->gso_type == GSO_NONE)
        peer_saw_whole(&w->to->peer, w->form, whole);
    if (w->form == PEER_WIREGUARD) {
        uint8_t *packet = frame - VXLAN_HEAD_BYTES;
        if (m->flags & FRAME_NEEDS_CSUM)
            frame_checksum(m, frame, size);
        vxlan_head(packet, w->vni, w->t->addr, w->to->addr, frame, size);
        peer_send(&w->to->peer, w->now_ms, w->real_ns, w->form, packet, whole);
        return;
    }
    size_t padded = last ? peer_padded(&w->to->peer, w->form, whole) : whole;
    memset(frame + size, 0, padded - whole);
    compact_head(frame - COMPACT_HEAD_BYTES, w->vni, m, index, padded - whole);
    peer_send(&w->to->peer, w->now_ms, w->real_ns, w->form, frame - COMPACT_HEAD_BYTES, padded);
}

static void send_frame(const struct way *w, uint8_t *frame, size_t size, const struct frame_meta *m)
{
    struct gso g;
    if (m->gso_type == GSO_NONE) {
        send_piece(w, frame, size, m, 0, true);
        return;
    }
    gso_open(&g, frame, size, m);
    for (unsigned i = 0; i < g.n; i++) {
        size_t n;
        uint8_t *segment = gso_segment(&g, i, &n);
        send_piece(w, segment, n, m, i, i + 1 == g.n);
    }
}

void tunnel_frame(struct tunnel *t, int64_t now_ms, int64_t real_ns, uint32_t vni, uint8_t *frame, size_t size,
                  const struct frame_meta *m)
{
    struct network_state *n = map_find_n(&t->networks, &vni, sizeof vni);
    struct frame_meta meta = *m;
    uint32_t addr;
    if (!n) {
        t->n_dropped++;
        return;
    }
    if (frame_arp_request(frame, size, &addr)) {
        uint8_t reply[42];
        struct frame_meta whole = { 0 };
        if (!map_find_n(&n->routes, &addr, sizeof addr))
            return; /* a neighbour on this node answers itself */
        frame_arp_reply(reply, frame);
        write_one(t, n, &whole, reply, sizeof reply);
        return;
    }
    if (!frame_destination(frame, size, &addr))
        return;
    struct tunnel_peer_state *p = map_find_n(&n->routes, &addr, sizeof addr);
    if (!p || !frame_meta_check(&meta, frame, size)) {
        t->n_dropped++;
        return;
    }
    send_frame(&(struct way){ t, now_ms, real_ns, vni, p, peer_form(&p->peer, now_ms) }, frame, size, &meta);
}

void tunnel_packet(struct tunnel *t, int64_t now_ms, int64_t real_ns, const struct endpoint *from, uint8_t *p, size_t size)
{
    if (!t->configured || size < 32 || p[1] || p[2] || p[3])
        return;
    if (p[0] == 1 && size == IK_INITIATION_BYTES) {
        struct ik_handshake hs;
        uint8_t key[32], stamp[IK_TIMESTAMP_BYTES], source[18], cookie[IK_COOKIE_BYTES];
        if (!ik_mac1_good(&t->id, p, size))
            return;
        memcpy(source, from->addr, 16);
        source[16] = (uint8_t)(from->port >> 8);
        source[17] = (uint8_t)from->port;
        enum cookie_verdict v = cookie_check(&t->guard, &t->id, now_ms, source, sizeof source, p, cookie);
        if (v == COOKIE_REPLY)
            t->out.send(t->out.arg, from, cookie, sizeof cookie);
        if (v != COOKIE_PASS)
            return;
        if (!ik_read_initiation(&hs, &t->id, p, key, stamp))
            return;
        struct tunnel_peer_state *s = map_find_n(&t->peers, key, 32);
        if (s)
            peer_initiated(&s->peer, now_ms, from, &hs, stamp);
        crypto_wipe(&hs, sizeof hs);
        return;
    }
    const uint8_t *index = p[0] == 2 ? p + 8 : p + 4; /* of the receiver */
    uint32_t slot = (uint32_t)index[1] | (uint32_t)index[2] << 8 | (uint32_t)index[3] << 16;
    if (slot < t->n_slots && t->slots[slot])
        peer_receive(&t->slots[slot]->peer, now_ms, real_ns, from, p, size);
}

void tunnel_tick(struct tunnel *t, int64_t now_ms, int64_t real_ns)
{
    for (struct map_item *it = NULL; (it = map_next(&t->peers, it));)
        peer_tick(&((struct tunnel_peer_state *)it->value)->peer, now_ms, real_ns);
}

void tunnel_status(const struct tunnel *t, int64_t now_ms, void (*format)(const struct endpoint *e, char out[80]),
                   struct tunnel_status *ret)
{
    ret->n_dropped = t->n_dropped;
    for (struct map_item *it = NULL; (it = map_next(&t->peers, it));) {
        const struct tunnel_peer_state *p = it->value;
        struct tunnel_peer_status *s = REC_ADD(&ret->peers);
        char text[80];
        s->key = (struct bytes){ xmemdup(p->peer.key, 32), 32 };
        if (p->peer.endpoint.known) {
            format(&p->peer.endpoint, text);
            str_set(&s->endpoint, text);
        }
        static const char *const forms[] = { [PEER_WIREGUARD] = "wireguard", [PEER_CHACHA] = "chacha", [PEER_AES] = "aes" };
        str_set(&s->form, forms[peer_form(&p->peer, now_ms)]);
        s->handshake_ms = p->peer.handshake_ms ? now_ms - p->peer.handshake_ms : -1;
        s->rx_bytes = p->peer.rx_bytes;
        s->tx_bytes = p->peer.tx_bytes;
        ret->n_dropped += p->peer.n_dropped;
    }
}
