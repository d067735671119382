/* What file.h promises, on the disks of the machine at work: one holds its root, one the log, as they are never synced
 * in one step anyway. */
#define WHOLE_SHIM
#include "whole.h"
#include "whole_calls.h"

#include <errno.h>

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_folder_of_log(const char *path)
{
    return str_equal(base_of(path), "raft");
}

static void use_root(void)
{
    disk_use(g.self->disk);
}

static void use_log(void)
{
    disk_use(g.self->raft_disk);
}

int file_read(const char *path, size_t max, char **ret_data, size_t *ret_size, struct err *e)
{
    use_root();
    int r = sim_file_read(path, max, ret_data, ret_size, e);
    use_log();
    return r;
}

bool file_exists(const char *path)
{
    use_root();
    bool is = sim_faccessat(sim_open("", O_DIRECTORY), base_of(path), 0, 0) == 0;
    use_log();
    return is;
}

static int write_file(const char *name, const char *tmp, const void *data, size_t size, bool sync)
{
    int dir = sim_open("", O_DIRECTORY), fd = sim_openat(dir, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int r = sim_pwrite(fd, data, size, 0) < 0 || (sync && sim_sync(fd) < 0) ? -1 : 0;
    sim_close(fd);
    if (r == 0)
        r = sim_renameat(dir, tmp, dir, name) < 0 || (sync && sim_sync(dir) < 0) ? -1 : 0;
    else
        sim_unlinkat(dir, tmp, 0);
    return r;
}

static int put(const char *path, const void *data, size_t size, bool sync, struct err *e)
{
    AUTO_FREE char *tmp = xasprintf("%s.tmp", base_of(path));
    use_root();
    int r = write_file(base_of(path), tmp, data, size, sync);
    use_log();
    return r < 0 ? err_errno(e, errno, "%s", path) : 0;
}

int file_write_atomic(const char *path, const void *data, size_t size, mode_t mode, struct err *e)
{
    (void)mode;
    return put(path, data, size, true, e);
}

int file_write_volatile(const char *path, const void *data, size_t size, mode_t mode, struct err *e)
{
    (void)mode;
    return put(path, data, size, false, e);
}

int whole_unlink(const char *path)
{
    use_root();
    int r = sim_unlinkat(sim_open("", O_DIRECTORY), base_of(path), 0);
    use_log();
    return r;
}

int file_mkdirs(const char *path, mode_t mode, struct err *e)
{
    (void)path, (void)mode, (void)e;
    return 0;
}

/* Folders are two: the log's, and the agent's with one file. */
int file_remove_tree(const char *path, struct err *e)
{
    (void)e;
    if (!is_folder_of_log(path)) {
        CHECK(str_equal(base_of(path), "agent"), "%s is removed", path);
        whole_unlink("assignment.mp");
        return 0;
    }
    int dir = sim_open("", O_DIRECTORY);
    DIR *d = sim_opendir("");
    for (struct dirent *x; (x = sim_readdir(d));)
        sim_unlinkat(dir, x->d_name, 0);
    sim_closedir(d);
    return 0;
}

char *path_join(const char *a, const char *b)
{
    return xasprintf("%s/%s", a, b);
}
