/* --help of a command, of a group of commands and of the program, from the command table. */
#include "cli.h"

static const char *const kind_words[] = { [CLI_BOOL] = "",           [CLI_STR] = "string",  [CLI_LIST] = "list",
                                          [CLI_INT] = "int",         [CLI_DURATION] = "duration",
                                          [CLI_BYTES] = "bytes",     [CLI_CPUS] = "decimal",
                                          [CLI_RATIO] = "float" };

const char *cli_kind_word(enum cli_kind k)
{
    return kind_words[k];
}

static void flag_line(FILE *f, const struct cli_flag *flag, int width)
{
    char name[80], letter[8] = "   ";
    if (flag->letter)
        snprintf(letter, sizeof letter, "-%c,", flag->letter);
    snprintf(name, sizeof name, "%s %s", flag->name, kind_words[flag->kind]);
    fprintf(f, "  %s --%-*s %s", letter, width, name, flag->help);
    if (flag->choices)
        fprintf(f, " (%s)", flag->choices);
    fputc('\n', f);
}

static void flag_lines(FILE *f, const struct cli_flag *flags)
{
    int width = 0;
    for (const struct cli_flag *p = flags; p->name; p++)
        width = MAX(width, (int)(strlen(p->name) + strlen(kind_words[p->kind]) + 2));
    for (const struct cli_flag *p = flags; p->name; p++)
        flag_line(f, p, width);
}

void cli_help(FILE *f, const struct cli_command *k)
{
    bool flags = k->flags && k->flags[0].name;
    fprintf(f, "Usage:  shoal %s%s%s%s\n\n%s\n", k->words, flags ? " [OPTIONS]" : "", k->args[0] ? " " : "",
            k->args, k->summary);
    if (flags) {
        fputs("\nOptions:\n", f);
        flag_lines(f, k->flags);
    }
    fprintf(f, "\nExample:\n  %s\n", k->example);
}

/* Is k the first row whose words start with this group's word? */
static bool first_of_group(const struct cli_command *k, size_t len)
{
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *p = cli_groups[g]; p->words; p++) {
            if (p == k)
                return true;
            if (!strncmp(p->words, k->words, len) && p->words[len] == ' ')
                return false;
        }
    return false;
}

/* "ls, ps, inspect": the commands of a group. */
static void group_line(FILE *f, const char *words, size_t len)
{
    const char *comma = "";
    fprintf(f, "  %-12.*s ", (int)len, words);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++)
            if (!strncmp(k->words, words, len) && k->words[len] == ' ') {
                fprintf(f, "%s%s", comma, k->words + len + 1);
                comma = ", ";
            }
    fputc('\n', f);
}

static void help_all(FILE *f)
{
    fputs("Usage:  shoal [OPTIONS] COMMAND\n\nRuns services on a cluster of machines.\n\nCommands:\n", f);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++)
            if (!strchr(k->words, ' '))
                fprintf(f, "  %-12s %s\n", k->words, k->summary);
    fputs("  daemon       Run the node itself\n  oci          Run containers from OCI bundles, as runc and crun do\n\nGroups of commands:\n", f);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            size_t len = strcspn(k->words, " ");
            if (k->words[len] && first_of_group(k, len))
                group_line(f, k->words, len);
        }
    fputs("\nOptions:\n", f);
    flag_lines(f, cli_global_flags);
    fputs("\n`shoal COMMAND --help` and `shoal GROUP COMMAND --help` say more.\n\nExample:\n"
          "  shoal init && shoal stack deploy -c compose.yaml web && shoal service ls\n", f);
}

bool cli_group_help(FILE *f, const char *words)
{
    size_t len = strlen(words);
    const struct cli_command *some = NULL;
    if (!len) {
        help_all(f);
        return true;
    }
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            if (strncmp(k->words, words, len) || k->words[len] != ' ')
                continue;
            if (!some)
                fprintf(f, "Usage:  shoal %s COMMAND\n\nCommands:\n", words);
            some = some ? some : k;
            fprintf(f, "  %-12s %s\n", k->words + len + 1, k->summary);
        }
    if (some)
        fprintf(f, "\nExample:\n  %s\n", some->example);
    return some != NULL;
}
