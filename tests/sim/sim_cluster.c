/* Deterministic simulation of the control plane: the production store, orchestrator, allocator, scheduler, assignments
 * and task state machine; an ordered log in memory in place of Raft (sim_raft proves that part), pretended containers.
 *
 *   sim_cluster [--seeds N] [--seed S] [options, see seeds.h]      N seeds from S on, each twice: both must do the same
 *
 * Services are created, updated, scaled, rolled back and removed at random while containers fail, nodes are cut off,
 * called lost and come back, are drained, and the leader changes with transactions in flight. Checked after every
 * applied entry: replicas agree on the result and on every byte of state; states of tasks only move forward and a
 * task never changes its slot or node; no address is given twice, but for those of ended tasks; a stop-first slot
 * never has two containers running, lost nodes apart. At the end the faults stop and the cluster must become what
 * the specs say. */
#include "agent_internal.h"
#include "control_checks.h"
#include "queue.h"
#include "seeds.h"

#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/orchestrator.h>
#include <shoal/scheduler.h>
#include <stdio.h>

/* Of manager_internal.h, which names the same messages as agent_internal.h. */
void allocate(const struct store *s, struct store_tx *tx, int64_t now_ns);
void assignment_build(const struct store *s, const char *node_id, bool nodes_apart, struct assignment *ret);

enum { REPLICAS = 3, HOSTS = 5, SERVICES = 4, FLYING_MAX = 256, BOXES_MAX = 4096, SLOTS_SHOWN = 64 };
#define MS INT64_C(1000000)
#define CHAOS_MS 60000
#define CALM_NS (120 * SEC_NS)

#define KINDS(X) X(exit) X(image) X(leader) X(cut) X(drain) X(remove) X(rollback) X(scale) X(update)
enum kind { KINDS(SEEDS_KIND) };
static const char *const kinds[] = { KINDS(SEEDS_KIND_NAME) };
enum { L_OPS, L_FAULTS, L_NODES, L_UNTIL };
static struct seeds_limit limits[] = {
    [L_OPS] = { "--ops", "things that people do", 0, 0, 0 },
    [L_FAULTS] = { "--faults", "faults", 0, 0, 0 },
    [L_NODES] = { "--nodes", "nodes", 1, 0, 0 },
    [L_UNTIL] = { "--until", "ms until the faults end", 1, 0, 0 },
};

enum event_type { EV_COMMIT, EV_PASS, EV_ASSIGN, EV_REPORT, EV_EXEC, EV_DOWN, EV_CATCH_UP, EV_CLIENT, EV_FAULT };
struct event {
    struct due due;
    uint64_t n; /* flying number, box number or generation */
    enum event_type type;
    enum executor_event_kind kind;
    unsigned who;
};

struct flying { /* proposed, not yet committed */
    uint64_t n;
    struct sb bytes;
    bool is_pass;
    int host; /* whose report, or -1 */
    uint64_t report_seq;
};
struct entry { char *bytes; size_t size; int result; uint8_t state[32]; };

struct host {
    struct agent a;
    char id[26];
    bool cut, stale; /* stale: called lost, and has not heard since what it shall run */
    uint64_t generation;
    bool assign_due, report_due;
};

struct box { /* a container */
    char task[26], service[26];
    uint64_t slot, n;
    unsigned host;
    bool running, lost, stopping, gone;
};

static struct sim {
    uint64_t ids, n_flying_ever, n_events, hash;
    struct rng rng;
    int64_t now;
    bool calm, pass_due, pass_flies;
    unsigned leader, n_hosts;
    struct store *store[REPLICAS];
    struct entry *log;
    unsigned n_log;
    struct flying flying[FLYING_MAX];
    unsigned n_flying;
    struct queue queue;
    struct host hosts[HOSTS];
    struct box boxes[BOXES_MAX];
    unsigned n_boxes;
    unsigned n_leaders, n_refused, n_lost, n_changes, n_rollbacks;
} g;

#ifdef CLUSTER_PLANTED
int cluster_bug;
#endif

int64_t clock_real_ns(void)
{
    return g.now;
}

int64_t clock_mono_ns(void)
{
    return g.now;
}

static bool chance(unsigned permille)
{
    return rng_chance(&g.rng, permille);
}

static int64_t some_ms(uint64_t lo, uint64_t hi)
{
    return (int64_t)rng_range(&g.rng, lo, hi) * MS;
}

