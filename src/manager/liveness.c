/* Liveness: gossip is evidence, the log is the verdict. A node that gossip calls SUSPECT for down_after_ms
 * becomes DOWN by a committed change of its object; one that speaks to the leader and is not suspect becomes
 * READY. When more than a third of the nodes vanish together (within 10 s, those counted of which gossip has only some
 * complaints yet: a big loss is not seen all at once) a partition is likelier than their death: the verdicts are held
 * back until gossip sees some again, or the loss has lasted ten times as long.
 * When all daemons start together (power is back, an upgrade everywhere) the first to lead must not judge those that
 * are slower: a node it has not heard yet has until BOOT_MS after the start of this process.
 * A daemon that ended is not a machine that ended: its containers and its tunnel go on, and the kernel refuses what is
 * sent to the daemon's port. Every manager asks for such refusals (hooks.ask). While they come the node is DISCONNECTED,
 * not DOWN: its tasks stay and get traffic, new ones go elsewhere. It is DOWN once the refusals have stopped, or after
 * restart_ms. Only patience hangs on a refusal: who forges one (it must quote a ping, which only the two nodes and what
 * lies between them have seen) makes a dead node's tasks wait for that long. */
#include "manager_internal.h"
#include <shoal/base/planted.h>
#include <shoal/base/file.h>

LOG_MODULE("liveness");

enum { BOOT_MS = 10000, LOOK_AGAIN_MS = 500, ASKED_MAX = 64 /* at one look */ };
#define TOGETHER_NS (10 * SEC_NS)
static const char silent[] = "no answer to the other nodes", absent[] = "its daemon does not run, its machine does";

struct liveness {
    struct manager *m;
    int64_t opened_ms, asked_ms;
    uint32_t asked_at;   /* how many of the suspect were asked in this turn of them */
    struct map heard;    /* ids of nodes that spoke to this process as leader */
    struct map suspects; /* node id -> struct suspect */
    struct loop_timer *timer;
    unsigned n_proposed; /* verdicts under way */
    bool leads, asking;  /* asking: at the last look there was somebody to ask */
};

