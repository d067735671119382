/* cp, export, diff. A copy passes as a tar through a file without a name: what goes in is packed before the daemon is
 * asked, what comes out is complete before anything is written here, and no name in it leads out of the target. */
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/archive.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/http.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE_BYTES = 128 << 10 };
#define GO_DIR (INT64_C(1) << 31)
#define GO_LINK (INT64_C(1) << 27)

static const struct cli_flag cp_flags[] = {
    { "archive", 'a', CLI_BOOL, "Keep owners (out), or give it to the container's user (in)", NULL },
    { 0 },
};
static const struct cli_flag export_flags[] = {
    { "output", 'o', CLI_STR, "File instead of the standard output", NULL },
    { 0 },
};

static int to_fd(void *arg, const char *p, size_t size, struct err *e)
{
    return fd_write_all(*(const int *)arg, p, size, e);
}

static int spool(struct err *e)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fd < 0 ? err_errno(e, errno, "a temporary file in /tmp") : fd;
}

static void archive_path(struct sb *b, const char *container, const char *path)
{
    sb_init(b, 0);
    sb_str(b, "/containers/");
    http_encode(b, container);
    sb_str(b, "/archive");
    add_query(b, "path", path);
}

/* "a/b/." and "a/b/" name what "a/b" does. */
static char *trimmed(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && (path[n - 1] == '/' || (path[n - 1] == '.' && path[n - 2] == '/')))
        n--;
    return xstrndup(path, n);
}

/* Folder and last part of a path; "." and "/" have themselves as the folder. */
static void split(const char *path, char **ret_dir, char **ret_base)
{
    AUTO_FREE char *t = trimmed(path);
    char *slash = strrchr(t, '/');
    *ret_base = xstrdup(slash ? slash + 1 : t);
    if (slash)
        slash[slash == t] = '\0';
    *ret_dir = xstrdup(slash ? t : ".");
}

static bool wants_contents(const char *path)
{
    return str_equal(path, ".") || str_ends(path, "/.");
}

/* The first part of a name becomes another; "": the name is as it is. */
static void rename_top(struct archive_entry *x, const char *to)
{
    const char *name = libarchive.entry_pathname(x), *hard = libarchive.entry_hardlink(x);
    if (!*to)
        return;
    AUTO_FREE char *a = xasprintf("%s%s", to, name && strchr(name, '/') ? strchr(name, '/') : "");
    AUTO_FREE char *b = hard ? xasprintf("%s%s", to, strchr(hard, '/') ? strchr(hard, '/') : "") : NULL;
    libarchive.entry_copy_pathname(x, a);
    if (b)
        libarchive.entry_copy_hardlink(x, b);
}

static int archive_err(struct archive *a, const char *what, struct err *e)
{
    const char *why = libarchive.error_string(a);
    return err_set(e, E_IO, "%s: %s", what, why ? why : "unknown trouble");
}

static int copy_data(struct archive *from, struct archive *to, const char *what, struct err *e)
{
    static char buf[PIECE_BYTES];
    la_ssize_t n;
    while ((n = libarchive.read_data(from, buf, sizeof buf)) > 0)
        if (libarchive.write_data(to, buf, (size_t)n) < 0)
            return archive_err(to, what, e);
    return n < 0 ? archive_err(from, what, e) : 0;
}

/* ---- out of a container ---- */
static int unpack_all(struct archive *from, struct archive *to, const char *top, struct err *e)
{
    struct archive_entry *x;
    int a;
    while ((a = libarchive.read_next_header(from, &x)) != ARCHIVE_EOF) {
        if (a < ARCHIVE_WARN)
            return archive_err(from, "what the daemon sent", e);
        rename_top(x, top);
        AUTO_FREE char *name = xstrdup(libarchive.entry_pathname(x));
        if (libarchive.write_header(to, x) < ARCHIVE_WARN)
            return archive_err(to, name, e);
        int rc = libarchive.entry_size(x) > 0 ? copy_data(from, to, name, e) : 0;
        if (rc < 0)
            return rc;
    }
    return libarchive.write_close(to) < ARCHIVE_WARN ? archive_err(to, "write", e) : 0;
}

