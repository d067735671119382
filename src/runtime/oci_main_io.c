/* The command line of `shoal oci`, or of a link to shoal with the name shoal-oci: that of runc and crun, so that
 * containerd and others can call it in their place. Every flag is done or refused by name. */
#include "oci_verbs.h"
#include <fcntl.h>
#include <shoal/base/file.h>
#include <shoal/base/version.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define DEFAULT_ROOT "/run/shoal/oci"
enum { FAILED = 1 };

const char oci_usage[] =
    "Usage:  shoal oci [OPTIONS] COMMAND [FLAGS] ID [ARG...]\n\n"
    "Runs containers from OCI bundles, without a daemon. Commands and flags are those of runc and crun.\n\n"
    "Commands:\n"
    "  create ID            Make a container from a bundle; it waits for its start\n"
    "  start ID             Run what was created\n"
    "  run ID               Both; waits for the end and deletes the container, its exit status is that of the program\n"
    "  exec ID COMMAND...   Run one more process in it\n"
    "  kill ID [SIGNAL]     Send a signal to its first process (default TERM)\n"
    "  delete ID            Take away a container that has ended\n"
    "  state ID             Print its state as JSON\n"
    "  list                 List the containers\n"
    "  ps ID                List its processes\n"
    "  pause ID             Stop all its processes\n"
    "  resume ID            Let them go on\n"
    "  features             Print what is supported as JSON\n\n"
    "Options:\n"
    "      --root DIR              Where containers are kept until the next reboot (default " DEFAULT_ROOT ")\n"
    "      --log FILE              Append errors to this file too\n"
    "      --log-format FORMAT     Text or json\n"
    "      --version               Print the version\n\n"
    "Flags of commands:\n"
    "  -b, --bundle DIR            create, run: the bundle (default: here)\n"
    "  -f, --config FILE           create, run: in place of the bundle's config.json\n"
    "      --console-socket PATH   create, run, exec: socket to which the terminal is sent\n"
    "      --pid-file FILE         create, run, exec: gets the pid\n"
    "      --preserve-fds N        create, run, exec: descriptors 3 to 3 + N - 1 are the process's\n"
    "      --no-new-keyring        create, run: the session keyring is that of the caller\n"
    "      --keep                  run: do not delete the container at its end\n"
    "  -d, --detach                run, exec: do not wait for the end\n"
    "  -p, --process FILE          exec: the process as JSON\n"
    "  -e, --env NAME=VALUE        exec: repeatable\n"
    "  -c, --cap CAP_NAME          exec: one more capability; repeatable\n"
    "      --cwd DIR               exec: working directory\n"
    "  -u, --user UID[:GID]        exec: who it runs as\n"
    "  -t, --tty                   exec: with a terminal\n"
    "      --no-new-privs          exec: it can gain no privileges\n"
    "  -a, --all                   kill: every process of the container\n"
    "      --force                 delete: kill it first; one that does not exist is no error\n"
    "  -q, --quiet                 list: only ids\n"
    "      --format FORMAT         list, ps: table or json\n\n"
    "Example:\n  shoal oci run --bundle /srv/bundle box\n";

enum { PROGRAM = 1, CREATE = 2, START = 4, RUN = 8, EXEC = 16, KILL = 32, DELETE = 64, STATE = 128, LIST = 256, PS = 512,
       PAUSE = 1024, RESUME = 2048, FEATURES = 4096 };
static const struct { const char *name; unsigned bit; oci_verb_fn *run; int max_args; } verbs[] = {
    { "create", CREATE, oci_create, 0 }, { "start", START, oci_start, 0 }, { "run", RUN, oci_run, 0 },
    { "exec", EXEC, oci_exec, INT16_MAX }, { "kill", KILL, oci_kill, 1 }, { "delete", DELETE, oci_delete, 0 },
    { "state", STATE, oci_state, 0 }, { "list", LIST, oci_list, -1 }, { "ps", PS, oci_ps, 0 }, { "pause", PAUSE, oci_pause, 0 },
    { "resume", RESUME, oci_resume, 0 }, { "features", FEATURES, oci_features, -1 },
};

