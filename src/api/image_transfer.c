/* /images: save. */
#include "api_internal.h"

LOG_MODULE("api");

enum { PIECE = 512 << 10 };

/* ---- save: read on the bulk lane, piece by piece, as fast as the client takes it ---- */
struct saver {
    struct call *c;
    struct image_save *save;
    char *buf;
    long n;
    bool reading;
    struct err e;
};

static void saver_free(struct saver *u)
{
    image_save_free(u->save);
    free(u->buf);
    free(u);
}

static void save_work(void *arg)
{
    struct saver *u = arg;
    u->n = image_save_read(u->save, u->buf, PIECE, &u->e);
}

static void save_next(struct saver *u);

static void save_done(void *arg)
{
    struct saver *u = arg;
    struct call *c = u->c;
    if (!c->r) {
        call_free(c);
        saver_free(u);
    } else if (u->n > 0) {
        stream_put(c, u->buf, (size_t)u->n); /* may drain at once: buf must not be read into meanwhile */
        u->reading = false;
        save_next(u);
    } else {
        if (u->n < 0)
            log_warn("image save: %s", u->e.text);
        if (u->n < 0)
            http_stream_cut(TAKE(c->r));
        stream_done(c);
        saver_free(u);
    }
}

static void save_next(struct saver *u)
{
    if (u->reading || http_stream_is_full(u->c->r))
        return; /* save_drain goes on */
    u->reading = true;
    if (loop_work(u->c->api->b.loop, LANE_BULK, save_work, save_done, u) == 0)
        return;
    u->n = err_set(&u->e, E_BUSY, "too many jobs are waiting");
    loop_defer(u->c->api->b.loop, save_done, u);
}

static void save_drain(struct call *c)
{
    if (!((struct saver *)c->state)->reading)
        save_next(c->state);
}

static void save_gone(struct call *c)
{
    struct saver *u = c->state;
    if (u->reading)
        return; /* save_done finds the client gone */
    call_free(c);
    saver_free(u);
}

void image_save(struct call *c)
{
    struct strs names = { 0 };
    struct saver *u = xnew(struct saver);
    struct err e;
    const char *name;
    if (c->param[0])
        strs_add(&names, c->param[0]);
    for (unsigned k = 0; !c->param[0] && (name = http_query_nth(c->r, "names", k)); k++)
        strs_add(&names, name);
    int r = image_save_new(&u->save, c->api->b.images, &names, &e);
    if (r < 0) {
        free(u);
        reply_err(c, &e);
    } else {
        for (uint32_t i = 0; i < names.n; i++)
            image_event(c->api, "save", names.v[i], names.v[i]);
        u->c = c;
        u->buf = xcalloc(1, PIECE);
        c->state = u;
        c->gone = save_gone;
        c->drain = save_drain;
        stream_begin(c, "application/x-tar");
        save_next(u);
    }
    strs_clear(&names);
}
