/* Numbers as files and packets of ours hold them: little-endian, n bytes (1 to 8). */
#ifndef SHOAL_BASE_LE_H
#define SHOAL_BASE_LE_H

#include <shoal/base/sb.h>
#include <stdint.h>

static inline void le_put(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t le_get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void sb_le(struct sb *b, uint64_t v, unsigned n)
{
    uint8_t bytes[8];
    le_put(bytes, v, n);
    sb_add(b, bytes, n);
}

#endif
