/* From a task and its image to a container: command, environment, mounts, secrets, limits. Docker's rules: a
 * Command replaces the entrypoint and drops the image's command; Args replace the command; the environment of the
 * task wins over the image's. */
#include "executor_internal.h"
#include <shoal/base/crypto.h>
#include <stdio.h>

static void add_all(struct strs *to, const struct strs *from)
{
    for (uint32_t i = 0; i < from->n; i++)
        strs_add(to, from->v[i]);
}

static void command(const struct container_spec_model *c, const struct image_config *img, struct strs *argv)
{
    add_all(argv, c->command.n ? &c->command : &img->entrypoint);
    if (c->args.n)
        add_all(argv, &c->args);
    else if (!c->command.n)
        add_all(argv, &img->cmd);
}

static int environment(const struct container_spec_model *c, const struct image_config *img,
                       const struct template_context *t, struct strs *env, struct err *e)
{
    add_all(env, &img->env);
    for (uint32_t i = 0; i < c->env.n; i++) {
        char *v;
        int r = template_expand(c->env.v[i], t, &v, e);
        if (r < 0)
            return err_wrap(e, "Env");
        strs_add(env, v);
        free(v);
    }
    return 0;
}

static void add_file(struct container_spec *s, const char *path, const void *p, size_t size, uint32_t mode)
{
    struct container_file *f = REC_ADD(&s->files);
    str_set(&f->path, path);
    f->mode = mode;
    f->data = (struct bytes){ xmemdup(p, size), (uint32_t)size };
}

static void add_text(struct container_spec *s, const char *path, struct sb *text)
{
    add_file(s, path, text->s, text->len, 0644);
    sb_done(text);
}

