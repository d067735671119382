/* Noise_IKpsk2 as WireGuard uses it: every step of the two messages in the whitepaper's order (5.4.2, 5.4.3),
 * mac1 checked before any curve work. */
#include "noise_ik.h"
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>

static const char construction[] = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
static const char identifier[] = "WireGuard v1 zx2c4 Jason@zx2c4.com";

static void hash2(uint8_t out[32], const void *a, size_t a_size, const void *b, size_t b_size)
{
    struct blake2s s;
    blake2s_init(&s, 32, NULL, 0);
    blake2s_add(&s, a, a_size);
    blake2s_add(&s, b, b_size);
    blake2s_end(&s, out);
}

static void mix_hash(struct ik_handshake *hs, const void *p, size_t size)
{
    uint8_t h[32];
    hash2(h, hs->h, 32, p, size);
    memcpy(hs->h, h, 32);
}

/* KDF_n: HKDF over HMAC-BLAKE2s; ck and up to two more outputs. */
static void kdf(uint8_t ck[32], const void *in, size_t size, uint8_t *out2, uint8_t *out3)
{
    uint8_t t0[32], t[33];
    crypto_hmac_blake2s(t0, in, size, ck, 32);
    t[0] = 1;
    crypto_hmac_blake2s(ck, t, 1, t0, 32);
    memcpy(t, ck, 32);
    if (out2) {
        t[32] = 2;
        crypto_hmac_blake2s(out2, t, 33, t0, 32);
        memcpy(t, out2, 32);
    }
    if (out3) {
        t[32] = 3;
        crypto_hmac_blake2s(out3, t, 33, t0, 32);
    }
    crypto_wipe(t0, sizeof t0);
    crypto_wipe(t, sizeof t);
}

static bool mix_dh(struct ik_handshake *hs, const uint8_t secret[32], const uint8_t public[32], uint8_t *key)
{
    uint8_t shared[32];
    if (!crypto_dh(shared, secret, public))
        return false;
    kdf(hs->ck, shared, 32, key, NULL);
    crypto_wipe(shared, 32);
    return true;
}

static void begin(struct ik_handshake *hs, const uint8_t responder[32])
{
    crypto_blake2s(hs->ck, 32, construction, sizeof construction - 1, NULL, 0);
    hash2(hs->h, hs->ck, 32, identifier, sizeof identifier - 1);
    mix_hash(hs, responder, 32);
}

