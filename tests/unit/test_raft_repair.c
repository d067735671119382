/* A node whose log lost something: what it may believe of its leader before it is whole again. */
#include "core.h"

#include <setjmp.h>
#include <shoal/base/mem.h>
#include <stdarg.h>

#include <cmocka.h>

enum { ME = 1, LEADER = 2, OTHER = 3 };

static struct raft *r;
static struct raft_output out;

static void step(struct raft_input *in)
{
    raft_output_reset(&out);
    in->now_ms = 2000;
    assert_int_equal(raft_step(r, in, &out), 0);
}

static void receive(struct raft_message *m)
{
    struct raft_input in = { .type = RAFT_MESSAGE, .from = LEADER, .message = m };
    m->to = ME;
    m->term = 2;
    m->session = 9;
    m->request++;
    step(&in);
    if (out.write.token) {
        struct raft_input done = { .type = RAFT_DISK_DONE, .token = out.write.token };
        step(&done);
    }
}

static uint64_t commit(void)
{
    struct raft_status s;
    raft_get_status(r, &s);
    return s.commit;
}

static void boot(struct raft_entry *entries, unsigned n, bool damaged)
{
    static const uint64_t ids[] = { ME, LEADER, OTHER };
    struct raft_boot boot = { .id = ME, .term = 2, .commit = 1, .damaged = damaged, .entries = entries, .n_entries = n };
    struct raft_config cfg = { 0 };
    struct rng rng;
    struct err e;
    entries[0] = raft_bootstrap_entry(ids, 3, "c", 1);
    for (unsigned i = 1; i < n; i++)
        entries[i] = (struct raft_entry){ .index = i + 1, .term = 1, .type = RAFT_ENTRY_NORMAL };
    rng_init(&rng, 7);
    raft_output_init(&out);
    assert_int_equal(raft_new(&r, &cfg, &boot, &rng, 1000, &e), 0);
    raft_buf_unref(entries[0].data);
}

static void done(void)
{
    raft_output_done(&out);
    raft_free(r);
}

/* Entries 2 and 3 of term 1 had been truncated and written anew in term 2; the damage took that with it, or the disk was
 * put back. A heartbeat names a commit up to what the node had acknowledged then (found by sim_raft). */
static void a_commit_is_not_believed_before_the_log_is_compared(void **state)
{
    (void)state;
    for (int damaged = 0; damaged < 2; damaged++) {
        struct raft_entry entries[3];
        boot(entries, 3, damaged);
        struct raft_message beat = { .type = RAFT_MSG_HEARTBEAT, .commit = 3 };
        receive(&beat);
        assert_int_equal(commit(), 1);
        struct raft_entry *again = xcalloc(2, sizeof *again);
        for (unsigned i = 0; i < 2; i++)
            again[i] = (struct raft_entry){ .index = i + 2, .term = 2, .type = RAFT_ENTRY_NORMAL };
        struct raft_message append = { .type = RAFT_MSG_APPEND, .index = 1, .log_term = 1, .entries = again, .n_entries = 2 };
        receive(&append);
        raft_message_done(&append);
        receive(&beat);
        assert_int_equal(commit(), 3);
        assert_int_equal(raft_peek(r, 2)->term, 2);
        done();
    }
}

/* The leader names a commit only up to what this node has acknowledged to it; that lies beyond the end of its log, or is
 * another entry there. */
static void a_log_that_is_older_than_what_was_acknowledged_is_damaged(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 2; n++) {
        struct raft_entry entries[2];
        struct raft_status s;
        boot(entries, n, false);
        struct raft_message beat = { .type = RAFT_MSG_HEARTBEAT, .to = ME, .term = 2, .session = 9, .request = 1, .commit = 1 };
        struct raft_message probe = { .type = RAFT_MSG_APPEND, .to = ME, .term = 2, .session = 9, .request = 2, .index = 2, .log_term = 2 };
        struct raft_input in = { .type = RAFT_MESSAGE, .from = LEADER, .message = &beat };
        step(&in);
        assert_int_equal(out.sends[0].message.index, 0); /* known to be committed at the start */
        in.message = &probe;
        step(&in); /* what it holds may be of another branch as long as nobody says that it acknowledged that much */
        in.message = &beat;
        beat.commit = 2;
        if (n == 2) {
            step(&in);
            raft_get_status(r, &s);
            assert_false(s.damaged);
            assert_int_equal(out.sends[0].message.index, 1);
            in.message = &probe;
        }
        step(&in);
        raft_get_status(r, &s);
        assert_true(s.damaged && out.write.lost && out.write.token);
        assert_int_equal(out.n_sends, 1); /* the leader hears of it when it is on disk, not before */
        assert_true(out.sends[0].message.flags & RAFT_FLAG_DAMAGED);
        assert_int_equal(out.sends[0].token, out.write.token);
        done();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_commit_is_not_believed_before_the_log_is_compared),
                                        cmocka_unit_test(a_log_that_is_older_than_what_was_acknowledged_is_damaged) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
