/* What a container has used, as its control groups and its network namespace count it. Docs: cgroup-v2.rst,
 * cgroup-v1/{memory,cpuacct,blkio-controller}.rst, proc_pid_net_dev(5). */
#include "runtime_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

enum { TICKS_A_SECOND = 100 }; /* USER_HZ, the same on every machine */

static void copy_text(char *out, size_t size, char *text)
{
    snprintf(out, size, "%s", text ? text : "");
    free(text);
    size_t n = strlen(out);
    while (n > 0 && n == size - 1 && out[n - 1] != '\n') /* no half line */
        out[--n] = '\0';
}

static void add_io(struct container_stats *s, unsigned major, unsigned minor, const char *op, int64_t bytes)
{
    if (s->n_ios == STATS_IOS_MAX)
        return;
    struct container_io *x = &s->ios[s->n_ios++];
    *x = (struct container_io){ .major = major, .minor = minor, .bytes = bytes };
    snprintf(x->op, sizeof x->op, "%s", op);
}

/* "8:0 rbytes=1 wbytes=2 ..." */
static void io_v2(struct container_stats *s, const char *text)
{
    unsigned major, minor;
    for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        long long r, w;
        const char *rb = strstr(p, "rbytes="), *wb = strstr(p, "wbytes="), *end = strchr(p, '\n');
        if (sscanf(p, "%u:%u", &major, &minor) != 2 || !rb || !wb || (end && (rb > end || wb > end)))
            continue;
        r = strtoll(rb + 7, NULL, 10);
        w = strtoll(wb + 7, NULL, 10);
        add_io(s, major, minor, "read", r);
        add_io(s, major, minor, "write", w);
    }
}

/* "8:0 Read 1", "8:0 Write 2", ..., "Total 3" */
static void io_v1(struct container_stats *s, const char *text)
{
    char op[12];
    unsigned major, minor;
    long long bytes;
    for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (sscanf(p, "%u:%u %11s %lld", &major, &minor, op, &bytes) == 4)
            add_io(s, major, minor, op, bytes);
}

static void stats_v2(const char *parent, const char *id, struct container_stats *s)
{
    AUTO_FREE char *io = cgroup_text(NULL, parent, id, "io.stat");
    s->memory_bytes = cgroup_number(NULL, parent, id, "memory.current", NULL);
    s->memory_peak_bytes = cgroup_number(NULL, parent, id, "memory.peak", NULL);
    s->memory_limit = cgroup_number(NULL, parent, id, "memory.max", NULL);
    s->cpu_ns = cgroup_number(NULL, parent, id, "cpu.stat", "usage_usec") * 1000;
    s->cpu_user_ns = cgroup_number(NULL, parent, id, "cpu.stat", "user_usec") * 1000;
    s->cpu_kernel_ns = cgroup_number(NULL, parent, id, "cpu.stat", "system_usec") * 1000;
    s->n_periods = cgroup_number(NULL, parent, id, "cpu.stat", "nr_periods");
    s->n_throttled = cgroup_number(NULL, parent, id, "cpu.stat", "nr_throttled");
    s->throttled_ns = cgroup_number(NULL, parent, id, "cpu.stat", "throttled_usec") * 1000;
    s->n_pids = cgroup_number(NULL, parent, id, "pids.current", NULL);
    s->pids_limit = cgroup_number(NULL, parent, id, "pids.max", NULL);
    copy_text(s->memory, sizeof s->memory, cgroup_text(NULL, parent, id, "memory.stat"));
    io_v2(s, io);
}

