/* Liveness: gossip is evidence, the log is the verdict. A node that gossip calls SUSPECT for down_after_ms
 * becomes DOWN by a committed change of its object; one that speaks to the leader and is not suspect becomes
 * READY. When more than a third of the nodes vanish together (within 10 s, those counted of which gossip has only some
 * complaints yet: a big loss is not seen all at once) a partition is likelier than their death: the verdicts are held
 * back until gossip sees some again, or the loss has lasted ten times as long.
 * When all daemons start together (power is back, an upgrade everywhere) the first to lead must not judge those that
 * are slower: a node it has not heard yet has until BOOT_MS after the start of this process. */
#include "manager_internal.h"
#include <shoal/base/file.h>

LOG_MODULE("liveness");

enum { BOOT_MS = 10000, LOOK_AGAIN_MS = 500 };
#define TOGETHER_NS (10 * SEC_NS)
static const char silent[] = "no answer to the other nodes";

struct liveness {
    struct manager *m;
    int64_t opened_ms;
    struct map heard;    /* ids of nodes that spoke to this process as leader */
    struct map suspects; /* node id -> struct suspect */
    struct loop_timer *timer;
    bool leads;
};

struct suspect {
    int64_t since_ms; /* monotonic */
};

static void check(void *arg);

struct liveness *liveness_new(struct manager *m)
{
    struct liveness *v = xnew(struct liveness);
    v->m = m;
    map_init(&v->suspects);
    map_init(&v->heard);
    v->opened_ms = loop_now_ms(m->loop);
    v->timer = loop_timer_new(m->loop, check, v);
    return v;
}

void liveness_free(struct liveness *v)
{
    if (!v)
        return;
    for (struct map_item *it = NULL; (it = map_next(&v->suspects, it));)
        free(it->value);
    map_done(&v->suspects);
    map_done(&v->heard);
    loop_timer_free(v->timer);
    free(v);
}

bool liveness_is_suspect(const struct liveness *v, const char *node_id)
{
    return map_find(&v->suspects, node_id) != NULL;
}

static void verdict_done(void *arg, int result, const struct err *e)
{
    (void)result, (void)e; /* a refused verdict is looked at again by the timer */
    struct liveness *v = arg;
    if (v->leads)
        loop_timer_set(v->timer, 100);
}

static void propose_state(struct liveness *v, const struct node *n, enum node_state state,
                          const char *message)
{
    int64_t now = clock_real_ns();
    struct node copy = { 0 };
    node_copy(&copy, n);
    copy.status.state = state;
    copy.down_since = state == NODE_DOWN ? now : 0;
    copy.ready_since = state == NODE_READY ? now : 0;
    str_set(&copy.status.message, message);
    struct store_tx *tx = store_tx_new(now);
    store_tx_update(tx, TABLE_NODE, &copy);
    node_clear(&copy);
    log_info("node %s (%s) is %s", n->id, n->description.hostname ? n->description.hostname : "",
             node_state_names[state]);
    manager_propose(v->m, tx, verdict_done, v);
}

int64_t liveness_wait_ms(uint32_t n_nodes, uint32_t n_lost, int64_t down_after_ms)
{
    return n_nodes > 3 && n_lost > 1 && (uint64_t)n_lost * 3 > n_nodes ? down_after_ms * 10 : down_after_ms;
}

static void check(void *arg)
{
    struct liveness *v = arg;
    if (!v->leads)
        return;
    int64_t now = loop_now_ms(v->m->loop), next = -1;
    uint32_t n_nodes = store_count(v->m->store, TABLE_NODE), n_lost = 0;
    for (const struct node *n = NULL; (n = store_next(v->m->store, TABLE_NODE, n));)
        n_lost += (map_find(&v->suspects, n->id) && n->status.state == NODE_READY) ||
                  (n->status.state == NODE_DOWN && clock_real_ns() - n->down_since < TOGETHER_NS &&
                   str_equal(n->status.message, silent)); /* not one that said goodbye */
    uint32_t n_doubted = v->m->hooks.n_doubted ? v->m->hooks.n_doubted(v->m->hooks.arg) : 0;
    int64_t wait = liveness_wait_ms(n_nodes, n_lost + n_doubted, v->m->down_after_ms);
    for (const struct node *n = NULL; (n = store_next(v->m->store, TABLE_NODE, n));) {
        struct suspect *s = map_find(&v->suspects, n->id);
        if (!s || n->status.state != NODE_READY || /* unknown since a restore: restore_wait() judges */
            !strcmp(n->id, v->m->node_id))
            continue;
        int64_t due = s->since_ms + wait - now;
        if (!map_find(&v->heard, n->id))
            due = MAX(due, v->opened_ms + BOOT_MS - now);
        if (due <= 0)
            propose_state(v, n, NODE_DOWN, silent);
        if (due > 0 && (next < 0 || due < next))
            next = due;
    }
    if (next >= 0) /* those that are doubted may be well again without a word of gossip */
        loop_timer_set(v->timer, n_doubted ? MIN(next, LOOK_AGAIN_MS) : next);
}

void liveness_gossip(struct liveness *v, const char *node_id, bool suspect)
{
    struct suspect *s = map_find(&v->suspects, node_id);
    if (suspect && !s) {
        s = xnew(struct suspect);
        s->since_ms = loop_now_ms(v->m->loop);
        map_put(&v->suspects, node_id, s);
    } else if (!suspect && s) {
        free(map_remove(&v->suspects, node_id));
    }
    check(v);
}

void liveness_lead(struct liveness *v, bool leads)
{
    v->leads = leads; /* suspicion is inherited: a new leader knows what gossip told it before */
    check(v);
}

void liveness_seen(struct liveness *v, const char *node_id)
{
    if (!map_find(&v->heard, node_id))
        map_put(&v->heard, node_id, v);
    const struct node *n = store_find(v->m->store, TABLE_NODE, node_id);
    if (n && n->status.state != NODE_READY && !liveness_is_suspect(v, node_id))
        propose_state(v, n, NODE_READY, NULL);
}
