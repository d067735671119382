/* The filters parameter of list requests, in both forms that clients send. */
#include "api_internal.h"
#include <shoal/base/file.h>
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

const char *filter_nth(const struct filters *f, const char *key, uint32_t k)
{
    const struct val *v = f->doc ? val_get(val_root(f->doc), key) : NULL;
    if (!v || k >= v->n)
        return NULL;
    const struct val *x = v->kind == V_MAP ? v->map[k].key : v->list[k];
    return x->kind == V_STR ? x->s : "";
}

bool filters_has(const struct filters *f, const char *key)
{
    return filter_nth(f, key, 0) != NULL;
}

int filter_flag(const struct filters *f, const char *key, bool *ret, struct err *e)
{
    const char *x = filter_nth(f, key, 0);
    *ret = x && (str_equal(x, "true") || str_equal(x, "1"));
    if (x && !*ret && !str_equal(x, "false") && !str_equal(x, "0"))
        return err_set(e, E_INVALID, "invalid filter '%s=%s': give true or false", key, x);
    return x != NULL;
}

bool filter_exact(const struct filters *f, const char *key, const char *value)
{
    const char *x;
    for (uint32_t i = 0; (x = filter_nth(f, key, i)); i++)
        if (str_equal(x, value))
            return true;
    return !filters_has(f, key);
}

bool filter_prefix(const struct filters *f, const char *key, const char *value)
{
    const char *x;
    for (uint32_t i = 0; (x = filter_nth(f, key, i)); i++)
        if (value && str_starts(value, x))
            return true;
    return !filters_has(f, key);
}

bool filter_name(const struct filters *f, const char *key, const char *value)
{
    const char *x;
    for (uint32_t i = 0; (x = filter_nth(f, key, i)); i++)
        if (value && strstr(value, *x == '/' ? x + 1 : x))
            return true;
    return !filters_has(f, key);
}

bool filter_labels(const struct filters *f, const char *key, const struct labels *l)
{
    const char *x;
    for (uint32_t i = 0; (x = filter_nth(f, key, i)); i++) {
        const char *eq = strchr(x, '=');
        AUTO_FREE char *name = eq ? xstrndup(x, (size_t)(eq - x)) : xstrdup(x);
        const char *v = labels_get(l, name);
        if (!v || (eq && !str_equal(v, eq + 1)))
            return false; /* labels are all needed */
    }
    return true;
}

/* "24h", "1h30m": as Go writes durations, whole numbers. */
static bool ago_ns(const char *s, int64_t *ret)
{
    static const struct { const char *unit; int64_t ns; } units[] = {
        { "ms", MS_NS }, { "h", 3600 * SEC_NS }, { "m", 60 * SEC_NS }, { "s", SEC_NS } };
    int64_t sum = 0;
    while (*s) {
        unsigned k = 0;
        size_t n = strspn(s, "0123456789");
        AUTO_FREE char *number = xstrndup(s, n);
        uint64_t value;
        s += n;
        while (k < ARRAY_N(units) && !str_starts(s, units[k].unit))
            k++;
        if (k == ARRAY_N(units) || !str_u64(number, 0, 1000000, &value))
            return false;
        sum += (int64_t)value * units[k].ns;
        s += strlen(units[k].unit);
    }
    *ret = sum;
    return true;
}

int filter_until(const struct filters *f, int64_t now_ns, int64_t *ret_ns, struct err *e)
{
    const char *x;
    *ret_ns = INT64_MAX;
    for (uint32_t i = 0; (x = filter_nth(f, "until", i)); i++) {
        uint64_t seconds;
        int64_t at;
        if (str_u64(x, 0, INT64_MAX / SEC_NS, &seconds))
            at = (int64_t)seconds * SEC_NS;
        else if (*x && ago_ns(x, &at))
            at = now_ns - at;
        else if (time_parse(x, &at) < 0)
            return err_set(e, E_INVALID, "filters.until: \"%.100s\" is no time; want 24h, a unix time or RFC 3339", x);
        *ret_ns = MIN(*ret_ns, at);
    }
    return 0;
}
