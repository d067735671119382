/* The daemon's side of containers: one object a container, a connection to its shim, and requests that wait
 * for the shim's answers. Shims are found again after a restart by their sockets in DIR/<id>/; a container
 * whose shim is gone is dead, its remains are taken away. New files are renamed into place without waiting for the
 * disk: they survive any kill, and a power cut ends every container anyway. What was never finished is removed at the
 * next start; a folder whose specification cannot be read is left alone, for it may hold what a container wrote. */
#include "box_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

LOG_MODULE("runtime");

enum { SPEC_FILE_MAX = 64 << 20, KILL_AFTER_STOP_MS = 5000,
       EXECS_ASKED_MAX = 64, /* not answered yet; as many as a shim holds */
       ASKED_MAX_BYTES = 16 << 20 /* to one shim that is slow; beyond it counts as gone */ };

struct loop *runtime_loop(const struct runtime *rt)
{
    return rt->loop;
}

struct list_node *runtime_log_readers(struct runtime *rt)
{
    return &rt->log_readers;
}

struct box *box_find(const struct runtime *rt, const char *id)
{
    return map_find(&rt->boxes, id);
}

char *box_path(const struct box *b, const char *name)
{
    return path_join(b->c.dir, name);
}

static void box_add(struct box *b)
{
    map_put(&b->rt->boxes, b->c.spec.id, b);
    list_push_back(&b->rt->in_order, &b->node);
}

static void box_free(struct box *b)
{
    list_remove(&b->node);
    for (unsigned i = 0; i < b->n_attached; i++)
        close(b->attached[i]);
    loop_fd_remove(b->watch);
    if (b->fd >= 0)
        close(b->fd);
    loop_timer_free(b->stop_timer);
    container_spec_clear(&b->c.spec);
    container_state_clear(&b->c.state);
    container_notes_clear(&b->c.notes);
    free(b->c.dir);
    free(b);
}

/* Sockets are addressed through a descriptor of their folder: paths may be longer than sun_path. */
static int shim_address(const char *dir, struct sockaddr_un *ret, int *ret_dirfd, struct err *e)
{
    int d = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (d < 0)
        return err_errno(e, errno, "%s", dir);
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/shim.sock", d);
    *ret_dirfd = d;
    return 0;
}

static int shim_listen(const char *dir, struct err *e)
{
    struct sockaddr_un a;
    AUTO_CLOSE int d = -1;
    int r = shim_address(dir, &a, &d, e);
    if (r < 0)
        return r;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(a.sun_path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 8) < 0) {
        r = err_errno(e, errno, "socket of the shim");
        if (fd >= 0)
            close(fd);
        return r;
    }
    return fd;
}

static int shim_connect(const char *dir, struct err *e)
{
    struct sockaddr_un a;
    AUTO_CLOSE int d = -1;
    int r = shim_address(dir, &a, &d, e);
    if (r < 0)
        return r;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), room = ASKED_MAX_BYTES;
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room); /* what this machine allows */
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        r = err_errno(e, errno, "the shim of the container");
        if (fd >= 0)
            close(fd);
        return r;
    }
    return fd;
}

static void announce(struct box *b)
{
    if (!b->dying)
        b->rt->event(b->rt->event_arg, &b->c);
    b->c.before = b->c.state.phase;
    if (b->c.state.phase == CONTAINER_EXITED || b->dying)
        logs_container_ended(b->rt, b->c.spec.id);
}

/* ---- requests ---- */
struct request *box_ask(struct box *b, uint32_t type, int32_t arg, const void *p, size_t size, const int *fd)
{
    struct request *q = xnew(struct request);
    q->id = ++b->rt->next_id;
    q->type = type;
    q->next = b->requests;
    b->requests = q;
    struct shim_head h = { type, arg, q->id };
    AUTO_FREE char *bytes = xcalloc(1, sizeof h + size);
    memcpy(bytes, &h, sizeof h);
    if (size)
        memcpy(bytes + sizeof h, p, size);
    struct err e;
    if (b->fd < 0 || fd_send_with_fds(b->fd, bytes, sizeof h + size, fd, fd ? 1 : 0, &e) < 0) {
        if (b->fd >= 0)
            shutdown(b->fd, SHUT_RDWR); /* EOF answers everything that waits */
    }
    return q;
}

