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

int certificate_check_time(const struct certificate *c, int64_t now_ns, struct err *e)
{
    static const int64_t skew_ns = INT64_C(3600) * 1000000000;
    if (now_ns < c->not_before - skew_ns || now_ns > c->not_after + skew_ns)
        return err_set(e, E_DENIED, "the certificate of node %s is not valid now; check both clocks",
                       c->node_id);
    return 0;
}

bool certificate_is_due(int64_t not_after_ns, int64_t life_ns, int64_t now_ns)
{
    return not_after_ns - now_ns < life_ns / 2;
}
