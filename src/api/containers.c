/* /containers: those of this node, made by tasks and by `docker run` alike. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>

#define AUTO_REMOVE_LABEL "io.shoal.auto-remove"

static const struct container *find(struct call *c)
{
    const struct container *x = runtime_find(c->api->b.runtime, c->param[0]);
    if (!x)
        reply_error(c, E_NOT_FOUND, "No such container: %s", c->param[0]);
    return x;
}

static void ago(char out[64], int64_t ns)
{
    static const struct { int64_t s; const char *name; } units[] = {
        { 365 * 86400, "year" }, { 30 * 86400, "month" }, { 7 * 86400, "week" }, { 86400, "day" }, { 3600, "hour" },
        { 60, "minute" }, { 1, "second" },
    };
    int64_t s = MAX(ns / SEC_NS, 1);
    for (unsigned i = 0; i < ARRAY_N(units); i++)
        if (s >= units[i].s) {
            int64_t n = s / units[i].s;
            snprintf(out, 64, "%lld %s%s", (long long)n, units[i].name, n == 1 ? "" : "s");
            return;
        }
}

static void status_text(char out[160], const struct container *x)
{
    int64_t now = clock_real_ns();
    char t[64] = "";
    if (x->state.phase == CONTAINER_RUNNING) {
        ago(t, now - x->state.started_ns);
        snprintf(out, 160, "Up %s", t);
    } else if (x->state.phase == CONTAINER_EXITED) {
        ago(t, now - x->state.finished_ns);
        snprintf(out, 160, "Exited (%d) %s ago", (int)x->state.exit_code, t);
    } else {
        snprintf(out, 160, "Created");
    }
}

static char *command_of(const struct container *x)
{
    struct sb b;
    sb_init(&b, 0);
    for (uint32_t i = 0; i < x->spec.argv.n; i++)
        sb_printf(&b, "%s%s", i ? " " : "", x->spec.argv.v[i]);
    return sb_take(&b);
}

static const char *const port_words[] = { "tcp", "udp", "sctp" };

static const struct sandbox *sandbox_of(const struct api *a, const struct container *x)
{
    const char *task = labels_get(&x->spec.labels, "com.docker.swarm.task.id");
    return overlay_sandbox(a->b.overlay(a->b.arg), task ? task : x->spec.id);
}

static struct val *ports_val(struct call *c, struct val_doc *d, const struct container *x)
{
    struct val *list = val_list(d);
    const struct sandbox *s = sandbox_of(c->api, x);
    for (uint32_t i = 0; s && i < s->ports.n; i++) {
        struct val *v = val_map(d);
        val_set(d, v, "IP", val_str(d, "0.0.0.0"));
        val_set(d, v, "PrivatePort", val_int(d, (int64_t)s->ports.v[i].target));
        val_set(d, v, "PublicPort", val_int(d, (int64_t)s->ports.v[i].published));
        val_set(d, v, "Type", val_str(d, port_words[s->ports.v[i].protocol]));
        val_push(d, list, v);
    }
    return list;
}

static struct val *mounts_val(struct val_doc *d, const struct container *x)
{
    struct val *list = val_list(d);
    for (uint32_t i = 0; i < x->spec.mounts.n; i++) {
        const struct container_mount *m = &x->spec.mounts.v[i];
        struct val *v = val_map(d);
        val_set(d, v, "Type", val_str(d, m->type == CONTAINER_TMPFS ? "tmpfs" : m->fill ? "volume" : "bind"));
        val_set(d, v, "Source", val_str(d, m->source ? m->source : ""));
        val_set(d, v, "Destination", val_str(d, m->target));
        val_set(d, v, "Mode", val_str(d, ""));
        val_set(d, v, "RW", val_bool(d, !m->read_only));
        val_set(d, v, "Propagation", val_str(d, m->propagation ? m->propagation : "rprivate"));
        val_push(d, list, v);
    }
    return list;
}

static struct val *networks_val(struct call *c, struct val_doc *d, const struct container *x)
{
    struct val *m = val_map(d);
    const struct sandbox *s = sandbox_of(c->api, x);
    struct agent *agent = c->api->b.agent(c->api->b.arg);
    const struct assignment *a = agent ? agent_assignment(agent) : NULL;
    for (uint32_t i = 0; s && i < s->links.n; i++) {
        const char *name = s->links.v[i].network_id;
        struct val *v = val_map(d);
        for (uint32_t k = 0; a && k < a->networks.n; k++)
            if (str_equal(a->networks.v[k].id, name))
                name = a->networks.v[k].name;
        AUTO_FREE char *ip = xstrndup(s->links.v[i].addr, strcspn(s->links.v[i].addr, "/"));
        val_set(d, v, "NetworkID", val_str(d, s->links.v[i].network_id));
        val_set(d, v, "IPAddress", val_str(d, ip));
        val_set(d, m, name, v);
    }
    if (s && s->links.n == 0 && s->gateway_addr) {
        struct val *v = val_map(d);
        AUTO_FREE char *ip = xstrndup(s->gateway_addr, strcspn(s->gateway_addr, "/"));
        val_set(d, v, "IPAddress", val_str(d, ip));
        val_set(d, m, "bridge", v);
    }
    return m;
}

static bool shown(struct call *c, const struct filters *f, const struct container *x)
{
    const char *status = container_phase_names[x->state.phase];
    bool all = query_flag(c, "all") || filters_has(f, "status");
    const struct image *i = x->spec.image_id ? image_find(c->api->b.images, x->spec.image_id) : NULL;
    return (all || x->state.phase == CONTAINER_RUNNING) && filter_prefix(f, "id", x->spec.id) &&
           filter_name(f, "name", x->spec.name) && filter_labels(f, "label", &x->spec.labels) &&
           filter_exact(f, "status", status) &&
           (filter_exact(f, "ancestor", x->spec.image) || filter_exact(f, "ancestor", x->spec.image_id) ||
            (i && i->repo_tags.n && filter_exact(f, "ancestor", i->repo_tags.v[0])));
}

static void container_list(struct call *c)
{
    static const char *const allowed[] = { "id", "name", "label", "status", "ancestor", NULL };
    struct filters f;
    struct err e;
    uint64_t limit = 0;
    const char *text = query(c, "limit");
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    if (text && *text && !str_equal(text, "-1") && !str_u64(text, 0, 1000000, &limit)) {
        filters_free(&f);
        reply_error(c, E_INVALID, "limit: \"%s\" is no number", text);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    for (const struct container *x = NULL; (x = runtime_next(c->api->b.runtime, x));) {
        char status[160];
        if (!shown(c, &f, x) || (limit && list->n >= limit))
            continue;
        struct val *v = val_map(d), *names = val_list(d), *host = val_map(d), *net = val_map(d);
        AUTO_FREE char *name = xasprintf("/%s", x->spec.name ? x->spec.name : "");
        AUTO_FREE char *command = command_of(x);
        status_text(status, x);
        val_push(d, names, val_str(d, name));
        val_set(d, v, "Id", val_str(d, x->spec.id));
        val_set(d, v, "Names", names);
        val_set(d, v, "Image", val_str(d, x->spec.image ? x->spec.image : ""));
        val_set(d, v, "ImageID", val_str(d, x->spec.image_id ? x->spec.image_id : ""));
        val_set(d, v, "Command", val_str(d, command));
        val_set(d, v, "Created", val_int(d, x->state.created_ns / SEC_NS));
        val_set(d, v, "Ports", ports_val(c, d, x));
        val_set(d, v, "Labels", labels_val(d, &x->spec.labels));
        val_set(d, v, "State", val_str(d, container_phase_names[x->state.phase]));
        val_set(d, v, "Status", val_str(d, status));
        val_set(d, host, "NetworkMode", val_str(d, "default"));
        val_set(d, v, "HostConfig", host);
        val_set(d, net, "Networks", networks_val(c, d, x));
        val_set(d, v, "NetworkSettings", net);
        val_set(d, v, "Mounts", mounts_val(d, x));
        val_push(d, list, v);
    }
    filters_free(&f);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

struct val *container_state_val(struct val_doc *d, const struct container *x)
{
    struct val *v = val_map(d);
    val_set(d, v, "Status", val_str(d, container_phase_names[x->state.phase]));
    val_set(d, v, "Running", val_bool(d, x->state.phase == CONTAINER_RUNNING));
    val_set(d, v, "Paused", val_bool(d, false));
    val_set(d, v, "Restarting", val_bool(d, false));
    val_set(d, v, "OOMKilled", val_bool(d, x->state.oom_killed));
    val_set(d, v, "Dead", val_bool(d, false));
    val_set(d, v, "Pid", val_int(d, x->state.pid));
    val_set(d, v, "ExitCode", val_int(d, x->state.exit_code));
    val_set(d, v, "Error", val_str(d, x->state.error ? x->state.error : ""));
    val_set(d, v, "StartedAt", time_val(d, x->state.started_ns));
    val_set(d, v, "FinishedAt", time_val(d, x->state.finished_ns));
    return v;
}

static void container_inspect(struct call *c)
{
    const struct container *x = find(c);
    if (!x)
        return;
    const struct container_spec *s = &x->spec;
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *config = val_map(d), *host = val_map(d), *net = val_map(d), *rest = val_list(d);
    AUTO_FREE char *name = xasprintf("/%s", s->name ? s->name : "");
    AUTO_FREE char *log = path_join(x->dir, "log.json");
    val_set_root(d, v);
    for (uint32_t i = 1; i < s->argv.n; i++)
        val_push(d, rest, val_str(d, s->argv.v[i]));
    val_set(d, v, "Id", val_str(d, s->id));
    val_set(d, v, "Created", time_val(d, x->state.created_ns));
    val_set(d, v, "Path", val_str(d, s->argv.n ? s->argv.v[0] : ""));
    val_set(d, v, "Args", rest);
    val_set(d, v, "State", container_state_val(d, x));
    val_set(d, v, "Image", val_str(d, s->image_id ? s->image_id : ""));
    val_set(d, v, "Name", val_str(d, name));
    val_set(d, v, "LogPath", val_str(d, log));
    val_set(d, v, "RestartCount", val_int(d, 0));
    val_set(d, v, "Driver", val_str(d, "overlayfs"));
    val_set(d, v, "Platform", val_str(d, "linux"));
    val_set(d, v, "Mounts", mounts_val(d, x));
    val_set(d, config, "Hostname", val_str(d, s->hostname ? s->hostname : ""));
    val_set(d, config, "User", val_str(d, s->user ? s->user : ""));
    val_set(d, config, "Tty", val_bool(d, s->tty));
    val_set(d, config, "OpenStdin", val_bool(d, s->open_stdin));
    val_set(d, config, "AttachStdout", val_bool(d, true));
    val_set(d, config, "AttachStderr", val_bool(d, true));
    val_set(d, config, "Env", strs_val(d, &s->env));
    val_set(d, config, "Cmd", strs_val(d, &s->argv));
    val_set(d, config, "Image", val_str(d, s->image ? s->image : ""));
    val_set(d, config, "WorkingDir", val_str(d, s->cwd ? s->cwd : ""));
    val_set(d, config, "Labels", labels_val(d, &s->labels));
    val_set(d, v, "Config", config);
    val_set(d, host, "Memory", val_int(d, s->memory_bytes));
    val_set(d, host, "NanoCpus", val_int(d, s->nano_cpus));
    val_set(d, host, "PidsLimit", val_int(d, s->pids_limit));
    val_set(d, host, "Privileged", val_bool(d, s->privileged));
    val_set(d, host, "ReadonlyRootfs", val_bool(d, s->read_only));
    val_set(d, host, "CapAdd", strs_val(d, &s->cap_add));
    val_set(d, host, "CapDrop", strs_val(d, &s->cap_drop));
    val_set(d, host, "NetworkMode", val_str(d, str_equal(s->netns, "host") ? "host" : s->netns ? "default" : "none"));
    struct val *log_config = val_map(d);
    val_set(d, log_config, "Type", val_str(d, "json-file"));
    val_set(d, log_config, "Config", val_map(d));
    val_set(d, host, "LogConfig", log_config);
    val_set(d, v, "HostConfig", host);
    val_set(d, net, "Networks", networks_val(c, d, x));
    val_set(d, net, "Ports", val_map(d));
    val_set(d, v, "NetworkSettings", net);
    reply_val(c, 200, d);
}

/* ---- life ---- */
static void done_no_content(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    if (result < 0)
        reply_err(c, e);
    else
        reply_empty(c, 204);
}

