/* A WireGuard peer. Three sessions: previous (still opens), current (seals), next (ours as responder, until the
 * other end has used it). The initiator renews after 120 s of age; nothing is sealed or opened after 180 s. */
#include "peer.h"
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>

enum { TYPE_INITIATION = 1, TYPE_RESPONSE, TYPE_COOKIE, TYPE_DATA, DATA_HEAD = 16, TAG = 16 };
#define REKEY_AFTER_MESSAGES (UINT64_C(1) << 60)
/* Of AES-256-GCM, whose advantage for a forger grows with the blocks under one key (RFC 8446, 5.5): 2^30 packets of 90 blocks. */
#define AES_REKEY_MESSAGES (UINT64_C(1) << 28)
#define AES_MESSAGES_MAX (UINT64_C(1) << 30)
enum { HELLO_BYTES = 16, HELLO_CAN = 8, HELLO_KNOWS = 9 };
static const uint8_t hello_head[8] = { 1, 's', 'h', 'o', 'a', 'l', 1, 0 }; /* the first byte is no version of IP */
#define REJECT_AFTER_MESSAGES (UINT64_MAX - (1 << 13))

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* TAI64N of real time; low bits of the nanoseconds are blanked, as the whitepaper advises. */
static void tai64n(uint8_t out[12], int64_t real_ns)
{
    uint64_t s = (uint64_t)(real_ns / 1000000000) + UINT64_C(0x400000000000000a);
    uint32_t ns = (uint32_t)(real_ns % 1000000000) & ~UINT32_C(0xffffff);
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(s >> (56 - 8 * i));
    for (int i = 0; i < 4; i++)
        out[8 + i] = (uint8_t)(ns >> (24 - 8 * i));
}

static void session_wipe(struct session *s)
{
    crypto_gcm_free(s->aes_send);
    crypto_gcm_free(s->aes_receive);
    crypto_wipe(s, sizeof *s);
}

static void session_move(struct session *to, struct session *from)
{
    session_wipe(to);
    *to = *from;
    crypto_wipe(from, sizeof *from);
}

static bool session_alive(const struct session *s, int64_t now_ms)
{
    return s->valid && now_ms - s->born_ms < PEER_REJECT_AFTER_MS;
}

void peer_init(struct peer *p, const struct ik_identity *id, const uint8_t key[32], uint32_t slot, uint8_t can,
               const struct peer_out *out, void *arg)
{
    uint8_t r[2];
    *p = (struct peer){ .id = id, .out = out, .arg = arg, .slot = slot, .can = can };
    memcpy(p->key, key, 32);
    crypto_random(r, sizeof r);
    p->generation = r[0];
    p->jitter_ms = (uint32_t)r[1] * 334 / 256;
}

void peer_done(struct peer *p)
{
    for (unsigned i = 0; i < p->queue_n; i++)
        free(p->queue[(p->queue_first + i) % PEER_QUEUE_MAX].p);
    session_wipe(&p->current);
    session_wipe(&p->previous);
    session_wipe(&p->next);
    crypto_wipe(p, sizeof *p);
}

static struct session *session_by_index(struct peer *p, uint32_t index)
{
    struct session *all[] = { &p->current, &p->previous, &p->next };
    for (unsigned i = 0; i < ARRAY_N(all); i++)
        if (all[i]->valid && all[i]->our_index == index)
            return all[i];
    return NULL;
}

static uint32_t new_index(struct peer *p)
{
    uint32_t index;
    do
        index = p->slot << 8 | ++p->generation;
    while (session_by_index(p, index) || (p->handshaking && p->hs.our_index == index));
    return index;
}

