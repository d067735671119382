/* Who may send what, and whose certificate counts: every message by every role, nodes that were removed, demoted, admitted
 * a moment ago, certificates by replaced cluster keys, clocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <stdio.h>

#include "node_internal.h"

#define S INT64_C(1000000000)
#define DAY (86400 * S)
static const int64_t now = 20000 * DAY;

struct ca { struct bytes public; uint8_t secret[64]; };

static void set(struct bytes *b, const void *p, uint32_t n)
{
    free(b->v);
    *b = (struct bytes){ xmemdup(p, n), n };
}

static struct ca ca_new(void)
{
    struct ca ca = { 0 };
    uint8_t public[32];
    crypto_init();
    crypto_sign_keypair(public, ca.secret);
    set(&ca.public, public, 32);
    return ca;
}

/* A certificate of node id whose link key is 32 times that letter. */
static struct certificate cert_new(const struct ca *ca, char id, int role, uint64_t serial)
{
    struct certificate c = { .role = role, .serial = serial, .not_before = now - DAY, .not_after = now + DAY };
    uint8_t key[32];
    char text[2] = { id, 0 };
    memset(key, id, sizeof key);
    str_set(&c.node_id, text);
    set(&c.link_key, key, 32);
    set(&c.sign_key, key, 32);
    set(&c.ca_public, ca->public.v, 32);
    certificate_sign(&c, ca->secret);
    return c;
}

static void link_add(struct certificate *c, const struct ca *from, const struct ca *to, int64_t until)
{
    struct ca_link *l = REC_ADD(&c->chain);
    set(&l->from, from->public.v, 32);
    set(&l->to, to->public.v, 32);
    l->until = until;
    ca_link_sign(l, from->secret);
}

static struct node entry_new(char id, int role)
{
    struct node n = { .spec.role = role };
    uint8_t key[32];
    memset(key, id, sizeof key);
    set(&n.link_key, key, 32);
    return n;
}

static void every_message_by_every_role(void **state)
{
    static const struct { uint8_t type; bool joiner, worker, voter, manager; } table[] = {
        { MSG_RAFT, false, false, true, true },        { MSG_HELLO, false, true, true, true },
        { MSG_NODES, false, false, false, true },
        { MSG_LEADER, false, false, false, true },     { MSG_ASSIGNMENT, false, false, false, true },
        { MSG_REPORT, false, true, true, true },       { MSG_REPORT_ACK, false, false, false, true },
        { MSG_JOIN, true, false, false, false },       { MSG_JOIN_REPLY, false, false, false, false },
        { MSG_LEAVE, false, true, true, true },        { MSG_LEAVE_OK, false, false, false, true },
        { MSG_HELD, false, true, true, true },         { MSG_IN_FORCE, false, true, true, true },
        { MSG_CERTIFICATE, false, false, false, true }, { MSG_RELAY, false, false, false, true },
    };
    bool known[256] = { false };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(table); i++) {
        known[table[i].type] = true;
        assert_int_equal(authority_allows(RIGHT_JOIN, table[i].type), table[i].joiner);
        assert_int_equal(authority_allows(RIGHT_WORKER, table[i].type), table[i].worker);
        assert_int_equal(authority_allows(RIGHT_WORKER | RIGHT_VOTER, table[i].type), table[i].voter);
        assert_int_equal(authority_allows(RIGHT_WORKER | RIGHT_MANAGER, table[i].type), table[i].manager);
        assert_false(authority_allows(0, table[i].type));
    }
    for (unsigned type = 0; type < 256; type++)
        if (!known[type]) /* whatever it means one day, nobody may send it today */
            assert_false(authority_allows(RIGHT_JOIN | RIGHT_WORKER | RIGHT_VOTER | RIGHT_MANAGER, (uint8_t)type));
    assert_true(authority_allows_channel(RIGHT_WORKER | RIGHT_MANAGER, CHANNEL_API));
    assert_false(authority_allows_channel(RIGHT_WORKER | RIGHT_VOTER, CHANNEL_API));
    assert_false(authority_allows_channel(RIGHT_JOIN, CHANNEL_API));
    assert_true(authority_allows_channel(RIGHT_WORKER | RIGHT_MANAGER, CHANNEL_CARRY));
    assert_false(authority_allows_channel(RIGHT_WORKER | RIGHT_VOTER, CHANNEL_CARRY));
    assert_false(authority_allows_channel(RIGHT_JOIN, CHANNEL_CARRY));
    assert_true(authority_allows_channel(RIGHT_WORKER, CHANNEL_IMAGES));
    assert_false(authority_allows_channel(RIGHT_JOIN, CHANNEL_IMAGES));
    assert_false(authority_allows_channel(0, CHANNEL_IMAGES)); /* removed, or not known yet */
    assert_false(authority_allows_channel(RIGHT_WORKER | RIGHT_MANAGER, 4));
}

