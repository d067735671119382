/* The end of control groups: signals to all that a container's groups hold, and their removal with the groups below them,
 * which its own processes may have made. They are walked by descriptors, and no link is followed.
 * Docs: cgroup-v2.rst, cgroup-v1/. */
#include "oci_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MEMBERS_MAX_BYTES = 64 << 20, /* as many as a kernel can have */
       DEPTH_MAX = 256,              /* a descriptor a level; groups below that keep the rest from being removed */
       KILL_LOOKS = 2000, KILL_LOOK_MS = 5 };

/* ---- walking ---- */
struct pids { int64_t *v; size_t n, cap; bool partial; }; /* partial: some group could not be read */
typedef void group_fn(const char *group, void *arg); /* group: a path to its folder, by a descriptor */

/* Whose groups, by name, and, unless NULL, by their numbers. */
struct whose { const char *parent, *id; const struct cgroup_own *own; };

enum found { NO_GROUP, GROUP, UNKNOWN }; /* the kernel did not say: ask again */

/* Folder and controller of the i-th group. */
static enum found find_group(unsigned i, const struct whose *w, char folder[512], const char **ret_controller)
{
    struct stat st;
    *ret_controller = cgroup_folder(i, w->parent, w->id, folder);
    if (!*ret_controller)
        return NO_GROUP;
    if (stat(folder, &st) < 0)
        return errno == ENOENT ? NO_GROUP : UNKNOWN;
    return w->own && st.st_ino != w->own->inode[i] ? NO_GROUP : GROUP;
}

static int open_group(unsigned i, const struct whose *w)
{
    char folder[512];
    const char *controller;
    return find_group(i, w, folder, &controller) == GROUP ? open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
}

/* The next group in a folder, with its name until the next call; -1: no more. */
static int next_below(DIR *d, const char **ret_name)
{
    for (struct dirent *x; (x = readdir(d));) {
        if (x->d_type != DT_DIR || str_equal(x->d_name, ".") || str_equal(x->d_name, ".."))
            continue;
        int fd = openat(dirfd(d), x->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        *ret_name = x->d_name;
        if (fd >= 0)
            return fd;
    }
    return -1;
}

/* Takes dir. */
static DIR *enter(int dir, unsigned depth)
{
    DIR *d = depth < DEPTH_MAX ? fdopendir(dir) : NULL;
    if (!d)
        close(dir);
    return d;
}

/* Calls fn for a group, then for those below. Takes dir. */
static void walk(int dir, unsigned depth, group_fn *fn, void *arg)
{
    char group[32];
    const char *name;
    snprintf(group, sizeof group, "/proc/self/fd/%d", dir);
    fn(group, arg);
    DIR *d = enter(dir, depth);
    for (int below; d && (below = next_below(d, &name)) >= 0;)
        walk(below, depth + 1, fn, arg);
    if (d)
        closedir(d);
}

/* Takes dir. False: there are still some. */
static bool remove_below(int dir, unsigned depth)
{
    const char *name;
    DIR *d = enter(dir, depth);
    bool gone = d != NULL;
    for (int below; d && (below = next_below(d, &name)) >= 0;) {
        gone &= remove_below(below, depth + 1);
        gone &= unlinkat(dirfd(d), name, AT_REMOVEDIR) == 0 || errno == ENOENT;
    }
    if (d)
        closedir(d);
    return gone;
}

/* ---- members ---- */
static void add_members(const char *group, void *arg)
{
    struct pids *p = arg;
    AUTO_FREE char *path = path_join(group, "cgroup.procs"), *text = NULL;
    size_t size;
    int r = file_read(path, MEMBERS_MAX_BYTES, &text, &size, NULL);
    if (r < 0) { /* a group of threads is not asked: the group above it has their processes */
        p->partial |= r != -E_UNSUPPORTED;
        return;
    }
    for (char *at = text, *end; *at; at = *end ? end + 1 : end) {
        long long pid = strtoll(at, &end, 10);
        if (end == at)
            break;
        if (p->n == p->cap)
            p->v = xrealloc(p->v, p->cap = p->cap ? 2 * p->cap : 64, sizeof *p->v);
        p->v[p->n++] = pid;
    }
}

static void collect(unsigned i, const struct whose *w, struct pids *p)
{
    int dir = open_group(i, w);
    p->n = 0;
    p->partial = dir < 0;
    if (dir >= 0)
        walk(dir, 0, add_members, p);
}

int64_t *cgroup_pids(const char *parent, const char *id, const struct cgroup_own *own, size_t *ret_n)
{
    const struct whose w = { parent, id, own };
    struct pids p = { 0 };
    char folder[512];
    const char *controller;
    unsigned i = 0;
    while (i < CGROUP_FOLDERS_MAX && find_group(i, &w, folder, &controller) != GROUP)
        i++;
    collect(i, &w, &p); /* of each controller's the first: they have the same */
    *ret_n = p.n;
    return p.v;
}

static void signal_each(const struct pids *p, int signum)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i] > 1)
            kill((pid_t)p->v[i], signum);
}

