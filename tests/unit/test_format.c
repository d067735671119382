/* Formats (model/format.h): a program that knows one format more, and the one before it, over the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/mp.h>
#include <shoal/model/format.h>
#include <shoal/store.h>

#define later_FIELDS(X, T)                                          \
    X(T, STR, name, _, 1, "Name", "", .max = 8)                     \
    X(T, LABELS, more, _, 2, "More", "", .max = 4, .since = 2)      \
    X(T, ENUM, choice, _, 3, "Choice", "", .names = node_role_names, .since = 3)
REC_DECLARE(later)
#define holder_FIELDS(X, T)                                         \
    X(T, STR, name, _, 1, "Name", "", .max = 8)                     \
    X(T, LIST, list, later, 2, "List", "", .max = 4)                \
    X(T, OPT, opt, later, 3, "Opt", "")                             \
    X(T, REC, rec, later, 4, "Rec", "")                             \
    X(T, LIST, late, later, 5, "Late", "", .max = 4, .since = 2)
REC_DECLARE(holder)
REC_DEFINE(later)
REC_DEFINE(holder)

static void a_record_needs_the_format_of_what_it_holds(void **state)
{
    struct holder h = { 0 };
    (void)state;
    str_set(&h.name, "x");
    assert_int_equal(rec_format(&holder_rec, &h), 1);
    labels_set(&REC_ADD(&h.list)->more, "a", "b");
    assert_int_equal(rec_format(&holder_rec, &h), 2);
    h.opt = xnew(struct later);
    h.opt->choice = 1;
    assert_int_equal(rec_format(&holder_rec, &h), 3);
    labels_set(&h.rec.more, "a", "b");
    str_set(&REC_ADD(&h.late)->name, "y");
    rec_cut(&holder_rec, &h, 2);
    assert_int_equal(rec_format(&holder_rec, &h), 2);
    assert_int_equal(h.late.n, 1);
    rec_cut(&holder_rec, &h, 1);
    assert_int_equal(rec_format(&holder_rec, &h), 1);
    assert_int_equal(h.late.n, 0);
    assert_int_equal(h.list.n, 1); /* the element is of format 1, what it held is not */
    assert_int_equal(h.list.v[0].more.n, 0);
    assert_string_equal(h.name, "x");
    holder_clear(&h);
}

static void the_older_program_sees_no_later_tag_or_says_so(void **state)
{
    struct later x = { 0 }, y;
    struct err e;
    AUTO_SB struct sb b;
    (void)state;
    sb_init(&b, 0);
    str_set(&x.name, "x");
    labels_set(&x.more, "a", "b");
    rec_pack(&later_rec, &x, &b);
    format_most = 1;
    assert_int_equal(rec_unpack(&later_rec, &y, b.s, b.len, &e), 0);
    assert_int_equal(y.more.n, 0);
    later_clear(&y);
    assert_int_equal(rec_unpack_all(&later_rec, &y, b.s, b.len, &e), -E_UNSUPPORTED);
    assert_string_equal(e.text, "later: holds tag 2, which this version does not know; upgrade");
    format_most = 2;
    assert_int_equal(rec_unpack_all(&later_rec, &y, b.s, b.len, &e), 0);
    assert_true(later_equal(&x, &y));
    later_clear(&x);
    later_clear(&y);
}

/* ---- the store ---- */
struct world { struct store *s; uint64_t index, format; };

static int try(struct world *w, struct store_tx *tx, struct err *e)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    store_tx_encode(tx, w->format, &b);
    store_tx_free(tx);
    return store_apply(w->s, ++w->index, b.s, b.len, e);
}

