/* The tunnel: one process a node (`shoal tunnel`) that carries every overlay network between nodes, always
 * encrypted: WireGuard (userspace, wire-compatible), inside it IPv4/UDP 4789/VXLAN; between two shoal ends a form of that
 * which costs less (overlay/peer.h, vxlan.h). It outlives the daemon, which feeds it the wanted state (level-triggered,
 * always whole) over a unix stream socket.
 *
 * Frame on the socket, both directions: u32 big-endian size of what follows, u8 enum tunnel_message, body.
 * Descriptors travel with the first byte of their frame (SCM_RIGHTS).
 * Design: design/datapath.md. */
#ifndef SHOAL_TUNNEL_H
#define SHOAL_TUNNEL_H

#include <shoal/model/rec.h>

enum tunnel_message {
    TUNNEL_CONFIG = 1, /* daemon -> tunnel: packed tunnel_config */
    TUNNEL_TAP = 2,    /* daemon -> tunnel: u32 VNI + the TAP's descriptor (IFF_TAP|IFF_NO_PI, with IFF_VNET_HDR or not) */
    TUNNEL_STATUS = 3, /* daemon -> tunnel: empty */
    TUNNEL_REPLY = 4,  /* tunnel -> daemon: packed tunnel_status (answer to STATUS) */
    TUNNEL_QUIT = 5,   /* daemon -> tunnel: exit now */
    /* What must stay open while no daemon is there (the resolvers of containers): the tunnel holds it and does nothing with it. */
    TUNNEL_KEEP = 6,   /* daemon -> tunnel: a name + TUNNEL_KEPT_FDS descriptors, instead of those of that name */
    TUNNEL_DROP = 7,   /* daemon -> tunnel: a name */
    TUNNEL_KEPT = 8,   /* daemon -> tunnel: empty. tunnel -> daemon: for all that is kept a name + descriptors, then one without */
};
enum { TUNNEL_KEPT_FDS = 2, TUNNEL_NAME_MAX_BYTES = 64, TUNNEL_KEPT_MAX = 20000 };
enum { TUNNEL_FRAME_MAX_BYTES = 64 << 20, TUNNEL_MTU_OVERHEAD = 110 };
/* Overhead over IPv4: inner Ethernet 14 + VXLAN 8 + UDP 8 + IPv4 20, WireGuard 32, UDP 8, IPv4 20 (110). The compact form
 * has 20 bytes less, but which of the two a peer reads is not known when containers get their MTU. */

/* Where an address of an overlay network lives. MAC of address a.b.c.d is always 02:42:a:b:c:d. */
#define tunnel_route_FIELDS(X, T)                                              \
    X(T, UINT, addr, _, 1, "Addr", "IPv4, host order", .max = 4294967295)      \
    X(T, UINT, via, _, 2, "Via", "tunnel address of its node, host order", .max = 4294967295)
REC_DECLARE(tunnel_route)

#define tunnel_network_FIELDS(X, T)                                            \
    X(T, UINT, vni, _, 1, "VNI", "", .max = 16777215)                          \
    X(T, LIST, routes, tunnel_route, 2, "Routes", "addresses on other nodes", .max = 1000000)
REC_DECLARE(tunnel_network)

#define tunnel_peer_FIELDS(X, T)                                               \
    X(T, BYTES, key, _, 1, "Key", "X25519 public", .max = 32)                  \
    X(T, STR, endpoint, _, 2, "Endpoint", "numeric IPv4 or IPv6", .max = 64)   \
    X(T, UINT, port, _, 3, "Port", "udp", .max = 65535)                        \
    X(T, UINT, addr, _, 4, "Addr", "tunnel address (AllowedIPs addr/32), host order", .max = 4294967295)
REC_DECLARE(tunnel_peer)

#define tunnel_config_FIELDS(X, T)                                             \
    X(T, BYTES, key, _, 1, "Key", "own X25519 secret", .max = 32, .flags = F_SECRET)  \
    X(T, BYTES, psk, _, 2, "PSK", "of every pair", .max = 32, .flags = F_SECRET)      \
    X(T, UINT, addr, _, 3, "Addr", "own tunnel address, host order", .max = 4294967295) \
    X(T, STR, listen, _, 4, "Listen", "numeric address, empty: any", .max = 64)       \
    X(T, UINT, port, _, 5, "Port", "udp", .max = 65535)                        \
    X(T, LIST, peers, tunnel_peer, 6, "Peers", "", .max = 20000)               \
    X(T, LIST, networks, tunnel_network, 7, "Networks", "TAPs of others are closed", .max = 10000)
REC_DECLARE(tunnel_config)

#define tunnel_peer_status_FIELDS(X, T)                                        \
    X(T, BYTES, key, _, 1, "Key", "", .max = 32)                               \
    X(T, STR, endpoint, _, 2, "Endpoint", "address:port it was last heard from", .max = 80) \
    X(T, INT, handshake_ms, _, 3, "HandshakeMs", "since the last handshake, -1: none", .min = -1, .max = INT64_MAX) \
    X(T, UINT, rx_bytes, _, 4, "RxBytes", "")                                  \
    X(T, UINT, tx_bytes, _, 5, "TxBytes", "")                                  \
    X(T, STR, form, _, 6, "Form", "what is sent to it now: wireguard, chacha, aes", .max = 16)
REC_DECLARE(tunnel_peer_status)
#define tunnel_tap_status_FIELDS(X, T)                                         \
    X(T, UINT, vni, _, 1, "VNI", "", .max = 16777215)                          \
    X(T, STRS, takes, _, 2, "Takes", "csum, tso, uso: what need not be done in the tunnel", .max = 8) \
    X(T, UINT, n_refused, _, 3, "Refused", "super-packets that the device did not take after all")
REC_DECLARE(tunnel_tap_status)
#define tunnel_status_FIELDS(X, T)                                             \
    X(T, UINT, pid, _, 1, "Pid", "")                                           \
    X(T, LIST, taps, tunnel_tap_status, 2, "Taps", "networks whose TAP is held", .max = 10000) \
    X(T, LIST, peers, tunnel_peer_status, 3, "Peers", "", .max = 20000)        \
    X(T, UINT, n_dropped, _, 4, "Dropped", "packets without route, session or buffer") \
    X(T, BOOL, offloads, _, 5, "Offloads", "this process reads TAPs with a vnet header; older ones do not") \
    X(T, UINT, n_lost, _, 6, "Lost", "frames from TAPs, and packets, that came faster than they could be sent, or were refused by the kernel")
REC_DECLARE(tunnel_status)

/* `shoal tunnel SOCKET`: listens on the unix socket path, serves one daemon connection at a time (a new one
 * replaces the old), goes on with the last configuration when the daemon goes away. Returns an exit status. */
int tunnel_main(int argc, char **argv);

#endif
