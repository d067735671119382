/* The API's door: one table of routes over all parts, the version prefix, the way to the leader. Cluster objects
 * are served where they are current: reads and writes at the leader (reads behind a Raft read barrier), so that
 * every manager answers alike; a worker says, as Docker does, that it is no manager. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdarg.h>
#include <stdio.h>

LOG_MODULE("api");

struct door { struct api *api; bool peer; };
static const struct route *const tables[] = { system_routes, swarm_routes, key_routes, service_routes, network_routes,
                                              image_routes, container_routes, copy_routes, exec_routes, volume_routes,
                                              manager_routes, backup_routes, prune_routes, spread_routes, trace_routes };

/* ---- replies ---- */
void call_free(struct call *c)
{
    free(c->param[0]);
    free(c->param[1]);
    free(c);
}

/* A reply about the cluster's state says which state: the index of the last log entry applied. Of two replies about
 * one object the one with the greater index is the newer. */
static void name_place(struct call *c)
{
    const struct manager *m = c->r && c->route && c->route->kind != ROUTE_LOCAL ? call_manager(c) : NULL;
    char index[24];
    if (!m)
        return;
    snprintf(index, sizeof index, "%llu", (unsigned long long)(c->place ? c->place : store_index(manager_store(m))));
    http_reply_header(c->r, "Shoal-Index", index);
}

void reply_json(struct call *c, int status, const char *json)
{
    name_place(c);
    if (c->r)
        http_reply_json(c->r, status, json);
    call_free(c);
}

void reply_val(struct call *c, int status, struct val_doc *doc)
{
    struct sb b;
    sb_init(&b, 0);
    json_write(&b, val_root(doc), 0);
    sb_char(&b, '\n');
    val_doc_free(doc);
    reply_json(c, status, b.s);
    sb_done(&b);
}

static void send_err(struct call *c, const struct err *e)
{
    bool outcome = e->code != E_UNAVAILABLE && e->code != E_NOT_LEADER && e->code != E_BUSY;
    if (outcome)
        name_place(c);
    if (c->r)
        http_reply_err(c->r, e);
    call_free(c);
}

struct refusal { struct call *c; struct err e; };

static void after_refusal(void *arg, int result, const struct err *e)
{
    struct refusal *w = arg;
    (void)e;
    if (result < 0)
        err_set(&w->e, E_UNAVAILABLE, "the cluster lost its leader meanwhile; nothing was changed, try again");
    send_err(w->c, &w->e);
    free(w);
}

/* What refuses a write is the state that this manager holds (no such object, a name that is taken). A deposed leader
 * may hold an old one and not know it: a quorum must say that it led when it refused. */
void reply_err(struct call *c, const struct err *e)
{
    bool write = c->r && c->route && c->route->kind == ROUTE_WRITE; /* without c->r the API may be gone, too */
    bool of_state = e->code == E_NOT_FOUND || e->code == E_EXISTS || e->code == E_INVALID || e->code == E_DENIED;
    struct manager *m = write && of_state ? call_manager(c) : NULL;
    if (!m || !manager_leads(m)) {
        send_err(c, e);
        return;
    }
    struct refusal *w = xnew(struct refusal);
    *w = (struct refusal){ c, *e };
    c->place = store_index(manager_store(m));
    manager_read(m, after_refusal, w);
}

void reply_error(struct call *c, int code, const char *fmt, ...)
{
    struct err e = { .code = code };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e.text, sizeof e.text, fmt, ap);
    va_end(ap);
    reply_err(c, &e);
}

void reply_empty(struct call *c, int status)
{
    name_place(c);
    if (c->r)
        http_reply(c->r, status, NULL, "", 0);
    call_free(c);
}

void done_empty(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    if (result < 0)
        reply_err(c, e);
    else
        reply_empty(c, 200);
}

void done_no_content(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    if (result < 0)
        reply_err(c, e);
    else
        reply_empty(c, 204);
}

