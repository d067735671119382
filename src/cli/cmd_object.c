/* Networks, secrets and configs: ls, create, inspect, rm. The data of a secret goes out as base64 and never
 * comes back; our copy of it is wiped. */
#include "cli.h"
#include <shoal/base/crypto.h>

static const struct cli_flag ls_flags[] = {
    { "filter", 'f', CLI_LIST, "Only those with KEY=VALUE (id, name, label)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};
static const struct cli_flag inspect_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { "pretty", 0, CLI_BOOL, "For people", NULL },
    { 0 },
};
static const struct cli_flag network_inspect_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { "pretty", 0, CLI_BOOL, "For people", NULL },
    { "verbose", 'v', CLI_BOOL, "Also the services on it, each with its tasks and their addresses", NULL },
    { 0 },
};
static const struct cli_flag network_flags[] = {
    { "driver", 'd', CLI_STR, "Kind of network; default overlay", "overlay|bridge" },
    { "attachable", 0, CLI_BOOL, "Containers started by hand may join", NULL },
    { "internal", 0, CLI_BOOL, "No way out of it", NULL },
    { "subnet", 0, CLI_LIST, "Address range, CIDR", NULL },
    { "gateway", 0, CLI_LIST, "Gateway of the subnet with the same position", NULL },
    { "ip-range", 0, CLI_LIST, "Part of the subnet with the same position that containers get", NULL },
    { "label", 0, CLI_LIST, "Label, KEY=VALUE", NULL },
    { "opt", 'o', CLI_LIST, "Option of the driver, KEY=VALUE; overlay networks are always encrypted", NULL },
    { 0 },
};
static const struct cli_flag data_flags[] = {
    { "label", 'l', CLI_LIST, "Label, KEY=VALUE", NULL },
    { 0 },
};

/* ---- networks ---- */
static const struct column network_columns[] = {
    { "NETWORK ID", "ID", false }, { "NAME", "Name", false },          { "DRIVER", "Driver", false },
    { "SCOPE", "Scope", false },   { NULL, "CreatedAt", false },       { NULL, "Internal", false },
    { NULL, "Labels", false },
};

static void add_labels(struct table *t, const struct val *labels)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    for (uint32_t i = 0; labels && labels->kind == V_MAP && i < labels->n; i++)
        if (labels->map[i].key->kind == V_STR && labels->map[i].value->kind == V_STR)
            sb_printf(&b, "%s%s=%s", i ? "," : "", labels->map[i].key->s, labels->map[i].value->s);
    table_add(t, b.s);
}

static int by_name(const void *a, const void *b)
{
    const struct val *const *x = a, *const *y = b;
    const char *p = str_at(*x, "Name"), *q = str_at(*y, "Name");
    return strcmp(*p ? p : str_at(*x, "Spec.Name"), *q ? q : str_at(*y, "Spec.Name"));
}

typedef void add_fn(struct cli *c, struct table *t, const struct val *v);

static int list(struct cli *c, const char *path, const struct column *cols, unsigned n_cols, add_fn *add,
                struct err *e)
{
    AUTO_SB struct sb b;
    struct val_doc *d = NULL;
    struct table t;
    sb_init(&b, 0);
    sb_str(&b, path);
    int rc = filters_from_flags(c, &b, NULL, NULL, e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "%s", b.s);
    if (rc < 0)
        return rc;
    struct val *l = val_root(d);
    table_init(&t, cols, n_cols);
    if (l->kind == V_LIST && l->n)
        qsort(l->list, l->n, sizeof *l->list, by_name);
    for (uint32_t i = 0; l->kind == V_LIST && i < l->n; i++)
        add(c, &t, l->list[i]);
    rc = table_show(c, &t, 0, e);
    table_done(&t);
    val_doc_free(d);
    return rc;
}

static void add_network(struct cli *c, struct table *t, const struct val *v)
{
    char id[16];
    table_add(t, short_id(str_at(v, "Id"), id));
    table_add(t, str_at(v, "Name"));
    table_add(t, str_at(v, "Driver"));
    table_add(t, str_at(v, "Scope"));
    table_add(t, str_at(v, "Created"));
    table_add(t, val_get_bool(v, "Internal", false) ? "true" : "false");
    add_labels(t, val_get(v, "Labels"));
}

static int cmd_network_ls(struct cli *c, struct err *e)
{
    return list(c, "/networks", network_columns, ARRAY_N(network_columns), add_network, e);
}