static void stats_v1(const char *parent, const char *id, struct container_stats *s)
{
    AUTO_FREE char *io = cgroup_text("blkio", parent, id, "blkio.throttle.io_service_bytes_recursive");
    s->memory_bytes = cgroup_number("memory", parent, id, "memory.usage_in_bytes", NULL);
    s->memory_peak_bytes = cgroup_number("memory", parent, id, "memory.max_usage_in_bytes", NULL);
    s->memory_limit = cgroup_number("memory", parent, id, "memory.limit_in_bytes", NULL);
    s->cpu_ns = cgroup_number("cpuacct", parent, id, "cpuacct.usage", NULL);
    s->cpu_user_ns = cgroup_number("cpuacct", parent, id, "cpuacct.stat", "user") * (SEC_NS / TICKS_A_SECOND);
    s->cpu_kernel_ns = cgroup_number("cpuacct", parent, id, "cpuacct.stat", "system") * (SEC_NS / TICKS_A_SECOND);
    s->n_periods = cgroup_number("cpu", parent, id, "cpu.stat", "nr_periods");
    s->n_throttled = cgroup_number("cpu", parent, id, "cpu.stat", "nr_throttled");
    s->throttled_ns = cgroup_number("cpu", parent, id, "cpu.stat", "throttled_time");
    s->n_pids = cgroup_number("pids", parent, id, "pids.current", NULL);
    s->pids_limit = cgroup_number("pids", parent, id, "pids.max", NULL);
    copy_text(s->memory, sizeof s->memory, cgroup_text("memory", parent, id, "memory.stat"));
    io_v1(s, io);
}

int cgroup_stats(const char *parent, const char *id, struct container_stats *ret, struct err *e)
{
    *ret = (struct container_stats){ 0 };
    if (cgroup_is_v2())
        stats_v2(parent, id, ret);
    else
        stats_v1(parent, id, ret);
    if (ret->memory_bytes < 0 && ret->cpu_ns < 0)
        return err_set(e, E_NOT_FOUND, "the container has no control group any more");
    if (ret->memory_limit >= INT64_C(1) << 62) /* v1's word for none */
        ret->memory_limit = -1;
    return 0;
}

void net_stats(pid_t pid, struct container_stats *ret)
{
    char path[64];
    AUTO_FREE char *text = NULL;
    size_t size;
    snprintf(path, sizeof path, "/proc/%d/net/dev", pid);
    if (file_read(path, 65536, &text, &size, NULL) < 0)
        return;
    for (const char *p = text; p && *p && ret->n_nets < STATS_NETS_MAX; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        struct container_net n = { 0 };
        long long v[16];
        int got = sscanf(p, " %15[^: ]: %lld %lld %lld %lld %lld %lld %lld %lld %lld %lld %lld %lld", n.name, &v[0], &v[1],
                         &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8], &v[9], &v[10], &v[11]);
        if (got != 13 || str_equal(n.name, "lo"))
            continue;
        n.rx_bytes = v[0];
        n.rx_packets = v[1];
        n.rx_errors = v[2];
        n.rx_dropped = v[3];
        n.tx_bytes = v[8];
        n.tx_packets = v[9];
        n.tx_errors = v[10];
        n.tx_dropped = v[11];
        ret->nets[ret->n_nets++] = n;
    }
}

/* /proc/PID/stat from the end of the name on, which may hold anything. */
static int process_fields(pid_t pid, char **ret_text, const char **ret, struct err *e)
{
    char path[64];
    size_t size;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int r = file_read(path, 4096, ret_text, &size, e);
    if (r == 0 && !(*ret = strrchr(*ret_text, ')')))
        r = err_set(e, E_NOT_FOUND, "%s is empty", path);
    return r;
}

static uint64_t start_of(const char *fields)
{
    for (int i = 0; fields && i < 20; i++)
        fields = strchr(fields + 1, ' ');
    return fields ? strtoull(fields + 1, NULL, 10) : 0;
}

uint64_t process_start_id(pid_t pid)
{
    AUTO_FREE char *text = NULL;
    const char *p = NULL;
    return process_fields(pid, &text, &p, NULL) < 0 ? 0 : start_of(p);
}

bool process_has_ended(pid_t pid, uint64_t start_id)
{
    AUTO_FREE char *text = NULL;
    const char *p = NULL;
    int r = process_fields(pid, &text, &p, NULL);
    if (r < 0)
        return r == -E_NOT_FOUND; /* what cannot be looked at is not taken for dead: it would be forgotten while it runs */
    return strchr("ZXx", p[1] && p[2] ? p[2] : 'Z') || start_of(p) != start_id;
}
