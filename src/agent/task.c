/* The task state machine on its node: ACCEPTED PREPARING READY STARTING RUNNING, then one final state. Driven
 * by two things only, what the manager desires and what the executor reports; states never go back. */
#include "agent_internal.h"
#include <shoal/base/planted.h>
#include <shoal/base/file.h>
#include <stdio.h>

LOG_MODULE("task");

/* So long a task waits for word that no node sends calls to it any more. It comes within milliseconds, unless a node or the
 * leader is being lost. */
enum { DRAIN_MS = 2000 };

void task_set_state(struct agent *a, struct agent_task *t, enum task_state state, const char *message,
                    const char *error)
{
    ASSERT((int)state >= t->status.state);
    t->status.state = state;
    t->status.timestamp = clock_real_ns();
    str_set(&t->status.message, message);
    str_set(&t->status.err, error);
    if (state >= TASK_COMPLETE)
        log_info("task %s %s%s%s", t->task.id, task_state_names[state], error ? ": " : "", error ? error : "");
    report_want(a, t);
    worker_want_network(a);
}

static int64_t grace_of(const struct task *t)
{
    int64_t ns = t->spec.container ? t->spec.container->stop_grace : 0;
    return ns ? ns : INT64_C(10000000000);
}

static bool is_drained(const struct agent *a, const struct agent_task *t)
{
    for (uint32_t i = 0; i < a->assignment.drained.n; i++)
        if (str_equal(a->assignment.drained.v[i], t->task.id))
            return true;
    return !a->assignment.drains || !t->assigned || !t->task.attachments.n || t->status.state < TASK_STARTING;
}

static bool still_drains(struct agent *a, struct agent_task *t)
{
    int64_t now = loop_now_ms(a->loop);
    if (is_drained(a, t))
        return false;
    if (!t->drain_end_ms) {
        t->drain_end_ms = now + DRAIN_MS;
        if (!a->draining)
            loop_timer_set(a->drain_timer, DRAIN_MS);
        a->draining = true;
    }
    return now < t->drain_end_ms;
}

void task_drain_tick(void *arg)
{
    struct agent *a = arg;
    int64_t next = INT64_MAX, now = loop_now_ms(a->loop);
    for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));) {
        struct agent_task *t = it->value;
        if (!t->drain_end_ms || t->stopping)
            continue;
        task_step(a, t);
        if (!t->stopping && !task_state_is_final(t->status.state)) /* it may have ended by itself */
            next = MIN(next, t->drain_end_ms);
    }
    a->draining = next != INT64_MAX;
    if (a->draining)
        loop_timer_set(a->drain_timer, MAX(next - now, 1));
}

void task_step(struct agent *a, struct agent_task *t)
{
    int state = t->status.state;
    if (task_state_is_final(state))
        return;
    if ((!t->assigned && CLUSTER_BUG != 9) || t->task.desired > TASK_RUNNING) {
        if (!t->stopping && !still_drains(a, t)) {
            t->stopping = true;
            a->ops.stop(a->ops_arg, t->task.id, grace_of(&t->task));
        }
        return;
    }
    if (state < TASK_PREPARING + (CLUSTER_BUG == 8)) {
        task_set_state(a, t, TASK_ACCEPTED, "accepted", NULL);
        task_set_state(a, t, TASK_PREPARING, "preparing", NULL);
        a->ops.prepare(a->ops_arg, &t->task, &a->assignment);
        return;
    }
    if (t->prepared && !t->started && (t->task.desired == TASK_RUNNING || CLUSTER_BUG == 10)) {
        t->started = true;
        task_set_state(a, t, TASK_STARTING, "starting", NULL);
        a->ops.start(a->ops_arg, t->task.id);
    }
}

static void on_started(struct agent *a, struct agent_task *t, const struct executor_event *ev)
{
    if (!t->status.container)
        t->status.container = xnew(struct container_status);
    str_set(&t->status.container->id, ev->container_id);
    t->status.container->pid = ev->pid;
    if (!ev->has_healthcheck || t->healthy) {
        t->status.healthy = true;
        task_set_state(a, t, TASK_RUNNING, "started", NULL);
    } else {
        task_set_state(a, t, TASK_STARTING, "waiting for the healthcheck", NULL);
    }
}

static void on_exited(struct agent *a, struct agent_task *t, const struct executor_event *ev)
{
    char text[256];
    if (t->status.container) {
        t->status.container->exit_code = ev->exit_code;
        t->status.container->pid = 0;
    }
    t->status.healthy = false;
    if (t->stopping) {
        task_set_state(a, t, TASK_SHUTDOWN, "shutdown", NULL);
    } else if (ev->oom) {
        snprintf(text, sizeof text, "task: out of memory (exit %lld); raise its memory limit",
                 (long long)ev->exit_code);
        task_set_state(a, t, TASK_FAILED, "failed", text);
    } else if (ev->exit_code || ev->error) {
        snprintf(text, sizeof text, "task: non-zero exit (%lld)%s%s", (long long)ev->exit_code,
                 ev->error ? ": " : "", ev->error ? ev->error : "");
        task_set_state(a, t, TASK_FAILED, "failed", text);
    } else {
        task_set_state(a, t, TASK_COMPLETE, "finished", NULL);
    }
}

void agent_executor_event(struct agent *a, const char *task_id, const struct executor_event *ev)
{
    struct agent_task *t = map_find(&a->tasks, task_id);
    if (!t || task_state_is_final(t->status.state))
        return;
    switch (ev->kind) {
    case EXEC_PREPARED:
        t->prepared = true;
        if (!t->stopping)
            task_set_state(a, t, TASK_READY, "prepared", NULL);
        break;
    case EXEC_STARTED:
        on_started(a, t, ev);
        break;
    case EXEC_HEALTHY:
        if (!t->status.healthy) {
            t->healthy = t->status.healthy = true;
            task_set_state(a, t, TASK_RUNNING, "started", NULL);
        }
        break;
    case EXEC_UNHEALTHY: /* the executor stops it; EXITED follows with this sentence */
        t->healthy = false;
        break;
    case EXEC_EXITED:
        on_exited(a, t, ev);
        break;
    case EXEC_FAILED:
        task_set_state(a, t, t->stopping ? TASK_SHUTDOWN : t->started ? TASK_FAILED : TASK_REJECTED,
                       t->started ? "failed" : "preparing failed", ev->error);
        break;
    }
    if (task_state_is_final(t->status.state) && !t->assigned)
        worker_forget(a, t);
    else
        task_step(a, t);
}
