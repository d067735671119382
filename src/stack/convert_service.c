/* One Compose service to a service_spec: the container's own keys. deploy:, ports: and volumes: have files of
 * their own. Errors are placed in the file; limits of the record are checked at the end of it. */
#include <ctype.h>
#include "stack_internal.h"

/* command and entrypoint: a list as it is, text as a shell would split it */
static int convert_words(struct load *l, const struct val *service, const char *key, struct strs *ret)
{
    const struct val *v = member(service, key);
    if (!v)
        return 0;
    int rc = 0;
    if (v->kind == V_LIST) {
        rc = get_strs(l, service, key, ret);
    } else if (stack_shell_split(v->s, ret) < 0) {
        at_key(l, key);
        return bad(l, v, E_INVALID, "has a quote that is not closed");
    }
    if (rc == 0 && !ret->n) {
        at_key(l, key);
        return bad(l, v, E_UNSUPPORTED, "an empty one cannot replace the image's; name a program or "
                   "remove it");
    }
    return rc;
}

static int env_file(struct load *l, const struct val *item, struct labels *vars)
{
    AUTO_FREE char *path = NULL, *format = NULL;
    bool required = true;
    int rc = 0;
    if (item->kind == V_STR) {
        path = xstrdup(item->s);
    } else if ((rc = get_str(l, item, "path", &path)) < 0 || (rc = get_str(l, item, "format", &format)) < 0 ||
               (rc = get_bool(l, item, "required", &required)) < 0) {
        return rc;
    }
    if (!path)
        return bad(l, item, E_INVALID, "path: is required");
    if (format && strcmp(format, "raw") != 0)
        return bad(l, item, E_UNSUPPORTED, "format: \"%.30s\" is not built; only raw", format);
    struct bytes text = { 0 };
    struct err e = { 0 };
    rc = read_file(l, item, path, 1 << 20, &text);
    if (rc == -E_NOT_FOUND && !required)
        return 0;
    if (rc < 0)
        return rc;
    struct stack_source src = { path, text.v ? (const char *)text.v : "", text.n };
    rc = stack_env_file_parse(&src, format != NULL, &l->env, vars, &e);
    free(text.v);
    return rc < 0 ? bad(l, item, -rc, "%s", e.text) : 0;
}

static int env_files(struct load *l, const struct val *service, struct labels *vars)
{
    const struct val *v = member(service, "env_file");
    if (!v)
        return 0;
    size_t mark = at_key(l, "env_file");
    if (v->kind == V_STR) {
        int rc = env_file(l, v, vars);
        if (rc == 0)
            at_back(l, mark);
        return rc;
    }
    for (uint32_t i = 0; i < v->n; i++) {
        size_t here = at_index(l, i);
        int rc = env_file(l, v->list[i], vars);
        if (rc < 0)
            return rc;
        at_back(l, here);
    }
    at_back(l, mark);
    return 0;
}

/* A name without a value is taken from the environment; when it is not there the name alone says that the
 * container shall not have it, even if its image does. */
static int convert_env(struct load *l, const struct val *service, struct strs *env)
{
    struct labels vars = { 0 };
    struct strs unset = { 0 };
    const struct val *v = member(service, "environment");
    int rc = env_files(l, service, &vars);
    for (uint32_t i = 0; rc == 0 && v && i < v->n; i++) {
        AUTO_FREE char *name = NULL, *value = NULL;
        const struct val *at = v->kind == V_MAP ? v->map[i].value : v->list[i];
        if (v->kind == V_MAP) {
            name = xstrdup(v->map[i].key->s);
            value = scalar_text(at);
        } else {
            const char *eq = strchr(at->s, '=');
            name = eq ? xstrndup(at->s, (size_t)(eq - at->s)) : xstrdup(at->s);
            value = eq ? xstrdup(eq + 1) : NULL;
        }
        if (!name[0] || strchr(name, '=')) {
            at_key(l, "environment");
            rc = bad(l, at, E_INVALID, "has a variable without a name");
            break;
        }
        const char *given = value ? value : labels_get(&l->env, name);
        if (given) {
            labels_set(&vars, name, given);
        } else {
            labels_unset(&vars, name);
            strs_add(&unset, name);
        }
    }
    for (uint32_t i = 0; rc == 0 && i < vars.n; i++) {
        AUTO_FREE char *pair = xasprintf("%s=%s", vars.v[i].key, vars.v[i].value);
        strs_add(env, pair);
    }
    for (uint32_t i = 0; rc == 0 && i < unset.n; i++)
        if (!labels_get(&vars, unset.v[i]) && !strs_has(env, unset.v[i]))
            strs_add(env, unset.v[i]);
    labels_clear(&vars);
    strs_clear(&unset);
    return rc;
}

