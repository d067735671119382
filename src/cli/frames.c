/* Two forms of streamed replies: frames with an 8-byte header (attach, exec, logs; Engine API, "Stream
 * format") and one JSON object a line (pull, load, import). Pure: bytes in, calls and text out. */
#include "cli.h"

enum { FRAME_MAX_BYTES = 16 << 20, LINE_MAX_BYTES = 1 << 20 };

int frames_take(struct frames *f, const char *p, size_t size, frame_fn *fn, void *arg, struct err *e)
{
    size_t at = 0;
    sb_add(&f->buf, p, size);
    if (f->buf.overflow)
        return err_set(e, E_TOO_BIG, "the daemon's stream has too large a frame");
    while (f->buf.len - at >= 8) {
        const unsigned char *h = (const unsigned char *)f->buf.s + at;
        size_t n = (size_t)h[4] << 24 | (size_t)h[5] << 16 | (size_t)h[6] << 8 | h[7];
        if (h[0] > 3 || h[1] || h[2] || h[3] || n > FRAME_MAX_BYTES)
            return err_set(e, E_CORRUPT, "the daemon's stream is not framed as the Engine API says");
        if (f->buf.len - at - 8 < n)
            break;
        int rc = fn(arg, h[0], f->buf.s + at + 8, n, e);
        if (rc < 0)
            return rc;
        at += 8 + n;
    }
    sb_drop_front(&f->buf, at);
    return 0;
}

static void show(struct progress *p, const struct val *v)
{
    const char *id = val_get_str(v, "id"), *status = val_get_str(v, "status"), *stream = val_get_str(v, "stream");
    AUTO_SB struct sb line;
    sb_init(&line, 0);
    if (stream)
        sb_str(&line, stream);
    else if (status)
        sb_printf(&line, "%s%s%s\n", id ? id : "", id ? ": " : "", status);
    /* A line a state of a layer, not a line a percentage. */
    if (!line.len || p->quiet || (p->last.s && p->last.len && !strcmp(p->last.s, line.s)))
        return;
    fwrite(line.s, 1, line.len, p->out);
    fflush(p->out);
    if (!p->last.s)
        sb_init(&p->last, 0);
    sb_reset(&p->last);
    sb_str(&p->last, line.s);
}

static int take_line(struct progress *p, const char *s, size_t len, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = json_parse(&d, s, len, "the daemon's progress", e);
    if (rc < 0)
        return rc;
    const char *why = val_get_str(val_get(val_root(d), "errorDetail"), "message");
    if (!why)
        why = val_get_str(val_root(d), "error");
    if (why)
        rc = err_set(e, E_IO, "%s", why);
    else
        show(p, val_root(d));
    val_doc_free(d);
    return rc;
}

int progress_data(void *arg, const char *bytes, size_t size, struct err *e)
{
    struct progress *p = arg;
    int rc = 0;
    if (!p->line.s)
        sb_init(&p->line, LINE_MAX_BYTES);
    for (size_t i = 0; rc == 0 && i < size; i++) {
        if (bytes[i] == '\n') {
            size_t len = p->line.len;
            while (len && (p->line.s[len - 1] == '\r' || p->line.s[len - 1] == ' '))
                len--;
            rc = len ? take_line(p, p->line.s, len, e) : 0;
            sb_reset(&p->line);
        } else {
            sb_char(&p->line, bytes[i]);
        }
        if (p->line.overflow)
            rc = err_set(e, E_TOO_BIG, "a line of the daemon's progress is larger than %d bytes", LINE_MAX_BYTES);
    }
    if (rc < 0)
        p->failed = true;
    return rc;
}

int progress_end(struct progress *p, struct err *e)
{
    int rc = p->line.s && p->line.len && !p->failed ? take_line(p, p->line.s, p->line.len, e) : 0;
    if (p->line.s)
        sb_done(&p->line);
    if (p->last.s)
        sb_done(&p->last);
    return rc;
}
