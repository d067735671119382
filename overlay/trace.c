/* The way from a container to a name or an address, as it should be by what this node was told: name, network, virtual
 * IP, replicas. What the kernel and the tunnel make of it, trace_io.c sees. Pure. */
#include "trace.h"
#include <stdarg.h>
#include <stdio.h>

const char *const trace_state_names[] = { "ok", "warning", "broken", NULL };

void trace_add(struct trace *t, enum trace_state state, const char *name, const char *fmt, ...)
{
    struct trace_step *s = REC_ADD(&t->steps);
    va_list ap;
    struct sb b;
    sb_init(&b, 1024);
    va_start(ap, fmt);
    sb_vprintf(&b, fmt, ap);
    va_end(ap);
    s->state = (int)state;
    str_set(&s->name, name);
    str_set(&s->text, b.s);
    sb_done(&b);
}

const char *trace_node_name(const struct plan_input *in, const char *node_id)
{
    for (uint32_t i = 0; i < in->a->nodes.n; i++) {
        const struct node *n = &in->a->nodes.v[i];
        if (str_equal(n->id, node_id))
            return n->description.hostname ? n->description.hostname : n->id;
    }
    return node_id ? node_id : "this node";
}

static const struct network *network_of(const struct plan_input *in, const char *id)
{
    for (uint32_t i = 0; i < in->a->networks.n; i++)
        if (str_equal(in->a->networks.v[i].id, id))
            return &in->a->networks.v[i];
    return NULL;
}

static const struct service_entry *service_of(const struct plan_input *in, const char *id)
{
    for (uint32_t i = 0; i < in->a->services.n; i++)
        if (str_equal(in->a->services.v[i].id, id))
            return &in->a->services.v[i];
    return NULL;
}

/* ---- name ---- */
static unsigned resolve(const struct plan_input *in, const struct sandbox *s, const char *to, struct trace *t, uint32_t *ret)
{
    bool known;
    char text[32];
    struct sb b;
    if (address_parse(to, &ret[0], NULL))
        return 1;
    unsigned n = dns_find(in, s, to, ret, TRACE_TARGETS_MAX, &known);
    sb_init(&b, 0);
    for (unsigned i = 0; i < n; i++) {
        address_format(text, ret[i], -1);
        sb_printf(&b, "%s%s", i ? ", " : "", text);
    }
    if (n)
        trace_add(t, TRACE_OK, "name", "%s is %s", to, b.s);
    else if (known)
        trace_add(t, TRACE_BROKEN, "name", "%s has no replica that may be called: none is running, healthy and on a node that is heard", to);
    else
        trace_add(t, TRACE_BROKEN, "name", "no service, alias or task named %s is on a network of this container; such a name is asked "
                  "for outside", to);
    sb_done(&b);
    return n;
}

/* ---- network ---- */
static const struct sandbox_link *link_towards(const struct sandbox *s, uint32_t addr)
{
    for (uint32_t i = 0; i < s->links.n; i++) {
        uint32_t own;
        unsigned bits;
        if (address_parse(s->links.v[i].addr, &own, &bits) && bits && ((own ^ addr) >> (32 - bits)) == 0)
            return &s->links.v[i];
    }
    return NULL;
}

static void say_networks(const struct plan_input *in, const struct sandbox *s, struct sb *b)
{
    for (uint32_t i = 0; i < s->links.n; i++) {
        const struct network *n = network_of(in, s->links.v[i].network_id);
        sb_printf(b, "%s%s (%s)", i ? ", " : "", n && n->name ? n->name : s->links.v[i].network_id, s->links.v[i].addr);
    }
}

static const struct sandbox_link *network_step(const struct plan_input *in, const struct sandbox *s, uint32_t addr, struct trace *t)
{
    const struct sandbox_link *l = link_towards(s, addr);
    const struct network *n = l ? network_of(in, l->network_id) : NULL;
    char text[32];
    struct sb b;
    address_format(text, addr, -1);
    sb_init(&b, 0);
    say_networks(in, s, &b);
    if (!l)
        trace_add(t, TRACE_BROKEN, "network", "%s is on no network of this container; it is on %s", text, b.len ? b.s : "none");
    else if (!n)
        trace_add(t, TRACE_BROKEN, "network", "this node does not know the network with VNI %u yet", (unsigned)l->vni);
    else
        trace_add(t, TRACE_OK, "network", "%s is on %s (VNI %u), where this container is %s", text, n->name, (unsigned)l->vni, l->addr);
    sb_done(&b);
    return n ? l : NULL;
}

