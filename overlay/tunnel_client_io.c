/* The daemon's end of the tunnel process: starts it when none answers on its socket, gives it the wanted state
 * and the TAPs it lacks, starts it again should it die. It is started apart (own session), so that it goes on
 * when the daemon ends. */
#include "overlay_internal.h"
#include "kept.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/stream.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

LOG_MODULE("tunnel");

enum { RETRY_MS = 50, SPAWN_AGAIN_MS = 2000, HEAD_BYTES = 5, SEND_LIMIT_S = 2 };

struct tunnel_client {
    struct loop *loop;
    char *exe, *path;
    void (*ready)(void *arg);
    void *arg;
    int fd;
    struct loop_fd *watch;
    struct loop_timer *timer;
    int64_t spawned_ms;
    pid_t pid; /* of a process we started, 0: none */
    struct sb in, config; /* config: the last one, packed */
    struct map found;     /* name -> struct kept: what the process kept from before this daemon, and nobody took yet */
    bool found_known;     /* that is all of it: it has answered */
    int pending_fds[TUNNEL_KEPT_FDS]; /* came with the frame being read */
    struct map kept;      /* name -> struct kept: what it is to keep, borrowed */
    struct map stale;     /* name -> self: what it is not to keep any more, to be told */
    struct map taps;      /* "vni" -> self: what the process said that it holds, and what it was given since */
    struct tunnel_status last;
    unsigned n_asked;     /* how many answers to STATUS are on their way */
    bool told;            /* the answer to the last one came */
};

extern char **environ;

static void reap(struct tunnel_client *t)
{
    if (t->pid > 0 && waitpid(t->pid, NULL, WNOHANG) == t->pid)
        t->pid = 0;
}

static void pending_drop(struct tunnel_client *t)
{
    kept_close(t->pending_fds);
    memset(t->pending_fds, 0xff, sizeof t->pending_fds);
}

static void drop(struct tunnel_client *t)
{
    reap(t);
    loop_fd_remove(t->watch);
    t->watch = NULL;
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
    t->told = false;
    rec_clear(&tunnel_status_rec, &t->last);
    t->n_asked = 0;
    pending_drop(t);
    sb_reset(&t->in);
    map_done(&t->taps);
    map_init(&t->taps);
    loop_timer_set(t->timer, RETRY_MS);
}

static void send_frame(struct tunnel_client *t, uint8_t type, const void *p, size_t size, const int *fd)
{
    struct err e;
    uint32_t n = (uint32_t)size + 1;
    if (t->fd < 0)
        return;
    AUTO_FREE uint8_t *frame = xcalloc(1, HEAD_BYTES + size);
    frame[0] = (uint8_t)(n >> 24);
    frame[1] = (uint8_t)(n >> 16);
    frame[2] = (uint8_t)(n >> 8);
    frame[3] = (uint8_t)n;
    frame[4] = type;
    if (size)
        memcpy(frame + HEAD_BYTES, p, size);
    /* The descriptor travels with the first byte. The process always reads; one that does not (stopped) is left
     * after SEND_LIMIT_S and told everything anew later. */
    int r = fd ? fd_send_with_fds(t->fd, frame, HEAD_BYTES + size, fd, 1, &e)
               : fd_write_all(t->fd, frame, HEAD_BYTES + size, &e);
    crypto_wipe(frame, HEAD_BYTES + size);
    if (r < 0) {
        shutdown(t->fd, SHUT_RDWR); /* part of a frame may be on its way */
        loop_timer_set(t->timer, 0); /* on_timer finds the socket dead */
    }
}

static void ask_status(struct tunnel_client *t)
{
    t->told = false;
    t->n_asked++;
    send_frame(t, TUNNEL_STATUS, NULL, 0, NULL);
}

static void got_status(struct tunnel_client *t, const void *p, size_t size)
{
    struct tunnel_status s = { 0 };
    struct err e;
    if (t->n_asked && --t->n_asked)
        return; /* older than what it was told last */
    if (rec_unpack(&tunnel_status_rec, &s, p, size, &e) < 0) {
        log_warn("status of the tunnel: %s", e.text);
        return;
    }
    map_done(&t->taps);
    map_init(&t->taps);
    for (uint32_t i = 0; i < s.taps.n; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", (unsigned)s.taps.v[i].vni);
        map_put(&t->taps, key, t);
    }
    rec_clear(&tunnel_status_rec, &t->last);
    t->last = s;
    t->told = true;
    t->found_known = true; /* it was asked before, or does not know the question */
    t->ready(t->arg);
}

/* What the process kept, told late: it had no time for kept_ask(). */
static void got_kept(struct tunnel_client *t, const char *name, size_t size)
{
    if (!size)
        return; /* the end; a status follows */
    if (t->found_known || map_find_n(&t->kept, name, size)) {
        pending_drop(t);
        return;
    }
    kept_put(&t->found, TUNNEL_KEPT_MAX, name, size, t->pending_fds);
    memset(t->pending_fds, 0xff, sizeof t->pending_fds);
}

