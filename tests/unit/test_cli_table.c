/* What is printed: tables, JSON lines, sizes, ages, durations; and what streams are cut into. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/cli/cli.h"
#include <shoal/base/file.h>

static char *printed(const struct table *t, void (*print)(const struct table *t, FILE *f))
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    print(t, f);
    fclose(f);
    return text;
}

static void tables_are_aligned_as_docker_does(void **state)
{
    static const struct column cols[] = { { "ID", "ID", false }, { NULL, "Self", true }, { "NAME", "Name", false },
                                          { "STATE", "State", false } };
    struct table t;
    table_init(&t, cols, ARRAY_N(cols));
    char *text = printed(&t, table_print);
    assert_string_equal(text, "ID        NAME      STATE\n");
    free(text);
    static const char *const cells[] = { "a", "true", "größe-of-it", "Ready", "bcdefghij", "false", "x\033[2Jy", NULL };
    for (unsigned i = 0; i < ARRAY_N(cells); i++)
        table_add(&t, cells[i]);
    text = printed(&t, table_print);
    assert_string_equal(text, "ID          NAME          STATE\n"
                              "a           größe-of-it   Ready\n"
                              "bcdefghij   x [2Jy        \n"); /* no escape sequence reaches the terminal */
    free(text);
    text = printed(&t, table_json);
    assert_string_equal(text, "{\"ID\":\"a\",\"Name\":\"größe-of-it\",\"Self\":true,\"State\":\"Ready\"}\n"
                              "{\"ID\":\"bcdefghij\",\"Name\":\"x\\u001b[2Jy\",\"Self\":false,\"State\":\"\"}\n");
    free(text);
    table_done(&t);
}

static void sizes(void **state)
{
    static const struct { int64_t n; bool binary; const char *want; } cases[] = {
        { 0, false, "0B" }, { 999, false, "999B" }, { 1500000, false, "1.5MB" }, { 187654321, false, "188MB" },
        { 1536, true, "1.5KiB" }, { INT64_C(16777216000), true, "15.62GiB" },
    };
    for (unsigned i = 0; i < ARRAY_N(cases); i++) {
        char out[32];
        units_bytes(out, cases[i].n, cases[i].binary);
        assert_string_equal(out, cases[i].want);
    }
}

static void ages_and_durations(void **state)
{
    static const struct { int64_t s; const char *want; } ages[] = {
        { 0, "Less than a second" }, { 1, "1 second" }, { 59, "59 seconds" }, { 60, "About a minute" },
        { 119, "About a minute" }, { 180, "3 minutes" }, { 3600, "About an hour" }, { 7200, "2 hours" },
        { 86400 * 3, "3 days" }, { 86400 * 20, "2 weeks" }, { 86400 * 100, "3 months" }, { 86400 * 800, "2 years" },
    };
    static const struct { int64_t ns; const char *want; } durations[] = {
        { 0, "0s" }, { 10 * SEC_NS, "10s" }, { 90 * SEC_NS, "1m30s" }, { 3600 * SEC_NS, "1h0m0s" },
        { 1500 * MS_NS, "1.5s" }, { 250 * MS_NS, "250ms" }, { 1500, "1.5us" }, { 7, "7ns" }, { -SEC_NS, "-1s" },
    };
    char out[64];
    for (unsigned i = 0; i < ARRAY_N(ages); i++) {
        units_ago(out, ages[i].s * SEC_NS);
        assert_string_equal(out, ages[i].want);
    }
    for (unsigned i = 0; i < ARRAY_N(durations); i++) {
        units_duration(out, durations[i].ns);
        assert_string_equal(out, durations[i].want);
    }
    int64_t now;
    assert_int_equal(time_parse("2026-11-24T12:00:00Z", &now), 0);
    units_ago_since(out, now, "2026-11-24T11:57:00.5Z");
    assert_string_equal(out, "2 minutes ago");
    units_ago_since(out, now, "0001-01-01T00:00:00Z");
    assert_string_equal(out, "");
}

static void times_of_flags(void **state)
{
    int64_t now;
    char out[48];
    assert_int_equal(time_parse("2026-11-24T12:00:00Z", &now), 0);
    assert_int_equal(units_time_flag("42m", now, out), 0);
    assert_string_equal(out, "1795519080.000000000");
    assert_int_equal(units_time_flag("2026-11-24T11:18:00Z", now, out), 0);
    assert_string_equal(out, "1795519080.000000000");
    assert_int_equal(units_time_flag("2026-11-24T11:18:00", now, out), 0);
    assert_string_equal(out, "1795519080.000000000");
    assert_int_equal(units_time_flag("2026-11-24", now, out), 0);
    assert_string_equal(out, "1795478400.000000000");
    assert_int_equal(units_time_flag("1795519080.5", now, out), 0);
    assert_string_equal(out, "1795519080.5");
    assert_int_equal(units_time_flag("yesterday", now, out), -E_INVALID);
}