static void new_id(char out[26])
{
    snprintf(out, 26, "id%023llu", (unsigned long long)++g.ids);
}

static struct event *push(enum event_type type, unsigned who, int64_t delay)
{
    struct event e = { .due.at = g.now + delay, .type = type, .who = who };
    return queue_push(&g.queue, &e);
}

static const struct store *led(void)
{
    return g.store[g.leader];
}

/* ---- what must hold after every entry ---- */

static void on_change(void *arg, enum store_op op, enum store_table t, const void *old_obj, const void *new_obj)
{
    if (t == TABLE_TASK && old_obj && new_obj)
        check_task_change(old_obj, new_obj);
}

static void show_tasks(const struct service *svc)
{
    uint32_t n;
    const struct task **t = store_tasks_of_service(led(), svc->id, &n);
    for (uint32_t i = 0; i < n; i++)
        say("task %s slot %llu on %s: %s, wanted %s, version %llu, %s%s", t[i]->id, (unsigned long long)t[i]->slot,
            t[i]->node_id ? t[i]->node_id : "no node", task_state_names[t[i]->status.state], task_state_names[t[i]->desired],
            (unsigned long long)t[i]->spec_version, t[i]->status.message, t[i]->status.err ? t[i]->status.err : "");
}

/* Containers of a place that really run, on nodes that nobody gave up. */
static unsigned n_running(const struct box *like)
{
    unsigned n = 0;
    for (unsigned i = 0; i < g.n_boxes; i++) {
        const struct box *b = &g.boxes[i];
        n += b->running && !b->lost && str_equal(b->service, like->service) && b->slot == like->slot &&
             (b->slot || b->host == like->host);
    }
    return n;
}

static void check_place(const struct box *b)
{
    const struct service *svc = store_find(led(), TABLE_SERVICE, b->service);
    const struct task *t = store_find(led(), TABLE_TASK, b->task);
    if (!svc || !t || b->lost || service_update_config(svc->spec.update).order == ORDER_START_FIRST)
        return;
    if (n_running(b) > 1)
        show_tasks(svc);
    CHECK(n_running(b) <= 1, "two containers run for slot %llu of service %s", (unsigned long long)b->slot, svc->spec.name);
}

/* ---- the log ---- */

static void state_of(const struct store *s, uint8_t out[32])
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    store_save(s, &b);
    crypto_sha256(out, b.s, b.len);
}

static void apply_next(unsigned replica)
{
    struct err e = { 0 };
    uint8_t state[32];
    uint64_t index = store_index(g.store[replica]) + 1;
    struct entry *en = &g.log[index - 1];
    int r = store_apply(g.store[replica], index, en->bytes, en->size, &e);
    CHECK(r == en->result, "entry %llu gives %d at replica %u and %d at the leader: %s", (unsigned long long)index, r, replica,
          en->result, e.text);
    state_of(g.store[replica], state);
    CHECK(memcmp(state, en->state, 32) == 0, "replicas differ after entry %llu", (unsigned long long)index);
}

static void want_pass(int64_t delay)
{
    if (delay > 0) {
        push(EV_PASS, g.leader, delay);
    } else if (!g.pass_due) {
        g.pass_due = true;
        push(EV_PASS, g.leader, some_ms(0, 5));
    }
}

static void note_lost_nodes(void)
{
    for (unsigned h = 0; h < g.n_hosts; h++) {
        const struct node *n = store_find(led(), TABLE_NODE, g.hosts[h].id);
        if (n->status.state != NODE_DOWN)
            continue;
        g.hosts[h].stale = true;
        for (unsigned i = 0; i < g.n_boxes; i++)
            g.boxes[i].lost |= g.boxes[i].host == h;
    }
}

static int commit(struct flying *f)
{
    struct err e = { 0 };
    g.log = xrealloc(g.log, g.n_log + 1, sizeof *g.log);
    struct entry *en = &g.log[g.n_log++];
    *en = (struct entry){ .bytes = f->bytes.s, .size = f->bytes.len };
    en->result = store_apply(g.store[g.leader], g.n_log, en->bytes, en->size, &e);
    state_of(led(), en->state);
    if (en->result < 0)
        say("entry %u is refused: %s", g.n_log, e.text);
    CHECK(en->result == 0 || en->result == -E_STALE || en->result == -E_NOT_FOUND || en->result == -E_EXISTS,
          "entry %u is refused: %s", g.n_log, e.text);
    g.n_refused += en->result < 0;
    check_addresses(led());
    check_placement(led());
    note_lost_nodes();
    want_pass(0);
    for (unsigned i = 0; i < REPLICAS; i++)
        if (i != g.leader)
            push(EV_CATCH_UP, i, some_ms(0, 300));
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (!g.hosts[i].assign_due) {
            g.hosts[i].assign_due = true;
            push(EV_ASSIGN, i, some_ms(0, 60));
        }
    return en->result;
}

