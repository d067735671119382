/* The door to libnftables: one batch of commands, all or nothing, in the present network namespace. */
#include "overlay_internal.h"
#include <nftables/libnftables.h>
#include <string.h>

/* Closing the socket waits until every processor has let go of the rules replaced, about 20 ms: not on the loop. */
static void end_work(void *arg)
{
    nft_ctx_free(arg);
}

int nft_run(struct loop *l, const char *commands, struct err *e)
{
    int r = 0;
    struct nft_ctx *c = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!c)
        return err_set(e, E_INTERNAL, "nftables: cannot start");
    nft_ctx_buffer_output(c);
    nft_ctx_buffer_error(c);
    if (nft_run_cmd_from_buffer(c, commands) != 0) {
        const char *text = nft_ctx_get_error_buffer(c);
        r = err_set(e, E_INTERNAL, "nftables refused the rules: %.300s", text && *text ? text : "no reason given");
    }
    if (loop_work(l, LANE_BULK, end_work, NULL, c) < 0)
        nft_ctx_free(c);
    return r;
}
