/* The keys of the Compose Specification as tables: what each may hold, and whether shoal acts on it. Checked
 * for every file by itself, before merging, so that an error names the file it is in. A key that is in
 * the specification but not acted on is refused; x-* is the one thing that is skipped. */
#include <stdio.h>
#include "stack_internal.h"

enum { S = 1, N = 2, R = 4, B = 8, L = 16, M = 32, SN = S | N, SB = S | B, SL = S | L, LM = L | M };

struct key {
    const char *name;        /* "*": any */
    unsigned kinds;          /* besides nothing at all, which is the same as leaving the key out */
    const struct key *map;   /* keys when it is a map; NULL: not looked into */
    const struct key *each;  /* elements when it is a list */
    const char *unbuilt;     /* not acted on; "" or the cure */
};

/* key, kinds, keys when it is a map, elements when it is a list */
#define KEY(n, k, m, e) { .name = (n), .kinds = (k), .map = (m), .each = (e) }
#define END { .name = NULL }
#define UNBUILT(key) { .name = (key), .unbuilt = "" }
#define INSTEAD(key, cure) { .name = (key), .unbuilt = (cure) }

static const struct key a_string[] = { KEY("*", S, NULL, NULL), END };
static const struct key scalars[] = { KEY("*", S | N | R | B, NULL, NULL), END };
#define LABELS(key) KEY(key, LM, scalars, a_string)
#define STRINGS(key) KEY(key, L, NULL, a_string)
#define STRING_OR_LIST(key) KEY(key, SL, NULL, a_string)
#define IS(key, kinds) KEY(key, kinds, NULL, NULL)

static const struct key healthcheck_keys[] = {
    IS("disable", SB), IS("interval", S), IS("retries", SN), STRING_OR_LIST("test"), IS("timeout", S),
    IS("start_period", S), IS("start_interval", S), END };
static const struct key logging_keys[] = { IS("driver", S), KEY("options", M, scalars, NULL), END };
static const struct key limits_keys[] = {
    IS("cpus", S | N | R), IS("memory", SN), IS("pids", SN), END };
static const struct key reservations_keys[] = {
    IS("cpus", S | N | R), IS("memory", SN), UNBUILT("generic_resources"), UNBUILT("devices"), END };
static const struct key resources_keys[] = {
    KEY("limits", M, limits_keys, NULL), KEY("reservations", M, reservations_keys, NULL), END };
static const struct key restart_policy_keys[] = {
    IS("condition", S), IS("delay", S), IS("max_attempts", SN), IS("window", S), END };
static const struct key update_keys[] = {
    IS("parallelism", SN), IS("delay", S), IS("failure_action", S), IS("monitor", S),
    IS("max_failure_ratio", S | N | R), IS("order", S), END };
static const struct key preference_keys[] = { IS("spread", S), END };
static const struct key a_preference[] = { KEY("*", M, preference_keys, NULL), END };
static const struct key placement_keys[] = {
    STRINGS("constraints"), KEY("preferences", L, NULL, a_preference), IS("max_replicas_per_node", SN), END };
static const struct key deploy_keys[] = {
    IS("mode", S), IS("endpoint_mode", S), IS("replicas", SN), LABELS("labels"),
    KEY("update_config", M, update_keys, NULL), KEY("rollback_config", M, update_keys, NULL),
    KEY("resources", M, resources_keys, NULL), KEY("restart_policy", M, restart_policy_keys, NULL),
    KEY("placement", M, placement_keys, NULL), END };
static const struct key port_keys[] = {
    IS("name", S), IS("mode", S), IS("target", SN), IS("published", SN), IS("protocol", S),
    INSTEAD("host_ip", "shoal publishes on every node; remove it"), UNBUILT("app_protocol"), END };
static const struct key a_port[] = { KEY("*", SN | M, port_keys, NULL), END };
static const struct key bind_keys[] = {
    IS("propagation", S), IS("create_host_path", SB), UNBUILT("recursive"), UNBUILT("selinux"), END };
static const struct key volume_option_keys[] = {
    IS("nocopy", SB), LABELS("labels"), UNBUILT("subpath"), END };
