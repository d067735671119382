/* run and exec. run in the foreground attaches and asks for the exit code before it starts the container, so that nothing is
 * missed; with --rm the daemon removes it at its end, also when this program is no more. Exit codes
 * as docker's: that of the container; 125 the daemon refused, 126 not executable, 127 no such program. */
#include "cli.h"
#include <shoal/http.h>
#include <shoal/stack.h>

const struct cli_flag run_flags[] = {
    { "name", 0, CLI_STR, "Name of the container", NULL },
    { "detach", 'd', CLI_BOOL, "Print its id and leave it running", NULL },
    { "interactive", 'i', CLI_BOOL, "Forward the standard input", NULL },
    { "tty", 't', CLI_BOOL, "A terminal for the process", NULL },
    { "rm", 0, CLI_BOOL, "Remove the container when it ends", NULL },
    { "env", 'e', CLI_LIST, "Environment, NAME=value (NAME alone: value of this shell)", NULL },
    { "label", 'l', CLI_LIST, "Label, KEY=VALUE", NULL },
    { "user", 'u', CLI_STR, "User name or id, [:group]", NULL },
    { "workdir", 'w', CLI_STR, "Working directory in the container", NULL },
    { "hostname", 'h', CLI_STR, "Host name", NULL },
    { "entrypoint", 0, CLI_STR, "Program that replaces the image's entrypoint", NULL },
    { "network", 0, CLI_STR, "Network to join", NULL },
    { "publish", 'p', CLI_LIST, "Port, PUBLISHED:TARGET[/udp]", NULL },
    { "volume", 'v', CLI_LIST, "Volume or folder, SOURCE:TARGET[:ro]", NULL },
    { "memory", 'm', CLI_BYTES, "Most memory", NULL },
    { "cpus", 0, CLI_CPUS, "Most processors", NULL },
    { "pids-limit", 0, CLI_INT, "Most processes", NULL },
    { "read-only", 0, CLI_BOOL, "Root file system read only", NULL },
    { "init", 0, CLI_BOOL, "A small process 1 that reaps and forwards signals", NULL },
    { "privileged", 0, CLI_BOOL, "All rights of root", NULL },
    { "cap-add", 0, CLI_LIST, "Add a capability", NULL },
    { "cap-drop", 0, CLI_LIST, "Drop a capability", NULL },
    { "ulimit", 0, CLI_LIST, "NAME=SOFT[:HARD]", NULL },
    { "restart", 0, CLI_STR, "When it is started again: no, always, unless-stopped, on-failure[:N]", NULL },
    { "stop-signal", 0, CLI_STR, "Signal that asks the process to end", NULL },
    { "pull", 0, CLI_STR, "Fetch the image first", "always|missing|never" },
    { 0 },
};
const struct cli_flag exec_flags[] = {
    { "detach", 'd', CLI_BOOL, "Do not wait for it", NULL },
    { "interactive", 'i', CLI_BOOL, "Forward the standard input", NULL },
    { "tty", 't', CLI_BOOL, "A terminal for the process", NULL },
    { "env", 'e', CLI_LIST, "Environment, NAME=value", NULL },
    { "user", 'u', CLI_STR, "User name or id, [:group]", NULL },
    { "workdir", 'w', CLI_STR, "Working directory in the container", NULL },
    { "privileged", 0, CLI_BOOL, "All rights of root", NULL },
    { 0 },
};

struct body { struct cli *c; struct val_doc *d; struct val *m; };

static void put_str(struct body *b, const char *key, const char *flag)
{
    if (cli_has(b->c, flag))
        val_set(b->d, b->m, key, val_str(b->d, cli_str(b->c, flag)));
}

static void put_num(struct body *b, const char *key, const char *flag)
{
    if (cli_has(b->c, flag))
        val_set(b->d, b->m, key, val_int(b->d, cli_num(b->c, flag, 0)));
}

static void put_bool(struct body *b, const char *key, bool v)
{
    val_set(b->d, b->m, key, val_bool(b->d, v));
}

static void put_strs(struct body *b, const char *key, const struct strs *s, uint32_t from)
{
    struct val *l = val_list(b->d);
    for (uint32_t i = from; i < s->n; i++)
        val_push(b->d, l, val_str(b->d, s->v[i]));
    if (s->n > from)
        val_set(b->d, b->m, key, l);
}

