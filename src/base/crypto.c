/* The door to libsodium and, for SHA-256 with the processor's instructions, OpenSSL, which is loaded when something long
 * is first hashed (library.h). */
#include <openssl/evp.h>
#include <sodium.h> /* before our header, which renames what both declare */

#include <shoal/base/crypto.h>
#include <shoal/base/err.h>
#include <shoal/base/library.h>
#include <shoal/base/mem.h>

#include "aes_gcm.h"

enum { SMALL_BYTES = 64 << 10 /* what libsodium hashes sooner than OpenSSL is loaded */ };
static uint8_t hash_key[crypto_shorthash_KEYBYTES];
static bool started;

void crypto_init(void)
{
    if (started)
        return;
    if (sodium_init() < 0)
        assert_failed("sodium_init()", __FILE__, __LINE__);
    randombytes_buf(hash_key, sizeof hash_key);
    started = true;
}

void crypto_random(void *out, size_t size)
{
    randombytes_buf(out, size);
}

void crypto_wipe(void *p, size_t size)
{
    sodium_memzero(p, size);
}

bool crypto_equal(const void *a, const void *b, size_t size)
{
    return sodium_memcmp(a, b, size) == 0;
}

uint64_t crypto_shorthash(const void *p, size_t size)
{
    uint64_t h;
    if (!started)
        crypto_init();
    crypto_shorthash_siphash24((unsigned char *)&h, p, size, hash_key);
    return h;
}

void crypto_sign_keypair(uint8_t public_key[32], uint8_t secret_key[64])
{
    crypto_sign_ed25519_keypair(public_key, secret_key);
}

void crypto_sign_keypair_from_seed(const uint8_t seed[32], uint8_t public_key[32], uint8_t secret_key[64])
{
    crypto_sign_ed25519_seed_keypair(public_key, secret_key, seed);
}

void crypto_sign(uint8_t signature[64], const void *msg, size_t size, const uint8_t secret_key[64])
{
    crypto_sign_ed25519_detached(signature, NULL, msg, size, secret_key);
}

bool crypto_sign_verify(const uint8_t signature[64], const void *msg, size_t size,
                        const uint8_t public_key[32])
{
    return crypto_sign_ed25519_verify_detached(signature, msg, size, public_key) == 0;
}

void crypto_dh_keypair(uint8_t public_key[32], uint8_t secret_key[32])
{
    randombytes_buf(secret_key, 32);
    secret_key[0] &= 248;
    secret_key[31] = (uint8_t)((secret_key[31] & 127) | 64);
    crypto_dh_public(public_key, secret_key);
}

void crypto_dh_public(uint8_t public_key[32], const uint8_t secret_key[32])
{
    crypto_scalarmult_curve25519_base(public_key, secret_key);
}

bool crypto_dh(uint8_t shared[32], const uint8_t secret_key[32], const uint8_t public_key[32])
{
    return crypto_scalarmult_curve25519(shared, secret_key, public_key) == 0;
}

static void nonce_of(uint8_t nonce[12], uint64_t counter)
{
    memset(nonce, 0, 4);
    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(counter >> (8 * i));
}

void crypto_aead_seal(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                      uint64_t counter, const uint8_t key[32])
{
    uint8_t nonce[12];
    nonce_of(nonce, counter);
    crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, in, size, ad, ad_size, NULL, nonce, key);
}

bool crypto_aead_open(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                      uint64_t counter, const uint8_t key[32])
{
    uint8_t nonce[12];
    nonce_of(nonce, counter);
    return size >= CRYPTO_TAG_SIZE && crypto_aead_chacha20poly1305_ietf_decrypt(
                                          out, NULL, NULL, in, size, ad, ad_size, nonce, key) == 0;
}

void crypto_xaead_seal(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                       const uint8_t nonce[24], const uint8_t key[32])
{
    crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, in, size, ad, ad_size, NULL, nonce, key);
}

bool crypto_xaead_open(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                       const uint8_t nonce[24], const uint8_t key[32])
{
    return size >= CRYPTO_TAG_SIZE && crypto_aead_xchacha20poly1305_ietf_decrypt(
                                          out, NULL, NULL, in, size, ad, ad_size, nonce, key) == 0;
}

