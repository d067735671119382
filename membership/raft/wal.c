/* Bytes of the log: segment headers, records, batches, and the copy of term and vote (consensus.md 3.3).
 * How a log is read at start is in replay.c. */
#include "wal.h"

#include "internal.h"
#include <shoal/base/le.h>

enum { WAL_MAGIC = 0x4c415752, WAL_VERSION = 1 };
static const char segment_magic[8] = "SHOALWAL";

static const char hard_magic[8] = "SHOALHRD";

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
    le_put(out + 8, WAL_VERSION, 4);
    le_put(out + 12, s->sealed, 4);
    le_put(out + 16, s->number, 8);
    le_put(out + 24, s->node_id, 8);
    le_put(out + 32, s->prev_bytes, 8);
    le_put(out + 40, s->term, 8);
    le_put(out + 48, s->vote, 8);
    le_put(out + 56, s->commit, 8);
    le_put(out + 64, s->batch, 8);
    memcpy(out + 72, s->prev_tag, WAL_TAG_BYTES);
    memcpy(out + 88, s->salt, WAL_SALT_BYTES);
    memcpy(out + 104, s->key_id, WAL_KEY_ID_BYTES);
    le_put(out + 112, s->base_index, 8);
    le_put(out + 120, s->base_term, 8);
    le_put(out + 140, wal_crc32c(0, out, 140), 4);
}

