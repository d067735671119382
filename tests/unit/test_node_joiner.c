/* A machine that asks to be admitted, and pretended managers: who asks again, who does not, and when it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/manager.h>
#include <stdio.h>

#include "joiner.h"

static struct loop *loop;
static uint8_t manager_secret[32], joiner_secret[32], ca_secret[64];
static char token[128];
static struct sb payload;
static struct stream_listener *listener;
static struct link_config cfg;
static struct link *links[64];
static unsigned n_links, n_busy, n_hang_ups, n_lines, n_done;
static struct join_reply answer; /* to who asks after n_busy */
static struct err result;
static bool admitted;

static int any(void *arg, const uint8_t key[32], const void *p, size_t size, struct err *e)
{
    return 0;
}

static void on_join(void *arg, struct link *l, uint8_t type, const void *p, size_t size)
{
    struct join_request req = { 0 };
    struct join_reply busy = { .code = E_BUSY, .error = "many join now" };
    struct err e;
    struct sb b;
    assert_int_equal(type, MSG_JOIN);
    assert_int_equal(rec_unpack(&join_request_rec, &req, p, size, &e), 0);
    assert_string_equal(req.token, token);
    join_request_clear(&req);
    if (n_hang_ups) {
        n_hang_ups--;
        for (unsigned i = 0; i < n_links; i++)
            if (links[i] == l)
                links[i] = NULL;
        link_free(l);
        return;
    }
    sb_init(&b, 0);
    rec_pack(&join_reply_rec, n_busy ? &busy : &answer, &b);
    n_busy -= n_busy > 0;
    assert_int_equal(link_send(l, MSG_JOIN_REPLY, b.s, b.len), 0);
    sb_done(&b);
}

static void down(void *arg, struct link *l, const struct err *e) { }
static void up(void *arg, struct link *l) { }

static void on_accept(void *arg, struct stream *s)
{
    static const struct link_events events = { up, on_join, NULL, down };
    assert_true(n_links < ARRAY_N(links));
    links[n_links++] = link_accept(loop, s, &cfg, &events, NULL);
}

static void on_line(void *arg, const char *line)
{
    n_lines++;
}

static void on_done(void *arg, struct join_reply *reply, const struct err *e)
{
    n_done++;
    admitted = reply != NULL;
    if (e)
        result = *e;
    loop_stop(loop);
}

static void on_late(void *arg)
{
    fail_msg("the test's deadline is over");
}

/* Until the end of one that asks at addr. */
static void join(const char *addr)
{
    struct join_request req = { .token = token };
    struct strs addrs = { 0 };
    const struct joiner_hooks hooks = { NULL, on_line, on_done };
    struct loop_timer *late = loop_timer_new(loop, on_late, NULL);
    strs_add(&addrs, addr);
    n_lines = n_done = 0;
    result = (struct err){ 0 };
    loop_timer_set(late, 30000);
    joiner_start(loop, joiner_secret, &req, &addrs, 1, &hooks);
    if (!n_done)
        loop_run(loop);
    assert_int_equal(n_done, 1);
    loop_timer_free(late);
    strs_clear(&addrs);
}

static void open_manager(uint16_t port)
{
    struct certificate c = { 0 };
    struct err e;
    uint8_t key[32], ca_public[32];
    crypto_init();
    loop = loop_new();
    crypto_random(manager_secret, 32);
    crypto_random(joiner_secret, 32);
    crypto_sign_keypair(ca_public, ca_secret);
    token_make(token, ca_public);
    crypto_dh_public(key, manager_secret);
    str_set(&c.node_id, "m");
    bytes_set(&c.link_key, key, 32);
    bytes_set(&c.sign_key, key, 32);
    bytes_set(&c.ca_public, ca_public, 32);
    c.not_after = clock_real_ns() + 3600 * SEC_NS;
    certificate_sign(&c, ca_secret);
    sb_init(&payload, 0);
    rec_pack(&certificate_rec, &c, &payload);
    cfg = (struct link_config){ .dh_secret = manager_secret, .payload = payload.s, .payload_size = payload.len, .verify = any };
    n_links = n_busy = 0;
    answer = (struct join_reply){ .certificate = xnew(struct certificate) };
    certificate_copy(answer.certificate, &c);
    certificate_clear(&c);
    assert_int_equal(stream_listen_tcp(loop, "127.0.0.1", port, on_accept, NULL, &listener, &e), 0);
}

static void close_manager(void)
{
    for (unsigned i = 0; i < n_links; i++)
        link_free(links[i]);
    stream_listener_free(listener);
    join_reply_clear(&answer);
    sb_done(&payload);
    loop_finish(loop);
    loop_free(loop);
}

static void who_is_sent_away_as_busy_comes_again(void **state)
{
    open_manager(23771);
    n_busy = 4;
    join("127.0.0.1:23771");
    assert_true(admitted);
    assert_int_equal(n_busy, 0);
    assert_int_equal(n_lines, 1);
    close_manager();
}

static void a_refusal_that_nothing_cures_is_the_end(void **state)
{
    open_manager(23771);
    certificate_clear(answer.certificate);
    free(TAKE(answer.certificate));
    answer.code = E_DENIED;
    str_set(&answer.error, "the join token is not valid");
    join("127.0.0.1:23771");
    assert_false(admitted);
    assert_int_equal(result.code, E_DENIED);
    assert_string_equal(result.text, "the join token is not valid");
    assert_int_equal(n_links, 1);
    close_manager();
}

static void another_cluster_is_the_end(void **state)
{
    uint8_t other[32] = { 1 };
    open_manager(23771);
    token_make(token, other);
    join("127.0.0.1:23771");
    assert_false(admitted);
    assert_int_equal(result.code, E_DENIED);
    assert_non_null(strstr(result.text, "another cluster"));
    join("127.0.0.1:99999");
    assert_int_equal(result.code, E_INVALID);
    close_manager();
}

static void who_is_hung_up_on_comes_again(void **state)
{
    open_manager(23771);
    n_hang_ups = 3;
    join("127.0.0.1:23771");
    assert_true(admitted);
    assert_int_equal(n_links, 4);
    close_manager();
}

static void nobody_there_is_said_with_what_to_check(void **state)
{
    open_manager(23771);
    join("127.0.0.1:23772");
    assert_false(admitted);
    assert_int_equal(result.code, E_UNAVAILABLE);
    assert_non_null(strstr(result.text, "check that a manager runs there"));
    assert_true(n_lines >= 3);
    close_manager();
}

static void no_two_wait_alike(void **state)
{
    unsigned differ = 0;
    for (unsigned i = 0; i < 20; i++) {
        int64_t a = joiner_wait_ms(i, 12345 + i), b = joiner_wait_ms(i, 99991 * i);
        assert_in_range(a, 50, 4000);
        differ += a != b;
    }
    assert_true(differ > 15);
    assert_true(joiner_wait_ms(30, 0) == 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_sent_away_as_busy_comes_again),
        cmocka_unit_test(a_refusal_that_nothing_cures_is_the_end),
        cmocka_unit_test(another_cluster_is_the_end),
        cmocka_unit_test(who_is_hung_up_on_comes_again),
        cmocka_unit_test(nobody_there_is_said_with_what_to_check),
        cmocka_unit_test(no_two_wait_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
