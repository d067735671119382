/* The rules that a host gets, read as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "overlay_internal.h"

struct host {
    struct assignment a;
    struct map sandboxes;
    struct plan_input in;
    struct sb rules;
    uint8_t udp[PORT_SET_BYTES];
};

/* A node with the usual ports, and the ingress network. */
static void host_init(struct host *h)
{
    *h = (struct host){ .in = { .node_id = "n1", .gateway_links = "shg*", .gateway_pool = "172.30.0.0/16",
                                .ingress_link = "shoal-in", .control_port = 2377, .gossip_port = 7946, .tunnel_port = 4789 } };
    map_init(&h->sandboxes);
    sb_init(&h->rules, 0);
    h->in.a = &h->a;
    h->in.sandboxes = &h->sandboxes;
    str_set(&REC_ADD(&h->a.nodes)->id, "n1");
    struct network *n = REC_ADD(&h->a.networks);
    str_set(&n->id, "ingress");
    n->ingress = true;
}

static void host_done(struct host *h)
{
    assignment_clear(&h->a);
    for (struct map_item *it = NULL; (it = map_next(&h->sandboxes, it));) {
        sandbox_clear(it->value);
        free(it->value);
    }
    map_done(&h->sandboxes);
    sb_done(&h->rules);
}

static void publishes(struct host *h, const char *service, int protocol, unsigned published)
{
    struct service_entry *e = REC_ADD(&h->a.services);
    str_set(&e->id, service);
    str_set(&e->name, service);
    *REC_ADD(&e->ports) = (struct port){ .protocol = protocol, .published = published, .target = 80 };
}

static void replica(struct host *h, const char *service, const char *addr)
{
    struct replica *r = REC_ADD(&h->a.replicas);
    str_set(&r->service_id, service);
    str_set(&r->network_id, "ingress");
    str_set(&r->node_id, "n1");
    str_set(&r->addr, addr);
    r->ready = true;
}

static struct sandbox *sandbox(struct host *h, const char *id, int protocol, unsigned published)
{
    struct sandbox *s = xnew(struct sandbox);
    str_set(&s->id, id);
    str_set(&s->gateway_addr, "172.30.0.2/16");
    *REC_ADD(&s->ports) = (struct port){ .protocol = protocol, .published = published, .target = 80, .mode = PUBLISH_HOST };
    map_put(&h->sandboxes, id, s);
    return s;
}

static bool says(struct host *h, const char *text)
{
    sb_done(&h->rules);
    sb_init(&h->rules, 0);
    memset(h->udp, 0, sizeof h->udp);
    plan_host_rules(&h->in, &h->rules, h->udp);
    return strstr(h->rules.s, text) != NULL;
}

static void a_port_without_replicas_refuses_new_connections_only(void **state)
{
    struct host h;
    host_init(&h);
    publishes(&h, "web", PROTO_TCP, 8080);
    publishes(&h, "dns", PROTO_UDP, 53);
    assert_true(says(&h, "\ntcp dport 8080 ct state new reject with tcp reset\n"));
    assert_true(says(&h, "\nudp dport 53 ct state new reject\n"));
    assert_false(port_set_has(h.udp, 53));
    replica(&h, "web", "10.255.0.9/16");
    assert_true(says(&h, "\ntcp dport 8080 dnat to 10.255.0.9:80\n"));
    assert_false(says(&h, "tcp dport 8080 ct state new reject"));
    replica(&h, "dns", "10.255.0.8/16");
    assert_true(says(&h, "\nudp dport 53 dnat to 10.255.0.8:80\n"));
    assert_true(port_set_has(h.udp, 53) && !port_set_has(h.udp, 8080));
    host_done(&h);
}

static void the_node_s_own_ports_are_nobody_s(void **state)
{
    static const struct { int protocol; unsigned port; bool own; } cases[] = {
        { PROTO_TCP, 2377, true }, { PROTO_UDP, 7946, true }, { PROTO_UDP, 4789, true }, { PROTO_UDP, 2377, false }, { PROTO_TCP, 4789, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct host h;
        char text[32];
        snprintf(text, sizeof text, "dport %u ", cases[i].port);
        host_init(&h);
        publishes(&h, "web", cases[i].protocol, cases[i].port);
        assert_int_equal(says(&h, text), !cases[i].own); /* refused */
        replica(&h, "web", "10.255.0.9/16");
        assert_int_equal(says(&h, text), !cases[i].own); /* sent on */
        host_done(&h);
        host_init(&h);
        sandbox(&h, "c1", cases[i].protocol, cases[i].port);
        assert_int_equal(says(&h, text), !cases[i].own);
        host_done(&h);
    }
}

static void a_port_has_one_owner(void **state)
{
    struct host h;
    struct err e;
    host_init(&h);
    publishes(&h, "web", PROTO_TCP, 8080);
    struct sandbox *first = sandbox(&h, "first", PROTO_TCP, 80), *second = sandbox(&h, "second", PROTO_TCP, 80);
    assert_int_equal(plan_check_ports(&h.in, second, &e), -E_CONFLICT);
    assert_string_equal(e.text, "port is already allocated: 80/tcp is container first's");
    second->ports.v[0].protocol = PROTO_UDP;
    assert_int_equal(plan_check_ports(&h.in, second, &e), 0);
    second->ports.v[0].protocol = PROTO_TCP;
    first->idle = true;
    assert_int_equal(plan_check_ports(&h.in, second, &e), 0);
    second->ports.v[0].published = 8080;
    assert_int_equal(plan_check_ports(&h.in, second, &e), -E_CONFLICT);
    assert_string_equal(e.text, "port is already allocated: 8080/tcp is service web's");
    second->idle = true; /* does not run: nothing is asked for yet */
    assert_int_equal(plan_check_ports(&h.in, second, &e), 0);
    second->ports.v[0].published = 2377;
    assert_int_equal(plan_check_ports(&h.in, second, &e), -E_INVALID);
    host_done(&h);
}

static void who_does_not_run_gets_nothing(void **state)
{
    struct host h;
    host_init(&h);
    struct sandbox *s = sandbox(&h, "c1", PROTO_TCP, 80);
    assert_true(says(&h, "tcp dport 80 dnat to 172.30.0.2:80"));
    s->idle = true;
    assert_false(says(&h, "dport 80 "));
    host_done(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_without_replicas_refuses_new_connections_only),
        cmocka_unit_test(the_node_s_own_ports_are_nobody_s),
        cmocka_unit_test(a_port_has_one_owner),
        cmocka_unit_test(who_does_not_run_gets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
