/* The tracker: which node holds which blob, and who may fetch what is missing from whom. Pure; time is passed in.
 *
 * A wish waits until one of two things is true: a holder has room for one more (LOAD_MAX askers each: so a blob spreads
 * as a tree, each node that has got it serves the next ones), or nobody holds it and nobody reads it from the registry,
 * and then this one may. The right to read ends with the wish, or after IMAGE_LEASE_MS for a reader that is alive but too
 * slow; whoever had it goes behind those that had it less often, so that no node can keep it by asking again. A registry that did not give the blob to one may give it to others (credentials, routes): for IMAGE_OPEN_MS then
 * everybody reads for himself rather than one after the other.
 *
 * A node's holdings are 8 bytes a digest: 500 blobs are 4 kB. That two blobs share them costs a question in vain. */
#include "image_internal.h"

#include <shoal/base/crypto.h>
#include <shoal/base/le.h>
#include <shoal/base/map.h>
#include <shoal/image_peers.h>

enum { LOAD_MAX = 4 };

struct holder {
    char *id;
    uint64_t *marks; /* ascending */
    uint32_t n_marks;
    unsigned load;   /* wishes that fetch from it */
    unsigned wishes; /* of its own */
    struct image_held held; /* images only */
};
struct want { /* one blob that somebody misses */
    struct list_node wishes;
    struct map turns; /* node id -> how often it had the right to read */
    char *digest;
    uint64_t mark;
    int64_t open_until_ms;
    bool dirty;
};
enum wish_state { WISH_WAITS, WISH_READS, WISH_FETCHES };
struct image_wish {
    struct list_node node;
    struct want *want;
    char *asker;
    void *arg;
    enum wish_state state;
    int64_t lease_end_ms; /* WISH_READS; 0: not begun */
    struct strs bad;
    struct strs sources;  /* WISH_FETCHES */
};
struct image_tracker {
    struct map holders; /* node id -> struct holder */
    struct map wants;   /* digest -> struct want */
    struct strs told;   /* what the last verdict borrows */
    int64_t due_ms;
};

static uint64_t mark_of(const char *digest)
{
    uint8_t b[IMAGE_MARK_SIZE];
    AUTO_FREE char *hex = xstrndup(image_digest_hex(digest), 2 * sizeof b);
    bool good = hex_decode(b, sizeof b, hex);
    ASSERT(good);
    return le_get(b, sizeof b);
}

