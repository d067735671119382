/* Tables and their indices: objects by id and (where unique) name, tasks by service and node. */
#include "store_internal.h"

static const struct table_type {
    const struct rec *rec;
    const char *word;
    bool unique;
} types[TABLE_N] = {
#define X(name, record, word, unique) { &record##_rec, word, unique },
    STORE_TABLES(X)
#undef X
};

#define X(name, record, word, unique)                                                     \
    _Static_assert(offsetof(struct record, id) == offsetof(struct object_head, id) &&      \
                   offsetof(struct record, version) == offsetof(struct object_head, version) && \
                   offsetof(struct record, created_at) == offsetof(struct object_head, created_at), \
                   "a stored record starts with struct object_head");
STORE_TABLES(X)
#undef X

const struct rec *store_rec(enum store_table t)
{
    return types[t].rec;
}

const char *store_word(enum store_table t)
{
    return types[t].word;
}

const char *store_object_name(enum store_table t, const void *obj)
{
    switch (t) {
    case TABLE_SERVICE: return ((const struct service *)obj)->spec.name;
    case TABLE_NETWORK: return ((const struct network *)obj)->name;
    case TABLE_SECRET: return ((const struct secret *)obj)->spec.name;
    case TABLE_CONFIG: return ((const struct config *)obj)->spec.name;
    case TABLE_NODE: return ((const struct node *)obj)->description.hostname;
    case TABLE_CLUSTER: case TABLE_TASK: case TABLE_N: break;
    }
    return NULL;
}

struct store *store_new(void)
{
    struct store *s = xnew(struct store);
    for (int t = 0; t < TABLE_N; t++) {
        map_init(&s->tables[t].by_id);
        map_init(&s->tables[t].by_name);
    }
    map_init(&s->by_service);
    map_init(&s->by_node);
    return s;
}

void store_object_free(struct store_object *o)
{
    if (!o)
        return;
    rec_clear(types[o->table].rec, &o->u);
    free(o);
}

static void sets_free(struct map *m)
{
    for (struct map_item *it = NULL; (it = map_next(m, it));) {
        struct task_set *set = it->value;
        free(set->v);
        free(set);
    }
    map_done(m);
    map_init(m);
}

void store_clear(struct store *s)
{
    for (int t = 0; t < TABLE_N; t++) {
        struct table *tab = &s->tables[t];
        while (tab->first) {
            struct store_object *o = tab->first;
            tab->first = o->next;
            store_object_free(o);
        }
        tab->last = NULL;
        map_done(&tab->by_id);
        map_done(&tab->by_name);
        map_init(&tab->by_id);
        map_init(&tab->by_name);
    }
    sets_free(&s->by_service);
    sets_free(&s->by_node);
    s->index = 0;
}

void store_free(struct store *s)
{
    if (!s)
        return;
    store_clear(s);
    for (int t = 0; t < TABLE_N; t++) {
        map_done(&s->tables[t].by_id);
        map_done(&s->tables[t].by_name);
    }
    map_done(&s->by_service);
    map_done(&s->by_node);
    free(s);
}

static void set_add(struct map *m, const char *key, const struct task *task)
{
    if (!key)
        return;
    struct task_set *set = map_find(m, key);
    if (!set) {
        set = xnew(struct task_set);
        map_put(m, key, set);
    }
    if (set->n == set->cap) {
        set->cap = set->cap ? set->cap * 2 : 8;
        set->v = xrealloc(set->v, set->cap, sizeof *set->v);
    }
    set->v[set->n++] = task;
}

static void set_remove(struct map *m, const char *key, const struct task *task)
{
    struct task_set *set = key ? map_find(m, key) : NULL;
    for (uint32_t i = 0; set && i < set->n; i++)
        if (set->v[i] == task) {
            memmove(set->v + i, set->v + i + 1, (set->n - i - 1) * sizeof *set->v);
            set->n--;
            break;
        }
    if (set && set->n == 0) {
        map_remove(m, key);
        free(set->v);
        free(set);
    }
}

/* Links the object in front of `before` (NULL: at the end), so that an update keeps its place and every
 * replica, also one that loaded a snapshot, iterates in the order of creation. */
