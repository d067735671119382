/* GET /containers/json and /containers/x/json: what there is, as Docker's clients expect it. What was asked for at the
 * creation is kept with the container and shown again; what the image gave is put in where it was not. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

/* Docker's words: "Less than a second", "About a minute", "3 weeks". */
static void duration(char out[64], int64_t ns)
{
    int64_t s = ns / SEC_NS, m = s / 60, h = (s + 1800) / 3600;
    if (s < 1)
        snprintf(out, 64, "Less than a second");
    else if (s < 60)
        snprintf(out, 64, "%lld second%s", (long long)s, s == 1 ? "" : "s");
    else if (m < 60)
        snprintf(out, 64, m == 1 ? "About a minute" : "%lld minutes", (long long)m);
    else if (h < 48)
        snprintf(out, 64, h == 1 ? "About an hour" : "%lld hours", (long long)h);
    else if (h < 24 * 14)
        snprintf(out, 64, "%lld days", (long long)(h / 24));
    else if (h < 24 * 60)
        snprintf(out, 64, "%lld weeks", (long long)(h / 24 / 7));
    else if (h < 24 * 365 * 2)
        snprintf(out, 64, "%lld months", (long long)(h / 24 / 30));
    else
        snprintf(out, 64, "%lld years", (long long)(h / 24 / 365));
}

static void status_text(const struct api *a, char out[160], const struct container *x)
{
    int64_t now = clock_real_ns();
    char t[64];
    const char *health = keeper_health(a, x->spec.id);
    if (container_is_up(x)) {
        duration(t, now - x->state.started_ns);
        bool checked = !str_equal(health, "none");
        snprintf(out, 160, "Up %s%s%s%s%s", t, checked ? (str_equal(health, "starting") ? " (health: " : " (") : "",
                 checked ? health : "", checked ? ")" : "", x->state.phase == CONTAINER_PAUSED ? " (Paused)" : "");
    } else if (x->state.phase == CONTAINER_EXITED) {
        duration(t, now - x->state.finished_ns);
        snprintf(out, 160, "%s (%d) %s ago", keeper_restarts(a, x) ? "Restarting" : "Exited", (int)x->state.exit_code, t);
    } else {
        snprintf(out, 160, "Created");
    }
}

const char *container_status(const struct api *a, const struct container *x)
{
    return keeper_restarts(a, x) ? "restarting" : container_phase_names[x->state.phase];
}

bool container_is_task(const struct container *x)
{
    return labels_get(&x->spec.labels, "com.docker.swarm.task.id") != NULL;
}

struct val_doc *container_asked(const struct container *x)
{
    struct val_doc *d;
    const char *text = x->spec.asked;
    return text && json_parse(&d, text, strlen(text), "asked", NULL) == 0 ? d : NULL;
}

static char *command_of(const struct container *x)
{
    struct sb b;
    sb_init(&b, 0);
    for (uint32_t i = 0; i < x->spec.argv.n; i++)
        sb_printf(&b, "%s%s", i ? " " : "", x->spec.argv.v[i]);
    return sb_take(&b);
}

static const char *const port_words[] = { "tcp", "udp", "sctp" };

static const struct sandbox *sandbox_of(const struct api *a, const struct container *x)
{
    const char *task = labels_get(&x->spec.labels, "com.docker.swarm.task.id");
    return overlay_sandbox(a->b.overlay(a->b.arg), task ? task : x->spec.id);
}

static struct val *ports_val(struct call *c, struct val_doc *d, const struct container *x)
{
    struct val *list = val_list(d);
    const struct sandbox *s = container_is_up(x) ? sandbox_of(c->api, x) : NULL;
    for (uint32_t i = 0; s && i < s->ports.n; i++) {
        struct val *v = val_map(d);
        val_set(d, v, "IP", val_str(d, "0.0.0.0"));
        val_set(d, v, "PrivatePort", val_int(d, (int64_t)s->ports.v[i].target));
        val_set(d, v, "PublicPort", val_int(d, (int64_t)s->ports.v[i].published));
        val_set(d, v, "Type", val_str(d, port_words[s->ports.v[i].protocol]));
        val_push(d, list, v);
    }
    return list;
}