static void on_socket(void *arg, unsigned events)
{
    struct tunnel_client *t = arg;
    char buf[65536], byte;
    int fds[TUNNEL_KEPT_FDS] = { -1, -1 };
    unsigned n_fds = TUNNEL_KEPT_FDS;
    (void)events;
    if (recv(t->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    long n = fd_recv_with_fds(t->fd, buf, sizeof buf, fds, &n_fds, NULL);
    if (n > 0 && n_fds) {
        pending_drop(t);
        memcpy(t->pending_fds, fds, sizeof fds);
    }
    if (n <= 0) {
        log_warn("the tunnel process ended, it is started again");
        drop(t);
        return;
    }
    sb_add(&t->in, buf, (size_t)n);
    for (;;) {
        const uint8_t *p = (const uint8_t *)t->in.s;
        if (t->in.len < HEAD_BYTES)
            return;
        uint32_t size = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        if (size < 1 || size > TUNNEL_FRAME_MAX_BYTES || t->in.overflow) {
            drop(t);
            return;
        }
        if (t->in.len < 4 + (size_t)size)
            return;
        if (p[4] == TUNNEL_REPLY)
            got_status(t, p + HEAD_BYTES, size - 1);
        else if (p[4] == TUNNEL_KEPT)
            got_kept(t, (const char *)p + HEAD_BYTES, size - 1);
        if (t->fd < 0)
            return;
        sb_drop_front(&t->in, 4 + (size_t)size);
    }
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct timeval limit = { .tv_sec = SEND_LIMIT_S };
    AUTO_FREE char *folder = xstrdup(path);
    char *slash = strrchr(folder, '/');
    *slash = '\0';
    AUTO_CLOSE int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -1;
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/%s", dir, slash + 1);
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 || /* of connect() too */
        connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        return -1;
    int r = fd;
    fd = -1;
    return r;
}

/* ---- what is kept open while no daemon is there ---- */
static bool tell_kept(struct tunnel_client *t, enum tunnel_message type, const char *name, const int *fds)
{
    struct err e;
    if (t->fd < 0)
        return false;
    if (kept_send(t->fd, type, name, fds, &e) == 0)
        return true;
    shutdown(t->fd, SHUT_RDWR); /* as in send_frame() */
    loop_timer_set(t->timer, 0);
    return false;
}

static void tell_stale(struct tunnel_client *t)
{
    for (struct map_item *it = NULL; (it = map_next(&t->stale, it)) && tell_kept(t, TUNNEL_DROP, it->key, NULL);)
        map_remove(&t->stale, it->key);
}

static void tell_all_kept(struct tunnel_client *t)
{
    if (!t->found_known)
        tell_kept(t, TUNNEL_KEPT, "", NULL);
    tell_stale(t);
    for (struct map_item *it = NULL; (it = map_next(&t->kept, it));)
        tell_kept(t, TUNNEL_KEEP, it->key, ((struct kept *)it->value)->fds);
}

void tunnel_client_keep(struct tunnel_client *t, const char *name, const int fds[TUNNEL_KEPT_FDS])
{
    struct kept *k = xnew(struct kept);
    memcpy(k->fds, fds, sizeof k->fds);
    free(map_put(&t->kept, name, k));
    map_remove(&t->stale, name);
    tell_kept(t, TUNNEL_KEEP, name, fds);
}

void tunnel_client_unkeep(struct tunnel_client *t, const char *name)
{
    free(map_remove(&t->kept, name));
    if (!t->found_known && t->fd < 0)
        return; /* should a process come that has it, nobody takes it; mostly none is there: no network, no tunnel */
    map_put(&t->stale, name, t);
    tell_stale(t);
}

bool tunnel_client_found(struct tunnel_client *t, const char *name, int ret_fds[TUNNEL_KEPT_FDS])
{
    struct kept *k = map_remove(&t->found, name);
    if (k)
        memcpy(ret_fds, k->fds, sizeof k->fds);
    free(k);
    return k != NULL;
}

static bool try_connect(struct tunnel_client *t)
{
    int fd = connect_to(t->path);
    if (fd < 0)
        return false;
    t->fd = fd;
    t->watch = loop_fd_add(t->loop, fd, LOOP_READ, on_socket, t);
    if (t->config.len)
        send_frame(t, TUNNEL_CONFIG, t->config.s, t->config.len, NULL);
    tell_all_kept(t);
    ask_status(t);
    return true;
}

void tunnel_client_found_all(struct tunnel_client *t)
{
    if (!t->found_known && t->fd < 0)
        try_connect(t); /* not begun for this: then nothing is kept */
    if (!t->found_known)
        return;
    for (struct map_item *it = NULL; (it = map_next(&t->found, it));)
        map_put(&t->stale, it->key, t);
    kept_done(&t->found);
    map_init(&t->found);
    tell_stale(t);
}

static void spawn(struct tunnel_client *t)
{
    char *argv[] = { t->exe, (char *)(uintptr_t)"tunnel", t->path, NULL };
    posix_spawnattr_t attr;
    sigset_t none, all;
    reap(t);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int r = posix_spawn(&t->pid, t->exe, NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    if (r != 0)
        log_error("cannot start the tunnel process %s: error %d", t->exe, r);
    else
        log_info("tunnel process %d started", (int)t->pid);
    t->spawned_ms = loop_now_ms(t->loop);
}

static void on_timer(void *arg)
{
    struct tunnel_client *t = arg;
    char byte;
    if (t->fd >= 0) {
        ssize_t n = recv(t->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
            return;
        drop(t);
        return;
    }
    if (try_connect(t))
        return;
    if (!t->spawned_ms || loop_now_ms(t->loop) - t->spawned_ms > SPAWN_AGAIN_MS)
        spawn(t);
    loop_timer_set(t->timer, RETRY_MS);
}

struct tunnel_client *tunnel_client_new(struct loop *l, const char *exe, const char *socket_path,
                                        void (*ready)(void *arg), void *arg)
{
    struct tunnel_client *t = xnew(struct tunnel_client);
    t->loop = l;
    t->exe = xstrdup(exe);
    t->path = xstrdup(socket_path);
    t->ready = ready;
    t->arg = arg;
    t->fd = -1;
    sb_init(&t->in, TUNNEL_FRAME_MAX_BYTES + (1 << 20));
    sb_init(&t->config, TUNNEL_FRAME_MAX_BYTES);
    map_init(&t->taps);
    map_init(&t->found);
    map_init(&t->kept);
    map_init(&t->stale);
    memset(t->pending_fds, 0xff, sizeof t->pending_fds);
    t->timer = loop_timer_new(l, on_timer, t);
    AUTO_CLOSE int fd = connect_to(socket_path);
    if (fd >= 0)
        t->found_known = kept_ask(fd, &t->found);
    return t;
}

void tunnel_client_free(struct tunnel_client *t, bool quit)
{
    if (!t)
        return;
    if (quit && t->fd < 0 && t->spawned_ms == 0)
        try_connect(t); /* one from before this daemon */
    if (quit)
        send_frame(t, TUNNEL_QUIT, NULL, 0, NULL);
    loop_fd_remove(t->watch);
    loop_timer_free(t->timer);
    if (t->fd >= 0)
        close(t->fd);
    sb_done(&t->in);
    crypto_wipe(t->config.s, t->config.len);
    sb_done(&t->config);
    map_done(&t->taps);
    kept_done(&t->found);
    for (struct map_item *it = NULL; (it = map_next(&t->kept, it));)
        free(it->value);
    map_done(&t->kept);
    map_done(&t->stale);
    pending_drop(t);
    rec_clear(&tunnel_status_rec, &t->last);
    free(t->exe);
    free(t->path);
    free(t);
}

/* Does this configuration close a TAP that the process holds? Whether it did it must be asked: it may have refused it. */
static bool closes_tap(const struct tunnel_client *t, const struct tunnel_config *c)
{
    unsigned n_kept = 0;
    for (uint32_t i = 0; i < c->networks.n; i++)
        n_kept += tunnel_client_has_tap(t, (uint32_t)c->networks.v[i].vni);
    return n_kept < t->taps.n;
}

void tunnel_client_config(struct tunnel_client *t, const struct tunnel_config *c)
{
    struct sb next;
    sb_init(&next, TUNNEL_FRAME_MAX_BYTES);
    rec_pack(&tunnel_config_rec, c, &next);
    if (next.len == t->config.len && memcmp(next.s, t->config.s, next.len) == 0) {
        sb_done(&next);
        return;
    }
    crypto_wipe(t->config.s, t->config.len);
    sb_done(&t->config);
    t->config = next;
    if (t->fd < 0) {
        loop_timer_set(t->timer, 0);
        return;
    }
    send_frame(t, TUNNEL_CONFIG, t->config.s, t->config.len, NULL);
    if (!t->told || closes_tap(t, c))
        ask_status(t);
}

bool tunnel_client_is_ready(const struct tunnel_client *t)
{
    return t->told;
}

void tunnel_client_ask(struct tunnel_client *t)
{
    if (t->fd >= 0)
        ask_status(t);
}

const struct tunnel_status *tunnel_client_status(const struct tunnel_client *t)
{
    return t->last.pid ? &t->last : NULL;
}

bool tunnel_client_takes_vnet(const struct tunnel_client *t)
{
    return t->last.offloads;
}

bool tunnel_client_has_tap(const struct tunnel_client *t, uint32_t vni)
{
    char key[16];
    snprintf(key, sizeof key, "%u", vni);
    return map_find(&t->taps, key) != NULL;
}

void tunnel_client_forget(struct tunnel_client *t, uint32_t vni)
{
    char key[16];
    snprintf(key, sizeof key, "%u", vni);
    map_remove(&t->taps, key);
}

void tunnel_client_tap(struct tunnel_client *t, uint32_t vni, int fd)
{
    char key[16];
    uint8_t body[4] = { (uint8_t)(vni >> 24), (uint8_t)(vni >> 16), (uint8_t)(vni >> 8), (uint8_t)vni };
    snprintf(key, sizeof key, "%u", vni);
    send_frame(t, TUNNEL_TAP, body, sizeof body, &fd);
    close(fd);
    map_put(&t->taps, key, t);
}
