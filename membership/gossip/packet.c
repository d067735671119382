/* The plain form of a gossip packet: kind, sequence, digest of the sender's node table, then what its kind has. */
#include "core.h"

void put_be(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> 8 * (n - 1 - i));
}

uint64_t get_be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

bool gossip_packet_read(struct gossip_packet *ret, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    if (size < HEAD_BYTES || size > GOSSIP_PACKET_MAX_BYTES || p[0] < KIND_PING || p[0] > KIND_WANT)
        return false;
    *ret = (struct gossip_packet){ .kind = p[0], .seq = (uint32_t)get_be(p + 1, 4), .table = (uint32_t)get_be(p + 5, 4),
                                   .rest = p + HEAD_BYTES, .rest_size = size - HEAD_BYTES };
    return true;
}

void packet_begin(const struct gossip_core *g, struct out_packet *o, enum gossip_kind kind, uint32_t seq)
{
    o->v[0] = (uint8_t)kind;
    put_be(o->v + 1, seq, 4);
    put_be(o->v + 5, (uint32_t)g->digest, 4);
    o->n = HEAD_BYTES;
}

bool packet_fact(const struct gossip_core *g, struct out_packet *o, const struct gossip_fact *f)
{
    if (o->n + FACT_MAX_BYTES > PLAIN_MAX_BYTES)
        return false;
    o->n += gossip_fact_write(g->t, f, o->v + o->n);
    return true;
}

void packet_send(struct gossip_core *g, const struct out_packet *o, uint32_t to)
{
    const char *addr;
    uint16_t port;
    gossip_core_reach(g, to, &addr, &port);
    if (g->answer_addr && to == g->answered) {
        addr = g->answer_addr;
        port = g->answer_port;
    } else if (g->views[to].state == GOSSIP_SUSPECT && rng_chance(&g->rng, 500)) { /* it may have moved unheard: as the log has it */
        addr = g->t->v[to].addr;
        port = g->t->v[to].port;
    }
    if (*addr && port)
        g->out.send(g->out.arg, to, addr, port, o->v, o->n);
}
