/* The flags of service create and update, and those that set one value of the spec. Flags with lists are in
 * service_lists.c. Names and meaning are docker's; a field that no flag touches stays as it was. */
#include "cli.h"
#include <shoal/base/file.h>
#include <shoal/stack.h>

#define F_VALUES                                                                                                  \
    { "with-registry-auth", 0, CLI_BOOL, "Give the nodes this user's login at the image's registry", NULL }, \
    { "replicas", 0, CLI_INT, "Number of tasks", NULL },                                                          \
    { "replicas-max-per-node", 0, CLI_INT, "Tasks of the service on one node; 0: no limit", NULL },               \
    { "user", 'u', CLI_STR, "User name or id, [:group]", NULL },                                                  \
    { "workdir", 'w', CLI_STR, "Working directory in the container", NULL },                                      \
    { "hostname", 0, CLI_STR, "Host name of the containers", NULL },                                              \
    { "entrypoint", 0, CLI_STR, "Command line that replaces the image's entrypoint", NULL },                      \
    { "init", 0, CLI_BOOL, "A small process 1 that reaps and forwards signals", NULL },                           \
    { "tty", 't', CLI_BOOL, "A terminal for the process", NULL },                                                 \
    { "read-only", 0, CLI_BOOL, "Root file system read only", NULL },                                             \
    { "stop-signal", 0, CLI_STR, "Signal that asks the process to end", NULL },                                   \
    { "stop-grace-period", 0, CLI_DURATION, "Time until the process is killed", NULL },                           \
    { "oom-score-adj", 0, CLI_INT, "-1000 to 1000", NULL },                                                       \
    { "limit-cpu", 0, CLI_CPUS, "Most processors", NULL },                                                        \
    { "limit-memory", 0, CLI_BYTES, "Most memory", NULL },                                                        \
    { "limit-pids", 0, CLI_INT, "Most processes", NULL },                                                         \
    { "reserve-cpu", 0, CLI_CPUS, "Processors a node must have free", NULL },                                     \
    { "reserve-memory", 0, CLI_BYTES, "Memory a node must have free", NULL },                                     \
    { "restart-condition", 0, CLI_STR, "When to run again", "any|none|on-failure" },                              \
    { "restart-delay", 0, CLI_DURATION, "Wait before it", NULL },                                                 \
    { "restart-max-attempts", 0, CLI_INT, "Then give up; 0: never", NULL },                                       \
    { "restart-window", 0, CLI_DURATION, "Time in which attempts count", NULL },                                  \
    { "update-parallelism", 0, CLI_INT, "Tasks replaced at once; 0: all", NULL },                                 \
    { "update-delay", 0, CLI_DURATION, "Wait between batches", NULL },                                            \
    { "update-order", 0, CLI_STR, "Which of old and new task goes first", "stop-first|start-first" },             \
    { "update-failure-action", 0, CLI_STR, "When new tasks fail", "pause|continue|rollback" },                    \
    { "update-monitor", 0, CLI_DURATION, "Time a new task must live", NULL },                                     \
    { "update-max-failure-ratio", 0, CLI_RATIO, "Part of tasks that may fail", NULL },                            \
    { "rollback-parallelism", 0, CLI_INT, "Tasks rolled back at once; 0: all", NULL },                            \
    { "rollback-delay", 0, CLI_DURATION, "Wait between batches of a rollback", NULL },                            \
    { "rollback-order", 0, CLI_STR, "Which of old and new task goes first", "stop-first|start-first" },           \
    { "rollback-failure-action", 0, CLI_STR, "When tasks fail in a rollback", "pause|continue" },                 \
    { "rollback-monitor", 0, CLI_DURATION, "Time a task must live in a rollback", NULL },                         \
    { "rollback-max-failure-ratio", 0, CLI_RATIO, "Part of tasks that may fail in it", NULL },                    \
    { "health-cmd", 0, CLI_STR, "Shell command that checks health", NULL },                                       \
    { "health-interval", 0, CLI_DURATION, "Time between checks", NULL },                                          \
    { "health-timeout", 0, CLI_DURATION, "Time a check may take", NULL },                                         \
    { "health-start-period", 0, CLI_DURATION, "Time in which failures do not count", NULL },                      \
    { "health-start-interval", 0, CLI_DURATION, "Time between checks in that period", NULL },                     \
    { "health-retries", 0, CLI_INT, "Failures in a row that make it unhealthy", NULL },                           \
    { "no-healthcheck", 0, CLI_BOOL, "Do not use the image's check", NULL },                                      \
    { "endpoint-mode", 0, CLI_STR, "Virtual address, or all addresses in DNS", "vip|dnsrr" },                     \
    { "log-driver", 0, CLI_STR, "json-file or journald", NULL },                                                  \
    { "log-opt", 0, CLI_LIST, "max-size=SIZE, max-file=N; of journald tag=, labels=, env=", NULL },               \
    { "cap-add", 0, CLI_LIST, "Add a capability", NULL },                                                         \
    { "cap-drop", 0, CLI_LIST, "Drop a capability", NULL },                                                       \
    { "detach", 'd', CLI_BOOL, "Do not wait until it runs as wanted", NULL },                                     \
    { "quiet", 'q', CLI_BOOL, "Do not wait and do not say anything but the id", NULL }

