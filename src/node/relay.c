/* Raft between managers by other ways than their link. Heartbeats and votes also go as datagrams, through the gossip
 * socket: one lost TCP segment delays what is behind it by 200 ms and more, and a big write delays it by its length, both
 * longer than an election waits. And when a link is silent, messages go through a third manager that reaches both ends,
 * so that one cut link is a detour and not half a partition (consensus.md 1.2 no. 15).
 *
 * Both are sealed end to end, with a key of the two nodes' link keys: whoever carries an envelope can neither read nor
 * make one. Numbers only rise, also over starts and whatever the clock says, so an old envelope is not heard twice; Raft
 * itself takes old and doubled messages. An envelope names the Raft id it speaks for: this manager's table may be so old
 * that it has the sender under the id of an earlier office. */
#include "node_internal.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/le.h>

LOG_MODULE("relay");

enum { ID = 25, NONCE = 24, TAG = 16, NUMBER = 8, RAFT_ID = 8, PLAIN = NUMBER + RAFT_ID, HEAD = 1 + 2 * ID,
       DATAGRAM_MAX_BYTES = 1200, START_BITS = 40 };
#define FIRST_NUMBER (UINT64_C(1) << 62) /* above the nanoseconds since 1970 that were the numbers at first */

struct pair { /* this node and another manager */
    uint8_t link_key[32], key[32];
    uint64_t heard[RELAY_WAYS]; /* highest number of each way */
};
struct relay {
    struct daemon *d;
    struct map pairs; /* node id -> struct pair */
    uint64_t number;
};

struct relay *relay_new(struct daemon *d)
{
    struct relay *r = xnew(struct relay);
    r->d = d;
    r->number = FIRST_NUMBER + (d->member.starts << START_BITS);
    map_init(&r->pairs);
    return r;
}

void relay_free(struct relay *r)
{
    if (!r)
        return;
    for (struct map_item *it = NULL; (it = map_next(&r->pairs, it));) {
        crypto_wipe(it->value, sizeof(struct pair));
        free(it->value);
    }
    map_done(&r->pairs);
    free(r);
}

static const struct node *manager_node(const struct daemon *d, const char *id)
{
    const struct node *n = d->manager ? store_find(manager_store(d->manager), TABLE_NODE, id) : NULL;
    for (uint32_t i = 0; !n && i < d->member.nodes.n; i++) /* one that was just admitted has no table yet */
        if (str_equal(d->member.nodes.v[i].id, id))
            n = &d->member.nodes.v[i];
    return n && n->spec.role == ROLE_MANAGER && n->raft_id && n->link_key.n == 32 ? n : NULL;
}

/* NULL: their keys give no secret. */
static struct pair *pair_with(struct relay *r, const struct node *n)
{
    struct pair *p = map_find(&r->pairs, n->id);
    if (p && memcmp(p->link_key, n->link_key.v, 32) == 0)
        return p;
    uint8_t shared[32];
    static const char label[] = "shoal raft between two managers";
    const char *cluster = r->d->member.certificate->cluster_id;
    if (!crypto_dh(shared, r->d->identity.link_secret.v, n->link_key.v))
        return NULL;
    if (!p) {
        p = xnew(struct pair);
        map_put(&r->pairs, n->id, p);
    }
    memset(p, 0, sizeof *p);
    memcpy(p->link_key, n->link_key.v, 32);
    struct blake2s b;
    blake2s_init(&b, 32, shared, 32);
    blake2s_add(&b, label, sizeof label);
    blake2s_add(&b, cluster, strlen(cluster));
    blake2s_end(&b, p->key);
    crypto_wipe(shared, sizeof shared);
    return p;
}

static const struct node *seal(struct relay *r, enum relay_way way, const char *to, const void *p, size_t size, struct sb *out)
{
    const struct node *n = manager_node(r->d, to);
    struct pair *pair = n ? pair_with(r, n) : NULL;
    const char *self = daemon_node_id(r->d);
    if (!pair || strlen(to) != ID || !self || strlen(self) != ID)
        return NULL;
    r->number++;
    AUTO_FREE uint8_t *plain = xcalloc(1, PLAIN + size), *sealed = xcalloc(1, PLAIN + size + TAG);
    uint8_t nonce[NONCE];
    le_put(plain, r->number, NUMBER);
    le_put(plain + NUMBER, r->d->member.certificate->raft_id, RAFT_ID);
    memcpy(plain + PLAIN, p, size);
    crypto_random(nonce, sizeof nonce);
    sb_char(out, (char)way);
    sb_add(out, self, ID);
    sb_add(out, to, ID);
    crypto_xaead_seal(sealed, plain, PLAIN + size, out->s, HEAD, nonce, pair->key);
    sb_add(out, nonce, NONCE);
    sb_add(out, sealed, PLAIN + size + TAG);
    crypto_wipe(plain, PLAIN + size);
    return n;
}

bool relay_datagram(struct relay *r, const char *to, const void *p, size_t size)
{
    AUTO_SB struct sb b;
    sb_init(&b, DATAGRAM_MAX_BYTES);
    if (!r->d->gossip || size > DATAGRAM_MAX_BYTES - HEAD - NONCE - PLAIN - TAG)
        return false;
    const struct node *n = seal(r, RELAY_DATAGRAM, to, p, size, &b);
    const char *addr = gossip_address_of(r->d->gossip, to); /* as it says itself */
    if (n && !addr)
        addr = n->status.addr;
    return n && addr && n->gossip_port && gossip_send_datagram(r->d->gossip, addr, (uint16_t)n->gossip_port, b.s, b.len);
}

bool relay_envelope(struct relay *r, const char *to, const void *p, size_t size, struct sb *out)
{
    return seal(r, RELAY_THROUGH, to, p, size, out) != NULL;
}

bool relay_names(const void *p, size_t size, char from[26], char to[26])
{
    const char *c = p;
    if (size < HEAD + NONCE + PLAIN + TAG || (c[0] != RELAY_DATAGRAM && c[0] != RELAY_THROUGH))
        return false;
    memcpy(from, c + 1, ID);
    memcpy(to, c + 1 + ID, ID);
    from[ID] = to[ID] = '\0';
    return strlen(from) == ID && strlen(to) == ID;
}

bool relay_receive(struct relay *r, enum relay_way way, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    char from[26], to[26];
    struct daemon *d = r->d;
    if (!d->manager || !relay_names(p, size, from, to) || p[0] != way || !str_equal(to, daemon_node_id(d)))
        return false;
    const struct node *n = manager_node(d, from);
    struct pair *pair = n ? pair_with(r, n) : NULL;
    size_t sealed = size - HEAD - NONCE;
    AUTO_FREE uint8_t *plain = pair ? try_calloc(1, sealed) : NULL;
    if (!plain || !crypto_xaead_open(plain, p + HEAD + NONCE, sealed, p, HEAD, p + HEAD, pair->key))
        return false;
    uint64_t number = le_get(plain, NUMBER);
    if (number > pair->heard[way]) {
        pair->heard[way] = number;
        if (le_get(plain + NUMBER, RAFT_ID) == n->raft_id)
            manager_got_raft(d->manager, n->raft_id, plain + PLAIN, sealed - TAG - PLAIN);
    }
    crypto_wipe(plain, sealed);
    return true;
}
