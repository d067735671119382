/* What containers use: stats and top; what happened: events. */
#include "cli.h"
#include <shoal/base/file.h>
#include <shoal/http.h>

enum { BETWEEN_MS = 1000 };

static const struct cli_flag stats_flags[] = {
    { "all", 'a', CLI_BOOL, "Also containers that do not run", NULL },
    { "no-stream", 0, CLI_BOOL, "Print one table and end", NULL },
    { "no-trunc", 0, CLI_BOOL, "Whole ids", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { 0 },
};
static const struct cli_flag events_flags[] = {
    { "filter", 'f', CLI_LIST, "Only events with KEY=VALUE (type, event, container, image, label, ...)", NULL },
    { "since", 0, CLI_STR, "Also those since a time (RFC 3339, unix, or an age as in 10m)", NULL },
    { "until", 0, CLI_STR, "End at a time", NULL },
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { 0 },
};
static const struct column columns[] = {
    { "CONTAINER ID", "ID", false }, { "NAME", "Name", false },   { "CPU %", "CPUPerc", false },     { "MEM USAGE / LIMIT", "MemUsage", false },
    { "MEM %", "MemPerc", false },   { "NET I/O", "NetIO", false }, { "BLOCK I/O", "BlockIO", false }, { "PIDS", "PIDs", false },
};

/* ---- stats ---- */
static int one_sample(struct cli *c, const char *id, struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb path;
    container_path(&path, id, "/stats?stream=0&one-shot=1");
    return cli_get(c, ret, e, "%s", path.s);
}

static double cpu_percent(const struct val *now, const struct val *before)
{
    double used = (double)(int_at(now, "cpu_stats.cpu_usage.total_usage", 0) - int_at(before, "cpu_stats.cpu_usage.total_usage", 0)),
           all = (double)(int_at(now, "cpu_stats.system_cpu_usage", 0) - int_at(before, "cpu_stats.system_cpu_usage", 0));
    return used > 0 && all > 0 ? used / all * (double)int_at(now, "cpu_stats.online_cpus", 1) * 100 : 0;
}

/* As the docker client counts: without what the kernel would give back at once. */
static int64_t memory_used(const struct val *v)
{
    int64_t usage = int_at(v, "memory_stats.usage", 0), idle = int_at(v, "memory_stats.stats.total_inactive_file", -1);
    if (idle < 0)
        idle = int_at(v, "memory_stats.stats.inactive_file", 0);
    return idle < usage ? usage - idle : usage;
}

static void add_pair(struct table *t, int64_t a, int64_t b, bool binary)
{
    char x[32], y[32];
    units_bytes(x, a, binary);
    units_bytes(y, b, binary);
    table_addf(t, "%s / %s", x, y);
}

static void add_stats(struct cli *c, struct table *t, const struct val *now, const struct val *before)
{
    char id[16];
    int64_t rx = 0, tx = 0, in = 0, out = 0, used = memory_used(now), limit = int_at(now, "memory_stats.limit", 0);
    const char *name = str_at(now, "name");
    const struct val *nets = val_get(now, "networks"), *ios = at(now, "blkio_stats.io_service_bytes_recursive");
    for (uint32_t i = 0; nets && nets->kind == V_MAP && i < nets->n; i++) {
        rx += int_at(nets->map[i].value, "rx_bytes", 0);
        tx += int_at(nets->map[i].value, "tx_bytes", 0);
    }
    for (uint32_t i = 0; ios && ios->kind == V_LIST && i < ios->n; i++) {
        const char *op = str_at(ios->list[i], "op");
        in += *op == 'r' || *op == 'R' ? int_at(ios->list[i], "value", 0) : 0;
        out += *op == 'w' || *op == 'W' ? int_at(ios->list[i], "value", 0) : 0;
    }
    table_add(t, cli_on(c, "no-trunc") ? str_at(now, "id") : short_id(str_at(now, "id"), id));
    table_add(t, name + (*name == '/'));
    table_addf(t, "%.2f%%", before ? cpu_percent(now, before) : 0);
    add_pair(t, used, limit, true);
    table_addf(t, "%.2f%%", limit ? 100.0 * (double)used / (double)limit : 0);
    add_pair(t, rx, tx, false);
    add_pair(t, in, out, false);
    table_addf(t, "%lld", (long long)int_at(now, "pids_stats.current", 0));
}

static int containers_of(struct cli *c, struct strs *ids, struct err *e)
{
    struct val_doc *d = NULL;
    for (uint32_t i = 0; i < c->args.n; i++)
        strs_add(ids, c->args.v[i]);
    if (c->args.n)
        return 0;
    int rc = cli_get(c, &d, e, "/containers/json%s", cli_on(c, "all") ? "?all=1" : "");
    for (uint32_t i = 0; rc == 0 && val_root(d)->kind == V_LIST && i < val_root(d)->n; i++)
        strs_add(ids, str_at(val_root(d)->list[i], "Id"));
    val_doc_free(d);
    return rc;
}

static const struct val *sample_of(struct val_doc *const *v, uint32_t n, const char *id)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i] && !strcmp(str_at(val_root(v[i]), "id"), id))
            return val_root(v[i]);
    return NULL;
}

