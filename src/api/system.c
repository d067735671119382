/* /_ping, /version, /info, /events and what clients ask before anything else. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <shoal/model/format.h>
#include <stdio.h>

#ifdef __x86_64__
#define ARCH "amd64"
#elif defined(__aarch64__)
#define ARCH "arm64"
#else
#define ARCH "unknown"
#endif

static void ping(struct call *c)
{
    const char *id = c->api->b.node_id(c->api->b.arg);
    if (c->r) {
        http_reply_header(c->r, "Cache-Control", "no-cache, no-store, must-revalidate");
        http_reply_header(c->r, "Swarm", c->api->b.locked(c->api->b.arg) ? "locked" : !id ? "inactive" : call_manager(c) ? "active/manager" : "active/worker");
        http_reply(c->r, 200, "text/plain; charset=utf-8", "OK", 2);
    }
    call_free(c);
}

static void version(struct call *c)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *component = val_map(d), *details = val_map(d), *list = val_list(d), *platform = val_map(d);
    struct machine_facts m;
    machine_facts(&m);
    val_set_root(d, v);
    val_set(d, platform, "Name", val_str(d, "shoal"));
    val_set(d, v, "Platform", platform);
    static const char *const both[][2] = { { "ApiVersion", API_VERSION }, { "MinAPIVersion", API_MIN_VERSION },
                                           { "Os", "linux" }, { "Arch", ARCH }, { "GitCommit", "" }, { "GoVersion", "" },
                                           { "BuildTime", "" } };
    for (unsigned i = 0; i < ARRAY_N(both); i++) {
        val_set(d, v, both[i][0], val_str(d, both[i][1]));
        val_set(d, details, both[i][0], val_str(d, both[i][1]));
    }
    val_set(d, v, "Version", val_str(d, SHOAL_VERSION));
    val_set(d, v, "KernelVersion", val_str(d, m.kernel));
    val_set(d, details, "KernelVersion", val_str(d, m.kernel));
    val_set(d, details, "Experimental", val_str(d, "false"));
    val_set(d, component, "Name", val_str(d, "Engine"));
    val_set(d, component, "Version", val_str(d, SHOAL_VERSION));
    val_set(d, component, "Details", details);
    val_push(d, list, component);
    val_set(d, v, "Components", list);
    reply_val(c, 200, d);
}

static struct val *remote_managers(struct call *c, struct val_doc *d)
{
    struct val *list = val_list(d);
    struct agent *agent = c->api->b.agent(c->api->b.arg);
    const struct assignment *a = agent ? agent_assignment(agent) : NULL;
    for (uint32_t i = 0; a && i < a->nodes.n; i++) {
        const struct node *n = &a->nodes.v[i];
        if (n->spec.role != ROLE_MANAGER)
            continue;
        struct val *v = val_map(d);
        AUTO_FREE char *addr = xasprintf("%s:%u", n->status.addr ? n->status.addr : "", (unsigned)n->control_port);
        val_set(d, v, "NodeID", val_str(d, n->id));
        val_set(d, v, "Addr", val_str(d, addr));
        val_push(d, list, v);
    }
    return list;
}

/* What is wrong with this manager's log, for a person; false: nothing. */
static bool raft_trouble(const struct raft_status *s, struct sb *b)
{
    if (s->damaged)
        sb_printf(b, "the log of this manager lost something; it has no vote until it has everything up to index %llu from "
                  "the leader (it holds %llu)%s", (unsigned long long)s->repair_to, (unsigned long long)s->durable,
                  s->repair_to ? "" : ", and no leader has told it yet how far that is");
    else if (s->space_short || s->disk_full)
        sb_str(b, "the disk under this manager's log is nearly full; free some there");
    else if (s->quorum_short)
        sb_str(b, "the disks of most managers are nearly full; free some there");
    return b->len > 0;
}

