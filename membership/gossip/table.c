/* The table of identities, and the rings over it: who observes whom. Eight rings, each an order of all members by a
 * part of the hash of their ids; the next one before a member on each ring observes it. Every node that holds the same
 * set of members computes the same, and one more or less member changes eight observers, not all. */
#include "core.h"
#include <shoal/base/crypto.h>

struct gossip_table *gossip_table_new(void)
{
    struct gossip_table *t = xnew(struct gossip_table);
    t->n_refs = 1;
    map_init(&t->by_id);
    map_init(&t->by_tag);
    map_init(&t->facts);
    return t;
}

void gossip_table_unref(struct gossip_table *t)
{
    if (!t || --t->n_refs)
        return;
    ASSERT(t->facts.n == 0 && !t->rings); /* they belong to cores, which have references */
    for (uint32_t i = 0; i < t->n; i++)
        free(t->v[i].id);
    for (unsigned i = 0; i < GOSSIP_BUCKETS; i++)
        free(t->buckets[i].slots);
    map_done(&t->by_id);
    map_done(&t->by_tag);
    map_done(&t->facts);
    free(t->v);
    free(t);
}

static uint32_t slot_in(const struct map *m, const void *key, size_t size)
{
    return (uint32_t)(uintptr_t)map_find_n(m, key, size) - 1; /* NULL: NO_SLOT */
}

uint32_t gossip_table_find(const struct gossip_table *t, const char *id)
{
    return slot_in(&t->by_id, id, strlen(id));
}

uint32_t gossip_table_by_tag(const struct gossip_table *t, uint64_t tag)
{
    return slot_in(&t->by_tag, &tag, sizeof tag);
}

static void hash_id(struct gossip_identity *x)
{
    static const char label[] = "shoal gossip place";
    uint8_t h[32];
    crypto_blake2s(h, sizeof h, x->id, strlen(x->id), label, sizeof label - 1);
    x->tag = get_be(h, 8);
    for (unsigned k = 0; k < GOSSIP_OBSERVERS; k++) /* ring 0 and 1 share their bits with the tag, which does no harm */
        x->at[k] = (uint32_t)get_be(h + 4 * k, 4);
}

uint32_t gossip_table_put(struct gossip_table *t, const char *id, const char *addr, uint16_t port, const uint8_t key[32])
{
    uint32_t slot = gossip_table_find(t, id);
    if (slot == NO_SLOT) {
        if (t->n == t->cap)
            t->v = xrealloc(t->v, t->cap = MAX(16u, t->cap * 2), sizeof *t->v);
        slot = t->n++;
        t->v[slot] = (struct gossip_identity){ .id = xstrdup(id) };
        hash_id(&t->v[slot]);
        map_put(&t->by_id, id, (void *)(uintptr_t)(slot + 1));
        map_put_n(&t->by_tag, &t->v[slot].tag, sizeof t->v[slot].tag, (void *)(uintptr_t)(slot + 1));
        unsigned b = gossip_bucket(t->v[slot].tag);
        if (t->buckets[b].n == t->buckets[b].cap)
            t->buckets[b].slots = xrealloc(t->buckets[b].slots, t->buckets[b].cap = t->buckets[b].cap * 2 + 4, sizeof(uint32_t));
        t->buckets[b].slots[t->buckets[b].n++] = slot;
    }
    struct gossip_identity *x = &t->v[slot];
    strncpy(x->addr, addr ? addr : "", sizeof x->addr - 1);
    x->port = port;
    if (key)
        memcpy(x->key, key, 32);
    return slot;
}

/* ---- rings ---- */
struct place { uint64_t at; uint32_t slot; };

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static void observes(struct gossip_ring *r, uint32_t who, uint32_t whom)
{
    for (unsigned i = 0; i < r->n[whom]; i++)
        if (r->observers[whom][i] == who)
            return;
    if (who != whom && r->n[whom] < GOSSIP_OBSERVERS)
        r->observers[whom][r->n[whom]++] = who;
}

static void fill_ring(const struct gossip_table *t, struct gossip_ring *r, struct place *p, uint32_t n)
{
    for (unsigned k = 0; k < GOSSIP_OBSERVERS; k++) {
        for (uint32_t i = 0; i < n; i++)
            p[i].at = (uint64_t)t->v[p[i].slot].at[k] << 32 | (uint32_t)t->v[p[i].slot].tag; /* the same order everywhere */
        qsort(p, n, sizeof *p, by_place);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t back = 1; back < n && r->n[p[i].slot] <= k; back++) /* one more, who does not observe it yet */
                observes(r, p[(i + n - back) % n].slot, p[i].slot);
    }
}

struct gossip_ring *gossip_ring_get(struct gossip_table *t, uint64_t digest, bool (*is_member)(const void *arg, uint32_t slot),
                                    const void *arg)
{
    for (struct gossip_ring *r = t->rings; r; r = r->next)
        if (r->digest == digest && r->n_slots == t->n)
            return r->n_refs++, r;
    struct gossip_ring *r = xnew(struct gossip_ring);
    struct place *p = xcalloc(t->n + 1, sizeof *p);
    uint32_t n = 0;
    *r = (struct gossip_ring){ .next = t->rings, .n_refs = 1, .digest = digest, .n_slots = t->n };
    r->n = xcalloc(t->n + 1, sizeof *r->n);
    r->observers = xcalloc(t->n + 1, sizeof *r->observers);
    for (uint32_t i = 0; i < t->n; i++)
        if (is_member(arg, i))
            p[n++].slot = i;
    fill_ring(t, r, p, n);
    free(p);
    return t->rings = r;
}

void gossip_ring_unref(struct gossip_table *t, struct gossip_ring *r)
{
    if (!r || --r->n_refs)
        return;
    struct gossip_ring **at = &t->rings;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    free(r->n);
    free(r->observers);
    free(r);
}
