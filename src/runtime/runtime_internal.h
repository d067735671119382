/* Shared by the runtime's files. Three processes: the daemon (runtime_io.c, logs_io.c), the spawner
 * (spawner_io.c) and a shim for each container (shim_main_io.c, a program of its own: shim_io.c), which forks the
 * container itself (process_io.c). */
#ifndef RUNTIME_INTERNAL_H
#define RUNTIME_INTERNAL_H

#include <shoal/base/list.h>
#include <shoal/base/map.h>
#include <shoal/base/rng.h>
#include <shoal/runtime.h>
#include <sys/types.h>

/* ---- capabilities (capability.c; pure) ---- */
/* Bit mask of the default capabilities with add and drop applied ("ALL", with or without CAP_). */
int capability_set(const struct strs *add, const struct strs *drop, bool privileged, uint64_t *ret, struct err *e)
    must_check;
int capability_mask(const char *name, uint64_t *ret, struct err *e) must_check; /* "CAP_CHOWN", "chown", "ALL" */
const char *capability_name(unsigned n); /* "CAP_CHOWN", NULL: none */

/* ---- user.c (pure): "name|id[:group|id]" by the image's own passwd and group (either may be NULL) ---- */
struct user {
    uint32_t uid, gid;
    uint32_t groups[64]; /* supplementary */
    unsigned n_groups;
    char home[256];      /* "/" when unknown */
};
int user_resolve(struct user *ret, const char *text, const struct strs *more_groups, const char *passwd,
                 const char *group, struct err *e) must_check;
void user_home(struct user *u, const char *passwd); /* by its number alone */

/* ---- seccomp.c ---- */
struct seccomp_program { const void *filter; uint16_t n; }; /* struct sock_filter */
int seccomp_build(struct seccomp_program *ret, uint64_t caps, struct err *e) must_check;
void seccomp_free(struct seccomp_program *p);

/* ---- kern_cgroup.c: one group a container, "PARENT/ID", on v2 or each v1 controller ---- */
enum { CGROUP_FOLDERS_MAX = 12 };
/* The groups that a container was given: st_ino by number of the controller, 0: none. After its end others may have made
 * groups of the same name. */
struct cgroup_own { uint64_t inode[CGROUP_FOLDERS_MAX]; };
/* What an earlier run left of its group is killed and removed. -E_EXISTS: it cannot be. */
int cgroup_create(const char *parent, const struct container_spec *s, struct err *e) must_check;
bool cgroup_is_own(const char *parent, const char *id, const struct cgroup_own *own); /* all of them, and no others */
/* The caller, which has one thread, moves into it. */
int cgroup_join(const char *parent, const char *id, struct err *e) must_check;
/* As fork(), with flags of clone3: of version 2 the child is in it from its first moment, of version 1 it has to join. The
 * caller has one thread. */
pid_t cgroup_clone(const char *parent, const char *id, uint64_t flags, struct err *e) must_check;
bool cgroup_oom_killed(const char *parent, const char *id);
/* Freezes or thaws all members; -E_BUSY: they do not stop, and go on. */
bool cgroup_is_frozen(const char *parent, const char *id);
int cgroup_freeze(const char *parent, const char *id, bool frozen, struct err *e) must_check;
/* Other limits for a group that exists: what differs between the two is written, all or nothing. */
int cgroup_update(const char *parent, const struct container_spec *was, const struct container_spec *s, struct err *e)
    must_check;
bool cgroup_is_v2(void);
/* Text of a control file, at most 64 KiB; NULL: there is none. controller is that of v1. Caller frees. */
char *cgroup_text(const char *controller, const char *parent, const char *id, const char *file);
/* Value after a word in a flat keyed file ("oom_kill 1"); word NULL: the file is one number. -1: none. */
int64_t cgroup_number(const char *controller, const char *parent, const char *id, const char *file, const char *word);
/* ---- kern_cgroup_end.c: a container's groups with those that its processes made below them; own NULL: what has the
 * name ---- */