void store_insert(struct store *s, struct store_object *o, struct store_object *before)
{
    struct table *tab = &s->tables[o->table];
    o->prev = before ? before->prev : tab->last;
    o->next = before;
    *(o->prev ? &o->prev->next : &tab->first) = o;
    *(before ? &before->prev : &tab->last) = o;
    map_put(&tab->by_id, o->u.head.id, o);
    const char *name = types[o->table].unique ? store_object_name(o->table, &o->u) : NULL;
    if (name)
        map_put(&tab->by_name, name, o);
    if (o->table == TABLE_TASK) {
        set_add(&s->by_service, o->u.task.service_id, &o->u.task);
        set_add(&s->by_node, o->u.task.node_id, &o->u.task);
    }
}

void store_remove(struct store *s, struct store_object *o)
{
    struct table *tab = &s->tables[o->table];
    *(o->prev ? &o->prev->next : &tab->first) = o->next;
    *(o->next ? &o->next->prev : &tab->last) = o->prev;
    map_remove(&tab->by_id, o->u.head.id);
    const char *name = types[o->table].unique ? store_object_name(o->table, &o->u) : NULL;
    if (name)
        map_remove(&tab->by_name, name);
    if (o->table == TABLE_TASK) {
        set_remove(&s->by_service, o->u.task.service_id, &o->u.task);
        set_remove(&s->by_node, o->u.task.node_id, &o->u.task);
    }
}

static const void *payload(const struct store_object *o)
{
    return o ? &o->u : NULL;
}

const void *store_find(const struct store *s, enum store_table t, const char *id)
{
    return id ? payload(map_find(&s->tables[t].by_id, id)) : NULL;
}

const void *store_find_name(const struct store *s, enum store_table t, const char *name)
{
    return name ? payload(map_find(&s->tables[t].by_name, name)) : NULL;
}

const void *store_next(const struct store *s, enum store_table t, const void *after)
{
    if (!after)
        return payload(s->tables[t].first);
    const struct store_object *o =
        (const void *)((const char *)after - offsetof(struct store_object, u));
    return payload(o->next);
}

int store_lookup(const struct store *s, enum store_table t, const char *ref, const void **ret,
                 struct err *e)
{
    const void *found = store_find(s, t, ref);
    if (!found)
        found = store_find_name(s, t, ref);
    unsigned n = found ? 1 : 0;
    for (const void *o = NULL; !found && t == TABLE_NODE && (o = store_next(s, t, o));)
        if (str_equal(store_object_name(t, o), ref) ) {
            found = o;
            n = 1;
        }
    if (!found && strlen(ref) >= 4)
        for (const void *o = NULL; (o = store_next(s, t, o));)
            if (str_starts(((const struct object_head *)o)->id, ref)) {
                found = o;
                n++;
            }
    if (n == 0)
        return err_set(e, E_NOT_FOUND, "%s %s not found", store_word(t), ref);
    if (n > 1)
        return err_set(e, E_INVALID, "%s %s is ambiguous: %u ids start with it; give more of it",
                       store_word(t), ref, n);
    *ret = found;
    return 0;
}

uint32_t store_count(const struct store *s, enum store_table t)
{
    return s->tables[t].by_id.n;
}

const struct cluster *store_cluster(const struct store *s)
{
    return payload(s->tables[TABLE_CLUSTER].first);
}

static const struct task **set_of(const struct map *m, const char *key, uint32_t *ret_n)
{
    const struct task_set *set = key ? map_find(m, key) : NULL;
    *ret_n = set ? set->n : 0;
    return set ? set->v : NULL;
}

const struct task **store_tasks_of_service(const struct store *s, const char *service_id,
                                           uint32_t *ret_n)
{
    return set_of(&s->by_service, service_id, ret_n);
}

const struct task **store_tasks_of_node(const struct store *s, const char *node_id, uint32_t *ret_n)
{
    return set_of(&s->by_node, node_id, ret_n);
}

uint64_t store_index(const struct store *s)
{
    return s->index;
}

void store_watch(struct store *s, store_watch_fn *fn, void *arg)
{
    ASSERT(s->n_watches < ARRAY_N(s->watches));
    s->watches[s->n_watches].fn = fn;
    s->watches[s->n_watches++].arg = arg;
}
