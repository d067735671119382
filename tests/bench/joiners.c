/* Many machines that join one cluster at once: joiners ADDRESS[,ADDRESS...] TOKEN N PREFIX SECONDS FIRST TOTAL
 * [gossip]. It begins when it reads a line. Each of the N has
 * keys of its own, asks to be admitted (src/node/joiner.c), then links to every manager with its certificate, keeps a
 * session with the leader and takes the node table; with gossip each also runs the production gossip core on a socket of
 * its own. They are the machines from FIRST on out of TOTAL that join (other processes have the rest); machine i is at address
 * i + 1 of PREFIX (two bytes, as 10.88), which must be this host's. Prints a line as soon as all know all (or the time is
 * over), and then stays, so that the managers can be asked, until its input ends:
 *
 *   admitted N last S.S p50 S.S known N last S.S agree N last S.S lines N leaders N failed N bytes N WHY
 *
 * known: it holds a table of all nodes (a few put theirs together as agents do; of the others the count is believed). agree: all of those are alive by its own gossip. leaders: changes that it saw. */
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/base/le.h>
#include <shoal/base/map.h>
#include <shoal/gossip.h>
#include <shoal/manager.h>
#include <shoal/model/format.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "joiner.h"

enum { MANAGERS_MAX = 7, CONTROL_PORT = 2377, GOSSIP_PORT = 7946, HELLO_MS = 5000, AGREE_MS = 50, AGAIN_MS = 200, REAL = 8 };

struct machine;
struct way { /* to one manager */
    struct machine *m;
    char *id, *addr;
    uint16_t port;
    struct link *l;
    bool up;
    struct loop_timer *again;
    int64_t wait_ms;
};
struct machine {
    uint8_t link_secret[32], sign_secret[64], tunnel_secret[32], tunnel_public[32], sign_public[32];
    char addr[16];
    struct certificate cert;
    struct sb packed;
    struct link_config cfg;
    struct way ways[MANAGERS_MAX];
    unsigned n_ways;
    struct loop_timer *hello;
    char *leader;
    bool session;
    uint8_t have[32];
    bool has;
    uint64_t held, table, table_epoch;
    uint32_t n_known, n_told; /* nodes of its table; of those, told to gossip */
    int64_t admitted_ms, known_ms, agreed_ms;
    struct gossip *gossip;
    struct assignment real; /* of the first few: the table, put together as an agent does it */
};

static struct loop *loop;
static struct machine *all;
static uint64_t n_machines;
static uint32_t n_expected; /* with the managers */
static int64_t began_ms;
static bool with_gossip;
static struct loop_timer *look_timer;
static unsigned n_lines, n_leaders, n_failed, n_suspected;
static uint64_t n_bytes;
static char why[256];
static struct strs targets;
static const char *token;

/* The node table, decoded once for all: what one machine is sent, the others are sent too. In order of creation, so that
 * who holds n of them holds the first n. */
static struct node *table;
static uint32_t n_table;
static struct map table_ids;
static struct gossip_key_ref keys[GOSSIP_KEYS_MAX];
static unsigned n_keys;

static void die(const char *text)
{
    fprintf(stderr, "joiners: %s\n", text);
    exit(1);
}

static void table_add(const struct node *n)
{
    if (map_find(&table_ids, n->id))
        return;
    node_copy(&table[n_table++], n);
    map_put(&table_ids, n->id, table);
}

/* ---- sessions ---- */
static void tell_gossip(struct machine *m)
{
    for (; m->gossip && m->n_told < m->n_known; m->n_told++) {
        const struct node *n = &table[m->n_told];
        if (n->status.addr && n->gossip_port && n->sign_key.n == 32 && n->link_key.n == 32)
            gossip_member(m->gossip, n->id, n->status.addr, (uint16_t)n->gossip_port, n->sign_key.v, n->link_key.v);
    }
}

static void knows(struct machine *m, uint32_t n)
{
    m->n_known = n;
    if (n >= n_expected && !m->known_ms)
        m->known_ms = loop_now_ms(loop);
    tell_gossip(m);
}

static struct way *way_to(struct machine *m, const char *id)
{
    for (unsigned i = 0; i < m->n_ways; i++)
        if (str_equal(m->ways[i].id, id))
            return &m->ways[i];
    return NULL;
}

