/* Links to the other nodes. A manager keeps a link to every manager, a worker to every manager; others come in.
 * Who is at the other end is said by the certificate of the handshake, never by the address. A link without
 * certificate may only ask to join. */
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/list.h>
#include <stdio.h>

LOG_MODULE("peers");

/* JOINERS_MAX: links that have shown no certificate. With STRANGER_BYTES each may have sent, they hold 64 MiB at worst. Beyond
 * that the next ones wait in the kernel's queue, and those that are none after a while, and are not about to be admitted, give place. */
enum { JOINERS_MAX = 1024, STRANGER_BYTES = 64 << 10, STRANGER_IDLE_MS = 2000, CROWD_MS = 100 };
enum { RETRY_MIN_MS = 50, RETRY_MAX_MS = 1000, RETRY_UNHEARD_MS = 5000, SILENT_MS = 600, LEADER_SILENT_MS = 100,
       REACH_MS = 5000, IDLE_MS = 30000, REACHES_MAX = 4096 };

struct end { /* one link */
    struct list_node node;
    struct list_node stranger; /* no certificate seen yet; oldest first */
    int64_t born_ms;
    struct link_config cfg;
    struct peers *ps;
    struct link *l;
    struct certificate cert; /* node_id NULL: a joiner */
    struct peer *peer;       /* outgoing: whom we called */
    bool outgoing, up, joining, gone;
    bool retired;            /* its certificate is by an earlier cluster key */
    bool complained;         /* of what it had no right to send: once is enough */
    int64_t used_ms;         /* when a channel of it was seen */
};
struct reaching { /* a channel that waits for a link */
    struct list_node node;
    struct peers *ps;
    char *id;
    uint8_t service;
    peers_reached_fn *fn;
    void *arg;
    int64_t until_ms;
};
struct peer {
    struct peers *ps;
    char *id, *addr;
    uint16_t port;
    struct end *calling;     /* outgoing, up or not yet */
    struct loop_timer *retry;
    int64_t wait_ms;
    bool manager, known;     /* manager: called whenever there is no link */
    bool unheard;            /* called too, by managers: it has not learnt of the restored cluster yet */
};
struct self_message { struct peers *ps; uint8_t type; size_t size; uint8_t bytes[]; };
struct peers {
    struct daemon *d;
    struct map peers; /* node id -> struct peer */
    struct map up;    /* node id -> struct end, the link with it that came up last */
    struct list_node ends, strangers, carried, reaching;
    unsigned n_reaching;
    bool crowded;             /* the timer runs */
    struct loop_timer *crowd; /* looks at the strangers while no more are let in */
    struct loop_timer *look; /* at links that nothing uses, and at who was not reached */
    unsigned n_joiners;
    char *leader; /* the last one known */
    struct stream_listener *listener;
    struct relay *relay;
    bool closing;
};

int certificate_of_peer(const struct certificate *own, const uint8_t key[32], const void *p, size_t size, int64_t now_ns,
                        struct certificate *ret, struct err *e)
{
    int r = rec_unpack(&certificate_rec, ret, p, size, e);
    if (r < 0)
        return err_wrap(e, "certificate");
    int trust = certificate_trust(own, ret, now_ns, e);
    if (trust < 0)
        return trust;
    r = certificate_verify(ret, ret->ca_public.v, key, e);
    return r < 0 ? r : trust;
}

/* The newer of the two node tables that a manager may hold; others hold one. */
static struct authority_view view_of(const struct daemon *d, const struct certificate *c)
{
    struct authority_view v = { .index = d->member.nodes_index, .epoch = d->member.certificate->epoch };
    const struct store *s = d->manager ? manager_store(d->manager) : NULL;
    if (s && store_cluster(s) && store_index(s) >= v.index) {
        v.index = store_index(s);
        v.entry = store_find(s, TABLE_NODE, c->node_id);
        return v;
    }
    for (uint32_t i = 0; i < d->member.nodes.n && !v.entry; i++)
        if (str_equal(d->member.nodes.v[i].id, c->node_id))
            v.entry = &d->member.nodes.v[i];
    return v;
}