static int put_labels(struct cli *c, const char *flag, struct val_doc *d, struct val *m, const char *key,
                      struct err *e)
{
    struct labels l = { 0 };
    struct val *map = val_map(d);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < cli_list(c, flag)->n; i++)
        rc = value_label(&l, cli_list(c, flag)->v[i], e);
    for (uint32_t i = 0; i < l.n; i++)
        val_set(d, map, l.v[i].key, val_str(d, l.v[i].value));
    val_set(d, m, key, map);
    labels_clear(&l);
    return rc;
}

static int put_ipam(struct cli *c, struct val_doc *d, struct val *m, struct err *e)
{
    static const char *const flags[] = { "subnet", "gateway", "ip-range" }, *const keys[] = { "Subnet", "Gateway",
                                                                                             "IPRange" };
    struct val *ipam = val_map(d), *config = val_list(d);
    uint32_t n = cli_list(c, "subnet")->n;
    for (unsigned k = 1; k < 3; k++)
        if (cli_list(c, flags[k])->n > n)
            return cli_usage(c, e, "every --%s needs a --subnet that it lies in", flags[k]);
    for (uint32_t i = 0; i < n; i++) {
        struct val *one = val_map(d);
        for (unsigned k = 0; k < 3; k++)
            if (i < cli_list(c, flags[k])->n)
                val_set(d, one, keys[k], val_str(d, cli_list(c, flags[k])->v[i]));
        val_push(d, config, one);
    }
    val_set(d, ipam, "Driver", val_str(d, "default"));
    val_set(d, ipam, "Config", config);
    val_set(d, m, "IPAM", ipam);
    return 0;
}

static int create(struct cli *c, const char *path, const struct val *body, const char *key, struct err *e)
{
    struct val_doc *d = NULL;
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    json_write(&b, body, 0);
    int rc = cli_call(c, "POST", path, b.s, &d, e);
    crypto_wipe(b.s, b.len);
    if (rc == 0 && d)
        fprintf(c->out, "%s\n", str_at(val_root(d), key));
    val_doc_free(d);
    return rc;
}

static int cmd_network_create(struct cli *c, struct err *e)
{
    struct val_doc *d = val_doc_new();
    struct val *m = val_map(d);
    val_set(d, m, "Name", val_str(d, cli_arg(c, 0)));
    val_set(d, m, "Driver", val_str(d, cli_str(c, "driver") ? cli_str(c, "driver") : "overlay"));
    val_set(d, m, "Attachable", val_bool(d, cli_on(c, "attachable")));
    val_set(d, m, "Internal", val_bool(d, cli_on(c, "internal")));
    int rc = put_labels(c, "label", d, m, "Labels", e);
    if (rc == 0)
        rc = put_labels(c, "opt", d, m, "Options", e);
    if (rc == 0)
        rc = put_ipam(c, d, m, e);
    if (rc == 0)
        rc = create(c, "/networks/create", m, "Id", e);
    val_doc_free(d);
    return rc;
}

static int cmd_network_inspect(struct cli *c, struct err *e)
{
    static const char *const paths[] = { "/networks/*", NULL }, *const verbose[] = { "/networks/*?verbose=1", NULL };
    return format_inspect(c, "network", cli_has(c, "verbose") && cli_on(c, "verbose") ? verbose : paths, e);
}

static int cmd_network_rm(struct cli *c, struct err *e)
{
    return delete_each(c, "networks", NULL, e);
}

/* ---- secrets and configs ---- */
static const struct column data_columns[] = {
    { "ID", "ID", false }, { "NAME", "Name", false }, { "CREATED", "CreatedAt", false },
    { "UPDATED", "UpdatedAt", false }, { NULL, "Labels", false },
};
static const struct column secret_columns[] = {
    { "ID", "ID", false }, { "NAME", "Name", false }, { "DRIVER", "Driver", false }, { "CREATED", "CreatedAt", false },
    { "UPDATED", "UpdatedAt", false }, { NULL, "Labels", false },
};

static void add_data(struct cli *c, struct table *t, const struct val *v, bool driver)
{
    char age[64];
    table_add(t, str_at(v, "ID"));
    table_add(t, str_at(v, "Spec.Name"));
    if (driver)
        table_add(t, str_at(v, "Spec.Driver.Name"));
    units_ago_since(age, c->now_ns, str_at(v, "CreatedAt"));
    table_add(t, age);
    units_ago_since(age, c->now_ns, str_at(v, "UpdatedAt"));
    table_add(t, age);
    add_labels(t, at(v, "Spec.Labels"));
}

