/* Shared by the files that copy: one process, one request. */
#ifndef COPY_INTERNAL_H
#define COPY_INTERNAL_H

#include "runtime_internal.h"
#include <sys/stat.h>

struct copy {
    struct copy_request q;
    struct container_spec spec; /* as the daemon keeps it */
    int sock, root;             /* root: O_PATH */
};
/* "a/./b/" becomes "a/b"; -E_INVALID for "..". ret: heap. */
int copy_clean_name(const char *name, char **ret, struct err *e) must_check;
/* ---- kern_tar_out.c ---- */
/* What PARENT/NAME is, as a tar whose names begin with AS; export: only what is on the root's own mount. */
int tar_out(const struct copy *c, int parent, const char *name, const char *as, bool export, struct err *e) must_check;
/* ---- kern_tar_in.c ---- */
int tar_in(const struct copy *c, struct err *e) must_check;
/* ---- kern_changes.c ---- */
int changes_out(const struct copy *c, struct err *e) must_check;

#endif
