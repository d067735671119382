/* Noise_XX_25519_ChaChaPoly_BLAKE2s (Noise Protocol Framework, revision 34): the handshake of links between
 * nodes. Pure: messages in and out as bytes. Both sides prove their static X25519 key; payloads of messages 2
 * and 3 are encrypted. */
#ifndef SHOAL_NOISE_H
#define SHOAL_NOISE_H

#include <shoal/base/err.h>
#include <shoal/base/sb.h>
#include <stdbool.h>
#include <stdint.h>

struct noise_cipher {
    uint8_t key[32];
    uint64_t counter;
};

struct noise_xx {
    bool initiator;
    int message;              /* next one: 0, 1, 2; 3: done */
    uint8_t s_secret[32], s_public[32], e_secret[32], e_public[32], rs[32], re[32];
    uint8_t h[32], ck[32], k[32];
    bool has_key;
    uint64_t n;
};

void noise_xx_init(struct noise_xx *x, bool initiator, const uint8_t s_secret[32], const void *prologue,
                   size_t prologue_size);
/* For tests with published vectors: fixes the ephemeral key instead of drawing one. */
void noise_xx_set_ephemeral(struct noise_xx *x, const uint8_t e_secret[32]);
/* It is this side's turn when (message is even) == initiator. */
bool noise_xx_my_turn(const struct noise_xx *x);
/* Appends the next message with its payload to out. */
void noise_xx_write(struct noise_xx *x, const void *payload, size_t size, struct sb *out);
/* Reads the peer's next message; its payload is appended. E_DENIED: not authentic. */
int noise_xx_read(struct noise_xx *x, const void *msg, size_t size, struct sb *payload, struct err *e) must_check;
bool noise_xx_done(const struct noise_xx *x);
/* After the end: keys of both directions; wipes x except rs (the peer's static key). */
void noise_xx_split(struct noise_xx *x, struct noise_cipher *send, struct noise_cipher *recv);

/* HKDF of the framework, n = 2 or 3 outputs of 32 bytes; also used by WireGuard's handshake. */
void noise_hkdf(const uint8_t ck[32], const void *in, size_t size, uint8_t out1[32], uint8_t out2[32],
                uint8_t *out3);

#endif
