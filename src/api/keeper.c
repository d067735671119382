/* What the node does by itself for containers that no service looks after: restarts by their policy (no, always,
 * unless-stopped, on-failure[:n]; 100 ms, then twice as long each time up to a minute, from the start again after ten
 * good seconds), healthchecks, removal after the end. What must outlive the daemon is in the container's notes. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>

LOG_MODULE("api");

enum { FIRST_DELAY_MS = 100, LAST_DELAY_MS = 60000, GOOD_LIFE_MS = 10000, PROBES_KEPT = 5, PROBE_TEXT_BYTES = 4096 };

struct probe { int64_t start_ns, end_ns; int exit_code; char *output; };
struct keep {
    struct api *api;
    char *id;
    struct loop_timer *timer; /* until the next start */
    bool waits, starts; /* starts: by its policy, just now */
    bool with_volumes;        /* those without a name go with it */
    int64_t delay_ms, started_ms;
    struct health *health;
    const char *status;       /* of its health */
    int streak;
    struct probe probes[PROBES_KEPT];
    unsigned n_probes;
};

static void start_again(void *arg);

static struct keep *keep_of(const struct api *a, const char *id)
{
    return map_find(&a->keeps, id);
}

static void stop_health(struct keep *k)
{
    health_free(k->health);
    k->health = NULL;
}

static void keep_free(struct keep *k)
{
    stop_health(k);
    for (unsigned i = 0; i < k->n_probes; i++)
        free(k->probes[i].output);
    loop_timer_free(k->timer);
    free(k->id);
    free(k);
}

static struct keep *keep_new(struct api *a, const char *id)
{
    struct keep *k = keep_of(a, id);
    if (k)
        return k;
    k = xnew(struct keep);
    k->api = a;
    k->id = xstrdup(id);
    k->timer = loop_timer_new(a->b.loop, start_again, k);
    k->status = "none";
    map_put(&a->keeps, id, k);
    return k;
}

/* ---- policy ---- */
int restart_policy_check(const struct val *policy, struct err *e)
{
    static const char *const names[] = { "", "no", "always", "unless-stopped", "on-failure" };
    const char *name = val_get_str(policy, "Name");
    int64_t most = val_get_int(policy, "MaximumRetryCount", 0);
    unsigned i = 0;
    while (name && i < ARRAY_N(names) && !str_equal(names[i], name))
        i++;
    if (i == ARRAY_N(names))
        return err_set(e, E_INVALID, "invalid restart policy '%s': it must be no, always, unless-stopped or on-failure[:N]", name);
    if (most < 0 || most > INT32_MAX || (most && !str_equal(name, "on-failure")))
        return err_set(e, E_INVALID, "invalid restart policy: a maximum retry count is for on-failure only, and not negative");
    return 0;
}

static bool wants_restart(const struct container *x, bool daemon_starts)
{
    struct val_doc *d = container_asked(x);
    const struct val *policy = d ? val_get(val_get(val_root(d), "HostConfig"), "RestartPolicy") : NULL;
    const char *name = val_get_str(policy, "Name");
    int64_t most = val_get_int(policy, "MaximumRetryCount", 0);
    bool yes = false;
    if (str_equal(name, "always"))
        yes = daemon_starts || !x->notes.stopped;
    else if (str_equal(name, "unless-stopped"))
        yes = !x->notes.stopped;
    else if (str_equal(name, "on-failure"))
        yes = !x->notes.stopped && x->state.exit_code != 0 && (most == 0 || (int64_t)x->notes.restarts < most);
    val_doc_free(d);
    return yes;
}

static void note(struct api *a, const struct container *x, uint64_t restarts, bool stopped)
{
    struct err e;
    struct container_notes n = { .restarts = restarts, .stopped = stopped };
    if (runtime_set_notes(a->b.runtime, x->spec.id, &n, &e) < 0)
        log_warn("container %.12s: %s", x->spec.id, e.text);
}

static void plan_restart(struct keep *k, const struct container *x)
{
    bool good = k->started_ms && loop_now_ms(k->api->b.loop) - k->started_ms >= GOOD_LIFE_MS;
    k->delay_ms = good || !k->delay_ms ? FIRST_DELAY_MS : MIN(k->delay_ms * 2, LAST_DELAY_MS);
    k->started_ms = 0;
    k->waits = true;
    note(k->api, x, x->notes.restarts + 1, false);
    loop_timer_set(k->timer, k->delay_ms);
}