static const struct key tmpfs_keys[] = { IS("size", SN), IS("mode", SN), END };
static const struct key mount_keys[] = {
    IS("type", S), IS("source", S), IS("target", S), IS("read_only", SB), UNBUILT("consistency"),
    KEY("bind", M, bind_keys, NULL), KEY("volume", M, volume_option_keys, NULL),
    KEY("tmpfs", M, tmpfs_keys, NULL), UNBUILT("image"), END };
static const struct key a_mount[] = { KEY("*", S | M, mount_keys, NULL), END };
static const struct key file_ref_keys[] = {
    IS("source", S), IS("target", S), IS("uid", SN), IS("gid", SN), IS("mode", SN), END };
static const struct key a_file_ref[] = { KEY("*", S | M, file_ref_keys, NULL), END };
static const struct key env_file_keys[] = {
    IS("path", S), IS("format", S), IS("required", SB), END };
static const struct key an_env_file[] = { KEY("*", S | M, env_file_keys, NULL), END };
static const struct key service_network_keys[] = {
    STRINGS("aliases"), UNBUILT("ipv4_address"), UNBUILT("ipv6_address"), UNBUILT("link_local_ips"),
    UNBUILT("mac_address"), UNBUILT("priority"), UNBUILT("gw_priority"), UNBUILT("driver_opts"),
    UNBUILT("interface_name"), END };
static const struct key service_networks[] = { KEY("*", M, service_network_keys, NULL), END };
static const struct key ulimit_keys[] = { IS("soft", SN), IS("hard", SN), END };
static const struct key ulimits[] = { KEY("*", SN | M, ulimit_keys, NULL), END };
static const struct key host_values[] = { KEY("*", SL, NULL, a_string), END };
static const struct key expose_values[] = { IS("*", SN), END };

static const struct key service_keys[] = {
    IS("image", S), KEY("command", SL, NULL, a_string), KEY("entrypoint", SL, NULL, a_string),
    LABELS("environment"), KEY("env_file", SL, NULL, an_env_file), LABELS("labels"),
    KEY("ports", L, NULL, a_port), KEY("volumes", L, NULL, a_mount), STRING_OR_LIST("tmpfs"),
    KEY("secrets", L, NULL, a_file_ref), KEY("configs", L, NULL, a_file_ref),
    KEY("networks", LM, service_networks, a_string), KEY("deploy", M, deploy_keys, NULL),
    KEY("healthcheck", M, healthcheck_keys, NULL), KEY("logging", M, logging_keys, NULL), IS("restart", SB),
    IS("hostname", S), IS("user", SN), IS("working_dir", S), IS("stop_signal", S),
    IS("stop_grace_period", S), IS("init", SB), IS("tty", SB), IS("stdin_open", SB), IS("read_only", SB),
    STRINGS("cap_add"), STRINGS("cap_drop"), LABELS("sysctls"), KEY("ulimits", M, ulimits, NULL),
    KEY("extra_hosts", LM, host_values, a_string), STRING_OR_LIST("dns"), STRING_OR_LIST("dns_search"),
    STRINGS("dns_opt"), KEY("group_add", L, NULL, expose_values), IS("oom_score_adj", SN),
    STRINGS("security_opt"), IS("platform", S), IS("scale", SN),
    /* every port of a service is open to its networks: to name one changes nothing, as specified */
    KEY("expose", L, NULL, expose_values),
    INSTEAD("depends_on", "shoal starts services together; remove it and let the program retry"),
    INSTEAD("build", "shoal runs images; build it elsewhere and name it with image:"),
    INSTEAD("container_name", "a service has many containers; remove it"),
    INSTEAD("links", "services of a network find each other by name; remove it"),
    INSTEAD("external_links", "services of a network find each other by name; remove it"),
    INSTEAD("cpus", "write deploy.resources.limits.cpus"),
    INSTEAD("mem_limit", "write deploy.resources.limits.memory"),
    INSTEAD("mem_reservation", "write deploy.resources.reservations.memory"),
    INSTEAD("pids_limit", "write deploy.resources.limits.pids"),
    INSTEAD("shm_size", "write a tmpfs volume with target /dev/shm and its size"),
    UNBUILT("annotations"), UNBUILT("attach"), UNBUILT("blkio_config"), UNBUILT("cgroup"),
    UNBUILT("cgroup_parent"), UNBUILT("cpu_count"), UNBUILT("cpu_percent"), UNBUILT("cpu_period"),
    UNBUILT("cpu_quota"), UNBUILT("cpu_rt_period"), UNBUILT("cpu_rt_runtime"), UNBUILT("cpu_shares"),
    UNBUILT("cpuset"), UNBUILT("credential_spec"), UNBUILT("develop"), UNBUILT("device_cgroup_rules"),
    UNBUILT("devices"), UNBUILT("domainname"), UNBUILT("extends"), UNBUILT("gpus"), UNBUILT("ipc"),
    UNBUILT("isolation"), UNBUILT("label_file"), UNBUILT("mac_address"), UNBUILT("mem_swappiness"),
    UNBUILT("memswap_limit"), UNBUILT("models"), UNBUILT("network_mode"), UNBUILT("oom_kill_disable"),
    UNBUILT("pid"), UNBUILT("post_start"), UNBUILT("pre_stop"), UNBUILT("privileged"),
    UNBUILT("profiles"), UNBUILT("provider"), UNBUILT("pull_policy"), UNBUILT("pull_refresh_after"),
    UNBUILT("runtime"), UNBUILT("storage_opt"), UNBUILT("use_api_socket"), UNBUILT("userns_mode"),
    UNBUILT("uts"), UNBUILT("volume_driver"), UNBUILT("volumes_from"), END };

