/* AES-256-GCM (NIST SP 800-38D) with VAES, VPCLMULQDQ and AVX-512: sixteen blocks a turn, their products with the powers
 * H^16 to H^1 of the hash key summed before one reduction. libsodium's works block by block and takes five times as long for
 * what fits a packet, and was what limited the tunnel; libraries that have this (OpenSSL 3.1, intel-ipsec-mb) are not on
 * every system we run on. No table lookup, no branch that depends on data or key. Without additional data, for there is none.
 *
 * Blocks are held with their bytes reversed, so that GHASH's mirrored bit order becomes a plain product of polynomials but
 * for one factor x, which the stored powers carry (Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and
 * its Usage for Computing the GCM Mode", algorithm 5). */
#include "aes_gcm.h"
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,aes,pclmul,ssse3,sse4.1")))
#define WIDE_INLINE static inline __attribute__((always_inline)) WIDE
enum { TURN_BYTES = 256, POLY_IMM = 0x10 };

bool aes_gcm_usable(void)
{
    enum { ONE_C = 1 << 1 | 1 << 9 | 1 << 19 | 1 << 25 | 1 << 27 /* PCLMULQDQ SSSE3 SSE4.1 AES OSXSAVE */,
           SEVEN_C = 1 << 9 | 1 << 10 /* VAES VPCLMULQDQ */, REGISTERS = 0xe6 /* SSE, AVX, and the three of AVX-512 */ };
    const unsigned seven_b = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* AVX-512: F DQ BW VL */
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & ONE_C) != ONE_C)
        return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & seven_b) != seven_b || (c & SEVEN_C) != SEVEN_C)
        return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & REGISTERS) == REGISTERS;
}

WIDE_INLINE __m128i reversal(void)
{
    return _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

WIDE_INLINE __m128i poly(void)
{
    return _mm_set_epi64x((long long)0xc200000000000000, 1);
}

/* Of a product of 256 bits, in the parts at x^0, x^64 and x^128. */
WIDE_INLINE __m128i reduce(__m128i low, __m128i middle, __m128i high)
{
    middle = _mm_xor_si128(middle, _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, poly(), POLY_IMM)));
    return _mm_xor_si128(high, _mm_xor_si128(_mm_shuffle_epi32(middle, 0x4e), _mm_clmulepi64_si128(middle, poly(), POLY_IMM)));
}

WIDE_INLINE __m128i multiply(__m128i a, __m128i b)
{
    return reduce(_mm_clmulepi64_si128(a, b, 0x00),
                  _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10)),
                  _mm_clmulepi64_si128(a, b, 0x11));
}

WIDE_INLINE __m128i times_x(__m128i h)
{
    __m128i carry = _mm_slli_si128(_mm_srli_epi64(h, 63), 8), top = _mm_shuffle_epi32(_mm_srai_epi32(h, 31), 0xff);
    return _mm_xor_si128(_mm_or_si128(_mm_slli_epi64(h, 1), carry), _mm_and_si128(top, poly()));
}

WIDE_INLINE __m128i encrypt(const struct aes_gcm *k, __m128i block)
{
    const __m128i *round = (const __m128i *)(const void *)k->round;
    block = _mm_xor_si128(block, round[0]);
    for (int i = 1; i < 14; i++)
        block = _mm_aesenc_si128(block, round[i]);
    return _mm_aesenclast_si128(block, round[14]);
}

WIDE_INLINE __m128i next_round(__m128i key, __m128i assist)
{
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, assist);
}

WIDE void aes_gcm_init(struct aes_gcm *k, const uint8_t key[32])
{
    __m128i *round = (__m128i *)(void *)k->round, *power = (__m128i *)(void *)k->power;
    __m128i a = _mm_loadu_si128((const void *)key), b = _mm_loadu_si128((const void *)(key + 16));
    round[0] = a;
    round[1] = b;
#define EXPAND(i, rcon)                                                                        \
    round[i] = a = next_round(a, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(b, rcon), 0xff)); \
    if (i < 14)                                                                                \
    round[i < 14 ? i + 1 : i] = b = next_round(b, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(a, 0), 0xaa))
    EXPAND(2, 0x01);
    EXPAND(4, 0x02);
    EXPAND(6, 0x04);
    EXPAND(8, 0x08);
    EXPAND(10, 0x10);
    EXPAND(12, 0x20);
    EXPAND(14, 0x40);
#undef EXPAND
    __m128i h = times_x(_mm_shuffle_epi8(encrypt(k, _mm_setzero_si128()), reversal()));
    memset(k->power, 0, sizeof k->power);
    power[15] = h;
    for (int i = 14; i >= 0; i--)
        power[i] = multiply(power[i + 1], h);
}

struct sums { __m512i low, middle, high; };

