/* shoal debug: looks at what a node keeps, also while its daemon is down. */
#include "cli.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/raft.h>

#define ROOT "/var/lib/shoal"

enum { STATUS_DAMAGED = 3 };

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

const struct cli_command debug_commands[] = {
    { "debug log", "[PATH]",
      "List and check the records of a manager's log (a folder, or a segment or snapshot of it); exit status 3: damaged",
      debug_log_flags, "shoal debug log --root /var/lib/shoal", cmd_log, 0, 1, 0 },
    { 0 },
};
