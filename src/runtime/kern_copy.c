/* Reading and writing the files of a container from outside (cp, export, diff): a process of its own for each request,
 * forked by the spawner. It reaches the container's files only through a descriptor of its root and openat2 with
 * RESOLVE_IN_ROOT, so that neither links nor races lead out of it (CVE-2018-15664), runs nothing and loads nothing of
 * the container (CVE-2019-14271), and keeps only the capabilities that reading and writing files of any owner needs.
 * Of a running container the root is the one its own process sees, with volumes and tmpfs; of one that does not run it
 * is mounted here, in a mount namespace that ends with this process. */
#include "copy_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <locale.h>
#include <sched.h>
#include <shoal/base/archive.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPEC_MAX_BYTES = 64 << 20, SOCK_FD = 3, FILES_MAX = 4096 };

int copy_clean_name(const char *name, char **ret, struct err *e)
{
    struct sb b;
    sb_init(&b, 0);
    for (const char *p = name; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            sb_done(&b);
            return err_set(e, E_INVALID, "archive entry \"%.300s\" leads upwards", name);
        }
        if (n && !(n == 1 && *p == '.')) {
            sb_str(&b, b.len ? "/" : "");
            sb_add(&b, p, n);
        }
        p += n + (p[n] == '/');
    }
    *ret = sb_take(&b);
    return 0;
}

static int refuse_with(int sock, const struct err *e)
{
    AUTO_FREE char *line = xasprintf("E %d %s\n", e->code, e->text);
    for (char *p = line; *p; p++)
        if (*p == '\n' && p[1])
            *p = ' ';
    return fd_write_all(sock, line, strlen(line), NULL);
}

/* ---- the root ---- */
static int root_of_running(struct copy *c, struct err *e)
{
    char path[64];
    pid_t pid = (pid_t)c->q.pid;
    snprintf(path, sizeof path, "/proc/%d/root", pid);
    c->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int error = errno;
    if (process_start_id(pid) != c->q.start_id) /* asked after the open: the number is not another's */
        return err_set(e, E_CONFLICT, "the container has just ended; try again");
    return c->root < 0 ? err_errno(e, error, "the root of the container") : 0;
}

static int bind_volume(const struct copy *c, const struct container_mount *m, struct err *e)
{
    char from[64], to[64];
    AUTO_CLOSE int source = open(m->source, O_PATH | O_CLOEXEC), target = root_open_in(c->root, m->target, O_PATH);
    if (source < 0 || target < 0) /* never started: there is no such place yet */
        return 0;
    snprintf(from, sizeof from, "/proc/self/fd/%d", source);
    snprintf(to, sizeof to, "/proc/self/fd/%d", target);
    if (mount(from, to, NULL, MS_BIND, NULL) < 0)
        return err_errno(e, errno, "bind on %s", m->target);
    AUTO_CLOSE int top = root_open_in(c->root, m->target, O_PATH);
    snprintf(to, sizeof to, "/proc/self/fd/%d", top);
    if (top < 0 || mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_NODEV | MS_NOSUID | (m->read_only ? MS_RDONLY : 0), NULL) < 0)
        return err_errno(e, errno, "flags of %s", m->target);
    return 0;
}

/* Both until this process ends. Copies wait for each other, a start waits for a copy, none for longer than ROOT_WAIT_MS; but
 * no copy waits for the end of what was started before its turn came. */
static int lock_root(const struct copy *c, struct err *e)
{
    AUTO_FREE char *work = path_join(c->q.dir, "work");
    int r = root_lock(work, ROOT_WAIT_MS, e);
    if (r == -E_BUSY)
        return err_set(e, E_CONFLICT, "another copy, export or upload of this container's files is going on; end it, or try again when it is over");
    if (r >= 0)
        r = root_lock(c->q.dir, 0, e);
    return r == -E_BUSY ? err_set(e, E_CONFLICT, "the container has just been started; try again") : MIN(r, 0);
}

