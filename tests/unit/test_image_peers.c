/* Blobs from peers, the pure parts and what a holder gives: who may read the registry and who fetches from whom, which piece is asked of whom, how
 * messages are bounded, which manager is a digest's tracker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/le.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image_internal.h"

#define A "sha256:aaaaaaaaaaaaaaaa000000000000000000000000000000000000000000000000"
#define B "sha256:bbbbbbbbbbbbbbbb000000000000000000000000000000000000000000000000"
enum { ROOM = 4 }; /* askers that a holder serves at once */

struct asker { const char *id; struct image_wish *w; unsigned verdicts, n; bool registry; char from[3][32]; };

/* All verdicts that are due; how many. */
static unsigned run(struct image_tracker *t, int64_t now)
{
    struct image_verdict v;
    unsigned n = 0;
    for (; image_tracker_next(t, now, &v); n++) {
        struct asker *a = v.arg;
        a->verdicts++;
        a->registry = v.registry;
        a->n = v.n;
        for (unsigned i = 0; i < v.n; i++)
            snprintf(a->from[i], sizeof a->from[i], "%s", v.nodes[i]);
    }
    return n;
}

static void ask(struct image_tracker *t, struct asker *a, const char *digest)
{
    a->w = image_tracker_ask(t, a->id, digest, a);
    assert_non_null(a->w);
}

static void drop(struct image_tracker *t, struct asker *a)
{
    image_tracker_drop(t, a->w);
    a->w = NULL;
}

static void found(struct image_tracker *t, struct asker *a)
{
    image_tracker_found(t, a->w);
    drop(t, a);
}

static void holds(struct image_tracker *t, const char *node, const char *digest)
{
    struct image_held h = { 0 };
    AUTO_FREE char *hex = digest ? xstrndup(digest + 7, 16) : NULL;
    if (digest) {
        h.marks.v = xcalloc(1, IMAGE_MARK_SIZE);
        h.marks.n = IMAGE_MARK_SIZE;
        assert_true(hex_decode(h.marks.v, IMAGE_MARK_SIZE, hex));
    }
    image_tracker_held(t, node, &h);
    image_held_clear(&h);
}

static void one_reads_the_registry_and_a_tree_forms(void **state)
{
    enum { N = 40 };
    struct image_tracker *t = image_tracker_new();
    struct asker a[N] = { 0 };
    char ids[N][16];
    (void)state;
    for (unsigned i = 0; i < N; i++) {
        snprintf(ids[i], sizeof ids[i], "node%u", i);
        a[i].id = ids[i];
        ask(t, &a[i], A);
    }
    assert_int_equal(run(t, 0), 1);
    assert_true(a[0].registry);
    assert_int_equal(run(t, IMAGE_LEASE_MS - 1), 0); /* it has its time */
    found(t, &a[0]);
    unsigned have = 1, rounds = 0;
    while (have < N) {
        unsigned now = run(t, IMAGE_LEASE_MS - 1), loads[N] = { 0 };
        assert_int_equal(now, MIN(have * ROOM, N - have)); /* every holder at its bound, nobody above it */
        for (unsigned i = 0; i < N; i++) {
            if (!a[i].w || !a[i].verdicts)
                continue;
            assert_true(!a[i].registry && a[i].n >= 1);
            for (unsigned k = 0; k < a[i].n; k++) { /* the last one to wait may have several */
                unsigned from;
                assert_int_equal(sscanf(a[i].from[k], "node%u", &from), 1);
                assert_null(a[from].w); /* who gives has it */
                assert_true(++loads[from] <= ROOM);
            }
        }
        for (unsigned i = 0; i < N; i++)
            if (a[i].w && a[i].verdicts)
                found(t, &a[i]);
        have += now;
        rounds++;
    }
    assert_int_equal(rounds, 3); /* 1, 5, 25, 40 */
    image_tracker_free(t);
}