static void the_newer_of_table_and_certificate_counts(void **state)
{
    struct ca ca = ca_new();
    struct certificate worker = cert_new(&ca, 'a', ROLE_WORKER, 10), manager = cert_new(&ca, 'a', ROLE_MANAGER, 10);
    struct node as_worker = entry_new('a', ROLE_WORKER), as_manager = entry_new('a', ROLE_MANAGER), other = entry_new('b', ROLE_MANAGER);
    const struct { const struct certificate *c; bool retired; struct authority_view v; unsigned rights; } cases[] = {
        { &worker, false, { &as_worker, 10, 0, false }, RIGHT_WORKER },
        { &manager, false, { &as_manager, 10, 0, false }, RIGHT_WORKER | RIGHT_MANAGER },
        { &worker, false, { &as_manager, 10, 0, false }, RIGHT_WORKER },                  /* promoted, not yet certified */
        { &manager, false, { &as_worker, 10, 0, false }, RIGHT_WORKER },                  /* demoted */
        { &manager, false, { &as_worker, 10, 0, true }, RIGHT_WORKER | RIGHT_VOTER },     /* demoted, not yet voted out */
        { &manager, false, { &as_worker, 9, 0, false }, RIGHT_WORKER | RIGHT_MANAGER },   /* the table is the older one */
        { &worker, false, { &as_worker, 10, 0, true }, RIGHT_WORKER },                    /* a worker never votes */
        { &manager, false, { NULL, 10, 0, true }, 0 },                                    /* removed */
        { &worker, false, { NULL, 11, 0, false }, 0 },
        { &worker, false, { NULL, 9, 0, false }, RIGHT_WORKER },                          /* admitted a moment ago */
        { &manager, false, { NULL, 9, 0, false }, RIGHT_WORKER | RIGHT_MANAGER },
        { &worker, true, { NULL, 9, 0, false }, 0 },                                      /* by a replaced key: the table alone */
        { &manager, true, { &as_worker, 9, 0, false }, RIGHT_WORKER },
        { &manager, true, { &as_manager, 9, 0, false }, RIGHT_WORKER | RIGHT_MANAGER },
        { &manager, false, { &other, 9, 0, true }, 0 },                                   /* another key under its id */
        { &manager, false, { &as_manager, 9, 1, true }, 0 },                              /* from before a recovery */
        { &worker, false, { &as_worker, 9, 1, false }, RIGHT_WORKER },
        { &worker, false, { NULL, 9, 1, false }, 0 },
        { NULL, false, { NULL, 0, 0, false }, RIGHT_JOIN },
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(cases); i++)
        if (authority_rights(cases[i].c, cases[i].retired, &cases[i].v) != cases[i].rights)
            fail_msg("case %u: %u", i, authority_rights(cases[i].c, cases[i].retired, &cases[i].v));
    certificate_clear(&worker);
    certificate_clear(&manager);
    node_clear(&as_worker);
    node_clear(&as_manager);
    node_clear(&other);
    free(ca.public.v);
}

static int trust(const struct certificate *own, const struct certificate *c, int64_t at)
{
    struct err e;
    return certificate_trust(own, c, at, &e);
}

static void links_lead_from_replaced_cluster_keys(void **state)
{
    struct ca a = ca_new(), b = ca_new(), c = ca_new(), foreign = ca_new();
    struct certificate old = cert_new(&a, 'o', ROLE_WORKER, 1), next = cert_new(&c, 'n', ROLE_WORKER, 2),
                       alien = cert_new(&foreign, 'x', ROLE_MANAGER, 3);
    (void)state;
    assert_int_equal(trust(&old, &old, now), CA_SAME);
    assert_int_equal(trust(&old, &next, now), -E_DENIED); /* no link yet */
    link_add(&next, &a, &b, now + 10 * DAY);
    assert_int_equal(trust(&old, &next, now), -E_DENIED); /* half the way */
    link_add(&next, &b, &c, now + 20 * DAY);
    assert_int_equal(trust(&old, &next, now), CA_NEWER);
    assert_int_equal(trust(&next, &old, now), CA_RETIRED);
    assert_int_equal(trust(&next, &old, now + 11 * DAY), -E_DENIED); /* its time is over */
    assert_int_equal(trust(&next, &alien, now), -E_DENIED);
    link_add(&alien, &foreign, &c, now + DAY); /* a key that vouches for ours makes itself no part of us */
    assert_int_equal(trust(&next, &alien, now), -E_DENIED);
    link_add(&alien, &a, &foreign, now + DAY);
    alien.chain.v[1].signature.v[5] ^= 1; /* forged */
    assert_int_equal(trust(&old, &alien, now), -E_DENIED);
    next.chain.v[0].until += DAY; /* the date is signed too */
    assert_int_equal(trust(&old, &next, now), -E_DENIED);
    assert_int_equal(trust(&next, &old, now), -E_DENIED);
    certificate_clear(&old);
    certificate_clear(&next);
    certificate_clear(&alien);
    free(a.public.v);
    free(b.public.v);
    free(c.public.v);
    free(foreign.public.v);
}

