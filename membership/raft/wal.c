/* Bytes of the log: encoding of batches and the scan at start (consensus.md 3.3, after "Protocol-Aware
 * Recovery", FAST'18). The scan tells a torn tail from rot: batches are written one after the other,
 * each after the fdatasync of the one before and naming that one as durable. A bad batch that a later
 * batch or mark calls durable is rot and stops the node; a bad batch above every mark was never
 * acknowledged and is dropped whole. */
#include "wal.h"

#include "internal.h"

#include <inttypes.h>

enum { WAL_MAGIC = 0x4c415752, WAL_VERSION = 1 };
static const char segment_magic[8] = "SHOALWAL";

enum wal_type { WAL_BATCH = 1, WAL_MARK, WAL_HARD, WAL_ENTRY, WAL_TRUNCATE, WAL_INSTALL };
enum { BATCH_BODY_BYTES = 4 + 4 + 8 + 8, HARD_BODY_BYTES = 16 };

static void put(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static size_t aligned(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* CRC32C (Castagnoli, reflected polynomial 0x82f63b78), a nibble at a time. */
uint32_t wal_crc32c(uint32_t seed, const void *p, size_t size)
{
    static const uint32_t t[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    uint32_t c = ~seed;
    for (const uint8_t *b = p; size--; b++) {
        c ^= *b;
        c = (c >> 4) ^ t[c & 15];
        c = (c >> 4) ^ t[c & 15];
    }
    return ~c;
}

void wal_key_id(uint8_t out[WAL_KEY_ID_BYTES], const uint8_t key[32])
{
    crypto_blake2s(out, WAL_KEY_ID_BYTES, "shoal wal key id", 16, key, 32);
}

/* ---- segment header ---- */

void wal_segment_encode(const struct wal_segment *s, uint8_t out[WAL_SEGMENT_HEADER_BYTES])
{
    memset(out, 0, WAL_SEGMENT_HEADER_BYTES);
    memcpy(out, segment_magic, 8);
    put(out + 8, WAL_VERSION, 4);
    put(out + 12, s->sealed, 4);
    put(out + 16, s->number, 8);
    put(out + 24, s->node_id, 8);
    put(out + 32, s->prev_bytes, 8);
    put(out + 40, s->term, 8);
    put(out + 48, s->vote, 8);
    put(out + 56, s->commit, 8);
    put(out + 64, s->batch, 8);
    memcpy(out + 72, s->prev_tag, WAL_TAG_BYTES);
    memcpy(out + 88, s->salt, WAL_SALT_BYTES);
    memcpy(out + 104, s->key_id, WAL_KEY_ID_BYTES);
    put(out + 112, s->base_index, 8);
    put(out + 120, s->base_term, 8);
    put(out + 140, wal_crc32c(0, out, 140), 4);
}

bool wal_segment_decode(struct wal_segment *ret, const uint8_t *p, size_t size)
{
    if (size < WAL_SEGMENT_HEADER_BYTES || memcmp(p, segment_magic, 8) != 0 ||
        get(p + 8, 4) != WAL_VERSION || get(p + 12, 4) > 1 ||
        get(p + 140, 4) != wal_crc32c(0, p, 140))
        return false;
    *ret = (struct wal_segment){
        .sealed = get(p + 12, 4) == 1,
        .number = get(p + 16, 8),
        .node_id = get(p + 24, 8),
        .prev_bytes = get(p + 32, 8),
        .term = get(p + 40, 8),
        .vote = get(p + 48, 8),
        .commit = get(p + 56, 8),
        .batch = get(p + 64, 8),
        .base_index = get(p + 112, 8),
        .base_term = get(p + 120, 8),
    };
    memcpy(ret->prev_tag, p + 72, WAL_TAG_BYTES);
    memcpy(ret->salt, p + 88, WAL_SALT_BYTES);
    memcpy(ret->key_id, p + 104, WAL_KEY_ID_BYTES);
    return true;
}

/* ---- one record ---- */

static uint32_t header_crc(const uint8_t salt[WAL_SALT_BYTES], const uint8_t *header)
{
    return wal_crc32c(wal_crc32c(0, salt, WAL_SALT_BYTES), header + 4, WAL_RECORD_BYTES - 4);
}

static void record_nonce(uint8_t out[24], const uint8_t salt[WAL_SALT_BYTES], uint64_t offset)
{
    memcpy(out, salt, WAL_SALT_BYTES);
    put(out + WAL_SALT_BYTES, offset, 8);
}

/* AAD and plain tag cover the header before its tag, and the tag before. */
static void record_aad(uint8_t out[28 + WAL_TAG_BYTES], const uint8_t *header,
                       const uint8_t prev_tag[WAL_TAG_BYTES])
{
    memcpy(out, header + 4, 28);
    memcpy(out + 28, prev_tag, WAL_TAG_BYTES);
}

static void plain_tag(uint8_t out[WAL_TAG_BYTES], const uint8_t aad[28 + WAL_TAG_BYTES],
                      const uint8_t *body, size_t size)
{
    struct blake2s b;
    blake2s_init(&b, WAL_TAG_BYTES, NULL, 0);
    blake2s_add(&b, aad, 28 + WAL_TAG_BYTES);
    if (size)
        blake2s_add(&b, body, size);
    blake2s_end(&b, out);
}

/* offset: of the record in its segment. */
static void put_record(struct wal_writer *w, struct sb *out, uint64_t offset, uint8_t type,
                       uint8_t flags, uint64_t index, uint64_t term, const void *body, size_t size)
{
    static const uint8_t zeros[8];
    uint8_t header[WAL_RECORD_BYTES] = {0}, aad[28 + WAL_TAG_BYTES];
    put(header + 4, WAL_MAGIC, 4);
    put(header + 8, size, 4);
    header[12] = type;
    header[13] = flags;
    put(header + 16, index, 8);
    put(header + 24, term, 8);
    record_aad(aad, header, w->tag);
    AUTO_FREE uint8_t *sealed = NULL;
    if (w->sealed) {
        uint8_t nonce[24];
        record_nonce(nonce, w->salt, offset);
        sealed = xcalloc(1, size + WAL_TAG_BYTES);
        crypto_xaead_seal(sealed, size ? body : "", size, aad, sizeof(aad), nonce, w->key);
        memcpy(w->tag, sealed + size, WAL_TAG_BYTES);
        body = sealed;
    } else {
        plain_tag(w->tag, aad, body, size);
    }
    memcpy(header + 32, w->tag, WAL_TAG_BYTES);
    put(header, header_crc(w->salt, header), 4);
    sb_add(out, header, sizeof(header));
    if (size)
        sb_add(out, body, size);
    sb_add(out, zeros, aligned(size) - size);
}

/* ---- writing ---- */

void wal_writer_start(struct wal_writer *w, const struct wal_segment *s, const uint8_t *key)
{
    uint64_t durable_index = w->durable_index;
    memset(w, 0, sizeof(*w));
    memcpy(w->tag, s->prev_tag, WAL_TAG_BYTES);
    memcpy(w->salt, s->salt, WAL_SALT_BYTES);
    w->sealed = key != NULL;
    if (key)
        memcpy(w->key, key, sizeof(w->key));
    w->offset = WAL_SEGMENT_HEADER_BYTES;
    w->batch = w->durable_batch = s->batch;
    w->durable_index = durable_index;
}

size_t wal_batch_bytes(struct raft_write *const *writes, uint32_t n)
{
    size_t bytes = WAL_RECORD_BYTES + aligned(BATCH_BODY_BYTES);
    for (uint32_t i = 0; i < n; i++) {
        const struct raft_write *w = writes[i];
        if (w->has_hard)
            bytes += WAL_RECORD_BYTES + aligned(HARD_BODY_BYTES);
        bytes += (w->install ? WAL_RECORD_BYTES : 0) + (w->truncate_from ? WAL_RECORD_BYTES : 0);
        for (uint32_t k = 0; k < w->n_entries; k++)
            bytes += WAL_RECORD_BYTES + aligned(raft_entry_size(&w->entries[k]));
    }
    return bytes;
}

static uint32_t count_records(struct raft_write *const *writes, uint32_t n)
{
    uint32_t records = 0;
    for (uint32_t i = 0; i < n; i++)
        records += writes[i]->has_hard + (writes[i]->install != NULL) +
                   (writes[i]->truncate_from != 0) + writes[i]->n_entries;
    return records;
}

void wal_batch_encode(struct wal_writer *w, struct raft_write *const *writes, uint32_t n,
                      struct sb *out)
{
    size_t start = out->len, bytes = wal_batch_bytes(writes, n);
    uint64_t commit = 0;
    for (uint32_t i = 0; i < n; i++)
        commit = MAX(commit, writes[i]->commit);
    uint8_t body[BATCH_BODY_BYTES];
    put(body, count_records(writes, n), 4);
    put(body + 4, bytes, 4);
    put(body + 8, w->durable_index, 8);
    put(body + 16, commit, 8);
    w->batch++;
    put_record(w, out, w->offset, WAL_BATCH, 0, w->batch, w->durable_batch, body, sizeof(body));
#define AT (w->offset + (out->len - start))
    for (uint32_t i = 0; i < n; i++) {
        const struct raft_write *x = writes[i];
        if (x->install)
            put_record(w, out, AT, WAL_INSTALL, 0, x->install_index, x->install_term, NULL, 0);
        if (x->truncate_from)
            put_record(w, out, AT, WAL_TRUNCATE, 0, x->truncate_from, 0, NULL, 0);
        for (uint32_t k = 0; k < x->n_entries; k++) {
            const struct raft_entry *e = &x->entries[k];
            put_record(w, out, AT, WAL_ENTRY, e->type, e->index, e->term,
                       e->data ? e->data->data : NULL, raft_entry_size(e));
        }
        if (x->has_hard) {
            uint8_t hard[HARD_BODY_BYTES];
            put(hard, x->term, 8);
            put(hard + 8, x->vote, 8);
            put_record(w, out, AT, WAL_HARD, 0, 0, 0, hard, sizeof(hard));
        }
    }
#undef AT
    ASSERT(out->overflow || out->len - start == bytes);
    w->offset += bytes + WAL_MARK_BYTES;
}

void wal_mark_encode(const struct wal_writer *w, uint8_t out[WAL_MARK_BYTES])
{
    memset(out, 0, WAL_MARK_BYTES);
    put(out + 4, WAL_MAGIC, 4);
    out[12] = WAL_MARK;
    put(out + 16, w->durable_batch, 8);
    put(out + 24, w->durable_index, 8);
    put(out, header_crc(w->salt, out), 4);
}

/* ---- scanning ---- */

struct op {
    uint8_t type, flags;
    uint64_t index, term;
    struct raft_buf *body;
};

struct scan {
    struct wal_replay *s;
    struct wal_segment header;
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

static bool is_header(const struct scan *c, size_t offset)
{
    const uint8_t *h = c->bytes + offset;
    return offset + WAL_RECORD_BYTES <= c->size && get(h + 4, 4) == WAL_MAGIC &&
           get(h, 4) == header_crc(c->header.salt, h);
}

/* One whole record at *offset; moves *offset and tag behind it. 0, -E_CORRUPT or -E_NO_MEMORY. */
static int take_record(const struct scan *c, size_t *offset, uint8_t tag[WAL_TAG_BYTES],
                       struct op *ret)
{
    if (!is_header(c, *offset))
        return -E_CORRUPT;
    const uint8_t *h = c->bytes + *offset;
    size_t size = get(h + 8, 4);
    if (size > RAFT_ENTRY_MAX_BYTES || aligned(size) > c->size - *offset - WAL_RECORD_BYTES)
        return -E_CORRUPT;
    uint8_t aad[28 + WAL_TAG_BYTES], plain[WAL_TAG_BYTES];
    record_aad(aad, h, tag);
    struct raft_buf *body = raft_buf_alloc(size + WAL_TAG_BYTES);
    if (!body)
        return -E_NO_MEMORY;
    memcpy(body->data, h + WAL_RECORD_BYTES, size);
    memcpy(body->data + size, h + 32, WAL_TAG_BYTES);
    bool good;
    if (c->header.sealed) {
        uint8_t nonce[24];
        record_nonce(nonce, c->header.salt, *offset);
        good = crypto_xaead_open(body->data, body->data, size + WAL_TAG_BYTES, aad, sizeof(aad), nonce,
                                 c->s->key);
    } else {
        plain_tag(plain, aad, body->data, size);
        good = memcmp(plain, h + 32, WAL_TAG_BYTES) == 0;
    }
    if (!good) {
        raft_buf_unref(body);
        return -E_CORRUPT;
    }
    body->size = size;
    *ret = (struct op){
        .type = h[12],
        .flags = h[13],
        .index = get(h + 16, 8),
        .term = get(h + 24, 8),
        .body = body,
    };
    memcpy(tag, h + 32, WAL_TAG_BYTES);
    *offset += WAL_RECORD_BYTES + aligned(size);
    return 0;
}

/* False: the records are genuine but contradict each other. */
static bool apply_op(struct wal_replay *s, struct op *o)
{
    switch (o->type) {
    case WAL_HARD:
        if (o->body->size != HARD_BODY_BYTES || get(o->body->data, 8) < s->term)
            return false;
        s->term = get(o->body->data, 8);
        s->vote = get(o->body->data + 8, 8);
        return true;
    case WAL_INSTALL:
        drop_entries(s, 0);
        s->next = o->index + 1;
        s->snapshot_seen_term = o->index == s->snapshot_index ? o->term : 0;
        s->max_index = MAX(s->max_index, o->index);
        return o->index <= s->snapshot_index; /* else its file is gone */
    case WAL_TRUNCATE:
        drop_entries(s, o->index);
        s->next = o->index;
        if (o->index <= s->snapshot_index)
            s->snapshot_seen_term = 0;
        return true;
    case WAL_ENTRY:
        if ((s->next && o->index != s->next) || !o->index ||
            (!s->next && o->index > s->snapshot_index + 1))
            return false;
        s->next = o->index + 1;
        s->max_index = MAX(s->max_index, o->index);
        if (o->index == s->snapshot_index)
            s->snapshot_seen_term = o->term;
        if (o->index > s->snapshot_index) {
            struct raft_entry e = {
                .index = o->index,
                .term = o->term,
                .type = o->flags,
                .data = o->body->size ? o->body : NULL,
            };
            raft_entries_push(&s->entries, &s->n, &s->cap, &e);
        }
        return true;
    default:
        return false;
    }
}

/* The batch at *offset, all or nothing. 0, -E_CORRUPT: not whole, -E_STALE: whole but impossible. */
static int take_batch(const struct scan *c, size_t *offset)
{
    struct wal_replay *s = c->s;
    uint8_t tag[WAL_TAG_BYTES];
    memcpy(tag, s->tag, sizeof(tag));
    struct op first;
    size_t at = *offset;
    int rc = take_record(c, &at, tag, &first);
    if (rc)
        return rc;
    uint32_t n = 0, n_ops = 0;
    uint64_t bytes = 0, commit = 0;
    if (first.type == WAL_BATCH && first.index == s->batch + 1 && first.body->size == BATCH_BODY_BYTES) {
        n = (uint32_t)get(first.body->data, 4);
        bytes = get(first.body->data + 4, 4);
        commit = get(first.body->data + 16, 8);
    }
    raft_buf_unref(first.body);
    if (!bytes || bytes > c->size - *offset || n > bytes / WAL_RECORD_BYTES)
        return -E_CORRUPT;
    AUTO_FREE struct op *ops = try_calloc(MAX(n, 1), sizeof(*ops));
    if (!ops)
        return -E_NO_MEMORY;
    for (; !rc && n_ops < n; n_ops += !rc)
        rc = take_record(c, &at, tag, &ops[n_ops]);
    if (!rc && at != *offset + bytes)
        rc = -E_CORRUPT;
    for (uint32_t i = 0; !rc && i < n_ops; i++)
        if (!apply_op(s, &ops[i]))
            rc = -E_STALE;
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

/* Does anything behind `offset` vouch for a batch we do not have? */
static bool is_durable_beyond(const struct scan *c, size_t offset)
{
    for (; offset + WAL_RECORD_BYTES <= c->size; offset += 8) {
        if (!is_header(c, offset))
            continue;
        const uint8_t *h = c->bytes + offset;
        if ((h[12] == WAL_BATCH && get(h + 24, 8) > c->s->batch) ||
            (h[12] == WAL_MARK && get(h + 16, 8) > c->s->batch))
            return true;
    }
    return false;
}

static int start_segment(struct scan *c, const char *name, struct err *e)
{
    struct wal_replay *s = c->s;
    struct wal_segment *h = &c->header;
    if (!wal_segment_decode(h, c->bytes, c->size))
        return err_set(e, E_CORRUPT, "raft log: %s has a damaged header at offset 0; replace this "
                       "node under a new id", name);
    uint8_t id[WAL_KEY_ID_BYTES] = {0};
    if (s->key)
        wal_key_id(id, s->key);
    if (h->sealed != (s->key != NULL) || (s->key && memcmp(id, h->key_id, sizeof(id)) != 0))
        return err_set(e, E_DENIED, "raft log: %s is %s; give the key it was written with", name,
                       h->sealed ? "sealed with another key" : "not sealed, yet a key was given");
    if (!s->started) {
        s->started = true;
        s->node_id = h->node_id;
        s->term = h->term;
        s->vote = h->vote;
        s->commit = h->commit;
        s->batch = h->batch;
        memcpy(s->tag, h->prev_tag, sizeof(s->tag));
    } else if (h->number != s->segment + 1 || h->batch != s->batch ||
               memcmp(h->prev_tag, s->tag, sizeof(s->tag)) != 0 ||
               (s->batch && h->node_id != s->node_id)) {
        return err_set(e, E_CORRUPT, "raft log: %s does not continue the segment before it (a file is "
                       "missing or from elsewhere); replace this node under a new id", name);
    }
    s->node_id = h->node_id;
    s->segment = h->number;
    struct op base = {.type = WAL_INSTALL, .index = h->base_index, .term = h->base_term};
    if (h->base_index && !apply_op(s, &base))
        return err_set(e, E_CORRUPT, "raft log: %s continues a snapshot at index %" PRIu64
                       " that is gone; replace this node under a new id", name, h->base_index);
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
    bool rot = limit ? offset != limit : rc == -E_STALE || is_durable_beyond(&c, offset);
    if (rot)
        return err_set(e, E_CORRUPT, "raft log: %s is damaged at offset %zu, inside what was durable; "
                       "replace this node under a new id", name, offset);
    s->torn = !limit && is_header(&c, offset);
    s->end = offset;
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
    if (s->n && s->entries[0].index != s->snapshot_index + 1)
        return err_set(e, E_CORRUPT, "raft log: entries %" PRIu64 " to %" PRIu64 " are missing; "
                       "replace this node under a new id", s->snapshot_index + 1,
                       s->entries[0].index - 1);
    if (s->snapshot_term > s->term) {
        s->term = s->snapshot_term; /* its file became durable before the batch with the new term */
        s->vote = 0;
    }
    ret_boot->id = s->batch ? s->node_id : 0; /* a node exists from its first batch on */
    ret_boot->term = s->term;
    ret_boot->vote = s->vote;
    ret_boot->commit = s->commit;
    ret_boot->snapshot_index = s->snapshot_index;
    ret_boot->snapshot_term = s->snapshot_term;
    ret_boot->entries = TAKE(s->entries);
    ret_boot->n_entries = s->n;
    s->n = s->cap = 0;
    return 0;
}
