/* The shell of gossip on real sockets: three nodes on 127.0.0.1 (and ::1) on one loop see each other, miss one that
 * falls silent, hear a goodbye, change keys, and take nothing from those who lack the key. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>
#include <shoal/gossip.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { N = 3, PATIENCE_MS = 30000, POLL_MS = 5 };

struct node {
    char id[8];
    struct gossip *g;
    uint16_t port;
    uint8_t sign_public[32], sign_secret[64], link_public[32], link_secret[32];
    char moved[64]; /* where this node heard that node2 is */
    enum gossip_state heard[N][16]; /* in order, about each node */
    unsigned n_heard[N], n_refused; /* of node2 */
};

static struct loop *loop;
static struct node nodes[N];
static const char *host;
static bool inside; /* a call of ours is under way: no hook may run */
static bool (*until)(void);
static int64_t deadline;
static struct loop_timer *poll_timer;
static const struct gossip_key_ref key_a = { .id = 1, .key = "first key" }, key_b = { .id = 2, .key = "second key" };

static void on_state(void *arg, const char *id, enum gossip_state state)
{
    struct node *n = arg;
    assert_false(inside);
    for (unsigned i = 0; i < N; i++)
        if (str_equal(id, nodes[i].id)) {
            assert_true(n->n_heard[i] < ARRAY_N(n->heard[i]));
            n->heard[i][n->n_heard[i]++] = state;
            return;
        }
    fail_msg("a state of \"%s\", which is no member", id);
}

static void on_address(void *arg, const char *id, const char *addr)
{
    assert_false(inside);
    if (str_equal(id, "node2"))
        snprintf(((struct node *)arg)->moved, sizeof nodes[0].moved, "%s", addr);
}

static void on_refused(void *arg, const char *id)
{
    assert_false(inside);
    assert_string_equal(id, "node2");
    ((struct node *)arg)->n_refused++;
}

static void on_poll(void *arg)
{
    (void)arg;
    if (until() || loop_now_ms(loop) > deadline)
        loop_stop(loop);
    else
        loop_timer_set(poll_timer, POLL_MS);
}

/* Runs the loop until cond holds; false: it did not in time. */
static bool run_until(bool (*cond)(void))
{
    until = cond;
    deadline = loop_now_ms(loop) + PATIENCE_MS;
    loop_timer_set(poll_timer, 0);
    loop_run(loop);
    return cond();
}

/* A UDP port nobody has now; 0: the family is not there. */
static uint16_t free_port(const char *addr)
{
    struct sockaddr_storage at = { .ss_family = strchr(addr, ':') ? AF_INET6 : AF_INET };
    struct sockaddr_in *a4 = (struct sockaddr_in *)&at;
    struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)&at;
    socklen_t len = sizeof at;
    AUTO_CLOSE int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    inet_pton(at.ss_family, addr, at.ss_family == AF_INET ? (void *)&a4->sin_addr : (void *)&a6->sin6_addr);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, at.ss_family == AF_INET ? sizeof *a4 : sizeof *a6) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) < 0)
        return 0;
    return ntohs(at.ss_family == AF_INET ? a4->sin_port : a6->sin6_port);
}

static struct gossip *open_node(const char *id, uint16_t port, const struct gossip_key_ref *key, struct node *n)
{
    const struct gossip_config cfg = { .node_id = id, .listen_addr = host, .addr = host, .port = port, .probe_ms = 80,
                                       .timeout_ms = 40, .incarnation = 1, .sign_secret = n->sign_secret,
                                       .link_secret = n->link_secret };
    const struct gossip_hooks hooks = { .arg = n, .state = on_state, .address = on_address, .refused = on_refused };
    struct gossip *g = NULL;
    struct err e = { 0 };
    if (gossip_open(&g, loop, &cfg, key, 1, &hooks, 1 + port, &e) < 0)
        fail_msg("%s", e.text);
    return g;
}

static void introduce(struct gossip *g, unsigned k)
{
    gossip_member(g, nodes[k].id, host, nodes[k].port, nodes[k].sign_public, nodes[k].link_public);
}

static void start_at(const char *addr)
{
    host = addr;
    loop = loop_new();
    poll_timer = loop_timer_new(loop, on_poll, NULL);
    for (unsigned i = 0; i < N; i++) {
        nodes[i] = (struct node){ .port = free_port(addr) };
        assert_int_not_equal(nodes[i].port, 0);
        snprintf(nodes[i].id, sizeof nodes[i].id, "node%u", i);
        crypto_sign_keypair(nodes[i].sign_public, nodes[i].sign_secret);
        crypto_dh_keypair(nodes[i].link_public, nodes[i].link_secret);
        nodes[i].g = open_node(nodes[i].id, nodes[i].port, &key_a, &nodes[i]);
    }
    inside = true;
    for (unsigned i = 0; i < N; i++)
        for (unsigned k = 0; k < N; k++)
            introduce(nodes[i].g, k); /* itself as well: ignored */
    inside = false;
}

