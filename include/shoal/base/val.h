/* val: the one capped tree that JSON, YAML and msgpack parse to, and that the record engine
 * (model/rec.h) decodes from. Lives in an arena that belongs to the root document. */
#ifndef SHOAL_BASE_VAL_H
#define SHOAL_BASE_VAL_H

#include <shoal/base/err.h>
#include <shoal/base/sb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum val_kind { V_NULL, V_BOOL, V_INT, V_UINT, V_REAL, V_STR, V_BYTES, V_LIST, V_MAP };
/* V_UINT only for numbers above INT64_MAX. */

struct val {
    enum val_kind kind;
    uint32_t line; /* YAML: line in the file, from 1; 0 elsewhere */
    uint32_t n;    /* LIST: elements, MAP: pairs, STR/BYTES: bytes */
    bool quoted;   /* YAML: scalar was quoted (so "1" stays a string) */
    union {
        bool b;
        int64_t i;
        uint64_t u;
        double r;
        const char *s;         /* STR (NUL-terminated after n bytes), BYTES */
        struct val **list;
        struct val_pair *map;  /* in the order of the document */
    };
};

struct val_pair {
    struct val *key; /* STR, or INT in our msgpack */
    struct val *value;
};

struct val_doc; /* arena + root */
/* A document to build by hand. max_bytes 0: 64 MiB. */
struct val_doc *val_doc_new(void);
void val_doc_free(struct val_doc *d); /* takes NULL; frees every val of it */
struct val *val_root(struct val_doc *d);
void val_set_root(struct val_doc *d, struct val *v);

struct val *val_null(struct val_doc *d);
struct val *val_bool(struct val_doc *d, bool b);
struct val *val_int(struct val_doc *d, int64_t i);
struct val *val_uint(struct val_doc *d, uint64_t u);
struct val *val_real(struct val_doc *d, double r);
struct val *val_str(struct val_doc *d, const char *s);               /* copied */
struct val *val_str_n(struct val_doc *d, const char *s, size_t len); /* copied */
struct val *val_bytes(struct val_doc *d, const void *p, size_t size);
struct val *val_list(struct val_doc *d);
struct val *val_map(struct val_doc *d);
void val_push(struct val_doc *d, struct val *list, struct val *v);
void val_set(struct val_doc *d, struct val *map, const char *key, struct val *v); /* replaces or appends */
void val_add(struct val_doc *d, struct val *map, const char *key, struct val *v); /* of a key that is not there yet: not looked for */
void val_unset(struct val *map, const char *key);
struct val *val_get(const struct val *map, const char *key); /* NULL: absent or not a map */
const char *val_get_str(const struct val *map, const char *key); /* NULL when absent or not a STR */
int64_t val_get_int(const struct val *map, const char *key, int64_t otherwise);
bool val_get_bool(const struct val *map, const char *key, bool otherwise);
struct val *val_copy(struct val_doc *d, const struct val *v);
bool val_equal(const struct val *a, const struct val *b);

/* Parsers: check size, depth (64) and promised counts against the bytes left before they allocate;
 * E_INVALID with line and column in the text. `what` names the source in the error ("body", a path). */
int json_parse(struct val_doc **ret, const char *s, size_t len, const char *what, struct err *e) must_check;
int yaml_parse(struct val_doc **ret, const char *s, size_t len, const char *what, struct err *e) must_check;
    /* one document; anchors, aliases and merge keys (<<) expanded (bounded); duplicate key is an error;
     * YAML 1.2 core schema + 1.1 booleans yes/no left as strings */
int mp_parse(struct val_doc **ret, const void *p, size_t size, struct err *e) must_check;

/* Writers. json: compact when indent is 0. */
void json_write(struct sb *b, const struct val *v, unsigned indent);
void yaml_write(struct sb *b, const struct val *v); /* block style */
void mp_write(struct sb *b, const struct val *v);

#endif
