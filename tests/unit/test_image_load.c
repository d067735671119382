/* Loading and importing images, and the ways a hostile archive tries to get out: what is loaded is right to
 * the last attribute, what is refused leaves nothing, neither in the store nor beside it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "image_fixture.h"
#include <shoal/loop.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

struct fx {
    char top[64], *root;
    struct loop *loop;
    struct image_store *store;
    struct strs loaded;
    struct err e;
    bool ended;
};

static int setup(void **state)
{
    struct fx *f = xnew(struct fx);
    struct err e = { 0 };
    snprintf(f->top, sizeof f->top, "/tmp/shoal-image-XXXXXX");
    if (geteuid() != 0) {
        print_message("skipped: unpacking layers with owners and devices needs root\n");
        *state = f;
        return 0;
    }
    assert_non_null(mkdtemp(f->top));
    f->root = path_join(f->top, "images");
    f->loop = loop_new();
    struct image_store_config cfg = { .root = f->root };
    if (image_store_open(&f->store, f->loop, &cfg, &e) < 0)
        fail_msg("%s", e.text);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fx *f = *state;
    image_store_close(f->store);
    if (f->loop) {
        loop_free(f->loop);
        assert_int_equal(file_remove_tree(f->top, NULL), 0);
    }
    strs_clear(&f->loaded);
    free(f->root);
    free(f);
    return 0;
}

static void on_done(void *arg, const struct strs *loaded, const struct err *e)
{
    struct fx *f = arg;
    for (uint32_t i = 0; loaded && i < loaded->n; i++)
        strs_add(&f->loaded, loaded->v[i]);
    if (e)
        f->e = *e;
    f->ended = true;
    loop_stop(f->loop);
}

static void stop_loop(void *arg) { loop_stop(arg); }
static void nothing(void *arg) {}

/* Ends when all jobs of the bulk lane queued so far have. */
static void settle(struct fx *f)
{
    assert_int_equal(loop_work(f->loop, LANE_BULK, nothing, stop_loop, f->loop), 0);
    loop_run(f->loop);
}

static void feed(struct fx *f, const struct sb *b, const struct image_import *import)
{
    struct image_input *in = image_input_new(f->store, import);
    strs_clear(&f->loaded);
    f->e = (struct err){ 0 };
    f->ended = false;
    for (size_t at = 0; at < b->len; at += 1000)
        assert_int_equal(image_input_feed(in, b->s + at, MIN((size_t)1000, b->len - at), NULL), 0);
    image_input_finish(in, on_done, f);
    loop_run(f->loop);
    assert_true(f->ended);
    settle(f);
    assert_int_equal(fx_count(f->root, "tmp"), 0);
}

/* docker save of the given layers; config_name "" takes the right one. */
static void save_archive(struct sb *ret, const struct fx_layer *l, unsigned n, const char *tag, const char *config_name,
                         char filter)
{
    struct fx_tar t;
    AUTO_FREE char *config = fx_config(l, n);
    char id[80], name[96];
    AUTO_SB struct sb m;
    sb_init(&m, 0);
    fx_digest(id, config, strlen(config));
    snprintf(name, sizeof name, "%.64s.json", config_name[0] ? config_name : id + 7);
    fx_tar_begin(&t, filter);
    sb_printf(&m, "[{\"Config\":\"%s\",\"RepoTags\":[\"%s\"],\"Layers\":[", name, tag);
    for (unsigned i = 0; i < n; i++) {
        char layer[32];
        snprintf(layer, sizeof layer, "%u/layer.tar", i);
        sb_printf(&m, "%s\"%s\"", i ? "," : "", layer);
        fx_tar_file(&t, layer, l[i].blob.s, l[i].blob.len);
    }
    sb_str(&m, "]}]");
    fx_tar_file(&t, name, config, strlen(config));
    fx_tar_file(&t, "manifest.json", m.s, m.len);
    fx_tar_end(&t);
    *ret = t.out;
}

static const struct fx_entry base_layer[] = {
    { .type = 'd', .path = "./", .mode = 0711 },
    { .type = 'd', .path = "etc/", .mode = 0750, .uid = 7 },
    { .type = 'f', .path = "etc/passwd", .data = "root", .mode = 0640, .uid = 5, .xattr = "user.note" },
    { .type = 'f', .path = "etc/evil", .data = "x", .xattr = "trusted.overlay.redirect" },
    { .type = 'f', .path = "bin/su", .data = "elf", .mode = 04755 },
    { .type = 'h', .path = "bin/sudo", .data = "bin/su" },
    { .type = 'h', .path = "bin/abs", .data = "/bin/su" },
    { .type = 'l', .path = "lib", .data = "usr/lib" },
    { .type = 'c', .path = "dev/null", .major = 1, .minor = 3, .mode = 0666 },
    { .type = 'p', .path = "run/pipe" },
    { .type = 'f', .path = "na\xc3\xafve", .data = "utf8" },
    { .type = 'd', .path = "locked/", .mode = 0555 },
    { .type = 'f', .path = "locked/in", .data = "in" },
};
static const struct fx_entry upper_layer[] = {
    { .type = 'f', .path = "etc/.wh.passwd" },
    { .type = 'd', .path = "locked" },
    { .type = 'f', .path = "locked/.wh..wh..opq" },
    { .type = 'f', .path = ".wh..wh.plnk", .data = "aufs" },
    { .type = 'f', .path = ".wh.bin" },
    { .type = 'd', .path = "bin/" },
    { .type = 'f', .path = "bin/new", .data = "new" },
};