/* A start that is not answered yet. The shim does one after the other: what is asked of it now finds the container running, or
 * ended. */
static bool start_is_asked(const struct box *b)
{
    const struct request *q = b->requests;
    while (q && q->type != SHIM_START)
        q = q->next;
    return q != NULL;
}

static unsigned execs_asked(const struct box *b)
{
    unsigned n = 0;
    for (const struct request *q = b->requests; q; q = q->next)
        n += q->type == SHIM_EXEC && q->stream; /* it has its stream until it is answered */
    return n;
}

static struct request *take_request(struct box *b, uint64_t id, uint32_t type)
{
    for (struct request **q = &b->requests; *q; q = &(*q)->next)
        if ((*q)->id == id && (!type || (*q)->type == type)) {
            struct request *found = *q;
            *q = found->next;
            return found;
        }
    return NULL;
}

static void answer(struct request *q, int result, const struct err *e)
{
    if (q->started) {
        if (result < 0) {
            stream_free(q->stream);
            q->started(q->arg, result, NULL, 0, e);
        } else {
            q->started(q->arg, 0, q->stream, q->id, NULL);
        }
    } else if (q->done) {
        q->done(q->arg, result, e);
    }
}

static void fail_requests(struct box *b)
{
    struct err e;
    err_set(&e, E_CONFLICT, "the container is not running");
    for (struct request *q; (q = b->requests);) {
        b->requests = q->next;
        if (q->started && !q->stream) /* exec that ran: it ended with its container */
            q->exited(q->arg, q->id, 137);
        else
            answer(q, -E_CONFLICT, &e);
        free(q);
    }
}

/* ---- deletion ---- */
struct removal { struct box *b; struct err e; int result; };

static void remove_work(void *arg)
{
    struct removal *m = arg;
    m->result = file_remove_tree(m->b->c.dir, &m->e);
}

static void remove_done(void *arg)
{
    struct removal *m = arg;
    struct box *b = m->b;
    map_remove(&b->rt->boxes, b->c.spec.id);
    if (m->result < 0)
        log_warn("%s", m->e.text);
    if (b->known) {
        b->c.gone = true;
        b->rt->event(b->rt->event_arg, &b->c);
    }
    if (b->deleted)
        b->deleted(b->deleted_arg, m->result, m->result < 0 ? &m->e : NULL);
    box_free(b);
    free(m);
}

static void remove_box(struct box *b)
{
    for (int i = 0; i < 100 && !cgroup_remove(b->rt->cgroup, b->c.spec.id, NULL); i++)
        poll(NULL, 0, 1);
    struct removal *m = xnew(struct removal);
    m->b = b;
    if (loop_work(b->rt->loop, LANE_BULK, remove_work, remove_done, m) < 0) {
        remove_work(m);
        remove_done(m);
    }
}

/* ---- the shim speaks ---- */
static void finish_create(struct box *b)
{
    runtime_done_fn *done = TAKE(b->created);
    if (!done)
        return;
    if (b->c.state.ready && !b->c.state.error) { /* an error so early: its state cannot be written down */
        b->known = true;
        done(b->created_arg, 0, NULL);
        return;
    }
    struct err e;
    err_set(&e, E_INVALID, "%s", b->c.state.error ? b->c.state.error : "the container could not be made");
    b->dying = true;
    if (!b->deleted) /* else shim_gone() does it */
        remove_box(b);
    done(b->created_arg, -e.code, &e);
}

/* Who waits for something of a container that has ended, or of a shim that is no more. why: NULL: as its state says. */
static void answer_waiting(struct box *b, const struct err *why)
{
    struct err e;
    runtime_done_fn *created = TAKE(b->created), *restarted = TAKE(b->restarted), *stopped = TAKE(b->stopped);
    if (b->dying)
        err_set(&e, E_CONFLICT, "container %.12s was removed meanwhile", b->c.spec.id);
    else if (stopped)
        err_set(&e, E_CONFLICT, "container %.12s was stopped while it was started", b->c.spec.id);
    else if (why)
        e = *why;
    else
        err_set(&e, E_INVALID, "%s", b->c.state.error ? b->c.state.error : "the container could not be made again");
    if (created)
        created(b->created_arg, -e.code, &e);
    if (restarted)
        restarted(b->restarted_arg, -e.code, &e);
    if (stopped)
        stopped(b->stopped_arg, 0, NULL);
}

