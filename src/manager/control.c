/* Control of networks, secrets, configs, nodes and the cluster: validation, then one transaction. */
#include "control.h"
#include <shoal/base/file.h>
#include <stdio.h>

enum { REMOVAL_TRIES = 5 };

int control_ready(const struct manager *m, struct err *e)
{
    if (m->leads && store_cluster(m->store))
        return 0;
    return err_set(e, E_NOT_LEADER, "this manager does not lead the cluster; ask again in a moment");
}

void control_create(struct manager *m, enum store_table t, const void *obj, manager_done_fn *done, void *arg)
{
    struct store_tx *tx = store_tx_new(clock_real_ns());
    store_tx_create(tx, t, obj);
    manager_propose(m, tx, done, arg);
}

void control_update(struct manager *m, enum store_table t, const void *obj, manager_done_fn *done, void *arg)
{
    struct store_tx *tx = store_tx_new(clock_real_ns());
    store_tx_update(tx, t, obj);
    manager_propose(m, tx, done, arg);
}

struct removal {
    struct manager *m;
    enum store_table table;
    char *ref;
    control_refuse_fn *refuse;
    manager_done_fn *done;
    void *arg;
    unsigned tries;
};

static void removal_end(struct removal *r, int result, const struct err *e)
{
    r->done(r->arg, result, e);
    free(r->ref);
    free(r);
}

static void try_removal(struct removal *r);

/* A removal names no version: when another writer was faster (the allocator, right after a creation), look again. */
static void on_removed(void *arg, int result, const struct err *e)
{
    struct removal *r = arg;
    if (result == -E_STALE && r->tries++ < REMOVAL_TRIES)
        try_removal(r);
    else
        removal_end(r, result, e);
}

/* Who is removed must not go on reading and forging gossip. */
static void want_new_keys(const struct store *s, struct store_tx *tx)
{
    struct cluster c = { 0 };
    cluster_copy(&c, store_cluster(s));
    c.keys_due = true;
    store_tx_update(tx, TABLE_CLUSTER, &c);
    cluster_clear(&c);
}

static void try_removal(struct removal *r)
{
    struct err e = { 0 };
    const void *found = NULL;
    int rc = control_ready(r->m, &e);
    if (rc == 0)
        rc = store_lookup(r->m->store, r->table, r->ref, &found, &e);
    if (rc == 0 && r->refuse)
        rc = r->refuse(r->m, found, &e);
    if (rc < 0) {
        removal_end(r, rc, &e);
        return;
    }
    struct store_tx *tx = store_tx_new(clock_real_ns());
    store_tx_delete(tx, r->table, found);
    if (r->table == TABLE_NODE)
        want_new_keys(r->m->store, tx);
    manager_propose(r->m, tx, on_removed, r);
}

void control_remove(struct manager *m, enum store_table t, const char *ref, control_refuse_fn *refuse,
                    manager_done_fn *done, void *arg)
{
    struct removal *r = xnew(struct removal);
    *r = (struct removal){ .m = m, .table = t, .ref = xstrdup(ref), .refuse = refuse, .done = done, .arg = arg };
    try_removal(r);
}

static int check_network(const struct store *s, struct network *n, struct err *e)
{
    if (n->driver && strcmp(n->driver, "overlay"))
        return err_set(e, E_UNSUPPORTED, "Driver: %s is not built; use overlay", n->driver);
    if (n->ingress)
        return err_set(e, E_UNSUPPORTED, "Ingress: shoal makes the ingress network itself; remove it");
    if (n->ipam && n->ipam->driver && strcmp(n->ipam->driver, "default"))
        return err_set(e, E_UNSUPPORTED, "IPAM.Driver: %s is not built; use default", n->ipam->driver);
    if (n->ipam && n->ipam->config.n > 1)
        return err_set(e, E_UNSUPPORTED, "IPAM.Config: one subnet a network is built; remove the others");
    if (n->ipam && n->ipam->config.n && n->ipam->config.v[0].range)
        return err_set(e, E_UNSUPPORTED, "IPAM.Config[0].IPRange: not built; remove it");
    for (uint32_t i = 0; i < n->options.n; i++)
        if (strcmp(n->options.v[i].key, "encrypted"))
            return err_set(e, E_UNSUPPORTED, "Options.%s: not built (networks are always encrypted); "
                           "remove it", n->options.v[i].key);
    int r = n->ipam && n->ipam->config.n ? allocator_check_subnet(s, n->ipam->config.v, e) : 0;
    if (r < 0)
        return r;
    str_set(&n->driver, "overlay");
    str_set(&n->scope, "swarm");
    n->vni = 0;
    n->created_at = 0;
    return 0;
}