/* ---- handshake ---- */
static void send_initiation(struct peer *p, int64_t now_ms, int64_t real_ns)
{
    uint8_t msg[IK_INITIATION_BYTES], stamp[IK_TIMESTAMP_BYTES];
    bool has_cookie = p->cookie_ms && now_ms - p->cookie_ms < PEER_COOKIE_MS;
    p->sent_initiation_ms = now_ms;
    if (!p->endpoint.known)
        return;
    tai64n(stamp, real_ns);
    if (!ik_initiate(&p->hs, p->id, p->key, new_index(p), stamp, has_cookie ? p->cookie : NULL, msg))
        return;
    memcpy(p->last_mac1, msg + IK_INITIATION_BYTES - 32, IK_MAC_BYTES);
    p->out->send(p->out->arg, &p->endpoint, msg, sizeof msg);
}

static void want_handshake(struct peer *p, int64_t now_ms, int64_t real_ns)
{
    if (p->handshaking || (p->sent_initiation_ms && now_ms - p->sent_initiation_ms < PEER_REKEY_TIMEOUT_MS &&
                           session_alive(&p->current, now_ms)))
        return;
    p->handshaking = true;
    p->started_ms = now_ms;
    send_initiation(p, now_ms, real_ns);
}

void peer_saw_whole(struct peer *p, enum peer_form form, size_t size)
{
    size_t *largest = &p->largest[form != PEER_WIREGUARD];
    *largest = MAX(*largest, size);
}

size_t peer_padded(const struct peer *p, enum peer_form form, size_t size)
{
    return MIN((size + 15) & ~(size_t)15, MAX(p->largest[form != PEER_WIREGUARD], size));
}

static void seal(struct peer *p, struct session *s, enum peer_form form, const uint8_t *packet, size_t size)
{
    if (!p->endpoint.known)
        return;
    size_t whole = DATA_HEAD + size + TAG;
    uint8_t *out = p->out->room(p->out->arg, whole);
    put32(out, TYPE_DATA + (uint32_t)form);
    put32(out + 4, s->peer_index);
    put64(out + 8, s->n_sent);
    if (form == PEER_AES)
        crypto_gcm_seal(s->aes_send, out + DATA_HEAD, packet, size, s->n_sent);
    else
        crypto_aead_seal(out + DATA_HEAD, packet, size, NULL, 0, s->n_sent, form == PEER_CHACHA ? s->chacha.send : s->keys.send);
    s->n_sent++;
    p->owes_keepalive = false;
    p->out->send(p->out->arg, &p->endpoint, out, whole);
}

static void seal_keepalive(struct peer *p)
{
    seal(p, &p->current, PEER_WIREGUARD, NULL, 0);
}

static void seal_data(struct peer *p, struct session *s, int64_t now_ms, enum peer_form form, const uint8_t *packet, size_t size)
{
    static uint8_t plain[PEER_PACKET_MAX_BYTES + 16];
    size_t padded = form == PEER_WIREGUARD ? peer_padded(p, form, size) : size;
    if (padded != size) {
        memcpy(plain, packet, size);
        memset(plain + size, 0, padded - size);
        packet = plain;
    }
    seal(p, s, form, packet, padded);
    p->tx_bytes += size;
    p->data_sent_ms = now_ms;
    if (!p->expects_answer) {
        p->expects_answer = true;
        p->expects_since_ms = now_ms;
    }
}

/* Counts as a keepalive for our timers: no answer to it is expected. */
static void send_hello(struct peer *p, struct session *s, int64_t now_ms)
{
    uint8_t hello[HELLO_BYTES] = { 0 };
    if (!p->can)
        return;
    memcpy(hello, hello_head, sizeof hello_head);
    hello[HELLO_CAN] = p->can;
    hello[HELLO_KNOWS] = s->heard_hello;
    s->n_hellos++;
    s->hello_ms = now_ms;
    seal(p, s, PEER_WIREGUARD, hello, sizeof hello);
}

