/* Raft's bytes: messages, configurations, snapshot images, snapshot files, and the write-ahead log. Oracles: a message
 * that is read is written to the same bytes; a log that was damaged is refused or gives what was written up to some
 * batch, never anything else, and never less than what lies before the damage; a cut or torn last batch costs only
 * itself. The first byte chooses; for the log the rest is a recipe: what to write, what to damage. */
#include "fuzz.h"

#include "wal.h"

enum { BATCHES_MAX = 8, LAST_MAX = 3 * BATCHES_MAX };

/* ---- a log written by a recipe ---- */
struct recipe { const uint8_t *p; size_t size; };

static unsigned next(struct recipe *r)
{
    if (!r->size)
        return 0;
    r->size--;
    return *r->p++;
}

struct written {
    struct wal_segment head;
    struct sb b;
    unsigned n;                            /* batches */
    size_t start[BATCHES_MAX], end[BATCHES_MAX]; /* of the bytes of a batch, without its mark */
    uint64_t last[BATCHES_MAX + 1], term[BATCHES_MAX + 1]; /* state after so many batches */
    uint8_t content[BATCHES_MAX + 1][LAST_MAX + 1]; /* of each entry */
    bool marked[BATCHES_MAX];
};
static const uint8_t key[32] = { 9 };

static void write_batch(struct written *w, struct wal_writer *to, struct recipe *r)
{
    struct raft_write one = { .token = w->n + 1, .has_hard = true }, *list = &one;
    uint64_t last = w->last[w->n], term = w->term[w->n] + next(r) % 2;
    unsigned n = w->n + 1;
    memcpy(w->content[n], w->content[n - 1], sizeof w->content[n]);
    one.term = MAX(term, 1u);
    if (last && next(r) % 4 == 0)
        one.truncate_from = last--;
    for (unsigned k = next(r) % 3; k > 0; k--) {
        uint8_t c = (uint8_t)next(r), bytes[64];
        memset(bytes, c, sizeof bytes);
        struct raft_entry e = { .index = ++last, .term = one.term, .type = RAFT_ENTRY_NORMAL,
                                .data = raft_buf_new(bytes, 1 + c % 64) };
        one.entries = xrealloc(one.entries, one.n_entries + 1, sizeof e);
        one.entries[one.n_entries++] = e;
        w->content[n][last] = c;
    }
    w->start[w->n] = w->b.len;
    wal_batch_encode(to, &list, 1, &w->b);
    w->end[w->n] = w->b.len;
    to->durable_batch = to->batch;
    to->durable_index = last;
    uint8_t mark[WAL_MARK_BYTES] = { 0 };
    w->marked[w->n] = next(r) % 2;
    if (w->marked[w->n])
        wal_mark_encode(to, mark);
    sb_add(&w->b, mark, sizeof mark);
    w->n = n;
    w->last[n] = last;
    w->term[n] = one.term;
    raft_write_done(&one);
}

/* Is it what was written up to batch k? */
static bool is_state(const struct written *w, unsigned k, const struct raft_boot *b)
{
    if (b->n_entries != w->last[k] || b->term != w->term[k])
        return false;
    for (uint32_t i = 0; i < b->n_entries; i++) {
        const struct raft_entry *e = &b->entries[i];
        uint8_t c = w->content[k][i + 1];
        if (e->index != i + 1 || !e->data || e->data->size != 1u + c % 64)
            return false;
        for (size_t n = 0; n < e->data->size; n++)
            if (e->data->data[n] != c)
                return false;
    }
    return true;
}

/* ---- what else looks at it: the dump, and the cut before the damage ---- */
static void ignore_line(void *arg, const struct raft_dump_line *l)
{
    (void)arg;
    ASSERT(l->file && l->type && l->state);
}

static uint64_t count_rot(const uint8_t *p, size_t size, const uint8_t *k)
{
    const struct raft_keys keys = { .now = k };
    struct raft_dump_result with, without;
    ASSERT(raft_dump_bytes("wal-", p, size, k ? &keys : NULL, ignore_line, NULL, &with));
    raft_dump_bytes("wal-", p, size, NULL, ignore_line, NULL, &without);
    ASSERT(with.rotten <= with.lines && without.lines <= with.lines);
    return with.rotten;
}

