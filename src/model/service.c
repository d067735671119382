/* What the service rows cannot say: rules that span fields, defaults, and which change replaces tasks.
 * Sentences follow Docker's where its clients look for them. */
#include <ctype.h>
#include <stdio.h>
#include <shoal/model/log_driver.h>
#include <shoal/model/service.h>

const char *check_name(const char *s)
{
    if (!isalnum((unsigned char)s[0]))
        return "must start with a letter or digit";
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
            return "may hold only letters, digits, '-', '_' and '.'";
    return NULL;
}

const char *check_image(const char *s)
{
    for (const char *c = s; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-_./:@", *c))
            return "is not an image reference (letters, digits and -_./:@ only)";
    return s[0] == '-' || s[0] == '/' ? "is not an image reference" : NULL;
}

const char *check_constraint(const char *s)
{
    const char *op = strstr(s, "==");
    if (!op)
        op = strstr(s, "!=");
    if (!op)
        return "is not KEY==VALUE or KEY!=VALUE";
    size_t len = (size_t)(op - s);
    while (len && isspace((unsigned char)s[len - 1]))
        len--;
    static const char *const keys[] = { "node.id", "node.hostname", "node.role", "node.ip",
                                        "node.platform.os", "node.platform.arch" };
    for (size_t i = 0; i < ARRAY_N(keys); i++)
        if (strlen(keys[i]) == len && !strncmp(keys[i], s, len))
            return NULL;
    if ((str_starts(s, "node.labels.") && len > 12) || (str_starts(s, "engine.labels.") && len > 14))
        return NULL;
    return "has an unknown key (node.id, node.hostname, node.role, node.ip, node.platform.os, "
           "node.platform.arch, node.labels.NAME, engine.labels.NAME)";
}

const char *check_env(const char *s)
{
    return s[0] == '=' || !s[0] ? "has no name before '='" : NULL;
}

const char *check_abs_path(const char *s)
{
    if (s[0] != '/')
        return "must be an absolute path";
    for (const char *p = s; (p = strstr(p, "/..")); p += 3)
        if (p[3] == '/' || !p[3])
            return "must not contain '..'";
    return NULL;
}

struct restart_policy service_restart_policy(const struct task_spec *t)
{
    if (t->restart)
        return *t->restart;
    return (struct restart_policy){ .condition = RESTART_ANY, .delay = INT64_C(5000000000) };
}

struct update_config service_update_config(const struct update_config *c)
{
    struct update_config r = c ? *c : (struct update_config){ .parallelism = 1 };
    if (!r.monitor)
        r.monitor = INT64_C(5000000000);
    return r;
}

static int check_mode(struct service_spec *s, struct err *e)
{
    if (s->mode.replicated && s->mode.global)
        return err_set(e, E_INVALID, "Mode: give Replicated or Global, not both");
    if (!s->mode.replicated && !s->mode.global) {
        s->mode.replicated = xnew(struct replicated);
        s->mode.replicated->replicas = 1;
    }
    if (s->mode.global && s->task.placement && s->task.placement->max_replicas)
        return err_set(e, E_INVALID,
                       "TaskTemplate.Placement.MaxReplicas: only for replicated services; remove it");
    return 0;
}

const char *port_use_of_node(const struct port *p, uint64_t control, uint64_t gossip, uint64_t tunnel)
{
    if (!p->published || p->protocol == PROTO_SCTP)
        return NULL;
    if (p->protocol == PROTO_TCP)
        return p->published == control ? "control" : NULL;
    return p->published == gossip ? "gossip" : p->published == tunnel ? "the tunnel" : NULL;
}

static int check_ports(const struct endpoint_spec *ep, struct err *e)
{
    for (uint32_t i = 0; i < ep->ports.n; i++) {
        const struct port *p = &ep->ports.v[i];
        if (ep->mode == ENDPOINT_DNSRR && p->mode == PUBLISH_INGRESS)
            return err_set(e, E_INVALID,
                           "EndpointSpec.Ports[%u]: port %u is published by ingress, which needs "
                           "endpoint mode vip; use vip or publish mode host", i, (unsigned)p->target);
        if (p->mode == PUBLISH_HOST && !p->published)
            return err_set(e, E_UNSUPPORTED, "EndpointSpec.Ports[%u]: port %u is published by its host, which needs "
                           "a fixed published port; name one, or use publish mode ingress", i, (unsigned)p->target);
        for (uint32_t j = 0; j < i && p->published; j++) {
            const struct port *q = &ep->ports.v[j];
            if (q->published == p->published && q->protocol == p->protocol && q->mode == p->mode)
                return err_set(e, E_INVALID, "EndpointSpec.Ports[%u]: port %u/%s is published twice",
                               i, (unsigned)p->published, port_protocol_names[p->protocol]);
        }
    }
    return 0;
}

static int check_mounts(const struct container_spec_model *c, struct err *e)
{
    for (uint32_t i = 0; i < c->mounts.n; i++) {
        const struct mount *m = &c->mounts.v[i];
        char at[64];
        snprintf(at, sizeof at, "TaskTemplate.ContainerSpec.Mounts[%u]", i);
        if (m->type > MOUNT_TMPFS)
            return err_set(e, E_UNSUPPORTED, "%s.Type: %s mounts are not built in shoal; use bind, "
                           "volume or tmpfs", at, mount_type_names[m->type]);
        if (m->type == MOUNT_BIND && (!m->source || m->source[0] != '/'))
            return err_set(e, E_INVALID, "%s.Source: a bind mount needs an absolute host path", at);
        if (m->type == MOUNT_TMPFS && m->source)
            return err_set(e, E_INVALID, "%s.Source: a tmpfs has no source; remove it", at);
        if (m->volume && m->volume->driver &&
            ((m->volume->driver->name && strcmp(m->volume->driver->name, "local")) ||
             m->volume->driver->options.n))
            return err_set(e, E_UNSUPPORTED, "%s.VolumeOptions.DriverConfig: only the local driver "
                           "without options is built", at);
        for (uint32_t j = 0; j < i; j++)
            if (str_equal(c->mounts.v[j].target, m->target))
                return err_set(e, E_INVALID, "%s.Target: %s is mounted twice", at, m->target);
    }
    return 0;
}

static int check_log_driver(const struct driver *d, struct err *e)
{
    struct log_driver ignored;
    return d ? log_driver_read(&ignored, d->name, &d->options, "TaskTemplate.LogDriver", e) : 0;
}

static int name_index(const char *const *names, const char *name)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

enum balance service_balance(const struct service_spec *s)
{
    const char *name = labels_get(&s->labels, BALANCE_LABEL);
    int i = name ? name_index(balance_names, name) : -1;
    return i < 0 ? BALANCE_RANDOM : (enum balance)i;
}

static int check_balance(const struct service_spec *s, struct err *e)
{
    const char *name = labels_get(&s->labels, BALANCE_LABEL);
    if (name && name_index(balance_names, name) < 0)
        return err_set(e, E_UNSUPPORTED, "Labels." BALANCE_LABEL ": \"%s\" is not built; random and source are", name);
    return 0;
}

int service_spec_normalize(struct service_spec *s, struct err *e)
{
    if (!s->task.container || !s->task.container->image)
        return err_set(e, E_INVALID, "TaskTemplate.ContainerSpec.Image: an image is required");
    if (s->task.runtime && strcmp(s->task.runtime, "container"))
        return err_set(e, E_UNSUPPORTED, "TaskTemplate.Runtime: only \"container\" is built");
    if (s->networks.n && !s->task.networks.n) {
        s->task.networks.v = TAKE(s->networks.v);
        s->task.networks.n = s->networks.n;
        s->networks.n = 0;
    }
    int r = check_mode(s, e);
    if (r == 0 && s->endpoint)
        r = check_ports(s->endpoint, e);
    if (r == 0)
        r = check_balance(s, e);
    if (r == 0)
        r = check_mounts(s->task.container, e);
    if (r == 0)
        r = check_log_driver(s->task.log_driver, e);
    if (r == 0 && s->update && (s->update->max_failure_ratio < 0 || s->update->max_failure_ratio > 1))
        r = err_set(e, E_INVALID, "UpdateConfig.MaxFailureRatio: must be between 0 and 1");
    if (r == 0 && s->rollback && s->rollback->failure_action == FAILURE_ROLLBACK)
        r = err_set(e, E_INVALID, "RollbackConfig.FailureAction: must be pause or continue");
    return r;
}

static void count_diff(void *arg, const char *path, const struct field *f)
{
    (void)path, (void)f;
    ++*(unsigned *)arg;
}

bool service_spec_needs_new_tasks(const struct service_spec *a, const struct service_spec *b)
{
    unsigned n = 0;
    rec_diff(&service_spec_rec, a, b, F_LIVE, count_diff, &n);
    return n > 0 || !endpoint_spec_equal(a->endpoint ? a->endpoint : &(struct endpoint_spec){ 0 },
                                         b->endpoint ? b->endpoint : &(struct endpoint_spec){ 0 });
}
