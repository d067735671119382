/* Work whose cost grows with the cluster, asked for again and again: it is done at once while it is cheap, and takes at
 * most a fourth of the time when it is not. */
#ifndef SHOAL_BASE_PACE_H
#define SHOAL_BASE_PACE_H

#include <shoal/base/file.h>

enum { PACE_FREE_NS = 1000000, PACE_MAX_MS = 500 };
struct pace { int64_t began_ns, after_ns; };

static inline void pace_begin(struct pace *p)
{
    p->began_ns = clock_mono_ns();
}

static inline void pace_end(struct pace *p)
{
    int64_t now = clock_mono_ns(), cost = now - p->began_ns;
    p->after_ns = now + (cost > PACE_FREE_NS ? MIN(3 * cost, PACE_MAX_MS * MS_NS) : 0);
}

static inline int64_t pace_wait_ms(const struct pace *p) /* 0: now */
{
    int64_t left = p->after_ns - clock_mono_ns();
    return left > 0 ? left / MS_NS + 1 : 0;
}

#endif