static struct val *mounts_val(struct call *c, struct val_doc *d, const struct container *x)
{
    struct val *list = val_list(d);
    for (uint32_t i = 0; i < x->spec.mounts.n; i++) {
        const struct container_mount *m = &x->spec.mounts.v[i];
        struct val *v = val_map(d);
        AUTO_FREE char *name = m->source ? api_volume_name(c->api, m->source) : NULL;
        val_set(d, v, "Type", val_str(d, m->type == CONTAINER_TMPFS ? "tmpfs" : name ? "volume" : "bind"));
        if (name) {
            val_set(d, v, "Name", val_str(d, name));
            val_set(d, v, "Driver", val_str(d, "local"));
        }
        val_set(d, v, "Source", val_str(d, m->source ? m->source : ""));
        val_set(d, v, "Destination", val_str(d, m->target));
        val_set(d, v, "Mode", val_str(d, m->read_only && !name ? "ro" : name ? "z" : ""));
        val_set(d, v, "RW", val_bool(d, !m->read_only));
        val_set(d, v, "Propagation", val_str(d, name || m->type == CONTAINER_TMPFS ? "" : m->propagation ? m->propagation : "rprivate"));
        val_push(d, list, v);
    }
    return list;
}

static void add_address(struct val_doc *d, struct val *v, const char *addr)
{
    const char *slash = strchr(addr, '/');
    uint64_t bits = 32;
    AUTO_FREE char *ip = xstrndup(addr, strcspn(addr, "/"));
    if (slash && !str_u64(slash + 1, 0, 128, &bits))
        bits = 32;
    val_set(d, v, "IPAddress", val_str(d, ip));
    val_set(d, v, "IPPrefixLen", val_int(d, (int64_t)bits));
}

static struct val *networks_val(struct call *c, struct val_doc *d, const struct container *x)
{
    struct val *m = val_map(d);
    const struct sandbox *s = sandbox_of(c->api, x);
    struct agent *agent = c->api->b.agent(c->api->b.arg);
    const struct assignment *a = agent ? agent_assignment(agent) : NULL;
    for (uint32_t i = 0; s && i < s->links.n; i++) {
        const char *name = s->links.v[i].network_id;
        struct val *v = val_map(d);
        for (uint32_t k = 0; a && k < a->networks.n; k++)
            if (str_equal(a->networks.v[k].id, name))
                name = a->networks.v[k].name;
        val_set(d, v, "NetworkID", val_str(d, s->links.v[i].network_id));
        add_address(d, v, s->links.v[i].addr);
        val_set(d, m, name, v);
    }
    if (s && s->links.n == 0 && s->gateway_addr) {
        struct val *v = val_map(d);
        val_set(d, v, "NetworkID", val_str(d, "bridge"));
        add_address(d, v, s->gateway_addr);
        val_set(d, m, "bridge", v);
    }
    if (!s) {
        const char *name = str_equal(x->spec.netns, "host") ? "host" : x->spec.netns ? "bridge" : "none";
        struct val *v = val_map(d);
        val_set(d, v, "NetworkID", val_str(d, name));
        val_set(d, v, "IPAddress", val_str(d, ""));
        val_set(d, v, "IPPrefixLen", val_int(d, 0));
        val_set(d, m, name, v);
    }
    return m;
}

/* ---- which ones ---- */
static bool on_network(struct call *c, const struct filters *f, const struct container *x)
{
    bool yes = !filters_has(f, "network");
    struct val_doc *d = val_doc_new();
    const struct val *m = yes ? NULL : networks_val(c, d, x);
    for (uint32_t i = 0; m && i < m->n; i++)
        yes |= filter_exact(f, "network", m->map[i].key->s) || filter_exact(f, "network", val_get_str(m->map[i].value, "NetworkID"));
    val_doc_free(d);
    return yes;
}

static bool has_volume(struct call *c, const struct filters *f, const struct container *x)
{
    bool yes = !filters_has(f, "volume");
    for (uint32_t i = 0; !yes && i < x->spec.mounts.n; i++) {
        const struct container_mount *m = &x->spec.mounts.v[i];
        AUTO_FREE char *name = m->source ? api_volume_name(c->api, m->source) : NULL;
        yes = filter_exact(f, "volume", m->target) || filter_exact(f, "volume", m->source) || filter_exact(f, "volume", name);
    }
    return yes;
}

