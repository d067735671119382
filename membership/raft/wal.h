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
};

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

struct wal_replay {
    const uint8_t *key; /* 32 bytes or NULL */
    uint64_t snapshot_index, snapshot_term, snapshot_seen_term;
    uint64_t node_id, term, vote, commit, batch;
    uint64_t segment;      /* number of the last one scanned */
    uint64_t end;          /* where it ends */
    uint64_t next, max_index; /* next index expected (0: any); highest index of this segment */
    uint8_t tag[WAL_TAG_BYTES];
    bool started, torn;
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
/* After the last segment; entries pass to ret_boot (its image is left alone). */
int wal_replay_finish(struct wal_replay *s, struct raft_boot *ret_boot, struct err *e) must_check;
uint32_t wal_crc32c(uint32_t seed, const void *p, size_t size);

/* ---- snapshot files (snapfile.c) ---- */
void snapfile_encode(const uint8_t *image, size_t size, uint64_t index, uint64_t term,
                     const uint8_t *key, struct sb *out);
/* The image inside, whole hash checked. -E_CORRUPT, -E_DENIED, -E_NO_MEMORY. */
int snapfile_decode(struct raft_buf **ret, const uint8_t *bytes, size_t size, const uint8_t *key,
                    const char *name, struct err *e) must_check;

/* ---- files (wal_io.c) ---- */
struct raft_disk;
/* key is copied. ret_boot: raft_boot_done() by the caller. -E_CORRUPT, -E_DENIED, -E_BUSY, -E_IO. */
int raft_disk_open(struct raft_disk **ret, const char *dir, const uint8_t *key,
                   uint32_t segment_bytes, struct raft_boot *ret_boot, struct err *e) must_check;
void raft_disk_close(struct raft_disk *d);
void raft_disk_set_id(struct raft_disk *d, uint64_t id); /* before the first write of a new node */
/* Blocks: one batch, one fdatasync. -E_BUSY: no space left, nothing was written, try again later.
 * Any other failure of write or fsync aborts the process (what is on disk is then unknown). */
int raft_disk_write(struct raft_disk *d, struct raft_write *const *writes, uint32_t n,
                    struct err *e) must_check;
/* Writes, fsyncs, renames and re-reads a snapshot file. May run beside raft_disk_write. */
int raft_disk_save_snapshot(struct raft_disk *d, struct raft_buf *image, struct err *e) must_check;
/* Removes all but two snapshots and the segments the older one covers. In the lane of writes. */
void raft_disk_trim(struct raft_disk *d);
/* Makes the next segment's file ahead of its use. May run beside raft_disk_write. */
void raft_disk_prepare(struct raft_disk *d);
uint64_t raft_disk_syncs(const struct raft_disk *d); /* fdatasyncs of batches so far */

#endif
