/* Shared by the files of a trace (overlay_trace()). */
#ifndef OVERLAY_TRACE_H
#define OVERLAY_TRACE_H

#include "overlay_internal.h"
#include <shoal/base/list.h>

enum { TRACE_TARGETS_MAX = 16 };
struct trace_target { uint32_t addr, vni; const char *node_id; /* borrowed from the assignment */ };

void trace_add(struct trace *t, enum trace_state state, const char *name, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
const char *trace_node_name(const struct plan_input *in, const char *node_id);
/* Adds the steps up to those whom packets go to. How many there are in targets[TRACE_TARGETS_MAX]; 0: the last step says why. */
unsigned trace_plan(const struct plan_input *in, const struct sandbox *s, const char *to, struct trace *t, struct trace_target *targets);

/* ---- trace_io.c ---- */
struct trace_site { /* what it sees of the node */
    const struct plan_input *in;
    const struct tunnel_status *(*status)(void *arg); /* NULL: the tunnel has not told */
    bool (*has_tap)(void *arg, uint32_t vni);
    char *(*network_path)(void *arg, uint32_t vni); /* of its namespace; caller frees */
    void *arg;
    struct list_node *runs; /* of those under way */
};
/* site is copied; s and netns are borrowed until it returns. */
struct trace_run *trace_start(struct loop *l, const struct trace_site *site, const struct sandbox *s, const char *netns, unsigned mtu,
                              const char *to, trace_done_fn *done, void *arg);
void trace_stop(struct trace_run *r); /* takes NULL */
void trace_abandon(struct list_node *runs); /* ends all: what they look at goes */

#endif
