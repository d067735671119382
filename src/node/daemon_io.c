/* `shoal daemon`: flags, folders, the parts in their order, signals. Its end leaves containers and tunnel alone. */
#include "node_internal.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/node.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

LOG_MODULE("daemon");

#define MIN_LIFE_NS (10 * SEC_NS)

const char daemon_usage[] =
    "Usage:  shoal daemon [OPTIONS]\n\n"
    "Runs the node: containers, networks, and its part in a cluster. Containers go on when it ends.\n\n"
    "Options:\n"
    "      --root DIR                      State that survives a reboot (default /var/lib/shoal)\n"
    "      --run DIR                       State until the next reboot (default /run/shoal)\n"
    "      --api unix://PATH               Socket of the Docker Engine API (default RUN/shoal.sock)\n"
    "      --listen ADDR                   Address of the control, gossip and tunnel ports (default: all)\n"
    "      --advertise-addr ADDR           Address or interface by which other nodes reach this one, where it has changed\n"
    "                                      since init or join\n"
    "      --control-port N                TCP, between nodes (default 2377)\n"
    "      --gossip-port N                 UDP (default 7946)\n"
    "      --tunnel-port N                 UDP (default 4789)\n"
    "      --resolv-conf FILE              Name servers that containers' questions go to (default /etc/resolv.conf)\n"
    "      --insecure-registry HOST:PORT   Registry to speak plain HTTP to; repeatable\n"
    "      --registry-mirror [HOST=]URL    Asked before the registry HOST (docker.io); repeatable\n"
    "      --certs-dir DIR                 HOST:PORT/ca.crt, client.cert, client.key (default /etc/shoal/certs.d)\n"
    "      --down-after DURATION_MS        Silence after which a node's tasks move (default 2000)\n"
    "      --restart-wait DURATION_MS      The same while its machine says that only the daemon is gone (default 30000)\n"
    "      --log-level LEVEL               Error, warn, info or debug (default info)\n"
    "      --clean                         Take down what this node left on the machine (containers, networks,\n"
    "                                      tunnel, ROOT and RUN) and end; the node must not run\n\n"
    "Example:\n  shoal daemon --root /srv/a --run /run/a --listen 10.0.0.1\n";

struct flags { const char *root, *run, *api, *listen, *level, *resolv_conf, *advertise, *certs; uint64_t control, gossip, tunnel, down, restart; const char *insecure[65], *mirrors[17]; unsigned n_insecure, n_mirrors; bool clean; };

static int parse(int argc, char **argv, struct flags *f, struct err *e)
{
    for (int i = 1; i < argc; i++) {
        if (str_equal(argv[i], "--clean")) {
            f->clean = true;
            continue;
        }
        char name[64];
        const char *eq = strchr(argv[i], '='), *value = eq ? eq + 1 : i + 1 < argc ? argv[i + 1] : NULL;
        snprintf(name, sizeof name, "%.*s", (int)(eq ? eq - argv[i] : (long)strlen(argv[i])), argv[i]);
        const struct { const char *name; const char **text; uint64_t *number; uint64_t max; } known[] = {
            { "--root", &f->root, NULL, 0 }, { "--run", &f->run, NULL, 0 }, { "--api", &f->api, NULL, 0 },
            { "--listen", &f->listen, NULL, 0 }, { "--log-level", &f->level, NULL, 0 },
            { "--control-port", NULL, &f->control, 65535 }, { "--gossip-port", NULL, &f->gossip, 65535 },
            { "--resolv-conf", &f->resolv_conf, NULL, 0 }, { "--advertise-addr", &f->advertise, NULL, 0 }, { "--tunnel-port", NULL, &f->tunnel, 65535 }, { "--down-after", NULL, &f->down, 3600000 },
            { "--restart-wait", NULL, &f->restart, 3600000 },
            { "--certs-dir", &f->certs, NULL, 0 },
            { "--registry-mirror", f->n_mirrors < 16 ? &f->mirrors[f->n_mirrors] : NULL, NULL, 0 },
            { "--insecure-registry", f->n_insecure < 64 ? &f->insecure[f->n_insecure] : NULL, NULL, 0 },
        };
        unsigned k = 0;
        while (k < ARRAY_N(known) && !str_equal(known[k].name, name))
            k++;
        if (k == ARRAY_N(known))
            return err_set(e, E_INVALID, "unknown argument \"%s\"; see shoal daemon --help", argv[i]);
        if (!value || !*value)
            return err_set(e, E_INVALID, "%s needs a value", name);
        if (known[k].text)
            *known[k].text = value;
        else if (!known[k].number || !str_u64(value, 1, known[k].max, known[k].number))
            return err_set(e, E_INVALID, "%s: \"%s\" is no number from 1 to %llu", name, value, (unsigned long long)known[k].max);
        f->n_insecure += k == ARRAY_N(known) - 1;
        f->n_mirrors += k == ARRAY_N(known) - 2;
        i += !eq;
    }
    return 0;
}

