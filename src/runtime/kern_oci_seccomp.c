/* A bundle's own system call filter, compiled by libseccomp (config-linux.md "Seccomp"). Names that neither this library
 * nor this machine knows are skipped: such a call cannot be made by that name. */
#include "oci_internal.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SYSCALLS_MAX = 4096, NAMES_MAX = 4096, ARGS_MAX = 6 };

static const struct { const char *name; enum scmp_compare op; } operators[] = {
    { "SCMP_CMP_NE", SCMP_CMP_NE }, { "SCMP_CMP_LT", SCMP_CMP_LT }, { "SCMP_CMP_LE", SCMP_CMP_LE }, { "SCMP_CMP_EQ", SCMP_CMP_EQ },
    { "SCMP_CMP_GE", SCMP_CMP_GE }, { "SCMP_CMP_GT", SCMP_CMP_GT }, { "SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ } };
static const struct { const char *name; uint64_t flag; } flags[] = {
    { "SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC }, { "SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG },
    { "SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW } };
static const char *const actions[] = { "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP",
                                       "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", NULL };

static uint32_t action_of(struct oci_reader *r, const char *where, const char *name, int64_t number)
{
    const uint32_t values[] = { SCMP_ACT_KILL, SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_TRAP,
                                SCMP_ACT_ERRNO((uint32_t)number), SCMP_ACT_TRACE((uint32_t)number), SCMP_ACT_ALLOW, SCMP_ACT_LOG };
    for (unsigned i = 0; actions[i]; i++)
        if (str_equal(actions[i], name))
            return values[i];
    if (str_equal(name, "SCMP_ACT_NOTIFY"))
        oci_refuse(r, E_UNSUPPORTED, "%s: SCMP_ACT_NOTIFY is not supported: nobody here would answer", where);
    else
        oci_refuse(r, E_INVALID, "%s: \"%.64s\" is no action such as SCMP_ACT_ALLOW", where, name ? name : "");
    return SCMP_ACT_KILL_PROCESS;
}

static uint32_t arch_of(const char *name)
{
    char bare[32];
    unsigned n = 0;
    if (!str_starts(name, "SCMP_ARCH_") || strlen(name) > 40)
        return 0;
    for (const char *p = name + 10; *p && n < sizeof bare - 1; p++)
        bare[n++] = (char)(*p >= 'A' && *p <= 'Z' ? *p - 'A' + 'a' : *p);
    bare[n] = '\0';
    return seccomp_arch_resolve_name(bare);
}

static unsigned read_args(struct oci_reader *r, const struct val *v, const char *where, struct scmp_arg_cmp *out)
{
    const struct val *list = oci_member(r, v, where, "args", V_LIST);
    unsigned n = 0;
    for (uint32_t i = 0; list && i < list->n && r->r == 0; i++) {
        int64_t index = 0;
        uint64_t value = 0, second = 0;
        const char *op = oci_text(r, list->list[i], where, "op");
        unsigned k = 0;
        bool whole = oci_number(r, list->list[i], where, "index", 0, 5, &index) && oci_big(r, list->list[i], where, "value", &value);
        oci_big(r, list->list[i], where, "valueTwo", &second);
        while (k < ARRAY_N(operators) && !str_equal(operators[k].name, op))
            k++;
        if (!whole || k == ARRAY_N(operators) || n >= 64) {
            oci_refuse(r, E_INVALID, "%sargs must have index (0 to 5), value and op such as SCMP_CMP_EQ", where);
            return 0;
        }
        /* masked: value is the mask, valueTwo what must be left */
        out[n++] = (struct scmp_arg_cmp){ .arg = (unsigned)index, .op = operators[k].op, .datum_a = value, .datum_b = second };
    }
    return n;
}

/* Several conditions on one argument are alternatives (each a rule), as runc has it: libseccomp takes one for each. */
static int add_rules(scmp_filter_ctx c, uint32_t action, int call, const struct scmp_arg_cmp *args, unsigned n)
{
    unsigned seen = 0;
    bool twice = false;
    for (unsigned i = 0; i < n; i++) {
        twice |= seen >> args[i].arg & 1;
        seen |= 1u << args[i].arg;
    }
    if (!twice)
        return seccomp_rule_add_array(c, action, call, n, args);
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = seccomp_rule_add_array(c, action, call, 1, &args[i]);
    return rc;
}

static void read_call(struct oci_reader *r, scmp_filter_ctx c, uint32_t otherwise, const struct val *v, uint32_t i)
{
    char where[64];
    struct scmp_arg_cmp args[64];
    struct strs names = { 0 };
    int64_t number = EPERM;
    snprintf(where, sizeof where, "linux.seccomp.syscalls[%u].", i);
    oci_texts(r, v, where, "names", NAMES_MAX, &names);
    oci_number(r, v, where, "errnoRet", 0, 4095, &number);
    uint32_t action = action_of(r, where, oci_text(r, v, where, "action"), number);
    unsigned n = read_args(r, v, where, args);
    if (r->r == 0 && !names.n)
        oci_refuse(r, E_INVALID, "%snames is missing", where);
    for (uint32_t k = 0; k < names.n && r->r == 0 && action != otherwise; k++) {
        int call = seccomp_syscall_resolve_name(names.v[k]);
        int rc = call == __NR_SCMP_ERROR ? 0 : add_rules(c, action, call, args, n);
        if (rc < 0 && rc != -EEXIST)
            oci_refuse(r, E_INVALID, "%snames: rule for %.64s: %s", where, names.v[k], strerror(-rc));
    }
    strs_clear(&names);
}

static uint64_t read_flags(struct oci_reader *r, const struct val *profile)
{
    struct strs words = { 0 };
    uint64_t all = 0;
    oci_texts(r, profile, "linux.seccomp.", "flags", 16, &words);
    for (uint32_t i = 0; i < words.n; i++) {
        unsigned k = 0;
        while (k < ARRAY_N(flags) && !str_equal(flags[k].name, words.v[i]))
            k++;
        if (k == ARRAY_N(flags))
            oci_refuse(r, E_UNSUPPORTED, "linux.seccomp.flags: \"%.64s\" is not supported; leave it out", words.v[i]);
        else
            all |= flags[k].flag;
    }
    strs_clear(&words);
    return all;
}

static void add_archs(struct oci_reader *r, scmp_filter_ctx c, const struct val *profile)
{
    struct strs names = { 0 };
    oci_texts(r, profile, "linux.seccomp.", "architectures", 64, &names);
    for (uint32_t i = 0; i < names.n && r->r == 0; i++) {
        uint32_t arch = arch_of(names.v[i]);
        int rc = arch ? seccomp_arch_add(c, arch) : -EINVAL;
        if (rc < 0 && rc != -EEXIST)
            oci_refuse(r, E_INVALID, "linux.seccomp.architectures: \"%.64s\" is not known to this machine's libseccomp", names.v[i]);
    }
    strs_clear(&names);
}

static int export(scmp_filter_ctx c, struct seccomp_program *ret)
{
    struct stat st;
    AUTO_CLOSE int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0 || seccomp_export_bpf(c, fd) < 0 || fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0 ||
        (size_t)st.st_size > BPF_MAXINSNS * sizeof(struct sock_filter))
        return -1;
    void *p = xcalloc(1, (size_t)st.st_size + 1);
    if (read(fd, p, (size_t)st.st_size) != st.st_size) {
        free(p);
        return -1;
    }
    *ret = (struct seccomp_program){ p, (uint16_t)((size_t)st.st_size / sizeof(struct sock_filter)) };
    return 0;
}

int oci_seccomp_build(const struct val *profile, struct seccomp_program *ret, uint64_t *ret_flags, struct err *e)
{
    struct oci_reader reader = { .e = e }, *r = &reader;
    int64_t number = EPERM;
    oci_number(r, profile, "linux.seccomp.", "defaultErrnoRet", 0, 4095, &number);
    uint32_t otherwise = action_of(r, "linux.seccomp.defaultAction", oci_text(r, profile, "linux.seccomp.", "defaultAction"), number);
    if (oci_text(r, profile, "linux.seccomp.", "listenerPath") || oci_text(r, profile, "linux.seccomp.", "listenerMetadata"))
        oci_refuse(r, E_UNSUPPORTED, "linux.seccomp.listenerPath is not supported; leave it out");
    uint64_t wanted = read_flags(r, profile);
    if (r->r < 0)
        return r->r;
    scmp_filter_ctx c = seccomp_init(otherwise);
    if (!c)
        return err_set(e, E_INTERNAL, "cannot begin a system call filter");
    (void)seccomp_attr_set(c, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree instead of a chain */
    add_archs(r, c, profile);
    const struct val *calls = oci_member(r, profile, "linux.seccomp.", "syscalls", V_LIST);
    if (calls && calls->n > SYSCALLS_MAX)
        oci_refuse(r, E_TOO_BIG, "linux.seccomp.syscalls has %u elements, at most %d are taken", calls->n, SYSCALLS_MAX);
    for (uint32_t i = 0; calls && i < calls->n && r->r == 0; i++)
        read_call(r, c, otherwise, calls->list[i], i);
    if (r->r == 0 && export(c, ret) < 0)
        r->r = err_set(e, E_INVALID, "linux.seccomp: the filter cannot be compiled, or is bigger than the kernel takes");
    seccomp_release(c);
    *ret_flags = wanted;
    return r->r;
}

const char *oci_seccomp_version(void)
{
    static char text[48];
    const struct scmp_version *v = seccomp_version();
    snprintf(text, sizeof text, "%u.%u.%u", v ? v->major : 0, v ? v->minor : 0, v ? v->micro : 0);
    return text;
}

void oci_seccomp_features(struct val_doc *d, struct val *to)
{
    struct val *a = val_list(d), *o = val_list(d), *f = val_list(d);
    val_set(d, to, "enabled", val_bool(d, true));
    for (unsigned i = 0; actions[i]; i++)
        val_push(d, a, val_str(d, actions[i]));
    for (unsigned i = 0; i < ARRAY_N(operators); i++)
        val_push(d, o, val_str(d, operators[i].name));
    for (unsigned i = 0; i < ARRAY_N(flags); i++)
        val_push(d, f, val_str(d, flags[i].name));
    val_set(d, to, "actions", a);
    val_set(d, to, "operators", o);
    val_set(d, to, "knownFlags", f);
    val_set(d, to, "supportedFlags", val_copy(d, f));
}
