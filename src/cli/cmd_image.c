/* image ls, load, save, import, pull, push, push-to-cluster, rm, prune, tag, history, inspect. Archives are sent and written as
 * they are read, whatever their size. */
#include "cli.h"
#include <shoal/base/map.h>
#include <shoal/http.h>

static const struct cli_flag ls_flags[] = {
    { "all", 'a', CLI_BOOL, "Also images without a name", NULL },
    { "filter", 'f', CLI_LIST, "Only images with KEY=VALUE (reference, label, dangling, before, since, until)", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "no-trunc", 0, CLI_BOOL, "Whole ids", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};
static const struct cli_flag load_flags[] = {
    { "input", 'i', CLI_STR, "File instead of the standard input", NULL },
    { "quiet", 'q', CLI_BOOL, "No progress", NULL },
    { 0 },
};
static const struct cli_flag import_flags[] = {
    { "change", 'c', CLI_LIST, "Instruction for the image, as in CMD [\"/bin/web\"]", NULL },
    { "message", 'm', CLI_STR, "Comment of the image", NULL },
    { 0 },
};
static const struct cli_flag pull_flags[] = {
    { "quiet", 'q', CLI_BOOL, "No progress", NULL },
    { 0 },
};
static const struct cli_flag push_flags[] = {
    { "all-tags", 'a', CLI_BOOL, "All tags of the name", NULL },
    { "quiet", 'q', CLI_BOOL, "No progress", NULL },
    { 0 },
};
static const struct cli_flag spread_flags[] = {
    { "label", 0, CLI_LIST, "Only nodes with this label, KEY or KEY=VALUE; of several all", NULL },
    { "format", 0, CLI_STR, "Output: json (one object a line for each node, when it is through)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only nodes that failed", NULL },
    { 0 },
};
static const struct cli_flag rm_flags[] = {
    { "force", 'f', CLI_BOOL, "Also an image with several names; of one in use only the name", NULL },
    { 0 },
};
static const struct cli_flag save_flags[] = {
    { "output", 'o', CLI_STR, "File instead of the standard output", NULL },
    { 0 },
};
static const struct cli_flag prune_flags[] = {
    { "all", 'a', CLI_BOOL, "All that no container uses, not only those without a name", NULL },
    { "filter", 0, CLI_LIST, "Only images with KEY=VALUE (until, label, label!)", NULL },
    { "force", 'f', CLI_BOOL, "Do not ask", NULL },
    { 0 },
};
static const struct cli_flag history_flags[] = {
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "no-trunc", 0, CLI_BOOL, "Whole ids and commands", NULL },
    { "quiet", 'q', CLI_BOOL, "Only ids", NULL },
    { 0 },
};
static const struct cli_flag inspect_flags[] = {
    { "format", 0, CLI_STR, "Output: json (one object a line)", NULL },
    { 0 },
};
static const struct column columns[] = {
    { "REPOSITORY", "Repository", false }, { "TAG", "Tag", false }, { "IMAGE ID", "ID", false },
    { "CREATED", "CreatedSince", false },  { "SIZE", "Size", false },
};

static void add_image(struct cli *c, struct table *t, const struct val *image, const char *ref)
{
    char id[16], size[32], age[48];
    const char *colon = strrchr(ref, ':'), *whole = str_at(image, "Id");
    units_ago(age, c->now_ns - int_at(image, "Created", 0) * INT64_C(1000000000));
    units_bytes(size, int_at(image, "Size", 0), false);
    table_addf(t, "%.*s", colon ? (int)(colon - ref) : (int)strlen(ref), ref);
    table_add(t, colon ? colon + 1 : "<none>");
    table_add(t, cli_on(c, "no-trunc") ? whole : short_id(whole, id));
    table_addf(t, "%s ago", age);
    table_add(t, size);
}

static int newest_first(const void *a, const void *b)
{
    const struct val *const *x = a, *const *y = b;
    int64_t i = int_at(*x, "Created", 0), k = int_at(*y, "Created", 0);
    return i > k ? -1 : i < k;
}

