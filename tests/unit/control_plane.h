/* A control plane without Raft or network, for tests: a store, passes of orchestrator, allocator-like
 * address step left out, scheduler, and pretended agents. Time is a number. */
#ifndef TEST_CONTROL_PLANE_H
#define TEST_CONTROL_PLANE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/orchestrator.h>
#include <shoal/scheduler.h>
#include <stdio.h>

struct plane {
    struct store *store;
    uint64_t index;
    int64_t now_ns, next_ns;
};

#define S_NS INT64_C(1000000000)

static unsigned plane_ids;
static inline void plane_new_id(char out[26])
{
    snprintf(out, 26, "id%023u", ++plane_ids); /* readable and in order of making */
}

static inline void plane_init(struct plane *p)
{
    crypto_init();
    plane_ids = 0;
    *p = (struct plane){ .store = store_new(), .now_ns = 1000 * S_NS };
}

static inline int plane_try(struct plane *p, struct store_tx *tx, struct err *e)
{
    struct sb b;
    sb_init(&b, 0);
    store_tx_encode(tx, 1, &b);
    store_tx_free(tx);
    int r = store_apply(p->store, ++p->index, b.s, b.len, e);
    sb_done(&b);
    return r;
}

static inline void plane_commit(struct plane *p, struct store_tx *tx)
{
    struct err e = { 0 };
    if (plane_try(p, tx, &e) < 0)
        fail_msg("%s", e.text);
}

static inline void plane_add_node(struct plane *p, const char *id, const char *label, const char *value)
{
    struct node n = { 0 };
    str_set(&n.id, id);
    str_set(&n.description.hostname, id);
    str_set(&n.description.platform.os, "linux");
    str_set(&n.description.platform.arch, "x86_64");
    n.description.resources.nano_cpus = 4 * S_NS;
    n.description.resources.memory_bytes = INT64_C(8) << 30;
    n.status.state = NODE_READY;
    if (label)
        labels_set(&n.spec.labels, label, value);
    struct store_tx *tx = store_tx_new(p->now_ns);
    store_tx_create(tx, TABLE_NODE, &n);
    node_clear(&n);
    plane_commit(p, tx);
}

static inline void plane_set_node(struct plane *p, const char *id, int state, int availability)
{
    struct node n = { 0 };
    node_copy(&n, store_find(p->store, TABLE_NODE, id));
    n.status.state = state;
    n.spec.availability = availability;
    struct store_tx *tx = store_tx_new(p->now_ns);
    store_tx_update(tx, TABLE_NODE, &n);
    node_clear(&n);
    plane_commit(p, tx);
}

static inline void plane_add_service(struct plane *p, const char *id, uint64_t replicas /* 0: global */)
{
    struct service s = { .spec_version = 1, .allocated = 1 };
    struct err e = { 0 };
    str_set(&s.id, id);
    str_set(&s.spec.name, id);
    s.spec.task.container = xnew(struct container_spec_model);
    str_set(&s.spec.task.container->image, "busybox:1");
    if (replicas) {
        s.spec.mode.replicated = xnew(struct replicated);
        s.spec.mode.replicated->replicas = replicas;
    } else {
        s.spec.mode.global = xnew(struct empty);
    }
    assert_int_equal(service_spec_normalize(&s.spec, &e), 0);
    struct store_tx *tx = store_tx_new(p->now_ns);
    store_tx_create(tx, TABLE_SERVICE, &s);
    service_clear(&s);
    plane_commit(p, tx);
}

/* Edit a service: struct service s; plane_edit(&p, "web", &s); change; plane_save(&p, &s). */
static inline void plane_edit(struct plane *p, const char *id, struct service *s)
{
    *s = (struct service){ 0 };
    service_copy(s, store_find(p->store, TABLE_SERVICE, id));
}

static inline void plane_save(struct plane *p, struct service *s)
{
    struct store_tx *tx = store_tx_new(p->now_ns);
    s->allocated = s->spec_version;
    store_tx_update(tx, TABLE_SERVICE, s);
    service_clear(s);
    plane_commit(p, tx);
}

/* One pass; returns how many changes it made. Allocation is pretended: services count as allocated, tasks go
 * from NEW to PENDING. */
