/* Containers by `shoal oci` while system calls fail: each one that the runtime makes on its way to a full default container,
 * in turn, once with an error and once with the death of who made it. After each nothing may be left on the machine, what
 * failed must have said why, and a container that runs all the same must be the one that was asked for: the same rights,
 * mounts, limits and descriptors as without the fault.
 *
 * A seccomp filter over the process tree reports the calls to this program, which lets them pass or answers in the kernel's
 * place (seccomp_unotify(2)); a call that fails has no effect. They are counted by process, in the order in which processes
 * come: 0 the command, 1 the small program it starts, 2 the container's first process, then hooks before their exec. Left
 * out (`passed` below): what cannot fail, and what only memory or threads of libc are about.
 *
 *   test_runtime_faults [--stride N [--offset M]] [--only VERB:error|kill:PROCESS:CALL] [--verbose]
 * By default every call; with a stride every N-th, beginning at M. Root. SHOAL_PLAIN or SHOAL_BUILD: where the program is;
 * the plain one, since a sanitizer's own calls are none of the runtime's. */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 30000, PROCESSES_MAX = 16, LISTENERS_MAX = 4, TEXT_MAX_BYTES = 1 << 16, LISTENER_DOOR = 900, CALLERS_FILE = 50, CALLS_MAX = 4000 };

/* ---- which calls, and how they fail ---- */
#define C(name, error) { SYS_##name, #name, error }
static const struct call { int nr; const char *name; int error; } known[] = {
    C(openat, EMFILE), C(openat2, EMFILE), C(memfd_create, EMFILE), C(socket, EMFILE), C(socketpair, EMFILE), C(pipe2, EMFILE),
    C(fcntl, EMFILE), C(dup, EMFILE), C(dup3, EMFILE), C(accept4, EMFILE), C(pidfd_open, EMFILE), C(read, EIO), C(pread64, EIO),
    C(write, EIO), C(writev, EIO), C(ioctl, EIO), C(lseek, EIO), C(newfstatat, EIO), C(fstat, EIO), C(statx, EIO), C(statfs, EIO), C(fstatfs, EIO),
    C(getdents64, EIO), C(readlinkat, EIO), C(getcwd, EIO), C(mkdirat, ENOSPC), C(mknodat, ENOSPC), C(symlinkat, ENOSPC),
    C(bind, ENOSPC), C(mount, ENOMEM), C(umount2, EIO), C(pivot_root, EINVAL), C(clone, EAGAIN), C(clone3, EAGAIN), C(mmap, ENOMEM),
    C(setsid, EPERM), C(wait4, EINTR), C(waitid, EINTR), C(execve, ENOMEM), C(sendmsg, ENOBUFS), C(recvmsg, ENOMEM), C(connect, EIO),
    C(listen, EIO), C(unlinkat, EIO), C(renameat, EIO), C(renameat2, EIO), C(chdir, EIO), C(fchdir, EIO), C(flock, ENOLCK), C(faccessat, EIO),
    C(fchownat, EIO), C(fchmodat, EIO), C(fchmod, EIO), C(fchown, EIO), C(fsync, EIO), C(ftruncate, EIO), C(setns, ENOMEM), C(unshare, ENOMEM),
    C(sethostname, EPERM), C(setdomainname, EPERM), C(prctl, EPERM), C(capset, EPERM), C(seccomp, ENOMEM), C(setgroups, EPERM),
    C(setresuid, EAGAIN), C(setresgid, EPERM), C(setrlimit, EPERM), C(prlimit64, EPERM), C(keyctl, EDQUOT), C(close_range, EMFILE), C(kill, EPERM),
    C(mount_setattr, EINVAL), C(open_tree, EMFILE), C(move_mount, EINVAL), C(personality, EINVAL), C(ioprio_set, EPERM), C(chroot, EPERM),
    C(pidfd_send_signal, EPERM),
#ifdef SYS_open
    C(open, EMFILE), C(stat, EIO), C(lstat, EIO), C(access, EIO), C(readlink, EIO), C(mkdir, ENOSPC), C(mknod, ENOSPC), C(symlink, ENOSPC),
    C(unlink, EIO), C(rmdir, EIO), C(rename, EIO), C(chmod, EIO), C(chown, EIO), C(pipe, EMFILE), C(dup2, EMFILE), C(poll, EINTR),
    C(fork, EAGAIN), C(vfork, EAGAIN),
#endif
    C(ppoll, EINTR),
};

