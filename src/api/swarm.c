/* /swarm and /nodes: the cluster itself and its members. */
#include "api_internal.h"
#include <stdio.h>

static int availability_of(const struct val *body, struct err *e)
{
    const char *text = val_get_str(body, "Availability");
    if (!text || !*text)
        return AVAIL_ACTIVE;
    for (int i = 0; node_availability_names[i]; i++)
        if (str_equal(node_availability_names[i], text))
            return i;
    return err_set(e, E_INVALID, "Availability: \"%s\" is none of active, pause, drain", text);
}

/* "ADDR", "ADDR:PORT", "[V6]:PORT" or an interface: the address alone. */
static char *host_of(const char *text)
{
    if (!text || !*text)
        return NULL;
    const char *colon = strrchr(text, ':');
    if (text[0] == '[')
        return xstrndup(text + 1, strcspn(text + 1, "]"));
    if (colon && strchr(text, ':') == colon)
        return xstrndup(text, (size_t)(colon - text));
    return xstrdup(text);
}

static int check_port(const struct call *c, const char *text, const char *what, struct err *e)
{
    const char *colon = text ? strrchr(text, ':') : NULL;
    uint64_t port;
    if (!colon || strchr(text, ':') != colon || !str_u64(colon + 1, 1, 65535, &port) ||
        port == c->api->b.control_port || port == 2377)
        return 0;
    return err_set(e, E_UNSUPPORTED, "%s: the control port is %u, set by the daemon's --control-port", what, c->api->b.control_port);
}

static void on_initialized(void *arg, const struct err *e)
{
    struct call *c = arg;
    if (e) {
        reply_err(c, e);
        return;
    }
    char json[64];
    snprintf(json, sizeof json, "\"%s\"\n", c->api->b.node_id(c->api->b.arg));
    reply_json(c, 200, json);
}

static void on_recovered(void *arg, int result, const struct err *e)
{
    struct call *c = arg;
    on_initialized(c, result < 0 ? e : NULL);
}

/* `docker swarm init --force-new-cluster`, `shoal recover`. */
static void recover(struct call *c)
{
    if (call_manager(c))
        manager_recover(call_manager(c), on_recovered, c);
    else
        reply_error(c, E_UNAVAILABLE, "this node is no manager, it holds no state to recover; run it on a manager that survived");
}

