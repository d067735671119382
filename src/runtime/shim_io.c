/* The shim: one small process a container. It holds what must outlive the daemon: the pipes or terminal, the
 * log, the exit status. State goes to state.mp (rename) and to every daemon that connects. One poll loop, no
 * library; buffers are bounded: an exec whose reader is slow is paused, an attached reader that is slow is let
 * go, the container itself never waits for anybody but its log. */
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <shoal/base/file.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONNS_MAX = 8, SINKS_MAX = 64, PROCS_MAX = 64, QUEUE_MAX_BYTES = 1 << 20, QUEUE_HIGH_BYTES = 64 << 10 };
#define QUIT_WAIT_NS (10 * SEC_NS)

struct proc; /* the container (id 0) or an exec */
struct sink {
    int fd;             /* stream socket, -1: free */
    struct proc *of;
    struct sb out;      /* to be sent */
    bool ending;        /* close when sent */
    bool input_ended;
};
struct proc {
    bool used, exited, tty;
    uint64_t id;
    pid_t pid;
    int in, out, err;   /* our ends; tty: in == out, err -1 */
    struct sb in_queue; /* for in */
    bool close_in;      /* after in_queue */
    int code;
};
struct shim {
    const struct shim_args *a;
    struct container_state state;
    struct log_file *log;
    int signal_fd, gate, errors, lock;
    struct process_start start;
    int conns[CONNS_MAX];
    struct sink sinks[SINKS_MAX];
    struct proc procs[PROCS_MAX]; /* [0]: the container */
    bool quit;
    int64_t quit_ns;
};

static void set_nonblock(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void close_at(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- messages to the daemon ---- */
static void send_to(struct shim *s, int fd, uint32_t type, int32_t arg, uint64_t id, const void *p, size_t size)
{
    struct shim_head h = { type, arg, id };
    struct iovec v[2] = { { &h, sizeof h }, { (void *)(uintptr_t)p, size } };
    struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
    (void)s;
    if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0)
        shutdown(fd, SHUT_RDWR); /* it will find out by EOF and ask again */
}

static void send_state(struct shim *s, int fd)
{
    struct sb b;
    sb_init(&b, SHIM_MESSAGE_MAX_BYTES);
    rec_pack(&container_state_rec, &s->state, &b);
    send_to(s, fd, SHIM_STATE, 0, 0, b.s, b.len);
    sb_done(&b);
}

static void state_changed(struct shim *s)
{
    struct sb b;
    struct err e;
    AUTO_FREE char *path = path_join(s->a->dir, "state.mp");
    sb_init(&b, SHIM_MESSAGE_MAX_BYTES);
    rec_pack(&container_state_rec, &s->state, &b);
    if (file_write_volatile(path, b.s, b.len, 0640, &e) < 0 && !s->state.error)
        str_set(&s->state.error, e.text);
    sb_done(&b);
    for (int i = 0; i < CONNS_MAX; i++)
        if (s->conns[i] >= 0)
            send_state(s, s->conns[i]);
}

static void reply(struct shim *s, int fd, uint64_t id, int result, const struct err *e)
{
    const char *text = result < 0 && e ? e->text : "";
    send_to(s, fd, SHIM_REPLY, result, id, text, strlen(text));
}

/* ---- sinks ---- */
static void sink_close(struct sink *k)
{
    close_at(&k->fd);
    sb_done(&k->out);
    k->of = NULL;
}

static struct sink *sink_new(struct shim *s, int fd, struct proc *of)
{
    for (int i = 0; i < SINKS_MAX; i++)
        if (s->sinks[i].fd < 0) {
            s->sinks[i] = (struct sink){ .fd = fd, .of = of };
            sb_init(&s->sinks[i].out, QUEUE_MAX_BYTES + (64 << 10));
            set_nonblock(fd);
            return &s->sinks[i];
        }
    return NULL;
}

static void sink_flush(struct sink *k)
{
    while (k->out.len > 0) {
        ssize_t n = send(k->fd, k->out.s, k->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            sink_close(k);
            return;
        }
        sb_drop_front(&k->out, (size_t)n);
    }
    if (k->ending)
        sink_close(k);
}

static void sink_write(struct sink *k, bool tty, int stream, const char *p, size_t size)
{
    unsigned char h[8] = { (unsigned char)stream, 0, 0, 0, (unsigned char)(size >> 24), (unsigned char)(size >> 16),
                           (unsigned char)(size >> 8), (unsigned char)size };
    if (k->out.len > QUEUE_MAX_BYTES) { /* attached and not reading */
        sink_close(k);
        return;
    }
    if (!tty)
        sb_add(&k->out, h, sizeof h);
    sb_add(&k->out, p, size);
    sink_flush(k);
}

static size_t proc_queued(const struct shim *s, const struct proc *p)
{
    size_t most = 0;
    for (int i = 0; i < SINKS_MAX; i++)
        if (s->sinks[i].fd >= 0 && s->sinks[i].of == p)
            most = MAX(most, s->sinks[i].out.len);
    return most;
}

/* ---- processes ---- */
static void pump_out(struct shim *s, struct proc *p, int *fd, int stream)
{
    static char buf[32 << 10];
    for (int turn = 0; turn < 8 && *fd >= 0; turn++) {
        ssize_t n = read(*fd, buf, sizeof buf);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) { /* end, or EIO of a terminal whose last user went */
            if (p->tty)
                p->in = -1;
            close_at(fd);
            return;
        }
        if (p->id == 0)
            log_file_write(s->log, stream == 2, buf, (size_t)n);
        for (int i = 0; i < SINKS_MAX; i++)
            if (s->sinks[i].fd >= 0 && s->sinks[i].of == p)
                sink_write(&s->sinks[i], p->tty, stream, buf, (size_t)n);
        if (!p->tty && (size_t)n < sizeof buf) /* all there was; poll will tell of more, and of the end */
            return;
    }
}