static void say_hello(struct machine *m)
{
    struct sb b;
    struct way *w = m->leader ? way_to(m, m->leader) : NULL;
    for (unsigned i = 0; i < m->n_ways && !w; i++)
        if (m->ways[i].up)
            w = &m->ways[i];
    if (!w || !w->up)
        return;
    struct session_hello h = { .addr = m->addr, .control_port = CONTROL_PORT, .gossip_port = GOSSIP_PORT, .tunnel_port = 4789,
                               .not_after = m->cert.not_after, .epoch = m->cert.epoch, .ca = m->cert.ca_public,
                               .formats = { FORMAT_LEAST, FORMAT_MOST, 1 }, .held = m->held, .in_force = m->held, .tells = true,
                               .tables = true, .table = m->table, .table_epoch = m->table_epoch };
    h.have = (struct bytes){ m->has ? m->have : NULL, m->has ? 32 : 0 };
    str_set(&h.description.hostname, m->addr);
    sb_init(&b, 0);
    rec_pack(&session_hello_rec, &h, &b);
    link_send(w->l, MSG_HELLO, b.s, b.len);
    sb_done(&b);
    free(h.description.hostname);
}

static void on_hello(void *arg)
{
    struct machine *m = arg;
    say_hello(m);
    loop_timer_set(m->hello, m->session ? HELLO_MS : AGAIN_MS);
}

static void got_leader(struct machine *m, const char *from, const uint8_t *p, size_t size)
{
    char id[26] = "";
    if (size < 1 || size > 26)
        return;
    memcpy(id, p + 1, size - 1);
    n_leaders += m->leader && id[0] && !str_equal(id, m->leader);
    str_set(&m->leader, id[0] ? id : NULL);
    m->session = p[0] == 1 && str_equal(id, from);
    loop_timer_set(m->hello, m->session ? HELLO_MS : id[0] ? 5 : AGAIN_MS);
}

static void in_force(struct way *w, uint64_t index)
{
    uint8_t p[8];
    struct machine *m = w->m;
    m->held = MAX(m->held, index);
    le_put(p, m->held, 8);
    link_send(w->l, MSG_IN_FORCE, p, 8);
}

static uint32_t merge(struct machine *m, const uint8_t *p, size_t size)
{
    struct node_table t = { 0 };
    struct err e;
    if (rec_unpack(&node_table_rec, &t, p, size, &e) < 0 || node_table_merge(&m->real, m->table, &t, &e) < 0)
        die(e.text);
    node_table_clear(&t);
    return m->real.nodes.n;
}

static void got_nodes(struct way *w, const uint8_t *p, size_t size)
{
    /* What is sent to one is sent to many: it is read once. The head tells them apart: since, index, epoch, count. */
    enum { KEPT = 16, HEAD = 40 };
    static struct { uint8_t head[HEAD]; size_t size; uint64_t since, index, epoch; uint32_t count; } kept[KEPT];
    static unsigned next;
    struct machine *m = w->m;
    struct err e;
    unsigned i = 0;
    while (i < KEPT && (kept[i].size != size || memcmp(kept[i].head, p, MIN(size, (size_t)HEAD)) != 0))
        i++;
    if (i == KEPT) {
        struct node_table t = { 0 };
        if (rec_unpack(&node_table_rec, &t, p, size, &e) < 0)
            die(e.text);
        i = next++ % KEPT;
        memcpy(kept[i].head, p, MIN(size, (size_t)HEAD));
        kept[i].size = size;
        kept[i].since = t.since;
        kept[i].index = t.index;
        kept[i].epoch = t.epoch;
        kept[i].count = (uint32_t)t.count;
        for (uint32_t k = 0; k < t.nodes.n; k++)
            table_add(&t.nodes.v[k]);
        node_table_clear(&t);
    }
    if (kept[i].since > m->table) {
        n_failed++;
        snprintf(why, sizeof why, "a table that does not fit");
        m->table = 0;
        say_hello(m);
        return;
    }
    uint32_t count = m - all < REAL ? merge(m, p, size) : kept[i].count;
    m->table = kept[i].index;
    m->table_epoch = kept[i].epoch;
    knows(m, count);
}

static void got_assignment(struct way *w, const uint8_t *p, size_t size)
{
    static uint8_t last[32]; /* many get the same: it is read once */
    static uint32_t last_n;
    static uint64_t last_index;
    struct machine *m = w->m;
    struct err e;
    if (size < 32)
        return;
    if (memcmp(last, p, 32) != 0) {
        struct assignment a = { 0 };
        if (rec_unpack(&assignment_rec, &a, (const char *)p + 32, size - 32, &e) < 0)
            die(e.text);
        memcpy(last, p, 32);
        last_n = a.nodes.n;
        last_index = a.index;
        for (uint32_t i = 0; i < a.nodes.n; i++)
            table_add(&a.nodes.v[i]);
        assignment_clear(&a);
    }
    memcpy(m->have, p, 32);
    m->has = true;
    if (last_n)
        knows(m, last_n);
    in_force(w, last_index);
}

static void on_up(void *arg, struct link *l)
{
    struct way *w = arg;
    (void)l;
    w->up = true;
    if (!w->m->session)
        loop_timer_set(w->m->hello, 0);
}

