/* The small containers of records: lists of strings, sorted key/value pairs, lists of records. Memory is
 * exactly n elements, so a list may come from anywhere; they are short by their tables. */
#include "rec_internal.h"

void bytes_set(struct bytes *b, const void *p, uint32_t n)
{
    free(b->v);
    b->v = n ? xmemdup(p, n) : NULL;
    b->n = n;
}

void strs_add(struct strs *s, const char *value)
{
    s->v = xrealloc(s->v, (size_t)s->n + 1, sizeof *s->v);
    s->v[s->n++] = xstrdup(value ? value : "");
}

void strs_clear(struct strs *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        free(s->v[i]);
    free(s->v);
    *s = (struct strs){ 0 };
}

bool strs_has(const struct strs *s, const char *value)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (strcmp(s->v[i], value) == 0)
            return true;
    return false;
}

/* Place of key, or where it would go. */
static uint32_t label_place(const struct labels *l, const char *key, bool *ret_found)
{
    uint32_t lo = 0, hi = l->n;
    *ret_found = false;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        int c = strcmp(l->v[mid].key, key);
        if (c == 0) {
            *ret_found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void labels_set(struct labels *l, const char *key, const char *value)
{
    bool found;
    uint32_t at = label_place(l, key, &found);
    char *copy = xstrdup(value ? value : "");
    if (found) {
        free(l->v[at].value);
        l->v[at].value = copy;
        return;
    }
    char *k = xstrdup(key);
    l->v = xrealloc(l->v, (size_t)l->n + 1, sizeof *l->v);
    memmove(l->v + at + 1, l->v + at, (l->n - at) * sizeof *l->v);
    l->v[at] = (struct label){ k, copy };
    l->n++;
}

bool labels_unset(struct labels *l, const char *key)
{
    bool found;
    uint32_t at = label_place(l, key, &found);
    if (!found)
        return false;
    free(l->v[at].key);
    free(l->v[at].value);
    memmove(l->v + at, l->v + at + 1, (l->n - at - 1) * sizeof *l->v);
    l->n--;
    return true;
}

const char *labels_get(const struct labels *l, const char *key)
{
    bool found;
    uint32_t at = label_place(l, key, &found);
    return found ? l->v[at].value : NULL;
}

void labels_clear(struct labels *l)
{
    for (uint32_t i = 0; i < l->n; i++) {
        free(l->v[i].key);
        free(l->v[i].value);
    }
    free(l->v);
    *l = (struct labels){ 0 };
}

void str_set(char **member, const char *value)
{
    char *copy = value && value[0] ? xstrdup(value) : NULL; /* value may lie in *member */
    free(*member);
    *member = copy;
}

void *rec_list_add_(struct rec_list *l, size_t size)
{
    l->v = xrealloc(l->v, (size_t)l->n + 1, size);
    void *p = (char *)l->v + (size_t)l->n++ * size;
    memset(p, 0, size);
    return p;
}

void rec_list_remove(struct rec_list *l, const struct rec *of, uint32_t i)
{
    ASSERT(i < l->n);
    char *p = (char *)l->v + (size_t)i * of->size;
    rec_clear(of, p);
    memmove(p, p + of->size, (size_t)(l->n - i - 1) * of->size);
    if (--l->n == 0) {
        free(l->v);
        l->v = NULL;
    }
}
