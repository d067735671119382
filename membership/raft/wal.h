/* The write-ahead log: its bytes (wal.c, snapfile.c: pure) and its files (wal_io.c).
 *
 * Segment = 144 bytes of header, then batches. Batch = one BATCH record, its records, a slot of 48
 * bytes for a MARK that is written lazily after the fdatasync returned. Record = 48 bytes of header
 * (CRC32C salted per segment) and a body, sealed with XChaCha20-Poly1305 or plain; each tag covers the
 * tag before it (hash chain). A restart never appends to an old segment: it opens the next one, whose
 * header says where the old one ends, so a torn tail needs no repair and no nonce is used twice. */
#ifndef RAFT_WAL_H
#define RAFT_WAL_H

#include "core.h"

enum {
    WAL_SEGMENT_HEADER_BYTES = 144,
    WAL_RECORD_BYTES = 48,
    WAL_MARK_BYTES = WAL_RECORD_BYTES,
    WAL_TAG_BYTES = 16,
    WAL_SALT_BYTES = 16,
    WAL_KEY_ID_BYTES = 8,
    WAL_BATCH_BYTES = 4 + 4 + 8 + 8, /* body of a BATCH record: records, bytes, durable index, commit */
    WAL_HARD_BYTES = 16,
    WAL_HARD_FILE_BYTES = 64,
};
enum wal_type { WAL_BATCH = 1, WAL_MARK, WAL_HARD, WAL_ENTRY, WAL_TRUNCATE, WAL_INSTALL };

struct wal_segment { /* header of a segment */
    uint64_t number, node_id;
    uint64_t prev_bytes; /* where the segment before ends */
    uint64_t term, vote, commit, batch; /* state at its start; batch: last sequence number used */
    uint64_t base_index, base_term; /* not 0: the log restarts here, behind this snapshot */
    uint8_t prev_tag[WAL_TAG_BYTES], salt[WAL_SALT_BYTES];
    bool sealed;
    uint8_t key_id[WAL_KEY_ID_BYTES];
};
void wal_key_id(uint8_t out[WAL_KEY_ID_BYTES], const uint8_t key[32]);
void wal_segment_encode(const struct wal_segment *s, uint8_t out[WAL_SEGMENT_HEADER_BYTES]);
bool wal_segment_decode(struct wal_segment *ret, const uint8_t *bytes, size_t size);

struct wal_writer {
    uint8_t tag[WAL_TAG_BYTES], salt[WAL_SALT_BYTES];
    uint8_t key[32];
    bool sealed;
    uint64_t offset;        /* where the next batch goes */
    uint64_t batch;         /* last sequence number used */
    uint64_t durable_batch; /* last one whose fdatasync returned */
    uint64_t durable_index; /* highest log index durable */
};
/* key NULL: plain. Continues the state in s at its first batch. */
void wal_writer_start(struct wal_writer *w, const struct wal_segment *s, const uint8_t *key);
size_t wal_batch_bytes(struct raft_write *const *writes, uint32_t n); /* without the slot */
/* Appends one batch of n writes to out and moves the writer behind it (slot included). */
void wal_batch_encode(struct wal_writer *w, struct raft_write *const *writes, uint32_t n,
                      struct sb *out);
/* The MARK for the batch just written; goes to w->offset - WAL_MARK_BYTES. */
void wal_mark_encode(const struct wal_writer *w, uint8_t out[WAL_MARK_BYTES]);

struct wal_record {
    uint8_t type, flags; /* enum wal_type */
    uint64_t index, term;
    size_t size; /* of the body */
    uint8_t tag[WAL_TAG_BYTES];
    struct raft_buf *body; /* wal_record_read(): opened; unref it */
};
bool wal_is_record(const uint8_t salt[WAL_SALT_BYTES], const uint8_t *bytes, size_t size, size_t offset);
/* The header of the record at *offset, which moves behind the record. Needs no key. -E_CORRUPT. */
int wal_record_peek(const uint8_t salt[WAL_SALT_BYTES], const uint8_t *bytes, size_t size, size_t *offset,
                    struct wal_record *ret) must_check;
