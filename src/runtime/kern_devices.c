/* Which device nodes work in a container: the usual few, and making nodes (which stay dead). On cgroup v1 by the
 * devices controller, on v2 by a small BPF program (cgroup-v2.rst "Device controller", bpf(2)). */
#include "runtime_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ANY = -1 };
static const struct { int major, minor; } allowed[] = { /* character devices */
    { 1, 3 }, { 1, 5 }, { 1, 7 }, { 1, 8 }, { 1, 9 }, /* null zero full random urandom */
    { 5, 0 }, { 5, 1 }, { 5, 2 }, { 136, ANY },       /* tty console ptmx pts */
};

int devices_restrict_v1(const char *group, struct err *e)
{
    char deny[512], allow[512], text[32];
    snprintf(deny, sizeof deny, "%s/devices.deny", group);
    snprintf(allow, sizeof allow, "%s/devices.allow", group);
    int r = file_poke(deny, "a", e);
    if (r == 0)
        r = file_poke(allow, "c *:* m", e);
    if (r == 0)
        r = file_poke(allow, "b *:* m", e);
    for (unsigned i = 0; i < ARRAY_N(allowed) && r == 0; i++) {
        if (allowed[i].minor == ANY)
            snprintf(text, sizeof text, "c %d:* rwm", allowed[i].major);
        else
            snprintf(text, sizeof text, "c %d:%d rwm", allowed[i].major, allowed[i].minor);
        r = file_poke(allow, text, e);
    }
    return r;
}

#define LOAD(dst, field) ((struct bpf_insn){ .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = dst, .src_reg = 1, \
                                             .off = offsetof(struct bpf_cgroup_dev_ctx, field) })
#define ALU(op, dst, value) ((struct bpf_insn){ .code = BPF_ALU | (op) | BPF_K, .dst_reg = dst, .imm = value })
#define COPY(dst, src) ((struct bpf_insn){ .code = BPF_ALU | BPF_MOV | BPF_X, .dst_reg = dst, .src_reg = src })
#define JUMP(op, reg, value, distance) ((struct bpf_insn){ .code = BPF_JMP | (op) | BPF_K, .dst_reg = reg, \
                                                           .off = (int16_t)(distance), .imm = value })
#define EXIT ((struct bpf_insn){ .code = BPF_JMP | BPF_EXIT })

static unsigned program(struct bpf_insn *p)
{
    unsigned n = 0, last = 9 + 2 * ARRAY_N(allowed); /* index of "deny"; "allow" follows after two */
    p[n++] = LOAD(2, access_type);
    p[n++] = COPY(3, 2);
    p[n++] = ALU(BPF_AND, 2, 0xffff);
    p[n++] = ALU(BPF_RSH, 3, 16);
    p[n++] = LOAD(4, major);
    p[n++] = LOAD(5, minor);
    p[n] = JUMP(BPF_JEQ, 3, BPF_DEVCG_ACC_MKNOD, last + 2 - n - 1);
    n++;
    p[n] = JUMP(BPF_JNE, 2, BPF_DEVCG_DEV_CHAR, last - n - 1);
    n++;
    for (unsigned i = 0; i < ARRAY_N(allowed); i++) {
        p[n++] = JUMP(BPF_JNE, 4, allowed[i].major, 1);
        p[n] = allowed[i].minor == ANY ? JUMP(BPF_JA, 0, 0, last + 2 - n - 1)
                                       : JUMP(BPF_JEQ, 5, allowed[i].minor, last + 2 - n - 1);
        n++;
    }
    p[n++] = JUMP(BPF_JA, 0, 0, 0);
    ASSERT(n == last);
    p[n++] = ALU(BPF_MOV, 0, 0);
    p[n++] = EXIT;
    p[n++] = ALU(BPF_MOV, 0, 1);
    p[n++] = EXIT;
    return n;
}

int devices_restrict_v2(const char *group, struct err *e)
{
    struct bpf_insn p[64];
    AUTO_CLOSE int dir = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(e, errno, "%s", group);
    union bpf_attr load = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = program(p),
                            .insns = (uint64_t)(uintptr_t)p, .license = (uint64_t)(uintptr_t)"GPL" };
    AUTO_CLOSE int prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    if (prog < 0)
        return err_errno(e, errno, "load the device filter of the container");
    union bpf_attr attach = { .target_fd = (uint32_t)dir, .attach_bpf_fd = (uint32_t)prog, .attach_type = BPF_CGROUP_DEVICE,
                              .attach_flags = BPF_F_ALLOW_MULTI };
    return syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0
               ? err_errno(e, errno, "attach the device filter of the container") : 0;
}
