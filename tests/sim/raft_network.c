/* Links: each direction of each pair on its own. */
#include "sim_raft.h"

void network_send(struct node *from, uint64_t to, const void *bytes, size_t size)
{
    int slot = slot_of(to);
    check_promise(from, bytes, size);
    if (slot < 0)
        return; /* that identity is gone */
    unsigned a = SLOT(from), b = (unsigned)slot;
    g.n.messages++;
    bool calm = g.calm;
    if (calm && !(from->inside && g.nodes[b].inside))
        g.calm = false; /* outside the healed part everything stays as bad as it was */
    bool lost = strikes(S_NET, F_LOSS), old = strikes(S_NET, F_OLD);
    unsigned copies = 1 + strikes(S_NET, F_COPY);
    if (lost || g.links[a][b] == LINK_SHUT || (g.links[a][b] == LINK_NARROW && size > RAFT_MESSAGE_HEADER_BYTES))
        copies = old; /* what was lost may yet come, much later */
    for (unsigned i = 0; i < copies; i++) {
        int64_t delay = (int64_t)pick(S_NET, 100, 2 * g.o.delay_us) + g.clog_us[a][b];
        if (strikes(S_NET, F_REORDER))
            delay *= (int64_t)pick(S_NET, 2, 30);
        if (old)
            delay += (int64_t)pick(S_NET, 100000, chance(S_NET, 200) ? 4000000 : 1000000);
        push((struct event){.at_us = g.now_us + delay, .type = EV_DELIVER, .node = b, .from = a, .from_id = from->id,
                            .life = from->n_put_back, .bytes = xmemdup(bytes, size), .size = size});
    }
    g.calm = calm;
}

void network_heal(void)
{
    memset(g.links, 0, sizeof(g.links));
    memset(g.clog_us, 0, sizeof(g.clog_us));
}

void network_heal_inside(void)
{
    for (unsigned i = 0; i < g.o.n; i++)
        for (unsigned k = 0; k < g.o.n; k++)
            if (g.nodes[i].inside && g.nodes[k].inside)
                g.links[i][k] = LINK_OPEN, g.clog_us[i][k] = 0;
}

/* Cuts links in one of the ways that have broken other implementations (consensus.md 1.2 no. 15). */
void network_part(void)
{
    enum { SIDES, ALONE, MUTE, DEAF, BRIDGE, CHAIN, HUB, LINKS, NARROW, KINDS };
    static const enum fault kind_of[KINDS] = {F_SPLIT, F_SPLIT, F_ONEWAY, F_ONEWAY, F_PARTIAL, F_PARTIAL, F_PARTIAL,
                                              F_ONEWAY, F_PARTIAL};
    unsigned kind = (unsigned)pick(S_FAULT, 0, KINDS - 1), a = (unsigned)pick(S_FAULT, 0, g.o.n - 1);
    uint64_t side = rng_u64(&g.rng[S_FAULT]);
    struct node *leader = some_leader();
    if (leader && chance(S_FAULT, 600))
        a = SLOT(leader);
    if (!g.o.on[kind_of[kind]])
        return;
    network_heal();
    for (unsigned i = 0; i < g.o.n; i++) {
        for (unsigned k = 0; k < g.o.n; k++) {
            bool cut = (side >> i & 1) != (side >> k & 1);
            unsigned gap = i > k ? i - k : k - i;
            bool shut = false;
            switch (kind) {
            case SIDES: shut = cut; break;
            case ALONE: shut = i == a || k == a; break;
            case MUTE: shut = i == a; break;
            case DEAF: shut = k == a; break;
            case BRIDGE: shut = cut && i != a && k != a; break;
            case CHAIN: shut = gap > 1 && gap < g.o.n - 1; break;
            case HUB: shut = i != a && k != a; break;
            case LINKS: shut = side >> ((i * 7 + k) % 61) & 1; break;
            case NARROW: shut = i == a; break; /* its path has a smaller MTU than it believes */
            }
            g.links[i][k] = !shut ? LINK_OPEN : kind == NARROW ? LINK_NARROW : LINK_SHUT;
        }
    }
    say("partition of kind %u around node %u", kind, a);
}
