/* The only writer: applies agreed transactions, all or nothing, the same way on every replica; and the
 * snapshot, which is one transaction-like list of all objects. */
#include "store_internal.h"
#include <shoal/base/planted.h>
#include <shoal/base/mp.h>

struct parsed_change {
    enum store_op op;
    enum store_table table;
    uint64_t version;
    const char *id;
    struct store_object *obj; /* owned until it is installed; NULL for a delete */
};

static int parse_change(const struct val *v, struct parsed_change *ret, struct err *e)
{
    if (v->kind != V_LIST || v->n != 5 || v->list[0]->kind != V_INT || v->list[1]->kind != V_INT ||
        v->list[2]->kind != V_STR || v->list[3]->kind != V_INT || v->list[4]->kind != V_BYTES ||
        v->list[0]->i < 0 || v->list[0]->i > STORE_DELETE || v->list[1]->i < 0 ||
        v->list[1]->i >= TABLE_N)
        return err_set(e, E_CORRUPT, "malformed change in a log entry");
    struct parsed_change c = { .op = (enum store_op)v->list[0]->i,
                               .table = (enum store_table)v->list[1]->i,
                               .id = v->list[2]->s,
                               .version = (uint64_t)v->list[3]->i };
    if (c.op != STORE_DELETE) {
        c.obj = xnew(struct store_object);
        c.obj->table = c.table;
        int r = rec_unpack(store_rec(c.table), &c.obj->u, v->list[4]->s, v->list[4]->n, e);
        if (r == 0 && !str_equal(c.obj->u.head.id, c.id))
            r = err_set(e, E_CORRUPT, "change of %s carries another id", c.id);
        if (r < 0) {
            store_object_free(c.obj);
            return r;
        }
    }
    *ret = c;
    return 0;
}

static int check_change(const struct store *s, const struct parsed_change *all, uint32_t i,
                        struct err *e)
{
    const struct parsed_change *c = &all[i];
    const char *word = store_word(c->table);
    const struct object_head *old = store_find(s, c->table, c->id);
    if (c->op == STORE_CREATE && old)
        return err_set(e, E_EXISTS, "%s %s already exists", word, c->id);
    if (c->op != STORE_CREATE && !old)
        return err_set(e, E_NOT_FOUND, "%s %s not found", word, c->id);
    if (c->op != STORE_CREATE && old->version.index != c->version && CLUSTER_BUG != 12)
        return err_set(e, E_STALE, "rpc error: code = Unknown desc = update out of sequence");
    const char *name = c->obj ? store_object_name(c->table, &c->obj->u) : NULL;
    const struct object_head *same = name && c->table != TABLE_NODE
                                         ? store_find_name(s, c->table, name) : NULL;
    if (same && strcmp(same->id, c->id)) {
        for (uint32_t j = 0; j < i; j++)
            if (all[j].op == STORE_DELETE && all[j].table == c->table && !strcmp(all[j].id, same->id))
                return 0;
        if (c->table == TABLE_NETWORK)
            return err_set(e, E_EXISTS, "network with name %s already exists; remove it or take another name", name);
        return err_set(e, E_EXISTS, "name conflicts with an existing object: %s %s already exists; "
                       "remove it or take another name", word, name);
    }
    if (name && c->table != TABLE_NODE)
        for (uint32_t j = 0; j < i; j++)
            if (all[j].op != STORE_DELETE && all[j].table == c->table &&
                str_equal(store_object_name(c->table, &all[j].obj->u), name))
                return err_set(e, E_EXISTS, "%s %s is made twice in one transaction", word, name);
    return 0;
}

static int64_t updated_at(const struct store_object *o)
{
    switch (o->table) {
    case TABLE_CLUSTER: return o->u.cluster.updated_at;
    case TABLE_NODE: return o->u.node.updated_at;
    case TABLE_SERVICE: return o->u.service.updated_at;
    case TABLE_TASK: return o->u.task.updated_at;
    case TABLE_NETWORK: return o->u.network.updated_at;
    case TABLE_SECRET: return o->u.secret.updated_at;
    case TABLE_CONFIG: return o->u.config.updated_at;
    case TABLE_N: break;
    }
    return 0;
}

int64_t store_changed_at(const struct store *s)
{
    int64_t latest = 0;
    for (int t = 0; t < TABLE_N; t++)
        for (const struct store_object *o = s->tables[t].first; o; o = o->next)
            latest = MAX(latest, updated_at(o));
    return latest;
}

static void set_times(struct store_object *o, const struct object_head *old, uint64_t index,
                      int64_t now)
{
    o->u.head.version.index = index;
    o->u.head.created_at = old ? old->created_at : o->u.head.created_at ? o->u.head.created_at : now; /* of a backup */
    switch (o->table) {
    case TABLE_CLUSTER: o->u.cluster.updated_at = now; break;
    case TABLE_NODE: o->u.node.updated_at = now; break;
    case TABLE_SERVICE: o->u.service.updated_at = now; break;
    case TABLE_TASK: o->u.task.updated_at = now; break;
    case TABLE_NETWORK: o->u.network.updated_at = now; break;
    case TABLE_SECRET: o->u.secret.updated_at = now; break;
    case TABLE_CONFIG: o->u.config.updated_at = now; break;
    case TABLE_N: break;
    }
}

