/* Tasks as containers: image at hand or pulled, sandbox, container; then events of the runtime become events of
 * the agent. A container's id is derived from its task's, so that a restarted daemon knows whose it is; what
 * belongs to no task any more is removed. */
#include "executor_internal.h"
#include <errno.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <shoal/base/log.h>
#include <shoal/image_peers.h>
#include <stdio.h>
#include <sys/stat.h>

LOG_MODULE("executor");

struct job { /* a task here */
    struct executor *x;
    struct task task;
    char container_id[65];
    bool preparing, starting, started, stopping, removing, unhealthy, exit_told;
    char *why;             /* unhealthy: the last output of its check */
    struct health *health;
    struct list_node to_build; /* in executor.to_build */
};
struct executor {
    struct loop *loop;
    struct executor_config cfg;
    char *volumes_dir, *node_id, *hostname;
    struct agent *agent;
    struct assignment *assignment; /* the last one seen, for secrets at prepare */
    struct map jobs;               /* task id -> struct job */
    struct list_node to_build;     /* jobs whose image is here */
    struct loop_timer *build_next;
};

static void container_id_of(const char *task_id, char out[65])
{
    uint8_t h[32];
    crypto_sha256(h, task_id, strlen(task_id));
    hex_encode(out, h, sizeof h);
}

static struct job *job_find(struct executor *x, const char *task_id)
{
    return map_find(&x->jobs, task_id);
}

static void job_free(struct job *j)
{
    health_free(j->health);
    task_clear(&j->task);
    free(j->why);
    free(j);
}

static void event(struct job *j, const struct executor_event *ev)
{
    if (j->x->agent && !j->removing)
        agent_executor_event(j->x->agent, j->task.id, ev);
}

static void nothing(void *arg, int r, const struct err *e)
{
    (void)arg;
    if (r < 0 && r != -E_NOT_FOUND)
        log_warn("%s", e->text);
}

/* ---- volumes ---- */
char *executor_volume(struct executor *x, const char *name, struct err *e)
{
    if (check_name(name) && !strchr(name, '-')) {
        err_set(e, E_INVALID, "volume name \"%s\": %s", name, check_name(name));
        return NULL;
    }
    if (strchr(name, '/') || name[0] == '.') {
        err_set(e, E_INVALID, "volume name \"%s\" must not look like a path", name);
        return NULL;
    }
    char *path = xasprintf("%s/%s/_data", x->volumes_dir, name);
    if (file_mkdirs(path, 0755, e) < 0) {
        free(path);
        return NULL;
    }
    return path;
}

static char *volume_of(void *arg, const char *name, struct err *e)
{
    return executor_volume(arg, name, e);
}

static void remove_own_volumes(const struct job *j)
{
    struct err e;
    const struct container *c = runtime_find(j->x->cfg.runtime, j->container_id);
    for (uint32_t i = 0; c && i < c->spec.mounts.n; i++) {
        const char *src = c->spec.mounts.v[i].source;
        AUTO_FREE char *prefix = xasprintf("%s/%s-", j->x->volumes_dir, j->task.id);
        if (!src || !str_starts(src, prefix))
            continue;
        AUTO_FREE char *folder = xstrndup(src, strlen(src) - strlen("/_data"));
        if (folder_discard(j->x->loop, folder, &e) < 0)
            log_warn("%s", e.text);
    }
}

/* ---- preparing ---- */
static void undo(struct job *j)
{
    struct executor *x = j->x;
    if (runtime_find(x->cfg.runtime, j->container_id))
        runtime_delete(x->cfg.runtime, j->container_id, nothing, NULL);
    overlay_sandbox_remove(x->cfg.overlay, j->task.id);
}

static void failed(struct job *j, const char *text)
{
    j->preparing = false;
    undo(j);
    if (j->removing) {
        map_remove(&j->x->jobs, j->task.id);
        job_free(j);
        return;
    }
    event(j, &(struct executor_event){ .kind = EXEC_FAILED, .error = text });
}

/* The stop came while it was made. */
static bool given_up(struct job *j)
{
    if (!j->stopping)
        return false;
    j->preparing = false;
    undo(j);
    if (j->removing) {
        map_remove(&j->x->jobs, j->task.id);
        job_free(j);
    } else {
        event(j, &(struct executor_event){ .kind = EXEC_EXITED });
    }
    return true;
}

static void on_created(void *arg, int r, const struct err *e)
{
    struct job *j = arg;
    if (given_up(j))
        return;
    if (r < 0) {
        failed(j, e->text);
        return;
    }
    j->preparing = false;
    event(j, &(struct executor_event){ .kind = EXEC_PREPARED });
}

