/* Gossip's core, pure: packets (already opened, so that the sender is known for sure) and times in, packets and
 * state changes out. See gossip.h for the sources and the door.
 *
 * One fact is what one node signed: a statement about itself (alive or leaving, its incarnation, its address), or an
 * alert (it, an observer, gets no answer from another node in this incarnation). Everything else is derived: a member
 * is SUSPECT when enough observers signed alerts about its newest incarnation, and it refutes by a newer one. So one
 * node never has more than its own vote, and nobody can revive another. */
#ifndef GOSSIP_CORE_H
#define GOSSIP_CORE_H

#include <shoal/base/map.h>
#include <shoal/base/rng.h>
#include <shoal/gossip.h>

#ifdef GOSSIP_PLANTED /* a build of the simulation alone: it has to find each of these bugs */
extern int gossip_bug;
#define GOSSIP_BUG gossip_bug
#else
#define GOSSIP_BUG 0
#endif

enum {
    GOSSIP_ADDR_MAX = 64, GOSSIP_FANOUT = 6, GOSSIP_HEALTH_MAX = 8, GOSSIP_OBSERVERS = 8, GOSSIP_BUCKETS = 256,
    ALERTS_MAX = 16,      /* about one member: its observers and as many others */
    PROBES_MAX = 2 * GOSSIP_OBSERVERS, /* on average a node has as many subjects as observers; the ring bounds them */
    JUDGE_MS = 50,        /* with many cases, from one look at all of them to the next */
    NO_SLOT = UINT32_MAX,
};

/* ---- table.c: who there is. Cores may share one (the simulation has 10,000); in a daemon there is one core. ---- */
struct gossip_identity {
    char *id, addr[GOSSIP_ADDR_MAX];
    uint16_t port;
    uint8_t key[32];         /* Ed25519 */
    uint64_t tag;            /* stands for the id in packets */
    uint32_t at[GOSSIP_OBSERVERS]; /* place on each ring */
    int64_t removed_ms;      /* not 0: removed then; ids are never used again */
};
/* Who observes whom among one set of members. */
struct gossip_ring {
    struct gossip_ring *next;
    unsigned n_refs;
    uint64_t digest;
    uint32_t n_slots;
    uint8_t *n;                                /* observers of each slot */
    uint32_t (*observers)[GOSSIP_OBSERVERS];
};
struct gossip_table {
    unsigned n_refs;
    struct gossip_identity *v;
    uint32_t n, cap;
    struct map by_id, by_tag; /* values: slot + 1 */
    struct { uint32_t *slots, n, cap; } buckets[GOSSIP_BUCKETS];
    struct map facts;         /* signature -> struct gossip_fact: one copy, verified once */
    struct gossip_ring *rings;
};
struct gossip_table *gossip_table_new(void);
void gossip_table_unref(struct gossip_table *t);
uint32_t gossip_table_put(struct gossip_table *t, const char *id, const char *addr, uint16_t port, const uint8_t key[32]);
uint32_t gossip_table_find(const struct gossip_table *t, const char *id); /* NO_SLOT: none */
uint32_t gossip_table_by_tag(const struct gossip_table *t, uint64_t tag);
static inline unsigned gossip_bucket(uint64_t tag) { return (unsigned)(tag & (GOSSIP_BUCKETS - 1)); }
/* The ring of the slots for which is_member says yes; digest: of that set. */
struct gossip_ring *gossip_ring_get(struct gossip_table *t, uint64_t digest, bool (*is_member)(const void *arg, uint32_t slot),
                                    const void *arg);
void gossip_ring_unref(struct gossip_table *t, struct gossip_ring *r);

/* ---- fact.c ---- */
enum fact_kind { FACT_ALIVE = 1, FACT_LEFT, FACT_ALERT };
enum { FACT_MAX_BYTES = 1 + 8 + 8 + 2 + 1 + GOSSIP_ADDR_MAX + 64 };
struct gossip_fact {
    unsigned n_refs;
    uint32_t subject, signer; /* slots; equal but for an alert */
    uint32_t hash;
    enum fact_kind kind;
    uint64_t incarnation;     /* of the subject */
    uint16_t port;
    char addr[GOSSIP_ADDR_MAX];
    uint8_t signature[64];
};
struct gossip_core;
/* Signed by g itself. The caller has a reference. */
struct gossip_fact *gossip_fact_make(struct gossip_core *g, enum fact_kind kind, uint32_t subject, uint64_t incarnation);
size_t gossip_fact_write(const struct gossip_table *t, const struct gossip_fact *f, uint8_t *out); /* FACT_MAX_BYTES */
/* Reads one fact, moving *p on; false: malformed. Slots are NO_SLOT where the table has no such node. */
bool gossip_fact_read(const struct gossip_table *t, const uint8_t **p, const uint8_t *end, struct gossip_fact *ret);
/* The table's copy of f, with a reference for the caller; NULL: its signature is false. */
struct gossip_fact *gossip_fact_keep(struct gossip_core *g, const struct gossip_fact *f);
void gossip_fact_unref(struct gossip_table *t, struct gossip_fact *f);

