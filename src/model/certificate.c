/* Certificates: signing and checking. The signature covers the packed record without the signature; rows
 * pack the same bytes everywhere (model/rec.h), so no canonical form of its own is needed. */
#include <shoal/base/crypto.h>
#include <shoal/model/certificate.h>

REC_DEFINE(certificate)
REC_DEFINE(join_request)
REC_DEFINE(join_reply)

static void signed_bytes(const struct certificate *c, struct sb *out)
{
    struct certificate bare = *c; /* borrowed members, never cleared */
    bare.signature = (struct bytes){ 0 };
    sb_init(out, 0);
    sb_str(out, "shoal certificate 1");
    rec_pack(&certificate_rec, &bare, out);
}

void certificate_sign(struct certificate *c, const uint8_t ca_secret[64])
{
    AUTO_SB struct sb b;
    uint8_t signature[CRYPTO_SIGNATURE_SIZE];
    signed_bytes(c, &b);
    crypto_sign(signature, b.s, b.len, ca_secret);
    free(c->signature.v);
    c->signature.v = xmemdup(signature, sizeof signature);
    c->signature.n = sizeof signature;
}

int certificate_verify(const struct certificate *c, const uint8_t ca_public[32],
                       const uint8_t link_key[32], struct err *e)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    if (!c->node_id || c->link_key.n != 32 || c->sign_key.n != 32 ||
        c->signature.n != CRYPTO_SIGNATURE_SIZE)
        return err_set(e, E_DENIED, "the peer's certificate is incomplete");
    if (!crypto_equal(c->link_key.v, link_key, 32))
        return err_set(e, E_DENIED, "the certificate of node %s belongs to another key", c->node_id);
    sb_done(&b);
    signed_bytes(c, &b);
    if (!crypto_sign_verify(c->signature.v, b.s, b.len, ca_public))
        return err_set(e, E_DENIED, "the certificate of node %s is not signed by this cluster",
                       c->node_id);
    return 0;
}

static void link_bytes(const struct ca_link *l, struct sb *out)
{
    struct ca_link bare = *l; /* borrowed members */
    bare.signature = (struct bytes){ 0 };
    sb_init(out, 0);
    sb_str(out, "shoal cluster key 1");
    rec_pack(&ca_link_rec, &bare, out);
}

void ca_link_sign(struct ca_link *l, const uint8_t from_secret[64])
{
    AUTO_SB struct sb b;
    uint8_t signature[CRYPTO_SIGNATURE_SIZE];
    link_bytes(l, &b);
    crypto_sign(signature, b.s, b.len, from_secret);
    free(l->signature.v);
    l->signature.v = xmemdup(signature, sizeof signature);
    l->signature.n = sizeof signature;
}

static bool same_key(const struct bytes *a, const struct bytes *b)
{
    return a->n == 32 && b->n == 32 && crypto_equal(a->v, b->v, 32);
}

static bool link_is_good(const struct ca_link *l)
{
    AUTO_SB struct sb b;
    link_bytes(l, &b);
    return l->from.n == 32 && l->to.n == 32 && l->signature.n == CRYPTO_SIGNATURE_SIZE &&
           crypto_sign_verify(l->signature.v, b.s, b.len, l->from.v);
}

bool ca_chain_leads(const struct ca_link *v, uint32_t n, const struct bytes *from, const struct bytes *to, int64_t *ret_until)
{
    const struct bytes *at = from;
    int64_t until = INT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (!same_key(at, &v[i].from))
            continue;
        if (!link_is_good(&v[i]))
            return false;
        if (v[i].until < until)
            until = v[i].until;
        at = &v[i].to;
        if (!same_key(at, to))
            continue;
        if (ret_until)
            *ret_until = until;
        return true;
    }
    return false;
}

int certificate_trust(const struct certificate *own, const struct certificate *c, int64_t now_ns, struct err *e)
{
    int64_t until;
    if (same_key(&own->ca_public, &c->ca_public))
        return CA_SAME;
    if (ca_chain_leads(c->chain.v, c->chain.n, &own->ca_public, &c->ca_public, NULL))
        return CA_NEWER;
    if (!ca_chain_leads(own->chain.v, own->chain.n, &c->ca_public, &own->ca_public, &until))
        return err_set(e, E_DENIED, "the other end belongs to another cluster");
    if (now_ns > until)
        return err_set(e, E_DENIED, "node %s was away while the cluster key was replaced, for longer than its old certificate "
                       "counts; run 'shoal leave --force' there and join it anew", c->node_id);
    return CA_RETIRED;
}

int certificate_check_time(const struct certificate *c, int64_t now_ns, struct err *e)
{
    static const int64_t skew_ns = INT64_C(3600) * 1000000000;
    if (now_ns < c->not_before - skew_ns || now_ns > c->not_after + skew_ns)
        return err_set(e, E_DENIED, "the certificate of node %s is not valid now; check both clocks",
                       c->node_id);
    return 0;
}

bool certificate_is_due(const char *node_id, int64_t not_after_ns, int64_t life_ns, int64_t now_ns)
{
    uint8_t h[4];
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    sb_printf(&b, "%s %lld", node_id, (long long)not_after_ns);
    crypto_blake2s(h, sizeof h, b.s, b.len, NULL, 0);
    int64_t share = 300 + (int64_t)(((uint32_t)h[0] << 8 | h[1]) % 201); /* per mille of its life that is left when it is due */
    return not_after_ns - now_ns < life_ns / 1000 * share;
}
