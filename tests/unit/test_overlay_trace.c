/* The way from a container to a name or address, as the tables have it: whom it ends at, and what is said when it does not. */
#include "../../overlay/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct assignment as;
static struct map suspects, sandboxes;
static struct plan_index places;
static struct plan_input in = { .a = &as, .index = &places, .suspects = &suspects, .sandboxes = &sandboxes, .node_id = "one" };
static struct sandbox box;
static struct trace t;
static struct trace_target targets[TRACE_TARGETS_MAX];

static void add_node(const char *id)
{
    struct node *n = REC_ADD(&as.nodes);
    str_set(&n->id, id);
    n->description.hostname = xasprintf("host-%s", id);
    n->status.state = NODE_READY;
}

static struct replica *add_replica(unsigned slot, const char *addr, const char *node)
{
    struct replica *r = REC_ADD(&as.replicas);
    str_set(&r->network_id, "net");
    str_set(&r->service_id, "s");
    str_set(&r->node_id, node);
    str_set(&r->addr, addr);
    r->task_id = xasprintf("task%u", slot);
    r->slot = slot;
    r->ready = true;
    return r;
}

static int setup(void **state)
{
    (void)state;
    map_init(&suspects);
    map_init(&sandboxes);
    add_node("one");
    add_node("two");
    struct network *n = REC_ADD(&as.networks);
    str_set(&n->id, "net");
    str_set(&n->name, "back");
    n->vni = 4097;
    struct service_entry *s = REC_ADD(&as.services);
    str_set(&s->id, "s");
    str_set(&s->name, "db");
    struct vip *v = REC_ADD(&s->vips);
    str_set(&v->network_id, "net");
    str_set(&v->addr, "10.0.0.2/24");
    add_replica(1, "10.0.0.3/24", "one");
    add_replica(2, "10.0.0.4/24", "two");
    str_set(&box.id, "box");
    struct sandbox_link *l = REC_ADD(&box.links);
    str_set(&l->network_id, "net");
    str_set(&l->addr, "10.0.0.9/24");
    l->vni = 4097;
    map_put(&sandboxes, box.id, &box);
    plan_index_build(&places, &as);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rec_clear(&trace_rec, &t);
    plan_index_done(&places);
    assignment_clear(&as);
    sandbox_clear(&box);
    map_done(&suspects);
    map_done(&sandboxes);
    return 0;
}

static unsigned go(const char *to)
{
    rec_clear(&trace_rec, &t);
    return trace_plan(&in, &box, to, &t, targets);
}

static void says(uint32_t step, const char *name, enum trace_state state, const char *text)
{
    assert_true(step < t.steps.n);
    assert_string_equal(t.steps.v[step].name, name);
    assert_int_equal(t.steps.v[step].state, state);
    if (!strstr(t.steps.v[step].text, text))
        fail_msg("\"%s\" does not say \"%s\"", t.steps.v[step].text, text);
}

static void a_name_leads_to_the_replicas(void **state)
{
    (void)state;
    assert_int_equal(go("db"), 2);
    says(0, "name", TRACE_OK, "db is 10.0.0.2");
    says(1, "network", TRACE_OK, "back (VNI 4097)");
    says(2, "virtual IP", TRACE_OK, "2 of 2 replicas");
    assert_int_equal(targets[0].addr, 0x0a000003);
    assert_string_equal(targets[1].node_id, "two");
    map_put(&suspects, "two", &in);
    assert_int_equal(go("db"), 1);
    says(2, "replica", TRACE_WARNING, "db.2 on host-two is on a node that is not heard");
    says(3, "virtual IP", TRACE_OK, "1 of 2 replicas");
    as.replicas.v[0].ready = false;
    assert_int_equal(go("db"), 0);
    says(4, "virtual IP", TRACE_BROKEN, "0 of 2 replicas get connections; callers are refused");
}

static void an_address_leads_to_whoever_has_it(void **state)
{
    (void)state;
    assert_int_equal(go("10.0.0.4"), 1);
    says(1, "replica", TRACE_OK, "10.0.0.4 is db.2 on host-two");
    assert_int_equal(go("10.0.0.9"), 1);
    says(1, "container", TRACE_OK, "is box on this node");
    assert_int_equal(go("2.db"), 1);
    says(0, "name", TRACE_OK, "2.db is 10.0.0.4");
}

static void what_leads_nowhere_is_said(void **state)
{
    (void)state;
    assert_int_equal(go("nobody"), 0);
    says(0, "name", TRACE_BROKEN, "no service, alias or task named nobody");
    assert_int_equal(go("10.0.0.77"), 0);
    says(1, "replica", TRACE_BROKEN, "nobody has the address 10.0.0.77");
    assert_int_equal(go("192.0.2.1"), 0);
    says(0, "network", TRACE_BROKEN, "192.0.2.1 is on no network of this container; it is on back (10.0.0.9/24)");
    as.services.v[0].mode = ENDPOINT_DNSRR;
    as.replicas.v[0].ready = as.replicas.v[1].ready = false;
    assert_int_equal(go("db"), 0);
    says(0, "name", TRACE_BROKEN, "db has no replica that may be called");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = { T(a_name_leads_to_the_replicas), T(an_address_leads_to_whoever_has_it), T(what_leads_nowhere_is_said) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
