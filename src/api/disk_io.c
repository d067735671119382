/* How much of the disk things take: measured by the bulk worker, so that the loop never waits for a walk. */
#include "api_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH_MAX = 1000 };

struct measuring { struct map seen; int64_t bytes; }; /* seen: files with several names, counted once */
struct job { struct strs paths; int64_t *sizes; disk_fn *fn; void *arg; };

static void walk(struct measuring *m, int at, const char *name, int depth)
{
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || depth > DEPTH_MAX)
        return;
    if (!S_ISDIR(st.st_mode)) {
        struct { dev_t dev; ino_t ino; } key = { st.st_dev, st.st_ino };
        if (st.st_nlink > 1 && map_put_n(&m->seen, &key, sizeof key, m))
            return;
        m->bytes += (int64_t)st.st_blocks * 512;
        return;
    }
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d && fd >= 0)
        close(fd);
    for (struct dirent *x; d && (x = readdir(d));)
        if (!str_equal(x->d_name, ".") && !str_equal(x->d_name, ".."))
            walk(m, dirfd(d), x->d_name, depth + 1);
    if (d)
        closedir(d);
}

static void measure(void *arg)
{
    struct job *j = arg;
    for (uint32_t i = 0; i < j->paths.n; i++) {
        struct measuring m = { .bytes = 0 };
        map_init(&m.seen);
        walk(&m, AT_FDCWD, j->paths.v[i], 0);
        map_done(&m.seen);
        j->sizes[i] = m.bytes;
    }
}

static void measured(void *arg)
{
    struct job *j = arg;
    j->fn(j->arg, j->sizes);
    strs_clear(&j->paths);
    free(j->sizes);
    free(j);
}

void disk_measure(struct api *a, struct strs *paths, disk_fn *fn, void *arg)
{
    struct job *j = xnew(struct job);
    *j = (struct job){ *paths, xcalloc((size_t)paths->n + 1, sizeof *j->sizes), fn, arg };
    *paths = (struct strs){ 0 };
    if (loop_work(a->b.loop, LANE_BULK, measure, measured, j) < 0) {
        measure(j);
        measured(j);
    }
}
