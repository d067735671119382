/* The small languages inside flag values: --mount, --publish, --network, --secret, --ulimit, --env, --label.
 * Same syntax as docker's (its CLI reference); each answer names what is wrong with the value. Pure. */
#include "cli.h"
#include <shoal/stack.h>
#include <shoal/http.h>

/* Next "key=value" of a comma-separated value; *value is NULL for a bare key. False: the end. */
static bool next_pair(char **rest, char **key, char **value)
{
    char *p = *rest;
    if (!p || !*p)
        return false;
    char *comma = strchr(p, ',');
    if (comma)
        *comma = 0;
    *rest = comma ? comma + 1 : NULL;
    *key = p;
    *value = strchr(p, '=');
    if (*value)
        *(*value)++ = 0;
    return true;
}

static int choice(const char *const *names, const char *s)
{
    for (int i = 0; names[i]; i++)
        if (s && !strcmp(names[i], s))
            return i;
    return -1;
}

static bool truth(const char *s)
{
    return !s || !strcmp(s, "true") || !strcmp(s, "1");
}

int value_label(struct labels *l, const char *text, struct err *e)
{
    const char *eq = strchr(text, '=');
    AUTO_FREE char *key = eq ? xstrndup(text, (size_t)(eq - text)) : xstrdup(text);
    if (!*key)
        return err_set(e, E_INVALID, "the label \"%s\" has no name before '='", text);
    labels_set(l, key, eq ? eq + 1 : "");
    return 0;
}

static void strs_remove(struct strs *s, uint32_t i)
{
    free(s->v[i]);
    memmove(&s->v[i], &s->v[i + 1], (s->n - i - 1) * sizeof *s->v);
    s->n--;
}

bool value_env_remove(struct strs *env, const char *name)
{
    size_t len = strcspn(name, "=");
    for (uint32_t i = 0; i < env->n; i++)
        if (!strncmp(env->v[i], name, len) && (env->v[i][len] == '=' || !env->v[i][len])) {
            strs_remove(env, i);
            return true;
        }
    return false;
}

int value_env(struct strs *env, const char *text)
{
    AUTO_FREE char *pair = NULL;
    if (!strchr(text, '=')) { /* the value that this shell has; absent: nothing is set */
        const char *here = getenv(text);
        if (!here)
            return 0;
        pair = xasprintf("%s=%s", text, here);
    }
    const char *want = pair ? pair : text;
    size_t len = strcspn(want, "=");
    for (uint32_t i = 0; i < env->n; i++)
        if (!strncmp(env->v[i], want, len + 1)) {
            free(env->v[i]);
            env->v[i] = xstrdup(want);
            return 0;
        }
    strs_add(env, want);
    return 0;
}

static int mount_pair(struct mount *m, const char *key, const char *value, struct err *e)
{
    uint64_t mode;
    if (!strcmp(key, "readonly") || !strcmp(key, "ro")) {
        m->read_only = truth(value);
        return 0;
    }
    if (!strcmp(key, "volume-nocopy")) {
        m->volume = m->volume ? m->volume : xnew(struct volume_options);
        m->volume->no_copy = truth(value);
        return 0;
    }
    if (!value || !*value)
        return err_set(e, E_INVALID, "%s needs a value, as in %s=...", key, key);
    if (!strcmp(key, "type")) {
        m->type = choice(mount_type_names, value);
        return m->type < 0 || m->type > MOUNT_TMPFS
                   ? err_set(e, E_INVALID, "type %s is not possible; use bind, volume or tmpfs", value) : 0;
    }
    if (!strcmp(key, "source") || !strcmp(key, "src"))
        str_set(&m->source, value);
    else if (!strcmp(key, "target") || !strcmp(key, "dst") || !strcmp(key, "destination"))
        str_set(&m->target, value);
    else if (!strcmp(key, "bind-propagation")) {
        m->bind = m->bind ? m->bind : xnew(struct bind_options);
        str_set(&m->bind->propagation, value);
    } else if (!strcmp(key, "volume-label")) {
        m->volume = m->volume ? m->volume : xnew(struct volume_options);
        return value_label(&m->volume->labels, value, e);
    } else if (!strcmp(key, "tmpfs-size")) {
        m->tmpfs = m->tmpfs ? m->tmpfs : xnew(struct tmpfs_options);
        if (stack_size_bytes(value, &m->tmpfs->size_bytes) < 0)
            return err_set(e, E_INVALID, "tmpfs-size %s must be a size such as 64m", value);
    } else if (!strcmp(key, "tmpfs-mode")) {
        char *end;
        mode = strtoull(value, &end, 8);
        m->tmpfs = m->tmpfs ? m->tmpfs : xnew(struct tmpfs_options);
        if (*end || mode > 07777)
            return err_set(e, E_INVALID, "tmpfs-mode %s must be octal, as in 1770", value);
        m->tmpfs->mode = mode;
    } else {
        return err_set(e, E_UNSUPPORTED, "unknown key %s (type, source, target, readonly, bind-propagation, "
                       "volume-nocopy, volume-label, tmpfs-size, tmpfs-mode)", key);
    }
    return 0;
}

