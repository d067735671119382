/* The record engine's plain walks: clear, copy, zero, limits, description. Every walk goes row by row and
 * descends only where a table names another table, so the tables bound the recursion; values cannot. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include "rec_internal.h"

static const char *const kind_names[] = { "bool",   "int",   "uint", "real", "time", "string", "bytes",
                                          "choice", "strings", "labels", "record", "optional record",
                                          "list of records" };

void rec_at_init(struct rec_at *at, const char *path, struct err *e)
{
    *at = (struct rec_at){ .e = e };
    if (path && path[0])
        rec_at_field(at, path, strlen(path));
}

static void at_add(struct rec_at *at, const char *s, size_t len)
{
    for (size_t i = 0; i < len && i < 80; i++, at->len++)
        if (at->len < sizeof at->path - 1)
            at->path[at->len] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
    at->path[MIN(at->len, sizeof at->path - 1)] = 0;
}

size_t rec_at_field(struct rec_at *at, const char *name, size_t len)
{
    size_t mark = at->len;
    if (mark)
        at_add(at, ".", 1);
    at_add(at, name, len);
    return mark;
}

size_t rec_at_index(struct rec_at *at, uint32_t i)
{
    char s[16];
    size_t mark = at->len;
    at_add(at, s, (size_t)snprintf(s, sizeof s, "[%" PRIu32 "]", i));
    return mark;
}

void rec_at_back(struct rec_at *at, size_t mark)
{
    at->len = mark;
    at->path[MIN(mark, sizeof at->path - 1)] = 0;
}

int rec_at_err(const struct rec_at *at, int code, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *path = at->path[0] ? at->path : "the object";
    if (at->line)
        return err_set(at->e, code, "%s (line %" PRIu32 "): %s", path, at->line, text);
    return err_set(at->e, code, "%s: %s", path, text);
}

uint64_t rec_row_max(const struct field *f)
{
    if (f->max > 0)
        return (uint64_t)f->max;
    return f->kind == K_STR || f->kind == K_BYTES ? REC_MAX_CHARS : REC_MAX_ELEMENTS;
}

size_t rec_chars(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void clear_row(const struct field *f, void *p)
{
    switch (f->kind) {
    case K_STR:
        free(*(char **)p);
        break;
    case K_BYTES:
        if (((struct bytes *)p)->v && (f->flags & F_SECRET))
            explicit_bzero(((struct bytes *)p)->v, ((struct bytes *)p)->n);
        free(((struct bytes *)p)->v);
        break;
    case K_STRS:
        strs_clear(p);
        break;
    case K_LABELS:
        labels_clear(p);
        break;
    case K_REC:
        rec_clear(f->of, p);
        break;
    case K_OPT:
        if (*(void **)p)
            rec_clear(f->of, *(void **)p);
        free(*(void **)p);
        break;
    case K_LIST: {
        struct rec_list *l = p;
        for (uint32_t i = 0; i < l->n; i++)
            rec_clear(f->of, rec_elem(f, l, i));
        free(l->v);
        break;
    }
    default:
        break;
    }
}

void rec_clear(const struct rec *t, void *r)
{
    for (uint32_t i = 0; i < t->n; i++)
        clear_row(&t->fields[i], rec_at_off(&t->fields[i], r));
    memset(r, 0, t->size);
}

static void copy_row(const struct field *f, void *d, const void *s)
{
    switch (f->kind) {
    case K_STR:
        *(char **)d = xstrdup(*(char *const *)s);
        break;
    case K_BYTES: {
        const struct bytes *b = s;
        *(struct bytes *)d = (struct bytes){ b->n ? xmemdup(b->v, b->n) : NULL, b->n };
        break;
    }
    case K_STRS: {
        const struct strs *a = s;
        struct strs c = { a->n ? xcalloc(a->n, sizeof *c.v) : NULL, a->n };
        for (uint32_t i = 0; i < a->n; i++)
            c.v[i] = xstrdup(a->v[i]);
        *(struct strs *)d = c;
        break;
    }
    case K_LABELS: {
        const struct labels *a = s;
        struct labels c = { a->n ? xcalloc(a->n, sizeof *c.v) : NULL, a->n };
        for (uint32_t i = 0; i < a->n; i++)
            c.v[i] = (struct label){ xstrdup(a->v[i].key), xstrdup(a->v[i].value) };
        *(struct labels *)d = c;
        break;
    }
    case K_REC:
        rec_copy(f->of, d, s);
        break;
    case K_OPT: {
        void *from = *(void *const *)s, *to = from ? xcalloc(1, f->of->size) : NULL;
        if (from)
            rec_copy(f->of, to, from);
        *(void **)d = to;
        break;
    }
    case K_LIST: {
        const struct rec_list *a = s;
        struct rec_list c = { a->n ? xcalloc(a->n, f->of->size) : NULL, a->n };
        for (uint32_t i = 0; i < a->n; i++)
            rec_copy(f->of, rec_elem(f, &c, i), rec_elem(f, a, i));
        *(struct rec_list *)d = c;
        break;
    }
    case K_BOOL:
        *(bool *)d = *(const bool *)s;
        break;
    case K_ENUM:
        *(int *)d = *(const int *)s;
        break;
    default:
        memcpy(d, s, 8); /* INT, UINT, REAL, TIME */
    }
}

