/* The job owns `content` while one is queued or runs, the loop owns `next`; who writes or takes content away holds the
 * lock, so neither meets the other's half-written file nor overtakes it. */
#include <pthread.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/mem.h>
#include <shoal/late_file.h>

LOG_MODULE("net");

struct late_file {
    struct loop *loop;
    char *path;
    pthread_mutex_t lock;
    struct sb content, next; /* empty: none */
    bool busy, gone, behind; /* a job's end is still to come; freed by its owner; the last write failed */
    int result;
    struct err e;
};

struct late_file *late_file_new(struct loop *l, const char *path)
{
    struct late_file *f = xnew(struct late_file);
    f->loop = l;
    f->path = xstrdup(path);
    pthread_mutex_init(&f->lock, NULL);
    return f;
}

static void destroy(struct late_file *f)
{
    pthread_mutex_destroy(&f->lock);
    free(f->path);
    free(f);
}

static void take(struct sb *to, struct sb *from)
{
    *to = *from;
    *from = (struct sb){ 0 };
}

static void work(void *arg)
{
    struct late_file *f = arg;
    pthread_mutex_lock(&f->lock);
    f->result = f->content.len ? file_write_atomic(f->path, f->content.s, f->content.len, 0600, &f->e) : 0;
    sb_done(&f->content);
    pthread_mutex_unlock(&f->lock);
}

static void begin(struct late_file *f);

static void done(void *arg)
{
    struct late_file *f = arg;
    f->busy = false;
    f->behind = f->result < 0;
    if (f->behind && !f->gone)
        log_warn("%s", f->e.text);
    if (f->gone)
        destroy(f);
    else if (f->next.len)
        begin(f);
}

static void begin(struct late_file *f)
{
    take(&f->content, &f->next);
    f->busy = true;
    if (loop_work(f->loop, LANE_LATE, work, done, f) < 0) {
        work(f);
        done(f);
    }
}

void late_file_write(struct late_file *f, struct sb *b)
{
    sb_done(&f->next);
    take(&f->next, b);
    if (!f->busy)
        begin(f);
}

static void drop(struct late_file *f)
{
    sb_done(&f->content);
    sb_done(&f->next);
}

int late_file_write_now(struct late_file *f, const struct sb *b, struct err *e)
{
    pthread_mutex_lock(&f->lock);
    int r = file_write_atomic(f->path, b->s, b->len, 0600, e);
    f->behind = r < 0;
    if (r == 0) {
        drop(f);
        f->result = 0; /* a job that failed before it may not have told yet */
    }
    pthread_mutex_unlock(&f->lock);
    return r;
}

bool late_file_is_behind(const struct late_file *f)
{
    return f->behind;
}

void late_file_free(struct late_file *f)
{
    if (!f)
        return;
    pthread_mutex_lock(&f->lock);
    drop(f);
    pthread_mutex_unlock(&f->lock);
    f->gone = true;
    if (!f->busy)
        destroy(f);
}
