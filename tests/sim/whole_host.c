/* Machines: the start and the end of their daemons, and containers that only pretend, which go on without a daemon and
 * end with the power. */
#include "overlay_internal.h"
#include "whole.h"

/* ---- machine ---- */
void describe_machine(struct node_description *ret)
{
    str_set(&ret->hostname, g.self->name);
    str_set(&ret->platform.arch, "x86_64");
    str_set(&ret->platform.os, "linux");
    ret->resources.nano_cpus = 4 * SEC_NS;
    ret->resources.memory_bytes = INT64_C(8) << 30;
    str_set(&ret->engine.version, "sim");
}

int advertise_address(const char *text, char ret[64], struct err *e)
{
    (void)text, (void)e;
    snprintf(ret, 64, "%s", g.self->addr);
    return 0;
}

void address_watch(struct daemon *d)
{
    (void)d;
}

void address_unwatch(struct daemon *d)
{
    (void)d;
}

int daemon_overlay_open(struct daemon *d, struct err *e)
{
    (void)d, (void)e;
    return 0;
}

void overlay_clear(struct overlay *o)
{
    (void)o;
}

void api_leader_changed(struct api *a)
{
    (void)a;
}

void api_node_event(struct api *a, const struct node *old, const struct node *now)
{
    (void)a, (void)old, (void)now;
}

void api_serve_peer(struct api *a, struct stream *s, bool from_manager)
{
    (void)a, (void)from_manager;
    stream_free(s);
}

/* There are no images, so no blobs of theirs. */
void images_open(struct daemon *d)
{
    (void)d;
}

void images_close(struct daemon *d)
{
    (void)d;
}

void images_channel(struct daemon *d, const char *node_id, struct stream *s)
{
    (void)d, (void)node_id;
    stream_free(s);
}

void images_held(struct daemon *d, const char *node_id, const void *p, size_t size)
{
    (void)d, (void)node_id, (void)p, (void)size;
}

void images_link_up(struct daemon *d, const char *node_id)
{
    (void)d, (void)node_id;
}

void images_node_gone(struct daemon *d, const char *node_id)
{
    (void)d, (void)node_id;
}

void images_nodes_changed(struct daemon *d)
{
    (void)d;
}

/* ---- containers ---- */
#define DRAIN_NS (1900 * MS) /* DRAIN_MS of agent/task.c, on a fast clock */

static void host_calls_nobody(struct host *h)
{
    map_done(&h->calls);
    map_init(&h->calls);
}

struct executor {
    struct host *host;
    struct agent *agent;
};

static struct box *box_of(const struct host *h, const char *task)
{
    for (unsigned i = 0; i < g.n_boxes; i++)
        if (g.boxes[i].host == h && !g.boxes[i].gone && str_equal(g.boxes[i].task, task))
            return &g.boxes[i];
    return NULL;
}

/* The kernel's part: it happens whether a daemon is there or not. */
static void box_event(struct event *e);

static void answer(struct box *b, enum executor_event_kind kind, int64_t delay)
{
    push(NULL, delay, box_event, (uint64_t)(b - g.boxes), kind);
}

static void tell(struct box *b, enum executor_event_kind kind, const char *error)
{
    struct host *h = b->host;
    if (!h->executor || !h->executor->agent)
        return;
    struct executor_event ev = { .kind = kind, .container_id = b->task, .pid = 7, .error = error, .exit_code = b->exit_code };
    char task[26];
    memcpy(task, b->task, sizeof task);
    enter(h);
    agent_executor_event(h->executor->agent, task, &ev);
    leave(h);
}

