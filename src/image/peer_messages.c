/* Messages between nodes about blobs: a length of 4 bytes, then the packed record. */
#include "image_internal.h"

#include <shoal/base/le.h>
#include <shoal/image_peers.h>

const char *const image_ask_names[] = { "where", "name", "get", "bad", "found", "failed", NULL };
const char *const image_answer_names[] = { "error", "sources", "registry", "name", "bytes", NULL };
REC_DEFINE(image_ask)
REC_DEFINE(image_answer)
REC_DEFINE(held_image)
REC_DEFINE(image_held)

enum { LENGTH = 4 };

void image_frame(const struct rec *t, const void *r, struct sb *out)
{
    AUTO_SB struct sb b;
    sb_init(&b, IMAGE_FRAME_MAX);
    rec_pack(t, r, &b);
    ASSERT(!b.overflow); /* rows are bounded below it */
    sb_le(out, b.len, LENGTH);
    sb_add(out, b.s, b.len);
}

long image_unframe(const struct rec *t, void *ret, const char *p, size_t size, struct err *e)
{
    if (size < LENGTH)
        return 0;
    uint64_t n = le_get((const uint8_t *)p, LENGTH);
    if (n > IMAGE_FRAME_MAX)
        return err_set(e, E_TOO_BIG, "a message about a blob of %llu bytes", (unsigned long long)n);
    if (size - LENGTH < n)
        return 0;
    int r = rec_unpack(t, ret, p + LENGTH, n, e);
    return r < 0 ? r : (long)(LENGTH + n);
}

int image_answer_check(struct image_answer *a, const struct image_ref *ref, struct err *e)
{
    struct image_ref from;
    if (!image_digest_ok(a->manifest) || !a->size || a->size > IMAGE_MANIFEST_MAX)
        return err_set(e, E_CORRUPT, "the cluster names no manifest, or one of %llu bytes", (unsigned long long)a->size);
    if (ref->digest && !str_equal(a->manifest, ref->digest))
        return err_set(e, E_CORRUPT, "the cluster names %s, which is not what the reference pins", a->manifest);
    bool good = a->origin && image_ref_parse(&from, a->origin, NULL) == 0;
    if (good) {
        good = str_equal(from.digest, a->manifest);
        image_ref_clear(&from);
    }
    if (!good)
        free(TAKE(a->origin));
    return 0;
}

int image_ask_check(const struct image_ask *a, struct err *e)
{
    bool good = false;
    switch ((enum image_ask_kind)a->kind) {
    case IMAGE_ASK_WHERE: good = image_digest_ok(a->digest); break;
    case IMAGE_ASK_NAME: good = a->name != NULL; break;
    case IMAGE_ASK_GET: good = image_digest_ok(a->digest) && a->size && a->offset <= INT64_MAX - a->size; break;
    case IMAGE_ASK_BAD: good = a->node != NULL; break;
    case IMAGE_ASK_FOUND: case IMAGE_ASK_FAILED: good = true; break;
    }
    return good ? 0 : err_set(e, E_INVALID, "a question about a blob makes no sense (kind %d)", a->kind);
}