static void put_env(struct body *b)
{
    struct strs env = { 0 };
    const struct strs *given = cli_list(b->c, "env");
    for (uint32_t i = 0; i < given->n; i++)
        value_env(&env, given->v[i]);
    put_strs(b, "Env", &env, 0);
    strs_clear(&env);
}

static int put_ports(struct body *b, struct val *config, struct err *e)
{
    struct { struct port *v; uint32_t n; } ports = { 0 };
    const struct strs *given = cli_list(b->c, "publish");
    struct val *bindings = val_map(b->d), *exposed = val_map(b->d);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < given->n; i++)
        rc = value_publish(given->v[i], (struct rec_list *)(void *)&ports, e);
    for (uint32_t i = 0; i < ports.n; i++) {
        char key[32], host[16];
        snprintf(key, sizeof key, "%u/%s", (unsigned)ports.v[i].target, port_protocol_names[ports.v[i].protocol]);
        snprintf(host, sizeof host, "%.0u", (unsigned)ports.v[i].published);
        struct val *one = val_map(b->d), *l = val_get(bindings, key);
        val_set(b->d, one, "HostPort", val_str(b->d, host));
        if (!l)
            val_set(b->d, bindings, key, l = val_list(b->d));
        val_push(b->d, l, one);
        val_set(b->d, exposed, key, val_map(b->d));
        port_clear(&ports.v[i]);
    }
    free(ports.v);
    if (bindings->n) {
        val_set(b->d, b->m, "PortBindings", bindings);
        val_set(b->d, config, "ExposedPorts", exposed);
    }
    return rc;
}

static int put_host_config(struct body *b, struct val *config, struct err *e)
{
    struct val *ulimits = val_list(b->d), *policy;
    const struct strs *given = cli_list(b->c, "ulimit");
    put_strs(b, "Binds", cli_list(b->c, "volume"), 0);
    put_strs(b, "CapAdd", cli_list(b->c, "cap-add"), 0);
    put_strs(b, "CapDrop", cli_list(b->c, "cap-drop"), 0);
    put_str(b, "NetworkMode", "network");
    put_num(b, "Memory", "memory");
    put_num(b, "NanoCpus", "cpus");
    put_num(b, "PidsLimit", "pids-limit");
    put_bool(b, "ReadonlyRootfs", cli_on(b->c, "read-only"));
    put_bool(b, "Init", cli_on(b->c, "init"));
    put_bool(b, "Privileged", cli_on(b->c, "privileged"));
    int rc = restart_policy_of(b->c, b->d, &policy, e);
    if (rc < 0)
        return rc;
    if (policy)
        val_set(b->d, b->m, "RestartPolicy", policy);
    put_bool(b, "AutoRemove", cli_on(b->c, "rm"));
    for (uint32_t i = 0; i < given->n; i++) {
        struct ulimit u;
        rc = value_ulimit(given->v[i], &u, e);
        if (rc < 0)
            return rc;
        struct val *one = rec_to_val(&ulimit_rec, &u, b->d);
        val_push(b->d, ulimits, one);
        ulimit_clear(&u);
    }
    if (ulimits->n)
        val_set(b->d, b->m, "Ulimits", ulimits);
    return put_ports(b, config, e);
}

static int create_body(struct cli *c, struct sb *out, struct err *e)
{
    struct val_doc *d = val_doc_new();
    struct body b = { c, d, val_map(d) }, host = { c, d, val_map(d) };
    struct labels labels = { 0 };
    struct val *map = val_map(d);
    bool input = cli_on(c, "interactive") && !cli_on(c, "detach");
    int rc = 0;
    val_set(d, b.m, "Image", val_str(d, cli_arg(c, 0)));
    put_strs(&b, "Cmd", &c->args, 1);
    put_strs(&b, "Entrypoint", cli_list(c, "entrypoint"), 0);
    put_env(&b);
    put_str(&b, "User", "user");
    put_str(&b, "WorkingDir", "workdir");
    put_str(&b, "Hostname", "hostname");
    put_str(&b, "StopSignal", "stop-signal");
    put_bool(&b, "Tty", cli_on(c, "tty"));
    put_bool(&b, "OpenStdin", cli_on(c, "interactive"));
    put_bool(&b, "StdinOnce", input);
    put_bool(&b, "AttachStdin", input);
    put_bool(&b, "AttachStdout", !cli_on(c, "detach"));
    put_bool(&b, "AttachStderr", !cli_on(c, "detach"));
    for (uint32_t i = 0; rc == 0 && i < cli_list(c, "label")->n; i++)
        rc = value_label(&labels, cli_list(c, "label")->v[i], e);
    for (uint32_t i = 0; i < labels.n; i++)
        val_set(d, map, labels.v[i].key, val_str(d, labels.v[i].value));
    val_set(d, b.m, "Labels", map);
    if (rc == 0)
        rc = put_host_config(&host, b.m, e);
    val_set(d, b.m, "HostConfig", host.m);
    json_write(out, b.m, 0);
    labels_clear(&labels);
    val_doc_free(d);
    return rc;
}

