#include "joiner.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/rng.h>
#include <shoal/manager.h>
#include <stdio.h>

/* ATTEMPT_MS: from the first packet to the answer, at one address; a leader that has thousands to admit takes its time. */
enum { ATTEMPT_MS = 15000, REDIRECTS_MAX = 4, WAIT_MIN_MS = 100, WAIT_MAX_MS = 4000, LINES_MS = 2000 };

struct joiner {
    struct loop *loop;
    struct joiner_hooks hooks;
    struct join_request req;
    struct strs addrs;
    char *sent_to;       /* where a manager said that the leader is; asked before the next of addrs */
    uint32_t next;
    unsigned redirects, rounds;
    bool over;
    bool curable;        /* something in this round may be otherwise in the next */
    bool heard;          /* somebody listens at one of the addresses, or may: who stands in a queue hears nothing */
    int64_t began_ms, said_ms;
    struct rng rng;
    struct link *link;
    struct link_config cfg;
    struct loop_timer *attempt, *again, *limit;
    char at[96];         /* the address under way */
    struct err last;
};

int64_t joiner_wait_ms(unsigned rounds, uint64_t random)
{
    int64_t most = MIN((int64_t)WAIT_MIN_MS << MIN(rounds, 10U), (int64_t)WAIT_MAX_MS);
    return most / 2 + (int64_t)(random % (uint64_t)(most / 2 + 1));
}

static void joiner_free(void *arg)
{
    struct joiner *j = arg;
    link_free(j->link);
    loop_timer_free(j->attempt);
    loop_timer_free(j->again);
    loop_timer_free(j->limit);
    join_request_clear(&j->req);
    strs_clear(&j->addrs);
    free(j->sent_to);
    free(j);
}

static void end(struct joiner *j, struct join_reply *reply, const struct err *e)
{
    if (j->over)
        return;
    j->over = true;
    loop_timer_set(j->attempt, -1);
    loop_timer_set(j->again, -1);
    loop_timer_set(j->limit, -1);
    j->hooks.done(j->hooks.arg, reply, e);
    loop_defer(j->loop, joiner_free, j);
}

/* In vain, for good. */
static void give_up(struct joiner *j, int64_t after_ms)
{
    struct err e;
    const char *at = j->addrs.n ? j->addrs.v[0] : "no address";
    if (after_ms && j->heard)
        err_set(&e, E_TIMEOUT, "not admitted within %lld s by %s, asked %u times: %.300s; nothing was changed here, run "
                "`shoal join` again", (long long)(after_ms / 1000), at, j->rounds + 1, j->last.code ? j->last.text : "no answer");
    else if (j->last.code == E_DENIED)
        err_set(&e, E_DENIED, "cannot join by %s: %.300s; give the address of the token's own cluster, or its token by "
                "`shoal join-token worker` there", j->at, j->last.text);
    else
        err_set(&e, E_UNAVAILABLE, "cannot join by %s: %.300s; check that a manager runs there and that TCP port 2377 and UDP "
                "ports 7946 and 4789 are open between the machines", at, j->last.code ? j->last.text : "no answer");
    end(j, NULL, &e);
}

static void on_limit(void *arg)
{
    struct joiner *j = arg;
    int64_t took = loop_now_ms(j->loop) - j->began_ms;
    if (took < JOIN_LIMIT_MS && (j->heard || !j->last.code))
        loop_timer_set(j->limit, JOIN_LIMIT_MS - took);
    else
        give_up(j, took);
}

static void ask_next(void *arg);

static void wait_for_round(struct joiner *j)
{
    int64_t now = loop_now_ms(j->loop), wait = joiner_wait_ms(j->rounds++, rng_u64(&j->rng));
    char line[512];
    if (!j->curable) {
        give_up(j, 0);
        return;
    }
    if (j->hooks.progress && (!j->said_ms || now - j->said_ms >= LINES_MS)) {
        snprintf(line, sizeof line, "not admitted yet by %s (%.300s), trying again until %d s are over", j->at,
                 j->last.code ? j->last.text : "no answer", (j->heard ? JOIN_LIMIT_MS : JOIN_DEAF_MS) / 1000);
        j->said_ms = now;
        j->hooks.progress(j->hooks.arg, line);
    }
    j->next = 0;
    j->redirects = 0;
    j->curable = false;
    loop_timer_set(j->again, wait);
}

static void drop_link(struct joiner *j)
{
    link_free(TAKE(j->link));
    loop_timer_set(j->attempt, -1);
}

static void not_here(struct joiner *j, const struct err *e)
{
    j->last = *e;
    j->heard |= e->code != E_UNAVAILABLE; /* of a connection that is refused, or has no way, the kernel tells */
    j->curable |= e->code != E_DENIED && e->code != E_INVALID;
    drop_link(j);
    if (!j->over)
        loop_defer(j->loop, ask_next, j);
}

static void on_attempt(void *arg)
{
    struct joiner *j = arg;
    struct err e;
    err_set(&e, E_TIMEOUT, "no answer within %d s", ATTEMPT_MS / 1000);
    not_here(j, &e);
}

