/* Control groups of containers: PARENT/ID below the root of the unified hierarchy (v2), or of each v1
 * controller that is mounted. Only groups of ours are touched. Limits that no mounted controller can hold
 * are refused, not ignored. Docs: cgroup-v2.rst, cgroup-v1/. */
#include "oci_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define ROOT "/sys/fs/cgroup"
enum { CGROUP2_MAGIC = 0x63677270, CPU_PERIOD_US = 100000, MAKE_TRIES = 10, STALE_LOOKS = 200, STALE_LOOK_MS = 5 };
/* From FIRST_OPTIONAL on: groups are there only when a limit of an OCI bundle wants them. */
static const char *const v1_controllers[] = { "memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio",
                                              "cpuset", "hugetlb", "net_cls", "net_prio", "rdma" };
enum { FIRST_OPTIONAL = 7 };

static bool is_absent(int error)
{
    return error == ENOENT || error == ENOTDIR;
}

/* Both are asked again and again, and stay what they were at boot: looked at once. */
static bool is_v2(void)
{
    static int known; /* 1 version 1, 2 version 2 */
    struct statfs s;
    if (!known && statfs(ROOT, &s) == 0)
        known = s.f_type == CGROUP2_MAGIC ? 2 : 1;
    else if (!known) /* for once it did not say: as version 1 all groups would seem to be absent */
        return file_exists(ROOT "/cgroup.controllers");
    return known == 2;
}

/* Mounted v1 controllers; cpu and cpuacct may be one ("cpu,cpuacct" with links). One that cannot be looked at is there: its
 * use will say what is wrong, and without it a container would have no such limit. */
static bool v1_has(const char *controller)
{
    static uint8_t known[ARRAY_N(v1_controllers)]; /* 1 no, 2 yes */
    unsigned i = 0;
    char path[256];
    struct stat st;
    while (!str_equal(v1_controllers[i], controller))
        i++;
    if (!known[i]) {
        snprintf(path, sizeof path, ROOT "/%s/cgroup.procs", controller);
        bool there = stat(path, &st) == 0;
        if (!there && !is_absent(errno))
            return true;
        known[i] = there ? 2 : 1;
    }
    return known[i] == 2;
}

static void group_path(char out[512], const char *controller, const char *parent, const char *id, const char *file)
{
    snprintf(out, 512, ROOT "%s%s/%s%s%s%s%s", controller ? "/" : "", controller ? controller : "", parent,
             id ? "/" : "", id ? id : "", file ? "/" : "", file ? file : "");
}

static int set(const char *controller, const char *parent, const char *id, const char *file, int64_t value,
               struct err *e)
{
    char path[512], text[64];
    group_path(path, controller, parent, id, file);
    snprintf(text, sizeof text, "%lld", (long long)value);
    return file_poke(path, text, e);
}

/* For what a kernel may lack (swap accounting, a controller no limit asks for). */
static void poke_if_possible(const char *path, const char *text)
{
    if (file_poke(path, text, NULL) < 0)
        return;
}

static void set_if_possible(const char *controller, const char *parent, const char *id, const char *file, int64_t value)
{
    if (set(controller, parent, id, file, value, NULL) < 0)
        return;
}

static const char *controller_of(unsigned i)
{
    return is_v2() ? NULL : v1_controllers[i];
}

