/* The whole Compose Specification, key by key: each is either acted on (two values of it make two different specs)
 * or refused by its path as not built. None is accepted and dropped, none is unknown. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <shoal/stack.h>
#include "compose_keys.h"

static int read_fake(void *arg, const char *path, size_t max, struct bytes *ret, struct err *e)
{
    static const char *const files[][2] = { { "/proj/a", "one" }, { "/proj/b", "two" }, { "/proj/a.env", "A=$B\n" },
                                            { "/proj/b.env", "B=1\n" } };
    for (size_t i = 0; i < ARRAY_N(files); i++)
        if (strcmp(path, files[i][0]) == 0) {
            *ret = (struct bytes){ (uint8_t *)xstrdup(files[i][1]), (uint32_t)strlen(files[i][1]) };
            return 0;
        }
    return err_set(e, E_NOT_FOUND, "%s: no such file", path);
}

static void put_data(struct sb *b, const char *name, const struct labels *labels, const struct bytes *data)
{
    sb_printf(b, "%s %.*s", name, (int)data->n, data->n ? (const char *)data->v : "");
    for (uint32_t i = 0; i < labels->n; i++)
        sb_printf(b, " %s=%s", labels->v[i].key, labels->v[i].value);
    sb_char(b, '\n');
}

static void put_stack(struct sb *b, const struct stack *s)
{
    const struct strs *external[] = { &s->external_networks, &s->external_secrets, &s->external_configs };
    sb_printf(b, "%s\n", s->name);
    for (uint32_t i = 0; i < s->services.n; i++)
        rec_to_json(&service_spec_rec, &s->services.v[i], b);
    for (uint32_t i = 0; i < s->networks.n; i++)
        rec_to_json(&network_rec, &s->networks.v[i], b);
    for (uint32_t i = 0; i < s->secrets.n; i++)
        put_data(b, s->secrets.v[i].name, &s->secrets.v[i].labels, &s->secrets.v[i].data);
    for (uint32_t i = 0; i < s->configs.n; i++)
        put_data(b, s->configs.v[i].name, &s->configs.v[i].labels, &s->configs.v[i].data);
    for (size_t k = 0; k < ARRAY_N(external); k++)
        for (uint32_t i = 0; i < external[k]->n; i++)
            sb_printf(b, "external %s\n", external[k]->v[i]);
}

/* The stack as text; NULL and *e when it is refused. */
static char *load(const char *text, struct err *e)
{
    static const char *const environ_pairs[] = { "SET=1", "OTHER=2", NULL };
    const struct stack_source file = { "c.yaml", text, strlen(text) };
    struct stack_input in = { .dir = "/proj", .files = &file, .n_files = 1, .environ_pairs = environ_pairs,
                              .read = read_fake };
    struct stack s;
    if (stack_load(&in, &s, e) < 0)
        return NULL;
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    put_stack(&b, &s);
    stack_free(&s);
    return sb_take(&b);
}

struct sample {
    const char *path, *text; /* @ stands for the value */
    const char *a, *b;       /* two that must differ in effect; b NULL: a is taken, and specified to change nothing */
};

#define UPDATE(kind)                                                                                  \
    { "deploy." kind, "deploy: {" kind ": @}", "{parallelism: 2}", "{parallelism: 3}" },              \
    { "deploy." kind ".parallelism", "deploy: {" kind ": {parallelism: @}}", "2", "3" },              \
    { "deploy." kind ".delay", "deploy: {" kind ": {delay: @}}", "2s", "3s" },                        \
    { "deploy." kind ".failure_action", "deploy: {" kind ": {failure_action: @}}", "pause", "continue" }, \
    { "deploy." kind ".monitor", "deploy: {" kind ": {monitor: @}}", "2s", "3s" },                    \
    { "deploy." kind ".max_failure_ratio", "deploy: {" kind ": {max_failure_ratio: @}}", "0.1", "0.2" }, \
    { "deploy." kind ".order", "deploy: {" kind ": {order: @}}", "start-first", "stop-first" }