struct suspect { /* monotonic times */
    int64_t since_ms;   /* 0: not suspect, only refusals came */
    int64_t refused_ms; /* its machine last said that the daemon is gone; 0: never */
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

static struct suspect *suspect_of(const struct liveness *v, const char *node_id)
{
    struct suspect *s = map_find(&v->suspects, node_id);
    return s && s->since_ms ? s : NULL;
}

bool liveness_is_suspect(const struct liveness *v, const char *node_id)
{
    return suspect_of(v, node_id) != NULL;
}

static void verdict_done(void *arg, int result, const struct err *e)
{
    struct liveness *v = arg;
    (void)e;
    v->n_proposed--;
    if (v->leads) /* a refused verdict is looked at again a little later */
        loop_timer_set(v->timer, result < 0 ? 100 : 0);
}

static void propose_state(struct liveness *v, const struct node *n, enum node_state state,
                          const char *message)
{
    int64_t now = clock_real_ns();
    struct node copy = { 0 };
    node_copy(&copy, n);
    copy.status.state = state;
    copy.down_since = state == NODE_READY ? 0 : n->status.state == NODE_DISCONNECTED ? n->down_since : now;
    copy.ready_since = state == NODE_READY ? now : 0;
    str_set(&copy.status.message, message);
    struct store_tx *tx = store_tx_new(now);
    store_tx_update(tx, TABLE_NODE, &copy);
    node_clear(&copy);
    log_info("node %s (%s) is %s", n->id, n->description.hostname ? n->description.hostname : "",
             node_state_names[state]);
    v->n_proposed++;
    manager_propose(v->m, tx, verdict_done, v);
}

int64_t liveness_wait_ms(uint32_t n_nodes, uint32_t n_lost, int64_t down_after_ms)
{
    return CLUSTER_BUG != 64 && n_nodes > 3 && n_lost > 1 && (uint64_t)n_lost * 3 > n_nodes ? down_after_ms * 10 : down_after_ms;
}

enum node_state liveness_verdict(const struct liveness_case *c, int64_t now_ms, int64_t *ret_next_ms)
{
    int64_t stale = c->refused_ms + LIVENESS_REFUSAL_MS, patience = c->since_ms + c->restart_ms, due = c->since_ms + c->wait_ms;
    if (c->refused_ms && now_ms < stale && now_ms < patience) {
        *ret_next_ms = MIN(stale, patience);
        return NODE_DISCONNECTED;
    }
    *ret_next_ms = due;
    return now_ms >= due ? NODE_DOWN : c->state;
}

static bool is_judged(const struct liveness *v, const struct node *n)
{
    return (n->status.state == NODE_READY || n->status.state == NODE_DISCONNECTED) && /* unknown since a restore: restore_wait() judges */
           !str_equal(n->id, v->m->node_id) && suspect_of(v, n->id);
}

/* This process stood still, and asked nobody: that no refusal came meanwhile says nothing. */
static void forgive(struct liveness *v, int64_t late, int64_t now)
{
    for (struct map_item *it = NULL; (it = map_next(&v->suspects, it));) {
        struct suspect *s = it->value;
        if (s->refused_ms)
            s->refused_ms = MIN(s->refused_ms + late, now);
    }
}

/* Asks the machines of those that are suspect and not down yet, in turn when they are many. False: there is none. */
static bool ask(struct liveness *v, int64_t now)
{
    uint32_t i = 0, first = v->asked_at;
    bool due = now - v->asked_ms >= LOOK_AGAIN_MS;
    int64_t late = now - v->asked_ms - 2 * LOOK_AGAIN_MS;
    if (v->asking && late > 0)
        forgive(v, late, now);
    for (const struct node *n = NULL; (n = store_next(v->m->store, TABLE_NODE, n));)
        if (is_judged(v, n) && i++ >= first && i <= first + ASKED_MAX && due && v->m->hooks.ask)
            v->m->hooks.ask(v->m->hooks.arg, n->id);
    if (due) {
        v->asked_ms = now;
        v->asked_at = first + ASKED_MAX < i ? first + ASKED_MAX : 0;
    }
    v->asking = i > 0;
    return i > 0;
}

static void judge_one(struct liveness *v, const struct node *n, int64_t wait_ms, int64_t now, int64_t *next)
{
    const struct suspect *s = suspect_of(v, n->id);
    const struct liveness_case c = { .state = n->status.state, .since_ms = s->since_ms, .refused_ms = s->refused_ms,
                                     .wait_ms = wait_ms, .restart_ms = v->m->restart_ms };
    int64_t again;
    enum node_state state = liveness_verdict(&c, now, &again);
    if (state == NODE_DOWN && !map_find(&v->heard, n->id) && now < v->opened_ms + BOOT_MS) {
        again = v->opened_ms + BOOT_MS;
        state = c.state;
    }
    if (state != c.state)
        propose_state(v, n, state, state == NODE_DISCONNECTED || now < s->refused_ms + LIVENESS_REFUSAL_MS ? absent : silent);
    if (again > now)
        *next = MIN(*next, again - now);
}

static void check(void *arg)
{
    struct liveness *v = arg;
    int64_t now = loop_now_ms(v->m->loop), next = INT64_MAX;
    if (ask(v, now))
        next = LOOK_AGAIN_MS;
    uint32_t n_nodes = store_count(v->m->store, TABLE_NODE), n_lost = 0;
    for (const struct node *n = NULL; v->leads && (n = store_next(v->m->store, TABLE_NODE, n));)
        n_lost += (suspect_of(v, n->id) && n->status.state == NODE_READY) ||
                  (n->status.state == NODE_DOWN && clock_real_ns() - n->down_since < TOGETHER_NS &&
                   str_equal(n->status.message, silent)); /* not one that said goodbye */
    uint32_t n_doubted = v->leads && v->m->hooks.n_doubted ? v->m->hooks.n_doubted(v->m->hooks.arg) : 0;
    int64_t wait = liveness_wait_ms(n_nodes, n_lost + n_doubted, v->m->down_after_ms);
    bool judges = v->leads && !v->n_proposed; /* when those under way are over it looks again */
    for (const struct node *n = NULL; judges && (n = store_next(v->m->store, TABLE_NODE, n));)
        if (is_judged(v, n))
            judge_one(v, n, wait, now, &next);
        else if (n->status.state == NODE_DISCONNECTED && !suspect_of(v, n->id))
            propose_state(v, n, NODE_READY, NULL); /* the daemon is back */
    if (next != INT64_MAX)
        loop_timer_set(v->timer, next);
}

static struct suspect *suspect_put(struct liveness *v, const char *node_id)
{
    struct suspect *s = map_find(&v->suspects, node_id);
    if (!s)
        map_put(&v->suspects, node_id, s = xnew(struct suspect));
    return s;
}

void liveness_gossip(struct liveness *v, const char *node_id, bool suspect)
{
    if (!suspect) {
        free(map_remove(&v->suspects, node_id));
    } else if (!suspect_of(v, node_id)) {
        suspect_put(v, node_id)->since_ms = loop_now_ms(v->m->loop);
        if (v->m->hooks.ask)
            v->m->hooks.ask(v->m->hooks.arg, node_id);
    }
    loop_timer_set(v->timer, 0); /* many at once are judged at one look */
}

void liveness_refused(struct liveness *v, const char *node_id)
{
    if (!store_find(v->m->store, TABLE_NODE, node_id))
        return;
    suspect_put(v, node_id)->refused_ms = loop_now_ms(v->m->loop);
    if (liveness_is_suspect(v, node_id))
        loop_timer_set(v->timer, 0);
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
    if (n && CLUSTER_BUG != 24 && n->status.state != NODE_READY && !liveness_is_suspect(v, node_id))
        propose_state(v, n, NODE_READY, NULL);
}
