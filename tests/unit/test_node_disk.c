/* What a node keeps on its disk: under which key, what opens it after a failure or a power cut, what a restart goes on
 * from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/le.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "node_internal.h"

static const char self[] = "aaaaaaaaaaaaaaaaaaaaaaaaa", other[] = "bbbbbbbbbbbbbbbbbbbbbbbbb";
static uint8_t ca_public[32], ca_secret[64];

static struct certificate *certificate_new(uint64_t epoch, int64_t not_before)
{
    struct certificate *c = xnew(struct certificate);
    uint8_t key[32] = { 'k' };
    str_set(&c->cluster_id, "cluster");
    str_set(&c->node_id, self);
    c->role = ROLE_MANAGER;
    c->raft_id = 5;
    c->epoch = epoch;
    c->not_before = not_before;
    c->not_after = not_before + 3600 * SEC_NS;
    bytes_set(&c->link_key, key, 32);
    bytes_set(&c->sign_key, key, 32);
    bytes_set(&c->ca_public, ca_public, 32);
    certificate_sign(c, ca_secret);
    return c;
}

/* A manager's folder, its identity and membership; nothing runs. */
static struct daemon begin(char dir[64])
{
    struct daemon d = { .cfg.root = dir };
    struct err e;
    crypto_init();
    crypto_sign_keypair(ca_public, ca_secret);
    strcpy(dir, "/tmp/shoal-disk-XXXXXX");
    assert_non_null(mkdtemp(dir));
    d.loop = loop_new();
    assert_int_equal(identity_load(dir, &d.identity, &e), 0);
    d.member.certificate = certificate_new(0, clock_real_ns() - SEC_NS);
    assert_int_equal(membership_save(dir, &d.identity, &d.member, &e), 0);
    return d;
}

static void end(struct daemon *d)
{
    struct err e;
    loop_finish(d->loop);
    loop_free(d->loop);
    rec_clear(&identity_rec, &d->identity);
    rec_clear(&membership_rec, &d->member);
    assert_int_equal(file_remove_tree(d->cfg.root, &e), 0);
}

static int load(const char *dir, const struct identity *id, struct membership *ret)
{
    struct err e;
    rec_clear(&membership_rec, ret);
    return membership_load(dir, id, ret, &e);
}

static void keys_from_before_a_lock_open_nothing_after_it(void **state)
{
    char dir[64];
    struct daemon d = begin(dir);
    struct identity stolen = { 0 };
    struct membership m = { 0 };
    struct err e;
    (void)state;
    identity_copy(&stolen, &d.identity);
    uint8_t key[32];
    bytes_set(&d.identity.old_disk_key, d.identity.disk_key.v, 32);
    crypto_random(key, sizeof key);
    bytes_set(&d.identity.disk_key, key, 32);
    assert_int_equal(load(dir, &d.identity, &m), 0); /* the power failed between the two files */
    assert_int_equal(membership_save(dir, &d.identity, &d.member, &e), 0);
    assert_int_equal(load(dir, &stolen, &m), -E_CORRUPT);
    bytes_set(&d.identity.old_disk_key, NULL, 0);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    bytes_set(&stolen.disk_key, d.identity.link_secret.v, 32); /* as it was sealed at first */
    assert_int_equal(membership_save(dir, &stolen, &d.member, &e), 0);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    rec_clear(&membership_rec, &m);
    rec_clear(&identity_rec, &stolen);
    end(&d);
}

static void a_failed_unlock_opens_to_no_other_key(void **state)
{
    char dir[64];
    struct daemon d = begin(dir);
    const uint8_t key[32] = { 1 }, wrong[32] = { 2 };
    struct err e;
    (void)state;
    assert_int_equal(identity_save(dir, &d.identity, key, &e), 0);
    AUTO_FREE char *path = path_join(dir, "membership.mp"), *aside = path_join(dir, "aside");
    assert_int_equal(rename(path, aside), 0);
    rec_clear(&identity_rec, &d.identity);
    rec_clear(&membership_rec, &d.member);
    assert_int_equal(identity_load(dir, &d.identity, &e), 0);
    assert_true(identity_is_sealed(&d.identity));
    assert_int_equal(lock_open(&d, wrong, &e), -E_DENIED);
    assert_int_equal(lock_open(&d, key, &e), -E_NOT_FOUND);
    assert_int_equal(rename(aside, path), 0);
    assert_int_equal(lock_open(&d, wrong, &e), -E_DENIED);
    assert_int_equal(lock_open(&d, key, &e), 0);
    assert_string_equal(d.member.certificate->node_id, self);
    end(&d);
}

