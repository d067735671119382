/* Flags with lists of service create (--env) and service update (--env-add, --env-rm): one table row a kind,
 * removals first, additions replace what has the same key. As docker's client does it. */
#include "cli.h"
#include <shoal/stack.h>

#define NEED(p) ((p) = (p) ? (p) : xcalloc(1, sizeof *(p)))

typedef int list_add_fn(struct service_spec *s, const char *text, struct err *e);
typedef bool list_rm_fn(struct service_spec *s, const char *key);

static struct container_spec_model *box(struct service_spec *s)
{
    return s->task.container;
}

static bool strs_drop(struct strs *s, const char *value, size_t prefix)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (prefix ? !strncmp(s->v[i], value, prefix) : !strcmp(s->v[i], value)) {
            free(s->v[i]);
            memmove(&s->v[i], &s->v[i + 1], (s->n - i - 1) * sizeof *s->v);
            s->n--;
            return true;
        }
    return false;
}

static void strs_add_once(struct strs *s, const char *value)
{
    if (!strs_has(s, value))
        strs_add(s, value);
}

static int add_env(struct service_spec *s, const char *t, struct err *e) { return value_env(&box(s)->env, t); }
static bool rm_env(struct service_spec *s, const char *k) { return value_env_remove(&box(s)->env, k); }
static int add_label(struct service_spec *s, const char *t, struct err *e) { return value_label(&s->labels, t, e); }
static bool rm_label(struct service_spec *s, const char *k) { return labels_unset(&s->labels, k); }
static int add_container_label(struct service_spec *s, const char *t, struct err *e)
{
    return value_label(&box(s)->labels, t, e);
}
static bool rm_container_label(struct service_spec *s, const char *k) { return labels_unset(&box(s)->labels, k); }
static int add_sysctl(struct service_spec *s, const char *t, struct err *e)
{
    return value_label(&box(s)->sysctls, t, e);
}
static bool rm_sysctl(struct service_spec *s, const char *k) { return labels_unset(&box(s)->sysctls, k); }
static int add_group(struct service_spec *s, const char *t, struct err *e)
{
    strs_add_once(&box(s)->groups, t);
    return 0;
}
static bool rm_group(struct service_spec *s, const char *k) { return strs_drop(&box(s)->groups, k, 0); }

static bool rm_mount(struct service_spec *s, const char *k)
{
    for (uint32_t i = 0; i < box(s)->mounts.n; i++)
        if (str_equal(box(s)->mounts.v[i].target, k)) {
            rec_list_remove((struct rec_list *)(void *)&box(s)->mounts, &mount_rec, i);
            return true;
        }
    return false;
}

static int add_mount(struct service_spec *s, const char *t, struct err *e)
{
    struct mount m;
    int rc = value_mount(t, &m, e);
    if (rc < 0)
        return rc;
    rm_mount(s, m.target);
    *REC_ADD(&box(s)->mounts) = m;
    return 0;
}

static bool rm_network(struct service_spec *s, const char *k)
{
    for (uint32_t i = 0; i < s->task.networks.n; i++)
        if (str_equal(s->task.networks.v[i].target, k)) {
            rec_list_remove((struct rec_list *)(void *)&s->task.networks, &network_ref_rec, i);
            return true;
        }
    return false;
}

static int add_network(struct service_spec *s, const char *t, struct err *e)
{
    struct network_ref n;
    int rc = value_network(t, &n, e);
    if (rc < 0)
        return rc;
    rm_network(s, n.target);
    *REC_ADD(&s->task.networks) = n;
    return 0;
}

static bool drop_port(struct endpoint_spec *ep, uint64_t target, int protocol, bool any_protocol)
{
    bool found = false;
    for (uint32_t i = 0; ep && i < ep->ports.n;) {
        const struct port *p = &ep->ports.v[i];
        if (p->target != target || (!any_protocol && p->protocol != protocol)) {
            i++;
            continue;
        }
        rec_list_remove((struct rec_list *)(void *)&ep->ports, &port_rec, i);
        found = true;
    }
    return found;
}

/* "80" or "80/udp". */
static bool rm_publish(struct service_spec *s, const char *k)
{
    uint64_t target;
    AUTO_FREE char *copy = xstrdup(k);
    char *slash = strchr(copy, '/');
    if (slash)
        *slash++ = 0;
    return str_u64(copy, 1, 65535, &target) &&
           drop_port(s->endpoint, target, slash && !strcmp(slash, "udp") ? PROTO_UDP : PROTO_TCP, !slash);
}

