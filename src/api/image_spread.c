/* /shoal/v1/images: an image of this node to other nodes, without a registry. The manager offers it to each (POST .../take
 * at the peer's API), the node takes it from whoever has it by then, this one first (image_peers.h), and says how it goes;
 * the client gets a line of JSON for each change: {"node","hostname","state","current","total","error"}. */
#include "api_internal.h"
#include <shoal/image_peers.h>

enum { AT_ONCE = 16, LINE_MAX_BYTES = 64 << 10, PROGRESS_MS = 250, LAYERS_MAX = 256 };

/* ---- taking: what a manager asks of a node ---- */
struct taker { struct call *c; };

static void take_progress(void *arg, const struct image_progress *p)
{
    transfer_line(((struct taker *)arg)->c, p);
}

static void taken(void *arg, const struct image *image, const struct err *e)
{
    struct taker *u = arg;
    if (image)
        image_event(u->c->api, "pull", image->id, image->repo_tags.n ? image->repo_tags.v[0] : image->id);
    else
        error_line(u->c, e);
    stream_done(u->c);
    free(u);
}

static void keep_call(struct call *c)
{
    (void)c; /* the node takes it all the same, and frees the call */
}

static int offer_of(const struct val *body, struct image_offer *o, struct err *e)
{
    const char *manifest = val_get_str(body, "Manifest"), *from = val_get_str(body, "From");
    if (!manifest || !from)
        return err_set(e, E_INVALID, "an offer without Manifest or From");
    o->manifest = xstrdup(manifest);
    o->from = xstrdup(from);
    o->size = val_get_int(body, "Size", 0);
    int r = strs_from_val(&o->tags, val_get(body, "Tags"), "Tags", e);
    return r < 0 ? r : strs_from_val(&o->digests, val_get(body, "Digests"), "Digests", e);
}

static void take_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct image_offer o = { 0 };
    struct err e;
    (void)text, (void)size;
    if (offer_of(body, &o, &e) < 0) {
        reply_err(c, &e);
    } else {
        struct taker *u = xnew(struct taker);
        u->c = c;
        c->gone = keep_call;
        stream_begin(c, "application/json");
        image_take(c->api->b.images, &o, take_progress, taken, u);
    }
    image_offer_clear(&o);
}

static void image_take_route(struct call *c)
{
    if (c->from_peer)
        with_body(c, take_body);
    else
        reply_error(c, E_DENIED, "only a manager asks this; to spread an image: shoal image push-to-cluster");
}

/* ---- spreading ---- */
struct spreading;
struct target {
    struct list_node node;
    struct spreading *sp;
    char *id, *hostname;
    struct http_call *call;
    struct map layers;   /* name -> struct part */
    struct sb line;
    int64_t told_ms;
    int refused;         /* status of an answer that is none of progress; its body is gathered in line */
    bool over;
};
struct part { int64_t current, total; };
struct spreading {
    struct call *c;
    struct sb body;
    struct list_node waiting, running;
    unsigned n_running;
    bool due; /* spread_step() comes */
};

static void parts_clear(struct target *t)
{
    for (struct map_item *it = NULL; (it = map_next(&t->layers, it));)
        free(it->value);
    map_done(&t->layers);
    map_init(&t->layers);
}

static void target_free(void *arg)
{
    struct target *t = arg;
    list_remove(&t->node);
    http_call_free(t->call);
    parts_clear(t);
    map_done(&t->layers);
    sb_done(&t->line);
    free(t->id);
    free(t->hostname);
    free(t);
}

static void tell(struct target *t, const char *state, const char *error)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    int64_t current = 0, total = 0;
    for (struct map_item *it = NULL; (it = map_next(&t->layers, it));) {
        const struct part *p = it->value;
        current += p->current;
        total += p->total;
    }
    val_set(d, v, "node", val_str(d, t->id));
    val_set(d, v, "hostname", val_str(d, t->hostname));
    val_set(d, v, "state", val_str(d, state));
    val_set(d, v, "current", val_int(d, current));
    val_set(d, v, "total", val_int(d, total));
    if (error)
        val_set(d, v, "error", val_str(d, error));
    t->told_ms = loop_now_ms(t->sp->c->api->b.loop);
    progress_line(t->sp->c, d, v);
}

