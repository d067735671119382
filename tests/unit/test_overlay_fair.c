/* The queue between TAPs and wire: whose turn it is, who loses, what is one flow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>

#include "../../overlay/be.h"
#include "../../overlay/fair.h"

enum { VNI = 4097, FLOWS = 20, BIG = 65000, SMALL = 1400, BYTES_MAX = 1 << 20, AT_PORT = 14 + 20, AT_NUMBER = 14 + 20 + 8 };

static struct rng g;
static struct fair *q;
static uint16_t ports[FLOWS]; /* of flows that do not share a queue by chance */

static size_t ipv4(uint8_t *f, unsigned protocol, unsigned port, unsigned fragment)
{
    memset(f, 0, 64);
    memcpy(f, "\x02\x42\x0a\x01\x00\x03\x02\x42\x0a\x01\x00\x02\x08\x00\x45", 15);
    put16(f + 14 + 6, fragment);
    f[14 + 9] = (uint8_t)protocol;
    memcpy(f + 14 + 12, "\x0a\x01\x00\x02\x0a\x01\x00\x03", 8);
    put16(f + AT_PORT, port);
    return 64;
}

static int setup(void **state)
{
    bool taken[FAIR_FLOWS] = { false };
    uint8_t f[64], key[FAIR_KEY_BYTES];
    (void)state;
    rng_init(&g, 23);
    crypto_init();
    q = fair_new(BYTES_MAX);
    for (unsigned n = 0, port = 1; n < FLOWS; port++) {
        uint64_t h = crypto_shorthash(key, fair_key(VNI, f, ipv4(f, 17, port, 0), key)) % FAIR_FLOWS;
        if (!taken[h])
            ports[n++] = (uint16_t)port;
        taken[h] = true;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fair_free(q);
    return 0;
}

static void put(unsigned flow, uint32_t number, size_t size)
{
    struct fair_frame *f = fair_blank(q);
    f->vni = VNI;
    f->size = size;
    ipv4(fair_bytes(f), 17, ports[flow], 0);
    put32(fair_bytes(f) + AT_NUMBER, number);
    fair_put(q, f);
}

/* False: nothing is queued. */
static bool take(unsigned *ret_flow, uint32_t *ret_number, size_t *ret_size)
{
    struct fair_frame *f = fair_take(q);
    assert_true(f || fair_is_empty(q));
    if (!f)
        return false;
    for (*ret_flow = 0; ports[*ret_flow] != be16(fair_bytes(f) + AT_PORT);)
        assert_in_range(++*ret_flow, 1, FLOWS - 1);
    *ret_number = be32(fair_bytes(f) + AT_NUMBER);
    *ret_size = f->size;
    fair_give_back(q, f);
    return true;
}

static void assert_next(unsigned flow, uint32_t number)
{
    unsigned from;
    uint32_t n;
    size_t size;
    assert_true(take(&from, &n, &size));
    assert_int_equal(from, flow);
    assert_int_equal(n, number);
}

static void a_flow_keeps_its_order(void **state)
{
    uint32_t put_n[FLOWS] = { 0 }, next[FLOWS] = { 0 }, number;
    uint64_t n_put = 0, n_taken = 0;
    unsigned flow;
    size_t size;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        for (uint64_t n = rng_below(&g, 8); n; n--, n_put++) {
            flow = (unsigned)rng_below(&g, FLOWS);
            put(flow, put_n[flow]++, rng_below(&g, 3) ? rng_range(&g, 60, SMALL) : rng_range(&g, SMALL, GSO_FRAME_MAX_BYTES));
        }
        for (uint64_t n = rng_below(&g, 8); n && take(&flow, &number, &size); n--, n_taken++) {
            assert_in_range(number, next[flow], put_n[flow] - 1);
            next[flow] = number + 1;
        }
    }
    while (take(&flow, &number, &size))
        n_taken++;
    assert_true(fair_n_lost(q) > 0);
    assert_int_equal(n_put, n_taken + fair_n_lost(q));
}

static void a_flow_with_nothing_queued_goes_first(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        for (unsigned flow = 0; flow < 3; flow++)
            put(flow, i, BIG);
    for (unsigned flow = 0; flow < 3; flow++)
        assert_next(flow, 0);
    put(3, 0, 98);
    assert_next(3, 0);
    put(3, 1, 98);
    put(4, 0, 98);
    assert_next(3, 1);
    assert_next(4, 0);
}

/* It has one frame at a time, and the next one only after it was found empty: it has no more of the whole than its share. */
static void come_back(size_t coming_size)
{
    unsigned flow;
    uint32_t number;
    size_t size, sum[2] = { 0 };
    bool queued = false;
    put(0, 0, SMALL);
    put(0, 0, SMALL);
    for (int i = 0; i < 5000; i++) {
        assert_true(take(&flow, &number, &size));
        sum[flow] += size;
        if (flow == 1) {
            queued = false;
            continue;
        }
        put(0, 0, SMALL);
        if (!queued)
            put(1, 0, coming_size);
        queued = true;
    }
    assert_in_range(sum[1], coming_size, sum[0] + BIG);
    while (take(&flow, &number, &size))
        continue;
}

