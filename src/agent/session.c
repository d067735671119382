/* The session: HELLO to the manager believed to lead, until an assignment (or "as held") comes from it. Any
 * other manager answers with the leader's id. While there is no answer the known managers are asked in turn. */
#include "agent_internal.h"
#include <shoal/base/le.h>
#include <shoal/base/log.h>
#include <shoal/model/format.h>

LOG_MODULE("agent");

enum { ASK_MS = 250, KEEP_MS = 5000, ANEW_MS = 1000, HINT_MS = 5 /* two managers naming each other must not spin */ };

static const char *next_manager(struct agent *a)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < a->assignment.nodes.n; i++)
        n += a->assignment.nodes.v[i].spec.role == ROLE_MANAGER;
    unsigned pick = a->next_seed++;
    if (!n)
        return a->n_seeds ? a->seeds[pick % a->n_seeds] : NULL;
    pick %= n;
    for (uint32_t i = 0; i < a->assignment.nodes.n; i++)
        if (a->assignment.nodes.v[i].spec.role == ROLE_MANAGER && pick-- == 0)
            return a->assignment.nodes.v[i].id;
    return NULL;
}

static uint64_t format_wanted(const struct agent *a)
{
    return MAX(a->assignment.format, a->assignment.format_next);
}

static void say_hello(struct agent *a, const char *to)
{
    struct sb b;
    sb_init(&b, 0);
    a->anew_due = false;
    a->asked_ms = loop_now_ms(a->loop);
    a->hello.have.v = a->has_version ? a->version : NULL;
    a->hello.have.n = a->has_version ? 32 : 0;
    a->hello.in_force = a->in_force;
    a->hello.held = a->assignment.index;
    a->hello.tells = a->hello.tables = true;
    a->hello.table = a->table;
    a->hello.table_epoch = a->table_epoch;
    if (a->hooks.promise)
        a->hello.formats.promised = a->hooks.promise(a->hooks.arg, format_wanted(a));
    rec_pack(&session_hello_rec, &a->hello, &b);
    a->hello.have = (struct bytes){ 0 };
    a->hooks.send(a->hooks.arg, to, MSG_HELLO, b.s, b.len);
    sb_done(&b);
}

void session_in_force(struct agent *a)
{
    uint8_t index[8];
    le_put(index, a->in_force, 8);
    if (a->session_up && !a->leaving)
        a->hooks.send(a->hooks.arg, a->leader_id, MSG_IN_FORCE, index, sizeof index);
}

void session_tick(void *arg)
{
    struct agent *a = arg;
    if (a->leaving)
        return;
    const char *to = a->leader_id ? a->leader_id : next_manager(a);
    if (to)
        say_hello(a, to);
    if (!a->session_up && a->leader_id && ++a->next_seed % 4 == 0)
        str_set(&a->leader_id, NULL); /* four HELLOs in vain: ask the others */
    loop_timer_set(a->session_timer, a->session_up ? KEEP_MS : ASK_MS);
}

/* Payload: one byte, 1 when the sender leads and took our HELLO; then the leader's id or nothing. */
static void got_leader(struct agent *a, const char *from, const uint8_t *p, size_t size)
{
    char id[26] = "";
    if (size < 1 || size > 26)
        return;
    memcpy(id, p + 1, size - 1);
    bool accepted = p[0] == 1 && str_equal(id, from);
    bool was_up = a->session_up && str_equal(id, a->leader_id);
    str_set(&a->leader_id, id[0] ? id : NULL);
    a->session_up = accepted;
    if (accepted && !was_up)
        loop_timer_set(a->report_timer, 0); /* what the last leader did not acknowledge */
    if (!accepted && id[0])
        loop_timer_set(a->session_timer, HINT_MS);
}

/* By a HELLO, one in ANEW_MS: what does not fit twice will not fit without a pause. */
static void ask_anew(struct agent *a, const char *from)
{
    int64_t wait = a->asked_ms + ANEW_MS - loop_now_ms(a->loop);
    if (wait <= 0) {
        say_hello(a, from);
    } else if (!a->anew_due) {
        a->anew_due = true;
        loop_timer_set(a->session_timer, wait);
    }
}

static void got_assignment(struct agent *a, const char *from, const void *p, size_t size)
{
    struct assignment next = { 0 };
    struct err e;
    if (size < 32 || !str_equal(from, a->leader_id))
        return; /* an old leader's last words */
    int r = rec_unpack(&assignment_rec, &next, (const char *)p + 32, size - 32, &e);
    if (r == 0)
        r = format_check(MAX(next.format, UINT64_C(1)), &e);
    if (r < 0) { /* what was assigned before stays in force */
        log_error("the assignment by %s is not taken: %s", from, e.text);
        assignment_clear(&next);
        return;
    }
    if (next.nodes_apart && next.table > a->table) {
        log_info("the node table of the assignment by %s has not come, it is asked for", from);
        assignment_clear(&next);
        ask_anew(a, from);
        return;
    }
    memcpy(a->version, p, 32);
    a->has_version = true;
    if (next.nodes_apart) {
        next.nodes.v = TAKE(a->assignment.nodes.v);
        next.nodes.n = a->assignment.nodes.n;
        next.nodes_index = a->table;
        a->assignment.nodes.n = 0;
    } else {
        a->table = 0; /* by a manager that tells it whole */
        next.index = MAX(next.index, next.nodes_index);
    }
    worker_assign(a, &next);
    if (a->hello.keyring != a->assignment.keyring || a->hello.formats.promised < format_wanted(a)) { /* the leader waits for it */
        a->hello.keyring = a->assignment.keyring;
        say_hello(a, from);
    }
}

/* What does not fit is answered by a HELLO without a table: all of it comes then. */
static void got_nodes(struct agent *a, const char *from, const void *p, size_t size)
{
    struct node_table t = { 0 };
    struct err e;
    if (!str_equal(from, a->leader_id))
        return;
    int r = rec_unpack(&node_table_rec, &t, p, size, &e);
    bool same_epoch = a->table && t.epoch == a->table_epoch;
    if (r == 0 && same_epoch && t.since && t.index < a->table) { /* a whole one counts: managers differ in what they call its index */
        node_table_clear(&t); /* overtaken */
        return;
    }
    uint64_t held = same_epoch ? a->table : 0;
    bool begun = r == 0 && t.since <= held;
    if (r == 0)
        r = node_table_merge(&a->assignment, held, &t, &e);
    if (r == 0) {
        a->table = t.index;
        a->table_epoch = t.epoch;
        a->assignment.nodes_index = t.index;
        worker_nodes(a);
    } else {
        log_info("the node table by %s is asked for anew: %s", from, e.text);
        if (begun)
            a->table = 0; /* no assignment is taken with what is left of it */
        ask_anew(a, from);
    }
    node_table_clear(&t);
}

void session_message(struct agent *a, const char *from, uint8_t type, const void *p, size_t size)
{
    if (a->leaving)
        return;
    if (type == MSG_LEADER) {
        got_leader(a, from, p, size);
    } else if (type == MSG_ASSIGNMENT) {
        got_assignment(a, from, p, size);
    } else if (type == MSG_NODES) {
        got_nodes(a, from, p, size);
    } else if (type == MSG_REPORT_ACK && size == 8) {
        uint64_t seq = 0;
        for (int i = 0; i < 8; i++)
            seq = seq << 8 | ((const uint8_t *)p)[i];
        report_acknowledged(a, seq);
    }
}