/* They cannot fail with what they are given, or their failure changes nothing but memory and threads of libc: `close` closes
 * whatever it says, and memory that is refused ends a program by design, as the tests with a death do. */
static const int passed[] = {
    SYS_exit, SYS_exit_group, SYS_futex, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_clock_gettime, SYS_gettimeofday, SYS_close,
    SYS_munmap, SYS_brk, SYS_mprotect, SYS_madvise, SYS_getpid, SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    SYS_umask, SYS_set_robust_list, SYS_set_tid_address, SYS_rseq, SYS_getrandom, SYS_sched_yield, SYS_restart_syscall, SYS_sigaltstack,
    SYS_tgkill, SYS_uname,
#ifdef SYS_arch_prctl
    SYS_arch_prctl,
#endif
};

static const struct call *call_of(int nr)
{
    static struct call other = { 0, "?", EPERM };
    for (size_t i = 0; i < ARRAY_N(known); i++)
        if (known[i].nr == nr)
            return &known[i];
    other.nr = nr;
    return &other;
}

/* ---- the world ---- */
enum mode { ERROR, KILL, N_MODES };
static const char *const mode_names[] = { "error", "kill" };
enum verb { CREATE, START, RUN, DELETE, N_VERBS };
static const char *const verb_names[] = { "create", "start", "run", "delete" };

struct process { pid_t pid; bool foreign; unsigned n; };
/* What is made to happen, and what came of it. */
static struct fault {
    enum verb verb;
    enum mode mode;
    unsigned process, call; /* call 0: none */
    const struct call *what;
} fault;
static struct process processes[PROCESSES_MAX];
static unsigned n_processes, counts[N_VERBS][PROCESSES_MAX];
static bool counting; /* from the command's first call of its own on */
static int listeners[LISTENERS_MAX];
static unsigned n_listeners;
static int signals, out_file, err_file;
static pid_t command; /* 0: it has ended */
static int status;
static char base[64], group[64], program[512], state_root[96];
static char views[N_VERBS][TEXT_MAX_BYTES], mounts[TEXT_MAX_BYTES], host_name[256];
static unsigned n_faults, n_failures, n_refused, n_worked;
static bool verbose;

