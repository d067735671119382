/* A node's life in a cluster: links, gossip, manager (if it is one), agent. What the agent is told (nodes, keys)
 * is kept, so that a restart needs nobody. */
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/planted.h>
#include <shoal/model/format.h>

LOG_MODULE("node");

/* Within these Raft measures how long a leader may be silent (patience.c): on a two-core machine with a load of 8 the
 * loop was seen to wait 150 to 700 ms for a processor. */
enum { ELECTION_MIN_MS = 150, PATIENCE_MAX_MS = 600, HEARTBEAT_MS = 50, KEEP_MS = 60000 };

const char *daemon_node_id(const struct daemon *d)
{
    return d->member.certificate ? d->member.certificate->node_id : NULL;
}

/* ---- hooks of the manager ---- */
static void manager_send(void *arg, const char *node_id, uint8_t type, const void *p, size_t size)
{
    struct daemon *d = arg;
    if (d->peers)
        peers_send(d->peers, node_id, type, p, size);
}

static size_t manager_queued(void *arg, const char *node_id)
{
    struct daemon *d = arg;
    return d->peers ? peers_queued(d->peers, node_id) : 0;
}

static void manager_send_raft(void *arg, uint64_t raft_id, const char *node_id, const void *p, size_t size)
{
    struct daemon *d = arg;
    for (uint32_t i = 0; !node_id && i < d->member.nodes.n; i++) /* one that is to be added knows no configuration */
        if (d->member.nodes.v[i].raft_id == raft_id)
            node_id = d->member.nodes.v[i].id;
    if (d->peers && node_id)
        peers_send_raft(d->peers, node_id, p, size);
}

static void leader_changed(void *arg, const char *leader)
{
    struct daemon *d = arg;
    log_info("leader is %s", leader ? leader : "unknown");
    peers_leader_changed(d->peers, leader);
    if (d->api)
        api_leader_changed(d->api);
}

static uint32_t n_doubted(void *arg)
{
    struct daemon *d = arg;
    return d->gossip ? gossip_unstable(d->gossip) : 0;
}

static void ask_machine(void *arg, const char *node_id)
{
    struct daemon *d = arg;
    if (d->gossip)
        gossip_ask(d->gossip, node_id);
}

static void gossip_members(struct daemon *d)
{
    struct gossip_key_ref keys[GOSSIP_KEYS_MAX];
    unsigned n = 0;
    for (uint32_t i = 0; i < d->member.gossip_keys.n && n < GOSSIP_KEYS_MAX; i++) {
        const struct gossip_key *k = &d->member.gossip_keys.v[i];
        if (k->key.n != 32)
            continue;
        keys[n].id = k->id;
        memcpy(keys[n++].key, k->key.v, 32);
    }
    if (n)
        gossip_set_keys(d->gossip, keys, n);
    crypto_wipe(keys, sizeof keys);
    for (uint32_t i = 0; i < d->member.nodes.n; i++) {
        const struct node *x = &d->member.nodes.v[i];
        if (x->status.addr && x->gossip_port && x->sign_key.n == 32 && x->link_key.n == 32)
            gossip_member(d->gossip, x->id, x->status.addr, (uint16_t)x->gossip_port, x->sign_key.v, x->link_key.v);
    }
}

static struct late_file *member_file(struct daemon *d)
{
    AUTO_FREE char *path = path_join(d->cfg.root, "membership.mp");
    if (!d->member_file)
        d->member_file = late_file_new(d->loop, path);
    return d->member_file;
}

int member_save(struct daemon *d, struct err *e)
{
    AUTO_SB struct sb b = { 0 };
    membership_pack(&d->identity, &d->member, &b);
    return late_file_write_now(member_file(d), &b, e);
}

static void save_later(struct daemon *d)
{
    struct sb b;
    membership_pack(&d->identity, &d->member, &b);
    late_file_write(member_file(d), &b);
    d->member_kept_ms = loop_now_ms(d->loop);
}

