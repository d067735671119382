/* "linux.resources" of config.json as control group files to be written, for both versions of control groups
 * (cgroup-v1/, cgroup-v2.rst). Pure: which version it is and whether a file exists is seen when they are written. */
#include "oci_internal.h"
#include <inttypes.h>
#include <stdio.h>

struct limits {
    struct oci_reader *r;
    struct oci_bundle *b;
};

/* A NULL file: this version has no such limit. Values as text; v2 NULL: as v1. */
static void add(struct limits *l, const char *name, const char *controller, const char *v1_file, const char *v1, const char *v2_file,
                const char *v2)
{
    if (l->b->settings.n >= 256) {
        oci_refuse(l->r, E_TOO_BIG, "linux.resources has more than 256 limits");
        return;
    }
    struct oci_setting *s = REC_ADD(&l->b->settings);
    str_set(&s->name, name);
    str_set(&s->controller, controller);
    str_set(&s->v1_file, v1_file);
    str_set(&s->v1_value, v1);
    str_set(&s->v2_file, v2_file);
    str_set(&s->v2_value, v2 ? v2 : v1);
}

static const char *number(char out[64], int64_t n)
{
    snprintf(out, 64, "%" PRId64, n);
    return out;
}

/* "max" where v2 says so for no limit. */
static const char *number_or_max(char out[64], int64_t n)
{
    return n < 0 ? "max" : number(out, n);
}

static void memory(struct limits *l, const struct val *v)
{
    static const char where[] = "linux.resources.memory.";
    char a[64], b[64];
    int64_t limit = 0, n;
    bool limited = oci_number(l->r, v, where, "limit", -1, INT64_MAX, &limit) && limit != 0;
    if (limited)
        add(l, "memory.limit", "memory", "memory.limit_in_bytes", number(a, limit), "memory.max", number_or_max(b, limit));
    if (oci_number(l->r, v, where, "swap", -1, INT64_MAX, &n) && n != 0) { /* of v1: memory and swap together */
        if (n > 0 && (!limited || limit < 0 || n < limit))
            oci_refuse(l->r, E_INVALID, "%sswap is memory and swap together: give limit too, at most as big", where);
        add(l, "memory.swap", "memory", "memory.memsw.limit_in_bytes", number(a, n), "memory.swap.max",
            number_or_max(b, n < 0 ? -1 : n - limit));
    }
    if (oci_number(l->r, v, where, "reservation", -1, INT64_MAX, &n) && n != 0)
        add(l, "memory.reservation", "memory", "memory.soft_limit_in_bytes", number(a, n), "memory.low",
            number_or_max(b, n));
    if (oci_number(l->r, v, where, "swappiness", 0, 200, &n))
        add(l, "memory.swappiness", "memory", "memory.swappiness", number(a, n), NULL, NULL);
    if (oci_flag(l->r, v, where, "disableOOMKiller"))
        add(l, "memory.disableOOMKiller", "memory", "memory.oom_control", "1", NULL, NULL);
    if (oci_number(l->r, v, where, "kernelTCP", -1, INT64_MAX, &n) && n != 0)
        add(l, "memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", number(a, n), NULL, NULL);
    if (oci_number(l->r, v, where, "kernel", -1, INT64_MAX, &n) && n > 0)
        oci_refuse(l->r, E_UNSUPPORTED, "%skernel is not supported by kernels any more; leave it out", where);
}

