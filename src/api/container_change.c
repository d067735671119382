/* A container that exists is paused, renamed, given other limits. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

static void pause_or_not(struct call *c, bool pause)
{
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    if (pause && x->state.phase == CONTAINER_PAUSED)
        reply_error(c, E_CONFLICT, "Container %s is already paused", x->spec.id);
    else if (!pause && x->state.phase == CONTAINER_RUNNING)
        reply_error(c, E_CONFLICT, "Container %s is not paused", x->spec.id);
    else
        runtime_pause(c->api->b.runtime, x->spec.id, pause, done_no_content, c);
}

void container_pause(struct call *c)
{
    pause_or_not(c, true);
}

void container_unpause(struct call *c)
{
    pause_or_not(c, false);
}

void container_rename(struct call *c)
{
    struct err e;
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    const char *name = query(c, "name");
    name = name && *name == '/' ? name + 1 : name;
    if (!name || !*name || check_name(name)) {
        reply_error(c, E_INVALID, "name \"%s\": %s", name ? name : "", name && *name ? check_name(name) : "a new name is needed");
        return;
    }
    if (container_is_task(x)) {
        reply_error(c, E_CONFLICT, "container %.12s belongs to a service's task; its name is the task's", x->spec.id);
        return;
    }
    if (str_equal(name, x->spec.name)) {
        reply_error(c, E_INVALID, "Renaming a container with the same name as its current name");
        return;
    }
    AUTO_FREE char *was = xasprintf("/%s", x->spec.name ? x->spec.name : "");
    if (runtime_rename(c->api->b.runtime, x->spec.id, name, &e) < 0) {
        reply_err(c, &e);
        return;
    }
    container_event(c->api, x, "rename", "oldName", was);
    reply_empty(c, 204);
}

/* ---- update ---- */
/* NanoCpus, or a quota in a period. */
static int apply_cpus(struct container_spec *s, struct val_doc *d, struct val *host, const struct val *body, struct err *e)
{
    int64_t nano = val_get_int(body, "NanoCpus", 0), quota = val_get_int(body, "CpuQuota", 0), period = val_get_int(body, "CpuPeriod", 0);
    if (nano && (quota || period))
        return err_set(e, E_INVALID, "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set");
    if (quota < 0 || period < 0 || nano < 0 || quota > INT64_C(1000000000) || period > 1000000 || (period && period < 1000))
        return err_set(e, E_INVALID, "CPU limit: it must not be negative, and the period must be from 1000 to 1000000 microseconds");
    if (period && !quota)
        return err_set(e, E_INVALID, "CpuPeriod: it needs a CpuQuota, too");
    if (!nano && !quota)
        return 0;
    s->nano_cpus = quota ? quota * SEC_NS / (period ? period : 100000) : nano;
    s->cpu_period_us = (uint64_t)period;
    val_set(d, host, "NanoCpus", val_int(d, s->nano_cpus));
    val_set(d, host, "CpuPeriod", val_int(d, period));
    return 0;
}

static int apply(struct container_spec *s, struct val_doc *d, struct val *host, const struct val *body, struct err *e)
{
    const struct val *policy = val_get(body, "RestartPolicy");
    const char *name = val_get_str(policy, "Name");
    int64_t memory = val_get_int(body, "Memory", 0), pids = val_get_int(body, "PidsLimit", 0);
    int r = apply_cpus(s, d, host, body, e);
    if (r < 0)
        return r;
    if (memory && memory < 6 << 20)
        return err_set(e, E_INVALID, "Minimum memory limit allowed is 6MB");
    if (memory) {
        s->memory_bytes = memory;
        val_set(d, host, "Memory", val_int(d, memory));
        if (val_get_int(host, "MemorySwap", 0))
            val_set(d, host, "MemorySwap", val_int(d, memory));
    }
    if ((r = container_check_swap(body, s->memory_bytes, e)) < 0)
        return r;
    if (pids) {
        s->pids_limit = MAX(pids, 0);
        val_set(d, host, "PidsLimit", val_int(d, MAX(pids, 0)));
    }
    if (!name || !*name)
        return 0;
    r = restart_policy_check(policy, e);
    if (r == 0 && val_get_bool(host, "AutoRemove", false) && !str_equal(name, "no"))
        r = err_set(e, E_INVALID, "Restart policy cannot be updated because AutoRemove is enabled for the container");
    if (r == 0)
        val_set(d, host, "RestartPolicy", val_copy(d, policy));
    return r;
}

static void update_body(struct call *c, const struct val *body, const char *text, size_t size)
{
    struct err e = { 0 };
    struct container_spec s = { 0 };
    const struct container *x = container_of_call(c);
    (void)text, (void)size;
    if (!x)
        return;
    if (container_is_task(x)) {
        reply_error(c, E_CONFLICT, "container %.12s belongs to a service's task; update the service instead", x->spec.id);
        return;
    }
    struct val_doc *d = container_asked(x);
    struct val *host = d ? val_get(val_root(d), "HostConfig") : NULL;
    if (!d) {
        d = val_doc_new();
        val_set_root(d, val_map(d));
    }
    if (!host || host->kind != V_MAP)
        val_set(d, val_root(d), "HostConfig", host = val_map(d));
    container_spec_copy(&s, &x->spec);
    int r = container_check_update(body, &e);
    if (r == 0)
        r = apply(&s, d, host, body, &e);
    if (r == 0) {
        AUTO_SB struct sb b;
        sb_init(&b, BODY_MAX_BYTES);
        json_write(&b, val_root(d), 0);
        str_set(&s.asked, b.s);
        r = b.overflow ? err_set(&e, E_TOO_BIG, "what the container was made with is larger than %d bytes", BODY_MAX_BYTES)
                       : runtime_update(c->api->b.runtime, &s, &e);
    }
    container_spec_clear(&s);
    val_doc_free(d);
    if (r < 0) {
        reply_err(c, &e);
        return;
    }
    container_event(c->api, x, "update", NULL, NULL);
    reply_json(c, 200, "{\"Warnings\":null}\n");
}

void container_update(struct call *c)
{
    with_body(c, update_body);
}
