/* Variables in Compose files, `.env` and env files; and the parsers the CLI shares. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <shoal/stack.h>

static const char *const environ_pairs[] = { "SET=value", "EMPTY=", "N=3", "TAG=1.2", "=odd", "noise", NULL };

static int load(const char *dotenv, const char *text, struct stack *ret, struct err *e)
{
    struct stack_source file = { "web.yaml", text, strlen(text) };
    struct stack_source env = { ".env", dotenv ? dotenv : "", dotenv ? strlen(dotenv) : 0 };
    struct stack_input in = { .name = "st", .dir = "/proj", .files = &file, .n_files = 1,
                              .dotenv = dotenv ? &env : NULL, .environ_pairs = environ_pairs };
    return stack_load(&in, ret, e);
}

/* The value of hostname: after interpolation, or the error. Heap. */
static char *value_of(const char *dotenv, const char *value)
{
    struct stack s;
    struct err e = { 0 };
    AUTO_FREE char *text = xasprintf("services:\n  a:\n    image: i\n    working_dir: '%s'\n", value);
    if (load(dotenv, text, &s, &e) < 0)
        return xstrdup(e.text);
    char *r = xstrdup(s.services.v[0].task.container->dir);
    stack_free(&s);
    return r ? r : xstrdup("");
}

static void test_forms(void **state)
{
    static const char *const cases[][2] = {
        { "$SET", "value" }, { "${SET}", "value" }, { "a$SET.b", "avalue.b" }, { "$$SET", "$SET" },
        { "$$$$", "$$" }, { "${SET}${N}", "value3" }, { "$NONE|", "|" }, { "${NONE}", "" },
        { "${NONE:-d}", "d" }, { "${NONE-d}", "d" }, { "${EMPTY:-d}", "d" }, { "${EMPTY-d}", "" },
        { "${SET:-d}", "value" }, { "${NONE:-}", "" }, { "${SET:+x}", "x" }, { "${SET+x}", "x" },
        { "${EMPTY:+x}", "" }, { "${EMPTY+x}", "x" }, { "${NONE+x}", "" }, { "${SET:?no}", "value" },
        { "${EMPTY?no}", "" }, { "${NONE:-${SET}}", "value" }, { "${NONE:-${NONE2:-$N}}/x", "3/x" },
        { "${NONE:-a:b-c?d}", "a:b-c?d" }, { "${NONE:-$${x}}", "${x}" }, { "{{.Node.Hostname}}", "{{.Node.Hostname}}" },
    };
    for (size_t i = 0; i < ARRAY_N(cases); i++) {
        AUTO_FREE char *got = value_of(NULL, cases[i][0]);
        assert_string_equal(got, cases[i][1]);
    }
}

static void test_bad_forms(void **state)
{
#define AT "web.yaml:4: services.a.working_dir: "
    static const char *const cases[][2] = {
        { "${SET", AT "\"${SET\" has no closing brace; write $$ for a dollar sign" },
        { "5$", AT "\"$\" names no variable; write $$ for a dollar sign" },
        { "$5", AT "\"$5\" names no variable; write $$ for a dollar sign" },
        { "${}", AT "\"${}\" names no variable; write $$ for a dollar sign" },
        { "${SET!x}", AT "\"${SET!x}\" is not ${NAME}, ${NAME:-default}, ${NAME:?text} or ${NAME:+text}; "
                         "write $$ for a dollar sign" },
        { "${NONE:?set it in .env}", AT "the variable NONE is required: set it in .env" },
        { "${NONE?}", AT "the variable NONE is required" },
        { "${EMPTY:?$SET}", AT "the variable EMPTY is required: value" },
    };
    for (size_t i = 0; i < ARRAY_N(cases); i++) {
        AUTO_FREE char *got = value_of(NULL, cases[i][0]);
        assert_string_equal(got, cases[i][1]);
    }
}

static void test_bounded(void **state)
{
    struct stack s;
    struct err e = { 0 };
    AUTO_SB struct sb text;
    sb_init(&text, 0);
    sb_str(&text, "services:\n  a:\n    image: '");
    for (int i = 0; i < 20; i++)
        sb_str(&text, "${NONE:-");
    for (int i = 0; i < 20; i++)
        sb_char(&text, '}');
    sb_str(&text, "'\n");
    assert_int_equal(load(NULL, text.s, &s, &e), -E_INVALID);
    assert_string_equal(e.text, "web.yaml:3: services.a.image: variables are nested more than 16 deep");
}

