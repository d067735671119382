/* Gossip: who of the known members answers. Each member is observed by eight others (all, in small clusters), chosen by
 * a hash ring over the node table as in Rapid (Suresh et al. 2018); it is SUSPECT when enough of them say so. News travel
 * as in SWIM (Das et al. 2002), nodes that are slow themselves keep quiet as in Lifeguard (Dadgar et al. 2018). The node
 * table of the cluster says who is a member (gossip_member); gossip says whether it answers. Packets are sealed for one
 * pair of nodes, and what is said of a third one is signed, so no node has more than one voice. This door is the shell
 * of membership/gossip: pure core + UDP socket + timer. Everything on the loop's thread. */
#ifndef SHOAL_GOSSIP_H
#define SHOAL_GOSSIP_H

#include <shoal/base/err.h>
#include <shoal/loop.h>
#include <stdbool.h>
#include <stdint.h>

/* DEAD: no member. A member that is gone stays SUSPECT until the log takes it out. */
enum gossip_state { GOSSIP_ALIVE, GOSSIP_SUSPECT, GOSSIP_DEAD, GOSSIP_LEFT };
enum { GOSSIP_ID_MAX = 64, GOSSIP_KEYS_MAX = 3, GOSSIP_PACKET_MAX_BYTES = 1400 };

struct gossip_key_ref { uint64_t id; uint8_t key[32]; }; /* first of a list seals, all open */

/* A value of 0 in any field means its default. */
struct gossip_config {
    const char *node_id;         /* own, at most 64 bytes; copied */
    const char *listen_addr;     /* numeric IPv4 or IPv6; NULL: any */
    const char *addr;            /* where the others reach this node; NULL: as their table says */
    uint16_t port;               /* UDP */
    const uint8_t *sign_secret;  /* Ed25519, 64 bytes; copied */
    const uint8_t *link_secret;  /* X25519, 32 bytes; copied */
    uint32_t probe_ms;           /* period of asking each subject; 200 to 500 by the number of subjects */
    uint32_t timeout_ms;         /* from one ping of a series to the next; 80 up to nine nodes, 135 beyond */
    uint32_t budget_bytes;       /* a second, for all but pings and their answers: 192 KiB */
    uint64_t incarnation;        /* start value: real time in ms, so that a restart outranks its past */
};

struct gossip_hooks {
    void *arg;
    /* A member's state as this node sees it changed. LEFT: it said goodbye. */
    void (*state)(void *arg, const char *node_id, enum gossip_state state);
    /* A member says, signed, that it is reached elsewhere now. NULL: not asked for. */
    void (*address)(void *arg, const char *node_id, const char *addr);
    /* A member's machine answers (ICMP, quoting a ping of ours that waits for its answer) that nobody listens on its port:
     * the machine lives, its daemon does not. A firewall that drops ICMP hides it. NULL: not asked for. */
    void (*refused)(void *arg, const char *node_id);
    /* A packet that no gossip key opens; true: it was somebody's. May be NULL. */
    bool (*datagram)(void *arg, const void *p, size_t size);
};

struct gossip;
int gossip_open(struct gossip **ret, struct loop *l, const struct gossip_config *cfg,
                const struct gossip_key_ref *keys, unsigned n_keys, const struct gossip_hooks *hooks,
                uint64_t seed, struct err *e) must_check;
void gossip_close(struct gossip *g); /* takes NULL; says nothing to anybody */
void gossip_set_keys(struct gossip *g, const struct gossip_key_ref *keys, unsigned n);
/* A member of the cluster (idempotent). Starts as alive, probed at once. addr and port are where the table has it; what
 * the member itself states outranks them. sign_key (Ed25519) and link_key (X25519) are its public keys. */
void gossip_member(struct gossip *g, const char *node_id, const char *addr, uint16_t port, const uint8_t sign_key[32],
                   const uint8_t link_key[32]);
/* No member any more: forgotten, its packets are dropped, and for a day it cannot be brought back by gossip_member. */
void gossip_forget(struct gossip *g, const char *node_id);
/* This node is reached elsewhere from now on: told to all. */
void gossip_set_address(struct gossip *g, const char *addr);
/* Tells everybody that this node leaves (a few packets), then calls done. */
void gossip_leave(struct gossip *g, loop_fn *done, void *arg);
/* Pings a member that is suspect, for the sake of hooks.refused; of others nothing is asked. */
void gossip_ask(struct gossip *g, const char *node_id);
/* Where a member says it is; NULL: nothing heard. Valid until the next turn. */
const char *gossip_address_of(const struct gossip *g, const char *node_id);
enum gossip_state gossip_state_of(const struct gossip *g, const char *node_id);
uint32_t gossip_unstable(const struct gossip *g); /* n_unstable of gossip_stats() */
const char *gossip_state_text(enum gossip_state s);
/* Raw bytes from the gossip socket, at most GOSSIP_PACKET_MAX_BYTES; may be lost. False: it could not be sent. */
bool gossip_send_datagram(struct gossip *g, const char *addr, uint16_t port, const void *p, size_t size);
/* Packets: n_unsealed counts those that no key opened. n_forged: with false signatures. n_other_table: from nodes that
 * held another node table. n_unstable: members of which some observers get no answer, but too few for a verdict. */
struct gossip_stats {
    uint64_t n_sent, n_received, n_unsealed, n_forged, n_other_table, bytes_sent, bytes_received;
    uint32_t n_members, n_alive, n_unstable, health;
};
void gossip_stats(const struct gossip *g, struct gossip_stats *ret);

#endif
