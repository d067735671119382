/* What guards the cluster: join tokens for an occasion, the cluster key, gossip keys, the lock of managers' disks. */
#include "cli.h"
#include <shoal/model/cluster.h>

enum { LOOK_MS = 100 };

static const struct cli_flag list_flags[] = {
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};
static const struct cli_flag rotate_flags[] = {
    { "detach", 'd', CLI_BOOL, "Do not wait until every node that is up has followed", NULL },
    { 0 },
};

static const struct cli_flag unlock_key_flags[] = {
    { "quiet", 'q', CLI_BOOL, "Only the key", NULL },
    { "rotate", 0, CLI_BOOL, "Make a new key; managers that are down still open with the old one", NULL },
    { 0 },
};
static const struct cli_flag cluster_flags[] = {
    { "autolock", 0, CLI_BOOL, "Seal the managers' disks: after a restart each needs the unlock key", NULL },
    { "cert-expiry", 0, CLI_DURATION, "Life of a node's certificate", NULL },
    { "task-history-limit", 0, CLI_INT, "Old tasks kept for each slot", NULL },
    { 0 },
};

static const struct column columns[] = {
    { "ID", "ID", false },           { "ROLE", "Role", false },       { "STATE", "State", false },
    { "ONCE", "Once", true },        { "CREATED", "CreatedAt", false }, { "EXPIRES", "ExpiresAt", false },
};

static int cmd_token_ls(struct cli *c, struct err *e)
{
    struct val_doc *d = NULL;
    struct table t;
    int rc = cli_get(c, &d, e, "/shoal/v1/tokens");
    if (rc < 0)
        return rc;
    table_init(&t, columns, ARRAY_N(columns));
    const struct val *l = val_root(d);
    for (uint32_t i = 0; l->kind == V_LIST && i < l->n; i++) {
        table_add(&t, str_at(l->list[i], "ID"));
        table_add(&t, str_at(l->list[i], "Role"));
        table_add(&t, str_at(l->list[i], "State"));
        table_add(&t, val_get_bool(l->list[i], "Once", false) ? "true" : "false");
        table_add(&t, str_at(l->list[i], "CreatedAt"));
        table_add(&t, str_at(l->list[i], "ExpiresAt"));
    }
    rc = table_show(c, &t, 0, e);
    table_done(&t);
    val_doc_free(d);
    return rc;
}

static int cmd_token_rm(struct cli *c, struct err *e)
{
    return delete_each(c, "shoal/v1/tokens", NULL, e);
}

static void print_since(struct cli *c, const struct val *keys)
{
    const struct val *away = val_get(keys, "Away");
    for (uint32_t i = 0; away && away->kind == V_LIST && i < away->n; i++)
        fprintf(c->out, "%s is down; it can follow until %s, after that it must leave and join anew.\n", away->list[i]->s,
                str_at(keys, "OldUntil"));
}

static int cmd_ca(struct cli *c, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = cli_get(c, &d, e, "/shoal/v1/keys");
    if (rc == 0) {
        fprintf(c->out, "%s", str_at(val_root(d), "TLSInfo.TrustRoot"));
        if (val_get_bool(val_root(d), "RootRotationInProgress", false))
            fprintf(c->out, "Being replaced: %lld of %lld nodes have a certificate by it.\n",
                    (long long)int_at(val_root(d), "Certificates", 0), (long long)int_at(val_root(d), "Nodes", 0));
    }
    val_doc_free(d);
    return rc;
}

/* Until the server says it is over. what: which count is the progress. */
static int follow(struct cli *c, bool (*is_over)(const struct val *), const char *what, const char *unit, struct err *e)
{
    long long last = -1;
    term_catch_interrupt();
    for (;;) {
        struct val_doc *d = NULL;
        int rc = cli_get(c, &d, e, "/shoal/v1/keys");
        if (rc < 0)
            return rc;
        bool over = is_over(val_root(d));
        long long held = over ? (long long)int_at(val_root(d), "Nodes", 0) : (long long)int_at(val_root(d), what, 0);
        if (held != last || over)
            fprintf(c->out, "%lld of %lld nodes have %s\n", held, (long long)int_at(val_root(d), "Nodes", 0), unit);
        last = held;
        if (over && !strcmp(what, "Certificates"))
            print_since(c, val_root(d));
        val_doc_free(d);
        if (over)
            return 0;
        term_pause_ms(LOOK_MS);
        if (term_interrupted())
            return err_set(e, E_CLOSED, "interrupted; the rotation goes on, see `shoal ca`");
    }
}

static bool ca_is_over(const struct val *keys)
{
    return !val_get_bool(keys, "RootRotationInProgress", true);
}

static bool keys_are_over(const struct val *keys)
{
    return !val_get_bool(keys, "GossipKeyDue", true) && int_at(keys, "GossipKeys", 0) == 1 && int_at(keys, "Keyrings", 0) == int_at(keys, "Nodes", 0);
}

/* Reads the cluster's spec, lets change edit it, and gives it back with the version it saw. */
static int change_spec(struct cli *c, void (*change)(struct cli *, struct cluster_spec *), const char *more_query, struct err *e)
{
    struct val_doc *d = NULL;
    struct cluster_spec spec = { 0 };
    AUTO_SB struct sb body;
    sb_init(&body, 0);
    int rc = cli_get(c, &d, e, "/swarm");
    if (rc == 0)
        rc = rec_from_val(&cluster_spec_rec, &spec, val_get(val_root(d), "Spec"), "Spec", e);
    if (rc == 0) {
        change(c, &spec);
        rec_to_json(&cluster_spec_rec, &spec, &body);
        AUTO_FREE char *path = xasprintf("/swarm/update?version=%lld%s", (long long)int_at(val_root(d), "Version.Index", 0),
                                         more_query);
        rc = cli_call(c, "POST", path, body.s, NULL, e);
    }
    cluster_spec_clear(&spec);
    val_doc_free(d);
    return rc;
}

