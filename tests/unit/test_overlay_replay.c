/* Replay window: each counter once, old ones never, checked against a plain set under random order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>

#include "../../overlay/replay.h"

static void each_counter_once(void **state)
{
    (void)state;
    struct replay r;
    replay_init(&r);
    for (uint64_t i = 0; i < 20000; i++) {
        assert_true(replay_is_newest(&r, i));
        assert_true(replay_accept(&r, i));
        assert_false(replay_is_newest(&r, i));
        assert_false(replay_accept(&r, i));
    }
}

static void window_edges(void **state)
{
    (void)state;
    struct replay r;
    const uint64_t top = UINT64_C(1) << 40;
    replay_init(&r);
    assert_true(replay_accept(&r, top));
    assert_false(replay_accept(&r, top - REPLAY_WINDOW));
    assert_true(replay_accept(&r, top - REPLAY_WINDOW + 1));
    assert_false(replay_accept(&r, top - REPLAY_WINDOW + 1));
    assert_true(replay_accept(&r, top - 1));
    assert_true(replay_accept(&r, top + REPLAY_WINDOW));
    assert_false(replay_accept(&r, top));
    assert_false(replay_accept(&r, 0));
    assert_true(replay_accept(&r, UINT64_MAX - 1));
    assert_false(replay_accept(&r, UINT64_MAX));
    assert_false(replay_accept(&r, UINT64_MAX - 1));
}

/* First packet far from 0, so that the ring's words have no history. */
static void first_is_high(void **state)
{
    (void)state;
    struct replay r;
    replay_init(&r);
    assert_true(replay_accept(&r, 3000));
    for (uint64_t i = 0; i < 3000; i++)
        assert_true(replay_accept(&r, i));
    for (uint64_t i = 0; i <= 3000; i++)
        assert_false(replay_accept(&r, i));
}

static void random_order_like_a_set(void **state)
{
    (void)state;
    enum { N = 400000 };
    uint8_t *seen = xcalloc(N, 1);
    struct replay r;
    struct rng g;
    uint64_t highest = 0, base = 0;
    bool any = false;
    unsigned n_true = 0, n_false = 0;
    rng_init(&g, 7);
    replay_init(&r);
    while (base + 60000 < N) {
        base += rng_chance(&g, 3) ? rng_below(&g, 20000) : rng_below(&g, 4);
        uint64_t c = base + rng_below(&g, 12000);
        bool old = any && c < highest && highest - c >= REPLAY_WINDOW;
        bool want = !old && !seen[c];
        assert_int_equal(replay_accept(&r, c), want);
        n_true += want;
        n_false += !want;
        seen[c] = 1;
        highest = any ? MAX(highest, c) : c;
        any = true;
    }
    assert_true(n_true > 100 && n_false > 100);
    free(seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_counter_once),
        cmocka_unit_test(window_edges),
        cmocka_unit_test(first_is_high),
        cmocka_unit_test(random_order_like_a_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