/* ---- the core ---- */
struct view { /* what this node holds of one member: 16 bytes, for 10,000 nodes hold 10,000 each */
    struct gossip_fact *statement; /* NULL: none heard yet */
    uint32_t alerts;               /* index + 1 into core's cases */
    uint8_t state, rounds;         /* rounds: how often the statement is still to be passed on */
    bool member : 1, queued : 1;
};
struct alerts { /* about one member's newest incarnation */
    uint32_t slot, asked; /* asked: number of the last ping that gossip_core_ask() sent, 0: none is out */
    uint8_t n, rounds[ALERTS_MAX];
    struct gossip_fact *v[ALERTS_MAX];
};
struct probe { /* of one subject */
    uint32_t slot, seq;
    uint8_t sent;          /* pings of this series, 0: none runs */
    bool failing;          /* the last series went without an answer */
    int64_t start_ms, next_ms, answered_ms;
};
struct gossip_core_out {
    void *arg;
    void (*send)(void *arg, uint32_t to, const char *addr, uint16_t port, const void *p, size_t size);
    void (*state)(void *arg, uint32_t who, enum gossip_state state);
    void (*address)(void *arg, uint32_t who, const char *addr, uint16_t port); /* a member states another one */
    void (*refused)(void *arg, uint32_t who); /* its machine answers that nobody listens there */
    void (*sign)(void *arg, uint8_t signature[64], const void *p, size_t size);
    bool (*verify)(void *arg, const struct gossip_identity *by, const uint8_t signature[64], const void *p, size_t size);
};
struct gossip_core {
    struct gossip_config cfg;
    struct gossip_core_out out;
    struct rng rng;
    struct gossip_table *t;
    uint32_t self;
    char addr[GOSSIP_ADDR_MAX];
    struct view *views; /* by slot */
    uint32_t n_views, n_members, n_unheard; /* unheard: members whose statement is not held */
    uint64_t digest;    /* of the set of members, this node among them */
    uint32_t buckets[GOSSIP_BUCKETS]; /* digests of the facts held */
    struct gossip_ring *ring;
    bool ring_stale, leaving, judge;  /* judge: alerts came, verdicts are due */
    int64_t ring_due_ms, judged_ms;
    uint64_t incarnation;
    uint32_t answered;                /* while a packet is taken in: its sender, and where from */
    const char *answer_addr;
    uint16_t answer_port;
    int64_t now_ms, due_ms;           /* due: when the last tick asked to be called again */

    struct alerts *cases;
    uint32_t n_cases, cap_cases;
    uint32_t *queue, queue_at, queue_n, queue_cap; /* slots with news; each at most once */

    /* probe.c */
    struct probe probes[PROBES_MAX], guest; /* guest: the slow random probe, the net below the ring */
    unsigned n_probes;
    uint32_t guest_at;
    int64_t guest_ms, answered_ms, doubt_until_ms, health_ms, refute_ms, refute_wait_ms, alerted_ms;
    unsigned health; /* 0: well; grows when this node is late or its alerts are refuted */

    /* spread.c */
    int64_t spread_ms, sync_ms, contact_ms;
    int64_t tokens, tokens_ms;
    uint32_t sync_seq;
    bool sync_gained;  /* the last exchange brought news: the next follows soon */
    int64_t sync_wait_ms; /* until the next one, on average */
    int64_t spread_last_ms;
    struct gossip_core_stats { uint64_t n_changes, n_forged, n_other_table, bytes_spread; } stats;
};

/* The core has a reference to t. key: own public key. */
void gossip_core_init(struct gossip_core *g, const struct gossip_config *cfg, const struct gossip_core_out *out,
                      struct gossip_table *t, const uint8_t key[32], uint64_t seed, int64_t now_ms);
void gossip_core_done(struct gossip_core *g);
void gossip_core_member(struct gossip_core *g, const char *id, const char *addr, uint16_t port, const uint8_t key[32]);
void gossip_core_enlist(struct gossip_core *g, uint32_t slot); /* one that the table has */
void gossip_core_forget(struct gossip_core *g, const char *id);
void gossip_core_address(struct gossip_core *g, const char *addr); /* own, another from now on */
void gossip_core_leave(struct gossip_core *g);
/* Returns when it wants to be called again, at the latest. */
int64_t gossip_core_tick(struct gossip_core *g, int64_t now_ms);
/* from: slot of the sender, proven by the seal. addr, port: where the packet came from; the answer goes there, for the
 * sender may have moved since it last told us. True: call tick at once. */
bool gossip_core_receive(struct gossip_core *g, int64_t now_ms, uint32_t from, const char *addr, uint16_t port, const void *p,
                         size_t size);
/* One ping, now, to a member that is suspect: for who has to judge, and may be none of its observers. */
void gossip_core_ask(struct gossip_core *g, uint32_t slot);
/* A ping of this node came back: the machine of the member in the slot says that nobody listens on that port. It counts
 * when the ping is one that waits for its answer, or an old refusal could be told for ever. */
