/* Records in msgpack: a map from row tags to values, ascending, zero values left out, so the same object
 * is the same bytes on every replica. Reading skips unknown tags (a newer peer wrote them) or refuses them,
 * as the caller says, and believes nothing: kinds, counts, lengths and order are all checked against the rows. */
#include <inttypes.h>
#include <math.h>
#include <shoal/base/mp.h>
#include "rec_internal.h"
#include <shoal/model/format.h>

/* Rows that go on the wire, ascending by tag. Tables are nearly sorted: insertion is linear. */
static uint32_t sorted_rows(const struct rec *t, const void *r, const struct field **out)
{
    ASSERT(t->n <= REC_MAX_ROWS);
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        if ((f->flags & F_LOCAL) || rec_row_is_zero(f, r, F_LOCAL))
            continue;
        uint32_t k = n++;
        for (; k > 0 && out[k - 1]->tag > f->tag; k--)
            out[k] = out[k - 1];
        out[k] = f;
    }
    return n;
}

static void pack_labels(const struct labels *l, struct sb *b)
{
    mp_map(b, l->n);
    for (uint32_t i = 0; i < l->n; i++) {
        mp_str(b, l->v[i].key, strlen(l->v[i].key));
        mp_str(b, l->v[i].value, strlen(l->v[i].value));
    }
}

static void pack_row(const struct field *f, const void *p, struct sb *b)
{
    switch (f->kind) {
    case K_BOOL:
        mp_bool(b, true);
        break;
    case K_INT:
    case K_TIME:
        mp_int(b, *(const int64_t *)p);
        break;
    case K_UINT:
        mp_uint(b, *(const uint64_t *)p);
        break;
    case K_REAL:
        mp_real(b, *(const double *)p);
        break;
    case K_STR:
        mp_str(b, *(char *const *)p, strlen(*(char *const *)p));
        break;
    case K_BYTES:
        mp_bin(b, ((const struct bytes *)p)->v, ((const struct bytes *)p)->n);
        break;
    case K_ENUM:
        mp_uint(b, (uint64_t) * (const int *)p);
        break;
    case K_STRS: {
        const struct strs *s = p;
        mp_list(b, s->n);
        for (uint32_t i = 0; i < s->n; i++)
            mp_str(b, s->v[i], strlen(s->v[i]));
        break;
    }
    case K_LABELS:
        pack_labels(p, b);
        break;
    case K_REC:
        rec_pack(f->of, p, b);
        break;
    case K_OPT:
        rec_pack(f->of, *(void *const *)p, b);
        break;
    case K_LIST: {
        const struct rec_list *l = p;
        mp_list(b, l->n);
        for (uint32_t i = 0; i < l->n; i++)
            rec_pack(f->of, rec_elem(f, l, i), b);
        break;
    }
    }
}

void rec_pack(const struct rec *t, const void *r, struct sb *b)
{
    const struct field *rows[REC_MAX_ROWS];
    uint32_t n = sorted_rows(t, r, rows);
    mp_map(b, n);
    for (uint32_t i = 0; i < n; i++) {
        mp_uint(b, rows[i]->tag);
        pack_row(rows[i], rec_at_off(rows[i], r), b);
    }
}

static int unpack_rec(struct rec_at *at, const struct rec *t, void *r, const struct val *v);

static int bad(const struct rec_at *at, const char *what)
{
    return rec_at_err(at, E_CORRUPT, "%s; the bytes are damaged or from an incompatible version", what);
}

static int unpack_str(const struct rec_at *at, const struct val *v, char **ret)
{
    if (v->kind != V_STR)
        return bad(at, "is not a string");
    if (memchr(v->s, 0, v->n))
        return bad(at, "holds a NUL byte");
    *ret = xstrndup(v->s, v->n);
    return 0;
}

static int unpack_number(const struct rec_at *at, const struct field *f, void *p, const struct val *v)
{
    if (f->kind == K_REAL) {
        if (v->kind != V_REAL || !isfinite(v->r))
            return bad(at, "is not a finite number");
        *(double *)p = v->r;
    } else if (f->kind == K_UINT) {
        if (v->kind != V_UINT && (v->kind != V_INT || v->i < 0))
            return bad(at, "is not an unsigned number");
        *(uint64_t *)p = v->kind == V_UINT ? v->u : (uint64_t)v->i;
        if (f->max > 0 && *(uint64_t *)p > (uint64_t)f->max)
            return bad(at, "is above its limit");
    } else {
        if (v->kind != V_INT)
            return bad(at, "is not a number");
        *(int64_t *)p = v->i;
        if (f->kind == K_INT && (f->min || f->max) && (v->i < f->min || v->i > f->max))
            return bad(at, "is outside its limits");
    }
    return 0;
}

static int unpack_enum(const struct rec_at *at, const struct field *f, int *ret, const struct val *v)
{
    int n = 0;
    while (f->names[n])
        n++;
    if (v->kind != V_INT || v->i < 0 || v->i >= n)
        return bad(at, "is not one of its choices");
    *ret = (int)v->i;
    return 0;
}

static int unpack_strs(const struct rec_at *at, const struct field *f, struct strs *s, const struct val *v)
{
    if (v->kind != V_LIST || v->n > rec_row_max(f))
        return bad(at, "is not a list of strings within its limit");
    if (v->n && !(s->v = try_calloc(v->n, sizeof *s->v)))
        return rec_at_err(at, E_NO_MEMORY, "no memory for %" PRIu32 " strings", v->n);
    for (int rc; s->n < v->n; s->n++)
        if ((rc = unpack_str(at, v->list[s->n], &s->v[s->n])) < 0)
            return rc;
    return 0;
}