static struct flying *propose(struct store_tx *tx)
{
    CHECK(g.n_flying < FLYING_MAX, "too many transactions fly");
    struct flying *f = &g.flying[g.n_flying++];
    *f = (struct flying){ .n = ++g.n_flying_ever, .host = -1 };
    sb_init(&f->bytes, 0);
    store_tx_encode(tx, 1, &f->bytes);
    store_tx_free(tx);
    push(EV_COMMIT, 0, some_ms(1, 25))->n = f->n;
    return f;
}

static void want_report(unsigned h, int64_t delay)
{
    if (g.hosts[h].report_due)
        return;
    g.hosts[h].report_due = true;
    push(EV_REPORT, h, delay);
}

static void on_commit(uint64_t n)
{
    for (unsigned i = 0; i < g.n_flying; i++) {
        struct flying f = g.flying[i];
        if (f.n != n)
            continue;
        g.flying[i] = g.flying[--g.n_flying];
        int r = commit(&f);
        if (f.is_pass)
            g.pass_flies = false;
        if (f.host < 0)
            return;
        struct agent *a = &g.hosts[f.host].a;
        for (struct map_item *it = NULL; r == 0 && (it = map_next(&a->tasks, it));) {
            struct agent_task *t = it->value;
            if (t->report_seq && t->report_seq <= f.report_seq)
                t->report_seq = 0;
        }
        if (r < 0)
            want_report((unsigned)f.host, 5 * MS);
        return;
    }
}

/* What the old leader proposed is committed or lost; the new one begins with everything that was committed. */
static void change_leader(void)
{
    while (g.n_flying) {
        if (chance(500)) {
            on_commit(g.flying[0].n);
        } else {
            sb_done(&g.flying[0].bytes);
            g.flying[0] = g.flying[--g.n_flying];
        }
    }
    g.leader = (g.leader + (unsigned)rng_range(&g.rng, 1, REPLICAS - 1)) % REPLICAS;
    while (store_index(led()) < g.n_log)
        apply_next(g.leader);
    say("replica %u leads", g.leader);
    g.n_leaders++;
    g.pass_flies = g.pass_due = false;
    want_pass(0);
    for (unsigned i = 0; i < g.n_hosts; i++)
        want_report(i, some_ms(1, 100));
}

static void pass(void)
{
    g.pass_due = false;
    if (g.pass_flies)
        return; /* its commit asks for the next */
    struct store_tx *tx = store_tx_new(g.now);
    struct orchestrator_pass p = { .store = led(), .tx = tx, .now_ns = g.now, .next_ns = INT64_MAX, .new_id = new_id };
    orchestrate(&p);
    allocate(led(), tx, g.now);
    schedule(led(), tx, g.now);
    if (p.next_ns != INT64_MAX)
        want_pass(MAX(p.next_ns - g.now, 1) + MS);
    if (!store_tx_count(tx)) {
        store_tx_free(tx);
        return;
    }
    propose(tx)->is_pass = true;
    g.pass_flies = true;
}

/* ---- agents: the production task machine; what report.c and worker.c do is done here without a disk ---- */

static unsigned host_of(const struct agent *a)
{
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (a == &g.hosts[i].a)
            return i;
    fail("an agent of no host");
}

void report_want(struct agent *a, struct agent_task *t)
{
    t->report_seq = ++a->seq;
    want_report(host_of(a), 5 * MS);
}

void worker_want_network(struct agent *a)
{
}

void worker_forget(struct agent *a, struct agent_task *t)
{
    a->ops.remove(a->ops_arg, t->task.id);
    map_remove(&a->tasks, t->task.id);
    task_clear(&t->task);
    task_status_clear(&t->status);
    free(t);
}

static bool hears(const struct host *h)
{
    const struct node *n = store_find(led(), TABLE_NODE, h->id);
    return !h->cut && n->status.state == NODE_READY;
}

