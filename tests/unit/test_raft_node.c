/* Three nodes over real logs on one loop, messages handed over in memory: a follower whose log or snapshots rot while it
 * is down is repaired by the leader before it has a say again; leadership moves on request; keys rotate under load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>
#include <stdio.h>
#include <stdlib.h>

#include "wal.h"

enum { N = 3, PATIENCE_MS = 60000, POLL_MS = 2 };

struct node {
    uint64_t id;
    char dir[96];
    struct raft_node *raft;
    uint64_t count, hash; /* the state: how many entries were applied, and which */
};
struct parcel {
    uint64_t from, to;
    size_t size;
    uint8_t bytes[];
};

static struct loop *loop;
static struct node nodes[N];
static char top[64];
static uint8_t key[32] = { 1 };
static const uint8_t *old_key;
static uint64_t proposed;
static unsigned n_ok, n_failed;
static bool (*until)(void);
static int64_t deadline;
static struct loop_timer *poll_timer;

static struct node *by_id(uint64_t id)
{
    for (unsigned i = 0; i < N; i++)
        if (nodes[i].id == id)
            return &nodes[i];
    return NULL;
}

/* ---- hooks ---- */
static void deliver(void *arg)
{
    struct parcel *p = arg;
    struct node *to = by_id(p->to);
    if (to && to->raft)
        raft_node_receive(to->raft, p->from, p->bytes, p->size);
    free(p);
}

static void on_send(void *arg, uint64_t to, const void *bytes, size_t size)
{
    struct node *n = arg;
    struct raft_status s;
    struct raft_message m;
    raft_node_status(n->raft, &s);
    assert_int_equal(raft_message_decode(&m, bytes, size), 0);
    if (s.damaged) { /* no vote, and no answer that counts */
        bool refused = m.flags & RAFT_FLAG_REJECT;
        assert_false((m.type == RAFT_MSG_VOTE_REPLY || m.type == RAFT_MSG_PREVOTE_REPLY) && !refused);
        assert_false(m.type == RAFT_MSG_PREVOTE || m.type == RAFT_MSG_VOTE || m.type == RAFT_MSG_APPEND);
        if (m.type == RAFT_MSG_APPEND_REPLY || m.type == RAFT_MSG_HEARTBEAT_REPLY || m.type == RAFT_MSG_SNAPSHOT_REPLY)
            assert_true(m.flags & RAFT_FLAG_DAMAGED || m.term < s.term);
    }
    raft_message_done(&m);
    struct parcel *p = xcalloc(1, sizeof *p + size);
    *p = (struct parcel){ .from = n->id, .to = to, .size = size };
    memcpy(p->bytes, bytes, size);
    loop_defer(loop, deliver, p);
}

