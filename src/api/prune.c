/* What is not used any more goes: containers, networks, volumes; and /system/df, which says what there is. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

LOG_MODULE("api");

/* ---- which ones: until, label, label! ---- */
static int prune_filters(struct call *c, const char *const *allowed, struct filters *f, int64_t *ret_until, struct err *e)
{
    int r = filters_parse(query(c, "filters"), allowed, f, e);
    if (r == 0 && (r = filter_until(f, clock_real_ns(), ret_until, e)) < 0)
        filters_free(f);
    return r;
}

static bool labels_chosen(const struct filters *f, const struct labels *l)
{
    return filter_labels(f, "label", l) && !(filters_has(f, "label!") && filter_labels(f, "label!", l));
}

static void told(struct api *a, const char *type, int64_t bytes)
{
    char text[24];
    struct labels attributes = { 0 };
    snprintf(text, sizeof text, "%lld", (long long)bytes);
    labels_set(&attributes, "reclaimed", text);
    api_event(a, type, "prune", "", &attributes);
    labels_clear(&attributes);
}

static void reply_pruned(struct call *c, const char *type, const char *key, const struct strs *gone, int64_t bytes)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    told(c->api, type, bytes);
    val_set_root(d, v);
    val_set(d, v, key, gone->n ? strs_val(d, gone) : val_null(d));
    if (!str_equal(type, "network"))
        val_set(d, v, "SpaceReclaimed", val_int(d, bytes));
    reply_val(c, 200, d);
}

/* ---- containers ---- */
struct sweep { struct call *c; struct strs ids, gone; uint32_t left; int64_t bytes; };

static void sweep_end(struct sweep *w, const char *type, const char *key)
{
    struct call *c = w->c;
    reply_pruned(c, type, key, &w->gone, w->bytes);
    strs_clear(&w->ids);
    strs_clear(&w->gone);
    free(w);
}

struct removing { struct sweep *w; char *id; int64_t bytes; };

static void container_gone(void *arg, int result, const struct err *e)
{
    struct removing *x = arg;
    struct sweep *w = x->w;
    if (result == 0) {
        strs_add(&w->gone, x->id);
        w->bytes += x->bytes;
    } else {
        log_warn("prune: %s", e->text);
    }
    free(x->id);
    free(x);
    if (--w->left == 0)
        sweep_end(w, "container", "ContainersDeleted");
}

static bool is_over(const struct api *a, const struct container *x)
{
    return !container_is_up(x) && !runtime_is_starting(a->b.runtime, x->spec.id) && !keeper_waits(a, x->spec.id) && !container_is_task(x);
}

static void containers_measured(void *arg, const int64_t *sizes)
{
    struct sweep *w = arg;
    struct api *a = w->c->api;
    w->left = 1;
    for (uint32_t i = 0; i < w->ids.n; i++) {
        const struct container *x = runtime_find(a->b.runtime, w->ids.v[i]);
        if (!x || !is_over(a, x)) /* started meanwhile */
            continue;
        struct removing *r = xnew(struct removing);
        *r = (struct removing){ w, xstrdup(x->spec.id), sizes[i] };
        w->left++;
        overlay_sandbox_remove(a->b.overlay(a->b.arg), r->id);
        runtime_delete(a->b.runtime, r->id, container_gone, r);
    }
    if (--w->left == 0)
        sweep_end(w, "container", "ContainersDeleted");
}

