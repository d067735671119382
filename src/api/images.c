/* /images: inspect, load, import, pull, tag, remove; /distribution. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>

static const struct image *find(struct call *c)
{
    const struct image *i = image_find(c->api->b.images, c->param[0]);
    if (!i)
        reply_error(c, E_NOT_FOUND, "No such image: %s", c->param[0]);
    return i;
}

static struct val *config_val(struct val_doc *d, const struct image_config *g)
{
    struct val *v = val_map(d), *ports = val_map(d), *volumes = val_map(d);
    for (uint32_t i = 0; i < g->exposed_ports.n; i++)
        val_set(d, ports, g->exposed_ports.v[i], val_map(d));
    for (uint32_t i = 0; i < g->volumes.n; i++)
        val_set(d, volumes, g->volumes.v[i], val_map(d));
    val_set(d, v, "User", val_str(d, g->user ? g->user : ""));
    val_set(d, v, "Env", strs_val(d, &g->env));
    val_set(d, v, "Cmd", strs_val(d, &g->cmd));
    val_set(d, v, "Entrypoint", g->entrypoint.n ? strs_val(d, &g->entrypoint) : val_null(d));
    val_set(d, v, "WorkingDir", val_str(d, g->working_dir ? g->working_dir : ""));
    val_set(d, v, "Labels", labels_val(d, &g->labels));
    val_set(d, v, "ExposedPorts", ports);
    val_set(d, v, "Volumes", volumes);
    if (g->stop_signal)
        val_set(d, v, "StopSignal", val_str(d, g->stop_signal));
    return v;
}

static void image_inspect(struct call *c)
{
    const struct image *i = find(c);
    if (!i)
        return;
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *fs = val_map(d);
    val_set_root(d, v);
    val_set(d, v, "Id", val_str(d, i->id));
    val_set(d, v, "RepoTags", strs_val(d, &i->repo_tags));
    val_set(d, v, "RepoDigests", strs_val(d, &i->repo_digests));
    val_set(d, v, "Created", time_val(d, i->created_ns));
    val_set(d, v, "Architecture", val_str(d, i->config.architecture ? i->config.architecture : ""));
    val_set(d, v, "Os", val_str(d, i->config.os ? i->config.os : "linux"));
    val_set(d, v, "Author", val_str(d, i->config.author ? i->config.author : ""));
    val_set(d, v, "Size", val_int(d, i->size_bytes));
    val_set(d, v, "VirtualSize", val_int(d, i->size_bytes));
    val_set(d, v, "Config", config_val(d, &i->config));
    val_set(d, fs, "Type", val_str(d, "layers"));
    val_set(d, fs, "Layers", strs_val(d, &i->config.diff_ids));
    val_set(d, v, "RootFS", fs);
    reply_val(c, 200, d);
}

static void image_tag_route(struct call *c)
{
    struct err e;
    const char *repo = query(c, "repo"), *tag = query(c, "tag");
    if (!repo || !*repo) {
        reply_error(c, E_INVALID, "the parameter repo is missing");
        return;
    }
    AUTO_FREE char *ref = tag && *tag ? xasprintf("%s:%s", repo, tag) : xstrdup(repo);
    if (image_tag(c->api->b.images, c->param[0], ref, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    const struct image *i = image_find(c->api->b.images, ref);
    image_event(c->api, "tag", i ? i->id : ref, ref);
    reply_empty(c, 201);
}

static void image_delete(struct call *c)
{
    struct strs untagged = { 0 }, deleted = { 0 };
    struct err e;
    int r = image_remove(c->api->b.images, c->param[0], query_flag(c, "force"), image_in_use, c->api, &untagged, &deleted, &e);
    if (r < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    image_removed(c->api, d, list, &untagged, &deleted);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

/* ---- progress lines ---- */
void progress_line(struct call *c, struct val_doc *d, struct val *v)
{
    struct sb b;
    sb_init(&b, 0);
    json_write(&b, v, 0);
    sb_str(&b, "\r\n");
    stream_put(c, b.s, b.len);
    sb_done(&b);
    val_doc_free(d);
}

static void text_line(struct call *c, const char *key, const char *text)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    val_set(d, v, key, val_str(d, text));
    progress_line(c, d, v);
}

