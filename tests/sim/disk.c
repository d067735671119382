/* See disk.h. Each inode has two contents: what programs see, and what is safe. Between them lies a list of extents
 * written since the last fsync, and for names a list of changes since the last fsync of the folder. A crash keeps the
 * safe content, adds a random part of each list (extents in any order and torn by sectors, names in order, as a journal
 * has them) and forgets the rest. */
#include "disk.h"

#include <errno.h>

enum { FILES_MAX = 256, NAME_BYTES = 64, FD_BASE = 1 << 20, DIR_FD = FD_BASE - 1, FDS_MAX = 64, EXTENTS_MAX = 64 };

struct extent {
    size_t at, size;
};

struct inode {
    unsigned refs; /* names and open files, here and in what is safe */
    uint8_t *now, *safe;
    size_t size, safe_size, cap, safe_cap;
    struct extent dirty[EXTENTS_MAX];
    unsigned n_dirty;
};

struct name {
    char text[NAME_BYTES];
    struct inode *file;
};

struct change { /* of a name; file NULL: gone */
    char text[NAME_BYTES];
    struct inode *file;
};

struct folder {
    struct name names[FILES_MAX];
    unsigned n;
};

struct disk {
    struct rng rng;
    struct folder now, safe;
    struct change *changes;
    unsigned n_changes, cap_changes;
    struct inode *open[FDS_MAX];
    unsigned fuse;
    bool fused, full, fail_sync, failed;
    unsigned listing, n_listed;
    char listed[FILES_MAX][NAME_BYTES];
    struct dirent entry;
};

static struct disk *on;

struct disk *disk_new(uint64_t seed)
{
    struct disk *d = xnew(struct disk);
    rng_init(&d->rng, seed);
    return d;
}

void disk_use(struct disk *d)
{
    on = d;
}

void disk_fuse(struct disk *d, unsigned n)
{
    d->fused = true;
    d->fuse = n;
}

bool disk_is_blown(const struct disk *d)
{
    return d->fused && !d->fuse;
}

void disk_set_full(struct disk *d, bool full)
{
    d->full = full;
}

bool disk_is_full(const struct disk *d)
{
    return d->full;
}

void disk_fail_sync(struct disk *d, bool fail)
{
    d->fail_sync = fail;
}

bool disk_has_failed(struct disk *d)
{
    return d->failed;
}

/* One change is about to reach the disk. False: the power is off. */
static bool reaches(struct disk *d)
{
    if (!d->fused)
        return true;
    if (!d->fuse)
        return false;
    d->fuse--;
    return true;
}

/* ---- inodes ---- */

static struct inode *inode_ref(struct inode *i)
{
    if (i)
        i->refs++;
    return i;
}

static void inode_unref(struct inode *i)
{
    if (!i || --i->refs)
        return;
    free(i->now);
    free(i->safe);
    free(i);
}

static void fit(uint8_t **bytes, size_t *cap, size_t size)
{
    if (size <= *cap)
        return;
    size_t more = MAX(size, 2 * *cap);
    *bytes = xrealloc(*bytes, more, 1);
    memset(*bytes + *cap, 0, more - *cap);
    *cap = more;
}

static void resize(struct inode *i, size_t size)
{
    fit(&i->now, &i->cap, size);
    if (size < i->size)
        memset(i->now + size, 0, i->size - size);
    i->size = size;
}

/* Makes [at, at + size) of what programs see safe. */
static void make_safe(struct inode *i, size_t at, size_t size)
{
    if (at >= i->size)
        return;
    size = MIN(size, i->size - at);
    fit(&i->safe, &i->safe_cap, at + size);
    memcpy(i->safe + at, i->now + at, size);
    i->safe_size = MAX(i->safe_size, at + size);
}

static void note_dirty(struct inode *i, size_t at, size_t size)
{
    if (i->n_dirty == EXTENTS_MAX) { /* the kernel writes back when it likes */
        make_safe(i, i->dirty[0].at, i->dirty[0].size);
        memmove(i->dirty, i->dirty + 1, (EXTENTS_MAX - 1) * sizeof(*i->dirty));
        i->n_dirty--;
    }
    i->dirty[i->n_dirty++] = (struct extent){.at = at, .size = size};
}