/* Creates; fetches the image when it is missing and that is allowed. */
static int create(struct cli *c, const char *body, char **ret_id, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    const char *pull = cli_str(c, "pull") ? cli_str(c, "pull") : "missing";
    int rc = 0;
    sb_init(&path, 0);
    sb_str(&path, "/containers/create");
    if (cli_str(c, "name"))
        add_query(&path, "name", cli_str(c, "name"));
    if (!strcmp(pull, "always"))
        rc = show_image_pull(c, cli_arg(c, 0), true, e);
    if (rc == 0)
        rc = cli_call(c, "POST", path.s, body, &d, e);
    if (rc == -E_NOT_FOUND && !strcmp(pull, "missing")) {
        fprintf(c->err, "Image %s is not on this node; fetching it\n", cli_arg(c, 0));
        rc = show_image_pull(c, cli_arg(c, 0), true, e);
        if (rc == 0)
            rc = cli_call(c, "POST", path.s, body, &d, e);
    }
    if (rc == 0 && !d)
        rc = err_set(e, E_CORRUPT, "the daemon sent an empty reply to the creation of a container");
    const struct val *w = rc == 0 ? val_get(val_root(d), "Warnings") : NULL;
    for (uint32_t i = 0; w && w->kind == V_LIST && i < w->n; i++)
        if (w->list[i]->kind == V_STR)
            fprintf(c->err, "Warning: %s\n", w->list[i]->s);
    if (rc == 0)
        *ret_id = xstrdup(str_at(val_root(d), "Id"));
    val_doc_free(d);
    return rc;
}

static int start(struct cli *c, const char *id, struct err *e)
{
    AUTO_FREE char *path = xasprintf("/containers/%s/start", id);
    int rc = cli_call(c, "POST", path, NULL, NULL, e);
    if (rc < 0)
        c->status = strstr(e->text, "executable file not found") || strstr(e->text, "no such file") ? 127
                    : strstr(e->text, "permission denied") ? 126 : 125;
    return rc;
}

/* Asked before the container starts: its end cannot be missed. With --rm it is answered when it is removed. */
static int ask_end(struct cli *c, const char *id, struct cli_answer **ret, struct err *e)
{
    AUTO_FREE char *path = xasprintf("/containers/%s/wait?condition=%s", id, cli_on(c, "rm") ? "removed" : "next-exit");
    return cli_begin(c, "POST", path, ret, e);
}

static int take_end(struct cli *c, struct cli_answer *end, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = cli_finish(end, &d, e);
    if (rc == 0 && d)
        c->status = (int)int_at(val_root(d), "StatusCode", 0);
    val_doc_free(d);
    return rc;
}

static int run_attached(struct cli *c, const char *id, bool *ret_started, struct err *e)
{
    AUTO_SB struct sb held;
    struct cli_answer *end = NULL;
    bool tty = cli_on(c, "tty"), input = cli_on(c, "interactive");
    AUTO_FREE char *resize = xasprintf("/containers/%s/resize", id);
    AUTO_FREE char *attach = xasprintf("/containers/%s/attach?stream=1&stdout=1&stderr=1%s", id,
                                       input ? "&stdin=1" : "");
    struct session_of of = { .tty = tty, .input = input, .resize = tty ? resize : NULL, .container = id };
    int fd = -1;
    sb_init(&held, 0);
    int rc = cli_hijack(c, attach, NULL, &fd, &held, e);
    if (rc == 0)
        rc = ask_end(c, id, &end, e);
    if (rc == 0)
        rc = start(c, id, e);
    *ret_started = rc == 0;
    if (rc == 0)
        rc = term_session(c, fd, &held, &of, e);
    term_close(fd);
    if (rc == 0)
        return take_end(c, end, e);
    cli_answer_free(end);
    return rc;
}

