/* /exec and the execs of containers: made first, started by a second request whose connection carries the streams. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <stdio.h>

enum { EXECS_MAX = 4096 };

struct exec_box {
    struct api *api;
    char id[65], *container_id;
    struct exec_spec spec;
    bool started, running, detach;
    int exit_code;
    uint64_t exec_id;
    struct call *call; /* waiting for its start */
};

static void box_free(struct exec_box *x)
{
    exec_spec_clear(&x->spec);
    free(x->container_id);
    free(x);
}

void exec_free_all(struct api *a)
{
    for (struct map_item *it = NULL; (it = map_next(&a->execs, it));)
        box_free(it->value);
}

struct val *exec_ids_val(const struct api *a, const char *container_id, struct val_doc *d)
{
    struct val *list = val_list(d);
    for (struct map_item *it = NULL; (it = map_next(&a->execs, it));) {
        const struct exec_box *x = it->value;
        if (x->running && str_equal(x->container_id, container_id))
            val_push(d, list, val_str(d, x->id));
    }
    return list->n ? list : val_null(d);
}

/* exec_create: COMMAND, exec_start: COMMAND, exec_die */
static void tell(const struct exec_box *x, const char *action)
{
    char code[16];
    AUTO_SB struct sb b;
    const struct container *k = runtime_find(x->api->b.runtime, x->container_id);
    bool over = str_equal(action, "exec_die");
    sb_init(&b, 64 << 10);
    sb_str(&b, action);
    for (uint32_t i = 0; !over && i < x->spec.argv.n; i++)
        sb_printf(&b, "%s%s", i ? " " : ": ", x->spec.argv.v[i]);
    snprintf(code, sizeof code, "%d", x->exit_code);
    if (k)
        container_event(x->api, k, b.s, over ? "exitCode" : "execID", over ? code : x->id);
}

/* Ended ones are kept to be asked for their exit code, the oldest go. */
static void make_room(struct api *a)
{
    for (struct map_item *it = NULL; a->execs.n >= EXECS_MAX && (it = map_next(&a->execs, it));) {
        struct exec_box *x = it->value;
        if (x->started && !x->running) {
            map_remove(&a->execs, x->id);
            box_free(x);
        }
    }
}

static void create_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct err e;
    char json[96];
    const struct container *k = runtime_find(c->api->b.runtime, c->param[0]);
    (void)text, (void)size;
    if (!k) {
        reply_error(c, E_NOT_FOUND, "No such container: %s", c->param[0]);
        return;
    }
    if (k->state.phase == CONTAINER_PAUSED) {
        reply_error(c, E_CONFLICT, "Container %s is paused, unpause the container before exec", k->spec.id);
        return;
    }
    if (k->state.phase != CONTAINER_RUNNING) {
        reply_error(c, E_CONFLICT, "container %.12s is not running", k->spec.id);
        return;
    }
    struct exec_box *x = xnew(struct exec_box);
    x->api = c->api;
    if (strs_from_val(&x->spec.argv, val_get(body, "Cmd"), "Cmd", &e) < 0 ||
        strs_from_val(&x->spec.env, val_get(body, "Env"), "Env", &e) < 0) {
        box_free(x);
        reply_err(c, &e);
        return;
    }
    if (x->spec.argv.n == 0) {
        box_free(x);
        reply_error(c, E_INVALID, "Cmd: no command is given");
        return;
    }
    str_set(&x->spec.cwd, val_get_str(body, "WorkingDir"));
    str_set(&x->spec.user, val_get_str(body, "User"));
    x->spec.tty = val_get_bool(body, "Tty", false);
    x->spec.stdin_open = val_get_bool(body, "AttachStdin", false);
    x->spec.privileged = val_get_bool(body, "Privileged", false);
    x->container_id = xstrdup(k->spec.id);
    id_random_hex(x->id);
    make_room(c->api);
    map_put(&c->api->execs, x->id, x);
    tell(x, "exec_create");
    snprintf(json, sizeof json, "{\"Id\":\"%s\"}\n", x->id);
    reply_json(c, 201, json);
}

static void exec_create(struct call *c)
{
    with_body(c, create_body);
}

static struct exec_box *find(struct call *c)
{
    struct exec_box *x = map_find(&c->api->execs, c->param[0]);
    if (!x)
        reply_error(c, E_NOT_FOUND, "No such exec instance: %s", c->param[0]);
    return x;
}

static void on_exited(void *arg, uint64_t exec_id, int code)
{
    struct exec_box *x = arg;
    (void)exec_id;
    x->running = false;
    x->exit_code = code;
    tell(x, "exec_die");
}

