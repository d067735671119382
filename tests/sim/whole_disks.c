/* What befalls disks. Some may be lost, but never so that a promise has no quorum of copies left among the managers. */
#include "manager_internal.h"
#include "whole.h"

static void has_space(struct event *e)
{
    disk_set_full(g.hosts[e->a].disk, false);
    disk_set_full(g.hosts[e->a].raft_disk, false);
}

void host_fill_disk(struct host *h, int64_t time)
{
    say("the disk of %s is full for %lld ms", h->name, (long long)(time / MS));
    h->harmed = true;
    g.n_full++;
    disk_set_full(h->disk, true);
    disk_set_full(h->raft_disk, true);
    push(NULL, time, has_space, h->n, 0);
}

/* Others have what it loses, as long as they are enough; one at a time. */
static bool may_lose(const struct host *h)
{
    bool others[HOSTS_MAX];
    memset(others, true, sizeof others);
    others[h->n] = false;
    return !g.rotten && is_quorum(others);
}

static void is_rotten(struct host *h, uint64_t had)
{
    g.rotten = h;
    g.rotten_to = had;
}

void host_rot(struct host *h)
{
    char where[64];
    struct raft_status s;
    if (!h->d.manager || h->loop->n_jobs[LANE_LOG] || !may_lose(h))
        return;
    manager_raft_status(h->d.manager, &s);
    if (s.n_voters < 3 || !s.voter)
        return;
    host_crash(h, false);
    host_restart(h, some_ms(S_FAULT, 10, 1500));
    if (!disk_rot(h->raft_disk, &g.rng[S_FAULT], false, where))
        return;
    say("%s: rot in %s", h->name, where);
    is_rotten(h, s.last);
    g.n_rotten++;
}

/* Of a manager perhaps the log only, which it must notice. */
void host_wipe(struct host *h)
{
    bool log_only = h->d.manager && !h->harmed && h->d.member.log_of == h->d.member.certificate->raft_id && chance(S_FAULT, 500);
    if (!may_lose(h))
        return;
    host_crash(h, true);
    say("%s loses its %s", h->name, log_only ? "log" : "disk");
    if (!log_only) {
        host_put_up_anew(h);
        return;
    }
    disk_wipe(h->raft_disk);
    disk_free(TAKE(h->copy));
    h->forgot = true;
    host_restart(h, some_ms(S_FAULT, 1000, 15000));
}

/* The machine is put up anew under the same name: it can only come back as a new node. */
void host_put_up_anew(struct host *h)
{
    disk_wipe(h->disk);
    disk_wipe(h->raft_disk);
    disk_free(TAKE(h->copy));
    h->forgot = false;
    for (unsigned i = 0; i < g.n_boxes; i++)
        g.boxes[i].gone |= g.boxes[i].host == h;
    h->raft_id = 0;
    h->wants_in = true;
    g.n_wiped++;
    host_restart(h, some_ms(S_FAULT, 1000, 15000));
}

/* ---- an old backup of a manager's log ---- */
static uint64_t key_of(const struct host *h)
{
    return h->d.identity.old_disk_key.n ? 0 : crypto_shorthash(h->d.identity.disk_key.v, h->d.identity.disk_key.n);
}

/* The daemon is being killed: what it holds is still known. */
void host_want_copy(struct host *h)
{
    h->copy_key = 0;
    if (h->d.manager && !g.calm && has_kind(K_restore) && h != g.rotten && chance(S_FAULT, h->copy ? 300 : 700))
        h->copy_key = key_of(h);
}

void host_copy(struct host *h)
{
    if (!h->copy_key)
        return;
    disk_free(h->copy);
    h->copy = disk_copy(h->raft_disk);
    h->copied = (struct copied){ h->raft_id, h->config, h->copy_key };
    h->copy_key = 0;
}

/* Nothing that was promised hangs on this disk alone: most of the voters are others that have all of its log, in its own
 * term, and nobody counts votes by other members. No node can see to more: see repair.c of membership/raft. */
static bool may_put_back(const struct host *h)
{
    struct raft_member m[RAFT_MEMBERS_MAX];
    struct raft_status s, l;
    const struct host *leader = some_leader();
    uint32_t have = 0;
    if (!h->copy || !h->loop || h->paused || !h->d.manager || !leader || leader == h || g.rotten || h->copied.raft_id != h->raft_id || h->copied.key != key_of(h))
        return false;
    manager_raft_status(h->d.manager, &s);
    manager_raft_status(leader->d.manager, &l);
    if (s.role != RAFT_FOLLOWER || s.term != l.term || s.config_index != l.config_index || l.config_index > l.commit ||
        h->copied.config != l.config_index || !s.voter)
        return false;
    uint32_t n = raft_node_members(leader->d.manager->raft, m, RAFT_MEMBERS_MAX);
    for (uint32_t i = 0; i < n; i++)
        have += m[i].voter && m[i].id != h->raft_id && (m[i].id == leader->raft_id ? l.durable : m[i].match) >= s.last;
    for (unsigned i = 0; i < g.n_hosts; i++)
        if (g.hosts[i].loop && g.hosts[i].d.manager && g.hosts[i].config > l.config_index)
            return false;
    return have > l.n_voters / 2;
}

void host_put_back(struct host *h)
{
    struct raft_status s;
    for (unsigned i = 0; i < g.n_hosts && !may_put_back(h); i++)
        h = &g.hosts[(h->n + 1) % g.n_hosts];
    if (!may_put_back(h))
        return;
    manager_raft_status(h->d.manager, &s);
    host_crash(h, false);
    say("%s: its log, up to %llu, is put back from a copy", h->name, U(s.last));
    disk_put_back(h->raft_disk, h->copy);
    is_rotten(h, s.last);
    g.n_put_back++;
    host_restart(h, some_ms(S_FAULT, 10, 1500));
}