static int put_node(struct world *w, const char *id, uint64_t most, uint64_t promised, bool left, struct err *e)
{
    const struct node *old = store_find(w->s, TABLE_NODE, id);
    struct store_tx *tx = store_tx_new(1);
    struct node n = { .formats = { 1, most, promised }, .status.state = left ? NODE_DOWN : NODE_READY };
    str_set(&n.id, id);
    str_set(&n.status.message, left ? NODE_LEFT_MESSAGE : NULL);
    n.version.index = old ? old->version.index : 0;
    (old ? store_tx_update : store_tx_create)(tx, TABLE_NODE, &n);
    node_clear(&n);
    return try(w, tx, e);
}

static int raise(struct world *w, uint64_t format, struct err *e)
{
    struct cluster c;
    struct store_tx *tx = store_tx_new(1);
    cluster_copy(&c, store_cluster(w->s));
    c.format = format;
    store_tx_update(tx, TABLE_CLUSTER, &c);
    cluster_clear(&c);
    int r = try(w, tx, e);
    w->format = cluster_format(store_cluster(w->s));
    return r;
}

static struct world begin(void)
{
    struct world w = { store_new(), 0, 1 };
    struct cluster c = { .id = xstrdup("cluster") };
    struct store_tx *tx = store_tx_new(1);
    struct err e;
    crypto_init();
    format_most = 2;
    store_tx_create(tx, TABLE_CLUSTER, &c);
    cluster_clear(&c);
    assert_int_equal(try(&w, tx, &e), 0);
    return w;
}

static void no_node_is_in_a_cluster_it_cannot_read(void **state)
{
    struct world w = begin();
    struct err e;
    (void)state;
    assert_int_equal(put_node(&w, "a", 0, 0, false, &e), 0); /* says nothing: format 1 */
    assert_int_equal(put_node(&w, "b", 2, 1, false, &e), 0);
    assert_int_equal(store_format_known(w.s), 1);
    assert_int_equal(raise(&w, 2, &e), -E_CONFLICT);
    assert_int_equal(put_node(&w, "a", 2, 0, false, &e), 0);
    assert_int_equal(store_format_known(w.s), 2); /* and it may still go back */
    assert_int_equal(raise(&w, 2, &e), -E_CONFLICT);
    assert_int_equal(put_node(&w, "a", 2, 2, false, &e), 0);
    assert_int_equal(put_node(&w, "c", 0, 0, true, &e), 0); /* left, it holds up nothing */
    assert_int_equal(store_format_known(w.s), 2);
    assert_false(store_format_kept(w.s, 2));
    assert_int_equal(put_node(&w, "b", 2, 2, false, &e), 0);
    assert_true(store_format_kept(w.s, 2));
    assert_int_equal(raise(&w, 2, &e), 0);
    assert_int_equal(put_node(&w, "d", 1, 1, false, &e), -E_CONFLICT);
    assert_string_equal(e.text, "node d has not promised to know format 2");
    assert_int_equal(put_node(&w, "c", 1, 1, false, &e), -E_CONFLICT); /* as one that is back */
    assert_int_equal(put_node(&w, "d", 2, 2, false, &e), 0);
    assert_int_equal(raise(&w, 1, &e), -E_CONFLICT);
    assert_string_equal(e.text, "the format of a cluster never goes back");
    store_free(w.s);
}

