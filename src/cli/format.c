/* --format, inspect, --pretty and --filter: what all kinds of objects share. */
#include "cli.h"
#include <shoal/http.h>

int format_of(const struct cli *c, enum format *ret, struct err *e)
{
    const char *f = cli_str(c, "format");
    *ret = FORMAT_NONE;
    if (!f || !*f)
        return 0;
    if (!strcmp(f, "json") || !strcmp(f, "{{json .}}"))
        *ret = FORMAT_JSON;
    else if (!strcmp(f, "table"))
        *ret = FORMAT_TABLE;
    else
        return cli_usage(c, e, "--format %s: templates are not built in shoal; use json (one object a line, for a "
                         "tool such as jq), table, or -q", f);
    return 0;
}

void format_json(FILE *f, const struct val *v, unsigned indent)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    json_write(&b, v, indent);
    fputs(b.s, f);
    if (!b.len || b.s[b.len - 1] != '\n')
        fputc('\n', f);
}

static void pretty_scalar(FILE *f, const struct val *v)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    if (v->kind == V_STR)
        sb_add(&b, v->s, v->n);
    else
        json_write(&b, v, 0);
    for (size_t i = 0; i < b.len; i++) /* text from a peer shall not move the cursor */
        fputc((unsigned char)b.s[i] < 32 || b.s[i] == 127 ? ' ' : b.s[i], f);
}

static bool is_empty(const struct val *v)
{
    return v->kind == V_NULL || ((v->kind == V_LIST || v->kind == V_MAP || v->kind == V_STR) && !v->n);
}

/* "(32MiB)", "(1s)": what a number means, where its name tells. */
static void pretty_unit(FILE *f, const char *key, const struct val *v)
{
    static const char *const durations[] = { "Delay", "Window", "Monitor", "StopGracePeriod", "Interval", "Timeout",
                                             "StartPeriod", "StartInterval" };
    char text[48] = "";
    size_t n = strlen(key);
    if (v->kind != V_INT || v->i <= 0)
        return;
    if (n > 5 && !strcmp(key + n - 5, "Bytes"))
        units_bytes(text, v->i, true);
    for (unsigned i = 0; i < ARRAY_N(durations); i++)
        if (!strcmp(key, durations[i]))
            units_duration(text, v->i);
    if (*text)
        fprintf(f, " (%s)", text);
}

/* dash: the first line is an item of a list; the mark stands in its indent. */
static void pretty(FILE *f, const struct val *v, unsigned depth, bool dash)
{
    for (uint32_t i = 0; i < v->n && v->kind == V_MAP; i++) {
        const struct val *x = v->map[i].value;
        if (is_empty(x) || v->map[i].key->kind != V_STR)
            continue;
        fprintf(f, "%*s%s%s:", (int)(depth - dash) * 2, "", dash ? "- " : "", v->map[i].key->s);
        dash = false;
        if (x->kind == V_MAP || x->kind == V_LIST) {
            fputc('\n', f);
            pretty(f, x, depth + 1, false);
        } else {
            fputc(' ', f);
            pretty_scalar(f, x);
            pretty_unit(f, v->map[i].key->s, x);
            fputc('\n', f);
        }
    }
    for (uint32_t i = 0; i < v->n && v->kind == V_LIST; i++) {
        if (v->list[i]->kind == V_MAP) {
            pretty(f, v->list[i], depth + 1, true);
        } else {
            fprintf(f, "%*s- ", (int)depth * 2, "");
            pretty_scalar(f, v->list[i]);
            fputc('\n', f);
        }
    }
}

void format_pretty(FILE *f, const struct val *v, unsigned depth)
{
    pretty(f, v, depth, false);
}

/* The first of the paths that knows the name. */
static int get_one(struct cli *c, const char *what, const char *const *paths, const char *name,
                   struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb enc;
    int rc = -E_NOT_FOUND;
    sb_init(&enc, 0);
    http_encode(&enc, name);
    for (unsigned i = 0; paths[i] && rc == -E_NOT_FOUND; i++) {
        const char *mark = strchr(paths[i], '*');
        AUTO_FREE char *path = xasprintf("%.*s%s%s", (int)(mark - paths[i]), paths[i], enc.s, mark + 1);
        rc = cli_get(c, ret, e, "%s", path);
    }
    return rc == -E_NOT_FOUND ? err_set(e, E_NOT_FOUND, "there is no %s %s", what, name) : rc;
}

int format_inspect(struct cli *c, const char *what, const char *const *paths, struct err *e)
{
    enum format format;
    int rc = format_of(c, &format, e), failed = 0;
    if (rc < 0)
        return rc;
    bool pretty = format == FORMAT_TABLE || (cli_has(c, "pretty") && cli_on(c, "pretty"));
    struct val_doc *all = val_doc_new();
    struct val *list = val_list(all);
    struct err why;
    for (unsigned i = 0; i < c->args.n; i++) {
        struct val_doc *d = NULL;
        int one = get_one(c, what, paths, c->args.v[i], &d, &why);
        if (one < 0) {
            if (failed)
                fprintf(c->err, "Error: %s\n", e->text);
            *e = why;
            failed = one;
        } else if (format == FORMAT_JSON) {
            format_json(c->out, val_root(d), 0);
        } else if (pretty) {
            format_pretty(c->out, val_root(d), 0);
        } else {
            val_push(all, list, val_copy(all, val_root(d)));
        }
        val_doc_free(d);
        if (one < 0 && one != -E_NOT_FOUND)
            break;
    }
    if (format == FORMAT_NONE && !pretty)
        format_json(c->out, list, 4);
    val_doc_free(all);
    return failed;
}

int filters_from_flags(struct cli *c, struct sb *query, const char *extra_key, const char *extra_value,
                       struct err *e)
{
    const struct strs *given = cli_list(c, "filter");
    struct val_doc *d = val_doc_new();
    struct val *root = val_map(d);
    int rc = 0;
    for (uint32_t i = 0; i <= given->n && rc == 0; i++) {
        AUTO_FREE char *key = xstrdup(i < given->n ? given->v[i] : extra_key);
        char *value = i < given->n ? strchr(key, '=') : NULL;
        if (i < given->n && !value) {
            rc = cli_usage(c, e, "--filter %s: must be KEY=VALUE", key);
            break;
        }
        if (!key)
            break;
        if (value)
            *value++ = 0;
        struct val *set = val_get(root, key);
        if (!set)
            val_set(d, root, key, set = val_map(d));
        val_set(d, set, value ? value : extra_value, val_bool(d, true));
    }
    AUTO_SB struct sb json;
    sb_init(&json, 0);
    json_write(&json, root, 0);
    if (rc == 0 && root->n)
        add_query(query, "filters", json.s);
    val_doc_free(d);
    return rc;
}
