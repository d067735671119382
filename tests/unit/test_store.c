/* The store: preconditions, names, snapshots, determinism. */
#include "control_plane.h"

static struct secret *make_secret(const char *id, const char *name)
{
    struct secret *s = xnew(struct secret);
    str_set(&s->id, id);
    str_set(&s->spec.name, name);
    s->spec.data.v = xmemdup("x", 1);
    s->spec.data.n = 1;
    return s;
}

static int change(struct plane *p, enum store_op op, struct secret *s, struct err *e)
{
    struct store_tx *tx = store_tx_new(p->now_ns);
    (op == STORE_CREATE ? store_tx_create : op == STORE_UPDATE ? store_tx_update : store_tx_delete)(
        tx, TABLE_SECRET, s);
    int r = plane_try(p, tx, e);
    secret_clear(s);
    free(s);
    return r;
}

static void preconditions_refuse_the_whole_transaction(void **state)
{
    (void)state;
    struct plane p;
    struct err e = { 0 };
    plane_init(&p);
    assert_int_equal(change(&p, STORE_CREATE, make_secret("a", "one"), &e), 0);
    assert_int_equal(change(&p, STORE_CREATE, make_secret("a", "two"), &e), -E_EXISTS);
    assert_int_equal(change(&p, STORE_CREATE, make_secret("b", "one"), &e), -E_EXISTS);
    assert_string_equal(e.text, "name conflicts with an existing object: secret one already exists; "
                                "remove it or take another name");
    assert_int_equal(change(&p, STORE_UPDATE, make_secret("c", "three"), &e), -E_NOT_FOUND);
    assert_int_equal(change(&p, STORE_UPDATE, make_secret("a", "one"), &e), -E_STALE); /* version 0 */

    struct store_tx *tx = store_tx_new(p.now_ns);
    struct secret *good = make_secret("d", "four"), *bad = make_secret("a", "five");
    store_tx_create(tx, TABLE_SECRET, good);
    store_tx_create(tx, TABLE_SECRET, bad);
    assert_int_equal(plane_try(&p, tx, &e), -E_EXISTS);
    assert_null(store_find(p.store, TABLE_SECRET, "d"));
    secret_clear(good);
    secret_clear(bad);
    free(good);
    free(bad);
    store_free(p.store);
}

static void update_needs_the_version_that_was_read(void **state)
{
    (void)state;
    struct plane p;
    struct err e = { 0 };
    plane_init(&p);
    assert_int_equal(change(&p, STORE_CREATE, make_secret("a", "one"), &e), 0);
    struct secret *s = make_secret("a", "renamed");
    s->version.index = ((const struct secret *)store_find(p.store, TABLE_SECRET, "a"))->version.index;
    assert_int_equal(change(&p, STORE_UPDATE, s, &e), 0);
    assert_non_null(store_find_name(p.store, TABLE_SECRET, "renamed"));
    assert_null(store_find_name(p.store, TABLE_SECRET, "one"));
    s = make_secret("a", "again");
    s->version.index = 1;
    assert_int_equal(change(&p, STORE_UPDATE, s, &e), -E_STALE);
    assert_non_null(strstr(e.text, "update out of sequence"));
    store_free(p.store);
}

static void a_snapshot_holds_everything_and_is_the_same_again(void **state)
{
    (void)state;
    struct plane p;
    struct err e = { 0 };
    plane_init(&p);
    plane_add_node(&p, "n1", "zone", "a");
    plane_add_service(&p, "web", 3);
    plane_settle(&p);
    plane_set_node(&p, "n1", NODE_READY, AVAIL_PAUSE);
    struct sb one, two;
    sb_init(&one, 0);
    sb_init(&two, 0);
    store_save(p.store, &one);
    struct store *other = store_new();
    assert_int_equal(store_load(other, one.s, one.len, &e), 0);
    store_save(other, &two);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.s, two.s, one.len);
    uint32_t n;
    store_tasks_of_node(other, "n1", &n);
    assert_int_equal(n, 3);
    assert_non_null(store_find_name(other, TABLE_SERVICE, "web"));
    for (size_t cut = 0; cut < one.len; cut += 7) { /* a torn snapshot is refused, never half believed */
        struct store *torn = store_new();
        assert_true(store_load(torn, one.s, cut, &e) < 0);
        store_free(torn);
    }
    store_free(other);
    sb_done(&one);
    sb_done(&two);
    store_free(p.store);
}

static void lookup_takes_ids_names_and_prefixes(void **state)
{
    (void)state;
    struct plane p;
    struct err e = { 0 };
    const void *found;
    plane_init(&p);
    assert_int_equal(change(&p, STORE_CREATE, make_secret("abcdef1", "one"), &e), 0);
    assert_int_equal(change(&p, STORE_CREATE, make_secret("abcdef2", "two"), &e), 0);
    assert_int_equal(store_lookup(p.store, TABLE_SECRET, "one", &found, &e), 0);
    assert_int_equal(store_lookup(p.store, TABLE_SECRET, "abcdef2", &found, &e), 0);
    assert_int_equal(store_lookup(p.store, TABLE_SECRET, "abcdef", &found, &e), -E_INVALID);
    assert_int_equal(store_lookup(p.store, TABLE_SECRET, "abc", &found, &e), -E_NOT_FOUND);
    assert_string_equal(e.text, "secret abc not found");
    store_free(p.store);
}

/* What is taken while room for the log is short: nothing that users make. */
static void upkeep_is_tasks_nodes_the_cluster_and_removals(void **state)
{
    static const struct { enum store_op op; enum store_table t; bool upkeep; } cases[] = {
        { STORE_UPDATE, TABLE_TASK, true }, { STORE_CREATE, TABLE_NODE, true }, { STORE_UPDATE, TABLE_CLUSTER, true },
        { STORE_DELETE, TABLE_SECRET, true }, { STORE_CREATE, TABLE_SECRET, false }, { STORE_UPDATE, TABLE_SERVICE, false },
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(cases); i++) {
        const struct rec *rec = store_rec(cases[i].t);
        AUTO_FREE struct object_head *o = xcalloc(1, rec->size);
        struct store_tx *tx = store_tx_new(S_NS);
        str_set(&o->id, "a");
        (cases[i].op == STORE_CREATE ? store_tx_create : cases[i].op == STORE_UPDATE ? store_tx_update : store_tx_delete)(
            tx, cases[i].t, o);
        assert_int_equal(store_tx_is_upkeep(tx), cases[i].upkeep);
        rec_clear(rec, o);
        store_tx_free(tx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preconditions_refuse_the_whole_transaction),
        cmocka_unit_test(update_needs_the_version_that_was_read),
        cmocka_unit_test(a_snapshot_holds_everything_and_is_the_same_again),
        cmocka_unit_test(lookup_takes_ids_names_and_prefixes),
        cmocka_unit_test(upkeep_is_tasks_nodes_the_cluster_and_removals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
