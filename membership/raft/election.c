/* Elections: pre-vote, leader stickiness and transfer campaigns (thesis 4.2.3, 9.6, 3.10), all always
 * on, since the combinations of switches were themselves a source of bugs (consensus.md 1.2 no. 14, 15,
 * 17). A candidate counts its own vote only once that vote, and with it its log, is durable, also when it is alone. It
 * asks for the others' at once: their disks write while its own does. Should it die before, it may ask anew in the same
 * term with a shorter log; answers to a campaign of an earlier life do not fit, as campaigns count from a random number. A pre-vote waits for the disk: one that hangs shall not stand at all. */
#include "internal.h"

void raft_election_reset(struct raft *r)
{
    uint64_t min = raft_patience(r);
    r->excused = false;
    r->election_ms = r->now_ms + (int64_t)rng_range(&r->rng, min, 2 * min);
    if (r->short_of_space) /* rather one that can store more */
        r->election_ms += 2 * (int64_t)min;
}

bool raft_has_leader_contact(const struct raft *r)
{
    if (r->role == RAFT_LEADER)
        return true; /* check-quorum deposes a leader without one */
    return r->leader && r->contact_ms && r->now_ms - r->contact_ms < (int64_t)raft_patience(r);
}

void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader)
{
    ASSERT(term >= r->term);
    bool led = r->role == RAFT_LEADER, was_follower = r->role == RAFT_FOLLOWER;
    if (term > r->term) {
        r->term = term;
        r->vote = 0;
        r->leader_of_term = 0;
        r->contact_ms = 0; /* was with another leader */
    }
    r->role = RAFT_FOLLOWER;
    r->leader = leader;
    r->self_vote_waits = false;
    if (led) {
        if (RAFT_BUG != 47)
            raft_reads_fail(r);
        raft_transfer_end(r, 0);
        raft_peers_free(r);
        r->uncommitted_bytes = 0;
        r->contact_ms = 0;
    }
    if (!was_follower)
        raft_election_reset(r);
}

static bool is_up_to_date(const struct raft *r, const struct raft_message *m)
{
    uint64_t term = raft_log_last_term(&r->log);
    if (RAFT_BUG == 26)
        return m->index >= raft_log_last(&r->log);
    return m->log_term > term || (m->log_term == term && (m->index >= raft_log_last(&r->log) || RAFT_BUG == 7));
}

static void ask_votes(struct raft *r, uint8_t type, uint64_t term, uint8_t flags)
{
    const struct raft_configuration *c = raft_config_now(r);
    for (uint32_t i = 0; i < c->n; i++) {
        if (!c->members[i].voter || c->members[i].id == r->id)
            continue;
        struct raft_message *m = raft_send_new(r, c->members[i].id, type, type == RAFT_MSG_VOTE ? AFTER_NOTHING : AFTER_ALL);
        m->term = term;
        m->flags = flags;
        m->request = r->campaign;
        m->index = raft_log_last(&r->log);
        m->log_term = raft_log_last_term(&r->log);
    }
}

static void become_leader(struct raft *r)
{
    ASSERT(r->role == RAFT_CANDIDATE && r->vote == r->id);
    ASSERT(!r->leader_of_term);
    r->role = RAFT_LEADER;
    r->leader = r->leader_of_term = r->id;
    raft_leader_start(r);
}

static void count_votes(struct raft *r)
{
    const struct raft_configuration *c = raft_config_now(r);
    uint32_t granted = 0, refused = 0;
    for (uint32_t i = 0; i < r->n_votes; i++) {
        const struct raft_config_member *m = raft_configuration_find(c, r->votes[i].id);
        if (m && m->voter) {
            granted += r->votes[i].granted;
            refused += !r->votes[i].granted;
        }
    }
    if (granted >= raft_quorum(r) && (!r->self_vote_waits || RAFT_BUG == 35)) { /* else it might lead the same term once more after a crash */
        if (r->role == RAFT_PRE_CANDIDATE)
            raft_campaign(r, false);
        else
            become_leader(r);
    } else if (refused > c->n_voters - raft_quorum(r)) {
        raft_become_follower(r, r->term, 0);
    }
}

static void record_vote(struct raft *r, uint64_t id, bool granted)
{
    for (uint32_t i = 0; i < r->n_votes; i++)
        if (r->votes[i].id == id)
            return;
    if (r->n_votes < RAFT_MEMBERS_MAX)
        r->votes[r->n_votes++] = (struct raft_vote){.id = id, .granted = granted};
    count_votes(r);
}

static void pre_campaign(struct raft *r)
{
    r->role = RAFT_PRE_CANDIDATE;
    r->leader = 0;
    r->n_votes = 0;
    r->campaign++;
    raft_election_reset(r);
    ask_votes(r, RAFT_MSG_PREVOTE, r->term + 1, 0);
    record_vote(r, r->id, true);
}

void raft_campaign(struct raft *r, bool transfer)
{
    ASSERT(r->role != RAFT_LEADER);
    r->role = RAFT_CANDIDATE;
    r->term++;
    r->vote = r->id;
    r->leader = r->leader_of_term = 0;
    r->n_votes = 0;
    r->campaign++;
    r->self_vote_waits = true;
    raft_election_reset(r);
    ask_votes(r, RAFT_MSG_VOTE, r->term, transfer ? RAFT_FLAG_TRANSFER : 0);
}