#define HEALTH(key, a, b) { "healthcheck." key, "healthcheck: {test: \"true\", " key ": @}", a, b }
#define FILES(kind)                                                                                   \
    { kind, kind ": @", "[s]", "[t]" }, { kind "[].source", kind ": [{source: @}]", "s", "t" },       \
    { kind "[].target", kind ": [{source: s, target: @}]", "a", "b" },                                \
    { kind "[].uid", kind ": [{source: s, uid: @}]", "'1'", "'2'" },                                  \
    { kind "[].gid", kind ": [{source: s, gid: @}]", "'1'", "'2'" },                                  \
    { kind "[].mode", kind ": [{source: s, mode: @}]", "0400", "0440" }

/* Services: the text stands in services.web. */
static const struct sample service_samples[] = {
    { "cap_add", "cap_add: [@]", "NET_ADMIN", "SYS_TIME" }, { "cap_drop", "cap_drop: [@]", "CHOWN", "KILL" },
    { "command", "command: @", "a", "b" }, { "entrypoint", "entrypoint: @", "a", "b" },
    { "deploy", "deploy: @", "{replicas: 1}", "{replicas: 2}" }, { "deploy.mode", "deploy: {mode: @}", "global", "replicated" },
    { "deploy.endpoint_mode", "deploy: {endpoint_mode: @}", "vip", "dnsrr" },
    { "deploy.replicas", "deploy: {replicas: @}", "2", "3" }, { "deploy.labels", "deploy: {labels: {a: @}}", "x", "y" },
    UPDATE("update_config"), UPDATE("rollback_config"),
    { "deploy.resources", "deploy: {resources: @}", "{limits: {pids: 5}}", "{limits: {pids: 6}}" },
    { "deploy.resources.limits", "deploy: {resources: {limits: @}}", "{pids: 5}", "{pids: 6}" },
    { "deploy.resources.limits.cpus", "deploy: {resources: {limits: {cpus: @}}}", "'0.5'", "1" },
    { "deploy.resources.limits.memory", "deploy: {resources: {limits: {memory: @}}}", "64m", "65m" },
    { "deploy.resources.limits.pids", "deploy: {resources: {limits: {pids: @}}}", "5", "6" },
    { "deploy.resources.reservations", "deploy: {resources: {reservations: @}}", "{memory: 5m}", "{memory: 6m}" },
    { "deploy.resources.reservations.cpus", "deploy: {resources: {reservations: {cpus: @}}}", "0.5", "1" },
    { "deploy.resources.reservations.memory", "deploy: {resources: {reservations: {memory: @}}}", "64m", "65m" },
    { "deploy.restart_policy", "deploy: {restart_policy: @}", "{condition: none}", "{condition: any}" },
    { "deploy.restart_policy.condition", "deploy: {restart_policy: {condition: @}}", "none", "any" },
    { "deploy.restart_policy.delay", "deploy: {restart_policy: {delay: @}}", "1s", "2s" },
    { "deploy.restart_policy.max_attempts", "deploy: {restart_policy: {max_attempts: @}}", "1", "2" },
    { "deploy.restart_policy.window", "deploy: {restart_policy: {window: @}}", "1s", "2s" },
    { "deploy.placement", "deploy: {placement: @}", "{max_replicas_per_node: 1}", "{max_replicas_per_node: 2}" },
    { "deploy.placement.constraints", "deploy: {placement: {constraints: [@]}}", "node.role==worker", "node.role==manager" },
    { "deploy.placement.preferences", "deploy: {placement: {preferences: [@]}}", "{spread: node.labels.a}", "{spread: node.labels.b}" },
    { "deploy.placement.preferences[].spread", "deploy: {placement: {preferences: [{spread: @}]}}", "node.labels.a", "node.labels.b" },
    { "deploy.placement.max_replicas_per_node", "deploy: {placement: {max_replicas_per_node: @}}", "1", "2" },
    { "dns", "dns: @", "1.1.1.1", "[1.1.1.2]" }, { "dns_opt", "dns_opt: [@]", "'ndots:1'", "'ndots:2'" },
    { "dns_search", "dns_search: @", "a.b", "[c.d]" }, { "environment", "environment: @", "{A: 1}", "[A=2]" },
    { "env_file", "env_file: @", "a.env", "[b.env]" }, { "env_file[].path", "env_file: [{path: @}]", "a.env", "b.env" },
    { "env_file[].format", "env_file: [{path: a.env, format: @}]", "raw", "~" },
    { "env_file[].required", "env_file: [{path: none.env, required: @}]", "false", NULL },
    { "expose", "expose: [@]", "80", NULL }, { "extra_hosts", "extra_hosts: @", "{a: 10.0.0.1}", "[\"a:10.0.0.2\"]" },
    { "group_add", "group_add: [@]", "1", "audio" }, { "healthcheck", "healthcheck: @", "{test: a}", "{test: b}" },
    HEALTH("interval", "1s", "2s"), HEALTH("retries", "1", "2"), HEALTH("timeout", "1s", "2s"),
    HEALTH("start_period", "1s", "2s"), HEALTH("start_interval", "1s", "2s"),
    { "healthcheck.test", "healthcheck: {test: @}", "a", "[CMD, b]" },
    { "healthcheck.disable", "healthcheck: {disable: @}", "true", "false" },
    { "hostname", "hostname: @", "a", "b" }, { "image", "image: @", "a:1", "b:1" }, { "init", "init: @", "true", "false" },
    { "labels", "labels: @", "{a: b}", "[a=c]" },
    { "logging", "logging: @", "{driver: json-file}", "{driver: json-file, options: {max-file: '2'}}" },
    { "logging.driver", "logging: {driver: @}", "json-file", NULL },
    { "logging.options", "logging: {driver: json-file, options: {max-file: @}}", "'2'", "'3'" },
    { "networks", "networks: @", "[n]", "{m: {}}" },
    { "networks.*.aliases", "networks: {n: {aliases: [@]}}", "a", "b" }, { "oom_score_adj", "oom_score_adj: @", "1", "2" },
    { "platform", "platform: @", "linux/amd64", "linux/arm64" }, { "ports", "ports: [@]", "80", "'81:80'" },
    { "ports[].mode", "ports: [{target: 80, published: 80, mode: @}]", "host", "ingress" },
    { "ports[].target", "ports: [{target: @}]", "80", "81" }, { "ports[].name", "ports: [{target: 80, name: @}]", "a", NULL },
    { "ports[].published", "ports: [{target: 80, published: @}]", "80", "'81'" },
    { "ports[].protocol", "ports: [{target: 80, protocol: @}]", "tcp", "udp" },
    { "read_only", "read_only: @", "true", "false" }, { "restart", "restart: @", "always", "'no'" },
    { "scale", "scale: @", "2", "3" }, { "security_opt", "security_opt: [@]", "'no-new-privileges:true'", "'seccomp:unconfined'" },
    FILES("secrets"), FILES("configs"), { "sysctls", "sysctls: @", "{net.a: 1}", "[net.a=2]" },
    { "stdin_open", "stdin_open: @", "true", "false" }, { "stop_grace_period", "stop_grace_period: @", "1s", "2s" },
    { "stop_signal", "stop_signal: @", "SIGINT", "SIGHUP" }, { "tmpfs", "tmpfs: @", "/a", "[/b]" }, { "tty", "tty: @", "true", "false" },
    { "ulimits", "ulimits: {nofile: @}", "10", "11" }, { "ulimits.*.soft", "ulimits: {nofile: {soft: @, hard: 10}}", "1", "2" },
    { "ulimits.*.hard", "ulimits: {nofile: {soft: 1, hard: @}}", "1", "2" }, { "user", "user: @", "a", "b" },
    { "working_dir", "working_dir: @", "/a", "/b" }, { "volumes", "volumes: [@]", "'v:/a'", "{type: volume, source: w, target: /a}" },
    { "volumes[].type", "volumes: [{type: @, target: /a}]", "volume", "tmpfs" },
    { "volumes[].source", "volumes: [{type: volume, target: /a, source: @}]", "v", "w" },
    { "volumes[].target", "volumes: [{type: volume, target: @}]", "/a", "/b" },
    { "volumes[].read_only", "volumes: [{type: volume, target: /a, read_only: @}]", "true", "false" },
    { "volumes[].bind", "volumes: [{type: bind, source: /s, target: /a, bind: @}]", "{propagation: shared}", "{}" },
    { "volumes[].bind.propagation", "volumes: [{type: bind, source: /s, target: /a, bind: {propagation: @}}]", "shared", "private" },
    { "volumes[].bind.create_host_path", "volumes: [{type: bind, source: /s, target: /a, bind: {create_host_path: @}}]", "true", "false" },
    { "volumes[].volume", "volumes: [{type: volume, source: v, target: /a, volume: @}]", "{nocopy: true}", "{}" },
    { "volumes[].volume.nocopy", "volumes: [{type: volume, source: v, target: /a, volume: {nocopy: @}}]", "true", "false" },
    { "volumes[].volume.labels", "volumes: [{type: volume, source: v, target: /a, volume: {labels: @}}]", "{a: b}", "{a: c}" },
    { "volumes[].tmpfs", "volumes: [{type: tmpfs, target: /a, tmpfs: @}]", "{size: 1m}", "{}" },
    { "volumes[].tmpfs.size", "volumes: [{type: tmpfs, target: /a, tmpfs: {size: @}}]", "1m", "2m" },
    { "volumes[].tmpfs.mode", "volumes: [{type: tmpfs, target: /a, tmpfs: {mode: @}}]", "0700", "0755" },
};
static const struct sample network_samples[] = { /* networks.n */
    { "name", "name: @", "a", "b" }, { "driver", "driver: @", "overlay", NULL },
    { "driver_opts", "driver_opts: {encrypted: @}", "''", "'1'" }, { "internal", "internal: @", "true", "false" },
    { "ipam", "ipam: @", "{config: [{subnet: 10.1.0.0/24}]}", "{config: [{subnet: 10.2.0.0/24}]}" },
    { "ipam.driver", "ipam: {driver: @}", "default", NULL },
    { "ipam.config", "ipam: {config: @}", "[{subnet: 10.1.0.0/24}]", "[{subnet: 10.2.0.0/24}]" },
    { "ipam.config[].subnet", "ipam: {config: [{subnet: @}]}", "10.1.0.0/24", "10.2.0.0/24" },
    { "ipam.config[].gateway", "ipam: {config: [{subnet: 10.1.0.0/24, gateway: @}]}", "10.1.0.1", "10.1.0.2" },
    { "ipam.config[].ip_range", "ipam: {config: [{subnet: 10.1.0.0/24, ip_range: @}]}", "10.1.0.0/25", "10.1.0.128/25" },
    { "external", "external: @", "true", "false" }, { "external.name", "external: {name: @}", "a", "b" },
    { "attachable", "attachable: @", "true", "false" }, { "labels", "labels: @", "{a: b}", "[a=c]" },
};
static const struct sample volume_samples[] = { /* volumes.v */
    { "name", "name: @", "a", "b" }, { "driver", "driver: @", "local", NULL }, { "labels", "labels: @", "{a: b}", "[a=c]" },
    { "external", "external: @", "true", "false" }, { "external.name", "external: {name: @}", "a", "b" },
};
static const struct sample secret_samples[] = { /* secrets.s */
    { "name", "file: a, name: @", "a", "b" }, { "file", "file: @", "a", "b" }, { "environment", "environment: @", "SET", "OTHER" },
    { "external", "external: @", "true", "{name: b}" }, { "external.name", "external: {name: @}", "a", "b" },
    { "labels", "file: a, labels: @", "{a: b}", "[a=c]" },
};
static const struct sample config_samples[] = { /* configs.s */
    { "name", "file: a, name: @", "a", "b" }, { "file", "file: @", "a", "b" }, { "environment", "environment: @", "SET", "OTHER" },
    { "content", "content: @", "a", "b" }, { "external", "external: @", "true", "{name: b}" },
    { "external.name", "external: {name: @}", "a", "b" }, { "labels", "file: a, labels: @", "{a: b}", "[a=c]" },
};

