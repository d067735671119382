/* The merged tree to the objects of a stack: names, networks, secrets, configs, then every service. */
#include "stack_internal.h"

enum { MAX_SECRET_BYTES = 500 * 1024, MAX_CONFIG_BYTES = 1000 * 1024 };

char *scoped_name(const struct load *l, const char *name)
{
    return xasprintf("%s_%s", l->out->name, name);
}

/* external: true | {name: X} */
static int get_external(struct load *l, const struct val *decl, bool *ret, char **ret_name)
{
    const struct val *v = decl ? member(decl, "external") : NULL;
    *ret = false;
    if (!v)
        return 0;
    if (v->kind != V_MAP)
        return get_bool(l, decl, "external", ret);
    *ret = true;
    return get_str(l, v, "name", ret_name);
}

int full_name(struct load *l, const struct val *decl, const char *key, char **ret, bool *ret_external)
{
    AUTO_FREE char *own = NULL, *old = NULL;
    int rc = get_external(l, decl, ret_external, &old);
    if (rc == 0 && decl)
        rc = get_str(l, decl, "name", &own);
    if (rc < 0)
        return rc;
    if (own && old && strcmp(own, old) != 0)
        return bad(l, decl, E_INVALID, "name: and external.name: differ; keep name:");
    const char *name = own ? own : old ? old : *ret_external ? key : NULL;
    *ret = name ? xstrdup(name) : scoped_name(l, key);
    return 0;
}

/* What is external is only named; anything else said about it would be lost. */
static int only_external(struct load *l, const struct val *decl)
{
    for (uint32_t i = 0; i < decl->n; i++) {
        const char *key = decl->map[i].key->s;
        if (strcmp(key, "external") != 0 && strcmp(key, "name") != 0 && !str_starts(key, "x-") &&
            decl->map[i].value->kind != V_NULL) {
            at_key(l, key);
            return bad(l, decl->map[i].key, E_INVALID, "does not go with external; remove one");
        }
    }
    return 0;
}

static int convert_ipam(struct load *l, const struct val *decl, struct network *n)
{
    const struct val *v = member(decl, "ipam"), *config = v ? member(v, "config") : NULL;
    if (!v)
        return 0;
    size_t mark = at_key(l, "ipam");
    n->ipam = xnew(struct ipam);
    int rc = get_str(l, v, "driver", &n->ipam->driver);
    if (rc < 0)
        return rc;
    if (n->ipam->driver && strcmp(n->ipam->driver, "default") != 0) {
        at_key(l, "driver");
        return bad(l, member(v, "driver"), E_UNSUPPORTED, "%.60s is not built; only default is",
                   n->ipam->driver);
    }
    for (uint32_t i = 0; config && i < config->n; i++) {
        struct ipam_config *c = REC_ADD(&n->ipam->config);
        if ((rc = get_str(l, config->list[i], "subnet", &c->subnet)) < 0 ||
            (rc = get_str(l, config->list[i], "gateway", &c->gateway)) < 0 ||
            (rc = get_str(l, config->list[i], "ip_range", &c->range)) < 0)
            return rc;
    }
    at_back(l, mark);
    return 0;
}

static int convert_network(struct load *l, const struct val *decl, const char *name)
{
    struct network *n = REC_ADD(&l->out->networks);
    struct err e = { 0 };
    int rc = 0;
    str_set(&n->name, name);
    str_set(&n->driver, "overlay");
    str_set(&n->scope, "swarm");
    if (decl && ((rc = get_str(l, decl, "driver", &n->driver)) < 0 ||
                 (rc = get_labels(l, decl, "driver_opts", &n->options)) < 0 ||
                 (rc = get_bool(l, decl, "internal", &n->internal)) < 0 ||
                 (rc = get_bool(l, decl, "attachable", &n->attachable)) < 0 ||
                 (rc = get_labels(l, decl, "labels", &n->labels)) < 0 ||
                 (rc = convert_ipam(l, decl, n)) < 0))
        return rc;
    if (strcmp(n->driver, "overlay") != 0) {
        at_key(l, "driver");
        return bad(l, member(decl, "driver"), E_UNSUPPORTED, "%.60s is not built for stacks; only overlay is",
                   n->driver);
    }
    labels_set(&n->labels, STACK_LABEL_NAMESPACE, l->out->name);
    rc = rec_check(&network_rec, n, &e);
    return rc < 0 ? bad(l, decl, -rc, "%s", e.text) : 0;
}

static bool is_used(const struct stack *s, const char *network)
{
    for (uint32_t i = 0; i < s->services.n; i++) {
        const struct task_spec *t = &s->services.v[i].task;
        for (uint32_t k = 0; k < t->networks.n; k++)
            if (strcmp(t->networks.v[k].target, network) == 0)
                return true;
    }
    return false;
}

/* After the services: those some service uses, and "default" even when it is not declared. */
static int convert_networks(struct load *l)
{
    const struct val *all = member(l->root, "networks");
    size_t mark = at_key(l, "networks");
    for (uint32_t i = 0; all && i < all->n; i++) {
        const char *key = all->map[i].key->s;
        const struct val *decl = all->map[i].value;
        AUTO_FREE char *name = NULL;
        bool external;
        size_t here = at_key(l, key);
        int rc = full_name(l, decl, key, &name, &external);
        if (rc == 0 && external)
            rc = only_external(l, decl);
        if (rc == 0 && external && is_used(l->out, name))
            strs_add(&l->out->external_networks, name);
        else if (rc == 0 && is_used(l->out, name))
            rc = convert_network(l, decl, name);
        if (rc < 0)
            return rc;
        at_back(l, here);
    }
    AUTO_FREE char *name = scoped_name(l, "default");
    if (!(all && val_get(all, "default")) && is_used(l->out, name)) {
        at_key(l, "default");
        int rc = convert_network(l, NULL, name);
        if (rc < 0)
            return rc;
    }
    at_back(l, mark);
    return 0;
}