/* ---- streams ---- */
/* Those whose other end is closed are let go: to the shim they would be the end of the container's input. */
static void drop_gone(struct box *b)
{
    unsigned n = 0;
    for (unsigned i = 0; i < b->n_attached; i++) {
        struct pollfd p = { .fd = b->attached[i] };
        if (poll(&p, 1, 0) > 0)
            close(p.fd);
        else
            b->attached[n++] = p.fd;
    }
    b->n_attached = n;
}

static void give_attached(struct box *b)
{
    drop_gone(b);
    for (; b->n_attached; b->n_attached--) {
        box_ask(b, SHIM_ATTACH, 0, NULL, 0, &b->attached[b->n_attached - 1]);
        close(b->attached[b->n_attached - 1]);
    }
}

static void got_state(struct box *b, const void *p, size_t size)
{
    struct container_state next = { 0 };
    struct err e;
    if (rec_unpack(&container_state_rec, &next, p, size, &e) < 0) {
        log_warn("container %.12s: state of its shim: %s", b->c.spec.id, e.text);
        return;
    }
    if ((b->created || b->restarted) && next.phase == CONTAINER_CREATED && (!next.ready || b->stopped)) { /* more will come */
        container_state_clear(&next);
        return;
    }
    bool changed = !container_state_equal(&next, &b->c.state);
    container_state_clear(&b->c.state);
    b->c.state = next;
    if (b->created) {
        if (next.ready || next.phase == CONTAINER_EXITED)
            finish_create(b);
        if (b->dying)
            return;
    } else if (b->restarted && next.ready) {
        give_attached(b);
        runtime_done_fn *done = TAKE(b->restarted);
        runtime_start(b->rt, b->c.spec.id, done, b->restarted_arg);
        for (int n = 1; n <= 64; n++)
            if (b->signals >> (n - 1) & 1)
                box_ask(b, SHIM_SIGNAL, n, NULL, 0, NULL);
        return;
    }
    if (changed)
        announce(b);
    if (next.phase == CONTAINER_EXITED) {
        loop_timer_set(b->stop_timer, -1);
        answer_waiting(b, NULL);
    }
}

static void mark_dead(struct box *b)
{
    struct container_state *s = &b->c.state;
    s->phase = CONTAINER_EXITED;
    s->exit_code = 137;
    s->pid = 0;
    s->ready = false;
    s->finished_ns = clock_real_ns();
    str_set(&s->error, "its shim is gone (killed, or the machine restarted)");
    for (int i = 0; i < 100 && !cgroup_remove(b->rt->cgroup, b->c.spec.id, NULL); i++)
        poll(NULL, 0, 1);
    struct sb packed;
    struct err e;
    AUTO_FREE char *path = box_path(b, "state.mp");
    sb_init(&packed, 65536);
    rec_pack(&container_state_rec, s, &packed);
    if (file_write_volatile(path, packed.s, packed.len, 0640, &e) < 0)
        log_warn("%s", e.text);
    sb_done(&packed);
}

static void shim_gone(struct box *b)
{
    loop_fd_remove(b->watch);
    b->watch = NULL;
    close(b->fd);
    b->fd = -1;
    fail_requests(b);
    if (b->deleted) {
        answer_waiting(b, NULL);
        remove_box(b);
        return;
    }
    if (b->c.state.phase != CONTAINER_EXITED || b->restarted) {
        mark_dead(b);
        if (b->created) {
            finish_create(b);
            return;
        }
        announce(b);
    }
    answer_waiting(b, NULL);
}

static void got_reply(struct box *b, const struct shim_head *h, const char *text, size_t size)
{
    struct err e;
    struct request *q = take_request(b, h->id, 0);
    if (h->arg < 0)
        err_set(&e, -h->arg, "%.*s", (int)MIN(size, sizeof e.text - 1), text);
    if (h->id == 0 && h->arg < 0 && b->restarted)
        answer_waiting(b, &e);
    if (!q)
        return;
    answer(q, h->arg, h->arg < 0 ? &e : NULL);
    if (q->started && h->arg >= 0) { /* waits for its end */
        q->stream = NULL;
        q->next = b->requests;
        b->requests = q;
        return;
    }
    free(q);
}

