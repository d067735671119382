/* The orchestrator and scheduler as stories: what users of Swarm expect of their services. */
#include "control_plane.h"

static void three_nodes(struct plane *p)
{
    plane_init(p);
    plane_add_node(p, "n1", "zone", "a");
    plane_add_node(p, "n2", "zone", "a");
    plane_add_node(p, "n3", "zone", "b");
}

static void replicas_are_made_and_spread(void **state)
{
    (void)state;
    struct plane p;
    three_nodes(&p);
    plane_add_service(&p, "web", 6);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "web", NULL), 6);
    for (int i = 1; i <= 3; i++) {
        char node[4];
        snprintf(node, sizeof node, "n%d", i);
        assert_int_equal(plane_running(&p, "web", node), 2);
    }
    store_free(p.store);
}

static void scaling_down_removes_and_keeps_balance(void **state)
{
    (void)state;
    struct plane p;
    struct service s;
    three_nodes(&p);
    plane_add_service(&p, "web", 6);
    plane_settle(&p);
    plane_edit(&p, "web", &s);
    s.spec.mode.replicated->replicas = 3;
    plane_save(&p, &s);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "web", NULL), 3);
    assert_int_equal(store_count(p.store, TABLE_TASK), 3); /* removed ones leave no history */
    assert_int_equal(plane_running(&p, "web", "n1"), 1);
    plane_edit(&p, "web", &s);
    s.spec.mode.replicated->replicas = 0;
    plane_save(&p, &s);
    plane_settle(&p);
    assert_int_equal(store_count(p.store, TABLE_TASK), 0);
    store_free(p.store);
}

static void an_ended_task_is_restarted_after_its_delay(void **state)
{
    (void)state;
    struct plane p;
    three_nodes(&p);
    plane_add_service(&p, "web", 1);
    plane_settle(&p);
    uint32_t n;
    const struct task **t = store_tasks_of_service(p.store, "web", &n);
    assert_int_equal(n, 1);
    plane_report(&p, t[0]->id, TASK_FAILED);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "web", NULL), 0); /* 5 s by default */
    plane_run(&p, 4 * S_NS);
    assert_int_equal(plane_running(&p, "web", NULL), 0);
    plane_run(&p, 2 * S_NS);
    assert_int_equal(plane_running(&p, "web", NULL), 1);
    store_tasks_of_service(p.store, "web", &n);
    assert_int_equal(n, 2); /* the failed one is history of the same slot */
    store_free(p.store);
}

static void history_is_bounded(void **state)
{
    (void)state;
    struct plane p;
    uint32_t n;
    three_nodes(&p);
    plane_add_service(&p, "web", 1);
    for (int i = 0; i < 20; i++) {
        plane_run(&p, 6 * S_NS);
        const struct task **t = store_tasks_of_service(p.store, "web", &n);
        for (uint32_t k = 0; k < n; k++)
            if (t[k]->status.state == TASK_RUNNING) {
                plane_report(&p, t[k]->id, TASK_FAILED);
                break;
            }
    }
    plane_run(&p, 6 * S_NS);
    store_tasks_of_service(p.store, "web", &n);
    assert_int_equal(n, 6); /* five old, one running */
    store_free(p.store);
}

static void restart_policy_is_obeyed(void **state)
{
    (void)state;
    struct plane p;
    struct service s;
    uint32_t n;
    three_nodes(&p);
    plane_add_service(&p, "job", 1);
    plane_edit(&p, "job", &s);
    s.spec.task.restart = xnew(struct restart_policy);
    *s.spec.task.restart = (struct restart_policy){ .condition = RESTART_ON_FAILURE, .max_attempts = 2 };
    plane_save(&p, &s);
    plane_settle(&p);
    for (int i = 0; i < 5; i++) {
        const struct task **t = store_tasks_of_service(p.store, "job", &n);
        for (uint32_t k = 0; k < n; k++)
            if (t[k]->status.state == TASK_RUNNING) {
                plane_report(&p, t[k]->id, TASK_FAILED);
                break;
            }
        plane_run(&p, S_NS);
    }
    store_tasks_of_service(p.store, "job", &n);
    assert_int_equal(n, 3); /* the first and two more attempts */
    assert_int_equal(plane_running(&p, "job", NULL), 0);
    store_free(p.store);

    three_nodes(&p);
    plane_add_service(&p, "once", 1);
    plane_edit(&p, "once", &s);
    s.spec.task.restart = xnew(struct restart_policy);
    s.spec.task.restart->condition = RESTART_ON_FAILURE;
    plane_save(&p, &s);
    plane_settle(&p);
    const struct task **t = store_tasks_of_service(p.store, "once", &n);
    plane_report(&p, t[0]->id, TASK_COMPLETE);
    plane_run(&p, 60 * S_NS);
    store_tasks_of_service(p.store, "once", &n);
    assert_int_equal(n, 1);
    store_free(p.store);
}