static size_t drain(void *arg, const char *p, size_t size)
{
    (void)arg, (void)p;
    return size;
}
static void drained(void *arg)
{
    (void)arg;
}
static void broken(void *arg, const struct err *e)
{
    (void)arg, (void)e;
}

static void on_started(void *arg, int r, struct stream *s, uint64_t exec_id, const struct err *e)
{
    static const struct stream_events nobody = { drain, NULL, drained, broken };
    struct exec_box *x = arg;
    struct call *c = TAKE(x->call);
    if (r < 0) {
        x->exit_code = 126;
        reply_err(c, e);
        return;
    }
    x->running = true;
    x->exec_id = exec_id;
    tell(x, "exec_start");
    if (!c->r || x->detach) { /* nobody listens: output goes nowhere */
        stream_set_events(s, &nobody, NULL);
        stream_close_write(s);
        x->api = c->api;
        reply_empty(c, 200);
        return;
    }
    struct stream *client = http_hijack(c->r, x->spec.tty ? "application/vnd.docker.raw-stream"
                                                          : "application/vnd.docker.multiplexed-stream");
    c->r = NULL;
    stream_splice(client, s);
    call_free(c);
}

static void keep_call(struct call *c)
{
    (void)c; /* on_started frees it */
}

static void start_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct exec_box *x = find(c);
    const struct val *console = val_get(body, "ConsoleSize");
    (void)text, (void)size;
    if (!x)
        return;
    if (x->started) {
        reply_error(c, E_CONFLICT, "exec %.12s was started before", x->id);
        return;
    }
    if (console && console->kind == V_LIST && console->n == 2 && console->list[0]->kind == V_INT && console->list[1]->kind == V_INT) {
        x->spec.rows = (uint64_t)MIN(MAX(console->list[0]->i, 0), 65535);
        x->spec.cols = (uint64_t)MIN(MAX(console->list[1]->i, 0), 65535);
    }
    x->started = true;
    x->detach = val_get_bool(body, "Detach", false);
    x->call = c;
    c->gone = keep_call;
    runtime_exec(c->api->b.runtime, x->container_id, &x->spec, on_started, on_exited, x);
}

static void exec_start(struct call *c)
{
    with_body(c, start_body);
}

static void exec_inspect(struct call *c)
{
    struct exec_box *x = find(c);
    if (!x)
        return;
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *p = val_map(d), *args = val_list(d);
    val_set_root(d, v);
    for (uint32_t i = 1; i < x->spec.argv.n; i++)
        val_push(d, args, val_str(d, x->spec.argv.v[i]));
    val_set(d, p, "entrypoint", val_str(d, x->spec.argv.v[0]));
    val_set(d, p, "arguments", args);
    val_set(d, p, "tty", val_bool(d, x->spec.tty));
    val_set(d, p, "privileged", val_bool(d, x->spec.privileged));
    val_set(d, v, "ID", val_str(d, x->id));
    val_set(d, v, "ContainerID", val_str(d, x->container_id));
    val_set(d, v, "Running", val_bool(d, x->running));
    val_set(d, v, "ExitCode", x->started && !x->running ? val_int(d, x->exit_code) : val_null(d));
    val_set(d, v, "ProcessConfig", p);
    val_set(d, v, "OpenStdin", val_bool(d, x->spec.stdin_open));
    reply_val(c, 200, d);
}

static void exec_resize(struct call *c)
{
    struct err e;
    uint64_t h, w;
    struct exec_box *x = find(c);
    if (!x)
        return;
    if (!str_u64(query(c, "h") ? query(c, "h") : "", 0, 65535, &h) || !str_u64(query(c, "w") ? query(c, "w") : "", 0, 65535, &w))
        reply_error(c, E_INVALID, "h and w must be numbers");
    else if (!x->running)
        reply_error(c, E_CONFLICT, "exec %.12s is not running", x->id);
    else if (runtime_exec_resize(c->api->b.runtime, x->container_id, x->exec_id, (uint16_t)h, (uint16_t)w, &e) < 0)
        reply_err(c, &e);
    else
        reply_empty(c, 200);
}

const struct route exec_routes[] = {
    { "POST", "/containers/{}/exec", exec_create, ROUTE_LOCAL },
    { "POST", "/exec/{}/start", exec_start, ROUTE_LOCAL },
    { "POST", "/exec/{}/resize", exec_resize, ROUTE_LOCAL },
    { "GET", "/exec/{}/json", exec_inspect, ROUTE_LOCAL },
    { 0 },
};
