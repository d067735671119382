/* What a node keeps about itself: ROOT/identity.mp (its keys, made once) and ROOT/membership.mp (its certificate
 * and the nodes and keys it knows). Both only for root; a locked manager's are sealed under the unlock key. */
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/planted.h>
#include <shoal/model/format.h>
#include <shoal/node.h>
#include <stdlib.h>
#include <unistd.h>

LOG_MODULE("node");

REC_DEFINE(identity)
REC_DEFINE(membership)

enum { IDENTITY_MAX_BYTES = 4096, MEMBERSHIP_MAX_BYTES = 64 << 20 };

static int load(const struct rec *rec, const char *path, const char *data, size_t size, void *ret, struct err *e)
{
    int r = rec_unpack(rec, ret, data, size, e);
    return r < 0 ? err_wrap(e, "%s", path) : 0;
}

static int save(const char *path, struct sb *b, struct err *e)
{
    int result = file_write_atomic(path, b->s, b->len, 0600, e);
    crypto_wipe(b->s, b->len);
    sb_done(b);
    return result;
}

/* ---- sealing: nonce | XChaCha20-Poly1305 ---- */
enum { NONCE_BYTES = CRYPTO_XNONCE_SIZE, SEAL_BYTES = NONCE_BYTES + CRYPTO_TAG_SIZE };

static void seal(struct sb *out, const struct sb *plain, const char *use, const uint8_t key[32])
{
    uint8_t nonce[NONCE_BYTES];
    AUTO_FREE uint8_t *sealed = xcalloc(1, plain->len + CRYPTO_TAG_SIZE);
    crypto_random(nonce, sizeof nonce);
    crypto_xaead_seal(sealed, plain->s, plain->len, use, strlen(use), nonce, key);
    sb_add(out, nonce, sizeof nonce);
    sb_add(out, sealed, plain->len + CRYPTO_TAG_SIZE);
}

/* size - SEAL_BYTES bytes, heap; NULL: another key, or damaged. */
static uint8_t *open_sealed(const void *p, size_t size, const char *use, const uint8_t key[32])
{
    const uint8_t *in = p;
    if (size < SEAL_BYTES)
        return NULL;
    uint8_t *plain = xcalloc(1, size - SEAL_BYTES + 1);
    if (crypto_xaead_open(plain, in + NONCE_BYTES, size - NONCE_BYTES, use, strlen(use), in, key))
        return plain;
    free(plain);
    return NULL;
}

/* ---- identity ---- */
static const char identity_use[] = "shoal identity 1";

int identity_save(const char *root, const struct identity *id, const uint8_t *unlock_key, struct err *e)
{
    AUTO_FREE char *path = path_join(root, "identity.mp");
    struct sb plain, file, sealed;
    sb_init(&plain, 0);
    rec_pack(&identity_rec, id, &plain);
    if (!unlock_key)
        return save(path, &plain, e);
    sb_init(&sealed, 0);
    seal(&sealed, &plain, identity_use, unlock_key);
    crypto_wipe(plain.s, plain.len);
    sb_done(&plain);
    struct identity outer = { .tunnel_secret = id->tunnel_secret, /* borrowed; the tunnel goes on while it is locked */
                              .sealed = { (uint8_t *)sealed.s, (uint32_t)sealed.len } };
    sb_init(&file, 0);
    rec_pack(&identity_rec, &outer, &file);
    sb_done(&sealed);
    return save(path, &file, e);
}

bool identity_is_sealed(const struct identity *id)
{
    return id->sealed.n != 0;
}

static bool is_complete(const struct identity *id)
{
    return id->link_secret.n == 32 && id->sign_secret.n == 64 && id->tunnel_secret.n == 32 && id->disk_key.n == 32 &&
           (id->old_disk_key.n == 0 || id->old_disk_key.n == 32);
}

int refuse_unlock_key(struct err *e)
{
    return err_set(e, E_DENIED, "invalid key: it does not open this node; take the key that was in force when the node was "
                   "last up, `shoal unlock-key` on another manager shows the present one");
}

int identity_unseal(struct identity *id, const uint8_t unlock_key[32], struct err *e)
{
    struct identity inner = { 0 };
    uint8_t *plain = open_sealed(id->sealed.v, id->sealed.n, identity_use, unlock_key);
    if (!plain)
        return refuse_unlock_key(e);
    size_t size = id->sealed.n - SEAL_BYTES;
    int r = rec_unpack(&identity_rec, &inner, plain, size, e);
    crypto_wipe(plain, size);
    free(plain);
    if (r == 0 && (!is_complete(&inner) || id->tunnel_secret.n != 32 || !crypto_equal(inner.tunnel_secret.v, id->tunnel_secret.v, 32)))
        r = err_set(e, E_CORRUPT, "the sealed identity lacks a key; remove the node and join it anew");
    if (r < 0) {
        rec_clear(&identity_rec, &inner);
        return r;
    }
    struct bytes same = inner.tunnel_secret; /* the overlay has borrowed the other copy */
    inner.tunnel_secret = id->tunnel_secret;
    id->tunnel_secret = same;
    rec_clear(&identity_rec, id);
    *id = inner;
    return 0;
}

