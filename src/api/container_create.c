/* POST /containers/create: Docker's Config and HostConfig become a container specification. A member that is not
 * built is refused by name when it asks for something; empty ones are what clients always send. */
#include "api_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>

struct creation { struct call *c; struct container_spec spec; struct sandbox sandbox; bool host, none; };

static bool asks_nothing(const struct val *v)
{
    switch (v->kind) {
    case V_NULL: return true;
    case V_BOOL: return !v->b;
    case V_INT: return v->i == 0 || v->i == -1;
    case V_UINT: return false;
    case V_REAL: return v->r == 0;
    case V_STR: return v->n == 0;
    default: break;
    }
    for (uint32_t i = 0; i < v->n; i++)
        if (v->kind == V_LIST || !asks_nothing(v->map[i].value))
            return false;
    return true;
}

static bool listed(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (str_equal(*names, name))
            return true;
    return false;
}

static int check_known(const struct val *m, const char *where, const char *const *built, struct err *e)
{
    for (uint32_t i = 0; m && m->kind == V_MAP && i < m->n; i++)
        if (!listed(built, m->map[i].key->s) && !asks_nothing(m->map[i].value))
            return err_set(e, E_UNSUPPORTED, "%s%s: not built yet; leave it out", where, m->map[i].key->s);
    return 0;
}

static int check_all(const struct val *body, struct err *e)
{
    static const char *const config[] = {
        "Hostname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce", "Env", "Cmd",
        "Image", "WorkingDir", "Entrypoint", "Labels", "StopSignal", "StopTimeout", "HostConfig", "NetworkingConfig",
        "ExposedPorts", "Volumes", "OnBuild", "Healthcheck", NULL };
    static const char *const host[] = {
        "Binds", "Mounts", "Memory", "NanoCpus", "PidsLimit", "ReadonlyRootfs", "CapAdd", "CapDrop", "Privileged", "Init",
        "AutoRemove", "NetworkMode", "PortBindings", "RestartPolicy", "SecurityOpt", "Tmpfs", "Ulimits", "Sysctls",
        "OomScoreAdj", "LogConfig", "GroupAdd", "Dns", "ConsoleSize", "CgroupnsMode", "IpcMode", "MemorySwap", NULL };
    const struct val *h = val_get(body, "HostConfig");
    int r = check_known(body, "", config, e);
    if (r == 0)
        r = check_known(h, "HostConfig.", host, e);
    if (r == 0)
        r = restart_policy_check(val_get(h, "RestartPolicy"), e);
    const char *restart = val_get_str(val_get(h, "RestartPolicy"), "Name");
    if (r == 0 && val_get_bool(h, "AutoRemove", false) && restart && *restart && !str_equal(restart, "no"))
        r = err_set(e, E_INVALID, "can't create 'AutoRemove' container with restart policy");
    const char *ipc = val_get_str(h, "IpcMode"), *cg = val_get_str(h, "CgroupnsMode");
    if (r == 0 && ipc && *ipc && !str_equal(ipc, "private") && !str_equal(ipc, "shareable"))
        r = err_set(e, E_UNSUPPORTED, "HostConfig.IpcMode: \"%s\" is not built; leave it out", ipc);
    if (r == 0 && cg && *cg && !str_equal(cg, "private"))
        r = err_set(e, E_UNSUPPORTED, "HostConfig.CgroupnsMode: \"%s\" is not built; leave it out", cg);
    return r;
}

int container_check_update(const struct val *body, struct err *e)
{
    static const char *const can[] = { "Memory", "MemorySwap", "NanoCpus", "CpuQuota", "CpuPeriod", "PidsLimit", "RestartPolicy", NULL };
    return body && body->kind == V_MAP ? check_known(body, "", can, e) : err_set(e, E_INVALID, "request body: an object is needed");
}

/* What has a memory limit never swaps. */
int container_check_swap(const struct val *host, int64_t memory_bytes, struct err *e)
{
    int64_t both = val_get_int(host, "MemorySwap", 0);
    if (!both || both == memory_bytes || (both == -1 && !memory_bytes))
        return 0;
    if (both > 0 && both < memory_bytes)
        return err_set(e, E_INVALID, "MemorySwap: it must not be less than Memory");
    if (both > 0 && !memory_bytes)
        return err_set(e, E_INVALID, "MemorySwap: it needs a limit of the Memory, too");
    return err_set(e, E_UNSUPPORTED, "MemorySwap: swap beside a memory limit is not built; leave it out, or as large as Memory");
}