void control_network_create(struct manager *m, struct network *n, char ret_id[26], manager_done_fn *done,
                            void *arg)
{
    struct err e = { 0 };
    char id[26];
    int r = control_ready(m, &e);
    if (r == 0)
        r = rec_check(&network_rec, n, &e);
    if (r == 0)
        r = check_network(m->store, n, &e);
    if (r < 0) {
        done(arg, r, &e);
        return;
    }
    id_random(id);
    str_set(&n->id, id);
    if (ret_id)
        memcpy(ret_id, id, sizeof id);
    control_create(m, TABLE_NETWORK, n, done, arg);
}

static int network_in_use(const struct manager *m, const void *obj, struct err *e)
{
    const struct network *n = obj;
    if (n->ingress)
        return err_set(e, E_DENIED, "the ingress network carries published ports and cannot be removed");
    for (const struct service *svc = NULL; (svc = store_next(m->store, TABLE_SERVICE, svc));)
        for (uint32_t i = 0; i < svc->spec.task.networks.n; i++)
            if (str_equal(svc->spec.task.networks.v[i].target, n->id))
                return err_set(e, E_INVALID, "network %s is in use by service %s; remove that first",
                               n->name, svc->spec.name);
    return 0;
}

void control_network_remove(struct manager *m, const char *ref, manager_done_fn *done, void *arg)
{
    control_remove(m, TABLE_NETWORK, ref, network_in_use, done, arg);
}

