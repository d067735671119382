/* The two layers of a backup. Nothing a file says is allocated before it is bounded: a frame at most
 * BACKUP_FRAME_MAX_BYTES, Argon2's memory at most ARGON_MEMORY_MAX. */
#include <shoal/base/crypto.h>
#include <shoal/base/le.h>
#include <shoal/model/backup.h>

REC_DEFINE(backup_manifest)

enum { FRAME_HEAD_BYTES = 5, SALT_BYTES = 16, CHECK_BYTES = 8, PIECE_SEALED_BYTES = BACKUP_PIECE_BYTES + CRYPTO_TAG_SIZE };
/* What RFC 9106 recommends where memory is scarce: a backup must also open on the smallest machine that may be left. */
enum { ARGON_PASSES = 3, ARGON_PASSES_MAX = 16, ARGON_MEMORY = 64 << 20, ARGON_MEMORY_MIN = 8 << 20, ARGON_MEMORY_MAX = 1 << 30 };
enum { KIND_PASSPHRASE = 1, KIND_KEY_FILE = 2 };
/* The header. CHECK is a hash of what is before it: damage is told from a wrong secret. */
enum { AT_VERSION = 8, AT_KIND = 12, AT_PASSES = 16, AT_MEMORY = 24, AT_SALT = 32, AT_NONCE = 48, AT_KEY_ID = 64, AT_CHECK = 80 };
static const char magic[8] = "SHOALBAK";

/* ---- frames ---- */

static void put_head(struct sb *out, uint8_t type, size_t size)
{
    uint8_t head[FRAME_HEAD_BYTES];
    le_put(head, size, 4);
    head[4] = type;
    sb_add(out, head, sizeof head);
}

void backup_put_manifest(struct sb *out, const struct backup_manifest *m)
{
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    rec_pack(&backup_manifest_rec, m, &b);
    put_head(out, BACKUP_MANIFEST, b.len);
    sb_add(out, b.s, b.len);
}

void backup_put_object(struct sb *out, unsigned table, const void *packed, size_t size)
{
    ASSERT(table < 256 && size < BACKUP_FRAME_MAX_BYTES);
    put_head(out, BACKUP_OBJECT, size + 1);
    sb_char(out, (char)table);
    sb_add(out, packed, size);
}

void backup_put_end(struct sb *out, uint64_t objects)
{
    uint8_t n[8];
    le_put(n, objects, 8);
    put_head(out, BACKUP_END, sizeof n);
    sb_add(out, n, sizeof n);
}

void backup_reader_init(struct backup_reader *r)
{
    *r = (struct backup_reader){ 0 };
    sb_init(&r->held, FRAME_HEAD_BYTES + BACKUP_FRAME_MAX_BYTES);
}

void backup_reader_done(struct backup_reader *r)
{
    crypto_wipe(r->held.s, r->held.len);
    sb_done(&r->held);
}

static int malformed(struct err *e, const char *what)
{
    return err_set(e, E_CORRUPT, "the backup is malformed: %s", what);
}

static int take_manifest(const uint8_t *p, size_t size, const struct backup_sink *sink, struct err *e)
{
    struct backup_manifest m = { 0 };
    int r = rec_unpack(&backup_manifest_rec, &m, p, size, e);
    if (r == 0 && sink->manifest)
        r = sink->manifest(sink->arg, &m, e);
    backup_manifest_clear(&m);
    return r;
}

static int take_frame(struct backup_reader *r, uint8_t type, const uint8_t *p, size_t size, const struct backup_sink *sink,
                      struct err *e)
{
    if (r->ended)
        return malformed(e, "it goes on after its end");
    if (r->begun == (type == BACKUP_MANIFEST))
        return malformed(e, r->begun ? "two manifests" : "it does not begin with a manifest");
    if (type == BACKUP_MANIFEST) {
        r->begun = true;
        return take_manifest(p, size, sink, e);
    }
    if (type == BACKUP_OBJECT && size > 0) {
        r->objects++;
        return sink->object ? sink->object(sink->arg, p[0], p + 1, size - 1, e) : 0;
    }
    if (type != BACKUP_END || size != 8)
        return malformed(e, "a frame of no known kind");
    r->ended = true;
    return le_get(p, 8) == r->objects ? 0 : malformed(e, "objects are missing");
}