static void a_reader_that_dies_or_is_slow_holds_nobody_up(void **state)
{
    struct image_tracker *t = image_tracker_new();
    struct asker a = { .id = "a" }, b = { .id = "b" }, c = { .id = "c" };
    (void)state;
    ask(t, &a, A);
    ask(t, &b, A);
    ask(t, &c, A);
    assert_int_equal(run(t, 1000), 1);
    assert_true(a.registry);
    drop(t, &a); /* its link broke */
    assert_int_equal(run(t, 1100), 1);
    assert_true(b.registry && !c.verdicts);
    assert_int_equal(image_tracker_due(t), 1100 + IMAGE_LEASE_MS);
    assert_int_equal(run(t, image_tracker_due(t)), 1); /* alive, but too slow */
    assert_true(c.registry);
    drop(t, &b);
    drop(t, &c);
    assert_int_equal(run(t, 0), 0);
    image_tracker_free(t);
}

static void a_node_cannot_keep_the_right_to_read(void **state)
{
    enum { MANY = 5 };
    struct image_tracker *t = image_tracker_new();
    struct asker a[MANY], b = { .id = "b" }, c = { .id = "c" };
    int64_t now = 0;
    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        a[i] = (struct asker){ .id = "a" };
        ask(t, &a[i], A);
    }
    ask(t, &b, A);
    assert_int_equal(run(t, now), 1);
    assert_true(a[0].registry);
    assert_int_equal(run(t, now += IMAGE_LEASE_MS), 1);
    assert_true(b.registry); /* not one of a's others, though they were there before */
    drop(t, &b);
    assert_int_equal(run(t, ++now), 1);
    assert_true(a[1].registry); /* nobody else waits */
    drop(t, &a[0]);
    ask(t, &a[0], A);
    ask(t, &b, A); /* it had it once, a twice */
    ask(t, &c, A);
    assert_int_equal(run(t, now += IMAGE_LEASE_MS), 1);
    assert_true(c.registry);
    assert_int_equal(run(t, now += IMAGE_LEASE_MS), 1);
    assert_int_equal(b.verdicts, 2);
    for (unsigned i = 0; i < MANY; i++)
        drop(t, &a[i]);
    drop(t, &b);
    drop(t, &c);
    image_tracker_free(t);
}

static void a_registry_that_fails_one_is_asked_by_all_at_once(void **state)
{
    struct image_tracker *t = image_tracker_new();
    struct asker a[5] = { { .id = "a" }, { .id = "b" }, { .id = "c" }, { .id = "d" }, { .id = "e" } };
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        ask(t, &a[i], A);
    assert_int_equal(run(t, 0), 1);
    image_tracker_failed(t, a[1].w); /* it was not its turn, so it cannot know */
    assert_int_equal(run(t, 50), 0);
    image_tracker_failed(t, a[0].w);
    drop(t, &a[0]);
    assert_int_equal(run(t, 100), 3);
    ask(t, &a[4], A);
    assert_int_equal(run(t, IMAGE_OPEN_MS), 1); /* still open */
    ask(t, &a[0], A);
    assert_int_equal(run(t, IMAGE_OPEN_MS + 101), 0); /* in turn again: others read */
    for (unsigned i = 0; i < 5; i++)
        drop(t, &a[i]);
    image_tracker_free(t);
}

static void bad_holders_are_not_named_again(void **state)
{
    struct image_tracker *t = image_tracker_new();
    struct asker a = { .id = "a" }, b = { .id = "b" };
    (void)state;
    holds(t, "x", A);
    holds(t, "y", A);
    holds(t, "a", A); /* its own word is of no use to it: it asks because the bytes are spoilt */
    ask(t, &a, A);
    assert_int_equal(run(t, 0), 1);
    assert_int_equal(a.n, 2);
    image_tracker_bad(t, a.w, "x");
    assert_int_equal(run(t, 0), 1);
    assert_true(a.n == 1 && str_equal(a.from[0], "y"));
    image_tracker_bad(t, a.w, "y");
    assert_int_equal(run(t, 0), 1);
    assert_true(a.registry);
    ask(t, &b, A); /* for others they are as good as before */
    assert_int_equal(run(t, 0), 1);
    assert_true(!b.registry && b.n == 3);
    drop(t, &a);
    drop(t, &b);
    image_tracker_free(t);
}

