/* Logs of containers and services. For services the daemon sends with details=1 lines such as
 * "com.docker.swarm.node.id=..,com.docker.swarm.task.id=.. text"; they are shown as "web.1.TASK@node    | text". */
#include "cli.h"
#include <shoal/base/map.h>
#include <shoal/http.h>

const struct cli_flag log_flags[] = {
    { "follow", 'f', CLI_BOOL, "Go on with new lines", NULL },
    { "tail", 'n', CLI_STR, "Only the last N lines, or all", NULL },
    { "since", 0, CLI_STR, "Only lines after this time (RFC 3339, unix time, or 42m for 42 minutes ago)", NULL },
    { "until", 0, CLI_STR, "Only lines before this time", NULL },
    { "timestamps", 't', CLI_BOOL, "Show the time of each line", NULL },
    { 0 },
};

static int add_time(struct cli *c, struct sb *path, const char *flag, struct err *e)
{
    char unix_time[48];
    const char *s = cli_has(c, flag) ? cli_str(c, flag) : NULL;
    if (!s)
        return 0;
    if (units_time_flag(s, c->now_ns, unix_time) < 0)
        return cli_usage(c, e, "--%s %s: must be a time such as 2026-01-02T15:04:05Z, or 42m", flag, s);
    add_query(path, flag, unix_time);
    return 0;
}

int logs_query(struct cli *c, struct sb *path, struct err *e)
{
    const char *tail = cli_str(c, "tail");
    uint64_t n;
    add_query(path, "stdout", "1");
    add_query(path, "stderr", "1");
    if (cli_on(c, "follow"))
        add_query(path, "follow", "1");
    if (cli_on(c, "timestamps"))
        add_query(path, "timestamps", "1");
    if (tail && strcmp(tail, "all") && !str_u64(tail, 0, INT64_MAX, &n))
        return cli_usage(c, e, "--tail %s: must be a number or all", tail);
    add_query(path, "tail", tail ? tail : "all");
    int rc = add_time(c, path, "since", e);
    return rc == 0 ? add_time(c, path, "until", e) : rc;
}

/* ---- one container ---- */
struct plain { struct frames frames; bool tty; struct cli *c; };

static int print_plain(void *arg, int stream, const char *p, size_t size, struct err *e)
{
    struct plain *l = arg;
    FILE *f = stream == 2 ? l->c->err : l->c->out;
    (void)e;
    fwrite(p, 1, size, f);
    fflush(f);
    return 0;
}

static int plain_data(void *arg, const char *p, size_t size, struct err *e)
{
    struct plain *l = arg;
    return l->tty ? print_plain(l, 1, p, size, e) : frames_take(&l->frames, p, size, print_plain, l, e);
}

int show_container_logs(struct cli *c, const char *id, const char *path, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = cli_get(c, &d, e, "/containers/%s/json", id);
    if (rc < 0)
        return rc;
    struct plain l = { .c = c, .tty = val_get_bool(at(val_root(d), "Config"), "Tty", false) };
    val_doc_free(d);
    sb_init(&l.frames.buf, 0);
    struct cli_stream s = { .method = "GET", .path = path, .upload = -1, .data = plain_data, .arg = &l };
    rc = cli_stream(c, &s, e);
    sb_done(&l.frames.buf);
    return rc;
}

/* ---- a service ---- */
struct tagged { struct frames frames; struct cli *c; struct map names; unsigned width; bool raw; };

static char *detail(const char *s, size_t len, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = s, *end = s + len; p < end;) {
        const char *stop = memchr(p, ',', (size_t)(end - p));
        size_t size = (size_t)((stop ? stop : end) - p);
        if (size > n && !strncmp(p, key, n) && p[n] == '=') {
            char *v = xstrndup(p + n + 1, size - n - 1);
            http_decode(v, true);
            return v;
        }
        p += size + 1;
    }
    return NULL;
}

/* "web.1.ab12cd34ef56@node-1": asked once a task. */
static const char *task_label(struct tagged *l, const char *task, const char *node)
{
    char *name = map_find(&l->names, task);
    struct val_doc *d = NULL;
    struct err ignored;
    char id[16];
    if (name)
        return name;
    if (cli_get(l->c, &d, &ignored, "/tasks/%s", task) == 0) {
        const char *service = name_of_service(l->c, str_at(val_root(d), "ServiceID"));
        int64_t slot = int_at(val_root(d), "Slot", 0);
        name = slot ? xasprintf("%s.%lld.%s@%s", service, (long long)slot, short_id(task, id),
                                name_of_node(l->c, node))
                    : xasprintf("%s.%s@%s", service, short_id(task, id), name_of_node(l->c, node));
    } else {
        name = xasprintf("%s@%s", short_id(task, id), name_of_node(l->c, node));
    }
    l->c->refused = false;
    val_doc_free(d);
    l->width = MAX(l->width, (unsigned)strlen(name));
    map_put(&l->names, task, name);
    return name;
}

static int print_tagged(void *arg, int stream, const char *p, size_t size, struct err *e)
{
    struct tagged *l = arg;
    FILE *f = stream == 2 ? l->c->err : l->c->out;
    const char *stamp = "", *details = p, *end = p + size;
    size_t stamp_len = 0;
    (void)e;
    if (cli_on(l->c, "timestamps")) {
        const char *sp = memchr(p, ' ', size);
        stamp_len = sp ? (size_t)(sp - p) + 1 : 0;
        stamp = p;
        details = p + stamp_len;
    }
    const char *text = memchr(details, ' ', (size_t)(end - details));
    AUTO_FREE char *task = detail(details, text ? (size_t)(text - details) : 0, "com.docker.swarm.task.id");
    AUTO_FREE char *node = detail(details, text ? (size_t)(text - details) : 0, "com.docker.swarm.node.id");
    text = task ? text + 1 : details; /* a line without details is shown as it is */
    fwrite(stamp, 1, stamp_len, f);
    if (task && !l->raw) {
        const char *label = task_label(l, task, node);
        fprintf(f, "%-*s    | ", (int)l->width, label);
    }
    fwrite(text, 1, (size_t)(end - text), f);
    if (end == text || end[-1] != '\n')
        fputc('\n', f);
    fflush(f);
    return 0;
}

static int tagged_data(void *arg, const char *p, size_t size, struct err *e)
{
    struct tagged *l = arg;
    return frames_take(&l->frames, p, size, print_tagged, l, e);
}

int show_service_logs(struct cli *c, const char *path, struct err *e)
{
    struct tagged l = { .c = c, .raw = cli_on(c, "raw") };
    map_init(&l.names);
    sb_init(&l.frames.buf, 0);
    struct cli_stream s = { .method = "GET", .path = path, .upload = -1, .data = tagged_data, .arg = &l };
    int rc = cli_stream(c, &s, e);
    sb_done(&l.frames.buf);
    for (struct map_item *it = NULL; (it = map_next(&l.names, it));)
        free(it->value);
    map_done(&l.names);
    return rc;
}