/* The content of a secret or config: exactly one of file, environment, content. */
static int read_content(struct load *l, const struct val *decl, size_t max, struct bytes *ret)
{
    static const char *const sources[] = { "file", "environment", "content" };
    const char *from = NULL;
    for (size_t i = 0; i < ARRAY_N(sources); i++)
        if (decl && member(decl, sources[i])) {
            if (from)
                return bad(l, decl, E_INVALID, "%s and %s are given; remove one", from, sources[i]);
            from = sources[i];
        }
    if (!from)
        return bad(l, decl ? decl : l->root, E_INVALID, "needs file:, environment: or external: true");
    const char *s = member(decl, from)->s;
    if (strcmp(from, "file") == 0) {
        size_t mark = at_key(l, "file");
        int rc = read_file(l, member(decl, from), s, max, ret);
        if (rc == 0)
            at_back(l, mark);
        return rc;
    }
    const char *value = strcmp(from, "content") == 0 ? s : labels_get(&l->env, s);
    if (!value) {
        at_key(l, from);
        return bad(l, member(decl, from), E_INVALID, "the variable %.60s is not set", s);
    }
    size_t n = strlen(value);
    if (n > max) {
        at_key(l, from);
        return bad(l, member(decl, from), E_TOO_BIG, "is larger than %zu bytes", max);
    }
    *ret = (struct bytes){ n ? xmemdup(value, n) : NULL, (uint32_t)n };
    return 0;
}

static int add_object(struct load *l, bool secret, const struct val *decl, const char *name)
{
    struct err e = { 0 };
    int rc;
    if (secret) {
        struct secret_spec *s = REC_ADD(&l->out->secrets);
        str_set(&s->name, name);
        if ((rc = read_content(l, decl, MAX_SECRET_BYTES, &s->data)) < 0 ||
            (rc = get_labels(l, decl, "labels", &s->labels)) < 0)
            return rc;
        labels_set(&s->labels, STACK_LABEL_NAMESPACE, l->out->name);
        rc = rec_check(&secret_spec_rec, s, &e);
    } else {
        struct config_spec *s = REC_ADD(&l->out->configs);
        str_set(&s->name, name);
        if ((rc = read_content(l, decl, MAX_CONFIG_BYTES, &s->data)) < 0 ||
            (rc = get_labels(l, decl, "labels", &s->labels)) < 0)
            return rc;
        labels_set(&s->labels, STACK_LABEL_NAMESPACE, l->out->name);
        rc = rec_check(&config_spec_rec, s, &e);
    }
    return rc < 0 ? bad(l, decl, -rc, "%s", e.text) : 0;
}

static int convert_objects(struct load *l, const char *key)
{
    bool secret = strcmp(key, "secrets") == 0;
    const struct val *all = member(l->root, key);
    size_t mark = at_key(l, key);
    for (uint32_t i = 0; all && i < all->n; i++) {
        const struct val *decl = all->map[i].value;
        AUTO_FREE char *name = NULL;
        bool external;
        size_t here = at_key(l, all->map[i].key->s);
        if (decl->kind == V_NULL)
            return bad(l, decl, E_INVALID, "needs file:, environment: or external: true");
        int rc = full_name(l, decl, all->map[i].key->s, &name, &external);
        if (rc == 0 && external)
            rc = only_external(l, decl);
        if (rc == 0 && external)
            strs_add(secret ? &l->out->external_secrets : &l->out->external_configs, name);
        else if (rc == 0)
            rc = add_object(l, secret, decl, name);
        if (rc < 0)
            return rc;
        at_back(l, here);
    }
    at_back(l, mark);
    return 0;
}

static int convert_services(struct load *l)
{
    const struct val *all = member(l->root, "services");
    if (!all || !all->n)
        return err_set(l->e, E_INVALID, "%s: has no services; add at least one under services:",
                       l->in->files[0].name);
    size_t mark = at_key(l, "services");
    for (uint32_t i = 0; i < all->n; i++) {
        const char *name = all->map[i].key->s;
        size_t here = at_key(l, name);
        const char *why = name[0] ? check_name(name) : "is empty";
        if (why)
            return bad(l, all->map[i].key, E_INVALID, "the name %s", why);
        if (all->map[i].value->kind != V_MAP)
            return bad(l, all->map[i].key, E_INVALID, "is empty; give it an image:");
        int rc = convert_service(l, name, all->map[i].value, REC_ADD(&l->out->services));
        if (rc < 0)
            return rc;
        at_back(l, here);
    }
    at_back(l, mark);
    return 0;
}

int convert_stack(struct load *l)
{
    const char *name = l->in->name ? l->in->name : val_get_str(l->root, "name");
    if (!name || !name[0])
        return err_set(l->e, E_INVALID, "the stack has no name; give one, or write name: in %s",
                       l->in->files[0].name);
    const char *why = check_name(name);
    if (why || strlen(name) > 60)
        return err_set(l->e, E_INVALID, "stack name \"%.60s\": %s", name,
                       why ? why : "is longer than 60 characters");
    l->out->name = xstrdup(name);
    int rc = convert_objects(l, "secrets");
    if (rc == 0)
        rc = convert_objects(l, "configs");
    if (rc == 0)
        rc = convert_services(l);
    return rc < 0 ? rc : convert_networks(l);
}
