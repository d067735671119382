/* Runs inside a test's container, static: says what a process there can see and do. One word an answer. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void said(const char *what, long r)
{
    printf("%s %s\n", what, r >= 0 ? "ok" : strerrorname_np(errno));
}

/* Every open descriptor and where it leads. */
static int fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *x; d && (x = readdir(d));) {
        char to[256];
        int fd = atoi(x->d_name);
        ssize_t n = readlinkat(dirfd(d), x->d_name, to, sizeof to - 1);
        if (x->d_name[0] == '.' || fd == dirfd(d) || n < 0)
            continue;
        to[n] = '\0';
        printf("%d %s\n", fd, to);
    }
    return 0;
}

static int calls(void)
{
    long args[8] = { 0 };
    said("clone3", syscall(SYS_clone3, args, sizeof args));
    said("unshare", syscall(SYS_unshare, 0x10000000));
    said("mount", mount("x", "/tmp", "tmpfs", 0, NULL));
    said("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    said("bpf", syscall(SYS_bpf, 0, NULL, 0));
    said("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    said("socket-alg", socket(38, SOCK_SEQPACKET, 0));
    said("socket-vsock", socket(40, SOCK_STREAM, 0));
    said("socket-inet", socket(AF_INET, SOCK_STREAM, 0));
    said("fchmodat2", syscall(452, -100, "/tmp", 0777, 0));
    said("unknown", syscall(599));
    said("io_uring", syscall(425, 1, args));
    return 0;
}

/* Can the program of process PID be opened for writing, or the one that starts us? */
static int exes(void)
{
    for (int pid = 1; pid < 40; pid++) {
        char path[64], what[64];
        struct stat st;
        snprintf(path, sizeof path, "/proc/%d/exe", pid);
        if (stat(path, &st) < 0)
            continue;
        int fd = open(path, O_RDONLY);
        if (fd >= 0) {
            char again[64];
            snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
            int w = open(again, O_WRONLY);
            snprintf(what, sizeof what, "exe-%d-write", pid);
            said(what, w);
            if (w >= 0)
                close(w);
            close(fd);
        }
    }
    return 0;
}

static void on_winch(int n)
{
    (void)n;
}

/* Says the size of its terminal, and again whenever it changes. */
static int tty(void)
{
    struct winsize w;
    struct sigaction sa = { .sa_handler = on_winch };
    sigset_t set, old;
    sigaction(SIGWINCH, &sa, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, &old);
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("tty %s %d\n", ttyname(0) ? ttyname(0) : strerrorname_np(errno), isatty(1));
    for (int i = 0; i < 2; i++) {
        if (ioctl(0, TIOCGWINSZ, &w) < 0)
            return 1;
        printf("size %dx%d\n", w.ws_row, w.ws_col);
        if (i == 0)
            sigsuspend(&old);
    }
    return 0;
}

/* Device nodes made here: on what this container has, and on a file system mounted with devices on. */
static int devices(const char *dir)
{
    char path[256];
    static const struct { const char *name; mode_t type; unsigned major, minor; } v[] = {
        { "null", S_IFCHR, 1, 3 }, { "mem", S_IFCHR, 1, 1 }, { "kmsg", S_IFCHR, 1, 11 }, { "loop", S_IFBLK, 7, 0 },
    };
    for (unsigned i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, v[i].name);
        if (mknod(path, v[i].type | 0600, makedev(v[i].major, v[i].minor)) < 0) {
            said(v[i].name, -1);
            continue;
        }
        said(v[i].name, open(path, O_RDONLY | O_NONBLOCK));
    }
    return 0;
}

/* Takes memory until there is none. */
static int eat(void)
{
    for (;;) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return 1;
        memset(p, 1, 1 << 20);
    }
}

static int wait_for_ever(void *arg)
{
    (void)arg;
    for (;;)
        pause();
}

/* So many processes; they share the memory, so that a small machine can hold them. */
static int many(int n)
{
    enum { STACK_BYTES = 4096 };
    char *stacks = mmap(NULL, (size_t)n * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < n; i++)
        if (stacks == MAP_FAILED || clone(wait_for_ever, stacks + (size_t)(i + 1) * STACK_BYTES, CLONE_VM | SIGCHLD, NULL) < 0)
            return 1;
    puts("many");
    fflush(stdout);
    return wait_for_ever(NULL);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "fds"))
        return fds();
    if (!strcmp(what, "calls"))
        return calls();
    if (!strcmp(what, "exes"))
        return exes();
    if (!strcmp(what, "tty"))
        return tty();
    if (!strcmp(what, "eat"))
        return eat();
    if (!strcmp(what, "devices") && argc == 3)
        return devices(argv[2]);
    if (!strcmp(what, "many") && argc == 3)
        return many(atoi(argv[2]));
    return 2;
}