/* ---- what the API borrows ---- */
static struct manager *get_manager(void *arg)
{
    return ((struct daemon *)arg)->manager;
}
static struct agent *get_agent(void *arg)
{
    return ((struct daemon *)arg)->agent;
}
static const char *get_node_id(void *arg)
{
    return daemon_node_id(arg);
}
static const char *get_node_addr(void *arg)
{
    return ((struct daemon *)arg)->member.addr;
}
static struct overlay *get_overlay(void *arg)
{
    return ((struct daemon *)arg)->overlay;
}
static struct executor *get_executor(void *arg)
{
    return ((struct daemon *)arg)->executor;
}
static struct stream *open_node(void *arg, const char *node_id, struct err *e)
{
    struct daemon *d = arg;
    if (!d->peers)
        return err_set(e, E_UNAVAILABLE, "this node is in no cluster"), NULL;
    return peers_open_channel(d->peers, node_id, e);
}
static void do_init(void *arg, const struct node_init *in, node_done_fn *done, void *done_arg)
{
    node_start_init(arg, in, done, done_arg);
}
static void do_join(void *arg, const struct node_join *in, node_done_fn *done, void *done_arg)
{
    node_start_join(arg, in, done, done_arg);
}
static void do_restore(void *arg, struct node_restore *in, node_done_fn *done, void *done_arg)
{
    node_start_restore(arg, in, done, done_arg);
}
static void do_leave(void *arg, bool force, node_done_fn *done, void *done_arg)
{
    node_start_leave(arg, force, done, done_arg);
}

static bool is_locked(void *arg)
{
    return ((struct daemon *)arg)->locked;
}
static int enter_cluster(struct daemon *d, struct err *e);
static void do_unlock(void *arg, const uint8_t key[32], node_done_fn *done, void *done_arg)
{
    struct daemon *d = arg;
    struct err e = { 0 };
    int r = d->locked ? lock_open(d, key, &e) : err_set(&e, E_CONFLICT, "swarm is not locked");
    if (r == 0) {
        d->locked = false;
        r = enter_cluster(d, &e);
        d->locked = r < 0; /* it can be tried again, when the reason is gone */
        if (r < 0)
            rec_clear(&membership_rec, &d->member);
    }
    if (r < 0)
        log_warn("unlock: %s", e.text);
    else
        log_info("unlocked");
    done(done_arg, r < 0 ? &e : NULL);
}

static void on_container(void *arg, const struct container *c)
{
    struct daemon *d = arg;
    if (d->executor)
        executor_container_event(d->executor, c);
    if (d->api)
        api_container_event(d->api, c);
}

static void on_client(void *arg, struct stream *s)
{
    struct daemon *d = arg;
    api_serve(d->api, s);
}

static void on_spawner_gone(void *arg, unsigned events)
{
    struct daemon *d = arg;
    (void)events;
    d->spawner_gone = true;
    loop_stop(d->loop);
}

static void end_loop(void *arg)
{
    loop_stop(((struct daemon *)arg)->loop);
}

/* A second signal ends it at once. */
static void on_term(void *arg)
{
    struct daemon *d = arg;
    if (d->manager && !d->ending) {
        d->ending = true;
        notify_service_manager("STOPPING=1");
        manager_hand_over(d->manager, end_loop, d);
    } else {
        loop_stop(d->loop);
    }
}

/* One daemon a root: two would fight over its containers. */
static int lock_root(const char *root, struct err *e)
{
    AUTO_FREE char *path = path_join(root, "lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, errno, "%s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return err_set(e, E_BUSY, "another shoal daemon uses %s; stop it or give another --root", root);
    }
    return fd;
}

static void mtu_measured(void *arg, unsigned mtu)
{
    struct daemon *d = arg;
    d->mtu = mtu;
    if (d->agent)
        agent_mtu(d->agent, mtu);
}