static void cpu(struct limits *l, const struct val *v)
{
    static const char where[] = "linux.resources.cpu.";
    char a[64], b[64];
    int64_t quota = 0, n;
    uint64_t period = 100000, shares = 0;
    bool has_period = oci_big(l->r, v, where, "period", &period) && period != 0, has_quota = oci_number(l->r, v, where, "quota", -1, INT64_MAX, &quota) && quota != 0;
    const char *cpus = oci_text(l->r, v, where, "cpus"), *mems = oci_text(l->r, v, where, "mems");
    if (!has_period)
        period = 100000;
    if (oci_big(l->r, v, where, "shares", &shares) && shares) {
        shares = MIN(MAX(shares, 2u), 262144u);
        snprintf(a, sizeof a, "%" PRIu64, shares);
        snprintf(b, sizeof b, "%" PRIu64, 1 + (shares - 2) * 9999 / 262142);
        add(l, "cpu.shares", "cpu", "cpu.shares", a, "cpu.weight", b);
    }
    if (has_period) {
        snprintf(a, sizeof a, "%" PRIu64, period);
        add(l, "cpu.period", "cpu", "cpu.cfs_period_us", a, "cpu.max", "max");
    }
    if (has_period || has_quota) {
        snprintf(b, sizeof b, "%s %" PRIu64, number_or_max(a, quota > 0 ? quota : -1), period);
        add(l, "cpu.quota", "cpu", "cpu.cfs_quota_us", number(a, has_quota ? quota : -1), "cpu.max", b);
    }
    uint64_t burst;
    if (oci_big(l->r, v, where, "burst", &burst)) {
        snprintf(a, sizeof a, "%" PRIu64, burst);
        add(l, "cpu.burst", "cpu", "cpu.cfs_burst_us", a, "cpu.max.burst", NULL);
    }
    if (oci_big(l->r, v, where, "realtimePeriod", &period) && period) {
        snprintf(a, sizeof a, "%" PRIu64, period);
        add(l, "cpu.realtimePeriod", "cpu", "cpu.rt_period_us", a, NULL, NULL);
    }
    if (oci_number(l->r, v, where, "realtimeRuntime", -1, INT64_MAX, &n) && n)
        add(l, "cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", number(a, n), NULL, NULL);
    if (oci_number(l->r, v, where, "idle", 0, 1, &n))
        add(l, "cpu.idle", "cpu", "cpu.idle", number(a, n), "cpu.idle", NULL);
    if (cpus)
        add(l, "cpu.cpus", "cpuset", "cpuset.cpus", cpus, "cpuset.cpus", NULL);
    if (mems)
        add(l, "cpu.mems", "cpuset", "cpuset.mems", mems, "cpuset.mems", NULL);
}

/* One line "MAJOR:MINOR VALUE" a device; v2 wants the word of the limit too. */
static void throttle(struct limits *l, const struct val *io, const char *name, const char *v1_file, const char *word)
{
    const struct val *list = oci_member(l->r, io, "linux.resources.blockIO.", name, V_LIST);
    for (uint32_t i = 0; list && i < list->n && l->r->r == 0; i++) {
        char where[96], a[96], b[96], full[64];
        int64_t major = 0, minor = 0;
        uint64_t rate = 0;
        snprintf(where, sizeof where, "linux.resources.blockIO.%s[%u].", name, i);
        oci_number(l->r, list->list[i], where, "major", 0, UINT32_MAX, &major);
        oci_number(l->r, list->list[i], where, "minor", 0, UINT32_MAX, &minor);
        oci_big(l->r, list->list[i], where, "rate", &rate);
        snprintf(a, sizeof a, "%" PRId64 ":%" PRId64 " %" PRIu64, major, minor, rate);
        snprintf(b, sizeof b, "%" PRId64 ":%" PRId64 " %s=%" PRIu64, major, minor, word, rate);
        snprintf(full, sizeof full, "blockIO.%s", name);
        add(l, full, "blkio", v1_file, a, "io.max", rate ? b : NULL);
    }
}