void keeper_rest(struct api *a, const struct container *x)
{
    if (!container_is_up(x) && !runtime_is_starting(a->b.runtime, x->spec.id))
        overlay_sandbox_rest(a->b.overlay(a->b.arg), x->spec.id);
}

static void restarted(void *arg, int result, const struct err *e)
{
    struct keep *k = arg;
    const struct container *x = runtime_find(k->api->b.runtime, k->id);
    k->starts = false;
    if (result == 0 || !x)
        return;
    log_warn("container %.12s could not be started again: %s", k->id, e->text);
    keeper_rest(k->api, x);
    if (x->state.phase != CONTAINER_EXITED || k->waits) /* else its end has planned the next */
        return;
    if (result == -E_BUSY) /* such as a copy that lasts having its files: none of its runs failed, for this was none */
        note(k->api, x, x->notes.restarts ? x->notes.restarts - 1 : 0, x->notes.stopped);
    if (wants_restart(x, false))
        plan_restart(k, x);
    else
        container_wait_over(k->api, x);
}

static void start_again(void *arg)
{
    struct err e;
    struct keep *k = arg;
    const struct container *x = runtime_find(k->api->b.runtime, k->id);
    k->waits = false;
    if (!x || x->state.phase != CONTAINER_EXITED)
        return;
    k->starts = true;
    if (container_network_again(k->api, x, &e) < 0)
        restarted(k, -e.code, &e);
    else
        runtime_start(k->api->b.runtime, k->id, restarted, k);
}

bool keeper_waits(const struct api *a, const char *id)
{
    const struct keep *k = keep_of(a, id);
    return k && k->waits;
}

bool keeper_restarts(const struct api *a, const struct container *x)
{
    const struct keep *k = keep_of(a, x->spec.id);
    return k && (k->waits || (k->starts && x->state.phase == CONTAINER_EXITED));
}

void keeper_by_hand(struct api *a, const struct container *x, bool stopped)
{
    struct keep *k = keep_of(a, x->spec.id);
    if (container_is_task(x))
        return;
    note(a, x, stopped ? x->notes.restarts : 0, stopped);
    if (!k)
        return;
    bool waited = k->waits;
    k->waits = false;
    k->delay_ms = 0;
    loop_timer_set(k->timer, -1);
    if (waited && stopped) /* it will not run and end again, which is what they wait for */
        container_wait_over(a, x);
}

void keeper_with_volumes(struct api *a, const struct container *x)
{
    keep_new(a, x->spec.id)->with_volumes = true;
}

/* ---- health ---- */
static void on_probe(void *arg, const struct health_probe *p)
{
    struct keep *k = arg;
    const struct container *x = runtime_find(k->api->b.runtime, k->id);
    if (k->n_probes == PROBES_KEPT) {
        free(k->probes[0].output);
        memmove(k->probes, k->probes + 1, sizeof k->probes[0] * (PROBES_KEPT - 1));
        k->n_probes--;
    }
    k->probes[k->n_probes++] = (struct probe){ p->start_ns, p->end_ns, p->exit_code, xstrndup(p->output, MIN(strlen(p->output), PROBE_TEXT_BYTES)) };
    k->streak = p->failures;
    const char *status = p->healthy ? "healthy" : p->unhealthy ? "unhealthy" : k->status;
    if (str_equal(status, k->status) || !x)
        return;
    k->status = status;
    AUTO_FREE char *action = xasprintf("health_status: %s", status);
    container_event(k->api, x, action, NULL, NULL);
}

static void on_health(void *arg, bool healthy, const char *output)
{
    (void)arg, (void)healthy, (void)output; /* each probe is told of */
}

static void start_health(struct keep *k, const struct container *x)
{
    static const struct image_config none;
    struct healthcheck own = { 0 };
    struct val_doc *d = container_asked(x);
    const struct val *asked = d ? val_get(val_root(d), "Healthcheck") : NULL;
    const struct image *image = x->spec.image_id ? image_find(k->api->b.images, x->spec.image_id) : NULL;
    struct err e;
    stop_health(k);
    for (unsigned i = 0; i < k->n_probes; i++)
        free(k->probes[i].output);
    k->n_probes = 0;
    k->streak = 0;
    if (asked && asked->kind == V_MAP && rec_from_val(&healthcheck_rec, &own, asked, "Healthcheck", &e) < 0)
        log_warn("container %.12s: %s", k->id, e.text); /* was checked when it was made */
    k->health = health_new(k->api->b.loop, k->api->b.runtime, k->id, &own, image ? &image->config : &none, on_health, k);
    k->status = k->health ? "starting" : "none";
    if (k->health)
        health_watch(k->health, on_probe);
    healthcheck_clear(&own);
    val_doc_free(d);
}