/* One whole record; tag: of the record before, then its own. -E_CORRUPT (nothing moved), -E_NO_MEMORY. */
int wal_record_read(const struct wal_segment *s, const uint8_t *key, const uint8_t *bytes, size_t size,
                    size_t *offset, uint8_t tag[WAL_TAG_BYTES], struct wal_record *ret) must_check;
/* Does anything from offset on vouch for a batch above `batch`? */
bool wal_is_durable_beyond(const uint8_t salt[WAL_SALT_BYTES], const uint8_t *bytes, size_t size, size_t offset,
                           uint64_t batch);

/* Term and vote once more, outside the log, written before the batch that holds them: what a node has promised
 * must be known even when the end of its log is lost. damaged: the log lost something and is not whole yet. */
struct wal_hard {
    uint64_t seq, node_id, term, vote;
    uint32_t voters; /* of the configuration in force, for the sentence when nothing else is left */
    uint64_t trimmed; /* entries up to here are in a snapshot alone: without one that goes so far they are lost */
    bool damaged;
};
void wal_hard_encode(const struct wal_hard *h, uint8_t out[WAL_HARD_FILE_BYTES]);
bool wal_hard_decode(struct wal_hard *ret, const uint8_t *bytes, size_t size);

/* ---- reading (replay.c) ---- */
struct wal_replay {
    const uint8_t *key, *old_key; /* 32 bytes or NULL */
    uint64_t snapshot_index, snapshot_term, snapshot_seen_term;
    uint64_t node_id, term, vote, commit, batch;
    uint64_t segment;      /* number of the last one scanned */
    uint64_t end;          /* where it ends */
    uint64_t next, max_index; /* next index expected (0: any); highest index of this segment */
    uint8_t tag[WAL_TAG_BYTES];
    bool started, torn;
    bool gap, skipped;  /* a damaged piece was passed over; skipped: some time before */
    bool cut;           /* the log was cut before a damaged piece */
    bool used_old_key;
    bool rebase; /* after finish: the log ends before the snapshot or off its branch, so the next segment
                    must name the snapshot as its base */
    struct raft_entry *entries;
    uint32_t n, cap;
};
void wal_replay_init(struct wal_replay *s, const uint8_t *key, uint64_t snapshot_index,
                     uint64_t snapshot_term);
void wal_replay_done(struct wal_replay *s);
/* Segments in order. limit: prev_bytes of the segment that follows, 0 for the last one, whose torn tail
 * is dropped. name is for errors. -E_CORRUPT (rot), -E_DENIED (wrong key), -E_NO_MEMORY. */
int wal_replay_segment(struct wal_replay *s, const uint8_t *bytes, size_t size, uint64_t limit,
                       const char *name, struct err *e) must_check;
/* On rot the state is that before the damage (number and end of the segment included). */
/* After the last segment; entries pass to ret_boot (its image is left alone). */
int wal_replay_finish(struct wal_replay *s, struct raft_boot *ret_boot, struct err *e) must_check;

/* A whole log. WAL_STRICT: rot is an error. WAL_SKIP: damaged pieces are passed over when all they held lies below
 * the snapshot, which the next segment proves. WAL_CUT: the log ends before the first damage, the boot is `damaged`;
 * segments above s->segment are to be put aside. */
enum wal_care { WAL_STRICT, WAL_SKIP, WAL_CUT };
struct wal_seen {
    uint64_t max_index;
    bool old_key;
};
struct wal_source {
    void *arg;
    uint32_t n; /* segments, in order of number */
    /* Heap bytes of segment i; name: for errors. */
    int (*read)(void *arg, uint32_t i, uint8_t **ret, size_t *ret_size, char name[256], struct err *e);
    struct wal_seen *seen; /* n of them to be filled, or NULL */
};
int wal_replay_log(struct wal_replay *s, const struct wal_source *src, enum wal_care care,
                   struct raft_boot *ret_boot, struct err *e) must_check;
