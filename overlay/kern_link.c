/* The door to libnl: links, addresses and routes in the network namespace that the thread is in (each call opens
 * a netlink socket there). TAP devices by ioctl, sysctls by file. */
#include "overlay_internal.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/route.h>
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

LOG_MODULE("overlay");

/* The tunnel empties it into a queue of its own (fair.h) as fast as it can; this one is for bursts that come before it has the
 * processor. The fragments of the largest UDP datagram are 48, and one that finds no place costs all of them (50-overlay). */
enum { TAP_QUEUE_FRAMES = 256 };

static struct nl_sock *open_netlink(void)
{
    struct nl_sock *s = nl_socket_alloc();
    if (s && nl_connect(s, NETLINK_ROUTE) < 0) {
        nl_socket_free(s);
        return NULL;
    }
    return s;
}

static int fail(struct err *e, int nl, const char *what, const char *name)
{
    return err_set(e, nl == -NLE_EXIST ? E_EXISTS : E_INTERNAL, "%s %s: %s", what, name, nl_geterror(nl));
}

bool link_exists(const char *name)
{
    return if_nametoindex(name) != 0;
}

/* Applies a change that fn describes to the link NAME. */
static int change(const char *name, const char *what, struct rtnl_link *wanted, struct err *e)
{
    struct nl_sock *s = open_netlink();
    struct rtnl_link *old = NULL;
    int r = s ? rtnl_link_get_kernel(s, 0, name, &old) : -NLE_FAILURE;
    if (r == 0)
        r = rtnl_link_change(s, old, wanted, 0);
    if (old)
        rtnl_link_put(old);
    rtnl_link_put(wanted);
    if (s)
        nl_socket_free(s);
    return r < 0 ? fail(e, r, what, name) : 0;
}

/* A kernel without IPv6 has no such file. */
int link_without_ipv6(const char *name, struct err *e)
{
    AUTO_FREE char *sysctl = xasprintf("net/ipv6/conf/%s/disable_ipv6", name);
    int r = sysctl_set(sysctl, "1", e);
    return r == -E_NOT_FOUND ? 0 : r;
}

int link_up(const char *name, struct err *e)
{
    int r = link_without_ipv6(name, e);
    if (r < 0)
        return r;
    struct rtnl_link *l = rtnl_link_alloc();
    rtnl_link_set_flags(l, IFF_UP);
    return change(name, "bring up", l, e);
}

int link_set_mtu(const char *name, unsigned mtu, struct err *e)
{
    struct rtnl_link *l = rtnl_link_alloc();
    rtnl_link_set_mtu(l, mtu);
    int r = change(name, "set the MTU of", l, e);
    return r < 0 ? r : link_without_ipv6(name, e); /* below 1280 bytes there was none to switch off */
}

void link_set_mtu_in(const char *netns, const char *name, unsigned mtu)
{
    struct err e;
    int back = netns ? netns_enter(netns, &e) : -1, r = netns && back < 0 ? back : link_set_mtu(name, mtu, &e);
    if (back >= 0)
        netns_leave(back);
    if (r < 0) /* a container may do what it likes to its end */
        log_warn("%s", e.text);
}

int link_set_mac(const char *name, const uint8_t mac[6], struct err *e)
{
    struct rtnl_link *l = rtnl_link_alloc();
    struct nl_addr *a = nl_addr_build(AF_LLC, mac, 6);
    rtnl_link_set_addr(l, a);
    nl_addr_put(a);
    return change(name, "set the MAC of", l, e);
}

int link_set_master(const char *name, const char *bridge, struct err *e)
{
    struct rtnl_link *l = rtnl_link_alloc();
    rtnl_link_set_master(l, (int)if_nametoindex(bridge));
    return change(name, "connect", l, e);
}

