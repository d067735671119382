/* Histories as text. */
#include "linear.h"

#include <shoal/base/mem.h>

static const char *const kinds[] = { "read", "write", "cas" };
static const char *const outcomes[] = { "ok", "refused", "failed", "unknown" };

void linear_history_init(struct linear_history *h)
{
    *h = (struct linear_history){ 0 };
    map_init(&h->key_numbers);
    map_init(&h->value_numbers);
    linear_value(h, "-");
}

void linear_history_done(struct linear_history *h)
{
    for (uint32_t i = 0; i < h->n_keys; i++)
        free(h->keys[i]);
    for (uint32_t i = 0; i < h->n_values; i++)
        free(h->values[i]);
    free(h->keys);
    free(h->values);
    free(h->ops);
    map_done(&h->key_numbers);
    map_done(&h->value_numbers);
}

static uint32_t number(struct map *numbers, char ***names, uint32_t *n, uint32_t *cap, const char *name)
{
    uintptr_t found = (uintptr_t)map_find(numbers, name);
    if (found)
        return (uint32_t)found - 1;
    if (*n == *cap) {
        *cap = *cap ? 2 * *cap : 64;
        *names = xrealloc(*names, *cap, sizeof **names);
    }
    (*names)[*n] = xstrdup(name);
    map_put(numbers, name, (void *)(uintptr_t)(*n + 1));
    return (*n)++;
}

uint32_t linear_key(struct linear_history *h, const char *name)
{
    return number(&h->key_numbers, &h->keys, &h->n_keys, &h->cap_keys, name);
}

uint32_t linear_value(struct linear_history *h, const char *text)
{
    return number(&h->value_numbers, &h->values, &h->n_values, &h->cap_values, text);
}

void linear_add(struct linear_history *h, const struct linear_op *op)
{
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 256;
        h->ops = xrealloc(h->ops, h->cap, sizeof *h->ops);
    }
    h->ops[h->n] = *op;
    if (!op->line)
        h->ops[h->n].line = h->n + 1;
    if (op->outcome == LINEAR_UNKNOWN)
        h->ops[h->n].end = LINEAR_NEVER;
    h->n++;
}

/* ---- text ---- */
static unsigned split(char *line, char *words[9])
{
    unsigned n = 0;
    for (char *p = line; *p && n < 9;) {
        p += strspn(p, " \t\r");
        if (!*p || *p == '#')
            break;
        words[n++] = p;
        p += strcspn(p, " \t\r");
        if (*p)
            *p++ = 0;
    }
    return n;
}

static bool word_of(const char *const *list, unsigned n, const char *word, unsigned *ret)
{
    for (unsigned i = 0; i < n; i++)
        if (!strcmp(list[i], word)) {
            *ret = i;
            return true;
        }
    return false;
}

static bool parse_words(struct linear_history *h, char **w, unsigned n, struct linear_op *op)
{
    uint64_t client, start, end = 0, index = 0;
    unsigned kind, outcome;
    if (n < 7 || !str_u64(w[0], 0, UINT32_MAX, &client) || !str_u64(w[1], 0, INT64_MAX / 2, &start) ||
        !word_of(kinds, ARRAY_N(kinds), w[3], &kind))
        return false;
    bool never = !strcmp(w[2], "-");
    unsigned last = kind == LINEAR_CAS ? 7 : 6;
    if ((!never && (!str_u64(w[2], 0, INT64_MAX / 2, &end) || end < start)) || n <= last || n > last + 2 ||
        !word_of(outcomes, ARRAY_N(outcomes), w[last], &outcome) || never != (outcome == LINEAR_UNKNOWN) ||
        (outcome == LINEAR_REFUSED && kind != LINEAR_CAS) || (n == last + 2 && !str_u64(w[last + 1], 0, UINT64_MAX, &index)))
        return false;
    *op = (struct linear_op){ .kind = (enum linear_kind)kind, .outcome = (enum linear_outcome)outcome,
                              .client = (uint32_t)client, .start = (int64_t)start,
                              .end = never ? LINEAR_NEVER : (int64_t)end, .index = index };
    op->key = linear_key(h, w[4]);
    if (kind == LINEAR_CAS)
        op->expected = linear_value(h, w[5]);
    op->value = linear_value(h, w[last - 1]);
    return true;
}

int linear_parse(struct linear_history *h, const char *text, const char *name, struct err *e)
{
    uint32_t line = 0;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n");
        AUTO_FREE char *copy = xstrndup(p, len);
        char *words[9];
        struct linear_op op;
        unsigned n = split(copy, words);
        p += len + (p[len] == '\n');
        line++;
        if (!n)
            continue;
        if (!parse_words(h, words, n, &op))
            return err_set(e, E_INVALID, "%s:%u: not an operation; see tests/linear/linear.h for the form", name, line);
        op.line = line;
        linear_add(h, &op);
    }
    return 0;
}

void linear_print(const struct linear_history *h, const struct linear_op *op, struct sb *out)
{
    sb_printf(out, "%u %lld ", op->client, (long long)op->start);
    if (op->end == LINEAR_NEVER)
        sb_char(out, '-');
    else
        sb_printf(out, "%lld", (long long)op->end);
    sb_printf(out, " %s %s ", kinds[op->kind], h->keys[op->key]);
    if (op->kind == LINEAR_CAS)
        sb_printf(out, "%s ", h->values[op->expected]);
    sb_printf(out, "%s %s", h->values[op->value], outcomes[op->outcome]);
    if (op->index)
        sb_printf(out, " %llu", (unsigned long long)op->index);
}
