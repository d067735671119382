/* The tree that all parsers build, in a chunked arena freed as a whole. */
#include "val_internal.h"
#include <stdio.h>
#include <string.h>

enum { CHUNK_BYTES = 16 << 10 };

struct chunk {
    struct chunk *next;
    size_t used, size;
    max_align_t data[];
};

struct val_doc {
    struct chunk *chunks;
    struct val *root;
    size_t total;
};

struct val_doc *val_doc_new(void)
{
    return xnew(struct val_doc);
}

void val_doc_free(struct val_doc *d)
{
    if (!d)
        return;
    while (d->chunks) {
        struct chunk *c = d->chunks;
        d->chunks = c->next;
        free(c);
    }
    free(d);
}

size_t val_doc_size(const struct val_doc *d)
{
    return d->total;
}

static void *take(struct val_doc *d, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (!d->chunks || d->chunks->size - d->chunks->used < size) {
        size_t n = MAX(size, (size_t)CHUNK_BYTES);
        struct chunk *c = xcalloc(1, sizeof *c + n);
        c->size = n;
        c->next = d->chunks;
        d->chunks = c;
    }
    void *p = (char *)d->chunks->data + d->chunks->used;
    d->chunks->used += size;
    d->total += size;
    return p;
}

static struct val *make(struct val_doc *d, enum val_kind kind)
{
    struct val *v = take(d, sizeof *v);
    v->kind = kind;
    return v;
}

struct val *val_root(struct val_doc *d)
{
    return d->root;
}

void val_set_root(struct val_doc *d, struct val *v)
{
    d->root = v;
}

struct val *val_null(struct val_doc *d)
{
    return make(d, V_NULL);
}

struct val *val_bool(struct val_doc *d, bool b)
{
    struct val *v = make(d, V_BOOL);
    v->b = b;
    return v;
}

struct val *val_int(struct val_doc *d, int64_t i)
{
    struct val *v = make(d, V_INT);
    v->i = i;
    return v;
}

struct val *val_uint(struct val_doc *d, uint64_t u)
{
    if (u <= INT64_MAX)
        return val_int(d, (int64_t)u);
    struct val *v = make(d, V_UINT);
    v->u = u;
    return v;
}

struct val *val_real(struct val_doc *d, double r)
{
    struct val *v = make(d, V_REAL);
    v->r = r;
    return v;
}

static struct val *text(struct val_doc *d, enum val_kind kind, const void *p, size_t size)
{
    struct val *v = make(d, kind);
    char *copy = take(d, size + 1);
    if (size)
        memcpy(copy, p, size);
    v->n = (uint32_t)size;
    v->s = copy;
    return v;
}

struct val *val_str_n(struct val_doc *d, const char *s, size_t len)
{
    return text(d, V_STR, s, len);
}

struct val *val_str(struct val_doc *d, const char *s)
{
    return val_str_n(d, s, strlen(s));
}

struct val *val_bytes(struct val_doc *d, const void *p, size_t size)
{
    return text(d, V_BYTES, p, size);
}

struct val *val_list(struct val_doc *d)
{
    return make(d, V_LIST);
}

struct val *val_map(struct val_doc *d)
{
    return make(d, V_MAP);
}

/* Room for one more element: arrays grow at powers of two, the old one stays in the arena. */
static void *grown(struct val_doc *d, void *v, uint32_t n, size_t size)
{
    if (n & (n - 1) && n)
        return v;
    if (n && n < 4)
        return v;
    void *more = take(d, size * (n ? n * 2 : 4));
    if (n)
        memcpy(more, v, size * n);
    return more;
}

void val_push(struct val_doc *d, struct val *list, struct val *v)
{
    ASSERT(list->kind == V_LIST);
    list->list = grown(d, list->list, list->n, sizeof *list->list);
    list->list[list->n++] = v;
}

void val_add_pair(struct val_doc *d, struct val *map, struct val *key, struct val *value)
{
    ASSERT(map->kind == V_MAP);
    map->map = grown(d, map->map, map->n, sizeof *map->map);
    map->map[map->n++] = (struct val_pair){ key, value };
}

void val_add(struct val_doc *d, struct val *map, const char *key, struct val *v)
{
    val_add_pair(d, map, val_str(d, key), v);
}

static struct val_pair *pair_of(const struct val *map, const char *key)
{
    for (uint32_t i = 0; map && map->kind == V_MAP && i < map->n; i++)
        if (map->map[i].key->kind == V_STR && !strcmp(map->map[i].key->s, key))
            return &map->map[i];
    return NULL;
}

void val_set(struct val_doc *d, struct val *map, const char *key, struct val *v)
{
    struct val_pair *p = pair_of(map, key);
    if (p)
        p->value = v;
    else
        val_add_pair(d, map, val_str(d, key), v);
}

void val_unset(struct val *map, const char *key)
{
    struct val_pair *p = pair_of(map, key);
    if (!p)
        return;
    memmove(p, p + 1, (size_t)(map->map + map->n - (p + 1)) * sizeof *p);
    map->n--; /* the array may now be larger than its count says; growing copies it earlier, no more */
}

struct val *val_get(const struct val *map, const char *key)
{
    struct val_pair *p = pair_of(map, key);
    return p ? p->value : NULL;
}

const char *val_get_str(const struct val *map, const char *key)
{
    const struct val *v = val_get(map, key);
    return v && v->kind == V_STR ? v->s : NULL;
}

int64_t val_get_int(const struct val *map, const char *key, int64_t otherwise)
{
    const struct val *v = val_get(map, key);
    return v && v->kind == V_INT ? v->i : otherwise;
}

bool val_get_bool(const struct val *map, const char *key, bool otherwise)
{
    const struct val *v = val_get(map, key);
    return v && v->kind == V_BOOL ? v->b : otherwise;
}

struct val *val_copy(struct val_doc *d, const struct val *v)
{
    struct val *c = make(d, v->kind);
    switch (v->kind) {
    case V_STR: case V_BYTES:
        c = text(d, v->kind, v->s, v->n);
        break;
    case V_LIST:
        for (uint32_t i = 0; i < v->n; i++)
            val_push(d, c, val_copy(d, v->list[i]));
        break;
    case V_MAP:
        for (uint32_t i = 0; i < v->n; i++)
            val_add_pair(d, c, val_copy(d, v->map[i].key), val_copy(d, v->map[i].value));
        break;
    case V_NULL: case V_BOOL: case V_INT: case V_UINT: case V_REAL:
        *c = *v;
        break;
    }
    c->line = v->line;
    c->quoted = v->quoted;
    return c;
}

bool val_equal(const struct val *a, const struct val *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case V_NULL: return true;
    case V_BOOL: return a->b == b->b;
    case V_INT: return a->i == b->i;
    case V_UINT: return a->u == b->u;
    case V_REAL: return a->r == b->r || (a->r != a->r && b->r != b->r);
    case V_STR: case V_BYTES: return a->n == b->n && !memcmp(a->s, b->s, a->n);
    case V_LIST:
        for (uint32_t i = 0; i < a->n && i < b->n; i++)
            if (!val_equal(a->list[i], b->list[i]))
                return false;
        return a->n == b->n;
    case V_MAP:
        for (uint32_t i = 0; i < a->n && i < b->n; i++)
            if (!val_equal(a->map[i].key, b->map[i].key) || !val_equal(a->map[i].value, b->map[i].value))
                return false;
        return a->n == b->n;
    }
    return false;
}
