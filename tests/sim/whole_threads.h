/* In front of the files of Raft (-include): its worker's jobs run on the one thread there is. */
#ifndef WHOLE_THREADS_H
#define WHOLE_THREADS_H

#include <pthread.h>

void whole_wait(void); /* whole_loop.c: a job of the daemon at work comes to its end */

#define pthread_mutex_lock(mutex) ((void)(mutex))
#define pthread_mutex_unlock(mutex) ((void)(mutex))
#define pthread_cond_wait(cond, mutex) whole_wait()

#endif
