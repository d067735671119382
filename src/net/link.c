/* Links: framing, sealing and multiplexing over a stream. Frame: u16 length of the sealed part, then
 * AEAD(kind u8, id u32, bytes). Kinds: MESSAGE (id: type, bit 8 = more follows), OPEN, DATA, EOF, RESET, WINDOW,
 * PING. Messages queue ahead of channel data, and only about 64 KiB are handed to the socket at a time, so a
 * bulk transfer never delays a heartbeat by more than that. */
#include <shoal/base/crypto.h>
#include <shoal/base/list.h>
#include <shoal/base/map.h>
#include <shoal/link.h>
#include <shoal/noise.h>

enum { FRAME_MAX = 16 << 10, HEAD = 5, SOCKET_BYTES = 64 << 10, QUEUE_MAX_BYTES = 64 << 20 };
enum kind { K_MESSAGE = 1, K_OPEN, K_DATA, K_EOF, K_RESET, K_WINDOW, K_PING };

struct channel {
    struct link *link; /* NULL: link is gone */
    struct stream *s;  /* NULL: freed by its owner */
    uint32_t id;
    uint32_t send_window, unacked; /* bytes we may send; bytes received and not yet credited */
    struct sb out;
    size_t out_sent;
    bool closing, eof_sent, eof_got, paused, free_when_sent, was_full, queued;
    struct list_node ready; /* has something to send */
};

struct link {
    struct loop *loop;
    const struct link_config *cfg;
    struct link_events ev;
    void *arg;
    struct stream *s;
    struct noise_xx noise;
    struct noise_cipher tx, rx;
    bool up, down, initiator, freed;
    uint8_t peer_key[32];
    struct sb messages; /* plain frames, priority */
    size_t messages_sent;
    struct sb incoming; /* message being put together */
    struct map channels;
    uint32_t next_id;
    struct list_node ready;
    struct loop_timer *timer;
    int64_t heard_ms, said_ms, born_ms;
    struct err why;
};

static void pump(struct link *l);

static const char prologue[] = "shoal link 1";

static void put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}

static uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void tell_down(void *arg)
{
    struct link *l = arg;
    if (!l->freed && l->ev.on_down)
        l->ev.on_down(l->arg, l, &l->why);
}

static void channel_free(struct channel *c)
{
    list_remove(&c->ready);
    sb_done(&c->out);
    free(c);
}

static void fail(struct link *l, const struct err *e)
{
    if (l->down)
        return;
    l->down = true;
    l->up = false;
    l->why = *e;
    loop_timer_set(l->timer, -1);
    stream_free(l->s);
    l->s = NULL;
    for (struct map_item *it = NULL; (it = map_next(&l->channels, it));) {
        struct channel *c = it->value;
        map_remove_n(&l->channels, it->key, it->key_len);
        list_remove(&c->ready);
        c->ready.next = NULL;
        c->link = NULL;
        if (c->s)
            stream_got_error(c->s, e);
        else
            channel_free(c);
    }
    loop_defer(l->loop, tell_down, l);
}

static void fail_text(struct link *l, int code, const char *text)
{
    struct err e;
    err_set(&e, code, "%s", text);
    fail(l, &e);
}

static void seal(struct link *l, enum kind kind, uint32_t id, const void *p, size_t size)
{
    uint8_t plain[HEAD + FRAME_MAX], sealed[2 + HEAD + FRAME_MAX + CRYPTO_TAG_SIZE];
    size_t n = HEAD + size;
    plain[0] = (uint8_t)kind;
    put_be32(plain + 1, id);
    if (size)
        memcpy(plain + HEAD, p, size);
    sealed[0] = (uint8_t)((n + CRYPTO_TAG_SIZE) >> 8);
    sealed[1] = (uint8_t)(n + CRYPTO_TAG_SIZE);
    crypto_aead_seal(sealed + 2, plain, n, sealed, 2, l->tx.counter++, l->tx.key);
    stream_write(l->s, sealed, 2 + n + CRYPTO_TAG_SIZE);
}

static void queue_frame(struct link *l, enum kind kind, uint32_t id, const void *p, size_t size)
{
    uint8_t head[3 + HEAD - 1];
    head[0] = (uint8_t)kind;
    put_be32(head + 1, id);
    head[5] = (uint8_t)(size >> 8);
    head[6] = (uint8_t)size;
    sb_add(&l->messages, head, 7);
    sb_add(&l->messages, p, size);
}