static inline uint32_t plane_pass(struct plane *p)
{
    struct store_tx *tx = store_tx_new(p->now_ns);
    struct orchestrator_pass pass = { .store = p->store, .tx = tx, .now_ns = p->now_ns,
                                      .new_id = plane_new_id };
    orchestrate(&pass);
    p->next_ns = pass.next_ns;
    for (const struct task *t = NULL; (t = store_next(p->store, TABLE_TASK, t));)
        if (t->status.state == TASK_NEW && !store_tx_touches(tx, TABLE_TASK, t->id)) {
            struct task copy = { 0 };
            task_copy(&copy, t);
            copy.status.state = TASK_PENDING;
            store_tx_update(tx, TABLE_TASK, &copy);
            task_clear(&copy);
        }
    for (const struct service *svc = NULL; (svc = store_next(p->store, TABLE_SERVICE, svc));)
        if (svc->allocated != svc->spec_version && !store_tx_touches(tx, TABLE_SERVICE, svc->id)) {
            struct service copy = { 0 };
            service_copy(&copy, svc);
            copy.allocated = copy.spec_version;
            store_tx_update(tx, TABLE_SERVICE, &copy);
            service_clear(&copy);
        }
    schedule(p->store, tx, p->now_ns);
    uint32_t n = store_tx_count(tx);
    if (n)
        plane_commit(p, tx);
    else
        store_tx_free(tx);
    return n;
}

static inline void plane_report(struct plane *p, const char *task_id, int state)
{
    struct task t = { 0 };
    task_copy(&t, store_find(p->store, TABLE_TASK, task_id));
    t.status.state = state;
    t.status.timestamp = p->now_ns;
    struct store_tx *tx = store_tx_new(p->now_ns);
    store_tx_update(tx, TABLE_TASK, &t);
    task_clear(&t);
    plane_commit(p, tx);
}

/* Agents of READY nodes: run what is wanted, stop what is not. Returns how many reports they made. */
static inline uint32_t plane_agents(struct plane *p)
{
    struct { char id[26]; int state; } r[512];
    uint32_t n = 0;
    for (const struct task *t = NULL; n < 512 && (t = store_next(p->store, TABLE_TASK, t));) {
        const struct node *node = store_find(p->store, TABLE_NODE, t->node_id);
        int next = -1;
        if (!node || node->status.state != NODE_READY || t->status.state < TASK_ASSIGNED ||
            task_state_is_final(t->status.state))
            continue;
        if (t->desired > TASK_RUNNING)
            next = TASK_SHUTDOWN;
        else if (t->desired == TASK_RUNNING && t->status.state < TASK_RUNNING)
            next = TASK_RUNNING;
        else if (t->desired == TASK_READY && t->status.state < TASK_READY)
            next = TASK_READY;
        if (next < 0)
            continue;
        snprintf(r[n].id, sizeof r[n].id, "%s", t->id);
        r[n++].state = next;
    }
    for (uint32_t i = 0; i < n; i++)
        plane_report(p, r[i].id, r[i].state);
    return n;
}

/* Until nothing changes any more without time passing. */
static inline void plane_settle(struct plane *p)
{
    for (int i = 0; i < 1000; i++)
        if (plane_pass(p) + plane_agents(p) == 0)
            return;
    fail_msg("the control plane does not settle");
}

/* Lets time pass to whatever is due next, settling each time, at most until now + ns. */
static inline void plane_run(struct plane *p, int64_t ns)
{
    int64_t end = p->now_ns + ns;
    plane_settle(p);
    while (p->next_ns <= end) {
        p->now_ns = p->next_ns;
        plane_settle(p);
    }
    p->now_ns = end;
    plane_settle(p);
}

static inline uint32_t plane_running(struct plane *p, const char *service, const char *node)
{
    uint32_t n, running = 0;
    const struct task **t = store_tasks_of_service(p->store, service, &n);
    for (uint32_t i = 0; i < n; i++)
        running += t[i]->status.state == TASK_RUNNING && t[i]->desired == TASK_RUNNING &&
                   (!node || str_equal(t[i]->node_id, node));
    return running;
}

#endif
