/* The rules that a host and a container get, read as text, whole and as what changes; the ways back to other nodes; whom
 * nobody answers any more. */
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
    struct plan_index index;
    struct map sandboxes;
    struct plan_input in;
    struct sb rules;
    uint8_t udp[PORT_SET_BYTES];
};

static void node(struct host *h, const char *id, const char *addr, const char *foot)
{
    struct node *n = REC_ADD(&h->a.nodes);
    str_set(&n->id, id);
    str_set(&n->status.addr, addr);
    str_set(&n->ingress_addr, foot);
    n->status.state = NODE_READY;
}

/* Three nodes with the usual ports, this one the first, and the ingress network. */
static void host_init(struct host *h)
{
    *h = (struct host){ .in = { .node_id = "n1", .gateway_links = "shg*", .gateway_pool = "172.30.0.0/16",
                                .ingress_link = "shoal-in", .control_port = 2377, .gossip_port = 7946, .tunnel_port = 4789 } };
    map_init(&h->sandboxes);
    sb_init(&h->rules, 0);
    plan_index_build(&h->index, &h->a);
    h->in.a = &h->a;
    h->in.index = &h->index;
    h->in.sandboxes = &h->sandboxes;
    node(h, "n1", "192.0.2.1", "10.255.0.2/16");
    node(h, "n2", "192.0.2.2", "10.255.0.3/16");
    node(h, "n3", "192.0.2.3", "10.255.0.4/16");
    struct network *n = REC_ADD(&h->a.networks);
    str_set(&n->id, "ingress");
    n->ingress = true;
}

