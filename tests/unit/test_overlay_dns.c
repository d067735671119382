/* What the resolver of a container answers: names, addresses, ports, and what it leaves to others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "overlay_internal.h"

static struct assignment as;
static struct sandbox box;
static struct map suspects, sandboxes;
static struct plan_index places;
static struct plan_input in = { .a = &as, .index = &places, .suspects = &suspects, .sandboxes = &sandboxes, .node_id = "n1" };

static struct service_entry *add_service(const char *name, enum endpoint_mode mode, const char *vip)
{
    struct service_entry *e = REC_ADD(&as.services);
    str_set(&e->id, name);
    str_set(&e->name, name);
    e->mode = (int)mode;
    struct vip *v = REC_ADD(&e->vips);
    str_set(&v->network_id, "net");
    str_set(&v->addr, vip);
    struct port *p = REC_ADD(&e->ports);
    str_set(&p->name, "http");
    p->target = 8080;
    return e;
}

static void add_replica(const char *service, unsigned slot, const char *task, const char *addr)
{
    struct replica *r = REC_ADD(&as.replicas);
    str_set(&r->network_id, "net");
    str_set(&r->service_id, service);
    str_set(&r->node_id, "n2");
    str_set(&r->task_id, task);
    str_set(&r->addr, addr);
    r->slot = slot;
    r->ready = true;
    if (str_equal(task, "t3"))
        strs_add(&r->aliases, "store");
}

static int tables(void **state)
{
    map_init(&suspects);
    map_init(&sandboxes);
    add_service("web", ENDPOINT_VIP, "10.0.0.2/24");
    add_replica("web", 1, "t1", "10.0.0.3/24");
    add_replica("web", 2, "t2", "10.0.0.4/24");
    add_service("db", ENDPOINT_DNSRR, NULL);
    add_replica("db", 0, "t3", "10.0.0.5/24");
    add_service("none", ENDPOINT_VIP, "10.0.0.6/24");
    add_service("nobody", ENDPOINT_DNSRR, NULL);
    str_set(&REC_ADD(&box.links)->network_id, "net");
    plan_index_build(&places, &as);
    return 0;
}

static int tables_done(void **state)
{
    plan_index_done(&places);
    assignment_clear(&as);
    sandbox_clear(&box);
    map_done(&suspects);
    map_done(&sandboxes);
    return 0;
}

/* "A name" or "SRV name" -> "addr addr" or "port:target port:target", sorted by how they come; "outside". */
static void asks(const char *question, const char *answer)
{
    uint8_t q[300] = { 0, 0, 1, 0, 0, 1 }, a[DNS_PACKET_MAX_BYTES];
    char type[8], name[256];
    size_t n = 12;
    struct sb b;
    assert_int_equal(sscanf(question, "%7s %255s", type, name), 2);
    for (char *s = name; *s;) {
        size_t len = strcspn(s, ".");
        q[n++] = (uint8_t)len;
        memcpy(q + n, s, len);
        n += len;
        s += len + (s[len] == '.');
    }
    n += 1;
    q[n + 1] = str_equal(type, "SRV") ? 33 : str_equal(type, "AAAA") ? 28 : str_equal(type, "PTR") ? 12 : 1;
    q[n + 3] = 1;
    long size = dns_answer(&in, &box, q, n + 4, a, sizeof a);
    assert_true(size >= 0);
    sb_init(&b, 0);
    if (size == 0)
        sb_str(&b, "outside");
    for (size_t at = n + 4; at < (size_t)size; at += 12u + a[at + 11]) {
        const uint8_t *data = a + at + 12, *s = data + (a[at + 3] == 33 ? 6 : 0);
        if (b.len)
            sb_char(&b, ' ');
        if (a[at + 3] == 33)
            sb_printf(&b, "%u:", data[4] << 8 | data[5]);
        if (a[at + 3] == 1)
            sb_printf(&b, "%u.%u.%u.%u", data[0], data[1], data[2], data[3]);
        for (; a[at + 3] != 1 && *s; s += 1 + *s)
            sb_printf(&b, "%.*s%s", *s, (const char *)s + 1, s[1 + *s] ? "." : "");
    }
    assert_string_equal(b.s ? b.s : "", answer);
    sb_done(&b);
}

static void services_and_their_replicas(void **state)
{
    asks("A web", "10.0.0.2");
    asks("A WEB", "10.0.0.2");
    asks("A tasks.web", "10.0.0.3 10.0.0.4");
    asks("A 2.web", "10.0.0.4");
    asks("A web.2.t2", "10.0.0.4");
    asks("A web.1.t2", "outside");
    asks("A db", "10.0.0.5");
    asks("A db.0.t3", "10.0.0.5");
    asks("A 0.db", "outside");
    asks("AAAA web", "");
    asks("A example.org", "outside");
}

static void a_service_without_replicas_is_known_all_the_same(void **state)
{
    asks("A none", "10.0.0.6");
    asks("A tasks.none", "");
    asks("A nobody", "");
    asks("A tasks.nobody", "");
}

static void addresses_have_names_that_lead_back(void **state)
{
    asks("PTR 2.0.0.10.in-addr.arpa", "web");
    asks("PTR 4.0.0.10.in-addr.arpa", "web.2.t2");
    asks("PTR 9.0.0.10.in-addr.arpa", "outside");
}

static void named_ports_are_services_of_rfc_2782(void **state)
{
    asks("SRV _http._tcp.web", "8080:web");
    asks("SRV _HTTP._TCP.Web", "8080:web");
    asks("SRV _http._tcp.tasks.web", "8080:web.1.t1 8080:web.2.t2");
    asks("SRV _http._tcp.db", "8080:db.0.t3");
    asks("SRV _http._tcp.store", "8080:db.0.t3");
    asks("SRV _http._udp.web", "");
    asks("SRV _other._tcp.web", "");
    asks("SRV _http._tcp.nobody", "");
    asks("SRV web", "");
    asks("SRV _ldap._tcp.example.org", "outside");
    asks("SRV _http._tcp.", "outside");
    asks("SRV __._.web", "outside");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_and_their_replicas),
        cmocka_unit_test(a_service_without_replicas_is_known_all_the_same),
        cmocka_unit_test(addresses_have_names_that_lead_back),
        cmocka_unit_test(named_ports_are_services_of_rfc_2782),
    };
    return cmocka_run_group_tests(tests, tables, tables_done);
}
