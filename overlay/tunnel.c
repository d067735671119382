/* The tunnel's core. A frame goes to the node whose address its destination MAC names; ARP for a known address
 * is answered here; other broadcast stays on the node: nothing is flooded or learned. A packet is taken only
 * from the peer whose tunnel address it carries (WireGuard's cryptokey routing). */
#include "tunnel.h"
#include "cookie.h"
#include "vxlan.h"
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
    struct map routes; /* 4 bytes of address -> struct tunnel_peer_state */
};
struct tunnel {
    struct tunnel_out out;
    struct peer_out peer_out;
    struct ik_identity id;
    struct cookie_guard guard;
    bool configured;
    uint32_t addr;
    struct map peers;    /* public key -> struct tunnel_peer_state */
    struct map networks; /* 4 bytes of VNI -> struct network_state */
    struct tunnel_peer_state **slots;
    uint32_t n_slots;
    uint64_t n_dropped;
};

static void on_send(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    struct tunnel *t = arg;
    t->out.send(t->out.arg, to, p, size);
}

static void on_deliver(void *arg, void *peer_arg, const uint8_t *p, size_t size)
{
    struct tunnel *t = arg;
    const struct tunnel_peer_state *from = peer_arg;
    const uint8_t *frame;
    uint32_t vni, source;
    size_t n;
    const struct network_state *network;
    /* From a peer comes only what is from an address that lives there (WireGuard's cryptokey routing, per network). */
    if (!vxlan_parse(p, size, from->addr, t->addr, &vni, &frame, &n) || !(network = map_find_n(&t->networks, &vni, sizeof vni)) ||
        !frame_source(frame, n, &source) || map_find_n(&network->routes, &source, sizeof source) != from) {
        t->n_dropped++;
        return;
    }
    t->out.frame(t->out.arg, vni, frame, n);
}

struct tunnel *tunnel_new(const struct tunnel_out *out)
{
    struct tunnel *t = xnew(struct tunnel);
    t->out = *out;
    t->peer_out = (struct peer_out){ t, on_send, on_deliver };
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
    peer_init(&p->peer, &t->id, key, slot, &t->peer_out, p);
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

void tunnel_frame(struct tunnel *t, int64_t now_ms, int64_t real_ns, uint32_t vni, const uint8_t *frame, size_t size)
{
    static uint8_t packet[VXLAN_HEAD_BYTES + PEER_PACKET_MAX_BYTES];
    struct network_state *n = map_find_n(&t->networks, &vni, sizeof vni);
    uint32_t addr;
    if (!n || size > PEER_PACKET_MAX_BYTES - VXLAN_HEAD_BYTES)
        return;
    if (frame_arp_request(frame, size, &addr)) {
        uint8_t reply[42];
        if (!map_find_n(&n->routes, &addr, sizeof addr))
            return; /* a neighbour on this node answers itself */
        frame_arp_reply(reply, frame);
        t->out.frame(t->out.arg, vni, reply, sizeof reply);
        return;
    }
    if (!frame_destination(frame, size, &addr))
        return;
    struct tunnel_peer_state *p = map_find_n(&n->routes, &addr, sizeof addr);
    if (!p) {
        t->n_dropped++;
        return;
    }
    vxlan_head(packet, vni, t->addr, p->addr, frame, size);
    memcpy(packet + VXLAN_HEAD_BYTES, frame, size);
    peer_send(&p->peer, now_ms, real_ns, packet, VXLAN_HEAD_BYTES + size);
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
        s->handshake_ms = p->peer.handshake_ms ? now_ms - p->peer.handshake_ms : -1;
        s->rx_bytes = p->peer.rx_bytes;
        s->tx_bytes = p->peer.tx_bytes;
        ret->n_dropped += p->peer.n_dropped;
    }
}
