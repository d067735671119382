/* A node table brought up to date by what changed in it. */
#include <shoal/base/map.h>
#include <shoal/model/assignment.h>

static void drop_gone(struct assignment *a, const struct strs *gone)
{
    struct map ids;
    uint32_t n = 0;
    if (!gone->n)
        return;
    map_init(&ids);
    for (uint32_t i = 0; i < gone->n; i++)
        map_put(&ids, gone->v[i], a);
    for (uint32_t i = 0; i < a->nodes.n; i++)
        if (map_find(&ids, a->nodes.v[i].id))
            node_clear(&a->nodes.v[i]);
        else
            a->nodes.v[n++] = a->nodes.v[i];
    a->nodes.n = n;
    map_done(&ids);
}

static void put_nodes(struct assignment *a, struct node_table *t)
{
    struct map at; /* place + 1 */
    map_init(&at);
    for (uint32_t i = 0; i < a->nodes.n; i++)
        map_put(&at, a->nodes.v[i].id, (void *)(uintptr_t)(i + 1));
    for (uint32_t i = 0; i < t->nodes.n; i++) {
        struct node *n = &t->nodes.v[i];
        uintptr_t place = n->id ? (uintptr_t)map_find(&at, n->id) : 0;
        struct node *to = place ? &a->nodes.v[place - 1] : REC_ADD(&a->nodes);
        node_clear(to);
        *to = *n;
        *n = (struct node){ 0 };
        if (!place)
            map_put(&at, to->id ? to->id : "", (void *)(uintptr_t)a->nodes.n);
    }
    map_done(&at);
}

int node_table_merge(struct assignment *a, uint64_t held, struct node_table *t, struct err *e)
{
    if (t->since > held)
        return err_set(e, E_STALE, "it says what changed since %llu, and the table held is of %llu", (unsigned long long)t->since,
                       (unsigned long long)held);
    if (!t->since) {
        for (uint32_t i = 0; i < a->nodes.n; i++)
            node_clear(&a->nodes.v[i]);
        free(a->nodes.v);
        a->nodes.v = t->nodes.v;
        a->nodes.n = t->nodes.n;
        t->nodes.v = NULL;
        t->nodes.n = 0;
    } else {
        drop_gone(a, &t->gone);
        put_nodes(a, t);
    }
    return !t->since || a->nodes.n == t->count ? 0 : err_set(e, E_STALE, "%u nodes result, not %llu", a->nodes.n, (unsigned long long)t->count);
}
