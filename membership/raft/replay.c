/* How a log is read at start (after "Protocol-Aware Recovery", FAST'18). A torn tail is told from rot:
 * batches are written one after the other, each after the fdatasync of the one before and naming that
 * one as durable. A bad batch above every mark was never acknowledged and is dropped whole. A bad batch
 * that a later batch or mark calls durable is rot: what it held may have been acknowledged. Rot below the
 * snapshot costs nothing; for the rest, the log is cut before it and the node asks its peers (repair.c). */
#include "wal.h"

#include "internal.h"

#include <inttypes.h>
#include <shoal/base/le.h>

struct scan {
    struct wal_replay *s;
    struct wal_segment header;
    const uint8_t *key;
    const uint8_t *bytes;
    size_t size;
};

void wal_replay_init(struct wal_replay *s, const uint8_t *key, uint64_t snapshot_index,
                     uint64_t snapshot_term)
{
    memset(s, 0, sizeof(*s));
    s->key = key;
    s->snapshot_index = snapshot_index;
    s->snapshot_term = snapshot_term;
}

static void drop_entries(struct wal_replay *s, uint64_t from)
{
    while (s->n && s->entries[s->n - 1].index >= from)
        raft_buf_unref(s->entries[--s->n].data);
}

void wal_replay_done(struct wal_replay *s)
{
    drop_entries(s, 0);
    free(s->entries);
    memset(s, 0, sizeof(*s));
}

/* May these records follow what was read so far? Genuine ones that may not belong to a snapshot whose file is
 * gone, or follow a gap. */
static bool records_fit(const struct wal_replay *s, const struct wal_record *ops, uint32_t n)
{
    uint64_t next = s->next, term = s->term;
    for (uint32_t i = 0; i < n; i++) {
        const struct wal_record *o = &ops[i];
        bool fits = false;
        switch (o->type) {
        case WAL_HARD:
            fits = o->size == WAL_HARD_BYTES && le_get(o->body->data, 8) >= term;
            term = fits ? le_get(o->body->data, 8) : term;
            break;
        case WAL_INSTALL:
            fits = o->index <= s->snapshot_index;
            next = o->index + 1;
            break;
        case WAL_TRUNCATE:
            fits = next || o->index <= s->snapshot_index + 1;
            next = o->index;
            break;
        case WAL_ENTRY:
            fits = o->index && (next ? o->index == next : o->index <= s->snapshot_index + 1);
            next = o->index + 1;
            break;
        }
        if (!fits)
            return false;
    }
    return true;
}

static void apply_record(struct wal_replay *s, const struct wal_record *o)
{
    switch (o->type) {
    case WAL_HARD:
        s->term = le_get(o->body->data, 8);
        s->vote = le_get(o->body->data + 8, 8);
        break;
    case WAL_INSTALL:
        drop_entries(s, 0);
        s->next = o->index + 1;
        s->snapshot_seen_term = o->index == s->snapshot_index ? o->term : 0;
        s->max_index = MAX(s->max_index, o->index);
        break;
    case WAL_TRUNCATE:
        drop_entries(s, o->index + (RAFT_BUG == 39 && o->index + 1 == s->next));
        s->next = o->index;
        if (o->index <= s->snapshot_index)
            s->snapshot_seen_term = 0;
        break;
    case WAL_ENTRY:
        s->next = o->index + 1;
        s->max_index = MAX(s->max_index, o->index);
        if (o->index == s->snapshot_index)
            s->snapshot_seen_term = o->term;
        if (o->index > s->snapshot_index) {
            struct raft_entry e = {
                .index = o->index,
                .term = o->term,
                .type = o->flags,
                .data = o->size ? o->body : NULL,
            };
            raft_entries_push(&s->entries, &s->n, &s->cap, &e);
        }
        break;
    }
}