/* Not by what comes and goes with a machine; its address is what a restart looks for the others at. */
static bool is_same_member(const struct node *a, const struct node *b)
{
    struct node x = *a, y = *b;
    x.status = y.status = (struct node_status){ 0 };
    x.down_since = y.down_since = x.ready_since = y.ready_since = 0;
    return str_equal(a->status.addr, b->status.addr) && node_equal(&x, &y);
}

static bool are_same_members(const struct membership *m, const struct node *v, uint32_t n)
{
    if (m->nodes.n != n)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!is_same_member(&m->nodes.v[i], &v[i]))
            return false;
    return true;
}

void member_take_nodes(struct daemon *d, const struct node *v, uint32_t n, uint64_t index, bool keep)
{
    struct membership old = d->member;
    struct map listed;
    /* The index tells after a restart which certificates are newer than the table: not much older than what was seen. */
    bool aged = index != old.nodes_index && loop_now_ms(d->loop) - d->member_kept_ms >= KEEP_MS;
    keep |= aged || !are_same_members(&old, v, n) || late_file_is_behind(member_file(d));
    map_init(&listed);
    d->member.nodes.v = NULL;
    d->member.nodes.n = 0;
    d->member.nodes_index = index;
    for (uint32_t i = 0; i < n; i++) {
        node_copy(REC_ADD(&d->member.nodes), &v[i]);
        map_put(&listed, v[i].id, d);
    }
    for (uint32_t i = 0; i < old.nodes.n; i++) {
        if (!map_find(&listed, old.nodes.v[i].id) && d->gossip) {
            gossip_forget(d->gossip, old.nodes.v[i].id);
            if (d->agent)
                agent_gossip_state(d->agent, old.nodes.v[i].id, false);
        }
        node_clear(&old.nodes.v[i]);
    }
    free(old.nodes.v);
    map_done(&listed);
    if (d->gossip)
        gossip_members(d);
    if (d->peers)
        peers_update(d->peers);
    if (keep)
        save_later(d);
}

static bool same_nodes(const struct membership *m, const struct node *v, uint32_t n)
{
    if (m->nodes.n != n)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!node_equal(&m->nodes.v[i], &v[i]))
            return false;
    return true;
}

/* A manager sees the node table before its agent is told. */
static void nodes_changed_later(void *arg)
{
    struct daemon *d = arg;
    struct node *v = NULL;
    uint32_t n = 0;
    d->table_due = false;
    if (!d->manager || !d->member.certificate || !store_cluster(manager_store(d->manager)))
        return; /* a restore that is not complete is nobody's business yet */
    pace_begin(&d->table_pace);
    lock_reconcile(d);
    const struct store *s = manager_store(d->manager);
    v = xcalloc(store_count(s, TABLE_NODE) + 1, sizeof *v);
    for (const struct node *x = NULL; (x = store_next(s, TABLE_NODE, x));) {
        node_copy(&v[n], x);
        v[n].version.index = 0;
        v[n++].updated_at = 0;
    }
    if (n && !same_nodes(&d->member, v, n))
        member_take_nodes(d, v, n, store_index(s), false);
    for (uint32_t i = 0; i < n; i++)
        node_clear(&v[i]);
    free(v);
    pace_end(&d->table_pace);
}

static void node_event(void *arg, const struct node *old, const struct node *now)
{
    struct daemon *d = arg;
    if (d->api)
        api_node_event(d->api, old, now);
}

/* Once for all that changes in a turn, or, when the table is big, in a moment. */
void member_nodes_changed(struct daemon *d)
{
    int64_t wait = pace_wait_ms(&d->table_pace);
    if (d->table_due)
        return;
    d->table_due = true;
    if (!wait || !d->table_timer)
        loop_defer(d->loop, nodes_changed_later, d);
    else
        loop_timer_set(d->table_timer, wait);
}