static int start(void **state)
{
    (void)state;
    start_at("127.0.0.1");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N; i++)
        gossip_close(TAKE(nodes[i].g));
    loop_timer_free(poll_timer);
    loop_free(loop);
    return 0;
}

static uint64_t received(unsigned i)
{
    struct gossip_stats s;
    gossip_stats(nodes[i].g, &s);
    return s.n_received;
}

static uint64_t unsealed(unsigned i)
{
    struct gossip_stats s;
    gossip_stats(nodes[i].g, &s);
    return s.n_unsealed;
}

static bool all_alive(void)
{
    for (unsigned i = 0; i < N; i++)
        for (unsigned k = 0; k < N; k++)
            if (gossip_state_of(nodes[i].g, nodes[k].id) != GOSSIP_ALIVE)
                return false;
    return true;
}

/* All alive, and each heard enough that a silent one would have been missed. */
static bool have_talked(void)
{
    for (unsigned i = 0; i < N; i++)
        if (received(i) - unsealed(i) < 40)
            return false;
    return all_alive();
}

/* A stalled machine may raise a suspicion, which is refuted; nobody may be called worse. */
static void assert_nobody_missed(void)
{
    assert_true(run_until(all_alive));
    for (unsigned i = 0; i < N; i++)
        for (unsigned k = 0; k < N; k++)
            for (unsigned h = 0; h < nodes[i].n_heard[k]; h++)
                assert_true(nodes[i].heard[k][h] <= GOSSIP_SUSPECT);
}

static enum gossip_state last_heard(unsigned by, unsigned about)
{
    unsigned n = nodes[by].n_heard[about];
    return n ? nodes[by].heard[about][n - 1] : GOSSIP_ALIVE;
}

static void see_each_other(void **state)
{
    (void)state;
    assert_true(run_until(have_talked));
    assert_nobody_missed();
    for (unsigned i = 0; i < N; i++) {
        struct gossip_stats s;
        gossip_stats(nodes[i].g, &s);
        assert_int_equal(s.n_members, N - 1);
        assert_int_equal(s.n_alive, N - 1);
        assert_int_equal(s.n_unsealed, 0);
        assert_true(s.n_sent > 0 && s.bytes_sent > s.n_sent && s.bytes_received > s.n_received);
        assert_int_equal(gossip_state_of(nodes[i].g, "stranger"), GOSSIP_DEAD);
    }
}

static bool two_refuses(void)
{
    return nodes[0].n_refused && nodes[1].n_refused;
}

static void see_each_other_on_ipv6(void **state)
{
    (void)state;
    if (!free_port("::1"))
        skip();
    start_at("::1");
    bool ok = run_until(have_talked);
    gossip_close(TAKE(nodes[2].g));
    ok &= run_until(two_refuses);
    stop(NULL);
    assert_true(ok);
}

static bool two_is_missed(void)
{
    return last_heard(0, 2) == GOSSIP_SUSPECT && last_heard(1, 2) == GOSSIP_SUSPECT;
}

static void a_silent_one_is_missed(void **state)
{
    (void)state;
    assert_true(run_until(have_talked));
    gossip_close(TAKE(nodes[2].g));
    assert_true(run_until(two_is_missed));
    nodes[0].n_refused = nodes[1].n_refused = 0;
    gossip_ask(nodes[0].g, "node2");
    gossip_ask(nodes[1].g, "node2");
    assert_true(run_until(two_refuses)); /* the kernel answers in its place */
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(gossip_state_of(nodes[i].g, "node2"), GOSSIP_SUSPECT);
    /* It starts again, with an older count than the others know of it, and is heard of again. */
    nodes[2].g = open_node("node2", nodes[2].port, &key_a, &nodes[2]);
    for (unsigned k = 0; k < 2; k++)
        introduce(nodes[2].g, k);
    assert_true(run_until(all_alive));
}

static unsigned n_done;
static void on_left(void *arg)
{
    assert_ptr_equal(arg, &nodes[2]);
    assert_false(inside);
    n_done++;
}

static bool two_has_left(void)
{
    return n_done && last_heard(0, 2) == GOSSIP_LEFT && last_heard(1, 2) == GOSSIP_LEFT;
}

static void goodbye(void **state)
{
    (void)state;
    assert_true(run_until(have_talked));
    n_done = 0;
    inside = true;
    gossip_leave(nodes[2].g, on_left, &nodes[2]);
    inside = false;
    assert_int_equal(n_done, 0);
    assert_true(run_until(two_has_left));
    assert_int_equal(n_done, 1);
    gossip_forget(nodes[0].g, "node2");
    assert_int_equal(gossip_state_of(nodes[0].g, "node2"), GOSSIP_DEAD);
    assert_int_equal(gossip_state_of(nodes[1].g, "node2"), GOSSIP_LEFT);
}