static void block_io(struct limits *l, const struct val *v)
{
    static const char where[] = "linux.resources.blockIO.";
    char a[64], b[64];
    int64_t n;
    if (oci_number(l->r, v, where, "weight", 0, 1000, &n) && n) {
        snprintf(b, sizeof b, "default %" PRId64, 1 + (MAX(n, 10) - 10) * 9999 / 990);
        add(l, "blockIO.weight", "blkio", "blkio.bfq.weight", number(a, n), "io.weight", b);
    }
    throttle(l, v, "throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps");
    throttle(l, v, "throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps");
    throttle(l, v, "throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops");
    throttle(l, v, "throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops");
    if (oci_number(l->r, v, where, "leafWeight", 0, 1000, &n) && n)
        oci_refuse(l->r, E_UNSUPPORTED, "%sleafWeight is not supported by kernels any more; leave it out", where);
    const struct val *devices = oci_member(l->r, v, where, "weightDevice", V_LIST);
    if (devices && devices->n)
        oci_refuse(l->r, E_UNSUPPORTED, "%sweightDevice is not supported; use weight", where);
}

static void huge_pages(struct limits *l, const struct val *list)
{
    for (uint32_t i = 0; list && i < list->n && l->r->r == 0; i++) {
        char where[64], v1[96], v2[96], a[64];
        uint64_t limit = 0;
        snprintf(where, sizeof where, "linux.resources.hugepageLimits[%u].", i);
        const char *size = oci_text(l->r, list->list[i], where, "pageSize");
        size_t digits = size ? strspn(size, "0123456789") : 0;
        if (!digits || digits > 6 || !strchr("KMG", size[digits]) || !str_equal(size + digits + 1, "B") ||
            !oci_big(l->r, list->list[i], where, "limit", &limit)) {
            oci_refuse(l->r, E_INVALID, "%s must have pageSize, such as 2MB, and limit", where);
            return;
        }
        snprintf(v1, sizeof v1, "hugetlb.%s.limit_in_bytes", size);
        snprintf(v2, sizeof v2, "hugetlb.%s.max", size);
        snprintf(a, sizeof a, "%" PRIu64, limit);
        add(l, "hugepageLimits", "hugetlb", v1, a, v2, NULL);
    }
}

static void network(struct limits *l, const struct val *v)
{
    char a[64];
    int64_t n;
    if (oci_number(l->r, v, "linux.resources.network.", "classID", 0, UINT32_MAX, &n) && n)
        add(l, "network.classID", "net_cls", "net_cls.classid", number(a, n), NULL, NULL);
    const struct val *list = oci_member(l->r, v, "linux.resources.network.", "priorities", V_LIST);
    for (uint32_t i = 0; list && i < list->n && l->r->r == 0; i++) {
        char where[64], line[64];
        snprintf(where, sizeof where, "linux.resources.network.priorities[%u].", i);
        const char *name = oci_text(l->r, list->list[i], where, "name");
        if (!name || strlen(name) > 15 || strchr(name, '/') || !oci_number(l->r, list->list[i], where, "priority", 0, UINT32_MAX, &n)) {
            oci_refuse(l->r, E_INVALID, "%s must have the name of an interface and priority", where);
            return;
        }
        snprintf(line, sizeof line, "%s %" PRId64, name, n);
        add(l, "network.priorities", "net_prio", "net_prio.ifpriomap", line, NULL, NULL);
    }
}

static void rdma(struct limits *l, const struct val *v)
{
    for (uint32_t i = 0; v && i < v->n && l->r->r == 0; i++) {
        char where[96], line[128];
        int64_t handles = -1, objects = -1;
        const char *name = v->map[i].key->s;
        if (strlen(name) > 63 || strlen(name) != v->map[i].key->n || strchr(name, '\n')) {
            oci_refuse(l->r, E_INVALID, "linux.resources.rdma: \"%.64s\" is no device", name);
            return;
        }
        snprintf(where, sizeof where, "linux.resources.rdma.%s.", name);
        oci_number(l->r, v->map[i].value, where, "hcaHandles", 0, INT32_MAX, &handles);
        oci_number(l->r, v->map[i].value, where, "hcaObjects", 0, INT32_MAX, &objects);
        int n = snprintf(line, sizeof line, "%s", name);
        if (handles >= 0)
            n += snprintf(line + n, sizeof line - (size_t)n, " hca_handle=%" PRId64, handles);
        if (objects >= 0)
            snprintf(line + n, sizeof line - (size_t)n, " hca_object=%" PRId64, objects);
        add(l, "rdma", "rdma", "rdma.max", line, "rdma.max", NULL);
    }
}