void done_created(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    char json[128];
    if (result < 0) {
        reply_err(c, e);
        return;
    }
    snprintf(json, sizeof json, "{\"ID\":\"%s\",\"Id\":\"%s\"}\n", c->id, c->id);
    reply_json(c, 201, json);
}

void stream_begin(struct call *c, const char *content_type)
{
    if (c->r)
        http_stream_start(c->r, 200, content_type);
}

void stream_put(struct call *c, const void *p, size_t size)
{
    if (c->r)
        http_stream_write(c->r, p, size);
}

void stream_done(struct call *c)
{
    if (c->r)
        http_stream_end(c->r);
    call_free(c);
}

/* ---- requests ---- */
struct manager *call_manager(const struct call *c)
{
    return c->api->b.manager(c->api->b.arg);
}

const struct store *call_store(const struct call *c)
{
    return manager_store(call_manager(c));
}

const char *query(const struct call *c, const char *name)
{
    return c->r ? http_query(c->r, name) : NULL;
}

bool query_flag(const struct call *c, const char *name)
{
    const char *v = query(c, name);
    return v && (str_equal(v, "1") || str_equal(v, "true") || str_equal(v, "True") || str_equal(v, "yes"));
}

bool query_time(const char *text, int64_t *ret)
{
    char *end;
    if (!text || !*text || str_equal(text, "0"))
        return true;
    if (strchr(text, 'T') || strchr(text, '-'))
        return time_parse(text, ret) == 0;
    double s = strtod(text, &end);
    *ret = (int64_t)(s * (double)SEC_NS);
    return *end == '\0' && s >= 0;
}

uint64_t query_version(struct call *c, bool *ok)
{
    uint64_t v = 0;
    const char *text = query(c, "version");
    *ok = text && str_u64(text, 0, UINT64_MAX, &v);
    if (!*ok)
        reply_error(c, E_INVALID, "the parameter version must be the object's Version.Index");
    return v;
}

struct body_wait { struct call *c; body_fn *fn; };

static void body_gone(struct call *c)
{
    free(c->state);
    call_free(c);
}

static void on_body(void *arg, struct http_request *r, char *body, size_t size, const struct err *e)
{
    struct body_wait *w = arg;
    struct call *c = w->c;
    body_fn *fn = w->fn;
    struct val_doc *doc = NULL;
    struct err err;
    (void)r;
    free(w);
    c->state = NULL;
    c->gone = NULL;
    if (e) {
        reply_err(c, e);
        return;
    }
    if (c->route->kind == ROUTE_WRITE && !call_manager(c)) { /* demoted while the body came in */
        reply_error(c, E_UNAVAILABLE, "this node is no manager any more; ask another");
        return;
    }
    if (size && json_parse(&doc, body, size, "request body", &err) < 0) {
        reply_err(c, &err);
        return;
    }
    fn(c, doc ? val_root(doc) : NULL, body, size);
    val_doc_free(doc);
}

void with_body(struct call *c, body_fn *fn)
{
    struct body_wait *w = xnew(struct body_wait);
    *w = (struct body_wait){ c, fn };
    c->state = w;
    c->gone = body_gone;
    http_read_body(c->r, BODY_MAX_BYTES, on_body, w);
}

/* ---- values ---- */
struct val *strs_val(struct val_doc *d, const struct strs *s)
{
    struct val *l = val_list(d);
    for (uint32_t i = 0; i < s->n; i++)
        val_push(d, l, val_str(d, s->v[i]));
    return l;
}

struct val *labels_val(struct val_doc *d, const struct labels *l)
{
    struct val *m = val_map(d);
    for (uint32_t i = 0; i < l->n; i++)
        val_set(d, m, l->v[i].key, val_str(d, l->v[i].value));
    return m;
}

struct val *time_val(struct val_doc *d, int64_t real_ns)
{
    char text[40];
    time_format(text, real_ns);
    return val_str(d, text);
}