static void container_start(struct call *c)
{
    const struct container *x = find(c);
    if (!x)
        return;
    if (x->state.phase == CONTAINER_RUNNING)
        reply_empty(c, 304);
    else
        runtime_start(c->api->b.runtime, x->spec.id, done_no_content, c);
}

static bool seconds(struct call *c, int64_t *ret)
{
    const char *t = query(c, "t");
    uint64_t n;
    if (!t || !*t)
        return true;
    if (!str_u64(t, 0, 1000000, &n)) {
        reply_error(c, E_INVALID, "t: \"%s\" is no number of seconds", t);
        return false;
    }
    *ret = (int64_t)n * SEC_NS;
    return true;
}

static void container_stop(struct call *c)
{
    const struct container *x = find(c);
    int64_t grace = x && x->spec.stop_grace_ns ? x->spec.stop_grace_ns : 10 * SEC_NS;
    if (!x || !seconds(c, &grace))
        return;
    if (x->state.phase != CONTAINER_RUNNING)
        reply_empty(c, 304);
    else
        runtime_stop(c->api->b.runtime, x->spec.id, grace, done_no_content, c);
}

static void restart_stopped(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    const struct container *x = result < 0 ? NULL : runtime_find(c->api->b.runtime, c->param[0]);
    if (result < 0)
        reply_err(c, e);
    else if (x)
        runtime_start(c->api->b.runtime, x->spec.id, done_no_content, c);
    else
        reply_error(c, E_NOT_FOUND, "No such container: %s", c->param[0]);
}

