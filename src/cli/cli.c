/* The parser of the command line: words pick a row of the table, flags are read as GNU and pflag programs read
 * them (--name value, --name=value, -n value, -nvalue, -it, --bool=false, --). Pure; help is in help.c. */
#include "cli.h"
#include <shoal/base/file.h>
#include <shoal/stack.h>
#include <stdlib.h>

const struct cli_command *const cli_groups[] = { swarm_commands, key_commands, manager_commands, backup_commands, node_commands,
                                                 stack_commands,
                                                 service_change_commands, service_commands, object_commands,
                                                 image_commands, login_commands, container_commands, change_commands, copy_commands, usage_commands, prune_commands,
                                                 system_commands, debug_commands, NULL };

const struct cli_flag cli_global_flags[] = {
    { "host", 'H', CLI_STR, "Socket of the daemon: unix://PATH (or SHOAL_HOST; default " CLI_HOST ")", NULL },
    { "format", 0, CLI_STR, "Output: table or json (one object a line)", NULL },
    { "help", 0, CLI_BOOL, "Print usage", NULL },
    { 0 },
};

/* How many words of the row stand at the start of argv; 0: not this one. */
static int words_match(const char *words, char **argv, int argc)
{
    int n = 0;
    for (const char *w = words; *w; n++) {
        size_t len = strcspn(w, " ");
        if (n >= argc || strlen(argv[n]) != len || strncmp(argv[n], w, len))
            return 0;
        w += len + (w[len] == ' ');
    }
    return n;
}

const struct cli_command *cli_find(char **argv, int argc, int *ret_used)
{
    const struct cli_command *best = NULL;
    *ret_used = 0;
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            int n = words_match(k->words, argv, argc);
            if (n > *ret_used) {
                *ret_used = n;
                best = k;
            }
        }
    return best;
}

int cli_usage(const struct cli *c, struct err *e, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(e, E_INVALID, "%s; see `shoal %s --help`", text, c->command->words);
}

/* ---- values ---- */
static int find_flag(const struct cli_flag *flags, const char *name, size_t len, char letter)
{
    for (int i = 0; flags && flags[i].name; i++)
        if (letter ? flags[i].letter == letter
                   : strlen(flags[i].name) == len && !strncmp(flags[i].name, name, len))
            return i;
    return -1;
}

static struct cli_value *value_of(const struct cli *c, const char *flag)
{
    int i = find_flag(c->command->flags, flag, strlen(flag), 0);
    ASSERT(i >= 0 && i < CLI_MAX_FLAGS);
    return (struct cli_value *)&c->values[i];
}

bool cli_has(const struct cli *c, const char *flag)
{
    return find_flag(c->command->flags, flag, strlen(flag), 0) >= 0 && value_of(c, flag)->set;
}

const char *cli_str(const struct cli *c, const char *flag)
{
    const struct cli_value *v = value_of(c, flag);
    return v->set ? v->v.v[v->v.n - 1] : NULL;
}

int64_t cli_num(const struct cli *c, const char *flag, int64_t otherwise)
{
    const struct cli_value *v = value_of(c, flag);
    return v->set ? v->i : otherwise;
}

double cli_ratio(const struct cli *c, const char *flag, double otherwise)
{
    const struct cli_value *v = value_of(c, flag);
    return v->set ? v->r : otherwise;
}

bool cli_on(const struct cli *c, const char *flag)
{
    return cli_num(c, flag, 0) != 0;
}

const struct strs *cli_list(const struct cli *c, const char *flag)
{
    return &value_of(c, flag)->v;
}

const char *cli_arg(const struct cli *c, unsigned k)
{
    return k < c->args.n ? c->args.v[k] : NULL;
}