/* Controllers may be one hierarchy ("cpu,cpuacct", "net_cls,net_prio"), where the group of one is that of the other. */
static bool is_made(unsigned i, const char *parent, const char *id, const struct cgroup_own *own)
{
    struct stat a, b;
    char path[512];
    group_path(path, controller_of(i), parent, id, NULL);
    if (stat(path, &a) < 0)
        return false;
    for (unsigned k = 0; k < CGROUP_FOLDERS_MAX; k++) {
        if (!own->inode[k])
            continue;
        group_path(path, controller_of(k), parent, id, NULL);
        if (stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
            return true;
    }
    return false;
}

/* A group that nobody else has or gets. */
static int make(unsigned i, const char *parent, const char *id, struct cgroup_own *own, struct err *e)
{
    char path[512], above[512];
    struct stat st;
    bool made = is_made(i, parent, id, own);
    group_path(path, controller_of(i), parent, id, NULL);
    group_path(above, controller_of(i), parent, NULL, NULL);
    errno = ENOENT;
    for (int tries = 0; tries < MAKE_TRIES && !made && errno == ENOENT; tries++) { /* who removes the last group removes what is above */
        int r = file_mkdirs(above, 0755, e);
        if (r < 0)
            return r;
        made = mkdir(path, 0755) == 0;
    }
    if (!made && errno == EEXIST)
        return err_set(e, E_EXISTS, "the control group %s exists already, and something is in it or it is another container's; choose another, or "
                       "remove it", path);
    if (!made)
        return err_errno(e, errno, "make the control group %s", path);
    if (stat(path, &st) < 0) { /* nobody would know whose it is */
        int r = err_errno(e, errno, "the control group %s", path);
        rmdir(path);
        return r;
    }
    own->inode[i] = st.st_ino;
    return 0;
}

bool cgroup_is_own(const char *parent, const char *id, const struct cgroup_own *own)
{
    char folder[512];
    struct stat st;
    for (unsigned i = 0; i < CGROUP_FOLDERS_MAX; i++)
        if (own->inode[i] != (cgroup_folder(i, parent, id, folder) && stat(folder, &st) == 0 ? st.st_ino : 0))
            return false;
    return true;
}

/* What a new group has. */
static const struct container_spec unlimited;

static bool cpu_differs(const struct container_spec *a, const struct container_spec *b)
{
    return a->nano_cpus != b->nano_cpus || a->cpu_period_us != b->cpu_period_us;
}

static int64_t cpu_period_us(const struct container_spec *s)
{
    return s->cpu_period_us ? (int64_t)s->cpu_period_us : CPU_PERIOD_US;
}

static int64_t cpu_quota_us(const struct container_spec *s)
{
    return (s->nano_cpus / 1000 * cpu_period_us(s) + 500000) / 1000000;
}

static int limit_v2(const char *parent, const struct container_spec *was, const struct container_spec *s, struct err *e)
{
    char path[512], text[64] = "max";
    int r = 0;
    if (s->memory_bytes != was->memory_bytes) {
        if (s->memory_bytes)
            snprintf(text, sizeof text, "%lld", (long long)s->memory_bytes);
        group_path(path, NULL, parent, s->id, "memory.max");
        r = file_poke(path, text, e);
        group_path(path, NULL, parent, s->id, "memory.swap.max");
        poke_if_possible(path, s->memory_bytes ? "0" : "max");
        if (s->memory_bytes)
            set_if_possible(NULL, parent, s->id, "memory.oom.group", 1);
    }
    if (r == 0 && cpu_differs(s, was)) {
        if (s->nano_cpus)
            snprintf(text, sizeof text, "%lld %lld", (long long)cpu_quota_us(s), (long long)cpu_period_us(s));
        group_path(path, NULL, parent, s->id, "cpu.max");
        r = file_poke(path, s->nano_cpus ? text : "max", e);
    }
    if (r == 0 && s->pids_limit != was->pids_limit) {
        snprintf(text, sizeof text, "%lld", (long long)s->pids_limit);
        group_path(path, NULL, parent, s->id, "pids.max");
        r = file_poke(path, s->pids_limit ? text : "max", e);
    }
    return r;
}

static int create_v2(const char *parent, const struct container_spec *s, struct cgroup_own *own, struct err *e)
{
    char path[512];
    int r;
    /* Controllers go down level by level; those a kernel lacks are named when a limit needs them. */
    group_path(path, NULL, parent, NULL, NULL);
    r = file_mkdirs(path, 0755, e);
    if (r < 0)
        return r;
    static const char *const want[] = { "+memory", "+cpu", "+pids", "+io" };
    for (unsigned i = 0; i < ARRAY_N(want); i++) {
        poke_if_possible(ROOT "/cgroup.subtree_control", want[i]);
        group_path(path, NULL, parent, NULL, "cgroup.subtree_control");
        poke_if_possible(path, want[i]);
    }
    r = make(0, parent, s->id, own, e);
    if (r == 0)
        r = limit_v2(parent, &unlimited, s, e);
    group_path(path, NULL, parent, s->id, NULL);
    return r == 0 && !s->privileged ? devices_restrict_v2(path, NULL, 0, e) : r;
}

static int need(const char *controller, const char *what, struct err *e)
{
    return v1_has(controller) ? 0 : err_set(e, E_UNSUPPORTED, "this machine has no \"%s\" cgroup controller, a %s "
                                            "limit cannot be kept; enable it in the kernel or drop the limit",
                                            controller, what);
}

/* The limit of memory and swap together may never be the lower one: which goes first depends on the direction. */
static int limit_memory_v1(const char *parent, const struct container_spec *s, struct err *e)
{
    int64_t bytes = s->memory_bytes ? s->memory_bytes : -1;
    set_if_possible("memory", parent, s->id, "memory.memsw.limit_in_bytes", bytes);
    int r = set("memory", parent, s->id, "memory.limit_in_bytes", bytes, e);
    set_if_possible("memory", parent, s->id, "memory.memsw.limit_in_bytes", bytes);
    return r;
}

static int limit_v1(const char *parent, const struct container_spec *was, const struct container_spec *s, struct err *e)
{
    int r = 0;
    if (s->memory_bytes != was->memory_bytes && (r = need("memory", "memory", e)) == 0)
        r = limit_memory_v1(parent, s, e);
    if (r == 0 && cpu_differs(s, was) && (r = need("cpu", "CPU", e)) == 0) {
        /* the former quota may not fit the new period: it is lifted first */
        r = set("cpu", parent, s->id, "cpu.cfs_quota_us", -1, e);
        if (r == 0)
            r = set("cpu", parent, s->id, "cpu.cfs_period_us", cpu_period_us(s), e);
        if (r == 0 && s->nano_cpus)
            r = set("cpu", parent, s->id, "cpu.cfs_quota_us", cpu_quota_us(s), e);
    }
    if (r == 0 && s->pids_limit != was->pids_limit && (r = need("pids", "process", e)) == 0) {
        char path[512], text[32];
        snprintf(text, sizeof text, "%lld", (long long)s->pids_limit);
        group_path(path, "pids", parent, s->id, "pids.max");
        r = file_poke(path, s->pids_limit ? text : "max", e);
    }
    return r;
}

static int create_v1(const char *parent, const struct container_spec *s, struct cgroup_own *own, struct err *e)
{
    int r = 0;
    for (unsigned i = 0; i < FIRST_OPTIONAL && r == 0; i++)
        if (v1_has(v1_controllers[i]))
            r = make(i, parent, s->id, own, e);
    if (r == 0)
        r = limit_v1(parent, &unlimited, s, e);
    if (r == 0 && !s->privileged && v1_has("devices")) {
        char path[512];
        group_path(path, "devices", parent, s->id, NULL);
        r = devices_restrict_v1(path, NULL, 0, e);
    }
    return r;
}

int cgroup_create(const char *parent, const struct container_spec *s, struct err *e)
{
    struct cgroup_own own = { 0 };
    for (int i = 0; i < STALE_LOOKS && !cgroup_remove(parent, s->id, NULL); i++)
        poll(NULL, 0, STALE_LOOK_MS); /* the kernel lets the last member go in its own time */
    int r = is_v2() ? create_v2(parent, s, &own, e) : create_v1(parent, s, &own, e);
    if (r < 0)
        cgroup_remove(parent, s->id, &own);
    return r < 0 ? err_wrap(e, "control group of the container") : 0;
}

/* A process that another moves, or one with all its threads, waits until no processor is in a fork: an RCU grace period,
 * 3 to 14 ms here. A single thread that moves itself (0) does not, but version 2 has no file for that: there one is better
 * born in its group. */
int cgroup_join(const char *parent, const char *id, struct err *e)
{
    if (is_v2())
        return set(NULL, parent, id, "cgroup.procs", 0, e);
    int r = 0;
    char folder[512];
    for (unsigned i = 0; i < ARRAY_N(v1_controllers) && r == 0; i++)
        if (cgroup_folder(i, parent, id, folder))
            r = set(v1_controllers[i], parent, id, "tasks", 0, e);
    return r;
}

pid_t cgroup_clone(const char *parent, const char *id, uint64_t flags, struct err *e)
{
    char folder[512];
    struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
    group_path(folder, NULL, parent, id, NULL);
    AUTO_CLOSE int group = is_v2() ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (is_v2() && group < 0)
        return err_errno(e, errno, "%s", folder);
    if (group >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)group;
    }
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    return pid < 0 ? err_errno(e, errno, flags ? "new namespaces" : "fork") : pid;
}

