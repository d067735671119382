/* One step of the machine: dispatch of inputs, the term rules every message obeys (Raft paper,
 * figure 2), and the end of a step, where the write gets its token and each message the token it
 * waits for. `durable` is the part of the CURRENT log known on disk: a truncation also clips what
 * writes still under way may claim, so an old completion never vouches for a replaced entry. */
#include "internal.h"

void raft_config_defaults(struct raft_config *c)
{
    struct {
        uint32_t *v, otherwise, min, max;
    } t[] = {
        {&c->election_min_ms, 150, 10, 600000},
        {&c->heartbeat_ms, 50, 1, 300000},
        {&c->message_bytes, 512 << 10, 1, 1 << 20},
        {&c->inflight, 64, 1, 1024},
        {&c->uncommitted_bytes, 16 << 20, 1, 1U << 30},
        {&c->promote_lag, 256, 1, 1 << 20},
        {&c->snapshot_chunk_bytes, 256 << 10, 1, 1 << 20},
        {&c->snapshot_max_bytes, 1U << 30, 1024, 1U << 31},
        {&c->trailing_entries, 1024, 1, 1 << 20},
        {&c->disk_stall_ms, 1000, 1, 3600000},
        {&c->snapshot_after_bytes, 8 << 20, 1, 1U << 30},
        {&c->snapshot_after_entries, 10000, 1, 1 << 30},
        {&c->snapshot_after_ms, 3600000, 100, 1U << 31},
        {&c->reserve_bytes, 64 << 20, 4096, 1U << 30},
        {&c->segment_bytes, 16 << 20, 4 << 10, 1U << 30},
    };
    for (size_t i = 0; i < ARRAY_N(t); i++) {
        if (!*t[i].v)
            *t[i].v = t[i].otherwise;
        *t[i].v = MIN(MAX(*t[i].v, t[i].min), t[i].max);
    }
    c->heartbeat_ms = MAX(1, MIN(c->heartbeat_ms, c->election_min_ms / 2));
    c->patience_max_ms = MAX(c->patience_max_ms ? c->patience_max_ms : 4 * c->election_min_ms, c->election_min_ms);
}

const char *raft_role_text(enum raft_role role)
{
    static const char *const text[] = {"follower", "pre-candidate", "candidate", "leader"};
    return (unsigned)role < ARRAY_N(text) ? text[role] : "unknown";
}

/* ---- outputs ---- */

void raft_write_done(struct raft_write *w)
{
    for (uint32_t i = 0; i < w->n_entries; i++)
        raft_buf_unref(w->entries[i].data);
    free(w->entries);
    raft_buf_unref(w->install);
    memset(w, 0, sizeof(*w));
}

void raft_output_init(struct raft_output *o)
{
    memset(o, 0, sizeof(*o));
}

void raft_output_reset(struct raft_output *o)
{
    raft_write_done(&o->write);
    for (uint32_t i = 0; i < o->n_sends; i++)
        raft_message_done(&o->sends[i].message);
    for (uint32_t i = 0; i < o->n_apply; i++)
        raft_buf_unref(o->apply[i].data);
    raft_buf_unref(o->install);
    o->install = NULL;
    o->n_sends = o->n_apply = o->n_results = o->n_reads = o->n_transfers = 0;
    o->install_index = 0;
    o->changed = o->members_changed = o->removed = false;
}

void raft_output_done(struct raft_output *o)
{
    raft_output_reset(o);
    free(o->sends);
    free(o->apply);
    free(o->results);
    free(o->reads);
    free(o->transfers);
    memset(o, 0, sizeof(*o));
}

void raft_result_add(struct raft_result **a, uint32_t *n, uint32_t *cap, uint64_t cookie, int result,
                     uint64_t index, uint64_t term)
{
    RAFT_GROW(*a, *n, *cap);
    (*a)[(*n)++] =
        (struct raft_result){.cookie = cookie, .result = result, .index = index, .term = term};
}

struct raft_message *raft_send_new(struct raft *r, uint64_t to, uint8_t type, enum raft_after after)
{
    struct raft_output *o = r->out;
    RAFT_GROW(o->sends, o->n_sends, o->cap_sends);
    struct raft_send *s = &o->sends[o->n_sends++];
    memset(s, 0, sizeof(*s));
    s->token = after; /* becomes a token in finish() */
    s->message.type = type;
    s->message.to = to;
    s->message.term = r->term;
    return &s->message;
}

/* ---- log ---- */