/* What an extent left on the disk when the power went: all, nothing, a beginning, or some sectors of it. */
static bool settle(struct disk *d, struct inode *i, const struct extent *x)
{
    unsigned how = (unsigned)rng_below(&d->rng, 4);
    size_t sector = (size_t)8 << rng_below(&d->rng, 10);
    if (how == 0)
        return true;
    if (how == 1) {
        make_safe(i, x->at, x->size);
        return false;
    }
    if (how == 2) {
        make_safe(i, x->at, rng_below(&d->rng, x->size + 1));
        return true;
    }
    for (size_t at = 0; at < x->size; at += sector) {
        if (rng_chance(&d->rng, 600))
            make_safe(i, x->at + at, MIN(sector, x->size - at));
        else if (rng_chance(&d->rng, 300) && x->at + at < i->safe_size) /* neither old nor new */
            memset(i->safe + x->at + at, 0xa5, MIN(MIN(sector, x->size - at), i->safe_size - x->at - at));
    }
    return true;
}

/* ---- folders ---- */

static struct name *find(struct folder *f, const char *text)
{
    for (unsigned i = 0; i < f->n; i++)
        if (strcmp(f->names[i].text, text) == 0)
            return &f->names[i];
    return NULL;
}

static void set(struct folder *f, const char *text, struct inode *file)
{
    struct name *x = find(f, text);
    inode_ref(file);
    if (x) {
        inode_unref(x->file);
    } else if (file) {
        ASSERT(f->n < FILES_MAX);
        x = &f->names[f->n++];
        snprintf(x->text, sizeof(x->text), "%s", text);
    }
    if (file)
        x->file = file;
    else if (x)
        *x = f->names[--f->n];
}

static void change(struct disk *d, const char *text, struct inode *file)
{
    if (d->n_changes == d->cap_changes) {
        d->cap_changes = d->cap_changes ? 2 * d->cap_changes : 32;
        d->changes = xrealloc(d->changes, d->cap_changes, sizeof(*d->changes));
    }
    struct change *c = &d->changes[d->n_changes++];
    snprintf(c->text, sizeof(c->text), "%s", text);
    c->file = inode_ref(file);
    set(&d->now, text, file);
}

static void settle_names(struct disk *d, unsigned n)
{
    for (unsigned i = 0; i < d->n_changes; i++) {
        if (i < n)
            set(&d->safe, d->changes[i].text, d->changes[i].file);
        inode_unref(d->changes[i].file);
    }
    d->n_changes = 0;
}

static void clear(struct folder *f)
{
    while (f->n)
        inode_unref(f->names[--f->n].file);
}

unsigned disk_crash(struct disk *d, bool power)
{
    unsigned harmed = 0;
    for (unsigned i = 0; i < FDS_MAX; i++)
        inode_unref(TAKE(d->open[i]));
    d->fused = d->failed = d->fail_sync = false;
    if (!power) /* what the kernel holds stays, and stays unsafe */
        return 0;
    settle_names(d, (unsigned)rng_below(&d->rng, d->n_changes + 1));
    clear(&d->now);
    for (unsigned i = 0; i < d->safe.n; i++) {
        struct inode *f = d->safe.names[i].file;
        for (unsigned k = 0; k < f->n_dirty; k++)
            harmed += settle(d, f, &f->dirty[k]);
        f->n_dirty = 0;
        fit(&f->now, &f->cap, f->safe_size);
        if (f->cap)
            memset(f->now, 0, f->cap);
        if (f->safe_size)
            memcpy(f->now, f->safe, f->safe_size);
        f->size = f->safe_size;
        set(&d->now, d->safe.names[i].text, f);
    }
    return harmed;
}

void disk_wipe(struct disk *d)
{
    disk_crash(d, true);
    clear(&d->now);
    clear(&d->safe);
    d->full = false;
}