static bool got_hello(struct peer *p, struct session *s, int64_t now_ms, const uint8_t *plain, size_t size)
{
    if (!p->can || size < HELLO_BYTES || memcmp(plain, hello_head, sizeof hello_head) != 0)
        return false;
    bool answer = !s->heard_hello || !plain[HELLO_KNOWS] || now_ms - s->hello_ms >= PEER_HELLO_MS; /* not to an answer */
    s->heard_hello = true;
    s->peer_can = plain[HELLO_CAN] & p->can;
    s->peer_knows |= plain[HELLO_KNOWS] == 1;
    if (answer && session_alive(s, now_ms)) /* not always the current one: handshakes that cross leave each end with the other's */
        send_hello(p, s, now_ms);
    return true;
}

static void flush_queue(struct peer *p, int64_t now_ms)
{
    while (p->queue_n) {
        struct queued *q = &p->queue[p->queue_first];
        seal_data(p, &p->current, now_ms, PEER_WIREGUARD, q->p, q->size);
        free(q->p);
        p->queue_first = (p->queue_first + 1) % PEER_QUEUE_MAX;
        p->queue_n--;
    }
}

enum peer_form peer_form(const struct peer *p, int64_t now_ms)
{
    const struct session *s = &p->current;
    if (!session_alive(s, now_ms) || !(s->peer_can & PEER_CAN_COMPACT))
        return PEER_WIREGUARD;
    return s->peer_can & PEER_CAN_AES && s->n_sent < AES_MESSAGES_MAX ? PEER_AES : PEER_CHACHA;
}

void peer_send(struct peer *p, int64_t now_ms, int64_t real_ns, enum peer_form form, const uint8_t *packet, size_t size)
{
    struct session *s = &p->current;
    if (!size || size > PEER_PACKET_MAX_BYTES)
        return;
    if (session_alive(s, now_ms) && s->n_sent < REJECT_AFTER_MESSAGES) {
        seal_data(p, s, now_ms, form, packet, size);
        if ((s->initiator && now_ms - s->born_ms > PEER_REKEY_AFTER_MS) ||
            s->n_sent > (form == PEER_AES ? AES_REKEY_MESSAGES : REKEY_AFTER_MESSAGES))
            want_handshake(p, now_ms, real_ns);
        return;
    }
    if (form == PEER_WIREGUARD) {
        if (p->queue_n == PEER_QUEUE_MAX) {
            free(p->queue[p->queue_first].p);
            p->queue_first = (p->queue_first + 1) % PEER_QUEUE_MAX;
            p->queue_n--;
            p->n_dropped++;
        }
        p->queue[(p->queue_first + p->queue_n++) % PEER_QUEUE_MAX] = (struct queued){ xmemdup(packet, size), size };
    }
    want_handshake(p, now_ms, real_ns);
}

/* No key serves two ciphers or two forms. */
static void derive_keys(struct ik_keys *out, const struct ik_keys *in, const char *label)
{
    crypto_blake2s(out->send, 32, label, strlen(label), in->send, 32);
    crypto_blake2s(out->receive, 32, label, strlen(label), in->receive, 32);
}

static void begin_session(struct session *s, const struct ik_keys *keys, bool initiator, uint32_t ours, uint32_t theirs,
                          int64_t now_ms, uint8_t can)
{
    session_wipe(s);
    *s = (struct session){ .valid = true, .initiator = initiator, .keys = *keys, .our_index = ours,
                           .peer_index = theirs, .born_ms = now_ms };
    if (can & PEER_CAN_COMPACT)
        derive_keys(&s->chacha, keys, "shoal tunnel: compact, ChaCha20-Poly1305");
    if (can & PEER_CAN_AES) {
        struct ik_keys aes;
        derive_keys(&aes, keys, "shoal tunnel: compact, AES-256-GCM");
        s->aes_send = crypto_gcm_new(aes.send);
        s->aes_receive = crypto_gcm_new(aes.receive);
        crypto_wipe(&aes, sizeof aes);
    }
    replay_init(&s->window);
}

