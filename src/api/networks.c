/* /networks, /secrets, /configs; volumes of this node. */
#include "api_internal.h"
#include <stdio.h>

/* Networks that every node has without asking: for `docker run`. */
static const char *const local_networks[][2] = { { "bridge", "bridge" }, { "host", "host" }, { "none", "null" } };

static struct val *local_val(struct val_doc *d, unsigned i)
{
    struct val *v = val_map(d), *ipam = val_map(d);
    char id[65];
    snprintf(id, sizeof id, "%064u", i + 1);
    val_set(d, v, "Name", val_str(d, local_networks[i][0]));
    val_set(d, v, "Id", val_str(d, id));
    val_set(d, v, "Created", time_val(d, 0));
    val_set(d, v, "Scope", val_str(d, "local"));
    val_set(d, v, "Driver", val_str(d, local_networks[i][1]));
    val_set(d, v, "EnableIPv6", val_bool(d, false));
    val_set(d, ipam, "Driver", val_str(d, "default"));
    val_set(d, ipam, "Config", val_list(d));
    val_set(d, v, "IPAM", ipam);
    static const char *const no[] = { "Internal", "Attachable", "Ingress", "ConfigOnly" };
    for (unsigned k = 0; k < ARRAY_N(no); k++)
        val_set(d, v, no[k], val_bool(d, false));
    static const char *const empty[] = { "Containers", "Options", "Labels" };
    for (unsigned k = 0; k < ARRAY_N(empty); k++)
        val_set(d, v, empty[k], val_map(d));
    return v;
}

