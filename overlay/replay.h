/* Sliding window against replayed packets (RFC 6479), 64-bit counters from 0, one a session.
 * Ask only after the packet's tag is verified: a forged counter would push the window away. */
#ifndef OVERLAY_REPLAY_H
#define OVERLAY_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

enum { REPLAY_BITS = 8192, REPLAY_WORDS = REPLAY_BITS / 64, REPLAY_WINDOW = REPLAY_BITS - 64 };

struct replay {
    uint64_t next; /* highest counter seen + 1; 0: none seen */
    uint64_t bits[REPLAY_WORDS];
};

void replay_init(struct replay *r);
/* True once for each counter that is not REPLAY_WINDOW or more behind the highest one. */
bool replay_accept(struct replay *r, uint64_t counter);
/* Is it above all seen? (Roaming follows only such packets.) */
bool replay_is_newest(const struct replay *r, uint64_t counter);

#endif