/* What a recovery here would keep and leave behind; read without a leader. */
static void recovery_plan(struct call *c)
{
    static const struct { const char *name; enum store_table t; } kept[] = {
        { "Services", TABLE_SERVICE }, { "Networks", TABLE_NETWORK }, { "Secrets", TABLE_SECRET },
        { "Configs", TABLE_CONFIG }, { "Nodes", TABLE_NODE },
    };
    struct manager *m = call_manager(c);
    struct raft_status s;
    if (!m) {
        recover(c);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *root = val_map(d), *left = val_list(d);
    manager_raft_status(m, &s);
    val_set(d, root, "Leader", val_str(d, manager_leader_id(m) ? manager_leader_id(m) : ""));
    for (unsigned i = 0; i < ARRAY_N(kept); i++)
        val_set(d, root, kept[i].name, val_int(d, store_count(call_store(c), kept[i].t)));
    val_set(d, root, "Entries", val_int(d, (int64_t)s.last));
    val_set(d, root, "Term", val_int(d, (int64_t)s.term));
    val_set(d, root, "Voter", val_bool(d, s.voter));
    val_set(d, root, "Uncertain", val_int(d, (int64_t)(s.last - MIN(s.commit, s.last))));
    val_set(d, root, "ChangedAt", time_val(d, store_changed_at(call_store(c))));
    val_set(d, root, "LeaderlessMs", val_int(d, manager_leaderless_ms(m)));
    int64_t silent = 0, workers = 0;
    for (const struct node *n = NULL; (n = store_next(call_store(c), TABLE_NODE, n));) {
        workers += n->spec.role == ROLE_WORKER;
        silent += n->spec.role == ROLE_WORKER && (n->status.state == NODE_DOWN || manager_is_suspect(m, n->id));
    }
    val_set(d, root, "Workers", val_int(d, workers));
    val_set(d, root, "WorkersSilent", val_int(d, silent));
    for (const struct node *n = NULL; (n = store_next(call_store(c), TABLE_NODE, n));) {
        struct manager_status status = { 0 };
        if (str_equal(n->id, c->api->b.node_id(c->api->b.arg)) || !manager_node_status(m, n->id, &status))
            continue;
        struct val *v = val_map(d);
        val_set(d, v, "ID", val_str(d, n->id));
        val_set(d, v, "Hostname", val_str(d, n->description.hostname ? n->description.hostname : ""));
        val_set(d, v, "Addr", val_str(d, status.addr));
        val_set(d, v, "Reachability", val_str(d, reachability_names[status.reachability]));
        val_push(d, left, v);
        manager_status_clear(&status);
    }
    val_set(d, root, "LeftBehind", left);
    val_set_root(d, root);
    reply_val(c, 200, d);
}

static void init_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct node_init in = { 0 };
    struct err e = { 0 };
    (void)text, (void)size;
    const struct val *spec = val_get(body, "Spec");
    if (val_get_bool(body, "ForceNewCluster", false) && call_manager(c)) {
        recover(c);
        return;
    }
    if (!body)
        err_set(&e, E_INVALID, "request body: an object is needed");
    in.autolock = val_get_bool(body, "AutoLockManagers", false) ||
                  val_get_bool(val_get(spec, "EncryptionConfig"), "AutoLockManagers", false);
    int64_t subnet = val_get_int(body, "SubnetSize", 0), port = val_get_int(body, "DataPathPort", 0);
    if (!e.code && (subnet < 0 || subnet > 29 || (subnet && subnet < 16)))
        err_set(&e, E_INVALID, "SubnetSize: %lld is not within 16..29", (long long)subnet);
    if (!e.code && port && port != 4789)
        err_set(&e, E_UNSUPPORTED, "DataPathPort: set it by the daemon's --tunnel-port on every node");
    const char *managers = val_get_str(body, "Managers"), *why = managers ? check_managers(managers) : NULL;
    if (!e.code && why)
        err_set(&e, E_INVALID, "Managers: \"%.32s\" %s", managers, why);
    if (!e.code)
        (void)!control_check_replace_after(val_get_int(body, "ReplaceManagersAfter", 0), &e);
    if (!e.code)
        in.availability = availability_of(body, &e);
    if (!e.code && check_port(c, val_get_str(body, "ListenAddr"), "ListenAddr", &e) == 0 &&
        check_port(c, val_get_str(body, "AdvertiseAddr"), "AdvertiseAddr", &e) == 0 &&
        strs_from_val(&in.address_pools, val_get(body, "DefaultAddrPool"), "DefaultAddrPool", &e) == 0) {
        in.subnet_size = (uint32_t)subnet;
        in.advertise_addr = host_of(val_get_str(body, "AdvertiseAddr"));
        in.managers = managers ? xstrdup(managers) : NULL;
        in.replace_after = val_get_int(body, "ReplaceManagersAfter", 0);
        c->api->b.init(c->api->b.arg, &in, on_initialized, c);
    } else {
        reply_err(c, &e);
    }
    free(in.advertise_addr);
    free(in.managers);
    strs_clear(&in.address_pools);
}

static void swarm_init(struct call *c)
{
    with_body(c, init_body);
}

static void on_simple(void *arg, const struct err *e)
{
    struct call *c = arg;
    if (e)
        reply_err(c, e);
    else
        reply_empty(c, 200);
}

/* With ?progress=1 the reply begins when the first attempt was in vain, and is lines from then on. */
struct joining { struct call *c; bool lines; };

static void join_line(void *arg, const char *line)
{
    struct joining *j = arg;
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d);
    val_set(d, v, "status", val_str(d, line));
    if (!j->lines)
        stream_begin(j->c, "application/json");
    j->lines = true;
    progress_line(j->c, d, v);
}

