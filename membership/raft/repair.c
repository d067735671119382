/* A node whose log or snapshot lost something that was durable (consensus.md 3.3, after "Protocol-Aware Recovery",
 * FAST'18). Its term and vote are safe, so it follows, but it may have forgotten entries that are committed only
 * because it had them. While damaged it neither campaigns nor votes, and the leader counts nothing it holds.
 *
 * Each answer of a damaged node carries a number drawn at its start. The leader that hears it for the first time
 * forgets what the node had acknowledged (a new session, match 0) and notes the end of its own log: all the node
 * ever acknowledged to a leader of this or an earlier term, and that counts, lies up to there, for no leader was
 * elected by the node's vote since. Heartbeats tell the node that end. When its log, compared with the leader's in
 * this same term, is durable up to it, the node is whole: that is written down first, then it votes again. */
#include "internal.h"

/* ---- the damaged node ---- */

void raft_repair_boot(struct raft *r, bool damaged)
{
    r->damaged = damaged;
    r->repair_nonce = damaged ? rng_u64(&r->rng) | 1 : 0;
}

void raft_repair_reply(const struct raft *r, struct raft_message *reply)
{
    if (!r->damaged)
        return;
    reply->flags |= RAFT_FLAG_DAMAGED;
    reply->total = r->repair_nonce;
}

/* The log agrees with that of this term's leader up to `match`. */
void raft_repair_matched(struct raft *r, uint64_t match)
{
    if (!r->damaged)
        return;
    r->repair_match = r->repair_match_term == r->term ? MAX(r->repair_match, match) : match;
    r->repair_match_term = r->term;
}

/* A heartbeat on its way names a commit up to what this node acknowledged before it lost that; what lies there now may
 * be a branch that had been truncated, and the loss took the truncation. */
uint64_t raft_repair_agreed(const struct raft *r)
{
    return !r->damaged ? UINT64_MAX : r->repair_match_term == r->term ? r->repair_match : 0;
}

void raft_repair_target(struct raft *r, const struct raft_message *m)
{
    if (!r->damaged || !(m->flags & RAFT_FLAG_DAMAGED) || m->index != r->repair_nonce)
        return;
    r->repair_to = m->total;
    r->repair_term = r->term;
}

/* At the end of each step. */
void raft_repair_progress(struct raft *r)
{
    if (!r->damaged || r->whole_asked || r->installing || r->repair_term != r->term ||
        r->repair_match_term != r->term || 
        (RAFT_BUG != 11 && (r->repair_match < r->repair_to || r->durable < r->repair_to)))
        return;
    r->whole_asked = true;
    r->out->write.whole = true;
}

void raft_repair_durable(struct raft *r)
{
    if (r->whole_asked && r->whole_token && r->whole_token <= r->done_token) {
        r->damaged = r->whole_asked = false;
        r->out->changed = true;
    }
}

/* ---- its leader ---- */

static void begin(struct raft *r, struct raft_peer *p, uint64_t nonce)
{
    p->damaged = true;
    p->repair_nonce = nonce;
    p->repair_to = raft_log_last(&r->log);
    p->session = rng_u64(&r->rng); /* acknowledgements of its earlier life are still under way */
    p->match = p->read_acked = p->commit_sent = 0;
    p->state = RAFT_PEER_PROBE;
    p->next = raft_log_last(&r->log) + 1;
    p->n_flights = 0;
    p->probe_ms = 0;
    raft_buf_unref(TAKE(p->image));
    raft_heartbeat(r, p);
    raft_peer_send(r, p);
}

bool raft_repair_heard(struct raft *r, struct raft_peer *p, const struct raft_message *m)
{
    bool damaged = m->flags & RAFT_FLAG_DAMAGED, was = p->damaged;
    if (damaged && m->total != p->repair_nonce) {
        begin(r, p, m->total);
        return false;
    }
    p->damaged = damaged;
    if (was && !damaged)
        raft_maybe_commit(r); /* what it holds counts again */
    return r->role == RAFT_LEADER;
}

void raft_repair_heartbeat(const struct raft_peer *p, struct raft_message *m)
{
    if (!p->damaged)
        return;
    m->flags |= RAFT_FLAG_DAMAGED;
    m->index = p->repair_nonce;
    m->total = p->repair_to;
}