struct samples { struct val_doc **v; uint32_t n; };

static void samples_free(struct samples *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        val_doc_free(s->v[i]);
    free(s->v);
    *s = (struct samples){ 0 };
}

static int sample_all(struct cli *c, struct samples *ret, struct err *e)
{
    struct strs ids = { 0 };
    int rc = containers_of(c, &ids, e);
    *ret = (struct samples){ xcalloc((size_t)ids.n + 1, sizeof *ret->v), ids.n };
    for (uint32_t i = 0; i < ids.n && rc == 0; i++) {
        rc = one_sample(c, ids.v[i], &ret->v[i], e);
        if (rc == -E_NOT_FOUND && !c->args.n) /* it was removed meanwhile */
            rc = 0;
    }
    strs_clear(&ids);
    return rc;
}

static int cmd_stats(struct cli *c, struct err *e)
{
    struct samples before, now;
    int rc = sample_all(c, &before, e);
    while (rc == 0 && !term_interrupted()) {
        struct table t;
        term_pause_ms(BETWEEN_MS);
        rc = sample_all(c, &now, e);
        table_init(&t, columns, ARRAY_N(columns));
        for (uint32_t i = 0; rc == 0 && i < now.n; i++)
            if (now.v[i])
                add_stats(c, &t, val_root(now.v[i]), sample_of(before.v, before.n, str_at(val_root(now.v[i]), "id")));
        if (rc == 0 && c->tty && !cli_on(c, "no-stream"))
            fputs("\033[2J\033[H", c->out);
        if (rc == 0)
            rc = table_show(c, &t, 0, e);
        fflush(c->out);
        table_done(&t);
        samples_free(&before);
        before = now;
        if (cli_on(c, "no-stream"))
            break;
    }
    samples_free(&before);
    return rc;
}

/* ---- top ---- */
static void put_row(struct table *t, const struct val *row)
{
    for (uint32_t i = 0; i < t->n_cols; i++)
        table_add(t, row->kind == V_LIST && i < row->n && row->list[i]->kind == V_STR ? row->list[i]->s : NULL);
}

static int cmd_top(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path, args;
    struct val_doc *d = NULL;
    sb_init(&args, 0);
    for (uint32_t i = 1; i < c->args.n; i++)
        sb_printf(&args, "%s%s", i > 1 ? " " : "", c->args.v[i]);
    container_path(&path, cli_arg(c, 0), "/top");
    if (args.len)
        add_query(&path, "ps_args", args.s);
    int rc = cli_get(c, &d, e, "%s", path.s);
    const struct val *titles = rc == 0 ? val_get(val_root(d), "Titles") : NULL, *rows = rc == 0 ? val_get(val_root(d), "Processes") : NULL;
    if (titles && titles->kind == V_LIST) {
        struct column *cols = xcalloc((size_t)titles->n + 1, sizeof *cols);
        struct table t;
        for (uint32_t i = 0; i < titles->n; i++)
            cols[i] = (struct column){ titles->list[i]->kind == V_STR ? titles->list[i]->s : "", "", false };
        table_init(&t, cols, titles->n);
        for (uint32_t i = 0; rows && rows->kind == V_LIST && i < rows->n; i++)
            put_row(&t, rows->list[i]);
        table_print(&t, c->out);
        table_done(&t);
        free(cols);
    }
    val_doc_free(d);
    return rc;
}

