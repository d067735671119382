/* Join tokens: "SHOAL-1-<pin>-<secret>". The pin is SHA-256 of the cluster's public key, so the first contact
 * is authenticated by the joiner; the secret authenticates the joiner. Which role it gives is the manager's
 * knowledge, not the token's text. Beside the two standing tokens there are grants: tokens that expire or are good for
 * one node. Their text is shown once and kept by nobody. */
#include "manager_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

enum { PIN_DIGITS = 64, SECRET_DIGITS = 25 };

static void pin_of(char out[PIN_DIGITS + 1], const uint8_t ca_public[32])
{
    uint8_t hash[32];
    crypto_sha256(hash, ca_public, 32);
    hex_encode(out, hash, sizeof hash);
}

void token_make(char out[128], const uint8_t ca_public[32])
{
    char pin[PIN_DIGITS + 1], secret[26];
    pin_of(pin, ca_public);
    id_random(secret);
    snprintf(out, 128, "SHOAL-1-%s-%s", pin, secret);
}

bool token_is_well_formed(const char *token)
{
    return token && strlen(token) == 8 + PIN_DIGITS + 1 + SECRET_DIGITS &&
           str_starts(token, "SHOAL-1-") && token[8 + PIN_DIGITS] == '-' &&
           strspn(token + 8, "0123456789abcdef") == PIN_DIGITS;
}

bool token_pins(const char *token, const uint8_t ca_public[32])
{
    char pin[PIN_DIGITS + 1];
    pin_of(pin, ca_public);
    return token_is_well_formed(token) && crypto_equal(token + 8, pin, PIN_DIGITS);
}

/* ---- unlock keys ---- */
static const char unlock_prefix[] = "SHOALKEY-1-";

void unlock_key_text(char out[UNLOCK_KEY_TEXT_BYTES], const uint8_t key[32])
{
    memcpy(out, unlock_prefix, sizeof unlock_prefix);
    hex_encode(out + sizeof unlock_prefix - 1, key, 32);
}

bool unlock_key_parse(uint8_t ret_key[32], const char *text)
{
    char hex[65] = "";
    text += strspn(text, " \t\r\n");
    if (!str_starts(text, unlock_prefix))
        return false;
    text += sizeof unlock_prefix - 1;
    if (strspn(text, "0123456789abcdef") != 64 || text[64 + strspn(text + 64, " \t\r\n")])
        return false;
    memcpy(hex, text, 64);
    return hex_decode(ret_key, 32, hex);
}

/* ---- grants ---- */
#define KEPT_NS (15 * 60 * SEC_NS) /* a used or expired one stays so long: its node may ask again, others are told why not */

static bool is_token(const char *given, const char *token)
{
    return given && token && strlen(given) == strlen(token) && crypto_equal(given, token, strlen(token));
}

static const struct join_grant *grant_of(const struct cluster *c, const char *token)
{
    uint8_t hash[32];
    if (!token)
        return NULL;
    crypto_sha256(hash, token, strlen(token));
    for (uint32_t i = 0; i < c->grants.n; i++)
        if (c->grants.v[i].hash.n == 32 && crypto_equal(c->grants.v[i].hash.v, hash, 32))
            return &c->grants.v[i];
    return NULL;
}

int token_check(const struct cluster *c, const char *token, const uint8_t link_key[32], bool member, int64_t now_ns,
                struct grant_use *ret, struct err *e)
{
    *ret = (struct grant_use){ .role = is_token(token, c->tokens->manager) ? ROLE_MANAGER : ROLE_WORKER };
    if (ret->role == ROLE_MANAGER || is_token(token, c->tokens->worker))
        return 0;
    const struct join_grant *g = grant_of(c, token);
    if (!g)
        return err_set(e, E_DENIED, "the join token is not valid (rotated, revoked, expired long ago or mistyped); get the "
                       "present one with `shoal join-token worker` on a manager");
    bool own = member && g->used_by.n == 32 && crypto_equal(g->used_by.v, link_key, 32);
    if (g->once && g->used_by.n && !own)
        return err_set(e, E_DENIED, "the join token was good for one node and has been used; make another with "
                       "`shoal join-token --once %s` on a manager", node_role_names[g->role]);
    if (now_ns >= g->expires_at && !own)
        return err_set(e, E_DENIED, "the join token has expired; make another with `shoal join-token --ttl 1h %s` on a manager",
                       node_role_names[g->role]);
    ret->role = (int)g->role;
    ret->grant = own ? NULL : g;
    return 0;
}

int64_t grant_end_ns(const struct join_grant *g)
{
    return (g->used_by.n ? g->updated_at : g->expires_at) + KEPT_NS;
}

bool grants_expire(struct cluster *c, int64_t now_ns)
{
    uint32_t before = c->grants.n;
    for (uint32_t i = c->grants.n; i-- > 0;)
        if (now_ns >= grant_end_ns(&c->grants.v[i]))
            rec_list_remove((struct rec_list *)(void *)&c->grants, &join_grant_rec, i);
    return c->grants.n != before;
}

int grant_add(struct cluster *c, int role, int64_t ttl_ns, bool once, int64_t now_ns, char ret_id[13], char ret_token[128],
              struct err *e)
{
    char id[26];
    uint8_t hash[32];
    if (ttl_ns < SEC_NS || ttl_ns > GRANT_TTL_MAX_NS)
        return err_set(e, E_INVALID, "TTL: a token lives from 1 second to 365 days");
    grants_expire(c, now_ns);
    if (c->grants.n >= JOIN_GRANTS_MAX)
        return err_set(e, E_BUSY, "there are %d join tokens outstanding already; revoke some with `shoal join-token rm`, list them "
                       "with `shoal join-token ls`", JOIN_GRANTS_MAX);
    id_random(id);
    id[12] = '\0';
    memcpy(ret_id, id, 13);
    token_make(ret_token, c->ca_public.v);
    crypto_sha256(hash, ret_token, strlen(ret_token));
    struct join_grant *g = REC_ADD(&c->grants);
    str_set(&g->id, id);
    g->role = (uint64_t)role;
    bytes_set(&g->hash, hash, 32);
    g->created_at = g->updated_at = now_ns;
    g->expires_at = now_ns + ttl_ns;
    g->once = once;
    return 0;
}

int grant_remove(struct cluster *c, const char *id, struct err *e)
{
    for (uint32_t i = 0; i < c->grants.n; i++)
        if (str_equal(c->grants.v[i].id, id)) {
            rec_list_remove((struct rec_list *)(void *)&c->grants, &join_grant_rec, i);
            return 0;
        }
    return err_set(e, E_NOT_FOUND, "there is no outstanding join token %s; list them with `shoal join-token ls`", id);
}