static int on_verify(void *arg, const uint8_t key[32], const void *payload, size_t size, struct err *e)
{
    struct joiner *j = arg;
    struct certificate c = { 0 };
    j->heard = true;
    int r = rec_unpack(&certificate_rec, &c, payload, size, e);
    for (uint32_t i = 0; r == 0 && i < c.chain.n; i++)
        if (c.chain.v[i].from.n == 32 && token_pins(j->req.token, c.chain.v[i].from.v))
            r = err_set(e, E_DENIED, "the cluster key was replaced since the token was made");
    if (r == 0 && (c.ca_public.n != 32 || !token_pins(j->req.token, c.ca_public.v)))
        r = err_set(e, E_DENIED, "the token is of another cluster than the node at this address");
    if (r == 0)
        r = certificate_verify(&c, c.ca_public.v, key, e);
    if (r == 0)
        r = certificate_check_time(&c, clock_real_ns(), e);
    certificate_clear(&c);
    return r;
}

static void on_up(void *arg, struct link *l)
{
    struct joiner *j = arg;
    struct sb b;
    sb_init(&b, 0);
    rec_pack(&join_request_rec, &j->req, &b);
    link_send(l, MSG_JOIN, b.s, b.len);
    crypto_wipe(b.s, b.len);
    sb_done(&b);
}

static void got_reply(struct joiner *j, struct join_reply *reply)
{
    struct err e;
    bool curable = reply->code == E_BUSY || reply->code == E_UNAVAILABLE || reply->code == E_STALE || reply->code == E_TIMEOUT;
    if (reply->certificate) {
        end(j, reply, NULL);
    } else if (reply->leader && j->redirects++ < REDIRECTS_MAX) {
        str_set(&j->sent_to, reply->leader);
        drop_link(j);
        loop_defer(j->loop, ask_next, j);
    } else if (curable || reply->leader) { /* an election, or too many at once: it is over in a moment */
        err_set(&e, reply->leader ? E_UNAVAILABLE : (int)reply->code, "%s",
                reply->leader ? "the cluster named one leader after the other" : reply->error ? reply->error : "no leader");
        not_here(j, &e);
    } else {
        err_set(&e, reply->code > 0 && reply->code < E_N ? (int)reply->code : E_UNAVAILABLE, "%s",
                reply->error ? reply->error : "the cluster refused without a word");
        end(j, NULL, &e);
    }
}

static void on_message(void *arg, struct link *l, uint8_t type, const void *p, size_t size)
{
    struct joiner *j = arg;
    struct join_reply reply = { 0 };
    struct err e = { 0 };
    (void)l;
    if (type != MSG_JOIN_REPLY || j->over)
        return;
    if (rec_unpack(&join_reply_rec, &reply, p, size, &e) < 0)
        end(j, NULL, &e);
    else
        got_reply(j, &reply);
    join_reply_clear(&reply);
}

static void on_down(void *arg, struct link *l, const struct err *e)
{
    static const struct err closed = { .code = E_CLOSED, .text = "the connection was closed" };
    struct joiner *j = arg;
    (void)l;
    not_here(j, e ? e : &closed);
}

/* "ADDR", "ADDR:PORT", "[V6]:PORT", "V6". */
static int split(const char *addr, char host[80], uint16_t *ret_port, struct err *e)
{
    const char *colon = strrchr(addr, ':');
    bool bracket = addr[0] == '[';
    uint64_t port = 2377;
    if (colon && colon > addr && (bracket ? colon[-1] == ']' : strchr(addr, ':') == colon)) {
        snprintf(host, 80, "%.*s", (int)(colon - addr) - 2 * bracket, addr + bracket);
        if (!str_u64(colon + 1, 1, 65535, &port))
            return err_set(e, E_INVALID, "\"%s\": the port must be a number from 1 to 65535", addr);
    } else {
        snprintf(host, 80, "%s", addr);
    }
    *ret_port = (uint16_t)port;
    return 0;
}

static void ask_next(void *arg)
{
    static const struct link_events events = { on_up, on_message, NULL, on_down };
    struct joiner *j = arg;
    struct err e;
    char host[80];
    uint16_t port;
    if (j->over || j->link)
        return;
    if (!j->sent_to && j->next >= j->addrs.n) {
        wait_for_round(j);
        return;
    }
    AUTO_FREE char *addr = j->sent_to ? TAKE(j->sent_to) : xstrdup(j->addrs.v[j->next++]);
    snprintf(j->at, sizeof j->at, "%s", addr);
    if (split(addr, host, &port, &e) < 0) {
        end(j, NULL, &e);
        return;
    }
    loop_timer_set(j->attempt, ATTEMPT_MS);
    j->link = link_connect(j->loop, host, port, &j->cfg, &events, j);
}

void joiner_start(struct loop *l, const uint8_t *link_secret, const struct join_request *req, const struct strs *addrs,
                  uint64_t seed, const struct joiner_hooks *hooks)
{
    struct joiner *j = xnew(struct joiner);
    j->loop = l;
    j->hooks = *hooks;
    j->began_ms = loop_now_ms(l);
    rng_init(&j->rng, seed);
    join_request_copy(&j->req, req);
    for (uint32_t i = 0; i < addrs->n; i++)
        strs_add(&j->addrs, addrs->v[i]);
    j->cfg = (struct link_config){ .dh_secret = link_secret, .payload = "", .verify = on_verify, .arg = j,
                                    .handshake_ms = ATTEMPT_MS };
    j->attempt = loop_timer_new(l, on_attempt, j);
    j->again = loop_timer_new(l, ask_next, j);
    j->limit = loop_timer_new(l, on_limit, j);
    loop_timer_set(j->limit, JOIN_DEAF_MS);
    ask_next(j);
}
