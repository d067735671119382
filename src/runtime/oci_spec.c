/* The records of OCI bundles. */
#include "oci_internal.h"
#include <sched.h>

const char *const oci_hook_names[] = { "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop", NULL };

REC_DEFINE(oci_process)
REC_DEFINE(oci_mount)
REC_DEFINE(oci_device)
REC_DEFINE(oci_setting)
REC_DEFINE(oci_namespace)
REC_DEFINE(oci_hook)
REC_DEFINE(oci_bundle)
REC_DEFINE(device_rule)
REC_DEFINE(oci_life)

const struct oci_namespace *oci_namespace_find(const struct oci_bundle *b, unsigned flag)
{
    for (uint32_t i = 0; i < b->namespaces.n; i++)
        if (b->namespaces.v[i].flag == flag)
            return &b->namespaces.v[i];
    return NULL;
}

unsigned oci_sysctl_namespace(const char *key, const char **ret_type)
{
    static const struct { const char *prefix; bool whole; unsigned flag; const char *type; } known[] = {
        { "net.", false, CLONE_NEWNET, "network" }, { "fs.mqueue.", false, CLONE_NEWIPC, "ipc" },
        { "kernel.msg", false, CLONE_NEWIPC, "ipc" }, { "kernel.shm", false, CLONE_NEWIPC, "ipc" },
        { "kernel.sem", true, CLONE_NEWIPC, "ipc" }, { "kernel.domainname", true, CLONE_NEWUTS, "uts" },
        { "kernel.hostname", true, CLONE_NEWUTS, "uts" } };
    for (unsigned k = 0; k < ARRAY_N(known); k++)
        if (known[k].whole ? str_equal(key, known[k].prefix) : str_starts(key, known[k].prefix)) {
            *ret_type = known[k].type;
            return known[k].flag;
        }
    return 0;
}
