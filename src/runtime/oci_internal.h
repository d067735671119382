/* OCI bundles run by `shoal oci` (opencontainers.org, runtime specification 1.0 to 1.2), without a daemon.
 *
 *   oci_config.c, oci_mount.c, oci_limits.c   pure: config.json to the records below, or an error
 *   kern_oci_seccomp.c   its system call filter
 *   oci_main_io.c    the command line      oci_io.c  its verbs      oci_state_io.c  folders of containers
 *   oci_create_io.c  starts the small program of shim_image.c from sealed memory, which becomes the container
 *   oci_init_io.c, kern_oci_root.c   what that program does in the container's namespaces (process_io.c, kern_root.c)
 *
 * A container's folder ROOT/ID holds bundle.mp and life.mp (records), filter (its system call filter, for exec), and until
 * its start start.sock: the first process waits for a connection there, over which it says why it could not run. */
#ifndef OCI_INTERNAL_H
#define OCI_INTERNAL_H

#include "runtime_internal.h"
#include <shoal/base/val.h>

enum { OCI_CONFIG_MAX_BYTES = 8 << 20, OCI_BUNDLE_MAX_BYTES = 32 << 20, OCI_LIST_MAX = 65536 };
#define OCI_VERSION "1.0.2"

/* What runs, first or by exec. */
#define oci_process_FIELDS(X, T)                                                                      \
    X(T, STRS, argv, _, 1, "args", "", .max = OCI_LIST_MAX)                                           \
    X(T, STRS, env, _, 2, "env", "", .max = OCI_LIST_MAX)                                             \
    X(T, STR, cwd, _, 3, "cwd", "absolute", .max = 4096)                                              \
    X(T, UINT, uid, _, 4, "uid", "", .max = UINT32_MAX)                                               \
    X(T, UINT, gid, _, 5, "gid", "", .max = UINT32_MAX)                                               \
    X(T, STRS, groups, _, 6, "additionalGids", "decimal", .max = 64)                                  \
    X(T, UINT, umask, _, 7, "umask", "", .max = 0777)                                                 \
    X(T, UINT, bounding, _, 8, "bounding", "mask of capabilities", .max = INT64_MAX)                  \
    X(T, UINT, permitted, _, 9, "permitted", "", .max = INT64_MAX)                                    \
    X(T, UINT, effective, _, 10, "effective", "", .max = INT64_MAX)                                   \
    X(T, UINT, inheritable, _, 11, "inheritable", "", .max = INT64_MAX)                               \
    X(T, UINT, ambient, _, 12, "ambient", "", .max = INT64_MAX)                                       \
    X(T, LIST, ulimits, container_ulimit, 13, "rlimits", "", .max = 32)                               \
    X(T, BOOL, tty, _, 14, "terminal", "")                                                            \
    X(T, UINT, rows, _, 15, "height", "", .max = 65535)                                               \
    X(T, UINT, cols, _, 16, "width", "", .max = 65535)                                                \
    X(T, BOOL, no_new_privs, _, 17, "noNewPrivileges", "")                                            \
    X(T, BOOL, has_oom_score_adj, _, 18, "", "")                                                      \
    X(T, INT, oom_score_adj, _, 19, "oomScoreAdj", "", .min = -1000, .max = 1000)                     \
    X(T, UINT, io_priority, _, 20, "ioPriority", "0: none, else class << 13 | level", .max = 65535)
REC_DECLARE(oci_process)

/* flags: MS_* of mount(2); the kernel takes propagation in a call of its own, and so it does attributes of a tree. */
#define oci_mount_FIELDS(X, T)                                                                        \
    X(T, STR, type, _, 1, "type", "", .max = 64)                                                      \
    X(T, STR, source, _, 2, "source", "", .max = 4096)                                                \
    X(T, STR, target, _, 3, "destination", "absolute, in the container", .max = 4096)                 \
    X(T, UINT, flags, _, 4, "flags", "MS_*", .max = UINT32_MAX)                                       \
    X(T, UINT, cleared, _, 5, "cleared", "MS_* that an option takes away", .max = UINT32_MAX)         \
    X(T, UINT, propagation, _, 6, "propagation", "MS_*, 0: as it is", .max = UINT32_MAX)              \
    X(T, UINT, tree_set, _, 7, "recursive", "MOUNT_ATTR_* set on all below", .max = UINT32_MAX)       \
    X(T, UINT, tree_clear, _, 8, "recursiveCleared", "", .max = UINT32_MAX)                           \
    X(T, STR, data, _, 9, "data", "", .max = 65536)
