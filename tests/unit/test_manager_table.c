/* The node table in differences: agents that are told now and then, of a table in which nodes come, change and go, hold in
 * the end what the store holds, in its order; and those who have the same are sent the same bytes. */
#include "control_plane.h"
#include <shoal/base/rng.h>

#include "manager_internal.h"

enum { AGENTS = 6, STEPS = 3000 };

static struct plane plane;
static struct table *table;
static unsigned n_nodes;

static void watch(void *arg, enum store_op op, enum store_table t, const void *old, const void *now)
{
    if (t == TABLE_NODE)
        table_changed(table, op == STORE_DELETE ? old : NULL, store_index(plane.store));
}

static const struct node *any(struct rng *r)
{
    const struct node *n = NULL;
    for (uint64_t i = rng_below(r, store_count(plane.store, TABLE_NODE)) + 1; i; i--)
        n = store_next(plane.store, TABLE_NODE, n);
    return n;
}

static void change(struct rng *r)
{
    char id[26];
    unsigned what = (unsigned)rng_below(r, 10), n = store_count(plane.store, TABLE_NODE);
    if (n == 0 || (what < 4 && n < 60)) {
        snprintf(id, sizeof id, "node%021u", ++n_nodes);
        plane_add_node(&plane, id, NULL, NULL);
    } else if (what < 7) {
        struct node copy = { 0 };
        node_copy(&copy, any(r));
        copy.control_port = (copy.control_port + 1) % 60000;
        struct store_tx *tx = store_tx_new(plane.now_ns);
        store_tx_update(tx, TABLE_NODE, &copy);
        node_clear(&copy);
        plane_commit(&plane, tx);
    } else {
        struct store_tx *tx = store_tx_new(plane.now_ns);
        store_tx_delete(tx, TABLE_NODE, any(r));
        plane_commit(&plane, tx);
    }
}

static uint64_t take(struct assignment *a, uint64_t held)
{
    const struct sb *b = table_pack(table, plane.store, held);
    struct node_table t = { 0 };
    struct err e;
    assert_ptr_equal(table_pack(table, plane.store, held), b);
    assert_int_equal(rec_unpack(&node_table_rec, &t, b->s, b->len, &e), 0);
    if (node_table_merge(a, held, &t, &e) < 0)
        fail_msg("%s", e.text);
    uint64_t index = t.index;
    node_table_clear(&t);
    return index;
}

static void is_as_the_store(const struct assignment *a)
{
    uint32_t i = 0;
    assert_int_equal(a->nodes.n, store_count(plane.store, TABLE_NODE));
    for (const struct node *n = NULL; (n = store_next(plane.store, TABLE_NODE, n)); i++) {
        assert_string_equal(a->nodes.v[i].id, n->id);
        assert_int_equal(a->nodes.v[i].control_port, n->control_port);
        assert_string_equal(a->nodes.v[i].description.hostname, n->description.hostname);
        assert_int_equal(a->nodes.v[i].version.index, 0);
    }
}

static void who_is_told_of_changes_holds_what_is(void **state)
{
    struct assignment agents[AGENTS] = { 0 };
    uint64_t held[AGENTS] = { 0 };
    struct rng r;
    rng_init(&r, 7);
    plane_init(&plane);
    table = table_new();
    n_nodes = 0;
    store_watch(plane.store, watch, NULL);
    for (unsigned i = 0; i < STEPS; i++) {
        change(&r);
        unsigned k = (unsigned)rng_below(&r, AGENTS * 4);
        if (k >= AGENTS)
            continue;
        held[k] = take(&agents[k], rng_chance(&r, 20) ? 0 : held[k]);
        is_as_the_store(&agents[k]);
        if (rng_chance(&r, 5)) /* a snapshot: what was removed before is not known */
            table_replaced(table, store_index(plane.store));
    }
    for (unsigned k = 0; k < AGENTS; k++) {
        held[k] = take(&agents[k], held[k]);
        is_as_the_store(&agents[k]);
        assignment_clear(&agents[k]);
    }
    table_free(table);
    store_free(plane.store);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct assignment a = { 0 };
    struct node_table t = { .since = 5, .index = 9, .count = 1 };
    struct err e;
    assert_int_equal(node_table_merge(&a, 4, &t, &e), -E_STALE);
    assert_int_equal(node_table_merge(&a, 5, &t, &e), -E_STALE); /* one node is missing */
    str_set(&REC_ADD(&t.nodes)->id, "n");
    strs_add(&t.gone, "never seen");
    assert_int_equal(node_table_merge(&a, 7, &t, &e), 0);
    assert_int_equal(a.nodes.n, 1);
    node_table_clear(&t);
    assignment_clear(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_told_of_changes_holds_what_is),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
