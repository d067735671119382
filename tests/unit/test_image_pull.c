/* Pulling from a registry served here, by our own HTTP server on the loopback: what comes in is right, what
 * is wrong is refused with the reason, and nothing of a failed pull stays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "image_fixture.h"
#include <arpa/inet.h>
#include <shoal/http.h>
#include <shoal/image_peers.h>
#include <sys/socket.h>

static const struct fx_entry base_layer[] = {
    { .type = 'd', .path = "etc/" }, { .type = 'f', .path = "etc/a", .data = "base" } };
static const struct fx_entry upper_layer[] = {
    { .type = 'f', .path = "etc/b", .data = "upper" }, { .type = 'f', .path = "etc/.wh.a" } };
static char third[700 << 10]; /* two pieces between peers */
static const struct fx_entry other_layer[] = { { .type = 'f', .path = "other", .data = third } };

struct fx {
    char top[64], *root, *host;
    uint16_t port;
    struct loop *loop;
    struct loop_timer *watchdog;
    struct http_server *server;
    struct stream_listener *listener;
    struct image_store *store;
    /* what the registry has: "app:1" of layers 0 and 1, "app:2" of 0 and 2; "app:multi" an index */
    struct fx_layer l[3];
    char *config[2], *manifest[2], *index;
    char config_digest[2][80], manifest_digest[2][80], index_digest[80];
    /* how it behaves */
    unsigned fail; /* so many requests get 500 */
    unsigned drop; /* so many blobs break off in the middle */
    bool ranges, wrong_part; /* serves the rest of a blob; says another one */
    unsigned n_parts;
    bool lie, cut, long_blob, token, basic, deny, redirect;
    /* what was seen */
    unsigned n_requests, n_blobs, n_manifests, n_tokens, n_moved;
    bool leaked;
    bool only_look;       /* connections are not served: their first byte is looked at, then they are cut */
    int first_byte;
    struct stream *looked;
    /* results */
    unsigned ended, expect, n_progress;
    struct err e;
    char *id;
    struct strs statuses;
    struct image_remote remote;
    bool timed_out;
};

static void reply_error(struct http_request *r, int status, const char *code)
{
    AUTO_FREE char *json = xasprintf("{\"errors\":[{\"code\":\"%s\",\"message\":\"%s\"}]}", code, "said so");
    http_reply_json(r, status, json);
}

static bool serve_blob(struct fx *f, struct http_request *r, const char *digest)
{
    for (unsigned i = 0; i < 2; i++)
        if (str_equal(digest, f->config_digest[i])) {
            http_reply(r, 200, "application/octet-stream", f->config[i], strlen(f->config[i]));
            return true;
        }
    for (unsigned i = 0; i < 3; i++) {
        struct sb *b = &f->l[i].blob;
        if (!str_equal(digest, f->l[i].digest))
            continue;
        if (f->redirect) { /* to another name of this host, as registries send their clients to a CDN */
            AUTO_FREE char *to = xasprintf("http://localhost:%u/cdn/%s", f->port, digest);
            http_reply_header(r, "Location", to);
            http_reply(r, 307, "text/plain", "elsewhere", 9);
            return true;
        }
        f->n_blobs++;
        const char *range = http_header(r, "Range");
        unsigned long from = range && f->ranges ? strtoul(range + strlen("bytes="), NULL, 10) : 0;
        if (f->drop) {
            f->drop--;
            http_stream_start(r, 200, "application/octet-stream");
            http_stream_write(r, b->s, b->len / 2);
            http_stream_cut(r);
            return true;
        }
        if (from) {
            AUTO_FREE char *where = xasprintf("bytes %lu-%zu/%zu", from + f->wrong_part, b->len - 1, b->len);
            f->n_parts++;
            http_reply_header(r, "Content-Range", where);
            if (from < b->len)
                http_reply(r, 206, "application/octet-stream", b->s + from, b->len - from);
            else
                reply_error(r, 416, "RANGE_INVALID");
            return true;
        }
        AUTO_FREE char *copy = xmemdup(b->s, b->len + 1);
        if (f->lie)
            copy[b->len / 2] ^= 1;
        http_reply(r, 200, "application/octet-stream", copy, b->len - f->cut + f->long_blob);
        return true;
    }
    return false;
}

static bool serve_manifest(struct fx *f, struct http_request *r, const char *ref)
{
    static const char docker[] = "application/vnd.docker.distribution.manifest.v2+json";
    f->n_manifests++;
    for (unsigned i = 0; i < 2; i++) {
        const char tag[] = { (char)('1' + i), 0 };
        if (str_equal(ref, tag) || str_equal(ref, f->manifest_digest[i])) {
            http_reply(r, 200, docker, f->manifest[i], strlen(f->manifest[i]));
            return true;
        }
    }
    if (str_equal(ref, "multi")) {
        http_reply(r, 200, "application/vnd.oci.image.index.v1+json", f->index, strlen(f->index));
        return true;
    }
    if (str_starts(ref, "sha256:00")) { /* bytes that are not what was asked for */
        http_reply(r, 200, docker, f->manifest[0], strlen(f->manifest[0]));
        return true;
    }
    return false;
}