static struct stat stat_in(const char *dir, const char *below)
{
    struct stat st = { 0 };
    AUTO_FREE char *path = path_join(dir, below);
    if (lstat(path, &st) < 0)
        fail_msg("%s is not there", path);
    return st;
}

static bool has_xattr(const char *dir, const char *below, const char *name)
{
    char value[8];
    AUTO_FREE char *path = path_join(dir, below);
    return lgetxattr(path, name, value, sizeof value) == 1;
}

static void check_base(const char *dir)
{
    char target[64] = "";
    AUTO_FREE char *passwd = fx_text(dir, "etc/passwd");
    AUTO_FREE char *naive = fx_text(dir, "na\xc3\xafve");
    AUTO_FREE char *link = path_join(dir, "lib");
    struct stat st = stat_in(dir, "etc/passwd");
    assert_string_equal(passwd, "root");
    assert_string_equal(naive, "utf8");
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(st.st_uid, 5);
    assert_int_equal(st.st_gid, 5);
    assert_int_equal(st.st_mtime, 1000000000);
    assert_true(has_xattr(dir, "etc/passwd", "user.note"));
    assert_false(has_xattr(dir, "etc/evil", "trusted.overlay.redirect"));
    st = stat_in(dir, "etc");
    assert_int_equal(st.st_mode, S_IFDIR | 0750);
    assert_int_equal(st.st_uid, 7);
    assert_int_equal(st.st_mtime, 1000000000);
    assert_int_equal(stat_in(dir, "").st_mode, S_IFDIR | 0711);
    assert_int_equal(stat_in(dir, "bin/su").st_mode, S_IFREG | 04755);
    assert_int_equal(stat_in(dir, "bin/su").st_nlink, 3);
    assert_int_equal(stat_in(dir, "bin/su").st_ino, stat_in(dir, "bin/sudo").st_ino);
    assert_int_equal(stat_in(dir, "bin").st_mode & 0777, 0755);
    assert_int_equal(readlink(link, target, sizeof target - 1), 7);
    assert_string_equal(target, "usr/lib");
    st = stat_in(dir, "dev/null");
    assert_int_equal(st.st_mode, S_IFCHR | 0666);
    assert_true(st.st_rdev == makedev(1, 3));
    assert_int_equal(stat_in(dir, "run/pipe").st_mode & S_IFMT, S_IFIFO);
    assert_int_equal(stat_in(dir, "locked").st_mode, S_IFDIR | 0555);
}

static void check_upper(const char *dir)
{
    struct stat st = stat_in(dir, "etc/passwd");
    assert_true(S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0));
    assert_true(has_xattr(dir, "locked", "trusted.overlay.opaque"));
    assert_true(has_xattr(dir, "bin", "trusted.overlay.opaque")); /* whited out, then made anew */
    AUTO_FREE char *fresh = fx_text(dir, "bin/new");
    assert_string_equal(fresh, "new");
    assert_int_equal(fx_count(dir, ""), 3);
}

static void make_two(struct fx_layer l[2], char filter)
{
    fx_layer_make(&l[0], base_layer, ARRAY_N(base_layer), filter);
    fx_layer_make(&l[1], upper_layer, ARRAY_N(upper_layer), filter);
}

static void test_save_archive(void **state)
{
    struct fx *f = *state;
    struct fx_layer l[2];
    static const char filters[] = { 0, 'z', 's' };
    if (!f->store)
        skip();
    for (size_t i = 0; i < sizeof filters; i++) {
        struct sb b;
        struct strs gone = { 0 }, deleted = { 0 };
        make_two(l, filters[i]);
        save_archive(&b, l, 2, "app:1", "", filters[i]);
        feed(f, &b, NULL);
        if (f->e.code)
            fail_msg("%s", f->e.text);
        assert_int_equal(f->loaded.n, 1);
        assert_string_equal(f->loaded.v[0], "app:1");
        const struct image *im = image_find(f->store, "app:1");
        assert_non_null(im);
        assert_int_equal(im->layer_dirs.n, 2);
        check_upper(im->layer_dirs.v[0]);
        check_base(im->layer_dirs.v[1]);
        assert_string_equal(im->config.cmd.v[0], "/bin/x");
        assert_string_equal(im->config.health_test.v[1], "t");
        assert_int_equal(im->config.health_interval, 1000);
        assert_string_equal(im->config.exposed_ports.v[0], "80/tcp");
        assert_int_equal(im->size_bytes, 4 + 1 + 3 + 4 + 2 + 3);
        assert_int_equal(im->created_ns / SEC_NS, 1704164645);
        assert_int_equal(image_remove(f->store, "app:1", false, NULL, NULL, &gone, &deleted, NULL), 0);
        assert_int_equal(gone.n, 1);
        assert_int_equal(deleted.n, 3);
        strs_clear(&gone);
        strs_clear(&deleted);
        settle(f);
        assert_int_equal(fx_count(f->root, "layers"), 0);
        assert_int_equal(fx_count(f->root, "blobs/sha256"), 0);
        assert_int_equal(fx_count(f->root, "tmp"), 0);
        sb_done(&b);
        sb_done(&l[0].blob);
        sb_done(&l[1].blob);
    }
}

