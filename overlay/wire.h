/* How much may wait below the tunnel (in the socket, queueing discipline and device, as the kernel counts it) before frames wait
 * in the fair queue instead. Some of it does not go: what is for a machine that answers no ARP stays in the kernel for seconds,
 * up to 208 KB of it for each (net.ipv4.neigh.*.unres_qlen_bytes), and must not hold up what is for others. It is known by not
 * growing less while nothing is sent; for a while that much may wait beside the usual. Pure. */
#ifndef OVERLAY_WIRE_H
#define OVERLAY_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_ROOM_BYTES = 256 << 10, WIRE_ROOM_MAX_BYTES = 16 << 20,
    WIRE_STALL_MS = 10,   /* not less for so long: it stands. A wire that takes a message in more time gets more room than is good */
    WIRE_TRUST_MS = 1000, /* then half the room must do, or prove itself too small again */
};

struct wire {
    size_t room;           /* bytes that may wait */
    int64_t changed_ms;    /* the room */
    bool full;
    size_t lowest;         /* since it is full */
    int64_t lowest_ms;
};
void wire_init(struct wire *w);
/* May more be sent, when so much waits? If not, ask again when less than w->room waits, and after WIRE_STALL_MS. */
bool wire_has_room(struct wire *w, size_t waiting, int64_t now_ms);

#endif