static int check_health(const struct val *v, struct err *e)
{
    struct healthcheck h = { 0 };
    int r = v && v->kind == V_MAP ? rec_from_val(&healthcheck_rec, &h, v, "Healthcheck", e) : 0;
    static const char *const kinds[] = { "NONE", "CMD", "CMD-SHELL", NULL };
    if (r == 0 && h.test.n && *h.test.v[0] && !listed(kinds, h.test.v[0]))
        r = err_set(e, E_INVALID, "Healthcheck.Test: \"%s\" must be NONE, CMD or CMD-SHELL", h.test.v[0]);
    healthcheck_clear(&h);
    return r;
}

static int labels_from(struct labels *ret, const struct val *v, const char *path, struct err *e)
{
    for (uint32_t i = 0; v && v->kind == V_MAP && i < v->n; i++) {
        if (v->map[i].value->kind != V_STR)
            return err_set(e, E_INVALID, "%s.%s: a string is needed", path, v->map[i].key->s);
        labels_set(ret, v->map[i].key->s, v->map[i].value->s);
    }
    return 0;
}

static int command(const struct val *body, const struct image *image, struct strs *argv, struct err *e)
{
    struct strs entry = { 0 }, cmd = { 0 };
    int r = strs_from_val(&entry, val_get(body, "Entrypoint"), "Entrypoint", e);
    if (r == 0)
        r = strs_from_val(&cmd, val_get(body, "Cmd"), "Cmd", e);
    bool own = entry.n > 0;
    const struct strs *lists[] = { own ? &entry : &image->config.entrypoint, cmd.n ? &cmd : own ? NULL : &image->config.cmd };
    for (unsigned l = 0; r == 0 && l < 2; l++)
        for (uint32_t i = 0; lists[l] && i < lists[l]->n; i++)
            if (!(own && l == 0 && !*lists[l]->v[i])) /* --entrypoint "" clears it */
                strs_add(argv, lists[l]->v[i]);
    strs_clear(&entry);
    strs_clear(&cmd);
    return r;
}

static int bind_options(struct container_mount *m, char *options, bool is_path, const char *text, struct err *e)
{
    static const char *const propagation[] = { "private", "rprivate", "shared", "rshared", "slave", "rslave" };
    char *save;
    for (char *o = strtok_r(options, ",", &save); o; o = strtok_r(NULL, ",", &save)) {
        bool known = str_equal(o, "ro") || str_equal(o, "rw");
        m->read_only |= str_equal(o, "ro");
        for (unsigned i = 0; i < ARRAY_N(propagation) && is_path; i++)
            if (str_equal(o, propagation[i])) {
                known = !m->propagation;
                str_set(&m->propagation, o);
            }
        if (!known)
            return err_set(e, E_UNSUPPORTED, "HostConfig.Binds: option \"%s\" of \"%s\" is not built; ro, rw and, of a path, one of "
                           "[r]private, [r]shared and [r]slave are", o, text);
    }
    return 0;
}

/* "SOURCE:TARGET[:OPTION,...]"; SOURCE a path or a volume's name. */
static int add_bind(struct creation *x, const char *text, struct err *e)
{
    char source[4096], target[4096], options[64] = "";
    const char *colon = strchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof source)
        return err_set(e, E_INVALID, "HostConfig.Binds: \"%s\" must be SOURCE:TARGET[:OPTION,...]", text);
    snprintf(source, sizeof source, "%.*s", (int)(colon - text), text);
    const char *second = strchr(colon + 1, ':');
    snprintf(target, sizeof target, "%.*s", (int)(second ? second - colon - 1 : (long)strlen(colon + 1)), colon + 1);
    if (second)
        snprintf(options, sizeof options, "%s", second + 1);
    if (target[0] != '/')
        return err_set(e, E_INVALID, "HostConfig.Binds: target of \"%s\" must be absolute", text);
    struct container_mount *m = REC_ADD(&x->spec.mounts);
    if (bind_options(m, options, source[0] == '/', text, e) < 0)
        return -e->code;
    str_set(&m->target, target);
    if (source[0] == '/') {
        str_set(&m->source, source);
        return file_exists(source) ? 0 : file_mkdirs(source, 0755, e);
    }
    AUTO_FREE char *path = api_volume_path(x->c->api, source, true, e);
    m->fill = true;
    str_set(&m->source, path);
    return path ? 0 : -e->code;
}

