/* The check for long histories: the server says which place of its log each reply speaks of, and only has to be held to
 * it. Two sweeps: real time against places, over all keys; and for each key its value at every place. */
#include "linear.h"

#include <shoal/base/mem.h>

static bool is_write(const struct linear_op *op)
{
    return op->kind != LINEAR_READ && op->outcome == LINEAR_OK;
}

static bool counts(const struct linear_op *op)
{
    return op->index && (op->outcome == LINEAR_OK || op->outcome == LINEAR_REFUSED);
}

static void say(const struct linear_history *h, const struct linear_op *op, struct sb *why)
{
    sb_printf(why, "  line %-6u ", op->line);
    linear_print(h, op, why);
    sb_char(why, '\n');
}

static int by_start(const void *a, const void *b)
{
    const struct linear_op *x = *(const struct linear_op *const *)a, *y = *(const struct linear_op *const *)b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static int by_end(const void *a, const void *b)
{
    const struct linear_op *x = *(const struct linear_op *const *)a, *y = *(const struct linear_op *const *)b;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* What began after another ended stands at its place or behind it; a write behind it. */
static bool time_agrees(const struct linear_history *h, const struct linear_op **all, uint32_t n, struct sb *why)
{
    const struct linear_op **ended = xmemdup(all, n * sizeof(*all)), *last = NULL;
    uint32_t k = 0;
    bool good = true;
    qsort(all, n, sizeof *all, by_start);
    qsort(ended, n, sizeof *ended, by_end);
    for (uint32_t i = 0; i < n && good; i++) {
        for (; k < n && ended[k]->end < all[i]->start; k++)
            if (!last || ended[k]->index > last->index)
                last = ended[k];
        if (!last || all[i]->index > last->index || (all[i]->index == last->index && !is_write(all[i])))
            continue;
        good = false;
        sb_str(why, "the first had ended when the second began, which yet stands before it in the log:\n");
        say(h, last, why);
        say(h, all[i], why);
    }
    free(ended);
    return good;
}

/* ---- one key ---- */
static int by_place(const void *a, const void *b)
{
    const struct linear_op *x = *(const struct linear_op *const *)a, *y = *(const struct linear_op *const *)b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    if (is_write(x) != is_write(y))
        return is_write(x) ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

struct unknowns { /* writes without a known place, by value */
    const struct linear_op **of_value;
    uint8_t *used;
    const struct linear_op **first_of_key; /* the one that began first */
};

/* Unknown writes, one on top of the other, may have made this value out of the one before. */
static bool explained(struct unknowns *u, uint32_t value, uint32_t before, const struct linear_op *witness)
{
    for (;;) {
        const struct linear_op *w = u->of_value[value];
        if (!w || w->key != witness->key || u->used[value] || w->start > witness->end)
            return false;
        u->used[value] = 1;
        if (w->kind == LINEAR_WRITE || w->expected == before)
            return true;
        value = w->expected;
    }
}

static bool values_agree(const struct linear_history *h, const struct linear_op **all, uint32_t n, struct unknowns *u,
                         struct sb *why)
{
    const struct linear_op *last = NULL; /* whose value holds */
    qsort(all, n, sizeof *all, by_place);
    for (uint32_t i = 0; i < n; i++) {
        const struct linear_op *op = all[i];
        if (last && last->key != op->key)
            last = NULL;
        uint32_t now = last ? last->value : 0;
        const char *bad = NULL;
        if (is_write(op) && last && is_write(last) && last->index == op->index)
            bad = "two writes stand at one place of the log";
        else if (op->outcome == LINEAR_REFUSED && op->expected == now &&
                 !(u->first_of_key[op->key] && u->first_of_key[op->key]->start <= op->end))
            bad = "it was refused although the state was as expected";
        else if (op->kind == LINEAR_CAS && op->outcome == LINEAR_OK && op->expected != now &&
                 !explained(u, op->expected, now, op))
            bad = "it was taken although the state was not as expected";
        else if (op->kind == LINEAR_READ && op->value != now && !explained(u, op->value, now, op))
            bad = "it read what the log did not hold at that place";
        if (bad) {
            sb_printf(why, "key %s: %s; the state was %s:\n", h->keys[op->key], bad, h->values[now]);
            if (last)
                say(h, last, why);
            say(h, op, why);
            return false;
        }
        if (op->outcome == LINEAR_OK)
            last = op;
    }
    return true;
}

enum linear_verdict linear_check_index(const struct linear_history *h, struct sb *why)
{
    const struct linear_op **all = xcalloc(h->n + 1, sizeof(*all));
    struct unknowns u = { xcalloc(h->n_values + 1, sizeof(*all)), xcalloc(h->n_values + 1, 1),
                          xcalloc(h->n_keys + 1, sizeof(*all)) };
    uint32_t n = 0;
    for (uint32_t i = 0; i < h->n; i++) {
        const struct linear_op *op = &h->ops[i];
        if (counts(op))
            all[n++] = op;
        bool placeless = op->outcome == LINEAR_UNKNOWN || (op->outcome == LINEAR_OK && !op->index);
        if (op->kind == LINEAR_READ || !placeless)
            continue;
        u.of_value[op->value] = op;
        if (!u.first_of_key[op->key] || op->start < u.first_of_key[op->key]->start)
            u.first_of_key[op->key] = op;
    }
    bool good = time_agrees(h, all, n, why) && values_agree(h, all, n, &u, why);
    free(all);
    free(u.of_value);
    free(u.used);
    free(u.first_of_key);
    return good ? LINEAR_YES : LINEAR_NO;
}