static void assign(struct host *h)
{
    h->assign_due = false;
    if (!hears(h))
        return;
    struct assignment next = { 0 };
    assignment_build(led(), h->id, false, &next);
    assignment_clear(&h->a.assignment);
    h->a.assignment = next;
    h->stale = false;
    for (struct map_item *it = NULL; (it = map_next(&h->a.tasks, it));)
        ((struct agent_task *)it->value)->assigned = false;
    for (uint32_t i = 0; i < next.tasks.n; i++) {
        const struct task *t = &h->a.assignment.tasks.v[i];
        struct agent_task *at = map_find(&h->a.tasks, t->id);
        if (!at && task_state_is_final(t->status.state))
            continue;
        if (!at) {
            at = xnew(struct agent_task);
            at->status.state = TASK_ASSIGNED;
            map_put(&h->a.tasks, t->id, at);
        }
        task_clear(&at->task);
        task_copy(&at->task, t);
        at->assigned = true;
    }
    for (struct map_item *it = NULL; (it = map_next(&h->a.tasks, it));) {
        struct agent_task *t = it->value;
        if (!t->assigned && task_state_is_final(t->status.state))
            worker_forget(&h->a, t);
        else
            task_step(&h->a, t);
    }
}

/* As the dispatcher takes it in. */
static void add_update(struct store_tx *tx, const struct host *h, const struct agent_task *at)
{
    const struct task *t = store_find(led(), TABLE_TASK, at->task.id);
    if (!t || !str_equal(t->node_id, h->id) || at->status.state < t->status.state || at->status.state < TASK_ACCEPTED ||
        task_state_is_final(t->status.state) || task_status_equal(&at->status, &t->status))
        return;
    struct task copy = { 0 };
    task_copy(&copy, t);
    task_status_clear(&copy.status);
    task_status_copy(&copy.status, &at->status);
    store_tx_update(tx, TABLE_TASK, &copy);
    task_clear(&copy);
}

static void report(unsigned i)
{
    struct host *h = &g.hosts[i];
    h->report_due = false;
    bool any = false;
    for (struct map_item *it = NULL; (it = map_next(&h->a.tasks, it));)
        any |= ((struct agent_task *)it->value)->report_seq != 0;
    if (!any)
        return;
    want_report(i, SEC_NS); /* again until it is acknowledged */
    if (!hears(h))
        return;
    struct store_tx *tx = store_tx_new(g.now);
    for (struct map_item *it = NULL; (it = map_next(&h->a.tasks, it));) {
        struct agent_task *t = it->value;
        if (t->report_seq && t->assigned)
            add_update(tx, h, t);
    }
    if (!store_tx_count(tx)) {
        store_tx_free(tx);
        return;
    }
    struct flying *f = propose(tx);
    f->host = (int)i;
    f->report_seq = h->a.seq;
}

/* ---- containers ---- */

static struct box *box_of(void *arg, const char *task)
{
    const struct host *h = arg;
    for (unsigned i = 0; i < g.n_boxes; i++)
        if (g.boxes[i].host == (unsigned)(h - g.hosts) && str_equal(g.boxes[i].task, task) && !g.boxes[i].gone)
            return &g.boxes[i];
    return NULL;
}

static void answer(const struct box *b, enum executor_event_kind kind, int64_t delay)
{
    struct event *e = push(EV_EXEC, b->host, delay);
    e->kind = kind;
    e->n = b->n;
}

static void on_prepare(void *arg, const struct task *t, const struct assignment *a)
{
    CHECK(!box_of(arg, t->id), "task %s is prepared twice", t->id);
    CHECK(g.n_boxes < BOXES_MAX, "too many containers");
    struct box *b = &g.boxes[g.n_boxes];
    *b = (struct box){ .slot = t->slot, .n = g.n_boxes++, .host = (unsigned)((struct host *)arg - g.hosts) };
    snprintf(b->task, sizeof b->task, "%s", t->id);
    snprintf(b->service, sizeof b->service, "%s", t->service_id);
    answer(b, !g.calm && chance(30) && has_kind(K_image) ? EXEC_FAILED : EXEC_PREPARED, some_ms(10, 800));
}

static void on_start(void *arg, const char *task)
{
    struct box *b = box_of(arg, task);
    CHECK(b && !b->running, "task %s is started unprepared or twice", task);
    answer(b, EXEC_STARTED, some_ms(5, 200));
}

