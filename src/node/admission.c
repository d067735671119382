/* Becoming a member and ceasing to be one: init (a cluster of one), join (by token, at any member's address),
 * leave. Until the end of each nothing is on disk, so a failed attempt leaves nothing behind. */
#include "joiner.h"
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/model/format.h>
#include <stdio.h>

LOG_MODULE("node");

enum { LEAVE_ASK_MS = 500, LEAVE_TIMEOUT_MS = 5000, LEAVE_POLL_MS = 20 };
#define CERTIFICATE_LIFE_NS (90 * 24 * 3600 * SEC_NS)

static void fail(node_done_fn *done, void *arg, int code, const char *fmt, const char *text)
{
    struct err e;
    err_set(&e, code, fmt, text);
    done(arg, &e);
}

static void refuse_locked(node_done_fn *done, void *arg)
{
    fail(done, arg, E_UNAVAILABLE, "this node is a locked manager of a cluster; unlock it first with `shoal %s`; if the key is lost, "
         "stop the daemon, run `shoal daemon --clean` and join it anew", "unlock");
}

static void sign_public(const struct identity *id, uint8_t out[32])
{
    memcpy(out, id->sign_secret.v + 32, 32); /* Ed25519 secret keys end with the public one */
}

static void fill_self(struct daemon *d, struct node *n, const char *addr, int availability)
{
    uint8_t key[32];
    describe_machine(&n->description);
    n->spec.availability = availability;
    n->status.state = NODE_READY;
    str_set(&n->status.addr, addr);
    crypto_dh_public(key, d->identity.link_secret.v);
    bytes_set(&n->link_key, key, 32);
    sign_public(&d->identity, key);
    bytes_set(&n->sign_key, key, 32);
    crypto_dh_public(key, d->identity.tunnel_secret.v);
    bytes_set(&n->tunnel_key, key, 32);
    n->control_port = d->cfg.control_port;
    n->gossip_port = d->cfg.gossip_port;
    n->tunnel_port = d->cfg.tunnel_port;
    n->formats = (struct node_formats){ FORMAT_LEAST, FORMAT_MOST, FORMAT_MOST };
}

/* ---- init ---- */
struct init { struct daemon *d; node_done_fn *done; void *arg; };

static void make_cluster(struct cluster *c, const struct node_init *in, uint16_t data_port)
{
    char id[26], token[128];
    uint8_t public[32], secret[64];
    id_random(id);
    str_set(&c->id, id);
    str_set(&c->spec.name, "default");
    c->spec.orchestration.history = 5;
    c->spec.raft = (struct raft_spec){ 10000, 0, 500, 10, 1 };
    c->spec.dispatcher.heartbeat = 5 * SEC_NS;
    c->spec.ca.node_cert_expiry = CERTIFICATE_LIFE_NS;
    c->data_port = data_port;
    c->spec.encryption.autolock = in->autolock;
    if (in->address_pools.n)
        for (uint32_t i = 0; i < in->address_pools.n; i++)
            strs_add(&c->pools, in->address_pools.v[i]);
    else
        strs_add(&c->pools, "10.0.0.0/8");
    c->subnet_size = in->subnet_size ? in->subnet_size : 24;
    str_set(&c->managers, in->managers);
    c->replace_after = in->replace_after;
    crypto_sign_keypair(public, secret);
    bytes_set(&c->ca_public, public, 32);
    bytes_set(&c->ca_secret, secret, 64);
    c->tokens = xnew(struct join_tokens);
    token_make(token, public);
    str_set(&c->tokens->worker, token);
    token_make(token, public);
    str_set(&c->tokens->manager, token);
    struct gossip_key *k = REC_ADD(&c->gossip_keys);
    k->id = 1;
    crypto_random(secret, 32);
    bytes_set(&k->key, secret, 32);
    c->keys_at = clock_real_ns();
    crypto_random(secret, 32);
    bytes_set(&c->tunnel_psk, secret, 32);
    if (in->autolock) {
        crypto_random(secret, 32);
        bytes_set(&c->unlock_key, secret, 32);
    }
    crypto_wipe(secret, sizeof secret);
    c->next_vni = 4096;
    c->next_tunnel_addr = 1;
    c->format = FORMAT_MOST;
}

