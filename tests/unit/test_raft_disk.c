/* The files of the log under damage: a bit flipped in every record of every kind, in headers, snapshots and in the copy
 * of term and vote; files that vanish; a torn tail. What opens must be what was written up to the damage, term and vote
 * whole, and `damaged` until a write says that the log is whole again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "wal.h"

enum { BATCHES = 24, LAST_MAX = 64, SEGMENT_BYTES = 16 << 10, ID = 77 };

static const uint8_t key[32] = { 1 }, next_key[32] = { 2 };
static const struct raft_keys keys = { .now = key };

struct state { /* after so many batches */
    uint64_t last, term, vote, snapshot;
    uint64_t term_at[LAST_MAX];
};
static struct state states[BATCHES + 1];
static char dir[64], copy[64];

/* ---- writing ---- */
static void write_one(struct raft_disk *d, struct raft_write *w)
{
    struct err e;
    assert_int_equal(raft_disk_write(d, &w, 1, &e), 0);
}

static struct raft_buf *image_of(uint64_t index, uint64_t term)
{
    static uint8_t head[32] = { 'R', 'S', 'N', '1' };
    uint64_t ids[3] = { ID, 78, 79 };
    struct raft_entry first = raft_bootstrap_entry(ids, 3, "x", 1);
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    head[4] = (uint8_t)index;
    head[12] = (uint8_t)term;
    head[20] = 1;
    head[28] = (uint8_t)first.data->size;
    sb_add(&b, head, sizeof head);
    sb_add(&b, first.data->data, first.data->size);
    raft_buf_unref(first.data);
    sb_str(&b, "the state");
    raft_image_finish(&b);
    return raft_buf_new(b.s, b.len);
}

/* Appends two entries of some KiB, so that a segment holds a few batches; every fifth batch cuts one off first. */
static void append(struct raft_disk *d, unsigned k, struct state *s)
{
    struct raft_entry entries[2];
    struct raft_write w = { .token = k, .has_hard = k % 4 == 1, .voters = 3, .entries = entries, .n_entries = 2 };
    if (w.has_hard) {
        s->term++;
        s->vote = 77 + s->term % 3;
    }
    w.term = s->term;
    w.vote = s->vote;
    if (k % 5 == 0)
        w.truncate_from = s->last--;
    for (unsigned i = 0; i < 2; i++) {
        static uint8_t bytes[1500];
        memset(bytes, (int)s->last, sizeof bytes);
        entries[i] = (struct raft_entry){ .index = ++s->last, .term = s->term, .type = RAFT_ENTRY_NORMAL,
                                          .data = raft_buf_new(bytes, sizeof bytes) };
        s->term_at[s->last] = s->term;
    }
    write_one(d, &w);
    for (unsigned i = 0; i < 2; i++)
        raft_buf_unref(entries[i].data);
}

static void install(struct raft_disk *d, struct state *s)
{
    struct raft_write w = { .token = 1, .term = s->term, .vote = s->vote, .voters = 3, .install_index = s->last + 5,
                            .install_term = s->term };
    w.install = image_of(w.install_index, w.install_term);
    s->snapshot = s->last = w.install_index;
    write_one(d, &w);
    raft_buf_unref(w.install);
}

static struct raft_disk *open_ok(const char *path, struct raft_boot *ret)
{
    struct raft_disk *d;
    struct err e = { 0 };
    memset(ret, 0, sizeof *ret);
    if (raft_disk_open(&d, path, &keys, SEGMENT_BYTES, 1 << 20, ret, &e) != 0)
        fail_msg("%s", e.text);
    return d;
}