int64_t *cgroup_pids(const char *parent, const char *id, const struct cgroup_own *own, size_t *ret_n);
/* To all that are in them; SIGKILL until none is left, else -E_BUSY. */
int cgroup_signal(const char *parent, const char *id, const struct cgroup_own *own, int signum, struct err *e) must_check;
/* Kills what is in them and removes them; false: something still lives. */
bool cgroup_remove(const char *parent, const char *id, const struct cgroup_own *own);
/* ---- kern_stats.c ---- */
int cgroup_stats(const char *parent, const char *id, struct container_stats *ret, struct err *e) must_check;
void net_stats(pid_t pid, struct container_stats *ret); /* of its network namespace */
uint64_t process_start_id(pid_t pid); /* 0: gone, or it cannot be looked at */
bool process_has_ended(pid_t pid, uint64_t start_id); /* gone, another one, or dead and not waited for */
/* Ids of the groups below PARENT, for cleaning up. */
void cgroup_list(const char *parent, struct strs *ret);
bool cgroup_remove_parent(const char *parent); /* if empty; false: something is in it */

/* ---- kern_devices.c: which device nodes work in a group, by its folder ---- */
enum { DEVICE_MAKE = 1, DEVICE_READ = 2, DEVICE_WRITE = 4, DEVICE_RULES_MAX = 512 };
#define device_rule_FIELDS(X, T)                                                                      \
    X(T, BOOL, allow, _, 1, "allow", "")                                                              \
    X(T, UINT, type, _, 2, "type", "a b c", .max = 'c')                                               \
    X(T, INT, major, _, 3, "major", "-1: any", .min = -1, .max = INT32_MAX)                           \
    X(T, INT, minor, _, 4, "minor", "-1: any", .min = -1, .max = INT32_MAX)                           \
    X(T, UINT, access, _, 5, "access", "DEVICE_*", .max = 7)
REC_DECLARE(device_rule)
/* Nothing works but what the rules, in their order, and after them those of every container allow. */
int devices_restrict_v1(const char *group, const struct device_rule *rules, unsigned n, struct err *e) must_check;
int devices_restrict_v2(const char *group, const struct device_rule *rules, unsigned n, struct err *e) must_check;

/* A terminal: its size (0: 24x80), and when open both ends. */
struct pty { unsigned rows, cols; int master, slave; };

/* ---- kern_overlay.c ---- */
/* Opens PATH below root (O_CLOEXEC): links are followed, none leads out of it. -1 with errno. */
int root_open_in(int root, const char *path, int flags);
/* Two mounts of the same folders spoil each other: who mounts a container's root holds the lock of DIR, the shim from before
 * it is made until it is over, and who copies from one that does not run. The descriptor holds it. wait_ms: who copies may
 * wait for a client that never reads or writes again, and nobody else shall wait for that; then -E_BUSY. */
enum { ROOT_WAIT_MS = 10000 };
int root_lock(const char *dir, int wait_ms, struct err *e) must_check;
int root_mount_overlay(const struct container_spec *s, const char *dir, struct err *e) must_check; /* on DIR/merged */

/* ---- kern_root.c: in the container's new mount namespace ---- */
int root_setup(const struct container_spec *s, const char *dir, struct pty *t /* to be opened, or NULL */, struct err *e)
    must_check;

/* ---- process_io.c ---- */
struct process_start {
    const struct container_spec *spec;
    const char *dir, *cgroup_parent;
    const struct seccomp_program *seccomp; /* NULL: none */
    int in, out, err;  /* descriptors of the process; taken over by dup */
    bool tty;          /* none of these: a terminal that is opened inside, of rows and cols (0: 24x80) */
    unsigned rows, cols;
    int root;          /* of exec: the container's root, O_PATH */
};
/* Forks process 1 in new namespaces, everything set up, waiting; gate: write one byte to go on. errors, a socket: a
 * lone NUL once it is ready, with a terminal its master; then EOF once it runs; or the sentence why it could not. */
int process_create(const struct process_start *p, pid_t *ret_pid, int *ret_gate, int *ret_errors, struct err *e)
    must_check;
/* One more process inside. errors as above. */
int process_exec(const struct process_start *p, const struct exec_spec *x, pid_t container_pid, pid_t *ret_pid,
                 int *ret_errors, struct err *e) must_check;
int pty_open(struct pty *t, int root, struct err *e) must_check;