static void spread_step(void *arg);

static void step_later(struct spreading *sp)
{
    if (!sp->due)
        loop_defer(sp->c->api->b.loop, spread_step, sp);
    sp->due = true;
}

static void target_over(struct target *t, const char *error)
{
    struct spreading *sp = t->sp;
    if (t->over)
        return;
    t->over = true;
    tell(t, error ? "failed" : "done", error);
    sp->n_running--;
    step_later(sp);
}

/* A line of the node's progress. */
static void take_line(struct target *t, const char *s, size_t len)
{
    struct val_doc *d = NULL;
    if (json_parse(&d, s, len, "progress", NULL) < 0)
        return;
    const struct val *v = val_root(d), *detail = val_get(v, "progressDetail");
    const char *id = val_get_str(v, "id"), *status = val_get_str(v, "status"), *error = val_get_str(v, "error");
    int64_t most = INT64_MAX / LAYERS_MAX; /* all parts can be added */
    int64_t total = MIN(val_get_int(detail, "total", 0), most), current = val_get_int(detail, "current", 0);
    if (error) {
        target_over(t, error);
    } else if (id && str_equal(status, "Downloading") && total > 0) {
        struct part *p = map_find(&t->layers, id);
        if (!p && t->layers.n < LAYERS_MAX) {
            p = xnew(struct part);
            map_put(&t->layers, id, p);
        }
        if (p)
            *p = (struct part){ MAX(MIN(current, total), INT64_C(0)), total };
        if (loop_now_ms(t->sp->c->api->b.loop) - t->told_ms >= PROGRESS_MS)
            tell(t, "receiving", NULL);
    }
    val_doc_free(d);
}

static void on_head(void *arg, struct http_call *call, int status, const struct http_message *m)
{
    struct target *t = arg;
    (void)call, (void)m;
    t->refused = status == 200 ? 0 : status;
}

/* In the node's own words, if it has any. */
static void refused(struct target *t)
{
    struct val_doc *d = NULL;
    const char *said = json_parse(&d, t->line.s, t->line.len, "refusal", NULL) == 0 ? val_get_str(val_root(d), "message") : NULL;
    AUTO_FREE char *why = said ? xasprintf("%.500s", said)
                               : xasprintf("it answered with status %d; is its shoal of another version?", t->refused);
    val_doc_free(d);
    target_over(t, why);
}

static size_t on_data(void *arg, struct http_call *call, const char *p, size_t size)
{
    struct target *t = arg;
    (void)call;
    for (size_t i = 0; i < size; i++) {
        if (p[i] != '\n' || t->refused) {
            sb_char(&t->line, p[i]);
            continue;
        }
        if (t->line.len && !t->line.overflow && !t->over)
            take_line(t, t->line.s, t->line.len);
        sb_reset(&t->line);
        t->line.overflow = false;
    }
    return size;
}

static void on_end(void *arg, struct http_call *call, const struct err *e)
{
    struct target *t = arg;
    (void)call;
    if (!e && t->refused)
        refused(t);
    else
        target_over(t, e ? e->text : NULL);
}

static void offer(struct target *t)
{
    static const struct http_call_events ev = { on_head, on_data, on_end };
    static const char *const headers[] = { "Host: shoal", "Content-Type: application/json", NULL };
    struct spreading *sp = t->sp;
    const struct api_backend *b = &sp->c->api->b;
    struct err e;
    struct stream *s = b->open_node(b->arg, t->id, &e);
    tell(t, "asked", NULL);
    if (s)
        t->call = http_call_new(b->loop, s, "POST", "/shoal/v1/images/take", headers, sp->body.s, sp->body.len, false, &ev, t);
    else
        target_over(t, e.text);
}

static void spread_free(struct spreading *sp)
{
    struct target *t;
    list_for(t, &sp->waiting, node)
        target_free(t);
    list_for(t, &sp->running, node)
        target_free(t);
    sb_done(&sp->body);
    free(sp);
}

