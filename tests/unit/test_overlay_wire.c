/* How much may wait below the tunnel: a wire that moves, one that stands, and what never goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/mem.h>

#include "../../overlay/wire.h"

enum { ROOM = WIRE_ROOM_BYTES, SLICE = 125000, GONE = 212992 /* what waits for a machine that is gone */ };

static struct wire w;
static int64_t now = 1000000;

static int setup(void **state)
{
    (void)state;
    wire_init(&w);
    return 0;
}

/* Sends whenever it may, for some time; the wire takes so much in a millisecond, and `gone` of what waits never goes. Returns
 * what was sent to others; the most that waited for the wire in *ret_most. */
static size_t run(int64_t ms, size_t *waiting, size_t per_ms, size_t gone, size_t *ret_most)
{
    size_t sent = 0;
    for (*ret_most = 0; ms; ms--, now++) {
        while (wire_has_room(&w, gone + *waiting, now) && *waiting < (size_t)64 << 20) {
            *waiting += SLICE;
            sent += SLICE;
        }
        *ret_most = MAX(*ret_most, *waiting);
        *waiting -= MIN(*waiting, per_ms);
    }
    return sent;
}

static void a_wire_that_moves_gets_no_more_than_its_room(void **state)
{
    static const size_t rates[] = { 200, 6000, 60000, 125000 };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(rates); i++) {
        size_t waiting = 0, most, sent = run(20000, &waiting, rates[i], 0, &most);
        assert_in_range(most, ROOM, ROOM + SLICE);
        assert_in_range(sent, 20000 * rates[i], 20000 * rates[i] + ROOM + SLICE);
    }
}

static void what_is_for_machines_that_are_gone_holds_up_no_other(void **state)
{
    static const unsigned n_gone[] = { 1, 2, 3, 20, 60 };
    const size_t rate = 60000;
    size_t waiting = 0, most;
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(n_gone); i++) {
        size_t sent = run(20000, &waiting, rate, n_gone[i] * (size_t)GONE, &most);
        assert_in_range(sent, 20000 * rate / 100 * 90, 20000 * rate + ROOM + SLICE);
        assert_in_range(most, SLICE, 3 * ROOM + SLICE);
    }
    run(20000, &waiting, rate, 0, &most); /* they are forgotten */
    run(1000, &waiting, rate, 0, &most);
    assert_in_range(most, ROOM, ROOM + SLICE);
}

static void a_wire_that_stands_for_a_moment_gets_its_room_again(void **state)
{
    size_t waiting = 0, most;
    (void)state;
    run(1000, &waiting, 60000, 0, &most);
    run(WIRE_STALL_MS + 2, &waiting, 0, 0, &most);
    assert_in_range(most, ROOM, 3 * ROOM);
    run(2 * WIRE_TRUST_MS, &waiting, 60000, 0, &most);
    run(1000, &waiting, 60000, 0, &most);
    assert_in_range(most, ROOM, ROOM + SLICE);
}

static void what_waits_is_bounded(void **state)
{
    size_t waiting = 0, most;
    unsigned n = 0;
    (void)state;
    run(60000, &waiting, 0, 0, &most);
    assert_in_range(w.room, ROOM, WIRE_ROOM_MAX_BYTES);
    for (int64_t end = now + 1000; now < end; now++) /* however much waits: the socket refuses then, and it is asked now and then */
        n += wire_has_room(&w, (size_t)4 * WIRE_ROOM_MAX_BYTES, now);
    assert_in_range(n, 1, 1000 / WIRE_STALL_MS + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_wire_that_moves_gets_no_more_than_its_room, setup),
        cmocka_unit_test_setup(what_is_for_machines_that_are_gone_holds_up_no_other, setup),
        cmocka_unit_test_setup(a_wire_that_stands_for_a_moment_gets_its_room_again, setup),
        cmocka_unit_test_setup(what_waits_is_bounded, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
