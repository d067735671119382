/* What is not used any more goes, and what there is: container, network, volume and system prune, system df; volumes. */
#include "cli.h"
#include <shoal/base/file.h>
#include <shoal/http.h>

static const struct cli_flag prune_flags[] = {
    { "filter", 0, CLI_LIST, "Only those with KEY=VALUE (until, label, label!)", NULL },
    { "force", 'f', CLI_BOOL, "Do not ask", NULL },
    { 0 },
};
static const struct cli_flag volume_prune_flags[] = {
    { "all", 'a', CLI_BOOL, "Also those with a name", NULL },
    { "filter", 0, CLI_LIST, "Only those with KEY=VALUE (label, label!)", NULL },
    { "force", 'f', CLI_BOOL, "Do not ask", NULL },
    { 0 },
};
static const struct cli_flag system_prune_flags[] = {
    { "all", 'a', CLI_BOOL, "All images that no container uses, not only those without a name", NULL },
    { "volumes", 0, CLI_BOOL, "Also volumes without a name", NULL },
    { "filter", 0, CLI_LIST, "Only those with KEY=VALUE (until, label, label!)", NULL },
    { "force", 'f', CLI_BOOL, "Do not ask", NULL },
    { 0 },
};
static const struct cli_flag df_flags[] = {
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { 0 },
};
static const struct cli_flag ls_flags[] = {
    { "filter", 'f', CLI_LIST, "Only those with KEY=VALUE (name, label, driver, dangling)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only names", NULL },
    { 0 },
};
static const struct cli_flag create_flags[] = {
    { "label", 0, CLI_LIST, "Label, KEY=VALUE", NULL },
    { 0 },
};
static const struct cli_flag inspect_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { 0 },
};
static const struct cli_flag rm_flags[] = {
    { "force", 'f', CLI_BOOL, "No error when there is none", NULL },
    { 0 },
};

/* ---- prune ---- */
static int ask(struct cli *c, const char *question, struct err *e)
{
    if (cli_on(c, "force"))
        return 0;
    return term_is_tty(0) ? term_confirm(c, question, e)
                          : cli_usage(c, e, "there is no terminal to ask on; give --force if that is meant");
}

static void print_removed(struct cli *c, const char *heading, const struct val *list)
{
    if (!list || list->kind != V_LIST || !list->n)
        return;
    fprintf(c->out, "%s:\n", heading);
    for (uint32_t i = 0; i < list->n; i++) {
        const struct val *v = list->list[i];
        const char *gone = v->kind == V_STR ? v->s : str_at(v, "Deleted"), *untagged = v->kind == V_STR ? "" : str_at(v, "Untagged");
        fprintf(c->out, "%s%s\n", *untagged ? "untagged: " : "", *untagged ? untagged : gone);
    }
    fputc('\n', c->out);
}

/* One kind; adds to *bytes what it gave back. */
static int prune(struct cli *c, const char *kind, const char *key, const char *heading, const char *extra, const char *value, int64_t *bytes,
                 struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    sb_init(&path, 0);
    sb_printf(&path, "/%s/prune", kind);
    int rc = filters_from_flags(c, &path, extra, value, e);
    if (rc == 0)
        rc = cli_call(c, "POST", path.s, NULL, &d, e);
    if (rc == 0 && d) {
        print_removed(c, heading, val_get(val_root(d), key));
        *bytes += int_at(val_root(d), "SpaceReclaimed", 0);
    }
    val_doc_free(d);
    return rc;
}

static void print_sum(struct cli *c, int64_t bytes)
{
    char size[32];
    units_bytes(size, bytes, false);
    fprintf(c->out, "Total reclaimed space: %s\n", size);
}

static int cmd_container_prune(struct cli *c, struct err *e)
{
    int64_t bytes = 0;
    int rc = ask(c, "Remove all containers that do not run?", e);
    if (rc == 0)
        rc = prune(c, "containers", "ContainersDeleted", "Deleted Containers", NULL, NULL, &bytes, e);
    if (rc == 0)
        print_sum(c, bytes);
    return rc;
}

static int cmd_network_prune(struct cli *c, struct err *e)
{
    int64_t bytes = 0;
    int rc = ask(c, "Remove all networks that nothing uses?", e);
    return rc == 0 ? prune(c, "networks", "NetworksDeleted", "Deleted Networks", NULL, NULL, &bytes, e) : rc;
}

