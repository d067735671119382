/* Map: an array of items in order of insertion, and an open-addressed index of item numbers. Removed items
 * leave holes that the next growth closes. */
#include <shoal/base/crypto.h>
#include <shoal/base/err.h>
#include <shoal/base/map.h>

enum { FIRST_CAP = 8 };
#define TOMBSTONE UINT32_MAX

void map_init(struct map *m)
{
    *m = (struct map){ 0 };
}

void map_done(struct map *m)
{
    for (uint32_t i = 0; i < m->n_items; i++)
        free(m->items[i].key);
    free(m->items);
    free(m->index);
    *m = (struct map){ 0 };
}

static void index_put(struct map *m, uint64_t hash, uint32_t item)
{
    uint32_t i = (uint32_t)hash & (m->index_size - 1);
    while (m->index[i])
        i = (i + 1) & (m->index_size - 1);
    m->index[i] = item + 1;
}

static void rebuild(struct map *m)
{
    uint32_t cap = MAX(m->n * 2, (uint32_t)FIRST_CAP), n = 0;
    struct map_item *items = xcalloc(cap, sizeof *items);
    for (uint32_t i = 0; i < m->n_items; i++)
        if (m->items[i].key)
            items[n++] = m->items[i];
    free(m->items);
    free(m->index);
    m->items = items;
    m->n_items = n;
    m->cap = cap;
    for (m->index_size = FIRST_CAP; m->index_size < cap * 2; m->index_size *= 2)
        ;
    m->index = xcalloc(m->index_size, sizeof *m->index);
    for (uint32_t i = 0; i < n; i++)
        index_put(m, items[i].hash, i);
}

/* Cell of the index that holds the key, or index_size. */
static uint32_t find_cell(const struct map *m, const void *key, size_t key_len, uint64_t hash)
{
    if (!m->index_size)
        return 0;
    for (uint32_t i = (uint32_t)hash & (m->index_size - 1); m->index[i]; i = (i + 1) & (m->index_size - 1)) {
        if (m->index[i] == TOMBSTONE)
            continue;
        const struct map_item *it = &m->items[m->index[i] - 1];
        if (it->hash == hash && it->key_len == key_len && !memcmp(it->key, key, key_len))
            return i;
    }
    return m->index_size;
}

void *map_find_n(const struct map *m, const void *key, size_t key_len)
{
    uint32_t cell = m->n ? find_cell(m, key, key_len, crypto_shorthash(key, key_len)) : m->index_size;
    return cell < m->index_size ? m->items[m->index[cell] - 1].value : NULL;
}

void *map_find(const struct map *m, const char *key)
{
    return map_find_n(m, key, strlen(key));
}

void *map_put_n(struct map *m, const void *key, size_t key_len, void *value)
{
    ASSERT(value);
    uint64_t hash = crypto_shorthash(key, key_len);
    uint32_t cell = find_cell(m, key, key_len, hash);
    if (cell < m->index_size) {
        struct map_item *it = &m->items[m->index[cell] - 1];
        void *old = it->value;
        it->value = value;
        return old;
    }
    if (m->n_items == m->cap)
        rebuild(m);
    struct map_item *it = &m->items[m->n_items];
    it->key = xcalloc(key_len + 1, 1);
    memcpy(it->key, key, key_len);
    it->key_len = key_len;
    it->value = value;
    it->hash = hash;
    index_put(m, hash, m->n_items++);
    m->n++;
    return NULL;
}

void *map_put(struct map *m, const char *key, void *value)
{
    return map_put_n(m, key, strlen(key), value);
}

void *map_remove_n(struct map *m, const void *key, size_t key_len)
{
    uint32_t cell = m->n ? find_cell(m, key, key_len, crypto_shorthash(key, key_len)) : m->index_size;
    if (cell >= m->index_size)
        return NULL;
    struct map_item *it = &m->items[m->index[cell] - 1];
    void *value = it->value;
    free(it->key);
    it->key = NULL;
    it->value = NULL;
    m->index[cell] = TOMBSTONE;
    m->n--;
    return value;
}

void *map_remove(struct map *m, const char *key)
{
    return map_remove_n(m, key, strlen(key));
}

struct map_item *map_next(const struct map *m, struct map_item *after)
{
    for (uint32_t i = after ? (uint32_t)(after - m->items) + 1 : 0; i < m->n_items; i++)
        if (m->items[i].key)
            return &m->items[i];
    return NULL;
}
