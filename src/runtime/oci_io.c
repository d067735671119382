/* The verbs of `shoal oci`: what runc and crun do by the same words (runtime.md "Operations"). Each is one short process;
 * what it must remember is in the container's folder (oci_state_io.c). */
#include "oci_verbs.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <poll.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/version.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { END_WAIT_MS = 10000, END_LOOK_MS = 5, KEPT_MAX = 256 };
#define KEPT ".filters" /* no id begins so */

/* ---- making ---- */
/* Compiling a filter takes longer than all the rest, and callers give the same one to every container: it is kept, by the
 * digest of what it is made from, until the next reboot. */
static char *kept_filter(const struct oci_options *o, const struct val *profile)
{
    uint8_t hash[32];
    char hex[65];
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    sb_printf(&b, "%s %s ", SHOAL_VERSION, oci_seccomp_version());
    json_write(&b, profile, 0);
    crypto_sha256(hash, b.s, b.len);
    for (unsigned i = 0; i < sizeof hash; i++)
        snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    return xasprintf("%s/" KEPT "/%s", o->root, hex);
}

static bool has_room(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return d && n < KEPT_MAX;
}

static int make_filter(const struct oci_options *o, const struct val *profile, struct seccomp_program *ret, uint64_t *ret_flags,
                       struct err *e)
{
    AUTO_FREE char *path = kept_filter(o, profile), *dir = path_join(o->root, KEPT), *bytes = NULL;
    size_t n;
    uint64_t flags;
    if (file_read(path, UINT16_MAX * sizeof(struct sock_filter) + sizeof flags, &bytes, &n, NULL) == 0 && n > sizeof flags &&
        (n - sizeof flags) % sizeof(struct sock_filter) == 0) {
        memcpy(ret_flags, bytes, sizeof flags);
        n -= sizeof flags;
        *ret = (struct seccomp_program){ xmemdup(bytes + sizeof flags, n), (uint16_t)(n / sizeof(struct sock_filter)) };
        return 0;
    }
    int r = oci_seccomp_build(profile, ret, ret_flags, e);
    if (r < 0)
        return r;
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    sb_add(&b, ret_flags, sizeof *ret_flags);
    sb_add(&b, ret->filter, ret->n * sizeof(struct sock_filter));
    if (file_mkdirs(dir, 0700, NULL) == 0 && has_room(dir) && file_write_volatile(path, b.s, b.len, 0600, NULL) < 0)
        unlink(path); /* it is only made again each time */
    return 0;
}

/* The bundle as it is on the disk, with paths that no link changes any more. */
static int read_bundle(const struct oci_options *o, struct oci_bundle *ret, struct seccomp_program *filter, struct err *e)
{
    AUTO_FREE char *dir = realpath(o->bundle ? o->bundle : ".", NULL), *text = NULL;
    struct val_doc *doc = NULL;
    const struct val *profile = NULL;
    size_t size;
    if (!dir)
        return err_errno(e, errno, "bundle %s", o->bundle ? o->bundle : ".");
    AUTO_FREE char *path = o->config && o->config[0] == '/' ? xstrdup(o->config) : path_join(dir, o->config ? o->config : "config.json");
    int r = file_read(path, OCI_CONFIG_MAX_BYTES, &text, &size, e);
    if (r == 0)
        r = oci_config_read(ret, text, size, o->id, dir, &doc, &profile, e);
    if (r < 0)
        return r;
    uint64_t flags = 0;
    if (profile)
        r = make_filter(o, profile, filter, &flags, e);
    ret->seccomp_flags = flags;
    ret->no_new_keyring = o->no_new_keyring;
    val_doc_free(doc);
    AUTO_FREE char *root = r == 0 ? realpath(ret->root, NULL) : NULL;
    if (r == 0 && !root)
        r = err_errno(e, errno, "root file system %s", ret->root);
    else if (r == 0 && str_equal(root, "/"))
        r = err_set(e, E_INVALID, "root.path is the root of this machine; a container needs a folder of its own");
    if (r == 0)
        str_set(&ret->root, root);
    return r;
}

