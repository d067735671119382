/* The spawner: a single-threaded child that the daemon forks before anything else, so that containers are
 * forked neither from a process with threads and big memory nor from one that reads the network. It turns each
 * request into a shim by fork alone, without exec: a shim shares its pages (that is why it costs so little) and
 * starts in a fraction of a millisecond. */
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPEC_MAX_BYTES = 64 << 20, REQUEST_MAX_BYTES = 16 << 10 };

static int daemon_end = -1;

int spawner_socket(void)
{
    return daemon_end;
}

static void no_stdio(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3 && fd >= 0; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
}

static int read_spec(int memfd, struct container_spec *ret, struct err *e)
{
    struct stat st;
    if (fstat(memfd, &st) < 0 || st.st_size <= 0 || st.st_size > SPEC_MAX_BYTES)
        return err_set(e, E_INVALID, "container specification of a wrong size");
    AUTO_FREE char *p = try_calloc(1, (size_t)st.st_size);
    if (!p || pread(memfd, p, (size_t)st.st_size, 0) != st.st_size)
        return err_set(e, E_IO, "cannot read the container specification");
    int r = rec_unpack(&container_spec_rec, ret, p, (size_t)st.st_size, e);
    crypto_wipe(p, (size_t)st.st_size);
    return r;
}

static _Noreturn void become_shim(const char *dir, const char *cgroup, int listen_fd, int memfd,
                                  const struct seccomp_program *common, uint64_t common_caps)
{
    struct container_spec spec = { 0 };
    struct seccomp_program own = { 0 };
    struct err e = { 0 };
    uint64_t caps = 0;
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_NAME, "shoal-shim", 0, 0, 0);
    setsid();
    no_stdio();
    int r = read_spec(memfd, &spec, &e);
    close(memfd);
    if (r == 0)
        r = capability_set(&spec.cap_add, &spec.cap_drop, spec.privileged, &caps, &e);
    bool none = spec.privileged || str_equal(spec.seccomp, "unconfined");
    if (r == 0 && !none && caps != common_caps)
        r = seccomp_build(&own, caps, &e);
    struct shim_args args = {
        .dir = dir, .cgroup_parent = cgroup, .spec = &spec, .listen_fd = listen_fd,
        .seccomp = none ? NULL : own.n ? &own : common, .failed = r < 0 ? &e : NULL,
    };
    _exit(shim_run(&args));
}

static _Noreturn void spawner_run(int sock)
{
    static char request[REQUEST_MAX_BYTES + 1];
    struct seccomp_program common = { 0 };
    struct strs none = { 0 };
    uint64_t caps = 0;
    prctl(PR_SET_NAME, "shoal-spawner", 0, 0, 0);
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN); /* ends with the daemon's end of the socket */
    if (capability_set(&none, &none, false, &caps, NULL) < 0 || seccomp_build(&common, caps, NULL) < 0)
        _exit(1);
    for (;;) {
        int fds[2];
        unsigned n = 2;
        struct err e = { 0 };
        long size = fd_recv_with_fds(sock, request, REQUEST_MAX_BYTES, fds, &n, &e);
        if (size <= 0)
            _exit(0);
        request[size] = '\0';
        const char *dir = request, *cgroup = request + strlen(request) + 1;
        if (n == 2 && cgroup < request + size) {
            pid_t pid = fork();
            if (pid == 0) {
                close(sock);
                become_shim(dir, cgroup, fds[0], fds[1], &common, caps);
            }
        }
        for (unsigned i = 0; i < n; i++)
            close(fds[i]);
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
        int sock = fcntl(pair[1], F_DUPFD_CLOEXEC, 3);
        if (sock > 3)
            syscall(SYS_close_range, 3u, (unsigned)sock - 1, 0u);
        syscall(SYS_close_range, (unsigned)sock + 1, ~0u, 0u);
        setsid();
        spawner_run(sock);
    }
    close(pair[1]);
    daemon_end = pair[0];
    return 0;
}
