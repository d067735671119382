/* Requests about the cluster on a manager that does not lead: the whole connection is handed over to the leader's API,
 * or waits until there is a leader. An election is over in a second or two, and a client should not have to know of it:
 * what only reads is asked again when the leader went before it answered. A write that was handed over is never begun
 * again: whether it was made is not known. */
#include "api_internal.h"

enum { LEADER_WAIT_MS = 10000, LEADER_LOOK_MS = 50 };

/* ---- waiting for a leader ---- */
struct leader_wait { struct list_node node; struct call *c; const struct route *route; struct loop_timer *timer; int left_ms; };

void leader_wait_free(struct call *c)
{
    struct leader_wait *w = c->state;
    if (!w)
        return;
    list_remove(&w->node);
    loop_timer_free(w->timer);
    free(w);
    c->state = NULL;
    c->gone = NULL;
}

void leader_wait_gone(struct call *c)
{
    leader_wait_free(c);
    call_free(c);
}

static void wait_over(void *arg)
{
    struct leader_wait *w = arg;
    call_dispatch(w->c, w->route);
}

/* False: it has waited long enough. */
static bool wait_for_leader(struct call *c, const struct route *r)
{
    struct leader_wait *w = c->state;
    if (!w) {
        w = xnew(struct leader_wait);
        *w = (struct leader_wait){ .c = c, .route = r, .left_ms = LEADER_WAIT_MS };
        list_push_back(&c->api->leader_waits, &w->node);
        w->timer = loop_timer_new(c->api->b.loop, wait_over, w);
        c->state = w;
    }
    c->gone = leader_wait_gone;
    w->left_ms -= LEADER_LOOK_MS;
    if (w->left_ms < 0)
        return false;
    loop_timer_set(w->timer, LEADER_LOOK_MS);
    return true;
}

static const char no_leader_text[] = "the cluster has no leader: a majority of its managers must be up and reach each other; "
                                     "look at them with `shoal info`, and try again when they are";

void no_leader(struct call *c, const struct route *r)
{
    if (wait_for_leader(c, r))
        return;
    leader_wait_free(c);
    reply_error(c, E_UNAVAILABLE, "%s", no_leader_text);
}

/* ---- handed over ---- */
struct relay { /* until the first byte of the answer */
    struct list_node node;
    struct api *api;       /* NULL: closed */
    struct stream *client; /* given back: the leader went before it answered */
    struct sb head;
    bool reads, another;   /* another: the leader has changed since */
    struct loop_timer *timer;
};

static void relay_free(struct relay *r)
{
    if (r->api)
        list_remove(&r->node);
    loop_timer_free(r->timer);
    sb_done(&r->head);
    free(r);
}

static bool has_another(const struct relay *r)
{
    struct manager *m = r->api->b.manager(r->api->b.arg);
    return r->another && (!m || manager_leads(m) || manager_leader_id(m));
}

/* Asked again by another leader, or it has waited long enough. */
static void relay_again(void *arg)
{
    struct relay *r = arg;
    struct err e;
    if (has_another(r)) {
        http_server_take_back(r->api->local, r->client, &r->head);
    } else {
        err_set(&e, E_UNAVAILABLE, "%s", no_leader_text);
        http_server_refuse(r->api->local, r->client, &e);
    }
    relay_free(r);
}

static void client_gone(void *arg, const struct err *e)
{
    struct relay *r = arg;
    (void)e;
    stream_free(r->client);
    relay_free(r);
}

static void relay_over(void *arg, struct stream *client)
{
    static const struct stream_events waiting = { .on_error = client_gone };
    struct relay *r = arg;
    struct err e;
    if (client && r->api && r->reads) {
        r->client = client;
        stream_set_events(client, &waiting, r);
        loop_timer_set(r->timer, has_another(r) ? 0 : LEADER_WAIT_MS);
        return;
    }
    if (client && r->api) {
        err_set(&e, E_UNAVAILABLE, "the leader was lost before it answered; whether the change was made is not known: look "
                "before you try again");
        http_server_refuse(r->api->local, client, &e);
    } else {
        stream_free(client);
    }
    relay_free(r);
}

void forward_to_leader(struct call *c, const struct route *route)
{
    struct err e = { 0 };
    const struct api_backend *b = &c->api->b;
    const char *leader = manager_leader_id(call_manager(c));
    struct stream *to = leader && !c->from_peer ? b->open_node(b->arg, leader, &e) : NULL;
    if (!to) {
        no_leader(c, route);
        return;
    }
    leader_wait_free(c);
    struct relay *r = xnew(struct relay);
    r->api = c->api;
    r->reads = route->kind != ROUTE_WRITE && (str_equal(http_method(c->r), "GET") || str_equal(http_method(c->r), "HEAD"));
    r->timer = loop_timer_new(b->loop, relay_again, r);
    list_push_back(&c->api->relays, &r->node);
    sb_init(&r->head, 0);
    struct stream *from = http_take_over(c->r, &r->head);
    c->r = NULL;
    stream_write(to, r->head.s, r->head.len);
    stream_splice_asking(from, to, relay_over, r);
    call_free(c);
}

void api_leader_changed(struct api *a)
{
    struct leader_wait *w;
    struct relay *r;
    list_for(w, &a->leader_waits, node)
        loop_timer_set(w->timer, 0);
    list_for(r, &a->relays, node) {
        r->another = true;
        if (r->client && has_another(r))
            loop_timer_set(r->timer, 0);
    }
}

void forward_close(struct api *a)
{
    struct relay *r;
    list_for(r, &a->relays, node) {
        list_remove(&r->node);
        r->api = NULL;
        if (r->client) {
            stream_free(r->client);
            relay_free(r);
        }
    }
}