static void network_list(struct call *c)
{
    static const char *const allowed[] = { "id", "name", "label", "driver", "scope", "type", "dangling", NULL };
    struct filters f;
    struct err e;
    bool dangling;
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    if (filter_flag(&f, "dangling", &dangling, &e) < 0) {
        filters_free(&f);
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    const struct labels none = { 0 };
    for (unsigned i = 0; i < ARRAY_N(local_networks); i++)
        if (filter_name(&f, "name", local_networks[i][0]) && filter_exact(&f, "driver", local_networks[i][1]) &&
            filter_exact(&f, "scope", "local") && filter_labels(&f, "label", &none) && !filters_has(&f, "id") &&
            filter_exact(&f, "type", "builtin") && !dangling)
            val_push(d, list, local_val(d, i));
    struct manager *m = call_manager(c);
    struct map used;
    map_init(&used);
    if (m && filters_has(&f, "dangling"))
        networks_in_use(manager_store(m), &used);
    for (const struct network *n = NULL; m && (n = store_next(manager_store(m), TABLE_NETWORK, n));)
        if (filter_prefix(&f, "id", n->id) && filter_name(&f, "name", n->name) && filter_labels(&f, "label", &n->labels) &&
            filter_exact(&f, "driver", "overlay") && filter_exact(&f, "scope", "swarm") && filter_exact(&f, "type", "custom") &&
            (!filters_has(&f, "dangling") || dangling == !map_find(&used, n->id)))
            val_push(d, list, network_val(d, n));
    map_done(&used);
    filters_free(&f);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

static void network_inspect(struct call *c)
{
    const void *o;
    struct err e;
    struct manager *m = call_manager(c);
    struct val_doc *d = val_doc_new();
    for (unsigned i = 0; i < ARRAY_N(local_networks); i++)
        if (str_equal(local_networks[i][0], c->param[0])) {
            val_set_root(d, local_val(d, i));
            reply_val(c, 200, d);
            return;
        }
    if (!m || store_lookup(manager_store(m), TABLE_NETWORK, c->param[0], &o, &e) < 0) {
        val_doc_free(d);
        reply_error(c, E_NOT_FOUND, "network %s not found", c->param[0]);
        return;
    }
    struct val *v = network_val(d, o);
    network_add_users(d, v, manager_store(m), o, query_flag(c, "verbose"));
    val_set_root(d, v);
    reply_val(c, 200, d);
}

static void network_created(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    char json[96];
    if (result < 0) {
        reply_err(c, e);
        return;
    }
    snprintf(json, sizeof json, "{\"Id\":\"%s\",\"Warning\":\"\"}\n", c->id);
    reply_json(c, 201, json);
}

static void create_network(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct network n = { 0 };
    struct err e = { 0 };
    (void)text, (void)size;
    const char *driver = val_get_str(body, "Driver");
    if (!body)
        err_set(&e, E_INVALID, "request body: a network is needed");
    else if (driver && *driver && !str_equal(driver, "overlay"))
        err_set(&e, E_UNSUPPORTED, "Driver: %s is not built; use overlay (shoal network create -d overlay NAME)", driver);
    else if (!val_get_bool(body, "EnableIPv4", true))
        err_set(&e, E_UNSUPPORTED, "EnableIPv4: false is not built; networks have IPv4");
    if (e.code || rec_from_val(&network_rec, &n, body, "", &e) < 0) {
        reply_err(c, &e);
        return;
    }
    str_set(&n.scope, NULL);
    control_network_create(call_manager(c), &n, c->id, network_created, c);
    network_clear(&n);
}

static void network_create(struct call *c)
{
    with_body(c, create_network);
}

static void removed(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    if (result < 0)
        reply_err(c, e);
    else
        reply_empty(c, 204);
}

static void network_remove(struct call *c)
{
    for (unsigned i = 0; i < ARRAY_N(local_networks); i++)
        if (str_equal(local_networks[i][0], c->param[0])) {
            reply_error(c, E_DENIED, "%s is a pre-defined network and cannot be removed", c->param[0]);
            return;
        }
    control_network_remove(call_manager(c), c->param[0], removed, c);
}

/* ---- secrets and configs: alike but for the data, which a secret never gives back ---- */
static void list_named(struct call *c, enum store_table t)
{
    static const char *const allowed[] = { "id", "name", "names", "label", NULL };
    struct filters f;
    struct err e;
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    for (const void *o = NULL; (o = store_next(call_store(c), t, o));) {
        const struct secret *s = o;
        const struct config *g = o;
        const char *name = t == TABLE_SECRET ? s->spec.name : g->spec.name;
        const struct labels *l = t == TABLE_SECRET ? &s->spec.labels : &g->spec.labels;
        if (filter_prefix(&f, "id", s->id) && filter_name(&f, "name", name) && filter_exact(&f, "names", name) &&
            filter_labels(&f, "label", l))
            val_push(d, list, rec_to_val(store_rec(t), o, d));
    }
    filters_free(&f);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

static void inspect_named(struct call *c, enum store_table t)
{
    const void *o;
    struct err e;
    if (store_lookup(call_store(c), t, c->param[0], &o, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    val_set_root(d, rec_to_val(store_rec(t), o, d));
    reply_val(c, 200, d);
}

static void secret_list(struct call *c) { list_named(c, TABLE_SECRET); }
static void config_list(struct call *c) { list_named(c, TABLE_CONFIG); }
static void secret_inspect(struct call *c) { inspect_named(c, TABLE_SECRET); }
static void config_inspect(struct call *c) { inspect_named(c, TABLE_CONFIG); }

static void secret_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct secret_spec s = { 0 };
    struct err e;
    (void)text, (void)size;
    if (rec_from_val(&secret_spec_rec, &s, body, "", &e) < 0) {
        reply_err(c, &e);
        return;
    }
    if (c->param[0]) {
        bool ok;
        uint64_t version = query_version(c, &ok);
        if (ok)
            control_secret_update(call_manager(c), c->param[0], version, &s, done_empty, c);
    } else {
        control_secret_create(call_manager(c), &s, c->id, done_created, c);
    }
    secret_spec_clear(&s);
}

static void config_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct config_spec s = { 0 };
    struct err e;
    (void)text, (void)size;
    if (rec_from_val(&config_spec_rec, &s, body, "", &e) < 0) {
        reply_err(c, &e);
        return;
    }
    if (c->param[0]) {
        bool ok;
        uint64_t version = query_version(c, &ok);
        if (ok)
            control_config_update(call_manager(c), c->param[0], version, &s, done_empty, c);
    } else {
        control_config_create(call_manager(c), &s, c->id, done_created, c);
    }
    config_spec_clear(&s);
}

static void secret_write(struct call *c) { with_body(c, secret_body); }
static void config_write(struct call *c) { with_body(c, config_body); }
static void secret_remove(struct call *c) { control_secret_remove(call_manager(c), c->param[0], removed, c); }
static void config_remove(struct call *c) { control_config_remove(call_manager(c), c->param[0], removed, c); }

const struct route network_routes[] = {
    { "GET", "/networks", network_list, ROUTE_LOCAL_OR_READ },
    { "POST", "/networks/create", network_create, ROUTE_WRITE },
    { "GET", "/networks/{}", network_inspect, ROUTE_LOCAL_OR_READ },
    { "DELETE", "/networks/{}", network_remove, ROUTE_WRITE },
    { "GET", "/secrets", secret_list, ROUTE_READ },
    { "POST", "/secrets/create", secret_write, ROUTE_WRITE },
    { "GET", "/secrets/{}", secret_inspect, ROUTE_READ },
    { "POST", "/secrets/{}/update", secret_write, ROUTE_WRITE },
    { "DELETE", "/secrets/{}", secret_remove, ROUTE_WRITE },
    { "GET", "/configs", config_list, ROUTE_READ },
    { "POST", "/configs/create", config_write, ROUTE_WRITE },
    { "GET", "/configs/{}", config_inspect, ROUTE_READ },
    { "POST", "/configs/{}/update", config_write, ROUTE_WRITE },
    { "DELETE", "/configs/{}", config_remove, ROUTE_WRITE },
    { 0 },
};
