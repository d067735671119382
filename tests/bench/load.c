/* The client of tests/bench/consensus: CLIENTS clients in one process, each with one small write under way and the next
 * as soon as it is acknowledged, for SECONDS after a second of warming up. Prints
 *   rate N/s p50 us p99 us max us errors N
 *   load shoal SOCKET CLIENTS SECONDS         updates the label of a config (each client its own), HTTP/1.1, one
 *                                             connection a client
 *   load shoal-get SOCKET CLIENTS SECONDS     reads it
 *   load etcd ADDRESS:PORT CLIENTS SECONDS    puts a key (each client its own), gRPC over HTTP/2, 16 clients (streams) a
 *                                             connection
 * A value has 100 bytes. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <shoal/http.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { STREAMS = 16, VALUE_BYTES = 100, FRAME_HEAD = 9, SAMPLES_MAX = 8 << 20 };
enum { F_DATA = 0, F_HEADERS = 1, F_RST = 3, F_SETTINGS = 4, F_PING = 6, F_GOAWAY = 7, F_WINDOW = 8 };

struct client {
    unsigned number;
    int64_t began_us; /* 0: nothing under way */
    uint64_t written, version;
    uint32_t stream;
    bool answered, ready; /* ready: its config is there */
};

struct connection {
    int fd;
    struct sb in, out;
    size_t sent;
    struct client *clients;
    unsigned n_clients;
    uint32_t next_stream;
    int64_t window; /* bytes that HTTP/2 lets us send */
};

static bool etcd, only_get;
static int64_t measure_from_us, measure_to_us;
static uint32_t *samples;
static uint64_t n_samples, n_errors;

static int64_t now_us(void)
{
    return clock_mono_ns() / 1000;
}

__attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static void done(struct client *c, bool good)
{
    int64_t now = now_us();
    if (!good)
        n_errors++;
    else if (c->began_us >= measure_from_us && now < measure_to_us && n_samples < SAMPLES_MAX)
        samples[n_samples++] = (uint32_t)(now - c->began_us);
    c->began_us = 0;
}

static void make_value(const struct client *c, char out[VALUE_BYTES + 1])
{
    int n = snprintf(out, VALUE_BYTES + 1, "%u.%llu.", c->number, (unsigned long long)c->written);
    memset(out + n, 'x', (size_t)(VALUE_BYTES - n));
    out[VALUE_BYTES] = 0;
}

/* ---- shoal ---- */
static void shoal_ask(struct connection *k)
{
    struct client *c = &k->clients[0];
    char value[VALUE_BYTES + 1], body[400], name[32], target[120];
    make_value(c, value);
    snprintf(name, sizeof name, "load.%u", c->number);
    int n = snprintf(body, sizeof body, "{\"Name\":\"%s\",\"Labels\":{\"v\":\"%s\"}%s}", name, value,
                     c->ready ? "" : ",\"Data\":\"eA==\"");
    if (!c->ready)
        snprintf(target, sizeof target, "POST /configs/create");
    else if (only_get)
        snprintf(target, sizeof target, "GET /configs/%s", name);
    else
        snprintf(target, sizeof target, "POST /configs/%s/update?version=%llu", name, (unsigned long long)c->version);
    if (c->ready && only_get)
        n = 0;
    c->written++;
    c->began_us = now_us();
    sb_printf(&k->out, "%s HTTP/1.1\r\nHost: shoal\r\nContent-Length: %d\r\n\r\n%.*s", target, n, n, body);
}

static void shoal_got(struct connection *k)
{
    struct client *c = &k->clients[0];
    struct http_message m = { 0 };
    struct err e;
    long head = http_head_parse(&m, k->in.s, k->in.len, false, &e);
    if (head < 0)
        die("an answer that is no HTTP");
    if (head == 0 || k->in.len < (size_t)head + m.length) {
        http_message_clear(&m);
        return;
    }
    const char *index = http_message_header(&m, "Shoal-Index");
    bool good = (m.status == 200 || m.status == 201) && index && str_u64(index, 1, UINT64_MAX, &c->version);
    if (!good && n_errors < 3)
        fprintf(stderr, "load: %d %.*s\n", m.status, (int)m.length, k->in.s + head);
    sb_drop_front(&k->in, (size_t)head + m.length);
    http_message_clear(&m);
    if (!good && !c->ready)
        die("a config could not be made");
    c->ready = true;
    done(c, good);
    shoal_ask(k);
}

