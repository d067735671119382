/* Clients that read and write small registers through the managers and note what they did and heard, as tests/linear/clients.c
 * does with real processes; the history of all must be linearizable (tests/linear). A register is the label "v" of a config:
 * made once, changed by an update that names the version it was read with. A client talks to one manager, which hands on
 * to the leader that it knows; reads are asked of any manager too. */
#include "whole.h"

#include "linear.h"

enum { CLIENTS = 4, KEYS = 3, REQUESTS_MAX = 8192, CHAIN = 500 };
#define EPOCH_NS (8 * SEC_NS) /* then keys are new, so that the exact search stays small */

struct request {
    struct linear_op op;
    struct host *home, *at; /* at: who serves it */
    enum linear_outcome outcome; /* of which the answer speaks */
    bool over, handed_on;
    uint64_t asked;     /* the version it names, 0: of a new config */
    uint64_t version;   /* that the answer names, 0: none */
};

struct clients {
    struct linear_history history;
    struct request *requests[REQUESTS_MAX];
    unsigned n_requests, n_values;
    struct client {
        struct host *home;
        uint32_t key, seen; /* seen: the value of key that this client heard of last */
        uint64_t version;   /* of seen */
        bool knows;
    } client[CLIENTS];
};

static void turn(struct event *e);

/* ---- the answer ---- */
static void finish(struct request *r, enum linear_outcome outcome)
{
    struct clients *all = g.clients;
    struct client *c = &all->client[r->op.client];
    r->over = true;
    r->op.outcome = outcome;
    r->op.end = g.now / 1000;
    if (outcome != LINEAR_OK && outcome != LINEAR_REFUSED)
        r->op.index = 0;
    linear_add(&all->history, &r->op);
    mix(r->op.value * 4 + outcome);
    g.n_answers += outcome == LINEAR_OK || outcome == LINEAR_REFUSED;
    c->knows = outcome == LINEAR_OK && (!r->op.value || r->version) && r->op.key == c->key;
    c->seen = r->op.value;
    c->version = r->version;
    push(NULL, some_ms(S_CLIENT, 5, 700), turn, r->op.client, 0);
}

static void heard(struct event *e)
{
    struct request *r = g.clients->requests[e->a];
    if (!r->over && !is_cut(r->at, r->home))
        finish(r, r->outcome);
}

static void timed_out(struct event *e)
{
    struct request *r = g.clients->requests[e->a];
    if (!r->over)
        finish(r, LINEAR_UNKNOWN);
}

static uint64_t number_of(const struct request *r)
{
    return (uint64_t)r->op.line - 1;
}

static void answer(struct request *r, enum linear_outcome outcome)
{
    if (r->at->dying)
        return;
    r->outcome = outcome;
    push(NULL, r->at == r->home ? 0 : (int64_t)pick(S_CLIENT, 50, 1500) * 1000, heard, number_of(r), 0);
}

static void note_place(struct request *r)
{
    r->op.index = store_index(manager_store(r->at->d.manager));
}

/* ---- at the manager that serves it ---- */
static const struct config *config_of(const struct request *r)
{
    return store_find_name(manager_store(r->at->d.manager), TABLE_CONFIG, g.clients->history.keys[r->op.key]);
}

static void read_done(void *arg, int result, const struct err *e)
{
    struct request *r = arg;
    (void)e;
    if (result < 0 || r->over || r->at->dying) {
        answer(r, LINEAR_FAILED);
        return;
    }
    const struct config *c = config_of(r);
    r->op.value = linear_value(&g.clients->history, c ? labels_get(&c->spec.labels, "v") : "-");
    r->version = c ? c->version.index : 0;
    note_place(r);
    answer(r, LINEAR_OK);
}

/* As api.c does: what refused it is the state held here, and a quorum must say that this node led then. */
static void refusal_done(void *arg, int result, const struct err *e)
{
    (void)e;
    answer(arg, result < 0 ? LINEAR_FAILED : LINEAR_REFUSED);
}

static void write_done(void *arg, int result, const struct err *e)
{
    struct request *r = arg;
    if (r->over || r->at->dying)
        return;
    if (result == -E_UNAVAILABLE) {
        answer(r, LINEAR_UNKNOWN);
        return;
    }
    CHECK(result == 0 || result == -E_STALE || result == -E_EXISTS || result == -E_NOT_FOUND || result == -E_NOT_LEADER, "a client's write: %s",
          e->text);
    note_place(r);
    r->version = r->op.index; /* of the entry that made it */
    if (result == 0 || (result == -E_STALE && r->op.kind == LINEAR_CAS))
        answer(r, result == 0 ? LINEAR_OK : LINEAR_REFUSED);
    else if (result == -E_NOT_LEADER || r->op.kind != LINEAR_CAS)
        answer(r, LINEAR_FAILED);
    else
        manager_read(r->at->d.manager, refusal_done, r);
}

