/* Rules into the kernel: what changed; or the whole, when it is not known what stands or somebody else has changed it. */
#include "overlay_internal.h"
#include <shoal/base/log.h>

LOG_MODULE("overlay");

void rules_drop(struct map *standing, const char *key)
{
    rules_free(map_remove(standing, key));
}

/* 0: nothing was to be done. */
static int run(struct loop *l, const struct rules *before, const struct rules *rules, struct err *e)
{
    AUTO_SB struct sb commands = { 0 };
    sb_init(&commands, 0);
    if (before && rules_change(before, rules, &commands)) {
        if (!commands.len || nft_run(l, commands.s, e) == 0)
            return commands.len > 0;
        log_info("%s; all rules are set again", e->text);
        sb_reset(&commands);
    }
    rules_whole(rules, &commands);
    int r = nft_run(l, commands.s, e);
    return r < 0 ? r : 1;
}

int rules_apply(struct loop *l, struct map *standing, const char *key, const char *netns, struct rules *rules, struct err *e)
{
    int back = -1, r = 0;
    if (netns && (back = netns_enter(netns, e)) < 0)
        r = back;
    if (r == 0)
        r = run(l, map_find(standing, key), rules, e);
    if (back >= 0)
        netns_leave(back);
    rules_drop(standing, key); /* after a failure it is not known what stands */
    if (r < 0)
        rules_free(rules);
    else
        map_put(standing, key, rules);
    return r;
}
