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
#include <shoal/model/format.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
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
    assert_int_equal(member_save(&d, &e), 0);
    return d;
}

static void end(struct daemon *d)
{
    struct err e;
    loop_finish(d->loop);
    late_file_free(d->member_file);
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
    assert_int_equal(member_save(&d, &e), 0);
    assert_int_equal(load(dir, &stolen, &m), -E_CORRUPT);
    bytes_set(&d.identity.old_disk_key, NULL, 0);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    struct identity now = d.identity;
    d.identity = stolen;
    bytes_set(&d.identity.disk_key, now.link_secret.v, 32); /* as it was sealed at first */
    assert_int_equal(member_save(&d, &e), 0);
    stolen = d.identity;
    d.identity = now;
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
        assert_int_equal(member_save(&d, &e), 0);
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

/* ---- what the worker writes ---- */
struct block { int pipe[2]; };

static void wait_for_end(void *arg)
{
    struct block *b = arg;
    char c;
    assert_int_equal(read(b->pipe[0], &c, 1), 0);
    close(b->pipe[0]);
}

/* The disk is slow: what is written late from now on waits for go_on(). */
static void hold_worker(struct daemon *d, struct block *b)
{
    assert_int_equal(pipe(b->pipe), 0);
    assert_int_equal(loop_work(d->loop, LANE_LATE, wait_for_end, NULL, b), 0);
}

static void go_on(struct daemon *d, struct block *b)
{
    close(b->pipe[1]);
    loop_finish(d->loop);
}

static void add_node(struct membership *m, const char *id)
{
    struct node *n = REC_ADD(&m->nodes);
    str_set(&n->id, id);
    str_set(&n->status.addr, "10.0.0.1");
}

static ino_t file_number(const char *dir)
{
    AUTO_FREE char *path = path_join(dir, "membership.mp");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void a_table_waits_for_the_disk_and_the_loop_does_not(void **state)
{
    char dir[64];
    struct daemon d = begin(dir);
    struct membership table = { 0 }, m = { 0 };
    struct block b;
    struct err e;
    (void)state;
    add_node(&table, self);
    hold_worker(&d, &b);
    member_take_nodes(&d, table.nodes.v, 1, 10, false);
    add_node(&table, other);
    member_take_nodes(&d, table.nodes.v, 2, 11, false);
    assert_int_equal(d.member.nodes.n, 2);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    assert_int_equal(m.nodes.n, 0);
    go_on(&d, &b);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    assert_int_equal(m.nodes.n, 2);
    assert_int_equal(m.nodes_index, 11);

    hold_worker(&d, &b); /* an older table is queued, and another behind it */
    member_take_nodes(&d, table.nodes.v, 1, 12, false);
    member_take_nodes(&d, table.nodes.v, 2, 13, false);
    d.member.starts = 7;
    assert_int_equal(member_save(&d, &e), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(load(dir, &d.identity, &m), 0);
        assert_int_equal(m.starts, 7);
        assert_int_equal(m.nodes_index, 13);
        if (i == 0)
            go_on(&d, &b);
    }

    hold_worker(&d, &b); /* the cluster is left meanwhile */
    member_take_nodes(&d, table.nodes.v, 1, 14, false);
    member_stop(&d);
    membership_remove(dir);
    go_on(&d, &b);
    assert_int_equal(load(dir, &d.identity, &m), -E_NOT_FOUND);
    rec_clear(&membership_rec, &m);
    rec_clear(&membership_rec, &table);
    end(&d);
}

static void what_comes_and_goes_with_a_machine_is_not_kept(void **state)
{
    static const struct { int64_t down, ready; const char *addr; enum node_role role; bool keys, kept; } changes[] = {
        { 5, 0, "10.0.0.1", ROLE_WORKER, false, false }, { 0, 9, "10.0.0.1", ROLE_WORKER, false, false },
        { 0, 9, "10.0.0.2", ROLE_WORKER, false, true }, { 0, 9, "10.0.0.2", ROLE_MANAGER, false, true },
        { 0, 9, "10.0.0.2", ROLE_MANAGER, false, false }, { 0, 9, "10.0.0.2", ROLE_MANAGER, true, true } };
    char dir[64];
    struct daemon d = begin(dir);
    struct membership table = { 0 };
    (void)state;
    add_node(&table, other);
    table.nodes.v[0].spec.role = ROLE_WORKER;
    member_take_nodes(&d, table.nodes.v, 1, 1, false);
    loop_finish(d.loop);
    for (size_t i = 0; i < ARRAY_N(changes); i++) {
        ino_t before = file_number(dir);
        struct node *n = &table.nodes.v[0];
        n->status.state = changes[i].down ? NODE_DOWN : NODE_READY;
        n->down_since = changes[i].down;
        n->ready_since = changes[i].ready;
        n->spec.role = changes[i].role;
        str_set(&n->status.addr, changes[i].addr);
        member_take_nodes(&d, n, 1, i + 2, changes[i].keys);
        loop_finish(d.loop);
        assert_int_equal(file_number(dir) != before, changes[i].kept);
        assert_true(node_equal(&d.member.nodes.v[0], n));
    }

    AUTO_FREE char *tmp = path_join(dir, "membership.mp.tmp"); /* a disk that fails, then no more */
    struct membership m = { 0 };
    assert_int_equal(mkdir(tmp, 0700), 0);
    table.nodes.v[0].spec.role = ROLE_WORKER;
    member_take_nodes(&d, table.nodes.v, 1, 20, false);
    loop_finish(d.loop);
    assert_int_equal(rmdir(tmp), 0);
    table.nodes.v[0].ready_since++;
    member_take_nodes(&d, table.nodes.v, 1, 21, false);
    loop_finish(d.loop);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    assert_int_equal(m.nodes_index, 21);
    rec_clear(&membership_rec, &m);
    rec_clear(&membership_rec, &table);
    end(&d);
}

static void a_promise_keeps_the_older_program_out(void **state)
{
    char dir[64];
    struct daemon d = begin(dir);
    struct membership m = { 0 };
    struct err e;
    (void)state;
    d.member.format = FORMAT_MOST;
    assert_int_equal(member_save(&d, &e), 0);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    d.member.format = FORMAT_MOST + 1;
    assert_int_equal(member_save(&d, &e), 0);
    rec_clear(&membership_rec, &m);
    assert_int_equal(membership_load(dir, &d.identity, &m, &e), -E_UNSUPPORTED);
    assert_non_null(strstr(e.text, "upgrade this node; its containers run on"));
    rec_clear(&membership_rec, &m);
    end(&d);
}

static bool no_network(void *arg, const struct assignment *a, const struct map *suspects)
{
    (void)arg, (void)a, (void)suspects;
    return true;
}

static void no_more(void *arg)
{
    (void)arg;
}

static void an_assignment_waits_for_the_disk_and_ends_with_its_agent(void **state)
{
    static const struct executor_ops ops = { .network = no_network };
    char dir[64];
    struct daemon d = begin(dir);
    struct agent_config cfg = { .dir = dir, .node_id = self };
    struct agent_hooks hooks = { 0 };
    AUTO_FREE char *path = path_join(dir, "assignment.mp");
    (void)state;
    for (int freed = 1; freed >= 0; freed--) {
        struct block b;
        struct agent *a = agent_new(d.loop, &cfg, &hooks, &ops, NULL);
        hold_worker(&d, &b);
        agent_leave(a, no_more, NULL); /* its last assignment is an empty one */
        assert_false(file_exists(path));
        if (freed)
            agent_free(TAKE(a));
        go_on(&d, &b);
        assert_int_equal(file_exists(path), !freed);
        agent_free(a);
    }
    end(&d);
}

/* What a write at once could not bring to the disk goes with the next table, though that is the same; and the index on the
 * disk follows when it is a minute old. */
static void what_the_disk_is_behind_with_is_made_up_for(void **state)
{
    char dir[64];
    struct daemon d = begin(dir);
    struct membership table = { 0 }, m = { 0 };
    struct err e;
    (void)state;
    add_node(&table, other);
    member_take_nodes(&d, table.nodes.v, 1, 1, false);
    loop_finish(d.loop);
    AUTO_FREE char *path = path_join(dir, "membership.mp");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0); /* it cannot be replaced now */
    d.member.starts = 9;
    assert_true(member_save(&d, &e) < 0);
    assert_int_equal(rmdir(path), 0);
    member_take_nodes(&d, table.nodes.v, 1, 2, false);
    loop_finish(d.loop);
    assert_int_equal(load(dir, &d.identity, &m), 0);
    assert_true(m.starts == 9 && m.nodes_index == 2);
    for (int aged = 0; aged < 2; aged++) {
        d.member_kept_ms -= aged * 60000;
        member_take_nodes(&d, table.nodes.v, 1, 3 + (uint64_t)aged, false);
        loop_finish(d.loop);
        assert_int_equal(load(dir, &d.identity, &m), 0);
        assert_int_equal(m.nodes_index, aged ? 4 : 2);
    }
    rec_clear(&membership_rec, &m);
    rec_clear(&membership_rec, &table);
    end(&d);
}

/* ---- the numbers of what goes to another manager by detours ---- */
static uint64_t number_of(struct daemon *d, struct relay *r, const uint8_t other_public[32])
{
    enum { HEAD = 51, NONCE = 24, TAG = 16, SIZE = 8 + 8 + 1 };
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
    assert_true(le_get(plain + 8, 8) == d->member.certificate->raft_id); /* the office that it speaks for */
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
        cmocka_unit_test(a_table_waits_for_the_disk_and_the_loop_does_not),
        cmocka_unit_test(what_comes_and_goes_with_a_machine_is_not_kept),
        cmocka_unit_test(what_the_disk_is_behind_with_is_made_up_for),
        cmocka_unit_test(a_promise_keeps_the_older_program_out),
        cmocka_unit_test(an_assignment_waits_for_the_disk_and_ends_with_its_agent),
        cmocka_unit_test(relay_numbers_rise_over_starts_whatever_the_clock_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