int cmd_run(struct cli *c, struct err *e)
{
    AUTO_SB struct sb body;
    AUTO_FREE char *id = NULL;
    struct err second;
    bool started = false;
    sb_init(&body, 0);
    if (cli_on(c, "tty") && cli_on(c, "interactive") && !cli_on(c, "detach") && !term_is_tty(0))
        return cli_usage(c, e, "-t needs a terminal as the standard input; leave it out in a pipe");
    int rc = create_body(c, &body, e);
    if (rc < 0)
        return rc;
    rc = create(c, body.s, &id, e);
    if (rc < 0) {
        c->status = 125;
        return rc;
    }
    if (cli_on(c, "detach")) {
        rc = start(c, id, e);
        started = rc == 0;
        if (started)
            fprintf(c->out, "%s\n", id);
    } else {
        rc = run_attached(c, id, &started, e);
    }
    if (rc < 0 && !started && cli_on(c, "rm")) { /* one that never ran is not removed by its end */
        AUTO_FREE char *path = xasprintf("/containers/%s?force=1&v=1", id);
        if (cli_call(c, "DELETE", path, NULL, NULL, &second) < 0 && second.code != E_NOT_FOUND)
            fprintf(c->err, "Warning: the container %s could not be removed: %s\n", id, second.text);
    }
    return rc;
}

/* ---- exec ---- */
static int exec_create(struct cli *c, char **ret_id, struct err *e)
{
    AUTO_SB struct sb path, text;
    struct val_doc *d = val_doc_new(), *reply = NULL;
    struct body b = { c, d, val_map(d) };
    sb_init(&path, 0);
    sb_init(&text, 0);
    put_strs(&b, "Cmd", &c->args, 1);
    put_env(&b);
    put_str(&b, "User", "user");
    put_str(&b, "WorkingDir", "workdir");
    put_bool(&b, "Tty", cli_on(c, "tty"));
    put_bool(&b, "Privileged", cli_on(c, "privileged"));
    put_bool(&b, "AttachStdin", cli_on(c, "interactive"));
    put_bool(&b, "AttachStdout", !cli_on(c, "detach"));
    put_bool(&b, "AttachStderr", !cli_on(c, "detach"));
    json_write(&text, b.m, 0);
    val_doc_free(d);
    sb_str(&path, "/containers/");
    http_encode(&path, cli_arg(c, 0));
    sb_str(&path, "/exec");
    int rc = cli_call(c, "POST", path.s, text.s, &reply, e);
    if (rc == 0)
        *ret_id = xstrdup(reply ? str_at(val_root(reply), "Id") : "");
    val_doc_free(reply);
    return rc;
}

int cmd_exec(struct cli *c, struct err *e)
{
    AUTO_SB struct sb held;
    AUTO_FREE char *id = NULL;
    struct val_doc *d = NULL;
    bool tty = cli_on(c, "tty"), input = cli_on(c, "interactive");
    int fd = -1;
    sb_init(&held, 0);
    if (tty && input && !term_is_tty(0))
        return cli_usage(c, e, "-t needs a terminal as the standard input; leave it out in a pipe");
    int rc = exec_create(c, &id, e);
    if (rc < 0)
        return rc;
    AUTO_FREE char *path = xasprintf("/exec/%s/start", id), *resize = xasprintf("/exec/%s/resize", id);
    AUTO_FREE char *body = xasprintf("{\"Detach\":%s,\"Tty\":%s}", cli_on(c, "detach") ? "true" : "false",
                                     tty ? "true" : "false");
    if (cli_on(c, "detach"))
        return cli_call(c, "POST", path, body, NULL, e);
    struct session_of of = { .tty = tty, .input = input, .resize = tty ? resize : NULL };
    rc = cli_hijack(c, path, body, &fd, &held, e);
    if (rc == 0)
        rc = term_session(c, fd, &held, &of, e);
    term_close(fd);
    if (rc == 0)
        rc = cli_get(c, &d, e, "/exec/%s/json", id);
    if (rc == 0)
        c->status = (int)int_at(val_root(d), "ExitCode", 0);
    val_doc_free(d);
    return rc;
}
