/* HTTP to the daemon over its unix socket, one call at a time with plain blocking reads: a command line has
 * one thing to do, so it needs the parser half of http.h (RFC 9112) but no event loop. Only an upload looks at
 * both directions, because the daemon may refuse before it has read everything. */
#include "cli.h"
#include <errno.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <shoal/http.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct cli_answer {
    int fd;
    char buf[64 << 10];
    size_t len;            /* bytes of buf not yet used */
    struct http_message m; /* head, once read */
};

static int open_socket(struct cli *c, int *ret_fd, struct err *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(c->host) >= sizeof a.sun_path)
        return err_set(e, E_INVALID, "the socket path %s is too long; set a shorter one with -H", c->host);
    memcpy(a.sun_path, c->host, strlen(c->host));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, errno, "cannot make a socket");
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        int why = errno;
        close(fd);
        c->refused = true;
        if (why == EACCES)
            return err_set(e, E_DENIED, "cannot reach the shoal daemon at %s: permission denied. Run the "
                           "command as root or as a user of the socket's group.", c->host);
        return err_set(e, E_UNAVAILABLE, "cannot reach the shoal daemon at %s: %s. Is it running? Start it with "
                       "`systemctl start shoal` or `shoal daemon`.", c->host, strerror(why));
    }
    signal(SIGPIPE, SIG_IGN);
    *ret_fd = fd;
    return 0;
}

static int send_head(const struct cli *c, int fd, const char *method, const char *path, const char *body, bool chunked, bool upgrade,
                     struct err *e)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    sb_printf(&b, "%s " CLI_API "%s HTTP/1.1\r\nHost: shoal\r\nUser-Agent: shoal/" CLI_VERSION "\r\n", method, path);
    if (upgrade)
        sb_str(&b, "Connection: Upgrade\r\nUpgrade: tcp\r\n");
    else
        sb_str(&b, "Connection: close\r\n");
    if (c->registry_auth)
        sb_printf(&b, "X-Registry-Auth: %s\r\n", c->registry_auth);
    if (chunked)
        sb_str(&b, "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n");
    else if (body)
        sb_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    else if (strcmp(method, "GET"))
        sb_str(&b, "Content-Length: 0\r\n");
    sb_str(&b, "\r\n");
    if (body && !chunked)
        sb_str(&b, body);
    return fd_write_all(fd, b.s, b.len, e);
}

/* Reads more into buf. 0: end of the connection. */
static long more(struct cli_answer *r, struct err *e)
{
    ssize_t n;
    do
        n = read(r->fd, r->buf + r->len, sizeof r->buf - r->len);
    while (n < 0 && errno == EINTR && !term_interrupted());
    if (n < 0)
        return err_errno(e, errno, "the connection to the daemon broke");
    r->len += (size_t)n;
    return n;
}

static void used(struct cli_answer *r, size_t n)
{
    memmove(r->buf, r->buf + n, r->len - n);
    r->len -= n;
}

static int read_head(struct cli_answer *r, struct err *e)
{
    for (;;) {
        long n = r->len ? http_head_parse(&r->m, r->buf, r->len, false, e) : 0;
        if (n < 0)
            return err_wrap(e, "the daemon's reply");
        if (n > 0) {
            used(r, (size_t)n);
            if (r->m.status != 100)
                return 0;
            http_message_clear(&r->m);
            continue;
        }
        if (r->len == sizeof r->buf)
            return err_set(e, E_TOO_BIG, "the head of the daemon's reply is larger than %zu bytes", sizeof r->buf);
        n = more(r, e);
        if (n == 0)
            return err_set(e, E_CLOSED, "the daemon closed the connection without a reply; see its log");
        if (n < 0)
            return (int)n;
    }
}