struct source {
    const uint8_t *p;
    size_t size;
};

static int read_source(void *arg, uint32_t i, uint8_t **ret, size_t *ret_size, char name[256], struct err *e)
{
    const struct source *s = arg;
    (void)i, (void)e;
    *ret = xmemdup(s->p, s->size);
    *ret_size = s->size;
    memcpy(name, "cut", 4);
    return 0;
}

/* It always opens, with the state after one of the batches from `before` on, damaged or not. */
static void cut(const struct written *w, const uint8_t *p, size_t size, const uint8_t *k, unsigned before, bool rot)
{
    struct source s = { p, size };
    struct wal_source src = { .arg = &s, .n = 1, .read = read_source };
    struct wal_replay rp;
    struct raft_boot boot = { 0 };
    struct err e;
    bool found = false;
    wal_replay_init(&rp, k, 0, 0);
    ASSERT(wal_replay_log(&rp, &src, WAL_CUT, &boot, &e) == 0);
    ASSERT(boot.damaged == rot && boot.commit <= boot.n_entries);
    for (unsigned i = before; !found && i <= w->n; i++)
        found = is_state(w, i, &boot);
    ASSERT(found);
    raft_boot_done(&boot);
    wal_replay_done(&rp);
}

static void wal_by_recipe(const uint8_t *p, size_t size)
{
    struct recipe r = { p, size };
    struct written w = { .head = { .number = 1, .node_id = 7, .sealed = next(&r) % 2 } };
    struct wal_writer to;
    uint8_t head[WAL_SEGMENT_HEADER_BYTES];
    const uint8_t *k = w.head.sealed ? key : NULL;
    if (k)
        wal_key_id(w.head.key_id, k);
    sb_init(&w.b, 0);
    wal_segment_encode(&w.head, head);
    sb_add(&w.b, head, sizeof head);
    wal_writer_start(&to, &w.head, k);
    for (unsigned n = 1 + next(&r) % BATCHES_MAX; n > 0; n--)
        write_batch(&w, &to, &r);
    size_t whole = w.b.len, first = whole; /* first: lowest byte that is damaged */
    if (next(&r) % 2) {
        first = next(&r) * whole / 256;
        w.b.len = first;
    }
    for (unsigned n = next(&r) % 4; n > 0 && w.b.len; n--) {
        size_t at = (next(&r) * 256 + next(&r)) * w.b.len / 65536;
        uint8_t bits = (uint8_t)next(&r);
        w.b.s[at] = (char)(w.b.s[at] ^ bits);
        if (bits)
            first = MIN(first, at);
    }
    struct wal_replay rp;
    struct raft_boot boot = { 0 };
    struct err e = { 0 };
    AUTO_FREE uint8_t *exact = xmemdup(w.b.s, w.b.len);
    wal_replay_init(&rp, k, 0, 0);
    int rc = wal_replay_segment(&rp, exact, w.b.len, 0, "fuzz", &e);
    if (rc == 0)
        rc = wal_replay_finish(&rp, &boot, &e);
    unsigned before = 0; /* batches that are whole */
    while (before < w.n && w.end[before] <= first)
        before++;
    if (rc == 0) {
        bool found = false;
        for (unsigned i = before; !found && i <= w.n; i++)
            found = is_state(&w, i, &boot);
        ASSERT(found);
    } else {
        /* Refused: for a reason, and never for a cut or torn tail that nothing vouches for. */
        ASSERT(e.text[0] && first < whole);
        ASSERT(first < WAL_SEGMENT_HEADER_BYTES || before + 1 < w.n ||
               (before < w.n && w.marked[before]));
    }
    uint64_t rot = count_rot(exact, w.b.len, k);
    ASSERT(rc == 0 || rc == -E_DENIED || rot);
    if (rc != -E_DENIED)
        cut(&w, exact, w.b.len, k, before, rc != 0);
    raft_boot_done(&boot);
    wal_replay_done(&rp);
    sb_done(&w.b);
}