static void certify_self(struct daemon *d, const struct cluster *c, const struct node *n)
{
    struct certificate *cert = d->member.certificate = xnew(struct certificate);
    int64_t now = clock_real_ns();
    d->member.format = cluster_format(c);
    str_set(&cert->cluster_id, c->id);
    str_set(&cert->node_id, n->id);
    cert->role = ROLE_MANAGER;
    cert->raft_id = n->raft_id;
    cert->epoch = c->epoch;
    cert->serial = 1; /* the first state of its log */
    bytes_set(&cert->link_key, n->link_key.v, 32);
    bytes_set(&cert->sign_key, n->sign_key.v, 32);
    bytes_set(&cert->ca_public, c->ca_public.v, 32);
    for (uint32_t i = 0; i < c->ca_chain.n; i++)
        ca_link_copy(REC_ADD(&cert->chain), &c->ca_chain.v[i]);
    cert->not_before = now;
    cert->not_after = now + CERTIFICATE_LIFE_NS;
    certificate_sign(cert, c->ca_secret.v);
}

static void forget(struct daemon *d)
{
    member_stop(d);
    rec_clear(&membership_rec, &d->member);
    membership_remove(d->cfg.root);
}

static void on_initialized(void *arg, int result, const struct err *e)
{
    struct init *i = arg;
    struct err err = { 0 };
    if (result == 0)
        i->d->member.log_of = i->d->member.certificate->raft_id;
    if (result < 0) {
        err = *e;
        forget(i->d);
    } else if (member_save(i->d, &err) < 0) {
        forget(i->d);
    }
    i->done(i->arg, err.code ? &err : NULL);
    free(i);
}

void node_start_init(struct daemon *d, const struct node_init *in, node_done_fn *done, void *arg)
{
    struct err e = { 0 };
    char addr[64], id[26];
    struct cluster c = { 0 };
    struct node n = { 0 };
    if (d->locked) {
        refuse_locked(done, arg);
        return;
    }
    if (d->member.certificate) {
        fail(done, arg, E_UNAVAILABLE, "this node is already part of a cluster; leave it first with `shoal leave%s`", " --force");
        return;
    }
    if (advertise_address(in->advertise_addr, addr, &e) < 0) {
        done(arg, &e);
        return;
    }
    make_cluster(&c, in, d->cfg.tunnel_port);
    id_random(id);
    str_set(&n.id, id);
    n.spec.role = ROLE_MANAGER;
    n.raft_id = raft_id_random();
    fill_self(d, &n, addr, in->availability);
    certify_self(d, &c, &n);
    str_set(&d->member.addr, addr);
    node_copy(REC_ADD(&d->member.nodes), &n);
    gossip_key_copy(REC_ADD(&d->member.gossip_keys), &c.gossip_keys.v[0]);
    bytes_set(&d->member.tunnel_psk, c.tunnel_psk.v, 32);
    if (member_start(d, false, &e) < 0) {
        forget(d);
        done(arg, &e);
    } else {
        struct init *i = xnew(struct init);
        *i = (struct init){ d, done, arg };
        manager_init_cluster(d->manager, &c, &n, on_initialized, i);
    }
    cluster_clear(&c);
    node_clear(&n);
}

/* ---- restore: init with the state of a backup ---- */
static void on_restored(void *arg, int result, const struct err *e)
{
    struct init *i = arg;
    struct daemon *d = i->d;
    on_initialized(i, result, e);
    if (d->member.certificate)
        member_nodes_changed(d);
}

static int begin_restore(struct daemon *d, struct node_restore *in, struct cluster *c, struct node *n, struct err *e)
{
    char addr[64], id[26];
    if (d->member.certificate)
        return err_set(e, E_UNAVAILABLE, "this node is already part of a cluster; a backup is restored on a machine that is in none");
    int r = advertise_address(in->advertise_addr, addr, e);
    if (r < 0)
        return r;
    id_random(id);
    str_set(&n->id, id);
    fill_self(d, n, addr, AVAIL_ACTIVE);
    r = backup_state_finish(in->state, n, in->wait_ns, c, e);
    if (r < 0)
        return r;
    certify_self(d, c, n);
    str_set(&d->member.addr, addr);
    node_copy(REC_ADD(&d->member.nodes), n);
    for (uint32_t i = 0; i < c->gossip_keys.n; i++)
        gossip_key_copy(REC_ADD(&d->member.gossip_keys), &c->gossip_keys.v[i]);
    bytes_set(&d->member.tunnel_psk, c->tunnel_psk.v, c->tunnel_psk.n);
    r = member_start(d, false, e);
    if (r < 0)
        forget(d);
    return r;
}

