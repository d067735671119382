/* "mounts" of config.json: options are flags of mount(2), propagation, attributes of a whole tree, or else text for the
 * file system (config.md "Linux mount options"). Pure. */
#include "oci_internal.h"
#include <linux/mount.h>
#include <stdio.h>

enum kind { SET, CLEAR, PROPAGATION, TREE_SET, TREE_CLEAR, REFUSED };
static const struct { const char *word; enum kind kind; uint64_t flag; } options[] = {
    { "async", CLEAR, MS_SYNCHRONOUS }, { "atime", CLEAR, MS_NOATIME }, { "bind", SET, MS_BIND }, { "defaults", SET, 0 },
    { "dev", CLEAR, MS_NODEV }, { "diratime", CLEAR, MS_NODIRATIME }, { "dirsync", SET, MS_DIRSYNC },
    { "exec", CLEAR, MS_NOEXEC }, { "iversion", SET, MS_I_VERSION }, { "lazytime", SET, MS_LAZYTIME },
    { "loud", CLEAR, MS_SILENT }, { "mand", SET, MS_MANDLOCK }, { "noatime", SET, MS_NOATIME }, { "nodev", SET, MS_NODEV },
    { "nodiratime", SET, MS_NODIRATIME }, { "noexec", SET, MS_NOEXEC }, { "noiversion", CLEAR, MS_I_VERSION },
    { "nolazytime", CLEAR, MS_LAZYTIME }, { "nomand", CLEAR, MS_MANDLOCK }, { "norelatime", CLEAR, MS_RELATIME },
    { "nostrictatime", CLEAR, MS_STRICTATIME }, { "nosuid", SET, MS_NOSUID }, { "nosymfollow", SET, MS_NOSYMFOLLOW },
    { "rbind", SET, MS_BIND | MS_REC }, { "relatime", SET, MS_RELATIME }, { "ro", SET, MS_RDONLY }, { "rw", CLEAR, MS_RDONLY },
    { "silent", SET, MS_SILENT }, { "strictatime", SET, MS_STRICTATIME }, { "suid", CLEAR, MS_NOSUID },
    { "symfollow", CLEAR, MS_NOSYMFOLLOW }, { "sync", SET, MS_SYNCHRONOUS },
    { "private", PROPAGATION, MS_PRIVATE }, { "rprivate", PROPAGATION, MS_PRIVATE | MS_REC },
    { "shared", PROPAGATION, MS_SHARED }, { "rshared", PROPAGATION, MS_SHARED | MS_REC },
    { "slave", PROPAGATION, MS_SLAVE }, { "rslave", PROPAGATION, MS_SLAVE | MS_REC },
    { "unbindable", PROPAGATION, MS_UNBINDABLE }, { "runbindable", PROPAGATION, MS_UNBINDABLE | MS_REC },
    { "rro", TREE_SET, MOUNT_ATTR_RDONLY }, { "rrw", TREE_CLEAR, MOUNT_ATTR_RDONLY },
    { "rnosuid", TREE_SET, MOUNT_ATTR_NOSUID }, { "rsuid", TREE_CLEAR, MOUNT_ATTR_NOSUID },
    { "rnodev", TREE_SET, MOUNT_ATTR_NODEV }, { "rdev", TREE_CLEAR, MOUNT_ATTR_NODEV },
    { "rnoexec", TREE_SET, MOUNT_ATTR_NOEXEC }, { "rexec", TREE_CLEAR, MOUNT_ATTR_NOEXEC },
    { "rnodiratime", TREE_SET, MOUNT_ATTR_NODIRATIME }, { "rdiratime", TREE_CLEAR, MOUNT_ATTR_NODIRATIME },
    { "rnosymfollow", TREE_SET, MOUNT_ATTR_NOSYMFOLLOW }, { "rsymfollow", TREE_CLEAR, MOUNT_ATTR_NOSYMFOLLOW },
    { "ratime", REFUSED, 0 }, { "rnoatime", REFUSED, 0 }, { "rrelatime", REFUSED, 0 }, { "rnorelatime", REFUSED, 0 },
    { "rstrictatime", REFUSED, 0 }, { "rnostrictatime", REFUSED, 0 }, { "idmap", REFUSED, 0 }, { "ridmap", REFUSED, 0 },
    { "remount", REFUSED, 0 }, { "tmpcopyup", REFUSED, 0 }, { "copy-symlink", REFUSED, 0 },
};

