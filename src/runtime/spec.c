/* The records of the runtime: what a container is made from, what it is doing, what else runs in it. */
#include <shoal/runtime.h>

const char *const container_phase_names[] = { "created", "running", "paused", "exited", NULL };
const char *const container_mount_type_names[] = { "bind", "tmpfs", NULL };

REC_DEFINE(container_mount)
REC_DEFINE(container_file)
REC_DEFINE(container_ulimit)
REC_DEFINE(container_spec)
REC_DEFINE(container_state)
REC_DEFINE(container_notes)
REC_DEFINE(exec_spec)
REC_DEFINE(copy_request)

/* "max-size" in bytes, or with k, m, g. */
static int log_option(struct container_spec *s, const char *k, const char *v, const char *where, struct err *e)
{
    char *end;
    double n = strtod(v, &end);
    char unit = *end;
    const char *rest = end + (unit && strchr("kKmMgG", unit) ? 1 : 0);
    int shift = unit == 'g' || unit == 'G' ? 30 : unit == 'm' || unit == 'M' ? 20 : unit == 'k' || unit == 'K' ? 10 : 0;
    bool is_number = end > v && n >= 1 && n <= 1e9; /* not NaN, and no overflow by its unit */
    if (!str_equal(k, "max-size") && !str_equal(k, "max-file"))
        return err_set(e, E_UNSUPPORTED, "%s: log option %s is not built; max-size and max-file are", where, k);
    if (str_equal(k, "max-size") && is_number && (!*rest || (shift && (*rest == 'b' || *rest == 'B') && !rest[1])))
        s->log_max_bytes = (int64_t)(n * (double)(INT64_C(1) << shift));
    else if (str_equal(k, "max-file") && is_number && !*end && n <= 1000)
        s->log_max_files = (int64_t)n;
    else
        return err_set(e, E_INVALID, "%s: log option %s: \"%s\" is no %s", where, k, v,
                       str_equal(k, "max-size") ? "size, such as 10m" : "number from 1 to 1000");
    return 0;
}

static void add_digest(struct sb *out, const char *id, int n)
{
    const char *hex = id && str_starts(id, "sha256:") ? id + 7 : id ? id : "";
    sb_printf(out, "%.*s", n, hex);
}

/* What stands between {{ and }}; false: no such thing. */
static bool add_word(const struct container_spec *s, const char *word, size_t n, struct sb *out)
{
    static const char *const words[] = { ".ID", ".FullID", ".Name", ".ImageName", ".ImageID", ".ImageFullID", ".DaemonName" };
    while (n && *word == ' ')
        word++, n--;
    while (n && word[n - 1] == ' ')
        n--;
    unsigned i = 0;
    while (i < ARRAY_N(words) && (strlen(words[i]) != n || memcmp(words[i], word, n) != 0))
        i++;
    switch (i) {
    case 0: sb_printf(out, "%.12s", s->id); break;
    case 1: sb_str(out, s->id); break;
    case 2: sb_str(out, s->name ? s->name : ""); break;
    case 3: sb_str(out, s->image ? s->image : ""); break;
    case 4: add_digest(out, s->image_id, 12); break;
    case 5: sb_str(out, s->image_id ? s->image_id : ""); break;
    case 6: sb_str(out, "docker"); break; /* templates that people have expect it */
    default: return false;
    }
    return true;
}

int container_log_tag(const struct container_spec *s, const char *text, struct sb *out, struct err *e)
{
    for (const char *p = text, *open; *p;) {
        open = strstr(p, "{{");
        const char *close = open ? strstr(open, "}}") : NULL;
        sb_add(out, p, open ? (size_t)(open - p) : strlen(p));
        if (!open)
            return 0;
        if (!close || !add_word(s, open + 2, (size_t)(close - open) - 2, out))
            return err_set(e, E_UNSUPPORTED, "log option tag: \"%.100s\" has what is not built; {{.ID}}, {{.FullID}}, {{.Name}}, "
                           "{{.ImageName}}, {{.ImageID}}, {{.ImageFullID}} and {{.DaemonName}} are", text);
        p = close + 2;
    }
    return 0;
}

static int journal_options(struct container_spec *s, const struct labels *options, const char *where, struct err *e)
{
    static const char *const known[] = { "tag", "labels", "env" };
    AUTO_SB struct sb tag;
    int r = 0;
    sb_init(&tag, 4096);
    for (uint32_t i = 0; i < options->n && r == 0; i++) {
        unsigned k = 0;
        while (k < ARRAY_N(known) && !str_equal(options->v[i].key, known[k]))
            k++;
        if (k == ARRAY_N(known))
            return err_set(e, E_UNSUPPORTED, "%s: log option %s is not built for journald; tag, labels and env are", where, options->v[i].key);
        labels_set(&s->log_options, known[k], options->v[i].value ? options->v[i].value : "");
        r = k ? 0 : container_log_tag(s, options->v[i].value ? options->v[i].value : "", &tag, e);
    }
    str_set(&s->log_driver, "journald");
    return r < 0 ? err_wrap(e, "%s", where) : tag.overflow ? err_set(e, E_TOO_BIG, "%s: the tag is too long", where) : 0;
}

int container_log(struct container_spec *s, const char *driver, const struct labels *options, const char *where, struct err *e)
{
    int r = 0;
    if (str_equal(driver, "journald"))
        return journal_options(s, options, where, e);
    if (driver && *driver && !str_equal(driver, "json-file") && !str_equal(driver, "local"))
        return err_set(e, E_UNSUPPORTED, "%s: log driver \"%s\" is not built; use json-file or journald", where, driver);
    for (uint32_t i = 0; i < options->n && r == 0; i++)
        r = log_option(s, options->v[i].key, options->v[i].value, where, e);
    return r;
}

static unsigned depth_of(const char *path)
{
    unsigned n = 0;
    for (; *path; path++)
        n += *path != '/' && (path[1] == '/' || !path[1]);
    return n;
}

void container_mounts_sort(struct container_spec *s)
{
    for (uint32_t i = 1; i < s->mounts.n; i++)
        for (uint32_t k = i; k && depth_of(s->mounts.v[k - 1].target) > depth_of(s->mounts.v[k].target); k--) {
            struct container_mount m = s->mounts.v[k];
            s->mounts.v[k] = s->mounts.v[k - 1];
            s->mounts.v[k - 1] = m;
        }
}
