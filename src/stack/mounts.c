/* volumes: and tmpfs: of a service, short and long, to mounts. A named volume must be declared at the top,
 * as Compose has it; its full name is scoped by the stack unless it is external or has a name of its own. */
#include "stack_internal.h"

static int bad_text(struct load *l, const struct val *at, const char *text, const char *why)
{
    return bad(l, at, E_INVALID, "\"%.80s\" %s", text, why);
}

/* A driver of the declaration; only the local one is built, and normalising says so. */
static int volume_driver(struct load *l, const struct val *decl, struct volume_options *o)
{
    AUTO_FREE char *name = NULL;
    int rc = get_str(l, decl, "driver", &name);
    const struct val *options = member(decl, "driver_opts");
    if (rc < 0)
        return rc;
    if (name && strcmp(name, "local") != 0) {
        at_key(l, "driver");
        return bad(l, member(decl, "driver"), E_UNSUPPORTED, "%.60s is not built; only local is", name);
    }
    if (options && options->n) {
        at_key(l, "driver_opts");
        return bad(l, options, E_UNSUPPORTED, "not built in shoal yet; use a bind mount instead");
    }
    if (name) {
        o->driver = xnew(struct driver);
        str_set(&o->driver->name, name);
    }
    return 0;
}

/* m->source holds the key of the declaration and becomes the full name. */
static int named_volume(struct load *l, const struct val *at, struct mount *m)
{
    const struct val *all = member(l->root, "volumes"), *decl = all ? val_get(all, m->source) : NULL;
    if (!decl)
        return bad(l, at, E_INVALID, "the volume \"%.60s\" is not declared; add it under volumes:",
                   m->source);
    if (!m->volume)
        m->volume = xnew(struct volume_options);
    bool external = false;
    AUTO_FREE char *name = NULL, *key = xstrdup(m->source), *path = xstrdup(l->path);
    size_t len = l->len;
    l->len = 0;
    l->path[0] = 0;
    at_key(l, "volumes");
    at_key(l, key);
    int rc = full_name(l, decl, key, &name, &external);
    if (rc == 0 && !external)
        rc = get_labels(l, decl, "labels", &m->volume->labels);
    if (rc == 0 && !external)
        rc = volume_driver(l, decl, m->volume);
    if (rc < 0)
        return rc;
    l->len = len;
    memcpy(l->path, path, strlen(path) + 1);
    if (!external)
        labels_set(&m->volume->labels, STACK_LABEL_NAMESPACE, l->out->name);
    else if (!m->volume->no_copy && !m->volume->labels.n)
        free(TAKE(m->volume)); /* nothing to say about a volume that is there */
    str_set(&m->source, name);
    return 0;
}

static bool is_path(const char *s)
{
    return s[0] == '/' || s[0] == '.' || s[0] == '~';
}

static int bind_source(struct load *l, const struct val *at, struct mount *m)
{
    if (!m->source)
        return bad(l, at, E_INVALID, "a bind mount needs a source; write the path on the node");
    AUTO_FREE char *full = full_path(l, m->source);
    if (full[0] != '/')
        return bad_text(l, at, m->source, "is not an absolute path on the node");
    str_set(&m->source, full);
    return 0;
}

static int short_option(struct load *l, const struct val *at, const char *o, struct mount *m)
{
    static const char *const propagation[] = { "private", "rprivate", "shared", "rshared", "slave",
                                               "rslave" };
    if (strcmp(o, "ro") == 0) {
        m->read_only = true;
        return 0;
    }
    if (strcmp(o, "rw") == 0)
        return 0;
    if (strcmp(o, "nocopy") == 0 && m->type == MOUNT_VOLUME) {
        if (!m->volume)
            m->volume = xnew(struct volume_options);
        m->volume->no_copy = true;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_N(propagation) && m->type == MOUNT_BIND; i++)
        if (strcmp(o, propagation[i]) == 0) {
            if (!m->bind)
                m->bind = xnew(struct bind_options);
            str_set(&m->bind->propagation, o);
            return 0;
        }
    return bad(l, at, E_UNSUPPORTED, "the option \"%.30s\" is not built; remove it (ro, rw, nocopy for "
               "volumes, rprivate... for paths)", o);
}

/* SOURCE:TARGET[:OPTION,...] or TARGET */
static int short_mount(struct load *l, const struct val *v, struct mount *m)
{
    AUTO_FREE char *text = xstrdup(v->s);
    char *source = text, *target = strchr(text, ':'), *options = NULL;
    if (target) {
        *target++ = 0;
        options = strchr(target, ':');
        if (options)
            *options++ = 0;
    } else {
        target = text;
        source = NULL;
    }
    if (target[0] != '/' || (source && !source[0]))
        return bad_text(l, v, v->s, "is not SOURCE:/PATH[:ro] or /PATH");
    m->type = source && is_path(source) ? MOUNT_BIND : MOUNT_VOLUME;
    str_set(&m->source, source);
    str_set(&m->target, target);
    for (char *o; (o = strsep(&options, ","));) {
        int rc = short_option(l, v, o, m);
        if (rc < 0)
            return rc;
    }
    if (m->type == MOUNT_BIND)
        return bind_source(l, v, m);
    return m->source ? named_volume(l, v, m) : 0;
}

