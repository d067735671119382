/* Client processes that read and write one small register a key through the API of several managers, and write down
 * what they did and heard, for tests/linear/check. A register is the label "v" of a config: made once (the second to
 * make it is refused), changed only by an update that names the version it was read with.
 *   clients --out FILE --clients N [--keys K] [--epoch-ms MS] [--think-us US] SOCKET...
 * Keys are new every epoch, so that the exact check stays small. On SIGTERM: no new writes; every key that was used is
 * read once more, through every manager in turn, until each has answered (at most 120 s), then they end.
 * What an answer means: 200 and 201 are done; "update out of sequence", 404 and "already exists" are refused, with the
 * place in the log that they name; an error that says that the outcome is not known, a broken connection and silence
 * are unknown; every other error promises that nothing was done, and is held to it. */
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>
#include <shoal/base/val.h>
#include <shoal/http.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_MAX_BYTES = 256 << 10, READ_WAIT_MS = 600, WRITE_WAIT_MS = 4000, LAST_READS_S = 120, SOCKETS_MAX = 16 };

struct options {
    const char *out;
    uint64_t clients, keys, epoch_ms, think_us;
    char *sockets[SOCKETS_MAX];
    unsigned n_sockets;
    int64_t began_ms;
};

struct answer {
    int status; /* 0: none */
    uint64_t index;
    char *body; /* owned */
};

struct client {
    const struct options *o;
    unsigned number, at; /* at: which socket */
    int fd;
    struct rng rng;
    FILE *out;
    uint64_t written;
    char key[48], value[48], seen[48]; /* seen: what this client last read or wrote under key */
    uint64_t version;                  /* of seen; 0: not known */
};

static volatile sig_atomic_t ending;
static pid_t *clients; /* of the parent */
static volatile sig_atomic_t n_clients;

static void on_term(int n)
{
    (void)n;
    ending = 1;
    for (sig_atomic_t i = 0; i < n_clients; i++)
        kill(clients[i], SIGTERM);
}

static int64_t now_us(void)
{
    return clock_mono_ns() / 1000;
}

/* ---- one request ---- */
static void hang_up(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void set_wait(int fd, uint64_t ms)
{
    struct timeval tv = { .tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000) };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

static bool call_up(struct client *c)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (c->fd >= 0)
        return true;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", c->o->sockets[c->at]);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_wait(c->fd, WRITE_WAIT_MS);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) == 0)
        return true;
    hang_up(c);
    return false;
}

static bool send_all(int fd, const char *p, size_t size)
{
    while (size) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

/* A whole reply with a length; false: none came. */
static bool receive(struct client *c, struct answer *a, uint64_t wait_ms)
{
    AUTO_SB struct sb b;
    struct http_message m = { 0 };
    struct err e;
    long head = 0;
    char chunk[4096];
    int64_t limit = now_us() + (int64_t)wait_ms * 1000;
    sb_init(&b, REPLY_MAX_BYTES);
    while (head == 0 || b.len < (size_t)head + m.length) {
        ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n > 0)
            sb_add(&b, chunk, (size_t)n);
        if (n <= 0 || b.overflow || now_us() > limit || (head == 0 && (head = http_head_parse(&m, b.s, b.len, false, &e)) < 0)) {
            http_message_clear(&m);
            return false;
        }
    }
    const char *index = http_message_header(&m, "Shoal-Index");
    a->status = m.status;
    if (index && !str_u64(index, 1, UINT64_MAX, &a->index))
        a->index = 0;
    a->body = xstrndup(b.s + head, (size_t)m.length);
    bool keep = m.keep_alive;
    http_message_clear(&m);
    if (!keep)
        hang_up(c);
    return true;
}

static void ask(struct client *c, const char *method, const char *path, const char *body, struct answer *a)
{
    AUTO_SB struct sb b;
    *a = (struct answer){ 0 };
    sb_init(&b, 0);
    sb_printf(&b, "%s %s HTTP/1.1\r\nHost: shoal\r\nContent-Length: %zu\r\n\r\n%s", method, path, strlen(body), body);
    /* An impatient reader loses nothing, and is soon with another manager, where a new leader may be. */
    uint64_t most = !strcmp(method, "GET") && !ending ? READ_WAIT_MS : WRITE_WAIT_MS;
    uint64_t wait_ms = rng_range(&c->rng, most / 5, most);
    set_wait(c->fd, wait_ms);
    if (send_all(c->fd, b.s, b.len) && receive(c, a, wait_ms))
        return;
    hang_up(c);
    c->at = (unsigned)rng_below(&c->rng, c->o->n_sockets);
}

