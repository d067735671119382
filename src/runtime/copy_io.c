/* The daemon's side of copying: a stream to a process that the spawner forks for one request. */
#include "box_internal.h"
#include <errno.h>
#include <shoal/base/file.h>
#include <sys/socket.h>
#include <unistd.h>

struct stream *runtime_copy(struct runtime *rt, const char *id, const struct copy_request *q, struct err *e)
{
    int pair[2];
    AUTO_SB struct sb p = { 0 };
    struct copy_request full = { 0 };
    struct box *b = box_find(rt, id);
    if (!b || b->dying)
        return err_set(e, E_NOT_FOUND, "no such container: %.64s", id), NULL;
    if (q->op != COPY_CHANGES && (b->created || b->restarted))
        return err_set(e, E_CONFLICT, "container %.12s is just being made; try again", id), NULL;
    if (q->path && strlen(q->path) >= 4096)
        return err_set(e, E_INVALID, "the path is longer than 4095 bytes"), NULL;
    copy_request_copy(&full, q);
    str_set(&full.dir, b->c.dir);
    full.pid = b->c.state.phase == CONTAINER_EXITED ? 0 : (uint64_t)b->c.state.pid;
    full.start_id = b->c.state.start_id;
    sb_init(&p, COPY_REQUEST_MAX_BYTES);
    sb_char(&p, COPY_REQUEST_BYTE);
    rec_pack(&copy_request_rec, &full, &p);
    copy_request_clear(&full);
    if (p.overflow)
        return err_set(e, E_TOO_BIG, "the path is too long"), NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_errno(e, errno, "copy"), NULL;
    int r = q->op == COPY_IN ? 0 : fd_write_all(pair[0], "", 1, e); /* unread, it breaks the stream when the process dies */
    if (r == 0)
        r = fd_send_with_fds(spawner_socket(), p.s, p.len, &pair[1], 1, e);
    close(pair[1]);
    if (r < 0) {
        close(pair[0]);
        err_wrap(e, "spawner");
        return NULL;
    }
    return stream_from_fd(rt->loop, pair[0]);
}