static void the_older_program_stops_at_the_raise_and_at_what_follows(void **state)
{
    static const char sentence[] = "this cluster writes format 2, this shoal reads up to 1: upgrade this node; its containers run on";
    struct world w = begin();
    struct err e;
    AUTO_SB struct sb image, b;
    (void)state;
    sb_init(&image, 0);
    sb_init(&b, 0);
    assert_int_equal(put_node(&w, "a", 2, 2, false, &e), 0);
    assert_int_equal(put_node(&w, "a", 2, 2, false, &e), 0);
    store_save(w.s, &image);
    struct store *old = store_new();
    format_most = 1;
    assert_int_equal(store_load(old, image.s, image.len, &e), 0);
    store_free(w.s);
    w.s = old;
    assert_int_equal(raise(&w, 2, &e), -E_UNSUPPORTED);
    assert_string_equal(e.text, sentence);
    store_free(w.s);

    w = begin();
    assert_int_equal(put_node(&w, "a", 2, 2, false, &e), 0);
    assert_int_equal(raise(&w, 2, &e), 0);
    assert_int_equal(put_node(&w, "a", 2, 2, false, &e), 0);
    assert_int_equal(((const struct node *)store_find(w.s, TABLE_NODE, "a"))->version.format, 2);
    sb_reset(&image);
    store_save(w.s, &image);
    struct store_tx *tx = store_tx_new(1);
    store_tx_delete(tx, TABLE_NODE, store_find(w.s, TABLE_NODE, "a"));
    store_tx_encode(tx, 2, &b);
    store_tx_free(tx);
    format_most = 1;
    old = store_new();
    assert_int_equal(store_load(old, image.s, image.len, &e), -E_UNSUPPORTED);
    assert_string_equal(e.text, sentence);
    assert_int_equal(store_readable(b.s, b.len, &e), -E_UNSUPPORTED);
    assert_string_equal(e.text, sentence);
    assert_int_equal(store_apply(old, 1, b.s, b.len, &e), -E_UNSUPPORTED);
    assert_string_equal(e.text, sentence);
    format_most = 2;
    assert_int_equal(store_readable(b.s, b.len, &e), 0);
    assert_int_equal(store_load(old, image.s, image.len, &e), 0);
    store_free(old);
    store_free(w.s);
}

/* In a format that is known nothing can be unknown: whoever wrote it did not keep to the rules. */
static void unknown_operations_tables_and_tags_are_not_skipped(void **state)
{
    static const struct { int op, table, tag; } unknown[] = { { STORE_DELETE + 1, TABLE_NODE, 1 }, { STORE_CREATE, TABLE_N, 1 },
                                                              { STORE_CREATE, TABLE_NODE, 99 } };
    struct err e;
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(unknown); i++) {
        struct world w = begin();
        AUTO_SB struct sb b, body;
        sb_init(&b, 0);
        sb_init(&body, 0);
        mp_map(&body, 1);
        mp_uint(&body, (uint64_t)unknown[i].tag);
        mp_str(&body, "a", 1);
        mp_list(&b, 3);
        mp_uint(&b, 1);
        mp_int(&b, 1);
        mp_list(&b, 1);
        mp_list(&b, 5);
        mp_uint(&b, (uint64_t)unknown[i].op);
        mp_uint(&b, (uint64_t)unknown[i].table);
        mp_str(&b, "a", 1);
        mp_uint(&b, 0);
        mp_bin(&b, body.s, body.len);
        assert_int_equal(store_apply(w.s, ++w.index, b.s, b.len, &e), -E_UNSUPPORTED);
        assert_int_equal(store_count(w.s, TABLE_NODE), 0);
        store_free(w.s);
    }
}

static void a_transaction_tells_what_needs_a_later_format(void **state)
{
    struct store_tx *tx = store_tx_new(1);
    struct service s = { .id = xstrdup("id") };
    (void)state;
    str_set(&s.spec.name, "web");
    store_tx_create(tx, TABLE_SERVICE, &s);
    assert_int_equal(store_tx_format(tx), 1);
    assert_null(store_tx_latest(tx));
    str_set(&s.id, "other");
    s.version.format = 2;
    store_tx_create(tx, TABLE_SERVICE, &s);
    assert_int_equal(store_tx_format(tx), 2);
    assert_string_equal(store_tx_latest(tx), "service web");
    store_tx_free(tx);
    service_clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_needs_the_format_of_what_it_holds),
        cmocka_unit_test(the_older_program_sees_no_later_tag_or_says_so),
        cmocka_unit_test(no_node_is_in_a_cluster_it_cannot_read),
        cmocka_unit_test(the_older_program_stops_at_the_raise_and_at_what_follows),
        cmocka_unit_test(unknown_operations_tables_and_tags_are_not_skipped),
        cmocka_unit_test(a_transaction_tells_what_needs_a_later_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