static unsigned rights_of(const struct end *x)
{
    const struct daemon *d = x->ps->d;
    if (!x->cert.node_id)
        return x->outgoing ? 0 : RIGHT_JOIN;
    struct authority_view v = view_of(d, &x->cert);
    v.voter = d->manager && x->cert.raft_id && manager_counts(d->manager, x->cert.raft_id);
    return authority_rights(&x->cert, x->retired, &v);
}

static int check_peer(struct end *x, struct err *e)
{
    struct authority_view v = view_of(x->ps->d, &x->cert);
    int r = authority_admit(&x->cert, x->retired, &v, clock_real_ns(), e);
    if (r == 0 && x->peer && !str_equal(x->peer->id, x->cert.node_id))
        r = err_set(e, E_DENIED, "node %s answers at the address of %s", x->cert.node_id, x->peer->id);
    return r;
}

static void no_stranger(struct end *x)
{
    x->ps->n_joiners--;
    x->cfg.message_max = 0;
    list_remove(&x->stranger);
    if (!x->ps->closing)
        stream_listener_pause(x->ps->listener, false);
}

static int on_verify(void *arg, const uint8_t key[32], const void *payload, size_t size, struct err *e)
{
    struct end *x = arg;
    struct daemon *d = x->ps->d;
    if (size == 0 && !x->outgoing) /* wants to join */
        return 0;
    int r = certificate_of_peer(d->member.certificate, key, payload, size, clock_real_ns(), &x->cert, e);
    x->retired = r == CA_RETIRED;
    if (r >= 0)
        r = check_peer(x, e);
    if (r < 0)
        certificate_clear(&x->cert);
    else if (!x->outgoing)
        no_stranger(x);
    return r;
}

/* ---- messages in: allowed ones only (authority.h) ---- */
static void deliver(struct peers *ps, const struct certificate *from, uint8_t type, const void *p, size_t size)
{
    struct daemon *d = ps->d;
    switch (type) {
    case MSG_RAFT:
        if (d->manager && from->raft_id)
            manager_got_raft(d->manager, from->raft_id, p, size);
        break;
    case MSG_HELLO:
    case MSG_REPORT:
    case MSG_IN_FORCE:
    case MSG_LEAVE:
        if (d->manager)
            manager_got_message(d->manager, from->node_id, type, p, size);
        break;
    case MSG_LEADER:
    case MSG_NODES:
    case MSG_ASSIGNMENT:
    case MSG_REPORT_ACK:
        if (d->agent)
            agent_got_message(d->agent, from->node_id, type, p, size);
        break;
    case MSG_CERTIFICATE:
        member_certified(d, p, size);
        break;
    case MSG_HELD:
        images_held(d, from->node_id, p, size);
        break;
    case MSG_LEAVE_OK:
        leave_acknowledged(d);
        break;
    default:
        break;
    }
}

static void deliver_self(void *arg)
{
    struct self_message *m = arg;
    struct daemon *d = m->ps->d;
    const struct certificate *c = d->member.certificate;
    if (c && !m->ps->closing) /* ps is freed after all that was deferred before */
        deliver(m->ps, c, m->type, m->bytes, m->size);
    crypto_wipe(m->bytes, m->size);
    free(m);
}

/* ---- joining nodes ---- */
static void end_free(void *arg)
{
    struct end *x = arg;
    certificate_clear(&x->cert);
    free(x);
}

static void on_admission(void *arg, const struct join_reply *reply)
{
    struct end *x = arg;
    struct sb b;
    x->joining = false;
    if (x->gone) {
        end_free(x);
        return;
    }
    sb_init(&b, 0);
    rec_pack(&join_reply_rec, reply, &b);
    if (link_send(x->l, MSG_JOIN_REPLY, b.s, b.len) < 0)
        log_warn("the answer to a joining node was lost");
    crypto_wipe(b.s, b.len);
    sb_done(&b);
}

