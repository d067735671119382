/* Names: of nodes and services by id (each asked once a command), of objects on the command line. */
#include "cli.h"
#include <shoal/base/map.h>
#include <shoal/http.h>

struct names { struct map nodes, services; };

const struct val *at(const struct val *v, const char *path)
{
    char key[64];
    while (v && *path) {
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        v = val_get(v, key);
        path += n + (path[n] == '.');
    }
    return v;
}

const char *str_at(const struct val *v, const char *path)
{
    v = at(v, path);
    return v && v->kind == V_STR ? v->s : "";
}

int64_t int_at(const struct val *v, const char *path, int64_t otherwise)
{
    v = at(v, path);
    return v && v->kind == V_INT ? v->i : otherwise;
}

void add_query(struct sb *b, const char *name, const char *value)
{
    sb_printf(b, "%c%s=", strchr(b->s, '?') ? '&' : '?', name);
    http_encode(b, value);
}

static struct names *names_of(struct cli *c)
{
    if (!c->names) {
        c->names = xnew(struct names);
        map_init(&c->names->nodes);
        map_init(&c->names->services);
    }
    return c->names;
}

static const char *lookup(struct cli *c, struct map *known, const char *kind, const char *id, const char *path)
{
    struct val_doc *d = NULL;
    struct err ignored;
    if (!id || !*id)
        return "";
    char *name = map_find(known, id);
    if (name)
        return name;
    AUTO_SB struct sb enc;
    sb_init(&enc, 0);
    http_encode(&enc, id);
    if (cli_get(c, &d, &ignored, "/%s/%s", kind, enc.s) == 0)
        name = xstrdup(str_at(val_root(d), path));
    if (!name || !*name) {
        free(name);
        name = xstrdup(id); /* gone: the id is all that is left of it */
    }
    c->refused = false;
    val_doc_free(d);
    map_put(known, id, name);
    return name;
}

const char *name_of_node(struct cli *c, const char *id)
{
    return lookup(c, &names_of(c)->nodes, "nodes", id, "Description.Hostname");
}

const char *name_of_service(struct cli *c, const char *id)
{
    return lookup(c, &names_of(c)->services, "services", id, "Spec.Name");
}

static void free_map(struct map *m)
{
    for (struct map_item *it = NULL; (it = map_next(m, it));)
        free(it->value);
    map_done(m);
}

void names_free(struct cli *c)
{
    if (!c->names)
        return;
    free_map(&c->names->nodes);
    free_map(&c->names->services);
    free(c->names);
    c->names = NULL;
}

int find_object(struct cli *c, const char *kind, const char *ref, struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb enc;
    AUTO_FREE char *self = NULL;
    sb_init(&enc, 0);
    if (!strcmp(kind, "nodes") && !strcmp(ref, "self")) {
        struct val_doc *info = NULL;
        int rc = cli_get(c, &info, e, "/info");
        if (rc == 0)
            self = xstrdup(str_at(val_root(info), "Swarm.NodeID"));
        val_doc_free(info);
        if (rc < 0)
            return rc;
        if (!*self)
            return err_set(e, E_UNAVAILABLE, "this node is in no cluster; use `shoal init` or `shoal join`");
    }
    http_encode(&enc, self ? self : ref);
    return cli_get(c, ret, e, "/%s/%s", kind, enc.s);
}

int delete_each(struct cli *c, const char *kind, const char *query, struct err *e)
{
    int failed = 0;
    for (uint32_t i = 0; i < c->args.n; i++) {
        AUTO_SB struct sb path;
        sb_init(&path, 0);
        sb_printf(&path, "/%s/", kind);
        http_encode(&path, c->args.v[i]);
        sb_str(&path, query ? query : "");
        if (failed)
            fprintf(c->err, "Error: %s\n", e->text);
        failed = cli_call(c, "DELETE", path.s, NULL, NULL, e);
        if (failed)
            c->status = 1;
        else
            fprintf(c->out, "%s\n", c->args.v[i]);
        if (failed == -E_UNAVAILABLE || failed == -E_DENIED)
            break;
    }
    return failed;
}