static void test_once_through_anchors(void **state)
{
    struct stack s;
    struct err e = { 0 };
    static const char text[] =
        "x-env: &e\n  PRICE: $$$$5\nservices:\n  a: {image: i, environment: *e}\n"
        "  b: {image: i, environment: {<<: *e, Q: $NONE}}\n";
    assert_int_equal(load(NULL, text, &s, &e), 0);
    assert_string_equal(s.services.v[0].task.container->env.v[0], "PRICE=$$5");
    assert_string_equal(s.services.v[1].task.container->env.v[0], "PRICE=$$5");
    assert_int_equal(s.unset.n, 1);
    assert_string_equal(s.unset.v[0], "NONE");
    stack_free(&s);
}

static void test_dotenv(void **state)
{
    static const char dotenv[] =
        "\xef\xbb\xbf# comment\nA=1\n\nexport B = two # rest\nC='$SET # x'\nD=\"$A\\n\\$x\"\nE=${A}b\r\nSET=other\n"
        "F=x#y\nG=\nH=\"two\nlines\"\nI=last";
    static const char *const cases[][2] = {
        { "$A", "1" }, { "$B", "two" }, { "${C}", "$SET # x" }, { "$E", "1b" }, { "$SET", "value" },
        { "$F", "x#y" }, { "[$G]", "[]" }, { "$I", "last" },
    };
    for (size_t i = 0; i < ARRAY_N(cases); i++) {
        AUTO_FREE char *got = value_of(dotenv, cases[i][0]);
        assert_string_equal(got, cases[i][1]);
    }
    AUTO_FREE char *d = value_of(dotenv, "$D"), *h = value_of(dotenv, "$H");
    assert_string_equal(d, "1\n$x");
    assert_string_equal(h, "two\nlines");
    AUTO_FREE char *e1 = value_of("A=1\n=2\n", "x"), *e2 = value_of("A='1\n", "x"),
                   *e3 = value_of("A B=1", "x"), *e4 = value_of("\nA=\"x\" y", "x"),
                   *e5 = value_of("A=${B:?need}\n", "x");
    assert_string_equal(e1, ".env:2: there is no name before '='");
    assert_string_equal(e2, ".env:1: the quote ' is not closed");
    assert_string_equal(e3, ".env:1: a variable's name must not hold blanks");
    assert_string_equal(e4, ".env:2: there is text after the closing quote");
    assert_string_equal(e5, ".env:1: the variable B is required: need");
}

static void test_raw_env_file(void **state)
{
    struct labels vars = { 0 };
    struct err e = { 0 };
    static const char text[] = "A=\"$x\" # y\nB='1'\n";
    struct stack_source src = { "e", text, strlen(text) };
    assert_int_equal(stack_env_file_parse(&src, true, NULL, &vars, &e), 0);
    assert_string_equal(labels_get(&vars, "A"), "\"$x\" # y");
    assert_string_equal(labels_get(&vars, "B"), "'1'");
    labels_clear(&vars);
}

static void test_durations(void **state)
{
    static const struct {
        const char *s;
        int64_t ns;
    } good[] = { { "0", 0 }, { "10s", 10000000000 }, { "1m30s", 90000000000 }, { "1.5h", 5400000000000 },
                 { "2h3m4.5s", 7384500000000 }, { "300ms", 300000000 }, { "7us", 7000 }, { "1ns", 1 },
                 { "0s", 0 } };
    static const char *const wrong[] = { "", "10", "s", "-1s", "1x", "1.s", "1..2s", " 1s", "1s ", "1 s",
                                         "9999999999h", "1s2", "1e3s", "99999999999999999999s" };
    int64_t ns;
    for (size_t i = 0; i < ARRAY_N(good); i++) {
        assert_int_equal(stack_duration_ns(good[i].s, &ns), 0);
        assert_int_equal(ns, good[i].ns);
    }
    for (size_t i = 0; i < ARRAY_N(wrong); i++)
        if (stack_duration_ns(wrong[i], &ns) == 0)
            fail_msg("%s was taken as a duration", wrong[i]);
}

