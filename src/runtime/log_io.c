/* The log of a container, written by its shim: one JSON object a line in log.json, in the form of Docker's
 * json-file driver, so that people's tools read it. Rotated by size (log.json.1 is the next older). A full disk
 * loses lines, counts them and says so in the next line that fits; it never blocks the container. */
#include "runtime_internal.h"
#include <fcntl.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 16 << 10 };

struct log_file {
    char *path;
    int fd;
    int64_t max_bytes, max_files, bytes;
    struct sb partial[2]; /* stdout, stderr: a line not yet ended */
    uint64_t n_lost;
};

static void open_file(struct log_file *f)
{
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    f->bytes = f->fd >= 0 ? lseek(f->fd, 0, SEEK_END) : 0;
}

struct log_file *log_file_open(const char *dir, int64_t max_bytes, int64_t max_files)
{
    struct log_file *f = xnew(struct log_file);
    f->path = path_join(dir, "log.json");
    f->max_bytes = max_bytes ? max_bytes : 20 << 20;
    f->max_files = max_files ? max_files : 2;
    sb_init(&f->partial[0], LINE_MAX_BYTES);
    sb_init(&f->partial[1], LINE_MAX_BYTES);
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

static void put(struct log_file *f, const struct sb *line)
{
    if (f->bytes + (int64_t)line->len > f->max_bytes && f->bytes > 0)
        rotate(f);
    ssize_t n = f->fd >= 0 ? write(f->fd, line->s, line->len) : -1;
    if (n == (ssize_t)line->len) {
        f->bytes += n;
        return;
    }
    if (n > 0 && ftruncate(f->fd, f->bytes) < 0) /* never half a line */
        f->bytes += n;
    f->n_lost++;
}

static void put_line(struct log_file *f, bool err, const char *p, size_t size, bool ended)
{
    struct sb b;
    char time[40];
    time_format(time, clock_real_ns());
    sb_init(&b, LINE_MAX_BYTES * 8);
    if (f->n_lost) {
        sb_printf(&b, "{\"log\":\"[shoal: %llu lines lost, the disk was full]\\n\",\"stream\":\"stderr\",\"time\":\"%s\"}\n",
                  (unsigned long long)f->n_lost, time);
        f->n_lost = 0;
    }
    sb_str(&b, "{\"log\":");
    AUTO_FREE char *text = xcalloc(1, size + 2);
    memcpy(text, p, size);
    if (ended)
        text[size++] = '\n';
    sb_json_str(&b, text, size);
    sb_printf(&b, ",\"stream\":\"%s\",\"time\":\"%s\"}\n", err ? "stderr" : "stdout", time);
    put(f, &b);
    sb_done(&b);
}

void log_file_write(struct log_file *f, bool err, const char *p, size_t size)
{
    struct sb *partial = &f->partial[err];
    while (size > 0) {
        const char *nl = memchr(p, '\n', size);
        size_t n = nl ? (size_t)(nl - p) : size;
        size_t room = LINE_MAX_BYTES - 1 - partial->len;
        if (n > room) { /* a line too long becomes several, joined again by readers */
            sb_add(partial, p, room);
            put_line(f, err, partial->s, partial->len, false);
            sb_reset(partial);
            p += room;
            size -= room;
            continue;
        }
        if (!nl) {
            sb_add(partial, p, n);
            return;
        }
        if (partial->len) {
            sb_add(partial, p, n);
            put_line(f, err, partial->s, partial->len, true);
            sb_reset(partial);
        } else {
            put_line(f, err, p, n, true);
        }
        p += n + 1;
        size -= n + 1;
    }
}

void log_file_close(struct log_file *f)
{
    if (!f)
        return;
    for (int i = 0; i < 2; i++) {
        if (f->partial[i].len)
            put_line(f, i, f->partial[i].s, f->partial[i].len, false);
        sb_done(&f->partial[i]);
    }
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f);
}
