/* Who is a member. A configuration takes effect when its entry is APPENDED and is rolled back when
 * the entry is truncated; single-server changes, one in flight, none before an entry of the leader's
 * own term has committed (Ongaro's thesis 4.1-4.3 with the correction of 2015; consensus.md 1.2
 * no. 4, 9, 16). raft_on_change() is the one gate for every change. */
#include "internal.h"
#include <shoal/base/le.h>

enum { MEMBER_FIXED_BYTES = 8 + 1 + 2 };

void raft_configuration_free(struct raft_configuration *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->n; i++)
        free(c->members[i].context);
    free(c->members);
    free(c);
}

static void configuration_add(struct raft_configuration *c, uint64_t id, bool voter,
                              const void *context, size_t size)
{
    uint32_t at = 0;
    while (at < c->n && c->members[at].id < id)
        at++;
    c->members = xrealloc(c->members, c->n + 1, sizeof(*c->members));
    memmove(c->members + at + 1, c->members + at, (c->n - at) * sizeof(*c->members));
    c->members[at] = (struct raft_config_member){
        .id = id,
        .voter = voter,
        .context_size = (uint16_t)size,
        .context = xmemdup(context ? context : "", size),
    };
    c->n++;
    c->n_voters += voter;
}

struct raft_configuration *raft_configuration_decode(const void *bytes, size_t size, uint64_t index)
{
    const uint8_t *p = bytes, *end = p + size;
    if (size < 2)
        return NULL;
    uint32_t n = (uint32_t)le_get(p, 2);
    p += 2;
    if (n > RAFT_MEMBERS_MAX)
        return NULL;
    struct raft_configuration *c = xnew(struct raft_configuration);
    c->index = index;
    for (uint32_t i = 0; i < n; i++) {
        if ((size_t)(end - p) < MEMBER_FIXED_BYTES)
            goto malformed;
        uint64_t id = le_get(p, 8);
        uint8_t voter = p[8];
        size_t context_size = le_get(p + 9, 2);
        p += MEMBER_FIXED_BYTES;
        if (!id || voter > 1 || context_size > RAFT_CONTEXT_MAX_BYTES ||
            (size_t)(end - p) < context_size || (c->n && c->members[c->n - 1].id >= id))
            goto malformed;
        configuration_add(c, id, voter, p, context_size);
        p += context_size;
    }
    if (p == end && c->n_voters)
        return c;
malformed:
    raft_configuration_free(c);
    return NULL;
}

void raft_configuration_encode(const struct raft_configuration *c, struct sb *out)
{
    sb_le(out, c->n, 2);
    for (uint32_t i = 0; i < c->n; i++) {
        const struct raft_config_member *m = &c->members[i];
        sb_le(out, m->id, 8);
        sb_le(out, m->voter, 1);
        sb_le(out, m->context_size, 2);
        sb_add(out, m->context, m->context_size);
    }
}

const struct raft_config_member *raft_configuration_find(const struct raft_configuration *c,
                                                         uint64_t id)
{
    for (uint32_t i = 0; c && i < c->n; i++)
        if (c->members[i].id == id)
            return &c->members[i];
    return NULL;
}

static struct raft_entry configuration_entry(const struct raft_configuration *c, uint64_t index,
                                             uint64_t term)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    raft_configuration_encode(c, &b);
    struct raft_entry e = {
        .index = index,
        .term = term,
        .type = RAFT_ENTRY_CONFIGURATION,
        .data = raft_buf_new(b.s, b.len),
    };
    ASSERT(e.data);
    return e;
}

struct raft_entry raft_bootstrap_entry(const uint64_t *ids, uint32_t n, const void *context,
                                       size_t context_size)
{
    struct raft_configuration *c = xnew(struct raft_configuration);
    for (uint32_t i = 0; i < n; i++)
        configuration_add(c, ids[i], true, context, context_size);
    struct raft_entry e = configuration_entry(c, 1, 1);
    raft_configuration_free(c);
    return e;
}

/* ---- the history a node holds: base and those whose entries are in memory ---- */

const struct raft_configuration *raft_config_now(const struct raft *r)
{
    if (RAFT_BUG == 16)
        return raft_config_at(r, MAX(r->applied, 1));
    return r->n_configs ? r->configs[r->n_configs - 1] : NULL;
}

const struct raft_configuration *raft_config_at(const struct raft *r, uint64_t index)
{
    for (uint32_t i = r->n_configs; i--;)
        if (r->configs[i]->index <= index)
            return r->configs[i];
    return NULL;
}

uint64_t raft_config_index(const struct raft *r)
{
    const struct raft_configuration *c = raft_config_now(r);
    return c ? c->index : 0;
}

void raft_config_push(struct raft *r, struct raft_configuration *c)
{
    ASSERT(c->index > raft_config_index(r) || !r->n_configs);
    RAFT_GROW(r->configs, r->n_configs, r->cap_configs);
    r->configs[r->n_configs++] = c;
    if (r->out)
        r->out->members_changed = true;
}

void raft_config_rollback(struct raft *r, uint64_t from)
{
    while (r->n_configs && r->configs[r->n_configs - 1]->index >= from) {
        raft_configuration_free(r->configs[--r->n_configs]);
        if (r->out)
            r->out->members_changed = true;
    }
}

void raft_config_compact(struct raft *r, uint64_t to)
{
    uint32_t gone = 0;
    while (gone + 1 < r->n_configs && r->configs[gone + 1]->index <= to)
        raft_configuration_free(r->configs[gone++]);
    memmove(r->configs, r->configs + gone, (r->n_configs - gone) * sizeof(struct raft_configuration *));
    r->n_configs -= gone;
}

