/* /shoal/v1/managers: who governs the managers of the cluster; and what became of nodes, as events. Docker's API has no
 * place for the first. */
#include "api_internal.h"
#include <stdio.h>

static void managers_update_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    (void)text, (void)size;
    control_managers(call_manager(c), val_get_str(body, "Managers"), val_get_int(body, "ReplaceManagersAfter", 0), done_empty, c);
}

static void managers_update(struct call *c)
{
    with_body(c, managers_update_body);
}

static void managers_show(struct call *c)
{
    struct val_doc *d = val_doc_new();
    struct val *root = val_map(d);
    struct managers_plan plan;
    manager_plan(call_manager(c), &plan);
    val_set(d, root, "Managers", val_str(d, plan.policy));
    val_set(d, root, "Wanted", val_int(d, plan.wanted));
    val_set(d, root, "Eligible", val_int(d, plan.eligible));
    val_set(d, root, "Voters", val_int(d, plan.voters));
    val_set(d, root, "Losses", val_int(d, plan.losses));
    val_set(d, root, "ReplaceManagersAfter", val_int(d, plan.replace_after));
    val_set_root(d, root);
    reply_val(c, 200, d);
}

static void put_change(struct labels *l, const char *what, const char *old, const char *now)
{
    char key[32];
    if (str_equal(old, now))
        return;
    snprintf(key, sizeof key, "%s.old", what);
    labels_set(l, key, old);
    snprintf(key, sizeof key, "%s.new", what);
    labels_set(l, key, now);
}

/* As Docker names them, and why a role changed. */
void api_node_event(struct api *a, const struct node *old, const struct node *now)
{
    struct labels l = { 0 };
    if (now) {
        put_change(&l, "role", node_role_names[old->spec.role], node_role_names[now->spec.role]);
        if (l.n && now->role_reason)
            labels_set(&l, "role.reason", now->role_reason);
        put_change(&l, "state", node_state_names[old->status.state], node_state_names[now->status.state]);
        put_change(&l, "availability", node_availability_names[old->spec.availability],
                   node_availability_names[now->spec.availability]);
    }
    if (l.n || !now) {
        labels_set(&l, "name", old->description.hostname ? old->description.hostname : "");
        api_event(a, "node", now ? "update" : "remove", old->id, &l);
    }
    labels_clear(&l);
}

const struct route manager_routes[] = {
    { "GET", "/shoal/v1/managers", managers_show, ROUTE_READ },
    { "POST", "/shoal/v1/managers", managers_update, ROUTE_WRITE },
    { 0 },
};
