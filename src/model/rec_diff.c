/* Equality and difference of two records by their rows. F_LOCAL rows are computed for a reply and never
 * count. Absent and empty are equal but for optional records, where presence is a value of its own. */
#include "rec_internal.h"

static bool strs_equal(const struct strs *a, const struct strs *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (strcmp(a->v[i], b->v[i]) != 0)
            return false;
    return true;
}

static bool labels_equal(const struct labels *a, const struct labels *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (strcmp(a->v[i].key, b->v[i].key) != 0 || strcmp(a->v[i].value, b->v[i].value) != 0)
            return false;
    return true;
}

static bool list_equal(const struct field *f, const struct rec_list *a, const struct rec_list *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!rec_equal(f->of, rec_elem(f, a, i), rec_elem(f, b, i)))
            return false;
    return true;
}

bool rec_row_equal(const struct field *f, const void *a, const void *b)
{
    const void *p = rec_at_off(f, a), *q = rec_at_off(f, b);
    switch (f->kind) {
    case K_BOOL:
        return *(const bool *)p == *(const bool *)q;
    case K_REAL:
        return *(const double *)p == *(const double *)q;
    case K_STR: {
        const char *s = *(char *const *)p, *t = *(char *const *)q;
        return strcmp(s ? s : "", t ? t : "") == 0;
    }
    case K_BYTES: {
        const struct bytes *s = p, *t = q;
        return s->n == t->n && (s->n == 0 || memcmp(s->v, t->v, s->n) == 0);
    }
    case K_ENUM:
        return *(const int *)p == *(const int *)q;
    case K_STRS:
        return strs_equal(p, q);
    case K_LABELS:
        return labels_equal(p, q);
    case K_REC:
        return rec_equal(f->of, p, q);
    case K_OPT: {
        const void *s = *(void *const *)p, *t = *(void *const *)q;
        return !s || !t ? s == t : rec_equal(f->of, s, t);
    }
    case K_LIST:
        return list_equal(f, p, q);
    default:
        return *(const int64_t *)p == *(const int64_t *)q;
    }
}

bool rec_equal(const struct rec *t, const void *a, const void *b)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (!(t->fields[i].flags & F_LOCAL) && !rec_row_equal(&t->fields[i], a, b))
            return false;
    return true;
}

struct diff {
    struct rec_at at;
    unsigned without_flags, n;
    rec_diff_fn *fn;
    void *arg;
};

static void diff_rec(struct diff *d, const struct rec *t, const void *a, const void *b);

static void diff_report(struct diff *d, const struct field *f)
{
    d->n++;
    if (d->fn)
        d->fn(d->arg, d->at.path, f);
}

static void diff_list(struct diff *d, const struct field *f, const struct rec_list *a,
                      const struct rec_list *b)
{
    for (uint32_t i = 0; i < a->n && i < b->n; i++) {
        size_t mark = rec_at_index(&d->at, i);
        diff_rec(d, f->of, rec_elem(f, a, i), rec_elem(f, b, i));
        rec_at_back(&d->at, mark);
    }
    if (a->n != b->n)
        diff_report(d, f);
}

static void diff_row(struct diff *d, const struct field *f, const void *a, const void *b)
{
    const void *p = rec_at_off(f, a), *q = rec_at_off(f, b);
    if (f->kind == K_REC) {
        diff_rec(d, f->of, p, q);
    } else if (f->kind == K_OPT && *(void *const *)p && *(void *const *)q) {
        diff_rec(d, f->of, *(void *const *)p, *(void *const *)q);
    } else if (f->kind == K_LIST) {
        diff_list(d, f, p, q);
    } else if (!rec_row_equal(f, a, b)) {
        diff_report(d, f);
    }
}

static void diff_rec(struct diff *d, const struct rec *t, const void *a, const void *b)
{
    for (uint32_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        if (f->flags & (d->without_flags | F_LOCAL))
            continue;
        size_t mark = rec_at_field(&d->at, f->name, strlen(f->name));
        diff_row(d, f, a, b);
        rec_at_back(&d->at, mark);
    }
}

unsigned rec_diff(const struct rec *t, const void *a, const void *b, unsigned without_flags,
                  rec_diff_fn *fn, void *arg)
{
    struct diff d = { .without_flags = without_flags, .fn = fn, .arg = arg };
    diff_rec(&d, t, a, b);
    return d.n;
}