static void serve_token(struct fx *f, struct http_request *r)
{
    const char *login = http_header(r, "Authorization");
    f->n_tokens++;
    if (!str_equal(http_query(r, "scope"), "repository:team/app:pull") || !str_equal(http_query(r, "service"), "here") ||
        !str_equal(login, "Basic bWU6c2VjcmV0")) /* me:secret */
        reply_error(r, 401, "UNAUTHORIZED");
    else
        http_reply_json(r, 200, "{\"token\":\"tok.en\"}");
}

static bool admitted(struct fx *f, struct http_request *r)
{
    const char *login = http_header(r, "Authorization");
    if (f->token && !str_equal(login, "Bearer tok.en")) {
        AUTO_FREE char *ask = xasprintf("Bearer realm=\"http://%s/token\",service=\"here\","
                                        "scope=\"repository:team/app:pull\"", f->host);
        http_reply_header(r, "WWW-Authenticate", ask);
        reply_error(r, 401, "UNAUTHORIZED");
        return false;
    }
    if (f->basic && !str_equal(login, "Basic bWU6c2VjcmV0")) {
        http_reply_header(r, "WWW-Authenticate", "Basic realm=\"x\"");
        reply_error(r, 401, "UNAUTHORIZED");
        return false;
    }
    if (!f->token && !f->basic && login)
        f->leaked = true; /* credentials nobody asked for */
    return true;
}

static void on_request(void *arg, struct http_request *r)
{
    struct fx *f = arg;
    const char *path = http_path(r);
    static const char blobs[] = "/v2/team/app/blobs/", manifests[] = "/v2/team/app/manifests/";
    f->n_requests++;
    if (str_equal(path, "/token")) {
        serve_token(f, r);
        return;
    }
    if (str_starts(path, "/cdn/")) {
        f->leaked |= http_header(r, "Authorization") != NULL;
        f->n_moved++;
        f->redirect = false;
        if (!serve_blob(f, r, path + strlen("/cdn/")))
            reply_error(r, 404, "BLOB_UNKNOWN");
        f->redirect = true;
        return;
    }
    if (f->fail) {
        f->fail--;
        reply_error(r, 500, "UNKNOWN");
        return;
    }
    if (!admitted(f, r))
        return;
    if (f->deny)
        reply_error(r, 403, "DENIED");
    else if (str_starts(path, blobs) ? !serve_blob(f, r, path + strlen(blobs))
                                     : !str_starts(path, manifests) || !serve_manifest(f, r, path + strlen(manifests)))
        reply_error(r, 404, "MANIFEST_UNKNOWN");
}

static size_t look_data(void *arg, const char *p, size_t size)
{
    struct fx *f = arg;
    f->first_byte = (unsigned char)p[0];
    stream_free(TAKE(f->looked));
    return size;
}

static void look_eof(void *arg) {}
static void look_error(void *arg, const struct err *e)
{
    struct fx *f = arg;
    stream_free(TAKE(f->looked));
}

static void on_accept(void *arg, struct stream *s)
{
    static const struct stream_events look = { .on_data = look_data, .on_eof = look_eof, .on_error = look_error };
    struct fx *f = arg;
    if (f->only_look) {
        stream_free(f->looked);
        f->looked = s;
        stream_set_events(s, &look, f);
        return;
    }
    http_server_take(f->server, s);
}

static void make_contents(struct fx *f)
{
    static const struct { const struct fx_entry *v; size_t n; char filter; } made[] = {
        { base_layer, ARRAY_N(base_layer), 'z' }, { upper_layer, ARRAY_N(upper_layer), 's' },
        { other_layer, ARRAY_N(other_layer), 0 } };
    for (unsigned i = 0; i < 3; i++)
        fx_layer_make(&f->l[i], made[i].v, made[i].n, made[i].filter);
    for (unsigned i = 0; i < 2; i++) {
        struct fx_layer pair[2] = { f->l[0], f->l[1 + i] };
        f->config[i] = fx_config(pair, 2);
        fx_digest(f->config_digest[i], f->config[i], strlen(f->config[i]));
        f->manifest[i] = xasprintf(
            "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\","
            "\"config\":{\"digest\":\"%s\",\"size\":%zu},\"layers\":[{\"digest\":\"%s\",\"size\":%zu},"
            "{\"digest\":\"%s\",\"size\":%zu}]}",
            f->config_digest[i], strlen(f->config[i]), pair[0].digest, pair[0].blob.len, pair[1].digest, pair[1].blob.len);
        fx_digest(f->manifest_digest[i], f->manifest[i], strlen(f->manifest[i]));
    }
    f->index = xasprintf(
        "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"%s\",\"size\":1,\"platform\":{\"os\":\"linux\","
        "\"architecture\":\"pdp11\"}},{\"digest\":\"%s\",\"size\":%zu,\"platform\":{\"os\":\"linux\",\"architecture\":\"%s\"}}]}",
        f->config_digest[0], f->manifest_digest[0], strlen(f->manifest[0]),
#ifdef __aarch64__
        "arm64"
#else
        "amd64"
#endif
    );
    fx_digest(f->index_digest, f->index, strlen(f->index));
}

