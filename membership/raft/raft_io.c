/* The shell: core + disk + loop. Inputs go through one queue, so that a hook or done callback may call
 * back into the node at any time. Writes run in LANE_LOG; those that arrive while one is under way go
 * together with one fdatasync (group commit). A message waits in `held` until its token is durable.
 * Order within a step: writes are queued, free messages leave, entries are applied, callers told. */
#include "node_io.h"

#include <errno.h>
#include <inttypes.h>
#include <shoal/base/log.h>

LOG_MODULE("raft");

enum { BATCH_MAX_BYTES = 8 << 20, BATCH_MAX_WRITES = 4096, HELD_MORE = 64 };

/* ---- callers ---- */

struct caller *node_caller_new(struct raft_node *n, struct list_node *list, raft_done_fn *done,
                                 void *arg)
{
    struct caller *c = xnew(struct caller);
    c->cookie = ++n->cookie;
    c->done = done;
    c->arg = arg;
    list_push_back(list, &c->link);
    return c;
}

static void caller_done(struct raft_node *n, struct caller *c, int result)
{
    list_remove(&c->link);
    raft_done_fn *done = c->done;
    void *arg = c->arg;
    uint64_t index = result ? 0 : c->index;
    free(c);
    if (done)
        done(arg, result, index);
}

static struct caller *caller_find(struct list_node *list, uint64_t cookie)
{
    for (struct list_node *l = list->prev; l != list; l = l->prev) { /* it is mostly the newest one */
        struct caller *c = list_entry(l, struct caller, link);
        if (c->cookie == cookie)
            return c;
    }
    return NULL;
}

/* ---- applying ---- */

static void proposal_done(struct raft_node *n, struct caller *c, int result)
{
    n->n_proposals--;
    caller_done(n, c, result);
}

static void finish_proposals(struct raft_node *n)
{
    for (;;) {
        struct caller *c = list_first(&n->proposals, struct caller, link);
        if (!c || !c->index || c->index > n->applied)
            return;
        proposal_done(n, c, 0);
    }
}

static void finish_reads(struct raft_node *n)
{
    for (bool again = true; again;) { /* a callback may change the list */
        again = false;
        struct caller *c;
        list_for(c, &n->reads, link) {
            if (c->index && c->index <= n->applied) {
                n->n_reads--;
                caller_done(n, c, 0);
                again = true;
                break;
            }
        }
    }
}

static void apply_entries(struct raft_node *n, const struct raft_output *o)
{
    for (uint32_t i = 0; i < o->n_apply; i++) {
        const struct raft_entry *e = &o->apply[i];
        ASSERT(e->index == n->applied + 1);
        if (e->type == RAFT_ENTRY_NORMAL)
            n->hooks.apply(n->hooks.arg, e->index, e->term, e->data ? e->data->data : NULL,
                           raft_entry_size(e));
        n->applied = e->index;
        n->applied_bytes += raft_entry_size(e) + 64;
        n->applied_entries++;
        finish_proposals(n);
    }
    finish_reads(n);
}

static void install(struct raft_node *n, const struct raft_output *o)
{
    struct raft_image image;
    struct err e = {0};
    int rc = raft_image_decode(&image, o->install->data, o->install->size, false);
    if (!rc) {
        rc = n->hooks.snapshot_load(n->hooks.arg, image.data, image.size, &e);
        raft_image_done(&image);
    }
    if (rc) {
        log_error("the leader's snapshot at index %" PRIu64 " cannot be loaded: %s; this process stops",
                  o->install_index, e.code ? e.text : err_text(rc));
        abort();
    }
    n->applied = n->snapshot = o->install_index;
    n->applied_bytes = n->applied_entries = 0;
    struct queued *q = xnew(struct queued);
    q->in.type = RAFT_SNAPSHOT_INSTALLED;
    q->in.index = o->install_index;
    list_push_back(&n->inputs, &q->link);
    finish_reads(n);
}

/* ---- messages out ---- */

static void send_message(struct raft_node *n, const struct raft_message *m)
{
    AUTO_SB struct sb b;
    sb_init(&b, RAFT_MESSAGE_MAX_BYTES);
    raft_message_encode(m, &b);
    ASSERT(!b.overflow);
    n->n_sent++;
    n->hooks.send(n->hooks.arg, m->to, b.s, b.len);
}