void raft_config_reset(struct raft *r, struct raft_configuration *c)
{
    while (r->n_configs)
        raft_configuration_free(r->configs[--r->n_configs]);
    if (c)
        raft_config_push(r, c);
}

bool raft_is_voter(const struct raft *r)
{
    const struct raft_config_member *m = raft_configuration_find(raft_config_now(r), r->id);
    return m && m->voter;
}

/* Thesis 4.2.2: a server outside its own latest configuration may still be needed to commit that very
 * configuration, so it may campaign while the change is not known committed. */
bool raft_may_campaign(const struct raft *r)
{
    if (raft_is_voter(r))
        return true;
    if (raft_config_index(r) <= r->commit || RAFT_BUG == 42)
        return false;
    const struct raft_config_member *m =
        raft_configuration_find(raft_config_at(r, raft_config_index(r) - 1), r->id);
    return m && m->voter;
}

bool raft_is_removed(const struct raft *r)
{
    const struct raft_configuration *c = raft_config_at(r, r->commit);
    return c && r->id && !raft_configuration_find(c, r->id) &&
           !raft_configuration_find(raft_config_now(r), r->id);
}

uint32_t raft_quorum(const struct raft *r)
{
    const struct raft_configuration *c = raft_config_now(r);
    ASSERT(c && c->n_voters);
    return c->n_voters / 2 + 1;
}

/* ---- changes ---- */

static int change_gate(struct raft *r, const struct raft_input *in)
{
    if (r->role != RAFT_LEADER)
        return -E_NOT_LEADER;
    if (r->transfer_ms)
        return -E_BUSY;
    if (raft_config_index(r) > r->commit && RAFT_BUG != 15) /* one in flight */
        return -E_BUSY;
    if (RAFT_BUG != 5 && r->commit < r->term_start) /* none before a commit in the own term */
        return -E_BUSY;
    if (!in->id || in->size > RAFT_CONTEXT_MAX_BYTES)
        return -E_INVALID;
    return 0;
}

static int change_check(struct raft *r, const struct raft_input *in)
{
    const struct raft_configuration *c = raft_config_now(r);
    const struct raft_config_member *m = raft_configuration_find(c, in->id);
    const struct raft_peer *p = raft_peer_find(r, in->id);
    switch (in->change) {
    case RAFT_ADD_LEARNER:
        if (m)
            return -E_EXISTS;
        return c->n >= RAFT_MEMBERS_MAX ? -E_TOO_BIG : 0;
    case RAFT_UPDATE_CONTEXT:
        return m ? 0 : -E_NOT_FOUND;
    case RAFT_PROMOTE:
        if (!m)
            return -E_NOT_FOUND;
        if (m->voter)
            return -E_EXISTS;
        if (!p || !p->match || p->damaged || raft_log_last(&r->log) - p->match > r->cfg.promote_lag)
            return -E_BUSY;
        return 0;
    case RAFT_REMOVE:
        if (!m)
            return -E_NOT_FOUND;
        return m->voter && c->n_voters == 1 ? -E_INVALID : 0;
    }
    return -E_INVALID;
}

void raft_on_change(struct raft *r, const struct raft_input *in)
{
    int rc = change_gate(r, in);
    if (!rc)
        rc = change_check(r, in);
    uint64_t index = raft_log_last(&r->log) + 1;
    if (!rc) {
        const struct raft_configuration *now = raft_config_now(r);
        struct raft_configuration *c = xnew(struct raft_configuration);
        for (uint32_t i = 0; i < now->n; i++) {
            const struct raft_config_member *m = &now->members[i];
            bool same = m->id == in->id;
            if (same && in->change == RAFT_REMOVE)
                continue;
            bool update = same && in->change == RAFT_UPDATE_CONTEXT;
            configuration_add(c, m->id, m->voter || (same && in->change == RAFT_PROMOTE),
                              update ? in->bytes : m->context, update ? in->size : m->context_size);
        }
        if (in->change == RAFT_ADD_LEARNER)
            configuration_add(c, in->id, false, in->bytes, in->size);
        struct raft_entry e = configuration_entry(c, index, r->term);
        raft_configuration_free(c);
        raft_append_local(r, RAFT_ENTRY_CONFIGURATION, e.data); /* takes over the reference */
        raft_maybe_commit(r);
        raft_broadcast(r);
    }
    raft_result_add(&r->out->results, &r->out->n_results, &r->out->cap_results, in->cookie, rc,
                    rc ? 0 : index, rc ? 0 : r->term);
}

/* The way back from a lost quorum, by an operator's word: this voter alone is the configuration from here on. What its
 * log holds beyond the commit index stays, for some of it may have been acknowledged. It forks the log; that the others
 * never meet it again is the caller's duty (a new epoch of the cluster). */
void raft_on_recover(struct raft *r, uint64_t cookie)
{
    const struct raft_config_member *self = raft_configuration_find(raft_config_now(r), r->id);
    int rc = r->role == RAFT_LEADER ? -E_EXISTS : !self || !self->voter || r->installing ? -E_INVALID : 0;
    uint64_t index = raft_log_last(&r->log) + 1;
    if (!rc) {
        struct raft_configuration *c = xnew(struct raft_configuration);
        configuration_add(c, self->id, true, self->context, self->context_size);
        raft_become_follower(r, r->term + 1, 0);
        struct raft_entry e = configuration_entry(c, index, r->term);
        raft_configuration_free(c);
        raft_append_local(r, RAFT_ENTRY_CONFIGURATION, e.data);
        r->out->write.whole = r->damaged; /* what is lost is lost */
        r->damaged = false;
        raft_campaign(r, false);
    }
    raft_result_add(&r->out->results, &r->out->n_results, &r->out->cap_results, cookie, rc, rc ? 0 : index,
                    rc ? 0 : r->term);
}
