/* HTTP/1.1 heads and bodies, pure. Bounded: 64 KiB of head, 100 headers. Both a length and chunked coding in
 * one message are refused (request smuggling, RFC 9112 section 6.3). */
#include <ctype.h>
#include <shoal/base/mem.h>
#include <shoal/http.h>
#include <strings.h>

const char *http_message_header(const struct http_message *m, const char *name)
{
    for (unsigned i = 0; i < m->n_headers; i++)
        if (!strcasecmp(m->headers[i].name, name))
            return m->headers[i].value;
    return NULL;
}

void http_message_clear(struct http_message *m)
{
    free(m->head);
    *m = (struct http_message){ 0 };
}

/* Bytes up to and with the blank line; 0: not there yet. Bare LF is accepted as line end. */
static size_t head_end(const char *p, size_t size)
{
    for (size_t i = 0; i + 1 < size; i++)
        if (p[i] == '\n' && (p[i + 1] == '\n' || (p[i + 1] == '\r' && i + 2 < size && p[i + 2] == '\n')))
            return i + (p[i + 1] == '\n' ? 2 : 3);
    return 0;
}

static bool has_token(const char *value, const char *token)
{
    size_t n = strlen(token);
    for (const char *p = value; p && *p;) {
        while (*p == ' ' || *p == ',')
            p++;
        if (!strncasecmp(p, token, n) && (!p[n] || p[n] == ',' || p[n] == ' '))
            return true;
        p = strchr(p, ',');
    }
    return false;
}

/* Tabs apart, a line holds no control character: a bare CR would end it for some other reader (RFC 9112, 2.2). */
static bool has_control(const char *line)
{
    for (; *line; line++)
        if (((unsigned char)*line < ' ' && *line != '\t') || *line == 127)
            return true;
    return false;
}

static bool parse_request_line(struct http_message *m, char *line)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;
    if (!version || version == target + 1)
        return false;
    *target++ = 0;
    *version++ = 0;
    m->method = line;
    m->target = target;
    for (const char *p = line; *p; p++)
        if (!isupper((unsigned char)*p) && *p != '_' && *p != '-')
            return false;
    if (!line[0] || (strcmp(version, "HTTP/1.1") && strcmp(version, "HTTP/1.0")))
        return false;
    m->minor = version[7] - '0';
    return true;
}

static bool parse_status_line(struct http_message *m, char *line)
{
    if (strncmp(line, "HTTP/1.", 7) || (line[7] != '0' && line[7] != '1') || line[8] != ' ')
        return false;
    char *code = line + 9, *end = strchr(code, ' ');
    uint64_t status;
    if (end)
        *end++ = 0;
    if (!str_u64(code, 100, 599, &status))
        return false;
    m->minor = line[7] - '0';
    m->status = (int)status;
    m->reason = end ? end : "";
    return true;
}

static bool add_header(struct http_message *m, char *line)
{
    char *colon = strchr(line, ':');
    if (!colon || colon == line || m->n_headers == HTTP_HEADERS_MAX)
        return false;
    *colon = 0;
    for (const char *p = line; *p; p++)
        if (*p <= ' ' || *p >= 127)
            return false;
    char *value = colon + 1;
    while (*value == ' ' || *value == '\t')
        value++;
    for (size_t n = strlen(value); n && (value[n - 1] == ' ' || value[n - 1] == '\t'); n--)
        value[n - 1] = 0;
    m->headers[m->n_headers++] = (struct http_header){ line, value };
    return true;
}

static int interpret(struct http_message *m, struct err *e)
{
    unsigned n_lengths = 0;
    for (unsigned i = 0; i < m->n_headers; i++)
        n_lengths += !strcasecmp(m->headers[i].name, "Content-Length");
    const char *coding = http_message_header(m, "Transfer-Encoding");
    const char *connection = http_message_header(m, "Connection");
    const char *length = http_message_header(m, "Content-Length");
    if (n_lengths > 1 || (length && coding))
        return err_set(e, E_INVALID, "a message has one length: Content-Length once, or chunked");
    if (length && !str_u64(length, 0, INT64_MAX, &m->length))
        return err_set(e, E_INVALID, "Content-Length: \"%.40s\" is no number", length);
    if (coding && strcasecmp(coding, "chunked"))
        return err_set(e, E_UNSUPPORTED, "Transfer-Encoding: only chunked is understood");
    m->has_length = length != NULL;
    m->chunked = coding != NULL;
    m->keep_alive = m->minor == 1 ? !has_token(connection, "close") : has_token(connection, "keep-alive");
    m->upgrade_tcp = has_token(connection, "Upgrade") && has_token(http_message_header(m, "Upgrade"), "tcp");
    const char *expect = http_message_header(m, "Expect");
    m->expect_continue = expect && !strcasecmp(expect, "100-continue");
    return 0;
}

