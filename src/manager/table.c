/* The node table as agents are told of it: all of it, or what changed since the index that an agent has. Packed once for
 * all who have the same. What was removed is remembered for a while by every manager, so that the next leader knows it. */
#include "manager_internal.h"

enum { GONE_MAX = 1024, PACKED_MAX = 4 /* the first is all there is */ };

struct gone { char id[26]; uint64_t index; };
struct packed { uint64_t since; struct sb bytes; bool used; };

struct table {
    uint64_t index;             /* of the log: the latest change */
    uint64_t floor;             /* what was removed up to here is not known */
    struct gone gone[GONE_MAX]; /* a ring */
    unsigned first_gone, n_gone;
    struct packed packed[PACKED_MAX];
    unsigned next_packed;
};

struct table *table_new(void)
{
    return xnew(struct table);
}

void table_forget(struct table *t)
{
    for (unsigned i = 0; i < PACKED_MAX; i++)
        if (t->packed[i].used) {
            sb_done(&t->packed[i].bytes);
            t->packed[i].used = false;
        }
}

void table_free(struct table *t)
{
    if (!t)
        return;
    table_forget(t);
    free(t);
}

void table_changed(struct table *t, const struct node *removed, uint64_t index)
{
    table_forget(t);
    t->index = index;
    if (!removed)
        return;
    if (t->n_gone == GONE_MAX) {
        t->floor = t->gone[t->first_gone].index;
        t->first_gone = (t->first_gone + 1) % GONE_MAX;
        t->n_gone--;
    }
    struct gone *g = &t->gone[(t->first_gone + t->n_gone++) % GONE_MAX];
    memcpy(g->id, removed->id, strnlen(removed->id, 25) + 1);
    g->index = index;
}

void table_replaced(struct table *t, uint64_t index)
{
    table_forget(t);
    t->first_gone = t->n_gone = 0;
    t->index = t->floor = index;
}

uint64_t table_index(const struct table *t)
{
    return t->index;
}

static void pack(const struct table *t, const struct store *s, uint64_t since, struct sb *out)
{
    struct node_table r = { .since = since, .index = t->index, .count = store_count(s, TABLE_NODE) };
    r.epoch = store_cluster(s) ? store_cluster(s)->epoch : 0;
    r.nodes.v = xcalloc(r.count + 1, sizeof *r.nodes.v);
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));)
        if (n->version.index > since || !since) {
            struct node *copy = &r.nodes.v[r.nodes.n++]; /* its members are the store's */
            *copy = *n;
            copy->version.index = 0;
            copy->updated_at = 0;
            /* Half of what a node is. The others have no use for more of it than its name and its link's width. */
            copy->description = (struct node_description){ .hostname = n->description.hostname, .mtu = n->description.mtu };
        }
    for (unsigned i = 0; i < t->n_gone && since; i++) {
        const struct gone *g = &t->gone[(t->first_gone + i) % GONE_MAX];
        if (g->index > since)
            strs_add(&r.gone, g->id);
    }
    rec_pack(&node_table_rec, &r, out);
    free(r.nodes.v);
    strs_clear(&r.gone);
}

const struct sb *table_pack(struct table *t, const struct store *s, uint64_t since)
{
    if (since < t->floor || since > t->index)
        since = 0;
    for (unsigned i = 0; i < PACKED_MAX; i++)
        if (t->packed[i].used && t->packed[i].since == since)
            return &t->packed[i].bytes;
    struct packed *p = &t->packed[since ? 1 + t->next_packed++ % (PACKED_MAX - 1) : 0];
    if (p->used)
        sb_done(&p->bytes);
    p->used = true;
    p->since = since;
    sb_init(&p->bytes, 0);
    pack(t, s, since, &p->bytes);
    return &p->bytes;
}
