/* stack deploy: Compose files to networks, secrets, configs and services of the cluster, in that order. Running
 * it again with the same files changes nothing; with other files it changes what differs. Order and rules are
 * those of docker stack deploy (engine-api.md, "Call sequences that matter"). */
#include "cli.h"
#include <shoal/base/crypto.h>
#include <shoal/http.h>
#include <shoal/stack.h>

struct deploy {
    struct cli *c;
    struct stack stack;
    struct strs ids; /* of the services, to wait for */
};

static int read_file(void *arg, const char *path, size_t max, struct bytes *ret, struct err *e)
{
    (void)arg;
    return term_read_input(path, max, ret, e);
}

/* ---- Compose files ---- */
static int read_sources(const struct strs *files, struct stack_source *src, struct err *e)
{
    for (uint32_t i = 0; i < files->n; i++) {
        struct bytes text = { 0 };
        int rc = term_read_input(files->v[i], STACK_MAX_FILE_BYTES, &text, e);
        if (rc < 0)
            return rc;
        src[i] = (struct stack_source){ files->v[i], (const char *)text.v, text.n };
    }
    return 0;
}

static int load(struct deploy *d, struct err *e)
{
    const struct strs *files = cli_list(d->c, "compose-file");
    struct stack_source src[STACK_MAX_FILES] = { 0 }, dotenv = { 0 };
    struct bytes env = { 0 };
    struct err why;
    if (!files->n)
        return cli_usage(d->c, e, "-c FILE is needed: the Compose file of the stack");
    if (files->n > STACK_MAX_FILES)
        return cli_usage(d->c, e, "at most %d Compose files are possible", STACK_MAX_FILES);
    AUTO_FREE char *dir = term_folder(files->v[0]);
    AUTO_FREE char *dotenv_path = xasprintf("%s/.env", dir);
    int rc = read_sources(files, src, e);
    int have = rc == 0 ? term_read_input(dotenv_path, STACK_MAX_FILE_BYTES, &env, &why) : 0;
    if (rc == 0 && have == 0) {
        dotenv = (struct stack_source){ dotenv_path, (const char *)env.v, env.n };
    } else if (have < 0 && have != -E_NOT_FOUND) {
        rc = have;
        *e = why;
    }
    if (rc == 0) {
        struct stack_input in = { .name = cli_arg(d->c, 0), .dir = dir, .files = src, .n_files = files->n,
                                  .dotenv = dotenv.text ? &dotenv : NULL, .read = read_file,
                                  .environ_pairs = (const char *const *)environ };
        rc = stack_load(&in, &d->stack, e);
    }
    for (uint32_t i = 0; i < files->n; i++)
        free((char *)src[i].text);
    free(env.v);
    for (uint32_t i = 0; rc == 0 && i < d->stack.unset.n; i++)
        fprintf(d->c->err, "Warning: the variable %s is not set; it counts as empty\n", d->stack.unset.v[i]);
    return rc;
}

/* ---- the cluster's side ---- */
static int get_named(struct cli *c, const char *kind, const char *name, struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb enc;
    sb_init(&enc, 0);
    http_encode(&enc, name);
    *ret = NULL;
    int rc = cli_get(c, ret, e, "/%s/%s", kind, enc.s);
    if (rc == -E_NOT_FOUND) {
        c->refused = false;
        return 0;
    }
    return rc;
}

static int check_external(struct cli *c, const char *kind, const char *what, const struct strs *names, struct err *e)
{
    for (uint32_t i = 0; i < names->n; i++) {
        struct val_doc *d;
        int rc = get_named(c, kind, names->v[i], &d, e);
        if (rc == 0 && !d)
            rc = err_set(e, E_NOT_FOUND, "the external %s %s does not exist; make it first with `shoal %s create %s%s`",
                         what, names->v[i], what, names->v[i], strcmp(what, "network") ? " FILE" : "");
        val_doc_free(d);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* All of them before anything is made: a file that cannot be deployed leaves nothing behind. */
static int check_externals(struct deploy *d, struct err *e)
{
    int rc = check_external(d->c, "networks", "network", &d->stack.external_networks, e);
    if (rc == 0)
        rc = check_external(d->c, "secrets", "secret", &d->stack.external_secrets, e);
    return rc == 0 ? check_external(d->c, "configs", "config", &d->stack.external_configs, e) : rc;
}

static int deploy_networks(struct deploy *d, struct err *e)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < d->stack.networks.n; i++) {
        struct network *n = &d->stack.networks.v[i];
        struct val_doc *old;
        AUTO_SB struct sb body;
        sb_init(&body, 0);
        rc = get_named(d->c, "networks", n->name, &old, e);
        if (rc == 0 && !old) {
            fprintf(d->c->out, "Creating network %s\n", n->name);
            rec_to_json(&network_rec, n, &body);
            rc = cli_call(d->c, "POST", "/networks/create", body.s, NULL, e);
            if (rc < 0)
                err_wrap(e, "network %s", n->name);
        }
        val_doc_free(old);
    }
    return rc;
}

/* {"Name","Labels","Data"}: written by hand because records keep secrets out of JSON. */
static char *data_body(const char *name, const struct labels *labels, const struct bytes *data)
{
    AUTO_SB struct sb b;
    char *text = base64_encode(data->v, data->n);
    sb_init(&b, 0);
    sb_str(&b, "{\"Name\":");
    sb_json_str(&b, name, strlen(name));
    sb_str(&b, ",\"Labels\":{");
    for (uint32_t i = 0; i < labels->n; i++) {
        sb_str(&b, i ? "," : "");
        sb_json_str(&b, labels->v[i].key, strlen(labels->v[i].key));
        sb_char(&b, ':');
        sb_json_str(&b, labels->v[i].value, strlen(labels->v[i].value));
    }
    sb_printf(&b, "},\"Data\":\"%s\"}", text);
    crypto_wipe(text, strlen(text));
    free(text);
    return sb_take(&b);
}

