/* A trace on this node: the steps of trace.c, then what the kernel has of them, the tunnel's word on each peer, and echo
 * requests (RFC 792) out of the container's own namespace, small ones and ones as large as the network allows. */
#include "trace.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 1000, AGAIN_MS = 250, HEADERS_BYTES = 28, SMALL_BYTES = 56, PACKET_BYTES = 65536 };

struct echo { uint32_t addr; bool small, large; };
struct trace_run {
    struct list_node node;
    struct trace_site site;
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_fd *watch;
    int fd, cause; /* of sending: errno of the first that failed */
    uint16_t id;
    unsigned large_bytes; /* of data */
    int64_t end_ms;
    uint64_t n_lost_before; /* that the tunnel told last: it counts since it began */
    struct echo echoes[TRACE_TARGETS_MAX];
    struct trace_target targets[TRACE_TARGETS_MAX];
    unsigned n;
    struct trace t;
    trace_done_fn *done;
    void *arg;
};

void trace_stop(struct trace_run *r)
{
    if (!r)
        return;
    list_remove(&r->node);
    loop_fd_remove(r->watch);
    loop_timer_free(r->timer);
    if (r->fd >= 0)
        close(r->fd);
    for (unsigned i = 0; i < r->n; i++)
        free((char *)(uintptr_t)r->targets[i].node_id);
    rec_clear(&trace_rec, &r->t);
    free(r);
}

/* ---- echo ---- */
static uint16_t checksum(const uint8_t *p, size_t size)
{
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)~(sum + (sum >> 16));
}

/* The sequence number says which target and which size. */
static void send_echo(struct trace_run *r, unsigned i, bool large)
{
    uint8_t p[PACKET_BYTES] = { ICMP_ECHO };
    size_t size = sizeof(struct icmphdr) + ((large ? r->large_bytes : SMALL_BYTES) & ~1u);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(r->targets[i].addr) };
    unsigned seq = 2 * i + large;
    p[4] = (uint8_t)(r->id >> 8);
    p[5] = (uint8_t)r->id;
    p[7] = (uint8_t)seq;
    uint16_t sum = checksum(p, size);
    p[2] = (uint8_t)(sum >> 8);
    p[3] = (uint8_t)sum;
    if (sendto(r->fd, p, size, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) < 0 && !r->cause)
        r->cause = errno;
}

static void send_missing(struct trace_run *r)
{
    for (unsigned i = 0; i < r->n; i++) {
        if (!r->echoes[i].small)
            send_echo(r, i, false);
        if (!r->echoes[i].large)
            send_echo(r, i, true);
    }
}

static bool is_answered(const struct trace_run *r)
{
    for (unsigned i = 0; i < r->n; i++)
        if (!r->echoes[i].small || !r->echoes[i].large)
            return false;
    return true;
}

static int open_echo(struct trace_run *r, const char *netns, struct err *e)
{
    int back = netns_enter(netns, e), probe = IP_PMTUDISC_PROBE;
    if (back < 0)
        return back;
    r->fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP);
    int error = errno;
    netns_leave(back);
    if (r->fd < 0 || setsockopt(r->fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof probe) < 0) /* whole or not at all */
        return err_errno(e, r->fd < 0 ? error : errno, "a socket for echo requests");
    return 0;
}

