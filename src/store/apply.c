/* The only writer: applies agreed transactions, all or nothing, the same way on every replica; and the
 * snapshot, which is one transaction-like list of all objects. */
#include "store_internal.h"
#include <shoal/base/planted.h>
#include <shoal/base/mp.h>
#include <shoal/model/format.h>

struct parsed_change {
    enum store_op op;
    enum store_table table;
    uint64_t version;
    const char *id;
    struct store_object *obj; /* owned until it is installed; NULL for a delete */
};

/* What it is about is known here: a later program may have more operations and tables. */
static int check_kind(const struct val *op, const struct val *table, struct err *e)
{
    if (op->i > STORE_DELETE || table->i >= TABLE_N)
        return err_set(e, E_UNSUPPORTED, "operation %lld on table %lld is not known to this version; upgrade",
                       (long long)op->i, (long long)table->i);
    return 0;
}

static int parse_change(const struct val *v, struct parsed_change *ret, struct err *e)
{
    if (v->kind != V_LIST || v->n != 5 || v->list[0]->kind != V_INT || v->list[1]->kind != V_INT ||
        v->list[2]->kind != V_STR || v->list[3]->kind != V_INT || v->list[4]->kind != V_BYTES ||
        v->list[0]->i < 0 || v->list[1]->i < 0)
        return err_set(e, E_CORRUPT, "malformed change in a log entry");
    int known = check_kind(v->list[0], v->list[1], e);
    if (known < 0)
        return known;
    struct parsed_change c = { .op = (enum store_op)v->list[0]->i,
                               .table = (enum store_table)v->list[1]->i,
                               .id = v->list[2]->s,
                               .version = (uint64_t)v->list[3]->i };
    if (c.op != STORE_DELETE) {
        c.obj = xnew(struct store_object);
        c.obj->table = c.table;
        int r = rec_unpack_all(store_rec(c.table), &c.obj->u, v->list[4]->s, v->list[4]->n, e);
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

/* ---- formats ---- */
uint64_t store_format_known(const struct store *s)
{
    uint64_t format = cluster_format(store_cluster(s));
    for (; format < FORMAT_MOST; format++)
        for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));)
            if (!node_knows_format(n, format + 1))
                return format;
    return format;
}

bool store_format_kept(const struct store *s, uint64_t format)
{
    for (const struct node *n = NULL; (n = store_next(s, TABLE_NODE, n));)
        if (!node_keeps_format(n, format))
            return false;
    return true;
}

/* No node is in a cluster whose format it has not promised to know, whatever the order of raises and admissions. */
static int check_formats(const struct store *s, const struct parsed_change *all, uint32_t n, struct err *e)
{
    const struct cluster *before = store_cluster(s), *after = before;
    for (uint32_t i = 0; i < n; i++)
        if (all[i].table == TABLE_CLUSTER && all[i].obj)
            after = &all[i].obj->u.cluster;
    uint64_t format = cluster_format(after);
    int r = CLUSTER_BUG == 28 ? 0 : format_check(format, e);
    if (r < 0)
        return r;
    if (before && format < cluster_format(before))
        return err_set(e, E_CONFLICT, "the format of a cluster never goes back");
    for (uint32_t i = 0; after && i < n; i++)
        if (all[i].table == TABLE_NODE && all[i].obj && !node_keeps_format(&all[i].obj->u.node, format))
            return err_set(e, E_CONFLICT, "node %s has not promised to know format %llu", all[i].id, (unsigned long long)format);
    if (after && format > cluster_format(before) && !store_format_kept(s, format) && CLUSTER_BUG != 25 && CLUSTER_BUG != 28)
        return err_set(e, E_CONFLICT, "not every node has promised to know format %llu", (unsigned long long)format);
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

/* What the log entry says of itself. */
struct origin { uint64_t format, index; int64_t now; };

static void set_times(struct store_object *o, const struct object_head *old, const struct origin *from)
{
    int64_t now = from->now;
    o->u.head.version.index = from->index;
#ifdef FORMAT_NEXT
    o->u.head.version.format = from->format >= 2 ? from->format : 0;
#endif
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

static void install(struct store *s, struct parsed_change *c, const struct origin *from)
{
    struct store_object *old = map_find(&s->tables[c->table].by_id, c->id);
    struct store_object *obj = TAKE(c->obj);
    if (obj)
        set_times(obj, old ? &old->u.head : NULL, from);
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

static int apply_list(struct store *s, const struct origin *from, const struct val *list, struct err *e)
{
    struct parsed_change *c = xcalloc(list->n ? list->n : 1, sizeof *c);
    uint32_t n = 0;
    int r = 0;
    for (; r == 0 && n < list->n; n += r == 0)
        r = parse_change(list->list[n], &c[n], e);
    for (uint32_t i = 0; r == 0 && i < n; i++)
        r = check_change(s, c, i, e);
    if (r == 0)
        r = check_formats(s, c, n, e);
    for (uint32_t i = 0; i < n; i++)
        if (r == 0)
            install(s, &c[i], from);
        else
            store_object_free(c[i].obj);
    free(c);
    return r;
}

/* Every form begins with a list whose first element is the format; what else it is, only that format says. */
static int check_head(const struct val *v, const char *what, struct err *e)
{
    if (v->kind != V_LIST || !v->n || v->list[0]->kind != V_INT)
        return err_set(e, E_CORRUPT, "malformed %s", what);
    int r = CLUSTER_BUG == 27 ? 0 : format_check((uint64_t)v->list[0]->i, e);
    if (r == 0 && (v->n != 3 || v->list[1]->kind != V_INT || v->list[2]->kind != V_LIST))
        r = err_set(e, E_CORRUPT, "malformed %s", what);
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
    r = check_head(v, "transaction in the log", e);
    if (r == 0) {
        const struct origin from = { (uint64_t)v->list[0]->i, index, v->list[1]->i };
        r = apply_list(s, &from, v->list[2], e);
    }
    val_doc_free(d);
    return r;
}

int store_readable(const void *p, size_t size, struct err *e)
{
    const uint8_t *head = p; /* a list of less than 16 elements, then a small number: read so, a long log takes no time */
    if (size < 2 || (head[0] & 0xf0) != 0x90 || head[1] > 0x7f)
        return 0; /* to be judged when it is applied */
    return format_check(head[1], e);
}

void store_save(const struct store *s, struct sb *out)
{
    mp_list(out, 3);
    mp_uint(out, cluster_format(store_cluster(s)));
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
    if (v->kind != V_LIST || v->n != 2 || v->list[0]->kind != V_INT || v->list[0]->i < 0 || v->list[1]->kind != V_BYTES)
        return err_set(e, E_CORRUPT, "malformed object in a snapshot");
    if (v->list[0]->i >= TABLE_N)
        return err_set(e, E_UNSUPPORTED, "the state holds a table that is not known to this version; upgrade");
    struct store_object *o = xnew(struct store_object);
    o->table = (enum store_table)v->list[0]->i;
    int r = rec_unpack_all(store_rec(o->table), &o->u, v->list[1]->s, v->list[1]->n, e);
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
    r = check_head(v, "snapshot", e);
    if (r < 0) {
        val_doc_free(d);
        return r;
    }
    store_clear(s);
    for (uint32_t i = 0; r == 0 && i < v->list[2]->n; i++)
        r = load_object(s, v->list[2]->list[i], e);
    s->index = (uint64_t)v->list[1]->i;
    val_doc_free(d);
    return r;
}