/* The caller's descriptors that the process keeps must exist: any other open file here could take their numbers. */
static int check_preserved(int64_t n, struct err *e)
{
    for (int fd = 3; fd < 3 + n; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            return err_set(e, E_INVALID, "--preserve-fds %d: descriptor %d is not open", (int)n, fd);
    return 0;
}

static int write_pid(const char *path, pid_t pid, struct err *e)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%d", pid);
    return path ? file_write_volatile(path, text, (size_t)n, 0644, e) : 0;
}

static int take_group(const struct oci_state *s, struct err *e)
{
    const struct oci_bundle *b = &s->bundle;
    struct err ignored;
    /* Given up while they were made it is not known which are its own; nothing is in them. */
    bool gone = !s->life.created_ns && cgroup_remove_empty(oci_cgroup_parent(b), b->cgroup, &ignored) == 0;
    for (int i = 0; i < END_WAIT_MS / END_LOOK_MS && !gone && !(gone = cgroup_remove(oci_cgroup_parent(b), b->cgroup, oci_state_groups(s))); i++)
        poll(NULL, 0, END_LOOK_MS); /* the kernel lets the last member go in its own time */
    if (str_equal(b->cgroup_parent, "shoal-oci"))
        cgroup_remove_parent("shoal-oci"); /* ours, and in use when it is not empty */
    return gone ? 0 : err_set(e, E_BUSY, "the control group %s/%s cannot be removed, processes in it do not end; try again", oci_cgroup_parent(b),
                              b->cgroup);
}

static int check_console(const struct oci_options *o, bool tty, bool detached, struct err *e)
{
    if (o->console_socket && !tty)
        return err_set(e, E_INVALID, "--console-socket is for a process with a terminal; set process.terminal or leave it out");
    if (!o->console_socket && tty && detached)
        return err_set(e, E_INVALID, "a terminal needs someone who holds it: give --console-socket, or set process.terminal to false");
    return 0;
}

/* Kept for exec, which runs under the same filter. */
static int save_filter(const struct oci_state *s, const struct seccomp_program *f, struct err *e)
{
    AUTO_FREE char *path = oci_state_path(s, "filter");
    return f->n ? file_write_volatile(path, f->filter, f->n * sizeof(struct sock_filter), 0600, e) : 0;
}

static int make(const struct oci_options *o, bool detached, struct oci_state *ret, int *ret_console, struct err *e)
{
    struct seccomp_program filter = { 0 };
    struct oci_bundle b = { 0 };
    struct oci_state s = { .lock = -1 };
    int r = check_preserved(o->preserved, e);
    if (r == 0)
        r = read_bundle(o, &b, &filter, e);
    if (r == 0)
        r = check_console(o, b.process.tty, detached, e);
    if (r == 0)
        r = oci_state_make(o->root, o->id, &s, e);
    if (r < 0) {
        oci_bundle_clear(&b);
        seccomp_free(&filter);
        return r;
    }
    s.bundle = b;
    struct cgroup_own own;
    struct oci_launch l = { .bundle = &s.bundle, .filter = filter.n ? &filter : NULL, .dir = s.dir, .groups = &own,
                            .preserved = (unsigned)o->preserved, .console_socket = o->console_socket, .console = -1 };
    bool grouped = false;
    r = oci_state_save_bundle(&s, e);
    if (r == 0)
        r = save_filter(&s, &filter, e);
    if (r == 0 && (r = cgroup_create_bundle(&s.bundle, &own, e)) == 0)
        grouped = true;
    if (r == 0) { /* before anything is in them: whoever removes the container must know what is its own */
        oci_state_set_groups(&s, &own);
        r = oci_state_save_life(&s, 0, e);
    }
    if (r == 0)
        r = oci_launch(&l, e);
    if (r == 0)
        r = oci_state_save_life(&s, l.pid, e);
    if (r == 0)
        r = write_pid(o->pid_file, l.pid, e);
    seccomp_free(&filter);
    if (r == 0) {
        *ret_console = l.console;
        *ret = s;
        return 0;
    }
    struct err second;
    if (l.pid > 0)
        kill(l.pid, SIGKILL);
    if (grouped && take_group(&s, &second) < 0)
        fprintf(stderr, "shoal oci: warning: %s\n", second.text);
    if (oci_hooks_run(&s.bundle, OCI_POSTSTOP, "stopped", 0, &second) < 0)
        fprintf(stderr, "shoal oci: warning: %s\n", second.text);
    if (oci_state_remove(&s, &second) < 0)
        fprintf(stderr, "shoal oci: warning: %s\n", second.text);
    oci_state_done(&s);
    return r;
}