static void on_apply(void *arg, uint64_t index, uint64_t term, const void *bytes, size_t size)
{
    struct node *n = arg;
    (void)index, (void)term;
    n->count++;
    for (size_t i = 0; i < size; i++)
        n->hash = (n->hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
}

static void on_save(void *arg, struct sb *out)
{
    struct node *n = arg;
    sb_add(out, &n->count, 8);
    sb_add(out, &n->hash, 8);
    for (unsigned i = 0; i < 4000; i++) /* some bytes to be damaged */
        sb_char(out, (char)i);
}

static bool reads_nothing;
static int on_readable(void *arg, const void *bytes, size_t size, struct err *e)
{
    struct node *n = arg;
    (void)bytes;
    assert_int_equal(size, 300);
    assert_int_equal(n->count, 0); /* before anything is applied */
    return reads_nothing ? err_set(e, E_UNSUPPORTED, "written by a later program") : 0;
}

static int on_load(void *arg, const void *p, size_t size, struct err *e)
{
    struct node *n = arg;
    (void)e;
    assert_int_equal(size, 4016);
    memcpy(&n->count, p, 8);
    memcpy(&n->hash, (const char *)p + 8, 8);
    return 0;
}

/* ---- running ---- */
static int open_node(struct node *n, struct err *e)
{
    const struct raft_config cfg = { .election_min_ms = 150, .heartbeat_ms = 30, .snapshot_after_entries = 60,
                                     .trailing_entries = 20, .segment_bytes = 16 << 10, .snapshot_chunk_bytes = 1500 };
    const struct raft_hooks hooks = { .arg = n, .send = on_send, .apply = on_apply, .snapshot_save = on_save,
                                      .snapshot_load = on_load, .readable = on_readable };
    const struct raft_keys keys = { .now = key, .before = old_key };
    static uint64_t seed = 1;
    n->count = n->hash = 0;
    return raft_node_open(&n->raft, loop, n->dir, &keys, &cfg, &hooks, seed++, e);
}

static void start(struct node *n)
{
    struct err e = { 0 };
    if (open_node(n, &e) != 0)
        fail_msg("%s", e.text);
}

static void stop(struct node *n)
{
    raft_node_close(TAKE(n->raft));
    loop_finish(loop);
}

static void on_poll(void *arg)
{
    (void)arg;
    if (until() || loop_now_ms(loop) > deadline)
        loop_stop(loop);
    else
        loop_timer_set(poll_timer, POLL_MS);
}

static void wait_for(bool (*cond)(void), const char *what)
{
    until = cond;
    deadline = loop_now_ms(loop) + PATIENCE_MS;
    loop_timer_set(poll_timer, POLL_MS);
    loop_run(loop);
    if (!cond())
        fail_msg("not in time: %s", what);
}

static struct node *leader(void)
{
    for (unsigned i = 0; i < N; i++) {
        struct raft_status s;
        if (!nodes[i].raft)
            continue;
        raft_node_status(nodes[i].raft, &s);
        if (s.role == RAFT_LEADER && s.ready)
            return &nodes[i];
    }
    return NULL;
}
static bool has_leader(void) { return leader() != NULL; }

static void on_done(void *arg, int result, uint64_t index)
{
    (void)arg, (void)index;
    n_ok += result == 0;
    n_failed += result != 0;
}
static bool is_answered(void) { return n_ok + n_failed > 0; }

/* As many entries as given, each acknowledged before the next. */
static void propose(unsigned n)
{
    while (n > 0) {
        uint8_t bytes[300];
        wait_for(has_leader, "a leader");
        memset(bytes, 0, sizeof bytes);
        memcpy(bytes, &proposed, 8);
        n_ok = n_failed = 0;
        raft_node_propose(leader()->raft, bytes, sizeof bytes, on_done, NULL);
        wait_for(is_answered, "an answer to a proposal");
        proposed += n_ok;
        n -= n_ok;
    }
}

static bool are_same(void)
{
    const struct node *first = NULL;
    for (unsigned i = 0; i < N; i++) {
        struct raft_status s;
        if (!nodes[i].raft)
            continue;
        raft_node_status(nodes[i].raft, &s);
        first = first ? first : &nodes[i];
        if (s.damaged || nodes[i].count < proposed || nodes[i].count != first->count || nodes[i].hash != first->hash)
            return false;
    }
    return true;
}

static void member(struct node *n)
{
    struct err e;
    assert_int_equal(raft_node_join(n->raft, n->id, &e), 0);
    for (unsigned step = 0; step < 2; step++)
        do {
            wait_for(has_leader, "a leader");
            n_ok = n_failed = 0;
            if (step == 0)
                raft_node_add(leader()->raft, n->id, "x", 1, on_done, NULL);
            else
                raft_node_promote(leader()->raft, n->id, on_done, NULL);
            wait_for(is_answered, "a change of membership");
        } while (!n_ok);
}

static int set_up(void **state)
{
    struct err e;
    (void)state;
    crypto_init();
    loop = loop_new();
    poll_timer = loop_timer_new(loop, on_poll, NULL);
    snprintf(top, sizeof top, "/tmp/shoal-raft-XXXXXX");
    assert_non_null(mkdtemp(top));
    proposed = 0;
    memset(key, 1, sizeof key);
    old_key = NULL;
    for (unsigned i = 0; i < N; i++) {
        nodes[i] = (struct node){ .id = 11 + i };
        snprintf(nodes[i].dir, sizeof nodes[i].dir, "%s/%u", top, i);
        start(&nodes[i]);
    }
    assert_int_equal(raft_node_bootstrap(nodes[0].raft, nodes[0].id, "x", 1, &e), 0);
    for (unsigned i = 1; i < N; i++)
        member(&nodes[i]);
    return 0;
}

static int tear_down(void **state)
{
    struct err e;
    (void)state;
    for (unsigned i = 0; i < N; i++)
        stop(&nodes[i]);
    loop_timer_free(poll_timer);
    loop_free(loop);
    return file_remove_tree(top, &e);
}

/* ---- damage ---- */
static struct node *a_follower(void)
{
    wait_for(has_leader, "a leader");
    return leader() == &nodes[1] ? &nodes[2] : &nodes[1];
}

/* Flips a bit in each file whose name starts with prefix; returns in how many. */
static unsigned rot(const struct node *n, const char *prefix, struct rng *g)
{
    DIR *d = opendir(n->dir);
    unsigned hit = 0;
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) {
        if (!str_starts(f->d_name, prefix))
            continue;
        AUTO_FREE char *path = path_join(n->dir, f->d_name), *bytes = NULL;
        size_t size;
        struct err e;
        assert_int_equal(file_read(path, 1 << 24, &bytes, &size, &e), 0);
        size_t used = size;
        while (used && !bytes[used - 1])
            used--;
        size_t at = rng_below(g, MAX(used, 1));
        FILE *file = fopen(path, "r+");
        assert_non_null(file);
        fseek(file, (long)at, SEEK_SET);
        fputc(bytes[at] ^ 0x40, file);
        fclose(file);
        hit++;
    }
    closedir(d);
    return hit;
}

