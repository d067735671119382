/* Waiting until services run as wanted, and saying why they do not yet. converge_look() judges one look at
 * service, up-to-date tasks and nodes (pure, as docker's progress does: running slots on nodes that are not
 * down, held for the monitor period); converge_wait() looks, prints and pauses. */
#include "cli.h"
#include <shoal/base/file.h>

/* Waiting for a node that can take a task, or for a task that is refused again and again, ends with the reason. */
enum { LOOK_MS = 400, WAITS_MS = 5000, REFUSALS_MAX = 3 };
#define LOST_MAX_NS (30 * SEC_NS)

static const struct val *find_id(const struct val *list, const char *id)
{
    for (uint32_t i = 0; list && list->kind == V_LIST && i < list->n; i++)
        if (!strcmp(str_at(list->list[i], "ID"), id))
            return list->list[i];
    return NULL;
}

static bool wanted_gone(const struct val *task)
{
    const char *d = str_at(task, "DesiredState");
    return strcmp(d, "running") && strcmp(d, "ready") && strcmp(d, "complete");
}

/* Newest first: the reason that counts is that of the last try. */
static bool newer(const struct val *a, const struct val *b)
{
    int64_t i = 0, k = 0;
    return !b || (time_parse(str_at(a, "Status.Timestamp"), &i) == 0 &&
                  time_parse(str_at(b, "Status.Timestamp"), &k) == 0 && i >= k);
}

static int64_t wanted_tasks(const struct val *service, const struct val *nodes)
{
    const struct val *r = at(service, "Spec.Mode.Replicated");
    if (r)
        return int_at(r, "Replicas", 1);
    int64_t n = int_at(service, "ServiceStatus.DesiredTasks", -1);
    return n >= 0 ? n : nodes && nodes->kind == V_LIST ? nodes->n : 0;
}

struct tally {
    int64_t running, waiting, moving; /* wanted tasks: running, without a node that could take them, on the way */
    const struct val *why, *busy, *homeless, *rejected; /* the newest of each kind */
};

static void look_at_tasks(const struct val *tasks, const char *id, const struct val *nodes, struct tally *n)
{
    for (uint32_t i = 0; tasks->kind == V_LIST && i < tasks->n; i++) {
        const struct val *t = tasks->list[i];
        const char *state = str_at(t, "Status.State");
        if (strcmp(str_at(t, "ServiceID"), id))
            continue;
        if (*str_at(t, "Status.Err") && newer(t, n->why))
            n->why = t;
        if (!strcmp(state, "rejected") && newer(t, n->rejected))
            n->rejected = t;
        if (wanted_gone(t))
            continue;
        const struct val *node = find_id(nodes, str_at(t, "NodeID"));
        if (!strcmp(state, "running")) {
            n->running += !node || strcmp(str_at(node, "Status.State"), "down");
            continue;
        }
        if (newer(t, n->busy))
            n->busy = t;
        bool waits = !strcmp(state, "pending") && *str_at(t, "Status.Err");
        n->waiting += waits;
        n->moving += !waits;
        if (waits)
            n->homeless = t;
    }
}

static unsigned rejections(const struct val *tasks, const struct val *like)
{
    unsigned n = 0;
    for (uint32_t i = 0; tasks->kind == V_LIST && i < tasks->n; i++)
        n += !strcmp(str_at(tasks->list[i], "Status.State"), "rejected") &&
             !strcmp(str_at(tasks->list[i], "ServiceID"), str_at(like, "ServiceID")) &&
             int_at(tasks->list[i], "Slot", 0) == int_at(like, "Slot", 0);
    return n;
}

/* What will not change by itself, as far as one look can say. */
static void judge_stuck(struct converge_view *v, const struct tally *n, const struct val *tasks, const char *name)
{
    v->waits = n->waiting && !n->moving;
    v->refusals = n->rejected ? rejections(tasks, n->rejected) : 0;
    if (v->reason[0])
        return;
    if (v->waits)
        snprintf(v->reason, sizeof v->reason, "no node can take task %s.%lld: %s", name,
                 (long long)int_at(n->homeless, "Slot", 0), str_at(n->homeless, "Status.Err"));
    else if (v->refusals)
        snprintf(v->reason, sizeof v->reason, "task %s.%lld cannot start: %s", name,
                 (long long)int_at(n->rejected, "Slot", 0), str_at(n->rejected, "Status.Err"));
}

