/* Layers: tar archives, plain or packed, unpacked below a folder. Oracles: nothing appears, changes or vanishes outside
 * the store; a refused layer leaves nothing in it and has a sentence; the same bytes give the same layer. */
#include "fuzz.h"

#include "../unit/image_fixture.h"
#include "image_internal.h"

static char base[] = "/tmp/shoal-fuzz-XXXXXX", root[64], archive[64], canary[64];

static void clean(void)
{
    (void)!file_remove_tree(base, NULL);
}

static void prepare(void)
{
    if (root[0])
        return;
    ASSERT(mkdtemp(base));
    atexit(clean);
    snprintf(root, sizeof root, "%s/store", base);
    snprintf(archive, sizeof archive, "%s/in.tar", base);
    snprintf(canary, sizeof canary, "%s/canary", base);
    static const char *const dirs[] = { "", "/tmp", "/layers" };
    for (size_t i = 0; i < ARRAY_N(dirs); i++) {
        AUTO_FREE char *dir = xasprintf("%s%s", root, dirs[i]);
        ASSERT(mkdir(dir, 0700) == 0);
    }
    FILE *f = fopen(canary, "w");
    ASSERT(f && fputs("sings", f) >= 0 && fclose(f) == 0);
}

static unsigned count(const char *dir)
{
    DIR *d = opendir(dir);
    unsigned n = 0;
    ASSERT(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void check_outside(void)
{
    char text[16] = "";
    struct stat st;
    FILE *f = fopen(canary, "r");
    ASSERT(f && fgets(text, sizeof text, f) && str_equal(text, "sings"));
    fclose(f);
    ASSERT(stat(canary, &st) == 0 && st.st_nlink == 1 && (st.st_mode & 07777) == 0644 && count(base) == 3 && count(root) == 2);
}

static bool unpack(char **ret_diff_id)
{
    struct image_layer_job job = { .root = root, .archive = archive };
    struct err e = { 0 };
    AUTO_FREE char *tmp = xasprintf("%s/tmp", root);
    int rc = image_layer_unpack(&job, ret_diff_id, &e);
    check_outside();
    ASSERT(count(tmp) == 0 && (rc == 0 || e.text[0]));
    return rc == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    prepare();
    umask(022);
    FILE *f = fopen(archive, "w");
    ASSERT(f && fwrite(p, 1, size, f) == size && fclose(f) == 0);
    AUTO_FREE char *layers = xasprintf("%s/layers", root);
    char *id = NULL, *again = NULL;
    if (unpack(&id)) {
        ASSERT(image_digest_ok(id) && image_layer_exists(root, id));
        ASSERT(unpack(&again) && str_equal(id, again));
        ASSERT(file_remove_tree(layers, NULL) == 0 && mkdir(layers, 0700) == 0);
    }
    ASSERT(count(layers) == 0);
    free(id);
    free(again);
    return 0;
}

const unsigned fuzz_rounds = 40;
const char *const fuzz_words[] = { "../", "/", "..", "./", "etc/passwd", ".wh.", ".wh..wh..opq", "ustar", "0000644", "7777777", "\x80\xff",
                                   "path=", "linkpath=", "SCHILY.xattr.", "canary", "../canary", "\x1f\x8b", "\x28\xb5\x2f\xfd", NULL };

void fuzz_sample(struct rng *g, struct sb *b)
{
    static const struct fx_entry entries[] = {
        { 'd', "dir", NULL, 0755, 0, NULL, 0, 0 }, { 'f', "dir/file", "contents", 0644, 0, NULL, 0, 0 },
        { 'l', "link", "dir/file", 0777, 0, NULL, 0, 0 }, { 'l', "up", "../..", 0777, 0, NULL, 0, 0 },
        { 'f', "up/canary", "croaks", 0644, 0, NULL, 0, 0 }, { 'h', "hard", "dir/file", 0644, 0, NULL, 0, 0 },
        { 'h', "hard2", "../../canary", 0644, 0, NULL, 0, 0 }, { 'f', "../canary", "croaks", 0600, 0, NULL, 0, 0 },
        { 'l', "dir", "/", 0777, 0, NULL, 0, 0 }, { 'f', "dir/.wh.file", "", 0644, 0, NULL, 0, 0 },
        { 'd', "dir/../..", NULL, 0700, 0, NULL, 0, 0 }, { 'p', "fifo", NULL, 0600, 0, NULL, 0, 0 },
        { 'f', "a/b/c/d", "deep", 0755, 0, "user.x", 0, 0 }, { 'f', ".wh..wh..opq", "", 0644, 0, NULL, 0, 0 },
    };
    struct fx_tar t;
    fx_tar_begin(&t, rng_chance(g, 200) ? (rng_chance(g, 500) ? 'z' : 's') : 0);
    for (uint64_t n = rng_range(g, 1, 6); n > 0; n--) {
        const struct fx_entry *en = &entries[rng_below(g, ARRAY_N(entries))];
        fx_tar_add(&t, en, en->data ? strlen(en->data) : 0);
    }
    fx_tar_end(&t);
    sb_add(b, t.out.s, t.out.len);
    sb_done(&t.out);
}