int link_make_bridge(const char *name, struct err *e)
{
    if (link_exists(name))
        return 0;
    struct nl_sock *s = open_netlink();
    struct rtnl_link *l = rtnl_link_bridge_alloc();
    rtnl_link_set_name(l, name);
    int r = s ? rtnl_link_add(s, l, NLM_F_CREATE | NLM_F_EXCL) : -NLE_FAILURE;
    rtnl_link_put(l);
    if (s)
        nl_socket_free(s);
    return r < 0 ? fail(e, r, "make the bridge", name) : 0;
}

int link_make_veth(const char *name, const char *peer_name, int peer_netns, unsigned mtu, const uint8_t *peer_mac,
                   struct err *e)
{
    struct nl_sock *s = open_netlink();
    struct rtnl_link *l = rtnl_link_veth_alloc(), *peer = rtnl_link_veth_get_peer(l);
    rtnl_link_set_name(l, name);
    rtnl_link_set_mtu(l, mtu);
    rtnl_link_set_name(peer, peer_name);
    rtnl_link_set_mtu(peer, mtu);
    rtnl_link_set_ns_fd(peer, peer_netns);
    if (peer_mac) {
        struct nl_addr *a = nl_addr_build(AF_LLC, peer_mac, 6);
        rtnl_link_set_addr(peer, a);
        nl_addr_put(a);
    }
    int r = s ? rtnl_link_add(s, l, NLM_F_CREATE | NLM_F_EXCL) : -NLE_FAILURE;
    rtnl_link_put(peer);
    rtnl_link_put(l);
    if (s)
        nl_socket_free(s);
    return r < 0 ? fail(e, r, "make the link", name) : 0;
}

int link_add_address(const char *name, uint32_t addr, unsigned bits, struct err *e)
{
    uint32_t be = htonl(addr);
    struct nl_sock *s = open_netlink();
    struct rtnl_addr *a = rtnl_addr_alloc();
    struct nl_addr *local = nl_addr_build(AF_INET, &be, 4);
    nl_addr_set_prefixlen(local, (int)bits);
    rtnl_addr_set_ifindex(a, (int)if_nametoindex(name));
    rtnl_addr_set_local(a, local);
    int r = s ? rtnl_addr_add(s, a, 0) : -NLE_FAILURE;
    nl_addr_put(local);
    rtnl_addr_put(a);
    if (s)
        nl_socket_free(s);
    return r < 0 && r != -NLE_EXIST ? fail(e, r, "give an address to", name) : 0;
}

