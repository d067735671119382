/* What the small program of shim_image.c does for `shoal oci`: it joins and makes the namespaces and becomes the
 * container's process, or joins a container that runs and becomes one more. The program that people started is its
 * parent, also of the container (CLONE_PARENT): its caller sees the exit, with nothing in between. Nothing that a
 * container can reach by /proc/PID/exe is a file of the host (CVE-2019-5736). */
#include "oci_internal.h"
#include "process_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <sched.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct init {
    struct oci_bundle bundle;
    struct oci_process exec;
    const struct oci_process *process; /* one of the two */
    struct seccomp_program filter;
    int base, errors;
    char **argv, **env;
    struct user user;
};

static int at(const struct init *n, int what)
{
    return n->base + what;
}

/* A filter that only could not be looked at must not be left out. */
static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0 || errno != EBADF;
}

static int map_file(int fd, size_t max, const void **ret, size_t *ret_size, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= 0 || (size_t)st.st_size > max)
        return err_set(e, E_INVALID, "the container's record or filter has a wrong size");
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_errno(e, errno, "read the container's record");
    *ret = p;
    *ret_size = (size_t)st.st_size;
    return 0;
}

static int read_record(const struct rec *t, void *ret, int fd, struct err *e)
{
    const void *p = NULL;
    size_t size = 0;
    int r = map_file(fd, OCI_BUNDLE_MAX_BYTES, &p, &size, e);
    if (r < 0)
        return r;
    r = rec_unpack(t, ret, p, size, e);
    munmap((void *)(uintptr_t)p, size);
    return r;
}

static int read_all(struct init *n, struct err *e)
{
    const void *p = NULL;
    size_t size = 0;
    int r = read_record(&oci_bundle_rec, &n->bundle, at(n, OCI_FD_SPEC), e);
    n->process = &n->bundle.process;
    if (r == 0 && is_open(at(n, OCI_FD_EXEC))) {
        r = read_record(&oci_process_rec, &n->exec, at(n, OCI_FD_EXEC), e);
        n->process = &n->exec;
    }
    if (r == 0 && is_open(at(n, OCI_FD_FILTER)) &&
        (r = map_file(at(n, OCI_FD_FILTER), UINT16_MAX * sizeof(struct sock_filter), &p, &size, e)) == 0)
        n->filter = (struct seccomp_program){ p, (uint16_t)(size / sizeof(struct sock_filter)) };
    return r;
}

/* ---- the process, in its namespaces ---- */
/* Who it is: numbers as given, whatever names the image has for them; HOME by its passwd unless the environment has it. */
static int prepare(struct init *n, struct err *e)
{
    const struct oci_process *p = n->process;
    bool has_home = false;
    AUTO_FREE char *passwd = process_read_plain("/etc/passwd");
    n->user = (struct user){ .uid = (uint32_t)p->uid, .gid = (uint32_t)p->gid };
    user_home(&n->user, passwd);
    for (uint32_t i = 0; i < p->groups.n && i < ARRAY_N(n->user.groups); i++)
        n->user.groups[n->user.n_groups++] = (uint32_t)strtoul(p->groups.v[i], NULL, 10);
    n->argv = xcalloc((size_t)p->argv.n + 1, sizeof *n->argv);
    n->env = xcalloc((size_t)p->env.n + 3, sizeof *n->env);
    for (uint32_t i = 0; i < p->argv.n; i++)
        n->argv[i] = p->argv.v[i];
    bool has_path = false;
    uint32_t k = 0;
    for (uint32_t i = 0; i < p->env.n; i++) {
        n->env[k++] = p->env.v[i];
        has_home |= str_starts(p->env.v[i], "HOME=");
        has_path |= str_starts(p->env.v[i], "PATH=");
    }
    if (!has_home)
        n->env[k++] = xasprintf("HOME=%s", n->user.home);
    if (!has_path && !strchr(n->argv[0], '/')) /* as crun: a name without a path is looked for in the usual places */
        n->env[k++] = xstrdup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    int r = process_enter_folder(p->cwd, true, e);
    return r == 0 ? process_run(n->argv, n->env, true, e) : r;
}

