/* The daemon's object for one container, shared by runtime_io.c (life), change_io.c and copy_io.c. */
#ifndef BOX_INTERNAL_H
#define BOX_INTERNAL_H

#include "runtime_internal.h"

struct request {
    uint64_t id;
    uint32_t type;
    runtime_done_fn *done;
    runtime_exec_fn *started;
    runtime_exit_fn *exited;
    void *arg;
    struct stream *stream;
    struct request *next;
};
enum { ATTACHED_MAX = 8 };
struct box { /* one container */
    struct container c;
    struct runtime *rt;
    struct list_node node;            /* of the runtime's, in order of creation; not yet: in none */
    int fd;
    struct loop_fd *watch;
    struct request *requests;         /* asked, not answered; execs until they end */
    runtime_done_fn *created;         /* runtime_create in flight */
    runtime_done_fn *stopped;
    runtime_done_fn *deleted;
    void *created_arg, *stopped_arg, *deleted_arg;
    struct loop_timer *stop_timer;
    bool dying;
    bool known;                       /* its creation was reported: so will be its end */
    runtime_done_fn *restarted;
    void *restarted_arg;
    uint64_t signals;                 /* came meanwhile: bit N - 1 is signal N */
    int attached[ATTACHED_MAX];       /* ends of streams that wait for its next run */
    unsigned n_attached;
};
struct runtime {
    struct loop *loop;
    char *dir, *cgroup;
    runtime_event_fn *event;
    void *event_arg;
    struct map boxes; /* id -> struct box */
    struct list_node in_order;
    struct list_node log_readers;
    uint64_t next_id;
};

struct box *box_find(const struct runtime *rt, const char *id);
/* NULL: done was called with the reason. */
struct box *box_or_fail(struct runtime *rt, const char *id, runtime_done_fn *done, void *arg);
/* Sends a request to the shim; the caller fills in who waits for the answer. */
struct request *box_ask(struct box *b, uint32_t type, int32_t arg, const void *p, size_t size, const int *fd);
char *box_path(const struct box *b, const char *name);
int box_save_spec(const struct box *b, struct err *e) must_check;
int runtime_name_free(const struct runtime *rt, const char *name, struct err *e) must_check;
/* Reads notes.mp; what cannot be read counts as none. */
void box_load_notes(struct box *b);

#endif
