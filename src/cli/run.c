/* One command from start to end: help, parse, run, print the error, exit status (2: wrong use of the command
 * line, 1: it failed, or what the command chose, such as the exit code of a container). */
#include "cli.h"
#include <shoal/base/crypto.h>

static bool is_help(const char *a)
{
    return !strcmp(a, "--help") || !strcmp(a, "-h");
}

static bool has_letter(const struct cli_command *k, char letter)
{
    for (const struct cli_flag *f = k->flags; f && f->name; f++)
        if (f->letter == letter)
            return true;
    return false;
}

/* --help anywhere before the words of another program. True: printed. */
static bool help_asked(FILE *out, int argc, char **argv, int *ret_status)
{
    int start = 1, used;
    *ret_status = 0;
    while (start < argc && argv[start][0] == '-' && !is_help(argv[start]))
        start += !strcmp(argv[start], "-H") || !strcmp(argv[start], "--host") || !strcmp(argv[start], "--format")
                     ? 2 : 1;
    if (start >= argc && argc > 1)
        return false;
    if (argc <= 1 || is_help(argv[start]) || !strcmp(argv[start], "help")) {
        if (argc > start + 1 && argv[start][0] == 'h') { /* help WORDS */
            const struct cli_command *k = cli_find(argv + start + 1, argc - start - 1, &used);
            if (!strcmp(argv[start + 1], "daemon"))
                return fputs(cli_daemon_usage, out) >= 0;
            if (!strcmp(argv[start + 1], "oci"))
                return fputs(cli_oci_usage, out) >= 0;
            if (k)
                cli_help(out, k);
            return k || cli_group_help(out, argv[start + 1]);
        }
        return cli_group_help(out, "");
    }
    const struct cli_command *k = cli_find(argv + start, argc - start, &used);
    if (!k) {
        bool asked = argc > start + 1 && is_help(argv[start + 1]);
        return (asked || argc == start + 1) && cli_group_help(out, argv[start]);
    }
    for (int i = start + used; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--help") || (is_help(argv[i]) && !has_letter(k, 'h'))) {
            cli_help(out, k);
            return true;
        }
        if ((k->how & CLI_REST) && argv[i][0] != '-')
            break;
    }
    return false;
}

static void default_host(struct cli *c)
{
    const char *host = getenv("SHOAL_HOST");
    if (c->host)
        return;
    if (!host || !host[0])
        host = CLI_HOST;
    c->host = xstrdup(str_starts(host, "unix://") ? host + 7 : host);
}

int cli_main(int argc, char **argv)
{
    struct cli c = { .out = stdout, .err = stderr, .now_ns = term_now_ns(), .tty = term_is_tty(1) };
    struct err e = { 0 };
    int status;
    crypto_init();
    if (argc > 1 && !strcmp(argv[1], "__complete")) {
        default_host(&c);
        complete_line(&c, argc - 2, argv + 2);
        cli_clear(&c);
        return 0;
    }
    if (help_asked(stdout, argc, argv, &status))
        return status;
    int rc = cli_parse(&c, argc, argv, &e);
    if (rc == 0) {
        default_host(&c);
        rc = c.command->run(&c, &e);
    }
    if (fflush(stdout) != 0 && rc == 0)
        rc = err_set(&e, E_IO, "cannot write to the standard output; is the disk full?");
    if (rc < 0)
        fprintf(stderr, "Error: %s\n", e.text);
    status = c.status ? c.status : rc == 0 ? 0 : rc == -E_INVALID && !c.refused ? CLI_USAGE : 1;
    cli_clear(&c);
    return status;
}