static void redirect(struct end *x)
{
    struct join_reply reply = { 0 };
    const struct daemon *d = x->ps->d;
    const char *leader = d->agent ? agent_leader_id(d->agent) : NULL;
    for (uint32_t i = 0; i < d->member.nodes.n; i++) {
        const struct node *n = &d->member.nodes.v[i];
        bool fits = leader ? str_equal(n->id, leader) : n->spec.role == ROLE_MANAGER;
        if (fits && !reply.leader && n->status.addr)
            reply.leader = xasprintf("%s:%u", n->status.addr, (unsigned)n->control_port);
    }
    if (!reply.leader) {
        reply.code = E_UNAVAILABLE;
        str_set(&reply.error, "this node knows no manager now; join by the address of a manager");
    }
    on_admission(x, &reply);
    join_reply_clear(&reply);
}

static void on_join(struct end *x, const void *p, size_t size)
{
    struct join_request req = { 0 };
    struct err e;
    if (x->joining || rec_unpack(&join_request_rec, &req, p, size, &e) < 0)
        return;
    x->joining = true;
    if (x->ps->d->manager)
        manager_join(x->ps->d->manager, &req, req.addr ? req.addr : "", link_peer_key(x->l), on_admission, x);
    else
        redirect(x);
    join_request_clear(&req);
}

/* ---- links ---- */
static struct end *end_for(const struct peers *ps, const char *node_id)
{
    return node_id ? map_find(&ps->up, node_id) : NULL;
}

static void call_again(struct peer *p)
{
    if (p->ps->closing || (!p->manager && !p->unheard))
        return;
    loop_timer_set(p->retry, p->wait_ms);
    p->wait_ms = MIN(p->wait_ms * 2, p->manager ? (int64_t)RETRY_MAX_MS : (int64_t)RETRY_UNHEARD_MS);
}

static void reached(struct peers *ps, const char *id);

static void on_up(void *arg, struct link *l)
{
    struct end *x = arg;
    (void)l;
    x->up = true;
    if (x->cert.node_id)
        map_put(&x->ps->up, x->cert.node_id, x);
    x->used_ms = loop_now_ms(x->ps->d->loop);
    if (x->peer)
        x->peer->wait_ms = RETRY_MIN_MS;
    if (x->cert.node_id && x->ps->d->agent)
        agent_link_up(x->ps->d->agent, x->cert.node_id);
    if (x->cert.node_id && x->ps->d->manager)
        manager_link_up(x->ps->d->manager, x->cert.node_id);
    if (x->cert.node_id)
        images_link_up(x->ps->d, x->cert.node_id);
    if (x->cert.node_id)
        reached(x->ps, x->cert.node_id);
}

static void on_relay(struct peers *ps, const char *carrier_id, const void *p, size_t size);
static void carry_channel(struct peers *ps, struct stream *s);

static void complain(struct end *x, const char *what, unsigned number)
{
    if (!x->complained && x->cert.role == ROLE_MANAGER)
        log_info("%s %u of %s comes too late: it is no manager any more", what, number, x->cert.node_id);
    else if (!x->complained)
        log_warn("%s %u of %s is refused, and what else it has no right to", what, number,
                 x->cert.node_id ? x->cert.node_id : "a joiner");
    x->complained = true;
}

static void on_message(void *arg, struct link *l, uint8_t type, const void *p, size_t size)
{
    struct end *x = arg;
    (void)l;
    if (!authority_allows(rights_of(x), type)) {
        complain(x, "message", type);
        return;
    }
    if (type == MSG_JOIN) {
        on_join(x, p, size);
        return;
    }
    struct certificate from = { 0 }; /* x may be gone before this is over */
    from.node_id = xstrdup(x->cert.node_id);
    from.raft_id = x->cert.raft_id;
    if (type == MSG_RELAY)
        on_relay(x->ps, from.node_id, p, size);
    else
        deliver(x->ps, &from, type, p, size);
    certificate_clear(&from);
}

