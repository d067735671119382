/* The backup's two layers: what goes in comes out, in pieces of any size; what is changed, cut or prolonged anywhere is
 * refused with the right sentence; the bounds hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/rng.h>
#include <shoal/model/backup.h>
#include <stdio.h>

static uint8_t key[32] = { 1, 2, 3 };
static const struct backup_secret with_key = { true, key, sizeof key };

static void seal_all(const uint8_t *p, size_t size, const struct backup_secret *s, struct rng *g, struct sb *out)
{
    struct backup_seal *x;
    struct err e;
    sb_init(out, 0);
    assert_int_equal(backup_seal_new(&x, s, out, &e), 0);
    for (size_t at = 0, n; at < size; at += n) {
        n = (size_t)rng_range(g, 1, 100000);
        n = MIN(size - at, n);
        backup_seal_add(x, p + at, n, out);
    }
    backup_seal_end(x, out);
    backup_seal_free(x);
}

static int open_all(const char *p, size_t size, const struct backup_secret *s, struct rng *g, struct sb *out, struct err *e)
{
    struct backup_open *x = NULL;
    bool key_file;
    sb_reset(out);
    int r = backup_header_check(p, size, &key_file, e);
    if (r == 0)
        r = backup_open_new(&x, p, s, e);
    for (size_t at = BACKUP_HEADER_BYTES, n; r == 0 && at < size; at += n) {
        n = (size_t)rng_range(g, 1, 100000);
        n = MIN(size - at, n);
        r = backup_open_add(x, p + at, n, out, e);
    }
    if (r == 0)
        r = backup_open_end(x, out, e);
    backup_open_free(x);
    return r;
}

static void what_is_sealed_comes_out(void **state)
{
    static const size_t sizes[] = { 0, 1, BACKUP_PIECE_BYTES - 1, BACKUP_PIECE_BYTES, BACKUP_PIECE_BYTES + 1,
                                    3 * BACKUP_PIECE_BYTES, 500000 };
    struct rng g;
    struct err e;
    AUTO_SB struct sb out;
    sb_init(&out, 0);
    rng_init(&g, 1);
    for (unsigned i = 0; i < ARRAY_N(sizes); i++) {
        AUTO_SB struct sb sealed;
        AUTO_FREE uint8_t *p = xcalloc(sizes[i] + 1, 1);
        rng_bytes(&g, p, sizes[i]);
        seal_all(p, sizes[i], &with_key, &g, &sealed);
        assert_int_equal(open_all(sealed.s, sealed.len, &with_key, &g, &out, &e), 0);
        assert_int_equal(out.len, sizes[i]);
        assert_memory_equal(out.s, p, sizes[i]);
    }
}

static void a_passphrase_and_a_wrong_one(void **state)
{
    const struct backup_secret right = { false, "correct horse", 13 }, wrong = { false, "correct house", 13 },
                               shorter = { false, "short", 5 }, short_key = { true, key, 31 };
    struct rng g;
    struct err e;
    struct backup_seal *x;
    AUTO_SB struct sb sealed, out;
    sb_init(&out, 0);
    rng_init(&g, 2);
    seal_all((const uint8_t *)"state", 5, &right, &g, &sealed);
    assert_int_equal(open_all(sealed.s, sealed.len, &right, &g, &out, &e), 0);
    assert_string_equal(out.s, "state");
    assert_int_equal(open_all(sealed.s, sealed.len, &wrong, &g, &out, &e), -E_DENIED);
    assert_non_null(strstr(e.text, "passphrase is not the one"));
    assert_int_equal(open_all(sealed.s, sealed.len, &with_key, &g, &out, &e), -E_DENIED);
    assert_int_equal(backup_seal_new(&x, &shorter, &out, &e), -E_INVALID);
    assert_int_equal(backup_seal_new(&x, &short_key, &out, &e), -E_INVALID);
    sealed.s[8] = 2;
    assert_int_equal(open_all(sealed.s, sealed.len, &right, &g, &out, &e), -E_UNSUPPORTED);
    assert_non_null(strstr(e.text, "later version"));
}

/* A header that asks for the memory of the whole machine, with a good check. */
static void what_a_header_may_ask_for_is_bounded(void **state)
{
    const struct backup_secret right = { false, "correct horse", 13 };
    struct rng g;
    struct err e;
    AUTO_SB struct sb sealed, out;
    sb_init(&out, 0);
    rng_init(&g, 3);
    seal_all((const uint8_t *)"state", 5, &right, &g, &sealed);
    memset(sealed.s + 24, 0x7f, 8);
    crypto_blake2s((uint8_t *)sealed.s + 80, 8, sealed.s, 80, NULL, 0);
    assert_int_equal(open_all(sealed.s, sealed.len, &right, &g, &out, &e), -E_CORRUPT);
}