/* ---- whom ---- */
static void target(struct trace_target *v, unsigned *n, uint32_t addr, const struct sandbox_link *l, const char *node_id)
{
    if (*n < TRACE_TARGETS_MAX)
        v[(*n)++] = (struct trace_target){ addr, (uint32_t)l->vni, node_id };
}

static void name_replica(const struct plan_input *in, const struct replica *r, char out[96])
{
    const struct service_entry *e = service_of(in, r->service_id);
    if (r->slot)
        snprintf(out, 96, "%s.%llu", e && e->name ? e->name : r->task_id, (unsigned long long)r->slot);
    else
        snprintf(out, 96, "%s.%s", e && e->name ? e->name : "task", r->task_id);
}

/* Why a replica gets no connections; NULL: it gets some. */
static const char *why_not(const struct plan_input *in, const struct replica *r)
{
    return !r->ready ? "is not running and healthy, or is draining" : plan_is_silent(in, r->node_id) ? "is on a node that is not heard" : NULL;
}

static bool vip_step(const struct plan_input *in, const struct sandbox_link *l, uint32_t addr, struct trace *t, struct trace_target *v,
                     unsigned *n)
{
    const struct service_entry *e = NULL;
    uint32_t a;
    for (uint32_t i = 0; i < in->a->services.n && !e; i++)
        for (uint32_t k = 0; k < in->a->services.v[i].vips.n; k++)
            if (str_equal(in->a->services.v[i].vips.v[k].network_id, l->network_id) &&
                address_parse(in->a->services.v[i].vips.v[k].addr, &a, NULL) && a == addr)
                e = &in->a->services.v[i];
    if (!e)
        return false;
    unsigned all = 0, called = 0;
    for (uint32_t i = 0; i < in->a->replicas.n; i++) {
        const struct replica *r = &in->a->replicas.v[i];
        char name[96];
        if (!str_equal(r->service_id, e->id) || !str_equal(r->network_id, l->network_id) || !address_parse(r->addr, &a, NULL))
            continue;
        const char *why = why_not(in, r);
        all++;
        called += !why;
        name_replica(in, r, name);
        if (why)
            trace_add(t, TRACE_WARNING, "replica", "%s on %s %s: no connection is given to it", name, trace_node_name(in, r->node_id), why);
        else
            target(v, n, a, l, r->node_id);
    }
    trace_add(t, called ? TRACE_OK : TRACE_BROKEN, "virtual IP", "of service %s: %u of %u replicas get connections%s", e->name, called, all,
              called ? "" : "; callers are refused");
    return true;
}

static void address_step(const struct plan_input *in, const struct sandbox_link *l, uint32_t addr, struct trace *t, struct trace_target *v,
                         unsigned *n)
{
    char text[32], name[96];
    uint32_t a;
    address_format(text, addr, -1);
    for (uint32_t i = 0; i < in->a->replicas.n; i++) {
        const struct replica *r = &in->a->replicas.v[i];
        if (!str_equal(r->network_id, l->network_id) || !address_parse(r->addr, &a, NULL) || a != addr)
            continue;
        const char *why = why_not(in, r);
        name_replica(in, r, name);
        trace_add(t, why ? TRACE_WARNING : TRACE_OK, "replica", "%s is %s on %s%s%s", text, name, trace_node_name(in, r->node_id),
                  why ? ", which " : "", why ? why : "");
        target(v, n, addr, l, r->node_id);
        return;
    }
    for (struct map_item *it = NULL; (it = map_next(in->sandboxes, it));) {
        const struct sandbox *s = it->value;
        for (uint32_t i = 0; i < s->links.n; i++)
            if (s->links.v[i].vni == l->vni && address_parse(s->links.v[i].addr, &a, NULL) && a == addr) {
                trace_add(t, TRACE_OK, "container", "%s is %.12s on this node", text, s->id);
                target(v, n, addr, l, in->node_id);
                return;
            }
    }
    trace_add(t, TRACE_BROKEN, "replica", "nobody has the address %s", text);
}

unsigned trace_plan(const struct plan_input *in, const struct sandbox *s, const char *to, struct trace *t, struct trace_target *targets)
{
    uint32_t addrs[TRACE_TARGETS_MAX];
    unsigned n = 0, n_addrs = resolve(in, s, to, t, addrs);
    for (unsigned i = 0; i < n_addrs; i++) {
        const struct sandbox_link *l = network_step(in, s, addrs[i], t);
        if (l && !vip_step(in, l, addrs[i], t, targets, &n))
            address_step(in, l, addrs[i], t, targets, &n);
    }
    return n;
}