static int health_test(struct load *l, const struct val *v, struct healthcheck *h)
{
    const struct val *test = member(v, "test");
    int rc = 0;
    if (!test)
        return 0;
    if (test->kind == V_STR) {
        if (test->s[0]) {
            strs_add(&h->test, "CMD-SHELL");
            strs_add(&h->test, test->s);
        }
        return 0;
    }
    if ((rc = get_strs(l, v, "test", &h->test)) < 0 || h->test.n == 0)
        return rc;
    const char *first = h->test.v[0];
    bool none = strcmp(first, "NONE") == 0, shell = strcmp(first, "CMD-SHELL") == 0;
    if ((none && h->test.n == 1) || (shell && h->test.n == 2) ||
        (strcmp(first, "CMD") == 0 && h->test.n > 1))
        return 0;
    at_key(l, "test");
    return bad(l, test, E_INVALID,
               "must be [\"CMD\", program, ...], [\"CMD-SHELL\", \"text\"], [\"NONE\"] or a string");
}

static int convert_health(struct load *l, const struct val *service, struct container_spec_model *c)
{
    const struct val *v = member(service, "healthcheck");
    bool disable = false;
    if (!v)
        return 0;
    struct healthcheck *h = c->healthcheck = xnew(struct healthcheck);
    size_t mark = at_key(l, "healthcheck");
    int rc = get_bool(l, v, "disable", &disable);
    if (rc == 0)
        rc = health_test(l, v, h);
    if (rc < 0)
        return rc;
    if (disable && h->test.n && strcmp(h->test.v[0], "NONE") != 0)
        return bad(l, v, E_INVALID, "disable and test are given; remove one");
    if (disable && !h->test.n)
        strs_add(&h->test, "NONE");
    if ((rc = get_ns(l, v, "interval", &h->interval)) < 0 ||
        (rc = get_ns(l, v, "timeout", &h->timeout)) < 0 ||
        (rc = get_i64(l, v, "retries", 0, 1000, &h->retries)) < 0 ||
        (rc = get_ns(l, v, "start_period", &h->start_period)) < 0 ||
        (rc = get_ns(l, v, "start_interval", &h->start_interval)) < 0)
        return rc;
    at_back(l, mark);
    return 0;
}

static int convert_caps(struct load *l, const struct val *service, const char *key, struct strs *ret)
{
    int rc = get_strs(l, service, key, ret);
    for (uint32_t i = 0; rc == 0 && i < ret->n; i++) {
        char *s = ret->v[i];
        for (char *c = s; *c; c++)
            *c = (char)toupper((unsigned char)*c);
        if (strcmp(s, "ALL") != 0 && !str_starts(s, "CAP_")) {
            ret->v[i] = xasprintf("CAP_%s", s);
            free(s);
        }
    }
    return rc;
}

static int convert_ulimits(struct load *l, const struct val *service, struct container_spec_model *c)
{
    const struct val *v = member(service, "ulimits");
    size_t mark = at_key(l, "ulimits");
    for (uint32_t i = 0; v && i < v->n; i++) {
        const struct val *item = v->map[i].value;
        const char *name = v->map[i].key->s;
        struct ulimit *u = REC_ADD(&c->ulimits);
        str_set(&u->name, name);
        int rc = 0;
        if (item->kind == V_MAP) {
            size_t here = at_key(l, name);
            if (!member(item, "soft") || !member(item, "hard"))
                return bad(l, item, E_INVALID, "soft and hard are required");
            if ((rc = get_i64(l, item, "soft", -1, INT64_MAX, &u->soft)) == 0)
                rc = get_i64(l, item, "hard", -1, INT64_MAX, &u->hard);
            if (rc == 0)
                at_back(l, here);
        } else if (item->kind == V_NULL) {
            at_key(l, name);
            return bad(l, v, E_INVALID, "is empty; give a number or soft and hard");
        } else if ((rc = get_i64(l, v, name, -1, INT64_MAX, &u->soft)) == 0) {
            u->hard = u->soft;
        }
        if (rc < 0)
            return rc;
    }
    at_back(l, mark);
    return 0;
}