static int unpack_labels(const struct rec_at *at, const struct field *f, struct labels *l,
                         const struct val *v)
{
    if (v->kind != V_MAP || v->n > rec_row_max(f))
        return bad(at, "is not a map of strings within its limit");
    if (v->n && !(l->v = try_calloc(v->n, sizeof *l->v)))
        return rec_at_err(at, E_NO_MEMORY, "no memory for %" PRIu32 " pairs", v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        AUTO_FREE char *key = NULL, *value = NULL;
        int rc = unpack_str(at, v->map[i].key, &key);
        if (rc == 0)
            rc = unpack_str(at, v->map[i].value, &value);
        if (rc == 0 && i > 0 && strcmp(l->v[i - 1].key, key) >= 0)
            rc = bad(at, "has its keys out of order or twice");
        if (rc < 0)
            return rc;
        l->v[l->n++] = (struct label){ TAKE(key), TAKE(value) };
    }
    return 0;
}

static int unpack_list(struct rec_at *at, const struct field *f, struct rec_list *l, const struct val *v)
{
    if (v->kind != V_LIST || v->n > rec_row_max(f))
        return bad(at, "is not a list within its limit");
    if (v->n && !(l->v = try_calloc(v->n, f->of->size)))
        return rec_at_err(at, E_NO_MEMORY, "no memory for %" PRIu32 " elements", v->n);
    l->n = v->n;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < v->n; i++) {
        size_t mark = rec_at_index(at, i);
        rc = unpack_rec(at, f->of, rec_elem(f, l, i), v->list[i]);
        rec_at_back(at, mark);
    }
    return rc;
}

static int unpack_row(struct rec_at *at, const struct field *f, void *p, const struct val *v)
{
    int rc;
    switch (f->kind) {
    case K_BOOL:
        if (v->kind != V_BOOL)
            return bad(at, "is not true or false");
        *(bool *)p = v->b;
        return 0;
    case K_STR:
        if ((rc = unpack_str(at, v, p)) < 0)
            return rc;
        if (rec_chars(*(char **)p) > rec_row_max(f))
            return bad(at, "is longer than its limit");
        if (!**(char **)p)
            str_set(p, NULL); /* "" and absent are one value */
        return 0;
    case K_BYTES:
        if (v->kind != V_BYTES || v->n > rec_row_max(f))
            return bad(at, "is not bytes within its limit");
        *(struct bytes *)p = (struct bytes){ v->n ? xmemdup(v->s, v->n) : NULL, v->n };
        return 0;
    case K_ENUM:
        return unpack_enum(at, f, p, v);
    case K_STRS:
        return unpack_strs(at, f, p, v);
    case K_LABELS:
        return unpack_labels(at, f, p, v);
    case K_REC:
        return unpack_rec(at, f->of, p, v);
    case K_OPT:
        *(void **)p = xcalloc(1, f->of->size);
        return unpack_rec(at, f->of, *(void **)p, v);
    case K_LIST:
        return unpack_list(at, f, p, v);
    default:
        return unpack_number(at, f, p, v);
    }
}

static const struct field *row_of_tag(const struct rec *t, int64_t tag, uint32_t *ret_row)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (t->fields[i].tag == tag && !(t->fields[i].flags & F_LOCAL) && t->fields[i].since <= FORMAT_MOST) {
            *ret_row = i;
            return &t->fields[i];
        }
    return NULL;
}

static int unpack_rec(struct rec_at *at, const struct rec *t, void *r, const struct val *v)
{
    uint64_t seen = 0;
    ASSERT(t->n <= REC_MAX_ROWS);
    if (v->kind != V_MAP)
        return bad(at, "is not a record");
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *key = v->map[i].key;
        uint32_t row = 0;
        if (key->kind != V_INT)
            return bad(at, "has a tag that is not a number");
        const struct field *f = row_of_tag(t, key->i, &row);
        if (!f && at->all)
            return rec_at_err(at, E_UNSUPPORTED, "holds tag %" PRId64 ", which this version does not know; upgrade", key->i);
        if (!f)
            continue;
        size_t mark = rec_at_field(at, f->name, strlen(f->name));
        if (seen & UINT64_C(1) << row)
            return bad(at, "is given twice");
        seen |= UINT64_C(1) << row;
        int rc = v->map[i].value->kind == V_NULL
                     ? 0 : unpack_row(at, f, rec_at_off(f, r), v->map[i].value);
        if (rc < 0)
            return rc;
        rec_at_back(at, mark);
    }
    return 0;
}

static int unpack(const struct rec *t, void *ret, const void *p, size_t size, bool all, struct err *e)
{
    struct rec_at at;
    struct val_doc *d = NULL;
    rec_at_init(&at, t->name, e);
    at.all = all;
    memset(ret, 0, t->size);
    int rc = mp_parse(&d, p, size, e);
    if (rc < 0) {
        (void)err_wrap(e, "%s", t->name);
        return rc;
    }
    rc = unpack_rec(&at, t, ret, val_root(d));
    if (rc < 0)
        rec_clear(t, ret);
    val_doc_free(d);
    return rc;
}

int rec_unpack(const struct rec *t, void *ret, const void *p, size_t size, struct err *e)
{
    return unpack(t, ret, p, size, false, e);
}

int rec_unpack_all(const struct rec *t, void *ret, const void *p, size_t size, struct err *e)
{
    return unpack(t, ret, p, size, true, e);
}