void error_line(struct call *c, const struct err *e)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *detail = val_map(d);
    val_set(d, detail, "message", val_str(d, e->text));
    val_set(d, v, "errorDetail", detail);
    val_set(d, v, "error", val_str(d, e->text));
    progress_line(c, d, v);
}

/* ---- load and import: the body streams into the store ---- */
struct upload { struct call *c; struct image_input *in; bool import, failed; };

static void loaded(void *arg, const struct strs *names, const struct err *e)
{
    struct upload *u = arg;
    struct call *c = u->c;
    if (!c->r) {
        call_free(c);
        free(u);
        return;
    }
    stream_begin(c, "application/json");
    if (e)
        error_line(c, e);
    for (uint32_t i = 0; !e && i < names->n; i++) {
        AUTO_FREE char *text = u->import ? xstrdup(names->v[i])
                               : str_starts(names->v[i], "sha256:") ? xasprintf("Loaded image ID: %s\n", names->v[i])
                                                                    : xasprintf("Loaded image: %s\n", names->v[i]);
        text_line(c, u->import ? "status" : "stream", text);
        image_event(c->api, u->import ? "import" : "load", names->v[i], names->v[i]);
    }
    stream_done(c);
    free(u);
}

static bool upload_data(void *arg, struct http_request *r, const char *p, size_t size)
{
    struct upload *u = arg;
    struct err e;
    (void)r;
    if (u->failed)
        return true;
    if (image_input_feed(u->in, p, size, &e) < 0) {
        u->failed = true;
        image_input_abort(u->in);
        u->in = NULL;
        u->c->warning = e;
    }
    return true;
}

static void upload_end(void *arg, struct http_request *r)
{
    struct upload *u = arg;
    (void)r;
    u->c->gone = NULL; /* loaded() ends it */
    if (u->failed) {
        reply_err(u->c, &u->c->warning);
        free(u);
        return;
    }
    image_input_finish(TAKE(u->in), loaded, u);
}

static void upload_broken(void *arg, struct http_request *r, const struct err *e)
{
    struct upload *u = arg;
    struct call *c = u->c;
    (void)r;
    c->gone = NULL;
    if (u->in)
        image_input_abort(u->in);
    free(u);
    reply_err(c, e);
}

static void upload_gone(struct call *c)
{
    struct upload *u = c->state;
    if (u->in)
        image_input_abort(u->in);
    free(u);
    call_free(c);
}

static void upload(struct call *c, const struct image_import *import)
{
    static const struct http_sink sink = { upload_data, upload_end, upload_broken };
    struct upload *u = xnew(struct upload);
    u->c = c;
    u->import = import != NULL;
    u->in = image_input_new(c->api->b.images, import);
    c->state = u;
    c->gone = upload_gone;
    http_sink_body(c->r, &sink, u);
}

static void image_load(struct call *c)
{
    upload(c, NULL);
}

void transfer_line(struct call *c, const struct image_progress *p)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *detail = val_map(d);
    val_set(d, v, "status", val_str(d, p->status));
    if (p->total > 0) {
        val_set(d, detail, "current", val_int(d, p->current));
        val_set(d, detail, "total", val_int(d, p->total));
    }
    val_set(d, v, "progressDetail", detail);
    if (p->id)
        val_set(d, v, "id", val_str(d, p->id));
    progress_line(c, d, v);
}

/* ---- pull ---- */
struct pull { struct call *c; char *ref; };

static void pull_progress(void *arg, const struct image_progress *p)
{
    transfer_line(((struct pull *)arg)->c, p);
}

static void pulled(void *arg, const struct image *image, const struct err *e)
{
    struct pull *u = arg;
    if (image) {
        image_event(u->c->api, "pull", u->ref, u->ref);
    } else {
        error_line(u->c, e);
    }
    stream_done(u->c);
    free(u->ref);
    free(u);
}

static void keep_call(struct call *c)
{
    (void)c; /* the pull goes on and frees it */
}