void gossip_core_refused(struct gossip_core *g, uint32_t slot, const void *ping, size_t size);
enum gossip_state gossip_core_state(const struct gossip_core *g, uint32_t slot); /* no member: GOSSIP_DEAD */
/* How a member is reached: as it states itself, or else as the table says. */
void gossip_core_reach(const struct gossip_core *g, uint32_t slot, const char **addr, uint16_t *port);

/* ---- view.c: what is held, and the verdicts on it ---- */
uint64_t incarnation_of(const struct gossip_core *g, uint32_t slot);
struct alerts *alerts_of(const struct gossip_core *g, uint32_t slot);
bool has_alerted(const struct gossip_core *g, uint32_t slot, uint32_t by);
/* Takes in a fact; from: who sent it (the own slot: made here). True: it was news. */
bool gossip_hear(struct gossip_core *g, const struct gossip_fact *f, uint32_t from);
void gossip_state_self(struct gossip_core *g); /* a new statement of this node, pushed at once */
void gossip_refute(struct gossip_core *g, uint64_t incarnation);
void gossip_judge(struct gossip_core *g);
void gossip_drop(struct gossip_core *g, uint32_t slot); /* all that is held of it */
unsigned gossip_rounds(const struct gossip_core *g);

/* ---- probe.c ---- */
void probe_ring_changed(struct gossip_core *g);
int64_t probe_tick(struct gossip_core *g);
void probe_answered(struct gossip_core *g, uint32_t from, uint32_t seq);
void probe_again(struct gossip_core *g, uint32_t slot); /* another incarnation: the count begins anew */
void probe_blamed(struct gossip_core *g); /* an alert of this node was refuted: it may itself be the sick one */
bool is_small(const struct gossip_core *g);

/* ---- spread.c ---- */
void spread_queue(struct gossip_core *g, uint32_t slot, bool now);
int64_t spread_tick(struct gossip_core *g);
void spread_to(struct gossip_core *g, uint32_t to, uint32_t about); /* all that is held about one, now */
void spread_goodbye(struct gossip_core *g);
void sync_got(struct gossip_core *g, uint32_t from, const uint8_t *p, size_t size);
void sync_got_diff(struct gossip_core *g, uint32_t from, const uint8_t *p, size_t size);
void sync_got_want(struct gossip_core *g, uint32_t from, const uint8_t *p, size_t size);

/* ---- packet.c: head of every packet, then what its kind has ---- */
enum gossip_kind { KIND_PING = 1, KIND_ACK, KIND_FACTS, KIND_SYNC, KIND_DIFF, KIND_WANT };
enum { PING_SUSPECTED = 1 }; /* flag of a ping: its sender holds an alert about the one it pings */
enum { HEAD_BYTES = 1 + 4 + 4, PING_BYTES = HEAD_BYTES + 1 + 8 };
struct gossip_packet { enum gossip_kind kind; uint32_t seq, table; const uint8_t *rest; size_t rest_size; };
struct out_packet { uint8_t v[GOSSIP_PACKET_MAX_BYTES]; size_t n; };
bool gossip_packet_read(struct gossip_packet *ret, const void *p, size_t size);
void packet_begin(const struct gossip_core *g, struct out_packet *o, enum gossip_kind kind, uint32_t seq);
bool packet_fact(const struct gossip_core *g, struct out_packet *o, const struct gossip_fact *f); /* false: no room */
void packet_send(struct gossip_core *g, const struct out_packet *o, uint32_t to);
void put_be(uint8_t *p, uint64_t v, unsigned n);
uint64_t get_be(const uint8_t *p, unsigned n);

/* ---- seal.c: version, key id, tag of the sender, nonce | XChaCha20-Poly1305 under a key of this pair of nodes ---- */
enum { SEAL_HEAD_BYTES = 1 + 8 + 8 + 24, SEAL_OVERHEAD = SEAL_HEAD_BYTES + 16, PLAIN_MAX_BYTES = GOSSIP_PACKET_MAX_BYTES - SEAL_OVERHEAD };
struct gossip_seal_head { uint64_t key_id, sender; };
/* shared: X25519 of the pair; only who holds one of its secrets and the cluster's key can seal or open. */
void gossip_pair_key(uint8_t out[32], const struct gossip_key_ref *key, const uint8_t shared[32]);
bool gossip_seal_read(struct gossip_seal_head *ret, const uint8_t *p, size_t size);
size_t gossip_seal(const uint8_t pair_key[32], uint64_t key_id, uint64_t sender, uint64_t receiver, const uint8_t nonce[24],
                   const void *p, size_t size, uint8_t *out /* size + SEAL_OVERHEAD */);
/* Bytes of the opened packet in out (size - SEAL_OVERHEAD), or 0: the key does not open it. */
size_t gossip_unseal(const uint8_t pair_key[32], uint64_t receiver, const uint8_t *p, size_t size, uint8_t *out);

#endif
