/* Admission: checks a join token, makes the node object and signs the certificate. Only the leader admits;
 * another manager answers with the leader's address. A node that asks again with the same link key (its
 * first reply was lost) gets the same identity. Later the leader signs anew what is due, and what a change of
 * role made wrong. */
#include "manager_internal.h"
#include <shoal/base/file.h>
#include <shoal/base/planted.h>
#include <shoal/model/format.h>

LOG_MODULE("ca");

enum { ADMISSION_TRIES = 100, ADMITTING_MAX = 1024 /* under way: each an entry of the log */ };

struct admission {
    struct manager *m;
    manager_join_fn *done;
    void *arg;
    struct join_request req;
    uint8_t link_key[32];
    char *addr;
    char node_id[26];
    unsigned tries;
};

static void refuse(manager_join_fn *done, void *arg, int code, const char *text)
{
    struct join_reply reply = { .code = (uint64_t)code };
    str_set(&reply.error, text);
    done(arg, &reply);
    join_reply_clear(&reply);
}

static void redirect(struct manager *m, manager_join_fn *done, void *arg)
{
    struct join_reply reply = { 0 };
    const struct node *leader = m->leader_id ? store_find(m->store, TABLE_NODE, m->leader_id) : NULL;
    if (!leader || !leader->status.addr) {
        refuse(done, arg, E_UNAVAILABLE, "the cluster has no leader now; try again in a moment");
        return;
    }
    bool v6 = strchr(leader->status.addr, ':') != NULL;
    reply.leader = xasprintf(v6 ? "[%s]:%u" : "%s:%u", leader->status.addr,
                             (unsigned)leader->control_port);
    done(arg, &reply);
    join_reply_clear(&reply);
}

/* ---- whose keys are whose ---- */
enum key_kind { KEY_LINK = 'l', KEY_SIGN = 's', KEY_TUNNEL = 't' };

static const struct bytes *key_of(const struct node *n, enum key_kind kind)
{
    return kind == KEY_LINK ? &n->link_key : kind == KEY_SIGN ? &n->sign_key : &n->tunnel_key;
}

static void key_name(char out[33], enum key_kind kind, const uint8_t *key)
{
    out[0] = (char)kind;
    memcpy(out + 1, key, 32);
}

void ca_node_changed(struct manager *m, const struct node *old, const struct node *now)
{
    static const enum key_kind kinds[] = { KEY_LINK, KEY_SIGN, KEY_TUNNEL };
    char name[33];
    for (unsigned i = 0; i < ARRAY_N(kinds); i++) {
        const struct bytes *was = old ? key_of(old, kinds[i]) : NULL, *is = now ? key_of(now, kinds[i]) : NULL;
        if (was && is && was->n == is->n && !memcmp(was->v, is->v, is->n))
            continue;
        if (was && was->n == 32) {
            key_name(name, kinds[i], was->v);
            const char *owner = map_find_n(&m->keys, name, sizeof name);
            if (str_equal(owner, old->id))
                free(map_remove_n(&m->keys, name, sizeof name));
        }
        if (is && is->n == 32) {
            key_name(name, kinds[i], is->v);
            free(map_put_n(&m->keys, name, sizeof name, xstrdup(now->id)));
        }
    }
}

void ca_forget_keys(struct manager *m)
{
    for (struct map_item *it = NULL; (it = map_next(&m->keys, it));)
        free(it->value);
    map_done(&m->keys);
    map_init(&m->keys);
}

static const struct node *node_by_key(const struct manager *m, enum key_kind kind, const uint8_t key[32])
{
    char name[33];
    key_name(name, kind, key);
    const char *id = map_find_n(&m->keys, name, sizeof name);
    return id ? store_find(m->store, TABLE_NODE, id) : NULL;
}

static const struct node *node_with_key(const struct manager *m, const uint8_t link_key[32])
{
    return node_by_key(m, KEY_LINK, link_key);
}

/* Two nodes with one tunnel key would be one peer to all the others: the later would take the earlier's packets. */
static const struct node *node_with_others_key(const struct manager *m, const struct join_request *req)
{
    const struct node *n = node_by_key(m, KEY_TUNNEL, req->tunnel_key.v);
    return n ? n : node_by_key(m, KEY_SIGN, req->sign_key.v);
}

uint64_t raft_id_random(void)
{
    uint64_t id = 0;
    while (!id) {
        crypto_random(&id, sizeof id);
        id &= INT64_MAX; /* stays within what msgpack integers and JSON hold alike */
    }
    return id;
}

