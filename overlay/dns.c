/* DNS for containers (RFC 1035, RFC 2782): names of services, tasks.SERVICE, aliases, SLOT.SERVICE, SERVICE.SLOT.TASK (what
 * a reverse look-up tells) and _PORT._PROTOCOL.SERVICE for named ports, answered from the assignment; what is not ours
 * goes outside. A name of ours without an IPv6 address gets an empty answer for
 * AAAA, not a failure, so that clients do not wait. TTL is short: endpoints change. */
#include "overlay_internal.h"
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

enum { HEADER = 12, TYPE_A = 1, TYPE_PTR = 12, TYPE_AAAA = 28, TYPE_SRV = 33, TYPE_ANY = 255, CLASS_IN = 1, TTL_S = 5, NAME_MAX_TEXT = 254,
       RCODE_SERVFAIL = 2, ANSWERS_MAX = 1024 };

struct question { char name[NAME_MAX_TEXT + 1]; uint16_t type, class; size_t end; };

static uint16_t u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static bool parse_question(const uint8_t *q, size_t size, struct question *ret)
{
    size_t at = HEADER, n = 0;
    if (size < HEADER + 5 || size > DNS_PACKET_MAX_BYTES || q[2] & 0x80 || u16(q + 4) != 1)
        return false;
    while (at < size && q[at]) {
        unsigned len = q[at++];
        if (len > 63 || at + len >= size || n + len + 1 > NAME_MAX_TEXT)
            return false;
        if (n)
            ret->name[n++] = '.';
        for (unsigned i = 0; i < len; i++) {
            uint8_t c = q[at++];
            if (c == '.' || c < 0x21 || c > 0x7e)
                return false;
            ret->name[n++] = (char)tolower(c);
        }
    }
    if (at + 5 > size)
        return false;
    ret->name[n] = '\0';
    ret->type = u16(q + at + 1);
    ret->class = u16(q + at + 3);
    ret->end = at + 5;
    return true;
}

static bool on(const struct sandbox *s, const char *network_id)
{
    for (uint32_t i = 0; i < s->links.n; i++)
        if (str_equal(s->links.v[i].network_id, network_id))
            return true;
    return false;
}

static bool same(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
    return *a == *b;
}

static bool is_ingress(const struct plan_input *in, const char *network_id)
{
    const struct network *n = plan_ingress(in);
    return n && str_equal(n->id, network_id);
}

struct found { uint32_t v[ANSWERS_MAX]; unsigned n; bool known; };

static void found_add(struct found *f, const char *addr)
{
    uint32_t a;
    f->known = true;
    if (!address_parse(addr, &a, NULL) || f->n == ANSWERS_MAX)
        return;
    for (unsigned i = 0; i < f->n; i++)
        if (f->v[i] == a)
            return;
    f->v[f->n++] = a;
}

/* The replicas of a service on networks of the sandbox: for (x = begin; (r = next_replica(&x));) */
struct replicas_on { const struct plan_input *in; const struct sandbox *s; const char *service_id; uint32_t link, i; bool ingress; };

static const struct replica *next_replica(struct replicas_on *x)
{
    for (; x->link < x->s->links.n; x->link++, x->i = 0) {
        const char *network_id = x->s->links.v[x->link].network_id;
        const struct plan_replicas *all = plan_replicas(x->in->index, x->service_id, network_id);
        if (x->i < all->n && (x->ingress || !is_ingress(x->in, network_id)))
            return all->v[x->i++];
    }
    return NULL;
}

static void find_replicas(const struct plan_input *in, const struct sandbox *s, const char *service_id, struct found *f)
{
    struct replicas_on x = { .in = in, .s = s, .service_id = service_id };
    for (const struct replica *r; (r = next_replica(&x));) {
        f->known = true;
        if (plan_may_get_new(in, r))
            found_add(f, r->addr);
    }
}

static bool has_alias(const struct plan_input *in, const struct sandbox *s, const char *service_id, const char *name)
{
    struct replicas_on x = { .in = in, .s = s, .service_id = service_id, .ingress = true };
    for (const struct replica *r; (r = next_replica(&x));)
        for (uint32_t k = 0; k < r->aliases.n; k++)
            if (same(r->aliases.v[k], name))
                return true;
    return false;
}

static void find_service(const struct plan_input *in, const struct sandbox *s, const struct service_entry *e, bool tasks,
                         struct found *f)
{
    bool each = tasks || e->mode == ENDPOINT_DNSRR;
    for (uint32_t i = 0; i < e->vips.n; i++)
        if (on(s, e->vips.v[i].network_id) && !is_ingress(in, e->vips.v[i].network_id)) {
            f->known = true; /* without replicas as well: nobody outside is asked for it */
            if (!each)
                found_add(f, e->vips.v[i].addr);
        }
    if (each)
        find_replicas(in, s, e->id, f);
}

