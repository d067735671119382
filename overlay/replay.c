/* Replay window, RFC 6479: a ring of 64-bit words indexed by the counter's high bits. Moving the window clears
 * whole words, never shifts; the one word of slack (WINDOW = BITS - 64) is what makes that right. */
#include "replay.h"

#include <shoal/base/mem.h>

void replay_init(struct replay *r)
{
    *r = (struct replay){ 0 };
}

bool replay_is_newest(const struct replay *r, uint64_t counter)
{
    return counter >= r->next;
}

bool replay_accept(struct replay *r, uint64_t counter)
{
    if (counter == UINT64_MAX) /* next would wrap; senders stop long before */
        return false;
    if (counter >= r->next) {
        uint64_t old_word = r->next ? (r->next - 1) / 64 : 0, word = counter / 64;
        uint64_t n = MIN(word - old_word, (uint64_t)REPLAY_WORDS);
        for (uint64_t i = 1; i <= n; i++)
            r->bits[(old_word + i) % REPLAY_WORDS] = 0;
        r->next = counter + 1;
    } else if (r->next - 1 - counter >= REPLAY_WINDOW) {
        return false;
    }
    uint64_t *w = &r->bits[counter / 64 % REPLAY_WORDS], bit = UINT64_C(1) << counter % 64;
    bool seen = *w & bit;
    *w |= bit;
    return !seen;
}
