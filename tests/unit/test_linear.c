/* The judge of histories is judged: histories that are not linearizable must be found and shown, others let pass. */
#include "linear.h"

#include <setjmp.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static enum linear_verdict judge(const char *text, bool index, struct sb *why)
{
    struct linear_history h;
    struct err e = { 0 };
    linear_history_init(&h);
    sb_init(why, 0);
    int r = linear_parse(&h, text, "test", &e);
    if (r < 0)
        fail_msg("%s", e.text);
    enum linear_verdict v = index ? linear_check_index(&h, why) : linear_check(&h, NULL, why);
    linear_history_done(&h);
    return v;
}

static void expect(const char *text, enum linear_verdict want, const char *said)
{
    struct sb why;
    enum linear_verdict v = judge(text, false, &why);
    if (v != want || (said && !strstr(why.s, said)))
        fail_msg("verdict %d, wanted %d; %s", (int)v, (int)want, why.s);
    sb_done(&why);
}

static void expect_index(const char *text, enum linear_verdict want, const char *said)
{
    struct sb why;
    enum linear_verdict v = judge(text, true, &why);
    if (v != want || (said && !strstr(why.s, said)))
        fail_msg("verdict %d, wanted %d; %s", (int)v, (int)want, why.s);
    sb_done(&why);
}

static void what_may_be_is_let_pass(void **state)
{
    (void)state;
    expect("", LINEAR_YES, NULL);
    expect("1 0 10 write a x ok\n2 5 8 read a - ok\n3 5 8 read a x ok\n2 11 12 read a x ok\n", LINEAR_YES, NULL);
    /* two at once: either order */
    expect("1 0 10 write a x ok\n2 0 10 write a y ok\n3 11 12 read a x ok\n", LINEAR_YES, NULL);
    /* an unknown write shows itself late, or never */
    expect("1 0 - write a x unknown\n2 5 6 read a - ok\n2 500 600 read a x ok\n", LINEAR_YES, NULL);
    expect("1 0 - write a x unknown\n2 500 600 read a - ok\n", LINEAR_YES, NULL);
    /* a refusal owed to an unknown write that nobody read */
    expect("1 0 1 write a x ok\n2 2 - write a y unknown\n3 5 6 cas a x z refused\n", LINEAR_YES, NULL);
    expect("1 0 1 write a x ok\n1 2 3 cas a x y ok\n2 2 4 cas a x z refused\n1 5 6 read a y ok\n", LINEAR_YES, NULL);
    /* keys are on their own */
    expect("1 0 1 write a x ok\n1 2 3 write b y ok\n2 4 5 read b y ok\n2 6 7 read a x ok\n", LINEAR_YES, NULL);
}

static void a_stale_read_is_found(void **state)
{
    (void)state;
    expect("1 0 1 write a x ok\n1 2 3 write a y ok\n2 4 5 read a x ok\n", LINEAR_NO, "key a is not linearizable");
    /* time went back between two readers of a write under way */
    expect("1 0 1 write a x ok\n1 2 30 write a y ok\n2 4 5 read a y ok\n3 6 7 read a x ok\n", LINEAR_NO, "line 4");
    expect("1 0 1 write a x ok\n2 2 3 read a - ok\n", LINEAR_NO, NULL);
}

static void a_lost_write_is_found(void **state)
{
    (void)state;
    expect("1 0 1 cas a - x ok\n1 2 3 cas a x y ok\n2 4 5 cas a x z ok\n", LINEAR_NO, NULL);
    expect("1 0 1 write a x ok\n1 2 3 write a y ok\n2 9 9 read a x ok\n3 10 11 read a x ok\n", LINEAR_NO, NULL);
    /* a write that was certainly not done is read */
    expect("1 0 1 write a x failed\n2 2 3 read a x ok\n", LINEAR_NO, NULL);
    /* refused without a reason */
    expect("1 0 1 write a x ok\n2 2 3 cas a x y refused\n", LINEAR_NO, NULL);
}

static void a_split_brain_is_found(void **state)
{
    (void)state;
    /* both halves take a write on top of the same state */
    expect("1 0 1 write a x ok\n"
           "1 2 9 cas a x left ok\n2 2 9 cas a x right ok\n", LINEAR_NO, NULL);
    expect("1 0 1 write a x ok\n"
           "1 2 3 write a l1 ok\n2 2 3 write a r1 ok\n"
           "1 4 5 read a l1 ok\n2 4 5 read a r1 ok\n", LINEAR_NO, NULL);
}

