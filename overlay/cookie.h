/* Keeps a flood of handshake initiations from costing curve work (whitepaper, 5.4.7 and 5.3): above a rate, a
 * sender must first show that it receives at the address it sends from, and each address gets a few. Pure. */
#ifndef OVERLAY_COOKIE_H
#define OVERLAY_COOKIE_H

#include "noise_ik.h"

enum { COOKIE_FREE_PER_S = 200 /* before it asks */, COOKIE_SOURCE_PER_S = 20, COOKIE_SECRET_MS = 120000, COOKIE_BUCKETS = 1024 };

struct cookie_guard {
    uint8_t secret[32];
    int64_t secret_ms, second_ms;
    bool has_secret, loaded; /* loaded: this second or the one before was above the rate */
    unsigned n;
    uint8_t per_source[COOKIE_BUCKETS];
};
enum cookie_verdict { COOKIE_PASS, COOKIE_DROP, COOKIE_REPLY };
/* An initiation whose mac1 is right, from this address (with port). COOKIE_REPLY: out is to be sent back. */
enum cookie_verdict cookie_check(struct cookie_guard *g, const struct ik_identity *id, int64_t now_ms, const void *source,
                                 size_t source_size, const uint8_t msg[IK_INITIATION_BYTES], uint8_t out[IK_COOKIE_BYTES]);

#endif
