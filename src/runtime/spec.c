/* The records of the runtime: what a container is made from, what it is doing, what else runs in it. */
#include <shoal/runtime.h>

const char *const container_phase_names[] = { "created", "running", "paused", "exited", NULL };
const char *const container_mount_type_names[] = { "bind", "tmpfs", NULL };

REC_DEFINE(container_mount)
REC_DEFINE(container_file)
REC_DEFINE(container_ulimit)
REC_DEFINE(container_spec)
REC_DEFINE(container_state)
REC_DEFINE(container_notes)
REC_DEFINE(exec_spec)
REC_DEFINE(copy_request)