static void label_key(uint8_t out[32], const char *label, const uint8_t public[32])
{
    hash2(out, label, 8, public, 32);
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_macs(uint8_t *msg, size_t size, const uint8_t peer[32], const uint8_t *cookie)
{
    uint8_t key[32];
    label_key(key, "mac1----", peer);
    crypto_blake2s(msg + size - 32, IK_MAC_BYTES, msg, size - 32, key, 32);
    memset(msg + size - 16, 0, 16);
    if (cookie)
        crypto_blake2s(msg + size - 16, IK_MAC_BYTES, msg, size - 16, cookie, IK_MAC_BYTES);
}

bool ik_mac1_good(const struct ik_identity *id, const uint8_t *msg, size_t size)
{
    uint8_t mac[IK_MAC_BYTES];
    crypto_blake2s(mac, IK_MAC_BYTES, msg, size - 32, id->mac1_key, 32);
    return crypto_equal(mac, msg + size - 32, IK_MAC_BYTES);
}

bool ik_mac2_good(const uint8_t *msg, size_t size, const uint8_t cookie[IK_MAC_BYTES])
{
    uint8_t mac[IK_MAC_BYTES];
    crypto_blake2s(mac, IK_MAC_BYTES, msg, size - 16, cookie, IK_MAC_BYTES);
    return crypto_equal(mac, msg + size - 16, IK_MAC_BYTES);
}

void ik_write_cookie(const struct ik_identity *id, const uint8_t *msg, size_t size, const uint8_t cookie[IK_MAC_BYTES],
                     uint8_t out[IK_COOKIE_BYTES])
{
    memset(out, 0, 8);
    out[0] = 3;
    memcpy(out + 4, msg + 4, 4); /* the sender's index */
    crypto_random(out + 8, 24);
    crypto_xaead_seal(out + 32, cookie, IK_MAC_BYTES, msg + size - 32, IK_MAC_BYTES, out + 8, id->cookie_key);
}

void ik_identity_init(struct ik_identity *id, const uint8_t secret[32], const uint8_t psk[32])
{
    memcpy(id->secret, secret, 32);
    memcpy(id->psk, psk, 32);
    crypto_dh_public(id->public, secret);
    label_key(id->mac1_key, "mac1----", id->public);
    label_key(id->cookie_key, "cookie--", id->public);
}

bool ik_initiate(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t peer[32], uint32_t our_index,
                 const uint8_t timestamp[12], const uint8_t *cookie, uint8_t out[IK_INITIATION_BYTES])
{
    uint8_t key[32];
    begin(hs, peer);
    hs->our_index = our_index;
    memset(out, 0, 4);
    out[0] = 1;
    put32(out + 4, our_index);
    crypto_dh_keypair(out + 8, hs->e_secret);
    kdf(hs->ck, out + 8, 32, NULL, NULL);
    mix_hash(hs, out + 8, 32);
    if (!mix_dh(hs, hs->e_secret, peer, key))
        return false;
    crypto_aead_seal(out + 40, id->public, 32, hs->h, 32, 0, key);
    mix_hash(hs, out + 40, 48);
    if (!mix_dh(hs, id->secret, peer, key))
        return false;
    crypto_aead_seal(out + 88, timestamp, 12, hs->h, 32, 0, key);
    mix_hash(hs, out + 88, 28);
    put_macs(out, IK_INITIATION_BYTES, peer, cookie);
    crypto_wipe(key, sizeof key);
    return true;
}

bool ik_read_initiation(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t in[IK_INITIATION_BYTES],
                        uint8_t ret_peer[32], uint8_t ret_timestamp[12])
{
    uint8_t key[32], peer[32], stamp[12];
    if (!ik_mac1_good(id, in, IK_INITIATION_BYTES))
        return false;
    begin(hs, id->public);
    hs->peer_index = get32(in + 4);
    memcpy(hs->peer_e, in + 8, 32);
    kdf(hs->ck, in + 8, 32, NULL, NULL);
    mix_hash(hs, in + 8, 32);
    if (!mix_dh(hs, id->secret, in + 8, key) || !crypto_aead_open(peer, in + 40, 48, hs->h, 32, 0, key))
        return false;
    mix_hash(hs, in + 40, 48);
    if (!mix_dh(hs, id->secret, peer, key) || !crypto_aead_open(stamp, in + 88, 28, hs->h, 32, 0, key))
        return false;
    mix_hash(hs, in + 88, 28);
    memcpy(ret_peer, peer, 32);
    memcpy(ret_timestamp, stamp, 12);
    crypto_wipe(key, sizeof key);
    return true;
}

static void derive(struct ik_handshake *hs, uint8_t first[32], uint8_t second[32])
{
    kdf(hs->ck, "", 0, second, NULL);
    memcpy(first, hs->ck, 32);
    crypto_wipe(hs, sizeof *hs);
}

/* The psk step of both sides; key for the empty payload. */
static void mix_psk(struct ik_handshake *hs, const uint8_t psk[32], uint8_t key[32])
{
    uint8_t t[32];
    kdf(hs->ck, psk, 32, t, key);
    mix_hash(hs, t, 32);
}

bool ik_respond(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t peer[32], uint32_t our_index,
                const uint8_t *cookie, uint8_t out[IK_RESPONSE_BYTES], struct ik_keys *ret)
{
    uint8_t key[32];
    memset(out, 0, 4);
    out[0] = 2;
    put32(out + 4, our_index);
    put32(out + 8, hs->peer_index);
    crypto_dh_keypair(out + 12, hs->e_secret);
    kdf(hs->ck, out + 12, 32, NULL, NULL);
    mix_hash(hs, out + 12, 32);
    if (!mix_dh(hs, hs->e_secret, hs->peer_e, NULL) || !mix_dh(hs, hs->e_secret, peer, NULL))
        return false;
    mix_psk(hs, id->psk, key);
    crypto_aead_seal(out + 44, "", 0, hs->h, 32, 0, key);
    put_macs(out, IK_RESPONSE_BYTES, peer, cookie);
    derive(hs, ret->receive, ret->send);
    crypto_wipe(key, sizeof key);
    return true;
}

bool ik_read_response(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t in[IK_RESPONSE_BYTES],
                      struct ik_keys *ret)
{
    uint8_t key[32], empty[16];
    if (!ik_mac1_good(id, in, IK_RESPONSE_BYTES) || get32(in + 8) != hs->our_index)
        return false;
    struct ik_handshake try = *hs;
    kdf(try.ck, in + 12, 32, NULL, NULL);
    mix_hash(&try, in + 12, 32);
    bool ok = mix_dh(&try, try.e_secret, in + 12, NULL) && mix_dh(&try, id->secret, in + 12, NULL);
    if (ok) {
        mix_psk(&try, id->psk, key);
        ok = crypto_aead_open(empty, in + 44, 16, try.h, 32, 0, key);
        crypto_wipe(key, sizeof key);
    }
    uint32_t theirs = get32(in + 4);
    if (ok) {
        derive(&try, ret->send, ret->receive);
        crypto_wipe(hs, sizeof *hs); /* the ephemeral secret has done its work */
        hs->peer_index = theirs;
    }
    crypto_wipe(&try, sizeof try);
    return ok;
}

bool ik_read_cookie(const uint8_t peer[32], const uint8_t mac1[IK_MAC_BYTES], const uint8_t in[IK_COOKIE_BYTES],
                    uint8_t ret_cookie[IK_MAC_BYTES])
{
    uint8_t key[32], cookie[IK_MAC_BYTES]; /* a forged one must not wipe the one we have */
    label_key(key, "cookie--", peer);
    if (!crypto_xaead_open(cookie, in + 32, 32, mac1, IK_MAC_BYTES, in + 8, key))
        return false;
    memcpy(ret_cookie, cookie, IK_MAC_BYTES);
    return true;
}