void peer_initiated(struct peer *p, int64_t now_ms, const struct endpoint *from, struct ik_handshake *hs,
                    const uint8_t timestamp[IK_TIMESTAMP_BYTES])
{
    uint8_t msg[IK_RESPONSE_BYTES];
    struct ik_keys keys;
    uint32_t theirs = hs->peer_index, ours;
    bool has_cookie = p->cookie_ms && now_ms - p->cookie_ms < PEER_COOKIE_MS;
    if (memcmp(timestamp, p->latest_timestamp, IK_TIMESTAMP_BYTES) <= 0 ||
        (p->initiated_ms && now_ms - p->initiated_ms < PEER_INITIATION_MIN_MS))
        return; /* replayed, or a flood of them */
    p->initiated_ms = now_ms;
    ours = new_index(p);
    if (!ik_respond(hs, p->id, p->key, ours, has_cookie ? p->cookie : NULL, msg, &keys))
        return;
    memcpy(p->latest_timestamp, timestamp, IK_TIMESTAMP_BYTES);
    memcpy(p->last_mac1, msg + IK_RESPONSE_BYTES - 32, IK_MAC_BYTES);
    begin_session(&p->next, &keys, false, ours, theirs, now_ms, p->can);
    crypto_wipe(&keys, sizeof keys);
    p->endpoint = *from;
    p->heard_ms = now_ms;
    p->out->send(p->out->arg, &p->endpoint, msg, sizeof msg);
}

static void got_response(struct peer *p, int64_t now_ms, const struct endpoint *from, const uint8_t *packet)
{
    struct ik_keys keys;
    uint32_t ours = p->hs.our_index;
    if (!p->handshaking || !ik_read_response(&p->hs, p->id, packet, &keys))
        return;
    session_move(&p->previous, &p->current);
    begin_session(&p->current, &keys, true, ours, p->hs.peer_index, now_ms, p->can);
    crypto_wipe(&keys, sizeof keys);
    p->handshaking = false;
    p->expects_answer = false;
    p->endpoint = *from;
    p->heard_ms = p->handshake_ms = now_ms;
    send_hello(p, &p->current, now_ms); /* confirms it, as any packet does */
    if (!p->queue_n && !p->can)
        seal_keepalive(p);
    flush_queue(p, now_ms);
}

/* ---- data ---- */
static bool open_data(const struct peer *p, const struct session *s, enum peer_form form, uint64_t counter, uint8_t *sealed, size_t size)
{
    switch (form) {
    case PEER_WIREGUARD:
        return crypto_aead_open(sealed, sealed, size, NULL, 0, counter, s->keys.receive);
    case PEER_CHACHA:
        return p->can & PEER_CAN_COMPACT && crypto_aead_open(sealed, sealed, size, NULL, 0, counter, s->chacha.receive);
    case PEER_AES:
        return s->aes_receive && crypto_gcm_open(s->aes_receive, sealed, sealed, size, counter);
    }
    return false;
}

/* The initiator uses it: now it is ours too. */
static void confirm_next(struct peer *p, int64_t now_ms)
{
    session_move(&p->previous, &p->current);
    session_move(&p->current, &p->next);
    p->handshaking = false;
    p->handshake_ms = now_ms;
    flush_queue(p, now_ms);
}