/* What exists may change its labels only; other data needs another name, as docker has it. */
static int deploy_data(struct deploy *d, const char *kind, const char *what, const char *name,
                       const struct labels *labels, const struct bytes *data, struct err *e)
{
    struct val_doc *old;
    int rc = get_named(d->c, kind, name, &old, e);
    if (rc < 0)
        return rc;
    AUTO_FREE char *body = data_body(name, labels, data);
    AUTO_FREE char *path = old ? xasprintf("/%s/%s/update?version=%lld", kind, str_at(val_root(old), "ID"),
                                           (long long)int_at(val_root(old), "Version.Index", 0))
                               : xasprintf("/%s/create", kind);
    if (!old)
        fprintf(d->c->out, "Creating %s %s\n", what, name);
    rc = cli_call(d->c, "POST", path, body, NULL, e);
    if (rc < 0 && strstr(e->text, "only updates to Labels"))
        rc = err_set(e, E_CONFLICT, "the data of %s %s differs from what the cluster has, and it cannot be changed; "
                     "give it a new name in the Compose file (name: %s_2) and deploy again", what, name, name);
    else if (rc < 0)
        err_wrap(e, "%s %s", what, name);
    crypto_wipe(body, strlen(body));
    val_doc_free(old);
    return rc;
}

static int deploy_files(struct deploy *d, struct err *e)
{
    struct stack *s = &d->stack;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < s->secrets.n; i++)
        rc = deploy_data(d, "secrets", "secret", s->secrets.v[i].name, &s->secrets.v[i].labels,
                         &s->secrets.v[i].data, e);
    for (uint32_t i = 0; rc == 0 && i < s->configs.n; i++)
        rc = deploy_data(d, "configs", "config", s->configs.v[i].name, &s->configs.v[i].labels,
                         &s->configs.v[i].data, e);
    return rc;
}

static int create_service(struct deploy *d, const struct service_spec *s, struct err *e)
{
    struct val_doc *reply = NULL;
    AUTO_SB struct sb body;
    sb_init(&body, 0);
    rec_to_json(&service_spec_rec, s, &body);
    fprintf(d->c->out, "Creating service %s\n", s->name);
    int rc = cli_call(d->c, "POST", "/services/create", body.s, &reply, e);
    if (rc == 0 && reply)
        strs_add(&d->ids, str_at(val_root(reply), "ID"));
    val_doc_free(reply);
    return rc;
}

static int update_service(struct deploy *d, struct service_spec *s, struct err *e)
{
    enum { TRIES = 5 };
    int rc = -E_INTERNAL;
    fprintf(d->c->out, "Updating service %s\n", s->name);
    for (int i = 0; i < TRIES; i++) {
        struct service old;
        rc = service_get(d->c, s->name, &old, e);
        if (rc < 0)
            return rc;
        s->task.force_update = old.spec.task.force_update; /* a forced update is not undone */
        rc = service_post(d->c, old.id, old.version.index, s, NULL, e);
        if (rc == 0)
            strs_add(&d->ids, old.id);
        service_clear(&old);
        if (rc == 0 || !strstr(e->text, "out of sequence"))
            break;
    }
    return rc;
}

static const struct val *find_named(const struct val *services, const char *name)
{
    for (uint32_t i = 0; services->kind == V_LIST && i < services->n; i++)
        if (!strcmp(str_at(services->list[i], "Spec.Name"), name))
            return services->list[i];
    return NULL;
}

static int prune(struct deploy *d, const struct val *services, struct err *e)
{
    for (uint32_t i = 0; services->kind == V_LIST && i < services->n; i++) {
        const char *name = str_at(services->list[i], "Spec.Name");
        bool wanted = false;
        for (uint32_t k = 0; k < d->stack.services.n; k++)
            wanted |= !strcmp(d->stack.services.v[k].name, name);
        if (wanted)
            continue;
        fprintf(d->c->out, "Removing service %s\n", name);
        AUTO_FREE char *path = xasprintf("/services/%s", str_at(services->list[i], "ID"));
        int rc = cli_call(d->c, "DELETE", path, NULL, NULL, e);
        if (rc < 0 && rc != -E_NOT_FOUND)
            return rc;
    }
    return 0;
}

static int deploy_services(struct deploy *d, struct err *e)
{
    struct val_doc *old = NULL;
    int rc = stack_list(d->c, "services", d->stack.name, &old, e);
    if (rc == 0 && cli_on(d->c, "prune"))
        rc = prune(d, val_root(old), e);
    for (uint32_t i = 0; rc == 0 && i < d->stack.services.n; i++) {
        struct service_spec *s = &d->stack.services.v[i];
        rc = service_resolve(d->c, s, e);
        if (rc == 0)
            rc = find_named(val_root(old), s->name) ? update_service(d, s, e) : create_service(d, s, e);
        if (rc < 0)
            err_wrap(e, "service %s", s->name);
    }
    val_doc_free(old);
    return rc;
}

int cmd_stack_deploy(struct cli *c, struct err *e)
{
    struct deploy d = { .c = c };
    int rc = load(&d, e);
    if (rc == 0)
        rc = check_externals(&d, e);
    if (rc == 0)
        rc = deploy_networks(&d, e);
    if (rc == 0)
        rc = deploy_files(&d, e);
    if (rc == 0)
        rc = deploy_services(&d, e);
    if (rc == 0 && cli_has(c, "detach") && !cli_on(c, "detach"))
        rc = converge_wait(c, &d.ids, e);
    stack_free(&d.stack);
    strs_clear(&d.ids);
    return rc;
}