int link_add_route(const char *name, uint32_t addr, unsigned bits, uint32_t via, struct err *e)
{
    uint32_t be = htonl(addr), gateway = htonl(via);
    struct nl_sock *s = open_netlink();
    struct rtnl_route *route = rtnl_route_alloc();
    struct nl_addr *dst = nl_addr_build(AF_INET, &be, 4), *gw = nl_addr_build(AF_INET, &gateway, 4);
    struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
    nl_addr_set_prefixlen(dst, (int)bits);
    rtnl_route_set_family(route, AF_INET);
    rtnl_route_set_dst(route, dst);
    if (via)
        rtnl_route_nh_set_gateway(hop, gw);
    rtnl_route_nh_set_ifindex(hop, (int)if_nametoindex(name));
    rtnl_route_add_nexthop(route, hop); /* taken */
    rtnl_route_set_scope(route, via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
    int r = s ? rtnl_route_add(s, route, NLM_F_CREATE | NLM_F_REPLACE) : -NLE_FAILURE;
    nl_addr_put(dst);
    nl_addr_put(gw);
    rtnl_route_put(route);
    if (s)
        nl_socket_free(s);
    return r < 0 ? fail(e, r, "add a route by", name) : 0;
}

bool link_has_address(const char *name, uint32_t addr)
{
    struct ifreq q = { .ifr_addr.sa_family = AF_INET };
    AUTO_CLOSE int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(q.ifr_name, sizeof q.ifr_name, "%s", name);
    return s >= 0 && ioctl(s, SIOCGIFADDR, &q) == 0 &&
           ntohl(((struct sockaddr_in *)(void *)&q.ifr_addr)->sin_addr.s_addr) == addr;
}

void link_remove(const char *name)
{
    struct nl_sock *s = open_netlink();
    struct rtnl_link *l = rtnl_link_alloc();
    rtnl_link_set_name(l, name);
    if (s && link_exists(name))
        rtnl_link_delete(s, l);
    rtnl_link_put(l);
    if (s)
        nl_socket_free(s);
}

/* The namespace itself, for its path may be another's when the work runs, and a new link there may have that index. */
struct removal { int netns; /* -1: the host's */ unsigned index; };

static void remove_work(void *arg)
{
    struct removal *x = arg;
    struct err e;
    int back = x->netns >= 0 ? netns_enter_open(x->netns, "of a link", &e) : -1;
    if (x->netns < 0 || back >= 0) {
        struct nl_sock *s = open_netlink();
        struct rtnl_link *l = rtnl_link_alloc();
        rtnl_link_set_ifindex(l, (int)x->index);
        if (s)
            rtnl_link_delete(s, l); /* mostly gone with the namespace of its other end */
        rtnl_link_put(l);
        if (s)
            nl_socket_free(s);
    }
    if (back >= 0)
        netns_leave(back);
    if (x->netns >= 0)
        close(x->netns);
    free(x);
}

void link_remove_later(struct loop *l, const char *netns, const char *name)
{
    struct err e;
    AUTO_CLOSE int fd = netns ? netns_open(netns, &e) : -1;
    int back = fd >= 0 ? netns_enter_open(fd, netns, &e) : -1;
    unsigned index = netns && back < 0 ? 0 : if_nametoindex(name);
    if (back >= 0)
        netns_leave(back);
    if (!index)
        return;
    struct removal *x = xnew(struct removal);
    x->netns = fd;
    fd = -1;
    x->index = index;
    if (loop_work(l, LANE_BULK, remove_work, NULL, x) < 0)
        remove_work(x);
}

int link_open_tap(const char *name, bool vnet_header, struct err *e)
{
    struct ifreq q = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet_header ? IFF_VNET_HDR : 0)) };
    snprintf(q.ifr_name, sizeof q.ifr_name, "%s", name);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK), r;
    AUTO_CLOSE int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && s >= 0 && ioctl(fd, TUNSETIFF, &q) == 0;
    q.ifr_qlen = TAP_QUEUE_FRAMES;
    if (ok && ioctl(s, SIOCSIFTXQLEN, &q) == 0)
        return fd;
    r = err_errno(e, errno, "make the TAP device %s", name);
    if (fd >= 0)
        close(fd);
    return r;
}

static bool has_address(const struct sockaddr *a, int family, const void *want)
{
    if (!a || a->sa_family != family)
        return false;
    return family == AF_INET ? memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr, want, 4) == 0
                             : memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, want, 16) == 0;
}

unsigned link_underlay_mtu(const char *addr)
{
    struct ifaddrs *all, *i;
    unsigned mtu = 0;
    uint8_t want[16];
    int family = addr && strchr(addr, ':') ? AF_INET6 : AF_INET;
    if (!addr || inet_pton(family, addr, want) != 1 || getifaddrs(&all) < 0)
        return mtu;
    for (i = all; i; i = i->ifa_next) {
        if (!has_address(i->ifa_addr, family, want))
            continue;
        struct ifreq q = { .ifr_mtu = 0 };
        AUTO_CLOSE int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        snprintf(q.ifr_name, sizeof q.ifr_name, "%s", i->ifa_name);
        if (s >= 0 && ioctl(s, SIOCGIFMTU, &q) == 0)
            mtu = (unsigned)q.ifr_mtu;
    }
    freeifaddrs(all);
    return mtu ? MIN(mtu, 9000u) - (family == AF_INET6 ? 20 : 0) : 0;
}

int sysctl_set(const char *name, const char *value, struct err *e)
{
    AUTO_FREE char *path = path_join("/proc/sys", name);
    return file_poke(path, value, e);
}