static void on_shim(void *arg, unsigned events)
{
    static char buf[SHIM_MESSAGE_MAX_BYTES];
    struct box *b = arg;
    (void)events;
    for (int i = 0; i < 16; i++) {
        struct shim_head h;
        ssize_t n = recv(b->fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < (ssize_t)sizeof h) {
            shim_gone(b);
            return;
        }
        memcpy(&h, buf, sizeof h);
        const char *body = buf + sizeof h;
        size_t size = (size_t)n - sizeof h;
        if (h.type == SHIM_STATE) {
            got_state(b, body, size);
            if (b->dying)
                return;
        } else if (h.type == SHIM_REPLY) {
            got_reply(b, &h, body, size);
        } else if (h.type == SHIM_EXEC_EXIT) {
            struct request *q = take_request(b, h.id, SHIM_EXEC);
            if (q)
                q->exited(q->arg, q->id, h.arg);
            free(q);
        }
    }
}

static void on_stop_timeout(void *arg)
{
    struct box *b = arg;
    if (container_is_up(&b->c) || start_is_asked(b)) {
        box_ask(b, SHIM_KILL_ALL, 0, NULL, 0, NULL);
        loop_timer_set(b->stop_timer, KILL_AFTER_STOP_MS);
    }
}

static struct box *box_new(struct runtime *rt, const char *id)
{
    struct box *b = xnew(struct box);
    b->rt = rt;
    b->fd = -1;
    b->c.dir = path_join(rt->dir, id);
    b->stop_timer = loop_timer_new(rt->loop, on_stop_timeout, b);
    return b;
}

/* ---- creation ---- */
/* The specification as kept: everything but the data of secrets. What could not be read again is not written. */
int box_save_spec(const struct box *b, struct err *e)
{
    struct sb p;
    AUTO_FREE char *path = box_path(b, "spec.mp");
    int r = rec_check(&container_spec_rec, &b->c.spec, e);
    if (r < 0)
        return r;
    sb_init(&p, SPEC_FILE_MAX);
    rec_pack(&container_spec_rec, &b->c.spec, &p);
    if (p.overflow)
        r = err_set(e, E_TOO_BIG, "the specification is larger than %d bytes", SPEC_FILE_MAX);
    else /* of one that somebody knows a power cut must leave the old or the new */
        r = (b->known ? file_write_atomic : file_write_volatile)(path, p.s, p.len, 0600, e);
    sb_done(&p);
    return r;
}

static int make_folders(const struct box *b, struct err *e)
{
    static const char *const names[] = { "upper", "work", "merged", "files", "secrets" };
    int r = 0;
    for (unsigned i = 0; i < ARRAY_N(names) && r == 0; i++) {
        AUTO_FREE char *path = box_path(b, names[i]);
        r = file_mkdirs(path, i == 3 || i == 4 ? 0700 : 0755, e);
    }
    return r;
}

static int spawn_shim(struct box *b, const struct container_spec *full, struct err *e)
{
    struct sb p;
    int fds[2];
    if (str_equal(full->log_driver, "journald") && !file_exists(JOURNAL_SOCKET))
        return err_set(e, E_UNSUPPORTED, "log driver journald: there is no " JOURNAL_SOCKET " on this machine; start systemd-journald, or use json-file");
    AUTO_CLOSE int listener = shim_listen(b->c.dir, e);
    if (listener < 0)
        return listener;
    AUTO_CLOSE int memfd = memfd_create("spec", MFD_CLOEXEC);
    sb_init(&p, SPEC_FILE_MAX);
    rec_pack(&container_spec_rec, full, &p);
    int r = memfd < 0 ? err_errno(e, errno, "memfd") : fd_write_all(memfd, p.s, p.len, e);
    crypto_wipe(p.s, p.len);
    sb_done(&p);
    if (r < 0)
        return r;
    b->fd = shim_connect(b->c.dir, e);
    if (b->fd < 0)
        return b->fd;
    AUTO_FREE char *request = xasprintf("%s%c%s", b->c.dir, 0, b->rt->cgroup);
    fds[0] = listener;
    fds[1] = memfd;
    r = fd_send_with_fds(spawner_socket(), request, strlen(b->c.dir) + strlen(b->rt->cgroup) + 2, fds, 2, e);
    if (r < 0)
        return err_wrap(e, "spawner");
    b->watch = loop_fd_add(b->rt->loop, b->fd, LOOP_READ, on_shim, b);
    return 0;
}