bool wal_segment_decode(struct wal_segment *ret, const uint8_t *p, size_t size)
{
    if (size < WAL_SEGMENT_HEADER_BYTES || memcmp(p, segment_magic, 8) != 0 ||
        le_get(p + 8, 4) != WAL_VERSION || le_get(p + 12, 4) > 1 ||
        le_get(p + 140, 4) != wal_crc32c(0, p, 140))
        return false;
    *ret = (struct wal_segment){
        .sealed = le_get(p + 12, 4) == 1,
        .number = le_get(p + 16, 8),
        .node_id = le_get(p + 24, 8),
        .prev_bytes = le_get(p + 32, 8),
        .term = le_get(p + 40, 8),
        .vote = le_get(p + 48, 8),
        .commit = le_get(p + 56, 8),
        .batch = le_get(p + 64, 8),
        .base_index = le_get(p + 112, 8),
        .base_term = le_get(p + 120, 8),
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
    le_put(out + WAL_SALT_BYTES, offset, 8);
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

bool wal_is_record(const uint8_t salt[WAL_SALT_BYTES], const uint8_t *bytes, size_t size, size_t offset)
{
    const uint8_t *h = bytes + offset;
    return offset <= size && WAL_RECORD_BYTES <= size - offset && le_get(h + 4, 4) == WAL_MAGIC &&
           le_get(h, 4) == header_crc(salt, h);
}

int wal_record_peek(const uint8_t salt[WAL_SALT_BYTES], const uint8_t *bytes, size_t size, size_t *offset,
                    struct wal_record *ret)
{
    if (!wal_is_record(salt, bytes, size, *offset))
        return -E_CORRUPT;
    const uint8_t *h = bytes + *offset;
    size_t body = le_get(h + 8, 4);
    if (body > RAFT_ENTRY_MAX_BYTES || aligned(body) > size - *offset - WAL_RECORD_BYTES)
        return -E_CORRUPT;
    *ret = (struct wal_record){
        .type = h[12],
        .flags = h[13],
        .index = le_get(h + 16, 8),
        .term = le_get(h + 24, 8),
        .size = body,
    };
    memcpy(ret->tag, h + 32, WAL_TAG_BYTES);
    *offset += WAL_RECORD_BYTES + aligned(body);
    return 0;
}

int wal_record_read(const struct wal_segment *s, const uint8_t *key, const uint8_t *bytes, size_t size,
                    size_t *offset, uint8_t tag[WAL_TAG_BYTES], struct wal_record *ret)
{
    size_t at = *offset;
    struct wal_record x;
    if (wal_record_peek(s->salt, bytes, size, offset, &x) != 0)
        return -E_CORRUPT;
    const uint8_t *h = bytes + at;
    uint8_t aad[28 + WAL_TAG_BYTES], plain[WAL_TAG_BYTES];
    record_aad(aad, h, tag);
    struct raft_buf *body = raft_buf_alloc(x.size + WAL_TAG_BYTES);
    bool good = body != NULL;
    if (good && s->sealed) {
        uint8_t nonce[24];
        memcpy(body->data, h + WAL_RECORD_BYTES, x.size);
        memcpy(body->data + x.size, x.tag, WAL_TAG_BYTES);
        record_nonce(nonce, s->salt, at);
        good = crypto_xaead_open(body->data, body->data, x.size + WAL_TAG_BYTES, aad, sizeof(aad), nonce, key);
    } else if (good) {
        memcpy(body->data, h + WAL_RECORD_BYTES, x.size);
        plain_tag(plain, aad, body->data, x.size);
        good = memcmp(plain, x.tag, WAL_TAG_BYTES) == 0;
    }
    if (!good) {
        *offset = at;
        raft_buf_unref(body);
        return body ? -E_CORRUPT : -E_NO_MEMORY;
    }
    body->size = x.size;
    x.body = body;
    memcpy(tag, x.tag, WAL_TAG_BYTES);
    *ret = x;
    return 0;
}

/* offset: of the record in its segment. */
static void put_record(struct wal_writer *w, struct sb *out, uint64_t offset, uint8_t type,
                       uint8_t flags, uint64_t index, uint64_t term, const void *body, size_t size)
{
    static const uint8_t zeros[8];
    uint8_t header[WAL_RECORD_BYTES] = {0}, aad[28 + WAL_TAG_BYTES];
    le_put(header + 4, WAL_MAGIC, 4);
    le_put(header + 8, size, 4);
    header[12] = type;
    header[13] = flags;
    le_put(header + 16, index, 8);
    le_put(header + 24, term, 8);
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
    le_put(header, header_crc(w->salt, header), 4);
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
    size_t bytes = WAL_RECORD_BYTES + aligned(WAL_BATCH_BYTES);
    for (uint32_t i = 0; i < n; i++) {
        const struct raft_write *w = writes[i];
        if (w->has_hard)
            bytes += WAL_RECORD_BYTES + aligned(WAL_HARD_BYTES);
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
    uint8_t body[WAL_BATCH_BYTES];
    le_put(body, count_records(writes, n), 4);
    le_put(body + 4, bytes, 4);
    le_put(body + 8, w->durable_index, 8);
    le_put(body + 16, commit, 8);
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
            uint8_t hard[WAL_HARD_BYTES];
            le_put(hard, x->term, 8);
            le_put(hard + 8, x->vote, 8);
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
    le_put(out + 4, WAL_MAGIC, 4);
    out[12] = WAL_MARK;
    le_put(out + 16, w->durable_batch, 8);
    le_put(out + 24, w->durable_index, 8);
    le_put(out, header_crc(w->salt, out), 4);
}

/* ---- the copy of term and vote ---- */

void wal_hard_encode(const struct wal_hard *h, uint8_t out[WAL_HARD_FILE_BYTES])
{
    memset(out, 0, WAL_HARD_FILE_BYTES);
    memcpy(out, hard_magic, 8);
    le_put(out + 8, WAL_VERSION, 4);
    le_put(out + 12, h->damaged, 4);
    le_put(out + 16, h->seq, 8);
    le_put(out + 24, h->node_id, 8);
    le_put(out + 32, h->term, 8);
    le_put(out + 40, h->vote, 8);
    le_put(out + 48, h->voters, 4);
    le_put(out + 52, h->trimmed, 8);
    le_put(out + 60, wal_crc32c(0, out, 60), 4);
}

bool wal_hard_decode(struct wal_hard *ret, const uint8_t *p, size_t size)
{
    if (size < WAL_HARD_FILE_BYTES || memcmp(p, hard_magic, 8) != 0 || le_get(p + 8, 4) != WAL_VERSION ||
        le_get(p + 12, 4) > 1 || le_get(p + 60, 4) != wal_crc32c(0, p, 60))
        return false;
    *ret = (struct wal_hard){
        .damaged = le_get(p + 12, 4) == 1,
        .seq = le_get(p + 16, 8),
        .node_id = le_get(p + 24, 8),
        .term = le_get(p + 32, 8),
        .vote = le_get(p + 40, 8),
        .voters = (uint32_t)le_get(p + 48, 4),
        .trimmed = le_get(p + 52, 8),
    };
    return true;
}
