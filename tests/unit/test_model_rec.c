/* The record engine, held against a table of its own that has every kind of row and every flag. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <shoal/base/file.h>
#include <shoal/base/mp.h>
#include <shoal/model/rec.h>
#include <shoal/model/service.h>

static const char *const color_names[] = { "red", "green", "blue", NULL };

static const char *check_lower(const char *s)
{
    for (; *s; s++)
        if (*s >= 'A' && *s <= 'Z')
            return "must be lower case";
    return NULL;
}

#define leaf_FIELDS(X, T)                                                             \
    X(T, STR, name, _, 1, "Name", "", .min = 1, .max = 8, .check = check_lower)       \
    X(T, UINT, port, _, 2, "Port", "", .min = 1, .max = 65535)
REC_DECLARE(leaf)
#define nothing_FIELDS(X, T) X(T, BOOL, unused, _, 1, "\x01", "")
REC_DECLARE(nothing)
#define part_FIELDS(X, T)                                     \
    X(T, INT, level, _, 1, "Level", "", .min = -5, .max = 5)  \
    X(T, STR, live, _, 2, "Live", "", .max = 20, .flags = F_LIVE)
REC_DECLARE(part)
/* Tags are out of order on purpose. */
#define all_FIELDS(X, T)                                                                        \
    X(T, BOOL, flag, _, 3, "Flag", "")                                                          \
    X(T, INT, any, _, 1, "Any", "")                                                             \
    X(T, UINT, big, _, 2, "Big", "")                                                            \
    X(T, REAL, ratio, _, 4, "Ratio", "")                                                        \
    X(T, TIME, when, _, 5, "When", "", .flags = F_ALWAYS)                                       \
    X(T, STR, text, _, 6, "Text", "", .max = 16, .check = check_lower)                          \
    X(T, BYTES, data, _, 7, "Data", "", .max = 32)                                              \
    X(T, ENUM, color, _, 8, "Color", "", .names = color_names)                                  \
    X(T, STRS, args, _, 9, "Args", "", .max = 4, .check = check_lower)                          \
    X(T, LABELS, labels, _, 10, "Labels", "", .max = 4)                                         \
    X(T, REC, part, part, 11, "Part", "")                                                       \
    X(T, OPT, extra, part, 12, "Extra", "")                                                     \
    X(T, LIST, leaves, leaf, 13, "Leaves", "", .max = 3)                                        \
    X(T, OPT, present, nothing, 14, "Present", "")                                              \
    X(T, BYTES, secret, _, 15, "Secret", "", .max = 32, .flags = F_SECRET)                      \
    X(T, STR, unbuilt, _, 16, "Unbuilt", "", .max = 16, .flags = F_UNBUILT)                     \
    X(T, OPT, unbuilt_opt, nothing, 17, "UnbuiltOpt", "", .flags = F_UNBUILT)                   \
    X(T, UINT, local, _, 18, "Local", "", .flags = F_LOCAL)                                     \
    X(T, STR, opaque, _, 19, "Opaque", "", .max = 4, .flags = F_OPAQUE)                         \
    X(T, STR, fixed, _, 20, "Fixed", "", .max = 16, .flags = F_FIXED | F_ALWAYS)                \
    X(T, LIST, shown, leaf, 21, "Shown", "", .max = 3, .flags = F_ALWAYS)                       \
    X(T, LABELS, shown_labels, _, 22, "ShownLabels", "", .max = 3, .flags = F_ALWAYS)           \
    X(T, OPT, shown_opt, part, 23, "ShownOpt", "", .flags = F_ALWAYS)
REC_DECLARE(all)
REC_DEFINE(leaf)
REC_DEFINE(nothing)
REC_DEFINE(part)
REC_DEFINE(all)

