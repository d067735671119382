/* Compose files to cluster objects, as `docker stack deploy` makes them: interpolate, check against the known
 * keys, merge several files, convert. Pure: files, environment and the reading of further files are given.
 * A key that is unknown or not built is refused with file, line and path; nothing is dropped but x-* keys. */
#ifndef SHOAL_STACK_H
#define SHOAL_STACK_H

#include <shoal/model/cluster.h>
#include <shoal/model/service.h>

enum { STACK_MAX_FILES = 64, STACK_MAX_FILE_BYTES = 4 << 20 };

#define STACK_LABEL_NAMESPACE "com.docker.stack.namespace"
#define STACK_LABEL_IMAGE "com.docker.stack.image"

struct stack_source {
    const char *name; /* as errors shall name it */
    const char *text;
    size_t len;
};

/* Reads a whole file (secrets, configs, env files). path is absolute when input.dir is. *ret is the caller's
 * to free; at most max_bytes, else -E_TOO_BIG. -E_NOT_FOUND when there is no such file. */
typedef int stack_read_fn(void *arg, const char *path, size_t max_bytes, struct bytes *ret, struct err *e);

struct stack_input {
    const char *name;                 /* of the stack; NULL: the `name:` of the files */
    const char *dir;                  /* absolute folder of the first file: relative paths start here */
    const struct stack_source *files; /* later ones are merged over earlier ones */
    unsigned n_files;
    const struct stack_source *dotenv;       /* `.env`, NULL: none; the environment wins over it */
    const char *const *environ_pairs;        /* "NAME=value"..., NULL at the end */
    stack_read_fn *read;                     /* NULL: files cannot be read, asking for one is an error */
    void *read_arg;
};

struct stack {
    char *name;
    struct { struct network *v; uint32_t n; } networks; /* to create; those some service uses */
    struct { struct secret_spec *v; uint32_t n; } secrets;
    struct { struct config_spec *v; uint32_t n; } configs;
    struct { struct service_spec *v; uint32_t n; } services; /* in the order of the files */
    struct strs external_networks, external_secrets, external_configs; /* full names that must exist */
    struct strs unset; /* variables used without a value or default: worth a warning */
};

/* In the services, networks are named by full name in Target, secrets and configs by full name in
 * SecretName/ConfigName with empty ids: the deployer resolves names to ids. *ret is written only on success.
 * -E_INVALID: the files are wrong; -E_UNSUPPORTED: they ask for something not built; others from read(). */
int stack_load(const struct stack_input *in, struct stack *ret, struct err *e) must_check;
void stack_free(struct stack *s); /* the members, leaves all zero */

/* "1h2m3.5s" (units h m s ms us ns), "0". Not negative. */
int stack_duration_ns(const char *s, int64_t *ret_ns) must_check;
/* "512m", "1.5g", "64kb", "10MiB", "4096": powers of 1024. Not negative. */
int stack_size_bytes(const char *s, int64_t *ret_bytes) must_check;
/* "1.5" processors are 1500000000; at most nine decimals. Not negative. */
int stack_nano_cpus(const char *s, int64_t *ret_nano) must_check;
/* Words of a command line: blanks, '...', "...", backslash. -E_INVALID: a quote is not closed. */
int stack_shell_split(const char *s, struct strs *ret) must_check;
/* "[PUBLISHED[-LAST]:]TARGET[-LAST][/PROTOCOL]": appends one port a number of the range to the list (of
 * struct endpoint_spec or any list of struct port). The sentence in e does not name the place. */
int stack_port_parse(const char *s, struct rec_list *ports, struct err *e) must_check;
/* "K=V" lines with comments, quotes, `export`, and ${...}; adds to *ret, later lines win. lookup may be NULL. */
int stack_env_file_parse(const struct stack_source *src, bool raw, const struct labels *lookup,
                         struct labels *ret, struct err *e) must_check;

#endif
