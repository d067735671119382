/* A container's lines for systemd's journal, as dockerd's journald driver sends them: its native protocol
 * (systemd.io/JOURNAL_NATIVE_PROTOCOL), a datagram a line; one too large for that goes in sealed memory. The shim keeps its own
 * file beside it, from which logs are read: a journal that does not take a line loses it only here. It is waited for, for a
 * moment in all; then lines are left out, counted and said in the next that it takes: no container stands still for it. */
#include "runtime_internal.h"
#include <errno.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <shoal/model/log_driver.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIELDS_MAX_BYTES = 4 << 20, /* what is not an attribute is bounded, and far smaller */
       WAIT_PART = 20, PRIORITY_ERR = 3, PRIORITY_INFO = 6 };
#define WAIT_NS (200 * MS_NS)

struct journal {
    int fd;           /* connected, or -1 */
    struct sb fields; /* of each line: which container it is of */
    struct sb whole;  /* one line with all its fields */
    uint64_t n_lost;
    struct err why;   /* the last of them */
    int64_t wait_ns, waited_ns; /* how long it may still be waited for, as of when */
};

/* A value with a newline has its size before it, in the byte order of the protocol. */
static void add_field(struct sb *b, const char *name, const char *p, size_t size)
{
    sb_str(b, name);
    if (memchr(p, '\n', size)) {
        sb_char(b, '\n');
        for (unsigned shift = 0; shift < 64; shift += 8)
            sb_char(b, (char)((uint64_t)size >> shift));
    } else {
        sb_char(b, '=');
    }
    sb_add(b, p, size);
    sb_char(b, '\n');
}

static void add_text(struct sb *b, const char *name, const char *text)
{
    add_field(b, name, text ? text : "", strlen(text ? text : ""));
}

/* As dockerd has it: capitals, digits and underscores, none of these at the beginning, where they are the journal's own. False:
 * too large, beside all others. */
static bool add_attribute(struct sb *b, const char *name, size_t n, const char *value)
{
    char field[65];
    size_t k = 0;
    for (size_t i = 0; i < n && k + 1 < sizeof field; i++) {
        char c = name[i];
        c = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
        if (k || c != '_')
            field[k++] = c;
    }
    field[k] = '\0';
    if (b->max - b->len < k + strlen(value) + 10)
        return false;
    if (k)
        add_text(b, field, value);
    return true;
}

static bool is_listed(const char *list, const char *name, size_t n)
{
    for (const char *p = list; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && strncmp(p, name, n) == 0)
            return true;
    return false;
}

/* Labels and variables that the options name; how many had to be left out. */
static unsigned add_attributes(struct sb *b, const struct container_spec *s)
{
    const char *labels = labels_get(&s->log_options, "labels"), *env = labels_get(&s->log_options, "env");
    unsigned n_left = 0;
    for (uint32_t i = 0; i < s->labels.n; i++) {
        const char *key = s->labels.v[i].key;
        if (is_listed(labels, key, strlen(key)))
            n_left += !add_attribute(b, key, strlen(key), s->labels.v[i].value);
    }
    for (uint32_t i = 0; i < s->env.n; i++) {
        size_t n = strcspn(s->env.v[i], "=");
        if (s->env.v[i][n] && is_listed(env, s->env.v[i], n))
            n_left += !add_attribute(b, s->env.v[i], n, s->env.v[i] + n + 1);
    }
    return n_left;
}

static int connect_journal(struct journal *j, struct err *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    snprintf(a.sun_path, sizeof a.sun_path, "%s", JOURNAL_SOCKET);
    if (j->fd >= 0)
        close(j->fd);
    j->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (j->fd >= 0 && connect(j->fd, (struct sockaddr *)&a, sizeof a) == 0)
        return 0;
    int r = err_errno(e, errno, JOURNAL_SOCKET);
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
    return r;
}

static int send_large(struct journal *j, struct err *e)
{
    AUTO_CLOSE int fd = memory_file("journal", 0, j->whole.s, j->whole.len, e);
    return fd < 0 ? fd : fd_send_with_fds(j->fd, NULL, 0, &fd, 1, e);
}

static int send_once(struct journal *j, struct err *e)
{
    if (send(j->fd, j->whole.s, j->whole.len, MSG_NOSIGNAL) >= 0)
        return 0;
    return errno == EMSGSIZE ? send_large(j, e) : err_errno(e, errno, "send");
}

/* The container stands still meanwhile: at most for WAIT_NS and one part of the time that has passed, and not at all while the
 * journal has not even taken the lines before. */
