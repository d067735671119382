/* The manual page, printed from the command table and from the daemon's usage text: it cannot fall behind. */
#include "cli.h"
#include <ctype.h>

const char *cli_daemon_usage = "";
const char *cli_oci_usage = "";

void usage_flags(const char *usage, usage_flag_fn *fn, void *arg)
{
    AUTO_FREE char *copy = xstrdup(usage);
    for (char *line = copy, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        char *flag = line + strspn(line, " ");
        if (flag == line || strncmp(flag, "--", 2))
            continue;
        AUTO_SB struct sb text;
        sb_init(&text, 0);
        char *value = flag + strcspn(flag, " "), *about = strstr(flag, "  ");
        sb_str(&text, about ? about + strspn(about, " ") : "");
        while (next && strspn(next, " ") > 20) { /* the text goes on */
            char *more = next + strspn(next, " ");
            next = strchr(next, '\n');
            if (next)
                *next++ = '\0';
            sb_printf(&text, " %s", more);
        }
        if (about)
            *about = '\0';
        if (*value)
            *value++ = '\0';
        fn(arg, flag, value, text.s);
    }
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

static void roff_flag(FILE *f, char letter, const char *name, const char *value, const char *help)
{
    fputs(".TP\n.B ", f);
    if (letter)
        fprintf(f, "\\-%c, ", letter);
    fputs("\\-\\-", f);
    roff(f, name);
    if (*value)
        fprintf(f, " \\fI%s\\fR", value);
    fputc('\n', f);
    roff(f, help);
}

static void roff_flags(FILE *f, const struct cli_flag *flags)
{
    for (const struct cli_flag *p = flags; p && p->name; p++) {
        roff_flag(f, p->letter, p->name, cli_kind_word(p->kind), p->help);
        if (p->choices) {
            fputs(" (", f);
            roff(f, p->choices);
            fputs(")", f);
        }
        fputs("\n", f);
    }
}

static void roff_daemon_flag(void *arg, const char *flag, const char *value, const char *text)
{
    roff_flag(arg, 0, flag + 2, value, text);
    fputc('\n', arg);
}

static void roff_command(FILE *f, const struct cli_command *k)
{
    fprintf(f, ".SS shoal %s ", k->words);
    roff(f, k->args);
    fputs("\n", f);
    roff(f, k->summary);
    fputs(".\n", f);
    roff_flags(f, k->flags);
    fputs(".PP\nExample:\n.PP\n.nf\n.RS 4\n", f);
    roff(f, k->example);
    fputs("\n.RE\n.fi\n", f);
}

static const char head[] =
    ".SH NAME\nshoal \\- runs services on a cluster of machines\n"
    ".SH SYNOPSIS\n.B shoal\n[\\fB\\-H\\fR unix://\\fIPATH\\fR] \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]\n"
    ".SH DESCRIPTION\nshoal makes one cluster of many machines and runs services on it: containers in as many replicas "
    "as asked for, on networks of their own, restarted when they end and moved when a machine is lost.\n.PP\n"
    "Every machine runs one\n.BR \"shoal daemon\" .\nThe other commands talk to it over its unix socket, which speaks "
    "the Docker Engine API. Commands, flags and columns are those of the docker client where both have them.\n"
    ".SH FIRST STEPS\nOn the first machine, on each further one, and then on the first again:\n.PP\n.nf\n.RS 4\n"
    "shoal init \\-\\-advertise\\-addr 10.0.0.1\nshoal join \\-\\-token \\fITOKEN\\fR 10.0.0.1:2377\n"
    "shoal stack deploy \\-c compose.yaml shop\n.RE\n.fi\n.SH OPTIONS\n";

static const char tail[] =
    ".SH ENVIRONMENT\n.TP\n.B SHOAL_HOST\nSocket of the daemon, unix://PATH.\n"
    ".SH EXIT STATUS\n0: done; 1: it failed; 2: wrong use of the command line; run and exec: that of the program.\n"
    ".SH FILES\n.TP\n.I /var/lib/shoal\nState of the node: identity, cluster, containers, images, volumes.\n"
    ".TP\n.I /run/shoal/shoal.sock\nThe daemon's socket. It is root's: whoever may write to it is root on the machine.\n"
    ".TP\n.I /etc/default/shoal\nFlags of the daemon for the systemd unit: SHOAL_FLAGS=\"...\".\n"
    ".SH PORTS\n.TP\n.B 2377/tcp\nControl, between nodes.\n.TP\n.B 7946/udp\nGossip.\n.TP\n.B 4789/udp\n"
    "The tunnel that carries the containers' packets. All three are encrypted and authenticated.\n";

int cmd_man(struct cli *c, struct err *e)
{
    FILE *f = c->out;
    (void)e;
    fputs(".TH SHOAL 1 \"\" \"shoal " CLI_VERSION "\" \"User Commands\"\n.ad l\n.nh\n", f);
    fputs(head, f);
    roff_flags(f, cli_global_flags);
    fputs(".SH COMMANDS\n", f);
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++)
            roff_command(f, k);
    if (*cli_daemon_usage) {
        fputs(".SS shoal daemon\nRuns the node: containers, networks, and its part in a cluster. Containers go on when "
              "it ends.\n", f);
        usage_flags(cli_daemon_usage, roff_daemon_flag, f);
    }
    if (*cli_oci_usage) {
        fputs(".SS shoal oci\nRuns containers from OCI bundles without a daemon, by the command line of runc and crun; a link to "
              "shoal with the name shoal-oci is that program for callers such as containerd.\n.PP\n.nf\n", f);
        roff(f, cli_oci_usage);
        fputs(".fi\n", f);
    }
    fputs(tail, f);
    return 0;
}
