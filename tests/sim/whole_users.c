/* What people ask the leader for, and what they were promised: a config that was acknowledged is there for ever, and is
 * seen by every read that begins later, at any manager. */
#include "whole.h"

enum { SERVICES = 4, READS_MAX = 4096 };

struct read {
    struct host *host;
    uint64_t life;
    bool *expected; /* of configs, when it began */
    unsigned n;
};

struct users {
    bool acked[CONFIGS_MAX];
    unsigned n_configs, n_reads, last;
    struct read reads[READS_MAX];
    char id[26];
};

static void refused(int result, const struct err *e, const char *what)
{
    g.n_refused++;
    CHECK(result != -E_CORRUPT && (result != -E_INVALID || strstr(what, "node")), "%s: %s", what, e->text); /* a node may be down */
    say("%s is refused: %s", what, e->text);
}

static void done(void *arg, int result, const struct err *e)
{
    if (result < 0)
        refused(result, e, arg);
}

/* ---- configs and reads ---- */
static void config_done(void *arg, int result, const struct err *e)
{
    bool *acked = arg;
    if (result < 0) {
        refused(result, e, "a config");
        return;
    }
    *acked = true;
    g.n_acked++;
}

static void write_config(struct host *h)
{
    struct users *u = g.users;
    struct config_spec s = { 0 };
    AUTO_FREE char *name = xasprintf("c%u", u->n_configs);
    if (u->n_configs == CONFIGS_MAX)
        return;
    str_set(&s.name, name);
    bytes_set(&s.data, "x", 1);
    control_config_create(h->d.manager, &s, NULL, config_done, &u->acked[u->n_configs++]);
    config_spec_clear(&s);
}

static void check_configs(const struct store *s, const bool *expected, unsigned n, const char *where)
{
    for (unsigned i = 0; i < n; i++) {
        AUTO_FREE char *name = xasprintf("c%u", i);
        CHECK(!expected[i] || store_find_name(s, TABLE_CONFIG, name), "config %s was acknowledged and is not in %s", name, where);
    }
}

static void read_done(void *arg, int result, const struct err *e)
{
    struct read *r = arg;
    (void)e;
    if (result == 0 && r->host->life == r->life && r->host->d.manager) {
        check_configs(manager_store(r->host->d.manager), r->expected, r->n, "what a later read sees");
        g.n_reads++;
    }
    free(TAKE(r->expected));
}

static void read_at(struct host *h)
{
    struct users *u = g.users;
    if (u->n_reads == READS_MAX)
        return;
    struct read *r = &u->reads[u->n_reads++];
    *r = (struct read){ .host = h, .life = h->life, .n = u->n_configs, .expected = xmemdup(u->acked, u->n_configs + 1) };
    manager_read(h->d.manager, read_done, r);
}

/* ---- services ---- */
static void create_service(struct manager *m, const char *name)
{
    struct service_spec s = { 0 };
    random_service(&s, &g.rng[S_USER], name);
    control_service_create(m, &s, NULL, NULL, done, (char *)(uintptr_t)"the service");
    service_spec_clear(&s);
    say("create %s", name);
}

static void change_service(struct manager *m, const struct service *svc)
{
    struct service_spec spec = { 0 };
    unsigned what = (unsigned)pick(S_USER, 0, 99);
    AUTO_FREE char *id = xstrdup(svc->id);
    if (what < 20) {
        say("remove %s", svc->spec.name);
        control_service_remove(m, id, done, (char *)(uintptr_t)"the removal");
        return;
    }
    bool rollback = what < 35 && svc->previous;
    service_spec_copy(&spec, rollback ? svc->previous : &svc->spec);
    if (!rollback && what < 60 && spec.mode.replicated) {
        spec.mode.replicated->replicas = pick(S_USER, 0, 6);
        say("scale %s to %llu", svc->spec.name, U(spec.mode.replicated->replicas));
    } else if (!rollback) {
        AUTO_FREE char *image = xasprintf("busybox:%llu", U(pick(S_USER, 0, 999)));
        str_set(&spec.task.container->image, image);
        say("update %s to %s", svc->spec.name, image);
    } else {
        say("roll back %s", svc->spec.name);
    }
    control_service_update(m, id, svc->version.index, &spec, rollback ? SERVICE_ROLLBACK : SERVICE_UPDATE, NULL, done,
                           (char *)(uintptr_t)"the change of a service");
    service_spec_clear(&spec);
}

/* ---- nodes ---- */
static const struct node *some_node(const struct store *s)
{
    uint64_t n = pick(S_USER, 0, MAX(store_count(s, TABLE_NODE), 1U) - 1);
    const struct node *x = store_next(s, TABLE_NODE, NULL);
    for (; x && n; n--)
        x = store_next(s, TABLE_NODE, x);
    return x;
}