static int add_publish(struct service_spec *s, const char *t, struct err *e)
{
    struct { struct port *v; uint32_t n; } ports = { 0 };
    int rc = value_publish(t, (struct rec_list *)(void *)&ports, e);
    if (rc == 0)
        NEED(s->endpoint);
    for (uint32_t i = 0; rc == 0 && i < ports.n; i++) /* the same port again is replaced */
        for (uint32_t k = 0; k < s->endpoint->ports.n; k++) {
            const struct port *p = &s->endpoint->ports.v[k];
            if (p->target == ports.v[i].target && p->protocol == ports.v[i].protocol &&
                p->published == ports.v[i].published)
                rec_list_remove((struct rec_list *)(void *)&s->endpoint->ports, &port_rec, k--);
        }
    for (uint32_t i = 0; i < ports.n; i++) {
        if (rc == 0)
            *REC_ADD(&s->endpoint->ports) = ports.v[i];
        else
            port_clear(&ports.v[i]);
    }
    free(ports.v);
    return rc;
}

static int add_constraint(struct service_spec *s, const char *t, struct err *e)
{
    const char *why = check_constraint(t);
    if (why)
        return err_set(e, E_INVALID, "the constraint \"%s\" %s", t, why);
    NEED(s->task.placement);
    strs_add_once(&s->task.placement->constraints, t);
    return 0;
}

static bool rm_constraint(struct service_spec *s, const char *k)
{
    return s->task.placement && strs_drop(&s->task.placement->constraints, k, 0);
}

static bool rm_pref(struct service_spec *s, const char *k)
{
    k = str_starts(k, "spread=") ? k + 7 : k;
    for (uint32_t i = 0; s->task.placement && i < s->task.placement->preferences.n; i++) {
        const struct spread *p = s->task.placement->preferences.v[i].spread;
        if (p && str_equal(p->descriptor, k)) {
            rec_list_remove((struct rec_list *)(void *)&s->task.placement->preferences, &preference_rec, i);
            return true;
        }
    }
    return false;
}

static int add_pref(struct service_spec *s, const char *t, struct err *e)
{
    if (!str_starts(t, "spread=") || !t[7])
        return err_set(e, E_INVALID, "the preference \"%s\" must be spread=node.labels.KEY", t);
    NEED(s->task.placement);
    struct preference *p = REC_ADD(&s->task.placement->preferences);
    p->spread = xnew(struct spread);
    str_set(&p->spread->descriptor, t + 7);
    return 0;
}

static bool rm_secret(struct service_spec *s, const char *k)
{
    for (uint32_t i = 0; i < box(s)->secrets.n; i++)
        if (str_equal(box(s)->secrets.v[i].name, k) || str_equal(box(s)->secrets.v[i].id, k)) {
            rec_list_remove((struct rec_list *)(void *)&box(s)->secrets, &secret_ref_rec, i);
            return true;
        }
    return false;
}

static int add_secret(struct service_spec *s, const char *t, struct err *e)
{
    struct secret_ref r;
    int rc = value_secret(t, &r, e);
    if (rc < 0)
        return err_wrap(e, "the secret");
    rm_secret(s, r.name);
    *REC_ADD(&box(s)->secrets) = r;
    return 0;
}

static bool rm_config(struct service_spec *s, const char *k)
{
    for (uint32_t i = 0; i < box(s)->configs.n; i++)
        if (str_equal(box(s)->configs.v[i].name, k) || str_equal(box(s)->configs.v[i].id, k)) {
            rec_list_remove((struct rec_list *)(void *)&box(s)->configs, &config_ref_rec, i);
            return true;
        }
    return false;
}

static int add_config(struct service_spec *s, const char *t, struct err *e)
{
    struct secret_ref r;
    int rc = value_secret(t, &r, e);
    if (rc < 0)
        return err_wrap(e, "the config");
    rm_config(s, r.name);
    struct config_ref *k = REC_ADD(&box(s)->configs);
    k->name = TAKE(r.name);
    k->file = TAKE(r.file);
    if (k->file->name[0] != '/') { /* configs of a bare name appear in / */
        AUTO_FREE char *path = xasprintf("/%s", k->file->name);
        str_set(&k->file->name, path);
    }
    secret_ref_clear(&r);
    return 0;
}

static bool rm_ulimit(struct service_spec *s, const char *k)
{
    size_t len = strcspn(k, "=");
    for (uint32_t i = 0; i < box(s)->ulimits.n; i++)
        if (strlen(box(s)->ulimits.v[i].name) == len && !strncmp(box(s)->ulimits.v[i].name, k, len)) {
            rec_list_remove((struct rec_list *)(void *)&box(s)->ulimits, &ulimit_rec, i);
            return true;
        }
    return false;
}

static int add_ulimit(struct service_spec *s, const char *t, struct err *e)
{
    struct ulimit u;
    int rc = value_ulimit(t, &u, e);
    if (rc < 0)
        return rc;
    rm_ulimit(s, u.name);
    *REC_ADD(&box(s)->ulimits) = u;
    return 0;
}

/* "NAME:IP" of the command line is "IP NAME" in the spec. */
static char *host_line(const char *t)
{
    const char *colon = strchr(t, ':');
    return colon && colon != t && colon[1] ? xasprintf("%s %.*s", colon + 1, (int)(colon - t), t) : NULL;
}

