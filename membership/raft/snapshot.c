/* Snapshots: their image (meta with the configuration, application bytes, hash), sending in chunks
 * that resume by offset, receiving with a running hash, and compaction of the log in memory. Chunks
 * are small and answered one by one so that a big state never delays heartbeats (swarmkit#2374,
 * #3113 in consensus.md 1.2 no. 19). An arriving snapshot grows its buffer with the bytes that came,
 * never with what was promised. */
#include "internal.h"
#include <shoal/base/le.h>

enum { IMAGE_MAGIC = 0x314e5352, IMAGE_FIXED_BYTES = 4 + 8 + 8 + 8 + 4 };
enum { INSTALL_MS = 30000 }; /* as long as that a member may write an image while nothing else gets on */

void raft_image_begin(const struct raft *r, struct sb *out, uint64_t *ret_index, uint64_t *ret_term)
{
    const struct raft_configuration *c = RAFT_BUG == 45 ? r->configs[0] : raft_config_at(r, r->applied);
    uint64_t term = 0;
    bool known = raft_log_term(&r->log, r->applied, &term);
    ASSERT(c && known);
    AUTO_SB struct sb conf;
    sb_init(&conf, 0);
    raft_configuration_encode(c, &conf);
    sb_le(out, IMAGE_MAGIC, 4);
    sb_le(out, r->applied, 8);
    sb_le(out, term, 8);
    sb_le(out, c->index, 8);
    sb_le(out, conf.len, 4);
    sb_add(out, conf.s, conf.len);
    *ret_index = r->applied;
    *ret_term = term;
}

void raft_image_finish(struct sb *image)
{
    uint8_t hash[RAFT_IMAGE_HASH_BYTES];
    crypto_blake2s(hash, sizeof(hash), image->s, image->len, NULL, 0);
    sb_add(image, hash, sizeof(hash));
}

int raft_image_decode(struct raft_image *ret, const void *bytes, size_t size, bool check_hash)
{
    const uint8_t *p = bytes;
    if (size < IMAGE_FIXED_BYTES + RAFT_IMAGE_HASH_BYTES || le_get(p, 4) != IMAGE_MAGIC)
        return -E_CORRUPT;
    size_t body = size - RAFT_IMAGE_HASH_BYTES;
    if (check_hash) {
        uint8_t hash[RAFT_IMAGE_HASH_BYTES];
        crypto_blake2s(hash, sizeof(hash), p, body, NULL, 0);
        if (memcmp(hash, p + body, sizeof(hash)) != 0)
            return -E_CORRUPT;
    }
    struct raft_image i = {.index = le_get(p + 4, 8), .term = le_get(p + 12, 8)};
    uint64_t config_index = le_get(p + 20, 8);
    size_t config_size = le_get(p + 28, 4);
    if (!i.index || !i.term || config_index > i.index || config_size > body - IMAGE_FIXED_BYTES)
        return -E_CORRUPT;
    i.config = raft_configuration_decode(p + IMAGE_FIXED_BYTES, config_size, config_index);
    if (!i.config)
        return -E_CORRUPT;
    i.data = p + IMAGE_FIXED_BYTES + config_size;
    i.size = body - IMAGE_FIXED_BYTES - config_size;
    *ret = i;
    return 0;
}

void raft_image_done(struct raft_image *i)
{
    raft_configuration_free(i->config);
    memset(i, 0, sizeof(*i));
}

/* ---- taken here ---- */

void raft_on_snapshot_taken(struct raft *r, const struct raft_input *in)
{
    if (in->index <= r->snapshot_index) /* a leader's snapshot came in between */
        return;
    ASSERT(in->index <= r->applied);
    ASSERT(raft_log_matches(&r->log, in->index, in->term));
    raft_buf_unref(r->image);
    r->image = raft_buf_ref(in->image);
    r->snapshot_index = in->index;
    r->snapshot_term = in->term;
    uint64_t keep = in->index;
    size_t bytes = 0;
    while (keep > r->log.prev_index && in->index - keep < r->cfg.trailing_entries) {
        bytes += raft_entry_size(raft_log_at(&r->log, keep));
        if (bytes > r->cfg.snapshot_after_bytes)
            break;
        keep--;
    }
    if (RAFT_BUG != 49)
        raft_log_compact(&r->log, keep);
    raft_config_compact(r, keep);
}