static int unpack(struct cli *c, int fd, const char *dir, const char *top, struct err *e)
{
    int rc = archive_load(e);
    if (rc < 0)
        return rc;
    struct archive *from = libarchive.read_new(), *to = libarchive.write_disk_new();
    libarchive.read_support_format_tar(from);
    libarchive.read_support_format_empty(from);
    libarchive.write_disk_set_options(to, ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                                           ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS | ARCHIVE_EXTRACT_UNLINK |
                                           (cli_on(c, "archive") ? ARCHIVE_EXTRACT_OWNER : 0));
    if (lseek(fd, 0, SEEK_SET) < 0 || chdir(dir) < 0)
        rc = err_errno(e, errno, "%s", dir);
    else if (libarchive.read_open_fd(from, fd, PIECE_BYTES) != ARCHIVE_OK)
        rc = archive_err(from, "what the daemon sent", e);
    else
        rc = unpack_all(from, to, top, e);
    libarchive.read_free(from);
    libarchive.write_free(to);
    return rc;
}

static int stat_in(struct cli *c, const char *container, const char *path, struct val_doc **ret, struct err *e)
{
    AUTO_SB struct sb target, head;
    size_t n;
    archive_path(&target, container, path);
    sb_init(&head, 64 << 10);
    struct cli_stream s = { .method = "HEAD", .path = target.s, .upload = -1, .header = "X-Docker-Container-Path-Stat", .header_value = &head };
    int rc = cli_stream(c, &s, e);
    if (rc < 0)
        return rc;
    AUTO_FREE char *text = (char *)base64_decode(head.s, head.len, &n);
    return text ? json_parse(ret, text, n, "the daemon's reply", e) : err_set(e, E_CORRUPT, "the daemon does not say what %s is", path);
}

static int copy_out(struct cli *c, const char *container, const char *path, const char *dest, struct err *e)
{
    struct stat st;
    struct val_doc *d = NULL;
    AUTO_SB struct sb target;
    AUTO_FREE char *dir = NULL, *base = NULL, *own_dir = NULL, *own = NULL;
    int out = 1;
    archive_path(&target, container, path);
    struct cli_stream s = { .method = "GET", .path = target.s, .upload = -1, .data = to_fd, .arg = &out };
    if (str_equal(dest, "-"))
        return term_is_tty(1) ? err_set(e, E_INVALID, "the standard output is a terminal; redirect it") : cli_stream(c, &s, e);
    int rc = stat_in(c, container, path, &d, e);
    if (rc == -E_NOT_FOUND) /* a reply to HEAD has no text: ask for one that has */
        rc = cli_call(c, "GET", target.s, NULL, NULL, e);
    if (rc < 0)
        return rc;
    bool folder = int_at(val_root(d), "mode", 0) & GO_DIR, there = stat(dest, &st) == 0;
    val_doc_free(d);
    split(path, &own_dir, &own);
    bool contents = wants_contents(path) || !*own;
    split(dest, &dir, &base);
    const char *into = there && S_ISDIR(st.st_mode) ? dest : dir, *top = into == dest ? (contents ? "" : own) : base;
    if (there && folder && !S_ISDIR(st.st_mode))
        return err_set(e, E_INVALID, "%s is a file here, %s a folder in the container", dest, path);
    if (!there && !folder && str_ends(dest, "/"))
        return err_set(e, E_NOT_FOUND, "there is no folder %s", dest);
    AUTO_CLOSE int fd = spool(e);
    if (fd < 0)
        return fd;
    s.arg = &fd;
    rc = cli_stream(c, &s, e);
    return rc < 0 ? rc : unpack(c, fd, into, top, e);
}

