/* Several Compose files become one, as the Compose Specification's merge chapter says: maps are merged, scalars
 * replaced, lists appended; but command, entrypoint and a health test are replaced as wholes, name=value
 * lists are merged by name, ports, volumes, secrets and configs by their target in the container. */
#include "stack_internal.h"

static bool is_one_of(const char *key, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(key, *names) == 0)
            return true;
    return false;
}

/* depth of key: 0 services, 1 a service's name, 2 its keys. Names are the user's and have no rules. */
static struct val *merge(struct val_doc *d, unsigned depth, const char *key, struct val *base,
                         struct val *over);

static struct val *with_line(struct val *v, uint32_t line)
{
    v->line = line;
    return v;
}

/* ["A=1", "B"] as {A: "1", B: nothing}; for networks ["a"] as {a: nothing}. */
static struct val *as_map(struct val_doc *d, struct val *v)
{
    if (v->kind == V_MAP)
        return v;
    struct val *map = val_map(d);
    map->line = v->line;
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *item = v->list[i];
        const char *eq = strchr(item->s, '=');
        AUTO_FREE char *name = eq ? xstrndup(item->s, (size_t)(eq - item->s)) : xstrdup(item->s);
        val_set(d, map, name, with_line(eq ? val_str(d, eq + 1) : val_null(d), item->line));
        map->map[map->n - 1].key->line = item->line;
    }
    return map;
}

static struct val *merge_maps(struct val_doc *d, unsigned depth, struct val *base, struct val *over)
{
    struct val *map = val_map(d);
    map->line = over->line;
    for (unsigned side = 0; side < 2; side++) {
        const struct val *from = side ? over : base;
        for (uint32_t i = 0; i < from->n; i++) {
            const char *key = from->map[i].key->s;
            struct val *old = side ? val_get(map, key) : NULL;
            uint32_t n = map->n;
            val_set(d, map, key,
                    old ? merge(d, depth, key, old, from->map[i].value) : from->map[i].value);
            if (map->n > n)
                map->map[n].key->line = from->map[i].key->line;
        }
    }
    return map;
}

/* What makes two elements of a keyed list the same; heap, NULL: only equality. */
static char *target_of(const char *list, const struct val *v)
{
    bool ports = strcmp(list, "ports") == 0, volumes = strcmp(list, "volumes") == 0;
    if (v->kind == V_MAP) {
        const char *named = val_get_str(v, "target");
        const struct val *target = val_get(v, "target");
        const char *protocol = val_get_str(v, "protocol");
        if (ports) {
            AUTO_FREE char *text = target ? scalar_text(target) : NULL;
            return text ? xasprintf("%s/%s", text, protocol ? protocol : "tcp") : NULL;
        }
        return xstrdup(named ? named : volumes ? NULL : val_get_str(v, "source"));
    }
    AUTO_FREE char *text = scalar_text(v);
    if (!text)
        return NULL;
    if (ports) {
        const char *colon = strrchr(text, ':'), *at = colon ? colon + 1 : text;
        return strchr(at, '/') ? xstrdup(at) : xasprintf("%s/tcp", at);
    }
    char *colon = volumes ? strchr(text, ':') : NULL;
    if (!colon)
        return TAKE(text);
    char *end = strchr(colon + 1, ':');
    return end ? xstrndup(colon + 1, (size_t)(end - colon - 1)) : xstrdup(colon + 1);
}

static bool same_element(const char *list, bool keyed, const struct val *a, const struct val *b)
{
    if (!keyed)
        return val_equal(a, b);
    AUTO_FREE char *x = target_of(list, a), *y = target_of(list, b);
    return x && y && strcmp(x, y) == 0;
}

static struct val *merge_lists(struct val_doc *d, const char *key, struct val *base, struct val *over)
{
    static const char *const keyed_lists[] = { "ports", "volumes", "secrets", "configs", NULL };
    bool keyed = is_one_of(key, keyed_lists);
    struct val *list = val_list(d);
    list->line = over->line;
    for (uint32_t i = 0; i < base->n; i++) {
        bool replaced = false;
        for (uint32_t j = 0; keyed && j < over->n && !replaced; j++)
            replaced = same_element(key, true, base->list[i], over->list[j]);
        if (!replaced)
            val_push(d, list, base->list[i]);
    }
    for (uint32_t j = 0; j < over->n; j++) {
        bool there = false;
        for (uint32_t i = 0; !keyed && i < base->n && !there; i++)
            there = same_element(key, false, base->list[i], over->list[j]);
        if (!there)
            val_push(d, list, over->list[j]);
    }
    return list;
}

/* "a" and ["b"] are both lists where a key takes either. */
static struct val *as_list(struct val_doc *d, struct val *v)
{
    if (v->kind == V_LIST)
        return v;
    struct val *list = val_list(d);
    list->line = v->line;
    val_push(d, list, v);
    return list;
}

static struct val *merge(struct val_doc *d, unsigned depth, const char *key, struct val *base,
                         struct val *over)
{
    static const char *const whole[] = { "command", "entrypoint", NULL };
    static const char *const pairs[] = { "environment", "labels", "sysctls", "networks", NULL };
    static const char *const either[] = { "tmpfs", "dns", "dns_search", "env_file", NULL };
    bool boxes = (base->kind == V_LIST || base->kind == V_MAP) &&
                 (over->kind == V_LIST || over->kind == V_MAP);
    if (over->kind == V_NULL)
        return base;
    if (base->kind == V_NULL || (depth == 2 && is_one_of(key, whole)) ||
        (depth == 3 && strcmp(key, "test") == 0 && !(base->kind == V_MAP && over->kind == V_MAP)))
        return over;
    if (depth == 2 && strcmp(key, "logging") == 0) {
        const char *a = val_get_str(base, "driver"), *b = val_get_str(over, "driver");
        if (a && b && strcmp(a, b) != 0)
            return over; /* the options belong to the other driver */
    }
    if (depth >= 2 && boxes && is_one_of(key, pairs))
        return merge_maps(d, depth + 1, as_map(d, base), as_map(d, over));
    if (base->kind == V_MAP && over->kind == V_MAP)
        return merge_maps(d, depth + 1, base, over);
    if (base->kind == V_LIST && over->kind == V_LIST)
        return merge_lists(d, key, base, over);
    if (depth == 2 && is_one_of(key, either) && base->kind != V_MAP && over->kind != V_MAP)
        return merge_lists(d, key, as_list(d, base), as_list(d, over));
    return over;
}

struct val *compose_merge(struct val_doc *d, struct val *base, struct val *over)
{
    return merge_maps(d, 0, base, over);
}
