/* backup and restore. The file is sealed and opened here: neither passphrase nor key reaches the daemon, and nothing
 * plain reaches a disk. Memory does not grow with the state: pieces of 64 KiB go through. */
#include "cli.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/http.h>
#include <shoal/model/backup.h>
#include <shoal/store.h>

#define SECRET_FLAGS                                                                                                  \
    { "passphrase-file", 0, CLI_STR, "File with the passphrase (without it: asked on the terminal)", NULL },          \
    { "key-file", 0, CLI_STR, "File with 32 random bytes or more, in place of a passphrase", NULL }
static const struct cli_flag backup_flags[] = {
    { "check", 0, CLI_BOOL, "Read FILE and show what is in it; needs no daemon", NULL },
    SECRET_FLAGS,
    { 0 },
};
static const struct cli_flag restore_flags[] = {
    { "dry-run", 0, CLI_BOOL, "Only read FILE and show what is in it; needs no daemon", NULL },
    { "advertise-addr", 0, CLI_STR, "Address of this node that the others use, ADDR[:PORT]", NULL },
    { "wait", 0, CLI_DURATION, "How long workers have to come back before their tasks run elsewhere; default 10m", NULL },
    SECRET_FLAGS,
    { 0 },
};

static int read_secret(struct cli *c, bool sealing, struct bytes *ret, struct err *e)
{
    const char *pass = cli_str(c, "passphrase-file"), *key = cli_str(c, "key-file");
    if (pass && key)
        return cli_usage(c, e, "give --passphrase-file or --key-file, not both");
    if (!pass && !key)
        return term_ask_secret(sealing, ret, e);
    int rc = term_read_input(pass ? pass : key, BACKUP_SECRET_MAX_BYTES, ret, e);
    while (rc == 0 && pass && ret->n && (ret->v[ret->n - 1] == '\n' || ret->v[ret->n - 1] == '\r'))
        ret->n--;
    return rc;
}

static struct backup_secret secret_of(struct cli *c, const struct bytes *b)
{
    return (struct backup_secret){ cli_str(c, "key-file") != NULL, b->v, b->n };
}

static void secret_done(struct bytes *b)
{
    crypto_wipe(b->v, b->n);
    free(b->v);
}

/* ---- what is inside ---- */

struct contents {
    FILE *out;             /* NULL: only the manifest is wanted */
    struct backup_manifest manifest;
    struct strs names[TABLE_N];
    uint64_t managers;
};

static int see_manifest(void *arg, const struct backup_manifest *m, struct err *e)
{
    (void)e;
    backup_manifest_copy(&((struct contents *)arg)->manifest, m);
    return 0;
}

static const char *name_of(struct contents *x, unsigned table, const void *o)
{
    const struct node *n = o;
    switch (table) {
    case TABLE_SERVICE: return ((const struct service *)o)->spec.name;
    case TABLE_NETWORK: return ((const struct network *)o)->name;
    case TABLE_SECRET: return ((const struct secret *)o)->spec.name;
    case TABLE_CONFIG: return ((const struct config *)o)->spec.name;
    case TABLE_NODE:
        x->managers += n->spec.role == ROLE_MANAGER;
        return n->description.hostname ? n->description.hostname : n->id;
    }
    return NULL;
}

static int see_object(void *arg, unsigned table, const void *packed, size_t size, struct err *e)
{
    struct contents *x = arg;
    if (!x->out)
        return 0;
    if (table >= TABLE_N)
        return err_set(e, E_UNSUPPORTED, "the backup holds objects of a kind that this version does not know; upgrade shoal first");
    const struct rec *rec = store_rec((enum store_table)table);
    AUTO_FREE void *o = xcalloc(1, rec->size);
    int rc = rec_unpack(rec, o, packed, size, e);
    const char *name = rc == 0 ? name_of(x, table, o) : NULL;
    if (name)
        strs_add(&x->names[table], name);
    rec_clear(rec, o);
    return rc;
}

static void contents_done(struct contents *x)
{
    backup_manifest_clear(&x->manifest);
    for (int t = 0; t < TABLE_N; t++)
        strs_clear(&x->names[t]);
}

static void print_summary(FILE *f, const struct backup_manifest *m)
{
    char when[40];
    time_format(when, m->made_at);
    fprintf(f, "cluster:    %s (%s), epoch %llu\nmade:       %.19sZ by %s, shoal %s, at entry %llu of the log\n"
            "holds:      %llu services (%llu tasks), %llu networks, %llu secrets, %llu configs, %llu nodes\n",
            m->cluster_id ? m->cluster_id : "", m->cluster_name ? m->cluster_name : "", (unsigned long long)m->epoch, when,
            m->made_by ? m->made_by : "", m->shoal ? m->shoal : "", (unsigned long long)m->index, (unsigned long long)m->services,
            (unsigned long long)m->tasks, (unsigned long long)m->networks, (unsigned long long)m->secrets,
            (unsigned long long)m->configs, (unsigned long long)m->nodes);
}