static void on_channel(void *arg, struct link *l, uint8_t service, struct stream *s)
{
    struct end *x = arg;
    (void)l;
    if (!authority_allows_channel(rights_of(x), service)) {
        complain(x, "channel", service);
        stream_free(s);
    } else if (service == CHANNEL_API && x->ps->d->api) {
        api_serve_peer(x->ps->d->api, s, true);
    } else if (service == CHANNEL_IMAGES) {
        images_channel(x->ps->d, x->cert.node_id, s);
    } else if (service == CHANNEL_CARRY && x->ps->d->manager) {
        carry_channel(x->ps, s);
    } else {
        stream_free(s);
    }
}

/* The node may be reached by another link of it. */
static void not_up(struct end *x)
{
    struct peers *ps = x->ps;
    struct end *y, *other = NULL;
    if (!x->cert.node_id || map_find(&ps->up, x->cert.node_id) != x)
        return;
    list_for(y, &ps->ends, node)
        if (y != x && y->up && str_equal(y->cert.node_id, x->cert.node_id))
            other = y;
    if (other)
        map_put(&ps->up, x->cert.node_id, other);
    else
        map_remove(&ps->up, x->cert.node_id);
}

static void drop_end(struct end *x)
{
    if (!x->outgoing && !x->cert.node_id)
        no_stranger(x);
    list_remove(&x->node);
    not_up(x);
    link_free(x->l);
    x->l = NULL;
    x->gone = true;
    if (x->peer && x->peer->calling == x)
        x->peer->calling = NULL;
    if (!x->joining)
        end_free(x);
}

static void link_gone(struct peers *ps, const char *id)
{
    if (ps->d->manager)
        manager_link_gone(ps->d->manager, id);
    images_node_gone(ps->d, id);
}

static void on_down(void *arg, struct link *l, const struct err *e)
{
    struct end *x = arg;
    struct peer *p = x->peer;
    struct peers *ps = x->ps;
    AUTO_FREE char *was_up = x->up && x->cert.node_id ? xstrdup(x->cert.node_id) : NULL;
    (void)l;
    log_debug("link %s %s: %s", x->outgoing ? "to" : "from", p ? p->id : x->cert.node_id ? x->cert.node_id : "joiner",
              e ? e->text : "closed");
    drop_end(x);
    if (p)
        call_again(p);
    if (p && !p->calling)
        reached(ps, p->id); /* it was not */
    if (was_up && !end_for(ps, was_up))
        link_gone(ps, was_up);
}

static const struct link_events link_events = { on_up, on_message, on_channel, on_down };

static struct end *end_new(struct peers *ps, struct peer *p)
{
    struct daemon *d = ps->d;
    struct end *x = xnew(struct end);
    x->ps = ps;
    x->peer = p;
    x->outgoing = p != NULL;
    x->born_ms = loop_now_ms(d->loop);
    x->cfg = (struct link_config){ .dh_secret = d->identity.link_secret.v, .payload = d->packed_certificate.s,
                                   .payload_size = d->packed_certificate.len, .verify = on_verify, .arg = x };
    list_push_back(&ps->ends, &x->node);
    return x;
}

static void call(void *arg)
{
    struct peer *p = arg;
    struct peers *ps = p->ps;
    if (ps->closing || p->calling || !p->addr || !p->port)
        return;
    struct end *x = end_new(ps, p);
    p->calling = x;
    x->l = link_connect(ps->d->loop, p->addr, p->port, &x->cfg, &link_events, x);
}

static void on_accept(void *arg, struct stream *s)
{
    struct peers *ps = arg;
    struct end *x = end_new(ps, NULL);
    if (++ps->n_joiners >= JOINERS_MAX) { /* until its certificate is seen */
        stream_listener_pause(ps->listener, true);
        if (!ps->crowded)
            loop_timer_set(ps->crowd, CROWD_MS);
        ps->crowded = true;
    }
    x->cfg.message_max = STRANGER_BYTES;
    list_push_back(&ps->strangers, &x->stranger);
    x->l = link_accept(ps->d->loop, s, &x->cfg, &link_events, x);
}