/* The batch at *offset, all or nothing. 0, -E_CORRUPT: not whole, -E_STALE: whole but does not fit. */
static int take_batch(const struct scan *c, size_t *offset)
{
    struct wal_replay *s = c->s;
    uint8_t tag[WAL_TAG_BYTES];
    memcpy(tag, s->tag, sizeof(tag));
    struct wal_record first;
    size_t at = *offset;
    int rc = wal_record_read(&c->header, c->key, c->bytes, c->size, &at, tag, &first);
    if (rc)
        return rc;
    uint32_t n = 0, n_ops = 0;
    uint64_t bytes = 0, commit = 0;
    if (first.type == WAL_BATCH && first.index == s->batch + 1 && first.size == WAL_BATCH_BYTES) {
        n = (uint32_t)le_get(first.body->data, 4);
        bytes = le_get(first.body->data + 4, 4);
        commit = le_get(first.body->data + 16, 8);
    }
    raft_buf_unref(first.body);
    if (!bytes || bytes > c->size - *offset || n > bytes / WAL_RECORD_BYTES)
        return -E_CORRUPT;
    AUTO_FREE struct wal_record *ops = try_calloc(MAX(n, 1), sizeof(*ops));
    if (!ops)
        return -E_NO_MEMORY;
    for (; !rc && n_ops < n; n_ops += !rc)
        rc = wal_record_read(&c->header, c->key, c->bytes, c->size, &at, tag, &ops[n_ops]);
    if (!rc && at != *offset + bytes)
        rc = -E_CORRUPT;
    if (!rc && !records_fit(s, ops, n))
        rc = -E_STALE;
    for (uint32_t i = 0; !rc && i < n_ops; i++)
        apply_record(s, &ops[i]);
    for (uint32_t i = 0; i < n_ops; i++)
        raft_buf_unref(ops[i].body);
    if (rc)
        return rc;
    memcpy(s->tag, tag, sizeof(tag));
    s->batch++;
    s->commit = MAX(s->commit, commit);
    *offset = at + WAL_MARK_BYTES;
    return 0;
}

bool wal_is_durable_beyond(const uint8_t salt[WAL_SALT_BYTES], const uint8_t *bytes, size_t size, size_t offset,
                           uint64_t batch)
{
    for (; offset + WAL_RECORD_BYTES <= size; offset += 8) {
        if (!wal_is_record(salt, bytes, size, offset))
            continue;
        const uint8_t *h = bytes + offset;
        if ((h[12] == WAL_BATCH && le_get(h + 24, 8) > batch) || (h[12] == WAL_MARK && le_get(h + 16, 8) > batch))
            return true;
    }
    return false;
}

/* The key a segment was sealed with, of the two that are known. -E_DENIED: none of them. */
static int choose_key(struct scan *c, const char *name, struct err *e)
{
    const struct wal_replay *s = c->s;
    const uint8_t *keys[] = {s->key, s->old_key};
    if (!c->header.sealed && !s->key)
        return 0;
    for (unsigned i = 0; c->header.sealed && i < ARRAY_N(keys); i++) {
        uint8_t id[WAL_KEY_ID_BYTES];
        if (!keys[i])
            continue;
        wal_key_id(id, keys[i]);
        if (memcmp(id, c->header.key_id, sizeof(id)) == 0) {
            c->key = keys[i];
            return 0;
        }
    }
    return err_set(e, E_DENIED, "raft log: %s is %s; give the key it was written with", name,
                   c->header.sealed ? "sealed with another key" : "not sealed, yet a key was given");
}

static void adopt_header(struct wal_replay *s, const struct wal_segment *h)
{
    s->started = true;
    s->node_id = h->node_id;
    s->term = h->term;
    s->vote = h->vote;
    s->commit = h->commit;
    s->batch = h->batch;
    memcpy(s->tag, h->prev_tag, sizeof(s->tag));
}

static int start_segment(struct scan *c, const char *name, struct err *e)
{
    struct wal_replay *s = c->s;
    struct wal_segment *h = &c->header;
    if (!wal_segment_decode(h, c->bytes, c->size))
        return err_set(e, E_CORRUPT, "raft log: %s has a damaged header at offset 0", name);
    int rc = choose_key(c, name, e);
    if (rc)
        return rc;
    bool follows = h->number == s->segment + 1 && h->batch == s->batch &&
                   memcmp(h->prev_tag, s->tag, sizeof(s->tag)) == 0 && (!s->batch || h->node_id == s->node_id);
    if (!s->started) {
        adopt_header(s, h);
    } else if (s->gap && h->number > s->segment && h->term >= s->term && h->node_id == s->node_id) {
        drop_entries(s, 0);
        s->next = s->snapshot_seen_term = 0;
        adopt_header(s, h);
    } else if (!follows) {
        return err_set(e, E_CORRUPT, "raft log: %s does not continue the segment before it (a file is "
                       "missing or from elsewhere)", name);
    }
    if (h->term > s->term) { /* the copy of term and vote was ahead of the log */
        s->term = h->term;
        s->vote = h->vote;
    }
    s->gap = false;
    struct wal_record base = {.type = WAL_INSTALL, .index = h->base_index, .term = h->base_term};
    if (h->base_index && !records_fit(s, &base, 1))
        return err_set(e, E_CORRUPT, "raft log: %s continues a snapshot at index %" PRIu64 " that is gone", name,
                       h->base_index);
    s->node_id = h->node_id;
    s->segment = h->number;
    s->end = WAL_SEGMENT_HEADER_BYTES;
    if (h->base_index)
        apply_record(s, &base);
    return 0;
}

