/* `shoal oci list` and `shoal oci features` (features.md). */
#include "oci_verbs.h"
#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/stat.h>

static void list_one(const struct oci_state *s, const struct oci_options *o, struct val_doc *d, struct val *list)
{
    char created[40];
    struct stat st;
    struct passwd *owner = stat(s->dir, &st) == 0 ? getpwuid(st.st_uid) : NULL;
    int64_t pid = str_equal(s->status, "stopped") ? 0 : s->life.pid;
    time_format(created, s->life.created_ns);
    if (o->quiet) {
        puts(s->bundle.id);
    } else if (!str_equal(o->format, "json")) {
        printf("%-20s %-8lld %-10s %-32s %-30s %s\n", s->bundle.id, (long long)pid, s->status, s->bundle.dir, created,
               owner ? owner->pw_name : "");
    } else {
        struct val *v = val_map(d);
        val_set(d, v, "ociVersion", val_str(d, OCI_VERSION));
        val_set(d, v, "id", val_str(d, s->bundle.id));
        val_set(d, v, "pid", val_int(d, pid));
        val_set(d, v, "status", val_str(d, s->status));
        val_set(d, v, "bundle", val_str(d, s->bundle.dir));
        val_set(d, v, "rootfs", val_str(d, s->bundle.root));
        val_set(d, v, "created", val_str(d, created));
        val_set(d, v, "owner", val_str(d, owner ? owner->pw_name : ""));
        val_push(d, list, v);
    }
}

int oci_list(const struct oci_options *o, struct err *e)
{
    struct val_doc *d = val_doc_new();
    struct val *list = val_list(d);
    AUTO_SB struct sb b;
    DIR *dir = opendir(o->root);
    sb_init(&b, 0);
    if (!dir && errno != ENOENT) {
        val_doc_free(d);
        return err_errno(e, errno, "%s", o->root);
    }
    if (!o->quiet && !str_equal(o->format, "json"))
        printf("%-20s %-8s %-10s %-32s %-30s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
    for (struct dirent *x; dir && (x = readdir(dir));) {
        struct oci_state s;
        if (x->d_name[0] == '.' || oci_state_load(o->root, x->d_name, false, &s, NULL) < 0)
            continue; /* not one of ours, or just made or gone */
        list_one(&s, o, d, list);
        oci_state_done(&s);
    }
    if (dir)
        closedir(dir);
    if (!o->quiet && str_equal(o->format, "json")) {
        json_write(&b, list, 0);
        puts(b.s);
    }
    val_doc_free(d);
    return 0;
}

static struct val *words(struct val_doc *d, const char *const *v)
{
    struct val *list = val_list(d);
    for (; *v; v++)
        val_push(d, list, val_str(d, *v));
    return list;
}

static struct val *enabled(struct val_doc *d, bool on)
{
    struct val *v = val_map(d);
    val_set(d, v, "enabled", val_bool(d, on));
    return v;
}

int oci_features(const struct oci_options *o, struct err *e)
{
    static const char *const namespaces[] = { "cgroup", "ipc", "mount", "network", "pid", "uts", NULL };
    struct val_doc *d = val_doc_new();
    struct val *root = val_map(d), *system = val_map(d), *groups = val_map(d), *caps = val_list(d), *seccomp = val_map(d);
    struct val *options = val_list(d), *extensions = val_map(d), *notes = val_map(d);
    AUTO_SB struct sb b;
    (void)o;
    (void)e;
    sb_init(&b, 0);
    val_set(d, root, "ociVersionMin", val_str(d, "1.0.0"));
    val_set(d, root, "ociVersionMax", val_str(d, OCI_VERSION));
    val_set(d, root, "hooks", words(d, oci_hook_names));
    oci_mount_words(d, options);
    val_set(d, root, "mountOptions", options);
    val_set(d, system, "namespaces", words(d, namespaces));
    for (unsigned i = 0; capability_name(i); i++) {
        AUTO_FREE char *name = xasprintf("CAP_%s", capability_name(i));
        val_push(d, caps, val_str(d, name));
    }
    val_set(d, system, "capabilities", caps);
    val_set(d, groups, "v1", val_bool(d, true));
    val_set(d, groups, "v2", val_bool(d, true));
    val_set(d, groups, "systemd", val_bool(d, false));
    val_set(d, groups, "systemdUser", val_bool(d, false));
    val_set(d, groups, "rdma", val_bool(d, true));
    val_set(d, system, "cgroup", groups);
    oci_seccomp_features(d, seccomp);
    val_set(d, system, "seccomp", seccomp);
    val_set(d, system, "apparmor", enabled(d, false));
    val_set(d, system, "selinux", enabled(d, false));
    val_set(d, system, "intelRdt", enabled(d, false));
    val_set(d, system, "netDevices", enabled(d, false));
    val_set(d, extensions, "idmap", enabled(d, false));
    val_set(d, system, "mountExtensions", extensions);
    val_set(d, root, "linux", system);
    val_set(d, notes, "org.opencontainers.runc.checkpoint.enabled", val_str(d, "false"));
    val_set(d, root, "annotations", notes);
    json_write(&b, root, 2);
    puts(b.s);
    val_doc_free(d);
    return 0;
}
