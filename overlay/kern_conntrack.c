/* The door to ctnetlink: connections that the present namespace has sent to an address by NAT are forgotten, so
 * that their next packet is sent to another replica: a UDP flow goes on there, TCP is answered by a reset. A UDP flow
 * that began before its port was published would likewise stay with the host for ever. */
#include "overlay_internal.h"
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <stdlib.h>
#include <sys/socket.h>

LOG_MODULE("overlay");

enum { FLOWS_MAX = 1 << 20 };

struct search {
    const struct flow_end *ends;
    unsigned n_ends;
    const uint8_t *udp; /* may be NULL */
    struct nl_msg **deletes;
    unsigned n, cap;
};

static struct nl_msg *message(int type, int flags)
{
    struct nfgenmsg head = { .nfgen_family = AF_INET, .version = NFNETLINK_V0 };
    struct nl_msg *m = nlmsg_alloc_simple(NFNL_SUBSYS_CTNETLINK << 8 | type, flags);
    if (m && nlmsg_append(m, &head, sizeof head, NLMSG_ALIGNTO) < 0) {
        nlmsg_free(m);
        return NULL;
    }
    return m;
}

static bool is_answered_by(const struct search *s, struct nlattr *tuple)
{
    struct nlattr *t[CTA_TUPLE_MAX + 1], *ip[CTA_IP_MAX + 1], *p[CTA_PROTO_MAX + 1];
    if (!tuple || nla_parse_nested(t, CTA_TUPLE_MAX, tuple, NULL) < 0 || !t[CTA_TUPLE_IP] || !t[CTA_TUPLE_PROTO] ||
        nla_parse_nested(ip, CTA_IP_MAX, t[CTA_TUPLE_IP], NULL) < 0 || !ip[CTA_IP_V4_SRC] || nla_len(ip[CTA_IP_V4_SRC]) != 4 ||
        nla_parse_nested(p, CTA_PROTO_MAX, t[CTA_TUPLE_PROTO], NULL) < 0 || !p[CTA_PROTO_NUM] || nla_len(p[CTA_PROTO_NUM]) != 1)
        return false;
    uint32_t from = ntohl(nla_get_u32(ip[CTA_IP_V4_SRC]));
    bool has_port = p[CTA_PROTO_SRC_PORT] && nla_len(p[CTA_PROTO_SRC_PORT]) == 2;
    uint16_t port = has_port ? ntohs(nla_get_u16(p[CTA_PROTO_SRC_PORT])) : 0;
    for (unsigned i = 0; i < s->n_ends; i++)
        if (s->ends[i].addr == from && (!s->ends[i].port || (s->ends[i].port == port && s->ends[i].protocol == nla_get_u8(p[CTA_PROTO_NUM]))))
            return true;
    return false;
}

/* Without NAT, by UDP to one of the ports. */
static bool is_passed_by(const struct search *s, struct nlattr *tuple, struct nlattr *status)
{
    struct nlattr *t[CTA_TUPLE_MAX + 1], *p[CTA_PROTO_MAX + 1];
    if (!s->udp || !status || nla_len(status) != 4 || ntohl(nla_get_u32(status)) & IPS_NAT_MASK ||
        nla_parse_nested(t, CTA_TUPLE_MAX, tuple, NULL) < 0 || !t[CTA_TUPLE_PROTO] ||
        nla_parse_nested(p, CTA_PROTO_MAX, t[CTA_TUPLE_PROTO], NULL) < 0 || !p[CTA_PROTO_NUM] || !p[CTA_PROTO_DST_PORT] ||
        nla_len(p[CTA_PROTO_NUM]) != 1 || nla_get_u8(p[CTA_PROTO_NUM]) != IPPROTO_UDP || nla_len(p[CTA_PROTO_DST_PORT]) != 2)
        return false;
    return port_set_has(s->udp, ntohs(nla_get_u16(p[CTA_PROTO_DST_PORT])));
}

