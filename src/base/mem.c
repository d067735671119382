/* Memory and small string helpers. */
#include <shoal/base/err.h>
#include <shoal/base/mem.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static void *checked(void *p)
{
    if (!p) {
        fputs("out of memory\n", stderr);
        abort();
    }
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    return checked(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t n, size_t size)
{
    return checked(reallocarray(p, n ? n : 1, size ? size : 1));
}

char *xstrdup(const char *s)
{
    return s ? checked(strdup(s)) : NULL;
}

char *xstrndup(const char *s, size_t len)
{
    return checked(strndup(s, len));
}

void *xmemdup(const void *p, size_t size)
{
    void *copy = xcalloc(1, size);
    if (size)
        memcpy(copy, p, size);
    return copy;
}

char *xasprintf(const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    return checked(s);
}

void *try_calloc(size_t n, size_t size)
{
    return calloc(n ? n : 1, size ? size : 1);
}

void auto_free_(void *p)
{
    free(*(void **)p);
}

void auto_close_(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

bool str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && memcmp(s + n - k, suffix, k) == 0;
}

bool str_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;
    if (!*s)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    if (v < min || v > max)
        return false;
    *ret = v;
    return true;
}
