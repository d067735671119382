/* The tunnel under a hostile wire, a hostile container and a hostile peer. Oracles: whatever is injected, damaged and replayed packets
 * of the real conversation included, frames come out once, unchanged, and the two nodes can still talk afterwards;
 * a frame goes through VXLAN and back; what is cut of a super-packet is all of it;
 * whatever a peer says, what comes out is from it and fits its description. The first byte chooses; for the wire the rest is a recipe, since only real packets,
 * slightly damaged, get past the first check. */
#include "fuzz.h"

#include <stdio.h>

#define assert_true ASSERT
#define assert_int_equal(a, b) ASSERT((a) == (b))
#include "../unit/super.h"

struct recipe { const uint8_t *p; size_t size; };

static unsigned next(struct recipe *r)
{
    if (!r->size)
        return 0;
    r->size--;
    return *r->p++;
}

static uint64_t sent[NODES], sum[NODES];

static void talk(int from)
{
    send_frame(from, ++sent[from]);
    sum[from] += sent[from];
    run_for(50);
}

/* A packet of the conversation so far, with some bytes changed, cut or grown, to either node from anywhere. */
static void inject_damaged(struct recipe *r)
{
    struct wire_node *from = &w.n[next(r) % NODES];
    unsigned type = 1 + next(r) % 4;
    uint8_t p[WIRE_BYTES] = { 0 };
    size_t size = from->last_size[type];
    memcpy(p, from->last[type], size);
    for (unsigned n = next(r) % 4; n > 0 && size; n--) {
        size_t at = next(r) % 3 ? next(r) % 32 : next(r) * size / 256;
        p[MIN(at, size - 1)] ^= (uint8_t)next(r);
    }
    if (next(r) % 4 == 0)
        size = next(r) * (size + 16) / 256;
    struct endpoint elsewhere = { .addr = { 198, 51, 100, 1 }, .port = 9, .known = true };
    inject((int)(next(r) % NODES), next(r) % 4 ? &from->address : &elsewhere, p, size);
    run_for(next(r) % 4 == 0 ? 1000 : 5);
}

static void check_delivery(void)
{
    for (int i = 0; i < NODES; i++)
        ASSERT(w.n[!i].n_frames == sent[i] && w.n[!i].sum == sum[i]);
}

static void wire_by_recipe(const uint8_t *p, size_t size)
{
    struct recipe r = { p, size };
    memset(sent, 0, sizeof sent);
    memset(sum, 0, sizeof sum);
    wire_setup(NULL);
    talk(0);
    talk(1);
    check_delivery();
    for (unsigned n = 0; n < 12 && r.size; n++) {
        inject_damaged(&r);
        if (next(&r) % 4 == 0)
            talk((int)(next(&r) % NODES));
    }
    /* A replayed initiation can cost a moment, no more. */
    run_for(11000);
    talk(0);
    talk(1);
    run_for(11000);
    check_delivery();
    wire_teardown(NULL);
}

static void packet_as_is(const uint8_t *p, size_t size)
{
    wire_setup(NULL);
    inject(0, &w.n[1].address, p, size);
    ASSERT(!w.n[0].n_frames && !w.n[0].n_arp);
    wire_teardown(NULL);
}

static unsigned n_replies;

static bool on_reply(void *arg, uint32_t vni, const struct frame_meta *m, struct iovec *iov, unsigned n)
{
    const uint8_t *p = iov[1].iov_base;
    ASSERT(vni == VNI && n == 1 && !m->flags && !m->gso_type && iov[1].iov_len == 42 && p[12] == 8 && p[13] == 6 && p[21] == 2); /* an ARP reply */
    n_replies++;
    return true;
}

static void on_packet(void *arg, const struct endpoint *to, const uint8_t *p, size_t size)
{
    ASSERT(size == IK_INITIATION_BYTES && p[0] == 1); /* nothing in clear; the frame waits for the handshake */
}

static void frame_as_is(const uint8_t *p, size_t size)
{
    const struct tunnel_out out = { NULL, wire_room, on_packet, on_reply };
    wire_setup(NULL);
    tunnel_free(w.n[0].t);
    w.n[0].t = tunnel_new(&out, 0);
    node_configure(0, true);
    frame_into(0, VNI, p, size, NULL);
    frame_into(0, VNI + 1, p, size, NULL);
    wire_teardown(NULL);
}

static void vxlan(const uint8_t *p, size_t size)
{
    uint32_t vni, addr, from = node_addr(0), to = node_addr(1);
    uint8_t *frame;
    size_t n;
    AUTO_FREE uint8_t *copy = xmemdup(p, size);
    if (vxlan_parse(copy, size, from, to, &vni, &frame, &n))
        ASSERT(frame >= copy && frame + n <= copy + size && vni <= 0xffffff);
    if (frame_destination(p, size, &addr))
        ASSERT(size >= ETHERNET_HEAD_BYTES);
    uint8_t reply[42];
    if (frame_arp_request(p, size, &addr))
        frame_arp_reply(reply, p);
    /* As a frame: there and back. */
    AUTO_FREE uint8_t *packet = xcalloc(VXLAN_HEAD_BYTES + size, 1);
    if (size < ETHERNET_HEAD_BYTES || size > 60000)
        return;
    vxlan_head(packet, VNI, from, to, p, size);
    memcpy(packet + VXLAN_HEAD_BYTES, p, size);
    ASSERT(vxlan_parse(packet, VXLAN_HEAD_BYTES + size, from, to, &vni, &frame, &n));
    ASSERT(vni == VNI && n == size && memcmp(frame, p, size) == 0);
    ASSERT(!vxlan_parse(packet, VXLAN_HEAD_BYTES + size, to, from, &vni, &frame, &n)); /* a peer speaks for itself only */
}