void raft_self_vote_durable(struct raft *r)
{
    if (r->role != RAFT_CANDIDATE || !r->self_vote_waits || r->hard_token > r->done_token)
        return;
    r->self_vote_waits = false;
    record_vote(r, r->id, true);
}

/* A process that ends takes its connections with it, and every follower sees that within a round trip: no need to sit
 * the election timeout out. Stickiness ends, and the voters stand one after the other in order of id, so that they do
 * not split the vote. When the leader lives after all, its next heartbeat, or the others' refusal to a pre-vote, puts
 * everything back. */
void raft_on_peer_gone(struct raft *r, uint64_t id)
{
    const struct raft_configuration *c = raft_config_now(r);
    int64_t step = MAX((int64_t)r->cfg.election_min_ms / 30, 1), turn = 1;
    if (r->role != RAFT_FOLLOWER || !id || r->leader != id || !c) /* c: a newborn has no configuration */
        return;
    for (uint32_t i = 0; i < c->n; i++)
        turn += c->members[i].voter && c->members[i].id != id && c->members[i].id < r->id;
    r->contact_ms = 0;
    r->election_ms = MIN(r->election_ms, r->now_ms + turn * step);
}

void raft_role_tick(struct raft *r)
{
    if (r->role == RAFT_LEADER) {
        raft_leader_tick(r);
        return;
    }
    if (r->now_ms < r->election_ms)
        return;
    if (r->leader && !r->excused && r->now_ms - r->election_ms > (int64_t)r->cfg.heartbeat_ms) {
        r->excused = true; /* this process stood still: what the leader sent may lie in a socket */
        r->election_ms = r->now_ms + r->cfg.heartbeat_ms;
        return;
    }
    bool writes_its_vote = r->role == RAFT_CANDIDATE && r->self_vote_waits; /* on a slow disk another term is no help */
    if (r->installing || r->damaged || writes_its_vote || !raft_may_campaign(r)) {
        raft_election_reset(r);
        if (!raft_has_leader_contact(r))
            r->leader = 0;
        return;
    }
    if (RAFT_BUG == 43)
        raft_campaign(r, false);
    else
        pre_campaign(r);
}

void raft_on_prevote(struct raft *r, uint64_t from, const struct raft_message *m)
{
    bool just_started = r->now_ms - r->boot_ms < (int64_t)r->cfg.election_min_ms; /* a leader speaks first: repair.c */
    bool grant = (!r->damaged || RAFT_BUG == 10) && m->term > r->term && !just_started && !raft_has_leader_contact(r) &&
                 is_up_to_date(r, m);
    struct raft_message *reply = raft_send_new(r, from, RAFT_MSG_PREVOTE_REPLY, AFTER_HARD);
    reply->request = m->request;
    if (grant)
        reply->term = m->term;
    if (grant && r->role == RAFT_FOLLOWER) /* it goes first; its vote takes a write before this node hears of it */
        r->election_ms = MAX(r->election_ms, r->now_ms + (int64_t)raft_patience(r) / 3);
    if (!grant)
        reply->flags = RAFT_FLAG_REJECT;
    if (!reply->term) /* a newborn in term 0: messages carry a term */
        reply->term = 1;
}

void raft_on_vote(struct raft *r, uint64_t from, const struct raft_message *m)
{
    bool grant = (!r->damaged || RAFT_BUG == 10) && (!r->vote || r->vote == from) && !r->leader_of_term &&
                 is_up_to_date(r, m);
    if (grant) {
        if (r->role != RAFT_FOLLOWER)
            raft_become_follower(r, r->term, 0);
        r->vote = from;
        raft_election_reset(r);
    }
    struct raft_message *reply =
        raft_send_new(r, from, RAFT_MSG_VOTE_REPLY, RAFT_BUG == 2 ? AFTER_NOTHING : AFTER_ALL);
    reply->request = m->request;
    reply->flags = grant ? 0 : RAFT_FLAG_REJECT;
}

void raft_on_vote_reply(struct raft *r, uint64_t from, const struct raft_message *m)
{
    bool granted = !(m->flags & RAFT_FLAG_REJECT);
    const struct raft_config_member *c = raft_configuration_find(raft_config_now(r), from);
    if (!c || !c->voter)
        return;
    if (m->type == RAFT_MSG_PREVOTE_REPLY) {
        if (!granted && m->term > r->term && RAFT_BUG != 41)
            raft_become_follower(r, m->term, 0);
        if (r->role != RAFT_PRE_CANDIDATE || m->request != r->campaign ||
            (granted && m->term != r->term + 1))
            return;
    } else if (r->role != RAFT_CANDIDATE || m->term != r->term || m->request != r->campaign) {
        return;
    }
    record_vote(r, from, granted);
}

void raft_on_timeout_now(struct raft *r, uint64_t from, const struct raft_message *m)
{
    if (r->role == RAFT_FOLLOWER && m->term == r->term && from == r->leader_of_term &&
        !r->installing && !r->damaged && raft_is_voter(r))
        raft_campaign(r, true);
}