static void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *fmt, ...)
{
    va_list ap;
    n_failures++;
    printf("NOT OK  --only %s:%s:%u:%u (%s): ", verb_names[fault.verb], mode_names[fault.mode], fault.process, fault.call,
           fault.what ? fault.what->name : "not reached");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "test_runtime_faults: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* From its beginning, whatever was written to it last. */
static void read_fd(int fd, char text[TEXT_MAX_BYTES])
{
    size_t n = 0;
    ssize_t got;
    while (n < TEXT_MAX_BYTES - 1 && (got = pread(fd, text + n, TEXT_MAX_BYTES - 1 - n, (off_t)n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
}

static void read_path(const char *path, char text[TEXT_MAX_BYTES])
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    read_fd(fd, text);
}

/* ---- the filter ---- */
static void add(struct sock_filter *f, unsigned *n, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
    f[(*n)++] = (struct sock_filter){ code, yes, no, k };
}

/* In the child, before its exec; the listener goes to the parent by a call that the filter lets pass. */
static void install_filter(void)
{
    struct sock_filter f[2 * ARRAY_N(passed) + 32];
    unsigned n = 0;
    const unsigned arg0 = offsetof(struct seccomp_data, args[0]), arg3 = offsetof(struct seccomp_data, args[3]);
    add(f, &n, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
    for (size_t i = 0; i < ARRAY_N(passed); i++) {
        add(f, &n, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)passed[i], 0, 1);
        add(f, &n, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    }
    /* The command's own work begins where it ignores SIGPIPE; before that the loader works. */
    add(f, &n, BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigaction, 0, 4);
    add(f, &n, BPF_LD | BPF_W | BPF_ABS, arg0, 0, 0);
    add(f, &n, BPF_JMP | BPF_JEQ | BPF_K, SIGPIPE, 0, 1);
    add(f, &n, BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF, 0, 0);
    add(f, &n, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    add(f, &n, BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4); /* memory, not a file */
    add(f, &n, BPF_LD | BPF_W | BPF_ABS, arg3, 0, 0);
    add(f, &n, BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS, 0, 1);
    add(f, &n, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    add(f, &n, BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF, 0, 0);
    add(f, &n, BPF_JMP | BPF_JEQ | BPF_K, SYS_sendmsg, 0, 3);
    add(f, &n, BPF_LD | BPF_W | BPF_ABS, arg0, 0, 0);
    add(f, &n, BPF_JMP | BPF_JEQ | BPF_K, LISTENER_DOOR, 0, 1);
    add(f, &n, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    add(f, &n, BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF, 0, 0);
    struct sock_fprog prog = { (unsigned short)n, f };
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &prog);
    struct err e;
    if (listener < 0 || fd_send_with_fds(LISTENER_DOOR, "", 1, &listener, 1, &e) < 0)
        _exit(126);
}

/* ---- answering calls ---- */
static bool is_child_of_foreign(pid_t pid)
{
    char path[64], text[TEXT_MAX_BYTES];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    read_path(path, text);
    const char *p = strstr(text, "\nPPid:");
    pid_t parent = p ? (pid_t)strtol(p + 6, NULL, 10) : 0;
    for (unsigned i = 0; i < n_processes; i++)
        if (processes[i].pid == parent)
            return processes[i].foreign;
    return true; /* of one that was left out */
}

static struct process *process_of(pid_t pid)
{
    static struct process beyond = { .foreign = true };
    for (unsigned i = 0; i < n_processes; i++)
        if (processes[i].pid == pid)
            return &processes[i];
    if (n_processes == PROCESSES_MAX)
        return &beyond;
    bool foreign = pid != command && is_child_of_foreign(pid);
    processes[n_processes] = (struct process){ .pid = pid, .foreign = foreign };
    return &processes[n_processes++];
}

/* Another program than the runtime's own, which is started by a descriptor. */
static bool executes_other(const struct seccomp_notif *r)
{
    char path[32], text[16] = "";
    snprintf(path, sizeof path, "/proc/%u/mem", r->pid);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return pread(fd, text, sizeof text - 1, (off_t)r->data.args[0]) <= 0 || strncmp(text, "/proc/self/fd/", 14) != 0;
}

/* 0: let it pass; an error; -1: its caller is killed. */
static int judge(const struct seccomp_notif *r)
{
    struct process *p = process_of((pid_t)r->pid);
    if (r->data.nr == SYS_rt_sigaction) {
        counting |= p->pid == command;
        return 0;
    }
    if (p->foreign || !counting || (r->data.nr == SYS_wait4 && r->data.args[2] & WNOHANG)) /* looking does not fail */
        return 0;
    unsigned i = (unsigned)(p - processes);
    p->n++;
    if (!fault.call)
        counts[fault.verb][i] = p->n;
    if (verbose && !fault.call)
        printf("        %s, process %u, call %u: %s\n", verb_names[fault.verb], i, p->n, call_of(r->data.nr)->name);
    if (fault.call && i == fault.process && p->n == fault.call) {
        fault.what = call_of(r->data.nr);
        return fault.mode == KILL ? -1 : fault.what->error;
    }
    if (r->data.nr == SYS_execve)
        p->foreign = executes_other(r);
    return 0;
}

static void answer(int listener)
{
    struct seccomp_notif r = { 0 };
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &r) < 0)
        return; /* it has died meanwhile */
    int error = judge(&r);
    struct seccomp_notif_resp a = { .id = r.id, .error = error > 0 ? -error : 0, .flags = error > 0 ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE };
    if (error < 0)
        kill((pid_t)r.pid, SIGKILL);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &a) < 0 && errno != ENOENT)
        give_up("answer");
}

/* All children that have ended; whether any is left. */
static bool reap(void)
{
    int how;
    pid_t pid;
    while ((pid = waitpid(-1, &how, WNOHANG)) > 0)
        if (pid == command) {
            command = 0;
            status = how;
        }
    return pid == 0;
}

/* Serves until the command, or all, have ended; false: they have not. */
static bool serve(bool all)
{
    int64_t end = clock_mono_ns() + WAIT_MS * MS_NS;
    while (all ? reap() : (reap(), command != 0)) {
        struct pollfd v[1 + LISTENERS_MAX] = { { .fd = signals, .events = POLLIN } };
        struct signalfd_siginfo info;
        int64_t left = (end - clock_mono_ns()) / MS_NS;
        for (unsigned i = 0; i < n_listeners; i++)
            v[1 + i] = (struct pollfd){ .fd = listeners[i], .events = POLLIN };
        if (left <= 0)
            return false;
        poll(v, 1 + n_listeners, (int)left);
        for (unsigned i = 0; i < n_listeners; i++) {
            if (v[1 + i].revents & POLLIN)
                answer(listeners[i]);
            else if (v[1 + i].revents) { /* nobody is under the filter any more */
                close(listeners[i]);
                listeners[i] = -1;
            }
        }
        if (v[0].revents && read(signals, &info, sizeof info) < 0)
            give_up("signals");
    }
    return true;
}

/* ---- commands ---- */
static _Noreturn void become(const char *const *argv, int door, bool filtered)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(out_file, 1);
    dup2(err_file, 2);
    dup2(door, LISTENER_DOOR);
    dup2(null, CALLERS_FILE); /* stays open for whoever does not close it */
    if (filtered)
        install_filter();
    close(LISTENER_DOOR);
    syscall(SYS_close_range, 3u, CALLERS_FILE - 1u, CLOSE_RANGE_CLOEXEC);
    syscall(SYS_close_range, CALLERS_FILE + 1u, ~0u, CLOSE_RANGE_CLOEXEC);
    execv(argv[0], (char **)(uintptr_t)argv);
    _exit(126);
}

/* Runs `shoal oci ARGS`; false: it does not end. */
static bool run_command(bool filtered, const char *a, const char *b, const char *c, const char *d, const char *f)
{
    const char *argv[] = { program, "oci", "--root", state_root, a, b, c, d, f, NULL };
    int door[2];
    struct err e;
    if (ftruncate(err_file, 0) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, door) < 0)
        give_up("prepare a command");
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0)
        become(argv, door[1], filtered);
    close(door[1]);
    command = pid;
    if (filtered) {
        unsigned n = 1;
        char byte;
        n_processes = 0;
        counting = false;
        if (n_listeners == LISTENERS_MAX || fd_recv_with_fds(door[0], &byte, 1, &listeners[n_listeners], &n, &e) != 1 || n != 1)
            give_up("the filter's listener");
        n_listeners++;
    }
    close(door[0]);
    return serve(false);
}