/* ---- what the kernel and the tunnel have ---- */
static void tunnel_step(struct trace_run *r, const struct trace_target *v, const char *node)
{
    const struct plan_input *in = r->site.in;
    const struct tunnel_status *s = r->site.status(r->site.arg);
    const struct tunnel_peer_status *peer = NULL;
    const struct node *n = NULL;
    char lost[128] = "";
    if (s && s->n_lost > r->n_lost_before)
        snprintf(lost, sizeof lost, "; since it was last asked %llu frames, to all nodes, were lost in it: too many for the wire, or refused by the kernel",
                 (unsigned long long)(s->n_lost - r->n_lost_before));
    for (uint32_t i = 0; i < in->a->nodes.n && !n; i++)
        n = str_equal(in->a->nodes.v[i].id, v->node_id) ? &in->a->nodes.v[i] : NULL;
    for (uint32_t i = 0; s && n && i < s->peers.n && !peer; i++)
        if (s->peers.v[i].key.n == n->tunnel_key.n && n->tunnel_key.n && memcmp(s->peers.v[i].key.v, n->tunnel_key.v, n->tunnel_key.n) == 0)
            peer = &s->peers.v[i];
    if (!n)
        trace_add(&r->t, TRACE_BROKEN, "tunnel", "this node knows no node %s", node);
    else if (!s)
        trace_add(&r->t, TRACE_BROKEN, "tunnel", "the tunnel process does not answer");
    else if (!peer)
        trace_add(&r->t, TRACE_BROKEN, "tunnel", "the tunnel has no key of %s yet", node);
    else if (peer->handshake_ms < 0)
        trace_add(&r->t, TRACE_BROKEN, "tunnel", "no handshake with %s at %s yet: does udp port %u reach it, and back?", node,
                  peer->endpoint ? peer->endpoint : n->status.addr, (unsigned)n->tunnel_port);
    else
        trace_add(&r->t, TRACE_OK, "tunnel", "to %s at %s, keys %lld s old%s", node, peer->endpoint, (long long)(peer->handshake_ms / 1000), lost);
}

static void bridge_step(struct trace_run *r, const struct trace_target *v, bool remote)
{
    AUTO_FREE char *path = r->site.network_path(r->site.arg, v->vni);
    struct err e;
    int back = netns_enter(path, &e);
    if (back < 0) {
        trace_add(&r->t, TRACE_BROKEN, "bridge", "the namespace of the network is not there: %s", e.text);
        return;
    }
    bool bridge = link_exists("br0"), tap = link_exists("tap0");
    netns_leave(back);
    if (!bridge || (remote && !tap))
        trace_add(&r->t, TRACE_BROKEN, "bridge", "the network lacks its %s on this node", bridge ? "TAP" : "bridge");
    else if (remote && !r->site.has_tap(r->site.arg, v->vni))
        trace_add(&r->t, TRACE_BROKEN, "bridge", "the tunnel does not hold the network's TAP");
    else
        trace_add(&r->t, TRACE_OK, "bridge", "stands, MTU %u", r->large_bytes + HEADERS_BYTES);
}

static void answer_step(struct trace_run *r, unsigned i, const char *node)
{
    const struct echo *x = &r->echoes[i];
    char text[32];
    address_format(text, r->targets[i].addr, -1);
    if (x->small && x->large)
        trace_add(&r->t, TRACE_OK, "answer", "%s answers, to packets of %u bytes too", text, r->large_bytes + HEADERS_BYTES);
    else if (x->small)
        trace_add(&r->t, TRACE_BROKEN, "answer", "%s answers to small packets, not to those of %u bytes: between this node and %s is a link "
                  "with a smaller MTU than it says", text, r->large_bytes + HEADERS_BYTES, node);
    else
        trace_add(&r->t, TRACE_BROKEN, "answer", "%s does not answer to an echo request within %d ms%s%s", text, WAIT_MS,
                  r->cause ? ": " : "; it may filter them", r->cause ? strerror(r->cause) : "");
}

static void finish(struct trace_run *r)
{
    const struct plan_input *in = r->site.in;
    for (unsigned i = 0; i < r->n; i++) {
        const struct trace_target *v = &r->targets[i];
        bool remote = v->node_id && !str_equal(v->node_id, in->node_id);
        const char *node = trace_node_name(in, v->node_id);
        bridge_step(r, v, remote);
        if (remote)
            tunnel_step(r, v, node);
        answer_step(r, i, node);
    }
    r->done(r->arg, &r->t);
    trace_stop(r);
}

