/* Queries from containers to the resolver. Oracles: an answer fits, repeats identifier and question, counts its records
 * truly, and each record is whole, of the type asked for and about an address that the tables hold; a name of ours is
 * answered in any case of letters. An input: two bytes for the longest answer, the query. */
#include "fuzz.h"

#include "overlay_internal.h"

static struct assignment as;
static struct sandbox box;
static struct map suspects;
static struct plan_index places;
static struct plan_input in = { .a = &as, .index = &places, .suspects = &suspects };

static void add_replica(const char *service, unsigned slot, const char *addr, const char *alias)
{
    struct replica *r = REC_ADD(&as.replicas);
    str_set(&r->network_id, "net1");
    str_set(&r->service_id, service);
    str_set(&r->node_id, "node");
    r->task_id = xasprintf("task%u", slot);
    str_set(&r->addr, addr);
    r->slot = slot;
    r->ready = true;
    strs_add(&r->aliases, alias);
}

static void tables(void)
{
    if (as.services.n)
        return;
    map_init(&suspects);
    for (int i = 0; i < 3; i++) {
        struct service_entry *s = REC_ADD(&as.services);
        s->id = xasprintf("s%d", i);
        s->name = xasprintf(i == 2 ? "a-rather-long-name-of-a-service-that-has-sixty-three-letters-%d" : "web%d", i);
        s->mode = i == 1 ? ENDPOINT_DNSRR : ENDPOINT_VIP;
        struct vip *v = REC_ADD(&s->vips);
        str_set(&v->network_id, "net1");
        v->addr = xasprintf("10.0.0.%d/24", 2 + i);
        struct port *p = REC_ADD(&s->ports);
        str_set(&p->name, "http");
        p->target = 8000;
        for (unsigned k = 0; k < (i == 1 ? 60u : 2u); k++) {
            AUTO_FREE char *addr = xasprintf("10.0.%d.%u/16", 1 + i, k);
            add_replica(s->id, k + 1, addr, "alias");
        }
    }
    str_set(&box.id, "box");
    struct sandbox_link *l = REC_ADD(&box.links);
    str_set(&l->network_id, "net1");
    str_set(&l->addr, "10.0.9.9/16");
    plan_index_build(&places, &as);
}

static unsigned u16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static size_t question_end(const uint8_t *q, size_t size)
{
    size_t at = 12;
    while (at < size && q[at])
        at += 1u + q[at];
    ASSERT(at + 5 <= size);
    return at + 5;
}

static void check_answer(const uint8_t *q, const uint8_t *a, size_t size, size_t max, bool failed)
{
    size_t at = question_end(q, DNS_PACKET_MAX_BYTES);
    unsigned type = u16(q + at - 4), n = 0;
    ASSERT(size <= max && at <= size && memcmp(q, a, 2) == 0 && a[2] & 0x80 && u16(a + 4) == 1);
    ASSERT(memcmp(q + 12, a + 12, at - 12) == 0 && u16(a + 8) == 0 && u16(a + 10) == 0);
    for (; at < size; n++) {
        ASSERT(at + 12 <= size && a[at] == 0xc0 && a[at + 1] == 12);
        unsigned kind = u16(a + at + 2), len = u16(a + at + 10);
        ASSERT(kind == type || type == 255);
        at += 12;
        if (kind == 1)
            ASSERT(len == 4 && a[at] == 10 && a[at + 1] == 0);
        if (kind == 33)
            ASSERT(len > 8 && u16(a + at + 4) == 8000 && a[at + 6] <= 63 && a[at + len - 1] == 0);
        at += len;
    }
    ASSERT(at == size && n == u16(a + 6) && (!failed || (n == 0 && (a[3] & 15) == 2)));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    uint8_t out[DNS_PACKET_MAX_BYTES], query[DNS_PACKET_MAX_BYTES] = { 0 };
    if (size < 2)
        return 0;
    tables();
    size_t max = MIN(u16(p), (unsigned)sizeof out);
    const uint8_t *q = p + 2;
    size -= 2;
    memcpy(query, q, MIN(size, sizeof query));
    long n = dns_answer(&in, &box, q, size, out, max);
    ASSERT(n >= 0 || n == -E_INVALID);
    if (n > 0)
        check_answer(query, out, (size_t)n, max, false);
    n = dns_fail(q, size, out, max);
    if (n > 0)
        check_answer(query, out, (size_t)n, max, true);
    return 0;
}

const unsigned fuzz_rounds = 3000;
const char *const fuzz_words[] = { "\x05tasks", "\x04web0", "\x04web1", "\x05" "alias", "\x05_http\x04_tcp", "\x07in-addr\x04" "arpa", "\x02" "10", "\x01" "0",
                                   "\xc0\x0c", "\x3f", NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    static const char *const names[] = { "web0", "WEB1", "tasks.web1", "alias", "1.web0", "2.0.0.10.in-addr.arpa", "example.org",
                                         "a-rather-long-name-of-a-service-that-has-sixty-three-letters-2", "tasks.tasks.web0",
                                         "_http._tcp.web0", "_http._TCP.tasks.web1", "web1.60.task60" };
    static const uint8_t types[] = { 1, 12, 28, 255, 15, 33 };
    uint8_t out[DNS_PACKET_MAX_BYTES];
    size_t which = rng_below(g, ARRAY_N(names)), max = rng_chance(g, 500) ? 512 : rng_below(g, sizeof out);
    uint8_t type = types[rng_below(g, sizeof types)];
    uint8_t head[14] = { (uint8_t)(max >> 8), (uint8_t)max, (uint8_t)rng_u64(g), (uint8_t)rng_u64(g), 1, 0, 0, 1 };
    sb_add(b, head, sizeof head);
    for (const char *s = names[which]; *s;) {
        size_t len = strcspn(s, ".");
        sb_char(b, (char)len);
        sb_add(b, s, len);
        s += len + (s[len] == '.');
    }
    uint8_t tail[5] = { 0, 0, type, 0, 1 };
    sb_add(b, tail, sizeof tail);
    tables();
    long n = dns_answer(&in, &box, (const uint8_t *)b->s + 2, b->len - 2, out, sizeof out);
    bool ours = which != 6 && which != 8 && (which == 5) == (type == 12) && (type == 33 || (which != 9 && which != 10));
    ASSERT(ours ? n > 0 : n == 0);
}
