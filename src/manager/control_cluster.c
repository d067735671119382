/* Control of the cluster object: its spec, join tokens, keys. */
#include "control.h"
#include <shoal/base/file.h>

enum { CHANGE_TRIES = 20 };

/* ---- the spec, at the version its writer saw ---- */
static int change_lock(struct cluster *c, unsigned rotate, struct err *e)
{
    uint8_t key[32];
    if (!c->spec.encryption.autolock) {
        bytes_set(&c->unlock_key, NULL, 0);
        return rotate & ROTATE_UNLOCK_KEY ? err_set(e, E_INVALID, "autolock is off, there is no unlock key to rotate; turn it on "
                                                    "with `shoal cluster update --autolock`") : 0;
    }
    if (c->unlock_key.n && !(rotate & ROTATE_UNLOCK_KEY))
        return 0;
    crypto_random(key, sizeof key);
    bytes_set(&c->unlock_key, key, sizeof key);
    crypto_wipe(key, sizeof key);
    return 0;
}

static int change_spec(struct cluster *c, struct cluster_spec *spec, unsigned rotate, struct err *e)
{
    char token[128];
    bool new_key = spec->ca.force_rotate > c->spec.ca.force_rotate;
    cluster_spec_clear(&c->spec);
    c->spec = *spec;
    *spec = (struct cluster_spec){ 0 };
    token_make(token, c->ca_public.v);
    if (rotate & ROTATE_WORKER_TOKEN)
        str_set(&c->tokens->worker, token);
    token_make(token, c->ca_public.v);
    if (rotate & ROTATE_MANAGER_TOKEN)
        str_set(&c->tokens->manager, token);
    int r = change_lock(c, rotate, e);
    if (r < 0)
        return r;
    return new_key ? rotation_ca_begin(c, clock_real_ns(), e) : 0;
}

void control_cluster_update(struct manager *m, uint64_t version, struct cluster_spec *spec, unsigned rotate,
                            manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    struct cluster c = { 0 };
    int r = control_ready(m, &e);
    if (r == 0)
        r = rec_check(&cluster_spec_rec, spec, &e);
    if (r == 0 && spec->ca.node_cert_expiry < 3600 * SEC_NS)
        r = err_set(&e, E_INVALID, "CAConfig.NodeCertExpiry: at least 1 hour, so that a renewal is never late");
    if (r == 0) {
        cluster_copy(&c, store_cluster(m->store));
        c.version.index = version;
        r = change_spec(&c, spec, rotate, &e);
    }
    if (r < 0)
        done(arg, r, &e);
    else
        control_update(m, TABLE_CLUSTER, &c, done, arg);
    cluster_clear(&c);
}

/* ---- changes that name no version: when another writer was faster, look again ---- */
struct change {
    struct manager *m;
    int (*make)(struct change *x, struct cluster *c, struct err *e);
    manager_done_fn *done;
    void *arg;
    unsigned tries;
    int role;
    int64_t ttl_ns;
    bool once;
    char id[13], token[128];
    char *ref;    /* the token that is to go */
    char *ret_id, *ret_token;
};

static void change_end(struct change *x, int result, const struct err *e)
{
    if (result == 0 && x->ret_token) {
        memcpy(x->ret_id, x->id, sizeof x->id);
        memcpy(x->ret_token, x->token, sizeof x->token);
    }
    x->done(x->arg, result, e);
    crypto_wipe(x->token, sizeof x->token);
    free(x->ref);
    free(x);
}

static void change_try(struct change *x);

static void on_changed(void *arg, int result, const struct err *e)
{
    struct change *x = arg;
    if (result == -E_STALE && x->tries++ < CHANGE_TRIES)
        change_try(x);
    else
        change_end(x, result, e);
}

static void change_try(struct change *x)
{
    struct err e = { 0 };
    struct cluster c = { 0 };
    int r = control_ready(x->m, &e);
    if (r == 0) {
        cluster_copy(&c, store_cluster(x->m->store));
        r = x->make(x, &c, &e);
    }
    if (r < 0)
        change_end(x, r, &e);
    else
        control_update(x->m, TABLE_CLUSTER, &c, on_changed, x);
    cluster_clear(&c);
}

static struct change *change_new(struct manager *m, int (*make)(struct change *, struct cluster *, struct err *),
                                 manager_done_fn *done, void *arg)
{
    struct change *x = xnew(struct change);
    *x = (struct change){ .m = m, .make = make, .done = done, .arg = arg };
    return x;
}

static int make_token(struct change *x, struct cluster *c, struct err *e)
{
    return grant_add(c, x->role, x->ttl_ns, x->once, clock_real_ns(), x->id, x->token, e);
}

void control_token_create(struct manager *m, int role, int64_t ttl_ns, bool once, char ret_id[13], char ret_token[128],
                          manager_done_fn *done, void *arg)
{
    struct change *x = change_new(m, make_token, done, arg);
    x->role = role;
    x->ttl_ns = ttl_ns;
    x->once = once;
    x->ret_id = ret_id;
    x->ret_token = ret_token;
    change_try(x);
}

static int remove_token(struct change *x, struct cluster *c, struct err *e)
{
    return grant_remove(c, x->ref, e);
}

void control_token_remove(struct manager *m, const char *id, manager_done_fn *done, void *arg)
{
    struct change *x = change_new(m, remove_token, done, arg);
    x->ref = xstrdup(id);
    change_try(x);
}

static int want_keys(struct change *x, struct cluster *c, struct err *e)
{
    (void)x;
    if (c->gossip_keys.n > 1)
        return err_set(e, E_BUSY, "a rotation of the gossip keys is under way; it ends when every node that is up has answered");
    c->keys_due = true;
    return 0;
}

void control_keys_rotate(struct manager *m, manager_done_fn *done, void *arg)
{
    change_try(change_new(m, want_keys, done, arg));
}