static void any_change_is_seen(void **state)
{
    struct rng g;
    struct err e = { 0 };
    AUTO_SB struct sb sealed, out;
    AUTO_FREE uint8_t *p = xcalloc(200000, 1);
    sb_init(&out, 0);
    rng_init(&g, 4);
    rng_bytes(&g, p, 200000);
    seal_all(p, 200000, &with_key, &g, &sealed);
    for (unsigned i = 0; i < 400; i++) {
        size_t at = i < BACKUP_HEADER_BYTES ? i : (size_t)rng_below(&g, sealed.len);
        char old = sealed.s[at];
        sealed.s[at] = (char)(old ^ 1 << rng_below(&g, 8));
        assert_true(open_all(sealed.s, sealed.len, &with_key, &g, &out, &e) < 0);
        sealed.s[at] = old;
        size_t size = i < 100 ? i : (size_t)rng_below(&g, sealed.len);
        assert_true(open_all(sealed.s, size, &with_key, &g, &out, &e) < 0);
    }
    const size_t piece = BACKUP_PIECE_BYTES + CRYPTO_TAG_SIZE;
    assert_true(open_all(sealed.s, BACKUP_HEADER_BYTES + 2 * piece, &with_key, &g, &out, &e) < 0);
    assert_non_null(strstr(e.text, "cut off"));
    AUTO_FREE char *swapped = xmemdup(sealed.s, sealed.len); /* two pieces in each other's place */
    memcpy(swapped + BACKUP_HEADER_BYTES, sealed.s + BACKUP_HEADER_BYTES + piece, piece);
    memcpy(swapped + BACKUP_HEADER_BYTES + piece, sealed.s + BACKUP_HEADER_BYTES, piece);
    assert_int_equal(open_all(swapped, sealed.len, &with_key, &g, &out, &e), -E_CORRUPT);
    assert_int_equal(open_all(sealed.s, sealed.len, &with_key, &g, &out, &e), 0);
}

/* ---- frames ---- */
struct got { unsigned manifests, objects; size_t bytes; };

static int got_manifest(void *arg, const struct backup_manifest *m, struct err *e)
{
    ((struct got *)arg)->manifests += str_equal(m->cluster_id, "cluster");
    return 0;
}

static int got_object(void *arg, unsigned table, const void *packed, size_t size, struct err *e)
{
    struct got *g = arg;
    g->objects++;
    g->bytes += size;
    return table == 99 ? err_set(e, E_UNSUPPORTED, "no such table") : 0;
}

static int read_frames(const struct sb *b, size_t step, struct got *got, struct err *e)
{
    const struct backup_sink sink = { got, got_manifest, got_object };
    struct backup_reader r;
    int rc = 0;
    *got = (struct got){ 0 };
    backup_reader_init(&r);
    for (size_t at = 0; rc == 0 && at < b->len; at += step)
        rc = backup_reader_take(&r, b->s + at, MIN(step, b->len - at), &sink, e);
    if (rc == 0)
        rc = backup_reader_end(&r, e);
    backup_reader_done(&r);
    return rc;
}

static void frames(struct sb *b, bool manifest, unsigned objects, uint64_t said, bool end)
{
    struct backup_manifest m = { 0 };
    AUTO_FREE char *big = xcalloc(300000, 1);
    sb_init(b, 0);
    str_set(&m.cluster_id, "cluster");
    if (manifest)
        backup_put_manifest(b, &m);
    for (unsigned i = 0; i < objects; i++)
        backup_put_object(b, i % 7, big, i * 50000);
    if (end)
        backup_put_end(b, said);
    backup_manifest_clear(&m);
}

static void frames_come_out_whole_and_in_order(void **state)
{
    struct got got;
    struct err e = { 0 };
    static const size_t steps[] = { 1, 3, 4096, 10 << 20 };
    AUTO_SB struct sb b;
    frames(&b, true, 5, 5, true);
    for (unsigned i = 0; i < ARRAY_N(steps); i++) {
        assert_int_equal(read_frames(&b, steps[i], &got, &e), 0);
        assert_true(got.manifests == 1 && got.objects == 5 && got.bytes == 500000);
    }
    sb_add(&b, "x", 1);
    assert_int_equal(read_frames(&b, 4096, &got, &e), -E_CORRUPT);
    static const struct { bool manifest; unsigned objects; uint64_t said; bool end; const char *why; } bad[] = {
        { false, 2, 2, true, "begin with a manifest" }, { true, 2, 3, true, "missing" }, { true, 2, 2, false, "too early" },
        { false, 0, 0, false, "too early" },
    };
    for (unsigned i = 0; i < ARRAY_N(bad); i++) {
        AUTO_SB struct sb x;
        frames(&x, bad[i].manifest, bad[i].objects, bad[i].said, bad[i].end);
        assert_int_equal(read_frames(&x, 1000, &got, &e), -E_CORRUPT);
        assert_non_null(strstr(e.text, bad[i].why));
    }
    AUTO_SB struct sb x;
    frames(&x, true, 0, 0, false);
    sb_add(&x, "\xff\xff\xff\x7f\x02", 5);
    assert_int_equal(read_frames(&x, 1, &got, &e), -E_CORRUPT);
    assert_non_null(strstr(e.text, "too long"));
    AUTO_SB struct sb y;
    frames(&y, true, 0, 0, false);
    backup_put_object(&y, 99, "", 0);
    assert_int_equal(read_frames(&y, 1, &got, &e), -E_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_comes_out),
        cmocka_unit_test(a_passphrase_and_a_wrong_one),
        cmocka_unit_test(what_a_header_may_ask_for_is_bounded),
        cmocka_unit_test(any_change_is_seen),
        cmocka_unit_test(frames_come_out_whole_and_in_order),
    };
    crypto_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