static int add_mount(struct creation *x, const struct val *v, struct err *e)
{
    struct mount m = { 0 };
    int r = rec_from_val(&mount_rec, &m, v, "HostConfig.Mounts[]", e);
    if (r < 0)
        return r;
    struct container_mount *out = REC_ADD(&x->spec.mounts);
    str_set(&out->target, m.target);
    out->read_only = m.read_only;
    if (m.type == MOUNT_TMPFS) {
        out->type = CONTAINER_TMPFS;
        out->tmpfs_bytes = m.tmpfs ? m.tmpfs->size_bytes : 0;
        out->tmpfs_mode = m.tmpfs ? m.tmpfs->mode : 0;
    } else if (m.type == MOUNT_VOLUME) {
        char name[65];
        id_random_hex(name);
        AUTO_FREE char *path = api_volume_path(x->c->api, m.source ? m.source : name, true, e);
        out->fill = true;
        out->anonymous = !m.source;
        str_set(&out->source, path);
        r = path ? 0 : -e->code;
    } else if (m.type == MOUNT_BIND) {
        str_set(&out->source, m.source);
        str_set(&out->propagation, m.bind ? m.bind->propagation : NULL);
        out->non_recursive = m.bind && m.bind->non_recursive;
        if (!m.source || !file_exists(m.source))
            r = err_set(e, E_INVALID, "invalid mount config for type \"bind\": bind source path does not exist: %s", m.source ? m.source : "");
    } else {
        r = err_set(e, E_UNSUPPORTED, "HostConfig.Mounts[]: type %s is not built", mount_type_names[m.type]);
    }
    mount_clear(&m);
    return r;
}

/* "/a//b/../c/" as "/a/c". */
static char *clean_path(const char *path)
{
    char *clean = xcalloc(1, strlen(path) + 2), *end = clean;
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && strncmp(p, "..", n) == 0) {
            while (end > clean && *--end != '/')
                ;
        } else if (n && !(n == 1 && *p == '.')) {
            *end++ = '/';
            memcpy(end, p, n);
            end += n;
        }
        p += n + strspn(p + n, "/");
    }
    if (end == clean)
        *end++ = '/';
    *end = '\0';
    return clean;
}

/* Of two with one target the first would never be seen; or worse, where it is shared, the second would hide it on the host. */
static int check_targets(struct creation *x, struct err *e)
{
    for (uint32_t i = 0; i < x->spec.mounts.n; i++) {
        struct container_mount *m = &x->spec.mounts.v[i];
        if (m->target[0] != '/')
            return err_set(e, E_INVALID, "mount target \"%s\" must be absolute", m->target);
        AUTO_FREE char *target = clean_path(m->target);
        str_set(&m->target, target);
        for (uint32_t k = 0; k < i; k++) {
            const char *other = x->spec.mounts.v[k].source;
            if (str_equal(x->spec.mounts.v[k].target, target))
                return err_set(e, E_INVALID, "Duplicate mount point: %s is the target of %s and of %s; name another for one of them",
                               target, other ? other : "a tmpfs", m->source ? m->source : "a tmpfs");
        }
    }
    return 0;
}

/* A volume without a name, where nothing else is mounted. */
static int add_anonymous(struct creation *x, const char *asked, struct err *e)
{
    char name[65];
    AUTO_FREE char *target = clean_path(asked);
    for (uint32_t k = 0; k < x->spec.mounts.n; k++)
        if (str_equal(x->spec.mounts.v[k].target, target))
            return 0;
    if (asked[0] != '/')
        return err_set(e, E_INVALID, "Volumes: \"%s\" must be an absolute path", asked);
    id_random_hex(name);
    AUTO_FREE char *path = api_volume_path(x->c->api, name, true, e);
    struct container_mount *m = REC_ADD(&x->spec.mounts);
    m->fill = m->anonymous = true;
    str_set(&m->source, path);
    str_set(&m->target, target);
    return path ? 0 : -e->code;
}