#define TEXT(m) offsetof(struct oci_options, m), FLAG_TEXT
#define SWITCH(m) offsetof(struct oci_options, m), FLAG_SWITCH
#define LIST_OF(m) offsetof(struct oci_options, m), FLAG_LIST
enum flag_kind { FLAG_TEXT, FLAG_SWITCH, FLAG_LIST, FLAG_REFUSED, FLAG_REFUSED_TEXT, FLAG_NOTHING };
static const struct flag { const char *name; char letter; unsigned of; size_t at; enum flag_kind kind; const char *cure; } flags[] = {
    { "root", 0, PROGRAM, TEXT(root), NULL },
    { "log", 0, PROGRAM, TEXT(log), NULL },
    { "log-format", 0, PROGRAM, TEXT(log_format), NULL },
    { "debug", 0, PROGRAM, 0, FLAG_NOTHING, NULL }, /* there is nothing more to say */
    { "systemd-cgroup", 0, PROGRAM, 0, FLAG_REFUSED, "control groups are made as files; leave it out and give a path in linux.cgroupsPath" },
    { "cgroup-manager", 0, PROGRAM, 0, FLAG_REFUSED_TEXT, "control groups are made as files; leave it out" },
    { "criu", 0, PROGRAM, 0, FLAG_REFUSED_TEXT, "containers cannot be checkpointed" },
    { "rootless", 0, PROGRAM, 0, FLAG_REFUSED_TEXT, "only root can make containers" },
    { "bundle", 'b', CREATE | RUN, TEXT(bundle), NULL },
    { "config", 'f', CREATE | RUN, TEXT(config), NULL },
    { "console-socket", 0, CREATE | RUN | EXEC, TEXT(console_socket), NULL },
    { "pid-file", 0, CREATE | RUN | EXEC, TEXT(pid_file), NULL },
    { "preserve-fds", 0, CREATE | RUN | EXEC, 0, FLAG_TEXT, NULL },
    { "no-pivot", 0, CREATE | RUN, 0, FLAG_REFUSED, "a container that only changes its root can leave it; put the bundle on a disk or a tmpfs" },
    { "no-new-keyring", 0, CREATE | RUN, SWITCH(no_new_keyring), NULL },
    { "no-subreaper", 0, RUN, 0, FLAG_REFUSED, "run reaps what the container leaves" },
    { "keep", 0, RUN, SWITCH(keep), NULL },
    { "detach", 'd', RUN | EXEC, SWITCH(detach), NULL },
    { "process", 'p', EXEC, TEXT(process), NULL },
    { "env", 'e', EXEC, LIST_OF(env), NULL },
    { "cap", 'c', EXEC, LIST_OF(caps), NULL },
    { "cwd", 0, EXEC, TEXT(cwd), NULL },
    { "user", 'u', EXEC, TEXT(user), NULL },
    { "tty", 't', EXEC, SWITCH(tty), NULL },
    { "no-new-privs", 0, EXEC, SWITCH(no_new_privs), NULL },
    { "process-label", 0, EXEC, 0, FLAG_REFUSED_TEXT, "SELinux labels are not supported" },
    { "apparmor", 0, EXEC, 0, FLAG_REFUSED_TEXT, "AppArmor profiles are not supported" },
    { "additional-gids", 'g', EXEC, 0, FLAG_REFUSED_TEXT, "give them in --process FILE" },
    { "cgroup", 0, EXEC, 0, FLAG_REFUSED_TEXT, "it joins the container's own group" },
    { "ignore-paused", 0, EXEC, 0, FLAG_REFUSED, "resume the container first" },
    { "all", 'a', KILL, SWITCH(all), NULL },
    { "force", 'f', DELETE, SWITCH(force), NULL },
    { "quiet", 'q', LIST, SWITCH(quiet), NULL },
    { "format", 'f', LIST | PS, TEXT(format), NULL },
};

static const struct flag *find_flag(const char *arg, unsigned of)
{
    size_t n = strcspn(arg, "=");
    for (unsigned i = 0; i < ARRAY_N(flags); i++) {
        const struct flag *f = &flags[i];
        if (!(f->of & of))
            continue;
        if (arg[0] == '-' && arg[1] == '-' ? strlen(f->name) + 2 == n && strncmp(arg + 2, f->name, n - 2) == 0
                                           : f->letter && arg[1] == f->letter && n == 2)
            return f;
    }
    return NULL;
}

/* One flag and its value; how many arguments it took, or -E_. */
static int take_flag(struct oci_options *o, const struct flag *f, int argc, char **argv, struct err *e)
{
    const char *eq = strchr(argv[0], '=');
    bool wants = f->kind == FLAG_TEXT || f->kind == FLAG_LIST || f->kind == FLAG_REFUSED_TEXT;
    const char *value = eq ? eq + 1 : wants && argc > 1 ? argv[1] : NULL;
    char *member = (char *)o + f->at;
    uint64_t n;
    if (f->kind == FLAG_REFUSED || f->kind == FLAG_REFUSED_TEXT) {
        if (f->kind == FLAG_REFUSED && str_equal(value, "false"))
            return 1;
        return err_set(e, E_UNSUPPORTED, "--%s is not supported: %s", f->name, f->cure);
    }
    if (!wants) {
        if (value && !str_equal(value, "true") && !str_equal(value, "false"))
            return err_set(e, E_INVALID, "--%s takes no value", f->name);
        if (f->kind == FLAG_SWITCH)
            *(bool *)(void *)member = !str_equal(value, "false");
        return 1;
    }
    if (!value)
        return err_set(e, E_INVALID, "--%s needs a value", f->name);
    if (f->kind == FLAG_LIST) {
        strs_add((struct strs *)(void *)member, value);
    } else if (f->at) {
        *(const char **)(void *)member = value;
    } else if (str_equal(f->name, "root")) {
        o->root = value;
    } else if (str_u64(value, 0, 1000, &n)) { /* preserve-fds */
        o->preserved = (int64_t)n;
    } else {
        return err_set(e, E_INVALID, "--%s %s: give a number up to 1000", f->name, value);
    }
    return eq ? 1 : 2;
}