static void on_watchdog(void *arg)
{
    struct fx *f = arg;
    f->timed_out = true;
    loop_stop(f->loop);
}

static uint16_t free_port(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    return ntohs(a.sin_port);
}

static void open_store(struct fx *f)
{
    const char *const insecure[] = { f->host, NULL };
    struct image_store_config cfg = { .root = f->root, .insecure = insecure };
    struct err e = { 0 };
    if (image_store_open(&f->store, f->loop, &cfg, &e) < 0)
        fail_msg("%s", e.text);
}

static int setup(void **state)
{
    struct fx *f = xnew(struct fx);
    struct err e = { 0 };
    *state = f;
    if (geteuid() != 0) {
        print_message("skipped: unpacking layers with whiteouts and owners needs root\n");
        return 0;
    }
    snprintf(f->top, sizeof f->top, "/tmp/shoal-pull-XXXXXX");
    assert_non_null(mkdtemp(f->top));
    f->root = path_join(f->top, "images");
    f->loop = loop_new();
    f->watchdog = loop_timer_new(f->loop, on_watchdog, f);
    f->server = http_server_new(f->loop, on_request, f);
    for (unsigned i = 0; i < 20 && !f->listener; i++) {
        f->port = free_port();
        if (stream_listen_tcp(f->loop, "127.0.0.1", f->port, on_accept, f, &f->listener, &e) < 0)
            f->listener = NULL;
    }
    assert_non_null(f->listener);
    f->host = xasprintf("127.0.0.1:%u", f->port);
    make_contents(f);
    open_store(f);
    return 0;
}

static int teardown(void **state)
{
    struct fx *f = *state;
    image_store_close(f->store);
    if (f->loop) {
        stream_listener_free(f->listener);
        stream_free(f->looked);
        http_server_free(f->server);
        loop_timer_free(f->watchdog);
        loop_free(f->loop);
        assert_int_equal(file_remove_tree(f->top, NULL), 0);
    }
    for (unsigned i = 0; i < 3; i++)
        if (f->l[i].blob.s)
            sb_done(&f->l[i].blob);
    for (unsigned i = 0; i < 2; i++) {
        free(f->config[i]);
        free(f->manifest[i]);
    }
    free(f->index);
    free(f->id);
    free(f->host);
    free(f->root);
    strs_clear(&f->statuses);
    strs_clear(&f->remote.architectures);
    strs_clear(&f->remote.oss);
    free(f->remote.digest);
    free(f->remote.media_type);
    free(f);
    return 0;
}

static void on_progress(void *arg, const struct image_progress *p)
{
    struct fx *f = arg;
    AUTO_FREE char *line = xasprintf("%s %s", p->id, p->status);
    f->n_progress++;
    assert_true(p->current >= 0 && p->current <= p->total);
    if (!strs_has(&f->statuses, line))
        strs_add(&f->statuses, line);
}

static void one_ended(struct fx *f, const struct err *e)
{
    if (e)
        f->e = *e;
    if (++f->ended == f->expect)
        loop_stop(f->loop);
}

static void on_done(void *arg, const struct image *image, const struct err *e)
{
    struct fx *f = arg;
    assert_true((image == NULL) == (e != NULL));
    free(f->id);
    f->id = image ? xstrdup(image->id) : NULL;
    one_ended(f, e);
}

static void run(struct fx *f, unsigned expect)
{
    f->expect = expect;
    loop_timer_set(f->watchdog, 20000);
    if (f->ended < expect)
        loop_run(f->loop);
    loop_timer_set(f->watchdog, -1);
    assert_false(f->timed_out);
    assert_int_equal(f->ended, expect);
}

static void stop_loop(void *arg) { loop_stop(arg); }
static void nothing(void *arg) {}