struct switch_file { const char *name, *stop, *go; };

static void let_go(const char *group, void *arg)
{
    const struct switch_file *f = arg;
    AUTO_FREE char *path = path_join(group, f->name);
    if (file_poke(path, f->go, NULL) < 0)
        return;
}

/* SIGKILL to all in the i-th controller's group and below; how many there were, or may have been. Where the kernel does not kill a group at
 * once they are stopped meanwhile, or those that fork would be elsewhere each time one looks. */
static size_t kill_members(unsigned i, const struct whose *w)
{
    static struct switch_file v1 = { "freezer.state", "FROZEN", "THAWED" }, v2 = { "cgroup.freeze", "1", "0" };
    char folder[512];
    struct pids p = { 0 };
    const char *controller;
    enum found found = find_group(i, w, folder, &controller);
    if (found != GROUP)
        return found == UNKNOWN;
    struct switch_file *f = !*controller ? &v2 : str_equal(controller, "freezer") ? &v1 : NULL;
    collect(i, w, &p);
    size_t n = p.n ? p.n : p.partial;
    AUTO_FREE char *at_once = path_join(folder, "cgroup.kill"), *state = path_join(folder, f ? f->name : "");
    if (p.n && (f != &v2 || file_poke(at_once, "1", NULL) < 0)) {
        if (f && file_poke(state, f->stop, NULL) == 0)
            collect(i, w, &p);
        signal_each(&p, SIGKILL);
        int dir = f ? open_group(i, w) : -1;
        if (dir >= 0) /* in version 1 what is frozen does not even die, and groups below are frozen on their own */
            walk(dir, 0, let_go, f);
    }
    free(p.v);
    return n;
}

int cgroup_signal(const char *parent, const char *id, const struct cgroup_own *own, int signum, struct err *e)
{
    const struct whose w = { parent, id, own };
    if (signum != SIGKILL) {
        struct pids p = { 0 };
        p.v = cgroup_pids(parent, id, own, &p.n);
        signal_each(&p, signum);
        free(p.v);
        return 0;
    }
    for (int look = 0; look < KILL_LOOKS; look++) {
        size_t n = 0;
        for (unsigned i = 0; i < CGROUP_FOLDERS_MAX; i++)
            n += kill_members(i, &w);
        if (!n)
            return 0;
        poll(NULL, 0, KILL_LOOK_MS); /* the kernel lets the last member go in its own time */
    }
    return err_set(e, E_BUSY, "processes in the control group %s/%s do not end, they may wait for a disk; try again", parent, id);
}

/* ---- removal ---- */
static bool remove_one(unsigned i, const struct whose *w)
{
    char folder[512];
    const char *controller;
    enum found found = find_group(i, w, folder, &controller);
    if (found != GROUP)
        return found == NO_GROUP;
    if (rmdir(folder) == 0) /* nothing in it, as mostly */
        return true;
    if (kill_members(i, w))
        return false;
    int dir = open_group(i, w);
    if (dir >= 0 && !remove_below(dir, 0))
        return false;
    return rmdir(folder) == 0 || errno == ENOENT;
}

bool cgroup_remove(const char *parent, const char *id, const struct cgroup_own *own)
{
    const struct whose w = { parent, id, own };
    bool gone = true;
    for (unsigned i = 0; i < CGROUP_FOLDERS_MAX; i++)
        gone &= remove_one(i, &w);
    return gone;
}
