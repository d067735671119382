/* The log of a container, written by its shim: one JSON object a line in log.json, in the form of Docker's
 * json-file driver, so that people's tools read it. Rotated by size (log.json.1 is the next older). A full disk
 * loses lines, counts them and says so in the next line that fits; it never blocks the container. */
#include "runtime_internal.h"
#include <fcntl.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 16 << 10, BATCH_BYTES = 64 << 10, TAIL_BYTES = 96 };

struct log_file {
    char *path;
    int fd;
    int64_t max_bytes, max_files, bytes;
    struct sb partial[2]; /* stdout, stderr: a line not yet ended */
    struct sb out;        /* whole lines of one piece of output, written at once */
    uint64_t n_out, n_lost; /* n_out: lost if out is not written */
    struct journal *journal; /* gets each line too; NULL: none */
};

static void open_file(struct log_file *f)
{
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    f->bytes = f->fd >= 0 ? lseek(f->fd, 0, SEEK_END) : 0;
}

struct log_file *log_file_open(const char *dir, const struct container_spec *s)
{
    struct log_file *f = xnew(struct log_file);
    f->path = path_join(dir, "log.json");
    f->max_bytes = s->log_max_bytes ? s->log_max_bytes : 20 << 20;
    f->max_files = s->log_max_files ? s->log_max_files : 2;
    f->journal = journal_open(s);
    sb_init(&f->partial[0], LINE_MAX_BYTES);
    sb_init(&f->partial[1], LINE_MAX_BYTES);
    sb_init(&f->out, BATCH_BYTES + LINE_MAX_BYTES * 8);
    open_file(f);
    return f;
}

static void rotate(struct log_file *f)
{
    close(f->fd);
    for (int64_t i = f->max_files - 1; i >= 1; i--) {
        char from[4200], to[4200];
        snprintf(to, sizeof to, "%s.%lld", f->path, (long long)i);
        if (i == 1)
            snprintf(from, sizeof from, "%s", f->path);
        else
            snprintf(from, sizeof from, "%s.%lld", f->path, (long long)i - 1);
        rename(from, to);
    }
    if (f->max_files <= 1)
        unlink(f->path);
    open_file(f);
}

static void flush(struct log_file *f)
{
    const struct sb *b = &f->out;
    if (!b->len)
        return;
    if (f->bytes + (int64_t)b->len > f->max_bytes && f->bytes > 0)
        rotate(f);
    ssize_t n = f->fd >= 0 ? write(f->fd, b->s, b->len) : -1;
    if (n == (ssize_t)b->len) {
        f->bytes += n;
    } else {
        if (n > 0 && ftruncate(f->fd, f->bytes) < 0) /* never half a line */
            f->bytes += n;
        f->n_lost += f->n_out;
    }
    f->n_out = 0;
    sb_reset(&f->out);
}

static void put_lost(struct log_file *f, const char *tail)
{
    if (!f->n_lost || f->out.len)
        return;
    sb_printf(&f->out, "{\"log\":\"[shoal: %llu lines lost, the disk was full]\\n\"%s", (unsigned long long)f->n_lost, tail);
    f->n_out = f->n_lost;
    f->n_lost = 0;
}

/* tail: what follows the text of each line of one piece of output. */
static void put_line(struct log_file *f, const char *tail, const char *p, size_t size)
{
    size_t before = f->out.len;
    put_lost(f, tail);
    sb_str(&f->out, "{\"log\":");
    sb_json_str(&f->out, p, size);
    sb_str(&f->out, tail);
    f->n_out++;
    /* A file holds whole batches: small ones fill it well. */
    if ((int64_t)(f->out.len + (f->out.len - before)) > MIN(f->max_bytes / 4, (int64_t)BATCH_BYTES))
        flush(f);
}

/* Into the file, and then to the journal, which may be waited for, and has lines without their newline; the rest of one comes
 * later. */
static void put_entry(struct log_file *f, bool err, bool more_comes, const char *tail, const char *p, size_t size)
{
    put_line(f, tail, p, size);
    if (!f->journal)
        return;
    flush(f);
    journal_send(f->journal, err, more_comes, p, size - (size > 0 && p[size - 1] == '\n'));
}

static void make_tail(char tail[TAIL_BYTES], bool err)
{
    char time[40];
    time_format(time, clock_real_ns());
    snprintf(tail, TAIL_BYTES, ",\"stream\":\"%s\",\"time\":\"%s\"}\n", err ? "stderr" : "stdout", time);
}

void log_file_write(struct log_file *f, bool err, const char *p, size_t size)
{
    struct sb *partial = &f->partial[err];
    char tail[TAIL_BYTES];
    make_tail(tail, err);
    while (size > 0) {
        const char *nl = memchr(p, '\n', size);
        size_t n = nl ? (size_t)(nl - p) + 1 : size, room = LINE_MAX_BYTES - 1 - partial->len;
        bool whole = nl && n - 1 <= room;
        if (!whole)
            n = MIN(n, room); /* a line too long becomes several, joined again by readers */
        if (partial->len || !whole)
            sb_add(partial, p, n);
        if (whole && !partial->len) {
            put_entry(f, err, false, tail, p, n);
        } else if (whole || n == room) {
            put_entry(f, err, !whole, tail, partial->s, partial->len);
            sb_reset(partial);
        }
        p += n;
        size -= n;
    }
    flush(f);
}

void log_file_close(struct log_file *f)
{
    if (!f)
        return;
    char tail[TAIL_BYTES], text[JOURNAL_TEXT_BYTES + 1];
    for (int i = 0; i < 2; i++) {
        make_tail(tail, i);
        if (f->partial[i].len)
            put_entry(f, i, false, tail, f->partial[i].s, f->partial[i].len);
        sb_done(&f->partial[i]);
    }
    journal_close(f->journal, text);
    if (text[0]) {
        size_t n = strlen(text);
        text[n] = '\n';
        put_line(f, tail, text, n + 1);
    }
    flush(f);
    put_lost(f, tail); /* no next line will tell */
    flush(f);
    sb_done(&f->out);
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f);
}
