/* The door to libyaml: one document to a tree with line numbers. Anchors, aliases and merge keys are
 * expanded under the document's size bound, so a "billion laughs" file ends with an error. */
#include "val_internal.h"
#include <shoal/base/map.h>
#include <stdio.h>
#include <yaml.h>

struct builder {
    yaml_parser_t parser;
    struct val_doc *d;
    struct map anchors; /* name -> struct val, complete ones only */
    const char *what;
    struct err *e;
    unsigned depth;
};

static struct val *build(struct builder *b, yaml_event_t *ev);

static struct val *fail_at(struct builder *b, size_t line, const char *text)
{
    if (!b->e || !b->e->code)
        err_set(b->e, E_INVALID, "%s:%zu: %s", b->what, line, text);
    return NULL;
}

static bool next(struct builder *b, yaml_event_t *ev)
{
    if (yaml_parser_parse(&b->parser, ev))
        return true;
    const char *problem = b->parser.problem ? b->parser.problem : "cannot be read";
    fail_at(b, b->parser.problem_mark.line + 1, problem);
    return false;
}

static bool is_one_of(const char *s, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(s, *words))
            return true;
    return false;
}

/* An integer of 64 bits, signed, or unsigned when it is above that. */
static bool parse_int(const char *s, struct val *ret)
{
    bool negative = *s == '-';
    const char *p = s + (*s == '-' || *s == '+');
    unsigned base = 10;
    uint64_t v = 0;
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'o')) {
        base = p[1] == 'x' ? 16 : 8;
        p += 2;
    } else if (p[0] == '0' && p[1]) {
        base = 8; /* YAML 1.1: Compose files write mode: 0440 */
        p++;
    }
    if (!*p)
        return false;
    for (; *p; p++) {
        unsigned digit = *p >= '0' && *p <= '9' ? (unsigned)(*p - '0')
                       : base == 16 && *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a') + 10
                       : base == 16 && *p >= 'A' && *p <= 'F' ? (unsigned)(*p - 'A') + 10 : 99;
        if (digit >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, digit, &v))
            return false;
    }
    if (negative && v > (uint64_t)INT64_MAX + 1)
        return false;
    *ret = (struct val){ .kind = negative || v <= INT64_MAX ? V_INT : V_UINT };
    ret->u = negative ? -v : v;
    return true;
}

static bool parse_real(const char *s, double *ret)
{
    char *end;
    if (strspn(s, "0123456789+-.eE") != strlen(s) || !strpbrk(s, "0123456789") || !strpbrk(s, ".eE"))
        return false;
    *ret = strtod(s, &end);
    return !*end;
}

static struct val *scalar(struct builder *b, const yaml_event_t *ev)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
    static const char *const trues[] = { "true", "True", "TRUE", NULL };
    static const char *const falses[] = { "false", "False", "FALSE", NULL };
    const char *s = (const char *)ev->data.scalar.value;
    size_t len = ev->data.scalar.length;
    struct val i;
    double r;
    if (ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !ev->data.scalar.tag && strlen(s) == len) {
        if (is_one_of(s, nulls))
            return val_null(b->d);
        if (is_one_of(s, trues))
            return val_bool(b->d, true);
        if (is_one_of(s, falses))
            return val_bool(b->d, false);
        if (parse_int(s, &i))
            return i.kind == V_INT ? val_int(b->d, i.i) : val_uint(b->d, i.u);
        if (parse_real(s, &r))
            return val_real(b->d, r);
    }
    struct val *v = val_str_n(b->d, s, len);
    v->quoted = ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return v;
}

static struct val *sequence(struct builder *b)
{
    struct val *list = val_list(b->d);
    for (;;) {
        yaml_event_t ev;
        if (!next(b, &ev))
            return NULL;
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        struct val *v = end ? NULL : build(b, &ev);
        yaml_event_delete(&ev);
        if (end)
            return list;
        if (!v)
            return NULL;
        val_push(b->d, list, v);
    }
}

