/* Join tokens that expire or are good for one node, and keys that change step by step, as pure steps of the cluster
 * object and through a manager's log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <stdlib.h>

#include "manager_internal.h"

#define S INT64_C(1000000000)
static const int64_t now = 1000000 * S;
static const uint8_t key_a[32] = { 'a' }, key_b[32] = { 'b' };

static struct cluster cluster_new(void)
{
    struct cluster c = { .keys_at = now };
    uint8_t public[32], secret[64];
    char token[128];
    crypto_init();
    crypto_sign_keypair(public, secret);
    str_set(&c.id, "cluster");
    c.ca_public = (struct bytes){ xmemdup(public, 32), 32 };
    c.ca_secret = (struct bytes){ xmemdup(secret, 64), 64 };
    c.tokens = xnew(struct join_tokens);
    token_make(token, public);
    str_set(&c.tokens->worker, token);
    token_make(token, public);
    str_set(&c.tokens->manager, token);
    struct gossip_key *k = REC_ADD(&c.gossip_keys);
    k->id = 1;
    k->key = (struct bytes){ xmemdup(public, 32), 32 };
    strs_add(&c.pools, "10.0.0.0/8");
    c.subnet_size = 24;
    c.spec.ca.node_cert_expiry = 3600 * S;
    return c;
}

static int check_of(bool member, const struct cluster *c, const char *token, const uint8_t key[32], int64_t at, const char *says)
{
    struct grant_use use;
    struct err e = { 0 };
    int r = token_check(c, token, key, member, at, &use, &e);
    if (says && !strstr(e.text, says))
        fail_msg("said: %s", e.text);
    return r < 0 ? r : use.role;
}

static int check(const struct cluster *c, const char *token, const uint8_t key[32], int64_t at, const char *says)
{
    return check_of(false, c, token, key, at, says);
}

static void a_token_counts_until_it_expires_or_is_used(void **state)
{
    struct cluster c = cluster_new();
    struct err e;
    char id[13], day[128], once[128];
    (void)state;
    assert_int_equal(check(&c, c.tokens->worker, key_a, now, NULL), ROLE_WORKER);
    assert_int_equal(check(&c, c.tokens->manager, key_a, now, NULL), ROLE_MANAGER);
    assert_int_equal(check(&c, NULL, key_a, now, "not valid"), -E_DENIED);
    assert_int_equal(check(&c, "", key_a, now, "not valid"), -E_DENIED);
    assert_int_equal(grant_add(&c, ROLE_MANAGER, 3600 * S, false, now, id, day, &e), 0);
    assert_true(token_is_well_formed(day));
    assert_true(token_pins(day, c.ca_public.v));
    assert_int_equal(check(&c, day, key_a, now + 3599 * S, NULL), ROLE_MANAGER);
    assert_int_equal(check(&c, day, key_b, now + 3599 * S, NULL), ROLE_MANAGER);
    assert_int_equal(check(&c, day, key_a, now + 3600 * S, "has expired"), -E_DENIED);
    assert_int_equal(grant_add(&c, ROLE_WORKER, 3600 * S, true, now, id, once, &e), 0);
    c.grants.v[1].used_by = (struct bytes){ xmemdup(key_a, 32), 32 };
    assert_int_equal(check(&c, once, key_b, now, "has been used"), -E_DENIED);
    assert_int_equal(check_of(true, &c, once, key_a, now, NULL), ROLE_WORKER); /* its first answer was lost */
    assert_int_equal(check(&c, once, key_a, now, "has been used"), -E_DENIED);  /* removed since */
    assert_int_equal(grant_remove(&c, id, &e), 0);
    assert_int_equal(grant_remove(&c, id, &e), -E_NOT_FOUND);
    assert_int_equal(check(&c, once, key_a, now, "not valid"), -E_DENIED);
    assert_false(grants_expire(&c, now + 3600 * S));
    assert_true(grants_expire(&c, now + 2 * 3600 * S));
    assert_int_equal(c.grants.n, 0);
    cluster_clear(&c);
}

static void tokens_are_bounded_and_kept_as_hashes(void **state)
{
    struct cluster c = cluster_new();
    struct err e;
    struct sb b;
    char id[13], token[128];
    (void)state;
    assert_int_equal(grant_add(&c, ROLE_WORKER, 0, false, now, id, token, &e), -E_INVALID);
    assert_int_equal(grant_add(&c, ROLE_WORKER, INT64_MAX, false, now, id, token, &e), -E_INVALID);
    for (int i = 0; i < JOIN_GRANTS_MAX; i++)
        assert_int_equal(grant_add(&c, ROLE_WORKER, 60 * S, false, now, id, token, &e), 0);
    assert_int_equal(grant_add(&c, ROLE_WORKER, 60 * S, false, now, id, token, &e), -E_BUSY);
    sb_init(&b, 0);
    rec_pack(&cluster_rec, &c, &b);
    assert_null(memmem(b.s, b.len, token + 73, 25)); /* the secret part of the last one */
    assert_non_null(memmem(b.s, b.len, c.tokens->worker + 73, 25));
    assert_int_equal(grant_add(&c, ROLE_WORKER, 60 * S, false, now + 3600 * S, id, token, &e), 0); /* the old ones made room */
    assert_int_equal(c.grants.n, 1);
    sb_done(&b);
    cluster_clear(&c);
}

