/* The part of a stream that is the same over every transport: held input, the receiver and its replacement,
 * splicing. Freed by its owner; a stream freed inside its own callback lives on until the turn ends. */
#include "stream_internal.h"
#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <shoal/link.h>

/* From HELD_MAX on the transport is paused; it still delivers what is under way: a link's channel up to its window, a
 * socket one read. */
enum { HELD_MAX_BYTES = 64 << 10, UNDER_WAY_BYTES = LINK_WINDOW_BYTES + (64 << 10), FULL_BYTES = 256 << 10 };

struct stream {
    struct loop *loop;
    const struct stream_ops *ops;
    void *impl; /* NULL: the transport is gone */
    struct stream_events ev;
    void *arg;
    struct sb held;
    bool got_eof, told_eof, failed, told_error, freed, offer_due, paused_for_held, paused;
    struct err error;
    int peer_uid;
    unsigned busy;
};

struct stream *stream_new(struct loop *l, const struct stream_ops *ops, void *impl)
{
    struct stream *s = xnew(struct stream);
    s->loop = l;
    s->ops = ops;
    s->impl = impl;
    s->peer_uid = -1;
    sb_init(&s->held, HELD_MAX_BYTES + UNDER_WAY_BYTES);
    return s;
}

void *stream_impl(struct stream *s)
{
    return s->impl;
}

void stream_set_uid(struct stream *s, int uid)
{
    s->peer_uid = uid;
}

int stream_peer_uid(const struct stream *s)
{
    return s->peer_uid;
}

static void really_free(void *arg)
{
    struct stream *s = arg;
    sb_done(&s->held);
    free(s);
}

static void let_go(struct stream *s, bool when_sent)
{
    s->freed = true;
    s->ev = (struct stream_events){ 0 };
    if (s->impl)
        s->ops->free(s->impl, when_sent);
    s->impl = NULL;
    loop_defer(s->loop, really_free, s);
}

void stream_free(struct stream *s)
{
    if (s && !s->freed)
        let_go(s, false);
}

void stream_free_when_sent(struct stream *s)
{
    if (s && !s->freed)
        let_go(s, true);
}

static void set_pause(struct stream *s)
{
    if (s->impl)
        s->ops->pause(s->impl, s->paused || s->paused_for_held);
}

/* Offers held bytes, then end or error, each once and in this order. */
static void offer(struct stream *s)
{
    if (s->freed || s->busy)
        return;
    s->busy++;
    while (s->held.len && s->ev.on_data && !s->paused) {
        size_t used = s->ev.on_data(s->arg, s->held.s, s->held.len);
        ASSERT(used <= s->held.len);
        if (s->freed)
            break;
        sb_drop_front(&s->held, used);
        if (!used)
            break;
    }
    if (!s->freed && s->paused_for_held && s->held.len < HELD_MAX_BYTES) {
        s->paused_for_held = false;
        set_pause(s);
    }
    bool drained = !s->held.len || s->got_eof || s->failed;
    if (!s->freed && s->got_eof && !s->told_eof && drained && !s->paused && s->ev.on_eof) {
        s->told_eof = true;
        s->ev.on_eof(s->arg);
    }
    if (!s->freed && s->failed && !s->told_error && s->ev.on_error) {
        s->told_error = true;
        s->ev.on_error(s->arg, &s->error);
    }
    s->busy--;
}

static void offer_later(void *arg)
{
    struct stream *s = arg;
    s->offer_due = false;
    offer(s);
}

static void want_offer(struct stream *s)
{
    if (s->offer_due || s->freed)
        return;
    s->offer_due = true;
    loop_defer(s->loop, offer_later, s); /* deferred frees run after it: queued later */
}

void stream_set_events(struct stream *s, const struct stream_events *ev, void *arg)
{
    s->ev = *ev;
    s->arg = arg;
    s->told_eof = false; /* the former receiver was, maybe */
    want_offer(s);
}

void stream_write(struct stream *s, const void *p, size_t size)
{
    if (s->impl && !s->failed && size)
        s->ops->write(s->impl, p, size);
}

size_t stream_queued(const struct stream *s)
{
    return s->impl ? s->ops->queued(s->impl) : 0;
}

bool stream_is_full(const struct stream *s)
{
    return stream_queued(s) > FULL_BYTES;
}