static void begin(struct fx *f)
{
    f->ended = f->n_requests = f->n_blobs = f->n_manifests = f->n_tokens = 0;
    f->e = (struct err){ 0 };
    strs_clear(&f->statuses);
}

static void pull(struct fx *f, const char *name, const char *auth)
{
    AUTO_FREE char *ref = xasprintf("%s/team/app%s", f->host, name);
    begin(f);
    image_pull(f->store, ref, auth, on_progress, on_done, f);
    run(f, 1);
    assert_int_equal(loop_work(f->loop, LANE_BULK, nothing, stop_loop, f->loop), 0);
    loop_run(f->loop);
    assert_int_equal(fx_count(f->root, "tmp"), 0);
}

static void must_pull(struct fx *f, const char *name, const char *auth)
{
    pull(f, name, auth);
    if (f->e.code)
        fail_msg("%s: %s", name, f->e.text);
}

/* Refused for the reason given, and nothing of it stays. */
static void must_fail(struct fx *f, const char *name, const char *auth, int code, const char *says)
{
    pull(f, name, auth);
    if (f->e.code != code || !strstr(f->e.text, says))
        fail_msg("%s: code %d: %s", name, f->e.code, f->e.text);
    assert_null(strstr(f->e.text, "secret"));
    assert_null(f->id);
    assert_null(image_next(f->store, NULL));
    assert_int_equal(fx_count(f->root, "layers") + fx_count(f->root, "blobs/sha256"), 0);
}

static bool said(const struct fx *f, const char *digest, const char *status)
{
    AUTO_FREE char *line = xasprintf("%.12s %s", digest + 7, status);
    return strs_has(&f->statuses, line);
}

static void test_ok(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    must_pull(f, ":1", NULL);
    assert_string_equal(f->id, f->config_digest[0]);
    AUTO_FREE char *tag = xasprintf("%s/team/app:1", f->host);
    AUTO_FREE char *by_digest = xasprintf("%s/team/app:9@%s", f->host, f->manifest_digest[0]);
    const struct image *im = image_find(f->store, tag);
    assert_non_null(im);
    assert_ptr_equal(image_find(f->store, by_digest), im);
    assert_string_equal(im->repo_tags.v[0], tag);
    AUTO_FREE char *upper = fx_text(im->layer_dirs.v[0], "etc/b");
    AUTO_FREE char *base = fx_text(im->layer_dirs.v[1], "etc/a");
    assert_string_equal(upper, "upper");
    assert_string_equal(base, "base");
    static const char *const lines[] = { "Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete",
                                         "Extracting", "Pull complete" };
    for (unsigned i = 0; i < 2; i++)
        for (size_t k = 0; k < ARRAY_N(lines); k++)
            if (!said(f, f->l[i].digest, lines[k]))
                fail_msg("layer %u: never said: %s", i, lines[k]);
    assert_true(strs_has(&f->statuses, "1 Pulling from team/app"));
    assert_false(f->leaked);
    assert_int_equal(f->n_blobs, 2);

    must_pull(f, ":1", NULL); /* again: nothing but the manifest is asked for */
    assert_int_equal(f->n_requests, 1);
    assert_true(said(f, f->l[0].digest, "Already exists"));
    AUTO_FREE char *status = xasprintf(" Status: Image is up to date for %s", tag);
    assert_true(strs_has(&f->statuses, status));
}

static void test_reuse(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    must_pull(f, ":1", NULL);
    must_pull(f, ":2", NULL);
    assert_int_equal(f->n_blobs, 1);
    assert_true(said(f, f->l[0].digest, "Already exists"));
    assert_true(said(f, f->l[2].digest, "Pull complete"));
    assert_string_equal(f->id, f->config_digest[1]);
    image_store_close(f->store);
    open_store(f);
    assert_non_null(image_find(f->store, f->config_digest[0]));
    must_pull(f, ":1", NULL);
    assert_int_equal(f->n_blobs, 0);
}

static void test_index(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    must_pull(f, ":multi", NULL);
    assert_string_equal(f->id, f->config_digest[0]);
    assert_int_equal(f->n_manifests, 2);
    assert_non_null(strstr(image_find(f->store, f->id)->repo_digests.v[0], f->index_digest));
    struct image_held h; /* other nodes can have it by the digest that references are pinned to */
    image_peers_held(f->store, &h);
    assert_int_equal(h.images.n, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(h.images.v[i].manifest, f->index_digest);
        assert_int_equal(h.images.v[i].size, strlen(f->index));
        assert_non_null(strstr(h.images.v[i].origin, f->index_digest));
    }
    image_held_clear(&h);
    AUTO_FREE char *ref = xasprintf("@%s", f->manifest_digest[1]);
    must_pull(f, ref, NULL); /* by digest: no tag */
    assert_string_equal(f->id, f->config_digest[1]);
    assert_int_equal(image_find(f->store, f->id)->repo_tags.n, 0);
    struct strs gone[2] = { { 0 } };
    AUTO_FREE char *index = xasprintf("%s/blobs/sha256/%s", f->root, f->index_digest + 7);
    assert_int_equal(image_remove(f->store, f->config_digest[1], true, NULL, NULL, &gone[0], &gone[1], &f->e), 0);
    assert_true(file_exists(index)); /* not swept while its image is there */
    assert_int_equal(image_remove(f->store, f->config_digest[0], true, NULL, NULL, &gone[0], &gone[1], &f->e), 0);
    assert_false(file_exists(index));
    strs_clear(&gone[0]);
    strs_clear(&gone[1]);
}