#define ADD_RM(base, help) \
    { base "-add", 0, CLI_LIST, "Add or replace: " help, NULL }, { base "-rm", 0, CLI_LIST, "Remove it", NULL }

const struct cli_flag service_create_flags[] = {
    { "name", 0, CLI_STR, "Name of the service", NULL },
    { "mode", 0, CLI_STR, "A number of tasks, or one a node", "replicated|global" },
    F_VALUES,
    { "env", 'e', CLI_LIST, "Environment, NAME=value (NAME alone: value of this shell)", NULL },
    { "env-file", 0, CLI_LIST, "File of such lines", NULL },
    { "label", 'l', CLI_LIST, "Label of the service, KEY=VALUE", NULL },
    { "container-label", 0, CLI_LIST, "Label of its containers", NULL },
    { "mount", 0, CLI_LIST, "type=volume|bind|tmpfs,source=S,target=PATH[,readonly]", NULL },
    { "network", 0, CLI_LIST, "Network to join, NAME or name=NAME,alias=ALIAS", NULL },
    { "publish", 'p', CLI_LIST, "PUBLISHED:TARGET[/udp] or published=P,target=T,mode=ingress|host", NULL },
    { "constraint", 0, CLI_LIST, "Where tasks may run, as in node.labels.zone==a", NULL },
    { "placement-pref", 0, CLI_LIST, "spread=node.labels.KEY", NULL },
    { "secret", 0, CLI_LIST, "NAME or source=NAME,target=FILE,mode=0400", NULL },
    { "config", 0, CLI_LIST, "NAME or source=NAME,target=PATH", NULL },
    { "ulimit", 0, CLI_LIST, "NAME=SOFT[:HARD]", NULL },
    { "sysctl", 0, CLI_LIST, "KEY=VALUE", NULL },
    { "host", 0, CLI_LIST, "Name for /etc/hosts, NAME:IP", NULL },
    { "dns", 0, CLI_LIST, "Name server", NULL },
    { "dns-search", 0, CLI_LIST, "Search domain", NULL },
    { "dns-option", 0, CLI_LIST, "Resolver option", NULL },
    { "group", 0, CLI_LIST, "Supplementary group", NULL },
    { 0 },
};

const struct cli_flag service_update_flags[] = {
    { "image", 0, CLI_STR, "Image", NULL },
    { "args", 0, CLI_STR, "Command line that replaces the image's command", NULL },
    { "force", 0, CLI_BOOL, "Replace the tasks even when nothing changed", NULL },
    { "rollback", 0, CLI_BOOL, "Go back to the spec before the last update", NULL },
    F_VALUES,
    ADD_RM("env", "NAME=value"), ADD_RM("label", "KEY=VALUE"), ADD_RM("container-label", "KEY=VALUE"),
    ADD_RM("mount", "type=...; removed by target"), ADD_RM("network", "a network"),
    ADD_RM("publish", "a port; removed by target port"), ADD_RM("constraint", "KEY==VALUE"),
    ADD_RM("placement-pref", "spread=KEY"), ADD_RM("secret", "a secret"), ADD_RM("config", "a config"),
    ADD_RM("ulimit", "NAME=SOFT[:HARD]"), ADD_RM("sysctl", "KEY=VALUE"), ADD_RM("host", "NAME:IP"),
    ADD_RM("dns", "name server"), ADD_RM("dns-search", "domain"), ADD_RM("dns-option", "option"),
    ADD_RM("group", "group"),
    { 0 },
};

