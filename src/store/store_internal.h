/* What the files of this folder share. */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <shoal/store.h>
#include <stdio.h>

struct store_object {
    struct store_object *prev, *next; /* in order of creation */
    enum store_table table;
    union { /* the record itself; every one starts with struct object_head */
        struct object_head head;
#define X(name, record, word, unique) struct record record;
        STORE_TABLES(X)
#undef X
    } u;
};

/* Tasks of one service or node. */
struct task_set {
    const struct task **v;
    uint32_t n, cap;
};

struct store {
    uint64_t index;
    struct table {
        struct map by_id, by_name; /* struct store_object; by_name only where unique */
        struct store_object *first, *last;
    } tables[TABLE_N];
    struct map by_service, by_node; /* struct task_set */
    struct { store_watch_fn *fn; void *arg; } watches[8];
    unsigned n_watches;
};

const char *store_object_name(enum store_table t, const void *obj);
void store_insert(struct store *s, struct store_object *o, struct store_object *before);
void store_remove(struct store *s, struct store_object *o); /* unlinks, does not free */
void store_object_free(struct store_object *o);
void store_clear(struct store *s);

#endif