static void on_stop(void *arg, const char *task, int64_t grace)
{
    struct box *b = box_of(arg, task);
    if (b) {
        b->stopping = true;
        answer(b, EXEC_EXITED, some_ms(1, 500));
        return;
    }
    struct executor_event ev = { .kind = EXEC_EXITED };
    agent_executor_event(&((struct host *)arg)->a, task, &ev); /* never ran */
}

static void on_remove(void *arg, const char *task)
{
    struct box *b = box_of(arg, task);
    if (b) {
        CHECK(!b->running, "task %s is removed while it runs", task);
        b->gone = true;
    }
}

static bool on_network(void *arg, const struct assignment *a, const struct map *suspects)
{
    return true;
}

static void execute(const struct event *e)
{
    struct box *b = &g.boxes[e->n];
    struct executor_event ev = { .kind = e->kind, .container_id = b->task, .pid = 7 };
    if (b->gone || (b->stopping && e->kind != EXEC_EXITED))
        return;
    if (e->kind == EXEC_STARTED) {
        b->running = true;
        b->lost |= g.hosts[b->host].stale;
        check_place(b);
        if (!g.calm && chance(300) && has_kind(K_exit))
            answer(b, EXEC_EXITED, some_ms(1, 15000));
    } else if (e->kind == EXEC_EXITED) {
        b->running = false;
        ev.exit_code = b->stopping ? 143 : chance(700) ? 1 : 0;
    } else if (e->kind == EXEC_FAILED) {
        ev.error = "no such image";
    }
    char task[26];
    memcpy(task, b->task, sizeof task);
    agent_executor_event(&g.hosts[b->host].a, task, &ev);
}

/* ---- users ---- */

static void create_service(const char *name)
{
    struct service s = { .spec_version = 1 };
    struct err e = { 0 };
    char id[26];
    new_id(id);
    str_set(&s.id, id);
    random_service(&s.spec, &g.rng, name);
    random_placement(&s.spec, &g.rng, g.n_hosts, 8000 + (unsigned)name[3]); /* svcN */
    CHECK(service_spec_normalize(&s.spec, &e) == 0, "%s", e.text);
    struct store_tx *tx = store_tx_new(g.now);
    store_tx_create(tx, TABLE_SERVICE, &s);
    service_clear(&s);
    propose(tx);
    say("create %s", name);
}

/* As control_service.c does it: a change of what tasks are made of is an update. */
static void replace_spec(const struct service *old, struct service_spec *spec, bool rollback)
{
    struct service s = { 0 };
    service_copy(&s, old);
    if (!s.previous)
        s.previous = xnew(struct service_spec);
    else
        service_spec_clear(s.previous);
    *s.previous = s.spec;
    s.spec = *spec;
    if (service_spec_needs_new_tasks(s.previous, &s.spec)) {
        s.spec_version++;
        if (!s.update_status)
            s.update_status = xnew(struct update_status);
        s.update_status->state = rollback ? UPDATE_ROLLBACK_STARTED : UPDATE_UPDATING;
        s.update_status->started_at = g.now;
        s.update_status->completed_at = 0;
    }
    struct store_tx *tx = store_tx_new(g.now);
    store_tx_update(tx, TABLE_SERVICE, &s);
    service_clear(&s);
    propose(tx);
}

static void change_service(const struct service *svc)
{
    struct service_spec spec = { 0 };
    unsigned what = (unsigned)rng_below(&g.rng, 100);
    enum kind kind = what < 20 ? K_remove : what < 35 && svc->previous ? K_rollback : what < 60 && svc->spec.mode.replicated ? K_scale : K_update;
    if (!has_kind(kind))
        return;
    g.n_changes++;
    if (kind == K_remove) {
        struct store_tx *tx = store_tx_new(g.now);
        store_tx_delete(tx, TABLE_SERVICE, svc);
        propose(tx);
        say("remove %s", svc->spec.name);
        return;
    }
    service_spec_copy(&spec, kind == K_rollback ? svc->previous : &svc->spec);
    if (kind == K_rollback) {
        g.n_rollbacks++;
        say("roll back %s", svc->spec.name);
    } else if (kind == K_scale) {
        spec.mode.replicated->replicas = rng_below(&g.rng, service_most(&spec, g.n_hosts) + 1);
        say("scale %s to %llu", svc->spec.name, (unsigned long long)spec.mode.replicated->replicas);
    } else {
        AUTO_FREE char *image = xasprintf("busybox:%llu", (unsigned long long)rng_below(&g.rng, 1000));
        str_set(&spec.task.container->image, image);
        say("update %s to %s", svc->spec.name, image);
    }
    replace_spec(svc, &spec, kind == K_rollback);
}

