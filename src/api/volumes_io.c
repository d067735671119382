/* /volumes: folders ROOT/volumes/NAME/_data of this node (driver local). */
#include "api_internal.h"
#include <dirent.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/stat.h>

LOG_MODULE("api");

enum { LABELS_MAX_BYTES = 1 << 20 };

char *api_volume_path(const struct api *a, const char *name, bool make, struct err *e)
{
    if (check_name(name) && !api_volume_is_anonymous(name)) {
        err_set(e, E_INVALID, "volume name \"%s\": %s", name, check_name(name));
        return NULL;
    }
    char *path = xasprintf("%s/volumes/%s/_data", a->b.root_dir, name);
    if (make ? file_mkdirs(path, 0755, e) < 0 : !file_exists(path)) {
        if (!make)
            err_set(e, E_NOT_FOUND, "get %s: no such volume", name);
        free(path);
        return NULL;
    }
    return path;
}

char *api_volume_name(const struct api *a, const char *path)
{
    AUTO_FREE char *prefix = xasprintf("%s/volumes/", a->b.root_dir);
    const char *rest = str_starts(path, prefix) ? path + strlen(prefix) : NULL, *slash = rest ? strchr(rest, '/') : NULL;
    return slash && str_equal(slash, "/_data") ? xstrndup(rest, (size_t)(slash - rest)) : NULL;
}

/* ---- labels: ROOT/volumes/NAME/labels.json ---- */
void api_volume_labels(const struct api *a, const char *name, struct labels *ret)
{
    struct val_doc *d = NULL;
    size_t n;
    AUTO_FREE char *text = NULL;
    AUTO_FREE char *path = xasprintf("%s/volumes/%s/labels.json", a->b.root_dir, name);
    if (file_read(path, LABELS_MAX_BYTES, &text, &n, NULL) < 0 || json_parse(&d, text, n, path, NULL) < 0)
        return;
    const struct val *v = val_root(d);
    for (uint32_t i = 0; v->kind == V_MAP && i < v->n; i++)
        if (v->map[i].value->kind == V_STR)
            labels_set(ret, v->map[i].key->s, v->map[i].value->s);
    val_doc_free(d);
}

static int keep_labels(const struct api *a, const char *name, const struct val *labels, struct err *e)
{
    AUTO_SB struct sb b = { 0 };
    if (!labels || labels->kind != V_MAP || !labels->n)
        return 0;
    for (uint32_t i = 0; i < labels->n; i++)
        if (labels->map[i].value->kind != V_STR)
            return err_set(e, E_INVALID, "Labels.%s: a string is needed", labels->map[i].key->s);
    AUTO_FREE char *path = xasprintf("%s/volumes/%s/labels.json", a->b.root_dir, name);
    sb_init(&b, LABELS_MAX_BYTES);
    json_write(&b, labels, 0);
    return b.overflow ? err_set(e, E_TOO_BIG, "Labels: more than %d bytes", LABELS_MAX_BYTES)
                      : file_write_atomic(path, b.s, b.len, 0600, e);
}

/* ---- who uses it ---- */
/* The first container that does; n counts them. */
static const struct container *user_of(const struct api *a, const char *path, int64_t *n)
{
    const struct container *first = NULL;
    for (const struct container *x = NULL; (x = runtime_next(a->b.runtime, x));)
        for (uint32_t i = 0; i < x->spec.mounts.n; i++)
            if (str_equal(x->spec.mounts.v[i].source, path)) {
                first = first ? first : x;
                ++*n;
                break;
            }
    return first;
}

int64_t api_volume_users(const struct api *a, const char *path)
{
    int64_t n = 0;
    user_of(a, path, &n);
    return n;
}

bool api_volume_is_anonymous(const char *name)
{
    return strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
}

void api_volume_names(const struct api *a, struct strs *ret)
{
    AUTO_FREE char *dir = path_join(a->b.root_dir, "volumes");
    DIR *o = opendir(dir);
    for (struct dirent *x; o && (x = readdir(o));) {
        AUTO_FREE char *path = xasprintf("%s/%s/_data", dir, x->d_name);
        if (x->d_name[0] != '.' && file_exists(path))
            strs_add(ret, x->d_name);
    }
    if (o)
        closedir(o);
}

int api_volume_remove(struct api *a, const char *name, struct err *e)
{
    int64_t n = 0;
    AUTO_FREE char *path = xasprintf("%s/volumes/%s/_data", a->b.root_dir, name);
    AUTO_FREE char *folder = xasprintf("%s/volumes/%s", a->b.root_dir, name);
    const struct container *x = user_of(a, path, &n);
    struct labels none = { 0 };
    if (x)
        return err_set(e, E_CONFLICT, "remove %s: volume is in use - [%s]", name, x->spec.id);
    int r = folder_discard(a->b.loop, folder, e);
    if (r == 0)
        api_event(a, "volume", "destroy", name, &none);
    return r;
}

