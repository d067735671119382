/* The command line: words, flags in all spellings, errors that say where to look, help of every command. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/cli/cli.h"
#include <shoal/stack.h>

static struct cli c;
static struct err e;

static int parse(const char *line)
{
    struct strs words = { 0 };
    cli_clear(&c);
    e = (struct err){ 0 };
    assert_int_equal(stack_shell_split(line, &words), 0);
    int rc = cli_parse(&c, (int)words.n, words.v, &e);
    strs_clear(&words);
    return rc;
}

static void wrong(const char *line, const char *text)
{
    assert_int_equal(parse(line), -E_INVALID);
    assert_string_equal(e.text, text);
}

static void flags_in_all_spellings(void **state)
{
    static const char *const lines[] = {
        "shoal service create --name web --replicas 3 -e A=1 --env B=2 -d web:1 serve -v",
        "shoal service create --name=web --replicas=3 -eA=1 --env=B=2 --detach web:1 serve -v",
        "shoal service create --name web --replicas 3 -e=A=1 -e B=2 -d=true -- web:1 serve -v",
    };
    for (unsigned i = 0; i < ARRAY_N(lines); i++) {
        assert_int_equal(parse(lines[i]), 0);
        assert_string_equal(c.command->words, "service create");
        assert_string_equal(cli_str(&c, "name"), "web");
        assert_int_equal(cli_num(&c, "replicas", 0), 3);
        assert_true(cli_on(&c, "detach"));
        assert_int_equal(cli_list(&c, "env")->n, 2);
        assert_string_equal(cli_list(&c, "env")->v[0], "A=1");
        assert_string_equal(cli_list(&c, "env")->v[1], "B=2");
        assert_int_equal(c.args.n, 3);
        assert_string_equal(cli_arg(&c, 2), "-v");
    }
    assert_int_equal(parse("shoal exec -it web sh -c 'echo hi'"), 0);
    assert_true(cli_on(&c, "interactive") && cli_on(&c, "tty"));
    assert_int_equal(c.args.n, 4);
    assert_string_equal(cli_arg(&c, 3), "echo hi");
    assert_int_equal(parse("shoal node ls -q"), 0);
    assert_int_equal(parse("shoal stack deploy -c a.yaml --detach=false shop -c b.yaml"), 0); /* flags after words */
    assert_int_equal(cli_list(&c, "compose-file")->n, 2);
    assert_true(cli_has(&c, "detach") && !cli_on(&c, "detach"));
}

static void values_are_checked(void **state)
{
    assert_int_equal(parse("shoal service update --limit-cpu 0.5 --limit-memory 64m --update-delay 1m30s web"), 0);
    assert_int_equal(cli_num(&c, "limit-cpu", 0), 500000000);
    assert_int_equal(cli_num(&c, "limit-memory", 0), 64 << 20);
    assert_int_equal(cli_num(&c, "update-delay", 0), INT64_C(90000000000));
    wrong("shoal service update --update-order last web",
          "--update-order last: must be stop-first or start-first; see `shoal service update --help`");
    wrong("shoal service update --replicas many web",
          "--replicas many: must be a whole number; see `shoal service update --help`");
    wrong("shoal service update --update-max-failure-ratio 1.5 web",
          "--update-max-failure-ratio 1.5: must be a number between 0 and 1; see `shoal service update --help`");
    wrong("shoal service update --update-delay 5 web",
          "--update-delay 5: must be a duration such as 10s, 1m30s, 500ms; see `shoal service update --help`");
    wrong("shoal leave --force=perhaps", "--force perhaps: must be true or false; see `shoal leave --help`");
}

static void errors_say_where_to_look(void **state)
{
    wrong("shoal service ls --x", "unknown flag --x for `shoal service ls`; see `shoal service ls --help`");
    wrong("shoal service ls -zq", "unknown flag -z for `shoal service ls`; see `shoal service ls --help`");
    wrong("shoal --colour node ls", "unknown flag --colour for `shoal`; see `shoal --help`");
    wrong("shoal swarm explode", "`shoal swarm explode` is no command; see `shoal --help`");
    wrong("shoal", "give a command; see `shoal --help`");
    wrong("shoal node inspect", "`shoal node inspect` needs NODE...; see `shoal node inspect --help`");
    wrong("shoal node ls more", "`shoal node ls` does not take \"more\"; see `shoal node ls --help`");
    wrong("shoal service create --name", "--name needs a value; see `shoal service create --help`");
    wrong("shoal --format json leave", "unknown flag --format for `shoal leave`; see `shoal leave --help`");
    wrong("shoal leave --format json", "unknown flag --format for `shoal leave`; see `shoal leave --help`");
    wrong("shoal -H tcp://1.2.3.4:5 ps",
          "-H tcp://1.2.3.4:5: only unix:///ABSOLUTE/PATH is possible (or set SHOAL_HOST)");
}

static void global_flags(void **state)
{
    assert_int_equal(parse("shoal -H unix:///run/x.sock --format json node ls"), 0);
    assert_string_equal(c.host, "/run/x.sock");
    assert_string_equal(cli_str(&c, "format"), "json");
    assert_int_equal(parse("shoal node ls --host unix:///run/y.sock"), 0);
    assert_string_equal(c.host, "/run/y.sock");
    assert_int_equal(parse("shoal service create --host db:10.0.0.1 web:1"), 0); /* there it is another flag */
    assert_string_equal(cli_list(&c, "host")->v[0], "db:10.0.0.1");
    assert_null(c.host);
}