REC_DECLARE(oci_mount)

#define oci_device_FIELDS(X, T)                                                                       \
    X(T, STR, path, _, 1, "path", "absolute, in the container", .max = 4096)                          \
    X(T, UINT, mode, _, 2, "mode", "type and permissions", .max = 0177777)                            \
    X(T, UINT, major, _, 3, "major", "", .max = UINT32_MAX)                                           \
    X(T, UINT, minor, _, 4, "minor", "", .max = UINT32_MAX)                                           \
    X(T, UINT, uid, _, 5, "uid", "", .max = UINT32_MAX)                                               \
    X(T, UINT, gid, _, 6, "gid", "", .max = UINT32_MAX)
REC_DECLARE(oci_device)

/* One control group file to be written. A version of control groups that has no such file has no name for it. */
#define oci_setting_FIELDS(X, T)                                                                      \
    X(T, STR, name, _, 1, "name", "as in config.json", .max = 256)                                    \
    X(T, STR, controller, _, 2, "controller", "of v1", .max = 32)                                     \
    X(T, STR, v1_file, _, 3, "v1", "", .max = 256)                                                    \
    X(T, STR, v1_value, _, 4, "v1value", "", .max = 4096)                                             \
    X(T, STR, v2_file, _, 5, "v2", "", .max = 256)                                                    \
    X(T, STR, v2_value, _, 6, "v2value", "", .max = 4096)
REC_DECLARE(oci_setting)

#define oci_namespace_FIELDS(X, T)                                                                    \
    X(T, UINT, flag, _, 1, "flag", "CLONE_NEW*", .max = UINT32_MAX)                                   \
    X(T, STR, path, _, 2, "path", "to join; empty: a new one", .max = 4096)
REC_DECLARE(oci_namespace)

enum oci_hook_when { OCI_PRESTART, OCI_CREATE_RUNTIME, OCI_CREATE_CONTAINER, OCI_START_CONTAINER, OCI_POSTSTART, OCI_POSTSTOP };
extern const char *const oci_hook_names[];
#define oci_hook_FIELDS(X, T)                                                                         \
    X(T, ENUM, when, _, 1, "when", "", .names = oci_hook_names)                                       \
    X(T, STR, path, _, 2, "path", "absolute", .max = 4096)                                            \
    X(T, STRS, argv, _, 3, "args", "", .max = 4096)                                                   \
    X(T, STRS, env, _, 4, "env", "", .max = 4096)                                                     \
    X(T, UINT, timeout_s, _, 5, "timeout", "0: none", .max = INT32_MAX)
REC_DECLARE(oci_hook)

/* A whole container as its config.json has it. */
#define oci_bundle_FIELDS(X, T)                                                                       \
    X(T, STR, id, _, 1, "id", "", .max = 1024)                                                        \
    X(T, STR, version, _, 2, "ociVersion", "", .max = 64)                                             \
    X(T, STR, dir, _, 3, "bundle", "absolute", .max = 4096)                                           \
    X(T, STR, root, _, 4, "root", "absolute, of the host", .max = 4096)                               \
    X(T, BOOL, read_only, _, 5, "readonly", "")                                                       \
    X(T, UINT, propagation, _, 6, "rootfsPropagation", "MS_*, 0: none given", .max = UINT32_MAX)      \
    X(T, STR, hostname, _, 7, "hostname", "", .max = 64)                                              \
    X(T, STR, domainname, _, 8, "domainname", "", .max = 64)                                          \
    X(T, REC, process, oci_process, 9, "process", "")                                                 \
    X(T, LIST, mounts, oci_mount, 10, "mounts", "", .max = 4096)                                      \
    X(T, LIST, devices, oci_device, 11, "devices", "", .max = 4096)                                   \
    X(T, LIST, device_rules, device_rule, 12, "deviceRules", "", .max = DEVICE_RULES_MAX)             \
    X(T, LIST, namespaces, oci_namespace, 13, "namespaces", "", .max = 8)                             \
    X(T, LIST, settings, oci_setting, 14, "resources", "", .max = 256)                                \
    X(T, LIST, hooks, oci_hook, 15, "hooks", "", .max = 256)                                          \
    X(T, STRS, masked, _, 16, "maskedPaths", "", .max = 1024)                                         \
    X(T, STRS, read_only_paths, _, 17, "readonlyPaths", "", .max = 1024)                              \
    X(T, LABELS, sysctls, _, 18, "sysctl", "", .max = 1024)                                           \
    X(T, LABELS, annotations, _, 19, "annotations", "", .max = 65536)                                 \
    X(T, STR, cgroup_parent, _, 20, "cgroupParent", "without slashes at its ends; may be empty", .max = 200) \
    X(T, STR, cgroup, _, 21, "cgroup", "name of its group below that", .max = 200)                    \
    X(T, BOOL, has_seccomp, _, 22, "seccomp", "")                                                     \
    X(T, UINT, seccomp_flags, _, 23, "seccompFlags", "SECCOMP_FILTER_FLAG_*", .max = UINT32_MAX)      \
    X(T, BOOL, has_personality, _, 24, "", "")                                                        \
    X(T, UINT, personality, _, 25, "personality", "", .max = UINT32_MAX)                              \
    X(T, BOOL, no_new_keyring, _, 26, "", "of --no-new-keyring")
