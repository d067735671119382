/* Shared by the agent's files. */
#ifndef AGENT_INTERNAL_H
#define AGENT_INTERNAL_H

#include <shoal/agent.h>
#include <shoal/base/log.h>
#include <shoal/late_file.h>

/* Message types are the manager's (manager.h is a neighbour of this floor; the numbers are the wire's). */
enum { MSG_HELLO = 2, MSG_LEADER = 3, MSG_ASSIGNMENT = 4, MSG_REPORT = 5, MSG_REPORT_ACK = 6, MSG_IN_FORCE = 13, MSG_NODES = 14 };

struct agent_task {
    struct task task;          /* as assigned last */
    struct task_status status; /* ours: the truth about it */
    bool prepared, started, stopping, healthy;
    int64_t drain_end_ms;      /* it is stopped by then; 0: not to be stopped yet */
    bool assigned;             /* in the present assignment */
    uint64_t report_seq;       /* of the report that carries the status, 0: not to be reported */
};

struct agent {
    struct loop *loop;
    char *node_id;
    struct late_file *kept; /* assignment.mp */
    struct agent_hooks hooks;
    struct executor_ops ops;
    void *ops_arg;
    struct session_hello hello;
    struct assignment assignment;
    uint8_t version[32];
    bool has_version;
    uint64_t table, table_epoch; /* which the nodes of the assignment are of, when they come apart; 0: none */
    struct map tasks;    /* id -> struct agent_task */
    struct map suspects; /* node id -> itself */
    struct loop_timer *session_timer, *report_timer, *drain_timer, *network_timer;
    uint64_t in_force;   /* Index of the assignment that the network is in line with */
    int64_t asked_ms;    /* when the last HELLO was said */
    bool anew_due;       /* one is to be said soon, for what did not fit */
    char *leader_id;
    bool session_up;
    char **seeds;
    unsigned n_seeds, next_seed;
    uint64_t seq;
    bool network_due, draining /* the timer runs */, leaving, closed; /* closed: only calls already deferred still see it */
    loop_fn *left;
    void *left_arg;
};

/* session.c */
void session_tick(void *arg);
void session_in_force(struct agent *a); /* tells the leader */
void session_message(struct agent *a, const char *from, uint8_t type, const void *p, size_t size);
/* report.c */
void report_want(struct agent *a, struct agent_task *t);
void report_send(void *arg);
void report_acknowledged(struct agent *a, uint64_t seq);
/* task.c: drives one task towards its desired state; safe to call at any time. */
void task_step(struct agent *a, struct agent_task *t);
void task_drain_tick(void *arg);
void task_set_state(struct agent *a, struct agent_task *t, enum task_state state, const char *message,
                    const char *error);
/* worker.c */
void worker_assign(struct agent *a, struct assignment *next /* takes content */);
void worker_nodes(struct agent *a); /* the node table of the assignment has changed */
void worker_load(struct agent *a, const char *path);
void worker_want_network(struct agent *a);
void worker_do_network(void *arg); /* at once, and again while it fails */
void worker_forget(struct agent *a, struct agent_task *t); /* ended and not assigned any more */

#endif