static void holders_that_go_or_lose_a_blob(void **state)
{
    struct image_tracker *t = image_tracker_new();
    struct asker a = { .id = "a" }, b = { .id = "b" }, c = { .id = "c" };
    (void)state;
    holds(t, "x", A);
    holds(t, "y", B);
    ask(t, &a, A);
    assert_int_equal(run(t, 0), 1);
    assert_true(!a.registry && str_equal(a.from[0], "x"));
    image_tracker_gone(t, "x"); /* while a fetches from it */
    ask(t, &b, A);
    assert_int_equal(run(t, 0), 1);
    assert_true(b.registry);
    holds(t, "y", NULL);
    ask(t, &c, B);
    assert_int_equal(run(t, 0), 1);
    assert_true(c.registry);
    image_tracker_bad(t, a.w, "x");
    assert_int_equal(run(t, 0), 0); /* b reads it */
    holds(t, "z", A);
    assert_int_equal(run(t, 0), 1);
    assert_true(!a.registry && str_equal(a.from[0], "z"));
    drop(t, &a);
    drop(t, &b);
    drop(t, &c);
    image_tracker_free(t);
}

static void one_node_cannot_fill_the_tracker(void **state)
{
    struct image_tracker *t = image_tracker_new();
    struct image_wish *w[IMAGE_WISHES_MAX];
    struct asker other = { .id = "b" };
    (void)state;
    for (unsigned i = 0; i < IMAGE_WISHES_MAX; i++)
        assert_non_null(w[i] = image_tracker_ask(t, "a", A, NULL));
    assert_null(image_tracker_ask(t, "a", B, NULL));
    ask(t, &other, B);
    drop(t, &other);
    for (unsigned i = 0; i < IMAGE_WISHES_MAX; i++)
        image_tracker_drop(t, w[i]);
    image_tracker_free(t);
}

static void names(void **state)
{
    struct image_tracker *t = image_tracker_new();
    static const struct { const char *node, *name, *manifest, *origin; int64_t created; } have[] = {
        { "x", "web:1", A, NULL, 10 }, { "y", "web:1", B, NULL, 20 }, { "z", "reg.test/app@" A, A, "reg.test/app@" A, 5 },
        { "z", "odd:1", "no digest", NULL, 50 },
        { "z", "reg.test/evil@" A, B, "reg.test/evil@" A, 5 } };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(have); i++) {
        struct image_held h = { 0 };
        for (unsigned k = i; k < ARRAY_N(have) && str_equal(have[k].node, have[i].node); k++) {
            struct held_image *x = REC_ADD(&h.images);
            str_set(&x->name, have[k].name);
            str_set(&x->manifest, have[k].manifest);
            str_set(&x->origin, have[k].origin);
            x->created = have[k].created;
        }
        if (i < 3)
            image_tracker_held(t, have[i].node, &h);
        image_held_clear(&h);
    }
    const char *managers[] = { "m", "x" };
    assert_string_equal(image_tracker_name(t, "docker.io/library/web:1", NULL, 0, 99)->manifest, B); /* the newest; any way to write it */
    assert_null(image_tracker_name(t, "web", NULL, 0, 99));
    assert_null(image_tracker_name(t, "odd:1", NULL, 0, 99));
    assert_null(image_tracker_name(t, "BAD NAME", NULL, 0, 99));
    assert_string_equal(image_tracker_name(t, "web:1", managers, 2, 99)->manifest, A); /* a manager's goes before */
    assert_string_equal(image_tracker_name(t, "web:1", managers, 1, 99)->manifest, B);
    assert_string_equal(image_tracker_name(t, "web:1", NULL, 0, 15)->manifest, A); /* made in the future: the last */
    const struct held_image *pinned = image_tracker_name(t, "reg.test/app:7@" A, NULL, 0, 99);
    assert_true(pinned && str_equal(pinned->origin, "reg.test/app@" A));
    assert_null(image_tracker_name(t, "reg.test/evil@" A, NULL, 0, 99)); /* told with another manifest */
    image_tracker_gone(t, "y");
    assert_string_equal(image_tracker_name(t, "web:1", NULL, 0, 99)->manifest, A);
    image_tracker_free(t);
}

