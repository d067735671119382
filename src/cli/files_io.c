/* A file that appears whole or not at all, and a secret from a file or a person. */
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* What a signal that ends the program must not leave behind: half a file, a terminal without echo. */
static const char *volatile undo_path; /* NULL: no file */
static volatile int undo_tty = -1;     /* -1: the terminal is as it was */
static struct termios undo_modes;

static void on_end(int signum)
{
    if (undo_tty >= 0)
        tcsetattr(undo_tty, TCSANOW, &undo_modes);
    if (undo_path)
        unlink(undo_path);
    raise(signum); /* SA_RESETHAND: now it ends the program */
}

static void catch_end(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    struct sigaction a = { .sa_handler = on_end, .sa_flags = (int)SA_RESETHAND }, old;
    for (unsigned i = 0; i < ARRAY_N(signals); i++)
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) /* else ignored, as by nohup */
            sigaction(signals[i], &a, NULL);
}

enum { SECRET_MAX_BYTES = 16 << 10 };

struct out_file {
    char *path, *tmp; /* tmp NULL: the standard output */
    int fd;
};

int out_file_open(struct out_file **ret, const char *path, struct err *e)
{
    struct stat st;
    if (!strcmp(path, "-")) {
        if (isatty(1))
            return err_set(e, E_INVALID, "the standard output is a terminal; redirect it, or give a file");
        *ret = xnew(struct out_file);
        **ret = (struct out_file){ .path = xstrdup("the standard output"), .fd = 1 };
        return 0;
    }
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(e, E_INVALID, "%s is no regular file; give another name, or - and redirect the output", path);
    AUTO_FREE char *tmp = xasprintf("%s.%ld.tmp", path, (long)getpid());
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, errno, "cannot create %s", tmp);
    *ret = xnew(struct out_file);
    **ret = (struct out_file){ .path = xstrdup(path), .tmp = TAKE(tmp), .fd = fd };
    undo_path = (*ret)->tmp;
    catch_end();
    return 0;
}

int out_file_write(struct out_file *f, const void *p, size_t size, struct err *e)
{
    int r = fd_write_all(f->fd, p, size, e);
    return r < 0 ? err_wrap(e, "%s", f->path) : 0;
}

static void out_file_free(struct out_file *f)
{
    if (f->tmp) {
        undo_path = NULL;
        close(f->fd);
    }
    free(f->path);
    free(f->tmp);
    free(f);
}

int out_file_keep(struct out_file *f, struct err *e)
{
    int r = 0;
    if (f->tmp) {
        AUTO_FREE char *dir = term_folder(f->path);
        AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fsync(f->fd) < 0 || rename(f->tmp, f->path) < 0 || (fd >= 0 && fsync(fd) < 0)) {
            r = err_errno(e, errno, "cannot finish %s", f->path);
            unlink(f->tmp);
        }
    }
    out_file_free(f);
    return r;
}

void out_file_drop(struct out_file *f)
{
    if (!f)
        return;
    if (f->tmp)
        unlink(f->tmp);
    out_file_free(f);
}

long term_read(int fd, void *buf, size_t size, struct err *e)
{
    ssize_t n;
    do
        n = read(fd, buf, size);
    while (n < 0 && errno == EINTR && !term_interrupted());
    return n < 0 ? err_errno(e, errno, "cannot read the input") : n;
}

/* One line from the terminal itself, without echo: the standard input may be something else. */
static int ask(const char *prompt, struct bytes *ret, struct err *e)
{
    char line[4096]; /* as much as a terminal gives */
    struct termios quiet;
    AUTO_CLOSE int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (fd < 0 || tcgetattr(fd, &undo_modes) < 0)
        return err_set(e, E_INVALID, "there is no terminal to ask on");
    quiet = undo_modes;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    undo_tty = fd;
    catch_end();
    tcsetattr(fd, TCSAFLUSH, &quiet);
    (void)!write(fd, prompt, strlen(prompt));
    ssize_t n = read(fd, line, sizeof line);
    tcsetattr(fd, TCSAFLUSH, &undo_modes);
    undo_tty = -1;
    (void)!write(fd, "\n", 1);
    if (n <= 0)
        return err_set(e, E_INVALID, "nothing was typed");
    n -= line[n - 1] == '\n';
    ret->v = xmemdup(line, (size_t)n);
    ret->n = (uint32_t)n;
    crypto_wipe(line, sizeof line);
    return 0;
}

int term_ask_secret(bool twice, struct bytes *ret, struct err *e)
{
    struct bytes again = { 0 };
    int r = ask("Passphrase of the backup: ", ret, e);
    if (r < 0)
        return err_wrap(e, "passphrase (or give --passphrase-file or --key-file)");
    if (!twice)
        return 0;
    r = ask("The same again: ", &again, e);
    if (r == 0 && (again.n != ret->n || memcmp(again.v, ret->v, ret->n) != 0))
        r = err_set(e, E_INVALID, "the two passphrases differ");
    crypto_wipe(again.v, again.n);
    free(again.v);
    return r;
}

int term_read_secret(const char *prompt, char **ret, struct err *e)
{
    struct bytes b = { 0 };
    int r = prompt ? ask(prompt, &b, e) : term_read_input("-", SECRET_MAX_BYTES, &b, e);
    while (r == 0 && b.n && (b.v[b.n - 1] == '\n' || b.v[b.n - 1] == '\r'))
        b.n--;
    if (r == 0 && b.n == 0)
        r = err_set(e, E_INVALID, "nothing was given");
    else if (r == 0 && memchr(b.v, 0, b.n))
        r = err_set(e, E_INVALID, "it has a zero byte; is this text?");
    if (r == 0)
        *ret = xstrndup((const char *)b.v, b.n);
    crypto_wipe(b.v, b.n);
    free(b.v);
    return r;
}