void disk_put_back(struct disk *d, const struct disk *copy)
{
    disk_wipe(d);
    for (unsigned i = 0; i < copy->now.n; i++) {
        const struct inode *from = copy->now.names[i].file;
        struct inode *f = xnew(struct inode);
        resize(f, from->size);
        if (f->size)
            memcpy(f->now, from->now, f->size);
        make_safe(f, 0, f->size);
        set(&d->now, copy->now.names[i].text, f);
        set(&d->safe, copy->now.names[i].text, f);
    }
}

struct disk *disk_copy(const struct disk *d)
{
    struct disk *copy = disk_new(0);
    disk_put_back(copy, d);
    return copy;
}

void disk_free(struct disk *d)
{
    if (!d)
        return;
    disk_wipe(d);
    free(d->changes);
    free(d);
}

bool disk_rot(struct disk *d, struct rng *r, bool log_only, char name[64])
{
    if (!d->now.n)
        return false;
    struct name *x = &d->now.names[rng_below(r, d->now.n)];
    for (unsigned i = 0; log_only && i < d->now.n && !str_starts(x->text, "wal-"); i++)
        x = &d->now.names[i];
    struct inode *f = x->file;
    size_t used = f->size;
    while (used && !f->now[used - 1])
        used--;
    bool hard = strcmp(x->text, "hard") == 0;
    if (!used || !(hard || str_starts(x->text, "wal-") || str_starts(x->text, "snap-")))
        return false;
    size_t at = hard ? MIN(rng_below(r, 2) * 4096 + rng_below(r, 64), used - 1) : rng_below(r, used); /* its two slots */
    f->now[at] ^= (uint8_t)rng_range(r, 1, 255);
    if (at < f->safe_size)
        f->safe[at] = f->now[at];
    snprintf(name, 64, "%s at %zu", x->text, at);
    return true;
}

/* ---- what the code under test calls ---- */

static struct inode *of(int fd)
{
    ASSERT(fd >= FD_BASE && fd < FD_BASE + FDS_MAX && on->open[fd - FD_BASE]);
    return on->open[fd - FD_BASE];
}

int sim_open(const char *path, int flags, ...)
{
    (void)path;
    ASSERT(flags & O_DIRECTORY);
    return DIR_FD;
}

int sim_openat(int dir, const char *name, int flags, ...)
{
    ASSERT(dir == DIR_FD);
    struct name *x = find(&on->now, name);
    if (!x && !(flags & O_CREAT)) {
        errno = ENOENT;
        return -1;
    }
    int fd = 0;
    while (fd < FDS_MAX && on->open[fd])
        fd++;
    ASSERT(fd < FDS_MAX);
    struct inode *i = x ? x->file : xnew(struct inode);
    if (!x && reaches(on))
        change(on, name, i);
    if (flags & O_TRUNC && x && i->size) { /* as a new file */
        i = xnew(struct inode);
        if (reaches(on))
            change(on, name, i);
    }
    on->open[fd] = inode_ref(i);
    return FD_BASE + fd;
}

int sim_close(int fd)
{
    if (fd == DIR_FD)
        return 0;
    inode_unref(of(fd));
    on->open[fd - FD_BASE] = NULL;
    return 0;
}

void sim_auto_close(int *fd)
{
    if (*fd >= 0)
        sim_close(*fd);
}

ssize_t sim_pwrite(int fd, const void *p, size_t size, off_t at)
{
    struct inode *i = of(fd);
    size_t end = (size_t)at + size;
    if (on->full && end > i->size) {
        errno = ENOSPC;
        return -1;
    }
    if (!reaches(on))
        return (ssize_t)size;
    if (end > i->size)
        resize(i, end);
    memcpy(i->now + at, p, size);
    note_dirty(i, (size_t)at, size);
    return (ssize_t)size;
}

ssize_t sim_pread(int fd, void *p, size_t size, off_t at)
{
    struct inode *i = of(fd);
    if ((size_t)at >= i->size)
        return 0;
    size = MIN(size, i->size - (size_t)at);
    memcpy(p, i->now + at, size);
    return (ssize_t)size;
}

