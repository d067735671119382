/* Completion of command lines. The scripts for bash, zsh and fish are a few lines each: they all ask
 * `shoal __complete WORDS... CURRENT`, which knows the command table and asks the daemon for names, so that no
 * shell can fall behind. Its answer: a candidate and a tab and what it is, a line each; ":files" stands for the
 * files of the current folder. */
#include "cli.h"
#include <shoal/base/file.h>

static const char bash_script[] =
    "# Completion of shoal for bash. Put it into /etc/bash_completion.d, or: source <(shoal completion bash)\n"
    "_shoal() {\n"
    "    local typed=${COMP_LINE:0:COMP_POINT} words cur kept line file\n"
    "    read -ra words <<<\"$typed\"\n"
    "    [[ $typed == *[[:space:]] ]] && words+=('')\n"
    "    cur=${words[-1]}\n"
    "    kept=${cur%\"${cur##*[:=]}\"} # bash takes what is before : and = for words of their own\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r line; do\n"
    "        if [[ $line == :files ]]; then\n"
    "            compopt -o filenames\n"
    "            while IFS= read -r file; do COMPREPLY+=(\"${file#\"$kept\"}\"); done < <(compgen -f -- \"$cur\")\n"
    "        else\n"
    "            line=${line%%$'\\t'*}\n"
    "            COMPREPLY+=(\"${line#\"$kept\"}\")\n"
    "        fi\n"
    "    done < <(\"${words[0]}\" __complete \"${words[@]:1}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _shoal shoal\n";

static const char zsh_script[] =
    "#compdef shoal\n"
    "# Completion of shoal for zsh. Put it as _shoal into a folder of $fpath, or: source <(shoal completion zsh)\n"
    "_shoal() {\n"
    "    local line\n"
    "    local -a items\n"
    "    for line in \"${(@f)$(\"${words[1]}\" __complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
    "        case $line in\n"
    "        :files) _files ;;\n"
    "        ?*) items+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    (( $#items )) && _describe -V shoal items\n"
    "}\n"
    "if [[ ${funcstack[1]} == _shoal ]]; then _shoal \"$@\"; else compdef _shoal shoal; fi\n";

static const char fish_script[] =
    "# Completion of shoal for fish. Put it into ~/.config/fish/completions, or: shoal completion fish | source\n"
    "function __shoal_complete\n"
    "    set -l words (commandline -opc) (commandline -ct)\n"
    "    for line in (command $words[1] __complete $words[2..-1] 2>/dev/null)\n"
    "        if test \"$line\" = :files\n"
    "            __fish_complete_path (commandline -ct)\n"
    "        else\n"
    "            echo $line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c shoal -f -a '(__shoal_complete)'\n";

int cmd_completion(struct cli *c, struct err *e)
{
    const char *shell = cli_arg(c, 0);
    const char *script = !strcmp(shell, "bash")   ? bash_script
                         : !strcmp(shell, "zsh")  ? zsh_script
                         : !strcmp(shell, "fish") ? fish_script
                                                  : NULL;
    if (!script)
        return cli_usage(c, e, "there is no completion for %s; give bash, zsh or fish", shell);
    fputs(script, c->out);
    return 0;
}

/* ---- candidates ---- */
struct ask { struct cli *c; const char *cur; struct strs seen; };

/* Text may come from the cluster: control characters would break the protocol of lines. */
static void offer(struct ask *a, const char *word, const char *about)
{
    if (!*word || !str_starts(word, a->cur) || strs_has(&a->seen, word))
        return;
    for (const char *p = word; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127)
            return;
    strs_add(&a->seen, word);
    fprintf(a->c->out, "%s\t%s\n", word, about);
}

/* "a|b|c" */
static void offer_choices(struct ask *a, const char *choices, const char *about)
{
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        AUTO_FREE char *word = xstrndup(p, n);
        offer(a, word, about);
        p += n + (p[n] == '|');
    }
}

/* The first word after `prefix` of every command that begins so. */
static void offer_words(struct ask *a, const char *prefix)
{
    size_t n = strlen(prefix);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++) {
            if (strncmp(k->words, prefix, n))
                continue;
            size_t len = strcspn(k->words + n, " ");
            AUTO_FREE char *word = xstrndup(k->words + n, len);
            AUTO_FREE char *about = k->words[n + len] ? xasprintf("Commands for %ss", word) : xstrdup(k->summary);
            offer(a, word, about);
        }
    if (n)
        return;
    offer(a, "daemon", "Run the node itself");
    offer(a, "oci", "Run containers from OCI bundles, as runc and crun do");
    offer(a, "help", "Show what commands there are, or how one is used");
}

static const struct kind { const char *word, *path, *name, *about; } kinds[] = {
    { "SERVICE", "/services", "Spec.Name", "service" },
    { "STACK", "/services", "Spec.Labels", "stack" },
    { "NODE", "/nodes", "Description.Hostname", "node" },
    { "CONTAINER", "/containers/json?all=1", "Names", "container" },
    { "IMAGE", "/images/json", "RepoTags", "image" },
    { "NETWORK", "/networks", "Name", "network" },
    { "SECRET", "/secrets", "Spec.Name", "secret" },
    { "CONFIG", "/configs", "Spec.Name", "config" },
};