void raft_append_local(struct raft *r, uint8_t type, struct raft_buf *data)
{
    struct raft_entry e = {
        .index = raft_log_last(&r->log) + 1,
        .term = r->term,
        .type = type,
        .data = data,
    };
    raft_log_append(&r->log, &e);
    struct raft_write *w = &r->out->write;
    raft_entries_push(&w->entries, &w->n_entries, &w->cap_entries, &e);
    if (type == RAFT_ENTRY_NORMAL)
        r->uncommitted_bytes += raft_entry_size(&e);
    if (type == RAFT_ENTRY_CONFIGURATION) {
        struct raft_configuration *c = raft_configuration_decode(data->data, data->size, e.index);
        ASSERT(c);
        raft_config_push(r, c);
        raft_peers_sync(r);
    }
    raft_buf_unref(data); /* log and write hold their own */
}

void raft_truncate_log(struct raft *r, uint64_t from)
{
    ASSERT(from > r->commit);
    raft_log_truncate(&r->log, from);
    raft_config_rollback(r, from);
    r->durable = RAFT_BUG == 23 ? r->durable : MIN(r->durable, from - 1);
    for (uint32_t i = 0; i < r->n_pending; i++)
        r->pending[i].last = MIN(r->pending[i].last, from - 1);
    ASSERT(!r->out->write.truncate_from && !r->out->write.n_entries);
    r->out->write.truncate_from = from;
}

void raft_set_commit(struct raft *r, uint64_t index)
{
    if (index <= r->commit)
        return;
    ASSERT(index <= raft_log_last(&r->log));
    if (r->role == RAFT_LEADER) {
        for (uint64_t i = r->commit + 1; i <= index; i++) {
            const struct raft_entry *e = raft_log_at(&r->log, i);
            if (e->type == RAFT_ENTRY_NORMAL)
                r->uncommitted_bytes -= MIN(r->uncommitted_bytes, raft_entry_size(e));
        }
    }
    r->commit = index;
    r->progress_ms = r->now_ms;
}

const struct raft_entry *raft_peek(const struct raft *r, uint64_t index)
{
    return raft_log_at(&r->log, index);
}

/* ---- birth ---- */

static int load_boot(struct raft *r, const struct raft_boot *boot, struct err *e)
{
    if (boot->image) {
        struct raft_image image;
        int rc = raft_image_decode(&image, boot->image->data, boot->image->size, false);
        if (rc)
            return err_set(e, E_CORRUPT, "raft: the snapshot at index %llu has a malformed head; "
                           "replace this node under a new id",
                           (unsigned long long)boot->snapshot_index);
        r->snapshot_index = image.index;
        r->snapshot_term = image.term;
        raft_log_reset(&r->log, image.index, image.term);
        raft_config_reset(r, TAKE(image.config));
        r->image = raft_buf_ref(boot->image);
        raft_image_done(&image);
    }
    for (uint32_t i = 0; i < boot->n_entries; i++) {
        const struct raft_entry *n = &boot->entries[i];
        if (n->index != raft_log_last(&r->log) + 1 ||
            (n->term < raft_log_last_term(&r->log) && !RAFT_BUG))
            return err_set(e, E_CORRUPT, "raft: the log does not continue at index %llu; replace "
                           "this node under a new id", (unsigned long long)n->index);
        raft_log_append(&r->log, n);
        if (n->type == RAFT_ENTRY_CONFIGURATION) {
            struct raft_configuration *c =
                n->data ? raft_configuration_decode(n->data->data, n->data->size, n->index) : NULL;
            if (!c)
                return err_set(e, E_CORRUPT, "raft: malformed configuration at index %llu of the "
                               "log; replace this node under a new id",
                               (unsigned long long)n->index);
            raft_config_push(r, c);
        }
    }
    if (boot->commit > raft_log_last(&r->log) || boot->term < raft_log_last_term(&r->log))
        return err_set(e, E_CORRUPT, "raft: the log ends at index %llu, before what this node knew "
                       "to be committed (%llu); replace this node under a new id",
                       (unsigned long long)raft_log_last(&r->log), (unsigned long long)boot->commit);
    return 0;
}