static void print_names(FILE *f, const char *what, const struct strs *names)
{
    for (uint32_t i = 0; i < names->n; i++)
        fprintf(f, "%-12s%s\n", i ? "" : what, names->v[i]);
}

static void print_contents(struct contents *x)
{
    print_summary(x->out, &x->manifest);
    print_names(x->out, "services:", &x->names[TABLE_SERVICE]);
    print_names(x->out, "networks:", &x->names[TABLE_NETWORK]);
    print_names(x->out, "secrets:", &x->names[TABLE_SECRET]);
    print_names(x->out, "configs:", &x->names[TABLE_CONFIG]);
    print_names(x->out, "nodes:", &x->names[TABLE_NODE]);
}

/* ---- backup ---- */

struct sealing {
    struct backup_seal *seal;
    struct backup_reader reader;
    struct contents contents;
    struct out_file *file;
    struct sb sealed;
    uint64_t bytes;
};

static int flush_sealed(struct sealing *s, struct err *e)
{
    int rc = out_file_write(s->file, s->sealed.s, s->sealed.len, e);
    s->bytes += s->sealed.len;
    sb_reset(&s->sealed);
    return rc;
}

static int seal_data(void *arg, const char *p, size_t size, struct err *e)
{
    struct sealing *s = arg;
    const struct backup_sink sink = { &s->contents, see_manifest, see_object };
    int rc = backup_reader_take(&s->reader, p, size, &sink, e);
    if (rc == 0)
        backup_seal_add(s->seal, p, size, &s->sealed);
    return rc == 0 && s->sealed.len ? flush_sealed(s, e) : rc;
}

static int backup_to(struct cli *c, struct sealing *s, const struct backup_secret *secret, struct err *e)
{
    const struct cli_stream get = { .method = "GET", .path = "/shoal/v1/backup", .upload = -1, .data = seal_data, .arg = s };
    int rc = backup_seal_new(&s->seal, secret, &s->sealed, e);
    if (rc == 0)
        rc = out_file_open(&s->file, cli_arg(c, 0), e);
    if (rc == 0)
        rc = cli_stream(c, &get, e);
    if (rc == 0)
        rc = backup_reader_end(&s->reader, e);
    if (rc == 0) {
        backup_seal_end(s->seal, &s->sealed);
        rc = flush_sealed(s, e);
    }
    if (rc == 0)
        rc = out_file_keep(TAKE(s->file), e);
    return rc;
}

static int check(struct cli *c, struct err *e);

static int cmd_backup(struct cli *c, struct err *e)
{
    struct sealing s = { 0 };
    struct bytes bytes = { 0 };
    char size[32];
    if (cli_on(c, "check"))
        return check(c, e);
    sb_init(&s.sealed, 0);
    backup_reader_init(&s.reader);
    int rc = read_secret(c, true, &bytes, e);
    struct backup_secret secret = secret_of(c, &bytes);
    if (rc == 0)
        rc = backup_to(c, &s, &secret, e);
    if (rc == 0) {
        bool to_stdout = !strcmp(cli_arg(c, 0), "-");
        units_bytes(size, (int64_t)s.bytes, false);
        print_summary(to_stdout ? c->err : c->out, &s.contents.manifest);
        fprintf(to_stdout ? c->err : c->out, "written to: %s, %s, sealed with the %s\n", to_stdout ? "the standard output" : cli_arg(c, 0),
                size, secret.key_file ? "key file" : "passphrase");
    }
    out_file_drop(s.file);
    backup_seal_free(s.seal);
    backup_reader_done(&s.reader);
    contents_done(&s.contents);
    sb_done(&s.sealed);
    secret_done(&bytes);
    return rc;
}

/* ---- the way back ---- */

struct opening {
    int fd;
    struct backup_open *open;
    struct backup_reader reader;
    struct contents contents;
    struct sb plain; /* opened, not yet taken */
    size_t taken;
    bool eof;
};

/* Opens more of the file, unless all of it is. */
static int open_more(struct opening *o, struct err *e)
{
    static char buf[BACKUP_PIECE_BYTES];
    const struct backup_sink sink = { &o->contents, see_manifest, see_object };
    long n = term_read(o->fd, buf, sizeof buf, e);
    if (n < 0)
        return (int)n;
    o->eof = n == 0;
    size_t from = o->plain.len;
    int rc = o->eof ? backup_open_end(o->open, &o->plain, e) : backup_open_add(o->open, buf, (size_t)n, &o->plain, e);
    if (rc == 0)
        rc = backup_reader_take(&o->reader, o->plain.s + from, o->plain.len - from, &sink, e);
    return rc == 0 && o->eof ? backup_reader_end(&o->reader, e) : rc;
}

