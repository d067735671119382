/* The exact search, one key at a time. Calls and returns stand in one list in order of time. The search takes a call
 * whose effect fits the state out of the list, with its return, and begins again; a return it meets first means a wrong
 * choice before, and it goes back. A pair (set of operations taken, state) is tried once. An unknown write has no
 * return: it may be taken or never be.
 *
 * Shrinking only takes steps that a linearizable history survives, so that what is left is a proof by itself:
 * cutting the end off at a moment (what was under way becomes unknown), cutting the beginning off (what was under way
 * becomes optional, and the state then is whatever the first to look at it finds), leaving out reads and refusals. */
#include "linear.h"

#include <shoal/base/mem.h>

enum { ANY = UINT32_MAX, STATES_DEFAULT = 2000000 };

struct item { /* a call or a return */
    struct item *prev, *next, *match; /* match: a call's return; NULL: a return, or an unknown call */
    const struct linear_op *op;
    uint32_t bit;
    bool is_call;
    int64_t at;
};

struct seen {
    uint64_t hash;
    uint32_t state, used;
    uint64_t *bits; /* owned */
};

struct search {
    struct item *items, head;
    uint32_t n_items, n_ops, n_words, n_must;
    uint64_t *bits;
    struct seen *seen; /* open addressing */
    uint64_t n_seen, cap_seen, limit;
    struct step {
        struct item *call;
        uint32_t state;
    } *stack;
    uint32_t depth;
    const struct linear_op **best; /* the longest order found */
    uint32_t n_best, best_state;
    const struct linear_op *stuck; /* what could not follow it */
    bool too_hard;
};

/* The state after op, in *state; false when op cannot happen in it. */
static bool apply(const struct linear_op *op, uint32_t *state)
{
    switch (op->kind) {
    case LINEAR_READ:
        if (*state != ANY && *state != op->value)
            return false;
        *state = op->value;
        return true;
    case LINEAR_WRITE:
        *state = op->value;
        return true;
    case LINEAR_CAS:
        if (op->outcome == LINEAR_REFUSED)
            return *state == ANY || *state != op->expected;
        if (*state != ANY && *state != op->expected)
            return false;
        *state = op->value;
        return true;
    }
    return false;
}

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    if (x->is_call != y->is_call)
        return x->is_call ? -1 : 1; /* at one moment: together, which is the weaker claim */
    return x->bit < y->bit ? -1 : x->bit > y->bit;
}

static void prepare(struct search *s, const struct linear_op *ops, uint32_t n)
{
    s->n_ops = n;
    s->n_words = (n + 63) / 64;
    s->items = xcalloc(2 * (size_t)n + 1, sizeof *s->items);
    s->bits = xcalloc(s->n_words + 1, sizeof *s->bits);
    s->stack = xcalloc((size_t)n + 1, sizeof *s->stack);
    s->best = xcalloc((size_t)n + 1, sizeof(struct linear_op *));
    s->cap_seen = 1024;
    s->seen = xcalloc(s->cap_seen, sizeof *s->seen);
    for (uint32_t i = 0; i < n; i++) {
        s->items[s->n_items++] = (struct item){ .op = &ops[i], .bit = i, .is_call = true, .at = ops[i].start };
        if (ops[i].end == LINEAR_NEVER)
            continue;
        s->items[s->n_items++] = (struct item){ .op = &ops[i], .bit = i, .at = ops[i].end };
        s->n_must++;
    }
    qsort(s->items, s->n_items, sizeof *s->items, compare_items);
    struct item **calls = xcalloc((size_t)n + 1, sizeof(struct item *)), *last = &s->head;
    for (uint32_t i = 0; i < s->n_items; i++) {
        struct item *it = &s->items[i];
        if (it->is_call)
            calls[it->bit] = it;
        else
            calls[it->bit]->match = it;
        it->prev = last;
        last->next = it;
        last = it;
    }
    free(calls);
}

static void release(struct search *s)
{
    for (uint64_t i = 0; i < s->cap_seen; i++)
        free(s->seen[i].bits);
    free(s->seen);
    free(s->items);
    free(s->bits);
    free(s->stack);
    free(s->best);
}

