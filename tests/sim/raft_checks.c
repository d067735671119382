/* What must hold (consensus.md 6.2), looked at after every step of every core, at the moment a message leaves, and when
 * a node starts: at most one leader a term, log matching, leader completeness, one history of states, nothing
 * acknowledged or committed that is not on disk, nothing on disk that goes back, one change of members at a time, equal
 * snapshots at equal indexes, bounded queues; no term that a majority did not ask for, none against a leader that is
 * heard. */
#include "sim_raft.h"

uint64_t fnv(uint64_t h, const void *p, size_t n)
{
    for (const uint8_t *b = p; n--; b++)
        h = (h ^ *b) * UINT64_C(0x100000001b3);
    return h;
}

/* ---- disk ---- */

void shadow_write(struct shadow *s, const struct raft_write *w)
{
    if (w->install) {
        s->snapshot = s->last = w->install_index;
        s->term_at[s->last] = w->install_term;
    }
    if (w->truncate_from)
        s->last = w->truncate_from - 1;
    for (uint32_t i = 0; i < w->n_entries; i++) {
        s->last = w->entries[i].index;
        CHECK(s->last < INDEX_MAX, "log too long for the simulator");
        s->term_at[s->last] = w->entries[i].term;
    }
    if (w->has_hard) {
        CHECK(w->term >= s->term, "a term went back on disk");
        CHECK(w->term > s->term || !s->vote || s->vote == w->vote, "a vote changed within a term");
        s->term = w->term;
        s->vote = w->vote;
    }
    s->lost = (s->lost || w->lost) && !w->whole;
    s->commit = MAX(s->commit, w->commit);
}

static bool holds(const struct shadow *s, uint64_t index, uint64_t term)
{
    return index <= s->snapshot || (index <= s->last && s->term_at[index] == term);
}

bool is_durable_on(const struct node *n, uint64_t index, uint64_t term)
{
    return holds(&n->shadow, index, term);
}

