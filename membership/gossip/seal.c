/* Sealing of gossip packets. The key is made of the cluster's gossip key (which a removed node does not get any more) and
 * of the secret that X25519 gives the two nodes alone: whoever opens a packet knows who sealed it, and that it was
 * meant for nobody else. Nonces are random (24 bytes: no counter to keep over a restart). */
#include "core.h"
#include <shoal/base/crypto.h>

enum { SEAL_VERSION = 2, AD_BYTES = SEAL_HEAD_BYTES + 8 };

void gossip_pair_key(uint8_t out[32], const struct gossip_key_ref *key, const uint8_t shared[32])
{
    static const char label[] = "shoal gossip pair";
    uint8_t in[sizeof label + 8 + 32];
    memcpy(in, label, sizeof label);
    put_be(in + sizeof label, key->id, 8);
    memcpy(in + sizeof label + 8, shared, 32);
    crypto_blake2s(out, 32, in, sizeof in, key->key, sizeof key->key);
    crypto_wipe(in, sizeof in);
}

bool gossip_seal_read(struct gossip_seal_head *ret, const uint8_t *p, size_t size)
{
    if (size <= SEAL_OVERHEAD || p[0] != SEAL_VERSION)
        return false;
    *ret = (struct gossip_seal_head){ .key_id = get_be(p + 1, 8), .sender = get_be(p + 9, 8) };
    return true;
}

size_t gossip_seal(const uint8_t pair_key[32], uint64_t key_id, uint64_t sender, uint64_t receiver, const uint8_t nonce[24],
                   const void *p, size_t size, uint8_t *out)
{
    uint8_t ad[AD_BYTES];
    out[0] = SEAL_VERSION;
    put_be(out + 1, key_id, 8);
    put_be(out + 9, sender, 8);
    memcpy(out + 17, nonce, 24);
    memcpy(ad, out, SEAL_HEAD_BYTES);
    put_be(ad + SEAL_HEAD_BYTES, receiver, 8); /* or a packet could be sent back to its sender */
    crypto_xaead_seal(out + SEAL_HEAD_BYTES, p, size, ad, sizeof ad, nonce, pair_key);
    return size + SEAL_OVERHEAD;
}

size_t gossip_unseal(const uint8_t pair_key[32], uint64_t receiver, const uint8_t *p, size_t size, uint8_t *out)
{
    uint8_t ad[AD_BYTES];
    if (size <= SEAL_OVERHEAD || p[0] != SEAL_VERSION)
        return 0;
    memcpy(ad, p, SEAL_HEAD_BYTES);
    put_be(ad + SEAL_HEAD_BYTES, receiver, 8);
    return crypto_xaead_open(out, p + SEAL_HEAD_BYTES, size - SEAL_HEAD_BYTES, ad, sizeof ad, p + 17, pair_key)
               ? size - SEAL_OVERHEAD : 0;
}