static int read_body(struct cli_answer *r, const char *method, cli_data_fn *data, void *arg, struct err *e)
{
    struct http_body body;
    http_body_init(&body, &r->m, true, !strcmp(method, "HEAD") || r->m.status == 204 || r->m.status == 304);
    while (!body.done) {
        const char *p;
        size_t n = 0;
        long k = r->len ? http_body_take(&body, r->buf, r->len, &p, &n) : 0;
        if (k < 0)
            return err_set(e, E_CORRUPT, "the daemon's reply is not correctly chunked");
        int rc = n ? data(arg, p, n, e) : 0;
        if (rc < 0)
            return rc;
        used(r, (size_t)k);
        if (k > 0)
            continue;
        long got = more(r, e);
        if (got < 0)
            return (int)got;
        if (got == 0 && body.kind != HTTP_BODY_CLOSE)
            return err_set(e, E_CLOSED, "the daemon closed the connection in the middle of its reply");
        if (got == 0)
            break;
    }
    return 0;
}

static int keep(void *arg, const char *p, size_t size, struct err *e)
{
    struct sb *b = arg;
    sb_add(b, p, size);
    return b->overflow ? err_set(e, E_TOO_BIG, "the daemon's reply is larger than %d MiB", CLI_REPLY_MAX_BYTES >> 20)
                       : 0;
}

static int code_of(int status)
{
    return status == 404 ? E_NOT_FOUND : status == 409 ? E_CONFLICT : status == 503 ? E_UNAVAILABLE : E_IO;
}

static int refused(struct cli *c, struct cli_answer *r, const char *method, struct err *e)
{
    AUTO_SB struct sb b;
    struct val_doc *d = NULL;
    struct err ignored;
    sb_init(&b, 1 << 20);
    int rc = read_body(r, method, keep, &b, e);
    if (rc < 0)
        return rc;
    c->refused = true;
    const char *text = json_parse(&d, b.s, b.len, "reply", &ignored) == 0
                           ? val_get_str(val_root(d), "message") : NULL;
    rc = text ? err_set(e, code_of(r->m.status), "%s", text)
              : err_set(e, code_of(r->m.status), "the daemon answered with status %d", r->m.status);
    val_doc_free(d);
    return rc;
}

static struct cli_answer *reply_new(int fd)
{
    struct cli_answer *r = xnew(struct cli_answer);
    r->fd = fd;
    return r;
}

void cli_answer_free(struct cli_answer *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    http_message_clear(&r->m);
    free(r);
}

