/* The door to libseccomp: the default list compiled to a BPF program, once for each set of capabilities.
 * Rules with arguments: personality() only with harmless values, clone() without new namespaces and socket()
 * without AF_ALG and AF_VSOCK (runtime.md section 2; the same rules as the list Docker ships). */
#include "runtime_internal.h"
#include "seccomp_list.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NEW_NAMESPACES = 0x7E020000, ALG = 38, VSOCK = 40 };

/* Numbers that an older libseccomp does not know; from 424 on they are the same on every architecture
 * (asm-generic/unistd.h). What is newer than the last one gets ENOSYS: C libraries then fall back to what they
 * know, with EPERM they would give up. */
static const struct { const char *name; uint32_t number; } newer[] = {
    { "cachestat", 451 }, { "fchmodat2", 452 }, { "map_shadow_stack", 453 }, { "futex_wake", 454 },
    { "futex_wait", 455 }, { "futex_requeue", 456 }, { "statmount", 457 }, { "listmount", 458 },
    { "lsm_get_self_attr", 459 }, { "lsm_set_self_attr", 460 }, { "lsm_list_modules", 461 }, { "mseal", 462 },
    { "setxattrat", 463 }, { "getxattrat", 464 }, { "listxattrat", 465 }, { "removexattrat", 466 },
};
enum { LAST_KNOWN = 466, X32_BIT = 0x40000000 };

struct build {
    scmp_filter_ctx c;
    uint64_t caps;
    uint32_t extra[ARRAY_N(newer)]; /* allowed by our own instructions */
    unsigned n_extra;
};

static bool has(uint64_t caps, const char *name)
{
    for (unsigned i = 0; capability_name(i); i++)
        if (str_equal(capability_name(i), name))
            return caps >> i & 1;
    return false;
}

static int allow(struct build *b, const char *name)
{
    int n = seccomp_syscall_resolve_name(name);
    if (n != __NR_SCMP_ERROR)
        return seccomp_rule_add(b->c, SCMP_ACT_ALLOW, n, 0);
    for (unsigned i = 0; i < ARRAY_N(newer); i++)
        if (str_equal(newer[i].name, name) && b->n_extra < ARRAY_N(newer))
            b->extra[b->n_extra++] = newer[i].number;
    return 0;
}

static int allow_list(struct build *b, const char *const *names)
{
    int r = 0;
    for (; *names && r == 0; names++)
        r = allow(b, *names);
    return r;
}

static int rules(struct build *b)
{
    static const uint32_t personalities[] = { 0, 8, 0x20000, 0x20008, 0xffffffff };
    scmp_filter_ctx c = b->c;
    int r = allow_list(b, seccomp_allowed);
    for (unsigned i = 0; seccomp_by_capability[i].capability && r == 0; i++)
        if (has(b->caps, seccomp_by_capability[i].capability))
            r = allow_list(b, seccomp_by_capability[i].calls);
    for (unsigned i = 0; i < ARRAY_N(personalities) && r == 0; i++)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_EQ, personalities[i], 0));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_LT, ALG, 0));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, ALG + 1, 0));
    if (r == 0)
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GT, VSOCK, 0));
    if (r == 0 && !has(b->caps, "SYS_ADMIN")) {
        r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, NEW_NAMESPACES, 0));
        if (r == 0)
            r = seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    }
    return r;
}

/* Ours in front of libseccomp's, whose jumps are relative. */
static unsigned prefix(const struct build *b, struct sock_filter *out)
{
    unsigned n = 0, left = b->n_extra;
    out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, (uint8_t)(left + 4), 0);
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_KNOWN, (uint8_t)(left + 1), 0);
    for (unsigned i = 0; i < b->n_extra; i++, left--)
        out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, b->extra[i], (uint8_t)(left + 1), 0);
    out[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JA, 2, 0, 0);
    out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    return n;
}

static int export(const struct build *b, struct seccomp_program *ret)
{
    struct stat st;
    AUTO_CLOSE int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0 || seccomp_export_bpf(b->c, fd) < 0 || fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    struct sock_filter *p = xcalloc(1, (size_t)st.st_size + sizeof *p * (ARRAY_N(newer) + 8));
    unsigned n = prefix(b, p);
    if (read(fd, p + n, (size_t)st.st_size) != st.st_size) {
        free(p);
        return -1;
    }
    ret->filter = p;
    ret->n = (uint16_t)((size_t)st.st_size / sizeof *p + n);
    return 0;
}

int seccomp_build(struct seccomp_program *ret, uint64_t caps, struct err *e)
{
    int r = -1;
    struct build b = { .c = seccomp_init(SCMP_ACT_ERRNO(EPERM)), .caps = caps };
    if (b.c) {
#ifdef __x86_64__
        /* 32-bit programs and x32: same list (errors: not known to this library). */
        (void)seccomp_arch_add(b.c, SCMP_ARCH_X86);
        (void)seccomp_arch_add(b.c, SCMP_ARCH_X32);
#endif
        (void)seccomp_attr_set(b.c, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree instead of a chain */
        r = rules(&b);
        if (r == 0)
            r = export(&b, ret);
        seccomp_release(b.c);
    }
    return r == 0 ? 0 : err_set(e, E_INTERNAL, "cannot compile the system call filter (%d)", r);
}

void seccomp_free(struct seccomp_program *p)
{
    free((void *)(uintptr_t)p->filter);
    p->filter = NULL;
    p->n = 0;
}