static int cmd_ls(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    struct table t;
    sb_init(&path, 0);
    sb_str(&path, "/images/json");
    if (cli_on(c, "all"))
        add_query(&path, "all", "1");
    int rc = filters_from_flags(c, &path, cli_arg(c, 0) ? "reference" : NULL, cli_arg(c, 0), e);
    if (rc == 0)
        rc = cli_get(c, &d, e, "%s", path.s);
    if (rc < 0)
        return rc;
    struct val *l = val_root(d);
    table_init(&t, columns, ARRAY_N(columns));
    if (l->kind == V_LIST && l->n)
        qsort(l->list, l->n, sizeof *l->list, newest_first);
    for (uint32_t i = 0; l->kind == V_LIST && i < l->n; i++) {
        const struct val *tags = val_get(l->list[i], "RepoTags");
        uint32_t n = tags && tags->kind == V_LIST ? tags->n : 0;
        for (uint32_t k = 0; k < n; k++)
            if (tags->list[k]->kind == V_STR)
                add_image(c, &t, l->list[i], tags->list[k]->s);
        if (!n)
            add_image(c, &t, l->list[i], "<none>:<none>");
    }
    rc = table_show(c, &t, 2, e);
    table_done(&t);
    val_doc_free(d);
    return rc;
}

/* A call whose reply is progress; fd -1: nothing to send. */
int image_stream(struct cli *c, const char *path, int fd, bool quiet, struct err *e)
{
    struct progress p = { .out = c->out, .quiet = quiet };
    struct cli_stream s = { .method = "POST", .path = path, .upload = fd, .data = progress_data, .arg = &p };
    struct err end;
    int rc = cli_stream(c, &s, e), last = progress_end(&p, &end);
    if (rc == 0 && last < 0) {
        *e = end;
        rc = last;
    }
    c->refused = rc < 0;
    return rc;
}

static int cmd_load(struct cli *c, struct err *e)
{
    const char *file = cli_str(c, "input") ? cli_str(c, "input") : "-";
    if (!strcmp(file, "-") && term_is_tty(0))
        return cli_usage(c, e, "give the archive with -i FILE, or pipe it in");
    int fd = term_open_input(file, e);
    if (fd < 0)
        return fd;
    int rc = image_stream(c, cli_on(c, "quiet") ? "/images/load?quiet=1" : "/images/load?quiet=0", fd, false, e);
    term_close(fd);
    return rc < 0 ? err_wrap(e, "%s", strcmp(file, "-") ? file : "standard input") : 0;
}

/* ---- save ---- */
static int to_file(void *arg, const char *p, size_t size, struct err *e)
{
    return out_file_write(arg, p, size, e);
}

static int cmd_save(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct out_file *f = NULL;
    sb_init(&path, 0);
    int rc = out_file_open(&f, cli_str(c, "output") ? cli_str(c, "output") : "-", e);
    if (rc < 0)
        return rc;
    sb_str(&path, "/images/get");
    for (uint32_t i = 0; i < c->args.n; i++)
        add_query(&path, "names", c->args.v[i]);
    struct cli_stream s = { .method = "GET", .path = path.s, .upload = -1, .data = to_file, .arg = f };
    rc = cli_stream(c, &s, e);
    if (rc == 0)
        return out_file_keep(f, e);
    out_file_drop(f);
    return rc;
}

static void split_tag(const char *ref, char **ret_name, char **ret_tag)
{
    const char *digest = strchr(ref, '@'), *colon = strrchr(ref, ':'), *slash = strrchr(ref, '/');
    const char *cut = digest ? digest : colon && (!slash || colon > slash) ? colon : NULL;
    *ret_name = cut ? xstrndup(ref, (size_t)(cut - ref)) : xstrdup(ref);
    *ret_tag = xstrdup(cut ? cut + 1 : "");
}

static int cmd_import(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    int fd = term_open_input(cli_arg(c, 0), e);
    sb_init(&path, 0);
    if (fd < 0)
        return fd;
    sb_str(&path, "/images/create?fromSrc=-");
    if (cli_arg(c, 1)) {
        AUTO_FREE char *name = NULL, *tag = NULL;
        split_tag(cli_arg(c, 1), &name, &tag);
        add_query(&path, "repo", name);
        add_query(&path, "tag", *tag ? tag : "latest");
    }
    for (uint32_t i = 0; i < cli_list(c, "change")->n; i++)
        add_query(&path, "changes", cli_list(c, "change")->v[i]);
    if (cli_str(c, "message"))
        add_query(&path, "message", cli_str(c, "message"));
    int rc = image_stream(c, path.s, fd, false, e);
    term_close(fd);
    return rc < 0 ? err_wrap(e, "%s", strcmp(cli_arg(c, 0), "-") ? cli_arg(c, 0) : "standard input") : 0;
}

