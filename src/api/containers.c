/* /containers: those of this node, made by tasks and by `docker run` alike. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>

const struct container *container_of_call(struct call *c)
{
    const struct container *x = runtime_find(c->api->b.runtime, c->param[0]);
    if (!x)
        reply_error(c, E_NOT_FOUND, "No such container: %s", c->param[0]);
    return x;
}

/* ---- life ---- */
static bool may_run(struct call *c, const struct container *x)
{
    return container_is_up(x) || runtime_is_starting(c->api->b.runtime, x->spec.id);
}

/* One that had ended and did not come up again tells nobody of an end; but those who came meanwhile wait for one. */
static void started(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    const struct container *x = result < 0 ? runtime_find(c->api->b.runtime, c->param[1]) : NULL;
    if (x)
        keeper_rest(c->api, x);
    if (x && x->state.phase == CONTAINER_EXITED && !may_run(c, x) && !keeper_waits(c->api, x->spec.id))
        container_wait_over(c->api, x);
    done_no_content(c, result, e);
}

/* Takes care that c->param[1] is its id. */
static void start(struct call *c, const struct container *x, runtime_done_fn *done)
{
    struct err e;
    free(c->param[1]);
    c->param[1] = xstrdup(x->spec.id);
    keeper_by_hand(c->api, x, false);
    if (container_network_again(c->api, x, &e) < 0)
        done(c, -e.code, &e);
    else
        runtime_start(c->api->b.runtime, x->spec.id, done, c);
}

static void container_start(struct call *c)
{
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    if (x->state.phase == CONTAINER_RUNNING)
        reply_empty(c, 304);
    else if (x->state.phase == CONTAINER_PAUSED)
        reply_error(c, E_CONFLICT, "cannot start a paused container, try unpause instead");
    else
        start(c, x, started);
}

/* Of a stop or restart: t= seconds (-1: as long as it takes), signal=. False: answered. */
struct manner { int64_t grace_ns; int signum; };

static bool manner_of(struct call *c, const struct container *x, struct manner *ret)
{
    const char *t = query(c, "t"), *name = query(c, "signal");
    uint64_t n = 0;
    struct err e;
    *ret = (struct manner){ x->spec.stop_grace_ns ? x->spec.stop_grace_ns : 10 * SEC_NS, 0 };
    if (t && *t && !str_equal(t, "-1") && !str_u64(t, 0, 1000000, &n)) {
        reply_error(c, E_INVALID, "t: \"%s\" is no number of seconds", t);
        return false;
    }
    if (t && *t)
        ret->grace_ns = str_equal(t, "-1") ? -SEC_NS : (int64_t)n * SEC_NS;
    if (name && *name && (ret->signum = signal_number(name, &e)) < 0) {
        reply_err(c, &e);
        return false;
    }
    return true;
}

static void stopped(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    const struct container *x = c->param[1] ? runtime_find(c->api->b.runtime, c->param[1]) : NULL;
    if (result == 0 && x)
        container_event(c->api, x, "stop", NULL, NULL);
    done_no_content(c, result, e);
}

static void container_stop(struct call *c)
{
    struct manner how;
    const struct container *x = container_of_call(c);
    if (!x || !manner_of(c, x, &how))
        return;
    bool waited = keeper_waits(c->api, x->spec.id);
    keeper_by_hand(c->api, x, true);
    free(c->param[1]);
    c->param[1] = xstrdup(x->spec.id);
    if (!may_run(c, x))
        reply_empty(c, waited ? 204 : 304);
    else
        runtime_stop_by(c->api->b.runtime, c->param[1], how.signum, how.grace_ns, stopped, c);
}

static void restarted(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    const struct container *x = runtime_find(c->api->b.runtime, c->param[1]);
    if (result == 0 && x)
        container_event(c->api, x, "restart", NULL, NULL);
    started(c, result, e);
}

static void restart_stopped(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    const struct container *x = result < 0 ? NULL : runtime_find(c->api->b.runtime, c->param[1]);
    if (result < 0)
        reply_err(c, e);
    else if (x)
        start(c, x, restarted);
    else
        reply_error(c, E_NOT_FOUND, "No such container: %s", c->param[0]);
}