static void test_wrong(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    f->lie = true;
    must_fail(f, ":1", NULL, E_CORRUPT, "digest mismatch");
    f->lie = false;
    f->cut = true;
    must_fail(f, ":1", NULL, E_CORRUPT, "bytes came");
    f->cut = false;
    f->long_blob = true;
    must_fail(f, ":1", NULL, E_TOO_BIG, "longer than");
    f->long_blob = false;
    must_fail(f, "@sha256:0000000000000000000000000000000000000000000000000000000000000000", NULL, E_CORRUPT,
              "digest mismatch");
    f->config[0][strlen(f->config[0]) - 1] = ' ';
    must_fail(f, ":1", NULL, E_CORRUPT, "digest mismatch");
}

static void test_refused(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    AUTO_FREE char *says = xasprintf("manifest for %s/team/app:nope not found: said so", f->host);
    must_fail(f, ":nope", NULL, E_NOT_FOUND, says);
    f->deny = true;
    must_fail(f, ":1", NULL, E_DENIED, "pull access denied");
    assert_int_equal(f->n_requests, 1); /* a refusal is not tried again */
    must_fail(f, ":UP per", NULL, E_INVALID, "invalid reference format");
    must_fail(f, ":1", "{\"username\":\"me\",\"password\":\"secret\"", E_INVALID, "credentials");
    f->deny = false;
    f->fail = 1000;
    must_fail(f, ":1", NULL, E_UNAVAILABLE, "status 500");
    assert_int_equal(f->n_requests, 3);
}

static void test_retry(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    f->fail = 2;
    must_pull(f, ":1", NULL);
    assert_int_equal(f->fail, 0);
    assert_int_equal(f->n_manifests, 1);
}

/* A mirror that fails is asked once; one that breaks off in the middle goes on. */
static void test_mirror(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    image_store_close(TAKE(f->store));
    AUTO_FREE char *mirror = xasprintf("127.0.0.1:1=http://%s", f->host);
    const char *const mirrors[] = { mirror, NULL };
    struct image_store_config cfg = { .root = f->root, .mirrors = mirrors };
    assert_int_equal(image_store_open(&f->store, f->loop, &cfg, NULL), 0);
    free(f->host);
    f->host = xstrdup("127.0.0.1:1"); /* where nobody is */
    f->fail = 1000;
    pull(f, ":1", NULL);
    assert_int_equal(f->e.code, E_UNAVAILABLE);
    assert_int_equal(f->n_requests, 1);
    f->fail = 0;
    f->ranges = true;
    f->drop = 2;
    must_pull(f, ":1", NULL);
    assert_int_equal(f->n_parts, 2);
}

static void test_login(void **state)
{
    struct fx *f = *state;
    static const char good[] = "{\"username\":\"me\",\"password\":\"secret\"}";
    static const char packed[] = "{\"auth\":\"bWU6c2VjcmV0\"}";
    static const char bad[] = "{\"username\":\"me\",\"password\":\"secret2\"}";
    if (!f->store)
        skip();
    f->token = true;
    must_fail(f, ":1", NULL, E_DENIED, "token service");
    must_fail(f, ":1", bad, E_DENIED, "token service");
    must_pull(f, ":1", good);
    assert_int_equal(f->n_tokens, 1); /* the layers' threads use the same token */
    f->token = false;
    must_pull(f, ":1", good);
    assert_false(f->leaked); /* not sent where nobody asks */
    f->basic = true;
    pull(f, ":2", NULL);
    assert_int_equal(f->e.code, E_DENIED);
    pull(f, ":2", bad);
    assert_int_equal(f->e.code, E_DENIED);
    must_pull(f, ":2", packed);
}

static void test_redirect(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    f->token = f->redirect = true;
    must_pull(f, ":1", "{\"username\":\"me\",\"password\":\"secret\"}");
    assert_int_equal(f->n_moved, 2);
    assert_false(f->leaked); /* the token stays with the registry */
}

