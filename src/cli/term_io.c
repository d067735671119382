/* What the command line needs of its own surroundings: terminal, clock, input files, Ctrl-C. */
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

int64_t term_now_ns(void)
{
    return clock_real_ns();
}

int64_t term_mono_ns(void)
{
    return clock_mono_ns();
}

bool term_is_tty(int fd)
{
    return isatty(fd);
}

void term_size(unsigned *ret_rows, unsigned *ret_cols)
{
    struct winsize w = { 0 };
    if (ioctl(1, TIOCGWINSZ, &w) < 0 && ioctl(0, TIOCGWINSZ, &w) < 0)
        w = (struct winsize){ 0 };
    *ret_rows = w.ws_row;
    *ret_cols = w.ws_col;
}

int term_open_input(const char *path, struct err *e)
{
    int fd = !strcmp(path, "-") ? fcntl(0, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? err_errno(e, errno, "cannot open %s", strcmp(path, "-") ? path : "the standard input") : fd;
}

int term_confirm(struct cli *c, const char *question, struct err *e)
{
    char answer[16] = "";
    if (!term_is_tty(0))
        return err_set(e, E_INVALID, "\"%s\" cannot be asked without a terminal; give --yes if that is meant", question);
    fprintf(c->out, "%s [y/N] ", question);
    fflush(c->out);
    if (!fgets(answer, sizeof answer, stdin) || (strcmp(answer, "y\n") && strcmp(answer, "yes\n")))
        return err_set(e, E_INVALID, "not confirmed; nothing was changed");
    return 0;
}

void term_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

int term_read_input(const char *path, size_t max, struct bytes *ret, struct err *e)
{
    const char *what = strcmp(path, "-") ? path : "the standard input";
    AUTO_CLOSE int fd = term_open_input(path, e);
    AUTO_SB struct sb b;
    char buf[16 << 10];
    ssize_t n;
    sb_init(&b, max);
    if (fd < 0)
        return fd;
    while ((n = read(fd, buf, sizeof buf)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, errno, "cannot read %s", what);
        sb_add(&b, buf, (size_t)n);
        if (b.overflow)
            return err_set(e, E_TOO_BIG, "%s is larger than %zu bytes", what, max);
    }
    ret->n = (uint32_t)b.len;
    ret->v = (uint8_t *)sb_take(&b);
    return 0;
}

char *term_folder(const char *path)
{
    char cwd[PATH_MAX];
    AUTO_FREE char *copy = xstrdup(path);
    char *slash = strrchr(copy, '/');
    if (!getcwd(cwd, sizeof cwd))
        snprintf(cwd, sizeof cwd, "/");
    if (!slash || !strcmp(path, "-"))
        return xstrdup(cwd);
    *(slash == copy ? slash + 1 : slash) = 0;
    return copy[0] == '/' ? TAKE(copy) : path_join(cwd, copy);
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
    (void)signum;
    interrupted = 1;
}

void term_catch_interrupt(void)
{
    struct sigaction a = { .sa_handler = on_interrupt };
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

bool term_interrupted(void)
{
    return interrupted;
}

void term_pause_ms(int ms)
{
    if (!interrupted)
        poll(NULL, 0, ms);
}
