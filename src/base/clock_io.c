/* The two clocks. */
#include <shoal/base/file.h>
#include <time.h>

static int64_t now(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * SEC_NS + t.tv_nsec;
}

int64_t clock_mono_ns(void)
{
    return now(CLOCK_MONOTONIC);
}

int64_t clock_real_ns(void)
{
    return now(CLOCK_REALTIME);
}
