/* Records and the val tree (JSON of the Docker Engine API, YAML of files). What a client sends is refused
 * with the full path, the kind wanted and the kind found; unknown names are refused, never dropped. Names
 * match exactly first and then without case, as Go's clients do. */
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include "rec_internal.h"

static int from_rec(struct rec_at *at, const struct rec *t, void *r, const struct val *v);

static const char *val_kind_text(const struct val *v)
{
    static const char *const names[] = { "null",     "true or false", "a number", "a number", "a number with a fraction",
                                         "a string", "bytes",         "a list",   "an object" };
    return names[v->kind];
}

static const char *wanted_text(const struct field *f)
{
    static const char *const names[] = {
        [K_BOOL] = "true or false", [K_INT] = "a whole number", [K_UINT] = "a whole number",
        [K_REAL] = "a number", [K_TIME] = "a time (RFC 3339 string)", [K_STR] = "a string",
        [K_BYTES] = "a base64 string", [K_ENUM] = "a string", [K_STRS] = "a list of strings",
        [K_LABELS] = "an object of strings", [K_REC] = "an object", [K_OPT] = "an object",
        [K_LIST] = "a list of objects",
    };
    return names[f->kind];
}

static int mistyped(const struct rec_at *at, const struct field *f, const struct val *v)
{
    return rec_at_err(at, E_INVALID, "expected %s, found %s", wanted_text(f), val_kind_text(v));
}

static int from_str(const struct rec_at *at, const struct val *v, char **ret)
{
    if (memchr(v->s, 0, v->n))
        return rec_at_err(at, E_INVALID, "holds a NUL character; remove it");
    *ret = xstrndup(v->s, v->n);
    return 0;
}

static int from_number(const struct rec_at *at, const struct field *f, void *p, const struct val *v)
{
    if (f->kind == K_REAL) {
        if (v->kind == V_REAL)
            *(double *)p = v->r;
        else if (v->kind == V_INT)
            *(double *)p = (double)v->i;
        else if (v->kind == V_UINT)
            *(double *)p = (double)v->u;
        else
            return mistyped(at, f, v);
    } else if (f->kind == K_UINT) {
        if (v->kind == V_INT && v->i < 0)
            return rec_at_err(at, E_INVALID, "must not be negative, found %" PRId64, v->i);
        if (v->kind != V_INT && v->kind != V_UINT)
            return mistyped(at, f, v);
        *(uint64_t *)p = v->kind == V_UINT ? v->u : (uint64_t)v->i;
    } else {
        if (v->kind == V_UINT)
            return rec_at_err(at, E_INVALID, "must be at most %" PRId64 ", found %" PRIu64, INT64_MAX,
                              v->u);
        if (v->kind != V_INT)
            return mistyped(at, f, v);
        *(int64_t *)p = v->i;
    }
    return 0;
}

static int from_time(const struct rec_at *at, const struct field *f, int64_t *ret, const struct val *v)
{
    if (v->kind != V_STR)
        return mistyped(at, f, v);
    if (v->n == 0 || strcmp(v->s, "0001-01-01T00:00:00Z") == 0)
        return 0;
    if (memchr(v->s, 0, v->n) || time_parse(v->s, ret) < 0)
        return rec_at_err(at, E_INVALID, "is not a time like 2026-11-23T15:58:03Z");
    return 0;
}

static int from_enum(const struct rec_at *at, const struct field *f, int *ret, const struct val *v)
{
    if (v->kind != V_STR)
        return mistyped(at, f, v);
    if (v->n == 0)
        return 0;
    for (int i = 0; f->names[i]; i++)
        if (strlen(f->names[i]) == v->n && memcmp(f->names[i], v->s, v->n) == 0) {
            *ret = i;
            return 0;
        }
    char list[256] = "";
    size_t len = 0;
    for (int i = 0; f->names[i]; i++) {
        const char *sep = len == 0 ? "" : f->names[i + 1] ? ", " : " or ";
        if (f->names[i][0] && len < sizeof list - 1)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", sep, f->names[i]);
    }
    struct rec_at shown = { 0 }; /* borrowed for its cleaning of control characters */
    rec_at_field(&shown, v->s, v->n);
    return rec_at_err(at, E_INVALID, "must be %s, found \"%.60s\"", list, shown.path);
}