int strs_from_val(struct strs *ret, const struct val *v, const char *path, struct err *e)
{
    if (!v || v->kind == V_NULL)
        return 0;
    if (v->kind == V_STR) {
        strs_add(ret, v->s);
        return 0;
    }
    if (v->kind != V_LIST)
        return err_set(e, E_INVALID, "%s: a list of strings is needed", path);
    for (uint32_t i = 0; i < v->n; i++) {
        if (v->list[i]->kind != V_STR)
            return err_set(e, E_INVALID, "%s[%u]: a string is needed", path, i);
        strs_add(ret, v->list[i]->s);
    }
    return 0;
}

bool auth_of(const struct call *c, char **ret_json)
{
    const char *h = http_header(c->r, "X-Registry-Auth");
    size_t n;
    *ret_json = NULL;
    if (!h || !*h)
        return true;
    *ret_json = (char *)base64_decode(h, strlen(h), &n);
    return *ret_json != NULL;
}

/* ---- routing ---- */
/* Matches "/services/{}/update"; a "{+}" takes the rest up to what follows it (image names hold slashes). */
static bool match(const char *pattern, const char *path, char *param[2])
{
    unsigned n = 0;
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        bool rest = pattern[1] == '+';
        const char *after = strchr(pattern, '}') + 1;
        size_t tail = strlen(after), len = strlen(path);
        if (rest) {
            if (len <= tail || !str_equal(path + len - tail, after))
                return false;
            len -= tail;
        } else {
            len = strcspn(path, "/");
        }
        if (len == 0 || n == 2)
            return false;
        free(param[n]);
        param[n++] = xstrndup(path, len);
        path += len;
        pattern = after;
    }
    return *path == '\0';
}

static const struct route *find_route(const char *method, const char *path, char *param[2], bool *ret_known)
{
    *ret_known = false;
    for (unsigned t = 0; t < ARRAY_N(tables); t++)
        for (const struct route *r = tables[t]; r->path; r++) {
            if (!match(r->path, path, param))
                continue;
            *ret_known = true;
            if (str_equal(r->method, method) || (str_equal(method, "HEAD") && str_equal(r->method, "GET")))
                return r;
        }
    return NULL;
}

static const char *without_version(const char *path)
{
    if (path[0] != '/' || path[1] != 'v' || path[2] != '1' || path[3] != '.')
        return path;
    const char *rest = path + 4 + strspn(path + 4, "0123456789");
    return rest > path + 4 && *rest == '/' ? rest : path;
}

struct barrier { struct call *c; const struct route *route; };

static void after_barrier(void *arg, int result, const struct err *e)
{
    struct barrier *w = arg;
    struct call *c = w->c;
    const struct route *r = w->route;
    free(w);
    if (!c->r)
        leader_wait_gone(c);
    else if (result == -E_UNAVAILABLE) /* this node led when it was asked */
        no_leader(c, r);
    else if (leader_wait_free(c), result < 0)
        reply_err(c, e);
    else
        r->fn(c);
}

/* A worker does not carry requests to a manager: its own key must not act with a manager's rights. */
static void refuse_without_manager(struct call *c)
{
    struct sb b;
    struct agent *agent = c->api->b.agent(c->api->b.arg);
    const struct assignment *a = agent ? agent_assignment(agent) : NULL;
    if (!c->api->b.node_id(c->api->b.arg)) {
        reply_error(c, E_UNAVAILABLE, "This node is not a swarm manager. Use \"shoal init\" or \"shoal join\" to make it "
                    "part of a cluster and try again.");
        return;
    }
    sb_init(&b, 0);
    for (uint32_t i = 0, n = 0; a && i < a->nodes.n && n < 5; i++)
        if (a->nodes.v[i].spec.role == ROLE_MANAGER && a->nodes.v[i].status.addr)
            sb_printf(&b, "%s%s (%s)", n++ ? ", " : "", a->nodes.v[i].description.hostname ? a->nodes.v[i].description.hostname : "",
                      a->nodes.v[i].status.addr);
    reply_error(c, E_UNAVAILABLE, "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster "
                "state; run this command on a manager%s%s.", b.len ? ": " : "", b.s);
    sb_done(&b);
}

