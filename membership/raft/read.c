/* Linearizable reads (ReadIndex, thesis 6.4) and leadership transfer (thesis 3.10). A read takes the
 * commit index, then a round of heartbeats confirms that this node still led afterwards. Rounds are
 * numbered, never reused, and a session id covers the leader's term, so a delayed reply cannot confirm
 * a later read (consensus.md 1.2 no. 3). Reads that arrive during a round share the next one. */
#include "internal.h"

static void read_result(struct raft *r, uint64_t cookie, int result, uint64_t index)
{
    struct raft_output *o = r->out;
    raft_result_add(&o->reads, &o->n_reads, &o->cap_reads, cookie, result, index, r->term);
}

void raft_on_read(struct raft *r, uint64_t cookie, bool more)
{
    if (r->role != RAFT_LEADER || r->n_reads >= RAFT_READS_MAX) {
        read_result(r, cookie, r->role != RAFT_LEADER ? -E_NOT_LEADER : -E_BUSY, 0);
        return;
    }
    RAFT_GROW(r->reads, r->n_reads, r->cap_reads);
    r->reads[r->n_reads++] = (struct raft_read){.cookie = cookie};
    bool round = false;
    for (uint32_t i = 0; i + 1 < r->n_reads; i++)
        round |= r->reads[i].seq && r->reads[i].seq <= r->read_seq;
    if (!round && !more)
        raft_reads_start(r);
    else if (r->commit >= r->term_start)
        r->reads[r->n_reads - 1].index = r->commit; /* seq follows with the next round */
}

/* Opens a round for all reads that are in none, once an entry of the own term has committed. */
void raft_reads_start(struct raft *r)
{
    bool any = false;
    for (uint32_t i = 0; i < r->n_reads; i++)
        any |= !r->reads[i].seq;
    if (!any || (r->commit < r->term_start && RAFT_BUG != 9))
        return;
    r->read_seq += RAFT_BUG != 18 || !r->read_seq;
    for (uint32_t i = 0; i < r->n_reads; i++) {
        struct raft_read *d = &r->reads[i];
        if (d->seq)
            continue;
        d->seq = r->read_seq;
        if (!d->index)
            d->index = r->commit;
    }
    raft_heartbeat_all(r);
    raft_reads_confirm(r);
}

static bool is_confirmed(const struct raft *r, uint64_t seq)
{
    uint32_t n = raft_is_voter(r);
    for (uint32_t i = 0; i < r->n_peers; i++)
        n += r->peers[i]->voter && r->peers[i]->read_acked >= seq;
    return n >= raft_quorum(r) || RAFT_BUG == 8;
}

void raft_reads_confirm(struct raft *r)
{
    uint32_t kept = 0;
    bool any = false, round = false;
    for (uint32_t i = 0; i < r->n_reads; i++) {
        struct raft_read *d = &r->reads[i];
        if (d->seq && is_confirmed(r, d->seq)) {
            read_result(r, d->cookie, 0, d->index);
            any = true;
        } else {
            round |= d->seq != 0;
            r->reads[kept++] = *d;
        }
    }
    r->n_reads = kept;
    if (any && kept && !round)
        raft_reads_start(r);
}

void raft_reads_fail(struct raft *r)
{
    for (uint32_t i = 0; i < r->n_reads; i++)
        read_result(r, r->reads[i].cookie, -E_UNAVAILABLE, 0);
    r->n_reads = 0;
}

/* ---- transfer ---- */

/* Enough voters can store more. */
bool raft_quorum_has_room(const struct raft *r)
{
    uint32_t n = raft_is_voter(r) && !r->short_of_space;
    for (uint32_t i = 0; i < r->n_peers; i++)
        n += r->peers[i]->voter && !r->peers[i]->short_of_space;
    return n >= raft_quorum(r);
}

/* The voter that has most of the log; of two alike the one whose disk has room. with_room: only such. */
struct raft_peer *raft_best_voter(const struct raft *r, bool with_room)
{
    struct raft_peer *best = NULL;
    for (uint32_t i = 0; i < r->n_peers; i++) {
        struct raft_peer *p = r->peers[i];
        if (p->voter && p->acked && !p->damaged && r->now_ms - p->ack_ms <= 2 * (int64_t)r->cfg.election_min_ms &&
            !(with_room && p->short_of_space) &&
            (!best || p->match > best->match ||
             (p->match == best->match && best->short_of_space && !p->short_of_space)))
            best = p;
    }
    return best;
}

void raft_send_timeout_now(struct raft *r, uint64_t to)
{
    struct raft_peer *p = raft_peer_find(r, to);
    struct raft_message *m = raft_send_new(r, to, RAFT_MSG_TIMEOUT_NOW, AFTER_NOTHING);
    m->session = p ? p->session : 0;
    m->request = p ? ++p->request : 0;
}

static void transfer_result(struct raft *r, uint64_t cookie, int result)
{
    struct raft_output *o = r->out;
    raft_result_add(&o->transfers, &o->n_transfers, &o->cap_transfers, cookie, result, 0, r->term);
}

void raft_on_transfer(struct raft *r, uint64_t to, uint64_t cookie)
{
    if (r->role != RAFT_LEADER || r->transfer_ms) {
        transfer_result(r, cookie, r->role != RAFT_LEADER ? -E_NOT_LEADER : -E_BUSY);
        return;
    }
    struct raft_peer *p = to ? raft_peer_find(r, to) : raft_best_voter(r, false);
    if (!p || !p->voter) {
        transfer_result(r, cookie, to ? -E_INVALID : -E_UNAVAILABLE);
        return;
    }
    if (p->damaged) {
        transfer_result(r, cookie, -E_BUSY);
        return;
    }
    r->transfer_to = p->id;
    r->transfer_cookie = cookie;
    r->transfer_ms = r->now_ms + 2 * (int64_t)r->cfg.election_min_ms;
    r->transfer_sent = false;
    raft_transfer_progress(r);
    if (!r->transfer_sent)
        raft_peer_send(r, p);
}

void raft_transfer_progress(struct raft *r)
{
    if (!r->transfer_ms || r->transfer_sent)
        return;
    struct raft_peer *p = raft_peer_find(r, r->transfer_to);
    if (!p || p->match < raft_log_last(&r->log))
        return;
    r->transfer_sent = true;
    raft_send_timeout_now(r, p->id);
}

void raft_transfer_end(struct raft *r, int result)
{
    if (!r->transfer_ms)
        return;
    r->transfer_ms = 0;
    transfer_result(r, r->transfer_cookie, result);
}