void runtime_create(struct runtime *rt, const struct container_spec *spec, runtime_done_fn *done, void *arg)
{
    struct err e = { 0 };
    int r = 0;
    if (box_find(rt, spec->id))
        r = err_set(&e, E_EXISTS, "container %.12s exists already", spec->id);
    if (r == 0 && spec->name)
        r = runtime_name_free(rt, spec->name, &e);
    if (r == 0 && spec->argv.n == 0)
        r = err_set(&e, E_INVALID, "no command given and the image has none");
    if (r < 0) {
        done(arg, r, &e);
        return;
    }
    struct box *b = box_new(rt, spec->id);
    container_spec_copy(&b->c.spec, spec);
    for (uint32_t i = 0; i < b->c.spec.files.n; i++)
        if (b->c.spec.files.v[i].secret) {
            struct bytes *d = &b->c.spec.files.v[i].data;
            crypto_wipe(d->v, d->n);
            free(d->v);
            *d = (struct bytes){ 0 };
        }
    box_add(b);
    b->created = done;
    b->created_arg = arg;
    b->c.state.created_ns = clock_real_ns();
    r = make_folders(b, &e);
    if (r == 0)
        r = box_save_spec(b, &e);
    if (r == 0)
        r = spawn_shim(b, spec, &e);
    if (r < 0) {
        b->created = NULL;
        b->dying = true;
        if (b->watch || b->fd >= 0) {
            loop_fd_remove(b->watch);
            b->watch = NULL;
        }
        remove_box(b);
        done(arg, r, &e);
    }
}

/* ---- the other calls ---- */
struct box *box_or_fail(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg)
{
    struct box *b = box_find(rt, id);
    struct err e;
    if (b && !b->dying)
        return b;
    err_set(&e, E_NOT_FOUND, "no such container: %.64s", id);
    done(arg, -E_NOT_FOUND, &e);
    return NULL;
}

void runtime_start(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg)
{
    struct err e = { 0 };
    struct box *b = box_or_fail(rt, id, done, arg);
    if (!b)
        return;
    if (container_is_up(&b->c)) {
        err_set(&e, E_CONFLICT, b->c.state.phase == CONTAINER_PAUSED ? "container %.12s is paused; unpause it instead" : "container %.12s runs already", id);
        done(arg, -E_CONFLICT, &e);
        return;
    }
    if (b->c.state.phase == CONTAINER_EXITED && !b->restarted) { /* again: a new shim over the same folder */
        if (b->fd >= 0) {
            loop_fd_remove(b->watch);
            b->watch = NULL;
            close(b->fd);
            b->fd = -1;
        }
        b->restarted = done; /* until the shim is ready its last end is what is known of it */
        b->restarted_arg = arg;
        b->signals = 0;
        if (spawn_shim(b, &b->c.spec, &e) < 0) {
            b->restarted = NULL;
            done(arg, -e.code, &e);
        }
        return;
    }
    struct request *q = box_ask(b, SHIM_START, 0, NULL, 0, NULL);
    q->done = done;
    q->arg = arg;
}

int runtime_signal(struct runtime *rt, const char *id, int signum, struct err *e)
{
    struct box *b = box_find(rt, id);
    if (!b || b->dying)
        return err_set(e, E_NOT_FOUND, "no such container: %.64s", id);
    if (!container_is_up(&b->c) && !b->restarted && !start_is_asked(b))
        return err_set(e, E_CONFLICT, "container %.12s is not running", id);
    if (b->restarted) /* its shim takes none before it is ready */
        b->signals |= UINT64_C(1) << (signum - 1);
    else
        box_ask(b, SHIM_SIGNAL, signum, NULL, 0, NULL);
    return 0;
}

