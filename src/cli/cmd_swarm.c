/* init, join, leave, join-token: the life of the cluster itself (Engine API /swarm). */
#include "cli.h"
#include <ctype.h>
#include <shoal/http.h>

enum { CONTROL_PORT = 2377 };

static const struct cli_flag init_flags[] = {
    { "advertise-addr", 0, CLI_STR, "Address of this node that the others use, ADDR[:PORT]", NULL },
    { "advertise", 0, CLI_STR, "The same, shorter", NULL },
    { "listen-addr", 0, CLI_STR, "Where to listen, ADDR[:PORT]; default 0.0.0.0:2377", NULL },
    { "availability", 0, CLI_STR, "May this node run tasks", "active|pause|drain" },
    { "managers", 0, CLI_STR, "Who chooses the managers: auto keeps 3 (5 from 7 nodes on) and replaces lost ones, which hands the "
      "cluster's secrets to the nodes it promotes; a number keeps so many; manual leaves it to you; default auto", NULL },
    { "replace-after", 0, CLI_DURATION, "With auto: a manager that is down for so long is replaced; default 1m", NULL },
    { "autolock", 0, CLI_BOOL, "Seal the managers' disks: after a restart each needs the unlock key", NULL },
    { "default-addr-pool", 0, CLI_LIST, "Address range for new networks, CIDR", NULL },
    { "default-addr-pool-mask-length", 0, CLI_INT, "Prefix length of a new network; default 24", NULL },
    { 0 },
};
static const struct cli_flag join_flags[] = {
    { "token", 0, CLI_STR, "From `shoal join-token` on a manager", NULL },
    { "advertise-addr", 0, CLI_STR, "Address of this node that the others use, ADDR[:PORT]", NULL },
    { "advertise", 0, CLI_STR, "The same, shorter", NULL },
    { "listen-addr", 0, CLI_STR, "Where to listen, ADDR[:PORT]; default 0.0.0.0:2377", NULL },
    { "availability", 0, CLI_STR, "May this node run tasks", "active|pause|drain" },
    { "eligible", 0, CLI_BOOL, "May the cluster make it a manager (--eligible=false: never by itself)", NULL },
    { 0 },
};
static const struct cli_flag leave_flags[] = {
    { "force", 'f', CLI_BOOL, "Leave even as a manager, or when the cluster does not answer", NULL },
    { 0 },
};
static const struct cli_flag recover_flags[] = {
    { "yes", 'y', CLI_BOOL, "Do not ask", NULL },
    { 0 },
};
static const struct cli_flag token_flags[] = {
    { "rotate", 0, CLI_BOOL, "Make a new token; the old one is of no use then", NULL },
    { "ttl", 0, CLI_DURATION, "Make a token of its own that expires after this time", NULL },
    { "once", 0, CLI_BOOL, "Make a token of its own that is good for one node", NULL },
    { "quiet", 'q', CLI_BOOL, "Only the token", NULL },
    { 0 },
};

static const char *advertise(const struct cli *c)
{
    const char *s = cli_str(c, "advertise-addr");
    return s ? s : cli_str(c, "advertise") ? cli_str(c, "advertise") : "";
}

static void put(struct val_doc *d, struct val *map, const char *key, const char *value)
{
    val_set(d, map, key, val_str(d, value));
}

static void put_list(struct val_doc *d, struct val *map, const char *key, const struct strs *values)
{
    struct val *l = val_list(d);
    for (uint32_t i = 0; i < values->n; i++)
        val_push(d, l, val_str(d, values->v[i]));
    val_set(d, map, key, l);
}

static void put_common(struct cli *c, struct val_doc *d, struct val *m)
{
    const char *listen = cli_str(c, "listen-addr"), *availability = cli_str(c, "availability");
    put(d, m, "ListenAddr", listen ? listen : "0.0.0.0:2377");
    put(d, m, "AdvertiseAddr", advertise(c));
    put(d, m, "Availability", availability ? availability : "active");
}