static void nodes_changed(void *arg)
{
    member_nodes_changed(arg);
}

/* ---- hooks of agent and gossip ---- */
static void agent_send(void *arg, const char *node_id, uint8_t type, const void *p, size_t size)
{
    manager_send(arg, node_id, type, p, size);
}

static bool same_keys(const struct membership *m, const struct assignment *a)
{
    if (m->gossip_keys.n != a->gossip_keys.n || m->tunnel_psk.n != a->tunnel_psk.n ||
        (a->tunnel_psk.n && memcmp(m->tunnel_psk.v, a->tunnel_psk.v, a->tunnel_psk.n) != 0))
        return false;
    for (uint32_t i = 0; i < a->gossip_keys.n; i++)
        if (!gossip_key_equal(&m->gossip_keys.v[i], &a->gossip_keys.v[i]))
            return false;
    return true;
}

static void assigned(void *arg, const struct assignment *a)
{
    struct daemon *d = arg;
    /* A manager's own store tells it more of the nodes, and sooner. */
    const struct store *s = d->manager ? manager_store(d->manager) : NULL;
    bool knows = s && store_cluster(s) && store_index(s) >= a->nodes_index;
    if (!knows)
        d->member.nodes_index = MAX(d->member.nodes_index, a->nodes.n ? a->nodes_index : 0);
    bool keys = !same_keys(&d->member, a);
    if (a->nodes.n == 0 || (!keys && knows) || (!keys && same_nodes(&d->member, a->nodes.v, a->nodes.n)))
        return;
    for (uint32_t i = 0; i < d->member.gossip_keys.n; i++)
        gossip_key_clear(&d->member.gossip_keys.v[i]);
    free(d->member.gossip_keys.v);
    d->member.gossip_keys.v = NULL;
    d->member.gossip_keys.n = 0;
    for (uint32_t i = 0; i < a->gossip_keys.n; i++)
        gossip_key_copy(REC_ADD(&d->member.gossip_keys), &a->gossip_keys.v[i]);
    bytes_set(&d->member.tunnel_psk, a->tunnel_psk.v, a->tunnel_psk.n);
    if (!knows) {
        member_take_nodes(d, a->nodes.v, a->nodes.n, a->nodes_index, keys);
        return;
    }
    gossip_members(d);
    save_later(d);
}

/* It is on the disk before the leader hears of it, and then holds for whatever program starts here. */
static uint64_t promise(void *arg, uint64_t format)
{
    struct daemon *d = arg;
    struct err e;
    uint64_t before = d->member.format;
    if (format <= before || CLUSTER_BUG == 26)
        return MAX(before, format);
    d->member.format = format;
    if (member_save(d, &e) < 0) { /* the next HELLO tries again */
        log_warn("%s", e.text);
        d->member.format = before;
    }
    return d->member.format;
}

static void gossip_changed(void *arg, const char *node_id, enum gossip_state state)
{
    struct daemon *d = arg;
    log_info("node %s is %s", node_id, gossip_state_text(state));
    if (d->manager)
        manager_gossip_state(d->manager, node_id, state != GOSSIP_ALIVE);
    if (d->agent)
        agent_gossip_state(d->agent, node_id, state != GOSSIP_ALIVE);
}

static void gossip_refused(void *arg, const char *node_id)
{
    struct daemon *d = arg;
    if (d->manager)
        manager_gossip_refused(d->manager, node_id);
}

static bool gossip_datagram(void *arg, const void *p, size_t size)
{
    struct daemon *d = arg;
    return d->peers && peers_datagram(d->peers, p, size);
}

/* It told so itself; the log will say it as well, but that takes a leader. */
static void gossip_moved(void *arg, const char *node_id, const char *addr)
{
    struct daemon *d = arg;
    log_info("node %s is at %s now", node_id, addr);
    if (d->peers)
        peers_update(d->peers);
}