const char *cgroup_folder(unsigned i, const char *parent, const char *id, char out[512])
{
    struct stat st;
    if (is_v2() ? i > 0 : i >= ARRAY_N(v1_controllers))
        return NULL;
    const char *controller = is_v2() ? NULL : v1_controllers[i];
    group_path(out, controller, parent, id, NULL);
    return (controller && !v1_has(controller)) || (stat(out, &st) < 0 && is_absent(errno)) ? NULL : controller ? controller : "";
}

/* ---- OCI bundles ---- */
/* A new cpuset takes no process before it has processors and memory: those of the group above. */
static int fill_cpuset(const char *parent, const char *id, struct err *e)
{
    static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };
    char whole[512], path[600];
    group_path(whole, "cpuset", parent, id, NULL);
    for (unsigned f = 0; f < ARRAY_N(files); f++) {
        AUTO_FREE char *above = NULL;
        for (char *p = whole + sizeof ROOT "/cpuset" - 1;; ) { /* level by level, from the root down */
            size_t n;
            char *text = NULL;
            p += strcspn(p, "/");
            snprintf(path, sizeof path, "%.*s/%s", (int)(p - whole), whole, files[f]);
            int r = file_read(path, 65536, &text, &n, e);
            if (r < 0)
                return r;
            if (n > 1 || !above) {
                free(above);
                above = text;
            } else {
                free(text);
                if ((r = file_poke(path, above, e)) < 0)
                    return r;
            }
            if (!*p)
                break;
            p += strspn(p, "/");
        }
    }
    return 0;
}

