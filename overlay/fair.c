/* Flows are hashed into a fixed number of queues (RFC 8290, 4.1): those of one hash share one, which costs them fairness,
 * not order. A flow with a debt waits until its rounds have paid it; new is one that is in no list, and it is in the list of
 * old ones for a round after it ran empty, so that it cannot come back as new and starve the others (RFC 8290, 4.2). With a
 * debt it stays there until that is paid: a super-packet is that of many rounds, which the RFC's packets are not. */
#include "fair.h"
#include "be.h"
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>

enum { ETHERNET = 14, IPV4 = 0x0800, IPV6 = 0x86dd, VLAN = 0x8100, TCP = 6, UDP = 17, SCTP = 132,
       BLANKS = 2 /* frames beside those that are queued */ };

struct flow {
    struct flow *next; /* in the list it is in */
    struct fair_frame *first, *last;
    size_t cost;       /* of its frames */
    long deficit;      /* bytes that it may still send in this round */
    bool listed;
};
struct flows { struct flow *first, *last; };
struct pool {
    struct fair_frame *blanks; /* the last one used is the first one given: it is in the cache */
    uint8_t *bytes;
    size_t each, n, n_touched; /* touched: that were ever used */
};
struct fair {
    struct flow flows[FAIR_FLOWS];
    struct flows fresh, old;
    size_t cost, cost_max;
    uint64_t n_lost;
    struct pool pools[2]; /* long ones, short ones */
};

size_t fair_key(uint32_t vni, const uint8_t *frame, size_t size, uint8_t ret_key[FAIR_KEY_BYTES])
{
    size_t ip = size >= ETHERNET + 4 && be16(frame + 12) == VLAN ? ETHERNET + 4 : ETHERNET, l4 = size;
    size_t from = 0, addresses = MIN(size, (size_t)ETHERNET), n = 4;
    unsigned type = size >= ip ? be16(frame + ip - 2) : 0, protocol = 0;
    if (type == IPV4 && size >= ip + 20) {
        from = ip + 12;
        addresses = 8;
        protocol = frame[ip + 9];
        if (!(be16(frame + ip + 6) & 0x3fff))
            l4 = ip + (frame[ip] & 15) * 4u;
    } else if (type == IPV6 && size >= ip + 40) {
        from = ip + 8;
        addresses = 32;
        protocol = frame[ip + 6]; /* extension headers, a fragment's too: that is all that is looked at */
        l4 = ip + 40;
    }
    put32(ret_key, vni);
    memcpy(ret_key + n, frame + from, addresses);
    n += addresses;
    ret_key[n++] = (uint8_t)protocol;
    if ((protocol == TCP || protocol == UDP || protocol == SCTP) && size >= l4 + 4) {
        memcpy(ret_key + n, frame + l4, 4);
        n += 4;
    }
    return n;
}

static struct flow *flow_of(struct fair *q, struct fair_frame *f)
{
    uint8_t key[FAIR_KEY_BYTES];
    return &q->flows[crypto_shorthash(key, fair_key(f->vni, fair_bytes(f), f->size, key)) % FAIR_FLOWS];
}

/* ---- lists ---- */
static void append(struct flows *l, struct flow *f)
{
    f->next = NULL;
    *(l->first ? &l->last->next : &l->first) = f;
    l->last = f;
}

static void drop_first(struct flows *l)
{
    l->first = l->first->next;
}

static size_t cost(const struct fair_frame *f)
{
    return MAX(f->size, (size_t)(f->is_short ? FAIR_SHORT_COST_MIN_BYTES : FAIR_LONG_COST_MIN_BYTES));
}

static struct fair_frame *take_head(struct fair *q, struct flow *flow)
{
    struct fair_frame *f = flow->first;
    flow->first = f->next;
    flow->cost -= cost(f);
    q->cost -= cost(f);
    return f;
}

static void add(struct flow *flow, struct fair_frame *f)
{
    f->next = NULL;
    *(flow->first ? &flow->last->next : &flow->first) = f;
    flow->last = f;
}

static void lose_one(struct fair *q)
{
    struct flow *longest = NULL;
    for (int i = 0; i < 2; i++)
        for (struct flow *f = i ? q->old.first : q->fresh.first; f; f = f->next)
            if (!longest || f->cost > longest->cost)
                longest = f;
    fair_give_back(q, take_head(q, longest));
    q->n_lost++;
}

