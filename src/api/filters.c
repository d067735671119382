/* The filters parameter of list requests, in both forms that clients send. */
#include "api_internal.h"
#include <stdio.h>

int filters_parse(const char *text, const char *const *allowed, struct filters *ret, struct err *e)
{
    ret->doc = NULL;
    if (!text || !*text)
        return 0;
    struct val_doc *doc;
    int r = json_parse(&doc, text, strlen(text), "filters", e);
    if (r < 0)
        return r;
    const struct val *root = val_root(doc);
    if (root->kind != V_MAP)
        r = err_set(e, E_INVALID, "filters: an object is needed, like {\"name\":[\"web\"]}");
    for (uint32_t i = 0; r == 0 && i < root->n; i++) {
        unsigned k = 0;
        const struct val *v = root->map[i].value;
        while (allowed[k] && !str_equal(allowed[k], root->map[i].key->s))
            k++;
        if (!allowed[k])
            r = err_set(e, E_INVALID, "invalid filter '%s'", root->map[i].key->s);
        else if (v->kind != V_MAP && v->kind != V_LIST)
            r = err_set(e, E_INVALID, "filters.%s: a list is needed", root->map[i].key->s);
    }
    if (r < 0) {
        val_doc_free(doc);
        return r;
    }
    ret->doc = doc;
    return 0;
}

void filters_free(struct filters *f)
{
    val_doc_free(f->doc);
    f->doc = NULL;
}

/* k-th value asked for; NULL at the end. */
static const char *nth(const struct filters *f, const char *key, uint32_t k)
{
    const struct val *v = f->doc ? val_get(val_root(f->doc), key) : NULL;
    if (!v || k >= v->n)
        return NULL;
    const struct val *x = v->kind == V_MAP ? v->map[k].key : v->list[k];
    return x->kind == V_STR ? x->s : "";
}

bool filters_has(const struct filters *f, const char *key)
{
    return nth(f, key, 0) != NULL;
}

bool filter_exact(const struct filters *f, const char *key, const char *value)
{
    const char *x;
    for (uint32_t i = 0; (x = nth(f, key, i)); i++)
        if (str_equal(x, value))
            return true;
    return !filters_has(f, key);
}

bool filter_prefix(const struct filters *f, const char *key, const char *value)
{
    const char *x;
    for (uint32_t i = 0; (x = nth(f, key, i)); i++)
        if (value && str_starts(value, x))
            return true;
    return !filters_has(f, key);
}

bool filter_name(const struct filters *f, const char *key, const char *value)
{
    const char *x;
    for (uint32_t i = 0; (x = nth(f, key, i)); i++)
        if (value && strstr(value, *x == '/' ? x + 1 : x))
            return true;
    return !filters_has(f, key);
}

bool filter_labels(const struct filters *f, const char *key, const struct labels *l)
{
    const char *x;
    for (uint32_t i = 0; (x = nth(f, key, i)); i++) {
        const char *eq = strchr(x, '=');
        AUTO_FREE char *name = eq ? xstrndup(x, (size_t)(eq - x)) : xstrdup(x);
        const char *v = labels_get(l, name);
        if (!v || (eq && !str_equal(v, eq + 1)))
            return false; /* labels are all needed */
    }
    return true;
}
