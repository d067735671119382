/* The image configuration: OCI image-spec "config.md"; Docker's v2 schema 2 configuration is the
 * same shape with a few names more (Healthcheck, Shell). Unknown names are skipped as both
 * specifications ask for; what is known must have its type. The JSON itself is kept, since its
 * digest is the image's id. */
#include "image_internal.h"

enum { STRS_MAX = 4096 };

const char *image_arch(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__arm__)
    return "arm";
#elif defined(__i386__)
    return "386";
#elif defined(__riscv)
    return "riscv64";
#elif defined(__s390x__)
    return "s390x";
#elif defined(__powerpc64__)
    return "ppc64le";
#else
#error "name this architecture as Go does"
#endif
}

const char *image_variant(void)
{
#if defined(__aarch64__)
    return "v8";
#elif defined(__arm__)
    return "v7";
#else
    return NULL;
#endif
}

static bool is_clean(const struct val *v) /* a string without NUL inside */
{
    return v->kind == V_STR && strlen(v->s) == v->n;
}

int image_strs_from(struct strs *ret, const struct val *map, const char *name, struct err *e)
{
    const struct val *v = val_get(map, name);
    if (!v || v->kind == V_NULL)
        return 0;
    if (v->kind != V_LIST || v->n > STRS_MAX)
        return err_set(e, E_INVALID, "%s: want a list of at most %d strings", name, STRS_MAX);
    for (uint32_t i = 0; i < v->n; i++)
        if (!is_clean(v->list[i]))
            return err_set(e, E_INVALID, "%s[%u]: want a string", name, i);
    for (uint32_t i = 0; i < v->n; i++)
        strs_add(ret, v->list[i]->s);
    return 0;
}

/* {"80/tcp": {}, ...}: a set written as a map. */
static int keys_from(struct strs *ret, const struct val *map, const char *name, struct err *e)
{
    const struct val *v = val_get(map, name);
    if (!v || v->kind == V_NULL)
        return 0;
    if (v->kind != V_MAP || v->n > STRS_MAX)
        return err_set(e, E_INVALID, "%s: want an object of at most %d names", name, STRS_MAX);
    for (uint32_t i = 0; i < v->n; i++) {
        if (!is_clean(v->map[i].key))
            return err_set(e, E_INVALID, "%s: a name holds a zero byte", name);
        strs_add(ret, v->map[i].key->s);
    }
    return 0;
}

static int labels_from(struct labels *ret, const struct val *map, struct err *e)
{
    const struct val *v = val_get(map, "Labels");
    if (!v || v->kind == V_NULL)
        return 0;
    if (v->kind != V_MAP || v->n > STRS_MAX)
        return err_set(e, E_INVALID, "Labels: want an object of at most %d strings", STRS_MAX);
    for (uint32_t i = 0; i < v->n; i++) {
        if (!is_clean(v->map[i].key) || !is_clean(v->map[i].value))
            return err_set(e, E_INVALID, "Labels: pair %u is not of two strings", i);
        labels_set(ret, v->map[i].key->s, v->map[i].value->s);
    }
    return 0;
}

static int str_from(char **ret, const struct val *map, const char *name, struct err *e)
{
    const struct val *v = val_get(map, name);
    if (!v || v->kind == V_NULL)
        return 0;
    if (!is_clean(v))
        return err_set(e, E_INVALID, "%s: want a string", name);
    str_set(ret, v->s);
    return 0;
}

static int int_from(int64_t *ret, const struct val *map, const char *name, struct err *e)
{
    const struct val *v = val_get(map, name);
    if (!v || v->kind == V_NULL)
        return 0;
    if (v->kind != V_INT || v->i < 0)
        return err_set(e, E_INVALID, "Healthcheck.%s: want a number of at least 0", name);
    *ret = v->i;
    return 0;
}

static int health_from(struct image_config *c, const struct val *cfg, struct err *e)
{
    const struct val *h = val_get(cfg, "Healthcheck");
    int r;
    if (!h || h->kind == V_NULL)
        return 0;
    if ((r = image_strs_from(&c->health_test, h, "Test", e)) < 0 ||
        (r = int_from(&c->health_interval, h, "Interval", e)) < 0 ||
        (r = int_from(&c->health_timeout, h, "Timeout", e)) < 0 ||
        (r = int_from(&c->health_start_period, h, "StartPeriod", e)) < 0 ||
        (r = int_from(&c->health_start_interval, h, "StartInterval", e)) < 0)
        return r;
    return int_from(&c->health_retries, h, "Retries", e);
}

