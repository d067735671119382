/* The worker: takes a new assignment, compares it with the tasks at hand. Unknown tasks begin, known ones get
 * their new desired state, those not assigned any more are stopped and removed. The assignment is kept on
 * disk, without secrets, so that a restarted daemon knows its tasks before it has found a manager. A moment late: whose
 * container started in that moment and whose daemon was killed in it, is started anew. */
#include "agent_internal.h"
#include <shoal/base/file.h>

LOG_MODULE("agent");

enum { ASSIGNMENT_MAX_BYTES = 256 << 20, NETWORK_AGAIN_MS = 1000 };

static void save(struct agent *a)
{
    struct assignment bare = a->assignment; /* its members are that one's */
    struct sb b;
    bare.secrets.v = NULL;
    bare.secrets.n = 0;
    bare.nodes_apart = false; /* they are here */
    sb_init(&b, ASSIGNMENT_MAX_BYTES);
    rec_pack(&assignment_rec, &bare, &b);
    late_file_write(a->kept, &b);
}

static struct agent_task *add_task(struct agent *a, const struct task *t)
{
    struct agent_task *at = xnew(struct agent_task);
    task_copy(&at->task, t);
    at->status.state = TASK_ASSIGNED;
    map_put(&a->tasks, t->id, at);
    return at;
}

void worker_load(struct agent *a, const char *path)
{
    AUTO_FREE char *data = NULL;
    size_t size;
    struct err e = { 0 };
    if (!file_exists(path))
        return;
    if (file_read(path, ASSIGNMENT_MAX_BYTES, &data, &size, &e) < 0 ||
        rec_unpack(&assignment_rec, &a->assignment, data, size, &e) < 0) {
        log_warn("the kept assignment is unreadable, the managers will send it again: %s", e.text);
        return;
    }
    for (uint32_t i = 0; i < a->assignment.tasks.n; i++) {
        struct agent_task *t = add_task(a, &a->assignment.tasks.v[i]);
        t->assigned = true;
        t->status.state = a->assignment.tasks.v[i].status.state;
    }
}

void worker_forget(struct agent *a, struct agent_task *t)
{
    a->ops.remove(a->ops_arg, t->task.id);
    map_remove(&a->tasks, t->task.id);
    task_clear(&t->task);
    task_status_clear(&t->status);
    free(t);
    if (a->leaving && a->tasks.n == 0 && a->left)
        loop_defer(a->loop, a->left, a->left_arg);
}

void worker_do_network(void *arg)
{
    struct agent *a = arg;
    a->network_due = false;
    if (a->closed)
        return;
    if (!a->ops.network(a->ops_arg, &a->assignment, &a->suspects)) {
        loop_timer_set(a->network_timer, NETWORK_AGAIN_MS);
        return;
    }
    if (a->in_force == a->assignment.index)
        return;
    a->in_force = a->assignment.index;
    session_in_force(a);
}

void worker_want_network(struct agent *a)
{
    if (a->network_due)
        return;
    a->network_due = true;
    loop_defer(a->loop, worker_do_network, a);
}

void worker_nodes(struct agent *a)
{
    if (a->leaving)
        return;
    a->hooks.assigned(a->hooks.arg, &a->assignment);
    worker_do_network(a);
    save(a);
}

void worker_assign(struct agent *a, struct assignment *next)
{
    assignment_clear(&a->assignment);
    a->assignment = *next;
    *next = (struct assignment){ 0 };
    if (!a->leaving)
        a->hooks.assigned(a->hooks.arg, &a->assignment);
    for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));)
        ((struct agent_task *)it->value)->assigned = false;
    for (uint32_t i = 0; i < a->assignment.tasks.n; i++) {
        const struct task *t = &a->assignment.tasks.v[i];
        struct agent_task *at = map_find(&a->tasks, t->id);
        if (!at && task_state_is_final(t->status.state))
            continue; /* its remains are gone already */
        if (!at) {
            at = add_task(a, t);
        } else {
            task_clear(&at->task);
            task_copy(&at->task, t);
        }
        at->assigned = true;
    }
    worker_do_network(a); /* new tasks need their networks known */
    for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));) {
        struct agent_task *t = it->value;
        if (!t->assigned && task_state_is_final(t->status.state))
            worker_forget(a, t);
        else
            task_step(a, t);
    }
    save(a);
}