/* What a hostile node's name can make of an image. */
static void an_answer_is_held_to_its_digest(void **state)
{
    static const struct { const char *ref, *manifest, *origin; uint64_t size; bool good, kept; } try[] = {
        { "reg.test/app@" A, A, "reg.test/app@" A, 9, true, true }, { "reg.test/app:1@" A, A, NULL, 9, true, false },
        { "reg.test/app@" A, B, "reg.test/app@" A, 9, false, false }, { "reg.test/app@" A, B, NULL, 9, false, false },
        { "reg.test/app:1", B, "reg.test/app@" B, 9, true, true }, { "reg.test/app:1", B, "reg.test/app@" A, 9, true, false },
        { "reg.test/app:1", B, "reg.test/app:1", 9, true, false }, { "reg.test/app:1", B, "../Etc @" B, 9, true, false },
        { "reg.test/app:1", "sha256:0", NULL, 9, false, false }, { "reg.test/app:1", NULL, NULL, 9, false, false },
        { "reg.test/app:1", B, NULL, 0, false, false }, { "reg.test/app:1", B, NULL, IMAGE_MANIFEST_MAX + 1, false, false } };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(try); i++) {
        struct image_answer a = { .kind = IMAGE_ANSWER_NAME, .size = try[i].size };
        struct image_ref r;
        struct err e = { 0 };
        assert_int_equal(image_ref_parse(&r, try[i].ref, &e), 0);
        str_set(&a.manifest, try[i].manifest);
        str_set(&a.origin, try[i].origin);
        assert_int_equal(image_answer_check(&a, &r, &e), try[i].good ? 0 : -E_CORRUPT);
        if (try[i].good)
            assert_int_equal(a.origin != NULL, try[i].kept);
        image_answer_clear(&a);
        image_ref_clear(&r);
    }
}

static void everybody_chooses_the_same_tracker(void **state)
{
    const char *ids[] = { "m1", "m2", "m3", "m4", "m5" }, *other[] = { "m5", "m3", "m1", "m2", "m4" };
    unsigned load[5] = { 0 };
    (void)state;
    for (unsigned k = 0; k < 1000; k++) {
        char digest[72];
        snprintf(digest, sizeof digest, "sha256:%064x", k);
        int i = image_tracker_choose(ids, 5, digest, 0), next = image_tracker_choose(ids, 5, digest, 1);
        assert_string_equal(ids[i], other[image_tracker_choose(other, 5, digest, 0)]);
        assert_int_not_equal(i, next);
        load[i]++;
        const char *left[4]; /* without the first choice the second one is the first */
        unsigned n = 0;
        for (int m = 0; m < 5; m++)
            if (m != i)
                left[n++] = ids[m];
        assert_string_equal(ids[next], left[image_tracker_choose(left, 4, digest, 0)]);
    }
    for (unsigned m = 0; m < 5; m++)
        assert_in_range(load[m], 120, 280);
    assert_int_equal(image_tracker_choose(ids, 5, A, 5), -1);
    assert_int_equal(image_tracker_choose(ids, 0, A, 0), -1);
}

/* ---- pieces ---- */
static void pieces_come_in_order_whoever_gives_them(void **state)
{
    struct image_pieces p;
    int64_t size = 20 * (int64_t)IMAGE_PIECE_SIZE + 7, at = 1000;
    int slots[IMAGE_WINDOW];
    unsigned n = 0;
    (void)state;
    image_pieces_init(&p, at, size);
    while (n < IMAGE_WINDOW && (slots[n] = image_pieces_ask(&p, (int)n % 3)) >= 0)
        n++;
    assert_int_equal(n, IMAGE_WINDOW);
    assert_int_equal(image_pieces_ask(&p, 0), -1); /* no more than the window */
    assert_int_equal(p.v[slots[0]].offset, at);
    for (unsigned i = IMAGE_WINDOW; i-- > 1;) /* backwards */
        image_pieces_got(&p, slots[i], p.v[slots[i]].size);
    assert_int_equal(image_pieces_take(&p), -1); /* the first is missing */
    image_pieces_got(&p, slots[0], p.v[slots[0]].size);
    for (unsigned i = 0; i < IMAGE_WINDOW; i++) {
        int slot = image_pieces_take(&p);
        assert_int_equal(p.v[slot].offset, at);
        at += p.v[slot].size;
    }
    while (!image_pieces_done(&p)) {
        int slot = image_pieces_ask(&p, 1);
        image_pieces_got(&p, slot, p.v[slot].size);
        assert_int_equal(image_pieces_take(&p), slot);
        at += p.v[slot].size;
    }
    assert_int_equal(at, size);
    assert_int_equal(image_pieces_ask(&p, 0), -1);
}

