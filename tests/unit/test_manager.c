/* A manager of one over a real log: what it has deferred or promised when it is closed, passes that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <stdlib.h>

#include "manager_internal.h"

static struct loop *loop;
static int result;
static unsigned n_done;

static void lose(void *arg, const char *node_id, uint8_t type, const void *p, size_t size) { }
static void lose_raft(void *arg, uint64_t raft_id, const char *node_id, const void *p, size_t size) { }
static void see_leader(void *arg, const char *node_id) { }
static bool stop_at_change;
static void see_nodes(void *arg) /* or the cluster */
{
    if (stop_at_change)
        loop_stop(loop);
}

static void on_done(void *arg, int r, const struct err *e)
{
    result = r;
    n_done++;
    loop_stop(loop);
}

static void on_late(void *arg)
{
    fail_msg("the test's deadline is over");
}

/* A cluster of one, led. Caller closes m and frees the loop. */
static struct manager *lead(char dir[64])
{
    static const uint8_t key[32] = { 7 };
    const struct manager_hooks hooks = { .send = lose, .send_raft = lose_raft, .leader_changed = see_leader, .nodes_changed = see_nodes };
    struct manager_config cfg = { .dir = dir, .disk_key = key, .node_id = "0123456789abcdefghijklmno", .raft_id = 5 };
    struct manager *m;
    struct cluster c = { 0 };
    struct node n = { 0 };
    struct err e;
    uint8_t public[32] = { 1 };
    char token[128];
    crypto_init();
    snprintf(dir, 64, "/tmp/shoal-manager-XXXXXX");
    assert_non_null(mkdtemp(dir));
    loop = loop_new();
    str_set(&c.id, "cluster");
    c.tokens = xnew(struct join_tokens);
    token_make(token, public);
    str_set(&c.tokens->worker, token);
    str_set(&c.tokens->manager, token);
    strs_add(&c.pools, "10.0.0.0/8");
    c.subnet_size = 24;
    str_set(&n.id, cfg.node_id);
    n.spec.role = ROLE_MANAGER;
    n.raft_id = cfg.raft_id;
    n.status.state = NODE_READY;
    assert_int_equal(manager_open(&m, loop, &cfg, &hooks, &e), 0);
    manager_init_cluster(m, &c, &n, on_done, NULL);
    struct loop_timer *late = loop_timer_new(loop, on_late, NULL);
    loop_timer_set(late, 20000);
    loop_run(loop);
    assert_int_equal(result, 0);
    loop_timer_free(late);
    cluster_clear(&c);
    node_clear(&n);
    return m;
}

