/* config.json of an OCI bundle to records. Pure; the text comes from a stranger. What the specification knows and
 * shoal cannot do is refused by its path; what the specification does not know is skipped, as it demands. */
#include "oci_internal.h"
#include <linux/ioprio.h>
#include <sched.h>
#include <stdio.h>
#include <strings.h>
#include <sys/personality.h>

enum { PERSONALITY_LINUX = PER_LINUX, PERSONALITY_LINUX32 = PER_LINUX32 };

/* ---- reading members ---- */
void oci_refuse(struct oci_reader *r, int code, const char *fmt, ...)
{
    va_list ap;
    char text[400];
    if (r->r < 0)
        return; /* the first reason stays */
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->r = err_set(r->e, code, "config.json: %s", text);
}

const struct val *oci_member(struct oci_reader *r, const struct val *map, const char *where, const char *name, enum val_kind kind)
{
    static const char *const words[] = { [V_BOOL] = "true or false", [V_INT] = "a whole number", [V_STR] = "a string",
                                         [V_LIST] = "a list", [V_MAP] = "an object" };
    const struct val *v = val_get(map, name);
    if (!v || v->kind == V_NULL)
        return NULL;
    if (v->kind == kind)
        return v;
    oci_refuse(r, E_INVALID, "%s%s must be %s", where, name, words[kind]);
    return NULL;
}

const char *oci_text(struct oci_reader *r, const struct val *map, const char *where, const char *name)
{
    const struct val *v = oci_member(r, map, where, name, V_STR);
    if (v && strlen(v->s) != v->n) {
        oci_refuse(r, E_INVALID, "%s%s has a NUL in it", where, name);
        return NULL;
    }
    return v && v->n ? v->s : NULL;
}

bool oci_number(struct oci_reader *r, const struct val *map, const char *where, const char *name, int64_t min, int64_t max,
                int64_t *ret)
{
    const struct val *v = oci_member(r, map, where, name, V_INT);
    if (!v)
        return false;
    if (v->i < min || v->i > max) {
        oci_refuse(r, E_INVALID, "%s%s is %lld, it must be from %lld to %lld", where, name, (long long)v->i, (long long)min,
                   (long long)max);
        return false;
    }
    *ret = v->i;
    return true;
}

bool oci_big(struct oci_reader *r, const struct val *map, const char *where, const char *name, uint64_t *ret)
{
    const struct val *v = val_get(map, name);
    int64_t n;
    if (v && v->kind == V_STR && str_u64(v->s, (uint64_t)INT64_MAX + 1, UINT64_MAX, ret)) /* quote_big() */
        return true;
    if (!oci_number(r, map, where, name, 0, INT64_MAX, &n))
        return false;
    *ret = (uint64_t)n;
    return true;
}

bool oci_flag(struct oci_reader *r, const struct val *map, const char *where, const char *name)
{
    const struct val *v = oci_member(r, map, where, name, V_BOOL);
    return v && v->b;
}

void oci_texts(struct oci_reader *r, const struct val *map, const char *where, const char *name, unsigned max, struct strs *ret)
{
    const struct val *v = oci_member(r, map, where, name, V_LIST);
    if (v && v->n > max)
        oci_refuse(r, E_TOO_BIG, "%s%s has %u elements, at most %u are taken", where, name, v->n, max);
    for (uint32_t i = 0; v && i < v->n && r->r == 0; i++) {
        const struct val *x = v->list[i];
        if (x->kind != V_STR || strlen(x->s) != x->n)
            oci_refuse(r, E_INVALID, "%s%s[%u] must be a string without NULs", where, name, i);
        else
            strs_add(ret, x->s);
    }
}

static void labels(struct oci_reader *r, const struct val *map, const char *where, const char *name, unsigned max,
                   struct labels *ret)
{
    const struct val *v = oci_member(r, map, where, name, V_MAP);
    if (v && v->n > max)
        oci_refuse(r, E_TOO_BIG, "%s%s has %u members, at most %u are taken", where, name, v->n, max);
    for (uint32_t i = 0; v && i < v->n && r->r == 0; i++) {
        const struct val *key = v->map[i].key, *x = v->map[i].value;
        if (x->kind != V_STR || strlen(x->s) != x->n || strlen(key->s) != key->n)
            oci_refuse(r, E_INVALID, "%s%s.%.100s must be a string without NULs", where, name, key->s);
        else
            labels_set(ret, key->s, x->s);
    }
}