/* Those whose admission is under way are not idle. */
static void look_at_crowd(void *arg)
{
    struct peers *ps = arg;
    struct end *x;
    int64_t now = loop_now_ms(ps->d->loop);
    ps->crowded = ps->n_joiners >= JOINERS_MAX;
    if (!ps->crowded)
        return;
    list_for(x, &ps->strangers, stranger)
        if (!x->joining && now - x->born_ms >= STRANGER_IDLE_MS)
            drop_end(x);
    ps->crowded = ps->n_joiners >= JOINERS_MAX;
    if (ps->crowded)
        loop_timer_set(ps->crowd, CROWD_MS);
}

static struct peer *peer_get(struct peers *ps, const char *id)
{
    struct peer *p = map_find(&ps->peers, id);
    if (p)
        return p;
    p = xnew(struct peer);
    p->ps = ps;
    p->id = xstrdup(id);
    p->wait_ms = RETRY_MIN_MS;
    p->retry = loop_timer_new(ps->d->loop, call, p);
    map_put(&ps->peers, id, p);
    return p;
}

void peers_send(struct peers *ps, const char *node_id, uint8_t type, const void *bytes, size_t size)
{
    if (str_equal(node_id, daemon_node_id(ps->d))) {
        struct self_message *m = xcalloc(1, sizeof *m + size);
        m->ps = ps;
        m->type = type;
        m->size = size;
        memcpy(m->bytes, bytes, size);
        loop_defer(ps->d->loop, deliver_self, m);
        return;
    }
    struct end *x = end_for(ps, node_id);
    if (x) {
        int r = link_send(x->l, type, bytes, size);
        if (r < 0 && r != -E_CLOSED)
            log_debug("message %u to %s lost: %s", type, node_id, err_text(r));
        return;
    }
    struct peer *p = map_find(&ps->peers, node_id);
    if (p && !p->calling)
        call(p); /* this one is lost; there will be others */
}

size_t peers_queued(struct peers *ps, const char *node_id)
{
    const struct end *x = end_for(ps, node_id);
    return x ? link_queued(x->l) : 0;
}

/* ---- Raft ---- */

/* A manager that was heard of lately, to carry for us; not `but`. */
static struct end *carrier(struct peers *ps, const char *but)
{
    struct end *x, *best = NULL;
    list_for(x, &ps->ends, node)
        if (x->up && x->cert.node_id && x->cert.role == ROLE_MANAGER && !str_equal(x->cert.node_id, but) &&
            (!best || link_heard_ms(x->l) > link_heard_ms(best->l)))
            best = x;
    return best && loop_now_ms(ps->d->loop) - link_heard_ms(best->l) <= 2 * SILENT_MS ? best : NULL;
}

void peers_send_raft(struct peers *ps, const char *node_id, const void *p, size_t size)
{
    struct end *x = end_for(ps, node_id);
    bool silent = !x || loop_now_ms(ps->d->loop) - link_heard_ms(x->l) > SILENT_MS;
    struct end *by = silent ? carrier(ps, node_id) : NULL;
    peers_send(ps, node_id, MSG_RAFT, p, size);
    if (raft_message_is_urgent(p, size))
        relay_datagram(ps->relay, node_id, p, size);
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    if (by && relay_envelope(ps->relay, node_id, p, size, &b))
        link_send(by->l, MSG_RELAY, b.s, b.len);
}

bool peers_datagram(struct peers *ps, const void *p, size_t size)
{
    return relay_receive(ps->relay, RELAY_DATAGRAM, p, size);
}

