/* What a container has changed against its image: its own layer, compared with the image's. The layers' marks are those of
 * overlayfs: a character device 0:0 deletes, trusted.overlay.opaque hides what lies below a folder. */
#include "copy_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { DEPTH_MAX = 1000, CHANGED = 0, ADDED = 1, DELETED = 2 };

struct diff { const struct copy *c; struct sb out; unsigned n; };

static bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static bool is_opaque(int root, const char *path)
{
    char value[4] = "";
    AUTO_CLOSE int fd = root_open_in(root, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    return fd >= 0 && fgetxattr(fd, "trusted.overlay.opaque", value, sizeof value) > 0 && (value[0] == 'y' || value[0] == 'x');
}

enum { LAYER_NOTHING, LAYER_HAS, LAYER_HIDES };

/* What one layer says of PATH, "a/b/c". */
static int layer_says(int layer, const char *path, struct stat *st)
{
    bool hides = false;
    for (const char *end = path; *end;) {
        end += strcspn(end, "/");
        AUTO_FREE char *part = xstrndup(path, (size_t)(end - path));
        AUTO_CLOSE int fd = root_open_in(layer, part, O_PATH | O_NOFOLLOW);
        if (fd < 0 || fstat(fd, st) < 0)
            return hides ? LAYER_HIDES : LAYER_NOTHING;
        if (is_whiteout(st) || (*end && !S_ISDIR(st->st_mode)))
            return LAYER_HIDES;
        if (*end)
            hides |= is_opaque(layer, part);
        end += *end == '/';
    }
    return LAYER_HAS;
}

static bool image_has(const struct diff *d, const char *path)
{
    struct stat st;
    for (uint32_t i = 0; i < d->c->spec.lower_dirs.n; i++) {
        AUTO_CLOSE int layer = open(d->c->spec.lower_dirs.v[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        int says = layer < 0 ? LAYER_NOTHING : layer_says(layer, path, &st);
        if (says != LAYER_NOTHING)
            return says == LAYER_HAS;
    }
    return false;
}

/* Places that were made to mount something on. */
static bool is_mount_target(const struct diff *d, const char *path)
{
    static const char *const ours[] = { "dev", "proc", "sys", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf" };
    const struct container_spec *s = &d->c->spec;
    for (unsigned i = 0; i < ARRAY_N(ours); i++)
        if (str_equal(ours[i], path))
            return true;
    for (uint32_t i = 0; i < s->mounts.n; i++)
        if (str_equal(s->mounts.v[i].target + (s->mounts.v[i].target[0] == '/'), path))
            return true;
    for (uint32_t i = 0; i < s->files.n; i++)
        if (str_equal(s->files.v[i].path + (s->files.v[i].path[0] == '/'), path))
            return true;
    return false;
}

static void add(struct diff *d, const char *path, int kind)
{
    AUTO_FREE char *absolute = xasprintf("/%s", path);
    sb_printf(&d->out, "%s{\"Kind\":%d,\"Path\":", d->n++ ? "," : "[", kind);
    sb_json_str(&d->out, absolute, strlen(absolute));
    sb_char(&d->out, '}');
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int walk(struct diff *d, int at, const char *path, int depth, struct err *e);

static int look(struct diff *d, int at, const char *name, const char *path, int depth, struct err *e)
{
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (is_whiteout(&st)) {
        if (image_has(d, path))
            add(d, path, DELETED);
        return 0;
    }
    bool had = image_has(d, path);
    if (!had && is_mount_target(d, path))
        return 0;
    if (!is_mount_target(d, path))
        add(d, path, had ? CHANGED : ADDED);
    if (!S_ISDIR(st.st_mode))
        return 0;
    AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? 0 : walk(d, fd, path, depth + 1, e);
}

static int walk(struct diff *d, int at, const char *path, int depth, struct err *e)
{
    struct dirent **names;
    if (depth > DEPTH_MAX)
        return err_set(e, E_TOO_BIG, "%.300s...: folders are nested deeper than %d", path, DEPTH_MAX);
    int n = scandirat(at, ".", &names, NULL, by_name), r = 0;
    if (n < 0)
        return err_errno(e, errno, "/%.300s", path);
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !str_equal(name, ".") && !str_equal(name, "..")) {
            AUTO_FREE char *inner = *path ? xasprintf("%s/%s", path, name) : xstrdup(name);
            r = look(d, at, name, inner, depth, e);
        }
        free(names[i]);
    }
    free(names);
    return r == 0 && d->out.overflow ? err_set(e, E_TOO_BIG, "there are too many changes to list") : r;
}

int changes_out(const struct copy *c, struct err *e)
{
    struct diff d = { .c = c };
    AUTO_FREE char *dir = path_join(c->q.dir, "upper");
    AUTO_CLOSE int upper = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (upper < 0)
        return err_errno(e, errno, "%s", dir);
    sb_init(&d.out, 256 << 20);
    sb_char(&d.out, '\n');
    int r = walk(&d, upper, "", 0, e);
    sb_str(&d.out, d.n ? "]\n" : "null\n");
    if (r == 0)
        r = fd_write_all(c->sock, d.out.s, d.out.len, e);
    sb_done(&d.out);
    return r;
}
