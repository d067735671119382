/* Map from byte strings (usually ids and names) to pointers. Insertion-ordered iteration, so that
 * everything derived from it is deterministic. Keys are copied. Hashing is seeded SipHash. */
#ifndef SHOAL_BASE_MAP_H
#define SHOAL_BASE_MAP_H

#include <shoal/base/mem.h>

struct map_item {
    char *key; /* owned by the map, NUL-terminated */
    size_t key_len;
    void *value; /* never NULL while present */
    uint64_t hash;
};

struct map {
    struct map_item *items; /* in order of insertion; key NULL: deleted */
    uint32_t n_items;       /* used cells of items, deleted ones included */
    uint32_t n;             /* live entries */
    uint32_t cap;
    uint32_t *index; /* open addressing, item number + 1, 0: free */
    uint32_t index_size;
};

void map_init(struct map *m);
void map_done(struct map *m); /* frees the map, not the values */
void *map_find(const struct map *m, const char *key); /* NULL when absent */
void *map_find_n(const struct map *m, const void *key, size_t key_len);
/* Puts value (not NULL) under key; returns the value replaced, or NULL. */
void *map_put(struct map *m, const char *key, void *value);
void *map_put_n(struct map *m, const void *key, size_t key_len, void *value);
void *map_remove(struct map *m, const char *key); /* returns the value, or NULL */
void *map_remove_n(struct map *m, const void *key, size_t key_len);
/* for (struct map_item *it = NULL; (it = map_next(m, it));) — entries may be removed meanwhile, not
 * added (items may move). */
struct map_item *map_next(const struct map *m, struct map_item *after);

#endif