/* ---- into a container ---- */
static int pack_one(struct archive *from, struct archive *to, struct archive_entry *x, const char *top, struct err *e)
{
    AUTO_FREE char *name = xstrdup(libarchive.entry_pathname(x));
    rename_top(x, top);
    libarchive.read_disk_descend(from);
    if (libarchive.entry_filetype(x) == AE_IFSOCK)
        return 0;
    if (libarchive.write_header(to, x) < ARCHIVE_WARN)
        return archive_err(to, name, e);
    return libarchive.entry_filetype(x) == AE_IFREG && libarchive.entry_size(x) > 0 ? copy_data(from, to, name, e) : 0;
}

static int pack(int fd, const char *dir, const char *base, const char *top, struct err *e)
{
    int rc = archive_load(e), a = 0;
    if (rc < 0)
        return rc;
    struct archive *from = libarchive.read_disk_new(), *to = libarchive.write_new();
    struct archive_entry *x = libarchive.entry_new();
    libarchive.read_disk_set_symlink_physical(from);
    libarchive.read_disk_set_behavior(from, ARCHIVE_READDISK_NO_ACL | ARCHIVE_READDISK_NO_FFLAGS);
    libarchive.write_set_format_pax_restricted(to);
    if (libarchive.write_open_fd(to, fd) != ARCHIVE_OK)
        rc = archive_err(to, "a temporary file", e);
    else if (chdir(dir) < 0)
        rc = err_errno(e, errno, "%s", dir);
    else if (libarchive.read_disk_open(from, base) != ARCHIVE_OK)
        rc = archive_err(from, base, e);
    while (rc == 0 && (a = libarchive.read_next_header2(from, x)) != ARCHIVE_EOF)
        rc = a < ARCHIVE_WARN ? archive_err(from, base, e) : pack_one(from, to, x, top, e);
    if (rc == 0 && libarchive.write_close(to) < ARCHIVE_WARN)
        rc = archive_err(to, "a temporary file", e);
    libarchive.entry_free(x);
    libarchive.read_free(from);
    libarchive.write_free(to);
    return rc;
}

static int ignore(void *arg, const char *p, size_t size, struct err *e)
{
    (void)arg, (void)p, (void)size, (void)e;
    return 0;
}

static int send_tar(struct cli *c, const char *container, const char *path, int fd, struct err *e)
{
    AUTO_SB struct sb target;
    archive_path(&target, container, path);
    add_query(&target, "noOverwriteDirNonDir", "true");
    if (cli_on(c, "archive"))
        add_query(&target, "copyUIDGID", "true");
    struct cli_stream s = { .method = "PUT", .path = target.s, .upload = fd, .data = ignore };
    return cli_stream(c, &s, e);
}

/* What DEST is in the container, through links: 0 nothing, 1 a file, 2 a folder. */
static int kind_in(struct cli *c, const char *container, char **dest, struct err *e)
{
    for (int i = 0; i < 40; i++) {
        struct val_doc *d = NULL;
        int rc = stat_in(c, container, *dest, &d, e);
        if (rc == -E_NOT_FOUND) /* or the container is: the next request says so */
            return 0;
        if (rc < 0)
            return rc;
        int64_t mode = int_at(val_root(d), "mode", 0);
        AUTO_FREE char *link = xstrdup(str_at(val_root(d), "linkTarget"));
        val_doc_free(d);
        if (!(mode & GO_LINK))
            return mode & GO_DIR ? 2 : 1;
        str_set(dest, link);
    }
    return err_set(e, E_INVALID, "%s: too many links", *dest);
}

