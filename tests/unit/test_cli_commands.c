/* Whole commands against a small daemon with canned answers (a child process): what they send, what they
 * print, which exit status they end with. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/cli/cli.h"
#include <shoal/base/crypto.h>
#include <shoal/base/file.h>
#include <shoal/http.h>
#include <shoal/stack.h>
#include <dirent.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static char dir[] = "/tmp/test_cli_XXXXXX";
static char *sock, *logfile;
static pid_t server;

/* ---- the daemon ---- */
static const struct canned { const char *method, *target; int status; const char *body; } canned[] = {
#define SVC "{\"ID\":\"svc1\",\"Version\":{\"Index\":7},\"CreatedAt\":\"2026-01-01T00:00:00Z\",\"Spec\":{\"Name\":\"shop_web\","  \
            "\"Labels\":{\"com.docker.stack.namespace\":\"shop\"},\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":"           \
            "\"web:1@sha256:aa\"},\"ForceUpdate\":2},\"Mode\":{\"Replicated\":{\"Replicas\":2}},\"UpdateConfig\":{"          \
            "\"Parallelism\":1,\"Monitor\":1,\"MaxFailureRatio\":0.0}},\"Endpoint\":{\"Ports\":[{\"Protocol\":\"tcp\","      \
            "\"TargetPort\":80,\"PublishedPort\":8080,\"PublishMode\":\"ingress\"}]},"                                      \
            "\"ServiceStatus\":{\"RunningTasks\":2,\"DesiredTasks\":2}}"
#define RUNNING(slot) "{\"ID\":\"task" slot "\",\"ServiceID\":\"svc1\",\"Slot\":" slot ",\"NodeID\":\"n1\",\"DesiredState\":"   \
            "\"running\",\"CreatedAt\":\"2026-01-01T00:0" slot ":00Z\",\"Spec\":{\"ContainerSpec\":{\"Image\":\"web:1\"}},"    \
            "\"Status\":{\"State\":\"running\",\"Timestamp\":\"2026-01-01T00:00:00Z\"}}"
    { "POST", "/v1.41/swarm/init", 200, "\"n1\"" },
    { "POST", "/v1.41/swarm/leave", 503, "{\"message\":\"a manager leaves only with force\"}" },
    { "GET", "/v1.41/swarm", 200, "{\"Version\":{\"Index\":3},\"Spec\":{\"Name\":\"default\"},\"JoinTokens\":{\"Worker\":\"TOK-W\","
                                  "\"Manager\":\"TOK-M\"}}" },
    { "POST", "/v1.41/swarm/update?version=3&rotateManagerToken=true", 200, "" },
    { "GET", "/v1.41/info", 200, "{\"Name\":\"host-1\",\"Swarm\":{\"NodeID\":\"n1\",\"NodeAddr\":\"10.0.0.1\","
                                 "\"ControlAvailable\":true,\"LocalNodeState\":\"active\",\"RemoteManagers\":[{\"NodeID\":\"n1\","
                                 "\"Addr\":\"10.0.0.1:2377\"}]}}" },
    { "GET", "/v1.41/nodes", 200,
      "[{\"ID\":\"n1\",\"Description\":{\"Hostname\":\"host-1\",\"Engine\":{\"EngineVersion\":\"0.1.0\"}},\"Spec\":{"
      "\"Availability\":\"active\"},\"Status\":{\"State\":\"ready\"},\"ManagerStatus\":{\"Leader\":true}},"
      "{\"ID\":\"n2\",\"Description\":{\"Hostname\":\"host-2\"},\"Spec\":{\"Availability\":\"drain\"},\"Status\":{"
      "\"State\":\"down\"}}]" },
    { "GET", "/v1.41/nodes/n1", 200, "{\"ID\":\"n1\",\"Version\":{\"Index\":5},\"Spec\":{\"Labels\":{\"a\":\"1\"},\"Role\":"
                                     "\"manager\",\"Availability\":\"active\"},\"Description\":{\"Hostname\":\"host-1\"}}" },
    { "POST", "/v1.41/nodes/n1/update?version=5", 200, "" },
    { "GET", "/v1.41/services?status=true", 200, "[" SVC "]" },
    { "GET", "/v1.41/services/shop_web", 200, SVC },
    { "GET", "/v1.41/services/svc1", 200, SVC },
    { "GET", "/v1.41/services/none", 404, "{\"message\":\"service none not found\"}" },
    { "POST", "/v1.41/services/svc1/update?version=7", 200, "{\"Warnings\":null}" },
    { "GET", "/v1.41/tasks", 200, "[" RUNNING("2") "," RUNNING("1") "]" },
    { "GET", "/v1.41/tasks/task1", 200, RUNNING("1") },
    { "GET", "/v1.41/services", 200, "[" SVC "]" },
    { "GET", "/v1.41/networks/shop_default", 404, "{\"message\":\"network shop_default not found\"}" },
    { "POST", "/v1.41/networks/create", 201, "{\"Id\":\"net1\"}" },
    { "GET", "/v1.41/secrets/shop_pw", 404, "{\"message\":\"x\"}" },
    { "POST", "/v1.41/secrets/create", 201, "{\"ID\":\"sec1\"}" },
    { "GET", "/v1.41/configs/shop_site", 200, "{\"ID\":\"cfg1\",\"Version\":{\"Index\":9},\"Spec\":{\"Name\":\"shop_site\"}}" },
    { "POST", "/v1.41/configs/cfg1/update?version=9", 400, "{\"message\":\"only updates to Labels are allowed\"}" },
    { "POST", "/v1.41/services/create", 201, "{\"ID\":\"svc1\"}" },
    { "DELETE", "/v1.41/services/shop_web", 200, "" },
    { "DELETE", "/v1.41/services/none", 404, "{\"message\":\"service none not found\"}" },
    { "GET", "/v1.41/containers/c1/json", 200, "{\"Config\":{\"Tty\":false}}" },
    { "POST", "/v1.41/auth", 200, "{\"Status\":\"Login Succeeded\"}" },
    { "POST", "/v1.41/images/load?quiet=0", 200, "{\"stream\":\"Loaded image: a:1\\n\"}\r\n" },
    { "POST", "/v1.41/containers/create?name=x", 400, "{\"message\":\"the name is taken\"}" },
    { "POST", "/v1.41/containers/c1/exec", 201, "{\"Id\":\"e1\"}" },
    { "GET", "/v1.41/exec/e1/json", 200, "{\"ExitCode\":42}" },
};

