/* Last steps of a process before it becomes the container's program, shared by process_io.c and oci_init_io.c. */
#ifndef PROCESS_INTERNAL_H
#define PROCESS_INTERNAL_H

#include "runtime_internal.h"

struct capability_sets { uint64_t bounding, permitted, effective, inheritable, ambient; };

/* /proc/self/exe is the host's program, and memory may hold what is not the container's: nobody inside may look. */
int process_hide(struct err *e) must_check;
_Noreturn void process_die(int errors, const struct err *e); /* says why over the errors socket */
/* A lone NUL, with the master of the terminal if there is one. */
void process_tell_ready(int errors, bool tty, const struct pty *t);
int process_set_ulimits(const struct container_ulimit *v, uint32_t n, struct err *e) must_check;
int process_set_oom_score(int64_t adj, struct err *e) must_check;
/* A file of the image, which may be anything: only a regular one of bounded size counts, and opening never waits. */
char *process_read_plain(const char *path);
/* A session keyring of the container's own, or that which it has, in place of who started it. A kernel may have none. */
int process_join_keyring(const char *id, struct err *e) must_check;
/* Groups, user and capabilities, for good. */
int process_become(const struct user *u, const struct capability_sets *caps, struct err *e) must_check;
int process_filter(const struct seccomp_program *f, unsigned flags, struct err *e) must_check; /* NULL: none */
int process_no_new_privs(struct err *e) must_check;
/* Enters DIR, which must lie in the container: a name like /proc/self/fd/7 may lead out (CVE-2024-21626). */
int process_enter_folder(const char *dir, bool make, struct err *e) must_check;
int process_own_stdio(bool tty, uid_t uid, struct err *e) must_check;
void process_default_signals(void);
/* execve along PATH of the new environment, so that a missing program is told from one that cannot run. look: only
 * whether there is one. Comes back with 0 or an error. */
int process_run(char *const argv[], char *const env[], bool look, struct err *e) must_check;

#endif