static void fill(struct all *a)
{
    *a = (struct all){ .flag = true, .any = -7, .big = UINT64_MAX, .ratio = 0.25,
                       .when = INT64_C(1700000000123456789), .color = 2, .local = 9 };
    str_set(&a->text, "h\xc3\xa9llo");
    a->data = (struct bytes){ xmemdup("\0\1\377", 3), 3 };
    strs_add(&a->args, "one");
    strs_add(&a->args, "");
    labels_set(&a->labels, "b", "2");
    labels_set(&a->labels, "a", "1");
    labels_set(&a->labels, "b", "3");
    a->part.level = -5;
    a->extra = xnew(struct part);
    str_set(&a->extra->live, "x");
    for (unsigned i = 0; i < 2; i++) {
        struct leaf *l = REC_ADD(&a->leaves);
        str_set(&l->name, i ? "two" : "one");
        l->port = 80 + i;
    }
    a->present = xnew(struct nothing);
    a->secret = (struct bytes){ xmemdup("hush", 4), 4 };
}

static void pack(const struct all *a, struct sb *b)
{
    sb_init(b, 0);
    rec_pack(&all_rec, a, b);
}

static void test_mp_round_trip(void **state)
{
    struct all a, b = { 0 };
    AUTO_SB struct sb p, q;
    struct err e = { 0 };
    fill(&a);
    pack(&a, &p);
    assert_int_equal(rec_unpack(&all_rec, &b, p.s, p.len, &e), 0);
    assert_true(all_equal(&a, &b));
    assert_int_equal(b.local, 0); /* computed rows stay home */
    assert_int_equal(b.secret.n, 4);
    assert_int_equal(b.args.n, 2);
    assert_string_equal(b.args.v[1], "");
    pack(&b, &q);
    assert_int_equal(p.len, q.len);
    assert_memory_equal(p.s, q.s, p.len);
    all_clear(&a);
    all_clear(&b);
}

static void test_mp_bytes(void **state)
{
    /* ascending tags whatever the order of the rows; zero left out; empty optional kept */
    struct all a = { .flag = true, .any = 1, .big = 2 };
    AUTO_SB struct sb p;
    a.extra = xnew(struct part);
    a.text = xstrdup(""); /* empty is absent */
    pack(&a, &p);
    static const uint8_t want[] = { 0x84, 1, 1, 2, 2, 3, 0xc3, 12, 0x80 };
    assert_int_equal(p.len, sizeof want);
    assert_memory_equal(p.s, want, sizeof want);
    all_clear(&a);
}

static void unpack_fails(const void *p, size_t size, const char *text)
{
    struct all a;
    struct err e = { 0 };
    assert_int_equal(rec_unpack(&all_rec, &a, p, size, &e), -E_CORRUPT);
    assert_non_null(strstr(e.text, text));
    assert_true(rec_is_zero(&all_rec, &a));
}
#define UNPACK_FAILS(text, ...) \
    unpack_fails((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }), text)