static void channel_ready(struct channel *c)
{
    if (c->link && !c->queued) {
        c->queued = true;
        list_push_back(&c->link->ready, &c->ready);
    }
}

static bool channel_over(const struct channel *c)
{
    return !c->s && (c->eof_sent || !c->free_when_sent);
}

static void drop(struct channel *c)
{
    uint8_t key[4];
    put_be32(key, c->id);
    if (c->link)
        map_remove_n(&c->link->channels, key, 4);
    channel_free(c);
}

/* Sends one frame of a channel; true while it has more that may go now. */
static bool channel_step(struct channel *c)
{
    struct link *l = c->link;
    size_t left = c->out.len - c->out_sent, n = MIN(MIN(left, (size_t)c->send_window), (size_t)FRAME_MAX);
    if (n) {
        seal(l, K_DATA, c->id, c->out.s + c->out_sent, n);
        c->out_sent += n;
        c->send_window -= (uint32_t)n;
        if (c->out_sent == c->out.len) {
            sb_reset(&c->out);
            c->out_sent = 0;
        } else if (c->out_sent > LINK_WINDOW_BYTES) {
            sb_drop_front(&c->out, c->out_sent);
            c->out_sent = 0;
        }
        left -= n;
    }
    if (!left && c->closing && !c->eof_sent) {
        c->eof_sent = true;
        seal(l, K_EOF, c->id, NULL, 0);
    }
    return left && c->send_window;
}

static void pump(struct link *l)
{
    if (!l->up || l->down)
        return;
    int64_t now = loop_now_ms(l->loop);
    while (!l->down && stream_queued(l->s) < SOCKET_BYTES) {
        if (l->messages_sent < l->messages.len) {
            const uint8_t *h = (const uint8_t *)l->messages.s + l->messages_sent;
            size_t size = (size_t)h[5] << 8 | h[6];
            seal(l, (enum kind)h[0], get_be32(h + 1), h + 7, size);
            l->messages_sent += 7 + size;
            if (l->messages_sent == l->messages.len) {
                sb_reset(&l->messages);
                l->messages_sent = 0;
            } else if (l->messages_sent > 1 << 20) {
                sb_drop_front(&l->messages, l->messages_sent);
                l->messages_sent = 0;
            }
        } else if (!list_is_empty(&l->ready)) {
            struct channel *c = list_first(&l->ready, struct channel, ready);
            list_remove(&c->ready);
            c->queued = false;
            if (channel_step(c))
                channel_ready(c);
            if (channel_over(c))
                drop(c);
            else if (c->was_full && c->s && c->out.len - c->out_sent < LINK_WINDOW_BYTES / 4) {
                c->was_full = false;
                stream_got_drain(c->s);
            }
        } else {
            return;
        }
        l->said_ms = now;
    }
}

static void pump_later(void *arg)
{
    struct link *l = arg;
    if (!l->freed)
        pump(l);
}

static void op_write(void *impl, const void *p, size_t size)
{
    struct channel *c = impl;
    if (!c->link || c->closing)
        return;
    sb_add(&c->out, p, size);
    if (c->out.len - c->out_sent >= LINK_WINDOW_BYTES / 2)
        c->was_full = true;
    channel_ready(c);
    loop_defer(c->link->loop, pump_later, c->link);
}

static size_t op_queued(void *impl)
{
    const struct channel *c = impl;
    return c->out.len - c->out_sent;
}

static void op_close_write(void *impl)
{
    struct channel *c = impl;
    if (!c->link)
        return;
    c->closing = true;
    channel_ready(c);
    loop_defer(c->link->loop, pump_later, c->link);
}

static void credit(struct channel *c)
{
    uint8_t n[4];
    if (!c->link || c->paused || c->unacked < LINK_WINDOW_BYTES / 4)
        return;
    put_be32(n, c->unacked);
    c->unacked = 0;
    queue_frame(c->link, K_WINDOW, c->id, n, 4);
    loop_defer(c->link->loop, pump_later, c->link);
}

static void op_pause(void *impl, bool paused)
{
    struct channel *c = impl;
    c->paused = paused;
    credit(c);
}

