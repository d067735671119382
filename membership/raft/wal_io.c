/* Files of the log: segments wal-N (zero-filled ahead, so the hot path neither allocates nor
 * journals), snapshots snap-INDEX-TERM (tmp, fsync, rename, fsync of the folder, re-read), one lock.
 * A failed write or fdatasync aborts the process at once: after it the kernel may have marked lost
 * pages clean ("Can Applications Recover from fsync Failures?", ATC'20). Only ENOSPC before anything
 * was promised is reported and may be tried again. */
#include "wal.h"

#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

LOG_MODULE("raft");

#define SPARE "wal.spare"

struct segment {
    uint64_t number, max_index;
};

struct raft_disk {
    char *dir;
    int dir_fd, lock_fd, fd; /* fd: active segment, -1: none yet */
    uint8_t key[32];
    bool sealed, must_roll;
    uint32_t segment_bytes;
    uint64_t file_bytes; /* of the active segment */
    uint64_t node_id, term, vote, commit, last_index, syncs;
    uint64_t number, end; /* last segment, and where it ends when it is not active */
    uint64_t base_index, base_term; /* for the next segment, see wal.h */
    struct wal_writer writer;
    struct segment *segments;
    uint32_t n_segments, cap_segments;
};

static const uint8_t *disk_key(const struct raft_disk *d)
{
    return d->sealed ? d->key : NULL;
}

static void die(const struct raft_disk *d, const char *what, int errno_)
{
    struct err e;
    err_errno(&e, errno_, "%s in %s failed; what reached the disk is unknown, so this process stops",
              what, d->dir);
    log_error("%s", e.text);
    abort();
}

static void segment_name(char out[64], uint64_t number)
{
    snprintf(out, 64, "wal-%016" PRIx64, number);
}

static void snap_name(char out[64], uint64_t index, uint64_t term)
{
    snprintf(out, 64, "snap-%016" PRIx64 "-%016" PRIx64, index, term);
}

