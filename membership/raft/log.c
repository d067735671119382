/* The in-memory view of the log: entries since the last compaction plus index and term of the entry
 * before the first (Raft paper, section 7). Payloads are shared buffers, so that an entry lies in
 * memory once however many writes and messages carry it. */
#include "internal.h"

struct raft_buf *raft_buf_alloc(size_t size)
{
    struct raft_buf *b = try_calloc(1, sizeof(*b) + size);
    if (!b)
        return NULL;
    b->refs = 1;
    b->size = size;
    return b;
}

struct raft_buf *raft_buf_new(const void *bytes, size_t size)
{
    struct raft_buf *b = raft_buf_alloc(size);
    if (b && size)
        memcpy(b->data, bytes, size);
    return b;
}

struct raft_buf *raft_buf_ref(struct raft_buf *b)
{
    if (b)
        b->refs++;
    return b;
}

void raft_buf_unref(struct raft_buf *b)
{
    if (!b)
        return;
    ASSERT(b->refs > 0);
    if (--b->refs == 0)
        free(b);
}

size_t raft_entry_size(const struct raft_entry *e)
{
    return e->data ? e->data->size : 0;
}

void raft_entries_push(struct raft_entry **a, uint32_t *n, uint32_t *cap, const struct raft_entry *e)
{
    RAFT_GROW(*a, *n, *cap);
    (*a)[*n] = *e;
    raft_buf_ref(e->data);
    (*n)++;
}

uint64_t raft_log_last(const struct raft_log *l)
{
    return l->prev_index + l->n;
}

uint64_t raft_log_last_term(const struct raft_log *l)
{
    return l->n ? l->entries[l->n - 1].term : l->prev_term;
}

bool raft_log_term(const struct raft_log *l, uint64_t index, uint64_t *ret)
{
    if (index < l->prev_index || index > raft_log_last(l))
        return false;
    *ret = index == l->prev_index ? l->prev_term : l->entries[index - l->prev_index - 1].term;
    return true;
}

bool raft_log_matches(const struct raft_log *l, uint64_t index, uint64_t term)
{
    uint64_t t;
    return raft_log_term(l, index, &t) && t == term;
}

struct raft_entry *raft_log_at(const struct raft_log *l, uint64_t index)
{
    if (index <= l->prev_index || index > raft_log_last(l))
        return NULL;
    return &l->entries[index - l->prev_index - 1];
}

void raft_log_append(struct raft_log *l, const struct raft_entry *e)
{
    ASSERT(e->index == raft_log_last(l) + 1);
    ASSERT(e->term >= raft_log_last_term(l) || RAFT_BUG);
    raft_entries_push(&l->entries, &l->n, &l->cap, e);
}

void raft_log_truncate(struct raft_log *l, uint64_t from)
{
    ASSERT(from > l->prev_index);
    while (raft_log_last(l) >= from)
        raft_buf_unref(l->entries[--l->n].data);
}

void raft_log_compact(struct raft_log *l, uint64_t to)
{
    if (to <= l->prev_index)
        return;
    uint64_t term = 0;
    bool known = raft_log_term(l, to, &term);
    ASSERT(known);
    uint32_t gone = (uint32_t)(to - l->prev_index);
    for (uint32_t i = 0; i < gone; i++)
        raft_buf_unref(l->entries[i].data);
    memmove(l->entries, l->entries + gone, (l->n - gone) * sizeof(*l->entries));
    l->n -= gone;
    l->prev_index = to;
    l->prev_term = term;
    if (l->cap > 1024 && l->n < l->cap / 4) {
        l->cap = l->cap / 2;
        l->entries = xrealloc(l->entries, l->cap, sizeof(*l->entries));
    }
}

void raft_log_reset(struct raft_log *l, uint64_t index, uint64_t term)
{
    while (l->n)
        raft_buf_unref(l->entries[--l->n].data);
    l->prev_index = index;
    l->prev_term = term;
}

uint64_t raft_log_find(const struct raft_log *l, uint64_t index, uint64_t term)
{
    index = MIN(index, raft_log_last(l));
    uint64_t t;
    while (index > l->prev_index && raft_log_term(l, index, &t) && t > term)
        index--;
    return index;
}
