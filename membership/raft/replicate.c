/* Replication. Leader: per peer PROBE (one message, find the common point), REPLICATE (pipelined up
 * to a window), SNAPSHOT; commit by counting durable copies of entries of the OWN term only (Raft
 * paper 5.4.2, figure 8); check-quorum. Follower: append, truncate on conflict, acknowledge with a
 * reply that waits for the disk. Replies echo (session, request): those of an older leader or of an
 * older membership of the same node are dropped (consensus.md 1.2 no. 1, 13, 15, 18). */
#include "internal.h"

enum { SPACE_RETRY_MS = 5000 };

static int64_t retry_ms(const struct raft *r)
{
    return 2 * (int64_t)r->cfg.heartbeat_ms;
}

struct raft_peer *raft_peer_find(const struct raft *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->n_peers; i++)
        if (r->peers[i]->id == id)
            return r->peers[i];
    return NULL;
}

void raft_peer_free(struct raft_peer *p)
{
    raft_buf_unref(p->image);
    free(p->flights);
    free(p);
}

void raft_peers_free(struct raft *r)
{
    for (uint32_t i = 0; i < r->n_peers; i++)
        raft_peer_free(r->peers[i]);
    free(TAKE(r->peers));
    r->n_peers = 0;
}

static struct raft_peer *peer_new(struct raft *r, uint64_t id)
{
    struct raft_peer *p = xnew(struct raft_peer);
    p->id = id;
    p->session = rng_u64(&r->rng);
    p->next = raft_log_last(&r->log) + 1;
    p->flights = xcalloc(r->cfg.inflight, sizeof(*p->flights));
    p->ack_ms = r->now_ms;
    return p;
}

/* Brings the peers in line with the configuration in force. A removed one stays for a while without
 * a say, so that it learns of its removal. */
void raft_peers_sync(struct raft *r)
{
    if (r->role != RAFT_LEADER)
        return;
    const struct raft_configuration *c = raft_config_now(r);
    for (uint32_t i = 0; i < r->n_peers; i++) {
        struct raft_peer *p = r->peers[i];
        if (!raft_configuration_find(c, p->id)) {
            p->voter = RAFT_BUG == 21 && p->voter;
            p->leaving = true;
        }
    }
    for (uint32_t i = 0; i < c->n; i++) {
        const struct raft_config_member *m = &c->members[i];
        if (m->id == r->id)
            continue;
        struct raft_peer *p = raft_peer_find(r, m->id);
        if (p && p->leaving) { /* it is back: a new membership, a new session */
            struct raft_peer *fresh = peer_new(r, m->id);
            for (uint32_t k = 0; k < r->n_peers; k++)
                if (r->peers[k] == p)
                    r->peers[k] = fresh;
            raft_peer_free(p);
            p = fresh;
        } else if (!p) {
            p = peer_new(r, m->id);
            r->peers = xrealloc(r->peers, r->n_peers + 1, sizeof(struct raft_peer *));
            r->peers[r->n_peers++] = p;
        }
        p->voter = m->voter;
    }
}

/* ---- sending ---- */

/* One AppendEntries from p->next; returns how many entries went. */
static uint32_t send_entries(struct raft *r, struct raft_peer *p, bool with_entries)
{
    struct raft_message *m = raft_send_new(r, p->id, RAFT_MSG_APPEND, AFTER_NOTHING);
    uint64_t term = 0;
    bool known = raft_log_term(&r->log, p->next - 1, &term);
    ASSERT(known);
    m->session = p->session;
    m->request = ++p->request;
    m->index = p->next - 1;
    m->log_term = term;
    m->commit = r->commit;
    uint64_t last = raft_log_last(&r->log);
    uint32_t n = 0;
    size_t bytes = 0;
    while (with_entries && n < RAFT_MESSAGE_ENTRIES_MAX && p->next + n <= last) {
        bytes += raft_entry_size(raft_log_at(&r->log, p->next + n)) + 16;
        if (n && bytes > r->cfg.message_bytes)
            break;
        n++;
    }
    if (n) {
        m->entries = xcalloc(n, sizeof(*m->entries));
        m->n_entries = n;
        for (uint32_t i = 0; i < n; i++) {
            m->entries[i] = *raft_log_at(&r->log, p->next + i);
            raft_buf_ref(m->entries[i].data);
        }
    }
    return n;
}

