/* Giving blobs to other nodes: a piece a channel. IMAGE_UPLOADS_MAX of them at once, the next ones wait in their order,
 * except that a node with its share under way lets others go before, and never has all places. With the links' own rule,
 * that messages go before what channels carry, this bounds what serving takes from the node. What is in the page cache is
 * read on the loop, the rest on the bulk lane. The asker closes the channel when it has the piece: until then it counts. */
#include "image_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PIECE_READ = 64 << 10, QUEUED_MAX = 128 << 10 };

struct upload {
    struct list_node at;
    struct image_peers *p;
    struct stream *s; /* NULL: the asker went while a read was under way */
    char *node, *digest; /* node: who asks */
    int fd;
    int64_t offset, left;
    bool running, reading, moved;
    ssize_t n;        /* of the read */
    char *buf;        /* PIECE_READ, once it runs */
};

static void pump(struct upload *u);

static void upload_free(struct upload *u)
{
    struct image_serving *v = image_peers_serving(u->p);
    list_remove(&u->at);
    if (u->running)
        v->n_running--;
    else
        v->n_waiting--;
    stream_free(u->s);
    if (u->fd >= 0)
        close(u->fd);
    free(u->node);
    free(u->digest);
    free(u->buf);
    free(u);
}

static void refuse(struct stream *s, int code, const char *why)
{
    struct image_answer a = { .kind = IMAGE_ANSWER_ERROR, .code = (uint64_t)code };
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    str_set(&a.error, why);
    image_frame(&image_answer_rec, &a, &b);
    stream_write(s, b.s, b.len);
    stream_free_when_sent(s);
    image_answer_clear(&a);
}

static bool begin(struct upload *u)
{
    struct stat st;
    struct image_answer a = { .kind = IMAGE_ANSWER_BYTES, .size = (uint64_t)u->left };
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    u->fd = image_peers_open_blob(u->p, u->digest);
    if (u->fd < 0 || fstat(u->fd, &st) < 0 || u->offset > st.st_size || u->left > st.st_size - u->offset) {
        refuse(TAKE(u->s), E_NOT_FOUND, "no such blob here, or a shorter one");
        return false;
    }
    image_frame(&image_answer_rec, &a, &b);
    stream_write(u->s, b.s, b.len);
    image_answer_clear(&a);
    return true;
}

static unsigned count_of(const struct list_node *uploads, const char *node)
{
    const struct upload *u;
    unsigned n = 0;
    list_for(u, uploads, at)
        n += str_equal(u->node, node);
    return n;
}

/* The first whose node has less than its share; else the first whose node leaves room for others. */
static struct upload *choose(struct image_serving *v)
{
    struct upload *u, *second = NULL;
    list_for(u, &v->waiting, at) {
        unsigned n = count_of(&v->running, u->node);
        if (n < IMAGE_UPLOADS_SHARE)
            return u;
        if (n < IMAGE_UPLOADS_ONE && !second)
            second = u;
    }
    return second;
}

/* There is room for the next ones. */
static void next(struct image_peers *p)
{
    struct image_serving *v = image_peers_serving(p);
    struct upload *u;
    while (v->n_running < IMAGE_UPLOADS_MAX && (u = choose(v))) {
        list_remove(&u->at);
        list_push_back(&v->running, &u->at);
        u->running = u->moved = true;
        u->buf = xcalloc(1, PIECE_READ);
        v->n_waiting--;
        v->n_running++;
        if (begin(u))
            pump(u);
        else
            upload_free(u);
    }
}

static void over(struct upload *u)
{
    struct image_peers *p = u->p;
    upload_free(u);
    next(p);
}

static void read_work(void *arg)
{
    struct upload *u = arg;
    u->n = pread(u->fd, u->buf, (size_t)MIN(u->left, (int64_t)PIECE_READ), u->offset);
}