static void note(struct http_request *r, const char *body, size_t size)
{
    FILE *f = fopen(logfile, "a");
    fprintf(f, "%s %s %.*s\n", http_method(r), http_target(r), (int)size, body);
    fclose(f);
}

static const char frame_out[] = "\1\0\0\0\0\0\0\4out\n", frame_err[] = "\2\0\0\0\0\0\0\4err\n";
static const char frame_log[] = "\1\0\0\0\0\0\0\113com.docker.swarm.node.id=n1,com.docker.swarm.service.id=svc1,com.docker.swarm.task.id=task1 hi\n";

static void hijacked(struct http_request *r)
{
    struct stream *s = http_hijack(r, "application/vnd.docker.raw-stream");
    stream_write(s, frame_out, sizeof frame_out - 1);
    stream_write(s, frame_err, sizeof frame_err - 1);
    stream_free_when_sent(s);
}

static void streamed(struct http_request *r)
{
    bool service = strstr(http_path(r), "services") != NULL;
    size_t n = sizeof frame_log - 1;
    http_stream_start(r, 200, "application/vnd.docker.raw-stream");
    if (service) {
        char copy[sizeof frame_log];
        memcpy(copy, frame_log, sizeof frame_log);
        copy[7] = (char)(n - 8);
        http_stream_write(r, copy, 20); /* in pieces */
        http_stream_write(r, copy + 20, n - 20);
    } else {
        http_stream_write(r, frame_out, sizeof frame_out - 1);
    }
    http_stream_end(r);
}

/* Filters depend on encoding; they are compared by the tests through the log. */
static bool same_target(const char *target, const char *want)
{
    const char *f = strstr(target, "filters=");
    size_t n = f ? (size_t)(f - target) - 1 : strlen(target);
    return strlen(want) == n && !strncmp(target, want, n);
}

