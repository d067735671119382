/* The door to libseccomp: the default list compiled to a BPF program, once for each set of capabilities.
 * Rules with arguments: personality() only with harmless values, clone() without new namespaces and socket()
 * without AF_ALG and AF_VSOCK (runtime.md section 2; the same rules as the list Docker ships). */
#include "runtime_internal.h"
#include "seccomp_list.h"
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NEW_NAMESPACES = 0x7E020000, ALG = 38, VSOCK = 40 };

static bool has(uint64_t caps, const char *name)
{
    for (unsigned i = 0; capability_name(i); i++)
        if (str_equal(capability_name(i), name))
            return caps >> i & 1;
    return false;
}

static int allow(scmp_filter_ctx c, const char *name)
{
    int n = seccomp_syscall_resolve_name(name);
    return n == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(c, SCMP_ACT_ALLOW, n, 0);
}

static int rules(scmp_filter_ctx c, uint64_t caps)
{
    static const uint32_t personalities[] = { 0, 8, 0x20000, 0x20008, 0xffffffff };
    int r = 0;
    for (unsigned i = 0; seccomp_allowed[i] && r == 0; i++)
        r = allow(c, seccomp_allowed[i]);
    for (unsigned i = 0; seccomp_by_capability[i].capability && r == 0; i++)
        if (has(caps, seccomp_by_capability[i].capability))
            for (unsigned k = 0; seccomp_by_capability[i].calls[k] && r == 0; k++)
                r = allow(c, seccomp_by_capability[i].calls[k]);
    for (unsigned i = 0; i < ARRAY_N(personalities) && r == 0; i++)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_EQ, personalities[i], 0));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_LT, ALG, 0));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, ALG + 1, 0));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GT, VSOCK, 0));
    if (r == 0 && !has(caps, "SYS_ADMIN")) {
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, NEW_NAMESPACES, 0));
        if (r == 0)
            r = seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    }
    return r;
}

static int export(scmp_filter_ctx c, struct seccomp_program *ret)
{
    struct stat st;
    AUTO_CLOSE int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0 || seccomp_export_bpf(c, fd) < 0 || fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    void *p = xcalloc(1, (size_t)st.st_size);
    if (read(fd, p, (size_t)st.st_size) != st.st_size) {
        free(p);
        return -1;
    }
    ret->filter = p;
    ret->n = (uint16_t)((size_t)st.st_size / sizeof(struct sock_filter));
    return 0;
}

int seccomp_build(struct seccomp_program *ret, uint64_t caps, struct err *e)
{
    int r = -1;
    scmp_filter_ctx c = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (c) {
#ifdef __x86_64__
        /* 32-bit programs and x32: same list (errors: not known to this library). */
        (void)seccomp_arch_add(c, SCMP_ARCH_X86);
        (void)seccomp_arch_add(c, SCMP_ARCH_X32);
#endif
        (void)seccomp_attr_set(c, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree instead of a chain */
        r = rules(c, caps);
        if (r == 0)
            r = export(c, ret);
        seccomp_release(c);
    }
    return r == 0 ? 0 : err_set(e, E_INTERNAL, "cannot compile the system call filter (%d)", r);
}

void seccomp_free(struct seccomp_program *p)
{
    free((void *)(uintptr_t)p->filter);
    p->filter = NULL;
    p->n = 0;
}