/* While a disk hangs, answers to the leader's every heartbeat and probe would pile up. A message may be lost, and a newer
 * one says more. */
static void drop_oldest(struct raft_node *n)
{
    struct held *h = list_first(&n->held, struct held, link);
    list_remove(&h->link);
    n->n_held--;
    raft_message_done(&h->message);
    free(h);
}

static void take_sends(struct raft_node *n, struct raft_output *o)
{
    for (uint32_t i = 0; i < o->n_sends; i++) {
        struct raft_send *s = &o->sends[i];
        if (s->token > n->done_token) {
            struct held *h = xnew(struct held);
            h->token = s->token;
            h->message = s->message;
            memset(&s->message, 0, sizeof(s->message));
            list_push_back(&n->held, &h->link);
            n->n_held++;
            if (n->n_held > 4 * n->cfg.inflight + HELD_MORE)
                drop_oldest(n);
        } else {
            send_message(n, &s->message);
        }
    }
}

static void release_held(struct raft_node *n)
{
    for (;;) {
        struct held *h = list_first(&n->held, struct held, link);
        if (!h || h->token > n->done_token)
            return;
        list_remove(&h->link);
        n->n_held--;
        send_message(n, &h->message);
        raft_message_done(&h->message);
        free(h);
    }
}

/* ---- writes ---- */

static void write_work(void *arg)
{
    struct job *j = arg;
    uint64_t segment = raft_disk_segment(j->disk);
    j->result = raft_disk_write(j->disk, j->batch, j->n, &j->e);
    j->rolled = raft_disk_segment(j->disk) != segment;
    j->space_short = j->result || raft_disk_is_short(j->disk);
    node_job_idle(j->node);
}

static void write_ended(struct raft_node *n, struct job *j)
{
    n->writing = false;
    if (j->result) { /* no space: put the writes back in front and try again */
        if (!n->disk_full) /* once, not at every try */
            log_error("%s; nothing is written until then", j->e.text);
        n->disk_full = true;
        while (!list_is_empty(&j->writes)) {
            struct queued_write *w = list_entry(j->writes.prev, struct queued_write, link);
            list_remove(&w->link);
            list_push_front(&n->writes, &w->link);
            n->n_writes++;
        }
        loop_timer_set(n->retry, RETRY_MS);
        return;
    }
    if (n->disk_full)
        log_info("the log is written again");
    n->disk_full = false;
    n->n_syncs++;
    n->done_token = j->batch[j->n - 1]->token;
    if (n->rekeying && n->rekey_saved) /* it may have made the new segment */
        node_trim(n);
    node_maybe_roll(n);
    struct queued *q = xnew(struct queued);
    q->in.type = RAFT_DISK_DONE;
    q->in.token = n->done_token;
    list_push_back(&n->inputs, &q->link);
    node_start_write(n);
    release_held(n);
    node_pump(n);
}

static void write_done(void *arg)
{
    struct job *j = arg;
    struct raft_node *n = j->node;
    if (n) {
        bool is_short = j->space_short, rolled = j->rolled;
        write_ended(n, j);
        if (rolled)
            node_prepare(n);
        node_take_space(n, is_short); /* it steps: what could not be written must be back in its place before */
    }
    node_job_free(j);
}

void node_start_write(struct raft_node *n)
{
    if (n->writing || list_is_empty(&n->writes))
        return;
    struct job *j = node_job_new(n);
    j->batch = xcalloc(MIN(n->n_writes, (uint32_t)BATCH_MAX_WRITES), sizeof(*j->batch));
    size_t bytes = 0;
    struct queued_write *w;
    list_for(w, &n->writes, link) {
        struct raft_write *one = &w->write;
        bytes += wal_batch_bytes(&one, 1);
        if (j->n && (bytes > BATCH_MAX_BYTES || j->n == BATCH_MAX_WRITES))
            break;
        list_remove(&w->link);
        list_push_back(&j->writes, &w->link);
        n->n_writes--;
        j->batch[j->n++] = one;
    }
    n->writing = true;
    if (!node_job_start(j, LANE_LOG, write_work, write_done)) {
        j->result = err_set(&j->e, E_BUSY, "raft: the worker's queue is full; tried again soon");
        write_done(j);
    }
}

static void retry_fired(void *arg)
{
    node_maybe_roll(arg);
    node_start_write(arg);
}

/* ---- the step ---- */

