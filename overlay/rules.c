#include "rules.h"
#include <stdio.h>
#include <string.h>

struct rules *rules_new(void)
{
    struct rules *r = xnew(struct rules);
    sb_init(&r->base, 0);
    map_init(&r->parts);
    return r;
}

void rules_free(struct rules *r)
{
    if (!r)
        return;
    for (struct map_item *it = NULL; (it = map_next(&r->parts, it));)
        free(it->value);
    map_done(&r->parts);
    sb_done(&r->base);
    free(r);
}

static void put(struct rules *r, const char *key, const char *text)
{
    free(map_put(&r->parts, key, xstrdup(text)));
}

void rules_chain(struct rules *r, const char *name, const char *lines)
{
    put(r, name, lines);
}

void rules_element(struct rules *r, const char *set, const char *key, const char *value)
{
    AUTO_FREE char *part = xasprintf("%s %s", set, key), *text = xasprintf("%s%s", value ? " : " : "", value ? value : "");
    put(r, part, text);
}

void rules_goto(struct rules *r, const char *map, const char *key, const char *chain)
{
    AUTO_FREE char *value = xasprintf("goto %s", chain);
    rules_element(r, map, key, value);
}

/* The key within its set; NULL: the part is a chain. */
static const char *key_of(const struct map_item *part)
{
    const char *space = strchr(part->key, ' ');
    return space ? space + 1 : NULL;
}

static int set_length(const struct map_item *part)
{
    return (int)strcspn(part->key, " ");
}

static bool is_kept(const struct rules *in, const struct map_item *part)
{
    return str_equal(map_find(&in->parts, part->key), part->value);
}

/* The elements of r that are not in `but` (may be NULL) in one command for each run of a set. */
static void put_elements(const char *command, const struct rules *r, const struct rules *but, bool values, struct sb *out)
{
    const struct map_item *last = NULL;
    for (struct map_item *it = NULL; (it = map_next(&r->parts, it));) {
        const char *key = key_of(it);
        if (!key || (but && is_kept(but, it)))
            continue;
        int n = set_length(it);
        if (last && set_length(last) == n && memcmp(last->key, it->key, (size_t)n) == 0)
            sb_str(out, ", ");
        else
            sb_printf(out, "%s%s element " RULES_TABLE " %.*s { ", last ? " }\n" : "", command, n, it->key);
        sb_printf(out, "%s%s", key, values ? (const char *)it->value : "");
        last = it;
    }
    if (last)
        sb_str(out, " }\n");
}

void rules_whole(const struct rules *r, struct sb *out)
{
    sb_printf(out, "table " RULES_TABLE "\ndelete table " RULES_TABLE "\ntable " RULES_TABLE " {\n%s", r->base.s);
    for (struct map_item *it = NULL; (it = map_next(&r->parts, it));)
        if (!key_of(it))
            sb_printf(out, "chain %s {\n%s}\n", it->key, (const char *)it->value);
    sb_str(out, "}\n");
    put_elements("add", r, NULL, true, out);
}

static void put_rules(const char *chain, const char *lines, struct sb *out)
{
    for (const char *end; (end = strchr(lines, '\n')); lines = end + 1)
        sb_printf(out, "add rule " RULES_TABLE " %s %.*s\n", chain, (int)(end - lines), lines);
}

bool rules_change(const struct rules *before, const struct rules *r, struct sb *out)
{
    if (strcmp(before->base.s, r->base.s) != 0)
        return false;
    put_elements("delete", before, r, false, out);
    for (struct map_item *it = NULL; (it = map_next(&r->parts, it));) {
        if (key_of(it) || is_kept(before, it))
            continue;
        sb_printf(out, "%s chain " RULES_TABLE " %s\n", map_find(&before->parts, it->key) ? "flush" : "add", it->key);
        put_rules(it->key, it->value, out);
    }
    put_elements("add", r, before, true, out);
    for (struct map_item *it = NULL; (it = map_next(&before->parts, it));)
        if (!key_of(it) && !map_find(&r->parts, it->key))
            sb_printf(out, "flush chain " RULES_TABLE " %s\ndelete chain " RULES_TABLE " %s\n", it->key, it->key);
    return true;
}
