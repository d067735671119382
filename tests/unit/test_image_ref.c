/* Image references: the table of Docker's own reading, good and bad ones. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <shoal/image.h>

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX

static const struct good {
    const char *text, *host, *path, *tag, *digest, *full, *familiar;
} goods[] = {
    { "busybox", "docker.io", "library/busybox", "latest", NULL, "docker.io/library/busybox:latest", "busybox:latest" },
    { "busybox:1.36", "docker.io", "library/busybox", "1.36", NULL, "docker.io/library/busybox:1.36", "busybox:1.36" },
    { "docker.io/busybox", "docker.io", "library/busybox", "latest", NULL, "docker.io/library/busybox:latest",
      "busybox:latest" },
    { "index.docker.io/library/busybox:1", "docker.io", "library/busybox", "1", NULL, "docker.io/library/busybox:1",
      "busybox:1" },
    { "me/app", "docker.io", "me/app", "latest", NULL, "docker.io/me/app:latest", "me/app:latest" },
    { "library/a/b:1", "docker.io", "library/a/b", "1", NULL, "docker.io/library/a/b:1", "library/a/b:1" },
    { "localhost/app:2", "localhost", "app", "2", NULL, "localhost/app:2", "localhost/app:2" },
    { "localhost:5000/app", "localhost:5000", "app", "latest", NULL, "localhost:5000/app:latest",
      "localhost:5000/app:latest" },
    { "reg.test:5000/a/b/c:v1.0_x-y", "reg.test:5000", "a/b/c", "v1.0_x-y", NULL, "reg.test:5000/a/b/c:v1.0_x-y",
      "reg.test:5000/a/b/c:v1.0_x-y" },
    { "UPPER/app", "UPPER", "app", "latest", NULL, "UPPER/app:latest", "UPPER/app:latest" },
    { "127.0.0.1:80/x__y/z---w.v_u", "127.0.0.1:80", "x__y/z---w.v_u", "latest", NULL,
      "127.0.0.1:80/x__y/z---w.v_u:latest", "127.0.0.1:80/x__y/z---w.v_u:latest" },
    { "[::1]:5000/app:1", "[::1]:5000", "app", "1", NULL, "[::1]:5000/app:1", "[::1]:5000/app:1" },
    { "busybox@" DIGEST, "docker.io", "library/busybox", NULL, DIGEST, "docker.io/library/busybox@" DIGEST,
      "busybox@" DIGEST },
    { "busybox:1@" DIGEST, "docker.io", "library/busybox", "1", DIGEST, "docker.io/library/busybox:1", "busybox:1" },
    { "app:5000", "docker.io", "library/app", "5000", NULL, "docker.io/library/app:5000", "app:5000" },
    { "a:_", "docker.io", "library/a", "_", NULL, "docker.io/library/a:_", "a:_" },
};

static const char *const bads[] = {
    "", ":1", "/app", "app/", "a//b", "reg.test/", "App", "me/App", "busybox:", "busybox:-x", "busybox:.x",
    "busybox:a b", "busybox:a/b", "bus ybox", "busybox@", "busybox@sha256:abc", "busybox@md5:" HEX,
    "busybox@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", "busybox@" DIGEST "@" DIGEST,
    HEX, "a..b", "a___b", "-a", "a-", "a_", ".a", "../a", "a/../b", "reg.test:0/a", "reg.test:70000/a", "reg.test:x/a",
    "reg..test/a", ".reg/a", "reg-.test/a", "[::1/a", "[]/a", "[zz]:1/a", "a\nb", "a%2fb", "https://reg.test/a", "a:b:c",
};

static void test_good(void **state)
{
    for (size_t i = 0; i < ARRAY_N(goods); i++) {
        struct image_ref r;
        struct err e = { 0 };
        if (image_ref_parse(&r, goods[i].text, &e) < 0)
            fail_msg("%s: %s", goods[i].text, e.text);
        assert_string_equal(r.host, goods[i].host);
        assert_string_equal(r.path, goods[i].path);
        assert_true(str_equal(r.tag, goods[i].tag));
        assert_true(str_equal(r.digest, goods[i].digest));
        AUTO_FREE char *full = image_ref_full(&r);
        AUTO_FREE char *familiar = image_ref_familiar(&r);
        assert_string_equal(full, goods[i].full);
        assert_string_equal(familiar, goods[i].familiar);
        struct image_ref again;
        assert_int_equal(image_ref_parse(&again, familiar, NULL), 0);
        AUTO_FREE char *full2 = image_ref_full(&again);
        assert_string_equal(full2, full);
        image_ref_clear(&again);
        image_ref_clear(&r);
    }
}

static void test_bad(void **state)
{
    for (size_t i = 0; i < ARRAY_N(bads); i++) {
        struct image_ref r;
        struct err e = { 0 };
        if (image_ref_parse(&r, bads[i], &e) != -E_INVALID)
            fail_msg("taken: %s", bads[i]);
        assert_true(e.text[0] != 0);
        assert_null(r.host);
    }
}

static void test_long(void **state)
{
    struct image_ref r;
    char name[600];
    memset(name, 'a', sizeof name);
    name[255 - strlen("docker.io/library/")] = 0;
    assert_int_equal(image_ref_parse(&r, name, NULL), 0);
    image_ref_clear(&r);
    name[255 - strlen("docker.io/library/")] = 'a';
    name[255 - strlen("docker.io/library/") + 1] = 0;
    assert_int_equal(image_ref_parse(&r, name, NULL), -E_INVALID);
    name[256] = 'a';
    name[599] = 0;
    assert_int_equal(image_ref_parse(&r, name, NULL), -E_INVALID);
    memset(name, 'a', 140);
    name[1] = ':';
    name[2 + 128] = 0;
    assert_int_equal(image_ref_parse(&r, name, NULL), 0);
    image_ref_clear(&r);
    name[2 + 128] = 'a';
    name[2 + 129] = 0;
    assert_int_equal(image_ref_parse(&r, name, NULL), -E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