int raft_new(struct raft **ret, const struct raft_config *cfg, const struct raft_boot *boot,
             const struct rng *rng, int64_t now_ms, struct err *e)
{
    struct raft *r = xnew(struct raft);
    r->cfg = *cfg;
    raft_config_defaults(&r->cfg);
    r->rng = *rng;
    r->campaign = rng_u64(&r->rng);
    r->id = boot->id;
    r->term = r->written_term = boot->term;
    r->vote = r->written_vote = boot->vote;
    r->now_ms = r->boot_ms = now_ms;
    int rc = load_boot(r, boot, e);
    if (rc) {
        raft_free(r);
        return rc;
    }
    r->durable = raft_log_last(&r->log);
    r->commit = MAX(boot->commit, r->snapshot_index);
    r->applied = RAFT_BUG == 37 ? r->commit : r->snapshot_index;
    raft_repair_boot(r, boot->damaged);
    raft_patience_start(r);
    raft_election_reset(r);
    const struct raft_configuration *c = raft_config_now(r);
    if (c && c->n_voters == 1 && raft_is_voter(r))
        r->election_ms = now_ms; /* nobody else can lead */
    *ret = r;
    return 0;
}

void raft_free(struct raft *r)
{
    if (!r)
        return;
    raft_peers_free(r);
    raft_log_reset(&r->log, 0, 0);
    free(r->log.entries);
    r->out = NULL;
    raft_config_reset(r, NULL);
    free(r->configs);
    raft_buf_unref(r->image);
    raft_buf_unref(r->install);
    raft_incoming_drop(r);
    free(r->pending);
    free(r->reads);
    free(r);
}

void raft_boot_done(struct raft_boot *b)
{
    for (uint32_t i = 0; i < b->n_entries; i++)
        raft_buf_unref(b->entries[i].data);
    free(b->entries);
    raft_buf_unref(b->image);
    memset(b, 0, sizeof(*b));
}

/* ---- messages ---- */

static bool is_from_leader(uint8_t type)
{
    return type == RAFT_MSG_APPEND || type == RAFT_MSG_HEARTBEAT || type == RAFT_MSG_SNAPSHOT;
}

static bool is_reply_to_leader(uint8_t type)
{
    return type == RAFT_MSG_APPEND_REPLY || type == RAFT_MSG_HEARTBEAT_REPLY ||
           type == RAFT_MSG_SNAPSHOT_REPLY;
}

/* A sender of an older term must learn of ours, else a node with a higher term stays stuck behind a
 * leader it cannot follow (etcd#8501). */
static void answer_stale(struct raft *r, uint64_t from, const struct raft_message *m)
{
    if ((!is_from_leader(m->type) && m->type != RAFT_MSG_VOTE) || RAFT_BUG == 46)
        return;
    uint8_t type = m->type == RAFT_MSG_VOTE ? RAFT_MSG_VOTE_REPLY : RAFT_MSG_APPEND_REPLY;
    struct raft_message *reply = raft_send_new(r, from, type, AFTER_HARD);
    reply->flags = RAFT_FLAG_REJECT;
    reply->session = m->session;
    reply->request = m->request;
}

/* The sender leads our term: follow it. False: the protocol was broken. */
static bool follow(struct raft *r, uint64_t from)
{
    if ((r->role == RAFT_LEADER || (r->leader_of_term && r->leader_of_term != from)) && RAFT_BUG != 38) {
        r->failure = -E_CORRUPT;
        return false;
    }
    if (r->role != RAFT_FOLLOWER)
        raft_become_follower(r, r->term, from);
    else if (r->leader == from && r->contact_ms)
        raft_patience_note(r, r->now_ms - r->contact_ms);
    r->leader = r->leader_of_term = from;
    r->contact_ms = r->now_ms;
    raft_election_reset(r);
    return true;
}

static void on_message(struct raft *r, uint64_t from, struct raft_message *m)
{
    if (!r->id || m->to != r->id || !from || from == r->id)
        return;
    if (m->type == RAFT_MSG_PREVOTE) {
        raft_on_prevote(r, from, m);
        return;
    }
    if (m->type == RAFT_MSG_PREVOTE_REPLY) {
        raft_on_vote_reply(r, from, m);
        return;
    }
    if (m->term > r->term) {
        if (m->type == RAFT_MSG_VOTE && !(m->flags & RAFT_FLAG_TRANSFER) && raft_has_leader_contact(r) && RAFT_BUG != 44)
            return; /* stickiness: not even the term */
        if (is_reply_to_leader(m->type) && !raft_peer_find(r, from))
            return; /* a stranger cannot depose a leader */
        raft_become_follower(r, m->term, is_from_leader(m->type) ? from : 0);
    } else if (m->term < r->term) {
        answer_stale(r, from, m);
        return;
    }
    if (is_from_leader(m->type) && !follow(r, from))
        return;
    switch (m->type) {
    case RAFT_MSG_VOTE: raft_on_vote(r, from, m); break;
    case RAFT_MSG_VOTE_REPLY: raft_on_vote_reply(r, from, m); break;
    case RAFT_MSG_APPEND: raft_on_append(r, from, m); break;
    case RAFT_MSG_APPEND_REPLY: raft_on_append_reply(r, from, m); break;
    case RAFT_MSG_HEARTBEAT: raft_on_heartbeat(r, from, m); break;
    case RAFT_MSG_HEARTBEAT_REPLY: raft_on_heartbeat_reply(r, from, m); break;
    case RAFT_MSG_SNAPSHOT: raft_on_snapshot(r, from, m); break;
    case RAFT_MSG_SNAPSHOT_REPLY: raft_on_snapshot_reply(r, from, m); break;
    case RAFT_MSG_TIMEOUT_NOW: raft_on_timeout_now(r, from, m); break;
    }
}