static void got_data(struct peer *p, int64_t now_ms, int64_t real_ns, const struct endpoint *from, uint8_t *packet,
                     size_t size)
{
    struct session *s = session_by_index(p, get32(packet + 4));
    enum peer_form form = (enum peer_form)(packet[0] - TYPE_DATA);
    uint64_t counter = get64(packet + 8);
    uint8_t *plain = packet + DATA_HEAD;
    size_t n = size - DATA_HEAD - TAG;
    if (!s || !session_alive(s, now_ms) || counter >= REJECT_AFTER_MESSAGES || !open_data(p, s, form, counter, plain, n + TAG))
        return;
    bool newest = replay_is_newest(&s->window, counter);
    if (!replay_accept(&s->window, counter))
        return;
    if (newest)
        p->endpoint = *from;
    if (s == &p->next) {
        confirm_next(p, now_ms);
        s = &p->current;
    }
    p->heard_ms = now_ms;
    p->expects_answer = false;
    p->rx_bytes += n;
    s->peer_knows |= form != PEER_WIREGUARD;
    if (s->initiator && now_ms - s->born_ms > PEER_REJECT_AFTER_MS - PEER_KEEPALIVE_MS - PEER_REKEY_TIMEOUT_MS)
        want_handshake(p, now_ms, real_ns);
    bool hello = form == PEER_WIREGUARD && got_hello(p, s, now_ms, plain, n);
    if (s == &p->current && !s->n_hellos)
        send_hello(p, &p->current, now_ms);
    if (n == 0 || hello)
        return;
    if (!p->owes_keepalive) {
        p->owes_keepalive = true;
        p->data_heard_ms = now_ms;
    }
    p->out->deliver(p->out->arg, p->arg, form, counter, plain, n);
}

void peer_receive(struct peer *p, int64_t now_ms, int64_t real_ns, const struct endpoint *from, uint8_t *packet, size_t size)
{
    if (size == IK_RESPONSE_BYTES && packet[0] == TYPE_RESPONSE) {
        got_response(p, now_ms, from, packet);
    } else if (size == IK_COOKIE_BYTES && packet[0] == TYPE_COOKIE) {
        if (ik_read_cookie(p->key, p->last_mac1, packet, p->cookie))
            p->cookie_ms = now_ms;
    } else if (size >= DATA_HEAD + TAG && packet[0] >= TYPE_DATA && packet[0] <= TYPE_DATA + PEER_AES) {
        got_data(p, now_ms, real_ns, from, packet, size);
    }
}

void peer_greet(struct peer *p, int64_t now_ms, int64_t real_ns)
{
    if (!session_alive(&p->current, now_ms) && !session_alive(&p->next, now_ms))
        want_handshake(p, now_ms, real_ns);
}

void peer_tick(struct peer *p, int64_t now_ms, int64_t real_ns)
{
    struct session *all[] = { &p->current, &p->previous, &p->next };
    for (unsigned i = 0; i < ARRAY_N(all); i++)
        if (all[i]->valid && now_ms - all[i]->born_ms >= PEER_REJECT_AFTER_MS)
            session_wipe(all[i]);
    if (p->handshaking && now_ms - p->sent_initiation_ms >= PEER_REKEY_TIMEOUT_MS + (int64_t)p->jitter_ms) {
        if (now_ms - p->started_ms > PEER_REKEY_ATTEMPT_MS) {
            p->handshaking = false; /* given up until there is something to send */
            crypto_wipe(&p->hs, sizeof p->hs);
            for (; p->queue_n; p->queue_n--, p->n_dropped++) {
                free(p->queue[p->queue_first].p);
                p->queue_first = (p->queue_first + 1) % PEER_QUEUE_MAX;
            }
        } else {
            send_initiation(p, now_ms, real_ns);
        }
    }
    if (p->owes_keepalive && now_ms - p->data_heard_ms >= PEER_KEEPALIVE_MS && session_alive(&p->current, now_ms))
        seal_keepalive(p);
    const struct session *s = &p->current;
    if (session_alive(s, now_ms) && !s->peer_knows && now_ms - s->hello_ms >= PEER_HELLO_MS && (s->peer_can || s->n_hellos < PEER_HELLOS))
        send_hello(p, &p->current, now_ms);
    if (p->expects_answer && now_ms - p->expects_since_ms >= PEER_KEEPALIVE_MS + PEER_REKEY_TIMEOUT_MS) {
        p->expects_answer = false; /* sent and heard nothing: the other end may have lost its keys */
        want_handshake(p, now_ms, real_ns);
    }
}