static void box_event(struct event *e)
{
    struct box *b = &g.boxes[e->a];
    enum executor_event_kind kind = (enum executor_event_kind)e->b;
    struct host *h = b->host;
    if (b->gone || h->off || (b->stopping && kind != EXEC_EXITED))
        return;
    if (h->paused) {
        push(NULL, h->resume - g.now + 1, box_event, e->a, e->b);
        return;
    }
    mix(kind);
    switch (kind) {
    case EXEC_PREPARED: b->prepared = true; break;
    case EXEC_STARTED:
        if (!h->loop) /* it was the daemon that would have started it */
            return;
        b->running = true;
        b->since = g.now;
        checks_box_started(b);
        if (!g.calm && chance(S_BOX, 150) && has_kind(K_exit))
            answer(b, EXEC_EXITED, some_ms(S_BOX, 1, 15000));
        break;
    case EXEC_EXITED:
        if (!b->running && !b->stopping)
            return;
        b->running = false;
        map_remove(&h->calls, b->task);
        b->exit_code = b->stopping ? 143 : chance(S_BOX, 700) ? 1 : 0;
        break;
    default: break;
    }
    tell(b, kind, kind == EXEC_FAILED ? "no such image" : NULL);
}

static void on_prepare(void *arg, const struct task *t, const struct assignment *a)
{
    struct host *h = ((struct executor *)arg)->host;
    (void)a;
    CHECK(!box_of(h, t->id), "%s: task %s is prepared twice", h->name, t->id);
    CHECK(g.n_boxes < BOXES_MAX, "too many containers");
    struct box *b = &g.boxes[g.n_boxes++];
    *b = (struct box){ .slot = t->slot, .host = h };
    snprintf(b->task, sizeof b->task, "%s", t->id);
    snprintf(b->service, sizeof b->service, "%s", t->service_id);
    answer(b, !g.calm && chance(S_BOX, 30) && has_kind(K_image) ? EXEC_FAILED : EXEC_PREPARED, some_ms(S_BOX, 10, 800));
}

static void on_start(void *arg, const char *task)
{
    struct box *b = box_of(((struct executor *)arg)->host, task);
    CHECK(b && !b->running, "task %s is started unprepared or twice", task);
    answer(b, EXEC_STARTED, some_ms(S_BOX, 5, 200));
}

/* The kernel's rules, which outlive the daemon: who gets calls, by the overlay's own plan. */
static void plan_calls(struct host *h, const struct assignment *a, const struct map *suspects)
{
    struct plan_index index;
    struct map own;
    struct plan_input in = { .a = a, .index = &index, .suspects = suspects, .node_id = daemon_node_id(&h->d), .sandboxes = &own };
    plan_index_build(&index, a);
    map_init(&own);
    for (unsigned i = 0; i < g.n_boxes; i++)
        if (g.boxes[i].host == h && g.boxes[i].running)
            map_put(&own, g.boxes[i].task, h);
    host_calls_nobody(h);
    for (uint32_t i = 0; i < a->replicas.n; i++)
        if (plan_may_get_new(&in, &a->replicas.v[i]))
            map_put(&h->calls, a->replicas.v[i].task_id, h);
    map_done(&own);
    plan_index_done(&index);
}

static bool on_network(void *arg, const struct assignment *a, const struct map *suspects)
{
    struct host *h = ((struct executor *)arg)->host;
    plan_calls(h, a, suspects);
    for (uint32_t i = 0; i < a->tasks.n; i++) {
        struct box *b = box_of(h, a->tasks.v[i].id);
        if (b && a->tasks.v[i].desired > TASK_RUNNING && !b->to_stop)
            b->to_stop = g.now;
    }
    return true;
}

/* Until it has waited in vain, a task is stopped only when no node sends calls to it any more. */
static void check_drained(const struct executor *x, const struct box *b)
{
    const struct assignment *a = x->agent ? agent_assignment(x->agent) : NULL;
    bool assigned = false;
    for (uint32_t i = 0; a && i < a->tasks.n; i++)
        assigned |= str_equal(a->tasks.v[i].id, b->task);
    for (uint32_t i = 0; assigned && b->running && g.now - b->to_stop < DRAIN_NS && i < a->nodes.n; i++) {
        const struct host *k = host_by_node(a->nodes.v[i].id);
        CHECK(!k || a->nodes.v[i].status.state != NODE_READY || !map_find(&k->calls, b->task), "%s: %s is stopped while %s sends calls to it",
              x->host->name, b->task, k->name);
    }
}

