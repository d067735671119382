/* The policy of who is a manager, case by case, and what a person is refused. A node is written as one word:
 *   L leader, V voter, l learner, - neither (a worker, or a manager that Raft does not know yet)
 *   then flags: m manager by hand, a manager by the cluster's choice, w worker; d down for 30 s, D for 90 s, s suspect,
 *   n joined 1 s ago, r came back 30 s ago, b barred, x left, p paused, o silent in Raft though gossip hears it,
 *   t has had its role for 90 s and u for 2000 s (others: 10 s); z1 z2: zone */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "govern.h"
#include <shoal/base/file.h>

enum { MAX = 12 };

static uint32_t read_nodes(struct governed v[MAX], const char *text)
{
    static char names[MAX][8];
    uint32_t n = 0;
    for (const char *p = text; *p; n++) {
        struct governed *g = &v[n];
        assert_true(n < MAX);
        snprintf(names[n], sizeof names[n], "n%u", n);
        *g = (struct governed){ .name = names[n], .ready = true, .active = true, .answers = true, .down_ms = -1,
                                .steady_ms = 600000, .role_ms = 10000 };
        for (; *p && *p != ' '; p++)
            switch (*p) {
            case 'L': g->leader = g->voter = true; break;
            case 'V': g->voter = true; break;
            case 'l': g->learner = true; break;
            case '-': g->answers = false; break;
            case 'm': g->manager = true; break;
            case 'a': g->manager = g->automatic = true; break;
            case 'w': break;
            case 'd': g->down_ms = 30000, g->ready = g->answers = false; break;
            case 'D': g->down_ms = 90000, g->ready = g->answers = false; break;
            case 's': g->ready = g->answers = false; break;
            case 'n': g->steady_ms = 1000; break;
            case 'r': g->steady_ms = 30000, g->returned = true; break;
            case 'b': g->barred = true; break;
            case 'x': g->left = true, g->down_ms = 90000, g->ready = g->answers = false; break;
            case 'p': g->active = false; break;
            case 'o': g->answers = false; break;
            case 't': g->role_ms = 90000; break;
            case 'u': g->role_ms = 2000000; break;
            case 'z': g->zone = *++p == '1' ? "one" : "two"; break;
            default: fail_msg("no such flag: %c", *p);
            }
        p += *p == ' ';
    }
    return n;
}

static void check(int line, int wanted, const char *nodes, const char *want)
{
    struct governed v[MAX];
    struct govern_change c;
    char got[16];
    uint32_t n = read_nodes(v, nodes);
    const struct govern_policy p = { wanted, GOVERN_REPLACE_MS };
    govern(&p, v, n, &c);
    snprintf(got, sizeof got, c.act == GOVERN_NOTHING ? "none" : c.act == GOVERN_PROMOTE ? "+%u" : "-%u", c.node);
    if (strcmp(got, want))
        fail_msg("line %d: \"%s\" gives %s (%s), not %s", line, nodes, got, c.reason, want);
    assert_true(c.act == GOVERN_NOTHING || *c.reason);
}
#define AUTO(nodes, want) check(__LINE__, -1, nodes, want)
#define N(wanted, nodes, want) check(__LINE__, wanted, nodes, want)

static void it_grows_to_an_odd_number(void **state)
{
    AUTO("Lm", "none");
    AUTO("Lm -w", "none"); /* two stand no more losses than one */
    AUTO("Lm -w -w", "+1");
    AUTO("Lm Va -w", "+2");
    AUTO("Lm Va Va", "none");
    AUTO("Lm Va Va -w -w -w", "none"); /* five managers would leave one node over */
    AUTO("Lm Va Va -w -w -w -w", "+3");
    AUTO("Lm -wn -wn", "none"); /* not before they have settled */
    AUTO("Lm -w -wn", "none");
    AUTO("Lm -w -wr", "none"); /* the second flaps: not two */
    AUTO("Lm -w -wb", "none");
    AUTO("Lm -w -w -wx", "+1");
    N(5, "Lm Vm Vm -w", "none"); /* four stand no more than three */
    N(5, "Lm Vm Vm -w -w", "+3");
    N(1, "Lm -w -w -w", "none");
    N(0, "Lm -w -w -w -w", "none");
}

static void one_change_at_a_time(void **state)
{
    AUTO("Lm -a -w", "none");  /* not known to Raft yet */
    AUTO("Lm la -w", "none");  /* catches up */
    AUTO("Lm Va Va Vw -w", "none"); /* is being voted out */
    AUTO("Lm Va Va lw -w", "none");
}