static void add_secret(struct cli *c, struct table *t, const struct val *v)
{
    add_data(c, t, v, true);
}

static void add_config(struct cli *c, struct table *t, const struct val *v)
{
    add_data(c, t, v, false);
}

static int cmd_secret_ls(struct cli *c, struct err *e)
{
    return list(c, "/secrets", secret_columns, ARRAY_N(secret_columns), add_secret, e);
}

static int cmd_config_ls(struct cli *c, struct err *e)
{
    return list(c, "/configs", data_columns, ARRAY_N(data_columns), add_config, e);
}

static int create_data(struct cli *c, const char *what, const char *path, size_t max, struct err *e)
{
    struct bytes data = { 0 };
    const char *file = cli_arg(c, 1);
    if (!file && term_is_tty(0))
        return cli_usage(c, e, "give the file of the %s, or - and pipe it in", what);
    int rc = term_read_input(file ? file : "-", max, &data, e);
    if (rc < 0)
        return rc;
    struct val_doc *d = val_doc_new();
    struct val *m = val_map(d);
    char *text = base64_encode(data.v, data.n);
    val_set(d, m, "Name", val_str(d, cli_arg(c, 0)));
    val_set(d, m, "Data", val_str(d, text));
    rc = put_labels(c, "label", d, m, "Labels", e);
    if (rc == 0)
        rc = create(c, path, m, "ID", e);
    crypto_wipe(text, strlen(text));
    crypto_wipe(data.v, data.n);
    free(text);
    free(data.v);
    val_doc_free(d);
    return rc;
}

static int cmd_secret_create(struct cli *c, struct err *e)
{
    return create_data(c, "secret", "/secrets/create", 500 << 10, e);
}

static int cmd_config_create(struct cli *c, struct err *e)
{
    return create_data(c, "config", "/configs/create", 1000 << 10, e);
}

static int cmd_secret_inspect(struct cli *c, struct err *e)
{
    static const char *const paths[] = { "/secrets/*", NULL };
    return format_inspect(c, "secret", paths, e);
}

static int cmd_config_inspect(struct cli *c, struct err *e)
{
    static const char *const paths[] = { "/configs/*", NULL };
    return format_inspect(c, "config", paths, e);
}

static int cmd_secret_rm(struct cli *c, struct err *e)
{
    return delete_each(c, "secrets", NULL, e);
}

static int cmd_config_rm(struct cli *c, struct err *e)
{
    return delete_each(c, "configs", NULL, e);
}

const struct cli_command object_commands[] = {
    { "network ls", "", "List the networks", ls_flags, "shoal network ls", cmd_network_ls, 0, 0, 0 },
    { "network create", "NAME", "Create a network", network_flags,
      "shoal network create --attachable --subnet 10.20.0.0/24 back", cmd_network_create, 1, 1, 0 },
    { "network inspect", "NETWORK...", "Show all about networks and who is on them", network_inspect_flags, "shoal network inspect --verbose back",
      cmd_network_inspect, 1, CLI_ANY, 0 },
    { "network rm", "NETWORK...", "Remove networks", NULL, "shoal network rm back", cmd_network_rm, 1, CLI_ANY, 0 },
    { "secret ls", "", "List the secrets", ls_flags, "shoal secret ls", cmd_secret_ls, 0, 0, 0 },
    { "secret create", "NAME [FILE|-]", "Create a secret from a file or the standard input", data_flags,
      "printf hunter2 | shoal secret create password -", cmd_secret_create, 1, 2, 0 },
    { "secret inspect", "SECRET...", "Show all about secrets but their data", inspect_flags,
      "shoal secret inspect password", cmd_secret_inspect, 1, CLI_ANY, 0 },
    { "secret rm", "SECRET...", "Remove secrets", NULL, "shoal secret rm password", cmd_secret_rm, 1, CLI_ANY, 0 },
    { "config ls", "", "List the configs", ls_flags, "shoal config ls", cmd_config_ls, 0, 0, 0 },
    { "config create", "NAME FILE|-", "Create a config from a file or the standard input", data_flags,
      "shoal config create site site.conf", cmd_config_create, 2, 2, 0 },
    { "config inspect", "CONFIG...", "Show all about configs", inspect_flags, "shoal config inspect site",
      cmd_config_inspect, 1, CLI_ANY, 0 },
    { "config rm", "CONFIG...", "Remove configs", NULL, "shoal config rm site", cmd_config_rm, 1, CLI_ANY, 0 },
    { 0 },
};
