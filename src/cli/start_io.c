/* init and join on a machine where no daemon runs: it is started, by systemd where its unit is installed, as a
 * process of its own otherwise, and the person is told which. Only the daemon at the default socket is started:
 * for another, the flags that its node needs are not known here. */
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_PATH "/var/log/shoal.log"
enum { START_MAX_MS = 30000, LOOK_MS = 20 };

/* 0, or the errno of the connect. */
static int answers(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a.sun_path)
        return ENAMETOOLONG;
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int why = fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    return why;
}

/* Exit status of systemctl WORDS; what it says goes to our standard error unless quiet. -1: there is none. */
static int systemctl(const char *const argv[], bool quiet)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null, 0);
        dup2(quiet ? null : 2, 1);
        if (quiet)
            dup2(null, 2);
        execvp("systemctl", (char *const *)argv);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}

static bool has_unit(void)
{
    struct stat st;
    static const char *const cat[] = { "systemctl", "cat", "shoal.service", NULL };
    return stat("/run/systemd/system", &st) == 0 && systemctl(cat, true) == 0;
}

static int start_unit(struct cli *c, struct err *e)
{
    static const char *const start[] = { "systemctl", "enable", "--now", "shoal.service", NULL };
    fprintf(c->err, "No shoal daemon runs here: starting the systemd unit shoal.service, now and at every boot.\n");
    if (systemctl(start, false) != 0)
        return err_set(e, E_UNAVAILABLE, "systemd could not start shoal.service; see `journalctl -u shoal`");
    return 0;
}

/* The last line the daemon wrote since `from`. */
static void last_words(off_t from, char out[400])
{
    char buf[4096];
    out[0] = '\0';
    int fd = open(LOG_PATH, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pread(fd, buf, sizeof buf - 1, from);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return;
    while (n > 0 && buf[n - 1] == '\n')
        n--;
    buf[n] = '\0';
    const char *line = strrchr(buf, '\n');
    line = line ? line + 1 : buf;
    snprintf(out, 400, "%s", str_starts(line, "shoal daemon: ") ? line + strlen("shoal daemon: ") : line);
}

static _Noreturn void become_daemon(const char *exe, int log)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    if (chdir("/") == 0 && dup2(null, 0) == 0 && dup2(log, 1) == 1 && dup2(log, 2) == 2)
        execl(exe, "shoal", "daemon", (char *)NULL);
    _exit(127);
}

static int start_process(struct cli *c, struct err *e)
{
    char exe[4096], words[400];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return err_errno(e, errno, "cannot find the program of shoal");
    exe[n] = '\0';
    AUTO_CLOSE int log = open(LOG_PATH, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (log < 0)
        return err_errno(e, errno, "the daemon's log %s cannot be written", LOG_PATH);
    off_t from = lseek(log, 0, SEEK_END);
    pid_t pid = fork();
    if (pid < 0)
        return err_errno(e, errno, "cannot start the daemon");
    if (pid == 0)
        become_daemon(exe, log);
    int64_t end = term_mono_ns() + (int64_t)START_MAX_MS * 1000000;
    for (int status; answers(c->host);) {
        bool ended = waitpid(pid, &status, WNOHANG) == pid;
        if (!ended && term_mono_ns() < end) {
            term_pause_ms(LOOK_MS);
            continue;
        }
        if (!ended)
            kill(pid, SIGTERM);
        last_words(from, words);
        return err_set(e, E_UNAVAILABLE, "the shoal daemon did not start: %s (its log is %s)",
                       *words ? words : "it said nothing", LOG_PATH);
    }
    fprintf(c->err, "No shoal daemon ran here: started one in the background (process %ld, log %s). It does not start "
            "by itself at boot; `make install` has a systemd unit for that.\n", (long)pid, LOG_PATH);
    return 0;
}

int start_daemon(struct cli *c, struct err *e)
{
    int why = answers(c->host);
    if (why != ENOENT && why != ECONNREFUSED)
        return 0; /* it runs, or the call will say what is wrong */
    if (strcmp(c->host, &CLI_HOST[7]))
        return 0;
    if (geteuid() != 0)
        return err_set(e, E_DENIED, "no shoal daemon runs here, and only root can start one; use sudo");
    return has_unit() ? start_unit(c, e) : start_process(c, e);
}