static void change_node(struct manager *m)
{
    const struct node *n = some_node(manager_store(m));
    struct node_spec spec = { 0 };
    if (!n)
        return;
    AUTO_FREE char *id = xstrdup(n->id);
    if (n->status.state == NODE_DOWN && !host_by_node(n->id) && chance(S_USER, 500)) {
        if (!has_kind(K_remove))
            return;
        say("remove node %s", n->id);
        control_node_remove(m, id, true, done, (char *)(uintptr_t)"the removal of a node");
        return;
    }
    bool drain = chance(S_USER, 500);
    if (!has_kind(drain ? K_drain : K_role) || (!drain && g.rotten)) /* of few voters each may be needed */
        return;
    node_spec_copy(&spec, &n->spec);
    if (drain)
        spec.availability = n->spec.availability == AVAIL_DRAIN ? AVAIL_ACTIVE : AVAIL_DRAIN;
    else
        spec.role = n->spec.role == ROLE_MANAGER ? ROLE_WORKER : ROLE_MANAGER;
    say("node %s: role %d, availability %d", n->id, spec.role, spec.availability);
    g.n_roles += spec.role != n->spec.role;
    control_node_update(m, id, n->version.index, &spec, done, (char *)(uintptr_t)"the change of a node");
    node_spec_clear(&spec);
}

/* ---- keys ---- */
void users_note_key(const struct cluster *c)
{
    const struct bytes *k = &c->unlock_key;
    bool known = k->n != 32;
    for (unsigned i = 0; i < g.n_unlock_keys && !known; i++)
        known = !memcmp(g.unlock_keys[i], k->v, 32);
    if (known)
        return;
    CHECK(g.n_unlock_keys < UNLOCK_KEYS_MAX, "too many unlock keys");
    memcpy(g.unlock_keys[g.n_unlock_keys++], k->v, 32);
}

static void change_cluster(struct manager *m, enum kind kind)
{
    const struct cluster *c = store_cluster(manager_store(m));
    struct cluster_spec spec = { 0 };
    unsigned rotate = 0;
    cluster_spec_copy(&spec, &c->spec);
    if (kind == K_ca)
        spec.ca.force_rotate++;
    else if (kind == K_tokens)
        rotate = (unsigned)pick(S_USER, 1, ROTATE_WORKER_TOKEN | ROTATE_MANAGER_TOKEN);
    else if (spec.encryption.autolock && chance(S_USER, 500))
        rotate = ROTATE_UNLOCK_KEY;
    else
        spec.encryption.autolock = !spec.encryption.autolock;
    say("the cluster: key %llu, autolock %s, new %s%s%s", U(spec.ca.force_rotate), spec.encryption.autolock ? "on" : "off",
        rotate & ROTATE_WORKER_TOKEN ? "worker token " : "", rotate & ROTATE_MANAGER_TOKEN ? "manager token " : "",
        rotate & ROTATE_UNLOCK_KEY ? "unlock key" : "");
    control_cluster_update(m, c->version.index, &spec, rotate, done, (char *)(uintptr_t)"the change of the cluster");
    cluster_spec_clear(&spec);
}

/* ---- one after another ---- */
static void act(struct host *h)
{
    struct manager *m = h->d.manager;
    unsigned what = (unsigned)pick(S_USER, 0, 99);
    AUTO_FREE char *name = xasprintf("svc%u", (unsigned)pick(S_USER, 0, SERVICES - 1));
    const struct service *svc = store_find_name(manager_store(m), TABLE_SERVICE, name);
    if (!limit_take(&limits[L_OPS]))
        return;
    enum kind kind = what < 78 ? svc ? K_change : K_service : what < 92 ? K_keys : what < 94 ? K_ca : what < 97 ? K_tokens : K_lock;
    if (what < 55)
        write_config(h);
    else if (what >= 78 && what < 90)
        change_node(m);
    else if (!has_kind(kind))
        return;
    else if (kind == K_change)
        change_service(m, svc);
    else if (kind == K_service)
        create_service(m, name);
    else if (kind != K_keys)
        change_cluster(m, kind);
    else
        control_keys_rotate(m, done, (char *)(uintptr_t)"the rotation of keys");
}

static void user(struct event *e)
{
    struct host *leader = some_leader(), *h = &g.hosts[pick(S_USER, 0, g.n_hosts - 1)];
    if (g.calm)
        return;
    if (leader) {
        enter(leader);
        act(leader);
        leave(leader);
    }
    if (h->loop && !h->paused && h->d.manager) {
        enter(h);
        read_at(h);
        leave(h);
    }
    push(NULL, some_ms(S_USER, 10, 1500), e->fn, 0, 0);
}

void users_start(void)
{
    struct host *h = some_leader();
    struct network n = { 0 };
    g.users = xnew(struct users);
    CHECK(h, "there is no leader");
    str_set(&n.name, "net0");
    str_set(&n.driver, "overlay");
    enter(h);
    control_network_create(h->d.manager, &n, g.users->id, done, (char *)(uintptr_t)"the network");
    leave(h);
    network_clear(&n);
    run_until(g.now + SEC_NS);
    push(NULL, 0, user, 0, 0);
}

void users_last_write(void)
{
    struct host *leader = some_leader();
    CHECK(leader, "nobody leads although faults ended long ago");
    g.users->last = g.users->n_configs;
    enter(leader);
    write_config(leader);
    leave(leader);
}

void users_check(const struct store *s)
{
    CHECK(g.users->acked[g.users->last], "the last write was not agreed on");
    check_configs(s, g.users->acked, g.users->n_configs, "the final state");
}

void users_free(void)
{
    for (unsigned i = 0; i < g.users->n_reads; i++)
        free(g.users->reads[i].expected);
    free(g.users);
}