void api_volumes_of_container_remove(struct api *a, const struct container *x)
{
    struct err e;
    for (uint32_t i = 0; i < x->spec.mounts.n; i++) {
        const struct container_mount *m = &x->spec.mounts.v[i];
        AUTO_FREE char *name = m->anonymous ? api_volume_name(a, m->source) : NULL;
        if (name && api_volume_remove(a, name, &e) < 0)
            log_info("%s", e.text); /* another container uses it */
    }
}

/* ---- requests ---- */
struct val *api_volume_val(const struct api *a, struct val_doc *d, const char *name, const char *path)
{
    struct val *v = val_map(d);
    struct labels labels = { 0 };
    struct stat st;
    api_volume_labels(a, name, &labels);
    val_set(d, v, "Name", val_str(d, name));
    val_set(d, v, "Driver", val_str(d, "local"));
    val_set(d, v, "Mountpoint", val_str(d, path));
    val_set(d, v, "CreatedAt", time_val(d, stat(path, &st) == 0 ? st.st_mtime * SEC_NS : 0));
    val_set(d, v, "Labels", labels_val(d, &labels));
    val_set(d, v, "Options", val_map(d));
    val_set(d, v, "Scope", val_str(d, "local"));
    labels_clear(&labels);
    return v;
}

static void volume_list(struct call *c)
{
    static const char *const allowed[] = { "name", "label", "driver", "dangling", NULL };
    struct filters f;
    struct err e;
    struct strs names = { 0 };
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *list = val_list(d);
    api_volume_names(c->api, &names);
    for (uint32_t i = 0; i < names.n; i++) {
        struct labels labels = { 0 };
        AUTO_FREE char *path = xasprintf("%s/volumes/%s/_data", c->api->b.root_dir, names.v[i]);
        api_volume_labels(c->api, names.v[i], &labels);
        bool used = filters_has(&f, "dangling") && api_volume_users(c->api, path);
        if (filter_name(&f, "name", names.v[i]) && filter_labels(&f, "label", &labels) && filter_exact(&f, "driver", "local") &&
            (filter_exact(&f, "dangling", used ? "false" : "true") || filter_exact(&f, "dangling", used ? "0" : "1")))
            val_push(d, list, api_volume_val(c->api, d, names.v[i], path));
        labels_clear(&labels);
    }
    strs_clear(&names);
    filters_free(&f);
    val_set_root(d, v);
    val_set(d, v, "Volumes", list);
    val_set(d, v, "Warnings", val_null(d));
    reply_val(c, 200, d);
}

static void volume_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct err e;
    char random[65];
    const char *name = val_get_str(body, "Name"), *driver = val_get_str(body, "Driver");
    struct labels none = { 0 };
    (void)text, (void)size;
    if (driver && *driver && !str_equal(driver, "local")) {
        reply_error(c, E_UNSUPPORTED, "Driver: %s is not built; use local", driver);
        return;
    }
    const struct val *opts = val_get(body, "DriverOpts");
    if (opts && opts->kind == V_MAP && opts->n) {
        reply_error(c, E_UNSUPPORTED, "DriverOpts: options of the local driver are not built; leave them out");
        return;
    }
    id_random_hex(random);
    name = name && *name ? name : random;
    AUTO_FREE char *there = api_volume_path(c->api, name, false, &e);
    AUTO_FREE char *path = there ? xstrdup(there) : api_volume_path(c->api, name, true, &e);
    if (!path || (!there && keep_labels(c->api, name, val_get(body, "Labels"), &e) < 0)) {
        reply_err(c, &e);
        return;
    }
    if (!there)
        api_event(c->api, "volume", "create", name, &none);
    struct val_doc *d = val_doc_new();
    val_set_root(d, api_volume_val(c->api, d, name, path));
    reply_val(c, 201, d);
}

static void volume_create(struct call *c)
{
    with_body(c, volume_body);
}

static void volume_inspect(struct call *c)
{
    struct err e;
    AUTO_FREE char *path = api_volume_path(c->api, c->param[0], false, &e);
    if (!path) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    val_set_root(d, api_volume_val(c->api, d, c->param[0], path));
    reply_val(c, 200, d);
}

static void volume_remove(struct call *c)
{
    struct err e;
    AUTO_FREE char *path = api_volume_path(c->api, c->param[0], false, &e);
    if (!path && query_flag(c, "force"))
        reply_empty(c, 204);
    else if (!path || api_volume_remove(c->api, c->param[0], &e) < 0)
        reply_err(c, &e);
    else
        reply_empty(c, 204);
}

const struct route volume_routes[] = {
    { "GET", "/volumes", volume_list, ROUTE_LOCAL },
    { "POST", "/volumes/create", volume_create, ROUTE_LOCAL },
    { "GET", "/volumes/{}", volume_inspect, ROUTE_LOCAL },
    { "DELETE", "/volumes/{}", volume_remove, ROUTE_LOCAL },
    { 0 },
};