static void on_disk_done(struct raft *r, uint64_t token)
{
    ASSERT(token <= r->token && token >= r->done_token);
    r->done_token = token;
    uint32_t done = 0;
    for (; done < r->n_pending && r->pending[done].token <= token; done++) {
        raft_patience_note(r, r->now_ms - r->pending[done].at_ms);
        r->durable = MAX(r->durable, r->pending[done].last);
        if (r->pending[done].install) {
            r->out->install = raft_buf_ref(r->install);
            r->out->install_index = r->install_index;
        }
    }
    memmove(r->pending, r->pending + done, (r->n_pending - done) * sizeof(*r->pending));
    r->n_pending -= done;
    ASSERT(r->durable <= raft_log_last(&r->log));
    raft_self_vote_durable(r);
    raft_repair_durable(r);
    if (r->role == RAFT_LEADER)
        raft_maybe_commit(r);
}

static void on_propose(struct raft *r, const struct raft_input *in)
{
    int rc = 0;
    if (r->role != RAFT_LEADER)
        rc = -E_NOT_LEADER;
    else if (in->size > RAFT_ENTRY_MAX_BYTES)
        rc = -E_TOO_BIG;
    else if (r->transfer_ms || !raft_is_voter(r))
        rc = -E_BUSY;
    else if (!in->urgent && !raft_quorum_has_room(r))
        rc = -E_BUSY;
    else if (r->uncommitted_bytes && r->uncommitted_bytes + in->size > r->cfg.uncommitted_bytes && RAFT_BUG != 48)
        rc = -E_BUSY;
    struct raft_buf *data = NULL;
    if (!rc && !(data = raft_buf_new(in->bytes, in->size)))
        rc = -E_NO_MEMORY;
    if (!rc)
        raft_append_local(r, RAFT_ENTRY_NORMAL, data);
    raft_result_add(&r->out->results, &r->out->n_results, &r->out->cap_results, in->cookie, rc,
                    rc ? 0 : raft_log_last(&r->log), rc ? 0 : r->term);
    if (!in->more && r->role == RAFT_LEADER)
        raft_broadcast(r);
}

/* ---- end of a step ---- */

static void finish_write(struct raft *r)
{
    struct raft_write *w = &r->out->write;
    const struct raft_configuration *c = raft_config_now(r);
    w->has_hard = r->term != r->written_term || (r->vote != r->written_vote && RAFT_BUG != 24);
    w->voters = c ? c->n_voters : 0;
    if (w->has_hard || w->lost || w->whole || w->truncate_from || w->n_entries || w->install) {
        w->token = ++r->token;
        w->term = r->written_term = r->term;
        w->vote = r->written_vote = r->vote;
        w->commit = r->commit;
        if (w->has_hard || w->lost) /* before the leader hears of it, for it forgets then what could show it again */
            r->hard_token = w->token;
        if (w->whole)
            r->whole_token = w->token;
        RAFT_GROW(r->pending, r->n_pending, r->cap_pending);
        r->pending[r->n_pending++] = (struct raft_pending){
            .token = w->token,
            .last = raft_log_last(&r->log),
            .at_ms = r->now_ms,
            .install = w->install != NULL,
        };
    }
    for (uint32_t i = 0; i < r->out->n_sends; i++) {
        struct raft_send *s = &r->out->sends[i];
        uint64_t token = s->token == AFTER_ALL ? r->token : s->token == AFTER_HARD ? r->hard_token : 0;
        s->token = token > r->done_token ? token : 0;
    }
}

static void finish_apply(struct raft *r)
{
    uint64_t to = RAFT_BUG == 25 ? r->commit : MIN(r->commit, r->durable);
    while (!r->installing && r->applied < to) {
        const struct raft_entry *e = raft_log_at(&r->log, r->applied + 1);
        ASSERT(e);
        raft_entries_push(&r->out->apply, &r->out->n_apply, &r->out->cap_apply, e);
        r->applied++;
    }
}

