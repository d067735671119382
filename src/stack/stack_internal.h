/* What the steps of stack_load() share: the load, the place of the walk for error sentences, and typed reading
 * of YAML values. Lines: the number of the file lies in the upper bits of val.line, because after merging
 * neighbours come from different files. */
#ifndef SHOAL_STACK_INTERNAL_H
#define SHOAL_STACK_INTERNAL_H

#include <shoal/stack.h>

enum { LINE_BITS = 24, LINE_MASK = (1 << LINE_BITS) - 1 };

struct load {
    const struct stack_input *in;
    struct err *e;
    struct val_doc *doc; /* of everything made by interpolation and merging */
    struct val *root;    /* merged */
    struct labels env;   /* environment over .env */
    struct stack *out;
    size_t len;          /* of path */
    char path[300];
};

/* load.c: place and errors */
size_t at_key(struct load *l, const char *name);
size_t at_index(struct load *l, uint32_t i);
void at_back(struct load *l, size_t mark);
/* "FILE:LINE: PATH: sentence" (v NULL: no line); returns -code. */
int bad(struct load *l, const struct val *v, int code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
const char *kind_text(const struct val *v);
/* Path of a further file from input.dir; ~ is $HOME. Heap. */
char *full_path(struct load *l, const char *path);
int read_file(struct load *l, const struct val *at, const char *path, size_t max, struct bytes *ret);

/* read.c: members; NULL val or V_NULL is absent and leaves *ret alone */
struct val *member(const struct val *map, const char *key); /* NULL also when null */
int get_str(struct load *l, const struct val *map, const char *key, char **ret);
int get_text(struct load *l, const struct val *map, const char *key, char **ret); /* numbers too */
int get_bool(struct load *l, const struct val *map, const char *key, bool *ret);
int get_u64(struct load *l, const struct val *map, const char *key, uint64_t max, uint64_t *ret);
int get_i64(struct load *l, const struct val *map, const char *key, int64_t min, int64_t max, int64_t *ret);
int get_ns(struct load *l, const struct val *map, const char *key, int64_t *ret);
int get_size(struct load *l, const struct val *map, const char *key, int64_t *ret);
int get_cpus(struct load *l, const struct val *map, const char *key, int64_t *ret);
int get_ratio(struct load *l, const struct val *map, const char *key, double *ret);
int get_mode(struct load *l, const struct val *map, const char *key, uint64_t *ret); /* octal */
int get_enum(struct load *l, const struct val *map, const char *key, const char *const *names, int *ret);
int get_strs(struct load *l, const struct val *map, const char *key, struct strs *ret); /* string or list */
int get_labels(struct load *l, const struct val *map, const char *key, struct labels *ret); /* list or map */
/* A scalar as text; NULL for lists, maps and null. Heap. */
char *scalar_text(const struct val *v);

/* interpolate.c */
int interpolate_text(const char *s, const struct labels *env, struct strs *unset, struct sb *out,
                     struct err *e) must_check;
int interpolate_tree(struct load *l, const struct val *v, unsigned file, struct val **ret);
/* compose.c: keys and kinds of one file */
int compose_check(struct load *l, const struct val *root);
/* The known key nearest to name, NULL when none is near. */
const char *nearest(const char *name, const char *const *known, size_t n);
/* merge.c: over onto base, both interpolated and checked */
struct val *compose_merge(struct val_doc *d, struct val *base, struct val *over);

/* convert*.c */
int convert_stack(struct load *l);
int convert_service(struct load *l, const char *name, const struct val *v, struct service_spec *s);
int convert_deploy(struct load *l, const struct val *service, struct service_spec *s);
int convert_ports(struct load *l, const struct val *service, struct service_spec *s);
int convert_mounts(struct load *l, const struct val *service, struct container_spec_model *c);
char *scoped_name(const struct load *l, const char *name); /* STACK_name, heap */
/* Full name of a declared top-level object ("networks", "web"): its name:, external name, or scoped. Heap. */
int full_name(struct load *l, const struct val *decl, const char *key, char **ret, bool *ret_external);

#endif
