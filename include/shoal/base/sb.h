/* String builder with a cap and a sticky error: append freely, check once. Always NUL-terminated
 * (sb.s is never NULL after init). Bytes may contain NUL; `len` counts them. */
#ifndef SHOAL_BASE_SB_H
#define SHOAL_BASE_SB_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct sb {
    char *s;       /* owned */
    size_t len;    /* bytes used, without the NUL */
    size_t size;   /* bytes allocated */
    size_t max;    /* most bytes it may hold; an append beyond sets overflow and appends nothing */
    bool overflow;
};

void sb_init(struct sb *b, size_t max_bytes); /* 0: 64 MiB */
void sb_done(struct sb *b);
void sb_reset(struct sb *b);                  /* length 0, keeps memory */
char *sb_take(struct sb *b);                  /* gives the string (caller frees), b is as after init */
void sb_add(struct sb *b, const void *bytes, size_t size);
void sb_str(struct sb *b, const char *s);
void sb_char(struct sb *b, char c);
void sb_printf(struct sb *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sb_vprintf(struct sb *b, const char *fmt, va_list ap);
void sb_json_str(struct sb *b, const char *s, size_t len); /* quoted and escaped, invalid UTF-8 as U+FFFD */
void sb_drop_front(struct sb *b, size_t n);   /* removes the first n bytes */

#define AUTO_SB __attribute__((cleanup(sb_done)))

#endif
