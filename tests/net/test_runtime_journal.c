/* Containers whose output goes to systemd's journal as well (root): a socket of this test's own stands where the journal's is,
 * in a mount namespace of its own. Run by tests/run.d/10-runtime. */
#include "runtime_fixture.h"
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { MESSAGE_MAX = 8 << 20 };
static int journal = -1;
static char message[MESSAGE_MAX];
static size_t message_size;

static void open_journal(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };
    journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(journal >= 0);
    assert_int_equal(bind(journal, (struct sockaddr *)&a, sizeof a), 0);
}

static void close_journal(void)
{
    close(journal);
    journal = -1;
    assert_int_equal(unlink(JOURNAL_SOCKET), 0);
}

/* The next message that has come; what came in sealed memory as well. */
static bool receive(void)
{
    struct err e;
    int fd = -1;
    unsigned n_fds = 1;
    long n = fd_recv_with_fds(journal, message, sizeof message, &fd, &n_fds, &e);
    if (n < 0)
        return false;
    if (n_fds == 1) {
        enum { WANTED = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL }; /* the journal takes no other */
        assert_int_equal(n, 0);
        assert_int_equal(fcntl(fd, F_GET_SEALS) & WANTED, WANTED);
        n = pread(fd, message, sizeof message, 0);
        close(fd);
    }
    message_size = (size_t)n;
    return true;
}

/* The value of a field of the message, by the protocol; NULL: it has none. */
static const char *field(const char *name)
{
    static char value[MESSAGE_MAX];
    const char *found = NULL;
    size_t at = 0;
    while (at < message_size) {
        const char *p = message + at, *end = memchr(p, '\n', message_size - at), *eq = memchr(p, '=', (size_t)(end - p));
        size_t n = (size_t)((eq ? eq : end) - p), size = eq ? (size_t)(end - eq) - 1 : 0;
        const char *v = eq ? eq + 1 : end + 9;
        for (unsigned i = 0; i < 8 && !eq; i++)
            size |= (size_t)(unsigned char)end[1 + i] << 8 * i;
        assert_true(v + size < message + message_size && v[size] == '\n');
        if (n == strlen(name) && memcmp(p, name, n) == 0) {
            assert_null(found); /* once */
            memcpy(value, v, size);
            value[size] = '\0';
            found = value;
        }
        at = (size_t)(v + size - message) + 1;
    }
    return found;
}

static void expect(const char *name, const char *value)
{
    const char *v = field(name);
    if (!v || !str_equal(v, value))
        fail_msg("%s is \"%.200s\", not \"%.200s\"", name, v ? v : "(absent)", value);
}

static void journal_spec(struct container_spec *s, const char *command, const char *tag)
{
    struct labels options = { 0 };
    struct err e;
    spec_for(s, command);
    str_set(&s->name, "chatty");
    str_set(&s->image, "busybox:1");
    str_set(&s->image_id, "sha256:0123456789abcdef0123");
    labels_set(&s->labels, "com.example/tier-1", "front\nend");
    labels_set(&s->labels, "other", "unasked");
    strs_add(&s->env, "ZONE=north");
    labels_set(&options, "labels", "absent,com.example/tier-1");
    labels_set(&options, "env", "ZONE");
    if (tag)
        labels_set(&options, "tag", tag);
    if (container_log(s, "journald", &options, "here", &e) < 0)
        fail_msg("%s", e.text);
    labels_clear(&options);
}

static bool was_received(void *arg)
{
    (void)arg;
    return receive();
}

static void run_to_end(struct container_spec *s)
{
    start(s);
    assert_int_equal(result, 0);
    wait_exit(s->id);
}

static void test_fields(void **state)
{
    struct container_spec s;
    char id[13];
    (void)state;
    open_journal();
    journal_spec(&s, "echo hello; echo; printf 'unended'", "{{.Name}}/{{ .ImageName }}-{{.ImageID}}");
    run_to_end(&s);
    snprintf(id, sizeof id, "%.12s", s.id);
    static const char *const lines[] = { "hello", "", "unended" };
    for (unsigned i = 0; i < ARRAY_N(lines); i++) {
        assert_true(receive());
        expect("MESSAGE", lines[i]);
        expect("PRIORITY", "6");
        expect("CONTAINER_ID", id);
        expect("CONTAINER_ID_FULL", s.id);
        expect("CONTAINER_NAME", "chatty");
        expect("CONTAINER_TAG", "chatty/busybox:1-0123456789ab");
        expect("SYSLOG_IDENTIFIER", "chatty/busybox:1-0123456789ab");
        expect("IMAGE_NAME", "busybox:1");
        expect("COM_EXAMPLE_TIER_1", "front\nend");
        expect("ZONE", "north");
        assert_null(field("OTHER"));
        assert_null(field("CONTAINER_PARTIAL_MESSAGE"));
    }
    assert_false(receive());
    read_logs(s.id, false); /* and in its own file */
    assert_string_equal(seen, "hello\n\nunended");
    delete_box(&s);

    journal_spec(&s, "echo bad >&2; head -c 20000 /dev/zero | tr '\\0' x; echo", NULL);
    run_to_end(&s);
    unsigned partial = 0, errors = 0;
    size_t size = 0;
    while (receive()) {
        bool err = str_equal(field("PRIORITY"), "3");
        snprintf(id, sizeof id, "%.12s", s.id);
        expect("CONTAINER_TAG", id);
        errors += err;
        if (err)
            expect("MESSAGE", "bad");
        else
            size += strlen(field("MESSAGE"));
        partial += str_equal(field("CONTAINER_PARTIAL_MESSAGE"), "true");
    }
    assert_int_equal(errors, 1);
    assert_int_equal(partial, 1); /* the last piece of a line is not */
    assert_int_equal(size, 20000);
    delete_box(&s);
    close_journal();
}

