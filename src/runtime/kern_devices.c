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

enum { RULE_INSNS_MAX = 8, ANY = -1, ALL = DEVICE_MAKE | DEVICE_READ | DEVICE_WRITE };
static const struct device_rule every[] = {
    { true, 'c', ANY, ANY, DEVICE_MAKE }, { true, 'b', ANY, ANY, DEVICE_MAKE }, /* which stay dead */
    { true, 'c', 1, 3, ALL }, { true, 'c', 1, 5, ALL }, { true, 'c', 1, 7, ALL }, /* null zero full */
    { true, 'c', 1, 8, ALL }, { true, 'c', 1, 9, ALL },                           /* random urandom */
    { true, 'c', 5, 0, ALL }, { true, 'c', 5, 1, ALL }, { true, 'c', 5, 2, ALL }, /* tty console ptmx */
    { true, 'c', 136, ANY, ALL },                                                 /* pts */
};

static int write_rule(const char *group, const struct device_rule *d, struct err *e)
{
    char path[512], text[64], major[16] = "*", minor[16] = "*";
    snprintf(path, sizeof path, "%s/devices.%s", group, d->allow ? "allow" : "deny");
    if (d->major != ANY)
        snprintf(major, sizeof major, "%d", (int)d->major);
    if (d->minor != ANY)
        snprintf(minor, sizeof minor, "%d", (int)d->minor);
    snprintf(text, sizeof text, "%c %s:%s %s%s%s", (int)d->type, major, minor, d->access & DEVICE_READ ? "r" : "",
             d->access & DEVICE_WRITE ? "w" : "", d->access & DEVICE_MAKE ? "m" : "");
    return file_poke(path, d->type == 'a' ? "a" : text, e);
}

int devices_restrict_v1(const char *group, const struct device_rule *rules, unsigned n, struct err *e)
{
    static const struct device_rule nothing = { false, 'a', ANY, ANY, ALL };
    int r = write_rule(group, &nothing, e);
    for (unsigned i = 0; i < n && r == 0; i++)
        r = write_rule(group, &rules[i], e);
    for (unsigned i = 0; i < ARRAY_N(every) && r == 0; i++)
        r = write_rule(group, &every[i], e);
    return r;
}

#define LOAD(dst, field) ((struct bpf_insn){ .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = dst, .src_reg = 1, \
                                             .off = offsetof(struct bpf_cgroup_dev_ctx, field) })
#define ALU(op, dst, value) ((struct bpf_insn){ .code = BPF_ALU | (op) | BPF_K, .dst_reg = dst, .imm = value })
#define COPY(dst, src) ((struct bpf_insn){ .code = BPF_ALU | BPF_MOV | BPF_X, .dst_reg = dst, .src_reg = src })
#define JUMP(op, reg, value, distance) ((struct bpf_insn){ .code = BPF_JMP | (op) | BPF_K, .dst_reg = reg, \
                                                           .off = (int16_t)(distance), .imm = value })
#define EXIT ((struct bpf_insn){ .code = BPF_JMP | BPF_EXIT })

/* One rule: each test that fails jumps to the next rule. */
static unsigned rule_program(struct bpf_insn *p, const struct device_rule *d)
{
    unsigned n = 0, tests[4], n_tests = 0;
    if (d->type != 'a') {
        tests[n_tests++] = n;
        p[n++] = JUMP(BPF_JNE, 2, d->type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK, 0);
    }
    if (d->access != ALL) { /* may ask for more than one thing at once: each must be in the rule */
        p[n++] = COPY(0, 3);
        p[n++] = ALU(BPF_AND, 0, (int32_t)(ALL & ~d->access));
        tests[n_tests++] = n;
        p[n++] = JUMP(BPF_JNE, 0, 0, 0);
    }
    if (d->major != ANY) {
        tests[n_tests++] = n;
        p[n++] = JUMP(BPF_JNE, 4, (int32_t)d->major, 0);
    }
    if (d->minor != ANY) {
        tests[n_tests++] = n;
        p[n++] = JUMP(BPF_JNE, 5, (int32_t)d->minor, 0);
    }
    p[n++] = ALU(BPF_MOV, 0, d->allow);
    p[n++] = EXIT;
    for (unsigned i = 0; i < n_tests; i++)
        p[tests[i]].off = (int16_t)(n - tests[i] - 1);
    return n;
}

/* The last rule that fits decides, so the last is asked first. After one that fits everything nothing is reached, which
 * the verifier of the kernel refuses. */
static unsigned program(struct bpf_insn *p, const struct device_rule *rules, unsigned n_rules)
{
    unsigned n = 0;
    p[n++] = LOAD(2, access_type);
    p[n++] = COPY(3, 2);
    p[n++] = ALU(BPF_AND, 2, 0xffff);
    p[n++] = ALU(BPF_RSH, 3, 16);
    p[n++] = LOAD(4, major);
    p[n++] = LOAD(5, minor);
    for (unsigned i = ARRAY_N(every); i-- > 0;)
        n += rule_program(p + n, &every[i]);
    for (unsigned i = n_rules; i-- > 0;) {
        n += rule_program(p + n, &rules[i]);
        if (rules[i].type == 'a' && rules[i].access == ALL)
            return n;
    }
    p[n++] = ALU(BPF_MOV, 0, 0);
    p[n++] = EXIT;
    return n;
}

int devices_restrict_v2(const char *group, const struct device_rule *rules, unsigned n_rules, struct err *e)
{
    AUTO_FREE struct bpf_insn *p = xcalloc(8 + RULE_INSNS_MAX * (n_rules + ARRAY_N(every)), sizeof *p);
    AUTO_CLOSE int dir = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(e, errno, "%s", group);
    union bpf_attr load = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = program(p, rules, n_rules),
                            .insns = (uint64_t)(uintptr_t)p, .license = (uint64_t)(uintptr_t)"GPL" };
    AUTO_CLOSE int prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    if (prog < 0)
        return err_errno(e, errno, "load the device filter of the container");
    union bpf_attr attach = { .target_fd = (uint32_t)dir, .attach_bpf_fd = (uint32_t)prog, .attach_type = BPF_CGROUP_DEVICE,
                              .attach_flags = BPF_F_ALLOW_MULTI };
    return syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0
               ? err_errno(e, errno, "attach the device filter of the container") : 0;
}
