/* A snapshot file: 80 bytes of header, then the image in pieces of 256 KiB with a tag each. Sealed
 * with XChaCha20-Poly1305 under the log's key, or plain with BLAKE2s tags; the header, the number of
 * the piece and whether it is the last are authenticated, so nothing can be cut or moved. */
#include "wal.h"

#include "internal.h"
#include <shoal/base/le.h>

enum { SNAP_HEADER_BYTES = SNAPFILE_HEADER_BYTES, SNAP_PIECE_BYTES = 256 << 10, SNAP_VERSION = 1 };
static const char snap_magic[8] = "SHOALSNP";

struct piece {
    uint8_t aad[SNAP_HEADER_BYTES + 9], nonce[24];
};

static void piece_init(struct piece *x, const uint8_t *header, uint64_t number, bool last)
{
    memcpy(x->aad, header, SNAP_HEADER_BYTES);
    le_put(x->aad + SNAP_HEADER_BYTES, number, 8);
    x->aad[SNAP_HEADER_BYTES + 8] = last;
    memcpy(x->nonce, header + 40, WAL_SALT_BYTES);
    le_put(x->nonce + WAL_SALT_BYTES, number, 8);
}

static void piece_tag(const struct piece *x, const uint8_t *bytes, size_t size,
                      uint8_t out[WAL_TAG_BYTES])
{
    struct blake2s b;
    blake2s_init(&b, WAL_TAG_BYTES, NULL, 0);
    blake2s_add(&b, x->aad, sizeof(x->aad));
    if (size)
        blake2s_add(&b, bytes, size);
    blake2s_end(&b, out);
}

void snapfile_encode(const uint8_t *image, size_t size, uint64_t index, uint64_t term,
                     const uint8_t *key, struct sb *out)
{
    uint8_t header[SNAP_HEADER_BYTES] = {0};
    memcpy(header, snap_magic, 8);
    le_put(header + 8, SNAP_VERSION, 4);
    le_put(header + 12, key != NULL, 4);
    le_put(header + 16, index, 8);
    le_put(header + 24, term, 8);
    le_put(header + 32, size, 8);
    crypto_random(header + 40, WAL_SALT_BYTES);
    if (key)
        wal_key_id(header + 56, key);
    le_put(header + 76, wal_crc32c(0, header, 76), 4);
    sb_add(out, header, sizeof(header));
    AUTO_FREE uint8_t *sealed = xcalloc(1, SNAP_PIECE_BYTES + WAL_TAG_BYTES);
    for (size_t at = 0, number = 0; at < size; number++) {
        size_t n = MIN(size - at, (size_t)SNAP_PIECE_BYTES);
        struct piece x;
        piece_init(&x, header, number, at + n == size);
        if (key) {
            crypto_xaead_seal(sealed, image + at, n, x.aad, sizeof(x.aad), x.nonce, key);
        } else {
            memcpy(sealed, image + at, n);
            piece_tag(&x, image + at, n, sealed + n);
        }
        sb_add(out, sealed, n + WAL_TAG_BYTES);
        at += n;
    }
}

static bool piece_open(const struct piece *x, const uint8_t *in, size_t n, const uint8_t *key,
                       uint8_t *out)
{
    uint8_t tag[WAL_TAG_BYTES];
    if (key)
        return crypto_xaead_open(out, in, n + WAL_TAG_BYTES, x->aad, sizeof(x->aad), x->nonce, key);
    piece_tag(x, in, n, tag);
    if (memcmp(tag, in + n, sizeof(tag)) != 0)
        return false;
    memcpy(out, in, n);
    return true;
}

bool snapfile_key_id(uint8_t out[WAL_KEY_ID_BYTES], const uint8_t *p, size_t size)
{
    if (size < SNAP_HEADER_BYTES || memcmp(p, snap_magic, 8) != 0 || le_get(p + 12, 4) != 1 ||
        le_get(p + 76, 4) != wal_crc32c(0, p, 76))
        return false;
    memcpy(out, p + 56, WAL_KEY_ID_BYTES);
    return true;
}

int snapfile_decode(struct raft_buf **ret, const uint8_t *p, size_t size, const uint8_t *key,
                    const char *name, struct err *e)
{
    if (size < SNAP_HEADER_BYTES || memcmp(p, snap_magic, 8) != 0 || le_get(p + 8, 4) != SNAP_VERSION ||
        le_get(p + 76, 4) != wal_crc32c(0, p, 76))
        return err_set(e, E_CORRUPT, "raft snapshot: %s has a damaged header at offset 0", name);
    bool sealed = le_get(p + 12, 4) == 1;
    uint8_t id[WAL_KEY_ID_BYTES] = {0};
    if (key)
        wal_key_id(id, key);
    if (sealed != (key != NULL) || memcmp(id, p + 56, sizeof(id)) != 0)
        return err_set(e, E_DENIED, "raft snapshot: %s is %s; give the key it was written with", name,
                       sealed ? "sealed with another key" : "not sealed, yet a key was given");
    uint64_t total = le_get(p + 32, 8);
    uint64_t pieces = total / SNAP_PIECE_BYTES + (total % SNAP_PIECE_BYTES != 0);
    if (total > size || size != SNAP_HEADER_BYTES + total + pieces * WAL_TAG_BYTES)
        return err_set(e, E_CORRUPT, "raft snapshot: %s has %zu bytes, not those its header says", name,
                       size);
    struct raft_buf *b = raft_buf_alloc(total);
    if (!b)
        return err_set(e, E_NO_MEMORY, "raft snapshot: no memory to read %s; free some and start again",
                       name);
    size_t at = 0, in = SNAP_HEADER_BYTES;
    for (uint64_t number = 0; number < pieces; number++) {
        size_t n = MIN(total - at, (size_t)SNAP_PIECE_BYTES);
        struct piece x;
        piece_init(&x, p, number, at + n == total);
        if (!piece_open(&x, p + in, n, key, b->data + at)) {
            raft_buf_unref(b);
            return err_set(e, E_CORRUPT, "raft snapshot: %s is damaged at offset %zu", name, in);
        }
        at += n;
        in += n + WAL_TAG_BYTES;
    }
    struct raft_image image = {0};
    bool good = raft_image_decode(&image, b->data, b->size, !sealed /* its pieces are authentic, in their place and all there */) == 0 &&
                image.index == le_get(p + 16, 8) && image.term == le_get(p + 24, 8);
    raft_image_done(&image);
    if (!good) {
        raft_buf_unref(b);
        return err_set(e, E_CORRUPT, "raft snapshot: the image inside %s is malformed", name);
    }
    *ret = b;
    return 0;
}
