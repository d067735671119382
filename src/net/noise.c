/* Noise XX: -> e | <- e, ee, s, es | -> s, se. Names follow the framework's text: h, ck, k, n. */
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>
#include <shoal/noise.h>

static const char protocol[] = "Noise_XX_25519_ChaChaPoly_BLAKE2s";

void noise_hkdf(const uint8_t ck[32], const void *in, size_t size, uint8_t out1[32], uint8_t out2[32],
                uint8_t *out3)
{
    uint8_t temp[32], msg[33];
    crypto_hmac_blake2s(temp, in, size, ck, 32);
    crypto_hmac_blake2s(out1, "\x01", 1, temp, 32);
    memcpy(msg, out1, 32);
    msg[32] = 2;
    crypto_hmac_blake2s(out2, msg, 33, temp, 32);
    if (out3) {
        memcpy(msg, out2, 32);
        msg[32] = 3;
        crypto_hmac_blake2s(out3, msg, 33, temp, 32);
    }
    crypto_wipe(temp, sizeof temp);
    crypto_wipe(msg, sizeof msg);
}

static void mix_hash(struct noise_xx *x, const void *p, size_t size)
{
    struct blake2s b;
    blake2s_init(&b, 32, NULL, 0);
    blake2s_add(&b, x->h, 32);
    blake2s_add(&b, p, size);
    blake2s_end(&b, x->h);
}

static void mix_key(struct noise_xx *x, const uint8_t in[32])
{
    uint8_t ck[32];
    noise_hkdf(x->ck, in, 32, ck, x->k, NULL);
    memcpy(x->ck, ck, 32);
    crypto_wipe(ck, sizeof ck);
    x->has_key = true;
    x->n = 0;
}

/* DH and MixKey; false when the peer's point is weak. */
static bool mix_dh(struct noise_xx *x, const uint8_t secret[32], const uint8_t public_key[32])
{
    uint8_t shared[32];
    bool ok = crypto_dh(shared, secret, public_key);
    mix_key(x, shared);
    crypto_wipe(shared, sizeof shared);
    return ok;
}

static void encrypt_and_hash(struct noise_xx *x, const void *p, size_t size, struct sb *out)
{
    if (!x->has_key) {
        mix_hash(x, p, size);
        sb_add(out, p, size);
        return;
    }
    uint8_t *sealed = xcalloc(1, size + CRYPTO_TAG_SIZE);
    crypto_aead_seal(sealed, p, size, x->h, 32, x->n++, x->k);
    mix_hash(x, sealed, size + CRYPTO_TAG_SIZE);
    sb_add(out, sealed, size + CRYPTO_TAG_SIZE);
    free(sealed);
}

static bool decrypt_and_hash(struct noise_xx *x, const uint8_t *p, size_t size, struct sb *out)
{
    if (!x->has_key) {
        mix_hash(x, p, size);
        sb_add(out, p, size);
        return true;
    }
    if (size < CRYPTO_TAG_SIZE)
        return false;
    uint8_t *plain = xcalloc(1, size);
    bool ok = crypto_aead_open(plain, p, size, x->h, 32, x->n++, x->k);
    mix_hash(x, p, size);
    if (ok)
        sb_add(out, plain, size - CRYPTO_TAG_SIZE);
    free(plain);
    return ok;
}

void noise_xx_init(struct noise_xx *x, bool initiator, const uint8_t s_secret[32], const void *prologue,
                   size_t prologue_size)
{
    *x = (struct noise_xx){ .initiator = initiator };
    memcpy(x->s_secret, s_secret, 32);
    crypto_dh_public(x->s_public, s_secret);
    crypto_dh_keypair(x->e_public, x->e_secret);
    crypto_blake2s(x->h, 32, protocol, sizeof protocol - 1, NULL, 0); /* 33 characters: hashed, not padded */
    memcpy(x->ck, x->h, 32);
    mix_hash(x, prologue, prologue_size);
}

void noise_xx_set_ephemeral(struct noise_xx *x, const uint8_t e_secret[32])
{
    memcpy(x->e_secret, e_secret, 32);
    crypto_dh_public(x->e_public, e_secret);
}

bool noise_xx_my_turn(const struct noise_xx *x)
{
    return x->message < 3 && (x->message % 2 == 0) == x->initiator;
}

bool noise_xx_done(const struct noise_xx *x)
{
    return x->message == 3;
}

void noise_xx_write(struct noise_xx *x, const void *payload, size_t size, struct sb *out)
{
    ASSERT(noise_xx_my_turn(x));
    switch (x->message) {
    case 0:
        sb_add(out, x->e_public, 32);
        mix_hash(x, x->e_public, 32);
        break;
    case 1:
        sb_add(out, x->e_public, 32);
        mix_hash(x, x->e_public, 32);
        mix_dh(x, x->e_secret, x->re);
        encrypt_and_hash(x, x->s_public, 32, out);
        mix_dh(x, x->s_secret, x->re);
        break;
    default:
        encrypt_and_hash(x, x->s_public, 32, out);
        mix_dh(x, x->s_secret, x->re);
    }
    encrypt_and_hash(x, payload, size, out);
    x->message++;
}

static bool read_static(struct noise_xx *x, const uint8_t *p)
{
    struct sb s;
    sb_init(&s, 0);
    bool ok = decrypt_and_hash(x, p, 32 + CRYPTO_TAG_SIZE, &s);
    if (ok)
        memcpy(x->rs, s.s, 32);
    sb_done(&s);
    return ok;
}

int noise_xx_read(struct noise_xx *x, const void *msg, size_t size, struct sb *payload, struct err *e)
{
    const uint8_t *p = msg;
    size_t need = x->message == 0 ? 32 : x->message == 1 ? 32 + 48 + 16 : 48 + 16;
    bool ok = true;
    ASSERT(x->message < 3 && !noise_xx_my_turn(x));
    if (size < need)
        return err_set(e, E_DENIED, "handshake message %d is too short", x->message + 1);
    if (x->message < 2) {
        memcpy(x->re, p, 32);
        mix_hash(x, p, 32);
        p += 32;
    }
    if (x->message == 1) {
        ok = mix_dh(x, x->e_secret, x->re) && read_static(x, p);
        p += 48;
        ok = ok && mix_dh(x, x->e_secret, x->rs);
    } else if (x->message == 2) {
        ok = read_static(x, p);
        p += 48;
        ok = ok && mix_dh(x, x->e_secret, x->rs);
    }
    ok = ok && decrypt_and_hash(x, p, size - (size_t)(p - (const uint8_t *)msg), payload);
    if (!ok)
        return err_set(e, E_DENIED, "handshake message %d is not authentic", x->message + 1);
    x->message++;
    return 0;
}

void noise_xx_split(struct noise_xx *x, struct noise_cipher *send, struct noise_cipher *recv)
{
    uint8_t k1[32], k2[32], rs[32];
    ASSERT(noise_xx_done(x));
    noise_hkdf(x->ck, "", 0, k1, k2, NULL);
    *send = *recv = (struct noise_cipher){ 0 };
    memcpy(send->key, x->initiator ? k1 : k2, 32);
    memcpy(recv->key, x->initiator ? k2 : k1, 32);
    memcpy(rs, x->rs, 32);
    crypto_wipe(x, sizeof *x);
    x->message = 3;
    memcpy(x->rs, rs, 32);
    crypto_wipe(k1, 32);
    crypto_wipe(k2, 32);
}
