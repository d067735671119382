/* Folders that nobody wants any more: out of sight at once, removed by the bulk worker while the loop goes on. */
#include <dirent.h>
#include <errno.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/runtime.h>
#include <stdio.h>

LOG_MODULE("runtime");

#define HIDDEN ".gone-"

struct discarding { char *path; int result; struct err e; };

static void discard_work(void *arg)
{
    struct discarding *d = arg;
    d->result = file_remove_tree(d->path, &d->e);
}

static void discard_done(void *arg)
{
    struct discarding *d = arg;
    if (d->result < 0)
        log_warn("%s", d->e.text); /* the next start tries again */
    free(d->path);
    free(d);
}

static void remove_later(struct loop *l, char *path)
{
    struct discarding *d = xnew(struct discarding);
    d->path = path;
    if (loop_work(l, LANE_BULK, discard_work, discard_done, d) < 0) {
        discard_work(d);
        discard_done(d);
    }
}

int folder_discard(struct loop *l, const char *path, struct err *e)
{
    char random[65];
    const char *slash = strrchr(path, '/');
    id_random_hex(random);
    char *hidden = xasprintf("%.*s/" HIDDEN "%.16s", slash ? (int)(slash - path) : 1, slash ? path : ".", random);
    if (rename(path, hidden) < 0) {
        free(hidden);
        return errno == ENOENT ? 0 : err_errno(e, errno, "remove %s", path);
    }
    remove_later(l, hidden);
    return 0;
}

void folder_discard_rest(struct loop *l, const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));)
        if (str_starts(x->d_name, HIDDEN))
            remove_later(l, path_join(dir, x->d_name));
    if (d)
        closedir(d);
}