int show_image_pull(struct cli *c, const char *ref, bool quiet, struct err *e)
{
    AUTO_SB struct sb path;
    AUTO_FREE char *name = NULL, *tag = NULL;
    sb_init(&path, 0);
    split_tag(ref, &name, &tag);
    sb_str(&path, "/images/create");
    add_query(&path, "fromImage", name);
    add_query(&path, "tag", *tag ? tag : "latest");
    int rc = credentials_use(c, ref, e);
    if (rc == 0)
        rc = image_stream(c, path.s, -1, quiet, e);
    return rc < 0 ? err_wrap(e, "cannot pull %s", ref) : 0;
}

static int cmd_pull(struct cli *c, struct err *e)
{
    bool quiet = cli_on(c, "quiet");
    int rc = show_image_pull(c, cli_arg(c, 0), quiet, e);
    if (rc == 0 && quiet)
        fprintf(c->out, "%s\n", cli_arg(c, 0));
    return rc;
}

static int cmd_push(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    AUTO_FREE char *name = NULL, *tag = NULL;
    const char *ref = cli_arg(c, 0);
    sb_init(&path, 0);
    split_tag(ref, &name, &tag);
    if (cli_on(c, "all-tags") && *tag)
        return cli_usage(c, e, "--all-tags wants a name without a tag");
    sb_str(&path, "/images/");
    http_encode(&path, name);
    sb_str(&path, "/push");
    if (!cli_on(c, "all-tags"))
        add_query(&path, "tag", *tag ? tag : "latest");
    int rc = credentials_use(c, ref, e);
    if (rc == 0)
        rc = image_stream(c, path.s, -1, cli_on(c, "quiet"), e);
    return rc < 0 ? err_wrap(e, "cannot push %s", ref) : 0;
}

/* ---- push-to-cluster: a line of JSON for each change of a node ---- */
struct spread_view { struct cli *c; struct sb line; struct map quarters; bool json, quiet; unsigned n, failed; };

/* A line a node when it begins, at each quarter and at its end. */
static void show_node(struct spread_view *u, const struct val *v)
{
    const char *host = str_at(v, "hostname"), *state = str_at(v, "state"), *error = str_at(v, "error");
    int64_t current = int_at(v, "current", 0), total = int_at(v, "total", 0);
    bool done = !strcmp(state, "done"), failed = !strcmp(state, "failed");
    char a[32], b[32];
    u->n += done || failed;
    u->failed += failed;
    units_bytes(a, current, false);
    units_bytes(b, total, false);
    if (u->json && (done || failed)) {
        AUTO_SB struct sb out;
        sb_init(&out, 0);
        json_write(&out, v, 0);
        fprintf(u->c->out, "%s\n", out.s);
    } else if (failed) {
        fprintf(u->c->err, "%s: failed: %s\n", host, error);
    } else if (u->json || u->quiet) {
        return;
    } else if (done) {
        fprintf(u->c->out, total ? "%s: has it, %s received\n" : "%s: has it already\n", host, b);
    } else if (!strcmp(state, "receiving") && total > 0) {
        uintptr_t quarter = 1 + (uintptr_t)(4 * current / total);
        if ((uintptr_t)map_find(&u->quarters, str_at(v, "node")) >= quarter)
            return;
        map_put(&u->quarters, str_at(v, "node"), (void *)quarter);
        fprintf(u->c->out, "%s: receives, %s of %s\n", host, a, b);
    }
    fflush(u->c->out);
}

