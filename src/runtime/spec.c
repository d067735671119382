/* The records of the runtime: what a container is made from, what it is doing, what else runs in it. */
#include <shoal/model/log_driver.h>
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

int container_log(struct container_spec *s, const char *driver, const struct labels *options, const char *where, struct err *e)
{
    struct log_driver d;
    int r = log_driver_read(&d, driver, options, where, e);
    if (r < 0)
        return r;
    s->log_max_bytes = d.max_bytes;
    s->log_max_files = d.max_files;
    if (d.journal)
        str_set(&s->log_driver, "journald");
    for (uint32_t i = 0; d.journal && i < options->n; i++)
        labels_set(&s->log_options, options->v[i].key, options->v[i].value ? options->v[i].value : "");
    return 0;
}

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