void member_moved(struct daemon *d, const char *addr)
{
    struct err e;
    log_info("this node is at %s now, it was at %s", addr, d->member.addr);
    if (d->cfg.listen_addr)
        log_warn("the daemon listens only at %s; start it with another --listen, or without", d->cfg.listen_addr);
    str_set(&d->member.addr, addr);
    if (member_save(d, &e) < 0)
        log_warn("%s", e.text);
    gossip_set_address(d->gossip, addr);
    peers_certificate_changed(d->peers, true); /* the links that are up end where nobody is any more */
    agent_address(d->agent, addr);
}

/* ---- start and stop ---- */
static int start_gossip(struct daemon *d, struct err *e)
{
    uint64_t seed;
    struct gossip_config cfg = { .node_id = daemon_node_id(d), .listen_addr = d->cfg.listen_addr, .addr = d->member.addr,
                                 .port = d->cfg.gossip_port, .incarnation = (uint64_t)(clock_real_ns() / MS_NS),
                                 .sign_secret = d->identity.sign_secret.v, .link_secret = d->identity.link_secret.v };
    struct gossip_hooks hooks = { .arg = d, .state = gossip_changed, .address = gossip_moved, .refused = gossip_refused,
                                  .datagram = gossip_datagram };
    crypto_random(&seed, sizeof seed);
    int r = gossip_open(&d->gossip, d->loop, &cfg, NULL, 0, &hooks, seed, e);
    if (r < 0) {
        char why[sizeof e->text];
        memcpy(why, e->text, sizeof why);
        err_set(e, e->code, "%.300s; free it, or start the daemon with another --listen or --gossip-port", why);
    }
    if (r == 0)
        gossip_members(d);
    return r;
}

/* The power failed between the new certificate and the removal of the old log. */
static bool is_of_another_office(const struct manager *m, uint64_t raft_id)
{
    struct raft_status s;
    manager_raft_status(m, &s);
    return s.id && s.id != raft_id;
}

static uint64_t id_of_log(const struct daemon *d)
{
    struct raft_status s;
    manager_raft_status(d->manager, &s);
    return s.id;
}

/* A manager that has lost its log has forgotten what it voted for and acknowledged: it never comes back as itself
 * (consensus.md 1.2), only as a new node. */
static int check_log(const struct daemon *d, struct err *e)
{
    const struct certificate *c = d->member.certificate;
    if (id_of_log(d) || d->member.log_of != c->raft_id || CLUSTER_BUG == 33)
        return 0;
    return err_set(e, E_CORRUPT, "%s/raft held this manager's log, and holds none any more; what this manager has promised is "
                   "forgotten, so it can only come back as a new node: on another manager `shoal node rm --force %s`, then "
                   "here `shoal daemon --clean` and join anew", d->cfg.root, c->node_id);
}

static void note_log(struct daemon *d)
{
    struct err e;
    uint64_t id = id_of_log(d);
    if (!id || d->member.log_of == id) /* 0: a cluster is only just being made */
        return;
    d->member.log_of = id;
    if (member_save(d, &e) < 0)
        log_warn("%s", e.text);
}

