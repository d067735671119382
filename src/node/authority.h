/* Who may send what: one table, asked at the receiver of every message and channel. Pure. */
#ifndef NODE_AUTHORITY_H
#define NODE_AUTHORITY_H

#include <shoal/manager.h>

enum right {
    RIGHT_JOIN = 1,    /* a link without certificate */
    RIGHT_WORKER = 2,  /* any member */
    RIGHT_MANAGER = 4, /* a member that is a manager now */
    RIGHT_VOTER = 8,   /* holds a manager's certificate and is in Raft's configuration: one that was demoted votes until then */
};

/* What this node knows that the certificate's owner may not: the committed node table. */
struct authority_view {
    const struct node *entry; /* the owner's; NULL: not listed */
    uint64_t index, epoch;    /* of the table */
    bool voter;
};

/* Rights of the owner of a verified certificate (NULL: no certificate), as bits; 0: it is no member. Where table and
 * certificate differ the newer one counts, by log index: a node that was removed or demoted keeps a certificate that says
 * otherwise, and a node that was admitted a moment ago is not in every table yet. retired: see certificate_trust(). */
unsigned authority_rights(const struct certificate *c, bool retired, const struct authority_view *v);
/* May a link with the owner of this verified certificate be? E_DENIED with the reason. Expiry protects those who do not hold
 * the node table: who is listed there with this key comes in with an expired certificate too, so that a cluster that was
 * switched off for longer than its certificates last comes back, and its leader then renews them. */
int authority_admit(const struct certificate *c, bool retired, const struct authority_view *v, int64_t now_ns, struct err *e)
    must_check;
bool authority_allows(unsigned rights, uint8_t message);
bool authority_allows_channel(unsigned rights, uint8_t service);
/* The table, for tests and documentation: rights any of which allow the message; 0: nobody sends it over a link between
 * members. */
unsigned authority_needed(uint8_t message);

enum {
    CHANNEL_API = 1,
    CHANNEL_CARRY = 2,  /* the id of a third manager, then what goes to its CHANNEL_API */
    CHANNEL_IMAGES = 3, /* blobs: image_peers.h */
};

#endif