static void on_joined(void *arg, const struct err *e)
{
    struct joining *j = arg;
    if (j->lines && e)
        error_line(j->c, e);
    if (j->lines)
        stream_done(j->c);
    else
        on_simple(j->c, e);
    free(j);
}

static void join_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct node_join in = { .progress = query_flag(c, "progress") ? join_line : NULL };
    struct err e = { 0 };
    (void)text, (void)size;
    str_set(&in.token, val_get_str(body, "JoinToken"));
    in.advertise_addr = host_of(val_get_str(body, "AdvertiseAddr"));
    in.availability = availability_of(body, &e);
    in.never_manager = val_get_bool(body, "NeverManager", false);
    if (!e.code && strs_from_val(&in.remote_addrs, val_get(body, "RemoteAddrs"), "RemoteAddrs", &e) == 0 &&
        check_port(c, val_get_str(body, "ListenAddr"), "ListenAddr", &e) == 0) {
        struct joining *j = xnew(struct joining);
        j->c = c;
        c->api->b.join(c->api->b.arg, &in, on_joined, j);
    } else {
        reply_err(c, &e);
    }
    free(in.token);
    free(in.advertise_addr);
    strs_clear(&in.remote_addrs);
}

static void swarm_join(struct call *c)
{
    with_body(c, join_body);
}

static void swarm_leave(struct call *c)
{
    c->api->b.leave(c->api->b.arg, query_flag(c, "force"), on_simple, c);
}

static void swarm_inspect(struct call *c)
{
    struct val_doc *d = val_doc_new();
    val_set_root(d, rec_to_val(&cluster_rec, store_cluster(call_store(c)), d));
    val_unset(val_root(d), "CAChain");
    val_set(d, val_root(d), "TLSInfo", tls_info_val(d, &store_cluster(call_store(c))->ca_public));
    reply_val(c, 200, d);
}

static void update_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct cluster_spec spec = { 0 };
    struct err e = { 0 };
    bool ok;
    (void)text, (void)size;
    uint64_t version = query_version(c, &ok);
    if (!ok)
        return;
    if (rec_from_val(&cluster_spec_rec, &spec, body, "", &e) < 0) {
        reply_err(c, &e);
        return;
    }
    unsigned rotate = (query_flag(c, "rotateWorkerToken") ? ROTATE_WORKER_TOKEN : 0) |
                      (query_flag(c, "rotateManagerToken") ? ROTATE_MANAGER_TOKEN : 0) |
                      (query_flag(c, "rotateManagerUnlockKey") ? ROTATE_UNLOCK_KEY : 0);
    control_cluster_update(call_manager(c), version, &spec, rotate, done_empty, c);
    cluster_spec_clear(&spec);
}

static void swarm_update(struct call *c)
{
    with_body(c, update_body);
}

static void swarm_unlockkey(struct call *c)
{
    char json[UNLOCK_KEY_TEXT_BYTES + 32], text[UNLOCK_KEY_TEXT_BYTES] = "";
    const struct cluster *cluster = store_cluster(call_store(c));
    if (cluster->unlock_key.n == 32)
        unlock_key_text(text, cluster->unlock_key.v);
    snprintf(json, sizeof json, "{\"UnlockKey\":\"%s\"}\n", text);
    reply_json(c, 200, json);
}

static void unlock_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    uint8_t key[32];
    const char *given = val_get_str(body, "UnlockKey");
    (void)text, (void)size;
    if (!given || !unlock_key_parse(key, given))
        reply_error(c, E_INVALID, "UnlockKey: it reads SHOALKEY-1- and 64 digits; `shoal unlock-key` on another manager shows it");
    else
        c->api->b.unlock(c->api->b.arg, key, on_simple, c);
}

static void swarm_unlock(struct call *c)
{
    with_body(c, unlock_body);
}