/* A description (10 bytes) and a frame, as a container with a packet socket may give them to its kernel, and that to us. */
static void super_as_is(const uint8_t *p, size_t size)
{
    struct frame_meta m;
    if (size < sizeof m)
        return;
    memcpy(&m, p, sizeof m);
    p += sizeof m;
    size -= sizeof m;
    AUTO_FREE uint8_t *frame = xmemdup(p, size);
    if (!frame_meta_check(&m, frame, size))
        return;
    if (!m.gso_type) {
        if (m.flags)
            frame_checksum(&m, frame, size);
        return;
    }
    struct gso g;
    size_t at = m.hdr_len, n;
    gso_open(&g, frame, size, &m);
    for (unsigned i = 0; i < g.n; i++) {
        const uint8_t *s = gso_segment(&g, i, &n);
        ASSERT(n > m.hdr_len && n <= (size_t)m.hdr_len + m.gso_size && at + n - m.hdr_len <= size);
        ASSERT(memcmp(s + m.hdr_len, p + at, n - m.hdr_len) == 0);
        at += n - m.hdr_len;
    }
    ASSERT(at == size);
}

/* Pieces by a peer that has keys: a byte of length, and so much of what is left. */
static void peer_by_recipe(const uint8_t *p, size_t size)
{
    struct recipe r = { p, size };
    wire_setup(NULL);
    w.n[1].takes = next(&r) & (TAP_CSUM | TAP_TSO | TAP_USO);
    sound_refuses = next(&r) & 1;
    rogue_begin(PEER_CAN_COMPACT);
    while (r.size) {
        size_t n = next(&r);
        n = MIN(n, r.size);
        rogue_piece(r.p, n);
        r.p += n;
        r.size -= n;
    }
    flush_held();
    peer_done(&rogue);
    wire_teardown(NULL);
}

static void (*const forms[])(const uint8_t *p, size_t size) = { wire_by_recipe, packet_as_is, frame_as_is, vxlan, super_as_is, peer_by_recipe };

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    if (size)
        forms[p[0] % ARRAY_N(forms)](p + 1, size - 1);
    return 0;
}

const unsigned fuzz_rounds = 40;
const char *const fuzz_words[] = { "\xff\xff\xff\xff\xff\xff", "\x08\x06", "\x08\x00\x45", "\x02\x42\x0a\x01\x00\x03", NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    unsigned form = (unsigned)rng_below(g, ARRAY_N(forms));
    uint8_t p[2000];
    size_t size = rng_range(g, 20, 200);
    rng_bytes(g, p, size);
    if (forms[form] == frame_as_is) {
        static const uint8_t arp[28] = { 0, 1, 8, 0, 6, 4, 0, 1, 2, 0x42, 10, 1, 0, 2, 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 10, 1, 0, 3 };
        memset(p, 0xff, 6);
        memcpy(p + 6, "\x02\x42\x0a\x01\x00\x02\x08\x06", 8);
        memcpy(p + 14, arp, sizeof arp);
        size = 42;
        unsigned before = n_replies;
        frame_as_is(p, size);
        ASSERT(n_replies == before + 1);
    } else if (forms[form] == packet_as_is) {
        p[0] = (uint8_t)rng_range(g, 1, 4);
        memset(p + 1, 0, 3);
        size = p[0] == 1 ? IK_INITIATION_BYTES : p[0] == 2 ? IK_RESPONSE_BYTES : p[0] == 3 ? IK_COOKIE_BYTES : size;
    }
    if (forms[form] == super_as_is || forms[form] == peer_by_recipe) {
        static uint8_t frame[SUPER_MAX];
        const struct super s = { .v6 = rng_below(g, 2), .udp = rng_below(g, 2), .payload = rng_range(g, 61, 150), .mss = 60, .flags = 0x18 };
        struct frame_meta m;
        size_t n = make_super(g, &s, frame, &m);
        if (forms[form] == super_as_is) {
            memcpy(p, &m, sizeof m);
            memcpy(p + sizeof m, frame, n);
            size = sizeof m + n;
            super_as_is(p, size);
        } else {
            struct gso cut;
            gso_open(&cut, frame, n, &m);
            p[0] = 0xff;
            p[1] = (uint8_t)rng_below(g, 2);
            size = 2;
            for (unsigned i = 0; i < cut.n; i++) {
                const uint8_t *piece = gso_segment(&cut, i, &n);
                p[size++] = (uint8_t)(COMPACT_HEAD_BYTES + n);
                compact_head(p + size, VNI, &m, i, 0);
                memcpy(p + size + COMPACT_HEAD_BYTES, piece, n);
                size += COMPACT_HEAD_BYTES + n;
            }
            peer_by_recipe(p, size);
            ASSERT(n_sound_super == 1);
        }
    }
    sb_char(b, (char)form);
    sb_add(b, p, size);
}
