/* info, version, and what is made from the command table: completion, man. */
#include "cli.h"

static const struct cli_flag format_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { 0 },
};

static void line(FILE *f, const char *name, const char *value)
{
    if (*value)
        fprintf(f, "%s: %s\n", name, value);
}

/* What is written between the nodes, and whom the next format waits for while a cluster is upgraded node by node. */
static void print_formats(FILE *f, const struct val *v)
{
    if (!v)
        return; /* an older daemon */
    fprintf(f, " Format: %lld (this node knows %lld to %lld)\n", (long long)int_at(v, "Written", 1), (long long)int_at(v, "Least", 1),
            (long long)int_at(v, "Most", 1));
    if (*str_at(v, "WaitsFor"))
        fprintf(f, " Format %lld waits for: %s (%s)\n", (long long)int_at(v, "Next", 0), str_at(v, "WaitsFor"),
                str_at(v, "WaitsForHostname"));
}

static void print_swarm(FILE *f, const struct val *swarm)
{
    const struct val *managers = val_get(swarm, "RemoteManagers"), *pools = at(swarm, "Cluster.DefaultAddrPool");
    bool manager = val_get_bool(swarm, "ControlAvailable", false);
    line(f, "Swarm", str_at(swarm, "LocalNodeState"));
    if (strcmp(str_at(swarm, "LocalNodeState"), "inactive")) {
        line(f, " NodeID", str_at(swarm, "NodeID"));
        line(f, " Error", str_at(swarm, "Error"));
        line(f, " Is Manager", manager ? "true" : "false");
        line(f, " Node Address", str_at(swarm, "NodeAddr"));
    }
    if (manager) {
        line(f, " ClusterID", str_at(swarm, "Cluster.ID"));
        const struct val *raft = val_get(swarm, "Raft");
        if (raft)
            fprintf(f, " Raft: %s, term %lld, index %lld (%lld committed), %lld of at most %lld changes under way\n",
                    str_at(raft, "Role"), (long long)int_at(raft, "Term", 0), (long long)int_at(raft, "Index", 0),
                    (long long)int_at(raft, "Committed", 0), (long long)int_at(raft, "ProposalsPending", 0),
                    (long long)int_at(raft, "ProposalsMax", 0));
        fprintf(f, " Managers: %lld\n Nodes: %lld\n", (long long)int_at(swarm, "Managers", 0),
                (long long)int_at(swarm, "Nodes", 0));
        print_formats(f, val_get(swarm, "Formats"));
        line(f, " Manager Policy", *str_at(swarm, "Cluster.Managers") ? str_at(swarm, "Cluster.Managers") : "manual");
    }
    for (uint32_t i = 0; manager && pools && pools->kind == V_LIST && i < pools->n; i++)
        if (pools->list[i]->kind == V_STR)
            line(f, " Default Address Pool", pools->list[i]->s);
    if (managers && managers->kind == V_LIST && managers->n)
        fputs(" Manager Addresses:\n", f);
    for (uint32_t i = 0; managers && managers->kind == V_LIST && i < managers->n; i++)
        fprintf(f, "  %s\n", str_at(managers->list[i], "Addr"));
}

static void print_info(FILE *f, const struct val *v)
{
    char memory[32];
    units_bytes(memory, int_at(v, "MemTotal", 0), true);
    fprintf(f, "Containers: %lld\n Running: %lld\n Paused: %lld\n Stopped: %lld\nImages: %lld\n",
            (long long)int_at(v, "Containers", 0), (long long)int_at(v, "ContainersRunning", 0),
            (long long)int_at(v, "ContainersPaused", 0), (long long)int_at(v, "ContainersStopped", 0),
            (long long)int_at(v, "Images", 0));
    line(f, "Server Version", str_at(v, "ServerVersion"));
    line(f, "Storage Driver", str_at(v, "Driver"));
    line(f, "Logging Driver", str_at(v, "LoggingDriver"));
    line(f, "Cgroup Version", str_at(v, "CgroupVersion"));
    print_swarm(f, val_get(v, "Swarm"));
    line(f, "Kernel Version", str_at(v, "KernelVersion"));
    line(f, "Operating System", str_at(v, "OperatingSystem"));
    line(f, "Architecture", str_at(v, "Architecture"));
    fprintf(f, "CPUs: %lld\nTotal Memory: %s\n", (long long)int_at(v, "NCPU", 0), memory);
    line(f, "Name", str_at(v, "Name"));
    line(f, "ID", str_at(v, "ID"));
    line(f, "Root Dir", str_at(v, "DockerRootDir"));
    const struct val *w = val_get(v, "Warnings");
    for (uint32_t i = 0; w && w->kind == V_LIST && i < w->n; i++)
        if (w->list[i]->kind == V_STR)
            line(f, "Warning", w->list[i]->s);
}

static int cmd_info(struct cli *c, struct err *e)
{
    enum format format;
    struct val_doc *d = NULL;
    int rc = format_of(c, &format, e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "/info");
    if (rc == 0 && format == FORMAT_JSON)
        format_json(c->out, val_root(d), 0);
    else if (rc == 0)
        print_info(c->out, val_root(d));
    val_doc_free(d);
    return rc;
}

static int cmd_version(struct cli *c, struct err *e)
{
    enum format format;
    struct val_doc *d = NULL, *all = val_doc_new();
    int rc = format_of(c, &format, e), server = -1;
    if (rc == 0)
        server = cli_get(c, &d, e, "/version");
    if (rc == 0 && format == FORMAT_JSON) {
        struct val *m = val_map(all), *client = val_map(all);
        val_set(all, client, "Version", val_str(all, CLI_VERSION));
        val_set(all, client, "ApiVersion", val_str(all, &CLI_API[2]));
        val_set(all, m, "Client", client);
        val_set(all, m, "Server", server == 0 ? val_copy(all, val_root(d)) : val_null(all));
        format_json(c->out, m, 0);
    } else if (rc == 0) {
        fprintf(c->out, "Client:\n Version:      " CLI_VERSION "\n API version:  %s\n", &CLI_API[2]);
    }
    if (rc == 0 && server == 0 && format != FORMAT_JSON) {
        const struct val *v = val_root(d);
        fprintf(c->out, "\nServer:\n Version:      %s\n API version:  %s (minimum version %s)\n OS/Arch:      %s/%s\n"
                " Kernel:       %s\n", str_at(v, "Version"), str_at(v, "ApiVersion"), str_at(v, "MinAPIVersion"),
                str_at(v, "Os"), str_at(v, "Arch"), str_at(v, "KernelVersion"));
    }
    val_doc_free(d);
    val_doc_free(all);
    return rc == 0 ? server : rc;
}

const struct cli_command system_commands[] = {
    { "info", "", "Show this node and its place in the cluster", format_flags, "shoal info", cmd_info, 0, 0, 0 },
    { "version", "", "Show the versions of client and daemon", format_flags, "shoal version", cmd_version, 0, 0, 0 },
    { "completion", "bash|zsh|fish", "Print what makes the shell complete commands and flags", NULL,
      "source <(shoal completion bash)", cmd_completion, 1, 1, 0 },
    { "man", "", "Print the manual page", NULL, "shoal man | man -l -", cmd_man, 0, 0, 0 },
    { 0 },
};