static void gossip_keys_change_in_three_steps(void **state)
{
    struct cluster c = cluster_new();
    (void)state;
    assert_false(rotation_keys_step(&c, true, now + 12 * 3600 * S - 1));
    assert_true(rotation_keys_step(&c, false, now + 12 * 3600 * S)); /* its time has come */
    int64_t at = c.keys_at;
    assert_int_equal(at, now + 12 * 3600 * S);
    assert_int_equal(c.gossip_keys.n, 2);
    assert_int_equal(c.gossip_keys.v[0].id, 1); /* the old one still seals */
    assert_int_equal(c.keyring, 1);
    assert_false(rotation_keys_step(&c, false, at + 100 * 3600 * S)); /* a node has not said that it holds it */
    assert_true(rotation_keys_step(&c, true, at));
    assert_int_equal(c.gossip_keys.v[0].id, 2);
    assert_int_equal(c.gossip_keys.n, 2);
    assert_false(rotation_keys_step(&c, false, at));
    c.keys_due = true; /* a node was removed meanwhile */
    assert_true(rotation_keys_step(&c, true, at));
    assert_int_equal(c.gossip_keys.n, 1);
    assert_int_equal(c.gossip_keys.v[0].id, 2);
    assert_int_equal(c.keyring, 3);
    assert_true(rotation_keys_step(&c, true, at)); /* and so it begins again at once */
    assert_int_equal(c.gossip_keys.v[1].id, 3);
    assert_false(c.keys_due);
    cluster_clear(&c);
}

static void a_clock_set_back_by_a_day_stops_no_rotation(void **state)
{
    struct cluster c = cluster_new();
    (void)state;
    assert_true(rotation_keys_step(&c, true, now - 24 * 3600 * S));
    cluster_clear(&c);
}

static void a_new_cluster_key_is_signed_by_the_old_one(void **state)
{
    struct cluster c = cluster_new();
    struct bytes first = { xmemdup(c.ca_public.v, 32), 32 };
    struct err e;
    char id[13], token[128], *worker = xstrdup(c.tokens->worker);
    int64_t until;
    (void)state;
    assert_int_equal(grant_add(&c, ROLE_WORKER, 60 * S, false, now, id, token, &e), 0);
    assert_int_equal(rotation_ca_begin(&c, now, &e), 0);
    assert_true(c.rotating);
    assert_memory_not_equal(first.v, c.ca_public.v, 32);
    assert_string_not_equal(worker, c.tokens->worker);
    assert_true(token_pins(c.tokens->worker, c.ca_public.v));
    assert_true(token_pins(c.tokens->manager, c.ca_public.v));
    assert_int_equal(c.grants.n, 0);
    assert_int_equal(rotation_ca_begin(&c, now + 1, &e), 0);
    assert_true(ca_chain_leads(c.ca_chain.v, c.ca_chain.n, &first, &c.ca_public, &until));
    assert_int_equal(until, now + 30 * 24 * 3600 * S);
    while (c.ca_chain.n < CA_CHAIN_MAX)
        assert_int_equal(rotation_ca_begin(&c, now + 2, &e), 0);
    assert_int_equal(rotation_ca_begin(&c, now + 3, &e), -E_BUSY);
    assert_int_equal(rotation_ca_begin(&c, now + 31 * 24 * 3600 * S, &e), 0);
    assert_int_equal(c.ca_chain.n, 1);
    free(first.v);
    free(worker);
    cluster_clear(&c);
}

/* ---- through a manager of one ---- */
static struct loop *loop;
static unsigned n_done;
static int last_result;
static struct join_reply replies[2];

static struct certificate renewed; /* what the leader sent last */
static void lose(void *arg, const char *node_id, uint8_t type, const void *p, size_t size)
{
    struct err e;
    if (type != MSG_CERTIFICATE)
        return;
    certificate_clear(&renewed);
    assert_int_equal(rec_unpack(&certificate_rec, &renewed, p, size, &e), 0);
    loop_stop(loop);
}
static void lose_raft(void *arg, uint64_t raft_id, const char *node_id, const void *p, size_t size) { }
static void see_leader(void *arg, const char *node_id) { }
static void see_nodes(void *arg) { }

static void on_done(void *arg, int r, const struct err *e)
{
    last_result = r;
    n_done++;
    loop_stop(loop);
}

static void on_join(void *arg, const struct join_reply *r)
{
    join_reply_copy(arg, r);
    if (++n_done == 2)
        loop_stop(loop);
}

static void on_late(void *arg)
{
    fail_msg("the test's deadline is over");
}