/* A member that says something, of which nothing is done here. */
static void unbuilt(struct oci_reader *r, const struct val *map, const char *where, const char *name, const char *cure)
{
    const struct val *v = val_get(map, name);
    bool empty = !v || v->kind == V_NULL || (v->kind == V_BOOL && !v->b) ||
                 ((v->kind == V_STR || v->kind == V_LIST || v->kind == V_MAP) && v->n == 0);
    if (!empty)
        oci_refuse(r, E_UNSUPPORTED, "%s%s is not supported; %s", where, name, cure);
}

/* ---- process ---- */
static void read_user(struct oci_reader *r, const struct val *process, struct oci_process *p)
{
    int64_t n;
    const struct val *user = oci_member(r, process, "process.", "user", V_MAP);
    const struct val *groups = oci_member(r, user, "process.user.", "additionalGids", V_LIST);
    if (oci_number(r, user, "process.user.", "uid", 0, UINT32_MAX - 1, &n))
        p->uid = (uint64_t)n;
    if (oci_number(r, user, "process.user.", "gid", 0, UINT32_MAX - 1, &n))
        p->gid = (uint64_t)n;
    p->umask = 0022;
    if (oci_number(r, user, "process.user.", "umask", 0, 0777, &n))
        p->umask = (uint64_t)n;
    if (groups && groups->n > 64)
        oci_refuse(r, E_TOO_BIG, "process.user.additionalGids has %u elements, at most 64 are taken", groups->n);
    for (uint32_t i = 0; groups && i < groups->n && r->r == 0; i++) {
        char text[32];
        if (groups->list[i]->kind != V_INT || groups->list[i]->i < 0 || groups->list[i]->i >= UINT32_MAX) {
            oci_refuse(r, E_INVALID, "process.user.additionalGids[%u] is no group number", i);
            return;
        }
        snprintf(text, sizeof text, "%lld", (long long)groups->list[i]->i);
        strs_add(&p->groups, text);
    }
}

static void read_capabilities(struct oci_reader *r, const struct val *process, struct oci_process *p)
{
    static const char where[] = "process.capabilities.";
    struct { const char *name; uint64_t *mask; } sets[] = {
        { "bounding", &p->bounding }, { "permitted", &p->permitted }, { "effective", &p->effective },
        { "inheritable", &p->inheritable }, { "ambient", &p->ambient },
    };
    const struct val *v = oci_member(r, process, "process.", "capabilities", V_MAP);
    for (unsigned i = 0; i < ARRAY_N(sets) && r->r == 0; i++) {
        struct strs names = { 0 };
        struct err e;
        uint64_t mask;
        oci_texts(r, v, where, sets[i].name, 256, &names);
        for (uint32_t k = 0; k < names.n && r->r == 0; k++) {
            if (!str_starts(names.v[k], "CAP_") || capability_mask(names.v[k], &mask, &e) < 0)
                oci_refuse(r, E_INVALID, "%s%s: unknown capability \"%.64s\"; see capabilities(7)", where, sets[i].name, names.v[k]);
            else
                *sets[i].mask |= mask;
        }
        strs_clear(&names);
    }
}

