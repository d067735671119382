/* What a node keeps on its disk: under which key, what opens it after a failure or a power cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "node_internal.h"

static const char self[] = "aaaaaaaaaaaaaaaaaaaaaaaaa";
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_from_before_a_lock_open_nothing_after_it),
        cmocka_unit_test(a_failed_unlock_opens_to_no_other_key),
        cmocka_unit_test(the_table_of_another_epoch_counts_for_nothing_on_the_disk_either),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