/* index: of the applied log, so that the holders of an older or newer node table know which of both is right. */
static void certify(struct certificate *c, const struct cluster *cluster, const struct node *n, uint64_t index)
{
    int64_t now = clock_real_ns();
    str_set(&c->cluster_id, cluster->id);
    str_set(&c->node_id, n->id);
    c->role = n->spec.role;
    c->raft_id = n->raft_id;
    c->epoch = cluster->epoch;
    c->serial = index;
    for (uint32_t i = 0; i < cluster->ca_chain.n; i++)
        ca_link_copy(REC_ADD(&c->chain), &cluster->ca_chain.v[i]);
    bytes_set(&c->link_key, n->link_key.v, n->link_key.n);
    bytes_set(&c->sign_key, n->sign_key.v, n->sign_key.n);
    bytes_set(&c->ca_public, cluster->ca_public.v, cluster->ca_public.n);
    c->not_before = now;
    c->not_after = now + cluster->spec.ca.node_cert_expiry;
    certificate_sign(c, cluster->ca_secret.v);
}

static void fill_node(struct node *n, const struct join_request *req, const char *addr, int role,
                      const uint8_t link_key[32])
{
    char id[26];
    id_random(id);
    str_set(&n->id, id);
    n->spec.role = role;
    n->spec.availability = req->availability;
    node_description_copy(&n->description, &req->description);
    n->status.state = NODE_READY;
    str_set(&n->status.addr, addr);
    if (role == ROLE_MANAGER)
        n->raft_id = raft_id_random();
    if (req->never_manager)
        labels_set(&n->spec.labels, NODE_LABEL_MANAGER, "no");
    bytes_set(&n->link_key, link_key, 32);
    bytes_set(&n->sign_key, req->sign_key.v, req->sign_key.n);
    bytes_set(&n->tunnel_key, req->tunnel_key.v, req->tunnel_key.n);
    n->control_port = req->control_port;
    n->gossip_port = req->gossip_port;
    n->tunnel_port = req->tunnel_port;
    n->formats = req->formats;
}

/* Who cannot read what this cluster writes does not get in. */
static int check_formats(const struct join_request *req, uint64_t format, struct err *e)
{
    uint64_t most = MAX(req->formats.most, UINT64_C(1));
    if (most < format)
        return err_set(e, E_UNSUPPORTED, "this cluster writes format %llu, the shoal of this machine reads up to %llu: upgrade it, "
                       "then join", (unsigned long long)format, (unsigned long long)most);
    if (req->formats.least > format)
        return err_set(e, E_UNSUPPORTED, "this cluster writes format %llu, the shoal of this machine reads %llu and later ones: "
                       "upgrade the nodes of the cluster first", (unsigned long long)format, (unsigned long long)req->formats.least);
    return 0;
}

static void admission_free(struct admission *a)
{
    map_remove_n(&a->m->admitting, (const char *)a->link_key, 32);
    join_request_clear(&a->req);
    free(a->addr);
    free(a);
}

static void admission_refused(struct admission *a, const struct err *e)
{
    refuse(a->done, a->arg, e->code, e->text);
    admission_free(a);
}

/* Of the nodes the newcomer is told only the managers: the leader sends the table with its first assignment, in the bytes
 * that all are sent. Until then it takes no link of the others. */
static void admitted(struct admission *a, const struct node *n)
{
    struct manager *m = a->m;
    const struct cluster *c = store_cluster(m->store);
    struct join_reply reply = { .nodes_index = store_index(m->store), .format = MAX(cluster_format(c), n->formats.promised) };
    reply.certificate = xnew(struct certificate);
    certify(reply.certificate, c, n, reply.nodes_index);
    for (const struct node *x = NULL; (x = store_next(m->store, TABLE_NODE, x));)
        if (x->spec.role == ROLE_MANAGER || x == n)
            node_copy(REC_ADD(&reply.nodes), x);
    for (uint32_t i = 0; i < c->gossip_keys.n; i++)
        gossip_key_copy(REC_ADD(&reply.gossip_keys), &c->gossip_keys.v[i]);
    bytes_set(&reply.tunnel_psk, c->tunnel_psk.v, c->tunnel_psk.n);
    str_set(&reply.addr, a->addr);
    a->done(a->arg, &reply);
    join_reply_clear(&reply);
    log_info("admitted node %s as %s", n->id, node_role_names[n->spec.role]);
    admission_free(a);
}

static void admit(struct admission *a);

static void on_admitted(void *arg, int result, const struct err *e)
{
    struct admission *a = arg;
    const struct node *n = store_find(a->m->store, TABLE_NODE, a->node_id);
    struct err gone;
    if (result == -E_STALE && a->tries++ < ADMISSION_TRIES) { /* another node used its token in between: look again */
        admit(a);
    } else if (result < 0) {
        admission_refused(a, e);
    } else if (n) {
        admitted(a, n);
    } else {
        err_set(&gone, E_DENIED, "the node was removed again at once");
        admission_refused(a, &gone);
    }
}

