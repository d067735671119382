/* Control of services: validation against the state, then one transaction. Names of networks, secrets and
 * configs in a spec are resolved to ids here, so that what is stored never depends on a later renaming. */
#include "control.h"
#include <shoal/base/file.h>
#include <stdio.h>

static int resolve_networks(const struct store *s, struct service_spec *spec, struct err *e)
{
    for (uint32_t i = 0; i < spec->task.networks.n; i++) {
        struct network_ref *ref = &spec->task.networks.v[i];
        const void *found;
        int r = store_lookup(s, TABLE_NETWORK, ref->target, &found, e);
        if (r < 0)
            return err_set(e, -r, "TaskTemplate.Networks[%u]: network %.100s not found; make it with `shoal network create "
                           "%.100s`", i, ref->target, ref->target);
        const struct network *net = found;
        if (net->ingress)
            return err_set(e, E_INVALID, "TaskTemplate.Networks[%u]: the ingress network is for published "
                           "ports only; remove it", i);
        str_set(&ref->target, net->id);
    }
    return 0;
}

static int resolve_file(const struct store *s, enum store_table t, uint32_t i, char **id, char **name,
                        struct err *e)
{
    const char *field = t == TABLE_SECRET ? "Secrets" : "Configs";
    const void *found = *id ? store_find(s, t, *id) : NULL;
    if (!found && *name)
        found = store_find_name(s, t, *name);
    if (!found)
        return err_set(e, E_INVALID, "TaskTemplate.ContainerSpec.%s[%u]: %s %s not found; create it first",
                       field, i, store_word(t), *name ? *name : *id ? *id : "");
    str_set(id, ((const struct object_head *)found)->id);
    str_set(name, t == TABLE_SECRET ? ((const struct secret *)found)->spec.name
                                    : ((const struct config *)found)->spec.name);
    return 0;
}

static int resolve_files(const struct store *s, struct service_spec *spec, struct err *e)
{
    struct container_spec_model *c = spec->task.container;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < c->secrets.n; i++)
        r = resolve_file(s, TABLE_SECRET, i, &c->secrets.v[i].id, &c->secrets.v[i].name, e);
    for (uint32_t i = 0; r == 0 && i < c->configs.n; i++)
        r = resolve_file(s, TABLE_CONFIG, i, &c->configs.v[i].id, &c->configs.v[i].name, e);
    return r;
}

/* The cluster's own: published, they would be taken from the very links by which this could be undone. */
static int check_own_ports(const struct store *s, const struct endpoint_spec *ep, struct err *e)
{
    for (const struct node *n = NULL; ep && (n = store_next(s, TABLE_NODE, n));)
        for (uint32_t k = 0; k < ep->ports.n; k++) {
            const char *use = port_use_of_node(&ep->ports.v[k], n->control_port, n->gossip_port, n->tunnel_port);
            if (use)
                return err_set(e, E_INVALID, "port '%u' is the cluster's own: node %s uses it for %s; choose another",
                               (unsigned)ep->ports.v[k].published,
                               n->description.hostname ? n->description.hostname : n->id, use);
        }
    return 0;
}

static int check_ports(const struct store *s, const char *own_id, const struct endpoint_spec *ep,
                       struct err *e)
{
    for (const struct service *svc = NULL; ep && (svc = store_next(s, TABLE_SERVICE, svc));)
        for (uint32_t i = 0; i < svc->endpoint.ports.n && !str_equal(svc->id, own_id); i++)
            for (uint32_t k = 0; k < ep->ports.n; k++) {
                const struct port *have = &svc->endpoint.ports.v[i], *want = &ep->ports.v[k];
                if (want->published && want->published == have->published &&
                    want->protocol == have->protocol &&
                    (want->mode == PUBLISH_INGRESS || have->mode == PUBLISH_INGRESS))
                    return err_set(e, E_INVALID, "port '%u' is already in use by service '%s' (%s) as %s "
                                   "port; choose another", (unsigned)want->published, svc->spec.name,
                                   svc->id, have->mode == PUBLISH_INGRESS ? "an ingress" : "a host");
            }
    return 0;
}