static int from_bytes(const struct rec_at *at, const struct field *f, struct bytes *ret,
                      const struct val *v)
{
    if (v->kind != V_STR)
        return mistyped(at, f, v);
    if (v->n / 4 * 3 > rec_row_max(f) + 3)
        return rec_at_err(at, E_TOO_BIG, "is longer than its limit of %" PRIu64 " bytes", rec_row_max(f));
    if (v->n == 0)
        return 0;
    size_t n;
    uint8_t *p = base64_decode(v->s, v->n, &n);
    if (!p)
        return rec_at_err(at, E_INVALID, "is not base64");
    *ret = (struct bytes){ p, (uint32_t)n };
    if (n > rec_row_max(f))
        return rec_at_err(at, E_TOO_BIG, "is longer than its limit of %" PRIu64 " bytes", rec_row_max(f));
    if (n == 0)
        free(TAKE(ret->v));
    return 0;
}

static int too_many(const struct rec_at *at, const struct field *f, const struct val *v)
{
    return rec_at_err(at, E_INVALID, "has %" PRIu32 " elements, at most %" PRIu64 " are allowed", v->n,
                      rec_row_max(f));
}

static int from_strs(struct rec_at *at, const struct field *f, struct strs *s, const struct val *v)
{
    if (v->kind != V_LIST)
        return mistyped(at, f, v);
    if (v->n > rec_row_max(f))
        return too_many(at, f, v);
    if (v->n)
        s->v = xcalloc(v->n, sizeof *s->v);
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *item = v->list[i];
        size_t mark = rec_at_index(at, i);
        at->line = item->line;
        if (item->kind != V_STR)
            return rec_at_err(at, E_INVALID, "expected a string, found %s", val_kind_text(item));
        int rc = from_str(at, item, &s->v[i]);
        if (rc < 0)
            return rc;
        s->n++;
        rec_at_back(at, mark);
    }
    return 0;
}

static int from_labels(struct rec_at *at, const struct field *f, struct labels *l, const struct val *v)
{
    if (v->kind != V_MAP)
        return mistyped(at, f, v);
    if (v->n > rec_row_max(f))
        return too_many(at, f, v);
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *k = v->map[i].key, *item = v->map[i].value;
        AUTO_FREE char *key = NULL, *value = NULL;
        if (k->kind != V_STR)
            return rec_at_err(at, E_INVALID, "has a key that is not a string");
        size_t mark = rec_at_field(at, k->s, k->n);
        at->line = item->line;
        if (item->kind != V_STR && item->kind != V_NULL)
            return rec_at_err(at, E_INVALID, "expected a string, found %s", val_kind_text(item));
        int rc = from_str(at, k, &key);
        if (rc == 0 && item->kind == V_STR)
            rc = from_str(at, item, &value);
        if (rc == 0 && labels_get(l, key))
            rc = rec_at_err(at, E_INVALID, "is given twice");
        if (rc < 0)
            return rc;
        labels_set(l, key, value);
        rec_at_back(at, mark);
    }
    return 0;
}

static int from_list(struct rec_at *at, const struct field *f, struct rec_list *l, const struct val *v)
{
    if (v->kind != V_LIST)
        return mistyped(at, f, v);
    if (v->n > rec_row_max(f))
        return too_many(at, f, v);
    if (v->n && !(l->v = try_calloc(v->n, f->of->size)))
        return rec_at_err(at, E_NO_MEMORY, "no memory for %" PRIu32 " elements", v->n);
    l->n = v->n;
    for (uint32_t i = 0; i < v->n; i++) {
        size_t mark = rec_at_index(at, i);
        at->line = v->list[i]->line;
        int rc = from_rec(at, f->of, rec_elem(f, l, i), v->list[i]);
        if (rc < 0)
            return rc;
        rec_at_back(at, mark);
    }
    return 0;
}