static void pump_in(struct proc *p)
{
    while (p->in >= 0 && p->in_queue.len > 0) {
        ssize_t n = write(p->in, p->in_queue.s, p->in_queue.len);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            sb_reset(&p->in_queue);
            break;
        }
        sb_drop_front(&p->in_queue, (size_t)n);
    }
    if (p->close_in && p->in_queue.len == 0 && !p->tty)
        close_at(&p->in);
}

static void sink_input(struct sink *k, bool hung_up)
{
    char buf[16 << 10];
    ssize_t n = recv(k->fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        sink_close(k);
        return;
    }
    struct proc *of = k->of;
    if (n == 0) {
        k->input_ended = true;
        of->close_in = true;
        if (hung_up) /* in both directions: nobody reads what would come */
            sink_close(k);
    } else {
        sb_add(&of->in_queue, buf, (size_t)n);
    }
    pump_in(of);
}

/* Over: what is left in the pipes is read, sinks end after their queue. */
static void proc_over(struct shim *s, struct proc *p)
{
    for (int i = 0; i < 64 && (p->out >= 0 || p->err >= 0); i++) {
        struct pollfd f[2] = { { .fd = p->out, .events = POLLIN }, { .fd = p->err, .events = POLLIN } };
        if (poll(f, 2, 0) <= 0)
            break;
        pump_out(s, p, &p->out, 1);
        pump_out(s, p, &p->err, 2);
    }
    if (!p->tty)
        close_at(&p->in);
    p->in = -1;
    close_at(&p->out);
    close_at(&p->err);
    sb_done(&p->in_queue);
    if (p->id)
        for (int i = 0; i < CONNS_MAX; i++)
            if (s->conns[i] >= 0)
                send_to(s, s->conns[i], SHIM_EXEC_EXIT, p->code, p->id, NULL, 0);
    for (int i = 0; i < SINKS_MAX; i++)
        if (s->sinks[i].fd >= 0 && s->sinks[i].of == p) {
            s->sinks[i].ending = true;
            sink_flush(&s->sinks[i]);
        }
    if (p->id)
        p->used = false;
}

/* The end of process 1. The kernel lets it end only after every other process of its pid namespace is reaped, and
 * execs are children of ours: waiting for one pid alone would wait for ever. */
static void kill_and_reap(pid_t pid)
{
    pid_t p;
    kill(pid, SIGKILL);
    do
        p = waitpid(-1, NULL, 0);
    while (p != pid && (p > 0 || errno == EINTR));
}

static void container_exited(struct shim *s, int code, const char *error)
{
    s->state.phase = CONTAINER_EXITED;
    s->state.exit_code = code;
    s->state.pid = 0;
    s->state.ready = false;
    s->state.oom_killed = cgroup_oom_killed(s->a->cgroup_parent, s->a->spec->id);
    s->state.finished_ns = clock_real_ns();
    if (error)
        str_set(&s->state.error, error);
    s->procs[0].exited = true;
    log_file_close(s->log);
    s->log = NULL;
    close_at(&s->start.root);
    for (int i = 0; i < 200 && !cgroup_remove(s->a->cgroup_parent, s->a->spec->id, NULL); i++)
        poll(NULL, 0, 5); /* the kernel lets the last member go in its own time */
    if (s->lock >= 0)
        flock(s->lock, LOCK_UN); /* before anybody hears that its files can be had */
    close_at(&s->lock);
    state_changed(s);
}