REC_DECLARE(oci_bundle)

/* ---- oci_spec.c ---- */
const struct oci_namespace *oci_namespace_find(const struct oci_bundle *b, unsigned flag); /* NULL: the host's */
/* CLONE_NEW* to which a sysctl belongs and the name of that type; 0: to none. */
unsigned oci_sysctl_namespace(const char *key, const char **ret_type);

static inline const char *oci_cgroup_parent(const struct oci_bundle *b)
{
    return b->cgroup_parent ? b->cgroup_parent : "";
}

/* ---- oci_config.c ---- */
/* Reads config.json. dir: the bundle's folder, absolute. Unknown members are skipped, as the specification demands;
 * known ones that cannot be done are refused by their path. ret must be zeroed; clear it also after an error.
 * *ret_seccomp: the profile, to be compiled, in *ret_doc. */
int oci_config_read(struct oci_bundle *ret, const char *text, size_t size, const char *id, const char *dir,
                    struct val_doc **ret_doc, const struct val **ret_seccomp, struct err *e) must_check;
/* process.json of exec. */
int oci_process_read(struct oci_process *ret, const char *text, size_t size, struct err *e) must_check;
int oci_id_check(const char *id, struct err *e) must_check;
/* Members by name with their kind checked: NULL when absent or null; a wrong kind or range sets e once. The path of an
 * error is WHERE.NAME. */
struct oci_reader { struct err *e; int r; };
const struct val *oci_member(struct oci_reader *r, const struct val *map, const char *where, const char *name, enum val_kind kind);
const char *oci_text(struct oci_reader *r, const struct val *map, const char *where, const char *name); /* without NULs */
bool oci_number(struct oci_reader *r, const struct val *map, const char *where, const char *name, int64_t min, int64_t max,
                int64_t *ret);