int daemon_overlay_open(struct daemon *d, struct err *e)
{
    struct overlay_config cfg = { .run_dir = d->cfg.run, .self_exe = d->cfg.self_exe, .listen_addr = d->cfg.listen_addr,
                                  .tunnel_secret = d->identity.tunnel_secret.v, .resolv_conf = d->cfg.resolv_conf,
                                  .control_port = d->cfg.control_port, .gossip_port = d->cfg.gossip_port,
                                  .tunnel_port = d->cfg.tunnel_port, .mtu = mtu_measured, .arg = d };
    return overlay_open(&d->overlay, d->loop, &cfg, e);
}

static int open_machine_parts(struct daemon *d, struct err *e)
{
    AUTO_FREE char *containers = path_join(d->cfg.root, "containers"), *images = path_join(d->cfg.root, "images");
    struct runtime_config rt = { .dir = containers, .cgroup = d->cgroup };
    struct image_store_config is = { .root = images, .insecure = d->cfg.insecure, .mirrors = d->cfg.mirrors,
                                     .certs_dir = d->cfg.certs_dir };
    int r = runtime_open(&d->runtime, d->loop, &rt, on_container, d, e);
    if (r == 0)
        r = image_store_open(&d->images, d->loop, &is, e);
    if (r == 0)
        r = daemon_overlay_open(d, e);
    return r;
}

/* The agent's session tells the managers, they tell everybody. */
static int new_address(struct daemon *d, struct err *e)
{
    char addr[64];
    int r = advertise_address(d->cfg.advertise, addr, e);
    if (r < 0 || str_equal(addr, d->member.addr))
        return r;
    log_info("this node is at %s now, it was at %s", addr, d->member.addr);
    str_set(&d->member.addr, addr);
    return 0;
}

/* As the member it is by what was loaded. */
static int enter_cluster(struct daemon *d, struct err *e)
{
    struct err unsaved;
    int r = d->cfg.advertise ? new_address(d, e) : 0;
    if (r < 0)
        return r;
    d->member.starts++;
    if (member_save(d, &unsaved) < 0) /* the disk may be full: it starts all the same */
        log_warn("%s", unsaved.text);
    return member_start(d, true, e);
}

static int open_parts(struct daemon *d, struct err *e)
{
    int r = open_machine_parts(d, e);
    if (r < 0)
        return r;
    const struct api_backend b = {
        .arg = d, .loop = d->loop, .runtime = d->runtime, .images = d->images, .manager = get_manager, .agent = get_agent,
        .node_id = get_node_id, .node_addr = get_node_addr, .overlay = get_overlay, .executor = get_executor,
        .control_port = d->cfg.control_port, .root_dir = d->cfg.root, .insecure_registries = d->cfg.insecure,
        .open_node = open_node, .init = do_init, .join = do_join, .restore = do_restore, .leave = do_leave,
        .locked = is_locked, .unlock = do_unlock,
    };
    d->api = api_new(&b);
    if (identity_is_sealed(&d->identity)) {
        d->locked = true;
        log_warn("this manager is locked; it enters the cluster when it is given the unlock key: shoal unlock");
        return 0;
    }
    r = membership_load(d->cfg.root, &d->identity, &d->member, e);
    if (r == -E_NOT_FOUND) { /* what a crash in the middle of init or join left */
        membership_remove(d->cfg.root);
        return 0;
    }
    return r == 0 ? enter_cluster(d, e) : r;
}

static void close_parts(struct daemon *d)
{
    api_free(d->api);
    d->api = NULL;
    member_stop(d);
    overlay_close(d->overlay);
    image_store_close(d->images);
    runtime_close(d->runtime);
    loop_timer_free(d->leave_timer);
    loop_timer_free(d->lock_timer);
    crypto_wipe(&d->lock, sizeof d->lock);
    rec_clear(&identity_rec, &d->identity);
    rec_clear(&membership_rec, &d->member);
    sb_done(&d->packed_certificate);
    free(d->cgroup);
    free(d->leave);
}

/* ---- --clean ---- */
struct cleaning { struct loop *loop; uint32_t left; };

static void container_cleaned(void *arg, int result, const struct err *e)
{
    struct cleaning *c = arg;
    if (result < 0)
        log_warn("%s", e->text);
    if (--c->left == 0)
        loop_stop(c->loop);
}