void stream_close_write(struct stream *s)
{
    if (s->impl && !s->failed)
        s->ops->close_write(s->impl);
}

void stream_pause(struct stream *s, bool paused)
{
    if (s->paused == paused)
        return;
    s->paused = paused;
    set_pause(s);
    if (!paused)
        want_offer(s);
}

void stream_got_data(struct stream *s, const void *p, size_t size)
{
    if (s->freed)
        return;
    sb_add(&s->held, p, size);
    ASSERT(!s->held.overflow);
    offer(s);
    if (!s->freed && s->held.len >= HELD_MAX_BYTES && !s->paused_for_held) {
        s->paused_for_held = true;
        set_pause(s);
    }
}

void stream_got_eof(struct stream *s)
{
    s->got_eof = true;
    offer(s);
}

void stream_got_error(struct stream *s, const struct err *e)
{
    if (s->failed)
        return;
    s->failed = true;
    s->error = *e;
    offer(s);
}

void stream_got_drain(struct stream *s)
{
    if (!s->freed && s->ev.on_drain)
        s->ev.on_drain(s->arg);
}

/* Splice: two half-ways, each pumping until its end. */
struct splice {
    struct loop *loop;
    struct stream *end[2];
    bool eof[2];
    bool over, answered; /* answered: the second end has sent something */
    stream_unanswered_fn *done;
    void *arg;
};

static void splice_free(void *arg)
{
    free(arg);
}

static void splice_end(struct splice *p, bool give_back)
{
    static const struct stream_events nobody = { 0 };
    if (p->over)
        return;
    p->over = true;
    if (give_back)
        stream_set_events(p->end[0], &nobody, NULL);
    else
        stream_free_when_sent(p->end[0]);
    stream_free_when_sent(p->end[1]);
    if (p->done)
        p->done(p->arg, give_back ? p->end[0] : NULL);
    loop_defer(p->loop, splice_free, p);
}

static size_t splice_data(struct splice *p, int from, const char *data, size_t size)
{
    struct stream *to = p->end[!from];
    p->answered |= from == 1;
    if (stream_is_full(to))
        return 0;
    stream_write(to, data, size);
    return size;
}

/* What this end still holds, because the other was full, goes before its end does. */
static void splice_rest(struct splice *p, int from)
{
    struct sb *held = &p->end[from]->held;
    p->answered |= from == 1 && held->len;
    stream_write(p->end[!from], held->s, held->len);
    sb_reset(held);
}

static bool went_unanswered(const struct splice *p, int from)
{
    return p->done && from == 1 && !p->answered;
}

static void splice_eof(struct splice *p, int from)
{
    p->eof[from] = true;
    splice_rest(p, from);
    if (went_unanswered(p, from)) {
        splice_end(p, true);
        return;
    }
    stream_close_write(p->end[!from]);
    if (p->eof[0] && p->eof[1])
        splice_end(p, false);
}

static void splice_error(struct splice *p, int from)
{
    if (p->over)
        return;
    splice_rest(p, from);
    splice_end(p, went_unanswered(p, from)); /* what the dead end sent still reaches the other */
}

#define SIDE(n)                                                                                            \
    static size_t data_##n(void *arg, const char *d, size_t size) { return splice_data(arg, n, d, size); } \
    static void eof_##n(void *arg) { splice_eof(arg, n); }                                                 \
    static void drain_##n(void *arg) { want_offer(((struct splice *)arg)->end[!n]); }                      \
    static void error_##n(void *arg, const struct err *e) { (void)e, splice_error(arg, n); }
SIDE(0)
SIDE(1)

void stream_splice_asking(struct stream *a, struct stream *b, stream_unanswered_fn *done, void *arg)
{
    static const struct stream_events ev[2] = { { data_0, drain_0, eof_0, error_0 }, { data_1, drain_1, eof_1, error_1 } };
    struct splice *p = xnew(struct splice);
    *p = (struct splice){ .loop = a->loop, .end = { a, b }, .done = done, .arg = arg };
    stream_set_events(a, &ev[0], p);
    stream_set_events(b, &ev[1], p);
    stream_pause(a, false);
    stream_pause(b, false);
}

void stream_splice(struct stream *a, struct stream *b)
{
    stream_splice_asking(a, b, NULL, NULL);
}
