/* Log drivers, their options and the words of a tag: two tables and their readers. */
#include <shoal/model/log_driver.h>

/* ---- tags ---- */
enum { SHORT_ID = 12, TAG_MAX_BYTES = 1024 };
#define VALUE(m) offsetof(struct log_tag_values, m)
static const struct { const char *word, *fixed; size_t value; bool cut; } words[] = {
    { ".ID", NULL, VALUE(id), true },
    { ".FullID", NULL, VALUE(id), false },
    { ".Name", NULL, VALUE(name), false },
    { ".ImageName", NULL, VALUE(image), false },
    { ".ImageID", NULL, VALUE(image_id), true },
    { ".ImageFullID", NULL, VALUE(image_id), false },
    { ".DaemonName", "docker", 0, false }, /* templates that people have expect it */
};

/* What stands between {{ and }}; false: no such thing. */
static bool add_word(const struct log_tag_values *v, const char *word, size_t n, struct sb *out)
{
    unsigned i = 0;
    while (n && *word == ' ')
        word++, n--;
    while (n && word[n - 1] == ' ')
        n--;
    while (i < ARRAY_N(words) && (strlen(words[i].word) != n || memcmp(words[i].word, word, n) != 0))
        i++;
    if (i == ARRAY_N(words))
        return false;
    const char *text = words[i].fixed ? words[i].fixed : *(const char *const *)((const char *)v + words[i].value);
    if (text && words[i].cut && str_starts(text, "sha256:"))
        text += strlen("sha256:");
    sb_add(out, text ? text : "", strnlen(text ? text : "", words[i].cut ? SHORT_ID : SIZE_MAX));
    return true;
}

static int refuse_tag(const char *text, struct err *e)
{
    AUTO_SB struct sb all;
    sb_init(&all, 0);
    for (unsigned i = 0; i < ARRAY_N(words); i++)
        sb_printf(&all, "%s{{%s}}", !i ? "" : i + 1 < ARRAY_N(words) ? ", " : " and ", words[i].word);
    return err_set(e, E_UNSUPPORTED, "log option tag: \"%.100s\" has what is not built; %s are", text, all.s);
}

int log_tag(const char *text, const struct log_tag_values *v, struct sb *out, struct err *e)
{
    for (const char *p = text, *open; *p;) {
        open = strstr(p, "{{");
        const char *close = open ? strstr(open, "}}") : NULL;
        sb_add(out, p, open ? (size_t)(open - p) : strlen(p));
        if (!open)
            return 0;
        if (!close || !add_word(v, open + 2, (size_t)(close - open) - 2, out))
            return refuse_tag(text, e);
        p = close + 2;
    }
    return 0;
}

/* ---- options ---- */
/* In bytes, or with k, m, g. */
static int read_size(struct log_driver *d, const char *v, struct err *e)
{
    char *end;
    double n = strtod(v, &end);
    char unit = *end;
    const char *rest = end + (unit && strchr("kKmMgG", unit) ? 1 : 0);
    int shift = unit == 'g' || unit == 'G' ? 30 : unit == 'm' || unit == 'M' ? 20 : unit == 'k' || unit == 'K' ? 10 : 0;
    bool is_number = end > v && n >= 1 && n <= 1e9; /* not NaN, and no overflow by its unit */
    if (!is_number || (*rest && !(shift && (*rest == 'b' || *rest == 'B') && !rest[1])))
        return err_set(e, E_INVALID, "log option max-size: \"%s\" is no size, such as 10m", v);
    d->max_bytes = (int64_t)(n * (double)(INT64_C(1) << shift));
    return 0;
}

static int read_count(struct log_driver *d, const char *v, struct err *e)
{
    char *end;
    double n = strtod(v, &end);
    if (end == v || *end || !(n >= 1 && n <= 1000))
        return err_set(e, E_INVALID, "log option max-file: \"%s\" is no number from 1 to 1000", v);
    d->max_files = (int64_t)n;
    return 0;
}

static int read_tag(struct log_driver *d, const char *v, struct err *e)
{
    AUTO_SB struct sb ignored;
    (void)d;
    sb_init(&ignored, 0);
    if (strlen(v) > TAG_MAX_BYTES)
        return err_set(e, E_TOO_BIG, "log option tag is longer than %d bytes", TAG_MAX_BYTES);
    return log_tag(v, &(struct log_tag_values){ 0 }, &ignored, e);
}

static const struct option {
    bool journal;
    const char *name;
    int (*read)(struct log_driver *d, const char *v, struct err *e); /* NULL: any text */
} options[] = {
    { false, "max-size", read_size }, { false, "max-file", read_count },
    { true, "tag", read_tag },        { true, "labels", NULL },          { true, "env", NULL },
};

static int refuse_option(const struct log_driver *d, const char *key, struct err *e)
{
    const char *names[ARRAY_N(options)];
    unsigned n = 0;
    AUTO_SB struct sb all;
    sb_init(&all, 0);
    for (unsigned i = 0; i < ARRAY_N(options); i++)
        if (options[i].journal == d->journal)
            names[n++] = options[i].name;
    for (unsigned i = 0; i < n; i++)
        sb_printf(&all, "%s%s", !i ? "" : i + 1 < n ? ", " : " and ", names[i]);
    return err_set(e, E_UNSUPPORTED, "log option %s is not built for %s; %s are", key, d->journal ? "journald" : "json-file", all.s);
}

static int read_option(struct log_driver *d, const char *key, const char *value, struct err *e)
{
    for (unsigned i = 0; i < ARRAY_N(options); i++)
        if (options[i].journal == d->journal && str_equal(options[i].name, key))
            return options[i].read ? options[i].read(d, value, e) : 0;
    return refuse_option(d, key, e);
}

int log_driver_read(struct log_driver *ret, const char *name, const struct labels *given, const char *where, struct err *e)
{
    int r = 0;
    *ret = (struct log_driver){ .journal = str_equal(name, "journald") };
    if (!ret->journal && name && *name && !str_equal(name, "json-file") && !str_equal(name, "local"))
        return err_set(e, E_UNSUPPORTED, "%s: log driver \"%s\" is not built; use json-file or journald", where, name);
    for (uint32_t i = 0; i < given->n && r == 0; i++)
        r = read_option(ret, given->v[i].key, given->v[i].value ? given->v[i].value : "", e);
    return r < 0 ? err_wrap(e, "%s", where) : 0;
}
