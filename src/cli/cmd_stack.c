/* stack deploy (stack_deploy.c), ls, ps, services, rm: what carries the label of a stack. */
#include "cli.h"
#include <shoal/base/map.h>
#include <shoal/stack.h>

static const struct cli_flag deploy_flags[] = {
    { "compose-file", 'c', CLI_LIST, "Compose file, - for the standard input; later ones are merged over earlier", NULL },
    { "prune", 0, CLI_BOOL, "Remove services of the stack that the files do not have any more", NULL },
    { "detach", 'd', CLI_BOOL, "Do not wait until all runs as wanted (default true; --detach=false waits)", NULL },
    { 0 },
};
static const struct cli_flag ls_flags[] = {
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { 0 },
};
static const struct cli_flag services_flags[] = {
    { "filter", 'f', CLI_LIST, "Only services with KEY=VALUE (id, name, label, mode)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};

int stack_list(struct cli *c, const char *kind, const char *stack, struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb json, path;
    AUTO_FREE char *label = xasprintf(STACK_LABEL_NAMESPACE "=%s", stack);
    sb_init(&json, 0);
    sb_init(&path, 0);
    sb_str(&json, "{\"label\":{");
    sb_json_str(&json, label, strlen(label));
    sb_str(&json, ":true}}");
    sb_printf(&path, "/%s", kind);
    add_query(&path, "filters", json.s);
    return cli_get(c, ret, e, "%s", path.s);
}

static int cmd_ls(struct cli *c, struct err *e)
{
    static const struct column columns[] = { { "NAME", "Name", false }, { "SERVICES", "Services", false } };
    struct val_doc *d = NULL;
    struct table t;
    int rc = cli_get(c, &d, e, "/services?filters=%%7B%%22label%%22%%3A%%7B%%22" STACK_LABEL_NAMESPACE
                     "%%22%%3Atrue%%7D%%7D");
    if (rc < 0)
        return rc;
    struct strs names = { 0 };
    const struct val *l = val_root(d);
    for (uint32_t i = 0; l->kind == V_LIST && i < l->n; i++) {
        const char *name = val_get_str(at(l->list[i], "Spec.Labels"), STACK_LABEL_NAMESPACE);
        if (name && !strs_has(&names, name))
            strs_add(&names, name);
    }
    for (uint32_t i = 1; i < names.n; i++) /* few: insertion sort */
        for (uint32_t k = i; k && strcmp(names.v[k - 1], names.v[k]) > 0; k--) {
            char *other = names.v[k];
            names.v[k] = names.v[k - 1];
            names.v[k - 1] = other;
        }
    table_init(&t, columns, ARRAY_N(columns));
    for (uint32_t i = 0; i < names.n; i++) {
        unsigned n = 0;
        for (uint32_t k = 0; k < l->n; k++)
            n += str_equal(val_get_str(at(l->list[k], "Spec.Labels"), STACK_LABEL_NAMESPACE), names.v[i]);
        table_add(&t, names.v[i]);
        table_addf(&t, "%u", n);
    }
    rc = table_show(c, &t, 0, e);
    table_done(&t);
    strs_clear(&names);
    val_doc_free(d);
    return rc;
}

static int listed(struct cli *c, const char *path_text, struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb path;
    AUTO_FREE char *label = xasprintf(STACK_LABEL_NAMESPACE "=%s", cli_arg(c, 0));
    sb_init(&path, 0);
    sb_str(&path, path_text);
    int rc = filters_from_flags(c, &path, "label", label, e);
    if (rc == 0)
        rc = cli_get(c, ret, e, "%s", path.s);
    if (rc == 0 && val_root(*ret)->kind == V_LIST && !val_root(*ret)->n && !cli_list(c, "filter")->n) {
        val_doc_free(TAKE(*ret));
        return err_set(e, E_NOT_FOUND, "there is nothing in a stack %s; `shoal stack ls` lists the stacks",
                       cli_arg(c, 0));
    }
    return rc;
}

static int cmd_ps(struct cli *c, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = listed(c, "/tasks", &d, e);
    if (rc == 0)
        rc = tasks_show(c, val_root(d), e);
    val_doc_free(d);
    return rc;
}

static int cmd_services(struct cli *c, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = listed(c, "/services?status=true", &d, e);
    if (rc == 0)
        rc = services_show(c, val_root(d), e);
    val_doc_free(d);
    return rc;
}

/* Deletes all of one kind; *count grows. */
static int remove_kind(struct cli *c, const char *stack, const char *kind, const char *what, unsigned *count,
                       struct err *e)
{
    struct val_doc *d = NULL;
    int rc = stack_list(c, kind, stack, &d, e), failed = 0;
    const struct val *l = rc == 0 ? val_root(d) : NULL;
    for (uint32_t i = 0; l && l->kind == V_LIST && i < l->n; i++) {
        bool network = !strcmp(kind, "networks");
        const char *name = network ? str_at(l->list[i], "Name") : str_at(l->list[i], "Spec.Name");
        AUTO_FREE char *path = xasprintf("/%s/%s", kind, str_at(l->list[i], network ? "Id" : "ID"));
        ++*count;
        fprintf(c->out, "Removing %s %s\n", what, name);
        rc = cli_call(c, "DELETE", path, NULL, NULL, e);
        if (rc < 0 && rc != -E_NOT_FOUND)
            failed = err_wrap(e, "%s %s", what, name);
    }
    val_doc_free(d);
    return failed ? failed : rc == -E_NOT_FOUND ? 0 : rc;
}

static int cmd_rm(struct cli *c, struct err *e)
{
    static const char *const kinds[][2] = {
        { "services", "service" }, { "secrets", "secret" }, { "configs", "config" }, { "networks", "network" } };
    int failed = 0;
    for (uint32_t i = 0; i < c->args.n; i++) {
        unsigned count = 0;
        for (unsigned k = 0; k < ARRAY_N(kinds); k++) {
            if (failed)
                fprintf(c->err, "Error: %s\n", e->text);
            failed = remove_kind(c, c->args.v[i], kinds[k][0], kinds[k][1], &count, e);
            if (failed)
                c->status = 1;
            if (failed == -E_UNAVAILABLE || failed == -E_DENIED)
                return failed;
        }
        if (!failed && !count && c->args.n == 1)
            return err_set(e, E_NOT_FOUND, "there is nothing in a stack %s; `shoal stack ls` lists the stacks",
                           c->args.v[i]);
    }
    return failed;
}

const struct cli_command stack_commands[] = {
    { "stack deploy", "[NAME]", "Create or change the services of Compose files", deploy_flags,
      "shoal stack deploy -c compose.yaml --detach=false shop", cmd_stack_deploy, 0, 1, 0 },
    { "stack ls", "", "List the stacks", ls_flags, "shoal stack ls", cmd_ls, 0, 0, 0 },
    { "stack ps", "STACK", "List the tasks of a stack", task_flags, "shoal stack ps shop", cmd_ps, 1, 1, 0 },
    { "stack services", "STACK", "List the services of a stack", services_flags, "shoal stack services shop",
      cmd_services, 1, 1, 0 },
    { "stack rm", "STACK...", "Remove stacks: services, secrets, configs, networks", NULL, "shoal stack rm shop", cmd_rm,
      1, CLI_ANY, 0 },
    { 0 },
};
