/* `shoal oci` starts the small program of shim_image.c (oci_init_io.c there) and leads it to where the container's process
 * waits for its start, or, exec, runs. */
#include "oci_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct launch {
    int child[OCI_FD_N];      /* numbers here, above those that the program gets */
    int gate, errors, report; /* our ends */
    int base;
    pid_t program; /* ends when the process is there */
};

static void close_at(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Above every number that the program is given. Takes fd. */
static int lift(const struct launch *k, int fd, struct err *e)
{
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, k->base + OCI_FD_N);
    int error = errno;
    if (fd >= 0)
        close(fd);
    return high < 0 ? err_errno(e, error, "descriptor") : high;
}

static int pack(const struct launch *k, const char *name, const struct rec *t, const void *record, int *ret, struct err *e)
{
    AUTO_SB struct sb b;
    sb_init(&b, OCI_BUNDLE_MAX_BYTES);
    rec_pack(t, record, &b);
    if (b.overflow)
        return err_set(e, E_TOO_BIG, "config.json is too big");
    int fd = memory_file(name, 0, b.s, b.len, e);
    if (fd < 0)
        return fd;
    *ret = fd = lift(k, fd, e);
    return MIN(fd, 0);
}

/* The first process listens there for its start. A path may be longer than an address takes. */
static int start_address(const char *dir, const char *name, struct sockaddr_un *a, int *ret_dir, struct err *e)
{
    *ret_dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*ret_dir < 0)
        return err_errno(e, errno, "%s", dir);
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/%s", *ret_dir, name);
    return 0;
}

static int listen_for_start(const struct launch *k, const char *dir, int *ret, struct err *e)
{
    struct sockaddr_un a;
    AUTO_CLOSE int d = -1;
    int r = start_address(dir, "start.sock", &a, &d, e);
    if (r < 0)
        return r;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1) < 0) {
        r = err_errno(e, errno, "socket for the start");
        close_at(&fd);
        return r;
    }
    *ret = fd = lift(k, fd, e);
    return MIN(fd, 0);
}

static int open_all(struct launch *k, const struct oci_launch *l, struct err *e)
{
    int gate[2], report[2], errors[2], r;
    if (pipe2(gate, O_CLOEXEC) < 0)
        return err_errno(e, errno, "pipe");
    k->gate = lift(k, gate[1], e);
    k->child[OCI_FD_GATE] = lift(k, gate[0], e);
    if (pipe2(report, O_CLOEXEC) < 0)
        return err_errno(e, errno, "pipe");
    k->report = lift(k, report[0], e);
    k->child[OCI_FD_REPORT] = lift(k, report[1], e);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, errors) < 0)
        return err_errno(e, errno, "socket pair");
    k->errors = lift(k, errors[0], e);
    k->child[OCI_FD_ERRORS] = lift(k, errors[1], e);
    if (k->gate < 0 || k->report < 0 || k->errors < 0 || k->child[OCI_FD_GATE] < 0 || k->child[OCI_FD_REPORT] < 0 ||
        k->child[OCI_FD_ERRORS] < 0)
        return -e->code;
    r = pack(k, "bundle", &oci_bundle_rec, l->bundle, &k->child[OCI_FD_SPEC], e);
    if (r == 0)
        r = l->exec ? pack(k, "process", &oci_process_rec, l->exec, &k->child[OCI_FD_EXEC], e)
                    : listen_for_start(k, l->dir, &k->child[OCI_FD_LISTEN], e);
    if (r == 0 && l->filter) {
        int fd = memory_file("filter", 0, l->filter->filter, l->filter->n * sizeof(struct sock_filter), e);
        r = fd < 0 ? fd : MIN(k->child[OCI_FD_FILTER] = lift(k, fd, e), 0);
    }
    return r;
}

static int spawn(struct launch *k, struct err *e)
{
    posix_spawn_file_actions_t fa;
    char path[32], base[16];
    pid_t pid = 0;
    int program = memory_file("shim", MFD_EXEC, shim_image, (size_t)(shim_image_end - shim_image), e);
    if (program < 0 || (program = lift(k, program, e)) < 0)
        return program;
    snprintf(path, sizeof path, "/proc/self/fd/%d", program);
    snprintf(base, sizeof base, "%d", k->base);
    char *argv[] = { (char *)(uintptr_t)"shoal-init", (char *)(uintptr_t)"oci", base, NULL };
    posix_spawn_file_actions_init(&fa);
    for (int i = 0; i < OCI_FD_N; i++) {
        if (k->child[i] >= 0)
            posix_spawn_file_actions_adddup2(&fa, k->child[i], k->base + i);
        else
            posix_spawn_file_actions_addclose(&fa, k->base + i);
    }
    int error = posix_spawn(&pid, path, &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(program);
    for (int i = 0; i < OCI_FD_N; i++)
        close_at(&k->child[i]);
    if (error)
        return err_errno(e, error, "start the container's program");
    k->program = pid;
    return 0;
}

/* All that is said until the other side closes, or, MSG_DONTWAIT, that has been said. */
static int last_words(int fd, int flags, char *text, size_t size)
{
    size_t n = 0;
    ssize_t got;
    while (n + 1 < size && ((got = recv(fd, text + n, size - 1 - n, flags)) > 0 || (got < 0 && errno == EINTR)))
        n += got > 0 ? (size_t)got : 0;
    text[n] = '\0';
    return (int)n;
}

static int refused(int fd, int flags, const char *before, struct err *e)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s", before);
    return last_words(fd, flags, text + n, sizeof text - (size_t)n) + n > 0
               ? err_set(e, E_INVALID, "%s", text)
               : err_set(e, E_INVALID, "the container's process died before it was ready (killed, or out of memory?)");
}

