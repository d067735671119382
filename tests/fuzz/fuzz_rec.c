/* The record engine under random records and random damage, over the real service, cluster and node tables.
 * Oracles: unpack(pack(x)) == x; packing again gives the same bytes; copy equals, diff of copies is empty;
 * from_json(to_json(x)) == x without secrets; whatever damaged bytes still unpack, packs to a fixed point.
 * An input is one byte for the table and the record, as msgpack or as JSON. */
#include "fuzz.h"

#include <shoal/model/assignment.h>
#include <shoal/model/cluster.h>
#include <shoal/model/node.h>
#include <shoal/model/task.h>
#include <stdio.h>

static const struct rec *const tables[] = { &service_rec, &task_rec, &node_rec, &cluster_rec, &network_rec,
                                            &secret_rec, &assignment_rec };

static void random_rec(struct rng *g, const struct rec *t, void *r, unsigned depth);

static char *random_text(struct rng *g, uint64_t max)
{
    static const char alphabet[] = "abz019-_.\"\\\n \xc3\xa9/{}";
    uint64_t n = rng_below(g, MIN(max, 12) + 1);
    char s[64];
    size_t len = 0;
    while (n-- > 0) {
        uint64_t k = rng_below(g, sizeof alphabet - 1);
        if ((unsigned char)alphabet[k] == 0xc3 || (unsigned char)alphabet[k] == 0xa9) {
            s[len++] = (char)0xc3;
            s[len++] = (char)0xa9;
        } else {
            s[len++] = alphabet[k];
        }
    }
    return xstrndup(s, len);
}

static int64_t random_int(struct rng *g, const struct field *f)
{
    int64_t lo = f->min, hi = f->max;
    if (lo == 0 && hi == 0) {
        lo = f->kind == K_INT || f->kind == K_TIME ? INT64_MIN / 4 : 0;
        hi = INT64_MAX / 4;
    }
    return rng_chance(g, 200) ? hi : rng_chance(g, 200) ? lo : lo + (int64_t)rng_below(g, (uint64_t)hi - (uint64_t)lo);
}

static void random_row(struct rng *g, const struct field *f, void *p, unsigned depth)
{
    uint64_t max = f->max > 0 ? (uint64_t)f->max : 4;
    uint64_t n = rng_below(g, MIN(max, 3) + 1);
    switch (f->kind) {
    case K_BOOL:
        *(bool *)p = rng_chance(g, 500);
        break;
    case K_REAL:
        *(double *)p = (double)rng_below(g, 1000) / 8;
        break;
    case K_STR:
        *(char **)p = random_text(g, max);
        break;
    case K_BYTES:
        *(struct bytes *)p = (struct bytes){ n ? xcalloc(n, 1) : NULL, (uint32_t)n };
        rng_bytes(g, ((struct bytes *)p)->v, n);
        break;
    case K_ENUM: {
        int names = 0;
        while (f->names[names])
            names++;
        *(int *)p = (int)rng_below(g, (uint64_t)names);
        break;
    }
    case K_STRS:
    case K_LABELS:
        while (n-- > 0) {
            AUTO_FREE char *a = random_text(g, 8), *b = random_text(g, 8);
            if (f->kind == K_STRS)
                strs_add(p, a);
            else
                labels_set(p, a, b);
        }
        break;
    case K_REC:
        random_rec(g, f->of, p, depth + 1);
        break;
    case K_OPT:
        if (depth < 6 && rng_chance(g, 600)) {
            *(void **)p = xcalloc(1, f->of->size);
            random_rec(g, f->of, *(void **)p, depth + 1);
        }
        break;
    case K_LIST:
        while (depth < 6 && n-- > 0)
            random_rec(g, f->of, rec_list_add_(p, f->of->size), depth + 1);
        break;
    default:
        *(int64_t *)p = random_int(g, f);
    }
}

static void random_rec(struct rng *g, const struct rec *t, void *r, unsigned depth)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (rng_chance(g, 600))
            random_row(g, &t->fields[i], (char *)r + t->fields[i].off, depth);
}

