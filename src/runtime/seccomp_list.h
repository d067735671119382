/* System calls by name: always allowed, and allowed together with a capability. NULL ends each list. */
#ifndef SECCOMP_LIST_H
#define SECCOMP_LIST_H

#include <stddef.h>

struct seccomp_capability { const char *capability; const char *const *calls; };
extern const char *const seccomp_allowed[];
extern const struct seccomp_capability seccomp_by_capability[];

#endif