static void a_flow_that_comes_back_is_not_new_again(void **state)
{
    (void)state;
    come_back(FAIR_QUANTUM_BYTES - 1); /* nothing is owed */
    come_back(BIG);
}

static void flows_share_by_bytes(void **state)
{
    static const size_t sizes[] = { BIG, SMALL, 9000, FAIR_QUANTUM_BYTES };
    unsigned flow;
    uint32_t number;
    size_t size, sum[ARRAY_N(sizes)] = { 0 };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(sizes); i++)
        for (int n = 0; n < 3; n++)
            put(i, 0, sizes[i]);
    for (int i = 0; i < 5000; i++) {
        assert_true(take(&flow, &number, &size));
        sum[flow] += size;
        put(flow, 0, sizes[flow]);
    }
    for (unsigned i = 1; i < ARRAY_N(sizes); i++)
        assert_in_range(sum[i], sum[0] - 2 * BIG, sum[0] + 2 * BIG);
}

static void the_longest_flow_loses_from_its_head(void **state)
{
    (void)state;
    put(1, 0, BIG);
    put(2, 0, 60);
    for (uint32_t i = 0; i < 1000; i++)
        put(0, i, BIG);
    assert_int_equal(fair_n_lost(q), 1000 - (BYTES_MAX - BIG - FAIR_SHORT_COST_MIN_BYTES) / BIG);
    assert_next(1, 0);
    assert_next(2, 0);
    for (uint32_t i = (uint32_t)fair_n_lost(q); i < 1000; i++)
        assert_next(0, i);
    assert_true(fair_is_empty(q));
}

/* Many small frames are a long flow too. */
static void bounded(size_t frame_size, uint32_t cost)
{
    const uint32_t most = BYTES_MAX / cost;
    unsigned flow;
    uint32_t number, n = 0;
    size_t size;
    put(1, 0, BIG);
    for (uint32_t i = 0; i < 10 * most; i++)
        put(0, i, frame_size);
    assert_next(1, 0);
    while (take(&flow, &number, &size))
        n++;
    assert_int_equal(n, (BYTES_MAX - BIG) / cost);
    for (uint32_t i = 0; i < 10 * most; i++)
        put((unsigned)rng_below(&g, FLOWS), i, frame_size);
    for (n = 0; take(&flow, &number, &size);)
        n++;
    assert_int_equal(n, most);
}

static void frames_are_bounded_like_bytes(void **state)
{
    (void)state;
    bounded(64, FAIR_SHORT_COST_MIN_BYTES);
    bounded(FAIR_SHORT_COST_MIN_BYTES, FAIR_SHORT_COST_MIN_BYTES);
    bounded(FAIR_SHORT_BYTES, FAIR_SHORT_BYTES);
    bounded(FAIR_SHORT_BYTES + 1, FAIR_LONG_COST_MIN_BYTES);
    bounded(9000, 9000);
}

static void a_mass_of_small_flows_leaves_a_long_one_its_place(void **state)
{
    unsigned n_long = 0;
    (void)state;
    for (uint32_t i = 0; i < BYTES_MAX / BIG; i++)
        put(0, i, BIG);
    for (uint16_t port = 1; port <= 256; port++) {
        struct fair_frame *f = fair_blank(q);
        f->vni = VNI + 1;
        f->size = ipv4(fair_bytes(f), 17, port, 0);
        fair_put(q, f);
    }
    for (struct fair_frame *f; (f = fair_take(q)); fair_give_back(q, f))
        n_long += f->size == BIG;
    assert_in_range(n_long, BYTES_MAX / BIG * 3 / 4, BYTES_MAX / BIG);
}

static void those_of_a_network_that_is_gone_are_lost(void **state)
{
    unsigned flow;
    uint32_t number;
    size_t size;
    (void)state;
    for (uint32_t i = 0; i < 30; i++) {
        struct fair_frame *f = fair_blank(q);
        f->vni = i % 3 ? VNI : VNI + 1;
        f->size = 60 + i;
        put32(fair_bytes(f) + AT_NUMBER, i);
        memset(fair_bytes(f), 0, 14); /* all in two flows, by network alone */
        fair_put(q, f);
        put(i % FLOWS, i, 100);
    }
    fair_drop(q, VNI);
    assert_int_equal(fair_n_lost(q), 30 + 20);
    for (uint32_t i = 0; i < 30; i += 3) {
        struct fair_frame *f = fair_take(q);
        assert_non_null(f);
        assert_int_equal(f->vni, VNI + 1);
        assert_int_equal(f->size, 60 + i);
        fair_give_back(q, f);
    }
    assert_null(fair_take(q));
    assert_true(fair_is_empty(q));
    put(0, 1, 100); /* and it goes on */
    put(0, 2, 100);
    fair_drop(q, VNI + 1);
    assert_next(0, 1);
    put(0, 3, 100);
    assert_next(0, 2);
    assert_next(0, 3);
    assert_false(take(&flow, &number, &size));
}