static void test_shared(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    AUTO_FREE char *ref = xasprintf("%s/team/app:1", f->host);
    begin(f);
    for (unsigned i = 0; i < 3; i++)
        image_pull(f->store, ref, NULL, i ? NULL : on_progress, on_done, f);
    run(f, 3);
    assert_string_equal(f->id, f->config_digest[0]);
    assert_int_equal(f->n_manifests, 1);
    assert_int_equal(f->n_blobs, 2);
}

static void on_remote(void *arg, const struct image_remote *r, const struct err *e)
{
    struct fx *f = arg;
    struct image_remote *to = &f->remote;
    strs_clear(&to->architectures);
    strs_clear(&to->oss);
    str_set(&to->digest, r ? r->digest : NULL);
    str_set(&to->media_type, r ? r->media_type : NULL);
    to->size = r ? r->size : 0;
    for (uint32_t i = 0; r && i < r->architectures.n; i++) {
        strs_add(&to->architectures, r->architectures.v[i]);
        strs_add(&to->oss, r->oss.v[i]);
    }
    one_ended(f, e);
}

static void test_remote(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    AUTO_FREE char *one = xasprintf("%s/team/app:1", f->host);
    AUTO_FREE char *multi = xasprintf("%s/team/app:multi", f->host);
    AUTO_FREE char *none = xasprintf("%s/team/app:none", f->host);
    begin(f);
    image_inspect_remote(f->store, one, NULL, on_remote, f);
    run(f, 1);
    assert_string_equal(f->remote.digest, f->manifest_digest[0]);
    assert_int_equal(f->remote.size, strlen(f->manifest[0]));
    assert_string_equal(f->remote.architectures.v[0], "amd64");
    assert_string_equal(f->remote.oss.v[0], "linux");
    begin(f);
    image_inspect_remote(f->store, multi, NULL, on_remote, f);
    run(f, 1);
    assert_string_equal(f->remote.digest, f->index_digest);
    assert_string_equal(f->remote.media_type, "application/vnd.oci.image.index.v1+json");
    assert_int_equal(f->remote.architectures.n, 2);
    assert_string_equal(f->remote.architectures.v[0], "pdp11");
    begin(f);
    image_inspect_remote(f->store, none, NULL, on_remote, f);
    run(f, 1);
    assert_int_equal(f->e.code, E_NOT_FOUND);
    assert_null(image_next(f->store, NULL));
    assert_int_equal(fx_count(f->root, "layers") + fx_count(f->root, "blobs/sha256") + fx_count(f->root, "tmp"), 0);
}

static void must_not_end(void *arg, const struct image *image, const struct err *e)
{
    fail_msg("called back after the store was closed");
}

/* Closing in the middle: the threads end, nobody is called, the next opening finds no remains. */
static void test_close(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    AUTO_FREE char *ref = xasprintf("%s/team/app:1", f->host);
    begin(f);
    f->fail = 1000; /* so that it waits between two tries */
    image_pull(f->store, ref, NULL, on_progress, must_not_end, f);
    int64_t before = clock_mono_ns();
    image_store_close(TAKE(f->store));
    assert_true(clock_mono_ns() - before < 3 * SEC_NS);
    open_store(f);
    assert_null(image_next(f->store, NULL));
    assert_int_equal(fx_count(f->root, "layers") + fx_count(f->root, "tmp"), 0);
    f->fail = 0;
    must_pull(f, ":1", NULL);
}

/* Without the word "insecure" no plain HTTP is spoken, not even to the loopback. */
static void test_https_only(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    image_store_close(TAKE(f->store));
    struct image_store_config cfg = { .root = f->root };
    assert_int_equal(image_store_open(&f->store, f->loop, &cfg, NULL), 0);
    f->only_look = true;
    pull(f, ":1", NULL);
    assert_int_equal(f->e.code, E_UNAVAILABLE);
    assert_int_equal(f->first_byte, 0x16); /* a TLS handshake */
}

/* A layer put into partial/, as a pull that was killed leaves it. */
static void leave(struct fx *f, unsigned i, size_t n, char spoil)
{
    AUTO_FREE char *path = xasprintf("%s/partial/%s", f->root, f->l[i].digest + 7);
    AUTO_FREE char *copy = xmemdup(f->l[i].blob.s, f->l[i].blob.len);
    copy[n / 2] ^= spoil;
    assert_int_equal(file_write_volatile(path, copy, n, 0600, NULL), 0);
}

static void drop_all(struct fx *f)
{
    struct strs gone = { 0 }, deleted = { 0 };
    while (image_next(f->store, NULL))
        assert_int_equal(image_remove(f->store, image_next(f->store, NULL)->id, true, NULL, NULL, &gone, &deleted, NULL), 0);
    strs_clear(&gone);
    strs_clear(&deleted);
}

