/* What a node does beside the protocol, on the worker threads: snapshots of its own, the removal of what they cover, the
 * change of the key, the next segment and the reserve of space. */
#include "node_io.h"

#include <inttypes.h>
#include <shoal/base/crypto.h>
#include <shoal/base/log.h>

LOG_MODULE("raft");

enum { SPACE_LOOK_MS = 5000, SNAPSHOT_RETRY_MS = 5000 };

/* ---- jobs ---- */

struct job *node_job_new(struct raft_node *n)
{
    struct job *j = xnew(struct job);
    j->node = n;
    j->disk = n->disk;
    list_init(&j->writes);
    list_push_back(&n->jobs, &j->link);
    pthread_mutex_lock(&n->lock);
    n->n_running++;
    pthread_mutex_unlock(&n->lock);
    return j;
}

/* On the worker, as the last act on anything shared. */
void node_job_idle(struct raft_node *n)
{
    pthread_mutex_lock(&n->lock);
    n->n_running--;
    pthread_cond_broadcast(&n->idle);
    pthread_mutex_unlock(&n->lock);
}

void node_writes_free(struct list_node *l)
{
    struct queued_write *w;
    list_for(w, l, link) {
        list_remove(&w->link);
        raft_write_done(&w->write);
        free(w);
    }
}

void node_job_free(struct job *j)
{
    list_remove(&j->link);
    node_writes_free(&j->writes);
    raft_buf_unref(j->image_buf);
    sb_done(&j->image);
    free(j->batch);
    free(j);
}

bool node_job_start(struct job *j, enum loop_lane lane, loop_fn *work, loop_fn *done)
{
    if (loop_work(j->node->loop, lane, work, done, j) == 0)
        return true;
    node_job_idle(j->node);
    return false;
}

/* ---- snapshots of our own ---- */

static void save_work(void *arg)
{
    struct job *j = arg;
    raft_image_finish(&j->image);
    j->image_buf = j->image.overflow ? NULL : raft_buf_new(j->image.s, j->image.len);
    if (!j->image_buf)
        j->result = err_set(&j->e, E_NO_MEMORY, "raft: no memory for a snapshot of %zu bytes",
                            j->image.len);
    else
        j->result = raft_disk_save_snapshot(j->disk, j->image_buf, &j->e);
    node_job_idle(j->node);
}

static void trim_work(void *arg)
{
    struct job *j = arg;
    j->index = raft_disk_trim(j->disk);
    node_job_idle(j->node);
}

static void trim_done(void *arg)
{
    struct job *j = arg;
    struct raft_node *n = j->node;
    bool over = n && n->rekeying && !n->roll_wanted && j->rekeying && !j->index;
    node_job_free(j);
    if (!over)
        return;
    n->rekeying = false;
    log_info("log and snapshots are sealed with the new key only");
    node_fail_all(n, &n->rekeys, NULL, 0);
}

static void prepare_work(void *arg)
{
    struct job *j = arg;
    raft_disk_prepare(j->disk);
    j->space_short = raft_disk_is_short(j->disk);
    node_job_idle(j->node);
}

static void prepare_done(void *arg)
{
    struct job *j = arg;
    struct raft_node *n = j->node;
    if (n) {
        n->preparing = false;
        node_take_space(n, j->space_short);
    }
    node_job_free(j);
}

/* The next segment and the ballast, and a look at what room there is. */
void node_prepare(struct raft_node *n)
{
    loop_timer_set(n->space, SPACE_LOOK_MS);
    if (n->preparing)
        return;
    struct job *j = node_job_new(n);
    n->preparing = node_job_start(j, LANE_BULK, prepare_work, prepare_done);
    if (!n->preparing)
        node_job_free(j);
}

void node_space_fired(void *arg)
{
    node_prepare(arg);
}

static void run_plain(struct raft_node *n, enum loop_lane lane, loop_fn *work, loop_fn *done)
{
    struct job *j = node_job_new(n);
    j->rekeying = n->rekeying;
    if (!node_job_start(j, lane, work, done))
        node_job_free(j);
}

void node_trim(struct raft_node *n)
{
    run_plain(n, LANE_LOG, trim_work, trim_done);
}

static void save_done(void *arg)
{
    struct job *j = arg;
    struct raft_node *n = j->node;
    if (n && j->result) {
        n->saving = false;
        n->snapshot_failed = true;
        n->snapshot_wait_ms = loop_now_ms(n->loop) + SNAPSHOT_RETRY_MS;
        log_warn("snapshot at index %" PRIu64 " failed, tried again in %d s: %s", j->index, SNAPSHOT_RETRY_MS / 1000, j->e.text);
    } else if (n) {
        n->saving = false;
        n->snapshot = MAX(n->snapshot, j->index);
        n->rekey_saved |= j->rekeying && j->index >= n->rekey_index;
        struct queued *q = xnew(struct queued);
        q->in.type = RAFT_SNAPSHOT_TAKEN;
        q->in.index = j->index;
        q->in.term = j->term;
        q->in.image = q->bytes = raft_buf_ref(j->image_buf);
        list_push_back(&n->inputs, &q->link);
        node_trim(n);
        node_prepare(n);
        node_pump(n);
    }
    node_job_free(j);
    if (n)
        node_maybe_roll(n);
}