static void offer_names(struct ask *a, const struct kind *k)
{
    struct val_doc *d = NULL;
    struct err ignored; /* no daemon, no names */
    if (cli_get(a->c, &d, &ignored, "%s", k->path) < 0)
        return;
    const struct val *list = val_root(d);
    for (uint32_t i = 0; list->kind == V_LIST && i < list->n; i++) {
        const struct val *v = at(list->list[i], k->name);
        if (v && v->kind == V_STR)
            offer(a, v->s, k->about);
        else if (v && v->kind == V_MAP && val_get_str(v, "com.docker.stack.namespace"))
            offer(a, val_get_str(v, "com.docker.stack.namespace"), k->about);
        for (uint32_t n = 0; v && v->kind == V_LIST && n < v->n; n++)
            if (v->list[n]->kind == V_STR)
                offer(a, v->list[n]->s + (v->list[n]->s[0] == '/'), k->about);
    }
    val_doc_free(d);
}

/* What stands at place k of "[NODE...]", "CONTAINER COMMAND [ARG...]", "FILE|- [NAME[:TAG]]"; the last one
 * repeats if it ends with dots. */
static void offer_argument(struct ask *a, const char *args, unsigned place)
{
    const char *p = args;
    for (; place && strchr(p, ' '); place--)
        p = strchr(p, ' ') + 1;
    AUTO_FREE char *word = xstrndup(p, strcspn(p, " "));
    if (place && !strstr(word, "..."))
        return;
    if (strstr(word, "FILE"))
        fputs(":files\n", a->c->out);
    for (unsigned i = 0; i < ARRAY_N(kinds); i++)
        if (strstr(word, kinds[i].word))
            offer_names(a, &kinds[i]);
    char *from = word + (*word == '['), *end = strchr(from, ']');
    if (end)
        *end = '\0';
    if (*from >= 'a' && *from <= 'z')
        offer_choices(a, from, "");
}

static void offer_value(struct ask *a, const struct cli_flag *f)
{
    if (f->choices)
        offer_choices(a, f->choices, f->name);
    else if (strstr(f->name, "file") || !strcmp(f->name, "input"))
        fputs(":files\n", a->c->out);
    else if (!strcmp(f->name, "format"))
        offer_choices(a, "table|json", "");
    for (unsigned i = 0; i < ARRAY_N(kinds); i++)
        if (f->kind != CLI_BOOL && !strcasecmp(f->name, kinds[i].word))
            offer_names(a, &kinds[i]);
}

/* The flag that takes the word after it as its value: "--name" or the last of letters, "-it". */
static const struct cli_flag *awaits_value(const struct cli_flag *flags, const char *word)
{
    for (const struct cli_flag *f = flags; f && f->name; f++) {
        bool this = word[0] == '-' && word[1] == '-' ? !strcmp(word + 2, f->name)
                                                     : word[0] == '-' && word[1] && f->letter == word[strlen(word) - 1];
        if (this && f->kind != CLI_BOOL)
            return f;
    }
    return NULL;
}

static void offer_flags(struct ask *a, const struct cli_flag *flags)
{
    for (const struct cli_flag *f = flags; f && f->name; f++) {
        AUTO_FREE char *word = xasprintf("--%s", f->name);
        offer(a, word, f->help);
    }
    offer(a, "--help", "Print usage");
}

static void in_command(struct ask *a, const struct cli_command *k, char **argv, int argc)
{
    const struct cli_flag *open = NULL;
    unsigned place = 0;
    for (int i = 0; i < argc; i++) {
        open = open ? NULL : awaits_value(k->flags, argv[i]);
        place += !open && argv[i][0] != '-' && !(i > 0 && awaits_value(k->flags, argv[i - 1]));
    }
    bool program = (k->how & CLI_REST) && place >= k->min_args; /* flags of another program */
    if (open)
        offer_value(a, open);
    else if (a->cur[0] == '-' && !program)
        offer_flags(a, k->flags);
    else if (place < k->max_args)
        offer_argument(a, k->args, place);
}

static void offer_usage_flag(void *arg, const char *flag, const char *value, const char *text)
{
    (void)value;
    offer(arg, flag, text);
}

void complete_line(struct cli *c, int argc, char **argv)
{
    struct ask a = { .c = c, .cur = argc > 0 ? argv[argc - 1] : "" };
    int i = 0, used, before = argc > 0 ? argc - 1 : 0;
    const struct cli_flag *open = NULL;
    for (; i < before && argv[i][0] == '-'; i++) {
        open = awaits_value(cli_global_flags, argv[i]);
        if (open && i + 1 < before) {
            if (!strcmp(open->name, "host") && str_starts(argv[i + 1], "unix:///"))
                str_set(&c->host, argv[i + 1] + 7);
            open = NULL;
            i++;
        }
    }
    if (i < before && !strcmp(argv[i], "help"))
        i++;
    const struct cli_command *k = cli_find(argv + i, before - i, &used);
    AUTO_SB struct sb prefix;
    sb_init(&prefix, 0);
    for (int n = i; n < before; n++)
        sb_printf(&prefix, "%s ", argv[n]);
    if (open)
        offer_value(&a, open);
    else if (k)
        in_command(&a, k, argv + i + used, before - i - used);
    else if (a.cur[0] == '-' && i == before)
        offer_flags(&a, cli_global_flags);
    else if (i < before && !strcmp(argv[i], "daemon"))
        usage_flags(cli_daemon_usage, offer_usage_flag, &a);
    else if (i < before && !strcmp(argv[i], "oci"))
        usage_flags(cli_oci_usage, offer_usage_flag, &a);
    else
        offer_words(&a, prefix.s);
    strs_clear(&a.seen);
}
