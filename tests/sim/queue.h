/* The events of a simulation: a heap of structs of one size, each of which begins with a struct due. What is due first
 * comes first; of what is due at once, what was put in first. */
#ifndef SIM_QUEUE_H
#define SIM_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct due {
    int64_t at;
    uint64_t seq; /* given by queue_push() */
};

struct queue {
    char *v;
    size_t size; /* of an event */
    unsigned n, cap;
    uint64_t seq; /* pushes so far */
};

/* Sets the seq of the event and puts a copy in, which is given: all but when it is due may be completed until the next call. */
void *queue_push(struct queue *q, void *event);
void queue_again(struct queue *q, const void *event); /* later, and before what was pushed after it */
bool queue_is_due(const struct queue *q, int64_t now);
void queue_pop(struct queue *q, void *ret_event); /* of a queue that has one */
void queue_done(struct queue *q); /* not what its events own */

#endif