static int add_host(struct load *l, const struct val *at, const char *name, const char *ip,
                    struct container_spec_model *c)
{
    if (strcmp(ip, "host-gateway") == 0)
        return bad(l, at, E_UNSUPPORTED, "host-gateway is not built in shoal yet; write an address");
    size_t len = strlen(ip);
    bool brackets = len > 2 && ip[0] == '[' && ip[len - 1] == ']';
    AUTO_FREE char *bare = brackets ? xstrndup(ip + 1, len - 2) : xstrdup(ip);
    if (!name[0] || !bare[0] || bare[strspn(bare, "0123456789abcdefABCDEF.:")])
        return bad(l, at, E_INVALID, "\"%.60s\" is not NAME=ADDRESS", at->kind == V_STR ? at->s : name);
    AUTO_FREE char *entry = xasprintf("%s %s", bare, name);
    strs_add(&c->hosts, entry);
    return 0;
}

static int convert_hosts(struct load *l, const struct val *service, struct container_spec_model *c)
{
    const struct val *v = member(service, "extra_hosts");
    size_t mark = at_key(l, "extra_hosts");
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && v && i < v->n; i++) {
        const struct val *item = v->kind == V_MAP ? v->map[i].value : v->list[i];
        if (v->kind == V_MAP) {
            const char *name = v->map[i].key->s;
            for (uint32_t k = 0; rc == 0 && item->kind == V_LIST && k < item->n; k++)
                rc = add_host(l, item->list[k], name, item->list[k]->s, c);
            if (rc == 0 && item->kind != V_LIST)
                rc = add_host(l, item, name, item->kind == V_STR ? item->s : "", c);
            continue;
        }
        const char *sep = strchr(item->s, '=');
        if (!sep)
            sep = strchr(item->s, ':');
        AUTO_FREE char *name = sep ? xstrndup(item->s, (size_t)(sep - item->s)) : xstrdup("");
        rc = add_host(l, item, name, sep ? sep + 1 : "", c);
    }
    if (rc == 0)
        at_back(l, mark);
    return rc;
}

static int convert_dns(struct load *l, const struct val *service, struct container_spec_model *c)
{
    struct dns_config d = { 0 };
    int rc = get_strs(l, service, "dns", &d.nameservers);
    if (rc == 0)
        rc = get_strs(l, service, "dns_search", &d.search);
    if (rc == 0)
        rc = get_strs(l, service, "dns_opt", &d.options);
    if (rc < 0 || rec_is_zero(&dns_config_rec, &d)) {
        dns_config_clear(&d);
        return rc;
    }
    c->dns = xnew(struct dns_config);
    *c->dns = d;
    return 0;
}

static int convert_security(struct load *l, const struct val *service, struct container_spec_model *c)
{
    const struct val *v = member(service, "security_opt");
    size_t mark = at_key(l, "security_opt");
    for (uint32_t i = 0; v && i < v->n; i++) {
        const struct val *item = v->list[i];
        const char *s = item->s;
        if (!c->privileges)
            c->privileges = xnew(struct privileges);
        if (strcmp(s, "no-new-privileges") == 0 || strcmp(s, "no-new-privileges:true") == 0 ||
            strcmp(s, "no-new-privileges=true") == 0) {
            c->privileges->no_new_privs = true;
        } else if (strcmp(s, "seccomp:unconfined") == 0 || strcmp(s, "seccomp=unconfined") == 0) {
            if (!c->privileges->seccomp)
                c->privileges->seccomp = xnew(struct seccomp_option);
            str_set(&c->privileges->seccomp->mode, "unconfined");
        } else {
            at_index(l, i);
            return bad(l, item, E_UNSUPPORTED, "\"%.60s\" is not built; only no-new-privileges:true and "
                       "seccomp:unconfined", s);
        }
    }
    at_back(l, mark);
    return 0;
}