static int storage(struct creation *x, const struct val *body, const struct val *h, const struct image *image, struct err *e)
{
    const struct val *binds = val_get(h, "Binds"), *mounts = val_get(h, "Mounts"), *tmpfs = val_get(h, "Tmpfs");
    int r = 0;
    for (uint32_t i = 0; binds && binds->kind == V_LIST && i < binds->n && r == 0; i++)
        r = binds->list[i]->kind == V_STR ? add_bind(x, binds->list[i]->s, e)
                                          : err_set(e, E_INVALID, "HostConfig.Binds[%u]: a string is needed", i);
    for (uint32_t i = 0; mounts && mounts->kind == V_LIST && i < mounts->n && r == 0; i++)
        r = add_mount(x, mounts->list[i], e);
    for (uint32_t i = 0; tmpfs && tmpfs->kind == V_MAP && i < tmpfs->n && r == 0; i++) {
        struct container_mount *m = REC_ADD(&x->spec.mounts);
        m->type = CONTAINER_TMPFS;
        str_set(&m->target, tmpfs->map[i].key->s);
        if (tmpfs->map[i].value->kind == V_STR && tmpfs->map[i].value->n)
            r = err_set(e, E_UNSUPPORTED, "HostConfig.Tmpfs: options are not built; use --mount type=tmpfs");
    }
    if (r == 0)
        r = check_targets(x, e);
    const struct val *volumes = val_get(body, "Volumes");
    for (uint32_t i = 0; volumes && volumes->kind == V_MAP && i < volumes->n && r == 0; i++)
        r = add_anonymous(x, volumes->map[i].key->s, e);
    for (uint32_t i = 0; i < image->config.volumes.n && r == 0; i++)
        r = add_anonymous(x, image->config.volumes.v[i], e);
    container_mounts_sort(&x->spec);
    return r;
}

static int security(struct creation *x, const struct val *h, struct err *e)
{
    struct strs opts = { 0 };
    int r = strs_from_val(&opts, val_get(h, "SecurityOpt"), "HostConfig.SecurityOpt", e);
    for (uint32_t i = 0; i < opts.n && r == 0; i++) {
        const char *o = opts.v[i];
        if (str_equal(o, "no-new-privileges") || str_equal(o, "no-new-privileges:true") || str_equal(o, "no-new-privileges=true"))
            x->spec.no_new_privs = true;
        else if (str_equal(o, "seccomp=unconfined") || str_equal(o, "seccomp:unconfined"))
            str_set(&x->spec.seccomp, "unconfined");
        else
            r = err_set(e, E_UNSUPPORTED, "HostConfig.SecurityOpt: \"%s\" is not built", o);
    }
    strs_clear(&opts);
    return r;
}

/* "80/tcp": [{"HostPort":"8080"}] */
static int ports(struct creation *x, const struct val *h, struct err *e)
{
    const struct val *m = val_get(h, "PortBindings");
    for (uint32_t i = 0; m && m->kind == V_MAP && i < m->n; i++) {
        const char *key = m->map[i].key->s, *slash = strchr(key, '/');
        const struct val *l = m->map[i].value;
        AUTO_FREE char *number = xstrndup(key, slash ? (size_t)(slash - key) : strlen(key));
        uint64_t target, published;
        for (uint32_t k = 0; l->kind == V_LIST && k < l->n; k++) {
            const char *host = val_get_str(l->list[k], "HostPort"), *ip = val_get_str(l->list[k], "HostIp");
            if (!str_u64(number, 1, 65535, &target) || !host || !str_u64(host, 1, 65535, &published))
                return err_set(e, E_UNSUPPORTED, "HostConfig.PortBindings: %s needs a fixed HostPort", key);
            if (ip && *ip && !str_equal(ip, "0.0.0.0"))
                return err_set(e, E_UNSUPPORTED, "HostConfig.PortBindings: HostIp %s is not built; leave it out", ip);
            struct port *p = REC_ADD(&x->sandbox.ports);
            p->target = target;
            p->published = published;
            p->mode = PUBLISH_HOST;
            p->protocol = slash && str_equal(slash, "/udp") ? PROTO_UDP : slash && str_equal(slash, "/sctp") ? PROTO_SCTP : PROTO_TCP;
        }
    }
    return 0;
}

static int network(struct creation *x, const struct val *h, struct err *e)
{
    const char *mode = val_get_str(h, "NetworkMode");
    x->host = str_equal(mode, "host");
    x->none = str_equal(mode, "none");
    if (mode && *mode && !x->host && !x->none && !str_equal(mode, "default") && !str_equal(mode, "bridge"))
        return err_set(e, E_UNSUPPORTED, "HostConfig.NetworkMode: \"%s\" is not built for single containers; use bridge, host or "
                       "none, or a service for overlay networks", mode);
    int r = strs_from_val(&x->sandbox.nameservers, val_get(h, "Dns"), "HostConfig.Dns", e);
    return r < 0 ? r : ports(x, h, e);
}