unsigned oci_propagation(const char *word)
{
    for (unsigned i = 0; i < ARRAY_N(options); i++)
        if (options[i].kind == PROPAGATION && str_equal(options[i].word, word))
            return (unsigned)options[i].flag;
    return 0;
}

void oci_mount_words(struct val_doc *d, struct val *list)
{
    for (unsigned i = 0; i < ARRAY_N(options); i++)
        if (options[i].kind != REFUSED)
            val_push(d, list, val_str(d, options[i].word));
}

static void read_option(struct oci_reader *r, const char *where, const char *word, struct oci_mount *m, struct sb *data)
{
    for (unsigned i = 0; i < ARRAY_N(options); i++) {
        uint64_t f = options[i].flag;
        if (!str_equal(options[i].word, word))
            continue;
        switch (options[i].kind) {
        case SET: m->flags |= f; m->cleared &= ~f; break;
        case CLEAR: m->flags &= ~f; m->cleared |= f; break;
        case PROPAGATION: m->propagation = f; break;
        case TREE_SET: m->tree_set |= f; m->tree_clear &= ~f; break;
        case TREE_CLEAR: m->tree_clear |= f; m->tree_set &= ~f; break;
        case REFUSED: oci_refuse(r, E_UNSUPPORTED, "%soptions: \"%s\" is not supported; leave it out", where, word); break;
        }
        return;
    }
    sb_printf(data, "%s%s", data->len ? "," : "", word);
}

static void read_mount(struct oci_reader *r, const struct val *v, uint32_t i, struct oci_bundle *b)
{
    char where[64];
    struct strs words = { 0 };
    AUTO_SB struct sb data;
    sb_init(&data, 65536);
    snprintf(where, sizeof where, "mounts[%u].", i);
    const char *type = oci_text(r, v, where, "type"), *source = oci_text(r, v, where, "source");
    const char *target = oci_text(r, v, where, "destination");
    const struct val *maps = oci_member(r, v, where, "uidMappings", V_LIST);
    oci_texts(r, v, where, "options", 1024, &words);
    if (maps && maps->n)
        oci_refuse(r, E_UNSUPPORTED, "%suidMappings is not supported; leave it out", where);
    if (!target || strlen(target) > 4000)
        oci_refuse(r, E_INVALID, "%sdestination must be a path of at most 4000 characters", where);
    if (r->r == 0) {
        struct oci_mount *m = REC_ADD(&b->mounts);
        /* Older versions allow a relative one, below the root. */
        m->target = target[0] == '/' ? xstrdup(target) : xasprintf("/%s", target);
        for (uint32_t k = 0; k < words.n; k++)
            read_option(r, where, words.v[k], m, &data);
        if (str_equal(type, "bind"))
            m->flags |= MS_BIND;
        bool bind = m->flags & MS_BIND;
        if (bind && !source)
            oci_refuse(r, E_INVALID, "%ssource must name what is bound", where);
        else if (!bind && !type)
            oci_refuse(r, E_INVALID, "%stype is missing", where);
        else if (bind && data.len)
            oci_refuse(r, E_INVALID, "%soptions: \"%s\" is no option of a bind mount", where, data.s);
        if (data.overflow || (source && strlen(source) > 4000) || (type && strlen(type) > 64))
            oci_refuse(r, E_TOO_BIG, "%stype, source or options are too long", where);
        str_set(&m->type, bind ? "bind" : type);
        if (bind && source && source[0] != '/')
            m->source = xasprintf("%s/%s", b->dir, source);
        else
            str_set(&m->source, source);
        str_set(&m->data, data.s);
    }
    strs_clear(&words);
}

void oci_mounts_read(struct oci_reader *r, const struct val *root, struct oci_bundle *b)
{
    const struct val *list = oci_member(r, root, "", "mounts", V_LIST);
    if (list && list->n > 4096)
        oci_refuse(r, E_TOO_BIG, "mounts has %u elements, at most 4096 are taken", list->n);
    for (uint32_t i = 0; list && i < list->n && r->r == 0; i++)
        read_mount(r, list->list[i], i, b);
}