static void read_rlimits(struct oci_reader *r, const struct val *process, struct oci_process *p)
{
    const struct val *list = oci_member(r, process, "process.", "rlimits", V_LIST);
    if (list && list->n > 32)
        oci_refuse(r, E_TOO_BIG, "process.rlimits has %u elements, there are not so many", list->n);
    for (uint32_t i = 0; list && i < list->n && r->r == 0; i++) {
        uint64_t soft = 0, hard = 0;
        char where[64], name[16];
        snprintf(where, sizeof where, "process.rlimits[%u].", i);
        const char *type = oci_text(r, list->list[i], where, "type");
        if (!type || !str_starts(type, "RLIMIT_") || strlen(type + 7) >= sizeof name ||
            !oci_big(r, list->list[i], where, "soft", &soft) || !oci_big(r, list->list[i], where, "hard", &hard)) {
            oci_refuse(r, E_INVALID, "%s must have type (RLIMIT_...), soft and hard", where);
            return;
        }
        unsigned k = 0;
        for (const char *c = type + 7; *c; c++)
            name[k++] = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
        name[k] = '\0';
        for (uint32_t j = 0; j < p->ulimits.n; j++)
            if (str_equal(p->ulimits.v[j].name, name))
                oci_refuse(r, E_INVALID, "process.rlimits has %s twice", type);
        struct container_ulimit *u = REC_ADD(&p->ulimits);
        str_set(&u->name, name);
        u->soft = soft > INT64_MAX ? -1 : (int64_t)soft;
        u->hard = hard > INT64_MAX ? -1 : (int64_t)hard;
    }
}

static void read_io_priority(struct oci_reader *r, const struct val *process, struct oci_process *p)
{
    static const struct { const char *name; unsigned number; } classes[] = {
        { "IOPRIO_CLASS_RT", IOPRIO_CLASS_RT }, { "IOPRIO_CLASS_BE", IOPRIO_CLASS_BE }, { "IOPRIO_CLASS_IDLE", IOPRIO_CLASS_IDLE } };
    const struct val *v = oci_member(r, process, "process.", "ioPriority", V_MAP);
    const char *name = oci_text(r, v, "process.ioPriority.", "class");
    int64_t level = 0;
    oci_number(r, v, "process.ioPriority.", "priority", 0, 7, &level);
    for (unsigned i = 0; name && i < ARRAY_N(classes); i++)
        if (str_equal(classes[i].name, name))
            p->io_priority = IOPRIO_PRIO_VALUE(classes[i].number, (unsigned)level);
    if (v && !p->io_priority)
        oci_refuse(r, E_INVALID, "process.ioPriority.class must be IOPRIO_CLASS_RT, _BE or _IDLE");
}

static void read_process(struct oci_reader *r, const struct val *v, struct oci_process *p)
{
    int64_t n;
    const struct val *size = oci_member(r, v, "process.", "consoleSize", V_MAP);
    oci_texts(r, v, "process.", "args", OCI_LIST_MAX, &p->argv);
    oci_texts(r, v, "process.", "env", OCI_LIST_MAX, &p->env);
    str_set(&p->cwd, oci_text(r, v, "process.", "cwd"));
    read_user(r, v, p);
    read_capabilities(r, v, p);
    read_rlimits(r, v, p);
    read_io_priority(r, v, p);
    p->tty = oci_flag(r, v, "process.", "terminal");
    if (oci_number(r, size, "process.consoleSize.", "height", 0, 65535, &n))
        p->rows = (uint64_t)n;
    if (oci_number(r, size, "process.consoleSize.", "width", 0, 65535, &n))
        p->cols = (uint64_t)n;
    p->no_new_privs = oci_flag(r, v, "process.", "noNewPrivileges");
    p->has_oom_score_adj = oci_number(r, v, "process.", "oomScoreAdj", -1000, 1000, &p->oom_score_adj);
    unbuilt(r, v, "process.", "apparmorProfile", "leave it out");
    unbuilt(r, v, "process.", "selinuxLabel", "leave it out");
    unbuilt(r, v, "process.", "scheduler", "leave it out");
    unbuilt(r, v, "process.", "execCPUAffinity", "use linux.resources.cpu.cpus");
    if (!p->argv.n || !p->argv.v[0][0])
        oci_refuse(r, E_INVALID, "process.args must name a program");
    if (!p->cwd || p->cwd[0] != '/')
        oci_refuse(r, E_INVALID, "process.cwd must be an absolute path");
}