static int collect(void *arg, int stream, const char *p, size_t size, struct err *e)
{
    sb_printf(arg, "%d<%.*s>", stream, (int)size, p);
    return 0;
}

static void frames_in_any_pieces(void **state)
{
    static const char bytes[] = "\1\0\0\0\0\0\0\5hello\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0\3err";
    for (size_t piece = 1; piece < sizeof bytes; piece++) {
        struct frames f = { 0 };
        struct sb out;
        struct err e;
        sb_init(&f.buf, 0);
        sb_init(&out, 0);
        for (size_t at = 0; at < sizeof bytes - 1; at += piece)
            assert_int_equal(frames_take(&f, bytes + at, MIN(piece, sizeof bytes - 1 - at), collect, &out, &e), 0);
        assert_string_equal(out.s, "1<hello>2<>2<err>");
        sb_done(&out);
        sb_done(&f.buf);
    }
    struct frames f = { 0 };
    struct err e;
    sb_init(&f.buf, 0);
    assert_int_equal(frames_take(&f, "HTTP/1.1", 8, collect, NULL, &e), -E_CORRUPT);
    sb_reset(&f.buf);
    assert_int_equal(frames_take(&f, "\1\0\0\0\377\377\377\377", 8, collect, NULL, &e), -E_CORRUPT);
    sb_done(&f.buf);
}

static int feed(const char *text, char **out, struct err *e)
{
    size_t size;
    struct err last;
    struct progress p = { .out = open_memstream(out, &size) };
    int rc = 0;
    for (const char *s = text; rc == 0 && *s; s++)
        rc = progress_data(&p, s, 1, e);
    int end = progress_end(&p, &last);
    if (rc == 0 && end < 0) {
        *e = last;
        rc = end;
    }
    fclose(p.out);
    return rc;
}

static void progress_lines(void **state)
{
    struct err e;
    char *out = NULL;
    assert_int_equal(feed("{\"status\":\"Pulling\",\"id\":\"ab\"}\r\n{\"status\":\"Downloading\",\"id\":\"ab\"}\r\n"
                          "{\"status\":\"Downloading\",\"id\":\"ab\"}\n{\"stream\":\"Loaded image: a:1\\n\"}", &out, &e), 0);
    assert_string_equal(out, "ab: Pulling\nab: Downloading\nLoaded image: a:1\n");
    free(out);
    assert_int_equal(feed("{\"status\":\"x\"}\n{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}", &out,
                          &e), -E_IO);
    assert_string_equal(e.text, "no space");
    assert_string_equal(out, "x\n");
    free(out);
    assert_int_equal(feed("<html>\n", &out, &e), -E_INVALID);
    free(out);
}

static void ports_of_services(void **state)
{
    static const char json[] =
        "[{\"Protocol\":\"tcp\",\"TargetPort\":81,\"PublishedPort\":8001,\"PublishMode\":\"ingress\"},"
        "{\"Protocol\":\"tcp\",\"TargetPort\":80,\"PublishedPort\":8000,\"PublishMode\":\"ingress\"},"
        "{\"Protocol\":\"udp\",\"TargetPort\":53,\"PublishedPort\":5353,\"PublishMode\":\"host\"},"
        "{\"Protocol\":\"udp\",\"TargetPort\":82,\"PublishedPort\":9000,\"PublishMode\":\"ingress\"}]";
    struct val_doc *d;
    struct err e;
    struct sb b;
    sb_init(&b, 0);
    assert_int_equal(json_parse(&d, json, sizeof json - 1, "test", &e), 0);
    ports_text(&b, val_root(d));
    assert_string_equal(b.s, "*:8000-8001->80-81/tcp, *:9000->82/udp");
    sb_done(&b);
    val_doc_free(d);
}

static void pretty_is_for_people(void **state)
{
    static const char json[] = "{\"Name\":\"web\",\"Empty\":[],\"MemoryBytes\":33554432,\"Delay\":1500000000,\"Nets\":["
                               "{\"Target\":\"a\",\"Aliases\":[\"x\\u001b\"]},{\"Target\":\"b\"}],\"Args\":[\"-v\"]}";
    struct val_doc *d;
    struct err e;
    char *text = NULL;
    size_t size;
    assert_int_equal(json_parse(&d, json, sizeof json - 1, "test", &e), 0);
    FILE *f = open_memstream(&text, &size);
    format_pretty(f, val_root(d), 0);
    fclose(f);
    assert_string_equal(text, "Name: web\nMemoryBytes: 33554432 (32MiB)\nDelay: 1500000000 (1.5s)\nNets:\n"
                              "  - Target: a\n    Aliases:\n      - x \n  - Target: b\nArgs:\n  - -v\n");
    free(text);
    val_doc_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_aligned_as_docker_does), cmocka_unit_test(sizes),
        cmocka_unit_test(ages_and_durations),                cmocka_unit_test(times_of_flags),
        cmocka_unit_test(frames_in_any_pieces),              cmocka_unit_test(progress_lines),
        cmocka_unit_test(ports_of_services),                 cmocka_unit_test(pretty_is_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