/* Many good operations around a bad one: what is shown is the bad one. */
static void a_counter_example_is_short(void **state)
{
    (void)state;
    struct sb text, why;
    sb_init(&text, 0);
    for (int i = 0; i < 200; i++) {
        sb_printf(&text, "1 %d %d cas a %s%d v%d ok\n", 10 * i, 10 * i + 4, i ? "v" : "-", i, i + 1);
        if (!i) {
            sb_reset(&text);
            sb_str(&text, "1 0 4 cas a - v1 ok\n");
        }
        for (int c = 2; c < 5; c++)
            sb_printf(&text, "%d %d %d read a v%d ok\n", c, 10 * i + 5, 10 * i + 8, i + 1);
        if (i == 120)
            sb_printf(&text, "9 %d %d read a v%d ok\n", 10 * i + 5, 10 * i + 8, i); /* the one before */
    }
    assert_int_equal(judge(text.s, false, &why), LINEAR_NO);
    assert_non_null(strstr(why.s, "read a v120 ok"));
    unsigned lines = 0;
    for (const char *p = why.s; (p = strstr(p, "  line ")); p++)
        lines++;
    assert_in_range(lines, 2, 4);
    sb_done(&why);
    sb_done(&text);
}

static void places_in_the_log_are_held_to(void **state)
{
    (void)state;
    expect_index("1 0 1 write a x ok 5\n2 2 3 read a x ok 5\n2 4 5 read a x ok 9\n1 6 7 cas a x y ok 10\n"
                 "3 6 9 read a x ok 9\n3 10 11 cas a x z refused 12\n", LINEAR_YES, NULL);
    /* a reader that is told of an older place than one that had ended */
    expect_index("1 0 1 write a x ok 5\n1 2 3 write b y ok 6\n2 4 5 read a x ok 5\n", LINEAR_NO, "before it in the log");
    expect_index("1 0 1 write a x ok 5\n1 2 3 write a y ok 6\n2 2 5 read a x ok 7\n", LINEAR_NO, "did not hold");
    expect_index("1 0 1 write a x ok 5\n1 2 3 write a y ok 5\n", LINEAR_NO, NULL);
    expect_index("1 0 9 write a x ok 5\n1 2 9 write a y ok 5\n", LINEAR_NO, "two writes");
    expect_index("1 0 9 write a x ok 5\n1 2 9 cas a y z ok 6\n", LINEAR_NO, "not as expected");
    expect_index("1 0 9 write a x ok 5\n1 2 9 cas a x z refused 6\n", LINEAR_NO, "refused");
    /* an unknown write explains a value once, not before it began, and not twice */
    expect_index("1 0 1 write a x ok 5\n1 2 - cas a x y unknown\n2 4 5 read a y ok 7\n", LINEAR_YES, NULL);
    expect_index("1 0 1 write a x ok 5\n1 6 - cas a x y unknown\n2 4 5 read a y ok 7\n", LINEAR_NO, NULL);
    expect_index("1 0 1 write a x ok 5\n1 2 - write a y unknown\n2 4 5 read a y ok 7\n1 6 7 write a z ok 8\n"
                 "2 8 9 read a y ok 9\n", LINEAR_NO, NULL);
    expect_index("1 0 1 write a x ok 5\n1 6 - write a y unknown\n2 8 9 cas a x z refused 7\n", LINEAR_YES, NULL);
}

/* Histories of a register that works, with clients that overlap and calls that end unknown; then one answer is changed. */
struct made {
    struct linear_history h;
    struct rng rng;
};