static void op_free(void *impl, bool when_sent)
{
    struct channel *c = impl;
    c->s = NULL;
    if (!c->link) {
        channel_free(c);
        return;
    }
    c->free_when_sent = when_sent;
    c->closing = true;
    if (!when_sent && !(c->eof_sent && c->eof_got))
        queue_frame(c->link, K_RESET, c->id, NULL, 0);
    struct link *l = c->link;
    if (!when_sent)
        drop(c);
    else
        channel_ready(c);
    loop_defer(l->loop, pump_later, l);
}

static const struct stream_ops channel_ops = { op_write, op_queued, op_close_write, op_pause, op_free };

static struct channel *channel_new(struct link *l, uint32_t id)
{
    struct channel *c = xnew(struct channel);
    uint8_t key[4];
    *c = (struct channel){ .link = l, .id = id, .send_window = LINK_WINDOW_BYTES };
    sb_init(&c->out, 64 << 20);
    c->s = stream_new(l->loop, &channel_ops, c);
    put_be32(key, id);
    map_put_n(&l->channels, key, 4, c);
    return c;
}

struct stream *link_channel_open(struct link *l, uint8_t service)
{
    if (!l->up || l->channels.n >= LINK_CHANNELS_MAX)
        return NULL;
    l->next_id += 2;
    struct channel *c = channel_new(l, l->next_id);
    queue_frame(l, K_OPEN, c->id, &service, 1);
    loop_defer(l->loop, pump_later, l);
    return c->s;
}

static void got_message(struct link *l, uint32_t id, const uint8_t *p, size_t size)
{
    bool more = id & 0x100;
    size_t most = l->cfg->message_max ? l->cfg->message_max : (size_t)LINK_MESSAGE_MAX_BYTES;
    if (l->incoming.len + size > most) {
        fail_text(l, E_TOO_BIG, "the peer sent a message larger than its limit");
        return;
    }
    if (!more && !l->incoming.len) {
        l->ev.on_message(l->arg, l, (uint8_t)id, p, size);
        return;
    }
    sb_add(&l->incoming, p, size);
    if (more)
        return;
    struct sb whole = l->incoming;
    sb_init(&l->incoming, LINK_MESSAGE_MAX_BYTES + 1);
    l->ev.on_message(l->arg, l, (uint8_t)id, whole.s, whole.len);
    sb_done(&whole);
}

static void got_open(struct link *l, uint32_t id, const uint8_t *p, size_t size)
{
    uint8_t key[4];
    put_be32(key, id);
    if (size != 1 || (id & 1) == (l->initiator ? 1U : 0U) || map_find_n(&l->channels, key, 4)) {
        fail_text(l, E_CORRUPT, "the peer opened a channel wrongly");
        return;
    }
    if (!l->ev.on_channel || l->channels.n >= LINK_CHANNELS_MAX) {
        queue_frame(l, K_RESET, id, NULL, 0);
        return;
    }
    struct channel *c = channel_new(l, id);
    l->ev.on_channel(l->arg, l, p[0], c->s);
}

static void got_channel(struct link *l, enum kind kind, uint32_t id, const uint8_t *p, size_t size)
{
    uint8_t key[4];
    put_be32(key, id);
    struct channel *c = map_find_n(&l->channels, key, 4);
    if (!c)
        return; /* it was freed here; the peer will hear of it */
    if (kind == K_WINDOW && size == 4) {
        uint64_t window = (uint64_t)c->send_window + get_be32(p);
        if (window > LINK_WINDOW_BYTES) {
            fail_text(l, E_CORRUPT, "the peer credited more than a channel's window");
            return;
        }
        c->send_window = (uint32_t)window;
        channel_ready(c);
    } else if (kind == K_DATA) {
        c->unacked += (uint32_t)size;
        if (c->unacked > LINK_WINDOW_BYTES || c->eof_got) {
            fail_text(l, E_CORRUPT, "the peer sent more than a channel's window");
            return;
        }
        if (c->s)
            stream_got_data(c->s, p, size);
        c = l->down ? NULL : map_find_n(&l->channels, key, 4);
        if (c)
            credit(c);
    } else if (kind == K_EOF) {
        c->eof_got = true;
        if (c->s)
            stream_got_eof(c->s);
    } else if (kind == K_RESET) {
        struct err e;
        err_set(&e, E_CLOSED, "the other node closed the channel");
        map_remove_n(&l->channels, key, 4);
        list_remove(&c->ready);
        c->ready.next = NULL;
        c->link = NULL;
        if (c->s)
            stream_got_error(c->s, &e);
        else
            channel_free(c);
    }
}

