/* BLAKE2s (RFC 7693): WireGuard's hash, which libsodium lacks. And HMAC over it, as Noise uses it. */
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>

static const uint32_t iv[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
static const uint8_t sigma[10][16] = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
    { 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 },
    { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
    { 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 },
    { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
    { 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 },
    { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
    { 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 },
    { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
};

/* The state is four rows of four words: what the RFC does to four columns one after the other is done to rows at once,
 * by the compiler's vectors (three times as fast as word by word; whole snapshots go through here). */
typedef uint32_t row __attribute__((vector_size(16)));

static inline row rotr(row x, int n)
{
    return x >> n | x << (32 - n);
}

static uint32_t get_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void mix(row v[4], row x, row y)
{
    v[0] += v[1] + x;
    v[3] = rotr(v[3] ^ v[0], 16);
    v[2] += v[3];
    v[1] = rotr(v[1] ^ v[2], 12);
    v[0] += v[1] + y;
    v[3] = rotr(v[3] ^ v[0], 8);
    v[2] += v[3];
    v[1] = rotr(v[1] ^ v[2], 7);
}

static void compress(struct blake2s *s, bool last)
{
    uint32_t m[16];
    row v[4], h[2];
    memcpy(h, s->h, sizeof h);
    v[0] = h[0];
    v[1] = h[1];
    v[2] = (row){ iv[0], iv[1], iv[2], iv[3] };
    v[3] = (row){ iv[4] ^ s->t[0], iv[5] ^ s->t[1], last ? ~iv[6] : iv[6], iv[7] };
    for (int i = 0; i < 16; i++)
        m[i] = get_le32(s->buf + 4 * i);
#pragma GCC unroll 10
    for (int r = 0; r < 10; r++) {
        const uint8_t *k = sigma[r];
        mix(v, (row){ m[k[0]], m[k[2]], m[k[4]], m[k[6]] }, (row){ m[k[1]], m[k[3]], m[k[5]], m[k[7]] });
        v[1] = __builtin_shufflevector(v[1], v[1], 1, 2, 3, 0); /* diagonals become columns */
        v[2] = __builtin_shufflevector(v[2], v[2], 2, 3, 0, 1);
        v[3] = __builtin_shufflevector(v[3], v[3], 3, 0, 1, 2);
        mix(v, (row){ m[k[8]], m[k[10]], m[k[12]], m[k[14]] }, (row){ m[k[9]], m[k[11]], m[k[13]], m[k[15]] });
        v[1] = __builtin_shufflevector(v[1], v[1], 3, 0, 1, 2);
        v[2] = __builtin_shufflevector(v[2], v[2], 2, 3, 0, 1);
        v[3] = __builtin_shufflevector(v[3], v[3], 1, 2, 3, 0);
    }
    h[0] ^= v[0] ^ v[2];
    h[1] ^= v[1] ^ v[3];
    memcpy(s->h, h, sizeof h);
}

void blake2s_init(struct blake2s *b, size_t out_len, const void *key, size_t key_len)
{
    *b = (struct blake2s){ .out_len = out_len };
    memcpy(b->h, iv, sizeof iv);
    b->h[0] ^= 0x01010000U ^ (uint32_t)(key_len << 8) ^ (uint32_t)out_len;
    if (key_len) {
        memcpy(b->buf, key, key_len);
        b->buf_len = sizeof b->buf;
    }
}

static void count(struct blake2s *b, uint32_t n)
{
    b->t[0] += n;
    b->t[1] += b->t[0] < n;
}

void blake2s_add(struct blake2s *b, const void *p, size_t size)
{
    const uint8_t *in = p;
    while (size) {
        if (b->buf_len == sizeof b->buf) {
            count(b, sizeof b->buf);
            compress(b, false);
            b->buf_len = 0;
        }
        size_t n = MIN(size, sizeof b->buf - b->buf_len);
        memcpy(b->buf + b->buf_len, in, n);
        b->buf_len += n;
        in += n;
        size -= n;
    }
}

void blake2s_end(struct blake2s *b, uint8_t *out)
{
    count(b, (uint32_t)b->buf_len);
    memset(b->buf + b->buf_len, 0, sizeof b->buf - b->buf_len);
    compress(b, true);
    for (size_t i = 0; i < b->out_len; i++)
        out[i] = (uint8_t)(b->h[i / 4] >> (8 * (i % 4)));
    crypto_wipe(b, sizeof *b);
}

void crypto_blake2s(uint8_t *out, size_t out_len, const void *p, size_t size, const void *key, size_t key_len)
{
    struct blake2s b;
    blake2s_init(&b, out_len, key, key_len);
    blake2s_add(&b, p, size);
    blake2s_end(&b, out);
}

void crypto_hmac_blake2s(uint8_t out[32], const void *p, size_t size, const void *key, size_t key_len)
{
    uint8_t pad[64] = { 0 }, inner[32];
    struct blake2s b;
    if (key_len > sizeof pad)
        crypto_blake2s(pad, 32, key, key_len, NULL, 0);
    else
        memcpy(pad, key, key_len);
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36;
    blake2s_init(&b, 32, NULL, 0);
    blake2s_add(&b, pad, sizeof pad);
    blake2s_add(&b, p, size);
    blake2s_end(&b, inner);
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    blake2s_init(&b, 32, NULL, 0);
    blake2s_add(&b, pad, sizeof pad);
    blake2s_add(&b, inner, sizeof inner);
    blake2s_end(&b, out);
    crypto_wipe(pad, sizeof pad);
}