static void test_mp_refuses(void **state)
{
    UNPACK_FAILS("all.Flag: is not true or false", 0x81, 3, 1);
    UNPACK_FAILS("all.Any: is given twice", 0x82, 1, 1, 1, 2);
    UNPACK_FAILS("all: has a tag that is not a number", 0x81, 0xa1, 'x', 1);
    UNPACK_FAILS("all: is not a record", 0x91, 1);
    UNPACK_FAILS("all.Big: is not an unsigned number", 0x81, 2, 0xff);
    UNPACK_FAILS("all.Text: holds a NUL byte", 0x81, 6, 0xa2, 'a', 0);
    UNPACK_FAILS("all.Text: is longer than its limit", 0x81, 6, 0xb1, 'a', 'a', 'a', 'a', 'a', 'a', 'a',
                 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a');
    UNPACK_FAILS("all.Color: is not one of its choices", 0x81, 8, 3);
    UNPACK_FAILS("all.Args: is not a list of strings within its limit", 0x81, 9, 0x95, 0xa0, 0xa0, 0xa0,
                 0xa0, 0xa0);
    UNPACK_FAILS("all.Labels: has its keys out of order or twice", 0x81, 10, 0x82, 0xa1, 'b', 0xa0, 0xa1,
                 'a', 0xa0);
    UNPACK_FAILS("all.Labels: has its keys out of order or twice", 0x81, 10, 0x82, 0xa1, 'a', 0xa0, 0xa1,
                 'a', 0xa0);
    UNPACK_FAILS("all.Part.Level: is outside its limits", 0x81, 11, 0x81, 1, 6);
    UNPACK_FAILS("all.Leaves: is not a list within its limit", 0x81, 13, 0x94, 0x80, 0x80, 0x80, 0x80);
    UNPACK_FAILS("all.Leaves[1].Port: is above its limit", 0x81, 13, 0x92, 0x80, 0x81, 2, 0xce, 0, 1, 0, 0);
    UNPACK_FAILS("all.Ratio: is not a finite number", 0x81, 4, 0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0);
    struct all a;
    struct err e = { 0 };
    assert_true(rec_unpack(&all_rec, &a, "\x81\x0d\xdd\xff\xff\xff\xff", 7, &e) < 0);
    assert_true(rec_unpack(&all_rec, &a, "", 0, &e) < 0);
    /* unknown tags are skipped, and so are computed rows */
    assert_int_equal(rec_unpack(&all_rec, &a, "\x83\x01\x05\x7f\x81\xa1x\x01\x12\xa1x", 11, &e), 0);
    assert_int_equal(a.any, 5);
    all_clear(&a);
}

static void test_json_round_trip(void **state)
{
    struct all a, b = { 0 };
    AUTO_SB struct sb p;
    struct err e = { 0 };
    fill(&a);
    a.big = INT64_MAX; /* more is for msgpack: the JSON reader ends there */
    sb_init(&p, 0);
    rec_to_json(&all_rec, &a, &p);
    assert_null(strstr(p.s, "Secret"));
    assert_null(strstr(p.s, "aHVzaA"));
    if (rec_from_json(&all_rec, &b, p.s, p.len, "body", &e) < 0)
        fail_msg("%s in %s", e.text, p.s);
    assert_int_equal(b.secret.n, 0);
    free(a.secret.v);
    a.secret = (struct bytes){ 0 };
    assert_true(all_equal(&a, &b));
    assert_int_equal(b.local, 9);
    assert_int_equal(b.when, INT64_C(1700000000123456789));
    all_clear(&a);
    all_clear(&b);
}

static void test_json_zero(void **state)
{
    struct all a = { 0 }, b = { 0 };
    AUTO_SB struct sb p;
    struct err e = { 0 };
    sb_init(&p, 0);
    rec_to_json(&all_rec, &a, &p);
    assert_string_equal(p.s, "{\"When\":\"0001-01-01T00:00:00Z\",\"Fixed\":\"\",\"Shown\":[],"
                             "\"ShownLabels\":{},\"ShownOpt\":null}");
    assert_int_equal(rec_from_json(&all_rec, &b, p.s, p.len, "body", &e), 0);
    assert_true(rec_is_zero(&all_rec, &b));
    assert_true(all_equal(&a, &b));
}

static void from_json(struct all *a, const char *json)
{
    struct err e = { 0 };
    *a = (struct all){ 0 };
    if (rec_from_json(&all_rec, a, json, strlen(json), "body", &e) < 0)
        fail_msg("%s: %s", json, e.text);
}

static void test_json_accepts(void **state)
{
    struct all a;
    from_json(&a, "{\"flag\":true,\"ANY\":-3,\"Big\":9223372036854775807,\"Ratio\":2,\"Text\":null,"
                  "\"Labels\":{\"z\":null,\"a\":\"1\"},\"Extra\":null,\"Present\":{},\"Color\":\"\","
                  "\"Opaque\":{\"anything\":[1]},\"Unbuilt\":\"\",\"UnbuiltOpt\":null,\"Args\":null,"
                  "\"Secret\":\"aHVzaA==\",\"Leaves\":[{\"name\":\"x\",\"port\":1}]}");
    assert_true(a.flag);
    assert_int_equal(a.any, -3);
    assert_true(a.big == INT64_MAX);
    assert_true(a.ratio == 2.0);
    assert_null(a.text);
    assert_string_equal(labels_get(&a.labels, "z"), "");
    assert_string_equal(a.labels.v[0].key, "a");
    assert_null(a.extra);
    assert_non_null(a.present);
    assert_null(a.opaque);
    assert_memory_equal(a.secret.v, "hush", 4);
    assert_string_equal(a.leaves.v[0].name, "x");
    all_clear(&a);
}

static void test_json_refuses(void **state)
{
    static const struct {
        const char *json, *text;
        int code;
    } bad[] = {
        { "[]", "the object: expected an object, found a list", E_INVALID },
        { "{\"Flag\":1}", "Flag: expected true or false, found a number", E_INVALID },
        { "{\"Any\":\"5\"}", "Any: expected a whole number, found a string", E_INVALID },
        { "{\"Any\":5.0}", "Any: expected a whole number, found a number with a fraction", E_INVALID },
        { "{\"Big\":-1}", "Big: must not be negative, found -1", E_INVALID },
        { "{\"Ratio\":\"1\"}", "Ratio: expected a number, found a string", E_INVALID },
        { "{\"When\":5}", "When: expected a time (RFC 3339 string), found a number", E_INVALID },
        { "{\"When\":\"noon\"}", "When: is not a time like 2026-11-23T15:58:03Z", E_INVALID },
        { "{\"Text\":5}", "Text: expected a string, found a number", E_INVALID },
        { "{\"Text\":\"aaaaaaaaaaaaaaaaa\"}",
          "Text: is 17 characters long, at most 16 are allowed", E_INVALID },
        { "{\"Text\":\"Big\"}", "Text: \"Big\" must be lower case", E_INVALID },
        { "{\"Data\":\"****\"}", "Data: is not base64", E_INVALID },
        { "{\"Data\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
          "Data: is longer than its limit of 32 bytes", E_TOO_BIG },
        { "{\"Color\":\"pink\"}", "Color: must be red, green or blue, found \"pink\"", E_INVALID },
        { "{\"Color\":true}", "Color: expected a string, found true or false", E_INVALID },
        { "{\"Args\":\"x\"}", "Args: expected a list of strings, found a string", E_INVALID },
        { "{\"Args\":[\"a\",2]}", "Args[1]: expected a string, found a number", E_INVALID },
        { "{\"Args\":[\"a\",\"B\"]}", "Args[1]: \"B\" must be lower case", E_INVALID },
        { "{\"Args\":[\"\",\"\",\"\",\"\",\"\"]}", "Args: has 5 elements, at most 4 are allowed",
          E_INVALID },
        { "{\"Labels\":[]}", "Labels: expected an object of strings, found a list", E_INVALID },
        { "{\"Labels\":{\"a\":1}}", "Labels.a: expected a string, found a number", E_INVALID },
        { "{\"Part\":[]}", "Part: expected an object, found a list", E_INVALID },
        { "{\"Part\":{\"Level\":6}}", "Part.Level: must be between -5 and 5, found 6", E_INVALID },
        { "{\"Extra\":7}", "Extra: expected an object, found a number", E_INVALID },
        { "{\"Leaves\":{}}", "Leaves: expected a list of objects, found an object", E_INVALID },
        { "{\"Leaves\":[{\"Name\":\"a\",\"Port\":1},{\"Name\":\"b\",\"Port\":70000}]}",
          "Leaves[1].Port: must be between 1 and 65535, found 70000", E_INVALID },
        { "{\"Leaves\":[{\"Port\":1}]}", "Leaves[0].Name: is required", E_INVALID },
        { "{\"Leaves\":[{\"Name\":\"a\"}]}", "Leaves[0].Port: is required", E_INVALID },
        { "{\"Leaves\":[null]}", "Leaves[0]: expected an object, found null", E_INVALID },
        { "{\"Part\":{\"Lvl\":6}}",
          "Part.Lvl: is not a known field; remove it or check its spelling", E_INVALID },
        { "{\"Any\":1,\"any\":2}", "Any: is given twice", E_INVALID },
        { "{\"\\u0001\":true}",
          "?: is not a known field; remove it or check its spelling", E_INVALID },
        { "{\"Unbuilt\":\"x\"}",
          "Unbuilt: is known to Docker but not built in shoal yet; remove it", E_UNSUPPORTED },
        { "{\"UnbuiltOpt\":{}}",
          "UnbuiltOpt: is known to Docker but not built in shoal yet; remove it", E_UNSUPPORTED },
    };
    for (size_t i = 0; i < ARRAY_N(bad); i++) {
        struct all a = { 0 };
        struct err e = { 0 };
        assert_int_equal(rec_from_json(&all_rec, &a, bad[i].json, strlen(bad[i].json), "body", &e),
                         -bad[i].code);
        assert_string_equal(e.text, bad[i].text);
        assert_true(rec_is_zero(&all_rec, &a));
    }
}

static void test_wide_values(void **state)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    struct all a = { 0 };
    struct err e = { 0 };
    val_set(d, v, "Big", val_uint(d, UINT64_MAX));
    assert_int_equal(rec_from_val(&all_rec, &a, v, "", &e), 0);
    assert_true(a.big == UINT64_MAX);
    val_set(d, v, "Any", val_uint(d, UINT64_MAX));
    assert_int_equal(rec_from_val(&all_rec, &a, v, "", &e), -E_INVALID);
    assert_string_equal(e.text, "Any: must be at most 9223372036854775807, found 18446744073709551615");
    val_set(d, v, "Any", val_int(d, 1));
    val_set(d, v, "Text", val_str_n(d, "a\0b", 3));
    assert_int_equal(rec_from_val(&all_rec, &a, v, "", &e), -E_INVALID);
    assert_string_equal(e.text, "Text: holds a NUL character; remove it");
    val_doc_free(d);
}