int wal_replay_segment(struct wal_replay *s, const uint8_t *bytes, size_t size, uint64_t limit,
                       const char *name, struct err *e)
{
    struct scan c = {.s = s, .bytes = bytes, .size = size};
    s->max_index = 0;
    int rc = start_segment(&c, name, e);
    if (rc)
        return rc;
    size_t offset = WAL_SEGMENT_HEADER_BYTES;
    while (!limit || offset < limit) {
        rc = take_batch(&c, &offset);
        if (rc == -E_NO_MEMORY)
            return err_set(e, E_NO_MEMORY, "raft log: no memory to read %s; free some and start again",
                           name);
        if (rc)
            break;
    }
    s->end = offset;
    s->used_old_key |= c.key && c.key == s->old_key;
    bool rot = limit ? offset != limit
                     : rc == -E_STALE || (RAFT_BUG != 27 && wal_is_durable_beyond(c.header.salt, bytes, size, offset, s->batch));
    if (rot)
        return err_set(e, E_CORRUPT, "raft log: %s is damaged at offset %zu, inside what was durable", name, offset);
    s->torn = !limit && wal_is_record(c.header.salt, bytes, size, offset);
    return 0;
}

int wal_replay_finish(struct wal_replay *s, struct raft_boot *ret_boot, struct err *e)
{
    /* The file of an installed snapshot may have become durable without the batch that says so. */
    s->rebase = s->snapshot_index && (!s->next || s->next <= s->snapshot_index);
    if (s->snapshot_seen_term && s->snapshot_seen_term != s->snapshot_term) {
        drop_entries(s, 0); /* it overtook this branch of the log */
        s->rebase = true;
    }
    if (s->cut && s->n && s->entries[0].index != s->snapshot_index + 1) {
        drop_entries(s, 0);
        s->rebase = s->snapshot_index != 0;
    }
    if (s->n && s->entries[0].index != s->snapshot_index + 1)
        return err_set(e, E_CORRUPT, "raft log: entries %" PRIu64 " to %" PRIu64 " are missing",
                       s->snapshot_index + 1, s->entries[0].index - 1);
    if (s->gap || (s->skipped && !s->next))
        return err_set(e, E_CORRUPT, "raft log: what lies behind the snapshot at index %" PRIu64 " is lost",
                       s->snapshot_index);
    if (s->snapshot_term > s->term) {
        s->term = s->snapshot_term; /* its file became durable before the batch with the new term */
        s->vote = 0;
    }
    if (s->cut)
        s->commit = MIN(s->commit, s->snapshot_index + s->n);
    ret_boot->id = s->batch ? s->node_id : 0; /* a node exists from its first batch on */
    ret_boot->term = s->term;
    ret_boot->vote = s->vote;
    ret_boot->commit = s->commit;
    ret_boot->snapshot_index = s->snapshot_index;
    ret_boot->snapshot_term = s->snapshot_term;
    ret_boot->damaged = s->cut;
    ret_boot->entries = TAKE(s->entries);
    ret_boot->n_entries = s->n;
    s->n = s->cap = 0;
    return 0;
}

/* ---- a whole log ---- */

struct piece {
    uint8_t *bytes;
    size_t size;
    char name[256];
};

static int read_piece(const struct wal_source *src, uint32_t i, struct piece *ret, struct err *e)
{
    free(TAKE(ret->bytes));
    ret->size = 0;
    return i < src->n ? src->read(src->arg, i, &ret->bytes, &ret->size, ret->name, e) : 0;
}

int wal_replay_log(struct wal_replay *s, const struct wal_source *src, enum wal_care care,
                   struct raft_boot *ret_boot, struct err *e)
{
    struct piece now = {0}, next = {0};
    int rc = read_piece(src, 0, &next, e);
    s->cut = care == WAL_CUT && !src->n;
    for (uint32_t i = 0; !rc && i < src->n; i++) {
        struct wal_segment h;
        struct piece t = now;
        now = next;
        next = t;
        rc = read_piece(src, i + 1, &next, e);
        uint64_t limit = next.bytes && wal_segment_decode(&h, next.bytes, next.size) ? h.prev_bytes : 0;
        if (!rc)
            rc = wal_replay_segment(s, now.bytes, now.size, limit, now.name, e);
        if (rc == -E_CORRUPT && care == WAL_SKIP && i + 1 < src->n) {
            s->gap = s->skipped = true;
            rc = 0;
        }
        if (src->seen)
            src->seen[i] = (struct wal_seen){.max_index = s->max_index, .old_key = s->used_old_key};
        s->used_old_key = false;
        if (rc == -E_CORRUPT && care == WAL_CUT) {
            s->cut = true;
            rc = 0;
            break;
        }
    }
    free(now.bytes);
    free(next.bytes);
    return rc ? rc : wal_replay_finish(s, ret_boot, e);
}