int value_mount(const char *text, struct mount *ret, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(text);
    char *rest = copy, *key, *value;
    struct mount m = { .type = MOUNT_VOLUME };
    int rc = 0;
    while (rc == 0 && next_pair(&rest, &key, &value))
        rc = mount_pair(&m, key, value, e);
    if (rc == 0 && !m.target)
        rc = err_set(e, E_INVALID, "target=PATH is missing");
    if (rc < 0) {
        mount_clear(&m);
        return err_wrap(e, "the mount \"%s\"", text);
    }
    *ret = m;
    return 0;
}

/* Long form: published=8080,target=80,protocol=tcp,mode=host. */
static int publish_long(const char *text, struct rec_list *ports, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(text);
    char *rest = copy, *key, *value;
    struct port p = { 0 };
    while (next_pair(&rest, &key, &value)) {
        bool good = true;
        if (!strcmp(key, "target"))
            good = value && str_u64(value, 1, 65535, &p.target);
        else if (!strcmp(key, "published"))
            good = value && str_u64(value, 0, 65535, &p.published);
        else if (!strcmp(key, "protocol"))
            good = (p.protocol = choice(port_protocol_names, value)) >= 0;
        else if (!strcmp(key, "mode"))
            good = (p.mode = choice(publish_mode_names, value)) >= 0;
        else
            return err_set(e, E_INVALID, "the port \"%s\": unknown key %s (target, published, protocol, mode)", text,
                           key);
        if (!good)
            return err_set(e, E_INVALID, "the port \"%s\": %s=%s is not possible", text, key, value ? value : "");
    }
    if (!p.target)
        return err_set(e, E_INVALID, "the port \"%s\": target=PORT is missing", text);
    struct port *list = rec_list_add_(ports, sizeof p);
    *list = p;
    return 0;
}

int value_publish(const char *text, struct rec_list *ports, struct err *e)
{
    if (strchr(text, '='))
        return publish_long(text, ports, e);
    int rc = stack_port_parse(text, ports, e);
    return rc < 0 ? err_wrap(e, "the port \"%s\"", text) : 0;
}

int value_network(const char *text, struct network_ref *ret, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(text);
    char *rest = copy, *key, *value;
    struct network_ref n = { 0 };
    int rc = 0;
    if (!strchr(text, '=')) {
        n.target = xstrdup(text);
        *ret = n;
        return 0;
    }
    while (rc == 0 && next_pair(&rest, &key, &value)) {
        if (!strcmp(key, "name") && value)
            str_set(&n.target, value);
        else if (!strcmp(key, "alias") && value)
            strs_add(&n.aliases, value);
        else
            rc = err_set(e, E_INVALID, "the network \"%s\": unknown key %s (name, alias)", text, key);
    }
    if (rc == 0 && !n.target)
        rc = err_set(e, E_INVALID, "the network \"%s\": name=NETWORK is missing", text);
    if (rc < 0)
        network_ref_clear(&n);
    else
        *ret = n;
    return rc;
}

int value_secret(const char *text, struct secret_ref *ret, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(text);
    char *rest = copy, *key, *value, *end;
    struct secret_ref s = { .file = xnew(struct file_target) };
    struct file_target *f = s.file;
    int rc = 0;
    f->mode = 0444;
    str_set(&f->uid, "0");
    str_set(&f->gid, "0");
    while (rc == 0 && next_pair(&rest, &key, &value)) {
        if (!value && !s.name)
            str_set(&s.name, key);
        else if (value && (!strcmp(key, "source") || !strcmp(key, "src")))
            str_set(&s.name, value);
        else if (value && !strcmp(key, "target"))
            str_set(&f->name, value);
        else if (value && !strcmp(key, "uid"))
            str_set(&f->uid, value);
        else if (value && !strcmp(key, "gid"))
            str_set(&f->gid, value);
        else if (value && !strcmp(key, "mode") && (f->mode = strtoull(value, &end, 8)) <= 07777 && !*end)
            continue;
        else
            rc = err_set(e, E_INVALID, "\"%s\": %s is not understood (source, target, uid, gid, mode in octal)", text,
                         key);
    }
    if (rc == 0 && !s.name)
        rc = err_set(e, E_INVALID, "\"%s\": source=NAME is missing", text);
    if (rc < 0) {
        secret_ref_clear(&s);
        return rc;
    }
    if (!f->name)
        str_set(&f->name, s.name);
    *ret = s;
    return 0;
}

int value_ulimit(const char *text, struct ulimit *ret, struct err *e)
{
    const char *eq = strchr(text, '=');
    char *end = NULL;
    long long soft = eq ? strtoll(eq + 1, &end, 10) : 0, hard = soft;
    if (end && *end == ':')
        hard = strtoll(end + 1, &end, 10);
    if (!end || *end || eq == text || end == eq + 1 || end[-1] == ':')
        return err_set(e, E_INVALID, "the limit \"%s\" must be NAME=SOFT[:HARD]", text);
    *ret = (struct ulimit){ .name = xstrndup(text, (size_t)(eq - text)), .soft = soft, .hard = hard };
    return 0;
}