static void host_done(struct host *h)
{
    plan_index_done(&h->index);
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

/* On n1 with its sandbox. */
static struct replica *replica(struct host *h, const char *service, const char *task, const char *node_id)
{
    struct replica *r = REC_ADD(&h->a.replicas);
    str_set(&r->service_id, service);
    str_set(&r->network_id, "ingress");
    str_set(&r->node_id, node_id);
    str_set(&r->task_id, task);
    str_set(&r->addr, "10.255.0.9/16");
    r->ready = true;
    if (str_equal(node_id, "n1")) {
        struct sandbox *s = xnew(struct sandbox);
        str_set(&s->id, task);
        s->gateway_addr = xasprintf("172.30.0.%u/16", 10 + h->sandboxes.n);
        str_set(&REC_ADD(&s->links)->network_id, "ingress");
        map_put(&h->sandboxes, task, s);
    }
    return r;
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

static void index_again(struct host *h)
{
    plan_index_done(&h->index);
    plan_index_build(&h->index, &h->a);
}

static struct rules *host_rules(struct host *h)
{
    struct rules *r = rules_new();
    index_again(h);
    memset(h->udp, 0, sizeof h->udp);
    plan_host_rules(&h->in, r, h->udp);
    return r;
}

static bool says(struct host *h, const char *text)
{
    struct rules *r = host_rules(h);
    sb_reset(&h->rules);
    rules_whole(r, &h->rules);
    rules_free(r);
    return strstr(h->rules.s, text) != NULL;
}

static void a_port_without_replicas_refuses_new_connections_only(void **state)
{
    struct host h;
    host_init(&h);
    publishes(&h, "web", PROTO_TCP, 8080);
    publishes(&h, "dns", PROTO_UDP, 53);
    assert_true(says(&h, "\nct state new meta l4proto . th dport @published jump refuse\n"));
    assert_true(says(&h, "add element ip shoal published { tcp . 8080, udp . 53 }\n"));
    assert_false(says(&h, "goto"));
    assert_false(port_set_has(h.udp, 53));
    replica(&h, "web", "t1", "n1");
    assert_true(says(&h, "chain to-tcp-8080 {\nmeta l4proto tcp dnat to 172.30.0.10:80\n}\n"));
    assert_true(says(&h, "add element ip shoal ports { tcp . 8080 : goto to-tcp-8080 }\n"));
    assert_true(says(&h, "add element ip shoal arrivals { tcp . 8080 : goto at-tcp-8080 }\n"));
    replica(&h, "dns", "t2", "n2");
    assert_true(says(&h, "chain to-udp-53 {\nmeta l4proto udp dnat to 10.255.0.3:53\n}\n"));
    assert_false(says(&h, "at-udp-53"));
    assert_true(port_set_has(h.udp, 53) && !port_set_has(h.udp, 8080));
    host_done(&h);
}

static void a_node_weighs_as_much_as_it_has_and_what_it_sends_stays_here(void **state)
{
    struct host h;
    struct map suspects;
    host_init(&h);
    map_init(&suspects);
    publishes(&h, "web", PROTO_TCP, 8080);
    struct replica *r = replica(&h, "web", "t1", "n1");
    assert_ptr_equal(r, h.a.replicas.v);
    replica(&h, "web", "t2", "n2");
    replica(&h, "web", "t3", "n2");
    assert_true(says(&h, "chain to-tcp-8080 {\nmeta l4proto tcp dnat to numgen random mod 3 map { 0 : 172.30.0.10 . 80, 1 : 10.255.0.3 . 8080, "
                         "2 : 10.255.0.3 . 8080 }\n}\n"));
    assert_true(says(&h, "chain at-tcp-8080 {\nmeta l4proto tcp dnat to 172.30.0.10:80\n}\n"));
    map_put(&suspects, "n2", &h);
    h.in.suspects = &suspects;
    assert_true(says(&h, "chain to-tcp-8080 {\nmeta l4proto tcp dnat to 172.30.0.10:80\n}\n"));
    map_remove(&suspects, "n2");
    h.a.replicas.v[0].ready = false; /* drains: other nodes may not have heard yet */
    assert_true(says(&h, "map { 0 : 10.255.0.3 . 8080, 1 : 10.255.0.3 . 8080 }"));
    assert_true(says(&h, "chain at-tcp-8080 {\nmeta l4proto tcp dnat to 172.30.0.10:80\n}\n"));
    map_done(&suspects);
    host_done(&h);
}

static bool sandbox_says(struct host *h, const struct sandbox *s, const char *text)
{
    struct rules *r = rules_new();
    index_again(h);
    plan_sandbox_rules(&h->in, s, r);
    sb_reset(&h->rules);
    rules_whole(r, &h->rules);
    rules_free(r);
    return strstr(h->rules.s, text) != NULL;
}

static void a_replica_of_this_node_that_has_ended_is_out_before_the_leader_knows(void **state)
{
    struct host h;
    host_init(&h);
    publishes(&h, "web", PROTO_TCP, 8080);
    struct vip *v = REC_ADD(&h.a.services.v[0].vips);
    str_set(&v->network_id, "ingress");
    str_set(&v->addr, "10.255.0.100/16");
    replica(&h, "web", "t1", "n1");
    str_set(&replica(&h, "web", "t2", "n2")->addr, "10.255.0.11/16");
    struct sandbox *caller = sandbox(&h, "caller", PROTO_TCP, 1);
    str_set(&REC_ADD(&caller->links)->network_id, "ingress");
    assert_true(sandbox_says(&h, caller, "dnat to numgen random mod 2 map { 0 : 10.255.0.9, 1 : 10.255.0.11 }"));
    struct sandbox *ended = map_remove(&h.sandboxes, "t1");
    sandbox_clear(ended);
    free(ended);
    assert_true(sandbox_says(&h, caller, "dnat to 10.255.0.11\n"));
    host_done(&h);
}

/* Where each share of callers goes by the map in a text of rules, behind the words given. */
static void shares_of(const char *text, const char *behind, char ret[512][32])
{
    const char *s = strstr(text, behind);
    unsigned n = 0;
    assert_non_null(s);
    s = strstr(s, "map { ");
    assert_non_null(s);
    for (s += 6; *s != '}'; s += *s == ',' ? 2 : *s == ' ') {
        unsigned from, to;
        char target[32];
        int end = 0;
        if (sscanf(s, "%u-%u : %31[0-9.]%n", &from, &to, target, &end) != 3) {
            assert_int_equal(sscanf(s, "%u : %31[0-9.]%n", &from, target, &end), 2);
            to = from;
        }
        assert_int_equal(from, n);
        for (; n <= to && n < 512; n++)
            memcpy(ret[n], target, 32);
        s += end + (int)strspn(s + end, " .0123456789") * (s[end] == ' ' && s[end + 1] == '.');
    }
    assert_int_equal(n, 512);
}

static void a_caller_has_one_replica_whichever_node_it_calls(void **state)
{
    static char vip[512][32], at[512][32], later[512][32];
    struct host h;
    host_init(&h);
    publishes(&h, "web", PROTO_TCP, 8080);
    h.a.services.v[0].balance = BALANCE_SOURCE;
    struct vip *v = REC_ADD(&h.a.services.v[0].vips);
    str_set(&v->network_id, "ingress");
    str_set(&v->addr, "10.255.0.100/16");
    replica(&h, "web", "t1", "n1");
    str_set(&replica(&h, "web", "t2", "n1")->addr, "10.255.0.10/16");
    struct sandbox *caller = sandbox(&h, "caller", PROTO_TCP, 1);
    str_set(&REC_ADD(&caller->links)->network_id, "ingress");
    assert_true(sandbox_says(&h, caller, "dnat to jhash ip saddr mod 512 seed 0x"));
    shares_of(h.rules.s, "chain vip-10.255.0.100 ", vip);
    assert_true(says(&h, "dnat to jhash ip saddr mod 512 seed 0x"));
    shares_of(h.rules.s, "chain at-tcp-8080 ", at);
    unsigned n_first = 0, n_moved = 0;
    for (unsigned i = 0; i < 512; i++) {
        bool first = str_equal(vip[i], "10.255.0.9");
        n_first += first;
        assert_string_equal(at[i], first ? "172.30.0.10" : "172.30.0.11");
    }
    assert_in_range(n_first, 256 - 60, 256 + 60);
    str_set(&replica(&h, "web", "t3", "n2")->addr, "10.255.0.11/16");
    assert_true(sandbox_says(&h, caller, "dnat to"));
    shares_of(h.rules.s, "chain vip-10.255.0.100 ", later);
    for (unsigned i = 0; i < 512; i++) {
        bool moved = strcmp(later[i], vip[i]) != 0;
        n_moved += moved;
        assert_true(!moved || str_equal(later[i], "10.255.0.11"));
    }
    assert_in_range(n_moved, 171 - 60, 171 + 60);
    assert_int_equal(h.index.shares->n, 1); /* of all sandboxes: a second one has the same text, not made anew */
    struct rules *again = rules_new();
    AUTO_SB struct sb text;
    sb_init(&text, 0);
    plan_sandbox_rules(&h.in, caller, again);
    rules_whole(again, &text);
    rules_free(again);
    assert_string_equal(text.s, h.rules.s);
    assert_int_equal(h.index.shares->n, 1);
    struct sandbox *ended = map_remove(&h.sandboxes, "t1"); /* known here before there is another assignment */
    sandbox_clear(ended);
    free(ended);
    again = rules_new();
    sb_reset(&text);
    plan_sandbox_rules(&h.in, caller, again);
    rules_whole(again, &text);
    rules_free(again);
    assert_null(strstr(text.s, "10.255.0.9"));
    assert_int_equal(h.index.shares->n, 2);
    host_done(&h);
}

static void the_narrowest_link_counts_for_all(void **state)
{
    struct host h;
    const struct node *by;
    host_init(&h);
    assert_int_equal(plan_underlay_mtu(&h.in, 1500, &by), 1500); /* nobody else was measured */
    h.a.nodes.v[0].description.mtu = 600; /* this node's, as it was told before */
    h.a.nodes.v[1].description.mtu = 9000;
    assert_int_equal(plan_underlay_mtu(&h.in, 1500, &by), 1500);
    assert_int_equal(plan_underlay_mtu(&h.in, 9000, &by), 9000);
    h.a.nodes.v[2].description.mtu = 1420;
    assert_int_equal(plan_underlay_mtu(&h.in, 9000, &by), 1420);
    assert_ptr_equal(by, &h.a.nodes.v[2]);
    h.a.nodes.v[2].status.state = NODE_DOWN;
    assert_int_equal(plan_underlay_mtu(&h.in, 9000, &by), 9000);
    assert_null(by);
    h.a.nodes.v[2].status.state = NODE_READY;
    h.a.nodes.v[2].description.mtu = 1;
    assert_int_equal(plan_underlay_mtu(&h.in, 9000, &by), UNDERLAY_MTU_MIN);
    host_done(&h);
}

static void answers_go_back_by_the_node_that_sent_the_call(void **state)
{
    struct host h;
    uint32_t n;
    host_init(&h);
    assert_true(says(&h, "chain zone {\nct original zone set ether saddr map { 02:42:0a:ff:00:03 : 3, 02:42:0a:ff:00:04 : 4 }\n}\n"));
    assert_true(says(&h, "chain way {\nct mark set ether saddr map { 02:42:0a:ff:00:03 : 0x53ff0003, 02:42:0a:ff:00:04 : 0x53ff0004 }\n"
                         "meta mark set ct mark\n}\n"));
    assert_true(says(&h, "chain own {\nip saddr { 192.0.2.2, 192.0.2.3 } masquerade\n}\n"));
    assert_true(says(&h, "chain feet {\nip saddr { 10.255.0.0/16 } snat to 0.0.0.0\n}\n"));
    free(plan_ways(&h.in, &n));
    assert_int_equal(n, 0); /* nobody is called */
    publishes(&h, "web", PROTO_TCP, 8080);
    AUTO_FREE uint32_t *feet = plan_ways(&h.in, &n);
    assert_int_equal(n, 2);
    assert_int_equal(feet[1], 0x0aff0004);
    assert_int_equal(plan_way_mark(feet[1]), 0x53ff0004);
    host_done(&h);
}

static void a_change_costs_what_it_changes(void **state)
{
    struct host h;
    struct sb out;
    host_init(&h);
    sb_init(&out, 0);
    publishes(&h, "web", PROTO_TCP, 8080);
    publishes(&h, "api", PROTO_TCP, 9090);
    replica(&h, "api", "t9", "n3");
    struct rules *none = host_rules(&h);
    replica(&h, "web", "t1", "n2");
    struct rules *one = host_rules(&h);
    replica(&h, "web", "t2", "n3");
    struct rules *two = host_rules(&h);
    assert_true(rules_change(none, one, &out));
    assert_string_equal(out.s, "add chain ip shoal to-tcp-8080\nadd rule ip shoal to-tcp-8080 meta l4proto tcp dnat to 10.255.0.3:8080\n"
                               "add element ip shoal ports { tcp . 8080 : goto to-tcp-8080 }\n");
    sb_reset(&out);
    assert_true(rules_change(one, two, &out));
    assert_string_equal(out.s, "flush chain ip shoal to-tcp-8080\nadd rule ip shoal to-tcp-8080 meta l4proto tcp dnat to numgen random mod 2 "
                               "map { 0 : 10.255.0.3 . 8080, 1 : 10.255.0.4 . 8080 }\n");
    sb_reset(&out);
    assert_true(rules_change(two, none, &out));
    assert_string_equal(out.s, "delete element ip shoal ports { tcp . 8080 }\nflush chain ip shoal to-tcp-8080\ndelete chain ip shoal to-tcp-8080\n");
    sb_reset(&out);
    assert_true(rules_change(one, one, &out) && !out.len);
    h.in.gateway_addr = 1;
    struct rules *other = host_rules(&h);
    assert_false(rules_change(two, other, &out));
    rules_free(none);
    rules_free(one);
    rules_free(two);
    rules_free(other);
    sb_done(&out);
    host_done(&h);
}

static void a_virtual_ip_without_replicas_is_refused(void **state)
{
    struct host h;
    struct rules *r = rules_new();
    host_init(&h);
    publishes(&h, "web", PROTO_TCP, 8080);
    struct sandbox *s = sandbox(&h, "c1", PROTO_TCP, 80);
    str_set(&REC_ADD(&s->links)->network_id, "front");
    struct vip *v = REC_ADD(&h.a.services.v[0].vips);
    str_set(&v->network_id, "front");
    str_set(&v->addr, "10.0.0.2/24");
    index_again(&h);
    assert_true(plan_sandbox_rules(&h.in, s, r));
    rules_whole(r, &h.rules);
    assert_non_null(strstr(h.rules.s, "\nip daddr @vips reject\n"));
    assert_non_null(strstr(h.rules.s, "add element ip shoal vips { 10.0.0.2 }\n"));
    assert_null(strstr(h.rules.s, "dnat"));
    struct replica *x = replica(&h, "web", "t2", "n2");
    str_set(&x->network_id, "front");
    index_again(&h);
    rules_free(r);
    r = rules_new();
    assert_true(plan_sandbox_rules(&h.in, s, r));
    sb_reset(&h.rules);
    rules_whole(r, &h.rules);
    assert_non_null(strstr(h.rules.s, "chain vip-10.0.0.2 {\ndnat to 10.255.0.9\n}\n"));
    assert_non_null(strstr(h.rules.s, "add element ip shoal choose { 10.0.0.2 : goto vip-10.0.0.2 }\n"));
    rules_free(r);
    host_done(&h);
}

static void flows_to_a_node_are_forgotten_with_its_last_replica(void **state)
{
    struct host h, then;
    uint32_t n;
    struct host *both[] = { &then, &h };
    for (int i = 0; i < 2; i++) {
        host_init(both[i]);
        publishes(both[i], "web", PROTO_UDP, 8080);
        replica(both[i], "web", "t1", "n2");
        replica(both[i], "web", "t2", "n2");
        index_again(both[i]);
    }
    free(plan_gone_feet(&then.index, &h.index, "ingress", &n));
    assert_int_equal(n, 0);
    str_set(&h.a.replicas.v[0].node_id, "n3"); /* moved; the other one is still there */
    index_again(&h);
    free(plan_gone_feet(&then.index, &h.index, "ingress", &n));
    assert_int_equal(n, 0);
    h.a.nodes.v[1].status.state = NODE_DOWN;
    AUTO_FREE struct flow_end *gone = plan_gone_feet(&then.index, &h.index, "ingress", &n);
    assert_int_equal(n, 2);
    assert_true(gone[0].addr == 0x0aff0003 && gone[0].port == 8080 && gone[0].protocol == 17);
    host_done(&h);
    host_done(&then);
}

static void the_node_s_own_ports_are_nobody_s(void **state)
{
    static const struct { int protocol; unsigned port; bool own; } cases[] = {
        { PROTO_TCP, 2377, true }, { PROTO_UDP, 7946, true }, { PROTO_UDP, 4789, true }, { PROTO_UDP, 2377, false }, { PROTO_TCP, 4789, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct host h;
        char text[32];
        snprintf(text, sizeof text, " . %u", cases[i].port);
        host_init(&h);
        publishes(&h, "web", cases[i].protocol, cases[i].port);
        assert_int_equal(says(&h, text), !cases[i].own); /* refused */
        replica(&h, "web", "t1", "n1");
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
    assert_true(says(&h, "chain to-tcp-80 {\nmeta l4proto tcp dnat to 172.30.0.2:80\n}\n"));
    s->idle = true;
    assert_false(says(&h, " . 80"));
    host_done(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_without_replicas_refuses_new_connections_only),
        cmocka_unit_test(a_node_weighs_as_much_as_it_has_and_what_it_sends_stays_here),
        cmocka_unit_test(the_narrowest_link_counts_for_all),
        cmocka_unit_test(a_caller_has_one_replica_whichever_node_it_calls),
        cmocka_unit_test(a_replica_of_this_node_that_has_ended_is_out_before_the_leader_knows),
        cmocka_unit_test(answers_go_back_by_the_node_that_sent_the_call),
        cmocka_unit_test(a_change_costs_what_it_changes),
        cmocka_unit_test(a_virtual_ip_without_replicas_is_refused),
        cmocka_unit_test(flows_to_a_node_are_forgotten_with_its_last_replica),
        cmocka_unit_test(the_node_s_own_ports_are_nobody_s),
        cmocka_unit_test(a_port_has_one_owner),
        cmocka_unit_test(who_does_not_run_gets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