/* "8080", "8080/udp", "8000-8080/tcp" */
static bool port_in(const char *text, uint64_t port, const char *protocol)
{
    uint64_t from, to;
    const char *slash = strchr(text, '/'), *dash = strchr(text, '-');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    AUTO_FREE char *first = xstrndup(text, dash ? (size_t)(dash - text) : n);
    AUTO_FREE char *last = dash ? xstrndup(dash + 1, n - (size_t)(dash + 1 - text)) : xstrdup(first);
    return str_u64(first, 1, 65535, &from) && str_u64(last, 1, 65535, &to) && port >= from && port <= to &&
           str_equal(slash ? slash + 1 : "tcp", protocol);
}

static bool has_port(struct call *c, const struct filters *f, const char *key, const struct container *x)
{
    const char *text;
    const struct sandbox *s = sandbox_of(c->api, x);
    bool yes = !filters_has(f, key);
    for (uint32_t k = 0; !yes && (text = filter_nth(f, key, k)); k++)
        for (uint32_t i = 0; s && i < s->ports.n; i++)
            yes |= port_in(text, str_equal(key, "expose") ? s->ports.v[i].target : s->ports.v[i].published, port_words[s->ports.v[i].protocol]);
    return yes;
}

static bool of_image(struct call *c, const struct filters *f, const struct container *x)
{
    const struct image *i = x->spec.image_id ? image_find(c->api->b.images, x->spec.image_id) : NULL;
    bool yes = filter_exact(f, "ancestor", x->spec.image) || filter_exact(f, "ancestor", x->spec.image_id);
    const char *asked;
    for (uint32_t k = 0; !yes && (asked = filter_nth(f, "ancestor", k)); k++) {
        const struct image *other = image_find(c->api->b.images, asked);
        yes = i && other == i;
    }
    return yes;
}

static bool shown(struct call *c, const struct filters *f, const struct container *x)
{
    char code[16];
    snprintf(code, sizeof code, "%d", (int)x->state.exit_code);
    const struct container *before = filters_has(f, "before") ? runtime_find(c->api->b.runtime, filter_nth(f, "before", 0)) : NULL,
                           *since = filters_has(f, "since") ? runtime_find(c->api->b.runtime, filter_nth(f, "since", 0)) : NULL;
    bool all = query_flag(c, "all") || filters_has(f, "status") || (query(c, "limit") && query(c, "limit")[0] > '0'),
         up = container_is_up(x) || keeper_waits(c->api, x->spec.id);
    return (all || up) && (!before || x->state.created_ns < before->state.created_ns) &&
           (!since || x->state.created_ns > since->state.created_ns) && filter_prefix(f, "id", x->spec.id) &&
           filter_name(f, "name", x->spec.name) && filter_labels(f, "label", &x->spec.labels) &&
           filter_exact(f, "status", container_status(c->api, x)) && filter_exact(f, "health", keeper_health(c->api, x->spec.id)) &&
           (!filters_has(f, "exited") || (x->state.phase == CONTAINER_EXITED && filter_exact(f, "exited", code))) &&
           filter_exact(f, "is-task", container_is_task(x) ? "true" : "false") && on_network(c, f, x) && has_volume(c, f, x) &&
           has_port(c, f, "publish", x) && has_port(c, f, "expose", x) && of_image(c, f, x);
}

