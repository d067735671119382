/* `shoal debug log`: what lies in the files of a log, record by record, and whether it is sound. Reads only, also
 * beside a running node. Without the key the headers of records are checked (their CRC), with it everything. */
#include "wal.h"

#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <shoal/base/file.h>
#include <shoal/base/le.h>
#include <stdio.h>
#include <sys/stat.h>

enum { DUMP_FILE_MAX_BYTES = INT32_MAX, HARD_SLOT_BYTES = 4096 };

struct dump {
    const struct raft_keys *keys;
    raft_dump_fn *fn;
    void *arg;
    struct raft_dump_result *result;
    const char *file;
    uint64_t last; /* highest index seen live */
    /* of the segment before */
    bool chained;
    uint64_t number, batch;
    uint8_t tag[WAL_TAG_BYTES];
};

__attribute__((format(printf, 4, 5))) static void line(struct dump *d, struct raft_dump_line *l, const char *state,
                                                       const char *note, ...)
{
    va_list ap;
    l->file = d->file;
    l->state = state;
    va_start(ap, note);
    vsnprintf(l->note, sizeof(l->note), note, ap);
    va_end(ap);
    d->result->lines++;
    d->result->rotten += str_equal(state, "rot");
    d->result->torn += str_equal(state, "torn");
    d->fn(d->arg, l);
}

static const uint8_t *key_of(const struct dump *d, const uint8_t id[WAL_KEY_ID_BYTES])
{
    const uint8_t *keys[] = {d->keys ? d->keys->now : NULL, d->keys ? d->keys->before : NULL};
    for (unsigned i = 0; i < ARRAY_N(keys); i++) {
        uint8_t have[WAL_KEY_ID_BYTES];
        if (!keys[i])
            continue;
        wal_key_id(have, keys[i]);
        if (memcmp(have, id, sizeof(have)) == 0)
            return keys[i];
    }
    return NULL;
}

/* ---- segments ---- */

struct segment {
    struct dump *d;
    struct wal_segment h;
    const uint8_t *bytes, *key;
    size_t size, limit; /* limit: where it ends by the word of the next one; 0: unknown */
    bool readable, chained;
    uint64_t batch;
    uint8_t tag[WAL_TAG_BYTES];
};

static const char *type_text(const struct wal_record *r)
{
    static const char *const text[] = {"?", "batch", "mark", "hard", "entry", "truncate", "install"};
    if (r->type == WAL_ENTRY && r->flags == RAFT_ENTRY_NOOP)
        return "entry noop";
    if (r->type == WAL_ENTRY && r->flags == RAFT_ENTRY_CONFIGURATION)
        return "entry configuration";
    return r->type < ARRAY_N(text) ? text[r->type] : "?";
}

/* What the body says, when it could be opened. */
static void describe(char note[64], const struct wal_record *r)
{
    const uint8_t *p = r->body ? r->body->data : NULL;
    note[0] = 0;
    if (!p)
        return;
    if (r->type == WAL_HARD && r->size == WAL_HARD_BYTES)
        snprintf(note, 64, "term %" PRIu64 ", vote %016" PRIx64, le_get(p, 8), le_get(p + 8, 8));
    else if (r->type == WAL_BATCH && r->size == WAL_BATCH_BYTES)
        snprintf(note, 64, "%" PRIu64 " records, commit %" PRIu64, le_get(p, 4), le_get(p + 16, 8));
    else if (r->type == WAL_ENTRY && r->flags == RAFT_ENTRY_CONFIGURATION) {
        struct raft_configuration *c = raft_configuration_decode(p, r->size, r->index);
        if (c)
            snprintf(note, 64, "%u voters, %u learners", c->n_voters, c->n - c->n_voters);
        raft_configuration_free(c);
    }
}

static bool is_durable_at(const struct segment *s, size_t offset)
{
    return s->limit ? offset < s->limit
                    : wal_is_durable_beyond(s->h.salt, s->bytes, s->size, offset, s->batch ? s->batch - 1 : 0);
}

/* One record at *at, which moves on. False: nothing more here. */
static bool dump_record(struct segment *s, size_t *at)
{
    struct wal_record r;
    size_t start = *at;
    struct raft_dump_line l = {.offset = start};
    if (wal_record_peek(s->h.salt, s->bytes, s->size, at, &r) != 0)
        return false;
    bool mark = r.type == WAL_MARK; /* outside the chain */
    s->batch = r.type == WAL_BATCH ? r.index : s->batch;
    l.type = type_text(&r);
    l.index = r.index;
    l.term = r.term;
    l.size = r.size;
    const char *state = "header ok";
    char note[64] = "";
    if (!mark && s->readable && s->chained) {
        size_t again = start;
        uint8_t tag[WAL_TAG_BYTES];
        struct wal_record opened;
        memcpy(tag, s->tag, sizeof(tag));
        int rc = wal_record_read(&s->h, s->key, s->bytes, s->size, &again, tag, &opened);
        state = rc == 0 ? "ok" : is_durable_at(s, start) ? "rot" : "torn";
        if (rc == 0) {
            describe(note, &opened);
            raft_buf_unref(opened.body);
        }
    } else if (mark) {
        state = "ok";
    }
    if (!mark)
        memcpy(s->tag, r.tag, sizeof(r.tag));
    s->chained |= !mark; /* its own tag is in its header: what follows can be opened again */
    if (r.type == WAL_ENTRY)
        s->d->last = r.index;
    line(s->d, &l, state, "%s", note);
    return true;
}