static int mount_options(struct load *l, const struct val *v, struct mount *m)
{
    static const char *const parts[] = { "bind", "volume", "tmpfs" };
    const struct val *o;
    int rc = 0;
    for (int i = 0; i < 3; i++)
        if (member(v, parts[i]) && m->type != i) {
            at_key(l, parts[i]);
            return bad(l, member(v, parts[i]), E_INVALID, "does not go with type %s; remove it",
                       mount_type_names[m->type]);
        }
    if ((o = member(v, "bind"))) {
        m->bind = xnew(struct bind_options);
        size_t mark = at_key(l, "bind");
        if ((rc = get_str(l, o, "propagation", &m->bind->propagation)) < 0 ||
            (rc = get_bool(l, o, "create_host_path", &m->bind->create_mountpoint)) < 0)
            return rc;
        at_back(l, mark);
    }
    if ((o = member(v, "volume"))) {
        m->volume = xnew(struct volume_options);
        size_t mark = at_key(l, "volume");
        if ((rc = get_bool(l, o, "nocopy", &m->volume->no_copy)) < 0 ||
            (rc = get_labels(l, o, "labels", &m->volume->labels)) < 0)
            return rc;
        at_back(l, mark);
    }
    if ((o = member(v, "tmpfs"))) {
        m->tmpfs = xnew(struct tmpfs_options);
        size_t mark = at_key(l, "tmpfs");
        if ((rc = get_size(l, o, "size", &m->tmpfs->size_bytes)) < 0 ||
            (rc = get_mode(l, o, "mode", &m->tmpfs->mode)) < 0)
            return rc;
        at_back(l, mark);
    }
    return 0;
}

static int long_mount(struct load *l, const struct val *v, struct mount *m)
{
    int rc;
    if (!member(v, "type"))
        return bad(l, v, E_INVALID, "type: is required; write bind, volume or tmpfs");
    if ((rc = get_enum(l, v, "type", mount_type_names, &m->type)) < 0)
        return rc;
    if (m->type > MOUNT_TMPFS) {
        at_key(l, "type");
        return bad(l, member(v, "type"), E_UNSUPPORTED, "%s is not built; use bind, volume or tmpfs",
                   mount_type_names[m->type]);
    }
    if ((rc = get_str(l, v, "source", &m->source)) < 0 || (rc = get_str(l, v, "target", &m->target)) < 0 ||
        (rc = get_bool(l, v, "read_only", &m->read_only)) < 0 || (rc = mount_options(l, v, m)) < 0)
        return rc;
    if (!m->target)
        return bad(l, v, E_INVALID, "target: is required");
    if (m->type == MOUNT_BIND)
        return bind_source(l, v, m);
    if (m->type == MOUNT_TMPFS && m->source)
        return bad(l, v, E_INVALID, "source: a tmpfs has none; remove it");
    return m->type == MOUNT_VOLUME && m->source ? named_volume(l, v, m) : 0;
}

/* PATH[:size=64m,mode=1777] */
static int tmpfs_mount(struct load *l, const struct val *at, const char *text, struct mount *m)
{
    AUTO_FREE char *copy = xstrdup(text);
    char *options = strchr(copy, ':');
    if (options)
        *options++ = 0;
    m->type = MOUNT_TMPFS;
    str_set(&m->target, copy);
    if (!options || !*options)
        return 0;
    m->tmpfs = xnew(struct tmpfs_options);
    for (char *o; (o = strsep(&options, ","));) {
        if (str_starts(o, "size=")) {
            if (stack_size_bytes(o + 5, &m->tmpfs->size_bytes) < 0)
                return bad_text(l, at, o + 5, "is not a size like 64m");
        } else if (str_starts(o, "mode=")) {
            char *end;
            m->tmpfs->mode = strtoul(o + 5, &end, 8);
            if (*end || !o[5] || m->tmpfs->mode > 07777)
                return bad_text(l, at, o + 5, "is not a mode like 1777");
        } else if (strcmp(o, "rw") != 0) {
            return bad(l, at, E_UNSUPPORTED, "the option \"%.30s\" is not built; remove it (size=, mode=)",
                       o);
        }
    }
    return 0;
}

static int convert_tmpfs(struct load *l, const struct val *service, struct container_spec_model *c)
{
    struct strs list = { 0 };
    const struct val *v = member(service, "tmpfs");
    int rc = get_strs(l, service, "tmpfs", &list);
    if (v)
        at_key(l, "tmpfs");
    for (uint32_t i = 0; rc == 0 && i < list.n; i++) {
        size_t mark = v->kind == V_LIST ? at_index(l, i) : l->len;
        rc = tmpfs_mount(l, v->kind == V_LIST ? v->list[i] : v, list.v[i], REC_ADD(&c->mounts));
        if (rc == 0)
            at_back(l, mark);
    }
    strs_clear(&list);
    return rc;
}

int convert_mounts(struct load *l, const struct val *service, struct container_spec_model *c)
{
    const struct val *v = member(service, "volumes");
    size_t mark = l->len;
    at_key(l, "volumes");
    for (uint32_t i = 0; v && i < v->n; i++) {
        size_t here = at_index(l, i);
        struct mount *m = REC_ADD(&c->mounts);
        int rc = v->list[i]->kind == V_MAP ? long_mount(l, v->list[i], m) : short_mount(l, v->list[i], m);
        if (rc < 0)
            return rc;
        at_back(l, here);
    }
    at_back(l, mark);
    int rc = convert_tmpfs(l, service, c);
    if (rc == 0)
        at_back(l, mark);
    return rc;
}
