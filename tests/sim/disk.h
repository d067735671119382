/* A disk in memory that forgets as a real one does. The production files of membership/raft are compiled with this
 * header in front (-include), so that their system calls come here: what was not fsynced may be lost, torn or kept at a
 * crash, names need the fsync of their folder, space may run out, an fsync may fail. */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <dirent.h>
#include <fcntl.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct disk;
struct disk *disk_new(uint64_t seed);
void disk_free(struct disk *d); /* takes NULL */
/* Calls of the code under test go to this disk from now on. */
void disk_use(struct disk *d);
/* From the n-th change on nothing happens any more, though the program goes on: it is dead, and does not know. */
void disk_fuse(struct disk *d, unsigned n);
bool disk_is_blown(const struct disk *d);
/* The program is gone, and so are its open files. power: the machine too: of what was never fsynced, some is lost and
 * some torn; else it stays visible, though it is no safer than before. Returns how many writes were harmed. */
unsigned disk_crash(struct disk *d, bool power);
void disk_wipe(struct disk *d);
/* The disk of a program that does not run, as it is; or put back to such a copy, which stays the caller's. */
struct disk *disk_copy(const struct disk *d);
void disk_put_back(struct disk *d, const struct disk *copy);
void disk_set_full(struct disk *d, bool full);
bool disk_is_full(const struct disk *d);
void disk_fail_sync(struct disk *d, bool fail); /* the next fdatasync or fsync says EIO, and its bytes are lost */
bool disk_has_failed(struct disk *d); /* since the last crash */
/* Changes a byte of what a file of the log, a snapshot or the copy of term and vote holds, or only of the log. False: there
 * was nothing to harm. name is for people. */
bool disk_rot(struct disk *d, struct rng *r, bool log_only, char name[64]);

/* What the code under test calls. */
int sim_open(const char *path, int flags, ...);
int sim_openat(int dir, const char *name, int flags, ...);
int sim_close(int fd);
void sim_auto_close(int *fd);
ssize_t sim_pwrite(int fd, const void *p, size_t size, off_t at);
ssize_t sim_pread(int fd, void *p, size_t size, off_t at);
int sim_sync(int fd);
int sim_fstat(int fd, struct stat *st);
int sim_fstatvfs(int fd, struct statvfs *v);
int sim_ftruncate(int fd, off_t size);
int sim_fallocate(int fd, off_t at, off_t size);
int sim_renameat(int from_dir, const char *from, int to_dir, const char *to);
int sim_unlinkat(int dir, const char *name, int flags);
int sim_faccessat(int dir, const char *name, int mode, int flags);
DIR *sim_opendir(const char *path);
struct dirent *sim_readdir(DIR *d);
int sim_closedir(DIR *d);
int sim_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size, struct err *e);
void sim_random(void *out, size_t size);
void sim_log(enum log_level level, const char *module, struct log_site *site, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void sim_abort(void) __attribute__((noreturn)); /* raft_cluster.c: this node's process ends */

#ifdef SIM_DISK
#define open(...) sim_open(__VA_ARGS__)
#define openat(...) sim_openat(__VA_ARGS__)
#define close(fd) sim_close(fd)
#define auto_close_ sim_auto_close
#define pwrite(...) sim_pwrite(__VA_ARGS__)
#define pread(...) sim_pread(__VA_ARGS__)
#define fdatasync(fd) sim_sync(fd)
#define fsync(fd) sim_sync(fd)
#define fstat(...) sim_fstat(__VA_ARGS__)
#define fstatvfs(...) sim_fstatvfs(__VA_ARGS__)
#define ftruncate(...) sim_ftruncate(__VA_ARGS__)
#define posix_fallocate(...) sim_fallocate(__VA_ARGS__)
#define renameat(...) sim_renameat(__VA_ARGS__)
#define unlinkat(...) sim_unlinkat(__VA_ARGS__)
#define faccessat(...) sim_faccessat(__VA_ARGS__)
#define opendir(path) sim_opendir(path)
#define readdir(d) sim_readdir(d)
#define closedir(d) sim_closedir(d)
#define flock(fd, how) ((void)(fd), 0)
#define file_read(...) sim_file_read(__VA_ARGS__)
#define file_mkdirs(...) 0
#define crypto_random(p, size) sim_random(p, size)
#define abort() sim_abort()
#define log_write sim_log
#endif
#endif
