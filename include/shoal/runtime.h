/* Containers: created from a plain specification, each held by its own small shim process that outlives the
 * daemon. Everything here on the loop's thread and asynchronous. Design: design/runtime.md. */
#ifndef SHOAL_RUNTIME_H
#define SHOAL_RUNTIME_H

#include <shoal/loop.h>
#include <shoal/model/rec.h>
#include <shoal/stream.h>

enum container_mount_type { CONTAINER_BIND, CONTAINER_TMPFS };
extern const char *const container_mount_type_names[];
#define container_mount_FIELDS(X, T)                                                                  \
    X(T, ENUM, type, _, 1, "Type", "bind or tmpfs", .names = container_mount_type_names)              \
    X(T, STR, source, _, 2, "Source", "absolute, of the host", .max = 4096)                           \
    X(T, STR, target, _, 3, "Target", "absolute, in the container", .max = 4096)                      \
    X(T, BOOL, read_only, _, 4, "ReadOnly", "")                                                       \
    X(T, STR, propagation, _, 5, "Propagation", "rprivate when empty", .max = 16)                     \
    X(T, INT, tmpfs_bytes, _, 6, "SizeBytes", "0: half of the memory", .min = 0, .max = INT64_MAX)    \
    X(T, UINT, tmpfs_mode, _, 7, "Mode", "0: 01777", .max = 07777)                                    \
    X(T, BOOL, fill, _, 8, "Fill", "volume: if empty, gets what the image has at the target")         \
    X(T, BOOL, non_recursive, _, 9, "NonRecursive", "")                                               \
    X(T, BOOL, anonymous, _, 10, "Anonymous", "volume: made for this container, without a name")
REC_DECLARE(container_mount)
/* A file put over the root (hosts, resolv.conf, configs), or, secret, one that is on a tmpfs only. */
#define container_file_FIELDS(X, T)                                                                   \
    X(T, STR, path, _, 1, "Path", "absolute, in the container", .max = 4096)                          \
    X(T, UINT, uid, _, 2, "UID", "", .max = 4294967294)                                               \
    X(T, UINT, gid, _, 3, "GID", "", .max = 4294967294)                                               \
    X(T, UINT, mode, _, 4, "Mode", "", .max = 07777)                                                  \
    X(T, BOOL, secret, _, 5, "Secret", "never on a disk")                                             \
    X(T, BYTES, data, _, 6, "Data", "", .max = 4 << 20, .flags = F_SECRET)
REC_DECLARE(container_file)
#define container_ulimit_FIELDS(X, T)                                                                 \
    X(T, STR, name, _, 1, "Name", "nofile, nproc, ...", .max = 16)                                    \
    X(T, INT, soft, _, 2, "Soft", "-1: unlimited", .min = -1, .max = INT64_MAX)                       \
    X(T, INT, hard, _, 3, "Hard", "-1: unlimited", .min = -1, .max = INT64_MAX)
REC_DECLARE(container_ulimit)