static void containers_prune(struct call *c)
{
    static const char *const allowed[] = { "until", "label", "label!", NULL };
    struct filters f;
    struct err e;
    struct strs paths = { 0 };
    int64_t until;
    if (prune_filters(c, allowed, &f, &until, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct sweep *w = xnew(struct sweep);
    w->c = c;
    for (const struct container *x = NULL; (x = runtime_next(c->api->b.runtime, x));)
        if (is_over(c->api, x) && x->state.created_ns < until && labels_chosen(&f, &x->spec.labels)) {
            AUTO_FREE char *upper = path_join(x->dir, "upper");
            strs_add(&w->ids, x->spec.id);
            strs_add(&paths, upper);
        }
    filters_free(&f);
    disk_measure(c->api, &paths, containers_measured, w);
}

/* ---- volumes ---- */
static void volumes_measured(void *arg, const int64_t *sizes)
{
    struct sweep *w = arg;
    struct err e;
    for (uint32_t i = 0; i < w->ids.n; i++) {
        if (api_volume_remove(w->c->api, w->ids.v[i], &e) < 0) {
            log_info("prune: %s", e.text);
            continue;
        }
        strs_add(&w->gone, w->ids.v[i]);
        w->bytes += sizes[i];
    }
    sweep_end(w, "volume", "VolumesDeleted");
}

static void volumes_prune(struct call *c)
{
    static const char *const allowed[] = { "all", "label", "label!", NULL };
    struct filters f;
    struct err e;
    struct strs names = { 0 }, paths = { 0 };
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    bool all = filters_has(&f, "all") && (filter_exact(&f, "all", "true") || filter_exact(&f, "all", "1"));
    struct sweep *w = xnew(struct sweep);
    w->c = c;
    api_volume_names(c->api, &names);
    for (uint32_t i = 0; i < names.n; i++) {
        struct labels labels = { 0 };
        AUTO_FREE char *path = api_volume_path(c->api, names.v[i], false, &e);
        api_volume_labels(c->api, names.v[i], &labels);
        if (path && (all || api_volume_is_anonymous(names.v[i])) && labels_chosen(&f, &labels) && !api_volume_users(c->api, path)) {
            strs_add(&w->ids, names.v[i]);
            strs_add(&paths, path);
        }
        labels_clear(&labels);
    }
    strs_clear(&names);
    filters_free(&f);
    disk_measure(c->api, &paths, volumes_measured, w);
}

/* ---- networks: of the cluster, at the leader ---- */
static void next_network(struct sweep *w);

static void network_gone(void *arg, int result, const struct err *e)
{
    struct sweep *w = arg;
    (void)e; /* one in use is refused, and stays */
    if (result == 0)
        strs_add(&w->gone, w->ids.v[w->left]);
    w->left++;
    next_network(w);
}

static void next_network(struct sweep *w)
{
    struct manager *m = w->left < w->ids.n ? call_manager(w->c) : NULL;
    if (!m) {
        sweep_end(w, "network", "NetworksDeleted");
        return;
    }
    AUTO_FREE char *name = xstrdup(w->ids.v[w->left]);
    control_network_remove(m, name, network_gone, w);
}

static void networks_prune(struct call *c)
{
    static const char *const allowed[] = { "until", "label", "label!", NULL };
    struct filters f;
    struct err e;
    int64_t until;
    struct manager *m = call_manager(c);
    if (prune_filters(c, allowed, &f, &until, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct sweep *w = xnew(struct sweep);
    w->c = c;
    for (const struct network *n = NULL; m && (n = store_next(manager_store(m), TABLE_NETWORK, n));)
        if (!n->ingress && n->created_at < until && labels_chosen(&f, &n->labels))
            strs_add(&w->ids, n->name);
    filters_free(&f);
    next_network(w);
}

static void build_prune(struct call *c)
{
    reply_json(c, 200, "{\"CachesDeleted\":null,\"SpaceReclaimed\":0}\n"); /* nothing is built here, nothing is cached */
}

static void commit(struct call *c)
{
    reply_error(c, E_UNSUPPORTED, "commit is not supported: shoal builds no images; docker export CONTAINER | docker import - NAME makes "
                "one of a container's files");
}

/* ---- system df ---- */
struct usage { struct call *c; struct strs containers, volumes; };

static struct val *images_val(struct call *c, struct val_doc *d)
{
    struct val *list = val_list(d);
    for (const struct image *i = NULL; (i = image_next(c->api->b.images, i));) {
        struct val *v = val_map(d);
        int64_t users = 0;
        for (const struct container *x = NULL; (x = runtime_next(c->api->b.runtime, x));)
            users += str_equal(x->spec.image_id, i->id);
        val_set(d, v, "Id", val_str(d, i->id));
        val_set(d, v, "ParentId", val_str(d, ""));
        val_set(d, v, "RepoTags", strs_val(d, &i->repo_tags));
        val_set(d, v, "RepoDigests", strs_val(d, &i->repo_digests));
        val_set(d, v, "Created", val_int(d, i->created_ns / SEC_NS));
        val_set(d, v, "Size", val_int(d, i->size_bytes));
        val_set(d, v, "SharedSize", val_int(d, 0));
        val_set(d, v, "Containers", val_int(d, users));
        val_set(d, v, "Labels", labels_val(d, &i->config.labels));
        val_push(d, list, v);
    }
    return list;
}

static struct val *containers_val(const struct usage *u, struct val_doc *d, const int64_t *sizes)
{
    struct val *list = val_list(d);
    for (uint32_t i = 0; i < u->containers.n; i++) {
        const struct container *x = runtime_find(u->c->api->b.runtime, u->containers.v[i]);
        if (!x)
            continue;
        struct val *v = container_summary_val(u->c, d, x);
        container_put_size(u->c->api, d, v, x, sizes[i]);
        val_push(d, list, v);
    }
    return list;
}

static struct val *volumes_val(const struct usage *u, struct val_doc *d, const int64_t *sizes)
{
    struct val *list = val_list(d);
    for (uint32_t i = 0; i < u->volumes.n; i++) {
        struct err e;
        AUTO_FREE char *path = api_volume_path(u->c->api, u->volumes.v[i], false, &e);
        if (!path)
            continue;
        struct val *v = api_volume_val(u->c->api, d, u->volumes.v[i], path), *use = val_map(d);
        val_set(d, use, "Size", val_int(d, sizes[i]));
        val_set(d, use, "RefCount", val_int(d, api_volume_users(u->c->api, path)));
        val_set(d, v, "UsageData", use);
        val_push(d, list, v);
    }
    return list;
}

static bool type_asked(const struct call *c, const char *type)
{
    const char *x;
    bool any = false, yes = false;
    for (unsigned k = 0; c->r && (x = http_query_nth(c->r, "type", k)); k++) {
        any = true;
        yes |= str_equal(x, type);
    }
    return yes || !any;
}

static void usage_measured(void *arg, const int64_t *sizes)
{
    struct usage *u = arg;
    struct call *c = u->c;
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    val_set_root(d, v);
    val_set(d, v, "LayersSize", val_int(d, sizes[0]));
    val_set(d, v, "Images", type_asked(c, "image") ? images_val(c, d) : val_null(d));
    val_set(d, v, "Containers", type_asked(c, "container") ? containers_val(u, d, sizes + 1) : val_null(d));
    val_set(d, v, "Volumes", type_asked(c, "volume") ? volumes_val(u, d, sizes + 1 + u->containers.n) : val_null(d));
    val_set(d, v, "BuildCache", val_list(d));
    strs_clear(&u->containers);
    strs_clear(&u->volumes);
    free(u);
    reply_val(c, 200, d);
}

static void system_df(struct call *c)
{
    struct strs paths = { 0 };
    struct usage *u = xnew(struct usage);
    AUTO_FREE char *layers = xasprintf("%s/images/layers", c->api->b.root_dir);
    u->c = c;
    strs_add(&paths, layers);
    for (const struct container *x = NULL; (x = runtime_next(c->api->b.runtime, x));) {
        AUTO_FREE char *upper = path_join(x->dir, "upper");
        strs_add(&u->containers, x->spec.id);
        strs_add(&paths, upper);
    }
    api_volume_names(c->api, &u->volumes);
    for (uint32_t i = 0; i < u->volumes.n; i++) {
        AUTO_FREE char *path = xasprintf("%s/volumes/%s/_data", c->api->b.root_dir, u->volumes.v[i]);
        strs_add(&paths, path);
    }
    disk_measure(c->api, &paths, usage_measured, u);
}

const struct route prune_routes[] = {
    { "POST", "/containers/prune", containers_prune, ROUTE_LOCAL },
    { "POST", "/volumes/prune", volumes_prune, ROUTE_LOCAL },
    { "POST", "/networks/prune", networks_prune, ROUTE_LOCAL_OR_READ },
    { "POST", "/build/prune", build_prune, ROUTE_LOCAL },
    { "POST", "/commit", commit, ROUTE_LOCAL },
    { "GET", "/system/df", system_df, ROUTE_LOCAL },
    { 0 },
};
