/* Plays the daemon towards a `shoal tunnel` process, for tests/run.d/40-tunnel:
 *   tunnel_driver keys                                     prints "SECRET PUBLIC" in hex
 *   tunnel_driver config SOCKET SECRET PSK ADDR PORT VNI TAP [peer PUBLIC ENDPOINT PORT ADDR] [route ADDR VIA] ...
 *       makes TAP (not when it is "-"; without vnet header when TAP_PLAIN is set), hands it and the configuration over, waits until the process holds it
 *   tunnel_driver status SOCKET                            prints the process's answer as JSON
 *   tunnel_driver quit SOCKET                              waits until the process has closed the socket
 * Addresses are dotted; keys and PSK are 64 hex digits. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/tunnel.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void die(const char *what) __attribute__((noreturn));
static void die(const char *what)
{
    fprintf(stderr, "tunnel_driver: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_socket(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        die(path);
    return fd;
}

static void send_message(int fd, enum tunnel_message type, const void *p, size_t size, int tap)
{
    uint8_t head[5] = { 0 };
    struct err e;
    for (int i = 0; i < 4; i++)
        head[i] = (uint8_t)((size + 1) >> (24 - 8 * i));
    head[4] = (uint8_t)type;
    if (fd_send_with_fds(fd, head, sizeof head, &tap, tap >= 0, &e) < 0 || fd_write_all(fd, p, size, &e) < 0) {
        fprintf(stderr, "tunnel_driver: %s\n", e.text);
        exit(1);
    }
}

static void read_all(int fd, void *p, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = read(fd, (char *)p + at, size - at);
        if (n <= 0)
            die("the tunnel closed the socket");
        at += (size_t)n;
    }
}

static void get_status(int fd, struct tunnel_status *ret)
{
    uint8_t head[5];
    struct err e;
    send_message(fd, TUNNEL_STATUS, "", 0, -1);
    read_all(fd, head, sizeof head);
    uint32_t size = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
    if (head[4] != TUNNEL_REPLY || size < 1 || size > TUNNEL_FRAME_MAX_BYTES) {
        fprintf(stderr, "tunnel_driver: bad reply\n");
        exit(1);
    }
    AUTO_FREE uint8_t *body = xcalloc(size, 1);
    read_all(fd, body, size - 1);
    if (rec_unpack(&tunnel_status_rec, ret, body, size - 1, &e) < 0) {
        fprintf(stderr, "tunnel_driver: reply: %s\n", e.text);
        exit(1);
    }
}

static int open_tap(const char *name)
{
    const char *plain = getenv("TAP_PLAIN");
    struct ifreq r = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (plain && *plain ? 0 : IFF_VNET_HDR)) };
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0)
        die(name);
    return fd;
}

static struct bytes key_from(const char *hex)
{
    struct bytes b = { xcalloc(32, 1), 32 };
    if (!hex_decode(b.v, 32, hex))
        die("a key is 64 hex digits");
    return b;
}

static uint32_t addr_from(const char *text)
{
    struct in_addr a;
    if (inet_pton(AF_INET, text, &a) != 1)
        die(text);
    return ntohl(a.s_addr);
}

static uint64_t number_from(const char *text)
{
    uint64_t n = 0;
    if (!str_u64(text, 0, 16777215, &n))
        die(text);
    return n;
}

static int configure(int argc, char **argv)
{
    if (argc < 9)
        die("config: arguments are missing");
    int fd = open_socket(argv[2]);
    struct tunnel_config c = { .key = key_from(argv[3]), .psk = key_from(argv[4]), .addr = addr_from(argv[5]),
                               .port = number_from(argv[6]) };
    struct tunnel_network *net = REC_ADD(&c.networks);
    net->vni = number_from(argv[7]);
    int i = 9;
    while (i < argc) {
        if (!strcmp(argv[i], "peer") && i + 4 < argc) {
            struct tunnel_peer *p = REC_ADD(&c.peers);
            p->key = key_from(argv[i + 1]);
            str_set(&p->endpoint, argv[i + 2]);
            p->port = number_from(argv[i + 3]);
            p->addr = addr_from(argv[i + 4]);
            i += 5;
        } else if (!strcmp(argv[i], "route") && i + 2 < argc) {
            struct tunnel_route *r = REC_ADD(&net->routes);
            r->addr = addr_from(argv[i + 1]);
            r->via = addr_from(argv[i + 2]);
            i += 3;
        } else {
            errno = EINVAL;
            die(argv[i]);
        }
    }
    struct sb b;
    sb_init(&b, 0);
    rec_pack(&tunnel_config_rec, &c, &b);
    send_message(fd, TUNNEL_CONFIG, b.s, b.len, -1);
    if (strcmp(argv[8], "-") != 0) {
        const uint8_t vni[4] = { 0, (uint8_t)(net->vni >> 16), (uint8_t)(net->vni >> 8), (uint8_t)net->vni };
        int tap = open_tap(argv[8]);
        send_message(fd, TUNNEL_TAP, vni, sizeof vni, tap);
        close(tap);
    }
    struct tunnel_status s = { 0 };
    get_status(fd, &s);
    if (s.peers.n != c.peers.n || s.taps.n != 1 || s.taps.v[0].vni != net->vni) {
        fprintf(stderr, "tunnel_driver: the tunnel holds %u peers and %u TAPs\n", s.peers.n, s.taps.n);
        return 1;
    }
    tunnel_status_clear(&s);
    tunnel_config_clear(&c);
    sb_done(&b);
    close(fd);
    return 0;
}

static int print_status(const char *path)
{
    int fd = open_socket(path);
    struct tunnel_status s = { 0 };
    struct sb b;
    sb_init(&b, 0);
    get_status(fd, &s);
    rec_to_json(&tunnel_status_rec, &s, &b);
    printf("%s\n", b.s);
    sb_done(&b);
    tunnel_status_clear(&s);
    close(fd);
    return 0;
}

static int print_keys(void)
{
    uint8_t secret[32], public_key[32];
    char s[65], p[65];
    crypto_dh_keypair(public_key, secret);
    hex_encode(s, secret, 32);
    hex_encode(p, public_key, 32);
    printf("%s %s\n", s, p);
    return 0;
}

static int quit(const char *path)
{
    char c;
    int fd = open_socket(path);
    send_message(fd, TUNNEL_QUIT, "", 0, -1);
    while (read(fd, &c, 1) > 0)
        ;
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    crypto_init();
    if (argc == 2 && !strcmp(argv[1], "keys"))
        return print_keys();
    if (argc > 2 && !strcmp(argv[1], "config"))
        return configure(argc, argv);
    if (argc == 3 && !strcmp(argv[1], "status"))
        return print_status(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "quit"))
        return quit(argv[2]);
    fprintf(stderr, "usage: tunnel_driver keys | config ... | status SOCKET | quit SOCKET (see its source)\n");
    return 2;
}