/* A blob that breaks off is gone on with: by the same pull, by the next one, by the one after a kill; from the start
 * where the registry cannot, or where what was left is wrong. */
static void test_resume(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    f->ranges = true;
    f->drop = 2; /* both layers */
    must_pull(f, ":1", NULL);
    assert_int_equal(f->n_parts, 2);
    assert_int_equal(fx_count(f->root, "partial"), 0);
    drop_all(f);
    leave(f, 0, f->l[0].blob.len / 3, 0);
    leave(f, 1, f->l[1].blob.len, 0); /* whole: not asked for at all */
    must_pull(f, ":1", NULL);
    assert_int_equal(f->n_parts, 3);
    assert_int_equal(f->n_blobs, 1);
    assert_int_equal(fx_count(f->root, "partial"), 0);
    drop_all(f);
    leave(f, 0, f->l[0].blob.len / 3, 1); /* wrong bytes: found by the digest, then all of it */
    must_pull(f, ":1", NULL);
    assert_int_equal(f->n_parts, 4);
    assert_int_equal(f->n_blobs, 3);
    drop_all(f);
    AUTO_FREE char *part = xasprintf("%s/partial/%s", f->root, f->l[0].digest + 7);
    AUTO_FREE char *twin = path_join(f->top, "twin"); /* as while another pull unpacks it */
    leave(f, 0, f->l[0].blob.len / 3, 1);
    assert_int_equal(link(part, twin), 0);
    must_pull(f, ":1", NULL);
    struct stat st;
    assert_int_equal(stat(twin, &st), 0);
    assert_int_equal(st.st_size, f->l[0].blob.len / 3);
    f->n_parts = 4;
    drop_all(f);
    f->ranges = false; /* the registry sends all of it instead */
    leave(f, 0, f->l[0].blob.len / 3, 0);
    must_pull(f, ":1", NULL);
    assert_int_equal(f->n_parts, 4);
    drop_all(f);
    f->ranges = f->wrong_part = true;
    leave(f, 0, f->l[0].blob.len / 3, 0);
    must_fail(f, ":1", NULL, E_CORRUPT, "another part");
    f->wrong_part = false;
    must_pull(f, ":1", NULL);
    drop_all(f);
    f->drop = 1000; /* it never gets on: half of it stays for the next pull, nothing else does */
    f->ranges = false;
    pull(f, ":1", NULL);
    assert_int_equal(f->e.code, E_UNAVAILABLE);
    assert_true(fx_count(f->root, "partial") > 0);
    assert_int_equal(fx_count(f->root, "layers") + fx_count(f->root, "blobs/sha256"), 0);
    f->drop = 0;
    f->ranges = true;
    f->n_parts = 0;
    must_pull(f, ":1", NULL);
    assert_true(f->n_parts > 0);
    assert_int_equal(fx_count(f->root, "partial"), 0);
}

/* ---- other nodes, played here: two trackers, and one holder that gives wrong bytes or none ---- */
enum play { PLAY_FIRST_PIECE, PLAY_ERROR, PLAY_LEAVE };
struct played { struct peers *p; struct stream *s; unsigned nth; bool tracker, first; };
struct peers {
    struct fx *f;
    enum play play;
    struct played v[64];
    unsigned n, asked[2], ends;
    bool gave;
};

static void play_answer(struct played *x, enum image_answer_kind kind, uint64_t size)
{
    struct image_answer a = { .kind = (int)kind, .size = size };
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    if (kind == IMAGE_ANSWER_SOURCES)
        strs_add(&a.nodes, "holder");
    image_frame(&image_answer_rec, &a, &b);
    stream_write(x->s, b.s, b.len);
    image_answer_clear(&a);
}

static void play_tracker(struct played *x, const struct image_ask *a)
{
    struct peers *p = x->p;
    if (a->kind != IMAGE_ASK_WHERE) {
        if (a->kind == IMAGE_ASK_BAD && p->play == PLAY_FIRST_PIECE)
            play_answer(x, IMAGE_ANSWER_REGISTRY, 0);
        return; /* after an error: nothing more is said */
    }
    p->asked[x->nth]++;
    bool big = str_equal(a->digest, p->f->l[2].digest);
    play_answer(x, big && !x->nth ? IMAGE_ANSWER_SOURCES : IMAGE_ANSWER_REGISTRY, 0);
    if (big && !x->nth && p->play == PLAY_ERROR)
        play_answer(x, IMAGE_ANSWER_ERROR, 0);
}