#define container_spec_FIELDS(X, T)                                                                   \
    X(T, STR, id, _, 1, "Id", "64 hex digits", .max = 64)                                             \
    X(T, STR, name, _, 2, "Name", "", .max = 255)                                                     \
    X(T, STR, image, _, 3, "Image", "as asked for", .max = 512)                                       \
    X(T, STR, image_id, _, 4, "ImageID", "sha256:...", .max = 80)                                     \
    X(T, STRS, argv, _, 5, "Argv", "", .max = 4096)                                                   \
    X(T, STRS, env, _, 6, "Env", "NAME=value", .max = 4096)                                           \
    X(T, STR, cwd, _, 7, "Cwd", "/ when empty", .max = 4096)                                          \
    X(T, STR, user, _, 8, "User", "name or id[:group]", .max = 255)                                   \
    X(T, STRS, groups, _, 9, "Groups", "further ones", .max = 256)                                    \
    X(T, STR, hostname, _, 10, "Hostname", "", .max = 63)                                             \
    X(T, STRS, lower_dirs, _, 11, "LowerDirs", "unpacked layers, absolute, topmost first", .max = 500) \
    X(T, BOOL, read_only, _, 12, "ReadOnly", "root file system")                                      \
    X(T, BOOL, tty, _, 13, "Tty", "")                                                                 \
    X(T, BOOL, open_stdin, _, 14, "OpenStdin", "")                                                    \
    X(T, BOOL, init, _, 15, "Init", "a process 1 that reaps and forwards signals")                    \
    X(T, BOOL, privileged, _, 16, "Privileged", "")                                                   \
    X(T, BOOL, no_new_privs, _, 17, "NoNewPrivileges", "")                                            \
    X(T, LIST, mounts, container_mount, 18, "Mounts", "", .max = 256)                                 \
    X(T, LIST, files, container_file, 19, "Files", "", .max = 1024)                                   \
    X(T, LIST, ulimits, container_ulimit, 20, "Ulimits", "", .max = 32)                               \
    X(T, STR, netns, _, 21, "NetNS", "path to join, host, or empty: a new one", .max = 4096)          \
    X(T, STR, stop_signal, _, 22, "StopSignal", "SIGTERM when empty", .max = 16)                      \
    X(T, INT, stop_grace_ns, _, 23, "StopGrace", "ns", .min = 0, .max = INT64_MAX)                    \
    X(T, INT, memory_bytes, _, 24, "Memory", "0: no limit", .min = 0, .max = INT64_MAX)               \
    X(T, INT, nano_cpus, _, 25, "NanoCpus", "0: no limit", .min = 0, .max = INT64_C(1000000000000000)) \
    X(T, INT, pids_limit, _, 26, "PidsLimit", "0: no limit", .min = 0, .max = 4194304)                \
    X(T, INT, oom_score_adj, _, 27, "OomScoreAdj", "", .min = -1000, .max = 1000)                     \
    X(T, LABELS, sysctls, _, 28, "Sysctls", "", .max = 64)                                            \
    X(T, LABELS, labels, _, 29, "Labels", "", .max = 512)                                             \
    X(T, STRS, cap_add, _, 30, "CapAdd", "", .max = 64)                                               \
    X(T, STRS, cap_drop, _, 31, "CapDrop", "", .max = 64)                                             \
    X(T, STR, seccomp, _, 32, "Seccomp", "empty: the default list; unconfined", .max = 64)            \
    X(T, INT, log_max_bytes, _, 33, "LogMaxSize", "of one file; 0: 20 MiB", .min = 0, .max = INT64_MAX) \
    X(T, INT, log_max_files, _, 34, "LogMaxFile", "0: 2", .min = 0, .max = 1000)                      \
    X(T, UINT, cpu_period_us, _, 37, "CpuPeriod", "in which NanoCpus is meted out; 0: 100000", .max = 1000000) \
    X(T, STR, log_driver, _, 38, "LogDriver", "journald: there too; empty", .max = 64)                \
    X(T, LABELS, log_options, _, 39, "LogOptions", "of journald: tag, labels, env", .max = 16)        \
    X(T, STR, asked, _, 36, "Asked", "JSON of the request that made it, for the API; empty: a task", .max = 4 << 20)
REC_DECLARE(container_spec)

enum container_phase { CONTAINER_CREATED, CONTAINER_RUNNING, CONTAINER_PAUSED, CONTAINER_EXITED };
extern const char *const container_phase_names[];
#define container_state_FIELDS(X, T)                                                                  \
    X(T, ENUM, phase, _, 1, "Status", "", .names = container_phase_names)                             \
    X(T, INT, pid, _, 2, "Pid", "", .min = 0, .max = INT64_MAX)                                       \
    X(T, INT, exit_code, _, 3, "ExitCode", "128 + signal when killed", .min = 0, .max = 255)          \
    X(T, BOOL, oom_killed, _, 4, "OOMKilled", "")                                                     \
    X(T, STR, error, _, 5, "Error", "why it could not run", .max = 1024)                              \
    X(T, TIME, created_ns, _, 6, "Created", "")                                                       \
    X(T, TIME, started_ns, _, 7, "StartedAt", "")                                                     \
    X(T, TIME, finished_ns, _, 8, "FinishedAt", "")                                                   \
    X(T, BOOL, ready, _, 9, "Ready", "created and waiting for its start")                             \
    X(T, UINT, start_id, _, 10, "StartId", "start time of Pid in clock ticks: pids are used again")
REC_DECLARE(container_state)
/* What the daemon, not the shim, knows of a container and must not forget. */
#define container_notes_FIELDS(X, T)                                                                  \
    X(T, UINT, restarts, _, 1, "RestartCount", "by its policy", .max = UINT32_MAX)                    \
    X(T, BOOL, stopped, _, 2, "Stopped", "by a person: the policy leaves it alone")
REC_DECLARE(container_notes)
struct container {
    struct container_spec spec; /* secrets' data left out */
    struct container_state state;
    struct container_notes notes;
    enum container_phase before; /* in an event: the phase before this change */
    bool gone;                  /* the last event: it was removed */
    char *dir;                  /* its folder: spec.mp state.mp notes.mp log.json */
};
/* Its processes exist: running or paused. */
static inline bool container_is_up(const struct container *c)
{
    return c->state.phase == CONTAINER_RUNNING || c->state.phase == CONTAINER_PAUSED;
}

