/* Becoming a member and ceasing to be one: init (a cluster of one), join (by token, at any member's address),
 * leave. Until the end of each nothing is on disk, so a failed attempt leaves nothing behind. */
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/model/format.h>
#include <stdio.h>

LOG_MODULE("node");

enum { JOIN_TIMEOUT_MS = 10000, JOIN_AGAIN_MS = 100, REDIRECTS_MAX = 4, LEAVE_ASK_MS = 500, LEAVE_TIMEOUT_MS = 5000, LEAVE_POLL_MS = 20 };
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
struct join {
    struct daemon *d;
    node_done_fn *done;
    void *arg;
    struct join_request req;
    struct strs addrs;
    uint32_t next;
    unsigned redirects;
    struct link *link;
    struct link_config cfg;
    struct loop_timer *timer, *again;
    struct err last;
};

static void join_free(void *arg)
{
    struct join *j = arg;
    link_free(j->link);
    loop_timer_free(j->timer);
    loop_timer_free(j->again);
    join_request_clear(&j->req);
    strs_clear(&j->addrs);
    free(j);
}

static void join_end(struct join *j, const struct err *e)
{
    node_done_fn *done = TAKE(j->done);
    if (!done)
        return;
    loop_timer_set(j->timer, -1);
    loop_timer_set(j->again, -1);
    done(j->arg, e);
    loop_defer(j->d->loop, join_free, j);
}

static int join_verify(void *arg, const uint8_t key[32], const void *payload, size_t size, struct err *e)
{
    struct join *j = arg;
    struct certificate c = { 0 };
    int r = rec_unpack(&certificate_rec, &c, payload, size, e);
    for (uint32_t i = 0; r == 0 && i < c.chain.n; i++)
        if (c.chain.v[i].from.n == 32 && token_pins(j->req.token, c.chain.v[i].from.v))
            r = err_set(e, E_DENIED, "the cluster key was replaced since the token was made");
    if (r == 0 && (c.ca_public.n != 32 || !token_pins(j->req.token, c.ca_public.v)))
        r = err_set(e, E_DENIED, "the token is of another cluster than the node at this address");
    if (r == 0)
        r = certificate_verify(&c, c.ca_public.v, key, e);
    if (r == 0)
        r = certificate_check_time(&c, clock_real_ns(), e);
    certificate_clear(&c);
    return r;
}

static void join_next(void *arg);

static void join_link_up(void *arg, struct link *l)
{
    struct join *j = arg;
    struct sb b;
    sb_init(&b, 0);
    rec_pack(&join_request_rec, &j->req, &b);
    link_send(l, MSG_JOIN, b.s, b.len);
    crypto_wipe(b.s, b.len);
    sb_done(&b);
}

static void admitted(struct join *j, struct join_reply *reply)
{
    struct daemon *d = j->d;
    struct err e = { 0 };
    d->member.certificate = TAKE(reply->certificate);
    str_set(&d->member.addr, reply->addr && *reply->addr ? reply->addr : j->req.addr);
    for (uint32_t i = 0; i < reply->nodes.n; i++)
        node_copy(REC_ADD(&d->member.nodes), &reply->nodes.v[i]);
    for (uint32_t i = 0; i < reply->gossip_keys.n; i++)
        gossip_key_copy(REC_ADD(&d->member.gossip_keys), &reply->gossip_keys.v[i]);
    bytes_set(&d->member.tunnel_psk, reply->tunnel_psk.v, reply->tunnel_psk.n);
    d->member.nodes_index = reply->nodes_index;
    d->member.format = reply->format;
    if (member_save(d, &e) < 0 || member_start(d, true, &e) < 0) {
        forget(d);
        join_end(j, &e);
        return;
    }
    join_end(j, NULL);
}

static void join_message(void *arg, struct link *l, uint8_t type, const void *p, size_t size)
{
    struct join *j = arg;
    struct join_reply reply = { 0 };
    struct err e = { 0 };
    (void)l;
    if (type != MSG_JOIN_REPLY || !j->done)
        return;
    if (rec_unpack(&join_reply_rec, &reply, p, size, &e) < 0) {
        join_end(j, &e);
    } else if (reply.certificate) {
        admitted(j, &reply);
    } else if (reply.leader && j->redirects++ < REDIRECTS_MAX) {
        strs_clear(&j->addrs);
        strs_add(&j->addrs, reply.leader);
        j->next = 0;
        loop_defer(j->d->loop, join_next, j);
    } else if (reply.code == E_UNAVAILABLE) { /* an election: it is over in a moment */
        err_set(&j->last, E_UNAVAILABLE, "%s", reply.error ? reply.error : "no leader");
        j->next = 0;
        loop_timer_set(j->again, JOIN_AGAIN_MS);
    } else {
        err_set(&e, reply.code > 0 && reply.code < E_N ? (int)reply.code : E_UNAVAILABLE, "%s",
                reply.error ? reply.error : "the cluster named one leader after the other; try again");
        join_end(j, &e);
    }
    join_reply_clear(&reply);
}

