/* A container that exists is paused, renamed, given other limits, noted, looked at. */
#include "box_internal.h"
#include <shoal/base/file.h>
#include <shoal/base/log.h>

LOG_MODULE("runtime");

enum { NOTES_MAX_BYTES = 4096 };

void runtime_pause(struct runtime *rt, const char *id, bool pause, runtime_done_fn *done, void *arg)
{
    struct err e;
    struct box *b = box_or_fail(rt, id, done, arg);
    if (!b)
        return;
    if (!container_is_up(&b->c)) {
        err_set(&e, E_CONFLICT, "Container %.12s is not running", id);
        done(arg, -E_CONFLICT, &e);
        return;
    }
    struct request *q = box_ask(b, SHIM_FREEZE, pause, NULL, 0, NULL);
    q->done = done;
    q->arg = arg;
}

static struct box *find_or_say(struct runtime *rt, const char *id, struct err *e)
{
    struct box *b = box_find(rt, id);
    if (b && !b->dying)
        return b;
    err_set(e, E_NOT_FOUND, "no such container: %.64s", id);
    return NULL;
}

int runtime_name_free(const struct runtime *rt, const char *name, struct err *e)
{
    for (struct map_item *it = NULL; (it = map_next(&rt->boxes, it));) {
        const struct box *other = it->value;
        if (str_equal(other->c.spec.name, name) && !other->dying)
            return err_set(e, E_CONFLICT, "the container name \"%s\" is used by container %.12s; remove or rename that one", name,
                           other->c.spec.id);
    }
    return 0;
}

int runtime_rename(struct runtime *rt, const char *id, const char *name, struct err *e)
{
    struct box *b = find_or_say(rt, id, e);
    int r = b ? runtime_name_free(rt, name, e) : -e->code;
    if (r < 0)
        return r;
    char *was = b->c.spec.name;
    b->c.spec.name = xstrdup(name);
    r = box_save_spec(b, e);
    if (r < 0) {
        free(b->c.spec.name);
        b->c.spec.name = was;
        return r;
    }
    free(was);
    return 0;
}

int runtime_update(struct runtime *rt, const struct container_spec *spec, struct err *e)
{
    struct box *b = find_or_say(rt, spec->id, e);
    if (!b)
        return -e->code;
    bool up = container_is_up(&b->c) || b->c.state.phase == CONTAINER_CREATED || b->restarted; /* it has a group */
    struct container_spec was = b->c.spec;
    int r = rec_check(&container_spec_rec, spec, e);
    if (r == 0 && up)
        r = cgroup_update(rt->cgroup, &was, spec, e);
    if (r < 0)
        return r;
    b->c.spec = (struct container_spec){ 0 };
    container_spec_copy(&b->c.spec, spec);
    r = box_save_spec(b, e);
    if (r < 0) {
        container_spec_clear(&b->c.spec);
        b->c.spec = was;
        if (up && cgroup_update(rt->cgroup, spec, &was, NULL) < 0)
            log_warn("container %.12s keeps limits that could not be written down", spec->id);
        return r;
    }
    container_spec_clear(&was);
    return 0;
}

/* ---- notes ---- */
int runtime_set_notes(struct runtime *rt, const char *id, const struct container_notes *n, struct err *e)
{
    struct sb p;
    struct box *b = find_or_say(rt, id, e);
    if (!b)
        return -e->code;
    if (container_notes_equal(n, &b->c.notes))
        return 0;
    AUTO_FREE char *path = box_path(b, "notes.mp");
    sb_init(&p, NOTES_MAX_BYTES);
    rec_pack(&container_notes_rec, n, &p);
    int r = file_write_volatile(path, p.s, p.len, 0640, e);
    sb_done(&p);
    if (r == 0)
        container_notes_copy(&b->c.notes, n);
    return r;
}

void box_load_notes(struct box *b)
{
    size_t n;
    AUTO_FREE char *text = NULL;
    AUTO_FREE char *path = box_path(b, "notes.mp");
    if (file_read(path, NOTES_MAX_BYTES, &text, &n, NULL) < 0)
        return;
    if (rec_unpack(&container_notes_rec, &b->c.notes, text, n, NULL) < 0)
        container_notes_clear(&b->c.notes);
}

/* ---- what it uses ---- */
int runtime_stats(struct runtime *rt, const char *id, struct container_stats *ret, struct err *e)
{
    struct box *b = find_or_say(rt, id, e);
    if (!b)
        return -e->code;
    int r = cgroup_stats(rt->cgroup, b->c.spec.id, ret, e);
    if (r == 0 && container_is_up(&b->c) && process_start_id((pid_t)b->c.state.pid) == b->c.state.start_id)
        net_stats((pid_t)b->c.state.pid, ret);
    return r;
}

int64_t *runtime_pids(struct runtime *rt, const char *id, size_t *ret_n)
{
    return cgroup_pids(rt->cgroup, id, NULL, ret_n);
}