static void test_yaml_lines(void **state)
{
    static const char text[] = "Flag: true\nLeaves:\n  - Name: a\n    Port: 1\n  - Name: b\n    Port: x\n";
    struct val_doc *d = NULL;
    struct all a = { 0 };
    struct err e = { 0 };
    assert_int_equal(yaml_parse(&d, text, strlen(text), "web.yaml", &e), 0);
    assert_int_equal(rec_from_val(&all_rec, &a, val_root(d), "services.web", &e), -E_INVALID);
    assert_string_equal(e.text,
                        "services.web.Leaves[1].Port (line 6): expected a whole number, found a string");
    val_doc_free(d);
}

static void test_check(void **state)
{
    struct all a = { 0 };
    struct err e = { 0 };
    assert_int_equal(rec_check(&all_rec, &a, &e), 0);
    a.ratio = 1.0 / 0.0;
    assert_int_equal(rec_check(&all_rec, &a, &e), -E_INVALID);
    assert_string_equal(e.text, "Ratio: must be a finite number");
    a.ratio = 0;
    a.color = 7;
    assert_int_equal(rec_check(&all_rec, &a, &e), -E_INVALID);
    assert_string_equal(e.text, "Color: is choice number 7 of 3");
    a.color = 0;
    a.extra = xnew(struct part);
    a.extra->level = -6;
    assert_int_equal(rec_check(&all_rec, &a, &e), -E_INVALID);
    assert_string_equal(e.text, "Extra.Level: must be between -5 and 5, found -6");
    a.extra->level = 0;
    str_set(&a.unbuilt, "x");
    assert_int_equal(rec_check(&all_rec, &a, &e), -E_UNSUPPORTED);
    all_clear(&a);
}