static struct val *raft_info(struct val_doc *d, const struct raft_status *s)
{
    struct val *v = val_map(d);
    const struct { const char *name; uint64_t n; } numbers[] = {
        { "Term", s->term }, { "Index", s->last }, { "Committed", s->commit }, { "Applied", s->applied },
        { "Durable", s->durable }, { "Snapshot", s->snapshot }, { "Voters", s->n_voters },
        { "ProposalsPending", s->proposals_pending }, { "ProposalsMax", RAFT_PROPOSALS_MAX },
        { "UncommittedBytes", s->uncommitted_bytes }, { "WritesQueued", s->writes_queued },
        { "MessagesHeld", s->sends_held }, { "ReadsPending", s->reads_pending }, { "RepairTo", s->repair_to },
    };
    val_set(d, v, "Role", val_str(d, raft_role_text(s->role)));
    val_set(d, v, "Voter", val_bool(d, s->voter && !s->damaged));
    val_set(d, v, "Damaged", val_bool(d, s->damaged));
    val_set(d, v, "SpaceShort", val_bool(d, s->space_short || s->disk_full));
    for (unsigned i = 0; i < ARRAY_N(numbers); i++)
        val_set(d, v, numbers[i].name, val_int(d, (int64_t)numbers[i].n));
    return v;
}

static struct val *formats_info(struct val_doc *d, const struct manager *m)
{
    struct format_plan p;
    struct val *v = val_map(d);
    manager_format_plan(m, &p);
    val_set(d, v, "Least", val_int(d, FORMAT_LEAST));
    val_set(d, v, "Most", val_int(d, FORMAT_MOST));
    val_set(d, v, "Written", val_int(d, (int64_t)p.format));
    if (p.waits_for) {
        const char *host = p.waits_for->description.hostname;
        val_set(d, v, "Next", val_int(d, (int64_t)p.next));
        val_set(d, v, "WaitsFor", val_str(d, p.waits_for->id));
        val_set(d, v, "WaitsForHostname", val_str(d, host ? host : ""));
    }
    return v;
}

static struct val *swarm_info(struct call *c, struct val_doc *d)
{
    struct val *v = val_map(d);
    const struct api_backend *b = &c->api->b;
    struct manager *m = call_manager(c);
    const char *id = b->node_id(b->arg), *addr = b->node_addr(b->arg);
    val_set(d, v, "NodeID", val_str(d, id ? id : ""));
    val_set(d, v, "NodeAddr", val_str(d, id && addr ? addr : ""));
    val_set(d, v, "LocalNodeState", val_str(d, b->locked(b->arg) ? "locked" : id ? "active" : "inactive"));
    val_set(d, v, "ControlAvailable", val_bool(d, m != NULL));
    struct raft_status s = { 0 };
    AUTO_SB struct sb trouble;
    sb_init(&trouble, 0);
    if (m)
        manager_raft_status(m, &s);
    val_set(d, v, "Error", val_str(d, m && raft_trouble(&s, &trouble) ? trouble.s : ""));
    if (m)
        val_set(d, v, "Raft", raft_info(d, &s));
    val_set(d, v, "RemoteManagers", id ? remote_managers(c, d) : val_null(d));
    if (!m)
        return v;
    const struct store *st = manager_store(m);
    int64_t n_managers = 0;
    for (const struct node *n = NULL; (n = store_next(st, TABLE_NODE, n));)
        n_managers += n->spec.role == ROLE_MANAGER;
    val_set(d, v, "Nodes", val_int(d, store_count(st, TABLE_NODE)));
    val_set(d, v, "Managers", val_int(d, n_managers));
    val_set(d, v, "Formats", formats_info(d, m));
    if (store_cluster(st)) {
        struct val *cl = rec_to_val(&cluster_rec, store_cluster(st), d);
        val_unset(cl, "JoinTokens");
        val_set(d, v, "Cluster", cl);
    }
    return v;
}

