/* stack_load(): the order of the steps, the place in error sentences, and reading of further files. */
#include <inttypes.h>
#include <stdio.h>
#include <shoal/base/file.h>
#include "stack_internal.h"

static void at_add(struct load *l, const char *s, size_t max)
{
    for (size_t i = 0; s[i] && i < max; i++, l->len++)
        if (l->len < sizeof l->path - 1)
            l->path[l->len] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
    l->path[MIN(l->len, sizeof l->path - 1)] = 0;
}

size_t at_key(struct load *l, const char *name)
{
    size_t mark = l->len;
    if (mark)
        at_add(l, ".", 1);
    at_add(l, name, 80);
    return mark;
}

size_t at_index(struct load *l, uint32_t i)
{
    char s[16];
    size_t mark = l->len;
    snprintf(s, sizeof s, "[%" PRIu32 "]", i);
    at_add(l, s, sizeof s);
    return mark;
}

void at_back(struct load *l, size_t mark)
{
    l->len = mark;
    l->path[MIN(mark, sizeof l->path - 1)] = 0;
}

int bad(struct load *l, const struct val *v, int code, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *sep = l->path[0] ? ": " : "";
    if (v && (v->line & LINE_MASK))
        return err_set(l->e, code, "%s:%" PRIu32 "%s%s: %s", l->in->files[v->line >> LINE_BITS].name,
                       v->line & LINE_MASK, sep, l->path, text);
    return err_set(l->e, code, "%s%s%s: %s", l->in->files[v ? v->line >> LINE_BITS : 0].name, sep, l->path,
                   text);
}

const char *kind_text(const struct val *v)
{
    static const char *const names[] = { "nothing", "true or false", "a number", "a number", "a number",
                                         "a string", "binary", "a list", "a map" };
    return names[v->kind];
}

char *full_path(struct load *l, const char *path)
{
    if (path[0] == '~' && (path[1] == '/' || !path[1])) {
        const char *home = labels_get(&l->env, "HOME");
        if (home && home[0] == '/')
            return path[1] ? path_join(home, path + 2) : xstrdup(home);
    }
    if (path[0] == '/' || !l->in->dir)
        return xstrdup(path);
    while (path[0] == '.' && path[1] == '/')
        path += 2 + strspn(path + 2, "/");
    return strcmp(path, ".") == 0 || !path[0] ? xstrdup(l->in->dir) : path_join(l->in->dir, path);
}

int read_file(struct load *l, const struct val *at, const char *path, size_t max, struct bytes *ret)
{
    AUTO_FREE char *full = full_path(l, path);
    struct err e = { 0 };
    if (!l->in->read)
        return bad(l, at, E_UNSUPPORTED, "%s cannot be read here; give the content in the file", path);
    int rc = l->in->read(l->in->read_arg, full, max, ret, &e);
    if (rc == 0 && ret->n > max) {
        free(TAKE(ret->v));
        rc = -E_TOO_BIG;
    }
    if (rc == -E_TOO_BIG)
        return bad(l, at, E_TOO_BIG, "%s is larger than %zu bytes", full, max);
    if (rc < 0 && e.text[0])
        return bad(l, at, -rc, "%s", e.text);
    return rc < 0 ? bad(l, at, -rc, "cannot read %s: %s", full, err_text(rc)) : 0;
}

static int load_env(struct load *l)
{
    for (const char *const *p = l->in->environ_pairs; p && *p; p++) {
        const char *eq = strchr(*p, '=');
        if (!eq || eq == *p)
            continue; /* not a variable */
        AUTO_FREE char *name = xstrndup(*p, (size_t)(eq - *p));
        labels_set(&l->env, name, eq + 1);
    }
    if (!l->in->dotenv)
        return 0;
    struct labels file = { 0 };
    int rc = stack_env_file_parse(l->in->dotenv, false, &l->env, &file, l->e);
    for (uint32_t i = 0; rc == 0 && i < file.n; i++)
        if (!labels_get(&l->env, file.v[i].key))
            labels_set(&l->env, file.v[i].key, file.v[i].value);
    labels_clear(&file);
    return rc;
}

static int load_file(struct load *l, unsigned i)
{
    const struct stack_source *f = &l->in->files[i];
    struct val_doc *d = NULL;
    struct val *root = NULL;
    if (f->len > STACK_MAX_FILE_BYTES)
        return err_set(l->e, E_TOO_BIG, "%s: is larger than %d bytes", f->name, STACK_MAX_FILE_BYTES);
    int rc = yaml_parse(&d, f->text, f->len, f->name, l->e);
    if (rc < 0)
        return rc;
    l->len = 0;
    l->path[0] = 0;
    if (val_root(d)->kind != V_MAP)
        rc = err_set(l->e, E_INVALID, "%s: expected a map with services:, found %s", f->name,
                     kind_text(val_root(d)));
    if (rc == 0)
        rc = interpolate_tree(l, val_root(d), i, &root);
    val_doc_free(d);
    if (rc == 0)
        rc = compose_check(l, root);
    if (rc == 0)
        l->root = l->root ? compose_merge(l->doc, l->root, root) : root;
    return rc;
}

static int load_all(struct load *l)
{
    const struct stack_input *in = l->in;
    if (in->n_files < 1 || in->n_files > STACK_MAX_FILES)
        return err_set(l->e, E_INVALID, "give between 1 and %d Compose files, found %u", STACK_MAX_FILES,
                       in->n_files);
    int rc = load_env(l);
    for (unsigned i = 0; rc == 0 && i < in->n_files; i++)
        rc = load_file(l, i);
    l->len = 0;
    l->path[0] = 0;
    return rc < 0 ? rc : convert_stack(l);
}

int stack_load(const struct stack_input *in, struct stack *ret, struct err *e)
{
    struct stack out = { 0 };
    struct load l = { .in = in, .e = e, .doc = val_doc_new(), .out = &out };
    int rc = load_all(&l);
    val_doc_free(l.doc);
    labels_clear(&l.env);
    if (rc < 0)
        stack_free(&out);
    else
        *ret = out;
    return rc;
}

void stack_free(struct stack *s)
{
    free(s->name);
    for (uint32_t i = 0; i < s->networks.n; i++)
        network_clear(&s->networks.v[i]);
    for (uint32_t i = 0; i < s->secrets.n; i++)
        secret_spec_clear(&s->secrets.v[i]);
    for (uint32_t i = 0; i < s->configs.n; i++)
        config_spec_clear(&s->configs.v[i]);
    for (uint32_t i = 0; i < s->services.n; i++)
        service_spec_clear(&s->services.v[i]);
    free(s->networks.v);
    free(s->secrets.v);
    free(s->configs.v);
    free(s->services.v);
    strs_clear(&s->external_networks);
    strs_clear(&s->external_secrets);
    strs_clear(&s->external_configs);
    strs_clear(&s->unset);
    *s = (struct stack){ 0 };
}
