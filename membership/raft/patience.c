/* How long a leader may be silent. A short wait replaces a dead machine soon; a wait shorter than the stalls of a busy
 * one replaces leaders that live. So each node measures what it can see of stalls: the time between two messages of its
 * leader, the lateness of its own ticks, the time a write takes (a vote waits for one). It waits half as long again as
 * the longest of the last 20 to 40 seconds, within [election_min_ms, patience_max_ms]; the timeout is drawn from once
 * to twice that. Nodes need not agree: a hasty one is refused by the pre-vote of those that still hear the leader
 * (consensus.md 5.1). What is longer than any patience was a cut, not a stall, and teaches nothing. */
#include "internal.h"

enum { WINDOW_MS = 20000 };

void raft_patience_start(struct raft *r)
{
    r->slow_ms = (int64_t)r->cfg.election_min_ms * 4 / 3; /* nothing is known yet: twice the least */
    r->slow_since_ms = r->now_ms;
}

void raft_patience_note(struct raft *r, int64_t stall_ms)
{
    if (r->now_ms - r->slow_since_ms >= WINDOW_MS) {
        r->slow_before_ms = r->now_ms - r->slow_since_ms < 2 * WINDOW_MS ? r->slow_ms : 0;
        r->slow_ms = 0;
        r->slow_since_ms = r->now_ms;
    }
    if (stall_ms <= 2 * (int64_t)r->cfg.patience_max_ms)
        r->slow_ms = MAX(r->slow_ms, stall_ms);
}

uint32_t raft_patience(const struct raft *r)
{
    uint64_t wanted = (uint64_t)MAX(r->slow_ms, r->slow_before_ms) * 3 / 2;
    return (uint32_t)MIN(MAX(wanted, r->cfg.election_min_ms), r->cfg.patience_max_ms);
}