/* ---- linux ---- */
static void read_namespaces(struct oci_reader *r, const struct val *spec, struct oci_bundle *b)
{
    static const struct { const char *name; unsigned flag; } types[] = {
        { "mount", CLONE_NEWNS }, { "pid", CLONE_NEWPID }, { "network", CLONE_NEWNET }, { "uts", CLONE_NEWUTS },
        { "ipc", CLONE_NEWIPC }, { "cgroup", CLONE_NEWCGROUP }, { "user", CLONE_NEWUSER }, { "time", 0 } };
    const struct val *list = oci_member(r, spec, "linux.", "namespaces", V_LIST);
    for (uint32_t i = 0; list && i < list->n && r->r == 0; i++) {
        char where[64];
        snprintf(where, sizeof where, "linux.namespaces[%u].", i);
        const char *type = oci_text(r, list->list[i], where, "type"), *path = oci_text(r, list->list[i], where, "path");
        unsigned k = 0;
        while (type && k < ARRAY_N(types) && !str_equal(types[k].name, type))
            k++;
        if (!type || k == ARRAY_N(types)) {
            oci_refuse(r, E_INVALID, "%stype must be mount, pid, network, uts, ipc, cgroup, user or time", where);
        } else if (!types[k].flag || types[k].flag == CLONE_NEWUSER) {
            oci_refuse(r, E_UNSUPPORTED, "%stype: %s namespaces are not supported; leave it out", where, type);
        } else if (oci_namespace_find(b, types[k].flag)) {
            oci_refuse(r, E_INVALID, "linux.namespaces has type %s twice", type);
        } else if (path && (path[0] != '/' || types[k].flag == CLONE_NEWNS)) {
            oci_refuse(r, path[0] != '/' ? E_INVALID : E_UNSUPPORTED, "%spath: %s", where,
                       path[0] != '/' ? "must be absolute" : "a mount namespace that exists cannot be joined; leave the path out");
        } else {
            struct oci_namespace *n = REC_ADD(&b->namespaces);
            n->flag = types[k].flag;
            str_set(&n->path, path);
        }
    }
    if (!oci_namespace_find(b, CLONE_NEWNS))
        oci_refuse(r, E_UNSUPPORTED, "linux.namespaces must have one of type mount: a container without is not supported");
}

static void read_devices(struct oci_reader *r, const struct val *spec, struct oci_bundle *b)
{
    const struct val *list = oci_member(r, spec, "linux.", "devices", V_LIST);
    if (list && list->n > 4096)
        oci_refuse(r, E_TOO_BIG, "linux.devices has %u elements, at most 4096 are taken", list->n);
    for (uint32_t i = 0; list && i < list->n && r->r == 0; i++) {
        const struct val *v = list->list[i];
        char where[64];
        int64_t major = 0, minor = 0, mode = 0666, uid = 0, gid = 0;
        snprintf(where, sizeof where, "linux.devices[%u].", i);
        const char *type = oci_text(r, v, where, "type"), *path = oci_text(r, v, where, "path");
        bool has_major = oci_number(r, v, where, "major", 0, UINT32_MAX, &major);
        bool numbered = oci_number(r, v, where, "minor", 0, UINT32_MAX, &minor) && has_major;
        oci_number(r, v, where, "fileMode", 0, 0177777, &mode);
        oci_number(r, v, where, "uid", 0, UINT32_MAX - 1, &uid);
        oci_number(r, v, where, "gid", 0, UINT32_MAX - 1, &gid);
        unsigned format = !type || type[1] ? 0 : *type == 'c' || *type == 'u' ? 0020000 : *type == 'b' ? 0060000 : *type == 'p' ? 0010000 : 0;
        if (!format || (format != 0010000 && !numbered))
            oci_refuse(r, E_INVALID, "%s must have type c, b, u or p, and but for p major and minor", where);
        if (!path || path[0] != '/' || strlen(path) > 4095)
            oci_refuse(r, E_INVALID, "%spath must be absolute", where);
        if (r->r < 0)
            return;
        struct oci_device *d = REC_ADD(&b->devices);
        str_set(&d->path, path);
        d->mode = format | ((uint64_t)mode & 07777);
        d->major = (uint64_t)major;
        d->minor = (uint64_t)minor;
        d->uid = (uint64_t)uid;
        d->gid = (uint64_t)gid;
    }
}

