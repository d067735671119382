/* The compiled system call filter, judged by a small BPF machine: what it answers for chosen calls, and, with
 * SHOAL_SECCOMP_JSON=FILE, that it answers for every call as the list in Docker's own format says. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "runtime_internal.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <shoal/base/file.h>
#include <shoal/base/val.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined __x86_64__
#define ARCH AUDIT_ARCH_X86_64
static const char *const arch_names[] = { "amd64", "x32", "x86" };
#else
#define ARCH AUDIT_ARCH_AARCH64
static const char *const arch_names[] = { "arm64", "arm" };
#endif
enum { ALLOWED = 0, NUMBERS = 600 };

static uint32_t load(const struct seccomp_data *d, uint32_t at)
{
    uint32_t v;
    assert_true(at + sizeof v <= sizeof *d);
    memcpy(&v, (const char *)d + at, sizeof v);
    return v;
}

/* ALLOWED, or the errno it fails with. */
static int verdict(const struct seccomp_program *p, const struct seccomp_data *d)
{
    const struct sock_filter *f = p->filter;
    uint32_t a = 0;
    for (unsigned pc = 0; pc < p->n; pc++) {
        const struct sock_filter *i = &f[pc];
        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS: a = load(d, i->k); break;
        case BPF_ALU | BPF_AND | BPF_K: a &= i->k; break;
        case BPF_JMP | BPF_JA: pc += i->k; break;
        case BPF_JMP | BPF_JEQ | BPF_K: pc += a == i->k ? i->jt : i->jf; break;
        case BPF_JMP | BPF_JGT | BPF_K: pc += a > i->k ? i->jt : i->jf; break;
        case BPF_JMP | BPF_JGE | BPF_K: pc += a >= i->k ? i->jt : i->jf; break;
        case BPF_RET | BPF_K:
            if (i->k == SECCOMP_RET_ALLOW)
                return ALLOWED;
            assert_int_equal(i->k & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ERRNO);
            return (int)(i->k & SECCOMP_RET_DATA);
        default: fail_msg("instruction %u: code %#x", pc, i->code);
        }
    }
    fail_msg("the program has no end");
    return -1;
}

static int call(const struct seccomp_program *p, long number, uint64_t arg0)
{
    struct seccomp_data d = { .nr = (int)number, .arch = ARCH, .args = { arg0 } };
    return verdict(p, &d);
}

static uint64_t caps_of(const char *add)
{
    struct strs adds = { 0 }, none = { 0 };
    uint64_t caps;
    struct err e;
    if (add)
        strs_add(&adds, add);
    assert_int_equal(capability_set(&adds, &none, false, &caps, &e), 0);
    strs_clear(&adds);
    return caps;
}

static void build(struct seccomp_program *p, const char *add)
{
    struct err e = { 0 };
    if (seccomp_build(p, caps_of(add), &e) < 0)
        fail_msg("%s", e.text);
}

static void test_chosen(void **state)
{
    static const long denied[] = { SYS_mount, SYS_umount2, SYS_unshare, SYS_setns, SYS_keyctl, SYS_add_key, SYS_bpf,
                                   SYS_reboot, SYS_init_module, SYS_kexec_load, SYS_open_by_handle_at,
                                   SYS_perf_event_open, SYS_io_uring_setup, SYS_userfaultfd, SYS_pivot_root, SYS_swapon };
    struct seccomp_program p = { 0 };
    (void)state;
    build(&p, NULL);
    for (unsigned i = 0; i < ARRAY_N(denied); i++)
        if (call(&p, denied[i], 0) != EPERM)
            fail_msg("call %ld is not denied", denied[i]);
    assert_int_equal(call(&p, SYS_read, 0), ALLOWED);
    assert_int_equal(call(&p, SYS_execve, 0), ALLOWED);
    assert_int_equal(call(&p, SYS_clone, 17), ALLOWED);
    assert_int_equal(call(&p, SYS_clone, 17 | 0x10000000 /* CLONE_NEWUSER */), EPERM);
    assert_int_equal(call(&p, SYS_clone3, 0), ENOSYS);
    assert_int_equal(call(&p, SYS_socket, AF_INET), ALLOWED);
    assert_int_equal(call(&p, SYS_socket, 39), ALLOWED);
    assert_int_equal(call(&p, SYS_socket, 38 /* AF_ALG */), EPERM);
    assert_int_equal(call(&p, SYS_socket, 40 /* AF_VSOCK */), EPERM);
    assert_int_equal(call(&p, SYS_personality, 8), ALLOWED);
    assert_int_equal(call(&p, SYS_personality, 0x40000 /* ADDR_NO_RANDOMIZE */), EPERM);
    /* Newer than the library may know; and newer than anybody knows. */
    assert_int_equal(call(&p, 452 /* fchmodat2 */, 0), ALLOWED);
    assert_int_equal(call(&p, 462 /* mseal */, 0), ALLOWED);
    assert_int_equal(call(&p, 459 /* lsm_get_self_attr */, 0), EPERM);
    assert_int_equal(call(&p, 599, 0), ENOSYS);
    assert_int_equal(call(&p, 0x3fffffff, 0), ENOSYS);
    assert_int_equal(call(&p, -1, 0), EPERM);
    seccomp_free(&p);
    build(&p, "SYS_ADMIN");
    assert_int_equal(call(&p, SYS_mount, 0), ALLOWED);
    assert_int_equal(call(&p, SYS_clone3, 0), ALLOWED);
    assert_int_equal(call(&p, SYS_clone, 17 | 0x10000000), ALLOWED);
    assert_int_equal(call(&p, 459, 0), ALLOWED);
    assert_int_equal(call(&p, SYS_reboot, 0), EPERM);
    seccomp_free(&p);
}

