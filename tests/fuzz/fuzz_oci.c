/* config.json and process.json of OCI bundles. Oracles: what is read packs and unpacks to the same record, whose paths are
 * absolute and whose group is below its parent; what is refused has a sentence. The first byte chooses the reader. */
#include "fuzz.h"

#include "oci_internal.h"

static void check_process(const struct oci_process *p)
{
    ASSERT(p->argv.n && p->cwd && p->cwd[0] == '/' && p->umask <= 0777);
    for (uint32_t i = 0; i < p->ulimits.n; i++)
        ASSERT(p->ulimits.v[i].soft >= -1 && p->ulimits.v[i].hard >= -1);
}

static void check_bundle(const struct oci_bundle *b)
{
    check_process(&b->process);
    ASSERT(b->root && b->root[0] == '/' && b->cgroup && b->cgroup[0] && !strchr(b->cgroup, '/') && !str_equal(b->cgroup, ".."));
    for (const char *p = oci_cgroup_parent(b); *p; p += strcspn(p, "/"), p += strspn(p, "/"))
        ASSERT(!(p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2])));
    for (uint32_t i = 0; i < b->mounts.n; i++)
        ASSERT(b->mounts.v[i].target[0] == '/' && (!(b->mounts.v[i].flags & 4096 /* MS_BIND */) || b->mounts.v[i].source[0] == '/'));
    for (uint32_t i = 0; i < b->devices.n; i++)
        ASSERT(b->devices.v[i].path[0] == '/');
    for (uint32_t i = 0; i < b->settings.n; i++)
        for (unsigned v2 = 0; v2 < 2; v2++) {
            const char *file = v2 ? b->settings.v[i].v2_file : b->settings.v[i].v1_file;
            ASSERT(!file || !strchr(file, '/'));
        }
    for (uint32_t i = 0; i < b->hooks.n; i++)
        ASSERT(b->hooks.v[i].path[0] == '/');
}

static void round_trip(const struct rec *t, const void *record, void *again)
{
    AUTO_SB struct sb b;
    struct err e = { 0 };
    sb_init(&b, OCI_BUNDLE_MAX_BYTES);
    rec_pack(t, record, &b);
    int rc = rec_unpack(t, again, b.s, b.len, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    ASSERT(rc == 0 && rec_equal(t, record, again));
    rec_clear(t, again);
}

static void read_config(const char *text, size_t size)
{
    struct oci_bundle b = { 0 }, again = { 0 };
    struct val_doc *doc = NULL;
    const struct val *profile = NULL;
    struct seccomp_program f = { 0 };
    struct err e = { 0 };
    uint64_t flags;
    if (oci_config_read(&b, text, size, "id", "/bundle", &doc, &profile, &e) < 0) {
        ASSERT(e.text[0]);
    } else {
        check_bundle(&b);
        round_trip(&oci_bundle_rec, &b, &again);
        e.text[0] = '\0';
        if (profile && oci_seccomp_build(profile, &f, &flags, &e) < 0)
            ASSERT(e.text[0]);
        seccomp_free(&f);
        val_doc_free(doc);
    }
    oci_bundle_clear(&b);
}

static void read_process(const char *text, size_t size)
{
    struct oci_process p = { 0 }, again = { 0 };
    struct err e = { 0 };
    if (oci_process_read(&p, text, size, &e) < 0) {
        ASSERT(e.text[0]);
    } else {
        check_process(&p);
        round_trip(&oci_process_rec, &p, &again);
    }
    oci_process_clear(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    if (!size)
        return 0;
    if (p[0] & 1)
        read_process((const char *)p + 1, size - 1);
    else
        read_config((const char *)p + 1, size - 1);
    return 0;
}

const unsigned fuzz_rounds = 3000;
const char *const fuzz_words[] = { "\"process\":", "\"linux\":", "\"mounts\":", "\"hooks\":", "\"resources\":", "\"seccomp\":", "null", "[]",
                                   "{}", "-1", "18446744073709551615", "18446744073709551616", "9223372036854775808", "1.5",
                                   "\"..\"", "\"/..\"", "\"a/../b\"", "\"\\u0000\"", "\"rbind\"", "\"idmap\"", "\"RLIMIT_NOFILE\"",
                                   "\"CAP_SYS_ADMIN\"", "\"SCMP_ACT_NOTIFY\"", "\"SCMP_CMP_MASKED_EQ\"", "\"SCMP_ARCH_X86\"", "true",
                                   "\"user\"", "\"/\"", "\"a:b:c\"", NULL };

static const char process[] = "{\"terminal\":true,\"consoleSize\":{\"height\":24,\"width\":80},\"user\":{\"uid\":%u,\"gid\":5,\"umask\":18,"
    "\"additionalGids\":[1,2]},\"args\":[\"sh\",\"-c\",\"true\"],\"env\":[\"A=b\"],\"cwd\":\"/tmp\",\"capabilities\":{\"bounding\":[\"CAP_CHOWN\"],"
    "\"ambient\":[\"CAP_KILL\"]},\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":18446744073709551615,\"hard\":1024}],\"oomScoreAdj\":-5,"
    "\"ioPriority\":{\"class\":\"IOPRIO_CLASS_BE\",\"priority\":3},\"noNewPrivileges\":true}";

static const char *const parts[] = {
    ("\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},{\"destination\":\"/d\",\"type\":\"bind\",\"source\":\"x\","
        "\"options\":[\"rbind\",\"ro\",\"rslave\",\"rnosuid\"]},{\"destination\":\"t\",\"type\":\"tmpfs\",\"options\":[\"size=1k\",\"mode=700\"]}]"),
    ("\"hooks\":{\"prestart\":[{\"path\":\"/bin/h\",\"args\":[\"h\"],\"env\":[\"X=1\"],\"timeout\":3}],\"poststop\":[{\"path\":\"/bin/h\"}]}"),
    ("\"hostname\":\"box\",\"domainname\":\"d\",\"annotations\":{\"a\":\"b\"},\"unknown\":{\"x\":[1]}"),
};
static const char *const linux_parts[] = {
    ("\"resources\":{\"memory\":{\"limit\":1000000,\"swap\":2000000,\"reservation\":-1},\"cpu\":{\"shares\":1024,\"quota\":-1,\"period\":100000,"
        "\"cpus\":\"0\"},\"pids\":{\"limit\":0},\"blockIO\":{\"weight\":100,\"throttleReadBpsDevice\":[{\"major\":8,\"minor\":0,\"rate\":5}]},"
        "\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":18446744073709551615}],\"rdma\":{\"m\":{\"hcaHandles\":2}},"
        "\"network\":{\"classID\":5,\"priorities\":[{\"name\":\"lo\",\"priority\":1}]},\"unified\":{\"memory.high\":\"5\"},"
        "\"devices\":[{\"allow\":false,\"access\":\"rwm\"},{\"allow\":true,\"type\":\"c\",\"major\":1,\"access\":\"rw\"}]}"),
    ("\"devices\":[{\"path\":\"/dev/fuse\",\"type\":\"c\",\"major\":10,\"minor\":229,\"fileMode\":438,\"uid\":0,\"gid\":0},{\"path\":\"/f\",\"type\":\"p\"}]"),
    ("\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":38,\"architectures\":[\"SCMP_ARCH_X86_64\"],\"flags\":[\"SECCOMP_FILTER_FLAG_LOG\"],"
        "\"syscalls\":[{\"names\":[\"read\",\"nosuchcall\"],\"action\":\"SCMP_ACT_ALLOW\"},{\"names\":[\"clone\"],\"action\":\"SCMP_ACT_ALLOW\","
        "\"args\":[{\"index\":0,\"value\":2114060288,\"valueTwo\":0,\"op\":\"SCMP_CMP_MASKED_EQ\"}]}]}"),
    ("\"cgroupsPath\":\"/a//b/./c\",\"rootfsPropagation\":\"slave\",\"maskedPaths\":[\"/proc/kcore\"],\"readonlyPaths\":[\"/proc/sys\"]"),
    ("\"sysctl\":{\"net.ipv4.ip_forward\":\"1\",\"kernel.shmmax\":\"5\"},\"personality\":{\"domain\":\"LINUX32\"}"),
};