static int from_row(struct rec_at *at, const struct field *f, void *p, const struct val *v)
{
    switch (f->kind) {
    case K_BOOL:
        if (v->kind != V_BOOL)
            return mistyped(at, f, v);
        *(bool *)p = v->b;
        return 0;
    case K_TIME:
        return from_time(at, f, p, v);
    case K_STR:
        if (v->kind != V_STR)
            return mistyped(at, f, v);
        return v->n ? from_str(at, v, p) : 0;
    case K_BYTES:
        return from_bytes(at, f, p, v);
    case K_ENUM:
        return from_enum(at, f, p, v);
    case K_STRS:
        return from_strs(at, f, p, v);
    case K_LABELS:
        return from_labels(at, f, p, v);
    case K_REC:
        return from_rec(at, f->of, p, v);
    case K_OPT:
        if (v->kind != V_MAP)
            return mistyped(at, f, v);
        *(void **)p = xcalloc(1, f->of->size);
        return from_rec(at, f->of, *(void **)p, v);
    case K_LIST:
        return from_list(at, f, p, v);
    default:
        return from_number(at, f, p, v);
    }
}

/* A row known but not built may still be sent with the value that means nothing. */
static bool says_nothing(const struct field *f, const struct val *v)
{
    switch (v->kind) {
    case V_NULL:
        return true;
    case V_BOOL:
        return !v->b;
    case V_INT:
        return !v->i;
    case V_REAL:
        return v->r == 0;
    case V_STR:
    case V_LIST:
        return !v->n;
    case V_MAP:
        return !v->n && f->kind != K_OPT;
    default:
        return false;
    }
}

static const struct field *row_of_name(const struct rec *t, const struct val *k, uint32_t *ret_row)
{
    for (unsigned pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < t->n; i++) {
            const char *name = t->fields[i].name;
            if ((unsigned char)name[0] < 0x20 || strlen(name) != k->n)
                continue;
            if ((pass ? strncasecmp(name, k->s, k->n) : strncmp(name, k->s, k->n)) == 0) {
                *ret_row = i;
                return &t->fields[i];
            }
        }
    return NULL;
}

static int from_pair(struct rec_at *at, const struct rec *t, void *r, const struct val_pair *pair,
                     uint64_t *seen)
{
    const struct val *k = pair->key, *v = pair->value;
    uint32_t row = 0;
    if (k->kind != V_STR)
        return rec_at_err(at, E_INVALID, "has a field name that is not a string");
    const struct field *f = row_of_name(t, k, &row);
    const char *name = f ? f->name : k->s;
    size_t mark = rec_at_field(at, name, f ? strlen(name) : k->n);
    at->line = k->line ? k->line : v->line;
    if (!f)
        return rec_at_err(at, E_INVALID, "is not a known field; remove it or check its spelling");
    if (*seen & UINT64_C(1) << row)
        return rec_at_err(at, E_INVALID, "is given twice");
    *seen |= UINT64_C(1) << row;
    int rc = 0;
    if (v->line)
        at->line = v->line;
    uint32_t line = at->line;
    if ((f->flags & F_UNBUILT) && !says_nothing(f, v))
        rc = rec_at_err(at, E_UNSUPPORTED, "is known to Docker but not built in shoal yet; remove it");
    else if (!(f->flags & (F_OPAQUE | F_UNBUILT)) && v->kind != V_NULL)
        rc = from_row(at, f, rec_at_off(f, r), v);
    at->line = line;
    /* limits here, where the line is known; what is missing shows in the walk at the end */
    if (rc == 0 && !rec_row_is_zero(f, r, 0))
        rc = rec_check_row(at, f, r);
    if (rc == 0)
        rec_at_back(at, mark);
    return rc;
}