/* ---- the queue ---- */
static void pool_init(struct pool *p, size_t frame_max, size_t n)
{
    const size_t align = _Alignof(struct fair_frame);
    p->each = (sizeof(struct fair_frame) + TUNNEL_ROOM_BYTES + frame_max + TUNNEL_TAIL_BYTES + align - 1) / align * align;
    p->n = n + BLANKS;
    p->bytes = xcalloc(p->n, p->each);
}

static struct fair_frame *pool_take(struct fair *q, bool is_short)
{
    struct pool *p = &q->pools[is_short];
    struct fair_frame *f = p->blanks;
    if (f) {
        p->blanks = f->next;
        return f;
    }
    ASSERT(p->n_touched < p->n);
    f = (void *)(p->bytes + p->n_touched++ * p->each);
    f->is_short = is_short;
    return f;
}

struct fair *fair_new(size_t bytes_max)
{
    struct fair *q = xnew(struct fair);
    ASSERT(bytes_max >= GSO_FRAME_MAX_BYTES);
    q->cost_max = bytes_max;
    pool_init(&q->pools[false], FAIR_FRAME_MAX_BYTES, bytes_max / FAIR_LONG_COST_MIN_BYTES);
    pool_init(&q->pools[true], FAIR_SHORT_BYTES, bytes_max / FAIR_SHORT_COST_MIN_BYTES);
    return q;
}

void fair_free(struct fair *q)
{
    for (int i = 0; q && i < 2; i++)
        free(q->pools[i].bytes);
    free(q);
}

struct fair_frame *fair_blank(struct fair *q)
{
    return pool_take(q, false);
}

void fair_give_back(struct fair *q, struct fair_frame *f)
{
    struct pool *p = &q->pools[f->is_short];
    f->next = p->blanks;
    p->blanks = f;
}

static struct fair_frame *shortened(struct fair *q, struct fair_frame *f)
{
    struct fair_frame *s = pool_take(q, true);
    s->vni = f->vni;
    s->size = f->size;
    s->meta = f->meta;
    memcpy(fair_bytes(s), fair_bytes(f), f->size);
    fair_give_back(q, f);
    return s;
}

void fair_put(struct fair *q, struct fair_frame *f)
{
    struct flow *flow = flow_of(q, f);
    if (f->size <= FAIR_SHORT_BYTES)
        f = shortened(q, f);
    add(flow, f);
    flow->cost += cost(f);
    q->cost += cost(f);
    if (!flow->listed) {
        flow->listed = true;
        flow->deficit = FAIR_QUANTUM_BYTES;
        append(&q->fresh, flow);
    }
    while (q->cost > q->cost_max)
        lose_one(q);
}

struct fair_frame *fair_take(struct fair *q)
{
    for (;;) {
        struct flows *from = q->fresh.first ? &q->fresh : &q->old;
        struct flow *flow = from->first;
        if (!flow)
            return NULL;
        if (flow->first && flow->deficit > 0) {
            struct fair_frame *f = take_head(q, flow);
            flow->deficit -= (long)f->size;
            return f;
        }
        drop_first(from);
        if (!flow->first && flow->deficit > 0 && (from == &q->old || !q->old.first)) {
            flow->listed = false;
            continue;
        }
        if (flow->deficit <= 0)
            flow->deficit += FAIR_QUANTUM_BYTES;
        append(&q->old, flow);
    }
}

void fair_drop(struct fair *q, uint32_t vni)
{
    for (struct flow *flow = q->flows; flow < q->flows + FAIR_FLOWS; flow++) {
        struct fair_frame *left = flow->first, *f;
        flow->first = NULL;
        while ((f = left)) {
            left = f->next;
            if (f->vni != vni) {
                add(flow, f);
                continue;
            }
            flow->cost -= cost(f);
            q->cost -= cost(f);
            q->n_lost++;
            fair_give_back(q, f);
        }
    }
}

bool fair_is_empty(const struct fair *q)
{
    return q->cost == 0;
}

uint64_t fair_n_lost(const struct fair *q)
{
    return q->n_lost;
}