static int limits(struct creation *x, const struct val *h, struct err *e)
{
    struct container_spec *s = &x->spec;
    const struct val *u = val_get(h, "Ulimits");
    s->memory_bytes = MAX(val_get_int(h, "Memory", 0), 0);
    s->nano_cpus = MAX(val_get_int(h, "NanoCpus", 0), 0);
    s->pids_limit = MAX(val_get_int(h, "PidsLimit", 0), 0);
    s->oom_score_adj = val_get_int(h, "OomScoreAdj", 0);
    s->read_only = val_get_bool(h, "ReadonlyRootfs", false);
    s->privileged = val_get_bool(h, "Privileged", false);
    s->init = val_get_bool(h, "Init", false);
    for (uint32_t i = 0; u && u->kind == V_LIST && i < u->n; i++) {
        struct container_ulimit *l = REC_ADD(&s->ulimits);
        str_set(&l->name, val_get_str(u->list[i], "Name"));
        l->soft = val_get_int(u->list[i], "Soft", -1);
        l->hard = val_get_int(u->list[i], "Hard", -1);
    }
    int r = container_check_swap(h, s->memory_bytes, e);
    if (r == 0)
        r = strs_from_val(&s->cap_add, val_get(h, "CapAdd"), "HostConfig.CapAdd", e);
    if (r == 0)
        r = strs_from_val(&s->cap_drop, val_get(h, "CapDrop"), "HostConfig.CapDrop", e);
    if (r == 0)
        r = strs_from_val(&s->groups, val_get(h, "GroupAdd"), "HostConfig.GroupAdd", e);
    if (r == 0)
        r = labels_from(&s->sysctls, val_get(h, "Sysctls"), "HostConfig.Sysctls", e);
    return r;
}

static int log_config(struct container_spec *s, const struct val *v, struct err *e)
{
    struct labels options = { 0 };
    int r = labels_from(&options, val_get(v, "Config"), "HostConfig.LogConfig.Config", e);
    if (r == 0)
        r = container_log(s, val_get_str(v, "Type"), &options, "HostConfig.LogConfig", e);
    labels_clear(&options);
    return r;
}

static void add_file(struct container_spec *s, const char *path, const char *text)
{
    struct container_file *f = REC_ADD(&s->files);
    str_set(&f->path, path);
    f->mode = 0644;
    f->data = (struct bytes){ xmemdup(text, strlen(text)), (uint32_t)strlen(text) };
}

static void name_files(struct creation *x, const char *gateway_addr)
{
    struct container_spec *s = &x->spec;
    AUTO_FREE char *hosts = xasprintf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%.*s\t%s\n",
                                      gateway_addr ? (int)strcspn(gateway_addr, "/") : 9,
                                      gateway_addr ? gateway_addr : "127.0.0.1", s->hostname);
    AUTO_FREE char *name = xasprintf("%s\n", s->hostname);
    add_file(s, "/etc/hosts", hosts);
    add_file(s, "/etc/hostname", name);
    if (!x->host)
        add_file(s, "/etc/resolv.conf", "nameserver 127.0.0.11\noptions ndots:0\n");
}

static int fill(struct creation *x, const struct val *body, const struct image *image, struct err *e)
{
    struct container_spec *s = &x->spec;
    const struct val *h = val_get(body, "HostConfig");
    const char *host = val_get_str(body, "Hostname"), *cwd = val_get_str(body, "WorkingDir"), *user = val_get_str(body, "User"),
               *stop = val_get_str(body, "StopSignal");
    char id[65], short_id[13];
    id_random_hex(id);
    snprintf(short_id, sizeof short_id, "%.12s", id);
    str_set(&s->id, id);
    str_set(&s->image, val_get_str(body, "Image"));
    str_set(&s->image_id, image->id);
    str_set(&s->hostname, host && *host ? host : short_id);
    str_set(&s->cwd, cwd && *cwd ? cwd : image->config.working_dir);
    str_set(&s->user, user && *user ? user : image->config.user);
    str_set(&s->stop_signal, stop && *stop ? stop : image->config.stop_signal);
    s->stop_grace_ns = val_get_int(body, "StopTimeout", 0) * SEC_NS;
    s->tty = val_get_bool(body, "Tty", false);
    s->open_stdin = val_get_bool(body, "OpenStdin", false);
    for (uint32_t i = 0; i < image->layer_dirs.n; i++)
        strs_add(&s->lower_dirs, image->layer_dirs.v[i]);
    for (uint32_t i = 0; i < image->config.env.n; i++)
        strs_add(&s->env, image->config.env.v[i]);
    for (uint32_t i = 0; i < image->config.labels.n; i++)
        labels_set(&s->labels, image->config.labels.v[i].key, image->config.labels.v[i].value);
    int r = check_all(body, e);
    if (r == 0)
        r = check_health(val_get(body, "Healthcheck"), e);
    if (r == 0)
        r = command(body, image, &s->argv, e);
    if (r == 0)
        r = strs_from_val(&s->env, val_get(body, "Env"), "Env", e);
    if (r == 0)
        r = labels_from(&s->labels, val_get(body, "Labels"), "Labels", e);
    if (r == 0)
        r = limits(x, h, e);
    if (r == 0)
        r = log_config(s, val_get(h, "LogConfig"), e);
    if (r == 0)
        r = security(x, h, e);
    if (r == 0)
        r = storage(x, body, h, image, e);
    if (r == 0)
        r = network(x, h, e);
    return r;
}

