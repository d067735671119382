/* The handshake of links, Noise_XX: messages of a peer at each of its three turns. Oracles: a peer that keeps to the
 * protocol gets through with its payloads and both sides have the same keys; a second or third message that was touched
 * is not authentic, and nothing of it is given out. An input: one byte for the turn, the message. */
#include "fuzz.h"

#include <shoal/base/crypto.h>
#include <shoal/noise.h>

struct pair { struct noise_xx a, b; struct sb message[3]; };

static void pair_init(struct pair *p, const uint8_t secret_a[32], const uint8_t secret_b[32])
{
    noise_xx_init(&p->a, true, secret_a, "shoal", 5);
    noise_xx_init(&p->b, false, secret_b, "shoal", 5);
    for (int i = 0; i < 3; i++)
        sb_init(&p->message[i], 0);
}

static void pair_done(struct pair *p)
{
    for (int i = 0; i < 3; i++)
        sb_done(&p->message[i]);
}

/* The handshake up to message n, which is written and not yet read. */
static void run_to(struct pair *p, int n)
{
    struct err e;
    for (int i = 0; i <= n; i++) {
        struct noise_xx *from = i % 2 ? &p->b : &p->a, *to = i % 2 ? &p->a : &p->b;
        AUTO_SB struct sb got;
        sb_init(&got, 0);
        ASSERT(noise_xx_my_turn(from) && !noise_xx_my_turn(to));
        noise_xx_write(from, "payload", 7, &p->message[i]);
        if (i == n)
            return;
        int rc = noise_xx_read(to, p->message[i].s, p->message[i].len, &got, &e);
        ASSERT(rc == 0 && got.len == 7 && memcmp(got.s, "payload", 7) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    static const uint8_t secret_a[32] = { 1 }, secret_b[32] = { 2 };
    struct pair x;
    struct err e = { 0 };
    AUTO_SB struct sb got;
    if (!size)
        return 0;
    int turn = p[0] % 3;
    sb_init(&got, 0);
    pair_init(&x, secret_a, secret_b);
    run_to(&x, turn);
    struct noise_xx *to = turn % 2 ? &x.a : &x.b;
    bool own = size - 1 == x.message[turn].len && memcmp(p + 1, x.message[turn].s, size - 1) == 0;
    int rc = noise_xx_read(to, p + 1, size - 1, &got, &e);
    if (rc < 0)
        ASSERT(e.text[0] && got.len == 0);
    else
        ASSERT(turn == 0 || own);
    pair_done(&x);
    return 0;
}

const unsigned fuzz_rounds = 150;
const char *const fuzz_words[] = { NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    struct pair x;
    struct err e;
    struct noise_cipher as, ar, bs, br;
    uint8_t secret_a[32], secret_b[32], public_a[32];
    AUTO_SB struct sb got;
    crypto_dh_keypair(public_a, secret_a);
    rng_bytes(g, secret_b, sizeof secret_b);
    int turn = (int)rng_below(g, 3);
    sb_init(&got, 0);
    pair_init(&x, secret_a, secret_b);
    run_to(&x, turn);
    sb_char(b, (char)turn);
    sb_add(b, x.message[turn].s, x.message[turn].len);
    if (turn > 0) { /* one bit more or less of an authentic message */
        struct noise_xx to = turn % 2 ? x.a : x.b;
        AUTO_FREE uint8_t *bad = xmemdup(x.message[turn].s, x.message[turn].len);
        size_t bit = rng_below(g, x.message[turn].len * 8);
        bad[bit / 8] = (uint8_t)(bad[bit / 8] ^ 1 << bit % 8);
        /* The top bit of an X25519 key means nothing, but the transcript covers it. */
        ASSERT(noise_xx_read(&to, bad, x.message[turn].len, &got, &e) < 0 && got.len == 0);
    }
    if (turn == 2) {
        ASSERT(noise_xx_read(&x.b, x.message[2].s, x.message[2].len, &got, &e) == 0);
        ASSERT(noise_xx_done(&x.a) && noise_xx_done(&x.b) && memcmp(x.b.rs, public_a, 32) == 0);
        noise_xx_split(&x.a, &as, &ar);
        noise_xx_split(&x.b, &bs, &br);
        ASSERT(memcmp(as.key, br.key, 32) == 0 && memcmp(ar.key, bs.key, 32) == 0 && memcmp(as.key, ar.key, 32) != 0);
    }
    pair_done(&x);
}