/* For us, from a manager that carries; or from the sender itself, for a third one: one hop, never more. */
static void on_relay(struct peers *ps, const char *carrier_id, const void *p, size_t size)
{
    char from[26], to[26];
    if (!ps->d->manager || !relay_names(p, size, from, to))
        return;
    if (str_equal(to, daemon_node_id(ps->d))) {
        relay_receive(ps->relay, RELAY_THROUGH, p, size);
    } else if (str_equal(from, carrier_id)) {
        struct end *x = end_for(ps, to);
        if (x && x->cert.role == ROLE_MANAGER)
            link_send(x->l, MSG_RELAY, p, size);
    }
}

void peers_leader_changed(struct peers *ps, const char *leader)
{
    struct end *x;
    int64_t heard = 0;
    if (!ps || !leader || str_equal(leader, ps->leader))
        return;
    list_for(x, &ps->ends, node)
        if (x->up && str_equal(x->cert.node_id, ps->leader))
            heard = MAX(heard, link_heard_ms(x->l));
    bool silent = heard && loop_now_ms(ps->d->loop) - heard >= LEADER_SILENT_MS;
    list_for(x, &ps->ends, node) {
        if (!silent || !x->up || !str_equal(x->cert.node_id, ps->leader))
            continue;
        struct peer *p = x->peer;
        drop_end(x);
        if (p)
            call_again(p);
    }
    str_set(&ps->leader, leader);
}

/* ---- channels through a third manager, to a manager ---- */
enum { NODE_ID_BYTES = 25 };
struct carried { /* until the id has come */
    struct list_node node;
    struct peers *ps;
    struct stream *s;
    char to[NODE_ID_BYTES + 1];
    bool dead;
};

static void carried_free(struct carried *k)
{
    list_remove(&k->node);
    stream_free(k->s);
    free(k);
}

static void carry(void *arg)
{
    struct carried *k = arg;
    struct end *x = k->ps->closing || k->dead ? NULL : end_for(k->ps, k->to);
    struct stream *on = x && x->cert.role == ROLE_MANAGER ? link_channel_open(x->l, CHANNEL_API) : NULL;
    if (on)
        stream_splice(TAKE(k->s), on);
    carried_free(k);
}

static size_t on_carried_data(void *arg, const char *p, size_t size)
{
    struct carried *k = arg;
    if (size < NODE_ID_BYTES || k->to[0])
        return 0;
    memcpy(k->to, p, NODE_ID_BYTES);
    stream_pause(k->s, true);
    loop_defer(k->ps->d->loop, carry, k);
    return NODE_ID_BYTES;
}

static void on_carried_end(void *arg)
{
    struct carried *k = arg;
    k->dead = true;
    if (!k->to[0]) /* else carry() comes */
        carried_free(k);
}

static void on_carried_error(void *arg, const struct err *e)
{
    (void)e;
    on_carried_end(arg);
}

static void carry_channel(struct peers *ps, struct stream *s)
{
    static const struct stream_events events = { .on_data = on_carried_data, .on_eof = on_carried_end, .on_error = on_carried_error };
    struct carried *k = xnew(struct carried);
    k->ps = ps;
    k->s = s;
    list_push_back(&ps->carried, &k->node);
    stream_set_events(s, &events, k);
}

struct stream *peers_open_channel(struct peers *ps, const char *node_id, struct err *e)
{
    struct end *x = end_for(ps, node_id);
    bool silent = !x || loop_now_ms(ps->d->loop) - link_heard_ms(x->l) > 2 * SILENT_MS;
    const struct peer *p = map_find(&ps->peers, node_id);
    struct end *by = silent && p && p->manager && ps->d->manager ? carrier(ps, node_id) : NULL;
    struct stream *s = by ? link_channel_open(by->l, CHANNEL_CARRY) : x ? link_channel_open(x->l, CHANNEL_API) : NULL;
    if (s && by)
        stream_write(s, node_id, NODE_ID_BYTES);
    if (!s)
        err_set(e, E_UNAVAILABLE, "node %s cannot be reached now", node_id);
    return s;
}

/* ---- channels to any node ---- */
struct stream *peers_channel(struct peers *ps, const char *node_id, uint8_t service)
{
    struct end *x = end_for(ps, node_id);
    return x ? link_channel_open(x->l, service) : NULL;
}

