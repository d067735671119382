/* node ls, inspect, ps, update, promote, demote, rm. Updates read the node, change its spec and give back the
 * version they saw, so that two writers cannot undo each other. */
#include "cli.h"
#include <shoal/model/node.h>

static const struct cli_flag ls_flags[] = {
    { "filter", 'f', CLI_LIST, "Only nodes with KEY=VALUE (id, name, role, label, node.label)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};
static const struct cli_flag inspect_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { "pretty", 0, CLI_BOOL, "For people", NULL },
    { 0 },
};
static const struct cli_flag update_flags[] = {
    { "availability", 0, CLI_STR, "May it run tasks; drain moves its tasks away", "active|pause|drain" },
    { "role", 0, CLI_STR, "Role of the node", "worker|manager" },
    { "eligible", 0, CLI_BOOL, "May the cluster make it a manager; --eligible=false: never by itself (label shoal.manager)", NULL },
    { "label-add", 0, CLI_LIST, "Set a label, KEY=VALUE", NULL },
    { "label-rm", 0, CLI_LIST, "Remove a label by its key", NULL },
    { 0 },
};
static const struct cli_flag rm_flags[] = {
    { "force", 'f', CLI_BOOL, "Remove a node that is not down", NULL },
    { 0 },
};

static const struct column columns[] = {
    { "ID", "ID", false },
    { NULL, "Self", true },
    { "HOSTNAME", "Hostname", false },
    { "STATUS", "Status", false },
    { "AVAILABILITY", "Availability", false },
    { "MANAGER STATUS", "ManagerStatus", false },
    { "ENGINE VERSION", "EngineVersion", false },
};

/* Docker's words, and one of our own for a manager whose log still catches up. */
static const char *vote_of(const struct val *node, char word[32])
{
    const struct val *status = at(node, "ManagerStatus");
    if (val_get_bool(status, "Leader", false))
        return "Leader";
    return status && !val_get_bool(status, "Voter", true) && strcmp(str_at(node, "ManagerStatus.Reachability"), "unreachable")
               ? "Catching up" : capital(str_at(node, "ManagerStatus.Reachability"), word);
}

static void add_node(struct cli *c, struct table *t, const struct val *node, const char *self)
{
    char word[32];
    const char *id = str_at(node, "ID");
    bool is_self = *self && !strcmp(self, id);
    bool mark = is_self && !cli_on(c, "quiet") && !(cli_str(c, "format") && strstr(cli_str(c, "format"), "json"));
    table_addf(t, "%s%s", id, mark ? " *" : "");
    table_add(t, is_self ? "true" : "false");
    table_add(t, str_at(node, "Description.Hostname"));
    table_add(t, capital(str_at(node, "Status.State"), word));
    table_add(t, capital(str_at(node, "Spec.Availability"), word));
    table_add(t, vote_of(node, word));
    table_add(t, str_at(node, "Description.Engine.EngineVersion"));
}

static int cmd_ls(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL, *info = NULL;
    struct table t;
    sb_init(&path, 0);
    sb_str(&path, "/nodes");
    int rc = filters_from_flags(c, &path, NULL, NULL, e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "%s", path.s);
    if (rc == 0)
        rc = cli_get(c, &info, e, "/info");
    table_init(&t, columns, ARRAY_N(columns));
    if (rc == 0) {
        const struct val *l = val_root(d);
        for (uint32_t i = 0; l->kind == V_LIST && i < l->n; i++)
            add_node(c, &t, l->list[i], str_at(val_root(info), "Swarm.NodeID"));
        rc = table_show(c, &t, 0, e);
    }
    table_done(&t);
    val_doc_free(info);
    val_doc_free(d);
    return rc;
}

static int cmd_inspect(struct cli *c, struct err *e)
{
    static const char *const paths[] = { "/nodes/*", NULL };
    for (uint32_t i = 0; i < c->args.n; i++) {
        struct val_doc *d = NULL;
        if (strcmp(c->args.v[i], "self"))
            continue;
        int rc = find_object(c, "nodes", "self", &d, e);
        if (rc < 0)
            return rc;
        str_set(&c->args.v[i], str_at(val_root(d), "ID"));
        val_doc_free(d);
    }
    return format_inspect(c, "node", paths, e);
}

static int cmd_ps(struct cli *c, struct err *e)
{
    struct val_doc *all = val_doc_new();
    struct val *tasks = val_list(all);
    int rc = 0;
    if (!c->args.n)
        strs_add(&c->args, "self");
    for (uint32_t i = 0; rc == 0 && i < c->args.n; i++) {
        struct val_doc *node = NULL, *d = NULL;
        AUTO_SB struct sb path;
        sb_init(&path, 0);
        sb_str(&path, "/tasks");
        rc = find_object(c, "nodes", c->args.v[i], &node, e);
        if (rc == 0)
            rc = filters_from_flags(c, &path, "node", str_at(val_root(node), "ID"), e);
        if (rc == 0)
            rc = cli_get(c, &d, e, "%s", path.s);
        for (uint32_t k = 0; rc == 0 && val_root(d)->kind == V_LIST && k < val_root(d)->n; k++)
            val_push(all, tasks, val_copy(all, val_root(d)->list[k]));
        val_doc_free(node);
        val_doc_free(d);
    }
    if (rc == 0)
        rc = tasks_show(c, tasks, e);
    val_doc_free(all);
    return rc;
}

typedef int change_fn(struct cli *c, struct node_spec *s, struct err *e);

/* *ret_changed: it is another spec now. */
static int change_node(struct cli *c, const char *ref, change_fn *change, bool *ret_changed, struct err *e)
{
    struct val_doc *d = NULL;
    struct node_spec s = { 0 }, old = { 0 };
    AUTO_SB struct sb body;
    sb_init(&body, 0);
    int rc = find_object(c, "nodes", ref, &d, e);
    if (rc < 0)
        return rc;
    rc = rec_from_val(&node_spec_rec, &s, val_get(val_root(d), "Spec"), "Spec", e);
    node_spec_copy(&old, &s);
    if (rc == 0)
        rc = change(c, &s, e);
    *ret_changed = !node_spec_equal(&old, &s);
    if (rc == 0 && *ret_changed) {
        rec_to_json(&node_spec_rec, &s, &body);
        AUTO_FREE char *path = xasprintf("/nodes/%s/update?version=%lld", str_at(val_root(d), "ID"),
                                         (long long)int_at(val_root(d), "Version.Index", 0));
        rc = cli_call(c, "POST", path, body.s, NULL, e);
    }
    node_spec_clear(&old);
    node_spec_clear(&s);
    val_doc_free(d);
    return rc;
}

static int apply_flags(struct cli *c, struct node_spec *s, struct err *e)
{
    const char *availability = cli_str(c, "availability"), *role = cli_str(c, "role");
    const struct strs *add = cli_list(c, "label-add"), *rm = cli_list(c, "label-rm");
    if (availability)
        s->availability = *availability == 'a' ? AVAIL_ACTIVE : *availability == 'p' ? AVAIL_PAUSE : AVAIL_DRAIN;
    if (role)
        s->role = *role == 'm' ? ROLE_MANAGER : ROLE_WORKER;
    if (cli_has(c, "eligible"))
        labels_set(&s->labels, NODE_LABEL_MANAGER, cli_on(c, "eligible") ? "yes" : "no");
    for (uint32_t i = 0; i < rm->n; i++)
        if (!labels_unset(&s->labels, rm->v[i]))
            fprintf(c->err, "Warning: the node has no label %s\n", rm->v[i]);
    for (uint32_t i = 0; i < add->n; i++) {
        int rc = value_label(&s->labels, add->v[i], e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int cmd_update(struct cli *c, struct err *e)
{
    bool changed;
    if (!cli_has(c, "availability") && !cli_has(c, "role") && !cli_has(c, "label-add") && !cli_has(c, "label-rm") &&
        !cli_has(c, "eligible"))
        return cli_usage(c, e, "nothing to change; give at least one flag");
    int rc = change_node(c, cli_arg(c, 0), apply_flags, &changed, e);
    if (rc == 0)
        fprintf(c->out, "%s\n", cli_arg(c, 0));
    return rc;
}

static int to_manager(struct cli *c, struct node_spec *s, struct err *e)
{
    s->role = ROLE_MANAGER;
    return 0;
}

static int to_worker(struct cli *c, struct node_spec *s, struct err *e)
{
    s->role = ROLE_WORKER;
    return 0;
}

static int set_role(struct cli *c, bool manager, struct err *e)
{
    const char *word = manager ? "manager" : "worker";
    for (uint32_t i = 0; i < c->args.n; i++) {
        bool changed;
        int rc = change_node(c, c->args.v[i], manager ? to_manager : to_worker, &changed, e);
        if (rc < 0)
            return err_wrap(e, "node %s", c->args.v[i]);
        fprintf(c->out, changed ? "Node %s becomes a %s.\n" : "Node %s is a %s already.\n", c->args.v[i], word);
    }
    return 0;
}

static int cmd_promote(struct cli *c, struct err *e)
{
    return set_role(c, true, e);
}

static int cmd_demote(struct cli *c, struct err *e)
{
    return set_role(c, false, e);
}

static int cmd_rm(struct cli *c, struct err *e)
{
    return delete_each(c, "nodes", cli_on(c, "force") ? "?force=1" : NULL, e);
}

const struct cli_command node_commands[] = {
    { "node ls", "", "List the nodes", ls_flags, "shoal node ls", cmd_ls, 0, 0, 0 },
    { "node ps", "[NODE...]", "List the tasks of nodes (default: this one)", task_flags, "shoal node ps node-2",
      cmd_ps, 0, CLI_ANY, 0 },
    { "node inspect", "NODE...", "Show all about nodes", inspect_flags, "shoal node inspect --pretty self",
      cmd_inspect, 1, CLI_ANY, 0 },
    { "node update", "NODE", "Change labels, availability or role", update_flags,
      "shoal node update --availability drain node-2", cmd_update, 1, 1, 0 },
    { "node promote", "NODE...", "Make nodes managers: each gets the cluster's state and secrets", NULL, "shoal node promote node-2", cmd_promote, 1, CLI_ANY, 0 },
    { "node demote", "NODE...", "Make managers workers", NULL, "shoal node demote node-2", cmd_demote, 1, CLI_ANY, 0 },
    { "node rm", "NODE...", "Remove nodes that left or are down", rm_flags, "shoal node rm node-2", cmd_rm, 1,
      CLI_ANY, 0 },
    { 0 },
};