/* Descriptors from 3 on that the caller wanted kept lie below base; the errors socket takes the first number above. */
static int close_files(struct init *n, struct err *e)
{
    if (n->errors != n->base && dup3(n->errors, n->base, O_CLOEXEC) < 0)
        return err_errno(e, errno, "descriptor");
    n->errors = n->base;
    return fcntl(n->errors, F_SETFD, FD_CLOEXEC) < 0 || syscall(SYS_close_range, (unsigned)n->base + 1, ~0u, 0u) < 0
               ? err_errno(e, errno, "close the host's files") : 0;
}

/* By the host's own /proc. */
static int attributes(const struct oci_bundle *b, const struct oci_process *p, struct err *e)
{
    enum { IOPRIO_WHO_PROCESS = 1 };
    int r = b->no_new_keyring ? 0 : process_join_keyring(b->id, e);
    if (r == 0)
        r = process_set_ulimits(p->ulimits.v, p->ulimits.n, e);
    if (r == 0 && p->has_oom_score_adj)
        r = process_set_oom_score(p->oom_score_adj, e);
    if (r == 0 && p->io_priority && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (int)p->io_priority) < 0)
        r = err_errno(e, errno, "process.ioPriority");
    if (r == 0 && b->has_personality && personality((unsigned long)b->personality) < 0)
        r = err_errno(e, errno, "linux.personality");
    return r;
}

static _Noreturn void become_program(struct init *n)
{
    struct err e = { 0 };
    const struct oci_process *p = n->process;
    const struct seccomp_program *f = n->filter.n ? &n->filter : NULL;
    unsigned flags = (unsigned)n->bundle.seccomp_flags;
    struct capability_sets caps = { p->bounding, p->permitted, p->effective, p->inheritable, p->ambient };
    int r = process_own_stdio(p->tty, n->user.uid, &e);
    if (r == 0)
        r = close_files(n, &e);
    process_default_signals();
    umask((mode_t)p->umask);
    if (r == 0 && !p->no_new_privs)
        r = process_filter(f, flags, &e);
    if (r == 0)
        r = process_become(&n->user, &caps, &e);
    if (r == 0 && p->no_new_privs && (r = process_no_new_privs(&e)) == 0)
        r = process_filter(f, flags, &e);
    if (r == 0)
        r = process_hide(&e); /* a change of user may have undone it */
    if (r == 0 && p != &n->exec) /* files of the image, with no more rights than its program */
        r = oci_hooks_run(&n->bundle, OCI_START_CONTAINER, "created", getpid(), &e);
    if (r < 0 || process_run(n->argv, n->env, false, &e) < 0)
        process_die(n->errors, &e);
    _exit(127);
}

static void use_terminal(const struct oci_process *p, const struct pty *t)
{
    if (!p->tty)
        return;
    ioctl(t->slave, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(t->slave, fd) < 0)
            _exit(127);
}

/* Whoever started it runs the hooks of its side first; then those of ours. */
static int hooks(struct init *n, struct err *e)
{
    const struct oci_bundle *b = &n->bundle;
    int64_t pid;
    if (!b->hooks.n)
        return 0;
    if (write(n->errors, (char[]){ OCI_WANTS_HOOKS }, 1) != 1 || read(at(n, OCI_FD_GATE), &pid, sizeof pid) != sizeof pid)
        _exit(127);
    return oci_hooks_run(b, OCI_CREATE_CONTAINER, "creating", pid, e);
}