/* Only what belongs to a namespace of the container's own may be set. */
static void check_sysctls(struct oci_reader *r, const struct oci_bundle *b)
{
    for (uint32_t i = 0; i < b->sysctls.n; i++) {
        const char *key = b->sysctls.v[i].key;
        const char *type = NULL;
        unsigned flag = oci_sysctl_namespace(key, &type);
        if (!flag || strstr(key, "..") || strchr(key, '/') || strlen(key) > 256)
            oci_refuse(r, E_INVALID, "linux.sysctl.%.100s is not of a container's own namespaces; only net.*, fs.mqueue.*, "
                       "kernel.msg*, kernel.shm*, kernel.sem and kernel.domainname are", key);
        else if (!oci_namespace_find(b, flag))
            oci_refuse(r, E_INVALID, "linux.sysctl.%.100s would change the host: linux.namespaces has no type %s", key, type);
    }
}

/* "/a/b/c": group c below a/b, in the root of each hierarchy. */
static void read_cgroup(struct oci_reader *r, const struct val *spec, struct oci_bundle *b)
{
    const char *path = oci_text(r, spec, "linux.", "cgroupsPath");
    char whole[256] = "";
    size_t n = 0;
    if (!path) {
        str_set(&b->cgroup_parent, "shoal-oci");
        str_set(&b->cgroup, b->id);
        return;
    }
    if (strchr(path, ':')) {
        oci_refuse(r, E_UNSUPPORTED, "linux.cgroupsPath \"%.100s\" is for systemd; give a path such as /shoal/%.64s", path, b->id);
        return;
    }
    for (const char *p = path; *p;) {
        size_t len = strcspn(p, "/");
        if (len && !(len == 1 && *p == '.')) {
            if ((len == 2 && p[0] == '.' && p[1] == '.') || n + len + 2 > 200) {
                oci_refuse(r, E_INVALID, "linux.cgroupsPath must be shorter than 200 characters and without ..");
                return;
            }
            n += (size_t)snprintf(whole + n, sizeof whole - n, "%s%.*s", n ? "/" : "", (int)len, p);
        }
        p += len + (p[len] == '/');
    }
    char *slash = strrchr(whole, '/');
    if (!n) {
        oci_refuse(r, E_INVALID, "linux.cgroupsPath must name a group below the root");
        return;
    }
    if (slash)
        *slash = '\0';
    str_set(&b->cgroup_parent, slash ? whole : "");
    str_set(&b->cgroup, slash ? slash + 1 : whole);
}

static void read_personality(struct oci_reader *r, const struct val *spec, struct oci_bundle *b)
{
    const struct val *v = oci_member(r, spec, "linux.", "personality", V_MAP);
    const char *domain = oci_text(r, v, "linux.personality.", "domain");
    unbuilt(r, v, "linux.personality.", "flags", "leave them out");
    if (v && !str_equal(domain, "LINUX") && !str_equal(domain, "LINUX32"))
        oci_refuse(r, E_INVALID, "linux.personality.domain must be LINUX or LINUX32");
    b->has_personality = v != NULL;
    b->personality = str_equal(domain, "LINUX32") ? PERSONALITY_LINUX32 : PERSONALITY_LINUX;
}

static void read_linux(struct oci_reader *r, const struct val *spec, struct oci_bundle *b)
{
    const char *propagation = oci_text(r, spec, "linux.", "rootfsPropagation");
    read_namespaces(r, spec, b);
    read_devices(r, spec, b);
    read_cgroup(r, spec, b);
    read_personality(r, spec, b);
    oci_limits_read(r, spec, b);
    labels(r, spec, "linux.", "sysctl", 1024, &b->sysctls);
    check_sysctls(r, b);
    oci_texts(r, spec, "linux.", "maskedPaths", 1024, &b->masked);
    oci_texts(r, spec, "linux.", "readonlyPaths", 1024, &b->read_only_paths);
    b->propagation = propagation ? oci_propagation(propagation) : 0;
    if (propagation && !b->propagation)
        oci_refuse(r, E_INVALID, "linux.rootfsPropagation must be private, slave, shared or unbindable");
    unbuilt(r, spec, "linux.", "uidMappings", "user namespaces are not built");
    unbuilt(r, spec, "linux.", "gidMappings", "user namespaces are not built");
    unbuilt(r, spec, "linux.", "netDevices", "move the device yourself, e.g. in a createRuntime hook");
    unbuilt(r, spec, "linux.", "mountLabel", "leave it out");
    unbuilt(r, spec, "linux.", "intelRdt", "leave it out");
    unbuilt(r, spec, "linux.", "memoryPolicy", "use linux.resources.cpu.mems");
    unbuilt(r, spec, "linux.", "timeOffsets", "leave it out");
}

