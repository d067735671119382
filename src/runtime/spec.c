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

static unsigned depth_of(const char *path)
{
    unsigned n = 0;
    for (; *path; path++)
        n += *path != '/' && (path[1] == '/' || !path[1]);
    return n;
}

void container_mounts_sort(struct container_spec *s)
{
    for (uint32_t i = 1; i < s->mounts.n; i++)
        for (uint32_t k = i; k && depth_of(s->mounts.v[k - 1].target) > depth_of(s->mounts.v[k].target); k--) {
            struct container_mount m = s->mounts.v[k];
            s->mounts.v[k] = s->mounts.v[k - 1];
            s->mounts.v[k - 1] = m;
        }
}
