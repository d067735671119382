/* The agent's door: construction, and events handed to session, worker and tasks. */
#include "agent_internal.h"
#include <shoal/base/planted.h>
#include <shoal/base/file.h>

struct agent *agent_new(struct loop *l, const struct agent_config *cfg, const struct agent_hooks *hooks,
                        const struct executor_ops *ops, void *ops_arg)
{
    struct agent *a = xnew(struct agent);
    a->loop = l;
    a->node_id = xstrdup(cfg->node_id);
    a->hooks = *hooks;
    a->ops = *ops;
    a->ops_arg = ops_arg;
    a->seq = (uint64_t)clock_real_ns(); /* acknowledgements of an earlier life never match */
    session_hello_copy(&a->hello, &cfg->hello);
    map_init(&a->tasks);
    map_init(&a->suspects);
    a->session_timer = loop_timer_new(l, session_tick, a);
    a->report_timer = loop_timer_new(l, report_send, a);
    a->drain_timer = loop_timer_new(l, task_drain_tick, a);
    a->network_timer = loop_timer_new(l, worker_do_network, a);
    AUTO_FREE char *path = path_join(cfg->dir, "assignment.mp");
    a->kept = late_file_new(l, path);
    worker_load(a, path);
    return a;
}

void agent_free(struct agent *a)
{
    if (!a)
        return;
    for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));) {
        struct agent_task *t = it->value;
        task_clear(&t->task);
        task_status_clear(&t->status);
        free(t);
    }
    map_done(&a->tasks);
    map_done(&a->suspects);
    loop_timer_free(a->session_timer);
    loop_timer_free(a->report_timer);
    loop_timer_free(a->drain_timer);
    loop_timer_free(a->network_timer);
    session_hello_clear(&a->hello);
    assignment_clear(&a->assignment);
    for (unsigned i = 0; i < a->n_seeds; i++)
        free(a->seeds[i]);
    free(a->seeds);
    free(a->leader_id);
    late_file_free(a->kept);
    free(a->node_id);
    a->closed = true;
    loop_defer(a->loop, free, a); /* its network may be deferred */
}

void agent_adopt(struct agent *a, const char *task_id, bool running, const struct executor_event *ev)
{
    struct agent_task *t = map_find(&a->tasks, task_id);
    if (!t) { /* nobody asked for it: it goes */
        a->ops.stop(a->ops_arg, task_id, 0);
        a->ops.remove(a->ops_arg, task_id);
        return;
    }
    t->prepared = t->started = true;
    t->status.state = TASK_STARTING;
    agent_executor_event(a, task_id, &(struct executor_event){
        .kind = EXEC_STARTED, .container_id = ev->container_id, .pid = ev->pid,
        .has_healthcheck = ev->has_healthcheck });
    if (!running)
        agent_executor_event(a, task_id, ev);
}

void agent_start(struct agent *a, const char *const *manager_ids, unsigned n)
{
    a->seeds = xcalloc(n + 1, sizeof *a->seeds);
    for (unsigned i = 0; i < n; i++)
        a->seeds[a->n_seeds++] = xstrdup(manager_ids[i]);
    for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));)
        task_step(a, it->value);
    worker_want_network(a);
    session_tick(a);
}

void agent_got_message(struct agent *a, const char *from, uint8_t type, const void *p, size_t size)
{
    session_message(a, from, type, p, size);
}

void agent_gossip_state(struct agent *a, const char *node_id, bool suspect)
{
    bool was = map_find(&a->suspects, node_id) != NULL;
    if (suspect == was)
        return;
    if (suspect)
        map_put(&a->suspects, node_id, a);
    else
        map_remove(&a->suspects, node_id);
    if (suspect && str_equal(node_id, a->leader_id)) {
        str_set(&a->leader_id, NULL);
        a->session_up = false;
        session_tick(a);
    }
    if (CLUSTER_BUG != 63)
        worker_want_network(a);
}

void agent_certificate(struct agent *a, const struct certificate *c)
{
    a->hello.role = c->role;
    a->hello.raft_id = c->raft_id;
    a->hello.not_after = c->not_after;
    a->hello.epoch = c->epoch;
    bytes_set(&a->hello.ca, c->ca_public.v, c->ca_public.n);
    session_tick(a);
}

void agent_address(struct agent *a, const char *addr)
{
    str_set(&a->hello.addr, addr);
    session_tick(a);
}

void agent_mtu(struct agent *a, unsigned mtu)
{
    a->hello.description.mtu = mtu;
    session_tick(a);
}

void agent_link_up(struct agent *a, const char *node_id)
{
    if (!a->leader_id || str_equal(a->leader_id, node_id)) /* what was sent when the last link broke may be lost */
        session_tick(a);
}

const struct assignment *agent_assignment(const struct agent *a)
{
    return &a->assignment;
}

const char *agent_leader_id(const struct agent *a)
{
    return a->leader_id;
}

void agent_leave(struct agent *a, loop_fn *done, void *arg)
{
    struct assignment none = { 0 };
    a->leaving = true;
    a->left = done;
    a->left_arg = arg;
    worker_assign(a, &none);
    if (a->tasks.n == 0)
        loop_defer(a->loop, done, arg);
}
