/* Reports: every status that the leader has not acknowledged as committed is sent, and sent again each
 * second, also to the next leader, until it is. */
#include "agent_internal.h"

enum { GATHER_MS = 5, REPEAT_MS = 1000 };

void report_want(struct agent *a, struct agent_task *t)
{
    t->report_seq = ++a->seq;
    loop_timer_set(a->report_timer, GATHER_MS);
}

void report_send(void *arg)
{
    struct agent *a = arg;
    struct task_report r = { .seq = a->seq };
    for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));) {
        struct agent_task *t = it->value;
        if (!t->report_seq || !t->assigned)
            continue;
        struct task_update *u = REC_ADD(&r.updates);
        str_set(&u->id, t->task.id);
        task_status_copy(&u->status, &t->status);
    }
    if (r.updates.n && a->leader_id) {
        struct sb b;
        sb_init(&b, 0);
        rec_pack(&task_report_rec, &r, &b);
        a->hooks.send(a->hooks.arg, a->leader_id, MSG_REPORT, b.s, b.len);
        sb_done(&b);
    }
    if (r.updates.n)
        loop_timer_set(a->report_timer, REPEAT_MS);
    task_report_clear(&r);
}

void report_acknowledged(struct agent *a, uint64_t seq)
{
    for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));) {
        struct agent_task *t = it->value;
        if (t->report_seq && t->report_seq <= seq)
            t->report_seq = 0;
    }
}
