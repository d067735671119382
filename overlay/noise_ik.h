/* WireGuard's handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s with its message layout (whitepaper, section 5.4).
 * Pure: times and random keys come in, bytes go out. */
#ifndef OVERLAY_NOISE_IK_H
#define OVERLAY_NOISE_IK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IK_INITIATION_BYTES = 148, IK_RESPONSE_BYTES = 92, IK_COOKIE_BYTES = 64, IK_TIMESTAMP_BYTES = 12, IK_MAC_BYTES = 16 };

struct ik_identity {
    uint8_t secret[32], public[32], psk[32];
    uint8_t mac1_key[32], cookie_key[32]; /* of packets sent to us */
};
struct ik_handshake { /* between the two messages */
    uint8_t h[32], ck[32], e_secret[32], peer_e[32];
    uint32_t our_index, peer_index;
};
struct ik_keys { uint8_t send[32], receive[32]; };

void ik_identity_init(struct ik_identity *id, const uint8_t secret[32], const uint8_t psk[32]);
/* timestamp: TAI64N; cookie: of the last cookie reply or NULL. False: the peer's key is a weak point. */
bool ik_initiate(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t peer[32], uint32_t our_index,
                 const uint8_t timestamp[12], const uint8_t *cookie, uint8_t out[IK_INITIATION_BYTES]);
/* Before any curve work: was the message made for us, and by somebody who got our cookie? */
bool ik_mac1_good(const struct ik_identity *id, const uint8_t *msg, size_t size);
bool ik_mac2_good(const uint8_t *msg, size_t size, const uint8_t cookie[IK_MAC_BYTES]);
void ik_write_cookie(const struct ik_identity *id, const uint8_t *msg, size_t size, const uint8_t cookie[IK_MAC_BYTES],
                     uint8_t out[IK_COOKIE_BYTES]);
/* Responder: who is it? Gives the static key and timestamp; hs goes on to ik_respond. False: forged. */
bool ik_read_initiation(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t in[IK_INITIATION_BYTES],
                        uint8_t ret_peer[32], uint8_t ret_timestamp[12]);
bool ik_respond(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t peer[32], uint32_t our_index,
                const uint8_t *cookie, uint8_t out[IK_RESPONSE_BYTES], struct ik_keys *ret);
/* Initiator: hs stays usable when it is forged. */
bool ik_read_response(struct ik_handshake *hs, const struct ik_identity *id, const uint8_t in[IK_RESPONSE_BYTES],
                      struct ik_keys *ret);
/* Message 3: the cookie to put into mac2 from now on (two minutes). mac1: of the message it answers. */
bool ik_read_cookie(const uint8_t peer[32], const uint8_t mac1[IK_MAC_BYTES], const uint8_t in[IK_COOKIE_BYTES],
                    uint8_t ret_cookie[IK_MAC_BYTES]);

#endif
