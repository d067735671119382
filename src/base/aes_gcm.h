/* AES-256-GCM by the wide vector instructions of newer x86 processors; used through crypto.h alone. */
#ifndef BASE_AES_GCM_H
#define BASE_AES_GCM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aes_gcm {
    _Alignas(64) uint8_t round[15][16];
    uint8_t power[16 + 3][16]; /* of the hash key, the 16th first; zeros behind the first one */
};
/* Does this processor have the instructions, and the system let us use their registers? The others may be called only then. */
bool aes_gcm_usable(void);
void aes_gcm_init(struct aes_gcm *k, const uint8_t key[32]);
/* out may equal in. open does not compare: it gives the tag that the message should have had. */
void aes_gcm_seal(const struct aes_gcm *k, uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[12],
                  uint8_t tag[16]);
void aes_gcm_open(const struct aes_gcm *k, uint8_t *out, const uint8_t *in, size_t size, const uint8_t nonce[12],
                  uint8_t tag[16]);

#endif