static int make_sandbox(struct job *j, const struct assignment *a, const char **ret_netns, struct err *e)
{
    struct sandbox s = { 0 };
    bool internal = j->task.attachments.n > 0;
    str_set(&s.id, j->task.id);
    for (uint32_t i = 0; i < j->task.attachments.n; i++) {
        const struct attachment *at = &j->task.attachments.v[i];
        const struct network *n = NULL;
        for (uint32_t k = 0; k < a->networks.n && !n; k++)
            n = str_equal(a->networks.v[k].id, at->network.id) ? &a->networks.v[k] : NULL;
        if (!n || !at->addresses.n) {
            rec_clear(&sandbox_rec, &s);
            return err_set(e, E_UNAVAILABLE, "network %s has not reached this node", at->network.id);
        }
        struct sandbox_link *l = REC_ADD(&s.links);
        str_set(&l->network_id, n->id);
        l->vni = n->vni;
        str_set(&l->addr, at->addresses.v[0]);
        internal = internal && n->internal;
    }
    s.internal = internal;
    for (uint32_t i = 0; i < j->task.ports.n; i++)
        if (j->task.ports.v[i].mode == PUBLISH_HOST && j->task.ports.v[i].published)
            port_copy(REC_ADD(&s.ports), &j->task.ports.v[i]);
    const struct dns_config *dns = j->task.spec.container->dns;
    for (uint32_t i = 0; dns && i < dns->nameservers.n; i++)
        strs_add(&s.nameservers, dns->nameservers.v[i]);
    int r = overlay_sandbox_add(j->x->cfg.overlay, &s, ret_netns, e);
    rec_clear(&sandbox_rec, &s);
    return r;
}

