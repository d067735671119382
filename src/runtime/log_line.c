/* One line of log.json as log_io.c writes it, read without making a tree of it: that of a chatty container has millions.
 * What was written in another form, by hand or by another program, goes the general way. */
#include "runtime_internal.h"
#include <shoal/base/file.h>

/* Bytes up to the next one that a JSON string does not hold as it is. */
static size_t plain_run(const char *s, size_t len)
{
    size_t n = 0;
    while (n < len && s[n] != '"' && s[n] != '\\' && (unsigned char)s[n] >= 0x20)
        n++;
    return n;
}

/* \u00XX below 0x80, as control characters are written; -1: another one. */
static int control_of(const char *s, size_t len)
{
    int v = 0;
    if (len < 6)
        return -1;
    for (unsigned i = 2; i < 6; i++) {
        const char *digit = s[i] ? strchr("0123456789abcdef", s[i]) : NULL;
        if (!digit)
            return -1;
        v = v * 16 + (int)(digit - "0123456789abcdef");
    }
    return v < 0x80 ? v : -1;
}

/* From after the opening quote on: bytes up to the closing one; -1: not of our making. */
static ptrdiff_t unquote(const char *s, size_t len, struct sb *text)
{
    static const char letters[] = "\"\\/ntr", meant[] = "\"\\/\n\t\r";
    size_t at = 0;
    sb_reset(text);
    for (;;) {
        size_t n = plain_run(s + at, len - at);
        sb_add(text, s + at, n);
        at += n;
        if (len - at < 2)
            return -1;
        if (s[at] == '"')
            return text->overflow ? -1 : (ptrdiff_t)at;
        if (s[at] != '\\')
            return -1;
        const char *letter = s[at + 1] ? strchr(letters, s[at + 1]) : NULL;
        int c = letter ? meant[letter - letters] : s[at + 1] == 'u' ? control_of(s + at, len - at) : -1;
        if (c < 0)
            return -1;
        sb_char(text, (char)c);
        at += letter ? 2 : 6;
    }
}

static bool skip(const char **p, const char *end, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(end - *p) < n || memcmp(*p, word, n) != 0)
        return false;
    *p += n;
    return true;
}

static bool parse_ours(const char *p, size_t size, struct sb *text, struct log_entry *ret)
{
    const char *end = p + size;
    char time[40];
    if (!skip(&p, end, "{\"log\":\""))
        return false;
    ptrdiff_t n = unquote(p, (size_t)(end - p), text);
    if (n < 0)
        return false;
    p += n;
    if (!skip(&p, end, "\",\"stream\":\"std"))
        return false;
    bool err = skip(&p, end, "err");
    if ((!err && !skip(&p, end, "out")) || !skip(&p, end, "\",\"time\":\"") || end - p < 3 || (size_t)(end - p) > sizeof time)
        return false;
    size_t len = (size_t)(end - p) - 2;
    memcpy(time, p, len);
    time[len] = '\0';
    if (memcmp(p + len, "\"}", 2) != 0 || time_parse(time, &ret->time_ns) < 0)
        return false;
    ret->err = err;
    ret->line = text->s;
    ret->size = text->len;
    return true;
}

bool log_line_parse_json(const char *line, size_t size, struct sb *text, struct log_entry *ret)
{
    struct val_doc *doc;
    if (json_parse(&doc, line, size, "log", NULL) < 0)
        return false;
    const struct val *root = val_root(doc), *log = val_get(root, "log");
    const char *time = val_get_str(root, "time");
    bool ok = log && log->kind == V_STR && time && time_parse(time, &ret->time_ns) == 0;
    sb_reset(text);
    if (ok)
        sb_add(text, log->s, log->n);
    ret->err = str_equal(val_get_str(root, "stream"), "stderr");
    ret->line = text->s;
    ret->size = text->len;
    val_doc_free(doc);
    return ok && !text->overflow;
}

bool log_line_parse(const char *line, size_t size, struct sb *text, struct log_entry *ret)
{
    return parse_ours(line, size, text, ret) || log_line_parse_json(line, size, text, ret);
}