static void reap(struct shim *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        for (int i = 0; i < PROCS_MAX; i++) {
            struct proc *p = &s->procs[i];
            if (!p->used || p->pid != pid || p->exited)
                continue;
            p->code = code;
            p->exited = true;
            proc_over(s, p);
            if (i == 0)
                container_exited(s, code, NULL);
        }
    }
}

/* Pipes of a new process; ends of ours go to p, its own to start. */
static int make_io(struct proc *p, struct process_start *start, bool tty, bool want_in, unsigned rows, unsigned cols,
                   struct err *e)
{
    int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 };
    p->in = p->out = p->err = -1;
    start->tty = p->tty = tty;
    start->rows = rows;
    start->cols = cols;
    start->in = start->out = start->err = -1;
    if (tty)
        return 0; /* opened inside, where it belongs; it comes with the process being ready */
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 || (want_in && pipe2(in, O_CLOEXEC) < 0))
        return err_errno(e, errno, "pipe");
    if (!want_in)
        in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    p->in = in[1];
    p->out = out[0];
    p->err = err[0];
    start->in = in[0];
    start->out = out[1];
    start->err = err[1];
    set_nonblock(p->out);
    set_nonblock(p->err);
    if (p->in >= 0)
        set_nonblock(p->in);
    return 0;
}

static void close_start(struct process_start *start)
{
    close_at(&start->in);
    close_at(&start->out);
    close_at(&start->err);
}

/* The process is ready, or says why not. */
static int wait_ready(struct proc *p, int errors, struct err *e)
{
    char text[512];
    int fd = -1;
    unsigned n_fds = 1;
    long n = fd_recv_with_fds(errors, text, 1, &fd, &n_fds, NULL); /* one byte: more may follow at once */
    if (n == 1 && text[0] == '\0' && (n_fds == 1) == p->tty) {
        if (p->tty)
            p->in = p->out = fd;
        return 0;
    }
    if (n_fds == 1)
        close(fd);
    if (n == 1) {
        ssize_t more = read(errors, text + 1, sizeof text - 1);
        n += more > 0 ? more : 0;
    }
    return n > 0 ? err_set(e, E_INVALID, "%.*s", (int)n, text)
                 : err_set(e, E_INVALID, "the process died before it was ready (killed, or out of memory?)");
}