/* Deferred: those that are over go, the next ones begin, and with the last one the call ends. */
static void spread_step(void *arg)
{
    struct spreading *sp = arg;
    struct target *t;
    struct call *c = sp->c;
    sp->due = false;
    list_for(t, &sp->running, node)
        if (t->over)
            target_free(t);
    while (c->r && sp->n_running < AT_ONCE && (t = list_first(&sp->waiting, struct target, node))) {
        list_remove(&t->node);
        list_push_back(&sp->running, &t->node);
        sp->n_running++;
        offer(t);
    }
    if (!list_is_empty(&sp->running))
        return;
    bool gone = !c->r;
    c->gone = NULL;
    spread_free(sp);
    if (gone)
        call_free(c);
    else
        stream_done(c);
}

/* Those that were asked go on by themselves. */
static void spread_gone(struct call *c)
{
    struct spreading *sp = c->state;
    struct target *t;
    list_for(t, &sp->waiting, node)
        target_free(t);
    list_for(t, &sp->running, node)
        if (!t->over) {
            t->over = true;
            sp->n_running--;
        }
    step_later(sp);
}

static bool is_wanted(const struct call *c, const struct node *n)
{
    const char *want;
    for (unsigned k = 0; (want = http_query_nth(c->r, "label", k)); k++) {
        const char *eq = strchr(want, '=');
        AUTO_FREE char *key = eq ? xstrndup(want, (size_t)(eq - want)) : xstrdup(want);
        const char *has = labels_get(&n->spec.labels, key);
        if (!has || (eq && !str_equal(has, eq + 1)))
            return false;
    }
    return true;
}

static void add_targets(struct spreading *sp)
{
    struct call *c = sp->c;
    const struct api_backend *b = &c->api->b;
    const struct store *s = manager_store(call_manager(c));
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));) {
        if (str_equal(n->id, b->node_id(b->arg)) || !is_wanted(c, n))
            continue;
        struct target *t = xnew(struct target);
        t->sp = sp;
        t->id = xstrdup(n->id);
        t->hostname = xstrdup(n->description.hostname ? n->description.hostname : n->id);
        map_init(&t->layers);
        sb_init(&t->line, LINE_MAX_BYTES);
        list_push_back(&sp->waiting, &t->node);
    }
}

static void write_body(struct spreading *sp, const struct image_offer *o)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    val_set(d, v, "Manifest", val_str(d, o->manifest));
    val_set(d, v, "Size", val_int(d, o->size));
    val_set(d, v, "From", val_str(d, o->from));
    val_set(d, v, "Tags", strs_val(d, &o->tags));
    val_set(d, v, "Digests", strs_val(d, &o->digests));
    json_write(&sp->body, v, 0);
    val_doc_free(d);
}

static void image_spread(struct call *c)
{
    struct image_offer o = { 0 };
    struct err e;
    const struct api_backend *b = &c->api->b;
    if (!call_manager(c)) {
        reply_error(c, E_UNAVAILABLE, b->node_id(b->arg)
                    ? "only a manager spreads images: run this on one, after 'shoal image save %s' here and 'shoal image load' there"
                    : "this node is in no cluster, so there is nobody to send %s to; see 'shoal init --help'", c->param[0]);
        return;
    }
    if (image_offer_make(b->images, c->param[0], &o, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    o.from = xstrdup(b->node_id(b->arg));
    struct spreading *sp = xnew(struct spreading);
    sp->c = c;
    list_init(&sp->waiting);
    list_init(&sp->running);
    sb_init(&sp->body, 0);
    write_body(sp, &o);
    image_offer_clear(&o);
    add_targets(sp);
    if (list_is_empty(&sp->waiting)) {
        spread_free(sp);
        reply_error(c, E_NOT_FOUND, http_query(c->r, "label") ? "no other node has these labels; 'shoal node ls --filter node.label=KEY=VALUE' shows who has"
                                                              : "this is the only node of the cluster");
        return;
    }
    c->state = sp;
    c->gone = spread_gone;
    stream_begin(c, "application/json");
    step_later(sp);
}

const struct route spread_routes[] = {
    { "POST", "/shoal/v1/images/take", image_take_route, ROUTE_LOCAL },
    { "POST", "/shoal/v1/images/{+}/spread", image_spread, ROUTE_LOCAL },
    { 0 },
};
