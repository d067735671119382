/* Autolock: a manager's keys and what it knows of the cluster are sealed on its disk under the unlock key, which lives in
 * the replicated state and in people's safes only. The daemon follows the cluster object: sealed or not, under which key;
 * whenever the lock changes, the key of the log and of membership.mp becomes a new one, for the old one was readable
 * before. */
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>

LOG_MODULE("lock");

enum { LOOK_MS = 500 };

static void lock_look(void *arg);

static void look_again(struct daemon *d)
{
    if (!d->lock_timer)
        d->lock_timer = loop_timer_new(d->loop, lock_look, d);
    loop_timer_set(d->lock_timer, LOOK_MS);
}

const uint8_t *lock_key(const struct daemon *d)
{
    return d->lock.on ? d->lock.key : NULL;
}

/* What the cluster wants of this node's disk. False: it is not known yet. */
static bool wanted_lock(const struct daemon *d, struct lock *ret)
{
    const struct cluster *c = d->manager ? store_cluster(manager_store(d->manager)) : NULL;
    *ret = (struct lock){ 0 };
    if (!d->manager) /* a worker keeps nothing that needs it; a manager whose log could not be opened keeps all */
        return d->member.certificate->role != ROLE_MANAGER;
    if (!c)
        return false;
    if (c->spec.encryption.autolock && c->unlock_key.n == 32) {
        ret->on = true;
        memcpy(ret->key, c->unlock_key.v, 32);
    }
    return true;
}

/* Whatever it says, the next look tells by the log's own state; a call that came to nothing is made again. */
static void on_rekeyed(void *arg, int result, const struct err *e)
{
    struct daemon *d = arg;
    if (result < 0)
        log_debug("new key of the log: %s", e->text);
    d->rekey_pending = result < 0;
    look_again(d);
}

static bool is_rekeying(const struct daemon *d)
{
    struct raft_status s;
    if (!d->manager)
        return false;
    manager_raft_status(d->manager, &s);
    return s.rekeying;
}

/* One step of a new key for the log: it is made and kept beside the one in use before anything is sealed with it, and the
 * old one is kept until nothing is. True: the identity changed. */
static bool rekey_step(struct daemon *d)
{
    struct identity *id = &d->identity;
    uint8_t key[32];
    if (d->manager && (d->rekey_pending || is_rekeying(d)))
        return false;
    d->rekey_pending = false; /* who was demoted meanwhile has no log any more */
    if (id->old_disk_key.n) {
        bytes_set(&id->old_disk_key, NULL, 0);
        return true;
    }
    if (!id->rekey_due || !d->manager)
        return false;
    crypto_random(key, sizeof key);
    bytes_set(&id->old_disk_key, id->disk_key.v, 32);
    bytes_set(&id->disk_key, key, 32);
    crypto_wipe(key, sizeof key);
    id->rekey_due = false;
    d->rekey_pending = true;
    return true;
}

/* Nothing was sealed with it yet. */
static void rekey_undo(struct daemon *d)
{
    struct identity *id = &d->identity;
    bytes_set(&id->disk_key, id->old_disk_key.v, 32);
    bytes_set(&id->old_disk_key, NULL, 0);
    id->rekey_due = true;
    d->rekey_pending = false;
}

/* What seals membership.mp must be in identity.mp before, and until another does. */
static int save_all(struct daemon *d, bool new_key, struct err *e)
{
    int r = new_key ? identity_save(d->cfg.root, &d->identity, lock_key(d), e) : 0;
    if (r < 0) {
        rekey_undo(d);
        return r;
    }
    r = member_save(d, e);
    return r < 0 || new_key ? r : identity_save(d->cfg.root, &d->identity, lock_key(d), e);
}

void lock_reconcile(struct daemon *d)
{
    struct lock want;
    struct err e = { 0 };
    if (d->locked || !d->member.certificate || !wanted_lock(d, &want))
        return;
    bool other = want.on != d->lock.on || (want.on && !crypto_equal(want.key, d->lock.key, 32));
    d->identity.rekey_due |= other && want.on;
    d->lock = want;
    d->lock_unsaved |= other;
    bool was_pending = d->rekey_pending;
    d->lock_unsaved |= rekey_step(d);
    if (d->lock_unsaved && save_all(d, d->rekey_pending && !was_pending, &e) < 0) {
        log_warn("%s", e.text);
        look_again(d); /* nothing is sealed with a key that is not kept */
        return;
    }
    d->lock_unsaved = false;
    if (other)
        log_info("this manager's disk is %s", want.on ? "locked: after a restart it needs the unlock key" : "not locked any more");
    crypto_wipe(&want, sizeof want);
    if (d->rekey_pending && d->manager)
        manager_set_disk_key(d->manager, d->identity.disk_key.v, on_rekeyed, d);
    else if (d->identity.old_disk_key.n || d->identity.rekey_due)
        look_again(d);
}

static void lock_look(void *arg)
{
    lock_reconcile(arg);
}

int lock_open(struct daemon *d, const uint8_t key[32], struct err *e)
{
    struct membership m = { 0 };
    int r = 0;
    if (identity_is_sealed(&d->identity))
        r = identity_unseal(&d->identity, key, e);
    else if (!crypto_equal(key, d->lock.key, 32)) /* opened before, but not what comes behind it */
        r = refuse_unlock_key(e);
    if (r < 0)
        return r;
    d->lock.on = true;
    memcpy(d->lock.key, key, 32);
    r = membership_load(d->cfg.root, &d->identity, &m, e);
    if (r < 0) {
        rec_clear(&membership_rec, &m);
        return r;
    }
    d->member = m;
    return 0;
}