static bool is_damaged(const struct node *n)
{
    struct raft_status s;
    raft_node_status(n->raft, &s);
    return s.damaged;
}

static void test_repair(void **state)
{
    struct rng g;
    unsigned damaged = 0;
    (void)state;
    rng_init(&g, 5);
    propose(150);
    for (unsigned round = 0; round < 12; round++) {
        struct node *n = a_follower();
        stop(n);
        propose(round % 3 * 10);
        assert_true(rot(n, "wal-", &g) > 0);
        if (round % 2)
            assert_true(rot(n, "snap-", &g) > 0);
        start(n);
        damaged += is_damaged(n);
        if (round % 4 == 3) { /* once more in the middle of the repair */
            stop(n);
            start(n);
        }
        propose(15);
        wait_for(are_same, "the repaired node is as the others");
    }
    assert_true(damaged >= 6);
    /* It has its say again: with the third node gone, writes go on. */
    struct node *n = a_follower(), *other = n == &nodes[1] ? &nodes[2] : &nodes[1];
    struct node *third = leader() == other ? &nodes[0] : other;
    stop(third);
    propose(5);
    start(third);
    wait_for(are_same, "all are the same");
}

/* Two of three up, one of them damaged: it does not help to elect anybody until it is whole, and the leader does not
 * count what it holds; with the third back all is well. */
static struct node *the_damaged;
static bool nobody_leads_for_a_while(void)
{
    static int64_t since;
    if (leader())
        fail_msg("a leader by the vote of a damaged node");
    since = since ? since : loop_now_ms(loop);
    return loop_now_ms(loop) - since > 1500;
}
static void test_no_vote(void **state)
{
    struct rng g;
    (void)state;
    rng_init(&g, 7);
    propose(100);
    the_damaged = a_follower();
    for (unsigned i = 0; i < N; i++)
        stop(&nodes[i]);
    rot(the_damaged, "wal-", &g);
    rot(the_damaged, "snap-", &g);
    start(the_damaged);
    start(&nodes[0]);
    assert_true(is_damaged(the_damaged));
    wait_for(nobody_leads_for_a_while, "an election that must not be");
    start(the_damaged == &nodes[1] ? &nodes[2] : &nodes[1]);
    propose(5);
    wait_for(are_same, "all are the same");
}

/* ---- transfer ---- */
static void test_transfer(void **state)
{
    (void)state;
    propose(20);
    for (unsigned round = 0; round < 5; round++) {
        wait_for(has_leader, "a leader");
        struct node *was = leader();
        n_ok = n_failed = 0;
        raft_node_transfer(was->raft, 0, on_done, NULL);
        wait_for(is_answered, "the end of a transfer");
        assert_int_equal(n_ok, 1);
        wait_for(has_leader, "the next leader");
        assert_ptr_not_equal(leader(), was);
        propose(3);
    }
    wait_for(are_same, "all are the same");
}