/* "SIGTERM", "TERM", "15", "RTMIN+3"; -E_INVALID. */
int signal_number(const char *text, struct err *e) must_check;

/* How its output is kept, by shoal/model/log_driver.h. */
int container_log(struct container_spec *s, const char *driver, const struct labels *options, const char *where,
                  struct err *e) must_check;

struct runtime;
struct runtime_config {
    const char *dir;        /* DIR/<id>/... survives restarts */
    const char *cgroup;     /* name of this daemon's own group, e.g. "shoal-1a2b" */
};
/* A container's state changed (also: found again after a restart, once for each at runtime_open), or it is gone. */
typedef void runtime_event_fn(void *arg, const struct container *c);

/* Forks the spawner: call before any thread exists. It forks a shim for each container, and ends with the
 * daemon; shims do not. */
int runtime_spawner_start(struct err *e) must_check;
/* Calls fn(arg) when the spawner is gone: no container can be started then. Free with loop_fd_remove. */
struct loop_fd *runtime_spawner_watch(struct loop *l, loop_fd_fn *gone, void *arg);
int runtime_open(struct runtime **ret, struct loop *l, const struct runtime_config *cfg, runtime_event_fn *fn,
                 void *arg, struct err *e) must_check;
void runtime_close(struct runtime *rt); /* containers go on */

typedef void runtime_done_fn(void *arg, int result, const struct err *e);
/* Copies spec. Made but not started: the shim holds it. done exactly once; on error nothing is left. */
/* What is mounted inside another mount comes after it, as in Docker, whatever order people gave; else the order stays. */
void container_mounts_sort(struct container_spec *s);
void runtime_create(struct runtime *rt, const struct container_spec *spec, runtime_done_fn *done, void *arg);
void runtime_start(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg);
/* -E_NOT_FOUND, -E_CONFLICT when it does not run. */
int runtime_signal(struct runtime *rt, const char *id, int signum, struct err *e) must_check;
/* A start was asked for and it does not run yet; stopping it calls that off, or ends it as soon as it runs. */
bool runtime_is_starting(const struct runtime *rt, const char *id);
/* Stop signal, grace, kill of everything in its group; done when it is over (0 also when it did not run). */
void runtime_stop(struct runtime *rt, const char *id, int64_t grace_ns, runtime_done_fn *done, void *arg);
void runtime_stop_by(struct runtime *rt, const char *id, int signum /* 0: its own */, int64_t grace_ns /* < 0: no end */,
                     runtime_done_fn *done, void *arg);
/* Freezes all its processes, or lets them go on. -E_CONFLICT when they are not in the other state. */
void runtime_pause(struct runtime *rt, const char *id, bool pause, runtime_done_fn *done, void *arg);
/* -E_CONFLICT: another container has that name. */
int runtime_rename(struct runtime *rt, const char *id, const char *name, struct err *e) must_check;
int runtime_set_notes(struct runtime *rt, const char *id, const struct container_notes *n, struct err *e) must_check;
/* The specification as it is now with other limits (memory, processors, processes) or another restart policy; in force
 * at once and after the next start. On error nothing has changed. */
int runtime_update(struct runtime *rt, const struct container_spec *spec, struct err *e) must_check;
/* Kills if needed, removes state, logs, mounts, cgroup. */
void runtime_delete(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg);

/* By id, unique id prefix (>= 4), or name. NULL: none. Borrowed until the next event. */
const struct container *runtime_find(const struct runtime *rt, const char *ref);
const struct container *runtime_next(const struct runtime *rt, const struct container *after);

#define exec_spec_FIELDS(X, T)                                                                        \
    X(T, STRS, argv, _, 1, "Cmd", "", .max = 4096)                                                    \
    X(T, STRS, env, _, 2, "Env", "added to the container's", .max = 4096)                             \
    X(T, STR, cwd, _, 3, "WorkingDir", "empty: as the container", .max = 4096)                        \
    X(T, STR, user, _, 4, "User", "empty: as the container", .max = 255)                              \
    X(T, BOOL, tty, _, 5, "Tty", "")                                                                  \
    X(T, BOOL, stdin_open, _, 6, "AttachStdin", "")                                                   \
    X(T, BOOL, privileged, _, 7, "Privileged", "")                                                    \
    X(T, UINT, rows, _, 8, "Rows", "", .max = 65535)                                                  \
    X(T, UINT, cols, _, 9, "Cols", "", .max = 65535)
