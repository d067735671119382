/* Every way a Compose file can be wrong, with the exact sentence: file, line, path, what, and the cure. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <shoal/stack.h>

static int read_fake(void *arg, const char *path, size_t max, struct bytes *ret, struct err *e)
{
    if (strcmp(path, "/proj/big") == 0) {
        *ret = (struct bytes){ xcalloc(max + 1, 1), (uint32_t)(max + 1) };
        return 0;
    }
    if (strcmp(path, "/proj/bad.env") == 0) {
        *ret = (struct bytes){ (uint8_t *)xstrdup("A=1\n=2"), 6 };
        return 0;
    }
    return err_set(e, E_NOT_FOUND, "%s: no such file", path);
}

static int load(const char *name, unsigned n, const char *const *texts, struct err *e)
{
    static const char *const names[] = { "web.yaml", "prod.yaml" };
    static const char *const environ_pairs[] = { "SET=1", NULL };
    struct stack_source files[2];
    struct stack s;
    for (unsigned i = 0; i < n; i++)
        files[i] = (struct stack_source){ names[i], texts[i], strlen(texts[i]) };
    struct stack_input in = { .name = name, .dir = "/proj", .files = files, .n_files = n,
                              .environ_pairs = environ_pairs, .read = read_fake };
    int rc = stack_load(&in, &s, e);
    if (rc == 0)
        stack_free(&s);
    return rc;
}

struct bad_case {
    const char *text, *want;
    int code;
};

static void run(const struct bad_case *cases, size_t n, const char *before)
{
    for (size_t i = 0; i < n; i++) {
        AUTO_FREE char *text = xasprintf("%s%s", before, cases[i].text);
        struct err e = { 0 };
        int rc = load("st", 1, (const char *const *)&text, &e);
        if (rc == 0)
            fail_msg("accepted: %s", cases[i].text);
        assert_string_equal(e.text, cases[i].want);
        assert_int_equal(rc, -(cases[i].code ? cases[i].code : E_INVALID));
    }
}

#define WEB "web.yaml:4: services.web."
/* Each is line 4, a key of services.web. */
static const struct bad_case service_cases[] = {
    { "imagee: x", WEB "imagee: unknown key; did you mean \"image\"?", 0 },
    { "volumse: []", WEB "volumse: unknown key; did you mean \"volumes\"?", 0 },
    { "zzzzzz: []", WEB "zzzzzz: unknown key; remove it or start it with x-", 0 },
    { "devices: [a]", WEB "devices: not built in shoal yet; remove it", E_UNSUPPORTED },
    { "privileged: true", WEB "privileged: not built in shoal yet; remove it", E_UNSUPPORTED },
    { "depends_on: [db]", WEB "depends_on: shoal starts services together; remove it and let the program "
                          "retry", E_UNSUPPORTED },
    { "build: .", WEB "build: shoal runs images; build it elsewhere and name it with image:", E_UNSUPPORTED },
    { "container_name: x", WEB "container_name: a service has many containers; remove it", E_UNSUPPORTED },
    { "mem_limit: 1g", WEB "mem_limit: write deploy.resources.limits.memory", E_UNSUPPORTED },
    { "ports: 80", WEB "ports: expected a list, found a number", 0 },
    { "ports: [\"x:80\"]", WEB "ports[0]: \"x:80\" is not a port like 80, 8080:80, 8000-8010:8000-8010 or "
                           "53:53/udp, with numbers between 1 and 65535", 0 },
    { "ports: [\"127.0.0.1:8080:80\"]", WEB "ports[0]: \"127.0.0.1:8080:80\" names a host address; shoal "
      "publishes on every node, so write \"8080:80\"", E_UNSUPPORTED },
    { "ports: [\"127.0.0.1::80\"]", WEB "ports[0]: \"127.0.0.1::80\" names a host address; shoal "
      "publishes on every node, so write \"80\"", E_UNSUPPORTED },
    { "ports: [\"80-82:80-81\"]", WEB "ports[0]: \"80-82:80-81\" has ranges of different lengths", 0 },
    { "ports: [\"80/xyz\"]", WEB "ports[0]: \"xyz\" is not a protocol; write tcp, udp or sctp", 0 },
    { "ports: [70000]", WEB "ports[0]: \"70000\" is not a port like 80, 8080:80, 8000-8010:8000-8010 or "
                        "53:53/udp, with numbers between 1 and 65535", 0 },
    { "ports: [{published: 80}]", WEB "ports[0]: target: is required", 0 },
    { "ports: [{target: 80, host_ip: 1.2.3.4}]", WEB "ports[0].host_ip: shoal publishes on every node; "
      "remove it", E_UNSUPPORTED },
    { "ports: [{target: 80, published: 80-90}]", WEB "ports[0].published: \"80-90\" is not one port between "
      "1 and 65535; write ranges as \"8000-8010:8000-8010\"", 0 },
    { "ports: [\"80:80\", \"80:81\"]", "web.yaml:3: services.web: EndpointSpec.Ports[1]: port 80/tcp is "
      "published twice", 0 },
    { "ports: [\"1-1000\"]", WEB "ports[0]: \"1-1000\" is a range of more than 256 ports", 0 },
    { "command: \"a 'b\"", WEB "command: has a quote that is not closed", 0 },
    { "command: [sleep, 10]", WEB "command[1]: expected a string, found a number; put it in quotes", 0 },
    { "entrypoint: []", WEB "entrypoint: an empty one cannot replace the image's; name a program or "
                        "remove it", E_UNSUPPORTED },
    { "environment: {A: [1]}", WEB "environment.A: expected a string, a number or true or false, found a list", 0 },
    { "environment: [\"=x\"]", WEB "environment: has a variable without a name", 0 },
    { "env_file: none.env", WEB "env_file: /proj/none.env: no such file", E_NOT_FOUND },
    { "env_file: [{path: bad.env}]", WEB "env_file[0]: bad.env:2: there is no name before '='", 0 },
    { "env_file: [{path: bad.env, format: json}]", WEB "env_file[0]: format: \"json\" is not built; only raw",
      E_UNSUPPORTED },
    { "init: maybe", WEB "init: must be true or false", 0 },
    { "stop_grace_period: 10", WEB "stop_grace_period: expected a string, found a number; put it in quotes", 0 },
    { "stop_grace_period: ten", WEB "stop_grace_period: \"ten\" is not a duration like 10s or 1m30s", 0 },
    { "restart: sometimes", WEB "restart: must be \"no\", always, unless-stopped, on-failure or on-failure:N", 0 },
    { "volumes: [\"a\"]", WEB "volumes[0]: \"a\" is not SOURCE:/PATH[:ro] or /PATH", 0 },
    { "volumes: [\"a:/b\"]", WEB "volumes[0]: the volume \"a\" is not declared; add it under volumes:", 0 },
    { "volumes: [\"/a:/b:z\"]", WEB "volumes[0]: the option \"z\" is not built; remove it (ro, rw, nocopy for "
                                "volumes, rprivate... for paths)", E_UNSUPPORTED },
    { "volumes: [{target: /x}]", WEB "volumes[0]: type: is required; write bind, volume or tmpfs", 0 },
    { "volumes: [{type: npipe, target: /x}]", WEB "volumes[0].type: npipe is not built; use bind, volume or "
                                              "tmpfs", E_UNSUPPORTED },
    { "volumes: [{type: bind, target: /x, tmpfs: {}}]", WEB "volumes[0].tmpfs: does not go with type bind; "
                                                        "remove it", 0 },
    { "volumes: [{type: bind, target: /x}]", WEB "volumes[0]: a bind mount needs a source; write the path on "
                                             "the node", 0 },
    { "volumes: [{type: tmpfs, target: /x, tmpfs: {mode: \"99\"}}]", WEB "volumes[0].tmpfs.mode: must be "
      "permission bits in octal like 0440", 0 },
    { "volumes: [\"/a:/b\", \"/c:/b\"]", "web.yaml:3: services.web: TaskTemplate.ContainerSpec.Mounts[1]."
      "Target: /b is mounted twice", 0 },
    { "tmpfs: [\"/x:noexec\"]", WEB "tmpfs[0]: the option \"noexec\" is not built; remove it (size=, mode=)",
      E_UNSUPPORTED },
    { "secrets: [s]", WEB "secrets[0]: the secret \"s\" is not declared; add it under secrets:", 0 },
    { "configs: [{target: s}]", WEB "configs[0]: source: is required", 0 },
    { "networks: [n]", WEB "networks[0]: the network \"n\" is not declared; add it under networks:", 0 },
    { "networks: {default: {ipv4_address: 10.0.0.2}}", WEB "networks.default.ipv4_address: not built in shoal "
      "yet; remove it", E_UNSUPPORTED },
    { "extra_hosts: [\"a:host-gateway\"]", WEB "extra_hosts: host-gateway is not built in shoal yet; write an "
                                           "address", E_UNSUPPORTED },
    { "extra_hosts: [nohost]", WEB "extra_hosts: \"nohost\" is not NAME=ADDRESS", 0 },
    { "ulimits: {nofile: {soft: 1}}", WEB "ulimits.nofile: soft and hard are required", 0 },
    { "ulimits: {nofile: lots}", WEB "ulimits.nofile: must be a whole number of at least -1", 0 },
    { "security_opt: [\"label:disable\"]", WEB "security_opt[0]: \"label:disable\" is not built; only "
      "no-new-privileges:true and seccomp:unconfined", E_UNSUPPORTED },
    { "platform: amd64", WEB "platform: \"amd64\" is not OS/ARCHITECTURE like linux/amd64", 0 },
    { "healthcheck: {test: [curl]}", WEB "healthcheck.test: must be [\"CMD\", program, ...], [\"CMD-SHELL\", "
      "\"text\"], [\"NONE\"] or a string", 0 },
    { "healthcheck: {test: x, disable: true}", WEB "healthcheck: disable and test are given; remove one", 0 },
    { "healthcheck: {interva: 5s}", WEB "healthcheck.interva: unknown key; did you mean \"interval\"?", 0 },
    { "healthcheck: {retries: -1}", WEB "healthcheck.retries: must be a whole number between 0 and 1000", 0 },
    { "logging: {driver: syslog}", "web.yaml:3: services.web: TaskTemplate.LogDriver: log driver \"syslog\" is not "
                                   "built; use json-file or journald", E_UNSUPPORTED },
    { "logging: {driver: journald, options: {tag: x, max-size: 1m}}",
      "web.yaml:3: services.web: TaskTemplate.LogDriver: log option max-size is not built for journald; tag, labels and env are",
      E_UNSUPPORTED },
    { "logging: {driver: journald, options: {tag: \"{{.Shape}}\"}}",
      "web.yaml:3: services.web: TaskTemplate.LogDriver: log option tag: \"{{.Shape}}\" has what is not built; {{.ID}}, {{.FullID}}, "
      "{{.Name}}, {{.ImageName}}, {{.ImageID}}, {{.ImageFullID}} and {{.DaemonName}} are", E_UNSUPPORTED },
    { "logging: {options: {max-size: much}}",
      "web.yaml:3: services.web: TaskTemplate.LogDriver: log option max-size: \"much\" is no size, such as 10m", 0 },
    { "deploy: {mode: some}", WEB "deploy.mode: must be replicated, global, replicated-job or global-job", 0 },
    { "deploy: {mode: global-job}", WEB "deploy.mode: global-job is not built in shoal yet", E_UNSUPPORTED },
    { "deploy: {mode: global, replicas: 2}", WEB "deploy: mode global runs one task a node; remove replicas", 0 },
    { "deploy: {replicas: -1}", WEB "deploy.replicas: must be a whole number between 0 and 100000", 0 },
    { "deploy: {replicas: x}", WEB "deploy.replicas: must be a whole number between 0 and 100000", 0 },
    { "deploy: {resources: {limits: {cpus: fast}}}", WEB "deploy.resources.limits.cpus: \"fast\" is not a number "
      "of processors like 0.5 or 2", 0 },
    { "deploy: {resources: {limits: {memory: 1x}}}", WEB "deploy.resources.limits.memory: \"1x\" is not a size "
      "like 512m or 2g", 0 },
    { "deploy: {resources: {reservations: {devices: [a]}}}", WEB "deploy.resources.reservations.devices: not "
      "built in shoal yet; remove it", E_UNSUPPORTED },
    { "deploy: {placement: {constraints: [\"node.colour==x\"]}}", WEB "deploy.placement.constraints[0]: "
      "\"node.colour==x\" has an unknown key (node.id, node.hostname, node.role, node.ip, node.platform.os, "
      "node.platform.arch, node.labels.NAME, engine.labels.NAME)", 0 },
    { "deploy: {update_config: {order: any}}", WEB "deploy.update_config.order: must be stop-first or "
      "start-first", 0 },
    { "deploy: {update_config: {max_failure_ratio: 2}}", WEB "deploy.update_config.max_failure_ratio: must be a "
      "number between 0 and 1", 0 },
    { "deploy: {rollback_config: {failure_action: rollback}}", WEB "deploy.rollback_config.failure_action: must "
      "be pause or continue", 0 },
    { "deploy: {restart_policy: {condition: never}}", WEB "deploy.restart_policy.condition: must be any, none or "
      "on-failure", 0 },
    { "deploy: {endpoint_mode: dnsrr}\n    ports: [80]", "web.yaml:3: services.web: EndpointSpec.Ports[0]: port "
      "80 is published by ingress, which needs endpoint mode vip; use vip or publish mode host", 0 },
    { "deploy: {bogus: 1}", WEB "deploy.bogus: unknown key; remove it or start it with x-", 0 },
    { "user: $", WEB "user: \"$\" names no variable; write $$ for a dollar sign", 0 },
    { "labels: {a: {b: c}}", WEB "labels.a: expected a string, a number or true or false, found a map", 0 },
    { "cap_add: [1]", WEB "cap_add[0]: expected a string, found a number; put it in quotes", 0 },
    { "cap_add: [~]", WEB "cap_add[0]: is empty; remove it", 0 },
};