static int check_values(struct call *c, const struct filters *f, struct err *e)
{
    static const struct { const char *key, *words; } some[] = {
        { "status", " created restarting running removing paused exited dead " },
        { "health", " none starting healthy unhealthy " }, { "is-task", " true false " },
    };
    const char *x;
    uint64_t n;
    for (unsigned i = 0; i < ARRAY_N(some); i++)
        for (uint32_t k = 0; (x = filter_nth(f, some[i].key, k)); k++) {
            AUTO_FREE char *word = xasprintf(" %s ", x);
            if (!strstr(some[i].words, word))
                return err_set(e, E_INVALID, "invalid filter '%s=%s': it must be one of%s", some[i].key, x, some[i].words);
        }
    for (uint32_t k = 0; (x = filter_nth(f, "exited", k)); k++)
        if (!str_u64(x, 0, 255, &n))
            return err_set(e, E_INVALID, "invalid filter 'exited=%s': an exit code is needed", x);
    for (unsigned i = 0; i < 2; i++)
        if ((x = filter_nth(f, i ? "since" : "before", 0)) && !runtime_find(c->api->b.runtime, x))
            return err_set(e, E_NOT_FOUND, "No such container: %s", x);
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct container *x = *(const struct container *const *)a, *y = *(const struct container *const *)b;
    return x->state.created_ns < y->state.created_ns ? 1 : x->state.created_ns > y->state.created_ns ? -1 : strcmp(x->spec.id, y->spec.id);
}

struct val *container_summary_val(struct call *c, struct val_doc *d, const struct container *x)
{
    char status[160];
    struct val *v = val_map(d), *names = val_list(d), *host = val_map(d), *net = val_map(d);
    AUTO_FREE char *name = xasprintf("/%s", x->spec.name ? x->spec.name : "");
    AUTO_FREE char *command = command_of(x);
    status_text(c->api, status, x);
    val_push(d, names, val_str(d, name));
    val_set(d, v, "Id", val_str(d, x->spec.id));
    val_set(d, v, "Names", names);
    val_set(d, v, "Image", val_str(d, x->spec.image ? x->spec.image : ""));
    val_set(d, v, "ImageID", val_str(d, x->spec.image_id ? x->spec.image_id : ""));
    val_set(d, v, "Command", val_str(d, command));
    val_set(d, v, "Created", val_int(d, x->state.created_ns / SEC_NS));
    val_set(d, v, "Ports", ports_val(c, d, x));
    val_set(d, v, "Labels", labels_val(d, &x->spec.labels));
    val_set(d, v, "State", val_str(d, container_status(c->api, x)));
    val_set(d, v, "Status", val_str(d, status));
    val_set(d, host, "NetworkMode", val_str(d, str_equal(x->spec.netns, "host") ? "host" : x->spec.netns ? "default" : "none"));
    val_set(d, v, "HostConfig", host);
    val_set(d, net, "Networks", networks_val(c, d, x));
    val_set(d, v, "NetworkSettings", net);
    val_set(d, v, "Mounts", mounts_val(c, d, x));
    return v;
}

void container_put_size(const struct api *a, struct val_doc *d, struct val *v, const struct container *x, int64_t own_bytes)
{
    const struct image *image = x->spec.image_id ? image_find(a->b.images, x->spec.image_id) : NULL;
    val_set(d, v, "SizeRw", val_int(d, own_bytes));
    val_set(d, v, "SizeRootFs", val_int(d, own_bytes + (image ? image->size_bytes : 0)));
}

/* ---- with size=1 first how much they take ---- */
struct sizing { struct call *c; struct strs ids; };

static void add_sized(struct sizing *z, struct strs *paths, const struct container *x)
{
    AUTO_FREE char *upper = path_join(x->dir, "upper");
    strs_add(&z->ids, x->spec.id);
    strs_add(paths, upper);
}

static void list_measured(void *arg, const int64_t *sizes /* NULL: not asked for */)
{
    struct sizing *z = arg;
    struct call *c = z->c;
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    for (uint32_t i = 0; i < z->ids.n; i++) {
        const struct container *x = runtime_find(c->api->b.runtime, z->ids.v[i]);
        struct val *v = x ? container_summary_val(c, d, x) : NULL;
        if (v && sizes)
            container_put_size(c->api, d, v, x, sizes[i]);
        if (v)
            val_push(d, list, v);
    }
    strs_clear(&z->ids);
    free(z);
    val_set_root(d, list);
    reply_val(c, 200, d);
}

