/* Placeholders in task specifications: {{.Node.Hostname}}, {{.Task.Slot}}..., the ones Docker documents for
 * --env, --hostname and --mount. */
#include "executor_internal.h"
#include <stdio.h>

char *task_container_name(const struct task *t)
{
    return t->slot ? xasprintf("%s.%llu.%s", t->service_name ? t->service_name : "task", (unsigned long long)t->slot, t->id)
                   : xasprintf("%s.%s.%s", t->service_name ? t->service_name : "task", t->node_id, t->id);
}

static char *value_of(const char *key, const struct template_context *c)
{
    const struct task *t = c->task;
    if (str_equal(key, ".Service.ID"))
        return xstrdup(t->service_id ? t->service_id : "");
    if (str_equal(key, ".Service.Name"))
        return xstrdup(t->service_name ? t->service_name : "");
    if (str_equal(key, ".Node.ID"))
        return xstrdup(c->node_id);
    if (str_equal(key, ".Node.Hostname"))
        return xstrdup(c->hostname);
    if (str_equal(key, ".Task.ID"))
        return xstrdup(t->id);
    if (str_equal(key, ".Task.Name"))
        return task_container_name(t);
    if (str_equal(key, ".Task.Slot"))
        return t->slot ? xasprintf("%llu", (unsigned long long)t->slot) : xstrdup(c->node_id);
    if (str_starts(key, ".Service.Labels.")) {
        const char *v = labels_get(&t->labels, key + strlen(".Service.Labels."));
        return xstrdup(v ? v : "");
    }
    return NULL;
}

int template_expand(const char *text, const struct template_context *c, char **ret, struct err *e)
{
    struct sb out;
    sb_init(&out, 1 << 20);
    for (const char *p = text; *p;) {
        const char *open = strstr(p, "{{");
        const char *close = open ? strstr(open, "}}") : NULL;
        if (!close) {
            sb_str(&out, p);
            break;
        }
        sb_add(&out, p, (size_t)(open - p));
        char key[256];
        const char *from = open + 2, *to = close;
        while (from < to && *from == ' ')
            from++;
        while (to > from && to[-1] == ' ')
            to--;
        snprintf(key, sizeof key, "%.*s", (int)(to - from), from);
        AUTO_FREE char *v = value_of(key, c);
        if (!v) {
            sb_done(&out);
            return err_set(e, E_UNSUPPORTED, "placeholder {{%s}} is not known; there are .Service.ID, .Service.Name, "
                           ".Service.Labels.KEY, .Node.ID, .Node.Hostname, .Task.ID, .Task.Name and .Task.Slot", key);
        }
        sb_str(&out, v);
        p = close + 2;
    }
    *ret = sb_take(&out);
    return 0;
}