/* Larger than a datagram may be; the connection is found to be an old one with it as with others. */
static void test_large(void **state)
{
    struct container_spec s;
    (void)state;
    open_journal();
    journal_spec(&s, "echo small; read x; echo again", NULL);
    s.open_stdin = true;
    AUTO_FREE char *big = xcalloc(300001, 1);
    memset(big, 'y', 300000);
    labels_set(&s.labels, "com.example/tier-1", big);
    start(&s);
    struct err e;
    listen_to(runtime_attach(rt, s.id, &e), false);
    wait_said(s.id, "small\n");
    until(was_received, NULL, "the message");
    expect("MESSAGE", "small");
    expect("COM_EXAMPLE_TIER_1", big);
    close_journal();
    open_journal();
    stream_write(talk, "\n", 1);
    wait_exit(s.id);
    assert_true(receive());
    expect("MESSAGE", "again");
    expect("COM_EXAMPLE_TIER_1", big);
    until(talk_is_over, NULL, "the end of the attached stream");
    delete_box(&s);

    journal_spec(&s, "echo small", NULL);
    AUTO_FREE char *huge = xcalloc((3 << 20) + 1, 1);
    memset(huge, 'z', 3 << 20);
    labels_set(&s.labels, "com.example/tier-1", huge);
    labels_set(&s.labels, "tier-2", huge);
    labels_set(&s.log_options, "labels", "com.example/tier-1,tier-2");
    run_to_end(&s);
    assert_true(receive());
    expect("MESSAGE", "[shoal: 1 labels and variables are left out of what the journal gets, which would be too large]");
    assert_true(receive());
    expect("MESSAGE", "small");
    expect("COM_EXAMPLE_TIER_1", huge);
    assert_null(field("TIER_2"));
    expect("ZONE", "north"); /* what is smaller has room */
    delete_box(&s);
    close_journal();
}

/* A journal that takes nothing does not hold the container up, and it is said; one that is begun anew gets what comes then. */
static void test_behind(void **state)
{
    struct container_spec s;
    (void)state;
    open_journal();
    journal_spec(&s, "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo filled; read x; echo first; read x; echo second", NULL);
    s.open_stdin = true;
    start(&s);
    struct err e;
    listen_to(runtime_attach(rt, s.id, &e), false);
    wait_said(s.id, "filled\n");
    unsigned n = 0;
    while (receive())
        n++;
    assert_true(n > 0 && n < 2001); /* a socket holds far less */
    stream_write(talk, "\n", 1);
    wait_said(s.id, "first\n");
    assert_true(receive());
    assert_non_null(strstr(field("MESSAGE"), "lines lost, the journal did not take them: it is behind]"));
    assert_int_equal(strtoul(field("MESSAGE") + strlen("[shoal: "), NULL, 10), 2001 - n);
    expect("PRIORITY", "3");
    assert_true(receive());
    expect("MESSAGE", "first");
    close_journal();
    open_journal();
    stream_write(talk, "\n", 1);
    wait_exit(s.id);
    assert_true(receive());
    expect("MESSAGE", "second");
    until(talk_is_over, NULL, "the end of the attached stream");
    delete_box(&s);
    close_journal();
}

/* What is lost when no line follows is told at the end: there, or else in the container's own file. */
static void test_lost_last(void **state)
{
    struct container_spec s;
    struct err e;
    (void)state;
    for (int takes = 1; takes >= 0; takes--) {
        unsigned n = 0;
        open_journal();
        journal_spec(&s, "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; read x", NULL);
        s.open_stdin = true;
        start(&s);
        listen_to(runtime_attach(rt, s.id, &e), false);
        wait_said(s.id, "line 1999\n");
        while (takes && receive())
            n++;
        stream_write(talk, "\n", 1);
        wait_exit(s.id);
        until(talk_is_over, NULL, "the end of the attached stream");
        read_logs(s.id, false);
        AUTO_FREE char *lost = xasprintf("[shoal: %u lines lost, the journal did not take them: it is behind]", 2000 - n);
        if (takes) {
            assert_true(receive());
            expect("MESSAGE", lost);
            assert_string_equal(seen_err, "");
        } else {
            while (receive())
                n++;
            unsigned long told = str_starts(seen_err, "[shoal: ") ? strtoul(seen_err + strlen("[shoal: "), NULL, 10) : 0;
            assert_int_equal(told, 2000 - n);
            assert_non_null(strstr(seen_err, " lines lost, the journal did not take them: it is behind]\n"));
        }
        assert_false(receive());
        delete_box(&s);
        close_journal();
    }
}

