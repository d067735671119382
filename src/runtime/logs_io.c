/* Reading a container's log: from the oldest rotated file on, then following the newest by inotify, across
 * rotation. Lines are read in pieces, so that a log of any size costs little memory. */
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

LOG_MODULE("runtime");

enum { PIECE_BYTES = 64 << 10, LINE_CAP_BYTES = 256 << 10, FILES_MAX = 1000, ENTRIES_A_TURN = 2000, TRIES = 100 };

struct runtime_logs {
    struct list_node node;
    struct runtime *rt;
    struct loop *loop;
    char *id, *dir;
    struct log_query q;
    runtime_log_fn *fn;
    runtime_log_end_fn *end;
    void *arg;
    int fd, notify;
    struct loop_fd *watch;
    struct loop_timer *timer;
    int rotated;   /* number of the file that fd reads, when it was opened; 0: log.json */
    struct sb held; /* bytes read, not yet lines */
    struct sb text; /* of the entry at hand */
    bool paused, over;
    ino_t inode;
};

static void run(void *arg);

static char *file_name(const struct runtime_logs *r, int rotated)
{
    return rotated ? xasprintf("%s/log.json.%d", r->dir, rotated) : xasprintf("%s/log.json", r->dir);
}

/* 0: there is none. */
static ino_t inode_of(const struct runtime_logs *r, int rotated)
{
    struct stat st;
    AUTO_FREE char *path = file_name(r, rotated);
    return stat(path, &st) == 0 ? st.st_ino : 0;
}

/* ---- from file to file: they are renamed meanwhile, the oldest first, and while one is, its name is nobody's ---- */
static int oldest(const struct runtime_logs *r)
{
    int n = 0;
    while (n < FILES_MAX && (inode_of(r, n + 1) || inode_of(r, n + 2)))
        n++;
    return n;
}

/* The number that the open file has by now; -1: none is open, or it has been deleted. */
static int number_of(const struct runtime_logs *r)
{
    struct stat st;
    for (int tries = 0; tries < TRIES && r->fd >= 0 && fstat(r->fd, &st) == 0 && st.st_nlink; tries++)
        for (int n = r->rotated, missing = 0; missing < 2; n++) { /* numbers only grow */
            ino_t x = inode_of(r, n);
            if (x == r->inode)
                return n;
            missing = x ? 0 : missing + 1;
        }
    return -1;
}

/* The file that is the next older one (step 1) or newer one (-1) than the open one; of one that was deleted, the oldest is the next
 * newer. Where none is open, from the newest or oldest of all on. -1: there is none. */
static int number_beside(const struct runtime_logs *r, int step)
{
    int at = number_of(r);
    if (at < 0 && step < 0)
        at = oldest(r) + 1;
    else if (at < 0 && r->fd >= 0)
        return -1;
    for (int n = at + step; n >= 0 && n <= at + 2; n += step)
        if (inode_of(r, n))
            return n;
    return -1;
}

/* Reads that file from now on. 1; 0: there is none; -E_...: which it is, or what is in it, cannot be known. */
static int open_beside(struct runtime_logs *r, int step, struct err *e)
{
    for (int tries = 0; tries < TRIES; tries++) {
        struct stat st;
        int n = number_beside(r, step);
        if (n < 0)
            return 0;
        AUTO_FREE char *path = file_name(r, n);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
            return err_errno(e, errno, "open %s", path);
        if (fd >= 0 && fstat(fd, &st) == 0 && number_beside(r, step) == n && inode_of(r, n) == st.st_ino) { /* not renamed meanwhile */
            if (r->fd >= 0) /* not before: its number would be given to another */
                close(r->fd);
            r->fd = fd;
            r->rotated = n;
            r->inode = st.st_ino;
            sb_reset(&r->held); /* half a line is at the end of no file but the newest, unless the machine stopped */
            return 1;
        }
        if (fd >= 0)
            close(fd);
    }
    return err_set(e, E_BUSY, "the log %s changes too fast to be read", r->dir);
}

