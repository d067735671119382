/* HTTP/1: heads, bodies, and percent-encoding. Oracles: a head is complete at one size only, and every shorter part of
 * it asks for more or is refused; a body gives the same bytes and end however it is cut into parts; what is encoded
 * decodes to itself. The first byte chooses. */
#include "fuzz.h"

#include <shoal/http.h>

static long head(struct http_message *m, const uint8_t *p, size_t size, bool request, struct err *e)
{
    AUTO_FREE char *exact = xmemdup(p, size);
    return http_head_parse(m, exact, size, request, e);
}

static void check_message(const struct http_message *m, bool request)
{
    ASSERT(m->n_headers <= HTTP_HEADERS_MAX && (request ? m->method && *m->method && m->target && *m->target
                                                        : m->status >= 100 && m->status <= 999));
    ASSERT(!(m->chunked && m->has_length)); /* two lengths are how requests are smuggled */
    for (unsigned i = 0; i < m->n_headers; i++) {
        ASSERT(*m->headers[i].name && !strpbrk(m->headers[i].name, " \t\r\n:") && !strpbrk(m->headers[i].value, "\r\n"));
        ASSERT(http_message_header(m, m->headers[i].name));
    }
}

/* Body bytes in parts of the sizes that `cuts` says; false: refused. */
static bool take_all(const struct http_message *m, bool response, const uint8_t *p, size_t size, unsigned cut, struct sb *out,
                     bool *ret_done, size_t *ret_used)
{
    struct http_body b;
    http_body_init(&b, m, response, false);
    size_t used = 0;
    for (size_t shown = MIN(size, (size_t)cut); !b.done;) {
        const char *data;
        size_t n_data;
        AUTO_FREE char *part = xmemdup(p + used, shown - used);
        long n = http_body_take(&b, part, shown - used, &data, &n_data);
        if (n < 0)
            return false;
        ASSERT((size_t)n <= shown - used);
        if (n_data) {
            ASSERT(data >= part && data + n_data <= part + (shown - used));
            sb_add(out, data, n_data);
        }
        used += (size_t)n;
        if (n == 0 && !n_data) {
            if (shown == size)
                break;
            shown = MIN(size, shown + cut);
        }
    }
    *ret_done = b.done;
    *ret_used = used;
    return true;
}

static void body(const struct http_message *m, bool response, const uint8_t *p, size_t size)
{
    AUTO_SB struct sb a, b;
    bool done[2];
    size_t used[2];
    sb_init(&a, 0);
    sb_init(&b, 0);
    bool whole = take_all(m, response, p, size, (unsigned)size + 1, &a, &done[0], &used[0]);
    bool parts = take_all(m, response, p, size, 1, &b, &done[1], &used[1]);
    ASSERT(whole == parts);
    if (whole)
        ASSERT(done[0] == done[1] && a.len == b.len && memcmp(a.s, b.s, a.len) == 0 && (!done[0] || used[0] == used[1]));
}

static void message(const uint8_t *p, size_t size, bool request)
{
    struct http_message m = { 0 }, shorter;
    struct err e = { 0 };
    long n = head(&m, p, size, request, &e);
    if (n <= 0) {
        ASSERT(n == 0 || e.text[0]);
        return;
    }
    ASSERT((size_t)n <= size);
    check_message(&m, request);
    for (long k = n > 40 ? n - 40 : 0; k < n; k++) {
        memset(&shorter, 0, sizeof shorter);
        long r = head(&shorter, p, (size_t)k, request, &e);
        ASSERT(r <= 0);
    }
    body(&m, !request, p + n, size - (size_t)n);
    http_message_clear(&m);
}

static void percent(const uint8_t *p, size_t size)
{
    AUTO_FREE char *text = xcalloc(size + 1, 1), *copy = NULL;
    AUTO_SB struct sb b;
    memcpy(text, p, size);
    copy = xstrdup(text);
    ASSERT(http_decode(copy, true) <= strlen(text));
    sb_init(&b, 0);
    http_encode(&b, text);
    ASSERT(!strpbrk(b.s, " \r\n&?#+") && http_decode(b.s, false) == strlen(text) && str_equal(b.s, text));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    if (!size)
        return 0;
    if (p[0] % 3 == 2)
        percent(p + 1, size - 1);
    else
        message(p + 1, size - 1, p[0] % 3 == 0);
    return 0;
}

const unsigned fuzz_rounds = 3000;
const char *const fuzz_words[] = { "\r\n", "\n", "\r\n\r\n", ": ", "Content-Length: 5\r\n", "Content-Length: 6\r\n", "Content-Length: +5\r\n",
                                   "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n", "chunked",
                                   "Connection: close\r\n", "Connection: Upgrade\r\n", "Upgrade: tcp\r\n", "Expect: 100-continue\r\n",
                                   "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "GET ", "0\r\n\r\n", "ffffffffffffffff", "5;ext=1\r\n", "%00",
                                   "%2f", "%", "\t", " \r\n", "Host: a\r\n", NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    bool request = rng_chance(g, 600);
    sb_char(b, request ? 0 : 1);
    sb_str(b, request ? "POST /v1.50/containers/a%20b?all=1&x=%7B HTTP/1.1\r\n" : "HTTP/1.1 200 OK\r\n");
    sb_str(b, "Host: docker\r\nUser-Agent: x/1 (a; b)\r\n");
    if (rng_chance(g, 300))
        sb_str(b, "Connection: Upgrade\r\nUpgrade: tcp\r\n");
    if (rng_chance(g, 500))
        sb_str(b, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1f;a=b\r\n0123456789012345678901234567890\r\n0\r\nT: v\r\n\r\nrest");
    else
        sb_str(b, "Content-Length: 5\r\n\r\nhelloGET");
}