/* ---- what was heard ---- */
static void surprise(const struct client *c, const char *what, const struct answer *a)
{
    fprintf(stderr, "clients: %s %s answered %d: %s\n", what, c->key, a->status, a->body ? a->body : "");
    exit(1);
}

static const char *outcome_of(const struct client *c, const char *what, const struct answer *a)
{
    if (!a->status)
        return "unknown";
    if (a->status == 200 || a->status == 201)
        return "ok";
    if (a->status == 404 || strstr(a->body, "update out of sequence") || (a->status == 409 && a->index))
        return "refused";
    if (strstr(a->body, "is not known"))
        return "unknown";
    if (a->status == 503 || a->status == 409)
        return "failed";
    surprise(c, what, a);
    return NULL;
}

static void note(struct client *c, int64_t start, const char *what, const char *outcome, uint64_t index)
{
    fprintf(c->out, "%u %lld ", c->number, (long long)start);
    if (strcmp(outcome, "unknown"))
        fprintf(c->out, "%lld ", (long long)now_us());
    else
        fprintf(c->out, "- ");
    fprintf(c->out, "%s %s", what, outcome);
    if (index && (!strcmp(outcome, "ok") || !strcmp(outcome, "refused")))
        fprintf(c->out, " %llu", (unsigned long long)index);
    fputc('\n', c->out);
}

/* ---- operations ---- */
static bool read_value(struct client *c, const struct answer *a)
{
    struct val_doc *d = NULL;
    struct err e;
    if (json_parse(&d, a->body, strlen(a->body), "answer", &e) < 0)
        surprise(c, "read", a);
    const struct val *root = val_root(d);
    const char *v = val_get_str(val_get(val_get(root, "Spec"), "Labels"), "v");
    c->version = (uint64_t)val_get_int(val_get(root, "Version"), "Index", 0);
    if (!v || !c->version)
        surprise(c, "read", a);
    snprintf(c->seen, sizeof c->seen, "%s", v);
    val_doc_free(d);
    return true;
}

static bool do_read(struct client *c)
{
    struct answer a;
    char path[80], what[160];
    int64_t start = now_us();
    snprintf(path, sizeof path, "/configs/%s", c->key);
    ask(c, "GET", path, "", &a);
    bool ok = a.status == 200 || a.status == 404;
    if (a.status == 200)
        read_value(c, &a);
    if (a.status == 404) {
        snprintf(c->seen, sizeof c->seen, "-");
        c->version = 0;
    }
    snprintf(what, sizeof what, "read %s %s", c->key, ok ? c->seen : "-");
    const char *outcome = ok ? "ok" : outcome_of(c, "read", &a);
    note(c, start, what, outcome, a.index);
    free(a.body);
    return ok;
}

static void do_write(struct client *c)
{
    struct answer a;
    char path[120], what[200], body[240];
    bool create = !strcmp(c->seen, "-");
    snprintf(c->value, sizeof c->value, "c%u.%llu", c->number, (unsigned long long)++c->written);
    snprintf(body, sizeof body, "{\"Name\":\"%s\",\"Labels\":{\"v\":\"%s\"}%s}", c->key, c->value,
             create ? ",\"Data\":\"eA==\"" : "");
    if (create)
        snprintf(path, sizeof path, "/configs/create");
    else
        snprintf(path, sizeof path, "/configs/%s/update?version=%llu", c->key, (unsigned long long)c->version);
    snprintf(what, sizeof what, "cas %s %s %s", c->key, c->seen, c->value);
    int64_t start = now_us();
    ask(c, "POST", path, body, &a);
    const char *outcome = outcome_of(c, "write", &a);
    note(c, start, what, outcome, a.index);
    /* An update that went through has the index of its entry as version; so a chain needs no reads in between. */
    bool known = !strcmp(outcome, "ok") && a.index;
    if (known)
        memcpy(c->seen, c->value, sizeof c->seen);
    c->version = known ? a.index : 0;
    if (!known && rng_chance(&c->rng, 900))
        c->key[0] = 0; /* mostly looks before it tries again */
    free(a.body);
}

static void choose_key(struct client *c)
{
    const struct options *o = c->o;
    char key[48];
    uint64_t epoch = (uint64_t)(now_us() / 1000 - o->began_ms) / o->epoch_ms;
    snprintf(key, sizeof key, "e%llu.k%llu", (unsigned long long)epoch, (unsigned long long)rng_below(&c->rng, o->keys));
    if (strcmp(key, c->key) && (c->key[0] == 0 || rng_chance(&c->rng, 300))) {
        memcpy(c->key, key, sizeof key);
        c->version = 0;
        c->seen[0] = 0;
    }
}

