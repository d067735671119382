/* The table of tasks: service ps, node ps and stack ps. Tasks of one slot stand together, newest first, older
 * ones marked with \_ as docker does; tasks wanted running come before others of their slot. */
#include "cli.h"
#include <shoal/base/file.h>

const struct cli_flag task_flags[] = {
    { "filter", 'f', CLI_LIST, "Only tasks with KEY=VALUE (name, node, desired-state, id, label)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "no-resolve", 0, CLI_BOOL, "Ids instead of names", NULL },
    { "no-trunc", 0, CLI_BOOL, "Whole ids, images and errors", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids of tasks", NULL },
    { 0 },
};

static const struct column columns[] = {
    { "ID", "ID", false },        { "NAME", "Name", false },
    { "IMAGE", "Image", false },  { "NODE", "Node", false },
    { "DESIRED STATE", "DesiredState", false }, { "CURRENT STATE", "CurrentState", false },
    { "ERROR", "Error", false },  { "PORTS", "Ports", false },
};

struct row { const struct val *task; char *name; };

static int by_slot_and_age(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    int64_t s = int_at(x->task, "Slot", 0), t = int_at(y->task, "Slot", 0), i = 0, k = 0;
    int d = strcmp(str_at(x->task, "ServiceID"), str_at(y->task, "ServiceID"));
    if (d)
        return strcmp(x->name, y->name) ? strcmp(x->name, y->name) : d;
    if (s != t)
        return s < t ? -1 : 1;
    if (!s && (d = strcmp(str_at(x->task, "NodeID"), str_at(y->task, "NodeID"))))
        return d;
    if (time_parse(str_at(x->task, "CreatedAt"), &i) < 0 || time_parse(str_at(y->task, "CreatedAt"), &k) < 0)
        return 0;
    return i > k ? -1 : i < k;
}

/* "web.1", of a global service "web.NODEID". */
static char *task_name(struct cli *c, const struct val *t, bool resolve)
{
    const char *id = str_at(t, "ServiceID");
    const char *service = resolve ? name_of_service(c, id) : id;
    int64_t slot = int_at(t, "Slot", 0);
    return slot ? xasprintf("%s.%lld", service, (long long)slot) : xasprintf("%s.%s", service, str_at(t, "NodeID"));
}

static void host_ports(struct sb *b, const struct val *ports)
{
    for (uint32_t i = 0; ports && ports->kind == V_LIST && i < ports->n; i++)
        sb_printf(b, "%s*:%lld->%lld/%s", b->len ? "," : "", (long long)int_at(ports->list[i], "PublishedPort", 0),
                  (long long)int_at(ports->list[i], "TargetPort", 0), str_at(ports->list[i], "Protocol"));
}

static void add_error(struct table *t, const char *why, bool whole)
{
    enum { SHOWN = 30 };
    if (!*why)
        table_add(t, "");
    else if (whole || strlen(why) <= SHOWN)
        table_addf(t, "\"%s\"", why);
    else
        table_addf(t, "\"%.*s…\"", SHOWN - 1, why);
}

static void add_row(struct cli *c, struct table *t, const struct row *row, bool older)
{
    const struct val *task = row->task;
    bool whole = cli_on(c, "no-trunc");
    const char *image = str_at(task, "Spec.ContainerSpec.Image"), *node = str_at(task, "NodeID");
    const char *digest = strchr(image, '@');
    char id[16], state[32], age[64];
    AUTO_SB struct sb ports;
    sb_init(&ports, 0);
    table_add(t, whole || cli_on(c, "quiet") ? str_at(task, "ID") : short_id(str_at(task, "ID"), id));
    table_addf(t, "%s%s", older ? " \\_ " : "", row->name);
    table_addf(t, "%.*s", digest && !whole ? (int)(digest - image) : (int)strlen(image), image);
    table_add(t, cli_on(c, "no-resolve") ? node : name_of_node(c, node));
    table_add(t, capital(str_at(task, "DesiredState"), state));
    units_ago_since(age, c->now_ns, str_at(task, "Status.Timestamp"));
    for (char *p = age; *p; p++) /* "Running about a minute ago" */
        if (p == age && *p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    table_addf(t, "%s %s", capital(str_at(task, "Status.State"), state), age);
    add_error(t, str_at(task, "Status.Err"), whole);
    host_ports(&ports, at(task, "Status.PortStatus.Ports"));
    table_add(t, ports.s);
}

int tasks_show(struct cli *c, const struct val *tasks, struct err *e)
{
    struct table t;
    uint32_t n = tasks->kind == V_LIST ? tasks->n : 0;
    struct row *rows = xcalloc(n + 1, sizeof *rows);
    table_init(&t, columns, ARRAY_N(columns));
    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct row){ tasks->list[i], task_name(c, tasks->list[i], !cli_on(c, "no-resolve")) };
    qsort(rows, n, sizeof *rows, by_slot_and_age);
    for (uint32_t i = 0; i < n; i++)
        add_row(c, &t, &rows[i], i && !strcmp(rows[i].name, rows[i - 1].name));
    int rc = table_show(c, &t, 0, e);
    table_done(&t);
    for (uint32_t i = 0; i < n; i++)
        free(rows[i].name);
    free(rows);
    return rc;
}
