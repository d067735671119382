/* Keys change while the cluster works; each change is a step of the cluster object that every node sees.
 *
 * Gossip keys: a new key is added behind the one in use (every node can open what it seals), becomes the first when every
 * node has said that it holds it, and the old one goes when every node seals with the new one. A node is asked by its
 * HELLO (Keyring); one that is DOWN is not waited for: it gets the keys by its link before it gossips again.
 *
 * The cluster key: the old one signs the new one (struct ca_link) and is gone in the same transaction. Who knows only the
 * old one follows the link; who has the new one still takes a certificate of the old one from a node that the table
 * lists, until the link expires. The leader signs anew what the HELLOs show to be of the old one. */
#include "manager_internal.h"
#include <shoal/base/file.h>

LOG_MODULE("rotation");

#define KEYS_LIFE_NS (12 * 3600 * SEC_NS)
#define CA_GRACE_NS (30 * 24 * 3600 * SEC_NS)

/* ---- pure steps ---- */
static void add_key(struct cluster *c, int64_t now_ns)
{
    uint8_t key[32];
    uint64_t id = 0;
    for (uint32_t i = 0; i < c->gossip_keys.n; i++)
        id = MAX(id, c->gossip_keys.v[i].id);
    struct gossip_key *k = REC_ADD(&c->gossip_keys);
    crypto_random(key, sizeof key);
    k->id = id + 1;
    bytes_set(&k->key, key, sizeof key);
    crypto_wipe(key, sizeof key);
    c->keys_at = now_ns;
    c->keys_due = false;
}

static bool keys_step_is_due(const struct cluster *c, bool all_hold, int64_t now_ns)
{
    return c->gossip_keys.n > 1 ? all_hold : c->keys_due || now_ns - c->keys_at >= KEYS_LIFE_NS ||
                                             now_ns < c->keys_at - KEYS_LIFE_NS;
}

bool rotation_keys_step(struct cluster *c, bool all_hold, int64_t now_ns)
{
    struct gossip_key *k = c->gossip_keys.v;
    if (!keys_step_is_due(c, all_hold, now_ns))
        return false;
    if (c->gossip_keys.n == 1) {
        add_key(c, now_ns);
    } else if (k[0].id < k[1].id) {
        struct gossip_key first = k[0];
        k[0] = k[1];
        k[1] = first;
    } else {
        rec_list_remove((struct rec_list *)(void *)&c->gossip_keys, &gossip_key_rec, c->gossip_keys.n - 1);
    }
    c->keyring++;
    return true;
}

static void drop_links(struct cluster *c, int64_t now_ns)
{
    while (c->ca_chain.n && c->ca_chain.v[0].until < now_ns)
        rec_list_remove((struct rec_list *)(void *)&c->ca_chain, &ca_link_rec, 0);
}

int rotation_ca_begin(struct cluster *c, int64_t now_ns, struct err *e)
{
    uint8_t public[32], secret[64];
    char token[128];
    drop_links(c, now_ns);
    if (c->ca_chain.n >= CA_CHAIN_MAX)
        return err_set(e, E_BUSY, "the cluster key was replaced %d times within 30 days; nodes that were away since could not follow "
                       "another time, wait until the oldest is 30 days ago", CA_CHAIN_MAX);
    crypto_sign_keypair(public, secret);
    struct ca_link *l = REC_ADD(&c->ca_chain);
    bytes_set(&l->from, c->ca_public.v, c->ca_public.n);
    bytes_set(&l->to, public, 32);
    l->until = now_ns + CA_GRACE_NS;
    ca_link_sign(l, c->ca_secret.v);
    crypto_wipe(c->ca_secret.v, c->ca_secret.n);
    bytes_set(&c->ca_public, public, 32);
    bytes_set(&c->ca_secret, secret, 64);
    crypto_wipe(secret, sizeof secret);
    token_make(token, public);
    str_set(&c->tokens->worker, token);
    token_make(token, public);
    str_set(&c->tokens->manager, token);
    while (c->grants.n) /* they pin the old key */
        rec_list_remove((struct rec_list *)(void *)&c->grants, &join_grant_rec, c->grants.n - 1);
    c->rotating = true;
    return 0;
}

/* ---- the leader's pass ---- */
static bool signed_by(const struct session_hello *h, const struct cluster *c)
{
    return h->ca.n == 32 && c->ca_public.n == 32 && !memcmp(h->ca.v, c->ca_public.v, 32);
}

const struct bytes *manager_node_ca(const struct manager *m, const char *node_id)
{
    const struct session_hello *h = dispatcher_said(m->dispatcher, node_id);
    return h ? &h->ca : NULL;
}

struct rotation_held manager_rotation(const struct manager *m)
{
    struct rotation_held r = { 0 };
    const struct cluster *c = store_cluster(m->store);
    for (const struct node *n = NULL; (n = store_next(m->store, TABLE_NODE, n));) {
        const struct session_hello *h = dispatcher_said(m->dispatcher, n->id);
        if (n->status.state == NODE_DOWN)
            continue;
        r.nodes++;
        r.certificates += h && signed_by(h, c);
        r.keyrings += h && h->keyring == c->keyring;
    }
    return r;
}

void rotation_pass(struct manager *m, struct store_tx *tx, int64_t now_ns, int64_t *ret_next_ns)
{
    const struct cluster *c = store_cluster(m->store);
    struct cluster next = { 0 };
    if (!c || !c->gossip_keys.n || store_tx_touches(tx, TABLE_CLUSTER, c->id))
        return;
    struct rotation_held held = { 0 };
    if (c->gossip_keys.n > 1 || c->rotating)
        held = manager_rotation(m);
    bool all_hold = held.keyrings == held.nodes, certified = c->rotating && held.certificates == held.nodes;
    int64_t grants_at = INT64_MAX;
    for (uint32_t i = 0; i < c->grants.n; i++)
        grants_at = MIN(grants_at, grant_end_ns(&c->grants.v[i]));
    if (!keys_step_is_due(c, all_hold, now_ns) && !certified && now_ns < grants_at) { /* as nearly always */
        *ret_next_ns = MIN(*ret_next_ns, c->gossip_keys.n == 1 ? MIN(grants_at, c->keys_at + KEYS_LIFE_NS) : grants_at);
        return;
    }
    cluster_copy(&next, c);
    if (rotation_keys_step(&next, all_hold, now_ns))
        log_info("gossip keys: step %llu, %u in use", (unsigned long long)next.keyring, next.gossip_keys.n);
    if (certified)
        log_info("every node that is up has a certificate by the new cluster key");
    next.rotating &= !certified;
    grants_expire(&next, now_ns);
    store_tx_update(tx, TABLE_CLUSTER, &next); /* a pass follows it */
    cluster_clear(&next);
}
