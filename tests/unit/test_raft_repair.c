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

/* Entries 2 and 3 of term 1 had been truncated and written anew in term 2; the damage took that with it. A heartbeat
 * that was under way when the node came back names a commit up to what it had acknowledged then (found by sim_raft). */
static void a_commit_of_before_the_damage_is_not_believed(void **state)
{
    (void)state;
    static const uint64_t ids[] = { ME, LEADER, OTHER };
    for (int damaged = 0; damaged < 2; damaged++) {
        struct raft_entry entries[3] = { raft_bootstrap_entry(ids, 3, "c", 1) };
        for (unsigned i = 1; i < 3; i++)
            entries[i] = (struct raft_entry){ .index = i + 1, .term = 1, .type = RAFT_ENTRY_NORMAL };
        struct raft_boot boot = { .id = ME, .term = 2, .commit = 1, .damaged = damaged, .entries = entries, .n_entries = 3 };
        struct raft_config cfg = { 0 };
        struct rng rng;
        struct err e;
        rng_init(&rng, 7);
        raft_output_init(&out);
        assert_int_equal(raft_new(&r, &cfg, &boot, &rng, 1000, &e), 0);
        raft_buf_unref(entries[0].data);
        struct raft_message beat = { .type = RAFT_MSG_HEARTBEAT, .commit = 3 };
        receive(&beat);
        assert_int_equal(commit(), damaged ? 1 : 3);
        if (damaged) {
            struct raft_entry *again = xcalloc(2, sizeof *again);
            for (unsigned i = 0; i < 2; i++)
                again[i] = (struct raft_entry){ .index = i + 2, .term = 2, .type = RAFT_ENTRY_NORMAL };
            struct raft_message append = { .type = RAFT_MSG_APPEND, .index = 1, .log_term = 1, .entries = again, .n_entries = 2 };
            receive(&append);
            raft_message_done(&append);
            receive(&beat);
            assert_int_equal(commit(), 3);
            assert_int_equal(raft_peek(r, 2)->term, 2);
        }
        raft_output_done(&out);
        raft_free(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_commit_of_before_the_damage_is_not_believed) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
