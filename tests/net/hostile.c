/* A member that does what it has no right to: hostile ROOT ADDR PORT [hello]. It takes a node's keys and certificate from
 * ROOT, shows them to the node at ADDR, and sends every message there is, well formed and to its advantage. Prints what
 * came of it, a line each: "refused WHY", or "up", "message TYPE" for each that came back, "secrets N" for an assignment,
 * "channel N bytes", "closed WHY". hello: only says HELLO, as the node it is. */
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <stdio.h>
#include <stdlib.h>

#include "node_internal.h"
#include "core.h"

enum { QUIET_MS = 1500 };

static struct identity identity;
static struct membership member;
static struct loop *loop;
static struct loop_timer *quiet;
static struct link *peer;
static struct stream *channel;
static bool only_hello, was_up;
static size_t channel_bytes;

static int verify(void *arg, const uint8_t key[32], const void *payload, size_t size, struct err *e)
{
    (void)arg, (void)key, (void)payload, (void)size, (void)e;
    return 0;
}

static void end(void *arg)
{
    (void)arg;
    printf("channel %zu bytes\n", channel_bytes);
    loop_stop(loop);
}

static void send_rec(uint8_t type, const struct rec *rec, const void *r, const char *head, size_t head_size)
{
    struct sb b;
    sb_init(&b, 0);
    sb_add(&b, head, head_size);
    rec_pack(rec, r, &b);
    if (link_send(peer, type, b.s, b.len) < 0)
        printf("unsent %u\n", type);
    sb_done(&b);
}

static void send_raft(uint8_t type)
{
    struct sb b;
    struct raft_message m = { .type = type, .term = 1000000, .to = 1 };
    sb_init(&b, 0);
    for (uint32_t i = 0; i < member.nodes.n; i++) { /* as if to each manager there is: one of them is the reader */
        m.to = member.nodes.v[i].raft_id;
        sb_reset(&b);
        raft_message_encode(&m, &b);
        if (m.to)
            link_send(peer, MSG_RAFT, b.s, b.len);
    }
    sb_done(&b);
}

static void say_hello(void)
{
    struct session_hello h = { 0 };
    str_set(&h.addr, member.addr);
    for (uint32_t i = 0; i < member.nodes.n; i++)
        if (str_equal(member.nodes.v[i].id, member.certificate->node_id)) {
            node_description_copy(&h.description, &member.nodes.v[i].description);
            h.control_port = member.nodes.v[i].control_port;
            h.gossip_port = member.nodes.v[i].gossip_port;
            h.tunnel_port = member.nodes.v[i].tunnel_port;
        }
    send_rec(MSG_HELLO, &session_hello_rec, &h, "", 0);
    session_hello_clear(&h);
}

static size_t on_channel_data(void *arg, const char *p, size_t size)
{
    (void)arg, (void)p;
    channel_bytes += size;
    return size;
}

static void on_channel_end(void *arg)
{
    (void)arg;
}

static void on_channel_error(void *arg, const struct err *e)
{
    (void)arg;
    printf("channel closed: %s\n", e->text);
}

