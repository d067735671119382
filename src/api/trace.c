/* Why does a container not reach another? GET /shoal/v1/trace/{sandbox}?to=NAME walks the way from a container of this node
 * (overlay_trace()); GET /shoal/v1/path?from=A&to=B, at the leader, asks the node of A for the way there and the node of B
 * for the way back. A and B are tasks (an id, SERVICE.SLOT, or SERVICE for its first one that runs); B may be any name
 * or address that a container of A could ask for, then there is no way back to be seen. */
#include "api_internal.h"
#include <shoal/overlay.h>
#include <stdio.h>

enum { REPLY_MAX_BYTES = 1 << 20 };

/* ---- on the node ---- */
struct here { struct call *c; struct trace_run *run; };

static void here_gone(struct call *c)
{
    struct here *h = c->state;
    overlay_trace_stop(h->run);
    free(h);
    call_free(c);
}

static void here_done(void *arg, const struct trace *t)
{
    struct here *h = arg;
    struct call *c = h->c;
    struct val_doc *d = val_doc_new();
    val_set_root(d, rec_to_val(&trace_rec, t, d));
    c->gone = NULL;
    free(h);
    reply_val(c, 200, d);
}

static void trace_here(struct call *c)
{
    const struct api_backend *b = &c->api->b;
    struct overlay *o = b->overlay(b->arg);
    const struct container *x = overlay_sandbox(o, c->param[0]) ? NULL : runtime_find(b->runtime, c->param[0]);
    const char *to = query(c, "to");
    struct err e;
    if (!to || !*to || strlen(to) > 255) {
        reply_error(c, E_INVALID, "to=NAME is missing: a name or address to be reached");
        return;
    }
    struct here *h = xnew(struct here);
    h->c = c;
    h->run = overlay_trace(o, x ? x->spec.id : c->param[0], to, here_done, h, &e);
    if (!h->run) {
        free(h);
        reply_err(c, &e);
        return;
    }
    c->state = h;
    c->gone = here_gone;
}

/* ---- both ways ---- */
enum { THERE, BACK, LEGS };
static const char *const leg_names[LEGS] = { "There", "Back" };
struct walk;
struct leg {
    struct walk *w;
    char *task, *node, *why; /* SERVICE.SLOT, hostname; why it was not seen */
    struct trace_run *run;
    struct http_call *remote;
    struct sb reply;
    int status;
    struct val *trace; /* in w->d */
};
struct walk {
    struct call *c;
    struct val_doc *d;
    struct leg legs[LEGS];
    unsigned n_open;
};

static void walk_free(struct walk *w)
{
    for (unsigned i = 0; i < LEGS; i++) {
        overlay_trace_stop(w->legs[i].run);
        http_call_free(w->legs[i].remote);
        sb_done(&w->legs[i].reply);
        free(w->legs[i].task);
        free(w->legs[i].node);
        free(w->legs[i].why);
    }
    val_doc_free(w->d);
    free(w);
}

static void walk_gone(struct call *c)
{
    walk_free(c->state);
    call_free(c);
}

static bool is_broken(const struct val *trace)
{
    const struct val *steps = val_get(trace, "Steps");
    for (uint32_t i = 0; steps && steps->kind == V_LIST && i < steps->n; i++)
        if (str_equal(val_get_str(steps->list[i], "State"), trace_state_names[TRACE_BROKEN]))
            return true;
    return false;
}

static void walk_done(struct walk *w)
{
    struct val_doc *d = TAKE(w->d);
    struct val *root = val_map(d);
    struct call *c = w->c;
    bool broken = false;
    for (unsigned i = 0; i < LEGS; i++) {
        struct leg *l = &w->legs[i];
        struct val *v = val_map(d);
        if (!l->task)
            continue;
        val_set(d, v, "Task", val_str(d, l->task));
        val_set(d, v, "Node", val_str(d, l->node));
        if (l->trace) {
            val_set(d, v, "To", val_copy(d, val_get(l->trace, "To")));
            val_set(d, v, "Steps", val_copy(d, val_get(l->trace, "Steps")));
        } else {
            val_set(d, v, "Error", val_str(d, l->why));
        }
        broken |= !l->trace || is_broken(l->trace);
        val_set(d, root, leg_names[i], v);
    }
    val_set(d, root, "Broken", val_bool(d, broken));
    val_set_root(d, root);
    c->gone = NULL;
    walk_free(w);
    reply_val(c, 200, d);
}

static void leg_done(struct leg *l)
{
    if (!--l->w->n_open)
        walk_done(l->w);
}

static void on_trace(void *arg, const struct trace *t)
{
    struct leg *l = arg;
    l->run = NULL;
    l->trace = rec_to_val(&trace_rec, t, l->w->d);
    leg_done(l);
}

static void on_head(void *arg, struct http_call *h, int status, const struct http_message *m)
{
    (void)h, (void)m;
    ((struct leg *)arg)->status = status;
}

static size_t on_data(void *arg, struct http_call *h, const char *p, size_t size)
{
    (void)h;
    sb_add(&((struct leg *)arg)->reply, p, size);
    return size;
}

