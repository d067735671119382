/* GET /containers/x/stats: what a container uses, once or every second. Clients take the difference of two samples, so
 * each carries the one before. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

enum { EVERY_MS = 1000 };

struct sample { int64_t read_ns, system_ns; struct container_stats s; bool up; };
struct meter {
    struct call *c;
    char *id;
    struct loop_timer *timer;
    struct sample now, before;
    bool stream, head_sent;
};

static void meter_free(struct meter *m)
{
    m->c->state = NULL;
    m->c->gone = NULL;
    loop_timer_free(m->timer);
    free(m->id);
    free(m);
}

static void meter_gone(struct call *c)
{
    meter_free(c->state);
    call_free(c);
}

static struct val *cpu_val(struct val_doc *d, const struct sample *x, const struct machine_facts *m)
{
    struct val *v = val_map(d), *usage = val_map(d), *throttling = val_map(d);
    const struct container_stats *s = &x->s;
    val_set(d, usage, "total_usage", val_int(d, MAX(s->cpu_ns, 0)));
    val_set(d, usage, "usage_in_kernelmode", val_int(d, MAX(s->cpu_kernel_ns, 0)));
    val_set(d, usage, "usage_in_usermode", val_int(d, MAX(s->cpu_user_ns, 0)));
    val_set(d, v, "cpu_usage", usage);
    if (x->up) {
        val_set(d, v, "system_cpu_usage", val_int(d, x->system_ns));
        val_set(d, v, "online_cpus", val_int(d, m->cpus));
    }
    val_set(d, throttling, "periods", val_int(d, MAX(s->n_periods, 0)));
    val_set(d, throttling, "throttled_periods", val_int(d, MAX(s->n_throttled, 0)));
    val_set(d, throttling, "throttled_time", val_int(d, MAX(s->throttled_ns, 0)));
    val_set(d, v, "throttling_data", throttling);
    return v;
}

static struct val *memory_val(struct val_doc *d, const struct sample *x, const struct machine_facts *m)
{
    struct val *v = val_map(d), *all = val_map(d);
    const struct container_stats *s = &x->s;
    if (!x->up)
        return v;
    for (const char *p = s->memory; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        size_t n = strcspn(p, " ");
        AUTO_FREE char *name = xstrndup(p, n);
        if (p[n] == ' ')
            val_set(d, all, name, val_int(d, strtoll(p + n + 1, NULL, 10)));
    }
    val_set(d, v, "usage", val_int(d, MAX(s->memory_bytes, 0)));
    if (s->memory_peak_bytes >= 0)
        val_set(d, v, "max_usage", val_int(d, s->memory_peak_bytes));
    val_set(d, v, "stats", all);
    val_set(d, v, "limit", val_int(d, s->memory_limit > 0 && s->memory_limit < m->memory_bytes ? s->memory_limit : m->memory_bytes));
    return v;
}

static struct val *io_val(struct val_doc *d, const struct container_stats *s)
{
    struct val *v = val_map(d), *list = val_list(d);
    for (unsigned i = 0; i < s->n_ios; i++) {
        struct val *one = val_map(d);
        val_set(d, one, "major", val_int(d, s->ios[i].major));
        val_set(d, one, "minor", val_int(d, s->ios[i].minor));
        val_set(d, one, "op", val_str(d, s->ios[i].op));
        val_set(d, one, "value", val_int(d, s->ios[i].bytes));
        val_push(d, list, one);
    }
    val_set(d, v, "io_service_bytes_recursive", list->n ? list : val_null(d));
    static const char *const none[] = { "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
                                        "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive" };
    for (unsigned i = 0; i < ARRAY_N(none); i++)
        val_set(d, v, none[i], val_null(d));
    return v;
}

static struct val *nets_val(struct val_doc *d, const struct container_stats *s)
{
    struct val *m = val_map(d);
    for (unsigned i = 0; i < s->n_nets; i++) {
        const struct container_net *n = &s->nets[i];
        const struct { const char *name; int64_t value; } rows[] = {
            { "rx_bytes", n->rx_bytes }, { "rx_packets", n->rx_packets }, { "rx_errors", n->rx_errors }, { "rx_dropped", n->rx_dropped },
            { "tx_bytes", n->tx_bytes }, { "tx_packets", n->tx_packets }, { "tx_errors", n->tx_errors }, { "tx_dropped", n->tx_dropped },
        };
        struct val *v = val_map(d);
        for (unsigned k = 0; k < ARRAY_N(rows); k++)
            val_set(d, v, rows[k].name, val_int(d, rows[k].value));
        val_set(d, m, n->name, v);
    }
    return m;
}

static void take(struct meter *m, const struct container *x)
{
    m->before = m->now;
    m->now = (struct sample){ .read_ns = clock_real_ns(), .system_ns = machine_cpu_ns() };
    m->now.up = x && container_is_up(x) && runtime_stats(m->c->api->b.runtime, x->spec.id, &m->now.s, NULL) == 0;
    if (!m->now.up)
        m->now = (struct sample){ 0 };
}

static void tell(struct meter *m, const struct container *x)
{
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *pids = val_map(d);
    struct machine_facts facts;
    struct sb b;
    const struct container_stats *s = &m->now.s;
    AUTO_FREE char *name = xasprintf("/%s", x->spec.name ? x->spec.name : "");
    machine_facts(&facts);
    val_set(d, v, "read", time_val(d, m->now.read_ns));
    val_set(d, v, "preread", time_val(d, m->before.read_ns));
    if (m->now.up) {
        val_set(d, pids, "current", val_int(d, MAX(s->n_pids, 0)));
        if (s->pids_limit > 0)
            val_set(d, pids, "limit", val_int(d, s->pids_limit));
    }
    val_set(d, v, "pids_stats", pids);
    val_set(d, v, "blkio_stats", io_val(d, s));
    val_set(d, v, "num_procs", val_int(d, 0));
    val_set(d, v, "storage_stats", val_map(d));
    val_set(d, v, "cpu_stats", cpu_val(d, &m->now, &facts));
    val_set(d, v, "precpu_stats", cpu_val(d, &m->before, &facts));
    val_set(d, v, "memory_stats", memory_val(d, &m->now, &facts));
    val_set(d, v, "name", val_str(d, name));
    val_set(d, v, "id", val_str(d, x->spec.id));
    if (s->n_nets)
        val_set(d, v, "networks", nets_val(d, s));
    sb_init(&b, 0);
    json_write(&b, v, 0);
    sb_char(&b, '\n');
    stream_put(m->c, b.s, b.len);
    sb_done(&b);
    val_doc_free(d);
}

static void over(struct meter *m)
{
    struct call *c = m->c;
    meter_free(m);
    stream_done(c);
}

static void on_tick(void *arg)
{
    struct meter *m = arg;
    const struct container *x = runtime_find(m->c->api->b.runtime, m->id);
    if (!x) {
        over(m);
        return;
    }
    take(m, x);
    tell(m, x);
    if (m->stream)
        loop_timer_set(m->timer, EVERY_MS);
    else
        over(m);
}

void container_stats(struct call *c)
{
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    const char *stream = query(c, "stream");
    struct meter *m = xnew(struct meter);
    m->c = c;
    m->id = xstrdup(x->spec.id);
    m->stream = !stream || !*stream || query_flag(c, "stream");
    m->timer = loop_timer_new(c->api->b.loop, on_tick, m);
    c->state = m;
    c->gone = meter_gone;
    stream_begin(c, "application/json");
    take(m, x);
    if (m->stream || query_flag(c, "one-shot") || !m->now.up)
        tell(m, x);
    if (m->stream || (m->now.up && !query_flag(c, "one-shot")))
        loop_timer_set(m->timer, EVERY_MS);
    else
        over(m);
}
