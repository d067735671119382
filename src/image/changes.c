/* The lines of `docker import --change`: the part of Dockerfile instructions that only alters
 * the configuration (Docker's dispatcher: CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME
 * WORKDIR), and the writing of a new configuration. An instruction that is not one of these is
 * an error, never skipped. */
#include "image_internal.h"

enum { WORDS_MAX = 1024, LINE_MAX_BYTES = 64 << 10 };

/* Words as a Dockerfile has them: separated by blanks, with '', "" and backslash. False: quote
 * left open. */
static bool split_words(struct strs *ret, const char *s)
{
    AUTO_SB struct sb word;
    sb_init(&word, LINE_MAX_BYTES + 1);
    while (*s && ret->n < WORDS_MAX) {
        char quote = 0;
        bool any = false;
        while (*s == ' ' || *s == '\t')
            s++;
        for (; *s && (quote || (*s != ' ' && *s != '\t')); s++) {
            any = true;
            if (*s == '\\' && quote != '\'' && s[1])
                sb_char(&word, *++s);
            else if (quote && *s == quote)
                quote = 0;
            else if (!quote && (*s == '"' || *s == '\''))
                quote = *s;
            else
                sb_char(&word, *s);
        }
        if (quote)
            return false;
        if (any)
            strs_add(ret, word.s);
        sb_reset(&word);
    }
    return !*s;
}

/* ["a", "b"] or false when it is not the JSON form. */
static bool json_words(struct strs *ret, const char *s)
{
    struct val_doc *d = NULL;
    if (s[0] != '[' || json_parse(&d, s, strlen(s), "change", NULL) < 0)
        return false;
    struct val_doc *wrap = val_doc_new();
    struct val *map = val_map(wrap);
    val_set(wrap, map, "v", val_copy(wrap, val_root(d)));
    bool ok = image_strs_from(ret, map, "v", NULL) == 0;
    val_doc_free(wrap);
    val_doc_free(d);
    return ok;
}

static int set_command(struct strs *ret, const struct image_config *c, const char *rest)
{
    strs_clear(ret);
    if (json_words(ret, rest))
        return 0;
    strs_clear(ret);
    if (!c->shell.n) {
        strs_add(ret, "/bin/sh");
        strs_add(ret, "-c");
    }
    for (uint32_t i = 0; i < c->shell.n; i++)
        strs_add(ret, c->shell.v[i]);
    strs_add(ret, rest);
    return 0;
}

static void set_env(struct image_config *c, const char *pair)
{
    size_t name = (size_t)(strchr(pair, '=') - pair) + 1;
    for (uint32_t i = 0; i < c->env.n; i++)
        if (strncmp(c->env.v[i], pair, name) == 0) {
            str_set(&c->env.v[i], pair);
            return;
        }
    strs_add(&c->env, pair);
}

/* ENV and LABEL: NAME=VALUE..., or the old form NAME VALUE. */
static int set_pairs(struct image_config *c, bool label, const char *rest, struct err *e)
{
    struct strs words = { 0 };
    int r = split_words(&words, rest)
                ? 0
                : err_set(e, E_INVALID, "a quote is left open or there are too many words");
    if (r == 0 && words.n && !strchr(words.v[0], '=')) {
        const char *gap = strpbrk(rest, " \t");
        AUTO_FREE char *pair =
            gap ? xasprintf("%s=%s", words.v[0], gap + strspn(gap, " \t")) : NULL;
        if (!pair)
            r = err_set(e, E_INVALID, "\"%.100s\" has no value; want NAME=VALUE", rest);
        strs_clear(&words);
        if (pair)
            strs_add(&words, pair);
    }
    for (uint32_t i = 0; r == 0 && i < words.n; i++) {
        char *eq = strchr(words.v[i], '=');
        if (!eq || eq == words.v[i]) {
            r = err_set(e, E_INVALID, "\"%.100s\" is not NAME=VALUE", words.v[i]);
        } else if (label) {
            *eq = 0;
            labels_set(&c->labels, words.v[i], eq + 1);
        } else {
            set_env(c, words.v[i]);
        }
    }
    strs_clear(&words);
    return r;
}

static int add_port(struct image_config *c, const char *word, struct err *e)
{
    const char *slash = strchr(word, '/');
    const char *proto = slash ? slash + 1 : "tcp";
    AUTO_FREE char *number = slash ? xstrndup(word, (size_t)(slash - word)) : xstrdup(word);
    uint64_t port;
    if (!str_u64(number, 1, 65535, &port) ||
        !(str_equal(proto, "tcp") || str_equal(proto, "udp") || str_equal(proto, "sctp")))
        return err_set(e, E_INVALID, "\"%.100s\" is no port; want 1..65535[/tcp|/udp|/sctp]", word);
    AUTO_FREE char *key = xasprintf("%u/%s", (unsigned)port, proto);
    if (!strs_has(&c->exposed_ports, key))
        strs_add(&c->exposed_ports, key);
    return 0;
}

static int add_words(struct image_config *c, bool port, const char *rest, struct err *e)
{
    struct strs words = { 0 };
    int r = 0;
    if (port || !json_words(&words, rest)) {
        strs_clear(&words);
        if (!split_words(&words, rest))
            r = err_set(e, E_INVALID, "a quote is left open or there are too many words");
    }
    for (uint32_t i = 0; r == 0 && i < words.n; i++) {
        if (port)
            r = add_port(c, words.v[i], e);
        else if (!strs_has(&c->volumes, words.v[i]))
            strs_add(&c->volumes, words.v[i]);
    }
    strs_clear(&words);
    return r;
}

