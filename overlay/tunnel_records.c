/* Records of the tunnel's socket. */
#include <shoal/tunnel.h>

REC_DEFINE(tunnel_route)
REC_DEFINE(tunnel_network)
REC_DEFINE(tunnel_peer)
REC_DEFINE(tunnel_config)
REC_DEFINE(tunnel_peer_status)
REC_DEFINE(tunnel_tap_status)
REC_DEFINE(tunnel_status)
