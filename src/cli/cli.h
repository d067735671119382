/* The `shoal` command: a client of the Docker Engine API (v1.41 shapes) over a unix socket. Every command is a
 * row of a table (words, flags, example, function); parsing, --help, bash completion and the man page are all
 * derived from the rows. Column names and flags are those of the docker client, so that scripts carry over.
 * Functions of commands return 0 or -E_; c->status is the exit status if they set it. */
#ifndef SHOAL_CLI_INTERNAL_H
#define SHOAL_CLI_INTERNAL_H

#include <shoal/base/err.h>
#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <shoal/base/val.h>
#include <shoal/base/version.h>
#include <shoal/model/rec.h>
#include <shoal/model/service.h>
#include <stdio.h>

#define CLI_VERSION SHOAL_VERSION
#define CLI_API "/v1.41"
#define CLI_HOST "unix:///run/shoal/shoal.sock"

enum { CLI_MAX_FLAGS = 128, CLI_REPLY_MAX_BYTES = 64 << 20, CLI_USAGE = 2 };

/* OPT_*: what a flag's value must look like; checked by the parser. */
enum cli_kind { CLI_BOOL, CLI_STR, CLI_LIST, CLI_INT, CLI_DURATION, CLI_BYTES, CLI_CPUS, CLI_RATIO };

struct cli_flag {
    const char *name; /* NULL ends the table */
    char letter;      /* 0: none */
    enum cli_kind kind;
    const char *help;
    const char *choices; /* "a|b": the only values; NULL: any */
};

struct cli;
typedef int cli_fn(struct cli *c, struct err *e);
enum { CLI_REST = 1 }; /* flags end at the first argument: what follows belongs to another program */
#define CLI_ANY 100000
struct cli_command {
    const char *words; /* "service create"; NULL ends the table */
    const char *args;  /* "IMAGE [COMMAND] [ARG...]" */
    const char *summary;
    const struct cli_flag *flags; /* may be NULL */
    const char *example;
    cli_fn *run;
    unsigned min_args, max_args, how;
};
extern const struct cli_command *const cli_groups[]; /* NULL-terminated; every command, in order of help */
extern const struct cli_command swarm_commands[], key_commands[], node_commands[], service_commands[], stack_commands[],
    service_change_commands[];
extern const struct cli_command manager_commands[], backup_commands[], object_commands[], image_commands[],
    container_commands[], change_commands[], copy_commands[], usage_commands[], prune_commands[], system_commands[], debug_commands[];
extern const struct cli_flag cli_global_flags[];

struct cli_value {
    bool set;
    struct strs v; /* LIST: all; others: the last one */
    int64_t i;     /* BOOL 0/1, INT, DURATION ns, BYTES, CPUS 1e-9 */
    double r;
};
struct cli {
    const struct cli_command *command;
    struct cli_value values[CLI_MAX_FLAGS];
    struct strs args;
    char *host;   /* path of the socket */
    char *format; /* --format before the command */
    FILE *out, *err;
    int64_t now_ns; /* real time at the start */
    bool tty;       /* out is a terminal */
    int status;     /* exit status when not 0 */
    bool refused;   /* the last error came from the daemon */
    struct names *names;
    char *registry_auth; /* X-Registry-Auth of the next calls; NULL: none */
};