static void got_frame(struct link *l, const uint8_t *p, size_t size)
{
    enum kind kind = (enum kind)p[0];
    uint32_t id = get_be32(p + 1);
    p += HEAD;
    size -= HEAD;
    switch (kind) {
    case K_MESSAGE: got_message(l, id, p, size); break;
    case K_OPEN: got_open(l, id, p, size); break;
    case K_DATA: case K_EOF: case K_RESET: case K_WINDOW: got_channel(l, kind, id, p, size); break;
    case K_PING: break;
    }
}

static void send_handshake(struct link *l)
{
    struct sb m, framed;
    uint8_t len[2];
    sb_init(&m, 0);
    sb_init(&framed, 0);
    bool with_payload = l->noise.message > 0;
    noise_xx_write(&l->noise, with_payload ? l->cfg->payload : "", with_payload ? l->cfg->payload_size : 0, &m);
    len[0] = (uint8_t)(m.len >> 8);
    len[1] = (uint8_t)m.len;
    sb_add(&framed, len, 2);
    sb_add(&framed, m.s, m.len);
    stream_write(l->s, framed.s, framed.len);
    sb_done(&m);
    sb_done(&framed);
}

static void come_up(struct link *l)
{
    noise_xx_split(&l->noise, &l->tx, &l->rx);
    l->up = true;
    l->ev.on_up(l->arg, l);
    if (!l->freed)
        pump(l);
}

static void got_handshake(struct link *l, const void *p, size_t size)
{
    struct sb payload;
    struct err e;
    sb_init(&payload, 0);
    int message = l->noise.message;
    int r = noise_xx_read(&l->noise, p, size, &payload, &e);
    if (r == 0 && message > 0) {
        memcpy(l->peer_key, l->noise.rs, 32);
        r = payload.len > LINK_PAYLOAD_MAX_BYTES
                ? err_set(&e, E_TOO_BIG, "the peer's certificate is too big")
                : l->cfg->verify(l->cfg->arg, l->peer_key, payload.s, payload.len, &e);
    }
    sb_done(&payload);
    if (r < 0) {
        fail(l, &e);
        return;
    }
    if (noise_xx_my_turn(&l->noise))
        send_handshake(l);
    if (noise_xx_done(&l->noise))
        come_up(l);
}

/* One whole frame at p; false when the link ended. */
static bool got_sealed(struct link *l, const uint8_t *p, size_t size)
{
    uint8_t plain[65536];
    if (!l->up) {
        got_handshake(l, p + 2, size - 2);
    } else if (size - 2 < HEAD + CRYPTO_TAG_SIZE || size - 2 > HEAD + FRAME_MAX + CRYPTO_TAG_SIZE ||
               !crypto_aead_open(plain, p + 2, size - 2, p, 2, l->rx.counter++, l->rx.key)) {
        fail_text(l, E_DENIED, "a frame of the peer is not authentic");
    } else {
        got_frame(l, plain, size - 2 - CRYPTO_TAG_SIZE);
    }
    return !l->down && !l->freed;
}

static size_t on_data(void *arg, const char *data, size_t size)
{
    struct link *l = arg;
    const uint8_t *p = (const uint8_t *)data;
    size_t used = 0;
    l->heard_ms = loop_now_ms(l->loop);
    while (size - used >= 2) {
        size_t n = 2 + ((size_t)p[used] << 8 | p[used + 1]);
        if (size - used < n)
            break;
        used += n;
        if (!got_sealed(l, p + used - n, n))
            return used;
    }
    if (l->up)
        pump(l);
    return used;
}

static void on_drain(void *arg)
{
    pump(arg);
}

static void on_eof(void *arg)
{
    fail_text(arg, E_CLOSED, "the peer closed the connection");
}

static void on_error(void *arg, const struct err *e)
{
    fail(arg, e);
}

