/* The door to libnftables: one batch of commands, all or nothing, in the present network namespace. */
#include "overlay_internal.h"
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <nftables/libnftables.h>
#include <shoal/base/library.h>
#include <string.h>
#include <sys/socket.h>

#define NFT_CALLS(F) \
    F(ctx_buffer_error) F(ctx_buffer_output) F(ctx_free) F(ctx_get_error_buffer) F(ctx_new) F(run_cmd_from_buffer)
static struct {
#define F(name) __typeof__(nft_##name) *name;
    NFT_CALLS(F)
#undef F
} libnftables;
static struct library library = LIBRARY(LIBNFTABLES_FILE, "libnftables1", "nft_", NFT_CALLS, libnftables);

/* Closing the socket waits until every processor has let go of the rules replaced, about 20 ms: not on the loop. */
static void end_work(void *arg)
{
    libnftables.ctx_free(arg);
}

int nft_run(struct loop *l, const char *commands, struct err *e)
{
    int r = library_load(&library, e);
    if (r < 0)
        return r;
    struct nft_ctx *c = libnftables.ctx_new(NFT_CTX_DEFAULT);
    if (!c)
        return err_set(e, E_INTERNAL, "nftables: cannot start");
    libnftables.ctx_buffer_output(c);
    libnftables.ctx_buffer_error(c);
    if (libnftables.run_cmd_from_buffer(c, commands) != 0) {
        const char *text = libnftables.ctx_get_error_buffer(c);
        r = err_set(e, E_INTERNAL, "nftables refused the rules: %.300s", text && *text ? text : "no reason given");
    }
    if (loop_work(l, LANE_BULK, end_work, NULL, c) < 0)
        libnftables.ctx_free(c);
    return r;
}

static int on_rule(struct nl_msg *m, void *arg)
{
    (void)m;
    ++*(int *)arg;
    return NL_OK;
}

/* By a message of its own: libnftables would read the rules of everybody first. */
int nft_count_rules(void)
{
    struct nfgenmsg head = { .nfgen_family = AF_INET, .version = NFNETLINK_V0 };
    struct nl_sock *s = nl_socket_alloc();
    struct nl_msg *m = nlmsg_alloc_simple(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE, NLM_F_DUMP);
    int n = 0, r = s && m && nlmsg_append(m, &head, sizeof head, NLMSG_ALIGNTO) == 0 ? nla_put_string(m, NFTA_RULE_TABLE, RULES_TABLE_NAME)
                                                                                    : -NLE_NOMEM;
    if (r == 0)
        r = nl_connect(s, NETLINK_NETFILTER);
    if (r == 0) {
        nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, on_rule, &n);
        r = nl_send_auto(s, m);
    }
    if (r >= 0)
        r = nl_recvmsgs_default(s);
    nlmsg_free(m);
    if (s)
        nl_socket_free(s);
    return r < 0 ? -1 : n;
}
