/* Gossip: who of the known members answers. SWIM (Das et al. 2002) with Lifeguard's local
 * health (Dadgar et al. 2018); packets sealed with the cluster's gossip keys. The node table of the
 * cluster says who is a member (gossip_member); gossip says whether it is alive. This door is the shell of
 * membership/gossip: pure core + UDP socket + timer. Everything on the loop's thread.
 * Design: design/consensus.md section 1.3, 2.3. */
#ifndef SHOAL_GOSSIP_H
#define SHOAL_GOSSIP_H

#include <shoal/base/err.h>
#include <shoal/loop.h>
#include <stdbool.h>
#include <stdint.h>

enum gossip_state { GOSSIP_ALIVE, GOSSIP_SUSPECT, GOSSIP_DEAD, GOSSIP_LEFT };
enum { GOSSIP_ID_MAX = 64, GOSSIP_KEYS_MAX = 3, GOSSIP_PACKET_MAX_BYTES = 1400 };

struct gossip_key_ref { uint64_t id; uint8_t key[32]; }; /* first of a list seals, all open */

/* A value of 0 in any field means its default. */
struct gossip_config {
    const char *node_id;         /* own, at most 64 bytes; copied */
    const char *listen_addr;     /* numeric IPv4 or IPv6; NULL: any */
    uint16_t port;               /* UDP */
    uint32_t probe_ms;           /* 200: period of probing one member */
    uint32_t timeout_ms;         /* 100: direct answer, then indirect through `indirect` members */
    uint32_t indirect;           /* 3 */
    uint32_t suspicion_mult;     /* 4: suspicion lasts mult * log10(n+1)(at least 1) * probe_ms before DEAD */
    uint64_t incarnation;        /* start value: real time in ms, so that a restart outranks its past */
};

struct gossip_hooks {
    void *arg;
    /* A member's state as this node sees it changed. LEFT: it said goodbye. */
    void (*state)(void *arg, const char *node_id, enum gossip_state state);
    /* A packet that no gossip key opens; true: it was somebody's. May be NULL. */
    bool (*datagram)(void *arg, const void *p, size_t size);
};

struct gossip;
int gossip_open(struct gossip **ret, struct loop *l, const struct gossip_config *cfg,
                const struct gossip_key_ref *keys, unsigned n_keys, const struct gossip_hooks *hooks,
                uint64_t seed, struct err *e) must_check;
void gossip_close(struct gossip *g); /* takes NULL; says nothing to anybody */
void gossip_set_keys(struct gossip *g, const struct gossip_key_ref *keys, unsigned n);
/* A member of the cluster (idempotent; new address replaces the old). Starts as alive, probed at once. */
void gossip_member(struct gossip *g, const char *node_id, const char *addr, uint16_t port);
/* No member any more: forgotten, its packets are dropped. */
void gossip_forget(struct gossip *g, const char *node_id);
/* Tells everybody that this node leaves (a few packets), then calls done. */
void gossip_leave(struct gossip *g, loop_fn *done, void *arg);
enum gossip_state gossip_state_of(const struct gossip *g, const char *node_id); /* unknown: GOSSIP_DEAD */
const char *gossip_state_text(enum gossip_state s);
/* Raw bytes from the gossip socket, at most GOSSIP_PACKET_MAX_BYTES; may be lost. False: it could not be sent. */
bool gossip_send_datagram(struct gossip *g, const char *addr, uint16_t port, const void *p, size_t size);
/* Packets: n_unsealed counts those that no key opened. */
struct gossip_stats { uint64_t n_sent, n_received, n_unsealed, bytes_sent, bytes_received; uint32_t n_members, n_alive; };
void gossip_stats(const struct gossip *g, struct gossip_stats *ret);

#endif
