/* Blobs between nodes, as the node carries them: channels in, the tracker on managers, channels out to trackers and holders,
 * and what this node holds told to every manager. A tracker is a manager, because every node has a link to each of them
 * anyway; which one a digest belongs to follows from the node table (rendezvous hashing), so that all nodes ask the same
 * one without having agreed on it. Names any manager answers: it knows the tasks, and is told what every node holds. */
#include "node_internal.h"
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <shoal/image_peers.h>
#include <sys/socket.h>

LOG_MODULE("images");

enum { TELL_MS = 50, TRACKERS_MAX = 64, TRACKERS_ASKED = 3, SESSIONS_MAX = 4096, SESSIONS_A_NODE = 512, SILENT_MS = 10000 };

struct session { /* a channel that came in */
    struct list_node node;
    struct images *im;
    struct stream *s;
    char *from;              /* node id */
    bool asked, old;         /* a whole question came; a round of the timer passed without one */
    struct image_wish *wish; /* NULL: not asked yet */
};
struct images {
    struct daemon *d;
    struct image_tracker *tracker;
    struct list_node sessions;
    unsigned n_sessions;
    struct map n_of;         /* sessions of each node: id -> number */
    struct loop_timer *tell, *due, *silent;
    struct map told;         /* managers that know what this node holds: id -> itself */
    struct sb held;          /* what they are told, packed; made anew after a change: it takes a walk over the store */
    bool held_good, silent_set, closing;
};

/* ---- the tracker ---- */

static void count(struct images *im, const char *node, int by)
{
    intptr_t n = (intptr_t)map_find(&im->n_of, node) + by;
    if (n)
        map_put(&im->n_of, node, (void *)n);
    else
        map_remove(&im->n_of, node);
}

static void session_free(struct session *x)
{
    if (x->wish)
        image_tracker_drop(x->im->tracker, x->wish);
    list_remove(&x->node);
    x->im->n_sessions--;
    count(x->im, x->from, -1);
    stream_free(x->s);
    free(x->from);
    free(x);
}

static void answer(struct session *x, const struct image_answer *a)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    image_frame(&image_answer_rec, a, &b);
    stream_write(x->s, b.s, b.len);
}

static void verdicts(struct images *im)
{
    struct image_verdict v;
    int64_t now = loop_now_ms(im->d->loop);
    while (image_tracker_next(im->tracker, now, &v)) {
        struct image_answer a = { .kind = v.registry ? IMAGE_ANSWER_REGISTRY : IMAGE_ANSWER_SOURCES };
        for (unsigned i = 0; i < v.n; i++)
            strs_add(&a.nodes, v.nodes[i]);
        answer(v.arg, &a);
        image_answer_clear(&a);
    }
    int64_t due = image_tracker_due(im->tracker);
    loop_timer_set(im->due, due == INT64_MAX ? -1 : MAX(due - now, INT64_C(0)) + 1);
}

static void on_due(void *arg)
{
    verdicts(arg);
}

static unsigned managers_of(const struct daemon *d, const char *ids[TRACKERS_MAX])
{
    unsigned n = 0;
    for (uint32_t i = 0; i < d->member.nodes.n && n < TRACKERS_MAX; i++)
        if (d->member.nodes.v[i].spec.role == ROLE_MANAGER)
            ids[n++] = d->member.nodes.v[i].id;
    return n;
}

/* The leader gave the node this task, so it may know which image that is. */
static bool has_task_with(const struct daemon *d, const char *node_id, const char *image)
{
    const struct store *s = d->manager ? manager_store(d->manager) : NULL;
    const struct task *t = NULL;
    while (s && (t = store_next(s, TABLE_TASK, t)))
        if (str_equal(t->node_id, node_id) && t->spec.container && str_equal(t->spec.container->image, image))
            return true;
    return false;
}

static void answer_name(struct session *x, const char *name)
{
    struct images *im = x->im;
    struct image_answer a = { .kind = IMAGE_ANSWER_ERROR, .code = E_NOT_FOUND };
    const char *ids[TRACKERS_MAX];
    unsigned n = managers_of(im->d, ids);
    const struct held_image *h = has_task_with(im->d, x->from, name)
                                     ? image_tracker_name(im->tracker, name, ids, n, clock_real_ns()) : NULL;
    if (h) {
        a.kind = IMAGE_ANSWER_NAME;
        a.code = 0;
        str_set(&a.manifest, h->manifest);
        str_set(&a.origin, h->origin);
        a.size = h->size;
    }
    answer(x, &a);
    image_answer_clear(&a);
}

