/* The door to jansson (parsing), and our writer. */
#include "val_internal.h"
#include <jansson.h>
#include <math.h>

static struct val *convert(struct val_doc *d, json_t *j, unsigned depth)
{
    const char *key;
    json_t *item;
    size_t i;
    struct val *v;
    if (depth > VAL_DEPTH_MAX || val_doc_size(d) > VAL_DOC_MAX_BYTES)
        return NULL;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = val_map(d);
        json_object_foreach(j, key, item) {
            struct val *value = convert(d, item, depth + 1);
            if (!value)
                return NULL;
            val_add_pair(d, v, val_str(d, key), value);
        }
        return v;
    case JSON_ARRAY:
        v = val_list(d);
        json_array_foreach(j, i, item) {
            struct val *value = convert(d, item, depth + 1);
            if (!value)
                return NULL;
            val_push(d, v, value);
        }
        return v;
    case JSON_STRING: return val_str_n(d, json_string_value(j), json_string_length(j));
    case JSON_INTEGER: return val_int(d, json_integer_value(j));
    case JSON_REAL: return val_real(d, json_real_value(j));
    case JSON_TRUE: return val_bool(d, true);
    case JSON_FALSE: return val_bool(d, false);
    case JSON_NULL: return val_null(d);
    }
    return NULL;
}

int json_parse(struct val_doc **ret, const char *s, size_t len, const char *what, struct err *e)
{
    json_error_t je;
    json_t *j = json_loadb(s, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!j)
        return err_set(e, E_INVALID, "%s: line %d column %d: %s", what, je.line, je.column, je.text);
    struct val_doc *d = val_doc_new();
    struct val *root = convert(d, j, 0);
    json_decref(j);
    if (!root) {
        val_doc_free(d);
        return err_set(e, E_TOO_BIG, "%s: nested deeper than %d levels or too big", what, VAL_DEPTH_MAX);
    }
    val_set_root(d, root);
    *ret = d;
    return 0;
}

static void newline(struct sb *b, unsigned indent, unsigned level)
{
    if (!indent)
        return;
    sb_char(b, '\n');
    for (unsigned i = 0; i < indent * level; i++)
        sb_char(b, ' ');
}

static void write_key(struct sb *b, const struct val *key)
{
    if (key->kind == V_INT)
        sb_printf(b, "\"%lld\"", (long long)key->i);
    else
        sb_json_str(b, key->s, key->n);
}

static void write_real(struct sb *b, double r)
{
    char text[40];
    if (!isfinite(r)) {
        sb_str(b, "null");
        return;
    }
    snprintf(text, sizeof text, "%.17g", r);
    sb_str(b, text);
    if (!strpbrk(text, ".eE"))
        sb_str(b, ".0");
}

static void write_at(struct sb *b, const struct val *v, unsigned indent, unsigned level)
{
    switch (v->kind) {
    case V_NULL: sb_str(b, "null"); break;
    case V_BOOL: sb_str(b, v->b ? "true" : "false"); break;
    case V_INT: sb_printf(b, "%lld", (long long)v->i); break;
    case V_UINT: sb_printf(b, "%llu", (unsigned long long)v->u); break;
    case V_REAL: write_real(b, v->r); break;
    case V_STR: case V_BYTES: sb_json_str(b, v->s, v->n); break;
    case V_LIST:
        sb_char(b, '[');
        for (uint32_t i = 0; i < v->n; i++) {
            if (i)
                sb_char(b, ',');
            newline(b, indent, level + 1);
            write_at(b, v->list[i], indent, level + 1);
        }
        if (v->n)
            newline(b, indent, level);
        sb_char(b, ']');
        break;
    case V_MAP:
        sb_char(b, '{');
        for (uint32_t i = 0; i < v->n; i++) {
            if (i)
                sb_char(b, ',');
            newline(b, indent, level + 1);
            write_key(b, v->map[i].key);
            sb_str(b, indent ? ": " : ":");
            write_at(b, v->map[i].value, indent, level + 1);
        }
        if (v->n)
            newline(b, indent, level);
        sb_char(b, '}');
        break;
    }
}

void json_write(struct sb *b, const struct val *v, unsigned indent)
{
    write_at(b, v, indent, 0);
}