static void reaching_end(struct reaching *r)
{
    struct stream *s = r->ps->closing ? NULL : peers_channel(r->ps, r->id, r->service);
    list_remove(&r->node);
    r->ps->n_reaching--;
    r->fn(r->arg, s);
    free(r->id);
    free(r);
}

static void reached(struct peers *ps, const char *id)
{
    struct list_node now;
    struct reaching *r;
    list_init(&now); /* what fn asks for is the next turn's */
    list_for(r, &ps->reaching, node)
        if (str_equal(r->id, id)) {
            list_remove(&r->node);
            list_push_back(&now, &r->node);
        }
    while ((r = list_first(&now, struct reaching, node)))
        reaching_end(r);
}

static void reach_now(void *arg)
{
    reaching_end(arg);
}

void peers_reach(struct peers *ps, const char *node_id, uint8_t service, peers_reached_fn *fn, void *arg)
{
    struct reaching *r = xnew(struct reaching);
    struct peer *p = map_find(&ps->peers, node_id);
    *r = (struct reaching){ .ps = ps, .id = xstrdup(node_id), .service = service, .fn = fn, .arg = arg,
                            .until_ms = loop_now_ms(ps->d->loop) + REACH_MS };
    ps->n_reaching++;
    if (end_for(ps, node_id) || !p || ps->n_reaching > REACHES_MAX) {
        loop_defer(ps->d->loop, reach_now, r);
        return;
    }
    list_push_back(&ps->reaching, &r->node);
    loop_timer_set(ps->look, RETRY_MAX_MS);
    if (!p->calling)
        call(p);
    if (!p->calling) /* it has no address */
        reached(ps, node_id);
}

static void look(void *arg)
{
    struct peers *ps = arg;
    struct end *x;
    struct reaching *r;
    int64_t now = loop_now_ms(ps->d->loop);
    list_for(r, &ps->reaching, node)
        if (now >= r->until_ms) {
            reached(ps, r->id);
            break; /* the list is another one; the rest at the next look */
        }
    list_for(x, &ps->ends, node) {
        bool spare = x->peer && x->up && !x->peer->manager && !x->peer->unheard && link_n_channels(x->l) == 0;
        if (!spare)
            x->used_ms = now;
        if (now - x->used_ms < IDLE_MS)
            continue;
        AUTO_FREE char *id = xstrdup(x->cert.node_id);
        drop_end(x);
        if (!end_for(ps, id))
            link_gone(ps, id);
    }
    loop_timer_set(ps->look, list_is_empty(&ps->reaching) ? (int64_t)IDLE_MS : (int64_t)RETRY_MAX_MS);
}

void peers_update(struct peers *ps)
{
    struct daemon *d = ps->d;
    struct end *x;
    for (struct map_item *it = NULL; (it = map_next(&ps->peers, it));)
        ((struct peer *)it->value)->known = false;
    for (uint32_t i = 0; i < d->member.nodes.n; i++) {
        const struct node *n = &d->member.nodes.v[i];
        if (str_equal(n->id, daemon_node_id(d)))
            continue;
        struct peer *p = peer_get(ps, n->id);
        p->known = true;
        bool was_unheard = p->unheard;
        p->manager = n->spec.role == ROLE_MANAGER;
        p->unheard = d->manager && str_equal(n->status.message, NODE_UNHEARD_MESSAGE);
        p->port = (uint16_t)n->control_port;
        const char *addr = d->gossip ? gossip_address_of(d->gossip, n->id) : NULL; /* as it says itself */
        if (!addr)
            addr = n->status.addr;
        if (!str_equal(p->addr, addr)) {
            str_set(&p->addr, addr);
            if (p->calling)
                drop_end(p->calling);
        }
        if ((p->manager || (p->unheard && !was_unheard)) && !p->calling)
            call(p);
    }
    list_for(x, &ps->ends, node)
        if (x->cert.node_id && !rights_of(x)) {
            log_info("link with node %s closed: it is no member any more", x->cert.node_id);
            images_node_gone(d, x->cert.node_id);
            drop_end(x);
        }
    images_nodes_changed(d);
    for (struct map_item *it = NULL; (it = map_next(&ps->peers, it));) {
        struct peer *p = it->value;
        if (p->known)
            continue;
        if (p->calling) {
            p->calling->peer = NULL;
            drop_end(p->calling);
        }
        map_remove(&ps->peers, p->id);
        loop_timer_free(p->retry);
        free(p->id);
        free(p->addr);
        free(p);
    }
}

