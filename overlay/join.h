/* Puts together again what came in pieces: segments of one super-packet, and datagrams of one flow that follow each other,
 * so that the kernel takes them as one. Copies nothing: pieces stay where they were opened until the join ends. Pure. */
#ifndef OVERLAY_JOIN_H
#define OVERLAY_JOIN_H

#include "vxlan.h"
#include <sys/uio.h>

enum { JOIN_PIECES_MAX = 64 /* UDP_MAX_SEGMENTS of kernels before 6.9 */ };

struct join {
    uint32_t vni;
    const void *from;             /* the peer; NULL: nothing is held */
    struct frame_meta meta;       /* of the whole */
    struct iovec iov[1 + JOIN_PIECES_MAX]; /* the first one is left to the shell, for its header */
    unsigned n;                   /* pieces */
    size_t size;                  /* of the frame they make */
    uint64_t counter;             /* of the last piece; others carry segments on only if they follow it directly */
    uint8_t index;
    bool open, datagrams;         /* more may follow; what is joined are datagrams, not segments */
};

/* A piece from a peer whose packet had this counter, which borrowed it until the join ends. False: it does not carry on
 * what is held (or nothing is); end that, then begin with this one. */
bool join_add(struct join *j, const void *from, uint64_t counter, const struct compact *c);
/* takes_udp: datagrams may be joined, the device takes UDP super-packets. */
void join_begin(struct join *j, const void *from, uint64_t counter, const struct compact *c, bool takes_udp);
/* Completes header and description of what is held: iov[1] to iov[n]. The caller uses it, then sets from to NULL. */
void join_end(struct join *j);

#endif
