/* The daemon's end of the tunnel process against a real one: what it believes of the TAPs is what the process holds,
 * whatever the order of configurations. A TAP is one end of a pair of sockets here: its other end sees it closed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kept.h"
#include "overlay_internal.h"

enum { VNI = 7, PATIENCE_MS = 30000, POLL_MS = 5 };

static struct loop *loop;
static struct loop_timer *poll_timer;
static struct tunnel_client *client;
static char dir[] = "/tmp/shoal-tunnel-client.XXXXXX";
static char *path;
static pid_t process;
static int wire[2]; /* [0] stays here */
static unsigned n_ready;
static bool (*until)(void);
static int64_t deadline;

static void on_ready(void *arg)
{
    (void)arg;
    n_ready++;
}

static void on_poll(void *arg)
{
    (void)arg;
    if (until() || loop_now_ms(loop) > deadline)
        loop_stop(loop);
    else
        loop_timer_set(poll_timer, POLL_MS);
}

static void run_until(bool (*cond)(void))
{
    until = cond;
    deadline = loop_now_ms(loop) + PATIENCE_MS;
    loop_timer_set(poll_timer, 0);
    loop_run(loop);
    assert_true(cond());
}

static bool is_ready(void)
{
    return tunnel_client_is_ready(client);
}

static bool wire_is_closed(void)
{
    char byte;
    return recv(wire[0], &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

static bool process_listens(void)
{
    return access(path, F_OK) == 0;
}

static void configure(bool with_network)
{
    struct tunnel_config c = { 0 };
    uint8_t key[32] = { 1 };
    bytes_set(&c.key, key, sizeof key);
    str_set(&c.listen, "127.0.0.1");
    c.addr = 0x0a000001;
    if (with_network)
        REC_ADD(&c.networks)->vni = VNI;
    tunnel_client_config(client, &c);
    tunnel_config_clear(&c);
}

static void give_tap(void)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, wire), 0);
    tunnel_client_tap(client, VNI, wire[1]);
    assert_true(tunnel_client_has_tap(client, VNI));
}

static int begin(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    path = xasprintf("%s/tunnel.sock", dir);
    process = fork();
    if (process == 0) {
        char name[] = "tunnel", *argv[] = { name, path, NULL };
        _exit(tunnel_main(2, argv));
    }
    loop = loop_new();
    poll_timer = loop_timer_new(loop, on_poll, NULL);
    run_until(process_listens); /* the client would start one itself */
    client = tunnel_client_new(loop, "/bin/false", path, on_ready, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    tunnel_client_free(client, true);
    assert_int_equal(waitpid(process, NULL, 0), process);
    loop_timer_free(poll_timer);
    loop_free(loop);
    rmdir(dir);
    free(path);
    close(wire[0]);
    return 0;
}

static void a_tap_that_a_configuration_closed_is_given_anew(void **state)
{
    (void)state;
    configure(true);
    run_until(is_ready);
    assert_false(tunnel_client_has_tap(client, VNI));
    give_tap();
    configure(false);
    configure(true); /* before the answer to the first */
    assert_false(is_ready());
    unsigned before = n_ready;
    run_until(is_ready);
    assert_int_equal(n_ready, before + 1); /* and says so: the network is waiting for it */
    assert_true(wire_is_closed());
    assert_false(tunnel_client_has_tap(client, VNI));
    close(wire[0]);
    give_tap();
    configure(true);
    assert_true(is_ready()); /* nothing was closed: nothing to ask */
}

static int pair_of[2][2][2]; /* [which][descriptor]: [0] stays here, [1] is kept */
static bool is_open(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}
static bool second_is_closed(void)
{
    return !is_open(pair_of[1][0][0]) && !is_open(pair_of[1][1][0]);
}
static bool first_is_closed(void)
{
    return !is_open(pair_of[0][0][0]) && !is_open(pair_of[0][1][0]);
}

/* Two are kept when the daemon ends; the next one takes the first, which goes on, and not the second, which is closed. */
static void what_is_kept_outlives_the_daemon(void **state)
{
    static const char *const names[] = { "first", "second" };
    char byte = 0;
    int fds[TUNNEL_KEPT_FDS];
    (void)state;
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < TUNNEL_KEPT_FDS; k++) {
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair_of[i][k]), 0);
            fds[k] = pair_of[i][k][1];
        }
        tunnel_client_keep(client, names[i], fds);
    }
    configure(true);
    run_until(is_ready);
    tunnel_client_free(client, false);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < TUNNEL_KEPT_FDS; k++)
            close(pair_of[i][k][1]);
    assert_true(is_open(pair_of[0][0][0]) && is_open(pair_of[1][1][0]));
    assert_int_equal(write(pair_of[0][1][0], "q", 1), 1); /* a question meanwhile */
    client = tunnel_client_new(loop, "/bin/false", path, on_ready, NULL);
    assert_false(tunnel_client_found(client, "third", fds));
    assert_true(tunnel_client_found(client, "first", fds));
    assert_int_equal(read(fds[1], &byte, 1), 1);
    assert_int_equal(byte, 'q');
    assert_false(tunnel_client_found(client, "first", fds)); /* once */
    tunnel_client_keep(client, "first", fds);
    tunnel_client_found_all(client);
    configure(true);
    run_until(second_is_closed);
    assert_true(is_open(pair_of[0][0][0]));
    tunnel_client_unkeep(client, "first");
    for (int k = 0; k < TUNNEL_KEPT_FDS; k++)
        close(fds[k]);
    run_until(first_is_closed);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < TUNNEL_KEPT_FDS; k++)
            close(pair_of[i][k][0]);
}