static int write_setting(const struct oci_bundle *b, const struct oci_setting *s, struct err *e)
{
    char path[512];
    bool v2 = is_v2();
    const char *file = v2 ? s->v2_file : s->v1_file, *value = v2 ? s->v2_value : s->v1_value;
    if (!file)
        return err_set(e, E_UNSUPPORTED, "linux.resources.%s: version %d of control groups, which this machine has, knows no such limit; "
                       "leave it out", s->name, v2 ? 2 : 1);
    group_path(path, v2 ? NULL : s->controller, oci_cgroup_parent(b), b->cgroup, file);
    if (!file_exists(path))
        return err_set(e, E_UNSUPPORTED, "linux.resources.%s: this machine cannot keep it (no %s); leave it out", s->name, path);
    return file_poke(path, value, e) < 0 ? err_wrap(e, "linux.resources.%s", s->name) : 0;
}

static int make_groups(const struct oci_bundle *b, struct cgroup_own *own, struct err *e)
{
    int r = 0;
    const char *parent = oci_cgroup_parent(b);
    if (is_v2()) {
        r = make(0, parent, b->cgroup, own, e);
        for (const char *p = parent; r == 0; p += strspn(p, "/")) { /* controllers go down level by level */
            static const char *const want[] = { "+memory", "+cpu", "+pids", "+io", "+cpuset", "+hugetlb", "+rdma" };
            char level[256], path[512];
            snprintf(level, sizeof level, "%.*s", (int)(p - parent), parent);
            group_path(path, NULL, level, NULL, "cgroup.subtree_control");
            for (unsigned i = 0; i < ARRAY_N(want); i++)
                poke_if_possible(path, want[i]);
            if (!*p)
                break;
            p += strcspn(p, "/");
        }
        return r;
    }
    for (unsigned i = 0; i < ARRAY_N(v1_controllers) && r == 0; i++) {
        bool wanted = i < FIRST_OPTIONAL;
        for (uint32_t k = 0; k < b->settings.n && !wanted; k++)
            wanted = str_equal(b->settings.v[k].controller, v1_controllers[i]);
        if (wanted && v1_has(v1_controllers[i]))
            r = make(i, parent, b->cgroup, own, e);
        if (wanted && r == 0 && str_equal(v1_controllers[i], "cpuset") && v1_has("cpuset"))
            r = fill_cpuset(parent, b->cgroup, e);
    }
    for (unsigned i = FIRST_OPTIONAL; i < ARRAY_N(v1_controllers) && r == 0; i++) /* come with another */
        if (!own->inode[i] && is_made(i, parent, b->cgroup, own))
            r = make(i, parent, b->cgroup, own, e);
    return r;
}