static int convert_logging(struct load *l, const struct val *service, struct task_spec *t)
{
    const struct val *v = member(service, "logging");
    if (!v)
        return 0;
    t->log_driver = xnew(struct driver);
    size_t mark = at_key(l, "logging");
    int rc = get_str(l, v, "driver", &t->log_driver->name);
    if (rc == 0)
        rc = get_labels(l, v, "options", &t->log_driver->options);
    if (rc < 0)
        return rc;
    if (!t->log_driver->name)
        str_set(&t->log_driver->name, "json-file");
    at_back(l, mark);
    return 0;
}

/* A relative name is below /run/secrets for secrets and / for configs. */
static int convert_file_refs(struct load *l, const struct val *service, const char *key,
                             struct container_spec_model *c)
{
    bool secret = strcmp(key, "secrets") == 0;
    const struct val *v = member(service, key), *all = member(l->root, key);
    size_t mark = at_key(l, key);
    for (uint32_t i = 0; v && i < v->n; i++) {
        const struct val *item = v->list[i];
        AUTO_FREE char *source = item->kind == V_STR ? xstrdup(item->s) : NULL, *name = NULL;
        struct file_target *f = xnew(struct file_target);
        bool external;
        size_t here = at_index(l, i);
        if (secret) {
            struct secret_ref *r = REC_ADD(&c->secrets);
            r->file = f;
        } else {
            struct config_ref *r = REC_ADD(&c->configs);
            r->file = f;
        }
        int rc = 0;
        f->mode = 0444;
        if (item->kind == V_MAP && ((rc = get_str(l, item, "source", &source)) < 0 ||
                                    (rc = get_str(l, item, "target", &f->name)) < 0 ||
                                    (rc = get_text(l, item, "uid", &f->uid)) < 0 ||
                                    (rc = get_text(l, item, "gid", &f->gid)) < 0 ||
                                    (rc = get_mode(l, item, "mode", &f->mode)) < 0))
            return rc;
        if (!source)
            return bad(l, item, E_INVALID, "source: is required");
        const struct val *decl = all ? val_get(all, source) : NULL;
        if (!decl)
            return bad(l, item, E_INVALID, "the %s \"%.60s\" is not declared; add it under %s:",
                       secret ? "secret" : "config", source, key);
        if ((rc = full_name(l, decl, source, &name, &external)) < 0)
            return rc;
        if (!f->name)
            f->name = secret ? xstrdup(source) : xasprintf("/%s", source);
        if (!f->uid)
            f->uid = xstrdup("0");
        if (!f->gid)
            f->gid = xstrdup("0");
        str_set(secret ? &c->secrets.v[i].name : &c->configs.v[i].name, name);
        at_back(l, here);
    }
    at_back(l, mark);
    return 0;
}

static int add_network(struct load *l, const struct val *at, const char *key, const struct val *options,
                       const char *service_name, struct task_spec *t)
{
    const struct val *all = member(l->root, "networks"), *decl = all ? val_get(all, key) : NULL;
    AUTO_FREE char *name = NULL;
    bool external;
    if (!decl && strcmp(key, "default") != 0)
        return bad(l, at, E_INVALID, "the network \"%.60s\" is not declared; add it under networks:", key);
    int rc = full_name(l, decl, key, &name, &external);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < t->networks.n; i++)
        if (strcmp(t->networks.v[i].target, name) == 0)
            return bad(l, at, E_INVALID, "the network \"%.60s\" is named twice; remove one", key);
    struct network_ref *r = REC_ADD(&t->networks);
    str_set(&r->target, name);
    if (options && (rc = get_strs(l, options, "aliases", &r->aliases)) < 0)
        return rc;
    if (!strs_has(&r->aliases, service_name))
        strs_add(&r->aliases, service_name);
    return 0;
}

static int by_target(const void *a, const void *b)
{
    return strcmp(((const struct network_ref *)a)->target, ((const struct network_ref *)b)->target);
}