static int spread_data(void *arg, const char *p, size_t size, struct err *e)
{
    struct spread_view *u = arg;
    for (size_t i = 0; i < size; i++) {
        struct val_doc *d = NULL;
        if (p[i] != '\n') {
            sb_char(&u->line, p[i]);
            continue;
        }
        int rc = u->line.overflow ? err_set(e, E_TOO_BIG, "a line of the daemon's progress is too long")
                                  : json_parse(&d, u->line.s, u->line.len, "the daemon's progress", e);
        sb_reset(&u->line);
        if (rc < 0)
            return rc;
        show_node(u, val_root(d));
        val_doc_free(d);
    }
    return 0;
}

static int cmd_push_to_cluster(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    enum format format;
    struct spread_view u = { .c = c, .quiet = cli_on(c, "quiet") };
    const struct strs *labels = cli_list(c, "label");
    int rc = format_of(c, &format, e);
    if (rc == 0 && format == FORMAT_TABLE)
        rc = cli_usage(c, e, "--format: only json is a form of this");
    sb_init(&path, 0);
    sb_init(&u.line, 64 << 10);
    map_init(&u.quarters);
    u.json = format == FORMAT_JSON;
    sb_str(&path, "/shoal/v1/images/");
    http_encode(&path, cli_arg(c, 0));
    sb_str(&path, "/spread");
    for (uint32_t i = 0; i < labels->n; i++)
        add_query(&path, "label", labels->v[i]);
    struct cli_stream s = { .method = "POST", .path = path.s, .upload = -1, .data = spread_data, .arg = &u };
    if (rc == 0)
        rc = cli_stream(c, &s, e);
    c->refused = rc < 0;
    if (rc == 0 && u.failed)
        rc = err_set(e, E_IO, "%u of %u nodes did not take %s", u.failed, u.n, cli_arg(c, 0));
    sb_done(&u.line);
    map_done(&u.quarters);
    return rc;
}

static int cmd_tag(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    AUTO_FREE char *name = NULL, *tag = NULL;
    sb_init(&path, 0);
    split_tag(cli_arg(c, 1), &name, &tag);
    sb_str(&path, "/images/");
    http_encode(&path, cli_arg(c, 0));
    sb_str(&path, "/tag");
    add_query(&path, "repo", name);
    add_query(&path, "tag", *tag ? tag : "latest");
    return cli_call(c, "POST", path.s, NULL, NULL, e);
}

static void show_removed(struct cli *c, const struct val *v)
{
    bool tag = *str_at(v, "Untagged");
    fprintf(c->out, "%s: %s\n", tag ? "Untagged" : "Deleted", str_at(v, tag ? "Untagged" : "Deleted"));
}

static int remove_one(struct cli *c, const char *ref, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    sb_init(&path, 0);
    sb_str(&path, "/images/");
    http_encode(&path, ref);
    if (cli_on(c, "force"))
        add_query(&path, "force", "1");
    int rc = cli_call(c, "DELETE", path.s, NULL, &d, e);
    const struct val *l = rc == 0 && d ? val_root(d) : NULL;
    for (uint32_t i = 0; l && l->kind == V_LIST && i < l->n; i++)
        show_removed(c, l->list[i]);
    val_doc_free(d);
    return rc;
}

static int cmd_rm(struct cli *c, struct err *e)
{
    int failed = 0;
    for (uint32_t i = 0; i < c->args.n && failed != -E_UNAVAILABLE; i++) {
        if (failed)
            fprintf(c->err, "Error: %s\n", e->text);
        failed = remove_one(c, c->args.v[i], e);
        if (failed)
            c->status = 1;
    }
    return failed;
}

static int cmd_prune(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    char size[32];
    bool all = cli_on(c, "all");
    int rc = 0;
    if (!cli_on(c, "force"))
        rc = term_is_tty(0) ? term_confirm(c, all ? "Remove all images that no container uses?"
                                                  : "Remove all images without a name that no container uses?", e)
                            : cli_usage(c, e, "there is no terminal to ask on; give --force if that is meant");
    sb_init(&path, 0);
    sb_str(&path, "/images/prune");
    if (rc == 0)
        rc = filters_from_flags(c, &path, "dangling", all ? "false" : "true", e);
    if (rc == 0)
        rc = cli_call(c, "POST", path.s, NULL, &d, e);
    if (rc < 0)
        return rc;
    const struct val *l = val_get(val_root(d), "ImagesDeleted");
    for (uint32_t i = 0; l && l->kind == V_LIST && i < l->n; i++)
        show_removed(c, l->list[i]);
    units_bytes(size, int_at(val_root(d), "SpaceReclaimed", 0), false);
    fprintf(c->out, "Total reclaimed space: %s\n", size);
    val_doc_free(d);
    return 0;
}

