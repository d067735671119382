/* /volumes: folders ROOT/volumes/NAME/_data of this node (driver local). */
#include "api_internal.h"
#include <dirent.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/stat.h>

LOG_MODULE("api");

char *api_volume_path(const struct api *a, const char *name, bool make, struct err *e)
{
    if (check_name(name) && strlen(name) != 64) {
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

/* A container that uses it. */
static const struct container *user_of(const struct api *a, const char *path)
{
    for (const struct container *x = NULL; (x = runtime_next(a->b.runtime, x));)
        for (uint32_t i = 0; i < x->spec.mounts.n; i++)
            if (str_equal(x->spec.mounts.v[i].source, path))
                return x;
    return NULL;
}

static bool is_anonymous(const char *name)
{
    return strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
}

static int remove_volume(struct api *a, const char *name, struct err *e)
{
    AUTO_FREE char *folder = xasprintf("%s/volumes/%s", a->b.root_dir, name);
    struct labels none = { 0 };
    int r = file_remove_tree(folder, e);
    if (r == 0)
        api_event(a, "volume", "destroy", name, &none);
    return r;
}

void api_volumes_of_container_remove(struct api *a, const struct container *x)
{
    struct err e;
    for (uint32_t i = 0; i < x->spec.mounts.n; i++) {
        const char *source = x->spec.mounts.v[i].source;
        AUTO_FREE char *name = source ? api_volume_name(a, source) : NULL;
        if (name && is_anonymous(name) && !user_of(a, source) && remove_volume(a, name, &e) < 0)
            log_warn("volume %s: %s", name, e.text);
    }
}

static struct val *volume_val(struct val_doc *d, const char *name, const char *path)
{
    struct val *v = val_map(d);
    struct stat st;
    val_set(d, v, "Name", val_str(d, name));
    val_set(d, v, "Driver", val_str(d, "local"));
    val_set(d, v, "Mountpoint", val_str(d, path));
    val_set(d, v, "CreatedAt", time_val(d, stat(path, &st) == 0 ? st.st_mtime * SEC_NS : 0));
    val_set(d, v, "Labels", val_map(d));
    val_set(d, v, "Options", val_map(d));
    val_set(d, v, "Scope", val_str(d, "local"));
    return v;
}

static void volume_list(struct call *c)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *list = val_list(d);
    AUTO_FREE char *dir = path_join(c->api->b.root_dir, "volumes");
    DIR *o = opendir(dir);
    for (struct dirent *x; o && (x = readdir(o));) {
        AUTO_FREE char *path = xasprintf("%s/%s/_data", dir, x->d_name);
        if (x->d_name[0] != '.' && file_exists(path))
            val_push(d, list, volume_val(d, x->d_name, path));
    }
    if (o)
        closedir(o);
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
    AUTO_FREE char *path = api_volume_path(c->api, name && *name ? name : random, true, &e);
    if (!path) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    val_set_root(d, volume_val(d, name && *name ? name : random, path));
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
    val_set_root(d, volume_val(d, c->param[0], path));
    reply_val(c, 200, d);
}

static void volume_remove(struct call *c)
{
    struct err e;
    AUTO_FREE char *path = api_volume_path(c->api, c->param[0], false, &e);
    if (!path) {
        reply_err(c, &e);
        return;
    }
    const struct container *x = user_of(c->api, path);
    if (x) {
        reply_error(c, E_CONFLICT, "volume %s is in use by container %.12s", c->param[0], x->spec.id);
        return;
    }
    if (remove_volume(c->api, c->param[0], &e) < 0)
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