static bool strangers_were_refused(void)
{
    return unsealed(0) >= 20 && have_talked();
}

/* One that knows the names but not the key, and one that sends noise: counted, and that is all. */
static void wrong_key_changes_nothing(void **state)
{
    static const struct gossip_key_ref same_id = { .id = 1, .key = "not the first key" };
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(nodes[0].port) };
    uint8_t noise[2000];
    (void)state;
    host = "127.0.0.1";
    struct gossip *forger = open_node("node1", free_port("127.0.0.1"), &same_id, &nodes[1]);
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    crypto_random(noise, sizeof noise);
    for (size_t size = 0; size < sizeof noise; size += 180) {
        noise[0] = 1; /* a version we know */
        assert_int_equal(sendto(fd, noise, size, 0, (struct sockaddr *)&to, sizeof to), size);
    }
    introduce(forger, 0);
    gossip_leave(forger, on_left, &nodes[2]); /* "node1 has left", it says */
    bool ok = run_until(strangers_were_refused) || unsealed(0) >= 12;
    gossip_close(forger);
    assert_true(ok);
    assert_true(run_until(have_talked));
    assert_nobody_missed();
    assert_int_equal(unsealed(2), 0);
}

/* A key is changed under way: all can open the new one, then all seal with it, then the old one is dropped. */
static bool have_talked_more(void)
{
    return received(0) > 120 && received(1) > 120 && received(2) > 120 && all_alive();
}

static void keys_change_under_way(void **state)
{
    const struct gossip_key_ref steps[3][2] = { { key_a, key_b }, { key_b, key_a }, { key_b } };
    (void)state;
    assert_true(run_until(have_talked));
    for (unsigned s = 0; s < 3; s++)
        for (unsigned i = 0; i < N; i++)
            gossip_set_keys(nodes[i].g, steps[s], s == 2 ? 1 : 2);
    assert_true(run_until(have_talked_more));
    assert_nobody_missed();
}

/* A member with the cluster's key that seals in another's name: what it seals is for nobody. */
static void no_member_is_another(void **state)
{
    struct node thief = nodes[1];
    (void)state;
    crypto_sign_keypair(thief.sign_public, thief.sign_secret);
    crypto_dh_keypair(thief.link_public, thief.link_secret);
    struct gossip *forger = open_node("node1", free_port("127.0.0.1"), &key_a, &thief);
    introduce(forger, 0);
    bool ok = run_until(strangers_were_refused);
    gossip_close(forger);
    assert_true(ok);
    assert_nobody_missed();
}

static bool two_has_moved(void)
{
    return str_equal(nodes[0].moved, "127.0.0.9") && str_equal(nodes[1].moved, "127.0.0.9");
}

static void a_new_address_is_told(void **state)
{
    (void)state;
    assert_true(run_until(have_talked));
    gossip_set_address(nodes[2].g, "127.0.0.9");
    assert_true(run_until(two_has_moved));
    assert_string_equal(gossip_address_of(nodes[0].g, "node2"), "127.0.0.9");
    gossip_set_address(nodes[2].g, "127.0.0.1"); /* where it still is */
    assert_nobody_missed();
}

static void open_says_why_not(void **state)
{
    struct gossip_config cfg = { .node_id = "x", .listen_addr = "localhost", .port = nodes[0].port,
                                 .sign_secret = nodes[0].sign_secret, .link_secret = nodes[0].link_secret };
    const struct gossip_hooks hooks = { .state = on_state };
    struct gossip *g = NULL;
    struct err e = { 0 };
    (void)state;
    assert_int_equal(gossip_open(&g, loop, &cfg, &key_a, 1, &hooks, 1, &e), -E_INVALID);
    assert_non_null(strstr(e.text, "localhost"));
    cfg.listen_addr = "127.0.0.1";
    e = (struct err){ 0 };
    assert_true(gossip_open(&g, loop, &cfg, &key_a, 1, &hooks, 1, &e) < 0); /* taken by node0 */
    assert_non_null(strstr(e.text, "port"));
    assert_null(g);
    gossip_close(NULL);
}

int main(void)
{
    crypto_init();
#define WITH_NODES(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        WITH_NODES(see_each_other), cmocka_unit_test(see_each_other_on_ipv6), WITH_NODES(a_silent_one_is_missed),
        WITH_NODES(goodbye), WITH_NODES(wrong_key_changes_nothing), WITH_NODES(keys_change_under_way),
        WITH_NODES(no_member_is_another), WITH_NODES(a_new_address_is_told),
        WITH_NODES(open_says_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