static void misbehave(void)
{
    static const struct stream_events events = { on_channel_data, NULL, on_channel_end, on_channel_error };
    static const char ask[] = "GET /secrets HTTP/1.1\r\nHost: x\r\n\r\n";
    char lead[27] = "\1";
    struct assignment a = { 0 };
    struct task_report r = { .seq = 1 };
    for (int type = RAFT_MSG_PREVOTE; type <= RAFT_MSG_TIMEOUT_NOW; type++)
        send_raft((uint8_t)type);
    memcpy(lead + 1, member.certificate->node_id, strlen(member.certificate->node_id)); /* I lead, and took your HELLO */
    link_send(peer, MSG_LEADER, lead, 1 + strlen(lead + 1));
    for (uint32_t i = 0; i < member.nodes.n; i++) /* there is only me: all your tasks go */
        if (str_equal(member.nodes.v[i].id, member.certificate->node_id))
            node_copy(REC_ADD(&a.nodes), &member.nodes.v[i]);
    send_rec(MSG_ASSIGNMENT, &assignment_rec, &a, "0123456789abcdef0123456789abcdef", 32);
    struct node_table none = { .index = 1 };
    send_rec(MSG_NODES, &node_table_rec, &none, "", 0);
    link_send(peer, MSG_REPORT_ACK, "\0\0\0\0\0\0\0\1", 8);
    link_send(peer, MSG_LEAVE_OK, "", 0);
    send_rec(MSG_CERTIFICATE, &certificate_rec, member.certificate, "", 0);
    struct task_update *u = REC_ADD(&r.updates);
    str_set(&u->id, getenv("VICTIM_TASK"));
    u->status.state = TASK_FAILED;
    send_rec(MSG_REPORT, &task_report_rec, &r, "", 0);
    struct join_request join = { 0 };
    str_set(&join.token, "SHOAL-1-");
    send_rec(MSG_JOIN, &join_request_rec, &join, "", 0);
    struct join_reply reply = { 0 };
    reply.certificate = xnew(struct certificate);
    certificate_copy(reply.certificate, member.certificate);
    send_rec(MSG_JOIN_REPLY, &join_reply_rec, &reply, "", 0);
    for (unsigned type = 0; type < 256; type += 51)
        if (type > MSG_CERTIFICATE)
            link_send(peer, (uint8_t)type, "x", 1);
    channel = link_channel_open(peer, CHANNEL_API);
    if (channel) {
        stream_set_events(channel, &events, NULL);
        stream_write(channel, ask, sizeof ask - 1);
    }
    assignment_clear(&a);
    task_report_clear(&r);
    join_request_clear(&join);
    join_reply_clear(&reply);
}

static void on_up(void *arg, struct link *l)
{
    (void)arg, (void)l;
    was_up = true;
    puts("up");
    if (only_hello)
        say_hello();
    else
        misbehave();
    loop_timer_set(quiet, QUIET_MS);
}

static void on_message(void *arg, struct link *l, uint8_t type, const void *p, size_t size)
{
    struct assignment a = { 0 };
    struct err e;
    (void)arg, (void)l;
    printf("message %u\n", type);
    if (type == MSG_ASSIGNMENT && size > 32 && rec_unpack(&assignment_rec, &a, (const char *)p + 32, size - 32, &e) == 0)
        printf("secrets %u\ntasks %u\n", a.secrets.n, a.tasks.n);
    assignment_clear(&a);
}

static void on_down(void *arg, struct link *l, const struct err *e)
{
    (void)arg, (void)l;
    printf("%s %s\n", was_up ? "closed" : "refused", e ? e->text : "");
    loop_stop(loop);
}

int main(int argc, char **argv)
{
    static const struct link_events events = { on_up, on_message, NULL, on_down };
    struct err e = { 0 };
    struct sb b;
    uint64_t port;
    if (argc < 4 || !str_u64(argv[3], 1, 65535, &port))
        return 2;
    only_hello = argc > 4;
    crypto_init();
    if (identity_load(argv[1], &identity, &e) < 0 || membership_load(argv[1], &identity, &member, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        return 2;
    }
    loop = loop_new();
    quiet = loop_timer_new(loop, end, NULL);
    sb_init(&b, 0);
    rec_pack(&certificate_rec, member.certificate, &b);
    struct link_config cfg = { .dh_secret = identity.link_secret.v, .payload = b.s, .payload_size = b.len, .verify = verify };
    peer = link_connect(loop, argv[2], (uint16_t)port, &cfg, &events, NULL);
    loop_run(loop);
    stream_free(channel);
    link_free(peer);
    loop_timer_free(quiet);
    loop_finish(loop);
    loop_free(loop);
    rec_clear(&identity_rec, &identity);
    rec_clear(&membership_rec, &member);
    sb_done(&b);
    return 0;
}