static bool has_room(struct journal *j)
{
    struct pollfd p = { .fd = j->fd, .events = POLLOUT };
    int64_t begin = clock_mono_ns();
    if (j->n_lost)
        return false;
    j->wait_ns = MIN(MAX(j->wait_ns, 0) + (begin - j->waited_ns) / WAIT_PART, WAIT_NS);
    int n = poll(&p, 1, (int)(j->wait_ns / MS_NS));
    j->waited_ns = clock_mono_ns();
    j->wait_ns -= j->waited_ns - begin;
    return n == 1;
}

/* One that is behind gets its moment; whatever else is wrong, a new connection may mend: a journal begun anew has another socket. */
static int send_whole(struct journal *j, struct err *e)
{
    int r = j->fd >= 0 ? send_once(j, e) : -E_CLOSED;
    if (r == -E_BUSY && has_room(j))
        r = send_once(j, e);
    if (r == -E_BUSY)
        return err_set(e, E_BUSY, "it is behind");
    if (r < 0 && (r = connect_journal(j, e)) == 0)
        r = send_once(j, e);
    return r;
}

static int send_message(struct journal *j, bool err, bool partial, const char *p, size_t size, struct err *e)
{
    char priority[4];
    snprintf(priority, sizeof priority, "%d", err ? PRIORITY_ERR : PRIORITY_INFO);
    sb_reset(&j->whole);
    sb_add(&j->whole, j->fields.s, j->fields.len);
    add_text(&j->whole, "PRIORITY", priority);
    if (partial)
        add_text(&j->whole, "CONTAINER_PARTIAL_MESSAGE", "true");
    add_field(&j->whole, "MESSAGE", p, size);
    return send_whole(j, e);
}

/* A line of our own. */
static int tell(struct journal *j, const char *text)
{
    struct err ignored; /* of the lines that it tells of the reason is in it */
    return send_message(j, true, false, text, strlen(text), &ignored);
}

static void say_lost(const struct journal *j, char text[JOURNAL_TEXT_BYTES])
{
    snprintf(text, JOURNAL_TEXT_BYTES, "[shoal: %llu lines lost, the journal did not take them: %s]", (unsigned long long)j->n_lost, j->why.text);
}

struct journal *journal_open(const struct container_spec *s)
{
    char id[13], text[JOURNAL_TEXT_BYTES];
    if (!str_equal(s->log_driver, "journald"))
        return NULL;
    struct journal *j = xnew(struct journal);
    j->fd = -1;
    sb_init(&j->fields, FIELDS_MAX_BYTES);
    sb_init(&j->whole, 2 * FIELDS_MAX_BYTES);
    AUTO_SB struct sb tag;
    sb_init(&tag, 0);
    const char *wanted = labels_get(&s->log_options, "tag");
    const struct log_tag_values values = { s->id, s->name, s->image, s->image_id };
    if (log_tag(wanted && *wanted ? wanted : "{{.ID}}", &values, &tag, NULL) < 0) /* it was looked at when it was made */
        sb_str(&tag, s->id);
    snprintf(id, sizeof id, "%.12s", s->id);
    add_text(&j->fields, "CONTAINER_ID", id);
    add_text(&j->fields, "CONTAINER_ID_FULL", s->id);
    add_text(&j->fields, "CONTAINER_NAME", s->name);
    add_text(&j->fields, "CONTAINER_TAG", tag.s);
    add_text(&j->fields, "IMAGE_NAME", s->image);
    add_text(&j->fields, "SYSLOG_IDENTIFIER", tag.s);
    unsigned n = add_attributes(&j->fields, s);
    if (n) {
        snprintf(text, sizeof text, "[shoal: %u labels and variables are left out of what the journal gets, which would be too large]", n);
        j->n_lost = tell(j, text) < 0;
    }
    return j;
}

void journal_send(struct journal *j, bool err, bool partial, const char *p, size_t size)
{
    char text[JOURNAL_TEXT_BYTES];
    if (j->n_lost) {
        say_lost(j, text);
        if (tell(j, text) == 0)
            j->n_lost = 0;
    }
    if (send_message(j, err, partial, p, size, &j->why) < 0)
        j->n_lost++;
}

void journal_close(struct journal *j, char untold[JOURNAL_TEXT_BYTES])
{
    untold[0] = '\0';
    if (!j)
        return;
    if (j->n_lost) {
        say_lost(j, untold);
        j->n_lost = 0; /* once more it may be waited for */
        if (tell(j, untold) == 0)
            untold[0] = '\0';
    }
    if (j->fd >= 0)
        close(j->fd);
    sb_done(&j->fields);
    sb_done(&j->whole);
    free(j);
}