const char *keeper_health(const struct api *a, const char *id)
{
    const struct keep *k = keep_of(a, id);
    return k ? k->status : "none";
}

struct val *keeper_health_val(const struct api *a, const char *id, struct val_doc *d)
{
    const struct keep *k = keep_of(a, id);
    if (!k || str_equal(k->status, "none"))
        return NULL;
    struct val *v = val_map(d), *log = val_list(d);
    for (unsigned i = 0; i < k->n_probes; i++) {
        const struct probe *p = &k->probes[i];
        struct val *one = val_map(d);
        val_set(d, one, "Start", time_val(d, p->start_ns));
        val_set(d, one, "End", time_val(d, p->end_ns));
        val_set(d, one, "ExitCode", val_int(d, p->exit_code));
        val_set(d, one, "Output", val_str(d, p->output));
        val_push(d, log, one);
    }
    val_set(d, v, "Status", val_str(d, k->status));
    val_set(d, v, "FailingStreak", val_int(d, k->streak));
    val_set(d, v, "Log", log);
    return v;
}

/* ---- what happens to them ---- */
static void auto_removed(void *arg, int result, const struct err *e)
{
    (void)arg;
    if (result < 0 && result != -E_NOT_FOUND)
        log_warn("%s", e->text);
}

static bool auto_remove(struct api *a, const struct container *x)
{
    struct val_doc *d = container_asked(x);
    bool yes = d && val_get_bool(val_get(val_root(d), "HostConfig"), "AutoRemove", false);
    val_doc_free(d);
    if (!yes)
        return false;
    AUTO_FREE char *id = xstrdup(x->spec.id);
    keeper_with_volumes(a, x);
    overlay_sandbox_remove(a->b.overlay(a->b.arg), id);
    runtime_delete(a->b.runtime, id, auto_removed, NULL);
    return true;
}

static void ended(struct keep *k, const struct container *x)
{
    overlay_sandbox_rest(k->api->b.overlay(k->api->b.arg), x->spec.id);
    stop_health(k);
    if (!str_equal(k->status, "none"))
        k->status = "unhealthy";
    if (auto_remove(k->api, x))
        return;
    if (x->before != CONTAINER_CREATED && wants_restart(x, false)) /* one that never started is a person's mistake */
        plan_restart(k, x);
}

void keeper_event(struct api *a, const struct container *x)
{
    if (container_is_task(x))
        return;
    if (x->gone) {
        struct keep *k = map_remove(&a->keeps, x->spec.id);
        if (k && k->with_volumes)
            api_volumes_of_container_remove(a, x);
        if (k)
            keep_free(k);
    } else if (x->state.phase == CONTAINER_RUNNING && x->before != CONTAINER_PAUSED && x->before != CONTAINER_RUNNING) {
        struct keep *k = keep_new(a, x->spec.id);
        k->started_ms = loop_now_ms(a->b.loop);
        start_health(k, x);
        struct err e; /* again, if the end before this start was told after it was asked for */
        if (overlay_sandbox(a->b.overlay(a->b.arg), x->spec.id) &&
            overlay_sandbox_wake(a->b.overlay(a->b.arg), x->spec.id, &e) < 0)
            log_warn("container %.12s: %s", x->spec.id, e.text);
    } else if (x->state.phase == CONTAINER_EXITED && x->before != CONTAINER_EXITED) {
        ended(keep_new(a, x->spec.id), x);
    }
}

void keeper_open(struct api *a)
{
    struct strs ids = { 0 };
    for (const struct container *x = NULL; (x = runtime_next(a->b.runtime, x));)
        if (!container_is_task(x))
            strs_add(&ids, x->spec.id);
    for (uint32_t i = 0; i < ids.n; i++) {
        const struct container *x = runtime_find(a->b.runtime, ids.v[i]);
        if (!x || x->state.phase == CONTAINER_CREATED)
            continue;
        struct keep *k = keep_new(a, x->spec.id);
        if (container_is_up(x)) {
            k->started_ms = loop_now_ms(a->b.loop);
            start_health(k, x);
        } else {
            keeper_rest(a, x);
            if (!auto_remove(a, x) && wants_restart(x, true))
                plan_restart(k, x);
        }
    }
    strs_clear(&ids);
}

void keeper_free(struct api *a)
{
    for (struct map_item *it = NULL; (it = map_next(&a->keeps, it));)
        keep_free(it->value);
    map_done(&a->keeps);
}