static int clean(struct daemon *d, struct err *e)
{
    struct strs ids = { 0 };
    int r = open_machine_parts(d, e);
    if (r < 0)
        return r;
    for (const struct container *c = NULL; (c = runtime_next(d->runtime, c));)
        strs_add(&ids, c->spec.id);
    struct cleaning cleaning = { d->loop, ids.n };
    for (uint32_t i = 0; i < ids.n; i++)
        runtime_delete(d->runtime, ids.v[i], container_cleaned, &cleaning);
    if (cleaning.left)
        loop_run(d->loop);
    strs_clear(&ids);
    for (const struct sandbox *s = NULL; (s = overlay_sandbox_next(d->overlay, s));)
        strs_add(&ids, s->id);
    for (uint32_t i = 0; i < ids.n; i++)
        overlay_sandbox_remove(d->overlay, ids.v[i]);
    strs_clear(&ids);
    overlay_clear(d->overlay);
    d->overlay = NULL;
    return 0;
}

static char *cgroup_name(const char *root)
{
    uint8_t h[4];
    char hex[9];
    crypto_blake2s(h, sizeof h, root, strlen(root), NULL, 0);
    hex_encode(hex, h, sizeof h);
    return xasprintf("shoal-%s", hex);
}

static int run(struct daemon *d, const char *api_path, bool only_clean, struct err *e)
{
    struct stream_listener *listener = NULL;
    int r = file_mkdirs(d->cfg.root, 0700, e);
    if (r == 0)
        r = file_mkdirs(d->cfg.run, 0700, e);
    if (r < 0)
        return r;
    AUTO_CLOSE int lock = lock_root(d->cfg.root, e);
    if (lock < 0)
        return lock;
    d->cgroup = cgroup_name(d->cfg.root);
    sb_init(&d->packed_certificate, LINK_PAYLOAD_MAX_BYTES);
    d->loop = loop_new();
    r = identity_load(d->cfg.root, &d->identity, e);
    if (r == 0)
        r = only_clean ? clean(d, e) : open_parts(d, e);
    if (r == 0 && !only_clean)
        r = stream_listen_unix(d->loop, api_path, 0600, on_client, d, &listener, e);
    if (r == 0 && !only_clean) {
        struct loop_signal *term = loop_signal_add(d->loop, SIGTERM, on_term, d);
        struct loop_signal *intr = loop_signal_add(d->loop, SIGINT, on_term, d);
        struct loop_fd *spawner = runtime_spawner_watch(d->loop, on_spawner_gone, d);
        log_info("shoal %s serves %s", SHOAL_VERSION, api_path);
        notify_service_manager("READY=1");
        loop_run(d->loop);
        notify_service_manager("STOPPING=1");
        loop_finish(d->loop); /* a removal that runs must not see its paths freed */
        log_info("ends; containers and networks go on");
        loop_fd_remove(spawner);
        loop_signal_remove(term);
        loop_signal_remove(intr);
        stream_listener_free(listener);
    }
    close_parts(d);
    loop_free(d->loop);
    if (r == 0 && only_clean)
        r = file_remove_tree(d->cfg.root, e);
    if (r == 0 && only_clean)
        r = file_remove_tree(d->cfg.run, e);
    return r;
}

static bool is_address(const char *s)
{
    struct in6_addr a;
    return inet_pton(AF_INET, s, &a) == 1 || inet_pton(AF_INET6, s, &a) == 1;
}

static bool is_host_port(const char *s)
{
    const char *colon = strrchr(s, ':');
    uint64_t port;
    return s[strcspn(s, " \t/@")] == '\0' && *s && (!colon || s[0] == '[' || (colon > s && str_u64(colon + 1, 1, 65535, &port)));
}

static bool is_mirror(const char *s)
{
    const char *of = strstr(s, "=http"), *url = of ? of + 1 : s, *host = strstr(url, "://");
    return host && (str_starts(url, "http://") || str_starts(url, "https://")) && host[3] && !strpbrk(host + 3, "/?#@ ") &&
           (!of || of > s);
}