static void what_a_peer_shows_is_its_own_and_intact(void **state)
{
    struct ca ca = ca_new();
    struct certificate own = cert_new(&ca, 'o', ROLE_MANAGER, 1), c = cert_new(&ca, 'a', ROLE_WORKER, 1);
    struct sb b;
    struct err e;
    uint8_t key[32], thief[32];
    (void)state;
    memset(key, 'a', sizeof key);
    memset(thief, 't', sizeof thief);
    sb_init(&b, 0);
    rec_pack(&certificate_rec, &c, &b);
    struct certificate got = { 0 };
    assert_int_equal(certificate_of_peer(&own, key, b.s, b.len, now, &got, &e), CA_SAME);
    assert_string_equal(got.node_id, "a");
    certificate_clear(&got);
    assert_int_equal(certificate_of_peer(&own, thief, b.s, b.len, now, &got, &e), -E_DENIED); /* a stolen certificate */
    certificate_clear(&got);
    for (size_t i = 0; i < b.len; i++) { /* no byte may differ */
        b.s[i] ^= 1;
        assert_true(certificate_of_peer(&own, key, b.s, b.len, now, &got, &e) < 0);
        certificate_clear(&got);
        b.s[i] ^= 1;
    }
    sb_done(&b);
    certificate_clear(&own);
    certificate_clear(&c);
    free(ca.public.v);
}

/* Time is handed in. */
static void who_slept_past_expiry_comes_back_if_the_table_lists_it(void **state)
{
    struct ca ca = ca_new();
    struct certificate c = cert_new(&ca, 'a', ROLE_WORKER, 10);
    struct node entry = entry_new('a', ROLE_WORKER), other = entry_new('b', ROLE_WORKER);
    struct authority_view listed = { &entry, 20, 0, false }, newer = { NULL, 5, 0, false }, removed = { NULL, 20, 0, false },
                          another = { &other, 5, 0, false };
    struct err e;
    (void)state;
    assert_int_equal(authority_admit(&c, false, &listed, now, &e), 0);
    assert_int_equal(authority_admit(&c, false, &listed, now + 400 * DAY, &e), 0);
    assert_int_equal(authority_admit(&c, true, &listed, now + 400 * DAY, &e), 0); /* certificate_trust() ends that one */
    assert_int_equal(authority_admit(&c, false, &newer, now, &e), 0);
    assert_int_equal(authority_admit(&c, false, &newer, now + 400 * DAY, &e), -E_DENIED);
    assert_non_null(strstr(e.text, "check both clocks"));
    assert_int_equal(authority_admit(&c, false, &removed, now, &e), -E_DENIED);
    assert_non_null(strstr(e.text, "no member any more"));
    assert_int_equal(authority_admit(&c, false, &another, now, &e), -E_DENIED); /* its id with another key */
    certificate_clear(&c);
    node_clear(&entry);
    node_clear(&other);
    free(ca.public.v);
}

static void clocks_may_differ_by_an_hour(void **state)
{
    struct ca ca = ca_new();
    struct certificate c = cert_new(&ca, 'a', ROLE_WORKER, 1);
    struct err e;
    (void)state;
    assert_int_equal(certificate_check_time(&c, c.not_before - 3599 * S, &e), 0);
    assert_int_equal(certificate_check_time(&c, c.not_before - 3601 * S, &e), -E_DENIED);
    assert_int_equal(certificate_check_time(&c, c.not_after + 3599 * S, &e), 0);
    assert_int_equal(certificate_check_time(&c, c.not_after + 3601 * S, &e), -E_DENIED);
    certificate_clear(&c);
    free(ca.public.v);
}

static void renewal_is_spread_over_a_fifth_of_a_life(void **state)
{
    const int64_t life = 100 * DAY;
    int64_t first = INT64_MAX, last = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        char id[16];
        snprintf(id, sizeof id, "node%d", i);
        assert_false(certificate_is_due(id, now + life, life, now + life / 2 - DAY));
        assert_true(certificate_is_due(id, now + life, life, now + life * 7 / 10 + DAY));
        int64_t at = now;
        while (!certificate_is_due(id, now + life, life, at))
            at += DAY / 10;
        first = at < first ? at : first;
        last = at > last ? at : last;
    }
    assert_true(last - first > life * 19 / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_by_every_role),
        cmocka_unit_test(the_newer_of_table_and_certificate_counts),
        cmocka_unit_test(links_lead_from_replaced_cluster_keys),
        cmocka_unit_test(what_a_peer_shows_is_its_own_and_intact),
        cmocka_unit_test(who_slept_past_expiry_comes_back_if_the_table_lists_it),
        cmocka_unit_test(clocks_may_differ_by_an_hour),
        cmocka_unit_test(renewal_is_spread_over_a_fifth_of_a_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