#define NEED(p) ((p) = (p) ? (p) : xcalloc(1, sizeof *(p)))

static void str_flag(struct cli *c, const char *flag, char **member)
{
    if (cli_has(c, flag))
        str_set(member, cli_str(c, flag));
}

static void num_flag(struct cli *c, const char *flag, int64_t *member)
{
    if (cli_has(c, flag))
        *member = cli_num(c, flag, 0);
}

static int count_flag(struct cli *c, const char *flag, uint64_t *member, struct err *e)
{
    if (!cli_has(c, flag))
        return 0;
    if (cli_num(c, flag, 0) < 0)
        return cli_usage(c, e, "--%s must not be negative", flag);
    *member = (uint64_t)cli_num(c, flag, 0);
    return 0;
}

static void enum_flag(struct cli *c, const char *flag, const char *const *names, int *member)
{
    for (int i = 0; cli_has(c, flag) && names[i]; i++)
        if (!strcmp(names[i], cli_str(c, flag)))
            *member = i;
}

static bool any(struct cli *c, const char *prefix)
{
    for (const struct cli_flag *f = c->command->flags; f->name; f++)
        if (str_starts(f->name, prefix) && cli_has(c, f->name))
            return true;
    return false;
}

static int words_flag(struct cli *c, const char *flag, struct strs *member, struct err *e)
{
    if (!cli_has(c, flag))
        return 0;
    strs_clear(member);
    return stack_shell_split(cli_str(c, flag), member) < 0
               ? cli_usage(c, e, "--%s: a quote is not closed", flag) : 0;
}

static int container_flags(struct cli *c, struct container_spec_model *k, struct err *e)
{
    str_flag(c, "image", &k->image);
    str_flag(c, "user", &k->user);
    str_flag(c, "workdir", &k->dir);
    str_flag(c, "hostname", &k->hostname);
    str_flag(c, "stop-signal", &k->stop_signal);
    num_flag(c, "stop-grace-period", &k->stop_grace);
    num_flag(c, "oom-score-adj", &k->oom_score_adj);
    if (cli_has(c, "init"))
        k->init = cli_on(c, "init");
    if (cli_has(c, "tty"))
        k->tty = cli_on(c, "tty");
    if (cli_has(c, "read-only"))
        k->read_only = cli_on(c, "read-only");
    int rc = words_flag(c, "entrypoint", &k->command, e);
    return rc == 0 ? words_flag(c, "args", &k->args, e) : rc;
}

static int health_flags(struct cli *c, struct container_spec_model *k, struct err *e)
{
    if (cli_on(c, "no-healthcheck")) {
        if (any(c, "health-"))
            return cli_usage(c, e, "--no-healthcheck and --health-* exclude each other");
        NEED(k->healthcheck);
        healthcheck_clear(k->healthcheck);
        strs_add(&k->healthcheck->test, "NONE");
        return 0;
    }
    if (!any(c, "health-"))
        return 0;
    NEED(k->healthcheck);
    if (cli_has(c, "health-cmd")) {
        strs_clear(&k->healthcheck->test);
        strs_add(&k->healthcheck->test, "CMD-SHELL");
        strs_add(&k->healthcheck->test, cli_str(c, "health-cmd"));
    }
    num_flag(c, "health-interval", &k->healthcheck->interval);
    num_flag(c, "health-timeout", &k->healthcheck->timeout);
    num_flag(c, "health-start-period", &k->healthcheck->start_period);
    num_flag(c, "health-start-interval", &k->healthcheck->start_interval);
    num_flag(c, "health-retries", &k->healthcheck->retries);
    return 0;
}

