/* Memory: small capped allocations abort on failure (x*), sizes chosen by a peer or file use try_*.
 * AUTO_FREE / AUTO_CLOSE release at end of scope; TAKE hands a pointer on and leaves NULL behind. */
#ifndef SHOAL_BASE_MEM_H
#define SHOAL_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *xcalloc(size_t n, size_t size);          /* zeroed; aborts when out of memory */
void *xrealloc(void *p, size_t n, size_t size); /* n * size checked for overflow */
char *xstrdup(const char *s);                  /* NULL gives NULL */
char *xstrndup(const char *s, size_t len);
void *xmemdup(const void *p, size_t size);     /* size 0 gives a non-NULL 1-byte block */
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *try_calloc(size_t n, size_t size);       /* NULL when out of memory */

#define xnew(type) ((type *)xcalloc(1, sizeof(type)))
#define TAKE(p) ({ __typeof__(p) take_ = (p); (p) = NULL; take_; })
#define ARRAY_N(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

void auto_free_(void *p);  /* p: address of a pointer */
void auto_close_(int *fd); /* closes *fd if >= 0 */
#define AUTO_FREE __attribute__((cleanup(auto_free_)))
#define AUTO_CLOSE __attribute__((cleanup(auto_close_)))

static inline bool str_equal(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}
static inline bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}
bool str_ends(const char *s, const char *suffix);
/* Whole string as a decimal number within [min,max]; false otherwise (empty, sign, rest). */
bool str_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);

#endif