/* ---- cli.c: parser and help ---- */
int cli_parse(struct cli *c, int argc, char **argv, struct err *e) must_check; /* argv[0] is the program */
void cli_clear(struct cli *c);
const struct cli_command *cli_find(char **argv, int argc, int *ret_used);
void cli_help(FILE *f, const struct cli_command *cmd);
const char *cli_kind_word(enum cli_kind k); /* "duration"; "" for a switch */
bool cli_group_help(FILE *f, const char *words); /* "": all; false: no such group */
bool cli_has(const struct cli *c, const char *flag); /* given on the command line */
const char *cli_str(const struct cli *c, const char *flag); /* NULL: not given */
int64_t cli_num(const struct cli *c, const char *flag, int64_t otherwise);
double cli_ratio(const struct cli *c, const char *flag, double otherwise);
bool cli_on(const struct cli *c, const char *flag);
const struct strs *cli_list(const struct cli *c, const char *flag);
const char *cli_arg(const struct cli *c, unsigned k); /* NULL beyond the last */
int cli_usage(const struct cli *c, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int cli_main(int argc, char **argv); /* run.c */

/* ---- complete.c ---- */
int cmd_completion(struct cli *c, struct err *e);
/* Candidates for the last of the words; what the scripts of cmd_completion ask. */
void complete_line(struct cli *c, int argc, char **argv);
/* ---- man.c ---- */
int cmd_man(struct cli *c, struct err *e);
/* Keys of the log below a node's root, newest first; how many, or -E_. main.c sets it. */
extern int (*cli_log_keys)(const char *root, uint8_t keys[2][32], struct err *e);
extern const char *cli_oci_usage;    /* likewise of `shoal oci` */
extern const char *cli_daemon_usage; /* what `shoal daemon --help` prints; main.c sets it */
/* Each "--flag VALUE  text" line of a usage text; value is empty when there is none. */
typedef void usage_flag_fn(void *arg, const char *flag, const char *value, const char *text);
void usage_flags(const char *usage, usage_flag_fn *fn, void *arg);
/* ---- cmd_keys.c ---- */
int print_unlock_key(struct cli *c, struct err *e) must_check; /* and how it is used */
/* ---- start_io.c ---- */
/* Starts the daemon at the default socket when none answers there, and says so. 0 also when that is not its
 * business: the next call to the daemon tells. */
int start_daemon(struct cli *c, struct err *e) must_check;

/* ---- client_io.c ---- */
/* One request, whole reply. ret may be NULL; *ret is NULL for an empty reply. Status >= 400 is an error whose
 * text is the daemon's message: 404 -E_NOT_FOUND, 409 -E_CONFLICT, 503 -E_UNAVAILABLE, others -E_IO. */
int cli_call(struct cli *c, const char *method, const char *path, const char *body, struct val_doc **ret,
             struct err *e) must_check;
int cli_get(struct cli *c, struct val_doc **ret, struct err *e, const char *fmt, ...) must_check
    __attribute__((format(printf, 4, 5)));
/* Sink of a streamed reply; a negative value ends the call with it. */
typedef int cli_data_fn(void *arg, const char *p, size_t size, struct err *e);
/* Fills buf; 0: the end. A negative value ends the call with it, in the middle of the body. */
typedef long cli_source_fn(void *arg, char *buf, size_t size, struct err *e);
struct cli_stream {
    const char *method, *path;
    const char *body; /* JSON, or NULL */
    int upload;       /* fd sent as chunked body; -1: none */
    cli_source_fn *source; /* the body comes from this instead; NULL: it does not */
    void *source_arg;
    cli_data_fn *data;
    void *arg;
    const char *header; /* of the reply, its value is added to header_value; NULL: none */
    struct sb *header_value;
};
int cli_stream(struct cli *c, const struct cli_stream *s, struct err *e) must_check;
/* A request whose answer comes in two parts: its head at once, the rest when it is so far. */
struct cli_answer;
int cli_begin(struct cli *c, const char *method, const char *path, struct cli_answer **ret, struct err *e) must_check;
int cli_finish(struct cli_answer *r /* taken */, struct val_doc **ret, struct err *e) must_check;
void cli_answer_free(struct cli_answer *r); /* takes NULL */
/* A request that becomes a raw connection: reply 101 (or 200). *ret_fd is the caller's; bytes that came after
 * the head are in *held. */
int cli_hijack(struct cli *c, const char *path, const char *body, int *ret_fd, struct sb *held,
               struct err *e) must_check;

/* ---- term_io.c ---- */
int64_t term_now_ns(void);
int64_t term_mono_ns(void);
bool term_is_tty(int fd);
void term_size(unsigned *ret_rows, unsigned *ret_cols); /* 0, 0: no terminal */
int term_read_input(const char *path, size_t max, struct bytes *ret, struct err *e) must_check; /* "-": stdin */
int term_open_input(const char *path, struct err *e) must_check; /* fd; "-": a copy of stdin */
void term_close(int fd);
/* Asks on the terminal; E_INVALID unless the answer is yes (or there is no terminal to ask on). */
int term_confirm(struct cli *c, const char *question, struct err *e);
char *term_folder(const char *path); /* absolute folder of the file, heap */
void term_catch_interrupt(void);     /* Ctrl-C sets a flag instead of ending the program */
bool term_interrupted(void);
void term_pause_ms(int ms); /* between two looks at the daemon; ends early on Ctrl-C */
/* ---- files_io.c ---- */
long term_read(int fd, void *buf, size_t size, struct err *e) must_check; /* 0: the end */
/* Asks on the terminal, without echo; twice: again, to be sure. */
int term_ask_secret(bool twice, struct bytes *ret, struct err *e) must_check;
/* One line of the terminal, not shown; prompt NULL: all of the standard input without the ends of lines after it.
 * Caller wipes and frees. */
int term_read_secret(const char *prompt, char **ret, struct err *e) must_check;
/* A file that appears whole or not at all, also when a signal ends the program; one at a time. "-" is the standard
 * output. keep and drop free it; drop takes NULL. */
struct out_file;
int out_file_open(struct out_file **ret, const char *path, struct err *e) must_check;
int out_file_write(struct out_file *f, const void *p, size_t size, struct err *e) must_check;
int out_file_keep(struct out_file *f, struct err *e) must_check;
void out_file_drop(struct out_file *f);
/* ---- session_io.c ---- */
struct session_of {
    bool tty, input;
    const char *resize;    /* path that takes ?h=&w=; NULL: no size is sent */
    const char *container; /* signals to this program are forwarded to it; NULL: they are not */
};
/* Carries terminal and connection both ways until the other side is done. */
int term_session(struct cli *c, int fd, struct sb *held, const struct session_of *of, struct err *e) must_check;
extern char **environ;

/* ---- frames.c ---- */
/* The 8-byte header of attach and logs. */
struct frames { struct sb buf; };
typedef int frame_fn(void *arg, int stream, const char *p, size_t size, struct err *e);
int frames_take(struct frames *f, const char *p, size_t size, frame_fn *fn, void *arg, struct err *e) must_check;
/* Progress of pull, load, import: one JSON object a line. */
struct progress { struct sb line; FILE *out; bool quiet, failed; struct sb last; };
int progress_data(void *arg, const char *p, size_t size, struct err *e) must_check; /* a cli_data_fn */
int progress_end(struct progress *p, struct err *e) must_check; /* a last line without newline; frees */

/* ---- table.c, format.c ---- */
struct column { const char *head, *key; bool raw; }; /* head NULL: only in JSON; raw: not a string there */
struct table { const struct column *cols; unsigned n_cols; struct strs cells; };
void table_init(struct table *t, const struct column *cols, unsigned n_cols);
void table_done(struct table *t);
void table_add(struct table *t, const char *cell); /* next cell; NULL is empty */
void table_addf(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *t, FILE *f);
void table_json(const struct table *t, FILE *f);
/* As --format and -q ask; quiet_col is the one -q prints. */
int table_show(struct cli *c, const struct table *t, unsigned quiet_col, struct err *e) must_check;
enum format { FORMAT_NONE, FORMAT_TABLE, FORMAT_JSON };
int format_of(const struct cli *c, enum format *ret, struct err *e) must_check;
void format_json(FILE *f, const struct val *v, unsigned indent); /* with a newline */
/* GET of each argument; paths[] are tried in turn, * is the encoded name. Prints a list, or lines of JSON. */
int format_inspect(struct cli *c, const char *what, const char *const *paths, struct err *e) must_check;
void format_pretty(FILE *f, const struct val *v, unsigned depth); /* "Name:  value" lines */
/* filters= of -f/--filter (key=value) plus extra pairs; empty when none. Result is encoded for a query. */
int filters_from_flags(struct cli *c, struct sb *query, const char *extra_key, const char *extra_value,
                       struct err *e) must_check;

/* ---- units.c ---- */
void units_bytes(char out[32], int64_t bytes, bool binary); /* 1.5MB or 1.5MiB */
void units_ago(char out[48], int64_t ns);                   /* "3 minutes" */
void units_ago_since(char out[64], int64_t now_ns, const char *rfc3339); /* "3 minutes ago", "" for the zero time */
void units_duration(char out[48], int64_t ns);              /* Go's: "1h2m3.5s" */
int units_time_flag(const char *s, int64_t now_ns, char out[48]) must_check; /* RFC 3339, unix or "42m" to unix */
const char *capital(const char *s, char out[32]);
const char *short_id(const char *id, char out[16]); /* 12 characters, without "sha256:" */

/* ---- names.c: ids to names, each asked once ---- */
const char *name_of_node(struct cli *c, const char *id);    /* the id when unknown; "" for NULL */
const char *name_of_service(struct cli *c, const char *id);
void names_free(struct cli *c);
/* The object called ref exactly (by name first) or by id. */
int find_object(struct cli *c, const char *kind, const char *ref, struct val_doc **ret, struct err *e) must_check;
/* DELETE of every argument; goes on after one that fails. */
int delete_each(struct cli *c, const char *kind, const char *query, struct err *e) must_check;
const struct val *at(const struct val *v, const char *path); /* "Spec.Name"; NULL when absent */
const char *str_at(const struct val *v, const char *path);   /* "" when absent */
int64_t int_at(const struct val *v, const char *path, int64_t otherwise);
void add_query(struct sb *b, const char *name, const char *value); /* with ? or & and encoding */

/* ---- tasks.c: the table of service ps, node ps, stack ps ---- */
extern const struct cli_flag task_flags[];
int tasks_show(struct cli *c, const struct val *tasks, struct err *e) must_check;
/* ---- services.c ---- */
int services_show(struct cli *c, const struct val *services, struct err *e) must_check;
void ports_text(struct sb *b, const struct val *ports);

/* ---- service_flags.c, service_lists.c, service_values.c: flags of create and update to a spec ---- */
extern const struct cli_flag service_create_flags[], service_update_flags[];
int service_spec_from_flags(struct cli *c, struct service_spec *s, bool update, struct err *e) must_check;
int service_lists_from_flags(struct cli *c, struct service_spec *s, struct err *e) must_check;
int value_mount(const char *text, struct mount *ret, struct err *e) must_check;
int value_publish(const char *text, struct rec_list *ports, struct err *e) must_check;
int value_network(const char *text, struct network_ref *ret, struct err *e) must_check;
int value_secret(const char *text, struct secret_ref *ret, struct err *e) must_check;
int value_ulimit(const char *text, struct ulimit *ret, struct err *e) must_check;
int value_env(struct strs *env, const char *text); /* NAME alone: from the environment; replaces */
bool value_env_remove(struct strs *env, const char *name);
int value_label(struct labels *l, const char *text, struct err *e) must_check;
/* SecretID and ConfigID from the names; missing ones are an error. */
int service_resolve(struct cli *c, struct service_spec *s, struct err *e) must_check;
/* ---- service_update.c ---- */
int service_get(struct cli *c, const char *ref, struct service *ret, struct err *e) must_check;
int service_post(struct cli *c, const char *id, uint64_t version, const struct service_spec *s,
                 const char *more_query, struct err *e) must_check;

/* ---- converge.c: waiting for services ---- */
struct converge_view { /* what one look at a service says */
    char line[400];    /* "web  2/3 running: task web.1: no suitable node" */
    bool steady;       /* as wanted now */
    bool failed;       /* update paused: it will not go on by itself */
    bool updating;     /* going forward */
    bool back;         /* rolled back, or on the way */
    bool waits;        /* no node can take what is not running */
    unsigned refusals; /* tasks of one slot that never came to start */
    char reason[400];  /* of failed, back, waits and refusals */
    int64_t monitor_ns;
};
void converge_look(struct converge_view *ret, const struct val *service, const struct val *tasks,
                   const struct val *nodes);
int converge_wait(struct cli *c, const struct strs *ids, struct err *e) must_check;

/* ---- cmd_stack.c, stack_deploy.c ---- */
int stack_list(struct cli *c, const char *kind, const char *stack, struct val_doc **ret, struct err *e) must_check;
int cmd_stack_deploy(struct cli *c, struct err *e);
/* ---- credentials_io.c: logins at registries, in Docker's format ---- */
/* Sets c->registry_auth for the registry that the image reference names, if there is a login. */
int credentials_use(struct cli *c, const char *image, struct err *e) must_check;
/* host as in a reference, "docker.io" for the default. */
int credentials_keep(const char *host, const char *user, const char *password, struct err *e) must_check;
int credentials_forget(const char *host, bool *ret_had, struct err *e) must_check;
/* ---- cmd_login.c, cmd_image.c ---- */
extern const struct cli_command login_commands[];
int image_stream(struct cli *c, const char *path, int fd, bool quiet, struct err *e) must_check; /* a call with progress */
int show_image_pull(struct cli *c, const char *ref, bool quiet, struct err *e) must_check;
/* ---- cmd_run.c ---- */
extern const struct cli_flag run_flags[], exec_flags[];
int cmd_run(struct cli *c, struct err *e);
int cmd_exec(struct cli *c, struct err *e);
/* ---- cmd_change.c ---- */
void container_path(struct sb *b, const char *container, const char *rest); /* "/containers/X" + rest; starts b */
/* /stop or /restart, with --time and --signal. */
extern const struct cli_flag container_end_flags[];
int container_end_each(struct cli *c, const char *what, struct err *e);
/* POST /containers/X + what + query for every argument; goes on after one that fails. */
int container_post_each(struct cli *c, const char *what, const char *query, const char *body, struct err *e);
/* --restart as Docker's RestartPolicy; *ret NULL: not given. */
int restart_policy_of(struct cli *c, struct val_doc *d, struct val **ret, struct err *e) must_check;
/* ---- logs.c ---- */
extern const struct cli_flag log_flags[];
int show_container_logs(struct cli *c, const char *id, const char *path, struct err *e) must_check;
int show_service_logs(struct cli *c, const char *path, struct err *e) must_check;
int logs_query(struct cli *c, struct sb *path, struct err *e) must_check;

#endif