static bool succeeded(void)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* What failed says why, in its own words. */
static void judge_failure(const char *what)
{
    char said[TEXT_MAX_BYTES];
    read_fd(err_file, said);
    if (succeeded())
        return;
    if (!fault.call)
        complain("%s fails without a fault: %s", what, said);
    n_refused++;
    if (verbose)
        printf("        %s:%s:%u:%u %s: %s", verb_names[fault.verb], mode_names[fault.mode], fault.process, fault.call,
               fault.what ? fault.what->name : "", said);
    if (fault.mode == KILL && fault.process == 0)
        return;
    if (WIFSIGNALED(status))
        complain("%s died of signal %d: %s", what, WTERMSIG(status), said);
    else if (!strstr(said, "shoal oci: ") || strstr(said, "Success"))
        complain("%s failed with status %d and said: \"%s\"", what, WEXITSTATUS(status), said);
}

/* ---- what is left ---- */
static DIR *open_folder(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        complain("%s cannot be looked at: %s", path, strerror(errno));
    return d;
}

static bool is_empty(const char *dir, char left[256])
{
    DIR *d = open_folder(dir);
    left[0] = '\0';
    for (struct dirent *x; d && (x = readdir(d));)
        if (x->d_name[0] != '.' && !left[0])
            snprintf(left, 256, "%s", x->d_name);
    if (d)
        closedir(d);
    return !left[0];
}

static void check_group(const char *path)
{
    if (!file_exists(path))
        return;
    complain("the control group %s is left", path);
    if (rmdir(path) < 0) /* the next one begins anew */
        complain("and cannot be removed: %s", strerror(errno));
}