static int set_dir(struct image_config *c, const char *rest)
{
    AUTO_FREE char *joined = NULL;
    if (rest[0] != '/')
        joined = xasprintf("%s%s%s", c->working_dir ? c->working_dir : "/",
                           c->working_dir && !str_ends(c->working_dir, "/") ? "/" : "", rest);
    str_set(&c->working_dir, joined ? joined : rest);
    return 0;
}

static int apply_one(struct image_config *c, const char *line, struct err *e)
{
    const char *start = line + strspn(line, " \t");
    size_t n = strcspn(start, " \t");
    const char *rest = start + n + strspn(start + n, " \t");
    char word[16] = "";
    if (strlen(line) > LINE_MAX_BYTES)
        return err_set(e, E_TOO_BIG, "the line is longer than %d bytes", LINE_MAX_BYTES);
    if (n < sizeof word)
        for (size_t i = 0; i < n; i++)
            word[i] = start[i] >= 'a' && start[i] <= 'z' ? (char)(start[i] - 'a' + 'A') : start[i];
    static const char *const known[] = { "CMD",        "ENTRYPOINT", "ENV",    "EXPOSE", "LABEL",
                                         "STOPSIGNAL", "USER",       "VOLUME", "WORKDIR" };
    unsigned k = 0;
    while (k < ARRAY_N(known) && !str_equal(word, known[k]))
        k++;
    if (k == ARRAY_N(known))
        return err_set(
            e, E_INVALID,
            "unknown instruction; want CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR");
    if (!rest[0])
        return err_set(e, E_INVALID, "%s wants an argument", word);
    switch (k) {
    case 0: return set_command(&c->cmd, c, rest);
    case 1: return set_command(&c->entrypoint, c, rest);
    case 2: return set_pairs(c, false, rest, e);
    case 3: return add_words(c, true, rest, e);
    case 4: return set_pairs(c, true, rest, e);
    case 5: str_set(&c->stop_signal, rest); return 0;
    case 6: str_set(&c->user, rest); return 0;
    case 7: return add_words(c, false, rest, e);
    default: return set_dir(c, rest);
    }
}

int image_changes_apply(struct image_config *c, const char *const *changes, struct err *e)
{
    for (uint32_t i = 0; changes && changes[i]; i++)
        if (apply_one(c, changes[i], e) < 0)
            return err_wrap(e, "change \"%.100s\"", changes[i]);
    return 0;
}

static struct val *to_list(struct val_doc *d, const struct strs *s)
{
    struct val *list = val_list(d);
    for (uint32_t i = 0; i < s->n; i++)
        val_push(d, list, val_str(d, s->v[i]));
    return list;
}

static struct val *to_set(struct val_doc *d, const struct strs *s)
{
    struct val *map = val_map(d);
    for (uint32_t i = 0; i < s->n; i++)
        val_set(d, map, s->v[i], val_map(d));
    return map;
}

static struct val *config_val(struct val_doc *d, const struct image_config *c)
{
    struct val *cfg = val_map(d);
    struct val *labels = val_map(d);
    for (uint32_t i = 0; i < c->labels.n; i++)
        val_set(d, labels, c->labels.v[i].key, val_str(d, c->labels.v[i].value));
    const struct { const char *name; const struct strs *s;
    } lists[] = { { "Env", &c->env },
                  { "Cmd", &c->cmd },
                  { "Entrypoint", &c->entrypoint },
                  { "Shell", &c->shell } };
    for (size_t i = 0; i < ARRAY_N(lists); i++)
        if (lists[i].s->n)
            val_set(d, cfg, lists[i].name, to_list(d, lists[i].s));
    if (c->exposed_ports.n)
        val_set(d, cfg, "ExposedPorts", to_set(d, &c->exposed_ports));
    if (c->volumes.n)
        val_set(d, cfg, "Volumes", to_set(d, &c->volumes));
    const struct { const char *name, *value; } texts[] = {
        { "WorkingDir", c->working_dir }, { "User", c->user }, { "StopSignal", c->stop_signal } };
    for (size_t i = 0; i < ARRAY_N(texts); i++)
        if (texts[i].value)
            val_set(d, cfg, texts[i].name, val_str(d, texts[i].value));
    if (c->labels.n)
        val_set(d, cfg, "Labels", labels);
    return cfg;
}

char *image_config_write(const struct image_config *c, const char *created, const char *comment)
{
    struct val_doc *d = val_doc_new();
    struct val *root = val_map(d), *fs = val_map(d), *step = val_map(d), *history = val_list(d);
    struct sb b;
    val_set(d, root, "architecture", val_str(d, image_arch()));
    if (image_variant())
        val_set(d, root, "variant", val_str(d, image_variant()));
    val_set(d, root, "os", val_str(d, "linux"));
    val_set(d, root, "created", val_str(d, created));
    val_set(d, root, "config", config_val(d, c));
    val_set(d, fs, "type", val_str(d, "layers"));
    val_set(d, fs, "diff_ids", to_list(d, &c->diff_ids));
    val_set(d, root, "rootfs", fs);
    val_set(d, step, "created", val_str(d, created));
    val_set(d, step, "comment", val_str(d, comment));
    val_push(d, history, step);
    val_set(d, root, "history", history);
    sb_init(&b, IMAGE_CONFIG_MAX);
    json_write(&b, root, 0);
    val_doc_free(d);
    return sb_take(&b);
}
