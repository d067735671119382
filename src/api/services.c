/* /services and /tasks. */
#include "api_internal.h"
#include <shoal/orchestrator.h>
#include <stdio.h>
#include <strings.h>

static bool wants_running(const struct task *t)
{
    return t->desired <= TASK_RUNNING && !task_state_is_final(t->status.state);
}

static void count(struct call *c, const struct service *s, struct service_status *ret)
{
    uint32_t n;
    const struct task **tasks = store_tasks_of_service(call_store(c), s->id, &n);
    for (uint32_t i = 0; i < n; i++) {
        ret->running += tasks[i]->status.state == TASK_RUNNING && tasks[i]->desired == TASK_RUNNING;
        if (s->spec.mode.global)
            ret->desired += wants_running(tasks[i]);
    }
    if (s->spec.mode.replicated)
        ret->desired = s->spec.mode.replicated->replicas;
}

static struct val *service_val(struct call *c, struct val_doc *d, const struct service *s, bool status)
{
    struct val *v = rec_to_val(&service_rec, s, d);
    val_unset(v, "Allocated");
    if (status) {
        struct service_status n = { 0 };
        count(c, s, &n);
        val_set(d, v, "ServiceStatus", rec_to_val(&service_status_rec, &n, d));
    }
    return v;
}