static void want_new_ca(struct cli *c, struct cluster_spec *s)
{
    (void)c;
    s->ca.force_rotate++;
}

static void want_flags(struct cli *c, struct cluster_spec *s)
{
    s->encryption.autolock = cli_num(c, "autolock", s->encryption.autolock) != 0;
    s->ca.node_cert_expiry = cli_num(c, "cert-expiry", s->ca.node_cert_expiry);
    s->orchestration.history = cli_num(c, "task-history-limit", s->orchestration.history);
}

static void want_nothing(struct cli *c, struct cluster_spec *s)
{
    (void)c, (void)s;
}

static int cmd_ca_rotate(struct cli *c, struct err *e)
{
    int rc = change_spec(c, want_new_ca, "", e);
    if (rc == 0)
        fputs("The cluster has a new key; all join tokens are new.\n", c->out);
    if (rc == 0 && !cli_on(c, "detach"))
        rc = follow(c, ca_is_over, "Certificates", "a certificate by it", e);
    return rc;
}

static int get_unlock_key(struct cli *c, struct val_doc **ret, struct err *e)
{
    int rc = cli_get(c, ret, e, "/swarm/unlockkey");
    if (rc == 0 && !*str_at(val_root(*ret), "UnlockKey"))
        rc = err_set(e, E_INVALID, "autolock is off, there is no unlock key; turn it on with `shoal cluster update --autolock`");
    return rc;
}

int print_unlock_key(struct cli *c, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = get_unlock_key(c, &d, e);
    if (rc == 0)
        fprintf(c->out, "To unlock a manager after it restarts, run `shoal unlock` there and give this key:\n\n    %s\n\n"
                "Keep it in a safe place: without it a manager that restarts cannot come back.\n", str_at(val_root(d), "UnlockKey"));
    val_doc_free(d);
    return rc;
}

static int cmd_unlock_key(struct cli *c, struct err *e)
{
    struct val_doc *d = NULL;
    if (!cli_on(c, "rotate") && !cli_on(c, "quiet"))
        return print_unlock_key(c, e);
    int rc = cli_on(c, "rotate") ? change_spec(c, want_nothing, "&rotateManagerUnlockKey=true", e) : 0;
    if (rc == 0 && !cli_on(c, "quiet"))
        return print_unlock_key(c, e);
    if (rc == 0)
        rc = get_unlock_key(c, &d, e);
    if (rc == 0)
        fprintf(c->out, "%s\n", str_at(val_root(d), "UnlockKey"));
    val_doc_free(d);
    return rc;
}

static int cmd_unlock(struct cli *c, struct err *e)
{
    AUTO_SB struct sb body;
    AUTO_FREE char *key = NULL;
    sb_init(&body, 0);
    int rc = term_read_secret(term_is_tty(0) ? "Unlock key: " : NULL, &key, e);
    if (rc < 0)
        return err_wrap(e, "unlock key");
    struct val_doc *d = val_doc_new();
    struct val *m = val_map(d);
    val_set(d, m, "UnlockKey", val_str(d, key));
    json_write(&body, m, 0);
    val_doc_free(d);
    rc = cli_call(c, "POST", "/swarm/unlock", body.s, NULL, e);
    if (rc == 0)
        fputs("This manager is unlocked.\n", c->out);
    return rc;
}

static int cmd_cluster_update(struct cli *c, struct err *e)
{
    if (!cli_has(c, "autolock") && !cli_has(c, "cert-expiry") && !cli_has(c, "task-history-limit"))
        return cli_usage(c, e, "nothing to change; give at least one flag");
    int rc = change_spec(c, want_flags, "", e);
    if (rc == 0)
        fputs("The cluster is updated.\n", c->out);
    if (rc == 0 && cli_on(c, "autolock"))
        rc = print_unlock_key(c, e);
    return rc;
}

static int cmd_keys_rotate(struct cli *c, struct err *e)
{
    int rc = cli_call(c, "POST", "/shoal/v1/keys/rotate", NULL, NULL, e);
    if (rc == 0 && !cli_on(c, "detach"))
        rc = follow(c, keys_are_over, "Keyrings", "the keys of this step", e);
    return rc;
}

const struct cli_command key_commands[] = {
    { "join-token ls", "", "List the join tokens that expire or are good for one node", list_flags, "shoal join-token ls",
      cmd_token_ls, 0, 0, 0 },
    { "join-token rm", "ID...", "Revoke such join tokens", NULL, "shoal join-token rm f3k9x0a1b2c4", cmd_token_rm, 1, CLI_ANY, 0 },
    { "ca", "", "Show the cluster key", NULL, "shoal ca", cmd_ca, 0, 0, 0 },
    { "ca rotate", "", "Replace the cluster key; nodes and containers go on", rotate_flags, "shoal ca rotate", cmd_ca_rotate, 0,
      0, 0 },
    { "keys rotate", "", "Replace the keys that seal gossip (this happens every 12 hours, and when a node is removed)",
      rotate_flags, "shoal keys rotate", cmd_keys_rotate, 0, 0, 0 },
    { "cluster update", "", "Change what holds for the whole cluster", cluster_flags, "shoal cluster update --autolock",
      cmd_cluster_update, 0, 0, 0 },
    { "unlock", "", "Give a locked manager its key, read from the standard input", NULL, "shoal unlock <key-file", cmd_unlock, 0, 0,
      0 },
    { "unlock-key", "", "Show (or renew) the key that managers need after a restart", unlock_key_flags, "shoal unlock-key --rotate",
      cmd_unlock_key, 0, 0, 0 },
    { 0 },
};