static void the_table_of_another_epoch_counts_for_nothing_on_the_disk_either(void **state)
{
    for (int role = 0; role < 2; role++) { /* the role may change with it */
        char dir[64];
        struct daemon d = begin(dir);
        struct membership m = { 0 };
        struct err e;
        struct sb b;
        d.member.nodes_index = 1000;
        assert_int_equal(membership_save(dir, &d.identity, &d.member, &e), 0);
        struct certificate *next = certificate_new(1, clock_real_ns());
        if (role)
            next->raft_id = 6;
        certificate_sign(next, ca_secret);
        sb_init(&b, 0);
        rec_pack(&certificate_rec, next, &b);
        member_certified(&d, b.s, b.len);
        assert_int_equal(load(dir, &d.identity, &m), 0);
        assert_int_equal(m.certificate->epoch, 1);
        assert_int_equal(m.nodes_index, 0);
        rec_clear(&membership_rec, &m);
        certificate_clear(next);
        free(next);
        sb_done(&b);
        end(&d);
    }
}

/* ---- the numbers of what goes to another manager by detours ---- */
static uint64_t number_of(struct daemon *d, struct relay *r, const uint8_t other_public[32])
{
    enum { HEAD = 51, NONCE = 24, TAG = 16, SIZE = 8 + 1 };
    static const char label[] = "shoal raft between two managers";
    uint8_t shared[32], key[32], plain[SIZE];
    struct blake2s h;
    struct sb b;
    sb_init(&b, 0);
    assert_true(relay_envelope(r, other, "x", 1, &b));
    assert_int_equal(b.len, HEAD + NONCE + SIZE + TAG);
    assert_true(crypto_dh(shared, d->identity.link_secret.v, other_public));
    blake2s_init(&h, 32, shared, 32);
    blake2s_add(&h, label, sizeof label);
    blake2s_add(&h, "cluster", 7);
    blake2s_end(&h, key);
    const uint8_t *p = (const uint8_t *)b.s;
    assert_true(crypto_xaead_open(plain, p + HEAD + NONCE, SIZE + TAG, p, HEAD, p + HEAD, key));
    sb_done(&b);
    return le_get(plain, 8);
}

static void relay_numbers_rise_over_starts_whatever_the_clock_says(void **state)
{
    char dir[64];
    struct daemon d = begin(dir);
    uint8_t public[32], secret[32];
    (void)state;
    crypto_dh_keypair(public, secret);
    struct node *n = REC_ADD(&d.member.nodes);
    str_set(&n->id, other);
    n->spec.role = ROLE_MANAGER;
    n->raft_id = 6;
    bytes_set(&n->link_key, public, 32);
    uint64_t first[2], last = 0;
    for (int again = 0; again < 2; again++) {
        struct relay *r = relay_new(&d);
        first[again] = number_of(&d, r, public);
        last = number_of(&d, r, public);
        assert_true(last > first[again]);
        relay_free(r);
    }
    assert_true(first[0] == first[1]); /* no clock is in them */
    assert_true(first[0] > (uint64_t)clock_real_ns());
    d.member.starts++;
    struct relay *r = relay_new(&d);
    assert_true(number_of(&d, r, public) > last + (UINT64_C(1) << 32));
    relay_free(r);
    end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_from_before_a_lock_open_nothing_after_it),
        cmocka_unit_test(a_failed_unlock_opens_to_no_other_key),
        cmocka_unit_test(the_table_of_another_epoch_counts_for_nothing_on_the_disk_either),
        cmocka_unit_test(relay_numbers_rise_over_starts_whatever_the_clock_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
