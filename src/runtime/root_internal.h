/* Steps that build a container's view of files, shared by the daemon's containers (kern_root.c) and OCI bundles
 * (kern_oci_root.c). root is an O_PATH descriptor of the container's root, seen from its new mount namespace. */
#ifndef ROOT_INTERNAL_H
#define ROOT_INTERNAL_H

#include "runtime_internal.h"

/* What a mount target is; USER: named by the specification, not by us. */
enum { TARGET_FILE = 1, TARGET_USER = 2 };
/* Opens PATH below root as a folder or a regular file (kind), making what is missing. */
int root_open_target(int root, const char *path, unsigned kind, struct err *e) must_check;
const char *root_fd_path(char out[64], int fd);
/* Binds the thing behind a descriptor; then changes flags of that mount (they are not taken with MS_BIND).
 * propagation: "rprivate" when NULL. */
int root_bind(int root, int source, const char *target, unsigned kind, bool recursive, unsigned long flags,
              const char *propagation, struct err *e) must_check;
/* The device nodes that every container has, in its /dev. They are its own: a bind of the host's would let its root
 * change the owner and mode of the host's. dev: its /dev. bind: nodes go on working when /dev is made nodev. */
int root_make_nodes(int root, int dev, bool bind, struct err *e) must_check;
/* Links that programs expect in /dev. */
int root_make_links(int dev, struct err *e) must_check;
int root_bind_console(int root, const struct pty *t, struct err *e) must_check;
/* Covers each path that exists: files by the container's own /dev/null, folders by an empty one. */
int root_mask(int root, const char *const *paths, unsigned n, struct err *e) must_check;
int root_make_read_only(int root, const char *const *paths, unsigned n, struct err *e) must_check;
/* -E_INVALID: one of them is on a mount with peers, which take over what is mounted on it. */
int root_check_unshared(int root, const char *const *paths, unsigned n, struct err *e) must_check;
/* Writes one sysctl below /proc/sys of root; key with dots. */
int root_set_sysctl(int root, const char *key, const char *value, struct err *e) must_check;
/* root becomes "/", where it stands. */
int root_pivot(int root, struct err *e) must_check;

#endif
