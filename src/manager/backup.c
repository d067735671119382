/* Backup and restore of the cluster's state (format: model/backup.h). A backup is the store at one index, packed at
 * once. A restore is a new cluster of one manager: its log is filled with what the backup holds, the cluster object
 * last, so that until all is there nobody acts on it and a crash leaves nothing. The certificate authority is the old
 * one, the epoch a later one than any the old cluster can have reached: workers are taken over as after `recover`,
 * and old managers are kept out. */
#include "manager_internal.h"
#include <shoal/base/file.h>
#include <shoal/base/version.h>
#include <shoal/model/backup.h>
#include <shoal/model/format.h>

LOG_MODULE("backup");

enum { BATCH_BYTES = 512 << 10, STATE_MAX_BYTES = 1 << 30, JUDGE_MAX = 256 };

/* ---- out ---- */

static void fill_manifest(const struct manager *m, struct backup_manifest *ret)
{
    const struct cluster *c = store_cluster(m->store);
    const struct node *self = store_find(m->store, TABLE_NODE, m->node_id);
    str_set(&ret->cluster_id, c->id);
    str_set(&ret->cluster_name, c->spec.name);
    str_set(&ret->shoal, SHOAL_VERSION);
    str_set(&ret->made_by, self && self->description.hostname ? self->description.hostname : m->node_id);
    ret->made_at = clock_real_ns();
    ret->index = store_index(m->store);
    ret->epoch = c->epoch;
    ret->nodes = store_count(m->store, TABLE_NODE);
    ret->services = store_count(m->store, TABLE_SERVICE);
    ret->tasks = store_count(m->store, TABLE_TASK);
    ret->networks = store_count(m->store, TABLE_NETWORK);
    ret->secrets = store_count(m->store, TABLE_SECRET);
    ret->configs = store_count(m->store, TABLE_CONFIG);
}

void manager_backup(const struct manager *m, backup_put_fn *put, void *arg)
{
    struct backup_manifest manifest = { 0 };
    AUTO_SB struct sb frame, body;
    uint64_t n = 0;
    sb_init(&frame, 0);
    sb_init(&body, 0);
    fill_manifest(m, &manifest);
    backup_put_manifest(&frame, &manifest);
    backup_manifest_clear(&manifest);
    for (int t = 0; t < TABLE_N; t++)
        for (const void *o = NULL; (o = store_next(m->store, (enum store_table)t, o)); n++) {
            sb_reset(&body);
            rec_pack(store_rec((enum store_table)t), o, &body);
            backup_put_object(&frame, (unsigned)t, body.s, body.len);
            put(arg, frame.s, frame.len);
            sb_reset(&frame);
        }
    backup_put_end(&frame, n);
    put(arg, frame.s, frame.len);
    crypto_wipe(body.s, body.size); /* secrets went through it */
    crypto_wipe(frame.s, frame.size);
}

/* ---- in ---- */

struct item {
    enum store_table table;
    uint32_t size;
    uint8_t *packed;
};

struct backup_state {
    struct backup_reader reader;
    struct backup_manifest manifest;
    struct item *items;
    size_t n, cap, bytes;
    uint64_t seen[TABLE_N], format;
    struct map ids;
};

struct backup_state *backup_state_new(void)
{
    struct backup_state *b = xnew(struct backup_state);
    backup_reader_init(&b->reader);
    map_init(&b->ids);
    return b;
}

static void item_clear(struct item *x)
{
    crypto_wipe(x->packed, x->size);
    free(x->packed);
}

void backup_state_free(struct backup_state *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n; i++)
        item_clear(&b->items[i]);
    free(b->items);
    map_done(&b->ids);
    backup_reader_done(&b->reader);
    backup_manifest_clear(&b->manifest);
    free(b);
}

static void hold(struct backup_state *b, enum store_table t, const void *packed, size_t size)
{
    if (b->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 64;
        b->items = xrealloc(b->items, b->cap, sizeof *b->items);
    }
    b->items[b->n++] = (struct item){ t, (uint32_t)size, xmemdup(packed, size) };
    b->bytes += size;
}

static int on_manifest(void *arg, const struct backup_manifest *m, struct err *e)
{
    struct backup_state *b = arg;
    (void)e;
    backup_manifest_copy(&b->manifest, m);
    return 0;
}