/* ---- log_io.c: the writer in the shim ---- */
struct log_file;
struct log_file *log_file_open(const char *dir, const struct container_spec *s);
void log_file_write(struct log_file *f, bool err, const char *p, size_t size); /* raw output; framed to lines inside */
void log_file_close(struct log_file *f);
/* ---- journal_io.c: and, when it is asked for, to systemd's journal ---- */
#define JOURNAL_SOCKET "/run/systemd/journal/socket"
enum { JOURNAL_TEXT_BYTES = 640 };
struct journal;
struct journal *journal_open(const struct container_spec *s); /* NULL: not asked for */
void journal_send(struct journal *j, bool err, bool partial, const char *p, size_t size); /* a line without its newline */
/* untold: what was lost and is not even told there; or empty. */
void journal_close(struct journal *j, char untold[JOURNAL_TEXT_BYTES]);
/* ---- log_line.c: and its reader; text: what ret->line is in, until the next call. False: no entry ---- */
bool log_line_parse(const char *line, size_t size, struct sb *text, struct log_entry *ret);
bool log_line_parse_json(const char *line, size_t size, struct sb *text, struct log_entry *ret); /* in any form, by the general reader */

/* ---- shim_io.c and its wire: SOCK_SEQPACKET, struct shim_head then a body ---- */
enum shim_message {
    SHIM_START = 1,  /* daemon: -> REPLY */
    SHIM_SIGNAL,     /* daemon: arg = signal -> REPLY */
    SHIM_KILL_ALL,   /* daemon: SIGKILL to everything in the container -> REPLY */
    SHIM_EXEC,       /* daemon: packed exec_spec + a stream socket -> REPLY, later EXEC_EXIT */
    SHIM_RESIZE,     /* daemon: body: id of an exec (0: the container), arg = rows << 16 | cols -> REPLY */
    SHIM_QUIT,       /* daemon: kill, clean up, exit: EOF follows */
    SHIM_STATE,      /* shim: packed container_state; at connect and at each change */
    SHIM_REPLY,      /* shim: arg = 0 or -E_, text; id 0: it could not be made again and is as it was, EOF follows */
    SHIM_EXEC_EXIT,  /* shim: id, arg = exit code */
    SHIM_ATTACH,     /* daemon: + a stream socket: stdin and live output of the container -> REPLY */
    SHIM_FREEZE,     /* daemon: arg = 1 all processes stop, 0 they go on -> REPLY */
};
enum { SHIM_MESSAGE_MAX_BYTES = 128 << 10 };
struct shim_head { uint32_t type; int32_t arg; uint64_t id; };

enum { SHIM_LISTEN_FD = 3, SHIM_SPEC_FD, SHIM_FILTER_FD, SHIM_SPEC_MAX_BYTES = 64 << 20 };
struct shim_args {
    const char *dir, *cgroup_parent;
    struct container_spec *spec;
    int listen_fd;
    const struct seccomp_program *seccomp;
    const struct err *failed; /* it cannot be made: the shim only says why */
};
int shim_run(const struct shim_args *a); /* exit status */

/* What logs_io.c needs of the runtime. */
struct loop *runtime_loop(const struct runtime *rt);
struct list_node *runtime_log_readers(struct runtime *rt);
void logs_container_ended(struct runtime *rt, const char *id); /* followers: look again */

/* ---- kern_copy.c: reads and writes a container's files for the daemon, in a process of its own that the spawner forks ---- */
enum { COPY_REQUEST_MAX_BYTES = 12 << 10 };
#define COPY_REQUEST_BYTE 'C' /* first of the spawner's message, before the packed request; with one stream socket */
_Noreturn void copy_main(const void *request, size_t size, int sock);

/* ---- shim_image.c: the program of the shim, to be run from memory ---- */
extern const unsigned char shim_image[], shim_image_end[];

/* ---- spawner_io.c: SOCK_SEQPACKET: "DIR\0CGROUP\0" + {listening socket, memfd with the packed spec} ---- */
int spawner_socket(void); /* of the daemon; -1: not started */
/* A sealed memfd with these bytes; its number is not below 16. flags: 0 or MFD_EXEC. */
#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif
enum { LOW_FDS = 16 }; /* above those that a shim is given */
int memory_file(const char *name, unsigned flags, const void *p, size_t size, struct err *e) must_check;

#endif