static void test_service(void **state)
{
    run(service_cases, ARRAY_N(service_cases), "services:\n  web:\n    image: i\n    ");
}

static const struct bad_case file_cases[] = {
    { "", "web.yaml: expected a map with services:, found nothing", 0 },
    { "- a", "web.yaml: expected a map with services:, found a list", 0 },
    { "services: {}", "web.yaml: has no services; add at least one under services:", 0 },
    { "service: {}", "web.yaml:1: service: unknown key; did you mean \"services\"?", 0 },
    { "services: [a]", "web.yaml:1: services: expected a map, found a list", 0 },
    { "services:\n  a:", "web.yaml:2: services.a: is empty; give it an image:", 0 },
    { "services:\n  a: {tty: true}", "web.yaml:2: services.a: image: is required", 0 },
    { "services:\n  a: {image: \"I i\"}", "web.yaml:2: services.a: TaskTemplate.ContainerSpec.Image: \"I i\" is "
      "not an image reference (letters, digits and -_./:@ only)", 0 },
    { "services:\n  a b: {image: i}", "web.yaml:2: services.a b: the name may hold only letters, digits, '-', "
      "'_' and '.'", 0 },
    { "services:\n  \"\": {image: i}", "web.yaml:2: services.: the name is empty", 0 },
    { "include: [x]", "web.yaml:1: include: not built in shoal yet; remove it", E_UNSUPPORTED },
    { "services: {a: {image: i, networks: [n]}}\nnetworks:\n  n: {driver: bridge}",
      "web.yaml:3: networks.n.driver: bridge is not built for stacks; only overlay is", E_UNSUPPORTED },
    { "services: {a: {image: i}}\nnetworks:\n  n: {enable_ipv6: true}",
      "web.yaml:3: networks.n.enable_ipv6: not built in shoal yet; remove it", E_UNSUPPORTED },
    { "services: {a: {image: i}}\nnetworks:\n  n: {external: true, internal: true}",
      "web.yaml:3: networks.n.internal: does not go with external; remove one", 0 },
    { "services: {a: {image: i}}\nnetworks:\n  n: {external: {name: a}, name: b}",
      "web.yaml:3: networks.n: name: and external.name: differ; keep name:", 0 },
    { "services: {a: {image: i, volumes: [\"v:/v\"]}}\nvolumes:\n  v: {driver: nfs}",
      "web.yaml:3: volumes.v.driver: nfs is not built; only local is", E_UNSUPPORTED },
    { "services: {a: {image: i, volumes: [\"v:/v\"]}}\nvolumes:\n  v: {driver_opts: {type: nfs}}",
      "web.yaml:3: volumes.v.driver_opts: not built in shoal yet; use a bind mount instead", E_UNSUPPORTED },
    { "services: {a: {image: i}}\nsecrets:\n  s: {}",
      "web.yaml:3: secrets.s: needs file:, environment: or external: true", 0 },
    { "services: {a: {image: i}}\nsecrets:\n  s:",
      "web.yaml:3: secrets.s: needs file:, environment: or external: true", 0 },
    { "services: {a: {image: i}}\nsecrets:\n  s: {file: a, environment: B}",
      "web.yaml:3: secrets.s: file and environment are given; remove one", 0 },
    { "services: {a: {image: i}}\nsecrets:\n  s: {environment: NOPE}",
      "web.yaml:3: secrets.s.environment: the variable NOPE is not set", 0 },
    { "services: {a: {image: i}}\nsecrets:\n  s: {file: none}",
      "web.yaml:3: secrets.s.file: /proj/none: no such file", E_NOT_FOUND },
    { "services: {a: {image: i}}\nsecrets:\n  s: {file: big}",
      "web.yaml:3: secrets.s.file: /proj/big is larger than 512000 bytes", E_TOO_BIG },
    { "services: {a: {image: i}}\nconfigs:\n  c: {file: big}",
      "web.yaml:3: configs.c.file: /proj/big is larger than 1024000 bytes", E_TOO_BIG },
    { "services: {a: {image: i}}\nconfigs:\n  c: {template_driver: golang}",
      "web.yaml:3: configs.c.template_driver: not built in shoal yet; remove it", E_UNSUPPORTED },
};