static int task_value_flags(struct cli *c, struct task_spec *t, struct err *e)
{
    int rc = 0;
    if (any(c, "limit-")) {
        NEED(t->resources);
        NEED(t->resources->limits);
        num_flag(c, "limit-cpu", &t->resources->limits->nano_cpus);
        num_flag(c, "limit-memory", &t->resources->limits->memory_bytes);
        num_flag(c, "limit-pids", &t->resources->limits->pids);
    }
    if (any(c, "reserve-")) {
        NEED(t->resources);
        NEED(t->resources->reservations);
        num_flag(c, "reserve-cpu", &t->resources->reservations->nano_cpus);
        num_flag(c, "reserve-memory", &t->resources->reservations->memory_bytes);
    }
    if (any(c, "restart-")) {
        if (!t->restart) { /* what an absent policy means, then the flags */
            *NEED(t->restart) = service_restart_policy(&(struct task_spec){ 0 });
        }
        enum_flag(c, "restart-condition", restart_condition_names, &t->restart->condition);
        num_flag(c, "restart-delay", &t->restart->delay);
        num_flag(c, "restart-window", &t->restart->window);
        rc = count_flag(c, "restart-max-attempts", &t->restart->max_attempts, e);
    }
    if (rc == 0 && cli_has(c, "replicas-max-per-node")) {
        NEED(t->placement);
        rc = count_flag(c, "replicas-max-per-node", &t->placement->max_replicas, e);
    }
    if (cli_has(c, "log-driver") || cli_has(c, "log-opt")) {
        NEED(t->log_driver);
        str_set(&t->log_driver->name, cli_has(c, "log-driver") ? cli_str(c, "log-driver") : "json-file");
        for (uint32_t i = 0; rc == 0 && i < cli_list(c, "log-opt")->n; i++)
            rc = value_label(&t->log_driver->options, cli_list(c, "log-opt")->v[i], e);
    }
    return rc;
}

/* which: "update" or "rollback". */
static int update_flags(struct cli *c, const char *which, struct update_config **member, struct err *e)
{
    char prefix[16], name[48];
    snprintf(prefix, sizeof prefix, "%s-", which);
    if (!any(c, prefix))
        return 0;
    if (!*member) {
        *member = xnew(struct update_config);
        (*member)->parallelism = 1;
    }
    struct update_config *u = *member;
#define NAME(x) (snprintf(name, sizeof name, "%s-" x, which), name)
    num_flag(c, NAME("delay"), &u->delay);
    num_flag(c, NAME("monitor"), &u->monitor);
    enum_flag(c, NAME("order"), update_order_names, &u->order);
    enum_flag(c, NAME("failure-action"), failure_action_names, &u->failure_action);
    if (cli_has(c, NAME("max-failure-ratio")))
        u->max_failure_ratio = cli_ratio(c, name, 0);
    return count_flag(c, NAME("parallelism"), &u->parallelism, e);
}

static int mode_flags(struct cli *c, struct service_spec *s, struct err *e)
{
    bool global = cli_has(c, "mode") ? !strcmp(cli_str(c, "mode"), "global") : s->mode.global != NULL;
    if (global && cli_has(c, "replicas"))
        return cli_usage(c, e, "--replicas is only for replicated services");
    if (global)
        NEED(s->mode.global);
    if (global || s->mode.replicated_job || s->mode.global_job)
        return 0;
    if (!s->mode.replicated) {
        NEED(s->mode.replicated);
        s->mode.replicated->replicas = 1;
    }
    return count_flag(c, "replicas", &s->mode.replicated->replicas, e);
}

int service_spec_from_flags(struct cli *c, struct service_spec *s, bool update, struct err *e)
{
    NEED(s->task.container);
    if (!update) {
        str_set(&s->task.container->image, cli_arg(c, 0));
        str_flag(c, "name", &s->name);
        for (uint32_t i = 1; i < c->args.n; i++)
            strs_add(&s->task.container->args, c->args.v[i]);
    } else if (cli_on(c, "force")) {
        s->task.force_update++;
    }
    int rc = mode_flags(c, s, e);
    if (rc == 0)
        rc = container_flags(c, s->task.container, e);
    if (rc == 0)
        rc = health_flags(c, s->task.container, e);
    if (rc == 0)
        rc = task_value_flags(c, &s->task, e);
    if (rc == 0)
        rc = update_flags(c, "update", &s->update, e);
    if (rc == 0)
        rc = update_flags(c, "rollback", &s->rollback, e);
    if (cli_has(c, "endpoint-mode")) {
        NEED(s->endpoint);
        enum_flag(c, "endpoint-mode", endpoint_mode_names, &s->endpoint->mode);
    }
    return rc == 0 ? service_lists_from_flags(c, s, e) : rc;
}
