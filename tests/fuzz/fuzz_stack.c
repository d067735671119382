/* stack_load() on damaged Compose files. Oracles: no crash or leak under the sanitizers; an error has a sentence and
 * leaves the result alone; what is accepted passes rec_check and is accepted again with the same result.
 * A NUL divides the input into two files that are merged. */
#include "fuzz.h"

#include <shoal/stack.h>

static int read_fake(void *arg, const char *path, size_t max, struct bytes *ret, struct err *e)
{
    if (strlen(path) % 5 == 0)
        return err_set(e, E_NOT_FOUND, "%s: no such file", path);
    *ret = (struct bytes){ xmemdup("A=1\nB=$A\n", 9), 9 };
    return 0;
}

static bool same(const struct stack *a, const struct stack *b)
{
    bool ok = a->services.n == b->services.n && a->networks.n == b->networks.n &&
              a->secrets.n == b->secrets.n && a->configs.n == b->configs.n && str_equal(a->name, b->name);
    for (uint32_t i = 0; ok && i < a->services.n; i++)
        ok = service_spec_equal(&a->services.v[i], &b->services.v[i]);
    for (uint32_t i = 0; ok && i < a->networks.n; i++)
        ok = network_equal(&a->networks.v[i], &b->networks.v[i]);
    for (uint32_t i = 0; ok && i < a->secrets.n; i++)
        ok = secret_spec_equal(&a->secrets.v[i], &b->secrets.v[i]);
    for (uint32_t i = 0; ok && i < a->configs.n; i++)
        ok = config_spec_equal(&a->configs.v[i], &b->configs.v[i]);
    return ok;
}

static bool try_files(const struct stack_source *files, unsigned n)
{
    static const char *const environ_pairs[] = { "SET=value", "EMPTY=", "N=3", "HOME=/home/me", NULL };
    struct stack_input in = { .name = "st", .dir = "/proj", .files = files, .n_files = n,
                              .environ_pairs = environ_pairs, .dotenv = &files[n - 1], .read = read_fake };
    struct stack a = { 0 }, b = { 0 }, zero = { 0 };
    struct err e = { 0 };
    if (strstr(files[n - 1].text, "services"))
        in.dotenv = NULL; /* a Compose file is seldom a good `.env` */
    int rc = stack_load(&in, &a, &e);
    if (rc < 0) {
        ASSERT(e.text[0] && memcmp(&a, &zero, sizeof a) == 0);
        return false;
    }
    for (uint32_t i = 0; i < a.services.n; i++)
        ASSERT(rec_check(&service_spec_rec, &a.services.v[i], &e) == 0);
    for (uint32_t i = 0; i < a.networks.n; i++)
        ASSERT(rec_check(&network_rec, &a.networks.v[i], &e) == 0);
    rc = stack_load(&in, &b, &e);
    ASSERT(rc == 0 && same(&a, &b));
    stack_free(&a);
    stack_free(&b);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size)
{
    AUTO_FREE char *text = xcalloc(size + 1, 1);
    memcpy(text, p, size);
    size_t n_first = strlen(text);
    struct stack_source f[2] = { { "fuzz.yaml", text, n_first } };
    if (size > n_first)
        f[1] = (struct stack_source){ "more.yaml", text + n_first + 1, strlen(text + n_first + 1) };
    struct strs words = { 0 };
    struct labels vars = { 0 };
    struct endpoint_spec ep = { 0 };
    struct err e = { 0 };
    int64_t n;
    try_files(f, size > n_first ? 2 : 1);
    (void)!stack_env_file_parse(f, false, NULL, &vars, &e);
    if (stack_shell_split(text, &words) == 0)
        strs_clear(&words);
    if (stack_duration_ns(text, &n) == 0 || stack_size_bytes(text, &n) == 0 || stack_nano_cpus(text, &n) == 0)
        ASSERT(n >= 0);
    (void)!stack_port_parse(text, (struct rec_list *)(void *)&ep.ports, &e);
    endpoint_spec_clear(&ep);
    labels_clear(&vars);
    return 0;
}

static const char *const seeds[] = {
    "services:\n  web:\n    image: nginx:${TAG:-1}\n    command: sh -c 'x y'\n    entrypoint: [a, \"--\"]\n"
    "    environment: {A: 1, B: $SET, C: }\n    env_file: [a.env, {path: bb.env, required: false}]\n"
    "    ports: [80, \"8080:81/udp\", \"9000-9001:90-91\", {target: 443, published: 8443, mode: host}]\n"
    "    volumes: [data:/d:ro, ./x:/x, {type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 01777}}]\n"
    "    networks: {front: {aliases: [w]}, back: }\n    secrets: [s, {source: s, target: t, mode: 0440}]\n"
    "    ulimits: {nofile: {soft: 1, hard: 2}, nproc: 5}\n    extra_hosts: [\"a:1.2.3.4\", \"b=::1\"]\n"
    "volumes: {data: {labels: [a=b]}}\nnetworks: {front: {}, back: {internal: true}}\n"
    "secrets: {s: {file: ./s}}\nx-any: &any {a: b}\n",
    "services:\n  api: &api\n    image: i\n    labels: [a=b]\n    restart: on-failure:3\n"
    "    deploy:\n      replicas: 2\n      update_config: {parallelism: 2, delay: 1m30s, order: start-first}\n"
    "      resources: {limits: {cpus: '0.5', memory: 512m}, reservations: {memory: 64M}}\n"
    "      placement: {constraints: [node.role==worker], preferences: [{spread: node.labels.z}]}\n"
    "      restart_policy: {condition: any, delay: 5s, window: 1m}\n"
    "    healthcheck: {test: [CMD, a], interval: 5s, retries: 3}\n    logging: {driver: json-file}\n"
    "  two:\n    <<: *api\n    image: j\nconfigs: {c: {content: \"x$$y\"}}\n",
    "services: {web: {image: other, environment: [A=2], ports: [\"81:80\"], dns: 1.1.1.1, command: [c]}}\n",
    "A=1\nB='two' # c\nC=\"x\\n$A\"\nexport D=${A:+y}\n", "1h2m3.5s", "1.5gib", "80-82:80-82/tcp",
};
const unsigned fuzz_rounds = 1000;
const char *const fuzz_words[] = { "$", "${", "}", "${SET:-", ":", "- ", "\n", "  ", "[", "]", "{", "}", "\"", "'",
                                    "null", "0", "-1", "99999999999999999999", "x-", "&a ", "*a", "<<: ",
                                    "external: true", "image", "1e400", "~", "\t", "#", ",", "!!binary ", NULL };

/* One file of the seeds, or two to merge; the first three are good Compose files, and stay accepted. */
void fuzz_sample(struct rng *g, struct sb *b)
{
    size_t k = rng_below(g, ARRAY_N(seeds));
    struct stack_source one = { "a.yaml", seeds[k], strlen(seeds[k]) };
    ASSERT(k >= 3 || try_files(&one, 1));
    sb_str(b, seeds[k]);
    if (rng_chance(g, 300)) {
        sb_char(b, 0);
        sb_str(b, seeds[rng_below(g, 3)]);
    }
}