long http_head_parse(struct http_message *m, const char *p, size_t size, bool request, struct err *e)
{
    size_t skip = 0;
    while (request && skip < size && (p[skip] == '\r' || p[skip] == '\n'))
        skip++; /* empty lines before a request are ignored (RFC 9112 section 2.2) */
    size_t n = head_end(p + skip, size - skip);
    if (!n && size - skip > HTTP_HEAD_MAX_BYTES)
        return err_set(e, E_TOO_BIG, "the head is longer than %d bytes", HTTP_HEAD_MAX_BYTES);
    if (!n)
        return 0;
    if (n > HTTP_HEAD_MAX_BYTES)
        return err_set(e, E_TOO_BIG, "the head is longer than %d bytes", HTTP_HEAD_MAX_BYTES);
    *m = (struct http_message){ .head = xcalloc(1, n + 1) };
    memcpy(m->head, p + skip, n);
    int r = memchr(m->head, 0, n) ? err_set(e, E_INVALID, "the head holds a NUL byte") : 0;
    bool first = true;
    for (char *line = m->head; r == 0;) {
        char *end = strchr(line, '\n');
        ASSERT(end);
        *end = 0;
        if (end > line && end[-1] == '\r')
            end[-1] = 0;
        if (!*line && !first)
            break;
        if (has_control(line) ||
            !(first ? (request ? parse_request_line : parse_status_line)(m, line) : add_header(m, line)))
            r = err_set(e, E_INVALID, "malformed %s", first ? (request ? "request line" : "status line")
                                                            : "header, or more than 100 of them");
        first = false;
        line = end + 1;
    }
    if (r == 0)
        r = interpret(m, e);
    if (r < 0) {
        http_message_clear(m);
        return r;
    }
    return (long)(skip + n);
}

void http_body_init(struct http_body *b, const struct http_message *m, bool response, bool no_body)
{
    *b = (struct http_body){ 0 };
    if (m->chunked && !no_body) {
        b->kind = HTTP_BODY_CHUNKED;
    } else if (m->has_length || !response || no_body) {
        b->kind = HTTP_BODY_LENGTH;
        b->left = no_body ? 0 : m->length;
        b->done = b->left == 0;
    } else {
        b->kind = HTTP_BODY_CLOSE;
    }
}

enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

/* A line of the chunked coding; true when it is whole. */
static bool take_line(struct http_body *b, char c, bool *ret_bad)
{
    if (c == '\n') {
        if (b->line_len && b->line[b->line_len - 1] == '\r')
            b->line_len--;
        b->line[b->line_len] = 0;
        b->line_len = 0;
        return true;
    }
    if (b->line_len < sizeof b->line - 1)
        b->line[b->line_len++] = c;
    else if (b->state == CHUNK_SIZE && !memchr(b->line, ';', b->line_len))
        *ret_bad = true;
    return false;
}

static bool parse_size(const char *s, uint64_t *ret)
{
    uint64_t v = 0;
    unsigned n = 0;
    for (; isxdigit((unsigned char)*s) && n < 15; s++, n++)
        v = v << 4 | (uint64_t)(isdigit((unsigned char)*s) ? *s - '0' : (*s | 32) - 'a' + 10);
    *ret = v;
    return n && (!*s || *s == ';' || *s == ' ');
}

static long take_chunked(struct http_body *b, const char *p, size_t size, const char **ret_data,
                         size_t *ret_size)
{
    size_t i = 0;
    while (i < size && !b->done) {
        bool bad = false;
        if (b->state == CHUNK_DATA) {
            size_t n = MIN((uint64_t)(size - i), b->left);
            *ret_data = p + i;
            *ret_size = n;
            b->left -= n;
            if (!b->left)
                b->state = CHUNK_END;
            return (long)(i + n);
        }
        if (!take_line(b, p[i++], &bad)) {
            if (bad)
                return -E_INVALID;
            continue;
        }
        if (b->state == CHUNK_SIZE) {
            if (!parse_size(b->line, &b->left))
                return -E_INVALID;
            b->state = b->left ? CHUNK_DATA : TRAILER;
        } else if (b->state == CHUNK_END) {
            if (b->line[0])
                return -E_INVALID;
            b->state = CHUNK_SIZE;
        } else if (!b->line[0]) {
            b->done = true;
        }
    }
    return (long)i;
}

long http_body_take(struct http_body *b, const char *p, size_t size, const char **ret_data, size_t *ret_size)
{
    *ret_data = NULL;
    *ret_size = 0;
    if (b->done)
        return 0;
    if (b->kind == HTTP_BODY_CHUNKED)
        return take_chunked(b, p, size, ret_data, ret_size);
    size_t n = b->kind == HTTP_BODY_CLOSE ? size : (size_t)MIN((uint64_t)size, b->left);
    *ret_data = p;
    *ret_size = n;
    if (b->kind == HTTP_BODY_LENGTH) {
        b->left -= n;
        b->done = !b->left;
    }
    return (long)n;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t http_decode(char *s, bool plus)
{
    char *out = s;
    for (const char *p = s; *p; p++) {
        int hi = *p == '%' ? hex_digit(p[1]) : -1, lo = hi >= 0 ? hex_digit(p[2]) : -1;
        if (lo >= 0 && (hi || lo)) {
            *out++ = (char)(hi << 4 | lo);
            p += 2;
        } else {
            *out++ = plus && *p == '+' ? ' ' : *p;
        }
    }
    *out = 0;
    return (size_t)(out - s);
}

void http_encode(struct sb *out, const char *s)
{
    for (; *s; s++)
        if (isalnum((unsigned char)*s) || strchr("-_.~", *s))
            sb_char(out, *s);
        else
            sb_printf(out, "%%%02X", (unsigned char)*s);
}
