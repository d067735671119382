/* Descriptors by name that outlive the daemon, in the tunnel process, and the daemon's question for them. */
#ifndef OVERLAY_KEPT_H
#define OVERLAY_KEPT_H

#include <shoal/base/err.h>
#include <shoal/base/map.h>
#include <shoal/tunnel.h>

struct kept { int fds[TUNNEL_KEPT_FDS]; };

/* Of a map of struct kept, max at most. Takes the descriptors, instead of those of that name; -1 in any: none of them is kept. */
void kept_put(struct map *all, uint32_t max, const char *name, size_t size, const int fds[TUNNEL_KEPT_FDS]);
void kept_drop(struct map *all, const char *name, size_t size);
void kept_close(const int fds[TUNNEL_KEPT_FDS]); /* but for -1 */
void kept_done(struct map *all); /* closes all */
/* To a daemon that asked (TUNNEL_KEPT). -E_IO: it went away. */
int kept_tell(const struct map *all, int sock, struct err *e) must_check;
/* Asks the tunnel at the other end of the socket, waits for KEPT_WAIT_MS at most; what came until then is in the map. False:
 * that is not all. One of before that does not know the question keeps nothing. */
bool kept_ask(int sock, struct map *ret);
/* A frame with what was kept under a name, or for it: TUNNEL_KEEP, TUNNEL_DROP (fds NULL), TUNNEL_KEPT. */
int kept_send(int sock, enum tunnel_message type, const char *name, const int *fds, struct err *e) must_check;

#endif
