/* Files, paths, processes and clocks: the shells' everyday system calls (file_io.c, proc_io.c, clock_io.c). */
#ifndef SHOAL_BASE_FILE_H
#define SHOAL_BASE_FILE_H

#include <shoal/base/err.h>
#include <shoal/base/sb.h>
#include <stdint.h>
#include <sys/types.h>

/* Whole file, at most max bytes (E_TOO_BIG beyond). ret_data is NUL-terminated heap memory. */
int file_read(const char *path, size_t max, char **ret_data, size_t *ret_size, struct err *e) must_check;
/* Writes path.tmp, fsyncs, renames over path, fsyncs the folder: old or new content survives a power cut. */
int file_write_atomic(const char *path, const void *data, size_t size, mode_t mode, struct err *e) must_check;
/* Likewise, without waiting for the disk: readers see old or new content, a power cut may lose or empty it. For what
 * does not outlive a reboot. */
int file_write_volatile(const char *path, const void *data, size_t size, mode_t mode, struct err *e) must_check;
/* Plain write to an existing file such as /proc/sys/... or a cgroup control file (no O_CREAT). */
int file_poke(const char *path, const char *text, struct err *e) must_check;
int file_mkdirs(const char *path, mode_t mode, struct err *e) must_check; /* with parents; existing is fine */
int file_remove_tree(const char *path, struct err *e) must_check;        /* never crosses mounts or links; absent is fine */
bool file_exists(const char *path);
int fd_write_all(int fd, const void *p, size_t size, struct err *e) must_check; /* retries short writes and EINTR */
int fd_set_nonblock(int fd, bool on);
int fd_send_with_fds(int sock, const void *p, size_t size, const int *fds, unsigned n_fds, struct err *e) must_check;
/* One message; fds are CLOEXEC; returns bytes >= 0 (0: peer closed) or -E_. *n_fds: in capacity, out received. */
long fd_recv_with_fds(int sock, void *p, size_t size, int *fds, unsigned *n_fds, struct err *e) must_check;

/* Path building, heap result, never fails. */
char *path_join(const char *a, const char *b);

int64_t clock_mono_ns(void);
int64_t clock_real_ns(void); /* since 1970 UTC */
#define MS_NS INT64_C(1000000)
#define SEC_NS INT64_C(1000000000)
/* "2026-11-23T15:58:03.61443028Z"; out >= 40 bytes; 0 gives "0001-01-01T00:00:00Z". */
void time_format(char *out, int64_t real_ns);
int time_parse(const char *s, int64_t *ret_real_ns); /* 0 or -1; RFC 3339 */

/* Runs argv to its end, output of stdout+stderr (at most 64 KiB) into out if given. Returns exit status, 128+signal, or -E_. */
int proc_run(const char *const argv[], struct sb *out, struct err *e) must_check;
#endif
