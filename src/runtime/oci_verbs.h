/* The verbs of `shoal oci` and what the command line says (oci_main_io.c). */
#ifndef OCI_VERBS_H
#define OCI_VERBS_H

#include "oci_internal.h"

struct oci_options {
    const char *root, *log, *log_format;                /* of the program */
    const char *bundle, *pid_file, *console_socket, *config, *process, *cwd, *user, *format;
    struct strs env, caps;
    int64_t preserved;
    bool detach, force, all, quiet, tty, no_new_privs, no_new_keyring, keep;
    const char *id;
    char **args; /* after the id */
    int n_args;
};
/* 0, an exit status of the container's, or -E_. */
typedef int oci_verb_fn(const struct oci_options *o, struct err *e);
oci_verb_fn oci_create, oci_start, oci_run, oci_state, oci_kill, oci_delete, oci_exec, oci_pause, oci_resume, oci_ps;
/* ---- oci_list_io.c ---- */
oci_verb_fn oci_list, oci_features;

#endif