/* Behind damage: the next header that is whole. */
static size_t next_record(const struct segment *s, size_t at)
{
    size_t end = s->limit ? s->limit : s->size;
    for (at += 8; at + WAL_RECORD_BYTES <= end; at += 8)
        if (wal_is_record(s->h.salt, s->bytes, s->size, at))
            return at;
    return 0;
}

static bool is_zero(const struct segment *s, size_t at, size_t n)
{
    for (size_t i = at; i < s->size && i < at + n; i++)
        if (s->bytes[i])
            return false;
    return true;
}

static void dump_records(struct segment *s)
{
    size_t at = WAL_SEGMENT_HEADER_BYTES, end = s->limit ? s->limit : s->size;
    while (at + WAL_RECORD_BYTES <= end) {
        if (dump_record(s, &at))
            continue;
        size_t next = next_record(s, at);
        bool slot = is_zero(s, at, WAL_MARK_BYTES); /* a mark that was not written any more */
        struct raft_dump_line l = {.offset = at, .type = "?"};
        if (!next && (!s->limit || s->limit <= at + WAL_MARK_BYTES) && slot)
            return;
        if (!slot || next != at + WAL_MARK_BYTES) {
            s->chained = false;
            l.size = (next ? next : end) - at;
            bool rot = s->limit || next || wal_is_durable_beyond(s->h.salt, s->bytes, s->size, at, s->batch);
            line(s->d, &l, rot ? "rot" : "torn", "no record can be read here");
        }
        if (!next)
            return;
        at = next;
    }
}

static void dump_segment(struct dump *d, const uint8_t *bytes, size_t size, size_t limit)
{
    struct segment s = {.d = d, .bytes = bytes, .size = size, .limit = limit};
    struct raft_dump_line l = {.type = "segment", .size = size};
    if (!wal_segment_decode(&s.h, bytes, size)) {
        line(d, &l, "rot", "the header is damaged, nothing in this file can be read");
        d->chained = false;
        return;
    }
    s.key = key_of(d, s.h.key_id);
    s.readable = !s.h.sealed || s.key;
    bool fits = !d->chained || (s.h.number == d->number + 1 && memcmp(s.h.prev_tag, d->tag, sizeof(d->tag)) == 0);
    l.index = s.h.base_index;
    l.term = s.h.term;
    line(d, &l, fits ? "ok" : "rot", "number %" PRIu64 ", node %016" PRIx64 "%s%s", s.h.number, s.h.node_id,
         s.readable ? "" : ", sealed with a key that is not at hand",
         fits ? "" : ", does not continue the segment before it");
    memcpy(s.tag, s.h.prev_tag, sizeof(s.tag));
    s.batch = s.h.batch;
    s.chained = true;
    dump_records(&s);
    d->number = s.h.number;
    memcpy(d->tag, s.tag, sizeof(d->tag));
    d->chained = limit != 0;
}

/* ---- the other files ---- */

static void dump_snapshot(struct dump *d, const uint8_t *bytes, size_t size)
{
    struct raft_dump_line l = {.type = "snapshot", .size = size};
    uint8_t id[WAL_KEY_ID_BYTES];
    struct raft_buf *image = NULL;
    struct err e = {0};
    bool sealed = snapfile_key_id(id, bytes, size);
    const uint8_t *key = sealed ? key_of(d, id) : NULL;
    if (size >= SNAPFILE_HEADER_BYTES) {
        l.index = le_get(bytes + 16, 8);
        l.term = le_get(bytes + 24, 8);
    }
    if (sealed && !key) {
        line(d, &l, "header ok", "sealed with a key that is not at hand");
        return;
    }
    int rc = snapfile_decode(&image, bytes, size, key, d->file, &e);
    if (rc)
        line(d, &l, "rot", "%s", e.text);
    else
        line(d, &l, "ok", "%zu bytes of state", image->size);
    raft_buf_unref(image);
}