/* Up to UINT64_MAX, which JSON readers here keep as text. */
bool oci_big(struct oci_reader *r, const struct val *map, const char *where, const char *name, uint64_t *ret);
bool oci_flag(struct oci_reader *r, const struct val *map, const char *where, const char *name);
void oci_texts(struct oci_reader *r, const struct val *map, const char *where, const char *name, unsigned max, struct strs *ret);
void oci_refuse(struct oci_reader *r, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* ---- oci_mount.c ---- */
void oci_mounts_read(struct oci_reader *r, const struct val *root, struct oci_bundle *b);
unsigned oci_propagation(const char *word); /* MS_*; 0: no such word */
void oci_mount_words(struct val_doc *d, struct val *list); /* all options known, for features */
/* ---- oci_limits.c ---- */
void oci_limits_read(struct oci_reader *r, const struct val *spec, struct oci_bundle *b);
/* ---- kern_oci_seccomp.c ---- */
/* Compiles a profile in the form of config.json (also that of Docker's profiles once conditions are gone). */
int oci_seccomp_build(const struct val *profile, struct seccomp_program *ret, uint64_t *ret_flags, struct err *e) must_check;
const char *oci_seccomp_version(void); /* of the library */
void oci_seccomp_features(struct val_doc *d, struct val *to);

/* ---- oci_state_io.c ---- */
#define oci_life_FIELDS(X, T)                                                                         \
    X(T, INT, pid, _, 1, "pid", "", .min = 0, .max = INT64_MAX)                                       \
    X(T, UINT, start_id, _, 2, "startId", "start time of pid in clock ticks: pids are used again")    \
    X(T, TIME, created_ns, _, 3, "created", "")                                                       \
    X(T, BYTES, groups, _, 4, "groups", "struct cgroup_own; an older shoal wrote none", .max = sizeof(struct cgroup_own))
REC_DECLARE(oci_life)
struct oci_state {
    struct oci_bundle bundle;
    struct oci_life life;
    char *dir;          /* ROOT/ID */
    int lock;           /* held while verbs change it; -1: not */
    const char *status; /* creating created running paused stopped */
};
/* A new folder, locked; -E_EXISTS. */
int oci_state_make(const char *root, const char *id, struct oci_state *ret, struct err *e) must_check;
/* -E_NOT_FOUND. */
int oci_state_load(const char *root, const char *id, bool lock, struct oci_state *ret, struct err *e) must_check;
int oci_state_save_bundle(const struct oci_state *s, struct err *e) must_check;
/* pid 0: it has its groups, but no process yet. */
int oci_state_save_life(struct oci_state *s, pid_t pid, struct err *e) must_check;
void oci_state_set_groups(struct oci_state *s, const struct cgroup_own *own);
const struct cgroup_own *oci_state_groups(const struct oci_state *s); /* NULL: not known, go by the name */
void oci_state_look(struct oci_state *s);   /* status anew */
int oci_state_remove(const struct oci_state *s, struct err *e) must_check;
/* A folder in which there is not yet, or no more, what its container is: who made or removed it was killed meanwhile, and it has
 * nothing else. 1: it was one, and is removed; 0: there is none. */
int oci_state_remove_unmade(const char *root, const char *id, struct err *e) must_check;
void oci_state_done(struct oci_state *s);
/* As the specification has it. */
void oci_state_json(const struct oci_bundle *b, const char *status, int64_t pid, struct sb *out);
char *oci_state_path(const struct oci_state *s, const char *name);

/* ---- oci_hooks_io.c ---- */
int oci_hooks_run(const struct oci_bundle *b, enum oci_hook_when when, const char *status, int64_t pid, struct err *e)
    must_check;

/* ---- oci_create_io.c ---- */
struct oci_launch {
    const struct oci_bundle *bundle;
    const struct oci_process *exec;   /* NULL: the first process */
    const struct seccomp_program *filter;
    const char *dir;                  /* state folder */
    const struct cgroup_own *groups;  /* of the first process */
    unsigned preserved;               /* descriptors from 3 on that the process keeps */
    const struct oci_life *container; /* of exec */
    const char *console_socket;
    int console;                      /* out: the terminal's master, when there is no socket to send it to; or -1 */
    pid_t pid;                        /* out */
};
/* Starts it, a child of this process: the first one waits for `start`, another one runs. On error it is gone. */
int oci_launch(struct oci_launch *l, struct err *e) must_check;
/* The first process goes on; an error is its last word. */
int oci_begin(struct oci_state *s, struct err *e) must_check;
/* ---- oci_console_io.c ---- */
int oci_console_send(const char *path, int master, struct err *e) must_check;
/* From here on signals wait for oci_wait; those that come while a container is made must reach it, not end us. */
void oci_hold_signals(void);
/* Until pid ends: signals go to it, the terminal (-1: none) is joined to ours. Exit status, 128 + signal; or an error, and it
 * may live. */
int oci_wait(pid_t pid, int master, struct err *e) must_check;

/* ---- oci_init_io.c: the small program's side; descriptors from BASE on ---- */
enum { OCI_FD_GATE, OCI_FD_ERRORS, OCI_FD_SPEC, OCI_FD_EXEC, OCI_FD_LISTEN, OCI_FD_REPORT, OCI_FD_FILTER, OCI_FD_N };
#define OCI_WANTS_HOOKS 'H' /* over the errors socket: everything is mounted; a byte through the gate answers */
_Noreturn void oci_init_main(int base);
/* ---- kern_cgroup.c ---- */
/* ret_own is right on failure, too: what it has was removed. -E_BUSY, -E_EXISTS: another has such a group. */
int cgroup_create_bundle(const struct oci_bundle *b, struct cgroup_own *ret_own, struct err *e) must_check;
/* Empty ones of that name are of nobody who still needs them; but they have limits. None is touched when one is in use: -E_BUSY. */
int cgroup_remove_empty(const char *parent, const char *id, struct err *e) must_check;
/* Folder of the i-th controller's group, "" for v2; NULL: there is none, but for v1 there may be at i + 1. One that cannot be
 * looked at may be there. */
const char *cgroup_folder(unsigned i, const char *parent, const char *id, char out[512]);
/* ---- kern_oci_root.c ---- */
/* Everything mounted; the root is not entered yet. ret_root: O_PATH. */
int oci_root_setup(const struct oci_bundle *b, struct pty *t, int *ret_root, struct err *e) must_check;
int oci_root_enter(const struct oci_bundle *b, int root, struct err *e) must_check;

#endif