/* ---- hooks ---- */
static void read_hooks(struct oci_reader *r, const struct val *root, struct oci_bundle *b)
{
    const struct val *hooks = oci_member(r, root, "", "hooks", V_MAP);
    for (unsigned when = 0; oci_hook_names[when]; when++) {
        const struct val *list = oci_member(r, hooks, "hooks.", oci_hook_names[when], V_LIST);
        for (uint32_t i = 0; list && i < list->n && r->r == 0; i++) {
            char where[64];
            int64_t n;
            snprintf(where, sizeof where, "hooks.%s[%u].", oci_hook_names[when], i);
            if (b->hooks.n >= 256) {
                oci_refuse(r, E_TOO_BIG, "hooks: more than 256");
                return;
            }
            struct oci_hook *h = REC_ADD(&b->hooks);
            h->when = (int)when;
            str_set(&h->path, oci_text(r, list->list[i], where, "path"));
            oci_texts(r, list->list[i], where, "args", 4096, &h->argv);
            oci_texts(r, list->list[i], where, "env", 4096, &h->env);
            if (oci_number(r, list->list[i], where, "timeout", 1, INT32_MAX, &n))
                h->timeout_s = (uint64_t)n;
            if (!h->path || h->path[0] != '/')
                oci_refuse(r, E_INVALID, "%spath must be absolute", where);
        }
    }
}

/* ---- the whole ---- */
int oci_id_check(const char *id, struct err *e)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.";
    size_t n = strlen(id);
    if (!n || n > 190 || strspn(id, good) != n || id[0] == '.')
        return err_set(e, E_INVALID, "container id \"%.100s\": use at most 190 letters, digits, and _ + - . (not first)", id);
    return 0;
}

/* Whole numbers above INT64_MAX ("no limit" is often 2^64 - 1), which JSON readers here do not take, become strings. */
static void quote_big(const char *s, size_t size, struct sb *out)
{
    static const char most[] = "9223372036854775807";
    bool in_string = false;
    for (size_t i = 0; i < size;) {
        size_t n = 0;
        while (!in_string && i + n < size && s[i + n] >= '0' && s[i + n] <= '9')
            n++;
        char next = i + n < size ? s[i + n] : ' ', before = i ? s[i - 1] : ' ';
        if (n >= sizeof most - 1 && n <= 20 && s[i] != '0' && (n == 20 || memcmp(s + i, most, n) > 0) && next != '.' && next != 'e' &&
            next != 'E' && (before == ' ' || before == ':' || before == ',' || before == '[' || before == '\n' || before == '\t')) {
            sb_char(out, '"');
            sb_add(out, s + i, n);
            sb_char(out, '"');
            i += n;
            continue;
        }
        if (!n) {
            in_string ^= s[i] == '"';
            n = in_string && s[i] == '\\' && i + 1 < size ? 2 : 1;
        }
        sb_add(out, s + i, n);
        i += n;
    }
}

static int parse(struct val_doc **ret, const char *text, size_t size, const char *what, struct err *e)
{
    AUTO_SB struct sb b;
    sb_init(&b, 2 * (size_t)OCI_CONFIG_MAX_BYTES);
    if (size > OCI_CONFIG_MAX_BYTES)
        return err_set(e, E_TOO_BIG, "%s has more than %d MiB", what, OCI_CONFIG_MAX_BYTES >> 20);
    quote_big(text, size, &b);
    int r = json_parse(ret, b.s, b.len, what, e);
    if (r == 0 && val_root(*ret)->kind != V_MAP) {
        val_doc_free(*ret);
        return err_set(e, E_INVALID, "%s must be an object", what);
    }
    return r;
}

