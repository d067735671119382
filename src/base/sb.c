/* String builder: doubling buffer under a cap; overflow sticks. */
#include <shoal/base/err.h>
#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <stdint.h>
#include <stdio.h>

enum { DEFAULT_MAX_BYTES = 64 << 20, FIRST_BYTES = 64 };
static const uint64_t ONES = UINT64_C(0x0101010101010101), HIGHS = UINT64_C(0x8080808080808080);
static char empty[1];

void sb_init(struct sb *b, size_t max_bytes)
{
    *b = (struct sb){ .s = empty, .max = max_bytes ? max_bytes : DEFAULT_MAX_BYTES };
}

void sb_done(struct sb *b)
{
    if (b->s != empty)
        free(b->s);
    b->s = empty;
    b->len = b->size = 0;
    b->overflow = false;
}

void sb_reset(struct sb *b)
{
    b->len = 0;
    b->overflow = false;
    if (b->size)
        b->s[0] = 0;
}

char *sb_take(struct sb *b)
{
    char *s = b->size ? b->s : xstrdup("");
    sb_init(b, b->max);
    return s;
}

static bool grow(struct sb *b, size_t more)
{
    if (b->overflow || more > b->max || b->len > b->max - more) {
        b->overflow = true;
        return false;
    }
    size_t need = b->len + more + 1;
    if (need > b->size) {
        size_t size = MAX(b->size * 2, (size_t)FIRST_BYTES);
        size = MAX(size, need);
        b->s = xrealloc(b->s == empty ? NULL : b->s, size, 1);
        b->size = size;
    }
    return true;
}

void sb_add(struct sb *b, const void *bytes, size_t size)
{
    if (!grow(b, size))
        return;
    if (size)
        memcpy(b->s + b->len, bytes, size);
    b->len += size;
    b->s[b->len] = 0;
}

void sb_str(struct sb *b, const char *s)
{
    sb_add(b, s, strlen(s));
}

void sb_char(struct sb *b, char c)
{
    sb_add(b, &c, 1);
}

void sb_vprintf(struct sb *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    ASSERT(n >= 0);
    if (!grow(b, (size_t)n))
        return;
    vsnprintf(b->s + b->len, (size_t)n + 1, fmt, ap);
    b->len += (size_t)n;
}

void sb_printf(struct sb *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    sb_vprintf(b, fmt, ap);
    va_end(ap);
}

/* Length of the valid UTF-8 sequence at s, 0: invalid. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
             : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    if (!n || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static void json_escape(struct sb *b, unsigned char c)
{
    if (c == '"' || c == '\\')
        sb_printf(b, "\\%c", c);
    else if (c == '\n')
        sb_str(b, "\\n");
    else if (c == '\t')
        sb_str(b, "\\t");
    else if (c == '\r')
        sb_str(b, "\\r");
    else if (c < 0x80)
        sb_printf(b, "\\u%04x", c);
    else
        sb_str(b, "\xef\xbf\xbd");
}

/* Where a byte of w is 0, its highest bit; above that, bits that mean nothing. */
static uint64_t zero_bytes(uint64_t w)
{
    return (w - ONES) & ~w & HIGHS;
}

/* Bytes, in steps of eight, in which none is special or beyond ASCII. */
static size_t plain_words(const char *s, size_t len)
{
    size_t n = 0;
    for (uint64_t w; len - n >= sizeof w; n += sizeof w) {
        memcpy(&w, s + n, sizeof w);
        uint64_t below_blank = (w - ONES * ' ') & ~w & HIGHS;
        if ((w & HIGHS) | below_blank | zero_bytes(w ^ ONES * '"') | zero_bytes(w ^ ONES * '\\') | zero_bytes(w ^ ONES * 0x7f))
            break;
    }
    return n;
}

void sb_json_str(struct sb *b, const char *s, size_t len)
{
    size_t plain = 0; /* from here on it goes in as it is, at once: logs are mostly that */
    sb_char(b, '"');
    for (size_t i = plain_words(s, len); i < len; i += plain_words(s + i, len - i)) {
        unsigned char c = (unsigned char)s[i];
        bool special = c < 0x20 || c == 0x7f || c == '"' || c == '\\';
        size_t n = special ? 0 : utf8_len((const unsigned char *)s + i, len - i);
        if (n) {
            i += n;
            continue;
        }
        sb_add(b, s + plain, i - plain);
        json_escape(b, c);
        plain = ++i;
    }
    sb_add(b, s + plain, len - plain);
    sb_char(b, '"');
}

void sb_drop_front(struct sb *b, size_t n)
{
    ASSERT(n <= b->len);
    if (!n)
        return;
    memmove(b->s, b->s + n, b->len - n + 1);
    b->len -= n;
}