static int start_manager(struct daemon *d, bool fresh, struct err *e)
{
    const struct certificate *c = d->member.certificate;
    AUTO_FREE char *dir = path_join(d->cfg.root, "raft");
    if (c->role != ROLE_MANAGER)
        return file_remove_tree(dir, e); /* of an earlier term of office */
    struct raft_config raft = d->cfg.raft;
    raft.election_min_ms = ELECTION_MIN_MS;
    raft.patience_max_ms = PATIENCE_MAX_MS;
    raft.heartbeat_ms = HEARTBEAT_MS;
    struct manager_config cfg = { .dir = dir, .disk_key = d->identity.disk_key.v,
                                  .old_disk_key = d->identity.old_disk_key.n ? d->identity.old_disk_key.v : NULL, .node_id = c->node_id,
                                  .raft_id = c->raft_id, .down_after_ms = d->cfg.down_after_ms, .restart_ms = d->cfg.restart_ms,
                                  .raft = raft };
    struct manager_hooks hooks = { .arg = d, .send = manager_send, .queued = manager_queued, .send_raft = manager_send_raft,
                                   .leader_changed = leader_changed, .nodes_changed = nodes_changed, .n_doubted = n_doubted,
                                   .ask = ask_machine, .node_event = node_event };
    int r = file_mkdirs(dir, 0700, e);
    if (r == 0)
        r = manager_open(&d->manager, d->loop, &cfg, &hooks, e);
    if (r == 0 && is_of_another_office(d->manager, c->raft_id)) {
        manager_close(TAKE(d->manager));
        r = file_remove_tree(dir, e);
        if (r == 0)
            r = file_mkdirs(dir, 0700, e);
        if (r == 0)
            r = manager_open(&d->manager, d->loop, &cfg, &hooks, e);
    }
    if (r == 0)
        r = check_log(d, e);
    if (r == 0 && fresh)
        r = manager_join_raft(d->manager, e);
    if (r == 0)
        note_log(d);
    return r;
}

static int start_agent(struct daemon *d, struct err *e)
{
    const char *managers[64];
    unsigned n = 0;
    AUTO_FREE char *dir = path_join(d->cfg.root, "agent");
    AUTO_FREE char *volumes = path_join(d->cfg.root, "volumes");
    struct agent_config cfg = { .dir = dir, .node_id = daemon_node_id(d) };
    struct agent_hooks hooks = { .arg = d, .send = agent_send, .assigned = assigned, .promise = promise };
    int r = file_mkdirs(dir, 0700, e);
    if (r < 0)
        return r;
    describe_machine(&cfg.hello.description);
    cfg.hello.description.mtu = d->mtu;
    str_set(&cfg.hello.addr, d->member.addr);
    cfg.hello.control_port = d->cfg.control_port;
    cfg.hello.gossip_port = d->cfg.gossip_port;
    cfg.hello.tunnel_port = d->cfg.tunnel_port;
    cfg.hello.formats = (struct node_formats){ FORMAT_LEAST, FORMAT_MOST, d->member.format };
    cfg.hello.role = d->member.certificate->role;
    cfg.hello.raft_id = d->member.certificate->raft_id;
    cfg.hello.not_after = d->member.certificate->not_after;
    cfg.hello.epoch = d->member.certificate->epoch;
    bytes_set(&cfg.hello.ca, d->member.certificate->ca_public.v, d->member.certificate->ca_public.n);
    struct executor_config x = { .runtime = d->runtime, .images = d->images, .overlay = d->overlay, .volumes_dir = volumes,
                                 .node_id = cfg.node_id, .hostname = cfg.hello.description.hostname };
    d->executor = executor_new(d->loop, &x);
    d->agent = agent_new(d->loop, &cfg, &hooks, &executor_ops, d->executor);
    session_hello_clear(&cfg.hello);
    executor_adopt(d->executor, d->agent);
    for (uint32_t i = 0; i < d->member.nodes.n && n < ARRAY_N(managers); i++)
        if (d->member.nodes.v[i].spec.role == ROLE_MANAGER)
            managers[n++] = d->member.nodes.v[i].id;
    agent_start(d->agent, managers, n);
    return 0;
}

/* ---- another certificate: a renewal, or another role ---- */
static void role_changed(void *arg)
{
    struct daemon *d = arg;
    struct err e = { 0 };
    const struct certificate *c = d->member.certificate;
    if (!c || !d->peers)
        return;
    manager_close(TAKE(d->manager));
    if (start_manager(d, true, &e) < 0)
        log_error("%s", e.text);
    peers_certificate_changed(d->peers, true);
    agent_certificate(d->agent, c);
    lock_reconcile(d);
    images_link_up(d, daemon_node_id(d)); /* a tracker here is told as well */
    log_info("this node is a %s from now on", node_role_names[c->role]);
}

