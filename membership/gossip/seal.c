/* Sealing of gossip packets with the cluster's keyring; the first key seals, every key opens, so that keys can be
 * changed while packets fly. Nonces are random (24 bytes: no counter to keep over a restart). */
#include "core.h"
#include <shoal/base/crypto.h>

enum { SEAL_VERSION = 1 };

size_t gossip_seal(const struct gossip_key_ref *key, const uint8_t nonce[24], const void *p, size_t size, uint8_t *out)
{
    out[0] = SEAL_VERSION;
    for (int i = 0; i < 8; i++)
        out[1 + i] = (uint8_t)(key->id >> (56 - 8 * i));
    memcpy(out + 9, nonce, 24);
    crypto_xaead_seal(out + SEAL_HEAD_BYTES, p, size, out, SEAL_HEAD_BYTES, nonce, key->key);
    return size + SEAL_OVERHEAD;
}

size_t gossip_open_sealed(const struct gossip_key_ref *keys, unsigned n_keys, const uint8_t *p, size_t size, uint8_t *out)
{
    uint64_t id = 0;
    if (size <= SEAL_OVERHEAD || p[0] != SEAL_VERSION)
        return 0;
    for (int i = 0; i < 8; i++)
        id = id << 8 | p[1 + i];
    for (unsigned i = 0; i < n_keys; i++)
        if (keys[i].id == id && crypto_xaead_open(out, p + SEAL_HEAD_BYTES, size - SEAL_HEAD_BYTES, p, SEAL_HEAD_BYTES,
                                                  p + 9, keys[i].key))
            return size - SEAL_OVERHEAD;
    return 0;
}