static void send_probe(struct raft *r, struct raft_peer *p)
{
    if (p->probe_ms && r->now_ms - p->probe_ms < retry_ms(r))
        return;
    bool alive = p->acked && r->now_ms - p->ack_ms < 2 * (int64_t)r->cfg.election_min_ms;
    send_entries(r, p, alive); /* nothing bulky towards a peer that may be gone */
    p->probe_ms = r->now_ms;
}

void raft_peer_send(struct raft *r, struct raft_peer *p)
{
    if (p->state != RAFT_PEER_SNAPSHOT && p->next <= r->log.prev_index)
        raft_peer_start_snapshot(r, p);
    if (p->state == RAFT_PEER_SNAPSHOT) {
        raft_peer_send_chunk(r, p);
        return;
    }
    if (p->state == RAFT_PEER_PROBE) {
        send_probe(r, p);
        return;
    }
    while (p->n_flights < r->cfg.inflight && p->next <= raft_log_last(&r->log)) {
        p->next += send_entries(r, p, true);
        p->flights[(p->flight_head + p->n_flights++) % r->cfg.inflight] =
            (struct raft_flight){.request = p->request, .at_ms = r->now_ms};
        if (p->commit_sent < MIN(r->commit, p->next - 1))
            p->commit_sent = MIN(r->commit, p->next - 1);
    }
}

void raft_broadcast(struct raft *r)
{
    for (uint32_t i = 0; i < r->n_peers; i++)
        raft_peer_send(r, r->peers[i]);
}

void raft_heartbeat(struct raft *r, struct raft_peer *p)
{
    struct raft_message *m = raft_send_new(r, p->id, RAFT_MSG_HEARTBEAT, AFTER_NOTHING);
    m->session = p->session;
    m->request = ++p->request;
    m->commit = RAFT_BUG == 19 ? r->commit : MIN(p->match, r->commit);
    m->seq = r->read_seq;
    raft_repair_heartbeat(p, m);
    p->commit_sent = MAX(p->commit_sent, m->commit);
}

void raft_heartbeat_all(struct raft *r)
{
    for (uint32_t i = 0; i < r->n_peers; i++)
        raft_heartbeat(r, r->peers[i]);
}

/* ---- leading ---- */

static void to_probe(struct raft_peer *p, uint64_t next)
{
    p->state = RAFT_PEER_PROBE;
    p->next = MAX(next, p->match + 1);
    p->probe_ms = 0;
    p->probe_first = p->request + 1;
    p->n_flights = 0;
}

void raft_leader_start(struct raft *r)
{
    r->read_seq = 0;
    r->uncommitted_bytes = 0;
    for (uint64_t i = r->commit + 1; i <= raft_log_last(&r->log); i++) {
        const struct raft_entry *e = raft_log_at(&r->log, i);
        if (e->type == RAFT_ENTRY_NORMAL)
            r->uncommitted_bytes += raft_entry_size(e);
    }
    raft_peers_sync(r);
    r->term_start = raft_log_last(&r->log) + 1;
    r->progress_ms = r->now_ms;
    r->heartbeat_ms = r->now_ms + r->cfg.heartbeat_ms;
    raft_append_local(r, RAFT_ENTRY_NOOP, NULL);
    raft_broadcast(r);
}

/* Voters, self included, that answered within the window. */
static bool has_quorum_contact(const struct raft *r)
{
    uint32_t n = raft_is_voter(r);
    for (uint32_t i = 0; i < r->n_peers; i++)
        n += r->peers[i]->voter &&
             r->now_ms - r->peers[i]->ack_ms <= 2 * (int64_t)raft_patience(r);
    return n >= raft_quorum(r);
}

/* A quorum answers its heartbeats, yet none of them stores what it sends: their disks hang, or a path lets only small
 * packets through. Others may do better, and wait for its silence. While it brings one of them forward it stays. */
