/* One scheduling pass: every PENDING task gets the best fitting node, or a sentence why it waits. */
#include "scheduler_internal.h"
#include <shoal/base/planted.h>
#include <stdio.h>

struct candidates {
    struct candidate *v;
    uint32_t n;
};

static bool takes_room(const struct task *t)
{
    return t->node_id && t->status.state >= TASK_ASSIGNED && !task_state_is_final(t->status.state);
}

static struct candidates gather(const struct store *store)
{
    struct candidates all = { .n = store_count(store, TABLE_NODE) };
    all.v = xcalloc(all.n ? all.n : 1, sizeof *all.v);
    uint32_t i = 0;
    for (const struct node *n = NULL; (n = store_next(store, TABLE_NODE, n)); i++) {
        struct candidate *c = &all.v[i];
        c->node = n;
        map_init(&c->by_service);
        map_init(&c->host_ports);
        uint32_t n_tasks;
        const struct task **tasks = store_tasks_of_node(store, n->id, &n_tasks);
        for (uint32_t k = 0; k < n_tasks; k++)
            if (takes_room(tasks[k]) && tasks[k]->desired <= TASK_RUNNING)
                candidate_take(c, tasks[k]);
    }
    return all;
}

static void candidates_done(struct candidates *all)
{
    for (uint32_t i = 0; i < all->n; i++) {
        map_done(&all->v[i].by_service);
        map_done(&all->v[i].host_ports);
    }
    free(all->v);
}

/* "no suitable node (2 not ready; 1 constraint node.labels.x==y)" */
struct refusals {
    struct { char why[128]; uint32_t n; } v[8];
    uint32_t n;
};

static void refused(struct refusals *r, const char *why)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (!strcmp(r->v[i].why, why)) {
            r->v[i].n++;
            return;
        }
    if (r->n < ARRAY_N(r->v)) {
        snprintf(r->v[r->n].why, sizeof r->v[r->n].why, "%s", why);
        r->v[r->n++].n = 1;
    }
}

static void explain(const struct refusals *r, char *out, size_t size)
{
    struct sb b;
    sb_init(&b, 0);
    sb_str(&b, "no suitable node");
    for (uint32_t i = 0; i < r->n; i++)
        sb_printf(&b, "%s%s on %u node%s", i ? "; " : " (", r->v[i].why, r->v[i].n,
                  r->v[i].n == 1 ? "" : "s");
    if (r->n)
        sb_char(&b, ')');
    snprintf(out, size, "%s", b.s);
    sb_done(&b);
}

static struct candidate *choose(const struct candidates *all, const struct task *t,
                                struct refusals *why_not)
{
    struct candidate *best = NULL;
    for (uint32_t i = 0; i < all->n; i++) {
        char why[128] = "";
        if (t->node_id && CLUSTER_BUG != 7 && strcmp(t->node_id, all->v[i].node->id)) /* global: the node is given */
            continue;
        if (!candidate_fits(&all->v[i], t, why, sizeof why)) {
            refused(why_not, why);
            continue;
        }
        if (!best || candidate_compare(&all->v[i], best, t, all->v, all->n) < 0)
            best = &all->v[i];
    }
    return best;
}

static void place(struct store_tx *tx, const struct task *t, struct candidate *c,
                  const struct refusals *why_not, int64_t now_ns)
{
    struct task copy = { 0 };
    char text[1024];
    if (!c) {
        explain(why_not, text, sizeof text);
        if (str_equal(t->status.err, text))
            return;
    }
    task_copy(&copy, t);
    copy.status.timestamp = now_ns;
    if (c) {
        str_set(&copy.node_id, c->node->id);
        copy.status.state = TASK_ASSIGNED;
        str_set(&copy.status.message, "scheduler assigned task to node");
        str_set(&copy.status.err, NULL);
        candidate_take(c, t);
    } else {
        str_set(&copy.status.message, "pending task scheduling");
        str_set(&copy.status.err, text);
    }
    store_tx_update(tx, TABLE_TASK, &copy);
    task_clear(&copy);
}

void schedule(const struct store *store, struct store_tx *tx, int64_t now_ns)
{
    struct candidates all = { 0 };
    for (const struct task *t = NULL; (t = store_next(store, TABLE_TASK, t));) {
        if ((t->status.state != TASK_PENDING && !(CLUSTER_BUG == 7 && t->status.state == TASK_ASSIGNED)) || t->desired > TASK_RUNNING ||
            store_tx_touches(tx, TABLE_TASK, t->id))
            continue;
        if (!all.v)
            all = gather(store);
        struct refusals why_not = { 0 };
        place(tx, t, choose(&all, t, &why_not), &why_not, now_ns);
    }
    candidates_done(&all);
}
