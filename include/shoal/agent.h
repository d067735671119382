/* A node's agent: keeps a session with the leading manager, brings the node's containers in line with its
 * assignment, and reports what became of them. It keeps everything running without a manager: lost contact
 * never stops a container. What containers, images and networks really are is behind struct executor. */
#ifndef SHOAL_AGENT_H
#define SHOAL_AGENT_H

#include <shoal/base/map.h>
#include <shoal/image.h>
#include <shoal/loop.h>
#include <shoal/model/assignment.h>
#include <shoal/model/certificate.h>
#include <shoal/overlay.h>
#include <shoal/runtime.h>

struct agent;

/* What a task's container can be told; all asynchronous, answers come as agent_executor_event(). */
struct executor_ops {
    /* Image, networks, volumes, container made but not started. PREPARED or FAILED follows. */
    void (*prepare)(void *arg, const struct task *t, const struct assignment *a);
    /* STARTED, then maybe HEALTHY/UNHEALTHY, at last EXITED (or FAILED). */
    void (*start)(void *arg, const char *task_id);
    /* Stop signal, grace, kill. EXITED follows; at once when it never ran. Repeatable. */
    void (*stop)(void *arg, const char *task_id, int64_t grace_ns);
    /* Container, its networks and logs go. No event. */
    void (*remove)(void *arg, const char *task_id);
    /* Networks, peers, names, published ports as the assignment says. Called after each change of it or of
     * suspicion; suspects: node ids that get no traffic. False: not all of it is in force. */
    bool (*network)(void *arg, const struct assignment *a, const struct map *suspects);
};

enum executor_event_kind { EXEC_PREPARED, EXEC_STARTED, EXEC_HEALTHY, EXEC_UNHEALTHY, EXEC_EXITED, EXEC_FAILED };
struct executor_event {
    enum executor_event_kind kind;
    const char *container_id; /* STARTED, EXITED */
    uint64_t pid;
    int64_t exit_code;
    bool oom;
    bool has_healthcheck;     /* STARTED: RUNNING waits for HEALTHY */
    const char *error;        /* FAILED, EXITED: a sentence or NULL */
};

struct agent_hooks {
    void *arg;
    void (*send)(void *arg, const char *node_id, uint8_t type, const void *p, size_t size);
    /* A new assignment is in force (peers, keys, managers may have changed). */
    void (*assigned)(void *arg, const struct assignment *a);
    /* Before each HELLO: the cluster wants this format promised (model/format.h). The one that is promised, surely. NULL: as
     * the HELLO of the configuration says. */
    uint64_t (*promise)(void *arg, uint64_t format);
};

struct agent_config {
    const char *dir;     /* assignment.mp is kept here, without secrets */
    const char *node_id;
    struct session_hello hello; /* copied; Have is filled in by the agent */
};

struct agent *agent_new(struct loop *l, const struct agent_config *cfg, const struct agent_hooks *hooks,
                        const struct executor_ops *ops, void *ops_arg);
void agent_free(struct agent *a); /* takes NULL; containers go on */
/* Containers that live from before (adopted): call once for each before agent_start. */
void agent_adopt(struct agent *a, const char *task_id, bool running, const struct executor_event *ev);
/* Begins the session: asks these nodes for the leader until the first assignment names managers. */
void agent_start(struct agent *a, const char *const *manager_ids, unsigned n);

void agent_got_message(struct agent *a, const char *from, uint8_t type, const void *p, size_t size);
void agent_executor_event(struct agent *a, const char *task_id, const struct executor_event *ev);
void agent_gossip_state(struct agent *a, const char *node_id, bool suspect);
/* The node holds this certificate from now on: the leader is told at once. */
void agent_certificate(struct agent *a, const struct certificate *c);
void agent_address(struct agent *a, const char *addr); /* this node has another one */
void agent_mtu(struct agent *a, unsigned mtu);          /* its link to the others has another one */
/* A link to this node came up: a good moment to say HELLO. */
void agent_link_up(struct agent *a, const char *node_id);

const struct assignment *agent_assignment(const struct agent *a); /* never NULL; empty before the first */
const char *agent_leader_id(const struct agent *a);               /* NULL: unknown */
/* Leaving the cluster: every task is stopped and removed; done when none is left. */
void agent_leave(struct agent *a, loop_fn *done, void *arg);

/* ---- the executor: tasks as containers of this node (executor_io.c, task_spec.c, health_io.c) ---- */
struct executor;
struct executor_config {
    struct runtime *runtime;
    struct image_store *images;
    struct overlay *overlay;
    const char *volumes_dir, *node_id, *hostname; /* copied */
};
extern const struct executor_ops executor_ops; /* arg: struct executor */
struct executor *executor_new(struct loop *l, const struct executor_config *cfg);
void executor_free(struct executor *x); /* takes NULL; containers go on */
/* Tells the agent of every container found from before, and removes leftovers of tasks nobody knows. */
void executor_adopt(struct executor *x, struct agent *a);
/* From the runtime: a container changed. False: it is no task's. */
bool executor_container_event(struct executor *x, const struct container *c);
/* A volume's folder, made if missing. NULL with e. Caller frees. */
char *executor_volume(struct executor *x, const char *name, struct err *e);

/* ---- healthchecks (health_io.c): run inside a started container; fn after each result that counts ---- */
struct health;
typedef void health_fn(void *arg, bool healthy, const char *last_output);
/* NULL: it has no check. h NULL: the image's. */
struct health *health_new(struct loop *l, struct runtime *rt, const char *container_id, const struct healthcheck *h,
                          const struct image_config *image, health_fn *fn, void *arg);
void health_free(struct health *h); /* takes NULL */
/* Every single run of the check; healthy, unhealthy: what it makes of the container (neither: as before). */
struct health_probe { int64_t start_ns, end_ns; int exit_code, failures; bool healthy, unhealthy; const char *output; };
typedef void health_probe_fn(void *arg, const struct health_probe *p);
void health_watch(struct health *h, health_probe_fn *fn); /* with the arg of health_new */

#endif