/* Takes away what a container that has ended leaves. While something of it lives it can be asked for again. */
static int clean(struct oci_state *s, struct err *e)
{
    struct err second;
    int r = take_group(s, e);
    if (r < 0)
        return r;
    r = oci_state_remove(s, e);
    if (oci_hooks_run(&s->bundle, OCI_POSTSTOP, "stopped", 0, &second) < 0)
        fprintf(stderr, "shoal oci: warning: %s\n", second.text);
    return r;
}

static int begin(struct oci_state *s, struct err *e)
{
    struct err second;
    int r = oci_begin(s, e);
    if (r == 0 && oci_hooks_run(&s->bundle, OCI_POSTSTART, "running", s->life.pid, &second) < 0)
        fprintf(stderr, "shoal oci: warning: %s\n", second.text);
    return r;
}

int oci_create(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    int console = -1;
    int r = make(o, true, &s, &console, e);
    if (r == 0)
        oci_state_done(&s);
    return r;
}

int oci_start(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    int r = oci_state_load(o->root, o->id, true, &s, e);
    if (r < 0)
        return r;
    if (!str_equal(s.status, "created"))
        r = err_set(e, E_CONFLICT, "cannot start a container that is %s; only a created one can be started", s.status);
    else
        r = begin(&s, e);
    oci_state_done(&s);
    return r;
}

int oci_run(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    struct err second;
    int console = -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* what the container leaves without a parent is ours to reap */
    if (!o->detach)
        oci_hold_signals();
    int r = make(o, o->detach, &s, &console, e);
    if (r < 0)
        return r;
    r = begin(&s, e);
    close(s.lock);
    s.lock = -1;
    if (r == 0 && !o->detach)
        r = oci_wait((pid_t)s.life.pid, console, e);
    if (r < 0) {
        kill((pid_t)s.life.pid, SIGKILL);
        waitpid((pid_t)s.life.pid, NULL, 0);
    }
    if ((r < 0 || !o->detach) && !o->keep && clean(&s, &second) < 0)
        fprintf(stderr, "shoal oci: warning: %s\n", second.text);
    if (console >= 0)
        close(console);
    oci_state_done(&s);
    return r;
}

/* ---- asking ---- */
int oci_state(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    int r = oci_state_load(o->root, o->id, false, &s, e);
    if (r < 0)
        return r;
    oci_state_json(&s.bundle, s.status, s.life.pid, &b);
    puts(b.s);
    oci_state_done(&s);
    return 0;
}

int oci_ps(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    int r = oci_state_load(o->root, o->id, false, &s, e);
    if (r < 0)
        return r;
    size_t n = 0;
    AUTO_FREE int64_t *pids = cgroup_pids(oci_cgroup_parent(&s.bundle), s.bundle.cgroup, oci_state_groups(&s), &n);
    bool json = !str_equal(o->format, "table");
    fputs(json ? "[" : "PID\n", stdout);
    for (size_t i = 0; i < n; i++)
        printf(json ? "%s%lld" : "%s%lld\n", json && i ? "," : "", (long long)pids[i]);
    fputs(json ? "]\n" : "", stdout);
    oci_state_done(&s);
    return 0;
}