static _Noreturn void first_process(struct init *n)
{
    const struct oci_bundle *b = &n->bundle;
    const struct oci_process *p = n->process;
    const struct oci_namespace *groups = oci_namespace_find(b, CLONE_NEWCGROUP);
    struct pty t = { .rows = (unsigned)p->rows, .cols = (unsigned)p->cols };
    struct err e = { 0 };
    int root = -1, r;
    close(at(n, OCI_FD_REPORT)); /* its end says that there is no pid to come */
    prctl(PR_SET_NAME, "shoal-init", 0, 0, 0);
    setsid();
    r = process_hide(&e);
    if (r == 0)
        r = cgroup_join(oci_cgroup_parent(b), b->cgroup, &e);
    if (r == 0 && groups && !groups->path && unshare(CLONE_NEWCGROUP) < 0)
        r = err_errno(&e, errno, "new cgroup namespace");
    if (r == 0 && b->hostname && sethostname(b->hostname, strlen(b->hostname)) < 0)
        r = err_errno(&e, errno, "host name");
    if (r == 0 && b->domainname && setdomainname(b->domainname, strlen(b->domainname)) < 0)
        r = err_errno(&e, errno, "domain name");
    umask(0);
    if (r == 0)
        r = attributes(b, p, &e);
    umask(0022);
    if (r == 0)
        r = oci_root_setup(b, p->tty ? &t : NULL, &root, &e);
    if (r == 0)
        r = hooks(n, &e);
    if (r == 0)
        r = oci_root_enter(b, root, &e);
    if (r == 0)
        r = prepare(n, &e);
    if (r < 0)
        process_die(n->errors, &e);
    process_tell_ready(n->errors, p->tty, &t);
    use_terminal(p, &t); /* already now: who called create may wait for the end of what was its output */
    close(n->errors);
    n->errors = accept4(at(n, OCI_FD_LISTEN), NULL, NULL, SOCK_CLOEXEC); /* the start */
    if (n->errors < 0)
        _exit(127);
    become_program(n);
}

/* ---- the way there ---- */
/* The path of a namespace may lead to that of who called: then what is set in it is set on the host. */
static int check_not_ours(const struct oci_bundle *b, const struct oci_namespace *x, int fd, struct err *e)
{
    struct stat st, ours;
    const char *type, *what = x->flag != CLONE_NEWUTS ? NULL : b->hostname ? "hostname" : b->domainname ? "domainname" : NULL;
    for (uint32_t i = 0; i < b->sysctls.n && !what; i++)
        if (oci_sysctl_namespace(b->sysctls.v[i].key, &type) == x->flag)
            what = b->sysctls.v[i].key;
    if (!what)
        return 0;
    const char *own = x->flag == CLONE_NEWUTS ? "/proc/self/ns/uts" : x->flag == CLONE_NEWNET ? "/proc/self/ns/net" : "/proc/self/ns/ipc";
    if (fstat(fd, &st) < 0 || stat(own, &ours) < 0)
        return err_errno(e, errno, "linux.namespaces: %s", x->path);
    return st.st_dev == ours.st_dev && st.st_ino == ours.st_ino
               ? err_set(e, E_INVALID, "%s would change the host: the namespace %s is the host's; leave one of both out", what, x->path) : 0;
}

static int join_namespaces(const struct oci_bundle *b, struct err *e)
{
    int fds[8];
    for (uint32_t i = 0; i < b->namespaces.n && i < ARRAY_N(fds); i++) { /* all are opened here, before any is joined */
        const struct oci_namespace *x = &b->namespaces.v[i];
        fds[i] = x->path ? open(x->path, O_RDONLY | O_CLOEXEC) : -1;
        if (x->path && fds[i] < 0)
            return err_errno(e, errno, "linux.namespaces: %s", x->path);
        if (x->path && check_not_ours(b, x, fds[i], e) < 0)
            return -e->code;
    }
    for (uint32_t i = 0; i < b->namespaces.n && i < ARRAY_N(fds); i++)
        if (fds[i] >= 0 && setns(fds[i], (int)b->namespaces.v[i].flag) < 0)
            return err_errno(e, errno, "join the namespace %s", b->namespaces.v[i].path);
    return 0;
}