uint32_t wal_crc32c(uint32_t seed, const void *p, size_t size);

/* ---- snapshot files (snapfile.c) ---- */
enum { SNAPFILE_HEADER_BYTES = 80 };
void snapfile_encode(const uint8_t *image, size_t size, uint64_t index, uint64_t term,
                     const uint8_t *key, struct sb *out);
/* The image inside, whole hash checked. -E_CORRUPT, -E_DENIED, -E_NO_MEMORY. */
int snapfile_decode(struct raft_buf **ret, const uint8_t *bytes, size_t size, const uint8_t *key,
                    const char *name, struct err *e) must_check;
/* Which key it was sealed with; false: plain, or the header is damaged. */
bool snapfile_key_id(uint8_t out[WAL_KEY_ID_BYTES], const uint8_t *bytes, size_t size);

/* ---- a dump (dump_io.c) ---- */
/* As raft_dump(), of one file's bytes. False: not a file of a log. */
bool raft_dump_bytes(const char *name, const void *bytes, size_t size, const struct raft_keys *keys, raft_dump_fn *fn,
                     void *arg, struct raft_dump_result *ret);

/* ---- files (wal_io.c) ---- */
struct raft_disk;
/* keys: copied; NULL: plain. ret_boot: raft_boot_done() by the caller. When what is damaged can be had from peers,
 * the log is cut before it, damaged files are put aside as rot.*, and the boot says `damaged`.
 * -E_CORRUPT: that cannot be (see text), -E_DENIED, -E_BUSY, -E_IO. */
int raft_disk_open(struct raft_disk **ret, const char *dir, const struct raft_keys *keys,
                   uint32_t segment_bytes, uint32_t reserve_bytes, struct raft_boot *ret_boot,
                   struct err *e) must_check;
void raft_disk_close(struct raft_disk *d);
void raft_disk_set_id(struct raft_disk *d, uint64_t id); /* before the first write of a new node */
/* Blocks: one batch, one fdatasync; before it the copy of term and vote when they change. -E_BUSY: no space left,
 * nothing was written, try again later. Any other failure of write or fsync aborts the process (what is on disk is
 * then unknown). */
int raft_disk_write(struct raft_disk *d, struct raft_write *const *writes, uint32_t n,
                    struct err *e) must_check;
/* Writes, fsyncs, renames and re-reads a snapshot file. May run beside raft_disk_write. */
int raft_disk_save_snapshot(struct raft_disk *d, struct raft_buf *image, struct err *e) must_check;
/* Removes all but two snapshots and the segments the older one covers; of an old key all that a snapshot under the
 * new one covers. Returns how many files are left under the old key, which is forgotten at 0. In the lane of writes. */
uint32_t raft_disk_trim(struct raft_disk *d);
/* New records and snapshots under another key (NULL: the one of now), in a new segment. In the lane of writes, while
 * no snapshot is being saved and, with a key, no old one is left. -E_BUSY: no space for the segment now; the next
 * write makes it. */
int raft_disk_rekey(struct raft_disk *d, const uint8_t *key, struct err *e) must_check;
/* Makes the next segment's file ahead of its use, and the ballast: a file of reserve_bytes (at most 1/32 of the disk)
 * that is given up when the disk is full. May run beside raft_disk_write. */
void raft_disk_prepare(struct raft_disk *d);
/* The ballast is gone or hardly anything is left beside it. On any thread. */
bool raft_disk_is_short(const struct raft_disk *d);
uint64_t raft_disk_segment(const struct raft_disk *d); /* number of the one being written */
uint64_t raft_disk_syncs(const struct raft_disk *d); /* fdatasyncs of batches so far */

#endif