static int take_flags(struct oci_options *o, unsigned of, int argc, char **argv, struct err *e)
{
    int i = 0;
    while (i < argc && argv[i][0] == '-' && argv[i][1]) {
        if (str_equal(argv[i], "--"))
            return i + 1;
        const struct flag *f = find_flag(argv[i], of);
        if (!f)
            return err_set(e, E_INVALID, "unknown flag %s; shoal oci --help lists them", argv[i]);
        int n = take_flag(o, f, argc - i, argv + i, e);
        if (n < 0)
            return n;
        i += n;
    }
    return i;
}

static int parse(struct oci_options *o, int argc, char **argv, oci_verb_fn **ret, struct err *e)
{
    int i = take_flags(o, PROGRAM, argc, argv, e);
    if (i < 0)
        return i;
    if (i >= argc)
        return err_set(e, E_INVALID, "no command given; shoal oci --help lists them");
    unsigned v = 0;
    while (v < ARRAY_N(verbs) && !str_equal(verbs[v].name, argv[i]))
        v++;
    if (v == ARRAY_N(verbs))
        return err_set(e, E_INVALID, "unknown command \"%s\"; shoal oci --help lists them", argv[i]);
    i++;
    for (bool has_id = verbs[v].max_args < 0;;) {
        int n = take_flags(o, verbs[v].bit, argc - i, argv + i, e);
        if (n < 0)
            return n;
        i += n;
        if (has_id || i >= argc)
            break;
        o->id = argv[i++];
        has_id = true;
        if (verbs[v].bit == EXEC) /* what follows is the program's */
            break;
    }
    o->args = argv + i;
    o->n_args = argc - i;
    if (verbs[v].max_args >= 0 && !o->id)
        return err_set(e, E_INVALID, "%s needs the id of a container", verbs[v].name);
    if (o->n_args > MAX(verbs[v].max_args, 0))
        return err_set(e, E_INVALID, "%s: too many arguments: %s", verbs[v].name, o->args[MAX(verbs[v].max_args, 0)]);
    if (o->format && !str_equal(o->format, "json") && !str_equal(o->format, "table"))
        return err_set(e, E_INVALID, "--format %s: choose table or json", o->format);
    if (o->log_format && !str_equal(o->log_format, "json") && !str_equal(o->log_format, "text"))
        return err_set(e, E_INVALID, "--log-format %s: choose text or json", o->log_format);
    *ret = verbs[v].run;
    return 0;
}

/* Where callers such as containerd read why it failed. */
static void log_error(const struct oci_options *o, const char *text)
{
    char now[40];
    AUTO_SB struct sb b;
    struct err ignored;
    time_format(now, clock_real_ns());
    sb_init(&b, 0);
    if (str_equal(o->log_format, "json")) {
        sb_str(&b, "{\"level\":\"error\",\"msg\":");
        sb_json_str(&b, text, strlen(text));
        sb_printf(&b, ",\"time\":\"%s\"}\n", now);
    } else {
        sb_printf(&b, "time=\"%s\" level=error msg=", now);
        sb_json_str(&b, text, strlen(text));
        sb_char(&b, '\n');
    }
    AUTO_CLOSE int fd = o->log ? open(o->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd < 0 || fd_write_all(fd, b.s, b.len, &ignored) < 0)
        fprintf(stderr, "shoal oci: cannot write %s\n", o->log);
}

int oci_main(int argc, char **argv)
{
    struct oci_options o = { .root = DEFAULT_ROOT };
    struct err e = { 0 };
    oci_verb_fn *run = NULL;
    for (int i = 1; i < argc && (argv[i][0] == '-' || i == 1); i++) {
        if (str_equal(argv[i], "--help") || str_equal(argv[i], "-h") || str_equal(argv[i], "help"))
            return fputs(oci_usage, stdout) < 0;
        if (str_equal(argv[i], "--version") || str_equal(argv[i], "-v"))
            return printf("shoal oci version %s\nspec: %s\n", SHOAL_VERSION, OCI_VERSION) < 0;
    }
    for (int i = 2; i < argc && !str_equal(argv[1], "exec"); i++)
        if (str_equal(argv[i], "--help"))
            return fputs(oci_usage, stdout) < 0;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* who ignores it hands that down, and exit statuses would be lost */
    int r = parse(&o, argc - 1, argv + 1, &run, &e);
    if (r == 0 && geteuid() != 0 && run != oci_features)
        r = err_set(&e, E_DENIED, "only root can make and see containers; use sudo");
    if (r == 0)
        r = run(&o, &e);
    strs_clear(&o.env);
    strs_clear(&o.caps);
    if (r < 0) {
        fprintf(stderr, "shoal oci: %s\n", e.text);
        if (o.log)
            log_error(&o, e.text);
        return FAILED;
    }
    return fflush(stdout) == 0 ? r : FAILED;
}
