/* A task and its image become the specification of a container: the log driver's part. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include "executor_internal.h"
#include <shoal/model/log_driver.h>

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char *no_volume(void *arg, const char *name, struct err *e)
{
    (void)arg;
    err_set(e, E_NOT_FOUND, "no volume %s", name);
    return NULL;
}

static void make_task(struct task *t, const char *driver, const char *key, const char *value)
{
    *t = (struct task){ .slot = 3 };
    str_set(&t->id, "task0task0task0task0task0");
    str_set(&t->service_name, "web");
    t->spec.container = xnew(struct container_spec_model);
    str_set(&t->spec.container->image, "busybox:1");
    t->spec.log_driver = xnew(struct driver);
    str_set(&t->spec.log_driver->name, driver);
    labels_set(&t->spec.log_driver->options, key, value);
}

/* Every word of a tag, when what it stands for is known. */
static void test_tag(void **state)
{
    static const char *const words[][2] = {
        { "{{.ID}}", "0123456789ab" },         { "{{.FullID}}", ID },
        { "{{.Name}}", "web.3.task0task0task0task0task0" }, { "{{.ImageName}}", "busybox:1" },
        { "{{.ImageID}}", "fedcba987654" },    { "{{.ImageFullID}}", "sha256:fedcba9876543210" },
        { "{{.DaemonName}}", "docker" },       { "a {{ .ID }}-{{.Name}} b", "a 0123456789ab-web.3.task0task0task0task0task0 b" },
    };
    struct image image = { .id = "sha256:fedcba9876543210" };
    struct assignment none = { 0 };
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(words); i++) {
        struct task t;
        struct container_spec s = { 0 };
        struct err e = { 0 };
        AUTO_SB struct sb tag;
        sb_init(&tag, 0);
        make_task(&t, "journald", "tag", words[i][0]);
        const struct template_context c = { &t, "node", "host", ID };
        if (task_container_spec(&t, &none, &image, &c, no_volume, NULL, &s, &e) < 0)
            fail_msg("%s: %s", words[i][0], e.text);
        assert_string_equal(s.id, ID);
        const struct log_tag_values v = { s.id, s.name, s.image, s.image_id };
        assert_int_equal(log_tag(labels_get(&s.log_options, "tag"), &v, &tag, &e), 0);
        assert_string_equal(tag.s, words[i][1]);
        container_spec_clear(&s);
        task_clear(&t);
    }
}

/* A driver and one of its options: what a service and a container are told alike. */
static void test_options(void **state)
{
    static const struct { const char *driver, *key, *value, *says; } wrong[] = {
        { "syslog", "tag", "x", "here: log driver \"syslog\" is not built; use json-file or journald" },
        { "local", "compress", "true", "here: log option compress is not built for json-file; max-size and max-file are" },
        { "journald", "max-size", "1m", "here: log option max-size is not built for journald; tag, labels and env are" },
        { "", "max-size", "much", "here: log option max-size: \"much\" is no size, such as 10m" },
        { NULL, "max-size", "nan", "here: log option max-size: \"nan\" is no size, such as 10m" },
        { NULL, "max-size", "1kib", "here: log option max-size: \"1kib\" is no size, such as 10m" },
        { "json-file", "max-file", "0", "here: log option max-file: \"0\" is no number from 1 to 1000" },
        { "json-file", "max-file", "1k", "here: log option max-file: \"1k\" is no number from 1 to 1000" },
        { "journald", "tag", "{{.Shape}}", "here: log option tag: \"{{.Shape}}\" has what is not built; {{.ID}}, {{.FullID}}, {{.Name}}, "
                                           "{{.ImageName}}, {{.ImageID}}, {{.ImageFullID}} and {{.DaemonName}} are" },
        { "journald", "tag", "{{.ID", "here: log option tag: \"{{.ID\" has what is not built; {{.ID}}, {{.FullID}}, {{.Name}}, "
                                      "{{.ImageName}}, {{.ImageID}}, {{.ImageFullID}} and {{.DaemonName}} are" },
    };
    static const struct { const char *driver, *key, *value; struct log_driver is; } right[] = {
        { NULL, "max-size", "10", { false, 10, 0 } },          { "", "max-size", "8k", { false, 8 << 10, 0 } },
        { "local", "max-size", "1.5mb", { false, 3 << 19, 0 } }, { "json-file", "max-size", "2G", { false, INT64_C(2) << 30, 0 } },
        { "json-file", "max-file", "3", { false, 0, 3 } },     { "journald", "labels", "a,b", { true, 0, 0 } },
        { "journald", "env", NULL, { true, 0, 0 } },           { "journald", "tag", "{{ .Name }}", { true, 0, 0 } },
    };
    struct log_driver d;
    struct err e;
    char tag[2000];
    (void)state;
    for (unsigned i = 0; i < ARRAY_N(wrong); i++) {
        struct label one = { (char *)(uintptr_t)wrong[i].key, (char *)(uintptr_t)wrong[i].value };
        assert_true(log_driver_read(&d, wrong[i].driver, &(struct labels){ &one, 1 }, "here", &e) < 0);
        assert_string_equal(e.text, wrong[i].says);
    }
    for (unsigned i = 0; i < ARRAY_N(right); i++) {
        struct label one = { (char *)(uintptr_t)right[i].key, (char *)(uintptr_t)right[i].value };
        if (log_driver_read(&d, right[i].driver, &(struct labels){ &one, 1 }, "here", &e) < 0)
            fail_msg("%s", e.text);
        assert_true(d.journal == right[i].is.journal && d.max_bytes == right[i].is.max_bytes && d.max_files == right[i].is.max_files);
    }
    memset(tag, 'x', sizeof tag - 1);
    tag[sizeof tag - 1] = '\0';
    assert_int_equal(log_driver_read(&d, "journald", &(struct labels){ &(struct label){ (char *)(uintptr_t)"tag", tag }, 1 }, "here", &e), -E_TOO_BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tag), cmocka_unit_test(test_options) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
