/* Compose files to specs, as `docker stack deploy` makes them: compared as the API's JSON. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <shoal/stack.h>

static const char *const environ_pairs[] = { "HOME=/home/me", "TOKEN=s3cret", "TAG=2", NULL };

static int read_fake(void *arg, const char *path, size_t max, struct bytes *ret, struct err *e)
{
    static const char *const files[][2] = { { "/proj/s.txt", "hush" }, { "/proj/c.conf", "conf" },
                                            { "/proj/a.env", "A=1\nB=2\nC=$TAG\n" }, { "/proj/big", NULL } };
    for (size_t i = 0; i < ARRAY_N(files); i++)
        if (strcmp(path, files[i][0]) == 0) {
            const char *text = files[i][1];
            size_t n = text ? strlen(text) : max + 1;
            *ret = (struct bytes){ text ? xmemdup(text, n) : xcalloc(n, 1), (uint32_t)n };
            return 0;
        }
    return err_set(e, E_NOT_FOUND, "%s: no such file", path);
}

static struct stack load(unsigned n, const char *const *texts)
{
    static const char *const names[] = { "web.yaml", "prod.yaml", "more.yaml" };
    struct stack_source files[3];
    struct stack s;
    struct err e = { 0 };
    for (unsigned i = 0; i < n; i++)
        files[i] = (struct stack_source){ names[i], texts[i], strlen(texts[i]) };
    struct stack_input in = { .name = "st", .dir = "/proj", .files = files, .n_files = n,
                              .environ_pairs = environ_pairs, .read = read_fake };
    if (stack_load(&in, &s, &e) < 0)
        fail_msg("%s", e.text);
    return s;
}

static struct stack load1(const char *text)
{
    return load(1, &text);
}

static void same_json(const struct rec *t, const void *r, const char *want)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    rec_to_json(t, r, &b);
    assert_string_equal(b.s, want);
}

static void test_smallest(void **state)
{
    struct stack s = load1("services:\n  web:\n    image: nginx\n");
    assert_string_equal(s.name, "st");
    assert_int_equal(s.services.n, 1);
    same_json(&service_spec_rec, &s.services.v[0],
              "{\"Name\":\"st_web\",\"Labels\":{\"com.docker.stack.image\":\"nginx\","
              "\"com.docker.stack.namespace\":\"st\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"nginx\","
              "\"Labels\":{\"com.docker.stack.namespace\":\"st\"}},"
              "\"Networks\":[{\"Target\":\"st_default\",\"Aliases\":[\"web\"]}],\"ForceUpdate\":0},"
              "\"Mode\":{\"Replicated\":{\"Replicas\":1}}}");
    assert_int_equal(s.networks.n, 1);
    assert_string_equal(s.networks.v[0].name, "st_default");
    assert_string_equal(s.networks.v[0].driver, "overlay");
    assert_string_equal(labels_get(&s.networks.v[0].labels, STACK_LABEL_NAMESPACE), "st");
    stack_free(&s);
}

static void test_container(void **state)
{
    struct stack s = load1(
        "services:\n  a:\n    image: i:${TAG}\n    command: sh -c 'echo hi'\n    entrypoint: [\"/tini\", \"--\"]\n"
        "    environment:\n      B: over\n      N: 5\n      F: 1.5\n      T: true\n      TOKEN:\n      GONE:\n"
        "    env_file: [a.env]\n    hostname: h\n    user: 1000\n    working_dir: /w\n    stop_signal: SIGINT\n"
        "    stop_grace_period: 1m30s\n    init: true\n    tty: true\n    stdin_open: yes\n    read_only: true\n"
        "    cap_add: [net_admin, CAP_SYS_TIME]\n    cap_drop: [ALL]\n    sysctls:\n      net.core.somaxconn: 1024\n"
        "    ulimits:\n      nproc: 65535\n      nofile: {soft: 20000, hard: -1}\n"
        "    extra_hosts:\n      - \"db:10.0.0.5\"\n      - \"v6=[::1]\"\n    dns: 8.8.8.8\n    dns_search: [a.b, c]\n"
        "    group_add: [100, wheel]\n    oom_score_adj: -500\n    security_opt: [\"no-new-privileges:true\"]\n"
        "    labels: [\"x=1\", \"y\"]\n    expose: [80]\n    x-note: {any: thing}\n");
    same_json(&container_spec_model_rec, s.services.v[0].task.container,
              "{\"Image\":\"i:2\",\"Labels\":{\"com.docker.stack.namespace\":\"st\",\"x\":\"1\",\"y\":\"\"},"
              "\"Command\":[\"/tini\",\"--\"],\"Args\":[\"sh\",\"-c\",\"echo hi\"],\"Hostname\":\"h\","
              "\"Env\":[\"A=1\",\"B=over\",\"C=2\",\"F=1.5\",\"N=5\",\"T=true\",\"TOKEN=s3cret\",\"GONE\"],"
              "\"Dir\":\"/w\",\"User\":\"1000\",\"Groups\":[\"100\",\"wheel\"],"
              "\"Privileges\":{\"NoNewPrivileges\":true},\"Init\":true,\"StopSignal\":\"SIGINT\","
              "\"StopGracePeriod\":90000000000,\"TTY\":true,\"OpenStdin\":true,\"ReadOnly\":true,"
              "\"Hosts\":[\"10.0.0.5 db\",\"::1 v6\"],\"DNSConfig\":{\"Nameservers\":[\"8.8.8.8\"],"
              "\"Search\":[\"a.b\",\"c\"]},\"Sysctls\":{\"net.core.somaxconn\":\"1024\"},"
              "\"CapabilityAdd\":[\"CAP_NET_ADMIN\",\"CAP_SYS_TIME\"],\"CapabilityDrop\":[\"ALL\"],"
              "\"Ulimits\":[{\"Name\":\"nproc\",\"Soft\":65535,\"Hard\":65535},"
              "{\"Name\":\"nofile\",\"Soft\":20000,\"Hard\":-1}],\"OomScoreAdj\":-500}");
    stack_free(&s);
}

static void test_deploy(void **state)
{
    struct stack s = load1(
        "services:\n  a:\n    image: i\n    restart: always\n    platform: linux/arm64\n"
        "    deploy:\n      mode: replicated\n      replicas: \"3\"\n      labels: {tier: web}\n"
        "      endpoint_mode: vip\n"
        "      resources:\n        limits: {cpus: '0.50', memory: 512m, pids: 100}\n"
        "        reservations: {cpus: 0.25, memory: 64M}\n"
        "      restart_policy: {condition: on-failure, max_attempts: 3, window: 2m}\n"
        "      update_config: {parallelism: 2, delay: 10s, failure_action: rollback, monitor: 1m,"
        " max_failure_ratio: 0.25, order: start-first}\n      rollback_config: {}\n"
        "      placement:\n        constraints: [\"node.role == manager\", node.labels.disk==ssd]\n"
        "        preferences: [{spread: node.labels.zone}]\n        max_replicas_per_node: 2\n");
    struct service_spec *a = &s.services.v[0];
    same_json(&task_spec_rec, &a->task,
              "{\"ContainerSpec\":{\"Image\":\"i\",\"Labels\":{\"com.docker.stack.namespace\":\"st\"}},"
              "\"Resources\":{\"Limits\":{\"NanoCPUs\":500000000,\"MemoryBytes\":536870912,\"Pids\":100},"
              "\"Reservations\":{\"NanoCPUs\":250000000,\"MemoryBytes\":67108864}},"
              "\"RestartPolicy\":{\"Condition\":\"on-failure\",\"Delay\":5000000000,\"MaxAttempts\":3,"
              "\"Window\":120000000000},\"Placement\":{\"Constraints\":[\"node.role == manager\","
              "\"node.labels.disk==ssd\"],\"Preferences\":[{\"Spread\":{\"SpreadDescriptor\":"
              "\"node.labels.zone\"}}],\"MaxReplicas\":2,\"Platforms\":[{\"Architecture\":\"arm64\","
              "\"OS\":\"linux\"}]},\"Networks\":[{\"Target\":\"st_default\",\"Aliases\":[\"a\"]}],"
              "\"ForceUpdate\":0}");
    same_json(&update_config_rec, a->update,
              "{\"Parallelism\":2,\"Delay\":10000000000,\"FailureAction\":\"rollback\","
              "\"Monitor\":60000000000,\"MaxFailureRatio\":0.25,\"Order\":\"start-first\"}");
    assert_int_equal(a->rollback->parallelism, 1);
    assert_int_equal(a->mode.replicated->replicas, 3);
    assert_string_equal(labels_get(&a->labels, "tier"), "web");
    stack_free(&s);
    s = load1("services:\n  g: {image: i, deploy: {mode: global}, restart: \"on-failure:4\"}\n"
              "  n: {image: i, restart: no}\n  z: {image: i, deploy: {replicas: 0}}\n");
    assert_non_null(s.services.v[0].mode.global);
    assert_null(s.services.v[0].mode.replicated);
    assert_int_equal(s.services.v[0].task.restart->max_attempts, 4);
    assert_int_equal(s.services.v[0].task.restart->delay, 5000000000);
    assert_int_equal(s.services.v[1].task.restart->condition, RESTART_NONE);
    assert_int_equal(s.services.v[2].mode.replicated->replicas, 0);
    stack_free(&s);
}

static void test_ports(void **state)
{
    struct stack s = load1(
        "services:\n  a:\n    image: i\n    ports:\n      - 80\n      - \"8080:81/udp\"\n"
        "      - \"9000-9001:90-91\"\n      - {target: 443, published: \"8443\", mode: host, name: tls}\n"
        "      - {target: 53, protocol: udp}\n");
    same_json(&endpoint_spec_rec, s.services.v[0].endpoint,
              "{\"Mode\":\"vip\",\"Ports\":["
              "{\"Protocol\":\"tcp\",\"TargetPort\":80,\"PublishMode\":\"ingress\"},"
              "{\"Protocol\":\"udp\",\"TargetPort\":81,\"PublishedPort\":8080,\"PublishMode\":\"ingress\"},"
              "{\"Protocol\":\"tcp\",\"TargetPort\":90,\"PublishedPort\":9000,\"PublishMode\":\"ingress\"},"
              "{\"Protocol\":\"tcp\",\"TargetPort\":91,\"PublishedPort\":9001,\"PublishMode\":\"ingress\"},"
              "{\"Name\":\"tls\",\"Protocol\":\"tcp\",\"TargetPort\":443,\"PublishedPort\":8443,"
              "\"PublishMode\":\"host\"},"
              "{\"Protocol\":\"udp\",\"TargetPort\":53,\"PublishMode\":\"ingress\"}]}");
    stack_free(&s);
}

static void test_mounts(void **state)
{
    struct stack s = load1(
        "services:\n  a:\n    image: i\n    volumes:\n      - data:/data:ro,nocopy\n      - ./conf:/etc/x\n"
        "      - ~/h:/h\n      - /abs:/abs:rshared\n      - /anon\n      - ext:/ext\n"
        "      - {type: volume, source: data, target: /d2, volume: {labels: {l: v}}}\n"
        "      - {type: bind, source: rel, target: /r, bind: {create_host_path: true}}\n"
        "      - {type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 01777}}\n"
        "    tmpfs: [/run, \"/tmp:size=1g,mode=700\"]\n"
        "volumes:\n  data: {labels: [k=v], driver: local}\n  ext: {external: true, name: shared}\n");
    const struct container_spec_model *c = s.services.v[0].task.container;
    static const char *const want[] = {
        ("{\"Type\":\"volume\",\"Source\":\"st_data\",\"Target\":\"/data\",\"ReadOnly\":true,\"VolumeOptions\":"
        "{\"NoCopy\":true,\"Labels\":{\"com.docker.stack.namespace\":\"st\",\"k\":\"v\"},"
        "\"DriverConfig\":{\"Name\":\"local\"}}}"),
        "{\"Type\":\"bind\",\"Source\":\"/proj/conf\",\"Target\":\"/etc/x\"}",
        "{\"Type\":\"bind\",\"Source\":\"/home/me/h\",\"Target\":\"/h\"}",
        "{\"Type\":\"bind\",\"Source\":\"/abs\",\"Target\":\"/abs\",\"BindOptions\":{\"Propagation\":\"rshared\"}}",
        "{\"Type\":\"volume\",\"Target\":\"/anon\"}",
        "{\"Type\":\"volume\",\"Source\":\"shared\",\"Target\":\"/ext\"}",
        ("{\"Type\":\"volume\",\"Source\":\"st_data\",\"Target\":\"/d2\",\"VolumeOptions\":{\"Labels\":"
        "{\"com.docker.stack.namespace\":\"st\",\"k\":\"v\",\"l\":\"v\"},\"DriverConfig\":{\"Name\":\"local\"}}}"),
        "{\"Type\":\"bind\",\"Source\":\"/proj/rel\",\"Target\":\"/r\",\"BindOptions\":{\"CreateMountpoint\":true}}",
        "{\"Type\":\"tmpfs\",\"Target\":\"/t\",\"TmpfsOptions\":{\"SizeBytes\":67108864,\"Mode\":1023}}",
        "{\"Type\":\"tmpfs\",\"Target\":\"/run\"}",
        "{\"Type\":\"tmpfs\",\"Target\":\"/tmp\",\"TmpfsOptions\":{\"SizeBytes\":1073741824,\"Mode\":448}}",
    };
    assert_int_equal(c->mounts.n, ARRAY_N(want));
    for (size_t i = 0; i < ARRAY_N(want); i++)
        same_json(&mount_rec, &c->mounts.v[i], want[i]);
    stack_free(&s);
}

static void test_secrets_configs(void **state)
{
    struct stack s = load1(
        "services:\n  a:\n    image: i\n    secrets: [one, {source: two, target: t, uid: 5, mode: 0440}]\n"
        "    configs: [{source: c, target: /etc/c, mode: \"0400\"}, inline, c]\n"
        "secrets:\n  one: {file: ./s.txt, labels: {l: x}}\n  two: {external: true, name: shared_two}\n"
        "  env: {environment: TOKEN, name: own_name}\n"
        "configs:\n  c: {file: c.conf}\n  inline: {content: \"a=${TAG}\"}\n");
    const struct container_spec_model *c = s.services.v[0].task.container;
    same_json(&secret_ref_rec, &c->secrets.v[0],
              "{\"File\":{\"Name\":\"one\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292},\"SecretName\":\"st_one\"}");
    same_json(&secret_ref_rec, &c->secrets.v[1],
              "{\"File\":{\"Name\":\"t\",\"UID\":\"5\",\"GID\":\"0\",\"Mode\":288},\"SecretName\":\"shared_two\"}");
    same_json(&config_ref_rec, &c->configs.v[0],
              "{\"File\":{\"Name\":\"/etc/c\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":256},\"ConfigName\":\"st_c\"}");
    same_json(&config_ref_rec, &c->configs.v[1],
              "{\"File\":{\"Name\":\"/inline\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292},"
              "\"ConfigName\":\"st_inline\"}");
    assert_int_equal(s.secrets.n, 2);
    assert_memory_equal(s.secrets.v[0].data.v, "hush", 4);
    assert_string_equal(labels_get(&s.secrets.v[0].labels, "l"), "x");
    assert_string_equal(s.secrets.v[1].name, "own_name");
    assert_memory_equal(s.secrets.v[1].data.v, "s3cret", 6);
    assert_memory_equal(s.configs.v[0].data.v, "conf", 4);
    assert_memory_equal(s.configs.v[1].data.v, "a=2", 3);
    assert_int_equal(s.external_secrets.n, 1);
    assert_string_equal(s.external_secrets.v[0], "shared_two");
    stack_free(&s);
}

static void test_networks(void **state)
{
    struct stack s = load1(
        "services:\n  a:\n    image: i\n    networks: {front: {aliases: [www, a]}, back: }\n"
        "  b:\n    image: i\n    networks: [ext]\n"
        "networks:\n  front: {attachable: true, driver_opts: {encrypted: \"\"}, labels: {n: 1}}\n"
        "  back: {internal: true, name: mine, ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}}\n"
        "  ext: {external: {name: outside}}\n  unused: {}\n");
    const struct task_spec *t = &s.services.v[0].task;
    assert_string_equal(t->networks.v[0].target, "mine");
    assert_string_equal(t->networks.v[1].target, "st_front");
    assert_int_equal(t->networks.v[1].aliases.n, 2);
    assert_string_equal(s.services.v[1].task.networks.v[0].target, "outside");
    assert_int_equal(s.networks.n, 2);
    same_json(&network_rec, &s.networks.v[1],
              "{\"Created\":\"0001-01-01T00:00:00Z\",\"Name\":\"mine\",\"Driver\":\"overlay\",\"Scope\":\"swarm\","
              "\"EnableIPv6\":false,\"IPAM\":{\"Config\":[{\"Subnet\":\"10.9.0.0/24\",\"Gateway\":\"10.9.0.1\"}]},"
              "\"Internal\":true,\"Attachable\":false,\"Ingress\":false,\"Options\":{},"
              "\"Labels\":{\"com.docker.stack.namespace\":\"st\"}}");
    assert_true(s.networks.v[0].attachable);
    assert_string_equal(labels_get(&s.networks.v[0].options, "encrypted"), "");
    assert_string_equal(labels_get(&s.networks.v[0].labels, "n"), "1");
    assert_int_equal(s.external_networks.n, 1);
    stack_free(&s);
}

static void test_health_logging(void **state)
{
    struct stack s = load1(
        "services:\n  a:\n    image: i\n    healthcheck: {test: curl -f x, interval: 1m, timeout: 3s, retries: 5,"
        " start_period: 10s, start_interval: 500ms}\n    logging: {driver: json-file, options: {max-file: 3}}\n"
        "  b: {image: i, healthcheck: {test: [CMD, ok]}}\n  c: {image: i, healthcheck: {disable: true}}\n");
    same_json(&healthcheck_rec, s.services.v[0].task.container->healthcheck,
              "{\"Test\":[\"CMD-SHELL\",\"curl -f x\"],\"Interval\":60000000000,\"Timeout\":3000000000,"
              "\"Retries\":5,\"StartPeriod\":10000000000,\"StartInterval\":500000000}");
    same_json(&driver_rec, s.services.v[0].task.log_driver,
              "{\"Name\":\"json-file\",\"Options\":{\"max-file\":\"3\"}}");
    assert_string_equal(s.services.v[1].task.container->healthcheck->test.v[0], "CMD");
    assert_string_equal(s.services.v[2].task.container->healthcheck->test.v[0], "NONE");
    stack_free(&s);
}

static void test_merge(void **state)
{
    static const char *const texts[] = {
        "services:\n  test:\n    image: i:1\n    command: [a, b]\n    environment: [A=1, B=1]\n    dns: 1.1.1.1\n"
        "    ports: [\"80:80\", \"81:81\"]\n    volumes: [\"/x:/a\", \"/y:/b\"]\n    cap_add: [NET_RAW]\n"
        "    networks: [n1]\n    secrets: [s]\n    deploy: {replicas: 2, labels: {l: 1}}\n"
        "    logging: {driver: json-file, options: {max-size: 1m}}\n"
        "    healthcheck: {test: [CMD, a, b], interval: 5s}\n"
        "networks: {n1: {}, n2: {}}\nsecrets: {s: {file: s.txt}}\n",
        "services:\n  test:\n    image: i:2\n    command: [c]\n    environment: {B: 2, C: 3}\n    dns: [2.2.2.2]\n"
        "    ports: [\"8080:80\"]\n    volumes: [{type: tmpfs, target: /a}]\n    cap_add: [NET_RAW, SYS_TIME]\n"
        "    networks: {n2: {aliases: [z]}}\n    secrets: [{source: s, target: s, mode: 0400}]\n"
        "    deploy: {labels: [m=2]}\n    healthcheck: {test: [CMD, c]}\n    user:\n"
        "  extra: {image: e}\n",
    };
    struct stack s = load(2, texts);
    const struct service_spec *a = &s.services.v[0];
    const struct container_spec_model *c = a->task.container;
    assert_int_equal(s.services.n, 2);
    same_json(&container_spec_model_rec, c,
              "{\"Image\":\"i:2\",\"Labels\":{\"com.docker.stack.namespace\":\"st\"},\"Args\":[\"c\"],"
              "\"Env\":[\"A=1\",\"B=2\",\"C=3\"],\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/y\",\"Target\":\"/b\"},"
              "{\"Type\":\"tmpfs\",\"Target\":\"/a\"}],\"Healthcheck\":{\"Test\":[\"CMD\",\"c\"],"
              "\"Interval\":5000000000},\"DNSConfig\":{\"Nameservers\":[\"1.1.1.1\",\"2.2.2.2\"]},"
              "\"Secrets\":[{\"File\":{\"Name\":\"s\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":256},"
              "\"SecretName\":\"st_s\"}],\"CapabilityAdd\":[\"CAP_NET_RAW\",\"CAP_SYS_TIME\"]}");
    assert_int_equal(a->endpoint->ports.n, 2);
    assert_int_equal(a->endpoint->ports.v[0].target, 81);
    assert_int_equal(a->endpoint->ports.v[1].published, 8080);
    assert_int_equal(a->mode.replicated->replicas, 2);
    assert_string_equal(labels_get(&a->labels, "l"), "1");
    assert_string_equal(labels_get(&a->labels, "m"), "2");
    assert_int_equal(a->task.networks.n, 2);
    assert_string_equal(a->task.networks.v[1].aliases.v[0], "z");
    stack_free(&s);
}

/* Names of services are not keys: one called "command" is merged like any other. */
static void test_merge_names(void **state)
{
    static const char *const texts[] = { "services: {command: {image: a, user: u}, ports: {image: b}}\n",
                                         "services: {command: {image: c}, ports: {tty: true}}\n" };
    struct stack s = load(2, texts);
    assert_string_equal(s.services.v[0].task.container->user, "u");
    assert_string_equal(s.services.v[0].task.container->image, "c");
    assert_string_equal(s.services.v[1].task.container->image, "b");
    stack_free(&s);
}

static void test_name_key(void **state)
{
    static const char text[] = "version: \"3.8\"\nname: inner\nservices:\n  a: {image: i}\n";
    struct stack_source f = { "web.yaml", text, strlen(text) };
    struct stack_input in = { .files = &f, .n_files = 1 };
    struct stack s;
    struct err e = { 0 };
    assert_int_equal(stack_load(&in, &s, &e), 0);
    assert_string_equal(s.services.v[0].name, "inner_a");
    stack_free(&s);
    in.name = "outer";
    assert_int_equal(stack_load(&in, &s, &e), 0);
    assert_string_equal(s.services.v[0].name, "outer_a");
    stack_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallest),        cmocka_unit_test(test_container),
        cmocka_unit_test(test_deploy),          cmocka_unit_test(test_ports),
        cmocka_unit_test(test_mounts),          cmocka_unit_test(test_secrets_configs),
        cmocka_unit_test(test_networks),        cmocka_unit_test(test_health_logging),
        cmocka_unit_test(test_merge),           cmocka_unit_test(test_merge_names),
        cmocka_unit_test(test_name_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