static int root_of_stopped(struct copy *c, struct err *e)
{
    AUTO_FREE char *merged = path_join(c->q.dir, "merged");
    int locked = lock_root(c, e);
    if (locked < 0)
        return locked;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_errno(e, errno, "part from the host's mounts");
    int r = root_mount_overlay(&c->spec, c->q.dir, e);
    if (r < 0)
        return r;
    if (c->spec.read_only && mount(NULL, merged, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL) < 0)
        return err_errno(e, errno, "make the root read-only");
    c->root = open(merged, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (c->root < 0)
        return err_errno(e, errno, "%s", merged);
    for (uint32_t i = 0; i < c->spec.mounts.n && r == 0 && c->q.op != COPY_EXPORT; i++)
        if (c->spec.mounts.v[i].type == CONTAINER_BIND)
            r = bind_volume(c, &c->spec.mounts.v[i], e);
    return r;
}

static int drop_rights(enum copy_op op, struct err *e)
{
    static const unsigned kept[] = { CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP, CAP_MKNOD };
    struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct d[2] = { 0 };
    uint32_t caps = op == COPY_CHANGES ? 1u << CAP_SYS_ADMIN : 0; /* reads overlayfs' own marks */
    for (unsigned i = 0; i < ARRAY_N(kept); i++)
        if (kept[i] < 32)
            caps |= 1u << kept[i];
    d[0].effective = d[0].permitted = caps;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capset, &h, d) < 0)
        return err_errno(e, errno, "drop rights");
    return 0;
}

/* ---- one path ---- */
/* Go's FileMode. */
static uint32_t go_mode(mode_t m)
{
    uint32_t r = m & 0777;
    r |= S_ISDIR(m) ? 1u << 31 : S_ISLNK(m) ? 1u << 27 : S_ISFIFO(m) ? 1u << 25 : S_ISSOCK(m) ? 1u << 24 : 0;
    r |= S_ISBLK(m) ? 1u << 26 : S_ISCHR(m) ? 1u << 26 | 1u << 21 : 0;
    return r | (m & S_ISUID ? 1u << 23 : 0) | (m & S_ISGID ? 1u << 22 : 0) | (m & S_ISVTX ? 1u << 20 : 0);
}

/* Where it is: the folder it is in, and its name there ("." for a path that ends with "/.", or the root). */
struct spot { int parent; char *dir, *base, *shown; };