static void unlink_item(struct item *it)
{
    it->prev->next = it->next;
    if (it->next)
        it->next->prev = it->prev;
}

static void relink_item(struct item *it)
{
    it->prev->next = it;
    if (it->next)
        it->next->prev = it;
}

static void lift(struct item *call)
{
    unlink_item(call);
    if (call->match)
        unlink_item(call->match);
}

static void unlift(struct item *call)
{
    if (call->match)
        relink_item(call->match);
    relink_item(call);
}

static uint64_t hash_of(const struct search *s, uint32_t state)
{
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15) * (state + UINT64_C(1));
    for (uint32_t i = 0; i < s->n_words; i++) {
        h ^= s->bits[i];
        h *= UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    return h;
}

static void seen_grow(struct search *s)
{
    struct seen *old = s->seen;
    uint64_t cap = s->cap_seen;
    s->cap_seen = 2 * cap;
    s->seen = xcalloc(s->cap_seen, sizeof *s->seen);
    for (uint64_t i = 0; i < cap; i++) {
        if (!old[i].used)
            continue;
        uint64_t at = old[i].hash & (s->cap_seen - 1);
        while (s->seen[at].used)
            at = (at + 1) & (s->cap_seen - 1);
        s->seen[at] = old[i];
    }
    free(old);
}

/* True the first time for this set and state. */
static bool remember(struct search *s, uint32_t state)
{
    uint64_t hash = hash_of(s, state), at = hash & (s->cap_seen - 1);
    size_t size = s->n_words * sizeof *s->bits;
    for (; s->seen[at].used; at = (at + 1) & (s->cap_seen - 1))
        if (s->seen[at].hash == hash && s->seen[at].state == state && !memcmp(s->seen[at].bits, s->bits, size))
            return false;
    if (s->n_seen >= s->limit) {
        s->too_hard = true;
        return false;
    }
    s->seen[at] = (struct seen){ hash, state, 1, xmemdup(s->bits, size) };
    if (++s->n_seen * 2 > s->cap_seen)
        seen_grow(s);
    return true;
}

static void note_best(struct search *s, uint32_t state, const struct linear_op *stuck)
{
    if (s->stuck && s->depth <= s->n_best)
        return;
    s->n_best = s->depth;
    for (uint32_t i = 0; i < s->depth; i++)
        s->best[i] = s->stack[i].call->op;
    s->best_state = state;
    s->stuck = stuck;
}

static bool search(struct search *s, uint32_t state)
{
    struct item *it = s->head.next;
    uint32_t left = s->n_must;
    while (left && !s->too_hard) {
        if (it && it->is_call) {
            uint32_t after = state;
            if (apply(it->op, &after)) {
                s->bits[it->bit / 64] |= UINT64_C(1) << it->bit % 64;
                if (remember(s, after)) {
                    s->stack[s->depth++] = (struct step){ it, state };
                    state = after;
                    left -= it->match != NULL;
                    lift(it);
                    it = s->head.next;
                    continue;
                }
                s->bits[it->bit / 64] &= ~(UINT64_C(1) << it->bit % 64);
            }
            it = it->next;
            continue;
        }
        if (it)
            note_best(s, state, it->op);
        if (!s->depth)
            return false;
        struct step *last = &s->stack[--s->depth];
        s->bits[last->call->bit / 64] &= ~(UINT64_C(1) << last->call->bit % 64);
        state = last->state;
        left += last->call->match != NULL;
        unlift(last->call);
        it = last->call->next;
    }
    return left == 0;
}

static enum linear_verdict decide(const struct linear_op *ops, uint32_t n, uint32_t state, uint64_t limit,
                                  struct search *ret)
{
    struct search s = { .limit = limit };
    prepare(&s, ops, n);
    bool yes = search(&s, state);
    enum linear_verdict v = s.too_hard ? LINEAR_TOO_HARD : yes ? LINEAR_YES : LINEAR_NO;
    if (ret)
        *ret = s;
    else
        release(&s);
    return v;
}

/* ---- one key ---- */
/* What says nothing goes: what never happened, reads without an answer, unknown writes that nobody saw (unless a
 * refusal may be owed to one). */
