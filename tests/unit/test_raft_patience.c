/* How long a leader may be silent: what the core learns from what it sees. And a leader whose links are slow. */
#include "core.h"

#include <setjmp.h>
#include <shoal/base/mem.h>
#include <stdarg.h>

#include <cmocka.h>

enum { ME = 1, LEADER = 2, OTHER = 3, MIN_MS = 150, BEAT_MS = 50, MOST_MS = 600 };

struct node {
    struct raft *r;
    struct raft_output out;
    uint64_t request;
};

static void step(struct node *n, struct raft_input *in)
{
    raft_output_reset(&n->out);
    assert_int_equal(raft_step(n->r, in, &n->out), 0);
}

/* A follower of three voters at time 1,000, in term 1. */
static void start(struct node *n)
{
    static const uint64_t ids[] = { ME, LEADER, OTHER };
    struct raft_config cfg = { .election_min_ms = MIN_MS, .patience_max_ms = MOST_MS, .heartbeat_ms = BEAT_MS };
    struct raft_entry entry = raft_bootstrap_entry(ids, 3, "c", 1);
    struct raft_boot boot = { .id = ME, .term = 1, .entries = &entry, .n_entries = 1 };
    struct rng rng;
    struct err e;
    rng_init(&rng, 7);
    *n = (struct node){ 0 };
    raft_output_init(&n->out);
    assert_int_equal(raft_new(&n->r, &cfg, &boot, &rng, 1000, &e), 0);
    raft_buf_unref(entry.data);
}

static void stop(struct node *n)
{
    raft_output_done(&n->out);
    raft_free(n->r);
}

static void heartbeat(struct node *n, int64_t at_ms, uint64_t from, uint64_t term)
{
    struct raft_message m = { .type = RAFT_MSG_HEARTBEAT, .to = ME, .term = term, .session = 9, .request = ++n->request };
    struct raft_input in = { .type = RAFT_MESSAGE, .now_ms = at_ms, .from = from, .message = &m };
    step(n, &in);
    if (n->out.write.token) { /* the new term becomes durable */
        struct raft_input done = { .type = RAFT_DISK_DONE, .now_ms = at_ms, .token = n->out.write.token };
        step(n, &done);
    }
}

static struct raft_status status(const struct node *n)
{
    struct raft_status s;
    raft_get_status(n->r, &s);
    return s;
}

static void tick(struct node *n, int64_t at_ms)
{
    struct raft_input in = { .type = RAFT_TICK, .now_ms = at_ms };
    step(n, &in);
}

static int64_t calm(struct node *n, int64_t from_ms, int64_t for_ms)
{
    int64_t at = from_ms;
    for (; at < from_ms + for_ms; at += BEAT_MS)
        heartbeat(n, at, LEADER, 2);
    return at - BEAT_MS;
}

static void a_steady_leader_needs_little_patience(void **state)
{
    (void)state;
    struct node n;
    start(&n);
    assert_int_equal(status(&n).patience_ms, 2 * MIN_MS); /* nothing is known yet */
    int64_t at = calm(&n, 1000, 41000);
    assert_int_equal(status(&n).patience_ms, MIN_MS);
    /* a gap is remembered for 20 to 40 s, half as long again as it was */
    heartbeat(&n, at + 240, LEADER, 2);
    assert_int_equal(status(&n).patience_ms, 360);
    at = calm(&n, at + 240, 15000);
    assert_int_equal(status(&n).patience_ms, 360);
    at = calm(&n, at, 41000);
    assert_int_equal(status(&n).patience_ms, MIN_MS);
    heartbeat(&n, at + 590, LEADER, 2);
    assert_int_equal(status(&n).patience_ms, MOST_MS);
    stop(&n);
}

static void a_change_of_leader_and_a_cut_are_no_gaps(void **state)
{
    (void)state;
    struct node n;
    start(&n);
    int64_t at = calm(&n, 1000, 41000);
    heartbeat(&n, at + 500, OTHER, 3); /* the first word of the next leader */
    assert_int_equal(status(&n).leader, OTHER);
    assert_int_equal(status(&n).patience_ms, MIN_MS);
    heartbeat(&n, at + 500 + 2 * MOST_MS + 1, OTHER, 3); /* longer than any stall */
    assert_int_equal(status(&n).patience_ms, MIN_MS);
    stop(&n);
}

