/* $NAME and ${NAME...} in values: :- - :? ? :+ + as the Compose Specification's interpolation chapter has
 * them, defaults may hold further variables, $$ is a dollar sign. Every value is rebuilt into the load's own
 * document, so values shared through YAML anchors are expanded once each, and lines learn their file. */
#include <ctype.h>
#include "stack_internal.h"

enum { MAX_NESTING = 16, MAX_VALUE_BYTES = 1 << 20 };

struct expand {
    const struct labels *env;
    struct strs *unset;
    struct err *e;
};

static int expand(struct expand *x, const char *s, size_t len, unsigned depth, struct sb *out);

static size_t name_len(const char *s, size_t len)
{
    size_t n = 0;
    while (n < len && (isalpha((unsigned char)s[n]) || s[n] == '_' || (n && isdigit((unsigned char)s[n]))))
        n++;
    return n;
}

static void note_unset(struct expand *x, const char *name)
{
    if (x->unset && !strs_has(x->unset, name))
        strs_add(x->unset, name);
}

/* Text between ${ and its }; *ret_len from s; false: not closed. */
static bool braces(const char *s, size_t len, size_t *ret_len)
{
    unsigned open = 1;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '$' && i + 1 < len && s[i + 1] == '$')
            i++;
        else if (s[i] == '$' && i + 1 < len && s[i + 1] == '{')
            open++, i++;
        else if (s[i] == '}' && --open == 0) {
            *ret_len = i;
            return true;
        }
    }
    return false;
}

static int expand_braced(struct expand *x, const char *s, size_t len, unsigned depth, struct sb *out)
{
    size_t n = name_len(s, len);
    AUTO_FREE char *name = xstrndup(s, n);
    const char *value = labels_get(x->env, name);
    if (!n)
        return err_set(x->e, E_INVALID, "\"${%.*s}\" names no variable; write $$ for a dollar sign",
                       (int)MIN(len, 60), s);
    if (n == len) {
        if (!value)
            note_unset(x, name);
        sb_str(out, value ? value : "");
        return 0;
    }
    bool colon = s[n] == ':';
    size_t op_at = n + colon;
    char op = op_at < len ? s[op_at] : 0;
    if (!op || !strchr("-?+", op))
        return err_set(x->e, E_INVALID, "\"${%.*s}\" is not ${NAME}, ${NAME:-default}, ${NAME:?text} or "
                       "${NAME:+text}; write $$ for a dollar sign", (int)MIN(len, 60), s);
    const char *word = s + op_at + 1;
    size_t word_len = len - op_at - 1;
    bool given = value && (!colon || value[0]);
    if (op == '+')
        return given ? expand(x, word, word_len, depth + 1, out) : 0;
    if (given) {
        sb_str(out, value);
        return 0;
    }
    if (op == '-')
        return expand(x, word, word_len, depth + 1, out);
    AUTO_SB struct sb text;
    sb_init(&text, MAX_VALUE_BYTES);
    int rc = expand(x, word, word_len, depth + 1, &text);
    if (rc < 0)
        return rc;
    return err_set(x->e, E_INVALID, "the variable %s is required%s%.300s", name, text.len ? ": " : "",
                   text.s);
}

static int expand(struct expand *x, const char *s, size_t len, unsigned depth, struct sb *out)
{
    if (depth > MAX_NESTING)
        return err_set(x->e, E_INVALID, "variables are nested more than %d deep", MAX_NESTING);
    for (size_t i = 0; i < len; i++) {
        if (s[i] != '$') {
            sb_char(out, s[i]);
            continue;
        }
        size_t n;
        if (i + 1 < len && s[i + 1] == '$') {
            sb_char(out, '$');
            i++;
        } else if (i + 1 < len && s[i + 1] == '{') {
            if (!braces(s + i + 2, len - i - 2, &n))
                return err_set(x->e, E_INVALID, "\"%.*s\" has no closing brace; write $$ for a dollar "
                               "sign", (int)MIN(len - i, 60), s + i);
            int rc = expand_braced(x, s + i + 2, n, depth, out);
            if (rc < 0)
                return rc;
            i += n + 2;
        } else if ((n = name_len(s + i + 1, len - i - 1)) > 0) {
            AUTO_FREE char *name = xstrndup(s + i + 1, n);
            const char *value = labels_get(x->env, name);
            if (!value)
                note_unset(x, name);
            sb_str(out, value ? value : "");
            i += n;
        } else {
            return err_set(x->e, E_INVALID, "\"%.*s\" names no variable; write $$ for a dollar sign",
                           (int)MIN(len - i, 60), s + i);
        }
    }
    return 0;
}