void container_list(struct call *c)
{
    static const char *const allowed[] = { "id", "name", "label", "status", "ancestor", "health", "exited", "before", "since",
                                           "network", "volume", "publish", "expose", "is-task", NULL };
    struct filters f;
    struct err e;
    uint64_t limit = 0;
    const char *text = query(c, "limit");
    int r = filters_parse(query(c, "filters"), allowed, &f, &e);
    if (r == 0 && (r = check_values(c, &f, &e)) < 0)
        filters_free(&f);
    if (r < 0) {
        reply_err(c, &e);
        return;
    }
    if (text && *text && !str_equal(text, "-1") && !str_u64(text, 0, 1000000, &limit)) {
        filters_free(&f);
        reply_error(c, E_INVALID, "limit: \"%s\" is no number", text);
        return;
    }
    const struct container **found = NULL;
    size_t n = 0;
    for (const struct container *x = NULL; (x = runtime_next(c->api->b.runtime, x));)
        if (shown(c, &f, x)) {
            found = xrealloc(found, n + 1, sizeof *found);
            found[n++] = x;
        }
    if (n)
        qsort(found, n, sizeof *found, newest_first);
    struct sizing *z = xnew(struct sizing);
    struct strs paths = { 0 };
    z->c = c;
    for (size_t i = 0; i < n && (!limit || i < limit); i++)
        add_sized(z, &paths, found[i]);
    free(found);
    filters_free(&f);
    if (query_flag(c, "size")) {
        disk_measure(c->api, &paths, list_measured, z);
        return;
    }
    strs_clear(&paths);
    list_measured(z, NULL);
}

/* ---- one of them ---- */
static struct val *state_val(struct call *c, struct val_doc *d, const struct container *x)
{
    struct val *v = val_map(d), *health = keeper_health_val(c->api, x->spec.id, d);
    bool waits = keeper_restarts(c->api, x), up = container_is_up(x);
    val_set(d, v, "Status", val_str(d, container_status(c->api, x)));
    val_set(d, v, "Running", val_bool(d, up || waits));
    val_set(d, v, "Paused", val_bool(d, x->state.phase == CONTAINER_PAUSED));
    val_set(d, v, "Restarting", val_bool(d, waits));
    val_set(d, v, "OOMKilled", val_bool(d, x->state.oom_killed));
    val_set(d, v, "Dead", val_bool(d, false));
    val_set(d, v, "Pid", val_int(d, up ? x->state.pid : 0));
    val_set(d, v, "ExitCode", val_int(d, x->state.exit_code));
    val_set(d, v, "Error", val_str(d, x->state.error ? x->state.error : ""));
    val_set(d, v, "StartedAt", time_val(d, x->state.started_ns));
    val_set(d, v, "FinishedAt", time_val(d, x->state.finished_ns));
    if (health)
        val_set(d, v, "Health", health);
    return v;
}

static struct val *config_val(struct call *c, struct val_doc *d, const struct container *x, const struct val *asked)
{
    const struct container_spec *s = &x->spec;
    const struct image *image = s->image_id ? image_find(c->api->b.images, s->image_id) : NULL;
    struct val *v = asked ? val_copy(d, asked) : val_map(d);
    val_unset(v, "HostConfig");
    val_unset(v, "NetworkingConfig");
    val_set(d, v, "Hostname", val_str(d, s->hostname ? s->hostname : ""));
    val_set(d, v, "User", val_str(d, s->user ? s->user : ""));
    val_set(d, v, "Tty", val_bool(d, s->tty));
    val_set(d, v, "OpenStdin", val_bool(d, s->open_stdin));
    if (!asked) {
        val_set(d, v, "AttachStdout", val_bool(d, true));
        val_set(d, v, "AttachStderr", val_bool(d, true));
        val_set(d, v, "Cmd", strs_val(d, &s->argv));
    } else {
        const struct val *entry = val_get(v, "Entrypoint"), *cmd = val_get(v, "Cmd");
        bool own = entry && entry->kind == V_LIST && entry->n;
        if (image && !own)
            val_set(d, v, "Entrypoint", image->config.entrypoint.n ? strs_val(d, &image->config.entrypoint) : val_null(d));
        if (image && !own && !(cmd && cmd->kind == V_LIST && cmd->n))
            val_set(d, v, "Cmd", strs_val(d, &image->config.cmd));
    }
    val_set(d, v, "Env", strs_val(d, &s->env));
    val_set(d, v, "Image", val_str(d, s->image ? s->image : ""));
    val_set(d, v, "WorkingDir", val_str(d, s->cwd ? s->cwd : ""));
    val_set(d, v, "Labels", labels_val(d, &s->labels));
    return v;
}