/* ---- bytes as they are ---- */
static void wal_as_is(const uint8_t *p, size_t size)
{
    struct wal_replay rp;
    struct raft_boot boot = { 0 };
    struct err e = { 0 };
    wal_replay_init(&rp, NULL, 0, 0);
    if (wal_replay_segment(&rp, p, size, 0, "fuzz", &e) == 0 && wal_replay_finish(&rp, &boot, &e) == 0)
        raft_boot_done(&boot);
    wal_replay_done(&rp);
    count_rot(p, size, NULL);
}

static void hard(const uint8_t *p, size_t size)
{
    struct wal_hard h;
    uint8_t again[WAL_HARD_FILE_BYTES];
    if (!wal_hard_decode(&h, p, size))
        return;
    wal_hard_encode(&h, again);
    struct wal_hard back;
    ASSERT(wal_hard_decode(&back, again, sizeof again) && back.term == h.term && back.vote == h.vote && back.damaged == h.damaged && back.trimmed == h.trimmed);
}

static void message(const uint8_t *p, size_t size)
{
    struct raft_message m;
    AUTO_SB struct sb b;
    sb_init(&b, RAFT_MESSAGE_MAX_BYTES);
    if (raft_message_decode(&m, p, size) < 0)
        return;
    raft_message_encode(&m, &b);
    ASSERT(b.len == size && memcmp(b.s, p, size) == 0);
    raft_message_done(&m);
}

static void configuration(const uint8_t *p, size_t size)
{
    struct raft_configuration *c = raft_configuration_decode(p, size, 1);
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    if (!c)
        return;
    raft_configuration_encode(c, &b);
    ASSERT(b.len == size && memcmp(b.s, p, size) == 0);
    raft_configuration_free(c);
}

static void image(const uint8_t *p, size_t size)
{
    struct raft_image i;
    if (raft_image_decode(&i, p, size, false) == 0) {
        ASSERT(i.size <= size && (!i.size || (i.data >= p && i.data + i.size <= p + size)));
        raft_image_done(&i);
    }
    if (raft_image_decode(&i, p, size, true) == 0)
        raft_image_done(&i);
}

static void snapfile(const uint8_t *p, size_t size)
{
    struct raft_buf *b = NULL;
    struct err e = { 0 };
    if (snapfile_decode(&b, p, size, NULL, "fuzz", &e) == 0)
        raft_buf_unref(b);
    else
        ASSERT(!b && e.text[0]);
    if (snapfile_decode(&b, p, size, key, "fuzz", &e) == 0)
        raft_buf_unref(b);
}

static void (*const forms[])(const uint8_t *p, size_t size) = { wal_by_recipe, wal_as_is, message, configuration, image,
                                                                  snapfile, hard };

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    if (size)
        forms[p[0] % ARRAY_N(forms)](p + 1, size - 1);
    return 0;
}

const unsigned fuzz_rounds = 2000;
const char *const fuzz_words[] = { "\xff\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff", "\x01", NULL };

static void random_message(struct rng *g, struct sb *b)
{
    struct raft_message m = { .type = (uint8_t)rng_range(g, RAFT_MSG_PREVOTE, RAFT_MSG_TIMEOUT_NOW), .to = 1 + rng_u64(g) / 2,
                              .flags = (uint8_t)rng_below(g, RAFT_FLAGS_ALL + 1), .session = rng_u64(g), .request = rng_u64(g),
                              .index = rng_below(g, 100), .log_term = rng_below(g, 4), .term = 9, .commit = rng_u64(g) };
    uint8_t bytes[40];
    rng_bytes(g, bytes, sizeof bytes);
    if (m.type == RAFT_MSG_APPEND) {
        m.n_entries = (uint32_t)rng_below(g, 4);
        m.entries = xcalloc(m.n_entries + 1, sizeof *m.entries);
        for (uint32_t i = 0; i < m.n_entries; i++)
            m.entries[i] = (struct raft_entry){ .index = m.index + 1 + i, .term = 5 + i, .type = RAFT_ENTRY_NORMAL,
                                                .data = raft_buf_new(bytes, 1 + rng_below(g, sizeof bytes)) };
    } else if (m.type == RAFT_MSG_SNAPSHOT) {
        m.total = 1000;
        m.seq = rng_below(g, 900);
        m.chunk = raft_buf_new(bytes, sizeof bytes);
        m.chunk_size = rng_below(g, sizeof bytes);
    }
    raft_message_encode(&m, b);
    struct raft_message back;
    ASSERT(raft_message_decode(&back, b->s + 1, b->len - 1) == 0 && back.session == m.session && back.n_entries == m.n_entries);
    raft_message_done(&back);
    raft_message_done(&m);
}