static int check_flags(const struct flags *f, struct err *e)
{
    if (f->level && log_level_from_name(f->level) < 0)
        return err_set(e, E_INVALID, "--log-level: \"%s\" is none of error, warn, info, debug", f->level);
    if (f->root[0] != '/' || f->run[0] != '/')
        return err_set(e, E_INVALID, "--root and --run must be absolute paths");
    if (f->api && !str_starts(f->api, "unix:///"))
        return err_set(e, E_INVALID, "--api: \"%s\" must be like unix:///PATH", f->api);
    if (f->listen && !is_address(f->listen))
        return err_set(e, E_INVALID, "--listen: \"%s\" is no address; give one of this machine's, as in --listen 10.0.0.1",
                       f->listen);
    for (unsigned i = 0; i < f->n_insecure; i++)
        if (!is_host_port(f->insecure[i]))
            return err_set(e, E_INVALID, "--insecure-registry: \"%s\" must be HOST:PORT", f->insecure[i]);
    for (unsigned i = 0; i < f->n_mirrors; i++)
        if (!is_mirror(f->mirrors[i]))
            return err_set(e, E_INVALID, "--registry-mirror: \"%s\" must be [HOST=]https://HOST[:PORT]", f->mirrors[i]);
    return geteuid() ? err_set(e, E_DENIED, "containers and networks need root; run it with sudo") : 0;
}

/* Its spawner was killed. Only a process that has no threads yet may fork another, so the daemon begins anew; its
 * containers do not notice. One that ends as soon as it is started is no accident: better no node than one that
 * refuses every task. */
static int begin_anew(const char *exe, int argc, char **argv, int64_t began_ns)
{
    if (clock_mono_ns() - began_ns < MIN_LIFE_NS) {
        log_error("the spawner ends as soon as it is started, no container can run here");
        return 1;
    }
    log_warn("the spawner was killed; the daemon begins anew");
    char **again = xcalloc((size_t)argc + 2, sizeof *again); /* "shoal", "daemon", its flags, NULL */
    again[0] = (char *)(uintptr_t)exe;
    memcpy(again + 1, argv, (size_t)argc * sizeof *argv);
    execv(exe, again);
    free(again);
    log_error("%s: %s", exe, strerror(errno));
    return 1;
}

/* A link for every node, where a shell allows 1,024 files unless told otherwise. Containers are the spawner's, which has
 * what it was given. */
static void use_files_allowed(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &r) < 0)
            log_warn("the limit of open files stays as it is: %s", strerror(errno));
    }
}

int daemon_main(int argc, char **argv)
{
    static struct daemon d;
    struct flags f = { .root = "/var/lib/shoal", .run = "/run/shoal", .control = 2377, .gossip = 7946, .tunnel = 4789 };
    struct err e = { 0 };
    static char exe[4096];
    int64_t began_ns = clock_mono_ns();
    for (int i = 1; i < argc; i++)
        if (str_equal(argv[i], "--help") || str_equal(argv[i], "-h")) {
            fputs(daemon_usage, stdout);
            return 0;
        }
    int r = parse(argc, argv, &f, &e);
    if (r == 0)
        r = check_flags(&f, &e);
    if (r < 0) {
        fprintf(stderr, "shoal daemon: %s\n", e.text);
        return err_exit_status(r);
    }
    if (f.level)
        log_set_level((enum log_level)log_level_from_name(f.level));
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0 || runtime_spawner_start(&e) < 0) {
        fprintf(stderr, "shoal daemon: %s\n", e.code ? e.text : "cannot find its own program");
        return 1;
    }
    exe[n] = '\0';
    use_files_allowed();
    crypto_init();
    signal(SIGPIPE, SIG_IGN);
    AUTO_FREE char *api = f.api ? xstrdup(f.api + 7) : path_join(f.run, "shoal.sock");
    d.cfg = (struct node_config){
        .root = f.root, .run = f.run, .api_path = api, .listen_addr = f.listen, .self_exe = exe, .resolv_conf = f.resolv_conf, .advertise = f.advertise,
        .control_port = (uint16_t)f.control, .gossip_port = (uint16_t)f.gossip, .tunnel_port = (uint16_t)f.tunnel,
        .insecure = f.insecure, .mirrors = f.mirrors, .certs_dir = f.certs ? f.certs : "/etc/shoal/certs.d", .down_after_ms = (int64_t)f.down, .restart_ms = (int64_t)f.restart,
    };
    r = run(&d, api, f.clean, &e);
    if (r < 0)
        fprintf(stderr, "shoal daemon: %s\n", e.text);
    return r == 0 && d.spawner_gone ? begin_anew(exe, argc, argv, began_ns) : err_exit_status(r);
}