static int from_rec(struct rec_at *at, const struct rec *t, void *r, const struct val *v)
{
    uint64_t seen = 0;
    uint32_t line = at->line;
    ASSERT(t->n <= REC_MAX_ROWS);
    if (v->kind != V_MAP)
        return rec_at_err(at, E_INVALID, "expected an object, found %s", val_kind_text(v));
    for (uint32_t i = 0; i < v->n; i++) {
        int rc = from_pair(at, t, r, &v->map[i], &seen);
        if (rc < 0)
            return rc;
    }
    at->line = line;
    return 0;
}

int rec_from_val(const struct rec *t, void *ret, const struct val *v, const char *path, struct err *e)
{
    struct rec_at at;
    rec_at_init(&at, path, e);
    at.line = v->line;
    int rc = from_rec(&at, t, ret, v);
    if (rc == 0) {
        rec_at_init(&at, path, e);
        rc = rec_check_at(&at, t, ret);
    }
    if (rc < 0)
        rec_clear(t, ret);
    return rc;
}

int rec_from_json(const struct rec *t, void *ret, const char *s, size_t len, const char *what,
                  struct err *e)
{
    struct val_doc *d = NULL;
    int rc = json_parse(&d, s, len, what, e);
    if (rc < 0)
        return rc;
    rc = rec_from_val(t, ret, val_root(d), "", e);
    val_doc_free(d);
    return rc;
}

static struct val *to_time(struct val_doc *d, int64_t ns)
{
    char text[48];
    time_format(text, ns);
    return val_str(d, text);
}

static struct val *to_labels(struct val_doc *d, const struct labels *l)
{
    struct val *m = val_map(d);
    for (uint32_t i = 0; i < l->n; i++)
        val_set(d, m, l->v[i].key, val_str(d, l->v[i].value));
    return m;
}

static struct val *to_bytes(struct val_doc *d, const struct bytes *b)
{
    AUTO_FREE char *text = b->n ? base64_encode(b->v, b->n) : NULL;
    return val_str(d, text ? text : "");
}

static struct val *to_list(const struct field *f, const void *p, struct val_doc *d)
{
    struct val *list = val_list(d);
    if (f->kind == K_STRS) {
        const struct strs *s = p;
        for (uint32_t i = 0; i < s->n; i++)
            val_push(d, list, val_str(d, s->v[i]));
    } else {
        const struct rec_list *l = p;
        for (uint32_t i = 0; i < l->n; i++)
            val_push(d, list, rec_to_val(f->of, rec_elem(f, l, i), d));
    }
    return list;
}

static struct val *to_row(const struct field *f, const void *p, struct val_doc *d)
{
    switch (f->kind) {
    case K_BOOL:
        return val_bool(d, *(const bool *)p);
    case K_UINT:
        return val_uint(d, *(const uint64_t *)p);
    case K_REAL:
        return val_real(d, *(const double *)p);
    case K_TIME:
        return to_time(d, *(const int64_t *)p);
    case K_STR:
        return val_str(d, *(char *const *)p ? *(char *const *)p : "");
    case K_BYTES:
        return to_bytes(d, p);
    case K_ENUM:
        return val_str(d, f->names[*(const int *)p]);
    case K_LABELS:
        return to_labels(d, p);
    case K_REC:
        return rec_to_val(f->of, p, d);
    case K_OPT:
        return *(void *const *)p ? rec_to_val(f->of, *(void *const *)p, d) : val_null(d);
    case K_STRS:
    case K_LIST:
        return to_list(f, p, d);
    default:
        return val_int(d, *(const int64_t *)p);
    }
}

struct val *rec_to_val(const struct rec *t, const void *r, struct val_doc *d)
{
    struct val *m = val_map(d);
    for (uint32_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        if ((f->flags & F_SECRET) || (unsigned char)f->name[0] < 0x20)
            continue;
        if ((f->flags & F_ALWAYS) || !rec_row_is_zero(f, r, 0))
            val_set(d, m, f->name, to_row(f, rec_at_off(f, r), d));
    }
    return m;
}

void rec_to_json(const struct rec *t, const void *r, struct sb *b)
{
    struct val_doc *d = val_doc_new();
    json_write(b, rec_to_val(t, r, d), 0);
    val_doc_free(d);
}
