/* Where in an assignment what is looked up by key stands; built once for each, as there may be thousands of services. */
#include "overlay_internal.h"
#include <stdio.h>

enum { KEY_BYTES = 128 };

static void replica_key(char out[KEY_BYTES], const char *service_id, const char *network_id)
{
    snprintf(out, KEY_BYTES, "%s %s", service_id ? service_id : "", network_id ? network_id : "");
}

static void add_vip(struct plan_index *x, const struct service_entry *service, const struct vip *vip)
{
    struct plan_vips *all = vip->network_id ? map_find(&x->vips, vip->network_id) : NULL;
    if (!vip->network_id)
        return;
    if (!all)
        map_put(&x->vips, vip->network_id, all = xnew(struct plan_vips));
    if (all->n == all->cap) {
        all->cap = all->cap ? 2 * all->cap : 4;
        all->v = xrealloc(all->v, all->cap, sizeof *all->v);
    }
    all->v[all->n].service = service;
    all->v[all->n++].vip = vip;
}

void plan_index_build(struct plan_index *x, const struct assignment *a)
{
    char key[KEY_BYTES];
    x->a = a;
    map_init(&x->replicas);
    map_init(&x->nodes);
    map_init(&x->vips);
    map_init(x->shares = xnew(struct map));
    for (uint32_t i = 0; i < a->nodes.n; i++)
        map_put(&x->nodes, a->nodes.v[i].id, &a->nodes.v[i]);
    for (uint32_t i = 0; i < a->services.n; i++)
        for (uint32_t k = 0; k < a->services.v[i].vips.n; k++)
            add_vip(x, &a->services.v[i], &a->services.v[i].vips.v[k]);
    for (uint32_t i = 0; i < a->replicas.n; i++) {
        replica_key(key, a->replicas.v[i].service_id, a->replicas.v[i].network_id);
        struct plan_replicas *r = map_find(&x->replicas, key);
        if (!r)
            map_put(&x->replicas, key, r = xnew(struct plan_replicas));
        if (r->n == r->cap) {
            r->cap = r->cap ? 2 * r->cap : 4;
            r->v = xrealloc(r->v, r->cap, sizeof *r->v);
        }
        r->v[r->n++] = &a->replicas.v[i];
    }
}

void plan_index_done(struct plan_index *x)
{
    for (struct map_item *it = NULL; (it = map_next(&x->replicas, it));) {
        free(((struct plan_replicas *)it->value)->v);
        free(it->value);
    }
    for (struct map_item *it = NULL; (it = map_next(&x->vips, it));) {
        free(((struct plan_vips *)it->value)->v);
        free(it->value);
    }
    for (struct map_item *it = NULL; (it = map_next(x->shares, it));)
        free(it->value);
    map_done(x->shares);
    free(x->shares);
    map_done(&x->replicas);
    map_done(&x->nodes);
    map_done(&x->vips);
}

const struct plan_replicas *plan_replicas(const struct plan_index *x, const char *service_id, const char *network_id)
{
    static const struct plan_replicas none;
    char key[KEY_BYTES];
    replica_key(key, service_id, network_id);
    const struct plan_replicas *r = map_find(&x->replicas, key);
    return r ? r : &none;
}

const struct plan_vips *plan_vips(const struct plan_index *x, const char *network_id)
{
    static const struct plan_vips none;
    const struct plan_vips *all = network_id ? map_find(&x->vips, network_id) : NULL;
    return all ? all : &none;
}

const struct node *plan_node(const struct plan_index *x, const char *id)
{
    return id ? map_find(&x->nodes, id) : NULL;
}
