/* The world of the gossip simulation: many production cores in virtual time, a network that loses, doubles, delays,
 * repeats and cuts, nodes that stop and start. Everything follows from one seed. */
#ifndef GOSSIP_WORLD_H
#define GOSSIP_WORLD_H

#include "core.h"
#include "seeds.h"

struct sim_node {
    struct gossip_core g;
    bool up, started;
    bool refuses;             /* not up, but its machine is, and answers that nobody listens */
    uint8_t side;
    bool cut_in, cut_out;
    uint32_t generation;      /* of its address */
    char addr[16];            /* that number as text */
    int64_t paused_until, tick_at;
    uint64_t life, sent, received;
    int64_t born;
    uint64_t *incarnations;   /* seen of each, checked mode: never backwards */
    int64_t *suspect_since;   /* by node; 0: not suspect */
    int64_t *refused_ms;      /* by node: when its machine was last heard to refuse */
};
struct world {
    struct sim_node *v;
    unsigned n;
    struct gossip_table *t;
    struct rng rng;
    int64_t now;
    unsigned loss, doubled, old; /* per mille; old: comes again up to a minute later */
    bool parted, checked;        /* checked: invariants after every event */
    bool (*cut)(unsigned from, unsigned to); /* NULL: no path is cut but by side and node */
    uint64_t hash, n_events;
    uint32_t budget;             /* of each core; 0: its default */
    const char *stage;
};
extern struct world w;

void world_open(uint64_t seed, unsigned n, bool checked);
void world_close(void);
void world_start(unsigned i, uint64_t incarnation); /* with all nodes as members */
void world_stop(unsigned i);                        /* crash */
void world_pause(unsigned i, int64_t ms);
void world_move(unsigned i);                        /* another address; the node knows */
void world_run(int64_t ms);
void world_send(unsigned from, unsigned to, const void *p, size_t size);
void world_stage(const char *what);                 /* for people */
void world_where(void);                             /* prints it */
enum gossip_state world_sees(unsigned by, unsigned who);
unsigned world_count(unsigned who, enum gossip_state s); /* running nodes that see it so */
unsigned world_up(void);
extern int64_t world_down_ms;        /* suspect for this long without a break counts as ... */
extern uint64_t world_false_downs, world_false_suspects; /* ... of a running node; checked where it is told */

#endif