static void propose_admission(struct admission *a, const struct grant_use *use)
{
    struct node n = { 0 };
    struct store_tx *tx = store_tx_new(clock_real_ns());
    fill_node(&n, &a->req, a->addr, use->role, a->link_key);
    n.formats.promised = manager_format(a->m); /* it keeps it with the identity that it is given: without, it is nobody */
    rec_cut(&node_rec, &n, manager_format(a->m));
    memcpy(a->node_id, n.id, 26);
    store_tx_create(tx, TABLE_NODE, &n);
    if (use->grant && use->grant->once) {
        struct cluster c = { 0 };
        cluster_copy(&c, store_cluster(a->m->store)); /* of two that use it at once, one finds another version */
        struct join_grant *g = &c.grants.v[use->grant - store_cluster(a->m->store)->grants.v];
        bytes_set(&g->used_by, a->link_key, 32);
        g->updated_at = clock_real_ns();
        store_tx_update(tx, TABLE_CLUSTER, &c);
        cluster_clear(&c);
    }
    node_clear(&n);
    manager_propose(a->m, tx, on_admitted, a);
}

static void admit(struct admission *a)
{
    struct manager *m = a->m;
    const struct cluster *c = store_cluster(m->store);
    struct grant_use use;
    struct err e;
    if (!m->leads || !c || !c->tokens) {
        redirect(m, a->done, a->arg);
        admission_free(a);
        return;
    }
    const struct node *known = node_with_key(m, a->link_key);
    if (check_formats(&a->req, MAX(manager_format(m), known ? known->formats.promised : 0), &e) < 0) {
        admission_refused(a, &e);
        return;
    }
    if (token_check(c, a->req.token, a->link_key, known != NULL, clock_real_ns(), &use, &e) < 0) {
        admission_refused(a, &e);
        return;
    }
    if (known && use.role != (int)known->spec.role) {
        err_set(&e, E_CONFLICT, "this machine is node %s already, as %s; use the other token or remove it with "
                "'shoal node rm --force %s' on a manager", known->id, node_role_names[known->spec.role], known->id);
        admission_refused(a, &e);
    } else if (known) {
        admitted(a, known);
    } else if ((known = node_with_others_key(m, &a->req))) {
        err_set(&e, E_DENIED, "node %s has one of these keys already; a node that shall be another needs keys of its own: "
                "'shoal leave --force' there, then join again", known->id);
        admission_refused(a, &e);
    } else {
        propose_admission(a, &use);
    }
}

void manager_join(struct manager *m, const struct join_request *req, const char *peer_addr,
                  const uint8_t link_key[32], manager_join_fn *done, void *arg)
{
    if (req->sign_key.n != 32 || req->tunnel_key.n != 32) {
        refuse(done, arg, E_INVALID, "the join request carries no keys");
        return;
    }
    if (m->admitting.n >= ADMITTING_MAX || map_find_n(&m->admitting, link_key, 32)) { /* it has lost patience with its first link */
        refuse(done, arg, E_BUSY, m->admitting.n >= ADMITTING_MAX ? "many machines join at this moment" : "it is being admitted already");
        return;
    }
    struct admission *a = xnew(struct admission);
    map_put_n(&m->admitting, link_key, 32, a);
    *a = (struct admission){ .m = m, .done = done, .arg = arg, .addr = xstrdup(req->addr ? req->addr : peer_addr) };
    join_request_copy(&a->req, req);
    memcpy(a->link_key, link_key, 32);
    admit(a);
}

/* A manager that becomes a worker keeps its old certificate until its removal from Raft has committed: with the new
 * one it closes its log, and a leader that dies in between would count on its vote. */
void ca_certify_again(struct manager *m, const char *node_id, struct session_hello *h)
{
    const struct cluster *c = store_cluster(m->store);
    const struct node *n = store_find(m->store, TABLE_NODE, node_id);
    if (!c || !n)
        return;
    bool other = h->epoch != c->epoch || h->role != n->spec.role || (n->spec.role == ROLE_MANAGER && h->raft_id != n->raft_id) ||
                 h->ca.n != 32 || (CLUSTER_BUG != 31 && !crypto_equal(h->ca.v, c->ca_public.v, 32));
    if (!other && !certificate_is_due(node_id, h->not_after, c->spec.ca.node_cert_expiry, clock_real_ns()))
        return;
    if (h->role == ROLE_MANAGER && n->spec.role != ROLE_MANAGER && (m->change_running || members_has(m, h->raft_id)))
        return;
    struct certificate cert = { 0 };
    struct sb b;
    sb_init(&b, 0);
    certify(&cert, c, n, store_index(m->store));
    rec_pack(&certificate_rec, &cert, &b);
    m->hooks.send(m->hooks.arg, node_id, MSG_CERTIFICATE, b.s, b.len);
    sb_done(&b);
    h->role = cert.role;
    h->raft_id = cert.raft_id;
    h->not_after = cert.not_after;
    h->epoch = cert.epoch;
    bytes_set(&h->ca, cert.ca_public.v, cert.ca_public.n);
    certificate_clear(&cert);
}