static void a_lost_node_s_tasks_move_and_no_duplicate_stays(void **state)
{
    (void)state;
    struct plane p;
    three_nodes(&p);
    plane_add_service(&p, "web", 3);
    plane_settle(&p);
    plane_set_node(&p, "n2", NODE_DOWN, AVAIL_ACTIVE);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "web", "n1") + plane_running(&p, "web", "n3"), 3);
    plane_set_node(&p, "n2", NODE_READY, AVAIL_ACTIVE); /* healed: its agent learns that its task is over */
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "web", NULL), 3);
    assert_int_equal(plane_running(&p, "web", "n2"), 0);
    store_free(p.store);
}

static void drain_moves_tasks(void **state)
{
    (void)state;
    struct plane p;
    three_nodes(&p);
    plane_add_service(&p, "web", 3);
    plane_settle(&p);
    plane_set_node(&p, "n1", NODE_READY, AVAIL_DRAIN);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "web", NULL), 3);
    assert_int_equal(plane_running(&p, "web", "n1"), 0);
    store_free(p.store);
}

static void global_follows_the_nodes(void **state)
{
    (void)state;
    struct plane p;
    three_nodes(&p);
    plane_add_service(&p, "agent", 0);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "agent", NULL), 3);
    plane_add_node(&p, "n4", NULL, NULL);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "agent", "n4"), 1);
    plane_set_node(&p, "n4", NODE_READY, AVAIL_DRAIN);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "agent", "n4"), 0);
    assert_int_equal(plane_running(&p, "agent", NULL), 3);
    store_free(p.store);
}

static void constraints_hold(void **state)
{
    (void)state;
    struct plane p;
    struct service s;
    three_nodes(&p);
    plane_add_service(&p, "web", 2);
    plane_edit(&p, "web", &s);
    s.spec.task.placement = xnew(struct placement);
    strs_add(&s.spec.task.placement->constraints, "node.labels.zone == b");
    plane_save(&p, &s);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "web", "n3"), 2);
    plane_edit(&p, "web", &s);
    strs_clear(&s.spec.task.placement->constraints);
    strs_add(&s.spec.task.placement->constraints, "node.labels.zone==nowhere");
    s.spec_version++;
    plane_save(&p, &s);
    plane_settle(&p);
    uint32_t n, waiting = 0;
    const struct task **t = store_tasks_of_service(p.store, "web", &n);
    for (uint32_t i = 0; i < n; i++)
        if (t[i]->status.state == TASK_PENDING) {
            waiting++;
            assert_string_equal(t[i]->status.err,
                                "no suitable node (constraint node.labels.zone==nowhere on 3 nodes)");
        }
    assert_int_not_equal(waiting, 0);
    store_free(p.store);
}

static void set_image(struct service *s, const char *image)
{
    if (!s->previous)
        s->previous = xnew(struct service_spec);
    else
        service_spec_clear(s->previous);
    service_spec_copy(s->previous, &s->spec);
    str_set(&s->spec.task.container->image, image);
    s->spec_version++;
    if (!s->update_status)
        s->update_status = xnew(struct update_status);
    s->update_status->state = UPDATE_UPDATING;
}

static uint32_t with_image(struct plane *p, const char *service, const char *image, int state)
{
    uint32_t n, found = 0;
    const struct task **t = store_tasks_of_service(p->store, service, &n);
    for (uint32_t i = 0; i < n; i++)
        found += str_equal(t[i]->spec.container->image, image) && t[i]->status.state == state &&
                 t[i]->desired <= TASK_RUNNING;
    return found;
}