int cgroup_remove_empty(const char *parent, const char *id, struct err *e)
{
    char folder[512], procs[600];
    struct stat st;
    for (int remove = 0; remove < 2; remove++)
        for (unsigned i = 0; i < CGROUP_FOLDERS_MAX; i++) {
            AUTO_FREE char *text = NULL;
            size_t n = 0;
            if (!cgroup_folder(i, parent, id, folder))
                continue;
            snprintf(procs, sizeof procs, "%s/cgroup.procs", folder);
            if ((file_read(procs, 65536, &text, &n, NULL) == 0 && n) || (stat(folder, &st) == 0 && st.st_nlink > 2) ||
                (remove && rmdir(folder) < 0 && errno != ENOENT))
                return err_set(e, E_BUSY, "linux.cgroupsPath: processes or groups are in %s already; give each container a group of its own, or "
                               "remove that one", folder);
        }
    return 0;
}

int cgroup_create_bundle(const struct oci_bundle *b, struct cgroup_own *ret_own, struct err *e)
{
    char folder[512];
    const char *parent = oci_cgroup_parent(b);
    *ret_own = (struct cgroup_own){ 0 };
    int r = cgroup_remove_empty(parent, b->cgroup, e);
    if (r == 0)
        r = make_groups(b, ret_own, e);
    if (r == 0 && is_v2()) {
        group_path(folder, NULL, parent, b->cgroup, NULL);
        r = devices_restrict_v2(folder, b->device_rules.v, b->device_rules.n, e);
    } else if (r == 0 && v1_has("devices")) {
        group_path(folder, "devices", parent, b->cgroup, NULL);
        r = devices_restrict_v1(folder, b->device_rules.v, b->device_rules.n, e);
    }
    for (uint32_t i = 0; i < b->settings.n && r == 0; i++)
        r = write_setting(b, &b->settings.v[i], e);
    if (r < 0)
        cgroup_remove(parent, b->cgroup, ret_own);
    return r;
}

char *cgroup_text(const char *controller, const char *parent, const char *id, const char *file)
{
    char path[512], *text = NULL;
    size_t size;
    group_path(path, controller, parent, id, file);
    return file_read(path, 65536, &text, &size, NULL) < 0 ? NULL : text;
}

