/* One WireGuard peer: its sessions, timers and the packets that wait for a handshake (whitepaper, section 6).
 * Pure: bytes and times in, bytes out through the given functions.
 *
 * Two shoal ends may say more to each other than WireGuard has. Whether they do is settled inside each session, not by the
 * committed node table: that is known to either end at another time, and says nothing of which program a tunnel process
 * runs that outlives its daemon, or of what its processor can. So each end says HELLO in an authenticated data packet that
 * WireGuard drops as malformed (it is no IP packet), with what it can read, and sends other forms only in sessions in which
 * it has read the other's. To WireGuard, and to shoal of before, everything stays as it is; who takes the HELLOs away gets
 * WireGuard, which is as secret. */
#ifndef OVERLAY_PEER_H
#define OVERLAY_PEER_H

#include "noise_ik.h"
#include "replay.h"

enum {
    PEER_REKEY_AFTER_MS = 120000, PEER_REJECT_AFTER_MS = 180000, PEER_REKEY_TIMEOUT_MS = 5000,
    PEER_REKEY_ATTEMPT_MS = 90000, PEER_KEEPALIVE_MS = 10000, PEER_COOKIE_MS = 120000,
    PEER_INITIATION_MIN_MS = 20 /* between those of one peer */, PEER_QUEUE_MAX = 128, PEER_PACKET_MAX_BYTES = 65535, PEER_OVERHEAD = 32,
    PEER_HELLO_MS = 1000 /* between two, until an answer */, PEER_HELLOS = 3 /* to an end that says nothing: it does not know them */,
};
/* What an end can read, said in HELLO; the other bits are for later. */
enum { PEER_CAN_COMPACT = 1 /* vxlan.h */, PEER_CAN_AES = 2 /* sealed by AES-256-GCM, and it is fast here */ };
/* How a data packet is read; type 4 of the whitepaper and two behind it, each under keys of its own. */
enum peer_form { PEER_WIREGUARD /* an IP packet, ChaCha20-Poly1305 */, PEER_CHACHA, PEER_AES /* both compact */ };

struct endpoint { uint8_t addr[16]; uint16_t port; bool v6, known; };

struct peer_out {
    void *arg;
    uint8_t *(*room)(void *arg, size_t size); /* where the next packet to be sent may be written, until send */
    void (*send)(void *arg, const struct endpoint *to, const uint8_t *p, size_t size); /* to the wire; p is what room gave, or not */
    /* opened, in place; the counter is the session's */
    void (*deliver)(void *arg, void *peer_arg, enum peer_form form, uint64_t counter, uint8_t *p, size_t size);
};

struct session {
    bool valid, initiator, confirmed;
    uint32_t our_index, peer_index;
    struct ik_keys keys, chacha; /* chacha: of the compact form */
    struct crypto_gcm *aes_send, *aes_receive; /* NULL: this end cannot */
    bool heard_hello;
    uint8_t peer_can;            /* what the other end said and we can as well */
    bool peer_knows;             /* what we can: it said so, or sends what follows from it */
    unsigned n_hellos;
    int64_t hello_ms;
    uint64_t n_sent;
    int64_t born_ms;
    struct replay window;
};
struct queued { uint8_t *p; size_t size; };
struct peer {
    const struct ik_identity *id;
    const struct peer_out *out;
    void *arg;                /* for deliver */
    uint8_t can;              /* this end: PEER_CAN_... */
    uint8_t key[32];
    struct endpoint endpoint;
    uint32_t slot;            /* indexes are slot << 8 | generation */
    uint8_t generation;
    struct session current, previous, next;
    bool handshaking;
    struct ik_handshake hs;
    int64_t started_ms, sent_initiation_ms; /* of this attempt; of its last message */
    uint8_t last_mac1[IK_MAC_BYTES], cookie[IK_MAC_BYTES];
    int64_t cookie_ms;
    uint8_t latest_timestamp[IK_TIMESTAMP_BYTES];
    int64_t initiated_ms;     /* by the other end */
    int64_t heard_ms, data_sent_ms, data_heard_ms, handshake_ms; /* 0: never */
    bool owes_keepalive, expects_answer;
    int64_t expects_since_ms;
    struct queued queue[PEER_QUEUE_MAX];
    unsigned queue_first, queue_n;
    uint64_t rx_bytes, tx_bytes, n_dropped;
    size_t largest[2];        /* IP packet, compact packet of a whole frame: padding stays within the path's MTU, which is not known here */
    uint32_t jitter_ms;
};

void peer_init(struct peer *p, const struct ik_identity *id, const uint8_t key[32], uint32_t slot, uint8_t can,
               const struct peer_out *out, void *arg);
void peer_done(struct peer *p); /* wipes keys, frees the queue */
/* The best that the peer reads now. */
enum peer_form peer_form(const struct peer *p, int64_t now_ms);
/* A packet of this size is a whole frame's, which the MTU of its network bounds. A container says how long the pieces of
 * its super-packets are, and they prove nothing. */
void peer_saw_whole(struct peer *p, enum peer_form form, size_t size);
/* What a packet of this size is to be padded to, so that its length says less: within what whole frames have shown to fit. */
size_t peer_padded(const struct peer *p, enum peer_form form, size_t size);
/* A packet to the peer: sealed and sent. An IP packet is padded here, and queued while a handshake runs (the oldest gives
 * way); another form must be peer_form()'s of this moment. */
void peer_send(struct peer *p, int64_t now_ms, int64_t real_ns, enum peer_form form, const uint8_t *packet, size_t size);
/* What came from the wire for this peer: messages 2 to 4 found by index. from: where from (roaming). */
void peer_receive(struct peer *p, int64_t now_ms, int64_t real_ns, const struct endpoint *from, uint8_t *packet, size_t size);
/* A message 1, opened already by ik_read_initiation. */
void peer_initiated(struct peer *p, int64_t now_ms, const struct endpoint *from, struct ik_handshake *hs,
                    const uint8_t timestamp[IK_TIMESTAMP_BYTES]);
/* Begins a handshake unless there is a session or one runs: a peer that knew us may still use old keys. */
void peer_greet(struct peer *p, int64_t now_ms, int64_t real_ns);
/* Timers; call at least every 250 ms. */
void peer_tick(struct peer *p, int64_t now_ms, int64_t real_ns);

#endif