static int convert_networks(struct load *l, const char *service_name, const struct val *service,
                            struct task_spec *t)
{
    const struct val *v = member(service, "networks");
    size_t mark = at_key(l, "networks");
    if (!v || !v->n) {
        at_back(l, mark);
        return add_network(l, service, "default", NULL, service_name, t);
    }
    for (uint32_t i = 0; i < v->n; i++) {
        const struct val *at = v->kind == V_MAP ? v->map[i].key : v->list[i];
        const struct val *options = v->kind == V_MAP && v->map[i].value->kind == V_MAP ? v->map[i].value
                                                                                       : NULL;
        size_t here = v->kind == V_MAP ? at_key(l, at->s) : at_index(l, i);
        int rc = add_network(l, at, at->s, options, service_name, t);
        if (rc < 0)
            return rc;
        at_back(l, here);
    }
    qsort(t->networks.v, t->networks.n, sizeof *t->networks.v, by_target); /* order must not replace tasks */
    at_back(l, mark);
    return 0;
}

static int convert_plain(struct load *l, const struct val *v, struct container_spec_model *c)
{
    int rc;
    if ((rc = get_str(l, v, "image", &c->image)) < 0)
        return rc;
    if (!c->image)
        return bad(l, v, E_INVALID, "image: is required");
    if ((rc = convert_words(l, v, "entrypoint", &c->command)) < 0 ||
        (rc = convert_words(l, v, "command", &c->args)) < 0 || (rc = convert_env(l, v, &c->env)) < 0 ||
        (rc = get_labels(l, v, "labels", &c->labels)) < 0 ||
        (rc = get_str(l, v, "hostname", &c->hostname)) < 0 ||
        (rc = get_str(l, v, "working_dir", &c->dir)) < 0 || (rc = get_text(l, v, "user", &c->user)) < 0 ||
        (rc = get_str(l, v, "stop_signal", &c->stop_signal)) < 0 ||
        (rc = get_ns(l, v, "stop_grace_period", &c->stop_grace)) < 0 ||
        (rc = get_bool(l, v, "init", &c->init)) < 0 || (rc = get_bool(l, v, "tty", &c->tty)) < 0 ||
        (rc = get_bool(l, v, "stdin_open", &c->open_stdin)) < 0 ||
        (rc = get_bool(l, v, "read_only", &c->read_only)) < 0 ||
        (rc = get_labels(l, v, "sysctls", &c->sysctls)) < 0 ||
        (rc = get_i64(l, v, "oom_score_adj", -1000, 1000, &c->oom_score_adj)) < 0 ||
        (rc = convert_caps(l, v, "cap_add", &c->cap_add)) < 0 ||
        (rc = convert_caps(l, v, "cap_drop", &c->cap_drop)) < 0)
        return rc;
    const struct val *groups = member(v, "group_add");
    for (uint32_t i = 0; groups && i < groups->n; i++) {
        AUTO_FREE char *group = scalar_text(groups->list[i]);
        strs_add(&c->groups, group);
    }
    labels_set(&c->labels, STACK_LABEL_NAMESPACE, l->out->name);
    return 0;
}

int convert_service(struct load *l, const char *name, const struct val *v, struct service_spec *s)
{
    struct container_spec_model *c = s->task.container = xnew(struct container_spec_model);
    size_t mark = l->len;
    struct err e = { 0 };
    int rc;
    s->name = scoped_name(l, name);
    if ((rc = convert_plain(l, v, c)) < 0 || (rc = convert_health(l, v, c)) < 0 ||
        (rc = convert_ulimits(l, v, c)) < 0 || (rc = convert_hosts(l, v, c)) < 0 ||
        (rc = convert_dns(l, v, c)) < 0 || (rc = convert_security(l, v, c)) < 0 ||
        (rc = convert_logging(l, v, &s->task)) < 0 || (rc = convert_mounts(l, v, c)) < 0 ||
        (rc = convert_file_refs(l, v, "secrets", c)) < 0 ||
        (rc = convert_file_refs(l, v, "configs", c)) < 0 ||
        (rc = convert_networks(l, name, v, &s->task)) < 0 || (rc = convert_deploy(l, v, s)) < 0 ||
        (rc = convert_ports(l, v, s)) < 0)
        return rc;
    at_back(l, mark);
    labels_set(&s->labels, STACK_LABEL_NAMESPACE, l->out->name);
    labels_set(&s->labels, STACK_LABEL_IMAGE, c->image);
    rc = service_spec_normalize(s, &e);
    if (rc == 0)
        rc = rec_check(&service_spec_rec, s, &e);
    return rc < 0 ? bad(l, v, -rc, "%s", e.text) : 0;
}