static bool parse_wanted(struct runtime_logs *r, const char *line, size_t size, struct log_entry *ret)
{
    return log_line_parse(line, size, &r->text, ret) && (ret->err ? r->q.err : r->q.out) && ret->time_ns >= r->q.since_ns &&
           (!r->q.until_ns || ret->time_ns <= r->q.until_ns);
}

/* One whole line from the held bytes; false: none. */
static bool next_line(struct runtime_logs *r, size_t *at, const char **ret, size_t *ret_size)
{
    const char *nl = memchr(r->held.s + *at, '\n', r->held.len - *at);
    if (!nl)
        return false;
    *ret = r->held.s + *at;
    *ret_size = (size_t)(nl - *ret);
    *at += *ret_size + 1;
    return true;
}

/* More bytes of the present file; false: at its end for now. */
static bool more(struct runtime_logs *r)
{
    char buf[PIECE_BYTES];
    ssize_t n = r->fd >= 0 ? read(r->fd, buf, sizeof buf) : 0;
    if (n <= 0)
        return false;
    sb_add(&r->held, buf, (size_t)n);
    if (r->held.overflow) { /* no line of ours is that long; but some may follow in what was read now */
        sb_reset(&r->held);
        sb_add(&r->held, buf, (size_t)n);
    }
    return true;
}

/* ---- the last entries: from the end backwards, whatever the size of the log ---- */
/* The whole lines of buf, which begins a line or not (cut); entries wanted are counted up to most. Bytes in buf before the
 * earliest line that was looked at. */
static size_t count_back(struct runtime_logs *r, const char *buf, size_t size, bool cut, int64_t most, int64_t *n)
{
    struct log_entry x;
    while (*n < most && size > 0) {
        const char *nl = memrchr(buf, '\n', size - 1);
        if (!nl && cut)
            break;
        size_t begin = nl ? (size_t)(nl - buf) + 1 : 0;
        *n += parse_wanted(r, buf + begin, size - 1 - begin, &x);
        size = begin;
    }
    return size;
}

/* Up to most entries at the end of the open file; *ret: where they begin. What follows the last whole line is not yet one. */
static int64_t find_last(struct runtime_logs *r, int64_t most, off_t *ret)
{
    AUTO_FREE char *buf = xcalloc(LINE_CAP_BYTES, 1);
    int64_t n = 0;
    off_t end = lseek(r->fd, 0, SEEK_END);
    for (bool first = true; end > 0 && (n < most || first); first = false) {
        off_t begin = MAX(end - LINE_CAP_BYTES, (off_t)0);
        ssize_t size = pread(r->fd, buf, (size_t)(end - begin), begin);
        if (size != end - begin) /* it shrinks, or cannot be read: the reader will see */
            break;
        const char *nl = first ? memrchr(buf, '\n', (size_t)size) : NULL;
        size_t whole = !first ? (size_t)size : nl ? (size_t)(nl - buf) + 1 : 0;
        size_t left = count_back(r, buf, whole, begin > 0, most, &n);
        bool stuck = n < most && left == whole; /* a line longer than any of ours is none */
        end = stuck ? begin : begin + (off_t)left;
    }
    *ret = end;
    return n;
}

static int go_to_last(struct runtime_logs *r, int64_t most, struct err *e)
{
    int found;
    do {
        off_t begin = 0;
        found = open_beside(r, 1, e);
        if (found == 1)
            most -= find_last(r, most, &begin);
        if (found == 1 && lseek(r->fd, begin, SEEK_SET) < 0)
            return err_errno(e, errno, "the log %s", r->dir);
    } while (found == 1 && most > 0);
    return MIN(found, 0);
}

static void finish(struct runtime_logs *r)
{
    if (r->over)
        return;
    r->over = true;
    r->end(r->arg);
}