static void on_end(void *arg, struct http_call *h, const struct err *failed)
{
    struct leg *l = arg;
    struct val_doc *d = NULL;
    struct err e;
    (void)h;
    if (failed)
        l->why = xstrdup(failed->text);
    else if (l->reply.overflow)
        l->why = xstrdup("its node said too much");
    else if (json_parse(&d, l->reply.s ? l->reply.s : "", l->reply.len, "what its node said", &e) < 0)
        l->why = xstrdup(e.text);
    else if (l->status == 200)
        l->trace = val_copy(l->w->d, val_root(d));
    else
        l->why = xstrdup(val_get_str(val_root(d), "message") ? val_get_str(val_root(d), "message") : "its node refused");
    val_doc_free(d);
    leg_done(l);
}

static void leg_start(struct walk *w, unsigned i, const struct task *t, const char *to)
{
    static const struct http_call_events ev = { on_head, on_data, on_end };
    static const char *const headers[] = { "Host: shoal", NULL };
    const struct api_backend *b = &w->c->api->b;
    const struct node *n = store_find(call_store(w->c), TABLE_NODE, t->node_id);
    struct leg *l = &w->legs[i];
    struct err e;
    l->w = w;
    l->task = t->slot ? xasprintf("%s.%llu", t->service_name ? t->service_name : t->id, (unsigned long long)t->slot)
                      : xasprintf("%s.%s", t->service_name ? t->service_name : "task", t->id);
    l->node = xstrdup(n && n->description.hostname ? n->description.hostname : t->node_id);
    w->n_open++;
    if (str_equal(t->node_id, b->node_id(b->arg))) {
        l->run = overlay_trace(b->overlay(b->arg), t->id, to, on_trace, l, &e);
    } else {
        struct stream *s = b->open_node(b->arg, t->node_id, &e);
        AUTO_SB struct sb target;
        sb_init(&target, 0);
        sb_printf(&target, "/shoal/v1/trace/%s?to=", t->id);
        http_encode(&target, to);
        sb_init(&l->reply, REPLY_MAX_BYTES);
        l->remote = s ? http_call_new(b->loop, s, "GET", target.s, headers, NULL, 0, false, &ev, l) : NULL;
    }
    if (!l->run && !l->remote) {
        l->why = xstrdup(e.text);
        w->n_open--;
    }
}

/* The first that runs, of those that the text may mean. */
static const struct task *task_of(const struct store *s, const char *text)
{
    const struct task *by_service = NULL;
    for (const struct task *t = NULL; (t = store_next(s, TABLE_TASK, t));) {
        char slot[96];
        if (t->status.state != TASK_RUNNING || !t->node_id)
            continue;
        snprintf(slot, sizeof slot, "%s.%llu", t->service_name ? t->service_name : "", (unsigned long long)t->slot);
        if (str_equal(t->id, text) || (t->slot && str_equal(slot, text)))
            return t;
        if (!by_service && (str_equal(t->service_name, text) || str_equal(t->service_id, text)))
            by_service = t;
    }
    return by_service;
}

/* An address of t on a network where `with` is too; NULL: they share none. Caller frees. */
static char *shared_address(const struct store *s, const struct task *t, const struct task *with)
{
    for (uint32_t i = 0; i < t->attachments.n; i++) {
        const struct attachment *a = &t->attachments.v[i];
        const struct network *n = store_find(s, TABLE_NETWORK, a->network.id);
        for (uint32_t k = 0; n && !n->ingress && a->addresses.n && k < with->attachments.n; k++)
            if (str_equal(a->network.id, with->attachments.v[k].network.id))
                return xstrndup(a->addresses.v[0], strcspn(a->addresses.v[0], "/"));
    }
    return NULL;
}

static void path_show(struct call *c)
{
    const struct store *s = call_store(c);
    const char *from = query(c, "from"), *to = query(c, "to");
    if (!from || !*from || !to || !*to || strlen(to) > 255) {
        reply_error(c, E_INVALID, "from=TASK and to=NAME are needed");
        return;
    }
    const struct task *a = task_of(s, from), *b = task_of(s, to);
    if (!a) {
        reply_error(c, E_NOT_FOUND, "no running task is %s: give a task's id, SERVICE.SLOT or SERVICE (`shoal ps` shows tasks)", from);
        return;
    }
    bool by_name = !b || str_equal(b->service_name, to); /* as the container itself would ask */
    AUTO_FREE char *there = b && !by_name ? shared_address(s, b, a) : NULL, *back = b ? shared_address(s, a, b) : NULL;
    if (b && (!back || (!by_name && !there))) {
        reply_error(c, E_CONFLICT, "%s and %s are on no network together: give both services one (networks: in the stack file, or "
                    "`shoal service update --network-add`)", from, to);
        return;
    }
    struct walk *w = xnew(struct walk);
    w->c = c;
    w->d = val_doc_new();
    c->state = w;
    c->gone = walk_gone;
    w->n_open = 1; /* until both have begun */
    leg_start(w, THERE, a, by_name ? to : there);
    if (b && b != a)
        leg_start(w, BACK, b, back);
    if (!--w->n_open)
        walk_done(w);
}

const struct route trace_routes[] = {
    { "GET", "/shoal/v1/trace/{}", trace_here, ROUTE_LOCAL },
    { "GET", "/shoal/v1/path", path_show, ROUTE_READ },
    { 0 },
};
