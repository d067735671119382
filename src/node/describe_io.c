/* What a node tells about its machine, and which of its addresses others shall use. */
#include "node_internal.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

void describe_machine(struct node_description *ret)
{
    struct utsname u;
    struct sysinfo info;
    char host[256] = "localhost";
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    gethostname(host, sizeof host - 1);
    str_set(&ret->hostname, host);
    if (uname(&u) == 0)
        str_set(&ret->platform.arch, u.machine);
    str_set(&ret->platform.os, "linux");
    ret->resources.nano_cpus = (cpus > 0 ? cpus : 1) * INT64_C(1000000000);
    if (sysinfo(&info) == 0)
        ret->resources.memory_bytes = (int64_t)info.totalram * info.mem_unit;
    str_set(&ret->engine.version, SHOAL_VERSION);
    struct plugin *p = REC_ADD(&ret->engine.plugins);
    str_set(&p->type, "Network");
    str_set(&p->name, "overlay");
    p = REC_ADD(&ret->engine.plugins);
    str_set(&p->type, "Volume");
    str_set(&p->name, "local");
}

static bool is_ours(const struct ifaddrs *i)
{
    return i->ifa_addr && i->ifa_addr->sa_family == AF_INET && i->ifa_flags & IFF_UP && !(i->ifa_flags & IFF_LOOPBACK) &&
           !str_starts(i->ifa_name, "shoal-") && !str_starts(i->ifa_name, "docker") && !str_starts(i->ifa_name, "br-");
}

int advertise_address(const char *text, char ret[64], struct err *e)
{
    struct in_addr a4;
    struct in6_addr a6;
    struct ifaddrs *all, *i;
    char found[64] = "", others[256] = "";
    unsigned n = 0;
    if (text && (inet_pton(AF_INET, text, &a4) == 1 || inet_pton(AF_INET6, text, &a6) == 1)) {
        snprintf(ret, 64, "%s", text);
        return 0;
    }
    if (getifaddrs(&all) < 0)
        return err_set(e, E_IO, "cannot list the addresses of this machine; give one with --advertise ADDR");
    for (i = all; i; i = i->ifa_next) {
        char addr[64];
        if (!is_ours(i) || (text && !str_equal(i->ifa_name, text)))
            continue;
        inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, addr, sizeof addr);
        if (n++ == 0)
            snprintf(found, sizeof found, "%s", addr);
        size_t len = strlen(others);
        snprintf(others + len, sizeof others - len, "%s%s on %s", len ? ", " : "", addr, i->ifa_name);
    }
    freeifaddrs(all);
    if (text && n == 0)
        return err_set(e, E_INVALID, "advertise address \"%s\" is neither an address nor an interface with one", text);
    if (n == 0)
        return err_set(e, E_INVALID, "this machine has no network address but loopback; give one with --advertise ADDR");
    if (n > 1 && !text)
        return err_set(e, E_INVALID, "this machine has several addresses (%s); choose one with --advertise ADDR", others);
    snprintf(ret, 64, "%s", found);
    return 0;
}