static int config_from(struct image_config *c, const struct val *cfg, struct err *e)
{
    int r;
    if (!cfg || cfg->kind == V_NULL)
        return 0;
    if (cfg->kind != V_MAP)
        return err_set(e, E_INVALID, "config: want an object");
    if ((r = image_strs_from(&c->env, cfg, "Env", e)) < 0 ||
        (r = image_strs_from(&c->entrypoint, cfg, "Entrypoint", e)) < 0 ||
        (r = image_strs_from(&c->cmd, cfg, "Cmd", e)) < 0 ||
        (r = image_strs_from(&c->shell, cfg, "Shell", e)) < 0 ||
        (r = keys_from(&c->exposed_ports, cfg, "ExposedPorts", e)) < 0 ||
        (r = keys_from(&c->volumes, cfg, "Volumes", e)) < 0 ||
        (r = labels_from(&c->labels, cfg, e)) < 0 ||
        (r = str_from(&c->working_dir, cfg, "WorkingDir", e)) < 0 ||
        (r = str_from(&c->user, cfg, "User", e)) < 0 ||
        (r = str_from(&c->stop_signal, cfg, "StopSignal", e)) < 0)
        return r;
    return health_from(c, cfg, e);
}

static int rootfs_from(struct image_config *c, const struct val *root, struct err *e)
{
    const struct val *fs = val_get(root, "rootfs");
    if (!fs || fs->kind != V_MAP)
        return err_set(e, E_INVALID, "rootfs: missing; is this an image configuration?");
    int r = image_strs_from(&c->diff_ids, fs, "diff_ids", e);
    if (r < 0)
        return r;
    if (c->diff_ids.n > IMAGE_LAYERS_MAX)
        return err_set(e, E_INVALID, "rootfs.diff_ids: %u layers, at most %d fit into a container",
                       c->diff_ids.n, IMAGE_LAYERS_MAX);
    for (uint32_t i = 0; i < c->diff_ids.n; i++)
        if (!image_digest_ok(c->diff_ids.v[i]))
            return err_set(e, E_INVALID, "rootfs.diff_ids[%u]: want sha256: and 64 hex digits", i);
    return 0;
}

/* A volume's path ends up below a container's root: no way upwards (CVE-2022-23648). */
static int check_paths(const struct image_config *c, struct err *e)
{
    for (uint32_t i = 0; i < c->volumes.n; i++) {
        const char *p = c->volumes.v[i];
        AUTO_FREE char *framed = xasprintf("/%s/", p);
        if (!p[0] || strstr(framed, "/../") || strlen(p) > IMAGE_PATH_MAX)
            return err_set(e, E_INVALID, "Volumes: \"%.200s\" is no path inside the container", p);
    }
    for (uint32_t i = 0; i < c->env.n; i++)
        if (c->env.v[i][0] == '=' || !strchr(c->env.v[i], '='))
            return err_set(e, E_INVALID, "Env[%u]: want NAME=VALUE", i);
    return 0;
}

int image_config_parse(struct image_config *ret, const char *json, size_t size, struct err *e)
{
    struct val_doc *d = NULL;
    struct image_config c = { 0 };
    *ret = c;
    if (size > IMAGE_CONFIG_MAX)
        return err_set(e, E_TOO_BIG, "the image configuration has %zu bytes, at most %d are read",
                       size, IMAGE_CONFIG_MAX);
    int r = json_parse(&d, json, size, "image configuration", e);
    if (r < 0)
        return r;
    const struct val *root = val_root(d);
    if (root->kind != V_MAP)
        r = err_set(e, E_INVALID, "want an object");
    if (r == 0)
        r = str_from(&c.architecture, root, "architecture", e);
    if (r == 0)
        r = str_from(&c.os, root, "os", e);
    if (r == 0)
        r = str_from(&c.author, root, "author", e);
    if (r == 0)
        r = str_from(&c.created, root, "created", e);
    if (r == 0)
        r = config_from(&c, val_get(root, "config"), e);
    if (r == 0)
        r = rootfs_from(&c, root, e);
    if (r == 0)
        r = check_paths(&c, e);
    val_doc_free(d);
    if (r < 0) {
        image_config_clear(&c);
        return err_wrap(e, "image configuration");
    }
    c.raw = xstrndup(json, size);
    *ret = c;
    return 0;
}

void image_config_clear(struct image_config *c)
{
    struct strs *lists[] = { &c->env,     &c->entrypoint, &c->cmd,      &c->exposed_ports,
                             &c->volumes, &c->shell,      &c->diff_ids, &c->health_test };
    char *texts[] = { c->working_dir, c->user,   c->stop_signal, c->architecture,
                      c->os,          c->author, c->created,     c->raw };
    for (size_t i = 0; i < ARRAY_N(lists); i++)
        strs_clear(lists[i]);
    for (size_t i = 0; i < ARRAY_N(texts); i++)
        free(texts[i]);
    labels_clear(&c->labels);
    *c = (struct image_config){ 0 };
}
