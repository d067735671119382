/* Links and HTTP over real sockets in one loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>
#include <shoal/http.h>
#include <shoal/link.h>
#include <sys/socket.h>
#include <unistd.h>

struct side {
    uint8_t secret[32], public_key[32];
    struct link_config cfg;
    struct link *link;
    const char *name;
    unsigned n_up, n_messages, n_down;
    size_t message_bytes, stream_bytes;
    bool refuse, echo, eof;
    struct stream *channel;
    struct err why;
};

static struct loop *loop;
static int waiting_for;

static int verify(void *arg, const uint8_t peer_key[32], const void *payload, size_t size, struct err *e)
{
    struct side *s = arg;
    (void)peer_key;
    if (s->refuse || size != 4 || memcmp(payload, "cert", 4))
        return err_set(e, E_DENIED, "refused");
    return 0;
}

static void on_up(void *arg, struct link *l)
{
    struct side *s = arg;
    (void)l;
    s->n_up++;
}

static void on_message(void *arg, struct link *l, uint8_t type, const void *p, size_t size)
{
    struct side *s = arg;
    s->n_messages++;
    s->message_bytes += size;
    for (size_t i = 0; i < size; i++)
        assert_int_equal(((const uint8_t *)p)[i], (uint8_t)(i * 7));
    if (type == 2)
        assert_int_equal(link_send(l, 3, p, size), 0);
    if (s->n_messages == 5 && type == 3)
        loop_stop(loop);
}

static size_t chan_data(void *arg, const char *p, size_t size)
{
    struct side *s = arg;
    if (s->echo) {
        if (stream_is_full(s->channel))
            return 0;
        stream_write(s->channel, p, size);
    }
    s->stream_bytes += size;
    return size;
}

static void chan_drain(void *arg);

static void chan_eof(void *arg)
{
    struct side *s = arg;
    s->eof = true;
    if (s->echo)
        stream_close_write(s->channel);
    else
        loop_stop(loop);
}

static void chan_error(void *arg, const struct err *e)
{
    struct side *s = arg;
    s->why = *e;
}

static const struct stream_events chan_events = { chan_data, chan_drain, chan_eof, chan_error };

static void chan_drain(void *arg)
{
    struct side *s = arg;
    stream_set_events(s->channel, &chan_events, s); /* offers what was left */
}

static void on_channel(void *arg, struct link *l, uint8_t service, struct stream *st)
{
    struct side *s = arg;
    (void)l;
    assert_int_equal(service, 9);
    s->channel = st;
    s->echo = true;
    stream_set_events(st, &chan_events, s);
}

static void on_down(void *arg, struct link *l, const struct err *e)
{
    struct side *s = arg;
    s->n_down++;
    s->why = *e;
    link_free(l);
    s->link = NULL;
    if (--waiting_for == 0)
        loop_stop(loop);
}

static const struct link_events events = { on_up, on_message, on_channel, on_down };

static void stop_loop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

static void late(void *arg)
{
    (void)arg;
    fail_msg("the test's deadline is over");
}

static void begin(struct side *a, struct side *b)
{
    crypto_init();
    loop = loop_new();
    struct side *both[] = { a, b };
    for (int i = 0; i < 2; i++) {
        crypto_dh_keypair(both[i]->public_key, both[i]->secret);
        both[i]->cfg = (struct link_config){ .dh_secret = both[i]->secret, .payload = "cert", .payload_size = 4,
                                             .verify = verify, .arg = both[i] };
    }
}

static void accept_b(void *arg, struct stream *s)
{
    struct side *b = arg;
    b->link = link_accept(loop, s, &b->cfg, &events, b);
}

static uint16_t port;

static void start(struct side *a, struct side *b, struct stream_listener **sl)
{
    struct err e;
    int r = -1;
    for (port = 20000 + (uint16_t)(crypto_shorthash(&port, 2) % 20000); r < 0 && port < 60000; port++)
        r = stream_listen_tcp(loop, "127.0.0.1", port, accept_b, b, sl, &e);
    assert_int_equal(r, 0);
    a->link = link_connect(loop, "127.0.0.1", port - 1, &a->cfg, &events, a);
}

static void end(struct side *a, struct side *b, struct stream_listener *sl)
{
    link_free(a->link);
    link_free(b->link);
    stream_listener_free(sl);
    struct loop_timer *t = loop_timer_new(loop, stop_loop, NULL);
    loop_timer_set(t, 5);
    loop_run(loop); /* deferred frees */
    loop_timer_free(t);
    loop_free(loop);
}