static void never_ran(struct event *e)
{
    struct executor_event ev = { .kind = EXEC_EXITED };
    if (e->host->executor->agent)
        agent_executor_event(e->host->executor->agent, e->bytes, &ev);
}

static void on_stop(void *arg, const char *task, int64_t grace)
{
    struct host *h = ((struct executor *)arg)->host;
    struct box *b = box_of(h, task);
    (void)grace;
    if (b) {
        check_drained(arg, b);
        b->stopping = true;
        answer(b, EXEC_EXITED, some_ms(S_BOX, 1, 500));
        return;
    }
    struct event *e = push(h, 0, never_ran, 0, 0);
    e->bytes = xstrdup(task);
}

static void on_remove(void *arg, const char *task)
{
    struct box *b = box_of(((struct executor *)arg)->host, task);
    if (!b)
        return;
    if (b->running) /* kill comes with it, as the runtime's delete does */
        say("%s: container of %s is killed and removed", b->host->name, task);
    b->running = false;
    b->gone = true;
}

const struct executor_ops executor_ops = { on_prepare, on_start, on_stop, on_remove, on_network };

struct executor *executor_new(struct loop *l, const struct executor_config *cfg)
{
    struct executor *x = xnew(struct executor);
    (void)cfg;
    x->host = l->host;
    return l->host->executor = x;
}

void executor_free(struct executor *x)
{
    if (x)
        x->host->executor = NULL;
    free(x);
}

void executor_adopt(struct executor *x, struct agent *a)
{
    x->agent = a;
    for (unsigned i = 0; i < g.n_boxes; i++) {
        struct box *b = &g.boxes[i];
        if (b->host != x->host || b->gone)
            continue;
        if (!b->since) { /* half made: it is made anew */
            b->gone = true;
            continue;
        }
        struct executor_event ev = { .kind = EXEC_EXITED, .container_id = b->task, .pid = 7, .exit_code = b->exit_code };
        b->stopping = false;
        agent_adopt(a, b->task, b->running, &ev);
    }
}

/* ---- daemons ---- */
bool host_is_member(const struct host *h)
{
    return h->loop && h->d.member.certificate && h->d.agent;
}

struct host *host_by_node(const char *node_id)
{
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (host_is_member(&g.hosts[i]) && str_equal(daemon_node_id(&g.hosts[i].d), node_id))
            return &g.hosts[i];
    return NULL;
}

struct host *some_leader(void)
{
    struct host *found = NULL;
    for (unsigned i = 0; i < g.n_hosts; i++) {
        struct host *h = &g.hosts[i];
        if (h->loop && !h->paused && !h->out && h->d.manager && manager_leads(h->d.manager) && (!found || chance(S_USER, 500)))
            found = h;
    }
    return found;
}

/* The older program may not start here, or is not let in: the newer one may. */
static void exchange_event(struct event *e)
{
    struct host *h = &g.hosts[e->a];
    if (h->loop && h->life == e->b)
        host_exchange(h, FORMATS);
}

static void is_too_old(struct host *h, const struct err *e)
{
    say("%s is too old: %s", h->name, e->text);
    CHECK(h->format < FORMATS && !strncmp(e->text, "this cluster writes format 2", 28), "%s: %s", h->name, e->text);
    g.n_too_old++;
    push(NULL, some_ms(S_FAULT, 0, 3000), exchange_event, h->n, h->life);
}

static void end_of_join(void *arg, const struct err *e)
{
    struct host *h = arg;
    h->joining = false;
    say("%s %s%s", h->name, e ? "could not join: " : "joined", e ? e->text : "");
    if (e && e->code == E_UNSUPPORTED)
        is_too_old(h, e);
    else if (e && !h->harmed)
        CHECK(e->code == E_TIMEOUT || e->code == E_UNAVAILABLE || e->code == E_BUSY || e->code == E_DENIED || e->code == E_NOT_LEADER,
              "%s is not taken in: %s", h->name, e->text);
    h->wants_in = e != NULL && !h->dying;
}