static void check_groups(void)
{
    char path[512];
    DIR *d = open_folder("/sys/fs/cgroup");
    for (struct dirent *x; d && (x = readdir(d));) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s/c", x->d_name, group);
        if (x->d_name[0] != '.')
            check_group(path);
    }
    if (d)
        closedir(d);
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/c", group); /* version 2 */
    check_group(path);
}

/* The first line that is another. */
static const char *first_difference(const char *now, const char *was)
{
    static char text[1024];
    size_t line = 0;
    for (size_t i = 0; now[i] && now[i] == was[i]; i++)
        line = now[i] == '\n' ? i + 1 : line;
    snprintf(text, sizeof text, "\"%.*s\", without the fault \"%.*s\"", (int)strcspn(now + line, "\n"), now + line,
             (int)strcspn(was + line, "\n"), was + line);
    return text;
}

/* Each mount there is was there before, the same. One that is gone may be another program's: a kernel takes a mount away in
 * every namespace when the name below it goes. */
static void check_mounts(void)
{
    char now[TEXT_MAX_BYTES];
    read_path("/proc/self/mountinfo", now);
    for (char *line = now, *next; *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = '\0';
        const char *was = strstr(mounts, line);
        if (!was || (was != mounts && was[-1] != '\n'))
            complain("a mount is left, or changed: %s", line);
    }
    read_path("/proc/self/mountinfo", mounts);
}

static void check_host(void)
{
    char left[256], name[256];
    struct err e;
    check_mounts();
    check_groups();
    AUTO_FREE char *box = path_join(state_root, "box");
    if (!is_empty(state_root, left))
        complain("its folder is left: %s/%s", state_root, left);
    if (file_remove_tree(box, &e) < 0) /* the next one begins anew */
        give_up(e.text);
    if (gethostname(name, sizeof name) < 0 || !str_equal(name, host_name))
        complain("the host has another name: %s", name);
}

static void kill_left(void)
{
    AUTO_FREE char *path = xasprintf("/proc/self/task/%d/children", getpid());
    char text[TEXT_MAX_BYTES];
    read_path(path, text);
    for (char *p = text, *end;; p = end) {
        long pid = strtol(p, &end, 10);
        if (end == p)
            break;
        kill((pid_t)pid, SIGKILL);
    }
}

static void check_processes(void)
{
    if (serve(true))
        return;
    complain("processes are left");
    kill_left();
    if (!serve(true))
        give_up("processes that cannot be killed");
}

/* ---- one container ---- */
static void forget(void)
{
    for (unsigned i = 0; i < n_listeners; i++)
        if (listeners[i] >= 0)
            close(listeners[i]);
    n_listeners = 0;
    n_processes = 0;
}

static bool finishes(bool filtered, const char *verb, bool forced)
{
    bool made = str_equal(verb, "create") || str_equal(verb, "run");
    bool ended = made     ? run_command(filtered, verb, "--bundle", base, "box", NULL)
                 : forced ? run_command(filtered, verb, "--force", "box", NULL, NULL)
                          : run_command(filtered, verb, "box", NULL, NULL, NULL);
    if (!ended) {
        complain("%s does not end", verb);
        kill_left();
        serve(false);
    }
    return ended;
}

/* Where nothing was faulted. */
static void plain(const char *verb, bool forced)
{
    char said[TEXT_MAX_BYTES];
    if (!finishes(false, verb, forced))
        return;
    read_fd(err_file, said);
    if (!succeeded())
        complain("%s afterwards fails: %s", verb, said);
}

static void check_view(void)
{
    char now[TEXT_MAX_BYTES], *view = views[fault.verb];
    read_fd(out_file, now);
    n_worked++;
    if (!fault.call)
        memcpy(view, now, TEXT_MAX_BYTES);
    else if (!str_equal(view, now) && !(fault.mode == KILL && fault.process != 0)) /* what has no output was killed, too */
        complain("the container runs and is another: %s", first_difference(now, view));
}

static void check_removed(const char *verb)
{
    char left[256], said[TEXT_MAX_BYTES];
    read_fd(err_file, said);
    if (!is_empty(state_root, left) && !said[0])
        complain("%s left its folder and did not say so", verb);
}

