/* GET /events: what happened on this node. The last ones are kept, so that a client can ask for the past. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

struct event { int64_t time_ns; struct val_doc *doc; };
struct watch { struct call *c; struct filters f; int64_t until_ns; struct loop_timer *timer; };

static void watch_free(struct watch *w)
{
    struct call *c = w->c;
    char key[32];
    snprintf(key, sizeof key, "%p", (void *)w);
    map_remove(&c->api->watchers, key);
    loop_timer_free(w->timer);
    filters_free(&w->f);
    free(w);
    c->state = NULL;
    c->gone = NULL;
}

static void watch_gone(struct call *c)
{
    watch_free(c->state);
    call_free(c);
}

static void watch_over(void *arg)
{
    struct watch *w = arg;
    struct call *c = w->c;
    watch_free(w);
    stream_done(c);
}

/* Asked for by id or name, where the event is about that kind of thing. */
static bool about(const struct filters *f, const struct val *v, const char *kind)
{
    const struct val *actor = val_get(v, "Actor");
    if (!filters_has(f, kind))
        return true;
    return str_equal(val_get_str(v, "Type"), kind) &&
           (filter_prefix(f, kind, val_get_str(actor, "ID")) ||
            filter_prefix(f, kind, val_get_str(val_get(actor, "Attributes"), "name")));
}

static bool matches(const struct filters *f, const struct val *v)
{
    static const char *const kinds[] = { "container", "network", "volume", "service", "node", "secret", "config", "daemon", "plugin" };
    const char *action = val_get_str(v, "Action");
    AUTO_FREE char *word = xstrndup(action, strcspn(action, ":"));
    const struct val *attributes = val_get(val_get(v, "Actor"), "Attributes");
    const char *image = str_equal(val_get_str(v, "Type"), "image") ? val_get_str(val_get(v, "Actor"), "ID")
                                                                   : val_get_str(attributes, "image");
    struct labels labels = { 0 };
    for (uint32_t i = 0; attributes && i < attributes->n; i++)
        labels_set(&labels, attributes->map[i].key->s, attributes->map[i].value->s);
    bool yes = filter_exact(f, "type", val_get_str(v, "Type")) && filter_exact(f, "scope", val_get_str(v, "scope")) &&
               (filter_exact(f, "event", action) || filter_exact(f, "event", word)) && filter_labels(f, "label", &labels) &&
               (!filters_has(f, "image") || filter_exact(f, "image", image) ||
                (str_equal(val_get_str(v, "Type"), "image") && filter_exact(f, "image", val_get_str(attributes, "name"))));
    for (unsigned i = 0; yes && i < ARRAY_N(kinds); i++)
        yes = about(f, v, kinds[i]);
    labels_clear(&labels);
    return yes;
}

static void tell(struct watch *w, const struct event *ev)
{
    struct sb b;
    const struct val *v = val_root(ev->doc);
    if (!matches(&w->f, v))
        return;
    sb_init(&b, 0);
    json_write(&b, v, 0);
    sb_char(&b, '\n');
    stream_put(w->c, b.s, b.len);
    sb_done(&b);
}

static void tell_past(struct watch *w, int64_t since_ns)
{
    const struct api *a = w->c->api;
    for (uint64_t i = a->n_events > EVENTS_KEPT ? a->n_events - EVENTS_KEPT : 0; i < a->n_events; i++) {
        const struct event *ev = a->events[i % EVENTS_KEPT];
        if (ev->time_ns >= since_ns && (!w->until_ns || ev->time_ns <= w->until_ns))
            tell(w, ev);
    }
}