static void info(struct call *c)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *plugins = val_map(d);
    const struct api_backend *b = &c->api->b;
    struct machine_facts m;
    int64_t count[4] = { 0 }, images = 0;
    machine_facts(&m);
    for (const struct container *x = NULL; (x = runtime_next(b->runtime, x));)
        count[x->state.phase]++;
    for (const struct image *i = NULL; (i = image_next(b->images, i));)
        images++;
    val_set_root(d, v);
    val_set(d, v, "ID", val_str(d, m.id));
    val_set(d, v, "Containers", val_int(d, count[0] + count[1] + count[2] + count[3]));
    val_set(d, v, "ContainersRunning", val_int(d, count[CONTAINER_RUNNING]));
    val_set(d, v, "ContainersPaused", val_int(d, count[CONTAINER_PAUSED]));
    val_set(d, v, "ContainersStopped", val_int(d, count[CONTAINER_CREATED] + count[CONTAINER_EXITED]));
    val_set(d, v, "Images", val_int(d, images));
    static const char *const text[][2] = {
        { "Driver", "overlayfs" }, { "LoggingDriver", "json-file" }, { "OSType", "linux" }, { "DefaultRuntime", "shoal" },
        { "IndexServerAddress", "https://index.docker.io/v1/" }, { "InitBinary", "shoal" }, { "Isolation", "" },
        { "HttpProxy", "" }, { "HttpsProxy", "" }, { "NoProxy", "" }, { "ServerVersion", SHOAL_VERSION },
    };
    for (unsigned i = 0; i < ARRAY_N(text); i++)
        val_set(d, v, text[i][0], val_str(d, text[i][1]));
    static const char *const yes[] = { "MemoryLimit", "CpuCfsPeriod", "CpuCfsQuota", "PidsLimit", "IPv4Forwarding" };
    for (unsigned i = 0; i < ARRAY_N(yes); i++)
        val_set(d, v, yes[i], val_bool(d, true));
    static const char *const no[] = { "SwapLimit", "CPUShares", "CPUSet", "OomKillDisable", "Debug", "ExperimentalBuild",
                                      "LiveRestoreEnabled" };
    for (unsigned i = 0; i < ARRAY_N(no); i++)
        val_set(d, v, no[i], val_bool(d, str_equal(no[i], "LiveRestoreEnabled")));
    val_set(d, v, "Architecture", val_str(d, m.arch));
    val_set(d, v, "KernelVersion", val_str(d, m.kernel));
    val_set(d, v, "OperatingSystem", val_str(d, m.os));
    val_set(d, v, "Name", val_str(d, m.host));
    val_set(d, v, "NCPU", val_int(d, m.cpus));
    val_set(d, v, "MemTotal", val_int(d, m.memory_bytes));
    val_set(d, v, "CgroupDriver", val_str(d, "cgroupfs"));
    val_set(d, v, "CgroupVersion", val_str(d, file_exists("/sys/fs/cgroup/cgroup.controllers") ? "2" : "1"));
    val_set(d, v, "DockerRootDir", val_str(d, b->root_dir));
    val_set(d, v, "SystemTime", time_val(d, clock_real_ns()));
    val_set(d, v, "NGoroutines", val_int(d, 0));
    val_set(d, v, "NFd", val_int(d, 0));
    val_set(d, v, "NEventsListener", val_int(d, c->api->watchers.n));
    struct val *security = val_list(d);
    val_push(d, security, val_str(d, "name=seccomp,profile=builtin"));
    val_set(d, v, "SecurityOptions", security);
    static const char *const kinds[][2] = { { "Volume", "local" }, { "Network", "overlay" }, { "Log", "journald" }, { "Log", "json-file" } };
    for (unsigned i = 0; i < ARRAY_N(kinds); i++) {
        struct val *l = val_get(plugins, kinds[i][0]);
        if (!l)
            val_set(d, plugins, kinds[i][0], l = val_list(d));
        val_push(d, l, val_str(d, kinds[i][1]));
    }
    val_set(d, plugins, "Authorization", val_list(d));
    val_set(d, v, "Plugins", plugins);
    struct val *registry = val_map(d), *insecure = val_map(d);
    for (unsigned i = 0; b->insecure_registries && b->insecure_registries[i]; i++) {
        struct val *one = val_map(d);
        val_set(d, one, "Name", val_str(d, b->insecure_registries[i]));
        val_set(d, one, "Secure", val_bool(d, false));
        val_set(d, insecure, b->insecure_registries[i], one);
    }
    val_set(d, registry, "IndexConfigs", insecure);
    val_set(d, registry, "InsecureRegistryCIDRs", val_list(d));
    val_set(d, registry, "Mirrors", val_list(d));
    val_set(d, v, "RegistryConfig", registry);
    val_set(d, v, "DriverStatus", val_list(d));
    val_set(d, v, "Labels", val_list(d));
    val_set(d, v, "Warnings", val_list(d));
    val_set(d, v, "Swarm", swarm_info(c, d));
    reply_val(c, 200, d);
}

const struct route system_routes[] = {
    { "GET", "/_ping", ping, ROUTE_ALWAYS },
    { "GET", "/version", version, ROUTE_ALWAYS },
    { "GET", "/info", info, ROUTE_ALWAYS },
    { "GET", "/events", events_watch, ROUTE_LOCAL },
    { 0 },
};
