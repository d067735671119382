/* deploy: of a service (and the older restart:, scale:, platform:) to mode, resources, placement, restart and
 * update rules. Defaults are written out where Docker's own differ from the zero of the record. */
#include "stack_internal.h"

static int convert_mode(struct load *l, const struct val *service, const struct val *deploy,
                        struct service_spec *s)
{
    static const char *const modes[] = { "replicated", "global", "replicated-job", "global-job", NULL };
    const struct val *scale = member(service, "scale");
    const struct val *replicas = deploy ? member(deploy, "replicas") : NULL;
    uint64_t n = 1;
    int mode = 0, rc = 0;
    if (scale && (rc = get_u64(l, service, "scale", 100000, &n)) < 0)
        return rc;
    size_t mark = at_key(l, "deploy");
    if (deploy && ((rc = get_enum(l, deploy, "mode", modes, &mode)) < 0 ||
                   (rc = get_u64(l, deploy, "replicas", 100000, &n)) < 0))
        return rc;
    if (mode > 1) {
        at_key(l, "mode");
        return bad(l, member(deploy, "mode"), E_UNSUPPORTED, "%s is not built in shoal yet", modes[mode]);
    }
    if (mode == 1 && (scale || replicas))
        return bad(l, replicas ? replicas : scale, E_INVALID,
                   "mode global runs one task a node; remove %s", replicas ? "replicas" : "scale");
    if (scale && replicas)
        return bad(l, scale, E_INVALID, "replicas and scale are given; remove scale");
    at_back(l, mark);
    if (mode == 1) {
        s->mode.global = xnew(struct empty);
    } else {
        s->mode.replicated = xnew(struct replicated);
        s->mode.replicated->replicas = n;
    }
    return 0;
}

static int convert_update(struct load *l, const struct val *deploy, const char *key,
                          struct update_config **ret)
{
    const struct val *v = member(deploy, key);
    if (!v)
        return 0;
    struct update_config *u = *ret = xnew(struct update_config);
    size_t mark = at_key(l, key);
    u->parallelism = 1;
    int rc = get_u64(l, v, "parallelism", 100000, &u->parallelism);
    if (rc == 0)
        rc = get_ns(l, v, "delay", &u->delay);
    if (rc == 0)
        rc = get_enum(l, v, "failure_action", failure_action_names, &u->failure_action);
    if (rc == 0)
        rc = get_ns(l, v, "monitor", &u->monitor);
    if (rc == 0)
        rc = get_ratio(l, v, "max_failure_ratio", &u->max_failure_ratio);
    if (rc == 0)
        rc = get_enum(l, v, "order", update_order_names, &u->order);
    if (rc == 0 && strcmp(key, "rollback_config") == 0 && u->failure_action == FAILURE_ROLLBACK) {
        at_key(l, "failure_action");
        return bad(l, member(v, "failure_action"), E_INVALID, "must be pause or continue");
    }
    if (rc == 0)
        at_back(l, mark);
    return rc;
}

static int convert_limits(struct load *l, const struct val *v, const char *key,
                          struct resource_limits **ret)
{
    const struct val *limits = member(v, key);
    if (!limits)
        return 0;
    struct resource_limits *r = *ret = xnew(struct resource_limits);
    size_t mark = at_key(l, key);
    int rc = get_cpus(l, limits, "cpus", &r->nano_cpus);
    if (rc == 0)
        rc = get_size(l, limits, "memory", &r->memory_bytes);
    if (rc == 0)
        rc = get_i64(l, limits, "pids", -1, 4194304, &r->pids);
    if (rc == 0)
        at_back(l, mark);
    return rc;
}

static int convert_resources(struct load *l, const struct val *deploy, struct task_spec *t)
{
    const struct val *v = member(deploy, "resources");
    if (!v)
        return 0;
    size_t mark = at_key(l, "resources");
    t->resources = xnew(struct resources);
    int rc = convert_limits(l, v, "limits", &t->resources->limits);
    if (rc == 0)
        rc = convert_limits(l, v, "reservations", &t->resources->reservations);
    if (rc == 0)
        at_back(l, mark);
    return rc;
}

static struct restart_policy *new_restart(int condition)
{
    struct restart_policy *r = xnew(struct restart_policy);
    r->condition = condition;
    r->delay = INT64_C(5000000000); /* what Docker fills in when none is given */
    return r;
}

/* restart: no | always | unless-stopped | on-failure[:N] */
static int convert_restart_word(struct load *l, const struct val *service, struct task_spec *t)
{
    const struct val *v = member(service, "restart");
    if (!v)
        return 0;
    const char *s = v->kind == V_BOOL ? (v->b ? "true" : "no") : v->s;
    uint64_t attempts = 0;
    if (strcmp(s, "no") == 0)
        t->restart = new_restart(RESTART_NONE);
    else if (strcmp(s, "always") == 0 || strcmp(s, "unless-stopped") == 0)
        t->restart = new_restart(RESTART_ANY);
    else if (strcmp(s, "on-failure") == 0 ||
             (str_starts(s, "on-failure:") && str_u64(s + 11, 0, 1000000, &attempts)))
        t->restart = new_restart(RESTART_ON_FAILURE);
    if (!t->restart) {
        at_key(l, "restart");
        return bad(l, v, E_INVALID, "must be \"no\", always, unless-stopped, on-failure or on-failure:N");
    }
    t->restart->max_attempts = attempts;
    return 0;
}