static uint32_t select_key(const struct linear_history *h, const uint32_t *of_key, uint32_t n, struct linear_op *out)
{
    uint8_t *seen = xcalloc(h->n_values, 1);
    bool refused = false;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct linear_op *op = &h->ops[of_key[i]];
        refused |= op->outcome == LINEAR_REFUSED;
        if (op->kind == LINEAR_READ && op->outcome == LINEAR_OK)
            seen[op->value] = 1;
        if (op->kind == LINEAR_CAS && (op->outcome == LINEAR_OK || op->outcome == LINEAR_UNKNOWN))
            seen[op->expected] = 1;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct linear_op *op = &h->ops[of_key[i]];
        bool unknown = op->outcome == LINEAR_UNKNOWN;
        if (op->outcome == LINEAR_FAILED || (unknown && op->kind == LINEAR_READ) ||
            (unknown && !refused && !seen[op->value]))
            continue;
        out[kept++] = *op;
    }
    free(seen);
    return kept;
}

/* ---- shrinking ---- */
struct case_ {
    struct linear_op *ops;
    uint32_t n, state;
    uint64_t limit;
};

static bool still_no(const struct case_ *c)
{
    return decide(c->ops, c->n, c->state, c->limit, NULL) == LINEAR_NO;
}

static void case_copy(struct case_ *to, const struct case_ *from)
{
    to->n = from->n;
    to->state = from->state;
    to->limit = from->limit;
    memcpy(to->ops, from->ops, from->n * sizeof *from->ops);
}

static void optional(struct linear_op *ops, uint32_t *n, const struct linear_op *op)
{
    if (op->kind == LINEAR_READ || op->outcome == LINEAR_REFUSED)
        return;
    ops[*n] = *op;
    ops[*n].end = LINEAR_NEVER;
    (*n)++;
}

static void cut_end(struct case_ *to, const struct case_ *from, int64_t at)
{
    to->n = 0;
    to->state = from->state;
    to->limit = from->limit;
    for (uint32_t i = 0; i < from->n; i++) {
        const struct linear_op *op = &from->ops[i];
        if (op->start > at)
            continue;
        if (op->end <= at)
            to->ops[to->n++] = *op;
        else
            optional(to->ops, &to->n, op);
    }
}

static void cut_start(struct case_ *to, const struct case_ *from, int64_t at)
{
    to->n = 0;
    to->state = ANY;
    to->limit = from->limit;
    for (uint32_t i = 0; i < from->n; i++) {
        const struct linear_op *op = &from->ops[i];
        if (op->start >= at)
            to->ops[to->n++] = *op;
        else if (op->end >= at)
            optional(to->ops, &to->n, op);
    }
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Both cuts are monotonic: a binary search over the moments. */
static void cut(struct case_ *c, struct case_ *spare, bool end)
{
    int64_t *at = xcalloc(c->n + 1, sizeof *at);
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++)
        if (!end || c->ops[i].end != LINEAR_NEVER)
            at[n++] = end ? c->ops[i].end : c->ops[i].start;
    qsort(at, n, sizeof *at, compare_times);
    uint32_t low = 0, high = n; /* end: the least that still fails; start: the most */
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        (end ? cut_end : cut_start)(spare, c, at[mid]);
        if (still_no(spare) == end)
            high = mid;
        else
            low = mid + 1;
    }
    if (end ? low < n : low > 0) {
        (end ? cut_end : cut_start)(spare, c, at[end ? low : low - 1]);
        if (still_no(spare))
            case_copy(c, spare);
    }
    free(at);
}

static bool may_leave_out(const struct case_ *c, uint32_t i)
{
    const struct linear_op *op = &c->ops[i];
    if (op->kind == LINEAR_READ || op->outcome == LINEAR_REFUSED || op->end == LINEAR_NEVER)
        return true; /* a read or refusal changes nothing; an unknown one need not have been */
    for (uint32_t k = 0; k < c->n; k++) {
        const struct linear_op *o = &c->ops[k];
        if (o->outcome == LINEAR_REFUSED || (k != i && o->kind == LINEAR_READ && o->value == op->value) ||
            (k != i && o->kind == LINEAR_CAS && o->expected == op->value))
            return false;
    }
    return true; /* nobody looked at what it wrote */
}