/* Secrets and configs differ by record only. */
#define FILE_OBJECT(kind, KIND, list)                                                                      \
    void control_##kind##_create(struct manager *m, struct kind##_spec *spec, char ret_id[26],             \
                                 manager_done_fn *done, void *arg)                                         \
    {                                                                                                      \
        struct err e = { 0 };                                                                              \
        struct kind o = { 0 };                                                                             \
        char id[26];                                                                                       \
        int r = control_ready(m, &e);                                                                      \
        if (r == 0)                                                                                        \
            r = rec_check(&kind##_spec_rec, spec, &e);                                                     \
        if (r == 0 && !spec->data.n)                                                                       \
            r = err_set(&e, E_INVALID, "Data: a " #kind " needs content");                                 \
        if (r < 0) {                                                                                       \
            done(arg, r, &e);                                                                              \
            return;                                                                                        \
        }                                                                                                  \
        id_random(id);                                                                                     \
        str_set(&o.id, id);                                                                                \
        o.spec = *spec;                                                                                    \
        *spec = (struct kind##_spec){ 0 };                                                                 \
        if (ret_id)                                                                                        \
            memcpy(ret_id, id, sizeof id);                                                                 \
        control_create(m, TABLE_##KIND, &o, done, arg);                                                    \
        kind##_clear(&o);                                                                                  \
    }                                                                                                      \
    void control_##kind##_update(struct manager *m, const char *ref, uint64_t version,                     \
                                 struct kind##_spec *spec, manager_done_fn *done, void *arg)               \
    {                                                                                                      \
        struct err e = { 0 };                                                                              \
        const void *found = NULL;                                                                          \
        int r = control_ready(m, &e);                                                                      \
        if (r == 0)                                                                                        \
            r = store_lookup(m->store, TABLE_##KIND, ref, &found, &e);                                     \
        const struct kind *old = found;                                                                    \
        bool same_data = r == 0 && (!spec->data.n || (spec->data.n == old->spec.data.n &&                  \
                                    !memcmp(spec->data.v, old->spec.data.v, spec->data.n)));               \
        if (r == 0 && (!same_data || !str_equal(spec->name, old->spec.name)))                              \
            r = err_set(&e, E_INVALID, "only updates to Labels are allowed");                              \
        if (r < 0) {                                                                                       \
            done(arg, r, &e);                                                                              \
            return;                                                                                        \
        }                                                                                                  \
        struct kind o = { 0 };                                                                             \
        kind##_copy(&o, old);                                                                              \
        o.version.index = version;                                                                         \
        labels_clear(&o.spec.labels);                                                                      \
        o.spec.labels = spec->labels;                                                                      \
        spec->labels = (struct labels){ 0 };                                                               \
        control_update(m, TABLE_##KIND, &o, done, arg);                                                    \
        kind##_clear(&o);                                                                                  \
    }                                                                                                      \
    static int kind##_in_use(const struct manager *m, const void *obj, struct err *e)                        \
    {                                                                                                      \
        const struct kind *o = obj;                                                                        \
        for (const struct service *svc = NULL; (svc = store_next(m->store, TABLE_SERVICE, svc));)          \
            for (uint32_t i = 0; i < svc->spec.task.container->list.n; i++)                                \
                if (str_equal(svc->spec.task.container->list.v[i].id, o->id))                              \
                    return err_set(e, E_INVALID, #kind " '%s' is in use by the following service: %s",     \
                                   o->spec.name, svc->spec.name);                                          \
        return 0;                                                                                          \
    }                                                                                                      \
    void control_##kind##_remove(struct manager *m, const char *ref, manager_done_fn *done, void *arg)     \
    {                                                                                                      \
        control_remove(m, TABLE_##KIND, ref, kind##_in_use, done, arg);                                    \
    }

FILE_OBJECT(secret, SECRET, secrets)
FILE_OBJECT(config, CONFIG, configs)

/* By gossip, by the log, and by Raft: a leader elected a moment ago knows of a dead manager from Raft's silence first. */
static int may_change_role(const struct manager *m, const struct node *n, int role, const char *what, struct err *e)
{
    uint32_t count = 0, i = 0;
    AUTO_FREE struct governed *v = members_view(m, &count);
    for (const struct node *x = NULL; (x = store_next(m->store, TABLE_NODE, x)) && x != n;)
        i++;
    return role == ROLE_MANAGER ? govern_may_promote(v, count, i, e) : govern_may_go(v, count, i, what, e);
}

void control_node_update(struct manager *m, const char *ref, uint64_t version, struct node_spec *spec,
                         manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    const void *found = NULL;
    int r = control_ready(m, &e);
    if (r == 0)
        r = rec_check(&node_spec_rec, spec, &e);
    if (r == 0)
        r = store_lookup(m->store, TABLE_NODE, ref, &found, &e);
    const struct node *old = found;
    if (r == 0 && spec->role != old->spec.role)
        r = may_change_role(m, old, spec->role, "demoting", &e);
    if (r < 0) {
        done(arg, r, &e);
        return;
    }
    struct node n = { 0 };
    node_copy(&n, old);
    n.version.index = version;
    if (spec->role != old->spec.role)
        govern_set_role(&n, spec->role, false, spec->role == ROLE_MANAGER ? "promoted by hand" : "demoted by hand",
                        clock_real_ns());
    node_spec_clear(&n.spec);
    n.spec = *spec;
    *spec = (struct node_spec){ 0 };
    control_update(m, TABLE_NODE, &n, done, arg);
    node_clear(&n);
}

static int may_remove(const struct manager *m, const void *obj, struct err *e)
{
    const struct node *n = obj;
    if (str_equal(n->id, m->node_id))
        return err_set(e, E_INVALID, "node %s leads the cluster; let it leave ('shoal leave' there) first", n->id);
    return n->spec.role == ROLE_MANAGER ? may_change_role(m, n, ROLE_WORKER, "removing", e) : 0;
}

static int may_remove_down(const struct manager *m, const void *obj, struct err *e)
{
    const struct node *n = obj;
    if (n->status.state != NODE_DOWN && n->status.state != NODE_DISCONNECTED && !str_equal(n->id, m->node_id))
        return err_set(e, E_INVALID, "node %s is not down and can't be removed; stop it first or use --force", n->id);
    return may_remove(m, obj, e);
}

void control_node_remove(struct manager *m, const char *ref, bool force, manager_done_fn *done, void *arg)
{
    control_remove(m, TABLE_NODE, ref, force ? may_remove : may_remove_down, done, arg);
}

int control_check_replace_after(int64_t ns, struct err *e)
{
    return ns && (ns < SEC_NS || ns > 24 * 3600 * SEC_NS)
               ? err_set(e, E_INVALID, "ReplaceManagersAfter (--replace-after): must be from 1 s to 24 h") : 0;
}

void control_managers(struct manager *m, const char *policy, int64_t replace_after_ns, manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    struct cluster c = { 0 };
    int r = control_ready(m, &e);
    const char *why = r == 0 && policy ? check_managers(policy) : NULL;
    if (why)
        r = err_set(&e, E_INVALID, "managers: \"%.32s\" %s", policy, why);
    if (r == 0)
        r = control_check_replace_after(replace_after_ns, &e);
    if (r < 0) {
        done(arg, r, &e);
        return;
    }
    cluster_copy(&c, store_cluster(m->store));
    if (policy)
        str_set(&c.managers, policy);
    if (replace_after_ns)
        c.replace_after = replace_after_ns;
    control_update(m, TABLE_CLUSTER, &c, done, arg);
    cluster_clear(&c);
}