/* ---- nodes ---- */
static struct val *node_val(struct call *c, struct val_doc *d, const struct node *n)
{
    struct val *v = rec_to_val(&node_rec, n, d);
    struct manager_status s;
    static const char *const private[] = { "LinkKey", "SignKey" };
    for (unsigned i = 0; i < ARRAY_N(private); i++)
        val_unset(v, private[i]);
    struct val *description = (struct val *)(uintptr_t)val_get(v, "Description");
    if (description)
        val_set(d, description, "TLSInfo", tls_info_val(d, manager_node_ca(call_manager(c), n->id)));
    if (manager_node_status(call_manager(c), n->id, &s)) {
        val_set(d, v, "ManagerStatus", rec_to_val(&manager_status_rec, &s, d));
        manager_status_clear(&s);
    }
    return v;
}

static void node_list(struct call *c)
{
    static const char *const allowed[] = { "id", "name", "label", "node.label", "role", "membership", NULL };
    struct filters f;
    struct err e;
    if (filters_parse(query(c, "filters"), allowed, &f, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    for (const struct node *n = NULL; (n = store_next(call_store(c), TABLE_NODE, n));)
        if (filter_prefix(&f, "id", n->id) && filter_name(&f, "name", n->description.hostname) &&
            filter_labels(&f, "label", &n->description.engine.labels) && filter_labels(&f, "node.label", &n->spec.labels) &&
            filter_exact(&f, "role", node_role_names[n->spec.role]))
            val_push(d, list, node_val(c, d, n));
    filters_free(&f);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

static const void *lookup(struct call *c, enum store_table t, const char *ref)
{
    const void *o;
    struct err e;
    if (t == TABLE_NODE && str_equal(ref, "self"))
        ref = c->api->b.node_id(c->api->b.arg);
    if (store_lookup(call_store(c), t, ref, &o, &e) == 0)
        return o;
    reply_err(c, &e);
    return NULL;
}

static void node_inspect(struct call *c)
{
    const struct node *n = lookup(c, TABLE_NODE, c->param[0]);
    if (!n)
        return;
    struct val_doc *d = val_doc_new();
    val_set_root(d, node_val(c, d, n));
    reply_val(c, 200, d);
}

static void node_update_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct node_spec spec = { 0 };
    struct err e;
    bool ok;
    (void)text, (void)size;
    uint64_t version = query_version(c, &ok);
    if (!ok)
        return;
    if (rec_from_val(&node_spec_rec, &spec, body, "", &e) < 0) {
        reply_err(c, &e);
        return;
    }
    control_node_update(call_manager(c), c->param[0], version, &spec, done_empty, c);
    node_spec_clear(&spec);
}

static void node_update(struct call *c)
{
    with_body(c, node_update_body);
}

static void node_remove(struct call *c)
{
    control_node_remove(call_manager(c), c->param[0], query_flag(c, "force"), done_empty, c);
}

const struct route swarm_routes[] = {
    { "POST", "/swarm/init", swarm_init, ROUTE_ALWAYS },
    { "GET", "/shoal/v1/recovery", recovery_plan, ROUTE_LOCAL },
    { "POST", "/shoal/v1/recovery", recover, ROUTE_LOCAL },
    { "POST", "/swarm/join", swarm_join, ROUTE_ALWAYS },
    { "POST", "/swarm/leave", swarm_leave, ROUTE_ALWAYS },
    { "GET", "/swarm", swarm_inspect, ROUTE_READ },
    { "POST", "/swarm/update", swarm_update, ROUTE_WRITE },
    { "GET", "/swarm/unlockkey", swarm_unlockkey, ROUTE_READ },
    { "POST", "/swarm/unlock", swarm_unlock, ROUTE_ALWAYS },
    { "GET", "/nodes", node_list, ROUTE_READ },
    { "GET", "/nodes/{}", node_inspect, ROUTE_READ },
    { "POST", "/nodes/{}/update", node_update, ROUTE_WRITE },
    { "DELETE", "/nodes/{}", node_remove, ROUTE_WRITE },
    { 0 },
};
