/* shoal debug: looks at what a node keeps, also while its daemon is down, and at the way between two containers. */
#include "cli.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/http.h>
#include <shoal/raft.h>

#define ROOT "/var/lib/shoal"

enum { STATUS_DAMAGED = 3, STATUS_BROKEN = 3 };

int (*cli_log_keys)(const char *root, uint8_t keys[2][32], struct err *e);

static const struct cli_flag debug_log_flags[] = {
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "quiet", 'q', CLI_BOOL, "Only what is damaged", NULL },
    { "root", 0, CLI_STR, "Folder of the node (default " ROOT ", or that above PATH)", NULL },
    { 0 },
};

static const struct column columns[] = {
    { "FILE", "File", false }, { "OFFSET", "Offset", true }, { "TYPE", "Type", false }, { "INDEX", "Index", true },
    { "TERM", "Term", true },  { "SIZE", "Size", true },     { "STATE", "State", false }, { "NOTE", "Note", false },
};

struct lines {
    struct table t;
    bool quiet;
};

static void add_line(void *arg, const struct raft_dump_line *l)
{
    struct lines *x = arg;
    if (x->quiet && strcmp(l->state, "rot"))
        return;
    table_add(&x->t, l->file);
    table_addf(&x->t, "%llu", (unsigned long long)l->offset);
    table_add(&x->t, l->type);
    table_addf(&x->t, "%llu", (unsigned long long)l->index);
    table_addf(&x->t, "%llu", (unsigned long long)l->term);
    table_addf(&x->t, "%llu", (unsigned long long)l->size);
    table_add(&x->t, l->state);
    table_add(&x->t, l->note);
}

/* The node's folder: as said, or the one above the log's. */
static char *root_of(const struct cli *c)
{
    const char *path = cli_arg(c, 0);
    if (cli_str(c, "root") || !path)
        return xstrdup(cli_str(c, "root") ? cli_str(c, "root") : ROOT);
    AUTO_FREE char *in_folder = path_join(path, "../identity.mp"), *of_file = term_folder(path);
    AUTO_FREE char *beside = path_join(of_file, "../identity.mp");
    return file_exists(in_folder) ? path_join(path, "..") : file_exists(beside) ? path_join(of_file, "..") : xstrdup(ROOT);
}

static int cmd_log(struct cli *c, struct err *e)
{
    AUTO_FREE char *root = root_of(c), *log = path_join(root, "raft");
    const char *path = cli_arg(c, 0) ? cli_arg(c, 0) : log;
    uint8_t keys[2][32] = { { 0 } };
    struct err why = { 0 };
    struct raft_dump_result result;
    enum format format;
    int rc = format_of(c, &format, e);
    int n = rc == 0 && cli_log_keys ? cli_log_keys(root, keys, &why) : 0;
    if (rc < 0)
        return rc;
    if (n <= 0)
        fprintf(c->err, "no key of the log in %s%s%s: only headers are checked\n", root, n < 0 ? ": " : "",
                n < 0 ? why.text : "");
    struct raft_keys known = { .now = n > 0 ? keys[0] : NULL, .before = n > 1 ? keys[1] : NULL };
    struct lines x = { .quiet = cli_on(c, "quiet") };
    table_init(&x.t, columns, ARRAY_N(columns));
    rc = raft_dump(path, n > 0 ? &known : NULL, add_line, &x, &result, e);
    crypto_wipe(keys, sizeof keys);
    if (rc == 0 && format == FORMAT_JSON)
        table_json(&x.t, c->out);
    else if (rc == 0)
        table_print(&x.t, c->out);
    table_done(&x.t);
    if (rc == 0 && result.rotten) {
        fprintf(c->err, "%s is damaged in %llu of %llu places; a manager with others beside it repairs itself when its daemon "
                "starts\n", path, (unsigned long long)result.rotten, (unsigned long long)result.lines);
        c->status = STATUS_DAMAGED;
    } else if (rc == 0) {
        fprintf(c->err, "%s is sound: %llu records%s\n", path, (unsigned long long)result.lines,
                result.torn ? ", the last write was torn and counts for nothing" : "");
    }
    return rc;
}

/* ---- the way between two containers ---- */
static const struct cli_flag debug_path_flags[] = {
    { "format", 0, CLI_STR, "Output: table or json", NULL },
    { 0 },
};

static const struct column path_columns[] = { { "WAY", "Way", false }, { "STEP", "Step", false }, { "STATE", "State", false },
                                              { "WHAT", "What", false } };

static void add_leg(struct table *t, const char *way, const struct val *leg)
{
    const struct val *steps = val_get(leg, "Steps");
    if (val_get(leg, "Error")) {
        table_add(t, way);
        table_add(t, "node");
        table_add(t, "broken");
        table_addf(t, "%s: %s", str_at(leg, "Node"), str_at(leg, "Error"));
    }
    for (uint32_t i = 0; steps && steps->kind == V_LIST && i < steps->n; i++) {
        table_add(t, way);
        table_add(t, str_at(steps->list[i], "Step"));
        table_add(t, str_at(steps->list[i], "State"));
        table_add(t, str_at(steps->list[i], "Text"));
    }
}

static int cmd_path(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    struct table t;
    enum format format;
    sb_init(&path, 0);
    int rc = format_of(c, &format, e);
    if (rc < 0)
        return rc;
    sb_str(&path, "/shoal/v1/path?from=");
    http_encode(&path, cli_arg(c, 0));
    sb_str(&path, "&to=");
    http_encode(&path, cli_arg(c, 1));
    rc = cli_call(c, "GET", path.s, NULL, &d, e);
    if (rc < 0)
        return rc;
    const struct val *root = val_root(d), *there = val_get(root, "There"), *back = val_get(root, "Back");
    bool broken = val_get_bool(root, "Broken", true);
    if (format == FORMAT_JSON) {
        AUTO_SB struct sb text;
        sb_init(&text, 0);
        json_write(&text, root, 0);
        fprintf(c->out, "%s\n", text.s);
    } else {
        table_init(&t, path_columns, ARRAY_N(path_columns));
        add_leg(&t, "there", there);
        if (back)
            add_leg(&t, "back", back);
        table_print(&t, c->out);
        table_done(&t);
        fprintf(c->out, "%s from %s on %s to %s%s%s\n", broken ? "BROKEN:" : "Whole:", str_at(there, "Task"), str_at(there, "Node"),
                cli_arg(c, 1), back ? " on " : "", back ? str_at(back, "Node") : "");
    }
    c->status = broken ? STATUS_BROKEN : 0;
    val_doc_free(d);
    return 0;
}

const struct cli_command debug_commands[] = {
    { "debug log", "[PATH]",
      "List and check the records of a manager's log (a folder, or a segment or snapshot of it); exit status 3: damaged",
      debug_log_flags, "shoal debug log --root /var/lib/shoal", cmd_log, 0, 1, 0 },
    { "debug path", "TASK NAME",
      "Walk the way from a task's container to another task, or to a name or address it asks for, on both nodes: name, virtual IP, "
      "replicas, links, tunnel, packets small and large; exit status 3: broken",
      debug_path_flags, "shoal debug path shop_web.1 db", cmd_path, 2, 2, 0 },
    { 0 },
};