static void a_late_tick_is_put_off_once(void **state)
{
    (void)state;
    struct node n;
    start(&n);
    int64_t at = calm(&n, 1000, 41000), late = at + 2 * MIN_MS + BEAT_MS + 1;
    tick(&n, late); /* the process stood still beyond any timeout */
    assert_int_equal(status(&n).role, RAFT_FOLLOWER);
    assert_int_equal(status(&n).leader, LEADER);
    assert_int_equal(n.out.deadline_ms, late + BEAT_MS);
    tick(&n, late + 2 * BEAT_MS + 1); /* late again: no second time */
    assert_int_equal(status(&n).role, RAFT_PRE_CANDIDATE);
    stop(&n);
}

static void who_grants_a_pre_vote_stands_back(void **state)
{
    (void)state;
    struct node n;
    start(&n);
    int64_t at = calm(&n, 1000, 41000) + MIN_MS + 1;
    int64_t before = n.out.deadline_ms;
    struct raft_message m = { .type = RAFT_MSG_PREVOTE, .to = ME, .term = 3, .request = 1, .index = 1, .log_term = 1 };
    struct raft_input in = { .type = RAFT_MESSAGE, .now_ms = at, .from = OTHER, .message = &m };
    step(&n, &in);
    assert_int_equal(n.out.n_sends, 1);
    assert_int_equal(n.out.sends[0].message.flags & RAFT_FLAG_REJECT, 0);
    assert_int_equal(n.out.deadline_ms, MAX(before, at + MIN_MS / 3));
    assert_true(n.out.deadline_ms >= at + MIN_MS / 3);
    stop(&n);
}

/* ---- a leader ---- */

static void reply(struct node *n, int64_t at_ms, struct raft_message m)
{
    struct raft_input in = { .type = RAFT_MESSAGE, .now_ms = at_ms, .from = OTHER, .message = &m };
    m.to = ME;
    step(n, &in);
    if (n->out.write.token) {
        struct raft_input done = { .type = RAFT_DISK_DONE, .now_ms = at_ms, .token = n->out.write.token };
        step(n, &done);
    }
}

/* The message of this type to OTHER in the last output. */
static struct raft_message *sent(struct node *n, uint8_t type)
{
    for (uint32_t i = 0; i < n->out.n_sends; i++)
        if (n->out.sends[i].message.type == type && n->out.sends[i].message.to == OTHER)
            return &n->out.sends[i].message;
    return NULL;
}

/* The answer to the first probe comes when the second is long on its way. */
static void an_answer_may_take_longer_than_the_next_question(void **state)
{
    (void)state;
    struct node n;
    start(&n);
    tick(&n, 2000);
    assert_int_equal(status(&n).role, RAFT_PRE_CANDIDATE);
    uint64_t campaign = sent(&n, RAFT_MSG_PREVOTE)->request;
    struct raft_message yes = { .type = RAFT_MSG_PREVOTE_REPLY, .term = 2, .request = campaign };
    struct raft_input in = { .type = RAFT_MESSAGE, .now_ms = 2010, .from = OTHER, .message = &yes };
    yes.to = ME;
    step(&n, &in);
    campaign = sent(&n, RAFT_MSG_VOTE)->request;
    struct raft_input done = { .type = RAFT_DISK_DONE, .now_ms = 2010, .token = n.out.write.token };
    step(&n, &done);
    yes = (struct raft_message){ .type = RAFT_MSG_VOTE_REPLY, .to = ME, .term = 2, .request = campaign };
    step(&n, &in);
    assert_int_equal(status(&n).role, RAFT_LEADER);
    struct raft_message first = *sent(&n, RAFT_MSG_APPEND);
    assert_int_equal(first.index, 1);
    done.token = n.out.write.token;
    done.now_ms = 2010;
    step(&n, &done);
    struct raft_message *again = NULL;
    for (int64_t at = 2060; at <= 2160; at += BEAT_MS) {
        tick(&n, at);
        again = sent(&n, RAFT_MSG_APPEND) ? sent(&n, RAFT_MSG_APPEND) : again;
    }
    assert_non_null(again);
    assert_int_equal(status(&n).role, RAFT_LEADER);
    reply(&n, 2170, (struct raft_message){ .type = RAFT_MSG_APPEND_REPLY, .flags = RAFT_FLAG_REJECT, .term = 2, .session = first.session,
                                           .request = first.request });
    assert_non_null(sent(&n, RAFT_MSG_APPEND));
    assert_int_equal(sent(&n, RAFT_MSG_APPEND)->index, 0); /* it goes back, at once */
    stop(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_steady_leader_needs_little_patience),
        cmocka_unit_test(a_change_of_leader_and_a_cut_are_no_gaps),
        cmocka_unit_test(a_late_tick_is_put_off_once),
        cmocka_unit_test(who_grants_a_pre_vote_stands_back),
        cmocka_unit_test(an_answer_may_take_longer_than_the_next_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