static void image_create(struct call *c)
{
    const char *from = query(c, "fromImage"), *src = query(c, "fromSrc"), *tag = query(c, "tag"), *repo = query(c, "repo");
    if (src && *src) {
        enum { CHANGES_MAX = 32 };
        const char *changes[CHANGES_MAX + 1];
        unsigned n = 0;
        if (!str_equal(src, "-")) {
            reply_error(c, E_UNSUPPORTED, "fromSrc: only \"-\" (the request's body) is built; download the file and import it");
            return;
        }
        while ((changes[n] = http_query_nth(c->r, "changes", n)) && n < CHANGES_MAX)
            n++;
        if (changes[n]) {
            reply_error(c, E_INVALID, "more than %d changes; several of a kind can stand in one, as in ENV A=1 B=2", CHANGES_MAX);
            return;
        }
        AUTO_FREE char *ref = repo && *repo ? (tag && *tag ? xasprintf("%s:%s", repo, tag) : xstrdup(repo)) : NULL;
        struct image_import import = { .ref = ref, .message = query(c, "message"), .changes = changes };
        upload(c, &import);
        return;
    }
    struct image_ref parsed;
    struct err e;
    AUTO_FREE char *auth = NULL;
    AUTO_FREE char *ref = !from ? xstrdup("") : tag && *tag ? xasprintf(strchr(tag, ':') ? "%s@%s" : "%s:%s", from, tag) : xstrdup(from);
    if (image_ref_parse(&parsed, ref, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    image_ref_clear(&parsed);
    if (!auth_of(c, &auth)) {
        reply_error(c, E_INVALID, "X-Registry-Auth is not base64");
        return;
    }
    struct pull *u = xnew(struct pull);
    u->c = c;
    u->ref = xstrdup(ref);
    c->gone = keep_call;
    stream_begin(c, "application/json");
    image_pull(c->api->b.images, ref, auth, pull_progress, pulled, u);
}

/* ---- distribution ---- */
static void distribution_done(void *arg, const struct image_remote *i, const struct err *e)
{
    struct call *c = arg;
    if (e) {
        reply_err(c, e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *desc = val_map(d), *platforms = val_list(d);
    val_set_root(d, v);
    val_set(d, desc, "mediaType", val_str(d, i->media_type ? i->media_type : ""));
    val_set(d, desc, "digest", val_str(d, i->digest));
    val_set(d, desc, "size", val_int(d, i->size));
    val_set(d, v, "Descriptor", desc);
    for (uint32_t k = 0; k < i->architectures.n && k < i->oss.n; k++) {
        struct val *p = val_map(d);
        val_set(d, p, "architecture", val_str(d, i->architectures.v[k]));
        val_set(d, p, "os", val_str(d, i->oss.v[k]));
        val_push(d, platforms, p);
    }
    val_set(d, v, "Platforms", platforms);
    reply_val(c, 200, d);
}

static void distribution(struct call *c)
{
    AUTO_FREE char *auth = NULL;
    if (!auth_of(c, &auth)) {
        reply_error(c, E_INVALID, "X-Registry-Auth is not base64");
        return;
    }
    c->gone = keep_call;
    image_inspect_remote(c->api->b.images, c->param[0], auth, distribution_done, c);
}

const struct route image_routes[] = {
    { "GET", "/images/json", image_list, ROUTE_LOCAL },
    { "GET", "/images/search", image_search, ROUTE_LOCAL },
    { "GET", "/images/get", image_save, ROUTE_LOCAL },
    { "GET", "/images/{+}/get", image_save, ROUTE_LOCAL },
    { "GET", "/images/{+}/history", image_history, ROUTE_LOCAL },
    { "POST", "/images/prune", image_prune, ROUTE_LOCAL },
    { "POST", "/images/{+}/push", image_push_route, ROUTE_LOCAL },
    { "POST", "/auth", registry_auth, ROUTE_LOCAL },
    { "POST", "/images/load", image_load, ROUTE_LOCAL },
    { "POST", "/images/create", image_create, ROUTE_LOCAL },
    { "GET", "/images/{+}/json", image_inspect, ROUTE_LOCAL },
    { "POST", "/images/{+}/tag", image_tag_route, ROUTE_LOCAL },
    { "DELETE", "/images/{+}", image_delete, ROUTE_LOCAL },
    { "GET", "/distribution/{+}/json", distribution, ROUTE_LOCAL },
    { 0 },
};
