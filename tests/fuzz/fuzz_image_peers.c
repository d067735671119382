/* What one node tells another about blobs: the three messages, and a tracker that is led by them. Oracles: what is decoded
 * is encoded and decoded to the same; a question that passes its check names a digest that is one; the tracker names no
 * holder that never said it holds something, nor the asker itself, and ends empty. The first byte chooses. */
#include "fuzz.h"

#include <shoal/base/le.h>

#include "image_internal.h"

static const char *const nodes[] = { "a", "b", "c", "d" };
#define D(x) "sha256:" x x x x "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab"
static const char *const digests[] = { D("a"), D("b") };

static const struct rec *const recs[] = { &image_ask_rec, &image_answer_rec, &image_held_rec };

static void message(const struct rec *t, const char *p, size_t size)
{
    union { struct image_ask ask; struct image_answer answer; struct image_held held; } x = { 0 }, back = { 0 };
    struct err e = { 0 };
    AUTO_SB struct sb b;
    long n = image_unframe(t, &x, p, size, &e);
    ASSERT(n >= 0 || e.text[0]);
    sb_init(&b, 0);
    if (n > 0) {
        ASSERT((size_t)n <= size);
        if (t == &image_ask_rec && image_ask_check(&x.ask, &e) == 0 && x.ask.kind == IMAGE_ASK_GET)
            ASSERT(image_digest_ok(x.ask.digest) && x.ask.size <= IMAGE_PIECE_SIZE);
        struct image_tracker *tracker = image_tracker_new();
        if (t == &image_held_rec) {
            image_tracker_held(tracker, "a", &x.held);
            const struct held_image *h = x.held.images.n ? image_tracker_name(tracker, x.held.images.v[0].name, nodes, 1, 1000) : NULL;
            ASSERT(!h || image_digest_ok(h->manifest));
        } else {
            image_frame(t, &x, &b);
            long again = image_unframe(t, &back, b.s, b.len, &e);
            ASSERT(again == (long)b.len && rec_equal(t, &x, &back));
        }
        image_tracker_free(tracker);
    }
    rec_clear(t, &x);
    rec_clear(t, &back);
}

/* Two bytes a step: what, and who or which. */
static void led(const uint8_t *p, size_t size)
{
    struct image_tracker *t = image_tracker_new();
    struct wisher { struct image_wish *w; const char *node; } w[16] = { 0 };
    bool ever[ARRAY_N(nodes)] = { false };
    int64_t now = 0;
    for (size_t i = 0; i + 1 < size; i += 2) {
        struct wisher *x = &w[p[i + 1] % ARRAY_N(w)];
        const char *node = nodes[p[i + 1] % ARRAY_N(nodes)];
        struct image_held h = { 0 };
        struct image_verdict v;
        switch (p[i] % 7) {
        case 0:
            if (!x->w)
                *x = (struct wisher){ image_tracker_ask(t, node, digests[p[i] & 1], x), node };
            break;
        case 1:
            if (x->w)
                image_tracker_bad(t, x->w, nodes[p[i] / 7 % ARRAY_N(nodes)]);
            break;
        case 2:
            if (x->w) {
                image_tracker_found(t, x->w);
                for (size_t k = 0; k < ARRAY_N(nodes); k++)
                    ever[k] |= nodes[k] == x->node;
            }
            break;
        case 3:
            if (x->w)
                image_tracker_failed(t, x->w);
            break;
        case 4:
            if (x->w)
                image_tracker_drop(t, x->w);
            x->w = NULL;
            break;
        case 5: {
            uint8_t mark[8] = { 0xaa, 0xaa, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab };
            h.marks = (struct bytes){ mark, p[i] & 8 ? 0 : (uint32_t)sizeof mark };
            image_tracker_held(t, node, &h);
            ever[p[i + 1] % ARRAY_N(nodes)] = true;
            break;
        }
        case 6:
            image_tracker_gone(t, node);
            now += p[i] * 100;
            break;
        }
        for (unsigned n = 0; image_tracker_next(t, now, &v); n++) {
            const struct wisher *y = v.arg;
            ASSERT(n < 2 * ARRAY_N(w) && y->w && v.registry == (v.n == 0));
            for (unsigned k = 0; k < v.n; k++) {
                bool known = false;
                for (size_t m = 0; m < ARRAY_N(nodes); m++)
                    known |= str_equal(nodes[m], v.nodes[k]) && ever[m];
                ASSERT(known && !str_equal(v.nodes[k], y->node));
            }
        }
        ASSERT(image_tracker_due(t) >= now);
    }
    for (size_t i = 0; i < ARRAY_N(w); i++)
        if (w[i].w)
            image_tracker_drop(t, w[i].w);
    image_tracker_free(t); /* asserts that no wish is left */
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    if (!size)
        return 0;
    if (p[0] % 4 == 3)
        led(p + 1, size - 1);
    else
        message(recs[p[0] % 4], (const char *)p + 1, size - 1);
    return 0;
}

const unsigned fuzz_rounds = 4000;
const char *const fuzz_words[] = { "\xff\xff\xff\x7f", "\x85", "\xdd\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", D("a"), "\x01\x01", "\x04\x04", NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    unsigned form = (unsigned)rng_below(g, 4);
    struct image_ask ask = { .kind = (int)rng_below(g, 6), .offset = rng_below(g, 1 << 20), .size = 1 + rng_below(g, 1000) };
    struct image_answer answer = { .kind = (int)rng_below(g, 5), .size = rng_below(g, 1 << 20) };
    struct image_held held = { 0 };
    sb_char(b, (char)form);
    str_set(&ask.digest, digests[0]);
    strs_add(&answer.nodes, "a");
    struct held_image *x = REC_ADD(&held.images);
    str_set(&x->name, "web:1");
    str_set(&x->manifest, digests[1]);
    held.marks = (struct bytes){ xcalloc(2, 8), 16 };
    if (form == 0)
        image_frame(&image_ask_rec, &ask, b);
    if (form == 1)
        image_frame(&image_answer_rec, &answer, b);
    if (form == 2)
        image_frame(&image_held_rec, &held, b);
    for (unsigned i = 0; form == 3 && i < 200; i++)
        sb_char(b, (char)rng_below(g, 256));
    image_ask_clear(&ask);
    image_answer_clear(&answer);
    image_held_clear(&held);
}
