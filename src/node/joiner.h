/* A machine asks to be admitted: at each of the addresses in turn, where it is sent on to, and again after a pause that
 * grows and is never the same for two machines, until it is admitted, is refused for what no repetition cures, or its
 * time is over. It needs no daemon: tests/bench/joiners runs thousands of them. */
#ifndef NODE_JOINER_H
#define NODE_JOINER_H

#include <shoal/link.h>
#include <shoal/model/certificate.h>

enum {
    JOIN_LIMIT_MS = 60000,
    JOIN_DEAF_MS = 10000, /* the limit while connections to all addresses are refused: they are likely wrong */
};

struct joiner;
struct joiner_hooks {
    void *arg;
    void (*progress)(void *arg, const char *line); /* it goes on trying; NULL: not asked for */
    /* The end, once. reply: admitted, its content may be taken; NULL: e. The joiner is freed by itself. */
    void (*done)(void *arg, struct join_reply *reply, const struct err *e);
};
/* link_secret: 32 bytes, borrowed until done; req and addrs (HOST:PORT) are copied. done may come before this returns. */
void joiner_start(struct loop *l, const uint8_t *link_secret, const struct join_request *req, const struct strs *addrs,
                  uint64_t seed, const struct joiner_hooks *hooks);

/* How long to wait after so many rounds in vain: half of it is fixed, half by chance. Pure. */
int64_t joiner_wait_ms(unsigned rounds, uint64_t random);

#endif