static int save_snapshot(struct raft_node *n, bool again)
{
    struct raft_status s;
    raft_get_status(n->core, &s);
    if (n->saving || s.applied != n->applied)
        return -E_BUSY;
    if (n->applied < s.snapshot || (n->applied == s.snapshot && !again))
        return 0; /* nothing new, or a leader's snapshot is on its way in */
    struct job *j = node_job_new(n);
    j->rekeying = n->rekeying;
    sb_init(&j->image, n->cfg.snapshot_max_bytes);
    raft_image_begin(n->core, &j->image, &j->index, &j->term);
    n->hooks.snapshot_save(n->hooks.arg, &j->image);
    n->applied_bytes = n->applied_entries = 0;
    n->snapshot_ms = loop_now_ms(n->loop);
    n->snapshot_failed = false;
    if (!node_job_start(j, LANE_BULK, save_work, save_done)) {
        node_job_free(j);
        return -E_BUSY;
    }
    n->saving = true;
    return 0;
}

int raft_node_snapshot(struct raft_node *n)
{
    return save_snapshot(n, false);
}

/* Who just started has others waiting for its first answer: the processor is for that. */
static bool is_settled(struct raft_node *n)
{
    struct raft_status s;
    if (!n->led_ms) {
        raft_get_status(n->core, &s);
        n->led_ms = s.leader ? loop_now_ms(n->loop) : 0;
    }
    return n->led_ms && loop_now_ms(n->loop) - n->led_ms >= 3 * (int64_t)n->cfg.election_min_ms;
}

void node_maybe_snapshot(struct raft_node *n)
{
    bool rekey = n->rekeying && !n->roll_wanted && !n->rekey_saved && n->applied && n->applied >= n->rekey_index;
    bool old = n->applied_entries && loop_now_ms(n->loop) - n->snapshot_ms >= (int64_t)n->cfg.snapshot_after_ms;
    bool many = n->applied_bytes >= n->cfg.snapshot_after_bytes || n->applied_entries >= n->cfg.snapshot_after_entries;
    if (n->saving || loop_now_ms(n->loop) < n->snapshot_wait_ms || !(many || rekey || old || n->snapshot_failed) || !is_settled(n))
        return;
    if (save_snapshot(n, rekey) == -E_BUSY)
        log_debug("a snapshot is due but must wait");
}

/* ---- another key ---- */

static void roll_work(void *arg)
{
    struct job *j = arg;
    j->result = raft_disk_rekey(j->disk, j->has_key ? j->key : NULL, &j->e);
    crypto_wipe(j->key, sizeof(j->key));
    node_job_idle(j->node);
}

static void roll_done(void *arg)
{
    struct job *j = arg;
    struct raft_node *n = j->node;
    if (n) {
        struct raft_status s;
        raft_get_status(n->core, &s);
        n->writing = n->saving = n->roll_wanted = n->rekey_saved = false;
        n->rekey_index = s.last;
        if (j->result)
            log_warn("%s; the key changes with the next write", j->e.text);
        node_trim(n);
        node_start_write(n);
        node_maybe_snapshot(n);
    }
    node_job_free(j);
}

/* The key is changed while neither a write nor a snapshot is under way. */
void node_maybe_roll(struct raft_node *n)
{
    if (!n->roll_wanted || n->writing || n->saving)
        return;
    struct job *j = node_job_new(n);
    j->has_key = n->has_next_key;
    memcpy(j->key, n->next_key, sizeof(j->key));
    if (!node_job_start(j, LANE_LOG, roll_work, roll_done)) {
        crypto_wipe(j->key, sizeof(j->key));
        node_job_free(j);
        loop_timer_set(n->retry, RETRY_MS);
        return;
    }
    crypto_wipe(n->next_key, sizeof(n->next_key));
    n->has_next_key = false;
    n->writing = n->saving = true;
}

void raft_node_set_key(struct raft_node *n, const uint8_t key[32], raft_done_fn *done, void *arg)
{
    if (!n->sealed || n->rekeying) {
        done(arg, n->rekeying ? -E_BUSY : -E_INVALID, 0);
        return;
    }
    memcpy(n->next_key, key, sizeof(n->next_key));
    n->rekeying = n->roll_wanted = n->has_next_key = true;
    node_caller_new(n, &n->rekeys, done, arg);
    node_maybe_roll(n);
}

void node_take_space(struct raft_node *n, bool is_short)
{
    if (is_short == n->space_short)
        return;
    n->space_short = is_short;
    if (is_short)
        log_warn("room for the log is short: what does not free any is refused until there is more");
    else
        log_info("there is room for the log again");
    struct raft_input in = {.type = RAFT_SPACE, .urgent = is_short};
    node_submit(n, &in, NULL);
}

/* A rotation that had not ended goes on. */
void node_resume_rekey(struct raft_node *n, const struct raft_boot *boot)
{
    n->rekeying = raft_disk_trim(n->disk) != 0;
    if (!n->rekeying)
        return;
    n->roll_wanted = true;
    n->rekey_index = boot->snapshot_index + boot->n_entries;
    node_maybe_roll(n);
}