/* ---- leader's side ---- */

void raft_peer_start_snapshot(struct raft *r, struct raft_peer *p)
{
    ASSERT(r->image);
    p->state = RAFT_PEER_SNAPSHOT;
    p->n_flights = 0;
    raft_buf_unref(p->image);
    p->image = raft_buf_ref(r->image);
    p->image_index = r->snapshot_index;
    p->image_term = r->snapshot_term;
    p->image_offset = 0;
    p->image_first = p->request + 1;
    p->image_ms = 0;
}

void raft_peer_send_chunk(struct raft *r, struct raft_peer *p)
{
    if (p->image_ms && r->now_ms - p->image_ms < 2 * (int64_t)r->cfg.heartbeat_ms)
        return;
    struct raft_message *m = raft_send_new(r, p->id, RAFT_MSG_SNAPSHOT, AFTER_NOTHING);
    size_t left = p->image->size - p->image_offset;
    m->session = p->session;
    m->request = ++p->request;
    m->index = p->image_index;
    m->log_term = p->image_term;
    m->seq = p->image_offset;
    m->total = p->image->size;
    m->chunk = raft_buf_ref(p->image);
    m->chunk_offset = p->image_offset;
    bool alive = p->acked && r->now_ms - p->ack_ms < 2 * (int64_t)r->cfg.election_min_ms;
    m->chunk_size = alive ? MIN(left, r->cfg.snapshot_chunk_bytes) : 0;
    p->image_ms = r->now_ms;
}

void raft_on_snapshot_reply(struct raft *r, uint64_t from, const struct raft_message *m)
{
    struct raft_peer *p = raft_peer_of(r, from, m);
    if (!p)
        return;
    if (m->flags & RAFT_FLAG_DONE) {
        if (p->state == RAFT_PEER_SNAPSHOT && m->index >= p->image_index) {
            raft_buf_unref(TAKE(p->image));
            p->state = RAFT_PEER_PROBE;
            p->probe_ms = 0;
            p->probe_first = p->request + 1;
            p->next = MAX(p->match, MIN(m->index, raft_log_last(&r->log))) + 1;
        }
        raft_peer_acked(r, p, m->index);
    } else if (p->state == RAFT_PEER_SNAPSHOT && m->request >= p->image_first &&
               m->seq <= p->image->size) {
        if (m->seq > p->image_offset)
            p->image_whole_ms = r->now_ms;
        bool written = m->seq == p->image->size && r->now_ms - p->image_whole_ms < INSTALL_MS; /* over there, just now */
        if (p->voter && (m->seq > p->image_offset || written))
            r->progress_ms = r->now_ms;
        if (p->image_offset != m->seq)
            p->image_first = p->request + 1;
        p->image_offset = m->seq;
        /* the last chunk is being written over there: ask again only after a while */
        p->image_ms = m->seq == p->image->size ? r->now_ms : 0;
    }
    if (r->role == RAFT_LEADER)
        raft_peer_send(r, p);
}

/* ---- follower's side ---- */

void raft_incoming_drop(struct raft *r)
{
    free(TAKE(r->in_bytes));
    r->in_size = r->in_cap = r->in_total = 0;
    r->in_index = r->in_term = 0;
}

static void snapshot_reply(struct raft *r, uint64_t from, const struct raft_message *m, bool done,
                           uint64_t value)
{
    struct raft_message *reply =
        raft_send_new(r, from, RAFT_MSG_SNAPSHOT_REPLY, !done ? AFTER_HARD : RAFT_BUG == 22 ? AFTER_NOTHING : AFTER_ALL);
    reply->session = m->session;
    reply->request = m->request;
    raft_repair_reply(r, reply);
    if (done) {
        reply->flags |= RAFT_FLAG_DONE;
        reply->index = value;
    } else {
        reply->seq = value;
    }
}