static void certificate_renewed(void *arg)
{
    struct daemon *d = arg;
    if (!d->member.certificate || !d->peers)
        return;
    peers_certificate_changed(d->peers, d->relink);
    d->relink = false;
    agent_certificate(d->agent, d->member.certificate);
}

/* By the log, for leaders' clocks differ. */
static bool is_later(const struct certificate *next, const struct certificate *have)
{
    if (next->epoch != have->epoch)
        return next->epoch > have->epoch;
    return next->serial != have->serial ? next->serial > have->serial : next->not_before > have->not_before;
}

void member_certified(struct daemon *d, const void *p, size_t size)
{
    struct err e = { 0 };
    struct certificate next = { 0 }, *have = d->member.certificate;
    int r = have ? rec_unpack(&certificate_rec, &next, p, size, &e) : -E_UNAVAILABLE;
    if (r == 0)
        r = certificate_trust(have, &next, clock_real_ns(), &e);
    if (r == CA_RETIRED)
        r = err_set(&e, E_DENIED, "it is by a cluster key that was replaced");
    if (r >= 0)
        r = certificate_verify(&next, next.ca_public.v, have->link_key.v, &e);
    if (r == 0 && (!str_equal(next.node_id, have->node_id) || !is_later(&next, have)))
        r = -E_STALE; /* sent twice */
    if (r == 0) {
        bool other_role = next.role != have->role || next.raft_id != have->raft_id;
        bool other_epoch = next.epoch != have->epoch;
        struct certificate old = *have;
        uint64_t old_index = d->member.nodes_index;
        *have = next;
        next = old;
        if (other_epoch) /* a restored cluster's log begins anew: the table held is older than all of it */
            d->member.nodes_index = 0;
        r = member_save(d, &e);
        if (r == 0 && other_role) {
            loop_defer(d->loop, role_changed, d);
        } else if (r == 0) {
            log_info("certificate renewed");
            d->relink |= other_epoch;
            loop_defer(d->loop, certificate_renewed, d);
        } else { /* kept as it was: the leader offers it again */
            next = *have;
            *have = old;
            d->member.nodes_index = old_index;
        }
    }
    if (r < 0 && r != -E_STALE)
        log_warn("certificate from the leader: %s", e.text);
    certificate_clear(&next);
}

int member_start(struct daemon *d, bool fresh, struct err *e)
{
    int r = peers_open(d, e);
    d->table_timer = loop_timer_new(d->loop, nodes_changed_later, d);
    if (r == 0)
        r = start_manager(d, fresh, e);
    if (r == 0)
        r = start_agent(d, e);
    if (r == 0)
        r = start_gossip(d, e); /* last: until then its port refuses, by which the others know that this daemon starts */
    if (r < 0) {
        member_stop(d);
        return r;
    }
    if (!d->manager)
        lock_reconcile(d); /* a key of its log may be left: it was a manager until it ended */
    images_open(d);
    address_watch(d);
    log_info("member %s of cluster %s as %s at %s:%u", daemon_node_id(d), d->member.certificate->cluster_id,
             node_role_names[d->member.certificate->role], d->member.addr, d->cfg.control_port);
    return 0;
}

void member_stop(struct daemon *d)
{
    address_unwatch(d);
    images_close(d);
    loop_timer_free(TAKE(d->table_timer));
    d->table_due = false;
    manager_close(TAKE(d->manager)); /* an init or restore under way fails by it, and comes here too */
    agent_free(TAKE(d->agent));
    executor_free(TAKE(d->executor));
    gossip_close(TAKE(d->gossip));
    peers_close(TAKE(d->peers));
    late_file_free(TAKE(d->member_file));
}
