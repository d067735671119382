/* Files of the log: segments wal-N (zero-filled ahead, so the hot path neither allocates nor
 * journals), snapshots snap-INDEX-TERM (tmp, fsync, rename, fsync of the folder, re-read), `hard` (term and
 * vote once more, two slots written in turn), one lock. rot.N.*: the last eight files that were
 * found damaged, kept to be looked at.
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
#include <sys/statvfs.h>
#include <unistd.h>

LOG_MODULE("raft");

#define SPARE "wal.spare"
#define BALLAST "ballast"
#define ROT "rot."

enum { HARD_SLOT_BYTES = 4096, ROT_FILES_MAX = 8, SMALL_SEGMENT_BYTES = 16 << 10, READ_BLOCK_BYTES = 4096 };

struct segment {
    uint64_t number, max_index;
    bool old_key;
};

struct raft_disk {
    char *dir;
    int dir_fd, lock_fd, fd; /* fd: active segment, -1: none yet */
    int hard_fd;
    uint8_t key[32], old_key[32];
    bool sealed, has_old_key, must_roll;
    bool hard_lost;       /* both slots of the copy of term and vote are damaged */
    unsigned rot;         /* number of the last file put aside */
    struct wal_hard hard; /* as last written */
    uint32_t segment_bytes;
    uint64_t reserve_bytes;
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
    static const uint8_t zeros[64 << 10];
    int rc = to > from ? posix_fallocate(fd, (off_t)from, (off_t)(to - from)) : 0;
    while (!rc && from < to) {
        size_t n = (size_t)MIN(to - from, (uint64_t)sizeof(zeros));
        rc = write_at(fd, zeros, n, from);
        from += n;
    }
    return rc;
}

/* ---- space ---- */