static int add_host(struct service_spec *s, const char *t, struct err *e)
{
    AUTO_FREE char *line = host_line(t);
    if (!line)
        return err_set(e, E_INVALID, "the host \"%s\" must be NAME:IP", t);
    strs_add_once(&box(s)->hosts, line);
    return 0;
}

static bool rm_host(struct service_spec *s, const char *k)
{
    AUTO_FREE char *line = host_line(k);
    for (uint32_t i = 0; !line && i < box(s)->hosts.n; i++) { /* a name alone */
        const char *name = strchr(box(s)->hosts.v[i], ' ');
        if (name && !strcmp(name + 1, k))
            return strs_drop(&box(s)->hosts, box(s)->hosts.v[i], strlen(box(s)->hosts.v[i]) + 1);
    }
    return line && strs_drop(&box(s)->hosts, line, 0);
}

#define DNS(word, member)                                                                   \
    static int add_##word(struct service_spec *s, const char *t, struct err *e)             \
    {                                                                                       \
        NEED(box(s)->dns);                                                                  \
        strs_add_once(&box(s)->dns->member, t);                                             \
        return 0;                                                                           \
    }                                                                                       \
    static bool rm_##word(struct service_spec *s, const char *k)                            \
    {                                                                                       \
        return box(s)->dns && strs_drop(&box(s)->dns->member, k, 0);                        \
    }
DNS(dns, nameservers)
DNS(dns_search, search)
DNS(dns_option, options)

static const struct { const char *name; list_add_fn *add; list_rm_fn *rm; } kinds[] = {
    { "env", add_env, rm_env },
    { "label", add_label, rm_label },
    { "container-label", add_container_label, rm_container_label },
    { "mount", add_mount, rm_mount },
    { "network", add_network, rm_network },
    { "publish", add_publish, rm_publish },
    { "constraint", add_constraint, rm_constraint },
    { "placement-pref", add_pref, rm_pref },
    { "secret", add_secret, rm_secret },
    { "config", add_config, rm_config },
    { "ulimit", add_ulimit, rm_ulimit },
    { "sysctl", add_sysctl, rm_sysctl },
    { "host", add_host, rm_host },
    { "dns", add_dns, rm_dns },
    { "dns-search", add_dns_search, rm_dns_search },
    { "dns-option", add_dns_option, rm_dns_option },
    { "group", add_group, rm_group },
};

static int env_files(struct cli *c, struct service_spec *s, struct err *e)
{
    for (uint32_t i = 0; cli_has(c, "env-file") && i < cli_list(c, "env-file")->n; i++) {
        const char *path = cli_list(c, "env-file")->v[i];
        struct bytes text = { 0 };
        struct labels env = { 0 };
        int rc = term_read_input(path, 1 << 20, &text, e);
        if (rc == 0) {
            struct stack_source src = { path, (const char *)text.v, text.n };
            rc = stack_env_file_parse(&src, true, NULL, &env, e);
        }
        for (uint32_t k = 0; rc == 0 && k < env.n; k++) {
            AUTO_FREE char *pair = xasprintf("%s=%s", env.v[k].key, env.v[k].value);
            rc = value_env(&box(s)->env, pair);
        }
        labels_clear(&env);
        free(text.v);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void capabilities(struct cli *c, struct container_spec_model *k)
{
    const struct strs *add = cli_list(c, "cap-add"), *drop = cli_list(c, "cap-drop");
    for (uint32_t i = 0; i < add->n; i++) {
        strs_drop(&k->cap_drop, add->v[i], 0);
        strs_add_once(&k->cap_add, add->v[i]);
    }
    for (uint32_t i = 0; i < drop->n; i++) {
        strs_drop(&k->cap_add, drop->v[i], 0);
        strs_add_once(&k->cap_drop, drop->v[i]);
    }
}

int service_lists_from_flags(struct cli *c, struct service_spec *s, struct err *e)
{
    int rc = env_files(c, s, e);
    capabilities(c, box(s));
    for (unsigned i = 0; rc == 0 && i < ARRAY_N(kinds); i++) {
        char add[32], rm[32];
        snprintf(add, sizeof add, "%s-add", kinds[i].name);
        snprintf(rm, sizeof rm, "%s-rm", kinds[i].name);
        for (uint32_t k = 0; cli_has(c, rm) && k < cli_list(c, rm)->n; k++)
            if (!kinds[i].rm(s, cli_list(c, rm)->v[k]))
                fprintf(c->err, "Warning: --%s %s: the service has no such %s\n", rm, cli_list(c, rm)->v[k],
                        kinds[i].name);
        const char *flag = cli_has(c, add) ? add : cli_has(c, kinds[i].name) ? kinds[i].name : NULL;
        for (uint32_t k = 0; rc == 0 && flag && k < cli_list(c, flag)->n; k++)
            rc = kinds[i].add(s, cli_list(c, flag)->v[k], e);
    }
    return rc;
}