static int cmd_history(struct cli *c, struct err *e)
{
    static const struct column cols[] = {
        { "IMAGE", "ID", false }, { "CREATED", "CreatedSince", false }, { "CREATED BY", "CreatedBy", false },
        { "SIZE", "Size", false }, { "COMMENT", "Comment", false } };
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    struct table t;
    sb_init(&path, 0);
    http_encode(&path, cli_arg(c, 0));
    int rc = cli_get(c, &d, e, "/images/%s/history", path.s);
    if (rc < 0)
        return rc;
    const struct val *l = val_root(d);
    bool whole = cli_on(c, "no-trunc");
    table_init(&t, cols, ARRAY_N(cols));
    for (uint32_t i = 0; l->kind == V_LIST && i < l->n; i++) {
        const struct val *v = l->list[i];
        const char *id = str_at(v, "Id"), *by = str_at(v, "CreatedBy");
        char size[32], age[48], cut[16];
        units_ago(age, c->now_ns - int_at(v, "Created", 0) * INT64_C(1000000000));
        units_bytes(size, int_at(v, "Size", 0), false);
        table_add(&t, whole || *id == '<' ? id : short_id(id, cut));
        table_addf(&t, "%s ago", age);
        if (whole || strlen(by) <= 45)
            table_add(&t, by);
        else
            table_addf(&t, "%.42s...", by);
        table_add(&t, size);
        table_add(&t, str_at(v, "Comment"));
    }
    rc = table_show(c, &t, 0, e);
    table_done(&t);
    val_doc_free(d);
    return rc;
}

static int cmd_inspect(struct cli *c, struct err *e)
{
    static const char *const paths[] = { "/images/*/json", NULL };
    return format_inspect(c, "image", paths, e);
}

const struct cli_command image_commands[] = {
    { "image ls", "[REFERENCE]", "List the images of this node", ls_flags, "shoal image ls", cmd_ls, 0, 1, 0 },
    { "image load", "", "Load images from an archive", load_flags, "shoal image load -i web.tar", cmd_load, 0, 0, 0 },
    { "image save", "IMAGE...", "Write images to an archive for shoal, docker and OCI tools", save_flags,
      "shoal image save -o web.tar web:1", cmd_save, 1, 64, 0 },
    { "image import", "FILE|- [NAME[:TAG]]", "Make an image of a root file system", import_flags,
      "shoal image import -c 'CMD [\"/web\"]' root.tar web:1", cmd_import, 1, 2, 0 },
    { "image pull", "NAME[:TAG|@DIGEST]", "Fetch an image from its registry", pull_flags,
      "shoal image pull registry.example/web:1", cmd_pull, 1, 1, 0 },
    { "image push", "NAME[:TAG]", "Send an image to the registry in its name", push_flags,
      "shoal image push registry.example/web:1", cmd_push, 1, 1, 0 },
    { "image push-to-cluster", "IMAGE", "Send an image of this node to all nodes, or to those with a label, without a registry",
      spread_flags, "shoal image push-to-cluster web:1 --label disk=ssd", cmd_push_to_cluster, 1, 1, 0 },
    { "image tag", "IMAGE NAME[:TAG]", "Give an image a further name", NULL, "shoal image tag web:1 web:stable",
      cmd_tag, 2, 2, 0 },
    { "image rm", "IMAGE...", "Remove images", rm_flags, "shoal image rm web:1", cmd_rm, 1, CLI_ANY, 0 },
    { "image prune", "", "Remove images that are not used", prune_flags, "shoal image prune --all --force", cmd_prune, 0,
      0, 0 },
    { "image history", "IMAGE", "Show the steps an image was made by", history_flags, "shoal image history web:1",
      cmd_history, 1, 1, 0 },
    { "image inspect", "IMAGE...", "Show all about images", inspect_flags, "shoal image inspect web:1", cmd_inspect,
      1, CLI_ANY, 0 },
    { 0 },
};
