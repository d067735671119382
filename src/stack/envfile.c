/* Files of NAME=value lines: `.env` and env_file. Blank lines and # comments are skipped; "export " is
 * allowed; '...' is taken as it stands; "..." knows \n \r \t \" \\ \$; unquoted and double-quoted values have their
 * variables filled in. raw: the rest of the line as it stands. */
#include <ctype.h>
#include "stack_internal.h"

enum { MAX_LINE = 256 << 10, MAX_VARIABLES = 8192 };

struct env_line {
    const char *s, *end; /* rest of the line, of the file */
    const struct stack_source *src;
    unsigned line;
    const struct labels *lookup;
    struct labels *ret;
};

static int fill_in(const struct env_line *l, const char *text, char **ret, struct err *e)
{
    /* earlier lines are seen by later ones; the environment wins over both */
    struct labels env = { 0 };
    AUTO_SB struct sb out;
    sb_init(&out, MAX_LINE);
    for (uint32_t i = 0; i < l->ret->n; i++)
        labels_set(&env, l->ret->v[i].key, l->ret->v[i].value);
    for (uint32_t i = 0; l->lookup && i < l->lookup->n; i++)
        labels_set(&env, l->lookup->v[i].key, l->lookup->v[i].value);
    int rc = interpolate_text(text, &env, NULL, &out, e);
    labels_clear(&env);
    if (rc < 0) {
        (void)err_wrap(e, "%s:%u", l->src->name, l->line);
        return rc;
    }
    *ret = sb_take(&out);
    return 0;
}

/* s at the opening quote. */
static int quoted(struct env_line *l, const char *s, char **ret, struct err *e)
{
    AUTO_SB struct sb text;
    sb_init(&text, MAX_LINE);
    char q = *s++;
    unsigned first = l->line;
    for (; s < l->end && *s != q; s++) {
        if (*s == '\n')
            l->line++;
        if (q == '"' && *s == '\\' && s + 1 < l->end) {
            static const char from[] = "nrt\"\\", to[] = "\n\r\t\"\\";
            const char *f = strchr(from, *++s);
            if (*s == '$')
                sb_str(&text, "$$");
            else if (f && *f)
                sb_char(&text, to[f - from]);
            else
                sb_char(&text, '\\'), sb_char(&text, *s);
        } else {
            sb_char(&text, *s);
        }
    }
    if (s >= l->end)
        return err_set(e, E_INVALID, "%s:%u: the quote %c is not closed", l->src->name, first, q);
    for (s++; s < l->end && (*s == ' ' || *s == '\t' || *s == '\r'); s++)
        continue;
    if (s < l->end && *s != '\n' && *s != '#')
        return err_set(e, E_INVALID, "%s:%u: there is text after the closing quote", l->src->name, l->line);
    while (s < l->end && *s != '\n')
        s++;
    l->s = s;
    if (q == '"')
        return fill_in(l, text.s, ret, e);
    *ret = sb_take(&text);
    return 0;
}

static int unquoted(struct env_line *l, const char *s, bool raw, char **ret, struct err *e)
{
    const char *eol = memchr(s, '\n', (size_t)(l->end - s));
    const char *end = eol ? eol : l->end;
    l->s = end;
    if (end > s && end[-1] == '\r')
        end--;
    if (!raw) {
        for (const char *c = s; c < end; c++)
            if (*c == '#' && (c == s || isspace((unsigned char)c[-1]))) {
                end = c;
                break;
            }
        while (end > s && isspace((unsigned char)end[-1]))
            end--;
    }
    AUTO_FREE char *text = xstrndup(s, (size_t)(end - s));
    if (!raw)
        return fill_in(l, text, ret, e);
    *ret = TAKE(text);
    return 0;
}

static int one(struct env_line *l, bool raw, struct err *e)
{
    if (!raw && (size_t)(l->end - l->s) > 7 && strncmp(l->s, "export ", 7) == 0)
        l->s += 7;
    const char *s = l->s;
    while (s < l->end && *s != '=' && *s != '\n')
        s++;
    const char *name_end = s;
    while (name_end > l->s && isspace((unsigned char)name_end[-1]))
        name_end--;
    AUTO_FREE char *name = xstrndup(l->s, (size_t)(name_end - l->s)), *value = NULL;
    for (const char *c = name; *c; c++)
        if (isspace((unsigned char)*c) || (unsigned char)*c < 0x20)
            return err_set(e, E_INVALID, "%s:%u: a variable's name must not hold blanks", l->src->name,
                           l->line);
    if (!name[0])
        return err_set(e, E_INVALID, "%s:%u: there is no name before '='", l->src->name, l->line);
    if (l->ret->n >= MAX_VARIABLES)
        return err_set(e, E_TOO_BIG, "%s: has more than %d variables", l->src->name, MAX_VARIABLES);
    if (s >= l->end || *s == '\n') { /* a name alone: taken from the environment, if there */
        l->s = s;
        const char *found = l->lookup ? labels_get(l->lookup, name) : NULL;
        if (found)
            labels_set(l->ret, name, found);
        return 0;
    }
    s++;
    while (!raw && s < l->end && (*s == ' ' || *s == '\t'))
        s++;
    int rc = !raw && s < l->end && (*s == '"' || *s == '\'') ? quoted(l, s, &value, e)
                                                             : unquoted(l, s, raw, &value, e);
    if (rc == 0)
        labels_set(l->ret, name, value);
    return rc;
}

int stack_env_file_parse(const struct stack_source *src, bool raw, const struct labels *lookup,
                         struct labels *ret, struct err *e)
{
    struct env_line l = { src->text, src->text + src->len, src, 1, lookup, ret };
    if (src->len && memchr(src->text, 0, src->len))
        return err_set(e, E_INVALID, "%s: holds a NUL byte; it must be text", src->name);
    if (src->len >= 3 && memcmp(src->text, "\xef\xbb\xbf", 3) == 0)
        l.s += 3;
    while (l.s < l.end) {
        while (l.s < l.end && isspace((unsigned char)*l.s)) {
            if (*l.s == '\n')
                l.line++;
            l.s++;
        }
        if (l.s >= l.end)
            break;
        if (*l.s == '#') {
            while (l.s < l.end && *l.s != '\n')
                l.s++;
            continue;
        }
        int rc = one(&l, raw, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}