/* As people do: what a manager says now, or what they were told before. */
static void read_tokens(void)
{
    const struct store *s = newest_store();
    const struct cluster *c = s ? store_cluster(s) : NULL;
    if (!c || chance(S_USER, 100))
        return;
    snprintf(g.worker_token, sizeof g.worker_token, "%s", c->tokens->worker);
    snprintf(g.manager_token, sizeof g.manager_token, "%s", c->tokens->manager);
}

static void try_join(struct event *ev)
{
    struct host *h = ev->host;
    read_tokens();
    struct node_join in = { .token = chance(S_USER, 600) ? g.manager_token : g.worker_token };
    if (host_is_member(h)) /* a join whose end was not seen */
        h->wants_in = false;
    if (!h->wants_in)
        return;
    push(h, some_ms(S_USER, 1000, 3000), try_join, 0, 0);
    if (h->joining || h->d.member.certificate)
        return;
    struct host *by = &g.hosts[pick(S_USER, 0, g.n_hosts - 1)];
    if (by == h || by->out)
        return;
    h->joining = true;
    AUTO_FREE char *addr = xasprintf("%s:%d", by->addr, PORT);
    strs_add(&in.remote_addrs, addr);
    node_start_join(&h->d, &in, end_of_join, h);
    strs_clear(&in.remote_addrs);
}

/* The daemon ends and is started again, as systemd does it. */
static void cannot_start(struct host *h, const struct err *e)
{
    CHECK(h->harmed, "%s: %s", h->name, e->text);
    say("%s does not start: %s", h->name, e->text);
    host_crash(h, false);
    host_restart(h, SEC_NS);
}

static void enter_cluster(struct host *h)
{
    struct err e = { 0 };
    int r = member_start(&h->d, true, &e);
    CHECK(r < 0 || !h->forgot, "%s comes back as itself without the log of what it has promised", h->name);
    if (r < 0 && h->forgot) {
        say("%s does not start: %s", h->name, e.text);
        host_crash(h, false);
        host_put_up_anew(h);
    } else if (r < 0) {
        cannot_start(h, &e);
    }
}

static void nothing_runs(struct host *h, const struct err *e)
{
    rec_clear(&membership_rec, &h->d.member);
    is_too_old(h, e);
}

/* Somebody tries the keys that were written down, the latest first. */
static void unlock(struct event *ev)
{
    struct host *h = ev->host;
    struct err e = { 0 };
    for (unsigned i = g.n_unlock_keys; i > 0 && h->d.locked; i--) {
        int r = lock_open(&h->d, g.unlock_keys[i - 1], &e);
        if (r == -E_UNSUPPORTED) {
            nothing_runs(h, &e);
            return;
        }
        h->d.locked = r < 0;
    }
    CHECK(!h->d.locked, "%s is locked, and no key opens it: %s", h->name, e.text);
    g.n_unlocked++;
    enter_cluster(h);
}

void host_boot(struct host *h)
{
    struct err e = { 0 };
    struct daemon *d = &h->d;
    CHECK(!h->loop, "%s is up", h->name);
    h->life++;
    h->loop = xnew(struct loop);
    h->loop->host = h;
    h->paused = h->joining = h->leaving = false;
    enter(h);
    *d = (struct daemon){ .loop = h->loop, .cfg = { .root = h->root, .control_port = PORT, .gossip_port = GOSSIP_PORT, .tunnel_port = 4789,
                                                 .raft = g.raft } };
    sb_init(&d->packed_certificate, LINK_PAYLOAD_MAX_BYTES);
    int r = identity_load(h->root, &d->identity, &e);
    d->locked = r == 0 && identity_is_sealed(&d->identity);
    if (r == 0 && !d->locked)
        r = membership_load(h->root, &d->identity, &d->member, &e);
    if (r != -E_UNSUPPORTED)
        push(h, 0, try_join, 0, 0);
    if (d->locked)
        push(h, some_ms(S_USER, 100, 4000), unlock, 0, 0);
    else if (r == -E_NOT_FOUND)
        membership_remove(h->root);
    else if (r == -E_UNSUPPORTED)
        nothing_runs(h, &e);
    else if (r == 0)
        enter_cluster(h);
    else
        cannot_start(h, &e);
    if (h->loop)
        leave(h);
}