/* A cli_source_fn: what the daemon shall get. An error ends the upload in its middle, and the daemon forgets it. */
static long plain_source(void *arg, char *buf, size_t size, struct err *e)
{
    struct opening *o = arg;
    while (o->taken == o->plain.len && !o->eof) {
        crypto_wipe(o->plain.s, o->plain.len);
        sb_reset(&o->plain);
        o->taken = 0;
        int rc = open_more(o, e);
        if (rc < 0)
            return rc;
    }
    size_t n = MIN(size, o->plain.len - o->taken);
    memcpy(buf, o->plain.s + o->taken, n);
    o->taken += n;
    return (long)n;
}

static int opening_begin(struct cli *c, struct opening *o, struct err *e)
{
    uint8_t header[BACKUP_HEADER_BYTES];
    size_t len = 0;
    bool key_file;
    struct bytes bytes = { 0 };
    *o = (struct opening){ .fd = term_open_input(cli_arg(c, 0), e) };
    sb_init(&o->plain, 0);
    backup_reader_init(&o->reader);
    if (o->fd < 0)
        return o->fd;
    while (len < sizeof header) {
        long n = term_read(o->fd, header + len, sizeof header - len, e);
        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    int rc = backup_header_check(header, len, &key_file, e);
    if (rc == 0 && key_file && !cli_str(c, "key-file"))
        rc = err_set(e, E_INVALID, "the backup is sealed with a key file; give it by --key-file");
    if (rc == 0)
        rc = read_secret(c, false, &bytes, e);
    struct backup_secret secret = secret_of(c, &bytes);
    if (rc == 0)
        rc = backup_open_new(&o->open, header, &secret, e);
    secret_done(&bytes);
    return rc < 0 && rc != -E_INVALID ? err_wrap(e, "%s", cli_arg(c, 0)) : rc;
}

static void opening_done(struct opening *o)
{
    term_close(o->fd);
    backup_open_free(o->open);
    backup_reader_done(&o->reader);
    contents_done(&o->contents);
    crypto_wipe(o->plain.s, o->plain.len);
    sb_done(&o->plain);
}

static int check(struct cli *c, struct err *e)
{
    struct opening o;
    char sink[4096];
    long n = 1;
    int rc = opening_begin(c, &o, e);
    o.contents.out = c->out;
    while (rc == 0 && n > 0) {
        n = plain_source(&o, sink, sizeof sink, e);
        rc = n < 0 ? (int)n : 0;
    }
    crypto_wipe(sink, sizeof sink);
    if (rc == 0)
        print_contents(&o.contents);
    opening_done(&o);
    return rc;
}

static int nothing(void *arg, const char *p, size_t size, struct err *e)
{
    (void)arg, (void)p, (void)size, (void)e;
    return 0;
}

static int cmd_restore(struct cli *c, struct err *e)
{
    struct opening o;
    AUTO_SB struct sb path;
    sb_init(&path, 0);
    if (cli_on(c, "dry-run"))
        return check(c, e);
    sb_printf(&path, "/shoal/v1/restore?wait=%lld", (long long)(cli_num(c, "wait", INT64_C(600000000000)) / 1000000000));
    if (cli_str(c, "advertise-addr"))
        add_query(&path, "advertise", cli_str(c, "advertise-addr"));
    int rc = opening_begin(c, &o, e);
    struct cli_stream post = { .method = "POST", .path = path.s, .upload = -1, .source = plain_source, .source_arg = &o,
                               .data = nothing };
    if (rc == 0)
        rc = start_daemon(c, e);
    if (rc == 0)
        rc = cli_stream(c, &post, e);
    if (rc == 0) {
        print_summary(c->out, &o.contents.manifest);
        fputs("\nThis node is the only manager of the restored cluster. Workers that still run are called and come back with their "
              "containers; `shoal node ls` shows them as Unknown until then. Managers of the old cluster are left behind: run "
              "`shoal leave --force` there and join them again. The join tokens are new.\n", c->out);
    }
    opening_done(&o);
    return rc;
}

const struct cli_command backup_commands[] = {
    { "backup", "FILE", "Write the cluster's whole state to a sealed file (- for the standard output), while it runs; FILE appears whole "
      "or not at all", backup_flags, "shoal backup --passphrase-file /root/backup.pass /srv/backup/shoal-$(date +%F)", cmd_backup, 1, 1, 0 },
    { "restore", "FILE", "Make a cluster of what a backup holds, on a machine that is in none; all its managers must be lost for good",
      restore_flags, "shoal restore --advertise-addr 10.0.0.9 /srv/backup/shoal-2026-01-31", cmd_restore, 1, 1, 0 },
    { 0 },
};