static void an_update_rolls_one_at_a_time(void **state)
{
    (void)state;
    struct plane p;
    struct service s;
    three_nodes(&p);
    plane_add_service(&p, "web", 4);
    plane_settle(&p);
    plane_edit(&p, "web", &s);
    s.spec.update = xnew(struct update_config);
    *s.spec.update = (struct update_config){ .parallelism = 1, .delay = 10 * S_NS };
    set_image(&s, "busybox:2");
    s.update_status->started_at = p.now_ns;
    plane_save(&p, &s);
    for (uint32_t done = 1; done <= 4; done++) {
        plane_settle(&p);
        assert_int_equal(with_image(&p, "web", "busybox:2", TASK_RUNNING), done);
        assert_int_equal(plane_running(&p, "web", NULL), 4);
        plane_run(&p, 10 * S_NS);
    }
    plane_run(&p, 10 * S_NS);
    const struct service *svc = store_find(p.store, TABLE_SERVICE, "web");
    assert_int_equal(svc->update_status->state, UPDATE_COMPLETED);
    store_free(p.store);
}

static void start_first_never_dips(void **state)
{
    (void)state;
    struct plane p;
    struct service s;
    three_nodes(&p);
    plane_add_service(&p, "web", 3);
    plane_settle(&p);
    plane_edit(&p, "web", &s);
    s.spec.update = xnew(struct update_config);
    *s.spec.update = (struct update_config){ .parallelism = 1, .order = ORDER_START_FIRST };
    set_image(&s, "busybox:2");
    s.update_status->started_at = p.now_ns;
    plane_save(&p, &s);
    for (int i = 0; i < 100; i++) {
        uint32_t changes = plane_pass(&p) + plane_agents(&p);
        uint32_t n, up = 0;
        const struct task **t = store_tasks_of_service(p.store, "web", &n);
        for (uint32_t k = 0; k < n; k++)
            up += t[k]->status.state == TASK_RUNNING;
        assert_true(up >= 3);
        if (!changes)
            break;
    }
    assert_int_equal(with_image(&p, "web", "busybox:2", TASK_RUNNING), 3);
    store_free(p.store);
}

static void fail_new_tasks(struct plane *p, const char *image)
{
    for (int round = 0; round < 20; round++) {
        uint32_t n;
        plane_pass(p);
        const struct task **t = store_tasks_of_service(p->store, "web", &n);
        char id[26] = "";
        for (uint32_t i = 0; i < n; i++)
            if (str_equal(t[i]->spec.container->image, image) && t[i]->status.state == TASK_ASSIGNED &&
                t[i]->desired == TASK_RUNNING)
                snprintf(id, sizeof id, "%s", t[i]->id);
        if (id[0])
            plane_report(p, id, TASK_FAILED);
        else
            plane_agents(p);
    }
}

static void a_failing_update_pauses_or_rolls_back(void **state)
{
    (void)state;
    for (int action = FAILURE_PAUSE; action <= FAILURE_ROLLBACK; action += FAILURE_ROLLBACK) {
        struct plane p;
        struct service s;
        three_nodes(&p);
        plane_add_service(&p, "web", 3);
        plane_settle(&p);
        plane_edit(&p, "web", &s);
        s.spec.update = xnew(struct update_config);
        *s.spec.update = (struct update_config){ .parallelism = 1, .failure_action = action };
        set_image(&s, "broken:1");
        s.update_status->started_at = p.now_ns;
        plane_save(&p, &s);
        fail_new_tasks(&p, "broken:1");
        const struct service *svc = store_find(p.store, TABLE_SERVICE, "web");
        if (action == FAILURE_PAUSE) {
            assert_int_equal(svc->update_status->state, UPDATE_PAUSED);
            assert_int_equal(with_image(&p, "web", "busybox:1", TASK_RUNNING), 2); /* the others were left alone */
        } else {
            plane_run(&p, 60 * S_NS);
            svc = store_find(p.store, TABLE_SERVICE, "web");
            assert_int_equal(svc->update_status->state, UPDATE_ROLLBACK_COMPLETED);
            assert_string_equal(svc->spec.task.container->image, "busybox:1");
            assert_int_equal(with_image(&p, "web", "busybox:1", TASK_RUNNING), 3);
        }
        store_free(p.store);
    }
}

static void removing_a_service_removes_its_tasks(void **state)
{
    (void)state;
    struct plane p;
    three_nodes(&p);
    plane_add_service(&p, "web", 3);
    plane_settle(&p);
    struct store_tx *tx = store_tx_new(p.now_ns);
    store_tx_delete(tx, TABLE_SERVICE, store_find(p.store, TABLE_SERVICE, "web"));
    plane_commit(&p, tx);
    plane_settle(&p);
    assert_int_equal(store_count(p.store, TABLE_TASK), 0);
    store_free(p.store);
}

