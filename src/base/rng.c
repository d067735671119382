/* xoshiro256** (Blackman, Vigna 2018), seeded by splitmix64. */
#include <shoal/base/err.h>
#include <shoal/base/rng.h>

void rng_init(struct rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        r->s[i] = z ^ (z >> 31);
    }
}

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    ASSERT(n);
    uint64_t limit = -n % n, v; /* rejects the uneven tail */
    do
        v = rng_u64(r);
    while (v < limit);
    return v % n;
}

uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi)
{
    return hi - lo == UINT64_MAX ? rng_u64(r) : lo + rng_below(r, hi - lo + 1);
}

int rng_chance(struct rng *r, unsigned permille)
{
    return rng_below(r, 1000) < permille;
}

void rng_bytes(struct rng *r, void *out, uint64_t size)
{
    unsigned char *p = out;
    while (size--)
        *p++ = (unsigned char)rng_u64(r);
}