void node_start_restore(struct daemon *d, struct node_restore *in, node_done_fn *done, void *arg)
{
    struct err e = { 0 };
    struct cluster c = { 0 };
    struct node n = { 0 };
    if (begin_restore(d, in, &c, &n, &e) < 0) {
        backup_state_free(TAKE(in->state));
        done(arg, &e);
    } else {
        struct init *i = xnew(struct init);
        *i = (struct init){ d, done, arg };
        manager_restore_cluster(d->manager, TAKE(in->state), on_restored, i);
    }
    cluster_clear(&c);
    node_clear(&n);
}

/* ---- join ---- */
struct join { struct daemon *d; node_done_fn *done; node_progress_fn *progress; void *arg; char *addr; };

static void join_progress(void *arg, const char *line)
{
    struct join *j = arg;
    log_info("join: %s", line);
    if (j->progress)
        j->progress(j->arg, line);
}

static int become_member(struct daemon *d, const char *addr, struct join_reply *reply, struct err *e)
{
    d->member.certificate = TAKE(reply->certificate);
    str_set(&d->member.addr, reply->addr && *reply->addr ? reply->addr : addr);
    for (uint32_t i = 0; i < reply->nodes.n; i++)
        node_copy(REC_ADD(&d->member.nodes), &reply->nodes.v[i]);
    for (uint32_t i = 0; i < reply->gossip_keys.n; i++)
        gossip_key_copy(REC_ADD(&d->member.gossip_keys), &reply->gossip_keys.v[i]);
    bytes_set(&d->member.tunnel_psk, reply->tunnel_psk.v, reply->tunnel_psk.n);
    d->member.nodes_index = reply->nodes_index;
    d->member.format = reply->format;
    int r = member_save(d, e);
    return r < 0 ? r : member_start(d, true, e);
}

static void join_done(void *arg, struct join_reply *reply, const struct err *why)
{
    struct join *j = arg;
    struct err e = { 0 };
    if (!reply)
        e = *why;
    else if (j->d->member.certificate) /* by another request meanwhile */
        err_set(&e, E_CONFLICT, "this node became part of a cluster by another request meanwhile");
    else if (become_member(j->d, j->addr, reply, &e) < 0)
        forget(j->d);
    j->done(j->arg, e.code ? &e : NULL);
    free(j->addr);
    free(j);
}

void node_start_join(struct daemon *d, const struct node_join *in, node_done_fn *done, void *arg)
{
    struct err e = { 0 };
    uint8_t key[32];
    uint64_t seed;
    char addr[64] = "";
    if (d->locked) {
        refuse_locked(done, arg);
        return;
    }
    if (d->member.certificate)
        err_set(&e, E_UNAVAILABLE, "this node is already part of a cluster; leave it first with `shoal leave`");
    else if (!token_is_well_formed(in->token))
        err_set(&e, E_INVALID, "the join token is malformed; copy the whole line that `shoal join-token worker` prints");
    else if (in->remote_addrs.n == 0)
        err_set(&e, E_INVALID, "give the address of a manager: shoal join --token TOKEN ADDR:2377");
    if (e.code || advertise_address(in->advertise_addr, addr, &e) < 0) {
        done(arg, &e);
        return;
    }
    struct join *j = xnew(struct join);
    *j = (struct join){ d, done, in->progress, arg, xstrdup(addr) };
    struct join_request req = { .token = in->token, .addr = addr, .control_port = d->cfg.control_port,
                                .gossip_port = d->cfg.gossip_port, .tunnel_port = d->cfg.tunnel_port,
                                .availability = in->availability, .never_manager = in->never_manager,
                                .formats = { .least = FORMAT_LEAST, .most = FORMAT_MOST } };
    sign_public(&d->identity, key);
    bytes_set(&req.sign_key, key, 32);
    crypto_dh_public(key, d->identity.tunnel_secret.v);
    bytes_set(&req.tunnel_key, key, 32);
    describe_machine(&req.description);
    crypto_random(&seed, sizeof seed);
    const struct joiner_hooks hooks = { j, join_progress, join_done };
    joiner_start(d->loop, d->identity.link_secret.v, &req, &in->remote_addrs, seed, &hooks);
    req.token = req.addr = NULL; /* borrowed */
    join_request_clear(&req);
}

