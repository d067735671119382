/* Descriptors that outlive the daemon: its successor finds the sockets of resolvers as they were, with the questions that
 * came meanwhile, so that no container sees a port that nobody serves. */
#include "kept.h"
#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { HEAD_BYTES = 5, KEPT_WAIT_S = 1 };

static void close_all(const int fds[TUNNEL_KEPT_FDS])
{
    for (int i = 0; i < TUNNEL_KEPT_FDS; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

void kept_drop(struct map *all, const char *name, size_t size)
{
    struct kept *k = map_remove_n(all, name, size);
    if (k)
        close_all(k->fds);
    free(k);
}

void kept_put(struct map *all, const char *name, size_t size, const int fds[TUNNEL_KEPT_FDS])
{
    bool whole = size > 0 && size <= TUNNEL_NAME_MAX_BYTES && all->n < TUNNEL_KEPT_MAX;
    for (int i = 0; i < TUNNEL_KEPT_FDS; i++)
        whole &= fds[i] >= 0;
    kept_drop(all, name, size);
    if (!whole) {
        close_all(fds);
        return;
    }
    struct kept *k = xnew(struct kept);
    memcpy(k->fds, fds, sizeof k->fds);
    map_put_n(all, name, size, k);
}

void kept_done(struct map *all)
{
    for (struct map_item *it = NULL; (it = map_next(all, it));) {
        close_all(((struct kept *)it->value)->fds);
        free(it->value);
    }
    map_done(all);
}

int kept_send(int sock, enum tunnel_message type, const char *name, const int *fds, struct err *e)
{
    uint8_t frame[HEAD_BYTES + TUNNEL_NAME_MAX_BYTES] = { 0 };
    size_t size = MIN(strlen(name), (size_t)TUNNEL_NAME_MAX_BYTES);
    frame[3] = (uint8_t)(size + 1);
    frame[4] = (uint8_t)type;
    memcpy(frame + HEAD_BYTES, name, size);
    return fds ? fd_send_with_fds(sock, frame, HEAD_BYTES + size, fds, TUNNEL_KEPT_FDS, e) : fd_write_all(sock, frame, HEAD_BYTES + size, e);
}

int kept_tell(const struct map *all, int sock, struct err *e)
{
    int r = 0;
    for (struct map_item *it = NULL; r == 0 && (it = map_next(all, it));)
        r = kept_send(sock, TUNNEL_KEPT, it->key, ((struct kept *)it->value)->fds, e);
    return r < 0 ? r : kept_send(sock, TUNNEL_KEPT, "", NULL, e);
}

/* Of a frame at the front of the buffer: its whole size; 0: it is not there yet. */
static size_t frame_size(const struct sb *in)
{
    const uint8_t *p = (const uint8_t *)in->s;
    size_t size = in->len < HEAD_BYTES ? 0 : 4 + ((size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
    return in->len < size ? 0 : size;
}

void kept_ask(int sock, struct map *ret)
{
    struct timeval limit = { .tv_sec = KEPT_WAIT_S };
    struct sb in;
    struct err e;
    int fds[TUNNEL_KEPT_FDS] = { -1, -1 };
    bool ended = kept_send(sock, TUNNEL_KEPT, "", NULL, &e) < 0;
    sb_init(&in, 1 << 16);
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    while (!ended) {
        uint8_t buf[256];
        int got[TUNNEL_KEPT_FDS] = { -1, -1 };
        unsigned n_fds = TUNNEL_KEPT_FDS;
        long n = fd_recv_with_fds(sock, buf, sizeof buf, got, &n_fds, &e);
        if (n_fds) { /* a read ends behind what came with descriptors: they are the last frame's that begins in it */
            close_all(fds);
            memcpy(fds, got, sizeof fds);
        }
        ended = n <= 0;
        if (n > 0)
            sb_add(&in, buf, (size_t)n);
        for (size_t size; !ended && (size = frame_size(&in)); sb_drop_front(&in, size)) {
            ended = in.s[4] != TUNNEL_KEPT || size == HEAD_BYTES;
            if (!ended) {
                kept_put(ret, in.s + HEAD_BYTES, size - HEAD_BYTES, fds);
                memset(fds, 0xff, sizeof fds);
            }
        }
        ended |= in.overflow;
    }
    close_all(fds);
    sb_done(&in);
}