static void creation_free(struct creation *x)
{
    container_spec_clear(&x->spec);
    rec_clear(&sandbox_rec, &x->sandbox);
    free(x);
}

static void created(void *arg, int result, const struct err *e)
{
    struct creation *x = arg;
    struct call *c = x->c;
    char json[128];
    if (result < 0) {
        overlay_sandbox_remove(c->api->b.overlay(c->api->b.arg), x->spec.id);
        reply_err(c, e);
    } else {
        snprintf(json, sizeof json, "{\"Id\":\"%s\",\"Warnings\":[]}\n", x->spec.id);
        reply_json(c, 201, json);
    }
    creation_free(x);
}

int container_network_again(struct api *a, const struct container *k, struct err *e)
{
    struct call c = { .api = a };
    struct creation x = { .c = &c };
    const char *netns = NULL;
    if (!k->spec.netns || str_equal(k->spec.netns, "host"))
        return 0;
    if (overlay_sandbox(a->b.overlay(a->b.arg), k->spec.id))
        return overlay_sandbox_wake(a->b.overlay(a->b.arg), k->spec.id, e);
    struct val_doc *d = container_asked(k);
    str_set(&x.sandbox.id, k->spec.id);
    int r = network(&x, d ? val_get(val_root(d), "HostConfig") : NULL, e);
    if (r == 0)
        r = overlay_sandbox_add(a->b.overlay(a->b.arg), &x.sandbox, &netns, e);
    if (r == 0 && !str_equal(netns, k->spec.netns)) {
        overlay_sandbox_remove(a->b.overlay(a->b.arg), k->spec.id);
        r = err_set(e, E_CONFLICT, "container %.12s was made under another --run folder; make it again", k->spec.id);
    }
    val_doc_free(d);
    rec_clear(&sandbox_rec, &x.sandbox);
    return r;
}

static void create_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct err e = { 0 };
    const char *ref = val_get_str(body, "Image"), *name = query(c, "name"), *netns = NULL;
    const struct image *image = ref ? image_find(c->api->b.images, ref) : NULL;
    (void)size;
    if (!ref || !*ref) {
        reply_error(c, E_INVALID, "Image: no image is named");
        return;
    }
    if (!image) { /* clients pull on this very answer */
        reply_error(c, E_NOT_FOUND, "No such image: %s", ref);
        return;
    }
    struct creation *x = xnew(struct creation);
    x->c = c;
    int r = name && *name && check_name(*name == '/' ? name + 1 : name)
                ? err_set(&e, E_INVALID, "name \"%s\": %s", name, check_name(name)) : 0;
    if (r == 0)
        r = fill(x, body, image, &e);
    AUTO_FREE char *own = xasprintf("shoal_%.10s", x->spec.id ? x->spec.id : "");
    str_set(&x->spec.name, name && *name ? (*name == '/' ? name + 1 : name) : own);
    if (r == 0 && !x->host && !x->none) {
        str_set(&x->sandbox.id, x->spec.id);
        x->sandbox.idle = true; /* until it starts */
        r = overlay_sandbox_add(c->api->b.overlay(c->api->b.arg), &x->sandbox, &netns, &e);
    }
    if (r < 0) {
        creation_free(x);
        reply_err(c, &e);
        return;
    }
    const struct sandbox *s = netns ? overlay_sandbox(c->api->b.overlay(c->api->b.arg), x->spec.id) : NULL;
    str_set(&x->spec.netns, x->host ? "host" : netns);
    str_set(&x->spec.asked, text);
    name_files(x, s ? s->gateway_addr : NULL);
    runtime_create(c->api->b.runtime, &x->spec, created, x);
}

void container_create(struct call *c)
{
    with_body(c, create_body);
}