static struct val *host_config_val(struct val_doc *d, const struct container *x, const struct val *asked)
{
    const struct container_spec *s = &x->spec;
    struct val *v = asked && asked->kind == V_MAP ? val_copy(d, asked) : val_map(d);
    const char *mode = val_get_str(asked, "NetworkMode");
    val_set(d, v, "Memory", val_int(d, s->memory_bytes));
    val_set(d, v, "NanoCpus", val_int(d, s->nano_cpus));
    val_set(d, v, "PidsLimit", s->pids_limit ? val_int(d, s->pids_limit) : val_null(d));
    val_set(d, v, "Privileged", val_bool(d, s->privileged));
    val_set(d, v, "ReadonlyRootfs", val_bool(d, s->read_only));
    val_set(d, v, "CapAdd", s->cap_add.n ? strs_val(d, &s->cap_add) : val_null(d));
    val_set(d, v, "CapDrop", s->cap_drop.n ? strs_val(d, &s->cap_drop) : val_null(d));
    val_set(d, v, "OomScoreAdj", val_int(d, s->oom_score_adj));
    val_set(d, v, "NetworkMode", val_str(d, mode && *mode ? mode : str_equal(s->netns, "host") ? "host" : s->netns ? "default" : "none"));
    if (!val_get_str(val_get(v, "RestartPolicy"), "Name")) {
        struct val *policy = val_map(d);
        val_set(d, policy, "Name", val_str(d, "no"));
        val_set(d, policy, "MaximumRetryCount", val_int(d, 0));
        val_set(d, v, "RestartPolicy", policy);
    }
    const char *driver = val_get_str(val_get(asked, "LogConfig"), "Type");
    const struct val *options = val_get(val_get(asked, "LogConfig"), "Config");
    struct val *log = val_map(d);
    val_set(d, log, "Type", val_str(d, driver && *driver ? driver : "json-file"));
    val_set(d, log, "Config", options && options->kind == V_MAP ? val_copy(d, options) : val_map(d));
    val_set(d, v, "LogConfig", log);
    return v;
}

/* "80/tcp": [{HostIp, HostPort}], null for a port that is only exposed. */
static struct val *bindings_val(struct call *c, struct val_doc *d, const struct container *x, const struct val *asked)
{
    struct val *m = val_map(d);
    const struct val *exposed = val_get(asked, "ExposedPorts");
    const struct image *image = x->spec.image_id ? image_find(c->api->b.images, x->spec.image_id) : NULL;
    const struct sandbox *s = container_is_up(x) ? sandbox_of(c->api, x) : NULL;
    if (!s)
        return m;
    for (uint32_t i = 0; image && i < image->config.exposed_ports.n; i++)
        val_set(d, m, image->config.exposed_ports.v[i], val_null(d));
    for (uint32_t i = 0; exposed && exposed->kind == V_MAP && i < exposed->n; i++)
        val_set(d, m, exposed->map[i].key->s, val_null(d));
    for (uint32_t i = 0; i < s->ports.n; i++) {
        char key[32], port[16];
        snprintf(key, sizeof key, "%u/%s", (unsigned)s->ports.v[i].target, port_words[s->ports.v[i].protocol]);
        snprintf(port, sizeof port, "%u", (unsigned)s->ports.v[i].published);
        struct val *one = val_map(d), *list = val_get(m, key);
        if (!list || list->kind != V_LIST)
            val_set(d, m, key, list = val_list(d));
        val_set(d, one, "HostIp", val_str(d, "0.0.0.0"));
        val_set(d, one, "HostPort", val_str(d, port));
        val_push(d, list, one);
    }
    return m;
}