static void answer(void *arg, struct http_request *r, char *body, size_t size, const struct err *e)
{
    (void)arg;
    if (e) {
        http_reply_err(r, e);
        return;
    }
    note(r, body, size);
    if (str_ends(http_path(r), "/export"))
        return; /* never answered */
    if (str_ends(http_path(r), "/start")) {
        hijacked(r);
        return;
    }
    if (str_ends(http_path(r), "/logs")) {
        streamed(r);
        return;
    }
    for (unsigned i = 0; i < ARRAY_N(canned); i++)
        if (!strcmp(canned[i].method, http_method(r)) && same_target(http_target(r), canned[i].target)) {
            http_reply(r, canned[i].status, "application/json", canned[i].body, strlen(canned[i].body));
            return;
        }
    static const char none[] = "{\"message\":\"page not found\"}";
    http_reply(r, 404, "application/json", none, sizeof none - 1);
}

static void handle(void *arg, struct http_request *r)
{
    http_read_body(r, 1 << 20, answer, NULL);
}

static void accept_one(void *arg, struct stream *s)
{
    http_server_take(arg, s);
}

static void serve(int ready)
{
    struct err e;
    struct stream_listener *l;
    struct loop *loop = loop_new();
    struct http_server *h = http_server_new(loop, handle, NULL);
    if (stream_listen_unix(loop, sock, 0600, accept_one, h, &l, &e) == 0 && write(ready, "r", 1) == 1)
        loop_run(loop);
    _exit(1);
}

static int begin(void **state)
{
    int ready[2];
    char byte;
    if (!mkdtemp(dir) || pipe(ready) < 0)
        return -1;
    crypto_init();
    sock = path_join(dir, "api.sock");
    logfile = path_join(dir, "log");
    server = fork();
    if (server == 0)
        serve(ready[1]);
    close(ready[1]);
    bool up = read(ready[0], &byte, 1) == 1; /* it listens, or it ended */
    close(ready[0]);
    return up ? 0 : -1;
}

static int end(void **state)
{
    struct err e;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    free(sock);
    free(logfile);
    return file_remove_tree(dir, &e);
}

/* ---- one command ---- */
static char *out, *errors, *sent;
static struct err e;
static int status;

static int run(const char *line)
{
    struct strs words = { 0 };
    struct cli c = { 0 };
    size_t n, m;
    struct err ignored;
    free(out), free(errors), free(sent);
    unlink(logfile);
    c.out = open_memstream(&out, &n);
    c.err = open_memstream(&errors, &m);
    c.host = xstrdup(sock);
    FILE *f1 = c.out, *f2 = c.err;
    assert_int_equal(time_parse("2026-01-01T00:05:00Z", &c.now_ns), 0);
    assert_int_equal(stack_shell_split(line, &words), 0);
    e = (struct err){ 0 };
    int rc = cli_parse(&c, (int)words.n, words.v, &e);
    if (rc == 0)
        rc = c.command->run(&c, &e);
    status = c.status;
    fclose(f1);
    fclose(f2);
    cli_clear(&c);
    strs_clear(&words);
    if (file_read(logfile, 1 << 20, &sent, &n, &ignored) < 0)
        sent = xstrdup("");
    return rc;
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        print_error("\"%s\" is not in:\n%s\n", part, text);
    assert_non_null(strstr(text, part));
}

static void good(const char *line)
{
    int rc = run(line);
    if (rc < 0)
        print_error("%s: %s\n%s", line, e.text, sent);
    assert_int_equal(rc, 0);
}

static void swarm(void **state)
{
    good("shoal init --advertise-addr 10.0.0.1 --default-addr-pool 10.20.0.0/16");
    has(out, "Swarm initialized");
    has(out, "\n    shoal join --token TOK-W 10.0.0.1:2377\n");
    has(sent, "POST /v1.41/swarm/init {\"ListenAddr\":\"0.0.0.0:2377\",\"AdvertiseAddr\":\"10.0.0.1\",\"Availability\":"
              "\"active\",\"Managers\":\"auto\",\"DefaultAddrPool\":[\"10.20.0.0/16\"]}");
    good("shoal join-token -q manager");
    assert_string_equal(out, "TOK-M\n");
    good("shoal join-token --rotate manager");
    has(out, "shoal join --token TOK-M 10.0.0.1:2377");
    assert_int_equal(run("shoal leave"), -E_UNAVAILABLE);
    assert_string_equal(e.text, "a manager leaves only with force");
    assert_int_equal(run("shoal join-token king"), -E_INVALID);
}

