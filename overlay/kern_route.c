/* The door to rtnetlink's policy rules: the ways back over the ingress network, in the present namespace. For each node a
 * rule (packets with its mark) and a table of the same number:
 *   5300  not marked as ours   goto 5302     one step for all other packets, however many nodes there are
 *   5301  marked for a node    its table     throw PASS, default via its foot
 *   5302  nop */
#include "overlay_internal.h"
#include <arpa/inet.h>
#include <linux/fib_rules.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <string.h>
#include <sys/socket.h>

enum { PRIORITY_SKIP = 5300, PRIORITY_WAY = 5301, PRIORITY_END = 5302 };

struct found { struct map ways; /* of marks */ bool skip, end; };

static void way_key(char out[16], uint32_t mark)
{
    snprintf(out, 16, "%x", mark);
}

static int on_rule(struct nl_msg *m, void *arg)
{
    struct found *f = arg;
    struct nlattr *a[FRA_MAX + 1];
    char key[16];
    if (nlmsg_parse(nlmsg_hdr(m), sizeof(struct fib_rule_hdr), a, FRA_MAX, NULL) < 0 || !a[FRA_PRIORITY])
        return NL_OK;
    uint32_t priority = nla_get_u32(a[FRA_PRIORITY]), mark = a[FRA_FWMARK] ? nla_get_u32(a[FRA_FWMARK]) : 0;
    f->skip |= priority == PRIORITY_SKIP && mark == WAY_MARK;
    f->end |= priority == PRIORITY_END;
    if (priority == PRIORITY_WAY && (mark & WAY_MASK) == WAY_MARK) {
        way_key(key, mark);
        map_put(&f->ways, key, (void *)(uintptr_t)mark);
    }
    return NL_OK;
}

static int find_rules(struct nl_sock *s, struct found *f)
{
    struct fib_rule_hdr head = { .family = AF_INET };
    struct nl_msg *m = nlmsg_alloc_simple(RTM_GETRULE, NLM_F_DUMP);
    int r = m ? nlmsg_append(m, &head, sizeof head, NLMSG_ALIGNTO) : -NLE_NOMEM;
    nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, on_rule, f);
    if (r == 0)
        r = nl_send_auto(s, m);
    nlmsg_free(m);
    return r < 0 ? r : nl_recvmsgs_default(s);
}

/* mark 0: matches all. table 0: none. */
static int send_rule(struct nl_sock *s, int type, uint32_t priority, struct fib_rule_hdr head, uint32_t mark, uint32_t mask, uint32_t table,
                     uint32_t target)
{
    struct nl_msg *m = nlmsg_alloc_simple(type, type == RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0);
    head.family = AF_INET;
    int r = m ? nlmsg_append(m, &head, sizeof head, NLMSG_ALIGNTO) : -NLE_NOMEM;
    if (r == 0)
        r = nla_put_u32(m, FRA_PRIORITY, priority);
    if (r == 0 && mark)
        r = nla_put_u32(m, FRA_FWMARK, mark);
    if (r == 0 && mark)
        r = nla_put_u32(m, FRA_FWMASK, mask);
    if (r == 0 && table)
        r = nla_put_u32(m, FRA_TABLE, table);
    if (r == 0 && target)
        r = nla_put_u32(m, FRA_GOTO, target);
    if (r < 0) {
        nlmsg_free(m);
        return r;
    }
    r = nl_send_sync(s, m); /* frees the message */
    return r == -NLE_EXIST || (r == -NLE_OBJ_NOTFOUND && type == RTM_DELRULE) ? 0 : r;
}

