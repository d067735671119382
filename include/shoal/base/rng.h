/* Deterministic random numbers, injected into every core (xoshiro256**, seeded by splitmix64).
 * Not for keys: those come from crypto_random(). */
#ifndef SHOAL_BASE_RNG_H
#define SHOAL_BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t s[4];
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n);              /* uniform in [0,n), n >= 1 */
uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi); /* uniform in [lo,hi] */
int rng_chance(struct rng *r, unsigned permille);           /* 1 with permille/1000 */
void rng_bytes(struct rng *r, void *out, uint64_t size);

#endif