static void nodes(void **state)
{
    good("shoal node ls");
    assert_string_equal(out, "ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION\n"
                             "n1 *      host-1     Ready     Active         Leader           0.1.0\n"
                             "n2        host-2     Down      Drain                           \n");
    good("shoal --format json node ls");
    has(out, "{\"Availability\":\"Active\",\"EngineVersion\":\"0.1.0\",\"Hostname\":\"host-1\",\"ID\":\"n1\",\"ManagerStatus\":"
             "\"Leader\",\"Self\":true,\"Status\":\"Ready\"}\n");
    good("shoal node ls -q");
    assert_string_equal(out, "n1\nn2\n");
    assert_int_equal(run("shoal node ls --format '{{.ID}}'"), -E_INVALID);
    has(e.text, "templates are not built");
    good("shoal node update --label-add b=2 --label-rm a --availability drain self");
    has(sent, "POST /v1.41/nodes/n1/update?version=5 {\"Labels\":{\"b\":\"2\"},\"Role\":\"manager\",\"Availability\":\"drain\"}");
    good("shoal node promote n1");
    assert_string_equal(out, "Node n1 is a manager already.\n");
}

static void services(void **state)
{
    good("shoal service ls --filter name=shop");
    assert_string_equal(out, "ID        NAME       MODE         REPLICAS   IMAGE     PORTS\n"
                             "svc1      shop_web   replicated   2/2        web:1     *:8080->80/tcp\n");
    has(sent, "filters=%7B%22name%22%3A%7B%22shop%22%3Atrue%7D%7D");
    good("shoal service ps shop_web");
    assert_string_equal(out, "ID        NAME         IMAGE     NODE      DESIRED STATE   CURRENT STATE           ERROR     PORTS\n"
                             "task1     shop_web.1   web:1     host-1    Running         Running 5 minutes ago             \n"
                             "task2     shop_web.2   web:1     host-1    Running         Running 5 minutes ago             \n");
    has(sent, "%22service%22%3A%7B%22svc1%22%3Atrue");
    good("shoal service scale -d shop_web=5");
    has(sent, "POST /v1.41/services/svc1/update?version=7 {\"Name\":\"shop_web\"");
    has(sent, "\"Mode\":{\"Replicated\":{\"Replicas\":5}}");
    good("shoal service update --env-add A=1 shop_web"); /* waits: monitor is 1 ns */
    has(sent, "\"Env\":[\"A=1\"]");
    assert_string_equal(out, "shop_web\nshop_web  2/2 running\nAll running as wanted.\n");
    assert_int_equal(run("shoal service inspect shop_web none"), -E_NOT_FOUND);
    assert_string_equal(e.text, "there is no service none");
    assert_int_equal(run("shoal service rm none shop_web"), 0);
    assert_int_equal(status, 1);
    assert_string_equal(out, "shop_web\n");
    assert_string_equal(errors, "Error: service none not found\n");
    good("shoal service logs shop_web");
    assert_string_equal(out, "shop_web.1.task1@host-1    | hi\n");
    has(sent, "details=1&stdout=1&stderr=1&tail=all");
}

static void put_file(const char *name, const char *text)
{
    struct err ignored;
    AUTO_FREE char *path = path_join(dir, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, &ignored), 0);
}