/* Puts the text of a member of one object into a file that is otherwise right and uses that object. */
static char *file_with(const char *section, const char *text)
{
    bool service = !strcmp(section, "services");
    const char *network = !strcmp(section, "networks") ? text : "", *volume = !strcmp(section, "volumes") ? text : "";
    const char *secret = !strcmp(section, "secrets") ? text : "file: a", *config = !strcmp(section, "configs") ? text : "file: a";
    if (service)
        return xasprintf("name: st\nservices: {web: {%s%s}}\nnetworks: {n: , m: }\nvolumes: {v: , w: }\n"
                         "secrets: {s: {file: a}, t: {file: b}}\nconfigs: {s: {file: a}, t: {file: b}}\n",
                         str_starts(text, "image") ? "" : "image: i, ", text);
    return xasprintf("name: st\nservices: {web: {image: i, networks: [n], volumes: ['v:/v'], secrets: [s], configs: [s]}}\n"
                     "networks: {n: {%s}}\nvolumes: {v: {%s}}\nsecrets: {s: {%s}}\nconfigs: {s: {%s}}\n",
                     network, volume, secret, config);
}

static char *loaded(const char *section, const struct sample *s, const char *value)
{
    const char *at = strchr(s->text, '@');
    AUTO_FREE char *text = xasprintf("%.*s%s%s", (int)(at - s->text), s->text, value, at + 1);
    AUTO_FREE char *file = file_with(section, text);
    struct err e = { 0 };
    char *r = load(file, &e);
    if (!r)
        fail_msg("%s %s: %s", section, text, e.text);
    return r;
}

