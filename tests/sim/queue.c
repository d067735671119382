#include "queue.h"

#include <shoal/base/mem.h>
#include <stdlib.h>
#include <string.h>

static struct due *at(const struct queue *q, unsigned i)
{
    return (struct due *)(void *)(q->v + i * q->size);
}

static bool is_before(const struct due *a, const struct due *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void *put(struct queue *q, const void *event)
{
    if (q->n == q->cap) {
        q->cap = q->cap ? 2 * q->cap : 256;
        q->v = xrealloc(q->v, q->cap, q->size);
    }
    unsigned i = q->n++;
    for (; i && is_before(event, at(q, (i - 1) / 2)); i = (i - 1) / 2)
        memcpy(at(q, i), at(q, (i - 1) / 2), q->size);
    return memcpy(at(q, i), event, q->size);
}

void *queue_push(struct queue *q, void *event)
{
    ((struct due *)event)->seq = ++q->seq;
    return put(q, event);
}

void queue_again(struct queue *q, const void *event)
{
    put(q, event);
}

bool queue_is_due(const struct queue *q, int64_t now)
{
    return q->n && at(q, 0)->at <= now;
}

void queue_pop(struct queue *q, void *ret_event)
{
    memcpy(ret_event, at(q, 0), q->size);
    const struct due *last = at(q, --q->n);
    unsigned i = 0;
    for (unsigned c; (c = 2 * i + 1) < q->n; i = c) {
        if (c + 1 < q->n && is_before(at(q, c + 1), at(q, c)))
            c++;
        if (!is_before(at(q, c), last))
            break;
        memcpy(at(q, i), at(q, c), q->size);
    }
    if (i < q->n)
        memcpy(at(q, i), last, q->size);
}

void queue_done(struct queue *q)
{
    free(q->v);
}
