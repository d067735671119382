/* Lines of container logs: quoted by sb_json_str() in steps of eight bytes, read by log_line_parse() without a tree; both
 * against plain models, the reader also on damaged lines. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <shoal/base/file.h>
#include <shoal/base/rng.h>
#include <stdio.h>
#include "runtime_internal.h"

enum { ROUNDS = 20000, TEXT_MAX = 80 };

/* Mostly plain, as logs are, with what matters strewn in; valid UTF-8. */
static size_t make_text(struct rng *g, char *out)
{
    static const char *const pieces[] = { "\"", "\\", "\n", "\t", "\r", "\x01", "\x1f", "\x7f", " ", "~", "/", "\xc3\xa4", "\xe2\x82\xac",
                                          "\xf0\x9f\x90\x9f", "\xed\x9f\xbf", "plain words ", "0123456789" };
    size_t n = 0, want = rng_below(g, TEXT_MAX - 16);
    while (n < want) {
        const char *p = pieces[rng_below(g, 4) ? ARRAY_N(pieces) - 1 - rng_below(g, 2) : rng_below(g, ARRAY_N(pieces))];
        memcpy(out + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

static void quote_plainly(struct sb *b, const char *s, size_t n)
{
    sb_char(b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *short_form = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : NULL;
        if (short_form)
            sb_str(b, short_form);
        else if (c < 0x20 || c == 0x7f)
            sb_printf(b, "\\u%04x", c);
        else
            sb_char(b, s[i]);
    }
    sb_char(b, '"');
}

static void test_quoting(void **state)
{
    struct rng g;
    char text[TEXT_MAX];
    struct sb a, b;
    (void)state;
    rng_init(&g, 1);
    sb_init(&a, 0);
    sb_init(&b, 0);
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = make_text(&g, text);
        sb_reset(&a);
        sb_reset(&b);
        sb_json_str(&a, text, n);
        quote_plainly(&b, text, n);
        assert_string_equal(a.s, b.s);
    }
    for (unsigned c = 0; c < 256; c++) /* each byte at each place of a word; alone it is no UTF-8 from 0x80 on */
        for (size_t at = 0; at < 17; at++) {
            memset(text, 'x', 17);
            text[at] = (char)c;
            sb_reset(&a);
            sb_reset(&b);
            sb_json_str(&a, text, 17);
            quote_plainly(&b, text, c < 0x80 ? 17 : at);
            if (c >= 0x80) {
                b.s[--b.len] = '\0';
                sb_str(&b, "\xef\xbf\xbd");
                sb_add(&b, text + at + 1, 16 - at);
                sb_char(&b, '"');
            }
            assert_string_equal(a.s, b.s);
        }
    sb_done(&a);
    sb_done(&b);
}

static void check_line(const char *line, size_t size, bool whole)
{
    struct log_entry a = { 0 }, b = { 0 };
    AUTO_SB struct sb x, y;
    sb_init(&x, 0);
    sb_init(&y, 0);
    bool ok = log_line_parse(line, size, &x, &a), plain = log_line_parse_json(line, size, &y, &b);
    assert_true(ok || !whole);
    assert_true(ok || !plain); /* it may read what is no UTF-8, but nothing less or else */
    for (size_t i = 0; ok && !plain && i < size; i++)
        assert_true((unsigned char)line[i] >= 0x20);
    if (!plain)
        return;
    assert_int_equal(a.size, y.len);
    assert_memory_equal(a.line, y.s, y.len);
    assert_int_equal(a.err, b.err);
    assert_int_equal(a.time_ns, b.time_ns);
}

static void test_lines(void **state)
{
    struct rng g;
    char text[TEXT_MAX], time[40];
    (void)state;
    rng_init(&g, 2);
    for (int i = 0; i < ROUNDS; i++) {
        AUTO_SB struct sb b;
        sb_init(&b, 0);
        size_t n = make_text(&g, text);
        time_format(time, (int64_t)(rng_u64(&g) >> 2));
        sb_str(&b, "{\"log\":");
        sb_json_str(&b, text, n);
        sb_printf(&b, ",\"stream\":\"std%s\",\"time\":\"%s\"}", rng_below(&g, 2) ? "out" : "err", time);
        check_line(b.s, b.len, true);
        b.s[rng_below(&g, b.len)] = (char)rng_below(&g, 128);
        check_line(b.s, b.len, false);
        b.s[rng_below(&g, b.len)] = (char)rng_below(&g, 32);
        check_line(b.s, b.len, false);
        check_line(b.s, rng_below(&g, b.len), false);
    }
    static const char other[] = "{ \"time\": \"2026-01-02T03:04:05Z\", \"attrs\": {\"a\": \"b\"}, \"log\": \"by \\u00e4 hand\\n\", \"stream\": \"stderr\" }";
    check_line(other, sizeof other - 1, true);
    check_line("", 0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_quoting), cmocka_unit_test(test_lines) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