static bool is_choice(const char *choices, const char *s)
{
    size_t len = strlen(s);
    for (const char *p = choices; len && *p;) {
        size_t n = strcspn(p, "|");
        if (n == len && !strncmp(p, s, n))
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

static int set_value(const struct cli *c, const struct cli_flag *f, struct cli_value *v, const char *s,
                     struct err *e)
{
    const char *want = NULL;
    char *end;
    switch (f->kind) {
    case CLI_BOOL:
        v->i = is_choice("true|1|yes", s);
        want = v->i || is_choice("false|0|no", s) ? NULL : "true or false";
        break;
    case CLI_INT:
        v->i = strtoll(s, &end, 10);
        want = *s && !*end && strlen(s) < 19 ? NULL : "a whole number";
        break;
    case CLI_RATIO:
        v->r = strtod(s, &end);
        want = *s && !*end && v->r >= 0 && v->r <= 1 ? NULL : "a number between 0 and 1";
        break;
    case CLI_DURATION:
        want = stack_duration_ns(s, &v->i) == 0 ? NULL : "a duration such as 10s, 1m30s, 500ms";
        break;
    case CLI_BYTES:
        want = stack_size_bytes(s, &v->i) == 0 ? NULL : "a size such as 64m or 1g";
        break;
    case CLI_CPUS:
        want = stack_nano_cpus(s, &v->i) == 0 ? NULL : "a number of processors such as 0.5";
        break;
    default:
        want = f->choices && !is_choice(f->choices, s) ? f->choices : NULL;
    }
    if (want && want == f->choices) {
        AUTO_SB struct sb b;
        sb_init(&b, 0);
        for (const char *p = want; *p; p++) /* "a|b|c" reads "a, b or c" */
            if (*p == '|')
                sb_str(&b, strchr(p + 1, '|') ? ", " : " or ");
            else
                sb_char(&b, *p);
        return cli_usage(c, e, "--%s %s: must be %s", f->name, s, b.s);
    }
    if (want)
        return cli_usage(c, e, "--%s %s: must be %s", f->name, s, want);
    if (f->kind != CLI_LIST)
        strs_clear(&v->v);
    strs_add(&v->v, s);
    v->set = true;
    return 0;
}

static int set_global(struct cli *c, const struct cli_flag *f, const char *s, struct err *e)
{
    if (!strcmp(f->name, "format")) {
        str_set(&c->format, s);
        return 0;
    }
    if (!str_starts(s, "unix://") || s[7] != '/')
        return err_set(e, E_INVALID, "-H %s: only unix:///ABSOLUTE/PATH is possible (or set SHOAL_HOST)", s);
    str_set(&c->host, s + 7);
    return 0;
}

/* ---- one flag of argv ---- */
struct scan { int argc, i; char **argv; };

static int take_flag(struct cli *c, struct scan *s, const struct cli_flag *f, bool global, const char *inline_value,
                     struct err *e)
{
    const char *v = inline_value;
    if (!v && f->kind == CLI_BOOL)
        v = "true";
    else if (!v && ++s->i < s->argc)
        v = s->argv[s->i];
    if (!v)
        return c->command ? cli_usage(c, e, "--%s needs a value", f->name)
                          : err_set(e, E_INVALID, "--%s needs a value; see `shoal --help`", f->name);
    return global ? set_global(c, f, v, e) : set_value(c, f, &c->values[f - c->command->flags], v, e);
}

static int unknown(const struct cli *c, const char *flag, struct err *e)
{
    const char *words = c->command ? c->command->words : "";
    return err_set(e, E_INVALID, "unknown flag %s for `shoal%s%s`; see `shoal%s%s --help`", flag,
                   *words ? " " : "", words, *words ? " " : "", words);
}

static int parse_long(struct cli *c, struct scan *s, struct err *e)
{
    const char *a = s->argv[s->i] + 2, *eq = strchr(a, '=');
    size_t len = eq ? (size_t)(eq - a) : strlen(a);
    const struct cli_flag *flags = c->command ? c->command->flags : NULL;
    int i = find_flag(flags, a, len, 0);
    if (i >= 0)
        return take_flag(c, s, &flags[i], false, eq ? eq + 1 : NULL, e);
    i = find_flag(cli_global_flags, a, len, 0);
    if (i < 0 || (c->command && i != 0)) /* --format only where the command has it */
        return unknown(c, s->argv[s->i], e);
    return take_flag(c, s, &cli_global_flags[i], true, eq ? eq + 1 : NULL, e);
}

static int parse_letters(struct cli *c, struct scan *s, struct err *e)
{
    const struct cli_flag *flags = c->command ? c->command->flags : NULL;
    for (const char *a = s->argv[s->i] + 1; *a; a++) {
        int i = find_flag(flags, NULL, 0, *a);
        bool global = i < 0 && *a == 'H';
        const struct cli_flag *f = global ? &cli_global_flags[0] : i >= 0 ? &flags[i] : NULL;
        if (!f) {
            char text[3] = { '-', *a, 0 };
            return unknown(c, text, e);
        }
        if (f->kind != CLI_BOOL || a[1] == '=') {
            const char *v = a[1] == '=' ? a + 2 : a[1] ? a + 1 : NULL;
            return take_flag(c, s, f, global, v, e);
        }
        int rc = take_flag(c, s, f, global, "true", e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_args(struct cli *c, struct err *e)
{
    const struct cli_command *k = c->command;
    if (c->args.n < k->min_args)
        return cli_usage(c, e, "`shoal %s` needs %s", k->words, k->args);
    if (c->args.n > k->max_args)
        return cli_usage(c, e, "`shoal %s` does not take \"%s\"", k->words, c->args.v[k->max_args]);
    if (!c->format)
        return 0;
    if (find_flag(k->flags, "format", 6, 0) < 0)
        return cli_usage(c, e, "unknown flag --format for `shoal %s`", k->words);
    struct cli_value *v = value_of(c, "format");
    if (!v->set)
        strs_add(&v->v, c->format);
    v->set = true;
    return 0;
}

static bool is_group(const char *word)
{
    size_t n = strlen(word);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++)
            if (!strncmp(k->words, word, n) && k->words[n] == ' ')
                return true;
    return false;
}

static int no_command(char **argv, int argc, struct err *e)
{
    if (argc == 0)
        return err_set(e, E_INVALID, "give a command; see `shoal --help`");
    return err_set(e, E_INVALID, "`shoal %s%s%s` is no command; see `shoal %s%s--help`", argv[0],
                   argc > 1 ? " " : "", argc > 1 ? argv[1] : "", is_group(argv[0]) ? argv[0] : "",
                   is_group(argv[0]) ? " " : "");
}

int cli_parse(struct cli *c, int argc, char **argv, struct err *e)
{
    struct scan s = { .argc = argc, .argv = argv, .i = 1 };
    int rc = 0, used;
    for (; rc == 0 && s.i < argc && argv[s.i][0] == '-' && argv[s.i][1]; s.i++)
        rc = argv[s.i][1] == '-' ? parse_long(c, &s, e) : parse_letters(c, &s, e);
    if (rc < 0)
        return rc;
    c->command = cli_find(argv + s.i, argc - s.i, &used);
    if (!c->command)
        return no_command(argv + s.i, argc - s.i, e);
    for (s.i += used; rc == 0 && s.i < argc; s.i++) {
        const char *a = argv[s.i];
        if (a[0] != '-' || !a[1]) {
            strs_add(&c->args, a);
            if (!(c->command->how & CLI_REST) || c->args.n < c->command->min_args)
                continue;
            while (++s.i < argc)
                strs_add(&c->args, argv[s.i]);
        } else if (!strcmp(a, "--")) {
            while (++s.i < argc)
                strs_add(&c->args, argv[s.i]);
        } else {
            rc = a[1] == '-' ? parse_long(c, &s, e) : parse_letters(c, &s, e);
        }
    }
    return rc < 0 ? rc : check_args(c, e);
}

void cli_clear(struct cli *c)
{
    for (unsigned i = 0; i < CLI_MAX_FLAGS; i++)
        strs_clear(&c->values[i].v);
    strs_clear(&c->args);
    free(c->host);
    free(c->format);
    free(c->registry_auth);
    names_free(c);
    memset(c, 0, sizeof *c);
}