/* ---- events ---- */
struct watching { struct cli *c; struct sb held; bool json; };

static void print_event(struct watching *w, const char *line, size_t size)
{
    char time[48];
    struct val_doc *d;
    if (w->json) {
        fprintf(w->c->out, "%.*s\n", (int)size, line);
        return;
    }
    if (json_parse(&d, line, size, "event", NULL) < 0)
        return;
    const struct val *v = val_root(d), *a = at(v, "Actor.Attributes");
    time_format(time, int_at(v, "timeNano", 0));
    fprintf(w->c->out, "%s %s %s %s", time, str_at(v, "Type"), str_at(v, "Action"), str_at(v, "Actor.ID"));
    for (uint32_t i = 0; a && a->kind == V_MAP && i < a->n; i++)
        fprintf(w->c->out, "%s%s=%s", i ? ", " : " (", a->map[i].key->s, a->map[i].value->kind == V_STR ? a->map[i].value->s : "");
    fputs(a && a->n ? ")\n" : "\n", w->c->out);
    val_doc_free(d);
}

static int on_events(void *arg, const char *p, size_t size, struct err *e)
{
    struct watching *w = arg;
    size_t at = 0;
    (void)e;
    sb_add(&w->held, p, size);
    for (const char *nl; (nl = memchr(w->held.s + at, '\n', w->held.len - at)); at = (size_t)(nl - w->held.s) + 1)
        print_event(w, w->held.s + at, (size_t)(nl - w->held.s) - at);
    sb_drop_front(&w->held, at);
    fflush(w->c->out);
    return 0;
}

static int cmd_events(struct cli *c, struct err *e)
{
    static const char *const times[] = { "since", "until" };
    AUTO_SB struct sb path;
    enum format format;
    struct watching w = { .c = c };
    sb_init(&path, 0);
    sb_str(&path, "/events");
    int rc = format_of(c, &format, e);
    if (rc == 0)
        rc = filters_from_flags(c, &path, NULL, NULL, e);
    for (unsigned i = 0; rc == 0 && i < ARRAY_N(times); i++) {
        char unix_time[48];
        if (!cli_str(c, times[i]))
            continue;
        if (units_time_flag(cli_str(c, times[i]), c->now_ns, unix_time) < 0)
            rc = cli_usage(c, e, "--%s %s: must be a time or an age such as 10m", times[i], cli_str(c, times[i]));
        else
            add_query(&path, times[i], unix_time);
    }
    if (rc < 0)
        return rc;
    w.json = format == FORMAT_JSON;
    sb_init(&w.held, 0);
    struct cli_stream s = { .method = "GET", .path = path.s, .upload = -1, .data = on_events, .arg = &w };
    rc = cli_stream(c, &s, e);
    sb_done(&w.held);
    return rc;
}

const struct cli_command usage_commands[] = {
    { "stats", "[CONTAINER...]", "Show what containers of this node use", stats_flags, "shoal stats --no-stream", cmd_stats, 0, CLI_ANY, 0 },
    { "top", "CONTAINER [PS-OPTION...]", "List the processes of a container", NULL, "shoal top web -o pid,args", cmd_top, 1, CLI_ANY,
      CLI_REST },
    { "events", "", "Show what happens on this node", events_flags, "shoal events --since 10m -f type=container", cmd_events, 0, 0, 0 },
    { 0 },
};