/* Adds a chunk; false when memory is short. The hash runs over all but the trailing hash itself. */
static bool incoming_add(struct raft *r, const uint8_t *bytes, size_t size)
{
    if (r->in_size + size > r->in_cap) {
        size_t cap = MIN(MAX(2 * r->in_cap, r->in_size + size), r->in_total);
        uint8_t *more = try_calloc(1, MAX(cap, 1));
        if (!more)
            return false;
        if (r->in_size)
            memcpy(more, r->in_bytes, r->in_size);
        free(r->in_bytes);
        r->in_bytes = more;
        r->in_cap = cap;
    }
    if (size)
        memcpy(r->in_bytes + r->in_size, bytes, size);
    size_t body = r->in_total - RAFT_IMAGE_HASH_BYTES;
    if (r->in_size < body)
        blake2s_add(&r->in_hash, bytes, MIN(size, body - r->in_size));
    r->in_size += size;
    return true;
}

/* The image is whole and genuine: it replaces the log, in memory now, on disk with this step's write,
 * in the application after RAFT_SNAPSHOT_INSTALLED. */
static bool install(struct raft *r)
{
    uint8_t hash[RAFT_IMAGE_HASH_BYTES];
    struct raft_image image;
    blake2s_end(&r->in_hash, hash);
    if (memcmp(hash, r->in_bytes + r->in_total - sizeof(hash), sizeof(hash)) != 0)
        return false;
    if (raft_image_decode(&image, r->in_bytes, r->in_total, false) != 0)
        return false;
    struct raft_buf *bytes = NULL;
    if (image.index != r->in_index || image.term != r->in_term || image.term > r->term ||
        !(bytes = raft_buf_new(r->in_bytes, r->in_total))) {
        raft_image_done(&image);
        return false;
    }
    r->durable = MIN(r->durable, r->commit);
    for (uint32_t i = 0; i < r->n_pending; i++)
        r->pending[i].last = 0;
    raft_log_reset(&r->log, image.index, image.term);
    raft_config_reset(r, TAKE(image.config));
    r->commit = MAX(r->commit, image.index);
    r->snapshot_index = image.index;
    r->snapshot_term = image.term;
    raft_buf_unref(r->image);
    r->image = raft_buf_ref(bytes);
    r->install = bytes;
    r->install_index = image.index;
    r->installing = true;
    struct raft_write *w = &r->out->write;
    w->install = raft_buf_ref(bytes);
    w->install_index = image.index;
    w->install_term = image.term;
    raft_repair_matched(r, image.index);
    raft_image_done(&image);
    return true;
}

void raft_on_snapshot(struct raft *r, uint64_t from, const struct raft_message *m)
{
    if (r->installing && m->index == r->install_index) {
        snapshot_reply(r, from, m, false, m->total); /* it has all and writes it */
        return;
    }
    /* A log that has the snapshot's last entry keeps what follows: it may have been acknowledged. */
    if (m->index > r->commit && raft_log_matches(&r->log, m->index, m->log_term))
        raft_set_commit(r, m->index);
    if (m->index <= r->commit && RAFT_BUG != 17) {
        raft_incoming_drop(r);
        snapshot_reply(r, from, m, true, r->commit);
        return;
    }
    if (r->installing || m->total > r->cfg.snapshot_max_bytes || m->total < RAFT_IMAGE_HASH_BYTES)
        return;
    if (r->in_index != m->index || r->in_term != m->log_term || r->in_total != m->total) {
        raft_incoming_drop(r);
        r->in_index = m->index;
        r->in_term = m->log_term;
        r->in_total = m->total;
        blake2s_init(&r->in_hash, RAFT_IMAGE_HASH_BYTES, NULL, 0);
    }
    if (m->seq == r->in_size &&
        !incoming_add(r, m->chunk->data + m->chunk_offset, m->chunk_size))
        return; /* no memory now; the leader tries again */
    if (r->in_size < r->in_total) {
        snapshot_reply(r, from, m, false, r->in_size);
        return;
    }
    bool good = install(r);
    raft_incoming_drop(r);
    if (good)
        snapshot_reply(r, from, m, true, r->snapshot_index);
    else
        snapshot_reply(r, from, m, false, 0);
}