static void what_a_source_did_not_give_is_asked_of_others(void **state)
{
    struct image_pieces p;
    (void)state;
    image_pieces_init(&p, 0, 3 * (int64_t)IMAGE_PIECE_SIZE);
    int a = image_pieces_ask(&p, 0), b = image_pieces_ask(&p, 1), c = image_pieces_ask(&p, 0);
    image_pieces_got(&p, a, IMAGE_PIECE_SIZE);
    image_pieces_got(&p, c, 17);
    image_pieces_lost(&p, 0);
    assert_int_equal(image_pieces_take(&p), a); /* what it gave whole stays */
    assert_int_equal(image_pieces_ask(&p, 1), c);
    assert_int_equal(p.v[c].got, 0);
    image_pieces_got(&p, c, IMAGE_PIECE_SIZE);
    image_pieces_got(&p, b, IMAGE_PIECE_SIZE);
    assert_int_equal(image_pieces_take(&p), b);
    assert_int_equal(image_pieces_take(&p), c);
    assert_true(image_pieces_done(&p));
    image_pieces_init(&p, 5, 5);
    assert_true(image_pieces_done(&p) && image_pieces_ask(&p, 0) < 0);
}

static void a_silent_registry_is_remembered_for_a_while(void **state)
{
    struct image_silence s = { 0 };
    char host[32];
    (void)state;
    image_silence_note(&s, "a", false, 0);
    assert_false(image_silence_has(&s, "a", 0));
    image_silence_note(&s, "a", true, 1000);
    assert_true(image_silence_has(&s, "a", 1000 + IMAGE_SILENCE_MS - 1));
    assert_false(image_silence_has(&s, "a", 1000 + IMAGE_SILENCE_MS));
    assert_false(image_silence_has(&s, "b", 1000));
    image_silence_note(&s, "a", false, 2000);
    assert_false(image_silence_has(&s, "a", 2000));
    for (int i = 0; i <= IMAGE_SILENT_MAX; i++) { /* one too many: the oldest makes room */
        snprintf(host, sizeof host, "h%d", i);
        image_silence_note(&s, host, true, 3000 + i);
    }
    for (int i = 0; i <= IMAGE_SILENT_MAX; i++) {
        snprintf(host, sizeof host, "h%d", i);
        assert_int_equal(image_silence_has(&s, host, 4000), i > 0);
    }
    image_silence_clear(&s);
}

/* ---- messages ---- */
static void messages_are_bounded_and_whole(void **state)
{
    struct image_ask a = { .kind = IMAGE_ASK_GET, .offset = 3, .size = 9 }, back = { 0 };
    struct err e;
    struct sb b;
    (void)state;
    str_set(&a.digest, A);
    sb_init(&b, 0);
    image_frame(&image_ask_rec, &a, &b);
    sb_str(&b, "rest");
    for (size_t n = 0; n < b.len - 4; n++)
        assert_int_equal(image_unframe(&image_ask_rec, &back, b.s, n, &e), 0);
    assert_int_equal(image_unframe(&image_ask_rec, &back, b.s, b.len, &e), (long)b.len - 4);
    assert_true(image_ask_equal(&a, &back) && image_ask_check(&back, &e) == 0);
    static const uint8_t huge[] = { 0xff, 0xff, 0xff, 0x7f, 0 }, wrong[] = { 2, 0, 0, 0, 0xc1, 0xc1 };
    struct image_ask none = { 0 };
    assert_int_equal(image_unframe(&image_ask_rec, &none, (const char *)huge, sizeof huge, &e), -E_TOO_BIG);
    assert_true(image_unframe(&image_ask_rec, &none, (const char *)wrong, sizeof wrong, &e) < 0);
    back.size = 0;
    assert_int_equal(image_ask_check(&back, &e), -E_INVALID);
    back.size = 9;
    back.offset = INT64_MAX - 3;
    assert_int_equal(image_ask_check(&back, &e), -E_INVALID);
    str_set(&back.digest, "../../etc/passwd");
    back.offset = 0;
    assert_int_equal(image_ask_check(&back, &e), -E_INVALID);
    image_ask_clear(&a);
    image_ask_clear(&back);
    sb_done(&b);
}

/* ---- giving ---- */
struct uploads { struct loop *loop; struct loop_timer *watchdog; size_t n; };