/* ---- more than is taken ---- */
static unsigned n_asked, n_busy;
static void on_flood(void *arg, int result, uint64_t index)
{
    (void)arg, (void)index;
    assert_true(result == 0 || result == -E_BUSY);
    n_ok += result == 0;
    n_busy += result == -E_BUSY;
}
static bool all_are_answered(void) { return n_ok + n_busy == n_asked; }

static void flood(unsigned n, size_t size)
{
    AUTO_FREE uint8_t *bytes = xcalloc(1, size);
    wait_for(has_leader, "a leader");
    n_ok = n_busy = 0;
    n_asked = n;
    for (unsigned i = 0; i < n; i++) {
        uint64_t number = proposed + i;
        memcpy(bytes, &number, 8);
        raft_node_propose(leader()->raft, bytes, size, on_flood, NULL);
    }
}

/* What is too much is refused at once and is in no log; what was taken is committed; how much waits is told. */
static void test_flood(void **state)
{
    struct raft_status s;
    (void)state;
    flood(RAFT_PROPOSALS_MAX + 100, 100);
    assert_int_equal(n_busy, 100);
    raft_node_status(leader()->raft, &s);
    assert_int_equal(s.proposals_pending, RAFT_PROPOSALS_MAX);
    wait_for(all_are_answered, "answers to all of a flood");
    assert_int_equal(n_ok, RAFT_PROPOSALS_MAX);
    proposed += n_ok;
    raft_node_status(leader()->raft, &s);
    assert_int_equal(s.proposals_pending, 0);
    flood(40, 1 << 20); /* uncommitted_bytes is 16 MiB */
    wait_for(all_are_answered, "answers to large ones");
    assert_true(n_ok >= 15 && n_busy >= 1);
    proposed += n_ok;
    propose(3);
    wait_for(are_same, "all are the same");
    assert_int_equal(leader()->count, proposed);
}

/* ---- keys ---- */
static bool rotated;
static void on_rotated(void *arg, int result, uint64_t index)
{
    (void)arg, (void)index;
    assert_int_equal(result, 0);
    rotated = true;
}
static bool is_rotated(void) { return rotated; }
static struct node *rekeyed;
static bool is_rekeyed(void)
{
    struct raft_status s;
    raft_node_status(rekeyed->raft, &s);
    return !s.rekeying;
}

static void test_rotation(void **state)
{
    static uint8_t next[32], before[32];
    struct err e;
    (void)state;
    propose(70);
    struct node *n = rekeyed = a_follower();
    for (unsigned round = 0; round < 4; round++) {
        memcpy(before, key, 32);
        memset(next, 50 + (int)round, 32);
        if (round % 2) { /* stopped right after it began: the next start goes on */
            rotated = true;
            raft_node_set_key(n->raft, next, NULL, NULL);
            stop(n);
            memcpy(key, next, 32);
            old_key = before;
            start(n);
            propose(5);
            wait_for(is_rekeyed, "the end of the rotation");
        } else {
            rotated = false;
            raft_node_set_key(n->raft, next, on_rotated, NULL);
            propose(5);
            wait_for(is_rotated, "the end of the rotation");
        }
        stop(n);
        old_key = NULL;
        memcpy(key, before, 32);
        assert_int_equal(open_node(n, &e), -E_DENIED);
        memcpy(key, next, 32);
        start(n);
        wait_for(are_same, "all are the same");
    }
}

/* The log holds what the program that starts cannot read: it does not start, and the log stays as it is. */
static void test_unreadable(void **state)
{
    struct err e = { 0 };
    (void)state;
    propose(5);
    wait_for(are_same, "all have everything");
    stop(&nodes[2]);
    reads_nothing = true;
    assert_int_equal(open_node(&nodes[2], &e), -E_UNSUPPORTED);
    assert_string_equal(e.text, "written by a later program");
    assert_int_equal(nodes[2].count, 0);
    loop_finish(loop);
    reads_nothing = false;
    start(&nodes[2]);
    propose(5);
    wait_for(are_same, "all have everything again");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_repair, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_vote, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_transfer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_flood, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rotation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unreadable, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