static void leave_out(struct case_ *c, struct case_ *spare)
{
    for (uint32_t i = c->n; i-- > 0;) {
        if (!may_leave_out(c, i))
            continue;
        case_copy(spare, c);
        memmove(spare->ops + i, spare->ops + i + 1, (spare->n - i - 1) * sizeof *spare->ops);
        spare->n--;
        if (still_no(spare))
            case_copy(c, spare);
    }
}

static int compare_starts(const void *a, const void *b)
{
    const struct linear_op *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static void explain(const struct linear_history *h, const struct linear_op *ops, uint32_t n, uint64_t limit,
                    struct sb *why)
{
    struct case_ c = { xcalloc(n + 1, sizeof *ops), n, 0, limit }, spare = { xcalloc(n + 1, sizeof *ops), 0, 0, limit };
    memcpy(c.ops, ops, n * sizeof *ops);
    for (uint32_t before = UINT32_MAX; c.n < before;) {
        before = c.n;
        cut(&c, &spare, true);
        cut(&c, &spare, false);
        leave_out(&c, &spare);
    }
    qsort(c.ops, c.n, sizeof *c.ops, compare_starts);
    struct search s;
    (void)decide(c.ops, c.n, c.state, limit, &s);
    sb_printf(why, "key %s is not linearizable; %u of its %u operations show it%s:\n", h->keys[c.ops[0].key], c.n, n,
              c.state == ANY ? ", whatever the state before" : "");
    for (uint32_t i = 0; i < c.n; i++) {
        sb_printf(why, "  line %-6u ", c.ops[i].line);
        linear_print(h, &c.ops[i], why);
        sb_str(why, c.ops[i].end == LINEAR_NEVER && c.ops[i].outcome != LINEAR_UNKNOWN ? "   (may be left out)\n" : "\n");
    }
    sb_str(why, "  the longest order that fits:");
    for (uint32_t i = 0; i < s.n_best; i++)
        sb_printf(why, " line %u,", s.best[i]->line);
    sb_printf(why, " then the state is %s", s.best_state == ANY ? "anything" : h->values[s.best_state]);
    if (s.stuck)
        sb_printf(why, " and line %u, which must come before the next begins, does not fit", s.stuck->line);
    sb_char(why, '\n');
    release(&s);
    free(c.ops);
    free(spare.ops);
}

enum linear_verdict linear_check(const struct linear_history *h, const struct linear_limits *limits, struct sb *why)
{
    uint64_t limit = limits && limits->states ? limits->states : STATES_DEFAULT;
    uint32_t *start = xcalloc(h->n_keys + 2, sizeof *start), *of_key = xcalloc(h->n + 1, sizeof *of_key);
    struct linear_op *ops = xcalloc(h->n + 1, sizeof *ops);
    enum linear_verdict worst = LINEAR_YES;
    for (uint32_t i = 0; i < h->n; i++)
        start[h->ops[i].key + 1]++;
    for (uint32_t k = 0; k < h->n_keys; k++)
        start[k + 1] += start[k];
    uint32_t *at = xmemdup(start, (h->n_keys + 1) * sizeof *start);
    for (uint32_t i = 0; i < h->n; i++)
        of_key[at[h->ops[i].key]++] = i;
    free(at);
    for (uint32_t k = 0; k < h->n_keys && worst != LINEAR_NO; k++) {
        uint32_t n = select_key(h, of_key + start[k], start[k + 1] - start[k], ops);
        enum linear_verdict v = decide(ops, n, 0, limit, NULL);
        if (v == LINEAR_NO)
            explain(h, ops, n, limit, why);
        if (v == LINEAR_TOO_HARD)
            sb_printf(why, "key %s with %u operations needs more than %llu states\n", h->keys[k], n,
                      (unsigned long long)limit);
        if (v != LINEAR_YES)
            worst = v;
    }
    free(start);
    free(of_key);
    free(ops);
    return worst;
}