static struct val *network_settings_val(struct call *c, struct val_doc *d, const struct container *x, const struct val *asked)
{
    struct val *v = val_map(d), *networks = networks_val(c, d, x), *bridge = val_get(networks, "bridge");
    const char *ip = val_get_str(bridge, "IPAddress");
    val_set(d, v, "SandboxID", val_str(d, x->spec.netns && !str_equal(x->spec.netns, "host") ? x->spec.id : ""));
    val_set(d, v, "SandboxKey", val_str(d, x->spec.netns && !str_equal(x->spec.netns, "host") ? x->spec.netns : ""));
    val_set(d, v, "Ports", bindings_val(c, d, x, asked));
    val_set(d, v, "IPAddress", val_str(d, ip ? ip : ""));
    val_set(d, v, "IPPrefixLen", val_int(d, val_get_int(bridge, "IPPrefixLen", 0)));
    val_set(d, v, "Gateway", val_str(d, ""));
    val_set(d, v, "MacAddress", val_str(d, ""));
    val_set(d, v, "Networks", networks);
    return v;
}

static void reply_inspected(struct call *c, const struct container *x, const int64_t *size)
{
    const struct container_spec *s = &x->spec;
    struct val_doc *d = val_doc_new(), *kept = container_asked(x);
    const struct val *asked = kept ? val_root(kept) : NULL;
    struct val *v = val_map(d), *rest = val_list(d), *driver = val_map(d), *layers = val_map(d);
    AUTO_FREE char *name = xasprintf("/%s", s->name ? s->name : "");
    AUTO_FREE char *log = path_join(x->dir, "log.json"), *upper = path_join(x->dir, "upper");
    val_set_root(d, v);
    for (uint32_t i = 1; i < s->argv.n; i++)
        val_push(d, rest, val_str(d, s->argv.v[i]));
    val_set(d, v, "Id", val_str(d, s->id));
    val_set(d, v, "Created", time_val(d, x->state.created_ns));
    val_set(d, v, "Path", val_str(d, s->argv.n ? s->argv.v[0] : ""));
    val_set(d, v, "Args", rest);
    val_set(d, v, "State", state_val(c, d, x));
    val_set(d, v, "Image", val_str(d, s->image_id ? s->image_id : ""));
    val_set(d, v, "Name", val_str(d, name));
    val_set(d, v, "LogPath", val_str(d, log));
    val_set(d, v, "RestartCount", val_int(d, (int64_t)x->notes.restarts));
    val_set(d, v, "Driver", val_str(d, "overlayfs"));
    val_set(d, v, "Platform", val_str(d, "linux"));
    val_set(d, v, "MountLabel", val_str(d, ""));
    val_set(d, v, "ProcessLabel", val_str(d, ""));
    val_set(d, v, "AppArmorProfile", val_str(d, ""));
    val_set(d, v, "ExecIDs", exec_ids_val(c->api, s->id, d));
    val_set(d, layers, "UpperDir", val_str(d, upper));
    val_set(d, driver, "Name", val_str(d, "overlayfs"));
    val_set(d, driver, "Data", layers);
    val_set(d, v, "GraphDriver", driver);
    val_set(d, v, "Mounts", mounts_val(c, d, x));
    val_set(d, v, "Config", config_val(c, d, x, asked));
    val_set(d, v, "HostConfig", host_config_val(d, x, val_get(asked, "HostConfig")));
    val_set(d, v, "NetworkSettings", network_settings_val(c, d, x, asked));
    if (size)
        container_put_size(c->api, d, v, x, *size);
    val_doc_free(kept);
    reply_val(c, 200, d);
}

static void inspected_measured(void *arg, const int64_t *sizes)
{
    struct sizing *z = arg;
    struct call *c = z->c;
    const struct container *x = runtime_find(c->api->b.runtime, z->ids.v[0]);
    if (x)
        reply_inspected(c, x, sizes);
    else
        reply_error(c, E_NOT_FOUND, "No such container: %s", c->param[0]);
    strs_clear(&z->ids);
    free(z);
}

void container_inspect(struct call *c)
{
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    if (!query_flag(c, "size")) {
        reply_inspected(c, x, NULL);
        return;
    }
    struct sizing *z = xnew(struct sizing);
    struct strs paths = { 0 };
    z->c = c;
    add_sized(z, &paths, x);
    disk_measure(c->api, &paths, inspected_measured, z);
}