static void end(const char *dir)
{
    struct err e;
    loop_finish(loop);
    loop_free(loop);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

static void a_pass_that_is_deferred_finds_its_manager_closed(void **state)
{
    char dir[64];
    struct manager *m = lead(dir);
    manager_want_pass(m);
    manager_close(m);
    end(dir); /* makes the deferred calls */
}

static void what_waits_at_the_end_is_answered(void **state)
{
    char dir[64];
    struct manager *m = lead(dir);
    struct config_spec spec = { 0 };
    char id[26];
    str_set(&spec.name, "c");
    spec.data = (struct bytes){ xmemdup("x", 1), 1 };
    n_done = 0;
    control_config_create(m, &spec, id, on_done, NULL);
    manager_close(m);
    assert_int_equal(n_done, 1);
    assert_true(result == 0 || result == -E_UNAVAILABLE);
    config_spec_clear(&spec);
    end(dir);
}

static void a_cluster_that_has_not_begun_is_answered_too(void **state)
{
    static const uint8_t key[32] = { 7 };
    const struct manager_hooks hooks = { .send = lose, .send_raft = lose_raft, .leader_changed = see_leader, .nodes_changed = see_nodes };
    for (int restored = 0; restored < 2; restored++) {
        char dir[] = "/tmp/shoal-manager-XXXXXX";
        struct manager_config cfg = { .dir = dir, .disk_key = key, .node_id = "0123456789abcdefghijklmno", .raft_id = 5 };
        struct cluster c = { .id = xstrdup("cluster") };
        struct node n = { .id = xstrdup(cfg.node_id) };
        struct manager *m;
        struct err e;
        assert_non_null(mkdtemp(dir));
        loop = loop_new();
        n_done = 0;
        assert_int_equal(manager_open(&m, loop, &cfg, &hooks, &e), 0);
        if (restored)
            manager_restore_cluster(m, backup_state_new(), on_done, NULL);
        else
            manager_init_cluster(m, &c, &n, on_done, NULL);
        assert_int_equal(n_done, 0);
        manager_close(m);
        assert_int_equal(n_done, 1);
        assert_int_equal(result, -E_UNAVAILABLE);
        cluster_clear(&c);
        node_clear(&n);
        end(dir);
    }
}

/* The last thing that the passes of a new cluster do. */
static bool is_settled(const struct manager *m)
{
    const struct node *n = store_next(manager_store(m), TABLE_NODE, NULL);
    return n->ingress_addr != NULL;
}

static bool is_allocated(const struct manager *m)
{
    const struct network *n = store_find_name(manager_store(m), TABLE_NETWORK, "lan");
    return n && n->vni;
}

static void until(struct manager *m, bool (*is)(const struct manager *m))
{
    struct loop_timer *late = loop_timer_new(loop, on_late, NULL);
    loop_timer_set(late, 20000);
    stop_at_change = true;
    while (!is(m))
        loop_run(loop);
    stop_at_change = false;
    loop_timer_free(late);
}

static void what_was_refused_is_not_proposed_again_at_once(void **state)
{
    char dir[64], id[26];
    struct manager *m = lead(dir);
    struct network n = { 0 };
    struct err e;
    until(m, is_settled);
    err_set(&e, E_UNAVAILABLE, "the disks are full");
    int64_t began_ms = loop_now_ms(loop);
    manager_pass_over(m, -e.code, "pass", &e);
    str_set(&n.name, "lan");
    control_network_create(m, &n, id, on_done, NULL);
    until(m, is_allocated);
    assert_true(loop_now_ms(loop) - began_ms >= 400);
    network_clear(&n);
    manager_close(m);
    end(dir);
}

static void a_recovery_is_refused_beside_a_leader(void **state)
{
    char dir[64];
    struct manager *m = lead(dir);
    n_done = 0;
    manager_recover(m, on_done, NULL);
    assert_int_equal(n_done, 1);
    assert_int_equal(result, -E_CONFLICT);
    manager_close(m);
    end(dir);
}

static void a_big_loss_is_held(void **state)
{
    static const struct { uint32_t nodes, lost; bool held; } cases[] = {
        { 1, 1, false }, { 2, 1, false }, { 3, 2, false }, /* a majority is needed to judge at all */
        { 4, 1, false }, { 4, 2, true }, { 5, 1, false }, { 5, 2, true }, { 6, 2, false }, { 6, 3, true },
        { 9, 3, false }, { 9, 4, true }, { 1000, 333, false }, { 1000, 334, true }, { UINT32_MAX, UINT32_MAX / 2, true },
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(liveness_wait_ms(cases[i].nodes, cases[i].lost, 2000), cases[i].held ? 20000 : 2000);
}

static void a_daemon_that_is_gone_is_waited_for(void **state)
{
    (void)state;
    enum { READY = NODE_READY, DOWN = NODE_DOWN, GONE = NODE_DISCONNECTED };
    /* suspect since 10000, DOWN after 2000, or after 30000 while the machine refuses */
    static const struct { int was; int64_t refused, now; int is; int64_t next; } cases[] = {
        { READY, 0, 10000, READY, 12000 },          /* nothing but silence */
        { READY, 0, 12000, DOWN, 0 },
        { READY, 9500, 10000, GONE, 12500 },        /* refused before it was suspect */
        { READY, 10100, 10200, GONE, 13100 },
        { GONE, 38000, 39999, GONE, 40000 },
        { GONE, 39900, 40000, DOWN, 0 },            /* patience ends */
        { GONE, 20000, 22999, GONE, 23000 },
        { GONE, 20000, 23000, DOWN, 0 },            /* the machine has fallen silent as well */
        { GONE, 8000, 11000, GONE, 12000 },         /* it has, but not for long enough yet */
        { READY, 5000, 10500, READY, 12000 },       /* a refusal of long ago */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct liveness_case c = { .state = cases[i].was, .since_ms = 10000, .refused_ms = cases[i].refused,
                                         .wait_ms = 2000, .restart_ms = 30000 };
        int64_t next = -1;
        assert_int_equal(liveness_verdict(&c, cases[i].now, &next), cases[i].is);
        if (cases[i].next)
            assert_int_equal(next, cases[i].next);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_that_is_deferred_finds_its_manager_closed),
        cmocka_unit_test(what_waits_at_the_end_is_answered),
        cmocka_unit_test(a_cluster_that_has_not_begun_is_answered_too),
        cmocka_unit_test(what_was_refused_is_not_proposed_again_at_once),
        cmocka_unit_test(a_recovery_is_refused_beside_a_leader),
        cmocka_unit_test(a_big_loss_is_held),
        cmocka_unit_test(a_daemon_that_is_gone_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