/* ---- leave ---- */
struct leave {
    node_done_fn *done;
    void *arg;
    bool force, acknowledged;
    int64_t until_ms, ask_ms;
};

static void left(struct daemon *d)
{
    struct leave *l = TAKE(d->leave);
    member_stop(d);
    rec_clear(&membership_rec, &d->member);
    membership_remove(d->cfg.root);
    overlay_clear(d->overlay);
    d->overlay = NULL;
    d->lock = (struct lock){ 0 };
    d->rekey_pending = false;
    struct err e = { 0 };
    if (identity_renew(d->cfg.root, &d->identity, &e) < 0) /* who joins after a farewell is a new node */
        log_warn("%s", e.text);
    int r = daemon_overlay_open(d, &e);
    log_info("left the cluster");
    l->done(l->arg, r < 0 ? &e : NULL);
    free(l);
}

static void goodbye_said(void *arg)
{
    left(arg);
}

/* A manager stays until the others have voted it out, so that their quorum is right when it goes. */
static bool voted_out(const struct daemon *d)
{
    struct raft_status s;
    if (!d->manager)
        return true;
    manager_raft_status(d->manager, &s);
    return s.removed || !s.voter;
}

static void leave_step(void *arg)
{
    struct daemon *d = arg;
    int64_t now = loop_now_ms(d->loop);
    const char *leader = d->manager ? manager_leader_id(d->manager) : d->agent ? agent_leader_id(d->agent) : NULL;
    bool over = now >= d->leave->until_ms;
    if (!over && !(d->leave->acknowledged && voted_out(d))) {
        if (leader && !d->leave->acknowledged && now >= d->leave->ask_ms) {
            peers_send(d->peers, leader, MSG_LEAVE, "", 0);
            d->leave->ask_ms = now + LEAVE_ASK_MS;
        }
        loop_timer_set(d->leave_timer, LEAVE_POLL_MS);
        return;
    }
    if (over)
        log_warn("left without the cluster's consent: no leader answered");
    gossip_leave(d->gossip, goodbye_said, d);
}

void leave_acknowledged(struct daemon *d)
{
    if (d->leave)
        d->leave->acknowledged = true;
}

static void tasks_gone(void *arg)
{
    struct daemon *d = arg;
    bool alone = d->member.nodes.n <= 1;
    d->leave->until_ms = loop_now_ms(d->loop) + (alone ? 0 : LEAVE_TIMEOUT_MS);
    if (!d->leave_timer)
        d->leave_timer = loop_timer_new(d->loop, leave_step, d);
    loop_timer_set(d->leave_timer, 0);
}

void node_start_leave(struct daemon *d, bool force, node_done_fn *done, void *arg)
{
    if (d->locked) {
        refuse_locked(done, arg);
        return;
    }
    if (!d->member.certificate) {
        fail(done, arg, E_UNAVAILABLE, "this node is not part of a %s", "cluster");
        return;
    }
    if (d->leave) {
        fail(done, arg, E_BUSY, "the node is leaving %s", "already");
        return;
    }
    if (d->manager && !force) {
        struct err e = { 0 };
        bool may = manager_may_leave(d->manager, &e) == 0;
        fail(done, arg, E_UNAVAILABLE, may ? "this node is a manager: the cluster's state lives on managers, and the others can go on "
             "without it; leave with `shoal leave --force` if that is meant%s"
             : "this node is a manager: %.330s; `shoal leave --force` goes all the same, the cluster then needs `shoal recover`",
             e.text);
        return;
    }
    d->leave = xnew(struct leave);
    d->leave->done = done;
    d->leave->arg = arg;
    agent_leave(d->agent, tasks_gone, d);
}
