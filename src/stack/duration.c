/* Numbers with units as Compose files and command lines write them: durations, sizes, processors. Exact: the
 * decimals are kept as an integer and a power of ten, never as floating point. */
#include <ctype.h>
#include <strings.h>
#include <shoal/stack.h>

/* Digits[.digits] at *s times scale, rounded down; false when there is none or it does not fit. */
static bool fixed(const char **s, int64_t scale, int64_t *ret)
{
    unsigned __int128 n = 0, unit = (unsigned __int128)scale;
    bool any = false;
    const char *p = *s;
    for (; isdigit((unsigned char)*p); p++, any = true)
        if ((n = n * 10 + (unsigned)(*p - '0')) > INT64_MAX)
            return false;
    n *= unit;
    if (*p == '.') {
        if (!isdigit((unsigned char)p[1]))
            return false;
        unsigned __int128 part = 0, base = 1;
        for (p++; isdigit((unsigned char)*p); p++, any = true)
            if (base < (unsigned __int128)1000000000000000000) {
                part = part * 10 + (unsigned)(*p - '0');
                base *= 10;
            }
        n += part * unit / base;
    }
    if (!any || n > INT64_MAX)
        return false;
    *s = p;
    *ret = (int64_t)n;
    return true;
}

int stack_duration_ns(const char *s, int64_t *ret_ns)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = { { "ms", 1000000 }, { "us", 1000 }, { "ns", 1 }, { "h", INT64_C(3600000000000) },
                  { "m", INT64_C(60000000000) }, { "s", 1000000000 } };
    int64_t sum = 0;
    if (strcmp(s, "0") == 0) {
        *ret_ns = 0;
        return 0;
    }
    if (!*s)
        return -E_INVALID;
    while (*s) {
        const char *number = s;
        while (isdigit((unsigned char)*s) || *s == '.')
            s++;
        size_t u = 0;
        while (u < ARRAY_N(units) && !str_starts(s, units[u].name))
            u++;
        int64_t part;
        if (u == ARRAY_N(units) || !fixed(&number, units[u].ns, &part) || number != s ||
            __builtin_add_overflow(sum, part, &sum))
            return -E_INVALID;
        s += strlen(units[u].name);
    }
    *ret_ns = sum;
    return 0;
}

int stack_size_bytes(const char *s, int64_t *ret_bytes)
{
    static const char units[] = "bkmgtp";
    const char *number = s;
    while (isdigit((unsigned char)*s) || *s == '.')
        s++;
    size_t len = (size_t)(s - number);
    while (*s == ' ')
        s++;
    int64_t scale = 1, value;
    if (*s) {
        const char *u = strchr(units, tolower((unsigned char)*s));
        if (!u)
            return -E_INVALID;
        scale = INT64_C(1) << (10 * (u - units));
        const char *rest = s + 1;
        if (*rest && (*u == 'b' || (strcasecmp(rest, "b") != 0 && strcasecmp(rest, "ib") != 0)))
            return -E_INVALID;
    }
    const char *end = number;
    if (!fixed(&end, scale, &value) || (size_t)(end - number) != len)
        return -E_INVALID;
    *ret_bytes = value;
    return 0;
}

int stack_nano_cpus(const char *s, int64_t *ret_nano)
{
    const char *dot = strchr(s, '.');
    int64_t value;
    if ((dot && strlen(dot) > 10) || !fixed(&s, 1000000000, &value) || *s)
        return -E_INVALID;
    *ret_nano = value;
    return 0;
}

/* One word; *s is at its first character. */
static int shell_word(const char **s, struct sb *word)
{
    char quote = 0;
    for (; **s; ++*s) {
        char c = **s;
        if (quote == '\'') {
            if (c == quote)
                quote = 0;
            else
                sb_char(word, c);
        } else if (c == '\\' && (*s)[1]) {
            char next = *++*s;
            if (quote && !strchr("\"\\$`\n", next))
                sb_char(word, '\\');
            if (next != '\n')
                sb_char(word, next);
        } else if (c == '\\') {
            return -E_INVALID;
        } else if (quote ? c == quote : c == '"' || c == '\'') {
            quote = quote ? 0 : c;
        } else if (!quote && isspace((unsigned char)c)) {
            break;
        } else {
            sb_char(word, c);
        }
    }
    return quote ? -E_INVALID : 0;
}

int stack_shell_split(const char *s, struct strs *ret)
{
    struct strs words = { 0 };
    AUTO_SB struct sb word;
    sb_init(&word, 0);
    int rc = 0;
    for (;;) {
        while (isspace((unsigned char)*s))
            s++;
        if (!*s || rc < 0)
            break;
        sb_reset(&word);
        rc = shell_word(&s, &word);
        if (rc == 0)
            strs_add(&words, word.s);
    }
    if (rc < 0) {
        strs_clear(&words);
        return rc;
    }
    *ret = words;
    return 0;
}