/* A log of several segments; with_install: a leader's snapshot in the middle. */
static void write_log(bool with_install)
{
    struct raft_boot boot;
    struct err e;
    snprintf(dir, sizeof dir, "/tmp/shoal-wal-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(copy, sizeof copy, "%s.copy", dir);
    struct raft_disk *d = open_ok(dir, &boot);
    memset(states, 0, sizeof states);
    raft_disk_set_id(d, ID);
    struct raft_write first = { .token = 1, .voters = 3, .has_hard = true };
    write_one(d, &first);
    for (unsigned k = 1; k <= BATCHES; k++) {
        states[k] = states[k - 1];
        if (with_install && k == BATCHES / 2)
            install(d, &states[k]);
        else
            append(d, k, &states[k]);
        if (k % 8 == 0) { /* a restart: another segment */
            raft_disk_close(d);
            d = open_ok(dir, &boot);
            raft_boot_done(&boot);
        }
    }
    raft_disk_close(d);
    (void)e;
}

static void make_copy(void)
{
    struct err e;
    const char *const argv[] = { "cp", "-a", dir, copy, NULL };
    assert_int_equal(file_remove_tree(copy, &e), 0);
    assert_int_equal(proc_run(argv, NULL, &e), 0);
}

static void remove_all(void)
{
    struct err e;
    assert_int_equal(file_remove_tree(copy, &e), 0);
    assert_int_equal(file_remove_tree(dir, &e), 0);
}

/* ---- damage ---- */
static void flip(const char *name, size_t at)
{
    AUTO_FREE char *path = path_join(copy, name);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_true(c >= 0);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    fputc(c ^ 0x10, f);
    assert_int_equal(fclose(f), 0);
}

static bool is_state(const struct state *s, const struct raft_boot *b, uint64_t snapshot)
{
    if (snapshot + b->n_entries != s->last)
        return false;
    for (uint32_t i = 0; i < b->n_entries; i++)
        if (b->entries[i].index != snapshot + 1 + i || b->entries[i].term != s->term_at[snapshot + 1 + i])
            return false;
    return true;
}

/* Opens the copy: at most `k` whole batches, exactly those. Then what a repair does: more entries, then whole. */
static void expect_cut(unsigned k, const char *what)
{
    struct raft_boot boot;
    struct raft_disk *d = open_ok(copy, &boot);
    const struct state *end = &states[BATCHES];
    if (!boot.damaged || !is_state(&states[k], &boot, boot.snapshot_index))
        fail_msg("%s: opened %s with %llu + %u entries, not the state after %u batches", what,
                 boot.damaged ? "damaged" : "as whole", (unsigned long long)boot.snapshot_index, boot.n_entries, k);
    assert_int_equal(boot.id, ID);
    assert_true(boot.term == end->term && boot.vote == end->vote); /* of the whole log */
    assert_true(boot.commit <= boot.snapshot_index + boot.n_entries);
    struct state s = states[k];
    s.term = end->term + 1;
    s.vote = end->vote;
    raft_boot_done(&boot);
    append(d, 2, &s);
    raft_disk_close(d);
    d = open_ok(copy, &boot);
    assert_true(boot.damaged && is_state(&s, &boot, boot.snapshot_index));
    raft_boot_done(&boot);
    struct raft_write whole = { .token = 9, .term = s.term, .vote = s.vote, .voters = 3, .whole = true };
    write_one(d, &whole);
    raft_disk_close(d);
    d = open_ok(copy, &boot);
    assert_true(!boot.damaged && is_state(&s, &boot, boot.snapshot_index));
    raft_boot_done(&boot);
    raft_disk_close(d);
}

static void expect_whole(const struct state *s, uint64_t snapshot)
{
    struct raft_boot boot;
    struct raft_disk *d = open_ok(copy, &boot);
    assert_true(!boot.damaged && boot.snapshot_index == snapshot && is_state(s, &boot, snapshot));
    assert_true(boot.term == s->term && boot.vote == s->vote);
    raft_boot_done(&boot);
    raft_disk_close(d);
}

/* Walks the segments; each record is damaged in its header and in its body. */
static void damage_each_record(void)
{
    unsigned batch = 0, kinds = 0, segments = 0;
    for (unsigned number = 1; number < 100; number++) {
        char name[32];
        snprintf(name, sizeof name, "wal-%016x", number);
        AUTO_FREE char *path = path_join(dir, name), *bytes = NULL;
        size_t size, at = WAL_SEGMENT_HEADER_BYTES;
        struct wal_segment h;
        struct wal_record r;
        struct err e;
        if (file_read(path, 1 << 20, &bytes, &size, &e) != 0)
            break;
        segments++;
        assert_true(wal_segment_decode(&h, (uint8_t *)bytes, size));
        unsigned before = batch ? batch - 1 : 0; /* the first batch of all is the node's birth */
        make_copy();
        flip(name, 70);
        expect_cut(before, "segment header");
        for (size_t start = at; wal_record_peek(h.salt, (uint8_t *)bytes, size, &at, &r) == 0; start = at) {
            batch += r.type == WAL_BATCH;
            kinds |= 1u << r.type;
            for (unsigned body = 0; body < 2; body++) {
                make_copy();
                if (body && !r.size)
                    continue;
                flip(name, start + (body ? WAL_RECORD_BYTES + r.size / 2 : 20));
                char what[64];
                snprintf(what, sizeof what, "type %u in %s at %zu%s", r.type, name, start, body ? ", body" : "");
                if (r.type == WAL_MARK)
                    expect_whole(&states[BATCHES], 0);
                else
                    expect_cut(batch > 1 ? batch - 2 : 0, what);
            }
        }
    }
    assert_int_equal(batch, BATCHES + 1);
    assert_true(segments >= 4);
    assert_int_equal(kinds, 1u << WAL_BATCH | 1u << WAL_MARK | 1u << WAL_HARD | 1u << WAL_ENTRY | 1u << WAL_TRUNCATE);
}

static void test_each_record(void **state)
{
    (void)state;
    write_log(false);
    damage_each_record();
    remove_all();
}

/* The last batch with no mark behind it: torn, and never acknowledged. */
static void test_torn_tail(void **state)
{
    (void)state;
    write_log(false);
    struct raft_boot boot;
    struct raft_disk *d = open_ok(dir, &boot);
    struct state s = states[BATCHES];
    raft_boot_done(&boot);
    append(d, 2, &s);
    raft_disk_close(d);
    char name[32], last[32] = "";
    for (unsigned n = 1; n < 100; n++) {
        snprintf(name, sizeof name, "wal-%016x", n);
        AUTO_FREE char *path = path_join(dir, name);
        if (file_exists(path))
            memcpy(last, name, sizeof last);
    }
    AUTO_FREE char *path = path_join(dir, last), *bytes = NULL;
    size_t size, at = WAL_SEGMENT_HEADER_BYTES, entry = 0, mark = 0;
    struct wal_segment h;
    struct wal_record r;
    struct err e;
    assert_int_equal(file_read(path, 1 << 20, &bytes, &size, &e), 0);
    assert_true(wal_segment_decode(&h, (uint8_t *)bytes, size));
    for (size_t start = at; wal_record_peek(h.salt, (uint8_t *)bytes, size, &at, &r) == 0; start = at) {
        entry = r.type == WAL_ENTRY ? start : entry;
        mark = r.type == WAL_MARK ? start : mark;
    }
    make_copy();
    flip(last, entry + 100);
    flip(last, mark + 20);
    expect_whole(&states[BATCHES], 0);
    make_copy();
    flip(last, entry + 100); /* the mark vouches for it */
    expect_cut(BATCHES, "last batch");
    remove_all();
}

/* Snapshots: a damaged one is replaced by the one before and the log; damage below a snapshot costs nothing. */
static void test_snapshots(void **state)
{
    (void)state;
    write_log(false);
    struct raft_boot boot;
    struct err e;
    struct raft_disk *d = open_ok(dir, &boot);
    raft_boot_done(&boot);
    const struct state *end = &states[BATCHES];
    uint64_t middle = end->last / 2;
    struct raft_buf *older = image_of(middle, end->term_at[middle]);
    struct raft_buf *newer = image_of(end->last - 2, end->term_at[end->last - 2]);
    assert_int_equal(raft_disk_save_snapshot(d, older, &e), 0);
    assert_int_equal(raft_disk_save_snapshot(d, newer, &e), 0);
    raft_buf_unref(older);
    raft_buf_unref(newer);
    raft_disk_close(d);
    char snap[64];
    snprintf(snap, sizeof snap, "snap-%016llx-%016llx", (unsigned long long)end->last - 2,
             (unsigned long long)end->term_at[end->last - 2]);
    make_copy();
    expect_whole(end, end->last - 2);
    flip(snap, 30); /* header */
    expect_whole(end, middle);
    make_copy();
    flip(snap, 100); /* body */
    expect_whole(end, middle);
    make_copy();
    flip("wal-0000000000000001", WAL_SEGMENT_HEADER_BYTES + 60);
    expect_whole(end, end->last - 2);
    make_copy();
    flip("wal-0000000000000002", 50);
    expect_whole(end, end->last - 2);
    remove_all();
}

static void test_installed(void **state)
{
    (void)state;
    write_log(true);
    const struct state *end = &states[BATCHES], *at = &states[BATCHES / 2];
    make_copy();
    expect_whole(end, at->snapshot);
    char snap[64];
    snprintf(snap, sizeof snap, "snap-%016llx-%016llx", (unsigned long long)at->snapshot, (unsigned long long)at->term);
    flip(snap, 100); /* all behind it hangs in the air */
    expect_cut(BATCHES / 2 - 1, "installed snapshot");
    remove_all();
}

/* The copy of term and vote: one slot may go; with both gone a damaged log stays closed, a whole one is
 * in doubt until it was compared with a leader's. */
static void test_hard(void **state)
{
    (void)state;
    write_log(false);
    struct raft_boot boot;
    struct err e = { 0 };
    struct raft_disk *d;
    make_copy();
    flip("hard", 20);
    flip("hard", 4096 + 20);
    expect_whole(&states[BATCHES], 0);
    make_copy();
    flip("hard", 20);
    flip("hard", 4096 + 20);
    flip("wal-0000000000000001", WAL_SEGMENT_HEADER_BYTES + 60);
    memset(&boot, 0, sizeof boot);
    assert_int_equal(raft_disk_open(&d, copy, &keys, SEGMENT_BYTES, 1 << 20, &boot, &e), -E_CORRUPT);
    assert_non_null(strstr(e.text, "wal-0000000000000001 is damaged at offset"));
    assert_non_null(strstr(e.text, "replace this node under a new id"));
    /* Everything gone but the copy: the node knows who it is and what it promised. */
    make_copy();
    for (unsigned n = 1; n < 100; n++) {
        char name[32];
        snprintf(name, sizeof name, "wal-%016x", n);
        AUTO_FREE char *path = path_join(copy, name);
        unlink(path);
    }
    expect_cut(0, "no segment");
    remove_all();
}

/* What the two slots alone knew, that the log is not whole, must not be lost with them; a manager alone asks nobody. */
static void test_hard_doubt(void **state)
{
    (void)state;
    static const uint64_t ids[] = { ID, ID + 1, ID + 2 };
    for (unsigned voters = 1; voters <= 3; voters += 2) {
        struct raft_boot boot;
        snprintf(dir, sizeof dir, "/tmp/shoal-wal-XXXXXX");
        assert_non_null(mkdtemp(dir));
        snprintf(copy, sizeof copy, "%s.copy", dir);
        struct raft_entry entry = raft_bootstrap_entry(ids, voters, "c", 1);
        struct raft_write w = { .token = 1, .has_hard = true, .term = 1, .voters = voters, .entries = &entry, .n_entries = 1 };
        struct raft_disk *d = open_ok(dir, &boot);
        raft_disk_set_id(d, ID);
        write_one(d, &w);
        for (w.term = 2; w.term < 4; w.term++) {
            struct raft_write more = { .token = w.term, .has_hard = true, .term = w.term, .vote = ID, .voters = voters };
            write_one(d, &more);
        }
        raft_disk_close(d);
        raft_buf_unref(entry.data);
        make_copy();
        flip("hard", 20);
        flip("hard", 4096 + 20);
        for (unsigned k = 0; k < 2; k++) { /* and it is still known at the next start */
            d = open_ok(copy, &boot);
            assert_int_equal(boot.damaged, voters > 1);
            assert_true(boot.n_entries == 1 && boot.term == 3 && boot.vote == ID);
            raft_boot_done(&boot);
            raft_disk_close(d);
        }
        for (unsigned slot = 0; slot < 2; slot++) { /* one slot rots, that is found, and then the log is gone */
            make_copy();
            flip("hard", slot * 4096 + 20);
            d = open_ok(copy, &boot);
            raft_boot_done(&boot);
            raft_disk_close(d);
            AUTO_FREE char *log = path_join(copy, "wal-0000000000000001");
            assert_int_equal(unlink(log), 0);
            memset(&boot, 0, sizeof boot);
            struct err e = { 0 };
            int rc = raft_disk_open(&d, copy, &keys, SEGMENT_BYTES, 1 << 20, &boot, &e);
            assert_int_equal(rc, voters > 1 ? 0 : -E_CORRUPT);
            if (rc == 0) {
                assert_true(boot.damaged && boot.term == 3 && boot.vote == ID);
                raft_boot_done(&boot);
                raft_disk_close(d);
            }
        }
        remove_all();
    }
}

static void test_single(void **state)
{
    (void)state;
    write_log(false);
    struct raft_boot boot;
    struct err e = { 0 };
    struct raft_disk *d = open_ok(dir, &boot);
    raft_boot_done(&boot);
    const struct state *end = &states[BATCHES];
    struct raft_write alone = { .token = 1, .term = end->term, .vote = end->vote, .voters = 1 };
    write_one(d, &alone);
    raft_disk_close(d);
    make_copy();
    flip("wal-0000000000000001", WAL_SEGMENT_HEADER_BYTES + 60);
    for (unsigned twice = 0; twice < 2; twice++) { /* nothing is put aside, so that it can be looked at and copied */
        memset(&boot, 0, sizeof boot);
        assert_int_equal(raft_disk_open(&d, copy, &keys, SEGMENT_BYTES, 1 << 20, &boot, &e), -E_CORRUPT);
        assert_non_null(strstr(e.text, "shoal restore"));
    }
    remove_all();
}

/* ---- keys ---- */
static void test_rekey(void **state)
{
    (void)state;
    write_log(false);
    struct raft_boot boot;
    struct err e;
    struct raft_disk *d = open_ok(dir, &boot);
    raft_boot_done(&boot);
    struct state s = states[BATCHES];
    append(d, 2, &s);
    assert_int_equal(raft_disk_rekey(d, next_key, &e), 0);
    append(d, 2, &s);
    assert_true(raft_disk_trim(d) > 0);
    raft_disk_close(d);
    const struct raft_keys both = { .now = next_key, .before = key }, old = { .now = key }, new = { .now = next_key };
    memset(&boot, 0, sizeof boot);
    assert_int_equal(raft_disk_open(&d, dir, &old, SEGMENT_BYTES, 1 << 20, &boot, &e), -E_DENIED);
    assert_int_equal(raft_disk_open(&d, dir, &new, SEGMENT_BYTES, 1 << 20, &boot, &e), -E_DENIED);
    assert_int_equal(raft_disk_open(&d, dir, &both, SEGMENT_BYTES, 1 << 20, &boot, &e), 0);
    assert_true(is_state(&s, &boot, 0));
    raft_boot_done(&boot);
    assert_int_equal(raft_disk_rekey(d, NULL, &e), 0);
    struct raft_buf *image = image_of(s.last, s.term);
    assert_int_equal(raft_disk_save_snapshot(d, image, &e), 0);
    raft_buf_unref(image);
    assert_int_equal(raft_disk_trim(d), 0);
    append(d, 2, &s);
    raft_disk_close(d);
    assert_int_equal(raft_disk_open(&d, dir, &new, SEGMENT_BYTES, 1 << 20, &boot, &e), 0);
    assert_true(boot.snapshot_index == s.last - 2 && boot.n_entries == 2);
    raft_boot_done(&boot);
    raft_disk_close(d);
    make_copy();
    remove_all();
}

/* Just after a key was changed: one snapshot, and a segment behind it that holds nothing yet. */
static void test_snapshot_alone(void **state)
{
    (void)state;
    write_log(false);
    const struct raft_keys new = { .now = next_key };
    const struct state *end = &states[BATCHES];
    struct raft_boot boot;
    struct err e;
    struct raft_disk *d = open_ok(dir, &boot);
    raft_boot_done(&boot);
    assert_int_equal(raft_disk_rekey(d, next_key, &e), 0);
    struct raft_buf *image = image_of(end->last, end->term);
    assert_int_equal(raft_disk_save_snapshot(d, image, &e), 0);
    raft_buf_unref(image);
    assert_int_equal(raft_disk_trim(d), 0);
    raft_disk_close(d);
    make_copy();
    assert_int_equal(raft_disk_open(&d, copy, &new, SEGMENT_BYTES, 1 << 20, &boot, &e), 0);
    assert_true(!boot.damaged && boot.snapshot_index == end->last && !boot.n_entries);
    raft_boot_done(&boot);
    raft_disk_close(d);
    char snap[64];
    snprintf(snap, sizeof snap, "snap-%016llx-%016llx", (unsigned long long)end->last, (unsigned long long)end->term);
    flip(snap, 100);
    assert_int_equal(raft_disk_open(&d, copy, &new, SEGMENT_BYTES, 1 << 20, &boot, &e), 0);
    assert_true(boot.damaged && !boot.snapshot_index && !boot.n_entries && boot.id == ID && boot.term == end->term && boot.vote == end->vote);
    raft_boot_done(&boot);
    raft_disk_close(d);
    remove_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_record), cmocka_unit_test(test_torn_tail), cmocka_unit_test(test_snapshots), cmocka_unit_test(test_snapshot_alone),
        cmocka_unit_test(test_installed),   cmocka_unit_test(test_hard),      cmocka_unit_test(test_hard_doubt),      cmocka_unit_test(test_single),
        cmocka_unit_test(test_rekey),
    };
    crypto_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