static bool is_stuck(struct raft *r)
{
    int64_t limit = 4 * (int64_t)r->cfg.disk_stall_ms + 2 * (int64_t)r->cfg.patience_max_ms;
    if (r->commit == raft_log_last(&r->log))
        r->progress_ms = r->now_ms;
    if (r->now_ms - r->progress_ms <= limit || raft_quorum(r) < 2 || RAFT_BUG == 34)
        return false;
    uint32_t n = raft_is_voter(r);
    for (uint32_t i = 0; i < r->n_peers; i++) {
        const struct raft_peer *p = r->peers[i];
        n += p->voter && !p->short_of_space && /* a full disk is full under every leader */
             r->now_ms - p->ack_ms <= 2 * (int64_t)raft_patience(r);
    }
    return n >= raft_quorum(r);
}

/* A leader with a hung disk is no leader, where a quorum stores without it: on a slow disk that all share the next leader
 * would do no better. */
static bool has_hung_disk(const struct raft *r)
{
    return RAFT_BUG != 40 && r->n_peers && r->n_pending && r->now_ms - r->pending[0].at_ms > (int64_t)r->cfg.disk_stall_ms &&
           r->commit >= r->pending[0].last;
}

static void drop_left_peers(struct raft *r)
{
    if (raft_config_index(r) > r->commit)
        return;
    for (uint32_t i = 0; i < r->n_peers;) {
        struct raft_peer *p = r->peers[i];
        if (p->leaving && !p->leave_ms)
            p->leave_ms = r->now_ms + 4 * (int64_t)r->cfg.election_min_ms;
        if (p->leaving && r->now_ms >= p->leave_ms) {
            raft_peer_free(p);
            r->peers[i] = r->peers[--r->n_peers];
        } else {
            i++;
        }
    }
}

void raft_leader_tick(struct raft *r)
{
    if (r->now_ms < r->heartbeat_ms)
        return;
    int64_t late = r->now_ms - r->heartbeat_ms;
    raft_patience_note(r, r->cfg.heartbeat_ms + late);
    if (late > (int64_t)r->cfg.heartbeat_ms) { /* it was not they that were silent while this process stood still */
        r->progress_ms = MIN(r->progress_ms + late, r->now_ms);
        for (uint32_t i = 0; i < r->n_peers; i++)
            r->peers[i]->ack_ms = MIN(r->peers[i]->ack_ms + late, r->now_ms);
        for (uint32_t i = 0; i < r->n_pending; i++)
            r->pending[i].at_ms = MIN(r->pending[i].at_ms + late, r->now_ms);
    }
    r->heartbeat_ms = r->now_ms + r->cfg.heartbeat_ms;
    if (!has_quorum_contact(r) && RAFT_BUG != 12) {
        raft_become_follower(r, r->term, 0);
        return;
    }
    if (is_stuck(r) || has_hung_disk(r)) {
        struct raft_peer *best = raft_best_voter(r, false);
        if (best) {
            raft_send_timeout_now(r, best->id);
            raft_become_follower(r, r->term, 0);
            return;
        }
    }
    if (r->transfer_ms && r->now_ms >= r->transfer_ms)
        raft_transfer_end(r, -E_TIMEOUT);
    if (r->short_of_space && !r->transfer_ms && r->now_ms >= r->space_ms && raft_best_voter(r, true)) {
        r->space_ms = r->now_ms + SPACE_RETRY_MS;
        raft_on_transfer(r, raft_best_voter(r, true)->id, 0); /* others can go on writing */
    }
    drop_left_peers(r);
    raft_reads_start(r);
    for (uint32_t i = 0; i < r->n_peers; i++) {
        struct raft_peer *p = r->peers[i];
        raft_heartbeat(r, p);
        if (p->state == RAFT_PEER_REPLICATE && p->n_flights &&
            r->now_ms - p->flights[p->flight_head].at_ms > 2 * (int64_t)r->cfg.election_min_ms)
            to_probe(p, p->match + 1);
        raft_peer_send(r, p);
    }
}

/* Highest index durable on a quorum of voters. */
static uint64_t quorum_match(const struct raft *r)
{
    uint64_t match[RAFT_MEMBERS_MAX];
    uint32_t n = 0;
    if (raft_is_voter(r))
        match[n++] = RAFT_BUG == 13 || (RAFT_BUG == 14 && raft_quorum(r) == 1) ? raft_log_last(&r->log) : r->durable;
    for (uint32_t i = 0; i < r->n_peers && n < RAFT_MEMBERS_MAX; i++)
        if (r->peers[i]->voter)
            match[n++] = r->peers[i]->damaged ? 0 : r->peers[i]->match;
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = i; k && match[k - 1] < match[k]; k--) {
            uint64_t t = match[k];
            match[k] = match[k - 1];
            match[k - 1] = t;
        }
    uint32_t q = raft_quorum(r);
    return q <= n ? match[q - 1] : 0;
}

