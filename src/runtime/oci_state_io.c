/* Folders of containers that `shoal oci` made: what they are (bundle.mp), which process they are and whose control groups are
 * theirs (life.mp), whether they
 * were started (start.sock is gone then). A folder is locked by the verb that changes it. */
#include "oci_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/file.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

char *oci_state_path(const struct oci_state *s, const char *name)
{
    return path_join(s->dir, name);
}

static int lock(struct oci_state *s, struct err *e)
{
    s->lock = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->lock < 0 || flock(s->lock, LOCK_EX) < 0 ? err_errno(e, errno, "lock %s", s->dir) : 0;
}

int oci_state_make(const char *root, const char *id, struct oci_state *ret, struct err *e)
{
    struct oci_state s = { .lock = -1, .status = "creating" };
    int r = oci_id_check(id, e);
    if (r == 0)
        r = file_mkdirs(root, 0700, e);
    if (r < 0)
        return r;
    s.dir = path_join(root, id);
    if (mkdir(s.dir, 0700) < 0)
        r = errno == EEXIST ? err_set(e, E_EXISTS, "container with id %s exists already; choose another id, or delete it", id)
                            : err_errno(e, errno, "%s", s.dir);
    else if ((r = lock(&s, e)) < 0)
        rmdir(s.dir);
    if (r < 0)
        oci_state_done(&s);
    else
        *ret = s;
    return r;
}

static int load(const struct rec *t, void *ret, const struct oci_state *s, const char *name, struct err *e)
{
    AUTO_FREE char *path = oci_state_path(s, name), *bytes = NULL;
    size_t n;
    int r = file_read(path, OCI_BUNDLE_MAX_BYTES, &bytes, &n, e);
    return r < 0 ? r : rec_unpack(t, ret, bytes, n, e);
}

void oci_state_look(struct oci_state *s)
{
    AUTO_FREE char *waiting = oci_state_path(s, "start.sock");
    if (!s->life.pid)
        s->status = "creating";
    else if (process_has_ended((pid_t)s->life.pid, s->life.start_id))
        s->status = "stopped";
    else if (file_exists(waiting))
        s->status = "created";
    else
        s->status = cgroup_is_frozen(oci_cgroup_parent(&s->bundle), s->bundle.cgroup) ? "paused" : "running";
}

int oci_state_load(const char *root, const char *id, bool locked, struct oci_state *ret, struct err *e)
{
    struct oci_state s = { .lock = -1 };
    int r = oci_id_check(id, e);
    if (r < 0)
        return r;
    s.dir = path_join(root, id);
    if (!file_exists(s.dir))
        r = errno == ENOENT ? err_set(e, E_NOT_FOUND, "container \"%s\" does not exist below %s; shoal oci list shows which do", id, root)
                            : err_errno(e, errno, "%s", s.dir);
    if (r == 0 && locked)
        r = lock(&s, e);
    if (r == 0)
        r = load(&oci_bundle_rec, &s.bundle, &s, "bundle.mp", e);
    if (r == 0 && (r = load(&oci_life_rec, &s.life, &s, "life.mp", e)) == -E_NOT_FOUND)
        r = 0; /* not made to its end */
    if (r < 0) {
        oci_state_done(&s);
        return r;
    }
    oci_state_look(&s);
    *ret = s;
    return 0;
}

static int save(const struct rec *t, const void *record, const struct oci_state *s, const char *name, struct err *e)
{
    AUTO_SB struct sb b;
    AUTO_FREE char *path = oci_state_path(s, name);
    sb_init(&b, OCI_BUNDLE_MAX_BYTES);
    rec_pack(t, record, &b);
    return b.overflow ? err_set(e, E_TOO_BIG, "config.json is too big") : file_write_volatile(path, b.s, b.len, 0600, e);
}

int oci_state_save_bundle(const struct oci_state *s, struct err *e)
{
    return save(&oci_bundle_rec, &s->bundle, s, "bundle.mp", e);
}

int oci_state_save_life(struct oci_state *s, pid_t pid, struct err *e)
{
    s->life.pid = pid;
    s->life.start_id = pid ? process_start_id(pid) : 0;
    if (pid && !s->life.start_id) /* by a wrong one it would seem to have ended */
        return err_set(e, E_IO, "the container's process %d cannot be looked at in /proc; is it mounted?", (int)pid);
    s->life.created_ns = clock_real_ns();
    return save(&oci_life_rec, &s->life, s, "life.mp", e);
}

void oci_state_set_groups(struct oci_state *s, const struct cgroup_own *own)
{
    free(s->life.groups.v);
    s->life.groups = (struct bytes){ xmemdup(own, sizeof *own), sizeof *own };
}

const struct cgroup_own *oci_state_groups(const struct oci_state *s)
{
    static const struct cgroup_own none;
    if (!s->life.created_ns) /* given up before it had any */
        return &none;
    return s->life.groups.n == sizeof none ? (const struct cgroup_own *)(const void *)s->life.groups.v : NULL;
}

int oci_state_remove_unmade(const char *root, const char *id, struct err *e)
{
    struct oci_state s = { .lock = -1, .dir = path_join(root, id) };
    AUTO_FREE char *bundle = oci_state_path(&s, "bundle.mp");
    int r = file_exists(s.dir) ? lock(&s, e) : 0;
    if (r == 0 && s.lock >= 0 && !file_exists(bundle) && errno == ENOENT) {
        r = file_remove_tree(s.dir, e);
        r = r == 0 ? 1 : r;
    }
    oci_state_done(&s);
    return r;
}

int oci_state_remove(const struct oci_state *s, struct err *e)
{
    return file_remove_tree(s->dir, e);
}

void oci_state_done(struct oci_state *s)
{
    if (s->lock >= 0)
        close(s->lock);
    s->lock = -1;
    free(s->dir);
    s->dir = NULL;
    oci_bundle_clear(&s->bundle);
    oci_life_clear(&s->life);
}