int sim_sync(int fd)
{
    bool fails = on->fail_sync;
    on->fail_sync = false;
    if (!reaches(on))
        return 0;
    if (fd == DIR_FD && !fails) {
        settle_names(on, on->n_changes);
    } else if (fd != DIR_FD) {
        struct inode *i = of(fd);
        for (unsigned k = 0; k < i->n_dirty && !fails; k++)
            make_safe(i, i->dirty[k].at, i->dirty[k].size);
        i->n_dirty = 0; /* after a failure the kernel calls the pages clean (ATC'20) */
    }
    if (!fails)
        return 0;
    on->failed = true;
    errno = EIO;
    return -1;
}

int sim_fstat(int fd, struct stat *st)
{
    memset(st, 0, sizeof(*st));
    st->st_size = (off_t)of(fd)->size;
    return 0;
}

int sim_fstatvfs(int fd, struct statvfs *v)
{
    ASSERT(fd == DIR_FD);
    memset(v, 0, sizeof(*v));
    v->f_frsize = v->f_bsize = 4096;
    v->f_blocks = 1 << 18;
    v->f_bavail = v->f_bfree = on->full ? 0 : 1 << 17;
    return 0;
}

int sim_ftruncate(int fd, off_t size)
{
    struct inode *i = of(fd);
    if (!reaches(on))
        return 0;
    resize(i, (size_t)size);
    i->safe_size = MIN(i->safe_size, i->size);
    if (i->safe)
        memset(i->safe + i->safe_size, 0, i->safe_cap - i->safe_size);
    return 0;
}

int sim_fallocate(int fd, off_t at, off_t size)
{
    struct inode *i = of(fd);
    size_t end = (size_t)at + (size_t)size;
    if (end <= i->size || disk_is_blown(on))
        return 0;
    if (on->full)
        return ENOSPC;
    resize(i, end);
    return 0;
}

int sim_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    ASSERT(from_dir == DIR_FD && to_dir == DIR_FD);
    struct name *x = find(&on->now, from);
    if (!x && !disk_is_blown(on)) {
        errno = ENOENT;
        return -1;
    }
    if (!reaches(on))
        return 0;
    struct inode *i = inode_ref(x->file);
    change(on, to, i);
    change(on, from, NULL);
    inode_unref(i);
    return 0;
}

int sim_unlinkat(int dir, const char *name, int flags)
{
    ASSERT(dir == DIR_FD && !flags);
    if (!find(&on->now, name)) {
        errno = ENOENT;
        return -1;
    }
    if (reaches(on))
        change(on, name, NULL);
    return 0;
}

int sim_faccessat(int dir, const char *name, int mode, int flags)
{
    ASSERT(dir == DIR_FD && !mode && !flags);
    errno = ENOENT;
    return find(&on->now, name) ? 0 : -1;
}

DIR *sim_opendir(const char *path)
{
    (void)path;
    on->listing = 0;
    on->n_listed = on->now.n;
    for (unsigned i = 0; i < on->now.n; i++) /* names may go while they are listed */
        memcpy(on->listed[i], on->now.names[i].text, NAME_BYTES);
    return (DIR *)(void *)on;
}

struct dirent *sim_readdir(DIR *d)
{
    struct disk *k = (struct disk *)(void *)d;
    if (k->listing >= k->n_listed)
        return NULL;
    memcpy(k->entry.d_name, k->listed[k->listing++], NAME_BYTES);
    return &k->entry;
}

int sim_closedir(DIR *d)
{
    (void)d;
    return 0;
}

int sim_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size, struct err *e)
{
    const char *base = strrchr(path, '/');
    struct name *x = find(&on->now, base ? base + 1 : path);
    if (!x)
        return err_set(e, E_NOT_FOUND, "%s is not there", path);
    if (x->file->size > max)
        return err_set(e, E_TOO_BIG, "%s is too big", path);
    *ret_size = x->file->size;
    *ret_data = xcalloc(1, x->file->size + 1);
    if (x->file->size)
        memcpy(*ret_data, x->file->now, x->file->size);
    return 0;
}

void sim_random(void *out, size_t size)
{
    rng_bytes(&on->rng, out, size);
}