static size_t upload_data(void *arg, const char *s, size_t size)
{
    struct uploads *u = arg;
    (void)s;
    u->n += size;
    if (u->n >= IMAGE_PIECE_SIZE)
        loop_stop(u->loop);
    return size;
}
static void upload_end(void *arg)
{
    (void)arg;
    fail_msg("the holder closed");
}
static void upload_error(void *arg, const struct err *e)
{
    (void)arg;
    fail_msg("%s", e->text);
}
static void upload_late(void *arg)
{
    (void)arg;
    fail_msg("the holder gives nothing");
}

/* One that asks for much and takes nothing leaves others their places, under way and in the queue. */
static void uploads_are_shared(void **state)
{
    enum { HOGS = 160 };
    static const struct stream_events events = { .on_data = upload_data, .on_eof = upload_end, .on_error = upload_error };
    struct uploads u = { .loop = loop_new() };
    struct image_store *store;
    struct err err;
    char top[] = "/tmp/shoal-peers-XXXXXX", *bytes = xcalloc(1, IMAGE_PIECE_SIZE);
    struct image_ask ask = { .kind = IMAGE_ASK_GET, .size = IMAGE_PIECE_SIZE };
    int hog[HOGS], fd[2];
    (void)state;
    assert_non_null(mkdtemp(top));
    AUTO_FREE char *root = path_join(top, "images");
    struct image_store_config cfg = { .root = root };
    assert_int_equal(image_store_open(&store, u.loop, &cfg, &err), 0);
    assert_int_equal(image_blob_put(root, bytes, IMAGE_PIECE_SIZE, &ask.digest, &err), 0);
    for (unsigned i = 0; i < HOGS; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
        image_peers_serve(store, "hog", stream_from_fd(u.loop, fd[0]), &ask);
        hog[i] = fd[1];
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    image_peers_serve(store, "other", stream_from_fd(u.loop, fd[0]), &ask);
    struct stream *other = stream_from_fd(u.loop, fd[1]);
    stream_set_events(other, &events, &u);
    u.watchdog = loop_timer_new(u.loop, upload_late, &u);
    loop_timer_set(u.watchdog, 20000); /* less than it takes for a hog to lose its place */
    loop_run(u.loop);
    loop_timer_free(u.watchdog);
    stream_free(other);
    unsigned kinds[2] = { 0 };
    for (unsigned i = 0; i < HOGS; i++) {
        struct image_answer a = { 0 };
        char head[512];
        struct err e;
        ssize_t n = recv(hog[i], head, sizeof head, MSG_DONTWAIT);
        if (n > 0) {
            assert_true(image_unframe(&image_answer_rec, &a, head, (size_t)n, &e) > 0);
            kinds[a.kind == IMAGE_ANSWER_BYTES]++;
        }
        image_answer_clear(&a);
        close(hog[i]);
    }
    assert_int_equal(kinds[true], IMAGE_UPLOADS_ONE);
    assert_int_equal(kinds[false], HOGS - IMAGE_UPLOADS_ONE - IMAGE_UPLOADS_WAITING_MAX / 2); /* refused */
    image_ask_clear(&ask);
    image_store_close(store);
    loop_free(u.loop);
    free(bytes);
    assert_int_equal(file_remove_tree(top, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_reads_the_registry_and_a_tree_forms),
        cmocka_unit_test(a_reader_that_dies_or_is_slow_holds_nobody_up),
        cmocka_unit_test(a_node_cannot_keep_the_right_to_read),
        cmocka_unit_test(a_registry_that_fails_one_is_asked_by_all_at_once),
        cmocka_unit_test(bad_holders_are_not_named_again),
        cmocka_unit_test(holders_that_go_or_lose_a_blob),
        cmocka_unit_test(one_node_cannot_fill_the_tracker),
        cmocka_unit_test(names),
        cmocka_unit_test(an_answer_is_held_to_its_digest),
        cmocka_unit_test(everybody_chooses_the_same_tracker),
        cmocka_unit_test(pieces_come_in_order_whoever_gives_them),
        cmocka_unit_test(what_a_source_did_not_give_is_asked_of_others),
        cmocka_unit_test(a_silent_registry_is_remembered_for_a_while),
        cmocka_unit_test(messages_are_bounded_and_whole),
        cmocka_unit_test(uploads_are_shared),
    };
    crypto_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