static void every_command_has_help_with_an_example(void **state)
{
    unsigned n = 0;
    for (unsigned g = 0; cli_groups[g]; g++)
        for (const struct cli_command *k = cli_groups[g]; k->words; k++, n++) {
            char *text = NULL, example[160];
            size_t size;
            FILE *f = open_memstream(&text, &size);
            cli_help(f, k);
            fclose(f);
            snprintf(example, sizeof example, "Example:\n  %s\n", k->example);
            assert_non_null(strstr(text, example));
            assert_non_null(strstr(k->example, k->words));
            assert_non_null(strstr(text, k->summary));
            free(text);
            unsigned flags = 0;
            for (const struct cli_flag *p = k->flags; p && p->name; p++, flags++)
                for (const struct cli_flag *q = k->flags; q < p; q++) {
                    assert_string_not_equal(p->name, q->name);
                    assert_true(!p->letter || p->letter != q->letter);
                }
            assert_true(flags <= CLI_MAX_FLAGS);
        }
    assert_true(n > 50);
    assert_false(cli_group_help(stdout, "nothing"));
}

/* What is printed for the words; the words of `line` are split at blanks, a last blank begins an empty word. */
static char *completed(const char *line)
{
    char *words[16], *text = NULL, *copy = xstrdup(line), *p = copy;
    size_t size;
    int n = 0;
    for (words[n++] = p; (p = strchr(p, ' ')); words[n++] = p)
        *p++ = '\0';
    cli_clear(&c);
    c.host = xstrdup("/nonexistent/shoal.sock");
    c.out = open_memstream(&text, &size);
    complete_line(&c, n, words);
    fclose(c.out);
    free(copy);
    return text;
}

static void words_are_completed(void **state)
{
    static const struct { const char *line, *has, *lacks; } cases[] = {
        { "", "service\tCommands for services\n", "create\t" },
        { "ser", "service\t", "node\t" },
        { "service ", "rollback\t", "init\t" },
        { "service cr", "create\tCreate a service\n", "update\t" },
        { "-H unix:///x.sock service cr", "create\t", "service\t" },
        { "--host unix:///x.sock --he", "--help\t", "daemon" },
        { "service create --update-max", "--update-max-failure-ratio\t", "--name" },
        { "service create --update-failure-action ", "rollback\t", "--" },
        { "service create --env-file ", ":files\n", "--" },
        { "image load -qi ", ":files\n", "--" },
        { "stack deploy -c a.yaml -", "--prune\t", ":files" },
        { "exec -", "--tty\t", ":files" },
        { "run --rm busybox ls -", "", "--" },
        { "completion ", "bash\t\nzsh\t\nfish\t\n", "help" },
        { "completion bash ", "", "zsh" },
        { "config create site ", ":files\n", "--" },
        { "config create ", "", ":files" },
        { "help service ", "create\t", "init" },
        { "nothing ", "", "\t" },
        { "daemon --", "--root\tWhere\n", "--help" },
    };
    cli_daemon_usage = "Options:\n      --root DIR   Where\n";
    for (unsigned i = 0; i < ARRAY_N(cases); i++) {
        char *text = completed(cases[i].line);
        if (!strstr(text, cases[i].has) || strstr(text, cases[i].lacks))
            fail_msg("\"%s\" is completed to:\n%s", cases[i].line, text);
        free(text);
    }
}

static void man_and_scripts(void **state)
{
    static const struct { const char *line, *has; } cases[] = {
        { "shoal man", "\\-\\-update\\-max\\-failure\\-ratio" },
        { "shoal man", ".SS shoal service create" },
        { "shoal man", ".B \\-\\-root \\fIDIR\\fR\nWhere\n" },
        { "shoal completion bash", "__complete" },
        { "shoal completion zsh", "#compdef shoal\n" },
        { "shoal completion fish", "complete -c shoal" },
    };
    for (unsigned i = 0; i < ARRAY_N(cases); i++) {
        char *text = NULL;
        size_t size;
        assert_int_equal(parse(cases[i].line), 0);
        c.out = open_memstream(&text, &size);
        assert_int_equal(c.command->run(&c, &e), 0);
        fclose(c.out);
        assert_non_null(strstr(text, cases[i].has));
        free(text);
    }
    assert_int_equal(parse("shoal completion tcsh"), 0);
    assert_int_equal(c.command->run(&c, &e), -E_INVALID);
}

static void usage_flag(void *arg, const char *flag, const char *value, const char *text)
{
    fprintf(arg, "[%s|%s|%s]", flag, value, text);
}

static void usage_text_is_read(void **state)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    usage_flags("Usage: x\n\n  --a DIR  One\n  --b      Two lines,\n                         joined\n\nExample: --c\n", usage_flag, f);
    fclose(f);
    assert_string_equal(text, "[--a|DIR|One][--b||Two lines, joined]");
    free(text);
}

static int end(void **state)
{
    cli_clear(&c);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_in_all_spellings),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(errors_say_where_to_look),
        cmocka_unit_test(global_flags),
        cmocka_unit_test(every_command_has_help_with_an_example),
        cmocka_unit_test(words_are_completed),
        cmocka_unit_test(man_and_scripts),
        cmocka_unit_test(usage_text_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
