/* service create, update, scale, rollback: a spec is read, changed and given back with the version that was
 * seen; when another writer was faster (update out of sequence), it is read and changed again. */
#include "cli.h"
#include <shoal/base/crypto.h>
#include <shoal/http.h>

enum { TRIES = 5 };

int service_get(struct cli *c, const char *ref, struct service *ret, struct err *e)
{
    struct val_doc *d = NULL;
    int rc = find_object(c, "services", ref, &d, e);
    if (rc < 0)
        return rc;
    *ret = (struct service){ 0 };
    ret->version.index = (uint64_t)int_at(val_root(d), "Version.Index", 0);
    str_set(&ret->id, str_at(val_root(d), "ID"));
    const struct val *spec = val_get(val_root(d), "Spec");
    rc = spec ? rec_from_val(&service_spec_rec, &ret->spec, spec, "Spec", e)
              : err_set(e, E_CORRUPT, "the daemon's reply for service %s has no Spec", ref);
    val_doc_free(d);
    if (rc < 0)
        service_clear(ret);
    return rc;
}

int service_post(struct cli *c, const char *id, uint64_t version, const struct service_spec *s, const char *more_query,
                 struct err *e)
{
    AUTO_SB struct sb body;
    struct val_doc *d = NULL;
    sb_init(&body, 0);
    rec_to_json(&service_spec_rec, s, &body);
    AUTO_FREE char *path = xasprintf("/services/%s/update?version=%llu%s", id, (unsigned long long)version,
                                     more_query ? more_query : "");
    int rc = cli_call(c, "POST", path, body.s, &d, e);
    const struct val *w = rc == 0 && d ? val_get(val_root(d), "Warnings") : NULL;
    for (uint32_t i = 0; w && w->kind == V_LIST && i < w->n; i++)
        if (w->list[i]->kind == V_STR)
            fprintf(c->err, "Warning: %s\n", w->list[i]->s);
    val_doc_free(d);
    return rc;
}

static int fill_id(struct cli *c, const char *kind, const char *what, const char *name, char **id, struct err *e)
{
    struct val_doc *d = NULL;
    AUTO_SB struct sb enc;
    sb_init(&enc, 0);
    if (*id)
        return 0;
    http_encode(&enc, name);
    int rc = cli_get(c, &d, e, "/%s/%s", kind, enc.s);
    if (rc == -E_NOT_FOUND)
        return err_set(e, E_NOT_FOUND, "there is no %s %s; make it with `shoal %s create %s FILE`", what, name, what,
                       name);
    if (rc == 0)
        str_set(id, str_at(val_root(d), "ID"));
    val_doc_free(d);
    return rc;
}

int service_resolve(struct cli *c, struct service_spec *s, struct err *e)
{
    struct container_spec_model *k = s->task.container;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < k->secrets.n; i++)
        rc = fill_id(c, "secrets", "secret", k->secrets.v[i].name, &k->secrets.v[i].id, e);
    for (uint32_t i = 0; rc == 0 && i < k->configs.n; i++)
        rc = fill_id(c, "configs", "config", k->configs.v[i].name, &k->configs.v[i].id, e);
    return rc;
}

static int wait_for(struct cli *c, const char *id, struct err *e)
{
    struct strs ids = { 0 };
    if (cli_on(c, "detach") || (cli_has(c, "quiet") && cli_on(c, "quiet")))
        return 0;
    strs_add(&ids, id);
    int rc = converge_wait(c, &ids, e);
    strs_clear(&ids);
    return rc;
}

/* Docker's daemon invents a name; here it begins with the image's, so that one sees what it is. */
static void default_name(struct service_spec *s)
{
    char random[26];
    const char *image = s->task.container->image, *slash = strrchr(image, '/'), *base = slash ? slash + 1 : image;
    if (s->name)
        return;
    id_random(random);
    AUTO_FREE char *name = xasprintf("%.*s-%.6s", (int)MIN(strcspn(base, ":@"), (size_t)40), base, random);
    str_set(&s->name, name);
}