void rec_copy(const struct rec *t, void *dst, const void *src)
{
    ASSERT(dst != src);
    memset(dst, 0, t->size);
    for (uint32_t i = 0; i < t->n; i++)
        copy_row(&t->fields[i], rec_at_off(&t->fields[i], dst), rec_at_off(&t->fields[i], src));
}

static bool all_zero(const struct rec *t, const void *r, unsigned without_flags)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (!(t->fields[i].flags & without_flags) && !rec_row_is_zero(&t->fields[i], r, without_flags))
            return false;
    return true;
}

bool rec_row_is_zero(const struct field *f, const void *r, unsigned without_flags)
{
    const void *p = rec_at_off(f, r);
    switch (f->kind) {
    case K_BOOL:
        return !*(const bool *)p;
    case K_REAL:
        return *(const double *)p == 0;
    case K_STR:
        return !*(char *const *)p || !**(char *const *)p;
    case K_BYTES:
        return !((const struct bytes *)p)->n;
    case K_ENUM:
        return !*(const int *)p;
    case K_STRS:
        return !((const struct strs *)p)->n;
    case K_LABELS:
        return !((const struct labels *)p)->n;
    case K_REC:
        return all_zero(f->of, p, without_flags);
    case K_OPT:
        return !*(void *const *)p;
    case K_LIST:
        return !((const struct rec_list *)p)->n;
    default:
        return !*(const int64_t *)p;
    }
}

bool rec_is_zero(const struct rec *t, const void *r)
{
    return all_zero(t, r, 0);
}

/* ---- formats ---- */
unsigned rec_format(const struct rec *t, const void *r)
{
    unsigned format = 1;
    for (uint32_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        const void *p = rec_at_off(f, r);
        if ((f->flags & F_LOCAL) || rec_row_is_zero(f, r, F_LOCAL))
            continue;
        format = MAX(format, (unsigned)f->since);
        if (f->kind == K_REC)
            format = MAX(format, rec_format(f->of, p));
        if (f->kind == K_OPT)
            format = MAX(format, rec_format(f->of, *(void *const *)p));
        const struct rec_list *l = p;
        for (uint32_t k = 0; f->kind == K_LIST && k < l->n; k++)
            format = MAX(format, rec_format(f->of, rec_elem(f, l, k)));
    }
    return format;
}

static size_t row_size(const struct field *f)
{
    switch (f->kind) {
    case K_BOOL:
        return sizeof(bool);
    case K_ENUM:
        return sizeof(int);
    case K_STR:
    case K_OPT:
        return sizeof(void *);
    case K_BYTES:
    case K_STRS:
    case K_LABELS:
    case K_LIST:
        return sizeof(struct rec_list);
    case K_REC:
        return f->of->size;
    default:
        return 8;
    }
}

void rec_cut(const struct rec *t, void *r, uint64_t format)
{
    for (uint32_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        void *p = rec_at_off(f, r);
        if (f->since > format) {
            clear_row(f, p);
            memset(p, 0, row_size(f));
        } else if (f->kind == K_REC) {
            rec_cut(f->of, p, format);
        } else if (f->kind == K_OPT && *(void **)p) {
            rec_cut(f->of, *(void **)p, format);
        }
        const struct rec_list *l = p;
        for (uint32_t k = 0; f->kind == K_LIST && k < l->n; k++)
            rec_cut(f->of, rec_elem(f, l, k), format);
    }
}

