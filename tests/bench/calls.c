/* Server and client of tests/bench/calls; `gcc -O2 -static` makes the one program of its image.
 *   calls serve PORT                         reads a byte of each connection, answers 100 (the caller's address, filled up with
 *                                            blanks) and closes
 *   calls ask SECONDS ADDRESS:PORT...        64 connections under way, to these addresses in turn, the next one begins when one
 *                                            has ended; counted from a quarter of a second on. Prints
 *                                              rate N/s errors N seen ADDRESS
 * A connection counts when 100 bytes came and then its end; what was refused, reset, cut short or took a second is an error. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_BYTES = 100, UNDER_WAY = 64, TARGETS_MAX = 1024, EVENTS_MAX = 64, BACKLOG = 4096 };
static const int64_t WARM_US = 250000, SLOW_US = 1000000;

struct call { int fd, got; bool asked; int64_t began_us; char answer[ANSWER_BYTES + 1]; };

static struct sockaddr_in targets[TARGETS_MAX];
static unsigned n_targets, next_target;
static unsigned long n_done, n_errors;
static char seen[INET_ADDRSTRLEN];
static int poller;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int watch(int fd, uint32_t events, void *what)
{
    struct epoll_event e = { .events = events, .data.ptr = what };
    return epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
}

/* ---- the server: its events carry the descriptor ---- */
static bool answer(int fd)
{
    char byte, text[ANSWER_BYTES + 1], caller[INET_ADDRSTRLEN];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    if (recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
        return false;
    if (getpeername(fd, (struct sockaddr *)&from, &size) == 0 && inet_ntop(AF_INET, &from.sin_addr, caller, sizeof caller)) {
        snprintf(text, sizeof text, "%-*s", ANSWER_BYTES, caller);
        send(fd, text, ANSWER_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    close(fd);
    return true;
}

static void take_callers(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        if (!answer(fd) && watch(fd, EPOLLIN, (void *)(intptr_t)fd) != 0)
            close(fd);
}

static void serve(unsigned port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct epoll_event events[EVENTS_MAX];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, BACKLOG) != 0)
        die("listen");
    watch(listener, EPOLLIN, (void *)(intptr_t)listener);
    for (;;) {
        int n = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            int fd = (int)(intptr_t)events[i].data.ptr;
            if (fd == listener)
                take_callers(listener);
            else
                answer(fd);
        }
    }
}

/* ---- the client ---- */
static void begin(struct call *c)
{
    const struct sockaddr_in *to = &targets[next_target++ % n_targets];
    *c = (struct call){ .began_us = now_us() };
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || (connect(c->fd, (const struct sockaddr *)to, sizeof *to) != 0 && errno != EINPROGRESS))
        die("connect");
    if (watch(c->fd, EPOLLIN | EPOLLOUT | EPOLLET, c) != 0)
        die("epoll_ctl");
}

static void end(struct call *c, bool good)
{
    close(c->fd);
    good = good && now_us() - c->began_us < SLOW_US;
    n_done += good;
    n_errors += !good;
    if (good && !seen[0])
        sscanf(c->answer, "%15s", seen);
    begin(c);
}

static void go_on(struct call *c, uint32_t events)
{
    if (!c->asked && (events & EPOLLOUT) && !(events & EPOLLERR)) {
        if (send(c->fd, "x", 1, MSG_NOSIGNAL) != 1) {
            end(c, false);
            return;
        }
        c->asked = true;
    }
    while (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        char rest;
        bool all = c->got == ANSWER_BYTES;
        ssize_t n = all ? recv(c->fd, &rest, 1, 0) : recv(c->fd, c->answer + c->got, (size_t)(ANSWER_BYTES - c->got), 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || all) {
            end(c, n == 0 && all);
            return;
        }
        c->got += (int)n;
    }
}

static void ask(double seconds)
{
    static struct call calls[UNDER_WAY];
    struct epoll_event events[EVENTS_MAX];
    int64_t from = now_us() + WARM_US, to = from + (int64_t)(seconds * 1e6), now;
    bool warm = false;
    for (unsigned i = 0; i < UNDER_WAY; i++)
        begin(&calls[i]);
    while ((now = now_us()) < to) {
        if (!warm && now >= from) {
            warm = true;
            from = now;
            n_done = 0; /* errors count from the beginning */
        }
        int n = epoll_wait(poller, events, EVENTS_MAX, 100);
        for (int i = 0; i < n; i++)
            go_on(events[i].data.ptr, events[i].events);
    }
    for (unsigned i = 0; i < UNDER_WAY; i++)
        n_errors += now - calls[i].began_us >= SLOW_US;
    printf("rate %.0f errors %lu seen %s\n", (double)n_done / ((double)(now - from) / 1e6), n_errors, seen[0] ? seen : "-");
}

int main(int argc, char **argv)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (argc == 3 && !strcmp(argv[1], "serve"))
        serve((unsigned)strtoul(argv[2], NULL, 10));
    for (int i = 3; i < argc && n_targets < TARGETS_MAX; i++) {
        struct sockaddr_in *t = &targets[n_targets++];
        char *colon = strchr(argv[i], ':');
        t->sin_family = AF_INET;
        t->sin_port = htons((uint16_t)(colon ? strtoul(colon + 1, NULL, 10) : 0));
        if (colon)
            *colon = '\0';
        if (!colon || inet_pton(AF_INET, argv[i], &t->sin_addr) != 1)
            n_targets = 0;
    }
    if (argc < 4 || strcmp(argv[1], "ask") != 0 || !n_targets) {
        fprintf(stderr, "usage: calls serve PORT | calls ask SECONDS ADDRESS:PORT...\n");
        return 1;
    }
    ask(strtod(argv[2], NULL));
    return 0;
}
