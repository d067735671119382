/* Cookie replies. The cookie is a MAC of the sender's address under a secret that lives two minutes, so nothing
 * is remembered of senders; buckets of sources are found by the same MAC and may be shared. */
#include "cookie.h"
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>

static void next_second(struct cookie_guard *g, int64_t now_ms)
{
    if (now_ms - g->second_ms < 1000)
        return;
    g->loaded = g->n > COOKIE_FREE_PER_S && now_ms - g->second_ms < 2000;
    g->second_ms = now_ms;
    g->n = 0;
    memset(g->per_source, 0, sizeof g->per_source);
}

enum cookie_verdict cookie_check(struct cookie_guard *g, const struct ik_identity *id, int64_t now_ms, const void *source,
                                 size_t source_size, const uint8_t msg[IK_INITIATION_BYTES], uint8_t out[IK_COOKIE_BYTES])
{
    uint8_t cookie[IK_MAC_BYTES];
    next_second(g, now_ms);
    g->loaded |= ++g->n > COOKIE_FREE_PER_S;
    if (!g->loaded)
        return COOKIE_PASS;
    if (!g->has_secret || now_ms - g->secret_ms >= COOKIE_SECRET_MS) {
        crypto_random(g->secret, sizeof g->secret);
        g->secret_ms = now_ms;
        g->has_secret = true;
    }
    crypto_blake2s(cookie, sizeof cookie, source, source_size, g->secret, sizeof g->secret);
    if (!ik_mac2_good(msg, IK_INITIATION_BYTES, cookie)) {
        ik_write_cookie(id, msg, IK_INITIATION_BYTES, cookie, out);
        return COOKIE_REPLY;
    }
    uint8_t *bucket = &g->per_source[(cookie[0] << 8 | cookie[1]) % COOKIE_BUCKETS];
    if (*bucket >= COOKIE_SOURCE_PER_S)
        return COOKIE_DROP;
    (*bucket)++;
    return COOKIE_PASS;
}