static void test_file(void **state)
{
    run(file_cases, ARRAY_N(file_cases), "");
}

/* After merging, each line still belongs to its own file. */
static void test_second_file(void **state)
{
    static const char *const unknown[] = { "services:\n  a:\n    image: i\n", "\nservices:\n  a:\n    prots: []\n" };
    static const char *const late[] = { "services:\n  a:\n    image: i\n    ports: [\"80\"]\n",
                                        "\nservices:\n  a:\n    ports:\n      - \"1:x\"\n" };
    static const char *const first[] = { "services:\n  a:\n    image: i\n    ports: [\"1:x\"]\n",
                                         "\nservices:\n  a:\n    ports: [\"81\"]\n" };
    struct err e = { 0 };
    assert_int_equal(load("st", 2, unknown, &e), -E_INVALID);
    assert_string_equal(e.text, "prod.yaml:4: services.a.prots: unknown key; did you mean \"ports\"?");
    assert_int_equal(load("st", 2, late, &e), -E_INVALID);
    assert_string_equal(e.text, "prod.yaml:5: services.a.ports[1]: \"1:x\" is not a port like 80, 8080:80, "
                                "8000-8010:8000-8010 or 53:53/udp, with numbers between 1 and 65535");
    assert_int_equal(load("st", 2, first, &e), -E_INVALID);
    assert_non_null(strstr(e.text, "web.yaml:4: services.a.ports[0]: "));
}

