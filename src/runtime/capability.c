/* Capability names and the set a container gets: Docker's default fourteen, then drop, then add
 * (capabilities(7)); "ALL" means all this list knows. */
#include "runtime_internal.h"
#include <strings.h>

static const char *const names[] = {
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
};
static const char *const defaults[] = {
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
};
#define ALL ((UINT64_C(1) << ARRAY_N(names)) - 1)

const char *capability_name(unsigned n)
{
    return n < ARRAY_N(names) ? names[n] : NULL;
}

int capability_mask(const char *name, uint64_t *ret, struct err *e)
{
    const char *bare = strncasecmp(name, "CAP_", 4) == 0 ? name + 4 : name;
    if (strcasecmp(bare, "ALL") == 0) {
        *ret = ALL;
        return 0;
    }
    for (unsigned i = 0; i < ARRAY_N(names); i++)
        if (strcasecmp(bare, names[i]) == 0) {
            *ret = UINT64_C(1) << i;
            return 0;
        }
    return err_set(e, E_INVALID, "unknown capability \"%s\"; see capabilities(7) for their names", name);
}

int capability_set(const struct strs *add, const struct strs *drop, bool privileged, uint64_t *ret, struct err *e)
{
    uint64_t set = 0, m;
    if (privileged) {
        *ret = ALL;
        return 0;
    }
    for (unsigned i = 0; i < ARRAY_N(defaults); i++) {
        int r = capability_mask(defaults[i], &m, e);
        if (r < 0)
            return r;
        set |= m;
    }
    for (uint32_t i = 0; i < drop->n; i++) {
        int r = capability_mask(drop->v[i], &m, e);
        if (r < 0)
            return r;
        set &= ~m;
    }
    for (uint32_t i = 0; i < add->n; i++) {
        int r = capability_mask(add->v[i], &m, e);
        if (r < 0)
            return r;
        set |= m;
    }
    *ret = set;
    return 0;
}