void node_fail_all(struct raft_node *n, struct list_node *list, uint32_t *count, int result)
{
    while (!list_is_empty(list)) {
        if (count)
            (*count)--;
        caller_done(n, list_first(list, struct caller, link), result);
    }
}

static void take_results(struct raft_node *n, const struct raft_output *o)
{
    for (uint32_t i = 0; i < o->n_results; i++) {
        const struct raft_result *r = &o->results[i];
        struct caller *c = caller_find(&n->proposals, r->cookie);
        if (!c)
            continue;
        if (r->result) {
            proposal_done(n, c, r->result);
            continue;
        }
        c->index = r->index;
        c->term = r->term;
    }
    for (uint32_t i = 0; i < o->n_reads; i++) {
        const struct raft_result *r = &o->reads[i];
        struct caller *c = caller_find(&n->reads, r->cookie);
        if (!c)
            continue;
        c->index = r->index;
        if (r->result || c->index <= n->applied) {
            n->n_reads--;
            caller_done(n, c, r->result);
        }
    }
    for (uint32_t i = 0; i < o->n_transfers; i++) {
        struct caller *c = caller_find(&n->transfers, o->transfers[i].cookie);
        if (c)
            caller_done(n, c, o->transfers[i].result);
    }
}

static void tell_changes(struct raft_node *n, const struct raft_output *o)
{
    struct raft_status s;
    raft_node_status(n, &s);
    bool leads = s.role == RAFT_LEADER;
    if (n->was_leader && !leads) {
        struct list_node lost; /* those placed in the log; later ones meet -E_NOT_LEADER */
        list_init(&lost);
        struct caller *c;
        list_for(c, &n->proposals, link) {
            if (!c->index)
                continue;
            list_remove(&c->link);
            list_push_back(&lost, &c->link);
        }
        node_fail_all(n, &lost, &n->n_proposals, -E_UNAVAILABLE);
    }
    bool changed = o->changed || o->removed != n->was_removed;
    n->was_leader = leads;
    n->was_removed = o->removed;
    if (n->was_damaged && !s.damaged)
        log_info("the log is whole again up to index %" PRIu64 ": this manager votes and confirms", s.durable);
    if (!n->was_damaged && s.damaged)
        log_error("the log ends at index %" PRIu64 ", but this manager has confirmed more: was its disk put back to an older copy? "
                  "It neither votes nor confirms until it has fetched from the leader what is missing", s.last);
    n->was_damaged = s.damaged;
    if (changed && n->hooks.changed)
        n->hooks.changed(n->hooks.arg, &s);
    if (o->members_changed && n->hooks.members_changed)
        n->hooks.members_changed(n->hooks.arg);
}

static void handle(struct raft_node *n, struct raft_output *o)
{
    if (o->write.truncate_from)
        n->rekey_index = MIN(n->rekey_index, o->write.truncate_from - 1);
    if (o->write.token) {
        struct queued_write *w = xnew(struct queued_write);
        w->write = o->write;
        memset(&o->write, 0, sizeof(o->write));
        list_push_back(&n->writes, &w->link);
        n->n_writes++;
    }
    take_sends(n, o);
    if (o->install)
        install(n, o);
    take_results(n, o);
    apply_entries(n, o);
    tell_changes(n, o);
    node_maybe_snapshot(n);
}

static void queued_free(struct queued *q)
{
    list_remove(&q->link);
    raft_message_done(&q->message);
    raft_buf_unref(q->bytes);
    free(q);
}

void node_pump(struct raft_node *n)
{
    if (n->pumping)
        return;
    n->pumping = true;
    int64_t deadline = -1;
    struct raft_output out;
    raft_output_init(&out);
    for (struct queued *q; (q = list_first(&n->inputs, struct queued, link));) {
        list_remove(&q->link);
        q->in.now_ms = loop_now_ms(n->loop);
        const struct queued *next = list_first(&n->inputs, struct queued, link);
        q->in.more = next && next->in.type == q->in.type;
        if (raft_step(n->core, &q->in, &out) != 0) {
            log_error("node %016" PRIx64 " broke the protocol (two leaders in a term, or a committed "
                      "entry replaced); this process stops before it does harm", q->in.from);
            abort();
        }
        deadline = out.deadline_ms;
        handle(n, &out);
        raft_output_reset(&out);
        queued_free(q);
    }
    raft_output_done(&out);
    n->pumping = false;
    node_start_write(n); /* of all these steps together */
    if (deadline >= 0)
        loop_timer_set(n->timer, MAX(0, deadline - loop_now_ms(n->loop)));
}