static int on_flow(struct nl_msg *m, void *arg)
{
    struct search *s = arg;
    struct nlattr *a[CTA_MAX + 1];
    if (nlmsg_parse(nlmsg_hdr(m), sizeof(struct nfgenmsg), a, CTA_MAX, NULL) < 0 || !a[CTA_TUPLE_ORIG] ||
        !(is_answered_by(s, a[CTA_TUPLE_REPLY]) || is_passed_by(s, a[CTA_TUPLE_ORIG], a[CTA_STATUS])) || s->n == FLOWS_MAX)
        return NL_OK;
    struct nl_msg *d = message(IPCTNL_MSG_CT_DELETE, 0);
    if (!d || nla_put(d, CTA_TUPLE_ORIG | NLA_F_NESTED, nla_len(a[CTA_TUPLE_ORIG]), nla_data(a[CTA_TUPLE_ORIG])) < 0 ||
        (a[CTA_ID] && nla_put(d, CTA_ID, nla_len(a[CTA_ID]), nla_data(a[CTA_ID])) < 0)) {
        nlmsg_free(d);
        return NL_OK;
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->deletes = xrealloc(s->deletes, s->cap, sizeof *s->deletes);
    }
    s->deletes[s->n++] = d;
    return NL_OK;
}

/* A dump walks the table of all namespaces, and most containers have no connection. The file shows the namespace that the
 * thread is in. True also when the kernel does not say. */
static bool has_flows(void)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    struct err e;
    return file_read("/proc/sys/net/netfilter/nf_conntrack_count", 64, &text, &size, &e) < 0 || strtoul(text, NULL, 10) > 0;
}

static int forget(const struct flow_end *ends, unsigned n, const uint8_t *udp, struct err *e)
{
    struct search s = { .ends = ends, .n_ends = n, .udp = udp };
    if (!has_flows())
        return 0;
    struct nl_sock *sock = nl_socket_alloc();
    struct nl_msg *dump = message(IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    const struct timeval most = { .tv_sec = 5 }; /* a lost answer holds up no other work */
    int r = sock && dump ? nl_connect(sock, NETLINK_NETFILTER) : -NLE_NOMEM;
    if (r == 0 && setsockopt(nl_socket_get_fd(sock), SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most) < 0)
        r = -NLE_FAILURE;
    if (r == 0) {
        nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, on_flow, &s);
        r = nl_send_auto(sock, dump);
    }
    if (r >= 0)
        r = nl_recvmsgs_default(sock);
    nlmsg_free(dump);
    for (unsigned i = 0; i < s.n; i++) {
        int d = r < 0 ? r : nl_send_sync(sock, s.deletes[i]); /* frees the message */
        if (r < 0)
            nlmsg_free(s.deletes[i]);
        else if (d < 0 && d != -NLE_OBJ_NOTFOUND) /* ended by itself: fine */
            r = d;
    }
    free(s.deletes);
    if (sock)
        nl_socket_free(sock);
    return r < 0 ? err_set(e, E_INTERNAL, "connections to a replica that is gone: %s", nl_geterror(r)) : 0;
}

struct job {
    char *netns;
    struct flow_end *ends;
    unsigned n;
    uint8_t *udp;
};

static void work(void *arg)
{
    struct job *j = arg;
    struct err e;
    int back = j->netns ? netns_enter(j->netns, &e) : -1, r = j->netns && back < 0 ? back : forget(j->ends, j->n, j->udp, &e);
    if (back >= 0)
        netns_leave(back);
    if (r < 0 && !(j->netns && !netns_exists(j->netns))) /* its end is the end of its connections */
        log_warn("%s", e.text);
    free(j->netns);
    free(j->ends);
    free(j->udp);
    free(j);
}

void conntrack_forget_later(struct loop *l, const char *netns, const struct flow_end *ends, unsigned n, const uint8_t *udp)
{
    struct job *j = xnew(struct job);
    j->netns = netns ? xstrdup(netns) : NULL;
    j->ends = xmemdup(ends, n * sizeof *ends);
    j->n = n;
    j->udp = udp ? xmemdup(udp, PORT_SET_BYTES) : NULL;
    if (loop_work(l, LANE_BULK, work, NULL, j) < 0)
        work(j);
}