REC_DECLARE(exec_spec)
/* Runs a further process. The stream carries stdin in, Docker-framed (tty: raw) output out, and ends when it
 * is over; exited is called then with the code. started is called exactly once, exited only after success. */
typedef void runtime_exec_fn(void *arg, int result, struct stream *s, uint64_t exec_id, const struct err *e);
typedef void runtime_exit_fn(void *arg, uint64_t exec_id, int exit_code);
void runtime_exec(struct runtime *rt, const char *id, const struct exec_spec *spec, runtime_exec_fn *started,
                  runtime_exit_fn *exited, void *arg);
/* Stdin and live output of the container itself, framed likewise; ends with it. Of one that has ended: of its next run. NULL
 * with e: that cannot be. */
struct stream *runtime_attach(struct runtime *rt, const char *id, struct err *e);
/* exec_id 0: the container's own terminal. */
int runtime_exec_resize(struct runtime *rt, const char *id, uint64_t exec_id, uint16_t rows, uint16_t cols,
                        struct err *e) must_check;

/* Files of a container, running or not, through a process with few rights; no link of the container leads out of its
 * root. The stream begins with one line: "E CODE TEXT", or else, for
 *   STAT    {"name","size","mode","mtime","linkTarget"} as Docker's clients read it, and the end
 *   OUT     the same, then a tar of the path
 *   IN      an empty line; then the caller writes a tar and half-closes, and one more line comes: "E ..." or empty
 *   EXPORT  an empty line, then a tar of the whole root without what is mounted in it
 *   CHANGES an empty line, then [{"Path","Kind"}] against the image: 0 changed, 1 added, 2 deleted
 * What goes out ends with an error of the stream when it could not be read to its end. NULL with e: it could not even
 * begin. */
enum copy_op { COPY_STAT, COPY_OUT, COPY_IN, COPY_EXPORT, COPY_CHANGES };
#define copy_request_FIELDS(X, T)                                                                     \
    X(T, UINT, op, _, 1, "Op", "enum copy_op", .max = COPY_CHANGES)                                   \
    X(T, STR, path, _, 2, "Path", "in the container", .max = 4096)                                    \
    X(T, BOOL, no_swap, _, 3, "NoOverwriteDirNonDir", "a folder replaces no file, nor the reverse")   \
    X(T, BOOL, user_owns, _, 4, "CopyUIDGID", "what comes in is the container's user's")              \
    X(T, STR, dir, _, 5, "Dir", "filled in by runtime_copy", .max = 4096)                             \
    X(T, UINT, pid, _, 6, "Pid", "likewise; 0: it does not run", .max = INT32_MAX)                    \
    X(T, UINT, start_id, _, 7, "StartId", "likewise")
REC_DECLARE(copy_request)
struct stream *runtime_copy(struct runtime *rt, const char *id, const struct copy_request *q, struct err *e);

/* Folders of volumes: gone from their place when it returns, from the disk later. On error it is still there. */
int folder_discard(struct loop *l, const char *path, struct err *e) must_check;
void folder_discard_rest(struct loop *l, const char *dir); /* what a daemon that died left of that in DIR */

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

/* Used since its start; -1: this kernel does not count it. */
struct container_io { unsigned major, minor; char op[12]; int64_t bytes; };
struct container_net {
    char name[16];
    int64_t rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped;
};
enum { STATS_MEMORY_TEXT_BYTES = 8192, STATS_IOS_MAX = 64, STATS_NETS_MAX = 16 };
struct container_stats {
    int64_t memory_bytes, memory_peak_bytes, memory_limit, cpu_ns, cpu_user_ns, cpu_kernel_ns, n_periods,
        n_throttled, throttled_ns, n_pids, pids_limit;
    char memory[STATS_MEMORY_TEXT_BYTES]; /* "name value" lines of the kernel */
    struct container_io ios[STATS_IOS_MAX];
    struct container_net nets[STATS_NETS_MAX];
    unsigned n_ios, n_nets;
};
int runtime_stats(struct runtime *rt, const char *id, struct container_stats *ret, struct err *e) must_check;
/* The processes in it, as this machine numbers them. Caller frees. */
int64_t *runtime_pids(struct runtime *rt, const char *id, size_t *ret_n);

/* `shoal oci`: containers from OCI bundles by the command line of runc and crun, without a daemon. Exit status: that of
 * the program for run and exec, 1 when it failed. */
int oci_main(int argc, char **argv);
extern const char oci_usage[];

#endif