static void messages_of_all_sizes_come_back(void **state)
{
    (void)state;
    struct side a = { .name = "a" }, b = { .name = "b" };
    struct stream_listener *sl;
    static const size_t sizes[] = { 0, 1, 16384, 16385, 3000000 };
    uint8_t *data = xcalloc(1, 3000000);
    for (size_t i = 0; i < 3000000; i++)
        data[i] = (uint8_t)(i * 7);
    begin(&a, &b);
    start(&a, &b, &sl);
    struct loop_timer *t = loop_timer_new(loop, late, NULL);
    loop_timer_set(t, 20000);
    struct loop_timer *poll = loop_timer_new(loop, stop_loop, NULL);
    while (!link_is_up(a.link)) {
        loop_timer_set(poll, 5);
        loop_run(loop);
    }
    for (size_t i = 0; i < ARRAY_N(sizes); i++)
        assert_int_equal(link_send(a.link, 2, data, sizes[i]), 0);
    loop_timer_set(poll, -1);
    loop_run(loop);
    assert_int_equal(a.n_messages, 5);
    assert_int_equal(b.n_messages, 5);
    assert_int_equal(a.message_bytes, b.message_bytes);
    assert_memory_equal(link_peer_key(a.link), b.public_key, 32);
    free(data);
    loop_timer_free(t);
    loop_timer_free(poll);
    end(&a, &b, sl);
}

static size_t to_send;

static void feed(void *arg);

static void feeder_drain(void *arg)
{
    feed(arg);
}

static const struct stream_events feeder_events = { chan_data, feeder_drain, chan_eof, chan_error };

static void feed(void *arg)
{
    struct side *s = arg;
    static const char block[10000];
    while (to_send && !stream_is_full(s->channel)) {
        size_t n = MIN(to_send, sizeof block);
        stream_write(s->channel, block, n);
        to_send -= n;
        if (!to_send)
            stream_close_write(s->channel);
    }
}

static void a_channel_carries_much_both_ways_and_half_closes(void **state)
{
    (void)state;
    struct side a = { .name = "a" }, b = { .name = "b" };
    struct stream_listener *sl;
    begin(&a, &b);
    start(&a, &b, &sl);
    struct loop_timer *t = loop_timer_new(loop, late, NULL);
    loop_timer_set(t, 20000);
    struct loop_timer *poll = loop_timer_new(loop, stop_loop, NULL);
    while (!link_is_up(a.link)) {
        loop_timer_set(poll, 5);
        loop_run(loop);
    }
    loop_timer_set(poll, -1);
    a.channel = link_channel_open(a.link, 9);
    assert_non_null(a.channel);
    stream_set_events(a.channel, &feeder_events, &a);
    to_send = 10 << 20;
    feed(&a);
    loop_run(loop);
    assert_int_equal(a.stream_bytes, 10 << 20);
    assert_int_equal(b.stream_bytes, 10 << 20);
    assert_true(a.eof && b.eof);
    stream_free(a.channel);
    stream_free(b.channel);
    loop_timer_free(t);
    loop_timer_free(poll);
    end(&a, &b, sl);
}

/* Takes only what leaves less than 64 KiB behind, so that credit is given while bytes are held; then nothing until
 * everything that may be under way has arrived; then all. */
static bool reader_open;

static size_t reluctant_data(void *arg, const char *p, size_t size)
{
    struct side *s = arg;
    (void)p;
    size_t n = reader_open ? size : s->stream_bytes < 500000 && size > 60000 ? size - 60000 : 0;
    s->stream_bytes += n;
    return n;
}

static const struct stream_events reluctant_events = { reluctant_data, NULL, chan_eof, chan_error };

static void on_reluctant_channel(void *arg, struct link *l, uint8_t service, struct stream *st)
{
    struct side *s = arg;
    (void)l, (void)service;
    s->channel = st;
    stream_set_events(st, &reluctant_events, s);
}

static void a_slow_reader_is_never_sent_more_than_it_can_hold(void **state)
{
    (void)state;
    static const struct link_events slow = { on_up, on_message, on_reluctant_channel, on_down };
    struct side a = { .name = "a" }, b = { .name = "b" };
    struct stream_listener *sl;
    begin(&a, &b);
    start(&a, &b, &sl);
    struct loop_timer *t = loop_timer_new(loop, late, NULL), *poll = loop_timer_new(loop, stop_loop, NULL);
    loop_timer_set(t, 20000);
    while (!link_is_up(a.link)) {
        loop_timer_set(poll, 5);
        loop_run(loop);
    }
    link_set_events(b.link, &slow, &b);
    a.channel = link_channel_open(a.link, 9);
    stream_set_events(a.channel, &feeder_events, &a);
    to_send = 4 << 20;
    feed(&a);
    size_t before;
    do { /* until all stands still */
        before = b.stream_bytes + to_send;
        loop_timer_set(poll, 20);
        loop_run(loop);
    } while (b.stream_bytes + to_send != before);
    assert_in_range(b.stream_bytes, 500000, 4000000);
    reader_open = true;
    stream_set_events(b.channel, &reluctant_events, &b);
    loop_run(loop);
    assert_int_equal(b.stream_bytes, 4 << 20);
    stream_free(a.channel);
    stream_free(b.channel);
    loop_timer_free(t);
    loop_timer_free(poll);
    end(&a, &b, sl);
}