static void make(struct made *m, uint64_t seed, unsigned n)
{
    linear_history_init(&m->h);
    rng_init(&m->rng, seed);
    int64_t free_at[6] = { 0 }, at = 0;
    uint32_t value = 0, key = linear_key(&m->h, "k");
    uint64_t index = 1;
    for (unsigned i = 0; i < n; i++) {
        char name[32];
        unsigned c = (unsigned)rng_range(&m->rng, 0, 5);
        at = MAX(at, free_at[c]) + (int64_t)rng_range(&m->rng, 1, 20); /* the moment it takes effect */
        snprintf(name, sizeof name, "v%u", i);
        struct linear_op op = { .client = c, .key = key, .start = MAX(free_at[c] + 1, at - (int64_t)rng_range(&m->rng, 0, 30)),
                                .end = at + (int64_t)rng_range(&m->rng, 0, 30), .value = value };
        unsigned what = (unsigned)rng_range(&m->rng, 0, 9);
        op.kind = what < 5 ? LINEAR_READ : what < 7 ? LINEAR_WRITE : LINEAR_CAS;
        if (op.kind != LINEAR_READ) {
            op.value = linear_value(&m->h, name);
            op.expected = what == 9 ? linear_value(&m->h, "never") : value;
            if (op.kind == LINEAR_CAS && what == 9) {
                op.outcome = LINEAR_REFUSED;
            } else {
                value = op.value;
                index++;
            }
            if (rng_range(&m->rng, 0, 9) == 0)
                op.outcome = LINEAR_UNKNOWN;
        }
        op.index = op.outcome == LINEAR_UNKNOWN ? 0 : index;
        free_at[c] = op.end + 1;
        linear_add(&m->h, &op);
    }
}

static void made_histories_pass_and_changed_ones_do_not(void **state)
{
    (void)state;
    unsigned found = 0, changed = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct made m;
        struct sb why;
        make(&m, seed, 120);
        sb_init(&why, 0);
        if (linear_check(&m.h, NULL, &why) != LINEAR_YES || linear_check_index(&m.h, &why) != LINEAR_YES)
            fail_msg("seed %llu: %s", (unsigned long long)seed, why.s);
        /* a reader in the second half is given a value that was overwritten before the last answer in the first */
        uint32_t old = 0, i = 0;
        for (; i < m.h.n / 3; i++)
            if (m.h.ops[i].kind == LINEAR_WRITE && m.h.ops[i].outcome == LINEAR_OK)
                old = m.h.ops[i].value;
        for (i = m.h.n * 2 / 3; i < m.h.n && m.h.ops[i].kind != LINEAR_READ; i++)
            ;
        if (i < m.h.n && old && m.h.ops[i].value != old) {
            m.h.ops[i].value = old;
            changed++;
            found += linear_check(&m.h, NULL, &why) == LINEAR_NO && linear_check_index(&m.h, &why) == LINEAR_NO;
        }
        sb_done(&why);
        linear_history_done(&m.h);
    }
    assert_true(changed > 30);
    assert_int_equal(found, changed);
}

static void a_long_history_is_judged_by_its_places(void **state)
{
    (void)state;
    struct made m;
    struct sb why;
    make(&m, 7, 200000);
    sb_init(&why, 0);
    assert_int_equal(linear_check_index(&m.h, &why), LINEAR_YES);
    sb_done(&why);
    linear_history_done(&m.h);
}

static void bad_lines_are_named(void **state)
{
    (void)state;
    static const char *const bad[] = { "1 0 1 write a x", "1 5 1 read a x ok", "1 0 - read a x ok", "1 0 1 read a x refused",
                                       "1 0 1 cas a x ok", "x 0 1 read a x ok", "1 0 1 read a x ok 5 6", "1 0 1 jump a x ok" };
    for (size_t i = 0; i < ARRAY_N(bad); i++) {
        struct linear_history h;
        struct err e = { 0 };
        AUTO_FREE char *text = xasprintf("# a comment\n\n%s\n", bad[i]);
        linear_history_init(&h);
        assert_int_equal(linear_parse(&h, text, "file", &e), -E_INVALID);
        assert_non_null(strstr(e.text, "file:3:"));
        linear_history_done(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_may_be_is_let_pass),
        cmocka_unit_test(a_stale_read_is_found),
        cmocka_unit_test(a_lost_write_is_found),
        cmocka_unit_test(a_split_brain_is_found),
        cmocka_unit_test(a_counter_example_is_short),
        cmocka_unit_test(places_in_the_log_are_held_to),
        cmocka_unit_test(made_histories_pass_and_changed_ones_do_not),
        cmocka_unit_test(a_long_history_is_judged_by_its_places),
        cmocka_unit_test(bad_lines_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
