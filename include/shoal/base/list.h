/* Intrusive circular doubly linked list. A node lives inside its object. */
#ifndef SHOAL_BASE_LIST_H
#define SHOAL_BASE_LIST_H

#include <shoal/base/mem.h>

struct list_node {
    struct list_node *prev, *next;
};

static inline void list_init(struct list_node *l) { l->prev = l->next = l; }
static inline bool list_is_empty(const struct list_node *l) { return l->next == l; }
static inline void list_insert_(struct list_node *at, struct list_node *n)
{
    n->next = at;
    n->prev = at->prev;
    at->prev->next = n;
    at->prev = n;
}
static inline void list_push_back(struct list_node *l, struct list_node *n) { list_insert_(l, n); }
static inline void list_push_front(struct list_node *l, struct list_node *n) { list_insert_(l->next, n); }
static inline void list_remove(struct list_node *n) /* safe to repeat */
{
    if (!n->next)
        return;
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = n;
}
#define list_entry(n, type, member) container_of(n, type, member)
#define list_first(l, type, member) \
    (list_is_empty(l) ? NULL : list_entry((l)->next, type, member))
/* The current entry may be removed inside the loop. */
#define list_for(it, l, member)                                                              \
    for (__typeof__(it) it##_next_ = (it = list_entry((l)->next, __typeof__(*it), member),   \
                                      list_entry(it->member.next, __typeof__(*it), member)); \
         &it->member != (l);                                                                 \
         it = it##_next_, it##_next_ = list_entry(it##_next_->member.next, __typeof__(*it), member))

#endif