static void on_message(void *arg, struct link *l, uint8_t type, const void *p, size_t size)
{
    struct way *w = arg;
    (void)l;
    n_bytes += size;
    if (type == MSG_LEADER)
        got_leader(w->m, w->id, p, size);
    else if (type == MSG_ASSIGNMENT)
        got_assignment(w, p, size);
    else if (type == MSG_NODES)
        got_nodes(w, p, size);
}

static void connect_way(struct way *w);

static void reconnect(void *arg)
{
    connect_way(arg);
}

static void on_down(void *arg, struct link *l, const struct err *e)
{
    struct way *w = arg;
    n_failed++;
    if (!why[0])
        snprintf(why, sizeof why, "link: %s", e ? e->text : "closed");
    w->up = false;
    link_free(l);
    w->l = NULL;
    if (!w->again)
        w->again = loop_timer_new(loop, reconnect, w);
    w->wait_ms = MIN(MAX(w->wait_ms * 2, INT64_C(50)), INT64_C(1000)); /* as peers.c */
    loop_timer_set(w->again, w->wait_ms);
}

static int on_verify(void *arg, const uint8_t key[32], const void *payload, size_t size, struct err *e)
{
    struct certificate c = { 0 };
    (void)arg;
    int r = rec_unpack(&certificate_rec, &c, payload, size, e);
    if (r == 0)
        r = certificate_verify(&c, c.ca_public.v, key, e);
    certificate_clear(&c);
    return r;
}

static void connect_way(struct way *w)
{
    static const struct link_events events = { on_up, on_message, NULL, on_down };
    w->l = link_connect(loop, w->addr, w->port, &w->m->cfg, &events, w);
}

/* ---- joining ---- */
static void on_line(void *arg, const char *line)
{
    (void)arg;
    if (!n_lines++)
        fprintf(stderr, "joiners: %s\n", line);
}

static void on_state(void *arg, const char *id, enum gossip_state s)
{
    (void)arg, (void)id;
    n_suspected += s == GOSSIP_SUSPECT;
}

static void open_gossip(struct machine *m)
{
    struct err e;
    struct gossip_hooks hooks = { .arg = m, .state = on_state };
    struct gossip_config cfg = { .node_id = m->cert.node_id, .listen_addr = m->addr, .addr = m->addr, .port = GOSSIP_PORT,
                                 .incarnation = (uint64_t)(clock_real_ns() / MS_NS), .sign_secret = m->sign_secret,
                                 .link_secret = m->link_secret };
    if (gossip_open(&m->gossip, loop, &cfg, keys, n_keys, &hooks, (uint64_t)(m - all), &e) < 0)
        die(e.text);
}

static void on_done(void *arg, struct join_reply *reply, const struct err *e)
{
    struct machine *m = arg;
    if (!reply) {
        n_failed++;
        snprintf(why, sizeof why, "%s", e->text);
        return;
    }
    m->admitted_ms = loop_now_ms(loop);
    certificate_copy(&m->cert, reply->certificate);
    sb_init(&m->packed, 0);
    rec_pack(&certificate_rec, &m->cert, &m->packed);
    m->cfg = (struct link_config){ .dh_secret = m->link_secret, .payload = m->packed.s, .payload_size = m->packed.len,
                                   .verify = on_verify, .arg = m, .handshake_ms = 30000, .dead_ms = 30000 };
    for (uint32_t i = 0; !n_keys && i < reply->gossip_keys.n; i++) {
        keys[n_keys].id = reply->gossip_keys.v[i].id;
        memcpy(keys[n_keys++].key, reply->gossip_keys.v[i].key.v, 32);
    }
    if (with_gossip)
        open_gossip(m);
    for (uint32_t i = 0; i < reply->nodes.n; i++) {
        const struct node *n = &reply->nodes.v[i];
        if (n->spec.role != ROLE_MANAGER || m->n_ways == MANAGERS_MAX)
            continue;
        struct way *w = &m->ways[m->n_ways++];
        *w = (struct way){ .m = m, .id = xstrdup(n->id), .addr = xstrdup(n->status.addr), .port = (uint16_t)n->control_port };
        connect_way(w);
    }
}

static void make(struct machine *m, uint64_t i, const char *prefix)
{
    crypto_random(m->link_secret, 32);
    crypto_random(m->tunnel_secret, 32);
    crypto_sign_keypair(m->sign_public, m->sign_secret);
    crypto_dh_public(m->tunnel_public, m->tunnel_secret);
    snprintf(m->addr, sizeof m->addr, "%s.%u.%u", prefix, (unsigned)((i + 1) / 250), (unsigned)((i + 1) % 250 + 1));
    m->hello = loop_timer_new(loop, on_hello, m);
}

