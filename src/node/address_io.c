/* Watches the address that this node told the others. The kernel tells of each address that comes or goes; when ours is
 * gone and its interface has another one, that is ours from then on (a lease that was not renewed, a moved machine). */
#include "node_internal.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

LOG_MODULE("address");

struct address_watch {
    int fd;
    struct loop_fd *watch;
    char interface[IF_NAMESIZE];
};

static bool address_text(const struct ifaddrs *i, char out[INET6_ADDRSTRLEN])
{
    if (!i->ifa_addr)
        return false;
    if (i->ifa_addr->sa_family == AF_INET)
        return inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, out, INET6_ADDRSTRLEN);
    const struct sockaddr_in6 *a6 = (void *)i->ifa_addr;
    return i->ifa_addr->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&a6->sin6_addr) &&
           inet_ntop(AF_INET6, &a6->sin6_addr, out, INET6_ADDRSTRLEN);
}

/* The interface that has addr, "" for none; with want, another address (of the same family) of that interface. */
static void look(const char *addr, const char *want, char interface[IF_NAMESIZE], char other[INET6_ADDRSTRLEN])
{
    struct ifaddrs *all;
    bool v6 = strchr(addr, ':') != NULL;
    interface[0] = other[0] = '\0';
    if (getifaddrs(&all) < 0)
        return;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        char text[INET6_ADDRSTRLEN];
        if (!address_text(i, text))
            continue;
        if (str_equal(text, addr))
            memcpy(interface, i->ifa_name, MIN(strlen(i->ifa_name) + 1, (size_t)IF_NAMESIZE));
        else if (want && !other[0] && str_equal(i->ifa_name, want) && (strchr(text, ':') != NULL) == v6)
            memcpy(other, text, sizeof text);
    }
    freeifaddrs(all);
}

static void on_change(void *arg, unsigned events)
{
    struct daemon *d = arg;
    char buf[8192], interface[IF_NAMESIZE], other[INET6_ADDRSTRLEN];
    (void)events;
    while (recv(d->address->fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
        ; /* what exactly changed does not matter; neither do messages lost */
    look(d->member.addr, d->address->interface, interface, other);
    if (!interface[0] && other[0])
        member_moved(d, other);
}

void address_watch(struct daemon *d)
{
    struct sockaddr_nl at = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR };
    char interface[IF_NAMESIZE], other[INET6_ADDRSTRLEN];
    if (d->address || !d->member.addr)
        return;
    look(d->member.addr, NULL, interface, other);
    if (!interface[0])
        return;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        log_warn("cannot watch the addresses of this machine: a change of %s will go unnoticed", d->member.addr);
        if (fd >= 0)
            close(fd);
        return;
    }
    d->address = xnew(struct address_watch);
    d->address->fd = fd;
    memcpy(d->address->interface, interface, sizeof interface);
    d->address->watch = loop_fd_add(d->loop, fd, LOOP_READ, on_change, d);
}

void address_unwatch(struct daemon *d)
{
    if (!d->address)
        return;
    loop_fd_remove(d->address->watch);
    close(d->address->fd);
    free(TAKE(d->address));
}
