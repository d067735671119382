/* Running a program to its end. */
#include <errno.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

enum { OUTPUT_MAX_BYTES = 64 << 10 };
extern char **environ;

int proc_run(const char *const argv[], struct sb *out, struct err *e)
{
    int fds[2], status, r;
    pid_t pid;
    posix_spawn_file_actions_t fa;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_errno(e, errno, "pipe for %s", argv[0]);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, fds[1], 1);
    posix_spawn_file_actions_adddup2(&fa, fds[1], 2);
    r = posix_spawnp(&pid, argv[0], &fa, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(fds[1]);
    if (r) {
        close(fds[0]);
        return err_errno(e, r, "run %s", argv[0]);
    }
    char buf[4096];
    ssize_t n;
    while ((n = read(fds[0], buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0 && out && out->len < OUTPUT_MAX_BYTES)
            sb_add(out, buf, MIN((size_t)n, OUTPUT_MAX_BYTES - out->len));
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_errno(e, errno, "wait for %s", argv[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