static void close_parts(struct daemon *d)
{
    member_stop(d);
    loop_timer_free(d->leave_timer);
    loop_timer_free(d->lock_timer);
    free(d->leave);
}

static void forget_memory(struct daemon *d)
{
    rec_clear(&identity_rec, &d->identity);
    rec_clear(&membership_rec, &d->member);
    sb_done(&d->packed_certificate);
}

static void has_ended(struct host *h)
{
    h->loop = NULL;
    h->life++;
    h->dying = ALIVE;
    h->watched = NULL;
    h->checked = h->snapshot = 0;
    g.self = NULL;
}

void host_crash(struct host *h, bool power)
{
    if (!h->loop)
        return;
    say("%s %s", h->name, power ? "loses power" : "is killed");
    power ? g.n_powers++ : g.n_kills++;
    enter(h);
    h->dying = power ? POWER_LOST : KILLED;
    host_want_copy(h);
    disk_fail_sync(h->raft_disk, false);
    disk_fail_sync(h->disk, false);
    disk_fuse(h->raft_disk, (unsigned)pick(S_DISK, 0, 4)); /* in the midst of what the worker does */
    disk_fuse(h->disk, 0);
    close_parts(&h->d);
    net_crash(h);
    loop_crash(h->loop);
    forget_memory(&h->d);
    free(h->loop);
    has_ended(h);
    g.n_torn += disk_crash(h->raft_disk, power) + disk_crash(h->disk, power);
    host_copy(h);
    if (!power)
        return;
    h->off = true;
    host_calls_nobody(h);
    for (unsigned i = 0; i < g.n_boxes; i++)
        if (g.boxes[i].host == h && !g.boxes[i].gone) {
            g.boxes[i].running = false;
            g.boxes[i].exit_code = 255;
        }
}

void host_abort(struct host *h)
{
    say("%s stops itself", h->name);
    g.n_aborts++;
    net_crash(h);
    loop_abort(h->loop);
    h->listener = NULL;
    h->udp = NULL;
    h->executor = NULL;
    has_ended(h);
    disk_crash(h->raft_disk, false);
    disk_crash(h->disk, false);
    host_restart(h, SEC_NS);
}

bool host_is_removed(const struct host *h)
{
    const struct store *s = newest_store();
    return s && store_index(s) >= g.newest_index && store_cluster(s) && h->node_id[0] && !h->wants_in && !store_find(s, TABLE_NODE, h->node_id);
}

static void restart(struct event *e)
{
    struct host *h = &g.hosts[e->a];
    if (h->loop || h->out || h->life != e->b)
        return;
    bool anew = host_is_removed(h);
    if (!g.calm && chance(S_FAULT, 300))
        h->format = g.now < g.back_until || chance(S_FAULT, 200) ? (unsigned)pick(S_FAULT, 1, FORMATS) : FORMATS;
    say("%s starts%s, knows format %u", h->name, anew ? ", with an empty disk" : "", h->format);
    h->off = false;
    if (anew) {
        disk_wipe(h->disk);
        disk_wipe(h->raft_disk);
        h->wants_in = true;
        h->forgot = false;
        if (g.rotten == h)
            g.rotten = NULL;
    }
    host_boot(h);
}

void host_restart(struct host *h, int64_t delay)
{
    push(NULL, delay, restart, h->n, h->life);
}