static int run_hooks(struct launch *k, const struct oci_launch *l, struct err *e)
{
    int64_t pid = l->pid;
    int r = oci_hooks_run(l->bundle, OCI_PRESTART, "creating", pid, e);
    if (r == 0)
        r = oci_hooks_run(l->bundle, OCI_CREATE_RUNTIME, "creating", pid, e);
    return r == 0 ? fd_write_all(k->gate, &pid, sizeof pid, e) : r;
}

/* The process has joined it; until then it was empty. */
static int check_group(const struct oci_launch *l, struct err *e)
{
    const char *parent = oci_cgroup_parent(l->bundle), *group = l->bundle->cgroup;
    if (cgroup_is_own(parent, group, l->groups))
        return 0;
    return err_set(e, E_BUSY, "linux.cgroupsPath: the control group %s/%s was taken by another container meanwhile; give each container a "
                   "group of its own", parent, group);
}

static void reap_program(struct launch *k)
{
    while (k->program && waitpid(k->program, NULL, 0) < 0 && errno == EINTR)
        ;
    k->program = 0;
}

/* The pid of the process, or why there is none. If there is one all the same, it dies when our ends close: it waits at the
 * gate, or has nobody to tell that it is ready. */
static int read_pid(struct launch *k, pid_t *ret, struct err *e)
{
    ssize_t n;
    do
        n = read(k->report, ret, sizeof *ret);
    while (n < 0 && errno == EINTR);
    if (n == sizeof *ret)
        return 0;
    *ret = 0;
    if (n < 0)
        return err_errno(e, errno, "the pid of the container's process");
    reap_program(k); /* what it had to say it has said: the socket may be open in a process that it left */
    return refused(k->errors, MSG_DONTWAIT, "", e);
}

static int lead(struct launch *k, struct oci_launch *l, struct err *e)
{
    int r = read_pid(k, &l->pid, e);
    if (r < 0)
        return r;
    while (r == 0) {
        char byte[2] = "";
        int fd = -1;
        unsigned n_fds = 1;
        long n = fd_recv_with_fds(k->errors, byte, 1, &fd, &n_fds, e);
        if (n == 1 && byte[0] == OCI_WANTS_HOOKS && !l->exec && l->bundle->hooks.n && n_fds == 0) {
            r = check_group(l, e);
            r = r == 0 ? run_hooks(k, l, e) : r;
            continue;
        }
        if (n == 1 && byte[0] == '\0') {
            l->console = n_fds == 1 ? fd : -1;
            r = l->exec ? 0 : check_group(l, e);
            break;
        }
        return n < 0 ? (int)n : refused(k->errors, 0, n == 1 ? byte : "", e);
    }
    if (r == 0 && l->exec) {
        char text[512];
        if (last_words(k->errors, 0, text, sizeof text) > 0)
            r = err_set(e, E_INVALID, "%s", text);
    }
    if (r == 0 && l->console >= 0 && l->console_socket) {
        r = oci_console_send(l->console_socket, l->console, e);
        close_at(&l->console);
    }
    return r;
}

int oci_launch(struct oci_launch *l, struct err *e)
{
    struct launch k = { .gate = -1, .errors = -1, .report = -1, .base = 3 + (int)l->preserved };
    for (int i = 0; i < OCI_FD_N; i++)
        k.child[i] = -1;
    l->console = -1;
    l->pid = 0;
    int r = open_all(&k, l, e);
    if (r == 0 && l->exec) {
        struct oci_life who = { .pid = l->container->pid, .start_id = l->container->start_id };
        r = fd_write_all(k.gate, &who, sizeof who, e);
    }
    if (r == 0)
        r = spawn(&k, e);
    if (r == 0)
        r = lead(&k, l, e);
    reap_program(&k);
    for (int i = 0; i < OCI_FD_N; i++)
        close_at(&k.child[i]);
    close_at(&k.gate);
    close_at(&k.errors);
    close_at(&k.report);
    if (r < 0) {
        close_at(&l->console);
        if (l->pid > 0) {
            kill(l->pid, SIGKILL);
            waitpid(l->pid, NULL, 0);
            l->pid = 0; /* the number may be another's now */
        }
    }
    return r;
}

int oci_begin(struct oci_state *s, struct err *e)
{
    struct sockaddr_un a;
    char text[512];
    AUTO_CLOSE int d = -1;
    AUTO_FREE char *was = oci_state_path(s, "start.sock"), *now = oci_state_path(s, "starting.sock");
    if (rename(was, now) < 0) /* from here on it counts as started */
        return err_errno(e, errno, "start of container %s", s->bundle.id);
    int r = start_address(s->dir, "starting.sock", &a, &d, e);
    AUTO_CLOSE int fd = r < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r == 0 && (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0))
        r = err_errno(e, errno, "start of container %s", s->bundle.id);
    unlink(now);
    if (r == 0 && last_words(fd, 0, text, sizeof text) > 0)
        r = err_set(e, E_INVALID, "%s", text);
    return r;
}
