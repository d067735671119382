/* What a node keeps about itself: ROOT/identity.mp (its keys, made once) and ROOT/membership.mp (its certificate
 * and the nodes it knows). Both only for root. */
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/node.h>
#include <unistd.h>

LOG_MODULE("node");

REC_DEFINE(identity)
REC_DEFINE(membership)

enum { IDENTITY_MAX_BYTES = 4096, MEMBERSHIP_MAX_BYTES = 64 << 20 };

void bytes_set(struct bytes *b, const void *p, uint32_t n)
{
    free(b->v);
    b->v = n ? xmemdup(p, n) : NULL;
    b->n = n;
}

static int load(const struct rec *rec, const char *path, size_t max, void *ret, struct err *e)
{
    AUTO_FREE char *data = NULL;
    size_t size;
    int r = file_read(path, max, &data, &size, e);
    if (r < 0)
        return r;
    r = rec_unpack(rec, ret, data, size, e);
    crypto_wipe(data, size);
    return r < 0 ? err_wrap(e, "%s", path) : 0;
}

static int save(const struct rec *rec, const char *path, const void *r, struct err *e)
{
    struct sb b;
    sb_init(&b, MEMBERSHIP_MAX_BYTES);
    rec_pack(rec, r, &b);
    int result = file_write_atomic(path, b.s, b.len, 0600, e);
    crypto_wipe(b.s, b.len);
    sb_done(&b);
    return result;
}

int identity_renew(const char *root, struct identity *ret, struct err *e)
{
    uint8_t secret[64], public[32];
    AUTO_FREE char *path = path_join(root, "identity.mp");
    crypto_dh_keypair(public, secret);
    bytes_set(&ret->link_secret, secret, 32);
    crypto_dh_keypair(public, secret);
    bytes_set(&ret->tunnel_secret, secret, 32);
    crypto_sign_keypair(public, secret);
    bytes_set(&ret->sign_secret, secret, 64);
    crypto_random(secret, 32);
    bytes_set(&ret->disk_key, secret, 32);
    crypto_wipe(secret, sizeof secret);
    return save(&identity_rec, path, ret, e);
}

int identity_load(const char *root, struct identity *ret, struct err *e)
{
    AUTO_FREE char *path = path_join(root, "identity.mp");
    int r = load(&identity_rec, path, IDENTITY_MAX_BYTES, ret, e);
    if (r == 0 && (ret->link_secret.n != 32 || ret->sign_secret.n != 64 || ret->tunnel_secret.n != 32 || ret->disk_key.n != 32))
        return err_set(e, E_CORRUPT, "%s lacks a key; if it cannot be restored, remove it and join as a new node", path);
    return r == -E_NOT_FOUND ? identity_renew(root, ret, e) : r;
}

int node_log_keys(const char *root, uint8_t keys[2][32], struct err *e)
{
    AUTO_FREE char *path = path_join(root, "identity.mp");
    struct identity id = { 0 };
    int n = 0, r = load(&identity_rec, path, IDENTITY_MAX_BYTES, &id, e);
    if (r == 0 && id.disk_key.n == 32)
        memcpy(keys[n++], id.disk_key.v, 32);
    rec_clear(&identity_rec, &id);
    return r < 0 && r != -E_NOT_FOUND ? r : n;
}

int membership_load(const char *root, struct membership *ret, struct err *e)
{
    AUTO_FREE char *path = path_join(root, "membership.mp");
    int r = load(&membership_rec, path, MEMBERSHIP_MAX_BYTES, ret, e);
    if (r == 0 && !ret->certificate)
        return err_set(e, E_CORRUPT, "%s holds no certificate", path);
    return r;
}

int membership_save(const char *root, const struct membership *m, struct err *e)
{
    AUTO_FREE char *path = path_join(root, "membership.mp");
    return save(&membership_rec, path, m, e);
}

void membership_remove(const char *root)
{
    static const char *const names[] = { "membership.mp", "raft", "agent" };
    struct err e;
    for (unsigned i = 0; i < ARRAY_N(names); i++) {
        AUTO_FREE char *path = path_join(root, names[i]);
        if (i == 0)
            unlink(path);
        else if (file_remove_tree(path, &e) < 0)
            log_warn("%s", e.text);
    }
}