static bool sent(struct upload *u)
{
    if (u->n <= 0)
        return false; /* the disk fails, or the file is cut: the asker finds another one */
    stream_write(u->s, u->buf, (size_t)u->n);
    u->offset += u->n;
    u->left -= u->n;
    u->moved = true;
    return true;
}

static void read_done(void *arg)
{
    struct upload *u = arg;
    u->reading = false;
    if (!u->s || !sent(u)) {
        struct image_store *s = image_peers_store(u->p);
        over(u);
        image_store_unhold(s);
        return;
    }
    image_store_unhold(image_peers_store(u->p));
    pump(u);
}

static void pump(struct upload *u)
{
    struct image_store *s = image_peers_store(u->p);
    while (u->left && !u->reading && stream_queued(u->s) < QUEUED_MAX) {
        struct iovec v = { u->buf, (size_t)MIN(u->left, (int64_t)PIECE_READ) };
        u->n = preadv2(u->fd, &v, 1, u->offset, RWF_NOWAIT);
        if (u->n < 0 && (errno == EAGAIN || errno == EOPNOTSUPP)) {
            u->reading = loop_work(s->loop, LANE_BULK, read_work, read_done, u) == 0;
            if (u->reading) {
                image_store_hold(s);
                return;
            }
            read_work(u); /* the lane is full */
        }
        if (!sent(u)) {
            over(u);
            return;
        }
    }
}

static void on_drain(void *arg)
{
    pump(arg);
}

static void on_end(void *arg)
{
    struct upload *u = arg;
    if (u->reading) {
        stream_free(u->s);
        u->s = NULL;
    } else {
        over(u);
    }
}

static void on_error(void *arg, const struct err *e)
{
    (void)e;
    on_end(arg);
}

static size_t on_data(void *arg, const char *p, size_t size)
{
    (void)arg, (void)p;
    return size;
}

/* Askers that take nothing for a while lose their place. */
static void on_tick(void *arg)
{
    struct image_peers *p = arg;
    struct image_serving *v = image_peers_serving(p);
    struct upload *u;
    list_for(u, &v->running, at) {
        bool stuck = !u->moved && !u->reading;
        u->moved = false;
        if (stuck)
            upload_free(u);
    }
    next(p);
    if (v->n_running)
        loop_timer_set(v->tick, IMAGE_STALL_MS);
}

void image_peers_serve(struct image_store *store, const char *node, struct stream *s, const struct image_ask *ask)
{
    static const struct stream_events events = { on_data, on_drain, on_end, on_error };
    struct image_serving *v = image_peers_serving(store->peers);
    if (v->n_waiting >= IMAGE_UPLOADS_WAITING_MAX ||
        (v->n_waiting >= IMAGE_UPLOADS_WAITING_MAX / 2 && count_of(&v->waiting, node) >= IMAGE_UPLOADS_WAITING_SHARE)) {
        refuse(s, E_BUSY, "too many ask this node for blobs");
        return;
    }
    struct upload *u = xnew(struct upload);
    u->p = store->peers;
    u->s = s;
    u->fd = -1;
    u->node = xstrdup(node);
    u->digest = xstrdup(ask->digest);
    u->offset = (int64_t)ask->offset;
    u->left = (int64_t)ask->size;
    list_push_back(&v->waiting, &u->at);
    v->n_waiting++;
    stream_set_events(s, &events, u);
    if (!v->n_running)
        loop_timer_set(v->tick, IMAGE_STALL_MS);
    next(store->peers);
}

void image_serving_init(struct image_serving *v, struct image_peers *p)
{
    list_init(&v->running);
    list_init(&v->waiting);
    v->tick = loop_timer_new(image_peers_store(p)->loop, on_tick, p);
}

void image_serving_stop(struct image_serving *v)
{
    struct upload *u;
    list_for(u, &v->waiting, at)
        upload_free(u);
    list_for(u, &v->running, at) {
        if (!u->reading) {
            upload_free(u);
            continue;
        }
        stream_free(u->s);
        u->s = NULL;
    }
}