static uint32_t mark_place(const struct holder *h, uint64_t mark)
{
    uint32_t low = 0, high = h->n_marks;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (h->marks[mid] < mark)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool holds(const struct holder *h, uint64_t mark)
{
    uint32_t i = mark_place(h, mark);
    return i < h->n_marks && h->marks[i] == mark;
}

static void all_dirty(struct image_tracker *t)
{
    for (struct map_item *it = NULL; (it = map_next(&t->wants, it));)
        ((struct want *)it->value)->dirty = true;
    t->due_ms = 0;
}

struct image_tracker *image_tracker_new(void)
{
    struct image_tracker *t = xnew(struct image_tracker);
    map_init(&t->holders);
    map_init(&t->wants);
    t->due_ms = INT64_MAX;
    return t;
}

static void holder_free(struct holder *h)
{
    image_held_clear(&h->held);
    free(h->marks);
    free(h->id);
    free(h);
}

void image_tracker_free(struct image_tracker *t)
{
    if (!t)
        return;
    ASSERT(t->wants.n == 0);
    for (struct map_item *it = NULL; (it = map_next(&t->holders, it));)
        holder_free(it->value);
    map_done(&t->holders);
    map_done(&t->wants);
    strs_clear(&t->told);
    free(t);
}

static struct holder *holder_get(struct image_tracker *t, const char *id)
{
    struct holder *h = map_find(&t->holders, id);
    if (h)
        return h;
    h = xnew(struct holder);
    h->id = xstrdup(id);
    map_put(&t->holders, id, h);
    return h;
}

static int by_mark(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void image_tracker_held(struct image_tracker *t, const char *node, const struct image_held *held)
{
    struct holder *h = holder_get(t, node);
    uint32_t n = MIN(held->marks.n / IMAGE_MARK_SIZE, (uint32_t)IMAGE_MARKS_MAX);
    free(h->marks);
    h->marks = xcalloc(n + 1, sizeof *h->marks);
    h->n_marks = n;
    for (uint32_t i = 0; i < n; i++)
        h->marks[i] = le_get(held->marks.v + i * IMAGE_MARK_SIZE, IMAGE_MARK_SIZE);
    qsort(h->marks, n, sizeof *h->marks, by_mark); /* it is the node's word that they ascend */
    image_held_clear(&h->held);
    for (uint32_t i = 0; i < held->images.n; i++)
        if (image_digest_ok(held->images.v[i].manifest))
            held_image_copy(REC_ADD(&h->held.images), &held->images.v[i]);
    all_dirty(t);
}

void image_tracker_gone(struct image_tracker *t, const char *node)
{
    struct holder *h = map_find(&t->holders, node);
    if (!h)
        return;
    if (h->wishes || h->load) { /* they end by themselves, and are counted until then */
        h->n_marks = 0;
        image_held_clear(&h->held);
    } else {
        map_remove(&t->holders, node);
        holder_free(h);
    }
    all_dirty(t);
}

/* ---- wishes ---- */

struct image_wish *image_tracker_ask(struct image_tracker *t, const char *node, const char *digest, void *arg)
{
    struct holder *h = holder_get(t, node);
    if (h->wishes >= IMAGE_WISHES_MAX)
        return NULL;
    struct want *x = map_find(&t->wants, digest);
    if (!x) {
        x = xnew(struct want);
        x->digest = xstrdup(digest);
        x->mark = mark_of(digest);
        list_init(&x->wishes);
        map_init(&x->turns);
        map_put(&t->wants, digest, x);
    }
    struct image_wish *w = xnew(struct image_wish);
    *w = (struct image_wish){ .want = x, .asker = xstrdup(node), .arg = arg };
    list_push_back(&x->wishes, &w->node);
    h->wishes++;
    x->dirty = true;
    t->due_ms = 0;
    return w;
}

/* Back to waiting, with nothing in its hands. */
static void let_go(struct image_tracker *t, struct image_wish *w)
{
    for (uint32_t i = 0; i < w->sources.n; i++) {
        struct holder *h = map_find(&t->holders, w->sources.v[i]);
        if (h && h->load)
            h->load--;
    }
    if (w->sources.n)
        all_dirty(t); /* room for askers of other blobs as well */
    strs_clear(&w->sources);
    w->state = WISH_WAITS;
    w->want->dirty = true;
    t->due_ms = 0;
}

void image_tracker_bad(struct image_tracker *t, struct image_wish *w, const char *source)
{
    let_go(t, w);
    if (w->bad.n < IMAGE_WISHES_MAX && !strs_has(&w->bad, source))
        strs_add(&w->bad, source);
}

void image_tracker_found(struct image_tracker *t, struct image_wish *w)
{
    struct holder *h = holder_get(t, w->asker);
    uint32_t at = mark_place(h, w->want->mark);
    if (!holds(h, w->want->mark) && h->n_marks < IMAGE_MARKS_MAX) {
        h->marks = xrealloc(h->marks, h->n_marks + 1, sizeof *h->marks);
        memmove(h->marks + at + 1, h->marks + at, (h->n_marks - at) * sizeof *h->marks);
        h->marks[at] = w->want->mark;
        h->n_marks++;
    }
    w->want->dirty = true;
    t->due_ms = 0;
}

void image_tracker_failed(struct image_tracker *t, struct image_wish *w)
{
    if (w->state != WISH_READS)
        return; /* it was never told to read */
    w->want->open_until_ms = INT64_MAX; /* from the next call on, which has a clock */
    w->want->dirty = true;
    t->due_ms = 0;
}

void image_tracker_drop(struct image_tracker *t, struct image_wish *w)
{
    struct want *x = w->want;
    struct holder *h = map_find(&t->holders, w->asker);
    let_go(t, w);
    list_remove(&w->node);
    if (h && --h->wishes == 0 && !h->load && !h->n_marks && !h->held.images.n) {
        map_remove(&t->holders, w->asker);
        holder_free(h);
    }
    strs_clear(&w->bad);
    free(w->asker);
    free(w);
    if (list_is_empty(&x->wishes)) {
        map_remove(&t->wants, x->digest);
        map_done(&x->turns);
        free(x->digest);
        free(x);
    }
}

/* ---- verdicts ---- */

static bool reads_now(const struct want *x, int64_t now_ms)
{
    struct image_wish *w;
    list_for(w, &x->wishes, node)
        if (w->state == WISH_READS && now_ms < w->lease_end_ms)
            return true;
    return false;
}

static bool may_give(const struct holder *h, const struct image_wish *w)
{
    return holds(h, w->want->mark) && !str_equal(h->id, w->asker) && !strs_has(&w->bad, h->id);
}

/* The least loaded holders with room. *ret_any: there is one, with room or not. */
static void choose_sources(struct image_tracker *t, struct image_wish *w, unsigned max, bool *ret_any)
{
    struct holder *best[IMAGE_SOURCES_MAX] = { NULL };
    *ret_any = false;
    for (struct map_item *it = NULL; (it = map_next(&t->holders, it));) {
        struct holder *h = it->value;
        if (!may_give(h, w))
            continue;
        *ret_any = true;
        for (unsigned i = 0; i < max && h && h->load < LOAD_MAX; i++)
            if (!best[i] || h->load < best[i]->load) {
                struct holder *next = best[i];
                best[i] = h;
                h = next;
            }
    }
    for (unsigned i = 0; i < max && best[i]; i++) {
        best[i]->load++;
        strs_add(&w->sources, best[i]->id);
    }
}

static uintptr_t turns_of(const struct want *x, const struct image_wish *w)
{
    return (uintptr_t)map_find(&x->turns, w->asker);
}

static void tell(struct image_tracker *t, struct image_wish *w, struct image_verdict *ret)
{
    *ret = (struct image_verdict){ .arg = w->arg, .registry = w->state == WISH_READS, .n = w->sources.n };
    strs_clear(&t->told);
    for (uint32_t i = 0; i < w->sources.n; i++) {
        strs_add(&t->told, w->sources.v[i]);
        ret->nodes[i] = t->told.v[i];
    }
}

/* One verdict about a blob, if there is any. */
static bool decide(struct image_tracker *t, struct want *x, int64_t now_ms, struct image_verdict *ret)
{
    struct image_wish *w, *reader = NULL;
    unsigned waiting = 0;
    if (x->open_until_ms == INT64_MAX)
        x->open_until_ms = now_ms + IMAGE_OPEN_MS;
    list_for(w, &x->wishes, node)
        waiting += w->state == WISH_WAITS;
    bool busy = waiting && reads_now(x, now_ms);
    list_for(w, &x->wishes, node) {
        bool any;
        if (w->state != WISH_WAITS)
            continue;
        choose_sources(t, w, waiting > 1 ? 1 : IMAGE_SOURCES_MAX, &any);
        if (w->sources.n) {
            w->state = WISH_FETCHES;
            w->lease_end_ms = 0;
            tell(t, w, ret);
            return true;
        }
        if (any && !w->bad.n)
            break; /* all holders are busy: so they are for those behind it */
        if (!any && (!busy || now_ms < x->open_until_ms) && (!reader || turns_of(x, w) < turns_of(x, reader)))
            reader = w;
    }
    if (!reader)
        return false;
    reader->state = WISH_READS;
    reader->lease_end_ms = now_ms + IMAGE_LEASE_MS;
    map_put(&x->turns, reader->asker, (void *)(turns_of(x, reader) + 1));
    tell(t, reader, ret);
    return true;
}

bool image_tracker_next(struct image_tracker *t, int64_t now_ms, struct image_verdict *ret)
{
    int64_t due = INT64_MAX;
    for (struct map_item *it = NULL; (it = map_next(&t->wants, it));) {
        struct want *x = it->value;
        if (now_ms < t->due_ms && !x->dirty)
            continue;
        if (decide(t, x, now_ms, ret))
            return true; /* x stays dirty: there may be more */
        x->dirty = false;
    }
    for (struct map_item *it = NULL; (it = map_next(&t->wants, it));) {
        struct want *x = it->value;
        struct image_wish *w;
        list_for(w, &x->wishes, node)
            if (w->state == WISH_READS && w->lease_end_ms > now_ms)
                due = MIN(due, w->lease_end_ms);
    }
    t->due_ms = due;
    return false;
}

int64_t image_tracker_due(const struct image_tracker *t)
{
    return t->due_ms;
}

/* ---- names ---- */

struct named { const struct held_image *image; bool by_manager; int64_t created; };

/* Two nodes may have different images by one name: a manager's goes first, as workers can say anything; then the newest is
 * the one, and of two as new the same one for all. */
static bool goes_before(const struct named *a, const struct named *b)
{
    if (a->by_manager != b->by_manager)
        return a->by_manager;
    return a->created != b->created ? a->created > b->created : strcmp(a->image->manifest, b->image->manifest) > 0;
}

const struct held_image *image_tracker_name(const struct image_tracker *t, const char *name, const char *const *managers,
                                            unsigned n_managers, int64_t now_ns)
{
    struct named best = { .image = NULL };
    struct image_ref r;
    if (image_ref_parse(&r, name, NULL) < 0)
        return NULL;
    AUTO_FREE char *repo = image_ref_name(&r);
    AUTO_FREE char *key = r.digest ? xasprintf("%s@%s", repo, r.digest) : xasprintf("%s:%s", repo, r.tag);
    for (struct map_item *it = NULL; (it = map_next(&t->holders, it));) {
        const struct holder *h = it->value;
        bool by_manager = false;
        for (unsigned i = 0; i < n_managers && !by_manager; i++)
            by_manager = str_equal(managers[i], h->id);
        for (uint32_t i = 0; i < h->held.images.n; i++) {
            const struct held_image *x = &h->held.images.v[i];
            struct named one = { x, by_manager, x->created <= now_ns ? x->created : 0 };
            bool is_it = str_equal(x->name, key) && (!r.digest || str_equal(x->manifest, r.digest));
            if (is_it && (!best.image || goes_before(&one, &best)))
                best = one;
        }
    }
    image_ref_clear(&r);
    return best.image;
}

int image_tracker_choose(const char *const *ids, unsigned n, const char *digest, unsigned nth)
{
    struct { uint64_t score; unsigned i; } best[8];
    unsigned n_best = 0;
    for (unsigned i = 0; i < n; i++) {
        uint8_t sum[8];
        struct blake2s b;
        blake2s_init(&b, sizeof sum, NULL, 0);
        blake2s_add(&b, digest, strlen(digest) + 1);
        blake2s_add(&b, ids[i], strlen(ids[i]));
        blake2s_end(&b, sum);
        uint64_t score = le_get(sum, sizeof sum);
        unsigned at = n_best;
        while (at > 0 && best[at - 1].score < score)
            at--;
        if (at >= ARRAY_N(best))
            continue;
        n_best = MIN(n_best + 1, (unsigned)ARRAY_N(best));
        for (unsigned k = n_best - 1; k > at; k--)
            best[k] = best[k - 1];
        best[at].score = score;
        best[at].i = i;
    }
    return nth < n_best ? (int)best[nth].i : -1;
}
