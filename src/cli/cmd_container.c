/* Containers of this node: ps, logs, run and exec (cmd_run.c), start, stop, kill, rm, inspect. */
#include "cli.h"
#include <shoal/base/file.h>
#include <shoal/http.h>

static const struct cli_flag ps_flags[] = {
    { "all", 'a', CLI_BOOL, "Also those that do not run", NULL },
    { "last", 'n', CLI_INT, "Only the N newest, of all states", NULL },
    { "latest", 'l', CLI_BOOL, "Only the newest, of all states", NULL },
    { "filter", 'f', CLI_LIST, "Only containers with KEY=VALUE (id, name, label, status, health, network, volume, ...)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "no-trunc", 0, CLI_BOOL, "Whole ids and commands", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};
static const struct cli_flag kill_flags[] = {
    { "signal", 's', CLI_STR, "Signal; default KILL", NULL },
    { 0 },
};
static const struct cli_flag rm_flags[] = {
    { "force", 'f', CLI_BOOL, "Kill it first when it runs", NULL },
    { "volumes", 'v', CLI_BOOL, "Also its volumes without a name", NULL },
    { 0 },
};
static const struct cli_flag inspect_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { 0 },
};
static const struct column columns[] = {
    { "CONTAINER ID", "ID", false }, { "IMAGE", "Image", false },   { "COMMAND", "Command", false },
    { "CREATED", "RunningFor", false }, { "STATUS", "Status", false }, { "PORTS", "Ports", false },
    { "NAMES", "Names", false }, { NULL, "State", false },
};

/* "0.0.0.0:8080->80/tcp, 443/tcp" */
static void container_ports(struct sb *b, const struct val *ports)
{
    for (uint32_t i = 0; ports && ports->kind == V_LIST && i < ports->n; i++) {
        const struct val *p = ports->list[i];
        const char *ip = str_at(p, "IP");
        int64_t public = int_at(p, "PublicPort", 0);
        sb_str(b, b->len ? ", " : "");
        if (public)
            sb_printf(b, strchr(ip, ':') ? "[%s]:%lld->" : "%s:%lld->", *ip ? ip : "0.0.0.0", (long long)public);
        sb_printf(b, "%lld/%s", (long long)int_at(p, "PrivatePort", 0), str_at(p, "Type"));
    }
}

static void add_container(struct cli *c, struct table *t, const struct val *v)
{
    enum { COMMAND_SHOWN = 20 };
    bool whole = cli_on(c, "no-trunc");
    char id[16], age[48];
    const char *command = str_at(v, "Command"), *image = str_at(v, "Image"), *digest = strchr(image, '@');
    const struct val *names = val_get(v, "Names");
    AUTO_SB struct sb ports, all;
    sb_init(&ports, 0);
    sb_init(&all, 0);
    container_ports(&ports, val_get(v, "Ports"));
    for (uint32_t i = 0; names && names->kind == V_LIST && i < names->n; i++)
        if (names->list[i]->kind == V_STR) /* "/web"; "/other/alias" is a link and no name */
            sb_printf(&all, "%s%s", all.len ? "," : "", names->list[i]->s + (names->list[i]->s[0] == '/'));
    units_ago(age, c->now_ns - int_at(v, "Created", 0) * SEC_NS);
    table_add(t, whole ? str_at(v, "Id") : short_id(str_at(v, "Id"), id));
    table_addf(t, "%.*s", digest && !whole ? (int)(digest - image) : (int)strlen(image), image);
    if (whole || strlen(command) <= COMMAND_SHOWN)
        table_addf(t, "\"%s\"", command);
    else
        table_addf(t, "\"%.*s…\"", COMMAND_SHOWN - 1, command);
    table_addf(t, "%s ago", age);
    table_add(t, str_at(v, "Status"));
    table_add(t, ports.s);
    table_add(t, all.s);
    table_add(t, str_at(v, "State"));
}

static int cmd_ps(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    struct table t;
    int64_t last = cli_on(c, "latest") ? 1 : cli_num(c, "last", 0);
    sb_init(&path, 0);
    sb_str(&path, "/containers/json");
    if (cli_on(c, "all") || last > 0)
        add_query(&path, "all", "1");
    if (last > 0)
        sb_printf(&path, "&limit=%lld", (long long)last);
    int rc = filters_from_flags(c, &path, NULL, NULL, e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "%s", path.s);
    if (rc < 0)
        return rc;
    table_init(&t, columns, ARRAY_N(columns));
    for (uint32_t i = 0; val_root(d)->kind == V_LIST && i < val_root(d)->n; i++)
        add_container(c, &t, val_root(d)->list[i]);
    rc = table_show(c, &t, 0, e);
    table_done(&t);
    val_doc_free(d);
    return rc;
}

static int cmd_logs(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path, id;
    sb_init(&path, 0);
    sb_init(&id, 0);
    http_encode(&id, cli_arg(c, 0));
    sb_printf(&path, "/containers/%s/logs", id.s);
    int rc = logs_query(c, &path, e);
    return rc == 0 ? show_container_logs(c, id.s, path.s, e) : rc;
}

static int cmd_start(struct cli *c, struct err *e)
{
    return container_post_each(c, "/start", "", NULL, e);
}

static int cmd_stop(struct cli *c, struct err *e)
{
    return container_end_each(c, "/stop", e);
}

static int cmd_kill(struct cli *c, struct err *e)
{
    AUTO_SB struct sb q;
    sb_init(&q, 0);
    add_query(&q, "signal", cli_str(c, "signal") ? cli_str(c, "signal") : "KILL");
    return container_post_each(c, "/kill", q.s, NULL, e);
}

static int cmd_rm(struct cli *c, struct err *e)
{
    AUTO_SB struct sb q;
    sb_init(&q, 0);
    if (cli_on(c, "force"))
        add_query(&q, "force", "1");
    if (cli_on(c, "volumes"))
        add_query(&q, "v", "1");
    return delete_each(c, "containers", q.s, e);
}

static int cmd_inspect(struct cli *c, struct err *e)
{
    static const char *const here[] = { "/containers/*/json", "/images/*/json", "/networks/*", NULL };
    static const char *const all[] = { "/containers/*/json", "/images/*/json", "/networks/*", "/services/*",
                                       "/tasks/*", "/nodes/*", "/secrets/*", "/configs/*", NULL };
    struct val_doc *info = NULL;
    int rc = cli_get(c, &info, e, "/info"); /* only managers answer for objects of the cluster */
    bool manager = rc == 0 && val_get_bool(at(val_root(info), "Swarm"), "ControlAvailable", false);
    val_doc_free(info);
    return rc < 0 ? rc : format_inspect(c, "object", manager ? all : here, e);
}

const struct cli_command container_commands[] = {
    { "ps", "", "List the containers of this node", ps_flags, "shoal ps -a", cmd_ps, 0, 0, 0 },
    { "logs", "CONTAINER", "Logs of a container of this node", log_flags, "shoal logs -f --tail 20 web", cmd_logs, 1, 1,
      0 },
    { "exec", "CONTAINER COMMAND [ARG...]", "Run a further program in a container", exec_flags,
      "shoal exec -it web sh", cmd_exec, 2, CLI_ANY, CLI_REST },
    { "run", "IMAGE [COMMAND] [ARG...]", "Create and start a container on this node", run_flags,
      "shoal run --rm -it web:1 sh", cmd_run, 1, CLI_ANY, CLI_REST },
    { "start", "CONTAINER...", "Start containers", NULL, "shoal start db", cmd_start, 1, CLI_ANY, 0 },
    { "stop", "CONTAINER...", "Stop containers", container_end_flags, "shoal stop -t 30 db", cmd_stop, 1, CLI_ANY, 0 },
    { "kill", "CONTAINER...", "Send a signal to containers", kill_flags, "shoal kill -s HUP db", cmd_kill, 1, CLI_ANY,
      0 },
    { "rm", "CONTAINER...", "Remove containers", rm_flags, "shoal rm -f db", cmd_rm, 1, CLI_ANY, 0 },
    { "inspect", "NAME|ID...", "Show all about objects of any kind", inspect_flags, "shoal inspect web", cmd_inspect, 1,
      CLI_ANY, 0 },
    { 0 },
};