static void dump_hard(struct dump *d, const uint8_t *bytes, size_t size)
{
    static const uint8_t zeros[WAL_HARD_FILE_BYTES];
    for (size_t at = 0; at < 2 * HARD_SLOT_BYTES; at += HARD_SLOT_BYTES) {
        struct raft_dump_line l = {.offset = at, .type = "hard copy", .size = WAL_HARD_FILE_BYTES};
        struct wal_hard h;
        bool whole = size >= at + WAL_HARD_FILE_BYTES;
        if (whole && memcmp(bytes + at, zeros, sizeof(zeros)) == 0)
            continue;
        if (!whole || !wal_hard_decode(&h, bytes + at, size - at)) {
            line(d, &l, "rot", "the copy of term and vote is damaged");
            continue;
        }
        l.term = h.term;
        line(d, &l, "ok", "vote %016" PRIx64 ", %u voters%s", h.vote, h.voters,
             h.damaged ? ", the log lost something and is not repaired yet" : "");
    }
}

/* ---- files and folders ---- */

struct names {
    char (*v)[64];
    uint32_t n, cap;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static bool is_file_of_log(const char *name)
{
    return (str_starts(name, "wal-") && strlen(name) == 20) || (str_starts(name, "snap-") && strlen(name) == 38) ||
           str_equal(name, "hard");
}

static int list(const char *dir, struct names *ret, struct err *e)
{
    DIR *f = opendir(dir);
    if (!f)
        return err_errno(e, errno, "%s", dir);
    for (struct dirent *x; (x = readdir(f));) {
        if (!is_file_of_log(x->d_name))
            continue;
        RAFT_GROW(ret->v, ret->n, ret->cap);
        snprintf(ret->v[ret->n++], sizeof(*ret->v), "%.63s", x->d_name);
    }
    closedir(f);
    if (!ret->n)
        return err_set(e, E_NOT_FOUND, "%s holds no log: no file named wal-, snap- or hard", dir);
    qsort(ret->v, ret->n, sizeof(*ret->v), compare_names);
    return 0;
}

/* Where segment `name` ends, as the next one says; 0: it is the last, or the next one is damaged. */
static size_t limit_of(const char *dir, const struct names *l, uint32_t i)
{
    AUTO_FREE char *path = i + 1 < l->n && str_starts(l->v[i + 1], "wal-") ? path_join(dir, l->v[i + 1]) : NULL;
    FILE *f = path ? fopen(path, "re") : NULL;
    uint8_t head[WAL_SEGMENT_HEADER_BYTES];
    struct wal_segment h;
    size_t limit = 0;
    if (f && fread(head, 1, sizeof(head), f) == sizeof(head) && wal_segment_decode(&h, head, sizeof(head)))
        limit = h.prev_bytes;
    if (f)
        fclose(f);
    return limit;
}

/* False: not a file of a log. */
static bool dump_bytes(struct dump *d, const char *name, const uint8_t *p, size_t size, size_t limit)
{
    d->file = name;
    if (size >= 8 && memcmp(p, "SHOALSNP", 8) == 0)
        dump_snapshot(d, p, size);
    else if (size >= 8 && memcmp(p, "SHOALWAL", 8) == 0)
        dump_segment(d, p, size, limit);
    else if (str_starts(name, "snap-"))
        dump_snapshot(d, p, size);
    else if (str_equal(name, "hard"))
        dump_hard(d, p, size);
    else if (str_starts(name, "wal-"))
        dump_segment(d, p, size, limit);
    else
        return false;
    return true;
}

static int dump_file(struct dump *d, const char *path, const char *name, size_t limit, struct err *e)
{
    AUTO_FREE char *bytes = NULL;
    size_t size;
    int rc = file_read(path, DUMP_FILE_MAX_BYTES, &bytes, &size, e);
    if (rc || dump_bytes(d, name, (const uint8_t *)bytes, size, limit))
        return rc;
    return err_set(e, E_INVALID, "%s is neither a segment of a log nor a snapshot", path);
}

bool raft_dump_bytes(const char *name, const void *bytes, size_t size, const struct raft_keys *keys, raft_dump_fn *fn,
                     void *arg, struct raft_dump_result *ret)
{
    struct dump d = {.keys = keys, .fn = fn, .arg = arg, .result = ret};
    memset(ret, 0, sizeof(*ret));
    return dump_bytes(&d, name, bytes, size, 0);
}

int raft_dump(const char *path, const struct raft_keys *keys, raft_dump_fn *fn, void *arg,
              struct raft_dump_result *ret, struct err *e)
{
    struct dump d = {.keys = keys, .fn = fn, .arg = arg, .result = ret};
    struct stat st;
    memset(ret, 0, sizeof(*ret));
    if (stat(path, &st) != 0)
        return err_errno(e, errno, "%s", path);
    if (!S_ISDIR(st.st_mode)) {
        const char *slash = strrchr(path, '/');
        return dump_file(&d, path, slash ? slash + 1 : path, 0, e);
    }
    struct names l = {0};
    int rc = list(path, &l, e);
    for (uint32_t i = 0; !rc && i < l.n; i++) {
        AUTO_FREE char *file = path_join(path, l.v[i]);
        rc = dump_file(&d, file, l.v[i], limit_of(path, &l, i), e);
    }
    free(l.v);
    return rc;
}