/* Up to the faulted verb; then it; then what a caller does about it. */
static void one_container(void)
{
    bool works = true, removed = false;
    char left[256];
    if (ftruncate(out_file, 0) < 0)
        give_up("truncate");
    fault.what = NULL;
    if (fault.verb == START || fault.verb == DELETE)
        plain("create", false);
    if (fault.verb == DELETE) {
        plain("start", false);
        serve(true);
    }
    if (!finishes(true, verb_names[fault.verb], false))
        works = false;
    judge_failure(verb_names[fault.verb]);
    works &= succeeded();
    if (fault.verb == CREATE && !works && !(fault.mode == KILL && fault.process == 0) && !is_empty(state_root, left))
        complain("create failed and left its folder");
    if (fault.verb == CREATE && works) {
        works = finishes(false, "start", false);
        judge_failure("start");
        works &= succeeded();
    }
    if (works && (fault.verb == RUN || fault.verb == DELETE)) /* what could not be removed is said */
        check_removed(verb_names[fault.verb]);
    if (fault.verb == DELETE)
        removed = works;
    else if (works && serve(true)) /* to its end */
        check_view();
    if (works && !removed && fault.verb != RUN)
        plain("delete", false);
    else
        plain("delete", true);
    check_processes();
    check_host();
    forget();
}

/* ---- all of them ---- */
static unsigned stride = 1, offset;

static void fault_at(enum verb verb, enum mode mode, unsigned process, unsigned call)
{
    fault = (struct fault){ .verb = verb, .mode = mode, .process = process, .call = call };
    one_container();
    n_faults += fault.what != NULL;
}

/* Calls of one process, until one is not reached any more. */
static void all_of_process(enum verb verb, enum mode mode, unsigned process)
{
    static unsigned at;
    for (unsigned call = 1; call < CALLS_MAX; call++) {
        bool over = call > counts[verb][process];
        if (at++ % stride != offset % stride && !over)
            continue;
        fault_at(verb, mode, process, call);
        if (over && !fault.what)
            return;
    }
    complain("more than %d calls", CALLS_MAX);
}

/* The processes below the command are the same in `run` as in `create`; `start` and `delete` have none. */
static void all_of_verb(enum verb verb)
{
    int64_t begin = clock_mono_ns();
    unsigned before = n_faults, n = 0, calls = 0;
    fault = (struct fault){ .verb = verb };
    one_container();
    while (n < PROCESSES_MAX && counts[verb][n])
        n++;
    if (!n)
        complain("no call was seen");
    for (unsigned p = 0; p < (verb == CREATE ? n : 1); p++) {
        for (int mode = 0; mode < N_MODES; mode++)
            all_of_process(verb, (enum mode)mode, p);
        calls += counts[verb][p];
    }
    printf("%s: %u calls, %u faults, %.1f s\n", verb_names[verb], calls, n_faults - before,
           (double)(clock_mono_ns() - begin) / SEC_NS);
    fflush(stdout);
}

static void only(const char *text)
{
    char verb[16] = "", mode[16] = "";
    unsigned process, call, v = 0, m = 0;
    if (sscanf(text, "%15[a-z]:%15[a-z]:%u:%u", verb, mode, &process, &call) != 4)
        give_up("--only VERB:error|kill:PROCESS:CALL");
    while (v < N_VERBS && !str_equal(verb, verb_names[v]))
        v++;
    while (m < N_MODES && !str_equal(mode, mode_names[m]))
        m++;
    if (v == N_VERBS || m == N_MODES)
        give_up("--only: no such verb or mode");
    fault = (struct fault){ .verb = (enum verb)v };
    one_container();
    fault_at((enum verb)v, (enum mode)m, process, call);
    printf("%s\n", fault.what ? fault.what->name : "not reached");
}

/* ---- the bundle ---- */
/* What the runtime was asked for, as the container sees it; what differs from run to run is cut out. */
static const char script[] =
    "grep -E '^(Uid|Gid|Groups|Sig[BI]|Cap|NoNew|Seccomp)' /proc/self/status; "
    "sed -E 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ [^ ]+ //; s/(master|shared|propagate_from):[0-9]+/\\\\1/' /proc/self/mountinfo; "
    "cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup; hostname; id; pwd; umask; env | sort; ls /proc/$$/fd; "
    "ls -ln /dev | awk '{ print $1, $3, $4, $5, $6, $NF }'; cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; "
    "cat /proc/sys/net/ipv4/ip_forward; for n in mnt pid ipc uts net cgroup; do case \\\"$HOST\\\" in *$(readlink /proc/self/ns/$n)*) echo host $n;; esac; done";