bool runtime_is_starting(const struct runtime *rt, const char *id)
{
    const struct box *b = box_find(rt, id);
    return b && (b->restarted || start_is_asked(b));
}

void runtime_stop(struct runtime *rt, const char *id, int64_t grace_ns, runtime_done_fn *done, void *arg)
{
    runtime_stop_by(rt, id, 0, grace_ns, done, arg);
}

void runtime_stop_by(struct runtime *rt, const char *id, int signum, int64_t grace_ns, runtime_done_fn *done, void *arg)
{
    struct box *b = box_or_fail(rt, id, done, arg);
    if (!b)
        return;
    if (!container_is_up(&b->c) && !b->restarted && !start_is_asked(b)) {
        done(arg, 0, NULL);
        return;
    }
    if (b->stopped) {
        struct err e;
        err_set(&e, E_BUSY, "container %.12s is being stopped already", id);
        done(arg, -E_BUSY, &e);
        return;
    }
    b->stopped = done;
    b->stopped_arg = arg;
    if (b->restarted) { /* it has not run yet */
        free(take_request(b, box_ask(b, SHIM_QUIT, 0, NULL, 0, NULL)->id, 0));
        return;
    }
    if (!signum)
        signum = signal_number(b->c.spec.stop_signal ? b->c.spec.stop_signal : "SIGTERM", NULL);
    if (b->c.state.phase == CONTAINER_PAUSED) /* or it would not see the signal before it is killed */
        box_ask(b, SHIM_FREEZE, 0, NULL, 0, NULL);
    box_ask(b, SHIM_SIGNAL, signum > 0 ? signum : SIGTERM, NULL, 0, NULL);
    loop_timer_set(b->stop_timer, grace_ns < 0 ? -1 : grace_ns / MS_NS);
}

void runtime_delete(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg)
{
    struct box *b = box_or_fail(rt, id, done, arg);
    if (!b)
        return;
    b->dying = true;
    logs_container_ended(rt, b->c.spec.id);
    b->deleted = done;
    b->deleted_arg = arg;
    if (b->fd >= 0)
        free(take_request(b, box_ask(b, SHIM_QUIT, 0, NULL, 0, NULL)->id, 0)); /* answered by EOF */
    else
        remove_box(b);
}

void runtime_exec(struct runtime *rt, const char *id, const struct exec_spec *spec, runtime_exec_fn *started,
                  runtime_exit_fn *exited, void *arg)
{
    struct err e = { 0 };
    struct sb p;
    int pair[2];
    struct box *b = box_find(rt, id);
    if (!b || b->dying)
        err_set(&e, E_NOT_FOUND, "no such container: %.64s", id);
    else if (b->c.state.phase == CONTAINER_PAUSED)
        err_set(&e, E_CONFLICT, "container %.12s is paused, unpause the container before exec", id);
    else if (b->c.state.phase != CONTAINER_RUNNING)
        err_set(&e, E_CONFLICT, "container %.12s is not running", id);
    else if (spec->argv.n == 0)
        err_set(&e, E_INVALID, "no command given");
    else if (execs_asked(b) == EXECS_ASKED_MAX)
        err_set(&e, E_BUSY, "%d execs are being started in container %.12s already; try again later", EXECS_ASKED_MAX, id);
    else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        err_errno(&e, errno, "exec");
    if (e.code) {
        started(arg, -e.code, NULL, 0, &e);
        return;
    }
    sb_init(&p, SHIM_MESSAGE_MAX_BYTES - 64);
    rec_pack(&exec_spec_rec, spec, &p);
    if (p.overflow) {
        sb_done(&p);
        close(pair[0]);
        close(pair[1]);
        err_set(&e, E_TOO_BIG, "the command and its environment are longer than %d bytes", SHIM_MESSAGE_MAX_BYTES - 64);
        started(arg, -e.code, NULL, 0, &e);
        return;
    }
    struct request *q = box_ask(b, SHIM_EXEC, 0, p.s, p.len, &pair[1]);
    close(pair[1]);
    sb_done(&p);
    q->started = started;
    q->exited = exited;
    q->arg = arg;
    q->stream = stream_from_fd(rt->loop, pair[0]);
}