static long read_fd(void *arg, char *buf, size_t size, struct err *e)
{
    ssize_t n;
    do
        n = read(*(const int *)arg, buf, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? err_errno(e, errno, "cannot read the input") : n;
}

/* Sends one piece of the upload. 1: more to come, 0: the end is sent. *ret_source: the error is the source's. */
static int upload_piece(cli_source_fn *source, void *arg, int to, bool *ret_source, struct err *e)
{
    char piece[(32 << 10) + 16], head[16];
    long n = source(arg, piece, 32 << 10, e);
    *ret_source = n < 0;
    if (n < 0)
        return (int)n;
    int k = snprintf(head, sizeof head, "%zx\r\n", (size_t)n);
    memcpy(piece + n, "\r\n", 2);
    int rc = fd_write_all(to, head, (size_t)k, e);
    if (rc == 0)
        rc = fd_write_all(to, piece, (size_t)n + 2, e);
    return rc < 0 ? rc : n > 0;
}

/* Until all is sent or the daemon answers early; a broken pipe is an answer to be read. */
static int upload(cli_source_fn *source, void *arg, int to, struct err *e)
{
    for (;;) {
        struct pollfd p = { .fd = to, .events = POLLIN | POLLOUT };
        bool of_source;
        if (poll(&p, 1, -1) < 0 && errno != EINTR)
            return err_errno(e, errno, "poll");
        if (p.revents & (POLLIN | POLLHUP | POLLERR))
            return 0;
        int rc = upload_piece(source, arg, to, &of_source, e);
        if (rc <= 0)
            return rc == -E_CLOSED && !of_source ? 0 : rc;
    }
}

int cli_stream(struct cli *c, const struct cli_stream *s, struct err *e)
{
    int fd = -1, rc = open_socket(c, &fd, e);
    if (rc < 0)
        return rc;
    struct cli_answer *r = reply_new(fd);
    bool body = s->upload >= 0 || s->source;
    int from = s->upload;
    rc = send_head(c, fd, s->method, s->path, s->body, body, false, e);
    if (rc == 0 && body)
        rc = upload(s->source ? s->source : read_fd, s->source ? s->source_arg : &from, fd, e);
    if (rc == 0)
        rc = read_head(r, e);
    const char *value = rc == 0 && s->header ? http_message_header(&r->m, s->header) : NULL;
    if (value)
        sb_str(s->header_value, value);
    if (rc == 0)
        rc = r->m.status >= 400 ? refused(c, r, s->method, e) : read_body(r, s->method, s->data, s->arg, e);
    cli_answer_free(r);
    return rc;
}

int cli_call(struct cli *c, const char *method, const char *path, const char *body, struct val_doc **ret,
             struct err *e)
{
    AUTO_SB struct sb b;
    sb_init(&b, CLI_REPLY_MAX_BYTES);
    struct cli_stream s = { .method = method, .path = path, .body = body, .upload = -1, .data = keep, .arg = &b };
    c->refused = false;
    if (ret)
        *ret = NULL;
    int rc = cli_stream(c, &s, e);
    if (rc < 0 || !ret || b.len == 0)
        return rc;
    return json_parse(ret, b.s, b.len, "the daemon's reply", e);
}

int cli_get(struct cli *c, struct val_doc **ret, struct err *e, const char *fmt, ...)
{
    AUTO_SB struct sb path;
    va_list ap;
    sb_init(&path, 0);
    va_start(ap, fmt);
    sb_vprintf(&path, fmt, ap);
    va_end(ap);
    int rc = cli_call(c, "GET", path.s, NULL, ret, e);
    return rc == 0 && !*ret ? err_set(e, E_CORRUPT, "the daemon sent an empty reply to GET %s", path.s) : rc;
}

int cli_begin(struct cli *c, const char *method, const char *path, struct cli_answer **ret, struct err *e)
{
    int fd = -1, rc = open_socket(c, &fd, e);
    *ret = NULL;
    if (rc < 0)
        return rc;
    struct cli_answer *r = reply_new(fd);
    rc = send_head(c, fd, method, path, NULL, false, false, e);
    if (rc == 0)
        rc = read_head(r, e);
    if (rc == 0 && r->m.status >= 400)
        rc = refused(c, r, method, e);
    if (rc < 0)
        cli_answer_free(r);
    else
        *ret = r;
    return rc;
}

int cli_finish(struct cli_answer *r, struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb b;
    sb_init(&b, CLI_REPLY_MAX_BYTES);
    *ret = NULL;
    int rc = read_body(r, "", keep, &b, e);
    cli_answer_free(r);
    return rc < 0 || b.len == 0 ? rc : json_parse(ret, b.s, b.len, "the daemon's reply", e);
}

int cli_hijack(struct cli *c, const char *path, const char *body, int *ret_fd, struct sb *held, struct err *e)
{
    int fd = -1, rc = open_socket(c, &fd, e);
    if (rc < 0)
        return rc;
    struct cli_answer *r = reply_new(fd);
    rc = send_head(c, fd, "POST", path, body, false, true, e);
    if (rc == 0)
        rc = read_head(r, e);
    if (rc == 0 && r->m.status >= 400)
        rc = refused(c, r, "POST", e);
    if (rc == 0) {
        sb_add(held, r->buf, r->len);
        *ret_fd = r->fd;
        r->fd = -1;
    }
    cli_answer_free(r);
    return rc;
}
