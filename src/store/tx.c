/* Transactions: the list of changes one log entry carries. Wire form (msgpack):
 * [format, now_ns, [[op, table, id, version, object]...]]; object absent (empty) for a delete. format: model/format.h. */
#include "store_internal.h"
#include <shoal/base/mp.h>

struct store_tx {
    int64_t now_real_ns;
    uint32_t n;
    bool of_users; /* creates or changes what is neither task nor node nor the cluster */
    struct sb changes; /* encoded elements */
    struct map touched;
    unsigned format;
    char *latest;
};

static void touched_key(char key[64], enum store_table t, const char *id)
{
    snprintf(key, 64, "%d/%s", (int)t, id);
}

struct store_tx *store_tx_new(int64_t now_real_ns)
{
    struct store_tx *tx = xnew(struct store_tx);
    tx->now_real_ns = now_real_ns;
    tx->format = 1;
    sb_init(&tx->changes, 0);
    map_init(&tx->touched);
    return tx;
}

void store_tx_free(struct store_tx *tx)
{
    if (!tx)
        return;
    sb_done(&tx->changes);
    free(tx->latest);
    map_done(&tx->touched);
    free(tx);
}

static void note_format(struct store_tx *tx, enum store_table t, const void *obj)
{
    unsigned format = rec_format(store_rec(t), obj);
    if (format <= tx->format)
        return;
    const char *name = store_object_name(t, obj);
    tx->format = format;
    free(tx->latest);
    tx->latest = xasprintf("%s %s", store_word(t), name ? name : ((const struct object_head *)obj)->id);
}

static void add(struct store_tx *tx, enum store_op op, enum store_table t, const void *obj)
{
    const struct object_head *h = obj;
    ASSERT(h->id);
    char key[64];
    touched_key(key, t, h->id);
    ASSERT(!map_find(&tx->touched, key)); /* one change an object: the second could not know its version */
    map_put(&tx->touched, key, tx);
    mp_list(&tx->changes, 5);
    mp_uint(&tx->changes, (uint64_t)op);
    mp_uint(&tx->changes, (uint64_t)t);
    mp_str(&tx->changes, h->id, strlen(h->id));
    mp_uint(&tx->changes, op == STORE_CREATE ? 0 : h->version.index);
    struct sb body;
    sb_init(&body, 0);
    if (op != STORE_DELETE) {
        rec_pack(store_rec(t), obj, &body);
        note_format(tx, t, obj);
    }
    mp_bin(&tx->changes, body.s, body.len);
    sb_done(&body);
    tx->n++;
    tx->of_users |= op != STORE_DELETE && t != TABLE_TASK && t != TABLE_NODE && t != TABLE_CLUSTER;
}

void store_tx_create(struct store_tx *tx, enum store_table t, const void *obj)
{
    add(tx, STORE_CREATE, t, obj);
}

void store_tx_update(struct store_tx *tx, enum store_table t, const void *obj)
{
    add(tx, STORE_UPDATE, t, obj);
}

void store_tx_delete(struct store_tx *tx, enum store_table t, const void *obj)
{
    add(tx, STORE_DELETE, t, obj);
}

bool store_tx_touches(const struct store_tx *tx, enum store_table t, const char *id)
{
    char key[64];
    touched_key(key, t, id);
    return map_find(&tx->touched, key) != NULL;
}

bool store_tx_is_upkeep(const struct store_tx *tx)
{
    return !tx->of_users;
}

uint32_t store_tx_count(const struct store_tx *tx)
{
    return tx->n;
}

size_t store_tx_size(const struct store_tx *tx)
{
    return tx->changes.len;
}

unsigned store_tx_format(const struct store_tx *tx)
{
    return tx->format;
}

const char *store_tx_latest(const struct store_tx *tx)
{
    return tx->latest;
}

void store_tx_encode(const struct store_tx *tx, uint64_t format, struct sb *out)
{
    ASSERT(!tx->changes.overflow && tx->format <= format);
    mp_list(out, 3);
    mp_uint(out, format);
    mp_int(out, tx->now_real_ns);
    mp_list(out, tx->n);
    sb_add(out, tx->changes.s, tx->changes.len);
}