static void service_list(struct call *c)
{
    static const char *const allowed[] = { "id", "name", "label", "mode", "runtime", NULL };
    struct filters f;
    struct err e;
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    for (const struct service *s = NULL; (s = store_next(call_store(c), TABLE_SERVICE, s));)
        if (filter_prefix(&f, "id", s->id) && filter_prefix(&f, "name", s->spec.name) &&
            filter_labels(&f, "label", &s->spec.labels) &&
            filter_exact(&f, "mode", s->spec.mode.global ? "global" : "replicated"))
            val_push(d, list, service_val(c, d, s, query_flag(c, "status")));
    filters_free(&f);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

static void service_inspect(struct call *c)
{
    const void *o;
    struct err e;
    if (store_lookup(call_store(c), TABLE_SERVICE, c->param[0], &o, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    val_set_root(d, service_val(c, d, o, true));
    reply_val(c, 200, d);
}

/* Names of fields are read without regard to case, as Go does it. NULL: absent or null. */
static const struct val *field_of(const struct val *map, const char *name)
{
    for (uint32_t i = 0; map && map->kind == V_MAP && i < map->n; i++)
        if (strcasecmp(map->map[i].key->s, name) == 0 && map->map[i].value->kind != V_NULL)
            return map->map[i].value;
    return NULL;
}

/* Engine clients leave Delay out and mean the default of 5 s, and Replicas and mean 1; an explicit 0 stays 0. */
static int spec_from_body(struct service_spec *ret, const struct val *body, struct err *e)
{
    if (!body)
        return err_set(e, E_INVALID, "request body: a ServiceSpec is needed");
    int r = rec_from_val(&service_spec_rec, ret, body, "", e);
    if (r < 0)
        return r;
    if (ret->mode.replicated && !field_of(field_of(field_of(body, "Mode"), "Replicated"), "Replicas"))
        ret->mode.replicated->replicas = 1;
    if (ret->task.restart && !field_of(field_of(field_of(body, "TaskTemplate"), "RestartPolicy"), "Delay"))
        ret->task.restart->delay = service_restart_policy(&(struct task_spec){ 0 }).delay;
    return 0;
}

static void create_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct service_spec spec = { 0 };
    struct err e;
    (void)text, (void)size;
    if (spec_from_body(&spec, body, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    const char *auth = http_header(c->r, "X-Registry-Auth");
    control_service_create(call_manager(c), &spec, auth && *auth ? auth : NULL, c->id, done_created, c);
    service_spec_clear(&spec);
}

static void service_create(struct call *c)
{
    with_body(c, create_body);
}

static void updated(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    if (result < 0)
        reply_err(c, e);
    else
        reply_json(c, 200, "{\"Warnings\":null}\n");
}

static void update_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct service_spec spec = { 0 };
    struct err e;
    bool ok;
    (void)text, (void)size;
    uint64_t version = query_version(c, &ok);
    if (!ok)
        return;
    const char *rollback = query(c, "rollback"), *auth = http_header(c->r, "X-Registry-Auth");
    bool back = str_equal(rollback, "previous");
    if (rollback && *rollback && !back) {
        reply_error(c, E_INVALID, "rollback: \"%s\" is not \"previous\"", rollback);
        return;
    }
    if (!back && spec_from_body(&spec, body, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    control_service_update(call_manager(c), c->param[0], version, &spec, back ? SERVICE_ROLLBACK : SERVICE_UPDATE,
                           auth && *auth ? auth : NULL, updated, c);
    service_spec_clear(&spec);
}

static void service_update(struct call *c)
{
    with_body(c, update_body);
}

static void service_remove(struct call *c)
{
    control_service_remove(call_manager(c), c->param[0], done_empty, c);
}

/* ---- tasks ---- */
static const char *service_name(struct call *c, const struct task *t)
{
    const struct service *s = t->service_id ? store_find(call_store(c), TABLE_SERVICE, t->service_id) : NULL;
    return s ? s->spec.name : t->service_name;
}

static bool of_service(struct call *c, const struct filters *f, const struct task *t)
{
    return !filters_has(f, "service") || filter_exact(f, "service", t->service_id) ||
           filter_exact(f, "service", service_name(c, t));
}

static bool on_node(struct call *c, const struct filters *f, const struct task *t)
{
    const struct node *n = t->node_id ? store_find(call_store(c), TABLE_NODE, t->node_id) : NULL;
    return !filters_has(f, "node") || (t->node_id && filter_prefix(f, "node", t->node_id)) ||
           (n && filter_exact(f, "node", n->description.hostname));
}

static void task_list(struct call *c)
{
    static const char *const allowed[] = { "id", "name", "service", "node", "label", "desired-state", "runtime",
                                           "_up-to-date", NULL };
    struct filters f;
    struct err e;
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    for (const struct task *t = NULL; (t = store_next(call_store(c), TABLE_TASK, t));) {
        const struct service *s = t->service_id ? store_find(call_store(c), TABLE_SERVICE, t->service_id) : NULL;
        bool current = s && task_is_current(s, t);
        if (!filter_prefix(&f, "id", t->id) || !filter_name(&f, "name", service_name(c, t)) || !of_service(c, &f, t) ||
            !on_node(c, &f, t) || !filter_labels(&f, "label", s ? &s->spec.labels : &t->labels) ||
            !filter_exact(&f, "desired-state", t->desired > TASK_RUNNING ? "shutdown" : task_state_names[t->desired]) ||
            (filters_has(&f, "_up-to-date") && !current))
            continue;
        val_push(d, list, rec_to_val(&task_rec, t, d));
    }
    filters_free(&f);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

static void task_inspect(struct call *c)
{
    const void *o;
    struct err e;
    if (store_lookup(call_store(c), TABLE_TASK, c->param[0], &o, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    val_set_root(d, rec_to_val(&task_rec, o, d));
    reply_val(c, 200, d);
}

const struct route service_routes[] = {
    { "GET", "/services", service_list, ROUTE_READ },
    { "POST", "/services/create", service_create, ROUTE_WRITE },
    { "GET", "/services/{}", service_inspect, ROUTE_READ },
    { "POST", "/services/{}/update", service_update, ROUTE_WRITE },
    { "DELETE", "/services/{}", service_remove, ROUTE_WRITE },
    { "GET", "/services/{}/logs", service_logs, ROUTE_READ },
    { "GET", "/tasks", task_list, ROUTE_READ },
    { "GET", "/tasks/{}", task_inspect, ROUTE_READ },
    { "GET", "/tasks/{}/logs", task_logs, ROUTE_READ },
    { 0 },
};
