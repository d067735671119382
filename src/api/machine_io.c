/* Facts about this machine for /info and /version. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

int64_t machine_cpu_ns(void)
{
    long long v[8] = { 0 };
    int64_t sum = 0;
    AUTO_FREE char *text = NULL;
    size_t n;
    if (file_read("/proc/stat", 1 << 20, &text, &n, NULL) < 0 ||
        sscanf(text, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) != 8)
        return 0;
    for (unsigned i = 0; i < ARRAY_N(v); i++)
        sum += v[i];
    return sum * (SEC_NS / 100); /* in ticks of USER_HZ, 100 everywhere */
}

void machine_facts(struct machine_facts *ret)
{
    struct utsname u = { 0 };
    struct sysinfo s = { 0 };
    AUTO_FREE char *os = NULL, *id = NULL;
    size_t n;
    *ret = (struct machine_facts){ .os = "Linux" };
    uname(&u);
    sysinfo(&s);
    snprintf(ret->kernel, sizeof ret->kernel, "%s", u.release);
    snprintf(ret->arch, sizeof ret->arch, "%s", u.machine);
    gethostname(ret->host, sizeof ret->host - 1);
    ret->cpus = sysconf(_SC_NPROCESSORS_ONLN);
    ret->memory_bytes = (int64_t)s.totalram * s.mem_unit;
    if (file_read("/etc/os-release", 65536, &os, &n, NULL) == 0) {
        const char *p = strstr(os, "PRETTY_NAME=\"");
        if (p)
            snprintf(ret->os, sizeof ret->os, "%.*s", (int)strcspn(p + 13, "\"\n"), p + 13);
    }
    if (file_read("/etc/machine-id", 256, &id, &n, NULL) == 0)
        snprintf(ret->id, sizeof ret->id, "%.*s", (int)strcspn(id, "\n"), id);
}