static void check_version(struct oci_reader *r, const char *version)
{
    char *end;
    long major = version ? strtol(version, &end, 10) : -1;
    if (major != 1 || *end != '.' || strlen(version) > 64)
        oci_refuse(r, E_UNSUPPORTED, "ociVersion is \"%.64s\"; versions 1.x of the runtime specification are read",
                   version ? version : "");
}

int oci_config_read(struct oci_bundle *ret, const char *text, size_t size, const char *id, const char *dir,
                    struct val_doc **ret_doc, const struct val **ret_seccomp, struct err *e)
{
    static const char *const others[] = { "solaris", "windows", "vm", "zos", "freebsd" };
    struct oci_reader reader = { .e = e }, *r = &reader;
    struct val_doc *d;
    int rc = oci_id_check(id, e);
    if (rc < 0 || (rc = parse(&d, text, size, "config.json", e)) < 0)
        return rc;
    const struct val *root = val_root(d), *spec = oci_member(r, root, "", "linux", V_MAP);
    const struct val *process = oci_member(r, root, "", "process", V_MAP), *rootfs = oci_member(r, root, "", "root", V_MAP);
    str_set(&ret->id, id);
    str_set(&ret->dir, dir);
    str_set(&ret->version, oci_text(r, root, "", "ociVersion"));
    check_version(r, ret->version);
    for (unsigned i = 0; i < ARRAY_N(others); i++)
        unbuilt(r, root, "", others[i], "this is a configuration for another kind of system");
    const char *path = oci_text(r, rootfs, "root.", "path");
    if (!path)
        oci_refuse(r, E_INVALID, "root.path must name the folder of the root file system");
    else
        ret->root = path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", dir, path);
    if (ret->root && strlen(ret->root) > 4000)
        oci_refuse(r, E_TOO_BIG, "root.path is longer than 4000 characters");
    ret->read_only = oci_flag(r, rootfs, "root.", "readonly");
    if (!process)
        oci_refuse(r, E_INVALID, "process is missing: it says what to run");
    if (!spec)
        oci_refuse(r, E_INVALID, "linux is missing: it says which namespaces to make");
    read_process(r, process, &ret->process);
    read_linux(r, spec, ret);
    oci_mounts_read(r, root, ret);
    read_hooks(r, root, ret);
    labels(r, root, "", "annotations", 65536, &ret->annotations);
    str_set(&ret->hostname, oci_text(r, root, "", "hostname"));
    str_set(&ret->domainname, oci_text(r, root, "", "domainname"));
    if ((ret->hostname && strlen(ret->hostname) > 64) || (ret->domainname && strlen(ret->domainname) > 64))
        oci_refuse(r, E_INVALID, "hostname and domainname have at most 64 characters");
    if ((ret->hostname || ret->domainname) && !oci_namespace_find(ret, CLONE_NEWUTS))
        oci_refuse(r, E_INVALID, "hostname would change the host: linux.namespaces has no type uts");
    *ret_seccomp = oci_member(r, spec, "linux.", "seccomp", V_MAP);
    ret->has_seccomp = *ret_seccomp != NULL;
    if (r->r == 0)
        r->r = rec_check(&oci_bundle_rec, ret, e) < 0 ? err_wrap(e, "config.json") : 0;
    if (r->r < 0)
        val_doc_free(d);
    else
        *ret_doc = d;
    return r->r;
}

int oci_process_read(struct oci_process *ret, const char *text, size_t size, struct err *e)
{
    struct oci_reader r = { .e = e };
    struct val_doc *d;
    int rc = parse(&d, text, size, "process.json", e);
    if (rc < 0)
        return rc;
    read_process(&r, val_root(d), ret);
    if (r.r == 0)
        r.r = rec_check(&oci_process_rec, ret, e);
    val_doc_free(d);
    return r.r;
}