int backup_reader_take(struct backup_reader *r, const void *p, size_t size, const struct backup_sink *sink, struct err *e)
{
    const uint8_t *in = p, *held;
    while (size) {
        size_t want = FRAME_HEAD_BYTES, n;
        if (r->held.len >= FRAME_HEAD_BYTES)
            want += le_get((const uint8_t *)r->held.s, 4); /* bounded when it came */
        n = MIN(size, want - r->held.len);
        sb_add(&r->held, in, n);
        in += n;
        size -= n;
        held = (const uint8_t *)r->held.s;
        if (r->held.len >= FRAME_HEAD_BYTES && le_get(held, 4) > BACKUP_FRAME_MAX_BYTES)
            return malformed(e, "a frame is too long");
        if (r->held.len < FRAME_HEAD_BYTES || r->held.len < FRAME_HEAD_BYTES + le_get(held, 4))
            continue;
        int rc = take_frame(r, held[4], held + FRAME_HEAD_BYTES, r->held.len - FRAME_HEAD_BYTES, sink, e);
        crypto_wipe(r->held.s, r->held.len);
        sb_reset(&r->held);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int backup_reader_end(const struct backup_reader *r, struct err *e)
{
    return r->ended && !r->held.len ? 0 : err_set(e, E_CORRUPT, "the backup ends too early: it is cut off");
}

/* ---- the seal ---- */

struct backup_seal {
    uint8_t header[BACKUP_HEADER_BYTES], key[32];
    uint64_t number;
    size_t len;
    uint8_t plain[BACKUP_PIECE_BYTES], sealed[PIECE_SEALED_BYTES];
};

int backup_secret_check(const struct backup_secret *s, struct err *e)
{
    if (!s->key_file && s->size < BACKUP_PASSPHRASE_MIN_BYTES)
        return err_set(e, E_INVALID, "the passphrase has %zu bytes; it needs %d at least, and better many more", s->size,
                       BACKUP_PASSPHRASE_MIN_BYTES);
    if (s->key_file && s->size < BACKUP_KEY_FILE_MIN_BYTES)
        return err_set(e, E_INVALID, "the key file has %zu bytes; it needs %d random ones at least (head -c 32 /dev/urandom)", s->size,
                       BACKUP_KEY_FILE_MIN_BYTES);
    return s->size > BACKUP_SECRET_MAX_BYTES ? err_set(e, E_TOO_BIG, "the secret is longer than 1 MiB") : 0;
}

static void check_of(const uint8_t *header, uint8_t out[CHECK_BYTES])
{
    crypto_blake2s(out, CHECK_BYTES, header, AT_CHECK, NULL, 0);
}

static int make_key(const uint8_t *header, const struct backup_secret *s, uint8_t key[32], struct err *e)
{
    const uint8_t *salt = header + AT_SALT;
    if (s->key_file)
        crypto_blake2s(key, 32, s->bytes, s->size, salt, SALT_BYTES);
    else if (!crypto_password_key(key, s->bytes, s->size, salt, le_get(header + AT_PASSES, 8), le_get(header + AT_MEMORY, 8)))
        return err_set(e, E_NO_MEMORY, "no memory to make the key from the passphrase (%llu MiB are needed); free some and try "
                       "again", (unsigned long long)(le_get(header + AT_MEMORY, 8) >> 20));
    return 0;
}

static void key_id(const uint8_t key[32], uint8_t out[16])
{
    static const char what[] = "shoal backup key id";
    crypto_blake2s(out, 16, what, sizeof what, key, 32);
}

struct seal_aad { uint8_t bytes[BACKUP_HEADER_BYTES + 9], nonce[CRYPTO_XNONCE_SIZE]; };

static void aad_init(struct seal_aad *a, const uint8_t *header, uint64_t number, bool last)
{
    memcpy(a->bytes, header, BACKUP_HEADER_BYTES);
    le_put(a->bytes + BACKUP_HEADER_BYTES, number, 8);
    a->bytes[BACKUP_HEADER_BYTES + 8] = last;
    memcpy(a->nonce, header + AT_NONCE, 16);
    le_put(a->nonce + 16, number, 8);
}

int backup_seal_new(struct backup_seal **ret, const struct backup_secret *s, struct sb *out, struct err *e)
{
    int r = backup_secret_check(s, e);
    if (r < 0)
        return r;
    struct backup_seal *x = xnew(struct backup_seal);
    memcpy(x->header, magic, sizeof magic);
    le_put(x->header + AT_VERSION, BACKUP_VERSION, 4);
    le_put(x->header + AT_KIND, s->key_file ? KIND_KEY_FILE : KIND_PASSPHRASE, 4);
    le_put(x->header + AT_PASSES, s->key_file ? 0 : ARGON_PASSES, 8);
    le_put(x->header + AT_MEMORY, s->key_file ? 0 : ARGON_MEMORY, 8);
    crypto_random(x->header + AT_SALT, 32); /* and the nonce */
    r = make_key(x->header, s, x->key, e);
    if (r < 0) {
        backup_seal_free(x);
        return r;
    }
    key_id(x->key, x->header + AT_KEY_ID);
    check_of(x->header, x->header + AT_CHECK);
    sb_add(out, x->header, sizeof x->header);
    *ret = x;
    return 0;
}

static void seal_piece(struct backup_seal *x, bool last, struct sb *out)
{
    struct seal_aad a;
    aad_init(&a, x->header, x->number++, last);
    crypto_xaead_seal(x->sealed, x->plain, x->len, a.bytes, sizeof a.bytes, a.nonce, x->key);
    sb_add(out, x->sealed, x->len + CRYPTO_TAG_SIZE);
    x->len = 0;
}

void backup_seal_add(struct backup_seal *x, const void *p, size_t size, struct sb *out)
{
    const uint8_t *in = p;
    while (size) {
        if (x->len == BACKUP_PIECE_BYTES)
            seal_piece(x, false, out);
        size_t n = MIN(size, BACKUP_PIECE_BYTES - x->len);
        memcpy(x->plain + x->len, in, n);
        x->len += n;
        in += n;
        size -= n;
    }
}

void backup_seal_end(struct backup_seal *x, struct sb *out)
{
    seal_piece(x, true, out);
}

void backup_seal_free(struct backup_seal *x)
{
    if (x)
        crypto_wipe(x, sizeof *x);
    free(x);
}

int backup_header_check(const void *p, size_t size, bool *ret_key_file, struct err *e)
{
    const uint8_t *h = p;
    uint8_t check[CHECK_BYTES];
    if (size < sizeof magic || memcmp(h, magic, sizeof magic) != 0)
        return err_set(e, E_CORRUPT, "this is no backup made by shoal");
    if (size < BACKUP_HEADER_BYTES)
        return err_set(e, E_CORRUPT, "the backup is cut off in its first %d bytes", BACKUP_HEADER_BYTES);
    if (le_get(h + AT_VERSION, 4) > BACKUP_VERSION)
        return err_set(e, E_UNSUPPORTED, "the backup is of format %llu, made by a later version of shoal; this one reads up to %d: "
                       "upgrade it first", (unsigned long long)le_get(h + AT_VERSION, 4), BACKUP_VERSION);
    check_of(h, check);
    uint64_t kind = le_get(h + AT_KIND, 4), passes = le_get(h + AT_PASSES, 8), memory = le_get(h + AT_MEMORY, 8);
    bool good = memcmp(check, h + AT_CHECK, CHECK_BYTES) == 0 && (kind == KIND_KEY_FILE || kind == KIND_PASSPHRASE);
    if (kind == KIND_PASSPHRASE)
        good &= passes >= 1 && passes <= ARGON_PASSES_MAX && memory >= ARGON_MEMORY_MIN && memory <= ARGON_MEMORY_MAX;
    if (!good)
        return err_set(e, E_CORRUPT, "the backup is damaged in its first %d bytes; use another copy", BACKUP_HEADER_BYTES);
    *ret_key_file = kind == KIND_KEY_FILE;
    return 0;
}

struct backup_open {
    uint8_t header[BACKUP_HEADER_BYTES], key[32];
    uint64_t number;
    size_t len;
    uint8_t sealed[PIECE_SEALED_BYTES], plain[BACKUP_PIECE_BYTES];
};

int backup_open_new(struct backup_open **ret, const void *header, const struct backup_secret *s, struct err *e)
{
    bool key_file;
    uint8_t id[16];
    int r = backup_header_check(header, BACKUP_HEADER_BYTES, &key_file, e);
    if (r < 0)
        return r;
    if (key_file != s->key_file)
        return err_set(e, E_DENIED, "the backup is sealed with a %s, not with a %s", key_file ? "key file" : "passphrase",
                       key_file ? "passphrase" : "key file");
    struct backup_open *x = xnew(struct backup_open);
    memcpy(x->header, header, sizeof x->header);
    r = make_key(x->header, s, x->key, e);
    if (r == 0) {
        key_id(x->key, id);
        if (!crypto_equal(id, x->header + AT_KEY_ID, sizeof id))
            r = err_set(e, E_DENIED, "the %s is not the one this backup was sealed with", key_file ? "key file" : "passphrase");
    }
    if (r < 0)
        backup_open_free(x);
    else
        *ret = x;
    return r;
}

static bool open_piece(struct backup_open *x, bool last)
{
    struct seal_aad a;
    aad_init(&a, x->header, x->number, last);
    return crypto_xaead_open(x->plain, x->sealed, x->len, a.bytes, sizeof a.bytes, a.nonce, x->key);
}

static unsigned long long offset_of(const struct backup_open *x)
{
    return BACKUP_HEADER_BYTES + x->number * (unsigned long long)PIECE_SEALED_BYTES;
}

int backup_open_add(struct backup_open *x, const void *p, size_t size, struct sb *out, struct err *e)
{
    const uint8_t *in = p;
    while (size) {
        if (x->len == PIECE_SEALED_BYTES) { /* something follows, so it is not the last */
            if (!open_piece(x, false))
                return err_set(e, E_CORRUPT, "the backup was damaged or altered at or behind byte %llu; use another copy", offset_of(x));
            sb_add(out, x->plain, BACKUP_PIECE_BYTES);
            x->number++;
            x->len = 0;
        }
        size_t n = MIN(size, PIECE_SEALED_BYTES - x->len);
        memcpy(x->sealed + x->len, in, n);
        x->len += n;
        in += n;
        size -= n;
    }
    return 0;
}

int backup_open_end(struct backup_open *x, struct sb *out, struct err *e)
{
    if (x->len >= CRYPTO_TAG_SIZE && open_piece(x, true)) {
        sb_add(out, x->plain, x->len - CRYPTO_TAG_SIZE);
        return 0;
    }
    if (x->len < PIECE_SEALED_BYTES || open_piece(x, false))
        return err_set(e, E_CORRUPT, "the backup is cut off, or damaged behind byte %llu; use another copy", offset_of(x));
    return err_set(e, E_CORRUPT, "the backup was damaged or altered at or behind byte %llu; use another copy", offset_of(x));
}

void backup_open_free(struct backup_open *x)
{
    if (x)
        crypto_wipe(x, sizeof *x);
    free(x);
}