static void install(struct store *s, struct parsed_change *c, uint64_t index, int64_t now)
{
    struct store_object *old = map_find(&s->tables[c->table].by_id, c->id);
    struct store_object *obj = TAKE(c->obj);
    if (obj)
        set_times(obj, old ? &old->u.head : NULL, index, now);
    struct store_object *before = old ? old->next : NULL;
    if (old)
        store_remove(s, old);
    if (obj)
        store_insert(s, obj, before);
    for (unsigned i = 0; i < s->n_watches; i++)
        s->watches[i].fn(s->watches[i].arg, c->op, c->table, old ? &old->u : NULL,
                         obj ? &obj->u : NULL);
    store_object_free(old);
}

static int apply_list(struct store *s, uint64_t index, int64_t now, const struct val *list,
                      struct err *e)
{
    struct parsed_change *c = xcalloc(list->n ? list->n : 1, sizeof *c);
    uint32_t n = 0;
    int r = 0;
    for (; r == 0 && n < list->n; n += r == 0)
        r = parse_change(list->list[n], &c[n], e);
    for (uint32_t i = 0; r == 0 && i < n; i++)
        r = check_change(s, c, i, e);
    for (uint32_t i = 0; i < n; i++)
        if (r == 0)
            install(s, &c[i], index, now);
        else
            store_object_free(c[i].obj);
    free(c);
    return r;
}

int store_apply(struct store *s, uint64_t index, const void *p, size_t size, struct err *e)
{
    ASSERT(index > s->index);
    s->index = index;
    struct val_doc *d;
    int r = mp_parse(&d, p, size, e);
    if (r < 0)
        return r;
    const struct val *v = val_root(d);
    if (v->kind != V_LIST || v->n != 3 || v->list[0]->kind != V_INT || v->list[1]->kind != V_INT ||
        v->list[2]->kind != V_LIST)
        r = err_set(e, E_CORRUPT, "malformed transaction at log index %llu",
                    (unsigned long long)index);
    else if (v->list[0]->i != STORE_FORMAT)
        r = err_set(e, E_UNSUPPORTED, "transaction format %lld is not known to this version; upgrade",
                    (long long)v->list[0]->i);
    else
        r = apply_list(s, index, v->list[1]->i, v->list[2], e);
    val_doc_free(d);
    return r;
}

void store_save(const struct store *s, struct sb *out)
{
    mp_list(out, 3);
    mp_uint(out, STORE_FORMAT);
    mp_uint(out, s->index);
    uint32_t n = 0;
    for (int t = 0; t < TABLE_N; t++)
        n += store_count(s, (enum store_table)t);
    mp_list(out, n);
    struct sb body;
    sb_init(&body, 0);
    for (int t = 0; t < TABLE_N; t++)
        for (const void *o = NULL; (o = store_next(s, (enum store_table)t, o));) {
            sb_reset(&body);
            rec_pack(store_rec((enum store_table)t), o, &body);
            mp_list(out, 2);
            mp_uint(out, (uint64_t)t);
            mp_bin(out, body.s, body.len);
        }
    sb_done(&body);
}

static int load_object(struct store *s, const struct val *v, struct err *e)
{
    if (v->kind != V_LIST || v->n != 2 || v->list[0]->kind != V_INT || v->list[0]->i < 0 ||
        v->list[0]->i >= TABLE_N || v->list[1]->kind != V_BYTES)
        return err_set(e, E_CORRUPT, "malformed object in a snapshot");
    struct store_object *o = xnew(struct store_object);
    o->table = (enum store_table)v->list[0]->i;
    int r = rec_unpack(store_rec(o->table), &o->u, v->list[1]->s, v->list[1]->n, e);
    if (r == 0 && (!o->u.head.id || store_find(s, o->table, o->u.head.id)))
        r = err_set(e, E_CORRUPT, "object without or with a repeated id in a snapshot");
    if (r < 0) {
        store_object_free(o);
        return r;
    }
    store_insert(s, o, NULL);
    for (unsigned i = 0; i < s->n_watches; i++)
        s->watches[i].fn(s->watches[i].arg, STORE_CREATE, o->table, NULL, &o->u);
    return 0;
}

int store_load(struct store *s, const void *p, size_t size, struct err *e)
{
    struct val_doc *d;
    int r = mp_parse(&d, p, size, e);
    if (r < 0)
        return r;
    const struct val *v = val_root(d);
    if (v->kind != V_LIST || v->n != 3 || v->list[0]->kind != V_INT ||
        v->list[0]->i != STORE_FORMAT || v->list[1]->kind != V_INT || v->list[2]->kind != V_LIST) {
        val_doc_free(d);
        return err_set(e, E_CORRUPT, "malformed snapshot");
    }
    store_clear(s);
    for (uint32_t i = 0; r == 0 && i < v->list[2]->n; i++)
        r = load_object(s, v->list[2]->list[i], e);
    s->index = (uint64_t)v->list[1]->i;
    val_doc_free(d);
    return r;
}
