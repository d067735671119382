/* Bytes of a message: 76 bytes of fixed header, little endian, then entries or a snapshot chunk.
 * One form per message (encode(decode(x)) == x), so that the fuzzer has an oracle. Counts and sizes
 * are checked against the bytes that are left before anything is allocated. */
#include "internal.h"
#include <shoal/base/le.h>

enum { MESSAGE_VERSION = 1, ENTRY_FIXED_BYTES = 8 + 1 + 4 };

struct reader {
    const uint8_t *p, *end;
    bool bad;
};

static uint64_t take(struct reader *b, unsigned n)
{
    if ((size_t)(b->end - b->p) < n) {
        b->bad = true;
        return 0;
    }
    uint64_t v = le_get(b->p, n);
    b->p += n;
    return v;
}

void raft_message_done(struct raft_message *m)
{
    for (uint32_t i = 0; i < m->n_entries; i++)
        raft_buf_unref(m->entries[i].data);
    free(m->entries);
    raft_buf_unref(m->chunk);
    memset(m, 0, sizeof(*m));
}

static int decode_entries(struct raft_message *m, struct reader *b)
{
    uint64_t n = take(b, 4);
    if (b->bad || n > RAFT_MESSAGE_ENTRIES_MAX || n * ENTRY_FIXED_BYTES > (size_t)(b->end - b->p) ||
        m->index > UINT64_MAX - n)
        return -E_INVALID;
    if (!n)
        return 0;
    m->entries = try_calloc(n, sizeof(*m->entries));
    if (!m->entries)
        return -E_NO_MEMORY;
    uint64_t prev_term = m->log_term;
    for (uint32_t i = 0; i < n; i++) {
        struct raft_entry e = {.index = m->index + 1 + i, .term = take(b, 8)};
        e.type = (uint8_t)take(b, 1);
        size_t size = take(b, 4);
        if (b->bad || e.type < RAFT_ENTRY_NOOP || e.type > RAFT_ENTRY_CONFIGURATION ||
            e.term < prev_term || !e.term || e.term > m->term || size > RAFT_ENTRY_MAX_BYTES ||
            size > (size_t)(b->end - b->p))
            return -E_INVALID;
        if (e.type == RAFT_ENTRY_CONFIGURATION) {
            struct raft_configuration *c = raft_configuration_decode(b->p, size, e.index);
            if (!c)
                return -E_INVALID;
            raft_configuration_free(c);
        }
        if (size && !(e.data = raft_buf_new(b->p, size)))
            return -E_NO_MEMORY;
        b->p += size;
        prev_term = e.term;
        m->entries[m->n_entries++] = e;
    }
    return 0;
}

static int decode_chunk(struct raft_message *m, struct reader *b)
{
    size_t size = take(b, 4);
    if (b->bad || size != (size_t)(b->end - b->p) || m->seq > m->total || size > m->total - m->seq)
        return -E_INVALID;
    m->chunk = raft_buf_new(b->p, size);
    if (!m->chunk)
        return -E_NO_MEMORY;
    m->chunk_size = size;
    b->p += size;
    return 0;
}

bool raft_message_is_urgent(const void *bytes, size_t size)
{
    static const uint8_t urgent[] = {RAFT_MSG_PREVOTE, RAFT_MSG_PREVOTE_REPLY, RAFT_MSG_VOTE, RAFT_MSG_VOTE_REPLY,
                                     RAFT_MSG_HEARTBEAT, RAFT_MSG_HEARTBEAT_REPLY, RAFT_MSG_TIMEOUT_NOW};
    const uint8_t *p = bytes;
    return size == RAFT_MESSAGE_HEADER_BYTES && memchr(urgent, p[1], sizeof(urgent));
}

int raft_message_decode(struct raft_message *ret, const void *bytes, size_t size)
{
    struct reader b = {.p = bytes, .end = (const uint8_t *)bytes + size};
    struct raft_message m = {0};
    if (size < RAFT_MESSAGE_HEADER_BYTES || size > RAFT_MESSAGE_MAX_BYTES)
        return -E_INVALID;
    uint64_t version = take(&b, 1);
    m.type = (uint8_t)take(&b, 1);
    m.flags = (uint8_t)take(&b, 1);
    uint64_t zero = take(&b, 1);
    m.to = take(&b, 8);
    m.term = take(&b, 8);
    m.session = take(&b, 8);
    m.request = take(&b, 8);
    m.index = take(&b, 8);
    m.log_term = take(&b, 8);
    m.commit = take(&b, 8);
    m.seq = take(&b, 8);
    m.total = take(&b, 8);
    if (version != MESSAGE_VERSION || zero || m.flags & ~RAFT_FLAGS_ALL || !m.to || !m.term ||
        m.type < RAFT_MSG_PREVOTE || m.type > RAFT_MSG_TIMEOUT_NOW)
        return -E_INVALID;
    int rc = 0;
    if (m.type == RAFT_MSG_APPEND)
        rc = decode_entries(&m, &b);
    else if (m.type == RAFT_MSG_SNAPSHOT)
        rc = decode_chunk(&m, &b);
    if (!rc && (b.bad || b.p != b.end))
        rc = -E_INVALID;
    if (rc) {
        raft_message_done(&m);
        return rc;
    }
    *ret = m;
    return 0;
}

void raft_message_encode(const struct raft_message *m, struct sb *out)
{
    sb_le(out, MESSAGE_VERSION, 1);
    sb_le(out, m->type, 1);
    sb_le(out, m->flags, 1);
    sb_le(out, 0, 1);
    sb_le(out, m->to, 8);
    sb_le(out, m->term, 8);
    sb_le(out, m->session, 8);
    sb_le(out, m->request, 8);
    sb_le(out, m->index, 8);
    sb_le(out, m->log_term, 8);
    sb_le(out, m->commit, 8);
    sb_le(out, m->seq, 8);
    sb_le(out, m->total, 8);
    if (m->type == RAFT_MSG_APPEND) {
        sb_le(out, m->n_entries, 4);
        for (uint32_t i = 0; i < m->n_entries; i++) {
            const struct raft_entry *e = &m->entries[i];
            sb_le(out, e->term, 8);
            sb_le(out, e->type, 1);
            sb_le(out, raft_entry_size(e), 4);
            if (e->data)
                sb_add(out, e->data->data, e->data->size);
        }
    } else if (m->type == RAFT_MSG_SNAPSHOT) {
        sb_le(out, m->chunk_size, 4);
        sb_add(out, m->chunk->data + m->chunk_offset, m->chunk_size);
    }
}
