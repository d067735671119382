/* The production shell of a node, compiled with its call of raft_step() led past the checks. */
#include "sim_raft.h"

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