static void client(void)
{
    if (!limit_take(&limits[L_OPS]))
        return;
    AUTO_FREE char *name = xasprintf("svc%u", (unsigned)rng_below(&g.rng, SERVICES));
    const struct service *svc = store_find_name(led(), TABLE_SERVICE, name);
    if (svc)
        change_service(svc);
    else
        create_service(name);
}

/* ---- faults ---- */

static void set_node(const char *id, int state, int availability)
{
    struct node n = { 0 };
    node_copy(&n, store_find(led(), TABLE_NODE, id));
    n.status.state = state;
    n.spec.availability = availability;
    struct store_tx *tx = store_tx_new(g.now);
    store_tx_update(tx, TABLE_NODE, &n);
    node_clear(&n);
    propose(tx);
}

static void heal(struct host *h)
{
    h->cut = false;
    h->generation++;
    push(EV_DOWN, (unsigned)(h - g.hosts), some_ms(1, 500))->n = h->generation; /* it says hello */
}

/* The leader judges: a node that was cut long enough is lost, one that says hello is ready. */
static void judge(const struct event *e)
{
    struct host *h = &g.hosts[e->who];
    const struct node *n = store_find(led(), TABLE_NODE, h->id);
    int state = h->cut ? NODE_DOWN : NODE_READY;
    if (e->n != h->generation || (n->status.state == state && !h->stale))
        return;
    if (n->status.state != state) {
        say("node %s is %s", h->id, h->cut ? "lost" : "back");
        set_node(h->id, state, n->spec.availability);
        g.n_lost += h->cut;
    }
    push(EV_DOWN, e->who, SEC_NS)->n = h->generation; /* until it is so */
    h->assign_due = true;
    push(EV_ASSIGN, e->who, some_ms(100, 300));
}

static void fault(void)
{
    unsigned i = (unsigned)rng_below(&g.rng, g.n_hosts);
    struct host *h = &g.hosts[i];
    const struct node *n = store_find(led(), TABLE_NODE, h->id);
    unsigned what = (unsigned)rng_below(&g.rng, 100);
    enum kind kind = what < 30 ? K_leader : what < 80 ? K_cut : K_drain;
    if (!has_kind(kind) || !limit_take(&limits[L_FAULTS]))
        return;
    if (kind == K_leader) {
        change_leader();
    } else if (kind == K_cut && h->cut) {
        heal(h);
    } else if (kind == K_cut) {
        say("node %s is cut off", h->id);
        h->cut = true;
        h->generation++;
        push(EV_DOWN, i, some_ms(500, 3000))->n = h->generation;
    } else {
        say("node %s is %s", h->id, n->spec.availability == AVAIL_DRAIN ? "active" : "drained");
        set_node(h->id, n->status.state, n->spec.availability == AVAIL_DRAIN ? AVAIL_ACTIVE : AVAIL_DRAIN);
    }
}

/* ---- one seed ---- */

static void found(void)
{
    struct cluster c = { .subnet_size = 24 };
    struct network net = { 0 };
    struct store_tx *tx = store_tx_new(g.now);
    str_set(&c.id, "cluster");
    strs_add(&c.pools, "10.0.0.0/8");
    c.spec.orchestration.history = (int64_t)rng_below(&g.rng, 4);
    store_tx_create(tx, TABLE_CLUSTER, &c);
    cluster_clear(&c);
    str_set(&net.id, "net0");
    str_set(&net.name, "net");
    store_tx_create(tx, TABLE_NETWORK, &net);
    network_clear(&net);
    for (unsigned i = 0; i < g.n_hosts; i++) {
        struct host *h = &g.hosts[i];
        struct node n = { 0 };
        snprintf(h->id, sizeof h->id, "node%u", i);
        str_set(&n.id, h->id);
        str_set(&n.description.hostname, h->id);
        labels_set(&n.spec.labels, "zone", i % 2 ? "b" : "a");
        str_set(&n.description.platform.os, "linux");
        str_set(&n.description.platform.arch, "x86_64");
        n.description.resources.nano_cpus = 4 * SEC_NS;
        n.description.resources.memory_bytes = INT64_C(8) << 30;
        n.status.state = NODE_READY;
        store_tx_create(tx, TABLE_NODE, &n);
        node_clear(&n);
        map_init(&h->a.tasks);
        h->a.ops = (struct executor_ops){ on_prepare, on_start, on_stop, on_remove, on_network };
        h->a.ops_arg = h;
    }
    for (unsigned i = 0; i < REPLICAS; i++) {
        g.store[i] = store_new();
        store_watch(g.store[i], on_change, NULL);
    }
    struct flying *f = propose(tx);
    on_commit(f->n);
}

