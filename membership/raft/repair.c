/* A node whose log or snapshot lost something that was durable (consensus.md 3.3, after "Protocol-Aware Recovery",
 * FAST'18). Its term and vote are safe, so it follows, but it may have forgotten entries that are committed only
 * because it had them. While damaged it neither campaigns nor votes, and the leader counts nothing it holds.
 *
 * Each answer of a damaged node carries a number drawn at its start. The leader that hears it for the first time
 * forgets what the node had acknowledged (a new session, match 0) and notes the end of its own log: all the node
 * ever acknowledged to a leader of this or an earlier term, and that counts, lies up to there, for no leader was
 * elected by the node's vote since. Heartbeats tell the node that end. When its log, compared with the leader's in
 * this same term, is durable up to it, the node is whole: that is written down first, then it votes again.
 *
 * A disk that was put back to an older copy (a machine's snapshot, a folder restored by hand) is consistent and looks
 * whole. What gives it away is its leader, which names a commit only up to what this node has acknowledged to it: where
 * the log ends before that, or disagrees there (a copy may hold a branch that was left later), something durable is no
 * more. From then on the node is damaged like any other. So after a start no commit is believed beyond what was compared
 * with this term's leader, and a node asks to be compared where there is nothing to append (sim_raft, seed 2106: a commit
 * on the wrong branch).
 * Nothing can show it while no leader remembers the node: numbers of starts do not help, since a copy is usually made in
 * the same life that it replaces, and to wait for the word of all the others would cost the cluster its only use. So it
 * holds as long as the leader lives that the node was following. That one speaks first, for a node refuses pre-votes for
 * a moment after its start. A copy has an older term and vote as well; all others are further by then, and nobody stands
 * in a term that a majority has left. */
#include "internal.h"

/* ---- the damaged node ---- */

void raft_repair_boot(struct raft *r, bool damaged)
{
    r->damaged = damaged;
    r->repair_nonce = damaged ? rng_u64(&r->rng) | 1 : 0;
    r->repair_term = 0; /* the goal of an earlier repair is none of this one */
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
    r->agreed = r->agreed_term == r->term ? MAX(r->agreed, match) : match;
    r->agreed_term = r->term;
}

uint64_t raft_repair_agreed(const struct raft *r)
{
    return r->agreed_term == r->term ? r->agreed : 0;
}

static void take_goal(struct raft *r, const struct raft_message *m)
{
    if (!(m->flags & RAFT_FLAG_DAMAGED) || m->index != r->repair_nonce)
        return;
    r->repair_to = m->total;
    r->repair_term = r->term;
}

static void lose(struct raft *r)
{
    if (r->damaged || r->installing || RAFT_BUG == 36)
        return;
    raft_repair_boot(r, true);
    r->out->write.lost = true;
    r->out->changed = true;
}

void raft_repair_heartbeat_heard(struct raft *r, const struct raft_message *m)
{
    if (r->damaged)
        take_goal(r, m);
    else if (m->commit > raft_log_last(&r->log))
        lose(r);
    r->named = r->named_term == r->term ? MAX(r->named, m->commit) : m->commit;
    r->named_term = r->term;
}

void raft_repair_disagreed(struct raft *r, uint64_t index)
{
    if (r->named_term == r->term && index <= r->named)
        lose(r);
}

/* At the end of each step. */
/* At the end of each step. */
void raft_repair_progress(struct raft *r)
{
    if (!r->damaged || r->whole_asked || r->installing || r->repair_term != r->term ||
        r->agreed_term != r->term ||
        (RAFT_BUG != 11 && (r->agreed < r->repair_to || r->durable < r->repair_to)))
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