/* ---- AES-256-GCM: our own code or libsodium's, which give the same bytes ---- */
struct crypto_gcm {
    union {
        struct aes_gcm wide;
        crypto_aead_aes256gcm_state sodium;
    } u;
};
static enum gcm_kind { GCM_UNKNOWN, GCM_NONE, GCM_SODIUM, GCM_WIDE } gcm_kind;

/* What the two make of one message, at lengths around each step of the wide code. */
static bool gcm_agrees(void)
{
    static const size_t sizes[] = { 0, 1, 15, 16, 63, 64, 65, 255, 256, 257, 700, 1024 };
    uint8_t key[32], nonce[12], plain[1024], ours[1024], theirs[1024], tag[16], want[16];
    struct aes_gcm k;
    bool ok = true;
    randombytes_buf(key, sizeof key);
    randombytes_buf(nonce, sizeof nonce);
    randombytes_buf(plain, sizeof plain);
    aes_gcm_init(&k, key);
    for (size_t i = 0; i < ARRAY_N(sizes) && ok; i++) {
        size_t n = sizes[i];
        crypto_aead_aes256gcm_encrypt_detached(theirs, want, NULL, plain, n, NULL, 0, NULL, nonce, key);
        aes_gcm_seal(&k, ours, plain, n, nonce, tag);
        ok = memcmp(ours, theirs, n) == 0 && memcmp(tag, want, 16) == 0;
        aes_gcm_open(&k, ours, ours, n, nonce, tag);
        ok = ok && memcmp(ours, plain, n) == 0 && memcmp(tag, want, 16) == 0;
    }
    sodium_memzero(&k, sizeof k);
    return ok;
}

bool crypto_gcm_usable(void)
{
    if (gcm_kind == GCM_UNKNOWN) {
        crypto_init();
        gcm_kind = !crypto_aead_aes256gcm_is_available() ? GCM_NONE
                   : aes_gcm_usable() && gcm_agrees()    ? GCM_WIDE
                                                         : GCM_SODIUM;
    }
    return gcm_kind != GCM_NONE;
}

void crypto_gcm_without_wide(void)
{
    if (crypto_gcm_usable())
        gcm_kind = GCM_SODIUM;
}

struct crypto_gcm *crypto_gcm_new(const uint8_t key[32])
{
    ASSERT(crypto_gcm_usable());
    struct crypto_gcm *k = aligned_alloc(_Alignof(struct crypto_gcm), sizeof *k);
    ASSERT(k);
    if (gcm_kind == GCM_WIDE)
        aes_gcm_init(&k->u.wide, key);
    else
        crypto_aead_aes256gcm_beforenm(&k->u.sodium, key);
    return k;
}

void crypto_gcm_free(struct crypto_gcm *k)
{
    if (k)
        sodium_memzero(k, sizeof *k);
    free(k);
}

void crypto_gcm_seal(const struct crypto_gcm *k, uint8_t *out, const void *in, size_t size, uint64_t counter)
{
    uint8_t nonce[12];
    nonce_of(nonce, counter);
    if (gcm_kind == GCM_WIDE)
        aes_gcm_seal(&k->u.wide, out, in, size, nonce, out + size);
    else
        crypto_aead_aes256gcm_encrypt_afternm(out, NULL, in, size, NULL, 0, NULL, nonce, &k->u.sodium);
}

bool crypto_gcm_open(const struct crypto_gcm *k, uint8_t *out, const void *in, size_t size, uint64_t counter)
{
    uint8_t nonce[12], tag[CRYPTO_TAG_SIZE], want[CRYPTO_TAG_SIZE];
    if (size < CRYPTO_TAG_SIZE)
        return false;
    nonce_of(nonce, counter);
    if (gcm_kind != GCM_WIDE)
        return crypto_aead_aes256gcm_decrypt_afternm(out, NULL, NULL, in, size, NULL, 0, nonce, &k->u.sodium) == 0;
    memcpy(tag, (const uint8_t *)in + size - CRYPTO_TAG_SIZE, sizeof tag);
    aes_gcm_open(&k->u.wide, out, in, size - CRYPTO_TAG_SIZE, nonce, want);
    bool ok = sodium_memcmp(tag, want, sizeof tag) == 0;
    if (!ok)
        memset(out, 0, size - CRYPTO_TAG_SIZE); /* nothing of a forged message is seen */
    return ok;
}

