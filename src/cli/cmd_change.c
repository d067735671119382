/* Containers of this node that exist: pause, unpause, restart, rename, update, wait. */
#include "cli.h"
#include <shoal/http.h>

const struct cli_flag container_end_flags[] = {
    { "time", 't', CLI_INT, "Seconds until the process is killed", NULL },
    { "signal", 's', CLI_STR, "Signal instead of the container's own", NULL },
    { 0 },
};
static const struct cli_flag update_flags[] = {
    { "memory", 'm', CLI_BYTES, "Most memory", NULL },
    { "cpus", 0, CLI_CPUS, "Most processors", NULL },
    { "pids-limit", 0, CLI_INT, "Most processes; -1: any number", NULL },
    { "restart", 0, CLI_STR, "When it is started again: no, always, unless-stopped, on-failure[:N]", NULL },
    { 0 },
};
static const struct cli_flag wait_flags[] = {
    { "condition", 0, CLI_STR, "What is waited for", "not-running|next-exit|removed" },
    { 0 },
};

void container_path(struct sb *b, const char *container, const char *rest)
{
    sb_init(b, 0);
    sb_str(b, "/containers/");
    http_encode(b, container);
    sb_str(b, rest);
}

int container_post_each(struct cli *c, const char *what, const char *query, const char *body, struct err *e)
{
    int failed = 0;
    for (uint32_t i = 0; i < c->args.n && failed != -E_UNAVAILABLE; i++) {
        AUTO_SB struct sb path;
        container_path(&path, c->args.v[i], what);
        sb_str(&path, query);
        if (failed)
            fprintf(c->err, "Error: %s\n", e->text);
        failed = cli_call(c, "POST", path.s, body, NULL, e);
        if (failed)
            c->status = 1;
        else
            fprintf(c->out, "%s\n", c->args.v[i]);
    }
    return failed;
}

int container_end_each(struct cli *c, const char *what, struct err *e)
{
    AUTO_SB struct sb q;
    char seconds[24];
    sb_init(&q, 0);
    snprintf(seconds, sizeof seconds, "%lld", (long long)cli_num(c, "time", 0));
    if (cli_has(c, "time"))
        add_query(&q, "t", seconds);
    if (cli_str(c, "signal"))
        add_query(&q, "signal", cli_str(c, "signal"));
    return container_post_each(c, what, q.s, NULL, e);
}

static int cmd_pause(struct cli *c, struct err *e)
{
    return container_post_each(c, "/pause", "", NULL, e);
}

static int cmd_unpause(struct cli *c, struct err *e)
{
    return container_post_each(c, "/unpause", "", NULL, e);
}

static int cmd_restart(struct cli *c, struct err *e)
{
    return container_end_each(c, "/restart", e);
}

static int cmd_rename(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    container_path(&path, cli_arg(c, 0), "/rename");
    add_query(&path, "name", cli_arg(c, 1));
    return cli_call(c, "POST", path.s, NULL, NULL, e);
}

int restart_policy_of(struct cli *c, struct val_doc *d, struct val **ret, struct err *e)
{
    const char *text = cli_str(c, "restart"), *colon = text ? strchr(text, ':') : NULL;
    uint64_t most = 0;
    *ret = NULL;
    if (!text)
        return 0;
    if (colon && !str_u64(colon + 1, 0, INT32_MAX, &most))
        return cli_usage(c, e, "--restart %s: a number is needed after the colon", text);
    *ret = val_map(d);
    val_set(d, *ret, "Name", val_str_n(d, text, colon ? (size_t)(colon - text) : strlen(text)));
    val_set(d, *ret, "MaximumRetryCount", val_int(d, (int64_t)most));
    return 0;
}

static int cmd_update(struct cli *c, struct err *e)
{
    static const struct { const char *flag, *key; } numbers[] = { { "memory", "Memory" }, { "cpus", "NanoCpus" }, { "pids-limit", "PidsLimit" } };
    struct val_doc *d = val_doc_new();
    struct val *m = val_map(d), *policy;
    AUTO_SB struct sb body;
    sb_init(&body, 0);
    for (unsigned i = 0; i < ARRAY_N(numbers); i++)
        if (cli_has(c, numbers[i].flag))
            val_set(d, m, numbers[i].key, val_int(d, cli_num(c, numbers[i].flag, 0)));
    int rc = restart_policy_of(c, d, &policy, e);
    if (rc == 0 && policy)
        val_set(d, m, "RestartPolicy", policy);
    if (rc == 0 && m->n == 0)
        rc = cli_usage(c, e, "update: name what is to be changed");
    json_write(&body, m, 0);
    val_doc_free(d);
    return rc < 0 ? rc : container_post_each(c, "/update", "", body.s, e);
}

static int cmd_wait(struct cli *c, struct err *e)
{
    int rc = 0;
    for (uint32_t i = 0; i < c->args.n && rc == 0; i++) {
        AUTO_SB struct sb path;
        struct val_doc *d = NULL;
        container_path(&path, c->args.v[i], "/wait");
        if (cli_str(c, "condition"))
            add_query(&path, "condition", cli_str(c, "condition"));
        rc = cli_call(c, "POST", path.s, NULL, &d, e);
        if (rc == 0)
            fprintf(c->out, "%lld\n", (long long)(d ? int_at(val_root(d), "StatusCode", 0) : 0));
        val_doc_free(d);
    }
    return rc;
}

const struct cli_command change_commands[] = {
    { "restart", "CONTAINER...", "Stop containers and start them again", container_end_flags, "shoal restart db", cmd_restart, 1, CLI_ANY, 0 },
    { "pause", "CONTAINER...", "Stop all processes of containers where they are", NULL, "shoal pause db", cmd_pause, 1, CLI_ANY, 0 },
    { "unpause", "CONTAINER...", "Let the processes of paused containers go on", NULL, "shoal unpause db", cmd_unpause, 1, CLI_ANY, 0 },
    { "rename", "CONTAINER NAME", "Give a container another name", NULL, "shoal rename db olddb", cmd_rename, 2, 2, 0 },
    { "update", "CONTAINER...", "Change limits and restart policy of containers", update_flags, "shoal update -m 256m db", cmd_update, 1,
      CLI_ANY, 0 },
    { "wait", "CONTAINER...", "Wait until containers end and print their exit codes", wait_flags, "shoal wait job", cmd_wait, 1, CLI_ANY, 0 },
    { 0 },
};
