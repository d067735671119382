#include "authority.h"
#include <shoal/base/crypto.h>

enum { MESSAGES = MSG_RELAY + 1 };

static const uint8_t needed[MESSAGES] = {
    [MSG_RAFT] = RIGHT_MANAGER | RIGHT_VOTER, /* votes, log, snapshots: the store itself */
    [MSG_HELLO] = RIGHT_WORKER,               /* about itself; answered with what its own tasks need */
    [MSG_LEADER] = RIGHT_MANAGER,
    [MSG_ASSIGNMENT] = RIGHT_MANAGER,         /* containers to run, secrets, keys, the node table */
    [MSG_NODES] = RIGHT_MANAGER,
    [MSG_REPORT] = RIGHT_WORKER,              /* about its own tasks; the dispatcher looks whose they are */
    [MSG_REPORT_ACK] = RIGHT_MANAGER,
    [MSG_IN_FORCE] = RIGHT_WORKER,            /* of itself: at worst a task stops a moment early or, after a bounded time, late */
    [MSG_JOIN] = RIGHT_JOIN,                  /* carries a token, which is checked by the leader */
    [MSG_JOIN_REPLY] = 0,                     /* only the joiner's own link takes one (admission.c) */
    [MSG_LEAVE] = RIGHT_WORKER,               /* of itself */
    [MSG_LEAVE_OK] = RIGHT_MANAGER,
    [MSG_RELAY] = RIGHT_MANAGER,              /* its content is sealed by another manager (relay.c) */
    [MSG_HELD] = RIGHT_WORKER,                /* of itself; what it then gives is verified */
    [MSG_CERTIFICATE] = RIGHT_MANAGER,        /* and it must be signed, for this node */
};

unsigned authority_needed(uint8_t message)
{
    return message < MESSAGES ? needed[message] : 0;
}

bool authority_allows(unsigned rights, uint8_t message)
{
    return (authority_needed(message) & rights) != 0;
}

/* The API's peer door does all that a user of this node may; a carried channel ends in that of another manager. Blobs are
 * for every member: why is said in image_peers.h. */
bool authority_allows_channel(unsigned rights, uint8_t service)
{
    if (service == CHANNEL_IMAGES)
        return rights & RIGHT_WORKER;
    return (service == CHANNEL_API || service == CHANNEL_CARRY) && (rights & RIGHT_MANAGER);
}

unsigned authority_rights(const struct certificate *c, bool retired, const struct authority_view *v)
{
    if (!c || !c->node_id)
        return RIGHT_JOIN;
    bool newer = !retired && (c->epoch > v->epoch || (c->epoch == v->epoch && c->serial > v->index));
    if (c->role == ROLE_MANAGER && c->epoch < v->epoch)
        return 0; /* of the cluster as it was before its recovery */
    if (!v->entry && !newer)
        return 0; /* removed */
    if (v->entry && (v->entry->link_key.n != 32 || c->link_key.n != 32 ||
                     !crypto_equal(v->entry->link_key.v, c->link_key.v, 32)))
        return 0;
    unsigned rights = RIGHT_WORKER;
    if (c->role == ROLE_MANAGER && v->voter)
        rights |= RIGHT_VOTER;
    if (c->role == ROLE_MANAGER && (newer || v->entry->spec.role == ROLE_MANAGER))
        rights |= RIGHT_MANAGER;
    return rights;
}

int authority_admit(const struct certificate *c, bool retired, const struct authority_view *v, int64_t now_ns, struct err *e)
{
    if (c->role == ROLE_MANAGER && c->epoch < v->epoch)
        return err_set(e, E_DENIED, "node %s is a manager of the cluster as it was before its recovery; let it leave and join "
                       "again", c->node_id);
    if (!authority_rights(c, retired, v))
        return err_set(e, E_DENIED, "node %s is no member any more; run 'shoal leave --force' there and join it anew", c->node_id);
    return v->entry ? 0 : certificate_check_time(c, now_ns, e);
}