static const char config[] =
    "{ \"ociVersion\": \"1.0.2\", \"hostname\": \"box\", \"root\": { \"path\": \"rootfs\", \"readonly\": true },\n"
    "\"process\": { \"args\": [\"/bin/sh\", \"-c\", \"%s\"], \"cwd\": \"/tmp\", \"user\": { \"uid\": 0, \"gid\": 0, \"additionalGids\": [5, 6] },\n"
    "  \"env\": [\"PATH=/bin\", \"HOST=%s\"], \"noNewPrivileges\": false, \"oomScoreAdj\": 100,\n"
    "  \"rlimits\": [{ \"type\": \"RLIMIT_NOFILE\", \"soft\": 512, \"hard\": 1024 }],\n"
    "  \"capabilities\": { \"bounding\": [\"CAP_CHOWN\", \"CAP_KILL\"], \"permitted\": [\"CAP_CHOWN\", \"CAP_KILL\"],\n"
    "    \"effective\": [\"CAP_KILL\"], \"inheritable\": [\"CAP_KILL\"], \"ambient\": [\"CAP_KILL\"] } },\n"
    "\"mounts\": [ { \"destination\": \"/proc\", \"type\": \"proc\" },\n"
    "  { \"destination\": \"/dev\", \"type\": \"tmpfs\", \"options\": [\"nosuid\", \"strictatime\", \"mode=755\"] },\n"
    "  { \"destination\": \"/dev/pts\", \"type\": \"devpts\", \"options\": [\"nosuid\", \"noexec\", \"newinstance\", \"ptmxmode=0666\"] },\n"
    "  { \"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"options\": [\"nosuid\", \"nodev\", \"mode=1777\"] },\n"
    "  { \"destination\": \"/dev/mqueue\", \"type\": \"mqueue\", \"options\": [\"nosuid\", \"noexec\", \"nodev\"] },\n"
    "  { \"destination\": \"/sys\", \"type\": \"sysfs\", \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"ro\"] },\n"
    "  { \"destination\": \"/sys/fs/cgroup\", \"type\": \"cgroup\", \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"ro\"] },\n"
    "  { \"destination\": \"/tmp\", \"type\": \"tmpfs\", \"options\": [\"size=64k\"] },\n"
    "  { \"destination\": \"/data\", \"type\": \"bind\", \"source\": \"%s/data\", \"options\": [\"rbind\", \"ro\", \"nosuid\"] } ],\n"
    "\"hooks\": { \"createRuntime\": [{ \"path\": \"/bin/busybox\", \"args\": [\"busybox\", \"true\"] }],\n"
    "  \"createContainer\": [{ \"path\": \"/bin/busybox\", \"args\": [\"busybox\", \"true\"] }] },\n"
    "\"linux\": { \"cgroupsPath\": \"/%s/c\", \"namespaces\": [ { \"type\": \"pid\" }, { \"type\": \"network\" }, { \"type\": \"ipc\" },\n"
    "    { \"type\": \"uts\" }, { \"type\": \"mount\" }, { \"type\": \"cgroup\" } ],\n"
    "  \"resources\": { \"devices\": [{ \"allow\": false, \"access\": \"rwm\" }], \"memory\": { \"limit\": 100000000 }, \"pids\": { \"limit\": 100 } },\n"
    "  \"sysctl\": { \"net.ipv4.ip_forward\": \"1\" },\n"
    "  \"maskedPaths\": [\"/proc/keys\", \"/proc/timer_list\", \"/sys/firmware\", \"/proc/absent\"],\n"
    "  \"readonlyPaths\": [\"/proc/bus\", \"/proc/sys\", \"/proc/absent\"],\n"
    "  \"seccomp\": { \"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{ \"names\": [\"reboot\"], \"action\": \"SCMP_ACT_ERRNO\" }] } } }\n";