void fuzz_sample(struct rng *g, struct sb *b)
{
    struct err e = { 0 };
    struct oci_bundle bundle = { 0 };
    struct oci_process one = { 0 };
    struct val_doc *doc = NULL;
    const struct val *profile = NULL;
    unsigned uid = (unsigned)rng_below(g, 65536);
    if (rng_below(g, 4) == 0) {
        sb_char(b, 1);
        sb_printf(b, process, uid);
        int rc = oci_process_read(&one, b->s + 1, b->len - 1, &e);
        ASSERT(rc == 0 && one.uid == uid && one.ulimits.v[0].soft == -1 && one.ulimits.v[0].hard == 1024);
        oci_process_clear(&one);
        return;
    }
    sb_char(b, 0);
    sb_str(b, "{\"ociVersion\":\"1.0.2\",\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"process\":");
    sb_printf(b, process, uid);
    for (unsigned i = 0; i < ARRAY_N(parts); i++)
        if (rng_chance(g, 500))
            sb_printf(b, ",%s", parts[i]);
    sb_str(b, ",\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"uts\"},{\"type\":\"ipc\"},{\"type\":\"network\",\"path\":\"/run/ns\"}]");
    for (unsigned i = 0; i < ARRAY_N(linux_parts); i++)
        if (rng_chance(g, 500))
            sb_printf(b, ",%s", linux_parts[i]);
    sb_str(b, "}}");
    int rc = oci_config_read(&bundle, b->s + 1, b->len - 1, "id", "/bundle", &doc, &profile, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    ASSERT(rc == 0 && bundle.process.uid == uid && str_equal(bundle.root, "/bundle/rootfs") && bundle.namespaces.n == 4);
    if (profile) {
        struct seccomp_program f = { 0 };
        uint64_t flags = 0;
        ASSERT(oci_seccomp_build(profile, &f, &flags, &e) == 0 && f.n && flags == 2 /* LOG */);
        seccomp_free(&f);
    }
    val_doc_free(doc);
    oci_bundle_clear(&bundle);
}