static void a_lost_manager_is_replaced(void **state)
{
    AUTO("Lm Va Vad -w", "none");   /* not for a reboot */
    AUTO("Lm Va VaD -w", "+3");
    AUTO("Lm Vm VmD -w", "+3");     /* also one made by hand */
    AUTO("Lm Va VaD -wd", "none");  /* nobody can take its place: it keeps its vote for when it comes back */
    AUTO("Lm Va VaD -ws", "none");
    AUTO("Lm Va VaD -wr", "none");
    AUTO("Lm Va VaD la -w", "none");
    AUTO("Lm Va VaD Va -w", "-2");  /* out when the other has its vote */
    AUTO("Lm VaD VaD Va Va", "-1"); /* five nodes want three managers, and three are there */
    N(5, "Lm VaD VaD Va Va -w -w", "+5");
    N(5, "Lm VaD VaD Va Va Va -w", "+6");
    N(5, "Lm VaD VaD Va Va Va Va", "-1");
    AUTO("Lm VaD VaD -w -w", "none"); /* one of three: such a leader can do nothing */
    AUTO("Lm Va -wx -w -w", "+3");  /* left: at once */
}

static void surplus_goes_but_not_who_was_made_by_hand(void **state)
{
    AUTO("Lm Va Va Va", "-1");
    AUTO("La Vm Va Va -w", "-2");   /* not the leader */
    AUTO("Lm Vm Vm Vm", "none");
    AUTO("Lm Vm Vm Va", "-3");
    AUTO("Lm Va Va Vao -w", "none"); /* first all must answer */
    AUTO("Lm Va Va Vad -w", "none");
    AUTO("Lm Vat Va", "none");
    AUTO("Lm Vat Va -wx", "none");
    AUTO("Lm Vat Va Vat", "-2");    /* the latest */
    N(1, "Lm Vat Va", "-2");
    N(1, "Lm Vat", "-1");
    N(1, "Lm Vm", "none");
    N(1, "La", "none");
}

static void who_is_not_eligible(void **state)
{
    AUTO("Lm Va Vab -w", "+3");     /* replaced first */
    AUTO("Lm Va Vab Va", "-2");
    AUTO("Lm Va Vab", "-2");        /* nobody else can: the label decides */
    AUTO("Lm Va Vmb", "none");      /* by hand */
    AUTO("Lab Va Va -w", "+3");
    AUTO("Lab Va Va Va", "-0");     /* also the leader */
}

static void which_node(void **state)
{
    AUTO("Lm -wp -w -w", "+2");     /* one that runs tasks */
    AUTO("Lm -wp -wp", "+1");
    AUTO("Lmz1 -wz1 -wz2 -wz1", "+2");
    AUTO("Lmz1 Vaz2 -wz1 -wz2 -w", "+4");
    AUTO("Lmz1 Vaz1 Vaz2 Vaz1", "-1");
}

static void a_promotion_that_fails_is_given_up(void **state)
{
    N(0, "Lm -mo", "none");
    N(0, "Lm -mto", "-1");
    N(0, "Lm lmto", "-1");
    N(0, "Lm lmt", "none");  /* answers: it catches up */
    N(0, "Lm lmu", "-1");
    N(0, "Lm Vmuo", "none"); /* a voter is no promotion */
    N(0, "Lm VmD VmuD", "none");
    AUTO("Lm lato -w -w", "-1");
}

static void refusal(int line, const char *nodes, uint32_t i, bool promote, const char *want)
{
    struct governed v[MAX];
    struct err e = { 0 };
    uint32_t n = read_nodes(v, nodes);
    int r = promote ? govern_may_promote(v, n, i, &e) : govern_may_go(v, n, i, "demoting", &e);
    if (!want ? r != 0 : r == 0 || !strstr(e.text, want))
        fail_msg("line %d: \"%s\", node %u: %s", line, nodes, i, r ? e.text : "allowed");
}
#define GO(nodes, i, want) refusal(__LINE__, nodes, i, false, want)
#define COME(nodes, i, want) refusal(__LINE__, nodes, i, true, want)