void raft_maybe_commit(struct raft *r)
{
    uint64_t index = quorum_match(r), term;
    if (index <= r->commit || !raft_log_term(&r->log, index, &term) ||
        (RAFT_BUG != 1 && term != r->term))
        return;
    raft_set_commit(r, index);
    raft_reads_start(r);
    if (!raft_is_voter(r) && raft_config_index(r) <= r->commit) {
        raft_heartbeat_all(r); /* the last word: what is committed */
        struct raft_peer *best = raft_best_voter(r, false);
        if (best)
            raft_send_timeout_now(r, best->id);
        raft_become_follower(r, r->term, 0);
        return;
    }
    for (uint32_t i = 0; i < r->n_peers; i++) {
        struct raft_peer *p = r->peers[i];
        if (p->next > raft_log_last(&r->log) && p->commit_sent < MIN(p->match, r->commit))
            raft_heartbeat(r, p);
    }
}

struct raft_peer *raft_peer_of(struct raft *r, uint64_t from, const struct raft_message *m)
{
    if (r->role != RAFT_LEADER)
        return NULL;
    struct raft_peer *p = raft_peer_find(r, from);
    if (!p || (RAFT_BUG != 3 && p->session != m->session))
        return NULL;
    p->ack_ms = r->now_ms;
    p->acked = true;
    if (m->type != RAFT_MSG_SNAPSHOT_REPLY)
        p->short_of_space = m->flags & RAFT_FLAG_SHORT;
    return raft_repair_heard(r, p, m) ? p : NULL;
}

/* Everything up to match is durable there. */
void raft_peer_acked(struct raft *r, struct raft_peer *p, uint64_t match)
{
    if (match > raft_log_last(&r->log) || match <= p->match)
        return;
    if (p->voter && (p->damaged || p->match <= MAX(r->commit, quorum_match(r)))) /* what is of older terms waits for this term */
        r->progress_ms = r->now_ms;
    p->match = match;
    p->next = MAX(p->next, match + 1);
    raft_maybe_commit(r);
    if (r->role != RAFT_LEADER)
        return;
    if (p->next > raft_log_last(&r->log) && p->commit_sent < MIN(p->match, r->commit))
        raft_heartbeat(r, p);
    raft_transfer_progress(r);
}

static void on_reject(struct raft *r, struct raft_peer *p, const struct raft_message *m)
{
    bool known = false;
    if (p->state == RAFT_PEER_PROBE) {
        known = m->request >= p->probe_first;
    } else if (p->state == RAFT_PEER_REPLICATE) {
        for (uint32_t i = 0; i < p->n_flights; i++)
            known |= p->flights[(p->flight_head + i) % r->cfg.inflight].request == m->request;
    }
    if (!known)
        return;
    uint64_t old = p->next;
    uint64_t next = raft_log_find(&r->log, m->index, m->log_term) + 1;
    if (p->state == RAFT_PEER_PROBE)
        next = MIN(next, old - 1);
    to_probe(p, MIN(next, old));
    if (p->next < old)
        raft_peer_send(r, p);
    else
        p->probe_ms = r->now_ms; /* it lost what it acknowledged: keep asking, slowly */
}

void raft_on_append_reply(struct raft *r, uint64_t from, const struct raft_message *m)
{
    struct raft_peer *p = raft_peer_of(r, from, m);
    if (!p)
        return;
    if (m->flags & RAFT_FLAG_REJECT) {
        on_reject(r, p, m);
        return;
    }
    while (p->n_flights && p->flights[p->flight_head].request <= m->request) {
        p->flight_head = (p->flight_head + 1) % r->cfg.inflight;
        p->n_flights--;
    }
    if (p->state == RAFT_PEER_PROBE && m->index <= raft_log_last(&r->log)) {
        p->state = RAFT_PEER_REPLICATE;
        p->next = MAX(p->match, m->index) + 1;
        p->n_flights = 0;
    }
    raft_peer_acked(r, p, m->index);
    if (r->role != RAFT_LEADER)
        return;
    if (p->state == RAFT_PEER_REPLICATE && !p->n_flights && p->next > p->match + 1)
        to_probe(p, p->match + 1); /* nothing under way, yet something is missing */
    raft_peer_send(r, p);
}

