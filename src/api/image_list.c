/* /images: the list with its filters, history, prune; search is refused. */
#include "api_internal.h"
#include <fnmatch.h>
#include <shoal/base/file.h>

LOG_MODULE("api");

bool image_in_use(void *arg, const char *id)
{
    const struct api *a = arg;
    for (const struct container *c = NULL; (c = runtime_next(a->b.runtime, c));)
        if (str_equal(c->spec.image_id, id))
            return true;
    return false;
}

void image_event(struct api *a, const char *action, const char *id, const char *name)
{
    struct labels attributes = { 0 };
    const struct image *i = image_find(a->b.images, id);
    for (uint32_t k = 0; i && k < i->config.labels.n; k++)
        labels_set(&attributes, i->config.labels.v[k].key, i->config.labels.v[k].value);
    labels_set(&attributes, "name", name);
    api_event(a, "image", action, id, &attributes);
    labels_clear(&attributes);
}

void image_removed(struct api *a, struct val_doc *d, struct val *list, struct strs *untagged, struct strs *deleted)
{
    const struct { struct strs *s; const char *key, *action; } both[] = {
        { untagged, "Untagged", "untag" }, { deleted, "Deleted", "delete" } };
    for (unsigned b = 0; b < ARRAY_N(both); b++) {
        for (uint32_t i = 0; i < both[b].s->n; i++) {
            struct val *v = val_map(d);
            val_set(d, v, both[b].key, val_str(d, both[b].s->v[i]));
            val_push(d, list, v);
            if (b == 0 || i == 0) /* of what is deleted the first is the image, the others its layers */
                image_event(a, both[b].action, both[b].s->v[i], both[b].s->v[i]);
        }
        strs_clear(both[b].s);
    }
}

/* ---- list ---- */

/* Without '/' in a pattern it may be the last part of a name, as docker's client uses it: "web", "web:1", "w*". */
static bool tag_matches(const char *tag, const char *pattern)
{
    const char *slash = strrchr(tag, '/'), *colon = strrchr(slash ? slash : tag, ':');
    AUTO_FREE char *bare = colon ? xstrndup(tag, (size_t)(colon - tag)) : xstrdup(tag);
    return fnmatch(pattern, tag, FNM_PATHNAME) == 0 || fnmatch(pattern, bare, FNM_PATHNAME) == 0;
}

static void matching(const struct filters *f, const struct strs *all, struct strs *ret)
{
    for (uint32_t i = 0; i < all->n; i++) {
        const char *pattern;
        bool ok = !filters_has(f, "reference");
        for (uint32_t k = 0; !ok && (pattern = filter_nth(f, "reference", k)); k++)
            ok = tag_matches(all->v[i], pattern);
        if (ok)
            strs_add(ret, all->v[i]);
    }
}

struct bounds { int64_t before, since, until; }; /* of creation; exclusive */

static int bound_by(const struct call *c, const struct filters *f, const char *key, bool latest, int64_t *bound,
                    struct err *e)
{
    const char *name;
    for (uint32_t k = 0; (name = filter_nth(f, key, k)); k++) {
        const struct image *i = image_find(c->api->b.images, name);
        if (!i)
            return err_set(e, E_NOT_FOUND, "No such image: %.300s", name);
        *bound = latest ? MAX(*bound, i->created_ns) : MIN(*bound, i->created_ns);
    }
    return 0;
}

static int bounds_of(const struct call *c, const struct filters *f, struct bounds *ret, struct err *e)
{
    *ret = (struct bounds){ .before = INT64_MAX, .since = INT64_MIN };
    int r = bound_by(c, f, "before", false, &ret->before, e);
    if (r == 0)
        r = bound_by(c, f, "since", true, &ret->since, e);
    return r < 0 ? r : filter_until(f, clock_real_ns(), &ret->until, e);
}

/* Bytes of layers that other images have as well. */
static int64_t shared_size(const struct call *c, const struct image *i)
{
    int64_t sum = 0;
    for (uint32_t k = 0; k < i->config.diff_ids.n; k++)
        for (const struct image *x = NULL; (x = image_next(c->api->b.images, x));)
            if (x != i && strs_has(&x->config.diff_ids, i->config.diff_ids.v[k])) {
                sum += i->layer_sizes[k];
                break;
            }
    return sum;
}

static void push_image(const struct call *c, struct val_doc *d, struct val *list, const struct image *i,
                       const struct strs *tags)
{
    struct val *v = val_map(d);
    int64_t shared = query_flag(c, "shared-size") ? shared_size(c, i) : -1;
    val_set(d, v, "Id", val_str(d, i->id));
    val_set(d, v, "ParentId", val_str(d, ""));
    val_set(d, v, "RepoTags", strs_val(d, tags));
    val_set(d, v, "RepoDigests", strs_val(d, &i->repo_digests));
    val_set(d, v, "Created", val_int(d, i->created_ns / SEC_NS));
    val_set(d, v, "Size", val_int(d, i->size_bytes));
    val_set(d, v, "VirtualSize", val_int(d, i->size_bytes));
    val_set(d, v, "SharedSize", val_int(d, shared));
    val_set(d, v, "Labels", labels_val(d, &i->config.labels));
    val_set(d, v, "Containers", val_int(d, -1));
    val_push(d, list, v);
}

static bool labels_match(const struct filters *f, const struct labels *l)
{
    return filter_labels(f, "label", l) && (!filters_has(f, "label!") || !filter_labels(f, "label!", l));
}

