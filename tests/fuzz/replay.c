/* A fuzzer's main without libFuzzer: samples, damaged samples and noise for a number of rounds, or saved inputs.
 *   fuzz_X [ROUNDS [SEED]]      round i has the seed SEED+i, so `fuzz_X 1 SEED` repeats one
 *   fuzz_X FILE...              inputs that libFuzzer has left
 *   fuzz_X --samples DIR        writes samples there, for libFuzzer to begin from */
#include "fuzz.h"

#include <inttypes.h>
#include <shoal/base/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { DAMAGED_A_ROUND = 8, N_SAMPLES = 200 };

static const char *name;
static uint64_t round_seed;

static void say_seed(void)
{
    fprintf(stderr, "replay: %s 1 %" PRIu64 "\n", name, round_seed);
}

static void on_abort(int sig)
{
    (void)sig;
    say_seed();
}

/* The sanitizers end the process without SIGABRT; this is their hook. */
void __sanitizer_set_death_callback(void (*)(void)) __attribute__((weak));

static void put(struct sb *b, size_t at, size_t cut, const void *bytes, size_t n)
{
    AUTO_FREE char *tail = xmemdup(b->s + at + cut, b->len - at - cut);
    size_t n_tail = b->len - at - cut;
    b->len = at;
    sb_add(b, bytes, n);
    sb_add(b, tail, n_tail);
}

static void damage(struct rng *g, struct sb *b)
{
    static const uint8_t edges[] = { 0, 1, 0x7f, 0x80, 0xfe, 0xff };
    size_t n_words = 0;
    while (fuzz_words[n_words])
        n_words++;
    for (uint64_t n = rng_range(g, 1, 4); n > 0 && b->len; n--) {
        size_t at = rng_below(g, b->len), cut = rng_below(g, MIN(b->len - at, 8) + 1);
        uint8_t any = rng_chance(g, 500) ? (uint8_t)rng_u64(g) : edges[rng_below(g, sizeof edges)];
        const char *word = n_words ? fuzz_words[rng_below(g, n_words)] : "";
        size_t from = rng_below(g, b->len), n_part = rng_below(g, MIN(b->len - from, 32) + 1);
        AUTO_FREE char *part = xmemdup(b->s + from, n_part);
        switch (rng_below(g, 7)) {
        case 0: b->s[at] = (char)(b->s[at] ^ 1 << rng_below(g, 8)); break;
        case 1: b->s[at] = (char)any; break;
        case 2: put(b, at, cut, "", 0); break;
        case 3: put(b, at, rng_chance(g, 500) ? cut : 0, word, strlen(word)); break;
        case 4: put(b, at, 0, &any, 1); break;
        case 5: put(b, at, rng_chance(g, 500) ? cut : 0, part, n_part); break;
        default:
            if (rng_chance(g, 300))
                put(b, at, b->len - at, "", 0);
        }
    }
}

/* In memory of exactly this size, so that one byte too far is seen. */
static void feed(const void *p, size_t size)
{
    AUTO_FREE uint8_t *exact = xmemdup(p, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
}

static void one_round(struct rng *g)
{
    AUTO_SB struct sb sample, b;
    sb_init(&sample, 0);
    sb_init(&b, 0);
    fuzz_sample(g, &sample);
    feed(sample.s, sample.len);
    for (unsigned i = 0; i < DAMAGED_A_ROUND; i++) {
        sb_reset(&b);
        sb_add(&b, sample.s, sample.len);
        damage(g, &b);
        feed(b.s, b.len);
    }
    uint8_t noise[64];
    size_t n = rng_below(g, sizeof noise + 1);
    rng_bytes(g, noise, n);
    feed(noise, n);
}

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    AUTO_SB struct sb b;
    sb_init(&b, 0);
    char part[4096];
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;)
        sb_add(&b, part, n);
    fclose(f);
    printf("%s: %zu bytes\n", path, b.len);
    feed(b.s, b.len);
    return 0;
}

static int write_samples(const char *dir)
{
    for (unsigned i = 0; i < N_SAMPLES; i++) {
        struct rng g;
        AUTO_SB struct sb b;
        AUTO_FREE char *path = xasprintf("%s/%u", dir, i);
        sb_init(&b, 0);
        rng_init(&g, i);
        fuzz_sample(&g, &b);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(b.s, 1, b.len, f) != b.len || fclose(f)) {
            perror(path);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    name = argv[0];
    crypto_init();
    if (argc == 3 && str_equal(argv[1], "--samples"))
        return write_samples(argv[2]);
    char *end = "";
    uint64_t rounds = argc > 1 ? strtoull(argv[1], &end, 10) : fuzz_rounds;
    if (*end) {
        int rc = 0;
        for (int i = 1; i < argc; i++)
            rc |= replay_file(argv[i]);
        return rc;
    }
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(say_seed);
    for (uint64_t i = 0; i < rounds; i++) {
        struct rng g;
        round_seed = seed + i;
        rng_init(&g, round_seed);
        one_round(&g);
    }
    printf("%s: %" PRIu64 " rounds from seed %" PRIu64 " passed\n", name, rounds, seed);
    return 0;
}