static void test_copy_is_deep(void **state)
{
    struct all a, b;
    fill(&a);
    all_copy(&b, &a);
    assert_true(all_equal(&a, &b));
    assert_int_equal(b.local, 9);
    b.labels.v[0].value[0] = '9';
    assert_false(all_equal(&a, &b));
    assert_string_equal(labels_get(&a.labels, "a"), "1");
    all_clear(&a);
    assert_true(rec_is_zero(&all_rec, &a));
    assert_string_equal(b.leaves.v[1].name, "two");
    all_clear(&b);
}

static void note(void *arg, const char *path, const struct field *f)
{
    sb_printf(arg, "%s ", path);
}

static void test_diff(void **state)
{
    struct all a, b;
    AUTO_SB struct sb p;
    sb_init(&p, 0);
    fill(&a);
    all_copy(&b, &a);
    b.local = 1;
    assert_int_equal(rec_diff(&all_rec, &a, &b, 0, note, &p), 0);
    b.any++;
    labels_unset(&b.labels, "a");
    str_set(&b.extra->live, "y");
    b.leaves.v[1].port++;
    rec_list_remove((struct rec_list *)&a.leaves, &leaf_rec, 0);
    b.part.level = 0;
    nothing_clear(b.present);
    free(TAKE(b.present));
    assert_int_equal(rec_diff(&all_rec, &a, &b, 0, note, &p), 8);
    assert_string_equal(p.s, "Any Labels Part.Level Extra.Live Leaves[0].Name Leaves[0].Port Leaves "
                             "Present ");
    sb_reset(&p);
    assert_int_equal(rec_diff(&all_rec, &a, &b, F_LIVE, note, &p), 7);
    assert_null(strstr(p.s, "Live"));
    all_clear(&a);
    all_clear(&b);
}