static void join_down(void *arg, struct link *l, const struct err *e)
{
    struct join *j = arg;
    (void)l;
    if (e)
        j->last = *e;
    if (j->done && j->link)
        loop_defer(j->d->loop, join_next, j);
}

static void join_next(void *arg)
{
    static const struct link_events ev = { join_link_up, join_message, NULL, join_down };
    struct join *j = arg;
    char host[80];
    uint64_t port = 2377;
    if (!j->done)
        return;
    link_free(j->link);
    j->link = NULL;
    if (j->next >= j->addrs.n) {
        struct err e;
        if (j->last.code == E_DENIED)
            err_set(&e, E_DENIED, "cannot join by %s: %.300s; give the address of the token's own cluster, or its token by "
                    "`shoal join-token worker` there", j->addrs.n ? j->addrs.v[j->addrs.n - 1] : "", j->last.text);
        else
            err_set(&e, E_UNAVAILABLE, "cannot join by %s: %s; check that a manager runs there and that TCP port 2377 and UDP "
                "ports 7946 and 4789 are open between the machines", j->addrs.n ? j->addrs.v[j->addrs.n - 1] : "no address",
                j->last.code ? j->last.text : "no answer");
        join_end(j, &e);
        return;
    }
    const char *addr = j->addrs.v[j->next++], *colon = strrchr(addr, ':');
    bool bracket = addr[0] == '[';
    if (colon && (bracket ? colon[-1] == ']' : strchr(addr, ':') == colon)) {
        snprintf(host, sizeof host, "%.*s", (int)(colon - addr) - 2 * bracket, addr + bracket);
        if (!str_u64(colon + 1, 1, 65535, &port)) {
            struct err e;
            err_set(&e, E_INVALID, "\"%s\": the port must be a number from 1 to 65535", addr);
            join_end(j, &e);
            return;
        }
    } else {
        snprintf(host, sizeof host, "%s", addr);
    }
    j->link = link_connect(j->d->loop, host, (uint16_t)port, &j->cfg, &ev, j);
}

static void join_late(void *arg)
{
    struct join *j = arg;
    struct err e;
    err_set(&e, E_TIMEOUT, "no answer from %s within %d s%s%s; check address, port 2377/tcp and that the cluster has a leader",
            j->addrs.n ? j->addrs.v[0] : "", JOIN_TIMEOUT_MS / 1000, j->last.code ? ": " : "", j->last.code ? j->last.text : "");
    join_end(j, &e);
}

void node_start_join(struct daemon *d, const struct node_join *in, node_done_fn *done, void *arg)
{
    struct err e = { 0 };
    uint8_t key[32];
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
    j->d = d;
    j->done = done;
    j->arg = arg;
    str_set(&j->req.token, in->token);
    str_set(&j->req.addr, addr);
    sign_public(&d->identity, key);
    bytes_set(&j->req.sign_key, key, 32);
    crypto_dh_public(key, d->identity.tunnel_secret.v);
    bytes_set(&j->req.tunnel_key, key, 32);
    j->req.control_port = d->cfg.control_port;
    j->req.gossip_port = d->cfg.gossip_port;
    j->req.tunnel_port = d->cfg.tunnel_port;
    j->req.availability = in->availability;
    j->req.never_manager = in->never_manager;
    j->req.formats = (struct node_formats){ .least = FORMAT_LEAST, .most = FORMAT_MOST };
    describe_machine(&j->req.description);
    for (uint32_t i = 0; i < in->remote_addrs.n; i++)
        strs_add(&j->addrs, in->remote_addrs.v[i]);
    j->cfg = (struct link_config){ .dh_secret = d->identity.link_secret.v, .payload = "", .verify = join_verify, .arg = j };
    j->timer = loop_timer_new(d->loop, join_late, j);
    j->again = loop_timer_new(d->loop, join_next, j);
    loop_timer_set(j->timer, JOIN_TIMEOUT_MS);
    join_next(j);
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
