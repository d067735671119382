/* The replicated state: tables of objects, changed only by applied log entries.
 *
 * A transaction is a list of changes with preconditions, encoded to bytes, agreed on by Raft and applied
 * by every replica alike: an object must exist or not, carry the version its writer saw, and its name be
 * free. A broken precondition refuses the whole transaction, on every replica, with the same error; so a
 * leader that lost its office between reading and proposing can do no harm (etcd's compare-and-swap idea,
 * without its per-key language). Time of a change is the proposer's clock, carried in the transaction.
 *
 * Objects returned are borrowed: valid until the next store_apply() or store_load(). */
#ifndef SHOAL_STORE_H
#define SHOAL_STORE_H

#include <shoal/base/map.h>
#include <shoal/model/cluster.h>
#include <shoal/model/node.h>
#include <shoal/model/task.h>

/*        enum      record    word       name is unique */
#define STORE_TABLES(X)                     \
    X(CLUSTER, cluster, "cluster", false)   \
    X(NODE, node, "node", false)            \
    X(SERVICE, service, "service", true)    \
    X(TASK, task, "task", false)            \
    X(NETWORK, network, "network", true)    \
    X(SECRET, secret, "secret", true)       \
    X(CONFIG, config, "config", true)

enum store_table {
#define X(name, record, word, unique) TABLE_##name,
    STORE_TABLES(X)
#undef X
    TABLE_N
};
enum store_op { STORE_CREATE, STORE_UPDATE, STORE_DELETE };

/* The members every stored object starts with. */
struct object_head {
    char *id;
    struct version version;
    int64_t created_at;
};

struct store;
struct store *store_new(void);
void store_free(struct store *s);

const void *store_find(const struct store *s, enum store_table t, const char *id);
const void *store_find_name(const struct store *s, enum store_table t, const char *name); /* unique tables */
/* Exact id, exact name, then unique id prefix (>= 4 characters). E_NOT_FOUND "service x not found",
 * E_INVALID for an ambiguous prefix. Nodes are also found by hostname. */
int store_lookup(const struct store *s, enum store_table t, const char *ref, const void **ret,
                 struct err *e) must_check;
/* Iterates in order of creation: for (const struct task *o = NULL; (o = store_next(s, TABLE_TASK, o));) */
const void *store_next(const struct store *s, enum store_table t, const void *after);
uint32_t store_count(const struct store *s, enum store_table t);
const struct cluster *store_cluster(const struct store *s); /* NULL before init */
/* Tasks of a service or on a node, oldest first; array valid until the next apply. */
const struct task **store_tasks_of_service(const struct store *s, const char *service_id, uint32_t *ret_n);
const struct task **store_tasks_of_node(const struct store *s, const char *node_id, uint32_t *ret_n);
uint64_t store_index(const struct store *s); /* last applied log index */
int64_t store_changed_at(const struct store *s); /* when the latest change of what it holds was proposed; real ns */
const struct rec *store_rec(enum store_table t);
const char *store_word(enum store_table t);

/* Called after each change of an applied transaction; old or new is NULL for create/delete. */
typedef void store_watch_fn(void *arg, enum store_op op, enum store_table t, const void *old_obj,
                            const void *new_obj);
void store_watch(struct store *s, store_watch_fn *fn, void *arg);

/* Applies one encoded transaction at a log index. 0, or why it was refused, by every replica alike (nothing changed then):
 * E_EXISTS, E_NOT_FOUND, E_STALE, E_CONFLICT, E_CORRUPT. But E_UNSUPPORTED: this program does not know what it says, others
 * may; the state here is not theirs any more, and the process must stop (format.h). */
int store_apply(struct store *s, uint64_t index, const void *p, size_t size, struct err *e) must_check;
void store_save(const struct store *s, struct sb *out); /* snapshot: same bytes on every replica */
int store_load(struct store *s, const void *p, size_t size, struct err *e) must_check; /* replaces all; E_UNSUPPORTED as above */
/* May a program that knows what this one does apply these bytes, as far as their first ones tell? E_UNSUPPORTED. */
int store_readable(const void *p, size_t size, struct err *e) must_check;
/* The last format that this program and every node know which has not left: the one to promise next. */
uint64_t store_format_known(const struct store *s);
bool store_format_kept(const struct store *s, uint64_t format); /* every such node has promised it */

/* A transaction being built. */
struct store_tx;
struct store_tx *store_tx_new(int64_t now_real_ns);
void store_tx_free(struct store_tx *tx); /* takes NULL */
void store_tx_create(struct store_tx *tx, enum store_table t, const void *obj);
/* obj->version.index is the version that was read. */
void store_tx_update(struct store_tx *tx, enum store_table t, const void *obj);
void store_tx_delete(struct store_tx *tx, enum store_table t, const void *obj);
bool store_tx_touches(const struct store_tx *tx, enum store_table t, const char *id);
/* Creates and changes nothing of users: tasks, nodes and the cluster (its keys) alone, and removals. Taken while room for
 * the log is short. */
bool store_tx_is_upkeep(const struct store_tx *tx);
uint32_t store_tx_count(const struct store_tx *tx);
size_t store_tx_size(const struct store_tx *tx); /* bytes so far */
unsigned store_tx_format(const struct store_tx *tx); /* the first format that can say it */
const char *store_tx_latest(const struct store_tx *tx); /* the object for which that is so: "service web"; NULL: format 1 does */
void store_tx_encode(const struct store_tx *tx, uint64_t format, struct sb *out);

#endif
