/* Shared by the executor's files. */
#ifndef EXECUTOR_INTERNAL_H
#define EXECUTOR_INTERNAL_H

#include <shoal/agent.h>

#define TASK_LABEL "com.docker.swarm.task.id"

struct template_context {
    const struct task *task;
    const char *node_id, *hostname, *container_id;
};
/* template.c (pure): "{{.Task.Slot}}" and its kin in env, host name and mount sources. Unknown ones are refused. */
int template_expand(const char *text, const struct template_context *c, char **ret, struct err *e) must_check;
/* "app_web.1.abc": the name of a task's container. */
char *task_container_name(const struct task *t);

/* task_spec.c (pure): what a task says and what its image says become a container. volume: folder of a named
 * volume or NULL with e. Mount sources and files are complete then; netns is the caller's. */
typedef char *task_volume_fn(void *arg, const char *name, struct err *e);
int task_container_spec(const struct task *t, const struct assignment *a, const struct image *image,
                        const struct template_context *c, task_volume_fn *volume, void *arg,
                        struct container_spec *ret, struct err *e) must_check;

#endif