static const struct key external_keys[] = { IS("name", S), END };
#define EXTERNAL KEY("external", SB | M, external_keys, NULL)
static const struct key ipam_config_keys[] = {
    IS("subnet", S), IS("ip_range", S), IS("gateway", S), UNBUILT("aux_addresses"), END };
static const struct key an_ipam_config[] = { KEY("*", M, ipam_config_keys, NULL), END };
static const struct key ipam_keys[] = {
    IS("driver", S), KEY("config", L, NULL, an_ipam_config), UNBUILT("options"), END };
static const struct key network_keys[] = {
    IS("name", S), IS("driver", S), KEY("driver_opts", M, scalars, NULL), KEY("ipam", M, ipam_keys, NULL),
    EXTERNAL, IS("internal", SB), IS("attachable", SB), LABELS("labels"), UNBUILT("enable_ipv4"),
    UNBUILT("enable_ipv6"), END };
static const struct key volume_keys[] = {
    IS("name", S), IS("driver", S), KEY("driver_opts", M, scalars, NULL), EXTERNAL, LABELS("labels"), END };
static const struct key secret_keys[] = {
    IS("name", S), IS("file", S), IS("environment", S), EXTERNAL, LABELS("labels"), UNBUILT("driver"),
    UNBUILT("driver_opts"), UNBUILT("template_driver"), END };
static const struct key config_keys[] = {
    IS("name", S), IS("file", S), IS("environment", S), IS("content", S), EXTERNAL, LABELS("labels"),
    UNBUILT("template_driver"), END };

static const struct key services[] = { KEY("*", M, service_keys, NULL), END };
static const struct key networks[] = { KEY("*", M, network_keys, NULL), END };
static const struct key volumes[] = { KEY("*", M, volume_keys, NULL), END };
static const struct key secrets[] = { KEY("*", M, secret_keys, NULL), END };
static const struct key configs[] = { KEY("*", M, config_keys, NULL), END };
/* version: says nothing since the Compose Specification, and every older file has it */
static const struct key top_keys[] = {
    IS("version", SN | R), IS("name", S), KEY("services", M, services, NULL),
    KEY("networks", M, networks, NULL), KEY("volumes", M, volumes, NULL),
    KEY("secrets", M, secrets, NULL), KEY("configs", M, configs, NULL), UNBUILT("include"),
    UNBUILT("models"), END };

static unsigned kind_bit(const struct val *v)
{
    switch (v->kind) {
    case V_STR:
        return S;
    case V_INT:
    case V_UINT:
        return N;
    case V_REAL:
        return R;
    case V_BOOL:
        return B;
    case V_LIST:
        return L;
    default:
        return M;
    }
}