static void remove_node(struct plane *p, const char *id)
{
    struct store_tx *tx = store_tx_new(p->now_ns);
    store_tx_delete(tx, TABLE_NODE, store_find(p->store, TABLE_NODE, id));
    plane_commit(p, tx);
    plane_run(p, 60 * S_NS);
}

static void tasks_of_a_removed_node_do_not_stay(void **state)
{
    (void)state;
    struct plane p;
    uint32_t n, orphans = 0;
    three_nodes(&p);
    plane_add_service(&p, "web", 3);
    plane_add_service(&p, "agent", 0);
    plane_settle(&p);
    remove_node(&p, "n3");
    assert_int_equal(plane_running(&p, "web", "n3"), 0);
    assert_int_equal(plane_running(&p, "web", NULL), 3);
    const struct task **t = store_tasks_of_service(p.store, "web", &n);
    for (uint32_t i = 0; i < n; i++)
        orphans += t[i]->status.state == TASK_ORPHANED && str_equal(t[i]->node_id, "n3") && t[i]->desired == TASK_SHUTDOWN;
    assert_int_equal(orphans, 1);
    store_tasks_of_service(p.store, "agent", &n);
    assert_int_equal(n, 2);
    store_free(p.store);
}

/* A global service's update ends without them; they follow when they are back. */
static void an_update_waits_for_no_lost_node(void **state)
{
    (void)state;
    struct plane p;
    struct service s;
    three_nodes(&p);
    plane_add_service(&p, "agent", 0);
    plane_settle(&p);
    plane_set_node(&p, "n2", NODE_DOWN, AVAIL_ACTIVE);
    plane_edit(&p, "agent", &s);
    set_image(&s, "busybox:2");
    s.update_status->started_at = p.now_ns;
    plane_save(&p, &s);
    plane_run(&p, 60 * S_NS);
    const struct service *svc = store_find(p.store, TABLE_SERVICE, "agent");
    assert_int_equal(svc->update_status->state, UPDATE_COMPLETED);
    plane_set_node(&p, "n2", NODE_READY, AVAIL_ACTIVE);
    plane_run(&p, 60 * S_NS);
    assert_int_equal(with_image(&p, "agent", "busybox:2", TASK_RUNNING), 3);
    store_free(p.store);
}

static void reservations_and_host_ports_are_respected(void **state)
{
    (void)state;
    struct plane p;
    struct service s;
    three_nodes(&p);
    plane_add_service(&p, "big", 5);
    plane_edit(&p, "big", &s);
    s.spec.task.resources = xnew(struct resources);
    s.spec.task.resources->reservations = xnew(struct resource_limits);
    s.spec.task.resources->reservations->memory_bytes = INT64_C(5) << 30; /* one a node */
    plane_save(&p, &s);
    plane_settle(&p);
    assert_int_equal(plane_running(&p, "big", NULL), 3);
    plane_add_service(&p, "port", 4);
    plane_edit(&p, "port", &s);
    struct port *port = REC_ADD(&s.endpoint.ports);
    *port = (struct port){ .target = 80, .published = 8080, .mode = PUBLISH_HOST };
    s.spec_version++;
    plane_save(&p, &s);
    plane_run(&p, 60 * S_NS);
    assert_int_equal(plane_running(&p, "port", NULL), 3);
    store_free(p.store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_are_made_and_spread),
        cmocka_unit_test(scaling_down_removes_and_keeps_balance),
        cmocka_unit_test(an_ended_task_is_restarted_after_its_delay),
        cmocka_unit_test(history_is_bounded),
        cmocka_unit_test(restart_policy_is_obeyed),
        cmocka_unit_test(a_lost_node_s_tasks_move_and_no_duplicate_stays),
        cmocka_unit_test(drain_moves_tasks),
        cmocka_unit_test(global_follows_the_nodes),
        cmocka_unit_test(constraints_hold),
        cmocka_unit_test(an_update_rolls_one_at_a_time),
        cmocka_unit_test(start_first_never_dips),
        cmocka_unit_test(a_failing_update_pauses_or_rolls_back),
        cmocka_unit_test(removing_a_service_removes_its_tasks),
        cmocka_unit_test(tasks_of_a_removed_node_do_not_stay),
        cmocka_unit_test(an_update_waits_for_no_lost_node),
        cmocka_unit_test(reservations_and_host_ports_are_respected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
