/* Facts about this machine for /info and /version. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

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