bool crypto_password_key(uint8_t key[32], const void *password, size_t size, const uint8_t salt[16], uint64_t passes,
                         uint64_t memory_bytes)
{
    return crypto_pwhash(key, 32, password, size, salt, passes, memory_bytes, crypto_pwhash_ALG_ARGON2ID13) == 0;
}

#define EVP_CALLS(F) F(MD_CTX_free) F(MD_CTX_new) F(Digest) F(DigestFinal_ex) F(DigestInit_ex) F(DigestUpdate) F(sha256)
static struct {
#define F(name) __typeof__(EVP_##name) *name;
    EVP_CALLS(F)
#undef F
} libcrypto;
static struct library library = LIBRARY(LIBCRYPTO_FILE, "libssl3", "EVP_", EVP_CALLS, libcrypto);

struct crypto_sha256 {
    EVP_MD_CTX *ctx;               /* NULL: there is no libcrypto; slower is better than not at all */
    crypto_hash_sha256_state slow;
};

struct crypto_sha256 *crypto_sha256_new(void)
{
    struct crypto_sha256 *h = xnew(struct crypto_sha256);
    if (library_load(&library, NULL) < 0) {
        crypto_hash_sha256_init(&h->slow);
        return h;
    }
    h->ctx = libcrypto.MD_CTX_new();
    ASSERT(h->ctx && libcrypto.DigestInit_ex(h->ctx, libcrypto.sha256(), NULL) == 1);
    return h;
}

void crypto_sha256_add(struct crypto_sha256 *h, const void *p, size_t size)
{
    if (h->ctx)
        ASSERT(libcrypto.DigestUpdate(h->ctx, p, size) == 1);
    else
        crypto_hash_sha256_update(&h->slow, p, size);
}

void crypto_sha256_end(struct crypto_sha256 *h, uint8_t out[32])
{
    if (h->ctx)
        ASSERT(libcrypto.DigestFinal_ex(h->ctx, out, NULL) == 1);
    else
        crypto_hash_sha256_final(&h->slow, out);
    if (h->ctx)
        libcrypto.MD_CTX_free(h->ctx);
    free(h);
}

void crypto_sha256(uint8_t out[32], const void *p, size_t size)
{
    if (size < SMALL_BYTES || library_load(&library, NULL) < 0)
        crypto_hash_sha256(out, p, size);
    else
        ASSERT(libcrypto.Digest(p, size, out, NULL, libcrypto.sha256(), NULL) == 1);
}

void hex_encode(char *out, const void *p, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = p;
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[b[i] >> 4];
        out[2 * i + 1] = digits[b[i] & 15];
    }
    out[2 * size] = 0;
}

bool hex_decode(uint8_t *out, size_t out_size, const char *hex)
{
    size_t n;
    const char *end;
    return strlen(hex) == out_size * 2 &&
           sodium_hex2bin(out, out_size, hex, out_size * 2, NULL, &n, &end) == 0 && n == out_size;
}

char *base64_encode(const void *p, size_t size)
{
    size_t len = sodium_base64_encoded_len(size, sodium_base64_VARIANT_ORIGINAL);
    char *out = xcalloc(1, len);
    sodium_bin2base64(out, len, p, size, sodium_base64_VARIANT_ORIGINAL);
    return out;
}

uint8_t *base64_decode(const char *s, size_t len, size_t *ret_size)
{
    while (len && s[len - 1] == '=')
        len--;
    uint8_t *out = try_calloc(len / 4 * 3 + 4, 1);
    uint32_t bits = 0;
    size_t n = 0;
    for (size_t i = 0; out && i < len; i++) {
        char c = s[i];
        int v = c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26
              : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' || c == '-' ? 62
              : c == '/' || c == '_' ? 63 : -1;
        if (v < 0) {
            free(out);
            return NULL;
        }
        bits = bits << 6 | (uint32_t)v;
        if (i % 4 != 0)
            out[n++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    if (!out || len % 4 == 1) {
        free(out);
        return NULL;
    }
    *ret_size = n;
    return out;
}

void id_random(char out[26])
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    for (int i = 0; i < 25; i++)
        out[i] = digits[randombytes_uniform(36)];
    out[25] = 0;
}

void id_random_hex(char out[65])
{
    uint8_t b[32];
    randombytes_buf(b, sizeof b);
    hex_encode(out, b, sizeof b);
}
