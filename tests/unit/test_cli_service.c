/* Flags of service create and update against the spec they must give (JSON as it goes to the daemon), and what
 * one look at a converging service says. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/cli/cli.h"
#include <shoal/stack.h>

static struct cli c;
static struct err e;

static int apply(const char *line, const char *before, struct service_spec *s)
{
    struct strs words = { 0 };
    cli_clear(&c);
    c.err = stderr;
    e = (struct err){ 0 };
    *s = (struct service_spec){ 0 };
    assert_int_equal(stack_shell_split(line, &words), 0);
    int rc = cli_parse(&c, (int)words.n, words.v, &e);
    strs_clear(&words);
    if (rc == 0 && before)
        rc = rec_from_json(&service_spec_rec, s, before, strlen(before), "before", &e);
    if (rc == 0)
        rc = service_spec_from_flags(&c, s, before != NULL, &e);
    if (rc == 0)
        rc = rec_check(&service_spec_rec, s, &e);
    return rc == 0 ? service_spec_normalize(s, &e) : rc;
}

static void golden(const char *line, const char *before, const char *want)
{
    struct service_spec s;
    struct sb b;
    sb_init(&b, 0);
    int rc = apply(line, before, &s);
    if (rc < 0)
        print_error("%s\n", e.text);
    assert_int_equal(rc, 0);
    rec_to_json(&service_spec_rec, &s, &b);
    assert_string_equal(b.s, want);
    sb_done(&b);
    service_spec_clear(&s);
}

static void wrong(const char *line, const char *before, const char *text)
{
    struct service_spec s;
    assert_true(apply(line, before, &s) < 0);
    assert_non_null(strstr(e.text, text));
    service_spec_clear(&s);
}

#define TAIL ",\"ForceUpdate\":0}"

static void create_plain(void **state)
{
    golden("shoal service create --name web web:1 serve -v", NULL,
           "{\"Name\":\"web\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"web:1\",\"Args\":[\"serve\","
           "\"-v\"]}" TAIL ",\"Mode\":{\"Replicated\":{\"Replicas\":1}}}");
    golden("shoal service create --name g --mode global --entrypoint '/bin/sh -c \"a b\"' x", NULL,
           "{\"Name\":\"g\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"x\",\"Command\":[\"/bin/sh\",\"-c\","
           "\"a b\"]}" TAIL ",\"Mode\":{\"Global\":{}}}");
}

static void create_with_much(void **state)
{
    setenv("CLI_TEST_HERE", "from shell", 1);
    unsetenv("CLI_TEST_ABSENT");
    golden("shoal service create --name db --replicas 3 -e A=1 -e CLI_TEST_HERE -e CLI_TEST_ABSENT -e A=2 -l tier=back "
           "--container-label x=y --mount type=volume,source=data,target=/data "
           "--mount type=tmpfs,target=/tmp,tmpfs-size=64m,tmpfs-mode=1770 --mount type=bind,src=/etc,dst=/host,ro "
           "--network back --network name=front,alias=db1 -p 5432:5432 "
           "--publish published=53,target=53,protocol=udp,mode=host --constraint node.role==worker "
           "--placement-pref spread=node.labels.zone --limit-cpu 1.5 --limit-memory 1g --limit-pids 100 "
           "--reserve-cpu .5 --reserve-memory 512m --secret pw --secret source=key,target=k,mode=0400,uid=7 "
           "--config site --ulimit nofile=1024:2048 --sysctl net.core.somaxconn=9 --host gw:10.0.0.1 --dns 9.9.9.9 "
           "--cap-add NET_ADMIN --cap-drop ALL --user 7:7 --workdir /w --hostname h --stop-signal SIGINT "
           "--stop-grace-period 30s --read-only --init --tty db:2", NULL,
           "{\"Name\":\"db\",\"Labels\":{\"tier\":\"back\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"db:2\","
           "\"Labels\":{\"x\":\"y\"},\"Hostname\":\"h\",\"Env\":[\"A=2\",\"CLI_TEST_HERE=from shell\"],\"Dir\":\"/w\","
           "\"User\":\"7:7\",\"Init\":true,\"StopSignal\":\"SIGINT\",\"StopGracePeriod\":30000000000,\"TTY\":true,"
           "\"ReadOnly\":true,\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"data\",\"Target\":\"/data\"},"
           "{\"Type\":\"tmpfs\",\"Target\":\"/tmp\",\"TmpfsOptions\":{\"SizeBytes\":67108864,\"Mode\":1016}},"
           "{\"Type\":\"bind\",\"Source\":\"/etc\",\"Target\":\"/host\",\"ReadOnly\":true}],"
           "\"Hosts\":[\"10.0.0.1 gw\"],\"DNSConfig\":{\"Nameservers\":[\"9.9.9.9\"]},"
           "\"Secrets\":[{\"File\":{\"Name\":\"pw\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292},\"SecretName\":\"pw\"},"
           "{\"File\":{\"Name\":\"k\",\"UID\":\"7\",\"GID\":\"0\",\"Mode\":256},\"SecretName\":\"key\"}],"
           "\"Configs\":[{\"File\":{\"Name\":\"/site\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292},\"ConfigName\":\"site\"}],"
           "\"Sysctls\":{\"net.core.somaxconn\":\"9\"},\"CapabilityAdd\":[\"NET_ADMIN\"],\"CapabilityDrop\":[\"ALL\"],"
           "\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":1024,\"Hard\":2048}]},"
           "\"Resources\":{\"Limits\":{\"NanoCPUs\":1500000000,\"MemoryBytes\":1073741824,\"Pids\":100},"
           "\"Reservations\":{\"NanoCPUs\":500000000,\"MemoryBytes\":536870912}},"
           "\"Placement\":{\"Constraints\":[\"node.role==worker\"],"
           "\"Preferences\":[{\"Spread\":{\"SpreadDescriptor\":\"node.labels.zone\"}}]},"
           "\"Networks\":[{\"Target\":\"back\"},{\"Target\":\"front\",\"Aliases\":[\"db1\"]}]" TAIL
           ",\"Mode\":{\"Replicated\":{\"Replicas\":3}},\"EndpointSpec\":{\"Mode\":\"vip\",\"Ports\":["
           "{\"Protocol\":\"tcp\",\"TargetPort\":5432,\"PublishedPort\":5432,\"PublishMode\":\"ingress\"},"
           "{\"Protocol\":\"udp\",\"TargetPort\":53,\"PublishedPort\":53,\"PublishMode\":\"host\"}]}}");
}

static void create_policies(void **state)
{
    golden("shoal service create --name p --restart-condition on-failure --restart-max-attempts 3 --restart-window 1m "
           "--update-parallelism 2 --update-delay 10s --update-order start-first --update-failure-action rollback "
           "--update-monitor 20s --update-max-failure-ratio 0.25 --rollback-parallelism 0 --health-cmd 'wget x' "
           "--health-interval 5s --health-retries 2 --endpoint-mode dnsrr --log-opt max-size=1m web", NULL,
           "{\"Name\":\"p\",\"Labels\":{},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"web\",\"Healthcheck\":{\"Test\":[\"CMD-SHELL\","
           "\"wget x\"],\"Interval\":5000000000,\"Retries\":2}},\"RestartPolicy\":{\"Condition\":\"on-failure\","
           "\"Delay\":5000000000,\"MaxAttempts\":3,\"Window\":60000000000},\"LogDriver\":{\"Name\":\"json-file\","
           "\"Options\":{\"max-size\":\"1m\"}}" TAIL ",\"Mode\":{\"Replicated\":{\"Replicas\":1}},"
           "\"UpdateConfig\":{\"Parallelism\":2,\"Delay\":10000000000,\"FailureAction\":\"rollback\","
           "\"Monitor\":20000000000,\"MaxFailureRatio\":0.25,\"Order\":\"start-first\"},"
           "\"RollbackConfig\":{\"Parallelism\":0,\"MaxFailureRatio\":0.0},\"EndpointSpec\":{\"Mode\":\"dnsrr\"}}");
}

static const char web[] =
    "{\"Name\":\"web\",\"Labels\":{\"a\":\"1\",\"b\":\"2\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"web:1\","
    "\"Env\":[\"A=1\",\"B=2\"],\"Mounts\":[{\"Type\":\"volume\",\"Source\":\"d\",\"Target\":\"/d\"}],\"Secrets\":[{\"File\":{"
    "\"Name\":\"pw\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292},\"SecretID\":\"s1\",\"SecretName\":\"pw\"}]},"
    "\"ForceUpdate\":4},\"Mode\":{\"Replicated\":{\"Replicas\":2}},\"EndpointSpec\":{\"Mode\":\"vip\",\"Ports\":[{"
    "\"Protocol\":\"tcp\",\"TargetPort\":80,\"PublishedPort\":8080,\"PublishMode\":\"ingress\"}]}}";

static void update_changes_only_what_is_said(void **state)
{
    golden("shoal service update web", web, web);
    golden("shoal service update --image web:2 --env-add C=3 --env-add A=9 --env-rm B --label-rm a --label-add c=3 "
           "--mount-rm /d --secret-rm pw --publish-rm 80 --publish-add 443:443 --force --replicas 5 "
           "--args 'run \"two words\"' web", web,
           "{\"Name\":\"web\",\"Labels\":{\"b\":\"2\",\"c\":\"3\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"web:2\","
           "\"Args\":[\"run\",\"two words\"],\"Env\":[\"A=9\",\"C=3\"]},\"ForceUpdate\":5},\"Mode\":{\"Replicated\":{"
           "\"Replicas\":5}},\"EndpointSpec\":{\"Mode\":\"vip\",\"Ports\":[{\"Protocol\":\"tcp\",\"TargetPort\":443,"
           "\"PublishedPort\":443,\"PublishMode\":\"ingress\"}]}}");
}

static void wrong_values_name_the_value(void **state)
{
    wrong("shoal service create --mount source=a x", NULL, "the mount \"source=a\": target=PATH is missing");
    wrong("shoal service create --mount type=nfs,target=/a x", NULL, "type nfs is not possible");
    wrong("shoal service create --mount target=/a,colour=red x", NULL, "unknown key colour");
    wrong("shoal service create --publish published=80 x", NULL, "target=PORT is missing");
    wrong("shoal service create --publish published=80,target=70000 x", NULL, "target=70000 is not possible");
    wrong("shoal service create -p 80:web x", NULL, "the port \"80:web\"");
    wrong("shoal service create --constraint zone=a x", NULL, "the constraint \"zone=a\"");
    wrong("shoal service create --placement-pref binpack=x x", NULL, "must be spread=");
    wrong("shoal service create --ulimit nofile x", NULL, "the limit \"nofile\"");
    wrong("shoal service create --host gw x", NULL, "must be NAME:IP");
    wrong("shoal service create --mode global --replicas 2 x", NULL, "--replicas is only for replicated");
    wrong("shoal service create --no-healthcheck --health-cmd a x", NULL, "exclude each other");
    wrong("shoal service create --replicas -1 x", NULL, "must not be negative");
    wrong("shoal service create --entrypoint 'a \"b' x", NULL, "a quote is not closed");
    wrong("shoal service create --name b 'bad image'", NULL, "Image");
    wrong("shoal service update --replicas 3 web", "{\"Name\":\"web\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"x\"}},"
          "\"Mode\":{\"Global\":{}}}", "--replicas is only for replicated");
}

static struct converge_view look(const char *service, const char *tasks, const char *nodes)
{
    struct val_doc *s, *t, *n;
    struct converge_view v;
    assert_int_equal(json_parse(&s, service, strlen(service), "service", &e), 0);
    assert_int_equal(json_parse(&t, tasks, strlen(tasks), "tasks", &e), 0);
    assert_int_equal(json_parse(&n, nodes, strlen(nodes), "nodes", &e), 0);
    converge_look(&v, val_root(s), val_root(t), val_root(n));
    val_doc_free(s);
    val_doc_free(t);
    val_doc_free(n);
    return v;
}

#define SERVICE(more) "{\"ID\":\"s\",\"Spec\":{\"Name\":\"web\",\"Mode\":{\"Replicated\":{\"Replicas\":2}}}" more "}"
#define TASK(slot, state, desired, node, err)                                                            \
    "{\"ID\":\"t" #slot "\",\"ServiceID\":\"s\",\"Slot\":" #slot ",\"NodeID\":\"" node "\",\"DesiredState\":\"" desired \
    "\",\"Status\":{\"State\":\"" state "\",\"Err\":\"" err "\",\"Timestamp\":\"2026-01-01T00:00:0" #slot "Z\"}}"
#define NODES "[{\"ID\":\"n1\",\"Status\":{\"State\":\"ready\"}},{\"ID\":\"n2\",\"Status\":{\"State\":\"down\"}}]"

static void looks_at_convergence(void **state)
{
    struct converge_view v = look(SERVICE(""), "[" TASK(1, "running", "running", "n1", "") ","
                                  TASK(2, "running", "running", "n1", "") "]", NODES);
    assert_true(v.steady && !v.failed);
    assert_string_equal(v.line, "web  2/2 running");
    assert_int_equal(v.monitor_ns, INT64_C(5000000000));
    v = look(SERVICE(""), "[" TASK(1, "running", "running", "n1", "") "," TASK(2, "running", "running", "n2", "") "]",
             NODES); /* a node that is down does not count */
    assert_false(v.steady);
    v = look(SERVICE(""), "[" TASK(1, "pending", "running", "", "no suitable node (1 node not available)") "]", NODES);
    assert_string_equal(v.line, "web  0/2 running: task web.1: no suitable node (1 node not available)");
    v = look(SERVICE(""), "[" TASK(1, "failed", "shutdown", "n1", "exit code 3") ","
             TASK(2, "preparing", "running", "n1", "") "]", NODES);
    assert_string_equal(v.line, "web  0/2 running: task web.1: exit code 3");
    v = look(SERVICE(""), "[" TASK(2, "preparing", "running", "n1", "") "]", NODES);
    assert_string_equal(v.line, "web  0/2 running: task web.2: preparing");
    v = look(SERVICE(",\"UpdateStatus\":{\"State\":\"updating\"}"), "[" TASK(1, "running", "running", "n1", "") ","
             TASK(2, "running", "running", "n1", "") "]", NODES);
    assert_false(v.steady || v.failed);
    v = look(SERVICE(",\"UpdateStatus\":{\"State\":\"paused\",\"Message\":\"task t9 failed\"}"), "[]", NODES);
    assert_true(v.failed);
    assert_string_equal(v.reason, "the update of service web stopped (paused): task t9 failed");
    v = look(SERVICE(",\"UpdateStatus\":{\"State\":\"rollback_started\",\"Message\":\"task t9 failed\"}"), "[]", NODES);
    assert_true(v.back && !v.failed && !v.steady);
    assert_string_equal(v.reason, "the update of service web failed and was rolled back: task t9 failed");
}

static int end(void **state)
{
    cli_clear(&c);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_plain),
        cmocka_unit_test(create_with_much),
        cmocka_unit_test(create_policies),
        cmocka_unit_test(update_changes_only_what_is_said),
        cmocka_unit_test(wrong_values_name_the_value),
        cmocka_unit_test(looks_at_convergence),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
