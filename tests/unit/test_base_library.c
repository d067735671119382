/* Libraries that are loaded late: what is said of one that is missing or too old, and SHA-256 with and without its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/library.h>
#include <shoal/base/mem.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { LONG_BYTES = 1000000 };

#define ONE(F) F(version_number)
#define TWO(F) ONE(F) F(no_such_call)
static struct { int (*version)(void), (*other)(void); } calls;

static void test_missing(void **state)
{
    struct err e;
    struct library l = LIBRARY("libnowhere.so.7", "libnowhere7", "archive_", ONE, calls);
    assert_int_equal(library_load(&l, &e), -E_UNSUPPORTED);
    assert_non_null(strstr(e.text, "apt-get install libnowhere7"));
    assert_null(calls.version);
}

static void test_too_old(void **state)
{
    struct err e;
    struct library l = LIBRARY(LIBARCHIVE_FILE, "libarchive13", "archive_", TWO, calls);
    assert_int_equal(library_load(&l, &e), -E_UNSUPPORTED);
    assert_non_null(strstr(e.text, "has no archive_no_such_call"));
    l.names = (const char *const[]){ ONE(LIBRARY_NAME_) NULL }; /* a failure is not remembered */
    assert_int_equal(library_load(&l, &e), 0);
    assert_true(calls.version() >= 3000000);
}

/* FIPS 180-2: a million times "a", in pieces and at once. */
static void check_long(void)
{
    static const char want[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    char hex[65];
    uint8_t sum[32];
    AUTO_FREE char *text = xcalloc(1, LONG_BYTES);
    memset(text, 'a', LONG_BYTES);
    struct crypto_sha256 *h = crypto_sha256_new();
    crypto_sha256_add(h, text, 77);
    crypto_sha256_add(h, text + 77, LONG_BYTES - 77);
    crypto_sha256_end(h, sum);
    hex_encode(hex, sum, sizeof sum);
    assert_string_equal(hex, want);
    crypto_sha256(sum, text, LONG_BYTES);
    hex_encode(hex, sum, sizeof sum);
    assert_string_equal(hex, want);
}

static bool is_loaded(void)
{
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    bool found = false;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (!found && getline(&line, &size, f) > 0)
        found = strstr(line, LIBCRYPTO_FILE) != NULL;
    fclose(f);
    return found;
}

static void test_sha256(void **state)
{
    struct rlimit all, none = { 0 };
    char hex[65];
    uint8_t sum[32];
    crypto_sha256(sum, "abc", 3);
    hex_encode(hex, sum, sizeof sum);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_false(is_loaded()); /* not for so little */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    none.rlim_max = all.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0); /* no file can be opened, so none loaded */
    check_long();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
    assert_false(is_loaded());
    check_long();
    assert_true(is_loaded());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_too_old),
        cmocka_unit_test(test_sha256),
    };
    crypto_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