#ifdef __x86_64__
static void test_other_arches(void **state)
{
    struct seccomp_program p = { 0 };
    (void)state;
    build(&p, NULL);
    struct seccomp_data d = { .nr = 3 /* read */, .arch = AUDIT_ARCH_I386 };
    assert_int_equal(verdict(&p, &d), ALLOWED);
    d.nr = 21; /* mount */
    assert_int_equal(verdict(&p, &d), EPERM);
    d.nr = 452;
    assert_int_equal(verdict(&p, &d), ALLOWED);
    d = (struct seccomp_data){ .nr = 0x40000000 | SYS_mount, .arch = AUDIT_ARCH_X86_64 };
    assert_int_equal(verdict(&p, &d), EPERM);
    seccomp_free(&p);
}
#endif

/* ---- the list as Docker writes it ---- */
static bool any_of(const struct val *list, bool (*holds)(const char *, uint64_t), uint64_t caps)
{
    for (uint32_t i = 0; list && i < list->n; i++)
        if (holds(list->list[i]->s, caps))
            return true;
    return false;
}
static bool has_cap(const char *name, uint64_t caps)
{
    for (unsigned i = 0; capability_name(i); i++)
        if (str_equal(capability_name(i), name + 4))
            return caps >> i & 1;
    return false;
}
static bool is_arch(const char *name, uint64_t caps)
{
    (void)caps;
    for (unsigned i = 0; i < ARRAY_N(arch_names); i++)
        if (str_equal(arch_names[i], name))
            return true;
    return false;
}

/* Does this row allow the call for these capabilities, whatever its arguments? */
static bool row_allows(const struct val *row, const char *name, uint64_t caps)
{
    const struct val *names = val_get(row, "names"), *args = val_get(row, "args");
    const struct val *in = val_get(row, "includes"), *ex = val_get(row, "excludes");
    bool named = false;
    for (uint32_t i = 0; i < names->n; i++)
        named |= str_equal(names->list[i]->s, name);
    if (!named || !str_equal(val_get_str(row, "action"), "SCMP_ACT_ALLOW") || (args && args->kind == V_LIST && args->n))
        return false;
    if (in && val_get(in, "caps") && !any_of(val_get(in, "caps"), has_cap, caps))
        return false;
    if (in && val_get(in, "arches") && !any_of(val_get(in, "arches"), is_arch, caps))
        return false;
    return !(ex && val_get(ex, "caps") && any_of(val_get(ex, "caps"), has_cap, caps));
}

static void compare(const struct val *rows, const char *add)
{
    struct seccomp_program p = { 0 };
    uint64_t caps = caps_of(add);
    unsigned n = 0;
    build(&p, add);
    for (int number = 0; number < NUMBERS; number++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
        if (!name || str_equal(name, "clone") || str_equal(name, "personality") || str_equal(name, "socket")) {
            free(name); /* by their arguments: test_chosen */
            continue;
        }
        bool want = false;
        for (uint32_t i = 0; i < rows->n; i++)
            want |= row_allows(rows->list[i], name, caps);
        if ((call(&p, number, 0) == ALLOWED) != want)
            fail_msg("%s with %s: the list says %s", name, add ? add : "no more capabilities", want ? "allow" : "deny");
        n++;
        free(name);
    }
    assert_true(n > 300);
    seccomp_free(&p);
}

static void test_list(void **state)
{
    const char *path = getenv("SHOAL_SECCOMP_JSON");
    struct val_doc *d = NULL;
    struct err e = { 0 };
    char *json;
    size_t size;
    (void)state;
    if (!path)
        skip();
    assert_int_equal(file_read(path, 1 << 20, &json, &size, &e), 0);
    if (json_parse(&d, json, size, path, &e) < 0)
        fail_msg("%s", e.text);
    const struct val *rows = val_get(val_root(d), "syscalls");
    compare(rows, NULL);
    compare(rows, "ALL");
    for (unsigned i = 0; capability_name(i); i++)
        compare(rows, capability_name(i));
    val_doc_free(d);
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chosen),
#ifdef __x86_64__
        cmocka_unit_test(test_other_arches),
#endif
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
