/* The spawner: a single-threaded child that the daemon forks before anything else, so that containers are
 * started neither from a process with threads and big memory nor from one that reads the network. It compiles
 * the system call filter, forks the processes that copy files (kern_copy.c), and turns each other request into a shim: the small program of shim_image.c, run from a sealed
 * memfd. Nothing a container can reach by /proc/PID/exe is a file of the host then (CVE-2019-5736). */
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_MAX_BYTES = 16 << 10 };

struct spawner {
    int sock;
    int program;       /* the shim's */
    int filter;        /* compiled for the default capabilities */
    uint64_t caps;
    char path[32];     /* of program */
};

static int daemon_end = -1;

int spawner_socket(void)
{
    return daemon_end;
}

struct loop_fd *runtime_spawner_watch(struct loop *l, loop_fd_fn *gone, void *arg)
{
    return loop_fd_add(l, daemon_end, LOOP_READ, gone, arg); /* it never sends: its end of the socket closed */
}

static int filter_file(uint64_t caps, struct err *e)
{
    struct seccomp_program p = { 0 };
    int r = seccomp_build(&p, caps, e);
    if (r == 0)
        r = memory_file("filter", 0, p.filter, p.n * sizeof(struct sock_filter), e);
    seccomp_free(&p);
    return r;
}

/* The filter for this specification: -1 none, else a descriptor; *ret_own: to be closed. */
static int choose_filter(const struct spawner *s, int memfd, int *ret, bool *ret_own, struct err *e)
{
    struct container_spec spec = { 0 };
    struct stat st;
    uint64_t caps = 0;
    *ret = -1;
    *ret_own = false;
    if (fstat(memfd, &st) < 0 || st.st_size <= 0 || st.st_size > SHIM_SPEC_MAX_BYTES)
        return err_set(e, E_INVALID, "container specification of a wrong size");
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, memfd, 0);
    if (p == MAP_FAILED)
        return err_errno(e, errno, "read the container specification");
    int r = rec_unpack(&container_spec_rec, &spec, p, (size_t)st.st_size, e);
    munmap(p, (size_t)st.st_size);
    if (r == 0)
        r = capability_set(&spec.cap_add, &spec.cap_drop, spec.privileged, &caps, e);
    bool none = spec.privileged || str_equal(spec.seccomp, "unconfined");
    if (r == 0 && !none && caps == s->caps) {
        *ret = s->filter;
    } else if (r == 0 && !none) {
        r = filter_file(caps, e);
        *ret = r < 0 ? -1 : r;
        *ret_own = r >= 0;
        r = MIN(r, 0);
    }
    container_spec_clear(&spec);
    return r;
}

static int spawn_shim(const struct spawner *s, const char *dir, const char *cgroup, const int fds[2], struct err *e)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t defaults;
    pid_t pid;
    struct err problem = { 0 };
    int filter;
    bool own;
    if (choose_filter(s, fds[1], &filter, &own, &problem) == 0)
        problem.text[0] = '\0';
    const char *argv[] = { "shoal-shim", dir, cgroup, problem.text, NULL };
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&attr);
    for (int i = 0; i < 3; i++)
        posix_spawn_file_actions_addopen(&fa, i, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&fa, fds[0], SHIM_LISTEN_FD);
    posix_spawn_file_actions_adddup2(&fa, fds[1], SHIM_SPEC_FD);
    if (filter >= 0)
        posix_spawn_file_actions_adddup2(&fa, filter, SHIM_FILTER_FD);
    sigfillset(&defaults);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF);
    int error = posix_spawn(&pid, s->path, &fa, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&fa);
    if (own)
        close(filter);
    return error ? err_errno(e, error, "start a shim") : 0;
}

static void start_copy(const char *request, size_t size, const int *fds, unsigned n)
{
    pid_t pid = n == 1 ? fork() : -1;
    if (pid == 0)
        copy_main(request, size, fds[0]);
    for (unsigned i = 0; i < n; i++) /* when it fails the stream ends, by which the daemon knows */
        close(fds[i]);
}

static _Noreturn void spawner_run(int sock)
{
    static char request[REQUEST_MAX_BYTES + 1];
    struct spawner s = { .sock = sock };
    struct strs none = { 0 };
    struct err e = { 0 };
    prctl(PR_SET_NAME, "shoal-spawner", 0, 0, 0);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN); /* ends with the daemon's end of the socket */
    s.program = memory_file("shim", MFD_EXEC, shim_image, (size_t)(shim_image_end - shim_image), &e);
    if (s.program < 0 || capability_set(&none, &none, false, &s.caps, &e) < 0 || (s.filter = filter_file(s.caps, &e)) < 0) {
        fprintf(stderr, "shoal-spawner: %s\n", e.text);
        _exit(1);
    }
    snprintf(s.path, sizeof s.path, "/proc/self/fd/%d", s.program);
    for (;;) {
        int fds[2], high[2] = { -1, -1 };
        unsigned n = 2;
        long size = fd_recv_with_fds(s.sock, request, REQUEST_MAX_BYTES, fds, &n, &e);
        if (size <= 0)
            _exit(0);
        request[size] = '\0';
        if (request[0] == COPY_REQUEST_BYTE) {
            start_copy(request + 1, (size_t)size - 1, fds, n);
            continue;
        }
        const char *dir = request, *cgroup = request + strlen(request) + 1;
        for (unsigned i = 0; i < n; i++) {
            high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, LOW_FDS);
            close(fds[i]);
        }
        /* When it fails the listening socket closes, by which the daemon knows. */
        if (high[0] >= 0 && high[1] >= 0 && cgroup < request + size && spawn_shim(&s, dir, cgroup, high, &e) < 0)
            fprintf(stderr, "shoal-spawner: %s\n", e.text);
        for (unsigned i = 0; i < 2; i++)
            if (high[i] >= 0)
                close(high[i]);
    }
}

int runtime_spawner_start(struct err *e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_errno(e, errno, "start the spawner");
    pid_t pid = fork();
    if (pid < 0)
        return err_errno(e, errno, "start the spawner");
    if (pid == 0) {
        int sock = fcntl(pair[1], F_DUPFD_CLOEXEC, LOW_FDS);
        syscall(SYS_close_range, 3u, (unsigned)sock - 1, 0u);
        syscall(SYS_close_range, (unsigned)sock + 1, ~0u, 0u);
        setsid();
        spawner_run(sock);
    }
    close(pair[1]);
    daemon_end = pair[0];
    return 0;
}