int raft_step(struct raft *r, struct raft_input *in, struct raft_output *out)
{
    enum raft_role role = r->role;
    uint64_t term = r->term, leader = r->leader;
    bool ready = role == RAFT_LEADER && r->applied >= r->term_start;
    ASSERT(!out->write.token && !out->n_sends);
    r->out = out;
    r->failure = 0;
    r->now_ms = MAX(r->now_ms, in->now_ms);
    switch (in->type) {
    case RAFT_TICK: raft_role_tick(r); break;
    case RAFT_MESSAGE: on_message(r, in->from, in->message); break;
    case RAFT_DISK_DONE: on_disk_done(r, in->token); break;
    case RAFT_PROPOSE: on_propose(r, in); break;
    case RAFT_CHANGE: raft_on_change(r, in); break;
    case RAFT_READ: raft_on_read(r, in->cookie, in->more); break;
    case RAFT_TRANSFER: raft_on_transfer(r, in->id, in->cookie); break;
    case RAFT_RECOVER: raft_on_recover(r, in->cookie); break;
    case RAFT_SPACE: r->short_of_space = in->urgent; break;
    case RAFT_PEER_GONE: raft_on_peer_gone(r, in->id); break;
    case RAFT_SNAPSHOT_TAKEN: raft_on_snapshot_taken(r, in); break;
    case RAFT_SNAPSHOT_INSTALLED:
        ASSERT(r->installing && in->index == r->install_index);
        r->installing = false;
        r->applied = r->install_index;
        raft_buf_unref(TAKE(r->install));
        break;
    }
    raft_repair_progress(r);
    finish_write(r);
    finish_apply(r);
    bool ready_now = r->role == RAFT_LEADER && r->applied >= r->term_start;
    out->changed |= role != r->role || term != r->term || leader != r->leader || ready != ready_now;
    out->removed = raft_is_removed(r);
    out->deadline_ms = r->role == RAFT_LEADER ? r->heartbeat_ms : r->election_ms;
    ASSERT(r->commit <= raft_log_last(&r->log) && r->applied <= r->commit);
    ASSERT(r->durable <= raft_log_last(&r->log));
    r->out = NULL;
    return r->failure;
}

/* ---- views ---- */

void raft_get_status(const struct raft *r, struct raft_status *ret)
{
    const struct raft_configuration *c = raft_config_now(r);
    *ret = (struct raft_status){
        .id = r->id,
        .role = r->role,
        .leader = r->leader,
        .term = r->term,
        .vote = r->vote,
        .commit = r->commit,
        .applied = r->applied,
        .last = raft_log_last(&r->log),
        .durable = r->durable,
        .snapshot = r->snapshot_index,
        .config_index = raft_config_index(r),
        .n_voters = c ? c->n_voters : 0,
        .n_learners = c ? c->n - c->n_voters : 0,
        .voter = raft_is_voter(r),
        .removed = raft_is_removed(r),
        .damaged = r->damaged,
        .space_short = r->short_of_space,
        .quorum_short = r->role == RAFT_LEADER && !raft_quorum_has_room(r),
        .transferring = r->role == RAFT_LEADER && (r->transfer_ms || (r->short_of_space && raft_best_voter(r, true))),
        .uncommitted_bytes = r->uncommitted_bytes,
        .repair_to = r->damaged && r->repair_term == r->term ? r->repair_to : 0,
        .ready = r->role == RAFT_LEADER && r->applied >= r->term_start,
        .reads_pending = r->n_reads,
        .patience_ms = raft_patience(r),
    };
}

uint32_t raft_get_members(const struct raft *r, struct raft_member *ret, uint32_t max)
{
    const struct raft_configuration *c = raft_config_now(r);
    for (uint32_t i = 0; c && i < c->n && i < max; i++) {
        const struct raft_config_member *m = &c->members[i];
        const struct raft_peer *p = r->role == RAFT_LEADER ? raft_peer_find(r, m->id) : NULL;
        bool self = m->id == r->id && r->role == RAFT_LEADER;
        ret[i] = (struct raft_member){
            .id = m->id,
            .voter = m->voter,
            .match = self ? r->durable : p ? p->match : 0,
            .damaged = self ? r->damaged : p && p->damaged,
            .last_contact_ms = self ? 0 : p && p->acked ? r->now_ms - p->ack_ms : -1,
            .context = m->context,
            .context_size = m->context_size,
        };
    }
    return c ? c->n : 0;
}