static void container_restart(struct call *c)
{
    const struct container *x = find(c);
    int64_t grace = x && x->spec.stop_grace_ns ? x->spec.stop_grace_ns : 10 * SEC_NS;
    if (x && seconds(c, &grace))
        runtime_stop(c->api->b.runtime, x->spec.id, grace, restart_stopped, c);
}

static int signal_of(const char *text, struct err *e)
{
    static const struct { const char *name; int n; } some[] = {
        { "HUP", SIGHUP }, { "INT", SIGINT }, { "QUIT", SIGQUIT }, { "KILL", SIGKILL }, { "TERM", SIGTERM },
        { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "STOP", SIGSTOP }, { "CONT", SIGCONT }, { "WINCH", SIGWINCH },
        { "ABRT", SIGABRT }, { "ALRM", SIGALRM }, { "PIPE", SIGPIPE }, { "SEGV", SIGSEGV },
    };
    uint64_t n;
    if (!text || !*text)
        return SIGKILL;
    if (str_u64(text, 1, 64, &n))
        return (int)n;
    for (unsigned i = 0; i < ARRAY_N(some); i++)
        if (str_equal(some[i].name, str_starts(text, "SIG") ? text + 3 : text))
            return some[i].n;
    return err_set(e, E_INVALID, "Invalid signal: %s", text);
}