/* index.json, oci-layout, blobs/; bad: which digest is wrong ('l'ayer, 'c'onfig, 'm'anifest, 0: none). */
static void oci_archive(struct sb *ret, const struct fx_layer *l, const char *name, char bad)
{
    struct fx_tar t;
    AUTO_FREE char *config = fx_config(l, 1);
    AUTO_SB struct sb m, index;
    char id[80], digest[80], path[128];
    sb_init(&m, 0);
    sb_init(&index, 0);
    fx_digest(id, config, strlen(config));
    sb_printf(&m, "{\"schemaVersion\":2,\"config\":{\"digest\":\"%s\",\"size\":%zu},\"layers\":[{\"digest\":\"%s\",\"size\":%zu}]}",
              id, strlen(config), l->digest, l->blob.len);
    fx_digest(digest, m.s, m.len);
    sb_printf(&index, "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
                      "\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"io.containerd.image.name\":\"%s\"}}]}",
              digest, m.len, name);
    fx_tar_begin(&t, 0);
    fx_tar_file(&t, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", 30);
    fx_tar_file(&t, "index.json", index.s, index.len);
    snprintf(path, sizeof path, "blobs/sha256/%s", digest + 7);
    if (bad == 'm')
        sb_str(&m, " ");
    fx_tar_file(&t, path, m.s, m.len);
    snprintf(path, sizeof path, "blobs/sha256/%s", id + 7);
    if (bad == 'c')
        config[strlen(config) - 1] = ' ';
    fx_tar_file(&t, path, config, strlen(config));
    snprintf(path, sizeof path, "./blobs/sha256/%s", l->digest + 7);
    if (bad == 'l')
        l->blob.s[600] ^= 1;
    fx_tar_file(&t, path, l->blob.s, l->blob.len);
    fx_tar_end(&t);
    *ret = t.out;
}

static void test_oci_layout(void **state)
{
    struct fx *f = *state;
    static const char bads[] = { 'm', 'c', 'l', 0 };
    if (!f->store)
        skip();
    for (size_t i = 0; i < sizeof bads; i++) {
        struct fx_layer l;
        struct sb b;
        fx_layer_make(&l, base_layer, ARRAY_N(base_layer), 'z');
        oci_archive(&b, &l, "reg.test:5000/a/b:2", bads[i]);
        feed(f, &b, NULL);
        if (bads[i]) {
            assert_int_equal(f->e.code, E_CORRUPT);
            assert_non_null(strstr(f->e.text, "digest mismatch"));
            assert_int_equal(fx_count(f->root, "layers") + fx_count(f->root, "blobs/sha256"), 0);
            assert_null(image_next(f->store, NULL));
        } else {
            if (f->e.code)
                fail_msg("%s", f->e.text);
            assert_string_equal(f->loaded.v[0], "reg.test:5000/a/b:2");
            check_base(image_find(f->store, "reg.test:5000/a/b:2")->layer_dirs.v[0]);
        }
        sb_done(&b);
        sb_done(&l.blob);
    }
}

/* ---- hostile layers ---- */

static const struct hostile {
    const char *name;
    int code;             /* 0: harmless inside, must only not get out */
    const char *says;
    struct fx_entry v[4];
    const char *inside;   /* code 0: where it must have ended up */
} hostiles[] = {
    { "dotdot", E_INVALID, "climbs out", { { .type = 'f', .path = "../canary", .data = "evil" } }, NULL },
    { "dotdot deep", E_INVALID, "climbs out", { { .type = 'f', .path = "a/../../../canary", .data = "evil" } }, NULL },
    { "dotdot folder", E_INVALID, "climbs out", { { .type = 'd', .path = "..", .mode = 0777 } }, NULL },
    { "absolute", 0, NULL, { { .type = 'f', .path = "/canary", .data = "evil" } }, "canary" },
    { "link up, file through it", 0, NULL,
      { { .type = 'l', .path = "out", .data = "../../../../../.." }, { .type = 'f', .path = "out/canary", .data = "evil" } },
      "canary" },
    { "link to /, file through it", 0, NULL,
      { { .type = 'l', .path = "out", .data = "/" }, { .type = 'f', .path = "out/canary", .data = "evil" } }, "canary" },
    { "link to a host folder", E_EXISTS, "out",
      { { .type = 'l', .path = "out", .data = "/tmp" }, { .type = 'f', .path = "out/shoal-canary", .data = "evil" } }, NULL },
    { "link loop", E_IO, "out",
      { { .type = 'l', .path = "out", .data = "out" }, { .type = 'f', .path = "out/x", .data = "evil" } }, NULL },
    { "magic link", E_EXISTS, "out",
      { { .type = 'l', .path = "out", .data = "/proc/self/cwd" }, { .type = 'f', .path = "out/x", .data = "evil" } }, NULL },
    { "file over a link", 0, NULL,
      { { .type = 'l', .path = "x", .data = "/tmp/shoal-canary" }, { .type = 'f', .path = "x", .data = "evil" } }, "x" },
    { "hard link up", E_INVALID, "climbs out", { { .type = 'h', .path = "x", .data = "../../../../etc/hostname" } }, NULL },
    { "hard link absolute", E_NOT_FOUND, "hard link", { { .type = 'h', .path = "x", .data = "/etc/hostname" } }, NULL },
    { "hard link through a link", E_NOT_FOUND, "hard link",
      { { .type = 'l', .path = "out", .data = "/etc" }, { .type = 'h', .path = "x", .data = "out/hostname" } }, NULL },
    { "whiteout of ..", E_INVALID, "names no file", { { .type = 'f', .path = "a/.wh..." } }, NULL },
    { "whiteout of .", E_INVALID, "names no file", { { .type = 'f', .path = "a/.wh.." } }, NULL },
    { "whiteout of nothing", E_INVALID, "names no file", { { .type = 'f', .path = "a/.wh." } }, NULL },
    { "whiteout up", E_INVALID, "climbs out", { { .type = 'f', .path = "../.wh.canary" } }, NULL },
    { "opaque up", E_INVALID, "climbs out", { { .type = 'f', .path = "../.wh..wh..opq" } }, NULL },
    { "device 0:0", E_INVALID, "0:0", { { .type = 'c', .path = "etc", .major = 0, .minor = 0 } }, NULL },
};

static void load_one(struct fx *f, const struct fx_entry *v, size_t n)
{
    struct fx_layer l;
    struct sb b;
    fx_layer_make(&l, v, n, 'z');
    save_archive(&b, &l, 1, "evil:1", "", 0);
    feed(f, &b, NULL);
    sb_done(&b);
    sb_done(&l.blob);
}

static void check_outside(struct fx *f)
{
    AUTO_FREE char *canary = fx_text(f->top, "canary");
    AUTO_FREE char *index = path_join(f->root, "images.json");
    assert_string_equal(canary, "mine");
    assert_int_equal(fx_count(f->top, ""), 2); /* canary, images */
    assert_int_equal(fx_count(f->root, ""), file_exists(index) ? 5 : 4); /* blobs, layers, partial, tmp */
    assert_false(file_exists("/canary"));
    assert_false(file_exists("/tmp/canary"));
    assert_false(file_exists("/tmp/shoal-canary"));
}

static void test_hostile(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    AUTO_FREE char *canary = path_join(f->top, "canary");
    assert_int_equal(file_write_atomic(canary, "mine", 4, 0644, NULL), 0);
    for (size_t i = 0; i < ARRAY_N(hostiles); i++) {
        const struct hostile *h = &hostiles[i];
        size_t n = 0;
        while (n < ARRAY_N(h->v) && h->v[n].path)
            n++;
        load_one(f, h->v, n);
        if (f->e.code != h->code)
            fail_msg("%s: code %d: %s", h->name, f->e.code, f->e.text);
        check_outside(f);
        if (h->code) {
            if (!strstr(f->e.text, h->says))
                fail_msg("%s: %s", h->name, f->e.text);
            assert_null(image_find(f->store, "evil:1"));
            assert_int_equal(fx_count(f->root, "layers") + fx_count(f->root, "blobs/sha256"), 0);
            continue;
        }
        struct strs gone = { 0 }, deleted = { 0 };
        AUTO_FREE char *text = fx_text(image_find(f->store, "evil:1")->layer_dirs.v[0], h->inside);
        assert_string_equal(text, "evil");
        assert_int_equal(image_remove(f->store, "evil:1", false, NULL, NULL, &gone, &deleted, NULL), 0);
        strs_clear(&gone);
        strs_clear(&deleted);
        settle(f);
    }
}

static void test_long_names(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    AUTO_SB struct sb path;
    sb_init(&path, 0);
    for (unsigned i = 0; i < 300; i++)
        sb_str(&path, "d/");
    sb_str(&path, "x");
    struct fx_entry deep = { .type = 'f', .path = path.s, .data = "x" };
    load_one(f, &deep, 1);
    assert_int_equal(f->e.code, E_INVALID);
    sb_reset(&path);
    for (unsigned i = 0; i < 300; i++)
        sb_char(&path, 'n');
    struct fx_entry wide = { .type = 'f', .path = path.s, .data = "x" };
    load_one(f, &wide, 1);
    assert_int_equal(f->e.code, E_INVALID);
}

static void test_broken(void **state)
{
    struct fx *f = *state;
    struct fx_layer l[2];
    struct sb b, cut;
    if (!f->store)
        skip();
    make_two(l, 'z');
    save_archive(&b, l, 2, "app:1", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 0);
    feed(f, &b, NULL);
    assert_int_equal(f->e.code, E_CORRUPT); /* the configuration's name is not its digest */
    sb_done(&b);
    char digit = l[1].diff_id[10];
    l[1].diff_id[10] = digit == '0' ? '1' : '0';
    save_archive(&b, l, 2, "app:1", "", 0);
    feed(f, &b, NULL);
    assert_int_equal(f->e.code, E_CORRUPT);
    assert_int_equal(fx_count(f->root, "layers"), 0); /* the good lower one has gone again */
    sb_done(&b);
    l[1].diff_id[10] = digit;
    save_archive(&b, l, 2, "app:1", "", 0);
    for (size_t keep = 1; keep < b.len; keep += 611) {
        cut = b;
        cut.len = keep;
        feed(f, &cut, NULL);
        if (f->e.code == 0)
            assert_true(keep > b.len - 1024); /* only the end mark is missing */
        else
            assert_null(image_next(f->store, NULL));
    }
    sb_done(&b);
    sb_done(&l[0].blob);
    sb_done(&l[1].blob);
}

static void test_bomb(void **state)
{
    struct fx *f = *state;
    struct fx_tar t;
    char digest[80];
    if (!f->store)
        skip();
    /* A file that claims eight exbibytes as a hole and has no bytes: refused by its header. */
    fx_tar_begin(&t, 0);
    fx_tar_file(&t, "x", "", 0);
    fx_tar_end(&t);
    memcpy(t.out.s + 124, "\x80\0\0\0\x7f\0\0\0\0\0\0\0", 12);
    unsigned sum = 0;
    memset(t.out.s + 148, ' ', 8);
    for (unsigned i = 0; i < 512; i++)
        sum += (unsigned char)t.out.s[i];
    snprintf(t.out.s + 148, 8, "%06o", sum);
    fx_digest(digest, t.out.s, t.out.len);
    struct image_import import = { .ref = "bomb:1" };
    feed(f, &t.out, &import);
    assert_true(f->e.code == E_TOO_BIG || f->e.code == E_CORRUPT);
    assert_null(image_next(f->store, NULL));
    assert_int_equal(fx_count(f->root, "layers"), 0);
    sb_done(&t.out);
}

static void test_import(void **state)
{
    struct fx *f = *state;
    struct fx_layer l;
    static const char *const changes[] = { "CMD [\"/bin/sh\", \"-c\", \"a b\"]", "entrypoint run me", "ENV A=1 B=\"x y\"",
                                           "ENV C old form", "ENV A=2", "EXPOSE 80 53/udp", "WORKDIR /srv", "WORKDIR sub",
                                           "USER 7:8", "LABEL k=v", "STOPSIGNAL SIGQUIT", "VOLUME [\"/data\"]", NULL };
    static const char *const bads[] = { "RUN ls", "CMD", "", "ENV", "ENV =x", "EXPOSE 0", "EXPOSE 80/icmp", "LABEL 'a=b",
                                        "VOLUME /a/../../etc" };
    struct image_import import = { .ref = "root:1", .changes = changes };
    if (!f->store)
        skip();
    fx_layer_make(&l, base_layer, ARRAY_N(base_layer), 's');
    for (size_t i = 0; i < ARRAY_N(bads); i++) {
        const char *one[] = { bads[i], NULL };
        struct image_import bad = { .ref = "root:1", .changes = one };
        feed(f, &l.blob, &bad);
        if (f->e.code != E_INVALID)
            fail_msg("%s: code %d: %s", bads[i], f->e.code, f->e.text);
        assert_int_equal(fx_count(f->root, "layers"), 0);
    }
    feed(f, &l.blob, &import);
    if (f->e.code)
        fail_msg("%s", f->e.text);
    assert_string_equal(f->loaded.v[0], "root:1");
    const struct image *im = image_find(f->store, "root:1");
    check_base(im->layer_dirs.v[0]);
    assert_string_equal(im->config.diff_ids.v[0], l.diff_id);
    assert_string_equal(im->config.cmd.v[2], "a b");
    assert_string_equal(im->config.entrypoint.v[2], "run me");
    assert_int_equal(im->config.env.n, 3);
    assert_string_equal(im->config.env.v[0], "A=2");
    assert_string_equal(im->config.env.v[1], "B=x y");
    assert_string_equal(im->config.env.v[2], "C=old form");
    assert_true(strs_has(&im->config.exposed_ports, "53/udp"));
    assert_string_equal(im->config.working_dir, "/srv/sub");
    assert_string_equal(im->config.user, "7:8");
    assert_string_equal(labels_get(&im->config.labels, "k"), "v");
    assert_string_equal(im->config.stop_signal, "SIGQUIT");
    assert_string_equal(im->config.volumes.v[0], "/data");
    sb_done(&l.blob);
}

static bool is_used(void *arg, const char *id) { return *(bool *)arg; }

static void test_store(void **state)
{
    struct fx *f = *state;
    struct fx_layer l[2];
    struct sb b;
    struct strs gone = { 0 }, deleted = { 0 };
    struct err e = { 0 };
    if (!f->store)
        skip();
    make_two(l, 0);
    save_archive(&b, l, 2, "app:1", "", 0);
    feed(f, &b, NULL);
    sb_done(&b);
    save_archive(&b, l, 1, "small", "", 0);
    feed(f, &b, NULL);
    sb_done(&b);
    assert_string_equal(f->loaded.v[0], "small:latest");
    const struct image *app = image_find(f->store, "app:1"), *small = image_find(f->store, "docker.io/library/small");
    assert_non_null(small);
    assert_ptr_not_equal(app, small);
    assert_ptr_equal(image_next(f->store, NULL), app);
    assert_ptr_equal(image_next(f->store, app), small);
    assert_null(image_next(f->store, small));
    AUTO_FREE char *id = xstrdup(app->id);
    AUTO_FREE char *prefix = xstrndup(id + 7, 12);
    AUTO_FREE char *short_prefix = xstrndup(id + 7, 3);
    assert_ptr_equal(image_find(f->store, id), app);
    assert_ptr_equal(image_find(f->store, prefix), app);
    assert_null(image_find(f->store, short_prefix));
    assert_null(image_find(f->store, "app:2"));
    assert_null(image_find(f->store, "../x"));
    assert_int_equal(image_tag(f->store, "nothing", "x:1", &e), -E_NOT_FOUND);
    assert_int_equal(image_tag(f->store, "app:1", "X:1", &e), -E_INVALID);
    assert_int_equal(image_tag(f->store, prefix, "reg.test/app:2", &e), 0);
    assert_int_equal(app->repo_tags.n, 2);

    /* Everything survives a restart, and what the killed process left in tmp does not. */
    AUTO_FREE char *rest = path_join(f->root, "tmp/layer-killed/etc");
    assert_int_equal(file_mkdirs(rest, 0755, NULL), 0);
    image_store_close(f->store);
    struct image_store_config cfg = { .root = f->root };
    assert_int_equal(image_store_open(&f->store, f->loop, &cfg, &e), 0);
    assert_int_equal(fx_count(f->root, "tmp"), 0);
    app = image_find(f->store, "reg.test/app:2");
    assert_string_equal(app->id, id);
    check_base(app->layer_dirs.v[1]);

    bool used = true;
    assert_int_equal(image_remove(f->store, prefix, false, is_used, &used, &gone, &deleted, &e), -E_CONFLICT);
    assert_non_null(strstr(e.text, "force"));
    assert_int_equal(image_remove(f->store, prefix, true, is_used, &used, &gone, &deleted, &e), -E_CONFLICT);
    assert_int_equal(image_remove(f->store, "app:1", false, is_used, &used, &gone, &deleted, &e), 0);
    assert_int_equal(gone.n, 1);
    assert_int_equal(deleted.n, 0);
    assert_int_equal(image_remove(f->store, "reg.test/app:2", false, is_used, &used, &gone, &deleted, &e), -E_CONFLICT);
    used = false;
    assert_int_equal(image_remove(f->store, "reg.test/app:2", false, is_used, &used, &gone, &deleted, &e), 0);
    assert_int_equal(deleted.n, 2); /* its id and the upper layer; the lower one is shared */
    assert_string_equal(deleted.v[0], id);
    assert_string_equal(deleted.v[1], l[1].diff_id);
    settle(f);
    small = image_find(f->store, "small");
    check_base(small->layer_dirs.v[0]);
    assert_int_equal(fx_count(f->root, "layers"), 3); /* the folder, its size, and which blob it came as */
    assert_int_equal(fx_count(f->root, "blobs/sha256"), 2); /* configuration and layer */
    used = true; /* the last name of an image in use goes by force, the image stays */
    strs_clear(&gone);
    strs_clear(&deleted);
    assert_int_equal(image_remove(f->store, "small", true, is_used, &used, &gone, &deleted, &e), 0);
    assert_int_equal(gone.n, 1);
    assert_int_equal(deleted.n, 0);
    small = image_next(f->store, NULL);
    assert_int_equal(small->repo_tags.n, 0);
    assert_true(image_store_usage(f->store) > 0);

    /* A tag moves; the image it leaves stays without one. */
    save_archive(&b, l, 2, "small", "", 0);
    feed(f, &b, NULL);
    sb_done(&b);
    assert_string_equal(image_find(f->store, "small")->id, id);
    assert_int_equal(image_next(f->store, NULL)->repo_tags.n, 0);
    strs_clear(&gone);
    strs_clear(&deleted);
    sb_done(&l[0].blob);
    sb_done(&l[1].blob);
}

/* Takes the place of libc's: what the store waits for is counted. */
static unsigned n_syncs, n_fsyncs;
int syncfs(int fd)
{
    n_syncs++;
    return (int)syscall(SYS_syncfs, fd);
}
int fsync(int fd)
{
    n_fsyncs++;
    return (int)syscall(SYS_fsync, fd);
}

static void put_note(struct fx *f, const char *diff_id, const char *text)
{
    AUTO_FREE char *path = xasprintf("%s/layers/%s.size", f->root, diff_id + 7);
    assert_int_equal(file_write_volatile(path, text, strlen(text), 0600, NULL), 0);
}

static char *get_note(struct fx *f, const char *diff_id)
{
    AUTO_FREE char *path = xasprintf("%s/layers/%s.size", f->root, diff_id + 7);
    char *text;
    size_t n;
    assert_int_equal(file_read(path, 200, &text, &n, NULL), 0);
    return text;
}

static void reopen(struct fx *f)
{
    struct image_store_config cfg = { .root = f->root };
    image_store_close(f->store);
    assert_int_equal(image_store_open(&f->store, f->loop, &cfg, NULL), 0);
    settle(f);
}

/* A layer counts as there after a reboot only when it was known to be on the disk; a note that is empty, of another
 * boot or no note at all means that the image is to be had again, never half of it. */
static void test_power_cut(void **state)
{
    struct fx *f = *state;
    static const char *const bad[] = { "", "boot 00000000-0000-0000-0000-000000000000 4\n", "nonsense" };
    struct fx_layer l[2];
    struct sb b;
    if (!f->store)
        skip();
    fx_layer_make(&l[0], base_layer, ARRAY_N(base_layer), 'z');
    fx_layer_make(&l[1], upper_layer, ARRAY_N(upper_layer), 0);
    save_archive(&b, l, 2, "app:1", "", 0);
    feed(f, &b, NULL); /* settles as well */
    AUTO_FREE char *ok = get_note(f, l[1].diff_id);
    assert_non_null(strstr(ok, " ok"));
    reopen(f);
    assert_non_null(image_find(f->store, "app:1"));
    AUTO_FREE char *boot = NULL;
    size_t n;
    assert_int_equal(file_read("/proc/sys/kernel/random/boot_id", 100, &boot, &n, NULL), 0);
    AUTO_FREE char *mine = xasprintf("boot %.*s 4\n", (int)strcspn(boot, "\n"), boot);
    put_note(f, l[1].diff_id, mine); /* of this boot: the daemon alone was killed */
    reopen(f);
    assert_non_null(image_find(f->store, "app:1"));
    AUTO_FREE char *settled = get_note(f, l[1].diff_id);
    assert_string_equal(settled, "4 ok\n");
    for (size_t i = 0; i < ARRAY_N(bad); i++) {
        put_note(f, l[1].diff_id, bad[i]);
        reopen(f);
        assert_null(image_find(f->store, "app:1"));
        assert_int_equal(fx_count(f->root, "layers"), 0); /* nor what only it used */
        assert_int_equal(fx_count(f->root, "blobs/sha256"), 0);
        assert_int_equal(fx_count(f->root, "tmp"), 0);
        feed(f, &b, NULL);
        check_base(image_find(f->store, "app:1")->layer_dirs.v[1]);
    }
    sb_done(&b);
    sb_done(&l[0].blob);
    sb_done(&l[1].blob);
}

static ino_t config_inode(struct fx *f, const char *name)
{
    AUTO_FREE char *path = xasprintf("%s/blobs/sha256/%s", f->root, image_find(f->store, name)->id + 7);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

/* What is on the disk is not written anew; what is new gets there though no layer is; what takes the place of an old
 * blob is there before that one goes. */
static void test_settled(void **state)
{
    struct fx *f = *state;
    struct fx_layer l[2], packed;
    struct sb b;
    if (!f->store)
        skip();
    fx_layer_make(&l[0], base_layer, ARRAY_N(base_layer), 0);
    fx_layer_make(&l[1], upper_layer, ARRAY_N(upper_layer), 0);
    fx_layer_make(&packed, base_layer, ARRAY_N(base_layer), 'z');
    save_archive(&b, l, 2, "app:1", "", 0);
    feed(f, &b, NULL);
    ino_t before = config_inode(f, "app:1");
    feed(f, &b, NULL);
    assert_true(config_inode(f, "app:1") == before);
    AUTO_FREE char *path = xasprintf("%s/blobs/sha256/%s", f->root, image_find(f->store, "app:1")->id + 7);
    assert_int_equal(file_write_volatile(path, "{}", 2, 0600, NULL), 0);
    feed(f, &b, NULL); /* a damaged one is */
    reopen(f);
    assert_non_null(image_find(f->store, "app:1"));
    sb_done(&b);
    save_archive(&b, l, 1, "small:1", "", 0);
    n_syncs = 0;
    feed(f, &b, NULL);
    assert_int_equal(n_syncs, 1);
    static const char *const none[] = { NULL };
    struct image_import import = { .ref = "root:1", .changes = none };
    n_fsyncs = 0;
    feed(f, &l[0].blob, &import);
    unsigned plain = n_fsyncs;
    n_fsyncs = 0;
    feed(f, &packed.blob, &import);
    assert_true(n_fsyncs > plain);
    sb_done(&b);
    sb_done(&l[0].blob);
    sb_done(&l[1].blob);
    sb_done(&packed.blob);
}

/* All of a save, in odd pieces. */
static void save_all(struct fx *f, const char *a, const char *b, struct sb *ret)
{
    struct strs names = { 0 };
    struct image_save *sv;
    struct err e;
    char buf[777];
    long n;
    strs_add(&names, a);
    if (b)
        strs_add(&names, b);
    assert_int_equal(image_save_new(&sv, f->store, &names, &e), 0);
    sb_init(ret, 0);
    while ((n = image_save_read(sv, buf, sizeof buf, &e)) > 0)
        sb_add(ret, buf, (size_t)n);
    assert_int_equal(n, 0);
    image_save_free(sv);
    strs_clear(&names);
}

/* What is saved loads again as what it was, and saves to the same bytes. */
static void test_save(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    struct fx_layer l[2];
    struct sb in, first, second;
    struct strs gone = { 0 }, deleted = { 0 }, none = { 0 };
    struct image_save *sv;
    struct err e;
    fx_layer_make(&l[0], base_layer, ARRAY_N(base_layer), 'z');
    fx_layer_make(&l[1], upper_layer, ARRAY_N(upper_layer), 's');
    save_archive(&in, l, 2, "app:1", "", 0);
    feed(f, &in, NULL);
    sb_done(&in);
    save_archive(&in, l, 1, "reg.test/small:2", "", 'z');
    feed(f, &in, NULL);
    sb_done(&in);
    assert_int_equal(image_tag(f->store, "app:1", "app:also", &e), 0);
    AUTO_FREE char *id = xstrdup(image_find(f->store, "app:1")->id);
    assert_int_equal(image_save_new(&sv, f->store, &none, &e), -E_INVALID);
    strs_add(&none, "nothing:1");
    assert_int_equal(image_save_new(&sv, f->store, &none, &e), -E_NOT_FOUND);
    save_all(f, "app", "reg.test/small:2", &first); /* "app": both of its tags */
    while (image_next(f->store, NULL))
        assert_int_equal(image_remove(f->store, image_next(f->store, NULL)->id, true, NULL, NULL, &gone, &deleted, &e), 0);
    settle(f);
    assert_int_equal(fx_count(f->root, "blobs/sha256"), 0);
    feed(f, &first, NULL);
    assert_int_equal(f->loaded.n, 3);
    assert_string_equal(image_find(f->store, "app:1")->id, id);
    assert_string_equal(image_find(f->store, "app:also")->id, id);
    assert_non_null(image_find(f->store, "reg.test/small:2"));
    assert_non_null(image_find(f->store, "app:1")->manifest);
    check_base(image_find(f->store, "app:1")->layer_dirs.v[1]);
    save_all(f, "app", "reg.test/small:2", &second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.s, second.s, first.len);
    /* By id: no tag. A blob that is gone is said. */
    sb_done(&second);
    save_all(f, id, NULL, &second);
    assert_non_null(memmem(second.s, second.len, "\"RepoTags\":null", 15));
    AUTO_FREE char *blob = xasprintf("%s/blobs/sha256/%s", f->root, l[0].digest + 7);
    assert_int_equal(unlink(blob), 0);
    strs_clear(&none);
    strs_add(&none, "app:1");
    assert_int_equal(image_save_new(&sv, f->store, &none, &e), -E_NOT_FOUND);
    assert_non_null(strstr(e.text, "again"));
    feed(f, &first, NULL); /* the cure */
    save_all(f, "app:1", NULL, &in);
    sb_done(&in);
    sb_done(&first);
    sb_done(&second);
    strs_clear(&none);
    strs_clear(&gone);
    strs_clear(&deleted);
    sb_done(&l[0].blob);
    sb_done(&l[1].blob);
}

/* A repository of more images than one archive takes is refused, not cut. */
static void test_save_many(void **state)
{
    enum { MAX = 1024 };
    struct fx *f = *state;
    struct sb b;
    struct strs names = { 0 }, gone = { 0 }, deleted = { 0 };
    struct image_save *sv;
    struct err e;
    if (!f->store)
        skip();
    sb_init(&b, 0);
    sb_str(&b, "{\"images\":[");
    for (unsigned i = 0; i <= MAX; i++) {
        char id[80];
        AUTO_FREE char *config = xasprintf("{\"architecture\":\"amd64\",\"os\":\"linux\",\"author\":\"%u\",\"rootfs\":"
                                           "{\"type\":\"layers\",\"diff_ids\":[]}}", i);
        fx_digest(id, config, strlen(config));
        AUTO_FREE char *path = xasprintf("%s/blobs/sha256/%s", f->root, id + 7);
        assert_int_equal(file_write_volatile(path, config, strlen(config), 0600, NULL), 0);
        sb_printf(&b, "%s{\"id\":\"%s\",\"tags\":[\"many:%u\",\"many:also-%u\"],\"digests\":[]}", i ? "," : "", id, i, i);
    }
    sb_str(&b, "]}");
    AUTO_FREE char *index = path_join(f->root, "images.json");
    assert_int_equal(file_write_volatile(index, b.s, b.len, 0600, NULL), 0);
    reopen(f);
    strs_add(&names, "many");
    assert_int_equal(image_save_new(&sv, f->store, &names, &e), -E_TOO_BIG);
    assert_int_equal(image_remove(f->store, image_find(f->store, "many:7")->id, true, NULL, NULL, &gone, &deleted, &e), 0);
    assert_int_equal(image_save_new(&sv, f->store, &names, &e), 0);
    image_save_free(sv);
    sb_done(&b);
    strs_clear(&names);
    strs_clear(&gone);
    strs_clear(&deleted);
}

static void test_abort(void **state)
{
    struct fx *f = *state;
    if (!f->store)
        skip();
    struct image_input *in = image_input_new(f->store, NULL);
    assert_int_equal(image_input_feed(in, "abc", 3, NULL), 0);
    assert_int_equal(fx_count(f->root, "tmp"), 1);
    image_input_abort(in);
    assert_int_equal(fx_count(f->root, "tmp"), 0);
}

int main(void)
{
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_save_archive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oci_layout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bomb, setup, teardown),
        cmocka_unit_test_setup_teardown(test_import, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_settled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