/* Proposals and reads: those of a turn go together, as one message to each peer and one write. */
static void submit_soon(struct raft_node *n, const struct raft_input *in, struct raft_buf *bytes)
{
    bool pumping = n->pumping;
    n->pumping = true;
    node_submit(n, in, bytes);
    n->pumping = pumping;
    if (!pumping)
        loop_timer_set(n->soon, 0);
}

void node_submit(struct raft_node *n, const struct raft_input *in, struct raft_buf *bytes)
{
    struct queued *q = xnew(struct queued);
    q->in = *in;
    q->bytes = bytes;
    if (bytes) {
        q->in.bytes = bytes->data;
        q->in.size = bytes->size;
    }
    list_push_back(&n->inputs, &q->link);
    node_pump(n);
}

static void soon_fired(void *arg)
{
    node_pump(arg);
}

static void timer_fired(void *arg)
{
    struct raft_input in = {.type = RAFT_TICK};
    node_submit(arg, &in, NULL);
}

/* ---- door ---- */

void raft_node_receive(struct raft_node *n, uint64_t from, const void *bytes, size_t size)
{
    struct raft_message m;
    n->n_received++;
    struct raft_status s;
    raft_get_status(n->core, &s);
    if (raft_message_decode(&m, bytes, size) != 0) {
        n->n_dropped++;
        return;
    }
    if (m.to != s.id) {
        n->n_dropped++;
        raft_message_done(&m);
        return;
    }
    struct queued *q = xnew(struct queued);
    q->in.type = RAFT_MESSAGE;
    q->in.from = from;
    q->message = m;
    q->in.message = &q->message;
    list_push_back(&n->inputs, &q->link);
    node_pump(n);
}

void raft_node_peer_gone(struct raft_node *n, uint64_t id)
{
    struct raft_input in = {.type = RAFT_PEER_GONE, .id = id};
    node_submit(n, &in, NULL);
}

static void propose(struct raft_node *n, const void *bytes, size_t size, bool urgent, raft_done_fn *done, void *arg)
{
    if (size > RAFT_ENTRY_MAX_BYTES || n->disk_full || n->n_proposals >= RAFT_PROPOSALS_MAX) {
        done(arg, size > RAFT_ENTRY_MAX_BYTES ? -E_TOO_BIG : -E_BUSY, 0);
        return;
    }
    struct raft_buf *b = raft_buf_new(bytes, size);
    if (!b) {
        done(arg, -E_NO_MEMORY, 0);
        return;
    }
    struct caller *c = node_caller_new(n, &n->proposals, done, arg);
    n->n_proposals++;
    struct raft_input in = {.type = RAFT_PROPOSE, .cookie = c->cookie, .urgent = urgent};
    submit_soon(n, &in, b);
}

void raft_node_propose(struct raft_node *n, const void *bytes, size_t size, raft_done_fn *done, void *arg)
{
    propose(n, bytes, size, false, done, arg);
}

void raft_node_propose_urgent(struct raft_node *n, const void *bytes, size_t size, raft_done_fn *done, void *arg)
{
    propose(n, bytes, size, true, done, arg);
}

void raft_node_read(struct raft_node *n, raft_done_fn *done, void *arg)
{
    struct caller *c = node_caller_new(n, &n->reads, done, arg);
    n->n_reads++;
    struct raft_input in = {.type = RAFT_READ, .cookie = c->cookie};
    submit_soon(n, &in, NULL);
}

static void change(struct raft_node *n, enum raft_change what, uint64_t id, const void *context,
                   size_t size, raft_done_fn *done, void *arg)
{
    if (size > RAFT_CONTEXT_MAX_BYTES) {
        done(arg, -E_INVALID, 0);
        return;
    }
    struct caller *c = node_caller_new(n, &n->proposals, done, arg);
    n->n_proposals++;
    struct raft_buf *b = raft_buf_new(context, size);
    ASSERT(b);
    struct raft_input in = {.type = RAFT_CHANGE, .change = what, .id = id, .cookie = c->cookie};
    node_submit(n, &in, b);
}

void raft_node_add(struct raft_node *n, uint64_t id, const void *context, size_t size,
                   raft_done_fn *done, void *arg)
{
    change(n, RAFT_ADD_LEARNER, id, context, size, done, arg);
}

