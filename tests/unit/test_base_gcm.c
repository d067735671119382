/* AES-256-GCM of the crypto door against libsodium's own, which its authors check with the vectors of NIST: by our wide
 * code where the processor has the instructions, and by libsodium's expanded keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h> /* before our header, which renames what both declare */

#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>

enum { MOST = 65000, CASES = 1500 };

static void nonce_at(uint8_t nonce[12], uint64_t counter)
{
    memset(nonce, 0, 4);
    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(counter >> (8 * i));
}

/* Lengths: each of a first few turns of 256 bytes, then any. */
static size_t size_at(struct rng *g, int i)
{
    return i < 600 ? (size_t)i : i % 8 == 0 ? MOST - rng_below(g, 300) : rng_below(g, i % 2 ? 2000 : MOST + 1);
}

static void check_case(struct rng *g, size_t size, uint8_t *plain, uint8_t *want, uint8_t *got)
{
    uint8_t key[32], nonce[12];
    uint64_t counter = rng_u64(g);
    rng_bytes(g, key, sizeof key);
    rng_bytes(g, plain, size);
    nonce_at(nonce, counter);
    struct crypto_gcm *k = crypto_gcm_new(key);
    crypto_aead_aes256gcm_encrypt(want, NULL, plain, size, NULL, 0, NULL, nonce, key);
    memset(got + size + 16, 0xa5, 16);
    crypto_gcm_seal(k, got, plain, size, counter);
    assert_memory_equal(got, want, size + 16);
    memcpy(got, plain, size); /* in place */
    crypto_gcm_seal(k, got, got, size, counter);
    assert_memory_equal(got, want, size + 16);
    for (int i = 0; i < 16; i++) /* nothing is written behind */
        assert_int_equal(got[size + 16 + (size_t)i], 0xa5);

    /* Forged: a bit of text or tag, the length, the counter. */
    memcpy(got, want, size + 16);
    got[rng_below(g, size + 16)] ^= (uint8_t)(1u << rng_below(g, 8));
    assert_false(crypto_gcm_open(k, got, got, size + 16, counter));
    for (size_t i = 0; i < size; i++)
        assert_int_equal(got[i], 0);
    assert_false(crypto_gcm_open(k, got, want, size + 16, counter + 1));
    assert_false(crypto_gcm_open(k, got, want, size + 15, counter));
    assert_false(crypto_gcm_open(k, got, want, rng_below(g, 16), counter));

    assert_true(crypto_gcm_open(k, got, want, size + 16, counter));
    assert_memory_equal(got, plain, size);
    memcpy(got, want, size + 16);
    assert_true(crypto_gcm_open(k, got, got, size + 16, counter));
    assert_memory_equal(got, plain, size);
    crypto_gcm_free(k);
}

static void same_as_libsodium(void **state)
{
    (void)state;
    if (!crypto_gcm_usable())
        skip();
    struct rng g;
    uint8_t *plain = xcalloc(1, MOST), *want = xcalloc(1, MOST + 32), *got = xcalloc(1, MOST + 32);
    rng_init(&g, 11);
    for (int i = 0; i < CASES; i++)
        check_case(&g, size_at(&g, i), plain, want, got);
    free(plain);
    free(want);
    free(got);
}

/* Test case 14 of the GCM specification (McGrew and Viega, appendix B): key, nonce and one block of zeros. */
static void known_answer(void **state)
{
    (void)state;
    if (!crypto_gcm_usable())
        skip();
    const uint8_t zero[32] = { 0 };
    uint8_t got[32], want[32];
    assert_true(hex_decode(want, 32, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"));
    struct crypto_gcm *k = crypto_gcm_new(zero);
    crypto_gcm_seal(k, got, zero, 16, 0);
    assert_memory_equal(got, want, 32);
    crypto_gcm_free(k);
}

static int without_wide(void **state)
{
    (void)state;
    crypto_gcm_without_wide();
    return 0;
}

int main(void)
{
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_libsodium),
        cmocka_unit_test(known_answer),
        { "same_as_libsodium, by libsodium's own code", same_as_libsodium, without_wide, NULL, NULL },
        { "known_answer, by libsodium's own code", known_answer, NULL, NULL, NULL },
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