/* Again, now that this node has another certificate: the cluster key may be a new one. */
static bool is_trusted(struct end *x)
{
    struct err e;
    if (!x->cert.node_id)
        return true;
    int trust = certificate_trust(x->ps->d->member.certificate, &x->cert, clock_real_ns(), &e);
    x->retired = trust == CA_RETIRED;
    return trust >= 0 && rights_of(x);
}

void peers_certificate_changed(struct peers *ps, bool anew)
{
    struct end *x;
    list_for(x, &ps->ends, node)
        if (anew || !x->up || !is_trusted(x)) { /* a handshake under way holds the old bytes */
            if (x->peer)
                loop_timer_set(x->peer->retry, RETRY_MIN_MS);
            drop_end(x);
        }
    sb_reset(&ps->d->packed_certificate);
    rec_pack(&certificate_rec, ps->d->member.certificate, &ps->d->packed_certificate);
}

int peers_open(struct daemon *d, struct err *e)
{
    struct peers *ps = xnew(struct peers);
    ps->d = d;
    ps->relay = relay_new(d);
    map_init(&ps->peers);
    map_init(&ps->up);
    list_init(&ps->ends);
    list_init(&ps->strangers);
    list_init(&ps->carried);
    list_init(&ps->reaching);
    ps->look = loop_timer_new(d->loop, look, ps);
    ps->crowd = loop_timer_new(d->loop, look_at_crowd, ps);
    loop_timer_set(ps->look, IDLE_MS);
    sb_reset(&d->packed_certificate);
    rec_pack(&certificate_rec, d->member.certificate, &d->packed_certificate);
    int r = stream_listen_tcp(d->loop, d->cfg.listen_addr ? d->cfg.listen_addr : "0.0.0.0", d->cfg.control_port, on_accept,
                              ps, &ps->listener, e);
    if (r < 0) {
        loop_timer_free(ps->look);
        loop_timer_free(ps->crowd);
        map_done(&ps->peers);
        map_done(&ps->up);
        relay_free(ps->relay);
        free(ps);
        char why[sizeof e->text];
        memcpy(why, e->text, sizeof why);
        return err_set(e, e->code, "%.300s; free it, or start the daemon with another --listen or --control-port", why);
    }
    d->peers = ps;
    peers_update(ps);
    return 0;
}

void peers_close(struct peers *ps)
{
    struct end *x;
    struct carried *k;
    if (!ps)
        return;
    ps->closing = true;
    struct reaching *r;
    list_for(r, &ps->reaching, node)
        reaching_end(r);
    loop_timer_free(ps->look);
    loop_timer_free(ps->crowd);
    stream_listener_free(ps->listener);
    list_for(x, &ps->ends, node)
        drop_end(x);
    list_for(k, &ps->carried, node)
        if (!k->to[0]) /* else carry() comes, before ps is freed */
            carried_free(k);
    for (struct map_item *it = NULL; (it = map_next(&ps->peers, it));) {
        struct peer *p = it->value;
        loop_timer_free(p->retry);
        free(p->id);
        free(p->addr);
        free(p);
    }
    map_done(&ps->peers);
    map_done(&ps->up);
    free(ps->leader);
    relay_free(TAKE(ps->relay));
    loop_defer(ps->d->loop, free, ps); /* messages to self may be deferred */
}