/* "a.b[].*.c" as YAML that holds something there. */
static void nest(struct sb *b, const char *path)
{
    size_t n = strcspn(path, ".[");
    bool any = n == 1 && path[0] == '*';
    sb_printf(b, "%.*s: ", any ? 1 : (int)n, any ? "n" : path);
    path += n;
    bool list = str_starts(path, "[]");
    path += 2 * list;
    sb_str(b, list ? "[" : "");
    if (*path == '.') {
        sb_char(b, '{');
        nest(b, path + 1);
        sb_char(b, '}');
    } else {
        sb_str(b, "{k: x}");
    }
    sb_str(b, list ? "]" : "");
}

static void is_refused(const char *section, const char *path)
{
    AUTO_SB struct sb b;
    struct err e = { 0 };
    sb_init(&b, 0);
    nest(&b, path);
    AUTO_FREE char *file = file_with(section, b.s);
    AUTO_FREE char *first = xstrndup(path, strcspn(path, ".["));
    AUTO_FREE char *made = load(file, &e);
    if (made || e.code != E_UNSUPPORTED || strstr(e.text, "unknown") || !strstr(e.text, first))
        fail_msg("%s.%s is neither acted on nor refused by name: %s", section, path, made ? "it is accepted" : e.text);
}

static void walk(const char *section, const char *const *keys, size_t n_keys, const struct sample *samples, size_t n_samples)
{
    size_t used = 0;
    for (size_t i = 0; i < n_keys; i++) {
        const struct sample *s = samples;
        while (s < samples + n_samples && strcmp(s->path, keys[i]))
            s++;
        if (s == samples + n_samples) {
            is_refused(section, keys[i]);
            continue;
        }
        used++;
        AUTO_FREE char *a = loaded(section, s, s->a), *b = s->b ? loaded(section, s, s->b) : NULL;
        if (b && !strcmp(a, b))
            fail_msg("%s.%s is accepted and has no effect", section, keys[i]);
    }
    assert_int_equal(used, n_samples); /* no sample is of a key that the specification does not have */
}

#define WALK(section, what) walk(section, spec_##what##_keys, ARRAY_N(spec_##what##_keys), what##_samples, ARRAY_N(what##_samples))

static void test_services(void **state)
{
    WALK("services", service);
}

static void test_others(void **state)
{
    WALK("networks", network);
    WALK("volumes", volume);
    WALK("secrets", secret);
    WALK("configs", config);
}

static void test_top(void **state)
{
    static const char *const built[] = { "version", "name", "services", "networks", "volumes", "secrets", "configs" };
    for (size_t i = 0; i < ARRAY_N(spec_top_keys); i++) {
        bool is = false;
        for (size_t k = 0; k < ARRAY_N(built); k++)
            is |= !strcmp(built[k], spec_top_keys[i]);
        AUTO_FREE char *text = xasprintf("name: st\nservices: {web: {image: i}}\n%s: [x]\n", spec_top_keys[i]);
        struct err e = { 0 };
        AUTO_FREE char *made = is ? NULL : load(text, &e);
        assert_true(is || (!made && e.code == E_UNSUPPORTED && strstr(e.text, spec_top_keys[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_services), cmocka_unit_test(test_others),
                                        cmocka_unit_test(test_top) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
