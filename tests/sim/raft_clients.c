/* Clients. Every write carries a number of its own, so that it can be told where, and how often, it was applied. What a
 * client is told is checked at once: a write lies behind all that was acknowledged before it began, a read shows
 * them, what was refused never appears, nothing appears twice. With indexes known this is linearizability in one pass
 * (consensus.md 6.3). */
#include "sim_raft.h"

struct op {
    struct node *node;
    uint64_t cookie, floor;
    bool read, transfer;
};

static void done(void *arg, int result, uint64_t index)
{
    struct op *o = arg;
    o->node->n_ops--;
    o->node->n_reads -= o->read;
    if (o->transfer || g.ended) {
        free(o);
        return;
    }
    mix(o->cookie * 64 + (uint64_t)-result);
    if (o->read && !result) {
        CHECK(index >= o->floor, "stale read: index %llu, %llu was there before it began", U(index), U(o->floor));
        CHECK(o->node->applied <= g.applied, "a node is ahead of the cluster");
        g.read_index = MAX(g.read_index, index);
        g.n.reads++;
    } else if (!result) {
        CHECK(g.index_of[o->cookie] == index, "write %llu is acknowledged at %llu, but was applied at %llu", U(o->cookie),
              U(index), U(g.index_of[o->cookie]));
        CHECK(index > o->floor, "write %llu lies at %llu, before what was there when it began: %llu", U(o->cookie), U(index),
              U(o->floor));
        g.acked_index = MAX(g.acked_index, index);
        g.n.acked++;
    } else if (!o->read && result != -E_UNAVAILABLE) {
        CHECK(!g.index_of[o->cookie], "write %llu was refused and yet applied", U(o->cookie));
        g.refused[o->cookie] = true;
    }
    free(o);
}

void client_applied(struct node *n, uint64_t index, uint64_t term, const uint8_t *bytes, size_t size)
{
    uint64_t cookie = 0;
    CHECK(size >= 8, "node %u applies what nobody wrote", SLOT(n));
    memcpy(&cookie, bytes, 8);
    CHECK(cookie && cookie <= g.cookie && !g.refused[cookie], "node %u applies a write that was refused", SLOT(n));
    CHECK(!g.index_of[cookie] || g.index_of[cookie] == index, "write %llu is applied at %llu and at %llu", U(cookie),
          U(g.index_of[cookie]), U(index));
    g.index_of[cookie] = index;
}

void client(void)
{
    struct node *n = chance(S_CLIENT, 900) ? some_leader() : &g.nodes[pick(S_CLIENT, 0, g.o.n - 1)];
    unsigned what = (unsigned)pick(S_CLIENT, 0, 999), burst = (unsigned)pick(S_CLIENT, 1, 4);
    if (g.quiet || !n || !n->up || n->paused || g.cookie + burst >= COOKIES_MAX ||
        g.commit + 64 > INDEX_MAX || (!g.calm && !limit_take(&limits[L_OPS])))
        return;
    g.self = n;
    for (unsigned i = 0; i < burst; i++) {
        struct op *o = xnew(struct op);
        *o = (struct op){.node = n, .cookie = ++g.cookie, .floor = g.acked_index};
        n->n_ops++;
        if (what < g.o.writes) {
            uint8_t bytes[8 + 1024];
            size_t size = 8 + pick(S_CLIENT, 0, g.o.size);
            memcpy(bytes, &o->cookie, 8);
            memset(bytes + 8, (int)o->cookie, size - 8);
            raft_node_propose(n->raft, bytes, size, done, o);
        } else if (what < 970 || !g.o.on[F_TRANSFER] || g.calm) {
            o->read = true;
            n->n_reads++;
            o->floor = MAX(MAX(g.acked_index, g.read_index), g.commit);
            raft_node_read(n->raft, done, o);
        } else {
            o->transfer = true;
            raft_node_transfer(n->raft, chance(S_CLIENT, 500) ? 0 : g.nodes[pick(S_CLIENT, 0, g.o.n - 1)].id, done, o);
        }
        if (!n->up) /* it may have died of it */
            return;
    }
}