static void on_timer(void *arg)
{
    struct link *l = arg;
    int64_t now = loop_now_ms(l->loop);
    int64_t handshake = l->cfg->handshake_ms ? l->cfg->handshake_ms : 5000;
    int64_t idle = l->cfg->idle_ms ? l->cfg->idle_ms : 1000, dead = l->cfg->dead_ms ? l->cfg->dead_ms : 10000;
    if (!l->up && now - l->born_ms >= handshake) {
        fail_text(l, E_TIMEOUT, "the peer did not finish the handshake in time");
        return;
    }
    if (l->up && now - l->heard_ms >= dead) {
        fail_text(l, E_TIMEOUT, "the peer is silent");
        return;
    }
    if (l->up && now - l->said_ms >= idle) {
        queue_frame(l, K_PING, 0, NULL, 0);
        pump(l);
    }
    if (!l->down)
        loop_timer_set(l->timer, MIN(idle, handshake));
}

static struct link *make(struct loop *loop, struct stream *s, bool initiator, const struct link_config *cfg,
                         const struct link_events *ev, void *arg)
{
    static const struct stream_events stream_ev = { on_data, on_drain, on_eof, on_error };
    struct link *l = xnew(struct link);
    int64_t now = loop_now_ms(loop);
    *l = (struct link){ .loop = loop, .cfg = cfg, .ev = *ev, .arg = arg, .s = s, .initiator = initiator,
                        .heard_ms = now, .said_ms = now, .born_ms = now, .next_id = initiator ? 1 : 2 };
    sb_init(&l->messages, QUEUE_MAX_BYTES + (1 << 20));
    sb_init(&l->incoming, LINK_MESSAGE_MAX_BYTES + 1);
    map_init(&l->channels);
    list_init(&l->ready);
    noise_xx_init(&l->noise, initiator, cfg->dh_secret, prologue, sizeof prologue - 1);
    l->timer = loop_timer_new(loop, on_timer, l);
    loop_timer_set(l->timer, 200);
    stream_set_events(s, &stream_ev, l);
    if (initiator)
        send_handshake(l);
    return l;
}

struct link *link_connect(struct loop *loop, const char *addr, uint16_t port, const struct link_config *cfg,
                          const struct link_events *ev, void *arg)
{
    return make(loop, stream_connect_tcp(loop, addr, port), true, cfg, ev, arg);
}

struct link *link_accept(struct loop *loop, struct stream *s, const struct link_config *cfg,
                         const struct link_events *ev, void *arg)
{
    return make(loop, s, false, cfg, ev, arg);
}

void link_set_events(struct link *l, const struct link_events *ev, void *arg)
{
    l->ev = *ev;
    l->arg = arg;
}

static void destroy(void *arg)
{
    struct link *l = arg;
    sb_done(&l->messages);
    sb_done(&l->incoming);
    map_done(&l->channels);
    loop_timer_free(l->timer);
    crypto_wipe(l, sizeof *l);
    free(l);
}

void link_free(struct link *l)
{
    if (!l || l->freed)
        return;
    fail_text(l, E_CLOSED, "the connection to the other node was closed");
    l->freed = true;
    l->ev = (struct link_events){ 0 };
    loop_defer(l->loop, destroy, l); /* after tell_down and pump_later calls already queued */
}

bool link_is_up(const struct link *l)
{
    return l->up;
}

int64_t link_heard_ms(const struct link *l)
{
    return l->heard_ms;
}

size_t link_queued(const struct link *l)
{
    return l->messages.len - l->messages_sent + (l->s ? stream_queued(l->s) : 0);
}

unsigned link_n_channels(const struct link *l)
{
    return l->channels.n;
}

const uint8_t *link_peer_key(const struct link *l)
{
    return l->peer_key;
}

int link_send(struct link *l, uint8_t type, const void *p, size_t size)
{
    const char *at = p;
    if (!l->up)
        return -E_CLOSED;
    if (size > LINK_MESSAGE_MAX_BYTES)
        return -E_TOO_BIG;
    if (l->messages.len - l->messages_sent + size > QUEUE_MAX_BYTES)
        return -E_BUSY;
    do {
        size_t n = MIN(size, (size_t)FRAME_MAX);
        size -= n;
        queue_frame(l, K_MESSAGE, type | (size ? 0x100U : 0U), at, n);
        at += n;
    } while (size);
    pump(l);
    return 0;
}
