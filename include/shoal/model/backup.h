/* A backup of the cluster's whole state. Two layers, both streams, both pure:
 *
 * frames   what is sealed: length (4 bytes, little end first), type (1), bytes. First a manifest, then the objects (table
 *          number, packed record), last the end with their number. The daemon writes and reads these.
 * seal     what is in the file: a header, then pieces of 64 KiB, each sealed with XChaCha20-Poly1305 bound to the header,
 *          its number and whether it is the last, so that nothing can be cut, moved or changed. The key is made by
 *          Argon2id from a passphrase, or from the bytes of a key file. The command line seals and opens: the secret
 *          never reaches the daemon. */
#ifndef SHOAL_MODEL_BACKUP_H
#define SHOAL_MODEL_BACKUP_H

#include <shoal/model/rec.h>

enum {
    BACKUP_VERSION = 1,
    BACKUP_HEADER_BYTES = 88,
    BACKUP_PIECE_BYTES = 64 << 10,
    BACKUP_FRAME_MAX_BYTES = 4 << 20, /* more than a log entry, in which every object once travelled */
    BACKUP_PASSPHRASE_MIN_BYTES = 8,
    BACKUP_KEY_FILE_MIN_BYTES = 32,
    BACKUP_SECRET_MAX_BYTES = 1 << 20,
};

#define backup_manifest_FIELDS(X, T)                                                       \
    X(T, STR, cluster_id, _, 1, "ClusterID", "", .max = 25)                                \
    X(T, STR, cluster_name, _, 2, "Name", "", .max = 63)                                   \
    X(T, STR, shoal, _, 3, "ShoalVersion", "that made it", .max = 64)                      \
    X(T, TIME, made_at, _, 4, "MadeAt", "")                                                \
    X(T, STR, made_by, _, 5, "MadeBy", "the leader then", .max = 255)                      \
    X(T, UINT, index, _, 6, "Index", "of the log", .flags = F_ALWAYS)                      \
    X(T, UINT, epoch, _, 7, "Epoch", "", .flags = F_ALWAYS)                                \
    X(T, UINT, nodes, _, 8, "Nodes", "", .flags = F_ALWAYS)                                \
    X(T, UINT, services, _, 9, "Services", "", .flags = F_ALWAYS)                          \
    X(T, UINT, tasks, _, 10, "Tasks", "", .flags = F_ALWAYS)                               \
    X(T, UINT, networks, _, 11, "Networks", "", .flags = F_ALWAYS)                         \
    X(T, UINT, secrets, _, 12, "Secrets", "", .flags = F_ALWAYS)                           \
    X(T, UINT, configs, _, 13, "Configs", "", .flags = F_ALWAYS)
REC_DECLARE(backup_manifest)

/* ---- frames ---- */
enum backup_frame_type { BACKUP_MANIFEST = 1, BACKUP_OBJECT = 2, BACKUP_END = 3 };
void backup_put_manifest(struct sb *out, const struct backup_manifest *m);
void backup_put_object(struct sb *out, unsigned table, const void *packed, size_t size);
void backup_put_end(struct sb *out, uint64_t objects);

struct backup_reader {
    struct sb held;      /* of a frame that is not whole */
    uint64_t objects;
    bool begun, ended;
};
struct backup_sink {
    void *arg;
    int (*manifest)(void *arg, const struct backup_manifest *m, struct err *e);
    int (*object)(void *arg, unsigned table, const void *packed, size_t size, struct err *e);
};
void backup_reader_init(struct backup_reader *r);
void backup_reader_done(struct backup_reader *r);
/* Takes bytes in pieces of any size. -E_CORRUPT, or what a sink said. */
int backup_reader_take(struct backup_reader *r, const void *p, size_t size, const struct backup_sink *sink, struct err *e) must_check;
int backup_reader_end(const struct backup_reader *r, struct err *e) must_check; /* all of it was there */

/* ---- the seal ---- */
struct backup_secret { bool key_file; const void *bytes; size_t size; }; /* borrowed */
int backup_secret_check(const struct backup_secret *s, struct err *e) must_check; /* long enough */

struct backup_seal;
/* Writes the header to out. E_INVALID: the secret is too short; E_NO_MEMORY. */
int backup_seal_new(struct backup_seal **ret, const struct backup_secret *s, struct sb *out, struct err *e) must_check;
void backup_seal_add(struct backup_seal *x, const void *p, size_t size, struct sb *out);
void backup_seal_end(struct backup_seal *x, struct sb *out);
void backup_seal_free(struct backup_seal *x); /* takes NULL; wipes */

/* What the header asks for: E_CORRUPT (no backup, damaged), E_UNSUPPORTED (a later version). */
int backup_header_check(const void *p, size_t size, bool *ret_key_file, struct err *e) must_check;
struct backup_open;
/* E_DENIED: another secret. */
int backup_open_new(struct backup_open **ret, const void *header, const struct backup_secret *s, struct err *e) must_check;
/* Takes sealed bytes after the header, appends what they hold to out. The last piece waits for the end. */
int backup_open_add(struct backup_open *x, const void *p, size_t size, struct sb *out, struct err *e) must_check;
int backup_open_end(struct backup_open *x, struct sb *out, struct err *e) must_check;
void backup_open_free(struct backup_open *x); /* takes NULL; wipes */

#endif
