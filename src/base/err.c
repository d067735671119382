/* Errors: the list's texts, and building of the one sentence. */
#include <errno.h>
#include <shoal/base/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text;
    int http, exit_status;
} codes[E_N] = {
    [E_OK] = { "success", 200, 0 },
#define X(name, http, exit_status, text) [E_##name] = { text, http, exit_status },
    ERRORS(X)
#undef X
};

static int index_of(int code)
{
    code = code < 0 ? -code : code;
    return code < E_N ? code : E_INTERNAL;
}

const char *err_text(int code)
{
    return codes[index_of(code)].text;
}

int err_http_status(int code)
{
    return codes[index_of(code)].http;
}

int err_exit_status(int code)
{
    return codes[index_of(code)].exit_status;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        e->code = code;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
    }
    return -code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    if (!e)
        return -E_INTERNAL;
    char old[sizeof e->text];
    va_list ap;
    memcpy(old, e->text, sizeof old);
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text)
        snprintf(e->text + n, sizeof e->text - (size_t)n, ": %.*s", (int)sizeof old - 4, old);
    if (!e->code)
        e->code = E_INTERNAL;
    return -e->code;
}

static int code_of_errno(int errno_)
{
    switch (errno_) {
    case ENOENT: case ENOTDIR: case ESRCH: return E_NOT_FOUND;
    case EEXIST: case ENOTEMPTY: return E_EXISTS;
    case EACCES: case EPERM: return E_DENIED;
    case ENOMEM: return E_NO_MEMORY;
    case ETIMEDOUT: return E_TIMEOUT;
    case EBUSY: case EAGAIN: return E_BUSY;
    case EINVAL: return E_INVALID;
    case EOPNOTSUPP: return E_UNSUPPORTED;
    case EPIPE: case ECONNRESET: return E_CLOSED;
    case ECONNREFUSED: case EHOSTUNREACH: case ENETUNREACH: return E_UNAVAILABLE;
    default: return E_IO;
    }
}

int err_errno(struct err *e, int errno_, const char *fmt, ...)
{
    int code = code_of_errno(errno_);
    if (e) {
        va_list ap;
        e->code = code;
        va_start(ap, fmt);
        int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof e->text)
            snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s%s", strerror(errno_),
                     errno_ == ENOSPC ? "; free some there and try again" : "");
    }
    return -code;
}

void assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, cond);
    abort();
}