WIDE_INLINE void add_products(struct sums *s, __m512i blocks, const uint8_t (*power)[16])
{
    __m512i h = _mm512_loadu_si512(power);
    s->low = _mm512_xor_si512(s->low, _mm512_clmulepi64_epi128(blocks, h, 0x00));
    s->high = _mm512_xor_si512(s->high, _mm512_clmulepi64_epi128(blocks, h, 0x11));
    s->middle = _mm512_ternarylogic_epi64(s->middle, _mm512_clmulepi64_epi128(blocks, h, 0x01),
                                          _mm512_clmulepi64_epi128(blocks, h, 0x10), 0x96);
}

WIDE_INLINE __m128i sum_lanes(__m512i v)
{
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* Up to 64 bytes, those that the mask names: crypted, and their products added. */
WIDE_INLINE void crypt_vector(const __m512i round[15], __m512i counter, __m512i reversed, uint8_t *out, const uint8_t *in,
                              __mmask64 mask, bool opening, __m128i before, struct sums *s, const uint8_t (*power)[16])
{
    __m512i stream = _mm512_xor_si512(_mm512_shuffle_epi8(counter, reversed), round[0]);
    for (int i = 1; i < 14; i++)
        stream = _mm512_aesenc_epi128(stream, round[i]);
    stream = _mm512_aesenclast_epi128(stream, round[14]);
    __m512i from = _mm512_maskz_loadu_epi8(mask, in), to = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(from, stream));
    _mm512_mask_storeu_epi8(out, mask, to);
    __m512i hashed = _mm512_shuffle_epi8(opening ? from : to, reversed);
    add_products(s, _mm512_xor_si512(hashed, _mm512_zextsi128_si512(before)), power);
}

WIDE_INLINE void crypt(const struct aes_gcm *k, uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[12],
                       bool opening, uint8_t tag[16])
{
    const __m512i reversed = _mm512_broadcast_i32x4(reversal()), four = _mm512_broadcast_i32x4(_mm_set_epi32(0, 0, 0, 4));
    uint8_t first[16] = { [15] = 1 };
    memcpy(first, nonce, 12);
    const __m128i one = _mm_loadu_si128((const void *)first);
    __m512i round[15], counter = _mm512_broadcast_i32x4(_mm_shuffle_epi8(one, reversal()));
    for (int i = 0; i < 15; i++)
        round[i] = _mm512_broadcast_i32x4(_mm_load_si128((const void *)k->round[i]));
    counter = _mm512_add_epi32(counter, _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1));
    __m128i hash = _mm_setzero_si128();
    for (size_t left = size; left > 0;) {
        size_t n = left < TURN_BYTES ? left : TURN_BYTES;
        const uint8_t (*power)[16] = k->power + (16 - (n + 15) / 16);
        struct sums s = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512() };
        if (n == TURN_BYTES) {
            for (int i = 0; i < 4; i++, counter = _mm512_add_epi32(counter, four))
                crypt_vector(round, counter, reversed, out + 64 * i, in + 64 * i, ~(__mmask64)0, opening,
                             i ? _mm_setzero_si128() : hash, &s, power + 4 * i);
        } else {
            for (size_t at = 0; at < n; at += 64, counter = _mm512_add_epi32(counter, four))
                crypt_vector(round, counter, reversed, out + at, in + at,
                             n - at >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - at)) - 1, opening,
                             at ? _mm_setzero_si128() : hash, &s, power + at / 16);
        }
        hash = reduce(sum_lanes(s.low), sum_lanes(s.middle), sum_lanes(s.high));
        out += n;
        in += n;
        left -= n;
    }
    hash = _mm_xor_si128(hash, _mm_set_epi64x(0, (long long)size * 8));
    hash = multiply(hash, _mm_load_si128((const void *)k->power[15]));
    _mm_storeu_si128((void *)tag, _mm_xor_si128(_mm_shuffle_epi8(hash, reversal()), encrypt(k, one)));
}

WIDE void aes_gcm_seal(const struct aes_gcm *k, uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[12],
                       uint8_t tag[16])
{
    crypt(k, out, in, size, nonce, false, tag);
}

WIDE void aes_gcm_open(const struct aes_gcm *k, uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[12],
                       uint8_t tag[16])
{
    crypt(k, out, in, size, nonce, true, tag);
}

#else
bool aes_gcm_usable(void)
{
    return false;
}

void aes_gcm_init(struct aes_gcm *k, const uint8_t key[32])
{
    memset(k, 0, sizeof *k);
}

void aes_gcm_seal(const struct aes_gcm *k, uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[12],
                  uint8_t tag[16])
{
    __builtin_trap();
}

void aes_gcm_open(const struct aes_gcm *k, uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[12],
                  uint8_t tag[16])
{
    __builtin_trap();
}
#endif