int identity_renew(const char *root, struct identity *ret, struct err *e)
{
    uint8_t secret[64], public[32];
    rec_clear(&identity_rec, ret);
    crypto_dh_keypair(public, secret);
    bytes_set(&ret->link_secret, secret, 32);
    crypto_dh_keypair(public, secret);
    bytes_set(&ret->tunnel_secret, secret, 32);
    crypto_sign_keypair(public, secret);
    bytes_set(&ret->sign_secret, secret, 64);
    crypto_random(secret, 32);
    bytes_set(&ret->disk_key, secret, 32);
    crypto_wipe(secret, sizeof secret);
    return identity_save(root, ret, NULL, e);
}

int identity_load(const char *root, struct identity *ret, struct err *e)
{
    AUTO_FREE char *path = path_join(root, "identity.mp");
    AUTO_FREE char *data = NULL;
    size_t size;
    int r = file_read(path, IDENTITY_MAX_BYTES, &data, &size, e);
    if (r == -E_NOT_FOUND)
        return identity_renew(root, ret, e);
    if (r == 0) {
        r = load(&identity_rec, path, data, size, ret, e);
        crypto_wipe(data, size);
    }
    if (r == 0 && (identity_is_sealed(ret) ? ret->tunnel_secret.n != 32 : !is_complete(ret)))
        return err_set(e, E_CORRUPT, "%s lacks a key; if it cannot be restored, remove it and join as a new node", path);
    return r;
}

/* A sealed one's too, with the unlock key in the environment. */
int node_log_keys(const char *root, uint8_t keys[2][32], struct err *e)
{
    AUTO_FREE char *path = path_join(root, "identity.mp");
    struct identity id = { 0 };
    uint8_t unlock[32];
    const char *text = getenv("SHOAL_UNLOCK_KEY");
    int n = 0, r = file_exists(path) ? identity_load(root, &id, e) : 0;
    if (r == 0 && identity_is_sealed(&id))
        r = text && unlock_key_parse(unlock, text) ? identity_unseal(&id, unlock, e)
            : err_set(e, E_DENIED, "%s is locked; put the unlock key (`shoal unlock-key` on another manager) into SHOAL_UNLOCK_KEY", path);
    if (r == 0 && id.disk_key.n == 32)
        memcpy(keys[n++], id.disk_key.v, 32);
    if (r == 0 && id.old_disk_key.n == 32)
        memcpy(keys[n++], id.old_disk_key.v, 32);
    crypto_wipe(unlock, sizeof unlock);
    rec_clear(&identity_rec, &id);
    return r < 0 ? r : n;
}

/* ---- membership ---- */
static const char membership_use[] = "shoal membership 1", membership_magic[8] = "shoalmb1";

static void membership_key(uint8_t key[32], const struct bytes *secret)
{
    crypto_blake2s(key, 32, membership_use, sizeof membership_use, secret->v, 32);
}

static uint8_t *membership_open(const struct identity *id, const void *p, size_t size)
{
    const struct bytes *secrets[] = { &id->disk_key, &id->old_disk_key, &id->link_secret /* as at first */ };
    uint8_t key[32], *plain = NULL;
    for (unsigned i = 0; i < ARRAY_N(secrets) && !plain; i++)
        if (secrets[i]->n == 32) {
            membership_key(key, secrets[i]);
            plain = open_sealed(p, size, membership_use, key);
        }
    crypto_wipe(key, sizeof key);
    return plain;
}

int membership_load(const char *root, const struct identity *id, struct membership *ret, struct err *e)
{
    AUTO_FREE char *path = path_join(root, "membership.mp");
    AUTO_FREE char *data = NULL;
    size_t size;
    int r = file_read(path, MEMBERSHIP_MAX_BYTES, &data, &size, e);
    if (r < 0)
        return r;
    if (size > sizeof membership_magic && !memcmp(data, membership_magic, sizeof membership_magic)) {
        size -= sizeof membership_magic;
        char *plain = (char *)membership_open(id, data + sizeof membership_magic, size);
        if (!plain)
            return err_set(e, E_CORRUPT, "%s is damaged, or of another node than identity.mp beside it; restore both, or remove "
                           "both and join as a new node", path);
        free(data);
        data = plain;
        size -= SEAL_BYTES;
    } /* else it is from before it was sealed */
    r = load(&membership_rec, path, data, size, ret, e);
    crypto_wipe(data, size);
    if (r == 0 && !ret->certificate)
        return err_set(e, E_CORRUPT, "%s holds no certificate", path);
    if (r == 0 && CLUSTER_BUG != 27)
        r = format_check(MAX(ret->format, UINT64_C(1)), e);
    return r;
}

void membership_pack(const struct identity *id, const struct membership *m, struct sb *ret)
{
    struct sb plain;
    uint8_t key[32];
    sb_init(&plain, MEMBERSHIP_MAX_BYTES);
    rec_pack(&membership_rec, m, &plain);
    sb_init(ret, 0);
    sb_add(ret, membership_magic, sizeof membership_magic);
    membership_key(key, &id->disk_key);
    seal(ret, &plain, membership_use, key);
    crypto_wipe(key, sizeof key);
    crypto_wipe(plain.s, plain.len);
    sb_done(&plain);
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