/* False: x is gone, or its stream is. */
static bool take_ask(struct session *x, const struct image_ask *a)
{
    struct images *im = x->im;
    struct image_answer no = { .kind = IMAGE_ANSWER_ERROR, .code = E_UNAVAILABLE };
    switch ((enum image_ask_kind)a->kind) {
    case IMAGE_ASK_GET:
        if (x->wish)
            break;
        image_peers_serve(im->d->images, x->from, TAKE(x->s), a);
        session_free(x);
        return false;
    case IMAGE_ASK_WHERE:
        if (!x->wish && im->d->manager)
            x->wish = image_tracker_ask(im->tracker, x->from, a->digest, x);
        if (!x->wish)
            answer(x, &no);
        break;
    case IMAGE_ASK_NAME:
        answer_name(x, a->name);
        break;
    case IMAGE_ASK_BAD:
        if (x->wish)
            image_tracker_bad(im->tracker, x->wish, a->node);
        break;
    case IMAGE_ASK_FOUND:
        if (x->wish)
            image_tracker_found(im->tracker, x->wish);
        break;
    case IMAGE_ASK_FAILED:
        if (x->wish)
            image_tracker_failed(im->tracker, x->wish);
        break;
    }
    return true;
}

static size_t on_data(void *arg, const char *p, size_t size)
{
    struct session *x = arg;
    struct images *im = x->im;
    struct image_ask a = { 0 };
    struct err e = { 0 };
    long n = image_unframe(&image_ask_rec, &a, p, size, &e);
    if (n == 0)
        return 0;
    if (n > 0 && image_ask_check(&a, &e) < 0)
        n = -1;
    if (n < 0) {
        log_warn("node %s: %s", x->from, e.text);
        session_free(x);
    } else {
        x->asked = true;
        take_ask(x, &a);
    }
    image_ask_clear(&a);
    verdicts(im);
    return n > 0 ? (size_t)n : 0;
}

static void on_end(void *arg)
{
    struct session *x = arg;
    struct images *im = x->im;
    session_free(x);
    verdicts(im);
}

static void on_error(void *arg, const struct err *e)
{
    (void)e;
    on_end(arg);
}

/* Who opens a channel and says nothing takes a place from others. */
static void on_silent(void *arg)
{
    struct images *im = arg;
    struct session *x;
    im->silent_set = false;
    list_for(x, &im->sessions, node) {
        if (!x->asked && x->old)
            session_free(x);
        else if (!x->asked)
            x->old = im->silent_set = true;
    }
    loop_timer_set(im->silent, im->silent_set ? SILENT_MS : -1);
}

void images_channel(struct daemon *d, const char *node_id, struct stream *s)
{
    static const struct stream_events events = { .on_data = on_data, .on_eof = on_end, .on_error = on_error };
    struct images *im = d->image_peers;
    if (!im || im->closing || im->n_sessions >= SESSIONS_MAX || (intptr_t)map_find(&im->n_of, node_id) >= SESSIONS_A_NODE) {
        stream_free(s);
        return;
    }
    struct session *x = xnew(struct session);
    *x = (struct session){ .im = im, .s = s, .from = xstrdup(node_id) };
    list_push_back(&im->sessions, &x->node);
    im->n_sessions++;
    count(im, node_id, 1);
    if (!im->silent_set)
        loop_timer_set(im->silent, SILENT_MS);
    im->silent_set = true;
    stream_set_events(s, &events, x);
}

void images_held(struct daemon *d, const char *node_id, const void *p, size_t size)
{
    struct image_held h = { 0 };
    struct err e;
    if (!d->image_peers || !d->manager)
        return;
    if (rec_unpack(&image_held_rec, &h, p, size, &e) == 0) {
        image_tracker_held(d->image_peers->tracker, node_id, &h);
        verdicts(d->image_peers);
    } else {
        log_warn("what node %s says that it holds: %s", node_id, e.text);
    }
    image_held_clear(&h);
}

void images_node_gone(struct daemon *d, const char *node_id)
{
    if (!d->image_peers)
        return;
    map_remove(&d->image_peers->told, node_id);
    image_tracker_gone(d->image_peers->tracker, node_id);
    verdicts(d->image_peers);
}

