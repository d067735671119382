/* A container's state as JSON (runtime.md "State"): for people, callers and hooks. Pure, and without a library: the small
 * program of shim_image.c has it too. */
#include "oci_internal.h"
#include <inttypes.h>

static void member(struct sb *out, const char *indent, const char *name, const char *value)
{
    sb_str(out, indent);
    sb_json_str(out, name, strlen(name));
    sb_str(out, ": ");
    sb_json_str(out, value, strlen(value));
}

void oci_state_json(const struct oci_bundle *b, const char *status, int64_t pid, struct sb *out)
{
    member(out, "{\n  ", "ociVersion", OCI_VERSION);
    member(out, ",\n  ", "id", b->id);
    member(out, ",\n  ", "status", status);
    if (!str_equal(status, "stopped"))
        sb_printf(out, ",\n  \"pid\": %" PRId64, pid);
    member(out, ",\n  ", "bundle", b->dir);
    if (b->annotations.n) {
        sb_str(out, ",\n  \"annotations\": ");
        for (uint32_t i = 0; i < b->annotations.n; i++)
            member(out, i ? ",\n    " : "{\n    ", b->annotations.v[i].key, b->annotations.v[i].value ? b->annotations.v[i].value : "");
        sb_str(out, "\n  }");
    }
    sb_str(out, "\n}");
}
