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

/* "max-size" in bytes, or with k, m, g. */
static int log_option(struct container_spec *s, const char *k, const char *v, const char *where, struct err *e)
{
    char *end;
    double n = strtod(v, &end);
    char unit = *end;
    const char *rest = end + (unit && strchr("kKmMgG", unit) ? 1 : 0);
    int shift = unit == 'g' || unit == 'G' ? 30 : unit == 'm' || unit == 'M' ? 20 : unit == 'k' || unit == 'K' ? 10 : 0;
    bool is_number = end > v && n >= 1 && n <= 1e9; /* not NaN, and no overflow by its unit */
    if (!str_equal(k, "max-size") && !str_equal(k, "max-file"))
        return err_set(e, E_UNSUPPORTED, "%s: log option %s is not built; max-size and max-file are", where, k);
    if (str_equal(k, "max-size") && is_number && (!*rest || (shift && (*rest == 'b' || *rest == 'B') && !rest[1])))
        s->log_max_bytes = (int64_t)(n * (double)(INT64_C(1) << shift));
    else if (str_equal(k, "max-file") && is_number && !*end && n <= 1000)
        s->log_max_files = (int64_t)n;
    else
        return err_set(e, E_INVALID, "%s: log option %s: \"%s\" is no %s", where, k, v,
                       str_equal(k, "max-size") ? "size, such as 10m" : "number from 1 to 1000");
    return 0;
}

int container_log(struct container_spec *s, const char *driver, const struct labels *options, const char *where, struct err *e)
{
    int r = 0;
    if (driver && *driver && !str_equal(driver, "json-file") && !str_equal(driver, "local"))
        return err_set(e, E_UNSUPPORTED, "%s: log driver \"%s\" is not built; use json-file", where, driver);
    for (uint32_t i = 0; i < options->n && r == 0; i++)
        r = log_option(s, options->v[i].key, options->v[i].value, where, e);
    return r;
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