/* ---- changing ---- */
static int send_signal(const struct oci_state *s, int signum, struct err *e)
{
    AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)s->life.pid, 0);
    /* Looked at after it was opened: pids are used again. */
    if (pidfd < 0 || process_has_ended((pid_t)s->life.pid, s->life.start_id) || syscall(SYS_pidfd_send_signal, pidfd, signum, NULL, 0) < 0)
        return err_set(e, E_CONFLICT, "container not running: its process has ended (no such process)");
    return 0;
}

int oci_kill(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    int signum = signal_number(o->n_args ? o->args[0] : "SIGTERM", e);
    int r = signum < 0 ? signum : oci_state_load(o->root, o->id, false, &s, e);
    if (r < 0)
        return r;
    if (o->all) { /* also when its first process is gone: others may live in its group */
        r = cgroup_signal(oci_cgroup_parent(&s.bundle), s.bundle.cgroup, oci_state_groups(&s), signum, e);
    } else if (str_equal(s.status, "stopped") || str_equal(s.status, "creating")) {
        r = err_set(e, E_CONFLICT, "container not running: it is %s", s.status);
    } else {
        r = send_signal(&s, signum, e);
    }
    if (r == 0 && str_equal(s.status, "paused") && signum == SIGKILL) /* what is frozen does not even die */
        r = cgroup_freeze(oci_cgroup_parent(&s.bundle), s.bundle.cgroup, false, e);
    oci_state_done(&s);
    return r;
}

static int end_first(struct oci_state *s, struct err *e)
{
    AUTO_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)s->life.pid, 0);
    if (str_equal(s->status, "paused") && cgroup_freeze(oci_cgroup_parent(&s->bundle), s->bundle.cgroup, false, e) < 0)
        return -e->code;
    if (pidfd < 0 || send_signal(s, SIGKILL, e) < 0)
        return 0; /* gone */
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    return poll(&p, 1, END_WAIT_MS) == 1 ? 0 : err_set(e, E_BUSY, "the container's process does not end, it may wait for a disk; try again");
}

int oci_delete(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    struct err second;
    int r = oci_state_load(o->root, o->id, true, &s, e);
    if (r == -E_NOT_FOUND) {
        int unmade = oci_id_check(o->id, &second) < 0 ? 0 : oci_state_remove_unmade(o->root, o->id, &second);
        if (unmade < 0)
            *e = second;
        return unmade < 0 ? unmade : unmade || o->force ? 0 : r;
    }
    if (r < 0)
        return r;
    if (str_equal(s.status, "running") || str_equal(s.status, "paused")) {
        if (!o->force)
            r = err_set(e, E_CONFLICT, "container %s is %s, not stopped: kill it first, or give --force", o->id, s.status);
        else
            r = end_first(&s, e);
    } else if (str_equal(s.status, "created")) {
        r = end_first(&s, e);
    }
    if (r == 0)
        r = clean(&s, e);
    oci_state_done(&s);
    return r;
}

static int freeze(const struct oci_options *o, bool on, struct err *e)
{
    struct oci_state s;
    int r = oci_state_load(o->root, o->id, true, &s, e);
    if (r < 0)
        return r;
    if (!str_equal(s.status, on ? "running" : "paused"))
        r = err_set(e, E_CONFLICT, "container %s is %s, not %s", o->id, s.status, on ? "running" : "paused");
    else
        r = cgroup_freeze(oci_cgroup_parent(&s.bundle), s.bundle.cgroup, on, e);
    oci_state_done(&s);
    return r;
}

int oci_pause(const struct oci_options *o, struct err *e)
{
    return freeze(o, true, e);
}

int oci_resume(const struct oci_options *o, struct err *e)
{
    return freeze(o, false, e);
}

/* ---- exec ---- */
static int read_user(const char *text, struct oci_process *p, struct err *e)
{
    char uid[16];
    uint64_t n;
    const char *colon = strchr(text, ':');
    snprintf(uid, sizeof uid, "%.*s", (int)MIN(colon ? (size_t)(colon - text) : strlen(text), sizeof uid - 1), text);
    if (!str_u64(uid, 0, UINT32_MAX - 1, &n) || (colon && !str_u64(colon + 1, 0, UINT32_MAX - 1, &p->gid)))
        return err_set(e, E_INVALID, "--user %s: give numbers, UID or UID:GID", text);
    p->uid = n;
    return 0;
}