static void pack(const struct rec *t, const void *r, struct sb *b)
{
    sb_init(b, 0);
    rec_pack(t, r, b);
    ASSERT(!b->overflow);
}

/* JSON leaves secrets out and refuses what is not built, so compare what comes back with itself. */
static void json_fixed_point(const struct rec *t, const void *r)
{
    AUTO_FREE void *back = xcalloc(1, t->size), *again = xcalloc(1, t->size);
    AUTO_SB struct sb a, b;
    struct err e = { 0 };
    sb_init(&a, 0);
    sb_init(&b, 0);
    rec_to_json(t, r, &a);
    int rc = rec_from_json(t, back, a.s, a.len, "json", &e);
    if (rc < 0) {
        ASSERT(rec_is_zero(t, back) && e.text[0]);
        return;
    }
    rec_to_json(t, back, &b);
    rc = rec_from_json(t, again, b.s, b.len, "json", &e);
    ASSERT(rc == 0 && rec_equal(t, back, again));
    rec_clear(t, back);
    rec_clear(t, again);
}

static void bytes_fixed_point(const struct rec *t, const void *p, size_t size)
{
    AUTO_FREE void *x = xcalloc(1, t->size), *y = xcalloc(1, t->size);
    AUTO_SB struct sb a, b;
    struct err e = { 0 };
    sb_init(&a, 0);
    sb_init(&b, 0);
    if (rec_unpack(t, x, p, size, &e) < 0) {
        ASSERT(rec_is_zero(t, x) && e.text[0]);
        return;
    }
    rec_pack(t, x, &a);
    int rc = rec_unpack(t, y, a.s, a.len, &e);
    ASSERT(rc == 0 && rec_equal(t, x, y));
    rec_pack(t, y, &b);
    ASSERT(a.len == b.len && memcmp(a.s, b.s, a.len) == 0);
    (void)!rec_check(t, x, &e);
    json_fixed_point(t, x);
    rec_clear(t, x);
    rec_clear(t, y);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    if (size < 1)
        return 0;
    const struct rec *t = tables[p[0] % ARRAY_N(tables)];
    bytes_fixed_point(t, p + 1, size - 1);
    AUTO_FREE void *x = xcalloc(1, t->size);
    struct err e = { 0 };
    if (rec_from_json(t, x, (const char *)p + 1, size - 1, "fuzz", &e) == 0)
        rec_clear(t, x);
    else
        ASSERT(rec_is_zero(t, x) && e.text[0]);
    return 0;
}

const unsigned fuzz_rounds = 1000;
const char *const fuzz_words[] = { "\xdd\xff\xff\xff\xff", "\xdf\x7f\xff\xff\xff", "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff",
                                   "\xc0", "\xc7", "\x80", "\x90", "null", "true", "-1", "1e400", "\"", "{", "}", "[", "]",
                                   ":", ",", "\\u0000", "\\ud800", "\xc3", "99999999999999999999", NULL };

void fuzz_sample(struct rng *g, struct sb *ret)
{
    uint8_t which = (uint8_t)rng_below(g, ARRAY_N(tables));
    const struct rec *t = tables[which];
    AUTO_FREE void *x = xcalloc(1, t->size), *y = xcalloc(1, t->size);
    AUTO_SB struct sb a, b;
    struct err e = { 0 };
    random_rec(g, t, x, 0);
    pack(t, x, &a);
    int rc = rec_unpack(t, y, a.s, a.len, &e);
    if (rc < 0) {
        fprintf(stderr, "fuzz_rec: %s\n", e.text);
        abort();
    }
    ASSERT(rec_equal(t, x, y) && rec_equal(t, y, x) && rec_diff(t, x, y, 0, NULL, NULL) == 0);
    pack(t, y, &b);
    ASSERT(a.len == b.len && memcmp(a.s, b.s, a.len) == 0);
    rec_clear(t, y);
    rec_copy(t, y, x);
    ASSERT(rec_equal(t, x, y));
    rec_clear(t, y);
    json_fixed_point(t, x);
    sb_char(ret, (char)which);
    if (rng_chance(g, 300))
        rec_to_json(t, x, ret);
    else
        sb_add(ret, a.s, a.len);
    rec_clear(t, x);
}