/* A service that cannot run is not left behind; who wants it to wait for better days says --detach. */
static int take_back(struct cli *c, const char *id, struct err *e)
{
    struct err second = { 0 };
    AUTO_FREE char *path = xasprintf("/services/%s", id);
    int rc = cli_call(c, "DELETE", path, NULL, NULL, &second);
    char why[sizeof e->text];
    memcpy(why, e->text, sizeof why);
    c->refused = true;
    return err_set(e, e->code, "%.400s; %s", why, rc == 0 ? "the service was removed again: change it, or let it wait with --detach"
                                                         : "the service is still there");
}

static int cmd_create(struct cli *c, struct err *e)
{
    struct service_spec s = { 0 };
    struct val_doc *d = NULL;
    AUTO_SB struct sb body;
    sb_init(&body, 0);
    int rc = service_spec_from_flags(c, &s, false, e);
    if (rc == 0) {
        default_name(&s);
        rc = rec_check(&service_spec_rec, &s, e);
    }
    if (rc == 0)
        rc = service_spec_normalize(&s, e);
    if (rc == 0)
        rc = service_resolve(c, &s, e);
    if (rc == 0) {
        rec_to_json(&service_spec_rec, &s, &body);
        if (cli_on(c, "with-registry-auth"))
            rc = credentials_use(c, cli_arg(c, 0), e);
        if (rc == 0)
            rc = cli_call(c, "POST", "/services/create", body.s, &d, e);
    }
    service_spec_clear(&s);
    if (rc == 0 && d) {
        AUTO_FREE char *id = xstrdup(str_at(val_root(d), "ID"));
        if (*str_at(val_root(d), "Warning"))
            fprintf(c->err, "Warning: %s\n", str_at(val_root(d), "Warning"));
        fprintf(c->out, "%s\n", id);
        rc = wait_for(c, id, e);
        if (rc < 0)
            rc = take_back(c, id, e);
    }
    val_doc_free(d);
    return rc;
}

/* --network-rm takes names; the daemon keeps ids. */
static int network_names(struct cli *c, struct service_spec *s, struct err *e)
{
    if (!cli_has(c, "network-rm") && !cli_has(c, "network-add"))
        return 0;
    for (uint32_t i = 0; i < s->task.networks.n; i++) {
        struct val_doc *d = NULL;
        int rc = find_object(c, "networks", s->task.networks.v[i].target, &d, e);
        if (rc == 0)
            str_set(&s->task.networks.v[i].target, str_at(val_root(d), "Name"));
        val_doc_free(d);
        if (rc < 0 && rc != -E_NOT_FOUND)
            return rc;
    }
    return 0;
}

typedef int edit_fn(struct cli *c, struct service_spec *s, const void *arg, struct err *e);

static int edit_once(struct cli *c, const char *ref, edit_fn *edit, const void *arg, char **ret_id, struct err *e)
{
    struct service s;
    int rc = service_get(c, ref, &s, e);
    if (rc < 0)
        return rc;
    rc = edit(c, &s.spec, arg, e);
    if (rc == 0 && cli_has(c, "with-registry-auth") && cli_on(c, "with-registry-auth") && s.spec.task.container)
        rc = credentials_use(c, s.spec.task.container->image, e);
    if (rc == 0)
        rc = service_post(c, s.id, s.version.index, &s.spec, NULL, e);
    str_set(ret_id, s.id);
    service_clear(&s);
    return rc;
}

static int edit_service(struct cli *c, const char *ref, edit_fn *edit, const void *arg, char **ret_id, struct err *e)
{
    int rc = -E_INTERNAL;
    for (int i = 0; i < TRIES; i++) {
        rc = edit_once(c, ref, edit, arg, ret_id, e);
        if (rc == 0 || !strstr(e->text, "out of sequence"))
            return rc;
    }
    return rc;
}

static int edit_flags(struct cli *c, struct service_spec *s, const void *arg, struct err *e)
{
    (void)arg;
    int rc = network_names(c, s, e);
    if (rc == 0)
        rc = service_spec_from_flags(c, s, true, e);
    if (rc == 0)
        rc = rec_check(&service_spec_rec, s, e);
    if (rc == 0)
        rc = service_spec_normalize(s, e);
    return rc == 0 ? service_resolve(c, s, e) : rc;
}