/* From process.json, or the container's own process with another command and what the flags say. */
static int exec_process(const struct oci_options *o, const struct oci_bundle *b, struct oci_process *p, struct err *e)
{
    AUTO_FREE char *text = NULL;
    size_t size;
    int r = 0;
    if (o->process) {
        if (o->n_args || o->env.n || o->caps.n || o->cwd || o->user || o->no_new_privs)
            return err_set(e, E_INVALID, "--process says all of the process: give no command and no --env, --cap, --cwd, --user beside it");
        r = file_read(o->process, OCI_CONFIG_MAX_BYTES, &text, &size, e);
        r = r == 0 ? oci_process_read(p, text, size, e) : r;
        p->tty |= o->tty;
        return r;
    }
    if (!o->n_args)
        return err_set(e, E_INVALID, "no command given: exec ID COMMAND [ARG...], or --process FILE");
    oci_process_copy(p, &b->process);
    strs_clear(&p->argv);
    for (int i = 0; i < o->n_args; i++)
        strs_add(&p->argv, o->args[i]);
    for (uint32_t i = 0; i < o->env.n; i++)
        strs_add(&p->env, o->env.v[i]);
    p->tty = o->tty;
    p->no_new_privs |= o->no_new_privs;
    if (o->cwd)
        str_set(&p->cwd, o->cwd);
    if (o->user && (r = read_user(o->user, p, e)) < 0)
        return r;
    for (uint32_t i = 0; i < o->caps.n && r == 0; i++) {
        uint64_t mask = 0;
        r = capability_mask(o->caps.v[i], &mask, e);
        p->bounding |= mask;
        p->permitted |= mask;
        p->effective |= mask;
    }
    return r;
}

static int load_filter(const struct oci_state *s, struct seccomp_program *ret, struct err *e)
{
    AUTO_FREE char *path = oci_state_path(s, "filter");
    char *bytes;
    size_t n;
    if (!s->bundle.has_seccomp)
        return 0;
    int r = file_read(path, UINT16_MAX * sizeof(struct sock_filter), &bytes, &n, e);
    if (r == 0)
        *ret = (struct seccomp_program){ bytes, (uint16_t)(n / sizeof(struct sock_filter)) };
    return r;
}

int oci_exec(const struct oci_options *o, struct err *e)
{
    struct oci_state s;
    struct oci_process p = { 0 };
    struct seccomp_program filter = { 0 };
    int r = check_preserved(o->preserved, e);
    if (r == 0)
        r = oci_state_load(o->root, o->id, false, &s, e);
    if (r < 0)
        return r;
    if (!str_equal(s.status, "running") && !str_equal(s.status, "created"))
        r = err_set(e, E_CONFLICT, "cannot exec in a container that is %s", s.status);
    if (r == 0)
        r = exec_process(o, &s.bundle, &p, e);
    if (r == 0)
        r = check_console(o, p.tty, o->detach, e);
    if (r == 0)
        r = load_filter(&s, &filter, e);
    struct oci_launch l = { .bundle = &s.bundle, .exec = &p, .filter = filter.n ? &filter : NULL, .dir = s.dir,
                            .preserved = (unsigned)o->preserved, .container = &s.life,
                            .console_socket = o->console_socket, .console = -1 };
    if (r == 0 && !o->detach)
        oci_hold_signals();
    if (r == 0)
        r = oci_launch(&l, e);
    if (r == 0)
        r = write_pid(o->pid_file, l.pid, e);
    if (r == 0 && !o->detach)
        r = oci_wait(l.pid, l.console, e);
    if (r < 0 && l.pid > 0) /* nobody would wait for it */
        kill(l.pid, SIGKILL);
    seccomp_free(&filter);
    oci_process_clear(&p);
    oci_state_done(&s);
    return r;
}
