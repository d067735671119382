/* Processes of a container: the first one, in new namespaces, held at a gate until its start; and further ones
 * (exec) that join the namespaces of the first by its pidfd. A child that cannot go on writes one sentence to
 * its error socket, which closes by exec otherwise. Order of the last steps: groups, user, capabilities,
 * no_new_privs, seccomp, exec (runtime.md section 2; capabilities(7), seccomp(2)). */
#include "process_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

struct identity {
    struct user user;
    uint64_t caps;
};

_Noreturn void process_die(int errors, const struct err *e)
{
    ssize_t ignored = write(errors, e->text, strlen(e->text));
    _exit(ignored < 0 ? 126 : 127);
}

int process_hide(struct err *e)
{
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? err_errno(e, errno, "close this process to others") : 0;
}

/* A terminal of the container's own devpts, below root; what was opened is checked (CVE-2025-52565). */
int pty_open(struct pty *t, int root, struct err *e)
{
    int unlock = 0;
    struct statfs fs;
    struct winsize w = { .ws_row = (unsigned short)(t->rows ? t->rows : 24),
                         .ws_col = (unsigned short)(t->cols ? t->cols : 80) };
    AUTO_CLOSE int m = root_open_in(root, "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK);
    if (m < 0 || fstatfs(m, &fs) < 0)
        return err_errno(e, errno, "/dev/pts/ptmx of the container");
    if (fs.f_type != DEVPTS_SUPER_MAGIC)
        return err_set(e, E_INVALID, "/dev/pts of the container is covered, it has no terminals");
    if (ioctl(m, TIOCSPTLCK, &unlock) < 0 || ioctl(m, TIOCSWINSZ, &w) < 0 ||
        (t->slave = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        return err_errno(e, errno, "open a terminal");
    t->master = m;
    m = -1;
    return 0;
}

void process_tell_ready(int errors, bool tty, const struct pty *t)
{
    if (fd_send_with_fds(errors, "", 1, &t->master, tty ? 1 : 0, NULL) < 0)
        _exit(127);
}

/* ---- steps inside the child ---- */
int process_set_ulimits(const struct container_ulimit *v, uint32_t n, struct err *e)
{
    static const struct { const char *name; int what; } limits[] = {
        { "as", RLIMIT_AS }, { "core", RLIMIT_CORE }, { "cpu", RLIMIT_CPU }, { "data", RLIMIT_DATA }, { "fsize", RLIMIT_FSIZE },
        { "locks", RLIMIT_LOCKS }, { "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE },
        { "nice", RLIMIT_NICE }, { "nofile", RLIMIT_NOFILE }, { "nproc", RLIMIT_NPROC }, { "rss", RLIMIT_RSS },
        { "rtprio", RLIMIT_RTPRIO }, { "rttime", RLIMIT_RTTIME }, { "sigpending", RLIMIT_SIGPENDING },
        { "stack", RLIMIT_STACK },
    };
    for (uint32_t i = 0; i < n; i++) {
        const struct container_ulimit *u = &v[i];
        struct rlimit r = { u->soft < 0 ? RLIM_INFINITY : (rlim_t)u->soft, u->hard < 0 ? RLIM_INFINITY : (rlim_t)u->hard };
        unsigned k = 0;
        while (k < ARRAY_N(limits) && !str_equal(limits[k].name, u->name))
            k++;
        if (k == ARRAY_N(limits))
            return err_set(e, E_INVALID, "unknown ulimit \"%s\"", u->name);
        if (setrlimit((__rlimit_resource_t)limits[k].what, &r) < 0)
            return err_errno(e, errno, "ulimit %s", u->name);
    }
    return 0;
}

int process_set_oom_score(int64_t adj, struct err *e)
{
    char text[24];
    snprintf(text, sizeof text, "%d", (int)adj);
    return file_poke("/proc/self/oom_score_adj", text, e);
}

int process_join_keyring(const char *id, struct err *e)
{
    enum { PERMISSIONS = 0x3f1b0000 }; /* as it is made: all for who has it, see and read for its user; and find, for exec */
    AUTO_FREE char *name = xasprintf("_ses.%s", id);
    long key = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);
    if (key < 0 && errno == ENOSYS)
        return 0;
    return key < 0 || syscall(SYS_keyctl, KEYCTL_SETPERM, key, PERMISSIONS) < 0 ? err_errno(e, errno, "session keyring %s", name) : 0;
}

char *process_read_plain(const char *path)
{
    struct stat st;
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 1 << 20)
        return NULL;
    char *text = xcalloc(1, (size_t)st.st_size + 1);
    ssize_t n, at = 0;
    while (at < st.st_size && (n = read(fd, text + at, (size_t)(st.st_size - at))) > 0)
        at += n;
    text[at] = '\0';
    return text;
}

/* The root is already the container's: plain paths are its own. */
static int find_user(const struct container_spec *s, const char *text, struct user *ret, struct err *e)
{
    AUTO_FREE char *passwd = process_read_plain("/etc/passwd");
    AUTO_FREE char *group = process_read_plain("/etc/group");
    return user_resolve(ret, text, &s->groups, passwd, group, e);
}

/* 1 or 0: may be gained; -E_NOT_FOUND: this kernel has none of that number; any other error is not an answer. */
static int capability_is_bounded(unsigned i, struct err *e)
{
    int has = prctl(PR_CAPBSET_READ, i, 0, 0, 0);
    if (has >= 0)
        return has;
    return errno == EINVAL ? err_set(e, E_NOT_FOUND, "no capability %u", i) : err_errno(e, errno, "capability %u", i);
}

static int drop_bounding(uint64_t caps, struct err *e)
{
    for (unsigned i = 0; i < 64; i++) {
        int has = capability_is_bounded(i, e);
        if (has == -E_NOT_FOUND)
            return 0;
        if (has < 0)
            return has;
        if (has && !(caps >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0)
            return err_errno(e, errno, "drop capability %u", i);
    }
    return 0;
}

static int set_caps(const struct capability_sets *c, struct err *e)
{
    struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct d[2];
    unsigned last = 0;
    int has = 0;
    while (last < 63 && (has = capability_is_bounded(last + 1, e)) >= 0)
        last++;
    if (has < 0 && has != -E_NOT_FOUND)
        return has;
    uint64_t known = last >= 63 ? UINT64_MAX : (UINT64_C(1) << (last + 1)) - 1; /* by this kernel */
    for (int i = 0; i < 2; i++) {
        d[i].effective = (uint32_t)((c->effective & known) >> (32 * i));
        d[i].permitted = (uint32_t)((c->permitted & known) >> (32 * i));
        d[i].inheritable = (uint32_t)((c->inheritable & known) >> (32 * i));
    }
    if (syscall(SYS_capset, &h, d) < 0)
        return err_errno(e, errno, "set the capabilities");
    for (unsigned i = 0; i <= last; i++) /* one that is not inheritable cannot be ambient; as in runc, that is no error: its template asks for it */
        if (c->ambient & c->inheritable & c->permitted & known & UINT64_C(1) << i && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
            return err_errno(e, errno, "ambient capability %s", capability_name(i));
    return 0;
}

int process_become(const struct user *u, const struct capability_sets *caps, struct err *e)
{
    gid_t groups[ARRAY_N(u->groups)];
    for (unsigned i = 0; i < u->n_groups; i++)
        groups[i] = u->groups[i];
    int r = drop_bounding(caps->bounding, e);
    if (r < 0)
        return r;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return err_errno(e, errno, "clear the ambient capabilities");
    if (setgroups(u->n_groups, groups) < 0 || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 ||
        setresgid(u->gid, u->gid, u->gid) < 0 || setresuid(u->uid, u->uid, u->uid) < 0)
        return err_errno(e, errno, "become user %u:%u", u->uid, u->gid);
    r = set_caps(caps, e);
    if (r == 0 && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
        r = err_errno(e, errno, "keep no capabilities");
    return r;
}

static void wire_io(const struct process_start *p, const struct pty *t)
{
    if (p->tty)
        ioctl(t->slave, TIOCSCTTY, 0);
    dup2(p->tty ? t->slave : p->in, 0);
    dup2(p->tty ? t->slave : p->out, 1);
    dup2(p->tty ? t->slave : p->err, 2);
}

int process_no_new_privs(struct err *e)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? err_errno(e, errno, "no_new_privs") : 0;
}

int process_filter(const struct seccomp_program *f, unsigned flags, struct err *e)
{
    if (!f)
        return 0;
    struct sock_fprog prog = { .len = f->n, .filter = (struct sock_filter *)(uintptr_t)f->filter };
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog) < 0 ? err_errno(e, errno, "system call filter") : 0;
}

/* Environment of the new process: HOME and PATH are there in any case. */
static char **environment(const struct strs *a, const struct strs *b, const char *home, bool tty)
{
    char **v = xcalloc((size_t)a->n + (b ? b->n : 0) + 4, sizeof *v);
    unsigned n = 0;
    bool has_home = false, has_path = false;
    const struct strs *lists[] = { a, b };
    for (unsigned l = 0; l < 2; l++)
        for (uint32_t i = 0; lists[l] && i < lists[l]->n; i++) {
            const char *x = lists[l]->v[i];
            const char *eq = strchr(x, '=');
            size_t len = eq ? (size_t)(eq - x) + 1 : strlen(x);
            unsigned k = 0;
            while (k < n && strncmp(v[k], x, len) != 0)
                k++;
            v[k] = xstrdup(x);
            n += k == n;
            has_home |= str_starts(x, "HOME=");
            has_path |= str_starts(x, "PATH=");
        }
    if (!has_path)
        v[n++] = xstrdup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if (!has_home)
        v[n++] = xasprintf("HOME=%s", home);
    if (tty)
        v[n++] = xstrdup("TERM=xterm");
    return v;
}

/* 0: look found it. */
static int try_program(const char *path, char *const argv[], char *const env[], bool look)
{
    struct stat st;
    if (!look)
        execve(path, argv, env);
    else if (stat(path, &st) < 0)
        return errno;
    else
        return S_ISREG(st.st_mode) && st.st_mode & 0111 ? 0 : EACCES;
    return errno;
}

int process_run(char *const argv[], char *const env[], bool look, struct err *e)
{
    const char *path = "";
    for (unsigned i = 0; env[i]; i++)
        if (str_starts(env[i], "PATH="))
            path = env[i] + 5;
    int error = ENOENT;
    if (strchr(argv[0], '/')) {
        error = try_program(argv[0], argv, env, look);
    } else {
        while (*path && error) {
            size_t n = strcspn(path, ":");
            char full[4096];
            snprintf(full, sizeof full, "%.*s/%s", (int)n, path, argv[0]);
            int this = try_program(full, argv, env, look);
            if (this != ENOENT && this != ENOTDIR)
                error = this;
            path += n + (path[n] == ':');
        }
    }
    if (!error)
        return 0;
    if (error == ENOENT) /* words by which the docker client chooses its exit status, 127 and 126 */
        return err_set(e, E_NOT_FOUND, "exec \"%.200s\": executable file not found in the container", argv[0]);
    if (error == EACCES)
        return err_set(e, E_DENIED, "exec \"%.200s\" in the container: permission denied", argv[0]);
    return err_errno(e, error, "exec \"%s\" in the container", argv[0]);
}

void process_default_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int i = 1; i < 65; i++)
        signal(i, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Process 1 of `init: true`: runs the program as its child, passes signals on, reaps what is left to it. It has
 * the container's user, capabilities and filter, no more. */
static pid_t init_child;
static void forward(int signum)
{
    if (init_child > 0)
        kill(init_child, signum);
}

static void become_init(int errors)
{
    struct sigaction sa = { .sa_handler = forward };
    pid_t child = fork();
    if (child == 0)
        return;
    init_child = child;
    for (int i = 1; i < 32; i++)
        if (i != SIGCHLD && i != SIGKILL && i != SIGSTOP)
            sigaction(i, &sa, NULL);
    close(errors);
    if (child < 0 || syscall(SYS_close_range, 0u, ~0u, 0u) < 0)
        _exit(126);
    for (;;) {
        int status;
        pid_t p = wait(&status);
        if (p == child || (p < 0 && errno == ECHILD))
            _exit(p < 0 ? 0 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    }
}

int process_enter_folder(const char *dir, bool make, struct err *e)
{
    char now[4096];
    if (make && file_mkdirs(dir, 0755, NULL) < 0)
        err_set(e, E_IO, "unused"); /* a read-only root: chdir says what is missing */
    if (chdir(dir) < 0)
        return err_errno(e, errno, "working directory %s", dir);
    if (!getcwd(now, sizeof now) || now[0] != '/')
        return err_set(e, E_INVALID, "working directory %s is not in the container", dir);
    return 0;
}

/* The host's descriptors go before anything of the image is looked at; errors becomes 3. */
static int close_host_files(int errors)
{
    if (errors != 3 && dup3(errors, 3, O_CLOEXEC) < 0)
        _exit(127);
    fcntl(3, F_SETFD, FD_CLOEXEC);
    struct err e;
    if (syscall(SYS_close_range, 4u, ~0u, 0u) < 0) {
        err_errno(&e, errno, "close the host's files");
        process_die(3, &e);
    }
    return 3;
}

static bool is_null_device(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/* The host's /dev/null becomes the container's own: a descriptor is enough to change a file's owner and mode. The user
 * may open by /proc/self/fd what pipes and terminal it has; anything else is not the container's. */
int process_own_stdio(bool tty, uid_t uid, struct err *e)
{
    struct stat st;
    for (int fd = 0; fd < 3; fd++) {
        if (is_null_device(fd)) {
            AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
            if (null < 0 || !is_null_device(null) || dup2(null, fd) < 0)
                return err_set(e, E_INVALID, "/dev/null of the container is not the null device");
        } else if (fstat(fd, &st) == 0 && (tty || S_ISFIFO(st.st_mode)) && fchown(fd, uid, (gid_t)-1) < 0 && tty) {
            return err_errno(e, errno, "owner of the terminal");
        }
    }
    return 0;
}

/* With no_new_privs the filter needs no privilege and comes last; without, before capabilities go. */
static int drop_privileges(const struct process_start *p, const struct identity *who, bool privileged, struct err *e)
{
    bool last = p->spec->no_new_privs;
    const struct seccomp_program *f = privileged ? NULL : p->seccomp;
    /* Another user than root has its capabilities only through file capabilities, as in Docker. */
    uint64_t own = who->user.uid == 0 ? who->caps : 0;
    struct capability_sets caps = { .bounding = who->caps, .permitted = own, .effective = own };
    int r = last ? 0 : process_filter(f, 0, e);
    if (r == 0)
        r = process_become(&who->user, &caps, e);
    if (r == 0 && last && (r = process_no_new_privs(e)) == 0)
        r = process_filter(f, 0, e);
    return r == 0 ? process_hide(e) : r; /* a change of user may have undone it */
}

static int die_with_parent(struct err *e)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? err_errno(e, errno, "tie the process to its shim") : 0;
}

static _Noreturn void finish(const struct process_start *p, const struct exec_spec *x, int errors)
{
    struct err e = { 0 };
    const struct container_spec *s = p->spec;
    struct identity who = { 0 };
    bool privileged = s->privileged || (x && x->privileged);
    const char *cwd = x && x->cwd ? x->cwd : s->cwd ? s->cwd : "/";
    errors = close_host_files(errors);
    if (find_user(s, x && x->user ? x->user : s->user, &who.user, &e) < 0 ||
        capability_set(&s->cap_add, &s->cap_drop, privileged, &who.caps, &e) < 0 || process_enter_folder(cwd, !x, &e) < 0)
        process_die(errors, &e);
    const struct strs *argv = x ? &x->argv : &s->argv;
    char **v = xcalloc((size_t)argv->n + 1, sizeof *v);
    for (uint32_t i = 0; i < argv->n; i++)
        v[i] = argv->v[i];
    char **env = environment(&s->env, x ? &x->env : NULL, who.user.home, p->tty);
    if (process_own_stdio(p->tty, who.user.uid, &e) < 0)
        process_die(errors, &e);
    process_default_signals();
    if (drop_privileges(p, &who, privileged, &e) < 0)
        process_die(errors, &e);
    if (!x && die_with_parent(&e) < 0) /* again: a change of user undid it */
        process_die(errors, &e);
    if (!x && s->init)
        become_init(errors);
    if (process_run(v, env, false, &e) < 0)
        process_die(errors, &e);
    _exit(127);
}

static _Noreturn void first_process(const struct process_start *p, int gate, int errors, int netns)
{
    struct err e = { 0 };
    const struct container_spec *s = p->spec;
    struct pty t = { .rows = p->rows, .cols = p->cols };
    char go;
    prctl(PR_SET_NAME, "shoal-init", 0, 0, 0);
    setsid();
    if (process_hide(&e) < 0 || die_with_parent(&e) < 0)
        process_die(errors, &e);
    if (!cgroup_is_v2() && cgroup_join(p->cgroup_parent, s->id, &e) < 0)
        process_die(errors, &e);
    if (unshare(CLONE_NEWCGROUP) < 0)
        err_errno(&e, errno, "new cgroup namespace");
    else if (netns >= 0 && setns(netns, CLONE_NEWNET) < 0)
        err_errno(&e, errno, "join the network namespace");
    else if (s->hostname && sethostname(s->hostname, strlen(s->hostname)) < 0)
        err_errno(&e, errno, "host name");
    if (e.code || process_join_keyring(s->id, &e) < 0)
        process_die(errors, &e);
    if (s->oom_score_adj && process_set_oom_score(s->oom_score_adj, &e) < 0)
        process_die(errors, &e);
    umask(0022);
    if (process_set_ulimits(s->ulimits.v, s->ulimits.n, &e) < 0 || root_setup(s, p->dir, p->tty ? &t : NULL, &e) < 0)
        process_die(errors, &e);
    process_tell_ready(errors, p->tty, &t);
    if (read(gate, &go, 1) != 1)
        _exit(127);
    wire_io(p, &t);
    finish(p, NULL, errors);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

int process_create(const struct process_start *p, pid_t *ret_pid, int *ret_gate, int *ret_errors, struct err *e)
{
    const struct container_spec *s = p->spec;
    int gate[2], errors[2], netns = -1;
    uint64_t flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
    bool host_net = str_equal(s->netns, "host");
    if (s->netns && !host_net) {
        netns = open(s->netns, O_RDONLY | O_CLOEXEC);
        if (netns < 0)
            return err_errno(e, errno, "network namespace %s", s->netns);
    }
    if (!s->netns)
        flags |= CLONE_NEWNET;
    if (pipe2(gate, O_CLOEXEC) < 0)
        return err_errno(e, errno, "pipe");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, errors) < 0) {
        close(gate[0]);
        close(gate[1]);
        close_fd(netns);
        return err_errno(e, errno, "pipe");
    }
    pid_t pid = cgroup_clone(p->cgroup_parent, s->id, flags, e);
    if (pid == 0) {
        close(gate[1]);
        close(errors[0]);
        first_process(p, gate[0], errors[1], netns);
    }
    close(gate[0]);
    close(errors[1]);
    close_fd(netns);
    if (pid < 0) {
        close(gate[1]);
        close(errors[0]);
        return pid;
    }
    *ret_pid = pid;
    *ret_gate = gate[1];
    *ret_errors = errors[0];
    return 0;
}

static _Noreturn void exec_process(const struct process_start *p, const struct exec_spec *x, int pidfd, int errors,
                                   int report)
{
    struct err e = { 0 };
    if (process_hide(&e) < 0)
        process_die(errors, &e);
    if ((!cgroup_is_v2() && cgroup_join(p->cgroup_parent, p->spec->id, &e) < 0) || process_join_keyring(p->spec->id, &e) < 0)
        process_die(errors, &e);
    if (setns(pidfd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP) < 0) {
        err_errno(&e, errno, "join the container");
        process_die(errors, &e);
    }
    /* The root of the namespace is not the container's where this system itself runs below a chroot. */
    if (fchdir(p->root) < 0 || chroot(".") < 0) {
        err_errno(&e, errno, "enter the root of the container");
        process_die(errors, &e);
    }
    /* The new pid namespace is for children; CLONE_PARENT makes this one a child of the shim. */
    struct clone_args args = { .flags = CLONE_PARENT, .exit_signal = 0 };
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) {
        err_errno(&e, errno, "fork");
        process_die(errors, &e);
    }
    if (pid > 0)
        _exit(write(report, &pid, sizeof pid) == sizeof pid ? 0 : 127);
    struct pty t = { .rows = p->rows, .cols = p->cols };
    setsid();
    umask(0022);
    if (p->tty && pty_open(&t, AT_FDCWD, &e) < 0)
        process_die(errors, &e);
    process_tell_ready(errors, p->tty, &t);
    wire_io(p, &t);
    finish(p, x, errors);
}

int process_exec(const struct process_start *p, const struct exec_spec *x, pid_t container_pid, pid_t *ret_pid,
                 int *ret_errors, struct err *e)
{
    int errors[2], report[2], status;
    pid_t pid = -1;
    AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, container_pid, 0);
    if (pidfd < 0)
        return err_errno(e, errno, "the container's process");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, errors) < 0)
        return err_errno(e, errno, "pipe");
    if (pipe2(report, O_CLOEXEC) < 0) {
        close(errors[0]);
        close(errors[1]);
        return err_errno(e, errno, "pipe");
    }
    pid_t middle = cgroup_clone(p->cgroup_parent, p->spec->id, 0, e);
    if (middle == 0) {
        close(errors[0]);
        close(report[0]);
        exec_process(p, x, pidfd, errors[1], report[1]);
    }
    close(errors[1]);
    close(report[1]);
    bool reported = middle > 0 && read(report[0], &pid, sizeof pid) == sizeof pid;
    close(report[0]);
    if (middle > 0)
        waitpid(middle, &status, 0);
    if (!reported) {
        char text[512];
        ssize_t n = middle > 0 ? read(errors[0], text, sizeof text - 1) : 0;
        close(errors[0]);
        return middle < 0 ? middle : err_set(e, E_INTERNAL, "%.*s", n > 0 ? (int)n : 30, n > 0 ? text : "it died before it was inside");
    }
    *ret_pid = pid;
    *ret_errors = errors[0];
    return 0;
}