/* The last that the small program does. A process that nobody knows of must not stay. */
static _Noreturn void report(const struct init *n, pid_t pid)
{
    struct err e = { 0 };
    if (write(at(n, OCI_FD_REPORT), &pid, sizeof pid) == sizeof pid)
        _exit(0);
    err_errno(&e, errno, "report the process");
    kill(pid, SIGKILL);
    process_die(n->errors, &e);
}

static _Noreturn void create(struct init *n)
{
    const struct oci_bundle *b = &n->bundle;
    struct err e = { 0 };
    struct clone_args args = { .flags = CLONE_PARENT };
    for (uint32_t i = 0; i < b->namespaces.n; i++)
        if (!b->namespaces.v[i].path && b->namespaces.v[i].flag != CLONE_NEWCGROUP)
            args.flags |= b->namespaces.v[i].flag;
    if (join_namespaces(b, &e) < 0)
        process_die(n->errors, &e);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        first_process(n);
    if (pid < 0) {
        err_errno(&e, errno, "new namespaces");
        process_die(n->errors, &e);
    }
    report(n, pid);
}

static _Noreturn void exec(struct init *n, const struct oci_life *life)
{
    const struct oci_process *p = n->process;
    struct err e = { 0 };
    struct pty t = { .rows = (unsigned)p->rows, .cols = (unsigned)p->cols };
    struct clone_args args = { .flags = CLONE_PARENT };
    char root_path[64];
    pid_t container = (pid_t)life->pid;
    snprintf(root_path, sizeof root_path, "/proc/%d/root", container);
    int pidfd = (int)syscall(SYS_pidfd_open, container, 0), root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (pidfd < 0 || root < 0)
        err_errno(&e, errno, "the container's process");
    else if (process_has_ended(container, life->start_id)) /* looked at after both were opened: pids are used again */
        err_set(&e, E_CONFLICT, "container not running: its process has ended");
    else if (cgroup_join(oci_cgroup_parent(&n->bundle), n->bundle.cgroup, &e) < 0 || attributes(&n->bundle, p, &e) < 0)
        process_die(n->errors, &e);
    else if (setns(pidfd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP) < 0)
        err_errno(&e, errno, "join the container");
    else if (fchdir(root) < 0 || chroot(".") < 0)
        err_errno(&e, errno, "enter the root of the container");
    if (e.code)
        process_die(n->errors, &e);
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args); /* the pid namespace is that of children */
    if (pid > 0)
        report(n, pid);
    if (pid < 0)
        err_errno(&e, errno, "fork");
    close(at(n, OCI_FD_REPORT));
    setsid();
    umask(0022);
    if (pid < 0 || (p->tty && pty_open(&t, AT_FDCWD, &e) < 0) || prepare(n, &e) < 0)
        process_die(n->errors, &e);
    process_tell_ready(n->errors, p->tty, &t);
    use_terminal(p, &t);
    become_program(n);
}

_Noreturn void oci_init_main(int base)
{
    static struct init n;
    struct err e = { 0 };
    struct oci_life container;
    n.base = base;
    n.errors = at(&n, OCI_FD_ERRORS);
    if (syscall(SYS_close_range, (unsigned)(base + OCI_FD_N), ~0u, 0u) < 0) /* the caller's files are not for the image to find */
        err_errno(&e, errno, "close the caller's files");
    if (e.code || process_hide(&e) < 0)
        process_die(n.errors, &e);
    for (int i = 0; i < OCI_FD_N; i++)
        if (is_open(at(&n, i)))
            fcntl(at(&n, i), F_SETFD, FD_CLOEXEC);
    if (read_all(&n, &e) < 0)
        process_die(n.errors, &e);
    if (n.process != &n.exec)
        create(&n);
    if (read(at(&n, OCI_FD_GATE), &container, sizeof container) != sizeof container)
        _exit(127);
    exec(&n, &container);
}
