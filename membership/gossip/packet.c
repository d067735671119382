/* The plain form of a gossip packet: kind, sequence, sender, then rumours until the end. */
#include "core.h"

enum { RUMOUR_HEAD = 1 + 8 + 1 };

static size_t put_id(uint8_t *out, const char *id)
{
    size_t n = strlen(id);
    out[0] = (uint8_t)n;
    memcpy(out + 1, id, n);
    return n + 1;
}

size_t gossip_packet_write(const struct gossip_packet *p, uint8_t *out, size_t max, unsigned *ret_rumours)
{
    size_t n = 0;
    unsigned k = 0;
    ASSERT(max >= 5 + 2 * (GOSSIP_ID_MAX + 1));
    out[n++] = (uint8_t)p->kind;
    for (int i = 0; i < 4; i++)
        out[n++] = (uint8_t)(p->seq >> (24 - 8 * i));
    n += put_id(out + n, p->from);
    if (p->kind == KIND_PING_REQUEST)
        n += put_id(out + n, p->target);
    for (; k < p->n_rumours; k++) {
        const struct gossip_rumour *r = &p->rumours[k];
        if (n + RUMOUR_HEAD + strlen(r->id) > max)
            break;
        out[n++] = (uint8_t)r->state;
        for (int i = 0; i < 8; i++)
            out[n++] = (uint8_t)(r->incarnation >> (56 - 8 * i));
        n += put_id(out + n, r->id);
    }
    if (ret_rumours)
        *ret_rumours = k;
    return n;
}

static bool take_id(const uint8_t **p, const uint8_t *end, char out[GOSSIP_ID_MAX + 1])
{
    if (*p >= end || **p == 0 || **p > GOSSIP_ID_MAX || end - *p - 1 < **p || memchr(*p + 1, 0, **p))
        return false;
    memcpy(out, *p + 1, **p);
    out[**p] = '\0';
    *p += 1 + **p;
    return true;
}

bool gossip_packet_read(struct gossip_packet *ret, const void *bytes, size_t size)
{
    const uint8_t *p = bytes, *end = p + size;
    ret->n_rumours = 0;
    ret->target[0] = '\0';
    if (size < 7 || p[0] < KIND_PING || p[0] > KIND_RUMOURS)
        return false;
    ret->kind = p[0];
    ret->seq = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    p += 5;
    if (!take_id(&p, end, ret->from) || (ret->kind == KIND_PING_REQUEST && !take_id(&p, end, ret->target)))
        return false;
    while (p < end) {
        struct gossip_rumour *r = &ret->rumours[ret->n_rumours];
        if (ret->n_rumours == RUMOURS_MAX || end - p < RUMOUR_HEAD || p[0] > GOSSIP_LEFT)
            return false;
        r->state = p[0];
        r->incarnation = 0;
        for (int i = 1; i < 9; i++)
            r->incarnation = r->incarnation << 8 | p[i];
        p += 9;
        if (!take_id(&p, end, r->id))
            return false;
        ret->n_rumours++;
    }
    return true;
}
