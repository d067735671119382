/* The bash completion and the manual page, printed from the command table: they cannot fall behind it. */
#include "cli.h"

/* All words that can follow `prefix` ("" or "service "), once each. */
static void next_words(FILE *f, const char *prefix)
{
    struct strs seen = { 0 };
    size_t n = strlen(prefix);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            if (strncmp(k->words, prefix, n))
                continue;
            AUTO_FREE char *word = xstrndup(k->words + n, strcspn(k->words + n, " "));
            if (strs_has(&seen, word))
                continue;
            fprintf(f, "%s%s", seen.n ? " " : "", word);
            strs_add(&seen, word);
        }
    if (!n)
        fputs(" daemon help", f);
    strs_clear(&seen);
}

static void group_cases(FILE *f)
{
    struct strs seen = { 0 };
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            size_t n = strcspn(k->words, " ");
            if (!k->words[n])
                continue;
            AUTO_FREE char *group = xstrndup(k->words, n), *prefix = xasprintf("%s ", group);
            if (strs_has(&seen, group))
                continue;
            strs_add(&seen, group);
            fprintf(f, "        \"%s\") words=\"", group);
            next_words(f, prefix);
            fputs("\" ;;\n", f);
        }
    strs_clear(&seen);
}

int cmd_completion(struct cli *c, struct err *e)
{
    FILE *f = c->out;
    if (strcmp(cli_arg(c, 0), "bash"))
        return cli_usage(c, e, "completion for %s is not built; bash is", cli_arg(c, 0));
    fputs("# Put into /etc/bash_completion.d/shoal, or: source <(shoal completion bash)\n"
          "_shoal() {\n    local cur=${COMP_WORDS[COMP_CWORD]} path=() w words=\"\"\n"
          "    for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
          "        [[ $w == -* ]] || path+=(\"$w\")\n    done\n"
          "    case \"${path[*]:0:2}\" in\n        \"\") words=\"", f);
    next_words(f, "");
    fputs("\" ;;\n", f);
    group_cases(f);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            fprintf(f, "        \"%s\"", k->words);
            if (!strchr(k->words, ' '))
                fprintf(f, " | \"%s \"*", k->words);
            fputs(") words=\"--help", f);
            for (const struct cli_flag *p = k->flags; p && p->name; p++)
                fprintf(f, " --%s", p->name);
            fputs("\" ;;\n", f);
        }
    fputs("    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "    [[ ${#COMPREPLY[@]} -gt 0 || $cur == -* ]] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
          "complete -F _shoal shoal\n", f);
    return 0;
}

/* Text of a roff line: dashes and backslashes escaped, no leading dot or quote. */
static void roff(FILE *f, const char *s)
{
    if (*s == '.' || *s == '\'')
        fputs("\\&", f);
    for (; *s; s++)
        if (*s == '-' || *s == '\\')
            fputs(*s == '-' ? "\\-" : "\\e", f);
        else
            fputc(*s, f);
}

static void roff_flags(FILE *f, const struct cli_flag *flags)
{
    for (const struct cli_flag *p = flags; p && p->name; p++) {
        fputs(".TP\n.B ", f);
        if (p->letter)
            fprintf(f, "\\-%c, ", p->letter);
        fputs("\\-\\-", f);
        roff(f, p->name);
        fputs(p->kind == CLI_BOOL ? "\n" : " value\n", f);
        roff(f, *p->help ? p->help : "See the flag of the same name for updates.");
        if (p->choices) {
            fputs(" (", f);
            roff(f, p->choices);
            fputs(")", f);
        }
        fputs("\n", f);
    }
}

int cmd_man(struct cli *c, struct err *e)
{
    FILE *f = c->out;
    (void)e;
    fputs(".TH SHOAL 1 \"\" \"shoal " CLI_VERSION "\" \"User Commands\"\n.SH NAME\nshoal \\- runs services on a cluster "
          "of machines\n.SH SYNOPSIS\n.B shoal\n[\\-H unix://PATH] COMMAND [OPTIONS] [ARGUMENTS]\n.SH DESCRIPTION\n"
          "Talks to the shoal daemon of this machine over its unix socket. Commands, flags and columns are those of "
          "the docker client where both have them.\n.SH OPTIONS\n", f);
    roff_flags(f, cli_global_flags);
    fputs(".SH COMMANDS\n", f);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            fprintf(f, ".SS shoal %s ", k->words);
            roff(f, k->args);
            fputs("\n", f);
            roff(f, k->summary);
            fputs(".\n", f);
            roff_flags(f, k->flags);
            fputs(".PP\nExample:\n.PP\n.nf\n", f);
            roff(f, k->example);
            fputs("\n.fi\n", f);
        }
    fputs(".SH ENVIRONMENT\n.TP\n.B SHOAL_HOST\nSocket of the daemon, unix://PATH.\n.SH EXIT STATUS\n0: done; 1: it "
          "failed; 2: wrong use of the command line; run and exec: that of the program.\n", f);
    return 0;
}