/* SERVICE.SLOT.TASK: one name for each, also where a service has no slots. */
static void replica_name(char out[NAME_MAX_TEXT], const struct service_entry *e, const struct replica *r)
{
    snprintf(out, NAME_MAX_TEXT, "%s.%llu.%s", e->name, (unsigned long long)r->slot, r->task_id);
}

static void find_replica(const struct plan_input *in, const struct sandbox *s, const struct service_entry *e, const char *name,
                         struct found *f)
{
    size_t n = strlen(name), own = strlen(e->name);
    char text[NAME_MAX_TEXT], slot[NAME_MAX_TEXT];
    bool ends = n > own && name[n - own - 1] == '.' && same(name + n - own, e->name);
    if (!ends && !(n > own && name[own] == '.' && strncasecmp(name, e->name, own) == 0))
        return;
    struct replicas_on x = { .in = in, .s = s, .service_id = e->id };
    for (const struct replica *r; (r = next_replica(&x));) {
        replica_name(text, e, r);
        snprintf(slot, sizeof slot, "%llu.%s", (unsigned long long)r->slot, e->name);
        if (same(name, text) || (r->slot && same(name, slot)))
            found_add(f, r->addr);
    }
}

static void find_name(const struct plan_input *in, const struct sandbox *s, const char *name, struct found *f)
{
    bool tasks = str_starts(name, "tasks.");
    const char *bare = tasks ? name + 6 : name;
    for (uint32_t i = 0; i < in->a->services.n; i++)
        if (same(in->a->services.v[i].name, bare))
            find_service(in, s, &in->a->services.v[i], tasks, f);
    for (uint32_t i = 0; !f->known && i < in->a->services.n; i++)
        if (has_alias(in, s, in->a->services.v[i].id, bare))
            find_service(in, s, &in->a->services.v[i], tasks, f);
    for (uint32_t i = 0; !f->known && i < in->a->services.n; i++)
        find_replica(in, s, &in->a->services.v[i], name, f);
}

unsigned dns_find(const struct plan_input *in, const struct sandbox *s, const char *name, uint32_t *out, unsigned max, bool *ret_known)
{
    static struct found f; /* large */
    f.n = 0;
    f.known = false;
    find_name(in, s, name, &f);
    *ret_known = f.known;
    unsigned n = MIN(f.n, max);
    memcpy(out, f.v, n * sizeof *out);
    return n;
}

/* "4.3.2.1.in-addr.arpa" -> a name of ours. */
static bool find_reverse(const struct plan_input *in, const struct sandbox *s, const char *name, char out[NAME_MAX_TEXT])
{
    unsigned b[4];
    int end = 0;
    uint32_t addr, a;
    if (sscanf(name, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &b[3], &b[2], &b[1], &b[0], &end) != 4 || name[end])
        return false;
    addr = (b[0] & 255) << 24 | (b[1] & 255) << 16 | (b[2] & 255) << 8 | (b[3] & 255);
    for (uint32_t i = 0; i < in->a->services.n; i++) {
        const struct service_entry *e = &in->a->services.v[i];
        for (uint32_t k = 0; k < e->vips.n; k++)
            if (on(s, e->vips.v[k].network_id) && address_parse(e->vips.v[k].addr, &a, NULL) && a == addr) {
                snprintf(out, NAME_MAX_TEXT, "%s", e->name);
                return true;
            }
        struct replicas_on x = { .in = in, .s = s, .service_id = e->id, .ingress = true };
        for (const struct replica *r; (r = next_replica(&x));) {
            if (address_parse(r->addr, &a, NULL) && a == addr) {
                replica_name(out, e, r);
                return true;
            }
        }
    }
    return false;
}

struct writer { uint8_t *p; size_t len, max; bool cut; unsigned n; };

static void put_record(struct writer *w, uint16_t type, const void *data, size_t size)
{
    uint8_t head[12] = { 0xc0, HEADER, (uint8_t)(type >> 8), (uint8_t)type, 0, CLASS_IN, 0, 0, 0, TTL_S,
                         (uint8_t)(size >> 8), (uint8_t)size };
    if (w->cut || w->len + sizeof head + size > w->max) {
        w->cut = true;
        return;
    }
    memcpy(w->p + w->len, head, sizeof head);
    memcpy(w->p + w->len + sizeof head, data, size);
    w->len += sizeof head + size;
    w->n++;
}

static size_t encode_name(uint8_t *out, const char *name)
{
    size_t n = 0;
    while (*name) {
        size_t len = strcspn(name, ".");
        out[n++] = (uint8_t)len;
        memcpy(out + n, name, len);
        n += len;
        name += len + (name[len] == '.');
    }
    out[n++] = 0;
    return n;
}

static void put_srv(struct writer *w, unsigned port, const char *target)
{
    uint8_t b[6 + NAME_MAX_TEXT + 2] = { 0, 0, 0, 0, (uint8_t)(port >> 8), (uint8_t)port }; /* all alike: priority, weight 0 */
    put_record(w, TYPE_SRV, b, 6 + encode_name(b + 6, target));
}