void raft_node_update(struct raft_node *n, uint64_t id, const void *context, size_t size,
                      raft_done_fn *done, void *arg)
{
    change(n, RAFT_UPDATE_CONTEXT, id, context, size, done, arg);
}

void raft_node_promote(struct raft_node *n, uint64_t id, raft_done_fn *done, void *arg)
{
    change(n, RAFT_PROMOTE, id, NULL, 0, done, arg);
}

void raft_node_remove(struct raft_node *n, uint64_t id, raft_done_fn *done, void *arg)
{
    change(n, RAFT_REMOVE, id, NULL, 0, done, arg);
}

void raft_node_recover(struct raft_node *n, raft_done_fn *done, void *arg)
{
    struct caller *c = node_caller_new(n, &n->proposals, done, arg);
    n->n_proposals++;
    struct raft_input in = {.type = RAFT_RECOVER, .cookie = c->cookie};
    node_submit(n, &in, NULL);
}

void raft_node_transfer(struct raft_node *n, uint64_t to, raft_done_fn *done, void *arg)
{
    struct caller *c = node_caller_new(n, &n->transfers, done, arg);
    struct raft_input in = {.type = RAFT_TRANSFER, .id = to, .cookie = c->cookie};
    node_submit(n, &in, NULL);
}

void raft_node_status(const struct raft_node *n, struct raft_status *ret)
{
    raft_get_status(n->core, ret);
    ret->applied = n->applied;
    ret->disk_full = n->disk_full;
    ret->rekeying = n->rekeying;
    ret->writes_queued = n->n_writes;
    ret->sends_held = n->n_held;
    ret->proposals_pending = n->n_proposals;
    ret->reads_pending = n->n_reads;
    ret->n_syncs = n->n_syncs;
    ret->n_sent = n->n_sent;
    ret->n_received = n->n_received;
    ret->n_dropped = n->n_dropped;
}

uint32_t raft_node_members(const struct raft_node *n, struct raft_member *ret, uint32_t max)
{
    return raft_get_members(n->core, ret, max);
}

/* ---- opening and closing ---- */

static int start_core(struct raft_node *n, const struct raft_boot *boot, struct err *e)
{
    struct raft *core;
    int rc = raft_new(&core, &n->cfg, boot, &n->rng, loop_now_ms(n->loop), e);
    if (rc)
        return rc;
    raft_free(n->core);
    n->core = core;
    n->done_token = 0;
    struct raft_status s;
    raft_get_status(core, &s);
    n->applied = s.applied;
    n->snapshot = s.snapshot;
    return 0;
}

/* What another program wrote here and this one cannot read. */
static int check_entries(const struct raft_node *n, const struct raft_boot *boot, struct err *e)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && n->hooks.readable && i < boot->n_entries; i++) {
        const struct raft_entry *x = &boot->entries[i];
        if (x->type == RAFT_ENTRY_NORMAL && x->data)
            rc = n->hooks.readable(n->hooks.arg, x->data->data, x->data->size, e);
    }
    return rc;
}

int raft_node_open(struct raft_node **ret, struct loop *l, const char *dir, const struct raft_keys *keys,
                   const struct raft_config *cfg, const struct raft_hooks *hooks, uint64_t seed,
                   struct err *e)
{
    struct raft_node *n = xnew(struct raft_node);
    struct raft_boot boot = {0};
    n->loop = l;
    if (cfg)
        n->cfg = *cfg;
    raft_config_defaults(&n->cfg);
    n->hooks = *hooks;
    rng_init(&n->rng, seed);
    struct list_node *lists[] = {&n->inputs, &n->writes, &n->held, &n->proposals,
                                 &n->reads, &n->transfers, &n->rekeys, &n->jobs};
    for (size_t i = 0; i < ARRAY_N(lists); i++)
        list_init(lists[i]);
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->idle, NULL);
    n->timer = loop_timer_new(l, timer_fired, n);
    n->soon = loop_timer_new(l, soon_fired, n);
    n->retry = loop_timer_new(l, retry_fired, n);
    n->space = loop_timer_new(l, node_space_fired, n);
    n->sealed = keys != NULL;
    n->snapshot_ms = loop_now_ms(l);
    int rc = raft_disk_open(&n->disk, dir, keys, n->cfg.segment_bytes, n->cfg.reserve_bytes, &boot, e);
    if (!rc)
        rc = check_entries(n, &boot, e);
    if (!rc && boot.image) {
        struct raft_image image = {0};
        rc = raft_image_decode(&image, boot.image->data, boot.image->size, false);
        if (rc)
            err_set(e, E_CORRUPT, "raft: the snapshot in %s is malformed; replace this node", dir);
        else
            rc = n->hooks.snapshot_load(n->hooks.arg, image.data, image.size, e);
        raft_image_done(&image);
    }
    if (!rc)
        rc = start_core(n, &boot, e);
    if (!rc && keys && keys->before)
        node_resume_rekey(n, &boot);
    n->was_damaged = boot.damaged;
    raft_boot_done(&boot);
    if (rc) {
        raft_node_close(n);
        return rc;
    }
    node_prepare(n);
    timer_fired(n);
    *ret = n;
    return 0;
}