void converge_look(struct converge_view *v, const struct val *service, const struct val *tasks,
                   const struct val *nodes)
{
    struct tally n = { 0 };
    const char *id = str_at(service, "ID"), *name = str_at(service, "Spec.Name");
    const char *update = str_at(service, "UpdateStatus.State");
    int64_t wanted = wanted_tasks(service, nodes);
    *v = (struct converge_view){ .monitor_ns = int_at(service, "Spec.UpdateConfig.Monitor", 0) };
    if (!v->monitor_ns)
        v->monitor_ns = 5 * SEC_NS;
    look_at_tasks(tasks, id, nodes, &n);
    v->failed = !strcmp(update, "paused") || !strcmp(update, "rollback_paused");
    v->updating = !strcmp(update, "updating");
    v->back = str_starts(update, "rollback");
    bool moving = v->updating || !strcmp(update, "rollback_started");
    v->steady = n.running == wanted && !v->failed && !moving;
    int len = snprintf(v->line, sizeof v->line, "%s  %lld/%lld running", name, (long long)n.running, (long long)wanted);
    if (moving || v->failed)
        len += snprintf(v->line + len, sizeof v->line - (size_t)len, " (%s)", update);
    size_t left = sizeof v->line - (size_t)len;
    if (n.running != wanted && n.why)
        snprintf(v->line + len, left, ": task %s.%lld: %s", name, (long long)int_at(n.why, "Slot", 0),
                 str_at(n.why, "Status.Err"));
    else if (n.running != wanted && n.busy)
        snprintf(v->line + len, left, ": task %s.%lld: %s", name, (long long)int_at(n.busy, "Slot", 0),
                 str_at(n.busy, "Status.State"));
    if (v->failed)
        snprintf(v->reason, sizeof v->reason, "the update of service %s stopped (%s): %s", name, update,
                 str_at(service, "UpdateStatus.Message"));
    else if (v->back)
        snprintf(v->reason, sizeof v->reason, "the update of service %s failed and was rolled back: %s", name,
                 str_at(service, "UpdateStatus.Message"));
    if (n.running < wanted)
        judge_stuck(v, &n, tasks, name);
}

struct watched {
    const char *id;
    struct converge_view view;
    char shown[400];
    int64_t steady_since, waits_since;
    bool updating;    /* was seen going forward: a way back is a failure then */
    char reason[400]; /* of the way back, from when it began */
};
struct wait { struct cli *c; struct watched *w; unsigned n; bool drawn; int64_t lost_since; };

static char *tasks_path(const struct wait *wt)
{
    AUTO_SB struct sb json, path;
    sb_init(&json, 0);
    sb_init(&path, 0);
    sb_str(&json, "{\"_up-to-date\":{\"true\":true},\"service\":{");
    for (unsigned i = 0; i < wt->n; i++) {
        sb_str(&json, i ? "," : "");
        sb_json_str(&json, wt->w[i].id, strlen(wt->w[i].id));
        sb_str(&json, ":true");
    }
    sb_str(&json, "}}");
    sb_str(&path, "/tasks");
    add_query(&path, "filters", json.s);
    return sb_take(&path);
}

/* On a terminal the lines are drawn again in place; elsewhere a line is printed when it changes. */
static void draw(struct wait *wt)
{
    FILE *f = wt->c->out;
    unsigned rows, cols;
    term_size(&rows, &cols);
    if (wt->c->tty && wt->drawn)
        fprintf(f, "\033[%uA", wt->n);
    for (unsigned i = 0; i < wt->n; i++) {
        struct watched *w = &wt->w[i];
        int width = wt->c->tty && cols > 1 ? (int)cols - 1 : (int)sizeof w->view.line;
        for (char *p = w->view.line; *p; p++) /* a task's error shall not move the cursor */
            if ((unsigned char)*p < 32 || *p == 127)
                *p = ' ';
        if (wt->c->tty)
            fprintf(f, "\r%.*s\033[K\n", width, w->view.line);
        else if (strcmp(w->shown, w->view.line))
            fprintf(f, "%s\n", w->view.line);
        memcpy(w->shown, w->view.line, sizeof w->shown);
    }
    wt->drawn = true;
    fflush(f);
}