static int check_range(struct rec_at *at, const struct field *f, const void *p)
{
    bool is_signed = f->kind == K_INT;
    int64_t i = is_signed ? *(const int64_t *)p : 0;
    uint64_t u = is_signed ? 0 : *(const uint64_t *)p;
    uint64_t umax = f->max > 0 ? (uint64_t)f->max : UINT64_MAX;
    if (is_signed ? (f->min == 0 && f->max == 0) || (i >= f->min && i <= f->max)
                  : u >= (uint64_t)f->min && u <= umax)
        return 0;
    char bounds[64], found[24];
    if (f->max == INT64_MAX || (!is_signed && !f->max))
        snprintf(bounds, sizeof bounds, "at least %" PRId64, f->min);
    else
        snprintf(bounds, sizeof bounds, "between %" PRId64 " and %" PRId64, f->min, f->max);
    if (is_signed)
        snprintf(found, sizeof found, "%" PRId64, i);
    else
        snprintf(found, sizeof found, "%" PRIu64, u);
    if (f->flags & F_SECRET)
        return rec_at_err(at, E_INVALID, "must be %s", bounds);
    return rec_at_err(at, E_INVALID, "must be %s, found %s", bounds, found);
}

static int check_text(struct rec_at *at, const struct field *f, const char *s)
{
    const char *why = f->check ? f->check(s) : NULL;
    if (!why)
        return 0;
    /* a value that begins with '=' is an environment entry without its name: maybe a secret */
    if ((f->flags & F_SECRET) || s[0] == '=' || !s[0])
        return rec_at_err(at, E_INVALID, "%s", why);
    char shown[72];
    size_t n = 0;
    for (; s[n] && n < sizeof shown - 4; n++)
        shown[n] = (unsigned char)s[n] < 0x20 || s[n] == 0x7f ? '?' : s[n];
    snprintf(shown + n, 4, "%s", s[n] ? "..." : "");
    return rec_at_err(at, E_INVALID, "\"%s\" %s", shown, why);
}

static int check_str(struct rec_at *at, const struct field *f, const char *s)
{
    if (!s || !s[0])
        return f->min > 0 ? rec_at_err(at, E_INVALID, "is required") : 0;
    size_t n = rec_chars(s);
    if (n > rec_row_max(f))
        return rec_at_err(at, E_INVALID, "is %zu characters long, at most %" PRIu64 " are allowed", n,
                          rec_row_max(f));
    if (f->min > 0 && n < (uint64_t)f->min)
        return rec_at_err(at, E_INVALID, "is %zu characters long, at least %" PRId64 " are needed", n,
                          f->min);
    return check_text(at, f, s);
}

static int check_count(struct rec_at *at, const struct field *f, uint32_t n)
{
    if (n > rec_row_max(f))
        return rec_at_err(at, E_INVALID, "has %" PRIu32 " %s, at most %" PRIu64 " are allowed", n,
                          f->kind == K_BYTES ? "bytes" : "elements", rec_row_max(f));
    if (f->min > 0 && n < (uint64_t)f->min)
        return n == 0 ? rec_at_err(at, E_INVALID, "is required")
                      : rec_at_err(at, E_INVALID, "has %" PRIu32 " %s, at least %" PRId64 " are needed",
                                   n, f->kind == K_BYTES ? "bytes" : "elements", f->min);
    return 0;
}

static int check_enum(struct rec_at *at, const struct field *f, int v)
{
    int n = 0;
    while (f->names[n])
        n++;
    return v >= 0 && v < n ? 0 : rec_at_err(at, E_INVALID, "is choice number %d of %d", v, n);
}