static void play_holder(struct played *x, const struct image_ask *a)
{
    struct peers *p = x->p;
    bool wrong = p->play != PLAY_ERROR && !p->gave && (a->offset == 0 || p->play == PLAY_LEAVE);
    x->first = wrong && a->offset == 0;
    if (wrong) {
        AUTO_FREE char *bytes = xcalloc(1, a->size);
        play_answer(x, IMAGE_ANSWER_BYTES, a->size);
        stream_write(x->s, bytes, a->size);
    } else if (p->gave || p->play == PLAY_ERROR) {
        stream_free(TAKE(x->s));
    }
}

static size_t play_data(void *arg, const char *s, size_t size)
{
    struct played *x = arg;
    struct image_ask a = { 0 };
    struct err e;
    long n = image_unframe(&image_ask_rec, &a, s, size, &e);
    assert_true(n >= 0);
    if (n > 0 && x->tracker)
        play_tracker(x, &a);
    else if (n > 0)
        play_holder(x, &a);
    image_ask_clear(&a);
    return (size_t)n;
}

/* The asker has its piece: with the first one in its hands it gets no other. */
static void play_eof(void *arg)
{
    struct played *x = arg;
    struct peers *p = x->p;
    p->gave |= x->first && p->play == PLAY_FIRST_PIECE;
    stream_free(TAKE(x->s));
    if (!x->tracker && ++p->ends == 2 && p->play == PLAY_LEAVE)
        image_peers_set(p->f->store, NULL); /* all is there, and about to be found wrong */
    for (unsigned i = 0; i < p->n && p->gave; i++)
        if (!p->v[i].tracker)
            stream_free(TAKE(p->v[i].s));
}

static void play_error(void *arg, const struct err *e) { play_eof(arg); }

static struct stream *play_channel(struct peers *p, bool tracker, unsigned nth)
{
    static const struct stream_events events = { .on_data = play_data, .on_eof = play_eof, .on_error = play_error };
    int fd[2];
    assert_true(p->n < ARRAY_N(p->v));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    struct played *x = &p->v[p->n++];
    *x = (struct played){ .p = p, .s = stream_from_fd(p->f->loop, fd[0]), .tracker = tracker, .nth = nth };
    stream_set_events(x->s, &events, x);
    return stream_from_fd(p->f->loop, fd[1]);
}

static struct stream *play_reach_tracker(void *arg, const char *digest, unsigned nth) { return play_channel(arg, true, nth); }
static unsigned play_n_trackers(void *arg) { return 2; }
static void play_changed(void *arg) {}

struct reaching { struct peers *p; image_reached_fn *fn; void *arg; };
static void play_reached(void *arg)
{
    struct reaching *r = arg;
    r->fn(r->arg, play_channel(r->p, false, 0));
    free(r);
}

static void play_reach(void *arg, const char *node, image_reached_fn *fn, void *fn_arg)
{
    struct reaching *r = xnew(struct reaching);
    *r = (struct reaching){ arg, fn, fn_arg };
    loop_defer(((struct peers *)arg)->f->loop, play_reached, r);
}

static void play(struct peers *p, struct fx *f, enum play how)
{
    struct image_peers_hooks hooks = { .arg = p, .tracker = play_reach_tracker, .n_trackers = play_n_trackers,
                                       .reach = play_reach, .held_changed = play_changed };
    *p = (struct peers){ .f = f, .play = how };
    f->ranges = true;
    image_peers_set(f->store, &hooks);
    must_pull(f, ":2", NULL);
    assert_string_equal(f->id, f->config_digest[1]);
    image_peers_set(f->store, NULL);
    for (unsigned i = 0; i < p->n; i++)
        stream_free(p->v[i].s);
}

static void test_wrong_beginning(void **state)
{
    struct fx *f = *state;
    struct peers p;
    if (!f->store)
        skip();
    play(&p, f, PLAY_FIRST_PIECE);
    assert_true(p.gave);
    assert_int_equal(f->n_parts, 1); /* the end of it, after which it had to be had anew */
    assert_int_equal(f->n_blobs, 3);
}

static void test_tracker_error(void **state)
{
    struct fx *f = *state;
    struct peers p;
    if (!f->store)
        skip();
    play(&p, f, PLAY_ERROR);
    assert_true(p.asked[1] >= 1); /* the next one, when the holder gave nothing */
}

static void test_left_while_spoilt(void **state)
{
    struct fx *f = *state;
    struct peers p;
    if (!f->store)
        skip();
    play(&p, f, PLAY_LEAVE);
    assert_true(p.ends >= 2);
    assert_int_equal(f->n_blobs, 2);
}

int main(void)
{
    memset(third, '3', sizeof third - 1);
    setenv("no_proxy", "*", 1); /* the loopback is not reached through anybody's proxy */
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ok, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reuse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_index, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mirror, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_beginning, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tracker_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_left_while_spoilt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_login, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redirect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_https_only, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
