/* Descriptors that outlive the daemon: its successor finds the sockets of resolvers as they were, with the questions that
 * came meanwhile, so that no container sees a port that nobody serves. */
#include "kept.h"
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <shoal/loop.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

LOG_MODULE("tunnel");

enum { HEAD_BYTES = 5, KEPT_WAIT_MS = 1000 };

void kept_close(const int fds[TUNNEL_KEPT_FDS])
{
    for (int i = 0; i < TUNNEL_KEPT_FDS; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

void kept_drop(struct map *all, const char *name, size_t size)
{
    struct kept *k = map_remove_n(all, name, size);
    if (k)
        kept_close(k->fds);
    free(k);
}

void kept_put(struct map *all, uint32_t max, const char *name, size_t size, const int fds[TUNNEL_KEPT_FDS])
{
    kept_drop(all, name, size);
    bool whole = size > 0 && size <= TUNNEL_NAME_MAX_BYTES && all->n < max;
    for (int i = 0; i < TUNNEL_KEPT_FDS; i++)
        whole &= fds[i] >= 0;
    if (!whole) {
        log_warn("descriptors of %.*s are not kept: %s", (int)MIN(size, (size_t)TUNNEL_NAME_MAX_BYTES), name,
                 all->n < max ? "some did not come" : "there are too many");
        kept_close(fds);
        return;
    }
    struct kept *k = xnew(struct kept);
    memcpy(k->fds, fds, sizeof k->fds);
    map_put_n(all, name, size, k);
}

void kept_done(struct map *all)
{
    for (struct map_item *it = NULL; (it = map_next(all, it));) {
        kept_close(((struct kept *)it->value)->fds);
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

/* The time that is left for the next answer. */
static bool set_limit(int sock, int64_t until_ns)
{
    int64_t left = (until_ns - clock_mono_ns()) / 1000;
    struct timeval limit = { .tv_sec = left / 1000000, .tv_usec = left % 1000000 };
    return left > 0 && setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0;
}

bool kept_ask(int sock, struct map *ret)
{
    int64_t until_ns = clock_mono_ns() + KEPT_WAIT_MS * MS_NS;
    bool known = false;
    struct sb in;
    struct err e;
    int fds[TUNNEL_KEPT_FDS] = { -1, -1 };
    /* It answers in turn: one that does not know of what is kept, with its status at once. */
    bool ended = kept_send(sock, TUNNEL_KEPT, "", NULL, &e) < 0 || kept_send(sock, TUNNEL_STATUS, "", NULL, &e) < 0;
    sb_init(&in, 1 << 16);
    while (!ended && set_limit(sock, until_ns)) {
        uint8_t buf[256];
        int got[TUNNEL_KEPT_FDS] = { -1, -1 };
        unsigned n_fds = TUNNEL_KEPT_FDS;
        long n = fd_recv_with_fds(sock, buf, sizeof buf, got, &n_fds, &e);
        if (n_fds) { /* a read ends behind what came with descriptors: they are the last frame's that begins in it */
            kept_close(fds);
            memcpy(fds, got, sizeof fds);
        }
        ended = n <= 0;
        if (n > 0)
            sb_add(&in, buf, (size_t)n);
        for (size_t size; !ended && (size = frame_size(&in)); sb_drop_front(&in, size)) {
            ended = known = size == HEAD_BYTES || in.s[4] != TUNNEL_KEPT;
            if (!ended) {
                kept_put(ret, TUNNEL_KEPT_MAX, in.s + HEAD_BYTES, size - HEAD_BYTES, fds);
                memset(fds, 0xff, sizeof fds);
            }
        }
        if (!ended && in.len >= HEAD_BYTES && in.s[4] != TUNNEL_KEPT) /* a status, which may be longer than the buffer */
            ended = known = true;
    }
    kept_close(fds);
    sb_done(&in);
    return known;
}