static void kept_pair(int fds[TUNNEL_KEPT_FDS])
{
    for (int k = 0; k < TUNNEL_KEPT_FDS; k++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair_of[0][k]), 0);
        fds[k] = pair_of[0][k][1];
    }
}

/* The process has no time when the daemon begins: what it keeps comes with the connection, before anything of it is dropped. */
static void what_is_kept_is_told_late(void **state)
{
    int fds[TUNNEL_KEPT_FDS];
    (void)state;
    kept_pair(fds);
    tunnel_client_keep(client, "late", fds);
    configure(true);
    run_until(is_ready);
    tunnel_client_free(client, false);
    close(fds[0]);
    close(fds[1]);
    kill(process, SIGSTOP);
    client = tunnel_client_new(loop, "/bin/false", path, on_ready, NULL);
    kill(process, SIGCONT);
    assert_false(tunnel_client_found(client, "late", fds));
    tunnel_client_found_all(client);
    configure(true);
    run_until(is_ready);
    assert_true(tunnel_client_found(client, "late", fds));
    tunnel_client_keep(client, "late", fds);
    tunnel_client_found_all(client);
    tunnel_client_unkeep(client, "late");
    assert_true(is_open(pair_of[0][0][0]));
    close(fds[0]);
    close(fds[1]);
    run_until(first_is_closed);
    close(pair_of[0][0][0]);
    close(pair_of[0][1][0]);
}

static void no_more_is_kept_than_there_is_room_for(void **state)
{
    int fds[TUNNEL_KEPT_FDS];
    struct map all;
    (void)state;
    map_init(&all);
    for (int i = 0; i < 2; i++) { /* the second instead of the first, at the bound */
        kept_pair(fds);
        kept_put(&all, 1, "one", 3, fds);
        assert_int_equal(all.n, 1);
        assert_true(is_open(pair_of[0][0][0]));
        memcpy(pair_of[1], pair_of[0], i == 0 ? sizeof pair_of[0] : 0);
    }
    assert_true(second_is_closed());
    close(pair_of[1][0][0]);
    close(pair_of[1][1][0]);
    memcpy(pair_of[1], pair_of[0], sizeof pair_of[0]);
    kept_pair(fds);
    kept_put(&all, 1, "two", 3, fds);
    assert_true(first_is_closed() && is_open(pair_of[1][0][0]));
    kept_done(&all);
    assert_true(second_is_closed());
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < TUNNEL_KEPT_FDS; k++)
            close(pair_of[i][k][0]);
}

static void a_tap_held_from_before_a_restart_is_known(void **state)
{
    (void)state;
    tunnel_client_free(client, false);
    client = tunnel_client_new(loop, "/bin/false", path, on_ready, NULL);
    configure(true);
    run_until(is_ready);
    assert_true(tunnel_client_has_tap(client, VNI));
    assert_false(wire_is_closed());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tap_that_a_configuration_closed_is_given_anew),
        cmocka_unit_test(what_is_kept_outlives_the_daemon),
        cmocka_unit_test(what_is_kept_is_told_late),
        cmocka_unit_test(no_more_is_kept_than_there_is_room_for),
        cmocka_unit_test(a_tap_held_from_before_a_restart_is_known),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
