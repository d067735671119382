/* In front of the production files that make system calls which file.h, loop.h and stream.h do not cover (-include). */
#ifndef WHOLE_CALLS_H
#define WHOLE_CALLS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int whole_socket(int family, int type, int protocol);
int whole_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int whole_bind(int fd, const struct sockaddr *a, socklen_t size);
int whole_close(int fd);
int whole_unlink(const char *path);
ssize_t whole_sendto(int fd, const void *p, size_t size, int flags, const struct sockaddr *to, socklen_t to_size);
ssize_t whole_recvmsg(int fd, struct msghdr *m, int flags); /* of the queue of errors */
ssize_t whole_recvfrom(int fd, void *p, size_t size, int flags, struct sockaddr *from, socklen_t *from_size);

#ifndef WHOLE_SHIM /* defined by what takes the calls */
#define socket(...) whole_socket(__VA_ARGS__)
#define setsockopt(...) whole_setsockopt(__VA_ARGS__)
#define bind(...) whole_bind(__VA_ARGS__)
#define close(fd) whole_close(fd)
#define unlink(path) whole_unlink(path)
#define sendto(...) whole_sendto(__VA_ARGS__)
#define recvmsg(...) whole_recvmsg(__VA_ARGS__)
#define recvfrom(...) whole_recvfrom(__VA_ARGS__)
#endif

#endif