static int find_spot(const struct copy *c, struct spot *s, struct err *e)
{
    const char *path = c->q.path && *c->q.path ? c->q.path : "/";
    size_t n = strlen(path);
    bool dot = n >= 2 && str_equal(path + n - 2, "/."), slash = path[n - 1] == '/';
    while (n > 0 && (path[n - 1] == '/' || (path[n - 1] == '.' && n > 1 && path[n - 2] == '/')))
        n--;
    size_t skip = strspn(path, "/"); /* absolute or not: it is below the root */
    AUTO_FREE char *bare = n > skip ? xstrndup(path + skip, n - skip) : xstrdup("");
    const char *last = strrchr(bare, '/');
    const char *name = last ? last + 1 : bare;
    bool whole = !*name || str_equal(name, "..") || str_equal(name, ".");
    if (whole || dot || slash) { /* the folder itself, through links */
        s->dir = xasprintf("/%s", bare);
        s->base = xstrdup(".");
        s->shown = xstrdup(whole && !*name ? "/" : dot || whole ? "." : name);
    } else {
        s->dir = last ? xasprintf("/%.*s", (int)(last - bare), bare) : xstrdup("/");
        s->base = xstrdup(name);
        s->shown = xstrdup(name);
    }
    s->parent = root_open_in(c->root, s->dir, O_PATH);
    struct stat st;
    if (s->parent < 0 || fstatat(s->parent, str_equal(s->base, ".") ? "" : s->base, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
        return err_set(e, errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? E_NOT_FOUND : E_IO, "Could not find the file %.400s in container %.64s",
                       path, c->spec.id);
    if (slash && !S_ISDIR(st.st_mode))
        return err_set(e, E_INVALID, "%.400s in the container is no folder", path);
    if (!S_ISDIR(st.st_mode) && str_equal(s->base, ".")) /* "/." behind a file */
        return err_set(e, E_INVALID, "%.400s in the container is no folder", path);
    return 0;
}

static int stat_line(const struct copy *c, const struct spot *s, struct err *e)
{
    char link[4096] = "", time[40];
    struct stat st;
    AUTO_SB struct sb b = { 0 };
    if (fstatat(s->parent, str_equal(s->base, ".") ? "" : s->base, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
        return err_errno(e, errno, "%.400s", c->q.path);
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlinkat(s->parent, s->base, link, sizeof link - 1);
        link[MAX(n, 0)] = '\0';
    }
    AUTO_FREE char *target = *link && *link != '/' ? xasprintf("%s/%s", str_equal(s->dir, "/") ? "" : s->dir, link) : xstrdup(link);
    time_format(time, st.st_mtim.tv_sec * SEC_NS + st.st_mtim.tv_nsec);
    sb_init(&b, 64 << 10);
    sb_str(&b, "{\"name\":");
    sb_json_str(&b, s->shown, strlen(s->shown));
    sb_printf(&b, ",\"size\":%lld,\"mode\":%u,\"mtime\":\"%s\",\"linkTarget\":", (long long)st.st_size, go_mode(st.st_mode), time);
    sb_json_str(&b, target, strlen(target));
    sb_str(&b, "}\n");
    return fd_write_all(c->sock, b.s, b.len, e);
}

/* The first line is out, so it cannot say what went wrong. The daemon's byte stays unread: by that the stream breaks. */
static _Noreturn void break_off(const struct err *e)
{
    fprintf(stderr, "shoal-copy: %s\n", e->text);
    _exit(1);
}

static int look_or_read(const struct copy *c, struct err *e)
{
    struct spot s = { .parent = -1 };
    int r = find_spot(c, &s, e);
    if (r == 0)
        r = stat_line(c, &s, e);
    if (r == 0 && c->q.op == COPY_OUT && tar_out(c, s.parent, s.base, s.shown, false, e) < 0)
        break_off(e);
    return r;
}

static int serve(const struct copy *c, struct err *e)
{
    if (c->q.op == COPY_STAT || c->q.op == COPY_OUT)
        return look_or_read(c, e);
    if (c->q.op == COPY_IN)
        return tar_in(c, e);
    if (c->q.op == COPY_CHANGES)
        return changes_out(c, e);
    int r = fd_write_all(c->sock, "\n", 1, e);
    if (r == 0 && tar_out(c, c->root, ".", "", true, e) < 0)
        break_off(e);
    return r;
}

static int read_spec(struct copy *c, struct err *e)
{
    AUTO_FREE char *path = path_join(c->q.dir, "spec.mp"), *text = NULL;
    size_t n;
    int r = file_read(path, SPEC_MAX_BYTES, &text, &n, e);
    return r < 0 ? r : rec_unpack(&container_spec_rec, &c->spec, text, n, e);
}

/* A socket closed with something unread breaks. So what still comes in is read to its end, or the verdict may be lost; and
 * of what goes out the daemon's one byte, last of all: a process that died before left it. */
static void read_rest(const struct copy *c)
{
    static char rest[64 << 10];
    while (read(c->sock, rest, sizeof rest) > 0 && c->q.op == COPY_IN)
        ;
}

_Noreturn void copy_main(const void *request, size_t size, int sock)
{
    struct copy c = { .sock = SOCK_FD, .root = -1 };
    struct err e = { 0 };
    struct rlimit files = { FILES_MAX, FILES_MAX };
    prctl(PR_SET_NAME, "shoal-copy", 0, 0, 0);
    if (sock != SOCK_FD && dup2(sock, SOCK_FD) < 0)
        _exit(1);
    syscall(SYS_close_range, (unsigned)SOCK_FD + 1, ~0u, 0u);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    setrlimit(RLIMIT_NOFILE, &files);
    umask(0);
    uselocale(newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0)); /* names in archives are bytes or UTF-8 */
    int r = rec_unpack(&copy_request_rec, &c.q, request, size, &e);
    if (r == 0 && c.q.op != COPY_STAT && c.q.op != COPY_CHANGES)
        r = archive_load(&e); /* before anything of the container can be in its place */
    if (r == 0)
        r = read_spec(&c, &e);
    if (r == 0)
        r = c.q.op == COPY_CHANGES ? 0 : c.q.pid ? root_of_running(&c, &e) : root_of_stopped(&c, &e);
    if (r == 0)
        r = drop_rights(c.q.op, &e);
    if (r == 0)
        r = serve(&c, &e);
    if (r < 0 && refuse_with(c.sock, &e) < 0)
        _exit(1);
    read_rest(&c);
    _exit(0);
}
