/* Containers: created from a plain specification, each held by its own small shim process that outlives the
 * daemon. Everything here on the loop's thread and asynchronous. Design: design/runtime.md. */
#ifndef SHOAL_RUNTIME_H
#define SHOAL_RUNTIME_H

#include <shoal/base/val.h>
#include <shoal/loop.h>
#include <shoal/model/rec.h>
#include <shoal/stream.h>

enum container_mount_type { CONTAINER_BIND, CONTAINER_TMPFS };
struct container_mount {
    int type;
    char *source, *target; /* absolute */
    bool read_only;
    char *propagation;     /* NULL: rprivate */
    int64_t tmpfs_bytes;
    uint32_t tmpfs_mode;   /* 0: 01777 */
};
/* A file placed into the root before the start (hosts, resolv.conf), or, secret, onto a tmpfs. */
struct container_file {
    char *path;
    uint32_t uid, gid, mode;
    bool secret;           /* never in spec.json or on disk */
    struct bytes data;
};
struct container_ulimit { char *name; int64_t soft, hard; };

struct container_spec {
    char *id;               /* 64 hex digits */
    char *name;
    struct strs argv, env, groups, cap_add, cap_drop;
    char *cwd, *user, *hostname;
    struct strs lower_dirs; /* absolute, topmost first */
    bool read_only, tty, open_stdin, init, privileged, no_new_privs;
    struct { struct container_mount *v; uint32_t n; } mounts;
    struct { struct container_file *v; uint32_t n; } files;
    struct { struct container_ulimit *v; uint32_t n; } ulimits;
    char *netns;            /* path to join; NULL: a new one; "host" */
    char *stop_signal;      /* NULL: SIGTERM */
    int64_t stop_grace_ns;
    int64_t memory_bytes, nano_cpus, pids_limit; /* 0: no limit */
    int64_t oom_score_adj;
    struct labels sysctls, labels;
    char *seccomp;          /* NULL: default; "unconfined"; else a JSON profile */
    int64_t log_max_bytes;  /* of one file; 0: 20 MiB */
    int64_t log_max_files;  /* 0: 2 */
};
void container_spec_clear(struct container_spec *s);
void container_spec_copy(struct container_spec *d, const struct container_spec *s);

enum container_phase { CONTAINER_CREATED, CONTAINER_RUNNING, CONTAINER_PAUSED, CONTAINER_EXITED };
extern const char *const container_phase_names[];
struct container {
    const struct container_spec *spec; /* secrets' data left out */
    int status;
    int64_t pid;
    int exit_code;          /* 128 + signal when killed */
    bool oom_killed;
    const char *error;      /* why it could not run, NULL otherwise */
    int64_t created_ns, started_ns, finished_ns; /* real time, 0: never */
    const char *dir;        /* its state folder: spec.json state.json log.json */
};

struct runtime;
struct runtime_config {
    const char *dir;        /* DIR/<id>/... survives restarts */
    const char *self_exe;   /* shims are "self_exe shim DIR/<id>" */
    const char *cgroup;     /* name of this daemon's own group, e.g. "shoal-1a2b" */
};
/* A container's status changed (also: found again after a restart, once for each at runtime_open). */
typedef void runtime_event_fn(void *arg, const struct container *c);

/* Forks the spawner: call before any thread exists. */
int runtime_spawner_start(const char *self_exe, struct err *e) must_check;
int runtime_open(struct runtime **ret, struct loop *l, const struct runtime_config *cfg, runtime_event_fn *fn,
                 void *arg, struct err *e) must_check;
void runtime_close(struct runtime *rt); /* containers go on */

typedef void runtime_done_fn(void *arg, int result, const struct err *e);
/* Copies spec. Made but not started: the shim holds it. done exactly once; on error nothing is left. */
void runtime_create(struct runtime *rt, const struct container_spec *spec, runtime_done_fn *done, void *arg);
void runtime_start(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg);
/* -E_NOT_FOUND, -E_CONFLICT when it does not run. */
int runtime_signal(struct runtime *rt, const char *id, int signum, struct err *e) must_check;
/* Stop signal, grace, kill of everything in its group; done when it is over (0 also when it did not run). */
void runtime_stop(struct runtime *rt, const char *id, int64_t grace_ns, runtime_done_fn *done, void *arg);
/* Kills if needed, removes state, logs, mounts, cgroup. */
void runtime_delete(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg);

/* By id, unique id prefix (>= 4), or name. NULL: none. Borrowed until the next event. */
const struct container *runtime_find(const struct runtime *rt, const char *ref);
const struct container *runtime_next(const struct runtime *rt, const struct container *after);

struct exec_spec {
    struct strs argv, env;
    char *cwd, *user;       /* NULL: as the container */
    bool tty, stdin_open, privileged;
    uint16_t rows, cols;
};
/* Runs a further process; stream carries stdin in, Docker-framed (or raw, tty) output out and ends when it
 * is over; exit is called just before the stream's end. exec_id: for resize. */
typedef void runtime_exec_fn(void *arg, int result, struct stream *s, const char *exec_id, const struct err *e);
typedef void runtime_exit_fn(void *arg, const char *exec_id, int exit_code);
void runtime_exec(struct runtime *rt, const char *id, const struct exec_spec *spec, runtime_exec_fn *started,
                  runtime_exit_fn *exited, void *arg);
int runtime_exec_resize(struct runtime *rt, const char *exec_id, uint16_t rows, uint16_t cols, struct err *e) must_check;

/* Logs: entries in order; follow goes on until runtime_logs_stop. line without its newline. */
struct log_entry { int64_t time_ns; bool err; const char *line; size_t size; };
struct log_query { bool follow, out, err; int64_t since_ns, until_ns, tail; /* tail < 0: all */ };
struct runtime_logs;
/* Returns false to pause until runtime_logs_resume. */
typedef bool runtime_log_fn(void *arg, const struct log_entry *entry);
typedef void runtime_log_end_fn(void *arg); /* no more entries (not called after stop) */
struct runtime_logs *runtime_logs(struct runtime *rt, const char *id, const struct log_query *q,
                                  runtime_log_fn *fn, runtime_log_end_fn *end, void *arg, struct err *e);
void runtime_logs_resume(struct runtime_logs *q);
void runtime_logs_stop(struct runtime_logs *q); /* takes NULL */

struct container_stats { int64_t memory_bytes, memory_limit, cpu_ns, n_pids; };
int runtime_stats(struct runtime *rt, const char *id, struct container_stats *ret, struct err *e) must_check;

/* Entry points of the binary's other faces. */
int shim_main(int argc, char **argv);
int spawner_main(int argc, char **argv);

#endif