static int wrong_kind(struct load *l, const struct key *k, const struct val *v)
{
    static const char *const names[] = { "a string", "a whole number", "a number", "true or false",
                                         "a list", "a map" };
    unsigned kinds = k->kinds & R ? k->kinds & ~(unsigned)N : k->kinds;
    char want[120] = "";
    size_t len = 0;
    for (unsigned i = 0, left = kinds; i < ARRAY_N(names); i++)
        if (kinds >> i & 1) {
            left &= ~(1U << i);
            len += (size_t)snprintf(want + len, sizeof want - len, "%s%s",
                                    !len ? "" : left ? ", " : " or ", names[i]);
        }
    bool scalar = v->kind == V_INT || v->kind == V_UINT || v->kind == V_REAL || v->kind == V_BOOL;
    return bad(l, v, E_INVALID, "expected %s, found %s%s", want, kind_text(v),
               scalar && (k->kinds & S) ? "; put it in quotes" : "");
}

static unsigned distance(const char *a, const char *b)
{
    enum { MAX = 32 };
    size_t n = strlen(a), m = strlen(b);
    unsigned rows[3][MAX + 1];
    if (n > MAX || m > MAX)
        return 99;
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *cur = rows[i % 3], *prev = rows[(i - 1) % 3], *prev2 = rows[(i + 1) % 3];
        cur[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned same = prev[j - 1] + (a[i - 1] != b[j - 1]);
            cur[j] = MIN(MIN(prev[j], cur[j - 1]) + 1, same);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cur[j] = MIN(cur[j], prev2[j - 2] + 1); /* two letters changed places */
        }
    }
    return rows[n % 3][m];
}

const char *nearest(const char *name, const char *const *known, size_t n)
{
    const char *best = NULL;
    unsigned best_distance = strlen(name) < 4 ? 2 : 3;
    for (size_t i = 0; i < n; i++) {
        unsigned d = distance(name, known[i]);
        if (d < best_distance) {
            best_distance = d;
            best = known[i];
        }
    }
    return best;
}

static int unknown_key(struct load *l, const struct key *keys, const char *name, const struct val *v)
{
    const char *known[128];
    size_t n = 0;
    for (const struct key *k = keys; k->name && n < ARRAY_N(known); k++)
        if (!k->unbuilt)
            known[n++] = k->name;
    const char *near = nearest(name, known, n);
    if (near)
        return bad(l, v, E_INVALID, "unknown key; did you mean \"%s\"?", near);
    return bad(l, v, E_INVALID, "unknown key; remove it or start it with x-");
}

static int check_map(struct load *l, const struct key *keys, const struct val *map);

static int check_value(struct load *l, const struct key *k, const struct val *v)
{
    if (v->kind == V_NULL)
        return 0;
    if (!(k->kinds & kind_bit(v)))
        return wrong_kind(l, k, v);
    if (v->kind == V_MAP && k->map)
        return check_map(l, k->map, v);
    if (v->kind != V_LIST || !k->each)
        return 0;
    for (uint32_t i = 0; i < v->n; i++) {
        size_t mark = at_index(l, i);
        if (v->list[i]->kind == V_NULL)
            return bad(l, v->list[i], E_INVALID, "is empty; remove it");
        int rc = check_value(l, k->each, v->list[i]);
        if (rc < 0)
            return rc;
        at_back(l, mark);
    }
    return 0;
}

static int check_map(struct load *l, const struct key *keys, const struct val *map)
{
    bool any = keys[0].name[0] == '*';
    for (uint32_t i = 0; i < map->n; i++) {
        const struct val *key = map->map[i].key, *v = map->map[i].value;
        const struct key *k = keys;
        if (!any && str_starts(key->s, "x-"))
            continue;
        while (!any && k->name && strcmp(k->name, key->s) != 0)
            k++;
        size_t mark = at_key(l, key->s);
        if (!k->name)
            return unknown_key(l, keys, key->s, key);
        if (k->unbuilt && v->kind == V_NULL)
            k = NULL; /* nothing is asked for */
        else if (k->unbuilt && k->unbuilt[0])
            return bad(l, key, E_UNSUPPORTED, "%s", k->unbuilt);
        else if (k->unbuilt)
            return bad(l, key, E_UNSUPPORTED, "not built in shoal yet; remove it");
        int rc = k ? check_value(l, k, v) : 0;
        if (rc < 0)
            return rc;
        at_back(l, mark);
    }
    return 0;
}

int compose_check(struct load *l, const struct val *root)
{
    return check_map(l, top_keys, root);
}
