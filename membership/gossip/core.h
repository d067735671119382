/* Gossip's core, pure: packets (already opened) and times in, packets and state changes out. SWIM with
 * Lifeguard's local health; see gossip.h for the sources and the door. */
#ifndef GOSSIP_CORE_H
#define GOSSIP_CORE_H

#include <shoal/base/map.h>
#include <shoal/base/rng.h>
#include <shoal/gossip.h>

enum { GOSSIP_ADDR_MAX = 64, GOSSIP_FANOUT = 3, GOSSIP_HEALTH_MAX = 8 };

struct gossip_peer {
    char id[GOSSIP_ID_MAX + 1], addr[GOSSIP_ADDR_MAX];
    uint16_t port;
    enum gossip_state state;
    uint64_t incarnation;
    int64_t suspect_until_ms;
    unsigned n_told; /* times its state was passed on since it changed */
};
struct relay { uint32_t seq, for_seq; char for_id[GOSSIP_ID_MAX + 1]; int64_t until_ms; };
enum { RELAYS_MAX = 64 };

struct gossip_core_out {
    void *arg;
    void (*send)(void *arg, const char *addr, uint16_t port, const void *p, size_t size);
    void (*state)(void *arg, const char *id, enum gossip_state state);
};
struct gossip_core {
    struct gossip_config cfg;
    char id[GOSSIP_ID_MAX + 1];
    struct gossip_core_out out;
    struct rng rng;
    struct map peers; /* id -> struct gossip_peer */
    uint64_t incarnation;
    bool leaving;
    unsigned n_self_told; /* times our own state was passed on since it changed */
    unsigned health;      /* 0: well; grows when our own probes go unanswered */
    /* the probe under way */
    char **order;
    uint32_t n_order, at;
    char target[GOSSIP_ID_MAX + 1];
    uint32_t seq;
    bool acked, indirect_sent;
    int64_t period_ms, period_start_ms, next_spread_ms;
    unsigned periods;
    struct relay relays[RELAYS_MAX];
    unsigned next_relay;
};

void gossip_core_init(struct gossip_core *g, const struct gossip_config *cfg, const struct gossip_core_out *out,
                      uint64_t seed, int64_t now_ms);
void gossip_core_done(struct gossip_core *g);
void gossip_core_member(struct gossip_core *g, const char *id, const char *addr, uint16_t port);
void gossip_core_forget(struct gossip_core *g, const char *id);
void gossip_core_leave(struct gossip_core *g);
/* Call at least every timeout_ms / 2. */
void gossip_core_tick(struct gossip_core *g, int64_t now_ms);
void gossip_core_receive(struct gossip_core *g, int64_t now_ms, const void *p, size_t size);

/* packet.c: one message and the rumours that ride on it. */
enum gossip_kind { KIND_PING = 1, KIND_ACK, KIND_PING_REQUEST, KIND_RUMOURS };
struct gossip_rumour { enum gossip_state state; uint64_t incarnation; char id[GOSSIP_ID_MAX + 1]; };
enum { RUMOURS_MAX = 64 };
struct gossip_packet {
    enum gossip_kind kind;
    uint32_t seq;
    char from[GOSSIP_ID_MAX + 1], target[GOSSIP_ID_MAX + 1]; /* target: of PING_REQUEST */
    struct gossip_rumour rumours[RUMOURS_MAX];
    unsigned n_rumours;
};
/* Bytes written; rumours that do not fit into max are left out (ret_rumours: how many went). */
size_t gossip_packet_write(const struct gossip_packet *p, uint8_t *out, size_t max, unsigned *ret_rumours);
bool gossip_packet_read(struct gossip_packet *ret, const void *bytes, size_t size);

/* seal.c: version, key id, nonce | XChaCha20-Poly1305. */
enum { SEAL_HEAD_BYTES = 1 + 8 + 24, SEAL_OVERHEAD = SEAL_HEAD_BYTES + 16 };
size_t gossip_seal(const struct gossip_key_ref *key, const uint8_t nonce[24], const void *p, size_t size,
                   uint8_t *out /* size + SEAL_OVERHEAD */);
/* Bytes of the opened packet in out (size - SEAL_OVERHEAD), or 0: no key opens it. */
size_t gossip_open_sealed(const struct gossip_key_ref *keys, unsigned n_keys, const uint8_t *p, size_t size, uint8_t *out);

#endif