static int check_binds(const struct container_spec *s, const struct task *t, struct err *e)
{
    for (uint32_t i = 0; i < t->spec.container->mounts.n; i++) {
        const struct mount *m = &t->spec.container->mounts.v[i];
        const char *source = s->mounts.v[i].source;
        if (m->type != MOUNT_BIND || file_exists(source))
            continue;
        if (!m->bind || !m->bind->create_mountpoint)
            return err_set(e, E_INVALID, "invalid mount config for type \"bind\": bind source path does not exist: %s", source);
        int r = file_mkdirs(source, 0755, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static void build(struct job *j)
{
    struct executor *x = j->x;
    struct container_spec spec = { 0 };
    struct err e = { 0 };
    const char *netns = NULL;
    const struct template_context t = { &j->task, x->node_id, x->hostname, j->container_id };
    const struct assignment *a = x->agent ? agent_assignment(x->agent) : NULL;
    const struct image *image = image_find(x->cfg.images, j->task.spec.container->image);
    int r = a ? 0 : err_set(&e, E_UNAVAILABLE, "the node is leaving");
    if (r == 0 && !image)
        r = err_set(&e, E_NOT_FOUND, "image %s was removed from this node", j->task.spec.container->image);
    if (r == 0)
        r = task_container_spec(&j->task, a, image, &t, volume_of, x, &spec, &e);
    if (r == 0)
        r = check_binds(&spec, &j->task, &e);
    if (r == 0)
        r = make_sandbox(j, a, &netns, &e);
    if (r < 0) {
        container_spec_clear(&spec);
        failed(j, e.text);
        return;
    }
    str_set(&spec.netns, netns);
    container_mounts_sort(&spec);
    runtime_create(x->cfg.runtime, &spec, on_created, j);
    container_spec_clear(&spec);
}

/* One a turn: a namespace with its links takes the kernel milliseconds, and fifty tasks at once must not keep the
 * loop from its heartbeats. */
static void on_build_next(void *arg)
{
    struct executor *x = arg;
    struct job *j = list_first(&x->to_build, struct job, to_build);
    if (!j)
        return;
    list_remove(&j->to_build);
    if (!list_is_empty(&x->to_build))
        loop_timer_set(x->build_next, 0);
    if (!given_up(j))
        build(j);
}

static void with_image(struct job *j)
{
    list_push_back(&j->x->to_build, &j->to_build);
    loop_timer_set(j->x->build_next, 0);
}

static void on_pulled(void *arg, const struct image *image, const struct err *e)
{
    struct job *j = arg;
    if (given_up(j))
        return;
    if (!image) {
        AUTO_FREE char *why = xasprintf("No such image: %s, not on this node, and not to be pulled (%s); check its name, or "
                                        "bring it to every node with `shoal image push-to-cluster`", j->task.spec.container->image,
                                        e->text);
        failed(j, why);
    } else {
        with_image(j);
    }
}

static void prepare(void *arg, const struct task *t, const struct assignment *a)
{
    struct executor *x = arg;
    struct job *j = xnew(struct job);
    (void)a; /* read again when the image is there: it may have changed */
    j->x = x;
    task_copy(&j->task, t);
    container_id_of(t->id, j->container_id);
    map_put(&x->jobs, t->id, j);
    j->preparing = true;
    if (!t->spec.container || !t->spec.container->image) {
        failed(j, "the task names no image");
        return;
    }
    if (image_find(x->cfg.images, t->spec.container->image)) {
        with_image(j);
        return;
    }
    AUTO_FREE char *auth = NULL;
    size_t n;
    if (t->registry_auth)
        auth = (char *)base64_decode(t->registry_auth, strlen(t->registry_auth), &n);
    image_pull_for_task(x->cfg.images, t->spec.container->image, auth, on_pulled, j);
}

/* ---- running ---- */
static void on_health(void *arg, bool healthy, const char *output)
{
    struct job *j = arg;
    if (j->stopping)
        return;
    event(j, &(struct executor_event){ .kind = healthy ? EXEC_HEALTHY : EXEC_UNHEALTHY });
    if (healthy || j->unhealthy)
        return;
    j->unhealthy = true;
    str_set(&j->why, output);
    runtime_stop(j->x->cfg.runtime, j->container_id, 10 * SEC_NS, nothing, NULL);
}

static void watch_health(struct job *j)
{
    static const struct image_config none;
    const struct container *c = runtime_find(j->x->cfg.runtime, j->container_id);
    const struct image *image = c ? image_find(j->x->cfg.images, c->spec.image_id) : NULL;
    j->health = health_new(j->x->loop, j->x->cfg.runtime, j->container_id, j->task.spec.container->healthcheck,
                           image ? &image->config : &none, on_health, j);
}

static void stop(void *arg, const char *task_id, int64_t grace_ns);
static void remove_task(void *arg, const char *task_id);

static void on_started(void *arg, int r, const struct err *e)
{
    struct executor *x = ((struct job *)arg)->x;
    struct job *j = arg;
    j->starting = false;
    if (j->removing) { /* asked for while it started */
        remove_task(x, j->task.id);
        return;
    }
    if (j->stopping) {
        stop(x, j->task.id, 0);
        return;
    }
    if (r < 0) {
        j->exit_told = true;
        overlay_sandbox_remove(x->cfg.overlay, j->task.id);
        AUTO_FREE char *text = xstrdup(e->text);
        event(j, &(struct executor_event){ .kind = EXEC_FAILED, .container_id = j->container_id, .error = text });
        return;
    }
    const struct container *c = runtime_find(x->cfg.runtime, j->container_id);
    watch_health(j);
    event(j, &(struct executor_event){ .kind = EXEC_STARTED, .container_id = j->container_id,
                                       .pid = c ? (uint64_t)c->state.pid : 0, .has_healthcheck = j->health != NULL });
}

static void start(void *arg, const char *task_id)
{
    struct job *j = job_find(arg, task_id);
    if (!j)
        return;
    j->started = j->starting = true;
    runtime_start(j->x->cfg.runtime, j->container_id, on_started, j);
}

static void tell_exit(struct job *j, const struct container *c)
{
    char text[512];
    if (j->exit_told)
        return;
    j->exit_told = true;
    health_free(j->health);
    j->health = NULL;
    overlay_sandbox_remove(j->x->cfg.overlay, j->task.id); /* what is reported as ended holds no address */
    if (j->unhealthy)
        snprintf(text, sizeof text, "unhealthy: %.300s", j->why && *j->why ? j->why : "its check fails");
    event(j, &(struct executor_event){ .kind = EXEC_EXITED, .container_id = j->container_id,
                                       .exit_code = c ? c->state.exit_code : 0, .oom = c && c->state.oom_killed,
                                       .error = j->unhealthy ? text : c ? c->state.error : NULL });
}

static void stop(void *arg, const char *task_id, int64_t grace_ns)
{
    struct executor *x = arg;
    struct job *j = job_find(x, task_id);
    char id[65];
    if (!j) {
        container_id_of(task_id, id);
        const struct container *c = runtime_find(x->cfg.runtime, id);
        if (c && container_is_up(c))
            runtime_stop(x->cfg.runtime, id, grace_ns, nothing, NULL);
        else if (x->agent)
            agent_executor_event(x->agent, task_id, &(struct executor_event){ .kind = EXEC_EXITED });
        return;
    }
    j->stopping = true;
    if (j->preparing || j->starting)
        return; /* given_up() or on_started() goes on */
    const struct container *c = runtime_find(x->cfg.runtime, j->container_id);
    if (c && container_is_up(c))
        runtime_stop(x->cfg.runtime, j->container_id, grace_ns, nothing, NULL);
    else
        tell_exit(j, j->started ? c : NULL);
}

static void remove_task(void *arg, const char *task_id)
{
    struct executor *x = arg;
    struct job *j = job_find(x, task_id);
    char id[65];
    if (!j) {
        container_id_of(task_id, id);
        if (runtime_find(x->cfg.runtime, id))
            runtime_delete(x->cfg.runtime, id, nothing, NULL);
        overlay_sandbox_remove(x->cfg.overlay, task_id);
        return;
    }
    j->removing = j->stopping = true;
    if (j->preparing || j->starting)
        return;
    remove_own_volumes(j);
    undo(j);
    map_remove(&x->jobs, task_id);
    job_free(j);
}

static bool network(void *arg, const struct assignment *a, const struct map *suspects)
{
    struct executor *x = arg;
    return overlay_apply(x->cfg.overlay, x->node_id, a, suspects);
}

const struct executor_ops executor_ops = { prepare, start, stop, remove_task, network };

bool executor_container_event(struct executor *x, const struct container *c)
{
    const char *task_id = labels_get(&c->spec.labels, TASK_LABEL);
    struct job *j = task_id ? job_find(x, task_id) : NULL;
    if (!task_id)
        return false;
    if (j && j->started && c->state.phase == CONTAINER_EXITED && !c->gone)
        tell_exit(j, c);
    return true;
}

/* ---- start and end ---- */
static void adopt_one(struct executor *x, const struct container *c, const char *task_id)
{
    const struct assignment *a = agent_assignment(x->agent);
    const struct task *t = NULL;
    for (uint32_t i = 0; i < a->tasks.n && !t; i++)
        t = str_equal(a->tasks.v[i].id, task_id) ? &a->tasks.v[i] : NULL;
    if (!t || c->state.phase == CONTAINER_CREATED) { /* not started yet: made anew when it is wanted */
        AUTO_FREE char *id = xstrdup(task_id);
        remove_task(x, id);
        return;
    }
    struct job *j = xnew(struct job);
    j->x = x;
    task_copy(&j->task, t);
    container_id_of(task_id, j->container_id);
    j->started = true;
    map_put(&x->jobs, task_id, j);
    bool running = container_is_up(c);
    if (running) {
        watch_health(j);
    } else {
        j->exit_told = true;
        overlay_sandbox_remove(x->cfg.overlay, j->task.id); /* it ended while no daemon was there */
    }
    struct executor_event ev = { .kind = EXEC_EXITED, .container_id = j->container_id, .pid = (uint64_t)c->state.pid,
                                 .exit_code = c->state.exit_code, .oom = c->state.oom_killed,
                                 .error = c->state.error, .has_healthcheck = j->health != NULL };
    agent_adopt(x->agent, task_id, running, &ev);
}

void executor_adopt(struct executor *x, struct agent *a)
{
    struct strs ids = { 0 };
    x->agent = a;
    if (!a)
        return;
    for (const struct container *c = NULL; (c = runtime_next(x->cfg.runtime, c));)
        if (labels_get(&c->spec.labels, TASK_LABEL))
            strs_add(&ids, c->spec.id);
    for (uint32_t i = 0; i < ids.n; i++) {
        const struct container *c = runtime_find(x->cfg.runtime, ids.v[i]);
        if (c)
            adopt_one(x, c, labels_get(&c->spec.labels, TASK_LABEL));
    }
    strs_clear(&ids);
    for (const struct sandbox *s = NULL; (s = overlay_sandbox_next(x->cfg.overlay, s));)
        if (!job_find(x, s->id) && strlen(s->id) == 25) /* of a task whose container is gone */
            strs_add(&ids, s->id);
    for (uint32_t i = 0; i < ids.n; i++)
        overlay_sandbox_remove(x->cfg.overlay, ids.v[i]);
    strs_clear(&ids);
}

struct executor *executor_new(struct loop *l, const struct executor_config *cfg)
{
    struct executor *x = xnew(struct executor);
    x->loop = l;
    x->cfg = *cfg;
    x->volumes_dir = xstrdup(cfg->volumes_dir);
    x->node_id = xstrdup(cfg->node_id ? cfg->node_id : "");
    x->hostname = xstrdup(cfg->hostname);
    map_init(&x->jobs);
    list_init(&x->to_build);
    x->build_next = loop_timer_new(l, on_build_next, x);
    return x;
}

void executor_free(struct executor *x)
{
    if (!x)
        return;
    for (struct map_item *it = NULL; (it = map_next(&x->jobs, it));)
        job_free(it->value);
    map_done(&x->jobs);
    loop_timer_free(x->build_next);
    free(x->volumes_dir);
    free(x->node_id);
    free(x->hostname);
    free(x);
}
