/* A task and its image become the specification of a container: the log driver's part. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include "executor_internal.h"

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
        assert_int_equal(container_log_tag(&s, labels_get(&s.log_options, "tag"), &tag, &e), 0);
        assert_string_equal(tag.s, words[i][1]);
        container_spec_clear(&s);
        task_clear(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tag) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