static void test_stack_name(void **state)
{
    static const char *const text[] = { "services: {a: {image: i}}\n" };
    struct err e = { 0 };
    assert_int_equal(load(NULL, 1, text, &e), -E_INVALID);
    assert_string_equal(e.text, "the stack has no name; give one, or write name: in web.yaml");
    assert_int_equal(load("a b", 1, text, &e), -E_INVALID);
    assert_string_equal(e.text,
                        "stack name \"a b\": may hold only letters, digits, '-', '_' and '.'");
    assert_int_equal(load("st", 0, text, &e), -E_INVALID);
    assert_string_equal(e.text, "give between 1 and 64 Compose files, found 0");
    assert_int_equal(err_exit_status(-E_INVALID), 2);
}

/* What a variable holds may be secret: an error about the value's form names the place only. */
static void test_no_secret_values(void **state)
{
    static const char *const text[] = { "services:\n  a:\n    image: i\n    environment: [\"=hunter2\"]\n" };
    struct err e = { 0 };
    assert_int_equal(load("st", 1, text, &e), -E_INVALID);
    assert_null(strstr(e.text, "hunter2"));
}

/* A key that is not built, but says nothing, asks for nothing. */
static void test_empty_unbuilt(void **state)
{
    static const char *const text[] = { "services: {a: {image: i, devices: , ports: , x-y: 1}}\nmodels:\n" };
    struct err e = { 0 };
    assert_int_equal(load("st", 1, text, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_service),          cmocka_unit_test(test_file),
        cmocka_unit_test(test_second_file),      cmocka_unit_test(test_stack_name),
        cmocka_unit_test(test_no_secret_values), cmocka_unit_test(test_empty_unbuilt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
