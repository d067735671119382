/* A container's terminal: its master sent to a socket that the caller waits at, or joined to the terminal here; and the
 * wait for its end, during which signals are passed on. */
#include "oci_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

int oci_console_send(const char *path, int master, struct err *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char name[64] = "/dev/console";
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(e, E_TOO_BIG, "--console-socket %s: a socket's path has at most %zu characters", path, sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, strlen(path) + 1);
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        return err_errno(e, errno, "--console-socket %s", path);
    fd_set_nonblock(master, false); /* callers in Go wait for ever on one that is not */
    return fd_send_with_fds(fd, name, strlen(name), &master, 1, e);
}

/* What waits to be written; reading stops while there is something. */
struct way { int from, to; char buf[16384]; size_t n, at; };

static bool pump(struct way *w, short events_from, short events_to)
{
    if (w->n == 0 && events_from) {
        ssize_t n = read(w->from, w->buf, sizeof w->buf);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        w->n = n > 0 ? (size_t)n : 0;
        w->at = 0;
        events_to = POLLOUT;
    }
    if (w->n && events_to) {
        ssize_t n = write(w->to, w->buf + w->at, w->n);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        w->at += n > 0 ? (size_t)n : 0;
        w->n -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static void same_size(int master)
{
    struct winsize w;
    if (master >= 0 && ioctl(0, TIOCGWINSZ, &w) == 0)
        ioctl(master, TIOCSWINSZ, &w);
}

/* True: pid has ended, *ret_status is how. Others are reaped too: they are left to us by the container. */
static bool reap(pid_t pid, int *ret_status)
{
    int status;
    for (pid_t p; (p = waitpid(-1, &status, WNOHANG)) > 0;)
        if (p == pid) {
            *ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            return true;
        }
    return false;
}

static void pass_signals(int signals, pid_t pid, int master)
{
    struct signalfd_siginfo s;
    while (read(signals, &s, sizeof s) == sizeof s) {
        if (s.ssi_signo == SIGWINCH)
            same_size(master);
        else if (s.ssi_signo != SIGCHLD)
            kill(pid, (int)s.ssi_signo);
    }
}

static void raw_terminal(struct termios *was)
{
    struct termios raw = *was;
    cfmakeraw(&raw);
    tcsetattr(0, TCSANOW, &raw);
}

static void drain(struct way *out)
{
    for (int i = 0; i < 1000; i++) {
        struct pollfd p = { .fd = out->from, .events = POLLIN };
        if ((!out->n && poll(&p, 1, 0) <= 0) || !pump(out, POLLIN, POLLOUT))
            return;
    }
}

static void signals_to_pass(sigset_t *ret)
{
    static const int left_alone[] = { SIGKILL, SIGSTOP, SIGTTIN, SIGTTOU, SIGTSTP, SIGURG, SIGPIPE };
    sigfillset(ret);
    for (unsigned i = 0; i < ARRAY_N(left_alone); i++)
        sigdelset(ret, left_alone[i]);
}

void oci_hold_signals(void)
{
    sigset_t all;
    signals_to_pass(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
}

int oci_wait(pid_t pid, int master, struct err *e)
{
    static struct way in, out;
    struct termios was;
    sigset_t all;
    int status = 255;
    bool terminal = master >= 0 && tcgetattr(0, &was) == 0;
    in = (struct way){ .from = 0, .to = master };
    out = (struct way){ .from = master, .to = 1 };
    signals_to_pass(&all);
    AUTO_CLOSE int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) /* its end would never be seen */
        return err_errno(e, errno, "wait for the container");
    if (master >= 0)
        fd_set_nonblock(master, true);
    if (terminal)
        raw_terminal(&was);
    same_size(master);
    bool in_open = master >= 0, out_open = master >= 0;
    while (!reap(pid, &status)) {
        struct pollfd p[4] = {
            { .fd = signals, .events = POLLIN },
            { .fd = in_open && !in.n ? in.from : -1, .events = POLLIN },
            { .fd = out_open ? out.from : -1, .events = (short)((out.n ? 0 : POLLIN) | (in.n ? POLLOUT : 0)) },
            { .fd = out.n ? out.to : -1, .events = POLLOUT },
        };
        if (poll(p, 4, -1) < 0)
            continue;
        if (p[0].revents)
            pass_signals(signals, pid, master);
        if (p[1].revents || (in.n && p[2].revents & POLLOUT))
            in_open = pump(&in, p[1].revents, p[2].revents & POLLOUT) && in_open;
        if (out_open && (p[2].revents & (POLLIN | POLLHUP | POLLERR) || p[3].revents))
            out_open = pump(&out, p[2].revents & (POLLIN | POLLHUP | POLLERR), p[3].revents);
    }
    if (out_open)
        drain(&out);
    if (terminal)
        tcsetattr(0, TCSANOW, &was);
    return status;
}