void events_watch(struct call *c)
{
    static const char *const allowed[] = { "type", "event", "container", "image", "label", "network", "volume", "service", "node",
                                           "secret", "config", "daemon", "plugin", "scope", NULL };
    char key[32];
    struct err e;
    struct watch *w = xnew(struct watch);
    int64_t since_ns = 0, now = clock_real_ns();
    const char *since = query(c, "since"), *until = query(c, "until");
    w->c = c;
    if (!query_time(since, &since_ns) || !query_time(until, &w->until_ns)) {
        free(w);
        reply_error(c, E_INVALID, "since and until must be seconds since 1970 or RFC 3339 times");
        return;
    }
    if (filters_parse(query(c, "filters"), allowed, &w->f, &e) < 0) {
        free(w);
        reply_err(c, &e);
        return;
    }
    snprintf(key, sizeof key, "%p", (void *)w);
    map_put(&c->api->watchers, key, w);
    c->state = w;
    c->gone = watch_gone;
    stream_begin(c, "application/json");
    if ((since && *since) || (w->until_ns && w->until_ns <= now))
        tell_past(w, since_ns);
    if (!w->until_ns)
        return;
    w->timer = loop_timer_new(c->api->b.loop, watch_over, w);
    loop_timer_set(w->timer, MAX(w->until_ns - now, 0) / MS_NS);
}

void api_event(struct api *a, const char *type, const char *action, const char *id, const struct labels *attributes)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *actor = val_map(d);
    int64_t now = clock_real_ns();
    val_set_root(d, v);
    val_set(d, v, "Type", val_str(d, type));
    val_set(d, v, "Action", val_str(d, action));
    val_set(d, actor, "ID", val_str(d, id));
    val_set(d, actor, "Attributes", labels_val(d, attributes));
    val_set(d, v, "Actor", actor);
    val_set(d, v, "scope", val_str(d, "local"));
    val_set(d, v, "status", val_str(d, action));
    val_set(d, v, "id", val_str(d, id));
    if (str_equal(type, "container"))
        val_set(d, v, "from", val_str(d, labels_get(attributes, "image") ? labels_get(attributes, "image") : ""));
    val_set(d, v, "time", val_int(d, now / SEC_NS));
    val_set(d, v, "timeNano", val_int(d, now));
    struct event **cell = &a->events[a->n_events++ % EVENTS_KEPT], *ev = xnew(struct event);
    if (*cell)
        val_doc_free((*cell)->doc);
    free(*cell);
    *ev = (struct event){ now, d };
    *cell = ev;
    for (struct map_item *it = NULL; (it = map_next(&a->watchers, it));)
        tell(it->value, ev);
}

void events_free(struct api *a)
{
    for (unsigned i = 0; i < EVENTS_KEPT; i++)
        if (a->events[i]) {
            val_doc_free(a->events[i]->doc);
            free(a->events[i]);
        }
}

void container_event(struct api *a, const struct container *x, const char *action, const char *key, const char *value)
{
    struct labels attributes = { 0 };
    for (uint32_t i = 0; i < x->spec.labels.n; i++)
        labels_set(&attributes, x->spec.labels.v[i].key, x->spec.labels.v[i].value);
    labels_set(&attributes, "name", x->spec.name ? x->spec.name : "");
    labels_set(&attributes, "image", x->spec.image ? x->spec.image : "");
    if (key)
        labels_set(&attributes, key, value);
    api_event(a, "container", action, x->spec.id, &attributes);
    labels_clear(&attributes);
}

/* A change that the runtime tells of. */
void events_container(struct api *a, const struct container *x)
{
    char code[16];
    enum container_phase now = x->state.phase;
    if (x->gone) {
        container_event(a, x, "destroy", NULL, NULL);
    } else if (now == CONTAINER_CREATED) {
        container_event(a, x, "create", NULL, NULL);
    } else if (now == x->before) {
        return;
    } else if (now == CONTAINER_EXITED) {
        snprintf(code, sizeof code, "%d", (int)x->state.exit_code);
        if (x->state.oom_killed)
            container_event(a, x, "oom", NULL, NULL);
        container_event(a, x, "die", "exitCode", code);
    } else {
        container_event(a, x, now == CONTAINER_PAUSED ? "pause" : x->before == CONTAINER_PAUSED ? "unpause" : "start", NULL, NULL);
    }
}