/* ADDR:2377 of this node, as the others reach it. */
static int node_address(struct cli *c, char out[96], struct err *e)
{
    struct val_doc *d = NULL;
    int rc = cli_get(c, &d, e, "/info");
    if (rc < 0)
        return rc;
    const char *id = str_at(val_root(d), "Swarm.NodeID"), *addr = str_at(val_root(d), "Swarm.NodeAddr");
    const struct val *managers = at(val_root(d), "Swarm.RemoteManagers");
    snprintf(out, 96, strchr(addr, ':') ? "[%s]:%d" : "%s:%d", addr, CONTROL_PORT);
    for (uint32_t i = 0; managers && managers->kind == V_LIST && i < managers->n; i++)
        if (!strcmp(str_at(managers->list[i], "NodeID"), id))
            snprintf(out, 96, "%s", str_at(managers->list[i], "Addr"));
    val_doc_free(d);
    return 0;
}

static int print_join(struct cli *c, const char *role, const char *token, struct err *e)
{
    char addr[96];
    int rc = node_address(c, addr, e);
    if (rc == 0)
        fprintf(c->out, "To add a %s to this cluster, run on the new node:\n\n    shoal join --token %s %s\n\n", role,
                token, addr);
    return rc;
}

static int cmd_init(struct cli *c, struct err *e)
{
    AUTO_SB struct sb body;
    struct val_doc *d = val_doc_new(), *id = NULL, *swarm = NULL;
    struct val *m = val_map(d);
    put_common(c, d, m);
    put(d, m, "Managers", cli_str(c, "managers") ? cli_str(c, "managers") : "auto");
    if (cli_has(c, "replace-after"))
        val_set(d, m, "ReplaceManagersAfter", val_int(d, cli_num(c, "replace-after", 0)));
    if (cli_on(c, "autolock"))
        val_set(d, m, "AutoLockManagers", val_bool(d, true));
    put_list(d, m, "DefaultAddrPool", cli_list(c, "default-addr-pool"));
    if (cli_has(c, "default-addr-pool-mask-length"))
        val_set(d, m, "SubnetSize", val_int(d, cli_num(c, "default-addr-pool-mask-length", 24)));
    sb_init(&body, 0);
    json_write(&body, m, 0);
    int rc = start_daemon(c, e);
    if (rc == 0)
        rc = cli_call(c, "POST", "/swarm/init", body.s, &id, e);
    if (rc == 0)
        rc = cli_get(c, &swarm, e, "/swarm");
    if (rc == 0) {
        fprintf(c->out, "Swarm initialized: this node (%s) is now its first manager.\n\n",
                id && val_root(id)->kind == V_STR ? val_root(id)->s : "");
        rc = print_join(c, "worker", str_at(val_root(swarm), "JoinTokens.Worker"), e);
    }
    const char *managers = cli_str(c, "managers");
    if (rc == 0 && managers && !strcmp(managers, "manual"))
        fputs("To add a manager, run `shoal join-token manager` here and follow what it says.\n", c->out);
    else if (rc == 0)
        fputs("Managers are chosen among the nodes that join; `shoal managers` shows which and why.\n", c->out);
    if (rc == 0 && cli_on(c, "autolock"))
        rc = print_unlock_key(c, e);
    val_doc_free(swarm);
    val_doc_free(id);
    val_doc_free(d);
    return rc;
}

/* Nothing is said when the first attempt does. */
static int call_join(struct cli *c, const char *body, struct err *e)
{
    struct progress p = { .out = c->out };
    struct err end = { 0 };
    struct cli_stream s = { .method = "POST", .path = "/swarm/join?progress=1", .body = body, .upload = -1, .data = progress_data,
                            .arg = &p };
    c->refused = false;
    int rc = cli_stream(c, &s, e), last = progress_end(&p, &end);
    if (rc == 0 && last < 0)
        *e = end;
    c->refused |= rc < 0 || last < 0;
    return rc < 0 ? rc : last;
}

static int cmd_join(struct cli *c, struct err *e)
{
    AUTO_SB struct sb body;
    struct val_doc *info = NULL;
    sb_init(&body, 0);
    if (!cli_str(c, "token"))
        return cli_usage(c, e, "--token is needed; a manager prints it with `shoal join-token worker`");
    struct val_doc *d = val_doc_new();
    struct val *m = val_map(d);
    put_common(c, d, m);
    put(d, m, "JoinToken", cli_str(c, "token"));
    if (cli_has(c, "eligible") && !cli_on(c, "eligible"))
        val_set(d, m, "NeverManager", val_bool(d, true));
    put_list(d, m, "RemoteAddrs", &c->args);
    json_write(&body, m, 0);
    val_doc_free(d);
    int rc = start_daemon(c, e);
    if (rc == 0)
        rc = call_join(c, body.s, e);
    if (rc == 0)
        rc = cli_get(c, &info, e, "/info");
    if (rc == 0)
        fprintf(c->out, "This node joined the cluster as a %s.\n",
                val_get_bool(at(val_root(info), "Swarm"), "ControlAvailable", false) ? "manager" : "worker");
    val_doc_free(info);
    return rc;
}