static void handle(const struct event *e)
{
    switch (e->type) {
    case EV_COMMIT: on_commit(e->n); break;
    case EV_PASS:
        if (e->who == g.leader)
            pass();
        break;
    case EV_ASSIGN: assign(&g.hosts[e->who]); break;
    case EV_REPORT: report(e->who); break;
    case EV_EXEC: execute(e); break;
    case EV_DOWN: judge(e); break;
    case EV_CATCH_UP:
        for (uint64_t n = rng_below(&g.rng, 4); n > 0 && store_index(g.store[e->who]) < g.n_log && e->who != g.leader; n--)
            apply_next(e->who);
        break;
    case EV_CLIENT:
        if (!g.calm) {
            client();
            push(EV_CLIENT, 0, some_ms(10, 8000));
        }
        break;
    case EV_FAULT:
        if (!g.calm) {
            fault();
            push(EV_FAULT, 0, some_ms(10, 4000));
        }
        break;
    }
}

static void run_until(int64_t end)
{
    while (queue_is_due(&g.queue, end)) {
        struct event e;
        queue_pop(&g.queue, &e);
        g.now = e.due.at;
        g.n_events++;
        g.hash = (g.hash ^ (uint64_t)e.due.at ^ e.due.seq << 40 ^ (uint64_t)e.type << 56) * UINT64_C(0x9e3779b97f4a7c15);
        handle(&e);
    }
    g.now = end;
}

/* Every place of a service has one running task, and the containers are the ones the store believes in. */
static void check_service(const struct service *svc)
{
    uint32_t n, running = 0;
    const struct task **t = store_tasks_of_service(led(), svc->id, &n);
    int state = svc->update_status ? svc->update_status->state : UPDATE_NONE;
    bool paused = state == UPDATE_PAUSED || state == UPDATE_ROLLBACK_PAUSED;
    bool some = svc->spec.task.placement && svc->spec.task.placement->constraints.n; /* of the nodes: zone a */
    uint64_t want = svc->spec.mode.global ? some ? (g.n_hosts + 1) / 2 : g.n_hosts : svc->spec.mode.replicated->replicas;
    show_tasks(svc);
    CHECK(state != UPDATE_UPDATING && state != UPDATE_ROLLBACK_STARTED, "the update of %s does not end", svc->spec.name);
    for (uint32_t i = 0; i < n; i++) {
        if (t[i]->status.state != TASK_RUNNING)
            continue;
        running++;
        unsigned h = t[i]->node_id[4] - '0';
        struct box *b = box_of(&g.hosts[h], t[i]->id);
        CHECK(t[i]->desired == TASK_RUNNING && (paused || str_equal(t[i]->spec.container->image, svc->spec.task.container->image)),
              "task %s of %s runs, wanted %s, as version %llu of %llu, update state %d", t[i]->id, svc->spec.name,
              task_state_names[t[i]->desired], (unsigned long long)t[i]->spec_version, (unsigned long long)svc->spec_version, state);
        CHECK(b && b->running, "task %s of %s runs in the store only", t[i]->id, svc->spec.name);
        for (uint32_t k = 0; k < i; k++)
            CHECK(t[k]->status.state != TASK_RUNNING || t[k]->slot != t[i]->slot || (!t[i]->slot && t[k]->node_id[4] != t[i]->node_id[4]),
                  "two tasks run in slot %llu of %s", (unsigned long long)t[i]->slot, svc->spec.name);
    }
    CHECK(running == want, "%s has %u running tasks, not %llu", svc->spec.name, running, (unsigned long long)want);
}