static bool container_ended(const struct runtime_logs *r)
{
    const struct container *c = runtime_find(r->rt, r->id);
    return !c || c->state.phase == CONTAINER_EXITED;
}

/* Goes on after the end of this file; false: that was all for now. */
static bool next_file(struct runtime_logs *r)
{
    struct err e;
    if (number_of(r) == 0)
        return false;
    if (more(r)) /* written before it was rotated */
        return true;
    int found = open_beside(r, -1, &e);
    if (found < 0)
        log_warn("container %.12s: what follows in its log is not read: %s", r->id, e.text);
    return found == 1;
}

static void run(void *arg)
{
    struct runtime_logs *r = arg;
    int n = 0;
    while (!r->paused && !r->over) {
        size_t at = 0, size;
        const char *line;
        while (!r->paused && n < ENTRIES_A_TURN && next_line(r, &at, &line, &size)) {
            struct log_entry x;
            n++;
            if (parse_wanted(r, line, size, &x))
                r->paused = !r->fn(r->arg, &x);
        }
        sb_drop_front(&r->held, at);
        if (r->paused)
            return;
        if (n >= ENTRIES_A_TURN) {
            loop_timer_set(r->timer, 0);
            return;
        }
        bool ended = container_ended(r);
        if (more(r) || next_file(r))
            continue;
        /* The end of a container is told after its last line is written. */
        if (!r->q.follow || ended)
            finish(r);
        return;
    }
}

static void on_notify(void *arg, unsigned events)
{
    struct runtime_logs *r = arg;
    char buf[4096];
    (void)events;
    if (read(r->notify, buf, sizeof buf) > 0)
        loop_timer_set(r->timer, 0);
}

struct runtime_logs *runtime_logs(struct runtime *rt, const char *id, const struct log_query *q, runtime_log_fn *fn,
                                  runtime_log_end_fn *end, void *arg, struct err *e)
{
    const struct container *c = runtime_find(rt, id);
    if (!c)
        return err_set(e, E_NOT_FOUND, "no such container: %.64s", id), NULL;
    struct runtime_logs *r = xnew(struct runtime_logs);
    r->rt = rt;
    r->loop = runtime_loop(rt);
    r->id = xstrdup(c->spec.id);
    r->dir = xstrdup(c->dir);
    r->q = *q;
    r->fn = fn;
    r->end = end;
    r->arg = arg;
    r->fd = r->notify = -1;
    sb_init(&r->held, LINE_CAP_BYTES);
    sb_init(&r->text, LINE_CAP_BYTES);
    r->timer = loop_timer_new(r->loop, run, r);
    if (q->follow) {
        r->notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (r->notify >= 0 && inotify_add_watch(r->notify, r->dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO) >= 0)
            r->watch = loop_fd_add(r->loop, r->notify, LOOP_READ, on_notify, r);
    }
    list_push_back(runtime_log_readers(rt), &r->node);
    if ((q->tail >= 0 ? go_to_last(r, q->tail, e) : open_beside(r, -1, e)) < 0) {
        runtime_logs_stop(r);
        return NULL;
    }
    loop_timer_set(r->timer, 0);
    return r;
}

void logs_container_ended(struct runtime *rt, const char *id)
{
    struct runtime_logs *r;
    list_for(r, runtime_log_readers(rt), node)
        if (str_equal(r->id, id))
            loop_timer_set(r->timer, 0);
}

void runtime_logs_resume(struct runtime_logs *r)
{
    r->paused = false;
    loop_timer_set(r->timer, 0);
}

void runtime_logs_stop(struct runtime_logs *r)
{
    if (!r)
        return;
    list_remove(&r->node);
    loop_fd_remove(r->watch);
    loop_timer_free(r->timer);
    if (r->notify >= 0)
        close(r->notify);
    if (r->fd >= 0)
        close(r->fd);
    sb_done(&r->held);
    sb_done(&r->text);
    free(r->id);
    free(r->dir);
    free(r);
}
