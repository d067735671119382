/* Backups: the frames as the daemon takes them from a client (an input that begins with F), and the sealed file as the
 * command line opens it (S, with a key that the fuzzer knows). Oracles: pieces of any size give the same result; what
 * ends well held as many objects as it says, within the bounds; a sealed file that opens gives bytes that, sealed again,
 * open to the same. */
#include "fuzz.h"

#include <shoal/base/crypto.h>
#include <shoal/model/backup.h>
#include <string.h>

const unsigned fuzz_rounds = 1500;
const char *const fuzz_words[] = { "SHOALBAK", "\x08\0\0\0\x03", NULL };

static const uint8_t key[32] = "the key of every backup here";
static const struct backup_secret secret = { true, key, sizeof key };

struct seen { uint64_t objects, bytes; };

static int on_object(void *arg, unsigned table, const void *packed, size_t size, struct err *e)
{
    struct seen *s = arg;
    ASSERT(size <= BACKUP_FRAME_MAX_BYTES && table < 256);
    s->objects++;
    for (size_t i = 0; i < size; i++)
        s->bytes += ((const uint8_t *)packed)[i];
    return 0;
}

static int frames(const uint8_t *p, size_t size, size_t step, struct seen *seen)
{
    const struct backup_sink sink = { seen, NULL, on_object };
    struct backup_reader r;
    struct err e;
    int rc = 0;
    *seen = (struct seen){ 0 };
    backup_reader_init(&r);
    for (size_t at = 0; rc == 0 && at < size; at += step)
        rc = backup_reader_take(&r, p + at, MIN(step, size - at), &sink, &e);
    if (rc == 0)
        rc = backup_reader_end(&r, &e);
    if (rc == 0)
        ASSERT(r.objects == seen->objects);
    backup_reader_done(&r);
    return rc;
}

static int unseal(const void *p, size_t size, size_t step, struct sb *out)
{
    struct backup_open *x = NULL;
    struct err e;
    bool key_file = false;
    int rc = backup_header_check(p, size, &key_file, &e);
    if (rc == 0 && !key_file)
        return -E_DENIED; /* Argon2 takes too long here; its bounds are the unit test's */
    if (rc == 0)
        rc = backup_open_new(&x, p, &secret, &e);
    for (size_t at = BACKUP_HEADER_BYTES; rc == 0 && at < size; at += step)
        rc = backup_open_add(x, (const uint8_t *)p + at, MIN(step, size - at), out, &e);
    if (rc == 0)
        rc = backup_open_end(x, out, &e);
    backup_open_free(x);
    return rc;
}

static void seal(const void *p, size_t size, struct sb *out)
{
    struct backup_seal *x;
    struct err e;
    ASSERT(backup_seal_new(&x, &secret, out, &e) == 0);
    backup_seal_add(x, p, size, out);
    backup_seal_end(x, out);
    backup_seal_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    struct seen a, b;
    AUTO_SB struct sb one, other, again;
    sb_init(&one, 0);
    sb_init(&other, 0);
    sb_init(&again, 0);
    if (size && p[0] == 'F') {
        int r = frames(p + 1, size - 1, 7, &a);
        ASSERT(frames(p + 1, size - 1, size, &b) == r && a.objects == b.objects && a.bytes == b.bytes);
    } else if (size && p[0] == 'S') {
        int r = unseal(p + 1, size - 1, 1000, &one);
        ASSERT(unseal(p + 1, size - 1, size, &other) == r && one.len == other.len && !memcmp(one.s, other.s, one.len));
        if (r == 0) {
            seal(one.s, one.len, &again);
            sb_reset(&other);
            ASSERT(unseal(again.s, again.len, 100, &other) == 0 && one.len == other.len && !memcmp(one.s, other.s, one.len));
        }
    }
    return 0;
}

void fuzz_sample(struct rng *g, struct sb *b)
{
    struct backup_manifest m = { 0 };
    AUTO_SB struct sb plain;
    uint8_t bytes[4000];
    uint64_t n = rng_below(g, 6);
    sb_init(&plain, 0);
    str_set(&m.cluster_id, "cluster");
    m.index = rng_u64(g) >> 1;
    backup_put_manifest(&plain, &m);
    backup_manifest_clear(&m);
    rng_bytes(g, bytes, sizeof bytes);
    for (uint64_t i = 0; i < n; i++)
        backup_put_object(&plain, (unsigned)rng_below(g, 8), bytes, (size_t)rng_below(g, sizeof bytes));
    backup_put_end(&plain, n);
    bool sealed = rng_chance(g, 500);
    sb_str(b, sealed ? "S" : "F");
    if (sealed) {
        for (uint64_t k = rng_below(g, 40); rng_chance(g, 300) && k > 0; k--)
            sb_add(&plain, bytes, sizeof bytes); /* more than a piece */
        seal(plain.s, plain.len, b);
        sb_reset(&plain);
        ASSERT(unseal(b->s + 1, b->len - 1, 333, &plain) == 0);
    } else {
        sb_add(b, plain.s, plain.len);
        struct seen seen;
        ASSERT(frames((const uint8_t *)plain.s, plain.len, 5, &seen) == 0 && seen.objects == n);
    }
}