static int cmd_volume_prune(struct cli *c, struct err *e)
{
    int64_t bytes = 0;
    bool all = cli_on(c, "all");
    int rc = ask(c, all ? "Remove all volumes that no container uses?" : "Remove all volumes without a name that no container uses?", e);
    if (rc == 0)
        rc = prune(c, "volumes", "VolumesDeleted", "Deleted Volumes", all ? "all" : NULL, "true", &bytes, e);
    if (rc == 0)
        print_sum(c, bytes);
    return rc;
}

static int cmd_system_prune(struct cli *c, struct err *e)
{
    int64_t bytes = 0;
    bool all = cli_on(c, "all"), volumes = cli_on(c, "volumes");
    const struct strs *filters = cli_list(c, "filter");
    for (uint32_t i = 0; volumes && i < filters->n; i++) /* volumes have no age: refused before anything is removed */
        if (str_starts(filters->v[i], "until="))
            return cli_usage(c, e, "the filter until does not go together with --volumes");
    AUTO_FREE char *question = xasprintf("Remove stopped containers, networks that nothing uses, %s%s?",
                                         volumes ? "volumes without a name that no container uses, " : "",
                                         all ? "and all images that no container uses" : "and images without a name");
    int rc = ask(c, question, e);
    if (rc == 0)
        rc = prune(c, "containers", "ContainersDeleted", "Deleted Containers", NULL, NULL, &bytes, e);
    if (rc == 0)
        rc = prune(c, "networks", "NetworksDeleted", "Deleted Networks", NULL, NULL, &bytes, e);
    if (rc == 0 && volumes)
        rc = prune(c, "volumes", "VolumesDeleted", "Deleted Volumes", NULL, NULL, &bytes, e);
    if (rc == 0)
        rc = prune(c, "images", "ImagesDeleted", "Deleted Images", "dangling", all ? "false" : "true", &bytes, e);
    if (rc == 0)
        print_sum(c, bytes);
    return rc;
}

/* ---- df ---- */
struct sum { int64_t n, used, bytes, free; };

static void add_sum(struct table *t, const char *name, const struct sum *s)
{
    char size[32], spare[32];
    units_bytes(size, s->bytes, false);
    units_bytes(spare, s->free, false);
    table_add(t, name);
    table_addf(t, "%lld", (long long)s->n);
    table_addf(t, "%lld", (long long)s->used);
    table_add(t, size);
    table_addf(t, "%s (%lld%%)", spare, (long long)(s->bytes ? s->free * 100 / s->bytes : 0));
}

static struct sum sum_of(const struct val *list, const char *size, const char *users, const char *up)
{
    struct sum s = { 0 };
    for (uint32_t i = 0; list && list->kind == V_LIST && i < list->n; i++) {
        const struct val *v = list->list[i];
        const char *state = str_at(v, "State");
        bool used = users ? int_at(v, users, 0) > 0 : !strcmp(state, up) || !strcmp(state, "paused") || !strcmp(state, "restarting");
        s.n++;
        s.used += used;
        s.bytes += int_at(v, size, 0);
        s.free += used ? 0 : int_at(v, size, 0);
    }
    return s;
}

static int cmd_df(struct cli *c, struct err *e)
{
    static const struct column columns[] = { { "TYPE", "Type", false }, { "TOTAL", "TotalCount", false }, { "ACTIVE", "Active", false },
                                             { "SIZE", "Size", false }, { "RECLAIMABLE", "Reclaimable", false } };
    struct val_doc *d = NULL;
    struct table t;
    int rc = cli_get(c, &d, e, "/system/df");
    if (rc < 0)
        return rc;
    struct sum images = sum_of(val_get(val_root(d), "Images"), "Size", "Containers", NULL),
               containers = sum_of(val_get(val_root(d), "Containers"), "SizeRw", NULL, "running"),
               volumes = sum_of(val_get(val_root(d), "Volumes"), "UsageData.Size", "UsageData.RefCount", NULL);
    images.bytes = int_at(val_root(d), "LayersSize", images.bytes);
    images.free = MIN(images.free, images.bytes);
    table_init(&t, columns, ARRAY_N(columns));
    add_sum(&t, "Images", &images);
    add_sum(&t, "Containers", &containers);
    add_sum(&t, "Local Volumes", &volumes);
    rc = table_show(c, &t, 0, e);
    table_done(&t);
    val_doc_free(d);
    return rc;
}