/* ---- what is one flow ---- */
static bool same(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint8_t keys[2][FAIR_KEY_BYTES];
    size_t n = fair_key(VNI, a, size, keys[0]);
    return n == fair_key(VNI, b, size, keys[1]) && memcmp(keys[0], keys[1], n) == 0;
}

static void ports_tell_flows_apart_but_not_fragments(void **state)
{
    uint8_t a[64], b[64], keys[2][FAIR_KEY_BYTES];
    (void)state;
    static const unsigned with_ports[] = { 6, 17, 132 };
    for (unsigned i = 0; i < ARRAY_N(with_ports); i++) {
        size_t size = ipv4(a, with_ports[i], 1000, 0x4000);
        ipv4(b, with_ports[i], 2000, 0x4000);
        assert_false(same(a, b, size));
        ipv4(b, with_ports[i], 1000, 0);
        assert_true(same(a, b, size));
        ipv4(a, with_ports[i], 1000, 0x2000); /* the first fragment has ports, one behind it other bytes in their place */
        ipv4(b, with_ports[i], 0x4142, 0x2000 | 173);
        assert_true(same(a, b, size));
        ipv4(b, with_ports[i], 0x4344, 2 * 173); /* the last one */
        assert_true(same(a, b, size));
        b[14 + 15]++;
        assert_false(same(a, b, size));
        assert_false(fair_key(VNI, a, size, keys[0]) == fair_key(VNI + 1, a, size, keys[1]) &&
                     memcmp(keys[0], keys[1], sizeof keys[0]) == 0);
    }
    ipv4(a, 1, 1000, 0);
    ipv4(b, 1, 2000, 0); /* ICMP has no ports */
    assert_true(same(a, b, 64));
}

static void ipv6_vlan_and_what_is_no_ip(void **state)
{
    uint8_t a[90] = { 2, 0x42, 10, 1, 0, 3, 2, 0x42, 10, 1, 0, 2, 0x81, 0, 0, 5, 0x86, 0xdd, 0x60 }, b[90];
    (void)state;
    a[18 + 6] = 6;
    memcpy(b, a, sizeof a);
    b[18 + 41]++;
    assert_false(same(a, b, sizeof a)); /* a port */
    a[18 + 6] = b[18 + 6] = 44;         /* a fragment's header */
    assert_true(same(a, b, sizeof a));
    b[18 + 39]++;
    assert_false(same(a, b, sizeof a)); /* an address */
    memcpy(b, a, sizeof a);
    a[17] = b[17] = 0xde;
    b[18 + 39]++;
    assert_true(same(a, b, sizeof a));
    b[5]++;
    assert_false(same(a, b, sizeof a)); /* a MAC */
}

/* Nothing is read behind a frame's end (the sanitizers' build sees it). */
static void frames_of_any_length_and_content(void **state)
{
    static const uint8_t types[][2] = { { 8, 0 }, { 0x86, 0xdd }, { 0x81, 0 }, { 8, 6 } };
    uint8_t whole[96], key[FAIR_KEY_BYTES];
    (void)state;
    for (int i = 0; i < 20000; i++) {
        size_t size = rng_below(&g, sizeof whole + 1);
        rng_bytes(&g, whole, sizeof whole);
        memcpy(whole + 12, types[rng_below(&g, ARRAY_N(types))], 2);
        if (rng_below(&g, 2))
            memcpy(whole + 16, types[rng_below(&g, ARRAY_N(types))], 2);
        if (rng_below(&g, 2))
            whole[14 + 6] = whole[14 + 7] = 0, whole[14 + 9] = 17;
        AUTO_FREE uint8_t *frame = xmemdup(whole, size);
        assert_in_range(fair_key(VNI, frame, size, key), 5, FAIR_KEY_BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_flow_keeps_its_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flow_with_nothing_queued_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flow_that_comes_back_is_not_new_again, setup, teardown),
        cmocka_unit_test_setup_teardown(flows_share_by_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(the_longest_flow_loses_from_its_head, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_are_bounded_like_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_mass_of_small_flows_leaves_a_long_one_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(those_of_a_network_that_is_gone_are_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(ports_tell_flows_apart_but_not_fragments, setup, teardown),
        cmocka_unit_test_setup_teardown(ipv6_vlan_and_what_is_no_ip, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_of_any_length_and_content, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