static void container_kill(struct call *c)
{
    struct err e;
    const struct container *x = find(c);
    int n = x ? signal_of(query(c, "signal"), &e) : 0;
    if (!x)
        return;
    if (n < 0 || runtime_signal(c->api->b.runtime, x->spec.id, n, &e) < 0)
        reply_err(c, &e);
    else
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
    const struct container *x = find(c);
    if (!x)
        return;
    if (labels_get(&x->spec.labels, "com.docker.swarm.task.id")) {
        reply_error(c, E_CONFLICT, "container %.12s belongs to a service's task; scale or remove the service instead", x->spec.id);
        return;
    }
    if (x->state.phase == CONTAINER_RUNNING && !query_flag(c, "force")) {
        reply_error(c, E_CONFLICT, "container %.12s is running: stop it first or remove it with --force", x->spec.id);
        return;
    }
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

static void container_wait(struct call *c)
{
    char key[32];
    const struct container *x = find(c);
    const char *until = query(c, "condition");
    if (!x)
        return;
    stream_begin(c, "application/json"); /* the head goes at once: clients start the container after it */
    bool next = str_equal(until, "next-exit"), gone = str_equal(until, "removed");
    if (x->state.phase == CONTAINER_EXITED && !next && !gone) {
        wait_answer(c, x->state.exit_code, NULL);
        return;
    }
    free(c->param[1]);
    c->param[1] = xstrdup(x->spec.id);
    c->gone = wait_gone;
    snprintf(key, sizeof key, "w%p", (void *)c);
    map_put(&c->api->waits, key, c);
}

static void auto_removed(void *arg, int result, const struct err *e)
{
    (void)arg, (void)result, (void)e;
}

void container_wait_check(struct api *a, const struct container *x)
{
    if (x->state.phase != CONTAINER_EXITED)
        return;
    for (struct map_item *it = NULL; (it = map_next(&a->waits, it));) {
        struct call *c = it->value;
        if (!str_equal(c->param[1], x->spec.id))
            continue;
        c->gone = NULL;
        AUTO_FREE char *key = xstrdup(it->key);
        map_remove(&a->waits, key);
        wait_answer(c, x->state.exit_code, NULL);
    }
    if (labels_get(&x->spec.labels, AUTO_REMOVE_LABEL)) {
        AUTO_FREE char *id = xstrdup(x->spec.id);
        overlay_sandbox_remove(a->b.overlay(a->b.arg), id);
        runtime_delete(a->b.runtime, id, auto_removed, NULL);
    }
}

/* ---- attach ---- */
static void container_attach(struct call *c)
{
    struct err e;
    const struct container *x = find(c);
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
    const struct container *x = find(c);
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
    { 0 },
};