int rec_check_row(struct rec_at *at, const struct field *f, const void *r)
{
    const void *p = rec_at_off(f, r);
    if ((f->flags & F_UNBUILT) && !rec_row_is_zero(f, r, 0))
        return rec_at_err(at, E_UNSUPPORTED, "is known to Docker but not built in shoal yet; remove it");
    switch (f->kind) {
    case K_INT:
        return check_range(at, f, p);
    case K_UINT:
        if (f->min > 0 && *(const uint64_t *)p == 0)
            return rec_at_err(at, E_INVALID, "is required");
        return check_range(at, f, p);
    case K_REAL:
        return isfinite(*(const double *)p) ? 0 : rec_at_err(at, E_INVALID, "must be a finite number");
    case K_STR:
        return check_str(at, f, *(char *const *)p);
    case K_BYTES:
        return check_count(at, f, ((const struct bytes *)p)->n);
    case K_ENUM:
        return check_enum(at, f, *(const int *)p);
    case K_STRS: {
        const struct strs *s = p;
        int rc = check_count(at, f, s->n);
        for (uint32_t i = 0; rc == 0 && i < s->n; i++) {
            size_t mark = rec_at_index(at, i);
            rc = check_text(at, f, s->v[i]);
            rec_at_back(at, mark);
        }
        return rc;
    }
    case K_LABELS:
    case K_LIST: /* both begin with a pointer and the count */
        return check_count(at, f, ((const struct rec_list *)p)->n);
    default:
        return 0;
    }
}

static int check_below(struct rec_at *at, const struct field *f, const void *r)
{
    const void *p = rec_at_off(f, r);
    int rc = 0;
    if (f->kind == K_REC)
        return rec_check_at(at, f->of, p);
    if (f->kind == K_OPT && *(void *const *)p)
        return rec_check_at(at, f->of, *(void *const *)p);
    if (f->kind != K_LIST)
        return 0;
    const struct rec_list *l = p;
    for (uint32_t i = 0; rc == 0 && i < l->n; i++) {
        size_t mark = rec_at_index(at, i);
        rc = rec_check_at(at, f->of, rec_elem(f, l, i));
        rec_at_back(at, mark);
    }
    return rc;
}

int rec_check_at(struct rec_at *at, const struct rec *t, const void *r)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < t->n; i++) {
        const struct field *f = &t->fields[i];
        size_t mark = rec_at_field(at, f->name, strlen(f->name));
        rc = rec_check_row(at, f, r);
        if (rc == 0)
            rc = check_below(at, f, r);
        rec_at_back(at, mark);
    }
    return rc;
}

int rec_check(const struct rec *t, const void *r, struct err *e)
{
    struct rec_at at;
    rec_at_init(&at, "", e);
    return rec_check_at(&at, t, r);
}

static void describe_limits(const struct field *f, struct sb *b)
{
    if (f->kind == K_ENUM) {
        sb_str(b, " (");
        for (unsigned i = 0; f->names[i]; i++)
            sb_printf(b, "%s%s", i ? ", " : "", f->names[i][0] ? f->names[i] : "\"\"");
        sb_char(b, ')');
    } else if (f->min || (f->max && f->max != INT64_MAX)) {
        sb_str(b, " (");
        if (f->min || f->kind == K_INT)
            sb_printf(b, "%" PRId64 "..", f->min);
        else
            sb_str(b, "..");
        if (f->max && f->max != INT64_MAX)
            sb_printf(b, "%" PRId64, f->max);
        sb_char(b, ')');
    }
}

static void describe(const struct rec *t, struct sb *b, unsigned depth)
{
    static const struct {
        unsigned flag;
        const char *text;
    } notes[] = { { F_FIXED, "fixed" },     { F_SECRET, "secret" }, { F_UNBUILT, "not built" },
                  { F_LIVE, "live" },       { F_LOCAL, "computed" }, { F_OPAQUE, "ignored" } };
    for (uint32_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        if ((unsigned char)f->name[0] < 0x20)
            continue; /* presence only: no field of its own */
        sb_printf(b, "%*s%s: %s", (int)(2 * depth), "", f->name, kind_names[f->kind]);
        describe_limits(f, b);
        for (unsigned k = 0; k < ARRAY_N(notes); k++)
            if (f->flags & notes[k].flag)
                sb_printf(b, " [%s]", notes[k].text);
        if (f->doc && f->doc[0])
            sb_printf(b, " %s", f->doc);
        sb_char(b, '\n');
        if (f->of && depth < 12)
            describe(f->of, b, depth + 1);
    }
}

void rec_describe(const struct rec *t, struct sb *b)
{
    sb_printf(b, "%s\n", t->name);
    describe(t, b, 1);
}