/* "<<": keys of the merged maps that the map itself does not have. */
static bool merge(struct builder *b, struct val *map, const struct val *from, size_t line)
{
    if (from->kind == V_LIST) {
        for (uint32_t i = 0; i < from->n; i++)
            if (!merge(b, map, from->list[i], line))
                return false;
        return true;
    }
    if (from->kind != V_MAP) {
        fail_at(b, line, "\"<<\" must be followed by a mapping or a list of them");
        return false;
    }
    for (uint32_t i = 0; i < from->n; i++)
        if (!val_get(map, from->map[i].key->s))
            val_add_pair(b->d, map, from->map[i].key, val_copy(b->d, from->map[i].value));
    return val_doc_size(b->d) <= VAL_DOC_MAX_BYTES;
}

static struct val *key_of(struct builder *b, const yaml_event_t *ev)
{
    if (ev->type != YAML_SCALAR_EVENT)
        return fail_at(b, ev->start_mark.line + 1, "a key must be plain text");
    struct val *key = val_str_n(b->d, (const char *)ev->data.scalar.value, ev->data.scalar.length);
    key->line = (uint32_t)ev->start_mark.line + 1;
    return key;
}

static struct val *mapping(struct builder *b)
{
    struct val *map = val_map(b->d), *merged = NULL;
    size_t merge_line = 0;
    for (;;) {
        yaml_event_t ev;
        if (!next(b, &ev))
            return NULL;
        if (ev.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&ev);
            return merged && !merge(b, map, merged, merge_line) ? NULL : map;
        }
        struct val *key = key_of(b, &ev);
        yaml_event_delete(&ev);
        if (!key || !next(b, &ev))
            return NULL;
        struct val *value = build(b, &ev);
        yaml_event_delete(&ev);
        if (!value)
            return NULL;
        if (!strcmp(key->s, "<<")) {
            merged = value;
            merge_line = key->line;
        } else if (val_get(map, key->s)) {
            char text[300];
            snprintf(text, sizeof text, "key \"%.200s\" is given twice", key->s);
            return fail_at(b, key->line, text);
        } else {
            val_add_pair(b->d, map, key, value);
        }
    }
}

static struct val *build(struct builder *b, yaml_event_t *ev)
{
    struct val *v = NULL;
    size_t line = ev->start_mark.line + 1;
    const yaml_char_t *anchor = NULL;
    if (b->depth >= VAL_DEPTH_MAX)
        return fail_at(b, line, "nested deeper than 64 levels");
    if (val_doc_size(b->d) > VAL_DOC_MAX_BYTES)
        return fail_at(b, line, "the document is too big once its aliases are expanded");
    b->depth++;
    switch ((int)ev->type) {
    case YAML_SCALAR_EVENT:
        anchor = ev->data.scalar.anchor;
        v = scalar(b, ev);
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = ev->data.sequence_start.anchor;
        v = sequence(b);
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = ev->data.mapping_start.anchor;
        v = mapping(b);
        break;
    case YAML_ALIAS_EVENT: {
        const struct val *target = map_find(&b->anchors, (const char *)ev->data.alias.anchor);
        v = target ? val_copy(b->d, target) : fail_at(b, line, "an alias to an unknown anchor");
        break;
    }
    default:
        fail_at(b, line, "unexpected end");
    }
    b->depth--;
    if (v && !v->line)
        v->line = (uint32_t)line;
    if (v && anchor)
        map_put(&b->anchors, (const char *)anchor, v);
    return v;
}

static struct val *document(struct builder *b)
{
    struct val *root = NULL;
    for (;;) {
        yaml_event_t ev;
        if (!next(b, &ev))
            return NULL;
        int type = ev.type;
        size_t line = ev.start_mark.line + 1;
        if (type == YAML_SCALAR_EVENT || type == YAML_SEQUENCE_START_EVENT ||
            type == YAML_MAPPING_START_EVENT || type == YAML_ALIAS_EVENT) {
            if (root) {
                yaml_event_delete(&ev);
                return fail_at(b, line, "more than one document; split the file");
            }
            root = build(b, &ev);
            if (!root) {
                yaml_event_delete(&ev);
                return NULL;
            }
        }
        yaml_event_delete(&ev);
        if (type == YAML_STREAM_END_EVENT)
            return root ? root : val_null(b->d);
    }
}