static void test_sizes(void **state)
{
    static const struct {
        const char *s;
        int64_t n;
    } good[] = { { "0", 0 }, { "4096", 4096 }, { "512m", 512 << 20 }, { "1.5g", INT64_C(3) << 29 },
                 { "64kb", 65536 }, { "10MiB", 10 << 20 }, { "1 GB", 1 << 30 }, { "7b", 7 }, { "2T", INT64_C(2) << 40 } };
    static const char *const wrong[] = { "", "m", "-1m", "1x", "1mx", "1.m", "1mbb", "9999999p", "1bb", "1..5m" };
    int64_t n;
    for (size_t i = 0; i < ARRAY_N(good); i++) {
        assert_int_equal(stack_size_bytes(good[i].s, &n), 0);
        assert_int_equal(n, good[i].n);
    }
    for (size_t i = 0; i < ARRAY_N(wrong); i++)
        if (stack_size_bytes(wrong[i], &n) == 0)
            fail_msg("%s was taken as a size", wrong[i]);
    assert_int_equal(stack_nano_cpus("0.1", &n), 0);
    assert_int_equal(n, 100000000);
    assert_int_equal(stack_nano_cpus("2", &n), 0);
    assert_int_equal(n, 2000000000);
    assert_int_equal(stack_nano_cpus("0.000000001", &n), 0);
    assert_int_equal(n, 1);
    assert_true(stack_nano_cpus("0.0000000001", &n) < 0);
    assert_true(stack_nano_cpus("1e9", &n) < 0);
    assert_true(stack_nano_cpus("-1", &n) < 0);
}

static void test_shell(void **state)
{
    static const struct {
        const char *s, *words; /* joined by | */
    } cases[] = { { "a b  c", "a|b|c" }, { "sh -c 'x  y'", "sh|-c|x  y" }, { "a\\ b \"c d\"e", "a b|c de" },
                  { "\"a\\\"b\" '' x", "a\"b||x" }, { "", "" }, { "  ", "" }, { "'a\\b'", "a\\b" },
                  { "\"a\\x\"", "a\\x" } };
    for (size_t i = 0; i < ARRAY_N(cases); i++) {
        struct strs w = { 0 };
        AUTO_SB struct sb text;
        sb_init(&text, 0);
        assert_int_equal(stack_shell_split(cases[i].s, &w), 0);
        for (uint32_t k = 0; k < w.n; k++)
            sb_printf(&text, "%s%s", k ? "|" : "", w.v[k]);
        assert_string_equal(text.s, cases[i].words);
        strs_clear(&w);
    }
    struct strs w = { 0 };
    assert_int_equal(stack_shell_split("a 'b", &w), -E_INVALID);
    assert_int_equal(stack_shell_split("a \\", &w), -E_INVALID);
    assert_int_equal(w.n, 0);
}

static void test_port_parse(void **state)
{
    struct endpoint_spec ep = { 0 };
    struct rec_list *l = (struct rec_list *)(void *)&ep.ports;
    struct err e = { 0 };
    assert_int_equal(stack_port_parse("80", l, &e), 0);
    assert_int_equal(stack_port_parse("8080:80/UDP", l, &e), 0);
    assert_int_equal(stack_port_parse("9000-9001:90-91", l, &e), 0);
    assert_int_equal(ep.ports.n, 4);
    assert_int_equal(ep.ports.v[0].target, 80);
    assert_int_equal(ep.ports.v[0].published, 0);
    assert_int_equal(ep.ports.v[1].protocol, PROTO_UDP);
    assert_int_equal(ep.ports.v[1].published, 8080);
    assert_int_equal(ep.ports.v[3].target, 91);
    assert_int_equal(ep.ports.v[3].published, 9001);
    endpoint_spec_clear(&ep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),     cmocka_unit_test(test_bad_forms),
        cmocka_unit_test(test_bounded),   cmocka_unit_test(test_once_through_anchors),
        cmocka_unit_test(test_dotenv),    cmocka_unit_test(test_raw_env_file),
        cmocka_unit_test(test_durations), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_shell),     cmocka_unit_test(test_port_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