struct stream *runtime_attach(struct runtime *rt, const char *id, struct err *e)
{
    int pair[2];
    struct box *b = box_find(rt, id);
    if (!b || b->dying)
        return err_set(e, E_NOT_FOUND, "no such container: %.64s", id), NULL;
    bool later = b->c.state.phase == CONTAINER_EXITED;
    if (!later && b->fd < 0)
        return err_set(e, E_CONFLICT, "container %.12s is not running", id), NULL;
    drop_gone(b);
    if (b->n_attached == ATTACHED_MAX)
        return err_set(e, E_BUSY, "%d streams wait for the start of container %.12s already", ATTACHED_MAX, id), NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_errno(e, errno, "attach"), NULL;
    b->attached[b->n_attached++] = pair[1];
    if (!later)
        give_attached(b);
    return stream_from_fd(rt->loop, pair[0]);
}

int runtime_exec_resize(struct runtime *rt, const char *id, uint64_t exec_id, uint16_t rows, uint16_t cols,
                        struct err *e)
{
    struct box *b = box_find(rt, id);
    if (!b || b->dying || b->fd < 0)
        return err_set(e, E_NOT_FOUND, "no such container: %.64s", id);
    box_ask(b, SHIM_RESIZE, (int32_t)((uint32_t)rows << 16 | cols), &exec_id, sizeof exec_id, NULL);
    return 0;
}

const struct container *runtime_find(const struct runtime *rt, const char *ref)
{
    const struct box *b = box_find(rt, ref), *prefix = NULL;
    if (b)
        return b->dying ? NULL : &b->c;
    size_t n = strlen(ref);
    unsigned n_prefix = 0;
    for (struct map_item *it = NULL; (it = map_next(&rt->boxes, it));) {
        b = it->value;
        if (b->dying)
            continue;
        if (str_equal(b->c.spec.name, *ref == '/' ? ref + 1 : ref))
            return &b->c;
        if (n >= 1 && strncmp(b->c.spec.id, ref, n) == 0) {
            prefix = b;
            n_prefix++;
        }
    }
    return n_prefix == 1 ? &prefix->c : NULL;
}

const struct container *runtime_next(const struct runtime *rt, const struct container *after)
{
    const struct list_node *n = after ? &list_entry(after, const struct box, c)->node : &rt->in_order;
    while ((n = n->next) != &rt->in_order) {
        const struct box *b = list_entry(n, const struct box, node);
        if (!b->dying)
            return &b->c;
    }
    return NULL;
}

/* ---- start and end of the daemon ---- */
static int load_spec(struct box *b, const char *id, struct err *e)
{
    AUTO_FREE char *text = NULL, *path = box_path(b, "spec.mp");
    size_t n;
    int r = file_read(path, SPEC_FILE_MAX, &text, &n, e);
    if (r == 0)
        r = rec_unpack(&container_spec_rec, &b->c.spec, text, n, e);
    return r < 0 || str_equal(b->c.spec.id, id) ? r : err_set(e, E_CORRUPT, "spec.mp names another container");
}

static void load_state(struct box *b)
{
    AUTO_FREE char *text = NULL, *path = box_path(b, "state.mp");
    size_t n;
    if (file_read(path, 65536, &text, &n, NULL) == 0 && rec_unpack(&container_state_rec, &b->c.state, text, n, NULL) == 0)
        return;
    container_state_clear(&b->c.state); /* a power cut: adopt() says that it is dead */
    b->c.state.phase = CONTAINER_RUNNING;
}

/* Died while it was made, nobody was told of it: the first file is written before anything runs, the second before
 * anything of the container's own does. */
static bool is_unfinished(const struct box *b)
{
    AUTO_FREE char *spec = box_path(b, "spec.mp"), *state = box_path(b, "state.mp");
    return !file_exists(spec) || !file_exists(state);
}