static void check_end(void)
{
    unsigned boxes = 0, running = 0;
    CHECK(!g.n_flying && !g.pass_flies, "the control plane does not come to rest");
    for (unsigned i = 0; i < REPLICAS; i++)
        while (store_index(g.store[i]) < g.n_log)
            apply_next(i);
    for (const struct service *svc = NULL; (svc = store_next(led(), TABLE_SERVICE, svc));)
        check_service(svc);
    for (const struct task *t = NULL; (t = store_next(led(), TABLE_TASK, t));) {
        CHECK(store_find(led(), TABLE_SERVICE, t->service_id), "task %s of no service is left", t->id);
        running += t->status.state == TASK_RUNNING;
    }
    for (unsigned i = 0; i < g.n_boxes; i++)
        boxes += g.boxes[i].running;
    CHECK(boxes == running, "%u containers run, for %u tasks", boxes, running);
}

static void tear_down(void)
{
    for (unsigned i = 0; i < g.n_hosts; i++) {
        struct agent *a = &g.hosts[i].a;
        for (struct map_item *it = NULL; (it = map_next(&a->tasks, it));) {
            struct agent_task *t = it->value;
            task_clear(&t->task);
            task_status_clear(&t->status);
            free(t);
        }
        map_done(&a->tasks);
        assignment_clear(&a->assignment);
    }
    for (unsigned i = 0; i < REPLICAS; i++)
        store_free(g.store[i]);
    for (unsigned i = 0; i < g.n_log; i++)
        free(g.log[i].bytes);
    free(g.log);
    queue_done(&g.queue);
}

static uint64_t run_seed(uint64_t seed)
{
    memset(&g, 0, sizeof g);
    g.queue.size = sizeof(struct event);
    g.now = 1000 * SEC_NS;
    g.n_hosts = (unsigned)limit_cut(&limits[L_NODES], HOSTS);
    rng_init(&g.rng, seed);
    found();
    push(EV_CLIENT, 0, 0);
    push(EV_FAULT, 0, some_ms(0, 10000));
    run_until(g.now + (int64_t)limit_cut(&limits[L_UNTIL], CHAOS_MS) * MS);
    g.calm = true;
    say("calm");
    for (unsigned i = 0; i < g.n_hosts; i++) {
        heal(&g.hosts[i]);
        run_until(g.now + SEC_NS);
        const struct node *n = store_find(led(), TABLE_NODE, g.hosts[i].id);
        if (n->spec.availability != AVAIL_ACTIVE)
            set_node(n->id, n->status.state, AVAIL_ACTIVE);
        run_until(g.now + SEC_NS);
    }
    run_until(g.now + CALM_NS);
    check_end();
    if (is_verbose())
        printf("seed %llu: %llu events, %u entries, %u refused, %u leaders, %u nodes lost, %u changes, %u rollbacks, %u "
               "containers\n", (unsigned long long)seed, (unsigned long long)g.n_events, g.n_log, g.n_refused, g.n_leaders, g.n_lost,
               g.n_changes, g.n_rollbacks, g.n_boxes);
    for (unsigned i = 0; g.n_log && i < 32; i++)
        g.hash = g.hash * 31 + g.log[g.n_log - 1].state[i];
    tear_down();
    return g.hash;
}

static int64_t now_ms(void)
{
    return g.now / MS;
}

static void where(void)
{
    printf(", event %llu", (unsigned long long)g.n_events);
}

static struct { uint64_t events, entries, refused, boxes, leaders, lost; } sums;

static void sum(void)
{
    sums.events += g.n_events;
    sums.entries += g.n_log;
    sums.refused += g.n_refused;
    sums.boxes += g.n_boxes;
    sums.leaders += g.n_leaders;
    sums.lost += g.n_lost;
}

static void figures(void)
{
    printf("%llu events, %llu log entries (%llu refused), %llu containers, %llu leaders, %llu nodes lost\n",
           (unsigned long long)sums.events, (unsigned long long)sums.entries, (unsigned long long)sums.refused,
           (unsigned long long)sums.boxes, (unsigned long long)sums.leaders, (unsigned long long)sums.lost);
}

int main(int argc, char **argv)
{
    static struct seeds s = { .program = "sim_cluster", .kinds = kinds, .n_kinds = ARRAY_N(kinds), .limits = limits,
                              .n_limits = ARRAY_N(limits), .n = 30, .run = run_seed, .now_ms = now_ms, .where = where, .sum = sum,
                              .figures = figures };
#ifdef CLUSTER_PLANTED
    s.bug = &cluster_bug;
#endif
    if (!seeds_parse(&s, argc, argv))
        return 2;
    crypto_init();
    log_set_level(LOG_ERROR);
    return seeds_run();
}