void host_exchange(struct host *h, unsigned format)
{
    host_crash(h, false);
    h->format = format;
    g.n_exchanged++;
    host_restart(h, some_ms(S_FAULT, 10, 1000));
}

static void really_stop(struct event *e)
{
    struct host *h = e->host;
    host_crash(h, false); /* what a graceful end does more than a kill is over */
    host_restart(h, (int64_t)e->a);
}

static void handed_over(void *arg)
{
    struct host *h = arg;
    push(h, 0, really_stop, (uint64_t)h->down, 0);
}

void host_stop(struct host *h, int64_t down)
{
    say("%s is stopped", h->name);
    h->down = down;
    enter(h);
    manager_hand_over(h->d.manager, handed_over, h);
    leave(h);
}

static void end_of_leave(void *arg, const struct err *e)
{
    struct host *h = arg;
    h->leaving = false;
    say("%s %s%s", h->name, e ? "does not leave: " : "left", e ? e->text : "");
    if (e || h->dying)
        return;
    h->wants_in = true;
    push(h, some_ms(S_USER, 0, 2000), try_join, 0, 0);
}

void host_leave_cluster(struct host *h)
{
    say("%s is to leave", h->name);
    h->leaving = true;
    enter(h);
    node_start_leave(&h->d, false, end_of_leave, h);
    leave(h);
}

/* ---- the cluster begins ---- */
static void founded(void *arg, const struct err *e)
{
    CHECK(!e, "init: %s", e->text);
    *(bool *)arg = true;
}

void hosts_found(unsigned n, unsigned managers)
{
    struct node_init in = { .managers = (char *)(uintptr_t)(managers ? "auto" : "manual") };
    bool done = false;
    g.n_hosts = n;
    for (unsigned i = 0; i < n; i++) {
        struct host *h = &g.hosts[i];
        h->n = i;
        map_init(&h->calls);
        h->format = (unsigned)pick(S_FAULT, 1, chance(S_FAULT, 400) ? FORMATS : 1);
        h->drift = (int64_t)pick(S_FAULT, 995, 1005);
        snprintf(h->name, sizeof h->name, "host%u", i);
        snprintf(h->addr, sizeof h->addr, "10.9.0.%u", i + 1);
        snprintf(h->root, sizeof h->root, "root%u", i);
        h->disk = disk_new(rng_u64(&g.rng[S_DISK]));
        h->raft_disk = disk_new(rng_u64(&g.rng[S_DISK]));
        host_boot(h);
    }
    struct host *first = &g.hosts[0];
    enter(first);
    node_start_init(&first->d, &in, founded, &done);
    leave(first);
    for (int i = 0; !done && i < 100; i++)
        run_until(g.now + 100 * MS);
    CHECK(done, "init does not end");
    const struct cluster *c = store_cluster(manager_store(first->d.manager));
    snprintf(g.worker_token, sizeof g.worker_token, "%s", c->tokens->worker);
    snprintf(g.manager_token, sizeof g.manager_token, "%s", c->tokens->manager);
    for (unsigned i = 1; i < n; i++) {
        g.hosts[i].wants_in = true;
        push(&g.hosts[i], some_ms(S_USER, 0, 300), try_join, 0, 0);
    }
    unsigned in_it = 0;
    for (int i = 0; in_it < n && i < 600; i++) {
        run_until(g.now + 100 * MS);
        for (in_it = 0; in_it < n && host_is_member(&g.hosts[in_it]);)
            in_it++;
    }
    CHECK(in_it == n, "only %u hosts are in after a minute", in_it);
}

void hosts_free(void)
{
    for (unsigned i = 0; i < g.n_hosts; i++) {
        host_crash(&g.hosts[i], true);
        map_done(&g.hosts[i].calls);
        disk_free(g.hosts[i].disk);
        disk_free(g.hosts[i].raft_disk);
        disk_free(g.hosts[i].copy);
    }
}