static int on_object(void *arg, unsigned table, const void *packed, size_t size, struct err *e)
{
    struct backup_state *b = arg;
    if (table >= TABLE_N)
        return err_set(e, E_UNSUPPORTED, "the backup holds objects of a kind that this version does not know; upgrade shoal first");
    if (b->bytes + size > STATE_MAX_BYTES)
        return err_set(e, E_TOO_BIG, "the backup holds more than %d MiB", STATE_MAX_BYTES >> 20);
    const struct rec *rec = store_rec((enum store_table)table);
    AUTO_FREE struct object_head *o = xcalloc(1, rec->size);
    int r = rec_unpack(rec, o, packed, size, e);
    if (r < 0)
        return err_wrap(e, "a %s in the backup", store_word((enum store_table)table));
    AUTO_FREE char *key = xasprintf("%u/%s", table, o->id ? o->id : "");
    if (!o->id || map_find(&b->ids, key))
        r = err_set(e, E_CORRUPT, "a %s in the backup has no id, or one that another has", store_word((enum store_table)table));
    else
        map_put(&b->ids, key, b);
    rec_clear(rec, o);
    if (r == 0) {
        hold(b, (enum store_table)table, packed, size);
        b->seen[table]++;
    }
    return r;
}

int backup_state_take(struct backup_state *b, const void *p, size_t size, struct err *e)
{
    const struct backup_sink sink = { b, on_manifest, on_object };
    return backup_reader_take(&b->reader, p, size, &sink, e);
}

/* What is put in place of an object. */
static void replace(struct item *x, const void *obj)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    rec_pack(store_rec(x->table), obj, &b);
    item_clear(x);
    x->packed = xmemdup(b.s, b.len);
    x->size = (uint32_t)b.len;
    crypto_wipe(b.s, b.len);
}

/* Seconds since 1970 are more than any count of recoveries: of two restores, or a restore and a recovery of what was
 * left, the later one wins. */
static void next_epoch(struct cluster *c, int64_t wait_ns)
{
    char token[128];
    int64_t now = clock_real_ns();
    c->epoch = MAX(c->epoch + 1, (uint64_t)MAX(now / SEC_NS, INT64_C(0)));
    c->restore_until = now + wait_ns;
    if (!c->tokens)
        c->tokens = xnew(struct join_tokens);
    token_make(token, c->ca_public.v);
    str_set(&c->tokens->worker, token);
    token_make(token, c->ca_public.v);
    str_set(&c->tokens->manager, token);
}

static void make_old(struct node *n, int64_t now)
{
    if (n->spec.role == ROLE_MANAGER) {
        govern_set_role(n, ROLE_WORKER, false, NODE_BEHIND_MESSAGE, now);
        n->status.state = NODE_DOWN;
        n->down_since = now;
        str_set(&n->status.message, NODE_BEHIND_MESSAGE);
    } else if (!node_has_left(n)) {
        n->status.state = NODE_UNKNOWN;
        n->down_since = 0;
        str_set(&n->status.message, NODE_UNHEARD_MESSAGE);
    }
}

int backup_state_finish(struct backup_state *b, struct node *self, int64_t wait_ns, struct cluster *ret_cluster, struct err *e)
{
    int64_t now = clock_real_ns();
    int r = backup_reader_end(&b->reader, e);
    if (r == 0 && b->seen[TABLE_CLUSTER] != 1)
        r = err_set(e, E_CORRUPT, "the backup holds no cluster");
    for (size_t i = 0; r == 0 && i < b->n; i++) {
        struct item *x = &b->items[i];
        if (x->table == TABLE_CLUSTER) {
            r = rec_unpack(&cluster_rec, ret_cluster, x->packed, x->size, e);
            if (r == 0 && (ret_cluster->ca_public.n != 32 || ret_cluster->ca_secret.n != 64 || ret_cluster->gossip_keys.n == 0))
                r = err_set(e, E_CORRUPT, "the cluster in the backup lacks its keys");
            if (r == 0 && ret_cluster->format > FORMAT_MOST)
                r = err_set(e, E_UNSUPPORTED, "the backup is of a cluster that writes format %llu, this shoal reads up to %u; upgrade "
                            "shoal first", (unsigned long long)ret_cluster->format, FORMAT_MOST);
            if (r == 0) {
                next_epoch(ret_cluster, wait_ns);
                replace(x, ret_cluster);
            }
        } else if (x->table == TABLE_NODE) {
            struct node n = { 0 };
            r = rec_unpack(&node_rec, &n, x->packed, x->size, e);
            make_old(&n, now);
            replace(x, &n);
            node_clear(&n);
        }
    }
    if (r < 0)
        return r;
    AUTO_SB struct sb packed;
    sb_init(&packed, 0);
    govern_set_role(self, ROLE_MANAGER, false, "the cluster was restored from a backup here", now);
    self->formats.promised = b->format = cluster_format(ret_cluster);
    rec_pack(&node_rec, self, &packed);
    hold(b, TABLE_NODE, packed.s, packed.len);
    return 0;
}

/* ---- a log made of it ---- */