/* 0 or errno. */
static int write_at(int fd, const void *bytes, size_t size, uint64_t offset)
{
    const uint8_t *p = bytes;
    while (size) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? errno : ENOSPC;
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int fill_zeros(int fd, uint64_t from, uint64_t to)
{
    AUTO_FREE uint8_t *zeros = xcalloc(1, 256 << 10);
    int rc = to > from ? posix_fallocate(fd, (off_t)from, (off_t)(to - from)) : 0;
    while (!rc && from < to) {
        size_t n = (size_t)MIN(to - from, UINT64_C(256) << 10);
        rc = write_at(fd, zeros, n, from);
        from += n;
    }
    return rc;
}

/* ---- segments ---- */

void raft_disk_prepare(struct raft_disk *d)
{
    if (faccessat(d->dir_fd, SPARE, F_OK, 0) == 0)
        return;
    AUTO_CLOSE int fd = openat(d->dir_fd, SPARE ".tmp", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return; /* the roll makes its file itself, and reports */
    if (fill_zeros(fd, 0, d->segment_bytes) != 0 || fdatasync(fd) != 0) {
        unlinkat(d->dir_fd, SPARE ".tmp", 0);
        return;
    }
    renameat(d->dir_fd, SPARE ".tmp", d->dir_fd, SPARE);
}

/* The file for the next segment: the spare or a new one, at least `bytes` long. 0 or errno. */
static int segment_file(struct raft_disk *d, const char *tmp, uint64_t bytes, int *ret_fd)
{
    bool spare = renameat(d->dir_fd, SPARE, d->dir_fd, tmp) == 0;
    int fd = openat(d->dir_fd, tmp, O_RDWR | O_CREAT | O_CLOEXEC | (spare ? 0 : O_TRUNC), 0600);
    if (fd < 0)
        return errno;
    struct stat st;
    int rc = fstat(fd, &st) != 0 ? errno : 0;
    if (!rc)
        rc = fill_zeros(fd, (uint64_t)st.st_size, bytes);
    if (rc) {
        close(fd);
        unlinkat(d->dir_fd, tmp, 0);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

/* Opens segment number+1 with room for `bytes` of batch. Nothing changes unless it returns 0. */
static int roll(struct raft_disk *d, uint64_t bytes, struct err *e)
{
    struct wal_segment s = {
        .number = d->number + 1,
        .node_id = d->node_id,
        .prev_bytes = d->fd >= 0 ? d->writer.offset : d->end,
        .term = d->term,
        .vote = d->vote,
        .commit = d->commit,
        .batch = d->writer.batch,
        .sealed = d->sealed,
        .base_index = d->base_index,
        .base_term = d->base_term,
    };
    memcpy(s.prev_tag, d->writer.tag, sizeof(s.prev_tag));
    crypto_random(s.salt, sizeof(s.salt));
    if (d->sealed)
        wal_key_id(s.key_id, d->key);
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    wal_segment_encode(&s, header);
    char name[64], tmp[80];
    segment_name(name, s.number);
    snprintf(tmp, sizeof(tmp), "%s.tmp", name);
    uint64_t size = MAX(d->segment_bytes, WAL_SEGMENT_HEADER_BYTES + bytes + WAL_MARK_BYTES);
    int fd = -1, rc = segment_file(d, tmp, size, &fd);
    if (rc == ENOSPC || rc == EDQUOT)
        return err_set(e, E_BUSY, "raft log: no space left in %s for the next segment; free %" PRIu64
                       " bytes", d->dir, size);
    if (rc || (rc = write_at(fd, header, sizeof(header), 0)))
        die(d, "making a segment", rc);
    if (fdatasync(fd) != 0)
        die(d, "fdatasync of a new segment", errno);
    if (renameat(d->dir_fd, tmp, d->dir_fd, name) != 0 || fsync(d->dir_fd) != 0)
        die(d, "renaming a new segment", errno);
    if (d->fd >= 0)
        close(d->fd);
    d->fd = fd;
    d->file_bytes = size;
    d->number = s.number;
    d->must_roll = false;
    d->base_index = d->base_term = 0;
    d->writer.durable_index = d->last_index;
    wal_writer_start(&d->writer, &s, disk_key(d));
    RAFT_GROW(d->segments, d->n_segments, d->cap_segments);
    d->segments[d->n_segments++] = (struct segment){.number = s.number};
    return 0;
}

static void note_write(struct raft_disk *d, const struct raft_write *w)
{
    struct segment *s = &d->segments[d->n_segments - 1];
    if (w->has_hard) {
        d->term = w->term;
        d->vote = w->vote;
    }
    d->commit = MAX(d->commit, w->commit);
    if (w->install)
        d->last_index = w->install_index;
    if (w->truncate_from)
        d->last_index = w->truncate_from - 1;
    if (w->n_entries)
        d->last_index = w->entries[w->n_entries - 1].index;
    s->max_index = MAX(s->max_index, d->last_index);
}

int raft_disk_write(struct raft_disk *d, struct raft_write *const *writes, uint32_t n, struct err *e)
{
    for (uint32_t i = 0; i < n; i++) {
        int rc = writes[i]->install ? raft_disk_save_snapshot(d, writes[i]->install, e) : 0;
        if (rc == -E_BUSY)
            return rc;
        if (rc) {
            log_error("%s", e ? e->text : "raft: a snapshot could not be written");
            abort();
        }
    }
    uint64_t bytes = wal_batch_bytes(writes, n);
    if (d->fd < 0 || d->must_roll || d->writer.offset + bytes + WAL_MARK_BYTES > d->file_bytes) {
        int rc = roll(d, bytes, e);
        if (rc)
            return rc;
    }
    struct wal_writer before = d->writer;
    AUTO_SB struct sb b;
    sb_init(&b, bytes + 64);
    wal_batch_encode(&d->writer, writes, n, &b);
    ASSERT(!b.overflow);
    int rc = write_at(d->fd, b.s, b.len, before.offset);
    if (rc == ENOSPC || rc == EDQUOT) {
        d->writer = before;
        d->must_roll = true; /* never two things under one nonce */
        return err_set(e, E_BUSY, "raft log: no space left in %s; free some", d->dir);
    }
    if (rc)
        die(d, "writing the log", rc);
    if (fdatasync(d->fd) != 0)
        die(d, "fdatasync of the log", errno);
    d->syncs++;
    for (uint32_t i = 0; i < n; i++)
        note_write(d, writes[i]);
    d->writer.durable_batch = d->writer.batch;
    d->writer.durable_index = d->last_index;
    uint8_t mark[WAL_MARK_BYTES];
    wal_mark_encode(&d->writer, mark);
    rc = write_at(d->fd, mark, sizeof(mark), d->writer.offset - WAL_MARK_BYTES);
    if (rc)
        die(d, "writing the log", rc);
    return 0;
}

void raft_disk_set_id(struct raft_disk *d, uint64_t id)
{
    ASSERT(d->fd < 0 && !d->writer.batch);
    d->node_id = id;
}

uint64_t raft_disk_syncs(const struct raft_disk *d)
{
    return d->syncs;
}

/* ---- snapshots ---- */

int raft_disk_save_snapshot(struct raft_disk *d, struct raft_buf *image, struct err *e)
{
    struct raft_image head;
    if (raft_image_decode(&head, image->data, image->size, true) != 0)
        return err_set(e, E_INTERNAL, "raft: the snapshot to be written is malformed; report this");
    uint64_t index = head.index, term = head.term;
    raft_image_done(&head);
    AUTO_SB struct sb b;
    sb_init(&b, image->size + image->size / 1024 + 4096);
    snapfile_encode(image->data, image->size, index, term, disk_key(d), &b);
    ASSERT(!b.overflow);
    char name[64], tmp[80];
    snap_name(name, index, term);
    snprintf(tmp, sizeof(tmp), "%s.tmp", name);
    AUTO_CLOSE int fd = openat(d->dir_fd, tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = fd < 0 ? errno : write_at(fd, b.s, b.len, 0);
    if (!rc && fsync(fd) != 0)
        rc = errno;
    if (rc) {
        unlinkat(d->dir_fd, tmp, 0);
        if (rc == ENOSPC || rc == EDQUOT)
            return err_set(e, E_BUSY, "raft: no space left in %s for a snapshot of %zu bytes; free some",
                           d->dir, b.len);
        return err_errno(e, rc, "raft: cannot write %s/%s", d->dir, tmp);
    }
    /* read back before anything relies on it */
    memset(b.s, 0, b.len);
    for (size_t at = 0; at < b.len;) {
        ssize_t got = pread(fd, b.s + at, b.len - at, (off_t)at);
        if (got <= 0)
            return err_errno(e, got ? errno : EIO, "raft: cannot read %s/%s back", d->dir, tmp);
        at += (size_t)got;
    }
    struct raft_buf *again = NULL;
    rc = snapfile_decode(&again, (const uint8_t *)b.s, b.len, disk_key(d), tmp, e);
    raft_buf_unref(again);
    if (rc)
        return rc;
    if (renameat(d->dir_fd, tmp, d->dir_fd, name) != 0 || fsync(d->dir_fd) != 0)
        die(d, "renaming a snapshot", errno);
    return 0;
}

struct listing {
    uint64_t (*snaps)[2]; /* index, term; newest first */
    uint32_t n_snaps, cap_snaps;
    uint64_t *segments; /* ascending */
    uint32_t n_segments, cap_segments;
};

static void listing_done(struct listing *l)
{
    free(l->snaps);
    free(l->segments);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int compare_snaps(const void *a, const void *b)
{
    return -compare_u64(a, b);
}

/* Reads the folder; with clean, removes what a crash left half made. */
static int list_files(struct raft_disk *d, bool clean, struct listing *l, struct err *e)
{
    memset(l, 0, sizeof(*l));
    DIR *dir = opendir(d->dir);
    if (!dir)
        return err_errno(e, errno, "raft log: cannot list %s", d->dir);
    for (struct dirent *f; (f = readdir(dir));) {
        uint64_t a, b;
        int end = 0;
        if (clean && str_ends(f->d_name, ".tmp")) {
            unlinkat(d->dir_fd, f->d_name, 0);
        } else if (sscanf(f->d_name, "wal-%16" SCNx64 "%n", &a, &end) == 1 && end == 20 &&
                   !f->d_name[end]) {
            RAFT_GROW(l->segments, l->n_segments, l->cap_segments);
            l->segments[l->n_segments++] = a;
        } else if (sscanf(f->d_name, "snap-%16" SCNx64 "-%16" SCNx64 "%n", &a, &b, &end) == 2 &&
                   end == 38 && !f->d_name[end]) {
            RAFT_GROW(l->snaps, l->n_snaps, l->cap_snaps);
            l->snaps[l->n_snaps][0] = a;
            l->snaps[l->n_snaps++][1] = b;
        }
    }
    closedir(dir);
    if (l->n_segments)
        qsort(l->segments, l->n_segments, sizeof(*l->segments), compare_u64);
    if (l->n_snaps)
        qsort(l->snaps, l->n_snaps, sizeof(*l->snaps), compare_snaps);
    return 0;
}

void raft_disk_trim(struct raft_disk *d)
{
    struct listing l;
    struct err e;
    if (list_files(d, false, &l, &e) != 0) {
        log_warn("%s", e.text);
        return;
    }
    char name[64];
    for (uint32_t i = 2; i < l.n_snaps; i++) {
        snap_name(name, l.snaps[i][0], l.snaps[i][1]);
        unlinkat(d->dir_fd, name, 0);
    }
    uint64_t floor = l.n_snaps >= 2 ? l.snaps[1][0] : 0;
    uint32_t gone = 0;
    while (gone + 1 < d->n_segments && d->segments[gone].max_index <= floor) {
        segment_name(name, d->segments[gone++].number);
        unlinkat(d->dir_fd, name, 0);
    }
    memmove(d->segments, d->segments + gone, (d->n_segments - gone) * sizeof(*d->segments));
    d->n_segments -= gone;
    listing_done(&l);
}

/* ---- start ---- */

/* Header of a segment, for the end it states of the one before. */
static int peek_header(struct raft_disk *d, const char *name, struct wal_segment *ret, struct err *e)
{
    AUTO_CLOSE int fd = openat(d->dir_fd, name, O_RDONLY | O_CLOEXEC);
    uint8_t header[WAL_SEGMENT_HEADER_BYTES];
    if (fd < 0 || pread(fd, header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
        !wal_segment_decode(ret, header, sizeof(header)))
        return err_set(e, E_CORRUPT, "raft log: %s/%s has a damaged header at offset 0; replace this "
                       "node under a new id", d->dir, name);
    return 0;
}

static int replay(struct raft_disk *d, const struct listing *l, struct wal_replay *s, struct err *e)
{
    d->n_segments = 0;
    for (uint32_t i = 0; i < l->n_segments; i++) {
        char name[64];
        uint64_t limit = 0;
        if (i + 1 < l->n_segments) {
            struct wal_segment next;
            segment_name(name, l->segments[i + 1]);
            int rc = peek_header(d, name, &next, e);
            if (rc)
                return rc;
            limit = next.prev_bytes;
        }
        segment_name(name, l->segments[i]);
        AUTO_FREE char *path = path_join(d->dir, name);
        AUTO_FREE char *bytes = NULL;
        size_t size;
        int rc = file_read(path, SIZE_MAX / 2, &bytes, &size, e);
        if (!rc)
            rc = wal_replay_segment(s, (const uint8_t *)bytes, size, limit, path, e);
        if (rc)
            return rc;
        RAFT_GROW(d->segments, d->n_segments, d->cap_segments);
        d->segments[d->n_segments++] =
            (struct segment){.number = l->segments[i], .max_index = s->max_index};
    }
    return 0;
}

static int load_snapshot(struct raft_disk *d, const uint64_t snap[2], struct raft_buf **ret,
                         struct err *e)
{
    char name[64];
    snap_name(name, snap[0], snap[1]);
    AUTO_FREE char *path = path_join(d->dir, name);
    AUTO_FREE char *bytes = NULL;
    size_t size;
    int rc = file_read(path, SIZE_MAX / 2, &bytes, &size, e);
    return rc ? rc : snapfile_decode(ret, (const uint8_t *)bytes, size, disk_key(d), path, e);
}

/* Newest good snapshot plus log. With a damaged newest one the older (or none) may still do, as the
 * log is only trimmed up to the older. */
static int load(struct raft_disk *d, struct raft_boot *boot, struct err *e)
{
    struct listing l;
    int rc = list_files(d, true, &l, e);
    struct err first = {0};
    for (uint32_t i = 0; !rc; i++) {
        struct raft_buf *image = NULL;
        bool none = i >= l.n_snaps;
        if (!none)
            rc = load_snapshot(d, l.snaps[i], &image, e);
        struct wal_replay s;
        wal_replay_init(&s, disk_key(d), none ? 0 : l.snaps[i][0], none ? 0 : l.snaps[i][1]);
        if (!rc)
            rc = replay(d, &l, &s, e);
        if (!rc) {
            d->number = s.segment;
            d->end = s.end;
            d->writer.batch = d->writer.durable_batch = s.batch;
            memcpy(d->writer.tag, s.tag, sizeof(s.tag));
            rc = wal_replay_finish(&s, boot, e);
            d->base_index = s.rebase ? s.snapshot_index : 0;
            d->base_term = s.rebase ? s.snapshot_term : 0;
        }
        wal_replay_done(&s);
        if (!rc) {
            boot->image = image;
            if (i)
                log_warn("started from an older snapshot: %s", first.text);
            break;
        }
        raft_buf_unref(image);
        if (!first.code && e)
            first = *e;
        if (rc != -E_CORRUPT || none) {
            if (e && rc == -E_CORRUPT)
                *e = first;
            break;
        }
        rc = 0;
    }
    listing_done(&l);
    return rc;
}

int raft_disk_open(struct raft_disk **ret, const char *dir, const uint8_t *key,
                   uint32_t segment_bytes, struct raft_boot *ret_boot, struct err *e)
{
    struct err local;
    e = e ? e : &local;
    struct raft_disk *d = xnew(struct raft_disk);
    d->dir = xstrdup(dir);
    d->dir_fd = d->lock_fd = d->fd = -1;
    d->segment_bytes = segment_bytes;
    d->sealed = key != NULL;
    if (key)
        memcpy(d->key, key, sizeof(d->key));
    int rc = file_mkdirs(dir, 0700, e);
    if (!rc && (d->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = err_errno(e, errno, "raft log: cannot open %s", dir);
    if (!rc && (d->lock_fd = openat(d->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        rc = err_errno(e, errno, "raft log: cannot open %s/lock", dir);
    if (!rc && flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0)
        rc = err_set(e, E_BUSY, "raft log: %s is in use by another process; stop it first", dir);
    struct raft_boot boot = {0};
    if (!rc)
        rc = load(d, &boot, e);
    if (rc) {
        raft_boot_done(&boot);
        raft_disk_close(d);
        return rc;
    }
    d->node_id = boot.id;
    d->term = boot.term;
    d->vote = boot.vote;
    d->commit = boot.commit;
    d->last_index = boot.n_entries ? boot.entries[boot.n_entries - 1].index : boot.snapshot_index;
    *ret_boot = boot;
    *ret = d;
    return 0;
}

void raft_disk_close(struct raft_disk *d)
{
    if (!d)
        return;
    auto_close_(&d->fd);
    auto_close_(&d->lock_fd);
    auto_close_(&d->dir_fd);
    crypto_wipe(d->key, sizeof(d->key));
    crypto_wipe(&d->writer, sizeof(d->writer));
    free(d->segments);
    free(d->dir);
    free(d);
}
