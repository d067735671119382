/* Typed reading of YAML members. Compose allows most scalars as text too, because variables leave text behind;
 * each reader says which forms it takes. */
#include <inttypes.h>
#include <stdio.h>
#include "stack_internal.h"

struct val *member(const struct val *map, const char *key)
{
    struct val *v = val_get(map, key);
    return v && v->kind != V_NULL ? v : NULL;
}

char *scalar_text(const struct val *v)
{
    switch (v->kind) {
    case V_STR:
        return xstrndup(v->s, v->n);
    case V_BOOL:
        return xstrdup(v->b ? "true" : "false");
    case V_INT:
        return xasprintf("%" PRId64, v->i);
    case V_UINT:
        return xasprintf("%" PRIu64, v->u);
    case V_REAL:
        for (int digits = 15; digits < 17; digits++) { /* the shortest that reads back the same */
            char *s = xasprintf("%.*g", digits, v->r);
            if (strtod(s, NULL) == v->r)
                return s;
            free(s);
        }
        return xasprintf("%.17g", v->r);
    default:
        return NULL;
    }
}

int get_str(struct load *l, const struct val *map, const char *key, char **ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    size_t mark = at_key(l, key);
    if (v->kind != V_STR)
        return bad(l, v, E_INVALID, "expected a string, found %s", kind_text(v));
    at_back(l, mark);
    str_set(ret, v->s);
    return 0;
}

int get_text(struct load *l, const struct val *map, const char *key, char **ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    AUTO_FREE char *s = scalar_text(v);
    str_set(ret, s);
    return 0;
}

int get_bool(struct load *l, const struct val *map, const char *key, bool *ret)
{
    static const char *const yes[] = { "true", "yes", "on", "y" }, *const no[] = { "false", "no", "off",
                                                                                  "n" };
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    if (v->kind == V_BOOL) {
        *ret = v->b;
        return 0;
    }
    for (size_t i = 0; v->kind == V_STR && i < ARRAY_N(yes); i++)
        if (strcasecmp(v->s, yes[i]) == 0 || strcasecmp(v->s, no[i]) == 0) {
            *ret = strcasecmp(v->s, yes[i]) == 0;
            return 0;
        }
    at_key(l, key);
    return bad(l, v, E_INVALID, "must be true or false");
}

int get_i64(struct load *l, const struct val *map, const char *key, int64_t min, int64_t max, int64_t *ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    int64_t i = 0;
    bool ok = v->kind == V_INT;
    if (ok) {
        i = v->i;
    } else if (v->kind == V_STR) {
        bool minus = v->s[0] == '-';
        uint64_t u = 0;
        ok = str_u64(v->s + minus, 0, INT64_MAX, &u);
        i = minus ? -(int64_t)u : (int64_t)u;
    }
    if (!ok || i < min || i > max) {
        at_key(l, key);
        if (max == INT64_MAX)
            return bad(l, v, E_INVALID, "must be a whole number of at least %" PRId64, min);
        return bad(l, v, E_INVALID, "must be a whole number between %" PRId64 " and %" PRId64, min, max);
    }
    *ret = i;
    return 0;
}

int get_u64(struct load *l, const struct val *map, const char *key, uint64_t max, uint64_t *ret)
{
    int64_t i = (int64_t)*ret;
    int rc = get_i64(l, map, key, 0, (int64_t)max, &i);
    if (rc == 0)
        *ret = (uint64_t)i;
    return rc;
}

typedef int unit_fn(const char *s, int64_t *ret);

static int get_unit(struct load *l, const struct val *map, const char *key, unit_fn *fn, const char *like,
                    int64_t *ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    AUTO_FREE char *s = scalar_text(v);
    if (s && fn(s, ret) == 0)
        return 0;
    at_key(l, key);
    return bad(l, v, E_INVALID, "\"%.60s\" is not %s", s ? s : "", like);
}

int get_ns(struct load *l, const struct val *map, const char *key, int64_t *ret)
{
    return get_unit(l, map, key, stack_duration_ns, "a duration like 10s or 1m30s", ret);
}