/* Files of v2 by name, after all others. */
static void unified(struct limits *l, const struct val *v)
{
    for (uint32_t i = 0; v && i < v->n && l->r->r == 0; i++) {
        const char *key = v->map[i].key->s;
        const struct val *x = v->map[i].value;
        char name[280];
        if (strchr(key, '/') || !strchr(key, '.') || strlen(key) > 200 || strlen(key) != v->map[i].key->n || x->kind != V_STR || !x->n ||
            x->n > 4000 || strlen(x->s) != x->n || str_starts(key, "cgroup.")) {
            oci_refuse(l->r, E_INVALID, "linux.resources.unified.%.100s: must be a control file of version 2 such as memory.high, with text", key);
            return;
        }
        snprintf(name, sizeof name, "unified.%s", key);
        add(l, name, NULL, NULL, NULL, key, x->s);
    }
}

static void devices(struct limits *l, const struct val *list)
{
    if (list && list->n > DEVICE_RULES_MAX)
        oci_refuse(l->r, E_TOO_BIG, "linux.resources.devices has %u elements, at most %d are taken", list->n, DEVICE_RULES_MAX);
    for (uint32_t i = 0; list && i < list->n && l->r->r == 0; i++) {
        const struct val *v = list->list[i];
        char where[64];
        int64_t major = -1, minor = -1;
        snprintf(where, sizeof where, "linux.resources.devices[%u].", i);
        const char *type = oci_text(l->r, v, where, "type"), *access = oci_text(l->r, v, where, "access");
        oci_number(l->r, v, where, "major", -1, INT32_MAX, &major);
        oci_number(l->r, v, where, "minor", -1, INT32_MAX, &minor);
        if (!val_get(v, "allow") || (type && (type[1] || !strchr("abc", *type))) || (access && strspn(access, "rwm") != strlen(access)))
            oci_refuse(l->r, E_INVALID, "%s must have allow; type is a, b or c, access of the letters rwm", where);
        struct device_rule *d = REC_ADD(&l->b->device_rules);
        d->allow = oci_flag(l->r, v, where, "allow");
        d->type = type ? (uint64_t)*type : 'a';
        d->major = d->type == 'a' ? -1 : major; /* "a" is everything, whatever else is said (cgroup-v1/devices.rst) */
        d->minor = d->type == 'a' ? -1 : minor;
        d->access = 0;
        for (const char *p = access && d->type != 'a' ? access : "rwm"; *p; p++)
            d->access |= *p == 'r' ? DEVICE_READ : *p == 'w' ? DEVICE_WRITE : DEVICE_MAKE;
    }
}

void oci_limits_read(struct oci_reader *r, const struct val *spec, struct oci_bundle *b)
{
    static const char where[] = "linux.resources.";
    struct limits l = { r, b };
    char a[64], m[64];
    int64_t n;
    const struct val *v = oci_member(r, spec, "linux.", "resources", V_MAP);
    memory(&l, oci_member(r, v, where, "memory", V_MAP));
    cpu(&l, oci_member(r, v, where, "cpu", V_MAP));
    if (oci_number(r, oci_member(r, v, where, "pids", V_MAP), "linux.resources.pids.", "limit", -1, INT64_MAX, &n) && n)
        add(&l, "pids.limit", "pids", "pids.max", number_or_max(a, n), "pids.max", number_or_max(m, n));
    block_io(&l, oci_member(r, v, where, "blockIO", V_MAP));
    huge_pages(&l, oci_member(r, v, where, "hugepageLimits", V_LIST));
    network(&l, oci_member(r, v, where, "network", V_MAP));
    rdma(&l, oci_member(r, v, where, "rdma", V_MAP));
    unified(&l, oci_member(r, v, where, "unified", V_MAP));
    devices(&l, oci_member(r, v, where, "devices", V_LIST));
}