static void container_restart(struct call *c)
{
    struct manner how;
    const struct container *x = container_of_call(c);
    if (!x || !manner_of(c, x, &how))
        return;
    keeper_by_hand(c->api, x, true);
    free(c->param[1]);
    c->param[1] = xstrdup(x->spec.id);
    runtime_stop_by(c->api->b.runtime, c->param[1], how.signum, how.grace_ns, restart_stopped, c);
}

static void container_kill(struct call *c)
{
    char number[16];
    struct err e;
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    const char *name = query(c, "signal");
    int n = name && *name ? signal_number(name, &e) : SIGKILL;
    if (n < 0) {
        reply_error(c, E_INVALID, "Invalid signal: %s", name);
        return;
    }
    int stop = x->spec.stop_signal ? signal_number(x->spec.stop_signal, NULL) : SIGTERM;
    bool ends = n == SIGKILL || n == stop;
    if (!may_run(c, x) && keeper_waits(c->api, x->spec.id)) { /* to Docker's clients it runs; who kills it wants no next run */
        if (ends || !x->spec.stop_signal)
            keeper_by_hand(c->api, x, true);
        reply_empty(c, 204);
        return;
    }
    if (!may_run(c, x)) {
        reply_error(c, E_CONFLICT, "container %s is not running", x->spec.id);
        return;
    }
    if (runtime_signal(c->api->b.runtime, x->spec.id, n, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    if (ends)
        keeper_by_hand(c->api, x, true);
    snprintf(number, sizeof number, "%d", n);
    container_event(c->api, x, "kill", "signal", number);
    reply_empty(c, 204);
}

static void removed(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    overlay_sandbox_remove(c->api->b.overlay(c->api->b.arg), c->param[1]);
    done_no_content(c, result, e);
}

static void container_remove(struct call *c)
{
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    if (container_is_task(x)) {
        reply_error(c, E_CONFLICT, "container %.12s belongs to a service's task; scale or remove the service instead", x->spec.id);
        return;
    }
    bool waits = keeper_waits(c->api, x->spec.id);
    if ((may_run(c, x) || waits) && !query_flag(c, "force")) {
        reply_error(c, E_CONFLICT, "cannot remove container %.12s: container is %s: %s", x->spec.id,
                    container_is_up(x) || waits ? container_status(c->api, x) : "starting",
                    x->state.phase == CONTAINER_PAUSED ? "unpause and stop it first, or remove it with --force"
                                                       : "stop the container before removing or force remove");
        return;
    }
    keeper_by_hand(c->api, x, true);
    if (query_flag(c, "v"))
        keeper_with_volumes(c->api, x);
    free(c->param[1]);
    c->param[1] = xstrdup(x->spec.id);
    runtime_delete(c->api->b.runtime, c->param[1], removed, c);
}

/* ---- wait ---- */
static void wait_gone(struct call *c)
{
    char key[32];
    snprintf(key, sizeof key, "w%p", (void *)c);
    map_remove(&c->api->waits, key);
    call_free(c);
}

static void wait_answer(struct call *c, int64_t code, const char *error)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    struct sb b;
    val_set(d, v, "StatusCode", val_int(d, code));
    if (error) {
        struct val *m = val_map(d);
        val_set(d, m, "Message", val_str(d, error));
        val_set(d, v, "Error", m);
    }
    sb_init(&b, 0);
    json_write(&b, v, 0);
    sb_char(&b, '\n');
    stream_put(c, b.s, b.len);
    sb_done(&b);
    val_doc_free(d);
    stream_done(c);
}

enum { WAIT_STOPPED, WAIT_NEXT, WAIT_REMOVED };

static void container_wait(struct call *c)
{
    static const char *const words[] = { "not-running", "next-exit", "removed" };
    char key[32];
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    const char *until = query(c, "condition");
    uint64_t kind = WAIT_STOPPED;
    while (until && *until && kind < ARRAY_N(words) && !str_equal(words[kind], until))
        kind++;
    if (kind == ARRAY_N(words)) {
        reply_error(c, E_INVALID, "invalid condition: %s", until);
        return;
    }
    stream_begin(c, "application/json"); /* the head goes at once: clients start the container after it */
    if (kind == WAIT_STOPPED && !may_run(c, x) && !keeper_waits(c->api, x->spec.id)) {
        wait_answer(c, x->state.exit_code, NULL);
        return;
    }
    free(c->param[1]);
    c->param[1] = xstrdup(x->spec.id);
    c->place = kind;
    c->gone = wait_gone;
    snprintf(key, sizeof key, "w%p", (void *)c);
    map_put(&c->api->waits, key, c);
}

void container_wait_check(struct api *a, const struct container *x)
{
    if (x->gone || (x->state.phase == CONTAINER_EXITED && x->before != CONTAINER_EXITED))
        container_wait_over(a, x);
}

void container_wait_over(struct api *a, const struct container *x)
{
    for (struct map_item *it = NULL; (it = map_next(&a->waits, it));) {
        struct call *c = it->value;
        if (!str_equal(c->param[1], x->spec.id) || (c->place == WAIT_REMOVED && !x->gone))
            continue;
        c->gone = NULL;
        AUTO_FREE char *key = xstrdup(it->key);
        map_remove(&a->waits, key);
        wait_answer(c, x->state.exit_code, NULL);
    }
}

/* ---- attach ---- */
static void container_attach(struct call *c)
{
    struct err e;
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    if (query_flag(c, "logs") && !query_flag(c, "stream")) {
        container_logs(c);
        return;
    }
    struct stream *inside = runtime_attach(c->api->b.runtime, x->spec.id, &e);
    if (!inside) {
        reply_err(c, &e);
        return;
    }
    container_event(c->api, x, "attach", NULL, NULL);
    struct stream *client = http_hijack(c->r, x->spec.tty ? "application/vnd.docker.raw-stream"
                                                          : "application/vnd.docker.multiplexed-stream");
    c->r = NULL;
    stream_splice(client, inside);
    call_free(c);
}

static void container_resize(struct call *c)
{
    struct err e;
    uint64_t h, w;
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    if (!str_u64(query(c, "h") ? query(c, "h") : "", 0, 65535, &h) || !str_u64(query(c, "w") ? query(c, "w") : "", 0, 65535, &w))
        reply_error(c, E_INVALID, "h and w must be numbers");
    else if (runtime_exec_resize(c->api->b.runtime, x->spec.id, 0, (uint16_t)h, (uint16_t)w, &e) < 0)
        reply_err(c, &e);
    else
        reply_empty(c, 200);
}

const struct route container_routes[] = {
    { "GET", "/containers/json", container_list, ROUTE_LOCAL },
    { "POST", "/containers/create", container_create, ROUTE_LOCAL },
    { "GET", "/containers/{}/json", container_inspect, ROUTE_LOCAL },
    { "GET", "/containers/{}/logs", container_logs, ROUTE_LOCAL },
    { "POST", "/containers/{}/start", container_start, ROUTE_LOCAL },
    { "POST", "/containers/{}/stop", container_stop, ROUTE_LOCAL },
    { "POST", "/containers/{}/restart", container_restart, ROUTE_LOCAL },
    { "POST", "/containers/{}/kill", container_kill, ROUTE_LOCAL },
    { "POST", "/containers/{}/wait", container_wait, ROUTE_LOCAL },
    { "POST", "/containers/{}/attach", container_attach, ROUTE_LOCAL },
    { "POST", "/containers/{}/resize", container_resize, ROUTE_LOCAL },
    { "DELETE", "/containers/{}", container_remove, ROUTE_LOCAL },
    { "POST", "/containers/{}/pause", container_pause, ROUTE_LOCAL },
    { "POST", "/containers/{}/unpause", container_unpause, ROUTE_LOCAL },
    { "POST", "/containers/{}/rename", container_rename, ROUTE_LOCAL },
    { "POST", "/containers/{}/update", container_update, ROUTE_LOCAL },
    { "GET", "/containers/{}/stats", container_stats, ROUTE_LOCAL },
    { "GET", "/containers/{}/top", container_top, ROUTE_LOCAL },
    { 0 },
};