void call_dispatch(struct call *c, const struct route *r)
{
    struct manager *m = call_manager(c);
    if (r->kind != ROUTE_ALWAYS && c->api->b.locked(c->api->b.arg)) {
        leader_wait_free(c);
        reply_error(c, E_UNAVAILABLE, "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm "
                    "unlock\" or \"shoal unlock\" to unlock it.");
        return;
    }
    if (r->kind == ROUTE_LOCAL || r->kind == ROUTE_ALWAYS || (r->kind == ROUTE_LOCAL_OR_READ && !m)) {
        leader_wait_free(c);
        r->fn(c);
        return;
    }
    if (!m) {
        leader_wait_free(c);
        refuse_without_manager(c);
        return;
    }
    if (!manager_leads(m)) {
        forward_to_leader(c, r);
        return;
    }
    if (r->kind != ROUTE_WRITE) {
        struct barrier *w = xnew(struct barrier);
        *w = (struct barrier){ c, r };
        c->gone = NULL; /* after_barrier must find the call */
        manager_read(m, after_barrier, w);
        return;
    }
    leader_wait_free(c);
    r->fn(c);
}

static void on_gone(void *arg, struct http_request *r)
{
    struct call *c = arg;
    (void)r;
    c->r = NULL;
    if (c->gone)
        c->gone(c);
}

static void on_drain(void *arg, struct http_request *r)
{
    struct call *c = arg;
    (void)r;
    if (c->drain)
        c->drain(c);
}

static void on_request(void *arg, struct http_request *r)
{
    struct door *d = arg;
    struct call *c = xnew(struct call);
    bool known;
    c->api = d->api;
    c->r = r;
    c->from_peer = d->peer;
    http_on_gone(r, on_gone, on_drain, c);
    const char *path = without_version(http_path(r));
    const struct route *route = find_route(http_method(r), path, c->param, &known);
    if (!route && known)
        reply_error(c, E_UNSUPPORTED, "%s %s: this method is not built", http_method(r), path);
    else if (!route)
        reply_error(c, E_NOT_FOUND, "page not found: %s %s is not built", http_method(r), path);
    else
        call_dispatch(c, c->route = route);
}

static struct http_server *open_door(struct api *a, bool peer)
{
    struct door *d = xnew(struct door);
    *d = (struct door){ a, peer };
    struct http_server *s = http_server_new(a->b.loop, on_request, d);
    http_server_header(s, "Api-Version", API_VERSION);
    http_server_header(s, "Docker-Experimental", "false");
    http_server_header(s, "Ostype", "linux");
    http_server_header(s, "Server", "Shoal/" SHOAL_VERSION " (linux)");
    a->doors[peer] = d;
    return s;
}

struct api *api_new(const struct api_backend *b)
{
    struct api *a = xnew(struct api);
    a->b = *b;
    list_init(&a->leader_waits);
    list_init(&a->relays);
    map_init(&a->execs);
    map_init(&a->watchers);
    map_init(&a->waits);
    map_init(&a->keeps);
    AUTO_FREE char *volumes = path_join(b->root_dir, "volumes");
    folder_discard_rest(b->loop, volumes);
    keeper_open(a);
    a->local = open_door(a, false);
    a->peer = open_door(a, true);
    return a;
}

void api_free(struct api *a)
{
    if (!a)
        return;
    forward_close(a);
    http_server_free(a->local);
    http_server_free(a->peer);
    exec_free_all(a);
    map_done(&a->execs);
    map_done(&a->watchers);
    map_done(&a->waits);
    keeper_free(a);
    events_free(a);
    free(a->doors[0]);
    free(a->doors[1]);
    free(a);
}

void api_serve(struct api *a, struct stream *s)
{
    http_server_take(a->local, s);
}

void api_serve_peer(struct api *a, struct stream *s, bool from_manager)
{
    if (from_manager)
        http_server_take(a->peer, s);
    else
        stream_free(s);
}

void api_container_event(struct api *a, const struct container *c)
{
    events_container(a, c);
    keeper_event(a, c);
    container_wait_check(a, c);
}