static void join(struct machine *m)
{
    static const struct joiner_hooks hooks = { .progress = on_line, .done = on_done };
    struct joiner_hooks h = hooks;
    uint64_t seed;
    h.arg = m;
    struct join_request req = { .token = (char *)(uintptr_t)token, .addr = m->addr, .control_port = CONTROL_PORT, .gossip_port = GOSSIP_PORT,
                                .tunnel_port = 4789, .never_manager = true, .formats = { .least = FORMAT_LEAST, .most = FORMAT_MOST } };
    bytes_set(&req.sign_key, m->sign_public, 32);
    bytes_set(&req.tunnel_key, m->tunnel_public, 32);
    str_set(&req.description.hostname, m->addr);
    crypto_random(&seed, sizeof seed);
    joiner_start(loop, m->link_secret, &req, &targets, seed, &h);
    req.token = req.addr = NULL;
    join_request_clear(&req);
}

/* ---- the figures ---- */
static bool agrees(struct machine *m)
{
    struct gossip_stats s;
    if (m->agreed_ms || !m->gossip || !m->known_ms)
        return m->agreed_ms != 0;
    gossip_stats(m->gossip, &s);
    if (s.n_alive + 1 >= n_expected)
        m->agreed_ms = loop_now_ms(loop);
    return m->agreed_ms != 0;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void figure(const char *name, size_t at)
{
    int64_t *v = xcalloc(n_machines, sizeof *v);
    unsigned n = 0;
    for (uint64_t i = 0; i < n_machines; i++) {
        int64_t when = *(const int64_t *)(const void *)((const char *)&all[i] + at);
        if (when)
            v[n++] = when - began_ms;
    }
    qsort(v, n, sizeof *v, compare);
    printf("%s %u last %.2f p50 %.2f ", name, n, n ? (double)v[n - 1] / 1000 : 0, n ? (double)v[n / 2] / 1000 : 0);
    free(v);
}

static void report(void)
{
    figure("admitted", offsetof(struct machine, admitted_ms));
    figure("known", offsetof(struct machine, known_ms));
    if (with_gossip)
        figure("agree", offsetof(struct machine, agreed_ms));
    printf("lines %u leaders %u failed %u suspected %u mb %llu why %s\n", n_lines, n_leaders, n_failed, n_suspected,
           (unsigned long long)(n_bytes >> 20), why[0] ? why : "-");
    fflush(stdout);
}

static int64_t until_ms;
static bool reported;

static void look(void *arg)
{
    uint64_t n = 0;
    (void)arg;
    for (uint64_t i = 0; i < n_machines; i++)
        n += with_gossip ? agrees(&all[i]) : all[i].known_ms != 0;
    if (!reported && (n == n_machines || loop_now_ms(loop) >= until_ms)) {
        reported = true;
        report();
    }
    if (!reported)
        loop_timer_set(look_timer, AGREE_MS);
}

static void on_input(void *arg, unsigned events)
{
    char c;
    (void)events;
    if (read(0, &c, 1) <= 0)
        exit(0);
    if (began_ms)
        return;
    began_ms = loop_now_ms(loop);
    until_ms = began_ms + *(const int64_t *)arg * 1000;
    for (uint64_t i = 0; i < n_machines; i++)
        join(&all[i]);
    look(NULL);
}

int main(int argc, char **argv)
{
    uint64_t seconds, first, total;
    struct rlimit files;
    if (argc < 8 || !str_u64(argv[3], 1, 20000, &n_machines) || !str_u64(argv[5], 1, 3600, &seconds) ||
        !str_u64(argv[6], 0, 20000, &first) || !str_u64(argv[7], 1, 20000, &total))
        die("usage: joiners ADDRESS[,ADDRESS...] TOKEN N PREFIX SECONDS FIRST TOTAL [gossip]");
    with_gossip = argc > 8;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    crypto_init();
    loop = loop_new();
    token = argv[2];
    for (char *at = argv[1], *comma; at; at = comma ? comma + 1 : NULL) {
        comma = strchr(at, ',');
        if (comma)
            *comma = '\0';
        strs_add(&targets, at);
    }
    n_expected = (uint32_t)total + targets.n;
    all = xcalloc(n_machines, sizeof *all);
    table = xcalloc(total + 100, sizeof *table);
    map_init(&table_ids);
    for (uint64_t i = 0; i < n_machines; i++)
        make(&all[i], first + i, argv[4]);
    look_timer = loop_timer_new(loop, look, NULL);
    int64_t limit_s = (int64_t)seconds;
    loop_fd_add(loop, 0, LOOP_READ, on_input, &limit_s);
    printf("made\n");
    fflush(stdout);
    loop_run(loop);
    return 0;
}
