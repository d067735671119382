/* service ls, ps, inspect, logs, rm. Those that change one are in service_update.c. */
#include "cli.h"

static const struct cli_flag ls_flags[] = {
    { "filter", 'f', CLI_LIST, "Only services with KEY=VALUE (id, name, label, mode)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};
static const struct cli_flag inspect_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { "pretty", 0, CLI_BOOL, "For people", NULL },
    { 0 },
};
static const struct cli_flag service_log_flags[] = {
    { "follow", 'f', CLI_BOOL, "Go on with new lines", NULL },
    { "tail", 'n', CLI_STR, "Only the last N lines, or all", NULL },
    { "since", 0, CLI_STR, "Only lines after this time (RFC 3339, unix time, or 42m for 42 minutes ago)", NULL },
    { "timestamps", 't', CLI_BOOL, "Show the time of each line", NULL },
    { "raw", 0, CLI_BOOL, "Lines without the name of their task", NULL },
    { 0 },
};

static int cmd_ls(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    sb_init(&path, 0);
    sb_str(&path, "/services?status=true");
    int rc = filters_from_flags(c, &path, NULL, NULL, e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "%s", path.s);
    if (rc == 0)
        rc = services_show(c, val_root(d), e);
    val_doc_free(d);
    return rc;
}

static int cmd_ps(struct cli *c, struct err *e)
{
    struct val_doc *all = val_doc_new();
    struct val *tasks = val_list(all);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < c->args.n; i++) {
        struct val_doc *s = NULL, *d = NULL;
        AUTO_SB struct sb path;
        sb_init(&path, 0);
        sb_str(&path, "/tasks");
        rc = find_object(c, "services", c->args.v[i], &s, e);
        if (rc == 0)
            rc = filters_from_flags(c, &path, "service", str_at(val_root(s), "ID"), e);
        if (rc == 0)
            rc = cli_get(c, &d, e, "%s", path.s);
        for (uint32_t k = 0; rc == 0 && val_root(d)->kind == V_LIST && k < val_root(d)->n; k++)
            val_push(all, tasks, val_copy(all, val_root(d)->list[k]));
        val_doc_free(s);
        val_doc_free(d);
    }
    if (rc == 0)
        rc = tasks_show(c, tasks, e);
    val_doc_free(all);
    return rc;
}

static int cmd_inspect(struct cli *c, struct err *e)
{
    static const char *const paths[] = { "/services/*?insertDefaults=true", NULL };
    return format_inspect(c, "service", paths, e);
}

/* A service; when there is none of that name, a task. */
static int cmd_logs(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    const char *kind = "services";
    sb_init(&path, 0);
    int rc = find_object(c, kind, cli_arg(c, 0), &d, e);
    if (rc == -E_NOT_FOUND) {
        kind = "tasks";
        rc = find_object(c, kind, cli_arg(c, 0), &d, e);
    }
    if (rc == -E_NOT_FOUND)
        return err_set(e, E_NOT_FOUND, "there is no service or task %s", cli_arg(c, 0));
    if (rc < 0)
        return rc;
    sb_printf(&path, "/%s/%s/logs?details=1", kind, str_at(val_root(d), "ID"));
    val_doc_free(d);
    rc = logs_query(c, &path, e);
    return rc == 0 ? show_service_logs(c, path.s, e) : rc;
}

static int cmd_rm(struct cli *c, struct err *e)
{
    return delete_each(c, "services", NULL, e);
}

const struct cli_command service_commands[] = {
    { "service ls", "", "List the services", ls_flags, "shoal service ls", cmd_ls, 0, 0, 0 },
    { "service ps", "SERVICE...", "List the tasks of services", task_flags, "shoal service ps web", cmd_ps, 1,
      CLI_ANY, 0 },
    { "service inspect", "SERVICE...", "Show all about services", inspect_flags, "shoal service inspect --pretty web",
      cmd_inspect, 1, CLI_ANY, 0 },
    { "service logs", "SERVICE|TASK", "Logs of all tasks of a service, or of one task", service_log_flags,
      "shoal service logs -f --tail 10 web", cmd_logs, 1, 1, 0 },
    { "service rm", "SERVICE...", "Remove services and their tasks", NULL, "shoal service rm web", cmd_rm, 1,
      CLI_ANY, 0 },
    { 0 },
};