/* A full disk: how many lines it cost is told by the first that fits, or at the end. */
static void test_full_disk(void **state)
{
    struct container_spec s;
    struct err e;
    AUTO_FREE char *dir = path_join(base, "containers"), *filler = path_join(dir, "filler");
    static const char zeros[64 << 10];
    (void)state;
    if (mount("tmpfs", dir, "tmpfs", 0, "size=4m") < 0)
        fail_msg("mount: %s", strerror(errno));
    for (int lines_follow = 1; lines_follow >= 0; lines_follow--) {
        spec_for(&s, lines_follow ? "read x; seq 3000; echo full >&2; read x; echo more" : "read x; seq 3000; echo full >&2; read x");
        s.open_stdin = true;
        start(&s);
        listen_to(runtime_attach(rt, s.id, &e), false);
        int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        while (write(fd, zeros, sizeof zeros) > 0)
            ;
        close(fd);
        stream_write(talk, "\n", 1);
        wait_heard("full");
        assert_int_equal(unlink(filler), 0);
        stream_write(talk, "\n", 1);
        wait_exit(s.id);
        until(talk_is_over, NULL, "the end of the attached stream");
        read_logs(s.id, false);
        unsigned n = 0;
        const char *told = strstr(lines_follow ? seen : seen_err, "[shoal: ");
        for (const char *p = seen; *p; p++)
            n += *p == '\n';
        for (const char *p = seen_err; *p; p++)
            n += *p == '\n';
        assert_non_null(told);
        assert_non_null(strstr(told, " lines lost, the disk was full]\n"));
        assert_int_equal(strtoul(told + strlen("[shoal: "), NULL, 10) + n, 3002 + lines_follow); /* and the one that tells */
        delete_box(&s);
    }
    assert_int_equal(umount2(dir, MNT_DETACH), 0);
}

/* A journal that takes a line now and then holds the container up for a moment, not for a moment a line. */
static void on_slow(void *timer)
{
    receive();
    loop_timer_set(*(struct loop_timer **)timer, 50);
}
static void test_slow(void **state)
{
    struct container_spec s;
    struct loop_timer *t = loop_timer_new(loop, on_slow, &t);
    (void)state;
    open_journal();
    journal_spec(&s, "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done", NULL);
    int64_t begin = clock_mono_ns();
    loop_timer_set(t, 50);
    run_to_end(&s);
    assert_true(clock_mono_ns() - begin < 10 * SEC_NS); /* a socket holds some hundred: it would be more than a minute */
    loop_timer_free(t);
    delete_box(&s);
    close_journal();
}

static void test_refusals(void **state)
{
    struct container_spec s;
    struct labels options = { 0 };
    struct err e;
    (void)state;
    journal_spec(&s, "true", NULL);
    refused(&s, "log driver journald: there is no " JOURNAL_SOCKET " on this machine; start systemd-journald, or use json-file");
    open_journal();
    journal_spec(&s, "true", NULL);
    run_to_end(&s);
    close_journal();
    runtime_start(rt, s.id, on_done, NULL); /* later as well */
    wait_done();
    assert_int_equal(result, -E_UNSUPPORTED);
    assert_non_null(strstr(error, "log driver journald: there is no " JOURNAL_SOCKET));
    delete_box(&s);
    spec_for(&s, "true");
    labels_set(&options, "tag", "{{.Wrong}}");
    assert_true(container_log(&s, "journald", &options, "here", &e) < 0);
    assert_non_null(strstr(e.text, "here: log option tag: \"{{.Wrong}}\" has what is not built"));
    labels_clear(&options);
    labels_set(&options, "max-size", "1m");
    assert_true(container_log(&s, "journald", &options, "here", &e) < 0);
    assert_non_null(strstr(e.text, "log option max-size is not built for journald; tag, labels and env are"));
    labels_clear(&options);
    container_spec_clear(&s);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_fields), cmocka_unit_test(test_large), cmocka_unit_test(test_behind), cmocka_unit_test(test_slow),
                                        cmocka_unit_test(test_lost_last), cmocka_unit_test(test_full_disk),                                        cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests(tests, setup, teardown);
}

int main(void)
{
    static const char *const folders[] = { "/run/systemd", "/run/systemd/journal" };
    bool made[2];
    for (unsigned i = 0; i < 2; i++)
        made[i] = mkdir(folders[i], 0755) == 0;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", folders[1], "tmpfs", 0, "size=64k") < 0)
        return fprintf(stderr, "a place for the journal's socket: %s\n", strerror(errno)), 77;
    int r = fixture_main(all_tests);
    umount2(folders[1], MNT_DETACH);
    for (int i = 1; i >= 0; i--)
        if (made[i])
            rmdir(folders[i]);
    return r;
}