/* ---- splice ---- */
static struct { struct stream *reader; size_t bytes; bool over; } slow;

static size_t slow_data(void *arg, const char *p, size_t size)
{
    size_t n = MIN(size, (size_t)20000);
    slow.bytes += n;
    return n;
}

static void slow_over(void *arg)
{
    slow.over = true;
    stream_free(slow.reader);
}

static void splice_over(void *arg, struct stream *given_back)
{
    assert_null(given_back);
    loop_stop(loop);
}

static void slow_error(void *arg, const struct err *e)
{
    fail_msg("%s", e->text);
}

static void slow_begin(void *arg)
{
    stream_pause(slow.reader, false);
}

/* The sender has gone before the receiver has read anything. */
static void a_splice_carries_all_that_came_before_an_end(void **state)
{
    static const struct stream_events ev = { slow_data, NULL, slow_over, slow_error };
    static char bytes[16 << 10];
    for (unsigned round = 0; round < 40; round++) {
        int x[2], y[2];
        size_t total = 0;
        loop = loop_new();
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, x), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, y), 0);
        struct stream *writer = stream_from_fd(loop, y[0]);
        slow.reader = stream_from_fd(loop, x[0]);
        slow.bytes = 0;
        slow.over = false;
        stream_pause(slow.reader, true);
        stream_set_events(slow.reader, &ev, NULL);
        stream_splice_asking(stream_from_fd(loop, x[1]), stream_from_fd(loop, y[1]), splice_over, NULL);
        for (unsigned k = 0; k < 30 + round; k++, total += sizeof bytes)
            stream_write(writer, bytes, sizeof bytes);
        stream_free_when_sent(writer);
        struct loop_timer *t = loop_timer_new(loop, slow_begin, NULL), *l = loop_timer_new(loop, late, NULL);
        loop_timer_set(t, 10);
        loop_timer_set(l, 20000);
        loop_run(loop);
        assert_true(slow.over);
        assert_int_equal(slow.bytes, total);
        loop_timer_free(t);
        loop_timer_free(l);
        loop_finish(loop);
        loop_free(loop);
    }
}

/* A question that is never answered comes back; a first byte of an answer is enough for it to be over. */
static struct stream *unanswered;

static void splice_given_back(void *arg, struct stream *given_back)
{
    unanswered = given_back;
    loop_stop(loop);
}

static void a_question_comes_back_unanswered(void **state)
{
    for (unsigned answered = 0; answered < 2; answered++) {
        int x[2], y[2];
        loop = loop_new();
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, x), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, y), 0);
        unanswered = NULL;
        stream_splice_asking(stream_from_fd(loop, x[1]), stream_from_fd(loop, y[1]), splice_given_back, NULL);
        if (answered)
            assert_int_equal(write(y[0], "1", 1), 1);
        close(y[0]);
        if (answered)
            close(x[0]);
        struct loop_timer *l = loop_timer_new(loop, late, NULL);
        loop_timer_set(l, 20000);
        loop_run(loop);
        assert_int_equal(unanswered == NULL, answered);
        if (!answered) {
            stream_write(unanswered, "sorry", 5);
            stream_free_when_sent(unanswered);
            char got[8];
            loop_finish(loop);
            assert_int_equal(read(x[0], got, sizeof got), 5);
            close(x[0]);
        }
        loop_timer_free(l);
        loop_finish(loop);
        loop_free(loop);
    }
}

static void a_refused_peer_never_comes_up(void **state)
{
    (void)state;
    struct side a = { .name = "a" }, b = { .name = "b", .refuse = true };
    struct stream_listener *sl;
    begin(&a, &b);
    waiting_for = 2;
    start(&a, &b, &sl);
    struct loop_timer *t = loop_timer_new(loop, late, NULL);
    loop_timer_set(t, 20000);
    loop_run(loop);
    assert_int_equal(b.n_up, 0);
    assert_string_equal(b.why.text, "refused");
    assert_int_equal(a.n_down, 1);
    loop_timer_free(t);
    end(&a, &b, sl);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_all_sizes_come_back),
        cmocka_unit_test(a_channel_carries_much_both_ways_and_half_closes),
        cmocka_unit_test(a_slow_reader_is_never_sent_more_than_it_can_hold),
        cmocka_unit_test(a_splice_carries_all_that_came_before_an_end),
        cmocka_unit_test(a_question_comes_back_unanswered),
        cmocka_unit_test(a_refused_peer_never_comes_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