struct restore {
    struct manager *m;
    struct backup_state *state;
    struct loop_timer *look;
    manager_done_fn *done;
    void *arg;
    unsigned step; /* of `order` */
    size_t at;
};
static const enum store_table order[] = { TABLE_NETWORK, TABLE_SECRET, TABLE_CONFIG, TABLE_SERVICE, TABLE_TASK, TABLE_NODE,
                                          TABLE_CLUSTER };
_Static_assert(ARRAY_N(order) == TABLE_N, "every table is restored");

static void restore_free(void *arg)
{
    struct restore *r = arg;
    backup_state_free(r->state);
    loop_timer_free(r->look);
    free(r);
}

static void restore_end(struct restore *r, int result, const struct err *e)
{
    r->m->restore = NULL;
    r->done(r->arg, result, e);
    loop_defer(r->m->loop, restore_free, r);
}

static int add_item(struct store_tx *tx, const struct item *x, struct err *e)
{
    const struct rec *rec = store_rec(x->table);
    AUTO_FREE void *o = xcalloc(1, rec->size);
    int rc = rec_unpack(rec, o, x->packed, x->size, e);
    if (rc == 0)
        store_tx_create(tx, x->table, o);
    rec_clear(rec, o);
    return rc;
}

static void propose_next(struct restore *r);

static void on_batch(void *arg, int result, const struct err *e)
{
    struct restore *r = arg;
    if (result < 0)
        restore_end(r, result, e);
    else
        propose_next(r);
}

static void propose_next(struct restore *r)
{
    struct err e = { 0 };
    struct store_tx *tx = store_tx_new(clock_real_ns());
    int rc = 0;
    while (rc == 0 && r->step < ARRAY_N(order) && store_tx_size(tx) < BATCH_BYTES) {
        if (r->at == r->state->n) {
            r->at = 0;
            r->step++;
            continue;
        }
        const struct item *x = &r->state->items[r->at++];
        if (x->table == order[r->step])
            rc = add_item(tx, x, &e);
    }
    if (rc < 0 || store_tx_count(tx) == 0) {
        store_tx_free(tx);
        restore_end(r, rc, rc < 0 ? &e : NULL);
        return;
    }
    manager_propose(r->m, tx, on_batch, r);
}

static void wait_to_lead(void *arg)
{
    struct restore *r = arg;
    struct raft_status s;
    raft_node_status(r->m->raft, &s);
    if (s.role == RAFT_LEADER && s.ready)
        propose_next(r);
    else
        loop_timer_set(r->look, 2); /* a cluster of one elects itself within milliseconds */
}

void manager_restore_cluster(struct manager *m, struct backup_state *b, manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    int rc = raft_node_bootstrap(m->raft, m->raft_id, m->node_id, 25, &e);
    if (rc < 0) {
        backup_state_free(b);
        done(arg, rc, &e);
        return;
    }
    struct restore *r = xnew(struct restore);
    *r = (struct restore){ .m = m, .state = b, .done = done, .arg = arg };
    m->founding_format = b->format;
    r->look = loop_timer_new(m->loop, wait_to_lead, r);
    m->restore = r;
    wait_to_lead(r);
}

void restore_close(struct manager *m)
{
    struct err e;
    err_set(&e, E_UNAVAILABLE, "the daemon ended in the middle of the restore");
    if (m->restore)
        restore_end(m->restore, -e.code, &e);
}

/* ---- afterwards ---- */

static void judged(void *arg, int result, const struct err *e)
{
    struct manager *m = arg;
    m->restore_judging = false;
    manager_pass_over(m, result, "verdict on nodes not heard of", e); /* they are looked at again by the next pass */
}

void restore_wait(struct manager *m)
{
    const struct cluster *c = store_cluster(m->store);
    int64_t now = clock_real_ns();
    uint32_t n = 0;
    if (!c->restore_until || m->restore_judging)
        return;
    struct store_tx *tx = store_tx_new(now);
    for (const struct node *x = NULL; n < JUDGE_MAX && (x = store_next(m->store, TABLE_NODE, x));) {
        struct node copy = { 0 };
        if (x->status.state != NODE_UNKNOWN)
            continue;
        n++;
        if (now < c->restore_until)
            break;
        node_copy(&copy, x);
        copy.status.state = NODE_DOWN;
        copy.down_since = now;
        store_tx_update(tx, TABLE_NODE, &copy);
        node_clear(&copy);
    }
    if (store_tx_count(tx)) {
        m->restore_judging = true;
        manager_propose(m, tx, judged, m);
        return;
    }
    store_tx_free(tx);
    if (n)
        loop_timer_set(m->restore_timer, MAX((c->restore_until - now) / MS_NS, INT64_C(1)));
}
