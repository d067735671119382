/* Who shall be a manager: a pure function of the node table, Raft's configuration and the time. */
#ifndef MANAGER_GOVERN_H
#define MANAGER_GOVERN_H

#include <shoal/model/cluster.h>
#include <shoal/model/node.h>
#include <shoal/raft.h>

enum { /* ms */
    GOVERN_SETTLE_MS = 5000,       /* a node that joined is looked at for this long before it may be promoted */
    GOVERN_RETURN_MS = 60000,      /* and one that was down, or demoted by the cluster, for this long */
    GOVERN_REPLACE_MS = 60000,     /* default of a lost manager's time: longer than most machines take to boot */
    GOVERN_PROMOTE_MS = 60000,     /* a promotion whose node does not answer is given up */
    GOVERN_CATCH_UP_MS = 1800000,  /* and one whose node answers but never has the whole log */
    GOVERN_CONTACT_MS = 2000,      /* since it last answered the leader; heartbeats are many times as frequent */
    GOVERN_LOOK_MS = 1000,         /* how soon to look again while something is under way */
};

/* A node as the policy sees it. Times are ms until now. */
struct governed {
    const char *name, *zone;       /* borrowed; zone NULL: none */
    bool manager, automatic;       /* its role in the node table; chosen by the cluster */
    bool barred;                   /* shall not be made a manager by the cluster */
    bool left;                     /* for ever: it said goodbye, or a recovery went on without it */
    bool ready, active;            /* READY and not suspect; runs tasks */
    bool returned;                 /* was down once, or demoted by the cluster */
    bool leader, learner, voter, answers; /* in Raft */
    int64_t down_ms, steady_ms, role_ms;  /* down_ms -1: not down */
};

struct govern_policy {
    int wanted;                    /* as managers_wanted() */
    int64_t replace_ms;
};

enum govern_act { GOVERN_NOTHING, GOVERN_PROMOTE, GOVERN_DEMOTE };
struct govern_change {
    enum govern_act act;
    uint32_t node;                 /* index */
    char reason[200];
    int64_t next_ms;               /* look again then at the latest; -1: when something changes */
};

/* Three managers from three eligible nodes on, five from seven on. Two stand no more losses than one. Five only where
 * two nodes are left over: who can take a lost manager's place is worth more than a fourth and fifth vote, each of
 * which every write waits for and each of which holds the cluster's secrets. */
uint32_t govern_rule(uint32_t eligible);
bool govern_is_eligible(const struct governed *g);
/* One change, the most urgent. Nodes in order of their creation. */
void govern(const struct govern_policy *p, const struct governed *v, uint32_t n, struct govern_change *ret);

/* What a person asks for: the managers that stay must have a quorum among themselves, and with it vote this one out. */
int govern_may_go(const struct governed *v, uint32_t n, uint32_t i, const char *what, struct err *e) must_check;
int govern_may_promote(const struct governed *v, uint32_t n, uint32_t i, struct err *e) must_check;

void govern_policy_of(const struct cluster *c, struct govern_policy *ret);
void govern_view(struct governed *ret, const struct node *n, const struct raft_member *members, uint32_t n_members,
                 bool leader, bool suspect, int64_t now_ns);
/* Gives the node a role from now on. A new manager gets a new Raft id, unlike the one it had. */
void govern_set_role(struct node *n, int role, bool automatic, const char *reason, int64_t now_ns);

#endif