void trace_abandon(struct list_node *runs)
{
    struct trace_run *r;
    list_for(r, runs, node) {
        trace_add(&r->t, TRACE_BROKEN, "node", "this node leaves its networks");
        r->done(r->arg, &r->t);
        trace_stop(r);
    }
}

static void on_timer(void *arg)
{
    struct trace_run *r = arg;
    if (!r->n || is_answered(r) || loop_now_ms(r->loop) >= r->end_ms) {
        finish(r);
        return;
    }
    send_missing(r); /* the first waits for a handshake of the tunnel, perhaps */
    loop_timer_set(r->timer, AGAIN_MS);
}

static void on_answer(void *arg, unsigned events)
{
    static uint8_t p[PACKET_BYTES];
    struct trace_run *r = arg;
    (void)events;
    for (int i = 0; i < 64; i++) { /* a container may flood itself; the rest is told of again */
        ssize_t n = recv(r->fd, p, sizeof p, MSG_DONTWAIT);
        if (n < 0)
            break;
        size_t head = (size_t)(p[0] & 15) * 4;
        if ((size_t)n < head + sizeof(struct icmphdr) || head < 20 || p[head] != ICMP_ECHOREPLY ||
            (p[head + 4] << 8 | p[head + 5]) != r->id || p[head + 6] || p[head + 7] >= 2 * r->n)
            continue;
        struct echo *x = &r->echoes[p[head + 7] / 2];
        if (p[head + 7] % 2)
            x->large = true;
        else
            x->small = true;
    }
    if (is_answered(r))
        loop_timer_set(r->timer, 0);
}

static bool wants_rules(const struct plan_input *in, const struct sandbox *s)
{
    struct rules *r = rules_new();
    bool any = plan_sandbox_rules(in, s, r);
    rules_free(r);
    return any;
}

struct trace_run *trace_start(struct loop *l, const struct trace_site *site, const struct sandbox *s, const char *netns, unsigned mtu,
                              const char *to, trace_done_fn *done, void *arg)
{
    struct trace_run *r = xnew(struct trace_run);
    struct err e;
    *r = (struct trace_run){ .site = *site, .loop = l, .fd = -1, .done = done, .arg = arg, .large_bytes = (mtu - HEADERS_BYTES) & ~1u };
    list_push_back(site->runs, &r->node);
    r->timer = loop_timer_new(l, on_timer, r);
    r->id = (uint16_t)((uintptr_t)r >> 4);
    r->end_ms = loop_now_ms(l) + WAIT_MS;
    const struct tunnel_status *last = site->status(site->arg);
    r->n_lost_before = last ? last->n_lost : UINT64_MAX; /* nothing is known to be new */
    str_set(&r->t.from, s->id);
    str_set(&r->t.to, to);
    r->n = trace_plan(site->in, s, to, &r->t, r->targets);
    for (unsigned i = 0; i < r->n; i++)
        r->targets[i].node_id = xstrdup(r->targets[i].node_id); /* the assignment may change meanwhile */
    int back = netns_enter(netns, &e);
    bool lacks = back >= 0 && wants_rules(site->in, s) && nft_count_rules() == 0;
    if (back >= 0)
        netns_leave(back);
    if (back < 0)
        trace_add(&r->t, TRACE_BROKEN, "container", "its network namespace is not there: %s", e.text);
    else if (lacks)
        trace_add(&r->t, TRACE_BROKEN, "rules", "none stand in the container's namespace: virtual IPs lead nowhere");
    if (r->n && back >= 0 && open_echo(r, netns, &e) == 0)
        r->watch = loop_fd_add(l, r->fd, LOOP_READ, on_answer, r);
    else if (r->n && back >= 0)
        trace_add(&r->t, TRACE_BROKEN, "answer", "%s", e.text);
    for (unsigned i = 0; !r->watch && i < r->n; i++)
        free((char *)(uintptr_t)r->targets[i].node_id);
    r->n = r->watch ? r->n : 0;
    loop_timer_set(r->timer, 0);
    return r;
}
