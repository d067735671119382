/* The event loop (libevent behind src/net/loop_io.c), timers, deferred calls, signals, and the one
 * worker thread for slow disk work. Everything runs on the loop's thread except worker jobs.
 * Callbacks may not free the object that called them: loop_defer() the free. */
#ifndef SHOAL_LOOP_H
#define SHOAL_LOOP_H

#include <shoal/base/err.h>
#include <stdint.h>

struct loop;
struct loop_fd;
struct loop_timer;
struct loop_signal;

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

typedef void loop_fn(void *arg);
typedef void loop_fd_fn(void *arg, unsigned events);

struct loop *loop_new(void);
void loop_free(struct loop *l);
void loop_run(struct loop *l);  /* until loop_stop() */
void loop_stop(struct loop *l);
/* After loop_run: waits for the workers' jobs, those that their ends begin too, and makes the deferred calls, so that
 * what they work on can be freed then. */
void loop_finish(struct loop *l);
int64_t loop_now_ms(const struct loop *l); /* monotonic, cached for the turn */

/* Level-triggered watch on an fd the caller owns (not closed by remove). */
struct loop_fd *loop_fd_add(struct loop *l, int fd, unsigned events, loop_fd_fn *fn, void *arg);
void loop_fd_set(struct loop_fd *w, unsigned events); /* 0: pause */
void loop_fd_remove(struct loop_fd *w);               /* takes NULL */

/* One-shot timer, re-armed by set; created idle. ms < 0 cancels. */
struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg);
void loop_timer_set(struct loop_timer *t, int64_t ms);
void loop_timer_free(struct loop_timer *t); /* takes NULL */

/* Runs fn(arg) at the end of this turn, in order of calls. */
void loop_defer(struct loop *l, loop_fn *fn, void *arg);
/* Runs fn(arg) at the end of every turn, after deferred calls: groups writes (fsync, flush). One-time registration. */
void loop_each_turn(struct loop *l, loop_fn *fn, void *arg);

struct loop_signal *loop_signal_add(struct loop *l, int signum, loop_fn *fn, void *arg);
void loop_signal_remove(struct loop_signal *s); /* takes NULL */

/* Worker thread: work(arg) runs there (touches only what arg owns), then done(arg) on the loop.
 * Jobs run in order of submission within a lane; of the lanes each has its thread, so that log fsyncs never wait for an untar, nor small files (late_file.h). */
enum loop_lane { LANE_LOG, LANE_BULK, LANE_LATE, LANES };
int loop_work(struct loop *l, enum loop_lane lane, loop_fn *work, loop_fn *done, void *arg) must_check; /* -E_BUSY: 4096 queued */

#endif