static void write_config(void)
{
    static const char *const names[] = { "mnt", "pid", "ipc", "uts", "net", "cgroup" };
    char host[512] = "", link[64];
    struct err e;
    AUTO_FREE char *path = path_join(base, "config.json");
    for (unsigned i = 0; i < ARRAY_N(names); i++) {
        AUTO_FREE char *from = path_join("/proc/self/ns", names[i]);
        ssize_t n = readlink(from, link, sizeof link);
        snprintf(host + strlen(host), sizeof host - strlen(host), "%.*s ", (int)MAX(n, 0), link);
    }
    AUTO_FREE char *text = xasprintf(config, script, host, base, group);
    if (file_write_volatile(path, text, strlen(text), 0600, &e) < 0)
        give_up(e.text);
}

static void setup(void)
{
    struct err e;
    snprintf(base, sizeof base, "/tmp/shoal-faults-%d", getpid());
    snprintf(group, sizeof group, "shoal-faults-%d", getpid());
    snprintf(state_root, sizeof state_root, "%s/state", base);
    AUTO_FREE char *cmd = xasprintf("set -e; r=%s/rootfs; mkdir -p %s %s/data; for d in bin proc sys dev tmp data; do mkdir -p $r/$d; done; cp /bin/busybox $r/bin/; "
                                    "for x in sh grep sed cat hostname id env sort ls awk wc readlink; do ln -s busybox $r/bin/$x; done",
                                    base, state_root, base);
    const char *argv[] = { "sh", "-c", cmd, NULL };
    if (proc_run(argv, NULL, &e) != 0)
        give_up("make the bundle (is busybox-static installed?)");
    /* A namespace whose mounts only this program and the runtime change, and which a container's would reach if it did not part. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0)
        give_up("mount namespace");
    AUTO_FREE char *data = path_join(base, "data");
    if (mount("tmpfs", data, "tmpfs", MS_NODEV | MS_NOEXEC, "size=64k") < 0) /* a bind of it must keep that */
        give_up("mount");
    read_path("/proc/self/mountinfo", mounts);
    gethostname(host_name, sizeof host_name);
    out_file = memfd_create("out", MFD_CLOEXEC);
    err_file = memfd_create("err", MFD_CLOEXEC);
    fcntl(out_file, F_SETFL, O_APPEND);
    fcntl(err_file, F_SETFL, O_APPEND);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* what loses its parent is ours to see */
}

static void teardown(void)
{
    struct err e;
    char path[512];
    DIR *d = opendir("/sys/fs/cgroup");
    for (struct dirent *x; d && (x = readdir(d));) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", x->d_name, group);
        rmdir(path);
    }
    if (d)
        closedir(d);
    AUTO_FREE char *data = path_join(base, "data");
    int r = umount2(data, MNT_DETACH) < 0 ? err_errno(&e, errno, "umount %s", data) : file_remove_tree(base, &e);
    if (r < 0)
        complain("%s", e.text);
}

int main(int argc, char **argv)
{
    const char *from = getenv("SHOAL_PLAIN") ? getenv("SHOAL_PLAIN") : getenv("SHOAL_BUILD"), *one = NULL;
    snprintf(program, sizeof program, "%s/shoal", from ? from : ".");
    for (int i = 1; i < argc; i++) {
        if (str_equal(argv[i], "--verbose"))
            verbose = true;
        else if (str_equal(argv[i], "--stride") && i + 1 < argc)
            stride = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (str_equal(argv[i], "--offset") && i + 1 < argc)
            offset = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (str_equal(argv[i], "--only") && i + 1 < argc)
            one = argv[++i];
        else
            return fputs("test_runtime_faults [--stride N [--offset M]] [--only VERB:error|kill:PROCESS:CALL] [--verbose]\n", stderr), 2;
    }
    stride = MAX(stride, 1u);
    if (geteuid() != 0)
        return fputs("needs root\n", stderr), 77;
    setup();
    write_config();
    if (one)
        only(one);
    for (int v = 0; v < N_VERBS && !one; v++)
        all_of_verb((enum verb)v);
    teardown();
    printf("%u faults: %u times a command failed, %u times the container ran as asked for; %u failures\n", n_faults, n_refused,
           n_worked, n_failures);
    return n_failures != 0;
}
