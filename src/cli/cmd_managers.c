/* managers: who has a vote and why, and who chooses them. */
#include "cli.h"
#include <shoal/model/cluster.h>
#include <shoal/model/node.h>

static const struct cli_flag managers_flags[] = {
    { "replace-after", 0, CLI_DURATION, "A manager that is down for so long is replaced (with auto or a number)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { 0 },
};

static const struct column columns[] = {
    { "HOSTNAME", "Hostname", false },
    { "ROLE", "Role", false },
    { "VOTE", "Vote", false },
    { "SINCE", "Since", false },
    { "WHY", "Why", false },
};

static void print_policy(struct cli *c, const struct val *v)
{
    char after[48];
    const char *policy = str_at(v, "Managers");
    long long voters = int_at(v, "Voters", 0), losses = int_at(v, "Losses", 0);
    units_duration(after, int_at(v, "ReplaceManagersAfter", 0));
    if (!strcmp(policy, "manual"))
        fputs("Policy: manual: managers are promoted and demoted by hand\n", c->out);
    else
        fprintf(c->out, "Policy: %s: %lld managers are wanted, %lld nodes may be one; a manager that is down for %s is replaced\n",
                policy, (long long)int_at(v, "Wanted", 0), (long long)int_at(v, "Eligible", 0), after);
    fprintf(c->out, "Votes:  %lld; the cluster %s\n", voters,
            losses > 1 ? "stands the loss of two managers or more" : losses == 1 ? "stands the loss of one manager"
                       : "stands the loss of no manager");
    if (voters % 2 == 0 && voters)
        fprintf(c->out, "        %lld managers stand no more losses than %lld: add or demote one\n", voters, voters - 1);
    fputc('\n', c->out);
}

static void add_row(struct cli *c, struct table *t, const struct val *node)
{
    const struct val *status = at(node, "ManagerStatus");
    char ago[64];
    long long behind = int_at(node, "ManagerStatus.Behind", 0);
    const char *why = str_at(node, "RoleReason"), *since = str_at(node, "RoleSince");
    const char *label = val_get_str(at(node, "Spec.Labels"), NODE_LABEL_MANAGER);
    if (!status && !*why && !label)
        return;
    units_ago_since(ago, c->now_ns, *since ? since : str_at(node, "CreatedAt"));
    table_add(t, str_at(node, "Description.Hostname"));
    table_add(t, str_at(node, "Spec.Role"));
    if (!status)
        table_add(t, "");
    else if (val_get_bool(status, "Leader", false))
        table_add(t, "leader");
    else if (!strcmp(str_at(status, "Reachability"), "unreachable"))
        table_add(t, val_get_bool(status, "Voter", false) ? "yes, unreachable" : "not yet, unreachable");
    else if (val_get_bool(status, "Voter", false))
        table_add(t, "yes");
    else
        table_addf(t, "not yet: %lld entries behind", behind);
    table_add(t, ago);
    table_add(t, *why ? why : !strcmp(str_at(node, "Spec.Role"), "manager") ? "joined as a manager"
                                : label && !strcmp(label, "no") ? "not eligible: label " NODE_LABEL_MANAGER " says no" : "");
}

static int show(struct cli *c, struct err *e)
{
    enum format format;
    struct val_doc *d = NULL, *nodes = NULL;
    struct table t;
    int rc = format_of(c, &format, e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "/shoal/v1/managers");
    if (rc == 0)
        rc = cli_get(c, &nodes, e, "/nodes");
    table_init(&t, columns, ARRAY_N(columns));
    const struct val *l = rc == 0 ? val_root(nodes) : NULL;
    for (uint32_t i = 0; l && l->kind == V_LIST && i < l->n; i++)
        add_row(c, &t, l->list[i]);
    if (rc == 0 && format != FORMAT_JSON)
        print_policy(c, val_root(d));
    if (rc == 0)
        rc = table_show(c, &t, 0, e);
    table_done(&t);
    val_doc_free(nodes);
    val_doc_free(d);
    return rc;
}

static int cmd_managers(struct cli *c, struct err *e)
{
    AUTO_SB struct sb body;
    sb_init(&body, 0);
    const char *policy = cli_arg(c, 0), *why = policy ? check_managers(policy) : NULL;
    if (why)
        return cli_usage(c, e, "\"%s\" %s", policy, why);
    if (!policy && !cli_has(c, "replace-after"))
        return show(c, e);
    struct val_doc *d = val_doc_new();
    struct val *m = val_map(d);
    if (policy)
        val_set(d, m, "Managers", val_str(d, policy));
    val_set(d, m, "ReplaceManagersAfter", val_int(d, cli_num(c, "replace-after", 0)));
    json_write(&body, m, 0);
    val_doc_free(d);
    int rc = cli_call(c, "POST", "/shoal/v1/managers", body.s, NULL, e);
    return rc == 0 ? show(c, e) : rc;
}

const struct cli_command manager_commands[] = {
    { "managers", "[auto|manual|N]", "Show who has a vote and why, or say who chooses the managers. A node that becomes one gets "
      "the cluster's state and secrets", managers_flags, "shoal managers auto --replace-after 5m", cmd_managers, 0, 1, 0 },
    { 0 },
};