int interpolate_text(const char *s, const struct labels *env, struct strs *unset, struct sb *out,
                     struct err *e)
{
    struct expand x = { env, unset, e };
    int rc = expand(&x, s, strlen(s), 0, out);
    if (rc == 0 && out->overflow)
        return err_set(e, E_TOO_BIG, "the value is more than %zu bytes long with its variables filled in",
                       out->max);
    return rc;
}

static int interpolate_str(struct load *l, const struct val *v, struct val **ret)
{
    if (memchr(v->s, 0, v->n))
        return bad(l, v, E_INVALID, "holds a NUL character; remove it");
    if (!memchr(v->s, '$', v->n)) {
        *ret = val_str_n(l->doc, v->s, v->n);
        return 0;
    }
    AUTO_SB struct sb text;
    struct err e = { 0 };
    sb_init(&text, MAX_VALUE_BYTES);
    int rc = interpolate_text(v->s, &l->env, &l->out->unset, &text, &e);
    if (rc < 0)
        return bad(l, v, -rc, "%s", e.text);
    *ret = val_str_n(l->doc, text.s, text.len);
    return 0;
}

static int interpolate_map(struct load *l, const struct val *v, unsigned file, struct val *map)
{
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *k = v->map[i].key;
        struct val *item = NULL;
        if (k->kind != V_STR || memchr(k->s, 0, k->n))
            return bad(l, k, E_INVALID, "has a key that is not text");
        size_t mark = at_key(l, k->s);
        int rc = interpolate_tree(l, v->map[i].value, file, &item);
        if (rc < 0)
            return rc;
        at_back(l, mark);
        val_set(l->doc, map, k->s, item);
        /* val_set made the key: give it its place for messages about unknown keys */
        map->map[map->n - 1].key->line = (uint32_t)file << LINE_BITS | MIN(k->line, (uint32_t)LINE_MASK);
    }
    return 0;
}

int interpolate_tree(struct load *l, const struct val *v, unsigned file, struct val **ret)
{
    struct val *copy = NULL;
    uint32_t line = (uint32_t)file << LINE_BITS | MIN(v->line, (uint32_t)LINE_MASK);
    int rc = 0;
    struct val here = { .line = line }; /* for messages */
    if (v->kind == V_STR) {
        struct val s = *v;
        s.line = line;
        rc = interpolate_str(l, &s, &copy);
    } else if (v->kind == V_MAP) {
        copy = val_map(l->doc);
        rc = interpolate_map(l, v, file, copy);
    } else if (v->kind == V_LIST) {
        copy = val_list(l->doc);
        for (uint32_t i = 0; rc == 0 && i < v->n; i++) {
            struct val *item = NULL;
            size_t mark = at_index(l, i);
            rc = interpolate_tree(l, v->list[i], file, &item);
            if (rc == 0) {
                at_back(l, mark);
                val_push(l->doc, copy, item);
            }
        }
    } else if (v->kind == V_BYTES) {
        rc = bad(l, &here, E_INVALID, "is binary; write text");
    } else {
        copy = val_copy(l->doc, v);
    }
    if (rc < 0)
        return rc;
    copy->line = line;
    copy->quoted = v->quoted;
    *ret = copy;
    return 0;
}