/* ---- volumes ---- */
static int cmd_volume_ls(struct cli *c, struct err *e)
{
    static const struct column columns[] = { { "VOLUME NAME", "Name", false }, { "DRIVER", "Driver", false }, { NULL, "Mountpoint", false } };
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    struct table t;
    sb_init(&path, 0);
    sb_str(&path, "/volumes");
    int rc = filters_from_flags(c, &path, NULL, NULL, e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "%s", path.s);
    if (rc < 0)
        return rc;
    const struct val *l = val_get(val_root(d), "Volumes");
    table_init(&t, columns, ARRAY_N(columns));
    for (uint32_t i = 0; l && l->kind == V_LIST && i < l->n; i++) {
        table_add(&t, str_at(l->list[i], "Name"));
        table_add(&t, str_at(l->list[i], "Driver"));
        table_add(&t, str_at(l->list[i], "Mountpoint"));
    }
    rc = table_show(c, &t, 0, e);
    table_done(&t);
    val_doc_free(d);
    return rc;
}

static int cmd_volume_create(struct cli *c, struct err *e)
{
    struct val_doc *d = val_doc_new(), *reply = NULL;
    struct val *m = val_map(d), *map = val_map(d);
    struct labels labels = { 0 };
    AUTO_SB struct sb body;
    int rc = 0;
    sb_init(&body, 0);
    for (uint32_t i = 0; rc == 0 && i < cli_list(c, "label")->n; i++)
        rc = value_label(&labels, cli_list(c, "label")->v[i], e);
    for (uint32_t i = 0; i < labels.n; i++)
        val_set(d, map, labels.v[i].key, val_str(d, labels.v[i].value));
    if (cli_arg(c, 0))
        val_set(d, m, "Name", val_str(d, cli_arg(c, 0)));
    val_set(d, m, "Labels", map);
    json_write(&body, m, 0);
    if (rc == 0)
        rc = cli_call(c, "POST", "/volumes/create", body.s, &reply, e);
    if (rc == 0 && reply)
        fprintf(c->out, "%s\n", str_at(val_root(reply), "Name"));
    labels_clear(&labels);
    val_doc_free(reply);
    val_doc_free(d);
    return rc;
}

static int cmd_volume_inspect(struct cli *c, struct err *e)
{
    static const char *const paths[] = { "/volumes/*", NULL };
    return format_inspect(c, "volume", paths, e);
}

static int cmd_volume_rm(struct cli *c, struct err *e)
{
    return delete_each(c, "volumes", cli_on(c, "force") ? "?force=1" : "", e);
}

const struct cli_command prune_commands[] = {
    { "container prune", "", "Remove the containers that do not run", prune_flags, "shoal container prune --force", cmd_container_prune, 0, 0, 0 },
    { "network prune", "", "Remove networks that nothing uses", prune_flags, "shoal network prune --force", cmd_network_prune, 0, 0, 0 },
    { "volume ls", "", "List the volumes of this node", ls_flags, "shoal volume ls", cmd_volume_ls, 0, 0, 0 },
    { "volume create", "[NAME]", "Create a volume", create_flags, "shoal volume create data", cmd_volume_create, 0, 1, 0 },
    { "volume inspect", "VOLUME...", "Show all about volumes", inspect_flags, "shoal volume inspect data", cmd_volume_inspect, 1, CLI_ANY, 0 },
    { "volume rm", "VOLUME...", "Remove volumes", rm_flags, "shoal volume rm data", cmd_volume_rm, 1, CLI_ANY, 0 },
    { "volume prune", "", "Remove volumes that no container uses", volume_prune_flags, "shoal volume prune --force", cmd_volume_prune, 0, 0, 0 },
    { "system df", "", "Show what images, containers and volumes take of the disk", df_flags, "shoal system df", cmd_df, 0, 0, 0 },
    { "system prune", "", "Remove all that is not used", system_prune_flags, "shoal system prune --force", cmd_system_prune, 0, 0, 0 },
    { 0 },
};
