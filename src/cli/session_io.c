/* exec -it and run -it: the terminal in raw mode, its bytes to the process and back over the hijacked
 * connection. End of our input half-closes; the end is the other side's. A change of the window's size and the
 * signals to be forwarded wake the loop through a pipe and go to the daemon as requests of their own. */
#include "cli.h"
#include <errno.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <sys/socket.h>
#include <termios.h>
#include <fcntl.h>
#include <unistd.h>

static int wake[2] = { -1, -1 };

static void on_signal(int signum)
{
    int why = errno;
    char which = (char)signum;
    if (write(wake[1], &which, 1) < 0)
        errno = why; /* the pipe is full: a wake is under way already */
    errno = why;
}

static void send_size(struct cli *c, const char *resize)
{
    unsigned rows, cols;
    struct err ignored; /* the process may be over already */
    term_size(&rows, &cols);
    if (!resize || !rows || !cols)
        return;
    AUTO_FREE char *path = xasprintf("%s?h=%u&w=%u", resize, rows, cols);
    if (cli_call(c, "POST", path, NULL, NULL, &ignored) < 0)
        c->refused = false;
}

static void send_signal(struct cli *c, const char *container, int signum)
{
    struct err ignored; /* it may have ended by itself */
    AUTO_FREE char *path = xasprintf("/containers/%s/kill?signal=%d", container, signum);
    if (cli_call(c, "POST", path, NULL, NULL, &ignored) < 0)
        c->refused = false;
}

static void wake_up(struct cli *c, const struct session_of *of)
{
    char which[64];
    bool resized = false;
    ssize_t n;
    while ((n = read(wake[0], which, sizeof which)) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (which[i] == SIGWINCH)
                resized = true;
            else if (of->container)
                send_signal(c, of->container, which[i]);
    if (resized)
        send_size(c, of->resize);
}

static int print_frame(void *arg, int stream, const char *p, size_t size, struct err *e)
{
    (void)arg;
    return fd_write_all(stream == 2 ? 2 : 1, p, size, e);
}

static int give(struct frames *f, bool tty, const char *p, size_t size, struct err *e)
{
    return tty ? fd_write_all(1, p, size, e) : frames_take(f, p, size, print_frame, NULL, e);
}

struct session { int fd; bool input; const struct session_of *of; struct frames frames; };

/* 1: goes on, 0: the other side is done. */
static int from_daemon(struct session *s, struct err *e)
{
    char buf[32 << 10];
    ssize_t n = read(s->fd, buf, sizeof buf);
    if (n < 0 && errno == EINTR)
        return 1;
    if (n < 0)
        return errno == ECONNRESET ? 0 : err_errno(e, errno, "the connection to the daemon broke");
    int rc = n ? give(&s->frames, s->of->tty, buf, (size_t)n, e) : 0;
    return rc < 0 ? rc : n > 0;
}

static int from_input(struct session *s, struct err *e)
{
    char buf[16 << 10];
    ssize_t n = read(0, buf, sizeof buf);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 1;
    if (n <= 0) {
        s->input = false;
        shutdown(s->fd, SHUT_WR);
        return 1;
    }
    int rc = fd_write_all(s->fd, buf, (size_t)n, e);
    if (rc == -E_CLOSED) { /* the process does not read any more; what it writes still counts */
        s->input = false;
        return 1;
    }
    return rc < 0 ? rc : 1;
}

static int carry(struct cli *c, struct session *s, struct err *e)
{
    for (int rc = 1; rc > 0;) {
        struct pollfd p[3] = { { .fd = s->fd, .events = POLLIN },
                               { .fd = wake[0], .events = POLLIN },
                               { .fd = s->input ? 0 : -1, .events = POLLIN } };
        if (poll(p, 3, -1) < 0 && errno != EINTR)
            return err_errno(e, errno, "poll");
        if (p[1].revents)
            wake_up(c, s->of);
        if (p[2].revents)
            rc = from_input(s, e);
        if (rc > 0 && p[0].revents)
            rc = from_daemon(s, e);
        if (rc <= 0)
            return rc;
    }
    return 0;
}

static void catch(int signum, struct sigaction *before)
{
    struct sigaction a = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigaction(signum, &a, before);
}

int term_session(struct cli *c, int fd, struct sb *held, const struct session_of *of, struct err *e)
{
    struct session s = { .fd = fd, .of = of, .input = of->input };
    struct termios old, raw;
    struct sigaction before[3];
    static const int signals[3] = { SIGWINCH, SIGINT, SIGTERM };
    unsigned n_signals = of->container ? 3 : 1;
    bool is_raw = of->tty && of->input && tcgetattr(0, &old) == 0;
    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) < 0)
        return err_errno(e, errno, "pipe");
    sb_init(&s.frames.buf, 0);
    fflush(c->out);
    if (is_raw) {
        raw = old;
        cfmakeraw(&raw);
        tcsetattr(0, TCSADRAIN, &raw);
    }
    for (unsigned i = 0; i < n_signals; i++)
        catch(signals[i], &before[i]);
    send_size(c, of->resize);
    if (!of->input)
        shutdown(fd, SHUT_WR);
    int rc = held->len ? give(&s.frames, of->tty, held->s, held->len, e) : 0;
    if (rc == 0)
        rc = carry(c, &s, e);
    for (unsigned i = 0; i < n_signals; i++)
        sigaction(signals[i], &before[i], NULL);
    if (is_raw)
        tcsetattr(0, TCSADRAIN, &old);
    sb_done(&s.frames.buf);
    close(wake[0]);
    close(wake[1]);
    return rc;
}