static void stack(void **state)
{
    put_file("pw", "secret words");
    put_file("a.yaml", "services:\n  web:\n    image: web:2\n    secrets: [pw]\n  api:\n    image: api:1\n"
                       "secrets:\n  pw:\n    file: ./pw\n");
    AUTO_FREE char *line = xasprintf("shoal stack deploy -c %s/a.yaml shop", dir);
    assert_int_equal(run(line), -E_NOT_FOUND); /* the daemon forgets the secret: it must be looked up by id */
    has(e.text, "there is no secret shop_pw");
    has(sent, "POST /v1.41/secrets/create {\"Name\":\"shop_pw\",\"Labels\":{\"com.docker.stack.namespace\":\"shop\"},\"Data\":"
              "\"c2VjcmV0IHdvcmRz\"}");
    has(sent, "POST /v1.41/networks/create ");
    put_file("a.yaml", "services:\n  web:\n    image: web:2\n  api:\n    image: api:1\n");
    good(line);
    has(out, "Creating network shop_default\n");
    has(out, "Updating service shop_web\n");
    has(out, "Creating service shop_api\n");
    has(sent, "POST /v1.41/services/svc1/update?version=7 {\"Name\":\"shop_web\"");
    has(sent, "\"ForceUpdate\":2");
    put_file("a.yaml", "services:\n  web:\n    image: web:2\n    configs: [site]\nconfigs:\n  site:\n    file: ./pw\n");
    assert_int_equal(run(line), -E_CONFLICT);
    has(e.text, "the data of config shop_site differs");
    put_file("a.yaml", "services:\n  web:\n    image: web:2\n    privileged_typo: yes\n");
    assert_int_equal(run(line), -E_INVALID);
    has(e.text, "a.yaml");
    good("shoal stack ls");
    assert_string_equal(out, "NAME      SERVICES\nshop      1\n");
    good("shoal stack services shop");
    has(out, "svc1      shop_web");
}

static void containers(void **state)
{
    good("shoal logs -t --tail 5 --since 1m c1");
    assert_string_equal(out, "out\n");
    has(sent, "GET /v1.41/containers/c1/logs?stdout=1&stderr=1&timestamps=1&tail=5&since=1767225840.000000000");
    assert_int_equal(run("shoal logs --tail few c1"), -E_INVALID);
    good("shoal exec -e A=1 c1 ls -l");
    assert_int_equal(status, 42);
    has(sent, "POST /v1.41/containers/c1/exec {\"Cmd\":[\"ls\",\"-l\"],\"Env\":[\"A=1\"],");
    assert_int_equal(run("shoal run --name x -p 8080:80 -m 64m web:1 serve"), -E_IO);
    assert_int_equal(status, 125);
    has(sent, "POST /v1.41/containers/create?name=x {\"Image\":\"web:1\",\"Cmd\":[\"serve\"],");
    has(sent, "\"Memory\":67108864");
    has(sent, "\"PortBindings\":{\"80/tcp\":[{\"HostPort\":\"8080\"}]}");
}

static void image_load_sends_the_file(void **state)
{
    enum { SIZE = 300000 };
    AUTO_FREE char *text = xcalloc(SIZE + 1, 1), *line = xasprintf("shoal image load -i %s/i.tar", dir);
    memset(text, 'x', SIZE);
    put_file("i.tar", text);
    good(line);
    assert_string_equal(out, "Loaded image: a:1\n");
    has(sent, "POST /v1.41/images/load?quiet=0 xxx");
    assert_true(strlen(sent) > SIZE);
    assert_int_equal(run("shoal image load -i /no/such/file"), -E_NOT_FOUND);
}

/* In a child process: as a program of its own, whatever the tests before caught. */
static void run_apart(const char *line)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    _exit(run(line) == 0 ? 0 : 1);
}

static unsigned count_files(const char *begin)
{
    DIR *d = opendir(dir);
    unsigned n = 0;
    for (struct dirent *de; d && (de = readdir(d));)
        n += str_starts(de->d_name, begin);
    closedir(d);
    return n;
}

static void interrupted_file(void **state)
{
    int how;
    AUTO_FREE char *line = xasprintf("shoal export -o %s/half.tar c1", dir);
    unlink(logfile);
    pid_t pid = fork();
    if (pid == 0)
        run_apart(line);
    int64_t until = clock_mono_ns() + 60 * SEC_NS;
    while (!file_exists(logfile) && clock_mono_ns() < until) /* the daemon has its request: the file is begun */
        usleep(10000);
    assert_int_equal(count_files("half.tar"), 1);
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGTERM);
    assert_int_equal(count_files("half.tar"), 0);
}

/* Reads what a command prints on its terminal until text comes. */
static void read_until(int fd, const char *text)
{
    char got[4096];
    size_t n = 0;
    ssize_t k;
    do {
        k = read(fd, got + n, sizeof got - n - 1);
        assert_true(k > 0);
        n += (size_t)k;
        got[n] = 0;
    } while (!strstr(got, text));
}