static int send_route(struct nl_sock *s, int type, uint32_t table, int kind, uint32_t to, unsigned bits, uint32_t via, unsigned link)
{
    struct rtmsg head = { .rtm_family = AF_INET, .rtm_dst_len = (unsigned char)bits, .rtm_table = RT_TABLE_UNSPEC, .rtm_protocol = RTPROT_STATIC,
                          .rtm_scope = type == RTM_DELROUTE ? RT_SCOPE_NOWHERE : RT_SCOPE_UNIVERSE, .rtm_type = (unsigned char)kind };
    struct nl_msg *m = nlmsg_alloc_simple(type, type == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_EXCL : 0);
    int r = m ? nlmsg_append(m, &head, sizeof head, NLMSG_ALIGNTO) : -NLE_NOMEM;
    if (r == 0)
        r = nla_put_u32(m, RTA_TABLE, table);
    if (r == 0 && bits)
        r = nla_put_u32(m, RTA_DST, htonl(to));
    if (r == 0 && via)
        r = nla_put_u32(m, RTA_GATEWAY, htonl(via));
    if (r == 0 && link)
        r = nla_put_u32(m, RTA_OIF, link);
    if (r < 0) {
        nlmsg_free(m);
        return r;
    }
    r = nl_send_sync(s, m);
    return r == -NLE_EXIST || (r == -NLE_OBJ_NOTFOUND && type == RTM_DELROUTE) ? 0 : r;
}

static int make_way(struct nl_sock *s, uint32_t foot, unsigned link, uint32_t pass, unsigned bits, bool has_rule)
{
    const struct fib_rule_hdr to_table = { .action = FR_ACT_TO_TBL };
    uint32_t mark = plan_way_mark(foot);
    int r = send_route(s, RTM_NEWROUTE, mark, RTN_THROW, pass, bits, 0, 0);
    if (r == 0)
        r = send_route(s, RTM_NEWROUTE, mark, RTN_UNICAST, 0, 0, foot, link);
    return r == 0 && !has_rule ? send_rule(s, RTM_NEWRULE, PRIORITY_WAY, to_table, mark, UINT32_MAX, mark, 0) : r;
}

static int remove_way(struct nl_sock *s, uint32_t mark, uint32_t pass, unsigned bits)
{
    const struct fib_rule_hdr to_table = { .action = FR_ACT_TO_TBL };
    int r = send_rule(s, RTM_DELRULE, PRIORITY_WAY, to_table, mark, UINT32_MAX, mark, 0);
    if (r == 0)
        r = send_route(s, RTM_DELROUTE, mark, RTN_THROW, pass, bits, 0, 0);
    return r == 0 ? send_route(s, RTM_DELROUTE, mark, RTN_UNICAST, 0, 0, 0, 0) : r;
}

int route_ways(const uint32_t *feet, uint32_t n, const char *link, uint32_t pass, unsigned bits, struct err *e)
{
    const struct fib_rule_hdr skip = { .action = FR_ACT_GOTO, .flags = FIB_RULE_INVERT }, end = { .action = FR_ACT_NOP };
    struct found f = { 0 };
    struct nl_sock *s = nl_socket_alloc();
    unsigned index = if_nametoindex(link);
    char key[16];
    map_init(&f.ways);
    int r = s ? nl_connect(s, NETLINK_ROUTE) : -NLE_NOMEM;
    if (r == 0)
        r = find_rules(s, &f);
    if (r == 0 && n && !f.end)
        r = send_rule(s, RTM_NEWRULE, PRIORITY_END, end, 0, 0, 0, 0);
    if (r == 0 && n && !f.skip)
        r = send_rule(s, RTM_NEWRULE, PRIORITY_SKIP, skip, WAY_MARK, WAY_MASK, 0, PRIORITY_END);
    for (uint32_t i = 0; i < n && s; i++) { /* one that cannot be made holds up no other */
        way_key(key, plan_way_mark(feet[i]));
        int made = make_way(s, feet[i], index, pass, bits, map_remove(&f.ways, key) != NULL);
        r = r == 0 ? made : r;
    }
    for (struct map_item *it = NULL; r == 0 && (it = map_next(&f.ways, it));)
        r = remove_way(s, (uint32_t)(uintptr_t)it->value, pass, bits);
    if (r == 0 && !n && f.skip)
        r = send_rule(s, RTM_DELRULE, PRIORITY_SKIP, skip, WAY_MARK, WAY_MASK, 0, PRIORITY_END);
    if (r == 0 && !n && f.end)
        r = send_rule(s, RTM_DELRULE, PRIORITY_END, end, 0, 0, 0, 0);
    map_done(&f.ways);
    if (s)
        nl_socket_free(s);
    return r < 0 ? err_set(e, E_INTERNAL, "routes back to nodes that calls come through: %s", nl_geterror(r)) : 0;
}