/* Of an image like those that raft_image_begin() starts. */
static void random_snapfile(struct rng *g, struct sb *b)
{
    uint8_t bytes[200];
    struct raft_buf *back = NULL;
    struct err e;
    bool sealed = rng_chance(g, 500);
    AUTO_SB struct sb im;
    sb_init(&im, 0);
    rng_bytes(g, bytes, sizeof bytes);
    static const uint8_t head[32] = { 'R', 'S', 'N', '1', 5, [12] = 2, [20] = 1 }; /* magic, index, term, configuration's */
    uint64_t ids[3] = { 1, 2, 3 };
    struct raft_entry first = raft_bootstrap_entry(ids, 3, "x", 1);
    sb_add(&im, head, sizeof head);
    im.s[28] = (char)first.data->size;
    sb_add(&im, first.data->data, first.data->size);
    raft_buf_unref(first.data);
    sb_add(&im, bytes, rng_below(g, sizeof bytes));
    raft_image_finish(&im);
    snapfile_encode((const uint8_t *)im.s, im.len, 5, 2, sealed ? key : NULL, b);
    int rc = snapfile_decode(&back, (const uint8_t *)b->s + 1, b->len - 1, sealed ? key : NULL, "sample", &e);
    ASSERT(rc == 0 && back->size == im.len && memcmp(back->data, im.s, im.len) == 0);
    raft_buf_unref(back);
    AUTO_FREE uint8_t *bad = xmemdup(b->s + 1, b->len - 1);
    size_t bit = rng_below(g, (b->len - 1) * 8);
    bad[bit / 8] = (uint8_t)(bad[bit / 8] ^ 1 << bit % 8);
    ASSERT(snapfile_decode(&back, bad, b->len - 1, sealed ? key : NULL, "sample", &e) < 0);
}

void fuzz_sample(struct rng *g, struct sb *b)
{
    unsigned form = rng_chance(g, 500) ? 0 : (unsigned)rng_below(g, ARRAY_N(forms));
    uint8_t bytes[160];
    sb_char(b, (char)form);
    if (forms[form] == message) {
        random_message(g, b);
    } else if (forms[form] == snapfile) {
        random_snapfile(g, b);
    } else if (forms[form] == hard) {
        struct wal_hard h = { rng_u64(g), rng_u64(g), rng_u64(g), rng_u64(g), (uint32_t)rng_u64(g), rng_u64(g), rng_chance(g, 500) };
        uint8_t copy[WAL_HARD_FILE_BYTES];
        wal_hard_encode(&h, copy);
        sb_add(b, copy, sizeof copy);
    } else if (forms[form] == configuration) {
        uint64_t ids[5] = { 1, 5, 8, 9, 12 };
        struct raft_entry e = raft_bootstrap_entry(ids, (uint32_t)rng_range(g, 1, 5), "context", rng_below(g, 8));
        sb_add(b, e.data->data, e.data->size);
        struct raft_configuration *c = raft_configuration_decode(e.data->data, e.data->size, 1);
        ASSERT(c && c->n_voters == c->n);
        raft_configuration_free(c);
        raft_buf_unref(e.data);
    } else {
        rng_bytes(g, bytes, sizeof bytes);
        sb_add(b, bytes, rng_range(g, 30, sizeof bytes));
    }
}
