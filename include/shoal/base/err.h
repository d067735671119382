/* Errors: one list of codes, one fixed-size carrier for the sentence a person reads.
 *
 * Functions return 0 or a negative code from ERRORS. Where a person will read the reason, the last
 * parameter is `struct err *e` (may be NULL): the innermost function sets it with err_set(), callers
 * add context in front with err_wrap(). No allocation, no owner. errno ends at the system call line. */
#ifndef SHOAL_BASE_ERR_H
#define SHOAL_BASE_ERR_H

#include <stdarg.h>

/*        name          HTTP  exit  text */
#define ERRORS(X)                                                    \
    X(INVALID,      400,  2, "invalid argument")                     \
    X(DENIED,       403,  1, "permission denied")                    \
    X(NOT_FOUND,    404,  1, "not found")                            \
    X(EXISTS,       409,  1, "already exists")                       \
    X(CONFLICT,     409,  1, "conflict")                             \
    X(STALE,        500,  1, "update out of sequence")               \
    X(TOO_BIG,      413,  1, "too big")                              \
    X(NO_MEMORY,    507,  1, "out of memory")                        \
    X(IO,           500,  1, "input/output error")                   \
    X(CORRUPT,      500,  1, "corrupt data")                         \
    X(CLOSED,       500,  1, "connection closed")                    \
    X(TIMEOUT,      504,  1, "timed out")                            \
    X(UNAVAILABLE,  503,  1, "unavailable")                          \
    X(NOT_LEADER,   503,  1, "not the leader")                       \
    X(UNSUPPORTED,  501,  1, "not supported")                        \
    X(BUSY,         409,  1, "busy")                                 \
    X(INTERNAL,     500,  1, "internal error")

enum err_code {
    E_OK = 0,
#define X(name, http, exit_status, text) E_##name,
    ERRORS(X)
#undef X
    E_N
};

struct err {
    int code;       /* enum err_code, 0: nothing set */
    char text[512]; /* one sentence; what, where, and the cure */
};

/* Sets the sentence (replacing any) and returns -code. `e` may be NULL. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "fmt: " in front of the sentence that is there and returns -e->code (-E_INTERNAL if none). */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Like err_set with code chosen from errno_ (ENOENT NOT_FOUND, EEXIST EXISTS, EACCES/EPERM DENIED,
 * ENOSPC/EIO.. IO, ENOMEM NO_MEMORY, ETIMEDOUT TIMEOUT, EOPNOTSUPP UNSUPPORTED) and ": strerror" appended. Returns -code. */
int err_errno(struct err *e, int errno_, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Text, HTTP status and exit status of a code (sign ignored). Never fail. */
const char *err_text(int code);
int err_http_status(int code);
int err_exit_status(int code);

#define must_check __attribute__((warn_unused_result))

/* Stays on in release builds. For our own mistakes, never for input. Prints place and aborts. */
#define ASSERT(cond) ((cond) ? (void)0 : assert_failed(#cond, __FILE__, __LINE__))
void assert_failed(const char *cond, const char *file, int line) __attribute__((noreturn));

#endif
