/* The record engine: an object is described once, as rows; struct, msgpack, JSON, YAML, validation,
 * diff, copy, equality, redaction and immutability are all derived from the rows.
 *
 *   #define port_FIELDS(X, T) \
 *       X(T, UINT, target, _, 1, "TargetPort", "in the container", .min = 1, .max = 65535) ...
 *   REC_DECLARE(port)   in the header: struct port, port_rec, port_clear/copy/equal
 *   REC_DEFINE(port)    in one .c file
 *
 * Columns: T, kind, member, element type or _, msgpack tag (never reused; 1..), JSON name, meaning
 * with unit, then designated initialisers: .min .max .flags .names .check .since (format.h; 0: always there)
 *
 * kind   C member                            JSON                  limits
 * BOOL   bool                                true/false
 * INT    int64_t                             number                min..max (both 0: any)
 * UINT   uint64_t                            number                min..max (max 0: any)
 * REAL   double                              number
 * TIME   int64_t, ns since 1970              RFC 3339 string       0 = "0001-01-01T00:00:00Z"
 * STR    char * (NULL = absent/empty)        string                max characters
 * BYTES  struct bytes                        base64 string         max bytes
 * ENUM   int (index in .names)               string                .names = NULL-terminated, [0] is the default
 * STRS   struct strs {v, n}                  list of strings       max elements
 * LABELS struct labels {v, n} key/value      object of strings     max pairs; kept sorted by key
 * REC    struct of m (inside)                object
 * OPT    struct of *m (NULL = absent)        object
 * LIST   struct {struct of *v; uint32_t n;}  list of objects       max elements
 *
 * Absent, null and the zero value are one and the same in every encoding, but for OPT where presence
 * itself counts ({} is present). msgpack: map of int tags, zero values left out, ascending: the same
 * object is the same bytes on every replica; unknown tags are skipped, or refused by rec_unpack_all().
 * JSON/YAML: unknown names are refused with their path. */
#ifndef SHOAL_MODEL_REC_H
#define SHOAL_MODEL_REC_H

#include <shoal/base/err.h>
#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <shoal/base/val.h>

struct rec;
enum rec_kind {
    K_BOOL, K_INT, K_UINT, K_REAL, K_TIME, K_STR, K_BYTES, K_ENUM, K_STRS, K_LABELS, K_REC, K_OPT, K_LIST
};
enum {
    F_FIXED = 1,    /* cannot change after creation */
    F_SECRET = 2,   /* never in JSON output, logs, diffs (shown as present only) */
    F_UNBUILT = 4,  /* known to Docker, not built in shoal: anything but absent/zero is refused by name */
    F_LIVE = 8,     /* a change does not replace the task */
    F_ALWAYS = 16,  /* JSON output even when zero ([], {}, 0, "", false) */
    F_LOCAL = 32,   /* JSON only: computed for a reply, never stored in msgpack, never compared */
    F_OPAQUE = 64,  /* JSON: accepted from clients and dropped (derived fields they echo back) */
};

struct bytes { uint8_t *v; uint32_t n; };
struct strs { char **v; uint32_t n; };
struct label { char *key, *value; };
struct labels { struct label *v; uint32_t n; };
struct rec_list { void *v; uint32_t n; };

struct field {
    const char *name; /* JSON name */
    const char *doc;
    const struct rec *of;
    const char *const *names;
    const char *(*check)(const char *value); /* STR, each of STRS: NULL = good, else what is wrong */
    int64_t min, max;
    uint32_t off;
    uint16_t tag, since;
    uint8_t kind, flags;
};
struct rec {
    const char *name;
    const struct field *fields;
    uint32_t n;
    uint32_t size; /* of the struct */
};

/* All take a pointer to the struct described by t. */
void rec_clear(const struct rec *t, void *r); /* frees members, leaves all zero */
void rec_copy(const struct rec *t, void *dst, const void *src); /* dst: zeroed or to be overwritten without free */
bool rec_equal(const struct rec *t, const void *a, const void *b);
bool rec_is_zero(const struct rec *t, const void *r);
/* Bounds, enums, checks; path of the first bad field in e ("TaskTemplate.ContainerSpec.Image: ..."). */
int rec_check(const struct rec *t, const void *r, struct err *e) must_check;
void rec_pack(const struct rec *t, const void *r, struct sb *b);
int rec_unpack(const struct rec *t, void *ret, const void *p, size_t size, struct err *e) must_check;
/* The same; E_UNSUPPORTED when it holds a tag that this program does not know. */
int rec_unpack_all(const struct rec *t, void *ret, const void *p, size_t size, struct err *e) must_check;
unsigned rec_format(const struct rec *t, const void *r); /* the first format in which all it holds can be written */
void rec_cut(const struct rec *t, void *r, uint64_t format); /* clears what this format does not have */
int rec_from_val(const struct rec *t, void *ret, const struct val *v, const char *path, struct err *e) must_check;
    /* ret must be zeroed; on error it is left zeroed. Applies rec_check. path "" at the root. */