static int check_spec(const struct manager *m, const char *own_id, struct service_spec *spec, struct err *e)
{
    int r = rec_check(&service_spec_rec, spec, e);
    if (r == 0)
        r = service_spec_normalize(spec, e);
    if (r == 0)
        r = resolve_networks(m->store, spec, e);
    if (r == 0)
        r = resolve_files(m->store, spec, e);
    if (r == 0)
        r = check_own_ports(m->store, spec->endpoint, e);
    if (r == 0)
        r = check_ports(m->store, own_id, spec->endpoint, e);
    return r;
}

void control_service_create(struct manager *m, struct service_spec *spec, const char *registry_auth,
                            char ret_id[26], manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    int r = control_ready(m, &e);
    if (r == 0)
        r = check_spec(m, NULL, spec, &e);
    if (r < 0) {
        done(arg, r, &e);
        return;
    }
    struct service svc = { .spec_version = 1 };
    char id[26];
    id_random(id);
    str_set(&svc.id, id);
    str_set(&svc.registry_auth, registry_auth);
    svc.spec = *spec;
    *spec = (struct service_spec){ 0 };
    if (ret_id)
        memcpy(ret_id, id, sizeof id);
    control_create(m, TABLE_SERVICE, &svc, done, arg);
    service_clear(&svc);
}

static void begin_update(struct service *svc, const struct service_spec *before, int rollback)
{
    if (!service_spec_needs_new_tasks(before, &svc->spec))
        return;
    svc->spec_version++;
    if (!svc->update_status)
        svc->update_status = xnew(struct update_status);
    svc->update_status->state = rollback ? UPDATE_ROLLBACK_STARTED : UPDATE_UPDATING;
    svc->update_status->started_at = clock_real_ns();
    svc->update_status->completed_at = 0;
    str_set(&svc->update_status->message, rollback ? "manually requested rollback" : "update in progress");
}

static int check_update(const struct manager *m, const struct service *old, struct service_spec *spec,
                        int rollback, struct err *e)
{
    if (rollback) {
        if (!old->previous)
            return err_set(e, E_INVALID, "service %s does not have a previous spec to roll back to",
                           old->spec.name);
        service_spec_clear(spec);
        service_spec_copy(spec, old->previous);
        return 0;
    }
    int r = check_spec(m, old->id, spec, e);
    if (r < 0)
        return r;
    if (!str_equal(spec->name, old->spec.name))
        return err_set(e, E_INVALID, "Name: renaming services is not supported; create a new one");
    if (!spec->mode.global != !old->spec.mode.global)
        return err_set(e, E_INVALID, "Mode: service mode change is not allowed; create a new service");
    return 0;
}

void control_service_update(struct manager *m, const char *ref, uint64_t version, struct service_spec *spec,
                            int rollback, const char *registry_auth, manager_done_fn *done, void *arg)
{
    struct err e = { 0 };
    const void *found = NULL;
    int r = control_ready(m, &e);
    if (r == 0)
        r = store_lookup(m->store, TABLE_SERVICE, ref, &found, &e);
    if (r == 0)
        r = check_update(m, found, spec, rollback, &e);
    if (r < 0) {
        done(arg, r, &e);
        return;
    }
    struct service svc = { 0 };
    service_copy(&svc, found);
    svc.version.index = version;
    if (!svc.previous)
        svc.previous = xnew(struct service_spec);
    else
        service_spec_clear(svc.previous);
    *svc.previous = svc.spec;
    svc.spec = *spec;
    *spec = (struct service_spec){ 0 };
    if (registry_auth)
        str_set(&svc.registry_auth, registry_auth);
    begin_update(&svc, svc.previous, rollback);
    control_update(m, TABLE_SERVICE, &svc, done, arg);
    service_clear(&svc);
}

void control_service_remove(struct manager *m, const char *ref, manager_done_fn *done, void *arg)
{
    control_remove(m, TABLE_SERVICE, ref, NULL, done, arg);
}