int get_size(struct load *l, const struct val *map, const char *key, int64_t *ret)
{
    return get_unit(l, map, key, stack_size_bytes, "a size like 512m or 2g", ret);
}

int get_cpus(struct load *l, const struct val *map, const char *key, int64_t *ret)
{
    return get_unit(l, map, key, stack_nano_cpus, "a number of processors like 0.5 or 2", ret);
}

int get_ratio(struct load *l, const struct val *map, const char *key, double *ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    AUTO_FREE char *s = scalar_text(v);
    int64_t nano; /* the form of processors: a plain decimal number */
    if (s && stack_nano_cpus(s, &nano) == 0 && nano <= 1000000000) {
        *ret = (double)nano / 1e9;
        return 0;
    }
    at_key(l, key);
    return bad(l, v, E_INVALID, "must be a number between 0 and 1");
}

int get_mode(struct load *l, const struct val *map, const char *key, uint64_t *ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    uint64_t mode = 0;
    bool ok = v->kind == V_INT && v->i >= 0; /* YAML has read 0440 as octal already */
    if (ok) {
        mode = (uint64_t)v->i;
    } else if (v->kind == V_STR) {
        const char *s = str_starts(v->s, "0o") ? v->s + 2 : v->s;
        size_t n = 0;
        for (; s[n] >= '0' && s[n] <= '7' && n < 8; n++)
            mode = mode * 8 + (uint64_t)(s[n] - '0');
        ok = n && !s[n];
    }
    if (ok && mode <= 07777) {
        *ret = mode;
        return 0;
    }
    at_key(l, key);
    return bad(l, v, E_INVALID, "must be permission bits in octal like 0440");
}

int get_enum(struct load *l, const struct val *map, const char *key, const char *const *names, int *ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    char list[160] = "";
    size_t len = 0;
    for (int i = 0; names[i]; i++) {
        if (v->kind == V_STR && strcmp(names[i], v->s) == 0) {
            *ret = i;
            return 0;
        }
        const char *sep = len == 0 ? "" : names[i + 1] ? ", " : " or ";
        if (len < sizeof list)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", sep, names[i]);
    }
    at_key(l, key);
    return bad(l, v, E_INVALID, "must be %s", list);
}

int get_strs(struct load *l, const struct val *map, const char *key, struct strs *ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    if (v->kind == V_STR) {
        strs_add(ret, v->s);
        return 0;
    }
    size_t mark = at_key(l, key);
    if (v->kind != V_LIST)
        return bad(l, v, E_INVALID, "expected a string or a list, found %s", kind_text(v));
    for (uint32_t i = 0; i < v->n; i++) {
        size_t here = at_index(l, i);
        if (v->list[i]->kind != V_STR)
            return bad(l, v->list[i], E_INVALID, "expected a string, found %s; put it in quotes",
                       kind_text(v->list[i]));
        at_back(l, here);
        strs_add(ret, v->list[i]->s);
    }
    at_back(l, mark);
    return 0;
}

int get_labels(struct load *l, const struct val *map, const char *key, struct labels *ret)
{
    const struct val *v = member(map, key);
    if (!v)
        return 0;
    for (uint32_t i = 0; i < v->n; i++) {
        AUTO_FREE char *name = NULL, *value = NULL;
        if (v->kind == V_MAP) {
            name = xstrdup(v->map[i].key->s);
            value = scalar_text(v->map[i].value);
        } else {
            const char *s = v->list[i]->s, *eq = strchr(s, '=');
            name = eq ? xstrndup(s, (size_t)(eq - s)) : xstrdup(s);
            value = xstrdup(eq ? eq + 1 : "");
        }
        if (!name[0]) {
            at_key(l, key);
            return bad(l, v->kind == V_MAP ? v->map[i].value : v->list[i], E_INVALID,
                       "has an entry without a name");
        }
        labels_set(ret, name, value);
    }
    return 0;
}