static void pause_us(uint64_t us)
{
    struct timespec t = { .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 };
    nanosleep(&t, NULL);
}

static void last_reads(struct client *c)
{
    const struct options *o = c->o;
    uint64_t epochs = (uint64_t)(now_us() / 1000 - o->began_ms) / o->epoch_ms + 1;
    int64_t limit = now_us() + INT64_C(1000000) * LAST_READS_S;
    for (uint64_t i = c->number; i < epochs * o->keys; i += o->clients)
        for (;;) {
            snprintf(c->key, sizeof c->key, "e%llu.k%llu", (unsigned long long)(i / o->keys), (unsigned long long)(i % o->keys));
            if (call_up(c) && do_read(c))
                break;
            if (now_us() > limit) {
                fprintf(stderr, "clients: no manager answered a last read of %s in %d s\n", c->key, LAST_READS_S);
                exit(1);
            }
            hang_up(c);
            c->at = (c->at + 1) % o->n_sockets;
            pause_us(50000);
        }
}

static int run_client(const struct options *o, unsigned number)
{
    struct client c = { .o = o, .number = number, .at = number % o->n_sockets, .fd = -1 };
    AUTO_FREE char *path = xasprintf("%s.%u", o->out, number);
    rng_init(&c.rng, (uint64_t)clock_mono_ns() + number);
    c.out = fopen(path, "we");
    if (!c.out) {
        fprintf(stderr, "clients: cannot write %s: %s\n", path, strerror(errno));
        return 1;
    }
    while (!ending) {
        if (rng_chance(&c.rng, 20)) { /* another manager's turn */
            hang_up(&c);
            c.at = (unsigned)rng_below(&c.rng, o->n_sockets);
        }
        if (!call_up(&c)) {
            c.at = (unsigned)rng_below(&c.rng, o->n_sockets);
            pause_us(20000);
            continue;
        }
        choose_key(&c);
        bool can_write = c.seen[0] && (c.version || !strcmp(c.seen, "-"));
        if (can_write && rng_chance(&c.rng, 500))
            do_write(&c);
        else if (c.key[0])
            do_read(&c);
        pause_us(rng_below(&c.rng, 2 * o->think_us + 1));
    }
    last_reads(&c);
    return fclose(c.out) == 0 ? 0 : 1;
}

static bool number_option(const char *text, uint64_t *ret)
{
    return text && str_u64(text, 1, 1000000, ret);
}

static bool parse(struct options *o, int argc, char **argv)
{
    struct { const char *name; uint64_t *value; } numbers[] = { { "--clients", &o->clients }, { "--keys", &o->keys },
                                                                { "--epoch-ms", &o->epoch_ms }, { "--think-us", &o->think_us } };
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            if (o->n_sockets == SOCKETS_MAX)
                return false;
            o->sockets[o->n_sockets++] = argv[i];
            continue;
        }
        const char *name = argv[i], *value = argv[++i];
        bool known = !strcmp(name, "--out") && value;
        if (known)
            o->out = value;
        for (size_t k = 0; k < ARRAY_N(numbers); k++)
            known |= !strcmp(name, numbers[k].name) && number_option(value, numbers[k].value);
        if (!known)
            return false;
    }
    return o->out && o->clients && o->n_sockets;
}

int main(int argc, char **argv)
{
    struct options o = { .clients = 6, .keys = 4, .epoch_ms = 4000, .think_us = 5000 };
    if (!parse(&o, argc, argv)) {
        fprintf(stderr, "usage: clients --out FILE [--clients N] [--keys K] [--epoch-ms MS] [--think-us US] SOCKET...\n");
        return 2;
    }
    struct sigaction sa = { .sa_handler = on_term };
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    o.began_ms = now_us() / 1000;
    clients = xcalloc(o.clients, sizeof *clients);
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigaddset(&term, SIGINT);
    sigprocmask(SIG_BLOCK, &term, &before); /* none is told of an end before all can be */
    for (unsigned i = 0; i < o.clients; i++)
        if ((clients[i] = fork()) == 0) {
            sigprocmask(SIG_SETMASK, &before, NULL);
            _exit(run_client(&o, i));
        }
    n_clients = (sig_atomic_t)o.clients;
    sigprocmask(SIG_SETMASK, &before, NULL);
    int status, failed = 0;
    for (unsigned left = (unsigned)o.clients; left;) {
        if (wait(&status) <= 0)
            continue;
        left--;
        failed |= status != 0;
    }
    n_clients = 0;
    free(clients);
    return failed;
}