static void serve_write(struct request *r)
{
    struct linear_history *h = &g.clients->history;
    struct manager *m = r->at->d.manager;
    struct config_spec s = { 0 };
    const char *name = h->keys[r->op.key];
    const struct config *c = config_of(r);
    str_set(&s.name, name);
    labels_set(&s.labels, "v", h->values[r->op.value]);
    if (r->op.kind == LINEAR_WRITE) /* whatever is there: the version is that of this moment */
        r->asked = c ? c->version.index : 0;
    if (!r->asked)
        bytes_set(&s.data, "x", 1);
    if (r->asked)
        control_config_update(m, name, r->asked, &s, write_done, r);
    else
        control_config_create(m, &s, NULL, write_done, r);
    config_spec_clear(&s);
}

static void serve(struct event *e)
{
    struct request *r = g.clients->requests[e->a];
    struct manager *m = r->at->d.manager;
    if (!m || (r->handed_on && !manager_leads(m)))
        answer(r, LINEAR_FAILED);
    else if (r->op.kind == LINEAR_READ)
        manager_read(m, read_done, r);
    else
        serve_write(r);
}

/* ---- the client ---- */
static struct host *some_manager(const struct client *c)
{
    for (unsigned i = 0; i < 2 * HOSTS_MAX; i++) {
        struct host *h = i || !c->home || chance(S_CLIENT, 50) ? &g.hosts[pick(S_CLIENT, 0, g.n_hosts - 1)] : c->home;
        if (h->loop && !h->paused && h->d.manager)
            return h;
    }
    return NULL;
}

static void choose_key(struct client *c)
{
    AUTO_FREE char *name = xasprintf("r%llu.%u", U(g.now / EPOCH_NS), (unsigned)pick(S_CLIENT, 0, KEYS - 1));
    uint32_t key = linear_key(&g.clients->history, name);
    if (c->knows && key != c->key && chance(S_CLIENT, CHAIN))
        return;
    c->knows &= key == c->key;
    c->key = key;
}

/* What it does next; NULL: nobody is there to be asked. */
static struct request *next_request(struct client *c)
{
    struct clients *all = g.clients;
    bool reads = chance(S_CLIENT, 500), any = reads && chance(S_CLIENT, 500);
    c->home = some_manager(c);
    const char *id = c->home ? manager_leader_id(c->home->d.manager) : NULL;
    struct host *leader = id ? host_by_node(id) : NULL, *at = any ? c->home : leader;
    if (!at || all->n_requests == REQUESTS_MAX || !limit_take(&limits[L_OPS]))
        return NULL;
    struct request *r = all->requests[all->n_requests++] = xnew(struct request);
    *r = (struct request){ .home = c->home, .at = at, .handed_on = !any };
    r->op = (struct linear_op){ .client = (uint32_t)(c - all->client), .key = c->key, .start = g.now / 1000, .line = all->n_requests };
    if (reads)
        return r;
    AUTO_FREE char *value = xasprintf("v%u", ++all->n_values);
    r->op.value = linear_value(&all->history, value);
    r->op.kind = c->knows ? LINEAR_CAS : LINEAR_WRITE;
    r->op.expected = c->knows ? c->seen : 0;
    r->asked = c->knows ? c->version : 0;
    return r;
}

static void turn(struct event *e)
{
    struct client *c = &g.clients->client[e->a];
    if (g.calm)
        return;
    choose_key(c);
    struct request *r = next_request(c);
    if (!r) {
        push(NULL, some_ms(S_CLIENT, 20, 200), turn, e->a, 0);
        return;
    }
    if (!is_cut(r->home, r->at)) /* else it waits in vain */
        push(r->at, r->at == r->home ? 0 : (int64_t)pick(S_CLIENT, 50, 1500) * 1000, serve, number_of(r), 0);
    push(NULL, some_ms(S_CLIENT, 300, 4000), timed_out, number_of(r), 0);
}

void clients_start(void)
{
    g.clients = xnew(struct clients);
    linear_history_init(&g.clients->history);
    for (unsigned i = 0; i < CLIENTS && has_kind(K_client); i++)
        push(NULL, some_ms(S_CLIENT, 0, 500), turn, i, 0);
}

/* Everything is read once more, and the history judged: by the search, whose counter-example is short, and by the places in the log. */
void clients_check(const struct store *s)
{
    struct linear_history *h = &g.clients->history;
    AUTO_SB struct sb why;
    sb_init(&why, 0);
    for (unsigned i = 0; i < g.clients->n_requests; i++)
        if (!g.clients->requests[i]->over)
            finish(g.clients->requests[i], LINEAR_UNKNOWN);
    for (uint32_t k = 0; k < h->n_keys; k++) {
        const struct config *c = store_find_name(s, TABLE_CONFIG, h->keys[k]);
        struct linear_op op = { .kind = LINEAR_READ, .outcome = LINEAR_OK, .client = CLIENTS, .key = k, .start = g.now / 1000, .end = g.now / 1000,
                                .value = linear_value(h, c ? labels_get(&c->spec.labels, "v") : "-"), .index = store_index(s) };
        linear_add(h, &op);
    }
    g.n_ops = h->n;
    CHECK(linear_check(h, NULL, &why) == LINEAR_YES, "not linearizable: %s", why.s);
    CHECK(linear_check_index(h, &why) == LINEAR_YES, "not linearizable by the places in the log: %s", why.s);
}

void clients_free(void)
{
    for (unsigned i = 0; i < g.clients->n_requests; i++)
        free(g.clients->requests[i]);
    linear_history_done(&g.clients->history);
    free(g.clients);
}