/* The first write of a node's life, before anything can race with it. */
static int first_write(struct raft_node *n, uint64_t id, struct raft_write *w, struct raft_boot *boot,
                       struct err *e)
{
    struct raft_status s;
    raft_get_status(n->core, &s);
    if (s.id)
        return err_set(e, E_EXISTS, "raft: this log already belongs to node %016" PRIx64
                       "; leave the cluster and empty its folder first", s.id);
    if (!id)
        return err_set(e, E_INVALID, "raft: 0 is no node id");
    raft_disk_set_id(n->disk, id);
    w->has_hard = true;
    w->term = boot->term;
    struct raft_write *one = w;
    int rc = raft_disk_write(n->disk, &one, 1, e);
    if (rc)
        return rc;
    boot->id = id;
    rc = start_core(n, boot, e);
    if (!rc)
        timer_fired(n);
    return rc;
}

int raft_node_bootstrap(struct raft_node *n, uint64_t id, const void *context, size_t context_size,
                        struct err *e)
{
    if (context_size > RAFT_CONTEXT_MAX_BYTES)
        return err_set(e, E_INVALID, "raft: a member's context has at most %d bytes",
                       RAFT_CONTEXT_MAX_BYTES);
    if (!id)
        return err_set(e, E_INVALID, "raft: 0 is no node id");
    struct raft_entry entry = raft_bootstrap_entry(&id, 1, context, context_size);
    struct raft_write w = {.entries = &entry, .n_entries = 1, .voters = 1};
    struct raft_boot boot = {.term = 1, .entries = &entry, .n_entries = 1};
    int rc = first_write(n, id, &w, &boot, e);
    raft_buf_unref(entry.data);
    return rc;
}

int raft_node_join(struct raft_node *n, uint64_t id, struct err *e)
{
    struct raft_write w = {0};
    struct raft_boot boot = {0};
    return first_write(n, id, &w, &boot, e);
}

void raft_node_close(struct raft_node *n)
{
    if (!n)
        return;
    ASSERT(!n->pumping);
    n->pumping = true; /* nothing steps any more */
    pthread_mutex_lock(&n->lock);
    while (n->n_running)
        pthread_cond_wait(&n->idle, &n->lock);
    pthread_mutex_unlock(&n->lock);
    struct job *j;
    list_for(j, &n->jobs, link) {
        list_remove(&j->link);
        j->node = NULL;
    }
    node_fail_all(n, &n->proposals, NULL, -E_UNAVAILABLE);
    node_fail_all(n, &n->reads, NULL, -E_UNAVAILABLE);
    node_fail_all(n, &n->transfers, NULL, -E_UNAVAILABLE);
    node_fail_all(n, &n->rekeys, NULL, -E_UNAVAILABLE);
    crypto_wipe(n->next_key, sizeof(n->next_key));
    struct queued *q;
    list_for(q, &n->inputs, link)
        queued_free(q);
    node_writes_free(&n->writes);
    struct held *h;
    list_for(h, &n->held, link) {
        list_remove(&h->link);
        raft_message_done(&h->message);
        free(h);
    }
    loop_timer_free(n->timer);
    loop_timer_free(n->soon);
    loop_timer_free(n->retry);
    loop_timer_free(n->space);
    raft_free(n->core);
    raft_disk_close(n->disk);
    crypto_wipe(&n->rng, sizeof(n->rng));
    pthread_cond_destroy(&n->idle);
    pthread_mutex_destroy(&n->lock);
    free(n);
}