int yaml_parse(struct val_doc **ret, const char *s, size_t len, const char *what, struct err *e)
{
    struct err own = { 0 };
    struct builder b = { .d = val_doc_new(), .what = what, .e = e ? e : &own };
    b.e->code = 0;
    map_init(&b.anchors);
    if (!yaml_parser_initialize(&b.parser))
        assert_failed("yaml_parser_initialize()", __FILE__, __LINE__);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)s, len);
    struct val *root = document(&b);
    yaml_parser_delete(&b.parser);
    map_done(&b.anchors);
    if (!root) {
        val_doc_free(b.d);
        return -b.e->code;
    }
    val_set_root(b.d, root);
    *ret = b.d;
    return 0;
}

/* Writing: block style; strings that would read back as something else are quoted as JSON. */
static bool is_plain(const struct val *v)
{
    struct val i;
    double r;
    const char *s = v->s;
    static const char *const words[] = { "", "~", "null", "Null", "NULL", "true", "True", "TRUE",
                                         "false", "False", "FALSE", "<<", NULL };
    if (!v->n || strlen(s) != v->n || is_one_of(s, words) || parse_int(s, &i) || parse_real(s, &r))
        return false;
    for (const char *p = s; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
              strchr("_./+", *p) || (*p == '-' && p > s)))
            return false;
    return true;
}

/* JSON's form is YAML's too, but for what YAML takes as a line break or does not print: escaped here. */
static void write_quoted(struct sb *b, const struct val *v)
{
    AUTO_SB struct sb json;
    sb_init(&json, 0);
    json_write(&json, v, 0);
    for (size_t i = 0; i < json.len;) {
        const uint8_t *p = (const uint8_t *)json.s + i;
        if (p[0] == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0)) { /* DEL, C1 controls and NEL */
            sb_printf(b, "\\u%04x", p[0] == 0x7f ? 0x7fu : p[1]);
            i += p[0] == 0x7f ? 1 : 2;
        } else if ((p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9)) || /* line, paragraph separator */
                   (p[0] == 0xef && ((p[1] == 0xbb && p[2] == 0xbf) || (p[1] == 0xbf && p[2] >= 0xbe)))) {
            sb_printf(b, "\\u%04x", (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u));
            i += 3;
        } else {
            sb_char(b, json.s[i++]);
        }
    }
}

static void write_text(struct sb *b, const struct val *v)
{
    if (v->kind == V_STR && is_plain(v))
        sb_add(b, v->s, v->n);
    else
        write_quoted(b, v);
}

static void write_block(struct sb *b, const struct val *v, unsigned level, bool inline_first)
{
    bool list = v->kind == V_LIST;
    for (uint32_t i = 0; i < v->n; i++) {
        if (i || !inline_first)
            for (unsigned k = 0; k < level * 2; k++)
                sb_char(b, ' ');
        const struct val *item = list ? v->list[i] : v->map[i].value;
        if (list) {
            sb_char(b, '-');
        } else {
            write_text(b, v->map[i].key);
            sb_char(b, ':');
        }
        if ((item->kind == V_LIST || item->kind == V_MAP) && item->n) {
            sb_char(b, list ? ' ' : '\n');
            write_block(b, item, level + 1, list);
        } else {
            sb_char(b, ' ');
            write_text(b, item);
            sb_char(b, '\n');
        }
    }
}

void yaml_write(struct sb *b, const struct val *v)
{
    if ((v->kind == V_LIST || v->kind == V_MAP) && v->n) {
        write_block(b, v, 0, false);
    } else {
        write_text(b, v);
        sb_char(b, '\n');
    }
}
