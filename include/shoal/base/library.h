/* Libraries that are loaded when they are first used. One program is daemon, client and OCI runtime, and what it is linked
 * with is loaded before main(): libcurl, libarchive, libcrypto and libnftables bring 40 others along. That took three
 * quarters of the time `shoal oci` needs to start, and memory of every daemon that pulls nothing. So these are no part of
 * the link. The one file by which each enters keeps a table of pointers to what it calls, by the names less their prefix:
 * nft_ctx_new() is libnftables.ctx_new(), after library_load(). */
#ifndef SHOAL_BASE_LIBRARY_H
#define SHOAL_BASE_LIBRARY_H

#include <pthread.h>
#include <shoal/base/err.h>
#include <stdbool.h>

struct library {
    const char *file;         /* as the linker would have recorded it; configure knows */
    const char *package;      /* Debian's, for who lacks it */
    const char *prefix;       /* of every name */
    const char *const *names; /* without it; NULL behind the last */
    void *calls;              /* a struct of as many pointers to functions, filled once */
    pthread_mutex_t lock;
    bool loaded;
};

/* The value of a struct library. CALLS(F) is F(name) F(name)..., of which table has the pointers in the same order. */
#define LIBRARY(lib_file, lib_package, lib_prefix, CALLS, table)                                                \
    { .file = lib_file, .package = lib_package, .prefix = lib_prefix, .calls = &(table),                        \
      .names = (const char *const[]){ CALLS(LIBRARY_NAME_) NULL }, .lock = PTHREAD_MUTEX_INITIALIZER }
#define LIBRARY_NAME_(name) #name,

/* Of many threads the first loads, the others wait. A failure is tried anew by the next call. Never unloaded. In a
 * process that is about to enter a container it must be called before: the container could have its own library there
 * (CVE-2019-14271). */
int library_load(struct library *l, struct err *e) must_check;

#endif