/* ---- etcd ---- */
static void frame(struct sb *b, unsigned type, unsigned flags, uint32_t stream, const void *p, size_t size)
{
    uint8_t h[FRAME_HEAD] = { (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, (uint8_t)type, (uint8_t)flags,
                              (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream };
    sb_add(b, h, sizeof h);
    sb_add(b, p, size);
}

static void etcd_hello(struct connection *k)
{
    static const uint8_t settings[] = { 0, 4, 0x7f, 0xff, 0xff, 0xff }, window[] = { 0x7f, 0xff, 0, 0 };
    sb_str(&k->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(&k->out, F_SETTINGS, 0, 0, settings, sizeof settings); /* streams may send us what they like */
    frame(&k->out, F_WINDOW, 0, 0, window, sizeof window);
    k->next_stream = 1;
    k->window = 65535;
}

static void etcd_ask(struct connection *k, struct client *c)
{
    static const char headers[] = "\x83\x86\x04\x14/etcdserverpb.KV/Put\x01\x04" "etcd\x0f\x10\x10" "application/grpc\x00\x02te\x08trailers";
    char value[VALUE_BYTES + 1], key[32], message[200];
    int key_len = snprintf(key, sizeof key, "load.%u", c->number);
    size_t n = 5;
    c->written++;
    make_value(c, value);
    message[n++] = 0x0a;
    message[n++] = (char)key_len;
    memcpy(message + n, key, (size_t)key_len);
    n += (size_t)key_len;
    message[n++] = 0x12;
    message[n++] = VALUE_BYTES;
    memcpy(message + n, value, VALUE_BYTES);
    n += VALUE_BYTES;
    memset(message, 0, 5);
    message[4] = (char)(n - 5);
    if (k->window < (int64_t)n)
        return; /* asked again when the window opens */
    k->window -= (int64_t)n;
    c->stream = k->next_stream;
    k->next_stream += 2;
    c->answered = false;
    c->began_us = now_us();
    frame(&k->out, F_HEADERS, 4, c->stream, headers, sizeof headers - 1);
    frame(&k->out, F_DATA, 1, c->stream, message, n);
}

static void etcd_frame(struct connection *k, unsigned type, unsigned flags, uint32_t stream, const uint8_t *p, size_t size)
{
    struct client *c = NULL;
    for (unsigned i = 0; i < k->n_clients; i++)
        if (k->clients[i].stream == stream && k->clients[i].began_us)
            c = &k->clients[i];
    if (type == F_SETTINGS && !(flags & 1))
        frame(&k->out, F_SETTINGS, 1, 0, NULL, 0);
    if (type == F_PING && !(flags & 1))
        frame(&k->out, F_PING, 1, 0, p, size);
    if (type == F_GOAWAY)
        die("etcd closes the connection");
    if (type == F_WINDOW && stream == 0 && size == 4)
        k->window += (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
    if (!c)
        return;
    if (type == F_DATA && size > 5)
        c->answered = true; /* only a success has a message */
    if (type == F_RST || ((type == F_HEADERS || type == F_DATA) && (flags & 1)))
        done(c, c->answered && type != F_RST);
}

static void etcd_got(struct connection *k)
{
    size_t at = 0;
    while (k->in.len - at >= FRAME_HEAD) {
        const uint8_t *h = (const uint8_t *)k->in.s + at;
        size_t size = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        if (k->in.len - at < FRAME_HEAD + size)
            break;
        uint32_t stream = ((uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8]) & 0x7fffffff;
        etcd_frame(k, h[3], h[4], stream, h + FRAME_HEAD, size);
        at += FRAME_HEAD + size;
    }
    sb_drop_front(&k->in, at);
    for (unsigned i = 0; i < k->n_clients; i++)
        if (!k->clients[i].began_us)
            etcd_ask(k, &k->clients[i]);
}

/* ---- the loop ---- */
static int open_connection(const char *where)
{
    struct sockaddr_un u = { .sun_family = AF_UNIX };
    struct sockaddr_in t = { .sin_family = AF_INET };
    char host[64];
    uint64_t port = 0;
    int one = 1, fd = socket(etcd ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;
    if (etcd) {
        const char *colon = strrchr(where, ':');
        if (!colon || !str_u64(colon + 1, 1, 65535, &port))
            die("ADDRESS:PORT is needed");
        snprintf(host, sizeof host, "%.*s", (int)(colon - where), where);
        t.sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, host, &t.sin_addr) != 1)
            die("no IPv4 address");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        r = connect(fd, (struct sockaddr *)&t, sizeof t);
    } else {
        snprintf(u.sun_path, sizeof u.sun_path, "%s", where);
        r = connect(fd, (struct sockaddr *)&u, sizeof u);
    }
    if (r != 0)
        die(strerror(errno));
    fd_set_nonblock(fd, true);
    return fd;
}

static void flush(struct connection *k)
{
    while (k->sent < k->out.len) {
        ssize_t n = send(k->fd, k->out.s + k->sent, k->out.len - k->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0)
            die("the server closed the connection");
        k->sent += (size_t)n;
    }
    sb_reset(&k->out);
    k->sent = 0;
}

static void receive(struct connection *k)
{
    char chunk[32768];
    ssize_t n = recv(k->fd, chunk, sizeof chunk, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        die("the server closed the connection");
    sb_add(&k->in, chunk, (size_t)n);
    (etcd ? etcd_got : shoal_got)(k);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void report(uint64_t seconds)
{
    if (!n_samples)
        die("nothing was acknowledged");
    qsort(samples, n_samples, sizeof *samples, compare);
    printf("rate %llu p50 %u p99 %u max %u errors %llu\n", (unsigned long long)(n_samples / seconds), samples[n_samples / 2],
           samples[n_samples * 99 / 100], samples[n_samples - 1], (unsigned long long)n_errors);
}

int main(int argc, char **argv)
{
    uint64_t n_clients, seconds;
    if (argc != 5 || !str_u64(argv[3], 1, 4096, &n_clients) || !str_u64(argv[4], 1, 3600, &seconds))
        die("usage: load shoal|shoal-get|etcd SOCKET|ADDRESS:PORT CLIENTS SECONDS");
    etcd = !strcmp(argv[1], "etcd");
    only_get = !strcmp(argv[1], "shoal-get");
    unsigned each = etcd ? STREAMS : 1, n = (unsigned)((n_clients + each - 1) / each);
    static struct connection *all; /* these live as long as the process */
    static struct client *clients;
    static struct pollfd *fds;
    all = xcalloc(n, sizeof *all);
    clients = xcalloc(n * each, sizeof *clients);
    fds = xcalloc(n, sizeof *fds);
    samples = xcalloc(SAMPLES_MAX, sizeof *samples);
    measure_from_us = now_us() + 1000000;
    measure_to_us = measure_from_us + (int64_t)seconds * 1000000;
    for (unsigned i = 0; i < n; i++) {
        struct connection *k = &all[i];
        *k = (struct connection){ .fd = open_connection(argv[2]), .clients = clients + i * each };
        k->n_clients = (unsigned)MIN(n_clients - i * each, (uint64_t)each);
        sb_init(&k->in, 0);
        sb_init(&k->out, 0);
        fds[i].fd = k->fd;
        for (unsigned c = 0; c < k->n_clients; c++)
            k->clients[c].number = i * each + c;
        if (etcd)
            etcd_hello(k);
        else
            shoal_ask(k);
        for (unsigned c = 0; etcd && c < k->n_clients; c++)
            etcd_ask(k, &k->clients[c]);
    }
    while (now_us() < measure_to_us) {
        for (unsigned i = 0; i < n; i++) {
            flush(&all[i]);
            fds[i].events = (short)(POLLIN | (all[i].out.len ? POLLOUT : 0));
        }
        if (poll(fds, n, 100) < 0 && errno != EINTR)
            die(strerror(errno));
        for (unsigned i = 0; i < n; i++)
            if (fds[i].revents)
                receive(&all[i]);
    }
    report(seconds);
    return 0;
}