static void hold_text(char line[400], int64_t hold_ns)
{
    size_t n = strlen(line);
    snprintf(line + n, 400 - n, "; watched for another %lld s", (long long)((hold_ns + SEC_NS - 1) / SEC_NS));
}

/* 1: not yet, 0: all converged. */
static int judge(struct wait *wt, struct val_doc *services, struct val_doc *tasks, struct val_doc *nodes,
                 struct err *e)
{
    int64_t now = term_mono_ns();
    int left = 0;
    for (unsigned i = 0; i < wt->n; i++) {
        struct watched *w = &wt->w[i];
        const struct val *s = find_id(val_root(services), w->id);
        if (!s)
            return err_set(e, E_NOT_FOUND, "service %s was removed in the meantime", w->id);
        converge_look(&w->view, s, val_root(tasks), val_root(nodes));
        if (!w->view.steady)
            w->steady_since = 0;
        else if (!w->steady_since)
            w->steady_since = now;
        if (!w->view.waits)
            w->waits_since = 0;
        else if (!w->waits_since)
            w->waits_since = now;
        w->updating |= w->view.updating;
        if (w->view.back && !w->reason[0])
            memcpy(w->reason, w->view.reason, sizeof w->reason);
        int64_t hold = w->view.steady ? w->steady_since + w->view.monitor_ns - now : 0;
        if (hold > 0 && wt->c->tty) /* says why it still waits */
            hold_text(w->view.line, hold);
        left |= !w->view.steady || hold > 0;
    }
    draw(wt);
    for (unsigned i = 0; i < wt->n; i++)
        if (wt->w[i].view.failed)
            return err_set(e, E_CONFLICT, "%s", wt->w[i].view.reason);
    for (unsigned i = 0; i < wt->n; i++)
        if ((wt->w[i].view.waits && now - wt->w[i].waits_since >= WAITS_MS * MS_NS) ||
            wt->w[i].view.refusals >= REFUSALS_MAX)
            return err_set(e, E_CONFLICT, "%s", wt->w[i].view.reason);
    for (unsigned i = 0; !left && i < wt->n; i++)
        if (wt->w[i].view.back && wt->w[i].updating)
            return err_set(e, E_CONFLICT, "%s", wt->w[i].reason);
    return left;
}

static int look(struct wait *wt, const char *tasks, struct err *e)
{
    struct val_doc *s = NULL, *t = NULL, *n = NULL;
    int rc = cli_get(wt->c, &s, e, "/services?status=true");
    if (rc == 0)
        rc = cli_get(wt->c, &t, e, "%s", tasks);
    if (rc == 0)
        rc = cli_get(wt->c, &n, e, "/nodes");
    if (rc == 0)
        rc = judge(wt, s, t, n, e);
    val_doc_free(s);
    val_doc_free(t);
    val_doc_free(n);
    return rc;
}

/* Is the error one that an election, or a daemon that starts again, explains? Then the wait goes on for a while. */
static bool will_pass(struct wait *wt, int rc)
{
    int64_t now = term_mono_ns();
    if (rc >= 0)
        wt->lost_since = 0;
    else if (!wt->lost_since)
        wt->lost_since = now;
    return (rc == -E_UNAVAILABLE || rc == -E_CLOSED) && now - wt->lost_since < LOST_MAX_NS;
}

int converge_wait(struct cli *c, const struct strs *ids, struct err *e)
{
    struct wait wt = { .c = c, .n = ids->n, .w = xcalloc(ids->n + 1, sizeof *wt.w) };
    int rc = ids->n > 0;
    for (unsigned i = 0; i < ids->n; i++)
        wt.w[i].id = ids->v[i];
    AUTO_FREE char *tasks = tasks_path(&wt);
    term_catch_interrupt();
    while (rc == 1 && !term_interrupted()) {
        rc = look(&wt, tasks, e);
        if (will_pass(&wt, rc))
            rc = 1;
        if (rc == 1)
            term_pause_ms(LOOK_MS);
    }
    if (term_interrupted()) {
        fprintf(c->err, "The services go on without this command; look with `shoal service ps NAME`.\n");
        c->status = 130;
        rc = 0;
    } else if (rc == 0 && ids->n) {
        fprintf(c->out, "All running as wanted.\n");
    }
    free(wt.w);
    return rc;
}