static int make_container(struct shim *s, struct err *e)
{
    struct container_spec *spec = s->a->spec;
    struct proc *p = &s->procs[0];
    if (s->a->failed) {
        *e = *s->a->failed;
        return -e->code;
    }
    s->start = (struct process_start){ .spec = spec, .dir = s->a->dir, .cgroup_parent = s->a->cgroup_parent,
                                       .seccomp = s->a->seccomp, .root = -1 };
    int r = s->lock = root_lock(s->a->dir, ROOT_WAIT_MS, e);
    if (r == -E_BUSY)
        err_set(e, E_BUSY, "a copy, export or upload of the container's files is going on and does not end; end it, then start the container again");
    if (r >= 0)
        r = cgroup_create(s->a->cgroup_parent, spec, e);
    if (r == 0)
        r = make_io(p, &s->start, spec->tty, spec->open_stdin, 0, 0, e);
    if (r == 0)
        r = process_create(&s->start, &p->pid, &s->gate, &s->errors, e);
    if (r < 0)
        return r;
    close_start(&s->start);
    p->used = true;
    sb_init(&p->in_queue, QUEUE_MAX_BYTES);
    r = wait_ready(p, s->errors, e);
    char root[64];
    snprintf(root, sizeof root, "/proc/%d/root", p->pid);
    if (r == 0 && (s->start.root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        r = err_errno(e, errno, "the root of the container");
    for (uint32_t i = 0; i < spec->files.n; i++) { /* they are in place: secrets leave this memory */
        struct bytes *d = &spec->files.v[i].data;
        explicit_bzero(d->v, d->n);
        free(d->v);
        *d = (struct bytes){ 0 };
    }
    return r;
}

static int start_container(struct shim *s, struct err *e)
{
    char text[512];
    if (s->state.phase != CONTAINER_CREATED || !s->state.ready)
        return err_set(e, E_CONFLICT, "the container was started before");
    if (write(s->gate, "", 1) != 1)
        return err_set(e, E_INTERNAL, "the container's first process died");
    close_at(&s->gate);
    ssize_t n = read(s->errors, text, sizeof text - 1);
    close_at(&s->errors);
    s->state.started_ns = clock_real_ns();
    if (n > 0) {
        s->procs[0].exited = true; /* reaped without becoming an exit of its own */
        kill_and_reap(s->procs[0].pid);
        proc_over(s, &s->procs[0]);
        text[n] = '\0';
        container_exited(s, 127, text);
        return err_set(e, E_INVALID, "%s", text);
    }
    s->state.phase = CONTAINER_RUNNING;
    s->state.ready = false;
    s->state.pid = s->procs[0].pid;
    s->state.start_id = process_start_id(s->procs[0].pid);
    state_changed(s);
    return 0;
}

static int start_exec(struct shim *s, uint64_t id, const void *bytes, size_t size, int fd, struct err *e)
{
    struct exec_spec x = { 0 };
    struct process_start start = s->start;
    struct proc *p = NULL;
    char text[512];
    int errors;
    if (s->state.phase != CONTAINER_RUNNING || fd < 0)
        return err_set(e, E_CONFLICT, s->state.phase == CONTAINER_PAUSED ? "the container is paused, unpause it first"
                                                                         : "the container is not running");
    int r = rec_unpack(&exec_spec_rec, &x, bytes, size, e);
    if (r < 0)
        return r;
    for (int i = 1; i < PROCS_MAX && !p; i++)
        if (!s->procs[i].used)
            p = &s->procs[i];
    if (!p)
        r = err_set(e, E_BUSY, "%d execs run in this container already", PROCS_MAX - 1);
    if (r == 0) {
        *p = (struct proc){ .id = id };
        r = make_io(p, &start, x.tty, x.stdin_open, (unsigned)x.rows, (unsigned)x.cols, e);
    }
    if (r == 0) {
        r = process_exec(&start, &x, s->procs[0].pid, &p->pid, &errors, e);
        close_start(&start);
    }
    if (r == 0) {
        p->used = true;
        sb_init(&p->in_queue, QUEUE_MAX_BYTES);
        r = wait_ready(p, errors, e);
        ssize_t n = r == 0 ? read(errors, text, sizeof text) : 0;
        close(errors);
        if (n > 0)
            r = err_set(e, E_INVALID, "%.*s", (int)n, text);
        if (r == 0 && !sink_new(s, fd, p))
            r = err_set(e, E_BUSY, "%d streams are open to this container already", SINKS_MAX);
        if (r < 0) {
            kill(p->pid, SIGKILL);
            p->used = false;
            sb_done(&p->in_queue);
        }
    }
    if (r < 0 && p) {
        if (p->in != p->out)
            close_at(&p->in);
        close_at(&p->out);
        close_at(&p->err);
    }
    rec_clear(&exec_spec_rec, &x);
    return r;
}

static int resize(struct shim *s, uint64_t id, int32_t size, struct err *e)
{
    struct winsize w = { .ws_row = (unsigned short)((uint32_t)size >> 16), .ws_col = (unsigned short)size };
    for (int i = 0; i < PROCS_MAX; i++)
        if (s->procs[i].used && s->procs[i].id == id && s->procs[i].tty && s->procs[i].out >= 0)
            return ioctl(s->procs[i].out, TIOCSWINSZ, &w) < 0 ? err_errno(e, errno, "resize") : 0;
    return err_set(e, E_CONFLICT, "it has no terminal");
}

static int freeze(struct shim *s, bool on, struct err *e)
{
    if (s->state.phase != (on ? CONTAINER_RUNNING : CONTAINER_PAUSED))
        return err_set(e, E_CONFLICT, s->state.phase == CONTAINER_PAUSED    ? "the container is paused already"
                                      : s->state.phase == CONTAINER_RUNNING ? "the container is not paused"
                                                                            : "the container is not running");
    int r = cgroup_freeze(s->a->cgroup_parent, s->a->spec->id, on, e);
    if (r < 0)
        return r;
    s->state.phase = on ? CONTAINER_PAUSED : CONTAINER_RUNNING;
    state_changed(s);
    return 0;
}

static int signal_container(struct shim *s, int signum, struct err *e)
{
    if (s->state.phase != CONTAINER_RUNNING && s->state.phase != CONTAINER_PAUSED)
        return err_set(e, E_CONFLICT, "the container is not running");
    if (kill(s->procs[0].pid, signum) < 0)
        return err_errno(e, errno, "signal %d", signum);
    int stop = s->a->spec->stop_signal ? signal_number(s->a->spec->stop_signal, NULL) : SIGTERM;
    bool ends = signum == SIGKILL || signum == stop;
    return ends && s->state.phase == CONTAINER_PAUSED ? freeze(s, false, e) : 0; /* a frozen one cannot obey */
}

/* ---- the loop ---- */
static void handle(struct shim *s, int conn, const struct shim_head *h, const void *p, size_t size, int fd)
{
    struct err e = { 0 };
    uint64_t of = 0;
    int r;
    switch (h->type) {
    case SHIM_START: r = start_container(s, &e); break;
    case SHIM_SIGNAL: r = signal_container(s, h->arg, &e); break;
    case SHIM_FREEZE: r = freeze(s, h->arg != 0, &e); break;
    case SHIM_KILL_ALL: r = signal_container(s, SIGKILL, &e); break;
    case SHIM_EXEC: r = start_exec(s, h->id, p, size, fd, &e); break;
    case SHIM_RESIZE:
        if (size == sizeof of)
            memcpy(&of, p, size);
        r = resize(s, of, h->arg, &e);
        break;
    case SHIM_ATTACH:
        r = fd >= 0 && sink_new(s, fd, &s->procs[0]) ? 0 : err_set(&e, E_BUSY, "too many streams");
        break;
    case SHIM_QUIT:
        s->quit = true;
        s->quit_ns = clock_mono_ns();
        return;
    default:
        r = err_set(&e, E_UNSUPPORTED, "this container's shim is older than the daemon");
    }
    if (fd >= 0 && r < 0)
        close(fd);
    reply(s, conn, h->id, r, &e);
}

static void serve(struct shim *s, int *conn)
{
    static char buf[SHIM_MESSAGE_MAX_BYTES];
    int fd = -1;
    unsigned n = 1;
    struct shim_head h;
    long size = fd_recv_with_fds(*conn, buf, sizeof buf, &fd, &n, NULL);
    if (size < (long)sizeof h) {
        if (n == 1 && fd >= 0)
            close(fd);
        close_at(conn);
        return;
    }
    memcpy(&h, buf, sizeof h);
    handle(s, *conn, &h, buf + sizeof h, (size_t)size - sizeof h, n == 1 ? fd : -1);
}

static void accept_daemon(struct shim *s)
{
    int fd = accept4(s->a->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (int i = 0; i < CONNS_MAX; i++)
        if (s->conns[i] < 0) {
            s->conns[i] = fd;
            send_state(s, fd);
            return;
        }
    close(fd);
}

static unsigned add_poll(struct pollfd *v, unsigned n, int fd, int events)
{
    v[n] = (struct pollfd){ .fd = fd, .events = (short)events };
    return n + 1;
}

/* A container that is removed as it ends (--rm): its last output is still on its way to those who are attached. */
static bool is_sending(const struct shim *s)
{
    bool any = false;
    for (int i = 0; i < SINKS_MAX; i++)
        any |= s->sinks[i].fd >= 0 && s->sinks[i].out.len;
    return any && s->procs[0].exited && clock_mono_ns() - s->quit_ns < QUIT_WAIT_NS;
}

static bool turn(struct shim *s)
{
    struct pollfd v[2 + CONNS_MAX + SINKS_MAX + 3 * PROCS_MAX];
    unsigned n = 0;
    n = add_poll(v, n, s->a->listen_fd, POLLIN);
    n = add_poll(v, n, s->signal_fd, POLLIN);
    for (int i = 0; i < CONNS_MAX; i++)
        n = add_poll(v, n, s->conns[i], POLLIN);
    bool draining = false;
    for (int i = 0; i < SINKS_MAX; i++) {
        struct sink *k = &s->sinks[i];
        bool takes = k->fd >= 0 && !k->input_ended && !k->ending && k->of->in_queue.len < QUEUE_HIGH_BYTES;
        draining |= k->fd >= 0;
        n = add_poll(v, n, k->fd, (takes ? POLLIN : 0) | (k->fd >= 0 && k->out.len ? POLLOUT : 0));
    }
    for (int i = 0; i < PROCS_MAX; i++) {
        struct proc *p = &s->procs[i];
        bool held = p->used && p->id && proc_queued(s, p) > QUEUE_HIGH_BYTES;
        n = add_poll(v, n, p->used && !held ? p->out : -1, POLLIN);
        n = add_poll(v, n, p->used && !held ? p->err : -1, POLLIN);
        n = add_poll(v, n, p->used && p->in_queue.len ? p->in : -1, POLLOUT);
    }
    if (s->procs[0].exited && !draining)
        return false;
    if (poll(v, n, s->procs[0].exited ? 5000 : -1) == 0)
        return false; /* an attached reader that never reads */
    unsigned at = 2;
    if (v[0].revents)
        accept_daemon(s);
    for (int i = 0; i < CONNS_MAX; i++, at++)
        if (v[at].revents && s->conns[i] == v[at].fd)
            serve(s, &s->conns[i]);
    for (int i = 0; i < SINKS_MAX; i++, at++) {
        struct sink *k = &s->sinks[i];
        if (k->fd >= 0 && k->fd == v[at].fd && v[at].revents & POLLOUT)
            sink_flush(k);
        if (k->fd >= 0 && k->fd == v[at].fd && v[at].revents & (POLLIN | POLLHUP | POLLERR))
            sink_input(k, v[at].revents & (POLLHUP | POLLERR));
    }
    for (int i = 0; i < PROCS_MAX; i++, at += 3) {
        struct proc *p = &s->procs[i];
        if (v[at].revents && p->used && p->out == v[at].fd)
            pump_out(s, p, &p->out, 1);
        if (v[at + 1].revents && p->used && p->err == v[at + 1].fd)
            pump_out(s, p, &p->err, 2);
        if (v[at + 2].revents && p->used)
            pump_in(p);
    }
    if (v[1].revents) {
        struct signalfd_siginfo info;
        if (read(s->signal_fd, &info, sizeof info) > 0)
            reap(s);
    }
    return !s->quit || is_sending(s);
}

/* Whether the container has ended before; and when it, not this run of it, was created. */
static bool ended_before(const char *dir, int64_t *ret_created_ns)
{
    struct container_state was = { 0 };
    size_t n;
    AUTO_FREE char *text = NULL, *path = path_join(dir, "state.mp");
    bool is_kept = file_read(path, SHIM_MESSAGE_MAX_BYTES, &text, &n, NULL) == 0 && rec_unpack(&container_state_rec, &was, text, n, NULL) == 0;
    bool ended = is_kept && was.phase == CONTAINER_EXITED;
    *ret_created_ns = is_kept ? was.created_ns : clock_real_ns();
    container_state_clear(&was);
    return ended;
}

int shim_run(const struct shim_args *a)
{
    static struct shim s;
    struct err e = { 0 };
    sigset_t set;
    s.a = a;
    s.gate = s.errors = s.start.root = s.lock = -1;
    for (int i = 0; i < CONNS_MAX; i++)
        s.conns[i] = -1;
    for (int i = 0; i < SINKS_MAX; i++)
        s.sinks[i].fd = -1;
    for (int i = 0; i < PROCS_MAX; i++)
        s.procs[i].in = s.procs[i].out = s.procs[i].err = -1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    s.log = log_file_open(a->dir, a->spec);
    bool again = ended_before(a->dir, &s.state.created_ns);
    int r = s.signal_fd < 0 ? err_errno(&e, errno, "signals of the shim") : 0; /* without it no end would be seen */
    if (r == 0)
        r = make_container(&s, &e);
    if (r < 0) {
        s.procs[0].exited = true;
        if (s.procs[0].pid > 0)
            kill_and_reap(s.procs[0].pid);
        accept_daemon(&s); /* the daemon is connected or connecting: it waits for this answer */
        if (again && s.lock == -E_BUSY) { /* nothing has run: its last end is still its last */
            reply(&s, s.conns[0], 0, r, &e);
            return 1;
        }
        container_exited(&s, 127, e.text);
        return 1;
    }
    s.state.ready = true;
    s.state.pid = s.procs[0].pid; /* its root can be looked into from now on */
    s.state.start_id = process_start_id(s.procs[0].pid);
    accept_daemon(&s);
    state_changed(&s);
    while (turn(&s))
        ;
    if (!s.procs[0].exited) {
        if (signal_container(&s, SIGKILL, &e) < 0)
            kill(s.procs[0].pid, SIGKILL);
        kill_and_reap(s.procs[0].pid);
        container_exited(&s, 128 + SIGKILL, NULL);
    }
    return 0;
}
