/* whoami: a small static HTTP server for examples and tests. Answers every request with its host name, its
 * addresses, the caller's address and the request's headers. Usage: whoami [PORT] (default 80). One process,
 * one thread; a connection is served and closed; slow clients are cut after five seconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static void on_term(int sig)
{
    (void)sig;
    stopping = 1;
}

static size_t add(char *out, size_t len, size_t size, const char *key, const char *value)
{
    int n = snprintf(out + len, size - len, "%s: %s\n", key, value);
    return n < 0 || (size_t)n >= size - len ? len : len + (size_t)n;
}

static size_t add_addresses(char *out, size_t len, size_t size)
{
    struct ifaddrs *all, *a;
    if (getifaddrs(&all) < 0)
        return len;
    for (a = all; a; a = a->ifa_next) {
        char ip[INET6_ADDRSTRLEN];
        if (!a->ifa_addr || (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6))
            continue;
        const void *p = a->ifa_addr->sa_family == AF_INET
                            ? (const void *)&((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr
                            : (const void *)&((struct sockaddr_in6 *)(void *)a->ifa_addr)->sin6_addr;
        if (inet_ntop(a->ifa_addr->sa_family, p, ip, sizeof ip))
            len = add(out, len, size, "IP", ip);
    }
    freeifaddrs(all);
    return len;
}

/* Reads until the end of the request head; returns its length, 0 when there is none. */
static size_t read_head(int fd, char *head, size_t size)
{
    size_t len = 0;
    while (len < size - 1) {
        ssize_t n = read(fd, head + len, size - 1 - len);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        head[len] = 0;
        if (strstr(head, "\r\n\r\n"))
            return len;
    }
    return 0;
}

static void serve(int fd, const struct sockaddr_in6 *peer)
{
    char head[8192], body[16384], host[256] = "", ip[INET6_ADDRSTRLEN] = "", reply[256];
    struct timeval limit = { .tv_sec = 5 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (!read_head(fd, head, sizeof head))
        return;
    gethostname(host, sizeof host - 1);
    inet_ntop(AF_INET6, &peer->sin6_addr, ip, sizeof ip);
    size_t len = add(body, 0, sizeof body, "Hostname", host);
    len = add_addresses(body, len, sizeof body);
    len = add(body, len, sizeof body, "RemoteAddr", strncmp(ip, "::ffff:", 7) ? ip : ip + 7);
    char *line = head;
    for (bool first = true; *line && *line != '\r'; first = false) {
        char *end = strstr(line, "\r\n");
        if (!end)
            break;
        *end = 0;
        int n = snprintf(body + len, sizeof body - len, "%s%s\n", first ? "Request: " : "", line);
        if (n < 0 || (size_t)n >= sizeof body - len)
            break;
        len += (size_t)n;
        line = end + 2;
    }
    int n = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n\r\n", len);
    if (n > 0 && write(fd, reply, (size_t)n) == n && write(fd, body, len) < 0)
        perror("whoami: write");
}

int main(int argc, char **argv)
{
    long port = argc > 1 ? strtol(argv[1], NULL, 10) : 80;
    struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    struct sockaddr_in at4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sigaction term = { .sa_handler = on_term };
    if (port < 1 || port > 65535) {
        fprintf(stderr, "whoami: port %s is not between 1 and 65535\n", argv[1]);
        return 2;
    }
    sigaction(SIGTERM, &term, NULL);
    sigaction(SIGINT, &term, NULL);
    signal(SIGPIPE, SIG_IGN);
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, off = 0, bound = -1;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        bound = bind(fd, (struct sockaddr *)&at, sizeof at);
    }
    if (bound < 0) { /* a host without IPv6 */
        if (fd >= 0)
            close(fd);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        bound = bind(fd, (struct sockaddr *)&at4, sizeof at4);
    }
    if (bound < 0 || listen(fd, 128) < 0) {
        perror("whoami: listen");
        return 1;
    }
    printf("whoami listens on port %ld\n", port);
    fflush(stdout);
    while (!stopping) {
        struct sockaddr_in6 peer = { 0 };
        socklen_t size = sizeof peer;
        int c = accept(fd, (struct sockaddr *)&peer, &size);
        if (c < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            perror("whoami: accept");
            return 1;
        }
        if (peer.sin6_family == AF_INET) { /* shown alike */
            struct in_addr v4 = ((struct sockaddr_in *)(void *)&peer)->sin_addr;
            memset(&peer.sin6_addr, 0, 10);
            memset((char *)&peer.sin6_addr + 10, 0xff, 2);
            memcpy((char *)&peer.sin6_addr + 12, &v4, 4);
        }
        serve(c, &peer);
        shutdown(c, SHUT_WR);
        close(c);
    }
    return 0;
}
