/* What guards the cluster: join tokens for an occasion, the cluster key and who holds a certificate by it, gossip keys.
 * Docker has no word for most of it: /shoal/v1. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>

/* ---- TLSInfo, as Docker's clients read it; our certificates are not X.509, so it names keys ---- */
enum { SPKI_HEAD_BYTES = 12 };

static char *spki_base64(const struct bytes *key)
{
    static const uint8_t head[SPKI_HEAD_BYTES] = { 0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00 };
    uint8_t der[SPKI_HEAD_BYTES + 32];
    memcpy(der, head, sizeof head); /* RFC 8410: an Ed25519 public key */
    memcpy(der + sizeof head, key->v, 32);
    return base64_encode(der, sizeof der);
}

struct val *tls_info_val(struct val_doc *d, const struct bytes *ca_public)
{
    struct val *v = val_map(d);
    if (!ca_public || ca_public->n != 32)
        return v;
    AUTO_FREE char *key = spki_base64(ca_public), *subject = base64_encode("shoal cluster", 13);
    AUTO_FREE char *pem = xasprintf("-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n", key);
    val_set(d, v, "TrustRoot", val_str(d, pem));
    val_set(d, v, "CertIssuerSubject", val_str(d, subject));
    val_set(d, v, "CertIssuerPublicKey", val_str(d, key));
    return v;
}

/* ---- join tokens ---- */
static void token_list(struct call *c)
{
    const struct cluster *cluster = store_cluster(call_store(c));
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    int64_t now = clock_real_ns();
    for (uint32_t i = 0; i < cluster->grants.n; i++) {
        const struct join_grant *g = &cluster->grants.v[i];
        struct val *v = val_map(d);
        val_set(d, v, "ID", val_str(d, g->id));
        val_set(d, v, "Role", val_str(d, node_role_names[g->role]));
        val_set(d, v, "Once", val_bool(d, g->once));
        val_set(d, v, "CreatedAt", time_val(d, g->created_at));
        val_set(d, v, "ExpiresAt", time_val(d, g->expires_at));
        val_set(d, v, "State", val_str(d, g->used_by.n ? "used" : now >= g->expires_at ? "expired" : "open"));
        val_push(d, list, v);
    }
    val_set_root(d, list);
    reply_val(c, 200, d);
}

struct new_token { struct call *c; char id[13], text[128]; };

static void on_token(void *arg, int result, const struct err *e)
{
    struct new_token *t = arg;
    struct call *c = t->c;
    if (result < 0) {
        reply_err(c, e);
    } else {
        struct val_doc *d = val_doc_new();
        struct val *v = val_map(d);
        val_set(d, v, "ID", val_str(d, t->id));
        val_set(d, v, "Token", val_str(d, t->text));
        val_set_root(d, v);
        reply_val(c, 201, d);
    }
    crypto_wipe(t, sizeof *t);
    free(t);
}

static void token_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    const char *role = val_get_str(body, "Role");
    (void)text, (void)size;
    if (!role || (!str_equal(role, "worker") && !str_equal(role, "manager"))) {
        reply_error(c, E_INVALID, "Role: must be worker or manager");
        return;
    }
    struct new_token *t = xnew(struct new_token);
    t->c = c;
    control_token_create(call_manager(c), str_equal(role, "manager") ? ROLE_MANAGER : ROLE_WORKER, val_get_int(body, "TTL", 0),
                         val_get_bool(body, "Once", false), t->id, t->text, on_token, t);
}

static void token_create(struct call *c)
{
    with_body(c, token_body);
}

static void token_remove(struct call *c)
{
    control_token_remove(call_manager(c), c->param[0], done_empty, c);
}

/* ---- keys ---- */
static void keys_status(struct call *c)
{
    const struct cluster *cluster = store_cluster(call_store(c));
    struct rotation_held held = manager_rotation(call_manager(c));
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *away = val_list(d);
    val_set(d, v, "TLSInfo", tls_info_val(d, &cluster->ca_public));
    val_set(d, v, "RootRotationInProgress", val_bool(d, cluster->rotating));
    val_set(d, v, "Nodes", val_int(d, held.nodes));
    val_set(d, v, "Certificates", val_int(d, held.certificates));
    val_set(d, v, "GossipKeys", val_int(d, cluster->gossip_keys.n));
    val_set(d, v, "GossipKey", val_int(d, cluster->gossip_keys.n ? (int64_t)cluster->gossip_keys.v[0].id : 0));
    val_set(d, v, "GossipKeyDue", val_bool(d, cluster->keys_due));
    val_set(d, v, "GossipKeyAt", time_val(d, cluster->keys_at));
    val_set(d, v, "Keyrings", val_int(d, held.keyrings));
    for (const struct node *n = NULL; (n = store_next(call_store(c), TABLE_NODE, n));)
        if (n->status.state == NODE_DOWN)
            val_push(d, away, val_str(d, n->description.hostname ? n->description.hostname : n->id));
    val_set(d, v, "Away", away);
    if (cluster->ca_chain.n)
        val_set(d, v, "OldUntil", time_val(d, cluster->ca_chain.v[cluster->ca_chain.n - 1].until));
    val_set_root(d, v);
    reply_val(c, 200, d);
}

static void keys_rotate(struct call *c)
{
    control_keys_rotate(call_manager(c), done_empty, c);
}

const struct route key_routes[] = {
    { "GET", "/shoal/v1/tokens", token_list, ROUTE_READ },
    { "POST", "/shoal/v1/tokens", token_create, ROUTE_WRITE },
    { "DELETE", "/shoal/v1/tokens/{}", token_remove, ROUTE_WRITE },
    { "GET", "/shoal/v1/keys", keys_status, ROUTE_READ },
    { "POST", "/shoal/v1/keys/rotate", keys_rotate, ROUTE_WRITE },
    { 0 },
};