static void interrupted_prompt(void **state)
{
    static const struct { const char *line, *prompt; } cases[] = {
        { "shoal login -u me reg.test", "Password: " }, { "shoal backup /tmp/never", "Passphrase of the backup: " } };
    for (unsigned i = 0; i < ARRAY_N(cases); i++) {
        int master, how;
        struct termios t;
        pid_t pid = forkpty(&master, NULL, NULL, NULL);
        if (pid == 0)
            run_apart(cases[i].line);
        AUTO_CLOSE int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
        read_until(master, cases[i].prompt);
        assert_int_equal(tcgetattr(slave, &t), 0);
        assert_false(t.c_lflag & ECHO);
        assert_int_equal(write(master, "\3", 1), 1);
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGINT);
        assert_int_equal(tcgetattr(slave, &t), 0);
        assert_true(t.c_lflag & ECHO);
        close(master);
    }
}

static int login_with(const char *text, size_t n)
{
    AUTO_FREE char *path = path_join(dir, "password");
    assert_int_equal(file_write_volatile(path, text, n, 0600, NULL), 0);
    AUTO_CLOSE int kept = dup(0), fd = open(path, O_RDONLY | O_CLOEXEC);
    dup2(fd, 0);
    int rc = run("shoal login -u me --password-stdin reg.test");
    dup2(kept, 0);
    return rc;
}

static void whole_password(void **state)
{
    enum { LONG = 9000, MAX = 16 << 10 };
    AUTO_FREE char *text = xcalloc(MAX + 3, 1);
    setenv("SHOAL_CONFIG", dir, 1);
    memset(text, 'k', MAX + 2);
    memcpy(text + LONG, "end\r\n\n", 6);
    assert_int_equal(login_with(text, LONG + 6), 0);
    has(sent, "kkend\",");
    assert_true(strlen(sent) > LONG);
    assert_int_equal(login_with("two\nlines\n", 10), 0);
    has(sent, "two\\nlines\"");
    memset(text, 'k', MAX + 2);
    assert_int_equal(login_with(text, MAX + 1), -E_TOO_BIG);
    assert_int_equal(login_with("a\0b", 3), -E_INVALID);
    assert_int_equal(login_with("\n", 1), -E_INVALID);
    assert_string_equal(sent, "");
    unsetenv("SHOAL_CONFIG");
}

static void helpers_are_named(void **state)
{
    setenv("SHOAL_CONFIG", "/no/such/folder", 1);
    setenv("DOCKER_CONFIG", dir, 1);
    put_file("config.json", "{\"auths\":{\"reg.test\":{},\"plain.test\":{\"auth\":\"bWU6c2VjcmV0\"}},\"credsStore\":\"desktop\","
                            "\"credHelpers\":{\"cloud.test:5000\":\"cloud-login\"}}");
    assert_true(run("shoal image pull reg.test/a:1") < 0); /* the daemon here pulls nothing */
    has(errors, "docker-credential-desktop");
    has(errors, "`shoal login reg.test`");
    assert_true(run("shoal image pull cloud.test:5000/a:1") < 0);
    has(errors, "docker-credential-cloud-login");
    assert_true(run("shoal image pull plain.test/a:1") < 0);
    assert_string_equal(errors, "");
    assert_true(run("shoal image pull other.test/a:1") < 0);
    assert_string_equal(errors, "");
    unsetenv("SHOAL_CONFIG");
    unsetenv("DOCKER_CONFIG");
}

static void no_daemon(void **state)
{
    assert_int_equal(run("shoal -H unix:///no/daemon.sock node ls"), -E_UNAVAILABLE);
    assert_string_equal(e.text, "cannot reach the shoal daemon at /no/daemon.sock: No such file or directory. Is it "
                                "running? Start it with `systemctl start shoal` or `shoal daemon`.");
    free(out), free(errors), free(sent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(swarm),      cmocka_unit_test(nodes), cmocka_unit_test(services),
        cmocka_unit_test(stack),      cmocka_unit_test(containers), cmocka_unit_test(image_load_sends_the_file),
        cmocka_unit_test(interrupted_file), cmocka_unit_test(interrupted_prompt), cmocka_unit_test(whole_password),
        cmocka_unit_test(helpers_are_named),
        cmocka_unit_test(no_daemon),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
