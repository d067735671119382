/* The records of OCI bundles. */
#include "oci_internal.h"

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