/* The files of a snapshot at one index hold the same on all nodes, bit for bit; what they are sealed with is their own. */
void check_image(const struct node *n, const struct raft_buf *image)
{
    struct raft_image head;
    uint64_t hash = image->size;
    CHECK(raft_image_decode(&head, image->data, image->size, false) == 0, "node %u stores a snapshot that is none", SLOT(n));
    uint64_t index = head.index;
    raft_image_done(&head);
    for (size_t i = 0, word = 0; i < image->size; i += 8) {
        memcpy(&word, image->data + i, MIN(image->size - i, sizeof(word)));
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    CHECK(!g.image_at[index] || g.image_at[index] == hash, "node %u stores another snapshot at %llu than was stored there before",
          SLOT(n), U(index));
    g.image_at[index] = hash;
}

static bool is_as(const struct node *n, const struct raft_status *b, const struct shadow *s)
{
    if (b->term != s->term || b->vote != s->vote || b->last != s->last)
        return false;
    for (uint64_t i = b->snapshot + 1; i <= b->last; i++)
        if (raft_peek(n->core, i)->term != s->term_at[i])
            return false;
    return true;
}

/* What was found at a start must be exactly what was durable. */
void check_boot(struct node *n)
{
    struct raft_status b;
    raft_get_status(n->core, &b);
    struct shadow *s = &n->shadow;
    if (n->maybe && is_as(n, &b, n->maybe)) {
        n->maybe->commit = MAX(s->commit, MIN(b.commit, n->maybe->commit)); /* term and vote have a copy, this has not */
        *s = *n->maybe;
    }
    free(TAKE(n->maybe));
    n->wrote = false;
    bool less = b.last != s->last || b.commit < s->commit; /* more: what a lost part had cut off is there again */
    for (uint64_t i = b.snapshot + 1; !less && i <= b.last; i++)
        less = s->term_at[i] != raft_peek(n->core, i)->term;
    if (b.damaged && less) { /* what is left of it */
        CHECK(n->scarred, "node %u calls its disk damaged, and it is not", SLOT(n));
        say("node %u is damaged: it keeps %llu of %llu", SLOT(n), U(b.last), U(s->last));
        g.n.damaged++;
        s->last = b.last;
        s->commit = b.commit;
        for (uint64_t i = b.snapshot + 1; i <= b.last; i++) /* perhaps of a branch that was left later */
            s->term_at[i] = raft_peek(n->core, i)->term;
    }
    CHECK(b.term >= s->term && b.commit >= s->commit && (b.term > s->term || b.vote == s->vote),
          "node %u: term, vote or commit went back over a restart, from %llu, %llu, %llu to %llu, %llu, %llu", SLOT(n), U(s->term),
          U(s->vote), U(s->commit), U(b.term), U(b.vote), U(b.commit));
    CHECK(b.last >= s->last || b.snapshot > s->commit, "node %u lost durable entries: %llu < %llu", SLOT(n), U(b.last), U(s->last));
    for (uint64_t i = b.snapshot + 1; i <= b.last; i++)
        CHECK(i <= s->last && s->term_at[i] == raft_peek(n->core, i)->term, "node %u found an entry at %llu that was never durable",
              SLOT(n), U(i));
    s->term = b.term;
    s->vote = b.vote;
    s->last = b.last;
    s->snapshot = b.snapshot;
    n->term = b.term;
    n->commit = b.commit;
    n->last = b.last;
}

/* ---- messages: everything they promise must be on disk ---- */

void check_promise(const struct node *n, const char *bytes, size_t size)
{
    const struct shadow *s = &n->shadow;
    uint8_t type = (uint8_t)bytes[1];
    if (type == RAFT_MSG_PREVOTE || type == RAFT_MSG_PREVOTE_REPLY || type == RAFT_MSG_VOTE || type == RAFT_MSG_APPEND ||
        type == RAFT_MSG_SNAPSHOT)
        return;
    struct raft_message m;
    CHECK(raft_message_decode(&m, bytes, size) == 0, "own message does not decode");
    CHECK(s->term >= m.term, "node %u sent type %u of term %llu, only %llu is durable", SLOT(n), type, U(m.term), U(s->term));
    bool reject = m.flags & RAFT_FLAG_REJECT;
    if (type == RAFT_MSG_VOTE_REPLY && !reject && s->term == m.term)
        CHECK(s->vote == m.to, "node %u granted a vote that is not durable", SLOT(n));
    bool ack = (type == RAFT_MSG_APPEND_REPLY && !reject) || (type == RAFT_MSG_SNAPSHOT_REPLY && m.flags & RAFT_FLAG_DONE);
    if (ack && s->term == m.term) {
        CHECK(s->last >= m.index, "node %u acknowledged %llu, durable is %llu", SLOT(n), U(m.index), U(s->last));
        const struct raft_entry *e = raft_peek(n->core, m.index);
        if (e && n->term == m.term && m.index > s->snapshot)
            CHECK(s->term_at[m.index] == e->term, "node %u acknowledged another entry at %llu", SLOT(n), U(m.index));
    }
    raft_message_done(&m);
}

/* ---- entries ---- */

static uint64_t entry_hash(const struct raft_entry *e)
{
    uint64_t h = fnv(fnv(fnv(0, &e->index, 8), &e->term, 8), &e->type, 1);
    return e->data ? fnv(h, e->data->data, MIN(e->data->size, 64)) + e->data->size : h;
}

static struct known *known_find(uint64_t index, uint64_t term)
{
    struct known *k = g.known[index];
    while (k && k->term != term)
        k = k->next;
    return k;
}

struct known *known_add(const struct raft_entry *e, uint64_t prev_term)
{
    struct known *k = xnew(struct known);
    *k = (struct known){.term = e->term, .hash = entry_hash(e), .prev_term = prev_term, .next = g.known[e->index]};
    g.known[e->index] = k;
    if (e->type != RAFT_ENTRY_CONFIGURATION)
        return k;
    k->config = raft_configuration_decode(e->data->data, e->data->size, e->index);
    CHECK(k->config, "a configuration at index %llu does not decode", U(e->index));
    for (uint32_t v = 0; v < k->config->n; v++) {
        struct node *n = node_of(k->config->members[v].id);
        if (n)
            n->was_voter |= k->config->members[v].voter;
    }
    return k;
}

const struct raft_configuration *config_in(uint64_t index, uint64_t term)
{
    const struct known *k = known_find(index, term);
    return k ? k->config : NULL;
}

const struct raft_configuration *config_of(const struct shadow *s)
{
    for (uint64_t i = s->last; i; i--) {
        const struct raft_configuration *c = config_in(i, i > s->snapshot ? s->term_at[i] : g.term_at[i]);
        if (c)
            return c;
    }
    return NULL;
}

static void check_entry(struct node *n, const struct raft_entry *e)
{
    CHECK(e->index < INDEX_MAX, "log too long for the simulator");
    const struct raft_entry *p = raft_peek(n->core, e->index - 1);
    uint64_t hash = entry_hash(e), prev = p ? p->term : 0;
    struct known *k = known_find(e->index, e->term);
    if (!k)
        k = known_add(e, prev);
    CHECK(k->hash == hash, "two entries at index %llu of term %llu", U(e->index), U(e->term));
    CHECK(!prev || !k->prev_term || k->prev_term == prev, "log matching broken before index %llu of term %llu", U(e->index),
          U(e->term));
    if (prev)
        k->prev_term = prev;
}

void known_free(void)
{
    for (unsigned i = 0; i < INDEX_MAX; i++) {
        while (g.known[i]) {
            struct known *k = g.known[i];
            g.known[i] = k->next;
            raft_configuration_free(k->config);
            free(k);
        }
    }
}

static void check_write(struct node *n, const struct raft_status *s, const struct raft_write *w)
{
    CHECK(!(n->role == RAFT_LEADER && w->truncate_from && s->term == n->term), "a leader truncated its own log");
    CHECK(!w->truncate_from || w->truncate_from > n->commit, "a committed entry was truncated");
    for (uint32_t i = 0; i < w->n_entries; i++) {
        const struct raft_entry *e = &w->entries[i], *last = raft_peek(n->core, s->commit);
        check_entry(n, e);
        if (s->role == RAFT_LEADER && e->term == s->term && e->type == RAFT_ENTRY_CONFIGURATION) /* Ongaro 2015 */
            CHECK((last ? last->term : g.term_at[s->commit]) == s->term,
                  "node %u changes the members before anything of its term is committed", SLOT(n));
    }
}

/* ---- leaders and commits ---- */

static void check_leader(struct node *n, const struct raft_status *s)
{
    if (s->role != RAFT_LEADER)
        return;
    CHECK(s->term < TERMS_MAX, "terms explode");
    CHECK(!g.leader_of[s->term] || g.leader_of[s->term] == n->id, "two leaders in term %llu", U(s->term));
    if (g.leader_of[s->term])
        return;
    CHECK(n->shadow.term == s->term && n->shadow.vote == n->id, "node %u leads term %llu before its own vote is durable", SLOT(n),
          U(s->term));
    g.leader_of[s->term] = n->id;
    g.n.leaders++;
    say("node %u leads term %llu", SLOT(n), U(s->term));
    uint64_t must = g.commit; /* what was committed in terms before its own */
    while (must && g.committed_in[must] >= s->term)
        must--;
    CHECK(s->last >= must, "leader of term %llu lacks committed entries: %llu < %llu", U(s->term), U(s->last), U(must));
    for (uint64_t i = must; i; i--) {
        const struct raft_entry *e = raft_peek(n->core, i);
        if (!e)
            break;
        CHECK(e->term == g.term_at[i], "leader of term %llu has another entry at %llu", U(s->term), U(i));
    }
}

/* Or was, when it said so, and this leader knows no better. */
static bool was_durable_on(uint64_t id, uint64_t index, uint64_t term, const struct node *leader)
{
    const struct node *n = node_of(id);
    for (const struct grave *v = g.graves; !n && v; v = v->next)
        if (v->id == id)
            return holds(&v->shadow, index, term);
    return n && (is_durable_on(n, index, term) || (n->was && n->known_in != leader->term && holds(n->was, index, term)));
}

static void check_quorum(struct node *n, const struct raft_status *s)
{
    struct raft_member m[RAFT_MEMBERS_MAX];
    uint32_t count = raft_get_members(n->core, m, RAFT_MEMBERS_MAX), voters = 0, have = 0;
    for (uint32_t i = 0; i < count; i++) {
        voters += m[i].voter;
        have += m[i].voter && was_durable_on(m[i].id, s->commit, g.term_at[s->commit], n);
    }
    CHECK(have > voters / 2, "leader committed %llu with %u of %u durable copies", U(s->commit), have, voters);
}

/* New commits: the same entry everywhere, and on a quorum of disks before anyone calls it committed. */
static void check_commit(struct node *n, const struct raft_status *s)
{
    CHECK(s->commit >= n->commit, "node %u: commit went back", SLOT(n));
    for (uint64_t i = n->commit + 1; i <= s->commit; i++) {
        const struct raft_entry *e = raft_peek(n->core, i);
        if (i <= g.commit) {
            CHECK(!e || e->term == g.term_at[i], "node %u committed another entry at %llu", SLOT(n), U(i));
            continue;
        }
        CHECK(e && i == g.commit + 1, "node %u committed out of order", SLOT(n));
        g.commit = i;
        g.term_at[i] = e->term;
        g.committed_in[i] = s->term;
        if (e->type == RAFT_ENTRY_CONFIGURATION) {
            raft_configuration_free(g.config);
            g.config = raft_configuration_decode(e->data->data, e->data->size, i);
        }
    }
    if (s->role == RAFT_LEADER && n->role == RAFT_LEADER && s->commit > n->commit)
        check_quorum(n, s);
    n->commit = s->commit;
}

/* The last that is committed of what it held before something was lost. */
static uint64_t last_held(const struct node *n)
{
    const struct shadow *w = n->was;
    uint64_t i = MIN(w->last, g.commit);
    while (i > w->snapshot && w->term_at[i] != g.term_at[i])
        i--;
    return i;
}

/* Who calls itself whole again holds all of that. */
static void check_whole(const struct node *n)
{
    uint64_t i = last_held(n);
    CHECK(is_durable_on(n, i, g.term_at[i]), "node %u calls itself whole without %llu, which it had stored", SLOT(n), U(i));
}

/* A node whose disk was put back says so as soon as its leader names what it acknowledged and has no more, if that does
 * not come as a snapshot first. */
static void check_outdated(struct node *n, const struct raft_input *in, const struct raft_status *s)
{
    CHECK(n->damaged || !s->damaged || n->outdated || n->reborn || !n->up, "node %u calls its disk damaged while it runs, and it is not", SLOT(n));
    if (!n->outdated)
        return;
    const struct raft_message *m = in->type == RAFT_MESSAGE && in->message->term == s->term ? in->message : NULL;
    bool named = m && m->type == RAFT_MSG_HEARTBEAT && m->commit > s->last;
    CHECK(!named || n->told || s->damaged, "node %u goes on as if its disk had not been put back", SLOT(n));
    n->told |= named || (m && m->type == RAFT_MSG_SNAPSHOT);
    if (!s->damaged && is_durable_on(n, last_held(n), g.term_at[last_held(n)]))
        n->outdated = false;
}

/* Which leader knows of which repair. */
static void note_repairs(struct node *n, const struct raft_input *in, const struct raft_output *o)
{
    if (n->damaged)
        for (uint32_t i = 0; i < o->n_sends; i++)
            if (o->sends[i].message.flags & RAFT_FLAG_DAMAGED)
                n->repair = o->sends[i].message.total;
    struct node *from = n->role == RAFT_LEADER && in->type == RAFT_MESSAGE && in->message->flags & RAFT_FLAG_DAMAGED
                            ? node_of(in->from) : NULL;
    struct raft_member m[RAFT_MEMBERS_MAX];
    uint32_t count = from && in->message->total == from->repair ? raft_get_members(n->core, m, RAFT_MEMBERS_MAX) : 0;
    for (uint32_t i = 0; i < count; i++)
        if (m[i].damaged && m[i].id == from->id)
            from->known_in = n->term;
}

static void check_configs(struct node *n, const struct raft_status *s)
{
    unsigned open = 0;
    for (uint64_t i = MAX(g.commit, s->snapshot) + 1; i <= s->last; i++) {
        const struct raft_entry *e = raft_peek(n->core, i);
        open += e && e->type == RAFT_ENTRY_CONFIGURATION;
    }
    CHECK(open <= 1U + g.alone, "node %u holds %u uncommitted configurations", SLOT(n), open);
}

static bool consents(const struct node *n, uint64_t id)
{
    for (unsigned i = 0; i < n->n_consents; i++)
        if (n->consents[i] == id)
            return true;
    return id == n->id;
}

/* A term begins because a majority agreed to it before (thesis 9.6), and while a leader is heard only by its own will
 * (4.2.3): who is cut off, removed or out of step does not depose it. */
static void check_term(struct node *n, const struct raft_input *in, const struct raft_status *s)
{
    const struct raft_message *m = in->type == RAFT_MESSAGE ? in->message : NULL;
    n->clock_ms = MAX(n->clock_ms, in->now_ms);
    bool led = n->role == RAFT_LEADER || (n->role == RAFT_FOLLOWER && n->led_ms && n->clock_ms - n->led_ms < (int64_t)g.o.cfg.election_min_ms);
    CHECK(!led || !m || m->type != RAFT_MSG_VOTE || m->flags & RAFT_FLAG_TRANSFER || s->term == n->term,
          "node %u goes from term %llu to %llu, though it hears its leader", SLOT(n), U(n->term), U(s->term));
    if (n->role != RAFT_PRE_CANDIDATE)
        n->n_consents = 0;
    else if (m && m->type == RAFT_MSG_PREVOTE_REPLY && !(m->flags & RAFT_FLAG_REJECT) && !consents(n, in->from) && n->n_consents < NODES_MAX)
        n->consents[n->n_consents++] = in->from;
    if (s->role == RAFT_CANDIDATE && s->term > n->term && in->type != RAFT_RECOVER && !(m && m->type == RAFT_MSG_TIMEOUT_NOW)) {
        struct raft_member v[RAFT_MEMBERS_MAX];
        uint32_t count = raft_get_members(n->core, v, RAFT_MEMBERS_MAX), voters = 0, agree = 0;
        for (uint32_t i = 0; i < count; i++) {
            voters += v[i].voter;
            agree += v[i].voter && consents(n, v[i].id);
        }
        CHECK(agree > voters / 2, "node %u begins term %llu with the consent of %u of %u", SLOT(n), U(s->term), agree, voters);
    }
    if (s->term > n->term || in->type == RAFT_PEER_GONE)
        n->led_ms = 0;
    bool speaks = m && (m->type == RAFT_MSG_APPEND || m->type == RAFT_MSG_HEARTBEAT || m->type == RAFT_MSG_SNAPSHOT);
    if (speaks && s->leader == in->from && m->term == s->term)
        n->led_ms = n->clock_ms;
}

/* What is kept for later is bounded, whatever hangs. A caller waits for each proposal and read; what was proposed and is not
 * committed has its limit in bytes; the log ends a little before the last snapshot; a queued write brings something that
 * is not on disk yet; and answers to more than some windows of messages wait for no disk. */
void check_sizes(const struct node *n, bool deep)
{
    const struct raft_config *c = &g.o.cfg;
    struct shell_sizes z;
    shell_sizes(n->raft, deep, &z);
    uint64_t terms = 1 + z.term - n->shadow.term, tail = z.last - z.durable, open = MAX(c->uncommitted_bytes, 8 + g.o.size);
    CHECK(z.inputs <= n->n_ops && z.callers <= n->n_ops + 16, "node %u holds %zu inputs and %zu callers, for %u clients", SLOT(n),
          z.inputs, z.callers, n->n_ops);
    CHECK(z.open_bytes <= open, "node %u holds %zu bytes that are not committed, more than %llu", SLOT(n), z.open_bytes, U(open));
    CHECK(z.log <= z.last - z.snapshot + c->trailing_entries, "node %u keeps %zu entries in memory, %llu of them behind the snapshot",
          SLOT(n), z.log, U(z.last - z.snapshot));
    CHECK(z.configs <= z.log + 1, "node %u keeps %zu configurations for %zu entries", SLOT(n), z.configs, z.log);
    CHECK(z.writes <= tail + 4 * terms && z.pending <= tail + 4 * terms, "node %u has %zu writes under way and %zu queued for %llu entries",
          SLOT(n), z.pending, z.writes, U(tail));
    CHECK(z.held <= 4 * c->inflight + 64, "node %u holds %zu messages back", SLOT(n), z.held);
}

/* A leader that has lost its quorum falls silent, and soon. */
static void check_contact(struct node *n)
{
    struct raft_member m[RAFT_MEMBERS_MAX];
    uint32_t count = raft_get_members(n->core, m, RAFT_MEMBERS_MAX), voters = 0, heard = 0;
    for (uint32_t i = 0; i < count; i++) {
        int slot = slot_of(m[i].id);
        voters += m[i].voter;
        heard += m[i].voter && slot >= 0 &&
                 (m[i].id == n->id || g.now_us - n->heard_us[slot] < 1000000 + 4000 * (int64_t)g.o.cfg.patience_max_ms);
    }
    n->silent = heard > voters / 2 ? 0 : n->silent + 1;
    CHECK(n->silent < 20, "node %u leads on, though only %u of %u voters have spoken to it for long", SLOT(n), heard, voters);
}

void check_step(struct node *n, const struct raft_input *in, const struct raft_output *o, int rc)
{
    struct raft_status s;
    if (g.forged && in->type == RAFT_MESSAGE) {
        CHECK(rc, "node %u hears two leaders in one term and goes on", SLOT(n));
        return; /* it stops */
    }
    CHECK(rc == 0, "node %u found the protocol broken by node %d", SLOT(n), slot_of(in->from));
    raft_get_status(n->core, &s);
    CHECK(s.term >= n->term, "node %u: term went back", SLOT(n));
    check_term(n, in, &s);
    if (o->write.token)
        check_write(n, &s, &o->write);
    n->term = s.term;
    check_leader(n, &s);
    bool commits = s.commit > n->commit, leads = s.role == RAFT_LEADER && n->role != RAFT_LEADER;
    check_commit(n, &s);
    if (o->members_changed)
        check_configs(n, &s);
    for (uint32_t i = 0; i < o->n_apply; i++)
        CHECK(is_durable_on(n, o->apply[i].index, o->apply[i].term), "node %u applies %llu before it is durable", SLOT(n),
              U(o->apply[i].index));
    if (n->was && n->damaged && !s.damaged)
        check_whole(n);
    check_outdated(n, in, &s);
    n->role = s.role;
    n->damaged = s.damaged;
    if (s.role != RAFT_LEADER)
        n->silent = 0;
    else if (in->type == RAFT_TICK)
        check_contact(n);
    note_repairs(n, in, o);
    mix(s.term * 31 + s.commit);
    mix(s.last * 31 + SLOT(n));
    maybe_strike(n, leads, commits);
}
