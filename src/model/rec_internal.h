/* Shared by the files of the record engine: where a walk is (for the error sentence) and a few
 * accessors. Nothing here is seen outside src/model. */
#ifndef SHOAL_MODEL_REC_INTERNAL_H
#define SHOAL_MODEL_REC_INTERNAL_H

#include <shoal/model/rec.h>

enum { REC_MAX_ROWS = 64, REC_MAX_ELEMENTS = 65536, REC_MAX_CHARS = 1 << 20 };

/* Place of a walk. path is cut, never overrun; len counts what it would need. */
struct rec_at {
    struct err *e;
    uint32_t line; /* of the value at hand, 0: unknown */
    bool all;      /* unknown tags are refused */
    size_t len;
    char path[384];
};

void rec_at_init(struct rec_at *at, const char *path, struct err *e);
size_t rec_at_field(struct rec_at *at, const char *name, size_t len); /* returns the mark for rec_at_back */
size_t rec_at_index(struct rec_at *at, uint32_t i);
void rec_at_back(struct rec_at *at, size_t mark);
/* "PATH (line N): sentence"; returns -code. */
int rec_at_err(const struct rec_at *at, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static inline void *rec_at_off(const struct field *f, const void *r)
{
    return (char *)(uintptr_t)r + f->off;
}
/* Elements or characters a row allows at most. */
uint64_t rec_row_max(const struct field *f);
bool rec_row_is_zero(const struct field *f, const void *r, unsigned without_flags);
bool rec_row_equal(const struct field *f, const void *a, const void *b);
/* Number of characters; UTF-8 continuation bytes do not count. */
size_t rec_chars(const char *s);
/* Limits of one row's own value (not of the rows below it, nor of list elements). */
int rec_check_row(struct rec_at *at, const struct field *f, const void *r);
int rec_check_at(struct rec_at *at, const struct rec *t, const void *r);
/* i-th element of a K_LIST row. */
static inline void *rec_elem(const struct field *f, const struct rec_list *l, uint32_t i)
{
    return (char *)l->v + (size_t)i * f->of->size;
}

#endif