static int copy_in(struct cli *c, const char *source, const char *container, const char *path, struct err *e)
{
    struct stat st;
    AUTO_FREE char *dest = xstrdup(path), *dir = NULL, *base = NULL, *own_dir = NULL, *own = NULL;
    if (str_equal(source, "-"))
        return send_tar(c, container, path, 0, e);
    if (lstat(source, &st) < 0)
        return err_errno(e, errno, "%s", source);
    int kind = kind_in(c, container, &dest, e);
    if (kind < 0)
        return kind;
    bool folder = S_ISDIR(st.st_mode) || (wants_contents(source) && stat(source, &st) == 0 && S_ISDIR(st.st_mode));
    if (kind == 1 && folder)
        return err_set(e, E_INVALID, "%s is a file in the container, %s a folder here", path, source);
    if (kind == 0 && !folder && str_ends(path, "/"))
        return err_set(e, E_NOT_FOUND, "there is no folder %s in the container", path);
    split(source, &own_dir, &own);
    split(dest, &dir, &base);
    AUTO_CLOSE int fd = spool(e);
    if (fd < 0)
        return fd;
    bool contents = wants_contents(source), inside = !*own || str_equal(own, ".") || str_equal(own, "..");
    AUTO_FREE char *whole = trimmed(source);
    const char *from = contents || inside ? whole : own_dir, *what = contents || inside ? "." : own;
    int rc = pack(fd, from, what, kind == 2 ? (contents || inside ? "." : own) : base, e);
    if (rc == 0 && lseek(fd, 0, SEEK_SET) < 0)
        rc = err_errno(e, errno, "a temporary file");
    return rc < 0 ? rc : send_tar(c, container, kind == 2 ? dest : dir, fd, e);
}

/* "CONTAINER:PATH"; a path of this machine with a colon begins with / or . */
static bool in_container(const char *text, char **ret_container, const char **ret_path)
{
    const char *colon = strchr(text, ':');
    if (!colon || colon == text || text[0] == '/' || text[0] == '.')
        return false;
    *ret_container = xstrndup(text, (size_t)(colon - text));
    *ret_path = colon[1] ? colon + 1 : "/";
    return true;
}

static int cmd_cp(struct cli *c, struct err *e)
{
    AUTO_FREE char *from = NULL, *to = NULL;
    const char *a = cli_arg(c, 0), *b = cli_arg(c, 1), *from_path = NULL, *to_path = NULL;
    bool out = in_container(a, &from, &from_path), in = in_container(b, &to, &to_path);
    if (in == out)
        return cli_usage(c, e, "cp: exactly one of the two must be CONTAINER:PATH");
    return out ? copy_out(c, from, from_path, b, e) : copy_in(c, a, to, to_path, e);
}

/* ---- export, diff ---- */
static int to_file(void *arg, const char *p, size_t size, struct err *e)
{
    return out_file_write(arg, p, size, e);
}

static int cmd_export(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct out_file *f = NULL;
    sb_init(&path, 0);
    sb_str(&path, "/containers/");
    http_encode(&path, cli_arg(c, 0));
    sb_str(&path, "/export");
    int rc = out_file_open(&f, cli_str(c, "output") ? cli_str(c, "output") : "-", e);
    if (rc < 0)
        return rc;
    struct cli_stream s = { .method = "GET", .path = path.s, .upload = -1, .data = to_file, .arg = f };
    rc = cli_stream(c, &s, e);
    if (rc == 0)
        return out_file_keep(f, e);
    out_file_drop(f);
    return rc;
}

static int cmd_diff(struct cli *c, struct err *e)
{
    AUTO_SB struct sb path;
    struct val_doc *d = NULL;
    sb_init(&path, 0);
    sb_str(&path, "/containers/");
    http_encode(&path, cli_arg(c, 0));
    sb_str(&path, "/changes");
    int rc = cli_get(c, &d, e, "%s", path.s);
    const struct val *l = rc == 0 ? val_root(d) : NULL;
    for (uint32_t i = 0; l && l->kind == V_LIST && i < l->n; i++)
        fprintf(c->out, "%c %s\n", "CAD"[int_at(l->list[i], "Kind", 0) % 3], str_at(l->list[i], "Path"));
    val_doc_free(d);
    return rc;
}

const struct cli_command copy_commands[] = {
    { "cp", "CONTAINER:PATH DEST | SOURCE CONTAINER:PATH", "Copy files out of a container or into it; - is a tar", cp_flags,
      "shoal cp web:/etc/web.conf .", cmd_cp, 2, 2, 0 },
    { "export", "CONTAINER", "Write the files of a container as a tar", export_flags, "shoal export -o web.tar web", cmd_export, 1, 1, 0 },
    { "diff", "CONTAINER", "List what a container has changed against its image", NULL, "shoal diff web", cmd_diff, 1, 1, 0 },
    { 0 },
};