void raft_on_heartbeat_reply(struct raft *r, uint64_t from, const struct raft_message *m)
{
    struct raft_peer *p = raft_peer_of(r, from, m);
    if (!p)
        return;
    if (m->seq > p->read_acked && m->seq <= r->read_seq) {
        p->read_acked = m->seq;
        raft_reads_confirm(r);
    }
    if (m->index && p->state == RAFT_PEER_REPLICATE && !p->n_flights)
        to_probe(p, p->match + 1);
    raft_peer_send(r, p);
}

/* ---- following ---- */

static struct raft_message *reply_to(struct raft *r, uint64_t from, const struct raft_message *m,
                                     uint8_t type, enum raft_after after)
{
    struct raft_message *reply = raft_send_new(r, from, type, after);
    reply->session = m->session;
    reply->request = m->request;
    raft_repair_reply(r, reply);
    reply->flags |= r->short_of_space ? RAFT_FLAG_SHORT : 0;
    return reply;
}

/* Takes in the entries that are new; false when a committed one would change. */
static bool take_entries(struct raft *r, const struct raft_message *m)
{
    for (uint32_t i = 0; i < m->n_entries; i++) {
        const struct raft_entry *e = &m->entries[i];
        uint64_t term;
        if (e->index <= r->commit) {
            if (raft_log_term(&r->log, e->index, &term) && term != e->term)
                return false;
            continue;
        }
        if (raft_log_matches(&r->log, e->index, e->term))
            continue;
        if (e->index <= raft_log_last(&r->log)) {
            if (RAFT_BUG == 4)
                continue;
            raft_truncate_log(r, e->index);
        }
        raft_log_append(&r->log, e);
        struct raft_write *w = &r->out->write;
        raft_entries_push(&w->entries, &w->n_entries, &w->cap_entries, e);
        if (e->type == RAFT_ENTRY_CONFIGURATION) {
            struct raft_configuration *c =
                raft_configuration_decode(e->data->data, e->data->size, e->index);
            ASSERT(c); /* checked by the decoder */
            raft_config_push(r, c);
        }
    }
    return true;
}

void raft_on_append(struct raft *r, uint64_t from, struct raft_message *m)
{
    /* What is committed here is the same there; it may be compacted away already. */
    if (m->index >= r->commit && !raft_log_matches(&r->log, m->index, m->log_term)) {
        raft_repair_disagreed(r, m->index);
        struct raft_message *reply = reply_to(r, from, m, RAFT_MSG_APPEND_REPLY, AFTER_ALL);
        reply->flags |= RAFT_FLAG_REJECT;
        reply->index = raft_log_find(&r->log, m->index, m->log_term);
        raft_log_term(&r->log, reply->index, &reply->log_term);
        return;
    }
    if (!take_entries(r, m)) {
        r->failure = -E_CORRUPT;
        return;
    }
    uint64_t match = m->index + m->n_entries;
    raft_repair_matched(r, match);
    raft_set_commit(r, MIN(m->commit, RAFT_BUG == 20 ? raft_log_last(&r->log) : match));
    enum raft_after after = RAFT_BUG == 6 ? AFTER_NOTHING : AFTER_ALL;
    reply_to(r, from, m, RAFT_MSG_APPEND_REPLY, after)->index = MAX(match, r->commit);
}

void raft_on_heartbeat(struct raft *r, uint64_t from, const struct raft_message *m)
{
    raft_repair_heartbeat_heard(r, m);
    if (m->commit <= raft_log_last(&r->log))
        raft_set_commit(r, MIN(m->commit, raft_repair_agreed(r)));
    struct raft_message *reply = reply_to(r, from, m, RAFT_MSG_HEARTBEAT_REPLY, AFTER_HARD);
    reply->seq = m->seq;
    reply->index = r->commit < m->commit; /* older leaders do not look at it: the next append does as well */
}
