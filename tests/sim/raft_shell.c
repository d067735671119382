/* The production shell of a node, compiled with its call of raft_step() led past the checks. */
#include "sim_raft.h"

#include "internal.h"

#define raft_step sim_step
#include "raft_io.c"
#undef raft_step

struct raft *shell_core(struct raft_node *n)
{
    return n->core;
}

struct raft_write **shell_batch(const struct work *w, uint32_t *n)
{
    if (w->work != write_work)
        return NULL;
    const struct job *j = w->arg;
    *n = j->n;
    return j->result ? NULL : j->batch;
}

uint64_t shell_saved(const struct work *w)
{
    const struct job *j = w->arg;
    return j->image_buf && !j->result ? j->index : 0;
}

struct raft_buf *shell_image(const struct work *w)
{
    const struct job *j = w->arg;
    return j->result ? NULL : j->image_buf;
}

/* The core counts what is not committed; deep: it is counted again. */
void shell_sizes(const struct raft_node *n, bool deep, struct shell_sizes *ret)
{
    const struct raft *r = n->core;
    *ret = (struct shell_sizes){.held = n->n_held, .writes = n->n_writes, .callers = n->n_proposals + n->n_reads, .log = r->log.n,
                                .configs = r->n_configs, .pending = r->n_pending, .open_bytes = r->uncommitted_bytes, .term = r->term,
                                .last = raft_log_last(&r->log), .durable = r->durable, .snapshot = r->snapshot_index};
    for (const struct list_node *l = n->inputs.next; l != &n->inputs; l = l->next)
        ret->inputs++;
    if (!deep)
        return;
    ret->open_bytes = 0;
    for (uint64_t i = ret->last; i > r->commit; i--) {
        const struct raft_entry *e = raft_peek(r, i);
        ret->open_bytes += e->type == RAFT_ENTRY_NORMAL ? raft_entry_size(e) : 0;
    }
}

void shell_died(struct raft_node *n)
{
    if (!n)
        return;
    n->n_running = 0;
    n->pumping = false;
}

int sim_step(struct raft *r, struct raft_input *in, struct raft_output *out)
{
    struct node *n = g.self;
    if (n->core != r) { /* its first step */
        n->core = r;
        check_boot(n);
    }
    int rc = raft_step(r, in, out);
    check_step(n, in, out, rc);
    return rc;
}