/* deploy.restart_policy wins over restart:, as the Compose Specification says. */
static int convert_restart(struct load *l, const struct val *service, const struct val *deploy,
                           struct task_spec *t)
{
    const struct val *v = deploy ? member(deploy, "restart_policy") : NULL;
    int rc = convert_restart_word(l, service, t);
    if (rc < 0 || !v)
        return rc;
    size_t mark = at_key(l, "deploy");
    at_key(l, "restart_policy");
    free(t->restart);
    struct restart_policy *r = t->restart = new_restart(RESTART_ANY);
    rc = get_enum(l, v, "condition", restart_condition_names, &r->condition);
    if (rc == 0)
        rc = get_ns(l, v, "delay", &r->delay);
    if (rc == 0)
        rc = get_u64(l, v, "max_attempts", 1000000, &r->max_attempts);
    if (rc == 0)
        rc = get_ns(l, v, "window", &r->window);
    if (rc == 0)
        at_back(l, mark);
    return rc;
}

static int convert_placement(struct load *l, const struct val *deploy, struct placement *p)
{
    const struct val *v = member(deploy, "placement");
    if (!v)
        return 0;
    const struct val *prefs = member(v, "preferences"), *list = member(v, "constraints");
    size_t mark = at_key(l, "placement");
    int rc = get_strs(l, v, "constraints", &p->constraints);
    for (uint32_t i = 0; rc == 0 && i < p->constraints.n; i++) {
        const char *why = check_constraint(p->constraints.v[i]);
        if (!why)
            continue;
        at_key(l, "constraints");
        at_index(l, i);
        return bad(l, list->list[i], E_INVALID, "\"%.80s\" %s", p->constraints.v[i], why);
    }
    if (rc == 0)
        rc = get_u64(l, v, "max_replicas_per_node", 100000, &p->max_replicas);
    if (rc < 0)
        return rc;
    size_t here = at_key(l, "preferences");
    for (uint32_t i = 0; prefs && i < prefs->n; i++) {
        struct preference *pref = REC_ADD(&p->preferences);
        size_t item = at_index(l, i);
        pref->spread = xnew(struct spread);
        if ((rc = get_str(l, prefs->list[i], "spread", &pref->spread->descriptor)) < 0)
            return rc;
        if (!pref->spread->descriptor)
            return bad(l, prefs->list[i], E_INVALID, "spread: is required, like node.labels.zone");
        at_back(l, item);
    }
    at_back(l, here);
    at_back(l, mark);
    return 0;
}

/* linux/amd64[/variant] */
static int convert_platform(struct load *l, const struct val *service, struct placement *p)
{
    AUTO_FREE char *text = NULL;
    int rc = get_str(l, service, "platform", &text);
    if (rc < 0 || !text)
        return rc;
    char *slash = strchr(text, '/'), *variant = slash ? strchr(slash + 1, '/') : NULL;
    if (!slash || variant || slash == text || !slash[1]) {
        at_key(l, "platform");
        return bad(l, member(service, "platform"), E_INVALID, "\"%.60s\" is not OS/ARCHITECTURE like "
                   "linux/amd64", text);
    }
    *slash = 0;
    struct platform *platform = REC_ADD(&p->platforms);
    str_set(&platform->os, text);
    str_set(&platform->arch, slash + 1);
    return 0;
}

static int convert_endpoint_mode(struct load *l, const struct val *deploy, struct service_spec *s)
{
    if (!member(deploy, "endpoint_mode"))
        return 0;
    if (!s->endpoint)
        s->endpoint = xnew(struct endpoint_spec);
    return get_enum(l, deploy, "endpoint_mode", endpoint_mode_names, &s->endpoint->mode);
}

int convert_deploy(struct load *l, const struct val *service, struct service_spec *s)
{
    const struct val *deploy = member(service, "deploy");
    struct placement placement = { 0 };
    size_t mark = l->len;
    int rc = convert_mode(l, service, deploy, s);
    if (rc == 0)
        rc = convert_restart(l, service, deploy, &s->task);
    if (rc == 0)
        rc = convert_platform(l, service, &placement);
    if (rc == 0 && deploy) {
        at_key(l, "deploy");
        rc = get_labels(l, deploy, "labels", &s->labels);
        if (rc == 0)
            rc = convert_endpoint_mode(l, deploy, s);
        if (rc == 0)
            rc = convert_update(l, deploy, "update_config", &s->update);
        if (rc == 0)
            rc = convert_update(l, deploy, "rollback_config", &s->rollback);
        if (rc == 0)
            rc = convert_resources(l, deploy, &s->task);
        if (rc == 0)
            rc = convert_placement(l, deploy, &placement);
    }
    if (rc == 0 && placement.max_replicas && s->mode.global)
        rc = bad(l, deploy, E_INVALID, "placement.max_replicas_per_node is for replicated services; "
                 "remove it");
    if (rc == 0 && !rec_is_zero(&placement_rec, &placement)) {
        s->task.placement = xnew(struct placement);
        *s->task.placement = placement;
        placement = (struct placement){ 0 };
    }
    placement_clear(&placement);
    if (rc == 0)
        at_back(l, mark);
    return rc;
}