/* Demotion, removal and departure are one question: may this voter go? Draining is none: it moves tasks, not votes. */
static void what_would_lose_the_quorum_is_refused(void **state)
{
    GO("Lm", 0, "last manager");
    GO("Lm lm", 0, "last manager");      /* the other has no vote yet */
    GO("Lm Vm", 0, NULL);
    GO("Lm Vm", 1, NULL);
    GO("Lm Vmd", 1, NULL);               /* the dead one may go */
    GO("Lm Vmd", 0, "0 of 1 managers reachable: no quorum");
    GO("Lm Vm Vm", 0, NULL);
    GO("Lm Vm Vms", 1, "1 of 2");
    GO("Lm Vm Vmo", 0, "1 of 2");        /* silent in Raft counts, whatever gossip says */
    GO("Lm Vm Vmd", 2, NULL);
    GO("Lm Vm Vm Vmd", 1, NULL);         /* 2 of 3 stay */
    GO("Lm Vm Vmd Vmd", 2, NULL);        /* hardly possible, but the dead may always go */
    GO("Lm Vm Vm Vmd Vmd", 1, "2 of 4");
    GO("Lm Vm Vm Vm Vmd", 1, NULL);      /* 3 of 4 */
    GO("Lm Vm lm", 2, NULL);             /* nobody counts on a learner */
    GO("Lm Vm -w", 2, NULL);
    GO("Lm Vw", 0, "last manager");      /* the other is being voted out */
    GO("Lw Vm", 1, "last manager");
    GO("Lw Vm Vm", 1, NULL);
    COME("Lm -w", 1, NULL);
    COME("Lm -wp", 1, NULL);
    COME("Lm -wd", 1, "is down");
    COME("Lm -ws", 1, "not reachable");
    COME("Lm -wx", 1, "has left");
    COME("Lm Vm Vm Vw", 3, "still being voted out");
}

static void the_rule(void **state)
{
    static const uint32_t want[] = { 1, 1, 1, 3, 3, 3, 3, 5, 5, 5 };
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(govern_rule(i), want[i]);
    assert_int_equal(managers_wanted("auto"), -1);
    assert_int_equal(managers_wanted("5"), 5);
    assert_int_equal(managers_wanted(NULL), 0);
    assert_null(check_managers("manual"));
    static const char *const bad[] = { "0", "2", "9", "33", "", "Auto", "-1" };
    for (unsigned i = 0; i < ARRAY_N(bad); i++)
        assert_non_null(check_managers(bad[i]));
}

static void what_the_node_table_says(void **state)
{
    struct node n = { 0 };
    struct governed g;
    const struct raft_member members[] = { { .id = 7, .voter = true, .last_contact_ms = 100 },
                                           { .id = 8, .last_contact_ms = -1 } };
    n.created_at = 100 * SEC_NS;
    n.status.state = NODE_READY;
    str_set(&n.id, "a");
    govern_view(&g, &n, members, 2, false, false, 160 * SEC_NS);
    assert_true(g.ready && !g.manager && !g.barred && !g.returned && g.steady_ms == 60000 && g.down_ms == -1);
    n.ready_since = 150 * SEC_NS;
    govern_view(&g, &n, members, 2, false, false, 160 * SEC_NS);
    assert_true(g.returned && g.steady_ms == 10000);
    govern_set_role(&n, ROLE_MANAGER, false, "x", 155 * SEC_NS);
    assert_true(n.raft_id && n.role_since == 155 * SEC_NS);
    n.raft_id = 7;
    govern_view(&g, &n, members, 2, false, false, 160 * SEC_NS);
    assert_true(g.manager && g.voter && !g.learner && g.answers && g.role_ms == 5000);
    n.raft_id = 8;
    govern_view(&g, &n, members, 2, false, false, 160 * SEC_NS);
    assert_true(!g.voter && g.learner && !g.answers);
    govern_set_role(&n, ROLE_WORKER, false, "x", 158 * SEC_NS); /* by hand: the cluster leaves it alone */
    govern_view(&g, &n, members, 2, false, false, 160 * SEC_NS);
    assert_true(g.barred);
    labels_set(&n.spec.labels, NODE_LABEL_MANAGER, "yes");
    govern_view(&g, &n, members, 2, false, false, 160 * SEC_NS);
    assert_true(!g.barred);
    uint64_t old = n.raft_id;
    govern_set_role(&n, ROLE_MANAGER, true, "x", 158 * SEC_NS);
    assert_true(n.raft_id != old && n.role_auto);
    n.status.state = NODE_DOWN;
    n.down_since = 200 * SEC_NS; /* of a leader whose clock is ahead */
    str_set(&n.status.message, NODE_LEFT_MESSAGE);
    govern_view(&g, &n, members, 2, false, true, 160 * SEC_NS);
    assert_true(!g.ready && g.left && g.down_ms == 0);
    node_clear(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rule),
        cmocka_unit_test(it_grows_to_an_odd_number),
        cmocka_unit_test(one_change_at_a_time),
        cmocka_unit_test(a_lost_manager_is_replaced),
        cmocka_unit_test(surplus_goes_but_not_who_was_made_by_hand),
        cmocka_unit_test(who_is_not_eligible),
        cmocka_unit_test(which_node),
        cmocka_unit_test(a_promotion_that_fails_is_given_up),
        cmocka_unit_test(what_would_lose_the_quorum_is_refused),
        cmocka_unit_test(what_the_node_table_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