static int cmd_leave(struct cli *c, struct err *e)
{
    int rc = cli_call(c, "POST", cli_on(c, "force") ? "/swarm/leave?force=1" : "/swarm/leave", NULL, NULL, e);
    if (rc == 0)
        fputs("This node left the cluster.\n", c->out);
    return rc;
}

/* What would be kept and left behind, in words. */
static int print_plan(struct cli *c, const struct val *plan, struct err *e)
{
    const struct val *left = val_get(plan, "LeftBehind");
    long long uncertain = int_at(plan, "Uncertain", 0);
    if (*str_at(plan, "Leader"))
        return err_set(e, E_CONFLICT, "the cluster has a leader (node %s) and needs no recovery; lost managers are removed "
                       "with `shoal node rm --force NODE`", str_at(plan, "Leader"));
    if (!val_get_bool(plan, "Voter", true))
        return err_set(e, E_INVALID, "this manager has no vote and may lack what the others agreed on; recover on one that has");
    char ago[64], since[48];
    units_ago_since(ago, c->now_ns, str_at(plan, "ChangedAt"));
    long long leaderless = int_at(plan, "LeaderlessMs", -1);
    fputs("The managers have no leader", c->out);
    if (leaderless >= 0) {
        units_duration(since, leaderless / 1000 * INT64_C(1000000000));
        fprintf(c->out, " (for %s)", since);
    }
    fprintf(c->out, ". This node can become the only manager:\n\n"
            "kept:         %lld services, %lld networks, %lld secrets, %lld configs, %lld nodes\n"
            "              its log up to entry %lld, term %lld; the last change of it was made %s\n",
            (long long)int_at(plan, "Services", 0), (long long)int_at(plan, "Networks", 0),
            (long long)int_at(plan, "Secrets", 0), (long long)int_at(plan, "Configs", 0), (long long)int_at(plan, "Nodes", 0),
            (long long)int_at(plan, "Entries", 0), (long long)int_at(plan, "Term", 0), *ago ? ago : "long ago");
    if (uncertain)
        fprintf(c->out, "              the last %lld entries of it are not known to have been agreed on; they are kept too\n",
                uncertain);
    fputs("lost:         what the other managers agreed on and this one never received\n", c->out);
    bool answers = false;
    for (uint32_t i = 0; left && left->kind == V_LIST && i < left->n; i++) {
        fprintf(c->out, "%-14s%s (%s, %s)\n", i ? "" : "left behind:", str_at(left->list[i], "Hostname"),
                str_at(left->list[i], "Addr"), str_at(left->list[i], "Reachability"));
        answers |= !strcmp(str_at(left->list[i], "Reachability"), "reachable");
    }
    fprintf(c->out, "workers:      %lld, of which %lld do not answer now; those that do go on under this manager\n",
            (long long)int_at(plan, "Workers", 0), (long long)int_at(plan, "WorkersSilent", 0));
    fputs("\nThose left behind are kept out for ever: when they are back, run `shoal leave --force` there and join them "
          "again.\nWorkers and running containers stay. The join tokens become new.\n", c->out);
    if (answers)
        fputs("Some of those left behind answer: look with `shoal recover` there too, and recover where term and entry are highest; "
              "or bring back one more manager, then nothing need be lost.\n", c->out);
    fputc('\n', c->out);
    return 0;
}

static int cmd_recover(struct cli *c, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = cli_get(c, &d, e, "/shoal/v1/recovery");
    if (rc == 0)
        rc = print_plan(c, val_root(d), e);
    if (rc == 0 && !cli_on(c, "yes"))
        rc = term_confirm(c, "Make this node the only manager?", e);
    if (rc == 0)
        rc = cli_call(c, "POST", "/shoal/v1/recovery", NULL, NULL, e);
    if (rc == 0)
        fputs("This node is the cluster's only manager now. Add others with `shoal join-token manager` or `shoal node promote "
              "NODE`.\n", c->out);
    val_doc_free(d);
    return rc;
}