int rec_from_json(const struct rec *t, void *ret, const char *s, size_t len, const char *what, struct err *e) must_check;
struct val *rec_to_val(const struct rec *t, const void *r, struct val_doc *d); /* secrets left out */
void rec_to_json(const struct rec *t, const void *r, struct sb *b);
/* Dotted paths of the fields that differ, e.g. "TaskTemplate.ContainerSpec.Image"; without_flags: skip rows having any of them. */
typedef void rec_diff_fn(void *arg, const char *path, const struct field *f);
unsigned rec_diff(const struct rec *t, const void *a, const void *b, unsigned without_flags, rec_diff_fn *fn, void *arg);
/* Field reference text for `shoal debug schema`. */
void rec_describe(const struct rec *t, struct sb *b);

void bytes_set(struct bytes *b, const void *p, uint32_t n); /* copies; n 0: none */
void strs_add(struct strs *s, const char *value);
void strs_clear(struct strs *s);
bool strs_has(const struct strs *s, const char *value);
void labels_set(struct labels *l, const char *key, const char *value); /* keeps order sorted */
bool labels_unset(struct labels *l, const char *key);
const char *labels_get(const struct labels *l, const char *key);
void labels_clear(struct labels *l);
void str_set(char **member, const char *value); /* frees the old, copies the new (NULL or "" -> NULL) */
/* Grows the list by one zeroed element and returns it: `struct port *p = REC_ADD(&spec->ports);` */
void *rec_list_add_(struct rec_list *l, size_t size);
#define REC_ADD(l) ((__typeof__((l)->v))rec_list_add_((struct rec_list *)(void *)(l), sizeof *(l)->v))
/* Removes element i (cleared by its record type). */
void rec_list_remove(struct rec_list *l, const struct rec *of, uint32_t i);

#define CT_BOOL(m, of) bool m;
#define CT_INT(m, of) int64_t m;
#define CT_UINT(m, of) uint64_t m;
#define CT_REAL(m, of) double m;
#define CT_TIME(m, of) int64_t m;
#define CT_STR(m, of) char *m;
#define CT_BYTES(m, of) struct bytes m;
#define CT_ENUM(m, of) int m;
#define CT_STRS(m, of) struct strs m;
#define CT_LABELS(m, of) struct labels m;
#define CT_REC(m, of) struct of m;
#define CT_OPT(m, of) struct of *m;
#define CT_LIST(m, of) struct { struct of *v; uint32_t n; } m;
#define OF_BOOL(of)
#define OF_INT(of)
#define OF_UINT(of)
#define OF_REAL(of)
#define OF_TIME(of)
#define OF_STR(of)
#define OF_BYTES(of)
#define OF_ENUM(of)
#define OF_STRS(of)
#define OF_LABELS(of)
#define OF_REC(o) .of = &o##_rec,
#define OF_OPT(o) .of = &o##_rec,
#define OF_LIST(o) .of = &o##_rec,
#define REC_MEMBER_(T, K, m, of, ...) CT_##K(m, of)
#define REC_ROW_(T, K, m, of_, tag_, json, help, ...) \
    { .kind = K_##K, .off = offsetof(struct T, m), .tag = (tag_), .name = (json), .doc = (help), OF_##K(of_) __VA_ARGS__ },
#define REC_INLINE __attribute__((unused)) static inline /* clang warns of those that a .c file leaves unused */
#define REC_DECLARE(T)                                                                         \
    struct T { T##_FIELDS(REC_MEMBER_, T) };                                                   \
    extern const struct rec T##_rec;                                                           \
    REC_INLINE void T##_clear(struct T *r) { rec_clear(&T##_rec, r); }                         \
    REC_INLINE void T##_copy(struct T *d, const struct T *s) { rec_copy(&T##_rec, d, s); }     \
    REC_INLINE bool T##_equal(const struct T *a, const struct T *b) { return rec_equal(&T##_rec, a, b); }
#define REC_DEFINE(T)                                                            \
    static const struct field T##_rows_[] = { T##_FIELDS(REC_ROW_, T) };         \
    const struct rec T##_rec = { #T, T##_rows_, sizeof T##_rows_ / sizeof T##_rows_[0], sizeof(struct T) };

#endif