/* The shim tells its state at once; it is waited for, so that the daemon starts with the truth. */
static void adopt(struct box *b)
{
    static char buf[SHIM_MESSAGE_MAX_BYTES];
    struct shim_head h;
    b->fd = shim_connect(b->c.dir, NULL);
    if (b->fd < 0) {
        if (b->c.state.phase != CONTAINER_EXITED)
            mark_dead(b);
        return;
    }
    struct pollfd p = { .fd = b->fd, .events = POLLIN };
    ssize_t n = poll(&p, 1, 1000) > 0 ? recv(b->fd, buf, sizeof buf, MSG_DONTWAIT) : -1;
    if (n >= (ssize_t)sizeof h) {
        struct container_state s = { 0 };
        memcpy(&h, buf, sizeof h);
        if (h.type == SHIM_STATE && rec_unpack(&container_state_rec, &s, buf + sizeof h, (size_t)n - sizeof h, NULL) == 0) {
            container_state_clear(&b->c.state);
            b->c.state = s;
        }
    }
    b->watch = loop_fd_add(b->rt->loop, b->fd, LOOP_READ, on_shim, b);
}

static void remove_unfinished(struct box *b, const char *id)
{
    struct err e;
    struct shim_head h = { SHIM_QUIT, 0, 0 };
    log_info("container %.12s was never finished, removed", id);
    str_set(&b->c.spec.id, id);
    box_add(b);
    b->dying = true;
    b->fd = shim_connect(b->c.dir, NULL);
    if (b->fd >= 0 && fd_send_with_fds(b->fd, &h, sizeof h, NULL, 0, &e) < 0)
        log_warn("container %.12s: %s", id, e.text);
    remove_box(b);
}

static void take_over(struct runtime *rt, const char *id)
{
    struct err e = { 0 };
    struct box *b = box_new(rt, id);
    if (is_unfinished(b)) {
        remove_unfinished(b, id);
    } else if (load_spec(b, id, &e) < 0) {
        log_error("container %.12s cannot be taken over, its files are left as they are: %s; remove the folder %s when you need "
                  "nothing of it any more", id, e.text, b->c.dir);
        box_free(b);
    } else {
        load_state(b);
        box_add(b);
        box_load_notes(b);
        b->known = true;
        adopt(b);
    }
}

int runtime_open(struct runtime **ret, struct loop *l, const struct runtime_config *cfg, runtime_event_fn *fn,
                 void *arg, struct err *e)
{
    int r = file_mkdirs(cfg->dir, 0711, e);
    if (r < 0)
        return r;
    DIR *d = opendir(cfg->dir);
    if (!d)
        return err_errno(e, errno, "%s", cfg->dir);
    struct runtime *rt = xnew(struct runtime);
    rt->loop = l;
    rt->dir = xstrdup(cfg->dir);
    rt->cgroup = xstrdup(cfg->cgroup);
    rt->event = fn;
    rt->event_arg = arg;
    rt->next_id = (uint64_t)clock_real_ns(); /* execs of an earlier daemon may still run under its ids */
    map_init(&rt->boxes);
    list_init(&rt->in_order);
    list_init(&rt->log_readers);
    for (struct dirent *x; (x = readdir(d));)
        if (strlen(x->d_name) == 64)
            take_over(rt, x->d_name);
    closedir(d);
    struct strs groups = { 0 }; /* of containers whose folder is gone */
    cgroup_list(rt->cgroup, &groups);
    for (uint32_t i = 0; i < groups.n; i++) {
        AUTO_FREE char *folder = path_join(rt->dir, groups.v[i]);
        if (!file_exists(folder))
            cgroup_remove(rt->cgroup, groups.v[i], NULL);
    }
    strs_clear(&groups);
    *ret = rt;
    for (struct map_item *it = NULL; (it = map_next(&rt->boxes, it));)
        announce(it->value);
    return 0;
}

void runtime_close(struct runtime *rt)
{
    if (!rt)
        return;
    for (struct map_item *it = NULL; (it = map_next(&rt->boxes, it));) {
        struct box *b = it->value;
        for (struct request *q; (q = b->requests);) {
            b->requests = q->next;
            stream_free(q->stream);
            free(q);
        }
        box_free(b);
    }
    /* A shim that is just ending still removes its container's group. */
    for (int i = 0; rt->boxes.n == 0 && i < 100 && !cgroup_remove_parent(rt->cgroup); i++)
        poll(NULL, 0, 10);
    map_done(&rt->boxes);
    free(rt->dir);
    free(rt->cgroup);
    free(rt);
}