/* ---- asking ---- */

/* Both ends of a channel from this node to itself. */
static struct stream *to_self(struct daemon *d)
{
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0)
        return NULL;
    images_channel(d, daemon_node_id(d), stream_from_fd(d->loop, fd[0]));
    return stream_from_fd(d->loop, fd[1]);
}

static struct stream *channel_to(struct daemon *d, const char *id)
{
    return str_equal(id, daemon_node_id(d)) ? to_self(d) : peers_channel(d->peers, id, CHANNEL_IMAGES);
}

static unsigned n_trackers(void *arg)
{
    const char *ids[TRACKERS_MAX];
    return MIN(managers_of(arg, ids), (unsigned)TRACKERS_ASKED);
}

static struct stream *tracker_of(void *arg, const char *digest, unsigned nth)
{
    struct daemon *d = arg;
    const char *ids[TRACKERS_MAX], *leader = d->agent ? agent_leader_id(d->agent) : NULL;
    unsigned n = managers_of(d, ids);
    if (!digest)
        return leader ? channel_to(d, leader) : NULL;
    int i = image_tracker_choose(ids, n, digest, nth);
    return i >= 0 ? channel_to(d, ids[i]) : NULL;
}

static void reach(void *arg, const char *node_id, image_reached_fn *fn, void *fn_arg)
{
    struct daemon *d = arg;
    peers_reach(d->peers, node_id, CHANNEL_IMAGES, fn, fn_arg);
}

/* ---- telling ---- */

static void tell(void *arg)
{
    struct images *im = arg;
    struct daemon *d = im->d;
    const char *ids[TRACKERS_MAX];
    unsigned n = managers_of(d, ids);
    for (unsigned i = 0; i < n; i++) {
        if (map_find(&im->told, ids[i]))
            continue;
        if (!im->held_good) {
            struct image_held h;
            image_peers_held(d->images, &h);
            sb_reset(&im->held);
            rec_pack(&image_held_rec, &h, &im->held);
            image_held_clear(&h);
            im->held_good = true;
        }
        map_put(&im->told, ids[i], im);
        peers_send(d->peers, ids[i], MSG_HELD, im->held.s, im->held.len);
    }
}

static void held_changed(void *arg)
{
    struct daemon *d = arg;
    d->image_peers->held_good = false;
    map_done(&d->image_peers->told);
    map_init(&d->image_peers->told);
    loop_timer_set(d->image_peers->tell, TELL_MS);
}

void images_link_up(struct daemon *d, const char *node_id)
{
    if (!d->image_peers)
        return;
    map_remove(&d->image_peers->told, node_id);
    loop_timer_set(d->image_peers->tell, TELL_MS);
}

void images_nodes_changed(struct daemon *d)
{
    if (d->image_peers)
        loop_timer_set(d->image_peers->tell, TELL_MS); /* there may be other managers */
}

/* ---- life ---- */

void images_open(struct daemon *d)
{
    struct images *im = xnew(struct images);
    struct image_peers_hooks hooks = { .arg = d, .tracker = tracker_of, .n_trackers = n_trackers, .reach = reach,
                                       .held_changed = held_changed };
    im->d = d;
    im->tracker = image_tracker_new();
    list_init(&im->sessions);
    map_init(&im->told);
    map_init(&im->n_of);
    sb_init(&im->held, 0);
    im->silent = loop_timer_new(d->loop, on_silent, im);
    im->tell = loop_timer_new(d->loop, tell, im);
    im->due = loop_timer_new(d->loop, on_due, im);
    d->image_peers = im;
    loop_timer_set(im->tell, TELL_MS);
    image_peers_set(d->images, &hooks);
}

void images_close(struct daemon *d)
{
    struct images *im = d->image_peers;
    struct session *x;
    if (!im)
        return;
    image_peers_set(d->images, NULL);
    im->closing = true;
    list_for(x, &im->sessions, node)
        session_free(x);
    loop_timer_free(im->tell);
    loop_timer_free(im->due);
    loop_timer_free(im->silent);
    image_tracker_free(im->tracker);
    map_done(&im->told);
    map_done(&im->n_of);
    sb_done(&im->held);
    free(im);
    d->image_peers = NULL;
}