static int rollback(struct cli *c, const char *ref, struct err *e)
{
    struct service s;
    int rc = service_get(c, ref, &s, e);
    if (rc < 0)
        return rc;
    rc = service_post(c, s.id, s.version.index, &s.spec, "&rollback=previous", e);
    if (rc == 0) {
        fprintf(c->out, "%s\n", ref);
        rc = wait_for(c, s.id, e);
    }
    service_clear(&s);
    return rc;
}

static int cmd_update(struct cli *c, struct err *e)
{
    AUTO_FREE char *id = NULL;
    if (cli_on(c, "rollback")) {
        for (const struct cli_flag *f = c->command->flags; f->name; f++)
            if (cli_has(c, f->name) && strcmp(f->name, "rollback") && strcmp(f->name, "detach") &&
                strcmp(f->name, "quiet"))
                return cli_usage(c, e, "--rollback and --%s exclude each other", f->name);
        return rollback(c, cli_arg(c, 0), e);
    }
    int rc = edit_service(c, cli_arg(c, 0), edit_flags, NULL, &id, e);
    if (rc < 0)
        return rc;
    fprintf(c->out, "%s\n", cli_arg(c, 0));
    return wait_for(c, id, e);
}

static int cmd_rollback(struct cli *c, struct err *e)
{
    return rollback(c, cli_arg(c, 0), e);
}

static int edit_replicas(struct cli *c, struct service_spec *s, const void *arg, struct err *e)
{
    (void)c;
    if (!s->mode.replicated)
        return err_set(e, E_CONFLICT, "service %s runs one task a node and cannot be scaled", s->name);
    s->mode.replicated->replicas = *(const uint64_t *)arg;
    return 0;
}

static int cmd_scale(struct cli *c, struct err *e)
{
    struct strs ids = { 0 };
    uint64_t n;
    int rc = 0;
    for (uint32_t i = 0; i < c->args.n; i++) { /* all are understood before the first is changed */
        const char *eq = strchr(c->args.v[i], '=');
        if (!eq || eq == c->args.v[i] || !str_u64(eq + 1, 0, 100000, &n))
            return cli_usage(c, e, "\"%s\" must be SERVICE=NUMBER", c->args.v[i]);
    }
    for (uint32_t i = 0; rc == 0 && i < c->args.n; i++) {
        AUTO_FREE char *ref = xstrdup(c->args.v[i]), *id = NULL;
        char *eq = strchr(ref, '=');
        *eq = 0;
        if (!str_u64(eq + 1, 0, 100000, &n))
            continue;
        rc = edit_service(c, ref, edit_replicas, &n, &id, e);
        if (rc == 0) {
            fprintf(c->out, "%s scaled to %llu\n", ref, (unsigned long long)n);
            strs_add(&ids, id);
        }
    }
    if (rc == 0 && !cli_on(c, "detach"))
        rc = converge_wait(c, &ids, e);
    strs_clear(&ids);
    return rc;
}

static const struct cli_flag wait_flags[] = {
    { "detach", 'd', CLI_BOOL, "Do not wait until it runs as wanted", NULL },
    { 0 },
};

const struct cli_command service_change_commands[] = {
    { "service create", "IMAGE [COMMAND] [ARG...]", "Create a service", service_create_flags,
      "shoal service create --name web --replicas 3 -p 8080:80 web:1", cmd_create, 1, CLI_ANY, CLI_REST },
    { "service update", "SERVICE", "Change a service", service_update_flags,
      "shoal service update --image web:2 --update-parallelism 2 web", cmd_update, 1, 1, 0 },
    { "service scale", "SERVICE=NUMBER...", "Set the number of tasks", wait_flags, "shoal service scale web=5",
      cmd_scale, 1, CLI_ANY, 0 },
    { "service rollback", "SERVICE", "Go back to the spec before the last update", wait_flags,
      "shoal service rollback web", cmd_rollback, 1, 1, 0 },
    { 0 },
};