static void test_lists(void **state)
{
    struct labels l = { 0 };
    struct strs s = { 0 };
    char *text = NULL;
    for (unsigned i = 0; i < 100; i++) {
        char key[8];
        snprintf(key, sizeof key, "%u", i * 37 % 100);
        labels_set(&l, key, "v");
    }
    assert_int_equal(l.n, 100);
    for (uint32_t i = 1; i < l.n; i++)
        assert_true(strcmp(l.v[i - 1].key, l.v[i].key) < 0);
    assert_true(labels_unset(&l, "50"));
    assert_false(labels_unset(&l, "50"));
    assert_null(labels_get(&l, "50"));
    labels_set(&l, "7", NULL);
    assert_string_equal(labels_get(&l, "7"), "");
    labels_clear(&l);
    assert_int_equal(l.n, 0);
    strs_add(&s, "a");
    assert_true(strs_has(&s, "a"));
    assert_false(strs_has(&s, "b"));
    strs_clear(&s);
    str_set(&text, "abc");
    str_set(&text, text + 1); /* from inside itself */
    assert_string_equal(text, "bc");
    str_set(&text, "");
    assert_null(text);
}

static void test_describe(void **state)
{
    AUTO_SB struct sb p;
    sb_init(&p, 0);
    rec_describe(&all_rec, &p);
    assert_non_null(strstr(p.s, "\n  Color: choice (red, green, blue)\n"));
    assert_non_null(strstr(p.s, "\n    Level: int (-5..5)\n"));
    assert_non_null(strstr(p.s, "\n  Secret: bytes (..32) [secret]\n"));
    assert_null(strchr(p.s, 1));
}

/* The real tables: tags unique and not 0, names unique without case, choices named, depth finite. */
static unsigned lint(const struct rec *t, unsigned depth)
{
    unsigned rows = t->n;
    assert_true(depth < 16 && t->n <= 64);
    for (uint32_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        assert_true(f->tag > 0 && f->name && f->doc);
        assert_true((f->kind == K_ENUM) == (f->names != NULL));
        assert_true((f->kind >= K_REC) == (f->of != NULL));
        for (uint32_t j = 0; j < i; j++) {
            assert_int_not_equal(t->fields[j].tag, f->tag);
            assert_int_not_equal(strcasecmp(t->fields[j].name, f->name), 0);
        }
        if (f->of)
            rows += lint(f->of, depth + 1);
    }
    return rows;
}

static void test_tables(void **state)
{
    assert_true(lint(&service_rec, 0) > 200);
    assert_true(lint(&all_rec, 0) > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mp_round_trip), cmocka_unit_test(test_mp_bytes),
        cmocka_unit_test(test_mp_refuses),    cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_json_zero),     cmocka_unit_test(test_json_accepts),
        cmocka_unit_test(test_json_refuses),  cmocka_unit_test(test_yaml_lines),
        cmocka_unit_test(test_wide_values),
        cmocka_unit_test(test_check),         cmocka_unit_test(test_copy_is_deep),
        cmocka_unit_test(test_diff),          cmocka_unit_test(test_lists),
        cmocka_unit_test(test_describe),      cmocka_unit_test(test_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