static void put_port(const struct plan_input *in, const struct sandbox *s, const struct service_entry *e, bool tasks,
                     const struct port *p, struct writer *w)
{
    char text[NAME_MAX_TEXT];
    if (!tasks && e->mode != ENDPOINT_DNSRR) {
        put_srv(w, (unsigned)p->target, e->name);
        return;
    }
    struct replicas_on x = { .in = in, .s = s, .service_id = e->id };
    for (const struct replica *r; (r = next_replica(&x));)
        if (plan_may_get_new(in, r)) {
            replica_name(text, e, r);
            put_srv(w, (unsigned)p->target, text);
        }
}

/* _PORT._PROTOCOL.SERVICE or _PORT._PROTOCOL.tasks.SERVICE; false: the service is none of ours. Ports are those of the
 * container, which a virtual IP keeps. */
static bool put_ports(const struct plan_input *in, const struct sandbox *s, const char *name, struct writer *w)
{
    char port[64], protocol[8];
    int end = 0;
    if (sscanf(name, "_%63[^.]._%7[^.].%n", port, protocol, &end) != 2 || !end)
        return false;
    bool tasks = str_starts(name + end, "tasks."), known = false;
    const char *bare = name + end + (tasks ? 6 : 0);
    for (uint32_t i = 0; i < 2 * in->a->services.n; i++) { /* aliases where no name is so */
        const struct service_entry *e = &in->a->services.v[i % in->a->services.n];
        struct found f = { .n = 0 };
        if (i < in->a->services.n ? !same(e->name, bare) : known || !has_alias(in, s, e->id, bare))
            continue;
        find_service(in, s, e, tasks, &f);
        known |= f.known;
        for (uint32_t k = 0; f.known && k < e->ports.n; k++)
            if (e->ports.v[k].name && same(e->ports.v[k].name, port) && same(port_protocol_names[e->ports.v[k].protocol], protocol))
                put_port(in, s, e, tasks, &e->ports.v[k], w);
    }
    return known;
}

static long begin_answer(struct writer *w, const uint8_t *query, const struct question *q, unsigned rcode)
{
    if (q->end > w->max)
        return -E_INVALID;
    memcpy(w->p, query, q->end);
    w->p[2] = (uint8_t)(0x80 | 0x04 | (query[2] & 0x01)); /* answer, authoritative, RD copied */
    w->p[3] = (uint8_t)(0x80 | rcode);                    /* recursion available */
    memset(w->p + 6, 0, 6);
    w->len = q->end;
    return 0;
}

long dns_answer(const struct plan_input *in, const struct sandbox *s, const uint8_t *query, size_t size, uint8_t *out,
                size_t max_bytes)
{
    struct question q;
    struct found f = { .n = 0 };
    char reverse[NAME_MAX_TEXT];
    bool named = false;
    if (!parse_question(query, size, &q))
        return -E_INVALID;
    if (query[2] & 0x78 || q.class != CLASS_IN) /* another opcode or class: let those outside refuse it */
        return 0;
    struct writer w = { .p = out, .max = max_bytes };
    if (begin_answer(&w, query, &q, 0) < 0)
        return -E_INVALID;
    if (q.type == TYPE_PTR)
        named = find_reverse(in, s, q.name, reverse);
    else if (!(q.type == TYPE_SRV && put_ports(in, s, q.name, &w)))
        find_name(in, s, q.name, &f);
    else
        f.known = true;
    if (!named && !f.known)
        return 0;
    if (named) {
        uint8_t name[NAME_MAX_TEXT + 2];
        put_record(&w, TYPE_PTR, name, encode_name(name, reverse));
    }
    unsigned first = f.n ? (unsigned)u16(query) % f.n : 0; /* every query another order: a spread for dnsrr */
    for (unsigned i = 0; i < f.n && (q.type == TYPE_A || q.type == TYPE_ANY); i++) {
        uint32_t a = f.v[(first + i) % f.n];
        uint8_t b[4] = { (uint8_t)(a >> 24), (uint8_t)(a >> 16), (uint8_t)(a >> 8), (uint8_t)a };
        put_record(&w, TYPE_A, b, sizeof b);
    }
    out[6] = (uint8_t)(w.n >> 8);
    out[7] = (uint8_t)w.n;
    if (w.cut)
        out[2] |= 0x02;
    return (long)w.len;
}

long dns_fail(const uint8_t *query, size_t size, uint8_t *out, size_t out_size)
{
    struct question q;
    struct writer w = { .p = out, .max = out_size };
    if (!parse_question(query, size, &q) || begin_answer(&w, query, &q, RCODE_SERVFAIL) < 0)
        return -E_INVALID;
    out[2] &= (uint8_t)~0x04;
    return (long)w.len;
}