static uint64_t free_bytes(const struct raft_disk *d)
{
    struct statvfs v;
    return fstatvfs(d->dir_fd, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : UINT64_MAX;
}

/* False: it was given up before. */
static bool release_ballast(const struct raft_disk *d)
{
    if (unlinkat(d->dir_fd, BALLAST, 0) != 0)
        return false;
    log_warn("the disk of %s is full; its reserve of %" PRIu64 " bytes is used now: make room", d->dir,
             d->reserve_bytes);
    return true;
}

static void make_ballast(const struct raft_disk *d)
{
    if (faccessat(d->dir_fd, BALLAST, F_OK, 0) == 0 || free_bytes(d) < 2 * d->reserve_bytes)
        return;
    AUTO_CLOSE int fd = openat(d->dir_fd, BALLAST ".tmp", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (posix_fallocate(fd, 0, (off_t)d->reserve_bytes) != 0 ||
        renameat(d->dir_fd, BALLAST ".tmp", d->dir_fd, BALLAST) != 0)
        unlinkat(d->dir_fd, BALLAST ".tmp", 0);
}

bool raft_disk_is_short(const struct raft_disk *d)
{
    uint64_t left = free_bytes(d);
    return left < d->reserve_bytes / 4 ||
           (left < 2 * d->reserve_bytes && faccessat(d->dir_fd, BALLAST, F_OK, 0) != 0);
}

/* ---- segments ---- */

void raft_disk_prepare(struct raft_disk *d)
{
    make_ballast(d);
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
    if ((rc == ENOSPC || rc == EDQUOT) && release_ballast(d))
        rc = segment_file(d, tmp, size, &fd);
    if (rc == ENOSPC || rc == EDQUOT) { /* a small one may do until there is room */
        size = WAL_SEGMENT_HEADER_BYTES + 2 * (bytes + WAL_MARK_BYTES) + SMALL_SEGMENT_BYTES;
        rc = segment_file(d, tmp, size, &fd);
    }
    if (rc == ENOSPC || rc == EDQUOT)
        return err_set(e, E_BUSY, "raft log: no space left in %s for the next segment; free %" PRIu64
                       " bytes", d->dir, size);
    if (rc || (rc = write_at(fd, header, sizeof(header), 0)))
        die(d, "making a segment", rc);
    if (fdatasync(fd) != 0)
        die(d, "fdatasync of a new segment", errno);
    if (renameat(d->dir_fd, tmp, d->dir_fd, name) != 0 || (RAFT_BUG != 29 && fsync(d->dir_fd) != 0))
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

/* ---- the copy of term and vote ---- */

/* 0 or errno. Slots in turn: a torn write spoils only the older one. */
static int hard_write(struct raft_disk *d, const struct wal_hard *next)
{
    uint8_t bytes[WAL_HARD_FILE_BYTES];
    if (d->hard_fd < 0) {
        int fd = openat(d->dir_fd, "hard.tmp", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int rc = fd < 0 ? errno : fill_zeros(fd, 0, 2 * HARD_SLOT_BYTES);
        if (!rc && (fsync(fd) != 0 || renameat(d->dir_fd, "hard.tmp", d->dir_fd, "hard") != 0 ||
                    fsync(d->dir_fd) != 0))
            rc = errno;
        if (rc) {
            if (fd >= 0)
                close(fd);
            unlinkat(d->dir_fd, "hard.tmp", 0);
            return rc;
        }
        d->hard_fd = fd;
    }
    struct wal_hard h = *next;
    h.seq = d->hard.seq + 1;
    wal_hard_encode(&h, bytes);
    int rc = write_at(d->hard_fd, bytes, sizeof(bytes), h.seq % 2 * HARD_SLOT_BYTES);
    if (!rc && fdatasync(d->hard_fd) != 0)
        rc = errno;
    if (!rc)
        d->hard = h;
    return rc;
}

/* False: none, or both slots are damaged. */
static bool hard_read(struct raft_disk *d)
{
    unsigned bad = 0;
    d->hard_fd = openat(d->dir_fd, "hard", O_RDWR | O_CLOEXEC);
    for (int i = 0; d->hard_fd >= 0 && i < 2; i++) {
        static const uint8_t unused[WAL_HARD_FILE_BYTES];
        uint8_t bytes[WAL_HARD_FILE_BYTES] = {0};
        struct wal_hard h;
        bool whole = pread(d->hard_fd, bytes, sizeof(bytes), i * HARD_SLOT_BYTES) == sizeof(bytes);
        if (whole && wal_hard_decode(&h, bytes, sizeof(bytes)))
            d->hard = h.seq > d->hard.seq ? h : d->hard;
        else if (!whole || memcmp(bytes, unused, sizeof(bytes)) != 0) { /* torn by a crash, or rot */
            log_warn("%s/hard: slot %d of two, the copy of term and vote, is damaged", d->dir, i);
            bad++;
        }
    }
    d->hard_lost = bad == 2 || (d->hard_fd < 0 && errno != ENOENT); /* one alone may be the first write of all, torn */
    if (!d->hard.seq) { /* made anew */
        auto_close_(&d->hard_fd);
        d->hard_fd = -1;
    }
    return d->hard.seq != 0;
}

/* In both slots: what must not be forgotten when one of them rots. */
static int hard_write_both(struct raft_disk *d, const struct wal_hard *h)
{
    int rc = hard_write(d, h);
    return rc ? rc : hard_write(d, h);
}

/* What these writes promise, on disk before they are. */
static int hard_ahead(struct raft_disk *d, struct raft_write *const *writes, uint32_t n, struct err *e)
{
    struct wal_hard h = d->hard;
    bool due = !h.seq && d->writer.batch, lost = false; /* a node's first write promises nothing */
    if (!h.seq && !due)
        return 0;
    h.node_id = d->node_id;
    h.term = d->term;
    h.vote = d->vote;
    for (uint32_t i = 0; i < n; i++) {
        const struct raft_write *w = writes[i];
        due |= w->has_hard || w->voters != h.voters || (w->whole && h.damaged) || w->lost;
        lost |= w->lost;
        h.voters = w->voters;
        h.damaged = (h.damaged || w->lost) && !w->whole;
        if (w->has_hard) {
            h.term = w->term;
            h.vote = w->vote;
        }
    }
    int (*write)(struct raft_disk *, const struct wal_hard *) = lost ? hard_write_both : hard_write;
    int rc = due ? write(d, &h) : 0;
    if ((rc == ENOSPC || rc == EDQUOT) && release_ballast(d))
        rc = write(d, &h);
    if (rc == ENOSPC || rc == EDQUOT)
        return err_set(e, E_BUSY, "raft log: no space left in %s; free some", d->dir);
    if (rc)
        die(d, "writing the copy of term and vote", rc);
    return 0;
}

/* ---- writing ---- */

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
    if (w->truncate_from) {
        d->last_index = w->truncate_from - 1;
        for (uint32_t i = d->n_segments; i-- > 0;) { /* what was cut off needs no snapshot */
            bool held = d->segments[i].max_index != 0;
            d->segments[i].max_index = MIN(d->segments[i].max_index, d->last_index);
            if (held && RAFT_BUG != 31) /* it begins with what follows the segment before, which cannot go without it */
                break;
        }
    }
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
    int hard = hard_ahead(d, writes, n, e);
    if (hard)
        return hard;
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
    if (fdatasync(d->fd) != 0 && RAFT_BUG != 28)
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

uint64_t raft_disk_segment(const struct raft_disk *d)
{
    return d->number;
}

uint64_t raft_disk_syncs(const struct raft_disk *d)
{
    return d->syncs;
}

/* ---- snapshots ---- */

/* Before anything relies on the file. */
static int read_back(const struct raft_disk *d, int fd, const char *name, struct sb *bytes, struct err *e)
{
    memset(bytes->s, 0, bytes->len);
    for (size_t at = 0; at < bytes->len;) {
        ssize_t got = pread(fd, bytes->s + at, bytes->len - at, (off_t)at);
        if (got <= 0)
            return err_errno(e, got ? errno : EIO, "raft: cannot read %s/%s back", d->dir, name);
        at += (size_t)got;
    }
    struct raft_buf *again = NULL;
    int rc = snapfile_decode(&again, (const uint8_t *)bytes->s, bytes->len, disk_key(d), name, e);
    raft_buf_unref(again);
    return rc;
}

static int save_snapshot(struct raft_disk *d, struct raft_buf *image, struct err *e)
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
    if (!rc && RAFT_BUG != 30 && fsync(fd) != 0)
        rc = errno;
    if (rc) {
        unlinkat(d->dir_fd, tmp, 0);
        if (rc == ENOSPC || rc == EDQUOT)
            return err_set(e, E_BUSY, "raft: no space left in %s for a snapshot of %zu bytes; free some",
                           d->dir, b.len);
        return err_errno(e, rc, "raft: cannot write %s/%s", d->dir, tmp);
    }
    rc = read_back(d, fd, tmp, &b, e);
    if (rc) {
        unlinkat(d->dir_fd, tmp, 0);
        return rc;
    }
    if (renameat(d->dir_fd, tmp, d->dir_fd, name) != 0 || fsync(d->dir_fd) != 0)
        die(d, "renaming a snapshot", errno);
    return 0;
}

int raft_disk_save_snapshot(struct raft_disk *d, struct raft_buf *image, struct err *e)
{
    int rc = save_snapshot(d, image, e);
    return rc == -E_BUSY && release_ballast(d) ? save_snapshot(d, image, e) : rc;
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

static bool snap_has_old_key(const struct raft_disk *d, const char *name)
{
    AUTO_CLOSE int fd = d->has_old_key ? openat(d->dir_fd, name, O_RDONLY | O_CLOEXEC) : -1;
    uint8_t head[SNAPFILE_HEADER_BYTES], id[WAL_KEY_ID_BYTES], want[WAL_KEY_ID_BYTES];
    if (fd < 0 || pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head) || !snapfile_key_id(id, head, sizeof(head)))
        return false;
    wal_key_id(want, d->old_key);
    return memcmp(id, want, sizeof(id)) == 0;
}

/* Keeps the two newest snapshots, of the old key only while none of the new one is there. Returns how many files are
 * left under the old key; ret_floor: the log up to there may go, of the old key up to ret_old_floor. */
static uint32_t trim_snapshots(struct raft_disk *d, const struct listing *l, uint64_t *ret_floor, uint64_t *ret_old_floor)
{
    uint32_t kept = 0, kept_old = 0;
    *ret_floor = *ret_old_floor = 0;
    for (uint32_t i = 0; i < l->n_snaps; i++) {
        char name[64];
        snap_name(name, l->snaps[i][0], l->snaps[i][1]);
        bool old = snap_has_old_key(d, name);
        if (kept == 2 || (old && kept > kept_old)) {
            unlinkat(d->dir_fd, name, 0);
            continue;
        }
        kept++;
        kept_old += old;
        if (kept == 2)
            *ret_floor = l->snaps[i][0];
        if (!old)
            *ret_old_floor = MAX(*ret_old_floor, l->snaps[i][0]);
    }
    return kept_old;
}

/* Says so in `hard`, before segments that hold entries up to the index go. False: there is no space for it. */
static bool note_trimmed(struct raft_disk *d, uint64_t index)
{
    struct wal_hard h = d->hard;
    if (!h.seq || h.trimmed >= index)
        return true;
    h.trimmed = index;
    int rc = hard_write(d, &h);
    if ((rc == ENOSPC || rc == EDQUOT) && release_ballast(d))
        rc = hard_write(d, &h);
    if (rc && rc != ENOSPC && rc != EDQUOT)
        die(d, "writing the copy of term and vote", rc);
    return rc == 0;
}

uint32_t raft_disk_trim(struct raft_disk *d)
{
    struct listing l;
    struct err e;
    if (list_files(d, false, &l, &e) != 0) {
        log_warn("%s", e.text);
        return d->has_old_key;
    }
    char name[64];
    uint64_t floor, old_floor, trimmed = 0;
    uint32_t gone = 0, old = trim_snapshots(d, &l, &floor, &old_floor);
    for (; gone + 1 < d->n_segments && d->segments[gone].max_index <= (d->segments[gone].old_key ? MAX(floor, old_floor) : floor); gone++)
        trimmed = MAX(trimmed, d->segments[gone].max_index);
    if (!note_trimmed(d, trimmed))
        gone = 0;
    for (uint32_t i = 0; i < gone; i++) {
        segment_name(name, d->segments[i].number);
        unlinkat(d->dir_fd, name, 0);
    }
    memmove(d->segments, d->segments + gone, (d->n_segments - gone) * sizeof(*d->segments));
    d->n_segments -= gone;
    for (uint32_t i = 0; i < d->n_segments; i++)
        old += d->segments[i].old_key;
    listing_done(&l);
    if (!old && d->has_old_key && RAFT_BUG != 32 && fsync(d->dir_fd) != 0)
        return 1; /* a power cut could bring the files back, and they need the key */
    if (!old) {
        d->has_old_key = false;
        crypto_wipe(d->old_key, sizeof(d->old_key));
    }
    return old;
}

/* ---- keys ---- */

int raft_disk_rekey(struct raft_disk *d, const uint8_t *key, struct err *e)
{
    if (key) {
        ASSERT(d->sealed && !d->has_old_key);
        memcpy(d->old_key, d->key, sizeof(d->old_key));
        memcpy(d->key, key, sizeof(d->key));
        d->has_old_key = true;
        for (uint32_t i = 0; i < d->n_segments; i++)
            d->segments[i].old_key = true;
    }
    d->must_roll = true; /* also when there is no space for it now */
    return d->node_id ? roll(d, 0, e) : 0;
}


/* ---- start ---- */

/* A file as far as it can be read: blocks with a read error come as zeros, and are found damaged like any other. */
static int read_rotten(struct raft_disk *d, const char *name, uint8_t **ret, size_t *ret_size, struct err *e)
{
    AUTO_CLOSE int fd = openat(d->dir_fd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return err_errno(e, errno, "raft log: cannot open %s/%s", d->dir, name);
    size_t size = (size_t)st.st_size, step = 1 << 20;
    uint8_t *bytes = try_calloc(1, size + 1);
    if (!bytes)
        return err_set(e, E_NO_MEMORY, "raft log: no memory to read %s/%s; free some and start again", d->dir, name);
    for (size_t at = 0; at < size;) {
        ssize_t n = pread(fd, bytes + at, MIN(step, size - at), (off_t)at);
        if (n > 0) {
            at += (size_t)n;
        } else if (n == 0) {
            size = at;
        } else if (errno == EIO && step > READ_BLOCK_BYTES) {
            step = READ_BLOCK_BYTES;
        } else if (errno == EIO) {
            log_warn("%s/%s cannot be read at offset %zu", d->dir, name, at);
            at += MIN(step, size - at);
            step = 1 << 20;
        } else if (errno != EINTR) {
            int errno_ = errno;
            free(bytes);
            return err_errno(e, errno_, "raft log: cannot read %s/%s", d->dir, name);
        }
    }
    *ret = bytes;
    *ret_size = size;
    return 0;
}

struct files {
    struct raft_disk *d;
    const struct listing *l;
};

static int read_segment(void *arg, uint32_t i, uint8_t **ret, size_t *ret_size, char name[256], struct err *e)
{
    const struct files *f = arg;
    char file[64];
    segment_name(file, f->l->segments[i]);
    snprintf(name, 256, "%.180s/%s", f->d->dir, file);
    return read_rotten(f->d, file, ret, ret_size, e);
}

static int load_snapshot(struct raft_disk *d, const uint64_t snap[2], struct raft_buf **ret, struct err *e)
{
    char name[64];
    snap_name(name, snap[0], snap[1]);
    AUTO_FREE char *path = path_join(d->dir, name);
    AUTO_FREE uint8_t *bytes = NULL;
    size_t size;
    int rc = read_rotten(d, name, &bytes, &size, e);
    if (!rc)
        rc = snapfile_decode(ret, bytes, size, disk_key(d), path, e);
    if (rc == -E_DENIED && d->has_old_key)
        rc = snapfile_decode(ret, bytes, size, d->old_key, path, e);
    return rc;
}

/* The number of the last file put aside; of those before it only so many are kept. */
static void look_at_rot(struct raft_disk *d, bool drop)
{
    DIR *dir = opendir(d->dir);
    for (struct dirent *f; dir && (f = readdir(dir));) {
        unsigned number = 0;
        if (!str_starts(f->d_name, ROT))
            continue;
        sscanf(f->d_name, ROT "%u.", &number);
        if (drop && number + ROT_FILES_MAX <= d->rot)
            unlinkat(d->dir_fd, f->d_name, 0);
        d->rot = MAX(d->rot, MIN(number, UINT32_MAX / 2));
    }
    if (dir)
        closedir(dir);
}

/* Puts a damaged file aside, to be looked at; look_at_rot() bounds how many. */
static void put_aside(struct raft_disk *d, const char *name)
{
    char to[96];
    snprintf(to, sizeof(to), ROT "%u.%s", ++d->rot, name);
    if (renameat(d->dir_fd, name, d->dir_fd, to) != 0)
        die(d, "putting a damaged file aside", errno);
}

/* One attempt with one snapshot (snap NULL: none). Takes over the image on success. */
static int try_load(struct raft_disk *d, const struct listing *l, const uint64_t snap[2], struct raft_buf *image,
                    enum wal_care care, struct raft_boot *boot, struct err *e)
{
    struct files f = {d, l};
    AUTO_FREE struct wal_seen *seen = xcalloc(l->n_segments + 1, sizeof(*seen));
    struct wal_source src = {.arg = &f, .n = l->n_segments, .read = read_segment, .seen = seen};
    struct wal_replay s;
    wal_replay_init(&s, disk_key(d), snap ? snap[0] : 0, snap ? snap[1] : 0);
    s.old_key = d->has_old_key ? d->old_key : NULL;
    int rc = wal_replay_log(&s, &src, care, boot, e);
    if (!rc) {
        d->number = s.segment;
        d->end = s.end;
        d->writer.batch = d->writer.durable_batch = s.batch;
        memcpy(d->writer.tag, s.tag, sizeof(s.tag));
        d->base_index = s.rebase ? s.snapshot_index : 0;
        d->base_term = s.rebase ? s.snapshot_term : 0;
        d->n_segments = 0;
        for (uint32_t i = 0; i < l->n_segments && l->segments[i] <= s.segment; i++) {
            RAFT_GROW(d->segments, d->n_segments, d->cap_segments);
            d->segments[d->n_segments++] = (struct segment){.number = l->segments[i], .max_index = seen[i].max_index,
                                                            .old_key = seen[i].old_key};
        }
        boot->image = raft_buf_ref(image);
    }
    wal_replay_done(&s);
    return rc;
}

/* What the log lost is known to this node no more: it is cut before the damage, and `hard` says so from now on. */
static int cut(struct raft_disk *d, const struct listing *l, struct raft_boot *boot, const char *why, struct err *e)
{
    if (!d->hard.seq)
        return err_set(e, E_CORRUPT, "%s; its copy of term and vote is lost as well: replace this node under a new id",
                       why);
    if (d->hard.voters == 1)
        return err_set(e, E_CORRUPT, "%s, and there is no other manager to fetch it from; restore a backup with `shoal "
                       "restore FILE`, or replace this node", why);
    struct wal_hard h = d->hard;
    h.damaged = true;
    int rc = hard_write_both(d, &h);
    if (rc)
        return err_errno(e, rc, "raft log: cannot write %s/hard", d->dir);
    for (uint32_t i = l->n_segments; i-- > 0 && l->segments[i] > d->number;) { /* from behind: a crash leaves no hole */
        char name[64];
        segment_name(name, l->segments[i]);
        put_aside(d, name);
    }
    fsync(d->dir_fd);
    boot->id = h.node_id;
    boot->damaged = true;
    boot->commit = MIN(boot->commit, boot->snapshot_index + boot->n_entries);
    log_error("%s; this manager neither votes nor confirms until it has fetched from the leader what lies behind index "
              "%" PRIu64, why, boot->snapshot_index + boot->n_entries);
    return 0;
}

/* Both slots are gone, and with them whether the log was whole: it must not be taken for that. Term and vote are those of
 * the log. A manager alone has nobody to ask; it goes by what the log says of itself. */
static int doubt(struct raft_disk *d, struct raft_boot *boot, struct err *e)
{
    struct raft_image image = {0};
    uint32_t voters = 0;
    if (boot->image && raft_image_decode(&image, boot->image->data, boot->image->size, false) == 0)
        voters = image.config->n_voters;
    raft_image_done(&image);
    for (uint32_t i = 0; i < boot->n_entries; i++) {
        const struct raft_entry *n = &boot->entries[i];
        struct raft_configuration *c = n->type == RAFT_ENTRY_CONFIGURATION && n->data
                                           ? raft_configuration_decode(n->data->data, n->data->size, n->index) : NULL;
        voters = c ? c->n_voters : voters;
        raft_configuration_free(c);
    }
    if (voters < 2 || !boot->id)
        return 0;
    struct wal_hard h = {.node_id = boot->id, .term = boot->term, .vote = boot->vote, .voters = voters, .damaged = true};
    int rc = hard_write_both(d, &h);
    if (rc)
        return err_errno(e, rc, "raft log: cannot write %s/hard", d->dir);
    log_error("%s/hard, the copy of term and vote, is damaged; this manager neither votes nor confirms until it has compared "
              "its log with the leader's", d->dir);
    return 0;
}

/* Term and vote: what the log says or what its copy says, whichever is newer. From now on the copy says it too (it is
 * written once more when the log is opened): the slot that said so may have rotted, and the log may rot next. */
static void merge_hard(struct raft_disk *d, struct raft_boot *boot)
{
    struct wal_hard *h = &d->hard;
    if (h->seq && h->damaged && !boot->id)
        boot->id = h->node_id; /* the log was cut before its first batch */
    if (!h->seq || !boot->id || h->node_id != boot->id)
        return;
    if (h->term > boot->term || (h->term == boot->term && !boot->vote))
        boot->vote = h->vote;
    boot->term = MAX(boot->term, h->term);
    boot->damaged |= h->damaged;
    h->term = boot->term;
    h->vote = boot->vote;
}

static int check_trimmed(const struct raft_disk *d, struct raft_boot *boot, struct err *e)
{
    uint64_t last = boot->snapshot_index + boot->n_entries;
    if (!d->hard.seq || d->hard.node_id != boot->id || last >= d->hard.trimmed)
        return 0;
    raft_boot_done(boot);
    return err_set(e, E_CORRUPT, "raft log: entries up to %" PRIu64 " are lost with a snapshot, only those up to %" PRIu64 " are here",
                   d->hard.trimmed, last);
}

/* Newest good snapshot plus log. With a damaged newest one the older (or none) may still do, as the
 * log is only trimmed up to the older. When nothing does without a gap: the newest snapshot and what follows it. */
static int load(struct raft_disk *d, struct raft_boot *boot, struct err *e)
{
    struct listing l;
    struct err first = {0};
    const uint64_t *best = NULL;
    struct raft_buf *best_image = NULL;
    hard_read(d);
    look_at_rot(d, false);
    int rc = list_files(d, true, &l, e);
    AUTO_FREE bool *rotten = xcalloc(l.n_snaps + 1, sizeof(*rotten));
    bool loaded = false;
    for (uint32_t i = 0; !rc && !loaded && i <= l.n_snaps; i++) {
        const uint64_t *snap = i < l.n_snaps ? l.snaps[i] : NULL;
        struct raft_buf *image = NULL;
        rc = snap ? load_snapshot(d, snap, &image, e) : 0;
        rotten[i] = snap && rc == -E_CORRUPT;
        for (enum wal_care care = WAL_STRICT; !rc && !loaded && care <= WAL_SKIP; care++) {
            rc = try_load(d, &l, snap, image, care, boot, e);
            if (!rc)
                rc = check_trimmed(d, boot, e);
            loaded = !rc;
            if (rc == -E_CORRUPT && !first.code)
                first = *e;
            rc = rc == -E_CORRUPT ? 0 : rc;
        }
        if (rc == -E_CORRUPT) {
            first = first.code ? first : *e;
            rc = 0;
        }
        if (snap && image && !best) {
            best = snap;
            best_image = raft_buf_ref(image);
        }
        raft_buf_unref(image);
    }
    bool gone = loaded && !l.n_segments && (l.n_snaps || d->hard.seq || d->hard_lost);
    if (!rc && gone && !first.code)
        err_set(&first, E_CORRUPT, "raft log: %s holds no segment of the log any more", d->dir);
    if (!rc && (!loaded || gone)) {
        raft_boot_done(boot);
        rc = try_load(d, &l, best, best_image, WAL_CUT, boot, e);
        if (!rc)
            rc = cut(d, &l, boot, first.text, e);
    } else if (!rc && first.code) {
        log_warn("%s; all it held is known from elsewhere in the log", first.text);
    }
    for (uint32_t i = 0; !rc && i < l.n_snaps; i++) {
        char name[64];
        if (!rotten[i])
            continue;
        snap_name(name, l.snaps[i][0], l.snaps[i][1]);
        put_aside(d, name);
    }
    if (!rc && d->hard_lost)
        rc = doubt(d, boot, e);
    if (!rc)
        merge_hard(d, boot);
    look_at_rot(d, true);
    raft_buf_unref(best_image);
    listing_done(&l);
    return rc;
}

/* What a killed process wrote last may be in the page cache alone, and after a failed fsync the kernel calls such pages
 * clean. It was read and counts as durable from here on, so it is written once more and synced; `hard` likewise. */
static int rewrite_end(struct raft_disk *d, struct err *e)
{
    char name[64];
    segment_name(name, d->number);
    AUTO_CLOSE int fd = d->number ? openat(d->dir_fd, name, O_RDWR | O_CLOEXEC) : -1;
    int rc = d->number && fd < 0 ? errno : 0;
    uint8_t bytes[16 << 10];
    for (uint64_t at = 0; !rc && at < d->end;) {
        ssize_t n = pread(fd, bytes, MIN(d->end - at, (uint64_t)sizeof(bytes)), (off_t)at);
        rc = n < 0 ? errno : n == 0 ? EIO : write_at(fd, bytes, (size_t)n, at);
        at += (uint64_t)MAX(n, 0);
    }
    if (!rc && ((fd >= 0 && fdatasync(fd) != 0) || fsync(d->dir_fd) != 0))
        rc = errno;
    if (!rc && d->hard.seq)
        rc = hard_write(d, &d->hard);
    return rc ? err_errno(e, rc, "raft log: cannot make sure of the end of the log in %s", d->dir) : 0;
}

int raft_disk_open(struct raft_disk **ret, const char *dir, const struct raft_keys *keys,
                   uint32_t segment_bytes, uint32_t reserve_bytes, struct raft_boot *ret_boot, struct err *e)
{
    struct err local;
    e = e ? e : &local;
    struct raft_disk *d = xnew(struct raft_disk);
    d->dir = xstrdup(dir);
    d->dir_fd = d->lock_fd = d->fd = d->hard_fd = -1;
    d->segment_bytes = segment_bytes;
    d->sealed = keys != NULL;
    if (keys)
        memcpy(d->key, keys->now, sizeof(d->key));
    d->has_old_key = keys && keys->before;
    if (d->has_old_key)
        memcpy(d->old_key, keys->before, sizeof(d->old_key));
    int rc = file_mkdirs(dir, 0700, e);
    if (!rc && (d->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = err_errno(e, errno, "raft log: cannot open %s", dir);
    if (!rc && (d->lock_fd = openat(d->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        rc = err_errno(e, errno, "raft log: cannot open %s/lock", dir);
    if (!rc && flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0)
        rc = err_set(e, E_BUSY, "raft log: %s is in use by another process; stop it first", dir);
    struct statvfs v;
    if (!rc)
        d->reserve_bytes = fstatvfs(d->dir_fd, &v) == 0
                               ? MIN((uint64_t)reserve_bytes, (uint64_t)v.f_blocks * v.f_frsize / 32)
                               : reserve_bytes;
    struct raft_boot boot = {0};
    if (!rc)
        rc = load(d, &boot, e);
    if (!rc)
        rc = RAFT_BUG == 33 ? 0 : rewrite_end(d, e);
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
    auto_close_(&d->hard_fd);
    crypto_wipe(d->key, sizeof(d->key));
    crypto_wipe(d->old_key, sizeof(d->old_key));
    crypto_wipe(&d->writer, sizeof(d->writer));
    free(d->segments);
    free(d->dir);
    free(d);
}
