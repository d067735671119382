/* GET /shoal/v1/backup: the whole state as a stream of frames; POST /shoal/v1/restore: the same stream, on a node that is
 * in no cluster. Both are plain: what the command line writes to a disk it has sealed before. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/list.h>

enum { PIECE_BYTES = 256 << 10 };

/* ---- backup: one packed copy of the state, given away piece by piece ---- */
struct piece { struct list_node node; struct sb bytes; };
struct backup { struct list_node pieces; };

static void piece_free(struct piece *p)
{
    list_remove(&p->node);
    crypto_wipe(p->bytes.s, p->bytes.len);
    sb_done(&p->bytes);
    free(p);
}

static void backup_free(struct call *c)
{
    struct backup *b = TAKE(c->state);
    struct piece *p;
    c->gone = c->drain = NULL;
    list_for(p, &b->pieces, node)
        piece_free(p);
    free(b);
}

static void backup_gone(struct call *c)
{
    backup_free(c);
    call_free(c);
}

static void hold(void *arg, const void *bytes, size_t size)
{
    struct backup *b = arg;
    struct piece *last = list_is_empty(&b->pieces) ? NULL : list_entry(b->pieces.prev, struct piece, node);
    if (!last || last->bytes.len >= PIECE_BYTES) {
        last = xnew(struct piece);
        sb_init(&last->bytes, 0);
        list_push_back(&b->pieces, &last->node);
    }
    sb_add(&last->bytes, bytes, size);
}

static void backup_more(struct call *c)
{
    struct backup *b = c->state;
    struct piece *p;
    list_for(p, &b->pieces, node) {
        if (http_stream_is_full(c->r))
            return;
        stream_put(c, p->bytes.s, p->bytes.len);
        piece_free(p);
    }
    backup_free(c);
    stream_done(c);
}

static void backup(struct call *c)
{
    struct backup *b = xnew(struct backup);
    list_init(&b->pieces);
    manager_backup(call_manager(c), hold, b);
    c->state = b;
    c->gone = backup_gone;
    c->drain = backup_more;
    stream_begin(c, "application/octet-stream");
    backup_more(c);
}

/* ---- restore ---- */
struct upload {
    struct call *c;
    struct node_restore in;
    struct err failed; /* what was wrong with it; told when all has been sent */
};

static void upload_free(struct upload *u)
{
    backup_state_free(u->in.state);
    free(u->in.advertise_addr);
    free(u);
}

static void on_restored(void *arg, const struct err *e)
{
    struct call *c = arg;
    if (e)
        reply_err(c, e);
    else
        reply_empty(c, 200);
}

static bool upload_data(void *arg, struct http_request *r, const char *p, size_t size)
{
    struct upload *u = arg;
    (void)r;
    if (!u->failed.code)
        (void)!backup_state_take(u->in.state, p, size, &u->failed);
    return true;
}

static void upload_end(void *arg, struct http_request *r)
{
    struct upload *u = arg;
    struct call *c = u->c;
    (void)r;
    c->state = NULL;
    c->gone = NULL;
    if (u->failed.code)
        reply_err(c, &u->failed);
    else
        c->api->b.restore(c->api->b.arg, &u->in, on_restored, c);
    upload_free(u);
}

static void upload_broken(void *arg, struct http_request *r, const struct err *e)
{
    struct upload *u = arg;
    struct call *c = u->c;
    (void)r;
    upload_free(u);
    c->state = NULL;
    c->gone = NULL;
    reply_err(c, e);
}

static void upload_gone(struct call *c)
{
    upload_free(c->state);
    call_free(c);
}

static void restore(struct call *c)
{
    static const struct http_sink sink = { upload_data, upload_end, upload_broken };
    const char *addr = query(c, "advertise"), *wait = query(c, "wait");
    uint64_t wait_s = 600;
    if (c->api->b.node_id(c->api->b.arg)) {
        reply_error(c, E_UNAVAILABLE, "this node is already part of a cluster; a backup is restored on a machine that is in none");
        return;
    }
    if (wait && !str_u64(wait, 0, 7 * 24 * 3600, &wait_s)) {
        reply_error(c, E_INVALID, "wait: \"%s\" is no number of seconds up to a week", wait);
        return;
    }
    struct upload *u = xnew(struct upload);
    *u = (struct upload){ .c = c, .in = { .advertise_addr = addr && *addr ? xstrdup(addr) : NULL,
                                          .wait_ns = (int64_t)wait_s * SEC_NS, .state = backup_state_new() } };
    c->state = u;
    c->gone = upload_gone;
    http_sink_body(c->r, &sink, u);
}

const struct route backup_routes[] = {
    { "GET", "/shoal/v1/backup", backup, ROUTE_READ },
    { "POST", "/shoal/v1/restore", restore, ROUTE_LOCAL },
    { 0 },
};
