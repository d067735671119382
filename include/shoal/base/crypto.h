/* The door to libsodium (keys, signatures, AEAD, Noise primitives) and OpenSSL (SHA-256, hardware). */
#ifndef SHOAL_BASE_CRYPTO_H
#define SHOAL_BASE_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* libsodium exports these names as well; ours are other symbols. */
#define crypto_sign shoal_crypto_sign
#define crypto_sign_keypair shoal_crypto_sign_keypair
#define crypto_shorthash shoal_crypto_shorthash

enum {
    CRYPTO_KEY_SIZE = 32,
    CRYPTO_TAG_SIZE = 16,
    CRYPTO_SIGN_PUBLIC_SIZE = 32,
    CRYPTO_SIGN_SECRET_SIZE = 64,
    CRYPTO_SIGNATURE_SIZE = 64,
    CRYPTO_XNONCE_SIZE = 24,
    CRYPTO_SHA256_SIZE = 32,
    CRYPTO_BLAKE2S_SIZE = 32,
};

void crypto_init(void); /* once per process, aborts if the library cannot start */
void crypto_random(void *out, size_t size);
void crypto_wipe(void *p, size_t size);
bool crypto_equal(const void *a, const void *b, size_t size); /* constant time */
uint64_t crypto_shorthash(const void *p, size_t size);        /* SipHash under a per-process key */

/* Ed25519 */
void crypto_sign_keypair(uint8_t public_key[32], uint8_t secret_key[64]);
void crypto_sign_keypair_from_seed(const uint8_t seed[32], uint8_t public_key[32], uint8_t secret_key[64]);
void crypto_sign(uint8_t signature[64], const void *msg, size_t size, const uint8_t secret_key[64]);
bool crypto_sign_verify(const uint8_t signature[64], const void *msg, size_t size, const uint8_t public_key[32]);

/* X25519 (RFC 7748) */
void crypto_dh_keypair(uint8_t public_key[32], uint8_t secret_key[32]);
void crypto_dh_public(uint8_t public_key[32], const uint8_t secret_key[32]);
bool crypto_dh(uint8_t shared[32], const uint8_t secret_key[32], const uint8_t public_key[32]); /* false: weak point */

/* ChaCha20-Poly1305, RFC 8439; nonce = 4 zero bytes + 64-bit little-endian counter (Noise, WireGuard).
 * out may equal in. seal writes size + 16 bytes; open takes size including the tag. */
void crypto_aead_seal(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                      uint64_t counter, const uint8_t key[32]);
bool crypto_aead_open(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                      uint64_t counter, const uint8_t key[32]);
/* XChaCha20-Poly1305 with a 24-byte nonce. */
void crypto_xaead_seal(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                       const uint8_t nonce[24], const uint8_t key[32]);
bool crypto_xaead_open(uint8_t *out, const void *in, size_t size, const void *ad, size_t ad_size,
                       const uint8_t nonce[24], const uint8_t key[32]);

/* AES-256-GCM, nonce as above, no additional data; several times faster than ChaCha20-Poly1305 where the processor has
 * instructions for it, and only there: usable() says so, and nothing else may be called when it does not. */
struct crypto_gcm; /* an expanded key; free with crypto_gcm_free, which takes NULL */
bool crypto_gcm_usable(void);
void crypto_gcm_without_wide(void); /* before any key: libsodium's code, as on a processor without VAES (for tests, measurements) */
struct crypto_gcm *crypto_gcm_new(const uint8_t key[32]);
void crypto_gcm_free(struct crypto_gcm *k);
/* out may equal in; seal writes size + 16 bytes, open takes size including the tag, and leaves zeros when it is forged. */
void crypto_gcm_seal(const struct crypto_gcm *k, uint8_t *out, const void *in, size_t size, uint64_t counter);
bool crypto_gcm_open(const struct crypto_gcm *k, uint8_t *out, const void *in, size_t size, uint64_t counter);

/* Argon2id: a key from what a person can remember. false: no memory for it. */
bool crypto_password_key(uint8_t key[32], const void *password, size_t size, const uint8_t salt[16], uint64_t passes,
                         uint64_t memory_bytes);

/* SHA-256 */
struct crypto_sha256; /* heap object */
struct crypto_sha256 *crypto_sha256_new(void);
void crypto_sha256_add(struct crypto_sha256 *h, const void *p, size_t size);
void crypto_sha256_end(struct crypto_sha256 *h, uint8_t out[32]); /* frees h */
void crypto_sha256(uint8_t out[32], const void *p, size_t size);

/* BLAKE2s-256 (RFC 7693), own code in blake2s.c: WireGuard needs it and libsodium lacks it. */
struct blake2s {
    uint32_t h[8], t[2];
    uint8_t buf[64];
    size_t buf_len, out_len;
};
void blake2s_init(struct blake2s *b, size_t out_len, const void *key, size_t key_len);
void blake2s_add(struct blake2s *b, const void *p, size_t size);
void blake2s_end(struct blake2s *b, uint8_t *out);
void crypto_blake2s(uint8_t *out, size_t out_len, const void *p, size_t size, const void *key, size_t key_len);
void crypto_hmac_blake2s(uint8_t out[32], const void *p, size_t size, const void *key, size_t key_len);

/* Text forms. hex: 2n+1 bytes out, lower case. base64: standard alphabet with padding, returns heap string. */
void hex_encode(char *out, const void *p, size_t size);
bool hex_decode(uint8_t *out, size_t out_size, const char *hex); /* exactly out_size bytes */
char *base64_encode(const void *p, size_t size);
uint8_t *base64_decode(const char *s, size_t len, size_t *ret_size); /* NULL: malformed; accepts url alphabet and missing padding */
/* 25 base36 digits, lower case, from 128 random bits: the form of Docker's cluster object ids. out: 26 bytes. */
void id_random(char out[26]);
/* 64 hex digits: container ids. out: 65 bytes. */
void id_random_hex(char out[65]);

#endif