static void two_nodes_race_for_a_token_and_the_winner_sleeps_past_expiry(void **state)
{
    static const uint8_t disk_key[32] = { 7 };
    char dir[] = "/tmp/shoal-keys-XXXXXX", id[13], token[128];
    const struct manager_hooks hooks = { .send = lose, .send_raft = lose_raft, .leader_changed = see_leader, .nodes_changed = see_nodes };
    struct cluster c = cluster_new();
    struct node n = { .spec.role = ROLE_MANAGER, .raft_id = 5, .status.state = NODE_READY };
    struct manager *m;
    struct err e;
    (void)state;
    c.keys_at = clock_real_ns();
    assert_non_null(mkdtemp(dir));
    loop = loop_new();
    struct manager_config cfg = { .dir = dir, .disk_key = disk_key, .node_id = "0123456789abcdefghijklmno", .raft_id = 5 };
    str_set(&n.id, cfg.node_id);
    struct loop_timer *late = loop_timer_new(loop, on_late, NULL);
    loop_timer_set(late, 20000);
    assert_int_equal(manager_open(&m, loop, &cfg, &hooks, &e), 0);
    manager_init_cluster(m, &c, &n, on_done, NULL);
    loop_run(loop);
    control_token_create(m, ROLE_WORKER, 3600 * S, true, id, token, on_done, NULL);
    loop_run(loop);
    assert_int_equal(last_result, 0);
    char longer[14];
    snprintf(longer, sizeof longer, "%sx", id); /* begins like it, and is none */
    last_result = 0;
    control_token_remove(m, longer, on_done, NULL);
    assert_int_equal(last_result, -E_NOT_FOUND);
    struct join_request req = { .sign_key = { (uint8_t *)(uintptr_t)key_a, 32 }, .tunnel_key = { (uint8_t *)(uintptr_t)key_a, 32 },
                                .token = token };
    n_done = 0;
    manager_join(m, &req, "10.0.0.1", key_a, on_join, &replies[0]); /* both are checked against the same state */
    manager_join(m, &req, "10.0.0.2", key_b, on_join, &replies[1]);
    loop_run(loop);
    unsigned won = replies[0].certificate ? 0 : 1;
    assert_true(!replies[0].certificate != !replies[1].certificate);
    assert_non_null(strstr(replies[!won].error, "has been used"));
    assert_int_equal(store_count(manager_store(m), TABLE_NODE), 2);
    struct join_reply again = { 0 };
    n_done = 1;
    manager_join(m, &req, "10.0.0.1", won ? key_b : key_a, on_join, &again); /* the winner's first answer was lost */
    assert_non_null(again.certificate);
    assert_string_equal(again.certificate->node_id, replies[won].certificate->node_id);
    char other[128], other_id[13];
    control_token_create(m, ROLE_WORKER, 3600 * S, false, other_id, other, on_done, NULL);
    loop_run(loop);
    struct join_request thief = req; /* under another name it would get the packets of the node whose keys these are */
    struct join_reply no = { 0 };
    thief.token = other;
    n_done = 0;
    manager_join(m, &thief, "10.0.0.3", (const uint8_t[32]){ 9 }, on_join, &no);
    assert_true(!no.certificate && no.error && strstr(no.error, "has one of these keys already"));
    join_reply_clear(&no);
    struct session_hello h = { .role = ROLE_WORKER, .not_after = clock_real_ns() - 400 * 24 * 3600 * S }; /* it slept */
    struct sb b;
    h.ca = (struct bytes){ xmemdup(c.ca_public.v, 32), 32 };
    sb_init(&b, 0);
    rec_pack(&session_hello_rec, &h, &b);
    manager_got_message(m, again.certificate->node_id, MSG_HELLO, b.s, b.len);
    loop_run(loop); /* until it is sent one */
    assert_string_equal(renewed.node_id, again.certificate->node_id); /* signed anew */
    assert_true(renewed.not_after > clock_real_ns());
    assert_int_equal(certificate_verify(&renewed, c.ca_public.v, won ? key_b : key_a, &e), 0);
    certificate_clear(&renewed);
    session_hello_clear(&h);
    sb_done(&b);
    control_node_remove(m, again.certificate->node_id, true, on_done, NULL);
    loop_run(loop);
    assert_int_equal(last_result, 0);
    join_reply_clear(&again);
    again = (struct join_reply){ 0 };
    manager_join(m, &req, "10.0.0.1", won ? key_b : key_a, on_join, &again); /* removed, it does not come back by it */
    assert_null(again.certificate);
    assert_non_null(strstr(again.error, "has been used"));
    join_reply_clear(&again);
    join_reply_clear(&replies[0]);
    join_reply_clear(&replies[1]);
    loop_timer_free(late);
    manager_close(m);
    loop_finish(loop);
    loop_free(loop);
    assert_int_equal(file_remove_tree(dir, &e), 0);
    cluster_clear(&c);
    node_clear(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_counts_until_it_expires_or_is_used),
        cmocka_unit_test(tokens_are_bounded_and_kept_as_hashes),
        cmocka_unit_test(gossip_keys_change_in_three_steps),
        cmocka_unit_test(a_clock_set_back_by_a_day_stops_no_rotation),
        cmocka_unit_test(a_new_cluster_key_is_signed_by_the_old_one),
        cmocka_unit_test(two_nodes_race_for_a_token_and_the_winner_sleeps_past_expiry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