static void name_files(const struct task *t, struct container_spec *s)
{
    const struct container_spec_model *c = t->spec.container;
    struct sb hosts, resolv, name;
    sb_init(&hosts, 0);
    sb_str(&hosts, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (uint32_t i = 0; i < t->attachments.n; i++) {
        const struct strs *a = &t->attachments.v[i].addresses;
        if (a->n && !str_equal(t->attachments.v[i].network.spec.name, "ingress"))
            sb_printf(&hosts, "%.*s\t%s\n", (int)strcspn(a->v[0], "/"), a->v[0], s->hostname);
    }
    for (uint32_t i = 0; i < c->hosts.n; i++) /* "address name..." as in the file */
        sb_printf(&hosts, "%s\n", c->hosts.v[i]);
    add_text(s, "/etc/hosts", &hosts);
    sb_init(&resolv, 0);
    for (uint32_t i = 0; c->dns && i < c->dns->search.n; i++)
        sb_printf(&resolv, "%s%s", i ? " " : "search ", c->dns->search.v[i]);
    if (c->dns && c->dns->search.n)
        sb_char(&resolv, '\n');
    sb_str(&resolv, "nameserver 127.0.0.11\noptions ndots:0");
    for (uint32_t i = 0; c->dns && i < c->dns->options.n; i++)
        sb_printf(&resolv, " %s", c->dns->options.v[i]);
    sb_char(&resolv, '\n');
    add_text(s, "/etc/resolv.conf", &resolv);
    sb_init(&name, 0);
    sb_printf(&name, "%s\n", s->hostname);
    add_text(s, "/etc/hostname", &name);
}

/* Target of a secret or config: absolute, or below the folder where its kind belongs. */
static int place(const struct file_target *f, const char *folder, const char *name, struct container_file *out, struct err *e)
{
    uint64_t id;
    const char *target = f && f->name ? f->name : name;
    AUTO_FREE char *path = target[0] == '/' ? xstrdup(target) : xasprintf("%s/%s", folder, target);
    str_set(&out->path, path);
    out->mode = f && f->mode ? (uint32_t)f->mode : 0444;
    if (f && f->uid) {
        if (!str_u64(f->uid, 0, 4294967294u, &id))
            return err_set(e, E_INVALID, "%s: owner \"%s\" must be a number", name, f->uid);
        out->uid = id;
    }
    if (f && f->gid) {
        if (!str_u64(f->gid, 0, 4294967294u, &id))
            return err_set(e, E_INVALID, "%s: group \"%s\" must be a number", name, f->gid);
        out->gid = id;
    }
    return 0;
}

static int secrets_and_configs(const struct container_spec_model *c, const struct assignment *a, struct container_spec *s,
                               struct err *e)
{
    for (uint32_t i = 0; i < c->secrets.n; i++) {
        const struct secret_ref *ref = &c->secrets.v[i];
        const struct secret *o = NULL;
        for (uint32_t k = 0; k < a->secrets.n && !o; k++)
            o = str_equal(a->secrets.v[k].id, ref->id) ? &a->secrets.v[k] : NULL;
        if (!o)
            return err_set(e, E_UNAVAILABLE, "secret %s has not reached this node", ref->name ? ref->name : ref->id);
        struct container_file *f = REC_ADD(&s->files);
        f->secret = true;
        f->data = (struct bytes){ xmemdup(o->spec.data.v, o->spec.data.n), o->spec.data.n };
        int r = place(ref->file, "/run/secrets", ref->name ? ref->name : o->spec.name, f, e);
        if (r < 0)
            return r;
    }
    for (uint32_t i = 0; i < c->configs.n; i++) {
        const struct config_ref *ref = &c->configs.v[i];
        const struct config *o = NULL;
        for (uint32_t k = 0; k < a->configs.n && !o; k++)
            o = str_equal(a->configs.v[k].id, ref->id) ? &a->configs.v[k] : NULL;
        if (!o)
            return err_set(e, E_UNAVAILABLE, "config %s has not reached this node", ref->name ? ref->name : ref->id);
        struct container_file *f = REC_ADD(&s->files);
        f->data = (struct bytes){ xmemdup(o->spec.data.v, o->spec.data.n), o->spec.data.n };
        int r = place(ref->file, "", ref->name ? ref->name : o->spec.name, f, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool has_target(const struct container_spec *s, const char *target)
{
    for (uint32_t i = 0; i < s->mounts.n; i++)
        if (str_equal(s->mounts.v[i].target, target))
            return true;
    return false;
}

/* A volume of its own for this task: goes with it. */
static char *own_volume_name(const struct task *t, const char *target)
{
    uint8_t h[16];
    char hex[33];
    AUTO_FREE char *text = xasprintf("%s:%s", t->id, target);
    crypto_blake2s(h, sizeof h, text, strlen(text), NULL, 0);
    hex_encode(hex, h, sizeof h);
    return xasprintf("%s-%s", t->id, hex);
}

static int add_volume(const struct task *t, const char *name, const char *target, bool fill, task_volume_fn *volume,
                      void *arg, struct container_mount *m, struct err *e)
{
    AUTO_FREE char *own = name ? NULL : own_volume_name(t, target);
    AUTO_FREE char *path = volume(arg, name ? name : own, e);
    if (!path)
        return -e->code;
    m->type = CONTAINER_BIND;
    m->fill = fill;
    str_set(&m->source, path);
    str_set(&m->target, target);
    return 0;
}

static int add_mount(const struct task *t, const struct mount *m, const struct template_context *c, task_volume_fn *volume,
                     void *arg, struct container_spec *s, struct err *e)
{
    struct container_mount *out = REC_ADD(&s->mounts);
    AUTO_FREE char *source = NULL;
    int r = m->source ? template_expand(m->source, c, &source, e) : 0;
    if (r < 0)
        return err_wrap(e, "mount of %s", m->target);
    out->read_only = m->read_only;
    str_set(&out->target, m->target);
    switch (m->type) {
    case MOUNT_VOLUME:
        return add_volume(t, source, m->target, !(m->volume && m->volume->no_copy), volume, arg, out, e);
    case MOUNT_BIND:
        str_set(&out->source, source);
        if (m->bind) {
            str_set(&out->propagation, m->bind->propagation);
            out->non_recursive = m->bind->non_recursive;
        }
        return 0;
    case MOUNT_TMPFS:
        out->type = CONTAINER_TMPFS;
        if (m->tmpfs) {
            out->tmpfs_bytes = m->tmpfs->size_bytes;
            out->tmpfs_mode = m->tmpfs->mode;
        }
        return 0;
    }
    return err_set(e, E_UNSUPPORTED, "mount of %s: type %s is not built", m->target, mount_type_names[m->type]);
}

static int mounts(const struct task *t, const struct image_config *img, const struct template_context *c,
                  task_volume_fn *volume, void *arg, struct container_spec *s, struct err *e)
{
    const struct container_spec_model *m = t->spec.container;
    int r = 0;
    for (uint32_t i = 0; i < m->mounts.n && r == 0; i++)
        r = add_mount(t, &m->mounts.v[i], c, volume, arg, s, e);
    for (uint32_t i = 0; i < img->volumes.n && r == 0; i++)
        if (!has_target(s, img->volumes.v[i]))
            r = add_volume(t, NULL, img->volumes.v[i], true, volume, arg, REC_ADD(&s->mounts), e);
    return r;
}

static int limits(const struct task *t, struct container_spec *s, struct err *e)
{
    const struct container_spec_model *c = t->spec.container;
    if (t->spec.resources && t->spec.resources->limits) {
        s->memory_bytes = t->spec.resources->limits->memory_bytes;
        s->nano_cpus = t->spec.resources->limits->nano_cpus;
        s->pids_limit = MAX(t->spec.resources->limits->pids, 0);
    }
    for (uint32_t i = 0; i < c->ulimits.n; i++) {
        struct container_ulimit *u = REC_ADD(&s->ulimits);
        str_set(&u->name, c->ulimits.v[i].name);
        u->soft = c->ulimits.v[i].soft;
        u->hard = c->ulimits.v[i].hard;
    }
    if (c->privileges && c->privileges->seccomp && c->privileges->seccomp->mode) {
        const char *mode = c->privileges->seccomp->mode;
        if (str_equal(mode, "unconfined"))
            str_set(&s->seccomp, mode);
        else if (!str_equal(mode, "default"))
            return err_set(e, E_UNSUPPORTED, "Privileges.Seccomp.Mode \"%s\" is not built; use default or unconfined", mode);
    }
    s->no_new_privs = c->privileges && c->privileges->no_new_privs;
    s->oom_score_adj = c->oom_score_adj;
    return 0;
}

int task_container_spec(const struct task *t, const struct assignment *a, const struct image *image,
                        const struct template_context *c, task_volume_fn *volume, void *arg,
                        struct container_spec *ret, struct err *e)
{
    const struct container_spec_model *m = t->spec.container;
    const struct image_config *img = &image->config;
    AUTO_FREE char *name = task_container_name(t), *host = NULL;
    struct container_spec s = { 0 };
    int r = m->hostname ? template_expand(m->hostname, c, &host, e) : 0;
    str_set(&s.id, c->container_id);
    str_set(&s.name, name);
    str_set(&s.image, m->image);
    str_set(&s.image_id, image->id);
    add_all(&s.lower_dirs, &image->layer_dirs);
    command(m, img, &s.argv);
    str_set(&s.cwd, m->dir ? m->dir : img->working_dir);
    str_set(&s.user, m->user ? m->user : img->user);
    add_all(&s.groups, &m->groups);
    AUTO_FREE char *short_id = xasprintf("%.12s", t->id);
    str_set(&s.hostname, host ? host : short_id);
    s.init = m->init;
    s.tty = m->tty;
    s.open_stdin = m->open_stdin;
    s.read_only = m->read_only;
    str_set(&s.stop_signal, m->stop_signal ? m->stop_signal : img->stop_signal);
    s.stop_grace_ns = m->stop_grace;
    add_all(&s.cap_add, &m->cap_add);
    add_all(&s.cap_drop, &m->cap_drop);
    for (uint32_t i = 0; i < m->sysctls.n; i++)
        labels_set(&s.sysctls, m->sysctls.v[i].key, m->sysctls.v[i].value);
    for (uint32_t i = 0; i < img->labels.n; i++)
        labels_set(&s.labels, img->labels.v[i].key, img->labels.v[i].value);
    for (uint32_t i = 0; i < m->labels.n; i++)
        labels_set(&s.labels, m->labels.v[i].key, m->labels.v[i].value);
    labels_set(&s.labels, TASK_LABEL, t->id);
    labels_set(&s.labels, "com.docker.swarm.task.name", name);
    labels_set(&s.labels, "com.docker.swarm.service.id", t->service_id ? t->service_id : "");
    labels_set(&s.labels, "com.docker.swarm.service.name", t->service_name ? t->service_name : "");
    labels_set(&s.labels, "com.docker.swarm.node.id", c->node_id);
    if (r == 0)
        r = environment(m, img, c, &s.env, e);
    if (r == 0)
        r = mounts(t, img, c, volume, arg, &s, e);
    if (r == 0)
        r = limits(t, &s, e);
    if (r == 0)
        r = t->spec.log_driver ? container_log(&s, t->spec.log_driver->name, &t->spec.log_driver->options, "LogDriver", e) : 0;
    if (r == 0) {
        name_files(t, &s);
        r = secrets_and_configs(m, a, &s, e);
    }
    if (r < 0) {
        container_spec_clear(&s);
        return r;
    }
    *ret = s;
    return 0;
}