void image_list(struct call *c)
{
    static const char *const allowed[] = { "reference", "label", "label!", "dangling", "before", "since", "until", NULL };
    struct filters f;
    struct bounds b;
    struct err e;
    int r = filters_parse(query(c, "filters"), allowed, &f, &e);
    if (r == 0 && (r = bounds_of(c, &f, &b, &e)) < 0)
        filters_free(&f);
    if (r < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    for (const struct image *i = NULL; (i = image_next(c->api->b.images, i));) {
        struct strs tags = { 0 };
        matching(&f, &i->repo_tags, &tags);
        bool dangling = i->repo_tags.n == 0;
        if ((tags.n || !filters_has(&f, "reference")) && labels_match(&f, &i->config.labels) &&
            (filter_exact(&f, "dangling", dangling ? "true" : "false") ||
             filter_exact(&f, "dangling", dangling ? "1" : "0")) &&
            i->created_ns < b.before && i->created_ns > b.since && i->created_ns < b.until)
            push_image(c, d, list, i, &tags);
        strs_clear(&tags);
    }
    filters_free(&f);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

/* ---- history ---- */

static void push_step(struct val_doc *d, struct val *list, const struct val *step, int64_t size)
{
    struct val *v = val_map(d);
    int64_t created = 0;
    const char *text = val_get_str(step, "created"), *by = val_get_str(step, "created_by"),
               *comment = val_get_str(step, "comment");
    if (text && time_parse(text, &created) < 0)
        created = 0;
    val_set(d, v, "Id", val_str(d, "<missing>"));
    val_set(d, v, "Created", val_int(d, created / SEC_NS));
    val_set(d, v, "CreatedBy", val_str(d, by ? by : ""));
    val_set(d, v, "Tags", val_null(d));
    val_set(d, v, "Size", val_int(d, size));
    val_set(d, v, "Comment", val_str(d, comment ? comment : ""));
    val_push(d, list, v);
}

/* Steps newest first; a step that is not empty made the next layer from the bottom. What an image does not tell of its
 * layers stays without a name. */
void image_history(struct call *c)
{
    const struct image *i = image_find(c->api->b.images, c->param[0]);
    struct val_doc *raw = NULL, *d = val_doc_new();
    struct val *list = val_list(d);
    struct err e;
    int r = i ? json_parse(&raw, i->config.raw, strlen(i->config.raw), "image configuration", &e)
              : err_set(&e, E_NOT_FOUND, "No such image: %s", c->param[0]);
    if (r < 0) {
        val_doc_free(d);
        reply_err(c, &e);
        return;
    }
    const struct val *steps = val_get(val_root(raw), "history");
    uint32_t n = steps && steps->kind == V_LIST ? steps->n : 0, layers = i->config.diff_ids.n, made = 0;
    for (uint32_t k = 0; k < n; k++)
        made += !val_get_bool(steps->list[k], "empty_layer", false);
    for (; made < layers; layers--)
        push_step(d, list, NULL, i->layer_sizes[layers - 1]);
    for (uint32_t k = n; k-- > 0;) {
        bool empty = val_get_bool(steps->list[k], "empty_layer", false);
        made -= !empty;
        push_step(d, list, steps->list[k], !empty && made < layers ? i->layer_sizes[made] : 0);
    }
    if (list->n) {
        val_set(d, list->list[0], "Id", val_str(d, i->id));
        if (i->repo_tags.n)
            val_set(d, list->list[0], "Tags", strs_val(d, &i->repo_tags));
    }
    val_doc_free(raw);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

/* ---- prune ---- */

static bool is_prunable(const struct call *c, const struct image *i, const struct filters *f, bool all, int64_t until)
{
    return (all || i->repo_tags.n == 0) && labels_match(f, &i->config.labels) && i->created_ns < until &&
           !image_in_use(c->api, i->id);
}

void image_prune(struct call *c)
{
    static const char *const allowed[] = { "dangling", "until", "label", "label!", NULL };
    struct filters f;
    struct strs ids = { 0 };
    struct err e;
    int64_t until = 0, before = image_store_usage(c->api->b.images);
    int r = filters_parse(query(c, "filters"), allowed, &f, &e);
    if (r == 0 && (r = filter_until(&f, clock_real_ns(), &until, &e)) < 0)
        filters_free(&f);
    if (r < 0) {
        reply_err(c, &e);
        return;
    }
    bool all = filters_has(&f, "dangling") && (filter_exact(&f, "dangling", "false") || filter_exact(&f, "dangling", "0"));
    for (const struct image *i = NULL; (i = image_next(c->api->b.images, i));)
        if (is_prunable(c, i, &f, all, until))
            strs_add(&ids, i->id);
    filters_free(&f);
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *list = val_list(d);
    for (uint32_t k = 0; k < ids.n; k++) {
        struct strs untagged = { 0 }, deleted = { 0 };
        if (image_remove(c->api->b.images, ids.v[k], true, image_in_use, c->api, &untagged, &deleted, &e) < 0)
            log_warn("prune: %s", e.text);
        image_removed(c->api, d, list, &untagged, &deleted);
    }
    strs_clear(&ids);
    val_set(d, v, "ImagesDeleted", list);
    val_set(d, v, "SpaceReclaimed", val_int(d, before - image_store_usage(c->api->b.images)));
    val_set_root(d, v);
    reply_val(c, 200, d);
}

void image_search(struct call *c)
{
    reply_error(c, E_UNSUPPORTED,
                "search is not supported: registries of the OCI distribution API have none; look on the registry's own "
                "page, or pull by name");
}
