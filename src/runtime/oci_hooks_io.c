/* Hooks of an OCI bundle: programs that get the container's state on standard input (runtime.md, config.md "POSIX
 * platform hooks"). Their output is not the container's: it goes nowhere, errors into ours. */
#include "oci_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool has_hooks(const struct oci_bundle *b, enum oci_hook_when when)
{
    for (uint32_t i = 0; i < b->hooks.n; i++)
        if (b->hooks.v[i].when == (int)when)
            return true;
    return false;
}

static char **strings(const struct strs *s, const char *first)
{
    char **v = xcalloc((size_t)s->n + 2, sizeof *v);
    for (uint32_t i = 0; i < s->n; i++)
        v[i] = s->v[i];
    if (!s->n && first)
        v[0] = (char *)(uintptr_t)first;
    return v;
}

static _Noreturn void become_hook(const struct oci_hook *h, int in, int err)
{
    sigset_t none;
    char **argv = strings(&h->argv, h->path), **env = strings(&h->env, NULL);
    int null = open("/dev/null", O_WRONLY);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(err, 2) >= 0 && null >= 0 && dup2(in, 0) >= 0 && dup2(null, 1) >= 0 && syscall(SYS_close_range, 3u, ~0u, 0u) >= 0)
        execve(h->path, argv, env);
    dprintf(2, "%s", strerror(errno));
    _exit(127);
}

/* What it says on standard error, until it ends or its time is over. */
static int watch(const struct oci_hook *h, pid_t pid, int fd, char *text, size_t size, struct err *e)
{
    int64_t end = h->timeout_s ? clock_mono_ns() + (int64_t)h->timeout_s * SEC_NS : INT64_MAX;
    AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    size_t n = 0;
    int status;
    if (pidfd < 0) { /* its end would never be seen */
        int r = err_errno(e, errno, "wait for it");
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return r;
    }
    for (bool over = false; !over;) {
        struct pollfd p[2] = { { .fd = pidfd, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
        int64_t left = (end - clock_mono_ns()) / MS_NS;
        if (left <= 0) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            return err_set(e, E_TIMEOUT, "it ran longer than its timeout of %u s", (unsigned)h->timeout_s);
        }
        if (poll(p, 2, (int)MIN(left + 1, 60000)) < 0 && errno != EINTR)
            break;
        over = p[0].revents != 0;
        char buf[512];
        ssize_t got = p[1].revents ? read(fd, buf, sizeof buf) : -1;
        if (p[1].revents && got <= 0)
            fd = -1;
        for (ssize_t i = 0; i < got && n + 1 < size; i++)
            text[n++] = buf[i] == '\n' ? ' ' : buf[i];
    }
    text[n] = '\0';
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return err_set(e, E_INVALID, "it ended with %s %d%s%s", WIFSIGNALED(status) ? "signal" : "status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), n ? ": " : "", text);
}

static int run(const struct oci_hook *h, const struct sb *state, struct err *e)
{
    int in[2], err[2];
    char text[256] = "";
    if (pipe2(in, O_CLOEXEC) < 0)
        return err_errno(e, errno, "pipe");
    if (pipe2(err, O_CLOEXEC) < 0) {
        close(in[0]);
        close(in[1]);
        return err_errno(e, errno, "pipe");
    }
    pid_t pid = fork();
    if (pid == 0)
        become_hook(h, in[0], err[1]);
    close(in[0]);
    close(err[1]);
    /* A hook need not read it, and what annotations may make of it is more than a pipe holds: no waiting, no signal. */
    fcntl(in[1], F_SETPIPE_SZ, (int)MIN(state->len + 4096, 1u << 20));
    fd_set_nonblock(in[1], true);
    struct err ignored;
    if (pid > 0 && fd_write_all(in[1], state->s, state->len, &ignored) < 0)
        text[0] = '\0';
    close(in[1]);
    int r = pid < 0 ? err_errno(e, errno, "fork") : watch(h, pid, err[0], text, sizeof text, e);
    close(err[0]);
    return r;
}

int oci_hooks_run(const struct oci_bundle *b, enum oci_hook_when when, const char *status, int64_t pid, struct err *e)
{
    AUTO_SB struct sb state;
    sb_init(&state, 1 << 20);
    if (!has_hooks(b, when))
        return 0;
    void (*was)(int) = signal(SIGPIPE, SIG_IGN);
    oci_state_json(b, status, pid, &state);
    int r = 0;
    for (uint32_t i = 0; i < b->hooks.n && r == 0; i++)
        if (b->hooks.v[i].when == (int)when && (r = run(&b->hooks.v[i], &state, e)) < 0)
            r = err_wrap(e, "hook %s %s", oci_hook_names[when], b->hooks.v[i].path);
    signal(SIGPIPE, was);
    return r;
}