int64_t cgroup_number(const char *controller, const char *parent, const char *id, const char *file, const char *word)
{
    AUTO_FREE char *text = cgroup_text(controller, parent, id, file);
    const char *p = text;
    size_t n = word ? strlen(word) : 0;
    while (p && word && !(strncmp(p, word, n) == 0 && p[n] == ' '))
        p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL;
    if (!p)
        return -1;
    char *end;
    p += word ? n + 1 : 0;
    long long v = strtoll(p, &end, 10);
    return end == p ? -1 : v;
}

bool cgroup_oom_killed(const char *parent, const char *id)
{
    return is_v2() ? cgroup_number(NULL, parent, id, "memory.events", "oom_kill") > 0
                   : cgroup_number("memory", parent, id, "memory.oom_control", "oom_kill") > 0;
}

bool cgroup_is_v2(void)
{
    return is_v2();
}

/* ---- freezing ---- */
enum { FREEZE_LOOKS = 200, FREEZE_LOOK_MS = 10 };

bool cgroup_is_frozen(const char *parent, const char *id)
{
    if (is_v2())
        return cgroup_number(NULL, parent, id, "cgroup.events", "frozen") == 1;
    AUTO_FREE char *text = cgroup_text("freezer", parent, id, "freezer.state");
    return text && str_starts(text, "FROZEN");
}

static int set_frozen(const char *parent, const char *id, bool frozen, struct err *e)
{
    char path[512];
    group_path(path, is_v2() ? NULL : "freezer", parent, id, is_v2() ? "cgroup.freeze" : "freezer.state");
    return file_poke(path, is_v2() ? (frozen ? "1" : "0") : frozen ? "FROZEN" : "THAWED", e);
}

int cgroup_freeze(const char *parent, const char *id, bool frozen, struct err *e)
{
    if (!is_v2() && !v1_has("freezer"))
        return err_set(e, E_UNSUPPORTED, "this machine has no \"freezer\" cgroup controller, a container cannot be paused");
    for (int i = 0; i < FREEZE_LOOKS; i++) { /* v1 tries again at each write, and gives up on a fork in between */
        int r = set_frozen(parent, id, frozen, e);
        if (r < 0)
            return err_wrap(e, frozen ? "pause the container" : "unpause the container");
        if (!frozen || cgroup_is_frozen(parent, id))
            return 0;
        poll(NULL, 0, FREEZE_LOOK_MS);
    }
    if (set_frozen(parent, id, false, e) < 0)
        return err_wrap(e, "unpause the container");
    return err_set(e, E_BUSY, "a process of the container cannot be stopped, it may wait for a disk; try again");
}

/* ---- other limits ---- */
static int write_limits(const char *parent, const struct container_spec *was, const struct container_spec *s, struct err *e)
{
    int r = is_v2() ? limit_v2(parent, was, s, e) : limit_v1(parent, was, s, e);
    return r < 0 ? err_wrap(e, "limits of the container") : 0;
}

int cgroup_update(const char *parent, const struct container_spec *was, const struct container_spec *s, struct err *e)
{
    struct err second;
    int r = write_limits(parent, was, s, e);
    if (r < 0 && write_limits(parent, s, was, &second) < 0)
        return err_set(e, E_IO, "%.300s; nor could the former limits be set again: %.300s", e->text, second.text);
    return r;
}

void cgroup_list(const char *parent, struct strs *ret)
{
    char path[512];
    group_path(path, is_v2() ? NULL : "memory", parent, NULL, NULL);
    DIR *d = opendir(path);
    for (struct dirent *x; d && (x = readdir(d));)
        if (x->d_type == DT_DIR && x->d_name[0] != '.')
            strs_add(ret, x->d_name);
    if (d)
        closedir(d);
}

bool cgroup_remove_parent(const char *parent)
{
    char path[512];
    bool gone = true;
    for (unsigned i = 0; i < (is_v2() ? 1 : ARRAY_N(v1_controllers)); i++) {
        group_path(path, is_v2() ? NULL : v1_controllers[i], parent, NULL, NULL);
        gone &= rmdir(path) == 0 || errno == ENOENT;
    }
    return gone;
}