static int rotate(struct cli *c, struct val_doc *swarm, bool manager, struct err *e)
{
    AUTO_SB struct sb body;
    const struct val *spec = val_get(val_root(swarm), "Spec");
    sb_init(&body, 0);
    if (!spec)
        return err_set(e, E_CORRUPT, "the daemon's reply to GET /swarm has no Spec");
    json_write(&body, spec, 0);
    AUTO_FREE char *path = xasprintf("/swarm/update?version=%lld&rotate%sToken=true",
                                     (long long)int_at(val_root(swarm), "Version.Index", 0),
                                     manager ? "Manager" : "Worker");
    return cli_call(c, "POST", path, body.s, NULL, e);
}

#define ONCE_TTL_NS (24 * 3600 * INT64_C(1000000000))

/* One that expires, or that one node uses up: not among the two standing ones, which stay as they are. */
static int special_token(struct cli *c, const char *role, struct err *e)
{
    AUTO_SB struct sb body;
    struct val_doc *d = NULL;
    sb_init(&body, 0);
    sb_printf(&body, "{\"Role\":\"%s\",\"TTL\":%lld,\"Once\":%s}", role,
              (long long)(cli_has(c, "ttl") ? cli_num(c, "ttl", 0) : ONCE_TTL_NS), cli_on(c, "once") ? "true" : "false");
    if (cli_on(c, "rotate"))
        return cli_usage(c, e, "--rotate renews the standing token; it does not go with --ttl or --once");
    int rc = cli_call(c, "POST", "/shoal/v1/tokens", body.s, &d, e);
    if (rc == 0 && cli_on(c, "quiet"))
        fprintf(c->out, "%s\n", str_at(val_root(d), "Token"));
    else if (rc == 0)
        rc = print_join(c, role, str_at(val_root(d), "Token"), e);
    if (rc == 0 && !cli_on(c, "quiet"))
        fprintf(c->out, "It is not shown again. Revoke it with `shoal join-token rm %s`.\n", str_at(val_root(d), "ID"));
    val_doc_free(d);
    return rc;
}

static int cmd_join_token(struct cli *c, struct err *e)
{
    const char *role = cli_arg(c, 0) ? cli_arg(c, 0) : "worker";
    bool manager = !strcmp(role, "manager");
    struct val_doc *swarm = NULL;
    if (!manager && strcmp(role, "worker"))
        return cli_usage(c, e, "\"%s\" is no role; give worker or manager", role);
    if (cli_has(c, "ttl") || cli_on(c, "once"))
        return special_token(c, role, e);
    int rc = cli_get(c, &swarm, e, "/swarm");
    if (rc == 0 && cli_on(c, "rotate")) {
        rc = rotate(c, swarm, manager, e);
        val_doc_free(TAKE(swarm));
        if (rc == 0)
            rc = cli_get(c, &swarm, e, "/swarm");
        if (rc == 0 && !cli_on(c, "quiet"))
            fprintf(c->out, "The %s token is a new one; the old one is of no use any more.\n\n", role);
    }
    if (rc == 0) {
        const char *token = str_at(val_root(swarm), manager ? "JoinTokens.Manager" : "JoinTokens.Worker");
        if (cli_on(c, "quiet"))
            fprintf(c->out, "%s\n", token);
        else
            rc = print_join(c, role, token, e);
    }
    val_doc_free(swarm);
    return rc;
}

const struct cli_command swarm_commands[] = {
    { "init", "", "Make this node the first manager of a new cluster", init_flags,
      "shoal init --advertise-addr 10.0.0.1", cmd_init, 0, 0, 0 },
    { "join", "HOST:PORT...", "Join this node to a cluster", join_flags,
      "shoal join --token SHOAL-1-... 10.0.0.1:2377", cmd_join, 1, 16, 0 },
    { "leave", "", "Take this node out of its cluster", leave_flags, "shoal leave --force", cmd_leave, 0, 0, 0 },
    { "recover", "", "Make a surviving manager the only one, when most managers are lost", recover_flags, "shoal recover",
      cmd_recover, 0, 0, 0 },
    { "join-token", "[worker|manager]", "Show (or renew) what a new node needs to join", token_flags,
      "shoal join-token manager", cmd_join_token, 0, 1, 0 },
    { 0 },
};
